"""How one machine, model and configuration changed over the versions of its runtime.

The number is the decode rate of the headline. Neighbouring versions have a verdict by the same
test as two sides of runs; most are `cannot tell`, because a new version seldom changes much.
"""
from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Optional

from compare import entries as reading
from compare import identity, verdicts
from compare.headline import Run, runs_of
from compare.ranking import RANKED_BY
from core.text import fit_table, printable

Json = dict[str, Any]


class Point(NamedTuple):
    """One version: its runs, their values, and the change from the version before. verdict:
    "faster", "slower" or "cannot tell", None for the first. ratio: to the version before."""

    version: str
    runs: tuple[reading.Submission, ...]
    values: tuple[float, ...]
    spread: reading.Spread
    ratio: Optional[float]
    verdict: Optional[str]


class Series(NamedTuple):
    """Two or more versions of one runtime with one machine, model and configuration."""

    id: str
    identity: identity.Identity
    device: reading.Device
    points: tuple[Point, ...]


def series(submissions: Iterable[reading.Submission]) -> list[Series]:
    """Series by model, machine and runtime; runs that are not ranked are left out."""
    rows: dict[Any, dict[str, list[Run]]] = {}
    for run in runs_of(submissions):
        one = run.member.identity
        version = one.runtime[1]
        if not run.reasons and version and RANKED_BY in run.numbers:
            key = one._replace(runtime=(one.runtime[0], None, one.runtime[2])).exact
            rows.setdefault(key, {}).setdefault(version, []).append(run)
    found = [_series(key, versions) for key, versions in rows.items() if len(versions) > 1]
    return sorted(found, key=lambda one: (one.identity.block, one.identity.machine.group, one.id))


def _series(key: Any, versions: dict[str, list[Run]]) -> Series:
    points: list[Point] = []
    for version in sorted(versions, key=version_order):
        runs = versions[version]
        values = tuple(run.numbers[RANKED_BY] for run in runs)
        ratio = verdict = None
        if points:
            sides = verdicts.side_of(points[-1].values), verdicts.side_of(values)
            apart = verdicts.difference(*sides, verdicts.VERDICT, verdicts.prior(RANKED_BY))
            ratio = round(math.exp(sides[1].mean - sides[0].mean), 4)
            verdict = "cannot tell" if not apart else "faster" if apart > 0 else "slower"
        points.append(Point(version, tuple(run.member.submission for run in runs), values,
                            reading.Spread(*verdicts.interval(RANKED_BY, values)), ratio, verdict))
    newest = versions[points[-1].version][-1].member
    return Series(identity.short_id(key), newest.identity, newest.submission.device, tuple(points))


def version_order(version: str) -> list[tuple[int, int, str]]:
    """Numbers by size, texts by letter: b6800 < b7012, 0.9.1 < 0.10.0-rc1 < 0.10.0."""
    parts = re.findall(r"\d+|[a-z]+", version.lower())
    order = [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]
    return [*order, (0, 0, "~")]          # after a pre-release's letters, before a further number


def history_json(found: Iterable[Series]) -> list[Json]:
    """Series as --json publishes them."""
    return [{"series_id": one.id, "block_id": identity.short_id(one.identity.block),
             "model": one.identity.block, "quantization": one.identity.quant,
             "machine_class": one.identity.machine.group, "runtime": one.identity.runtime[0],
             "backend": one.identity.runtime[2],
             "versions": [{"version": point.version, "decode_tokens_per_s": point.spread._asdict(),
                           "ratio": point.ratio, "verdict": point.verdict,
                           "run_ids": [run.run_id for run in point.runs]}
                          for point in one.points]} for one in found]


def history_text(found: Sequence[Series], width: int) -> str:
    """One table per series, or a sentence without any."""
    if not found:
        return "No machine has runs of two versions of one runtime with equal settings."
    lines = []
    for one in found:
        engine, _, backend = one.identity.runtime
        lines += [printable(", ".join(filter(None, (
            one.identity.block, one.identity.quant, one.identity.machine.group, engine,
            backend)))), *fit_table(
            ("version", "writes tok/s", "runs", "to the version before"), [
                (printable(point.version), f"{point.spread.value:.4g}", str(len(point.runs)),
                 "" if point.ratio is None else f"{point.ratio:.3f}  {point.verdict}")
                for point in one.points], (1, 2), width), ""]
    return "\n".join(lines[:-1])
