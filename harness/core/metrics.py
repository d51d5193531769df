"""Every number the project publishes, defined once.

Pure functions over ledger lines (see ledger.py for their shapes). The runner's last table,
metadata.json, the submission check and the comparison all call these; none of them computes a
number of its own.

    METRICS, FLAGS      what is published, in words; the documents are rendered from these tables
    summarize           n, median, quartiles, exact interval and tails of some values
    call_metrics        one call_finished line -> its numbers
    summarize_run       a whole ledger -> cells (model x phase), flags of the run, the instrument
    ratio_summary       two runs, question by question; `verdict` says which is faster

Rules that hold for all of them:
* What cannot be computed is None with a reason; never 0, never infinite.
* A failed call never enters a metric. It stands in `failed` and `outcomes`.
* Integer sums, or `fsum`; no logarithm, no power; published values have 6 significant digits. So
  any Python on any machine gives the same numbers to the last digit.
* Input is trusted as far as the schemas go. What a server wrote itself (usage, timings) is not.
"""
from __future__ import annotations

from collections import Counter
from functools import lru_cache
from math import fsum, isfinite, sqrt
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Set, Tuple, Union

from core import metric_definitions

Json = dict[str, Any]

Number = Union[int, float]


# --- summaries -----------------------------------------------------------------------------------
def round_sig(x: Optional[Number], digits: int = metric_definitions.SIGNIFICANT_DIGITS) -> Optional[float]:
    """x with so many significant digits; None for None, NaN and infinities.

    Goes by decimal text, which every CPython rounds correctly and alike.
    """
    if x is None or not isfinite(x):
        return None
    return float(f"{x:.{digits}g}")


@lru_cache(maxsize=1024)
def median_interval_ranks(n: int) -> Optional[Tuple[int, int]]:
    """1-based ranks of the exact 95 % order-statistic interval of the median of n values.

    The narrowest symmetric pair (k, n+1-k) with P(Binomial(n, 1/2) < k) <= 2.5 %, in integers; None
    below n = 6, where even minimum to maximum covers less. Assumes nothing of the distribution.
    """
    rank, term, below = 0, 1, 1
    while 40 * below <= 2 ** n:
        rank += 1
        term = term * (n - rank + 1) // rank
        below += term
    return (rank, n + 1 - rank) if rank else None


def quartile(ordered: Sequence[Number], quarter: int) -> Number:
    """Quartile 1, 2 (the median) or 3 of ascending values, by linear interpolation.

    Hyndman and Fan's type 7, `inclusive` in `statistics.quantiles`: position (n - 1) * quarter / 4.
    """
    index, rest = divmod((len(ordered) - 1) * quarter, 4)
    if not rest:
        return ordered[index]
    return (ordered[index] * (4 - rest) + ordered[index + 1] * rest) / 4


def median(values: Iterable[Number]) -> Number:
    """Median of one value or more."""
    return quartile(sorted(values), 2)


