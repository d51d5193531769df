"""Choose the models to measure from those that a server lists, and explain each refusal."""
from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any, Optional

from core.errors import HarnessError
from core.text import printable, readable
from engines import queries
from run import redaction
from run.cli import Options, command_with

MOST_COMMANDS = 12                # printed for a choice of models


def measurable(model: Mapping[str, Any]) -> bool:
    """Whether a listed model can be chosen automatically."""
    return not skip_reason(model)


def skip_reason(model: Mapping[str, Any]) -> Optional[str]:
    """Why a listed model is not measured; None if it can be. Names no host: it is published."""
    if model["remote"]:
        return f"another machine computes it ({model['remote'].split()[0]})"
    if not model["chat"]:
        return "it is not a chat model, by its engine or by its name"
    if model["state"] == "not running":
        return "no instance of it runs, and a call does not start one"
    if model["state"] == "failed":
        return "the server reports that it failed to load"
    if model["same_as"]:
        return f"it has the same weights as {redaction.model_id(model['same_as'])}"
    return None


def require_local(model: str, remote: Optional[str]) -> None:
    """Raise HarnessError for a model that another machine computes."""
    if remote:
        raise HarnessError(f"--models {readable(model)}: another machine computes it "
                           f"({readable(remote)}), so its speed is not that of this machine; "
                           "results from hosted models are not accepted. Choose a local model")


def model_notes(name: str, model: queries.ServedModel,
                listed: Sequence[queries.ServedModel]) -> list[str]:
    """What to know of a chosen model before it is measured. name: its published id."""
    shown, notes = readable(name), []
    if model["chat_template"] is False:
        notes.append(f"{shown}: no chat template (a base model): most of its answers run to the "
                     "limit, so the run takes long; --num-predict 256 makes it shorter")
    same = [redaction.model_id(one["id"]) for one in listed
            if (one["same_as"] or one["id"]) == (model["same_as"] or model["id"])
            and one["id"] != model["id"]]
    if same:
        notes.append(f"{shown}: the same weights as {', '.join(map(readable, same))}")
    return notes


def choose_models(options: Options, listed: Sequence[queries.ServedModel]
                  ) -> tuple[dict[str, str], dict[str, str]]:
    """({published id: served id} in running order, {published id: why it is skipped}).

    Raises HarnessError if --models does not name models that can be measured.
    """
    asked, by_id = options.models, {model["id"]: model for model in listed}
    names, skipped = redaction.model_names(by_id), {}
    shown = ", ".join(readable(name) for name in names.values()) or "none"
    if asked == "auto":
        reasons = {served_id: skip_reason(model) for served_id, model in by_id.items()}
        chosen = [served_id for served_id, reason in reasons.items() if reason is None]
        skipped = {names[served_id]: reason for served_id, reason in reasons.items() if reason}
        if not chosen:
            raise HarnessError("--models auto: the endpoint lists no chat model (it lists: "
                               f"{shown})")
    elif asked is not None:
        whole = _find(asked, names)              # some ids hold a comma
        chosen = [whole] if whole else [_served_id(name, names) for name in _split(asked)]
        if not chosen:
            raise HarnessError(f"--models names no model; the endpoint serves: {shown}")
        for served_id in chosen:
            if served_id in by_id:
                require_local(names[served_id], by_id[served_id]["remote"])
        # Of aliases, the name under which the server answers.
        chosen = [by_id[served_id]["same_as"] or served_id
                  if served_id in by_id and by_id[served_id]["is_alias"] else served_id
                  for served_id in chosen]
    elif len(by_id) == 1:
        chosen = list(by_id)
        require_local(names[chosen[0]], by_id[chosen[0]]["remote"])
    elif by_id:
        chosen = [_only_choice(options, listed, names)]
    else:
        raise HarnessError("the endpoint lists no models; pass the name of one to --models")
    return {names.get(served_id, redaction.model_id(served_id)): served_id
            for served_id in dict.fromkeys(chosen)}, skipped


def _only_choice(options: Options, listed: Sequence[queries.ServedModel],
                 names: Mapping[str, str]) -> str:
    """The model to measure without --models: the loaded one, or the only one that chats."""
    able = [model for model in listed if measurable(model)]
    loaded = [model for model in able if model["state"] == "loaded"]
    for only in (loaded, able):
        if len(only) == 1:
            return only[0]["id"]
    if not able:
        shown = ", ".join(f"{readable(names[m['id']])} ({skip_reason(m)})" for m in listed)
        raise HarnessError(f"none of the models that the endpoint lists can be measured: {shown}")
    rows = commands_for([{**model, "id": names[model["id"]]} for model in able], options)
    raise HarnessError("\n".join([
        f"the endpoint serves {len(able)} models"
        f"{f' and {len(loaded)} are loaded' if loaded else ''}; choose one, or all of them with "
        "--models auto:", *rows]))


def commands_for(models: Sequence[Mapping[str, Any]], options: Options, **changes: Any
                 ) -> list[str]:
    """One complete command per model, smallest first, base models last. ids: published."""
    ordered = sorted(models, key=lambda model: (
        model["chat_template"] is False, not model["size_bytes"], model["size_bytes"] or 0))
    lines: list[str] = []
    for model in ordered[:MOST_COMMANDS]:
        words = ", ".join(size_and_state(model))
        lines += [f"{readable(model['id'])}{f' ({words})' if words else ''}:",
                  "  " + command_with(options, models=model["id"], **changes)]
    more = len(ordered) - MOST_COMMANDS
    return lines + ([f"and {more} more, which --probe lists"] if more > 0 else [])


def size_and_state(model: Mapping[str, Any]) -> list[str]:
    """`4.7 GB`, `loaded`, `no chat template`: what decides which model to choose."""
    size = model["size_bytes"]
    return [*([f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"] if size else []),
            *([model["state"]] if model["state"] else []),
            *(["no chat template: a base model"] if model["chat_template"] is False else [])]


def _split(asked: str) -> list[str]:
    return [name.strip() for name in asked.split(",") if name.strip()]


def named_models(asked: Optional[str], ids: Sequence[str]) -> list[str]:
    """The listed ids that a value of --models may mean: all without one, and for auto."""
    if asked in (None, "auto"):
        return list(ids)
    names = redaction.model_names(ids)
    found = (_find(name, names) for name in [asked or "", *_split(asked or "")])
    return [served_id for served_id in found if served_id]


def _find(name: str, names: Mapping[str, str]) -> Optional[str]:
    """The served id that is meant by a name, as served, published or printed."""
    for served_id, shown in names.items():
        if name in (served_id, shown, printable(shown), printable(served_id)) or (
                f"{name}:latest" == served_id):
            return served_id
    return None


def _served_id(name: str, names: Mapping[str, str]) -> str:
    """The id that requests must use. names: published name by served id."""
    found = _find(name, names)
    if found is not None or not names:
        return found or name             # some servers list nothing and still serve
    alike = [served_id for served_id in names if redaction.model_id(served_id) == name]
    if alike:
        raise HarnessError(f"--models {readable(name)}: the endpoint serves {len(alike)} models of "
                           f"this name: {', '.join(readable(names[i]) for i in alike)}")
    nearest = difflib.get_close_matches(name, list(names), len(names), 0.0) or list(names)
    shown = ", ".join(readable(names[served_id]) for served_id in nearest)
    raise HarnessError(f"--models {readable(name)}: the endpoint does not serve it; it serves: "
                       f"{shown}")
