"""Read recorded answers of a server, and the model names in them.

Whatever a server sends, the result of every function is a value or None, never an error.
"""
from __future__ import annotations

import ipaddress
import re
import unicodedata
import urllib.parse
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

# No path here starts work on a server. Left out for that reason: litellm's /health (calls every
# upstream model), llama.cpp's /slots (may show other users' prompts), SGLang's /health_generate.
PROBE_PATHS: tuple[str, ...] = (
    "/v1/models", "/version", "/props", "/api/version", "/api/tags", "/api/ps", "/api/v0/models",
    "/api/v1/models", "/api/v1/health", "/api/extra/version",
    "/api/extra/true_max_context_length", "/system", "/server_info", "/get_server_info", "/info",
    "/health/readiness", "/load_model", "/running", "/v1/internal/model/info", "/v1/model",
    "/v1/models/status", "/ollama/api/ps", "/model/info")

# Paths that list models, and the field that holds the list.
MODEL_LISTS = {"/v1/models": "data", "/api/tags": "models", "/api/ps": "models",
               "/api/v0/models": "data", "/api/v1/models": "models", "/running": "running",
               "/v1/models/status": "models", "/ollama/api/ps": "models", "/model/info": "data"}
LIST_FIELDS = ("data", "models", "result", "items")     # where other servers hold theirs
ID_FIELDS = ("id", "name", "model", "key", "model_name", "model_id")
LARGEST_COUNT = 2**53 - 1         # the largest integer that every JSON reader keeps exactly
LONGEST_VERSION = 60
LONGEST_MODEL_ID = 200
NO_NAME = "unnamed"               # a model whose id holds nothing that may be published


class Probe(NamedTuple):
    """One recorded answer. `status` is None without an answer; header names are lower case."""

    status: Optional[int]
    headers: dict[str, str]
    json: Any
    text: str


Probes = Mapping[str, Probe]      # by path

NO_PROBE = Probe(None, {}, None, "")


# --- JSON of any shape ----------------------------------------------------------------------------

def probe_at(probes: Probes, path: str) -> Probe:
    """The answer to `path`, or an empty one."""
    return probes.get(path, NO_PROBE)


def json_at(probes: Probes, path: str, *names: str) -> Any:
    """The JSON that `path` answered with status 200, or its field of these nested names."""
    probe = probe_at(probes, path)
    return field(probe.json, *names) if probe.status == 200 else None


