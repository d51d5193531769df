"""What no machine does, and what invention looks like: warnings, each asking for a second run.

An honest machine can surprise, and a patient forger can run this harness against a program that
only sleeps; no look at files finds that. What is found here is carelessness: tokens faster than
memory, gaps without jitter, round times, one answer to many questions.
"""
from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from core import ledger, metric_definitions, metrics, schema

Json = dict[str, Any]

Problems = Iterator[tuple[str, str]]

# --- physics
SPARE_RATIO = 1.05            # sizes and bandwidths are rounded
COPY_TO_READ = 2              # reading alone may be faster than the copy that was measured
CACHES_SHARE = 0.5            # of the weights: what the caches keep is not read again
MIXTURE = re.compile(r"\d+x\d|[-_.]a\d+(?:\.\d+)?b|moe|mixtral|gpt-?oss|deepseek-?v", re.IGNORECASE)
# Operations per cycle and core at most, multiplication and addition counted both, 8-bit numbers.
OPERATIONS = (("amx_int8", 4096), ("sme", 4096), ("avx512_vnni", 512), ("avx512f", 256),
              ("avx_vnni", 256), ("avx2", 128), ("i8mm", 256), ("dotprod", 128), ("neon", 64))
FASTEST_MHZ = 6500
# --- the server's own account
MIN_TIMED_TOKENS = 32
TIMINGS_RATIO = 1.25
TIMINGS_SPARE_MS = 20
ROUNDED_RATIO, ROUNDED = 0.001, 0.006        # of a quotient that was rounded to two decimals
# --- invention
LONG_CHARACTERS = 100
EQUAL_SHARE = 0.25            # of the answers; small models fall into the same words
MIN_EQUAL_GAPS = 8
MIN_GAPS = 48
EVEN_MIN_GAP_US = 200
EVEN_US = 1                   # half of a call's gaps this near to each other
EVEN_RATES_RATIO = 0.0002
MIN_RATES = 10
ROUND_SHARE = 0.5             # of the gaps; one in a hundred is round by chance
MIN_DIGITS = 400
DIGITS_SPREAD_US = 100        # interquartile range from which last digits are even
DIGITS_LIMIT = 60.0           # chi-square of 9 degrees of freedom: one honest run in a billion
DIGITS_SHARE = 0.15           # and one digit has to stick out by half
COARSE_CLOCK_NS = 1000
CHARACTERS_PER_TOKEN = (0.8, 9.0)
MIN_PROMPT_CHARACTERS = 200
SHARE_OF_CALLS = 0.05


def problems(events: Sequence[Json], metadata: Json, hardware: Json) -> Problems:
    """Everything that is odd about a run; (code, what)."""
    calls = [call for call in ledger.latest_calls(events) if call["outcome"] == "ok"
             and call["response"] and call["timing"]]
    yield from _machine(events, hardware)
    for model in metadata["models"]:
        own = [call for call in calls if call["model"] == model["model"]]
        cells = [cell for cell in metadata["cells"] if cell["model"] == model["model"]]
        name = schema.shown(model["model"])
        found = (*_physics(model, cells, own, metadata, hardware), *_server(own, events, model),
                 *_account(own, events, _value(model, "context_effective_tokens")),
                 *_tokens(own))
        yield from ((code, f"{name}: {what}") for code, what in found)
    yield from _answers(calls)
    yield from _times(calls, events)


def _value(document: Json, *path: str) -> Any:
    for name in path:
        document = document[name]
    return document["value"]


# --- physics -------------------------------------------------------------------------------------
def _physics(model: Json, cells: Sequence[Json], calls: Sequence[Json], metadata: Json,
             hardware: Json) -> Problems:
    context = _value(model, "context_effective_tokens")
    longest = max((prompt + answer for prompt, answer in map(_usage, calls)
                   if prompt and answer), default=0)
    if context and longest > context:
        yield "tokens-over-context", f"{longest} tokens in a context of {context}"
    if _value(metadata, "endpoint", "same_machine") is not True:
        return
    weights = _value(model, "file_bytes")
    memory = _memory_bytes(hardware)
    if weights and memory and weights > memory * SPARE_RATIO:
        yield "weights-over-memory", f"{weights} bytes of weights, {memory} of memory"
    yield from _bandwidth(model, cells, weights, metadata, hardware)
    yield from _compute(model, cells, metadata, hardware)


