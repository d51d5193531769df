"""One class per engine: how to recognise it, and all that is known of it.

To add an engine, write its class and put it into `ENGINES` at the end of this file. A path that no
other engine uses must also be added to PROBE_PATHS in answers.py.

Rules for every class:
- `recognise` relies on a mark that this engine alone leaves. Several engines imitate others
  (KoboldCpp, LocalAI and many small programs answer Ollama's paths, LM Studio answers every path
  with 200), so `ENGINES` is tried in order, the most particular mark first.
- Report a fact only when the server reports it, else None; never guess. A quantization in a model's
  name counts as reported, because the server reports the name.
- Take facts field by field. Whole answers hold private things: SGLang's lists its API keys,
  llama.cpp's a path.

Sources: the recorded answers in tests/data/engines/, and the engines' own documentation.
"""
from __future__ import annotations

import datetime
import email.utils
import re
import urllib.parse
from typing import Any, Optional

from engines import answers
from engines.answers import Probes, count, field, json_at, models_at, value_at, version

Version = tuple[Optional[str], Optional[str]]         # version and build
Sourced = tuple[Optional[int], Optional[str]]         # a number and where it was reported
# Method, path, body, and the path of the answer in the probes.
ModelRequest = Optional[tuple[str, str, Optional[dict[str, Any]], str]]
UNKNOWN_NUMBER: Sourced = (None, None)
UNLOADING_S = 2               # the server's date has whole seconds
Places = tuple[str, ...]                              # of `value_at`, the first with a value counts


# What an engine reports about a model, as ledger.schema.json describes it.
Facts = dict[str, Any]
FACT_NAMES = ("quantization", "parameters_count", "file_bytes", "digest", "family",
              "trained_context_tokens")
# What only some engines report; absent where it is not reported. gpu_offload_ratio: the part of
# the loaded model in the accelerator's memory. chat_template: False if the model has none.
# file_name: of the file or folder. dtype: number format of the computation. vocabulary_tokens,
# embedding_length: of the architecture. gguf_*: fields of the file's header.
MORE_FACT_NAMES = (
    "gpu_offload_ratio", "source_repository", "publisher", "file_name", "file_format",
    "flash_attention", "kv_cache_type", "kv_cache_offloaded", "dtype", "bits_per_weight",
    "vocabulary_tokens", "embedding_length", "batch_tokens", "accelerators_used_count",
    "speculative", "parent_model", "chat_template", "gguf_basename", "gguf_finetune",
    "gguf_size_label", "gguf_version", "gguf_organization")


