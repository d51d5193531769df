"""Check manifest.json: names, release, plan, and values that follow from each other.

The ledger carries the manifest's hash. What follows from nothing (versions of Python and git, the
class of the target) cannot be checked.
"""
from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Optional

from check import calls, findings, submission_files
from complete import declared
from core import curve_levels, names, schema
from core.plan import chosen_options, plan_of
from core.records import Manifest
from core.release import Release, current_hashes, differences, file_sha256, revision
from core.suites import PHASES, load_suites
from engines import queries

Problems = Iterator[tuple[str, str]]          # code, what

# The canonical options of each release; a test compares the newest with the runner's.
CANONICAL_OPTIONS = {"public-1": {"temperature": 0.1, "num_ctx": 4096, "num_predict": 2048}}
REFERENCE = "reference-endpoint"
PROMPTS, SUITES = "harness/prompts.py", "harness/suites/"
NIL_RUN_ID = "00000000-0000-0000-0000-000000000000"
CLOCK_SPARE_S = 3600          # between the clock of a commit and that of a run
MAX_CELLS = 10_000            # a model has 75 per repeat; a ledger of 32 MiB holds as many
# Expected of the example, and errors in any other submission.
EXAMPLE_CODES = frozenset(("not-a-measurement", "name-refused", "ids-differ"))
HASHES_HERE = functools.cache(current_hashes)
SUITES_HERE = functools.cache(load_suites)


def check_manifest(manifest: Manifest, submission: submission_files.Submission,
                   released: Mapping[str, Release], allow_synthetic: bool,
                   notes: findings.Notes) -> None:
    """Add all findings on manifest.json and on the names of the folder."""
    found = [*_names(manifest, submission), *_kind(manifest, allow_synthetic),
             *_release(manifest, released), *_options(manifest)]
    if (submission.parts[0], submission.parts[2]) == submission_files.EXAMPLE \
            and manifest["synthetic"]:
        found = [("example", "not a measurement"),
                 *(one for one in found if one[0] not in EXAMPLE_CODES)]
    notes.add_all(found)
    if manifest["host_hostname_short"] is not None:
        notes.add("hostname-published", "host_hostname_short is set", place="host_hostname_short")


def _names(manifest: Manifest, submission: submission_files.Submission) -> Problems:
    handle, tag, folder = submission.parts
    match = submission_files.RUN_FOLDER.match(folder)
    if not match:
        yield "ids-differ", f"the folder {schema.shown(folder)} is not run-<uuid>"
    for name, value, of_folder in (
            ("submitter_handle", manifest["submitter_handle"], handle),
            ("device_tag", manifest["device_tag"], tag),
            ("run_id", manifest["run_id"], match[1] if match else manifest["run_id"])):
        if value != of_folder:
            yield "ids-differ", f"{name} is {schema.shown(value)}, the folder's name has " \
                f"{schema.shown(of_folder)}"
    handle, tag, prefix = (manifest["submitter_handle"], manifest["device_tag"],
                           manifest["cell_id_prefix"])
    for name, value, is_placeholder, problem in (
            ("submitter_handle", handle, handle == names.UNNAMED_HANDLE,
             names.handle_problem(handle)),
            ("device_tag", tag, tag == names.UNNAMED_TAG, names.device_tag_problem(tag)),
            ("cell_id_prefix", prefix, prefix.startswith("local:"),
             names.cell_id_prefix_problem(prefix))):
        if is_placeholder:
            yield "name-refused", f"{name} {value} is a placeholder"
        elif problem:
            yield "name-refused", problem


def _kind(manifest: Manifest, allow_synthetic: bool) -> Problems:
    if not allow_synthetic and (manifest["synthetic"] or manifest["run_id"] == NIL_RUN_ID
                                or manifest["engine"]["name"] == REFERENCE):
        yield "not-a-measurement", "synthetic is true: a rehearsal"
    if manifest["smoke"]:
        yield "not-a-measurement", "smoke is true"
    if manifest["target"]["class"] != "loopback":
        yield "endpoint-remote", f"target.class is {manifest['target']['class']}"
    engine = manifest["engine"]["name"]
    if queries.engine_named(engine).hosted:
        yield "not-a-measurement", f"{engine} is a hosted API"
    for model in manifest["models"]:
        why = queries.remote(engine, model, {})
        if why:
            yield "not-a-measurement", f"{schema.shown(model)} has {why}"


# --- release -------------------------------------------------------------------------------------
def _release(manifest: Manifest, released: Mapping[str, Release]) -> Problems:
    version, files = manifest["harness_version"], manifest["files_sha256"]
    release = released.get(version)
    if release is None:
        yield "harness-modified", f"harness_version {schema.shown(version)} is unknown; " \
            f"releases are {', '.join(released)}"
        return
    changed = [path for path in sorted({*release.asked, *(
        path for path in files if path.startswith(SUITES))})
        if files.get(path) != release.asked.get(path)]
    for path in changed:
        yield "harness-modified", f"{path} is not the one of {version}"
    if not release.revisions:
        yield "harness-unreleased", f"{version} has no accepted revision; git.dirty is " \
            f"{schema.shown(manifest['git']['dirty'])}"
    elif not changed and revision(files) not in release.revisions:
        unlike = differences(files)
        more = f", and {len(unlike) - 3} more" if len(unlike) > 3 else ""
        yield "harness-modified", f"the programs are not an accepted revision of {version}; " \
            f"compared with this checkout, {', '.join(unlike[:3])}{more}"


