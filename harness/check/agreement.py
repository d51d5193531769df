"""Compare facts that a run records in more than one place.

An edit of one leaves the other as it was: the machine in hardware.json and in the samples of the
host, a text and the bytes that brought it, a command line and the values beside it. A gauge writes
no more digits than it has.
"""
from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from complete.metadata import values as facts_in
from core import ledger, metrics, schema, usage
from core.metric_definitions import ONE_LANE_PHASES
from core.records import Manifest
from core.thresholds import USED_CARD_RATIO
from engines import server_errors
from machine import inventory, system
from run import redaction, reply

Problems = Iterator[tuple[str, str]]          # code, what

# --- gauges
DIGITS = {"load_1m": 2, "cpu_busy_ratio": 4, "cpu_steal_ratio": 4, "other_cpu_busy_ratio": 4,
          "temperature_c": 1}
PAGED = ("memory_used_bytes", "memory_available_bytes", "server_memory_bytes")
PAGE_BYTES = 1024             # /proc counts in KiB, other systems in larger pages
LOAD_S, LOAD_STEP_S, LOAD_SPARE = 60, 6, 0.03     # of the system's moving average, and its rounding
# Linux counts the active tasks every five seconds, and adds 164/2048 of them to the average.
LOAD_DECAY, ONE_COUNT_US, COUNT_SPARE = 1884 / 2048, 5_600_000, 0.13
ODD_COUNTS, ODD_SHARE = 3, 0.03             # honest runs have 1 in 97, of samples that come late
BURST_TASKS = 48                            # more than in both counts beside; honest runs have 14
# µJ of one step of a package's energy counter: Intel, AMD, and small Intel CPUs.
ENERGY_STEPS_UJ, ENERGY_SPARE_UJ, ENERGY_SHARE, MIN_ENERGY_STEPS = (61.035, 15.258, 32), 3, 0.9, 20
# --- hardware.json
PROBED_STEPS = {"memory.capacity_bytes": PAGE_BYTES, "memory.swap_bytes": PAGE_BYTES,
                "cpu.cache_l1d_kib": 4, "cpu.cache_l2_kib": 32, "cpu.cache_l3_kib": 32}
PROBED_DIGITS = {"memory.bandwidth_measured_gb_per_s": 1, "cpu.base_mhz": 3, "cpu.max_mhz": 3}
# Differs from probe to probe of one machine.
UNSTEADY = re.compile(r"memory\.(bandwidth_measured|swap)|accelerators\.\d+\.pcie_\w+_current")
SYSTEMS = {"Darwin": "macos", "Windows": "windows"}       # others have their own name
VENDORS = {"Intel": "GenuineIntel", "AMD": "AuthenticAMD", "Apple": "Apple"}
IDLE_THREADS, MIN_SAMPLES = 0.5, 5          # samples taken while calls ran
OTHERS_IDLE = 0.2             # of all CPUs
RESIDENT_SHARE = 0.5          # of the weights; all of them are read for every token
# --- streams
MIN_CHUNKS, MIN_CALLS = 16, 8
# Merged runs: 20, and 0.06 per chunk. Longer names of models may make the length of a chunk in
# HTTP, in hexadecimal digits, depend on its text.
SPARE_BYTES, SPARE_PER_CHUNK = 32, 0.4
STEADY_ENGINES = ("llama.cpp", "vLLM", "Ollama")    # others may vary what surrounds a text
ID_LENGTHS = {"Ollama": 3}                  # one to three digits in each chunk of an answer
ESCAPED = {"Ollama": re.compile("[<>&]")}   # six bytes each
STOPS_SHARE = 0.25            # of the answers; more of them if the server does not count the end
LONGER_KEYS = (0, 2, 10)      # of "reasoning" and "reasoning_content" than of "content"
BURST_RATIO, BURST_SHARE = 0.1, 0.35        # of the mean gap; merged runs have no such gaps
# --- speeds
LANES_RATIO = 1.25            # n lanes are at most n times as fast as one
PHASES_RATIO = 1.45           # between the fastest calls of phases; merged runs have up to 1.34
# --- the command line, hashes
SHA256 = re.compile("sha256:[0-9a-f]{64}")
FLAGS = ((r"(?:-t|--threads)", "threads_count"),
         (r"(?:-np|--parallel|OLLAMA_NUM_PARALLEL)", "slots_count"),
         (r"(?:-b|--batch-size)", "batch_tokens"), (r"(?:-ub|--ubatch-size)", "micro_batch_tokens"))


