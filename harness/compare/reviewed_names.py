"""Reviewed tables for canonical_names and identity: names that no rule can derive.

Each table names its source. An entry that is missing splits a row from its like; an entry that is
wrong merges two rows. So add only what the source states explicitly.
"""
from __future__ import annotations

# First parts of a path that are no owner of weights. Source: ids in the engines' model lists.
HOSTS = ("https://", "http://", "hf://", "hf.co/", "huggingface.co/", "www.modelscope.cn/models/",
         "modelscope.cn/", "registry.ollama.ai/", "ollama.com/", "ollama://", "library/",
         "koboldcpp/", "models/", "local/", "ollama/", "lmstudio/", "gguf/", "user/",
         "docker.io/", "ai/")

# A maker's name is dropped before one of its own families. Source: the owners' pages on Hugging
# Face; bartowski's repositories are named maker_model.
MAKERS = {
    "meta": "llama codellama", "facebook": "llama", "metallama": "llama codellama",
    "google": "gemma codegemma medgemma shieldgemma", "qwen": "qwen qwq codeqwen",
    "alibaba": "qwen qwq", "mistralai": "mistral mixtral ministral codestral devstral magistral "
    "mathstral pixtral voxtral", "microsoft": "phi", "openai": "gpt", "ibm": "granite",
    "ibmgranite": "granite", "deepseekai": "deepseek", "allenai": "olmo olmoe llama tulu",
    "tiiuae": "falcon", "huggingfacetb": "smollm smolvlm", "lgai": "exaone",
    "lgaiexaone": "exaone", "thudm": "glm chatglm", "zai": "glm", "zaiorg": "glm",
    "nvidia": "llama nemotron minitron mistral openreasoning", "cohere": "command aya c",
    "coherelabs": "command aya c", "cohereforai": "command aya c", "c4ai": "command aya",
    "liquidai": "lfm", "tencent": "hunyuan", "baidu": "ernie", "bytedance": "seed",
    "bytedanceseed": "seed", "moonshotai": "kimi",
    "nousresearch": "hermes nous deephermes", "stabilityai": "stablelm stable", "upstage": "solar",
    "01ai": "yi", "internlm": "internlm", "arceeai": "arcee afm", "ai21labs": "ai21 jamba",
    "tinyllama": "tinyllama", "openbmb": "minicpm", "bigcode": "starcoder", "apple": "openelm",
    "inclusionai": "ling ring", "minimaxai": "minimax", "xiaomimimo": "mimo"}

FAMILIES = frozenset(" ".join(MAKERS.values()).split()) - {"c"}

# Owners in LM Studio's catalog, which names chat models without a word for it. Source: the keys
# of lmstudio.ai/models.
CATALOG_OWNERS = frozenset((
    "allenai", "baidu", "bytedance", "deepseek", "essentialai", "google", "ibm", "liquid",
    "meta", "microsoft", "mistralai", "nvidia", "openai", "qwen", "zai-org"))

# People who publish formats of other makers' models. Source: their pages on Hugging Face.
QUANTIZERS = frozenset(("bartowski", "thebloke", "mradermacher", "unsloth", "lmstudio", "turboderp",
                        "casperhansen", "neuralmagic", "redhatai", "maziyarpanahi", "ggml",
                        "lonestriker", "quantfactory", "tensorblock"))

# Families that publish their chat model under the plain name. Source: the model cards; their base
# models are marked -Base or do not exist. "gemma" includes "gemma-2", and so on.
UNMARKED_IS_INSTRUCT = (
    "gpt-oss", "qwen-3", "qwen-3.5", "qwen-3.6", "qwen-3.8", "qwq", "deepseek-r1", "deepseek-v3",
    "deepseek-v3.1", "deepseek-v3.2", "deepseek-v2.5", "phi-3", "phi-3.5", "phi-4", "smollm-3",
    "granite-4", "granite-4.1", "magistral", "devstral", "codestral", "glm-4.5", "glm-4.6",
    "glm-4.5v", "glm-4.6v", "llama-guard", "openthinker", "deepscaler", "marco-o1",
    "glm-4.7", "seed-oss", "ernie-4.5", "kimi", "openhermes", "zephyr", "wizardlm", "vicuna",
    "openchat", "starling", "lfm-2", "exaone-4.0", "exaone-deep", "cogito", "deephermes", "orca",
    "minimax", "aya", "command", "medgemma")
