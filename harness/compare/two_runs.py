"""Compare two runs, or two sides of several runs each; pure functions.

Verdicts are on four quantities only, because each further one adds false alarms: decode rate and
TTFT over the one-lane phases, throughput of the lanes, and prefill of long prompts. Each run is one
number, the median over its questions of log(value / value of side A); verdicts.difference judges
these numbers.
"""
from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Optional

from compare import verdicts
from core import flag_definitions, ledger, metric_definitions, metrics, plan, run_summary
from core.errors import HarnessError
from core.records import CallFinished, Json
from core.text import align_columns, fit_table, number_column, printable, time_text, wrapped

Key = tuple[str, str]                        # model, phase
Values = dict[str, dict[str, float]]         # question -> metric -> value

COMPARED = ("decode_tokens_per_s", "ttft_ms", "tpot_ms", "e2el_ms", "prefill_tokens_per_s")
LANES_METRIC = "output_token_throughput_tokens_per_s"
TITLES = {name: metric_definitions.METRICS[name].title for name in (*COMPARED, LANES_METRIC)}
# What has a verdict: its metric, and the phases that it is taken from.
QUANTITIES = {
    "decode": ("decode_tokens_per_s", metric_definitions.ONE_LANE_PHASES),
    "first token": ("ttft_ms", metric_definitions.ONE_LANE_PHASES),
    "lanes": (LANES_METRIC, ("parallel_same",)),
    "long prefill": ("prefill_tokens_per_s", ("edge_suite",))}

# Flags that make a metric incomparable. `unstable` and `drifting` are not among them, because the
# interval covers spread; nor is `failures`, because questions without an answer are left out. If a
# conversation grows on both sides, a cache on both is intended.
ALL = frozenset((*COMPARED, LANES_METRIC))
RATES = frozenset(("decode_tokens_per_s", "tpot_ms", "prefill_tokens_per_s", LANES_METRIC))
SPOILS = {
    "truncated": ALL, "cached_prefill": metric_definitions.FIRST_TOKEN_METRICS, "busy_host": ALL,
    "hidden_reasoning": ALL, "usage_implausible": RATES, "tokens_from_chunks": RATES,
    "not_streamed": ALL, "model_mismatch": ALL, "survivors": ALL, "context_differs": ALL,
    # Waiting is true, but it compares slots, not speed.
    "queued": metric_definitions.FIRST_TOKEN_METRICS,
}


class PairingError(HarnessError):
    """Two sides without a common model; the message lists the models of each."""

    exit_code = 1


class Run(NamedTuple):
    """One run: its manifest, its latest calls, run_summary.summarize_run and call_numbers."""

    manifest: Any
    calls: Sequence[CallFinished]
    summary: Json
    numbers: dict[str, Json]
    corrections: Sequence[str] = ()       # why maintainers exclude it from comparison


def run_of(manifest: Any, events: Sequence[Any], corrections: Sequence[str] = ()) -> Run:
    """A Run from the results of ledger.load_run."""
    return Run(manifest, ledger.latest_calls(events), run_summary.summarize_run(manifest, events),
               run_summary.call_numbers(manifest, events), corrections)


# --- per question --------------------------------------------------------------------------------
def question_values(run: Run, cell: Json) -> Values:
    """{question: {metric: median over the repeats}} of a cell's measured calls."""
    found: dict[str, list[Json]] = {}
    for call in _measured(run, (cell["model"], cell["phase"])):
        found.setdefault(call["question_id"], []).append(run.numbers[call["cell_id"]])
    return {question: {
        name: float(metrics.median(values)) for name in COMPARED
        for values in [[one[name] for one in numbers if one[name] is not None]] if values}
        for question, numbers in found.items()}


def _measured(run: Run, key: Key) -> list[CallFinished]:
    return [c for c in run.calls if (c["model"], c["phase"]) == key and c["cell_id"] in run.numbers]


def _texts(runs: Sequence[Run], key: Key) -> dict[str, set[str]]:
    """{question: prompts}: the question alone in a growing conversation, which contains the
    model's own words; elsewhere a digest of all messages."""
    found: dict[str, set[str]] = {}
    field = "prompt" if key[1] in metric_definitions.GROWING_PHASES else "messages_sha256"
    for run in runs:
        for call in _measured(run, key):
            request: Any = call["request"]
            found.setdefault(call["question_id"], set()).add(request[field])
    return found


