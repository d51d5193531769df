#!/usr/bin/env python3
"""Turn a finished run into a submission: add hardware.json, metadata.json and run.md.

  python3 harness/complete_submission.py RUN_DIR
  python3 harness/complete_submission.py RUN_DIR --set backend=cuda
  python3 harness/complete_submission.py RUN_DIR --set hardware.memory.type=DDR5 --json

The numbers are computed from run.jsonl, and so is the machine, as the run recorded it. Then the
submission is checked as check_submission.py does, and searched for private values. The program
lists values that only you can provide, what the check refuses or warns about, and what is left to
do. You can run it as often as you like: it keeps what you declared and wrote, and recomputes the
rest.

--set KEY=VALUE declares a value of hardware.json or metadata.json, or writes a section of run.md;
--set KEY=null removes it, except from run.jsonl. A key is FILE.PATH, such as
metadata.runtime.backend; its last part is enough if that is unique. Keys of run.md are
run_md.deviations, run_md.notes and, once you have reviewed all five files, run_md.attestation=true.
You can also edit run.md between its comments. manifest.json allows one change: --set
manifest.host_hostname_short=null removes the machine's name.

If the server runs on another machine, describe that machine with --set hardware.*; this one is not
probed. If a loopback address leads to another machine through a tunnel, add
--set metadata.endpoint.same_machine=false. If a LAN address is this machine's own, add
--set metadata.endpoint.same_machine=true.

For maintainers: --recompute FOLDER recomputes metadata.json and run.md of all submissions below a
folder after a change of a metric. Declared values, attestation and notes stay as they are.

exit codes:
  0 written, and nothing is missing except your own parts of run.md; 1 written, but a value that a
  comparison needs is missing, or the check would refuse the submission; 2 wrong usage, nothing
  written; 4 a file cannot be read or written (only --recompute may have written runs before it).
"""
import sys

if sys.version_info < (3, 9):      # above all code that an older Python cannot run
    sys.exit("complete_submission needs Python 3.9 or newer; this is " + sys.version.split()[0])

import argparse
import contextlib
import hashlib
import io
import json
import os
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from check import copies, findings, privacy_scan, submission, submission_files
from complete import attestation, declared, metadata, run_md
from core import files, flag_definitions, ledger, privacy, privacy_patterns, release, schema
from core.errors import HarnessError, StorageError
from core.names import this_machine
from core.records import LedgerLine, Manifest, Metadata
from core.text import (
    Parser,
    command,
    command_lines,
    print_error,
    print_safe,
    print_text,
    printable,
    readable,
    terminal_width,
    with_command,
    wrapped,
)
from machine import inventory, server_process, system
from run import cli

SUBMISSIONS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))),
                           "submissions")
HARDWARE, METADATA, PAGE = "hardware.json", "metadata.json", "run.md"
HOST_NAME = "manifest.host_hostname_short"
STAGED = ".new"
SEARCHED_CODES = ("private-value", "private-answer")    # of the search, which knows more names
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


class Submission(NamedTuple):
    """The contents of a submission's files, except the ledger. is_new: no earlier call wrote it."""

    manifest: Manifest
    hardware: dict[str, Any]
    metadata: Metadata
    page: str
    is_new: bool