def _memory_bytes(hardware: Json) -> Optional[int]:
    own = _value(hardware, "memory", "capacity_bytes")
    cards = [_value(card, "memory_bytes") or 0 for card in hardware["accelerators"]]
    return own + sum(cards) if own else None


def _is_mixture(model: Json) -> bool:
    total, active = (_value(model, name) for name in ("parameters_count",
                                                      "active_parameters_count"))
    texts = (model["model"], _value(model, "family"), _value(model, "file_name"),
             _value(model, "source_repository"))
    return bool(total and active and active < total) or any(
        text and MIXTURE.search(text) for text in texts)


def _rate(cells: Sequence[Json], name: str) -> Optional[float]:
    """The highest median of a rate over the cells of one lane."""
    found = [cell["metrics"][name]["median"] for cell in cells if cell["lanes"] == 1]
    return max((rate for rate in found if rate is not None), default=None)


def _bandwidth(model: Json, cells: Sequence[Json], weights: Optional[int], metadata: Json,
               hardware: Json) -> Problems:
    roof, rate = _roof_gb_per_s(model, metadata, hardware), _rate(cells, "decode_tokens_per_s")
    caches = sum(1024 * (_value(hardware, "cpu", name) or 0)
                 for name in ("cache_l2_kib", "cache_l3_kib"))
    if not (roof and rate and weights) or _is_mixture(model) \
            or _value(model, "draft_model") not in (None, "none") \
            or caches > CACHES_SHARE * weights:
        return
    needed = rate * weights / 1e9
    if needed > SPARE_RATIO * roof:
        yield "decode-over-bandwidth", f"{rate:g} tokens/s of {weights / 1e9:.3g} GB need " \
            f"{needed:.0f} GB/s, there are {roof:.0f}"


def _roof_gb_per_s(model: Json, metadata: Json, hardware: Json) -> Optional[float]:
    """The most that the memories with the weights can deliver together; None where not known."""
    theoretical, measured = (_value(hardware, "memory", f"bandwidth_{kind}_gb_per_s")
                             for kind in ("theoretical", "measured"))
    main: Optional[float] = theoretical or (measured and COPY_TO_READ * measured)
    cards = hardware["accelerators"]
    offload, used = (_value(model, "gpu_offload_ratio"),
                     _value(metadata, "runtime", "accelerators_used_count"))
    if _value(hardware, "memory", "unified") or offload == 0 or used == 0 or not cards:
        return main
    own = [_value(card, "memory_bandwidth_gb_per_s") for card in cards]
    if None in own or (offload != 1 and main is None):
        return None
    return float(sum(own)) + (main if offload != 1 and main else 0)


def _compute(model: Json, cells: Sequence[Json], metadata: Json, hardware: Json) -> Problems:
    """Two operations a weight and token against what all cores can do; on CPUs only."""
    parameters, rate = _value(model, "parameters_count"), _rate(cells, "prefill_tokens_per_s")
    cores = _value(hardware, "cpu", "physical_cores_count") \
        or _value(hardware, "cpu", "threads_count")
    sets = _value(hardware, "cpu", "instruction_sets") or []
    each = next((count for name, count in OPERATIONS if name in sets), None)
    if not (parameters and rate and cores and each) or _is_mixture(model) \
            or _value(metadata, "runtime", "backend") != "cpu" \
            or _value(hardware, "cpu", "vendor") == "Apple":     # has a unit that no set names
        return
    mhz = max(_value(hardware, "cpu", "max_mhz") or FASTEST_MHZ, 1000)
    roof = cores * each * mhz * 1e6 / (2 * parameters)
    if rate > roof:
        yield "prefill-over-compute", f"{rate:g} tokens/s, {cores} cores can do {roof:.0f}"


