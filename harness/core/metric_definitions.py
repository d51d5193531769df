"""The registry of metrics and flags: names, units, formulas, thresholds."""
from __future__ import annotations

from typing import Dict, Iterable, List, NamedTuple, Sequence

SIGNIFICANT_DIGITS = 6
MIN_QUARTILE_N = 4            # fewer values than quarters have no quartiles
TAIL_FLOORS = {"p90": (90, 64), "p95": (95, 130), "p99": (99, 662)}  # MLPerf early stopping, 99 %
MIN_DECODE_TOKENS = 32        # below, one late packet moves the rate by per cents
MIN_PREFILL_TOKENS = 512      # below, queue and network outweigh the prompt
MAX_FIRST_READ_ERROR = 0.05   # of a decode rate: tokens that came with the first read took no time
CACHED_SHARE = 0.10           # of a prompt's tokens from a cache: its prefill was not measured
CACHED_FLOOR_TOKENS = 64      # a chat template's own beginning, which no salt can stand before
MIN_RANKED_N = 6              # the exact interval of a median exists from here

# Whether a server's own counts can be true. No tokenizer in use packs three words into a token.
MAX_WORDS_PER_TOKEN = 3
SPARE_TOKENS = 16             # end marks and the tags around thinking count, and show no text
LETTERS_PER_TOKEN = 3         # cautious: English has over 4, code 3
MIN_HIDDEN_RATIO = 1.5        # tokens per chunk of text from which thinking may be hidden
MIN_CONSTANT_CALLS = 5        # as many equal counts over different lengths are no count

MIN_DRIFT_N = 12              # three values a quarter
DRIFT_RATIO = 0.10
OUTLIER_SIGMAS = 10.0         # hyperfine's bound
OUTLIER_RATIO = 0.20          # where nearly all values are equal, 10 sigma are nothing
UNSTABLE_IQR_RATIO = 0.10     # pyperf calls 10 % unstable
UNSTABLE_LANES_IQR_RATIO = DRIFT_LANES_RATIO = 0.25  # lanes run full and empty by design
JUDGED_GAPS = 64              # of each answer: the further it goes, the slower is each token
LAG_SHARE = 0.01              # of what is measured may be the client's own lag
SATURATION_SHARE = 1 / 3
SUSPENDED_US = 2_000_000
COALESCED_SHARE = 0.20        # of a cell's chunks
SHORT_CHARACTERS = 200        # texts so short may honestly come in one read, or count alike
FAILED_SHARE = 0.05           # of a cell's calls
OTHER_CPU_SHARE = 0.15        # of all CPUs, used by neither client nor server
STEAL_SHARE = 0.05            # of all CPUs, taken by the hypervisor
BUSY_SAMPLES_SHARE = 0.20
DIFFERENT_RATIO = 1.05        # smaller gaps vanish in the spread between sessions

ONE_LANE_PHASES = ("frozen", "5q", "20q")    # what lanes are compared with
GROWING_PHASES = ("edge_append",)            # slower from turn to turn by design
MIXED_PHASE = "parallel_mixed"
CAP_FIELDS = ("max_tokens", "max_completion_tokens", "num_predict", "n_predict")
LETTERS = bytes(range(65, 91)) + bytes(range(97, 123)) + b" \n"


# --- what is published, in words -----------------------------------------------------------------
class Metric(NamedTuple):
    """One published number. direction: "lower" or "higher" is better, or "none"."""

    name: str
    unit: str
    formula: str
    direction: str
    source: str
    text: str


