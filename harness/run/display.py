"""What the runner shows: messages, estimates, the progress display, and following a run (--wait).

Numbers come from core/metrics.py; nothing is measured or decided here. Text from a server goes
through `printable` before it is shown.
"""
from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import shlex
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple, Optional, TextIO

from core import files, ledger, plan, result_tables, run_summary, suites
from core.errors import HarnessError, StorageError
from core.records import Manifest
from core.text import (
    align_columns,
    command,
    duration,
    fit_lines,
    print_result,
    printable,
    readable,
    terminal_width,
    width_of,
)
from engines import queries
from run import cli, estimates
from run.manifest import commands_for, inherit_options, measurable, size_and_state

Json = dict[str, Any]
CLONE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

LIVE_EVERY_S = 0.1
BAR = 10                          # characters of the live line's bar
LONG_TIMEOUT_S = 3600
CALIBRATION_S = 1.2               # for each number of lanes
MAX_COMMANDS = 10                 # printed for one endpoint
RED, PLAIN = "\x1b[31m", "\x1b[0m"
CLEAR_LINE = "\r\x1b[2K"
FOLLOW_EVERY_S = 0.5
STOP_SUFFIX = ".stop"             # of the file beside a ledger that asks its run to stop
STOP_WAIT_S = 30.0
STILL_RUNNING = 5                 # exit code
TRIAL = ("This run is a trial: it names no contributor, so it cannot be submitted. To submit one, "
         "run with --submitter-handle and --device-tag.")


# --- before a run --------------------------------------------------------------------------------
def estimate_line(found: Optional[estimates.Estimate], timeout_s: float,
                  left: bool = False) -> str:
    """`Estimated time: 5 min, at most 14 min`, and a longer --timeout if an answer may need it."""
    if found is None:
        return "No estimate yet: it needs a few answers." if left else (
            "No estimate: the first call was too short.")
    usual, most = duration(found.typical_s), duration(found.most_s)
    line = f"About {usual} left, at most {most} at this speed" if left else (
        f"Estimated time: {usual}, at most {most} at this speed (every answer at its limit)")
    if not left and found.longest_s > timeout_s:
        line += (f"\nAn answer at its limit may take {duration(found.longest_s)}, longer than "
                 f"--timeout {timeout_s:g}: use --timeout {LONG_TIMEOUT_S}")
    return line


def begin_line(run_id: str, left: int, total: int, calibrated: Optional[Manifest]) -> str:
    """`run ID: 5 of 38 planned calls`, and what comes first. calibrated: None without it."""
    line = f"run {run_id}: {f'{left} of ' * (left < total)}{total} planned call{'s' * (total > 1)}"
    if calibrated is None:
        return line
    seconds = 1 + round(CALIBRATION_S * len(plan.calibrated_lanes(calibrated["plan"])))
    return f"{line}; measuring this client's timing error first ({seconds} s)"


def plan_text(manifest: Manifest, calls_count: int, found: Optional[estimates.Estimate],
              notes: Sequence[str], options: cli.Options) -> str:
    """The planned calls, one line per phase, how long they may take, and the command of the run."""
    needs_time = found is not None and found.longest_s > manifest["timeout_s"]
    longer: dict[str, Any] = {"timeout": LONG_TIMEOUT_S} if needs_time else {}
    rows: list[tuple[str, ...]] = [("phase", "calls", "lanes", "limit", "description")]
    for entry in manifest["plan"]["phases"]:
        name = entry["phase"]
        skipped = plan.skip_reason(name, manifest["models"], manifest["plan"]["lanes"])
        calls = len(plan.cells_of(manifest["plan"], name, manifest["models"][:1], "x"))
        rows.append((name, "0" if skipped else str(calls), str(entry["lanes"]),
                     f"{entry['max_tokens']} tokens", skipped or suites.PHASES[name].text))
    return "\n".join([f"models: {', '.join(map(readable, manifest['models']))}",
                      *align_columns(rows, (1, 2), terminal_width()),
                      f"{calls_count} calls for all models",
                      estimate_line(found, manifest["timeout_s"]), *notes, *trial_note(manifest),
                      *write_note(options),
                      "next: " + cli.command_with(options, plan=None, json=None, quiet=None,
                                                  detach=True, **longer)])


