"""gguf_to_hf.py IN FOLDER: SmolLM2 from GGUF to the bf16 folder for vLLM, transformers and MLX.

Needs gguf, numpy and tokenizers only, and takes seconds: loading the GGUF with transformers would
do the same with torch, in more than a minute.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy
from gguf import GGUFReader, dequantize
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

CONTROL_TOKEN = 3  # llama.cpp's token type of <|im_start|> and its like

NamedTensor = tuple[str, tuple[int, ...], bytes]  # name, shape, bf16 data

TENSOR_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def hf_name(name: str) -> str:
    """ "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj.weight" """
    stem = name[: -len(".weight")]
    if not stem.startswith("blk."):
        return f"{TENSOR_NAMES[stem]}.weight"
    _, layer, part = stem.split(".")
    return f"model.layers.{layer}.{TENSOR_NAMES[part]}.weight"


def rotary_order(weight: numpy.ndarray, heads: int) -> numpy.ndarray:
    """A query or key matrix, from llama.cpp's interleaved rows back to two halves per head."""
    rows, columns = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(rows, columns)


def bf16_bytes(values: numpy.ndarray) -> bytes:
    """Rounded to the nearest even, as torch does; numpy has no such type."""
    singles = numpy.ascontiguousarray(values, dtype=numpy.float32)
    bits = singles.view(numpy.uint32).astype(numpy.uint64)
    rounded = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return rounded.astype(numpy.uint16).tobytes()


def tensors(reader: GGUFReader, facts: dict[str, Any]) -> Iterator[NamedTensor]:
    heads = {
        "attn_q": facts["llama.attention.head_count"],
        "attn_k": facts["llama.attention.head_count_kv"],
    }
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type)
        part = tensor.name.split(".")[-2]
        if part in heads:
            values = rotary_order(values, heads[part])
        yield hf_name(tensor.name), values.shape, bf16_bytes(values)


def write_safetensors(path: Path, found: Iterator[NamedTensor]) -> None:
    """By hand, since the library's call for it changes with versions: length, index, data."""
    index: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    blocks = []
    offset = 0
    for name, shape, block in found:
        span = [offset, offset + len(block)]
        index[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": span}
        blocks.append(block)
        offset = span[1]
    header = json.dumps(index).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"".join(blocks))


def model_config(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": facts["llama.embedding_length"],
        "intermediate_size": facts["llama.feed_forward_length"],
        "num_hidden_layers": facts["llama.block_count"],
        "num_attention_heads": facts["llama.attention.head_count"],
        "num_key_value_heads": facts["llama.attention.head_count_kv"],
        "head_dim": facts["llama.rope.dimension_count"],
        "max_position_embeddings": facts["llama.context_length"],
        "rms_norm_eps": facts["llama.attention.layer_norm_rms_epsilon"],
        "rope_theta": facts["llama.rope.freq_base"],
        "vocab_size": facts["llama.vocab_size"],
        "bos_token_id": facts["tokenizer.ggml.bos_token_id"],
        "eos_token_id": facts["tokenizer.ggml.eos_token_id"],
        "pad_token_id": facts["tokenizer.ggml.padding_token_id"],
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
    }


def tokenizer(facts: dict[str, Any]) -> Tokenizer:
    """The byte-level BPE that llama.cpp calls "smollm": each digit alone, then GPT-2's split."""
    tokens = facts["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in facts["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    kinds = facts["tokenizer.ggml.token_type"]
    made.add_special_tokens(
        [AddedToken(t, special=True) for t, kind in zip(tokens, kinds) if kind == CONTROL_TOKEN]
    )
    return made


def tokenizer_config(facts: dict[str, Any]) -> dict[str, Any]:
    tokens = facts["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": facts["llama.context_length"],
        "bos_token": tokens[facts["tokenizer.ggml.bos_token_id"]],
        "eos_token": tokens[facts["tokenizer.ggml.eos_token_id"]],
        "unk_token": tokens[facts["tokenizer.ggml.unknown_token_id"]],
        "pad_token": tokens[facts["tokenizer.ggml.padding_token_id"]],
        "chat_template": facts["tokenizer.chat_template"],
        "clean_up_tokenization_spaces": False,
    }


def main(source: str, target: str) -> None:
    reader = GGUFReader(source)
    facts = {name: field.contents() for name, field in reader.fields.items()}
    folder = Path(target)
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / "model.safetensors", tensors(reader, facts))
    tokenizer(facts).save(str(folder / "tokenizer.json"))
    for name, content in (
        ("config.json", model_config(facts)),
        ("tokenizer_config.json", tokenizer_config(facts)),
        ("generation_config.json", {"eos_token_id": facts["tokenizer.ggml.eos_token_id"]}),
    ):
        (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
