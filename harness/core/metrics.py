"""Compute every published number from a run's ledger.

The runner's final table, metadata.json, the check and the comparison all call these pure
functions; none of them computes a number of its own. metric_definitions describes each metric.

    summarize           n, median, quartiles, exact interval and tails of some values
    call_metrics        the numbers of one call_finished line
    summarize_run       a whole ledger: cells (model x phase), the run's flags, the instrument
    ratio_summary       two runs, question by question; `verdict` says which is faster

Rules for all of them:
* A value that cannot be computed is None with a reason; never 0, never infinite.
* A failed call enters no metric. It is counted in `failed` and `outcomes`.
* Integer sums or `fsum`; no logarithm, no power; published values have 6 significant digits. So
  every Python on every machine computes the same digits.
* Input follows the schemas. What a server wrote itself (usage, timings) is not trusted.
"""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import fsum, isfinite, sqrt
from typing import Any, Literal, NamedTuple, Optional, Union

from core import metric_definitions as defs
from core import records, usage
from core.records import CallFinished, InstrumentCalibrated, LedgerLine, Manifest

Number = Union[int, float]
Result = tuple[Optional[Number], Optional[str]]      # a value, or None and the reason
Numbers = dict[str, Any]                             # what call_metrics returns


# --- summaries -----------------------------------------------------------------------------------
def round_sig(x: Optional[Number], digits: int = defs.SIGNIFICANT_DIGITS) -> Optional[float]:
    """x with that many significant digits; None for None, NaN and infinities.

    Rounds through decimal text, which every CPython rounds correctly and in the same way.
    """
    if x is None or not isfinite(x):
        return None
    return float(f"{x:.{digits}g}")


@lru_cache(maxsize=1024)
def median_interval_ranks(n: int) -> Optional[tuple[int, int]]:
    """1-based ranks of the exact 95 % order-statistic interval of the median of n values.

    The narrowest symmetric pair (k, n+1-k) with P(Binomial(n, 1/2) < k) <= 2.5 %, in integers; None
    below n = 6, where even minimum to maximum covers less. Assumes no distribution.
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
    """Median of at least one value."""
    return quartile(sorted(values), 2)


def _median_or_none(values: Iterable[Number]) -> Optional[Number]:
    found = list(values)
    return median(found) if found else None


def summarize(values: Iterable[Optional[Number]]) -> records.Summary:
    """Summary of the values that are finite numbers, in 6 significant digits; n counts only those.

    Quartiles are null below n = 4, the median's interval below 6, p90 / p95 / p99 (nearest rank)
    below 64 / 130 / 662.
    """
    ordered = sorted(v for v in values if v is not None and isfinite(v))
    n = len(ordered)
    ranks = median_interval_ranks(n)
    q1, q3 = (quartile(ordered, q) if n >= defs.MIN_QUARTILE_N else None for q in (1, 3))
    tails = {name: round_sig(ordered[-(-n * percent // 100) - 1]) if n >= floor else None
             for name, (percent, floor) in defs.TAIL_FLOORS.items()}
    return {
        "n": n, "median": round_sig(quartile(ordered, 2) if n else None),
        "q1": round_sig(q1), "q3": round_sig(q3),
        "iqr": None if q1 is None or q3 is None else round_sig(q3 - q1),
        "min": round_sig(ordered[0] if n else None), "max": round_sig(ordered[-1] if n else None),
        "ci_low": round_sig(ordered[ranks[0] - 1] if ranks else None),
        "ci_high": round_sig(ordered[ranks[1] - 1] if ranks else None),
        "p90": tails["p90"], "p95": tails["p95"], "p99": tails["p99"]}


# --- one call: what the server reports -----------------------------------------------------------
def _part(holder: Any, key: str) -> Mapping[str, Any]:
    """holder[key] if both are objects, else {}."""
    value = holder.get(key) if isinstance(holder, dict) else None
    return value if isinstance(value, dict) else {}


def _texts(call: CallFinished) -> tuple[str, str]:
    """The answer's text and its reasoning."""
    response = call["response"]
    return (response["text"] or "", response["reasoning_text"] or "") if response else ("", "")


def _counts(call: CallFinished) -> usage.Counts:
    return usage.counts(call["response"])


def _reads(call: CallFinished) -> list[list[int]]:
    return call["timing"]["reads"] if call["timing"] else []


def _chunk_us(call: CallFinished) -> list[int]:
    return call["timing"]["chunk_us"] if call["timing"] else []


