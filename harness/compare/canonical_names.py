"""Rules that give all spellings of a model, quantisation, processor, card or system one name."""
from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import NamedTuple, Optional

from compare import reviewed_names as tables
from core.names import FILE_ENDING, GENERIC_NAMES, is_generic_model

GIB = 1024 ** 3


# --- quantisations -------------------------------------------------------------------------------
@functools.lru_cache(maxsize=4096)
def quantization(text: str, in_mlx: bool = False) -> str:
    """`Q4_K - Medium`, `q4_k` and `Q4_K_M` are Q4_K_M; an unknown format is its own name. in_mlx:
    the weights are MLX's, where "4bit" is MLX-4; elsewhere its container is unknown."""
    word = re.sub(r"^(all|mostly|gguf)[ _-]|^torch\.|\.gguf$|\(guessed\)|\bternary\b", "",
                  text.strip().lower()).strip()
    word = re.sub(r"medium|small|large", lambda match: match[0][0], word)
    bits_each = re.search(r"(\d(?:\.\d+)?)\W*bpw", word)
    exl = re.search(r"exl[23]", word)
    if exl:
        bits = bits_each or re.search(r"(\d+\.\d+|\d)", word[exl.end():])
        return f"{exl[0].upper()}-{float(bits[1]):g}" if bits else exl[0].upper()
    if bits_each and re.fullmatch(r"\W*\d(\.\d+)?\W*bpw\W*", word):
        return f"EXL2-{float(bits_each[1]):g}"       # the format that names itself by its bits
    word = re.sub(r"\W*\d(\.\d+)?\W*bpw", "", word) if bits_each else word
    return _gguf(word) or _other_format(re.sub(r"[\s_.\-/]+", "", word), in_mlx) \
        or re.sub(r"[\s_.\-]+", "-", text.strip()).upper()


def _gguf(word: str) -> Optional[str]:
    """A format of llama.cpp; UD- and the mixes _L and _XL of single makers stay apart."""
    folded = re.sub(r"[\s_.\-]+", "", re.sub(r"^(i1|imat(rix)?)[-_. ]", "", word))
    found = re.fullmatch(r"(ud)?(i|t)?q(\d)(k)?(xxs|xs|xl|s|m|l|nl(?:xl)?|p|[01](?:\d\d)?)?",
                         folded)
    if not found:
        return None
    maker, kind, bits, is_k, rest = found.groups()
    rest = rest or ""
    if is_k and ((not rest and bits in "345") or (rest == "m" and bits in "26")):
        rest = "m" if bits in "345" else ""
    if not kind and not is_k and not rest and bits == "8":
        rest = "0"
    name = "_".join(part for part in (f"{(kind or '').upper()}Q{bits}", is_k and "K",
                                      rest.upper()) if part)
    return f"UD-{name}" if maker else name


FLOATS = {"F32": "f32|fp32|float32|full", "F16": "f16|fp16|float16|half",
          "BF16": "bf16|bfloat16", "MXFP4": "mxfp4(moe)?|mxfp4quark", "MXFP6": "mxfp6",
          "NVFP4": "nvfp4|modeloptfp4|fp4nv", "MXFP8": "mxfp8", "FP8_E5M2": "fp8e5m2",
          "FP8": "(fbgemm|modelopt|compressedtensors)?fp8(e4m3(fn)?|dynamic|block|static|w8a8|kv)?"
                 "|w8a8fp8|f(loat)?8(e4m3(fn)?)?",
          "W8A16": "(int8)?w8a16", "INT8": "w8a8(int8)?|int8(w8a8)?",
          "INT4": "w4a16(g\\d+)?|int4(w4a16)?|(auto?round)(int4|4bits?)?|int4autoround",
          "NF4": "nf4"}


