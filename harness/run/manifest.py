"""manifest.json: assemble it, let a resume inherit its options, and compare it with a resume.

Pure functions over options and a server's recorded answers; the runner asks and writes.
"""
from __future__ import annotations

import dataclasses
import difflib
import platform
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Optional

from core import privacy, records, schema
from core.errors import HarnessError
from core.names import (
    cell_id_prefix_problem,
    device_tag_problem,
    handle_problem,
    plain_engine,
    target_class,
    this_machine,
)
from core.plan import parse_phases, plan_of
from core.records import Manifest
from core.suites import Question
from core.text import printable
from engines import answers, queries
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
    tag = "local" if options.device_tag == Options.device_tag else options.device_tag
    return {
        "schema_version": SCHEMA_VERSION, "harness_version": context.harness_version,
        "run_id": context.run_id,
        "submitter_handle": options.submitter_handle, "device_tag": options.device_tag,
        "cell_id_prefix": options.cell_id_prefix or f"{tag}:{plain_engine(name)}",
        "started_at": context.started_at, "synthetic": context.synthetic, "smoke": options.smoke,
        "files_sha256": files_sha256, "git": git,
        "python": {"version": platform.python_version(),
                   "implementation": platform.python_implementation()},
        "os": {"system": platform.system(), "machine": platform.machine() or None},
        "host_hostname_short": None if options.no_hostname else
        (context.host_name.split(".")[0][:63] or None),
        "target": {"class": target_class(target.host, context.resolved_ip),
                   "scheme": target.scheme, "port": target.port,
                   "path": privacy.redact(target.path)[:200] or None},
        "engine": engine, "models": list(served),
        "contexts": [{"model": model, **queries.context_in_force(
            name, served_id, probes[model], options.num_ctx)}
            for model, served_id in served.items()],
        "plan": plan_of(parse_phases(options.phases), context.suites, options.lanes,
                        options.repeats, options.num_predict, options.smoke),
        "canonical_options": canonical,
        "canonical_options_overrides": {
            key: getattr(options, key) for key, value in canonical.items()
            if getattr(options, key) != value},
        "prompt_cache": {"policy": options.prompt_cache,
                         "method": queries.cache_switch(name, options.prompt_cache, "x")[0]},
        "timeout_s": options.timeout,
        "kept_awake_by": context.kept_awake_by,
        "hostname_omitted": options.no_hostname,
        "api_key_used": options.api_key_env is not None}


def inherit_options(options: Options, manifest: Manifest) -> Options:
    """The options of a resume: those given now, and otherwise those that the manifest holds."""
    plan, target = manifest["plan"], manifest["target"]
    kept: dict[str, Any] = {
        **manifest["canonical_options"], **manifest["canonical_options_overrides"],
        "models": ",".join(manifest["models"]), "repeats": plan["repeats"],
        "lanes": plan["lanes"], "phases": ",".join(entry["phase"] for entry in plan["phases"]),
        "timeout": manifest["timeout_s"], "prompt_cache": manifest["prompt_cache"]["policy"],
        "submitter_handle": manifest["submitter_handle"], "device_tag": manifest["device_tag"],
        "cell_id_prefix": manifest["cell_id_prefix"], "smoke": manifest["smoke"],
        "no_hostname": manifest["host_hostname_short"] is None, "rehearse": manifest["synthetic"]}
    if target["class"] == "loopback" and not manifest["synthetic"]:     # no other address is kept
        kept["target_url"] = (f"{target['scheme']}://127.0.0.1:{target['port']}"
                              f"{target['path'] or ''}")
    return dataclasses.replace(options, **{name: value for name, value in kept.items()
                                           if name not in options.given})


def require_same_run(earlier: Manifest, now: Manifest) -> None:
    """Raise HarnessError if a resume would ask something else than the run did before."""
    before, after = ({**one, "engine": one["engine"]["name"]} for one in (earlier, now))
    if earlier["synthetic"] and now["synthetic"]:      # the built-in endpoint has another port
        after["target"] = earlier["target"]
    names = [name for name in (*MUST_AGREE, "engine") if before[name] != after[name]]
    if names:
        was, is_now = schema.difference(names[0], before[names[0]], after[names[0]])
        more = f" ({', '.join(names)} differ)" if len(names) > 1 else ""
        raise HarnessError(f"run {now['run_id']} cannot be resumed like this: {was}, now it is "
                           f"{is_now}{more}. Resume it with its own options and files, or leave "
                           "out --run-id for a new run")


def require_valid_names(options: Options) -> None:
    """Raise HarnessError if handle, tag or prefix may not be published."""
    names = this_machine()
    problems = [handle_problem(options.submitter_handle),
                device_tag_problem(options.device_tag, names)]
    if options.cell_id_prefix:
        problems.append(cell_id_prefix_problem(options.cell_id_prefix, names))
    for problem in filter(None, problems):
        raise HarnessError(problem)


# --- models --------------------------------------------------------------------------------------
def choose_models(asked: Optional[str], listed: Sequence[queries.ServedModel]
                  ) -> tuple[dict[str, str], list[str]]:
    """({published id: served id} in running order, published ids of models that do not chat).

    asked: the value of --models; listed: queries.served_models. Raises HarnessError.
    """
    ids = [model["id"] for model in listed]
    shown = ", ".join(printable(answers.published_model_id(i)) for i in ids) or "none"
    if asked == "auto":
        chosen = [model["id"] for model in listed if model["chat"]]
        if not chosen:
            raise HarnessError("--models auto: the endpoint lists no chat model (it lists: "
                               f"{shown})")
    elif asked is not None:
        chosen = [_served_id(name.strip(), ids) for name in asked.split(",") if name.strip()]
        if not chosen:
            raise HarnessError(f"--models names no model; the endpoint serves: {shown}")
    elif len(ids) == 1:
        chosen = ids
    elif ids:
        raise HarnessError("the endpoint serves several models; pass some to --models, or pass "
                           f"auto for all chat models: {shown}")
    else:
        raise HarnessError("the endpoint lists no models; pass the name of one to --models")
    served: dict[str, str] = {}
    for served_id in dict.fromkeys(chosen):
        name = answers.published_model_id(served_id)
        if name in served:
            raise HarnessError(f"two models would be published as {printable(name)}; serve one of "
                               "them under another name")
        served[name] = served_id
    skipped = [answers.published_model_id(m["id"]) for m in listed if not m["chat"]]
    return served, skipped if asked == "auto" else []


def _served_id(name: str, ids: Sequence[str]) -> str:
    for served_id in ids:
        if name in (served_id, answers.published_model_id(served_id)) or (
                f"{name}:latest" == served_id):
            return served_id
    if not ids:
        return name                      # some servers list nothing and still serve
    nearest = difflib.get_close_matches(name, ids, len(ids), 0.0) or ids
    shown = ", ".join(printable(answers.published_model_id(i)) for i in nearest)
    raise HarnessError(f"--models {printable(name)}: the endpoint does not serve it; it serves: "
                       f"{shown}")