def field(value: Any, *names: str) -> Any:
    """`value[name][name]...`, or None where that does not exist."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def objects(value: Any) -> list[dict[str, Any]]:
    """The JSON objects of a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def count(value: Any) -> Optional[int]:
    """A positive whole number that every JSON reader keeps exactly, else None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST_COUNT:
        return value
    return None


def one_line(text: str) -> str:
    """`text` on one line, without characters that a terminal or a UTF-8 file cannot take."""
    # Categories C*: control, format (bidi marks among them), surrogates, private use, unassigned.
    kept = (" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    return " ".join("".join(kept).split())


def word(value: Any) -> Optional[str]:
    """A short name as engines report it ("Q4_K_M", "llama", a digest), else None."""
    if not isinstance(value, str) or value.lower() in ("unknown", "none", "null"):
        return None
    return value if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,79}", value) else None


ADDRESS = re.compile(r"[/\\@]|\b(?:10|127|169|172|192)\.\d+\.\d+\.\d+|localhost", re.IGNORECASE)


def version(value: Any) -> Optional[str]:
    """A version in printable ASCII, at most 60 characters; None where it looks like an address."""
    if not isinstance(value, str) or ADDRESS.search(value):
        return None
    kept = "".join(c for c in value if " " <= c <= "~").strip()[:LONGEST_VERSION].strip()
    return kept or None


def short_text(value: Any) -> Optional[str]:
    """Text of a model's header on one line, at most 80 characters; None where it looks like a path.
    """
    if not isinstance(value, str) or re.search(r"[/\\@:]", value):
        return None
    return one_line(value[:400])[:80].strip() or None


def on_or_off(value: Any) -> Optional[str]:
    """"on" or "off" of a boolean."""
    return ("off", "on")[value] if isinstance(value, bool) else None


def repository(name: Any) -> Optional[str]:
    """The repository in a name ("owner/name", also after "hf.co/"), or None. Of a path only if it
    leads into the Hugging Face cache, whose folders are named after repositories."""
    if not isinstance(name, str):
        return None
    if "models--" in name and "snapshots" in name:
        name = published_model_id(name)
    if len(name) > LONGEST_MODEL_ID:
        return None
    text = re.sub(r"^(?:https://)?(?:hf\.co|huggingface\.co)/", "", name)
    found = re.fullmatch(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(:[\w.-]+)?", text, re.ASCII)
    # Elsewhere than on the hub, a tag belongs to a name of the engine's own library.
    if not found or PATH_SHAPE.search(text) or found.group(2) and text == name:
        return None
    return found.group(1)


def file_name(path: Any) -> Optional[str]:
    """The last part of a path to a model file."""
    last = re.split(r"[/\\]", path)[-1] if isinstance(path, str) else ""
    return last if MODEL_FILE.search(last) and re.fullmatch(r"[\w.+-]{1,120}", last) else None


def folder_name(path: Any) -> Optional[str]:
    """The last part of an absolute path to a model's folder, None if it may be a person's."""
    if not isinstance(path, str) or not re.match(r"/|[A-Za-z]:[/\\]", path):
        return None
    shown = published_model_id(path)
    return shown if re.fullmatch(r"[\w.+-]{1,120}", shown, re.ASCII) and re.search(
        r"\d", shown) and not re.fullmatch(r"[0-9a-f]{40,}", shown) else None


def name_of_model(value: Any) -> Optional[str]:
    """A model's name that is not a path."""
    plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][\w./:+-]{0,119}", value)
    return value if plain and published_model_id(value) == value else None


# --- Whether a model is in memory -----------------------------------------------------------------

# "not running": a call does not load it.
STATES = ("loaded", "loading", "not loaded", "not running", "failed")
STATE_WORDS = {
    "loaded": "loaded", "ready": "loaded", "running": "loaded", "active": "loaded",
    "loading": "loading", "starting": "loading",
    "unloaded": "not loaded", "not-loaded": "not loaded", "not_loaded": "not loaded",
    "stopped": "not loaded", "stopping": "not loaded", "sleeping": "not loaded",
    "shutdown": "not loaded",
    "failed": "failed", "error": "failed"}


def state_in(entry: dict[str, Any]) -> Optional[str]:
    """The state in an entry of a list: one of STATES, or None if the entry does not have one."""
    status = entry.get("status")
    if field(status, "failed") is True or entry.get("failed") is True:
        return "failed"
    if isinstance(entry.get("loaded"), bool):
        return "loaded" if entry["loaded"] else "not loaded"
    words = (field(status, "value"), status, entry.get("state"))
    return next((STATE_WORDS[word.lower()] for word in words
                 if isinstance(word, str) and word.lower() in STATE_WORDS), None)


def is_public(url: str) -> bool:
    """Whether a URL leads to the internet, by its address or the form of its name."""
    try:
        host = urllib.parse.urlsplit(url if "://" in url else "//" + url).hostname or ""
    except ValueError:
        return False
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host.rstrip(".") and not re.search(
            r"\.(?:local|localhost|lan|home|internal|intranet|corp|localdomain|arpa)\.?$", host)


def server_headers(probes: Probes) -> list[str]:
    """Every `Server:` header among the answers."""
    found = (probe_at(probes, path).headers for path in PROBE_PATHS)
    return [headers["server"] for headers in found if "server" in headers]


# --- Lists of models ------------------------------------------------------------------------------