# --- reading -------------------------------------------------------------------------------------
def read_evidence(folder: str, partial: bool) -> Evidence:
    """Manifest and ledger of a run that has ended. Raises HarnessError and StorageError."""
    shown, path = readable(folder, 1000), os.path.join(folder, ledger.LEDGER)
    for name in (ledger.MANIFEST, ledger.LEDGER):
        if not os.path.isfile(os.path.join(folder, name)):
            raise HarnessError(f"{shown} is not the folder of a run: {name} is missing; type a "
                               "folder submissions/<handle>/<device-tag>/run-<uuid>, or its uuid")
    try:
        is_running = files.is_locked(path)
    except OSError as error:
        raise StorageError(f"{printable(path)} cannot be opened ({error.strerror})") from None
    manifest, state = ledger.load_run(folder)
    events = state.events
    if is_running:
        raise HarnessError(f"run {manifest['run_id']} is still running; wait for its end: "
                           + command("run_benchmark", "--wait", "100", shown))
    data = files.read(path)
    sealed, last = data[:data.rstrip(b"\n").rfind(b"\n") + 1], events[-1] if events else None
    if last and last["event"] == "run_finished" \
            and hashlib.sha256(sealed).hexdigest() != last["sha256"]:
        raise StorageError(f"{printable(path)} was changed after the run: the SHA-256 in its last "
                           "line differs; restore it from a backup, or start a new run")
    if not events or (metadata.run_class(manifest, events) == "partial" and not partial):
        missing = len(metadata.missing_cells(manifest, events))
        resume = resume_command(folder, manifest)
        # Neither the address of another machine nor the name of the key's variable is recorded.
        again = ["--target-url"] * (manifest["target"]["class"] != "loopback")
        again += ["--api-key-env"] * bool(manifest.get("api_key_used"))
        hint = "add --partial to complete it as it is, or " if events else ""
        hint += "resume it" + (f" (with {' and '.join(again)} as before)" if again else "")
        raise HarnessError(f"run {manifest['run_id']} is not finished ({missing} planned calls are "
                           f"missing); {hint}: {resume}")
    return Evidence(folder, manifest, events, hashlib.sha256(data).hexdigest(), len(state.torn))


def resume_command(folder: str, manifest: Manifest) -> str:
    """The command that resumes a run in the background, as far as its manifest holds it."""
    out_dir = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(folder))))
    canonical: dict[str, Any] = manifest["canonical_options"]
    options = cli.Options(**canonical, out_dir=out_dir, rehearse=manifest["synthetic"],
                          given=frozenset(() if out_dir == SUBMISSIONS else ("out_dir",)))
    return readable(cli.next_command(options, manifest["run_id"]), 1000) + " --detach"


def _read(folder: str, name: str) -> Any:
    """What an earlier call wrote: a document, the sections of run.md, or None. Raises StorageError.
    """
    path = os.path.join(folder, name)
    try:
        data = files.read(path)
        if not data:
            return None
        if name == PAGE:
            return attestation.read_sections(data.decode())
        document = schema.strict_json(data)
        for found in schema.validate(document, name.partition(".")[0]):
            raise ValueError(f"{found.path}: {found.message}")
        return document
    except ValueError as error:
        renew = "" if name != METADATA else "if an older version of the harness wrote it, type " \
            + command("complete_submission", "--recompute", readable(folder, 1000)) + "; else "
        raise StorageError(f"{printable(path)}: {printable(str(error))}; {renew}fix it, or delete "
                           "the file to start again without what you declared or wrote in it"
                           ) from None
    except OSError as error:
        raise StorageError(f"{printable(path)} cannot be read ({error.strerror})") from None


def read_settings(typed: Sequence[str], models: int) -> Settings:
    """The KEY=VALUE of every --set. Raises HarnessError."""
    settings = Settings({}, {})
    for word in typed:
        key, _, text = (part.strip() for part in word.partition("="))
        key = f"run_md.{key}" if key in attestation.SECTIONS else key
        name = key.partition(".")[2]
        if key.startswith("run_md."):
            if name not in attestation.SECTIONS:
                keys = ", ".join(f"run_md.{section}" for section in attestation.SECTIONS)
                raise HarnessError(f"--set {printable(key)}: there is no such section; run.md has "
                                   f"{keys}")
            try:
                settings.sections[name] = attestation.section_text(name, text)
            except ValueError as error:
                raise HarnessError(f"--set {key}: {error}") from None
        elif key == HOST_NAME:
            if text != "null":
                raise HarnessError(f"--set {key}: the name can only be removed; type {key}=null")
            settings.values[key] = None
        else:
            full = declared.full_key(key, models)
            settings.values[full] = declared.parse(full, text)
    return settings


