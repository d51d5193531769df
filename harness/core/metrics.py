"""Compute the numbers of single calls, and what several calls have in common.

The runner's final table, metadata.json, the check and the comparison all call these pure
functions; none of them computes a number of its own. metric_definitions describes each metric.

    summarize           n, median, quartiles, exact interval and tails of some values
    call_metrics        the numbers of one call_finished line

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
from math import isfinite
from typing import Any, Literal, NamedTuple, Optional, Union

from core import metric_definitions as defs
from core import records, thresholds, usage
from core.records import CallFinished, InstrumentCalibrated

Number = Union[int, float]
Result = tuple[Optional[Number], Optional[str]]      # a value, or None and the reason
Numbers = dict[str, Any]                             # what call_metrics returns


# --- summaries -----------------------------------------------------------------------------------
def round_sig(x: Optional[Number], digits: int = thresholds.SIGNIFICANT_DIGITS) -> Optional[float]:
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


def median_or_none(values: Iterable[Number]) -> Optional[Number]:
    """Median, or None without any value."""
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
    q1, q3 = (quartile(ordered, q) if n >= thresholds.MIN_QUARTILE_N else None for q in (1, 3))
    tails = {name: round_sig(ordered[-(-n * percent // 100) - 1]) if n >= floor else None
             for name, (percent, floor) in thresholds.TAIL_FLOORS.items()}
    return {
        "n": n, "median": round_sig(quartile(ordered, 2) if n else None),
        "q1": round_sig(q1), "q3": round_sig(q3),
        "iqr": None if q1 is None or q3 is None else round_sig(q3 - q1),
        "min": round_sig(ordered[0] if n else None), "max": round_sig(ordered[-1] if n else None),
        "ci_low": round_sig(ordered[ranks[0] - 1] if ranks else None),
        "ci_high": round_sig(ordered[ranks[1] - 1] if ranks else None),
        "p90": tails["p90"], "p95": tails["p95"], "p99": tails["p99"]}


# --- one call: what the server reports -----------------------------------------------------------
def answer_texts(call: CallFinished) -> tuple[str, str]:
    """The answer's text and its reasoning."""
    response = call["response"]
    return (response["text"] or "", response["reasoning_text"] or "") if response else ("", "")


def _reads(call: CallFinished) -> list[list[int]]:
    return call["timing"]["reads"] if call["timing"] else []


def chunk_times_us(call: CallFinished) -> list[int]:
    """Times between a call's chunks of text in µs; the first is that to the first chunk."""
    return call["timing"]["chunk_us"] if call["timing"] else []


def usage_problem(call: CallFinished, counted: Optional[usage.Counts] = None) -> Optional[str]:
    """Why this call's count of generated tokens cannot be correct, or None (also without any).

    The rules, and where an honest server could break them:
    * it is a non-negative integer. (None known. A 0 beside text is not a count: core/usage.py.)
    * at least a third of the words, including reasoning. (A server that does not count the
      reasoning it streams. Its count does not fit the stream, so the rule is right to catch it.)
    * not fewer tokens than chunks of text. (A proxy that splits texts; a few chunks are spare.)
    * with streamed reasoning, total_tokens less the prompt is not more. (A server whose total has
      other parts.)
    * with the prompt, not more than total_tokens. (A server whose total leaves cached tokens out.)
    * no more tokens than bytes of text if nothing can be hidden: the reasoning was streamed, or
      the count exceeds the call's own limit. (A server whose reasoning has a separate limit.)
    """
    counted, text = counted or usage.counts(call["response"]), "".join(answer_texts(call))
    tokens, chunks = counted.completion, len(chunk_times_us(call))
    is_streamed = call["reasoning"]["mode"] in ("streamed", "inline")
    if counted.invalid:
        return f"{counted.invalid} is not a valid count"
    if tokens is None:
        return None
    if tokens * thresholds.MAX_WORDS_PER_TOKEN < len(text.split()):
        return "completion_tokens is less than a third of the words"
    if chunks > thresholds.MAX_CHUNKS_PER_TOKEN * tokens + thresholds.SPARE_TOKENS:
        return "completion_tokens is less than the chunks of text"
    if is_streamed and counted.total and counted.prompt is not None \
            and counted.total - counted.prompt > tokens + thresholds.SPARE_TOTAL_TOKENS:
        return "completion_tokens does not count the streamed reasoning"
    if counted.total and counted.prompt \
            and counted.total + thresholds.SPARE_TOTAL_TOKENS < counted.prompt + tokens:
        return "total_tokens is less than prompt and answer together"
    shown = tokens - (counted.reasoning or 0)
    if shown <= len(text.encode("utf-8", "replace")) + thresholds.SPARE_TOKENS:
        return None
    options = call["request"]["options"]
    limits = [limit for limit in (usage.count(options.get(name)) for name in defs.LIMIT_FIELDS)
              if limit]
    if limits and tokens > min(limits) + thresholds.SPARE_TOKENS:
        return "completion_tokens is more than the call's limit and than the bytes of text"
    if is_streamed:
        return "completion_tokens is more than the bytes of text, and no reasoning is hidden"
    return None


