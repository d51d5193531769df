#!/usr/bin/env python3
"""Turn a finished run into a submission: add hardware.json, metadata.json and run.md.

  python3 harness/complete_submission.py RUN_DIR
  python3 harness/complete_submission.py RUN_DIR --set metadata.runtime.backend=cuda
  python3 harness/complete_submission.py RUN_DIR --set hardware.memory.type=DDR5 --json

The numbers are computed from run.jsonl. The machine is probed once; --reprobe probes it again. The
program lists the values that only you can provide, each with where to find it and what to type. You
can run it as often as you like: it keeps what you declared and wrote, and recomputes the rest.

--set KEY=VALUE declares a value of hardware.json or metadata.json, or writes a section of run.md;
--set KEY=null removes it. A key is the file's name and the path in it. Keys of run.md are
run_md.deviations, run_md.notes and, once you have reviewed all five files, run_md.attestation=true;
you can also edit run.md between its comments. manifest.json allows one change:
--set manifest.host_hostname_short=null removes the machine's name.

If the server runs on another machine, nothing is probed: describe that machine with --set
hardware.*. If a loopback address leads to another machine through a tunnel, add
--set metadata.endpoint.same_machine=false; if a LAN address is this machine's own, =true.

exit codes:
  0 written, complete enough for a ranking; 1 written, but a value that a ranking needs is missing,
  or something private was found; 2 usage, nothing written; 4 storage, nothing written.
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
from typing import Any, Callable, NamedTuple, Optional, cast

from check import findings, plausibility
from complete import declared, metadata, run_md
from core import files, ledger, privacy, privacy_patterns, schema
from core.errors import HarnessError, StorageError
from core.names import this_machine
from core.records import LedgerLine, Manifest, Metadata
from core.text import Parser, command, printable
from machine import inventory, server_process, system
from run import cli

SUBMISSIONS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                           "submissions")
HARDWARE, METADATA, PAGE = "hardware.json", "metadata.json", "run.md"
HOST_NAME = "manifest.host_hostname_short"
STAGED = ".new"
Names = Sequence[privacy.MachineName]


class Evidence(NamedTuple):
    """Manifest and ledger of a run. sha256: of the bytes of run.jsonl."""

    folder: str
    manifest: Manifest
    events: Sequence[LedgerLine]
    sha256: str
    torn_bytes: int


class Settings(NamedTuple):
    """What --set declares. values: {key: value, or None}; sections: of run.md, by their names."""

    values: dict[str, Any]
    sections: dict[str, str]
    remove_host_name: bool


class Submission(NamedTuple):
    """The contents of a submission's files, the ledger excepted."""

    manifest: Manifest
    hardware: dict[str, Any]
    metadata: Metadata
    page: str


# --- reading -------------------------------------------------------------------------------------
def read_evidence(folder: str, partial: bool) -> Evidence:
    """Manifest and ledger of a run that has ended. Raises HarnessError and StorageError."""
    shown, path = printable(folder, 1000), os.path.join(folder, ledger.LEDGER)
    for name in (ledger.MANIFEST, ledger.LEDGER):
        if not os.path.isfile(os.path.join(folder, name)):
            raise HarnessError(f"{shown} is not the folder of a run: {name} is missing; type a "
                               "folder submissions/<handle>/<device-tag>/run-<uuid>")
    try:
        is_running = files.is_locked(path)
    except OSError as error:
        raise StorageError(f"{printable(path)} cannot be opened ({error.strerror})") from None
    loaded, state = ledger.load_run(folder)
    manifest, events = cast(Manifest, loaded), cast("list[LedgerLine]", state.events)
    if is_running:
        raise HarnessError(f"run {manifest['run_id']} is still running; wait for its end: "
                           + command("run_benchmark", "--wait", "100", shown))
    data = files.read(path)
    _require_unchanged(path, events, data)
    if not events or (metadata.run_class(manifest, events) == "partial" and not partial):
        missing = len(metadata.missing_cells(manifest, events))
        resume = printable(cli.next_command(_options(folder, manifest), manifest["run_id"]), 1000)
        # Neither the address of another machine nor the name of the key's variable is recorded.
        again = ["--target-url"] * (manifest["target"]["class"] != "loopback")
        again += ["--api-key-env"] * bool(manifest.get("api_key_used"))
        hint = f" (with {' and '.join(again)} as before)" if again else ""
        hint += "; or add --partial to complete it as it is" if events else ""
        raise HarnessError(f"run {manifest['run_id']} is not finished ({missing} planned calls are "
                           f"missing); resume it: {resume}{hint}")
    return Evidence(folder, manifest, events, hashlib.sha256(data).hexdigest(), len(state.torn))