class Engine:
    """An engine of which nothing is known: the defaults of all others."""

    name = "unknown"
    # What it is recognised by: fields of an answer, or of an entry in a list of models, by path, or
    # owned_by in /v1/models.
    marks_at: dict[str, set[str]] = {}
    owner = ""
    hosted = False                    # an API of a company, whose machines compute
    usual_port: Optional[int] = None
    # Of the most used engines: how to start it with 4096 tokens for each of four requests at once,
    # where it has such options. By platform.system(), where that differs: `start_on`.
    start_command = ""
    start_on: dict[str, str] = {}
    # How to get a longer context: a sentence with {tokens} (of one request), {total} (of all
    # slots), {slots} and {model}. By platform.system(), where that differs: `remedy_on`.
    remedy = ""
    remedy_on: dict[str, str] = {}
    # How to let it work on {slots} requests at once, with {tokens} tokens each.
    parallel_remedy = ""
    parallel_remedy_on: dict[str, str] = {}
    # What to do about answers that are interrupted by the next request.
    interrupted_remedy = ""
    version_at = ""
    build_at = ""
    facts_at: dict[str, Places] = {}  # by the names of `Facts`
    context_at: Places = ("/v1/models max_model_len",)
    slots_at: Places = ()
    # Where it is reported which models are loaded, and the place of a list of these alone. The
    # fields of an entry there that lead to its context, if only that of a loaded model is reported.
    state_paths: Places = ("/v1/models", "/running", "/v1/models/status")     # the last: oMLX
    loaded_at = ""
    loaded_context: tuple[str, ...] = ()
    # A POST of {"model": id} to this path describes one model and does not load it.
    show_path = ""
    # The request field by which one request bypasses the prompt cache. Without one, a line of salt
    # ahead of the prompt does it, with any engine. A field that is ignored is worse than none: the
    # run would claim uncached prompts.
    cache_field = ""
    # Regular expressions for messages about a context that is too short, and the values of an
    # error's type, code or param that mean the same. These are used by several engines.
    context_errors: tuple[str, ...] = (
        r"maximum (?:context|model) length", r"context (?:size|length) (?:has been )?exceeded",
        r"exceed(?:s|ed)? (?:(?:the|max|available|model's) )*context", r"prompt is too long")
    context_error_codes: tuple[str, ...] = ("context_length_exceeded",)

    def recognise(self, probes: Probes) -> Optional[str]:
        """The mark by which the engine is recognised, or None."""
        for path, marks in self.marks_at.items():
            listed = path in answers.MODEL_LISTS
            found = models_at(probes, path) if listed else answers.objects([json_at(probes, path)])
            if any(marks <= set(one) for one in found):
                return path
        owners = [entry.get("owned_by") for entry in models_at(probes)] if self.owner else []
        return f'/v1/models owned_by "{self.owner}"' if self.owner in owners else None

    def version(self, probes: Probes) -> Version:
        """Version and build."""
        places = (self.version_at, self.build_at)
        found = [version(value_at(probes, place)) if place else None for place in places]
        return found[0], found[1]

    def quantization(self, value: Any) -> Optional[str]:
        """A quantization as file names spell it."""
        return answers.word(value)

    def facts(self, model_id: Any, probes: Probes) -> Facts:
        """What is reported about a model."""
        readers: dict[str, Any] = {
            "quantization": self.quantization, "digest": answers.word, "family": answers.word,
            "source_repository": answers.repository, "file_name": answers.file_name,
            "file_format": answers.word, "kv_cache_type": answers.word,
            "flash_attention": answers.on_or_off}
        facts: Facts = {}
        for name in (*FACT_NAMES, *MORE_FACT_NAMES):
            read = readers.get(name, count)
            values = (read(value_at(probes, place, model_id))
                      for place in self.facts_at.get(name, ()))
            value = next((value for value in values if value is not None), None)
            if value is not None or name in FACT_NAMES:
                facts[name] = value
        return facts

    def state(self, model_id: Any, probes: Probes) -> Optional[str]:
        """Whether a model is in memory: one of answers.STATES, or None if it is not reported."""
        if self.loaded_at:
            found = self.loaded_entry(model_id, probes)
            is_list = isinstance(json_at(probes, *self.loaded_at.split()), list)
            return ("loaded" if found else "not loaded") if is_list else None
        states = [answers.state_in(answers.model_at(probes, path, model_id))
                  for path in ("/v1/models", "/api/v0/models", "/running", "/v1/models/status")]
        reported = next(filter(None, states), None)
        listed = answers.probe_at(probes, "/running").status == 200 and isinstance(
            json_at(probes, "/running", "running"), list)
        return reported or ("not loaded" if listed else None)

    def loaded_entry(self, model_id: Any, probes: Probes) -> dict[str, Any]:
        """What is reported at `loaded_at` about a loaded model, {} if it is not loaded."""
        entries = answers.objects(json_at(probes, *self.loaded_at.split()))
        return answers.entry_of(entries, model_id)

    def model_request(self, model_id: str, probes: Probes) -> ModelRequest:
        """A request about one model, which must not load it; None without one."""
        body = {"model": model_id}
        return ("POST", self.show_path, body, self.show_path) if self.show_path else None

    def context(self, model_id: Any, probes: Probes) -> Sourced:
        """The context of one request in tokens."""
        if self.loaded_context:
            tokens = count(field(self.loaded_entry(model_id, probes), *self.loaded_context))
            source = f"{self.loaded_at.split()[0]} {self.loaded_context[-1]}"
            return (tokens, source) if tokens else UNKNOWN_NUMBER
        return first_count(probes, self.context_at, model_id)

    def needs_loading(self, model_id: Any, probes: Probes) -> bool:
        """Whether a missing context is reported as soon as the model is loaded."""
        return bool(self.loaded_context) and not self.loaded_entry(model_id, probes)

    def slots(self, probes: Probes) -> Sourced:
        """How many requests the server works on at once."""
        return first_count(probes, self.slots_at)

    def cache_value(self, salt: Any) -> Any:
        """The value for `cache_field`, or None. `salt` is random per conversation."""
        return None


def with_known(facts: Facts, **more: Any) -> Facts:
    """The facts, and those of the others that are known."""
    return {**facts, **{name: value for name, value in more.items() if value is not None}}


def first_count(probes: Probes, places: Places, model_id: Any = None) -> Sourced:
    """The first positive whole number at these places, and where it was."""
    for place in places:
        number = count(value_at(probes, place, model_id))
        if number:
            path, *names = place.split()
            return number, f"{path} {'.'.join(names)}"
    return UNKNOWN_NUMBER


class ReferenceEndpoint(Engine):
    name = "reference-endpoint"
    remedy = "Start the reference endpoint with a context of at least {tokens} tokens."
    version_at = "/version version"

    def recognise(self, probes: Probes) -> Optional[str]:
        return "/version engine" if json_at(probes, "/version", "engine") == self.name else None


