"""How the server on this machine was started, as the system tells it, fit to be published.

A listening port leads to its process (on Linux as hardware.py finds it; by lsof on macOS, by
PowerShell on Windows) and that to its command line, to those variables of its environment that are
settings (on Linux), and to the model's file. Where only something that forwards listens, as for a
container, there is nothing to say. What is found is only proposed: the contributor declares it,
since it may have been started anew after the run.
"""
from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from core import privacy

from machine import gguf, system

Json = dict[str, Any]


LEFT_OUT = "..."
# Flags that say nothing of speed: who may call, under which name, what is logged.
SILENT = frozenset((
    "host", "hostname", "port", "path", "root-path", "allowed-origins", "ssl-keyfile",
    "ssl-certfile", "ssl-key-file", "ssl-cert-file", "api-key", "api-key-file", "hf-token", "a",
    "alias", "served-model-name", "log-file", "log-disable", "log-level", "metrics", "props",
    "slot-save-path", "webui", "no-webui", "offline", "config"))
MODEL = ("m", "model", "model-path", "model_path")
REPOSITORY = ("hf", "hfr", "hf-repo", *MODEL)
# Variables of the environment that are settings; of them those in SILENT_VARIABLES say nothing of
# speed, or where and how it is reached.
VARIABLES = re.compile(r"(?:OLLAMA|LLAMA_ARG|GGML|VLLM|SGLANG|OMP|KMP|MLX)_[A-Z0-9_]+"
                       r"|(?:CUDA|HIP|ROCR)_VISIBLE_DEVICES")
SILENT_VARIABLES = re.compile(r"_(?:HOST|HOSTS|PORT|ORIGINS|MODELS?|ALIAS|DEBUG|LOG\w*|URL|PROXY"
                              r"|CACHE_ROOT|CONFIG_ROOT|TMPDIR|RUNNERS_DIR|PATH)$")
SECRET = re.compile(r"(?:^|[-_])(?:\w*key|token|hft|secret|pass\w*|auth\w*|cred\w*)(?=$|[-_])",
                    re.IGNORECASE)
# {end of a key: the flags that tell it}, of llama.cpp and what is built on it.
LLAMA_CPP: dict[str, tuple[str, ...]] = {
    "runtime.threads_count": ("t", "threads", "LLAMA_ARG_THREADS"),
    "runtime.batch_tokens": ("b", "batch-size", "LLAMA_ARG_BATCH"),
    "runtime.micro_batch_tokens": ("ub", "ubatch-size", "LLAMA_ARG_UBATCH"),
    "runtime.flash_attention": ("fa", "flash-attn", "LLAMA_ARG_FLASH_ATTN"),
    "models.0.draft_model": ("md", "model-draft", "spec-draft-model")}
VLLM: dict[str, tuple[str, ...]] = {
    "runtime.kv_cache_type": ("kv-cache-dtype",),
    "runtime.batch_tokens": ("max-num-batched-tokens",)}
OLLAMA: dict[str, tuple[str, ...]] = {
    "runtime.flash_attention": ("OLLAMA_FLASH_ATTENTION",),
    "runtime.kv_cache_type": ("OLLAMA_KV_CACHE_TYPE",)}
TELLING = {"llama.cpp": LLAMA_CPP, "llamafile": LLAMA_CPP, "vLLM": VLLM, "Ollama": OLLAMA}
SWITCHES = {"1": "on", "true": "on", "0": "off", "false": "off"}


class Process(NamedTuple):
    """How a process was started, as it is: not to be printed. folder: where it runs, if told."""

    words: list[str]
    environment: dict[str, str]
    folder: Optional[str]


class Started(NamedTuple):
    """A server's command line without what is private, and what it declares: {key: text}."""

    line: str
    settings: dict[str, str]


