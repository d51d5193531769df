"""Heartbeat: notice during a run that the machine was suspended or starved."""
from __future__ import annotations

import array
import threading
import time

HEARTBEAT_S = 0.1                     # notices a suspended machine
HEARTBEAT_FINE_S = 0.01               # estimates a reader's lag if the kernel gives no timestamps


class Heartbeat(threading.Thread):
    """Sleeps and reads the clock: oversleeping means a suspended or starved machine."""

    def __init__(self, period_s: float) -> None:
        super().__init__(daemon=True)
        self.period_s, self.beats = period_s, array.array("q")   # pairs: when ns, overslept µs
        self.ended = threading.Event()
        self.least_us = 0 if period_s < HEARTBEAT_S else 50_000

    def run(self) -> None:
        last_ns = time.perf_counter_ns()
        while not self.ended.wait(self.period_s):
            now_ns = time.perf_counter_ns()
            overslept_us = (now_ns - last_ns) // 1000 - int(self.period_s * 1e6)
            if overslept_us >= self.least_us:
                self.beats.extend((now_ns, max(overslept_us, 0)))
            last_ns = now_ns

    def longest_gap_us(self, from_ns: int, to_ns: int) -> int:
        """Longest time between two beats in a window; the period if none was late."""
        return int(self.period_s * 1e6) + max(self.between(from_ns, to_ns), default=0)

    def between(self, from_ns: int, to_ns: int) -> list[int]:
        """Overslept µs of the beats whose sleep overlaps a window."""
        out = []
        for i in range(len(self.beats) - 2, -1, -2):
            if self.beats[i] < from_ns:
                break
            if self.beats[i] - self.beats[i + 1] * 1000 <= to_ns:
                out.append(self.beats[i + 1])
        return out
