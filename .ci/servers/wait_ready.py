"""wait_ready.py URL PID: returns once URL answers 200.

Fails when the process has gone, or after three minutes.
"""

from __future__ import annotations

import os
import sys
import time
import urllib.request

LIMIT_S = 180


def answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def main(url: str, pid: int) -> int:
    give_up_at = time.monotonic() + LIMIT_S
    while time.monotonic() < give_up_at and runs(pid):
        if answers(url):
            return 0
        time.sleep(0.2)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