def usage_problem(call: CallFinished) -> Optional[str]:
    """Why this call's count of generated tokens cannot be correct, or None (also without any).

    The rules, and where an honest server could break them:
    * it is a non-negative integer, and 0 only without any text. (None known.)
    * at least a third of the words, including reasoning. (A server that does not count the
      reasoning it streams. Its count does not fit the stream, so the rule is right to catch it.)
    * not fewer tokens than chunks of text. (A proxy that splits texts; a few chunks are spare.)
    * with streamed reasoning, total_tokens less the prompt is not more. (A server whose total has
      other parts.)
    * no more tokens than bytes of text if nothing can be hidden: the reasoning was streamed, or
      the count exceeds the call's own limit. (A server whose reasoning has a separate limit.)
    """
    counted, text = _counts(call), "".join(_texts(call))
    tokens, chunks = counted.completion, len(_chunk_us(call))
    is_streamed = call["reasoning"]["mode"] in ("streamed", "inline")
    if counted.invalid or tokens == 0 and text:
        return f"{counted.invalid or 'completion_tokens'} is not a valid count"
    if tokens is None:
        return None
    if tokens * defs.MAX_WORDS_PER_TOKEN < len(text.split()):
        return "completion_tokens is less than a third of the words"
    if chunks > defs.MAX_CHUNKS_PER_TOKEN * tokens + defs.SPARE_TOKENS:
        return "completion_tokens is less than the chunks of text"
    if is_streamed and counted.total and counted.prompt is not None \
            and counted.total - counted.prompt > tokens + defs.SPARE_TOTAL_TOKENS:
        return "completion_tokens does not count the streamed reasoning"
    shown = tokens - (counted.reasoning or 0)
    if shown <= len(text.encode("utf-8", "replace")) + defs.SPARE_TOKENS:
        return None
    options = call["request"]["options"]
    limits = [limit for limit in (usage.count(options.get(name)) for name in defs.LIMIT_FIELDS)
              if limit]
    if limits and tokens > min(limits) + defs.SPARE_TOKENS:
        return "completion_tokens is more than the call's limit and than the bytes of text"
    if is_streamed:
        return "completion_tokens is more than the bytes of text, and no reasoning is hidden"
    return None


def usage_is_usable(call: CallFinished) -> bool:
    """Whether output_tokens can be taken from this call's usage."""
    return _counts(call).completion is not None and usage_problem(call) is None


def has_hidden_reasoning(call: CallFinished) -> bool:
    """Whether the server counted reasoning that it did not stream; needs usable usage.

    Either the server or the runner reports it, or the count exceeds both what the text can hold (a
    third of its letters and spaces, and each digit, sign and non-ASCII byte) and 1.5 times the
    number of chunks. Source code in few large chunks is the closest to a false positive; reasoning
    shorter than about half of the answer may be missed.
    """
    mode = call["reasoning"]["mode"]
    if mode in ("streamed", "inline") or not usage_is_usable(call):
        return False
    counted = _counts(call)
    if mode == "hidden" or counted.reasoning:
        return True
    tokens = counted.completion
    data = "".join(_texts(call)).encode("utf-8", "replace")
    others = len(data.translate(None, defs.LETTERS))
    room = (len(data) - others) // defs.LETTERS_PER_TOKEN + others
    return (tokens is not None and tokens > room + defs.SPARE_TOKENS
            and tokens > defs.MIN_HIDDEN_RATIO * len(_chunk_us(call)) + defs.SPARE_TOKENS)


def constant_usage(calls: Sequence[CallFinished],
                   field: Literal["completion", "prompt"]) -> Optional[str]:
    """Why a token count of one model's answered calls, seen together, cannot be correct.

    A count that is equal in five or more calls is not a count if the longest text has over twice
    the shortest one's characters plus 200 (an old KoboldCpp always reports 100). Answers that
    ended at their limit are left out: they are equally long by design.
    """
    group = [c for c in calls if _part(c["response"], "usage") and (
        field == "prompt" or c["response"] and c["response"]["finish_reason"] != "length")]
    sizes = [c["request"]["messages_chars"] if field == "prompt" else len("".join(_texts(c)))
             for c in group]
    counts = {getattr(_counts(c), field) for c in group}
    if len(group) >= defs.MIN_CONSTANT_CALLS and len(counts) == 1 and None not in counts \
            and max(sizes) > 2 * min(sizes) + defs.SHORT_CHARACTERS:
        return f"{field}_tokens is {counts.pop()} in every call, whatever the length of the text"
    return None


def is_cached(call: CallFinished) -> bool:
    """Whether so much of the prompt came from a cache that its prefill was not measured."""
    return counts_as_cached(_counts(call).cached, _counts(call).prompt)


def counts_as_cached(cached: Optional[int], prompt: Optional[int]) -> bool:
    """Whether these tokens are over a tenth of the prompt and more than a template's beginning."""
    return bool(prompt and cached
                and cached > max(defs.CACHED_SHARE * prompt, defs.CACHED_FLOOR_TOKENS))


# --- one call: its numbers -----------------------------------------------------------------------
def call_metrics(call: CallFinished, trust_usage: bool = True, trust_prompt: bool = True,
                 reloaded: bool = False) -> Numbers:
    """All CALL_METRICS of one call, unrounded, with `output_tokens_source` and `null_reasons`
    {metric: why it is None}.

    trust_usage False counts chunks even if usage looks usable, because other calls of the cell
    have no usage or all have the same; trust_prompt False leaves out the prompt's tokens.
    reloaded: the model was loaded within this call. A failed call has the numbers up to its
    failure.
    """
    from_usage = trust_usage and usage_is_usable(call)
    hidden = from_usage and has_hidden_reasoning(call)
    chunks, tokens = len(_chunk_us(call)), _output_tokens(call, from_usage)
    prompt = _counts(call).prompt if trust_prompt else None
    no_prompt = NO_PROMPT_TOKENS if trust_prompt else "the server reports the same in every call"
    is_load = reloaded or call["cold"] and call["phase"] != "hello"
    ttft = (None, LOADED) if is_load else _mark_ms(call, "first_token_us")
    tpot = _tpot_ms(call, tokens, hidden)
    gaps = icl_gaps_us(call)
    no_gaps = (None, _mark_ms(call, "first_token_us")[1] or "no gap between separate reads")
    found: dict[str, Result] = {
        "ttft_ms": ttft,
        "ttfo_ms": (None, LOADED) if is_load else _mark_ms(call, "first_answer_us"),
        "tpot_ms": tpot,
        "decode_tokens_per_s": _decode_rate(tokens[0], tpot),
        "prefill_tokens_per_s": _prefill_rate(call, prompt, ttft, hidden) if prompt else
        (None, ttft[1] or no_prompt),
        "icl_ms": (median(gaps) / 1000, None) if gaps else no_gaps,
        "icl_max_ms": (max(gaps) / 1000, None) if gaps else no_gaps,
        "e2el_ms": ((None, f"the call did not complete ({call['outcome']})")
                    if call["outcome"] != "ok" else (None, LOADED) if is_load else
                    _mark_ms(call, "last_token_us")),
        "output_tokens": tokens,
        "prompt_tokens": (prompt or None, no_prompt),
        "cached_tokens": (_counts(call).cached, "the server tells nothing of a cache"),
        "coalesced_ratio": (_shared_chunks(call) / chunks if chunks else None, no_gaps[1]),
    }
    source = "usage" if from_usage else "chunks"
    return {**{name: value for name, (value, _) in found.items()},
            "output_tokens_source": None if tokens[0] is None else source,
            "null_reasons": {name: why for name, (value, why) in found.items() if value is None}}


