"""manifest.json: assemble it, let a resume inherit its options, and compare it with a resume.

Pure functions over options and a server's recorded answers; the runner asks and writes.
"""
from __future__ import annotations

import dataclasses
import platform
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Optional

from core import names, plan, records, schema
from core.errors import HarnessError
from core.records import Manifest
from core.suites import ADDED, PHASES, Question
from engines import answers, queries
from run import redaction
from run.cli import Options, Target

SCHEMA_VERSION: Literal["1"] = "1"

# What a resume may not change. It may change the endpoint's address, which is not kept, and the
# time, git state and Python, on which no question depends.
MUST_AGREE = ("harness_version", "files_sha256", "submitter_handle", "device_tag",
              "cell_id_prefix", "synthetic", "smoke", "target", "models", "plan",
              "canonical_options_overrides", "prompt_cache", "timeout_s", "host_hostname_short")


class RunContext(NamedTuple):
    """What the runner knows before it asks the server what it is."""

    run_id: str
    harness_version: str
    canonical_options: dict[str, Any]
    suites: dict[str, tuple[Question, ...]]
    started_at: str
    synthetic: bool
    target: Target
    resolved_ip: Optional[str]
    host_name: str
    kept_awake_by: Optional[str] = None


def assemble(options: Options, context: RunContext, engine: queries.Identity,
             served: Mapping[str, str], probes: Mapping[str, answers.Probes],
             files_sha256: dict[str, str], git: records.Git) -> Manifest:
    """The manifest of a new run.

    served: published model id -> served id; probes: the server's answers by published model id.
    """
    name, target, canonical = engine["name"], context.target, context.canonical_options
    phases = plan.parse_phases(options.phases)
    depth_context = options.num_ctx if "depth" in phases \
        and options.num_ctx != canonical["num_ctx"] else None
    if depth_context:                  # what depth needs is not an option of the other phases
        options = dataclasses.replace(options, num_ctx=canonical["num_ctx"])
    return {
        "schema_version": SCHEMA_VERSION, "harness_version": context.harness_version,
        "run_id": context.run_id,
        "submitter_handle": options.submitter_handle, "device_tag": options.device_tag,
        "cell_id_prefix": options.cell_id_prefix
        or names.usual_prefix(options.device_tag, name),
        "started_at": context.started_at, "synthetic": context.synthetic, "smoke": options.smoke,
        "files_sha256": files_sha256, "git": git,
        "python": {"version": platform.python_version(),
                   "implementation": platform.python_implementation()},
        "os": {"system": platform.system(), "machine": platform.machine() or None},
        "host_hostname_short": None if options.no_hostname else
        (context.host_name.split(".")[0][:63] or None),
        "target": {"class": names.target_class(target.host, context.resolved_ip),
                   "scheme": target.scheme, "port": target.port,
                   "path": redaction.text(target.path)[:200] or None},
        "engine": redaction.document(engine), "models": list(served),
        "contexts": redaction.document([{"model": model, **queries.context_in_force(
            name, served_id, probes[model], options.num_ctx)}
            for model, served_id in served.items()]),
        "plan": plan.plan_of(phases, context.suites, options.lanes, options.repeats,
                        options.num_predict, options.smoke, depth_context, options.challenge),
        "canonical_options": canonical,
        "canonical_options_overrides": {
            key: getattr(options, key) for key, value in canonical.items()
            if getattr(options, key) != value},
        "prompt_cache": {"policy": options.prompt_cache,
                         "method": queries.cache_switch(name, options.prompt_cache, "x")[0]},
        "timeout_s": options.timeout,
        "kept_awake_by": context.kept_awake_by,
        "api_key_used": options.api_key_env is not None}