def _machine(events: Sequence[Json], hardware: Json) -> Problems:
    """What was sampled during the run against what the machine is said to be."""
    capacity = _value(hardware, "memory", "capacity_bytes")
    count = _value(hardware, "accelerators_count")
    for sample in (event for event in events if event["event"] == "host_sampled"):
        used = (sample["memory_used_bytes"] or 0, sample["memory_available_bytes"] or 0)
        if capacity and max(used) > SPARE_RATIO * capacity:
            yield "hardware-contradicts", f"{max(used):.0f} bytes were in use or available, the " \
                f"memory has {capacity}"
        cards = [gpu["index"] for gpu in sample["gpus"]]
        if count is not None and cards and max(cards) >= count:
            yield "hardware-contradicts", f"card {max(cards)} was sampled, {count} are told"
        ratios = [sample[name] for name in ("cpu_busy_ratio", "cpu_steal_ratio",
                                            "other_cpu_busy_ratio")]
        ratios += [gpu["busy_ratio"] for gpu in sample["gpus"]]
        if any(not 0 <= ratio <= 1 for ratio in ratios if ratio is not None):
            yield "hardware-contradicts", f"a share is not from 0 to 1: {schema.shown(ratios)}"


# --- the server's own account --------------------------------------------------------------------
def _usage(call: Json) -> tuple[Optional[int], Optional[int]]:
    """(prompt tokens, answer's tokens) as the server counted them, where it did."""
    usage = call["response"]["usage"] or {}
    prompt, answer = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return (prompt if type(prompt) is int else None, answer if type(answer) is int else None)


def _number(holder: Any, name: str) -> Optional[float]:
    value = holder.get(name) if isinstance(holder, dict) else None
    return value if type(value) in (int, float) else None


def _server(calls: Sequence[Json], events: Sequence[Json], model: Json) -> Problems:
    """Whether one server answered all the time."""
    for name in ("model", "system_fingerprint"):
        told = sorted({call["response"][name] for call in calls} - {None})
        if len(told) > 1:
            yield "server-changed", f"{name} was {schema.shown(told)}"
    seen = [event for event in events if event["event"] == "endpoint_identified"
            and event["model"] == model["model"]]
    for part, names in (("engine", ("version", "build", "recognised_by")),
                        ("facts", ("quantization", "parameters_count", "file_bytes", "digest",
                                   "trained_context_tokens")), ("slots", ("count", "source"))):
        for name in names:
            told = sorted({str(event[part][name]) for event in seen
                           if event[part][name] is not None})
            if len(told) > 1:
                yield "server-changed", f"{part}.{name} was {schema.shown(told)}"


def _account(calls: Sequence[Json], events: Sequence[Json],
             context: Optional[int]) -> Problems:
    """usage against itself and server_timings, and those against the client's marks."""
    odd = [what for call in calls for what in (_usage_oddity(call), _excess(call)) if what]
    cut = [what for what in (_cut(call, context) for call in calls) if what]
    if cut:
        yield "answers-cut", f"{cut[0]}; in {len(cut)} of {len(calls)} calls"
    counted: dict[str, set[Optional[int]]] = {}
    for call in calls:
        if call["request"]["salt"] is None:
            counted.setdefault(call["request"]["messages_sha256"], set()).add(_usage(call)[0])
    for event in events:
        if event["event"] == "cache_probed" and event["probes"]:
            told = counted.setdefault(f"{event['model']} probes", set())
            told.update(probe["prompt_tokens"] for probe in event["probes"])
            told.update(_usage(call)[0] for call in calls if call["cell_id"] == event["cell_id"]
                        and call["request"]["salt"] is None)
    odd += [f"the same messages were counted as {sorted(tokens)} tokens"
            for tokens in ({t for t in told if t} for told in counted.values()) if len(tokens) > 1]
    if odd:
        yield "usage-differs", f"{odd[0]}; in {len(odd)} of {len(calls)} calls"
    late = [what for what in map(_timing_oddity, calls) if what]
    if len(late) > max(SHARE_OF_CALLS * len(calls), 1):
        yield "server-timings-differ", f"{late[0]}; in {len(late)} of {len(calls)} calls"


