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
