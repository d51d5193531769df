#!/usr/bin/env python3
"""What this machine is, and how busy it is, without what identifies it.

`inventory()` is the draft of a submission's hardware.json; `Sampler` reads the gauges that a run
writes as `host_sampled`. Linux, macOS and Windows; nothing is installed, nothing goes elsewhere.

    python3 harness/hardware.py            a table for people
    python3 harness/hardware.py --json     hardware.json

Privacy: no command here is asked for a serial number, a UUID, a MAC address, a host or a user
name. Queries name their fields one by one (`nvidia-smi --query-gpu=...`, `sysctl NAME`, CIM
`Select-Object`, `udevadm --property=...`) because the full listings of the same tools print such
names; where a tool has no such query (`system_profiler`), only the fields named here are taken.

Every parser is a pure function from the text of a file or a command to numbers, null where the
text does not say; `Machine` is the only part that touches the machine, so that tests hand in a
recorded one. ctypes is imported where it is used: a Python built without it can run the rest.
"""
import sys

if sys.version_info < (3, 9):      # above all code that an older Python cannot run
    sys.exit("hardware needs Python 3.9 or newer; this is " + sys.version.split()[0])

import argparse
import contextlib
import json
import time
from typing import Any, Callable, Optional, Sequence

from machine import gauges, inventory

# ---------------------------------------------------------------- the command

def describe(document: dict[str, Any]) -> str:
    """The inventory as lines for people: field, value, or in brackets why there is none."""
    rows = [(f"{section}.{name}", item) for section in inventory.FIELDS
            for name, item in document[section].items()]
    rows.append(("accelerators_count", document["accelerators_count"]))
    rows += [(f"accelerators[{at}].{name}", item)
             for at, card in enumerate(document["accelerators"]) for name, item in card.items()]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {_shown(name, item)}" for name, item in rows)


def _shown(name: str, item: dict[str, Any]) -> str:
    value = item["value"]
    if value is None:
        return f"({item['reason']})"
    if name.endswith("_bytes"):
        return f"{value} ({value / 1024 ** 3:.1f} GiB)"
    return " ".join(value) if isinstance(value, list) else str(value)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Shows what this machine is, as it would stand in a submission's "
                    "hardware.json. Nothing is written, nothing leaves the machine, and nothing "
                    "that names the machine or its user is shown.",
        epilog="Exit codes: 0 shown; 2 usage. Values in brackets were not found; "
               "complete_submission.py asks for those that matter.")
    parser.add_argument("--json", action="store_true", help="print it as hardware.json")
    parser.add_argument("--no-bandwidth", action="store_true",
                        help="leave out the memory copy, which keeps all cores busy for a second")
    return parser


def busy_now(sampler: gauges.Sampler, pause: Callable[[float], Any] = time.sleep) -> str:
    """How much of the processors was in use while nothing was measured; in words."""
    with contextlib.closing(sampler):
        pause(gauges.BUSY_LOOK_S)
        busy = sampler.sample()["cpu_busy_ratio"]
    return "(the system does not tell it at once)" if busy is None else f"{busy:.0%}"


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Runs the command; the exit code."""
    options = build_parser().parse_args(argv)
    busy = None if options.json else busy_now(gauges.Sampler())
    found = inventory.inventory(measure=not options.no_bandwidth)
    print(json.dumps(found, indent=2, ensure_ascii=False) if options.json else describe(found))
    if busy:
        print(f"\nprocessors in use just now: {busy}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