class LiteLLM(Engine):
    """A proxy: whether a request field reaches the server behind it is unknown."""

    name = "litellm"
    usual_port = 4000
    remedy = "Set a context of {tokens} tokens on the server behind litellm."
    version_at = "/health/readiness litellm_version"
    context_errors = (r"ContextWindowExceeded",)
    CREATED = 1677610602              # the same second for every model that litellm lists

    def recognise(self, probes: Probes) -> Optional[str]:
        health = json_at(probes, "/health/readiness")
        dated = any(entry.get("created") == self.CREATED for entry in models_at(probes))
        if (isinstance(field(health, "litellm_version"), str)
                or dated and field(health, "status") and "db" in health):
            return "/health/readiness"
        return None


class KoboldCpp(Engine):
    name = "KoboldCpp"
    owner = "koboldcpp"
    usual_port = 5001
    remedy = "Start KoboldCpp with `--contextsize {tokens}`."
    version_at = "/api/extra/version version"
    context_at = ("/api/extra/true_max_context_length value",)

    def recognise(self, probes: Probes) -> Optional[str]:
        # TabbyAPI and Aphrodite answer this path in KoboldCpp's name, but list their own as owner.
        named = json_at(probes, "/api/extra/version", "result") == self.name
        own = super().recognise(probes) or not models_at(probes)
        return "/api/extra/version" if named and own else None


class LMStudio(Engine):
    name = "LM Studio"
    marks_at = {"/api/v0/models": {"state", "max_context_length"},
                "/api/v1/models": {"key", "loaded_instances"}}
    usual_port = 1234
    start_command = "lms load MODEL --context-length 4096 --parallel 4; lms server start"
    parallel_remedy = ("Load the model again with `lms load {model} --context-length {tokens} "
                       "--parallel {slots}` (LM Studio 0.4 or newer).")
    remedy = ("Load the model again with `lms unload {model}` and then "
              "`lms load {model} --context-length {tokens}`.")
    facts_at = {
        "quantization": ("/api/v0/models quantization", "/api/v1/models quantization name"),
        "file_bytes": ("/api/v1/models size_bytes",),
        "family": ("/api/v0/models arch", "/api/v1/models architecture"),
        "trained_context_tokens": ("/api/v0/models max_context_length",
                                   "/api/v1/models max_context_length"),
        "file_format": ("/api/v0/models compatibility_type", "/api/v1/models format")}
    context_at = ("/api/v0/models loaded_context_length",)
    state_paths = ("/api/v0/models", "/api/v1/models")
    context_errors = (r"trying to keep the first", r"greater than the context length")

    def recognise(self, probes: Probes) -> Optional[str]:
        errors = (field(answers.probe_at(probes, path).json, "error")
                  for path in answers.PROBE_PATHS)
        known = any(isinstance(error, str) and error.startswith("Unexpected endpoint or method. (")
                    for error in errors)
        return super().recognise(probes) or ("its answer to unknown paths" if known else None)

    def _loaded_config(self, model_id: Any, probes: Probes) -> Any:
        """The settings of the loaded instance of that name, or of the only one."""
        model = answers.model_at(probes, "/api/v1/models", model_id)
        instances = answers.objects(model.get("loaded_instances"))
        named = [instance for instance in instances if instance.get("id") == model_id]
        instance = (named or instances)[0] if named or len(instances) == 1 else None
        return field(instance, "config")

    def context(self, model_id: Any, probes: Probes) -> Sourced:
        tokens = count(field(self._loaded_config(model_id, probes), "context_length"))
        found = super().context(model_id, probes)
        return (tokens, "/api/v1/models context_length") if tokens and not found[0] else found

    def facts(self, model_id: Any, probes: Probes) -> Facts:
        facts, config = super().facts(model_id, probes), self._loaded_config(model_id, probes)
        older, newer = (answers.model_at(probes, path, model_id)
                        for path in ("/api/v0/models", "/api/v1/models"))
        offloaded = field(config, "offload_kv_cache_to_gpu")
        bits = field(newer, "quantization", "bits_per_weight")
        return with_known(
            facts, flash_attention=answers.on_or_off(field(config, "flash_attention")),
            batch_tokens=count(field(config, "eval_batch_size")),
            kv_cache_offloaded=offloaded if isinstance(offloaded, bool) else None,
            bits_per_weight=bits if type(bits) in (int, float) and 0 < bits <= 64 else None,
            publisher=answers.word(older.get("publisher") or newer.get("publisher")))

    def state(self, model_id: Any, probes: Probes) -> Optional[str]:
        instances = answers.model_at(probes, "/api/v1/models", model_id).get("loaded_instances")
        if isinstance(instances, list):
            return "loaded" if instances else "not loaded"
        return super().state(model_id, probes)

    def needs_loading(self, model_id: Any, probes: Probes) -> bool:
        return True