def models_at(probes: Probes, path: str = "/v1/models") -> list[dict[str, Any]]:
    """The entries of a list of models, in any shape of answer; those of /v1/models have an id.

    Shapes: an object with the list in it, also one level deeper; a bare list; a list of names; an
    object whose keys are the names.
    """
    listed = json_at(probes, path)
    if isinstance(listed, dict) and isinstance(listed.get(MODEL_LISTS[path]), list):
        entries = _named(listed[MODEL_LISTS[path]])
    else:
        entries = _entries(listed)
    if path != "/v1/models":
        return entries
    return [entry if isinstance(entry.get("id"), str) else {**entry, "id": next(
        (entry[key] for key in ID_FIELDS if isinstance(entry.get(key), str)), None)}
        for entry in entries]


def _named(items: list[Any]) -> list[dict[str, Any]]:
    return objects([{"id": item} if isinstance(item, str) else item for item in items])


def _entries(listed: Any, depth: int = 2) -> list[dict[str, Any]]:
    if isinstance(listed, list):
        return _named(listed)
    if not isinstance(listed, dict) or not depth:
        return []
    found = (_entries(listed.get(name), depth - 1) for name in LIST_FIELDS)
    by_name = [{"id": key, **value} for key, value in listed.items() if isinstance(value, dict)]
    whole = depth == 1 and len(by_name) == len(listed)
    return next(filter(None, found), by_name if whole else [])


def lists_models(probe: Probe) -> bool:
    """Whether an answer to /v1/models lists models, or could (an empty list)."""
    return probe.status == 200 and (
        isinstance(probe.json, list) or bool(models_at({"/v1/models": probe}))
        or any(isinstance(field(probe.json, name), list) for name in LIST_FIELDS))


def is_web_page(probe: Probe) -> bool:
    """Whether an answer is HTML, as web servers give for any path."""
    start = probe.text.lstrip()[:15].lower()
    return probe.json is None and ("text/html" in probe.headers.get("content-type", "").lower()
                                   or start.startswith(("<!doctype html", "<html")))


def names_of(entry: dict[str, Any]) -> list[str]:
    """Every name under which a request may ask for the model of an entry."""
    aliases = entry.get("aliases")
    names = [entry.get(key) for key in ID_FIELDS]
    names += aliases if isinstance(aliases, list) else []
    names += [instance.get("id") for instance in objects(entry.get("loaded_instances"))]
    return [name for name in names if isinstance(name, str)]


def model_at(probes: Probes, path: str, model_id: Any) -> dict[str, Any]:
    """The entry of a model in the list at a path, or {}."""
    return entry_of(models_at(probes, path), model_id)


def entry_of(entries: list[dict[str, Any]], model_id: Any) -> dict[str, Any]:
    """The entry of a model, or {}. As in Ollama, a name without a tag means ":latest"."""
    wanted = {model_id, f"{model_id}:latest"} if isinstance(model_id, str) else set[str]()
    return next((e for e in entries if not wanted.isdisjoint(names_of(e))), {})


LONG_LISTS = ("/v1/models", "/api/tags", "/api/v0/models", "/api/v1/models")
Index = dict[str, dict[str, dict[str, Any]]]      # path -> name -> entry


def index_of(probes: Probes) -> Index:
    """The entries of the long lists by every name, so that many models take linear time."""
    found: Index = {}
    for path in LONG_LISTS:
        by_name = found.setdefault(path, {})
        for entry in models_at(probes, path):
            for name in names_of(entry):
                by_name.setdefault(name, entry)
    return found


def narrowed(probes: Probes, index: Index, model_id: str) -> Probes:
    """`probes` with only one model's entry in each long list."""
    lists: dict[str, Probe] = {}
    for path, by_name in index.items():
        if by_name:
            entry = by_name.get(model_id) or by_name.get(f"{model_id}:latest")
            kept = [entry] if entry else []
            lists[path] = probe_at(probes, path)._replace(json={MODEL_LISTS[path]: kept})
    return {**probes, **lists}


def value_at(probes: Probes, place: str, model_id: Any = None) -> Any:
    """The value at a place: a path and names of fields, as in "/props total_slots".

    Where the path lists models, the fields are those of the model's entry.
    """
    path, *names = place.split()
    if path in MODEL_LISTS:
        return field(model_at(probes, path, model_id), *names)
    return json_at(probes, path, *names)


