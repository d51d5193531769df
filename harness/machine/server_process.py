"""How the server on this machine was started, in a form that may be published.

The listening port leads to a process, its children (Ollama starts one per model), their command
lines, those environment variables that are settings (Linux only), and the model file. If only a
forwarder listens, as for a container, nothing is known. The result is a proposal that the
contributor declares, since the server may have been restarted after the run.
"""
from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Optional

from core import privacy
from machine import gguf, system
from machine.processes import FORWARDERS, descendants, find_server, list_processes, listeners

Flags = list[tuple[str, Optional[str]]]

LEFT_OUT = "..."
# Options that do not affect speed: who may call, under which name, what is shown and logged.
SILENT = re.compile(
    "(?:no-)?(?:enable-|disable-)?(?:(?:cors|endpoint|log|ssl|ui|webui)-.+|" + "|".join(
    """a alias allowed-origins api-key api-key-file api-prefix bind colors config
    decode-log-interval download-dir fastapi-docs hf-token host hostname listen lv max-log-len
    media-path metrics model_alias offline path perf port props public quiet reuse-port root-path
    served-model-name show-time-cost slot-save-path slots sse-ping-interval static-path tags
    timeout to ui uvicorn-log-level v verbose verbosity warmup webui""".split()) + ")")
MODEL = ("m", "model", "model-path", "model_path")
REPOSITORY = ("hf", "hfr", "hf-repo", *MODEL)
# Ollama's name of a model file: its path is private, its hash is that of the weights.
BLOB = re.compile(r"sha256-([0-9a-f]{64})")
# Variables of the environment that are settings, except those that do not affect speed or that show
# where the server is. SILENT also applies to LLAMA_ARG_*, which are options of llama.cpp.
VARIABLES = re.compile(r"(?:OLLAMA|LLAMA_ARG|GGML|VLLM|SGLANG|OMP|KMP|MLX)_[A-Z0-9_]+"
                       r"|(?:CUDA|HIP|ROCR)_VISIBLE_DEVICES")
SILENT_VARIABLES = re.compile(r"_(?:HOST|HOSTS|PORT|ORIGINS|MODELS?|ALIAS|DEBUG|LOG\w*|URL|PROXY"
                              r"|CACHE_ROOT|CONFIG_ROOT|TMPDIR|RUNNERS_DIR|PATH|NO_CLOUD"
                              r"|NOHISTORY|NOPRUNE|REMOTES|LOAD_TIMEOUT|MAX_QUEUE|NO_USAGE_STATS"
                              r"|DO_NOT_TRACK)$")
SECRET = re.compile(r"(?:^|[-_])(?:\w*key|token|hft|secret|pass\w*|auth\w*|cred\w*)(?=$|[-_])",
                    re.IGNORECASE)
# Options whose values are names: of hosts, files or anything that someone made up.
NAMING = re.compile(r"(?:^|[-_])(?:rpc|remote|hosts?|addr\w*|urls?|endpoint|servers?|peers?|ip"
                    r"|nodes?|master|head|proxy|origins?|user|owner|title|name|prompt|override"
                    r"|system|grammar|prefix|suffix)(?=$|[-_])", re.IGNORECASE)
# Values without a digit that are settings; other words may be names.
WORDS = frozenset(
    """all auto balanced bf16 bfloat16 chatml cpu cuda default disable disabled distribute dynamic
    eager enable enabled fallback false fastpath flash flashinfer float float16 float32 full gpu
    gguf half hermes hybrid inductor isolate jinja json layer linear lru metal mirror mistral mla
    mps mixed mmap mlock native no none numactl off on openai page paged pipeline pooled prefill
    process qwen radix ray rocm row sdpa shared slot speculative static sync sycl tensor thread
    triton true uni uniform vulkan wave xformers xgrammar yarn yes""".split())
