"""Registry of metrics: names, titles, units, and the phases that they cover.

Titles and units in tables and on the page come from here; a test compares the documents with it.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

METRICS_VERSION = 2           # raised with each change of a definition; all runs are recomputed

BROKEN_OUTCOMES = ("connection_lost", "interrupted_answer", "stream_error", "no_events",
                   "http_error", "connect_failed")
ONE_LANE_PHASES = ("frozen", "5q", "20q")    # what lanes are compared with
LANES_PHASE, LONG_PHASE = "parallel_same", "edge_suite"
GROWING_PHASES = ("edge_append",)            # slower from turn to turn by design
MIXED_PHASE = "parallel_mixed"
LIMIT_FIELDS = ("max_tokens", "max_completion_tokens", "num_predict", "n_predict")
LETTERS = bytes(range(65, 91)) + bytes(range(97, 123)) + b" \n"


class Metric(NamedTuple):
    """A published number. title: column heading; direction: "lower" or "higher" is better, or
    "none". docs/metrics.md has its meaning and formula, docs/thresholds.md when it is null."""

    name: str
    title: str
    unit: str
    direction: str


METRICS: dict[str, Metric] = {metric.name: metric for metric in (
    Metric("ttft_ms", "TTFT ms", "ms", "lower"),
    Metric("ttfo_ms", "TTFO ms", "ms", "lower"),
    Metric("tpot_ms", "TPOT ms", "ms/token", "lower"),
    Metric("decode_tokens_per_s", "decode tok/s", "tokens/s", "higher"),
    Metric("answer_tokens_per_s", "whole answer tok/s", "tokens/s", "higher"),
    Metric("prefill_tokens_per_s", "prefill tok/s", "tokens/s", "higher"),
    Metric("icl_ms", "ICL ms", "ms", "lower"),
    Metric("icl_max_ms", "ICL max ms", "ms", "lower"),
    Metric("e2el_ms", "E2EL ms", "ms", "none"),
    Metric("output_tokens", "output tokens", "tokens", "none"),
    Metric("prompt_tokens", "prompt tokens", "tokens", "none"),
    Metric("cached_tokens", "cached tokens", "tokens", "none"),
    Metric("coalesced_ratio", "coalesced", "1", "none"),
    Metric("output_token_throughput_tokens_per_s", "all lanes tok/s", "tokens/s", "higher"),
    Metric("busy_window_ms", "busy window ms", "ms", "none"),
    Metric("speedup_ratio", "x of one lane", "1", "higher"),
    Metric("other_models_lanes_mean", "lanes of other models", "lanes", "none"),
    Metric("drift_ratio", "drift", "1", "none"),
    Metric("checks_passed", "checks", "answers", "higher"),
    Metric("read_lag_us", "read lag µs", "µs", "lower"),
    Metric("long_ttft_ms", "long TTFT ms", "ms", "lower"),
    Metric("joules_per_output_token", "J/token", "J/token", "lower"),
    Metric("mean_power_w", "W", "W", "none"),
    Metric("peak_card_bytes", "card memory", "bytes", "none"),
    Metric("peak_process_bytes", "server memory", "bytes", "none"),
    Metric("draft_acceptance_ratio", "drafts accepted", "1", "none"),
    Metric("load_s", "load s", "s", "lower"),
    Metric("server_decode_tokens_per_s", "server decode tok/s", "tokens/s", "higher"),
    Metric("server_prefill_tokens_per_s", "server prefill tok/s", "tokens/s", "higher"))}
CALL_METRICS = ("ttft_ms", "ttfo_ms", "tpot_ms", "decode_tokens_per_s", "answer_tokens_per_s",
                "prefill_tokens_per_s", "icl_ms", "icl_max_ms", "e2el_ms", "output_tokens",
                "prompt_tokens", "cached_tokens", "coalesced_ratio")
# What a sign of a client that is too slow makes untrue.
BOUND_METRICS = {
    "ttft": ("ttft_ms", "ttfo_ms", "prefill_tokens_per_s"),
    "decode_window": ("tpot_ms", "decode_tokens_per_s", "answer_tokens_per_s"),
    "saturation": ("tpot_ms", "decode_tokens_per_s", "answer_tokens_per_s",
                   "output_token_throughput_tokens_per_s", "speedup_ratio")}


def bound_metrics(reasons: Iterable[str]) -> set[str]:
    """The metrics that a client_bound verdict with these reasons makes untrue."""
    return {name for reason in reasons for name in BOUND_METRICS.get(reason, ())}
