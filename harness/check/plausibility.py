"""Find numbers that no machine reaches, and signs of invented data. All findings are warnings.

An honest machine can surprise, and a careful forger can run this harness against a program that
only sleeps, which no check of files recognizes. These checks recognize carelessness: tokens faster
than memory, gaps without jitter, round times, one answer to many questions.
"""
from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from check import copies
from complete.metadata import FACTS
from core import ledger, metrics, schema, usage
from core.metric_definitions import GROWING_PHASES
from core.reasoning_marks import strip_reasoning
from core.suites import PHASES
from core.thresholds import DECODE_GAPS, MIN_PREFILL_TOKENS, SPARE_TOKENS
from run import state

Json = dict[str, Any]
Problems = Iterator[tuple[str, str]]          # code, what

# --- physics
SPARE_RATIO = 1.05            # sizes and bandwidths are rounded
SPARE_SHARE = 0.005           # counters of idle time go back a little
COPY_TO_READ = 2              # reading alone may be faster than the measured copy
CURVE_RATIO = 1.25            # from a level of ramp or depth to the next
CACHES_SHARE = 0.5            # of the weights: what the caches keep is not read again
MIXTURE = re.compile(r"\d+x\d|[-_.]a\d+(?:\.\d+)?b|moe|mixtral|gpt-?oss|deepseek-?v", re.IGNORECASE)
# Most operations per cycle and core; a multiplication and an addition of 8-bit numbers are two.
OPERATIONS = (("amx_int8", 4096), ("sme", 4096), ("avx512_vnni", 512), ("avx512f", 256),
              ("avx_vnni", 256), ("avx2", 128), ("i8mm", 256), ("dotprod", 128), ("neon", 64))
FASTEST_MHZ = 6500
# --- the server's own numbers
MIN_TIMED_TOKENS = 32
TIMINGS_RATIO = 1.25
TIMINGS_SPARE_MS = 20
ROUNDED_RATIO, ROUNDED = 0.001, 0.006        # of a quotient rounded to two decimals
IDENTITY = (("engine", ("version", "build", "recognised_by")),
            ("facts", tuple(FACTS["properties"])), ("slots", ("count", "source")),
            ("context", ("effective_tokens",)))
# --- invented data
LONG_CHARACTERS = 100
EQUAL_SHARE = 0.25            # of the answers; small models repeat the same words
MIN_EQUAL_GAPS = 8
MIN_GAPS = 48
EVEN_MIN_GAP_US = 200
EVEN_US = 1                   # half of a call's gaps differ by no more
EVEN_RATES_RATIO = 0.0002
LONGEST_GAP_RATIO = 1.02      # of the median gap; a typical call of honest runs has 1.4 and more
MIN_RATES = 10
ROUND_SHARE = 0.5             # of the gaps; one in a hundred is round by chance
MIN_DIGITS = 400
DIGITS_SPREAD_US = 100        # interquartile range above which last digits are uniform
DIGITS_LIMIT = 60.0           # chi-square of 9 degrees of freedom: one honest run in a billion
DIGITS_SHARE = 0.15           # of one digit
COARSE_CLOCK_NS = 1000
MEASURED = ("memory_used_bytes", "memory_available_bytes", "load_1m", "cpu_busy_ratio")
REPEATED_SHARE, MIN_REPEATED = 0.2, 5        # honest runs have up to 9 % of equal samples
STRAIGHT_RATIO, STRAIGHT, MIN_STRAIGHT = 0.01, 0.0002, 5     # of a change; samples on one line
CHARACTERS_PER_TOKEN = (0.8, 9.0)
MIN_PROMPT_CHARACTERS, LONG_PROMPT_CHARACTERS = 200, 1500
ANSWERS_TO_PROMPTS = 0.78     # characters per token; honest runs have 0.89 and more
# What a turn adds to the next prompt beside the answer and the question, per token of the answer;
# merged runs have -0.03 to 0.06. Tokens of a template count.
GROWTH, MIN_TURNS, MIN_TURN_TOKENS = (-0.12, 0.2), 3, 48
PROBED_SHARE = 0.6            # of the probe's tokens, of prompts that are compared with it
PROBED_RATIO = 1.5            # of prefill rates to those of the probes; merged runs have up to 1.13
TOKENS_PER_CHUNK = 1.08       # honest runs have 1.00 to 1.03, the end of an answer included
# --- claims
DRAFT_SPEEDUP = 6             # at most, of a draft model
SEEN_MEMORY_RATIO = 1.5       # of the capacity to what is used and available together
PROBED_MEMORY_RATIO = 1.005   # of both if probed, since systems take one from the other
SAMPLED_VENDORS = ("nvidia",) # whose cards are sampled by the driver's own program
SIZE = re.compile(r"(?<![a-z0-9.])(?:(\d{1,3})x)?(\d{1,4}(?:\.\d{1,3})?)([bm])(?![a-z0-9])",
                  re.IGNORECASE)