METRICS: Dict[str, Metric] = {metric.name: metric for metric in (
    Metric("ttft_ms", "ms", "first_token_us / 1000", "lower",
           "NVIDIA NIM, AIPerf, GuideLLM: TTFT",
           "TTFT, time to first token: from the request's first byte to the first generated text, "
           "reasoning included; role-only, empty and usage chunks do not count."),
    Metric("ttfo_ms", "ms", "first_answer_us / 1000", "lower",
           "AIPerf: TTFO; GuideLLM: TTFOT",
           "TTFO, time to first output: to the first text that is not reasoning."),
    Metric("tpot_ms", "ms/token", "(last_token_us - first_token_us) / (output_tokens - 1) / 1000",
           "lower", "vLLM, MLPerf, genai-bench: TPOT",
           "TPOT, time per output token after the first."),
    Metric("decode_tokens_per_s", "tokens/s", "1000 / tpot_ms", "higher",
           "AIPerf: output token throughput per user; llama-bench: tg",
           "Decode rate: how fast one answer grows. Null below "
           f"{MIN_DECODE_TOKENS} output tokens."),
    Metric("prefill_tokens_per_s", "tokens/s", "prompt_tokens / (first_token_us / 1e6)", "higher",
           "AIPerf: prefill throughput; llama-bench: pp",
           "Prefill rate as the client sees it; queue and network are inside. Null below "
           f"{MIN_PREFILL_TOKENS} uncached prompt tokens and where a cache held over "
           f"{CACHED_SHARE:.0%} of the prompt and {CACHED_FLOOR_TOKENS} tokens."),
    Metric("icl_ms", "ms", "median of the gaps chunk_us[1:] / 1000, shared reads left out", "lower",
           "AIPerf: ICL; vLLM, evalscope: ITL per chunk",
           "ICL, inter-chunk latency: the call's median gap between two reads of text. A gap that "
           "ends in a read shared by several chunks is left out, for they have one stamp."),
    Metric("icl_max_ms", "ms", "largest of the gaps of icl_ms / 1000", "lower", "as icl_ms",
           "The longest pause inside the answer."),
    Metric("e2el_ms", "ms", "last_token_us / 1000", "lower", "vLLM, AIPerf: E2EL, request latency",
           "E2EL, end-to-end latency: to the last generated text, not to the usage chunk. Null "
           "where the call did not end by itself."),
    Metric("output_tokens", "tokens", "usage.completion_tokens, else the count of text chunks",
           "none", "AIPerf: OSL", "Length of the answer, reasoning included."),
    Metric("prompt_tokens", "tokens", "usage.prompt_tokens", "none", "AIPerf: ISL",
           "Length of the prompt as the server counted it."),
    Metric("cached_tokens", "tokens",
           "usage.prompt_tokens_details.cached_tokens, else server_timings.cache_n", "none",
           "OpenAI API, llama.cpp", "Prompt tokens that the server took from a cache."),
    Metric("coalesced_ratio", "1", "chunks that share a read / chunks", "none", "timing.reads",
           "Share of text chunks that came together with others and so have no time of their own."),
    Metric("output_token_throughput_tokens_per_s", "tokens/s", "sum(output_tokens) / makespan",
           "higher", "vLLM, AIPerf: output token throughput",
           "What all lanes of a phase brought together, the waits for first tokens included. In "
           f"{MIXED_PHASE}: this model's tokens over the makespan of all models."),
    Metric("makespan_ms", "ms", "last end - first start of the phase's calls", "none",
           "marks started_us, done_us", "Time a phase took; null where it was resumed in between."),
    Metric("lane_efficiency_ratio", "1",
           "output token throughput / (lanes x sum(output_tokens) / sum(e2el) on one lane)",
           "higher", "this project",
           "How much of ideal scaling the lanes reached: 1 where every lane is as fast as one lane "
           "alone, 1/lanes where the server answers one after the other. One lane alone is "
           f"{', '.join(ONE_LANE_PHASES)} of the same run and model, all their answers together."),
    Metric("checks_passed", "answers", "checks passed / answers with a check", "higher",
           "answer_checks.py", "Answers whose shape and markers were as asked. Shape, not truth."),
    Metric("read_lag_us", "µs", "user stamp - kernel stamp of a read", "lower",
           "timing.read_lag_us",
           "How late this client's reader was; stamps by the kernel do not suffer from it."),
)}
CALL_METRICS = ("ttft_ms", "ttfo_ms", "tpot_ms", "decode_tokens_per_s", "prefill_tokens_per_s",
                "icl_ms", "icl_max_ms", "e2el_ms", "output_tokens", "prompt_tokens",
                "cached_tokens", "coalesced_ratio")


class Flag(NamedTuple):
    """Something a reader must know of a cell or a run. unrankable: its numbers are not compared."""

    name: str
    text: str
    remedy: str
    unrankable: bool