def usable_counts(call: CallFinished) -> Optional[usage.Counts]:
    """The server's token counts if output_tokens can be taken from them, else None."""
    counted = usage.counts(call["response"])
    return counted if counted.completion is not None \
        and usage_problem(call, counted) is None else None


def has_hidden_reasoning(call: CallFinished, counted: Optional[usage.Counts]) -> bool:
    """Whether the server counted reasoning that it did not stream; counted: usable_counts.

    Either the server or the runner reports it, or the count exceeds both what the text can hold (a
    third of its letters and spaces, and each digit, sign and non-ASCII byte) and 1.5 times the
    number of chunks. Source code in few large chunks is the closest to a false positive; reasoning
    shorter than about half of the answer may be missed.
    """
    mode = call["reasoning"]["mode"]
    if mode in ("streamed", "inline") or not counted:
        return False
    if mode == "hidden" or counted.reasoning:
        return True
    tokens = counted.completion
    data = "".join(answer_texts(call)).encode("utf-8", "replace")
    others = len(data.translate(None, defs.LETTERS))
    room = (len(data) - others) // thresholds.LETTERS_PER_TOKEN + others
    return (tokens is not None and tokens > room + thresholds.SPARE_TOKENS
            and tokens > (thresholds.MIN_HIDDEN_RATIO * len(chunk_times_us(call))
                          + thresholds.SPARE_TOKENS))


def constant_usage(calls: Sequence[CallFinished],
                   field: Literal["completion", "prompt"]) -> Optional[str]:
    """Why a token count of one model's answered calls, seen together, cannot be correct.

    A count that is equal in five or more calls is not a count if the longest text has over twice
    the shortest one's characters plus 200 (an old KoboldCpp always reports 100). Answers that
    ended at their limit are left out: they are equally long by design.
    """
    group = [c for c in calls if c["response"] and c["response"]["usage"] and (
        field == "prompt" or c["response"]["finish_reason"] != "length")]
    sizes = [c["request"]["messages_chars"] if field == "prompt" else len("".join(answer_texts(c)))
             for c in group]
    counts = {getattr(usage.counts(c["response"]), field) for c in group}
    if len(group) >= thresholds.MIN_CONSTANT_CALLS and len(counts) == 1 and None not in counts \
            and max(sizes) > 2 * min(sizes) + thresholds.SHORT_CHARACTERS:
        return f"{field}_tokens is {counts.pop()} in every call, whatever the length of the text"
    return None


def is_cached(call: CallFinished) -> bool:
    """Whether so much of the prompt came from a cache that its prefill was not measured."""
    counted = usage.counts(call["response"])
    return counts_as_cached(counted.cached, counted.prompt)


def counts_as_cached(cached: Optional[int], prompt: Optional[int]) -> bool:
    """Whether these tokens are over a tenth of the prompt and more than a template's beginning."""
    return bool(prompt and cached
                and cached > max(thresholds.CACHED_SHARE * prompt, thresholds.CACHED_FLOOR_TOKENS))