SIZE_RATIO = 1.5              # "7b" has up to 8.5 billion parameters
LABEL = re.compile(r"(?:\b|_)(?:i?q|fp|bf|f|int|nf|mxfp|w)(\d{1,2})(?!\d)|\b(\d{1,2})[- ]?bit",
                   re.IGNORECASE)
# Scales and offsets take up to a bit. In small models, embeddings and narrow tensors have more
# bits than the label states, and the vocabulary is a part of the file that counts.
LABEL_BITS = {1: (1, 4), 2: (2, 5), 3: (3, 6), 4: (3.8, 7.5), 5: (4.8, 8), 6: (5.8, 9.5),
              8: (7.5, 11), 16: (15, 18), 32: (30, 34)}
SMALL_MODEL, SMALL_MODEL_BITS = 1e9, 8
SHARE_OF_CALLS = 0.05


def problems(events: Sequence[Any], metadata: Any, hardware: Any) -> Problems:
    """(code, what) of everything that is implausible in a run."""
    calls = [call for call in ledger.latest_calls(events) if call["outcome"] == "ok"
             and call["response"] and call["timing"]]
    samples = [event for event in events if event["event"] == "host_sampled"]
    yield from _samples(samples, hardware)
    is_local = metadata["endpoint"]["same_machine"]["value"] is True
    if is_local and not metadata["smoke"]:
        yield from _unseen(samples, metadata, hardware)
    if not is_local and metadata["endpoint"]["class"] == "loopback":
        yield "hardware-implausible", "endpoint.same_machine is false at a loopback address; no " \
            "sample is of the server's machine"
    for model in metadata["models"]:
        held = {name: field["value"] for name, field in model.items() if name != "model"}
        own = [call for call in calls if call["model"] == model["model"]]
        cells = [cell for cell in metadata["cells"]
                 if cell["model"] == model["model"] and cell["lanes"] == 1]
        context = held["context_effective_tokens"]
        longest = max((prompt or 0 for prompt, _ in map(_usage, own)), default=0)
        found = []
        # An answer may continue beyond the context (flag context_shift), a prompt may not.
        if context and longest > context:
            found.append(("context-exceeded", f"{longest} prompt tokens in a context of {context}"))
        found += _model_claims(model["model"], held, own)
        points = {(curve["phase"], series["metric"]): series["points"]
                  for curve in metadata["curves"] if curve["model"] == model["model"]
                  for series in curve["series"]}
        found += _curve_shapes(points)
        found += _physics(model["model"], held, cells, points, metadata["runtime"], hardware)
        found += [*_server(own, events, model), *_counts(own, events, context),
                  *_tokens(own, held["draft_model"]), *_growth(own),
                  *_probes(own, [event for event in events if event["event"] == "cache_probed"
                                 and event["model"] == model["model"]])]
        for code, what in found:
            yield code, f"{schema.shown(model['model'])}: {what}"
    yield from _answers(calls)
    yield from _times(calls, events)