def started(machine: system.Machine, port: int, engine: Optional[str],
            names: Sequence[privacy.MachineName], reads_file: bool = True) -> Optional[Started]:
    """What the process that listens at a port of this machine was started with; null if untold.

    names: what this machine and its user are called, none of which comes through. reads_file:
    whether its model's file is read, which takes seconds where that is large.
    """
    found = find(machine, port)
    public = list(_public(found.words, names)) if found else []
    if found is None or not public or public[0] in system.FORWARDERS:
        return None
    variables = _variables(found.environment, names)
    told = [f"{name}={value}" for name, value in variables.items()]
    settings = {**_settings(list(_flags(public[1:])), variables, engine), **_repository(found)}
    settings.update(gguf.facts(_model_path(found) or "") if reads_file else {})
    return Started(" ".join([*told, shlex.join(public)]), settings)


# --- which process -------------------------------------------------------------------------------
def find(machine: system.Machine, port: int) -> Optional[Process]:
    """The process that listens at a port; null where the system does not tell."""
    ask = {"Linux": _on_linux, "Darwin": _on_mac, "Windows": _on_windows}.get(machine.system)
    return ask(machine, port) if ask else None


def _on_linux(machine: system.Machine, port: int) -> Optional[Process]:
    pids = system.find_server(machine, system.list_processes(machine), port)
    # Where their files cannot be read, all processes of a user are meant, and any may be the one.
    certain = [pid for pid in pids if len(pids) == 1 or machine.names(f"/proc/{pid}/fd")]
    # The first of several has begun the others.
    own = f"/proc/{min(certain)}" if certain else ""
    text = machine.read(f"{own}/cmdline") if certain else None
    if not text:
        return None
    pairs = [word.partition("=") for word in (machine.read(f"{own}/environ") or "").split("\0")]
    return Process(text.rstrip("\0").split("\0"), {name: value for name, _, value in pairs},
                   machine.link(f"{own}/cwd"))


def _on_mac(machine: system.Machine, port: int) -> Optional[Process]:
    told = machine.run(["lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fp"]) or ""
    pids = re.findall(r"^p(\d+)$", told, re.MULTILINE)
    line = (machine.run(["ps", "-ww", "-o", "command=", "-p", pids[0]]) or "") if pids else ""
    # ps joins words by blanks and quotes none: a path with a blank in it comes apart.
    return Process(line.split(), {}, None) if line.split() else None


def _on_windows(machine: system.Machine, port: int) -> Optional[Process]:
    told = machine.run(["powershell", "-NoProfile", "-NonInteractive", "-Command",
                        f"$c = Get-NetTCPConnection -State Listen -LocalPort {port}; "
                        "Get-CimInstance Win32_Process -Filter "
                        "\"ProcessId=$(@($c.OwningProcess)[0])\""
                        " | Select-Object CommandLine | ConvertTo-Json"])
    try:
        line = json.loads(told or "null")["CommandLine"]
        words = re.findall(r'(?:[^\s"]|"[^"]*")+', line)
    except (ValueError, TypeError, KeyError):
        return None
    return Process([word.replace('"', "") for word in words], {}, None) if words else None


def _model_path(found: Process) -> Optional[str]:
    """Where the model's file lies, if one is named among the words."""
    for flag, value in _flags(found.words[1:]):
        if flag.lstrip("-") in MODEL and value and value.endswith(".gguf"):
            path = os.path.join(found.folder or "", value)
            return path if os.path.isabs(path) else None
    return None


def _repository(found: Process) -> dict[str, str]:
    """Where the server took the model from by itself: owner/name, and no folder called so."""
    for flag, value in _flags(found.words[1:]):
        match = gguf.REPOSITORY.fullmatch((value or "").partition(":")[0])
        if match and flag.lstrip("-") in ("", *REPOSITORY) and not (value or "").endswith(".gguf") \
                and not os.path.exists(os.path.join(found.folder or "", match[1])):
            return {"models.0.source_repository": match[1]}
    return {}