def summarize(values: Iterable[Optional[Number]]) -> Json:
    """n, median, q1, q3, iqr, min, max, ci_low, ci_high, p90, p95, p99 in 6 significant digits.

    None and non-finite values are left out, n too. Quartiles are null below n = 4, the median's
    interval below 6, p90 / p95 / p99 (nearest rank) below 64 / 130 / 662.
    """
    ordered = sorted(v for v in values if v is not None and isfinite(v))
    n = len(ordered)
    ranks = median_interval_ranks(n)
    q1, q3 = (quartile(ordered, q) if n >= metric_definitions.MIN_QUARTILE_N else None for q in (1, 3))
    found: Dict[str, Optional[Number]] = {
        "median": quartile(ordered, 2) if n else None,
        "q1": q1, "q3": q3, "iqr": None if q1 is None or q3 is None else q3 - q1,
        "min": ordered[0] if n else None, "max": ordered[-1] if n else None,
        "ci_low": ordered[ranks[0] - 1] if ranks else None,
        "ci_high": ordered[ranks[1] - 1] if ranks else None}
    for name, (percent, floor) in metric_definitions.TAIL_FLOORS.items():
        found[name] = ordered[-(-n * percent // 100) - 1] if n >= floor else None
    return {"n": n, **{name: round_sig(value) for name, value in found.items()}}


# --- one call: what the server says of it --------------------------------------------------------
def _count(value: Any) -> Optional[int]:
    """A non-negative whole number that a float holds exactly, else None; True is no number."""
    return value if type(value) is int and 0 <= value < 2 ** 53 else None


def _part(holder: Any, key: str) -> Json:
    """holder[key] where both are objects, else {}."""
    value = holder.get(key) if isinstance(holder, dict) else None
    return value if isinstance(value, dict) else {}


def _texts(call: Json) -> Tuple[str, str]:
    response = _part(call, "response")
    return response.get("text") or "", response.get("reasoning_text") or ""


def _reads(call: Json) -> List[List[int]]:
    return _part(call, "timing").get("reads") or []


def _chunk_us(call: Json) -> List[int]:
    return _part(call, "timing").get("chunk_us") or []


def usage_problem(call: Json) -> Optional[str]:
    """Why this call's usage cannot be true, or None (also where there is no usage at all).

    The rules, and where an honest server could break them:
    * completion_tokens is a whole number, not negative; 0 only without any text. (None known.)
    * not under a third of the words seen, reasoning included. (A server that does not count the
      reasoning it streams; its count does not fit the stream, so the rule is right to catch it.)
    * more tokens than bytes of text, while nothing can be hidden: the reasoning was streamed, or
      the count passes the call's own cap. (A server whose thinking has a budget beside the cap.)
    """
    usage = _part(call, "response").get("usage")
    if not isinstance(usage, dict):
        return None
    tokens, text = _count(usage.get("completion_tokens")), "".join(_texts(call))
    if tokens is None or (not tokens and text):
        return "completion_tokens is no count"
    if tokens * metric_definitions.MAX_WORDS_PER_TOKEN < len(text.split()):
        return "completion_tokens is less than a third of the words"
    shown = tokens - (_stated_reasoning(usage) or 0)
    if shown <= len(text.encode("utf-8", "replace")) + metric_definitions.SPARE_TOKENS:
        return None
    options = _part(_part(call, "request"), "options")
    caps = [cap for cap in (_count(options.get(field)) for field in metric_definitions.CAP_FIELDS) if cap]
    if caps and tokens > min(caps) + metric_definitions.SPARE_TOKENS:
        return "completion_tokens is more than the call allowed and more than the text has bytes"
    if _part(call, "reasoning").get("mode") in ("streamed", "inline"):
        return "completion_tokens is more than the text has bytes, and nothing is hidden"
    return None


def _stated_reasoning(usage: Json) -> Optional[int]:
    return _count(_part(usage, "completion_tokens_details").get("reasoning_tokens"))


def usage_is_usable(call: Json) -> bool:
    """Whether output_tokens can be taken from this call's usage."""
    return isinstance(_part(call, "response").get("usage"), dict) and usage_problem(call) is None


def has_hidden_reasoning(call: Json) -> bool:
    """Whether the server counted thinking that it did not stream; judged on usable usage.

    Either the server or the runner says so, or the count is above both what the text can hold (a
    third of its letters and spaces, and each digit, sign and non-ASCII byte) and 1.5 times the
    chunks that came. Source code in few large chunks comes nearest to being mistaken for it;
    thinking shorter than about half of the answer may be missed.
    """
    reasoning = _part(call, "reasoning")
    if reasoning.get("mode") in ("streamed", "inline") or not usage_is_usable(call):
        return False
    usage = _part(_part(call, "response"), "usage")
    if reasoning.get("mode") == "hidden" or _stated_reasoning(usage):
        return True
    tokens = _count(usage.get("completion_tokens"))
    data = "".join(_texts(call)).encode("utf-8", "replace")
    others = len(data.translate(None, metric_definitions.LETTERS))
    room = (len(data) - others) // metric_definitions.LETTERS_PER_TOKEN + others
    return (tokens is not None and tokens > room + metric_definitions.SPARE_TOKENS
            and tokens > metric_definitions.MIN_HIDDEN_RATIO * len(_chunk_us(call)) + metric_definitions.SPARE_TOKENS)


def constant_usage(calls: Sequence[Json]) -> Optional[str]:
    """Why the usage of one model's answered calls cannot be true when seen together, or None.

    A count that is equal in five calls or more counts nothing where the longest text is over twice
    the shortest and 200 characters (an old KoboldCpp says 100 whatever it did). Answers cut at
    their cap are left out: they are equally long by design.
    """
    told = [c for c in calls if _part(_part(c, "response"), "usage")]
    ended = [c for c in told if _part(c, "response").get("finish_reason") != "length"]
    prompts = [_part(c, "request").get("messages_chars") or 0 for c in told]
    return (_constant("completion_tokens", ended, [len("".join(_texts(c))) for c in ended])
            or _constant("prompt_tokens", told, prompts))


def _constant(field: str, calls: Sequence[Json], sizes: Sequence[int]) -> Optional[str]:
    counts = {_count(_part(_part(c, "response"), "usage").get(field)) for c in calls}
    if len(calls) < metric_definitions.MIN_CONSTANT_CALLS or len(counts) > 1 or None in counts:
        return None
    if max(sizes) <= 2 * min(sizes) + metric_definitions.SHORT_CHARACTERS:
        return None
    return f"{field} is {counts.pop()} in every call, whatever was said"


def cached_tokens(call: Json) -> Optional[int]:
    """Prompt tokens from a cache, as the server reported them; None where it tells nothing."""
    response = _part(call, "response")
    details = _part(_part(response, "usage"), "prompt_tokens_details")
    stated = _count(details.get("cached_tokens"))
    if stated is not None:
        return stated
    return _count(_part(response, "server_timings").get("cache_n"))


def is_cached(call: Json) -> bool:
    """Whether so much of the prompt came from a cache that its prefill was not measured."""
    prompt = _count(_part(_part(call, "response"), "usage").get("prompt_tokens"))
    return counts_as_cached(cached_tokens(call), prompt)


def counts_as_cached(cached: Optional[int], prompt: Optional[int]) -> bool:
    """Whether these tokens of a prompt are more than a tenth, and than a template's beginning."""
    return bool(prompt and cached and cached > max(metric_definitions.CACHED_SHARE * prompt, metric_definitions.CACHED_FLOOR_TOKENS))


# --- one call: its numbers -----------------------------------------------------------------------
Found = Tuple[Optional[Number], Optional[str]]      # a value, or None and the reason


def call_metrics(call: Json, trust_usage: bool = True) -> Json:
    """All of CALL_METRICS of one call_finished line, unrounded, with `output_tokens_source` and
    `null_reasons` {metric: why it is None}.

    trust_usage False counts chunks even where usage looks usable: other calls of the cell have
    none, or it is the same in all of them. Works on failed calls too, as far as they came.
    """
    from_usage = trust_usage and usage_is_usable(call)
    tokens = _output_tokens(call, from_usage)
    hidden = from_usage and has_hidden_reasoning(call)
    ttft = _mark_ms(call, "first_token_us")
    tpot = _tpot_ms(call, tokens, hidden)
    gaps = icl_gaps_us(call)
    no_gaps = (None, ttft[1] or "no gap between reads of their own")
    found: Dict[str, Found] = {
        "ttft_ms": ttft,
        "ttfo_ms": _mark_ms(call, "first_answer_us"),
        "tpot_ms": tpot,
        "decode_tokens_per_s": _decode_rate(tokens[0], tpot),
        "prefill_tokens_per_s": _prefill_rate(call, ttft, hidden),
        "icl_ms": (median(gaps) / 1000, None) if gaps else no_gaps,
        "icl_max_ms": (max(gaps) / 1000, None) if gaps else no_gaps,
        "e2el_ms": _e2el_ms(call),
        "output_tokens": tokens,
        "prompt_tokens": _prompt_tokens(call),
        "cached_tokens": (cached_tokens(call), "the server tells nothing of a cache"),
        "coalesced_ratio": _coalesced_ratio(call),
    }
    source = "usage" if from_usage else "chunks"
    return {**{name: value for name, (value, _) in found.items()},
            "output_tokens_source": None if tokens[0] is None else source,
            "null_reasons": {name: why for name, (value, why) in found.items() if value is None}}


def _mark_ms(call: Json, name: str) -> Found:
    timing = _part(call, "timing")
    mark = _count(timing.get(name))
    if mark is not None:
        return mark / 1000, None
    if not timing:
        return None, "no request left"
    if timing.get("first_token_us") is not None:
        return None, "there is no text but reasoning"
    return None, timing.get("ttft_null_reason") or "no text arrived"


def _output_tokens(call: Json, from_usage: bool) -> Found:
    chunks = len(_chunk_us(call))
    if from_usage:
        return _part(_part(call, "response"), "usage")["completion_tokens"], None
    return (chunks, None) if chunks else (None, "no usable usage, and no chunks to count")


def _prompt_tokens(call: Json) -> Found:
    tokens = _count(_part(_part(call, "response"), "usage").get("prompt_tokens"))
    return (tokens, None) if tokens else (None, "the server tells no prompt_tokens")


def _window_us(call: Json) -> int:
    timing = _part(call, "timing")
    return (_count(timing.get("last_token_us")) or 0) - (_count(timing.get("first_token_us")) or 0)


def _tpot_ms(call: Json, tokens: Found, hidden: bool) -> Found:
    """Null, too, where the first read brought so much at once that the window says little.

    Those tokens are counted, but were made before the window began. Their share is taken from the
    chunks: the first read's chunks times the tokens of an average chunk.
    """
    first, window_us = _mark_ms(call, "first_token_us"), _window_us(call)
    if first[0] is None or tokens[0] is None:
        return None, first[1] or tokens[1]
    if hidden:
        return None, "hidden reasoning: tokens were counted that never came"
    if tokens[0] < 2:
        return None, "fewer than 2 output tokens"
    if window_us <= 0:
        return None, "all text came at one moment"
    reads = _reads(call)
    in_first = reads[0][1] if reads and reads[0][0] == 0 else 1
    at_once = tokens[0] * in_first / max(len(_chunk_us(call)), 1)
    if at_once - 1 > metric_definitions.MAX_FIRST_READ_ERROR * (tokens[0] - 1):
        return None, "too much of the text came with its first read"
    return window_us / (tokens[0] - 1) / 1000, None


def _decode_rate(tokens: Optional[Number], tpot: Found) -> Found:
    if tpot[0] is None:
        return tpot
    if tokens is None or tokens < metric_definitions.MIN_DECODE_TOKENS:
        return None, f"fewer than {metric_definitions.MIN_DECODE_TOKENS} output tokens"
    return 1000 / tpot[0], None


def _prefill_rate(call: Json, ttft: Found, hidden: bool) -> Found:
    prompt, why = _prompt_tokens(call)
    if not ttft[0] or prompt is None:
        return None, ttft[1] or why or "the first token came in no time"
    if is_cached(call):
        return None, "cached"
    if prompt - (cached_tokens(call) or 0) < metric_definitions.MIN_PREFILL_TOKENS:
        return None, f"fewer than {metric_definitions.MIN_PREFILL_TOKENS} uncached prompt tokens"
    if hidden:
        return None, "hidden reasoning: TTFT holds the thinking"
    return prompt * 1000 / ttft[0], None


def _e2el_ms(call: Json) -> Found:
    if call.get("outcome") != "ok":
        return None, f"the call did not end by itself ({call.get('outcome')})"
    return _mark_ms(call, "last_token_us")


def icl_gaps_us(call: Json) -> List[int]:
    """Gaps in µs between reads of text, in order.

    Left out are gaps that end in a read with several chunks: its stamp is that of its last bytes,
    so the gap to its first chunk is too long, and those inside it are 0.
    """
    chunk_us, gaps, at = _chunk_us(call), [], 1
    for first, count in _reads(call):
        gaps += chunk_us[at:first]
        at = max(at, first + count)
    return gaps + chunk_us[at:]


def _coalesced_ratio(call: Json) -> Found:
    chunks = len(_chunk_us(call))
    if not chunks:
        return None, _mark_ms(call, "first_token_us")[1]
    return sum(count for _, count in _reads(call)) / chunks, None


def gaps_count(call: Json) -> int:
    """How many gaps between chunks of text a call has."""
    return max(len(_chunk_us(call)) - 1, 0)


# --- verdicts over some calls --------------------------------------------------------------------
def outliers(values: Sequence[Number]) -> Json:
    """{"flagged", "count", "largest_sigmas"}: values 10 sigma and 20 % off the median.

    Sigma is 1.4826 times the median absolute deviation (modified z-score). largest_sigmas is None
    where that is 0; then only the 20 % count. Null below n = 6.
    """
    if len(values) < metric_definitions.MIN_RANKED_N:
        return {"flagged": None, "count": None, "largest_sigmas": None}
    middle = median(values)
    off = [abs(v - middle) for v in values]
    sigma = 1.4826 * median(off)
    count = sum(o > metric_definitions.OUTLIER_SIGMAS * sigma and o > metric_definitions.OUTLIER_RATIO * abs(middle) for o in off)
    return {"flagged": count > 0, "count": count,
            "largest_sigmas": round_sig(max(off) / sigma) if sigma else None}


def drift(values: Sequence[Number], limit_ratio: float = metric_definitions.DRIFT_RATIO) -> Json:
    """{"flagged", "ratio"}: median of the last quarter over that of the first, in the order given.

    Flagged where they are further apart than the limit, either way. Null below n = 12.
    """
    quarter = len(values) // 4
    if len(values) < metric_definitions.MIN_DRIFT_N or not median(values[:quarter]):
        return {"flagged": None, "ratio": None}
    ratio = median(values[-quarter:]) / median(values[:quarter])
    steady = 1 / (1 + limit_ratio) <= ratio <= 1 + limit_ratio
    return {"flagged": not steady, "ratio": round_sig(ratio)}


def instability(values: Sequence[Number], limit_ratio: float = metric_definitions.UNSTABLE_IQR_RATIO) -> Json:
    """{"flagged", "iqr_ratio"}: interquartile range over median against a limit. Null below n = 6.

    For rates only: times to a first token differ from prompt to prompt by right.
    """
    ordered = sorted(values)
    if len(ordered) < metric_definitions.MIN_RANKED_N or not quartile(ordered, 2):
        return {"flagged": None, "iqr_ratio": None}
    ratio = (quartile(ordered, 3) - quartile(ordered, 1)) / quartile(ordered, 2)
    return {"flagged": ratio > limit_ratio, "iqr_ratio": round_sig(ratio)}


def early_speed(call: Json, gaps: int = metric_definitions.JUDGED_GAPS) -> float:
    """How much faster a call's first so many gaps between chunks were than all of them, 1 for none.

    Each token reads the whole context again, so that long answers are slower than short ones on the
    steadiest machine. Calls are compared over what they have in common.
    """
    every = _chunk_us(call)[1:]
    first_us = fsum(every[:gaps])
    return (fsum(every) / len(every)) / (first_us / len(every[:gaps])) if first_us else 1.0


def _at_lanes(rows: Any, lanes: int) -> Json:
    """The calibration's row with the fewest lanes that are enough, else with the most."""
    rows = sorted((r for r in rows or []), key=lambda row: row["lanes"])
    return next((r for r in rows if r["lanes"] >= lanes), rows[-1] if rows else {})


def stamp_error_us(call: Json, calibration: Optional[Json],
                   lanes: int) -> Tuple[Optional[int], str]:
    """(p99 of how late this call's stamps are, where that is known from); None: "not calibrated".

    User stamps are late by the reader's own lag: known best in this very call, else from the
    calibration, else from how late a heartbeat wakes. Kernel stamps do not suffer from a slow
    reader; their error is what the calibration, if it was stamped so, found behind the server's
    send. Without one the reader's lag, which is larger, stands for it.
    """
    timing, found = _part(call, "timing"), calibration or {}
    own = _count(_part(timing, "read_lag_us").get("p99"))
    calibrated = _count(_part(_at_lanes(found.get("lanes"), lanes), "lag_us").get("p99"))
    if found.get("stamp") != timing.get("stamp"):
        calibrated = None
    heartbeat = _count(_part(found, "heartbeat_overshoot_us").get("p99"))
    sources = [(own, "read_lag"), (calibrated, "calibration"), (heartbeat, "heartbeat")]
    if timing.get("stamp") == "kernel":
        sources = [(calibrated, "calibration"), (own, "read_lag")]
    known = [source for source in sources if source[0] is not None]
    return known[0] if known else (None, "not calibrated")


def client_bound(calls: Sequence[Json], calibration: Optional[Json], lanes: int) -> Json:
    """Whether the client itself shaped the numbers of a cell: {"flagged", "reasons", ...numbers}.

    Judged on medians over the answered calls, as what is published is medians too. Three signs:
    "decode_window", twice the stamps' p99 error is over 1 % of it (both its ends are stamps);
    "ttft", that error is over 1 % of TTFT; "saturation", the chunk rate of all lanes is over a
    third of what this client can take at so many lanes. Windows and rates are those of answers
    with 32 chunks or more. `flagged` is None where the error is not known and no sign is seen.
    """
    timed = [c for c in calls if _chunk_us(c)]
    long = [c for c in timed if len(_chunk_us(c)) >= metric_definitions.MIN_DECODE_TOKENS and _window_us(c) > 0]
    errors = [stamp_error_us(c, calibration, lanes) for c in timed]
    error_us = _median_or_none(error for error, _ in errors if error is not None)
    ttft_us = _median_or_none(_chunk_us(c)[0] for c in timed)
    window_us = _median_or_none(_window_us(c) for c in long)
    rate = _median_or_none((len(_chunk_us(c)) - 1) * lanes * 1e6 / _window_us(c) for c in long)
    limit = _at_lanes((calibration or {}).get("saturation"), lanes).get("chunks_per_s")
    reasons = [name for name, part, whole, share in (
        ("decode_window", error_us, window_us, metric_definitions.LAG_SHARE / 2),
        ("ttft", error_us, ttft_us, metric_definitions.LAG_SHARE),
        ("saturation", rate, limit, metric_definitions.SATURATION_SHARE),
    ) if part is not None and whole is not None and part > share * whole]
    sources = Counter(source for _, source in errors).most_common(1)
    return {"flagged": None if error_us is None and not reasons else bool(reasons),
            "reasons": reasons, "error_p99_us": round_sig(error_us),
            "error_source": sources[0][0] if sources else "no call with text",
            "ttft_us": round_sig(ttft_us), "decode_window_us": round_sig(window_us),
            "chunks_per_s": round_sig(rate), "saturation_chunks_per_s": round_sig(limit)}


def _median_or_none(values: Iterable[Number]) -> Optional[Number]:
    found = sorted(values)
    return quartile(found, 2) if found else None


# --- one run -------------------------------------------------------------------------------------
def summarize_run(manifest: Json, events: Sequence[Json]) -> Json:
    """{"cells", "run_flags", "counts", "instrument"} of a run's manifest and ledger lines.

    A cell is one model in one phase, in the ledger's order. Of several call_finished lines of one
    cell_id the last counts. `counts` is the number of calls per outcome. A cell holds:

    model, phase, lanes, cold, across_prompts (its questions differ), planned, ok, failed, outcomes
    metrics         {name of CALL_METRICS: summarize(...) over the answered calls}
    output_tokens_source    "usage", "chunks" or None; one kind in all calls of a cell, never mixed
    makespan_ms, output_token_throughput_tokens_per_s, lane_efficiency_ratio    as in METRICS
    checks          {"passed", "total"}: of the answers that have something to check
    null_reasons    {metric: why it is null, or for how many calls}
    verdicts        {"client_bound", "unstable", "drifting", "outliers"} with their numbers
    flags           names of FLAGS: what any answered call shows, and what they show together
    """
    finished = [e for e in events if e["event"] == "call_finished"]
    calls = sorted({c["cell_id"]: c for c in finished}.values(), key=lambda c: c["seq"])
    facts = _facts_of(manifest, events, calls)
    groups: Dict[Key, List[Json]] = {(c["model"], c["phase"]): [] for c in finished}
    for call in calls:
        groups[call["model"], call["phase"]].append(call)
    measured = {key: _measure(group, facts) for key, group in groups.items()}
    return {"cells": [_cell(facts, key, measured) for key in measured],
            "run_flags": _run_flags(facts, events),
            "counts": _counted(c["outcome"] for c in calls),
            "instrument": _instrument(facts.calibration, calls)}


Key = Tuple[str, str]            # model, phase


class _Facts(NamedTuple):
    """What the cells of a run need to know of the rest of it."""

    manifest: Json
    calibration: Optional[Json]
    endpoints: Dict[str, Json]               # the last endpoint_identified of each model
    cached: Set[str]                         # models whose cache_probed says so
    distrusted: Dict[str, Optional[str]]     # model: why its usage counts nothing
    makespans_us: Dict[Key, Found]           # the phases of MIXED_PHASE's models share one


class _Group(NamedTuple):
    """The calls of one cell with their numbers."""

    calls: List[Json]
    ok: List[Json]
    numbers: List[Json]                      # call_metrics of `ok`


def _facts_of(manifest: Json, events: Sequence[Json], calls: Sequence[Json]) -> _Facts:
    calibrations = [e for e in events if e["event"] == "instrument_calibrated"]
    answered: Dict[str, List[Json]] = {}
    spans: Dict[Key, List[Json]] = {}
    for call in calls:
        spans.setdefault(_span_key(call["model"], call["phase"]), []).append(call)
        if call["outcome"] == "ok":
            answered.setdefault(call["model"], []).append(call)
    return _Facts(
        manifest, calibrations[-1] if calibrations else None,
        {e["model"]: e for e in events if e["event"] == "endpoint_identified"},
        {e["model"] for e in events if e["event"] == "cache_probed" and e["verdict"] == "cached"},
        {model: constant_usage(group) for model, group in answered.items()},
        {key: _makespan_us(group) for key, group in spans.items()})


def _span_key(model: str, phase: str) -> Key:
    return ("" if phase == metric_definitions.MIXED_PHASE else model), phase


def _makespan_us(calls: Sequence[Json]) -> Found:
    """From the first request to the last byte; a call without an end mark ends with its line."""
    timed = [c for c in calls if c["timing"]]
    if not timed:
        return None, "no request left"
    if len({c["segment"] for c in timed}) > 1:
        return None, "the run was resumed within the phase"
    begun = min(c["timing"]["started_us"] for c in timed)
    ends = [c["t_us"] if c["timing"]["done_us"] is None
            else c["timing"]["started_us"] + c["timing"]["done_us"] for c in timed]
    return (max(ends) - begun, None) if max(ends) > begun else (None, "it took no time")


def _measure(calls: List[Json], facts: _Facts) -> _Group:
    """One count of tokens for the whole cell: usage only where every answer has a usable one."""
    ok = [c for c in calls if c["outcome"] == "ok"]
    trusted = all(not facts.distrusted.get(c["model"]) and usage_is_usable(c) for c in ok)
    return _Group(calls, ok, [call_metrics(c, trusted) for c in ok])


def _counted(outcomes: Iterable[str]) -> Dict[str, int]:
    return dict(sorted(Counter(outcomes).items()))


def _phase_plan(manifest: Json, phase: str) -> Json:
    return next((p for p in manifest["plan"]["phases"] if p["phase"] == phase),
                {"lanes": 1, "question_ids": []})


def _own_lanes(manifest: Json, model: str, phase: str, count: int) -> int:
    """How many of the first lanes are the model's: all, but where lanes are bound to models."""
    models: List[str] = manifest["models"]
    if phase != metric_definitions.MIXED_PHASE:
        return count
    return sum(models[lane % len(models)] == model for lane in range(count))


def _planned(manifest: Json, model: str, phase: str, calls: Sequence[Json]) -> int:
    """Planned calls of a cell; each resume adds a hello of its own, so those are counted."""
    if phase == "hello":
        return len(calls)
    plan = _phase_plan(manifest, phase)
    rounds, rest = divmod(len(plan["question_ids"]), int(plan["lanes"]))
    full, last = (_own_lanes(manifest, model, phase, count) for count in (plan["lanes"], rest))
    return (rounds * full + last) * int(manifest["plan"]["repeats"])


def _cell(facts: _Facts, key: Key, groups: Dict[Key, _Group]) -> Json:
    model, phase = key
    group = groups[key]
    calls, ok, numbers = group.calls, group.ok, group.numbers
    lanes, cold = _phase_plan(facts.manifest, phase)["lanes"], all(c["cold"] for c in calls)
    totals = _totals(facts, key, groups)
    verdicts = _verdicts(facts, phase, lanes, group)
    return {
        "model": model, "phase": phase, "lanes": lanes, "cold": cold,
        "across_prompts": len({c["question_id"] for c in ok}) > 1,
        "planned": _planned(facts.manifest, model, phase, calls),
        "ok": len(ok), "failed": len(calls) - len(ok),
        "outcomes": _counted(c["outcome"] for c in calls),
        "metrics": {name: summarize(m[name] for m in numbers) for name in metric_definitions.CALL_METRICS},
        "output_tokens_source": _source(group),
        **{name: round_sig(value) for name, (value, _) in totals.items()},
        "checks": _checks(ok),
        "null_reasons": {**_null_reasons(numbers),
                         **{name: why for name, (_, why) in totals.items() if why}},
        "verdicts": verdicts,
        "flags": _cell_flags(facts, key, group, verdicts, cold)}


def _source(group: _Group) -> Optional[str]:
    sources = (m["output_tokens_source"] for m in group.numbers)
    return next((source for source in sources if source), None)


def _totals(facts: _Facts, key: Key, groups: Dict[Key, _Group]) -> Dict[str, Found]:
    """The numbers of a cell that are not summaries of its calls' numbers."""
    makespan_us, why = facts.makespans_us[_span_key(*key)]
    throughput = _throughput(groups[key], makespan_us, why)
    return {"makespan_ms": (None if makespan_us is None else makespan_us / 1000, why),
            "output_token_throughput_tokens_per_s": throughput,
            "lane_efficiency_ratio": _lane_efficiency(facts, key, groups, throughput)}


def _throughput(group: _Group, makespan_us: Optional[Number], why: Optional[str]) -> Found:
    tokens = [m["output_tokens"] for m in group.numbers]
    if makespan_us is None or not tokens:
        return None, why or "no answer"
    if None in tokens:
        return None, "an answer's tokens are unknown"
    return sum(tokens) * 1e6 / makespan_us, None


def _lane_efficiency(facts: _Facts, key: Key, groups: Dict[Key, _Group],
                     throughput: Found) -> Found:
    """Against the model's own lanes, each as fast as its one-lane phases were while it answered."""
    (model, phase), lanes = key, _phase_plan(facts.manifest, key[1])["lanes"]
    if lanes == 1 or throughput[0] is None:
        return None, "one lane" if lanes == 1 else throughput[1]
    alone = [groups[model, name] for name in metric_definitions.ONE_LANE_PHASES
             if (model, name) in groups and groups[model, name].ok]
    if any(_source(group) != _source(groups[key]) for group in alone):
        return None, "tokens were counted in different ways"
    pairs = [(m["output_tokens"], m["e2el_ms"]) for group in alone for m in group.numbers
             if m["output_tokens"] and m["e2el_ms"]]
    if not pairs:
        return None, f"no answer on one lane ({', '.join(metric_definitions.ONE_LANE_PHASES)})"
    single = sum(tokens for tokens, _ in pairs) * 1000 / fsum(ms for _, ms in pairs)
    return throughput[0] / (_own_lanes(facts.manifest, model, phase, lanes) * single), None


def _null_reasons(numbers: Sequence[Json]) -> Dict[str, str]:
    """{metric: "k of n calls: commonest reason"} where a call's value is null."""
    out = {}
    for name in metric_definitions.CALL_METRICS:
        reasons = Counter(m["null_reasons"][name] for m in numbers if m[name] is None)
        if reasons:
            reason = min(reasons, key=lambda text: (-reasons[text], text))
            out[name] = f"{sum(reasons.values())} of {len(numbers)} calls: {reason}"
        elif not numbers:
            out[name] = "no answer"
    return out


def _checks(ok: Sequence[Json]) -> Json:
    """Answers that passed, of those with something to check; failed calls have no answer."""
    passed = [c["checks"]["passed"] for c in ok if c["checks"]]
    return {"passed": passed.count(True), "total": len(passed) - passed.count(None)}


def _verdicts(facts: _Facts, phase: str, lanes: int, group: _Group) -> Json:
    spread, change = ((metric_definitions.UNSTABLE_IQR_RATIO, metric_definitions.DRIFT_RATIO) if lanes == 1 else
                      (metric_definitions.UNSTABLE_LANES_IQR_RATIO, metric_definitions.DRIFT_LANES_RATIO))
    judged = [] if phase in metric_definitions.GROWING_PHASES else [
        m["decode_tokens_per_s"] * early_speed(call) for call, m in zip(group.ok, group.numbers)
        if m["decode_tokens_per_s"] is not None]
    return {"client_bound": client_bound(group.ok, facts.calibration, lanes),
            "unstable": instability(judged, spread), "drifting": drift(judged, change),
            "outliers": outliers(judged)}


def _cell_flags(facts: _Facts, key: Key, group: _Group, verdicts: Json, cold: bool) -> List[str]:
    """What any answered call shows, what they show together, and what is known of the model.

    One call is enough for a flag that a call can have, for a phase is published as one thing;
    `coalesced` and `failures` have shares of their own.
    """
    (model, phase), ok = key, group.ok
    usage_lies = bool(facts.distrusted.get(model))
    found = {name for call in ok for name in _call_flags(call, usage_lies)} - {"coalesced"}
    endpoint = facts.endpoints.get(model, {})
    slots = _count(_part(endpoint, "slots").get("count"))
    return metric_definitions.ordered_flags(found | {name for name, holds in (
        *((name, verdict["flagged"]) for name, verdict in verdicts.items()),
        ("few_samples", not cold and len(ok) < metric_definitions.MIN_RANKED_N),
        ("failures", _failures(group.calls, phase) > metric_definitions.FAILED_SHARE * len(group.calls)),
        ("coalesced", _coalesced_share(ok) > metric_definitions.COALESCED_SHARE),
        ("tokens_from_chunks", _source(group) == "chunks"),
        ("usage_implausible", usage_lies or any(map(usage_problem, ok))),
        ("cached_prefill", model in facts.cached and not cold),
        ("queued", slots and slots < _own_lanes(
            facts.manifest, model, phase, _phase_plan(facts.manifest, phase)["lanes"])),
        ("context_differs", _context_differs(endpoint)),
    ) if holds})


def _failures(calls: Sequence[Json], phase: str) -> int:
    """A growing conversation ends at the context's edge by design; that is no failure."""
    by_design = ("ok", "context_limit") if phase in metric_definitions.GROWING_PHASES else ("ok",)
    return sum(c["outcome"] not in by_design for c in calls)


def _coalesced_share(calls: Sequence[Json]) -> float:
    shared = sum(count for c in calls for _, count in _reads(c))
    return shared / max(sum(len(_chunk_us(c)) for c in calls), 1)


def _call_flags(call: Json, usage_lies: bool) -> List[str]:
    """Flags of one answered call: the runner's, and those that its record shows."""
    timing, (text, thinking) = _part(call, "timing"), _texts(call)
    step_us, characters = timing.get("clock_step_us") or 0, len(text) + len(thinking)
    at_once = _window_us(call) <= 0 and characters > metric_definitions.SHORT_CHARACTERS
    return [*call["flags"], *(name for name, holds in (
        ("truncated", _part(call, "truncated").get("verdict") == "yes"),
        ("cached_prefill", is_cached(call)),
        ("suspended", max(timing.get("heartbeat_gap_us") or 0, step_us) > metric_definitions.SUSPENDED_US),
        ("clock_stepped", step_us != 0),
        ("hidden_reasoning", not usage_lies and has_hidden_reasoning(call)),
        ("reasoning_only", bool(thinking) and not text.strip()),
        ("not_streamed", at_once or (characters and not _chunk_us(call))),
    ) if holds)]


def _context_differs(endpoint: Json) -> bool:
    context = _part(endpoint, "context")
    sizes = {context.get("requested_tokens"), context.get("effective_tokens")} - {None}
    return len(sizes) > 1


def _run_flags(facts: _Facts, events: Sequence[Json]) -> List[str]:
    samples = [e for e in events if e["event"] == "host_sampled"]
    busy = [(s.get("other_cpu_busy_ratio") or 0) > metric_definitions.OTHER_CPU_SHARE
            or (s.get("cpu_steal_ratio") or 0) > metric_definitions.STEAL_SHARE for s in samples]
    calibration = facts.calibration or {}
    return metric_definitions.ordered_flags(name for name, holds in (
        ("busy_host", sum(busy) > metric_definitions.BUSY_SAMPLES_SHARE * len(busy)),
        ("throttled", _throttled(samples)),
        ("on_battery", any(s.get("power_source") == "battery" for s in samples)),
        ("context_differs", any(map(_context_differs, facts.endpoints.values()))),
        ("cached_prefill", facts.cached),
        ("usage_implausible", any(facts.distrusted.values())),
        ("not_calibrated", not calibration.get("lanes")),
        ("unfinished", not any(e["event"] == "run_finished" for e in events)),
    ) if holds)


def _throttled(samples: Sequence[Json]) -> bool:
    """A card says so, or the processors' counter grew within a segment."""
    if any(gpu.get("throttled") for s in samples for gpu in s.get("gpus") or []):
        return True
    counts: Dict[int, List[int]] = {}
    for s in samples:
        if s.get("cpu_throttle_count") is not None:
            counts.setdefault(s["segment"], []).append(s["cpu_throttle_count"])
    return any(c[-1] > c[0] for c in counts.values())


def _instrument(calibration: Optional[Json], calls: Sequence[Json]) -> Json:
    """What is known of the client's own error.

    read_lag_us: over all calls that carry it, the median of their p50 and p99 and the largest max;
    n is the number of those calls.
    """
    found = calibration or {"reason": "the instrument was not calibrated"}
    lags = [c["timing"]["read_lag_us"] for c in calls if c["timing"] and c["timing"]["read_lag_us"]]
    stamps = Counter(c["timing"]["stamp"] for c in calls if c["timing"])
    return {
        **{name: found.get(name) for name in ("stamp", "clock_resolution_ns", "lanes", "saturation",
                                              "heartbeat_overshoot_us", "wall_ms", "reason")},
        "stamps": dict(sorted(stamps.items())),
        "read_lag_us": {"p50": round_sig(median([lag["p50"] for lag in lags])),
                        "p99": round_sig(median([lag["p99"] for lag in lags])),
                        "max": max(lag["max"] for lag in lags), "n": len(lags)} if lags else None}


# --- two runs ------------------------------------------------------------------------------------
def ratio_summary(pairs: Iterable[Tuple[Optional[Number], Optional[Number]]]) -> Json:
    """{"n", "left_out", "median", "ci_low", "ci_high"} of b / a over pairs (a, b), one a question.

    Pairs with a None or a value that is not positive are left out and counted. The middle of an
    even number is the geometric mean of the two in the middle, so that swapping the runs inverts
    it.
    """
    all_pairs = list(pairs)
    ratios = sorted(b / a for a, b in all_pairs if a and b and a > 0 and b > 0)
    n = len(ratios)
    ranks = median_interval_ranks(n)
    middle = sqrt(ratios[(n - 1) // 2]) * sqrt(ratios[n // 2]) if n else None
    return {"n": n, "left_out": len(all_pairs) - n,
            "median": round_sig(ratios[n // 2] if n % 2 else middle),
            "ci_low": round_sig(ratios[ranks[0] - 1]) if ranks else None,
            "ci_high": round_sig(ratios[ranks[1] - 1]) if ranks else None}


def verdict(ratios: Json, direction: str) -> str:
    """"faster", "slower" or "cannot tell" of the second run of a ratio_summary.

    direction: that of the metric. Told only where the interval leaves out 1 and the median is 5 %
    or more away from it: smaller gaps appear between two sessions of one machine.
    """
    low, high, middle = ratios["ci_low"], ratios["ci_high"], ratios["median"]
    if low is None or low <= 1 <= high or 1 / metric_definitions.DIFFERENT_RATIO < middle < metric_definitions.DIFFERENT_RATIO:
        return "cannot tell"
    if direction not in ("lower", "higher"):
        return "cannot tell"
    return "faster" if (middle > 1) == (direction == "higher") else "slower"
