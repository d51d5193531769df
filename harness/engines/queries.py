"""What kind of server answers, and what it really does: pure functions over recorded answers.

The runner GETs `PROBE_PATHS` (each relative to the server's root), keeps what came as
`{path: Probe}` and asks the functions here.  Nothing in this file talks to anybody.

Rules that all of it keeps:
- An engine is named only by a mark that it alone leaves.  Several imitate others (KoboldCpp,
  LocalAI and many small programs answer Ollama's paths, LM Studio answers 200 to every path), so
  `ENGINES` is asked in order, the most particular mark first, and "unknown" is an answer.
- A fact is published only when the server told it.  What it did not tell is None, never a guess;
  a quantisation read from a model's name counts as told, because the server told the name.
- Facts are taken field by field.  Whole answers hold private things (SGLang's lists its API keys,
  llama.cpp's a path), so nothing here passes an answer on.
- Every function is total: whatever a server sends, the result is None or "unknown", never an error.

Sources: the wire captures under `tests/data/engines/`, and the engines' own documentation.
"""
from __future__ import annotations

import re
from typing import Any, Callable

from engines import answers, servers

# engine -> (path, body for a model).  The answer belongs into the probes under that path; it is
# about one model, so each model needs its own.  Only engines that answer without loading a model.
EXTRA_POSTS: dict[str, tuple[str, Callable[[str], dict[str, Any]]]] = {
    "Ollama": ("/api/show", lambda model_id: {"model": model_id}),
    "LocalAI": ("/api/show", lambda model_id: {"model": model_id}),
}

USUAL_PORTS: dict[int, tuple[str, ...]] = {
    11434: ("Ollama",),
    8080: ("llama.cpp", "mlx-lm", "LocalAI"),
    1234: ("LM Studio",),
    8000: ("vLLM", "llama-cpp-python", "transformers serve"),
    30000: ("SGLang",),
    5001: ("KoboldCpp",),
    1337: ("Jan",),
}


def _engine(name: Any) -> servers.Engine:
    return servers.ENGINES.get(name, servers.UNKNOWN) if isinstance(name, str) else servers.UNKNOWN


# --- What the runner asks -----------------------------------------------------------------------


def identify(probes: answers.Probes) -> dict[str, str | None]:
    """`{"name", "version", "build", "recognised_by"}`; "unknown" and three nulls otherwise.

    llama.cpp inside another program (xllamacpp, a llamafile since 0.10, `jan serve`) answers like
    llama-server and is named llama.cpp.
    """
    for name, engine in servers.ENGINES.items():
        mark = engine.recognise(probes)
        if mark:
            version, build = engine.version(probes)
            return {"name": name, "version": version, "build": build, "recognised_by": mark}
    return {"name": "unknown", "version": None, "build": None, "recognised_by": None}


# Conservative: a chat model wrongly left out is worse than an embedder that fails at its hello.
NO_CHAT_NAME = re.compile(
    r"(?:^|[^a-z])(?:(?:text-)?embed|rerank|whisper|bge-|minilm|stable-diffusion|tts[^a-z])",
    re.IGNORECASE,
)
CHAT_TYPES = ("llm", "vlm")


def _told_chat(entry: dict[str, Any]) -> bool | None:
    """Whether an entry of any server's list says that its model chats; None where it does not."""
    told = entry.get("capabilities")
    if isinstance(told, list):  # Ollama
        return "completion" in told
    if isinstance(answers.field(told, "chat_completion"), bool):  # Azure
        return bool(answers.field(told, "chat_completion"))
    families = answers.field(entry, "details", "families")
    if isinstance(families, list) and any("bert" in f for f in families if isinstance(f, str)):
        return False
    made = answers.field(entry, "architecture", "output_modalities")  # llama.cpp, OpenRouter
    return False if isinstance(made, list) and made and "text" not in made else None


def _chats(probes: Any) -> dict[str, bool]:
    """Model name -> whether the server says that it chats; LM Studio's own word counts most."""
    told: dict[str, bool] = {}
    for entry in answers.listed(probes) + answers.objects(answers.field(answers.answer(probes, "/api/tags"), "models")):
        chat = _told_chat(entry)
        told.update(dict.fromkeys(answers.names(entry), chat) if chat is not None else {})
    studio = answers.objects(answers.field(answers.answer(probes, "/api/v1/models"), "models"))
    studio += answers.objects(answers.field(answers.answer(probes, "/api/v0/models"), "data"))
    for entry in studio:
        if isinstance(entry.get("type"), str):
            told.update(dict.fromkeys(answers.names(entry), entry["type"] in CHAT_TYPES))
    return told


def served_models(probes: answers.Probes) -> list[dict[str, Any]]:
    """`[{"id", "chat"}]` in the server's order, each id once, exactly as requests must name it.

    Empty where the server lists none: mlx-lm and transformers serve without a model cache.
    """
    ids = (entry.get("id") for entry in answers.listed(probes))
    named = dict.fromkeys(i for i in ids if isinstance(i, str) and i)
    told = _chats(probes)
    return [{"id": i, "chat": told.get(i, not NO_CHAT_NAME.search(i))} for i in named]


