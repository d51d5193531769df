#!/usr/bin/env python3
"""Make a finished run a submission: hardware.json, metadata.json and run.md beside its ledger.

  python3 harness/complete_submission.py RUN_DIR
  python3 harness/complete_submission.py RUN_DIR --set backend=cuda --set gpu_offload_ratio=1
  python3 harness/complete_submission.py RUN_DIR --set hardware.memory.type=DDR5 --json

Numbers are computed from run.jsonl, the machine is probed once and kept, and what the server told
is taken from the ledger. What only you can tell is listed, each with where to find it and what to
type. Run it as often as you like: what you declared and wrote is kept, the rest is computed anew.

--set takes a value by its key in hardware.json or metadata.json, or by the key's end where no other
key ends so; null takes a value out. --set host_hostname_short=null takes this machine's name out of
manifest.json, the one change that a manifest allows.

run.md is for your own words, too: between its marks, which are kept, or by --set
run_md.deviations=, --set run_md.notes= and, once you have looked through all five files, --set
run_md.attestation=true.

Where the server runs on another machine than this one, nothing is probed: describe that machine
with --set hardware.*. Where a loopback address leads there through a tunnel, say so with
--set same_machine=false; where a LAN address is this very machine's, with --set same_machine=true.

exit codes:
  0 written, nothing that matters for the ranking is missing; 1 written, but something is;
  2 usage, nothing written; 4 storage, nothing written.
"""
import sys

if sys.version_info < (3, 9):      # above all code that an older Python cannot run
    sys.exit("complete_submission needs Python 3.9 or newer; this is " + sys.version.split()[0])

import contextlib
import hashlib
import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from check import findings, plausibility
from complete import declared as declareds
from complete import metadata, run_md
from core import files, ledger, privacy, privacy_patterns, schema
from core.errors import HarnessError, StorageError
from core.names import this_machine
from core.text import Parser, printable
from machine import inventory, server_process, system

Json = dict[str, Any]
HERE = os.path.dirname(os.path.abspath(__file__))
SUBMISSIONS = os.path.join(os.path.dirname(HERE), "submissions")
HARDWARE, METADATA, PAGE = "hardware.json", "metadata.json", "run.md"
STAGED = ".new"


class Evidence(NamedTuple):
    """What the runner left: the two files that are never made anew."""

    folder: str
    manifest: Json
    events: list[Json]
    sha256: str
    torn_bytes: int


class Earlier(NamedTuple):
    """What an earlier call of this program left; null where there is none."""

    hardware: Optional[Json]
    metadata: Optional[Json]
    words: dict[str, str]


class Made(NamedTuple):
    """A submission's files as they are to be written."""

    manifest: Json
    hardware: Json
    metadata: Json
    page: str


# --- reading -------------------------------------------------------------------------------------
def read_evidence(folder: str, partial: bool) -> Evidence:
    """Manifest and ledger of a run that nobody writes any more; raises Stop and StorageError."""
    path = os.path.join(folder, ledger.LEDGER)
    if not os.path.isfile(os.path.join(folder, ledger.MANIFEST)):
        raise HarnessError(f"{printable(folder)} is no run: it holds no {ledger.MANIFEST}. Name the folder "
                   "of a run, submissions/<handle>/<device-tag>/run-<uuid>")
    if not os.path.isfile(path):
        raise HarnessError(f"{printable(folder)} holds no {ledger.LEDGER}: the run never began")
    try:
        writing = files.is_locked(path)
    except OSError as error:
        raise StorageError(f"{printable(path)} cannot be opened ({error.strerror})") from None
    manifest, state = ledger.load_run(folder)
    if writing:
        raise HarnessError(f"run {manifest['run_id']} is still being written; wait for its end: python3 "
                   f"harness/run_benchmark.py --wait 100 {shlex.quote(printable(folder))}")
    with open(path, "rb") as file:
        data = file.read()
    _refuse_changed(path, state.events, data)
    _refuse_unfinished(folder, manifest, state.events, partial)
    return Evidence(folder, manifest, state.events, hashlib.sha256(data).hexdigest(),
                    len(state.torn))


def _refuse_changed(path: str, events: Sequence[Json], data: bytes) -> None:
    """A ledger that its own seal does not fit is no evidence."""
    before = data[:data.rstrip(b"\n").rfind(b"\n") + 1]
    if metadata.is_finished(events) and hashlib.sha256(before).hexdigest() != events[-1]["sha256"]:
        raise StorageError(f"{printable(path)} was changed after the run: its last line tells "
                           "another SHA-256. Take it from a backup, or begin a new run")