NO_PROMPT_TOKENS = "the server does not report prompt_tokens"
LOADED = "the model was loaded during this call"


def _mark_ms(call: CallFinished,
             name: Literal["first_token_us", "first_answer_us", "last_token_us"]) -> Result:
    timing = call["timing"]
    if not timing:
        return None, "no request was sent"
    mark = timing[name]
    if mark is not None:
        return mark / 1000, None
    if timing["first_token_us"] is not None:
        return None, "the answer is only reasoning"
    return None, timing["ttft_null_reason"] or "no text arrived"


def _output_tokens(call: CallFinished, from_usage: bool) -> Result:
    if from_usage:
        return _counts(call).completion, None
    chunks = len(_chunk_us(call))
    return (chunks, None) if chunks else (None, "no usable token count, and no chunks to count")


def _window_us(call: CallFinished) -> int:
    timing = call["timing"]
    return (timing["last_token_us"] or 0) - (timing["first_token_us"] or 0) if timing else 0


def _tpot_ms(call: CallFinished, tokens: Result, hidden: bool) -> Result:
    """Also null if the first read brought so many tokens that the window says little.

    Those tokens are counted, but were generated before the window began. Their number is estimated
    as the first read's chunks times the tokens of an average chunk.
    """
    first, window_us = _mark_ms(call, "first_token_us"), _window_us(call)
    if first[0] is None or tokens[0] is None:
        return None, first[1] or tokens[1]
    if hidden:
        return None, "hidden reasoning: not all counted tokens were streamed"
    if tokens[0] < 2:
        return None, "fewer than 2 output tokens"
    if window_us <= 0:
        return None, "all text arrived at once"
    reads = _reads(call)
    in_first = reads[0][1] if reads and reads[0][0] == 0 else 1
    at_once = tokens[0] * in_first / max(len(_chunk_us(call)), 1)
    if at_once - 1 > defs.MAX_FIRST_READ_ERROR * (tokens[0] - 1):
        return None, "too much of the text arrived in the first read"
    return window_us / (tokens[0] - 1) / 1000, None


def _decode_rate(tokens: Optional[Number], tpot: Result) -> Result:
    if tpot[0] is None:
        return tpot
    if tokens is None or tokens < defs.MIN_DECODE_TOKENS:
        return None, f"fewer than {defs.MIN_DECODE_TOKENS} output tokens"
    return 1000 / tpot[0], None


def _prefill_rate(call: CallFinished, prompt: int, ttft: Result, hidden: bool) -> Result:
    cached = _counts(call).cached
    if ttft[0] is None:
        return ttft
    if not ttft[0]:
        return None, "the time to first token is zero"
    if is_cached(call):
        return None, "cached"
    if prompt - (cached or 0) < defs.MIN_PREFILL_TOKENS:
        return None, f"fewer than {defs.MIN_PREFILL_TOKENS} uncached prompt tokens"
    if hidden:
        return None, "hidden reasoning: TTFT includes it"
    if cached is None and call["phase"] in defs.GROWING_PHASES \
            and call["request"]["messages_count"] > 1:
        return None, "cached tokens are not reported, and earlier turns may be cached"
    return prompt * 1000 / ttft[0], None


def icl_gaps_us(call: CallFinished) -> list[int]:
    """Gaps in µs between reads of text, in order.

    Gaps that end in a read of several chunks are left out: it has the timestamp of its last bytes,
    so the gap to its first chunk is too long, and the gaps inside it are 0.
    """
    chunk_us, at = _chunk_us(call), 1
    gaps: list[int] = []
    for first, count in _reads(call):
        gaps += chunk_us[at:first]
        at = max(at, first + count)
    return gaps + chunk_us[at:]


def _shared_chunks(call: CallFinished) -> int:
    return sum(count for _, count in _reads(call))


def gaps_count(call: CallFinished) -> int:
    """The number of gaps between a call's chunks of text."""
    return max(len(_chunk_us(call)) - 1, 0)


# --- verdicts over several calls -----------------------------------------------------------------
def outliers(values: Sequence[Number]) -> records.Outliers:
    """Whether values are 10 sigma and 20 % off the median, and how many. Null below n = 6.

    Sigma is 1.4826 times the median absolute deviation (modified z-score). largest_sigmas is None
    if that is 0; then only the 20 % count.
    """
    if len(values) < defs.MIN_RANKED_N:
        return {"flagged": None, "count": None, "largest_sigmas": None}
    middle = median(values)
    off = [abs(v - middle) for v in values]
    sigma = 1.4826 * median(off)
    limit = max(defs.OUTLIER_SIGMAS * sigma, defs.OUTLIER_RATIO * abs(middle))
    count = sum(o > limit for o in off)
    return {"flagged": count > 0, "count": count,
            "largest_sigmas": round_sig(max(off) / sigma) if sigma else None}


