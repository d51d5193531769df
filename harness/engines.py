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

import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Callable, NamedTuple, Optional

# No path here starts work on a server.  Left out for that: litellm's /health (calls every upstream
# model), llama.cpp's /slots (may show what other people asked), /health_generate of SGLang.
PROBE_PATHS: tuple[str, ...] = (
    "/v1/models",
    "/version",
    "/props",
    "/api/version",
    "/api/tags",
    "/api/ps",
    "/api/v0/models",
    "/api/v1/models",
    "/api/extra/version",
    "/api/extra/true_max_context_length",
    "/system",
    "/server_info",
    "/get_server_info",
    "/info",
    "/health/readiness",
    "/load_model",
)

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

LARGEST_COUNT = 2**53 - 1  # the largest integer that every JSON reader keeps exactly
LONGEST_VERSION = 60
LONGEST_MESSAGE = 300
LONGEST_BODY = 1 << 18  # a longer error body is not parsed
LONGEST_TEXT = 20_000  # of an error, where fields and reasons are looked for
LONGEST_MODEL_ID = 200
NO_NAME = "unnamed"  # a model whose id holds nothing that may be published


class Probe(NamedTuple):
    """One recorded answer.  `status` is None where none came; header names are lower case."""

    status: int | None
    headers: dict[str, str]
    json: Any
    text: str


Probes = Mapping[str, Probe]
Told = tuple[Optional[int], Optional[str]]  # a number and where it was told, or twice None

NO_PROBE = Probe(None, {}, None, "")
NOT_TOLD: Told = (None, None)


# --- Reading answers that may hold anything -----------------------------------------------------


def _probe(probes: Any, path: str) -> Probe:
    found = probes.get(path) if isinstance(probes, dict) else None
    return found if isinstance(found, Probe) else NO_PROBE


def _answer(probes: Any, path: str) -> Any:
    """The JSON that `path` answered with 200, else None."""
    probe = _probe(probes, path)
    return probe.json if probe.status == 200 else None


def _field(value: Any, *names: str) -> Any:
    """`value[name][name]...`, or None where that does not exist."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _count(value: Any) -> int | None:
    """A positive whole number that is worth publishing, else None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST_COUNT:
        return value
    return None


