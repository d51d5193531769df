"""What the runner would have written: requests, checks and verdicts, from the lines before.

A run's next call follows from its plan and its earlier answers, and state.py is where the runner
keeps both. Replay is the same state, filled from a ledger line by line; `problems` says where a
call's line differs from what that state gives. Only a call's own random salt is taken from itself.
"""
from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Optional

from core import plan, schema
from core.suites import PHASES, Question
from engines import queries, server_errors
from run import sse, state
from run.reply import REDACTED_KEY, cache_verdicts, call_flags
from run.timing import NULL_REASONS

Json = dict[str, Any]

Suites = dict[str, tuple[Question, ...]]
Problems = Iterator[tuple[str, str]]

SALT = re.compile(r"[0-9a-f]{16}\Z")
MOST_UNSEEN = 8
# What engines.context_in_force says of a context that a server does not tell.
UNTOLD = re.compile(r"only while it is loaded\Z|does not tell the context in force(?:\Z|; )")
ESTIMATE = re.compile(r"about \d+")


class Replay(state.State):
    """A run's state as its lines give it. suites None: those of the run are not here, and requests,
    checks and verdicts stay unseen."""

    def __init__(self, manifest: Json, suites: Optional[Suites]) -> None:
        super().__init__(manifest, suites or {}, {name: name for name in manifest["models"]}, True)
        self.has_suites = suites is not None
        self.salts: dict[str, tuple[Any, ...]] = {}
        self.refusing: set[str] = set()

    def resumed(self, events: list[Json]) -> Replay:
        """The state of a new process that took up these lines."""
        new = Replay(self.manifest, self.suites if self.has_suites else None)
        new.recall(events)
        new.salts = self.salts
        return new

    # -- one call
    def problems(self, cell: plan.Cell, call: Json, lanes: int) -> Problems:
        """Where a call's line is not what the runner would have written; call before note_call."""
        if not self.has_suites:
            return
        edge = self.edge(cell) if PHASES[cell.phase].kind == "append" else None
        if call["outcome"] == "context_limit" and call["timing"] is None and edge is None:
            yield "outcome-differs", "the conversation had not met the context's edge"
        if edge is not None:
            yield from self._beyond(cell, call, edge)
            return
        messages = self.messages(cell)
        expected = {"prompt": self.question(cell).prompt, **plan.fingerprint(messages)}
        for name, value in expected.items():
            if call["request"][name] != value:
                yield "request-differs", f"{name} is {schema.shown(call['request'][name])}, " \
                    f"rebuilt it is {schema.shown(value)}"
        yield from self._options(cell, call)
        yield from self._verdicts(cell, call, messages, lanes)

    def _beyond(self, cell: plan.Cell, call: Json, edge: str) -> Problems:
        for name, value in self.beyond_the_edge(cell, edge).items():
            if call[name] != value:
                yield "request-differs", f"beyond the context's edge, yet {name} is " \
                    f"{schema.shown(call[name])}"

    def _options(self, cell: plan.Cell, call: Json) -> Problems:
        told = call["request"]
        words = [told["salt"], *told["options"].values()]
        fresh = next((w for w in words if isinstance(w, str) and SALT.match(w)), "")
        self.dropped[cell.model] = set(told["dropped_fields"])
        cache = self.cache(cell, fresh)
        options = self.options(cell, self.max_tokens(cell), cache)
        if told["salt"] != cache[0] or _text(told["options"]) != _text(options):
            yield "options-differ", f"salt and options are {schema.shown(told['salt'])}, " \
                f"{schema.shown(told['options'])}, the plan gives {schema.shown(options)}"
        yield from self._dropped(cell, call)
        if fresh:
            grows = PHASES[cell.phase].kind == "append"
            owner = (cell.model, cell.repeat) if grows else (cell.cell_id, call["segment"])
            if self.salts.setdefault(fresh, owner) != owner:
                yield "salt-repeated", f"{fresh} was another call's"

    def _dropped(self, cell: plan.Cell, call: Json) -> Problems:
        """Fields are left out for the rest of a segment once a server has refused them."""
        names = call["request"]["dropped_fields"]
        if any(attempt["kind"] == "refused_fields" for attempt in call["attempts"]):
            self.refusing.add(cell.model)
        self.dropped[cell.model] = set()
        droppable = {*self.options(cell, 1, (None, {})),
                     *queries.cache_switch(self.engine, "avoid", "x")[1]} - server_errors.NEVER_DROPPED
        self.dropped[cell.model] = set(names)
        fits = sorted(set(names)) == names and set(names) <= droppable
        if not fits or bool(names) != (cell.model in self.refusing):
            yield "options-differ", f"dropped fields {schema.shown(names)}, refused " \
                f"{'some' if cell.model in self.refusing else 'none'}"

    def _verdicts(self, cell: plan.Cell, call: Json, messages: list[dict[str, str]],
                  lanes: int) -> Problems:
        response = call["response"]
        checks = self.checks(cell, response) if call["outcome"] == "ok" and response else None
        if call["checks"] != checks:
            yield "checks-differ", f"told are {schema.shown(call['checks'])}, scored again they " \
                f"are {schema.shown(checks)}"
        told, follows = call["truncated"], self.truncation(cell, messages, response, checks,
                                                           call["outcome"])
        if told != follows and not (lanes > 1 and _without_estimate(told) in map(
                _without_estimate, self._other_verdicts(cell, call, messages, checks))):
            yield "truncated-differs", f"told is {schema.shown(told)}, it follows " \
                f"{schema.shown(follows)}"

    def _other_verdicts(self, cell: plan.Cell, call: Json, messages: list[dict[str, str]],
                        checks: Optional[Json]) -> list[Json]:
        """Return the verdicts of a lane that had not seen the latest answers of the others."""
        return [self.truncation(cell, messages, call["response"], checks, call["outcome"], unseen)
                for unseen in range(MOST_UNSEEN + 1)]

    # -- other lines
    def identified(self, event: Json, is_first: bool) -> Problems:
        """endpoint_identified against the manifest; takes up the context in force."""
        manifest, context = self.manifest, event["context"]
        self.effective_tokens[event["model"]] = context["effective_tokens"]
        if context["requested_tokens"] != self.num_ctx:
            yield "context-differs", f"{context['requested_tokens']} tokens were asked for, " \
                f"the manifest says {self.num_ctx}"
        yield from context_problems(context)
        if event["prompt_cache_method"] != manifest["prompt_cache"]["method"]:
            yield "manifest-differs", f"prompt_cache_method is {event['prompt_cache_method']}"
        if is_first and event["engine"] != manifest["engine"]:
            yield "manifest-differs", f"the engine told the same moment is " \
                f"{schema.shown(event['engine'])}"
        elif event["engine"]["name"] != manifest["engine"]["name"]:
            yield "manifest-differs", f"the engine is {schema.shown(event['engine']['name'])}"
        before = {one["model"]: one for one in manifest["contexts"]}.get(event["model"])
        if is_first and before != {"model": event["model"], **context}:
            yield "context-differs", "the manifest tells another context of this model"

    def cache_probed(self, event: Json) -> Problems:
        """cache_probed against the run's longest prompt and its own probes."""
        expected = cache_verdicts(self.longest(event["model"]), event["probes"])
        for name, value in expected.items():
            if event[name] != value:
                yield "cache-probe-differs", f"{name} is {schema.shown(event[name])}, it follows " \
                    f"{schema.shown(value)}"
        kinds = [probe["kind"] for probe in event["probes"]]
        if kinds != (["as_run", "identical"] if self.longest(event["model"]) else []):
            yield "cache-probe-differs", f"its probes are {schema.shown(kinds)}"