# --- one call: its numbers -----------------------------------------------------------------------
class Cache(NamedTuple):
    """What other lines of the ledger show about a call's cached tokens: their number, derived from
    the turn before, and why one that the server does not report may not be read as 0.
    """

    derived_tokens: Optional[int] = None
    unknown: Optional[str] = None


OWN_COUNTS: Any = object()            # as an argument: usable_counts of the call


def call_metrics(call: CallFinished, usable: Optional[usage.Counts] = OWN_COUNTS,
                 trust_prompt: bool = True, reloaded: bool = False,
                 cache: Optional[Cache] = None) -> Numbers:
    """All CALL_METRICS of one call, unrounded, with `output_tokens_source`, `cached_tokens_source`
    and `null_reasons` {metric: why it is None}.

    usable: usable_counts of the call, by default; None counts chunks, because other calls of the
    cell have no usage or all have the same. trust_prompt False leaves out the prompt's tokens.
    reloaded: the model was loaded within this call. A failed call has the numbers up to its
    failure.
    """
    usable = usable_counts(call) if usable is OWN_COUNTS else usable
    counted = usage.counts(call["response"])
    hidden = has_hidden_reasoning(call, usable)
    chunks, tokens = len(chunk_times_us(call)), output_tokens(call, usable)
    only_new = usage.counts_only_new(call)
    prompt = counted.prompt if trust_prompt and not only_new else None
    no_prompt = "the server counts only the tokens of the new turn" if only_new else \
        NO_PROMPT_TOKENS if trust_prompt else "the server reports the same in every call"
    is_load = reloaded or call["cold"] and call["phase"] != "hello"
    untimed = LOADED if is_load else AT_ONCE if came_at_once(call) else None
    ttft = (None, untimed) if untimed else _mark_ms(call, "first_token_us")
    derived, unknown = cache or Cache(None, EARLIER_TURNS if is_later_turn(call) else None)
    tpot, step = _tpot_ms(call, tokens, hidden), decode_step_ms(call, tokens, hidden)
    reported = counted.cached
    cached = derived if reported is None else reported
    gaps = icl_gaps_us(call)
    no_gaps = (None, _mark_ms(call, "first_token_us")[1] or "no gap between separate reads")
    found: dict[str, Result] = {
        "ttft_ms": ttft,
        "ttfo_ms": (None, untimed) if untimed else _mark_ms(call, "first_answer_us"),
        "tpot_ms": tpot,
        "decode_tokens_per_s": _decode_rate(call, step),
        "answer_tokens_per_s": (1000 / tpot[0], None) if tpot[0] else tpot,
        "prefill_tokens_per_s": _prefill_rate(prompt, cached, unknown, ttft, step)
        if prompt else (None, ttft[1] or no_prompt),
        "icl_ms": (median(gaps) / 1000, None) if gaps else no_gaps,
        "icl_max_ms": (max(gaps) / 1000, None) if gaps else no_gaps,
        "e2el_ms": ((None, f"the call did not complete ({call['outcome']})")
                    if call["outcome"] != "ok" else (None, LOADED) if is_load else
                    _mark_ms(call, "last_token_us")),
        "output_tokens": tokens,
        "prompt_tokens": (prompt or None, no_prompt),
        "cached_tokens": (cached, unknown or "the server does not report cached tokens"),
        "coalesced_ratio": (shared_chunks(call) / chunks if chunks else None, no_gaps[1]),
    }
    return {**{name: value for name, (value, _) in found.items()},
            "output_tokens_source": None if tokens[0] is None else
            "usage" if usable else "chunks",
            "cached_tokens_source": None if cached is None else
            "derived" if reported is None else "server",
            "null_reasons": {name: why for name, (value, why) in found.items() if value is None}}


def is_later_turn(call: CallFinished) -> bool:
    """Whether the prompt of a growing conversation contains the turns before it."""
    return call["phase"] in defs.GROWING_PHASES and call["request"]["messages_count"] > 1