def _require_unchanged(path: str, events: Sequence[LedgerLine], data: bytes) -> None:
    """Compare a finished ledger with the SHA-256 in its last line."""
    sealed = data[:data.rstrip(b"\n").rfind(b"\n") + 1]
    last = events[-1] if events else None
    if last and last["event"] == "run_finished" and \
            hashlib.sha256(sealed).hexdigest() != last["sha256"]:
        raise StorageError(f"{printable(path)} was changed after the run: the SHA-256 in its last "
                           "line differs; restore it from a backup, or start a new run")


def _options(folder: str, manifest: Manifest) -> cli.Options:
    """The runner's options that resume a run, as far as its manifest holds them."""
    out_dir = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(folder))))
    return cli.Options(**manifest["canonical_options"], out_dir=out_dir,
                       rehearse=manifest["synthetic"],
                       given=frozenset(() if out_dir == SUBMISSIONS else ("out_dir",)))


def _read(folder: str, name: str, parse: Callable[[bytes], Any]) -> Any:
    """A file that an earlier call wrote, or None. Raises StorageError."""
    path = os.path.join(folder, name)
    try:
        data = files.read(path)
        return parse(data) if data else None
    except ValueError as error:
        raise StorageError(f"{printable(path)}: {printable(str(error))}; fix it, or delete the "
                           "file to start again without what you declared or wrote in it") from None
    except OSError as error:
        raise StorageError(f"{printable(path)} cannot be read ({error.strerror})") from None


def _read_json(folder: str, name: str) -> Any:
    def parse(data: bytes) -> Any:
        document = schema.strict_json(data)
        for found in schema.validate(document, name.partition(".")[0]):
            raise ValueError(f"{found.path}: {found.message}")
        return document

    return _read(folder, name, parse)


def read_settings(typed: Sequence[str], models: int) -> Settings:
    """The KEY=VALUE of every --set. Raises HarnessError."""
    settings = Settings({}, {}, any(text == f"{HOST_NAME}=null" for text in typed))
    for word in typed:
        key, equals, text = word.partition("=")
        name = key.partition(".")[2]
        if not equals:
            raise HarnessError(f"--set {printable(word, 80)}: the value is missing; type KEY=VALUE")
        if key.startswith("run_md."):
            if name not in run_md.SECTIONS:
                keys = ", ".join(f"run_md.{section}" for section in run_md.SECTIONS)
                raise HarnessError(f"--set {printable(key)}: there is no such section; run.md has "
                                   f"{keys}")
            try:
                settings.sections[name] = run_md.section_text(name, text)
            except ValueError as error:
                raise HarnessError(f"--set {key}: {error}") from None
        elif key != HOST_NAME:
            declared.require_key(key, models)
            settings.values[key] = declared.parse(key, text)
        elif text != "null":
            raise HarnessError(f"--set {key}: the name can only be removed; type {key}=null")
    return settings


# --- privacy -------------------------------------------------------------------------------------
def _private_texts(document: Any, allowed: Iterable[str],
                   names: Names) -> Iterator[tuple[str, Any, str]]:
    """(dotted key, the value or {}, what to do) for everything private in a document."""
    values = dict(metadata.values(document))
    for path, hit in privacy.scan_json(document, allowed=allowed, names=names):
        place = re.sub(r"\[(\d+)\]", r".\1", path)
        key = place.rpartition(".")[0]
        yield (key, values[key], _about(hit)) if key in values else (place, {}, _about(hit))