def inherit_options(options: Options, manifest: Manifest) -> Options:
    """The options of a resume: those given now, and otherwise those that the manifest holds.

    Without the phases that can be added later: see `with_added`.
    """
    planned, target = manifest["plan"], manifest["target"]
    asked = plan.parse_phases(options.phases) if "phases" in options.given else ()
    others = _without_added(asked)
    given = options.given - ({"phases"} if not set(others) - {"hello"} else set()) \
        - ({"lanes"} if "ramp" in asked else set()) - ({"num_ctx"} if "depth" in asked else set())
    kept: dict[str, Any] = {
        **plan.chosen_options(manifest),
        "models": ",".join(manifest["models"]), "repeats": planned["repeats"],
        "lanes": planned["lanes"], "asked": options,
        "phases": ",".join(_without_added(entry["phase"] for entry in planned["phases"])),
        "timeout": manifest["timeout_s"], "prompt_cache": manifest["prompt_cache"]["policy"],
        "submitter_handle": manifest["submitter_handle"], "device_tag": manifest["device_tag"],
        "cell_id_prefix": manifest["cell_id_prefix"], "smoke": manifest["smoke"],
        "no_hostname": manifest["host_hostname_short"] is None, "rehearse": manifest["synthetic"]}
    if target["class"] == "loopback" and not manifest["synthetic"]:     # no other address is kept
        kept["target_url"] = (f"{target['scheme']}://localhost:{target['port']}"
                              f"{target['path'] or ''}")
    if set(others) - {"hello"}:
        options = dataclasses.replace(options, phases=",".join(others))
    return dataclasses.replace(options, **{name: value for name, value in kept.items()
                                           if name not in given})


def _without_added(names: Iterable[str]) -> list[str]:
    return [name for name in names if PHASES[name].kind not in ADDED]


def with_added(manifest: Manifest, options: Options, events: Iterable[records.LedgerLine],
               suites: Mapping[str, Sequence[Question]]) -> tuple[Manifest, list[records.Phase]]:
    """(the manifest with all phases that were added to a run, those that this resume adds).

    options: of inherit_options, which keep what was given.
    """
    known, asked = plan.extended(manifest, events), options.asked
    if asked is None or "phases" not in asked.given:
        return known, []
    planned = [entry["phase"] for entry in known["plan"]["phases"]]
    texts = [entry["challenge"] for entry in known["plan"]["phases"]
             if entry["phase"] == "challenge"]
    if asked.challenge and texts and texts != [asked.challenge]:
        raise HarnessError(f"run {manifest['run_id']} has answered the challenge '{texts[0]}'; a "
                           "run has one. For another, leave out --run-id")
    missing = [name for name in plan.parse_phases(asked.phases)
               if PHASES[name].kind in ADDED and name not in planned]
    if missing and manifest["smoke"]:
        raise HarnessError(f"run {manifest['run_id']} is a smoke run, to which no phase can be "
                           "added; leave out --run-id for a new run")
    chosen = plan.chosen_options(manifest)
    lanes = asked.lanes if "lanes" in asked.given else manifest["plan"]["lanes"]
    added = [plan.phase_of(name, suites, lanes, int(chosen["num_predict"]),
                           asked.num_ctx if "num_ctx" in asked.given else None, asked.challenge)
             for name in missing]
    return plan.with_phases(known, added), added


def require_same_run(earlier: Manifest, now: Manifest) -> None:
    """Raise HarnessError if a resume would ask something else than the run did before."""
    before, after = ({**one, "engine": one["engine"]["name"], "plan": {
        **one["plan"], "phases": [entry for entry in one["plan"]["phases"]
                                  if PHASES[entry["phase"]].kind not in ADDED]}}
                     for one in (earlier, now))
    if earlier["synthetic"] and now["synthetic"]:      # the built-in endpoint has another port
        after["target"] = earlier["target"]
    changed = [name for name in (*MUST_AGREE, "engine") if before[name] != after[name]]
    if changed:
        was, is_now = schema.difference(changed[0], before[changed[0]], after[changed[0]])
        more = f" ({', '.join(changed)} differ)" if len(changed) > 1 else ""
        raise HarnessError(f"run {now['run_id']} cannot be resumed like this: {was}, now it is "
                           f"{is_now}{more}. Resume it with its own options and files, or leave "
                           "out --run-id for a new run")


def require_valid_names(options: Options) -> None:
    """Raise HarnessError if handle, tag or prefix may not be published."""
    own = names.this_machine()
    problems = [names.handle_problem(options.submitter_handle),
                names.device_tag_problem(options.device_tag, own)]
    if options.cell_id_prefix:
        problems.append(names.cell_id_prefix_problem(options.cell_id_prefix, own))
    for problem in filter(None, problems):
        raise HarnessError(problem)
