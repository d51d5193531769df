"""manifest.json: what a run was asked to do, assembled, taken up again, and held against a resume.

Pure functions over parsed flags and a server's recorded answers; the runner asks and writes.
"""
from __future__ import annotations

import argparse
import difflib
import platform
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Optional

from core import privacy, schema
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
from core.suites import Question
from core.text import printable
from engines import answers, queries

from run import cli

Json = dict[str, Any]

SCHEMA_VERSION = "1"

# What a resume may not change. Not among them: where the server is (its address is not kept), the
# time, git and Python, which say nothing of what is asked.
MUST_AGREE = ("harness_version", "files_sha256", "submitter_handle", "device_tag",
              "cell_id_prefix", "synthetic", "smoke", "target", "models", "plan",
              "canonical_options_overrides", "prompt_cache", "timeout_s", "host_hostname_short")


class RunContext(NamedTuple):
    """What the runner knows before it asks the server what it is."""

    run_id: str
    harness_version: str
    canonical_options: Json
    suites: dict[str, tuple[Question, ...]]
    started_at: str
    synthetic: bool
    target: cli.Target
    resolved_ip: Optional[str]
    host_name: str


def assemble(args: argparse.Namespace, found: RunContext, engine: queries.Identity,
             served: dict[str, str], probes: Mapping[str, answers.Probes],
             files_sha256: dict[str, str], git: Json) -> Json:
    """manifest.json of a run with settled flags.

    served: published model id -> served id; probes: the server's answers by published model id.
    """
    name, target, canonical = engine["name"], found.target, found.canonical_options
    options = {key: getattr(args, key) for key in canonical}
    tag = "local" if args.device_tag == "unnamed-device" else args.device_tag
    return {
        "schema_version": SCHEMA_VERSION, "harness_version": found.harness_version,
        "run_id": found.run_id,
        "submitter_handle": args.submitter_handle, "device_tag": args.device_tag,
        "cell_id_prefix": args.cell_id_prefix or f"{tag}:{plain_engine(name)}",
        "started_at": found.started_at, "synthetic": found.synthetic, "smoke": bool(args.smoke),
        "files_sha256": files_sha256, "git": git,
        "python": {"version": platform.python_version(),
                   "implementation": platform.python_implementation()},
        "os": {"system": platform.system(), "machine": platform.machine() or None},
        "host_hostname_short": None if args.no_hostname else
        (found.host_name.split(".")[0][:63] or None),
        "target": {"class": target_class(target.host, found.resolved_ip),
                   "scheme": target.scheme, "port": target.port,
                   "path": privacy.redact(target.path)[:200] or None},
        "engine": engine, "models": list(served),
        "contexts": [{"model": model, **queries.context_in_force(
            name, served_id, probes[model], args.num_ctx)} for model, served_id in served.items()],
        "plan": plan_of(parse_phases(args.phases), found.suites, args.lanes,
                               args.repeats, args.num_predict, bool(args.smoke)),
        "canonical_options": canonical,
        "canonical_options_overrides": {k: v for k, v in options.items() if v != canonical[k]},
        "prompt_cache": {"policy": args.prompt_cache,
                         "method": queries.cache_switch(name, args.prompt_cache, "x")[0]},
        "timeout_s": args.timeout, "hostname_omitted": bool(args.no_hostname),
        "api_key_used": args.api_key_env is not None}


def inherit_options(args: argparse.Namespace, manifest: Json) -> None:
    """Flags that were not typed get the values that an earlier process of the run had."""
    plan = manifest["plan"]
    kept = {**manifest["canonical_options"], **manifest["canonical_options_overrides"],
            "models": ",".join(manifest["models"]), "repeats": plan["repeats"],
            "lanes": plan["lanes"],
            "phases": ",".join(entry["phase"] for entry in plan["phases"]),
            "timeout": manifest["timeout_s"], "prompt_cache": manifest["prompt_cache"]["policy"],
            "submitter_handle": manifest["submitter_handle"], "device_tag": manifest["device_tag"],
            "cell_id_prefix": manifest["cell_id_prefix"], "smoke": manifest["smoke"],
            "no_hostname": manifest["host_hostname_short"] is None,
            "rehearse": manifest["synthetic"], "target_url": _own_url(manifest)}
    for name, value in kept.items():
        if getattr(args, name) is None or getattr(args, name) is False:
            setattr(args, name, value)


