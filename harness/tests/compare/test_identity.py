"""Which runs are one row, one block, or apart: pairs of changes to one submission."""
from __future__ import annotations

import copy
import unittest
import uuid
from typing import Any, Optional, Union

from compare import entries, ranking
from machine import inventory
from tests import made_submissions
from tests.made_submissions import DESKTOP, GIB, MAC, Spec

Json = dict[str, Any]
Changes = dict[str, Any]

A, B = "a" * 64, "b" * 64
BASE = made_submissions.make(Spec(phases="5q"), {"runtime.backend": "metal"})
FILE = "Qwen2.5-7B-Instruct-Q4_K_M.gguf"
CPU_ONLY = {**DESKTOP, "accelerators": []}
CPU: Changes = {"probed": CPU_ONLY, "runtime.backend": "cpu", "gpu_offload_ratio": 0}
CARD = DESKTOP["accelerators"][0]
PC: Changes = {"probed": DESKTOP, "runtime.backend": "cuda", "gpu_offload_ratio": 1.0}


def submission(changes: Changes, run: int) -> entries.Submission:
    """The base run with some values changed.

    Keys: `probed` and `hardware.PATH` for the machine, `runtime.NAME`, `tag`, `class`, `model` for
    the served name, else a fact of the model.
    """
    made = made_submissions.Made(*copy.deepcopy(BASE))
    metadata = made.metadata
    hardware = inventory.assemble(changes.get("probed", MAC))
    made.manifest["run_id"] = metadata["run_id"] = str(uuid.UUID(int=run))
    model = metadata["models"][0]
    for name, value in changes.items():
        fact = {"value": value, "source": None if value is None else "server",
                "reason": "not reported" if value is None else None}
        if name == "model":
            model["model"] = value
            for cell in metadata["cells"]:
                cell["model"] = value
        elif name == "tag":
            metadata["device_tag"] = value
        elif name == "handle":
            metadata["submitter_handle"] = value
        elif name == "class":
            metadata["endpoint"]["class"] = value
        elif name.startswith("hardware."):
            at: Any = hardware
            *path, last = name.split(".")[1:]
            for part in path:
                at = at[int(part) if part.isdigit() else part]
            at[last] = {**fact, "source": "probed" if value is not None else None}
        elif name.startswith("runtime."):
            metadata["runtime"][name.partition(".")[2]] = fact
        elif name.startswith("declared."):
            model[name.partition(".")[2]] = {**fact, "source": "declared"}
        elif name != "probed":
            model[name] = fact
    return entries.read_submission(made.manifest, metadata, hardware)


def relation(a: Changes, b: Changes) -> str:
    """"row", "block" or "apart"."""
    rows = [row for row in ranking.make_rows([submission(a, 1), submission(b, 2)])
            if row.phase == "5q"]
    if len(rows) == 1:
        return "row"
    return "block" if rows[0].block == rows[1].block else "apart"


def quants(a: str, b: str, **both: Any) -> tuple[Changes, Changes]:
    return {"quantization": a, **both}, {"quantization": b, **both}


def served(a: Union[str, Changes], b: Union[str, Changes], engine: str = "llama.cpp",
           other: Optional[str] = None, **both: Any) -> tuple[Changes, Changes]:
    """Two served names, on one engine or two."""
    changes = [{"model": one} if isinstance(one, str) else one for one in (a, b)]
    return ({"runtime.name": engine, **changes[0], **both},
            {"runtime.name": other or engine, **changes[1], **both})


def machines(a: Changes, b: Changes, **both: Any) -> tuple[Changes, Changes]:
    return {**PC, **both, **a}, {**PC, **both, **b}


def on_cpu(a: Changes, b: Changes) -> tuple[Changes, Changes]:
    return {**CPU, **a}, {**CPU, **b}


def macs(a: Changes, b: Changes) -> tuple[Changes, Changes]:
    return {"probed": MAC, **a}, {"probed": MAC, **b}


def cards(*named: str, size: int = 24) -> Json:
    return {**DESKTOP, "accelerators": [
        {**CARD, "model_name": name, "memory_bytes": size * GIB} for name in named]}


def with_cpu(name: str) -> Changes:
    return {"hardware.cpu.model_name": name}


