"""Write many submissions, to measure the time and memory of comparing them.

    python many_submissions.py FOLDER 10000                 without ledgers
    python many_submissions.py FOLDER 1000 --ledgers 1000   with ledgers, for a page's details

A few complete runs (see made_submissions.py) on different machines, models and runtimes are
repeated with other processors, tags, handles, dates and run ids, and with their numbers scaled by
one factor each. The same arguments give the same bytes.
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
from typing import Any

from core import ledger
from tests import made_submissions
from tests.made_submissions import DESKTOP, GIB, MAC, Made, Spec

Json = dict[str, Any]

CPUS = ("Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz", "AMD Ryzen 5 5600G with Radeon Graphics",
        "Intel(R) Core(TM) Ultra 7 155H", "AMD EPYC 7763 64-Core Processor", "Cortex-A76")
CARDS = (("NVIDIA GeForce RTX 3060", 12), ("NVIDIA GeForce RTX 4070 Ti SUPER", 16),
         ("AMD Radeon RX 7900 XTX", 24), ("NVIDIA RTX A6000", 48), ("NVIDIA H100 PCIe", 80))
MODELS = (("smollm2-135m", "Q8_0", 1.0), ("qwen2.5-0.5b-instruct", "Q4_K_M", 2.0),
          ("llama-3.2-1b-instruct", "Q4_K_M", 3.5), ("gemma-3-4b-it", "Q4_0", 9.0),
          ("qwen3-8b", "Q4_K_M", 16.0), ("mistral-small-24b", "IQ4_XS", 44.0))
RUNTIMES = (("llama.cpp", "b6800"), ("llama.cpp", "b7012"), ("Ollama", "0.12.3"),
            ("LM Studio", "0.3.30"), ("vLLM", "0.11.0"), ("MLX", "0.29.1"))
BASES = 60
NAMESPACE = uuid.UUID("11111111-1111-1111-1111-111111111111")


def machines() -> list[tuple[str, Json, float]]:
    """(tag, probed facts, factor of slowness)."""
    found = [("mac-m1-8gb", MAC, 3.0), ("desktop-rtx4090", DESKTOP, 0.5)]
    for i, cpu in enumerate(CPUS):
        probed = {**DESKTOP, "cpu": {**DESKTOP["cpu"], "model_name": cpu}, "accelerators": [],
                  "memory": {**DESKTOP["memory"], "capacity_bytes": (8 << i % 4) * GIB * 97 // 100}}
        found.append((f"box-{i}", probed, 4.0 + 3 * i))
    for name, size in CARDS:
        card = {**DESKTOP["accelerators"][0], "model_name": name, "memory_bytes": size * GIB}
        found.append((f"gpu-{size}gb", {**DESKTOP, "accelerators": [card]}, 30 / size))
    return found


def bases() -> list[Made]:
    """Complete runs of different combinations; some are not ranked."""
    rng = random.Random(1)
    out = []
    for i in range(BASES):
        tag, probed, slow = rng.choice(machines())
        model, quantization, heavy = rng.choice(MODELS)
        engine, version = rng.choice(RUNTIMES)
        spec = Spec(seed=i, tag=tag, models=(model,), quantization=quantization, engine=engine,
                    version=version, probed=probed, decode_ms_per_token=slow * heavy,
                    prefill_ms_per_token=slow * heavy / 8, noise=rng.choice((0.01, 0.03, 0.05)),
                    cached_share=0.5 if i % 20 == 7 else 0.0,
                    overrides={"num_predict": 256} if i % 20 == 11 else None,
                    target_class="public" if i % 30 == 13 else "loopback")
        out.append(made_submissions.make(spec))
    return out


def scaled(cells: list[Json], factor: float) -> list[Json]:
    """Times multiplied and rates divided by a factor, in 6 significant digits."""
    def part(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            turn = 1 / factor if name.endswith("_per_s") else factor
            return {k: v if v is None or k == "n" else float(f"{v * turn:.6g}")
                    for k, v in value.items()}
        return value

    kept = ("output_tokens", "prompt_tokens", "cached_tokens", "coalesced_ratio")
    return [{**cell, "metrics": {name: value if name in kept else part(name, value)
                                 for name, value in cell["metrics"].items()}} for cell in cells]


def variants(count: int) -> Iterator[tuple[Json, bytes]]:
    """(documents by name, ledger bytes) of `count` submissions."""
    rng = random.Random(2)
    made = bases()
    ledgers = [b"".join(map(ledger.dump_line, one.events)) for one in made]
    for i in range(count):
        at = rng.randrange(len(made))
        base, run_id = made[at], str(uuid.uuid5(NAMESPACE, str(i)))
        number = rng.randrange(max(count // 40, 2))
        tag, cpu = f"{base.manifest['device_tag']}-{number}", base.hardware["cpu"]
        chip = {**cpu["model_name"], "value": f"{cpu['model_name']['value']} {number}"}
        hardware = {**base.hardware, "cpu": {**cpu, "model_name": chip}}
        begun = (datetime.datetime(2026, 1, 1) + datetime.timedelta(minutes=37 * i)).isoformat()
        who = {"run_id": run_id, "submitter_handle": f"user-{i % (count // 5 + 1)}",
               "device_tag": tag}
        metadata = {**base.metadata, **who,
                    "run": {**base.metadata["run"], "started_at": f"{begun}.000Z"},
                    "cells": scaled(base.metadata["cells"], rng.uniform(0.9, 1.2))}
        manifest = {**base.manifest, **who}
        lines = ledgers[at]
        for old, new in ((base.manifest["run_id"], run_id),
                         (ledger.manifest_sha256(base.manifest), ledger.manifest_sha256(manifest))):
            lines = lines.replace(old.encode(), new.encode())
        yield {"manifest": manifest, "hardware": hardware, "metadata": metadata}, lines


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", help="folder to create")
    parser.add_argument("count", type=int)
    parser.add_argument("--ledgers", type=int, default=0, help="submissions with a ledger")
    args = parser.parse_args()
    os.makedirs(args.folder)
    for i, (documents, lines) in enumerate(variants(args.count)):
        folder = made_submissions.folder_of(args.folder, documents["manifest"])
        os.makedirs(folder)
        for name, document in documents.items():
            with open(os.path.join(folder, f"{name}.json"), "w", encoding="ascii") as file:
                json.dump(document, file, indent=1)
        if i < args.ledgers:
            with open(os.path.join(folder, ledger.LEDGER), "wb") as file:
                file.write(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