def _samples(samples: Sequence[Any], hardware: Any) -> Problems:
    """Samples of the host that contradict hardware.json or each other."""
    capacity = hardware["memory"]["capacity_bytes"]["value"]
    count = hardware["accelerators_count"]["value"]
    rows = [tuple(sample[name] for name in MEASURED) for sample in samples
            if sample["memory_used_bytes"] and sample["memory_available_bytes"]]
    totals = Counter(used + available for used, available, *_ in rows)     # of the gauges, one
    if len(totals) > 1:
        yield "hardware-implausible", f"memory used and available are {len(totals)} different " \
            f"sums in {len(rows)} samples, among them {min(totals)} and {max(totals)}"
    repeated = len(rows) - len(set(rows))
    if repeated > max(REPEATED_SHARE * len(rows), MIN_REPEATED):
        yield "data-too-regular", f"{repeated} of {len(rows)} samples of the host repeat another"
    for name in ("cpu_busy_ratio", "other_cpu_busy_ratio"):
        straight = _straight([sample[name] for sample in samples])
        if straight >= MIN_STRAIGHT:
            yield "data-too-regular", f"{name} of {straight} samples is on a straight line " \
                "between two others"
    for sample in samples:
        used = max(sample["memory_used_bytes"] or 0, sample["memory_available_bytes"] or 0)
        if capacity and used > SPARE_RATIO * capacity:
            yield "hardware-implausible", f"{used:.0f} bytes were used or available, " \
                f"memory.capacity_bytes is {capacity}"
        cards = [gpu["index"] for gpu in sample["gpus"]]
        if count is not None and cards and max(cards) >= count:
            yield "hardware-implausible", f"card {max(cards)} was sampled, accelerators_count is " \
                f"{count}"
        ratios = [sample.get(name) for name in ("cpu_busy_ratio", "cpu_steal_ratio",
                                                "other_cpu_busy_ratio")]
        shares = (ratios[0] or 0) + (ratios[1] or 0)        # of the same time
        ratios += [gpu["busy_ratio"] for gpu in sample["gpus"]]
        if shares > 1 + SPARE_SHARE or any(
                not 0 <= ratio <= 1 for ratio in ratios if ratio is not None):
            yield "hardware-implausible", f"a ratio is not between 0 and 1, or busy and stolen " \
                f"time are more than all: {schema.shown(ratios)}"


def _straight(values: Sequence[Optional[float]]) -> int:
    """Most successive values that are each in the middle between their neighbors."""
    most = now = 0
    for before, value, after in zip(values, values[1:], values[2:]):
        if before is None or value is None or after is None or before == after:
            now = 0
            continue
        off = abs(value - (before + after) / 2)
        now = now + 1 if off <= STRAIGHT_RATIO * abs(after - before) + STRAIGHT / 2 else 0
        most = max(most, now)
    return most


# --- claims against evidence ---------------------------------------------------------------------
def _unseen(samples: Sequence[Any], metadata: Any, hardware: Any) -> Problems:
    """Memory and cards that are declared or found, but that no sample of the host has seen."""
    capacity = hardware["memory"]["capacity_bytes"]["value"]
    seen = max((sample["memory_used_bytes"] + sample["memory_available_bytes"]
                for sample in samples if None not in (
                    sample["memory_used_bytes"], sample["memory_available_bytes"])), default=None)
    probed = hardware["memory"]["capacity_bytes"]["source"] == "probed"
    ratio = PROBED_MEMORY_RATIO if probed else SEEN_MEMORY_RATIO
    if capacity and seen and (capacity > ratio * seen or probed and seen > ratio * capacity):
        yield "hardware-implausible", f"memory.capacity_bytes is {capacity}; {seen:.0f} bytes " \
            "were used and available together"
    backend = metadata["runtime"]["backend"]["value"]
    if backend not in (None, "cpu") and hardware["accelerators_count"]["value"] == 0:
        yield "hardware-implausible", f"backend is {schema.shown(backend)}, accelerators_count is 0"
    uses_card = metadata["runtime"]["accelerators_used_count"]["value"] or any(
        model["gpu_offload_ratio"]["value"] for model in metadata["models"])
    for card in hardware["accelerators"] if uses_card and samples else ():
        name = f"{card['vendor']['value']} {card['model_name']['value']}"
        if any(vendor in name.lower() for vendor in SAMPLED_VENDORS) \
                and not any(sample["gpus"] for sample in samples):
            yield "hardware-implausible", f"{schema.shown(name)} was in use; no sample has seen it"


def _model_claims(model: str, held: Json, calls: Sequence[Any]) -> Problems:
    """Name, quantization and draft model against the weights and the server's timings. held: the
    model's values."""
    texts = [text for text in (model, held["file_name"], held["source_repository"]) if text]
    total = held["parameters_count"]
    for text in texts if total else ():
        sizes = [(float(number) * (1e9 if unit in "bB" else 1e6), int(experts or 1))
                 for experts, number, unit in SIZE.findall(text)]
        # Some mixtures of experts are named for the part of them that is active; "8x7b" share some.
        counts = [count for count in (total, held["active_parameters_count"]) if count]
        if sizes and not any(1 / SIZE_RATIO < count / size < SIZE_RATIO * experts
                             for size, experts in sizes for count in counts):
            yield "claim-contradicted", f"{schema.shown(text)} has {total} parameters"
            break
    bits = held["bits_per_weight"]
    if bits is None and total and held["file_bytes"]:
        bits = 8 * held["file_bytes"] / total
    label = LABEL.search(held["quantization"] or "")
    low, high = LABEL_BITS.get(int(label[1] or label[2]), (0, 99)) if label else (0, 99)
    if total and total < SMALL_MODEL:
        high = max(high, SMALL_MODEL_BITS)
    if bits and not low <= bits <= high:
        yield "claim-contradicted", f"quantization is {schema.shown(held['quantization'])} with " \
            f"{bits:.3g} bits per weight"
    timings = [call["response"]["server_timings"] or {} for call in calls]
    if held["draft_model"] not in (None, "none") and any("predicted_n" in one for one in timings) \
            and not any("draft_n" in one for one in timings):
        yield "claim-contradicted", f"draft_model is {schema.shown(held['draft_model'])}; the " \
            "server's timings have no draft_n"