SLOTS = "models.0.slots_count"
# {end of a key of --set: the options and variables that give it}, per engine.
LLAMA_CPP: dict[str, tuple[str, ...]] = {
    "runtime.threads_count": ("t", "threads", "LLAMA_ARG_THREADS"),
    "runtime.batch_tokens": ("b", "batch-size", "LLAMA_ARG_BATCH"),
    "runtime.micro_batch_tokens": ("ub", "ubatch-size", "LLAMA_ARG_UBATCH"),
    "runtime.flash_attention": ("fa", "flash-attn", "LLAMA_ARG_FLASH_ATTN"),
    "models.0.draft_model": ("md", "model-draft", "spec-draft-model")}
SETTINGS: dict[str, dict[str, tuple[str, ...]]] = {
    "llama.cpp": LLAMA_CPP, "llamafile": LLAMA_CPP,
    "vLLM": {SLOTS: ("max-num-seqs",), "runtime.kv_cache_type": ("kv-cache-dtype",),
             "runtime.batch_tokens": ("max-num-batched-tokens",)},
    "llama-cpp-python": {"models.0.context_effective_tokens": ("n_ctx",),
                         "runtime.threads_count": ("n_threads",),
                         "runtime.batch_tokens": ("n_batch",),
                         "runtime.flash_attention": ("flash_attn",)},
    "Ollama": {SLOTS: ("OLLAMA_NUM_PARALLEL",),
               "runtime.flash_attention": ("OLLAMA_FLASH_ATTENTION",),
               "runtime.kv_cache_type": ("OLLAMA_KV_CACHE_TYPE",)}}
# Engines in Python that do not report their version: the name of their distribution.
DISTRIBUTIONS = {"litellm": "litellm", "llama-cpp-python": "llama_cpp_python", "mlx-lm": "mlx_lm",
                 "transformers serve": "transformers"}
SWITCHES = {"1": "on", "true": "on", "0": "off", "false": "off"}


class Process(NamedTuple):
    """How a process was started, unredacted: never print it."""

    words: list[str]
    environment: dict[str, str]
    folder: Optional[str]
    children: list[list[str]]         # the words of those that compute for it


class Started(NamedTuple):
    """A server's command line without private parts, and the settings in it: {key: text}."""

    line: str
    settings: dict[str, str]


def started(machine: system.Machine, port: int, engine: Optional[str],
            names: Sequence[privacy.MachineName], reads_file: bool = True) -> Optional[Started]:
    """How the process that listens on a port of this machine was started; null if unknown.

    names: names of this machine and its user, which are removed. reads_file: whether to read the
    model file, which takes seconds if it is large.
    """
    found = find(machine, port)
    public = list(_public(found.words, names)) if found else []
    if found is None or not public or public[0].rstrip(":") in FORWARDERS:
        return None
    variables = _variables(found.environment, names)
    flags = list(_flags(public[1:]))
    children = [_child_settings(words, names) for words in found.children]
    shared = {key: text for key, text in (children[0] if children else {}).items()
              if all(child.get(key) == text for child in children)}
    own = _settings(flags, variables, engine)
    settings = {**shared, **own, **_repository(found), **_installed(machine, found, engine)}
    if SLOTS in shared:               # Ollama gives some models one slot, whatever it is set to
        settings[SLOTS] = shared[SLOTS]
    if "launch_flags" in settings:
        settings["launch_flags"] = " ".join(given["launch_flags"] for given in (own, shared)
                                            if "launch_flags" in given)
    if reads_file:
        paths = set(filter(None, (_model_path(words, found.folder)
                                  for words in (found.words, *found.children))))
        if len(paths) == 1:
            settings.update(gguf.facts(paths.pop()))
    line = " ".join([*(f"{name}={value}" for name, value in variables.items()),
                     shlex.join(public)])
    return Started(line, settings)