# Base models also in catalogs of chat models. Source: the model cards and Ollama's library.
ONLY_BASE = frozenset(("starcoder", "starcoder-2", "phi-1.5", "phi-2"))
# Families that publish their base model under the plain name. Source: the model cards.
UNMARKED_IS_BASE = (
    "qwen-1.5", "qwen-2", "qwen-2.5", "llama-2", "llama-3", "llama-3.1", "llama-3.2", "mistral",
    "mixtral", "gemma", "smollm", "falcon", "olmo", "yi", "starcoder", "phi-1",
    "codellama", "internlm", "stablelm")

# Default size of a tag without one, such as qwen2.5 or qwen2.5:latest. Source: the page of each
# model in Ollama's library, row "latest", and the registry's manifests: equal digests of weights.
OLLAMA_SIZES = {
    "llama-2": "7b", "llama-3": "8b", "llama-3.1": "8b", "llama-3.2": "3b", "llama-3.3": "70b",
    "llama-3.2-vision": "11b", "codellama": "7b", "qwen": "4b", "qwen-2": "7b", "qwen-2.5": "7b",
    "qwen-2.5-coder": "7b", "qwen-2.5-vl": "7b", "qwen-3": "8b", "qwq": "32b", "gemma": "7b",
    "gemma-2": "9b", "gemma-3": "4b", "gemma-3n": "e4b", "gemma-4": "e4b", "mistral": "7b",
    "mixtral": "8x7b", "phi-3.5": "3.8b", "gpt-oss": "20b", "smollm-2": "1.7b", "smollm": "1.7b",
    "tinyllama": "1.1b", "granite-3.3": "8b", "olmo-2": "7b", "falcon-3": "7b",
    "mistral-nemo": "12b",
    "mistral-small-3.1": "24b", "mistral-small-3.2": "24b", "mistral-large": "123b",
    "devstral": "24b", "magistral": "24b", "qwen-3-coder": "30b", "phi": "2.7b",
    "llama-4": "16x17b", "codestral": "22b", "openchat": "7b", "aya-expanse": "8b",
    "codegemma": "7b", "cogito": "8b", "deepcoder": "14b", "deepscaler": "1.5b",
    "deepseek-coder-v2": "16b", "dolphin-3": "8b", "exaone-3.5": "7.8b", "exaone-deep": "7.8b",
    "falcon": "7b", "glm-4": "9b", "granite-3.2": "8b", "hermes-3": "8b", "mathstral": "7b",
    "mistral-small": "24b", "nemotron-3-nano": "30b", "nemotron": "70b", "nemotron-mini": "4b",
    "opencoder": "8b", "openthinker": "7b", "phi-3": "3.8b", "smallthinker": "3b",
    "solar": "10.7b", "stablelm-2": "1.6b", "starcoder-2": "3b", "tulu-3": "8b", "vicuna": "7b"}