def served_text(found: Sequence[Json], options: cli.Options) -> str:
    """What a probe found: each endpoint with its models."""
    lines = []
    for one in found:
        engine, slots = one["engine"], one["slots"].get("count")
        version = f" {printable(engine['version'])}" if engine["version"] else ""
        lines.append(f"{printable(one['url'])}: {printable(engine['name'])}{version}"
                     + (f", {slots} slot{'s' * (slots > 1)}" if slots else ""))
        more_slots = queries.parallel_remedy(engine["name"], options.lanes, options.num_ctx)
        if slots and slots < options.lanes and more_slots:
            lines.append(f"  parallel requests wait for each other. {more_slots}")
        for model in one["models"]:
            shown = _model_words(model)
            lines.append(f"  {readable(model['id'])}" + (f"  ({', '.join(shown)})" if shown
                                                         else ""))
            if model["context"]["remedy"]:
                lines.append(f"    {readable(model['context']['remedy'], 500)}")
        if not one["models"]:
            lines.append("  no models listed: probe again if the server is still loading, or pass "
                         "the model's name to --models")
    return "\n".join(lines)


def hello_text(found: Sequence[Json], hello: Optional[Any], options: cli.Options) -> str:
    """The one hello call of a probe, if it was made, and the next command."""
    if len(found) > 1:
        return "\n".join(["several endpoints; to choose one:", *(
            "  " + cli.command_with(options, target_url=one["url"], probe=True) for one in found)])
    able = [model for one in found for model in one["models"] if measurable(model)]
    plan_it: dict[str, Any] = {"target_url": found[0]["url"], "probe": None, "json": None,
                               "plan": True,
                               "phases": options.phases if "phases" in options.given else "all"}
    if hello:
        lines = [result_tables.call_line(1, 1, hello)]
        answered = (hello.get("response") or {}).get("model")
        if "model_mismatch" in hello.get("flags", ()) and answered:
            lines.append(f"  asked of {readable(hello['model'])}, answered by {readable(answered)}:"
                         " the name in the list is not that of the loaded model")
        able = [model for model in able if model["id"] == hello.get("model")]
        if hello["outcome"] != "ok" or not able:
            return "\n".join(lines)
        return "\n".join([*lines, *write_note(options), "next: " + cli.command_with(
            options, models=hello["model"], **plan_it)])
    return "\n".join([*(["No model is loaded, and a probe loads none. Choose one; its command "
                         "loads it:"] if able else []), *commands_for(able, options, **plan_it),
                      *write_note(options)])


def _model_words(model: Json) -> list[str]:
    """What is known of a listed model, in the order in which it matters."""
    facts, context = model["facts"], model["context"]
    words = size_and_state(model)
    words += [printable(str(facts[name])) for name in ("quantization", "family") if facts[name]]
    if context["effective_tokens"]:
        words.append(f"context {context['effective_tokens']} tokens")
    if facts["trained_context_tokens"]:
        words.append(f"trained for {facts['trained_context_tokens']}")
    if model["same_as"]:
        words.append(f"the same weights as {readable(model['same_as'])}")
    if model["remote"]:
        words.append(f"computed elsewhere: {readable(model['remote'])}; it cannot be submitted")
    return words + ([] if model["chat"] else ["not a chat model"])