def _about(hit: privacy.Hit) -> str:
    return (f"{printable(hit.excerpt)} must not be published ({hit.pattern_id}). {hit.why} "
            f"{privacy_patterns.REMEDIES[hit.kind]}")


def remove_private(hardware: Any, names: Names) -> None:
    """Replace private probed values with null. Raises HarnessError for declared ones."""
    for key, item, what in _private_texts(hardware, (), names):
        if item["source"] == "declared":
            raise HarnessError(f"hardware.{key}: {what}")
        item.update(metadata.unknown(declared.PRIVATE))


def find_private(document: Metadata, sections: Mapping[str, str],
                 names: Names) -> list[str]:
    """What metadata.json repeats from the run's own files. Raises HarnessError for what the
    contributor declared or wrote.
    """
    found = []
    for key, item, what in _private_texts(document, {document["run_id"]}, names):
        if item.get("source") == "declared":
            raise HarnessError(f"metadata.{key}: {what}")
        found.append(f"metadata.{printable(key)}: {what} The run's own files hold it, too: serve "
                     "the model under another name, and run again.")
    for name, text in sections.items():
        for hit in privacy.scan(text, allowed={document["run_id"]}, names=names):
            raise HarnessError(f"{PAGE}, {name}: {_about(hit)}")
    return found


# --- building and writing ------------------------------------------------------------------------
def build_submission(evidence: Evidence, settings: Settings, machine: system.Machine,
                     reprobe: bool, names: Names) -> tuple[Submission, list[str]]:
    """A submission, and the private texts in it that come from the run. Raises HarnessError."""
    manifest = evidence.manifest.copy()
    earlier_hardware = _read_json(evidence.folder, HARDWARE)
    earlier_metadata = _read_json(evidence.folder, METADATA)
    sections = _read(evidence.folder, PAGE, lambda data: run_md.read_sections(data.decode())) or {}
    sections.update(settings.sections)
    # A login is often a part of the handle, which is published anyway.
    names = (*names, privacy.MachineName(privacy_patterns.PUBLIC, manifest["submitter_handle"]))
    if settings.remove_host_name:
        manifest["host_hostname_short"] = None
    declarations = declared.merge(metadata.declared_in(earlier_metadata),
                                  declared.of_file(settings.values, "metadata"))
    is_local = bool(metadata.endpoint_of(manifest, declarations)["same_machine"]["value"])
    was_local = earlier_metadata is None or bool(
        earlier_metadata["endpoint"]["same_machine"]["value"])
    hardware = earlier_hardware
    if hardware is None or was_local != is_local or reprobe:
        fresh = _probe(manifest, machine) if is_local else declared.remote_hardware(
            dict(cast("dict[str, str]", manifest["python"])))
        hardware = declared.declare(fresh, metadata.declared_in(earlier_hardware))
    hardware = declared.declare(hardware, declared.of_file(settings.values, "hardware"))
    remove_private(hardware, names)
    document = metadata.build(manifest, evidence.events, evidence.sha256, hardware, declarations)
    private = find_private(document, sections, names)
    page = run_md.render_run_md(manifest, document, hardware, sections, evidence.events)
    return Submission(manifest, hardware, document, page), private


def _probe(manifest: Manifest, machine: system.Machine) -> dict[str, Any]:
    """hardware.json of this machine, which must be the one that made the run."""
    ran_on = (manifest["os"]["system"], manifest["os"]["machine"])
    if ran_on != (machine.system, machine.architecture):
        raise HarnessError(
            f"the run was made on another machine ({printable(' '.join(map(str, ran_on)))}) than "
            f"this one ({machine.system} {machine.architecture}); complete it there, or type --set "
            "metadata.endpoint.same_machine=false and describe the machine with --set hardware.*")
    return inventory.inventory(machine)


def write_all(folder: str, contents: Mapping[str, bytes]) -> None:
    """Write all files, or none if one cannot be written. Raises StorageError."""
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
        raise StorageError(f"{printable(folder)} cannot be written ({error.strerror}); free some "
                           "space, or check the folder's permissions") from None