def _refuse_unfinished(folder: str, manifest: Json, events: Sequence[Json], partial: bool) -> None:
    if not events:
        raise HarnessError(f"run {manifest['run_id']} has not written a line; begin it: "
                   + resume_command(folder, manifest))
    missing = len(metadata.missing_cells(manifest, events))
    if metadata.run_class(manifest, events) == "partial" and not partial:
        what = "has not ended" if not metadata.is_finished(events) else "did not ask everything"
        raise HarnessError(f"run {manifest['run_id']} {what} ({missing} planned calls are missing). Go on "
                   f"with it: {resume_command(folder, manifest)} -- or add --partial to complete "
                   "it as it is")


def resume_command(folder: str, manifest: Json) -> str:
    """What to type to go on with a run. Addresses of other machines are not kept, hence the URL."""
    words = ["python3", "harness/run_benchmark.py", "--run-id", manifest["run_id"]]
    if manifest["target"]["class"] != "loopback":
        words += ["--target-url", "URL"]
    words += ["--api-key-env", "NAME"] if manifest.get("api_key_used") else []
    out_dir = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(folder))))
    words += ["--out-dir", out_dir] if out_dir != SUBMISSIONS else []
    return printable(shlex.join(words), 1000)


def read_earlier(folder: str) -> Earlier:
    """What an earlier call left; raises StorageError where it was broken since."""
    return Earlier(_read_json(folder, HARDWARE), _read_json(folder, METADATA), _read_words(folder))


def _read_bytes(path: str) -> Optional[bytes]:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"{printable(path)} cannot be read ({error.strerror})") from None


def _read_json(folder: str, name: str) -> Optional[Json]:
    path = os.path.join(folder, name)
    data = _read_bytes(path)
    if data is None:
        return None
    remedy = "mend it, or delete it to have it made anew (what was declared in it is lost)"
    try:
        found = schema.strict_json(data)
    except ValueError as error:
        raise StorageError(f"{printable(path)} {error}; {remedy}") from None
    wrong = schema.validate(found, name.partition(".")[0])
    if wrong:
        raise StorageError(f"{printable(path)}: {printable(wrong[0].path)}: {wrong[0].message}; "
                           f"{remedy}")
    return dict(found)


def _read_words(folder: str) -> dict[str, str]:
    path = os.path.join(folder, PAGE)
    data = _read_bytes(path)
    try:
        return {} if data is None else run_md.read_sections(data.decode("utf-8"))
    except ValueError as error:
        raise StorageError(f"{printable(path)}: {printable(str(error))}; put it back, or delete "
                           "the file to have it made anew (your words in it are lost)") from None


# --- privacy -------------------------------------------------------------------------------------
Names = Sequence[privacy.MachineName]


class Private(NamedTuple):
    """Something that must not be published, where it stands, and what to do."""

    where: str
    what: str


def guard_hardware(document: Json, names: Names) -> None:
    """Take out what was probed and is private; raises Stop where it was declared."""
    for key, item, hit in _private(document, (), names):
        if item["source"] == "declared":
            raise HarnessError(f"hardware.{key}: {_about(hit)}")
        item.update(metadata.unknown(declareds.PRIVATE))


def guard_metadata(document: Json, names: Names) -> list[Private]:
    """What is private and stands in the run's own files, too; raises Stop where it was declared."""
    found = []
    for key, item, hit in _private(document, {document["run_id"]}, names):
        if item.get("source") == "declared":
            raise HarnessError(f"metadata.{key}: {_about(hit)}")
        found.append(Private(f"metadata.{printable(key)}", _about(hit) + " The run's own files "
                             "hold it, too: serve the model under another name, and run again."))
    return found


def _private(document: Json, allowed: Iterable[str],
             names: Names) -> Iterator[tuple[str, Json, privacy.Hit]]:
    """(dotted key, its value or {}, what was found) for all that is private in a document."""
    values = dict(metadata.values(document))
    for path, hit in privacy.scan_json(document, allowed=allowed, names=names):
        place = re.sub(r"\[(\d+)\]", r".\1", path)
        key = place.rpartition(".")[0]
        yield (key, values[key], hit) if key in values else (place, {}, hit)


def guard_words(words: Mapping[str, str], run_id: str, names: Names) -> None:
    """Raises Stop where the contributor's words in run.md hold something private."""
    for name, text in words.items():
        for hit in privacy.scan(text, allowed={run_id}, names=names):
            raise HarnessError(f"{PAGE}, run_md.{name}: {_about(hit)}")