def context_problems(context: Json) -> Problems:
    """What engines.context_in_force says of a context that is known."""
    asked, given = context["requested_tokens"], context["effective_tokens"]
    reason = (f"the server gives a request {given} tokens, {asked} were asked for"
              if given and asked and given < asked else
              f"the server gives a request {given} tokens, more than was asked for"
              if given and asked and given > asked else None)
    if given is not None and context["reason"] != reason:
        yield "context-differs", f"its reason is {schema.shown(context['reason'])}, it follows " \
            f"{schema.shown(reason)}"
    if given is None and not UNTOLD.search(context["reason"] or ""):
        yield "context-differs", f"it is not known, for {schema.shown(context['reason'])}"


def _without_estimate(verdict: Json) -> Json:
    return {**verdict, "reason": ESTIMATE.sub("about n", verdict["reason"] or "")}


def _text(value: Any) -> str:
    """JSON by which true and 1, 0 and 0.0 are told apart."""
    return json.dumps(value, sort_keys=True)
CallProblems = Iterator[tuple[str, str]]

# A chunk of text costs at least so many bytes of JSON around its text, whatever the dialect.
MIN_BYTES_PER_CHUNK = 20
UNSENT = ("connect_failed", "timeout", "context_limit")     # that no request need have left for
KIND_RUN = re.compile(r"([ra])([1-9][0-9]{0,8})")


def problems(call: Json) -> CallProblems:
    """Everything that is wrong with one call_finished line by itself."""
    yield from _outcome(call)
    yield from _reasoning(call)
    yield from _flags(call)
    if call["timing"]:
        yield from _order(call["timing"])
        yield from _presence(call)
        yield from _chunks(call)
        yield from _stamps(call)