IGPU = {"model_name": "AMD Radeon(TM) Graphics", "vendor": "AMD", "memory_bytes": GIB // 2}

ROWS: dict[str, tuple[Changes, Changes]] = {
    **{f"quant {a} = {b}": quants(a, b) for a, b in (
        ("Q4_K_M", "q4_k_m"), ("Q4_K_M", "Q4_K - Medium"), ("F16", "fp16"), ("F16", "float16"),
        ("BF16", "bfloat16"), ("Q8_0", "q8_0"), ("MXFP4", "MXFP4_MOE"),
        ("IQ4_XS", "IQ4_XS - 4.25 bpw"), ("UD-Q4_K_XL", "ud-q4_k_xl"), ("4bit", "4-bit"),
        ("AWQ", "awq-int4"), ("GPTQ", "gptq-4bit"), ("FP8", "fp8_e4m3"), ("NVFP4", "nvfp4"),
        ("Q5_K_M", "q5_k"), ("Q3_K_L", "Q3_K - Large"), ("Q2_K", "Q2_K - Medium"),
        ("IQ2_XXS", "IQ2_XXS - 2.0625 bpw"), ("MXFP4", "MXFP4 MoE"), ("AWQ", "awq_marlin"),
        ("GPTQ-Int4", "gptq_marlin"), ("F32", "all F32"), ("FP8", "FP8-dynamic"),
        ("INT8", "W8A8"), ("INT4", "w4a16"), ("BNB-4", "bnb-4bit"), ("nf4", "bnb-4bit"),
        ("EXL3-4.0bpw", "4.0bpw-exl3"),
        ("4.0bpw", "exl2-4.0bpw"), ("4bpw", "4.0bpw-exl2"), ("Q6_K", "q6_k"),
        ("NVFP4", "modelopt_fp4"),
        ("HQQ-4", "HQQ-4bit"), ("Q4_K_M", "Q4_K - Medium (guessed)"), ("INT8", "W8A8-INT8"),
        ("TQ2_0", "TQ2_0 - 2.06 bpw ternary"), ("F8_E4M3", "FP8"),
        ("gguf-q4-k-m", "Q4_K_M"), ("mlx-4bit", "MLX-4"))},
    "one digest, format of one unknown": served(
        {"model": "gpt-4o", "quantization": None}, {"model": FILE, "quantization": "Q4_K_M"},
        digest=A),
    "an Ollama tag with and without details, one digest": served(
        "qwen2.5:7b", "qwen2.5:7b-instruct-q4_K_M", "Ollama", digest=A, quantization="Q4_K_M"),
    "latest and 7b, one digest": served("qwen2.5:latest", "qwen2.5:7b", "Ollama", digest=A),
    "with and without latest": served("llama3.2", "llama3.2:latest", "Ollama", digest=A),
    "alias default = file name, one digest": served("default", FILE, digest=A),
    "alias gpt-3.5-turbo = file name, one digest": served("gpt-3.5-turbo", FILE, digest=A),
    "alias gpt-4o = file name, one digest": served("gpt-4o", FILE, digest=A),
    "alias local-model = file name, one digest": served("local-model", FILE, digest=A),
    "default with a declared name = that name": served(
        {"model": "default", "declared.name": "Qwen2.5 7B Instruct"}, "Qwen2.5-7B-Instruct"),
    "bits of a repository in EXL3": (
        {"quantization": "4.0bpw", "file_name": "Qwen2.5-7B-Instruct-exl3-4.0bpw"},
        {"quantization": "EXL3-4.0bpw", "file_name": "Qwen2.5-7B-Instruct-exl3-4.0bpw"}),
    "a later model by its tag's header = by its name": served(
        {"model": "qwen3:4b", "name": "Qwen3 4B Thinking 2507"}, "qwen3:4b-thinking", "Ollama"),
    "words of the file's header once": served(
        {"model": "my-helper:latest", "name": "Qwen3-4B-Instruct-2507 4B Instruct 2507"},
        "qwen3:4b-instruct-2507-q4_K_M", "Ollama"),
    "a name in the file's header = that name": served(
        {"model": "my-helper:latest", "name": "Qwen2.5 7B Instruct"}, "qwen2.5:7b", "Ollama"),
    "an MLX format reported = MLX in the name": (
        {"quantization": "4bit", "file_format": "mlx"}, {"quantization": "MLX-4bit",
                                                         "file_format": "mlx"}),
    "no draft model, reported or in the launch flags": (
        {"draft_model": "none"}, {"draft_model": "none", "speculative": None}),
    "KV cache on the card, reported or not": ({"runtime.kv_cache_offloaded": True}, {}),
    "file name in other case, one digest": served(FILE, FILE.lower(), digest=A),
    "file name in other case": served(FILE, FILE.upper()),
    "with and without .gguf": served(FILE, FILE[:-5]),
    "first of two parts and name without parts": served(
        "Qwen2.5-72B-Instruct-Q4_K_M-00001-of-00002.gguf", "Qwen2.5-72B-Instruct-Q4_K_M"),
    "path and file name": served(f"/srv/models/{FILE}", FILE),
    "repository = alias with declared repository": served(
        "Qwen/Qwen2.5-7B-Instruct", {"model": "qwen", "declared.source_repository":
                                     "Qwen/Qwen2.5-7B-Instruct"}, "vLLM"),
    "repository = its address": served(
        {"model": "x", "source_repository": "https://huggingface.co/Qwen/Qwen2.5-7B-Instruct"},
        {"model": "x", "source_repository": "Qwen/Qwen2.5-7B-Instruct"}, "SGLang"),
    "Meta-Llama = Llama, one digest": served("Meta-Llama-3.1-8B-Instruct", "Llama-3.1-8B-Instruct",
                                             digest=A),
    "digest with and without sha256:": ({"digest": A}, {"digest": f"sha256:{A}"}),
    "digest as a file name of a blob": ({"digest": f"sha256-{A}"}, {"digest": A}),
    "address of a file = its repository": (
        {"source_repository": "https://huggingface.co/Qwen/Qwen2.5-7B-Instruct-GGUF/resolve/main/"
         f"{FILE}?download=true"},
        {"source_repository": "Qwen/Qwen2.5-7B-Instruct-GGUF"}),
    "file in a repository and its format": served(
        f"bartowski/Qwen2.5-7B-Instruct-GGUF/{FILE}",
        "bartowski/Qwen2.5-7B-Instruct-GGUF:Q4_K_M", quantization=None),
    "digest in capitals": ({"digest": A.upper()}, {"digest": A}),
    "digest in short form": ({"digest": A[:12]}, {"digest": A}),
    "tags of one Mac": macs({"tag": "mac-m1-8gb"}, {"tag": "macbook-air-m1-8gb"}),
    "tags of one desktop": machines({"tag": "rtx4090"}, {"tag": "rtx4090-24gb-64gb"}),
    "two owners": machines({"handle": "ada"}, {"handle": "bob"}),
    **{f"CPU {a} = {b}": machines(with_cpu(a), with_cpu(b)) for a, b in (
        ("AMD Ryzen 9 7950X", "AMD Ryzen 9 7950X 16-Core Processor"),
        ("12th Gen Intel(R) Core(TM) i7-12700K", "Intel(R) Core(TM) i7-12700K CPU @ 3.60GHz"),
        ("AMD Ryzen 5 5600G with Radeon Graphics", "AMD Ryzen 5 5600G"),
        ("Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz", "Intel Xeon E5-2680 v4"),
        ("13th Gen Intel(R) Core(TM) i9-13900K", "Intel Core i9-13900K"),
        ("AMD Ryzen Threadripper PRO 5995WX 64-Cores", "AMD Ryzen Threadripper PRO 5995WX"),
        ("AMD EPYC 7763 64-Core Processor", "AMD EPYC 7763"),
        ("AMD FX(tm)-8350 Eight-Core Processor", "AMD FX-8350"),
        ("Intel(R) Core(TM) Ultra 7 265K", "Intel Core Ultra 7 265K"),
        ("AMD Ryzen 7 7840HS w/ Radeon 780M Graphics", "AMD Ryzen 7 7840HS"),
        ("Snapdragon(R) X Elite - X1E78100 - Qualcomm(R) Oryon(TM) CPU",
         "Snapdragon X Elite X1E78100"))},
    **{f"card {a} = {b}": machines({"probed": cards(a)}, {"probed": cards(b)}) for a, b in (
        ("GeForce RTX 4090", "NVIDIA GeForce RTX 4090"), ("RTX4090", "RTX 4090"),
        ("GeForce RTX 5090D", "NVIDIA GeForce RTX 5090 D"), ("RTX 4090", "NVIDIA GeForce RTX 4090"),
        ("NVIDIA Corporation AD102 [GeForce RTX 4090]", "NVIDIA GeForce RTX 4090"),
        ("Radeon RX 7900 XTX", "AMD Radeon RX 7900 XTX"),
        ("AMD Radeon(TM) RX 7900 XTX", "AMD Radeon RX 7900 XTX"),
        ("Intel(R) Arc(TM) A770 Graphics", "Intel Arc A770"),
        ("Tesla T4", "NVIDIA T4"), ("NVIDIA RTX A6000", "RTX A6000"),
        ("NVIDIA A100 80GB PCIe", "NVIDIA A100-PCIE-80GB"), ("Tesla P40", "NVIDIA Tesla P40"),
        ("AMD Radeon RX 7900 XTX (RADV NAVI31)", "AMD Radeon RX 7900 XTX"),
        ("Intel(R) Arc(TM) B580 Graphics", "Intel Arc B580"),
        ("NVIDIA GeForce RTX 3060 12GB", "NVIDIA GeForce RTX 3060"),
        ("Advanced Micro Devices, Inc. [AMD/ATI] Navi 31 [Radeon RX 7900 XTX]",
         "AMD Radeon RX 7900 XTX"), ("Intel Corporation DG2 [Arc A770]", "Intel Arc A770"),
        ("NVIDIA GeForce GTX 1660 SUPER", "GeForce GTX 1660 Super"),
        ("AMD Instinct MI300X OAM", "AMD Instinct MI300X"),
        ("Intel(R) Arc(tm) B580 Graphics (BMG G21)", "Intel(R) Arc(TM) B580 Graphics"),
        ("Intel(R) Arc(TM) Pro B60 Graphics", "Intel Arc Pro B60"),
        ("NVIDIA GeForce RTX 3090/PCIe/SSE2", "NVIDIA GeForce RTX 3090"),
        ("AMD Radeon RX 7900 XTX (radeonsi, navi31, LLVM 19.1.0, DRM 3.59)",
         "AMD Radeon RX 7900 XTX"),
        ("NVIDIA Corporation GB203M / GN22-X9 [GeForce RTX 5080 Max-Q / Mobile]",
         "NVIDIA GeForce RTX 5080 Laptop GPU"),
        ("AMD Radeon Graphics (RADV GFX1201)", "Radeon Graphics (GFX1201)"))},
    **{f"graphics of a processor {a} = {b}": on_cpu(
        {"probed": {**DESKTOP, "accelerators": [{"model_name": a}]}},
        {"probed": {**DESKTOP, "accelerators": [{"model_name": b}]}}) for a, b in (
            ("Radeon 8060S Graphics (RADV STRIX_HALO)", "AMD Radeon 8060S"),
            ("AMD Radeon Graphics", "AMD Radeon(TM) 8060S Graphics"),
            ("AMD Radeon Graphics (RADV GFX1103_R1)", "AMD Radeon 780M"),
            ("Orin (nvgpu)", "NVIDIA Orin"))},
    "revision of a board": on_cpu(
        {"hardware.system.kind": "sbc", "hardware.system.model_name":
         "Raspberry Pi 5 Model B Rev 1.0"},
        {"hardware.system.kind": "sbc", "hardware.system.model_name":
         "Raspberry Pi 5 Model B Rev 1.1"}),
    **{f"power limit {a} = {b}": machines({"hardware.accelerators.0.power_limit_w": a},
                                          {"hardware.accelerators.0.power_limit_w": b})
       for a, b in ((450, 449.8), (449.8, 451), (450.6, 449.2))},
    "graphics of the processor listed or not": machines(
        {"probed": {**DESKTOP, "accelerators": [CARD, IGPU]}}, {"probed": DESKTOP}),
    "Intel's graphics without memory listed or not": machines(
        {"probed": {**DESKTOP, "accelerators": [
            {"model_name": "Intel(R) UHD Graphics 770", "vendor": "Intel"}, CARD]}},
        {"probed": DESKTOP}),
    "nameless graphics of the processor listed or not": machines(
        {"probed": {**DESKTOP, "accelerators": [CARD, {
            "model_name": "Intel(R) Graphics", "vendor": "Intel", "memory_bytes": GIB // 8}]}},
        {"probed": DESKTOP}),
    "board of a desktop named or not": machines(
        {"hardware.system.model_name": "ASUS ROG STRIX X670E-E"},
        {"hardware.system.model_name": None}),
    "usable memory": machines({"hardware.memory.capacity_bytes": 65_100_000_000},
                              {"hardware.memory.capacity_bytes": 66_000_000_000}),
    "power mode balanced or unknown": machines({"hardware.power.mode": "balanced"},
                                               {"hardware.power.mode": None}),
    "type of memory beside a card reported or not": machines(
        {"hardware.memory.type": "DDR5"}, {"hardware.memory.type": None}),
    "version with v": ({"runtime.version": "v0.33.3"}, {"runtime.version": "0.33.3"}),
    "version with the build's commit": ({"runtime.version": "b6800"},
                                        {"runtime.version": "6800 (5b3d1f2)"}),
    "version with the build's CUDA": ({"runtime.version": "0.11.0"},
                                      {"runtime.version": "0.11.0+cu128"}),
    "engine in capitals": ({"runtime.name": "Ollama"}, {"runtime.name": "ollama"}),
    **{f"Mac {a} = {b}": macs({"hardware.system.model_name": a}, {"hardware.system.model_name": b})
       for a, b in (("MacBookAir10,1", "Apple MacBook Air (M1, 2020)"),
                    ("MacBook Air (MacBookAir10,1)", "MacBook Air"),
                    ("Mac14,3", "Mac mini (M2, 2023)"), ("Mac13,1", "Mac Studio (2022)"),
                    ("MacBookPro18,3", "MacBook Pro (14-inch, 2021)"),
                    ("MacBookPro17,1", "MacBook Pro (13-inch, M1, 2020)"),
                    ("Mac17,7", "MacBook Pro (14-inch, M5 Max)"))},
    "KV cache named once or twice": ({"runtime.kv_cache_type": "q8_0"},
                                     {"runtime.kv_cache_type": "q8_0/q8_0"}),
    "KV cache f16 = fp16": ({"runtime.kv_cache_type": "f16"}, {"runtime.kv_cache_type": "fp16"}),
    "KV cache fp8 = fp8_e4m3": ({"runtime.kv_cache_type": "fp8"},
                                {"runtime.kv_cache_type": "fp8_e4m3"}),
    "all layers on the card, as any large number": ({"runtime.launch_flags": "-ngl 99"},
                                                    {"runtime.launch_flags": "-ngl 999"}),
    "default named and left out, launch flags known": (
        {"runtime.launch_flags": "-t 4", "runtime.kv_cache_type": "f16"},
        {"runtime.launch_flags": "-t 4"}),
    "context of one class": ({"context_effective_tokens": 4096},
                             {"context_effective_tokens": 5000}),
}

# Model and engine, and the same model as another engine names it.
ONE_MODEL = """
qwen2.5:7b  Ollama  Qwen2.5-7B-Instruct-Q4_K_M.gguf  llama.cpp
qwen2.5:7b  Ollama  qwen2.5-7b-instruct  LM Studio
qwen2.5:7b  Ollama  koboldcpp/Qwen2.5-7B-Instruct-Q4_K_M  KoboldCpp
qwen2.5:7b  Ollama  hf.co/bartowski/Qwen2.5-7B-Instruct-GGUF:Q4_K_M  Ollama
qwen2.5:7b  Ollama  mlx-community/Qwen2.5-7B-Instruct-4bit  mlx-lm
qwen2.5:7b  Ollama  Qwen/Qwen2.5-7B-Instruct-AWQ  vLLM
gpt-oss:20b  Ollama  openai/gpt-oss-20b  vLLM
llama3.1:8b  Ollama  Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf  llama.cpp
gemma3:4b  Ollama  google/gemma-3-4b-it  SGLang
gemma3:4b  Ollama  google_gemma-3-4b-it-Q4_K_M.gguf  llama.cpp
qwen3:8b  Ollama  Qwen_Qwen3-8B-Q4_K_M.gguf  llama.cpp
qwen3:30b-a3b  Ollama  Qwen/Qwen3-30B-A3B  vLLM
mistral:7b  Ollama  Mistral-7B-Instruct-v0.3.Q4_K_M.gguf  llama.cpp
mixtral:8x7b  Ollama  mistralai/Mixtral-8x7B-Instruct-v0.1  TGI
phi4  Ollama  microsoft/phi-4  vLLM
phi4-mini  Ollama  Phi-4-mini-instruct-Q4_K_M.gguf  llama.cpp
llama3.2  Ollama  mlx-community/Llama-3.2-3B-Instruct-4bit  mlx-lm
llama3.2-vision:11b  Ollama  meta-llama/Llama-3.2-11B-Vision-Instruct  vLLM
deepseek-r1:7b  Ollama  DeepSeek-R1-Distill-Qwen-7B-Q4_K_M.gguf  llama.cpp
gemma3n:e4b  Ollama  unsloth/gemma-3n-E4B-it-GGUF:Q4_K_M  llama.cpp
stablelm2:1.6b  Ollama  stablelm-2-1_6b-chat  llama.cpp
smollm2:135m  Ollama  HuggingFaceTB/SmolLM2-135M-Instruct  vLLM
tinyllama  Ollama  TinyLlama-1.1B-Chat-v1.0-Q4_0.gguf  llamafile
qwen2.5vl:7b  Ollama  Qwen/Qwen2.5-VL-7B-Instruct  vLLM
codellama:7b  Ollama  CodeLlama-7b-Instruct-hf  vLLM
qwen3-coder:30b  Ollama  Qwen3-Coder-30B-A3B-Instruct-UD-Q4_K_XL.gguf  llama.cpp
hermes3:8b  Ollama  NousResearch/Hermes-3-Llama-3.1-8B  vLLM
llama3.1:8b  Ollama  turboderp/Llama-3.1-8B-Instruct-exl3:4.0bpw  TabbyAPI
llama3.2:3b  Ollama  ai/llama3.2:3B-Q4_K_M  Docker Model Runner
llama3.2:3b  Ollama  Llama-3_2-3B-Instruct-IQ4_XS  Jan
qwen2.5:7b  Ollama  Qwen2_5-7B-Instruct-IQ4_XS  Jan
llama3.2:3b  Ollama  Llama-3.2-3B-Instruct.Q6_K.llamafile  llamafile
mistral:7b  Ollama  TheBloke_Mistral-7B-Instruct-v0.3-GPTQ  TGWUI
llama3.1:8b  Ollama  Llama-3.1-8B-Instruct-4.0bpw-h6-exl2  TabbyAPI
qwen2.5:7b  Ollama  OpenVINO/Qwen2.5-7B-Instruct-int4-ov  OVMS
qwen2.5:7b  Ollama  Qwen2.5-7B-Instruct-q4f16_1-MLC  MLC
gemma3:4b  Ollama  google/gemma-3-4b  LM Studio
llama3.1:8b  Ollama  RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8  vLLM
# Other people's spellings: hubs, quantizers, LM Studio's keys, other tables of tags.
granite3.3:8b  Ollama  ibm-granite/granite-3.3-8b-instruct  vLLM
mistral-small3.1  Ollama  mistralai/Mistral-Small-3.1-24B-Instruct-2503  vLLM
qwen3:14b  Ollama  lmstudio-community/Qwen3-14B-MLX-4bit  LM Studio
qwen3:8b  Ollama  qwen/qwen3-8b@4bit  LM Studio
qwen3:8b  Ollama  cyankiwi/Qwen3-8B-AWQ-4bit  vLLM
llama3.3:70b  Ollama  unsloth/Llama-3.3-70B-Instruct-bnb-4bit  vLLM
llama3.1:70b  Ollama  hugging-quants/Meta-Llama-3.1-70B-Instruct-AWQ-INT4  vLLM
llama3.1:8b  Ollama  neuralmagic/Meta-Llama-3.1-8B-Instruct-quantized.w4a16  vLLM
llama3.1:8b  Ollama  nvidia/Llama-3.1-8B-Instruct-NVFP4  SGLang
llama3.1:8b  Ollama  Meta-Llama-3.1-8B-Instruct-128k-Q4_0  GPT4All
llama3.2:3b  Ollama  Llama-3.2-3B-Instruct-llamafile  llamafile
gemma3:27b  Ollama  ISTA-DASLab/gemma-3-27b-it-GPTQ-4b-128g  vLLM
gemma3:1b  Ollama  mlx-community/gemma-3-1b-it-4bit-DWQ  mlx-lm
gemma3n:e2b  Ollama  google/gemma-3n-E2B-it-litert-lm  LiteRT
gemma2:9b  Ollama  gemma-2-9b-it-Q5_K_L.gguf  llama.cpp
deepseek-r1:32b  Ollama  casperhansen/deepseek-r1-distill-qwen-32b-awq  vLLM
qwen3-coder  Ollama  qwen/qwen3-coder-30b  LM Studio
codestral:22b  Ollama  bartowski/Codestral-22B-v0.1-GGUF  llama.cpp
openchat:7b  Ollama  openchat-3.5-0106.Q4_K_M.gguf  llama.cpp
command-r7b  Ollama  c4ai-command-r7b-12-2024-Q4_K_M.gguf  llama.cpp
devstral  Ollama  mistralai/Devstral-Small-2505  vLLM
exaone3.5:7.8b  Ollama  EXAONE-3.5-7.8B-Instruct-Q4_K_M.gguf  llama.cpp
olmo2:13b  Ollama  allenai/OLMo-2-1124-13B-Instruct-GGUF  llama.cpp
lfm2.5:1.2b  Ollama  LiquidAI/LFM2.5-1.2B-Instruct-GGUF:Q4_K_M  llama.cpp
dolphin3:8b  Ollama  cognitivecomputations/Dolphin3.0-Llama3.1-8B  vLLM
# llama.cpp's cache, bartowski's file names, LM Studio's catalog.
qwen3:8b  Ollama  bartowski_Qwen_Qwen3-8B-GGUF_Qwen_Qwen3-8B-Q4_K_M.gguf  llama.cpp
qwen3:8b  Ollama  /home/ann/.cache/llama.cpp/unsloth_Qwen3-8B-GGUF_Qwen3-8B-Q8_0.gguf  llama.cpp
qwen3:8b  Ollama  OpenVINO/Qwen3-8B-int4-cw-ov  OVMS
qwen3:8b  Ollama  Qwen3-8B-exl3_4.0bpw  TabbyAPI
qwen2.5:7b  Ollama  Qwen2.5-7B-Instruct-exl2_6_5  TabbyAPI
qwen3:8b  Ollama  mlx-community/Qwen3-8B-4bit-DWQ-053125  mlx-lm
qwen3:30b-a3b  Ollama  nvidia/Qwen3-30B-A3B-FP4  vLLM
qwen/qwen3-next-80b  LM Studio  Intel/Qwen3-Next-80B-A3B-Instruct-int4-mixed-AutoRound  vLLM
google/gemma-4-26b-a4b  LM Studio  google/gemma-4-26B-A4B-it  vLLM
gemma4:26b  Ollama  ggml-org/gemma-4-26B-A4B-it-GGUF:Q4_K_M  llama.cpp
llama4:16x17b  Ollama  meta-llama/Llama-4-Scout-17B-16E-Instruct  vLLM
deepseek-r1:14b-qwen-distill-q4_K_M  Ollama  DeepSeek-R1-Distill-Qwen-14B-Q4_K_M.gguf  llama.cpp
mistralai/mistral-small-3.2  LM Studio  mistralai/Mistral-Small-3.2-24B-Instruct-2506  vLLM
ministral-3:8b  Ollama  mistralai_Ministral-3-8B-Instruct-2512-Q4_K_M.gguf  llama.cpp
granite4:small-h  Ollama  ibm/granite-4-h-small  LM Studio
granite4.1:8b  Ollama  ibm-granite_granite-4.1-8b-Q4_K_M.gguf  llama.cpp
nvidia_NVIDIA-Nemotron-Nano-9B-v2-Q4_K_M.gguf  llama.cpp  nvidia/NVIDIA-Nemotron-Nano-9B-v2  vLLM
baidu/ERNIE-4.5-21B-A3B-PT  vLLM  baidu/ernie-4.5-21b-a3b  LM Studio
ByteDance-Seed_Seed-OSS-36B-Instruct-Q4_K_M.gguf  llama.cpp  bytedance/seed-oss-36b  LM Studio
olmo-3:7b-think  Ollama  allenai/Olmo-3-7B-Think  vLLM
speakleash_Bielik-11B-v3.0-Instruct-Q4_K_M.gguf  llama.cpp  speakleash/Bielik-11B-v3.0-Instruct  TGI
huihui-ai_Qwen3-8B-abliterated-Q4_K_M.gguf  llama.cpp  huihui_ai/qwen3-abliterated:8b-q4_K_M  Ollama
cogito:8b  Ollama  deepcogito/cogito-v1-preview-llama-8B  vLLM
# Tags whose default is another variant, builds of one engine, a repository with its file.
qwen3:4b-instruct  Ollama  Qwen/Qwen3-4B-Instruct-2507  vLLM
qwen3:30b-thinking  Ollama  Qwen/Qwen3-30B-A3B-Thinking-2507-FP8  SGLang
qwen3-vl:8b  Ollama  Qwen/Qwen3-VL-8B-Thinking  vLLM
qwen3-vl:8b-instruct  Ollama  qwen/qwen3-vl-8b@q4_k_m  LM Studio
command-r7b:7b  Ollama  CohereForAI/c4ai-command-r7b-12-2024  vLLM
starcoder2:3b  Ollama  bigcode/starcoder2-3b  vLLM
llama-guard3:8b  Ollama  meta-llama/Llama-Guard-3-8B  vLLM
marco-o1:7b  Ollama  AIDC-AI/Marco-o1  vLLM
nvidia/DeepSeek-R1-0528-NVFP4-v2  vLLM  DeepSeek-R1-0528-UD-IQ1_S-00001-of-00004.gguf  llama.cpp
/models/LoneStriker_Mixtral-8x7B-Instruct-v0.1-3.75bpw-h6-exl2  TabbyAPI  mixtral:8x7b  Ollama
library/smollm2:135m  ramalama  SmolLM2-135M-Instruct-Q8_0.gguf  llama.cpp
SmolLM3-Q4_K_M.gguf  llama.cpp  HuggingFaceTB/SmolLM3-3B  vLLM
nvidia/nemotron-3-nano  LM Studio  Nemotron-3-Nano-30B-A3B-UD-Q4_K_XL.gguf  llama.cpp
Qwen3-8B-Hybrid  Lemonade  amd/Qwen3-8B-awq-quant-onnx-ryzenai-1.7-hybrid  Lemonade
Llama-3.2-1B-Instruct-CPU  Lemonade  amd/Llama-3.2-1B-Instruct-awq-uint4-float16-cpu-onnx  Lemonade
llama3.1:8b  Ollama  Llama-3.1-8B-Instruct-q4f16_1-MLC-1k  MLC-LLM
llama3.1:8b  Ollama  amd/Llama-3.1-8B-Instruct-FP8-KV  vLLM
qwen3:8b  Ollama  unsloth/Qwen3-8B-GGUF:Qwen3-8B-Q4_1.gguf  Lemonade
Qwen3.6-35B-A3B-APEX-I-Balanced.gguf  llama.cpp  unsloth/Qwen3.6-35B-A3B-MTP-GGUF:Q4_K_M  llama.cpp
Qwen3.6-27B-Uncensored-Q5_K_P.gguf  llama.cpp  ann/Qwen3.6-27B-Uncensored  vLLM
bartowski/FINAL-Bench_Darwin-36B-Opus-GGUF:Q4_K_M  llama.cpp  Darwin-36B-Opus  vLLM
"""
BLOCKS: dict[str, tuple[Changes, Changes]] = {
    f"{a} ~ {b}": served(a, b, one, other) for a, one, b, other in (
        line.split("  ") for line in ONE_MODEL.splitlines() if line and line[0] != "#")}

APART: dict[str, tuple[Changes, Changes]] = {
    **{f"{a} / {b}": served(a, b) for a, b in (
        ("Qwen2.5-7B", "Qwen2.5-7B-Instruct"), ("Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-7B-Instruct"),
        ("Qwen2.5-7B-Instruct", "Qwen2.5-14B-Instruct"),
        ("Qwen2.5-Coder-7B-Instruct", "Qwen2.5-7B-Instruct"),
        ("Qwen2.5-7B-Instruct", "Qwen3-7B-Instruct"), ("Qwen3-4B", "Qwen3-4B-Instruct-2507"),
        ("DeepSeek-R1-Distill-Qwen-7B", "Qwen2.5-7B-Instruct"),
        ("DeepSeek-R1-Distill-Qwen-7B", "DeepSeek-R1-Distill-Llama-8B"),
        ("Qwen2.5-7B-Instruct-abliterated", "Qwen2.5-7B-Instruct"),
        ("Qwen2.5-VL-7B-Instruct", "Qwen2.5-7B-Instruct"), ("Qwen3-30B-A3B", "Qwen3-30B"),
        ("Llama-3.1-8B-Instruct", "Llama-3-8B-Instruct"),
        ("Mistral-7B-Instruct-v0.2", "Mistral-7B-Instruct-v0.3"),
        ("gemma-3-4b-it", "gemma-3-4b-it-qat"), ("gemma-3-4b-it", "gemma-3-4b-pt"),
        ("gemma-3n-E4B-it", "gemma-3-4b-it"), ("gpt-oss-20b", "gpt-oss-120b"),
        ("Phi-4-mini-instruct", "Phi-4-mini-reasoning"), ("Qwen3-4B-Thinking-2507",
                                                          "Qwen3-4B-Instruct-2507"),
        ("Hermes-3-Llama-3.1-8B", "Llama-3.1-8B-Instruct"),
        ("Mistral-Small-3.1-24B-Instruct-2503", "Mistral-Small-3.2-24B-Instruct-2506"),
        ("Qwen3-Next-80B-A3B-Instruct", "Qwen3-Next-80B-A3B-Thinking"),
        ("Qwen3-30B-A3B", "Qwen3-30B-A3B-Instruct-2507"), ("Qwen3-8B", "Qwen3-8B-Base"),
        ("Qwen2.5-7B-Instruct-1M", "Qwen2.5-7B-Instruct"),
        ("Qwen2.5-Math-7B-Instruct", "Qwen2.5-7B-Instruct"),
        ("DeepSeek-R1-0528-Qwen3-8B", "Qwen3-8B"), ("DeepSeek-V3", "DeepSeek-V3-0324"),
        ("Llama-3.1-Nemotron-Nano-8B-v1", "Llama-3.1-8B-Instruct"),
        ("Llama-3_3-Nemotron-Super-49B-v1", "Llama-3_3-Nemotron-Super-49B-v1_5"),
        ("Llama-3.1-8B-Lexi-Uncensored-V2", "Llama-3.1-8B-Instruct"),
        ("granite-4.0-h-micro", "granite-4.0-micro"), ("glm-4-9b-chat", "GLM-4-9B-0414"),
        ("Phi-3-mini-4k-instruct", "Phi-3-mini-128k-instruct"),
        ("medgemma-4b-it", "gemma-3-4b-it"), ("Devstral-Small-2505", "Devstral-Small-2507"),
        ("CapybaraHermes-2.5-Mistral-7B", "OpenHermes-2.5-Mistral-7B"),
        ("internlm2_5-7b-chat", "internlm2-chat-7b"), ("LFM2-1.2B", "LFM2-1.2B-Extract"),
        ("baidu/ERNIE-4.5-21B-A3B-PT", "baidu/ERNIE-4.5-21B-A3B-Base-PT"),
        ("MyTune_Qwen3-8B-Q4_K_M.gguf", "Qwen3-8B-Q4_K_M.gguf"),
        ("google/gemma-3n-E4B", "google/gemma-3n-E4B-it"),
        ("Qwen3-30B-A1.5B-High-Speed", "Qwen3-30B-A3B"),
        ("gpt-oss-safeguard-20b", "gpt-oss-20b"), ("GLM-4.5-Air-REAP-82B-A12B", "GLM-4.5-Air"),
        ("L3.2-8X3B-Champion-Inst-18.4B-D_AU-Q4_K_M", "L3-DARKEST-PLANET-16.5B-D_AU-Q4_K_M"),
        ("Dusk_Twilight-v0.2", "Azure_Twilight-v0.2"), ("magistral:2506", "magistral:2509"),
        ("Yi-1.5-9B-Chat", "Yi-9B-200K"), ("Mistral-Small-24B-Instruct-2501",
                                           "Mistral-Small-24B-Base-2501"))},
    **{f"{a} / {b} in Ollama": served(a, b, "Ollama") for a, b in (
        ("codellama:7b", "codellama:7b-python"), ("llama3-groq-tool-use:8b", "llama3:8b"),
        ("huihui_ai/qwen3-abliterated:8b", "qwen3:8b"), ("gemma3:4b", "gemma3:4b-it-qat"),
        ("gpt-oss:20b", "gpt-oss-safeguard:20b"), ("deepseek-r1:8b", "llama3.1:8b"),
        ("granite4:micro", "granite4:micro-h"), ("qwen3:8b", "qwen3-vl:8b"),
        ("qwen3:4b", "qwen3:4b-instruct"), ("qwen3-vl:8b", "qwen3-vl:8b-instruct"))},
    "a fine-tune under the file name of its base": served(
        {"file_name": "Qwen3.5-27B.Q4_K_M.gguf", "name": "Qwen3.5 27B Claude-4.6-Opus-Distilled"},
        {"file_name": "Qwen3.5-27B.Q4_K_M.gguf", "name": "Qwen3.5 27B"}, model="default"),
    "a tag that names a later model": served(
        {"model": "qwen3:4b", "name": "Qwen3 4B"},
        {"model": "qwen3:4b", "name": "Qwen3 4B Thinking 2507"}, "Ollama"),
    "base and instruct in Ollama": served("llama3:8b-text", "llama3:8b", "Ollama"),
    "one alias, two digests": served({"model": "default", "digest": A},
                                     {"model": "default", "digest": B}),
    "one alias, two sizes": served({"model": "default", "parameters_count": 7_600_000_000},
                                   {"model": "default", "parameters_count": 14_800_000_000}),
    "one alias, two file sizes": served(
        {"model": "default", "file_bytes": 4_000_000_000, "parameters_count": None},
        {"model": "default", "file_bytes": 9_000_000_000, "parameters_count": None}),
    "one digest, two sizes": served(
        {"model": "x", "digest": A, "parameters_count": 7_600_000_000},
        {"model": "y", "digest": A, "parameters_count": 14_800_000_000}),
}
# Apart as rows; the model is the same.
OTHER_ROWS: dict[str, tuple[Changes, Changes]] = {
    "makers, digests": served({"model": "bartowski/X-7B-GGUF", "digest": A},
                              {"model": "unsloth/X-7B-GGUF", "digest": B}),
    "makers, no digest": served("bartowski/Qwen2.5-7B-Instruct-GGUF:Q4_K_M",
                                "unsloth/Qwen2.5-7B-Instruct-GGUF:Q4_K_M"),
    "makers declared, no digest": served(
        {"model": FILE, "source_repository": "bartowski/Qwen2.5-7B-Instruct-GGUF"},
        {"model": FILE, "source_repository": "unsloth/Qwen2.5-7B-Instruct-GGUF"}),
    "imatrix / static, digests": ({"digest": A, "model": FILE}, {"digest": B, "model": FILE}),
    "imatrix / static, by the file name": served("Qwen3-8B.i1-Q4_K_M.gguf", "Qwen3-8B.Q4_K_M.gguf"),
    "NPU / NPU and GPU": served("Qwen3-8B-NPU", "Qwen3-8B-Hybrid", "Lemonade"),
    "with prediction heads": served("Qwen3.6-27B-MTP-Q4_K_M", "Qwen3.6-27B-Q4_K_M"),
    "owners of abliterated files": served("huihui-ai_Qwen3-8B-abliterated-Q4_K_M.gguf",
                                          "mlabonne_Qwen3-8B-abliterated-Q4_K_M.gguf"),
    "a tag that was pulled again": served(
        {"model": "qwen2.5:latest", "digest": A}, {"model": "qwen2.5:latest", "digest": B},
        "Ollama"),
    **{f"quant {a} / {b}": quants(a, b, model="Qwen2.5-7B-Instruct") for a, b in (
        ("Q4_K_M", "Q4_K_S"), ("Q4_K_M", "UD-Q4_K_XL"), ("Q4_K_M", "4bit"), ("AWQ", "GPTQ"),
        ("FP8", "INT8"), ("MXFP4", "NVFP4"), ("F16", "BF16"), ("4bit", "4bit-DWQ"),
        ("Q4_K_M", "UD-Q4_K_M"), ("Q4_K_M", "Q4_K_L"), ("IQ4_XS", "IQ4_NL"), ("Q4_0", "Q4_K_M"),
        ("EXL3-4.0bpw", "EXL2-4.0bpw"), ("EXL3-4.0bpw", "EXL3-5.0bpw"), ("4bit", "INT4"),
        ("BNB-4", "AWQ"), ("GPTQ-Int4", "GPTQ-Int8"), ("FP8", "MXFP8"), ("W8A16", "W8A8"),
        ("4bit", "4bit-g32"))},
    "mix of a maker in the file name": (
        {"quantization": "Q4_K_M"},
        {"quantization": "Q4_K_M", "file_name": "smollm2-135m-UD-Q4_K_XL.gguf"}),
    "draft model / none": ({"draft_model": "Qwen2.5-0.5B-Instruct"}, {"draft_model": "none"}),
    "draft model / unknown": ({"draft_model": "Qwen2.5-0.5B-Instruct"}, {"draft_model": None}),
    "speculative decoding without a draft model": ({"speculative": "ngram"},
                                                   {"draft_model": "none"}),
    "speculative decoding / unknown": ({"speculative": "EAGLE3"}, {}),
    "KV cache in main memory": ({"runtime.kv_cache_offloaded": False},
                                {"runtime.kv_cache_offloaded": True}),
    "number format of the computation": ({"dtype": "bfloat16"}, {"dtype": "float16"}),
    "publishers of one key": ({"publisher": "lmstudio-community"}, {"publisher": "bartowski"}),
    "undervolted": machines({"hardware.system.modification": "undervolted"}, {}),
    "draft model in the launch flags": ({"runtime.launch_flags": "-t 4 -md draft.gguf"},
                                        {"runtime.launch_flags": "-t 4"}),
    "offload 1 / 0.5": ({"gpu_offload_ratio": 1}, {"gpu_offload_ratio": 0.5}),
    "offload 1 / 0": ({"gpu_offload_ratio": 1}, {"gpu_offload_ratio": 0}),
    "offload 1 / 0.97": ({"gpu_offload_ratio": 1}, {"gpu_offload_ratio": 0.97}),
    "experts on the processor": ({"runtime.launch_flags": "-t 4 --n-cpu-moe 8"},
                                 {"runtime.launch_flags": "-t 4"}),
    "cards used": machines({"probed": cards("RTX 3090", "RTX 3090"),
                            "runtime.accelerators_used_count": 1},
                           {"probed": cards("RTX 3090", "RTX 3090"),
                            "runtime.accelerators_used_count": 2}),
    **{f"{name} {a} / {b}": ({f"runtime.{name}": a}, {f"runtime.{name}": b}) for name, a, b in (
        ("kv_cache_type", "f16", "q8_0"), ("kv_cache_type", "q8_0", "q8_0/f16"),
        ("kv_cache_type", "q8_0", "q4_0"), ("flash_attention", "on", "off"),
        ("batch_tokens", 512, 2048), ("micro_batch_tokens", 128, 512),
        ("backend", "vulkan", "cuda"), ("backend", "vulkan", "rocm"), ("backend", "cpu", "sycl"),
        ("version", "b6800", "b7900"), ("version", "0.33.3", "0.33.4"),
        ("version", "0.12.0", "0.12.0-rc1"), ("kv_cache_type", None, "f16"))},
    "context 4096 / 32768": ({"context_effective_tokens": 4096},
                             {"context_effective_tokens": 32768}),
    "cards used, in the launch flags": ({"runtime.launch_flags": "-tp 2"},
                                        {"runtime.launch_flags": "-tp 1"}),
    "layers on the card, in the launch flags": ({"runtime.launch_flags": "-ngl 20"},
                                                {"runtime.launch_flags": "-ngl 99"}),
    "repositories, in addresses of files": tuple(
        {"source_repository": f"https://huggingface.co/{owner}/X-7B-GGUF/blob/main/Q4_K_M/{FILE}"}
        for owner in ("ann", "bob")),
    "revision of a repository": served("Qwen/Qwen2.5-7B-Instruct@0a1b2c3",
                                       "Qwen/Qwen2.5-7B-Instruct@d4e5f67", "vLLM"),
    "slots 4 / 1": ({"slots_count": 4}, {"slots_count": 1}),
    "threads 4 / 8": on_cpu({"runtime.threads_count": 4}, {"runtime.threads_count": 8}),
    "1 card / 2 cards": machines({"probed": cards("RTX 3090")},
                                 {"probed": cards("RTX 3090", "RTX 3090")}),
    "power limit": machines({"hardware.accelerators.0.power_limit_w": 450},
                            {"hardware.accelerators.0.power_limit_w": 300}),
    "mains / battery": macs({"hardware.power.source": "ac"}, {"hardware.power.source": "battery"}),
    "low power mode": macs({"hardware.power.mode": "low_power"}, {"hardware.power.mode": None}),
    "power mode by its watts": machines({"hardware.power.mode": "15W"},
                                        {"hardware.power.mode": "MAXN"}),
    "battery saver on a PC": machines({"hardware.power.mode": "power_saver"},
                                      {"hardware.power.mode": "balanced"}),
    "memory channels": on_cpu({"hardware.memory.channels_count": 1},
                              {"hardware.memory.channels_count": 2}),
    "memory speed": on_cpu({"hardware.memory.speed_mts": 6000},
                           {"hardware.memory.speed_mts": 4800}),
    "memory type": on_cpu({"hardware.memory.type": "DDR5"}, {"hardware.memory.type": "DDR4"}),
    "memory speed, half on the card": machines({"hardware.memory.speed_mts": 6000},
                                               {"hardware.memory.speed_mts": 4800},
                                               gpu_offload_ratio=0.5),
    "M1 with 7 / 8 GPU cores": macs({"hardware.accelerators.0.cores_count": 7},
                                    {"hardware.accelerators.0.cores_count": 8}),
    "MacBook Air / Mac mini": macs({"hardware.system.model_name": "MacBookAir10,1"},
                                   {"hardware.system.model_name": "Macmini9,1"}),
    "MacBook Pro 14 / 16": macs({"hardware.system.model_name": "MacBookPro18,3"},
                                {"hardware.system.model_name": "MacBookPro18,1"}),
    "two laptops with one processor": machines(
        {"hardware.system.kind": "laptop", "hardware.system.model_name": "Dell XPS 15 9520"},
        {"hardware.system.kind": "laptop", "hardware.system.model_name": "LENOVO ThinkPad X1"}),
    **{f"card {a} / {b}": machines({"probed": cards(a, size=one)}, {"probed": cards(b, size=two)})
       for a, one, b, two in (
           ("RTX 4060 Ti", 8, "RTX 4060 Ti", 16), ("RTX 4090", 24, "RTX 4090 Laptop GPU", 16),
           ("RTX 4090", 24, "RTX 4090 Laptop GPU", 24), ("RTX 4070", 12, "RTX 4070 Ti", 12),
           ("RTX 4070", 12, "RTX 4070 SUPER", 12), ("RX 7900 XT", 20, "RX 7900 XTX", 24),
           ("NVIDIA RTX A6000", 48, "NVIDIA RTX 6000 Ada Generation", 48),
           ("NVIDIA A100-SXM4-80GB", 80, "NVIDIA A100-PCIE-80GB", 80),
           ("Quadro RTX 4000", 8, "NVIDIA RTX 4000 Ada Generation", 20),
           ("RTX 4090", 24, "RTX 4090 D", 24), ("NVIDIA L40", 48, "NVIDIA L40S", 48),
           ("NVIDIA H100 PCIe", 80, "NVIDIA H100 80GB HBM3", 80),
           ("RX 7800 XT", 16, "RX 7900 GRE", 16), ("RTX 3060", 12, "RTX 3060 Laptop GPU", 12),
           ("RTX 5090 D", 32, "RTX 5090 D v2", 24), ("Tesla M40", 12, "Tesla M40 24GB", 24),
           ("NVIDIA RTX PRO 6000 Blackwell Workstation Edition", 96,
            "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition", 96),
           ("AMD Radeon Graphics (RADV GFX1201)", 16, "AMD Radeon Graphics (RADV GFX1100)", 16),
           ("NVIDIA RTX 4000 Ada Generation", 20, "NVIDIA RTX 4000 SFF Ada Generation", 20))},
    "governor": on_cpu({"hardware.power.governor": "powersave"},
                       {"hardware.power.governor": "performance"}),
    "quota of threads": on_cpu({"hardware.cpu.usable_threads_count": 8},
                               {"hardware.cpu.usable_threads_count": 32}),
    "virtual machine": on_cpu({"hardware.system.virtualization": "kvm"},
                              {"hardware.system.virtualization": "none"}),
    "over the network": ({"class": "loopback"}, {"class": "lan"}),
    "instruction sets": on_cpu(
        {**with_cpu("Intel Xeon Processor"),
         "hardware.cpu.instruction_sets": ["amx_tile", "avx512f"]},
        {**with_cpu("Intel Xeon Processor"), "hardware.cpu.instruction_sets": ["avx512f"]}),
    "L3 cache of a nameless processor": on_cpu(
        {**with_cpu("Intel Xeon Processor"), "hardware.cpu.cache_l3_kib": 16384},
        {**with_cpu("Intel Xeon Processor"), "hardware.cpu.cache_l3_kib": 107520}),
    "nameless processors of a cloud": machines(
        with_cpu("Intel(R) Xeon(R) CPU @ 2.20GHz"), with_cpu("Intel(R) Xeon(R) CPU @ 2.80GHz")),
    "small computers with one processor": on_cpu(
        {**with_cpu("AMD RYZEN AI MAX+ 395 w/ Radeon 8060S"),
         "hardware.system.model_name": "Framework Desktop"},
        {**with_cpu("AMD RYZEN AI MAX+ 395 w/ Radeon 8060S"),
         "hardware.system.model_name": "GMKtec EVO-X2"}),
    "memory 8 / 16 GB": macs({}, {"hardware.memory.capacity_bytes": 16 * GIB}),
    "processors": machines(with_cpu("AMD Ryzen 9 7950X"), with_cpu("AMD Ryzen 9 7950X3D")),
    "processors of a cloud by their makers": machines(
        with_cpu("DO-Premium-Intel"), with_cpu("DO-Premium-AMD")),
}


class Pairs(unittest.TestCase):
    def check(self, pairs: dict[str, tuple[Changes, Changes]], *expected: str) -> None:
        for name, (a, b) in pairs.items():
            with self.subTest(name):
                self.assertIn(relation(a, b), expected)

    def test_other_spellings_of_one_row(self) -> None:
        self.check(ROWS, "row")

    def test_one_model_on_several_engines(self) -> None:
        self.check(BLOCKS, "block", "row")

    def test_other_models(self) -> None:
        self.check(APART, "apart")

    def test_other_weights_machines_and_configurations(self) -> None:
        self.check(OTHER_ROWS, "block", "apart")