# Ollama's library name, with its tune if the tag has one -> the maker's name of the same model.
# Source: the library's pages, which link the maker's repository. Not yet compared with them, but
# only with the names of the makers' repositories: qwen-3 30b and 235b, nous-hermes-2, deepscaler,
# cogito-2.1, command-r7b, yi.
OLLAMA_NAMES = {
    "qwen-3-4b instruct": "qwen-3-2507-4b", "qwen-3-30b instruct": "qwen-3-a3b-2507-30b",
    "qwen-3-235b instruct": "qwen-3-a22b-2507-235b",
    "qwen-3-thinking-4b": "qwen-3-thinking-2507-4b",
    "qwen-3-thinking-30b": "qwen-3-a3b-thinking-2507-30b",
    "qwen-3-thinking-235b": "qwen-3-a22b-thinking-2507-235b",
    "qwen-3-vl-8b instruct": "qwen-3-vl-8b", "qwen-3-vl-8b": "qwen-3-vl-thinking-8b",
    "nous-hermes-2-10.7b": "nous-hermes-2-solar-10.7b",
    "deepscaler-1.5b": "deepscaler-preview-1.5b",
    "nous-hermes-2-34b": "nous-hermes-2-yi-34b", "cogito-2.1-671b": "cogito-v2.1-671b",
    "starcoder-2-15b instruct": "starcoder-2-v0.1-15b", "command-r7b-7b": "command-r7b-12-2024",
    **{f"yi-v1.5-{size}": f"yi-1.5-{size}" for size in ("6b", "9b", "34b")},
    "mistral-7b": "mistral-v0.3-7b", "mixtral-8x7b": "mixtral-v0.1-8x7b",
    "mixtral-8x22b": "mixtral-v0.1-8x22b", "mistral-small-3.2-24b": "mistral-small-3.2-2506-24b",
    "mistral-small-3.1-24b": "mistral-small-3.1-2503-24b",
    "mistral-small-24b": "mistral-small-2501-24b", "mistral-large-123b": "mistral-large-2411-123b",
    "devstral-24b": "devstral-small-2505-24b", "magistral-24b": "magistral-small-2506-24b",
    "codestral-22b": "codestral-v0.1-22b", "phi-2.7b": "phi-2-2.7b",
    "openchat-7b": "openchat-3.5-0106-7b",
    "nous-hermes-2-mixtral-8x7b": "nous-hermes-2-mixtral-dpo-8x7b",
    "qwen-3.5-35b": "qwen-3.5-a3b-35b", "qwen-3.5-122b": "qwen-3.5-a10b-122b",
    "lfm-2-24b": "lfm-2-a2b-24b", "tinyllama-1.1b": "tinyllama-v1.0-1.1b",
    "phi-3.5-3.8b": "phi-3.5-mini-3.8b", "olmo-2-7b": "olmo-2-1124-7b",
    "olmo-2-13b": "olmo-2-1124-13b", "zephyr-7b": "zephyr-beta-7b", "vicuna-7b": "vicuna-v1.5-7b",
    "vicuna-13b": "vicuna-v1.5-13b", "solar-10.7b": "solar-v1.0-10.7b",
    "dolphin-3-8b": "dolphin-3-llama-3.1-8b", "hermes-3-8b": "hermes-3-llama-3.1-8b",
    "hermes-3-3b": "hermes-3-llama-3.2-3b", "nemotron-70b": "llama-3.1-nemotron-70b",
    "deepseek-coder-v2-16b": "deepseek-coder-v2-lite-16b",
    "llama-4-16x17b": "llama-4-scout-16e-17b", "llama-4-128x17b": "llama-4-maverick-128e-17b",
    "qwen-3.6-35b": "qwen-3.6-a3b-35b", "gemma-4-26b": "gemma-4-a4b-26b",
    "nemotron-3-nano-30b": "nemotron-3-nano-a3b-30b", "tulu-3-8b": "llama-3.1-tulu-3-8b",
    "tulu-3-70b": "llama-3.1-tulu-3-70b", "phi-3-mini": "phi-3-mini-4k-3.8b",
    "phi-3-3.8b": "phi-3-mini-4k-3.8b",
    **{f"deepseek-r1-{size}": f"deepseek-r1-distill-{base}-{size}" for size, base in (
        ("1.5b", "qwen"), ("7b", "qwen"), ("14b", "qwen"), ("32b", "qwen"), ("70b", "llama"))},
    **{f"cogito-{size}": f"cogito-v1-preview-{base}-{size}" for size, base in (
        ("3b", "llama"), ("8b", "llama"), ("14b", "qwen"), ("32b", "qwen"), ("70b", "llama"))}}