# --- outcome -------------------------------------------------------------------------------------
def _outcome(call: Json) -> CallProblems:
    outcome, response, error = call["outcome"], call["response"], call["error"]

    def wrong(what: str) -> tuple[str, str]:
        return "outcome-differs", f"{outcome}, but {what}"

    if outcome == "ok":
        if error is not None:
            yield wrong("there is an error")
        if response is None or call["timing"] is None:
            yield wrong("there is no response")
        elif response["http_status"] != 200 or response["finish_reason"] in (None, "error"):
            yield wrong("status or finish_reason are those of no answer")
        return
    if error is None or error["kind"] != outcome:
        yield wrong("the error is none, or of another kind")
    elif error["status"] != (response and response["http_status"]):
        yield wrong("the error has another status than the response")
    if call["checks"] is not None:
        yield wrong("its answer was checked")
    status = response["http_status"] if response else None
    if not _status_fits(outcome, status):
        yield wrong(f"status {status} is none that it has")
    if call["timing"] is None and (response or outcome not in UNSENT):
        yield wrong("there is no timing")


def _status_fits(outcome: str, status: Optional[int]) -> bool:
    """What engines.error_kind and calls.failure_of can make of a status."""
    if outcome == "connect_failed":
        return status is None
    if outcome in ("no_events", "interrupted_answer", "stream_error"):
        return status == 200
    if outcome in ("http_error", "rate_limited", "server_busy"):
        return status is not None and status != 200
    return True