def _usage_oddity(call: Json) -> Optional[str]:
    prompt, answer = _usage(call)
    total = _number(call["response"]["usage"], "total_tokens")
    if prompt is not None and answer is not None and total is not None \
            and total != prompt + answer:
        return f"{prompt} and {answer} tokens are {total:g} together"
    timings = call["response"]["server_timings"]
    told = {name: _number(timings, name) for name in ("prompt_n", "cache_n", "predicted_n")}
    if answer and told["predicted_n"] and told["predicted_n"] != answer:
        return f"{answer} tokens in usage, {told['predicted_n']:g} in the server's timings"
    if prompt and told["prompt_n"] is not None and told["cache_n"] is not None \
            and told["prompt_n"] + told["cache_n"] != prompt:
        return f"{prompt} tokens of the prompt in usage, " \
            f"{told['prompt_n'] + told['cache_n']:g} in the server's timings"
    details = (call["response"]["usage"] or {}).get("prompt_tokens_details")
    cached = _number(details, "cached_tokens")
    if cached is not None and told["cache_n"] is not None and cached != told["cache_n"]:
        return f"{cached:g} cached tokens in usage, {told['cache_n']:g} in the server's timings"
    return _rate_oddity(timings)


def _cut(call: Json, context: Optional[int]) -> Optional[str]:
    """An answer ends by its length at the call's cap or at the context's edge, and nowhere else."""
    prompt, answer = _usage(call)
    cap = _number(call["request"]["options"], "max_tokens")
    at_edge = prompt and answer and context \
        and prompt + answer >= context - metric_definitions.SPARE_TOKENS
    if not answer or not cap or at_edge or call["response"]["finish_reason"] != "length" \
            or answer >= cap - metric_definitions.SPARE_TOKENS:
        return None
    return f"finish_reason is length at {answer} of {cap:g} tokens"


def _excess(call: Json) -> Optional[str]:
    answer, cap = _usage(call)[1], _number(call["request"]["options"], "max_tokens")
    if not answer or not cap or answer <= cap + metric_definitions.SPARE_TOKENS:
        return None
    return f"{answer} tokens came, {cap:g} were allowed"


def _rate_oddity(timings: Any) -> Optional[str]:
    """llama.cpp tells counts, times and rates: each is a quotient of the others, of which some
    versions leave out the first token."""
    for kind in ("prompt", "predicted"):
        count, ms, each, rate = (_number(timings, f"{kind}_{name}")
                                 for name in ("n", "ms", "per_token_ms", "per_second"))
        if not count or not ms:
            continue
        counts = {count, max(count - 1, 1)}
        for told, follows in ((each, [ms / n for n in counts]),
                              (rate, [n * 1000 / ms for n in counts])):
            if told is not None and all(abs(told - one) > max(ROUNDED_RATIO * one, ROUNDED)
                                        for one in follows):
                return f"{kind}: {count:g} tokens in {ms:g} ms are told as {told:g}"
    return None


def _timing_oddity(call: Json) -> Optional[str]:
    timing, timings = call["timing"], call["response"]["server_timings"]
    count, predicted_ms = _number(timings, "predicted_n"), _number(timings, "predicted_ms")
    prompt_ms = _number(timings, "prompt_ms")
    if timing["first_token_us"] is None:
        return None
    if prompt_ms and prompt_ms > TIMINGS_RATIO * timing["first_token_us"] / 1000 + TIMINGS_SPARE_MS:
        return f"the server read the prompt for {prompt_ms:.0f} ms, the first token came after " \
            f"{timing['first_token_us'] / 1000:.0f}"
    if not predicted_ms or not count or count < MIN_TIMED_TOKENS:
        return None
    window_ms = (timing["last_token_us"] - timing["first_token_us"]) / 1000
    if max(window_ms, predicted_ms) > TIMINGS_RATIO * min(window_ms, predicted_ms) \
            + TIMINGS_SPARE_MS:
        return f"the server wrote for {predicted_ms:.0f} ms, its text came within {window_ms:.0f}"
    return None


def _tokens(calls: Sequence[Json]) -> Problems:
    """Characters for each token, and chunks against tokens."""
    low, high = CHARACTERS_PER_TOKEN
    answers, prompts, over = [], [], 0
    for call in calls:
        prompt, tokens = _usage(call)
        if prompt and call["request"]["messages_chars"] >= MIN_PROMPT_CHARACTERS \
                and call["truncated"]["verdict"] != "yes":
            prompts.append(call["request"]["messages_chars"] / prompt)
        if not tokens or not metrics.usage_is_usable(call) or metrics.has_hidden_reasoning(call):
            continue
        chunks = len(call["timing"]["chunk_us"])
        over += chunks > tokens * SPARE_RATIO + 4
        if tokens >= MIN_TIMED_TOKENS:
            text = call["response"]["text"] + call["response"]["reasoning_text"]
            answers.append(len(text) / tokens)
    for what, ratios in (("answers", answers), ("prompts", prompts)):
        if len(ratios) >= 3 and not low <= metrics.median(ratios) <= high:
            yield "tokens-implausible", f"{what} have {metrics.median(ratios):.2g} characters a " \
                "token"
    if over > max(SHARE_OF_CALLS * len(calls), 1):
        yield "chunks-exceed-tokens", f"in {over} of {len(calls)} calls"


