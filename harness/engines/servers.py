"""One entry per engine: how to recognise it, and what it reports."""
from __future__ import annotations

import re
from typing import Any, Callable, NamedTuple, Optional

from engines import answers as answerss

# --- How each engine shows itself (the mark, or None) -------------------------------------------


def _see_reference(probes: answerss.Probes) -> str | None:
    told = answerss.field(answerss.answer(probes, "/version"), "engine")
    return "/version engine" if told == "reference-endpoint" else None


def _see_koboldcpp(probes: answerss.Probes) -> str | None:
    # TabbyAPI and Aphrodite answer this path in KoboldCpp's name, but list their own as owner.
    if answerss.field(answerss.answer(probes, "/api/extra/version"), "result") != "KoboldCpp":
        return None
    if answerss.listed(probes) and not answerss.owned_by(probes, "koboldcpp"):
        return None
    return "/api/extra/version"


def _see_lm_studio(probes: answerss.Probes) -> str | None:
    entries = answerss.objects(answerss.field(answerss.answer(probes, "/api/v0/models"), "data"))
    if any("state" in e and "max_context_length" in e for e in entries):
        return "/api/v0/models"
    entries = answerss.objects(answerss.field(answerss.answer(probes, "/api/v1/models"), "models"))
    if any("key" in e and "loaded_instances" in e for e in entries):
        return "/api/v1/models"
    for path in answerss.PROBE_PATHS:
        error = answerss.field(answerss.probe_of(probes, path).json, "error")
        if isinstance(error, str) and error.startswith("Unexpected endpoint or method. (GET /"):
            return "its answer to unknown paths"
    return None


def _see_localai(probes: answerss.Probes) -> str | None:
    system = answerss.answer(probes, "/system")
    if isinstance(system, dict) and "backends" in system and "loaded_models" in system:
        return "/system"
    return None


def _sglang_info(probes: answerss.Probes) -> tuple[Any, str]:
    """What SGLang tells of itself, and where; the second path is the older one."""
    for path in ("/server_info", "/get_server_info"):
        told = answerss.answer(probes, path)
        if answerss.count(answerss.field(told, "max_total_num_tokens")) or answerss.field(told, "internal_states"):
            return told, path
    return None, ""


def _see_sglang(probes: answerss.Probes) -> str | None:
    return _sglang_info(probes)[1] or answerss.owned_by(probes, "sglang")


def _see_tgi(probes: answerss.Probes) -> str | None:
    told = answerss.answer(probes, "/info")
    named = answerss.field(told, "router") == "text-generation-router"
    shaped = answerss.field(told, "model_id") and answerss.field(told, "max_total_tokens")
    return "/info" if named or (shaped and answerss.field(told, "max_concurrent_requests")) else None


def _see_llamafile(probes: answerss.Probes) -> str | None:
    if any(server.startswith("llamafile") for server in answerss.servers(probes)):
        return "Server header"
    return answerss.owned_by(probes, "llamafile")


def _see_llama_cpp(probes: answerss.Probes) -> str | None:
    if "llama.cpp" in answerss.servers(probes):
        return "Server header"
    told = answerss.answer(probes, "/props")
    if answerss.field(told, "default_generation_settings") and answerss.field(told, "total_slots"):
        return "/props"
    return answerss.owned_by(probes, "llamacpp")


def _see_ollama(probes: answerss.Probes) -> str | None:
    if not answerss.version(answerss.field(answerss.answer(probes, "/api/version"), "version")):
        return None
    answers = [answerss.answer(probes, path) for path in ("/api/tags", "/api/ps")]
    if not any(isinstance(answer, dict) and "models" in answer for answer in answers):
        return None
    return "/api/version" if all(map(_named_by_ollama, answerss.listed(probes))) else None


def _named_by_ollama(entry: dict[str, Any]) -> bool:
    """Ollama alone gives the namespace of a model's name as its owner, else "library"."""
    owner, model_id = entry.get("owned_by"), entry.get("id")
    if not isinstance(owner, str) or not isinstance(model_id, str):
        return False
    return owner == "library" or bool(owner) and f"{owner}/" in model_id


def _see_vllm(probes: answerss.Probes) -> str | None:
    return answerss.owned_by(probes, "vllm")


