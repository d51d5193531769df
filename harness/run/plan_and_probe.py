"""Text of --plan and --probe, and the other messages before a run's first call.

Nothing is measured or decided here. Text from a server goes through `printable` before it is shown.
"""
from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Sequence
from typing import Any, Optional

from core import plan, result_tables, suites
from core import text as texts
from core.errors import HarnessError, StorageError
from core.names import is_generic_model
from core.records import Json, Manifest
from core.text import command, duration, printable, readable
from engines import queries
from run import cli, estimates
from run.model_choice import commands_for, measurable, size_and_state

CLONE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SHORTER = (suites.DEFAULT_PHASES, ("hello", "5q"))      # phases for those who have less time
CALIBRATION_S = 1.2               # for each number of lanes
TRIAL = ("This run is a trial: it names no contributor, so it cannot be submitted. To submit one, "
         "run with --submitter-handle and --device-tag.")


def begin_line(run_id: str, left: int, total: int, calibrated: Optional[Manifest]) -> str:
    """`run ID: 5 of 38 planned calls`, and what comes first. calibrated: None without it."""
    line = f"run {run_id}: {f'{left} of ' * (left < total)}{total} planned call{'s' * (total > 1)}"
    if calibrated is None:
        return line
    seconds = 1 + round(CALIBRATION_S * len(plan.calibrated_lanes(calibrated["plan"])))
    return f"{line}; measuring this client's timing error first ({seconds} s)"


def plan_text(manifest: Manifest, calls_count: int, found: Optional[estimates.Estimate],
              fewer: Sequence[Optional[estimates.Estimate]], notes: Sequence[str],
              options: cli.Options) -> str:
    """The planned calls, one line per phase, how long they may take, and the command of the run.
    fewer: estimates for SHORTER."""
    needs_time = found is not None and found.longest_s > manifest["timeout_s"]
    longer: dict[str, Any] = {"timeout": estimates.LONG_TIMEOUT_S} if needs_time else {}
    rows: list[tuple[str, ...]] = [("phase", "calls", "lanes", "limit", "description")]
    for entry in manifest["plan"]["phases"]:
        name = entry["phase"]
        skipped = plan.skip_reason(name, manifest["models"], manifest["plan"]["lanes"])
        calls = len(plan.cells_of(manifest["plan"], name, manifest["models"][:1], "x"))
        rows.append((name, "0" if skipped else str(calls), str(entry["lanes"]),
                     f"{entry['max_tokens']} tokens", skipped or suites.PHASES[name].text))
    return "\n".join([f"models: {', '.join(map(readable, manifest['models']))}",
                      *texts.align_columns(rows, (1, 2), texts.terminal_width()),
                      f"{calls_count} calls for all models",
                      estimates.estimate_line(found, manifest["timeout_s"]),
                      *_fewer_phases(manifest, fewer), *notes,
                      *trial_note(manifest), *write_note(options),
                      "next: " + cli.command_with(options, plan=None, json=None, detach=True,
                                                  **longer)])


def _fewer_phases(manifest: Manifest,
                  fewer: Sequence[Optional[estimates.Estimate]]) -> list[str]:
    """How long the shorter lists of phases take, as far as they are parts of the plan."""
    planned = [entry["phase"] for entry in manifest["plan"]["phases"]]
    times = [f"{duration(found.typical_s)} with --phases {','.join(names)}"
             for names, found in zip(SHORTER, fewer)
             if found and len(names) < len(planned) and set(names) <= set(planned)]
    return [f"With fewer phases: {', '.join(times)}"] if times else []


def served_text(found: Sequence[Json], options: cli.Options) -> str:
    """What a probe found: each endpoint with its models."""
    lines = []
    for one in found:
        engine, slots = one["engine"], one["slots"].get("count")
        if one.get("needs_key"):
            lines.append(f"{printable(one['url'])}: requires a key; put it into an environment "
                         "variable and pass the variable's name to --api-key-env")
            continue
        version = f" {printable(engine['version'])}" if engine["version"] else ""
        lines.append(f"{printable(one['url'])}: {printable(engine['name'])}{version}"
                     + (f", {slots} slot{'s' * (slots > 1)}" if slots else ""))
        more_slots = queries.parallel_remedy(engine["name"], options.lanes, options.num_ctx)
        if more_slots and (not slots or slots < options.lanes):
            lines.append(f"  parallel requests wait for each other. {more_slots}" if slots else
                         "  how many requests it works on at once is not reported. For "
                         f"{options.lanes}: {more_slots}")
        for model in one["models"]:
            shown = _model_words(model)
            lines.append(f"  {readable(model['id'])}" + (f"  ({', '.join(shown)})" if shown
                                                         else ""))
            if model["context"]["remedy"]:
                lines.append(f"    {readable(model['context']['remedy'], 500)}")
        if not one["models"]:
            lines.append("  no models listed: probe again if the server is still loading, or pass "
                         "the model's name to --models")
    return "\n".join(lines)


