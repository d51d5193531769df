"""What a server writes, as it is published."""
from __future__ import annotations

import unittest
from unittest import mock

from core import usage
from core.privacy import MachineName
from run import redaction

NAMES = (MachineName("user", "zaphod"), MachineName("host", "betelgeuse"))


class Published(unittest.TestCase):
    def setUp(self):
        redaction._field.cache_clear()
        patch = mock.patch.object(redaction, "own_names", lambda: NAMES)
        patch.start()
        self.addCleanup(patch.stop)
        self.addCleanup(redaction._field.cache_clear)
        self.addCleanup(redaction._keys.clear)

    def test_own_names_and_private_values_leave_every_text(self):
        self.assertEqual(redaction.document({
            "engine": {"version": "6.0.33.1", "build": "built-on-betelgeuse by zaphod"},
            "slots": [{"node": "192.168.1.20"}], "count": 4, "is": None}), {
            "engine": {"version": "6.0.33.1", "build": "built-on-<redacted:host> by "
                       "<redacted:user>"},
            "slots": [{"node": "<redacted:address>"}], "count": 4, "is": None})

    def test_model_ids_lose_names_and_the_key_and_stay_different(self):
        redaction.hide("s3cret-key")
        self.assertEqual(redaction.model_id("zaphod/m-s3cret-key"),
                         "<redacted:user>/m-<redacted:key>")
        found = redaction.model_names(["zaphod-a", "betelgeuse-a", "Zaphod-a"])
        self.assertEqual(len(set(found.values())), 3)

    def test_usage_keeps_numbers_under_known_names(self):
        given = {"prompt_tokens": 5, "node": "betelgeuse", "details": {"cached_tokens": 2, "x1": 3},
                 "service_tier": "standard", "stop_reason": "by zaphod", "total_time": "1.5e-3",
                 "phone": 491701234567, "draft_n_accepted": None, "spec_accept": [1, "zaphod", 2]}
        kept = {"prompt_tokens": 5, "details": {"cached_tokens": 2}, "service_tier": "standard",
                "total_time": "1.5e-3", "draft_n_accepted": None, "spec_accept": [1, 2]}
        self.assertEqual(usage.kept(given), kept)
        self.assertEqual(usage.kept(kept), kept)

    def test_every_name_that_is_read_is_kept(self):
        names = {*usage.ALL_NAMES, *usage.TOP_LEVEL, "draft_n", "predicted_per_token_ms",
                 *(name for names in usage.DETAILS.values() for name in names)}
        self.assertEqual({name for name in names if not usage.is_known(name)}, set())