def drift(values: Sequence[Number], limit_ratio: float = defs.DRIFT_RATIO) -> records.Drifting:
    """Median of the last quarter over that of the first, in the given order. Null below n = 12.

    Flagged if they differ by more than the limit, in either direction.
    """
    quarter = len(values) // 4
    if len(values) < defs.MIN_DRIFT_N or not median(values[:quarter]):
        return {"flagged": None, "ratio": None}
    ratio = median(values[-quarter:]) / median(values[:quarter])
    steady = 1 / (1 + limit_ratio) <= ratio <= 1 + limit_ratio
    return {"flagged": not steady, "ratio": round_sig(ratio)}


def instability(values: Sequence[Number],
                limit_ratio: float = defs.UNSTABLE_IQR_RATIO) -> records.Unstable:
    """Interquartile range over median, flagged above the limit. Null below n = 6.

    For rates only: times to first token rightly differ from prompt to prompt.
    """
    ordered = sorted(values)
    if len(ordered) < defs.MIN_RANKED_N or not quartile(ordered, 2):
        return {"flagged": None, "iqr_ratio": None}
    ratio = (quartile(ordered, 3) - quartile(ordered, 1)) / quartile(ordered, 2)
    return {"flagged": ratio > limit_ratio, "iqr_ratio": round_sig(ratio)}


def early_speed(call: CallFinished, gaps: int = defs.JUDGED_GAPS) -> float:
    """How much faster the first `gaps` gaps between chunks were than all of them; 1 without any.

    Each token reads the whole context again, so long answers are slower than short ones even on
    the steadiest machine. Calls are compared over the part that they share.
    """
    every = _chunk_us(call)[1:]
    first_us = fsum(every[:gaps])
    return (fsum(every) / len(every)) / (first_us / len(every[:gaps])) if first_us else 1.0


def _at_lanes(rows: Optional[Sequence[Any]], lanes: int) -> Mapping[str, Any]:
    """The calibration's row with the fewest lanes that suffice, else the one with the most."""
    ordered = sorted(rows or (), key=lambda row: int(row["lanes"]))
    last = ordered[-1] if ordered else {}
    return next((row for row in ordered if row["lanes"] >= lanes), last)


def stamp_error_us(call: CallFinished, calibration: Optional[InstrumentCalibrated],
                   lanes: int) -> tuple[Optional[int], str]:
    """(p99 of the delay of this call's timestamps, its source); None if "not calibrated".

    User timestamps are late by the reader's own lag: best known from this call, else from the
    calibration, else from how late a heartbeat wakes up. A slow reader does not affect kernel
    timestamps; their error is what the calibration, if it used kernel timestamps too, measured
    after the server's send. Without one, the reader's lag is used, which is larger.
    """
    timing = call["timing"]
    found: Mapping[str, Any] = calibration or {}
    own = _part(timing, "read_lag_us").get("p99")
    calibrated = _part(_at_lanes(_rows(calibration, "lanes"), lanes), "lag_us").get("p99")
    stamp = timing["stamp"] if timing else None
    if found.get("stamp") != stamp:
        calibrated = None
    heartbeat = _part(found, "heartbeat_overshoot_us").get("p99")
    sources = [(own, "read_lag"), (calibrated, "calibration"), (heartbeat, "heartbeat")]
    if stamp == "kernel":
        sources = [(calibrated, "calibration"), (own, "read_lag")]
    return next((source for source in sources if source[0] is not None), (None, "not calibrated"))


def _rows(calibration: Optional[InstrumentCalibrated],
          name: Literal["lanes", "saturation"]) -> Sequence[Any]:
    return calibration[name] if calibration else ()


def client_bound(calls: Sequence[CallFinished], calibration: Optional[InstrumentCalibrated],
                 lanes: int) -> records.ClientBound:
    """Whether the client itself determined a cell's numbers.

    Judged on medians over the answered calls, because medians are published. Three signs:
    "decode_window", twice the timestamps' p99 error is over 1 % of it (both ends are timestamps);
    "ttft", that error is over 1 % of TTFT; "saturation", the chunk rate of all lanes is over a
    third of what this client can receive on that many lanes. Windows and rates are those of answers
    with at least 32 chunks. `flagged` is None if the error is unknown and there is no sign.
    """
    timed = [c for c in calls if _chunk_us(c)]
    long = [c for c in timed if len(_chunk_us(c)) >= defs.MIN_DECODE_TOKENS and _window_us(c) > 0]
    errors = [stamp_error_us(c, calibration, lanes) for c in timed]
    error_us = _median_or_none(error for error, _ in errors if error is not None)
    ttft_us = _median_or_none(_chunk_us(c)[0] for c in timed)
    window_us = _median_or_none(_window_us(c) for c in long)
    rate = _median_or_none((len(_chunk_us(c)) - 1) * lanes * 1e6 / _window_us(c) for c in long)
    limit = _at_lanes(_rows(calibration, "saturation"), lanes).get("chunks_per_s")
    reasons = [name for name, part, whole, share in (
        ("decode_window", error_us, window_us, defs.LAG_SHARE / 2),
        ("ttft", error_us, ttft_us, defs.LAG_SHARE),
        ("saturation", rate, limit, defs.SATURATION_SHARE),
    ) if part is not None and whole is not None and part > share * whole]
    sources = Counter(source for _, source in errors).most_common(1)
    return {"flagged": None if error_us is None and not reasons else bool(reasons),
            "reasons": reasons, "error_p99_us": round_sig(error_us),
            "error_source": sources[0][0] if sources else "no call with text",
            "ttft_us": round_sig(ttft_us), "decode_window_us": round_sig(window_us),
            "chunks_per_s": round_sig(rate), "saturation_chunks_per_s": round_sig(limit)}


