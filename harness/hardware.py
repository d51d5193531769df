#!/usr/bin/env python3
"""Describe this machine, as in a submission's hardware.json, and show how busy it is.

Nothing is written or sent, and nothing that identifies the machine or its user is printed: queries
name their fields where they can, because full listings of the same tools contain serial numbers.
Parentheses mark values that were not found; complete_submission.py asks for those that matter.

exit codes: 0 printed; 2 wrong usage.
"""
import sys

if sys.version_info < (3, 9):      # above all code that an older Python cannot run
    sys.exit("hardware needs Python 3.9 or newer; this is " + sys.version.split()[0])

import contextlib
import json
import time
from typing import Any, Callable, Optional, Sequence

from core import text, thresholds
from machine import gauges, inventory


def describe(document: dict[str, Any]) -> list[str]:
    """The inventory as lines: field, and value or, in parentheses, why it is missing."""
    rows = [(f"{section}.{name}", item) for section in inventory.FIELDS
            for name, item in document[section].items()]
    rows.append(("accelerators_count", document["accelerators_count"]))
    rows += [(f"accelerators[{at}].{name}", item)
             for at, card in enumerate(document["accelerators"]) for name, item in card.items()]
    return text.align_columns([(name, f"({item['reason']})" if item["value"] is None
                                else text.field_text(name, item["value"]))
                               for name, item in rows], (), text.terminal_width())


def busy_now(sampler: gauges.Sampler, pause: Callable[[float], Any] = time.sleep
             ) -> Optional[float]:
    """The share of the processors that other programs use now; None if it is not reported."""
    with contextlib.closing(sampler):
        pause(gauges.BUSY_LOOK_S)
        busy: Optional[float] = sampler.sample()["cpu_busy_ratio"]
    return busy


def before_a_run(busy: Optional[float], power: Optional[str]) -> list[str]:
    """What to do before a run about other programs and about the battery. power: its source."""
    shown = "unknown (the system does not report it at once)" if busy is None else f"{busy:.0%}"
    is_busy = (busy or 0) > thresholds.OTHER_CPU_SHARE
    wishes = ["close other programs"] * is_busy + ["connect mains power"] * (power == "battery")
    return [f"processors in use now: {shown}", *(
        [f"Before a run: {' and '.join(wishes)}, if you can. Otherwise run anyway, and mention it "
         "in your notes." + " What other programs slow is published, but not ranked." * is_busy
         + " At this load, no call may count: choose another time, or a run with few phases."
         * ((busy or 0) > 0.5)]
        if wishes else [])]


def build_parser() -> text.Parser:
    """The command line."""
    parser = text.Parser("hardware", __doc__)
    parser.add_argument("--json", action="store_true", help="print hardware.json")
    parser.add_argument("--no-bandwidth", action="store_true",
                        help="skip the memory-bandwidth test, which uses all cores for a second")
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the program; returns the exit code."""
    options = build_parser().parse_args(argv)
    busy = None if options.json else busy_now(gauges.Sampler())
    found = inventory.inventory(measure=not options.no_bandwidth)
    # ASCII, since a redirected file has the console's code page.
    if options.json:
        text.print_safe(json.dumps(found, indent=2))
    else:
        text.print_text("\n".join([*describe(found), "", *before_a_run(
            busy, found["power"]["source"]["value"])]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
