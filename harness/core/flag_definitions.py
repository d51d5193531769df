"""Registry of flags, the warnings on a cell or a run: texts and remedies.

docs/flags.md and all explanations of flags are made from here.
"""
from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from core import thresholds


class Flag(NamedTuple):
    """A warning on a cell or a run. unrankable: the cell's numbers are not compared."""

    name: str
    text: str
    remedy: str
    unrankable: bool


FLAGS: dict[str, Flag] = {flag.name: flag for flag in (
    Flag("truncated", "The server truncated the prompt, so it processed less than it was sent.",
         "Set the server's context to at least the requested size and run the phase again.", True),
    Flag("cached_prefill", "Part of a prompt came from the server's prompt cache, so TTFT covers "
         "only the rest of it. In edge_append, a growing conversation, most servers keep the "
         "earlier turns, and TTFT covers the new turn, as in a real chat.",
         "In edge_append, no action is needed. In other phases, turn prefix caching off in the "
         "server, and do not use --prompt-cache allow.",
         True),
    Flag("client_bound",
         "This client was too slow for the server. Medians that its delay changed are not ranked; "
         "the others are.",
         "Close other programs, use fewer lanes, or measure from another machine.", False),
    Flag("suspended", "The machine slept or stalled for over "
         f"{thresholds.SUSPENDED_US / 1e6:g} s during calls, which are left out.",
         "Keep the machine awake during a run.", False),
    Flag("clock_stepped", "The system clock was changed during a call. The call's times are still "
         "correct, because they use the monotonic clock.",
         "No action is needed. Let time synchronization finish before you start a run.", False),
    Flag("unstable", "The decode rates vary much between calls.",
         "Stop other programs, let the machine cool down, or use --repeats.", False),
    Flag("drifting", f"The decode rate changed by over {thresholds.DRIFT_RATIO:.0%} during the "
         "run.", "Let a laptop reach its steady temperature before a run.", False),
    Flag("outliers", "A few calls were much faster or slower than the others.",
         "Look at these calls in run.jsonl. They hardly affect the medians.", False),
    Flag("failures", f"Over {thresholds.FAILED_SHARE:.0%} of the calls failed. Only the others "
         "were measured.",
         "See the kinds of failure in `outcomes`, fix the cause, and run with --retry-failed.",
         True),
    Flag("survivors", f"At least {thresholds.SURVIVORS_SHARE:.0%} of the calls failed. The others "
         "shared the machine with fewer calls than planned, so their medians look better than they "
         "are.", "Leave the phase out, or use fewer models or a lower --num-predict.", True),
    Flag("few_samples", f"Fewer than {thresholds.MIN_INTERVAL_N} answered calls count, so the "
         "median has no interval: the phase has few questions, as 5q has, or calls were left out.",
         "No action is needed. --repeats asks each question more often.", False),
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
    Flag("coalesced", f"Over {thresholds.COALESCED_SHARE:.0%} of the chunks arrived together with "
         "others. A buffering proxy can cause this.",
         "No action is needed for rates. Gaps are computed from the other chunks.", False),
    Flag("model_mismatch", "The server answered with a different model than the requested one.",
         "Serve the model under the name given to --models.", True),
    Flag("context_differs", "The server's context is smaller than requested, so it may truncate or "
         "refuse long prompts.",
         "Set the context on the server. For known engines the runner prints how.", True),
    Flag("context_shift", "An answer continued beyond the context, so the server dropped the start "
         "of the conversation meanwhile.", "No action is needed.", False),
    Flag("reloaded", "The model was loaded again within calls. Their TTFT is left out.",
         "Keep the model loaded between calls (Ollama: OLLAMA_KEEP_ALIVE=10m).", False),
    Flag("queued", "Calls on parallel lanes waited for each other, because the server has fewer "
         "slots than the run has lanes. TTFT includes the wait, so it is not ranked.",
         "Give the server as many parallel slots as the run has lanes.", False),
    Flag("busy_host", "Other programs or virtual machines used over "
         f"{thresholds.OTHER_CPU_SHARE:.0%} of the processors that calls needed. These calls are "
         f"left out. A phase that lost over {thresholds.DISTURBED_SHARE:.0%} of its calls in this "
         "way is not ranked.",
         "Stop them before the next run.", True),
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