FLAGS: Dict[str, Flag] = {flag.name: flag for flag in (
    Flag("truncated", "The server cut the prompt, so it did less work than was asked.",
         "Give the server a context of at least the asked size and run the phase again.", True),
    Flag("cached_prefill", "Prompts came out of a cache in part, so TTFT and prefill are too good.",
         "Turn prefix caching off, or use --prompt-cache avoid. In edge_append it is by design.",
         True),
    Flag("client_bound",
         "The measuring client was too slow for this server; the times are partly its own.",
         "Close other programs, use fewer lanes, or measure from another machine.", True),
    Flag("suspended", "The machine slept or starved for over 2 s during a call.",
         "Keep the machine awake and run again with a new run id.", True),
    Flag("clock_stepped", "The wall clock was set during a call; that call's times are by the "
         "monotonic clock.", "None needed; let the time service settle before a run.", False),
    Flag("unstable", f"The decode rate over the answers' first {JUDGED_GAPS} chunks varies too "
         "much between calls for one number.",
         "Stop what else runs, let the machine cool, use --repeats, and run again.", True),
    Flag("drifting", f"The decode rate over the answers' first {JUDGED_GAPS} chunks changed from "
         "the first quarter of the calls to the last.",
         "Let the machine cool or warm up to its steady state, then run again.", True),
    Flag("outliers", "Single calls were far off the others.",
         "Look at the calls in run.jsonl; medians are little touched.", False),
    Flag("failures", f"Over {FAILED_SHARE:.0%} of the calls failed; only the rest was measured.",
         "See `outcomes` for the kinds, mend the cause, and run with --retry-failed.", True),
    Flag("few_samples", f"Fewer than {MIN_RANKED_N} calls: there is no interval of the median.",
         "Use --repeats.", False),
    Flag("hidden_reasoning", "The model thought without streaming it: TTFT holds the thinking, and "
         "rates cannot be told.", "Let the server stream reasoning, or turn thinking off.", True),
    Flag("reasoning_only", "Some answers are reasoning and nothing else.",
         "Raise --num-predict, or turn thinking off.", False),
    Flag("usage_implausible", "The server's token counts cannot be true.",
         "Update the server, or a proxy in between.", True),
    Flag("tokens_from_chunks", "Tokens were counted as chunks of text, for want of usable counts.",
         "Use a server that sends usage in streams.", True),
    Flag("not_streamed", "Answers came in one piece, so there is no time to a first token.",
         "Turn streaming on in the server or the proxy.", True),
    Flag("coalesced", f"Over {COALESCED_SHARE:.0%} of the chunks arrived together with others.",
         "None needed for rates; gaps stand on the rest. A proxy's buffering can cause it.", False),
    Flag("model_mismatch", "The server answered with another model than was asked.",
         "Serve the model under the name given in --models.", True),
    Flag("context_differs", "The context in force is not the one asked for.",
         "Set the context on the server; the run says how for known engines.", False),
    Flag("queued", "The server has fewer slots than the run has lanes; TTFT holds waiting.",
         "Give the server as many parallel slots as there are lanes.", False),
    Flag("busy_host", "Other programs or virtual machines used the processors during the run.",
         "Stop them and run again.", False),
    Flag("throttled", "The machine slowed itself down because of heat or power.",
         "Better cooling or mains power; or publish it as what this machine does.", False),
    Flag("on_battery", "The machine ran on battery.", "Plug it in and run again.", False),
    Flag("not_calibrated", "The client's own error was not measured.",
         "Run without --no-calibration.", False),
    Flag("unfinished", "The run did not reach its end.", "Go on with --run-id.", False),
)}


def metrics_markdown() -> str:
    """METRICS as a Markdown table; the documents hold it byte for byte."""
    return _markdown(("metric", "unit", "better", "formula", "meaning", "source"), (
        (f"`{m.name}`", m.unit, m.direction, f"`{m.formula}`", m.text, m.source)
        for m in METRICS.values()))


def flags_markdown() -> str:
    """FLAGS as a Markdown table; the documents hold it byte for byte."""
    return _markdown(("flag", "meaning", "what to do", "still ranked"), (
        (f"`{f.name}`", f.text, f.remedy, "no" if f.unrankable else "yes") for f in FLAGS.values()))


def _markdown(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def ordered_flags(names: Iterable[str]) -> List[str]:
    """Known flags once each, in the order of FLAGS; others are left out."""
    found = set(names)
    return [name for name in FLAGS if name in found]