# Models that exist in one size, which their makers leave out of the name. Source: model cards.
ONLY_SIZES = {
    "phi-4": "14b", "phi-4-mini": "3.8b", "phi-4-mini-reasoning": "3.8b", "phi-4-reasoning": "14b",
    "phi-4-reasoning-plus": "14b", "deepseek-v3": "671b", "deepseek-v3.1": "671b",
    "phi-3.5-mini": "3.8b", "phi-3-mini-4k": "3.8b", "phi-3-mini-128k": "3.8b", "phi-2": "2.7b",
    "mistral-nemo-2407": "12b", "magistral-small-2506": "24b", "devstral-small-2505": "24b",
    "devstral-small-2507": "24b", "magistral-small-2509": "24b", "deepseek-coder-v2-lite": "16b",
    "mistral-large-2407": "123b", "mistral-large-2411": "123b", "openchat-3.5-0106": "7b",
    "smollm-3": "3b", "marco-o1": "7b", "rnj-1": "8b"}
# Other spellings of one model, of any source -> the maker's name. Source: model cards.
OTHER_NAMES = {"nemotron-3-nano": "nemotron-3-nano-a3b-30b",
               "dolphin-3.0-llama-3.1-8b": "dolphin-3-llama-3.1-8b",
               "qwen-3-coder-30b": "qwen-3-coder-a3b-30b",
               "qwen-3-coder-480b": "qwen-3-coder-a35b-480b",
               "qwen-3-next-80b": "qwen-3-next-a3b-80b",
               "llama-4-scout": "llama-4-scout-16e-17b",
               "llama-4-maverick": "llama-4-maverick-128e-17b",
               "granite-4-micro-h": "granite-4-h-micro", "granite-4-tiny-h": "granite-4-h-tiny",
               "granite-4-small-h": "granite-4-h-small",
               "mistral-nemo-12b": "mistral-nemo-2407-12b",
               "mistral-small-3.1": "mistral-small-3.1-2503-24b",
               "mistral-small-3.2": "mistral-small-3.2-2506-24b",
               "devstral-small-2-24b": "devstral-small-2-2512-24b",
               "devstral-small-2-2512": "devstral-small-2-2512-24b",
               **{f"ministral-3-{kind}{size}": f"ministral-3-{kind}2512-{size}"
                  for kind in ("", "reasoning-") for size in ("3b", "8b", "14b")},
               "llama-3.1-128k-8b": "llama-3.1-8b", "command-r7b": "command-r7b-12-2024"}

# The engines' own defaults. Source: `llama-server --help`, Ollama's FAQ, `vllm serve --help`.
DEFAULTS = {
    "llama.cpp": {"kv_cache_type": "f16", "batch_tokens": "2048", "micro_batch_tokens": "512",
                  "flash_attention": "auto"},
    "ollama": {"kv_cache_type": "f16"}, "koboldcpp": {"kv_cache_type": "f16"},
    "lmstudio": {"kv_cache_type": "f16"}, "llamafile": {"kv_cache_type": "f16"}}

# Launch flags: what they set, by engine-independent name (source: the same pages). "" marks those
# whose effect is in another fact, or that do not decide speed.
SETTINGS = {
    "ctk": "kv_k", "cache-type-k": "kv_k", "ctv": "kv_v", "cache-type-v": "kv_v",
    "kv-cache-dtype": "kv_cache_type", "OLLAMA_KV_CACHE_TYPE": "kv_cache_type",
    "fa": "flash_attention", "flash-attn": "flash_attention",
    "OLLAMA_FLASH_ATTENTION": "flash_attention", "b": "batch_tokens", "batch-size": "batch_tokens",
    "ub": "micro_batch_tokens", "ubatch-size": "micro_batch_tokens", "md": "draft_model",
    "model-draft": "draft_model", "draft-model": "draft_model", "hfd": "draft_model",
    "speculative-model": "draft_model", "speculative-config": "draft_model",
    **dict.fromkeys(("c", "ctx-size", "max-model-len", "OLLAMA_CONTEXT_LENGTH"), "context"),
    **dict.fromkeys(("np", "parallel", "max-num-seqs", "OLLAMA_NUM_PARALLEL"), "slots"),
    **dict.fromkeys(("t", "threads"), "threads"),
    **dict.fromkeys(("ngl", "n-gpu-layers", "gpu-layers"), "gpu_offload"),
    **dict.fromkeys(("tp", "tensor-parallel-size", "tp-size"), "cards_used"),
    **dict.fromkeys((
        "temp", "repeat-penalty", "repeat-last-n", "top-k", "top-p", "min-p", "seed", "s", "n",
        "predict", "override-generation-config", "generation-config", "jinja", "host", "port",
        "alias", "a", "metrics", "no-webui", "served-model-name", "verbose", "v", "m", "model",
        "hf", "hf-repo", "hf-file", "api-key", "props", "slots", "chat-template",
        "reasoning-format", "no-warmup", "warmup", "OLLAMA_HOST", "OLLAMA_MODELS",
        "OLLAMA_KEEP_ALIVE", "OLLAMA_ORIGINS", "OLLAMA_DEBUG", "OLLAMA_MAX_LOADED_MODELS",
        "cont-batching", "cb", "threads-http", "trust-remote-code", "download-dir", "timeout",
        "log-disable", "quantization", "chat-template-kwargs", "offline", "mlock", "mmap",
        "no-mmap"), "")}