# --- physics -------------------------------------------------------------------------------------
def _curve_shapes(points: Mapping[tuple[str, str], Sequence[Any]]) -> Problems:
    """Whether decode gets faster with depth, or a lane faster with more beside it."""
    for phase, metric in (("depth", "decode_tokens_per_s"), ("ramp", "decode_tokens_per_s"),
                          ("ramp", "output_token_throughput_tokens_per_s")):
        found = [(point["at"], point["value"] / (
            point["at"] if metric.startswith("output") else 1)) for point in points.get(
                (phase, metric), ())]
        for (at, rate), (later_at, later) in zip(found, found[1:]):
            if later > CURVE_RATIO * rate:
                yield "hardware-exceeded", f"{phase}: {metric} of one lane is {rate:.4g} at " \
                    f"{at:g} and {later:.4g} at {later_at:g}"


def _physics(model: str, held: Json, cells: Sequence[Any],
             points: Mapping[tuple[str, str], Sequence[Any]], runtime: Any,
             hardware: Any) -> Problems:
    """Weights against memory, decode rate against bandwidth, prefill rate against the cores of a
    CPU. held: the model's values; cells: those on one lane; points: of curves."""
    cpu = {name: field["value"] for name, field in hardware["cpu"].items()}
    weights, capacity = held["file_bytes"], hardware["memory"]["capacity_bytes"]["value"]
    if weights and capacity:
        memory = capacity + sum(card["memory_bytes"]["value"] or 0
                                for card in hardware["accelerators"])
        if weights > memory * SPARE_RATIO:
            yield "hardware-exceeded", f"{weights} bytes of weights, {memory} bytes of memory"
    total, active = held["parameters_count"], held["active_parameters_count"]
    texts = (model, held["family"], held["file_name"], held["source_repository"])
    if total and active and active < total or any(text and MIXTURE.search(text) for text in texts):
        return                               # a mixture of experts reads a part of its weights
    decode, prefill = (max([0, *(cell["metrics"][name]["median"] or 0 for cell in cells), *(
        point["value"] for point in points.get(("depth", name), ()))])
        for name in ("decode_tokens_per_s", "prefill_tokens_per_s"))
    roof = _roof_gb_per_s(held, runtime, hardware)
    caches = 1024 * ((cpu["cache_l2_kib"] or 0) + (cpu["cache_l3_kib"] or 0))
    speedup = 1 if held["draft_model"] in (None, "none") else DRAFT_SPEEDUP
    if roof and decode and weights and caches <= CACHES_SHARE * weights \
            and decode * weights / 1e9 > SPARE_RATIO * speedup * roof:
        yield "hardware-exceeded", f"{decode:g} tokens/s of {weights / 1e9:.3g} GB need " \
            f"{decode * weights / 1e9:.0f} GB/s, the memory has {roof:.0f} GB/s"
    cores = cpu["physical_cores_count"] or cpu["threads_count"]
    operations = next((count for name, count in OPERATIONS
                       if name in (cpu["instruction_sets"] or [])), None)
    # Apple's CPUs have a matrix unit that no instruction set names.
    if total and prefill and cores and operations and runtime["backend"]["value"] == "cpu" \
            and cpu["vendor"] != "Apple":
        mhz = max(cpu["max_mhz"] or FASTEST_MHZ, 1000)
        most = cores * operations * mhz * 1e6 / (2 * total)
        if prefill > most:
            yield "hardware-exceeded", f"prefill of {prefill:g} tokens/s; {cores} cores compute " \
                f"at most {most:.0f}"


