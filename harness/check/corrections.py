"""Check submissions/CORRECTIONS.json: its form, its runs, and the values that it replaces."""
from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from typing import Optional

from check import findings, privacy_scan
from complete import declared
from core import corrections, schema
from core.errors import HarnessError

PATH = f"submissions/{corrections.NAME}"
MOST_MODELS = schema.schema("metadata")["properties"]["models"]["maxItems"]


def doubted_near(paths: Collection[str]) -> frozenset[str]:
    """Ids of the withdrawn and disputed runs of these folders. An invalid file gives none: `check`
    reports it."""
    try:
        return frozenset().union(*(corrections.doubted(corrections.near(path)) for path in paths))
    except HarnessError:
        return frozenset()


def doubted_in(data: bytes) -> frozenset[str]:
    """The same, of the bytes of a CORRECTIONS.json."""
    try:
        return corrections.doubted(corrections.parse(data))
    except ValueError:
        return frozenset()


def check(data: bytes, run_ids: Collection[str], notes: findings.Notes) -> None:
    """Add all findings. run_ids: of the runs that may be corrected."""
    try:
        found = corrections.parse(data)
    except ValueError as error:
        notes.add("correction-invalid", str(error))
        return
    for run_id, own in found.items():
        if run_id not in run_ids:
            notes.add("correction-invalid", f"there is no run {run_id}")
        for one in own:
            privacy_scan.check_document({"reason": one["reason"], "values": one["values"]}, run_id,
                                        notes)
            if bool(one["values"]) != (one["state"] == "corrected"):
                notes.add("correction-invalid", f"{run_id}: state is {one['state']} with "
                                                f"{len(one['values'])} values")
            try:
                date.fromisoformat(one["since"])
            except ValueError:
                notes.add("correction-invalid", f"{run_id}: there is no day {one['since']}")
            for key, value in one["values"].items():
                if key not in declared.all_keys(MOST_MODELS):
                    notes.add("correction-invalid", f"{run_id}: {schema.shown(key)} is not a "
                                                    "declared value")
                elif not declared.is_valid(key, value):
                    notes.add("correction-invalid", f"{run_id}: {key} accepts "
                                                    f"{declared.accepted(key)}, or null")


def compare(before: Optional[bytes], data: bytes, handles: Mapping[str, str],
            notes: findings.Notes) -> None:
    """Add a finding for each entry that a change adds or removes. handles: by run id."""
    try:
        old, new = (corrections.parse(one) if one else {} for one in (before, data))
    except ValueError:                       # a finding of check
        return
    for code, these, others, word in (
            ("no-submission", new, old, "added"),
            ("correction-invalid", old, new, "gone; only a maintainer's push to main removes one")):
        for run_id, own in these.items():
            for one in own:
                if one not in others.get(run_id, ()):
                    notes.add(code, f"{one['state']} since {one['since']}, of a run of "
                              f"{handles.get(run_id, 'no one')}: this entry is {word}",
                              place=run_id)
