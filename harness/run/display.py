"""What the runner tells people: lines, tables and estimates, as strings; and the progress display.

Numbers come from metrics.py, words from its tables; nothing is computed or decided here. Whatever a
server wrote passes `printable` before it is shown.
"""
from __future__ import annotations

import argparse
import json
import os
import shlex
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, Callable, NamedTuple, Optional, TextIO

from core import files, ledger, metrics, plan, result_tables, suites
from core.errors import HarnessError, StorageError
from core.text import align_columns, duration, print_safe, printable
from engines import queries

from run import cli
from run.manifest import inherit_options

Json = dict[str, Any]


LIVE_EVERY_S = 0.1
TYPICAL_SHARE = 3                # answers mostly end at about a third of their cap
RED, PLAIN = "\x1b[31m", "\x1b[0m"
CLEAR_LINE = "\r\x1b[2K"


def end_text(summary: Json, folder: str, next_command: str) -> str:
    """The table at the end of a run, what its flags mean, its folder, and what to type next."""
    counts = ", ".join(f"{count} {kind}" for kind, count in summary["counts"].items())
    flags = result_tables.flags_explained(summary)
    return "\n".join([
        "", result_tables.summary_table(summary), "",
        "medians, with the exact 95 % interval of the median across prompts where there is one",
        result_tables.instrument_line(summary), f"calls: {counts or 'none'}",
        *([""] + flags if flags else []), "", f"run folder: {folder}", f"next: {next_command}"])


# --- before a run --------------------------------------------------------------------------------
def plan_text(manifest: Json, calls_count: int, found: Optional[Estimate]) -> str:
    """What would be asked, phase by phase, and how long it may take."""
    rows: list[tuple[str, ...]] = [("phase", "calls", "lanes", "cap", "what")]
    for entry in manifest["plan"]["phases"]:
        name = entry["phase"]
        skipped = plan.skip_reason(name, manifest["models"], manifest["plan"]["lanes"])
        calls = len(plan.cells_of(manifest["plan"], name, manifest["models"][:1], "x"))
        rows.append((name, "0" if skipped else str(calls), str(entry["lanes"]),
                     f"{entry['max_tokens']} tokens", skipped or suites.PHASES[name].text))
    models = ", ".join(map(printable, manifest["models"]))
    return "\n".join([f"models: {models}", *align_columns(rows, right=(1, 2)),
                      f"{calls_count} calls over all models; {estimate_line(found)}"])


class Estimate(NamedTuple):
    """Seconds that planned calls take: at most, by each answer's cap; and as a rule."""

    most_s: float
    typical_s: float


def estimate(manifest: Json, cells: Iterable[plan.Cell],
             hello: Optional[Json]) -> Optional[Estimate]:
    """From a hello's marks; None where it has none. Lanes are taken to share one speed fully. Of an
    answer that came in one piece its whole time stands for both, which tells too much."""
    numbers = metrics.call_metrics(hello) if hello else {}
    if not numbers.get("e2el_ms") or not numbers.get("output_tokens"):
        return None
    token_ms = numbers["tpot_ms"] or numbers["e2el_ms"] / numbers["output_tokens"]
    first_ms = numbers["ttft_ms"] or numbers["e2el_ms"]
    entries = {entry["phase"]: entry for entry in manifest["plan"]["phases"]}
    timeout_s, most, typical = manifest["timeout_s"], 0.0, 0.0
    for cell in cells:
        cap, lanes = entries[cell.phase]["max_tokens"], entries[cell.phase]["lanes"]
        longest_s = (first_ms + cap * token_ms) / 1000
        usual_s = (first_ms + cap / TYPICAL_SHARE * token_ms) / 1000
        most += min(longest_s, timeout_s) / lanes
        typical += min(usual_s, timeout_s) / lanes
    return Estimate(most, typical)


def estimate_line(found: Optional[Estimate]) -> str:
    """The estimate as a sentence."""
    if found is None:
        return "how long it takes cannot be told from this hello"
    return (f"by this hello's speed the calls that follow take about {duration(found.typical_s)}, "
            f"and {duration(found.most_s)} at most")