def commit_problems(manifest: Manifest, repository: submission_files.Repository) -> Problems:
    """The commit of the harness against the history: it exists, is older than the run, and holds
    the files whose hashes the manifest has."""
    git, files = manifest["git"], manifest["files_sha256"]
    # For earlier versions, dirty included files that are not in files_sha256.
    if git["commit"] is None or git["dirty"] and not declared.records_hardware(manifest):
        return
    made_s = repository.time_s(git["commit"])
    if made_s is None:
        yield "claim-contradicted", f"git.commit {git['commit']} is neither in the base nor in " \
            "the change"
        return
    started = datetime.strptime(manifest["started_at"][:19] + "+0000", "%Y-%m-%dT%H:%M:%S%z")
    if made_s > started.timestamp() + CLOCK_SPARE_S:
        yield "claim-contradicted", "git.commit was made after the run"
    blobs = {path: sha for path, sha in repository.files(git["commit"], "harness", "")
             if path in files}
    sizes = repository.sizes_bytes(list(blobs.values()))
    unlike = [path for path in files if path not in blobs
              or sizes.get(blobs[path], submission_files.MIB) >= submission_files.MIB
              or file_sha256(repository.read(blobs[path])) != files[path]]
    if git["dirty"] and not unlike:
        yield "claim-contradicted", "git.dirty is true, but files_sha256 are those of git.commit"
    elif unlike and not git["dirty"]:
        yield "claim-contradicted", f"{len(unlike)} files of git.commit have other hashes than " \
            f"files_sha256, among them {unlike[0]}"


def suites_of(manifest: Manifest) -> Optional[calls.Suites]:
    """The suites of a run; None if any file with questions differs in this checkout."""
    files = manifest["files_sha256"]
    same = all(files.get(path) == sha256 for path, sha256 in HASHES_HERE().items()
               if path == PROMPTS or path.startswith(SUITES))
    return SUITES_HERE() if same else None


# --- plan and options ----------------------------------------------------------------------------
def _options(manifest: Manifest) -> Problems:
    canonical: dict[str, Any] = dict(manifest["canonical_options"])
    overrides: dict[str, Any] = dict(manifest["canonical_options_overrides"])
    expected = CANONICAL_OPTIONS.get(manifest["harness_version"], canonical)
    if canonical != expected:
        yield "harness-modified", f"canonical_options are {schema.shown(canonical)}; expected " \
            f"{schema.shown(expected)}"
    if overrides:
        yield "options-overridden", schema.shown(overrides)
    for name, value in overrides.items():
        if value == canonical[name]:
            yield "manifest-altered", f"canonical_options_overrides.{name} is the canonical value"
    cache, engine = manifest["prompt_cache"], manifest["engine"]["name"]
    method = queries.cache_switch(engine, cache["policy"], "x")[0]
    if cache["method"] != method:
        yield "manifest-altered", f"prompt_cache.method is {cache['method']}; expected {method} " \
            f"for {schema.shown(engine)}"
    if [context["model"] for context in manifest["contexts"]] != manifest["models"]:
        yield "manifest-altered", "contexts are not in the order of models"
    num_ctx = {**canonical, **overrides}["num_ctx"]
    for context in manifest["contexts"]:
        if context["requested_tokens"] != num_ctx:
            yield "manifest-altered", f"contexts: requested_tokens is " \
                f"{context['requested_tokens']}, num_ctx is {num_ctx}"
        for what in calls.context_problems(context):
            yield "manifest-altered", what


def plan_problem(manifest: Manifest, suites: Optional[calls.Suites]) -> Optional[str]:
    """Why the ledger cannot be checked against the plan, or None."""
    plan = manifest["plan"]
    phases = [entry["phase"] for entry in plan["phases"]]
    questions = sum(max(len(entry["question_ids"]),
                        curve_levels.MIN_CALLS * sum(entry.get("levels", ())))
                    if entry["phase"] != "depth" else 2 * len(entry.get("levels", ()))
                    for entry in plan["phases"])
    if questions * plan["repeats"] * len(manifest["models"]) > MAX_CELLS:
        return f"the plan has more than {MAX_CELLS} calls"
    if phases != [name for name in PHASES if name in phases] or phases[0] != "hello":
        return f"plan.phases are {', '.join(phases)}"
    if suites is None:
        return None
    options = chosen_options(manifest)
    own: dict[str, Any] = {"depth": {}, "challenge": {},
                           **{entry["phase"]: entry for entry in plan["phases"]}}
    expected = plan_of(phases, suites, plan["lanes"], plan["repeats"], options["num_predict"],
                       manifest["smoke"], own["depth"].get("context_tokens"),
                       own["challenge"].get("challenge"))
    if plan == expected:
        return None
    was, now = schema.difference("plan", plan, expected)
    return f"{was}; expected {now}"