# --- texts ---------------------------------------------------------------------------------------
def _characters(text: str) -> int:
    """The most characters that a text can have come in: a server may cut a pair in halves."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def _texts(call: Json) -> tuple[str, str]:
    response = call["response"]
    return (response["text"], response["reasoning_text"]) if response else ("", "")


def _reasoning(call: Json) -> CallProblems:
    told, (_, thinking) = call["reasoning"], _texts(call)
    if not len(thinking) <= told["characters"] <= _characters(thinking) \
            and REDACTED_KEY not in thinking:
        yield "reasoning-differs", f"{told['characters']} characters of {len(thinking)}"
    if bool(told["chunks"]) != bool(thinking) or \
            (told["mode"] in ("streamed", "inline")) != bool(thinking):
        yield "reasoning-differs", f"mode {told['mode']} with {told['chunks']} chunks"
    if told["mode"] in ("none", "hidden") and (told["mode"] == "hidden") != _hidden_tokens(call):
        yield "reasoning-differs", f"mode {told['mode']} is not what usage tells"
    if told["mode"] == "inline" and sse.THINK_START not in thinking \
            and sse.THINK_END not in thinking:
        yield "reasoning-differs", "it is inline, but no tag is in it"


def _hidden_tokens(call: Json) -> bool:
    usage = call["response"]["usage"] if call["response"] else None
    details = usage.get("completion_tokens_details") if usage else None
    count = details.get("reasoning_tokens") if isinstance(details, dict) else None
    return isinstance(count, int) and not isinstance(count, bool) and count > 0


def _flags(call: Json) -> CallProblems:
    model = call["response"]["model"] if call["response"] else None
    if call["flags"] != call_flags(model, call["model"]):
        yield "call-flags-differ", ", ".join(call["flags"]) or "none"


# --- marks ---------------------------------------------------------------------------------------
ASCENDING = ("headers_us", "first_chunk_us", "first_token_us", "last_token_us", "done_us")


def _order(timing: Json) -> CallProblems:
    known = [(name, timing[name]) for name in ASCENDING if timing[name] is not None]
    for (earlier, before), (later, after) in zip(known, known[1:]):
        if after < before:
            yield "marks-out-of-order", f"{later} {after} lies before {earlier} {before}"


def _presence(call: Json) -> CallProblems:
    """Which marks there are: a response has a header, bytes have an end."""
    timing, response = call["timing"], call["response"]
    if (response is None) != (timing["headers_us"] is None):
        yield "marks-out-of-order", "headers_us and response: one of them lacks"
    marks = [timing[name] is not None for name in ASCENDING]
    if (timing["bytes_received"] > 0) != marks[-1] or any(marks) > marks[-1]:
        yield "marks-out-of-order", "done_us lacks, or tells the end of nothing"
    if (timing["first_token_us"] is None) != (timing["last_token_us"] is None):
        yield "marks-out-of-order", "first_token_us and last_token_us: one of them lacks"
    if timing["first_chunk_us"] is None and timing["first_token_us"] is not None:
        yield "marks-out-of-order", "there is text, but first_chunk_us lacks"


def _chunks(call: Json) -> CallProblems:
    timing, chunk_us = call["timing"], call["timing"]["chunk_us"]

    def wrong(what: str) -> tuple[str, str]:
        return "chunks-differ", what

    first = chunk_us[0] if chunk_us else None
    if first != timing["first_token_us"]:
        yield wrong(f"chunk_us begins with {first}, first_token_us is {timing['first_token_us']}")
    if chunk_us and sum(chunk_us) != timing["last_token_us"]:
        yield wrong(f"chunk_us sums up to {sum(chunk_us)}, last_token_us is "
                    f"{timing['last_token_us']}")
    if bool(chunk_us) == (timing["ttft_null_reason"] in NULL_REASONS) or \
            (chunk_us and timing["ttft_null_reason"] is not None):
        yield wrong("ttft_null_reason is told where there is text, or is none that is known")
    runs = kind_runs(timing["chunk_kinds"], len(chunk_us))
    if runs is None:
        yield wrong("chunk_kinds does not count the chunks, or is not in its shortest form")
    else:
        yield from _first_answer(timing, runs)
        yield from _chunks_and_texts(call, runs)
    yield from _reads(timing)


def kind_runs(kinds: Optional[str], chunks: int) -> Optional[list[tuple[str, int]]]:
    """[("r", 12), ("a", 30)] of a chunk_kinds; None where it does not fit so many chunks."""
    if kinds is None:
        return [("a", chunks)] if chunks else []
    runs = [(kind, int(count)) for kind, count in KIND_RUN.findall(kinds)]
    fits = ("".join(f"{kind}{count}" for kind, count in runs) == kinds
            and sum(count for _, count in runs) == chunks and "r" in kinds
            and all(a[0] != b[0] for a, b in zip(runs, runs[1:])))
    return runs if fits else None


def _first_answer(timing: Json, runs: list[tuple[str, int]]) -> CallProblems:
    ahead = runs[0][1] if runs and runs[0][0] == "r" else 0
    has_answer = any(kind == "a" for kind, _ in runs)
    expected = sum(timing["chunk_us"][:ahead + 1]) if has_answer else None
    if timing["first_answer_us"] != expected:
        yield "chunks-differ", f"first_answer_us is {timing['first_answer_us']}, the first chunk " \
            f"of the answer came at {expected}"


def _chunks_and_texts(call: Json, runs: list[tuple[str, int]]) -> CallProblems:
    """No chunk without text, no text without a chunk, but where the answer came in one piece."""
    in_one_piece = call["timing"]["ttft_null_reason"] is not None
    for kind, text in zip("ar", _texts(call)):
        chunks = sum(count for name, count in runs if name == kind)
        if chunks > _characters(text) and REDACTED_KEY not in text:
            yield "chunks-differ", f"{chunks} chunks for {len(text)} characters"
        if text and not chunks and not in_one_piece:
            yield "chunks-differ", f"{len(text)} characters came in no chunk"
    reasoning = sum(count for name, count in runs if name == "r")
    if not in_one_piece and reasoning != call["reasoning"]["chunks"]:
        yield "reasoning-differs", f"{call['reasoning']['chunks']} chunks, chunk_kinds has " \
            f"{reasoning}"


def _reads(timing: Json) -> CallProblems:
    chunk_us, at = timing["chunk_us"], 0
    for first, count in timing["reads"]:
        if first < at or count < 2 or first + count > len(chunk_us):
            yield "chunks-differ", f"the read [{first}, {count}] is not among the chunks"
        elif any(chunk_us[first + 1:first + count]):
            yield "chunks-differ", f"chunks of the read [{first}, {count}] have times of their own"
        at = first + count


# --- stamps and bytes ----------------------------------------------------------------------------
def _stamps(call: Json) -> CallProblems:
    timing, lag = call["timing"], call["timing"]["read_lag_us"]
    text_reads = len(timing["chunk_us"]) - sum(count - 1 for _, count in timing["reads"])
    if (lag is None) != (timing["stamp"] == "user"):
        yield "stamps-differ", f"{timing['stamp']} stamps, read_lag_us is {schema.shown(lag)}"
    elif lag is not None and not (spread_fits(lag) and lag["n"] >= max(text_reads, 1)):
        yield "stamps-differ", f"p50 {lag['p50']}, p99 {lag['p99']}, max {lag['max']} of " \
            f"{lag['n']} reads, {text_reads} of them with text"
    characters = sum(map(len, _texts(call)))
    least = characters + MIN_BYTES_PER_CHUNK * max(len(timing["chunk_us"]) - 1, 0)
    if timing["bytes_received"] < least:
        yield "bytes-too-few", f"{timing['bytes_received']} bytes for {characters} characters in " \
            f"{len(timing['chunk_us'])} chunks"


def spread_fits(spread: Json) -> bool:
    """Whether a spread can be one: percentiles ascend, and a few values have few of them."""
    p50, p99, most, n = (spread[name] for name in ("p50", "p99", "max", "n"))
    few = n < 100 and p99 != most or n == 1 and p50 != most
    return bool(n >= 1 and p50 <= p99 <= most and not few)