# --- one run -------------------------------------------------------------------------------------
Key = tuple[str, str]                        # model, phase


class _Run(NamedTuple):
    """What the cells of a run need to know about the rest of it."""

    manifest: Manifest
    calibration: Optional[InstrumentCalibrated]
    endpoints: dict[str, records.EndpointIdentified]     # the last one of each model
    cached: set[str]                         # models whose prompts the cache probe found cached
    distrusted: dict[str, Optional[str]]     # model: why its counts of output are not trusted
    bad_prompts: dict[str, Optional[str]]    # model: why its counts of prompts are not trusted
    after_failure: set[str]                  # calls right after one that the server broke off
    declared_slots: Mapping[str, Optional[int]]      # by model
    makespans_us: dict[Key, Result]          # the models of MIXED_PHASE share one


class _Group(NamedTuple):
    """The calls of one cell with their numbers."""

    calls: list[CallFinished]
    ok: list[CallFinished]
    numbers: list[Numbers]                   # call_metrics of `ok`

    @property
    def tokens_source(self) -> Optional[str]:
        """usage, chunks, or None without any tokens."""
        sources = (m["output_tokens_source"] for m in self.numbers)
        return next((source for source in sources if source), None)


def summarize_run(manifest: Manifest, events: Sequence[LedgerLine],
                  declared_slots: Optional[Mapping[str, Optional[int]]] = None) -> dict[str, Any]:
    """{"cells", "run_flags", "counts", "instrument"} of a run, as records.Metadata holds them.

    declared_slots: by model, the number of requests that the server processes in parallel.
    A cell is one model in one phase, in the ledger's order. Of several call_finished lines of one
    cell_id the last counts.
    """
    finished = [e for e in events if e["event"] == "call_finished"]
    calls = sorted({c["cell_id"]: c for c in finished}.values(), key=lambda c: c["seq"])
    run = _run_of(manifest, events, calls, declared_slots or {})
    by_key: dict[Key, list[CallFinished]] = {(c["model"], c["phase"]): [] for c in finished}
    for call in calls:
        by_key[call["model"], call["phase"]].append(call)
    groups = {key: _group(found, run) for key, found in by_key.items()}
    return {"cells": [_cell(run, key, groups) for key in groups],
            "run_flags": _run_flags(run, events),
            "counts": _outcomes(calls),
            "instrument": _instrument(run.calibration, calls)}


def _run_of(manifest: Manifest, events: Sequence[LedgerLine], calls: list[CallFinished],
            declared_slots: Mapping[str, Optional[int]]) -> _Run:
    calibrations = [e for e in events if e["event"] == "instrument_calibrated"]
    answered: dict[str, list[CallFinished]] = {}
    made: dict[str, list[CallFinished]] = {}
    for event in events:
        if event["event"] == "call_finished":
            made.setdefault(event["model"], []).append(event)
    spans: dict[Key, list[CallFinished]] = {}
    for call in calls:
        spans.setdefault(_span_key(call["model"], call["phase"]), []).append(call)
        if call["outcome"] == "ok":
            answered.setdefault(call["model"], []).append(call)
    return _Run(
        manifest, calibrations[-1] if calibrations else None,
        {e["model"]: e for e in events if e["event"] == "endpoint_identified"},
        {e["model"] for e in events if e["event"] == "cache_probed" and e["verdict"] == "cached"},
        {model: constant_usage(group, "completion") for model, group in answered.items()},
        {model: constant_usage(group, "prompt") for model, group in answered.items()},
        {after["cell_id"] for group in made.values() for before, after in zip(group, group[1:])
         if before["outcome"] in defs.BROKEN_OUTCOMES}, declared_slots,
        {key: _makespan_us(group) for key, group in spans.items()})


def _span_key(model: str, phase: str) -> Key:
    return ("" if phase == defs.MIXED_PHASE else model), phase


def _makespan_us(calls: list[CallFinished]) -> Result:
    """From the first request to the last byte; a call without an end mark ends with its line."""
    timed = [(c, c["timing"]) for c in calls if c["timing"]]
    if not timed:
        return None, "no request was sent"
    if len({call["segment"] for call, _ in timed}) > 1:
        return None, "the run was resumed during the phase"
    started = min(timing["started_us"] for _, timing in timed)
    ended = max(call["t_us"] if timing["done_us"] is None
                else timing["started_us"] + timing["done_us"] for call, timing in timed)
    return (ended - started, None) if ended > started else (None, "the duration is zero")


def _group(calls: list[CallFinished], run: _Run) -> _Group:
    """One kind of token count per cell: usage only if every answer has a usable one.

    Of several hellos only the first answered one counts: those of a resume find a loaded model.
    """
    ok = [c for c in calls if c["outcome"] == "ok"]
    trusted = all(not run.distrusted.get(c["model"]) and usage_is_usable(c) for c in ok)
    measured = ok[:1] if calls[0]["phase"] == "hello" else ok
    loads = _reloaded(measured, run.after_failure)
    return _Group(calls, ok, [
        call_metrics(c, trusted, not run.bad_prompts.get(c["model"]), c["cell_id"] in loads)
        for c in measured])


