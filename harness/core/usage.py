"""Read a server's own token counts, field by field, under the names that servers use.

A name that is missing, null or holds no count is skipped, so one bad field does not hide the
others. A count that no name holds is None: not reported, which is not zero. Nor is a zero for a
prompt, or for an answer with text, a count.
"""
from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from core.records import CallFinished, Response

# OpenAI, Anthropic and OpenAI's responses, Ollama, Gemini, llama.cpp, TGI and mlx, LM Studio.
NAMES: dict[str, tuple[str, ...]] = {
    "prompt": ("prompt_tokens", "input_tokens", "prompt_eval_count", "promptTokenCount",
               "tokens_evaluated", "prompt_token_count", "promptTokens", "inputTokens",
               "num_prompt_tokens"),
    "completion": ("completion_tokens", "output_tokens", "eval_count", "candidatesTokenCount",
                   "tokens_predicted", "generated_tokens", "generation_tokens",
                   "completion_token_count", "completionTokens", "outputTokens",
                   "num_generated_tokens", "num_completion_tokens"),
    "total": ("total_tokens", "totalTokenCount", "total_token_count", "totalTokens"),
    "cached": ("prompt_cache_hit_tokens", "cache_read_input_tokens", "cached_tokens",
               "num_cached_tokens", "cached_prompt_tokens", "cachedContentTokenCount",
               "prompt_cached_tokens", "cache_n"),
    "reasoning": ("reasoning_tokens", "thoughtsTokenCount", "thinking_tokens"),
}
DETAILS: dict[str, tuple[str, ...]] = {
    "cached": ("prompt_tokens_details", "input_tokens_details", "prompt_token_details"),
    "reasoning": ("completion_tokens_details", "output_tokens_details"),
}
_KEYS = {field: {*names, *DETAILS.get(field, ())} for field, names in NAMES.items()}
ALL_NAMES = tuple(name for names in NAMES.values() for name in names)
TOP_LEVEL = ("prompt_eval_count", "eval_count", "tokens_evaluated", "tokens_predicted")
# Places of a usage object in a message, besides `usage` itself.
PLACES = ("x_groq", "usageMetadata", "usage_metadata", "stats")


# Words of the names of counts and times, under which numbers are kept; other names and texts may
# hold anything, such as the name of a machine.
WORDS = frozenset(
    """accept acceptance accepted active audio average avg batch billed byok bytes cache cached
    candidates characters choices chunk completion content cost count creation decode details
    discount draft drafted duration e2e elapsed encode end eval evaluated evaluation exceeded
    execution expert finish first forward generate generated generation ignored image images
    inference input inter inferred is iterations itl kv latency layers length load loaded loading
    max mean media memory min miss ms new ns num output parse peak per predicted prediction
    predictions preemption prefill processing prompt prompts queue queued rate ratio read reason
    reasoning rejected request requests retries s sample samples sampling sec second seconds
    service spec speculative speed start steps stop sum text thinking thoughts throughput tier
    time to token tokens total tpot tps ttft us usage used verify video wait waiting wall web write
    x n 1h 5m created ephemeral hit multimodal queries reused search server tool upstream
    use""".split())
WORD = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
TEXTS = frozenset(
    """stop length eos eosfound eos_token max_tokens stopped userstopped tool_calls standard
    default auto priority flex scale batch on_demand performance maxpredictedtokensreached
    contextlengthreached stop_sequence end_turn stopstringfound""".split())
IN_TEXT = re.compile(r"[-+0-9.eE]{1,24}\Z")        # a number as some servers write it


def kept(value: Any) -> Any:
    """A server's usage or timings: numbers, booleans and known texts under known names."""
    if isinstance(value, dict):
        return {name: one for name, held in value.items() if is_known(name)
                for one in [kept(held)] if one is not None or held is None}
    if isinstance(value, list):
        return [one for held in value for one in [kept(held)] if one is not None]
    if isinstance(value, str):
        return value if IN_TEXT.match(value) or value.lower() in TEXTS else None
    return value


def is_known(name: str) -> bool:
    """Whether a name is made of the words of counts and times."""
    return bool(name) and all(word.lower() in WORDS for word in WORD.findall(name)) \
        and not re.search(r"[^A-Za-z0-9_]", name)


class Counts(NamedTuple):
    """Token counts of one answer as the server reported them; None if it did not.

    invalid: the name of a count of generated tokens that holds something else than a count.
    """

    prompt: Optional[int]
    completion: Optional[int]
    total: Optional[int]
    cached: Optional[int]
    reasoning: Optional[int]
    invalid: Optional[str]


def count(value: Any) -> Optional[int]:
    """A non-negative whole number that a float holds exactly, else None; True is not a number."""
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value < 2 ** 53 else None


def counts(response: Optional[Response]) -> Counts:
    """All counts of an answer: from usage, else from the server's timings."""
    usage: Any = (response["usage"] if response else None) or {}
    timings: Any = (response["server_timings"] if response else None) or {}
    found = {field: _field(usage, field) for field in NAMES}
    prompt, cached = found["prompt"], found["cached"]
    if prompt is not None and "input_tokens" in usage and "prompt_tokens" not in usage:
        # Anthropic's input_tokens are those that were not read from a cache.
        prompt += count(usage.get("cache_read_input_tokens")) or 0
    if cached is None:
        cached = count(timings.get("cache_n"))
    if not prompt and count(timings.get("prompt_n")) is not None:
        prompt = (count(timings["prompt_n"]) or 0) + (cached or 0)
    completion = found["completion"]
    invalid = None if completion else next((
        name for name in NAMES["completion"]
        if usage.get(name) is not None and count(usage[name]) is None), None)
    if completion is None and invalid is None:
        completion = count(timings.get("predicted_n"))
    # Some servers put zeros for what they do not count.
    if not completion and response and (response.get("text") or response.get("reasoning_text")):
        completion = None
    return Counts(prompt or None, completion, found["total"] or None, cached, found["reasoning"],
                  invalid if completion is None else None)


ONLY_NEW = "earlier turns may not be counted"    # the end of a reason of plan.truncation


def counts_only_new(call: CallFinished) -> bool:
    """Whether prompt_tokens leaves out the turns that the cache held, as in Ollama 0.30."""
    return (call["truncated"]["reason"] or "").endswith(ONLY_NEW)


def has_counts(usage: Mapping[str, Any]) -> bool:
    """Whether an object holds any of these counts, be it zero."""
    return any(count(usage[name]) is not None for name in ALL_NAMES if name in usage)


def _field(usage: Mapping[str, Any], field: str) -> Optional[int]:
    """The first positive count under the names of a field, else 0 if one of them is 0."""
    if _KEYS[field].isdisjoint(usage):
        return None
    holders = [usage[name] for name in DETAILS.get(field, ()) if name in usage]
    names = NAMES[field] if field == "reasoning" else (*NAMES[field], "cache_read", "cached")
    values = [count(holder[name]) for holder in holders if isinstance(holder, dict)
              for name in names if name in holder]
    values += [count(usage[name]) for name in filter(usage.__contains__, NAMES[field])]
    return next(filter(None, values), 0 if 0 in values else None)