# --- privacy -------------------------------------------------------------------------------------
def keep_private_out(hardware: Any, document: Metadata, sections: Mapping[str, str],
                     names: Names) -> None:
    """Raise HarnessError for private texts that the contributor declared or wrote; what the run
    itself holds is left to the check."""
    for name, held in (("hardware", hardware), ("metadata", document)):
        values = dict(metadata.values(held))
        for path, hit in privacy.scan_json(held, allowed={document["run_id"]}, names=names):
            key = re.sub(r"\[(\d+)\]", r".\1", path).rpartition(".")[0]
            if key in values and values[key]["source"] == "declared":
                raise HarnessError(f"{name}.{key}: {_about(hit)}")
    for name, text in sections.items():
        for hit in privacy.scan(text, allowed={document["run_id"]}, names=names):
            raise HarnessError(f"{PAGE}, {name}: {_about(hit)}")


def _about(hit: privacy.Hit) -> str:
    return (f"{printable(hit.excerpt)} must not be published ({hit.pattern_id}). {hit.why} "
            f"{privacy_patterns.REMEDIES[hit.kind]}")


# --- building and writing ------------------------------------------------------------------------
def build_submission(evidence: Evidence, settings: Settings, machine: system.Machine,
                     names: Names) -> Submission:
    """A submission of a run. Raises HarnessError and StorageError."""
    manifest = evidence.manifest.copy()
    earlier_hardware, earlier_metadata = (_read(evidence.folder, name)
                                          for name in (HARDWARE, METADATA))
    sections = {**(_read(evidence.folder, PAGE) or {}), **settings.sections}
    # A login is often a part of the handle, which is published anyway.
    names = (*names, privacy.MachineName(privacy_patterns.PUBLIC, manifest["submitter_handle"]))
    if HOST_NAME in settings.values:
        manifest["host_hostname_short"] = None
    declarations = declared.merge(metadata.declared_in(earlier_metadata),
                                  declared.of_file(settings.values, "metadata"))
    is_local = bool(metadata.endpoint_of(manifest, declarations)["same_machine"]["value"])
    was_local = earlier_metadata is None or bool(
        earlier_metadata["endpoint"]["same_machine"]["value"])
    own = declared.of_file(settings.values, "hardware")
    base = declared.recorded_hardware(manifest, evidence.events, is_local)
    if base is None and was_local and earlier_hardware:      # probed by an earlier call
        hardware = declared.declare(earlier_hardware, own)
    else:
        kept = metadata.declared_in(earlier_hardware)
        if any(key.startswith("accelerators.") for key in own) and earlier_hardware and \
                kept.get("accelerators_count") == len(earlier_hardware["accelerators"]):
            del kept["accelerators_count"]                  # counted again
        hardware = declared.declare(base or _probe(manifest, machine, names),
                                    declared.merge(kept, own))
    document = metadata.build(manifest, evidence.events, evidence.sha256, hardware, declarations)
    keep_private_out(hardware, document, sections, names)
    page = run_md.render_run_md(manifest, document, hardware, sections, evidence.events)
    return Submission(manifest, hardware, document, page, earlier_metadata is None)


def _probe(manifest: Manifest, machine: system.Machine, names: Names) -> dict[str, Any]:
    """hardware.json of this machine, which must be the one that made the run. For runs that have
    not recorded it: those of earlier versions, smoke runs, and those on a LAN address."""
    ran_on = (manifest["os"]["system"], manifest["os"]["machine"])
    if ran_on != (machine.system, machine.architecture):
        raise HarnessError(
            f"the run was made on another machine ({printable(' '.join(map(str, ran_on)))}) than "
            f"this one ({machine.system} {machine.architecture}); complete it there, or type --set "
            "metadata.endpoint.same_machine=false and describe the machine with --set hardware.*")
    return {**inventory.inventory(machine, names=names),
            "python": declared.remote_hardware(manifest["python"])["python"]}