def problems(manifest: Manifest, events: Sequence[Any], metadata: Any, hardware: Any) -> Problems:
    """(code, what) of everything that contradicts another record of the same fact."""
    samples = [event for event in events if event["event"] == "host_sampled"]
    calls = [call for call in ledger.latest_calls(events) if call["outcome"] == "ok"
             and call["response"] and call["timing"]]
    is_linux = manifest["os"]["system"] == "Linux"
    yield from _gauges(samples, is_linux, "clock_origin_ns" not in events[0])
    if is_linux:
        yield from _counters(samples)
    yield from _segments(events)
    if metadata["endpoint"]["same_machine"]["value"] is True:
        yield from _hardware(manifest, hardware)
        yield from _idle(samples, calls, metadata, hardware)
    yield from _claims(metadata)
    yield from _messages(events)
    if manifest["engine"]["name"] in STEADY_ENGINES:
        yield from _streams(calls, manifest["engine"]["name"])
    for model in metadata["models"]:
        own = [call for call in calls if call["model"] == model["model"]]
        cells = [cell for cell in metadata["cells"] if cell["model"] == model["model"]]
        for code, what in (*_bursts(own, model["draft_model"]["value"]), *_ends(own),
                           *_speeds(own, cells)):
            yield code, f"{schema.shown(model['model'])}: {what}"


# --- the machine ---------------------------------------------------------------------------------
def _gauges(samples: Sequence[Any], is_linux: bool, is_rounded: bool) -> Problems:
    """What no gauge writes: more digits, half of a page, a counter or an average that falls.
    is_rounded: earlier versions wrote four digits of a ratio."""
    paged = (*PAGED, "swap_used_bytes") if is_linux else PAGED      # macOS rounds its swap
    for sample in samples:
        odd = [name for name, digits in DIGITS.items()
               if sample.get(name) is not None and sample[name] != round(sample[name], digits)]
        odd += [name for name in paged if (sample.get(name) or 0) % PAGE_BYTES]
        odd += [name for name in ("cpu_busy_ratio", "other_cpu_busy_ratio") if is_rounded
                and sample[name] is not None and sample[name] != system.ratio(sample[name], 1)]
        if odd:
            yield "ledger-altered", f"line {sample['seq'] + 1}: {odd[0]} is {sample[odd[0]]}, " \
                "which its gauge does not write"
    for before, after in zip(samples, samples[1:]):
        if before["segment"] != after["segment"]:
            continue
        # The sampler adds up the energy itself. The system's count of throttling may fall: it
        # leaves out CPUs that are switched off.
        if None not in (before["energy_uj"], after["energy_uj"]) \
                and after["energy_uj"] < before["energy_uj"]:
            yield "ledger-altered", f"line {after['seq'] + 1}: energy_uj falls from " \
                f"{before['energy_uj']} to {after['energy_uj']}"
        if before["load_1m"] is not None and after["load_1m"] is not None:
            passed_s = max(after["t_us"] - before["t_us"], 0) / 1e6 + LOAD_STEP_S
            least = before["load_1m"] * math.exp(-passed_s / LOAD_S) - LOAD_SPARE
            if after["load_1m"] < least:
                yield "time-unexplained", f"load_1m falls from {before['load_1m']} to " \
                    f"{after['load_1m']} within {passed_s - LOAD_STEP_S:.1f} s; in that time, an " \
                    f"average over a minute cannot fall below {least:.2f}"


def _segments(events: Sequence[Any]) -> Problems:
    """The machines of resumed segments against that of the first."""
    first, *others = [{key: item for key, item in facts_in(event["hardware"])
                       if not UNSTEADY.match(key)}
                      for event in events if event["event"] == "machine_identified"] or [{}]
    for other in others:
        if other != first:
            was, now = schema.difference("machine_identified", first, other)
            yield "server-changed", f"{was}; in a later segment it is {now}"


