"""What is one model, one set of weights, one machine, one configuration.

Computed when submissions are compared, from facts in their documents and never from a free tag, so
that old submissions follow each better rule. Two levels:

    headline row   machine class x model x bits class
    exact row      model, weights, quantisation, machine, runtime, configuration

A fact that is not known is None and equals only None: it merges with its like, and is shown as
unknown. canonical_names has the rules for single names, and reviewed_names what no rule can derive.
"""
from __future__ import annotations

import functools
import hashlib
import re
import shlex
from collections.abc import Iterable, Mapping
from typing import Any, Callable, NamedTuple, Optional

from compare import canonical_names as names
from compare import reviewed_names as tables

SAME_SIZE_RATIO = 1.02        # of parameter counts: engines round them
POWER_STEP_W = 5              # drivers report 449.8 W or 450.6 W for a limit of 450 W
MIN_SHORT_DIGEST = 12         # hexadecimal digits, as `ollama list` prints them
HAS_SIZE = re.compile(r"\d[bm]$")
# Words in a file's header that decide which model it is.
LATER = re.compile(r"\d{4}|think(?:ing)?|reasoning|a\d+b|qwen|llama|\d(?:\.\d+)?")
DERIVED = re.compile(r"distill|ablit|uncensor|heretic|merge|claude|opus|roleplay")
HARDWARE_UNKNOWN = "hardware not reported"

Facts = Mapping[str, Any]
Joined = tuple[str, str, Optional[str]]       # block, weights, quantisation


class Machine(NamedTuple):
    """key: everything that decides speed. group: chip or cards, and memory, for headline rows.
    memory_gib: what a model can use, of all cards with memory of their own or of the machine."""

    key: tuple[Any, ...]
    group: str
    memory_gib: Optional[float]
    has_own_memory: bool      # at least one card has memory of its own


class Model(NamedTuple):
    """One model of one submission, as far as its own documents show."""

    name: Optional[str]
    tune: str
    certainty: int            # of the name; a model that has several takes the most certain one
    repository: Optional[str]
    maker: str                # where no repository is known
    quant: Optional[str]
    bits_class: str
    digest: Optional[str]
    digest_is_declared: bool
    parameters: Optional[int]
    family: Optional[str]
    file_bytes: Optional[int]
    served: str


class Identity(NamedTuple):
    """What a model in a submission is. block: the model; exact: what its row is made of."""

    block: str
    weights: str
    quant: Optional[str]
    bits_class: str
    machine: Machine
    runtime: tuple[Optional[str], ...]
    configuration: tuple[tuple[str, Optional[str]], ...]

    @property
    def exact(self) -> tuple[Any, ...]:
        """Equal for two runs exactly if they belong in one row."""
        return (self.block, self.weights, self.quant, self.machine.key, self.runtime,
                self.configuration)

    @property
    def headline(self) -> tuple[str, str, str]:
        """Equal for two runs exactly if they belong in one headline row."""
        return self.machine.group, self.block, self.bits_class


@functools.lru_cache(maxsize=65536)
def short_id(key: Any) -> str:
    """Twelve hexadecimal digits that stay the same as long as the key does."""
    return hashlib.sha256(repr(key).encode("utf-8", "backslashreplace")).hexdigest()[:12]


def folded(name: str) -> str:
    """An engine's name in lower case without blanks and punctuation, except llama.cpp's."""
    word = re.sub(r"[\s_\-]+", "", name.lower())
    return {"llamacpp": "llama.cpp", "llamaserver": "llama.cpp", "llamacppserver": "llama.cpp",
            "llama.cppserver": "llama.cpp", "lmstudioserver": "lmstudio",
            "vllmserver": "vllm"}.get(word, word)


# --- models --------------------------------------------------------------------------------------
def model(facts: Facts, declared: Iterable[str], engine: str) -> Model:
    """A Model of the values in metadata.json. declared: names of the facts that someone typed."""
    served = str(facts["model"])
    named = _names(facts, "name" in declared, engine)
    in_mlx = any(one.in_mlx for one in named) or facts.get("file_format") == "mlx"
    best = next((one for one in named if one.words), None)
    certainty = 3 - named.index(best) if best else 0
    tune = best.tune if best else ""
    if best and not tune:
        tune = next((one.tune for one in named if one.words == best.words and one.tune), "")
    quant = _quant(facts.get("quantization"), named, in_mlx)
    repository = next((one.repository for one in named if one.repository), None)
    if not repository and facts.get("publisher"):
        repository = f"{facts['publisher']}/{re.sub(':[0-9]+$', '', served)}".lower()
    # These sizes distinguish architectures where the server does not name them.
    words, length = facts.get("vocabulary_tokens"), facts.get("embedding_length")
    digest = re.sub(r"^sha256[:\-]", "", (facts.get("digest") or "").strip().lower())
    maker = max((one.maker for one in named), key=len, default="") or (
        "imatrix" if re.match("i1|imat", (facts.get("quantization") or "").lower()) else "")
    return Model(best.words if best else None, tune, certainty, repository, maker, quant,
                 names.bits_class(quant, facts.get("bits_per_weight")), digest or None,
                 "digest" in declared, facts.get("parameters_count"),
                 facts.get("family") or (f"{words:g}x{length:g}" if words and length else None),
                 facts.get("file_bytes"), served)


