"""Whose run it is and with what it was made: names, releases, and the manifest against itself.

The manifest is written once, from parsed flags and a server's first answers. Most of it follows
from the rest of it, and the ledger carries its hash; what follows from nothing (versions of Python
and git, the target's class) has to be believed.
"""
from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from typing import Any, Optional

from core import answer_checks, schema
from core.names import cell_id_prefix_problem, device_tag_problem, handle_problem
from core.plan import plan_of
from core.release import HERE, Release, current_hashes, differences, revision
from core.suites import PHASES, load_suites
from engines import queries

from check import calls, findings, sources

Json = dict[str, Any]


# What a release's runner calls canonical; a test holds the newest to the runner.
CANONICAL_OPTIONS = {"public-1": {"temperature": 0.1, "num_ctx": 4096, "num_predict": 2048}}
REFERENCE = "reference-endpoint"
RUNNER, PROMPTS, SUITES = "harness/run_benchmark.py", "harness/prompts.py", "harness/suites/"
NIL_RUN_ID = "00000000-0000-0000-0000-000000000000"
MAX_CELLS = 10_000            # a model has 75 a repeat; a ledger of 32 MiB holds as many
# What an example is by itself, and what would keep every other submission out.
EXAMPLE_CODES = frozenset(("synthetic-run", "smoke-run", "name-refused", "ids-differ"))


def check_manifest(manifest: Json, submission: sources.Submission, released: Mapping[str, Release],
                   allow_synthetic: bool, notes: findings.Notes) -> None:
    """All findings on manifest.json, the folder's names included."""
    found = [*_names(manifest, submission), *_kind(manifest, allow_synthetic),
             *_release(manifest, released), *_options(manifest), *_consequences(manifest)]
    if submission.is_example() and manifest["synthetic"]:
        found = [("example", "no measurement"),
                 *(one for one in found if one[0] not in EXAMPLE_CODES)]
    for code, what in found:
        notes.add(code, what)


# --- names ---------------------------------------------------------------------------------------
def _names(manifest: Json, submission: sources.Submission) -> list[tuple[str, str]]:
    handle, tag, folder = submission.parts
    match = sources.RUN_FOLDER.match(folder)
    found = [] if match else [("folder-name", f"{schema.shown(folder)} is not run-<uuid>")]
    told = (manifest["submitter_handle"], manifest["device_tag"], manifest["run_id"])
    names = (handle, tag, match[1] if match else manifest["run_id"])
    found += [("ids-differ", f"{name} is {schema.shown(value)}, the folder says "
                             f"{schema.shown(held)}")
              for name, value, held in zip(("submitter_handle", "device_tag", "run_id"), told,
                                           names) if value != held]
    prefix = manifest["cell_id_prefix"]
    stand_ins = [("handle", told[0] == "unnamed"), ("device tag", told[1] == "unnamed-device"),
                 ("prefix", prefix.startswith("local:"))]
    found += [("unnamed", f"the {name} is a stand-in") for name, holds in stand_ins if holds]
    problems = (handle_problem(told[0]), device_tag_problem(told[1]),
                cell_id_prefix_problem(prefix))
    found += [("name-refused", problem) for problem, (_, holds) in zip(problems, stand_ins)
              if problem and not holds]
    return found


def _kind(manifest: Json, allow_synthetic: bool) -> list[tuple[str, str]]:
    found = []
    if not allow_synthetic and (manifest["synthetic"] or manifest["run_id"] == NIL_RUN_ID
                                or manifest["engine"]["name"] == REFERENCE):
        found.append(("synthetic-run", "the manifest says so"))
    if manifest["smoke"]:
        found.append(("smoke-run", "the manifest says so"))
    if manifest["target"]["class"] != "loopback":
        found.append(("endpoint-remote", f"its class is {manifest['target']['class']}"))
    return found


