"""Recorded answers of a server, and the model names in them."""
from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

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

LARGEST_COUNT = 2**53 - 1  # the largest integer that every JSON reader keeps exactly
LONGEST_VERSION = 60
LONGEST_MODEL_ID = 200
NO_NAME = "unnamed"  # a model whose id holds nothing that may be published


class Probe(NamedTuple):
    """One recorded answer.  `status` is None where none came; header names are lower case."""

    status: int | None
    headers: dict[str, str]
    json: Any
    text: str


Probes = Mapping[str, Probe]
Summary = tuple[Optional[int], Optional[str]]  # a number and where it was told, or twice None

NO_PROBE = Probe(None, {}, None, "")
UNKNOWN_SUMMARY: Summary = (None, None)


# --- Reading answers that may hold anything -----------------------------------------------------


def probe_of(probes: Any, path: str) -> Probe:
    found = probes.get(path) if isinstance(probes, dict) else None
    return found if isinstance(found, Probe) else NO_PROBE


def answer(probes: Any, path: str) -> Any:
    """The JSON that `path` answered with 200, else None."""
    probe = probe_of(probes, path)
    return probe.json if probe.status == 200 else None


def field(value: Any, *names: str) -> Any:
    """`value[name][name]...`, or None where that does not exist."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def count(value: Any) -> int | None:
    """A positive whole number that is worth publishing, else None."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= LARGEST_COUNT:
        return value
    return None


def plain(text: str) -> str:
    """`text` on one line, without what a terminal or a UTF-8 file cannot take."""
    # Categories C*: control, format (bidi marks among them), surrogates, private use, unassigned.
    kept = (" " if unicodedata.category(c)[0] in "CZ" else c for c in text)
    return " ".join("".join(kept).split())


def word_of(value: Any) -> str | None:
    """A short name as engines tell it ("Q4_K_M", "llama", a digest), else None."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,79}", value):
        return value
    return None


def known(value: Any) -> str | None:
    """`_word`, where it is not one of the words for not knowing."""
    word = word_of(value)
    return None if word and word.lower() in ("unknown", "none", "null") else word


ADDRESS = re.compile(r"[/\\@]|\b(?:10|127|169|172|192)\.\d+\.\d+\.\d+|localhost", re.IGNORECASE)


def version(value: Any) -> str | None:
    """A version in printable ASCII, at most 60 characters; None where it looks like an address."""
    if not isinstance(value, str) or ADDRESS.search(value):
        return None
    kept = "".join(c for c in value if " " <= c <= "~").strip()[:LONGEST_VERSION].strip()
    return kept or None


def servers(probes: Any) -> list[str]:
    """Every `Server:` header seen."""
    found = [probe_of(probes, path).headers for path in PROBE_PATHS]
    values = [headers.get("server") for headers in found if isinstance(headers, dict)]
    return [value for value in values if isinstance(value, str)]


def listed(probes: Any) -> list[dict[str, Any]]:
    """The entries of /v1/models."""
    return objects(field(answer(probes, "/v1/models"), "data"))


def owned_by(probes: Any, owner: str) -> str | None:
    owners = [entry.get("owned_by") for entry in listed(probes)]
    return f'/v1/models owned_by "{owner}"' if owner in owners else None


def names(entry: dict[str, Any]) -> list[str]:
    """Every name under which a request may ask for the model of an entry."""
    aliases = entry.get("aliases")
    names = [entry.get(key) for key in ("id", "name", "model", "key")]
    names += aliases if isinstance(aliases, list) else []
    names += [instance.get("id") for instance in objects(entry.get("loaded_instances"))]
    return [name for name in names if isinstance(name, str)]


def _same_model(entry: dict[str, Any], model_id: Any) -> bool:
    # Ollama reads a name without a tag as ":latest".
    return isinstance(model_id, str) and any(
        name in (model_id, f"{model_id}:latest") for name in names(entry)
    )


def entry(entries: Any, model_id: Any) -> dict[str, Any]:
    """The entry of that model, or {}."""
    return next((e for e in objects(entries) if _same_model(e, model_id)), {})


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
