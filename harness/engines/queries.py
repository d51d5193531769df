"""Questions about a server: pure functions over its recorded answers, which the runner collects.

The runner requests `PROBE_PATHS`, relative to the server's root, keeps the answers as
{path: Probe}, and asks the functions here. All of them are total, and "unknown" is an answer.
"""
from __future__ import annotations

import re
from typing import Any, Callable, Optional, TypedDict

from engines import answers
from engines.servers import ENGINES, UNKNOWN, Engine, Facts

# The engines that most people use: the first to be looked for, and those suggested to start.
MOST_USED = ("Ollama", "llama.cpp", "LM Studio", "vLLM")
USUAL_PORTS: dict[int, tuple[str, ...]] = {}
for _name in dict.fromkeys((*MOST_USED, *ENGINES)):
    _port = ENGINES[_name].usual_port
    if _port:
        USUAL_PORTS[_port] = (*USUAL_PORTS.get(_port, ()), _name)

# Engine -> path, and the body for a model, of a POST that describes one model without loading it.
# Its answer belongs to the probes under that path; each model needs its own.
EXTRA_POSTS: dict[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    name: (engine.show_path, lambda model_id: {"model": model_id})
    for name, engine in ENGINES.items() if engine.show_path}


class Identity(TypedDict):
    """The server program; name "unknown" and three nulls where it is not recognised."""

    name: str
    version: Optional[str]
    build: Optional[str]
    recognised_by: Optional[str]


class ServedModel(TypedDict):
    """A listed model: the id that requests must use, and whether it chats."""

    id: str
    chat: bool


class Slots(TypedDict):
    """How many requests the server works on at once."""

    count: Optional[int]
    source: Optional[str]


class Context(TypedDict):
    """The context of one request; `remedy` is a sentence where it is less than requested."""

    requested_tokens: Optional[int]
    effective_tokens: Optional[int]
    source: Optional[str]
    reason: Optional[str]
    remedy: Optional[str]


def engine_named(name: Any) -> Engine:
    """The engine of that name; one without any knowledge where there is none."""
    return ENGINES.get(name, UNKNOWN) if isinstance(name, str) else UNKNOWN


def identify(probes: answers.Probes) -> Identity:
    """Recognise the engine, and its version and build where it reports them."""
    for name, engine in ENGINES.items():
        mark = engine.recognise(probes)
        if mark:
            version, build = engine.version(probes)
            return {"name": name, "version": version, "build": build, "recognised_by": mark}
    return {"name": UNKNOWN.name, "version": None, "build": None, "recognised_by": None}


# Conservative: leaving out a chat model is worse than an embedding model that fails at its hello.
NO_CHAT_NAME = re.compile(
    r"(?:^|[^a-z])(?:(?:text-)?embed|rerank|whisper|bge-|minilm|stable-diffusion|tts[^a-z])",
    re.IGNORECASE)


def _reported_chat(entry: dict[str, Any]) -> Optional[bool]:
    """Whether an entry of any server's list says that its model chats; None if it does not say."""
    capabilities = entry.get("capabilities")
    if isinstance(capabilities, list):                                   # Ollama
        return "completion" in capabilities
    chat_completion = answers.field(capabilities, "chat_completion")     # Azure
    if isinstance(chat_completion, bool):
        return chat_completion
    families = answers.field(entry, "details", "families")
    if isinstance(families, list) and any("bert" in f for f in families if isinstance(f, str)):
        return False
    output = answers.field(entry, "architecture", "output_modalities")   # llama.cpp, OpenRouter
    return False if isinstance(output, list) and output and "text" not in output else None


def served_models(probes: answers.Probes) -> list[ServedModel]:
    """The models in the server's order, each id once.

    Empty where the server lists none: mlx-lm and transformers serve without a model cache.
    """
    reported: dict[str, bool] = {}
    for entry in answers.models_at(probes) + answers.models_at(probes, "/api/tags"):
        chat = _reported_chat(entry)
        if chat is not None:
            reported.update(dict.fromkeys(answers.names_of(entry), chat))
    # LM Studio's type of a model counts most.
    typed = [answers.models_at(probes, path) for path in ("/api/v1/models", "/api/v0/models")]
    for entry in typed[0] + typed[1]:
        if isinstance(entry.get("type"), str):
            chats = entry["type"] in ("llm", "vlm")
            reported.update(dict.fromkeys(answers.names_of(entry), chats))
    ids = (entry.get("id") for entry in answers.models_at(probes))
    unique = dict.fromkeys(i for i in ids if isinstance(i, str) and i)
    return [{"id": i, "chat": reported.get(i, not NO_CHAT_NAME.search(i))} for i in unique]