# --- release -------------------------------------------------------------------------------------
def _release(manifest: Json, released: Mapping[str, Release]) -> list[tuple[str, str]]:
    version, files = manifest["harness_version"], manifest["files_sha256"]
    release = released.get(version)
    if release is None:
        return [("release-unknown", f"{schema.shown(version)}; known are {', '.join(released)}")]
    names = {*release.asked, *(path for path in files if path.startswith(SUITES))}
    found = [("harness-modified", f"{path} is not the one of {version}") for path in sorted(names)
             if files.get(path) != release.asked.get(path)]
    if not release.revisions:
        found.append(("harness-unpinned", f"the programs of {version} are not pinned yet"))
        if manifest["git"]["dirty"]:
            found.append(("harness-dirty", "git.dirty is true"))
    elif not found and revision(files) not in release.revisions:
        unlike = differences(files)
        more = f", and {len(unlike) - 3} more" if len(unlike) > 3 else ""
        found.append(("harness-modified", "the programs are no accepted revision of "
                      f"{version}; compared with this checkout, {', '.join(unlike[:3])}{more}"))
    return found


@functools.cache
def suites_here() -> calls.Suites:
    """The suites of this checkout."""
    folder = os.path.join(HERE, "suites")
    return load_suites(folder, answer_checks.FORMAT_RULES)


@functools.cache
def _hashes_here() -> Mapping[str, str]:
    return current_hashes()


def suites_of(manifest: Json) -> Optional[calls.Suites]:
    """The suites that a run asked from; None where this checkout has others. Which ones the plan
    names has no say in it: that is to be checked."""
    asked = [(path, sha256) for path, sha256 in _hashes_here().items()
             if path == PROMPTS or path.startswith(SUITES)]
    same = all(manifest["files_sha256"].get(path) == sha256 for path, sha256 in asked)
    return suites_here() if same else None


# --- plan and options ----------------------------------------------------------------------------
def chosen_options(manifest: Json) -> Json:
    """The options in force: the canonical ones under their overrides."""
    return {**manifest["canonical_options"], **manifest["canonical_options_overrides"]}


def _options(manifest: Json) -> list[tuple[str, str]]:
    canonical, overrides = manifest["canonical_options"], manifest["canonical_options_overrides"]
    expected = CANONICAL_OPTIONS.get(manifest["harness_version"], canonical)
    found = []
    if canonical != expected:
        found.append(("canonical-differ", f"{schema.shown(canonical)} instead of "
                                          f"{schema.shown(expected)}"))
    idle = [name for name, value in overrides.items() if value == canonical[name]]
    if idle:
        found.append(("manifest-differs", f"overrides that override nothing: {', '.join(idle)}"))
    if overrides:
        found.append(("options-overridden", schema.shown(overrides)))
    return found


def plan_problem(manifest: Json, suites: Optional[calls.Suites]) -> Optional[tuple[str, str]]:
    """Why the ledger cannot be held against the plan, as a finding; None where it can."""
    plan = manifest["plan"]
    names = [entry["phase"] for entry in plan["phases"]]
    questions = sum(len(entry["question_ids"]) for entry in plan["phases"])
    if questions * plan["repeats"] * len(manifest["models"]) > MAX_CELLS:
        return "json-too-complex", f"the plan has over {MAX_CELLS} calls"
    if names != [name for name in PHASES if name in names] or names[0] != "hello":
        return "plan-differs", f"phases are {', '.join(names)}"
    if suites is None:
        return None
    expected = plan_of(names, suites, plan["lanes"], plan["repeats"],
                              chosen_options(manifest)["num_predict"], manifest["smoke"])
    if plan == expected:
        return None
    return "plan-differs", " but ".join(schema.difference("plan", plan, expected))


# --- what follows from what ----------------------------------------------------------------------
def _consequences(manifest: Json) -> list[tuple[str, str]]:
    cache, engine = manifest["prompt_cache"], manifest["engine"]
    method = queries.cache_switch(engine["name"], cache["policy"], "x")[0]
    found = []
    if cache["method"] != method:
        found.append(("manifest-differs", f"prompt_cache.method is {cache['method']}, of "
                                          f"{schema.shown(engine['name'])} it is {method}"))
    if manifest.get("hostname_omitted") and manifest["host_hostname_short"] is not None:
        found.append(("manifest-differs", "host_hostname_short is set, although hostname_omitted "
                                          "is true"))
    if [context["model"] for context in manifest["contexts"]] != manifest["models"]:
        found.append(("manifest-differs", "contexts are not those of the models"))
    asked = chosen_options(manifest)["num_ctx"]
    for context in manifest["contexts"]:
        if context["requested_tokens"] != asked:
            found.append(("manifest-differs", f"a context of {context['requested_tokens']} tokens "
                                              f"was asked for, the options say {asked}"))
        found += calls.context_problems(context)
    return found
