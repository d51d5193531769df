from __future__ import annotations

import email.utils
import unittest
from unittest import mock

from engines import server_errors
from run import retries

NOW_S = 1_764_000_000.0


class Pauses(unittest.TestCase):
    def test_servers_are_asked_again_when_they_say(self):
        date = email.utils.formatdate(NOW_S + 40, usegmt=True)
        busy, limited = "server_busy", "rate_limited"
        for kind, headers, attempts, pause_s in (
                (limited, {}, 0, 1.0), (busy, {}, 2, 4.0), (busy, {}, 50, 30.0),
                (busy, {"retry-after": "7"}, 0, 7.0), (busy, {"retry-after": "0"}, 0, 1.0),
                (limited, {"retry-after": "soon"}, 0, 1.0),
                (limited, {"retry-after": "-1"}, 0, 1.0), (limited, {"retry-after": date}, 0, 40.0),
                (limited, {"x-ratelimit-reset": str(int(NOW_S + 60))}, 0, 60.0),
                (limited, {"x-ratelimit-reset": str(int(NOW_S + 60) * 1000)}, 0, 60.0),
                (limited, {"x-ratelimit-reset": "12"}, 0, 12.0),
                (limited, {"x-ratelimit-reset-requests": "1m30s"}, 0, 90.0),
                (limited, {"x-ratelimit-reset-tokens": "6000ms"}, 0, 6.0),
                ("http_error", {"retry-after": "7"}, 0, None), ("ok", {}, 0, None),
                (limited, {}, retries.MAX_ATTEMPTS, None)):
            with self.subTest(f"{kind} {headers} {attempts}"), \
                    mock.patch("time.time", lambda: NOW_S):
                self.assertEqual(retries.pause_s(kind, headers, "", attempts), pause_s)

    def test_servers_that_load_a_model_are_asked_again(self):
        for status, body, is_loading in (
                (202, '{"status": "loading"}', True), (202, '{"status": "accepted"}', False),
                (502, '{"error": {"message": "Model is loading, try again"}}', True),
                (500, '{"error": "loading model"}', True), (425, "the engine is not ready", True),
                (504, "<title>Gateway Time-out</title>", False), (502, "Bad Gateway", False),
                (500, '{"error": "error loading model: out of memory"}', False),
                (500, '{"error": "model failed while it is loading"}', False),
                (400, '{"error": "model is loading"}', True),
                (404, '{"error": "no such model"}', False),
                (409, "model is still loading", True), (200, '{"status": "loading"}', True),
                (401, '{"error": "model is loading"}', False)):
            with self.subTest(status=status, body=body):
                self.assertEqual(server_errors.error_kind(status, body) == "server_busy",
                                 is_loading)

    def test_used_up_quotas_are_not_waited_for(self):
        for message, expected in (
                ("Rate limit exceeded: free-models-per-day", True), ("Daily limit reached", True),
                ("You exceeded your current quota", True), ("insufficient_quota", True),
                ("Add 10 credits to unlock more", True), ("slow down", False),
                ("20 requests per minute", False), ("", False)):
            body = '{"error": {"message": "' + message + '"}}'
            with self.subTest(message):
                self.assertEqual(retries.is_used_up("rate_limited", body), expected)
                self.assertEqual(retries.pause_s("rate_limited", {}, body, 0) is None, expected)
                self.assertFalse(retries.is_used_up("server_busy", body))


if __name__ == "__main__":
    unittest.main()