def _roof_gb_per_s(held: Json, runtime: Any, hardware: Any) -> Optional[float]:
    """Bandwidth of all memories with weights together; None if unknown."""
    memory = {name: field["value"] for name, field in hardware["memory"].items()}
    measured = memory["bandwidth_measured_gb_per_s"]
    main: Optional[float] = memory["bandwidth_theoretical_gb_per_s"] or (
        measured and COPY_TO_READ * measured)
    cards, offload = hardware["accelerators"], held["gpu_offload_ratio"]
    if memory["unified"] or not cards or offload == 0 \
            or runtime["accelerators_used_count"]["value"] == 0:
        return main
    own = [card["memory_bandwidth_gb_per_s"]["value"] for card in cards]
    if None in own or (offload != 1 and main is None):
        return None
    return float(sum(own)) + (main if offload != 1 and main else 0)


# --- the server's own numbers --------------------------------------------------------------------
def _usage(call: Any) -> tuple[Optional[int], Optional[int]]:
    """(prompt tokens, answer tokens) by the server's count."""
    counted = usage.counts(call["response"])
    return counted.prompt, counted.completion


def _number(holder: Any, name: str) -> Optional[float]:
    value = holder.get(name) if isinstance(holder, dict) else None
    return value if type(value) in (int, float) else None


def _server(calls: Sequence[Any], events: Sequence[Any], model: Any) -> Problems:
    """Whether one server answered all the time."""
    values: dict[str, set[str]] = {}
    for call in calls:
        for name in ("model", "system_fingerprint"):
            if call["response"][name] is not None:
                values.setdefault(name, set()).add(call["response"][name])
    for event in events:
        if event["event"] == "endpoint_identified" and event["model"] == model["model"]:
            for part, names in IDENTITY:
                for name in names:
                    if event[part].get(name) is not None:
                        values.setdefault(f"{part}.{name}", set()).add(str(event[part][name]))
    for name, found in values.items():
        if len(found) > 1:
            yield "server-changed", f"{name} was {schema.shown(sorted(found))}"


def _counts(calls: Sequence[Any], events: Sequence[Any], context: Optional[int]) -> Problems:
    """usage against itself and server_timings, and both against the client's times."""
    cut = [what for what in (_cut_answer(call, context) for call in calls) if what]
    if cut:
        yield "answers-cut", f"{cut[0]}; in {len(cut)} of {len(calls)} calls"
    odd = [what for call in calls for what in _usage_problems(call)]
    for kind in ("prompt", "predicted"):     # some versions leave out the first token
        rates = [list(_rate_problems(calls, kind, left_out)) for left_out in (0, 1)]
        fewest = min(rates, key=len)
        odd += fewest
    never_cached = {usage.counts(call["response"]).cached for call in calls
                    if PHASES[call["phase"]].kind not in state.GROWING} - {None} == {0}
    counted: dict[str, set[Optional[int]]] = {}      # prompt tokens of the same messages
    for call in calls:
        if call["request"]["salt"] is None:
            counted.setdefault(call["request"]["messages_sha256"], set()).add(_usage(call)[0])
    for event in events:
        if event["event"] == "cache_probed" and event["probes"] \
                and event["model"] in {call["model"] for call in calls}:
            tokens = counted.setdefault(f"{event['model']} probes", set())
            tokens.update(probe["prompt_tokens"] for probe in event["probes"])
            tokens.update(_usage(call)[0] for call in calls if call["cell_id"] == event["cell_id"]
                          and call["request"]["salt"] is None)
            odd += [f"a probe had {probe['cached_tokens']} cached tokens, the calls had none"
                    for probe in event["probes"] if probe["cached_tokens"] and never_cached
                    and not metrics.counts_as_cached(probe["cached_tokens"],
                                                     probe["prompt_tokens"])]
    odd += [f"the same messages were counted as {sorted(filter(None, tokens))} tokens"
            for tokens in counted.values() if len(tokens - {None, 0}) > 1]
    if odd:
        yield "server-counts-contradict", f"{odd[0]}; in {len(odd)} of {len(calls)} calls"
    late = [what for what in map(_timing_problem, calls) if what]
    if len(late) > max(SHARE_OF_CALLS * len(calls), 1):
        yield "server-counts-contradict", f"{late[0]}; in {len(late)} of {len(calls)} calls"


def _cut_answer(call: Any, context: Optional[int]) -> Optional[str]:
    """An answer that ended by its length below max_tokens, and not at the end of the context."""
    prompt, answer = _usage(call)
    limit = _number(call["request"]["options"], "max_tokens")
    at_edge = prompt and answer and context and prompt + answer >= context - SPARE_TOKENS
    if not answer or not limit or at_edge or call["response"]["finish_reason"] != "length" \
            or answer >= limit - SPARE_TOKENS:
        return None
    return f"finish_reason is length at {answer} of {limit:g} tokens"


