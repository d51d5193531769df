"""Registry of metrics and flags: names, units, formulas, thresholds, remedies.

The documents' tables, the titles and units in tables and on the page, and the schema's
descriptions of metrics come from here or are tested against it.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

METRICS_VERSION = 2           # raised with each change of a definition; all runs are recomputed
SIGNIFICANT_DIGITS = 6
MIN_QUARTILE_N = 4            # quartiles need at least one value per quarter
TAIL_FLOORS = {"p90": (90, 64), "p95": (95, 130), "p99": (99, 662)}  # MLPerf early stopping, 99 %
MIN_DECODE_TOKENS = 32        # below, one late packet changes the rate by several percent
MIN_PREFILL_TOKENS = 512      # below, queue and network take longer than the prompt
MAX_FIRST_READ_ERROR = 0.05   # share of a rate's tokens that may arrive in the first read, untimed
CACHED_SHARE = 0.10           # prefill is not measured if more of a prompt came from a cache
CACHED_FLOOR_TOKENS = 64      # a chat template's beginning, which comes before any salt
MIN_RANKED_N = 6              # the exact interval of a median exists from here

# Whether a server's own counts are plausible. No tokenizer in use packs three words into a token.
MAX_WORDS_PER_TOKEN = 3
SPARE_TOKENS = 16             # end marks and tags around reasoning count, but show no text
MAX_CHUNKS_PER_TOKEN = 1.1    # a proxy may split a text; no server sends one token in two chunks
SPARE_TOTAL_TOKENS = 2        # by which total_tokens may exceed prompt and answer
LETTERS_PER_TOKEN = 3         # conservative: English has over 4, code 3
MIN_HIDDEN_RATIO = 1.5        # tokens per chunk of text above which reasoning may be hidden
MIN_CONSTANT_CALLS = 5        # as many equal counts for texts of different lengths are not counts

MIN_DRIFT_N = 12              # three values per quarter
DRIFT_RATIO = 0.10
OUTLIER_SIGMAS = 10.0         # hyperfine's threshold
OUTLIER_RATIO = 0.20          # if nearly all values are equal, 10 sigma are almost zero
UNSTABLE_IQR_RATIO = 0.10     # pyperf calls 10 % unstable
UNSTABLE_LANES_IQR_RATIO = DRIFT_LANES_RATIO = 0.25  # the number of busy lanes varies by design
JUDGED_GAPS = 64              # of each answer: tokens get slower as the answer grows
LAG_SHARE = 0.01              # limit for the client's own delay, as a share of what is measured
SATURATION_SHARE = 1 / 3
SUSPENDED_US = 2_000_000
COALESCED_SHARE = 0.20        # of a cell's chunks
SHORT_CHARACTERS = 200        # shorter texts may arrive in one read, or have equal counts
FAILED_SHARE = 0.05           # of a cell's calls
SURVIVORS_SHARE = 1 / 3       # of a cell's calls: the others ran with fewer beside them
RELOADED_RATIO = 2.0          # of the cell's median TTFT, after a call that the server broke off
WAITING_RATIO = 2.0           # of the TTFT on one lane
BROKEN_OUTCOMES = ("connection_lost", "interrupted_answer", "stream_error", "no_events",
                   "http_error", "connect_failed")
OTHER_CPU_SHARE = 0.15        # of all CPUs, used by neither client nor server
STEAL_SHARE = 0.05            # of all CPUs, taken by the hypervisor
BUSY_SAMPLES_SHARE = 0.20
DIFFERENT_RATIO = 1.05        # smaller differences occur between two sessions on one machine

MIN_ENERGY_SAMPLES = 10       # fewer say little about the mean power
MAX_SAMPLE_GAP_US = 60_000_000    # between two samples of the power
MAX_EDGE_US = 10_000_000      # before the first and after the last sample of a segment
USED_CARD_RATIO = 0.10        # a card that was never as busy as this did not compute

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


METRICS: dict[str, Metric] = {metric.name: metric for metric in (
    Metric("ttft_ms", "TTFT ms", "ms", "first_token_us / 1000", "lower",
           "NVIDIA NIM, AIPerf, GuideLLM: TTFT",
           "Time to first token (TTFT): from the first byte of the request to the first generated "
           "text, including reasoning. Empty, role-only and usage chunks do not count."),
    Metric("ttfo_ms", "TTFO ms", "ms", "first_answer_us / 1000", "lower",
           "AIPerf: TTFO; GuideLLM: TTFOT",
           "Time to first output (TTFO): to the first text that is not reasoning."),
    Metric("tpot_ms", "TPOT ms", "ms/token",
           "(last_token_us - first_token_us) / (output_tokens - 1) / 1000",
           "lower", "vLLM, MLPerf, genai-bench: TPOT",
           "Time per output token (TPOT) after the first. Null if over "
           f"{MAX_FIRST_READ_ERROR:.0%} of the other tokens arrived in the first read."),
    Metric("decode_tokens_per_s", "decode tok/s", "tokens/s", "1000 / tpot_ms", "higher",
           "AIPerf: output token throughput per user; llama-bench: tg",
           "Decode rate: how fast one answer is generated. Null below "
           f"{MIN_DECODE_TOKENS} output tokens."),
    Metric("prefill_tokens_per_s", "prefill tok/s", "tokens/s",
           "prompt_tokens / (first_token_us / 1e6)", "higher",
           "AIPerf: prefill throughput; llama-bench: pp",
           "Prefill rate as the client sees it, including queue and network. Null below "
           f"{MIN_PREFILL_TOKENS} uncached prompt tokens, if more than {CACHED_SHARE:.0%} of the "
           f"prompt and more than {CACHED_FLOOR_TOKENS} tokens came from a cache, and in a later "
           "turn of a conversation if the server does not report cached tokens."),
    Metric("icl_ms", "ICL ms", "ms", "median of the gaps chunk_us[1:] / 1000, without shared reads",
           "lower", "AIPerf: ICL; vLLM, evalscope: ITL per chunk",
           "Inter-chunk latency (ICL): the call's median gap between two reads of text. A gap that "
           "ends in a read of several chunks is left out, because they share one timestamp."),
    Metric("icl_max_ms", "ICL max ms", "ms", "largest of the gaps of icl_ms / 1000", "lower",
           "as icl_ms", "Longest pause within the answer."),
    Metric("e2el_ms", "E2EL ms", "ms", "last_token_us / 1000", "lower",
           "vLLM, AIPerf: E2EL, request latency",
           "End-to-end latency (E2EL): to the last generated text, not to the usage chunk. Null "
           "if the call did not complete."),
    Metric("output_tokens", "output tokens", "tokens",
           "usage.completion_tokens or a synonym, else the count of text chunks",
           "none", "AIPerf: OSL", "Length of the answer, including reasoning."),
    Metric("prompt_tokens", "prompt tokens", "tokens", "usage.prompt_tokens or a synonym", "none",
           "AIPerf: ISL",
           "Length of the prompt as counted by the server."),
    Metric("cached_tokens", "cached tokens", "tokens",
           "usage.prompt_tokens_details.cached_tokens or a synonym, else server_timings.cache_n",
           "none",
           "OpenAI API, llama.cpp", "Prompt tokens that the server took from a cache."),
    Metric("coalesced_ratio", "coalesced", "1", "chunks that share a read / chunks", "none",
           "timing.reads",
           "Share of text chunks that arrived together with others and have no time of their own."),
    Metric("output_token_throughput_tokens_per_s", "all lanes tok/s", "tokens/s",
           "sum(output_tokens) / makespan", "higher", "vLLM, AIPerf: output token throughput",
           "Output tokens of all lanes of a phase per second, including the waits for first "
           f"tokens. In {MIXED_PHASE}: this model's tokens over the makespan of all models."),
    Metric("makespan_ms", "makespan ms", "ms", "last end - first start of the phase's calls",
           "none", "timing.started_us, timing.done_us",
           "Duration of a phase. Null if the run was resumed during it."),
    Metric("lane_efficiency_ratio", "lane eff.", "1",
           "output token throughput / (lanes x sum(output_tokens) / sum(e2el) on one lane)",
           "higher", "this project",
           "Share of ideal scaling that the lanes reached: 1 if every lane is as fast as one lane "
           "alone, 1/lanes if the server answers one call after the other. One lane alone is "
           f"{', '.join(ONE_LANE_PHASES)} of the same run and model, all their answers together."),
    Metric("checks_passed", "checks", "answers", "checks passed / answers with a check", "higher",
           "answer_checks.py",
           "Answers with the expected format and markers. It does not say that they are correct."),
    Metric("read_lag_us", "read lag µs", "µs", "user timestamp - kernel timestamp of a read",
           "lower", "timing.read_lag_us",
           "Delay of this client's reader. It does not affect kernel timestamps."),
    Metric("long_ttft_ms", "long TTFT ms", "ms", f"ttft_ms of {LONG_PHASE}", "lower", "as ttft_ms",
           "Time to first token after a prompt of about 2,900 tokens."),
    Metric("joules_per_output_token", "J/token", "J/token",
           "energy during the calls of the one-lane phases / sum(output_tokens)", "lower",
           "MLPerf Power, inference-atlas",
           "Energy per output token, idle power included, without the rest of the machine: of the "
           "cards that computed, or else of the processor's package, as `scope` says. Integrated "
           "from the samples of the power; null below "
           f"{MIN_ENERGY_SAMPLES} samples."),
    Metric("mean_power_w", "W", "W", "the same energy / the duration of these calls", "none",
           "as joules_per_output_token", "Mean power during the calls of the one-lane phases."),
    Metric("peak_card_bytes", "card memory", "bytes",
           "largest sum of gpus[].memory_used_bytes", "none", "nvidia-smi, rocm-smi, ioreg",
           "Memory in use on the cards that computed, with what else was on them."),
    Metric("peak_process_bytes", "server memory", "bytes", "largest server_memory_bytes", "none",
           "/proc/PID/stat: rss",
           "Resident memory of the server and the processes that it started (Linux only)."),
    Metric("draft_acceptance_ratio", "drafts accepted", "1",
           "sum(draft_n_accepted) / sum(draft_n)", "none", "llama.cpp: timings",
           "Share of the tokens of a draft model, or of another method of speculative decoding, "
           "that the model accepted."),
    Metric("load_s", "load s", "s", "TTFT of the hello that loaded the model - a warm TTFT",
           "lower", "Ollama: load_duration",
           "Time to load the model. Null unless the server reported that it was not loaded."),
    Metric("server_decode_tokens_per_s", "server decode tok/s", "tokens/s",
           "median of predicted_n / predicted_ms", "higher", "llama.cpp: timings",
           "Decode rate as the server measured it. It covers whole answers, so it is lower than "
           "the client's rate where long answers get slower, and it leaves out network and HTTP."),
    Metric("server_prefill_tokens_per_s", "server prefill tok/s", "tokens/s",
           "median of prompt_n / prompt_ms", "higher", "llama.cpp: timings",
           f"Prefill rate of {LONG_PHASE} as the server measured it, without network and HTTP."),
)}
CALL_METRICS = ("ttft_ms", "ttfo_ms", "tpot_ms", "decode_tokens_per_s", "prefill_tokens_per_s",
                "icl_ms", "icl_max_ms", "e2el_ms", "output_tokens", "prompt_tokens",
                "cached_tokens", "coalesced_ratio")


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
         "Turn prefix caching off, or use --prompt-cache avoid. In edge_append this is expected.",
         True),
    Flag("client_bound",
         "This client was too slow for the server, so the times include the client's own delay.",
         "Close other programs, use fewer lanes, or measure from another machine.", True),
    Flag("suspended", f"The machine slept or stalled for over {SUSPENDED_US / 1e6:g} s during a "
         "call.", "Keep the machine awake and start a new run.", True),
    Flag("clock_stepped", "The system clock was changed during a call. The call's times are still "
         "correct, because they use the monotonic clock.",
         "No action is needed. Let time synchronization finish before you start a run.", False),
    Flag("unstable", f"The decode rates over the first {JUDGED_GAPS} chunks of the answers vary "
         "too much between calls.",
         "Stop other programs, let the machine cool down, use --repeats, and run again.", True),
    Flag("drifting", f"The decode rates over the first {JUDGED_GAPS} chunks of the answers changed "
         "from the first quarter of the calls to the last.",
         "Wait until the machine's temperature is steady, then run again.", True),
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
    Flag("busy_host", "Other programs or virtual machines used the CPU during the run.",
         "Stop them and run again.", False),
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