def model_facts(engine_name: Any, model_id: Any, probes: answers.Probes) -> Facts:
    """What the engine reports about a model, None for the rest.

    `probes` must hold the engine's `EXTRA_POSTS` answer for this model, if it has one.
    """
    facts = engine_named(engine_name).facts(model_id, probes)
    if facts["quantization"] is None:
        root = answers.value_at(probes, "/v1/models root", model_id)   # vLLM: behind an alias
        named = [answers.quantization_in_name(name) for name in (model_id, root)]
        facts["quantization"] = named[0] or named[1]
    return facts


def state_paths(engine_name: Any) -> tuple[str, ...]:
    """The paths whose answers show which models are loaded."""
    return engine_named(engine_name).state_paths


def is_loaded(engine_name: Any, model_id: Any, probes: answers.Probes) -> Optional[bool]:
    """Whether a model is loaded; None if the engine does not report it."""
    state = engine_named(engine_name).state(model_id, probes)
    return None if state is None else state == "loaded"


def slots(engine_name: Any, probes: answers.Probes) -> Slots:
    """How many requests the server works on at once, if it reports it."""
    count, source = engine_named(engine_name).slots(probes)
    return {"count": count, "source": source}


def context_in_force(engine_name: Any, model_id: Any, probes: answers.Probes,
                     requested_tokens: Any) -> Context:
    """The context that one request gets.

    Ollama and LM Studio report it only for a loaded model: ask again after its first answer.
    """
    engine = engine_named(engine_name)
    tokens, source = engine.context(model_id, probes)
    requested = answers.count(requested_tokens)
    reason = remedy = None
    if tokens is None:
        if engine.needs_loading(model_id, probes):
            reason = f"{engine.name} reports the context of a model only while it is loaded"
        elif engine is UNKNOWN:
            reason = "unknown server, which does not report the context in force"
        else:
            reason = f"{engine.name} does not report the context in force"
            advice = requested and _remedy(engine, model_id, probes, requested)
            reason += f"; to be sure: {advice}" if advice else ""
    elif requested and tokens < requested:
        reason = f"the server gives a request {tokens} tokens; {requested} were requested"
        remedy = _remedy(engine, model_id, probes, requested)
    elif requested and tokens > requested:
        reason = f"the server gives a request {tokens} tokens, more than requested"
    return {"requested_tokens": requested, "effective_tokens": tokens, "source": source,
            "reason": reason, "remedy": remedy}


def _remedy(engine: Engine, model_id: Any, probes: answers.Probes, requested: int
            ) -> Optional[str]:
    """How to get a context of so many tokens; None where the engine has no known way."""
    trained = engine.facts(model_id, probes)["trained_context_tokens"]
    if trained and trained < requested:
        return (f"The model was trained for {trained} tokens: choose one with a longer context, "
                f"or request less with `--num-ctx {trained}`.")
    count = engine.slots(probes)[0] or 1
    shown = answers.published_model_id(model_id)
    # The sentence holds a command to paste: no id may smuggle another command into it.
    safe = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*", shown) and shown != answers.NO_NAME
    return engine.remedy.format(tokens=requested, total=requested * count, slots=count,
                                model=shown if safe else "MODEL") or None


def cache_switch(engine_name: Any, policy: str, salt: Any) -> tuple[str, dict[str, Any]]:
    """How to bypass the prompt cache: (method, request fields to add).

    `policy` is "avoid" or "allow"; `salt` is random per conversation. With "engine_switch" the
    fields are enough; with "salt" the caller puts a line of salt ahead of the first message.
    """
    if policy != "avoid":
        return "none", {}
    engine = engine_named(engine_name)
    value = engine.cache_value(salt)
    usable = engine.cache_field and value not in (None, "")
    return ("engine_switch", {engine.cache_field: value}) if usable else ("salt", {})


def start_hint(engine_name: Optional[str] = None) -> str:
    """The command that starts a server of an engine; without one, those of the most used."""
    command = engine_named(engine_name).start_command
    width = max(map(len, MOST_USED))
    return command or "\n".join(
        f"{name:<{width}}  {ENGINES[name].start_command}" for name in MOST_USED)
