"""Why a program ends early: one line on standard error, and an exit code.

The message says what, the value seen, and what to type next; nothing in it is unescaped.
"""
from __future__ import annotations

import signal


class HarnessError(Exception):
    """Wrong usage: a flag, a file or a folder that cannot be taken."""

    exit_code = 2


class EndpointError(HarnessError):
    """The endpoint cannot be used, or no more."""

    exit_code = 3


class StorageError(HarnessError):
    """A file cannot be read or written, or no more."""

    exit_code = 4


class Interrupted(HarnessError):
    """A signal ended the program."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number
