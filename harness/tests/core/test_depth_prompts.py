"""Test the prompts of depth."""
from __future__ import annotations

import unittest

from core import depth_prompts
from core.suites import Question, load_suites

SUITES = load_suites()
TEXTS = depth_prompts.source_texts(SUITES)
QUESTION = Question("cold", "x" * 96)


class Prompts(unittest.TestCase):
    def test_source_never_changes_within_the_release(self) -> None:
        self.assertEqual(depth_prompts.source_sha256(SUITES)[:16], "4d06e14deaf96861")

    def test_document_has_its_length_and_a_code_at_head_middle_and_tail(self) -> None:
        for depth, chars in ((1024, 4000), (8192, 33_333), (32_768, 140_001)):
            text, codes = depth_prompts.document(TEXTS, depth, chars), depth_prompts.canaries(depth)
            self.assertEqual((len(text), len(set(codes))), (chars, 3))
            places = [text.index(code) / chars for code in codes]
            self.assertLess(places[0], 0.01)
            self.assertAlmostEqual(places[1], 0.5, delta=0.02)
            self.assertGreater(places[2], 0.99)
            self.assertEqual([text.count(code) for code in codes], [1, 1, 1])

    def test_documents_of_two_depths_have_other_codes(self) -> None:
        self.assertFalse(set(depth_prompts.canaries(1024)) & set(depth_prompts.canaries(4096)))

    def test_prompts_are_sized_by_the_count_of_the_server(self) -> None:
        for counted, chars in ((None, 4096), ((3000, 1000), 3072), ((3000, 1), 8192),
                               ((10, 3000), 1024)):       # a count that cannot be right
            self.assertEqual(depth_prompts.document_chars(1024, QUESTION, counted), chars - 96)


if __name__ == "__main__":
    unittest.main()
