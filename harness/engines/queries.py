"""Questions about a server: pure functions over its recorded answers, which the runner collects.

The runner requests `PROBE_PATHS`, relative to the server's root, keeps the answers as
{path: Probe}, and asks the functions here. All of them are total, and "unknown" is an answer.
"""
from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Optional, TypedDict

from engines import answers
from engines.servers import ENGINES, UNKNOWN, Engine, Facts

# The engines that most people use: the first to be looked for, and those suggested to start.
MOST_USED = ("Ollama", "llama.cpp", "LM Studio", "vLLM")
USUAL_PORTS: dict[int, tuple[str, ...]] = {}
for _name in dict.fromkeys((*MOST_USED, *ENGINES)):
    _port = ENGINES[_name].usual_port
    if _port:
        USUAL_PORTS[_port] = (*USUAL_PORTS.get(_port, ()), _name)


# As in core/records, which this folder does not import.
Identity = dict[str, Any]             # Engine there
Slots = dict[str, Any]
Context = dict[str, Any]


class ServedModel(TypedDict):
    """A listed model, as far as the server reports it.

    id: the id that requests must use; chat: whether it chats, by the server or else by the name;
    remote: why it is computed elsewhere; behind: URL of the server behind a proxy; state: one of
    answers.STATES; same_as: the id with the same weights that is loaded, else the first listed one;
    is_alias: also the same model, under one more name; size_bytes: of the weights; chat_template:
    False without one.
    """

    id: str
    chat: bool
    remote: Optional[str]
    behind: Optional[str]
    state: Optional[str]
    same_as: Optional[str]
    is_alias: bool
    size_bytes: Optional[int]
    chat_template: Optional[bool]


def engine_named(name: Any) -> Engine:
    """The engine of that name, or UNKNOWN."""
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
    r"(?:^|[^a-z])(?:(?:text-)?embed|rerank|whisper|bge-|minilm|stable-diffusion|tts[^a-z]"
    r"|sdxl|dall-e|flux\.|kokoro|parakeet)", re.IGNORECASE)
# What servers call a model that chats, and one that does not, in `type`, `task`, `labels`, ...
CHATS = re.compile(
    r"chat|complet|instruct|conversation|reasoning|text-?generation|(?:text|any)-to-(?:text|any)"
    r"|->\s*text|generatecontent|tool|function"
    r"|^(?:llm|vlm|text|language|language-model|multimodal|generate)$")
DOES_NOT_CHAT = re.compile(
    r"embed|rank|speech|\b(?:tts|stt|asr|ocr)\b|transcri|translat|diffusion|moderation|classif"
    r"|similarity|extraction|fill-mask|reward|(?:text-to-|->\s*|^)(?:image|audio|video|music|voice)"
    r"|image-(?:gen|edit|to-image)|2im(?:age|g)|(?:cross|bi)-encoder|^(?:vad|upscal.*|encoder)$")
KIND_FIELDS = ("type", "task", "model_type", "task_type", "kind", "mode", "pipeline_tag",
               "category", "categories", "capabilities", "abilities", "model_ability", "tasks",
               "supported_tasks", "supported_endpoints", "supported_endpoint_types",
               "supported_generation_methods", "labels", "tags", "modality", "modalities")
KIND_HOLDERS = ("meta", "metadata", "info", "model_info", "details", "architecture")
CAN_CHAT = ("chat_completion", "completion_chat", "chat", "chat_completions")   # Azure, Mistral


def _kind(value: Any) -> Optional[bool]:
    """Whether a kind of model, or a list of kinds, chats; None if unknown."""
    if isinstance(value, dict):
        reported = [value[name] for name in CAN_CHAT if isinstance(value.get(name), bool)]
        return reported[0] if reported else _kind([value.get("type"), *(
            name for name, holds in value.items() if holds is True)])
    words = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    kinds = [word.lower().replace("_", "-") for word in words if isinstance(word, str)]
    if any(map(CHATS.search, kinds)):
        return True
    return False if any(map(DOES_NOT_CHAT.search, kinds)) else None


def _reported_chat(entry: dict[str, Any]) -> Optional[bool]:
    """Whether an entry of any server's list marks its model as chatting; None if unknown."""
    if str(entry.get("recipe")).startswith("collection"):      # Lemonade: several models
        return False
    holders = answers.objects([entry, *map(entry.get, KIND_HOLDERS)])
    for chats in (_kind(holder.get(name)) for holder in holders for name in KIND_FIELDS):
        if chats is not None:
            return chats
    families = answers.field(entry, "details", "families")
    if isinstance(families, list) and any("bert" in f for f in families if isinstance(f, str)):
        return False
    outputs = (entry.get("output_modalities"),                           # llama.cpp, OpenRouter
               answers.field(entry, "architecture", "output_modalities"))
    return next((False for output in outputs
                 if isinstance(output, list) and output and "text" not in output), None)