# --- the report ----------------------------------------------------------------------------------
class Report(NamedTuple):
    """What was written, what is missing, and what to type next. server_line: the server's command
    line without private parts; proposed: {key: text} that it shows and nobody has declared yet.
    """

    run_id: str
    folder: str
    run_class: str
    written: list[str]
    to_declare: list[declared.MissingValue]
    private: list[str]
    warnings: list[str]
    notes: list[str]
    next: str
    server_line: Optional[str]
    proposed: dict[str, str]

    @property
    def exit_code(self) -> int:
        """1 if something is private, or a value that a ranking needs is missing."""
        return int(bool(self.private) or any(one.important for one in self.to_declare))


def make_report(evidence: Evidence, made: Submission, written: list[str],
                private: list[str], server: Optional[server_process.Started]) -> Report:
    """The report of a submission. server: how the server was started, if that is known."""
    try:
        folder = printable(os.path.relpath(evidence.folder), 1000)
    except ValueError:               # on Windows, another drive
        folder = printable(os.path.abspath(evidence.folder), 1000)
    missing = declared.missing_values(made.metadata, made.hardware, server is not None)
    sections = run_md.read_sections(made.page)
    check = ["--privacy"] if run_md.unticked_statements(sections) else []
    important = [word for one in missing if one.important for word in one.option.split()]
    following = (command("complete_submission", folder, *important) if important else
                 command("check_submission", *check, folder))
    # What the check will ask reviewers to look at, so that the notes can explain it.
    warnings = [printable(f"{code}: {what}; {findings.CODES[code].remedy}", 400)
                for code, what in plausibility.problems(evidence.events, made.metadata,
                                                        made.hardware)]
    return Report(
        made.manifest["run_id"], evidence.folder, made.metadata["run"]["class"], written, missing,
        private, warnings, _notes(evidence, made, sections, folder), following,
        server.line if server else None, _proposed(server, missing))


def _notes(evidence: Evidence, made: Submission, sections: Mapping[str, str],
           folder: str) -> list[str]:
    """What the contributor should look at, each with the command to type."""
    def again(setting: str) -> str:
        return command("complete_submission", folder, "--set", setting)

    notes, endpoint = [], made.metadata["endpoint"]
    if made.manifest["host_hostname_short"] is not None:
        notes.append(f"manifest.json publishes this machine's name; to remove it: "
                     f"{again(f'{HOST_NAME}=null')}")
    if endpoint["class"] == "lan" and endpoint["same_machine"]["source"] == "computed":
        notes.append("the server's address is not a loopback address, so its machine counts as "
                     "another one; if it is this machine: "
                     f"{again('metadata.endpoint.same_machine=true')}")
    if evidence.torn_bytes:
        notes.append(f"{ledger.LEDGER} ends in an incomplete line of {evidence.torn_bytes} bytes; "
                     "resuming the run sets it aside")
    unwritten = [name for name in ("deviations", "notes") if run_md.is_unwritten(sections, name)]
    if unwritten or run_md.unticked_statements(sections):
        notes.append(f"{PAGE} needs your notes ({', '.join([*unwritten, 'attestation'])}): write "
                     "between its comments and tick what is true, or use --set run_md.NAME=TEXT "
                     "and, once you have reviewed all five files, "
                     f"{again('run_md.attestation=true')}")
    return notes


def find_server(made: Submission, machine: system.Machine,
                names: Names) -> Optional[server_process.Started]:
    """How the server was started; None if it is remote, unknown, or declared already."""
    port, models = made.manifest["target"]["port"], made.metadata["models"]
    endpoint, flags = made.metadata["endpoint"], made.metadata["runtime"]["launch_flags"]
    if flags["value"] is not None or port is None or not endpoint["same_machine"]["value"]:
        return None
    several = len(models) > 1         # the process does not show which one its file belongs to
    started = server_process.started(machine, port, endpoint["engine"]["name"], names,
                                     not several and models[0]["digest"]["value"] is None)
    return started and started._replace(settings={
        key: text for key, text in started.settings.items()
        if not (several and key.startswith("models."))})


