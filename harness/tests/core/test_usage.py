"""Test token counts under the names that servers use."""
from __future__ import annotations

import unittest
from typing import Any, Optional

from core import usage


def counts(reported: Any, timings: Any = None) -> tuple[Optional[int], ...]:
    """(prompt, completion, total, cached, reasoning)."""
    response: Any = {"usage": reported, "server_timings": timings}
    return tuple(usage.counts(response)[:5])


class Counts(unittest.TestCase):
    def test_each_dialect(self) -> None:
        for reported, expected in (
                ({"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12,
                  "prompt_tokens_details": {"cached_tokens": 4},
                  "completion_tokens_details": {"reasoning_tokens": 2}}, (9, 3, 12, 4, 2)),
                ({"input_tokens": 9, "output_tokens": 3, "input_tokens_details":
                  {"cached_tokens": 4}}, (9, 3, None, 4, None)),
                ({"input_tokens": 5, "output_tokens": 3, "cache_read_input_tokens": 4},
                 (9, 3, None, 4, None)),
                ({"prompt_eval_count": 9, "eval_count": 3}, (9, 3, None, None, None)),
                ({"promptTokenCount": 9, "candidatesTokenCount": 3, "totalTokenCount": 12,
                  "thoughtsTokenCount": 2, "cachedContentTokenCount": 4}, (9, 3, 12, 4, 2)),
                ({"prompt_tokens": 9, "completion_tokens": 3, "prompt_cache_hit_tokens": 4},
                 (9, 3, None, 4, None)),
                ({"prompt_tokens": 9, "completion_tokens": 3, "cached_tokens": 4},
                 (9, 3, None, 4, None))):
            self.assertEqual(counts(reported), expected)
        self.assertEqual(counts(None, {"prompt_n": 5, "cache_n": 4, "predicted_n": 3}),
                         (9, 3, None, 4, None))

    def test_one_bad_field_does_not_hide_the_others(self) -> None:
        self.assertEqual(counts({"prompt_tokens": "9", "completion_tokens": 3}),
                         (None, 3, None, None, None))
        self.assertEqual(counts({"prompt_tokens": 9, "completion_tokens": 0, "output_tokens": 3}),
                         (9, 3, None, None, None))
        self.assertEqual(counts({"prompt_tokens": 9.0, "completion_tokens": None},
                                {"predicted_n": 3}), (9, 3, None, None, None))

    def test_what_is_not_reported_is_not_zero(self) -> None:
        self.assertEqual(counts({}), (None,) * 5)
        self.assertEqual(counts({"cached_tokens": 0})[3], 0)
        self.assertEqual(tuple(usage.counts(None)), (None,) * 6)

    def test_zero_is_no_count_of_a_prompt_or_beside_text(self) -> None:
        zeros = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 0)
        for text, completion in (("", 0), ("One.", None)):
            response: Any = {"usage": zeros, "server_timings": None, "text": text}
            self.assertEqual(tuple(usage.counts(response)[:3]), (None, completion, None))

    def test_an_invalid_count_is_named(self) -> None:
        for reported, name in (({"completion_tokens": "x"}, "completion_tokens"),
                               ({"completion_tokens": "x", "output_tokens": 3}, None),
                               ({"completion_tokens": None}, None)):
            response: Any = {"usage": reported, "server_timings": None}
            self.assertEqual(usage.counts(response).invalid, name)


if __name__ == "__main__":
    unittest.main()