def _names(facts: Facts, is_declared: bool, engine: str) -> list[names.ModelName]:
    """Names by precedence: where the weights came from, the file, and the served name or what the
    contributor declared in its place. The name in a file's header comes before a served name
    without a size, such as `my-model:latest`, and before names that it makes more precise."""
    found = []
    source = facts.get("source_repository")
    if source:
        from_library = "ollama" in source.lower() and "/" not in source
        first = re.split(r"[\s,;]+", source.strip())[0]
        if re.search(r"\d", first) and (len(first) > 3):
            found.append(names.model_name(first, "ollama" if from_library else ""))
    own, served = facts.get("name"), names.model_name(facts["model"], engine)
    titled = names.model_name("-".join(dict.fromkeys(re.split(r"[\s\-]+", own)))) if own else None
    reported = [served]
    if facts.get("file_name"):
        reported.insert(0, names.model_name(facts["file_name"].rpartition("/")[2],
                                            engine if engine != "ollama" else ""))
    if not titled:
        return [*found, *reported]
    if is_declared:
        return [*found, *reported[:-1], titled]
    if any(_names_more(titled, one) for one in reported):
        return [*found, titled, *reported]
    reported.insert(len(reported) - (not HAS_SIZE.search(served.words or "")), titled)
    return [*found, *reported]


def _names_more(titled: names.ModelName, named: names.ModelName) -> bool:
    """Whether the name in the file's header is a later or derived model: `qwen3:4b` was Qwen3-4B,
    and is Qwen3-4B-Thinking-2507 since August 2025."""
    words, of_title = (set((one.words or "").split("-")) for one in (named, titled))
    more = of_title - words
    return words < of_title and (all(map(LATER.fullmatch, more))
                                 or any(map(DERIVED.search, more)))


def _quant(reported: Optional[str], named: Iterable[names.ModelName],
           in_mlx: bool) -> Optional[str]:
    """The reported format; where it is less precise than a name, such as Q4_K_M of a UD-Q4_K_XL
    file or 4BIT of a 4bit-DWQ repository, the name's."""
    quant = names.quantization(reported, in_mlx) if reported else None
    if quant and quant.startswith("EXL2") and "exl" not in (reported or "").lower():
        quant = next((one.quant for one in named if one.quant
                      and one.quant.replace("EXL3", "EXL2") == quant), quant)
    for one in named:
        if one.quant and (quant is None or _refines(one.quant, quant)):
            return one.quant
    return quant


def _refines(detailed: str, general: str) -> bool:
    bits = [re.sub(r"\D", "", text.partition("-G")[0])[:1] for text in (detailed, general)]
    if bits[0] != bits[1] or detailed == general:
        return False
    if re.fullmatch(r"Q\d_K_[ML]|Q\d_K", general):
        return bool(re.match(r"UD-|Q\d_K_X?L\Z", detailed))
    return bool(re.fullmatch(r"\dBIT|INT\d|MLX-\d", general)) and not re.fullmatch(
        r"\dBIT|INT\d", detailed)


def _known_sizes_differ(sizes: Iterable[Optional[int]]) -> bool:
    known = [size for size in sizes if size]
    return bool(known) and max(known) > SAME_SIZE_RATIO * min(known)


def _rounded(count: Optional[int]) -> Optional[str]:
    return None if count is None else f"{count:.2g}"