def begin_line(run_id: str, planned: int, uncalibrated: bool) -> str:
    """What a run says before its first call."""
    return f"run {run_id}: {planned} calls planned" + (
        "" if uncalibrated else "; first this client's own error (3 s)")


def no_endpoint(url: str, failure: Any, found: Sequence[Json]) -> str:
    """What to do where nothing listens. found: what answers at this machine's usual ports."""
    near = [f"  {one['url']}  {printable(one['engine']['name'])}" for one in found]
    return "\n".join([
        f"no endpoint at {printable(url)} ({failure[1] if failure else 'no answer'})",
        *(["found on this machine; type one of them behind --target-url:", *near] if near else
          ["nothing answers at the usual ports of this machine either. One at another port or",
           "address: --target-url http://ADDRESS:PORT, its key: --api-key-env NAME. To start one:",
           queries.start_hint()]),
        "to see everything without a server: python3 harness/run_benchmark.py --rehearse"])


def unwritable(folder: str, error: OSError) -> HarnessError:
    """What to raise where a run's folder cannot be written: a wrong --out-dir, or a full disk."""
    wrong = isinstance(error, (FileExistsError, NotADirectoryError, PermissionError))
    told = f"{printable(folder)} cannot be written ({error.strerror})"
    return (HarnessError(f"--out-dir: {told}; name another folder") if wrong else
            StorageError(f"{told}; make room, or name another folder with --out-dir"))


def refused_key(status: int, keyed: bool) -> str:
    """What to do where the endpoint wants a key, or another one."""
    if keyed:
        return (f"the endpoint refuses the key (HTTP {status}); look at the variable that "
                "--api-key-env names")
    return (f"the endpoint wants a key (HTTP {status}); put it into an environment variable and "
            "type --api-key-env NAME")


def probes_text(found: Sequence[Json], hello: Optional[Json]) -> str:
    """What a probe found, and its hello where there was one endpoint only."""
    last = result_tables.call_line(1, 1, hello) if hello else "several endpoints: choose with --target-url URL"
    return "\n".join([*map(probe_text, found), last])


def context_line(identified: Json) -> str:
    """What to do about a context that is not the one asked for."""
    context = identified["context"]
    return printable(f"{identified['model']}: {context['reason']}. {context['remedy']}", 700)


def probe_text(found: Json) -> str:
    """What a probe found at one URL."""
    engine = found["engine"]
    version = f" {printable(engine['version'])}" if engine["version"] else ""
    lines = [f"{printable(found['url'])}: {printable(engine['name'])}{version}"]
    for model in found["models"]:
        facts, context = model["facts"], model["context"]
        told = [printable(str(facts[name])) for name in ("quantization", "family") if facts[name]]
        if context["effective_tokens"]:
            told.append(f"context {context['effective_tokens']} tokens")
        if facts["trained_context_tokens"]:
            told.append(f"trained for {facts['trained_context_tokens']}")
        if not model["chat"]:
            told.append("does not chat")
        lines.append(f"  {printable(model['id'])}" + (f"  ({', '.join(told)})" if told else ""))
        if context["remedy"]:
            lines.append(f"    {printable(context['remedy'], 500)}")
    if not found["models"]:
        lines.append("  it lists no models: it may still be loading, so probe again; else name one "
                     "with --models")
    return "\n".join(lines)


# --- while it runs -------------------------------------------------------------------------------
class Progress:
    """Lines on standard error; on a terminal one more line that is alive.

    stream: where to; live: a terminal that understands escapes; colour: it may be coloured.
    Safe to be called from several threads.
    """

    def __init__(self, stream: Optional[TextIO], live: bool, colour: bool) -> None:
        self._stream, self.live, self._colour = stream, live, colour
        self._lock = threading.Lock()
        self._shown = ""

    @classmethod
    def on(cls, stream: TextIO, quiet: bool, environment: Any) -> Progress:
        """The progress display that fits a stream and the environment (NO_COLOR, TERM)."""
        terminal = stream.isatty() and environment.get("TERM") != "dumb" and os.name == "posix"
        return cls(None if quiet else stream, terminal and not quiet,
                   terminal and not environment.get("NO_COLOR"))

    def say(self, line: str, bad: bool = False) -> None:
        """One line that stays."""
        if self._stream is None:
            return
        text = f"{RED}{line}{PLAIN}" if bad and self._colour else line
        with self._lock:
            self._write((CLEAR_LINE if self._shown else "") + text + "\n" + self._shown)

    def show(self, make: Callable[[int], str]) -> None:
        """The live line, made for a width; nothing where there is no terminal."""
        if not self.live or self._stream is None:
            return
        try:
            width = os.get_terminal_size(self._stream.fileno()).columns
        except (OSError, ValueError):
            width = 80
        with self._lock:
            self._shown = make(width)[:max(width - 1, 20)]
            self._write(CLEAR_LINE + self._shown)

    def end(self) -> None:
        """Take the live line away."""
        with self._lock:
            if self._shown:
                self._shown = ""
                self._write(CLEAR_LINE)

    def _write(self, text: str) -> None:
        if self._stream is None:             # another thread has just found it closed
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            self._stream = None              # nobody reads any more; the run goes on