def _plain(text: str) -> str:
    """`text` on one line, without what a terminal or a UTF-8 file cannot take."""
    # Categories C*: control, format (bidi marks among them), surrogates, private use, unassigned.
    kept = (" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    return " ".join("".join(kept).split())


def _word(value: Any) -> str | None:
    """A short name as engines tell it ("Q4_K_M", "llama", a digest), else None."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,79}", value):
        return value
    return None


def _known(value: Any) -> str | None:
    """`_word`, where it is not one of the words for not knowing."""
    word = _word(value)
    return None if word and word.lower() in ("unknown", "none", "null") else word


ADDRESS = re.compile(r"[/\\@]|\b(?:10|127|169|172|192)\.\d+\.\d+\.\d+|localhost", re.IGNORECASE)


def _version(value: Any) -> str | None:
    """A version in printable ASCII, at most 60 characters; None where it looks like an address."""
    if not isinstance(value, str) or ADDRESS.search(value):
        return None
    kept = "".join(c for c in value if " " <= c <= "~").strip()[:LONGEST_VERSION].strip()
    return kept or None


def _servers(probes: Any) -> list[str]:
    """Every `Server:` header seen."""
    found = [_probe(probes, path).headers for path in PROBE_PATHS]
    values = [headers.get("server") for headers in found if isinstance(headers, dict)]
    return [value for value in values if isinstance(value, str)]


def _listed(probes: Any) -> list[dict[str, Any]]:
    """The entries of /v1/models."""
    return _objects(_field(_answer(probes, "/v1/models"), "data"))


def _owned_by(probes: Any, owner: str) -> str | None:
    owners = [entry.get("owned_by") for entry in _listed(probes)]
    return f'/v1/models owned_by "{owner}"' if owner in owners else None


def _names(entry: dict[str, Any]) -> list[str]:
    """Every name under which a request may ask for the model of an entry."""
    aliases = entry.get("aliases")
    names = [entry.get(key) for key in ("id", "name", "model", "key")]
    names += aliases if isinstance(aliases, list) else []
    names += [instance.get("id") for instance in _objects(entry.get("loaded_instances"))]
    return [name for name in names if isinstance(name, str)]


def _same_model(entry: dict[str, Any], model_id: Any) -> bool:
    # Ollama reads a name without a tag as ":latest".
    return isinstance(model_id, str) and any(
        name in (model_id, f"{model_id}:latest") for name in _names(entry)
    )


def _entry(entries: Any, model_id: Any) -> dict[str, Any]:
    """The entry of that model, or {}."""
    return next((e for e in _objects(entries) if _same_model(e, model_id)), {})


# GGUF file names, then the names that other formats use.
QUANTIZATION = re.compile(
    r"(?<![A-Za-z0-9])((?:UD-)?(?:IQ[1-4]_(?:XXS|XS|S|M|NL)|Q[1-8]_(?:K(?:_(?:XL|[SML]))?|[01])"
    r"|TQ[12]_0|MXFP4(?:_MOE)?)|BF16|F(?:P)?16|F(?:P)?32|NVFP4|FP8|AWQ|GPTQ|INT[48]|W[48]A(?:8|16)|[2-8]-?bit)"
    r"(?![A-Za-z0-9_])",
    re.IGNORECASE,
)


def quantization_in_name(name: Any) -> str | None:
    """The quantisation that a model's name or file name states ("Q4_K_M"), else None."""
    found = QUANTIZATION.findall(name[:1000]) if isinstance(name, str) else []
    if not found:
        return None
    last: str = found[-1]
    return last.lower() if last[0].isdigit() else last.upper()


# --- How each engine shows itself (the mark, or None) -------------------------------------------


def _see_reference(probes: Probes) -> str | None:
    told = _field(_answer(probes, "/version"), "engine")
    return "/version engine" if told == "reference-endpoint" else None


def _see_koboldcpp(probes: Probes) -> str | None:
    # TabbyAPI and Aphrodite answer this path in KoboldCpp's name, but list their own as owner.
    if _field(_answer(probes, "/api/extra/version"), "result") != "KoboldCpp":
        return None
    if _listed(probes) and not _owned_by(probes, "koboldcpp"):
        return None
    return "/api/extra/version"


def _see_lm_studio(probes: Probes) -> str | None:
    entries = _objects(_field(_answer(probes, "/api/v0/models"), "data"))
    if any("state" in e and "max_context_length" in e for e in entries):
        return "/api/v0/models"
    entries = _objects(_field(_answer(probes, "/api/v1/models"), "models"))
    if any("key" in e and "loaded_instances" in e for e in entries):
        return "/api/v1/models"
    for path in PROBE_PATHS:
        error = _field(_probe(probes, path).json, "error")
        if isinstance(error, str) and error.startswith("Unexpected endpoint or method. (GET /"):
            return "its answer to unknown paths"
    return None


def _see_localai(probes: Probes) -> str | None:
    system = _answer(probes, "/system")
    if isinstance(system, dict) and "backends" in system and "loaded_models" in system:
        return "/system"
    return None


def _sglang_info(probes: Probes) -> tuple[Any, str]:
    """What SGLang tells of itself, and where; the second path is the older one."""
    for path in ("/server_info", "/get_server_info"):
        told = _answer(probes, path)
        if _count(_field(told, "max_total_num_tokens")) or _field(told, "internal_states"):
            return told, path
    return None, ""


def _see_sglang(probes: Probes) -> str | None:
    return _sglang_info(probes)[1] or _owned_by(probes, "sglang")


def _see_tgi(probes: Probes) -> str | None:
    told = _answer(probes, "/info")
    named = _field(told, "router") == "text-generation-router"
    shaped = _field(told, "model_id") and _field(told, "max_total_tokens")
    return "/info" if named or (shaped and _field(told, "max_concurrent_requests")) else None


def _see_llamafile(probes: Probes) -> str | None:
    if any(server.startswith("llamafile") for server in _servers(probes)):
        return "Server header"
    return _owned_by(probes, "llamafile")


def _see_llama_cpp(probes: Probes) -> str | None:
    if "llama.cpp" in _servers(probes):
        return "Server header"
    told = _answer(probes, "/props")
    if _field(told, "default_generation_settings") and _field(told, "total_slots"):
        return "/props"
    return _owned_by(probes, "llamacpp")


def _see_ollama(probes: Probes) -> str | None:
    if not _version(_field(_answer(probes, "/api/version"), "version")):
        return None
    answers = [_answer(probes, path) for path in ("/api/tags", "/api/ps")]
    if not any(isinstance(answer, dict) and "models" in answer for answer in answers):
        return None
    return "/api/version" if all(map(_named_by_ollama, _listed(probes))) else None


def _named_by_ollama(entry: dict[str, Any]) -> bool:
    """Ollama alone gives the namespace of a model's name as its owner, else "library"."""
    owner, model_id = entry.get("owned_by"), entry.get("id")
    if not isinstance(owner, str) or not isinstance(model_id, str):
        return False
    return owner == "library" or bool(owner) and f"{owner}/" in model_id


def _see_vllm(probes: Probes) -> str | None:
    return _owned_by(probes, "vllm")


def _see_llama_cpp_python(probes: Probes) -> str | None:
    entries = [e for e in _listed(probes) if e.get("owned_by") == "me" and "permissions" in e]
    return '/v1/models owned_by "me"' if entries else None


LITELLM_CREATED = 1677610602  # the same second for every model that litellm lists


def _see_litellm(probes: Probes) -> str | None:
    told = _answer(probes, "/health/readiness")
    if isinstance(_field(told, "litellm_version"), str):
        return "/health/readiness"
    dated = any(e.get("created") == LITELLM_CREATED for e in _listed(probes))
    if dated and _field(told, "status") and "db" in told:
        return "/health/readiness"
    return None


def _see_mlx_lm(probes: Probes) -> str | None:
    # Python's plain server, whose 404 is a bare "Not Found" labelled as JSON, and which lists
    # entries of three keys, or nothing at all (an empty 200) where there is no model cache.
    python = any(server.startswith("BaseHTTP/") for server in _servers(probes))
    other, models = _probe(probes, "/props"), _probe(probes, "/v1/models")
    labelled = _field(other.headers, "content-type") == "application/json"
    bare = other.status == 404 and other.text == "Not Found" and labelled
    plain = all(set(e) == {"id", "object", "created"} for e in _listed(probes))
    return "its 404" if python and bare and models.status == 200 and plain else None


def _see_openrouter(probes: Probes) -> str | None:
    marks = {"canonical_slug", "top_provider", "pricing"}
    return "/v1/models top_provider" if any(marks <= set(e) for e in _listed(probes)) else None


def _see_azure(probes: Probes) -> str | None:
    for entry in _listed(probes):
        told = _field(entry, "capabilities", "chat_completion")
        if "lifecycle_status" in entry and isinstance(told, bool):
            return "/v1/models lifecycle_status"
    return None


JAN_ENTRY = {"object": "model", "created": 1, "owned_by": "user"}  # beside the id, for every model


def _see_jan(probes: Probes) -> str | None:
    other, entries = _probe(probes, "/props"), _listed(probes)
    bare = other.status == 404 and other.text == "Not Found" and not _servers(probes)
    plain = all(e == {**JAN_ENTRY, "id": e.get("id")} for e in entries)
    return '/v1/models created 1, owned_by "user"' if bare and entries and plain else None


def _see_transformers(probes: Probes) -> str | None:
    # A path that only takes a POST: asking it with GET is refused, and says that it exists.
    refused = _probe(probes, "/load_model").status == 405
    return "/load_model" if refused and "uvicorn" in _servers(probes) else None


# --- What each engine tells about itself: (version, build) --------------------------------------

Version = tuple[Optional[str], Optional[str]]


def _told_version(path: str, name: str = "version") -> Callable[[Probes], Version]:
    return lambda probes: (_version(_field(_answer(probes, path), name)), None)


def _version_untold(_: Probes) -> Version:
    return None, None


def _version_llama_cpp(probes: Probes) -> Version:
    build = _version(_field(_answer(probes, "/props"), "build_info"))
    number = re.match(r"b[1-9]\d*", build or "")  # "b0" is a build that does not know its number
    return (number.group() if number else None), build


def _version_llamafile(probes: Probes) -> Version:
    headers = (re.match(r"llamafile/([^\s/]{1,60})", server) for server in _servers(probes))
    return next((_version(h.group(1)) for h in headers if h), None), None


def _version_sglang(probes: Probes) -> Version:
    return _version(_field(_sglang_info(probes)[0], "version")), None


def _version_tgi(probes: Probes) -> Version:
    told = _answer(probes, "/info")
    return _version(_field(told, "version")), _version(_field(told, "sha"))


def _version_localai(probes: Probes) -> Version:
    told = _version(_field(_answer(probes, "/version"), "version"))
    parts = re.fullmatch(r"(\S+) \((\S+)\)", told or "")  # "v3.1.0 (commit)"
    return (parts.group(1), parts.group(2)) if parts else (told, None)


# --- Facts about one model ----------------------------------------------------------------------

Facts = dict[str, Any]
FACT_NAMES = (
    "quantization",
    "parameters_count",
    "file_bytes",
    "digest",
    "family",
    "trained_context_tokens",
)


def _no_facts(_: Any, __: Probes) -> Facts:
    return {}


# llama.cpp's own words for a file's type: "Q4_K - Medium", "IQ4_XS - 4.25 bpw", "MXFP4 MoE".
FILE_TYPE = re.compile(
    r"(?:all )?([A-Z]+[0-9]+(?:_[A-Z0-9]+)*)( MoE)?"
    r"(?: - (?:(Small|Medium|Large)|[0-9.]+ bpw(?: ternary)?))?(?: \(guessed\))?"
)


def _file_type(value: Any) -> str | None:
    """A file type as the names of files write it: "Q4_K - Medium" is Q4_K_M."""
    told = FILE_TYPE.fullmatch(value) if isinstance(value, str) else None
    if told is None:
        return None
    name, moe, size = told.groups()
    if name == "Q2_K" and size == "Medium":  # the one whose files do not say so
        return name
    return name + ("_MOE" if moe else "") + (f"_{size[0]}" if size else "")


def _facts_llama_cpp(model_id: Any, probes: Probes) -> Facts:
    meta = _field(_entry(_listed(probes), model_id), "meta")
    props = _answer(probes, "/props")
    file_name = published_model_id(_field(props, "model_path"))
    return {
        "quantization": _file_type(_field(meta, "ftype"))
        or _file_type(_field(props, "model_ftype"))
        or quantization_in_name(file_name),
        "parameters_count": _count(_field(meta, "n_params")),
        "file_bytes": _count(_field(meta, "size")),  # of all tensors: a little below the file's
        "trained_context_tokens": _count(_field(meta, "n_ctx_train")),
    }


def _facts_ollama(model_id: Any, probes: Probes) -> Facts:
    listed = _entry(_field(_answer(probes, "/api/tags"), "models"), model_id)
    shown = _answer(probes, "/api/show")
    details = _field(listed, "details") or _field(shown, "details")
    info = _field(shown, "model_info")
    architecture = _field(info, "general.architecture")
    return {
        "quantization": _known(_field(details, "quantization_level")),
        "parameters_count": _count(_field(info, "general.parameter_count")),
        "file_bytes": _count(listed.get("size")),
        "digest": _word(listed.get("digest")),
        "family": _word(_field(details, "family")),
        "trained_context_tokens": _count(_field(info, f"{architecture}.context_length")),
    }


def _facts_lm_studio(model_id: Any, probes: Probes) -> Facts:
    old = _entry(_field(_answer(probes, "/api/v0/models"), "data"), model_id)
    new = _entry(_field(_answer(probes, "/api/v1/models"), "models"), model_id)
    return {
        "quantization": _known(old.get("quantization"))
        or _known(_field(new, "quantization", "name")),
        "file_bytes": _count(new.get("size_bytes")),
        "family": _word(old.get("arch")) or _word(new.get("architecture")),
        "trained_context_tokens": _count(old.get("max_context_length"))
        or _count(new.get("max_context_length")),
    }


def _facts_localai(_: Any, probes: Probes) -> Facts:
    told = _field(_answer(probes, "/api/show"), "details", "quantization_level")
    return {"quantization": _known(told)}


def _facts_sglang(_: Any, probes: Probes) -> Facts:
    return {"quantization": _known(_field(_sglang_info(probes)[0], "quantization"))}


def _facts_tgi(_: Any, probes: Probes) -> Facts:
    told = _answer(probes, "/info")
    return {
        "quantization": _known(_field(told, "quantize")),
        "digest": _word(_field(told, "model_sha")),
    }


# --- The context that a request really gets -----------------------------------------------------


def _context_listed(model_id: Any, probes: Probes) -> Told:
    """`max_model_len`, which vLLM, SGLang and others list for each model."""
    tokens = _count(_entry(_listed(probes), model_id).get("max_model_len"))
    return (tokens, "/v1/models max_model_len") if tokens else NOT_TOLD


def _context_llama_cpp(model_id: Any, probes: Probes) -> Told:
    """Tokens of one slot: what one request gets, not the sum given with -c."""
    tokens = _count(_field(_entry(_listed(probes), model_id), "meta", "n_ctx"))
    if tokens:
        return tokens, "/v1/models meta.n_ctx"
    tokens = _count(_field(_answer(probes, "/props"), "default_generation_settings", "n_ctx"))
    return (tokens, "/props n_ctx") if tokens else NOT_TOLD


def _context_ollama(model_id: Any, probes: Probes) -> Told:
    loaded = _entry(_field(_answer(probes, "/api/ps"), "models"), model_id)
    tokens = _count(loaded.get("context_length"))
    return (tokens, "/api/ps context_length") if tokens else NOT_TOLD


def _context_lm_studio(model_id: Any, probes: Probes) -> Told:
    loaded = _entry(_field(_answer(probes, "/api/v0/models"), "data"), model_id)
    tokens = _count(loaded.get("loaded_context_length"))
    if tokens:
        return tokens, "/api/v0/models loaded_context_length"
    tokens = _count(_field(_lm_studio_instance(model_id, probes), "config", "context_length"))
    return (tokens, "/api/v1/models context_length") if tokens else NOT_TOLD


def _lm_studio_instance(model_id: Any, probes: Probes) -> Any:
    """The running instance of that name, or the only one: else it is open which answers."""
    model = _entry(_field(_answer(probes, "/api/v1/models"), "models"), model_id)
    instances = _objects(model.get("loaded_instances"))
    named = [instance for instance in instances if instance.get("id") == model_id]
    return (named or instances)[0] if named or len(instances) == 1 else None


def _context_sglang(model_id: Any, probes: Probes) -> Told:
    told, path = _sglang_info(probes)
    tokens, listed = _count(_field(told, "context_length")), _context_listed(model_id, probes)
    return (tokens, f"{path} context_length") if tokens and not listed[0] else listed


def _context_openrouter(model_id: Any, probes: Probes) -> Told:
    """What the first of the model's providers gives; which one answers is only known afterwards."""
    tokens = _count(_field(_entry(_listed(probes), model_id), "top_provider", "context_length"))
    return (tokens, "/v1/models top_provider.context_length") if tokens else NOT_TOLD


def _context_tgi(_: Any, probes: Probes) -> Told:
    tokens = _count(_field(_answer(probes, "/info"), "max_total_tokens"))
    return (tokens, "/info max_total_tokens") if tokens else NOT_TOLD


def _context_localai(_: Any, probes: Probes) -> Told:
    """As the model's YAML file says; where it says nothing, LocalAI does not either."""
    info = _field(_answer(probes, "/api/show"), "model_info")
    tokens = _count(_field(info, "general.context_length"))
    return (tokens, "/api/show general.context_length") if tokens else NOT_TOLD


def _context_koboldcpp(_: Any, probes: Probes) -> Told:
    path = "/api/extra/true_max_context_length"
    tokens = _count(_field(_answer(probes, path), "value"))
    return (tokens, path) if tokens else NOT_TOLD


# --- How many requests run at once --------------------------------------------------------------


def _slots_untold(_: Probes) -> Told:
    return NOT_TOLD


def _slots_llama_cpp(probes: Probes) -> Told:
    count = _count(_field(_answer(probes, "/props"), "total_slots"))
    return (count, "/props total_slots") if count else NOT_TOLD


def _slots_sglang(probes: Probes) -> Told:
    told, path = _sglang_info(probes)
    # What the scheduler really uses stands in its state; the flag beside it may be null.
    states = _objects(_field(told, "internal_states")) + [told]
    counts = [_count(_field(state, "max_running_requests")) for state in states]
    count = next((c for c in counts if c), None)
    return (count, f"{path} max_running_requests") if count else NOT_TOLD


# --- The table ----------------------------------------------------------------------------------


class Engine(NamedTuple):
    """All that is known of one engine.

    `remedy` is a sentence with {tokens} (per request), {total} (for all slots), {slots}, {model};
    `cache_field` the request field by which one request can leave the prompt cache alone.
    """

    recognise: Callable[[Probes], str | None]
    version: Callable[[Probes], Version] = _version_untold
    facts: Callable[[Any, Probes], Facts] = _no_facts
    context: Callable[[Any, Probes], Told] = _context_listed
    slots: Callable[[Probes], Told] = _slots_untold
    remedy: str | None = None
    cache_field: str | None = None
    start: str = ""


UNKNOWN = Engine(lambda _: None)

# Why the others have no cache_field: llama-cpp-python and mlx-lm ignore cache_prompt, a field that
# transformers serve refuses; LM Studio, Ollama, KoboldCpp, LocalAI and SGLang of every version are
# not known to read one in chat requests; behind litellm it is open who answers.  Ignored is worse
# than not sent: the run would claim uncached prompts.  A line of salt works with all of them.
ENGINES: dict[str, Engine] = {
    "reference-endpoint": Engine(
        _see_reference,
        version=_told_version("/version"),
        remedy="Start the reference endpoint with a context of at least {tokens} tokens.",
        start="python3 harness/run_benchmark.py --rehearse",
    ),
    # A front before those that may stand behind it and shine through.
    "litellm": Engine(
        _see_litellm,
        version=_told_version("/health/readiness", "litellm_version"),
        remedy="Set a context of {tokens} tokens on the server behind litellm.",
        start="litellm --config CONFIG.yaml",
    ),
    "KoboldCpp": Engine(
        _see_koboldcpp,
        version=_told_version("/api/extra/version"),
        context=_context_koboldcpp,
        remedy="Start KoboldCpp with `--contextsize {tokens}`.",
        start="koboldcpp --model MODEL.gguf --contextsize 4096",
    ),
    "LM Studio": Engine(
        _see_lm_studio,
        facts=_facts_lm_studio,
        context=_context_lm_studio,
        remedy="Load the model again with `lms unload {model}` and then "
        "`lms load {model} --context-length {tokens}`.",
        start="lms load MODEL --context-length 4096 && lms server start",
    ),
    "LocalAI": Engine(
        _see_localai,
        version=_version_localai,
        facts=_facts_localai,
        context=_context_localai,
        remedy="Set `context_size: {tokens}` in the model's YAML file and restart LocalAI.",
        start="local-ai run MODEL",
    ),
    "SGLang": Engine(
        _see_sglang,
        version=_version_sglang,
        facts=_facts_sglang,
        context=_context_sglang,
        slots=_slots_sglang,
        remedy="Start SGLang with `--context-length {tokens}`.",
        start="python3 -m sglang.launch_server --model-path MODEL --port 30000",
    ),
    "TGI": Engine(
        _see_tgi,
        version=_version_tgi,
        facts=_facts_tgi,
        context=_context_tgi,
        remedy="Start TGI with `--max-total-tokens {tokens}`.",
        start="text-generation-launcher --model-id MODEL --port 8080",
    ),
    "llamafile": Engine(
        _see_llamafile,
        version=_version_llamafile,
        facts=_facts_llama_cpp,
        context=_context_llama_cpp,
        slots=_slots_llama_cpp,
        remedy="Start the llamafile with `-c {total}`.",
        start="./MODEL.llamafile --server -c 4096",
    ),
    "llama.cpp": Engine(
        _see_llama_cpp,
        version=_version_llama_cpp,
        facts=_facts_llama_cpp,
        context=_context_llama_cpp,
        slots=_slots_llama_cpp,
        remedy="Start llama-server with `-c {total} -np {slots}`, which gives each of its slots "
        "{tokens} tokens.",
        cache_field="cache_prompt",
        start="llama-server -m MODEL.gguf -c 16384 -np 4",
    ),
    "Ollama": Engine(
        _see_ollama,
        version=_told_version("/api/version"),
        facts=_facts_ollama,
        context=_context_ollama,
        remedy="Start Ollama with `OLLAMA_CONTEXT_LENGTH={tokens} ollama serve`, or put "
        "`PARAMETER num_ctx {tokens}` into the model's Modelfile.",
        start="OLLAMA_CONTEXT_LENGTH=4096 ollama serve",
    ),
    "vLLM": Engine(
        _see_vllm,
        version=_told_version("/version"),
        remedy="Start vLLM with `--max-model-len {tokens}`.",
        cache_field="cache_salt",
        start="vllm serve MODEL --max-model-len 4096",
    ),
    "llama-cpp-python": Engine(
        _see_llama_cpp_python,
        remedy="Start llama-cpp-python with `--n_ctx {tokens}`.",
        start="python3 -m llama_cpp.server --model MODEL.gguf --n_ctx 4096",
    ),
    "OpenRouter": Engine(
        _see_openrouter,
        context=_context_openrouter,
        remedy="Take a model, or a provider of it, with a context of {tokens} tokens.",
    ),
    "Azure OpenAI": Engine(_see_azure),
    "Jan": Engine(
        _see_jan,
        remedy="Set the model's context size to {tokens} in Jan's model settings, then start the "
        "model again.",
        start="jan serve MODEL --port 1337",
    ),
    "mlx-lm": Engine(
        _see_mlx_lm,
        start="mlx_lm.server --model MODEL --port 8080",
    ),
    "transformers serve": Engine(
        _see_transformers,
        start="transformers serve MODEL",
    ),
}


def _engine(name: Any) -> Engine:
    return ENGINES.get(name, UNKNOWN) if isinstance(name, str) else UNKNOWN


# --- What the runner asks -----------------------------------------------------------------------


def identify(probes: Probes) -> dict[str, str | None]:
    """`{"name", "version", "build", "recognised_by"}`; "unknown" and three nulls otherwise.

    llama.cpp inside another program (xllamacpp, a llamafile since 0.10, `jan serve`) answers like
    llama-server and is named llama.cpp.
    """
    for name, engine in ENGINES.items():
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
    if isinstance(_field(told, "chat_completion"), bool):  # Azure
        return bool(_field(told, "chat_completion"))
    families = _field(entry, "details", "families")
    if isinstance(families, list) and any("bert" in f for f in families if isinstance(f, str)):
        return False
    made = _field(entry, "architecture", "output_modalities")  # llama.cpp, OpenRouter
    return False if isinstance(made, list) and made and "text" not in made else None


def _chats(probes: Any) -> dict[str, bool]:
    """Model name -> whether the server says that it chats; LM Studio's own word counts most."""
    told: dict[str, bool] = {}
    for entry in _listed(probes) + _objects(_field(_answer(probes, "/api/tags"), "models")):
        chat = _told_chat(entry)
        told.update(dict.fromkeys(_names(entry), chat) if chat is not None else {})
    studio = _objects(_field(_answer(probes, "/api/v1/models"), "models"))
    studio += _objects(_field(_answer(probes, "/api/v0/models"), "data"))
    for entry in studio:
        if isinstance(entry.get("type"), str):
            told.update(dict.fromkeys(_names(entry), entry["type"] in CHAT_TYPES))
    return told


def served_models(probes: Probes) -> list[dict[str, Any]]:
    """`[{"id", "chat"}]` in the server's order, each id once, exactly as requests must name it.

    Empty where the server lists none: mlx-lm and transformers serve without a model cache.
    """
    ids = (entry.get("id") for entry in _listed(probes))
    named = dict.fromkeys(i for i in ids if isinstance(i, str) and i)
    told = _chats(probes)
    return [{"id": i, "chat": told.get(i, not NO_CHAT_NAME.search(i))} for i in named]


def model_facts(engine_name: Any, model_id: Any, probes: Probes) -> Facts:
    """The keys of `FACT_NAMES`; None where the engine does not tell.

    `probes` must hold the engine's `EXTRA_POSTS` answer for this very model, if there is one.
    """
    told = _engine(engine_name).facts(model_id, probes)
    facts = {name: told.get(name) for name in FACT_NAMES}
    if facts["quantization"] is None:
        root = _entry(_listed(probes), model_id).get("root")  # vLLM: the folder behind an alias
        named = quantization_in_name(published_model_id(model_id))
        facts["quantization"] = named or quantization_in_name(published_model_id(root))
    return facts


def slots(engine_name: Any, probes: Probes) -> dict[str, Any]:
    """`{"count", "source"}`: how many requests the server works on at once, if it tells."""
    count, source = _engine(engine_name).slots(probes)
    return {"count": count, "source": source}


def context_in_force(
    engine_name: Any, model_id: Any, probes: Probes, requested_tokens: Any
) -> dict[str, Any]:
    """`{"requested_tokens", "effective_tokens", "source", "reason", "remedy"}` for one request.

    Ollama and LM Studio tell it only of a loaded model: ask again after the model's first answer.
    `remedy` is one sentence, only where the server gives less than was asked for.
    """
    tokens, source = _engine(engine_name).context(model_id, probes)
    requested = _count(requested_tokens)
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


def _untold_context(engine_name: Any, model_id: Any, probes: Probes, requested: int | None) -> str:
    loaded = _entry(_field(_answer(probes, "/api/ps"), "models"), model_id)
    if engine_name in ("Ollama", "LM Studio") and not loaded:
        return f"{engine_name} tells the context of a model only while it is loaded"
    if _engine(engine_name) is UNKNOWN:
        return "an unknown server, which does not tell the context in force"
    sentence = _remedy(engine_name, model_id, probes, requested) if requested else None
    told = f"{engine_name} does not tell the context in force"
    return f"{told}; to be sure: {sentence}" if sentence else told


def _remedy(engine_name: Any, model_id: Any, probes: Probes, requested: int) -> str | None:
    trained = model_facts(engine_name, model_id, probes)["trained_context_tokens"]
    if trained and trained < requested:
        return (
            f"The model was trained for {trained} tokens: take one with a longer context, or ask "
            f"for less with `--num-ctx {trained}`."
        )
    sentence = _engine(engine_name).remedy
    count = slots(engine_name, probes)["count"] or 1
    shown = published_model_id(model_id)
    # The sentence holds a command to paste: no id may smuggle another command into it.
    safe = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]*", shown) and shown != NO_NAME
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


