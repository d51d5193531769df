"""Errors that end a program with one line on standard error and an exit code.

The message names what is wrong, the value seen and what to do next. It contains safe text only.
"""
from __future__ import annotations

import signal


class HarnessError(Exception):
    """Wrong usage: an option, file or folder that cannot be used."""

    exit_code = 2


class EndpointError(HarnessError):
    """The endpoint cannot be used, or no longer."""

    exit_code = 3


class StorageError(HarnessError):
    """A file cannot be read or written, or no longer."""

    exit_code = 4


class Interrupted(HarnessError):
    """A signal ended the program."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.exit_code = 128 + number