def live_line(width: int, done: int, total: int, cell_ids: Sequence[str], reads_per_s: float,
              spent_us: Sequence[int]) -> str:
    """`12/38  5q:json-invoice  83 reads/s  about 4 min left`, for a terminal's width.

    spent_us: what the calls so far took; the rest is taken to go on like them.
    """
    what = printable(", ".join(":".join(i.split(":")[-2:]) for i in cell_ids), max(width - 50, 20))
    left_s = sum(spent_us) / 1e6 / max(len(spent_us), 1) * max(total - done, 0)
    left = f"  about {duration(left_s)} left" if len(spent_us) > 2 else ""
    return f"{done}/{total}  {what}  {reads_per_s:.0f} reads/s{left}"


class Follower:
    """Tells the calls of a run that another process makes, as its lines come."""

    def __init__(self, progress: Progress, planned: int) -> None:
        self._progress, self._planned, self._asked = progress, planned, 0

    def pass_by(self, events: Iterable[Json]) -> None:
        """One line for all the calls that were made before anybody looked."""
        self._asked += sum(event["event"] == "call_finished" for event in events)
        if self._asked:
            self._progress.say(f"{self._count()} before this")

    def tell(self, events: Iterable[Json]) -> None:
        """A line for each new call."""
        for event in events:
            if event["event"] == "call_finished":
                self._asked += 1
                self._progress.say(result_tables.call_line(self._asked, self._planned, event),
                                   bad=event["outcome"] != "ok")

    def text(self) -> str:
        """`12 of 38 calls`; after the last of them come probes of the server's cache."""
        probes = ", the server's cache is being probed" if self._asked >= self._planned else ""
        return self._count() + probes

    def _count(self) -> str:
        return f"{self._asked} of {max(self._planned, self._asked)} calls"


# --- after a run ---------------------------------------------------------------------------------
def following(outcomes: Iterable[str], synthetic: bool, resume: str, folder: str) -> str:
    """What to type after a run that has ended. Prompts that are too long are so again."""
    if not {"ok", "context_limit"}.issuperset(outcomes):
        return f"{resume} --retry-failed"
    if synthetic:
        return "python3 harness/run_benchmark.py --probe"
    return f"python3 harness/complete_submission.py {shlex.quote(folder)}"


def print_end(manifest: Json, events: Sequence[Json], folder: str, resume: str,
             as_json: bool) -> int:
    """Print what a run has come to, and what to type next; its exit code."""
    last, summary = events[-1] if events else None, None
    if last is None or last["event"] != "run_finished":
        code, text = early_end(last, resume)
        command = next_step(code, resume)
    else:
        summary, code = metrics.summarize_run(manifest, events), int(last["exit_code"])
        command = following(last["counts"], manifest["synthetic"], resume, nearby(folder))
        text = end_text(summary, folder, command)
    print_safe(json.dumps({"run_id": manifest["run_id"], "folder": folder, "exit_code": code,
                    "summary": summary, "next": command}) if as_json else text)
    return code


def nearby(path: str) -> str:
    """A path as it may be typed here: relative where it lies below the current folder."""
    here = os.path.join(os.getcwd(), "")
    return path[len(here):] if path.startswith(here) else path