def _counters(samples: Sequence[Any]) -> Problems:
    """Load and energy between two samples against the whole numbers that they are made of: samples
    that were moved, removed, smoothed or scaled do not fit."""
    counts, steps = list[float](), list[int]()
    for before, after in zip(samples, samples[1:]):
        if before["segment"] != after["segment"]:
            continue
        if None not in (before["load_1m"], after["load_1m"]) \
                and after["t_us"] - before["t_us"] < ONE_COUNT_US:
            counts.append((after["load_1m"] - LOAD_DECAY * before["load_1m"]) / (1 - LOAD_DECAY)
                          if after["load_1m"] != before["load_1m"] else round(after["load_1m"]))
        if None not in (before["energy_uj"], after["energy_uj"]):
            steps.append(after["energy_uj"] - before["energy_uj"])
    odd = sum(abs(count - round(count)) > COUNT_SPARE for count in counts)
    if odd >= max(ODD_COUNTS, ODD_SHARE * len(counts)):
        yield "time-unexplained", f"load_1m changes {odd} of {len(counts)} times as no whole " \
            "number of tasks changes it; samples may be missing or at another place"
    # A sample that comes late follows two counts of the system, hence twice the tasks.
    burst = max((count - 2 * max(before, after) for before, count, after in zip(
        counts, counts[1:], counts[2:])), default=0)
    if burst > BURST_TASKS:
        yield "time-unexplained", f"load_1m rises once as if {burst:.0f} more tasks were active " \
            "than five seconds before and after"
    fitting = max(sum(abs(step - unit * round(step / unit)) <= ENERGY_SPARE_UJ for step in steps)
                  for unit in ENERGY_STEPS_UJ)
    if len(steps) >= MIN_ENERGY_STEPS and fitting < ENERGY_SHARE * len(steps):
        yield "hardware-implausible", f"energy_uj grows by {steps[0]}, {steps[1]}, ...; no known " \
            "counter has steps that fit"


def _hardware(manifest: Manifest, hardware: Any) -> Problems:
    """hardware.json against the manifest and against itself. Probed values only: a contributor may
    declare a rounded one."""
    probed = {f"{part}.{name}": field["value"] for part in ("cpu", "memory", "os")
              for name, field in hardware[part].items()
              if field["source"] == "probed" and field["value"] is not None}
    ran_on = manifest["os"]["system"]
    name = str(probed.get("os.name", "")).lower().replace(" ", "")
    named = [system for system, word in SYSTEMS.items() if word in name]
    if name and (ran_on not in inventory.PROBERS
                 or named != [system for system in SYSTEMS if system == ran_on]):
        yield "hardware-implausible", f"os.name is {schema.shown(probed['os.name'])}; the run " \
            f"was made on {schema.shown(ran_on)}"
    odd = [key for key, step in PROBED_STEPS.items() if probed.get(key, 0) % step]
    odd += [key for key, digits in PROBED_DIGITS.items()
            if probed.get(key, 0) != round(probed.get(key, 0), digits)]
    sets = probed.get("cpu.instruction_sets", [])
    odd += ["cpu.instruction_sets"] if sets != sorted({*sets}) else []
    for key in odd:
        yield "hardware-implausible", f"{key} is {schema.shown(probed[key])}, which no system " \
            "reports"
    vendor, model = probed.get("cpu.vendor"), str(probed.get("cpu.model_name", ""))
    for word, of_word in VENDORS.items():
        if vendor and re.match(rf"{word}\b", model) and vendor != of_word:
            yield "hardware-implausible", f"cpu.vendor is {schema.shown(vendor)} of " \
                f"{schema.shown(model)}"


