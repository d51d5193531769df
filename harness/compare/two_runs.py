"""Two runs, or two sides of several runs each, question by question; pure functions.

    compare_sides    two sides -> notes, and a row for each model, phase and metric
    render_sides     that as text for a terminal

How it is told: per question the median over a side's answers; B's over A's is one ratio; the median
of the ratios has the exact interval of metrics.ratio_summary, and metrics.verdict says what that
means. Decode rate and TPOT are those over the chunks that all answers to the question have: the
longer an answer goes on, the slower is each token, and no two runs' answers are equally long.
Between two sessions of one machine that is not yet enough: single runs are `indicative`, and tell
nothing within the spread that the rate had inside one of them, since what made it differ from call
to call may differ from run to run; where other programs used the processors, that is said.
`confirmed` needs three runs a side of which none lies among those of the other side (two-sided
error 10 % at three a side, 2.9 % at four); where so many overlap, nothing is told.
"""
from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from core import metric_definitions, metrics
from core.records import CallFinished
from core.text import fit_table, format_number, printable, wrapped

Json = dict[str, Any]

Key = tuple[str, str]                        # model, phase
Values = dict[str, dict[str, float]]         # question -> metric -> value

COMPARED = ("decode_tokens_per_s", "ttft_ms", "tpot_ms", "e2el_ms", "prefill_tokens_per_s")
TITLES = {name: metric_definitions.METRICS[name].title for name in (
    "decode_tokens_per_s", "ttft_ms", "tpot_ms", "e2el_ms", "prefill_tokens_per_s")}
MIN_CONFIRMING_RUNS = 3

# Flags under which a metric says nothing of the server's speed. `unstable` and `drifting` are not
# among them: spread is what the interval is for. Nor is `failures`: what has no pair is left out.
# Where a conversation grows on both sides, a cache on both is how it is meant to be.
ALL = frozenset(COMPARED)
FIRST_TOKEN = frozenset(("ttft_ms", "e2el_ms", "prefill_tokens_per_s"))
RATES = frozenset(("decode_tokens_per_s", "tpot_ms", "prefill_tokens_per_s"))
SPREADING = frozenset(("decode_tokens_per_s", "tpot_ms"))   # whose spread in a run is known
SPOILS = {
    "truncated": ALL, "cached_prefill": FIRST_TOKEN, "client_bound": ALL, "suspended": ALL,
    "hidden_reasoning": ALL, "usage_implausible": RATES, "tokens_from_chunks": RATES,
    "not_streamed": ALL, "model_mismatch": ALL,
}


class PairingError(Exception):
    """Two sides with no model in common; the message lists what each has."""


class Run(NamedTuple):
    """One run: its manifest, the calls that count, and metrics.summarize_run of it."""

    manifest: Any
    calls: Sequence[CallFinished]
    summary: Json


def run_of(manifest: Any, events: Sequence[Any], calls: Sequence[CallFinished]) -> Run:
    """A Run of what ledger.load_run and ledger.latest_calls gave."""
    return Run(manifest, calls, metrics.summarize_run(manifest, events))


# --- per question --------------------------------------------------------------------------------
def question_values(run: Run, cell: Json, shared: Mapping[str, int]) -> Values:
    """{question: {metric: median over the repeats}} of a cell's answered calls.

    shared: {question: so many gaps count for decode rate and TPOT}.
    """
    trust_usage = cell["output_tokens_source"] != "chunks"
    found: dict[str, list[Json]] = {}
    for call in _answered(run, (cell["model"], cell["phase"])):
        numbers = metrics.call_metrics(call, trust_usage)
        found.setdefault(call["question_id"], []).append(
            _over_shared(numbers, metrics.early_speed(call, shared[call["question_id"]])))
    return {question: _medians(numbers) for question, numbers in found.items()}


def _over_shared(numbers: Json, speed: float) -> Json:
    rate, tpot_ms = numbers["decode_tokens_per_s"], numbers["tpot_ms"]
    return {**numbers, "decode_tokens_per_s": None if rate is None else rate * speed,
            "tpot_ms": None if tpot_ms is None else tpot_ms / speed}


def shared_gaps(cells: Iterable[tuple[Run, Json]]) -> dict[str, int]:
    """{question: the gaps between chunks that all of its answers have, those of none apart}."""
    found: dict[str, int] = {}
    for run, cell in cells:
        for call in _answered(run, (cell["model"], cell["phase"])):
            gaps, question = metrics.gaps_count(call), call["question_id"]
            found[question] = min(gaps or sys.maxsize, found.get(question, sys.maxsize))
    return found