def _see_llama_cpp_python(probes: answerss.Probes) -> str | None:
    entries = [e for e in answerss.listed(probes) if e.get("owned_by") == "me" and "permissions" in e]
    return '/v1/models owned_by "me"' if entries else None


LITELLM_CREATED = 1677610602  # the same second for every model that litellm lists


def _see_litellm(probes: answerss.Probes) -> str | None:
    told = answerss.answer(probes, "/health/readiness")
    if isinstance(answerss.field(told, "litellm_version"), str):
        return "/health/readiness"
    dated = any(e.get("created") == LITELLM_CREATED for e in answerss.listed(probes))
    if dated and answerss.field(told, "status") and "db" in told:
        return "/health/readiness"
    return None


def _see_mlx_lm(probes: answerss.Probes) -> str | None:
    # Python's plain server, whose 404 is a bare "Not Found" labelled as JSON, and which lists
    # entries of three keys, or nothing at all (an empty 200) where there is no model cache.
    python = any(server.startswith("BaseHTTP/") for server in answerss.servers(probes))
    other, models = answerss.probe_of(probes, "/props"), answerss.probe_of(probes, "/v1/models")
    labelled = answerss.field(other.headers, "content-type") == "application/json"
    bare = other.status == 404 and other.text == "Not Found" and labelled
    plain = all(set(e) == {"id", "object", "created"} for e in answerss.listed(probes))
    return "its 404" if python and bare and models.status == 200 and plain else None


def _see_openrouter(probes: answerss.Probes) -> str | None:
    marks = {"canonical_slug", "top_provider", "pricing"}
    return "/v1/models top_provider" if any(marks <= set(e) for e in answerss.listed(probes)) else None


def _see_azure(probes: answerss.Probes) -> str | None:
    for entry in answerss.listed(probes):
        told = answerss.field(entry, "capabilities", "chat_completion")
        if "lifecycle_status" in entry and isinstance(told, bool):
            return "/v1/models lifecycle_status"
    return None


JAN_ENTRY = {"object": "model", "created": 1, "owned_by": "user"}  # beside the id, for every model


def _see_jan(probes: answerss.Probes) -> str | None:
    other, entries = answerss.probe_of(probes, "/props"), answerss.listed(probes)
    bare = other.status == 404 and other.text == "Not Found" and not answerss.servers(probes)
    plain = all(e == {**JAN_ENTRY, "id": e.get("id")} for e in entries)
    return '/v1/models created 1, owned_by "user"' if bare and entries and plain else None


def _see_transformers(probes: answerss.Probes) -> str | None:
    # A path that only takes a POST: asking it with GET is refused, and says that it exists.
    refused = answerss.probe_of(probes, "/load_model").status == 405
    return "/load_model" if refused and "uvicorn" in answerss.servers(probes) else None


# --- What each engine tells about itself: (version, build) --------------------------------------

Version = tuple[Optional[str], Optional[str]]


def _told_version(path: str, name: str = "version") -> Callable[[answerss.Probes], Version]:
    return lambda probes: (answerss.version(answerss.field(answerss.answer(probes, path), name)), None)


def _version_untold(_: answerss.Probes) -> Version:
    return None, None


def _version_llama_cpp(probes: answerss.Probes) -> Version:
    build = answerss.version(answerss.field(answerss.answer(probes, "/props"), "build_info"))
    number = re.match(r"b[1-9]\d*", build or "")  # "b0" is a build that does not know its number
    return (number.group() if number else None), build


def _version_llamafile(probes: answerss.Probes) -> Version:
    headers = (re.match(r"llamafile/([^\s/]{1,60})", server) for server in answerss.servers(probes))
    return next((answerss.version(h.group(1)) for h in headers if h), None), None


def _version_sglang(probes: answerss.Probes) -> Version:
    return answerss.version(answerss.field(_sglang_info(probes)[0], "version")), None


def _version_tgi(probes: answerss.Probes) -> Version:
    told = answerss.answer(probes, "/info")
    return answerss.version(answerss.field(told, "version")), answerss.version(answerss.field(told, "sha"))


def _version_localai(probes: answerss.Probes) -> Version:
    told = answerss.version(answerss.field(answerss.answer(probes, "/version"), "version"))
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


def _no_facts(_: Any, __: answerss.Probes) -> Facts:
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


