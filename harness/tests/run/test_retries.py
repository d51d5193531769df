from __future__ import annotations

import email.utils
import unittest
from unittest import mock

from run import retries

NOW_S = 1_764_000_000.0


class Pauses(unittest.TestCase):
    def test_servers_are_asked_again_when_they_say(self):
        date = email.utils.formatdate(NOW_S + 40, usegmt=True)
        for status, headers, attempts, pause_s in (
                (429, {}, 0, 1.0), (503, {}, 2, 4.0), (503, {}, 50, 30.0),
                (503, {"retry-after": "7"}, 0, 7.0), (503, {"retry-after": "0"}, 0, 1.0),
                (429, {"retry-after": "soon"}, 0, 1.0), (429, {"retry-after": "-1"}, 0, 1.0),
                (429, {"retry-after": date}, 0, 40.0),
                (429, {"x-ratelimit-reset": str(int(NOW_S + 60))}, 0, 60.0),
                (429, {"x-ratelimit-reset": str(int(NOW_S + 60) * 1000)}, 0, 60.0),
                (429, {"x-ratelimit-reset": "12"}, 0, 12.0),
                (429, {"x-ratelimit-reset-requests": "1m30s"}, 0, 90.0),
                (429, {"x-ratelimit-reset-tokens": "6000ms"}, 0, 6.0),
                (500, {"retry-after": "7"}, 0, None), (200, {}, 0, None), (None, {}, 0, None),
                (429, {}, retries.MAX_ATTEMPTS, None)):
            with self.subTest(f"{status} {headers} {attempts}"), \
                    mock.patch("time.time", lambda: NOW_S):
                self.assertEqual(retries.pause_s(status, headers, "", attempts), pause_s)

    def test_servers_that_load_a_model_are_asked_again(self):
        for status, body, is_loading in (
                (202, '{"status": "loading"}', True), (202, '{"status": "accepted"}', False),
                (502, '{"error": {"message": "Model is loading, try again"}}', True),
                (500, '{"error": "loading model"}', True), (425, "the engine is not ready", True),
                (504, "<title>Gateway Time-out</title>", False), (502, "Bad Gateway", False),
                (500, '{"error": "error loading model: out of memory"}', False),
                (500, '{"error": "model failed while it is loading"}', False),
                (400, '{"error": "model is loading"}', False),
                (200, '{"status": "loading"}', False)):
            with self.subTest(status=status, body=body):
                self.assertEqual(retries.pause_s(status, {}, body, 0), 1.0 if is_loading else None)

    def test_used_up_quotas_are_not_waited_for(self):
        for message, expected in (
                ("Rate limit exceeded: free-models-per-day", True), ("Daily limit reached", True),
                ("You exceeded your current quota", True), ("insufficient_quota", True),
                ("Add 10 credits to unlock more", True), ("slow down", False),
                ("20 requests per minute", False), ("", False)):
            body = '{"error": {"message": "' + message + '"}}'
            with self.subTest(message):
                self.assertEqual(retries.is_used_up(429, body), expected)
                self.assertEqual(retries.pause_s(429, {}, body, 0) is None, expected)
                self.assertFalse(retries.is_used_up(503, body))


if __name__ == "__main__":
    unittest.main()