def _idle(samples: Sequence[Any], calls: Sequence[Any], metadata: Any, hardware: Any) -> Problems:
    """Answers of processors that did nothing, or of a server without room for the weights: those
    of another machine, behind a server that forwards them."""
    backend = metadata["runtime"]["backend"]["value"]
    if backend is None:
        return
    spans: dict[int, tuple[int, int]] = {}
    for call in calls:           # lanes make no pauses, so samples in between are of calls
        begin_us, end_us = spans.get(call["segment"], (call["timing"]["started_us"], 0))
        spans[call["segment"]] = begin_us, max(end_us, call["t_us"])
    within = [sample for sample in samples if sample["cpu_busy_ratio"] is not None
              and sample["segment"] in spans
              and spans[sample["segment"]][0] < sample["t_us"] <= spans[sample["segment"]][1]]
    cards = [0.0]                # a CPU answers, whatever the cards do
    if backend != "cpu":
        within = [sample for sample in within if sample["gpus"] and None not in [
            card["busy_ratio"] for card in sample["gpus"]]]
        cards = [max(card["busy_ratio"] for card in sample["gpus"]) for sample in within]
    threads = hardware["cpu"]["threads_count"]["value"]
    if len(within) >= MIN_SAMPLES and threads and metrics.median(cards) < USED_CARD_RATIO:
        busy = threads * metrics.median(sample["cpu_busy_ratio"] for sample in within)
        if busy < IDLE_THREADS:
            yield "hardware-implausible", f"backend is {schema.shown(backend)}, but {busy:.2f} " \
                f"of {threads} threads, and {metrics.median(cards):.0%} of the cards, were busy " \
                "while answers came"
    if backend != "cpu":
        return
    # A forwarder of a container holds the port, too; then its server is one of the others.
    others = [sample["other_cpu_busy_ratio"] for sample in samples
              if sample["other_cpu_busy_ratio"] is not None]
    resident = max((sample.get("server_memory_bytes") or 0 for sample in samples), default=0)
    sizes = [model["file_bytes"]["value"] for model in metadata["models"]]
    if resident and others and metrics.median(others) < OTHERS_IDLE and None not in sizes \
            and resident < RESIDENT_SHARE * min(sizes):
        yield "hardware-implausible", f"the server had {resident:.0f} bytes of memory, the " \
            f"weights have {min(sizes)}"


def _claims(metadata: Any) -> Problems:
    """The server's command line against the values that it sets, and hashes against their form."""
    flags = metadata["runtime"]["launch_flags"]["value"] or ""
    values = {name: field["value"] for holder in (metadata["runtime"], *metadata["models"][:1])
              for name, field in holder.items() if isinstance(field, dict)}
    for flag, name in FLAGS:
        given = re.findall(rf"(?:^|\s){flag}[ =](\d\S*)", flags)
        value = values.get(name)
        if given and value is not None and given[-1] != str(value):
            yield "claim-contradicted", f"launch_flags sets {name} to " \
                f"{schema.shown(given[-1])}; it is {value}"
    for model in metadata["models"]:
        digest = model["digest"]["value"] or ""
        if digest.startswith("sha256:") and not SHA256.fullmatch(digest):
            yield "claim-contradicted", f"{schema.shown(digest)} is not a SHA-256"


# --- streams -------------------------------------------------------------------------------------
def _streams(calls: Sequence[Any], engine: str) -> Problems:
    """Texts against the bytes that brought them: a server puts the same JSON around each chunk."""
    by_model: dict[str, list[Any]] = {}
    for call in calls:
        text = call["response"]["text"] + call["response"]["reasoning_text"]
        if len(call["timing"]["chunk_us"]) >= MIN_CHUNKS and text.isascii() \
                and redaction.REDACTED_KEY not in text:
            escapes = 5 * len(ESCAPED[engine].findall(text)) if engine in ESCAPED else 0
            by_model.setdefault(call["model"], []).append(
                (call, call["timing"]["bytes_received"] - len(json.dumps(text)) - escapes))
    for model, rows in by_model.items():
        if len(rows) < MIN_CALLS:
            continue
        odd = min((_odd_sizes(rows, key, ID_LENGTHS.get(engine, 1)) for key in LONGER_KEYS),
                  key=len)
        if odd:
            call, over = max(odd, key=lambda one: abs(one[1]))
            yield "server-counts-contradict", f"{schema.shown(model)}: " \
                f"{schema.shown(call['question_id'])} received {over:+.0f} bytes compared with " \
                "its text and the size of chunks in other calls; in " \
                f"{len(odd)} of {len(rows)} calls"