def write_all(folder: str, contents: Mapping[str, bytes]) -> None:
    """Write all files, or none if one cannot be written. Raises StorageError."""
    paths = {os.path.join(folder, name): data for name, data in contents.items()}
    try:
        for path, data in paths.items():
            files.write_whole(path + STAGED, data)
        for path in paths:
            files.replace(path + STAGED, path)
    except OSError as error:
        for path in paths:
            with contextlib.suppress(OSError):
                os.unlink(path + STAGED)
        raise StorageError(f"{printable(folder)} cannot be written ({error.strerror}); free some "
                           "space, or check the folder's permissions") from None


# --- maintainers ---------------------------------------------------------------------------------
def recomputed(folder: str) -> dict[str, bytes]:
    """metadata.json and run.md of a submission, computed from its other files and what its
    contributor declared and wrote in them. Raises HarnessError and ValueError."""
    manifest, state = ledger.load_run(folder)
    hardware, earlier = (schema.strict_json(files.read(os.path.join(folder, name)))
                         for name in (HARDWARE, METADATA))
    for found in schema.validate(hardware, "hardware"):
        raise ValueError(f"{HARDWARE}: {found.path}: {found.message}")
    sections = attestation.read_sections(files.read(os.path.join(folder, PAGE)).decode())
    digest = hashlib.sha256(files.read(os.path.join(folder, ledger.LEDGER))).hexdigest()
    document = metadata.build(manifest, state.events, digest, hardware,
                              metadata.declared_in(earlier))
    for found in schema.validate(document, "metadata"):
        raise ValueError(f"{METADATA}: {found.path}: {found.message}")
    page = run_md.render_run_md(manifest, document, hardware, sections, state.events)
    return {METADATA: ledger.dump_document(document), PAGE: page.encode("utf-8")}


def recompute(root: str) -> int:
    """Recompute the submissions below a folder and print one line for each; the exit code."""
    if not os.path.isdir(root):
        raise HarnessError(f"{printable(root)} is not a folder; pass a folder of submissions")
    folders = sorted(folder for folder, _, names in os.walk(root) if METADATA in names)
    code = 0
    for folder in folders:
        try:
            made = recomputed(folder)
            old = {name: files.read(os.path.join(folder, name)) for name in made}
            if made != old:
                write_all(folder, made)
            outcome = "unchanged" if made == old else "recomputed"
        except (HarnessError, OSError, ValueError, LookupError, TypeError) as error:
            outcome, code = f"failed, left as it is: {printable(str(error), 400)}", 4
        print_safe(f"{readable(folder, 1000)}: {outcome}")
    if not folders:
        raise HarnessError(f"{printable(root)} holds no {METADATA}; pass a folder of submissions")
    return code


# --- the check -----------------------------------------------------------------------------------
def check_folder(folder: str, is_synthetic: bool, names: Names) -> list[findings.Finding]:
    """What check_submission.py reports of a submission, and what its --privacy option does."""
    report, searched = findings.Report(), findings.Report()
    settings = submission.Settings(release.known(), is_synthetic, None, time.time())
    for one in submission_files.of_paths([folder], report):
        submission.check(one, settings, copies.Index(), report)
    privacy_scan.PrivacyScan(searched, names).paths([folder], io.BytesIO())
    return [*(one for one in report.findings() if one.code not in SEARCHED_CODES),
            *dict.fromkeys(one for one in searched.findings() if one.code in SEARCHED_CODES)]


def cells_not_ranked(document: Metadata) -> list[str]:
    """`smollm2 20q: failures (8 of 20 calls: 8 timeout)` of each such cell, then their flags. Cold
    cells are never ranked."""
    lines, flags = [], []
    for cell in (one for one in document["cells"] if not one["cold"]):
        kept = [flag for flag in cell["flags"] if flag_definitions.FLAGS[flag].unrankable]
        outcomes = ", ".join(f"{count} {outcome}" for outcome, count in cell["outcomes"].items()
                             if outcome != "ok")
        failures = f" ({cell['failed']} of {cell['ok'] + cell['failed']} calls: {outcomes})"
        shown = [flag + failures * (flag == "failures") for flag in kept]
        lines += [f"{printable(cell['model'])} {cell['phase']}: {', '.join(shown)}"] if kept else []
        flags += kept
    return lines + flag_definitions.explain_flags(flags)