def _facts_llama_cpp(model_id: Any, probes: answerss.Probes) -> Facts:
    meta = answerss.field(answerss.entry(answerss.listed(probes), model_id), "meta")
    props = answerss.answer(probes, "/props")
    file_name = answerss.published_model_id(answerss.field(props, "model_path"))
    return {
        "quantization": _file_type(answerss.field(meta, "ftype"))
        or _file_type(answerss.field(props, "model_ftype"))
        or answerss.quantization_in_name(file_name),
        "parameters_count": answerss.count(answerss.field(meta, "n_params")),
        "file_bytes": answerss.count(answerss.field(meta, "size")),  # of all tensors: a little below the file's
        "trained_context_tokens": answerss.count(answerss.field(meta, "n_ctx_train")),
    }


def _facts_ollama(model_id: Any, probes: answerss.Probes) -> Facts:
    listed = answerss.entry(answerss.field(answerss.answer(probes, "/api/tags"), "models"), model_id)
    shown = answerss.answer(probes, "/api/show")
    details = answerss.field(listed, "details") or answerss.field(shown, "details")
    info = answerss.field(shown, "model_info")
    architecture = answerss.field(info, "general.architecture")
    return {
        "quantization": answerss.known(answerss.field(details, "quantization_level")),
        "parameters_count": answerss.count(answerss.field(info, "general.parameter_count")),
        "file_bytes": answerss.count(listed.get("size")),
        "digest": answerss.word_of(listed.get("digest")),
        "family": answerss.word_of(answerss.field(details, "family")),
        "trained_context_tokens": answerss.count(answerss.field(info, f"{architecture}.context_length")),
    }


def _facts_lm_studio(model_id: Any, probes: answerss.Probes) -> Facts:
    old = answerss.entry(answerss.field(answerss.answer(probes, "/api/v0/models"), "data"), model_id)
    new = answerss.entry(answerss.field(answerss.answer(probes, "/api/v1/models"), "models"), model_id)
    return {
        "quantization": answerss.known(old.get("quantization"))
        or answerss.known(answerss.field(new, "quantization", "name")),
        "file_bytes": answerss.count(new.get("size_bytes")),
        "family": answerss.word_of(old.get("arch")) or answerss.word_of(new.get("architecture")),
        "trained_context_tokens": answerss.count(old.get("max_context_length"))
        or answerss.count(new.get("max_context_length")),
    }


def _facts_localai(_: Any, probes: answerss.Probes) -> Facts:
    told = answerss.field(answerss.answer(probes, "/api/show"), "details", "quantization_level")
    return {"quantization": answerss.known(told)}


def _facts_sglang(_: Any, probes: answerss.Probes) -> Facts:
    return {"quantization": answerss.known(answerss.field(_sglang_info(probes)[0], "quantization"))}


def _facts_tgi(_: Any, probes: answerss.Probes) -> Facts:
    told = answerss.answer(probes, "/info")
    return {
        "quantization": answerss.known(answerss.field(told, "quantize")),
        "digest": answerss.word_of(answerss.field(told, "model_sha")),
    }


# --- The context that a request really gets -----------------------------------------------------


def _context_listed(model_id: Any, probes: answerss.Probes) -> answerss.Summary:
    """`max_model_len`, which vLLM, SGLang and others list for each model."""
    tokens = answerss.count(answerss.entry(answerss.listed(probes), model_id).get("max_model_len"))
    return (tokens, "/v1/models max_model_len") if tokens else answerss.UNKNOWN_SUMMARY


def _context_llama_cpp(model_id: Any, probes: answerss.Probes) -> answerss.Summary:
    """Tokens of one slot: what one request gets, not the sum given with -c."""
    tokens = answerss.count(answerss.field(answerss.entry(answerss.listed(probes), model_id), "meta", "n_ctx"))
    if tokens:
        return tokens, "/v1/models meta.n_ctx"
    tokens = answerss.count(answerss.field(answerss.answer(probes, "/props"), "default_generation_settings", "n_ctx"))
    return (tokens, "/props n_ctx") if tokens else answerss.UNKNOWN_SUMMARY


def _context_ollama(model_id: Any, probes: answerss.Probes) -> answerss.Summary:
    loaded = answerss.entry(answerss.field(answerss.answer(probes, "/api/ps"), "models"), model_id)
    tokens = answerss.count(loaded.get("context_length"))
    return (tokens, "/api/ps context_length") if tokens else answerss.UNKNOWN_SUMMARY


