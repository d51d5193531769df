"""How one machine, model and configuration changed over the versions of its runtime.

The number is the decode rate of the headline. Neighbouring versions have a verdict by the same
test as two sides of runs; most are `cannot tell`, because a new version seldom changes much.
"""
from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, Optional

from compare import entries as reading
from compare import identity, verdicts
from compare.headline import Run, runs_of
from compare.ranking import RANKED_BY
from compare.titles_and_sizes import machine_text, model_title
from core.records import Json
from core.text import fit_table, printable


def series(submissions: Iterable[reading.Submission]) -> list[Json]:
    """Two or more versions of one runtime with one machine, model and configuration, as --json
    publishes them; runs that are not ranked are left out. ratio, verdict: to the version before,
    null for the first."""
    rows: dict[Any, dict[str, list[Run]]] = {}
    for run in runs_of(submissions):
        one = run.member.identity
        version = one.runtime[1]
        if not run.reasons and version and RANKED_BY in run.numbers:
            key = one._replace(runtime=(one.runtime[0], None, one.runtime[2])).exact
            rows.setdefault(key, {}).setdefault(version, []).append(run)
    found = [_series(key, versions) for key, versions in rows.items() if len(versions) > 1]
    return sorted(found, key=lambda one: (one["model"], one["machine_class"], one["series_id"]))


def _series(key: Any, versions: dict[str, list[Run]]) -> Json:
    points: list[Json] = []
    before: Optional[verdicts.Side] = None
    for version in sorted(versions, key=version_order):
        values = [run.numbers[RANKED_BY] for run in versions[version]]
        side = verdicts.side_of(values)
        ratio = verdict = None
        if before:
            apart = verdicts.difference(before, side, verdicts.prior(RANKED_BY))
            ratio = round(math.exp(side.mean - before.mean), 4)
            verdict = "cannot tell" if not apart else "faster" if apart > 0 else "slower"
        points.append({
            "version": version, RANKED_BY: verdicts.interval(RANKED_BY, values)._asdict(),
            "ratio": ratio, "verdict": verdict,
            "run_ids": [run.member.submission.run_id for run in versions[version]]})
        before = side
    one = versions[version][-1].member.identity
    return {"series_id": identity.short_id(key), "block_id": identity.short_id(one.block),
            "model": one.block, "quantization": one.quant, "machine_class": one.machine.group,
            "runtime": one.runtime[0], "backend": one.runtime[2], "versions": points}


def version_order(version: str) -> list[tuple[int, int, str]]:
    """Numbers by size, texts by letter: b6800 < b7012, 0.9.1 < 0.10.0-rc1 < 0.10.0."""
    parts = re.findall(r"\d+|[a-z]+", version.lower())
    order = [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]
    return [*order, (0, 0, "~")]          # after a pre-release's letters, before a further number


def history_text(found: Sequence[Json], width: int) -> str:
    """One table per series, or a sentence without any."""
    if not found:
        return "No machine has runs of two versions of one runtime with equal settings."
    lines = []
    for one in found:
        names = (model_title(one["model"]), one["quantization"],
                 machine_text(one["machine_class"]), one["runtime"], one["backend"])
        lines += [printable(", ".join(filter(None, names))), *fit_table(
            ("version", "writes tok/s", "runs", "to the version before"), [
                (printable(point["version"]), f"{point[RANKED_BY]['value']:.4g}",
                 str(len(point["run_ids"])),
                 "" if point["ratio"] is None else f"{point['ratio']:.3f}  {point['verdict']}")
                for point in one["versions"]], (1, 2), width), ""]
    return "\n".join(lines[:-1])