class Lemonade(Engine):
    """Starts a llama.cpp, FastFlowLM or ONNX server for each model that it loads."""

    name = "Lemonade"
    owner = "lemonade"
    usual_port = 13305
    remedy = "Load the model again with `lemonade load {model} --ctx-size {tokens}`."
    version_at = "/api/v1/health version"
    state_paths = ("/api/v1/health",)
    loaded_at = "/api/v1/health all_models_loaded"
    loaded_context = ("recipe_options", "ctx_size")

    def facts(self, model_id: Any, probes: Probes) -> Facts:
        facts = super().facts(model_id, probes)
        checkpoint = value_at(probes, "/v1/models checkpoint", model_id)
        source, _, tag = checkpoint.partition(":") if isinstance(checkpoint, str) else ("", "", "")
        facts["quantization"] = answers.quantization_in_name(tag)
        if answers.repository(source):
            facts["source_repository"] = source
        return facts


class LocalAI(Engine):
    """Reports the context that a model's YAML file sets, if it sets one."""

    name = "LocalAI"
    marks_at = {"/system": {"backends", "loaded_models"}}
    usual_port = 8080
    remedy = "Set `context_size: {tokens}` in the model's YAML file and restart LocalAI."
    version_at = "/version version"
    facts_at = {"quantization": ("/api/show details quantization_level",)}
    FROM = re.compile(r"^FROM\s+(\S+)\s*$", re.MULTILINE)
    context_at = ("/api/show model_info general.context_length",)
    show_path = "/api/show"
    state_paths = ("/system",)
    loaded_at = "/system loaded_models"
    parallel_remedy = "Set LLAMACPP_PARALLEL={slots} in LocalAI's environment and restart it."

    def facts(self, model_id: Any, probes: Probes) -> Facts:
        facts, modelfile = super().facts(model_id, probes), json_at(probes, "/api/show",
                                                                    "modelfile")
        found = self.FROM.search(modelfile) if isinstance(modelfile, str) else None
        return with_known(facts, file_name=answers.file_name(found[1]),
                          source_repository=answers.repository(found[1])) if found else facts

    def version(self, probes: Probes) -> Version:
        text, _ = super().version(probes)
        parts = re.fullmatch(r"(\S+) \((\S+)\)", text or "")     # "v3.1.0 (commit)"
        return (parts.group(1), parts.group(2)) if parts else (text, None)


class SGLang(Engine):
    name = "SGLang"
    owner = "sglang"
    usual_port = 30000
    parallel_remedy = "Start SGLang with `--max-running-requests {slots}` or without that option."
    remedy = "Start SGLang with `--context-length {tokens}`."
    context_at = ("/v1/models max_model_len", "/server_info context_length",
                  "/get_server_info context_length")
    context_errors = (r"longer than the model's context",)

    def _info(self, probes: Probes) -> tuple[Any, str]:
        """What the server reports about itself, and where; the second path is the older one."""
        for path in ("/server_info", "/get_server_info"):
            info = json_at(probes, path)
            if count(field(info, "max_total_num_tokens")) or field(info, "internal_states"):
                return info, path
        return None, ""

    def recognise(self, probes: Probes) -> Optional[str]:
        return self._info(probes)[1] or super().recognise(probes)

    def version(self, probes: Probes) -> Version:
        return version(field(self._info(probes)[0], "version")), None

    def facts(self, model_id: Any, probes: Probes) -> Facts:
        info, facts = self._info(probes)[0], super().facts(model_id, probes)
        facts["quantization"] = self.quantization(field(info, "quantization"))
        source = answers.repository(field(info, "model_path"))
        folder = answers.folder_name(field(info, "model_path"))
        devices = count(field(info, "tp_size"))
        dtype, cache = (None if word == "auto" else word for word in (
            answers.word(field(info, name)) for name in ("dtype", "kv_cache_dtype")))
        return with_known(
            facts, source_repository=source, dtype=dtype, kv_cache_type=cache,
            file_name=None if source or folder == model_id else folder,
            # 1 is also that of a server on the CPU
            accelerators_used_count=devices if devices and devices > 1 else None,
            speculative=answers.word(field(info, "speculative_algorithm")))

    def slots(self, probes: Probes) -> Sourced:
        info, path = self._info(probes)
        # The scheduler's state holds the number in use; the option beside it may be null.
        states = answers.objects(field(info, "internal_states")) + [info]
        found = filter(None, (count(field(state, "max_running_requests")) for state in states))
        number = next(found, None)
        return (number, f"{path} max_running_requests") if number else UNKNOWN_NUMBER


class TGI(Engine):
    name = "TGI"
    remedy = "Start TGI with `--max-total-tokens {tokens}`."
    version_at = "/info version"
    build_at = "/info sha"
    facts_at = {"quantization": ("/info quantize",), "digest": ("/info model_sha",),
                "source_repository": ("/info model_id",)}
    context_at = ("/info max_total_tokens",)
    context_errors = (
        r"inputs` (?:tokens \+ `max_new_tokens` must be <=|must have less than)",)

    def recognise(self, probes: Probes) -> Optional[str]:
        info = json_at(probes, "/info")
        marks = ("model_id", "max_total_tokens", "max_concurrent_requests")
        named = field(info, "router") == "text-generation-router"
        return "/info" if named or all(field(info, mark) for mark in marks) else None


