"""Schemas, their validator, and strict JSON."""
from __future__ import annotations

import json
import unittest

from tests import format_schemas


class Schemas(unittest.TestCase):
    def test_schemas_are_formatted(self) -> None:
        for path in sorted(format_schemas.SCHEMAS.iterdir()):
            with self.subTest(path.name):
                text = path.read_text("utf-8")
                self.assertEqual(text, format_schemas.formatted(json.loads(text)) + "\n",
                                 "type python3 harness/tests/format_schemas.py")


if __name__ == "__main__":
    unittest.main()