def _reloaded(calls: list[CallFinished], after_failure: set[str]) -> set[str]:
    """Calls in which the model was loaded: as recorded, or after a failure and with a TTFT that
    stands out, since an engine that died is started again by the next call.
    """
    cold = {c["cell_id"] for c in calls if c["cold"] and c["phase"] != "hello"}
    others = [_chunk_us(c)[0] for c in calls
              if _chunk_us(c) and c["cell_id"] not in cold | after_failure]
    if not others:
        return cold
    limit_us = defs.RELOADED_RATIO * median(others)
    return cold | {c["cell_id"] for c in calls if c["cell_id"] in after_failure
                   and _chunk_us(c) and _chunk_us(c)[0] > limit_us}


def _outcomes(calls: Iterable[CallFinished]) -> dict[str, int]:
    return dict(sorted(Counter(c["outcome"] for c in calls).items()))


def _phase_plan(manifest: Manifest, phase: str) -> tuple[int, int]:
    """Lanes and number of questions of a phase."""
    return next(((p["lanes"], len(p["question_ids"])) for p in manifest["plan"]["phases"]
                 if p["phase"] == phase), (1, 0))


def _own_lanes(manifest: Manifest, model: str, phase: str, count: int) -> int:
    """How many of the first `count` lanes are the model's: all, unless lanes have models."""
    models = manifest["models"]
    if phase != defs.MIXED_PHASE:
        return count
    return sum(models[lane % len(models)] == model for lane in range(count))


def _planned(manifest: Manifest, model: str, phase: str, calls: list[CallFinished]) -> int:
    """Planned calls of a cell; each resume adds a hello of its own, so those are counted."""
    if phase == "hello":
        return len(calls)
    lanes, questions = _phase_plan(manifest, phase)
    rounds, rest = divmod(questions, lanes)
    full, last = (_own_lanes(manifest, model, phase, count) for count in (lanes, rest))
    return (rounds * full + last) * manifest["plan"]["repeats"]


def _cell(run: _Run, key: Key, groups: dict[Key, _Group]) -> records.Cell:
    (model, phase), group = key, groups[key]
    calls, ok, numbers = group.calls, group.ok, group.numbers
    lanes, cold = _phase_plan(run.manifest, phase)[0], all(
        c["cold"] and c["phase"] == "hello" for c in calls[:1])
    makespan_us, why = run.makespans_us[_span_key(model, phase)]
    throughput = _throughput(group, makespan_us, why)
    efficiency = _lane_efficiency(run, key, groups, throughput)
    passed = [c["checks"]["passed"] for c in ok if c["checks"]]
    verdicts = _verdicts(run, phase, lanes, group)
    summaries: Any = {name: summarize(m[name] for m in numbers) for name in defs.CALL_METRICS}
    reasons = {"makespan_ms": why, "output_token_throughput_tokens_per_s": throughput[1],
               "lane_efficiency_ratio": efficiency[1]}
    return {
        "model": model, "phase": phase, "lanes": lanes, "cold": cold,
        "across_prompts": len({c["question_id"] for c in ok}) > 1,
        "planned": _planned(run.manifest, model, phase, calls),
        "ok": len(ok), "failed": len(calls) - len(ok), "outcomes": _outcomes(calls),
        "metrics": summaries, "output_tokens_source": group.tokens_source,
        "makespan_ms": None if makespan_us is None else round_sig(makespan_us / 1000),
        "output_token_throughput_tokens_per_s": round_sig(throughput[0]),
        "lane_efficiency_ratio": round_sig(efficiency[0]),
        "checks": {"passed": passed.count(True), "total": len(passed) - passed.count(None)},
        "null_reasons": {**_null_reasons(numbers),
                         **{name: text for name, text in reasons.items() if text}},
        "verdicts": verdicts, "flags": _cell_flags(run, key, groups, verdicts)}


def _throughput(group: _Group, makespan_us: Optional[Number], why: Optional[str]) -> Result:
    tokens = [m["output_tokens"] for m in group.numbers]
    if makespan_us is None or not tokens:
        return None, why or "no answer"
    if None in tokens:
        return None, "an answer's tokens are unknown"
    return sum(tokens) * 1e6 / makespan_us, None


def _lane_efficiency(run: _Run, key: Key, groups: dict[Key, _Group],
                     throughput: Result) -> Result:
    """Throughput over that of the model's own lanes at the speed of its one-lane phases."""
    (model, phase), lanes = key, _phase_plan(run.manifest, key[1])[0]
    if lanes == 1 or throughput[0] is None:
        return None, "one lane" if lanes == 1 else throughput[1]
    alone = [groups[model, name] for name in defs.ONE_LANE_PHASES
             if (model, name) in groups and groups[model, name].ok]
    if any(group.tokens_source != groups[key].tokens_source for group in alone):
        return None, "tokens were counted in different ways"
    pairs = [(m["output_tokens"], m["e2el_ms"]) for group in alone for m in group.numbers
             if m["output_tokens"] and m["e2el_ms"]]
    if not pairs:
        return None, f"no answer on one lane ({', '.join(defs.ONE_LANE_PHASES)})"
    single = sum(tokens for tokens, _ in pairs) * 1000 / fsum(ms for _, ms in pairs)
    return throughput[0] / (_own_lanes(run.manifest, model, phase, lanes) * single), None