# Providers of LiteLLM that are servers on this machine if no address is given.
LOCAL_PROVIDERS = ("docker_model_runner", "hosted_vllm", "infinity", "lemonade", "llamafile",
                   "lm_studio", "ollama", "ollama_chat", "oobabooga", "triton", "vllm",
                   "xinference")


def _remote(entry: dict[str, Any]) -> Optional[str]:
    """The field that shows that another machine computes an entry's model, or None."""
    for name in ("remote_host", "remote_model", "remote_url",            # Ollama
                 "cloud_provider"):                                      # Lemonade
        if isinstance(entry.get(name), str) and entry[name]:
            return f"{name} {answers.one_line(entry[name])[:80]}"
    swap, upstream = answers.field(entry, "meta", "llamaswap"), entry.get("litellm_params")
    if answers.field(swap, "type") == "peer":
        return f"peer {answers.one_line(str(swap.get('peerID')))[:80]}"
    if isinstance(upstream, dict):
        base = upstream.get("api_base")
        provider, slash, _ = answers.one_line(str(upstream.get("model"))[:80]).partition("/")
        if isinstance(base, str) and base:
            return f"api_base {answers.one_line(base)[:80]}" if answers.is_public(base) else None
        provider = provider if slash else "openai"
        return None if provider in LOCAL_PROVIDERS else f"provider {provider}"
    for name in ("remote", "is_remote", "cloud", "is_cloud"):
        if entry.get(name) is True:
            return f"{name} true"
    for name in ("connection_type", "location", "hosting", "source"):    # Open WebUI: external
        if entry.get(name) in ("external", "cloud", "remote", "hosted"):
            return f"{name} {entry[name]}"
    return None


def _behind(model_id: str, probes: answers.Probes) -> Optional[str]:
    """The server to which LiteLLM forwards a model, if that is not a public one."""
    base = answers.field(answers.model_at(probes, "/model/info", model_id), "litellm_params",
                         "api_base")
    if not isinstance(base, str) or not base.startswith("http") or answers.is_public(base):
        return None
    return answers.one_line(base).rstrip("/").removesuffix("/v1")


# text-generation-webui and TabbyAPI show the loaded model here, and others in their lists.
LOADED_AT = (("/v1/internal/model/info", "model_name"), ("/v1/model", "id"))
CLOUD_TAG = re.compile(r":(?:[\w.-]+-)?cloud$", re.IGNORECASE)            # Ollama: "x:120b-cloud"


def remote(engine_name: Any, model_id: Any, probes: answers.Probes) -> Optional[str]:
    """How the server shows that another machine computes this model; None if it does not."""
    entries = [answers.model_at(probes, path, model_id) for path in answers.MODEL_LISTS]
    entries += answers.objects([answers.json_at(probes, "/api/show")])
    found = next(filter(None, map(_remote, entries)), None)
    named = engine_name == "Ollama" and isinstance(model_id, str) and CLOUD_TAG.search(model_id)
    return found or ("cloud in its name" if named else None)


def state(engine_name: Any, model_id: Any, probes: answers.Probes) -> Optional[str]:
    """Whether a model is in memory: one of answers.STATES, or None if it is not reported."""
    return engine_named(engine_name).state(model_id, probes)