def detached_text(begun: bool, run_id: str, log: str, command: str, as_json: bool) -> str:
    """What is told of a run that was put into the background."""
    if as_json:
        return json.dumps({"run_id": run_id, "begun": begun, "log": log, "next": command})
    state = "goes on in the background" if begun else "has not begun yet; its log tells why"
    return f"run {run_id} {state}\nlog: {log}\nnext: {command}"


def stopped_text(error: Exception) -> str:
    """One line on standard error for what ended the program; OSError: the system's own words."""
    if isinstance(error, OSError):
        told = (error.filename, error.strerror or type(error).__name__)
        return ": ".join(printable(str(part)) for part in told if part)
    return str(error)


def next_step(exit_code: int, resume: str) -> str:
    """What to type after a run that has stopped; calls that met no server are asked again."""
    return resume + " --retry-failed" * (exit_code == 3)


def early_end(last: Optional[Json], resume: str) -> tuple[int, str]:
    """(exit code, text) of a run that nobody writes any more and that has no last line."""
    if last is not None and last["event"] == "run_interrupted":
        code = int(last["exit_code"])
        return code, (f"the run was interrupted: {printable(last['reason'], 400)}\n"
                      f"next: {next_step(code, resume)}")
    return 130, f"the run was killed before its end; nothing finished is lost\nnext: {resume}"

LOOK_EVERY_S = 0.5
STILL_RUNNING = 5                 # exit code


def follow(args: argparse.Namespace, progress: Progress, canonical: dict[str, Any],
           sleep: Callable[[float], None] = time.sleep,
           now_s: Callable[[], float] = time.monotonic) -> int:
    """Tell a run's new calls until it ends (its exit code) or the time is up (5); raises Stop.

    args: parsed, with SECONDS and RUN in `wait`; canonical: the runner's CANONICAL_OPTIONS.
    """
    until_s, run = now_s() + cli.wait_seconds(args), args.wait[1]
    folder = _folder_of(args, run)
    path = os.path.join(folder, ledger.LEDGER)
    manifest, tail = ledger.manifest_of(folder), ledger.Tail(path)
    follower = Follower(progress, len(plan.all_cells(manifest)))
    follower.pass_by(tail.new_events())
    while True:
        over = not files.is_locked(path)     # asked first: what ends meanwhile is read whole
        follower.tell(tail.new_events())
        if over:
            return print_end(manifest, tail.events, folder,
                                   _resume_of(args, canonical, manifest), args.json)
        if now_s() >= until_s:
            _tell_running(args, manifest, folder, follower)
            return STILL_RUNNING
        sleep(LOOK_EVERY_S)


def is_under_way(out_dir: str, run: str) -> bool:
    """Whether a process has taken a run up and a line of it is written."""
    folder = ledger.find_run(out_dir, run)
    return (folder is not None and ledger.has_lines(folder)
            and files.is_locked(os.path.join(folder, ledger.LEDGER)))


def _folder_of(args: argparse.Namespace, run: str) -> str:
    """Where the run is; a folder that was named tells its --out-dir, too."""
    folder = ledger.find_run(args.out_dir, run)
    if folder is None:
        raise HarnessError(f"--wait: no run {printable(run)} below {printable(args.out_dir)} "
                   "(one whose server still loads has no folder yet); type its id or its folder, "
                   "and --out-dir where it had one")
    if folder == run:
        args.out_dir, args.out_dir_typed = os.path.join(folder, "..", "..", ".."), True
        args.out_dir = os.path.abspath(args.out_dir)
    return folder


def _resume_of(args: argparse.Namespace, canonical: dict[str, Any],
               manifest: dict[str, Any]) -> str:
    """The command that goes on with the run; of another machine's endpoint the URL is not known."""
    inherit_options(args, manifest)
    if not args.rehearse:
        args.target_url = args.target_url or "URL"
    return cli.resume_command(args, canonical, manifest["run_id"])


def _tell_running(args: argparse.Namespace, manifest: dict[str, Any], folder: str,
                  follower: Follower) -> None:
    command = cli.wait_command(args, args.wait[0], manifest["run_id"])
    print_safe(json.dumps({"run_id": manifest["run_id"], "folder": folder,
                           "exit_code": STILL_RUNNING, "summary": None, "next": command})
               if args.json else f"still running: {follower.text()}\nnext: {command}")