# --- joining models over submissions -------------------------------------------------------------
def blocks_and_weights(models: Iterable[Model]) -> dict[Model, Joined]:
    """Block, weights and quantisation of each model. Equal digests join blocks, so that an alias
    such as `default` takes the best name of its class; not where parameter counts differ, nor for
    a digest that is only declared, unless the format and the parameter count agree with a
    server's."""
    every = list(dict.fromkeys(models))
    full = sorted({one.digest for one in every if one.digest})
    classes: dict[Any, list[Model]] = {}
    for one in every:
        if one.digest:
            classes.setdefault(_whole_digest(one.digest, full), []).append(one)
    found: dict[Model, Joined] = {}
    for one in every:
        if not one.digest:
            found[one] = (_block(one), one.repository or " ".join(filter(None, (
                "unknown:", _block(one), _rounded(one.parameters), one.maker))), one.quant)
    for digest, members in classes.items():
        apart = _known_sizes_differ(one.parameters for one in members)
        for one in members:
            like = [other for other in members if _is_joined(one, other, apart)]
            best = max(like, key=lambda other: (
                other.name is not None, bool(HAS_SIZE.search(other.name or "")),
                bool(other.tune), other.certainty, other.name or "", other.tune))
            size = f" {_rounded(one.parameters)}" if apart else ""
            quants = {other.quant for other in like} - {None}
            found[one] = (_block(best, digest + size), f"sha256:{digest}{size}",
                          one.quant or (quants.pop() if len(quants) == 1 else None))
    return found


def _whole_digest(digest: str, full: list[str]) -> str:
    """The only longer digest that begins like a short one."""
    if MIN_SHORT_DIGEST <= len(digest) < 64:
        longer = [one for one in full if len(one) == 64 and one.startswith(digest)]
        return longer[0] if len(longer) == 1 else digest
    return digest


def _is_joined(one: Model, other: Model, apart: bool) -> bool:
    if apart and _known_sizes_differ((one.parameters, other.parameters)):
        return False
    if (one.digest_is_declared or other.digest_is_declared) and one != other:
        return one.quant == other.quant and (one.parameters is None or other.parameters is None
                                             or _rounded(one.parameters)
                                             == _rounded(other.parameters))
    return True


def _block(one: Model, weights: str = "") -> str:
    """`qwen-2.5-7b instruct`; a model without a name is a block of its own."""
    if one.name:
        return f"{one.name} {one.tune}".strip()
    return weights or (f"unnamed {one.served.lower()} {one.family or ''} "
                       f"{_rounded(one.parameters) or one.file_bytes or ''}").strip()


# --- machines ------------------------------------------------------------------------------------
def machine(hardware: Facts, cards: Iterable[Facts], owner: str, reached: str) -> Machine:
    """The machine of hardware.json as dotted names with their values. owner: handle and tag, which
    stand for a machine whose hardware is not reported."""
    cpu, kind = hardware.get("cpu.model_name"), hardware.get("system.kind")
    sizes = [hardware.get(f"memory.{name}_bytes") for name in ("capacity", "limit")]
    memory = min((size for size in sizes if size), default=None)
    listed = list(cards)
    if cpu is None and memory is None and not listed:
        return Machine((HARDWARE_UNKNOWN, owner, reached), f"{HARDWARE_UNKNOWN}: {owner}", None,
                       False)
    chip = names.cpu(cpu) if cpu else None
    used = _cards(listed)
    own = [one for one in used if one[1] is not None]
    gib = None if memory is None else names.size_as_sold_gib(memory)
    key = (chip, _system(hardware, chip, own), hardware.get("cpu.usable_threads_count")
           or hardware.get("cpu.threads_count"), gib, used, _power(hardware, kind),
           (hardware.get("system.virtualization") or "").lower() or None,
           hardware.get("system.modification"), "local" if reached == "loopback" else reached)
    return Machine(key, _group(chip, gib, own),
                   sum(size for _, size, _, _ in own) if own else gib, bool(own))


def _cards(listed: list[Facts]) -> tuple[tuple[Any, ...], ...]:
    """(name, GiB, cores, power limit) of each card that may compute; graphics within a processor
    count only where no card has memory of its own."""
    own = [card for card in listed if card.get("memory_bytes")
           and not names.is_integrated(card.get("model_name") or "")]
    made = []
    for card in own or listed:
        size, watts = card["memory_bytes"] if own else None, card.get("power_limit_w")
        text = card.get("model_name") or "unknown"
        made.append(("integrated" if not own and names.is_integrated(text)
                     else names.card(text, bool(size)),
                     names.size_as_sold_gib(size, True) if size else None, card.get("cores_count"),
                     None if watts is None else round(watts / POWER_STEP_W) * POWER_STEP_W))
    return tuple(sorted(made, key=repr))