# --- Errors -------------------------------------------------------------------------------------


# Where the words of an error stand, the most telling first: KoboldCpp's are in detail.msg.
ERROR_FIELDS = ("message", "error", "errors", "detail", "msg")


def _parsed(body_text: Any) -> Any:
    if not isinstance(body_text, str) or len(body_text) > LONGEST_BODY:
        return None
    try:
        return json.loads(body_text)
    except (ValueError, RecursionError):
        return None


def _told_text(item: Any, depth: int = 3) -> str:
    """The words of an error in whatever shape it came: text, an object, a list of either."""
    if isinstance(item, list) and depth:
        return "; ".join(filter(None, (_told_text(part, depth - 1) for part in item[:20])))
    if isinstance(item, dict) and depth:
        words = (_told_text(item.get(name), depth - 1) for name in ERROR_FIELDS)
        place = item.get("loc")  # FastAPI: where, then what
        where = ".".join(map(str, place[:20])) + ": " if isinstance(place, list) and place else ""
        return where + next(filter(None, words), "")
    return _plain(item[:LONGEST_TEXT]) if isinstance(item, str) else ""


def _error_text(body_text: Any) -> str:
    """The server's own words, on one line."""
    body = _parsed(body_text)
    return _told_text(body if isinstance(body, (dict, list)) else body_text)[:LONGEST_TEXT]