def _null_reasons(numbers: Sequence[Numbers]) -> dict[str, str]:
    """{metric: "k of n calls: most frequent reason"} for each metric that is null in a call."""
    found = {}
    for name in defs.CALL_METRICS:
        reasons = Counter(m["null_reasons"][name] for m in numbers if m[name] is None)
        if reasons:
            reason = min(reasons, key=lambda text: (-reasons[text], text))
            found[name] = f"{sum(reasons.values())} of {len(numbers)} calls: {reason}"
        elif not numbers:
            found[name] = "no answer"
    return found


def _verdicts(run: _Run, phase: str, lanes: int, group: _Group) -> records.Verdicts:
    spread, change = ((defs.UNSTABLE_IQR_RATIO, defs.DRIFT_RATIO) if lanes == 1 else
                      (defs.UNSTABLE_LANES_IQR_RATIO, defs.DRIFT_LANES_RATIO))
    judged = [] if phase in defs.GROWING_PHASES or phase == "hello" else [
        m["decode_tokens_per_s"] * early_speed(call) for call, m in zip(group.ok, group.numbers)
        if m["decode_tokens_per_s"] is not None]
    return {"client_bound": client_bound(group.ok, run.calibration, lanes),
            "unstable": instability(judged, spread), "drifting": drift(judged, change),
            "outliers": outliers(judged)}


def _cell_flags(run: _Run, key: Key, groups: dict[Key, _Group],
                verdicts: records.Verdicts) -> list[str]:
    """Flags of single answered calls, of all calls together, and of the model.

    A phase is published as one thing, so one call with a flag is enough; `coalesced` and `failures`
    have their own limits.
    """
    (model, phase), group = key, groups[key]
    ok, is_hello = group.ok, phase == "hello"
    is_distrusted = bool(run.distrusted.get(model))
    found = {name for call in ok for name in _call_flags(call, is_distrusted)} - {"coalesced"}
    # A growing conversation ends at the context's limit by design; that is not a failure.
    fine = ("ok", "context_limit") if phase in defs.GROWING_PHASES else ("ok",)
    failures = sum(c["outcome"] not in fine for c in group.calls)
    chunks = sum(len(_chunk_us(c)) for c in ok)
    endpoint = run.endpoints.get(model)
    context = endpoint["context"]["effective_tokens"] if endpoint else None
    return defs.ordered_flags(found | {name for name, holds in (
        ("client_bound", verdicts["client_bound"]["flagged"]),
        ("unstable", verdicts["unstable"]["flagged"]),
        ("drifting", verdicts["drifting"]["flagged"]),
        ("outliers", verdicts["outliers"]["flagged"]),
        ("few_samples", not is_hello and len(ok) < defs.MIN_RANKED_N),
        ("failures", failures > defs.FAILED_SHARE * len(group.calls)),
        ("survivors", failures >= defs.SURVIVORS_SHARE * len(group.calls) and bool(ok)),
        ("reloaded", any(m["null_reasons"].get("ttft_ms") == LOADED for m in group.numbers)),
        ("context_shift", any(map(_ran_over, ok, [context] * len(ok)))),
        ("coalesced", sum(map(_shared_chunks, ok)) > defs.COALESCED_SHARE * max(chunks, 1)),
        ("tokens_from_chunks", group.tokens_source == "chunks"),
        ("usage_implausible", is_distrusted or bool(run.bad_prompts.get(model))
         or any(map(usage_problem, ok))),
        ("cached_prefill", model in run.cached and not is_hello),
        ("queued", _is_queued(run, key, groups)),
        ("context_differs", endpoint and _context_differs(endpoint)),
    ) if holds})


def _ran_over(call: CallFinished, context_tokens: Optional[int]) -> bool:
    """Whether an answer continued beyond the context: the server dropped the start meanwhile."""
    counted = _counts(call)
    return bool(context_tokens and counted.prompt and counted.completion
                and counted.prompt <= context_tokens < counted.prompt + counted.completion)


def _is_queued(run: _Run, key: Key, groups: dict[Key, _Group]) -> bool:
    """Whether calls on parallel lanes waited for each other.

    Known from the server's slots, reported or declared. Without them, from the times: TTFT is over
    twice that of one lane, and fewer answers were ever generated at once than lanes asked.
    """
    (model, phase), endpoint = key, run.endpoints.get(key[0])
    lanes = _phase_plan(run.manifest, phase)[0]
    own_lanes = _own_lanes(run.manifest, model, phase, lanes)
    slots = run.declared_slots.get(model) or (endpoint["slots"]["count"] if endpoint else None)
    if slots and slots < own_lanes:
        return True
    if lanes == 1 or slots and phase != defs.MIXED_PHASE:
        return False
    if phase == defs.MIXED_PHASE:
        together = [call for (_, name), group in groups.items() if name == phase
                    for call in group.ok]
    else:
        together = groups[key].ok
    alone_us = _median_or_none(
        _chunk_us(call)[0] for name in defs.ONE_LANE_PHASES if (model, name) in groups
        for call in groups[model, name].ok if _chunk_us(call) and not call["cold"])
    own_us = _median_or_none(_chunk_us(call)[0] for call in groups[key].ok if _chunk_us(call))
    waited = own_us is not None and (alone_us is None or own_us > defs.WAITING_RATIO * alone_us)
    return waited and len(together) > lanes and _most_at_once(together) < lanes