# --- what of it may be told ----------------------------------------------------------------------
def _public(words: Sequence[str], names: Sequence[privacy.MachineName]) -> Iterator[str]:
    """Every word without folders, and with what is private or secret left out."""
    secret = False
    for word in words:
        name, equals, value = word.partition("=")
        keeps = bool(SECRET.search(name))
        if secret:                  # whatever it looks like: a key may begin with a dash
            yield LEFT_OUT
        elif equals and (keeps or word.startswith("-")):
            yield name + equals + (LEFT_OUT if keeps else _shareable(value, names))
        else:
            yield _shareable(word, names)
        secret = not secret and keeps and not equals and word.startswith("-")


def _variables(environment: Mapping[str, str],
               names: Sequence[privacy.MachineName]) -> dict[str, str]:
    """Those that are settings, by name, with what may be told of them."""
    told = {name: _shareable(value, names) for name, value in sorted(environment.items())
            if value and VARIABLES.fullmatch(name) and not SILENT_VARIABLES.search(name)
            and not SECRET.search(name.replace("_", "-"))}
    return {name: shlex.quote(value) for name, value in told.items() if value != LEFT_OUT}


def _shareable(word: str, names: Sequence[privacy.MachineName]) -> str:
    if "\\" in word or word.startswith(("/", "~", ".")) or word.count("/") > 1:
        word = re.split(r"[\\/]", word.rstrip("\\/"))[-1]
    free_text = " " in word and not word.startswith("{")          # such as a header with a key
    return LEFT_OUT if free_text or privacy.scan(word, names=names) else word


def _flags(words: Iterable[str]) -> Iterator[tuple[str, Optional[str]]]:
    """(flag, its value or null) of a command line; what belongs to no flag has the flag ""."""
    open_flag: Optional[str] = None
    for word in words:
        if re.match(r"--?[A-Za-z]", word):
            if open_flag:
                yield open_flag, None
            name, equals, value = word.partition("=")
            open_flag = None if equals else name
            if equals:
                yield name, value
        else:
            yield open_flag or "", word
            open_flag = None
    if open_flag:
        yield open_flag, None


def _settings(found: Sequence[tuple[str, Optional[str]]], variables: Mapping[str, str],
              engine: Optional[str]) -> dict[str, str]:
    """What flags and variables declare, by the keys that --set takes; a flag goes before one."""
    told = {flag.lstrip("-"): value for flag, value in found if value not in (None, LEFT_OUT)}
    told = {**variables, **told}
    settings = {"launch_flags": _launch_flags(found, variables)}
    for key, names in TELLING.get(engine or "", {}).items():
        value = next((str(told[flag]) for flag in names if flag in told), "")
        settings[key] = SWITCHES.get(value, value) if key.endswith("attention") else value
    settings.update(_cache_type(told) if engine in ("llama.cpp", "llamafile") else {})
    files = [str(told[flag]) for flag in MODEL if str(told.get(flag)).endswith(".gguf")]
    if files:
        settings["models.0.file_name"] = files[0]
    return {key: value for key, value in settings.items() if value}


def _launch_flags(found: Iterable[tuple[str, Optional[str]]],
                  variables: Mapping[str, str]) -> str:
    """Those that may matter for speed, as launch_flags takes them."""
    kept = [f"{name}={value}" for name, value in variables.items()]
    kept += [shlex.join([flag, value]) if value else flag for flag, value in found
            if flag and value != LEFT_OUT and flag.lstrip("-") not in (*SILENT, *MODEL)]
    return " ".join(kept)


def _cache_type(told: Mapping[str, Optional[str]]) -> dict[str, str]:
    """llama.cpp's types of keys and values, one word where they are the same."""
    kinds = [told.get(f"ct{letter}") or told.get(f"cache-type-{letter}") for letter in "kv"]
    if not any(kinds):
        return {}
    written = dict.fromkeys(kind or "f16" for kind in kinds)
    return {"runtime.kv_cache_type": "/".join(written)}