class LlamaServer(Engine):
    """What llama.cpp's server and the programs around it have in common."""

    facts_at = {
        "quantization": ("/v1/models meta ftype", "/props model_ftype"),
        "parameters_count": ("/v1/models meta n_params",),
        # Of all tensors: a little less than the file has.
        "file_bytes": ("/v1/models meta size",),
        "trained_context_tokens": ("/v1/models meta n_ctx_train",),
        "vocabulary_tokens": ("/v1/models meta n_vocab",),
        "embedding_length": ("/v1/models meta n_embd",),
        "file_name": ("/props model_path",)}
    # Of one slot, which one request gets, not the total set with -c.
    context_at = ("/v1/models meta n_ctx", "/props default_generation_settings n_ctx")
    slots_at = ("/props total_slots",)
    # File types in llama.cpp's own spelling: "Q4_K - Medium", "IQ4_XS - 4.25 bpw", "MXFP4 MoE".
    FILE_TYPE = re.compile(
        r"(?:all )?([A-Z]+[0-9]+(?:_[A-Z0-9]+)*)( MoE)?"
        r"(?: - (?:(Small|Medium|Large)|[0-9.]+ bpw(?: ternary)?))?(?: \(guessed\))?")

    def quantization(self, value: Any) -> Optional[str]:
        match = self.FILE_TYPE.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            return None
        name, moe, size = match.groups()
        if name == "Q2_K" and size == "Medium":      # the only one without a size in file names
            return "Q2_K"
        return name + ("_MOE" if moe else "") + (f"_{size[0]}" if size else "")

    def facts(self, model_id: Any, probes: Probes) -> Facts:
        facts = super().facts(model_id, probes)
        in_name = answers.quantization_in_name(json_at(probes, "/props", "model_path"))
        facts["quantization"] = facts["quantization"] or in_name
        types = json_at(probes, "/props", "default_generation_settings", "params",
                        "speculative.types")
        if types == "none" or answers.word(types):
            facts["speculative"] = types
        return facts

    def props_request(self, model_id: str, probes: Probes, **more: str) -> ModelRequest:
        """A request for /props of one of several models, only while that one is loaded."""
        query = urllib.parse.urlencode({"model": model_id, **more})
        loaded = self.state(model_id, probes) == "loaded"
        return ("GET", f"/props?{query}", None, "/props") if loaded else None


class Llamafile(LlamaServer):
    """A llamafile before 0.10; a newer one answers like llama-server and is named llama.cpp."""

    name = "llamafile"
    owner = "llamafile"
    usual_port = 8080
    parallel_remedy = "Start the llamafile with `-c {total} -np {slots}`."
    remedy = "Start the llamafile with `-c {total}`."

    def recognise(self, probes: Probes) -> Optional[str]:
        if any(header.startswith("llamafile") for header in answers.server_headers(probes)):
            return "Server header"
        return super().recognise(probes)

    def version(self, probes: Probes) -> Version:
        headers = answers.server_headers(probes)
        found = filter(None, (re.match(r"llamafile/([^\s/]{1,60})", h) for h in headers))
        return next((version(match.group(1)) for match in found), None), None


class LlamaCpp(LlamaServer):
    """llama-server, also inside another program (xllamacpp, `jan serve`)."""

    name = "llama.cpp"
    owner = "llamacpp"
    usual_port = 8080
    start_command = "llama-server -m MODEL.gguf -c 16384 -np 4"
    parallel_remedy = ("Start llama-server with `-c {total} -np {slots}`: its slots share the "
                       "tokens of -c.")
    remedy = ("Start llama-server with `-c {total} -np {slots}`, which gives each of its slots "
              "{tokens} tokens.")
    build_at = "/props build_info"
    state_paths = ("/v1/models", "/props")
    cache_field = "cache_prompt"
    context_error_codes = ("exceed_context_size_error",)

    def recognise(self, probes: Probes) -> Optional[str]:
        if "llama.cpp" in answers.server_headers(probes):
            return "Server header"
        props = json_at(probes, "/props")
        if field(props, "default_generation_settings") and field(props, "total_slots"):
            return "/props"
        return super().recognise(probes)

    def version(self, probes: Probes) -> Version:
        _, build = super().version(probes)
        number = re.match(r"b[1-9]\d*", build or "")     # "b0": a build without a number
        return number.group() if number else None, None if build == "b0-unknown" else build

    def cache_value(self, salt: Any) -> Any:
        return False

    def state(self, model_id: Any, probes: Probes) -> Optional[str]:
        # With --sleep-idle-seconds, the server unloads its model until the next call.
        sleeps, reported = json_at(probes, "/props", "is_sleeping"), super().state(model_id, probes)
        own = ("loaded", "not loaded")[sleeps] if isinstance(sleeps, bool) else None
        return reported or own

    def model_request(self, model_id: str, probes: Probes) -> ModelRequest:
        # A router answers for one model, and would load it unless it is asked not to.
        is_router = json_at(probes, "/props", "role") == "router"
        return self.props_request(model_id, probes, autoload="false") if is_router else None


