"""How the server on this machine was started, as the system tells it, fit to be published.

A listening port leads to its process (on Linux as hardware.py finds it; by lsof on macOS, by
PowerShell on Windows) and that to its command line. Where only something that forwards listens, as
for a container, there is nothing to say. What is found is only proposed: the contributor declares
it, since it may have been started anew after the run.
"""
from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Optional

import hardware
import privacy
from hardware import Machine

LEFT_OUT = "..."
# Flags that say nothing of speed: who may call, under which name, what is logged.
SILENT = frozenset((
    "host", "hostname", "port", "path", "root-path", "allowed-origins", "ssl-keyfile",
    "ssl-certfile", "ssl-key-file", "ssl-cert-file", "api-key", "api-key-file", "hf-token", "a",
    "alias", "served-model-name", "log-file", "log-disable", "log-level", "metrics", "props",
    "slot-save-path", "webui", "no-webui", "offline", "config"))
MODEL = ("m", "model", "model-path", "model_path")
SECRET = re.compile(r"(?:^|[-_])(?:\w*key|token|hft|secret|pass\w*|auth\w*|cred\w*)(?=$|[-_])",
                    re.IGNORECASE)
# {end of a key: the flags that tell it}, of llama.cpp and what is built on it.
LLAMA_CPP: dict[str, tuple[str, ...]] = {
    "runtime.threads_count": ("t", "threads"), "runtime.batch_tokens": ("b", "batch-size"),
    "runtime.micro_batch_tokens": ("ub", "ubatch-size"),
    "runtime.flash_attention": ("fa", "flash-attn"),
    "models.0.draft_model": ("md", "model-draft", "spec-draft-model")}
VLLM: dict[str, tuple[str, ...]] = {
    "runtime.kv_cache_type": ("kv-cache-dtype",),
    "runtime.batch_tokens": ("max-num-batched-tokens",)}
TELLING = {"llama.cpp": LLAMA_CPP, "llamafile": LLAMA_CPP, "vLLM": VLLM}


class Started(NamedTuple):
    """A server's command line without what is private, and what it declares: {key: text}."""

    line: str
    settings: dict[str, str]


def started(machine: Machine, port: int, engine: Optional[str],
            names: Sequence[privacy.MachineName]) -> Optional[Started]:
    """What the process that listens at a port of this machine was started with; null if untold.

    names: what this machine and its user are called, none of which comes through.
    """
    words = command_line(machine, port)
    public = list(_public(words or [], names))
    if not public or public[0] in hardware.FORWARDERS:
        return None
    return Started(shlex.join(public), _settings(list(_flags(public[1:])), engine))


# --- which process -------------------------------------------------------------------------------
def command_line(machine: Machine, port: int) -> Optional[list[str]]:
    """The words that the process was started with, as they are: not to be printed."""
    ask = {"Linux": _on_linux, "Darwin": _on_mac, "Windows": _on_windows}.get(machine.system)
    return ask(machine, port) if ask else None


def _on_linux(machine: Machine, port: int) -> Optional[list[str]]:
    pids = hardware.find_server(machine, hardware.list_processes(machine), port)
    # Where their files cannot be read, all processes of a user are meant, and any may be the one.
    certain = [pid for pid in pids if len(pids) == 1 or machine.names(f"/proc/{pid}/fd")]
    # The first of several has begun the others.
    text = machine.read(f"/proc/{min(certain)}/cmdline") if certain else None
    return text.rstrip("\0").split("\0") if text else None


def _on_mac(machine: Machine, port: int) -> Optional[list[str]]:
    told = machine.run(["lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fp"]) or ""
    pids = re.findall(r"^p(\d+)$", told, re.MULTILINE)
    line = (machine.run(["ps", "-ww", "-o", "command=", "-p", pids[0]]) or "") if pids else ""
    # ps joins words by blanks and quotes none: a path with a blank in it comes apart.
    return line.split() or None


def _on_windows(machine: Machine, port: int) -> Optional[list[str]]:
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
    return [word.replace('"', "") for word in words] or None


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


def _settings(found: Sequence[tuple[str, Optional[str]]], engine: Optional[str]) -> dict[str, str]:
    """What the flags declare, by the keys that --set takes."""
    told = {flag.lstrip("-"): value for flag, value in found if value not in (None, LEFT_OUT)}
    settings = {"launch_flags": _launch_flags(found)}
    settings.update({key: str(told[flag]) for key, names in TELLING.get(engine or "", {}).items()
                     for flag in names if flag in told})
    settings.update(_cache_type(told) if engine in ("llama.cpp", "llamafile") else {})
    files = [str(told[flag]) for flag in MODEL if str(told.get(flag)).endswith(".gguf")]
    if files:
        settings["models.0.file_name"] = files[0]
    return {key: value for key, value in settings.items() if value}


def _launch_flags(found: Iterable[tuple[str, Optional[str]]]) -> str:
    """Those that may matter for speed, as launch_flags takes them."""
    kept = [shlex.join([flag, value]) if value else flag for flag, value in found
            if flag and value != LEFT_OUT and flag.lstrip("-") not in (*SILENT, *MODEL)]
    return " ".join(kept)


def _cache_type(told: Mapping[str, Optional[str]]) -> dict[str, str]:
    """llama.cpp's types of keys and values, one word where they are the same."""
    kinds = [told.get(f"ct{letter}") or told.get(f"cache-type-{letter}") for letter in "kv"]
    if not any(kinds):
        return {}
    written = dict.fromkeys(kind or "f16" for kind in kinds)
    return {"runtime.kv_cache_type": "/".join(written)}