def why_unknown(machine: system.Machine, port: int) -> str:
    """Why `started` found nothing, with process IDs where they are known."""
    if machine.system not in ("Linux", "Android"):
        return (f"no process that you may look at listens on port {port}; it may belong to another "
                "user or run in a container")
    processes = list_processes(machine)
    users, owned, _, holders = listeners(machine, processes, port)
    if not users:
        return f"no process on this machine listens on port {port} now"
    forwarders = [pid for pid in sorted(holders) if processes[pid].command in FORWARDERS]
    if forwarders:
        return (f"process {forwarders[0]} ({processes[forwarders[0]].command}) passes port {port} "
                "on, for example to a container; look at the server there")
    named = [pid for pid in sorted(holders or owned)
             if holders or re.search(rf"\b{port}\b", machine.read(f"/proc/{pid}/cmdline") or "")]
    whose = "another user" if users != {0} else "root"
    return f"the server on port {port} belongs to {whose}" + (
        f"; its process ID may be {named[0]}: ps -o args= -p {named[0]}" if named else
        f"; its process ID is not known: sudo ss -ltnp sport = :{port}")


# --- the process ---------------------------------------------------------------------------------
def find(machine: system.Machine, port: int) -> Optional[Process]:
    """The process that listens on a port, or null."""
    finders = {"Linux": _on_linux, "Android": _on_linux, "Darwin": _on_mac, "Windows": _on_windows}
    return finders[machine.system](machine, port) if machine.system in finders else None


def _computes(words: Sequence[str]) -> bool:
    """Whether a child was started for a model."""
    return any(flag.lstrip("-") in MODEL and value for flag, value in _flags(words[1:]))


def _on_linux(machine: system.Machine, port: int) -> Optional[Process]:
    processes = list_processes(machine)
    pids = find_server(machine, processes, port)

    def words(pid: int) -> list[str]:
        text = machine.read(f"/proc/{pid}/cmdline")
        return text.rstrip("\0").split("\0") if text else []

    # If their files cannot be read, pids are all processes of a user: the server is the only one
    # that the others descend from.
    certain = [pid for pid in pids if machine.names(f"/proc/{pid}/fd")] or [
        pid for pid in pids if descendants(processes, {pid}) >= pids]
    if not certain or not words(min(certain)):
        return None
    server = min(certain)             # the first of several has started the others
    below = sorted(descendants(processes, {server}) - {server})
    pairs = [pair.partition("=") for pair in
             (machine.read(f"/proc/{server}/environ") or "").split("\0")]
    return Process(words(server), {name: value for name, _, value in pairs},
                   machine.link(f"/proc/{server}/cwd"),
                   [child for child in map(words, below) if _computes(child)])


def _on_mac(machine: system.Machine, port: int) -> Optional[Process]:
    listing = machine.run(["lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fp"]) or ""

    def words(pid: str) -> list[str]:
        # ps separates words by blanks and quotes none: parts of a path that exists are one word,
        # and of an argument's path that cannot be seen, all parts up to the next option.
        parts = (machine.run(["ps", "-ww", "-o", "command=", "-p", pid]) or "").split()
        found = list[str]()
        while parts:
            end = 1
            if parts[0].startswith("/"):
                unseen = len(list(itertools.takewhile(lambda part: part[0] != "-", parts)))
                end = next((at for at in range(len(parts), 0, -1)
                            if machine.owner(" ".join(parts[:at])) is not None),
                           unseen if found else 1)
            found.append(" ".join(parts[:end]))
            parts = parts[end:]
        return found

    pids = re.findall(r"^p(\d+)$", listing, re.MULTILINE)
    server = words(pids[0]) if pids else []
    below = re.findall(r"^\d+$", machine.run(["pgrep", "-P", pids[0]]) or "",
                       re.MULTILINE) if server else []
    return Process(server, {}, None, [child for child in map(words, below)
                                      if child and _computes(child)]) if server else None


