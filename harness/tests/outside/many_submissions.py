"""Write a made-up year of submissions, to look at their comparison and to measure it.

    python many_submissions.py FOLDER 300 --bases 300 --ledgers 300   every run made on its own
    python many_submissions.py FOLDER 10000                           without ledgers

Complete runs (see made_submissions.py) on 27 types of machines by several owners each, of models
under the names that servers give them. More submissions than --bases repeat these runs with other
handles, dates and run ids, and with their numbers scaled by one factor each. Speeds follow from
memory bandwidth and computing power, and are not measured. The same arguments give the same bytes.
"""
from __future__ import annotations

import argparse
import datetime
import json
import os
import random
import sys
import uuid
from collections.abc import Iterator
from typing import Any, NamedTuple

from complete import attestation
from core import ledger
from tests import made_submissions
from tests.made_submissions import GIB, Made, Spec

Json = dict[str, Any]

NAMESPACE = uuid.UUID("11111111-1111-1111-1111-111111111111")
BEGIN = datetime.datetime(2026, 12, 1, 7, 30)
# What an owner wrote; most write nothing.
NOTES = ("None.", "None.", "None.", "A browser was open during the run.",
         "The case is small, and the fans were loud from the second phase on.",
         "Undervolted; the card draws about 30 W less than at its default.")
WORDS = ("quiet amber night swift lunar pixel delta nova rust byte zen fox hex moss iron sky",
         "otter lab coder owl smith fern river badger stack wolf pine panda kite bear heron yak")


class Kind(NamedTuple):
    """A type of machine. room_gb: for a model; gb_per_s, tflops: effective; spread: of owners."""

    tag: str
    probed: Json
    main_memory_gib: tuple[int, ...]
    room_gb: float
    gb_per_s: float
    tflops: float
    owners: int


def mac(tag: str, chip: str, product: str, cores: int, gpu: int, gib: int, gb_per_s: float,
        tflops: float, owners: int) -> Kind:
    """A Mac; its graphics cores share its memory."""
    name = f"Apple {chip}"
    portable = "Book" in product
    return Kind(tag, {
        "system": {"kind": "laptop" if portable else "desktop", "model_name": product},
        "cpu": {"model_name": name, "vendor": "Apple", "architecture": "arm64",
                "physical_cores_count": cores, "threads_count": cores,
                "usable_threads_count": cores},
        "memory": {"type": "LPDDR5", "unified": True, "bandwidth_theoretical_gb_per_s": gb_per_s},
        "os": {"name": "macOS", "version": "26.1", "kernel_release": "25.1.0"},
        "power": {"source": "ac"} if portable else {},
        "accelerators": [{"model_name": name, "vendor": "Apple", "cores_count": gpu,
                          "compute_api": "Metal 4"}]}, (gib,), gib * 0.72, gb_per_s, tflops, owners)