# --- invention -----------------------------------------------------------------------------------
def _answers(calls: Sequence[Json]) -> Problems:
    """One long text as the answer to different questions; in a growing conversation a small model
    says again what it said before."""
    calls = [call for call in calls if call["phase"] not in metric_definitions.GROWING_PHASES]
    askers: dict[tuple[str, str], set[str]] = {}
    for call in calls:
        text = call["response"]["text"]
        if len(text) >= LONG_CHARACTERS:
            askers.setdefault((call["model"], text), set()).add(call["request"]["prompt"])
    equal = [len(prompts) for prompts in askers.values() if len(prompts) > 1]
    if sum(equal) > max(EQUAL_SHARE * len(calls), 1):
        yield "answers-equal", f"one text answers {max(equal)} questions; {sum(equal)} of " \
            f"{len(calls)} answers are another's"


def _times(calls: Sequence[Json], events: Sequence[Json]) -> Problems:
    vectors = Counter(tuple(call["timing"]["chunk_us"][1:]) for call in calls
                      if len(call["timing"]["chunk_us"]) > MIN_EQUAL_GAPS)
    repeated = sum(count for count in vectors.values() if count > 1)
    if repeated:
        yield "timings-equal", f"{repeated} calls have the gaps of another"
    yield from _even_rates(calls)
    if any((event["clock_resolution_ns"] or 0) > COARSE_CLOCK_NS for event in events
           if event["event"] == "instrument_calibrated"):
        return
    gaps = [metrics.icl_gaps_us(call) for call in calls]
    even = sum(map(_is_even, gaps))
    if even:
        yield "gaps-too-even", f"in {even} of {len(calls)} calls half of the gaps are equal"
    yield from _digits([gap for one in gaps for gap in one if gap >= EVEN_MIN_GAP_US])


def _is_even(gaps: Sequence[int]) -> bool:
    if len(gaps) < MIN_GAPS:
        return False
    middle = metrics.median(gaps)
    return middle >= EVEN_MIN_GAP_US and metrics.median(
        abs(gap - middle) for gap in gaps) <= EVEN_US


def _even_rates(calls: Sequence[Json]) -> Problems:
    groups: dict[tuple[str, str], list[float]] = {}
    for call in calls:
        rate = metrics.call_metrics(call)["decode_tokens_per_s"]
        if rate is not None:
            groups.setdefault((call["model"], call["phase"]), []).append(rate)
    spreads = {phase: metrics.instability(rates)["iqr_ratio"]
               for (_, phase), rates in groups.items() if len(rates) >= MIN_RATES}
    even = {phase: spread for phase, spread in spreads.items()
            if spread is not None and spread < EVEN_RATES_RATIO}
    if even:
        yield "rates-too-even", "interquartile range over median: " + ", ".join(
            f"{phase} {spread:.2g}" for phase, spread in even.items())


def _digits(gaps: Sequence[int]) -> Problems:
    """Benford's poor relation: the last digit of a time in microseconds is anything."""
    if len(gaps) < MIN_DIGITS:
        return
    rounded = sum(gap % 100 == 0 for gap in gaps)
    if rounded > ROUND_SHARE * len(gaps):
        yield "times-round", f"{rounded} of {len(gaps)} gaps are multiples of 100 us"
        return
    ordered = sorted(gaps)
    if metrics.quartile(ordered, 3) - metrics.quartile(ordered, 1) < DIGITS_SPREAD_US:
        return
    counts = Counter(gap % 10 for gap in gaps)
    expected = len(gaps) / 10
    square = sum((counts[digit] - expected) ** 2 / expected for digit in range(10))
    digit, most = max(counts.items(), key=lambda item: (item[1], item[0]))
    if square > DIGITS_LIMIT and most > DIGITS_SHARE * len(gaps):
        yield "times-round", f"{most} of {len(gaps)} gaps end in {digit}"