EARLIER_TURNS = "cached tokens are not reported, and earlier turns may be cached"
CUT = "cached tokens are not reported, and what is left of a truncated prompt may be cached"
NO_PROMPT_TOKENS = "the server does not report prompt_tokens"
LOADED = "the model was loaded during this call"
HIDDEN = "hidden reasoning: not all counted tokens were streamed"
AT_ONCE = "all text arrived at once"


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


def output_tokens(call: CallFinished, counted: Optional[usage.Counts]) -> Result:
    """Tokens of an answer by the server's usable_counts, else its chunks."""
    if counted:
        return counted.completion, None
    chunks = len(chunk_times_us(call))
    return (chunks, None) if chunks else (None, "no usable token count, and no chunks to count")


def window_us(call: CallFinished) -> int:
    """From the first text to the last in µs; 0 without any."""
    timing = call["timing"]
    return (timing["last_token_us"] or 0) - (timing["first_token_us"] or 0) if timing else 0


def came_at_once(call: CallFinished) -> bool:
    """Whether a text that takes a while came in one read, as through a buffering proxy."""
    return window_us(call) <= 0 and sum(map(len, answer_texts(call))) > thresholds.SHORT_CHARACTERS


def decode_gaps_us(call: CallFinished) -> list[int]:
    """The gaps before the first DECODE_GAPS chunks after the first read, in µs.

    More if the last of them arrived within a shared read: all of its chunks took its time.
    """
    chunk_us, reads = chunk_times_us(call), _reads(call)
    begin = _first_read_chunks(call)
    end = begin + thresholds.DECODE_GAPS
    within = next((first + count for first, count in reads if first < end < first + count), end)
    return chunk_us[begin:within]


def _first_read_chunks(call: CallFinished) -> int:
    reads = _reads(call)
    return reads[0][1] if reads and reads[0][0] == 0 else 1


def _timed_tokens(call: CallFinished, tokens: Result, hidden: bool) -> Result:
    """Tokens of an average chunk, or why none of them can be timed."""
    first = _mark_ms(call, "first_token_us")
    if first[0] is None or tokens[0] is None:
        return None, first[1] or tokens[1]
    if hidden:
        return None, HIDDEN
    chunks = len(chunk_times_us(call))
    return (tokens[0] / chunks, None) if chunks and window_us(call) > 0 else (None, AT_ONCE)


def _tpot_ms(call: CallFinished, tokens: Result, hidden: bool) -> Result:
    """Those tokens of the first read were generated before the window began; their number is
    estimated as the read's chunks times the tokens of an average chunk.
    """
    per_chunk = _timed_tokens(call, tokens, hidden)
    if per_chunk[0] is None:
        return per_chunk
    counted = per_chunk[0] * (len(chunk_times_us(call)) - _first_read_chunks(call))
    if counted < thresholds.MIN_TPOT_TOKENS:
        return None, f"fewer than {thresholds.MIN_TPOT_TOKENS} tokens after the first read"
    return window_us(call) / counted / 1000, None


def decode_step_ms(call: CallFinished, tokens: Result, hidden: bool) -> Result:
    """One decode step: the time per token over decode_gaps_us, however few they are."""
    per_chunk, gaps = _timed_tokens(call, tokens, hidden), decode_gaps_us(call)
    if per_chunk[0] is None:
        return per_chunk
    return (sum(gaps) / (len(gaps) * per_chunk[0] * 1000), None) if sum(gaps) else (None, AT_ONCE)


def decode_rate(call: CallFinished) -> Optional[Number]:
    """decode_tokens_per_s of a call, as in call_metrics."""
    usable = usable_counts(call)
    return _decode_rate(call, decode_step_ms(call, output_tokens(call, usable),
                                             has_hidden_reasoning(call, usable)))[0]