def model_facts(engine_name: Any, model_id: Any, probes: answers.Probes) -> servers.Facts:
    """The keys of `FACT_NAMES`; None where the engine does not tell.

    `probes` must hold the engine's `EXTRA_POSTS` answer for this very model, if there is one.
    """
    told = _engine(engine_name).facts(model_id, probes)
    facts = {name: told.get(name) for name in servers.FACT_NAMES}
    if facts["quantization"] is None:
        root = answers.entry(answers.listed(probes), model_id).get("root")  # vLLM: the folder behind an alias
        named = answers.quantization_in_name(answers.published_model_id(model_id))
        facts["quantization"] = named or answers.quantization_in_name(answers.published_model_id(root))
    return facts


def slots(engine_name: Any, probes: answers.Probes) -> dict[str, Any]:
    """`{"count", "source"}`: how many requests the server works on at once, if it tells."""
    count, source = _engine(engine_name).slots(probes)
    return {"count": count, "source": source}


def context_in_force(
    engine_name: Any, model_id: Any, probes: answers.Probes, requested_tokens: Any
) -> dict[str, Any]:
    """`{"requested_tokens", "effective_tokens", "source", "reason", "remedy"}` for one request.

    Ollama and LM Studio tell it only of a loaded model: ask again after the model's first answer.
    `remedy` is one sentence, only where the server gives less than was asked for.
    """
    tokens, source = _engine(engine_name).context(model_id, probes)
    requested = answers.count(requested_tokens)
    reason = remedy = None
    if tokens is None:
        reason = _untold_context(engine_name, model_id, probes, requested)
    elif requested and tokens < requested:
        reason = f"the server gives a request {tokens} tokens, {requested} were asked for"
        remedy = _remedy(engine_name, model_id, probes, requested)
    elif requested and tokens > requested:
        reason = f"the server gives a request {tokens} tokens, more than was asked for"
    return {
        "requested_tokens": requested,
        "effective_tokens": tokens,
        "source": source,
        "reason": reason,
        "remedy": remedy,
    }


def _untold_context(engine_name: Any, model_id: Any, probes: answers.Probes, requested: int | None) -> str:
    loaded = answers.entry(answers.field(answers.answer(probes, "/api/ps"), "models"), model_id)
    if engine_name in ("Ollama", "LM Studio") and not loaded:
        return f"{engine_name} tells the context of a model only while it is loaded"
    if _engine(engine_name) is servers.UNKNOWN:
        return "an unknown server, which does not tell the context in force"
    sentence = _remedy(engine_name, model_id, probes, requested) if requested else None
    told = f"{engine_name} does not tell the context in force"
    return f"{told}; to be sure: {sentence}" if sentence else told


def _remedy(engine_name: Any, model_id: Any, probes: answers.Probes, requested: int) -> str | None:
    trained = model_facts(engine_name, model_id, probes)["trained_context_tokens"]
    if trained and trained < requested:
        return (
            f"The model was trained for {trained} tokens: take one with a longer context, or ask "
            f"for less with `--num-ctx {trained}`."
        )
    sentence = _engine(engine_name).remedy
    count = slots(engine_name, probes)["count"] or 1
    shown = answers.published_model_id(model_id)
    # The sentence holds a command to paste: no id may smuggle another command into it.
    safe = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*", shown) and shown != answers.NO_NAME
    model = shown if safe else "MODEL"
    values = {"tokens": requested, "total": requested * count, "slots": count, "model": model}
    return sentence.format(**values) if sentence else None


def cache_switch(engine_name: Any, policy: str, salt: Any) -> tuple[str, dict[str, Any]]:
    """How the prompt cache is kept out: (method, request fields to add).

    `policy` is "avoid" or "allow"; `salt` is random per conversation.  With "engine_switch" the
    fields do it; with "salt" the caller puts a line of salt ahead of the first message.
    """
    if policy != "avoid":
        return "none", {}
    field = _engine(engine_name).cache_field
    if field == "cache_prompt":
        return "engine_switch", {field: False}
    # vLLM takes at most 128 characters and none of @ / \ NUL.
    value = re.sub(r"[^A-Za-z0-9_-]", "-", salt)[:128] if isinstance(salt, str) else ""
    return ("engine_switch", {field: value}) if field and value else ("salt", {})


# --- For people ---------------------------------------------------------------------------------


def start_hint(engine_name: str | None = None) -> str:
    """The command that starts a server of that engine; without one, those of the usual engines."""
    engine = _engine(engine_name)
    if engine.start:
        return engine.start
    usual = ("Ollama", "llama.cpp", "LM Studio", "vLLM")
    width = max(map(len, usual))
    return "\n".join(f"{name:<{width}}  {servers.ENGINES[name].start}" for name in usual)
