"""Registry of metrics and flags: names, units, formulas, thresholds, remedies.

The documents' tables, the titles and units in tables and on the page, and the schema's
descriptions of metrics come from here or are tested against it.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

# The documents' table of thresholds is made from these lines and their comments.
METRICS_VERSION = 2           # raised with each change of a definition; all runs are recomputed
SIGNIFICANT_DIGITS = 6        # of published values
QUARTILE_TYPE = 7             # of Hyndman and Fan: linear, at position (n - 1) x share from 0
MIN_QUARTILE_N = 4            # quartiles need at least one value per quarter
TAIL_FLOORS = {"p90": (90, 64), "p95": (95, 130), "p99": (99, 662)}  # MLPerf early stopping, 99 %
DECODE_GAPS = 64              # chunks a decode rate covers: tokens get slower as an answer grows
MIN_DECODE_GAPS = 32          # chunks; below, one late packet changes the rate by several percent
MIN_TPOT_TOKENS = 32          # tokens after the first read; for the same reason
MIN_PREFILL_TOKENS = 512      # uncached; below, queue and network take longer than the prompt
CACHED_SHARE = 0.10           # of a prompt; above, the prompt counts as cached
CACHED_FLOOR_TOKENS = 64      # tokens of a chat template's beginning, which comes before any salt
MIN_RANKED_N = 6              # values; the exact interval of a median exists from here

# Whether a server's own counts are plausible. No tokenizer in use packs three words into a token.
MAX_WORDS_PER_TOKEN = 3       # words; above, the count is implausible
SPARE_TOKENS = 16             # end marks and tags around reasoning count, but show no text
MAX_CHUNKS_PER_TOKEN = 1.1    # a proxy may split a text; no server sends one token in two chunks
SPARE_TOTAL_TOKENS = 2        # by which total_tokens may exceed prompt and answer
LETTERS_PER_TOKEN = 3         # conservative: English has over 4, code 3
MIN_HIDDEN_RATIO = 1.5        # tokens per chunk of text above which reasoning may be hidden
MIN_CONSTANT_CALLS = 5        # as many equal counts for texts of different lengths are not counts

MIN_DRIFT_N = 12              # decode rates; fewer show no drift
DRIFT_RATIO = 0.10            # change of the decode rate over the run, along Theil and Sen's line
OUTLIER_SIGMAS = 10.0         # hyperfine's threshold
OUTLIER_RATIO = 0.20          # of the median; if nearly all are equal, 10 sigma are almost zero
UNSTABLE_IQR_RATIO = 0.10     # of the median; pyperf calls 10 % unstable
UNSTABLE_LANES_IQR_RATIO = 0.25   # on several lanes, whose number of busy ones varies by design
LAG_SHARE = 0.01              # limit for the client's own delay, as a share of what is measured
SATURATION_SHARE = 1 / 3      # of the chunk rate that the client can receive
SUSPENDED_US = 2_000_000      # a call with a longer pause of the whole machine is left out
COALESCED_SHARE = 0.20        # of a cell's chunks
SHORT_CHARACTERS = 200        # shorter texts may arrive in one read, or have equal counts
FAILED_SHARE = 0.05           # of a cell's calls
SURVIVORS_SHARE = 1 / 3       # of a cell's calls: the others ran with fewer beside them
RELOADED_RATIO = 2.0          # of the cell's median TTFT, after a call that the server broke off
WAITING_RATIO = 2.0           # of the TTFT on one lane
FULL_CPU_RATIO = 0.9          # of all CPUs; while fewer are busy, others take nothing from a call
OTHER_CPU_SHARE = 0.25        # of the busy CPUs; a call is left out if others took more
DISTURBED_SHARE = 0.5         # of a cell's answered calls; if more are left out, it is not ranked
DIFFERENT_RATIO = 1.05        # smaller differences occur between two sessions on one machine

MIN_ENERGY_SAMPLES = 10       # fewer say little about the mean power
MAX_SAMPLE_GAP_US = 60_000_000    # between two samples of the power
MAX_EDGE_US = 10_000_000      # before the first and after the last sample of a segment
USED_CARD_RATIO = 0.10        # a card that was never as busy as this did not compute

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
           f"fewer than {MIN_TPOT_TOKENS} tokens came after the first read, or reasoning was "
           "hidden"),
    Metric("decode_tokens_per_s", "decode tok/s", "tokens/s",
           f"g x output_tokens / chunks / (sum of the first g gaps after the first read / 1e6), "
           f"g = min({DECODE_GAPS}, gaps)", "higher",
           "AIPerf: output token throughput per user; llama-bench: tg",
           f"Decode rate over the first {DECODE_GAPS} chunks after the first read: how fast an "
           "answer is generated, however long it gets. If the last of them shares its read with "
           "others, these count, too.",
           f"fewer than {MIN_DECODE_GAPS} chunks came after the first read, or reasoning was "
           "hidden"),
    Metric("answer_tokens_per_s", "whole answer tok/s", "tokens/s", "1000 / tpot_ms", "higher",
           "llama.cpp: predicted_per_second",
           "Decode rate over the whole answer, which is lower the longer the answer is.",
           "as tpot_ms"),
    Metric("prefill_tokens_per_s", "prefill tok/s", "tokens/s",
           "(prompt_tokens - cached_tokens) x 1000 / (ttft_ms - 1000 / decode_tokens_per_s)",
           "higher", "AIPerf: prefill throughput; llama-bench: pp",
           "Prefill rate of the uncached part of the prompt as the client sees it, including queue "
           "and network. One decode step is not part of it (if the answer is too short for a "
           "decode rate, that of its few chunks). With derived cached tokens it is a lower bound.",
           f"fewer than {MIN_PREFILL_TOKENS} tokens were uncached, it is not known how many were, "
           "or as ttft_ms or for a whole answer in one read"),
    Metric("icl_ms", "ICL ms", "ms", "median of the gaps chunk_us[1:] / 1000, without shared reads",
           "lower", "AIPerf: ICL; vLLM, evalscope: ITL per chunk",
           "Inter-chunk latency (ICL): the call's median gap between two reads of text. A gap that "
           "ends in a read of several chunks is left out, because they share one timestamp.",
           "no two reads of text were separate"),
    Metric("icl_max_ms", "ICL max ms", "ms", "largest of the gaps of icl_ms / 1000", "lower",
           "as icl_ms", "Longest pause within the answer.", "as icl_ms"),
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
           "Prompt tokens that the server took from a cache. Derived from the turn before, they "
           "are an upper bound: an answer may be tokenised differently when it is read.",
           "the server does not report it, and it cannot be derived: only in a growing "
           "conversation on a server whose cache probe found identical prompts cached"),
    Metric("coalesced_ratio", "coalesced", "1", "chunks that share a read / chunks", "none",
           "timing.reads",
           "Share of text chunks that arrived together with others and have no time of their own.",
           FAILED),
    Metric("output_token_throughput_tokens_per_s", "all lanes tok/s", "tokens/s",
           "sum of output_tokens x chunks that arrived within busy_window_ms / chunks, over "
           "busy_window_ms / 1000", "higher", "vLLM, AIPerf: output token throughput",
           "Output tokens of all lanes of a phase per second while all lanes were busy, including "
           f"the waits for first tokens. In {MIXED_PHASE}: this model's tokens; "
           "other_models_lanes_mean is the load beside them.",
           "as busy_window_ms, no answer was streamed, or an answer's tokens are unknown"),
    Metric("busy_window_ms", "busy window ms", "ms",
           "first end of a lane's last call - first start of the phase's calls", "none",
           "timing.started_us, timing.done_us",
           "Time in which all lanes of a phase had something to do, over all models.",
           "the run was resumed during the phase, or its window was disturbed as a call that is "
           "left out"),
    Metric("speedup_ratio", "x of one lane", "1",
           "output_token_throughput_tokens_per_s / (sum(output_tokens) / sum(e2el_ms / 1000) on "
           "one lane)", "higher", "this project",
           "Throughput of several lanes over that of one: 1 if the server answers one call after "
           f"the other. One lane is {', '.join(ONE_LANE_PHASES)} of the same run and model, all "
           "their answers together.",
           "the phase has one lane, as the throughput, there is no answer on one lane, or its "
           "tokens were counted in another way (usage, chunks)"),
    Metric("other_models_lanes_mean", "lanes of other models", "lanes",
           "time that calls of other models ran beside this model's / time of this model's calls",
           "none", "this project", "Mean number of other models' lanes that were active.",
           f"the phase is not {MIXED_PHASE}"),
    Metric("drift_ratio", "drift", "1",
           "last / first value of Theil and Sen's line through the decode rates of "
           f"{', '.join(ONE_LANE_PHASES)}, in their order", "none", "this project",
           "How the decode rate changed over the run; below 1 if the machine became slower.",
           f"fewer than {MIN_DRIFT_N} of these calls have a decode rate"),
    Metric("checks_passed", "checks", "answers", "checks passed / answers with a check", "higher",
           "answer_checks.py",
           "Answers with the expected format and markers. It does not say that they are correct.",
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
           "Energy per output token, idle power included, without the rest of the machine: of the "
           "cards that computed, or else of the processor's package, as `scope` says. Integrated "
           "from the samples of the power.",
           f"there are fewer than {MIN_ENERGY_SAMPLES} samples, or it is not known which card "
           "computed"),
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
           "Time to load the model.", "the server did not report that it was not loaded"),
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


def bound_metrics(reasons: Iterable[str]) -> set[str]:
    """The metrics that a client_bound verdict with these reasons makes untrue."""
    return {name for reason in reasons for name in BOUND_METRICS.get(reason, ())}


class Flag(NamedTuple):
    """A warning on a cell or a run. unrankable: the cell's numbers are not compared."""

    name: str
    text: str
    remedy: str
    unrankable: bool