def error_message(body_text: Any) -> str:
    """What a server said about an error, at most 300 characters; "" where it said nothing.

    error.message, a plain `error`, FastAPI's `detail` (text or list), else the body as text.  It
    may hold addresses and paths: redact it before it is written.
    """
    return _error_text(body_text)[:LONGEST_MESSAGE]


# llama.cpp's type, llama-cpp-python's and OpenAI's code, vLLM's param.
CONTEXT_NAMES = ("exceed_context_size_error", "context_length_exceeded", "input_tokens")
# Each engine's own words.
CONTEXT_ERROR = re.compile(
    r"maximum (?:context|model) length|max_model_len"  # vLLM, SGLang, llama-cpp-python
    r"|exceeds? the available context|exceeds? context window|ContextWindowExceeded"  # llama.cpp
    r"|longer than the (?:model's )?context|exceeds? the model's context"  # Ollama, SGLang
    r"|context (?:size|length) (?:has been )?exceeded"
    r"|trying to keep the first|greater than the context length"  # LM Studio
    r"|inputs` (?:tokens \+ `max_new_tokens` must be <=|must have less than)"  # TGI
    r"|prompt is too long",
    re.IGNORECASE,
)
NOT_ABOUT_CONTEXT = (401, 403, 404, 429)


def _error_object(body_text: Any) -> Any:
    """The object that holds type, code and param: `error`, or the body itself (old vLLM)."""
    body = _parsed(body_text)
    body = body[0] if isinstance(body, list) and body else body
    error = _field(body, "error")
    return error if isinstance(error, dict) else body