def no_endpoint(url: Optional[str], options: cli.Options, failure: Optional[tuple[str, str]],
                found: Sequence[Json]) -> str:
    """What to do if no server answers.

    url: None if no URL was given; found: the servers on the usual ports of this machine.
    """
    tried = f"tried ports {', '.join(map(str, queries.USUAL_PORTS))}"
    lines = [f"no model server found on this machine ({tried})" if url is None else
             f"no endpoint at {printable(url)} ({failure[1] if failure else 'no answer'})"]
    if found:
        lines.append("found on this machine, with a command for each model:")
        for one in found:
            lines.append(f"  {one['url']}  {printable(one['engine']['name'])}")
            chatting = sorted((model for model in one["models"] if model["chat"]),
                              key=lambda model: model["facts"].get("file_bytes") or 0)
            chosen = [options.models] if options.models else [model["id"] for model in chatting]
            lines += ["    " + readable(cli.command_with(
                options, target_url=one["url"], models=name), 1000)
                for name in chosen[:MAX_COMMANDS]]
    else:
        if url is not None:
            lines.append(f"no model server found on this machine either ({tried})")
        lines += ["a server elsewhere: --target-url http://ADDRESS:PORT, and --api-key-env NAME if "
                  "it requires a key", "to start one here:", queries.start_hint()]
    return "\n".join([*lines, "to try everything without a server: "
                      + command("run_benchmark", "--rehearse")])


def unwritable(folder: str, error: OSError) -> HarnessError:
    """The error for a run folder that cannot be written: a wrong --out-dir, a full disk, or a clone
    without write permission.
    """
    what = f"{printable(folder)} cannot be written ({error.strerror})"
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return HarnessError(f"--out-dir: {what}; use another folder")
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return StorageError(f"{what}; {_where_to_write(folder)}")
    return StorageError(f"{what}; free some space, or pass another folder to --out-dir")


def trial_note(manifest: Manifest) -> list[str]:
    """A line for the plan and the end of a run that cannot be submitted."""
    is_trial = manifest["submitter_handle"] == cli.Options.submitter_handle
    return [TRIAL] * (is_trial and not manifest["synthetic"])