def ratio_summary(pairs: Iterable[tuple[Optional[float], Optional[float]]]) -> Json:
    """{"n", "left_out", "median", "ci_low", "ci_high"} of b / a over pairs (a, b) of questions.
    Pairs with a None or a value that is not positive are left out and counted. The median of an
    even number is the geometric mean of the two in the middle, so that swapping the runs inverts
    it."""
    all_pairs = list(pairs)
    ratios = sorted(b / a for a, b in all_pairs if a and b and a > 0 and b > 0)
    n = len(ratios)
    ranks = metrics.median_interval_ranks(n)
    middle = math.sqrt(ratios[(n - 1) // 2]) * math.sqrt(ratios[n // 2]) if n else None
    return {"n": n, "left_out": len(all_pairs) - n,
            "median": metrics.round_sig(ratios[n // 2] if n % 2 else middle),
            "ci_low": metrics.round_sig(ratios[ranks[0] - 1]) if ranks else None,
            "ci_high": metrics.round_sig(ratios[ranks[1] - 1]) if ranks else None}


# --- common models and options -------------------------------------------------------------------
def models_of(runs: Iterable[Run]) -> list[str]:
    """Models with a call in any of the runs, in order."""
    return list(dict.fromkeys(cell["model"] for run in runs for cell in run.summary["cells"]))


def paired_models(a: Sequence[str], b: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of equal names, or the only model of each side; raises PairingError."""
    same = [(model, model) for model in a if model in b]
    if same:
        return same
    if len(a) == len(b) == 1:
        return [(a[0], b[0])]
    raise PairingError(f"--vs: no model is on both sides: A has {_listed(a)}; B has {_listed(b)}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(printable, names)) or "none"


def differences(a: Sequence[Run], b: Sequence[Run]) -> list[str]:
    """Why the two sides cannot be compared: options or versions that differ, or a run that is not
    to be used."""
    out = [f"run {run.manifest['run_id']} in {side}: {reason}"
           for side, runs in (("A", a), ("B", b)) for run in runs for reason in run.corrections]
    for title in _conditions(a[0]):
        left, right = (sorted({_conditions(run).get(title, "None") for run in side})
                       for side in (a, b))
        if left != right or len(left) > 1:
            out.append(f"{title} is {' and '.join(left)} in A, {' and '.join(right)} in B")
    return out


def _conditions(run: Run) -> dict[str, str]:
    manifest = run.manifest
    options = plan.chosen_options(manifest)
    return {"harness version": manifest["harness_version"],
            "synthetic": str(manifest["synthetic"]).lower(),
            **{name: str(options[name]) for name in sorted(manifest["canonical_options"])}}


def _cells(runs: Sequence[Run], model: str) -> dict[str, list[tuple[Run, Json]]]:
    found: dict[str, list[tuple[Run, Json]]] = {}
    for run in runs:
        for cell in run.summary["cells"]:
            if cell["model"] == model and not cell["cold"]:
                found.setdefault(cell["phase"], []).append((run, cell))
    return found


# --- two sides -----------------------------------------------------------------------------------
class Phase(NamedTuple):
    """One phase of one model on both sides, with the values of each run by question. spoilt:
    {metric: why it is not comparable}. asked: questions with equal prompts; changed: those whose
    prompts differ."""

    name: str
    sides: tuple[list[tuple[Run, Json]], list[tuple[Run, Json]]]
    values: tuple[list[Values], list[Values]]
    spoilt: dict[str, str]
    asked: list[str]
    changed: list[str]
    flags: list[str]


def compare_sides(a: Sequence[Run], b: Sequence[Run]) -> Json:
    """{"a", "b", "differences", "verdicts", "rows"}: runs, verdicts by quantity, ratios by phase.
    Cold calls are left out: each model has one, and it includes the model's load. Raises
    PairingError."""
    found = differences(a, b)
    decided: list[Json] = []
    rows: list[Json] = []
    for pair in paired_models(models_of(a), models_of(b)):
        left, right = _cells(a, pair[0]), _cells(b, pair[1])
        phases = [_phase(pair, name, left[name], right[name], found)
                  for name in left if name in right]
        models = {"model_a": pair[0], "model_b": pair[1]}
        decided += [{**models, **row} for quantity in QUANTITIES
                    for row in [verdict_on(phases, quantity)] if row]
        rows += [{**models, **row} for phase in phases for row in _ratios(phase)]
    return {"a": list(map(_about, a)), "b": list(map(_about, b)), "differences": found,
            "verdicts": decided, "rows": rows}


def _about(run: Run) -> Json:
    manifest = run.manifest
    return {name: manifest[name] for name in ("run_id", "submitter_handle", "device_tag",
                                              "started_at", "models", "synthetic")} | {
        "engine": manifest["engine"]["name"], "engine_version": manifest["engine"]["version"],
        "run_flags": run.summary["run_flags"]}


def _phase(pair: tuple[str, str], name: str, left: list[tuple[Run, Json]],
           right: list[tuple[Run, Json]], found: Sequence[str]) -> Phase:
    prompts = [_texts([run for run, _ in side], (model, name))
               for side, model in zip((left, right), pair)]
    asked = [q for q in prompts[0] if len(prompts[0][q] | prompts[1].get(q, set())) == 1]
    lanes = {cell["lanes"] for _, cell in (*left, *right)}
    refusals = [*found, *([f"lanes are {' and '.join(map(str, sorted(lanes)))}"]
                          if len(lanes) > 1 else [])]
    flags = [{flag for _, cell in side for flag in cell["flags"]} for side in (left, right)]
    by_design = {"cached_prefill"} & flags[0] & flags[1] \
        if name in metric_definitions.GROWING_PHASES else set()
    bound = metric_definitions.bound_metrics(
        reason for _, cell in (*left, *right)
        for reason in cell["verdicts"]["client_bound"]["reasons"])
    spoilt = {metric: "; ".join([*refusals, *(
        flag for flag in flag_definitions.ordered_flags((flags[0] | flags[1]) - by_design)
        if metric in (bound if flag == "client_bound" else SPOILS.get(flag, ())))])
        for metric in ALL}
    return Phase(name, (left, right), (
        [question_values(run, cell) for run, cell in left],
        [question_values(run, cell) for run, cell in right]),
        {metric: why for metric, why in spoilt.items() if why}, asked,
        [q for q in prompts[0] if q in prompts[1] and q not in asked],
        flag_definitions.ordered_flags(flags[0] | flags[1]))


def _middle(side: Sequence[Values], question: str, metric: str) -> Optional[float]:
    values = [run[question][metric] for run in side if metric in run.get(question, {})]
    return float(metrics.median(values)) if values else None


def _ratios(phase: Phase) -> Iterable[Json]:
    """Medians and ratio of each metric in a phase; no verdict."""
    for metric in COMPARED:
        pairs = [tuple(_middle(side, q, metric) for side in phase.values) for q in phase.asked]
        whole = [pair for pair in pairs if None not in pair]
        yield {"phase": phase.name, "metric": metric,
               "unit": metric_definitions.METRICS[metric].unit,
               "questions_changed": phase.changed,
               **{name: metrics.round_sig(metrics.median(p[i] or 0 for p in whole))
                  if whole else None for i, name in enumerate(("median_a", "median_b"))},
               "ratio": ratio_summary((p[0], p[1]) for p in pairs),
               "not_comparable": phase.spoilt.get(metric), "flags": phase.flags}


# --- verdicts ------------------------------------------------------------------------------------
def verdict_on(phases: Sequence[Phase], quantity: str) -> Optional[Json]:
    """The verdict on one quantity; None if neither side has a phase for it."""
    metric, names = QUANTITIES[quantity]
    having = [phase for phase in phases if phase.name in names]
    if not having:
        return None
    # A cache affects all phases, also those whose prompts are too short to be flagged.
    cached = any("cached_prefill" in phase.spoilt.get(metric, "") for phase in having)
    usable = [phase for phase in having if metric not in phase.spoilt and not cached]
    sides = [_run_numbers(usable, metric, i) for i in (0, 1)]
    about = {"quantity": quantity, "metric": metric, "phases": [phase.name for phase in usable],
             "runs_a": len(sides[0]), "runs_b": len(sides[1])}
    if not usable:
        why = next(phase.spoilt[metric] for phase in having if metric in phase.spoilt)
        return {**about, **_decided(None, "not comparable", why)}
    if not sides[0] or not sides[1]:
        return {**about, **_decided(None, "cannot tell", "no common value")}
    a, b = (verdicts.side_of_logs(side) for side in sides)
    prior = max(verdicts.prior(metric), _disagreement(usable, metric))
    apart, half = verdicts.ratio_interval(a, b, prior)
    ends = [metrics.round_sig(math.exp(apart + sign * half)) for sign in (0, -1, 1)]
    is_better = (apart > 0) == (metric_definitions.METRICS[metric].direction == "higher")
    if verdicts.difference(a, b, prior):
        return {**about, **_decided(ends, "faster" if is_better else "slower", _busy(usable),
                                    min(a.runs, b.runs) >= verdicts.MIN_CONFIRMING_RUNS)}
    small = abs(apart) < verdicts.MIN_DIFFERENCE
    return {**about, **_decided(ends, "cannot tell",
                                "less than 5 % apart" if small else "within the spread of runs")}


def _decided(ends: Optional[list[Optional[float]]], verdict: str, reason: Optional[str],
             holds: bool = False) -> Json:
    standing = None if verdict not in ("faster", "slower") else \
        "holds over runs" if holds else "hint"
    ratio = dict(zip(("ratio", "low", "high"), ends or [None] * 3))
    return {**ratio, "verdict": verdict, "standing": standing, "reason": None if holds else reason}


def _run_numbers(phases: Sequence[Phase], metric: str, side: int) -> list[float]:
    """One number per run of a side: the median over questions of log(value / side A's value)."""
    runs = dict.fromkeys(id(run) for phase in phases for run, _ in phase.sides[side])
    found: dict[int, list[float]] = {run: [] for run in runs}
    for phase in phases:
        for (run, cell), values in zip(phase.sides[side], phase.values[side]):
            found[id(run)] += _logs(phase, metric, cell, values)
    return [float(metrics.median(logs)) for logs in found.values() if logs]


def _logs(phase: Phase, metric: str, cell: Json, values: Values) -> list[float]:
    if metric == LANES_METRIC:
        base = [c[metric] for _, c in phase.sides[0] if c[metric]]
        own = cell[metric]
        return [math.log(own / metrics.median(base))] if own and base else []
    bases = {q: _middle(phase.values[0], q, metric) for q in phase.asked}
    return [math.log(values[q][metric] / base) for q, base in bases.items()
            if base and values.get(q, {}).get(metric)]


def _disagreement(phases: Sequence[Phase], metric: str) -> float:
    """Spread between runs as the phases of one comparison show it: the standard deviation of their
    log ratios, which hold two sides of n runs each."""
    ratios = []
    for phase in phases:
        sides = [_run_numbers([phase], metric, i) for i in (0, 1)]
        if all(sides):
            means = [sum(side) / len(side) for side in sides]
            ratios.append(means[1] - means[0])
    if len(ratios) < 2:
        return 0.0
    mean = sum(ratios) / len(ratios)
    squares = sum((ratio - mean) ** 2 for ratio in ratios) / (len(ratios) - 1)
    runs = min(len(side) for phase in phases for side in phase.sides)
    return math.sqrt(squares * runs / 2)


def _busy(phases: Sequence[Phase]) -> Optional[str]:
    """Which side shared its machine with other programs."""
    busy = [name for i, name in enumerate("AB")
            if any("busy_host" in run.summary["run_flags"]
                   for phase in phases for run, _ in phase.sides[i])]
    return f"busy_host: {', '.join(busy)}" if busy else None


# --- as text -------------------------------------------------------------------------------------
LEGEND = ("B / A with its 95 % interval over runs, which assumes a spread of 3 % between runs (5 % "
          "for lanes) until the runs show it. hint: fewer than 3 runs on a side. Below: medians by "
          "phase and the median of the questions' ratios, without a verdict.")


def render_sides(found: Json, width: int) -> str:
    """The comparison for a terminal of `width` columns: runs, verdicts, ratios, legend."""
    lines = [_side_line(name, run) for name in ("a", "b") for run in found[name]]
    names = {flag for name in ("a", "b") for run in found[name] for flag in run["run_flags"]}
    lines += flag_definitions.explain_flags(names)
    lines += [f"not comparable: {printable(text, 500)}" for text in found["differences"]]
    pairs = dict.fromkeys((row["model_a"], row["model_b"]) for row in found["rows"])
    for left, right in pairs:
        decided, rows = ([row for row in found[name]
                          if (row["model_a"], row["model_b"]) == (left, right)]
                         for name in ("verdicts", "rows"))
        title = printable(left) if left == right else f"A {printable(left)}, B {printable(right)}"
        lines += ["", title]
        if decided:
            lines += align_columns([("quantity", "B / A", "runs", "verdict on B"),
                                    *map(_verdict_line, decided)], (), width)
        shown = [_ratio_line(row) for row in rows if row["ratio"]["n"]]
        if shown:
            lines += ["", *fit_table(("phase", "metric", "A", "B", "B / A", "questions", "note"),
                                     shown, (2, 3, 4, 5), width)]
        changed = {row["phase"]: row["questions_changed"] for row in rows
                   if row["questions_changed"]}
        lines += [f"{phase}: left out because their prompts differ: "
                  f"{', '.join(map(printable, questions))}"
                  for phase, questions in changed.items()]
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


def _verdict_line(row: Json) -> tuple[str, ...]:
    shown = "-" if row["ratio"] is None else \
        f"{row['ratio']:.3f} [{row['low']:.3f}-{row['high']:.3f}]"
    standing = ", ".join(filter(None, (row["verdict"], row["standing"])))
    reason = f": {printable(row['reason'], 500)}" if row["reason"] else ""
    return (row["quantity"], shown, f"{row['runs_a']} and {row['runs_b']}", standing + reason)


def _ratio_line(row: Json) -> tuple[str, ...]:
    why = row["not_comparable"]
    title, values = TITLES[row["metric"]], (row["median_a"], row["median_b"])
    shown = map(time_text, values) if title.endswith(" ms") else number_column(values)
    return (row["phase"], title.replace(" ms", ""), *shown, f"{row['ratio']['median']:.3f}",
            str(row["ratio"]["n"]), f"not comparable: {printable(why, 500)}" if why else "")