# --- the report ----------------------------------------------------------------------------------
class Report(NamedTuple):
    """What was written, what is missing or wrong, and what to type next. to_do: sections of run.md
    that wait for the contributor; server_line: the server's command line without private parts;
    server_unknown: why it is missing; proposed: {key: text} that it shows and that is not declared
    yet."""

    run_id: str
    folder: str
    run_class: str
    is_new: bool
    written: list[str]
    to_declare: list[declared.MissingValue]
    refused: list[findings.Finding]
    warnings: list[findings.Finding]
    not_ranked: list[str]
    to_do: list[str]
    notes: list[str]
    next: str
    server_line: Optional[str]
    server_unknown: Optional[str]
    proposed: dict[str, str]

    @property
    def exit_code(self) -> int:
        """1 if a required value is missing, or the check would refuse the submission."""
        return int(bool(self.refused) or any(one.important for one in self.to_declare))


def make_report(evidence: Evidence, made: Submission, written: list[str],
                found: Sequence[findings.Finding],
                server: Optional[server_process.Started], unknown: Optional[str]) -> Report:
    """The report of a submission. found: by the check; server: how it was started; unknown: why
    that is not known."""
    try:
        folder = readable(os.path.relpath(evidence.folder), 1000)
    except ValueError:               # on Windows, another drive
        folder = readable(os.path.abspath(evidence.folder), 1000)
    missing = declared.missing_values(made.metadata, made.hardware, server is not None)
    proposed = _proposed(server, missing)
    sections = attestation.read_sections(made.page)
    to_do = [name for name in ("deviations", "notes") if attestation.is_unwritten(sections, name)]
    to_do += ["attestation"] * bool(attestation.unticked_statements(sections))
    refused = [one for one in found if one.severity == findings.ERROR
               and one.code != "attestation-missing"
               and not (one.code == "placeholder-left" and one.place in to_do)]
    declarations = [word for one in missing if one.important or one.key in proposed
                    for word in one.option(proposed.get(one.key, ""))]
    warned = any(one.severity == findings.WARNING for one in found)
    words = [word for name in to_do if name != "attestation"   # warnings need an explanation
             for word in ("--set", f"run_md.{name}=" + "None." * (not warned or name != "notes"))]
    is_synthetic = made.manifest["synthetic"]
    if made.metadata["run"]["class"] == "partial":
        following = resume_command(evidence.folder, made.manifest)
    elif words or refused or declarations and (to_do or made.is_new):
        following = command("complete_submission", folder, *declarations, *words)
    elif to_do:
        following = command("check_submission", "--privacy", "--texts", folder)
    else:
        following = command("check_submission", *["--allow-synthetic"] * is_synthetic, folder)
    notes, endpoint = [], made.metadata["endpoint"]
    if is_synthetic:
        notes.append("this is a rehearsal: the check accepts it only with --allow-synthetic")
    if endpoint["class"] == "lan" and endpoint["same_machine"]["source"] == "computed":
        notes.append("the server's address is not a loopback address, so its machine counts as "
                     "another one; if it is this machine, add --set "
                     "metadata.endpoint.same_machine=true")
    if evidence.torn_bytes:
        notes.append(f"{ledger.LEDGER} ends in an incomplete line of {evidence.torn_bytes} bytes; "
                     "resuming the run sets it aside")
    return Report(
        made.manifest["run_id"], folder, made.metadata["run"]["class"], made.is_new, written,
        missing, refused, [one for one in found if one.severity == findings.WARNING],
        cells_not_ranked(made.metadata), to_do, notes, following,
        server.line if server else None, unknown, proposed)