def _on_windows(machine: system.Machine, port: int) -> Optional[Process]:
    answer = machine.run(["powershell", "-NoProfile", "-NonInteractive", "-Command",
                          "[Console]::OutputEncoding = [Text.Encoding]::UTF8; "
                          f"$c = Get-NetTCPConnection -State Listen -LocalPort {port}; "
                          "$p = @($c.OwningProcess)[0]; @('ProcessId', 'ParentProcessId') | "
                          "ForEach-Object { Get-CimInstance Win32_Process -Filter \"$_=$p\" }"
                          " | Select-Object CommandLine | ConvertTo-Json"],
                         system.WINDOWS_LIMIT_S)
    lines = [str(item.get("CommandLine") or "") for item in system.dicts(system.parse_json(answer))]
    words = [[word.replace('"', "") for word in re.findall(r'(?:[^\s"]|"[^"]*")+', line)]
             for line in lines]
    return Process(words[0], {}, None, [child for child in words[1:] if child and _computes(child)]
                   ) if words and words[0] else None


def _model_path(words: Sequence[str], folder: Optional[str]) -> Optional[str]:
    """Path of the model file, if the command line names one. folder: of the process."""
    for flag, value in _flags(words[1:]):
        if flag.lstrip("-") in MODEL and value and value.endswith(".gguf"):
            path = os.path.join(folder or "", value)
            return path if os.path.isabs(path) else None
    return None


def _installed(machine: system.Machine, found: Process, engine: Optional[str]) -> dict[str, str]:
    """The version of an engine in Python, from the site-packages of its interpreter."""
    name = DISTRIBUTIONS.get(engine or "")
    python = shutil.which(found.words[0], path=found.environment.get("PATH", ""))
    if name is None or python is None:
        return {}
    top = os.path.dirname(os.path.dirname(python))
    libraries = [os.path.join("lib", one) for one in machine.names(os.path.join(top, "lib"))]
    versions = {match[1] for library in (*libraries, "Lib")
                for folder in machine.names(os.path.join(top, library, "site-packages"))
                for match in [re.fullmatch(rf"{name}-(\d[\w.+]*)\.dist-info", folder)] if match}
    return {"runtime.version": versions.pop()} if len(versions) == 1 else {}


def _repository(found: Process) -> dict[str, str]:
    """The repository that the server downloaded the model from: owner/name, if no such folder
    exists."""
    for flag, value in _flags(found.words[1:]):
        match = gguf.REPOSITORY.fullmatch((value or "").partition(":")[0])
        if match and flag.lstrip("-") in ("", *REPOSITORY) and not (value or "").endswith(".gguf") \
                and not os.path.exists(os.path.join(found.folder or "", match[1])):
            return {"models.0.source_repository": match[1]}
    return {}


# --- what may be published -----------------------------------------------------------------------
def _public(words: Sequence[str], names: Sequence[privacy.MachineName]) -> Iterator[str]:
    """The words without folders, private texts and secrets."""
    secret, option = False, ""
    for word in words:
        name, equals, value = word.partition("=")
        keeps = bool(SECRET.search(name))
        if secret:                    # whatever it looks like: a key may begin with a dash
            yield LEFT_OUT
        elif equals and (keeps or word.startswith("-")):
            yield name + equals + (LEFT_OUT if keeps else _shareable(value, names, name))
        else:
            yield _shareable(word, names, option)
        option = word if word.startswith("-") and not equals else ""
        secret = not secret and keeps and not equals and word.startswith("-")


def _variables(environment: Mapping[str, str],
               names: Sequence[privacy.MachineName]) -> dict[str, str]:
    """{name: public value} of the variables that are settings."""
    found = {name: _shareable(value, names, f"-{name}")
             for name, value in sorted(environment.items())
             if value and VARIABLES.fullmatch(name) and not SILENT_VARIABLES.search(name)
             and not SILENT.fullmatch(name.replace("LLAMA_ARG_", "").replace("_", "-").lower())
             and not SECRET.search(name.replace("_", "-"))}
    return {name: shlex.quote(value) for name, value in found.items() if value != LEFT_OUT}