def _other_format(word: str, in_mlx: bool) -> Optional[str]:
    group = re.search(r"(?:gs?|groupsize)(\d{2,3})$|(\d{2,3})g$", word)
    bare = word[:group.start()] if group else word
    for maker in ("awq", "gptq", "hqq"):
        if maker in bare:
            bits = re.search(r"\d", bare.replace("marlin", ""))
            return f"{maker.upper()}-{bits[0] if bits else 4}"
    if re.search(r"bnb|bitsandbytes|nf4|llmint8", bare):
        return "BNB-8" if "8" in bare else "BNB-4"
    for name, pattern in FLOATS.items():
        if re.fullmatch(pattern, bare):
            return name
    mixed = re.search(r"mixed(\d)(\d)", bare)
    if mixed:
        return f"MLX-MIXED_{mixed[1]}_{mixed[2]}"
    found = re.fullmatch(r"(mlx)?q?(\d)bits?(mlx)?(dwq)?(mlx)?|(mlx)(?:q|int)?(\d)(dwq)?"
                         r"|dwq(\d)bits?", bare)
    if not found:
        return None
    bits_known = found[2] or found[7] or found[9]
    is_mlx = in_mlx or "mlx" in bare
    name = f"MLX-{bits_known}" if is_mlx else f"{bits_known}BIT"
    of_group = (group[1] or group[2]) if group else "64"
    return name + ("-DWQ" if "dwq" in bare else "") + (f"-G{of_group}" if of_group != "64" else "")


def bits_class(quant: Optional[str], bits_per_weight: Optional[float]) -> str:
    """`4-bit`, `5-6-bit`, `8-bit`, `16-bit`, or `bits unknown`."""
    bits: Optional[float] = None
    if quant:
        found = re.search(r"(?:Q|-|W|INT|FP|NF|BF|^F|^)(\d+)", quant)
        bits = float(found[1]) if found else None
    if bits is None:
        bits = bits_per_weight
    if bits is None:
        return "bits unknown"
    for limit, name in ((3.75, "2-3-bit"), (4.99, "4-bit"), (7, "5-6-bit"), (10, "8-bit"),
                        (20, "16-bit")):
        if bits < limit:
            return name
    return "32-bit"


# --- models --------------------------------------------------------------------------------------
class ModelName(NamedTuple):
    """A name taken apart. words: canonical family, version and size; None if it names no model.
    tune: instruct, base, or "" if unknown. repository: owner/name, lower case. maker: what a file
    name alone shows about who made it and how, such as `huihui-ai` or `imatrix`."""

    words: Optional[str]
    tune: str
    repository: Optional[str]
    quant: Optional[str]
    in_mlx: bool
    maker: str


CONTAINERS = frozenset(
    "mlx gguf ggml ggjt litert litert-lm litertlm llamafile hf transformers safetensors onnx "
    "openvino ov mlc h6 h8 imat imatrix i1 static quantized quant quants unsloth marlin mtp "
    "flm gguf2 gguf4 vllm".split())
