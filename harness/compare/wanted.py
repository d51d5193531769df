"""What is not measured yet: sizes of models that fit into classes of machines; and a device tag.

A size fits if its 4-bit weights and the usual context leave a tenth of the memory free.
"""
from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Container, Iterable, Sequence
from typing import Any, NamedTuple, Optional

from compare import canonical_names, folders, identity
from compare import entries as reading
from compare.headline import runs_of
from compare.titles_and_sizes import machine_text
from core import names
from core.errors import HarnessError
from core.records import Json
from core.text import fit_table

GIB = 1024 ** 3


class Size(NamedTuple):
    """A class of models by their billions of parameters, with a usual model as an example."""

    title: str
    low: float
    high: float
    example: str

    @property
    def memory_gib(self) -> float:
        """What the class's largest model needs at 4 bits: 4.8 bits per weight, and 1.5 GiB."""
        return self.high * 0.6 * 1e9 / GIB + 1.5


# In the order in which readers ask for them.
SIZES = (Size("7-9 B", 6.5, 9.5, "Qwen3 8B"), Size("3-4 B", 2.8, 4.6, "Qwen3 4B"),
         Size("12-15 B", 11.5, 15.5, "Gemma 3 12B"), Size("20-24 B", 19.5, 25, "gpt-oss 20B"),
         Size("27-35 B", 26, 35.5, "Qwen3 32B"), Size("1-2 B", 0.8, 2.2, "Llama 3.2 1B"),
         Size("70 B", 65, 75, "Llama 3.3 70B"), Size("120 B", 100, 130, "gpt-oss 120B"))
FREE_SHARE = 0.9              # of the memory, that a model may take
READING_LIMIT_S = 3.0


def size_of(name: Optional[str], parameters: Optional[float]) -> Optional[Size]:
    """The class of a model by its parameters, else by its canonical name."""
    billions = parameters / 1e9 if parameters else None
    found = re.search(r"(?:(\d+)x)?(\d+(?:\.\d+)?)([bm])$", name or "")
    if billions is None and found:
        billions = int(found[1] or 1) * float(found[2]) / (1000 if found[3] == "m" else 1)
    return next((size for size in SIZES if billions and size.low <= billions <= size.high), None)


def cells(submissions: Iterable[reading.Submission]) -> list[Json]:
    """What runs that count measured, and what is wanted, by class of machines, as --json publishes
    it."""
    found: dict[str, tuple[Optional[float], set[str]]] = {}
    for run in runs_of(submissions):
        machine, about = run.member.submission.machine, run.member.entry.about
        size = size_of(about.name, about.parameters)
        if not run.reasons and identity.HARDWARE_UNKNOWN not in machine.group:
            _, measured = found.setdefault(machine.group, (machine.memory_gib, set()))
            measured |= {size.title} if size else set()
    return [_cell(group, *one) for group, one in found.items()]


def _cell(group: str, memory_gib: Optional[float], measured: Container[str]) -> Json:
    room = (memory_gib or 0) * FREE_SHARE
    return {"machine_class": group, "memory_gib": memory_gib,
            "measured": [size.title for size in SIZES if size.title in measured],
            "wanted": [size.title for size in SIZES
                       if size.memory_gib <= room and size.title not in measured]}


def here(folder: str, hardware: Any, limit_s: float = READING_LIMIT_S) -> list[str]:
    """for_machine of the submissions in a folder; nothing if it is empty, or if they cannot be
    read in that time."""
    ends_s, found = time.monotonic() + limit_s, []
    try:
        for path in folders.submission_folders([folder]):
            if time.monotonic() > ends_s:
                return []
            with contextlib.suppress(reading.BrokenSubmission):
                found.append(reading.read_submission(*folders.corrected(path)))
        return for_machine(found, hardware)
    except (HarnessError, reading.BrokenSubmission):
        return []


def for_machine(submissions: Iterable[reading.Submission], hardware: Any) -> list[str]:
    """At most 3 lines on what is wanted of the machine of a hardware.json."""
    parts, cards = reading.hardware_facts(hardware)
    machine = identity.machine(parts, cards, "this machine", "loopback")
    own = next((one for one in cells(submissions) if one["machine_class"] == machine.group),
               _cell(machine.group, machine.memory_gib, ()))
    if not own["wanted"]:
        return []
    shown = [f"{size.title} ({size.example})" for size in SIZES if size.title in own["wanted"]]
    return [f"Measured so far on {machine_text(machine.group)}: "
            f"{', '.join(own['measured']) or 'no model of these sizes'}.",
            f"Wanted: {', '.join(shown[:3])}, in 4 bits."]


def device_tag(hardware: Any) -> Optional[str]:
    """A device tag for the machine of a hardware.json, such as `rtx-3060-12gb-ryzen-5-5600`,
    `m1-8gb` or `xeon-vm-2c-24gb`; None if too little of it is known."""
    parts, cards = reading.hardware_facts(hardware)
    machine = identity.machine(parts, cards, "", "loopback")
    chip = canonical_names.cpu(parts.get("cpu.model_name") or "unknown processor").split(",")[0]
    threads = parts.get("cpu.usable_threads_count") or parts.get("cpu.threads_count")
    title = machine_text(machine.group, [parts.get("system.model_name") or "unknown"])
    if machine.has_own_memory:
        whole = [f"{title} {chip}", title]
    elif parts.get("system.kind") == "vm" and threads and machine.memory_gib:
        whole = [f"{chip} vm {threads:.0f}c {machine.memory_gib:g} GB"]
    else:
        whole = [title]
    tags = (names.plain_name(re.sub(r"(\d) (?=GB|x )", r"\1", one), 60)
            for one in whole if not re.search("(?i)unknown|not reported", one))
    return next((tag for tag in tags if names.device_tag_problem(tag, names.this_machine())
                 is None), None)


def wanted_text(found: Sequence[Json], width: int) -> str:
    """A table of the classes of machines with what is measured and wanted, fewest first."""
    rows = [(machine_text(one["machine_class"]),
             f"{one['memory_gib']:g} GB" if one["memory_gib"] else "unknown",
             ", ".join(one["measured"]) or "nothing",
             ", ".join(one["wanted"]) or "nothing that fits")
            for one in sorted(found, key=lambda one: (len(one["measured"]), one["machine_class"]))]
    return "\n".join(fit_table(("machine", "memory", "measured", "wanted (4 bits)"), rows, (1,),
                               width)) if rows else "No run counts yet, so everything is wanted."