def _system(hardware: Facts, chip: Optional[str], own: list[tuple[Any, ...]]) -> Optional[str]:
    """The machine's model where cooling and power come with it: laptops, small computers, Macs."""
    text, kind = hardware.get("system.model_name"), hardware.get("system.kind")
    apple = names.apple_system(text, chip or "") if text else None
    if apple:
        return apple
    comes_whole = kind in ("laptop", "sbc") or hardware.get("memory.unified") or (
        kind not in ("server", "vm") and not own and chip and names.MOBILE_CPU.search(chip))
    if not comes_whole:
        return None
    return names.system(text) if text else f"unknown {kind or 'system'}"


def _power(hardware: Facts, kind: Optional[str]) -> tuple[Any, ...]:
    """(on battery, low power mode or its watts, governor powersave). A desktop has no battery, and
    its mode and governor matter only where they save power; a laptop's are unknown if not reported.
    """
    source, mode = hardware.get("power.source"), hardware.get("power.mode")
    low: Any = None
    if mode is not None:
        watts = re.search(r"\d+ ?w\b", mode.lower())
        low = watts[0] if watts else bool(re.search(
            r"low|sav|quiet|silent|eco|efficien|battery", mode.lower()))
    governor = (hardware.get("power.governor") or "").lower() == "powersave"
    if kind == "laptop":
        return source == "battery" if source else None, low, None
    return source == "battery", low or False, governor


def _group(chip: Optional[str], gib: Optional[float], own: list[tuple[Any, ...]]) -> str:
    """`2 x rtx 3090 24 GiB`, or `m1 8 GiB`."""
    if own:
        kinds = sorted({(name, size) for name, size, _, _ in own})
        return " + ".join(
            (f"{count} x " if count > 1 else "") + f"{name} {size:g} GiB" for name, size in kinds
            for count in [sum(card[:2] == (name, size) for card in own)])
    return f"{chip or 'unknown processor'} {f'{gib:g} GiB' if gib else 'unknown memory'}"


# --- runtime and configuration -------------------------------------------------------------------
def version(text: Optional[str]) -> Optional[str]:
    """Without v, build number's b, and what follows the version: `v0.33.3+cu124` is `0.33.3`."""
    if not text:
        return None
    word = re.sub(r"\(.*|\+.*|,.*|\bbuild\b.*|\bversion\b:?", " ", text.strip().lower()).split()
    if not word:
        return text.strip().lower()
    return re.sub(r"-g?[0-9a-f]{7,40}$", "", re.sub(r"^(?:v|b)(?=\d)", "", word[0]))


def runtime(name: str, version_text: Optional[str], backend: Optional[str]) \
        -> tuple[Optional[str], ...]:
    """(engine, version, backend)."""
    word = re.match(r"[a-z]+", backend.lower()) if backend else None
    return folded(name), version(version_text), \
        {"hip": "rocm", "mlx": "metal"}.get(word[0], word[0]) if word else None