def _about(hit: privacy.Hit) -> str:
    return (f"{printable(hit.excerpt)} must not be published ({hit.pattern_id}). {hit.why} "
            f"{privacy_patterns.REMEDIES[hit.kind]}")


# --- making --------------------------------------------------------------------------------------
class Settings(NamedTuple):
    """What --set said. values: {key: value, None for null}; words: for run.md, by their names."""

    values: dict[str, Any]
    words: dict[str, str]
    no_host_name: bool


def read_settings(typed: Sequence[str], models: int) -> Settings:
    """Every KEY=VALUE; raises Stop."""
    values: dict[str, Any] = {}
    words: dict[str, str] = {}
    no_host_name = False
    for word in typed:
        key, equals, text = word.partition("=")
        if not equals:
            raise HarnessError(f"--set {printable(word, 80)}: type KEY=VALUE")
        if key in (declareds.HOST_NAME, "manifest." + declareds.HOST_NAME):
            if text != "null":
                raise HarnessError(f"--set {declareds.HOST_NAME}: a manifest allows one change, to take "
                           f"the name out; type --set {declareds.HOST_NAME}=null")
            no_host_name = True
        elif key.startswith("run_md."):
            words.update(_said_word(key, text))
        else:
            found = declareds.resolve(key, models)
            values[found] = declareds.parse(found, text)
    return Settings(values, words, no_host_name)


def _said_word(key: str, text: str) -> dict[str, str]:
    name = key.partition(".")[2]
    if name not in run_md.SECTIONS:
        raise HarnessError(f"--set {printable(key)}: {PAGE} has places for "
                   + ", ".join(f"run_md.{place}" for place in run_md.SECTIONS))
    try:
        return {name: run_md.section_text(name, text)}
    except ValueError as error:
        raise HarnessError(f"--set {key}: {error}") from None


def make(evidence: Evidence, earlier: Earlier, said: Settings, machine: system.Machine,
         reprobe: bool, names: Names) -> tuple[Made, list[Private]]:
    """The files of a submission, and what in them is private and came from the run; raises Stop."""
    manifest, words = {**evidence.manifest}, {**earlier.words, **said.words}
    # A login is often a part of the handle, and that is published anyway.
    names = (*names, privacy.MachineName(privacy_patterns.PUBLIC, manifest["submitter_handle"]))
    if said.no_host_name:
        manifest[declareds.HOST_NAME] = None
    declared = declareds.add(metadata.declared_in(earlier.metadata),
                               declareds.of_file(said.values, "metadata"))
    here = bool(metadata.endpoint_of(manifest, declared)["same_machine"]["value"])
    host = make_hardware(manifest, earlier, here, machine, reprobe)
    host = declareds.declare(host, declareds.of_file(said.values, "hardware"))
    guard_hardware(host, names)
    found = metadata.build(manifest, evidence.events, evidence.sha256, host, declared)
    private = guard_metadata(found, names)
    guard_words(words, manifest["run_id"], names)
    page = run_md.render_run_md(manifest, found, host, words, evidence.events)
    return Made(manifest, host, found, page), private


def make_hardware(manifest: Json, earlier: Earlier, here: bool, machine: system.Machine,
                  reprobe: bool) -> Json:
    """hardware.json before new declarations: kept, or probed where the server runs on this machine.

    What was probed on one machine never stands for another: with a server elsewhere it is left out.
    """
    was_here = earlier.metadata is None or bool(
        earlier.metadata["endpoint"]["same_machine"]["value"])
    if earlier.hardware is not None and was_here == here and not reprobe:
        return earlier.hardware
    if here and (machine.system, machine.architecture) != (
            manifest["os"]["system"], manifest["os"]["machine"]):
        there = printable(f"{manifest['os']['system']} {manifest['os']['machine']}")
        raise HarnessError(f"this run was made on another machine ({there}) than this one "
                   f"({machine.system} {machine.architecture}): complete it there, or type --set "
                   "same_machine=false and describe the server's machine with --set hardware.*")
    fresh = inventory.inventory(machine) if here else declareds.elsewhere(manifest["python"])
    return declareds.declare(fresh, metadata.declared_in(earlier.hardware))