# Memory of cards that is no power of two times 9/8, 5/4, 3/2 or 7/4. Source: NVIDIA's pages of GTX
# 1080 Ti and RTX 2080 Ti, H100 NVL, and H200.
CARD_SIZES_GIB = (11.0, 94.0, 141.0)

# Apple's identifiers -> (product, screen in inches). Source: Apple's "Identify your Mac" pages,
# support.apple.com/102869, 108052, 108054, 102231, 102852; Mac17 from lists of board names.
APPLE_MODELS = {
    "MacBookAir10,1": ("macbook air", 13), "Mac14,2": ("macbook air", 13),
    "Mac14,15": ("macbook air", 15), "Mac15,12": ("macbook air", 13),
    "Mac15,13": ("macbook air", 15), "Mac16,12": ("macbook air", 13),
    "Mac16,13": ("macbook air", 15), "MacBookPro17,1": ("macbook pro", 13),
    "MacBookPro18,1": ("macbook pro", 16), "MacBookPro18,2": ("macbook pro", 16),
    "MacBookPro18,3": ("macbook pro", 14), "MacBookPro18,4": ("macbook pro", 14),
    "Mac14,7": ("macbook pro", 13), "Mac14,5": ("macbook pro", 14), "Mac14,9": ("macbook pro", 14),
    "Mac14,6": ("macbook pro", 16), "Mac14,10": ("macbook pro", 16),
    "Mac15,3": ("macbook pro", 14), "Mac15,6": ("macbook pro", 14), "Mac15,8": ("macbook pro", 14),
    "Mac15,10": ("macbook pro", 14), "Mac15,7": ("macbook pro", 16),
    "Mac15,9": ("macbook pro", 16), "Mac15,11": ("macbook pro", 16), "Mac16,1": ("macbook pro", 14),
    "Mac16,6": ("macbook pro", 14), "Mac16,8": ("macbook pro", 14), "Mac16,5": ("macbook pro", 16),
    "Mac16,7": ("macbook pro", 16), "Macmini9,1": ("mac mini", 0), "Mac14,3": ("mac mini", 0),
    "Mac14,12": ("mac mini", 0), "Mac16,10": ("mac mini", 0), "Mac16,11": ("mac mini", 0),
    "Mac13,1": ("mac studio", 0), "Mac13,2": ("mac studio", 0), "Mac14,13": ("mac studio", 0),
    "Mac14,14": ("mac studio", 0), "Mac15,14": ("mac studio", 0), "Mac16,9": ("mac studio", 0),
    "Mac14,8": ("mac pro", 0), "iMac21,1": ("imac", 24), "iMac21,2": ("imac", 24),
    "Mac17,2": ("macbook pro", 14), "Mac17,3": ("macbook air", 13), "Mac17,4": ("macbook air", 15),
    "Mac17,6": ("macbook pro", 16), "Mac17,7": ("macbook pro", 14), "Mac17,8": ("macbook pro", 16),
    "Mac17,9": ("macbook pro", 14), "Mac15,4": ("imac", 24), "Mac15,5": ("imac", 24),
    "Mac16,2": ("imac", 24), "Mac16,3": ("imac", 24)}
APPLE_DEFAULT_INCHES = {"macbook air": 13, "imac": 24}