def _usage_problems(call: Any) -> Iterator[str]:
    (prompt, answer), counted = _usage(call), usage.counts(call["response"])
    timings = call["response"]["server_timings"]
    prompt_n, cache_n, predicted_n = (_number(timings, name)
                                      for name in ("prompt_n", "cache_n", "predicted_n"))
    total, cached = counted.total, counted.cached
    limit = _number(call["request"]["options"], "max_tokens")
    if None not in (prompt, answer, total) and total != (prompt or 0) + (answer or 0):
        yield f"total_tokens is {total:g}, prompt and answer have {prompt} and {answer}"
    if answer and predicted_n and predicted_n != answer:
        yield f"completion_tokens is {answer}, predicted_n is {predicted_n:g}"
    if prompt and prompt_n is not None and cache_n is not None and prompt_n + cache_n != prompt:
        yield f"prompt_tokens is {prompt}, prompt_n and cache_n are {prompt_n:g} and {cache_n:g}"
    if cached is not None and cache_n is not None and cached != cache_n:
        yield f"cached_tokens is {cached:g}, cache_n is {cache_n:g}"
    if answer and limit and answer > limit + SPARE_TOKENS:
        yield f"completion_tokens is {answer}, max_tokens is {limit:g}"


def _rate_problems(calls: Sequence[Any], kind: str, left_out: int) -> Iterator[str]:
    """llama.cpp's rates against its counts and times. left_out: of the tokens, in the rates."""
    for call in calls:
        count, ms, per_token_ms, per_second = (
            _number(call["response"]["server_timings"], f"{kind}_{name}")
            for name in ("n", "ms", "per_token_ms", "per_second"))
        if not count or not ms:
            continue
        tokens = max(count - left_out, 1)
        for given, expected in ((per_token_ms, ms / tokens), (per_second, tokens * 1000 / ms)):
            if given is not None \
                    and abs(given - expected) > max(ROUNDED_RATIO * expected, ROUNDED):
                yield f"{kind}: {count:g} tokens in {ms:g} ms are reported as {given:g}"


def _timing_problem(call: Any) -> Optional[str]:
    timing, timings = call["timing"], call["response"]["server_timings"]
    count, predicted_ms, prompt_ms = (_number(timings, name)
                                      for name in ("predicted_n", "predicted_ms", "prompt_ms"))
    if timing["first_token_us"] is None:
        return None
    ttft_ms = timing["first_token_us"] / 1000
    if prompt_ms and prompt_ms > TIMINGS_RATIO * ttft_ms + TIMINGS_SPARE_MS:
        return f"prompt_ms is {prompt_ms:.0f}, the first token came after {ttft_ms:.0f} ms"
    window_ms = timing["last_token_us"] / 1000 - ttft_ms
    if predicted_ms and count and count >= MIN_TIMED_TOKENS and max(window_ms, predicted_ms) \
            > TIMINGS_RATIO * min(window_ms, predicted_ms) + TIMINGS_SPARE_MS:
        return f"predicted_ms is {predicted_ms:.0f}, the text came within {window_ms:.0f} ms"
    return None


def _tokens(calls: Sequence[Any], draft_model: Optional[str]) -> Problems:
    """Characters per token, and chunks against tokens. A draft model may join tokens."""
    ratios: dict[str, list[float]] = {"answers": [], "prompts": [], "long prompts": []}
    per_chunk: list[float] = []
    over = 0
    for call in calls:
        (prompt, tokens), chars = _usage(call), call["request"]["messages_chars"]
        if prompt and chars >= MIN_PROMPT_CHARACTERS and call["truncated"]["verdict"] != "yes" \
                and not usage.counts_only_new(call):
            ratios["prompts"].append(chars / prompt)
            if chars >= LONG_PROMPT_CHARACTERS:          # a template adds little to these
                ratios["long prompts"].append(chars / prompt)
        usable = metrics.usable_counts(call)
        if not tokens or not usable or metrics.has_hidden_reasoning(call, usable):
            continue
        over += len(call["timing"]["chunk_us"]) > tokens * SPARE_RATIO + 4
        if tokens >= MIN_TIMED_TOKENS:
            per_chunk.append(tokens / max(len(call["timing"]["chunk_us"]), 1))
            text = call["response"]["text"] + call["response"]["reasoning_text"]
            ratios["answers"].append(len(text) / tokens)
    low, high = CHARACTERS_PER_TOKEN
    for what, found in ratios.items():
        if len(found) >= 3 and not low <= metrics.median(found) <= high:
            yield "tokens-implausible", f"{what} have {metrics.median(found):.2g} characters per " \
                "token"
    of_prompts, of_answers = (metrics.median(ratios[what]) if len(ratios[what]) >= 3 else None
                              for what in ("long prompts", "answers"))
    if of_prompts and of_answers and of_answers < ANSWERS_TO_PROMPTS * of_prompts:
        yield "tokens-implausible", f"answers have {of_answers:.3g} characters per token, " \
            f"prompts {of_prompts:.3g}"
    if len(per_chunk) >= 3 and metrics.median(per_chunk) > TOKENS_PER_CHUNK \
            and draft_model in (None, "none"):
        yield "tokens-implausible", f"answers have {metrics.median(per_chunk):.2f} tokens per " \
            "chunk, and no draft model is declared"
    if over > max(SHARE_OF_CALLS * len(calls), 1):
        yield "tokens-implausible", f"{over} of {len(calls)} calls have more chunks than tokens"