def find_server(made: Submission, machine: system.Machine, names: Names
                ) -> tuple[Optional[server_process.Started], Optional[str]]:
    """How the server was started, or why that is not known; neither if it is remote or declared."""
    port, models = made.manifest["target"]["port"], made.metadata["models"]
    endpoint, flags = made.metadata["endpoint"], made.metadata["runtime"]["launch_flags"]
    if flags["value"] is not None or port is None or not endpoint["same_machine"]["value"]:
        return None, None
    several = len(models) > 1         # the process does not show which one its file belongs to
    started = server_process.started(machine, port, endpoint["engine"]["name"], names,
                                     not several and models[0]["digest"]["value"] is None)
    if started is None:
        return None, server_process.why_unknown(machine, port)
    return started._replace(settings={
        key: text for key, text in started.settings.items()
        if not (several and key.startswith("models."))}), None


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


def as_text(report: Report, width: int, list_optional: bool = False) -> str:
    """The report for people, in lines of at most `width` characters, commands and paths excepted.
    """
    def paragraph(text: str, indent: str = "  ", hanging: str = "  ") -> list[str]:
        return wrapped(indent + printable(text, 1000), width, indent + hanging)

    lines = [f"Written: {', '.join(report.written)}", f"in {report.folder}",
             f"Class: {report.run_class}"]
    asked = [one for one in report.to_declare if one.key not in report.proposed]
    required = [one for one in asked if one.important]
    optional = [one for one in asked if not one.important]
    if required:
        lines += ["", "Important for comparisons (example, where to look; skip what is not there):",
                  *_value_lines(required, width)]
    if optional and (report.is_new or list_optional):
        lines += ["", "Optional (skip what you don't know):", *_value_lines(optional, width)]
    elif optional:
        lines += ["", f"Optional values not declared: {len(optional)} (--optional lists them)"]
    if report.server_line is not None and (report.proposed or report.is_new):
        lines += ["", *paragraph("The server's command line now, without folders, addresses and "
                                 "keys:", ""), *paragraph(report.server_line),
                  *paragraph("The next command declares it. If it was another one during the run, "
                             "leave its values out." if report.proposed else
                             "It shows no option that affects speed.", "")]
    if report.server_unknown:
        lines += ["", *paragraph("How the server was started could not be read: "
                                 f"{report.server_unknown}", "")]
    for title, found in (("The check would refuse this:", report.refused),
                         ("Warnings (the check allows them; explain them in your notes, without "
                          "the values):", report.warnings)):
        lines += ["", title] if found else []
        for one in found:
            place = f" ({printable(one.place)})" if one.place else ""
            more = f" ({one.more} more like it)" if one.more else ""
            name = os.path.basename(one.path) + (f":{one.line}" if one.line else "")
            lines += [f"  {one.code}  {printable(name)}{place}",
                      *paragraph(one.what + more, "    ", ""),
                      *with_command(f"fix: {one.fix()}", width, "    ")]
    if report.not_ranked:
        lines += ["", "Not ranked, but published:",
                  *(line for text in report.not_ranked for line in paragraph(text))]
    if report.to_do:
        lines += ["", f"Still to do in run.md: {', '.join(report.to_do)}"]
    for note in report.notes:
        lines += ["", *paragraph(f"Note: {note}", "")]
    is_partial = report.run_class == "partial"
    hints = ["a partial run cannot be submitted: resume it"] if is_partial else [
        "once the errors are fixed"] * bool(report.refused)
    hints += ["with your text after each ="] * bool(re.search(r"=( |$)", report.next))
    hint = f" ({', '.join(hints)})" if hints else ""
    lines += ["", f"Next{hint}:", *command_lines(report.next, width)]
    if "=None." in report.next:
        lines += paragraph("None. means that there is nothing to say. Otherwise write what you "
                           "changed and why, and what a reader should know.", hanging="")
    if "attestation" in report.to_do and not is_partial:
        lines += ["then, once all of this is true:", *(
            line for statement in attestation.STATEMENTS
            for line in paragraph(f"- {statement}")), *command_lines(command(
                "complete_submission", report.folder, "--set", "run_md.attestation=true"), width)]
    return "\n".join(lines)