def _about_context(body_text: Any) -> bool:
    error = _error_object(body_text)
    named = any(_field(error, key) in CONTEXT_NAMES for key in ("type", "code", "param"))
    return named or bool(CONTEXT_ERROR.search(_error_text(body_text)))


def error_kind(status: Any, body_text: Any) -> str:
    """The error kind of an answer that is no completion, by its status and its own words.

    `status` 200 means an error that came inside a stream or a completion; 429 and 503 count there,
    too, since routers tell them as the error's code.
    """
    if not isinstance(status, int) or isinstance(status, bool):
        return "bad_response"
    if status not in NOT_ABOUT_CONTEXT and _about_context(body_text):
        return "context_limit"
    told = [status]
    if status == 200:
        told += [_field(_error_object(body_text), key) for key in ("code", "http_status_code")]
    if 429 in told:
        return "rate_limited"
    if 503 in told:
        return "server_busy"
    if 300 <= status < 400:
        return "bad_redirect"
    if status >= 400:
        return "http_error"
    return "stream_error" if error_message(body_text) else "bad_response"


# max_tokens stays: without it an answer could grow without end, and would not be the phase's.
NEVER_DROPPED = frozenset(("model", "messages", "stream", "max_tokens"))
REFUSAL = re.compile(
    r"unexpected (?:field|key|parameter|argument|keyword)|unknown (?:field|name|param|arg|key)"
    r"|unrecognized|extra (?:inputs|fields)|extra_forbidden|not (?:permitted|supported|allowed)"
    r"|unsupported|does not support|additional properties|unavailable field",
    re.IGNORECASE,
)
REFUSAL_REACH = 300  # characters around the refusal in which the field's name counts