def _shareable(word: str, names: Sequence[privacy.MachineName], option: str = "") -> str:
    """A word that may be published, or LEFT_OUT. option: the one that it is the value of."""
    flag = option.lstrip("-")
    if "\\" in word or word.startswith(("/", "~", ".")) or word.count("/") > 1:
        word = re.split(r"[\\/]", word.rstrip("\\/"))[-1]
    free_text = " " in word and not word.startswith("{")          # such as a header with a key
    if word.startswith("{"):             # the texts in it are values, its keys are settings
        words = re.findall(r'[:\[,]\s*"([^"]*)"(?!\s*:)', word)
        return LEFT_OUT if any(_shareable(text, names, option) == LEFT_OUT for text in words) \
            or privacy.scan(word, names=names) else word
    is_file = flag in REPOSITORY or word.endswith((".gguf", ".safetensors", ".bin"))
    is_name = bool(flag) and not word.startswith("-") and not is_file and (
        bool(NAMING.search(flag)) or bool(re.search(r"[A-Za-z]:\d", word))
        or not re.search(r"\d", word) and not set(re.split(r"[,:=+]", word.lower())) <= WORDS)
    return LEFT_OUT if free_text or is_name or privacy.scan(word, names=names) else word


def _flags(words: Iterable[str]) -> Iterator[tuple[str, Optional[str]]]:
    """(option, its value or null) of a command line; other words have the option ""."""
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


def _last(flags: Flags, names: Iterable[str]) -> Optional[str]:
    """The value of an option; of two spellings, the last counts."""
    return next((value for flag, value in reversed(flags)
                 if flag.lstrip("-") in names and value not in (None, LEFT_OUT)), None)


def _settings(flags: Flags, variables: Mapping[str, str],
              engine: Optional[str]) -> dict[str, str]:
    """{key of --set: value} of options and variables; an option overrides a variable."""
    given: Flags = [*variables.items(), *flags]
    kept = [f"{name}={value}" for name, value in variables.items()]
    kept += [shlex.join([flag, value]) if value else flag for flag, value in flags
             if flag and value != LEFT_OUT and flag.lstrip("-") not in MODEL
             and not SILENT.fullmatch(flag.lstrip("-"))]
    settings = {"launch_flags": " ".join(kept)}
    for key, names in SETTINGS.get(engine or "", {}).items():
        value = _last(given, names) or ""
        settings[key] = SWITCHES.get(value, value) if key.endswith("attention") else value
    if engine in ("llama.cpp", "llamafile"):
        kinds = [_last(flags, (f"ct{letter}", f"cache-type-{letter}")) for letter in "kv"]
        if any(kinds):                # one word if keys and values have the same type
            settings["runtime.kv_cache_type"] = "/".join(
                dict.fromkeys(kind or "f16" for kind in kinds))
    file = _last(flags, MODEL) or ""
    settings["models.0.file_name"] = re.split(r"[\\/]", file)[-1] if file.endswith(".gguf") else ""
    return {key: value for key, value in settings.items() if value}


def _child_settings(words: Sequence[str], names: Sequence[privacy.MachineName]) -> dict[str, str]:
    """Settings of a process that computes for the server, in llama.cpp's options.

    Ollama passes the context of all slots together.
    """
    flags = list(_flags(list(_public(words, names))[1:]))
    settings = _settings(flags, {}, "llama.cpp")
    slots = system.whole(_last(flags, ("np", "parallel")))
    context = system.whole(_last(flags, ("c", "ctx-size")))
    if slots:
        settings[SLOTS] = str(slots)
        if context:
            settings["models.0.context_effective_tokens"] = str(context // slots)
    blob = BLOB.fullmatch(_last(flags, MODEL) or "")
    if blob:
        settings["models.0.digest"] = f"sha256:{blob[1]}"
    return settings