def _answered(run: Run, key: Key) -> list[CallFinished]:
    return [c for c in run.calls if (c["model"], c["phase"]) == key and c["outcome"] == "ok"]


def _medians(numbers: Sequence[Json]) -> dict[str, float]:
    told = {name: [n[name] for n in numbers if n[name] is not None] for name in COMPARED}
    return {name: float(metrics.median(values)) for name, values in told.items() if values}


def _texts(runs: Sequence[Run], key: Key) -> dict[str, set[str]]:
    """{question: what was asked}. A growing conversation holds the model's own words, so there
    the question alone counts; elsewhere all messages do."""
    found: dict[str, set[str]] = {}
    field = "prompt" if key[1] in metric_definitions.GROWING_PHASES else "messages_sha256"
    for run in runs:
        for call in _answered(run, key):
            request: Any = call["request"]
            found.setdefault(call["question_id"], set()).add(request[field])
    return found


# --- what two sides have in common ---------------------------------------------------------------
def models_of(runs: Iterable[Run]) -> list[str]:
    """Models with a call in any of the runs, in order."""
    return list(dict.fromkeys(cell["model"] for run in runs for cell in run.summary["cells"]))


def paired_models(a: Sequence[str], b: Sequence[str]) -> list[tuple[str, str]]:
    """Equal names, else the only one with the only one; raises PairingError."""
    same = [(model, model) for model in a if model in b]
    if same:
        return same
    if len(a) == len(b) == 1:
        return [(a[0], b[0])]
    raise PairingError(f"no model stands on both sides: A has {_listed(a)}; B has {_listed(b)}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names)) or "none"


def differences(a: Sequence[Run], b: Sequence[Run]) -> list[str]:
    """Why no number of two sides can be compared: what was asked was not the same."""
    out = []
    for title, of in (("harness version", lambda m: m["harness_version"]),
                      ("synthetic", lambda m: str(m["synthetic"]).lower()),
                      *((name, _option(name)) for name in sorted(a[0].manifest[
                          "canonical_options"]))):
        left, right = (sorted({str(of(run.manifest)) for run in side}) for side in (a, b))
        if left != right or len(left) > 1:
            out.append(f"{title} is {' and '.join(left)} in A, {' and '.join(right)} in B")
    return out


def _option(name: str) -> Any:
    def value(manifest: Json) -> Any:
        return manifest["canonical_options_overrides"].get(
            name, manifest["canonical_options"].get(name))
    return value


def _cells(runs: Sequence[Run], model: str) -> dict[str, list[tuple[Run, Json]]]:
    found: dict[str, list[tuple[Run, Json]]] = {}
    for run in runs:
        for cell in run.summary["cells"]:
            if cell["model"] == model and not cell["cold"]:
                found.setdefault(cell["phase"], []).append((run, cell))
    return found


# --- two sides -----------------------------------------------------------------------------------
def compare_sides(a: Sequence[Run], b: Sequence[Run]) -> Json:
    """{"a", "b", "differences", "rows"}; a and b tell their runs, rows are as `_row` makes them.

    Cold calls are left out: each model has one of them, and it holds the model's load. Raises
    PairingError.
    """
    found = differences(a, b)
    rows = [row for pair in paired_models(models_of(a), models_of(b))
            for row in _model_rows(a, b, pair, found)]
    return {"a": list(map(_about, a)), "b": list(map(_about, b)), "differences": found,
            "rows": rows}


def _about(run: Run) -> Json:
    manifest = run.manifest
    return {name: manifest[name] for name in ("run_id", "submitter_handle", "device_tag",
                                              "started_at", "models", "synthetic")} | {
        "engine": manifest["engine"]["name"], "engine_version": manifest["engine"]["version"],
        "run_flags": run.summary["run_flags"]}


def _model_rows(a: Sequence[Run], b: Sequence[Run], pair: tuple[str, str],
                found: Sequence[str]) -> Iterable[Json]:
    left, right = _cells(a, pair[0]), _cells(b, pair[1])
    for phase in left:
        if phase in right:
            yield from _phase_rows(pair, phase, left[phase], right[phase], found)


def _phase_rows(pair: tuple[str, str], phase: str, left: Sequence[tuple[Run, Json]],
                right: Sequence[tuple[Run, Json]], found: Sequence[str]) -> Iterable[Json]:
    texts = [_texts([run for run, _ in side], (model, phase))
             for side, model in zip((left, right), pair)]
    same = [q for q in texts[0] if len(texts[0][q] | texts[1].get(q, set())) == 1]
    changed = [q for q in texts[0] if q in texts[1] and q not in same]
    shared = shared_gaps([*left, *right])
    values = [[question_values(run, cell, shared) for run, cell in side] for side in (left, right)]
    lanes = {cell["lanes"] for _, cell in (*left, *right)}
    refusals = [*found, *([f"lanes are {' and '.join(map(str, sorted(lanes)))}"]
                          if len(lanes) > 1 else [])]
    # Of several lanes each call's rate depends on what the others do, by design.
    spread = max(cell["verdicts"]["unstable"]["iqr_ratio"] or 0.0 if cell["lanes"] == 1 else 0.0
                 for _, cell in (*left, *right))
    flags = [{flag for _, cell in side for flag in cell["flags"]} for side in (left, right)]
    by_design = {"cached_prefill"} & flags[0] & flags[1] if phase in metric_definitions.GROWING_PHASES \
        else set()
    for metric in COMPARED:
        spoilt = [flag for flag in metric_definitions.ordered_flags((flags[0] | flags[1]) - by_design)
                  if metric in SPOILS.get(flag, ())]
        told = _told(metric, values[0], values[1], same, [*refusals, *spoilt],
                     spread if metric in SPREADING else 0.0)
        yield {"model_a": pair[0], "model_b": pair[1], "phase": phase, "metric": metric,
               "unit": metric_definitions.METRICS[metric].unit, "questions_changed": changed,
               **_with_caveat(told, left, right),
               "flags": metric_definitions.ordered_flags(flags[0] | flags[1])}


def _with_caveat(told: Json, left: Sequence[tuple[Run, Json]],
                 right: Sequence[tuple[Run, Json]]) -> Json:
    """A verdict from few runs says so where one of them had to share its machine."""
    busy = [name for name, side in (("A", left), ("B", right))
            if any("busy_host" in run.summary["run_flags"] for run, _ in side)]
    if told["standing"] != "indicative" or not busy:
        return told
    return {**told, "reason": f"busy_host: {', '.join(busy)}"}


def _told(metric: str, a: Sequence[Values], b: Sequence[Values], questions: Sequence[str],
          refusals: Sequence[str], spread: float) -> Json:
    """median_a, median_b, ratio, verdict, standing, reason of one metric over some questions."""
    pairs = [(_middle(a, q, metric), _middle(b, q, metric)) for q in questions]
    whole = [(left, right) for left, right in pairs if left is not None and right is not None]
    ratio = metrics.ratio_summary(pairs)
    told = (("not comparable", None, "; ".join(refusals)) if refusals else
            _verdict(metric, ratio, *_indices(metric, a, b, questions), spread))
    return {**{name: metrics.round_sig(metrics.median(p[i] for p in whole)) if whole else None
               for i, name in enumerate(("median_a", "median_b"))},
            "ratio": ratio, **dict(zip(("verdict", "standing", "reason"), told))}


def _middle(side: Sequence[Values], question: str, metric: str) -> Optional[float]:
    values = [run[question][metric] for run in side if metric in run.get(question, {})]
    return float(metrics.median(values)) if values else None


def _indices(metric: str, a: Sequence[Values], b: Sequence[Values],
             questions: Sequence[str]) -> tuple[list[float], list[float]]:
    """Each run as one number: the median of its answers' ratios to side A's."""
    against = {q: _middle(a, q, metric) for q in questions}
    found: tuple[list[float], list[float]] = ([], [])
    for side, into in zip((a, b), found):
        for run in side:
            ratios = [run[q][metric] / base for q, base in against.items()
                      if base and metric in run.get(q, {})]
            if ratios:
                into.append(float(metrics.median(ratios)))
    return found


def _verdict(metric: str, ratio: Json, a: Sequence[float], b: Sequence[float],
             spread: float) -> tuple[str, Optional[str], Optional[str]]:
    """(verdict of B, indicative or confirmed, why it cannot be told)."""
    direction = metric_definitions.METRICS[metric].direction
    told = metrics.verdict(ratio, direction)
    if min(len(a), len(b)) < MIN_CONFIRMING_RUNS:
        if told == "cannot tell":
            return told, None, _doubt(ratio)
        if 1 / (1 + spread) < ratio["median"] < 1 + spread:
            return "cannot tell", None, f"it varies by {spread:.0%}"
        return told, "indicative", None
    if not (max(a) < min(b) or max(b) < min(a)):
        return "cannot tell", None, "the runs overlap"
    # So many runs apart speak for themselves, also where too few questions have an interval.
    middle = float(metrics.median(b)) / float(metrics.median(a))
    apart = metrics.verdict({"ci_low": middle, "ci_high": middle, "median": middle}, direction)
    if apart == "cannot tell" or (ratio["ci_low"] is not None and told != apart):
        return "cannot tell", None, _doubt(ratio)
    return apart, "confirmed", None


def _doubt(ratio: Json) -> str:
    if not ratio["n"]:
        return "nothing to pair"
    if ratio["ci_low"] is None:
        return f"{ratio['n']} pairs, an interval needs {metric_definitions.MIN_RANKED_N}"
    if ratio["ci_low"] <= 1 <= ratio["ci_high"]:
        return "1 is within"
    return f"under {metric_definitions.DIFFERENT_RATIO - 1:.0%} apart"


# --- as text -------------------------------------------------------------------------------------
COLUMNS = ("phase", "metric", "A", "B", "B / A", "pairs", "verdict of B")
LEGEND = ("B / A is the median of the questions' ratios with its exact 95 % interval. faster and "
          "slower: the interval leaves out 1 and the median is 5 % or more away from it; "
          "indicative from single runs, confirmed from 3 runs a side of which none lies among the "
          "other side's. Decode rate and TPOT are over the chunks that all answers to a question "
          "have; of single runs, what one of them varied by itself is no difference.")


def render_sides(found: Json, width: int) -> str:
    """The comparison for a terminal of `width` columns: what was compared, rows, what they mean."""
    lines = [_side_line(name, run) for name in ("a", "b") for run in found[name]]
    names = {flag for name in ("a", "b") for run in found[name] for flag in run["run_flags"]}
    lines += metric_definitions.explain_flags(names)
    lines += [f"not comparable: {printable(text, 500)}" for text in found["differences"]]
    pairs = dict.fromkeys((row["model_a"], row["model_b"]) for row in found["rows"])
    for left, right in pairs:
        rows = [r for r in found["rows"] if (r["model_a"], r["model_b"]) == (left, right)]
        title = printable(left) if left == right else f"A {printable(left)}, B {printable(right)}"
        lines += ["", title, *_table(rows, width), *_untold(rows), *_changed(rows)]
    if not pairs:
        lines += ["", "no phase was run on both sides"]
    return "\n".join(part for line in [*lines, "", LEGEND]
                     for part in ([line] if len(line) <= width else wrapped(line, width, "  ")))


def _side_line(name: str, run: Json) -> str:
    version = f" {printable(run['engine_version'])}" if run["engine_version"] else ""
    return (f"{name.upper()}  run {run['run_id'][:8]}  {run['started_at'][:16]}Z  "
            f"{printable(run['submitter_handle'])}/{printable(run['device_tag'])}  "
            f"{printable(run['engine'])}{version}{'  synthetic' if run['synthetic'] else ''}"
            f"{''.join(f'  {flag}' for flag in run['run_flags'])}")


def _is_open(row: Json) -> bool:
    """Nothing was told, and so few questions can tell nothing: a line for all of them is enough."""
    return row["ratio"]["ci_low"] is None and row["verdict"] == "cannot tell"


def _table(rows: Sequence[Json], width: int) -> list[str]:
    shown = [_line(row) for row in rows if not _is_open(row)]
    return fit_table(COLUMNS, shown, (2, 3, 5), width) if shown else []


def _line(row: Json) -> tuple[str, ...]:
    ratio = row["ratio"]
    shown = "-" if ratio["median"] is None else f"{ratio['median']:.3f}"
    if ratio["ci_low"] is not None:
        shown += f" [{ratio['ci_low']:.3f}-{ratio['ci_high']:.3f}]"
    told = ", ".join(filter(None, (row["verdict"], row["standing"])))
    reason = f": {printable(row['reason'], 500)}" if row["reason"] else ""
    return (row["phase"], TITLES[row["metric"]], format_number(row["median_a"]), format_number(row["median_b"]),
            shown, str(ratio["n"]), told + reason)


def _untold(rows: Sequence[Json]) -> list[str]:
    """`5q: cannot tell (5 pairs, an interval needs 6): TTFT ms, TPOT ms`. A metric that a phase
    does not have, as short prompts have no prefill rate, is passed over."""
    found: dict[tuple[str, str], list[str]] = {}
    paired = {row["phase"] for row in rows if row["ratio"]["n"]}
    for row in filter(_is_open, rows):
        if row["ratio"]["n"] or row["phase"] not in paired:
            found.setdefault((row["phase"], row["reason"]), []).append(TITLES[row["metric"]])
    return [f"{phase}: cannot tell ({reason}): {', '.join(titles)}"
            for (phase, reason), titles in found.items()]


def _changed(rows: Sequence[Json]) -> list[str]:
    found = {row["phase"]: row["questions_changed"] for row in rows if row["questions_changed"]}
    return [f"{phase}: left out, since they were asked otherwise: "
            f"{', '.join(map(printable, questions))}" for phase, questions in found.items()]
