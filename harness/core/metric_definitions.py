"""Registry of metrics: names, units, formulas, null rules, and the phases that they cover.

The documents' tables, the titles and units in tables and on the page, and the schema's
descriptions of metrics come from here or are tested against it.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from core import thresholds

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
    """A published number. direction: "lower" or "higher" is better, or "none"."""

    name: str
    title: str                # column heading
    unit: str
    formula: str
    direction: str
    source: str
    text: str
    null_if: str


FAILED = "no text arrived"
METRICS: dict[str, Metric] = {metric.name: metric for metric in (
    Metric("ttft_ms", "TTFT ms", "ms", "first_token_us / 1000", "lower",
           "NVIDIA NIM, AIPerf, GuideLLM: TTFT",
           "Time to first token (TTFT): from the first byte of the request to the first generated "
           "text, including reasoning. Empty, role-only and usage chunks do not count.",
           f"{FAILED}, or the model was loaded during the call"),
    Metric("ttfo_ms", "TTFO ms", "ms", "first_answer_us / 1000", "lower",
           "AIPerf: TTFO; GuideLLM: TTFOT",
           "Time to first output (TTFO): to the first text that is not reasoning.",
           "as ttft_ms, or the answer is only reasoning"),
    Metric("tpot_ms", "TPOT ms", "ms/token",
           "(last_token_us - first_token_us) / 1000 / (output_tokens x (1 - chunks of the first "
           "read / chunks))", "lower", "vLLM, MLPerf, genai-bench: TPOT",
           "Time per output token (TPOT) after the first read, over the whole answer.",
           f"fewer than {thresholds.MIN_TPOT_TOKENS} tokens came after the first read, or "
           "reasoning was hidden"),
    Metric("decode_tokens_per_s", "decode tok/s", "tokens/s",
           f"g x output_tokens / chunks / (sum of the first g gaps after the first read / 1e6), "
           "g = the gaps up to the end of the read that has the "
           f"{thresholds.DECODE_GAPS}th", "higher",
           "AIPerf: output token throughput per user; llama-bench: tg",
           "Decode rate: how fast an answer is generated. It covers only the first "
           f"{thresholds.DECODE_GAPS} chunks after the first read, since long answers get slower. "
           "Chunks that arrive together with the last of them count, too.",
           f"fewer than {thresholds.MIN_DECODE_GAPS} chunks came after the first read, or "
           "reasoning was hidden"),
    Metric("answer_tokens_per_s", "whole answer tok/s", "tokens/s", "1000 / tpot_ms", "higher",
           "llama.cpp: predicted_per_second",
           "Decode rate over the whole answer. It is lower for longer answers.",
           "as tpot_ms"),
    Metric("prefill_tokens_per_s", "prefill tok/s", "tokens/s",
           "(prompt_tokens - cached_tokens) x 1000 / (ttft_ms - 1000 / decode_tokens_per_s)",
           "higher", "AIPerf: prefill throughput; llama-bench: pp",
           "Prefill rate: how fast the prompt is processed, as the client sees it, with queue and "
           "network. Cached tokens and the time of one decode step are left out (for a short "
           "answer, the mean step of the chunks that it has). If the cached tokens are derived, "
           "the rate is a lower bound.",
           f"fewer than {thresholds.MIN_PREFILL_TOKENS} tokens were uncached, or it is not known "
           "how many; the whole answer came in one read; as ttft_ms"),
    Metric("icl_ms", "ICL ms", "ms", "median of the gaps chunk_us[1:] / 1000, without shared reads",
           "lower", "AIPerf: ICL; vLLM, evalscope: ITL per chunk",
           "Inter-chunk latency (ICL): the call's median gap between two reads of text. A gap that "
           "ends in a read of several chunks is left out, because they share one timestamp.",
           "no two reads of text were separate"),
    Metric("icl_max_ms", "ICL max ms", "ms", "largest of the gaps of icl_ms / 1000", "lower",
           "as icl_ms", "Longest of these gaps.", "as icl_ms"),
    Metric("e2el_ms", "E2EL ms", "ms", "last_token_us / 1000", "none",
           "vLLM, AIPerf: E2EL, request latency",
           "End-to-end latency (E2EL): to the last generated text, not to the usage chunk. It "
           "depends on how much the model wrote, so it is not ranked.",
           "the call did not complete, or as ttft_ms"),
    Metric("output_tokens", "output tokens", "tokens",
           "usage.completion_tokens or a synonym, else the count of text chunks",
           "none", "AIPerf: OSL", "Length of the answer, including reasoning.",
           f"{FAILED} and the server reports no count"),
    Metric("prompt_tokens", "prompt tokens", "tokens", "usage.prompt_tokens or a synonym", "none",
           "AIPerf: ISL", "Length of the prompt as counted by the server.",
           "the server does not report it, or the same for prompts of different lengths"),
    Metric("cached_tokens", "cached tokens", "tokens",
           "usage.prompt_tokens_details.cached_tokens or a synonym, else server_timings.cache_n, "
           "else prompt and output tokens of the turn before - 1", "none",
           "OpenAI API, llama.cpp",
           "Prompt tokens that the server took from a cache. If they are derived from the turn "
           "before, they are an upper bound.",
           "the server does not report it, and it cannot be derived (it can in a growing "
           "conversation, if the server was seen to keep prompts in a cache)"),
    Metric("coalesced_ratio", "coalesced", "1", "chunks that share a read / chunks", "none",
           "timing.reads",
           "Share of text chunks that arrived together with others and have no time of their own.",
           FAILED),
    Metric("output_token_throughput_tokens_per_s", "all lanes tok/s", "tokens/s",
           "sum(output_tokens x (chunks within the busy window / chunks)) / "
           "(busy_window_ms / 1000)", "higher", "vLLM, AIPerf: output token throughput",
           "Output tokens per second of all lanes together, while all lanes were busy, with the "
           f"waits for first tokens. In {MIXED_PHASE}, only this model's tokens.",
           "as busy_window_ms, no answer was streamed, or an answer's tokens are unknown"),
    Metric("busy_window_ms", "busy window ms", "ms",
           "end of the last call of the lane that ended first - start of the phase's first call",
           "none",
           "timing.started_us, timing.done_us",
           "Time until the first lane had nothing left to do, over all models.",
           "the run was resumed during the phase, or the machine slept or other programs used it "
           "(as for calls that are left out)"),
    Metric("speedup_ratio", "x of one lane", "1",
           "output_token_throughput_tokens_per_s / (sum(output_tokens) / sum(e2el_ms / 1000) on "
           "one lane)", "higher", "this project",
           "Throughput of all lanes, divided by that of one lane: 1 if the server answers one call "
           f"after the other. One lane: all answers of {', '.join(ONE_LANE_PHASES)} of the same "
           "run and model.",
           "the phase has one lane; the throughput is null; there is no answer on one lane, or its "
           "tokens were counted in another way (usage, chunks)"),
    Metric("other_models_lanes_mean", "lanes of other models", "lanes",
           "time that calls of other models ran beside this model's / time of this model's calls",
           "none", "this project", "Mean number of other models' lanes that were active.",
           f"the phase is not {MIXED_PHASE}"),
    Metric("drift_ratio", "drift", "1",
           "end / start of Theil and Sen's line through the decode rates of "
           f"{', '.join(ONE_LANE_PHASES)}", "none", "this project",
           "How much the decode rate changed during the run: below 1 if the machine became slower.",
           f"fewer than {thresholds.MIN_DRIFT_N} calls of {', '.join(ONE_LANE_PHASES)} have a "
           "decode rate"),
    Metric("checks_passed", "checks", "answers", "checks passed / answers with a check", "higher",
           "answer_checks.py",
           "Answers with the expected format and markers. It does not mean that they are correct.",
           "never"),
    Metric("read_lag_us", "read lag µs", "µs", "user timestamp - kernel timestamp of a read",
           "lower", "timing.read_lag_us",
           "Delay of this client's reader. It does not affect kernel timestamps.",
           "the kernel gave no timestamps"),
    Metric("long_ttft_ms", "long TTFT ms", "ms", f"ttft_ms of {LONG_PHASE}", "lower", "as ttft_ms",
           "Time to first token after a prompt of about 2,900 tokens.", "as ttft_ms"),
    Metric("joules_per_output_token", "J/token", "J/token",
           "energy during the calls of the one-lane phases / sum(output_tokens)", "lower",
           "MLPerf Power, inference-atlas",
           "Energy per output token, with idle power. It is that of the cards that computed; "
           "without such a card, that of the processor's package; `scope` in metadata.json says "
           "which. The rest of the machine is not included.",
           f"fewer than {thresholds.MIN_ENERGY_SAMPLES} intervals between samples end within a "
           "call, or it is not known which card computed"),
    Metric("mean_power_w", "W", "W", "the same energy / the duration of these calls", "none",
           "as joules_per_output_token", "Mean power during the calls of the one-lane phases.",
           "as joules_per_output_token"),
    Metric("peak_card_bytes", "card memory", "bytes",
           "largest sum of gpus[].memory_used_bytes", "none", "nvidia-smi, rocm-smi, ioreg",
           "Memory in use on the cards that computed, with what else was on them.",
           "no card reports it"),
    Metric("peak_process_bytes", "server memory", "bytes", "largest server_memory_bytes", "none",
           "/proc/PID/stat: rss",
           "Resident memory of the server and the processes that it started (Linux only).",
           "the server's process is not known"),
    Metric("draft_acceptance_ratio", "drafts accepted", "1",
           "sum(draft_n_accepted) / sum(draft_n)", "none", "llama.cpp: timings",
           "Share of the tokens of a draft model, or of another method of speculative decoding, "
           "that the model accepted.",
           "the server reports no drafts"),
    Metric("load_s", "load s", "s", "TTFT of the hello that loaded the model - a warm TTFT",
           "lower", "Ollama: load_duration",
           "Time to load the model.",
           "the server did not say that it loaded the model for the hello"),
    Metric("server_decode_tokens_per_s", "server decode tok/s", "tokens/s",
           "median of predicted_n / predicted_ms", "higher", "llama.cpp: timings",
           "Decode rate as the server measured it. It covers whole answers, so it is lower than "
           "the client's rate where long answers get slower, and it leaves out network and HTTP.",
           "the server reports no timings"),
    Metric("server_prefill_tokens_per_s", "server prefill tok/s", "tokens/s",
           "median of prompt_n / prompt_ms", "higher", "llama.cpp: timings",
           f"Prefill rate of {LONG_PHASE} as the server measured it, without network and HTTP.",
           "as server_decode_tokens_per_s"),
)}
CALL_METRICS = ("ttft_ms", "ttfo_ms", "tpot_ms", "decode_tokens_per_s", "answer_tokens_per_s",
                "prefill_tokens_per_s", "icl_ms", "icl_max_ms", "e2el_ms", "output_tokens",
                "prompt_tokens", "cached_tokens", "coalesced_ratio")
# What a sign of a client that is too slow makes untrue.
BOUND_METRICS = {
    "ttft": ("ttft_ms", "ttfo_ms", "prefill_tokens_per_s"),
    "decode_window": ("tpot_ms", "decode_tokens_per_s", "answer_tokens_per_s"),
    "saturation": ("tpot_ms", "decode_tokens_per_s", "answer_tokens_per_s",
                   "output_token_throughput_tokens_per_s", "speedup_ratio")}

# Those that start with the wait for the first token.
FIRST_TOKEN_METRICS = frozenset(("ttft_ms", "e2el_ms", "prefill_tokens_per_s"))


def bound_metrics(reasons: Iterable[str]) -> set[str]:
    """The metrics that a client_bound verdict with these reasons makes untrue."""
    return {name for reason in reasons for name in BOUND_METRICS.get(reason, ())}