def served_models(engine_name: Any, probes: answers.Probes,
                  own: Mapping[str, answers.Probes] = MappingProxyType({})) -> list[ServedModel]:
    """The models in the server's order, each id once.

    own: the probes of single models, by id, where they were asked for. Empty where the server lists
    none: mlx-lm and transformers serve without a model cache.
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
    listed = answers.models_at(probes) or answers.models_at(probes, "/api/tags")
    ids = [next(iter(answers.names_of(entry)), None) for entry in listed]
    shown = (answers.json_at(probes, path, field) for path, field in LOADED_AT)
    loaded = answers.one_line(str(next(filter(None, shown), "")))
    if loaded and loaded != "None":
        ids.insert(0, loaded)
    models: list[ServedModel] = []
    index = answers.index_of(probes)
    weights: list[tuple[Any, ...]] = []
    for model_id in dict.fromkeys(i for i in ids if i):
        about = answers.narrowed(own.get(model_id, probes), index, model_id)
        chat = _kind(answers.json_at(about, "/api/show", "capabilities"))
        if chat is None:
            chat = reported.get(model_id, not NO_CHAT_NAME.search(model_id))
        facts = model_facts(engine_name, model_id, about)
        root = _root(answers.model_at(about, "/v1/models", model_id))
        elsewhere = remote(engine_name, model_id, about)
        digest = facts["digest"] if engine_name == "Ollama" and not elsewhere else None
        # Ollama's sizes include the template and the license, so equal weights differ in them.
        weights.append((digest,) if digest else (root, facts["file_bytes"]))
        models.append({
            "id": model_id, "chat": chat, "remote": elsewhere, "behind": _behind(model_id, about),
            "state": ("loaded" if model_id == loaded else "not loaded") if loaded else
            state(engine_name, model_id, about),
            "same_as": None, "is_alias": False,
            "size_bytes": facts["file_bytes"], "chat_template": facts.get("chat_template")})
    pairs = [(key, model) for key, model in zip(weights, models) if key[0]]
    first: dict[tuple[Any, ...], str] = {}
    for key, model in sorted(pairs, key=lambda pair: (pair[1]["state"] != "loaded",
                                                      pair[1]["id"] != pair[0][0])):
        first.setdefault(key, model["id"])
    for key, model in pairs:
        if first[key] != model["id"]:
            model["same_as"], model["is_alias"] = first[key], len(key) > 1     # not by digest
    return models


def _root(entry: dict[str, Any]) -> Optional[str]:
    """What two names of one model have in common: vLLM's and SGLang's root, or in llama-swap the
    model to which an alias or a selector leads.
    """
    swap = answers.field(entry, "meta", "llamaswap")
    if answers.field(swap, "type"):
        targets = swap.get("targets")
        root = swap.get("modelID") or (targets[0] if isinstance(targets, list) and targets
                                       else entry.get("id"))
    else:
        root = entry.get("root") if entry.get("parent") is None else None
    return root if isinstance(root, str) and root else None


def model_facts(engine_name: Any, model_id: Any, probes: answers.Probes) -> Facts:
    """What the engine reports about a model, None for the rest.

    `probes` must hold the answer to the engine's request about this model, if it has one.
    """
    facts = engine_named(engine_name).facts(model_id, probes)
    if facts["quantization"] is None:
        root = answers.value_at(probes, "/v1/models root", model_id)   # vLLM: behind an alias
        named = [answers.quantization_in_name(name) for name in (model_id, root)]
        facts["quantization"] = named[0] or named[1]
    return facts


def is_loaded(engine_name: Any, model_id: Any, probes: answers.Probes) -> Optional[bool]:
    """Whether a model is loaded; None if the engine does not report it."""
    found = state(engine_name, model_id, probes)
    return None if found is None else found == "loaded"


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


# A sentence may hold a command to paste: no id may smuggle another command into it.
PLAIN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*")


def _remedy(engine: Engine, model_id: Any, probes: answers.Probes,
            requested: int) -> Optional[str]:
    """How to get a context of so many tokens; None where the engine has no known way."""
    trained = engine.facts(model_id, probes)["trained_context_tokens"]
    if trained and trained < requested:
        return (f"The model was trained for {trained} tokens: choose one with a longer context, "
                f"or request less with `--num-ctx {trained}`.")
    count = engine.slots(probes)[0] or 1
    shown = answers.published_model_id(model_id)
    safe = PLAIN_ID.fullmatch(shown) and shown != answers.NO_NAME
    text = engine.remedy_on.get(platform.system(), engine.remedy)
    return _typed(text.format(tokens=requested, total=requested * count, slots=count,
                              model=shown if safe else "MODEL")) or None


# A command in backticks, or one of several, with the option before the model's place.
MODEL_PLACE = re.compile(r"(`?)([^`;]*?)((?: -[\w-]+)?) MODEL(?:\.\w+)?([^`;]*)\1")


def _typed(text: str) -> str:
    """Commands without a placeholder, which would be taken for a model's name."""
    return MODEL_PLACE.sub(r"\1\2\4\3\1 (add your model)", text)


def parallel_remedy(engine_name: Any, slots_count: int, tokens: int) -> Optional[str]:
    """How to let an engine work on `slots_count` requests at once; None if that is not known."""
    engine = engine_named(engine_name)
    text = engine.parallel_remedy_on.get(platform.system(), engine.parallel_remedy)
    return _typed(text.format(slots=slots_count, tokens=tokens, total=slots_count * tokens,
                              model="MODEL")) or None


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


def start_hint() -> str:
    """The commands that start a server of the most used engines on this system, one per line."""
    width, system = max(map(len, MOST_USED)), platform.system()
    starts = {name: ENGINES[name].start_on.get(system, ENGINES[name].start_command)
              for name in MOST_USED}
    return "\n".join(f"{name:<{width}}  {_typed(start)}" for name, start in starts.items())