def hello_text(found: Sequence[Json], hello: Optional[Any], options: cli.Options) -> str:
    """The one hello call of a probe, if it was made, and the next command."""
    if len(found) > 1:
        return "\n".join(["several endpoints; to choose one:", *(
            "  " + cli.command_with(options, target_url=one["url"], probe=True) for one in found)])
    behind = {model["behind"] for one in found for model in one["models"] if model["behind"]}
    if behind:
        return "\n".join(["a proxy; probe the server behind it, and measure that:", *(
            "  " + cli.command_with(options, target_url=url, models=None, probe=True)
            for url in sorted(behind))])
    able = [model for one in found for model in one["models"] if measurable(model)]
    plan_it: dict[str, Any] = {"target_url": found[0]["url"], "probe": None, "json": None,
                               "plan": True,
                               "phases": options.phases if "phases" in options.given else "all"}
    if hello:
        lines = [result_tables.call_line(1, 1, hello)]
        answered = (hello.get("response") or {}).get("model")
        files = [model["facts"].get("file_name") for model in able if model["id"] == hello["model"]]
        if "model_mismatch" in hello.get("flags", ()) and answered and not (
                answered in files or is_generic_model(answered)):
            lines.append(f"  asked of {readable(hello['model'])}, answered by {readable(answered)}:"
                         " the name in the list is not that of the loaded model")
        able = [model for model in able if model["id"] == hello.get("model")]
        if hello["outcome"] != "ok" or not able:
            return "\n".join(lines)
        return "\n".join([*lines, *write_note(options), "next: " + cli.command_with(
            options, models=hello["model"], **plan_it)])
    return "\n".join([*(["No model is loaded, and a probe loads none. Choose one; its command "
                         "loads it:"] if able else []), *commands_for(able, options, **plan_it),
                      *write_note(options)])


def _model_words(model: Json) -> list[str]:
    """What is known of a listed model, in the order in which it matters."""
    facts, context = model["facts"], model["context"]
    words = size_and_state(model)
    words += [printable(str(facts[name])) for name in ("quantization", "family") if facts[name]]
    if context["effective_tokens"]:
        words.append(f"context {context['effective_tokens']} tokens")
    if facts["trained_context_tokens"]:
        words.append(f"trained for {facts['trained_context_tokens']}")
    if model["same_as"]:
        words.append(f"the same weights as {readable(model['same_as'])}")
    if model["behind"]:
        words.append(f"from {readable(model['behind'])}")
    if model["remote"]:
        words.append(f"computed elsewhere: {readable(model['remote'])}; it cannot be submitted")
    return words + ([] if model["chat"] else ["not a chat model"])


def no_endpoint(url: Optional[str], options: cli.Options, failure: Optional[tuple[str, str]],
                found: Sequence[Json]) -> str:
    """What to do if no server answers.

    url: None if no URL was given; found: the servers on the usual ports of this machine.
    """
    tried = f"tried ports {', '.join(map(str, queries.USUAL_PORTS))}"
    lines = [f"no model server found on this machine ({tried})" if url is None else
             f"no endpoint at {printable(url)} ({failure[1] if failure else 'no answer'})"]
    if found:
        lines.append("found on this machine, with a command for each model:")
        for one in found:
            lines.append(f"  {one['url']}  {printable(one['engine']['name'])}")
            lines += ["    " + line for line in (
                [cli.command_with(options, target_url=one["url"])] if options.models else
                commands_for(list(filter(measurable, one["models"])), options,
                             target_url=one["url"]))]
    else:
        if url is not None:
            lines.append(f"no model server found on this machine either ({tried})")
        lines += ["a server elsewhere: --target-url http://ADDRESS:PORT, and --api-key-env NAME if "
                  "it requires a key", "to start one here:", queries.start_hint()]
    return "\n".join([*lines, "to try everything without a server: "
                      + command("run_benchmark", "--rehearse")])


def unwritable(folder: str, error: OSError) -> HarnessError:
    """The error for a run folder that cannot be written: a wrong --out-dir, a full disk, or a clone
    without write permission.
    """
    what = f"{printable(folder)} cannot be written ({error.strerror})"
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return HarnessError(f"--out-dir: {what}; use another folder")
    if isinstance(error, PermissionError) or error.errno == errno.EROFS:
        return StorageError(f"{what}; {_where_to_write(folder)}")
    return StorageError(f"{what}; free some space, or pass another folder to --out-dir")


def trial_note(manifest: Manifest) -> list[str]:
    """A line for the plan and the end of a run that cannot be submitted."""
    is_trial = manifest["submitter_handle"] == cli.Options.submitter_handle
    return [TRIAL] * (is_trial and not manifest["synthetic"])


def write_note(options: cli.Options) -> list[str]:
    """A line for --probe and --plan if the folder of a run cannot be written."""
    folder = os.path.join(os.path.abspath(options.out_dir), options.submitter_handle,
                          options.device_tag)
    while not os.path.exists(folder) and os.path.dirname(folder) != folder:
        folder = os.path.dirname(folder)
    return [] if os.access(folder, os.W_OK | os.X_OK) else [
        f"{printable(folder)} cannot be written, and a run writes there; {_where_to_write(folder)}"]


def _where_to_write(folder: str) -> str:
    """What to do if a folder does not belong to this user."""
    return "copy this clone and work in the copy: " + copy_command() if os.path.abspath(
        folder).startswith(os.path.join(CLONE, "")) else "pass another folder to --out-dir"


def copy_command() -> str:
    """The command that copies this clone to a folder of the user's own, and changes to the copy."""
    home = os.path.expanduser("~")
    copy = os.path.join(home if os.access(home, os.W_OK) else tempfile.gettempdir(),
                        os.path.basename(CLONE) + "-copy")
    clone, copy = map(texts.shell_word, (CLONE, copy))
    return (f"Copy-Item -Recurse -LiteralPath {clone} {copy}; "
            f"Set-Location -LiteralPath {copy}" if os.name == "nt" else
            f"cp -R {clone} {copy} && chmod -R u+w {copy} && cd {copy}")
