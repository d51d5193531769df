"""Check one submission: every finding on its five files.

Nothing of a submission is run or trusted. check_submission.py checks submissions that others made;
complete_submission.py checks the one it has written.
"""
from __future__ import annotations

import os
import traceback
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from check import (
    accounting,
    agreement,
    challenge,
    copies,
    documents,
    findings,
    ledger_order,
    parsing,
    plausibility,
    privacy_scan,
    submission_files,
)
from check.manifest import SUITES_HERE, check_manifest, commit_problems, plan_problem, suites_of
from core import release
from core.records import Manifest


class Settings(NamedTuple):
    """What a check depends on besides the files. handle: the only handle that is allowed;
    repository: with the history of the harness, if it is known; challenge: a text that each run has
    to have answered; signatures: a file of copies.Index."""

    released: Mapping[str, release.Release]
    allow_synthetic: bool = False
    handle: Optional[str] = None
    now_s: float = 0.0
    repository: Optional[submission_files.Repository] = None
    challenge: Optional[str] = None
    signatures: Optional[bytes] = None


def check(submission: submission_files.Submission, settings: Settings, index: copies.Index,
          report: findings.Report) -> None:
    """Add all findings on a submission to the report; never raises."""
    notes = findings.Notes(report, submission.path)
    try:
        _check(submission, settings, index, notes)
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        notes.add("check-broken", f"{type(error).__name__} at {os.path.basename(last.filename)}:"
                                  f"{last.lineno}")


def _check(submission: submission_files.Submission, settings: Settings, index: copies.Index,
           notes: findings.Notes) -> None:
    handle, files = submission.parts[0], submission.files
    if settings.handle is not None and handle != settings.handle.lower().lstrip("@"):
        notes.add("handle-not-author", f"the folder's handle is {handle}, the author is "
                                       f"{settings.handle.lower()}")
    found: dict[str, Any] = {
        name: parsing.read_document(files[f"{name}.json"], name, notes.of(f"{name}.json"))
        for name in ("manifest", "hardware", "metadata") if f"{name}.json" in files}
    page = parsing.read_page(files["run.md"], notes.of("run.md")) if "run.md" in files else None
    ledger = parsing.read_ledger(files["run.jsonl"], notes.of("run.jsonl")) \
        if "run.jsonl" in files else None
    manifest: Optional[Manifest] = found.get("manifest")
    if manifest is not None:
        check_manifest(manifest, submission, settings.released, settings.allow_synthetic,
                       notes.of("manifest.json"))
        if settings.repository:
            notes.of("manifest.json").add_all(commit_problems(manifest, settings.repository))
        if ledger is not None:
            _check_run(manifest, ledger, found, page, settings, notes)
            sketch = copies.sketch(f"{submission.path}/run.jsonl", ledger.lines)._replace(
                run_id=manifest["run_id"])
            index.check(sketch, manifest["synthetic"], notes.of("run.jsonl"))
            index.add(sketch)
    run_id = manifest["run_id"] if manifest else submission.parts[2][len("run-"):]
    for name, document in found.items():
        privacy_scan.check_document(document, run_id, notes.of(f"{name}.json"))
    for line, text in enumerate((page or "").split("\n"), 1):
        privacy_scan.check_document(text, run_id, notes.of("run.md"), line)
    prompts = {question.prompt for suite in SUITES_HERE().values() for question in suite}
    privacy_scan.check_lines(ledger.events if ledger else (), prompts, run_id,
                             notes.of("run.jsonl"))


def _check_run(manifest: Manifest, ledger: parsing.Ledger, found: dict[str, Any],
               page: Optional[str], settings: Settings, notes: findings.Notes) -> None:
    suites = suites_of(manifest)
    problem = plan_problem(manifest, suites)
    if problem:
        notes.of("manifest.json").add("manifest-altered", problem)
        return
    if suites is None:
        notes.of("manifest.json").add("suites-unavailable", "files_sha256 has other hashes")
    in_ledger = notes.of("run.jsonl")
    if not ledger_order.walk(manifest, ledger.events, ledger.seals, suites, in_ledger):
        return
    ledger_order.clocks(manifest, ledger.events, settings.now_s, in_ledger)
    in_ledger.add_all(challenge.problems(
        manifest, ledger.events, settings.challenge,
        *([settings.repository.time_s] if settings.repository else [])))
    hardware, metadata = found.get("hardware"), found.get("metadata")
    if hardware is None:
        return
    documents.check_hardware(manifest, hardware, notes.of("hardware.json"))
    documents.check_declared(hardware, notes.of("hardware.json"))
    if metadata is None:
        return
    documents.check_declared(metadata, notes.of("metadata.json"))
    documents.check_machine(manifest, ledger.events, metadata, hardware, notes.of("hardware.json"))
    documents.check_metadata(manifest, ledger, hardware, metadata, notes.of("metadata.json"))
    if page is not None:
        documents.check_page(manifest, metadata, hardware, ledger.events, page, notes.of("run.md"))
    if [model["model"] for model in metadata["models"]] == manifest["models"]:
        in_ledger.add_all(plausibility.problems(ledger.events, metadata, hardware))
        in_ledger.add_all(agreement.problems(manifest, ledger.events, metadata, hardware))
        in_ledger.add_all(accounting.problems(manifest, ledger.events, metadata))
