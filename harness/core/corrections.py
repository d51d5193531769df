"""Read submissions/CORRECTIONS.json, in which maintainers annotate merged runs.

Files of a merged run are never edited. A correction withdraws a run, marks it as disputed, or
replaces declared values, such as a wrong quantization. Comparisons obey them.
"""
from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any

from core import schema
from core.errors import HarnessError
from core.records import Json

NAME = "CORRECTIONS.json"
MAX_BYTES = 1024 * 1024
LEVELS = 5                    # from a run's folder to submissions/, and one above it

Corrections = Mapping[str, list[Json]]       # by run id


def parse(data: bytes) -> Corrections:
    """The corrections in a file's bytes, by run id. Raises ValueError."""
    if len(data) > MAX_BYTES:
        raise ValueError(f"{len(data)} bytes; at most {MAX_BYTES} are allowed")
    document = schema.strict_json(data)
    for wrong in schema.validate(document, "corrections", exact=True):
        raise ValueError(f"{wrong.path} {wrong.message}")
    found: dict[str, list[Json]] = {}
    for one in document["corrections"]:
        found.setdefault(one["run_id"], []).append(one)
    return found


@functools.lru_cache(maxsize=64)
def near(folder: str) -> Corrections:
    """The corrections of the nearest CORRECTIONS.json in or above a folder. Raises HarnessError."""
    above = os.path.realpath(folder)
    for _ in range(LEVELS):
        place = os.path.join(above, NAME)
        if os.path.isfile(place):
            try:
                with open(place, "rb") as file:
                    return parse(file.read(MAX_BYTES + 1))
            except (OSError, ValueError) as error:
                raise HarnessError(f"{ascii(place)[1:-1]}: {error}; restore it from the "
                                   "repository") from None
        above = os.path.dirname(above)
    return {}


def reasons(run_id: str, corrections: Corrections) -> tuple[str, ...]:
    """Why a run is not to be compared, such as `withdrawn 2026-11-29: wrong model`."""
    return tuple(f"{one['state']} {one['since']}: {one['reason']}"
                 for one in corrections.get(run_id, ()) if one["state"] != "corrected")


def doubted(found: Corrections) -> frozenset[str]:
    """The ids of the runs that are withdrawn or disputed."""
    return frozenset(run_id for run_id in found if reasons(run_id, found))


def apply(run_id: str, corrections: Corrections, documents: Mapping[str, Any]) -> None:
    """Replace the values that are corrected. documents: `hardware` and `metadata`, changed in
    place; a value that a document does not have is left out."""
    for one in corrections.get(run_id, ()):
        for key, value in one["values"].items():
            name, *parts = key.split(".")
            held: Any = documents.get(name)
            for part in parts:
                if isinstance(held, list) and part.isdigit() and int(part) < len(held):
                    held = held[int(part)]
                else:
                    held = held.get(part) if isinstance(held, dict) else None
            if isinstance(held, dict) and {"value", "source", "reason"} <= held.keys():
                held.update(value=value, source="declared",
                            reason=f"corrected {one['since']}: {one['reason']}"[:300])