def pc(tag: str, cpu: str, threads: int, gib: tuple[int, ...], gb_per_s: float, tflops: float,
       owners: int, kind: str = "desktop", system: str = "", card: str = "", card_gib: int = 0,
       watts: int = 0, cards: int = 1) -> Kind:
    """A computer with graphics cards, or with its processor only."""
    one = {"model_name": card, "vendor": card.partition(" ")[0], "driver_version": "580.1",
           "memory_bytes": card_gib * GIB * 99 // 100, "power_limit_w": watts}
    return Kind(tag, {
        "system": {"kind": kind, "virtualization": "kvm" if kind == "vm" else "none",
                   **({"model_name": system} if system else {})},
        "cpu": {"model_name": cpu, "vendor": "AuthenticAMD" if "AMD" in cpu else "GenuineIntel",
                "architecture": "x86_64", "physical_cores_count": threads // 2,
                "threads_count": threads, "usable_threads_count": threads},
        "memory": {"type": "DDR5", "speed_mts": 5600},
        "os": {"name": "Debian GNU/Linux", "version": "13", "kernel_release": "6.12"},
        "power": {"source": "ac"} if kind == "laptop" else {},
        "accelerators": [one] * cards if card else []},
        gib, card_gib * cards * 0.93 if card else gib[0] * 0.8, gb_per_s, tflops, owners)


RYZEN, CORE = "AMD Ryzen 7 7800X3D 8-Core Processor", "13th Gen Intel(R) Core(TM) i5-13600K"
KINDS = (
    mac("macbook-air-m1", "M1", "Apple MacBook Air (M1, 2020)", 8, 8, 8, 68, 2.4, 4),
    mac("macbook-air-m2", "M2", "Apple MacBook Air (M2, 2022)", 8, 10, 16, 100, 3.2, 4),
    mac("macbook-air-m4", "M4", "Apple MacBook Air (13-inch, M4)", 10, 10, 16, 120, 4.3, 5),
    mac("mac-mini-m4-pro", "M4 Pro", "Apple Mac mini (2024)", 14, 20, 48, 273, 8.5, 3),
    mac("macbook-pro-m3-pro", "M3 Pro", "Apple MacBook Pro (14-inch, M3 Pro)", 12, 18, 18, 150,
        6.5, 3),
    mac("macbook-pro-m4-max", "M4 Max", "Apple MacBook Pro (16-inch, M4 Max)", 16, 40, 128, 546,
        17, 4),
    mac("mac-studio-m3-ultra", "M3 Ultra", "Apple Mac Studio (2025)", 32, 80, 256, 819, 28, 2),
    *(pc(tag, cpu, threads, (32, 64), gb_per_s, tflops, owners, card=card, card_gib=gib,
         watts=watts, cards=cards)
      for tag, cpu, threads, card, gib, watts, cards, gb_per_s, tflops, owners in (
        ("rtx3060", CORE, 20, "NVIDIA GeForce RTX 3060", 12, 170, 1, 360, 22, 6),
        ("rtx3090", RYZEN, 16, "NVIDIA GeForce RTX 3090", 24, 350, 1, 936, 62, 4),
        ("2x-rtx3090", RYZEN, 16, "NVIDIA GeForce RTX 3090", 24, 350, 2, 900, 70, 2),
        ("rtx4060", CORE, 20, "NVIDIA GeForce RTX 4060", 8, 115, 1, 272, 27, 4),
        ("rtx4070", RYZEN, 16, "NVIDIA GeForce RTX 4070", 12, 200, 1, 504, 52, 9),
        ("rtx4070-ti-super", CORE, 20, "NVIDIA GeForce RTX 4070 Ti SUPER", 16, 285, 1, 672, 78, 3),
        ("rtx4090", RYZEN, 16, "NVIDIA GeForce RTX 4090", 24, 450, 1, 1008, 150, 5),
        ("rtx5070-ti", RYZEN, 16, "NVIDIA GeForce RTX 5070 Ti", 16, 300, 1, 896, 88, 3),
        ("rtx5090", RYZEN, 16, "NVIDIA GeForce RTX 5090", 32, 575, 1, 1792, 205, 4),
        ("rx7900xtx", RYZEN, 16, "AMD Radeon RX 7900 XTX", 24, 355, 1, 960, 52, 4),
        ("rx9070xt", RYZEN, 16, "AMD Radeon RX 9070 XT", 16, 304, 1, 640, 48, 2),
        ("arc-b580", CORE, 20, "Intel Arc B580 Graphics", 12, 190, 1, 456, 24, 2))),
    pc("h100", "Intel(R) Xeon(R) Platinum 8480+", 104, (512,), 2000, 380, 2, "server",
       card="NVIDIA H100 PCIe", card_gib=80, watts=350),
    pc("framework-desktop", "AMD RYZEN AI MAX+ 395 w/ Radeon 8060S", 32, (128,), 230, 16, 3,
       system="Framework Desktop"),
    pc("dgx-spark", "Cortex-X925", 20, (128,), 260, 42, 3, system="NVIDIA DGX Spark",
       card="NVIDIA GB10", card_gib=119, watts=140),
    pc("framework-13", "AMD Ryzen 7 7840U w/ Radeon 780M Graphics", 16, (32,), 75, 1.5, 3,
       "laptop", "Framework Laptop 13"),
    pc("thinkpad-x1", "Intel(R) Core(TM) Ultra 7 155H", 22, (32,), 82, 1.4, 3, "laptop",
       "Lenovo ThinkPad X1 Carbon Gen 12"),
    pc("xps-13", "Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz", 8, (16,), 29, 0.35, 3, "laptop",
       "Dell XPS 13 9370"),
    pc("pi5", "Cortex-A76", 4, (8,), 13.5, 0.12, 3, "sbc", "Raspberry Pi 5 Model B"),
    pc("epyc-vm", "AMD EPYC 7763 64-Core Processor", 16, (64,), 105, 2.2, 2, "vm"))


class Weights(NamedTuple):
    """A model: its repository, Ollama's tag, billions of parameters, GB by format, how often."""

    repository: str
    tag: str
    billions: float
    active: float
    gb: dict[str, float]
    often: int


MODELS = (
    Weights("Qwen/Qwen3-0.6B", "qwen3:0.6b", 0.6, 0.6, {"Q8_0": 0.64}, 1),
    Weights("meta-llama/Llama-3.2-3B-Instruct", "llama3.2:3b", 3.2, 3.2, {"Q4_K_M": 2.02}, 3),
    Weights("google/gemma-3-4b-it", "gemma3:4b", 4.3, 4.3, {"Q4_K_M": 2.49, "Q8_0": 4.1}, 3),
    Weights("meta-llama/Llama-3.1-8B-Instruct", "llama3.1:8b", 8.03, 8.03,
            {"Q4_K_M": 4.92, "Q8_0": 8.5}, 7),
    Weights("Qwen/Qwen3-8B", "qwen3:8b", 8.19, 8.19, {"Q4_K_M": 5.03, "Q6_K": 6.7}, 7),
    Weights("google/gemma-3-12b-it", "gemma3:12b", 12.2, 12.2, {"Q4_K_M": 7.3}, 3),
    Weights("Qwen/Qwen3-14B", "qwen3:14b", 14.8, 14.8, {"Q4_K_M": 9.0}, 3),
    Weights("openai/gpt-oss-20b", "gpt-oss:20b", 20.9, 3.6, {"MXFP4": 12.1}, 3),
    Weights("Qwen/Qwen3-30B-A3B", "qwen3:30b-a3b", 30.5, 3.3, {"Q4_K_M": 18.6}, 4),
    Weights("meta-llama/Llama-3.3-70B-Instruct", "llama3.3:70b", 70.6, 70.6, {"Q4_K_M": 42.5}, 2))
VERSIONS = {"Ollama": ("0.12.3", "0.12.9", "0.13.2", "0.14.0"),
            "llama.cpp": ("b6800", "b7012", "b7205", "b7410", "b7533"),
            "LM Studio": ("0.3.30", "0.3.34"), "vLLM": ("0.11.0", "0.12.1"),
            "MLX": ("0.29.1", "0.30.0")}
EFFICIENCY = {"Ollama": 0.94, "llama.cpp": 1.0, "LM Studio": 0.97, "vLLM": 1.02, "MLX": 1.05}


def served_name(weights: Weights, engine: str, quantization: str) -> tuple[str, str]:
    """(name as the server spells it, its name of the format)."""
    _, _, name = weights.repository.partition("/")
    if engine == "Ollama":
        usual = quantization == next(iter(weights.gb))
        return weights.tag if usual else f"{weights.tag}-{quantization.lower()}", quantization
    if engine == "MLX":
        return f"mlx-community/{name}-4bit", "4bit"
    if engine == "vLLM":
        return f"{weights.repository}-AWQ", "AWQ"
    return (f"{name}-{quantization}.gguf" if engine == "llama.cpp" else weights.repository.lower(),
            quantization)


def spec_of(rng: random.Random, i: int) -> tuple[Spec, str]:
    """The i-th run of the year, and its owner's notes."""
    [kind] = rng.choices(KINDS, [one.owners for one in KINDS])
    owner = random.Random(f"{kind.tag} {rng.randrange(kind.owners)}")
    handle = "".join(owner.choice(words.split()) for words in WORDS) + str(owner.randrange(99))
    memory = owner.choice(kind.main_memory_gib) * GIB
    probed = {**kind.probed, "memory": {
        **kind.probed["memory"],
        "capacity_bytes": memory if "Apple" in str(kind.probed["cpu"]) else memory * 97 // 100}}
    own = 1 + owner.gauss(0, 0.03)
    if owner.random() < 0.2 and probed["accelerators"] and kind.tag.startswith("r"):
        probed["accelerators"] = [{**card, "power_limit_w": card["power_limit_w"] * 0.9}
                                  for card in probed["accelerators"]]
        own *= 0.96
    engine = rng.choice(("Ollama", "llama.cpp", "LM Studio", "MLX")
                        if "Apple" in str(probed["cpu"]) else
                        ("Ollama", "Ollama", "llama.cpp", "llama.cpp", "LM Studio")
                        + (("vLLM",) if kind.gb_per_s > 600 else ()))
    fitting = [one for one in MODELS if min(one.gb.values()) * 1.15 < kind.room_gb]
    weights = rng.choices(fitting, [one.often for one in fitting])[0]
    formats = [name for name, size in weights.gb.items() if size * 1.1 < kind.room_gb]
    at_four_bits = engine in ("MLX", "vLLM")
    quantization = formats[0] if at_four_bits or rng.random() < 0.7 else rng.choice(formats)
    model, reported = served_name(weights, engine, quantization)
    gb = weights.gb[quantization]
    read_gb = gb * weights.active / weights.billions
    version = rng.randrange(len(VERSIONS[engine]))
    share = rng.gauss(0.72, 0.03) * EFFICIENCY[engine] * own * (1 + 0.02 * version)
    rate = kind.gb_per_s * share / read_gb / (1 + 0.0009 * kind.gb_per_s / read_gb)
    prefill = kind.tflops * 1000 * rng.uniform(0.75, 1) / 2 / weights.active
    odd = rng.random()
    return Spec(
        seed=i, handle=handle, tag=f"{kind.tag}-{memory // GIB}gb" if rng.random() < 0.5 else
        kind.tag, models=(model,), quantization=reported, engine=engine,
        version=VERSIONS[engine][version], probed=probed, decode_ms_per_token=1000 / rate,
        prefill_ms_per_token=1000 / prefill, noise=rng.choice((0.01, 0.02, 0.03, 0.06)),
        day=i * 330 // max(BASES, i + 1), tokens=rng.choice((60, 90, 140)),
        phases=rng.choice(["all"] * 2 + ["hello,5q,20q"]),
        cached_share=0.5 if odd < 0.04 else 0.0,
        overrides={"num_predict": 256} if 0.04 < odd < 0.08 else None,
        target_class="public" if 0.08 < odd < 0.1 else "lan" if 0.1 < odd < 0.13 else "loopback",
        context_tokens=2048 if 0.13 < odd < 0.17 else 4096,
        facts={"parameters_count": int(weights.billions * 1e9), "file_bytes": int(gb * 1e9)},
    ), rng.choice(NOTES)


BASES = 300


def curves(spec: Spec) -> list[Json]:
    """Speed by lanes and by depth of context, as metadata.json has it; two parts of the ledger
    that the made runs lack."""
    rate, read = 1000 / spec.decode_ms_per_token, 1000 / spec.prefill_ms_per_token
    found: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {
        ("ramp", "lanes_count"): {"output_token_throughput_tokens_per_s": [
            (lanes, rate * lanes / (1 + lanes / 4)) for lanes in (1, 2, 4, 8, 16)]},
        ("depth", "depth_tokens"): {
            "decode_tokens_per_s": [(k * 1024, rate / (1 + k / 40)) for k in (1, 4, 8, 16, 32)],
            "prefill_tokens_per_s": [(k * 1024, read / (1 + k / 25)) for k in (1, 4, 8, 16, 32)]}}
    return [{"model": spec.models[0], "phase": phase, "axis": axis, "series": [
        {"metric": name, "points": [{"at": at, "n": 6, "value": round(value, 2), "low": round(
            value * 0.97, 2), "high": round(value * 1.02, 2)} for at, value in points]}
        for name, points in series.items()]} for (phase, axis), series in found.items()]


def bases(count: int) -> Iterator[tuple[Made, str]]:
    """Different complete runs, each with its owner's notes; some are not ranked."""
    rng = random.Random(7)
    for i in range(count):
        spec, notes = spec_of(rng, i)
        made = made_submissions.make(spec)
        if i % 9 == 0:
            made.metadata["curves"] = curves(spec)
        yield made, notes


def scaled(value: Any, factor: float, name: str = "") -> Any:
    """Times of a document multiplied and rates divided by a factor, in 6 significant digits."""
    if isinstance(value, list):
        return [scaled(one, factor, name) for one in value]
    if isinstance(value, dict):
        return {key: scaled(held, factor, name if key in (
            "median", "p25", "p75", "ci_low", "ci_high", "min", "max", "mean") else key)
            for key, held in value.items()}
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    turn = 1 / factor if name.endswith("_per_s") else factor if name.endswith("_ms") else 1
    return value if turn == 1 else float(f"{value * turn:.6g}")


def variants(count: int, different: int) -> Iterator[tuple[Json, bytes, str]]:
    """(documents by name, ledger bytes, notes) of `count` submissions."""
    rng = random.Random(2)
    made: list[tuple[Made, bytes, str]] = []
    for base, notes in bases(min(different, count)):
        lines = b"".join(map(ledger.dump_line, base.events))
        made.append((base, lines, notes))
        yield {name: getattr(base, name) for name in ("manifest", "hardware", "metadata")}, \
            lines, notes
    for i in range(len(made), count):
        base, lines, notes = made[rng.randrange(len(made))]
        begun = (BEGIN + datetime.timedelta(minutes=37 * i)).isoformat()
        factor, run_id = rng.gauss(1, 0.03), str(uuid.uuid5(NAMESPACE, str(i)))
        who = {"run_id": run_id, "submitter_handle": f"user-{i % (count // 5 + 1)}"}
        metadata = {**base.metadata, **who, "cells": scaled(base.metadata["cells"], factor),
                    "models": scaled(base.metadata["models"], factor),
                    "run": {**base.metadata["run"], "started_at": f"{begun}.000Z"}}
        manifest = {**base.manifest, **who}
        for old, new in ((base.manifest["run_id"], run_id),
                         (ledger.manifest_sha256(base.manifest), ledger.manifest_sha256(manifest))):
            lines = lines.replace(old.encode(), new.encode())
        yield {"manifest": manifest, "hardware": base.hardware, "metadata": metadata}, lines, notes


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", help="folder to create")
    parser.add_argument("count", type=int)
    parser.add_argument("--bases", type=int, default=60, help="runs that are not repetitions")
    parser.add_argument("--ledgers", type=int, default=0, help="submissions with a ledger")
    args = parser.parse_args()
    os.makedirs(args.folder)
    for i, (documents, lines, notes) in enumerate(variants(args.count, args.bases)):
        folder = made_submissions.folder_of(args.folder, documents["manifest"])
        os.makedirs(folder)
        for name, document in documents.items():
            with open(os.path.join(folder, f"{name}.json"), "w", encoding="ascii") as file:
                json.dump(document, file, indent=1)
        if i < args.ledgers:
            with open(os.path.join(folder, ledger.LEDGER), "wb") as file:
                file.write(lines)
            with open(os.path.join(folder, "run.md"), "w", encoding="ascii") as file:
                for name, text in (("deviations", "None."), ("notes", notes), ("attestation", "")):
                    file.write("\n".join((*attestation.section_marks(name), "")).replace(
                        "\n", f"\n{text}\n", 1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