def _decode_rate(call: CallFinished, step: Result) -> Result:
    if step[0] is None:
        return step
    if len(decode_gaps_us(call)) < thresholds.MIN_DECODE_GAPS:
        return None, f"fewer than {thresholds.MIN_DECODE_GAPS} chunks after the first read"
    return 1000 / step[0], None


def _prefill_rate(prompt: int, cached: Optional[int], unknown: Optional[str], ttft: Result,
                  step: Result) -> Result:
    """Not null if much of the prompt was cached: then it is the rate of the rest."""
    if cached is None and unknown:
        return None, unknown
    if prompt - (cached or 0) < thresholds.MIN_PREFILL_TOKENS:
        return None, f"fewer than {thresholds.MIN_PREFILL_TOKENS} uncached prompt tokens"
    if ttft[0] is None or step[0] is None:
        return None, ttft[1] or step[1]
    if ttft[0] <= step[0]:
        return None, "the time to first token is not longer than one decode step"
    return (prompt - (cached or 0)) * 1000 / (ttft[0] - step[0]), None


def icl_gaps_us(call: CallFinished) -> list[int]:
    """Gaps in µs between reads of text, in order.

    Gaps that end in a read of several chunks are left out: it has the timestamp of its last bytes,
    so the gap to its first chunk is too long, and the gaps inside it are 0.
    """
    chunk_us, at = chunk_times_us(call), 1
    gaps: list[int] = []
    for first, count in _reads(call):
        gaps += chunk_us[at:first]
        at = max(at, first + count)
    return gaps + chunk_us[at:]


def shared_chunks(call: CallFinished) -> int:
    """The number of chunks that share a read with others."""
    return sum(count for _, count in _reads(call))


# --- several calls -------------------------------------------------------------------------------
def check_counts(calls: Iterable[CallFinished]) -> dict[str, int]:
    """How many answers passed their check, and how many have one with a result."""
    results = [call["checks"]["passed"] for call in calls if call["checks"]]
    return {"passed": results.count(True), "total": len(results) - results.count(None)}


def outliers(values: Sequence[Number]) -> records.Outliers:
    """Whether values are 10 sigma and 20 % off the median, and how many. Null below n = 6.

    Sigma is 1.4826 times the median absolute deviation (modified z-score). largest_sigmas is None
    if that is 0; then only the 20 % count.
    """
    if len(values) < thresholds.MIN_INTERVAL_N:
        return {"flagged": None, "count": None, "largest_sigmas": None}
    middle = median(values)
    off = [abs(v - middle) for v in values]
    sigma = 1.4826 * median(off)
    limit = max(thresholds.OUTLIER_SIGMAS * sigma, thresholds.OUTLIER_RATIO * abs(middle))
    count = sum(o > limit for o in off)
    return {"flagged": count > 0, "count": count,
            "largest_sigmas": round_sig(max(off) / sigma) if sigma else None}


def drift_ratio(values: Sequence[Number]) -> Optional[float]:
    """Last over first value of the straight line through values in their order. Null below n = 12.

    Theil and Sen's line: the median of the slopes of all pairs, and the median of what it leaves.
    """
    if len(values) < thresholds.MIN_DRIFT_N:
        return None
    slope = median((values[j] - values[i]) / (j - i)
                   for j in range(len(values)) for i in range(j))
    start = median(value - slope * i for i, value in enumerate(values))
    return round_sig(max(1 + slope * (len(values) - 1) / start, 0)) if start > 0 else None


def instability(values: Sequence[Number],
                limit_ratio: float = thresholds.UNSTABLE_IQR_RATIO) -> records.Unstable:
    """Interquartile range over median, flagged above the limit. Null below n = 6.

    For rates only: times to first token rightly differ from prompt to prompt.
    """
    ordered = sorted(values)
    if len(ordered) < thresholds.MIN_INTERVAL_N or not quartile(ordered, 2):
        return {"flagged": None, "iqr_ratio": None}
    ratio = (quartile(ordered, 3) - quartile(ordered, 1)) / quartile(ordered, 2)
    return {"flagged": ratio > limit_ratio, "iqr_ratio": round_sig(ratio)}


