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
from core.names import cell_id_prefix_problem, device_tag_problem, handle_problem, plain_engine
from core.plan import parse_phases, plan_of
from core.release import HERE, Known, current_hashes
from core.suites import PHASES, load_suites
from engines import queries
from run import cli

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


def check_manifest(manifest: Json, submission: sources.Submission, released: Known,
                   allow_synthetic: bool, notes: findings.Notes) -> None:
    """All findings on manifest.json, the folder's names included."""
    found = [*_names(manifest, submission), *_kind(manifest, allow_synthetic),
             *_release(manifest, released), *_options(manifest), *_flags(manifest),
             *_consequences(manifest)]
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
def _release(manifest: Json, released: Known) -> list[tuple[str, str]]:
    version, files = manifest["harness_version"], manifest["files_sha256"]
    release = released.get(version)
    if release is None:
        return [("release-unknown", f"{schema.shown(version)}; known are {', '.join(released)}")]
    pinned = RUNNER in release
    names = {*release, *(path for path in files if pinned or path.startswith(SUITES))}
    found = [("harness-modified", f"{path} is {_state(files.get(path), path in release)}")
             for path in sorted(names) if files.get(path) not in release.get(path, ())]
    if not pinned:
        found.append(("harness-unpinned", f"of {version}, {len(release)} files are known"))
        if manifest["git"]["dirty"]:
            found.append(("harness-dirty", "git.dirty is true"))
    return found


def _state(here: Optional[str], released: bool) -> str:
    return "missing" if here is None else "changed" if released else "not of the release"


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


def _flags(manifest: Json) -> list[tuple[str, str]]:
    """manifest.flags against the values that were made from them."""
    canonical = manifest["canonical_options"]
    knobs = {knob.flag: knob for knob in cli.option_table(canonical)}
    told = dict(_flag(flag) for flag in manifest["flags"])
    wrong = [flag for flag in told if flag not in knobs] + (
        [] if len(told) == len(manifest["flags"]) else ["one stands there twice"])
    for flag, value in _values(manifest).items():
        knob = knobs[flag]
        is_default = value is None or value is False or value == knob.default
        if not _fits(knob, told.get(flag), value) if flag in told else not is_default:
            wrong.append(f"{flag} is {schema.shown(told.get(flag))}, the values say "
                         f"{schema.shown(value)}")
    return [("flags-differ", what) for what in wrong]


def _flag(text: str) -> tuple[str, Optional[str]]:
    name, space, value = text.partition(" ")
    return name, value if space else None


def _values(manifest: Json) -> Json:
    """What the flags must have been, as far as the manifest tells it elsewhere."""
    plan, options = manifest["plan"], chosen_options(manifest)
    tag = manifest["device_tag"]
    plain = "local" if tag == "unnamed-device" else tag
    default_prefix = f"{plain}:{plain_engine(manifest['engine']['name'])}"
    prefix = manifest["cell_id_prefix"]
    found = {"--repeats": plan["repeats"], "--lanes": plan["lanes"],
             "--timeout": manifest["timeout_s"], "--temperature": options["temperature"],
             "--num-ctx": options["num_ctx"], "--num-predict": options["num_predict"],
             "--prompt-cache": manifest["prompt_cache"]["policy"], "--device-tag": tag,
             "--smoke": manifest["smoke"],
             "--cell-id-prefix": None if prefix == default_prefix else prefix}
    if not manifest["smoke"]:
        found["--phases"] = ",".join(entry["phase"] for entry in plan["phases"])
    if not manifest["synthetic"]:
        found["--rehearse"] = False
    if manifest["host_hostname_short"] is not None:
        found["--no-hostname"] = False
    return found


def _fits(knob: cli.OptionSpec, told: Optional[str], value: Any) -> bool:
    """Whether a flag as typed gives this value."""
    if knob.metavar is None or told is None:
        return knob.metavar is None and told is None and bool(value)
    if knob.flag == "--cell-id-prefix" and value is None:
        return True                      # typed, and what it would have been anyway
    if knob.flag == "--phases":
        try:
            names = parse_phases(told)
        except ValueError:
            return False
        return ",".join(["hello", *(n for n in names if n != "hello")]) == str(value)
    if isinstance(value, str):
        return bool(told == value)
    try:
        return bool(float(told) == value)
    except ValueError:
        return False


# --- what follows from what ----------------------------------------------------------------------
def _consequences(manifest: Json) -> list[tuple[str, str]]:
    cache, engine = manifest["prompt_cache"], manifest["engine"]
    method = queries.cache_switch(engine["name"], cache["policy"], "x")[0]
    found = []
    if cache["method"] != method:
        found.append(("manifest-differs", f"prompt_cache.method is {cache['method']}, of "
                                          f"{schema.shown(engine['name'])} it is {method}"))
    if [context["model"] for context in manifest["contexts"]] != manifest["models"]:
        found.append(("manifest-differs", "contexts are not those of the models"))
    asked = chosen_options(manifest)["num_ctx"]
    for context in manifest["contexts"]:
        if context["requested_tokens"] != asked:
            found.append(("manifest-differs", f"a context of {context['requested_tokens']} tokens "
                                              f"was asked for, the options say {asked}"))
        found += calls.context_problems(context)
    return found