def _proposed(server: Optional[server_process.Started],
              missing: Iterable[declared.MissingValue]) -> dict[str, str]:
    """{key: text} of the server's settings that are missing, if --set accepts them."""
    proposed = {}
    for one in missing:
        for key, text in server.settings.items() if server else ():
            if one.key.endswith("." + key):
                with contextlib.suppress(HarnessError):
                    declared.parse(one.key, text)
                    proposed[one.key] = text
    return proposed


def as_text(report: Report) -> str:
    """The report for people."""
    lines = [f"written: {', '.join(report.written)} in {printable(report.folder, 1000)}",
             f"class: {report.run_class}"]
    for important, title in (
            (True, "Missing, and the run is not ranked without:"),
            (False, "Only you can provide these; leave out what you do not know:")):
        chosen = [one for one in report.to_declare if one.important == important
                  and one.key not in report.proposed]
        lines += ["", title] if chosen else []
        for one in chosen:
            lines += [f"  {one.option}   {one.accepts}", f"      {one.what}. See: {one.where}"]
    if report.server_line is not None and report.proposed:
        options = " ".join(f"--set {key}={shlex.quote(printable(text, 400))}"
                           for key, text in report.proposed.items())
        lines += ["", "The server's command line now, without folders, addresses and keys:",
                  f"  {printable(report.server_line, 1000)}",
                  f"  If it did not change during the run, declare: {options}"]
    for title, found in (
            ("Must not be published:", report.private),
            ("The check will ask reviewers to look at this; explain it in your notes:",
             report.warnings)):
        lines += ["", title, *(f"  {line}" for line in found)] if found else []
    return "\n".join([*lines, "", *(f"note: {note}" for note in report.notes),
                      f"next: {report.next}"])


def as_json(report: Report) -> str:
    """The report for programs."""
    return json.dumps({
        **report._asdict(), "exit_code": report.exit_code,
        "missing": [one.key for one in report.to_declare if one.important],
        "to_declare": [{**one._asdict(), "set": one.option} for one in report.to_declare]})


# --- the command ---------------------------------------------------------------------------------
def complete(folder: str, settings: Sequence[str] = (), partial: bool = False,
             reprobe: bool = False, machine: Optional[system.Machine] = None,
             names: Optional[Names] = None) -> Report:
    """Write the three files of a run. Raises HarnessError and StorageError; then nothing changed.

    machine, names: this machine and its names, unless a test provides others.
    """
    machine, names = machine or system.Machine(), this_machine() if names is None else names
    evidence = read_evidence(folder, partial)
    parsed = read_settings(settings, len(evidence.manifest["models"]))
    made, private = build_submission(evidence, parsed, machine, reprobe, names)
    contents = {HARDWARE: ledger.dump_document(made.hardware),
                METADATA: ledger.dump_document(made.metadata), PAGE: made.page.encode("utf-8")}
    if parsed.remove_host_name:
        contents[ledger.MANIFEST] = ledger.dump_document(made.manifest)
    write_all(folder, contents)
    server = find_server(made, machine, names)
    return make_report(evidence, made, sorted(contents), private, server)


def build_parser() -> Parser:
    """The command line."""
    parser = Parser("complete_submission", __doc__, "RUN_DIR [options]")
    parser.add_argument("folder", metavar="RUN_DIR", help="folder of a finished run")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[], dest="settings",
                        help="declare a value, or remove it with null; may be repeated")
    parser.add_argument("--partial", action="store_true",
                        help="complete a run that has not ended, as class partial")
    parser.add_argument("--reprobe", action="store_true",
                        help="probe this machine again; declared values are kept")
    parser.add_argument("--json", action="store_true",
                        help="print one JSON document on standard output")
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the program; the exit code."""
    args = build_parser().parse_args(argv)
    try:
        report = complete(args.folder, args.settings, args.partial, args.reprobe)
    except HarnessError as error:
        print(f"complete_submission: {error}", file=sys.stderr)
        return error.exit_code
    print(as_json(report) if args.json else as_text(report))
    return report.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