FLAGS: dict[str, Flag] = {flag.name: flag for flag in (
    Flag("truncated", "The server truncated the prompt, so it processed less than it was sent.",
         "Set the server's context to at least the requested size and run the phase again.", True),
    Flag("cached_prefill", "Part of a prompt came from the server's prompt cache, so TTFT and "
         "prefill rate look better than they are.",
         "Turn prefix caching off, or use --prompt-cache avoid. In edge_append, nothing: a growing "
         "conversation sends its earlier turns again, and servers keep them.",
         True),
    Flag("client_bound",
         "This client was too slow for the server, so some medians include the client's own delay. "
         "They are not ranked.",
         "Close other programs, use fewer lanes, or measure from another machine.", False),
    Flag("suspended", f"The machine slept or stalled for over {SUSPENDED_US / 1e6:g} s during "
         "calls, which are left out.", "Keep the machine awake during a run.", False),
    Flag("clock_stepped", "The system clock was changed during a call. The call's times are still "
         "correct, because they use the monotonic clock.",
         "No action is needed. Let time synchronization finish before you start a run.", False),
    Flag("unstable", "The decode rates vary much between calls.",
         "Stop other programs, let the machine cool down, or use --repeats.", False),
    Flag("drifting", f"The decode rate changed by over {DRIFT_RATIO:.0%} during the run.",
         "Let a laptop reach its steady temperature before a run.", False),
    Flag("outliers", "A few calls were much faster or slower than the others.",
         "Look at these calls in run.jsonl. They hardly affect the medians.", False),
    Flag("failures", f"Over {FAILED_SHARE:.0%} of the calls failed. Only the others were measured.",
         "See the kinds of failure in `outcomes`, fix the cause, and run with --retry-failed.",
         True),
    Flag("survivors", f"{SURVIVORS_SHARE:.0%} of the calls or more failed, so the medians are "
         "those of calls that had the machine more to themselves.",
         "Leave the phase out, or use fewer models or a lower --num-predict.", True),
    Flag("few_samples", f"Fewer than {MIN_RANKED_N} calls were answered, so the median has no "
         "interval.", "Use --repeats.", False),
    Flag("hidden_reasoning", "The model's reasoning was not streamed. TTFT includes the time it "
         "took, and rates cannot be computed.",
         "Let the server stream reasoning, or turn reasoning off.", True),
    Flag("inline_reasoning", "The model's reasoning came inside the answer, between marks. It is "
         "counted as reasoning, not as answer.",
         "No action is needed. A reasoning parser in the server would separate it.", False),
    Flag("reasoning_only", "Some answers contain only reasoning.",
         "Raise --num-predict, or turn reasoning off.", False),
    Flag("usage_implausible", "The server's token counts cannot be correct.",
         "Update the server, or the proxy in front of it.", True),
    Flag("no_finish_reason", "The server ended answers without a finish_reason, so an answer that "
         "was broken off cannot be recognised.", "Update the server.", False),
    Flag("foreign_text", "The server sent text that the model did not generate, such as status "
         "lines while it loaded the model. It was left out.",
         "Turn such lines off in the server.", False),
    Flag("repeated_text", "The server sent text again that it had sent before. It was left out.",
         "Update the server, or the proxy in front of it.", False),
    Flag("left_open", "The server sent whole answers, but neither [DONE] nor the end of the "
         "stream. The client closed these streams a few seconds later.",
         "No action is needed for the numbers. An update of the server, or of the proxy in front "
         "of it, may save the time.", False),
    Flag("tokens_from_chunks", "The server sent no usable token counts, so each chunk of text was "
         "counted as one token.", "Use a server that reports usage in streamed answers.", True),
    Flag("not_streamed", "Answers were not streamed, so there is no time to first token.",
         "Turn streaming on in the server or the proxy.", True),
    Flag("coalesced", f"Over {COALESCED_SHARE:.0%} of the chunks arrived together with others. A "
         "buffering proxy can cause this.",
         "No action is needed for rates. Gaps are computed from the other chunks.", False),
    Flag("model_mismatch", "The server answered with a different model than the requested one.",
         "Serve the model under the name given to --models.", True),
    Flag("context_differs", "The context in force is not the requested one.",
         "Set the context on the server. For known engines the runner prints how.", False),
    Flag("context_shift", "An answer continued beyond the context, so the server dropped the start "
         "of the conversation meanwhile.", "No action is needed.", False),
    Flag("reloaded", "The model was loaded again within calls. Their TTFT is left out.",
         "Keep the model loaded between calls (Ollama: OLLAMA_KEEP_ALIVE=10m).", False),
    Flag("queued", "Calls on parallel lanes waited for each other, because the server has fewer "
         "slots than the run has lanes. TTFT includes the wait and is not ranked.",
         "Give the server as many parallel slots as the run has lanes.", False),
    Flag("busy_host", "Other programs or virtual machines used over "
         f"{OTHER_CPU_SHARE:.0%} of the processors that calls needed. These calls are left out; a "
         f"cell with over {DISTURBED_SHARE:.0%} of them is not ranked.",
         "Stop them and run again.", True),
    Flag("throttled", "The machine slowed down because of heat or a power limit.",
         "Improve the cooling or use mains power, or publish the result as typical of this "
         "machine.", False),
    Flag("on_battery", "The machine ran on battery.", "Plug it in and run again.", False),
    Flag("not_calibrated", "The client's own timing error was not measured.",
         "Run without --no-calibration.", False),
    Flag("unfinished", "The run did not finish.", "Continue it with --run-id.", False),
)}


def ordered_flags(names: Iterable[str]) -> list[str]:
    """Known flags once each, in the order of FLAGS; unknown names are left out."""
    found = set(names)
    return [name for name in FLAGS if name in found]


def explain_flags(names: Iterable[str]) -> list[str]:
    """One line per known flag: its name, text and remedy."""
    return [f"{name}: {FLAGS[name].text} {FLAGS[name].remedy}" for name in ordered_flags(names)]