@functools.lru_cache(maxsize=4096)
def launch_settings(text: str) -> tuple[tuple[str, str], ...]:
    """Settings in the launch flags, by name; those that are not known here as they are."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    found: dict[str, str] = {}
    for i, word in enumerate(words):
        name, _, value = word.partition("=")
        is_flag = bool(re.match(r"--?[a-zA-Z]", word))
        if not is_flag and not re.fullmatch(r"[A-Z][A-Z0-9_]+", name):
            continue
        if is_flag and not value and i + 1 < len(words) and not re.match(
                r"--?[a-zA-Z]|[A-Z][A-Z0-9_]+=", words[i + 1]):
            value = words[i + 1]
        name = name.lstrip("-")
        setting = tables.SETTINGS.get(name, name)
        if setting and (name, value) != ("dtype", "auto"):
            found[setting] = value.lower() or "on"
    keys, values = found.pop("kv_k", None), found.pop("kv_v", None)
    if keys or values:
        found["kv_cache_type"] = f"{keys or 'f16'}/{values or 'f16'}"
    return tuple(sorted(found.items()))


def _kv_type(text: str) -> str:
    parts = [{"fp8_e4m3": "fp8", "fp16": "f16", "float16": "f16", "half": "f16",
              "bfloat16": "bf16", "fp32": "f32", "float32": "f32"}.get(part, part)
             for part in text.lower().split("/")]
    return parts[0] if len(set(parts)) == 1 else "/".join(parts)


def _draft(text: str) -> str:
    name = names.model_name(text, "")
    return "none" if text.lower() in ("none", "off", "no") else " ".join(
        filter(None, (name.words, name.quant))) or text.lower()


FORMS: dict[str, Callable[[str], str]] = {"kv_cache_type": _kv_type, "draft_model": _draft,
         "flash_attention": lambda text: {"1": "on", "true": "on", "0": "off", "false": "off",
                                          "enabled": "on", "disabled": "off"}.get(text, text)}


def _tenths(ratio: Optional[float]) -> Optional[str]:
    """A share in tenths; only all is 1, and only nothing 0."""
    if ratio is None:
        return None
    if ratio < 0.005 or ratio > 0.995:
        return f"{ratio:.0f}"
    return f"{min(max(round(ratio, 1), 0.1), 0.9):g}"


def configuration(facts: Facts, at: Facts, hardware: Facts, on: Machine, engine: str,
                  backend: Optional[str]) -> tuple[tuple[str, Optional[str]], ...]:
    """(setting, value) of a model as it was served. facts: of the model; at: of the runtime."""
    flags = at.get("launch_flags")
    typed = dict(launch_settings(flags)) if flags else {}
    defaults = tables.DEFAULTS.get(engine, {})
    made: dict[str, Optional[str]] = {}
    for name in ("draft_model", "kv_cache_type", "flash_attention", "batch_tokens",
                 "micro_batch_tokens"):
        value = facts.get(name) if name == "draft_model" else at.get(name)
        if value is None and name == "draft_model":
            value = typed.get(name) or facts.get("speculative")
        text = typed.get(name) if value is None else str(value).lower()
        typed.pop(name, None)
        if text is None and flags:
            text = "none" if name == "draft_model" else defaults.get(name, "default")
        made[name] = FORMS.get(name, str)(text) if text is not None else None
    offload = facts.get("gpu_offload_ratio")
    if offload is None and backend == "cpu":
        offload = 0
    context, threads = facts.get("context_effective_tokens"), typed.pop("threads", None)
    for name, known in (
            ("gpu_offload", _tenths(offload)), ("cards_used", at.get("accelerators_used_count")),
            ("context", 2 ** (max(context, 1).bit_length() - 1) if context else None),
            ("slots", facts.get("slots_count"))):
        flag = typed.pop(name, None)
        if flag and name == "gpu_offload":       # more layers than models have
            flag = re.sub(r"^99+$", "all", flag)
        made[name] = _text(flag if known is None else known)
    in_main_memory = offload is not None and offload <= 0.995 or not on.has_own_memory
    on_cpu = offload is not None and offload <= 0.995 or backend is None and not on.has_own_memory
    if on_cpu:
        made["threads"] = _text(at.get("threads_count")) or threads
        made["instruction_sets"] = _text(hardware.get("cpu.instruction_sets"))
        made["l3_kib"] = _text(hardware.get("cpu.cache_l3_kib"))
    if in_main_memory:
        for name in ("type", "speed_mts", "channels_count"):
            made[f"memory_{name}"] = _text(hardware.get(f"memory.{name}"))
    if at.get("kv_cache_offloaded") is False:         # engines offload it unless set otherwise
        made["kv_cache_offloaded"] = "false"
    if facts.get("dtype"):
        made["dtype"] = names.quantization(facts["dtype"])
    made.update({f"flag {name}": value for name, value in typed.items()})
    return tuple(sorted(made.items()))


def _text(value: Any) -> Optional[str]:
    if value is None:
        return None
    return " ".join(sorted(map(str, value))) if isinstance(value, list) else str(value).lower()


USUAL = {"draft_model": "none", "flash_attention": "auto", "kv_cache_type": "f16",
         "gpu_offload": "1", "cards_used": "1"}
SHOWN = ("draft_model", "kv_cache_type", "kv_cache_offloaded", "flash_attention", "gpu_offload",
         "cards_used", "batch_tokens", "micro_batch_tokens", "threads")


def configuration_text(one: Identity) -> str:
    """Known settings that differ from the usual, such as `kv cache type q8_0`."""
    engine, _, backend = one.runtime
    usual = {**USUAL, **tables.DEFAULTS.get(engine or "", {})}
    if backend == "cpu":
        usual.update({"gpu_offload": "0", "cards_used": "0"})
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in one.configuration
                     if value not in (None, "default", usual.get(name))
                     and (name in SHOWN or name.startswith("flag ")))


def weights_text(one: Identity) -> str:
    """`bartowski/qwen2.5-7b-instruct-gguf`, `sha256 3f9a1c`, or `weights unknown`."""
    if one.weights.startswith("unknown: "):
        return "weights unknown"
    return re.sub(r"^sha256:([0-9a-f]{6}).*", r"sha256 \1", one.weights)