def _growth(calls: Sequence[Any]) -> Problems:
    """The tokens of an answer are in the next prompt of a growing conversation, too."""
    long = [call["request"]["messages_chars"] / prompt for call in calls
            for prompt, _ in [_usage(call)] if prompt and call["truncated"]["verdict"] != "yes"
            and call["request"]["messages_chars"] >= LONG_PROMPT_CHARACTERS]
    if len(long) < MIN_TURNS:
        return
    chars_per_token, rest = metrics.median(long), []
    turns = [call for call in calls if call["phase"] in GROWING_PHASES]
    for before, after in zip(turns, turns[1:]):
        (prompt, answer), (later, _) = _usage(before), _usage(after)
        if before["phase"] != after["phase"] or "yes" in (
                before["truncated"]["verdict"], after["truncated"]["verdict"]) \
                or after["request"]["messages_count"] != before["request"]["messages_count"] + 2 \
                or before["reasoning"]["mode"] != "none" or usage.counts_only_new(after) \
                or not prompt or not later or not answer or answer < MIN_TURN_TOKENS:
            continue
        question = after["request"]["messages_chars"] - before["request"]["messages_chars"] \
            - len(strip_reasoning(before["response"]["text"]))
        rest.append((later - prompt - answer - question / chars_per_token) / answer)
    if len(rest) >= MIN_TURNS and not GROWTH[0] < metrics.median(rest) < GROWTH[1]:
        yield "server-counts-contradict", "from one turn to the next, prompts grow by " \
            f"{1 + metrics.median(rest):.2f} tokens per token of the answer (in {len(rest)} turns)"


def _probes(calls: Sequence[Any], events: Sequence[Any]) -> Problems:
    """A prompt that was asked again takes as long as such prompts took in the run."""
    for event in events:
        probes = [(probe["prompt_tokens"], probe["prompt_tokens"] / probe["first_token_us"] * 1e6)
                  for probe in event["probes"] if probe["prompt_tokens"]
                  and probe["first_token_us"] and not probe["cached_tokens"]]
        least = max((tokens for tokens, _ in probes), default=0) * PROBED_SHARE
        rates = [prompt / call["timing"]["first_token_us"] * 1e6 for call in calls
                 for prompt, _ in [_usage(call)] if prompt and prompt >= max(least, 1)
                 and call["lane"] == 0 and call["phase"] not in GROWING_PHASES
                 and call["timing"]["first_token_us"] and not metrics.is_cached(call)]
        if probes and len(rates) >= MIN_TURNS and least >= MIN_PREFILL_TOKENS * PROBED_SHARE \
                and metrics.median(rates) > PROBED_RATIO * max(rate for _, rate in probes):
            yield "server-counts-contradict", "prompts were read at " \
                f"{metrics.median(rates):.4g} tokens/s, and when one was asked again, at " \
                f"{max(rate for _, rate in probes):.4g}"


# --- invented data -------------------------------------------------------------------------------
def _answers(calls: Sequence[Any]) -> Problems:
    """One long text as the answer to different questions. In a growing conversation, small models
    repeat their earlier text."""
    calls = [call for call in calls if call["phase"] not in GROWING_PHASES]
    prompts: dict[tuple[str, str], set[str]] = {}
    for call in calls:
        text = call["response"]["text"]
        if len(text) >= LONG_CHARACTERS:
            prompts.setdefault((call["model"], text), set()).add(call["request"]["prompt"])
    equal = [len(found) for found in prompts.values() if len(found) > 1]
    if sum(equal) > max(EQUAL_SHARE * len(calls), 1):
        yield "data-too-regular", f"one text answers {max(equal)} questions; {sum(equal)} of " \
            f"{len(calls)} answers are repeated"


