"""Text at the end of a run: its tables, advice about failed calls, and the next command.

core/result_tables makes the tables. Text from a server goes through `printable` before it is shown.
"""
from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from core import ledger, result_tables, run_summary, suites
from core.records import Json, Manifest
from core.text import command, print_result, printable, terminal_width
from engines import queries
from run import cli
from run.estimates import LONG_TIMEOUT_S
from run.manifest import inherit_options
from run.plan_and_probe import trial_note

PARALLEL = ("same", "mixed", "ramp")      # kinds of phases


def print_end(manifest: Manifest, events: Sequence[Any], folder: str, resume: str,
              options: cli.Options) -> int:
    """Print the results of a run and the next command; return the run's exit code.

    resume: the command that resumes it; options: of this program.
    """
    last, summary = events[-1] if events else None, None
    if last is not None and last["event"] == "run_finished":
        code, summary = int(last["exit_code"]), run_summary.summarize_run(manifest, events)
        here = os.path.join(os.getcwd(), "")
        shown = folder[len(here):] if folder.startswith(here) else folder
        advice = failure_advice(events)
        following = (f"{resume} --retry-failed" if advice.retry else
                     command("run_benchmark", "--probe") if manifest["synthetic"] else
                     whole_run(options, manifest) if manifest["smoke"] else
                     command("complete_submission", shown))
        text = end_text(summary, folder, "\n".join([
            *filter(None, [advice.text]), *_left_out(manifest, options) * advice.retry,
            *trial_note(manifest)]),
            following, manifest["smoke"])
    else:
        code, what = 130, "the run was killed before its end; no finished call is lost"
        if last is not None and last["event"] == "run_interrupted":
            code = int(last["exit_code"])
            what = f"the run was interrupted: {printable(last['reason'], 400)}"
        following = next_step(code, resume)
        text = "\n".join([what, *_left_out(manifest, options), f"next: {following}"])
    print_result(options.json, {"run_id": manifest["run_id"], "folder": folder, "exit_code": code,
                                "summary": summary, "next": following}, text)
    return code


def _left_out(manifest: Manifest, options: cli.Options) -> list[str]:
    """A line with the options that a resume command lacks, because their values are not stored."""
    names = ["--target-url"] * (manifest["target"]["class"] != "loopback"
                                and "target_url" not in options.given)
    names += ["--api-key-env"] * (manifest["api_key_used"] and "api_key_env" not in options.given)
    return [f"Add {' and '.join(names)} as in the first command: addresses of other machines and "
            "keys are not stored."] if names else []


class Advice(NamedTuple):
    """What to do about the failed calls of a finished run, and whether to retry them."""

    retry: bool
    text: str


def failure_advice(events: Sequence[Any]) -> Advice:
    """Retry failed calls once. A prompt that is too long for the context will be too long again."""
    before: dict[str, str] = {}
    again, failed = 0, list[Any]()
    ends = {(event["model"], event["phase"]): event["level"] for event in events
            if event["event"] == "curve_ended"}
    calls = ledger.latest_calls(events)
    for call in calls:
        ended = "level" in call and call["level"] >= ends.get(
            (call["model"], call["phase"]), float("inf"))
        if call["outcome"] not in ("ok", "context_limit") and not ended:
            failed.append(call)
    failed_ids = {call["cell_id"] for call in failed}
    for event in events:
        if event["event"] == "call_finished" and event["cell_id"] in failed_ids:
            again += event["cell_id"] in before and before[event["cell_id"]] != "skipped"
            before[event["cell_id"]] = event["outcome"]
    timeouts = {call["phase"] for call in failed if call["outcome"] == "timeout"}
    lines = []
    if again:
        lines.append("Calls failed again. They are data: complete the run as it is, or make "
                     "another run.")
    if any(suites.PHASES[name].kind in PARALLEL for name in timeouts):
        lines.append(
            f"Timeouts in {', '.join(sorted(timeouts))}: parallel requests wait for each other. A "
            f"new run with --timeout {LONG_TIMEOUT_S} gives them time. Otherwise leave these "
            "phases out of --phases, pass fewer models to --models, or lower --num-predict and "
            "name that as a deviation.")
    elif timeouts:
        lines.append(f"Timeouts in {', '.join(sorted(timeouts))}: the model is slow. A new run "
                     f"with --timeout {LONG_TIMEOUT_S} gives it time.")
    one_lane = [call for call in failed if suites.PHASES[call["phase"]].kind not in PARALLEL]
    interrupted = {call["phase"] for call in failed if call["outcome"] == "interrupted_answer"}
    asked = [call for call in calls if call["phase"] in interrupted]
    # A server that died once interrupts a few answers; this one interrupts most.
    if interrupted and not one_lane and 2 * len(failed) > len(asked):
        names = [e["engine"]["name"] for e in events if e["event"] == "endpoint_identified"]
        todo = queries.engine_named(names[-1] if names else None).interrupted_remedy
        lines.append(f"Most answers in {', '.join(sorted(interrupted))} were interrupted, and no "
                     "call on one lane failed: the server seems to end an answer when the next "
                     "request comes. " + (todo or "Leave these phases out of --phases."))
    return Advice(bool(failed) and not again, "\n".join(lines))


def whole_run(options: cli.Options, manifest: Manifest) -> str:
    """The command of a run like a smoke run, but whole."""
    known, default = inherit_options(options, manifest), cli.Options
    shown = {name: getattr(known, name) for name in (
        "target_url", "models", "timeout", "prompt_cache", "submitter_handle", "device_tag",
        "no_hostname")}
    return cli.command_with(
        options, smoke=None, run_id=None, retry_failed=None,
        **{name: value for name, value in shown.items() if value != getattr(default, name)},
        **manifest["canonical_options_overrides"])


def end_text(summary: Json, folder: str, advice: str, next_command: str,
             smoke: bool = False) -> str:
    """The tables of a finished run, flags and failures explained, and the next command."""
    counts = ", ".join(f"{count} {kind}" for kind, count in summary["counts"].items())
    flags = [line for line in result_tables.flags_explained(summary)
             if not (smoke and line.startswith("not_calibrated"))]
    table = result_tables.summary_table(summary, terminal_width())
    brackets = "; in brackets, the exact 95 % confidence interval of the median across prompts"
    return "\n".join([
        "", table, "", f"Medians{brackets if '[' in table else ''}.",
        "timing error: not measured (--smoke skips it)" if smoke else
        result_tables.instrument_line(summary), f"calls: {counts or 'none'}",
        *([""] + flags if flags else []), *(["", advice] if advice else []), "",
        f"run folder: {folder}", f"next: {next_command}"])


def next_step(exit_code: int, resume: str) -> str:
    """The command after a run that stopped early; calls that found no server are repeated."""
    return resume + " --retry-failed" * (exit_code == 3)


def error_text(error: Exception) -> str:
    """The error that ended the program, for standard error."""
    if isinstance(error, OSError):
        parts = (error.filename, error.strerror or type(error).__name__)
        return ": ".join(printable(str(part)) for part in parts if part)
    return str(error)