def _own_url(manifest: Json) -> Optional[str]:
    """The URL of an endpoint on this machine; where another one is, a manifest does not tell."""
    target = manifest["target"]
    if target["class"] != "loopback" or manifest["synthetic"]:
        return None
    return f"{target['scheme']}://127.0.0.1:{target['port']}{target['path'] or ''}"


def require_same_run(earlier: Json, now: Json) -> None:
    """A run goes on as it began, or not at all; raises Stop naming what differs."""
    if earlier["synthetic"] and now["synthetic"]:      # the embedded endpoint has another port
        now = {**now, "target": earlier["target"]}
    names = [name for name in MUST_AGREE if earlier[name] != now[name]]
    was, is_now = {**earlier, "engine": earlier["engine"]["name"]}, {
        **now, "engine": now["engine"]["name"]}
    names += ["engine"] if was["engine"] != is_now["engine"] else []
    if names:
        before, after = schema.difference(names[0], was[names[0]], is_now[names[0]])
        more = f" ({', '.join(names)} differ)" if len(names) > 1 else ""
        raise HarnessError(f"run {now['run_id']} cannot go on like this: {before}, now it is {after}"
                      f"{more}. Resume it with the flags and files it was begun with, or leave "
                      "--run-id out for a new run")


def require_valid_names(args: argparse.Namespace) -> None:
    """Handle, tag and prefix are looked at before anything is sent or written; raises Stop."""
    names = this_machine()
    problems = [handle_problem(args.submitter_handle),
                device_tag_problem(args.device_tag, names)]
    if args.cell_id_prefix:
        problems.append(cell_id_prefix_problem(args.cell_id_prefix, names))
    for problem in filter(None, problems):
        raise HarnessError(problem)


# --- models --------------------------------------------------------------------------------------
def choose_models(asked: Optional[str], listed: Sequence[queries.ServedModel]
                  ) -> tuple[dict[str, str], list[str]]:
    """({published id: served id} in running order, published ids left out since they do not chat).

    asked: the value of --models; listed: engines.served_models. Raises Stop.
    """
    ids = [model["id"] for model in listed]
    shown = ", ".join(printable(answers.published_model_id(i)) for i in ids) or "none"
    if asked == "auto":
        chosen = [model["id"] for model in listed if model["chat"]]
        if not chosen:
            raise HarnessError(f"--models auto: the endpoint lists no model that chats (it lists: {shown})")
    elif asked is not None:
        chosen = [_named(name.strip(), ids, shown) for name in asked.split(",") if name.strip()]
        if not chosen:
            raise HarnessError(f"--models names none; served: {shown}")
    elif len(ids) == 1:
        chosen = ids
    elif ids:
        raise HarnessError(f"the endpoint serves several models; name some with --models, or type "
                      f"--models auto for all that chat: {shown}")
    else:
        raise HarnessError("the endpoint lists no models; type --models NAME")
    skipped = [answers.published_model_id(m["id"]) for m in listed if not m["chat"]]
    return _published(chosen), skipped if asked == "auto" else []


def _published(chosen: Sequence[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for served_id in dict.fromkeys(chosen):
        name = answers.published_model_id(served_id)
        if name in found:
            raise HarnessError(f"two models would both be published as {printable(name)}; serve one of "
                          "them under another name")
        found[name] = served_id
    return found


def _named(name: str, ids: Sequence[str], shown: str) -> str:
    for served_id in ids:
        published = answers.published_model_id(served_id)
        if name in (served_id, published) or f"{name}:latest" == served_id:
            return served_id
    if not ids:
        return name                      # some servers list nothing and serve all the same
    near = difflib.get_close_matches(name, ids, len(ids), 0.0)
    ordered = ", ".join(printable(answers.published_model_id(i)) for i in near) or shown
    raise HarnessError(f"--models {printable(name)}: the endpoint does not serve it; it serves: {ordered}")