# --- writing -------------------------------------------------------------------------------------
def write_all(folder: str, contents: Mapping[str, bytes]) -> None:
    """Files that are all there or, where one cannot be written, none; raises StorageError."""
    paths = {os.path.join(folder, name): data for name, data in contents.items()}
    try:
        for path, data in paths.items():
            files.write_whole(path + STAGED, data)
        for path in paths:
            os.replace(path + STAGED, path)
    except OSError as error:
        for path in paths:
            with contextlib.suppress(OSError):
                os.unlink(path + STAGED)
        raise StorageError(f"{printable(folder)} cannot be written ({error.strerror}); make room, "
                           "or look at its permissions") from None


def contents_of(made: Made, no_host_name: bool) -> dict[str, bytes]:
    """The bytes of the files to write; the manifest only where its host name is taken out."""
    contents = {HARDWARE: ledger.dump_document(made.hardware),
                METADATA: ledger.dump_document(made.metadata), PAGE: made.page.encode("utf-8")}
    if no_host_name:
        contents[ledger.MANIFEST] = ledger.dump_document(made.manifest)
    return contents


# --- telling -------------------------------------------------------------------------------------
class Told(NamedTuple):
    """What a call came to."""

    folder: str
    run_class: str
    written: list[str]
    asks: list[declareds.Ask]
    private: list[Private]
    warnings: list[str]
    notes: list[str]
    following: str
    server: Optional[server_process.Started]

    @property
    def exit_code(self) -> int:
        """1 where something important is missing or private."""
        return int(bool(self.private) or any(ask.important for ask in self.asks))


def tell(evidence: Evidence, made: Made, written: list[str], private: list[Private],
         server: Optional[server_process.Started]) -> Told:
    """What was written, what is missing, what to type next."""
    shown = shlex.quote(printable(_short(evidence.folder), 1000))
    asks = declareds.asks(made.metadata, made.hardware, server is not None)
    words, notes = run_md.read_sections(made.page), []
    if made.manifest[declareds.HOST_NAME] is not None:
        notes.append(f"manifest.json publishes this machine's name; to take it out: --set "
                     f"{declareds.HOST_NAME}=null")
    endpoint = made.metadata["endpoint"]
    if endpoint["class"] == "lan" and endpoint["same_machine"]["source"] == "computed":
        notes.append("the server counts as another machine's, since its address is no loopback "
                     "one; if it is this very machine's: --set same_machine=true")
    if evidence.torn_bytes:
        notes.append(f"{ledger.LEDGER} ends in {evidence.torn_bytes} bytes of a torn line; going "
                     "on with the run sets them aside")
    unwritten = [name for name in ("deviations", "notes") if run_md.is_unwritten(words, name)]
    if unwritten or run_md.unticked_statements(words):
        notes.append(f"{PAGE} waits for your words ({', '.join([*unwritten, 'attestation'])}): "
                     "write between its marks and tick what is true, or type --set run_md.NAME=TEXT "
                     "and, once you have looked through all five files, "
                     "--set run_md.attestation=true")
    needed = [ask for ask in asks if ask.important]
    wanted = " ".join(ask.form for ask in needed)
    # What says that the files were looked through comes after that.
    only = "--privacy " if run_md.unticked_statements(words) else ""
    following = (f"python3 harness/complete_submission.py {shown} {wanted}" if needed else
                 f"python3 harness/check_submission.py {only}{shown}")
    return Told(evidence.folder, made.metadata["run"]["class"], written, asks, private,
                _warnings(evidence, made), notes, following, _undeclared(server, asks))


def _warnings(evidence: Evidence, made: Made) -> list[str]:
    """What the check will ask a reader to look at, so that the words can explain it at once."""
    problems = plausibility.problems(evidence.events, made.metadata, made.hardware)
    return [printable(f"{code}: {what}; {findings.CODES[code].remedy}", 400) for code, what in problems]


def _undeclared(server: Optional[server_process.Started],
                asks: Iterable[declareds.Ask]) -> Optional[server_process.Started]:
    """What the process tells of what is still asked for, in a form that is taken."""
    missing = [ask.key for ask in asks]
    return server and server._replace(settings={
        key: text for key, text in server.settings.items()
        for asked in missing if asked.endswith("." + key) and _is_taken(asked, text)})


def _is_taken(key: str, text: str) -> bool:
    try:
        declareds.parse(key, text)
    except HarnessError:
        return False
    return True