# A quantisation, container or packaging in a name whose parts are joined by "-".
PACKAGING = re.compile(
    r"(?<=-)(?:(?:ud-)?(?:iq\d-(?:xxs|xs|nl-xl|nl|s|m|kss|ks|kt|k)"
    r"|[it]?q\d(?:-?k(?:-(?:xxs|xs|xl|s|m|l|p))?|-[01](?:-\d-\d)?)?)"
    r"|bf16|fp?16|fp?32|float16|float32|bfloat16"
    r"|(?:mx|nv)fp[468](?:-moe|-v\d)?|fp4|fp8(?:-(?:e4m3(?:fn)?|e5m2|dynamic|block|static|kv))?"
    r"|(?:awq|gptq)(?:-?(?:int)?\d(?:-?bits?|b(?=-g?\d{2,3}g?-))?)?(?:-marlin)?(?:-g?\d{2,3}g?)?"
    r"|gptqmodel-\dbit(?:-vortex-v\d)?"
    r"|auto-?round(?:-int4)?|hqq(?:-?\d-?bits?)?|bnb(?:-?\d-?bits?)?|nf4"
    r"|int[348](?:-(?:cw|mixed))?|int8mix(?:-lite)?|w\da\d{1,2}(?:-fp8)?"
    r"|\d(?:\.\d+)?-?bpw(?:-exl[23])?|exl[23](?:-\d(?:\.\d+)?(?:-?bpw)?)?"
    r"|mixed-\d-\d|[1-8](?:\.\d+)?-?bits?(?:-dwq(?:-\d{4,6})?)?(?:-gs?\d{2,3})?|dwq"
    r"|(?:ryzenai|onnx)-(?:\d\.\d-)?(?:hybrid|npu|cpu)|(?:cpu|npu)(?=-onnx)"
    r"|(?:asym-)?uint4(?:-asym)?(?:-g\d+)?|lmhead"
    r"|vllm-(?:low|high)conc|apex(?:-i)?-(?:balanced|quality|compact|mini)|apex(?=-(?:gguf-)?$)"
    r"|(?:iq|arm)(?:-arm)?-imatrix|mlc-1k|q\df(?:16|32)(?:-\d)?"
    rf"|{'|'.join(sorted(CONTAINERS, key=len, reverse=True))}"
    r"|(?:gs?|group-?size-?)(?:32|64|128)|128g)(?=-)")
# Packaging that makes other weights of one model: the row stays apart, the block does not.
BUILDS = {"i1": "imatrix", "imat": "imatrix", "imatrix": "imatrix", "mtp": "mtp", "flm": "flm",
          "hybrid": "hybrid", "npu": "npu", "cpu": "cpu", "lowconc": "lowconc",
          "highconc": "highconc"}
SIZE = re.compile(r"(?:\d+x)?\d+(?:\.\d+)?[bm]|e\d+b")
TUNES = {"instruct": "instruct", "it": "instruct", "chat": "instruct", "inst": "instruct",
         "base": "base", "pt": "base", "pretrained": "base"}


@functools.lru_cache(maxsize=65536)
def model_name(text: str, engine: str = "") -> ModelName:
    """Take a served name, a file name or a repository apart. engine: folded name of the engine."""
    path, owner, from_ollama = _location(text, engine)
    file_owner = ""
    if not from_ollama:
        path, cached, file_owner = _file_owner(path)
        owner = owner or cached
    quant_after_at = ""
    path, _, revision = path.partition("@")
    if PACKAGING.search(f"-{_joined(revision)}-"):
        quant_after_at, revision = f"-{revision}", ""
    base, _, tag = path.partition(":")
    if re.fullmatch(r"\d{1,2}", tag) and not from_ollama or tag in ("latest", "*"):
        tag = ""
    if re.search(FILE_ENDING, tag, re.IGNORECASE):         # repository:file
        tag = "-".join(PACKAGING.findall(f"-{_joined(tag)}-"))
    name = _joined(base + (f"-{tag}" if tag else "") + quant_after_at)
    if engine == "lemonade" and "onnx" not in name:
        # Qwen3-8B-Hybrid is amd/Qwen3-8B-onnx-ryzenai-1.7-hybrid.
        name = re.sub(r"-(hybrid|npu|cpu)$", r"-ryzenai-\1", name)
    quant, words, packaging = _without_packaging(name)
    in_mlx = "mlx" in packaging or owner.startswith("mlx-community") or engine in (
        "mlx", "mlxlm", "mlxserver", "mlxomni", "mlxengine")
    repository = None
    if owner:
        repository = owner if "/" in owner else f"{owner}/{base.lower()}"
        repository = f"ollama:{repository}" if from_ollama else repository
        repository += f"@{revision.lower()}" if revision not in ("", "main") else ""
    in_library = from_ollama and not owner
    canonical, tune = _canonical(
        words, in_library, in_library or engine == "lmstudio" and owner in tables.CATALOG_OWNERS,
        bool(owner or file_owner or engine == "lemonade") and not from_ollama)
    generic = canonical in GENERIC_NAMES or not owner and not tag and is_generic_model(base)
    builds = {BUILDS[word] for part in packaging for word in part.split("-") if word in BUILDS}
    return ModelName(None if generic or not canonical else canonical, tune, repository,
                     quantization(quant, in_mlx) if quant else None, in_mlx,
                     " ".join(filter(None, (file_owner, *sorted(builds)))))