# --- Model names ----------------------------------------------------------------------------------

# Characters that mean "/", so that a disguised path is recognised.
SLASH = re.compile(r"\\|%2f|%5c|[\u2044\u2215\u29f8\u29f9\ufe68\uff0f\uff3c]", re.IGNORECASE)
# A path from a root, a home, a variable, a drive or a URL; from a host; through a hidden folder or
# a personal one; a path within other text; or a file ("models/x.gguf").
PATH_SHAPE = re.compile(
    r"^[/$%]|:/|(?:^|/)[.~]|^[^/]*:\d+/|^(?:localhost|\d+\.\d+\.\d+\.\d+|\[[^/]*\])/"
    r"|(?:^|/)(?:home|users|root|mnt|media|volumes|documents|desktop|downloads|appdata)/"
    r"|[\s=,;|<>(){}\[\]'\"]/"
    r"|/[^/:]*\.(?:gguf|bin|safetensors|pt|pth)$", re.IGNORECASE)
# A file in a repository of a hub ("bartowski/x-GGUF/x-Q4_K_M.gguf"), which is public.
HUB_FILE = re.compile(
    r"(?!(?:home|users|root|mnt|media|volumes|documents|desktop|downloads|appdata|models)/)"
    r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*-gguf/[A-Za-z0-9][\w.-]*\.gguf", re.IGNORECASE)
HUB_FOLDER = re.compile(r"^models--([^-/][^/]*?)--([^/]+)$")
MODEL_FILE = re.compile(r"\.(?:gguf|bin|safetensors|pt|pth|llamafile)$", re.IGNORECASE)
# Not the name of a model: an empty part, a variable, a home, a drive or the scheme of a URL.
PLACE = re.compile(r"|\.\.?|[~$%].*|[a-z][a-z0-9+.-]*:", re.IGNORECASE | re.DOTALL)
HOST = re.compile(
    r"^(?:(?:[a-z][a-z0-9+.-]*:)?//[^/]*|[^/:]+:\d+(?=/)|(?:localhost|\d+\.\d+\.\d+\.\d+)(?=/)"
    r"|\[[^/]*\](?::\d+)?(?=/))", re.IGNORECASE)
# Folders whose folders are named after people or their disks.
HOMES = ("home", "users", "media", "volumes", "documents and settings")


def published_model_id(served_id: Any) -> str:
    """The model id that may be published: only the last part of an id shaped like a path.

    `user/model` and `name:tag` stay. A snapshot in the Hugging Face cache is named by its
    repository, because its last part is only a hash; a home folder gives no name. Characters that
    could disguise text become "?"; an id without any text becomes `NO_NAME`.
    """
    if not isinstance(served_id, str):
        return NO_NAME
    text = served_id.strip()
    path = SLASH.sub("/", text)
    if not HUB_FILE.fullmatch(text) and (path != text or PATH_SHAPE.search(path)):
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
    personal = last.lower() in (*HOMES, "root") or above.lower() in HOMES
    return "" if personal and not MODEL_FILE.search(last) else last


# GGUF file names, then the names that other formats use.
QUANTIZATION = re.compile(
    r"(?<![A-Za-z0-9])((?:UD-)?(?:IQ[1-4]_(?:XXS|XS|S|M|NL)|Q[1-8]_(?:K(?:_(?:XL|[SML]))?|[01])"
    r"|TQ[12]_0|MXFP4(?:_MOE)?)|BF16|F(?:P)?16|F(?:P)?32|NVFP4|FP8|AWQ|GPTQ|INT[48]"
    r"|W[48]A(?:8|16)|[2-8]-?bit)(?![A-Za-z0-9_])", re.IGNORECASE)


def quantization_in_name(name: Any) -> Optional[str]:
    """The quantization in a model's id, or in the last part of a path ("Q4_K_M"), else None."""
    found = QUANTIZATION.findall(published_model_id(name))
    if not found:
        return None
    last: str = found[-1]
    return last.lower() if last[0].isdigit() else last.upper()
