from __future__ import annotations

import os
import unittest
from unittest import mock

from machine import awake


@unittest.skipIf(os.name == "nt", "Windows has a function for it")
class KeptAwake(unittest.TestCase):
    def kept(self, *command: str, found: bool = True) -> object:
        """What is recorded with this command in place of the system's."""
        with mock.patch.dict(awake.COMMANDS, dict.fromkeys(awake.COMMANDS, command)), \
                mock.patch("shutil.which", lambda _: "x" if found else None), \
                awake.kept_awake() as method:
            return method

    def test_running_command_keeps_the_machine_awake(self) -> None:
        self.assertIn(self.kept("cat"), awake.COMMANDS)

    def test_missing_and_refused_commands_are_no_method(self) -> None:
        with mock.patch.object(awake, "STARTED_S", 20.0):
            self.assertIsNone(self.kept("false"))
        self.assertIsNone(self.kept("/nowhere/command"))
        self.assertIsNone(self.kept("cat", found=False))


if __name__ == "__main__":
    unittest.main()