class LlamaSwap(LlamaServer):
    """Starts a server for each model, mostly llama.cpp's, which answers requests and /props."""

    name = "llama-swap"
    owner = "llama-swap"
    usual_port = 8080
    remedy = "Put `-c {total}` into the model's cmd in llama-swap's configuration."
    parallel_remedy = ("Put `-c {total} -np {slots}` into the model's cmd in llama-swap's "
                       "configuration.")
    version_at = "/api/version version"
    build_at = "/api/version commit"

    def model_request(self, model_id: str, probes: Probes) -> ModelRequest:
        return self.props_request(model_id, probes)


class DockerModelRunner(Engine):
    """Starts a server for each model, mostly llama.cpp's. Also answers Ollama's paths."""

    name = "Docker Model Runner"
    owner = "docker"
    usual_port = 12434
    remedy = "Type `docker model configure --context-size {tokens} {model}`."
    version_at = "/version version"
    facts_at = {"quantization": ("/v1/models dmr quantization",),
                "family": ("/v1/models dmr architecture",)}
    state_paths = ("/api/ps",)
    loaded_at = "/api/ps models"

    def quantization(self, value: Any) -> Optional[str]:
        return answers.word(value.replace("MOSTLY_", "") if isinstance(value, str) else None)


def _ollama_variable(name: str, value: str) -> dict[str, str]:
    """How to set a variable of Ollama, by system; value: a field of the remedy."""
    shell = f"In a shell: `{name}={value} ollama serve`."
    return {
        "Linux": f"{shell} As a service: `sudo systemctl edit ollama`, add `[Service]` and "
                 f'`Environment="{name}={value}"`, then `sudo systemctl restart ollama`. '
                 "To undo it, remove that line in the same way.",
        "Darwin": f"The app: `launchctl setenv {name} {value}`, then quit Ollama and open it "
                  f"again. {shell}",
        "Windows": f"The app: `setx {name} {value}`, then quit Ollama in the notification area "
                   f'and start it again. In a shell: `cmd /c "set {name}={value}&& ollama serve"`.'}