def write_note(options: cli.Options) -> list[str]:
    """A line for --probe and --plan if the folder of a run cannot be written."""
    folder = os.path.join(os.path.abspath(options.out_dir), options.submitter_handle,
                          options.device_tag)
    while not os.path.exists(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return [] if os.access(folder, os.W_OK | os.X_OK) else [
        f"{printable(folder)} cannot be written, and a run writes there; {_where_to_write(folder)}"]


def _where_to_write(folder: str) -> str:
    """What to do if a folder does not belong to this user."""
    return "copy this clone and work in the copy: " + copy_command() if os.path.abspath(
        folder).startswith(os.path.join(CLONE, "")) else "pass another folder to --out-dir"


def copy_command() -> str:
    """The command that copies this clone to a folder of the user's own, and changes to the copy."""
    home = os.path.expanduser("~")
    copy = os.path.join(home if os.access(home, os.W_OK) else tempfile.gettempdir(),
                        os.path.basename(CLONE) + "-copy")
    clone, copy = (f"'{path}'" if os.name == "nt" else shlex.quote(path) for path in (CLONE, copy))
    return (f"Copy-Item -Recurse {clone} {copy}; cd {copy}" if os.name == "nt" else
            f"cp -R {clone} {copy} && chmod -R u+w {copy} && cd {copy}")


# --- counting ------------------------------------------------------------------------------------
class Count:
    """Calls that a process makes, and those that are left to it; from ledger lines.

    outcomes: of earlier processes, by cell id. retries: failed calls are made again; None if that
    is not known, and then a failed call that is made again shows it.
    """

    def __init__(self, planned: Sequence[plan.Cell], retries: Optional[bool],
                 outcomes: Mapping[str, str]) -> None:
        self._planned, self._retries = planned, retries
        self._outcomes = dict(outcomes)
        self.resume()

    def resume(self) -> None:
        """Begin with the calls of another process."""
        self.made, self._before, self._now = 0, dict(self._outcomes), set[str]()
        self._greeted = set[str]()
        before = [self._before.get(cell.cell_id) for cell in self._planned]
        nothing_new, failed = None not in before, before.count("ok") < len(before)
        self._retrying = nothing_new and failed if self._retries is None else self._retries

    def take(self, event: Mapping[str, Any]) -> None:
        """Count a ledger line."""
        if event["event"] == "run_resumed":
            self.resume()
        elif event["event"] == "call_finished":
            self.made += 1
            self._now.add(event["cell_id"])
            if event["phase"] == "hello":
                self._greeted.add(event["model"])
            self._retrying |= self._retries is None and event["cell_id"] in self._before
            self._outcomes[event["cell_id"]] = event["outcome"]
        elif event["event"] == "curve_ended":
            self._planned = [cell for cell in self._planned if not (
                (cell.model, cell.phase) == (event["model"], event["phase"])
                and (cell.level or 0) >= event["level"])]

    def left_cells(self) -> list[plan.Cell]:
        """Calls that this process has still to make; a resume greets each of their models again."""
        def is_left(cell: plan.Cell) -> bool:
            return (cell.cell_id not in self._before
                    or self._retrying and self._before[cell.cell_id] != "ok")

        left = [cell for cell in self._planned if cell.cell_id not in self._now]
        to_greet = {cell.model for cell in left if is_left(cell)} - self._greeted
        return [cell for cell in left
                if is_left(cell) or cell.phase == "hello" and cell.model in to_greet]

    def total(self) -> int:
        """Calls of this process: made and left."""
        return self.made + len(self.left_cells())


# --- while it runs -------------------------------------------------------------------------------
class Progress:
    """Lines on standard error; on a terminal also one live line below them. Thread-safe.

    stream: None shows nothing; live: the terminal understands escapes; colour: it may be coloured.
    """

    def __init__(self, stream: Optional[TextIO], live: bool, colour: bool) -> None:
        self._stream, self.live, self._colour = stream, live, colour
        self._width = width_of(stream) if stream else None
        self._lock = threading.Lock()
        self._shown, self._model = "", None
        self._calls: list[Any] = []

    @classmethod
    def on(cls, stream: TextIO, quiet: bool, environment: Mapping[str, str]) -> Progress:
        """The progress display for a stream and the environment (NO_COLOR, TERM)."""
        terminal = (stream.isatty() and environment.get("TERM") != "dumb"
                    and (os.name == "posix" or understands_escapes(stream)))
        return cls(None if quiet else stream, terminal and not quiet,
                   terminal and not environment.get("NO_COLOR"))

    def say(self, line: str, bad: bool = False) -> None:
        """Write a line that stays."""
        text = fit_lines(line, self._width)
        text = f"{RED}{text}{PLAIN}" if bad and self._colour else text
        with self._lock:
            self._write((CLEAR_LINE if self._shown else "") + text + "\n" + self._shown)

    def call_ended(self, call: Any, made: int, total: int) -> None:
        """Show a call: always in a log, on a terminal only if it failed."""
        self._calls.append(call)
        if not self.live or call["outcome"] != "ok":
            self.say(result_tables.call_line(made, total, call), bad=call["outcome"] != "ok")

    def phase_ended(self, event: Any) -> None:
        """Show a finished phase on a terminal, below the name of its model."""
        calls, self._calls = self._calls, []
        if self.live and calls:
            if event["model"] not in (None, self._model):
                self._model = event["model"]
                self.say(readable(event["model"]))
            self.say("  " + result_tables.phase_line(event["phase"], calls, event["wall_us"]))

    def show(self, make: Callable[[int], str]) -> None:
        """Replace the live line. make: the line for a width in characters."""
        if not self.live or self._stream is None:
            return
        width = width_of(self._stream) or 80
        with self._lock:
            self._shown = make(width)[:max(width - 1, 20)]
            self._write(CLEAR_LINE + self._shown)

    def end(self) -> None:
        """Remove the live line."""
        with self._lock:
            if self._shown:
                self._shown = ""
                self._write(CLEAR_LINE)

    def _write(self, text: str) -> None:
        if self._stream is not None:
            try:
                encoding = getattr(self._stream, "encoding", None) or "utf-8"
                self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
                self._stream.flush()
            except (OSError, ValueError):
                self._stream = None          # its reader has closed it; the run continues


def understands_escapes(stream: TextIO) -> bool:
    """Switch a Windows console to escape sequences; False if it has none (before Windows 10)."""
    try:
        import ctypes
        import msvcrt
        handle = msvcrt.get_osfhandle(stream.fileno())  # type: ignore[attr-defined,unused-ignore]
        kernel: Any = ctypes.windll.kernel32            # type: ignore[attr-defined,unused-ignore]
        mode = ctypes.c_ulong()
        return bool(kernel.GetConsoleMode(handle, ctypes.byref(mode))
                    and kernel.SetConsoleMode(handle, mode.value | 4))
    except (ImportError, AttributeError, OSError, ValueError):
        return False


def live_line(width: int, done: int, total: int, cell_ids: Sequence[str], reads_per_s: float,
              spent_us: Sequence[int]) -> str:
    """`[###-------] 12/38  5q:json-invoice  83 tok/s  about 4 min left`, for a terminal's width.

    reads_per_s: of all lanes, mostly one token each; spent_us: durations of the calls so far.
    """
    what = printable(", ".join(":".join(i.split(":")[-2:]) for i in cell_ids), max(width - 57, 20))
    left_s = sum(spent_us) / 1e6 / max(len(spent_us), 1) * max(total - done, 0)
    left = f"  about {duration(left_s)} left" if len(spent_us) > 2 else ""
    return f"{_bar(done, total)}  {what}  {reads_per_s:.0f} tok/s{left}"


def _bar(done: int, total: int) -> str:
    filled = BAR * done // max(total, 1)
    return f"[{'#' * filled}{'-' * (BAR - filled)}] {done}/{total}"


# --- after a run ---------------------------------------------------------------------------------
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
    for call in ledger.latest_calls(events):
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
    if any(suites.PHASES[name].kind in ("same", "mixed", "ramp") for name in timeouts):
        lines.append(
            f"Timeouts in {', '.join(sorted(timeouts))}: parallel requests wait for each other. A "
            f"new run with --timeout {LONG_TIMEOUT_S} gives them time. Otherwise leave these "
            "phases out of --phases, pass fewer models to --models, or lower --num-predict and "
            "name that as a deviation.")
    elif timeouts:
        lines.append(f"Timeouts in {', '.join(sorted(timeouts))}: the model is slow. A new run "
                     f"with --timeout {LONG_TIMEOUT_S} gives it time.")
    return Advice(bool(failed) and not again, "\n".join(lines))


def whole_run(options: cli.Options, manifest: Manifest) -> str:
    """The command of a run like a smoke run, but whole."""
    known, default = inherit_options(options, manifest), cli.Options
    shown = {name: getattr(known, name) for name in (
        "target_url", "models", "submitter_handle", "device_tag", "no_hostname")}
    return cli.command_with(
        dataclasses.replace(options, given=options.given & {"out_dir", "api_key_env"}),
        **{name: value for name, value in shown.items() if value != getattr(default, name)})


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


# --- following a run -----------------------------------------------------------------------------
def follow(options: cli.Options, progress: Progress,
           suite_questions: Mapping[str, Sequence[suites.Question]],
           sleep: Callable[[float], None] = time.sleep,
           now_s: Callable[[], float] = time.monotonic) -> int:
    """Show a run's new calls until it ends or the time of --wait is up; return the exit code."""
    seconds, run = options.wait
    until_s = now_s() + cli.wait_seconds(options.wait)
    folder = ledger.find_run(options.out_dir, run)
    if folder is None:
        raise HarnessError(
            f"--wait: no run {printable(run)} in {printable(options.out_dir)}; pass its id and its "
            "--out-dir, or its folder. A run has no folder before its server has loaded")
    options = _with_out_dir(options, run, folder)
    path = os.path.join(folder, ledger.LEDGER)
    manifest, tail = ledger.manifest_of(folder), ledger.Tail(path)
    events = tail.new_events()
    manifest = plan.extended(manifest, events)
    count, shown = Count(plan.all_cells(manifest), None, {}), Shown(manifest["run_id"])
    for event in events:
        count.take(event)
        if progress.live or event["seq"] >= shown.seq:      # a terminal shows whole phases
            _show_event(event, count, progress)
    while True:
        ended = not files.is_locked(path)      # before the read, so that no last line is missed
        for event in tail.new_events():
            count.take(event)
            _show_event(event, count, progress)
        shown.keep(len(tail.events))
        progress.show(lambda _: f"{_bar(count.made, count.total())} calls")
        if ended:
            progress.end()
            shown.forget()
            resume = resume_command(options, manifest)
            return print_end(manifest, tail.events, folder, resume, options)
        if now_s() >= until_s:
            break
        sleep(FOLLOW_EVERY_S)
    progress.end()
    next_wait = cli.next_command(options, manifest["run_id"], seconds) + " --quiet" * options.quiet
    paces = estimates.Paces(manifest, suite_questions)
    for event in tail.events:
        paces.take(event)
    left = count.left_cells()
    found = paces.estimate(left) if left else None
    state = f"still running: {count.made} of {count.total()} calls" + (
        "" if left else ", now testing the server's cache")
    if left:
        state += "\n" + estimate_line(found, manifest["timeout_s"], left=True)
    print_result(options.json, {"run_id": manifest["run_id"], "folder": folder,
                                "exit_code": STILL_RUNNING, "summary": None, "next": next_wait},
                 f"{state}\nnext: {next_wait}")
    return STILL_RUNNING


def _show_event(event: Any, count: Count, progress: Progress) -> None:
    if event["event"] == "call_finished":
        progress.call_ended(event, count.made, count.total())
    elif event["event"] == "phase_finished":
        progress.phase_ended(event)


def _with_out_dir(options: cli.Options, run: str, folder: str) -> cli.Options:
    """The options with the --out-dir of a run that was given by its folder."""
    if folder != run:
        return options
    root = os.path.abspath(os.path.join(folder, "..", "..", ".."))
    return dataclasses.replace(options, out_dir=root, given=options.given | {"out_dir"})


class Shown:
    """How many lines of a run --wait has shown, kept in the temporary folder between two calls."""

    def __init__(self, run_id: str) -> None:
        self._path = os.path.join(tempfile.gettempdir(), f"run-{run_id}.seen")
        try:
            self.seq = int(files.read(self._path) or b"0")
        except (OSError, ValueError):
            self.seq = 0

    def keep(self, seq: int) -> None:
        """Remember that all lines below `seq` were shown."""
        if seq != self.seq:
            self.seq = seq
            with contextlib.suppress(OSError):
                files.write_whole(self._path, str(seq).encode())

    def forget(self) -> None:
        """Forget it, since the run has ended."""
        files.remove(self._path)


def resume_command(options: cli.Options, manifest: Manifest) -> str:
    """The command that resumes the run of a manifest in the background."""
    resume = cli.next_command(inherit_options(options, manifest), manifest["run_id"])
    return f"{resume} --detach"


def is_under_way(out_dir: str, run: str) -> bool:
    """Whether a process holds the run and has written its first line."""
    folder = ledger.find_run(out_dir, run)
    return (folder is not None and ledger.has_lines(folder)
            and files.is_locked(os.path.join(folder, ledger.LEDGER)))


def stop(options: cli.Options) -> int:
    """Ask the process of a run to stop, and wait until it has."""
    run = str(options.stop)
    folder = ledger.find_run(options.out_dir, run)
    if folder is None:
        raise HarnessError(f"--stop: no run {printable(run)} in {printable(options.out_dir)}; pass "
                           "its id and its --out-dir, or its folder")
    path = os.path.join(folder, ledger.LEDGER)
    if not files.is_locked(path):
        raise HarnessError(f"--stop: run {printable(run)} is not active")
    files.write_whole(path + STOP_SUFFIX, b"")
    until_s = time.monotonic() + STOP_WAIT_S
    while files.is_locked(path):
        if time.monotonic() > until_s:
            raise HarnessError(f"--stop: the run has not stopped within {STOP_WAIT_S:.0f} s; use "
                               "the same command again")
        time.sleep(FOLLOW_EVERY_S / 5)
    manifest = ledger.manifest_of(folder)
    following = resume_command(_with_out_dir(options, run, folder), manifest)
    print_result(options.json, {"run_id": manifest["run_id"], "next": following},
                 f"stopped; no finished call is lost\nto resume: {following}")
    return 0