def _file_owner(path: str) -> tuple[str, str, str]:
    """(name, repository or "", owner or "") of a file name that contains them: llama.cpp's cache
    writes owner_repository_file, and bartowski publishes Owner_Model-Q4_K_M.gguf."""
    cached = re.fullmatch(r"([^_/]+)_([^/]+?-gguf)_([^/]+)", path, re.IGNORECASE)
    name, repository = (cached[3], f"{cached[1]}/{cached[2]}".lower()) if cached else (path, "")
    named = re.fullmatch(r"([a-z][a-z0-9\-]*)_([a-z]{3}[^/]*-.+)", name, re.IGNORECASE)
    if not named:
        return name, repository, ""
    owner, model = re.sub(r"[^a-z0-9]", "", named[1].lower()), named[2].lower()
    is_tune = _family(model) in tables.FAMILIES and not re.search(
        "abliterated|uncensored|heretic", model)      # MyTune_Qwen3-8B is a model of its own
    if owner not in tables.MAKERS and (
            is_tune or owner.startswith(tuple(tables.FAMILIES)) or not SIZE.search(model)
            or any(SIZE.fullmatch(word) for word in named[1].lower().split("-"))):
        return name, repository, ""
    return named[2], repository, named[1].lower()


def _family(name: str) -> str:
    """The letters that a lower-case name begins with: qwen of qwen3-8b."""
    return re.split(r"[^a-z]", name)[0]


def _location(text: str, engine: str) -> tuple[str, str, bool]:
    """(name with its tag, owner or "", whether it is a name in Ollama's library or a namespace)."""
    path = text.strip().replace("\\", "/")
    cached = re.search(r"models--([^/]+?)--([^/]+)", path)
    if cached:
        return cached[2], cached[1].lower(), False
    from_hub, in_library, is_path = False, engine == "ollama", bool(
        re.match(r"[/~.]|[a-zA-Z]:/", path))
    lower, cut = path.lower(), True
    while cut:
        cut = False
        for host in tables.HOSTS:
            if lower.startswith(host):
                in_library = in_library or host in (
                    "ai/", "library/", "registry.ollama.ai/", "ollama.com/", "ollama://")
                from_hub = from_hub or "hf" in host or "hugging" in host or "modelscope" in host
                path, lower, cut = path[len(host):], lower[len(host):], True
    if is_path or path.count("/") == 0:
        name = path.rstrip("/").rpartition("/")[2]
        is_file = re.search(FILE_ENDING, name, re.IGNORECASE)
        return name, "", in_library and not is_file
    parts = [part for part in path.partition("?")[0].split("/") if part]
    if len(parts) > 3 and parts[2] in ("tree", "blob", "resolve"):
        parts = [*parts[:2], *parts[4:]]
    if len(parts) > 3 and not _without_packaging(_joined(parts[-2]))[1]:
        del parts[-2]                    # owner/repository/UD-Q4_K_XL/part of the file
    if len(parts) > 2 and re.search(FILE_ENDING, parts[-1], re.IGNORECASE):
        return parts[-1], f"{parts[-3]}/{parts[-2]}".lower(), False
    if re.search(FILE_ENDING, parts[-1], re.IGNORECASE):
        return parts[-1], "", False
    return parts[-1], parts[-2].lower() if len(parts) > 1 else "", in_library and not from_hub


