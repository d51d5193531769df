"""Find the calls that other programs disturbed, from the samples of the host's load."""
from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from core import metric_definitions as defs
from core.records import LedgerLine


class HostLoad:
    """How much of the busy CPUs other programs and virtual machines took, by segment and time."""

    def __init__(self, events: Sequence[LedgerLine]) -> None:
        self._ends_us: dict[int, list[int]] = {}
        self._shares: dict[int, list[float]] = {}
        for event in events:
            if event["event"] != "host_sampled":
                continue
            ends_us = self._ends_us.setdefault(event["segment"], [])
            shares = self._shares.setdefault(event["segment"], [])
            busy, stolen = event["cpu_busy_ratio"], event["cpu_steal_ratio"] or 0.0
            others = event["other_cpu_busy_ratio"]
            if busy is None or others is None:        # the next sample covers this one's time, too
                if not ends_us:
                    ends_us.append(event["t_us"])
                    shares.append(0.0)
                continue
            is_full = busy + stolen >= defs.FULL_CPU_RATIO
            ends_us.append(event["t_us"])
            shares.append((others + stolen) / (busy + stolen) if is_full else 0.0)

    def is_disturbed(self, segment: int, begin_us: int, end_us: int) -> bool:
        """Whether others took more than OTHER_CPU_SHARE of the busy CPUs in that time, on average.

        While some CPUs are idle, others take nothing. False if nothing is known of that time.
        """
        ends_us, shares = self._ends_us.get(segment, []), self._shares.get(segment, [])
        taken, known_us = 0.0, 0
        for at in range(bisect_right(ends_us, begin_us), len(ends_us)):
            since_us = ends_us[at - 1] if at else 0
            if since_us >= end_us:
                break
            within_us = min(ends_us[at], end_us) - max(since_us, begin_us)
            taken += shares[at] * within_us
            known_us += within_us
        return taken > defs.OTHER_CPU_SHARE * known_us
