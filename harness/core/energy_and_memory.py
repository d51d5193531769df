"""Compute what a model needed, from evidence beside the times of its calls.

    of_model            energy, memory, draft acceptance, load time, the server's own rates

Pure functions of the ledger. Power and memory come from the samples of the host, which are taken
every few seconds; what was not measured is None.
"""
from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from math import fsum, sqrt
from typing import Any, NamedTuple, Optional

from core import metric_definitions as defs
from core import thresholds, usage
from core.metrics import Numbers, median_or_none, round_sig
from core.records import CallFinished, Energy, HostSampled, Memory
from core.throughput import Span, span_of

Calls = Sequence[tuple[CallFinished, Numbers]]       # answered calls with their numbers


class Interval(NamedTuple):
    """Energy used between two samples; power_w: the mean of that time."""

    begin_us: int
    end_us: int
    power_w: float


def of_model(phases: Mapping[str, Calls], samples: Sequence[HostSampled]) -> dict[str, Any]:
    """The part of records.Headline that this module computes. phases: calls of one model."""
    alone = [pair for name in defs.ONE_LANE_PHASES for pair in phases.get(name, ())]
    long = [call for call, _ in phases.get(defs.LONG_PHASE, ())]
    own = _during(samples, [span_of(call) for name, calls in phases.items()
                            if name != defs.MIXED_PHASE for call, _ in calls])
    return {"energy": _energy(alone, samples, _used_cards(own)), "memory": _memory(own),
            "draft_acceptance_ratio": _draft_acceptance(call for call, _ in alone),
            "load_s": _load_s(phases),
            "server_decode_tokens_per_s": _server_rate(
                (call for call, numbers in alone if numbers["decode_tokens_per_s"] is not None),
                "predicted", 2),
            "server_prefill_tokens_per_s": _server_rate(
                long, "prompt", thresholds.MIN_PREFILL_TOKENS)}


def _during(samples: Iterable[HostSampled], spans: Iterable[Span]) -> list[HostSampled]:
    """Samples between the first start and the last end of some calls, by segment."""
    times: dict[int, list[int]] = {}
    for segment, begin_us, end_us in spans:
        times.setdefault(segment, []).extend((begin_us, end_us))
    ends = {segment: (min(found), max(found)) for segment, found in times.items()}
    return [sample for sample in samples if sample["segment"] in ends
            and ends[sample["segment"]][0] <= sample["t_us"] <= ends[sample["segment"]][1]]


# --- energy --------------------------------------------------------------------------------------
def _used_cards(samples: Iterable[HostSampled]) -> Optional[set[int]]:
    """Cards that computed; None if that is unknown of a card with memory of its own."""
    busy: dict[int, list[Optional[float]]] = {}
    with_memory = set()
    for sample in samples:
        for card in sample["gpus"]:
            busy.setdefault(card["index"], []).append(card["busy_ratio"])
            if card["memory_used_bytes"] is not None:
                with_memory.add(card["index"])
    known = {index: [ratio for ratio in ratios if ratio is not None]
             for index, ratios in busy.items()}
    if any(not known[index] for index in with_memory) and len(with_memory) > 1:
        return None
    return {index for index, ratios in known.items()
            if (max(ratios) >= thresholds.USED_CARD_RATIO if ratios else index in with_memory)}


def _energy(alone: Calls, samples: Sequence[HostSampled],
            cards: Optional[set[int]]) -> Optional[Energy]:
    """Energy during the calls of the one-lane phases, and their output tokens.

    Calls further from any sample than MAX_SAMPLE_GAP_US are left out with their tokens.
    error_ratio: half of the 95 % interval of the mean power, from the spread of the samples.
    """
    if cards is None or not alone:
        return None
    joules: list[float] = []
    seconds: list[float] = []
    powers: list[float] = []
    tokens = 0
    by_segment = {segment: _intervals(samples, segment, cards)
                  for segment in {call["segment"] for call, _ in alone}}
    for call, numbers in alone:
        segment, begin_us, end_us = span_of(call)
        found = by_segment[segment]
        used = _joules(found, begin_us, end_us)
        if used is not None and numbers["output_tokens"] is not None:
            joules.append(used)
            seconds.append((end_us - begin_us) / 1e6)
            tokens += numbers["output_tokens"]
            powers += [one.power_w for one in found[1:-1] if begin_us < one.end_us <= end_us]
    if len(powers) < thresholds.MIN_ENERGY_SAMPLES or not tokens or not fsum(joules):
        return None
    mean_w = fsum(powers) / len(powers)
    spread_w = sqrt(fsum((power - mean_w) ** 2 for power in powers) / (len(powers) - 1))
    return {"joules_per_output_token": round_sig(fsum(joules) / tokens),
            "mean_power_w": round_sig(fsum(joules) / fsum(seconds)),
            "scope": "cards" if cards else "package", "samples_count": len(powers),
            "error_ratio": round_sig(1.96 * spread_w / sqrt(len(powers)) / mean_w, 2)}