def _joined(name: str) -> str:
    """Lower case, without extension and number of the part, parts joined by "-"."""
    lower = re.sub(FILE_ENDING, "", name.strip().lower())
    lower = re.sub(r"(exl[23])[_-](\d)_(\d)(?!\d)", r"\1-\2.\3", lower)
    lower = re.sub(r"-0\d{4}-of-0\d{4}", "", lower)
    lower = re.sub(r"(?<![q0-9_.])(?<!exl)(\d)_(\d+[bm]?)(?![a-z0-9_])", r"\1.\2", lower)
    lower = re.sub(r"\.(?=(i1-|ud-)?(gguf\d|i?q\d|b?f16|fp16|f32|mxfp4|imat|w\da\d))", "-", lower)
    return re.sub(r"[\s_\-:+()\[\],]+", "-", lower).strip("-.")


def _without_packaging(name: str) -> tuple[str, list[str], list[str]]:
    """(formats, words of the name, all packaging)."""
    found: list[str] = []
    rest = f"-{name}-"
    while True:
        match = PACKAGING.search(rest)
        if not match:
            break
        found.append(match[0])
        rest = rest[:match.start()] + rest[match.end() + 1:]
    formats = [part for part in found
               if part not in CONTAINERS and part.rpartition("-")[2] not in BUILDS]
    return "-".join(formats), [word for word in rest.split("-") if word], found


def _canonical(words: list[str], in_library: bool, in_catalog: bool,
               is_repository: bool) -> tuple[str, str]:
    """(canonical words with the size last, tune). in_library: a name in Ollama's library.
    in_catalog: a name in a list of chat models."""
    if any(word.startswith("ernie") for word in words[:2]):     # its -PT means PyTorch
        words = [word for word in words if word not in ("pt", "paddle")]
    tune = next((TUNES[word] for word in words if word in TUNES), "")
    if in_library and "text" in words:
        tune, words = "base", [word for word in words if word != "text"]
    split: list[str] = []
    for word in _without_maker([word for word in words if word not in TUNES]):
        version = re.fullmatch(r"([a-z]{2,})(\d+(?:\.\d+)?)(n|[a-z]{2,})?", word)
        if version and not SIZE.fullmatch(word):
            suffix = version[3] or ""
            split += [version[1], version[2] + "n"] if suffix == "n" else \
                [part for part in (version[1], version[2], suffix) if part]
        else:
            split.append(word)
    sizes = [re.sub(r"\.0(?=[bm])", "", word) for word in split if SIZE.fullmatch(word)]
    family = "-".join(
        re.sub(r"^(\d+)\.0$", r"\1", word) if split[0] in ("gemma", "qwen", "llama", "granite")
        else word for word in split if not SIZE.fullmatch(word))
    family = re.sub(r"^gptoss", "gpt-oss", family)
    family = re.sub(r"\b(qwen|llama)-distill\b", r"distill-\1", family)
    if in_library and not sizes and family in tables.OLLAMA_SIZES:
        sizes = [tables.OLLAMA_SIZES[family]]
    if not sizes and family in tables.ONLY_SIZES:
        sizes = [tables.ONLY_SIZES[family]]
    name = "-".join([family, *sizes] if family else sizes)
    if in_library:
        name = tables.OLLAMA_NAMES.get(f"{name} {tune}", tables.OLLAMA_NAMES.get(name, name))
    name = tables.OTHER_NAMES.get(name, name)
    if not tune:
        tune = _unmarked_tune(family, in_catalog, is_repository)
    return name, tune


def _without_maker(words: list[str]) -> list[str]:
    """Without the maker in front of one of its own families: meta-llama-3 is llama-3."""
    if len(words) > 1 and words[0] in tables.QUANTIZERS:
        words = words[1:]
    for count in (2, 1):
        families = tables.MAKERS.get("".join(words[:count]), "").split()
        if families and len(words) > count and (
                words[count] == words[0] or _family(words[count]) in families):
            return _without_maker(words[count:])
    return words