def refused_fields(status: Any, body_text: Any, sent_fields: Any) -> set[str]:
    """The sent fields that a 400 or 422 refuses by name: worth ONE try without them, else empty."""
    if status not in (400, 422) or _about_context(body_text):
        return set()
    names = {n for n in sent_fields if isinstance(n, str)} if _iterable(sent_fields) else set()
    names -= NEVER_DROPPED
    blamed = _field(_error_object(body_text), "param")
    text = _error_text(body_text)
    near = " ".join(
        text[max(0, hit.start() - REFUSAL_REACH) : hit.end() + REFUSAL_REACH]
        for hit in list(REFUSAL.finditer(text))[:20]
    )
    if near and isinstance(blamed, str) and blamed in names:
        return {blamed}
    return names & set(re.findall(r"[A-Za-z0-9_]+", near))


def _iterable(value: Any) -> bool:
    return isinstance(value, (dict, list, tuple, set, frozenset))


# --- For people ---------------------------------------------------------------------------------


def start_hint(engine_name: str | None = None) -> str:
    """The command that starts a server of that engine; without one, those of the usual engines."""
    engine = _engine(engine_name)
    if engine.start:
        return engine.start
    usual = ("Ollama", "llama.cpp", "LM Studio", "vLLM")
    width = max(map(len, usual))
    return "\n".join(f"{name:<{width}}  {ENGINES[name].start}" for name in usual)