def _intervals(samples: Iterable[HostSampled], segment: int, cards: set[int]) -> list[Interval]:
    """Mean power between the samples of a segment, from the power of the used cards, or without
    any from the package's energy counter; with one more at each end, of the power beside it."""
    points, found = list[tuple[int, float]](), list[Interval]()
    for sample in samples:
        powers = [card["power_w"] for card in sample["gpus"] if card["index"] in cards]
        value = sample["energy_uj"] if not cards else \
            None if None in powers or len(powers) < len(cards) else fsum(powers)
        if sample["segment"] == segment and value is not None:
            points.append((sample["t_us"], value))
    for (begin_us, before), (end_us, after) in zip(points, points[1:]):
        power_w = (before + after) / 2 if cards else (after - before) / max(end_us - begin_us, 1)
        if end_us - begin_us <= thresholds.MAX_SAMPLE_GAP_US and power_w >= 0:
            found.append(Interval(begin_us, end_us, power_w))
    if not found:
        return []
    first, last = found[0], found[-1]
    return [Interval(first.begin_us - thresholds.MAX_EDGE_US, first.begin_us, first.power_w),
            *found,
            Interval(last.end_us, last.end_us + thresholds.MAX_EDGE_US, last.power_w)]


def _joules(intervals: Sequence[Interval], begin_us: int, end_us: int) -> Optional[float]:
    """Energy of a time, None if the intervals do not cover it."""
    first = bisect_right([one.end_us for one in intervals], begin_us)
    last = bisect_left([one.begin_us for one in intervals], end_us)
    parts = [(min(end_us, one.end_us) - max(begin_us, one.begin_us), one.power_w)
             for one in intervals[first:last]]
    if sum(us for us, _ in parts) < end_us - begin_us:
        return None
    return fsum(us * power_w for us, power_w in parts) / 1e6


# --- memory, load, drafts, the server's own rates ------------------------------------------------
def _memory(samples: Sequence[HostSampled]) -> Optional[Memory]:
    """Largest values among the samples. Other models that a server keeps loaded are included."""
    cards = _used_cards(samples)
    on_cards = [sum(used) for sample in samples for used in [[
        card["memory_used_bytes"] for card in sample["gpus"] if card["index"] in (cards or ())]]
        if used and None not in used]
    found: Memory = {
        "peak_card_bytes": max(map(int, on_cards), default=None),
        "peak_process_bytes": _largest(samples, "server_memory_bytes"),
        "peak_swap_bytes": _largest(samples, "swap_used_bytes")}
    return found if any(value is not None for value in found.values()) else None


def _largest(samples: Iterable[Mapping[str, Any]], name: str) -> Optional[int]:
    return max((int(sample[name]) for sample in samples if sample.get(name) is not None),
               default=None)


def _load_s(phases: Mapping[str, Calls]) -> Optional[float]:
    """TTFT of the hello that loaded the model, less that of a warm hello or, without one, of the
    fastest answer on one lane. Only where the server reported that the model was not loaded."""
    hellos = phases.get("hello", ())
    cold = [call for call, _ in hellos if call.get("loaded") is False]
    warm = [call for call, _ in hellos if call.get("loaded")] or [
        call for name in defs.ONE_LANE_PHASES for call, _ in phases.get(name, ())
        if not call["cold"]]
    first_us, warm_us = ([call["timing"]["first_token_us"] for call in calls
                          if call["timing"] and call["timing"]["first_token_us"] is not None]
                         for calls in (cold, warm))
    if not first_us or not warm_us or first_us[0] <= min(warm_us):
        return None
    return round_sig((first_us[0] - min(warm_us)) / 1e6)


def _draft_acceptance(calls: Iterable[CallFinished]) -> Optional[float]:
    """Accepted share of the tokens that were drafted: llama.cpp's timings, or OpenAI's usage."""
    drafted = accepted = 0
    for call in calls:
        response: Any = call["response"] or {}
        timings = response.get("server_timings") or {}
        details = (response.get("usage") or {}).get("completion_tokens_details")
        details = details if isinstance(details, dict) else {}
        own, own_taken, taken, refused = (usage.count(value) or 0 for value in (
            timings.get("draft_n"), timings.get("draft_n_accepted"),
            details.get("accepted_prediction_tokens"), details.get("rejected_prediction_tokens")))
        drafted += own or taken + refused
        accepted += own_taken if own else taken
    return round_sig(accepted / drafted) if 0 <= accepted <= drafted and drafted else None


def _server_rate(calls: Iterable[CallFinished], name: str, least: int) -> Optional[float]:
    """Median of tokens per second in llama.cpp's timings, of calls with enough tokens."""
    rates = []
    for call in calls:
        timings: Any = (call["response"]["server_timings"] if call["response"] else None) or {}
        tokens, ms = usage.count(timings.get(f"{name}_n")) or 0, timings.get(f"{name}_ms")
        if tokens >= least and type(ms) in (int, float) and 0.001 <= ms < 1e9:
            rates.append(tokens * 1000 / ms)
    return round_sig(median_or_none(rates))