def _unmarked_tune(family: str, in_catalog: bool, is_repository: bool) -> str:
    """Tune of a name without one: catalogs list chat models, makers differ."""
    def among(families: Iterable[str]) -> bool:
        return any(family == one or family.startswith(f"{one}-") for one in families)

    if family in tables.ONLY_BASE:
        return "base"
    if in_catalog or among(tables.UNMARKED_IS_INSTRUCT) or re.search(
            r"\b(think|thinking|reasoning|distill|hermes|dolphin|nemotron|tulu)\b", family):
        return "instruct"
    return "base" if is_repository and any(
        re.fullmatch(rf"{one}(-(v?\d[^-]*|coder|math|vision))*", family)
        for one in tables.UNMARKED_IS_BASE) else ""


# --- machines ------------------------------------------------------------------------------------
def _plain(text: str) -> str:
    lower = re.sub(r"\((?:r|tm|c)\)(?=-)", "", text.lower())
    lower = re.sub(r"\((?:r|tm|c)\)|[\u00ae\u2122]", " ", lower)
    return re.sub(r"\s+", " ", lower).strip()


@functools.lru_cache(maxsize=4096)
def cpu(text: str) -> str:
    """`AMD Ryzen 9 7950X 16-Core Processor` is `ryzen 9 7950x`."""
    name = re.sub(r"@.*| (?:w/|with) .*", " ", _plain(text))
    name = re.sub(r"\b\d+(?:st|nd|rd|th) gen(?:eration)?\b", " ", name)
    name = re.sub(r"\b(?:\d+|dual|triple|quad|six|eight|ten|twelve|sixteen)[- ]cores?\b", " ", name)
    name = re.sub(r"(?<![\w-])(?:intel|amd|apple|qualcomm|oryon|cpu|processor|genuine|authentic)\b"
                  r"| - ", " ", name)
    name = re.sub(r"\bcore (?=i\d)", " ", name)
    clock = re.search(r"@ *([\d.]+ ?ghz)", _plain(text))
    if clock and not re.search(r"\d", name):     # a cloud reports no more than "Xeon @ 2.20GHz"
        name += f" {clock[1]}"
    return re.sub(r"\s+", " ", name).strip(" -,") or _plain(text)


MOBILE_CPU = re.compile(r"\b\d{3,5}(?:h|hs|hx|hk|hq|u|g\d|p|y|v|m)\b|\bn\d{2,3}\b|\bai max\b"
                        r"|\bai 9\b|\bz1\b|snapdragon|\bi\d-n\d+")


@functools.lru_cache(maxsize=4096)
def card(text: str, memory_is_known: bool) -> str:
    """`NVIDIA Corporation AD102 [GeForce RTX 4090]` is `rtx 4090`."""
    name = _plain(text).replace("max-q / mobile", "mobile")
    unnamed = re.match(r"(?:amd )?radeon graphics .*(gfx\d+)", name)
    name = unnamed[1] if unnamed else name
    name = re.sub(r"\((?:radv|radeonsi|llvm|gfx|drm|navi|bmg|dg2|nvgpu)[^)]*\)|/pcie/sse2| oam$",
                  " ", name)
    brackets = re.findall(r"\[([^\]/]+)\]", name)
    name = brackets[-1] if brackets else name
    name = re.sub(
        r"\b(?:nvidia|geforce|amd|ati|intel|apple|corporation|corp\.?|tesla|gpu|series"
        r"|graphics card|advanced micro devices,? inc\.?)(?!\w)|radeon (?=rx )", " ", name)
    if memory_is_known:
        name = re.sub(r"\b\d+ ?gi?b\b", " ", name)
    name = re.sub(r"\b([rg]tx|rx)(?=\d)", r"\1 ", name)           # RTX4090
    name = re.sub(r"(?<=\d{3})(?=(?:d|ti|xtx?|gre|super)\b)", " ", name)      # 5090D, 7900XTX
    name = re.sub(r"\bmobile\b", "laptop", name.replace("-", " "))
    if re.search(r"\barc (?:pro )?[ab]\d", name):
        name = name.replace("graphics", " ")
    return re.sub(r"\s+", " ", name).strip(" -,") or _plain(text)