class Ollama(Engine):
    """Runs as an app (macOS, Windows), as a service (Linux) or in a shell.

    OLLAMA_CONTEXT_LENGTH is that of one request, whatever OLLAMA_NUM_PARALLEL is.
    """

    name = "Ollama"
    usual_port = 11434
    start_command = "OLLAMA_CONTEXT_LENGTH=4096 OLLAMA_NUM_PARALLEL=4 ollama serve"
    start_on = {"Windows": 'cmd /c "set OLLAMA_CONTEXT_LENGTH=4096&& set OLLAMA_NUM_PARALLEL=4&& '
                           'ollama serve"'}
    remedy_on = _ollama_variable("OLLAMA_CONTEXT_LENGTH", "{tokens}")
    remedy = remedy_on["Linux"]
    parallel_remedy_on = _ollama_variable("OLLAMA_NUM_PARALLEL", "{slots}")
    parallel_remedy = "Set OLLAMA_NUM_PARALLEL={slots}. " + parallel_remedy_on.pop("Linux")
    version_at = "/api/version version"
    facts_at = {
        "quantization": ("/api/tags details quantization_level",
                         "/api/show details quantization_level"),
        "parameters_count": ("/api/show model_info general.parameter_count",),
        "file_bytes": ("/api/tags size",),
        "digest": ("/api/tags digest",),
        "family": ("/api/tags details family", "/api/show details family")}
    show_path = "/api/show"
    state_paths = ("/api/ps",)
    loaded_at = "/api/ps models"
    loaded_context = ("context_length",)
    context_errors = (r"longer than the context",)

    def recognise(self, probes: Probes) -> Optional[str]:
        lists = [json_at(probes, path) for path in ("/api/tags", "/api/ps")]
        lists = [one for one in lists if isinstance(one, dict) and "models" in one]
        if not (lists and self.version(probes)[0]):
            return None
        # Only Ollama gives the namespace of a model's name as its owner, or "library" without one.
        for entry in models_at(probes):
            owner, model_id = entry.get("owned_by"), entry.get("id")
            if not (isinstance(owner, str) and owner and isinstance(model_id, str)
                    and (owner == "library" or f"{owner}/" in model_id)):
                return None
        return "/api/version"

    # The line of a Modelfile with the weights. The path is private, the hash in it is not.
    BLOB = re.compile(r"^FROM\s+\S.*[/\\]sha256[-:]([0-9a-f]{64})\s*$", re.MULTILINE)
    # A template that only repeats the prompt: Ollama's for a file without a chat template.
    NO_TEMPLATE = re.compile(r"\s*\{\{-?\s*\.Prompt\s*-?\}\}\s*")
    GGUF_FIELDS = ("basename", "finetune", "size_label", "version", "organization")

    def facts(self, model_id: Any, probes: Probes) -> Facts:
        shown, facts = json_at(probes, "/api/show"), super().facts(model_id, probes)
        info = field(shown, "model_info")
        trained = field(info, f"{field(info, 'general.architecture')}.context_length")
        facts["trained_context_tokens"] = count(trained)
        modelfile, template = field(shown, "modelfile"), field(shown, "template")
        blobs = self.BLOB.findall(modelfile) if isinstance(modelfile, str) else []
        # Else the digest of the manifest: an adapter makes other weights of the same file.
        if blobs and not re.search(r"^ADAPTER\s", modelfile, re.MULTILINE):
            facts["digest"] = f"sha256:{blobs[0]}"
        if isinstance(template, str) and template.strip():
            facts["chat_template"] = (not self.NO_TEMPLATE.fullmatch(template)
                                      or bool(field(info, "tokenizer.chat_template")))
        loaded = self.loaded_entry(model_id, probes)
        size, in_vram = count(loaded.get("size")), loaded.get("size_vram")
        in_vram = in_vram if isinstance(in_vram, int) and 0 <= in_vram else None
        return with_known(
            facts, parent_model=answers.name_of_model(field(shown, "details", "parent_model")),
            source_repository=answers.repository(model_id),
            **{f"gguf_{name}": answers.short_text(field(info, f"general.{name}"))
               for name in self.GGUF_FIELDS},
            gpu_offload_ratio=None if not size or in_vram is None else
            min(round(in_vram / size, 3), 1.0))

    def loaded_entry(self, model_id: Any, probes: Probes) -> dict[str, Any]:
        # Also under the name of another model with its digest.
        own = answers.model_at(probes, "/api/ps", model_id)
        digest = answers.model_at(probes, "/api/tags", model_id).get("digest")
        same = (entry for entry in models_at(probes, "/api/ps")
                if isinstance(digest, str) and digest and entry.get("digest") == digest)
        return own or next(same, {})

    def state(self, model_id: Any, probes: Probes) -> Optional[str]:
        if not isinstance(json_at(probes, "/api/ps", "models"), list):
            return None
        found = self.loaded_entry(model_id, probes)
        if found:
            return "not loaded" if self._is_unloading(found, probes) else "loaded"
        # Names of one file share a process, listed under the name that was called first.
        own = self._kind_of_weights(answers.model_at(probes, "/api/tags", model_id))
        alike = any(own) and any(self._kind_of_weights(entry) == own
                                 for entry in models_at(probes, "/api/ps"))
        return None if alike else "not loaded"

    @staticmethod
    def _kind_of_weights(entry: dict[str, Any]) -> list[Any]:
        """What both lists report of a file; since 0.30, /api/tags reports more than /api/ps."""
        return [field(entry, "details", name)
                for name in ("family", "parameter_size", "quantization_level")]

    def needs_loading(self, model_id: Any, probes: Probes) -> bool:
        return self.state(model_id, probes) == "not loaded"

    def _is_unloading(self, entry: dict[str, Any], probes: Probes) -> bool:
        """Whether an entry of /api/ps expires just now: with OLLAMA_KEEP_ALIVE=0, after each call.

        An entry that expired long ago belongs to a model that is answering a long call.
        """
        date = answers.probe_at(probes, "/api/ps").headers.get("date", "")
        given = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)",
                             str(entry.get("expires_at")))
        try:
            now = email.utils.parsedate_to_datetime(str(date))
            expires = datetime.datetime.fromisoformat(
                given[1] + given[2].replace("Z", "+00:00")) if given else None
        except (ValueError, TypeError):
            return False
        return expires is not None and now.tzinfo is not None \
            and abs((expires - now).total_seconds()) <= UNLOADING_S