def _odd_sizes(rows: Sequence[tuple[Any, int]], key: int,
               id_lengths: int) -> list[tuple[Any, float]]:
    """(call, bytes too many) of calls that do not fit. rows: (call, bytes around its text). key:
    more bytes around a chunk of reasoning."""
    by_reason: dict[Optional[str], list[tuple[int, int, Any]]] = {}
    for call, around in rows:     # the end's size depends on its reason
        by_reason.setdefault(call["response"]["finish_reason"], []).append(
            (len(call["timing"]["chunk_us"]), around - key * call["reasoning"]["chunks"], call))
    slopes = []
    for found in by_reason.values():
        found.sort(key=lambda one: one[:2])
        slopes += [(after[1] - before[1]) / (after[0] - before[0])
                   for before, after in zip(found, found[len(found) // 2:])
                   if after[0] > before[0]]
    slope = metrics.median(slopes) if slopes else 0
    odd = []
    for found in by_reason.values():
        usual = metrics.median(size - slope * chunks for chunks, size, _ in found)
        for chunks, size, call in found:
            over = min((size - slope * chunks - usual + shorter * chunks
                        for shorter in range(id_lengths)), key=abs)
            if abs(over) > SPARE_BYTES + SPARE_PER_CHUNK * chunks:
                odd.append((call, over))
    return odd


def _messages(events: Sequence[Any]) -> Problems:
    """A server's message against the body that held it."""
    for event in events:
        error = event["error"] if event["event"] == "call_finished" else None
        body = (error["body_start"] or "") if error else ""
        if error and body and error["kind"] in ("http_error", "context_limit") \
                and error["status"] != 200 and len(body) < reply.MAX_BODY_START \
                and "<redacted" not in body + error["message"]:
            message = server_errors.error_message(body)
            if message in ("", error["message"]):
                continue
            yield "server-counts-contradict", f"line {event['seq'] + 1}: error.message is " \
                f"{schema.shown(error['message'])}, body_start has {schema.shown(message)}"


def _ends(calls: Sequence[Any]) -> Problems:
    """Why answers ended against their tokens: the one that ends an answer has no text, and servers
    that report the limit do so when its last token has text."""
    ended, full = list[tuple[bool, Any]](), list[tuple[bool, Any]]()
    for call in calls:
        tokens = usage.counts(call["response"]).completion
        if not tokens or call["reasoning"]["chunks"]:
            continue
        has_stopped = reply.reason_of(call["response"]["finish_reason"]) in reply.STOPPED
        has_no_end = has_stopped and len(call["timing"]["chunk_us"]) >= tokens
        if has_stopped:
            ended.append((has_no_end, call))
        if tokens >= (call["request"]["options"].get("max_tokens") or math.inf):
            full.append((has_no_end, call))
    for found in (ended, full):
        odd = [call for has_no_end, call in found if has_no_end]
        if odd and len(odd) <= STOPS_SHARE * len(found) and len(found) >= MIN_CALLS:
            yield "server-counts-contradict", f"{schema.shown(odd[0]['question_id'])} has as " \
                f"many chunks as tokens and ended as {odd[0]['response']['finish_reason']}; in " \
                f"{len(odd)} of {len(found)} calls"
            return


def _bursts(calls: Sequence[Any], draft_model: Optional[str]) -> Problems:
    """Tokens that come several at once, as those of a draft model that is accepted."""
    shares = []
    for call in calls:
        gaps = call["timing"]["chunk_us"][1:]
        if len(gaps) >= 2 * MIN_CHUNKS:
            mean = sum(gaps) / len(gaps)
            shares.append(sum(gap < BURST_RATIO * mean for gap in gaps) / len(gaps))
    if len(shares) >= 3 and metrics.median(shares) > BURST_SHARE and draft_model in (None, "none"):
        yield "tokens-implausible", f"{metrics.median(shares):.0%} of the chunks come at once " \
            "with the one before, and no draft model is declared"


# --- speeds --------------------------------------------------------------------------------------
def _speeds(calls: Sequence[Any], cells: Sequence[Mapping[str, Any]]) -> Problems:
    """Lanes against one lane, and the phases on one lane against each other, as far as other
    programs did not slow them."""
    busy = {cell["phase"] for cell in cells if "busy_host" in cell["flags"]}
    for cell in cells:
        if (cell["speedup_ratio"] or 0) > LANES_RATIO * cell["lanes"]:
            yield "hardware-exceeded", f"{cell['phase']}: {cell['lanes']} lanes are " \
                f"{cell['speedup_ratio']:.3g} times as fast as one"
    rates: dict[str, list[float]] = {}
    for call in calls:
        is_alone = call["phase"] in ONE_LANE_PHASES and call["phase"] not in busy
        rate = metrics.decode_rate(call) if is_alone else None
        if rate:
            rates.setdefault(call["phase"], []).append(rate)
    # Phases are slower on a busy machine, but hardly the fastest call of each.
    fastest = {max(found): phase for phase, found in rates.items() if len(found) >= 3}
    if fastest and max(fastest) > PHASES_RATIO * min(fastest):
        yield "server-changed", f"the fastest call has {max(fastest):.4g} tokens/s in " \
            f"{fastest[max(fastest)]}, {min(fastest):.4g} in {fastest[min(fastest)]}"