# What stands for "/", so that no path gets by in disguise.
SLASH = re.compile(r"\\|%2f|%5c|[\u2044\u2215\u29f8\u29f9\ufe68\uff0f\uff3c]", re.IGNORECASE)
# From a root, a home, a variable, a drive or a URL; from a host; through a hidden folder or
# somebody's; a path inside of other text; or a file ("models/x.gguf").
PATH_SHAPE = re.compile(
    r"^[/$%]|:/|(?:^|/)[.~]|^[^/]*:\d+/|^(?:localhost|\d+\.\d+\.\d+\.\d+|\[[^/]*\])/"
    r"|(?:^|/)(?:home|users|root|mnt|media|volumes|documents|desktop|downloads|appdata)/"
    r"|[\s=,;|<>(){}\[\]'\"]/"
    r"|/[^/:]*\.(?:gguf|bin|safetensors|pt|pth)$",
    re.IGNORECASE,
)
HUB_FOLDER = re.compile(r"^models--([^-/][^/]*?)--([^/]+)$")
MODEL_FILE = re.compile(r"\.(?:gguf|bin|safetensors|pt|pth|llamafile)$", re.IGNORECASE)
# What no model is called: nothing, a variable, a home, a drive or the scheme of a URL.
PLACE = re.compile(r"|\.\.?|[~$%].*|[a-z][a-z0-9+.-]*:", re.IGNORECASE | re.DOTALL)
HOST = re.compile(
    r"^(?:(?:[a-z][a-z0-9+.-]*:)?//[^/]*|[^/:]+:\d+(?=/)|(?:localhost|\d+\.\d+\.\d+\.\d+)(?=/)"
    r"|\[[^/]*\](?::\d+)?(?=/))",
    re.IGNORECASE,
)
# Folders whose folders are named after people or their disks.
HOMES = ("home", "users", "media", "volumes", "documents and settings")