def _most_at_once(calls: Sequence[CallFinished]) -> int:
    """How many answers were generated at the same time, at most."""
    steps: list[tuple[int, int, int]] = []
    for call in calls:
        timing = call["timing"]
        if timing and timing["first_token_us"] is not None and timing["last_token_us"] is not None:
            begin_us = timing["started_us"] + timing["first_token_us"]
            end_us = timing["started_us"] + timing["last_token_us"]
            steps += [(call["segment"], begin_us, 1), (call["segment"], end_us, -1)]
    most = now = 0
    for _, _, step in sorted(steps):
        now += step
        most = max(most, now)
    return most


def _call_flags(call: CallFinished, is_distrusted: bool) -> list[str]:
    """Flags of one answered call: the runner's own, and those computed from its record."""
    timing, (text, reasoning) = call["timing"], _texts(call)
    step_us, gap_us = (timing["clock_step_us"] or 0, timing["heartbeat_gap_us"] or 0) \
        if timing else (0, 0)
    characters = len(text) + len(reasoning)
    at_once = _window_us(call) <= 0 and characters > defs.SHORT_CHARACTERS
    return [*call["flags"], *(name for name, holds in (
        ("truncated", call["truncated"]["verdict"] == "yes"),
        ("cached_prefill", is_cached(call)),
        ("suspended", max(gap_us, step_us) > defs.SUSPENDED_US),
        ("clock_stepped", step_us != 0),
        ("hidden_reasoning", not is_distrusted and has_hidden_reasoning(call)),
        ("reasoning_only", bool(reasoning) and not text.strip()),
        ("inline_reasoning", call["reasoning"]["mode"] == "inline"),
        ("no_finish_reason", not (call["response"] and call["response"]["finish_reason"])),
        ("not_streamed", at_once or (characters and not _chunk_us(call))),
    ) if holds)]


def _context_differs(endpoint: records.EndpointIdentified) -> bool:
    context = endpoint["context"]
    return len({context["requested_tokens"], context["effective_tokens"]} - {None}) > 1


def _run_flags(run: _Run, events: Sequence[LedgerLine]) -> list[str]:
    samples = [e for e in events if e["event"] == "host_sampled"]
    busy = sum((s["other_cpu_busy_ratio"] or 0) > defs.OTHER_CPU_SHARE
               or (s["cpu_steal_ratio"] or 0) > defs.STEAL_SHARE for s in samples)
    return defs.ordered_flags(name for name, holds in (
        ("busy_host", busy > defs.BUSY_SAMPLES_SHARE * len(samples)),
        ("throttled", _throttled(samples)),
        ("on_battery", any(s["power_source"] == "battery" for s in samples)),
        ("context_differs", any(map(_context_differs, run.endpoints.values()))),
        ("cached_prefill", run.cached),
        ("usage_implausible", any(run.distrusted.values()) or any(run.bad_prompts.values())),
        ("not_calibrated", not _rows(run.calibration, "lanes")),
        ("unfinished", not any(e["event"] == "run_finished" for e in events)),
    ) if holds)


def _throttled(samples: Sequence[records.HostSampled]) -> bool:
    """A card reports it, or the CPUs' counter grew within a segment."""
    counts: dict[int, list[float]] = {}
    for s in samples:
        if s["cpu_throttle_count"] is not None:
            counts.setdefault(s["segment"], []).append(s["cpu_throttle_count"])
    return any(gpu["throttled"] for s in samples for gpu in s["gpus"]) \
        or any(c[-1] > c[0] for c in counts.values())


def _instrument(calibration: Optional[InstrumentCalibrated],
                calls: Sequence[CallFinished]) -> records.Instrument:
    """What is known of the client's own error.

    read_lag_us: over the n calls that have it, the medians of their p50 and p99, and the largest
    max.
    """
    found: Mapping[str, Any] = calibration or {"reason": "no calibration in this run"}
    timings = [c["timing"] for c in calls if c["timing"]]
    lags = [timing["read_lag_us"] for timing in timings if timing["read_lag_us"]]
    stamps: Any = dict(sorted(Counter(timing["stamp"] for timing in timings).items()))
    return {
        "stamp": found.get("stamp"), "clock_resolution_ns": found.get("clock_resolution_ns"),
        "lanes": found.get("lanes"), "saturation": found.get("saturation"),
        "heartbeat_overshoot_us": found.get("heartbeat_overshoot_us"),
        "wall_ms": found.get("wall_ms"), "reason": found.get("reason"), "stamps": stamps,
        "read_lag_us": {"p50": round_sig(median(lag["p50"] for lag in lags)),
                        "p99": round_sig(median(lag["p99"] for lag in lags)),
                        "max": max(lag["max"] for lag in lags), "n": len(lags)} if lags else None}


# --- two runs ------------------------------------------------------------------------------------
def ratio_summary(pairs: Iterable[tuple[Optional[Number], Optional[Number]]]) -> dict[str, Any]:
    """{"n", "left_out", "median", "ci_low", "ci_high"} of b / a over pairs (a, b) of questions.

    Pairs with a None or a value that is not positive are left out and counted. The median of an
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


def verdict(ratios: Mapping[str, Any], direction: str) -> str:
    """"faster", "slower" or "cannot tell", for the second run of a ratio_summary.

    direction: that of the metric. Decided only if the interval excludes 1 and the median is at
    least 5 % away from it: smaller differences occur between two sessions on one machine.
    """
    low, high, middle = ratios["ci_low"], ratios["ci_high"], ratios["median"]
    if low is None or low <= 1 <= high or 1 / defs.DIFFERENT_RATIO < middle < defs.DIFFERENT_RATIO \
            or direction not in ("lower", "higher"):
        return "cannot tell"
    return "faster" if (middle > 1) == (direction == "higher") else "slower"