def find_server(made: Made, machine: system.Machine,
                names: Names) -> Optional[server_process.Started]:
    """How the server was started, where it runs on this machine; null where that is not told, or
    was declared."""
    target, endpoint = made.manifest["target"], made.metadata["endpoint"]
    declared = made.metadata["runtime"]["launch_flags"]["value"] is not None
    if declared or target["port"] is None or not endpoint["same_machine"]["value"]:
        return None
    models = made.metadata["models"]
    several = len(models) > 1         # then the process does not tell whose file it is
    started = server_process.started(machine, target["port"], endpoint["engine"]["name"], names,
                                     not several and models[0]["digest"]["value"] is None)
    return started and started._replace(settings={
        key: text for key, text in started.settings.items()
        if not (several and key.startswith("models."))})


def _short(folder: str) -> str:
    try:
        return os.path.relpath(folder)
    except ValueError:               # on Windows, another drive
        return os.path.abspath(folder)


def as_text(told: Told) -> str:
    """For people."""
    lines = [f"written: {', '.join(told.written)} in {printable(told.folder, 1000)}",
             f"class: {told.run_class}"]
    proposed = told.server.settings if told.server else {}
    for important, title in ((True, "Missing, and the run is not ranked without:"),
                             (False, "Only you can tell; leave out what you do not know:")):
        chosen = [ask for ask in told.asks if ask.important == important
                  and not any(ask.key.endswith("." + key) for key in proposed)]
        lines += ["", title] if chosen else []
        for ask in chosen:
            lines += [f"  {ask.form}   {ask.takes}", f"      {ask.what}. Look at: {ask.how}"]
    if told.server and proposed:
        lines += ["", "The server's command line as it is now, without folders, addresses and "
                  "keys:", "  " + printable(told.server.line, 1000),
                  "  If it ran like this all the time, declare: " + " ".join(
                      f"--set {key}={shlex.quote(printable(text, 400))}"
                      for key, text in proposed.items())]
    lines += ["", "Must not be published:"] if told.private else []
    lines += [f"  {found.where}: {found.what}" for found in told.private]
    lines += ["", "The check will ask readers to look at (say in your words what explains it):"] \
        if told.warnings else []
    lines += [f"  {warning}" for warning in told.warnings]
    return "\n".join([*lines, "", *(f"note: {note}" for note in told.notes),
                      f"next: {told.following}"])


def as_json(told: Told, made: Made) -> str:
    """For programs: one document."""
    return json.dumps({
        "run_id": made.manifest["run_id"], "folder": told.folder, "class": told.run_class,
        "exit_code": told.exit_code, "written": told.written,
        "missing": [ask.key for ask in told.asks if ask.important],
        "asks": [{**ask._asdict(), "set": ask.form} for ask in told.asks],
        "private": [found._asdict() for found in told.private],
        "warnings": told.warnings, "notes": told.notes,
        "server": told.server and told.server._asdict(), "next": told.following})


# --- the command ---------------------------------------------------------------------------------
def complete(folder: str, settings: Sequence[str] = (), partial: bool = False,
             reprobe: bool = False, machine: Optional[system.Machine] = None,
             names: Optional[Names] = None) -> tuple[Told, Made]:
    """Write the three files of a run's folder; raises Stop and StorageError, then nothing changed.

    machine, names: this machine and what it is called, unless a test hands in others.
    """
    evidence = read_evidence(folder, partial)
    said = read_settings(settings, len(evidence.manifest["models"]))
    here = machine or system.Machine()
    called = this_machine() if names is None else names
    made, private = make(evidence, read_earlier(folder), said, here, reprobe, called)
    contents = contents_of(made, said.no_host_name)
    write_all(folder, contents)
    return tell(evidence, made, sorted(contents), private, find_server(made, here, called)), made


def build_parser() -> Parser:
    """The command line."""
    parser = Parser("complete_submission", __doc__, "RUN_DIR [options]")
    parser.add_argument("folder", metavar="RUN_DIR", help="folder of a finished run")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="settings",
                        help="declare a value, or take it out with null; may be repeated")
    parser.add_argument("--partial", action="store_true",
                        help="complete a run that has not ended, as class partial")
    parser.add_argument("--reprobe", action="store_true",
                        help="probe this machine again; what was declared stays")
    parser.add_argument("--json", action="store_true",
                        help="print one JSON document on standard output")
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    args = build_parser().parse_args(argv)
    try:
        told, made = complete(args.folder, args.settings, args.partial, args.reprobe)
    except HarnessError as stop:
        print(f"complete_submission: {stop}", file=sys.stderr)
        return stop.exit_code
    print(as_json(told, made) if args.json else as_text(told))
    return told.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