class VLLM(Engine):
    name = "vLLM"
    owner = "vllm"
    usual_port = 8000
    start_command = "vllm serve MODEL --max-model-len 4096"
    facts_at = {"source_repository": ("/v1/models root",)}
    parallel_remedy = "Start vLLM with `--max-num-seqs {slots}` or without that option."
    remedy = "Start vLLM with `--max-model-len {tokens}`."
    version_at = "/version version"
    cache_field = "cache_salt"
    context_errors = (r"max_model_len",)
    context_error_codes = ("input_tokens",)

    def facts(self, model_id: Any, probes: Probes) -> Facts:
        facts = super().facts(model_id, probes)
        folder = answers.folder_name(value_at(probes, "/v1/models root", model_id))
        if folder and folder != model_id and "source_repository" not in facts:
            facts["file_name"] = folder
        return facts

    def cache_value(self, salt: Any) -> Any:
        # At most 128 characters, and none of @ / \ NUL.
        return re.sub(r"[^A-Za-z0-9_-]", "-", salt)[:128] if isinstance(salt, str) else None


class LlamaCppPython(Engine):
    """Ignores cache_prompt."""

    name = "llama-cpp-python"
    usual_port = 8000
    remedy = "Start llama-cpp-python with `--n_ctx {tokens}`."
    interrupted_remedy = ("Start llama-cpp-python with `--interrupt_requests false`: requests then "
                          "wait for each other.")

    def recognise(self, probes: Probes) -> Optional[str]:
        entries = models_at(probes)
        known = any(e.get("owned_by") == "me" and "permissions" in e for e in entries)
        return '/v1/models owned_by "me"' if known else None


class Exo(Engine):
    """Lists all models that it knows; a call does not start one."""

    name = "exo"
    owner = "exo"
    usual_port = 52415
    facts_at = {"quantization": ("/v1/models quantization",), "family": ("/v1/models family",)}
    state_paths = ("/ollama/api/ps",)
    loaded_at = "/ollama/api/ps models"

    def state(self, model_id: Any, probes: Probes) -> Optional[str]:
        found = super().state(model_id, probes)
        return "not running" if found == "not loaded" else found


class OpenRouter(Engine):
    name = "OpenRouter"
    hosted = True
    marks_at = {"/v1/models": {"canonical_slug", "top_provider", "pricing"}}
    remedy = "Choose a model, or a provider of it, with a context of {tokens} tokens."
    # That of the model's first provider; which one answers is only known afterwards.
    context_at = ("/v1/models top_provider context_length",)


class AzureOpenAI(Engine):
    name = "Azure OpenAI"
    hosted = True

    def recognise(self, probes: Probes) -> Optional[str]:
        for entry in models_at(probes):
            chats = field(entry, "capabilities", "chat_completion")
            if "lifecycle_status" in entry and isinstance(chats, bool):
                return "/v1/models lifecycle_status"
        return None


class Jan(Engine):
    name = "Jan"
    usual_port = 1337
    remedy = ("Set the model's context size to {tokens} in Jan's model settings, then start the "
              "model again.")

    def recognise(self, probes: Probes) -> Optional[str]:
        other, entries = answers.probe_at(probes, "/props"), models_at(probes)
        bare = other.status == 404 and other.text == "Not Found"
        plain = all(e == {"id": e.get("id"), "object": "model", "created": 1, "owned_by": "user"}
                    for e in entries)
        known = bare and not answers.server_headers(probes) and entries and plain
        return '/v1/models created 1, owned_by "user"' if known else None


class MlxLm(Engine):
    """Ignores cache_prompt."""

    name = "mlx-lm"
    usual_port = 8080

    def recognise(self, probes: Probes) -> Optional[str]:
        # Python's plain server with a bare "Not Found" labelled as JSON. It lists entries of three
        # keys, or nothing at all (an empty 200) where there is no model cache.
        python = any(header.startswith("BaseHTTP/") for header in answers.server_headers(probes))
        other, models = answers.probe_at(probes, "/props"), answers.probe_at(probes, "/v1/models")
        labelled = field(other.headers, "content-type") == "application/json"
        bare = other.status == 404 and other.text == "Not Found" and labelled
        plain = all(set(entry) == {"id", "object", "created"} for entry in models_at(probes))
        return "its 404" if python and bare and models.status == 200 and plain else None


class TransformersServe(Engine):
    """Refuses cache_prompt."""

    name = "transformers serve"
    usual_port = 8000

    def recognise(self, probes: Probes) -> Optional[str]:
        # A path that only takes a POST: the refusal of a GET shows that it exists.
        refused = answers.probe_at(probes, "/load_model").status == 405
        return "/load_model" if refused and "uvicorn" in answers.server_headers(probes) else None


UNKNOWN = Engine()
# In the order in which they are tried. A proxy comes before the servers that may be behind it.
ENGINES: dict[str, Engine] = {engine.name: engine for engine in (
    ReferenceEndpoint(), LiteLLM(), KoboldCpp(), LMStudio(), Lemonade(), LocalAI(), SGLang(),
    TGI(), Llamafile(), LlamaSwap(), DockerModelRunner(), LlamaCpp(), Ollama(), VLLM(),
    LlamaCppPython(), Exo(), OpenRouter(), AzureOpenAI(), Jan(), MlxLm(), TransformersServe())}