def _value_lines(chosen: Sequence[declared.MissingValue], width: int) -> list[str]:
    """`key=example  where to look` of each value, in two columns."""
    alike: dict[str, list[declared.MissingValue]] = {}       # of several models, listed once
    for one in chosen:
        alike.setdefault(re.sub(r"\.\d+\.", ".N.", one.key), []).append(one)
    shown = [(f'{one.short}="{one.example}"' if " " in one.example else
              f"{one.short}={one.example}", "".join([
                  f"{one.accepts}; " * one.accepts.startswith("one of"), one.where,
                  *(f"; {other.short} too" for other in others)]))
             for one, *others in alike.values()]
    column = min(max(len(example) for example, _ in shown), width // 2)
    return [line for example, where in shown
            for line in wrapped(f"  {example:<{column}}  {where}", width, " " * (column + 4))]


def as_json(report: Report) -> str:
    """The report for programs."""
    return json.dumps({
        **report._asdict(), "exit_code": report.exit_code,
        "missing": [one.key for one in report.to_declare if one.important],
        "to_declare": [{**one._asdict(), "set": " ".join(one.option())}
                       for one in report.to_declare],
        "refused": [one.document() for one in report.refused],
        "warnings": [one.document() for one in report.warnings]})


# --- the command ---------------------------------------------------------------------------------
def complete(folder: str, settings: Sequence[str] = (), partial: bool = False,
             machine: Optional[system.Machine] = None, names: Optional[Names] = None) -> Report:
    """Write the three files of a run. Raises HarnessError and StorageError; then nothing changed.
    machine, names: this machine and its names, unless a test provides others."""
    machine, names = machine or system.Machine(), this_machine() if names is None else names
    evidence = read_evidence(folder, partial)
    parsed = read_settings(settings, len(evidence.manifest["models"]))
    made = build_submission(evidence, parsed, machine, names)
    contents = {HARDWARE: ledger.dump_document(made.hardware),
                METADATA: ledger.dump_document(made.metadata), PAGE: made.page.encode("utf-8")}
    if HOST_NAME in parsed.values:
        contents[ledger.MANIFEST] = ledger.dump_document(made.manifest)
    write_all(folder, contents)
    return make_report(evidence, made, sorted(contents),
                       check_folder(folder, made.manifest["synthetic"], names),
                       *find_server(made, machine, names))


def _setting(word: str) -> str:
    if "=" in word:
        return word
    raise argparse.ArgumentTypeError(f"{printable(word, 80)}: the value is missing; type KEY=VALUE")


def build_parser() -> Parser:
    """The command line."""
    parser = Parser("complete_submission", __doc__, "RUN_DIR [options]")
    parser.loose = " (write --set before each KEY=VALUE)"
    parser.add_argument("folder", metavar="RUN_DIR", help="folder or id of a finished run")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", default=[],
                        dest="settings", type=_setting,
                        help="declare a value, or remove it with null; may be repeated")
    parser.add_argument("--partial", action="store_true",
                        help="complete a run that has not ended; it cannot be submitted yet")
    parser.add_argument("--optional", action="store_true",
                        help="list the optional values again; otherwise only the first call does")
    parser.add_argument("--recompute", action="store_true",
                        help="for maintainers: recompute all submissions below the folder")
    parser.add_argument("--json", action="store_true",
                        help="print one JSON document on standard output")
    return parser


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the program; the exit code."""
    args = build_parser().parse_args(argv)
    try:
        if args.recompute:
            if args.settings or args.partial or args.json or args.optional:
                raise HarnessError("--recompute takes only a folder; leave out the other options")
            return recompute(args.folder)
        report = complete(ledger.find_run(SUBMISSIONS, args.folder) or args.folder, args.settings,
                          args.partial)
    except HarnessError as error:
        print_error(f"complete_submission: {error}")
        return error.exit_code
    if args.json:
        print_safe(as_json(report))
    else:
        print_text(as_text(report, terminal_width(), args.optional))
    return report.exit_code


if __name__ == "__main__":
    raise SystemExit(main())