INTEGRATED = re.compile(
    r"^(?:intel |amd )?graphics$|u?hd graphics|\biris\b|radeon (?:vega )?(?:\d+ )?graphics"
    r"|radeon (?:\w+ )?[678]\d0m|radeon 80[56]0s|vega (?:3|6|7|8|10|11)\b"
    r"|basic (?:display|render)|virtual|vmware|qxl|virtio|remote display|aspeed|matrox"
    r"|arc graphics|arc (?:pro )?1\d0[vt]\b|adreno|parsec")
# AMD's chips of cards. Source: LLVM's list of AMD GPU processors, "dGPU".
DISCRETE_CHIP = re.compile(r"(?i)gfx1(?:03[0-24]|10[0-2]|20[01])\b")


def is_integrated(text: str) -> bool:
    """Whether the name is that of graphics within a processor, or of no accelerator at all."""
    return bool(INTEGRATED.search(_plain(text))) and not DISCRETE_CHIP.search(text)


@functools.lru_cache(maxsize=4096)
def apple_system(text: str, chip: str) -> Optional[str]:
    """`MacBookAir10,1` and `MacBook Air (M1, 2020)` are `macbook air 13`; None if not Apple's."""
    for identifier in re.findall(r"[A-Za-z]+\d+,\d+", text):
        if identifier in tables.APPLE_MODELS:
            known, inches = tables.APPLE_MODELS[identifier]
            return f"{known} {inches or ''}".strip()
        if re.match(r"i?mac", identifier.lower()):
            return str(identifier).lower()
    found = re.search(r"macbook air|macbook pro|macbook|mac ?mini|mac ?studio|mac ?pro|imac",
                      text.lower())
    if not found:
        return None
    product = re.sub(r"mac ?(mini|studio|pro)", r"mac \1", found[0])
    inches_named = re.search(r"\b(\d\d)(?:\.\d)?(?:[- ]?inch|\")", text.lower())
    size = int(inches_named[1]) if inches_named else tables.APPLE_DEFAULT_INCHES.get(product)
    if product == "macbook pro" and size is None:
        size = {"m1": 13, "m2": 13, "m3": 14, "m4": 14, "m5": 14}.get(chip)
    return f"{product} {size or ''}".strip()


def system(text: str) -> str:
    """`Dell Inc. XPS 15 9520` is `dell xps 15 9520`."""
    words = re.sub(r"\brev \d+(?: \d+)?\b|\b(?:inc|co|ltd|corp|corporation|computer"
                   r"|international|technology)\b", " ",
                   re.sub(r"[.,_]", " ", _plain(text))).split()
    return " ".join(dict.fromkeys(words))


@functools.lru_cache(maxsize=4096)
def size_as_sold_gib(size_bytes: int, of_card: bool = False) -> float:
    """The size of memory that a machine with so many usable bytes was sold with, in GiB. Systems
    keep up to a tenth for themselves, another part with every version; sold are powers of two and
    their multiples by 9/8, 5/4, 3/2 and 7/4. The smallest of those that holds it. Cards keep less
    for themselves, and a few were sold with other sizes."""
    size = 0.25
    for odd in tables.CARD_SIZES_GIB if of_card else ():
        if 0.97 * odd < size_bytes / GIB <= odd:
            return odd
    while True:
        for eighths in (8, 9, 10, 12, 14):
            if size * eighths / 8 * GIB >= size_bytes:
                return size * eighths / 8
        size *= 2