def published_model_id(served_id: Any) -> str:
    """The model id that may be published: of an id shaped like a path only its last part.

    `user/model` and `name:tag` stay.  A snapshot in the Hugging Face cache is named by its
    repository, because its last part is only a hash; a home folder names nobody.  Characters that
    could disguise text become "?"; an id without any text becomes `NO_NAME`.
    """
    if not isinstance(served_id, str):
        return NO_NAME
    text = served_id.strip()
    path = SLASH.sub("/", text)
    if path != text or PATH_SHAPE.search(path):
        text = _last_part(path)
    disguised = ("C", "Zl", "Zp")
    shown = "".join("?" if unicodedata.category(c).startswith(disguised) else c for c in text)
    return shown.strip()[:LONGEST_MODEL_ID].strip() or NO_NAME


def _last_part(path: str) -> str:
    parts = [part.strip() for part in HOST.sub("", path).split("/")]
    parts = [part for part in parts if not PLACE.fullmatch(part)]
    hubs = [hub for hub in map(HUB_FOLDER.match, parts) if hub]
    if hubs and "snapshots" in parts:
        return f"{hubs[-1].group(1)}/{hubs[-1].group(2)}"
    last, above = (["", ""] + parts)[:-3:-1]
    somebody = last.lower() in (*HOMES, "root") or above.lower() in HOMES
    return "" if somebody and not MODEL_FILE.search(last) else last