def _context_lm_studio(model_id: Any, probes: answerss.Probes) -> answerss.Summary:
    loaded = answerss.entry(answerss.field(answerss.answer(probes, "/api/v0/models"), "data"), model_id)
    tokens = answerss.count(loaded.get("loaded_context_length"))
    if tokens:
        return tokens, "/api/v0/models loaded_context_length"
    tokens = answerss.count(answerss.field(_lm_studio_instance(model_id, probes), "config", "context_length"))
    return (tokens, "/api/v1/models context_length") if tokens else answerss.UNKNOWN_SUMMARY


def _lm_studio_instance(model_id: Any, probes: answerss.Probes) -> Any:
    """The running instance of that name, or the only one: else it is open which answers."""
    model = answerss.entry(answerss.field(answerss.answer(probes, "/api/v1/models"), "models"), model_id)
    instances = answerss.objects(model.get("loaded_instances"))
    named = [instance for instance in instances if instance.get("id") == model_id]
    return (named or instances)[0] if named or len(instances) == 1 else None


def _context_sglang(model_id: Any, probes: answerss.Probes) -> answerss.Summary:
    told, path = _sglang_info(probes)
    tokens, listed = answerss.count(answerss.field(told, "context_length")), _context_listed(model_id, probes)
    return (tokens, f"{path} context_length") if tokens and not listed[0] else listed


def _context_openrouter(model_id: Any, probes: answerss.Probes) -> answerss.Summary:
    """What the first of the model's providers gives; which one answers is only known afterwards."""
    tokens = answerss.count(answerss.field(answerss.entry(answerss.listed(probes), model_id), "top_provider", "context_length"))
    return (tokens, "/v1/models top_provider.context_length") if tokens else answerss.UNKNOWN_SUMMARY


def _context_tgi(_: Any, probes: answerss.Probes) -> answerss.Summary:
    tokens = answerss.count(answerss.field(answerss.answer(probes, "/info"), "max_total_tokens"))
    return (tokens, "/info max_total_tokens") if tokens else answerss.UNKNOWN_SUMMARY


def _context_localai(_: Any, probes: answerss.Probes) -> answerss.Summary:
    """As the model's YAML file says; where it says nothing, LocalAI does not either."""
    info = answerss.field(answerss.answer(probes, "/api/show"), "model_info")
    tokens = answerss.count(answerss.field(info, "general.context_length"))
    return (tokens, "/api/show general.context_length") if tokens else answerss.UNKNOWN_SUMMARY


def _context_koboldcpp(_: Any, probes: answerss.Probes) -> answerss.Summary:
    path = "/api/extra/true_max_context_length"
    tokens = answerss.count(answerss.field(answerss.answer(probes, path), "value"))
    return (tokens, path) if tokens else answerss.UNKNOWN_SUMMARY


# --- How many requests run at once --------------------------------------------------------------


def _slots_untold(_: answerss.Probes) -> answerss.Summary:
    return answerss.UNKNOWN_SUMMARY


def _slots_llama_cpp(probes: answerss.Probes) -> answerss.Summary:
    count = answerss.count(answerss.field(answerss.answer(probes, "/props"), "total_slots"))
    return (count, "/props total_slots") if count else answerss.UNKNOWN_SUMMARY


def _slots_sglang(probes: answerss.Probes) -> answerss.Summary:
    told, path = _sglang_info(probes)
    # What the scheduler really uses stands in its state; the flag beside it may be null.
    states = answerss.objects(answerss.field(told, "internal_states")) + [told]
    counts = [answerss.count(answerss.field(state, "max_running_requests")) for state in states]
    count = next((c for c in counts if c), None)
    return (count, f"{path} max_running_requests") if count else answerss.UNKNOWN_SUMMARY


# --- The table ----------------------------------------------------------------------------------


class Engine(NamedTuple):
    """All that is known of one engine.

    `remedy` is a sentence with {tokens} (per request), {total} (for all slots), {slots}, {model};
    `cache_field` the request field by which one request can leave the prompt cache alone.
    """

    recognise: Callable[[answerss.Probes], str | None]
    version: Callable[[answerss.Probes], Version] = _version_untold
    facts: Callable[[Any, answerss.Probes], Facts] = _no_facts
    context: Callable[[Any, answerss.Probes], answerss.Summary] = _context_listed
    slots: Callable[[answerss.Probes], answerss.Summary] = _slots_untold
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