def _at_lanes(calibration: Optional[InstrumentCalibrated], name: Literal["lanes", "saturation"],
              lanes: int) -> Mapping[str, Any]:
    """The calibration's row with the fewest lanes that suffice, else the one with the most."""
    rows: Sequence[Any] = calibration[name] if calibration else ()
    ordered = sorted(rows, key=lambda row: int(row["lanes"]))
    return next((row for row in ordered if row["lanes"] >= lanes), ordered[-1] if ordered else {})


def _p50(spread: Optional[Mapping[str, Any]]) -> Optional[int]:
    return spread["p50"] if spread else None


def stamp_error_us(call: CallFinished, calibration: Optional[InstrumentCalibrated],
                   lanes: int) -> tuple[Optional[int], str]:
    """(median delay of this call's timestamps, its source); None if "not calibrated".

    User timestamps are late by the reader's own lag: best known from this call, else from the
    calibration, else from how late a heartbeat wakes up. A slow reader does not affect kernel
    timestamps; their error is what the calibration, if it used kernel timestamps too, measured
    after the server's send. Without one, the reader's lag is used, which is larger.
    """
    timing, calibrated = call["timing"], None
    own = _p50(timing["read_lag_us"]) if timing else None
    stamp = timing["stamp"] if timing else None
    if calibration and calibration["stamp"] == stamp:
        calibrated = _p50(_at_lanes(calibration, "lanes", lanes).get("lag_us"))
    heartbeat = _p50(calibration["heartbeat_overshoot_us"]) if calibration else None
    sources = [(own, "read_lag"), (calibrated, "calibration"), (heartbeat, "heartbeat")]
    if stamp == "kernel":
        sources = [(calibrated, "calibration"), (own, "read_lag")]
    return next((source for source in sources if source[0] is not None), (None, "not calibrated"))


def client_bound(calls: Sequence[CallFinished], calibration: Optional[InstrumentCalibrated],
                 lanes: int) -> records.ClientBound:
    """Which of a cell's medians the client itself determined: defs.BOUND_METRICS names them.

    Judged by medians over the answered calls, because medians are published. Three signs:
    "decode_window", twice the timestamps' median error is over 1 % of decode_gaps_us (both ends are
    timestamps); "ttft", that error is over 1 % of TTFT; "saturation", the chunk rate of all lanes
    is over a third of what this client can receive on that many lanes. Windows and rates are those
    of answers that have a decode rate. `flagged` is None if the error is unknown and there is no
    sign.
    """
    timed = [c for c in calls if chunk_times_us(c)]
    windows = [(len(gaps), sum(gaps)) for gaps in map(decode_gaps_us, timed)
               if len(gaps) >= thresholds.MIN_DECODE_GAPS and any(gaps)]
    errors = [stamp_error_us(c, calibration, lanes) for c in timed]
    error_us = median_or_none(error for error, _ in errors if error is not None)
    ttft_us = median_or_none(chunk_times_us(c)[0] for c in timed)
    decode_us = median_or_none(us for _, us in windows)
    rate = median_or_none(chunks * lanes * 1e6 / us for chunks, us in windows)
    limit = _at_lanes(calibration, "saturation", lanes).get("chunks_per_s")
    reasons = [name for name, part, whole, share in (
        ("decode_window", error_us, decode_us, thresholds.LAG_SHARE / 2),
        ("ttft", error_us, ttft_us, thresholds.LAG_SHARE),
        ("saturation", rate, limit, thresholds.SATURATION_SHARE),
    ) if part is not None and whole is not None and part > share * whole]
    sources = Counter(source for _, source in errors).most_common(1)
    return {"flagged": None if error_us is None and not reasons else bool(reasons),
            "reasons": reasons, "error_p50_us": round_sig(error_us),
            "error_source": sources[0][0] if sources else "no call with text",
            "ttft_us": round_sig(ttft_us), "decode_window_us": round_sig(decode_us),
            "chunks_per_s": round_sig(rate), "saturation_chunks_per_s": round_sig(limit)}