def _times(calls: Sequence[Any], events: Sequence[Any]) -> Problems:
    """Equal times, equal gaps, equal rates; last digits only if the clock has them."""
    vectors = Counter(tuple(call["timing"]["chunk_us"][1:]) for call in calls
                      if len(call["timing"]["chunk_us"]) > MIN_EQUAL_GAPS)
    repeated = sum(count for count in vectors.values() if count > 1)
    if repeated:
        yield "data-too-regular", f"{repeated} calls have exactly the times of another"
    yield from _peaks(calls)
    groups: dict[tuple[str, str], list[float]] = {}
    for call in calls:
        rate = metrics.decode_rate(call)
        if rate is not None:
            groups.setdefault((call["model"], call["phase"]), []).append(rate)
    for (_, phase), rates in groups.items():
        spread = metrics.instability(rates)["iqr_ratio"] if len(rates) >= MIN_RATES else None
        if spread is not None and spread < EVEN_RATES_RATIO:
            yield "data-too-regular", f"decode rates of {phase} have an interquartile range of " \
                f"{spread:.2g} of the median"
    if any((event["clock_resolution_ns"] or 0) > COARSE_CLOCK_NS for event in events
           if event["event"] == "instrument_calibrated"):
        return
    gaps = [metrics.icl_gaps_us(call) for call in calls]
    even = sum(map(_is_even, gaps))
    if even:
        yield "data-too-regular", f"half of the gaps are equal in {even} of {len(calls)} calls"
    longest = [max(one) / metrics.median(one) for one in gaps
               if len(one) >= MIN_GAPS and metrics.median(one) >= EVEN_MIN_GAP_US]
    if len(longest) >= MIN_RATES and metrics.median(longest) < LONGEST_GAP_RATIO:
        yield "data-too-regular", "the longest gap of a typical call exceeds its median by " \
            f"{metrics.median(longest) - 1:.1%}; servers and networks pause now and then"
    yield from _digits([gap for one in gaps for gap in one if gap >= EVEN_MIN_GAP_US])


def _peaks(calls: Sequence[Any]) -> Problems:
    """Calls that pause at the same places: copies of each other, even if their times vary."""
    firsts: dict[tuple[int, ...], tuple[int, Any]] = {}
    count, equal = 0, set[int]()
    for number, call in enumerate(calls):
        gaps = call["timing"]["chunk_us"][1:]
        if len(gaps) < DECODE_GAPS:
            continue
        count += 1
        for places in copies.marks_of(copies.peaks_of(gaps)):
            first, other = firsts.setdefault(places, (number, call))
            # Lanes that began together pause together.
            if other["segment"] != call["segment"] \
                    or other["t_us"] < call["timing"]["started_us"]:
                equal |= {first, number}
    if len(equal) > max(EQUAL_SHARE * count, MIN_RATES):
        yield "data-too-regular", f"{len(equal)} of {count} calls pause at the places where " \
            "another one does"


def _is_even(gaps: Sequence[int]) -> bool:
    if len(gaps) < MIN_GAPS:
        return False
    ordered = sorted(gaps)
    middle = metrics.quartile(ordered, 2)
    near = bisect_right(ordered, middle + EVEN_US) - bisect_left(ordered, middle - EVEN_US)
    return middle >= EVEN_MIN_GAP_US and 2 * near >= len(gaps) and metrics.median(
        abs(gap - middle) for gap in gaps) <= EVEN_US


def _digits(gaps: Sequence[int]) -> Problems:
    """The last digit of a time in microseconds is uniformly distributed."""
    if len(gaps) < MIN_DIGITS:
        return
    ends = Counter([gap % 100 for gap in gaps])
    rounded = ends[0]
    if rounded > ROUND_SHARE * len(gaps):
        yield "data-too-regular", f"{rounded} of {len(gaps)} gaps are multiples of 100 us"
        return
    ordered = sorted(gaps)
    if metrics.quartile(ordered, 3) - metrics.quartile(ordered, 1) < DIGITS_SPREAD_US:
        return
    counts = [sum(ends[tens + digit] for tens in range(0, 100, 10)) for digit in range(10)]
    expected = len(gaps) / 10
    square = sum((count - expected) ** 2 / expected for count in counts)
    most, digit = max((count, digit) for digit, count in enumerate(counts))
    if square > DIGITS_LIMIT and most > DIGITS_SHARE * len(gaps):
        yield "data-too-regular", f"{most} of {len(gaps)} gaps end in {digit}"
