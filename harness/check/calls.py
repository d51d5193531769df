"""Check one ledger line against the plan, the suites and the lines before it.

`Replay` is the runner's own state, filled from the ledger line by line, and rebuilds from it what
the runner must have written: requests, answer checks and verdicts. Only a call's random salt is
taken from the line itself. `contradictions` looks for values of one call that contradict each
other. Both yield sentences that name the field.
"""
from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, Optional, Union

from core import plan, reasoning_marks, records, schema, usage
from core.suites import PHASES, Question
from engines import queries, server_errors
from run import redaction, reply, retries, state
from run.timing import CLOCK_STEP_NS, NULL_REASONS, coarse

Suites = dict[str, tuple[Question, ...]]
Problems = Iterator[str]

SALT = re.compile(r"[0-9a-f]{16}\Z")
MAX_UNSEEN = 8                # answers of other lanes that a call may not have seen yet
ESTIMATE = re.compile(r"about \d+")
RETRY_PAUSE_US = int(retries.RETRY_PAUSE_S * 0.9e6)      # a sleep may end a little early
CLOCK_STEP_US = CLOCK_STEP_NS // 1000
MIN_BYTES_PER_CHUNK = 20      # of JSON around the text of a chunk, in any API
MAY_LACK_TIMING = ("connect_failed", "timeout", "context_limit", "skipped")
KIND_RUN = re.compile(r"([ra])([1-9][0-9]{0,8})")


# --- what the runner would have written ----------------------------------------------------------
class Replay(state.State):
    """The runner's state after the lines so far. suites None: this checkout has other suites, and
    requests, checks and verdicts are not rebuilt."""

    def __init__(self, manifest: records.Manifest, suites: Optional[Suites]) -> None:
        super().__init__(manifest, suites or {}, {name: name for name in manifest["models"]}, True)
        self.has_suites = suites is not None
        self.salt_owners: dict[str, tuple[Any, ...]] = {}
        self.refusing: set[str] = set()       # models whose server has refused a field

    def resumed(self, lines: Sequence[records.LedgerLine],
                manifest: Optional[records.Manifest] = None) -> Replay:
        """The state of a new process that has read these lines. manifest: of a longer plan."""
        new = Replay(manifest or self.manifest, self.suites if self.has_suites else None)
        new.recall(lines)
        new.salt_owners = self.salt_owners
        return new

    def problems(self, cell: plan.Cell, call: records.CallFinished) -> Problems:
        """Differences between a call and what the runner would have written, before note_call."""
        if not self.has_suites:
            return
        if call["outcome"] == "skipped":
            message = call["error"]["message"] if call["error"] else ""
            if not self.failed_hellos & ({cell.model} if PHASES[cell.phase].kind != "mixed"
                                         else set(self.served)):
                yield "outcome: no hello of this segment has failed"
            for name, value in self.not_asked(cell, "skipped", message).items():
                yield from _compare(name, dict(call)[name], value)
            return
        edge = self.edge(cell) if PHASES[cell.phase].kind == "append" else None
        if edge is not None:
            for name, value in self.beyond_the_edge(cell, edge).items():
                yield from _compare(name, dict(call).get(name), value)
            return
        if call["outcome"] == "context_limit" and call["timing"] is None:
            yield "outcome: the conversation had not reached the end of the context"
        messages = self.messages(cell)
        expected = {"prompt": self.question(cell).prompt, **plan.fingerprint(messages)}
        for name, value in expected.items():
            yield from _compare(f"request.{name}", dict(call["request"])[name], value)
        yield from self._options(cell, call)
        yield from self._verdicts(cell, call, messages)

    def _options(self, cell: plan.Cell, call: records.CallFinished) -> Problems:
        request, names = call["request"], call["request"]["dropped_fields"]
        if any(attempt["kind"] == "refused_fields" for attempt in call["attempts"]):
            self.refusing.add(cell.model)
        self.dropped[cell.model] = set()
        droppable = {"max_tokens", *self.options(cell, 1, (None, {})),
                     *queries.cache_switch(self.engine, "avoid", "x")[1]
                     } - (server_errors.NEVER_DROPPED - {"max_tokens"})
        if sorted(set(names)) != names or not set(names) <= droppable \
                or bool(names) != (cell.model in self.refusing):
            yield f"request.dropped_fields: {schema.shown(names)} does not follow from the " \
                "refused attempts"
        self.dropped[cell.model] = set(names)
        fresh = next((word for word in (request["salt"], *request["options"].values())
                      if isinstance(word, str) and SALT.match(word)), "")
        cache = self.cache(cell, fresh)
        yield from _compare("request.salt", request["salt"], cache[0])
        yield from _compare("request.options", request["options"],
                            self.options(cell, self.max_tokens(cell), cache))
        if fresh:
            grows = PHASES[cell.phase].kind in state.GROWING
            owner = state.conversation_of(cell) if grows else (cell.cell_id, call["segment"])
            if self.salt_owners.setdefault(fresh, owner) != owner:
                yield f"request.salt: {fresh} is the salt of another call"

    def _verdicts(self, cell: plan.Cell, call: records.CallFinished,
                  messages: list[dict[str, str]]) -> Problems:
        response, outcome = call["response"], call["outcome"]
        checks: Any = self.checks(cell, response) if outcome == "ok" and response else None
        yield from _compare("checks", call["checks"], checks)
        if outcome == "ok" and self.lacks_reason(cell, response):
            yield "response.finish_reason is null, but the server gave reasons before"
        lanes = next(entry["lanes"] for entry in self.manifest["plan"]["phases"]
                     if entry["phase"] == cell.phase)
        given: Any = call["truncated"]
        # A call on one of several lanes may not have seen the last answers of the others.
        first: Any = None
        for unseen in range(MAX_UNSEEN + 1 if lanes > 1 else 1):
            expected = self.truncation(cell, messages, response, checks, outcome, unseen)
            first = first or expected
            if given == expected or lanes > 1 and given["verdict"] == expected["verdict"] \
                    and _without_estimate(given["reason"]) == _without_estimate(expected["reason"]):
                return
        yield from _compare("truncated", given, first)

    def identified(self, event: records.EndpointIdentified, is_first: bool) -> Problems:
        """Differences from the manifest. is_first: written in the moment of the manifest."""
        manifest, context = self.manifest, event["context"]
        self.effective_tokens[event["model"]] = context["effective_tokens"]
        yield from _compare("context.requested_tokens", context["requested_tokens"], self.num_ctx)
        yield from context_problems(context)
        yield from _compare("prompt_cache_method", event["prompt_cache_method"],
                            manifest["prompt_cache"]["method"])
        before = next((dict(one) for one in manifest["contexts"]
                       if one["model"] == event["model"]), {})
        if is_first:
            yield from _compare("engine", event["engine"], manifest["engine"])
        yield from _compare("engine.name", event["engine"]["name"], manifest["engine"]["name"])
        if is_first or context["effective_tokens"] == before.get("effective_tokens"):
            yield from _compare("context", {"model": event["model"], **context}, before)

    def entry_problems(self, entry: records.Phase) -> Problems:
        """Differences of an added phase from what the runner would have added."""
        if self.has_suites:
            chosen = plan.chosen_options(self.manifest)
            yield from _compare("phases", entry, plan.phase_of(
                entry["phase"], self.suites, entry["lanes"], int(chosen["num_predict"]),
                entry.get("context_tokens"), entry.get("challenge")))

    def cache_probed(self, event: records.CacheProbed) -> Problems:
        """Differences from what the longest prompt and the probes give."""
        longest = self.longest(event["model"])
        for name, value in reply.cache_verdicts(longest, event["probes"]).items():
            yield from _compare(name, dict(event)[name], value)
        yield from _compare("probes", [probe["kind"] for probe in event["probes"]],
                            ["as_run", "identical"] if longest else [])


def _compare(field: str, given: Any, expected: Any) -> Problems:
    """A sentence where two values are not the same JSON; true and 1 are not."""
    if given == expected and repr(given) == repr(expected):
        return
    if json.dumps(given, sort_keys=True) != json.dumps(expected, sort_keys=True):
        was, now = schema.difference(field, given, expected)
        yield f"{was}; expected {now}"


def context_problems(context: Union[records.Context, records.ModelContext]) -> Problems:
    """Whether the reason names the numbers of a context that is not the requested one."""
    asked, given, reason = (context["requested_tokens"], context["effective_tokens"],
                            context["reason"])
    numbers = {int(digits) for digits in re.findall(r"\d+", reason or "")}
    if given is None:
        fits = reason is not None
    elif not asked or given == asked:
        fits = reason is None
    else:
        fits = {given, asked} == numbers if given < asked else numbers == {given}
    if not fits:
        yield f"context.reason is {schema.shown(reason)}; {asked} tokens were requested, " \
            f"effective are {given}"


def _without_estimate(reason: Optional[str]) -> str:
    return ESTIMATE.sub("about n", reason or "")


# --- one call ------------------------------------------------------------------------------------
def contradictions(call: records.CallFinished) -> Problems:
    """Values of a call that contradict each other."""
    yield from _outcome(call)
    yield from _reasoning(call)
    model = call["response"]["model"] if call["response"] else None
    # Only the runner saw the stream from which these were computed.
    own = sorted({*call["flags"]} & {*reply.STREAM_FLAGS})
    yield from _compare("flags", call["flags"],
                        sorted({*own, *reply.call_flags(model, call["model"])}))
    yield from _attempts(call)
    for name in ("usage", "server_timings") if call["response"] else ():
        given = dict(call["response"] or {})[name]
        yield from _compare(f"response.{name}", given, usage.kept(given))
    if call["timing"]:
        yield from _chunks(call, call["timing"])
        yield from _bytes_and_lag(call, call["timing"])


def _outcome(call: records.CallFinished) -> Problems:
    outcome, response, error = call["outcome"], call["response"], call["error"]
    status = response["http_status"] if response else None
    if outcome == "ok":
        if error is not None or response is None or call["timing"] is None:
            yield "outcome is ok, but there is an error, or no response or timing"
        elif status != 200 or not (
                reply.is_complete(reply.reason_of(response["finish_reason"]))
                or reply.reason_of(response["finish_reason"]) is None and "".join(_texts(call))):
            yield f"outcome is ok with HTTP status {status} and finish_reason " \
                f"{schema.shown(response['finish_reason'])}"
        return
    if error is None or error["kind"] != outcome:
        yield f"error.kind does not match the outcome {outcome}"
    elif error["status"] != status:
        yield f"error.status is {error['status']}, response.http_status is {status}"
    if call["checks"] is not None:
        yield f"checks: outcome {outcome} has no answer to check"
    if outcome == "connect_failed" and status is not None \
            or outcome in ("no_events", "interrupted_answer", "empty_answer", "stream_error") \
            and status != 200 \
            or outcome in ("http_error", "rate_limited", "server_busy") and status in (None, 200):
        yield f"outcome {outcome} cannot have HTTP status {status}"
    if call["timing"] is None and (response or outcome not in MAY_LACK_TIMING):
        yield "timing is missing"


def _texts(call: records.CallFinished) -> tuple[str, str]:
    """(answer, reasoning)."""
    response = call["response"]
    return (response["text"], response["reasoning_text"]) if response else ("", "")


def _most_characters(text: str) -> int:
    """Characters in which a text may have arrived: a server may split a surrogate pair."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def _reasoning(call: records.CallFinished) -> Problems:
    given, text = call["reasoning"], _texts(call)[1]
    mode, is_streamed = given["mode"], given["mode"] in ("streamed", "inline")
    if not len(text) <= given["characters"] <= _most_characters(text) \
            and redaction.REDACTED_KEY not in text:
        yield f"reasoning.characters is {given['characters']}, reasoning_text has {len(text)}"
    if bool(given["chunks"]) != bool(text) or is_streamed != bool(text):
        yield f"reasoning.mode is {mode} with {given['chunks']} chunks and {len(text)} characters"
    tokens = usage.counts(call["response"]).reasoning
    hidden = bool(tokens)
    if not is_streamed and (mode == "hidden") != hidden:
        yield f"reasoning.mode is {mode}, usage reports {schema.shown(tokens)} reasoning tokens"
    if mode == "inline" and not reasoning_marks.reasoning_characters(text):
        yield "reasoning.mode is inline, but reasoning_text has no tag"


def _attempts(call: records.CallFinished) -> Problems:
    """Earlier attempts come one after the other and are of the kinds that are repeated."""
    free_us = 0
    for number, attempt in enumerate(call["attempts"]):
        kind, status = attempt["kind"], attempt["status"]
        if not free_us <= attempt["started_us"] <= attempt["ended_us"]:
            yield f"attempts[{number}] lasted from {attempt['started_us']} to " \
                f"{attempt['ended_us']} us; it cannot start before {free_us}"
        loading = server_errors.LOADING_STATUSES if kind == "server_busy" else ()
        if status not in ((400, 422) if kind == "refused_fields" else (
                *retries.RETRY_STATUSES, *loading)):
            yield f"attempts[{number}] of kind {kind} has HTTP status {status}"
        pause_us = 0 if kind == "refused_fields" else RETRY_PAUSE_US
        free_us = max(free_us, attempt["ended_us"] + pause_us)
    if call["timing"] and call["timing"]["started_us"] < free_us:
        yield f"timing.started_us is {call['timing']['started_us']}, an attempt ended at {free_us}"


def _chunks(call: records.CallFinished, timing: records.Timing) -> Problems:
    chunk_us, why_null = timing["chunk_us"], timing["ttft_null_reason"]
    yield from _compare("timing.first_token_us", timing["first_token_us"],
                        chunk_us[0] if chunk_us else None)
    yield from _compare("timing.last_token_us", timing["last_token_us"],
                        sum(chunk_us) if chunk_us else None)
    if why_null is not None if chunk_us else why_null not in NULL_REASONS:
        yield f"timing.ttft_null_reason is {schema.shown(why_null)} with {len(chunk_us)} chunks"
    at = 0
    for first, count in timing["reads"]:
        if first < at or count < 2 or first + count > len(chunk_us) \
                or any(chunk_us[first + 1:first + count]):
            yield f"timing.reads: [{first}, {count}] does not fit chunk_us"
        at = first + count
    kinds, runs = timing["chunk_kinds"], [("a", len(chunk_us))] if chunk_us else []
    if kinds is not None:
        runs = [(kind, int(count)) for kind, count in KIND_RUN.findall(kinds)]
        if "".join(f"{kind}{count}" for kind, count in runs) != kinds \
                or sum(count for _, count in runs) != len(chunk_us) or "r" not in kinds \
                or any(a[0] == b[0] for a, b in zip(runs, runs[1:])):
            yield f"timing.chunk_kinds does not fit {len(chunk_us)} chunks"
            return
    has_answer = any(kind == "a" for kind, _ in runs)
    ahead = runs[0][1] if runs and runs[0][0] == "r" else 0
    yield from _compare("timing.first_answer_us", timing["first_answer_us"],
                        sum(chunk_us[:ahead + 1]) if has_answer else None)
    for name, text in zip("ar", _texts(call)):
        count = sum(count for kind, count in runs if kind == name)
        if count > _most_characters(text) and redaction.REDACTED_KEY not in text \
                or text and not count and why_null is None:
            yield f"timing.chunk_us has {count} chunks of kind {name} for {len(text)} characters"
        if name == "r" and why_null is None:
            yield from _compare("reasoning.chunks", call["reasoning"]["chunks"], count)


def _bytes_and_lag(call: records.CallFinished, timing: records.Timing) -> Problems:
    lag, chunks, done_us = timing["read_lag_us"], len(timing["chunk_us"]), timing["done_us"]
    if (timing["bytes_received"] > 0) != (done_us is not None) \
            or chunks and (done_us is None or done_us < sum(timing["chunk_us"])):
        yield f"timing.done_us is {schema.shown(done_us)} with {timing['bytes_received']} bytes, " \
            f"and a last chunk at {sum(timing['chunk_us'])}"
    if (lag is None) != (timing["stamp"] == "user") or lag is not None and not spread_fits(lag):
        yield f"timing.read_lag_us is {schema.shown(lag)} with {timing['stamp']} stamps"
    if timing["clock_step_us"] and (timing["stamp"] == "kernel"
                                    or abs(timing["clock_step_us"]) < CLOCK_STEP_US):
        yield f"timing.clock_step_us is {timing['clock_step_us']} with {timing['stamp']} stamps"
    characters = sum(map(len, _texts(call)))
    if timing["bytes_received"] < characters + MIN_BYTES_PER_CHUNK * max(chunks - 1, 0):
        yield f"timing.bytes_received is {timing['bytes_received']}, too few for {characters} " \
            f"characters in {chunks} chunks"


def spread_fits(spread: records.Spread) -> bool:
    """Whether percentiles ascend."""
    return spread["p50"] <= spread["p99"] <= spread["max"]


def more_digits(event: Any) -> Problems:
    """Values that the runner would have rounded."""
    timing = event.get("timing") or {}
    spreads = {"heartbeat_overshoot_us": event.get("heartbeat_overshoot_us"),
               "timing.read_lag_us": timing.get("read_lag_us"),
               **{f"lanes[{at}].lag_us": row["lag_us"]
                  for at, row in enumerate(event.get("lanes", ()))}}
    held = {"clock_resolution_ns": event.get("clock_resolution_ns"),
            "timing.heartbeat_gap_us": timing.get("heartbeat_gap_us"),
            **{f"{name}.{part}": us for name, spread in spreads.items()
               for part, us in (spread or {}).items()}}
    for at, probe in enumerate(event.get("probes", ())):
        held[f"probes[{at}].first_token_us"] = probe["first_token_us"]
    for name, value in held.items():
        if value is not None and value != coarse(value):
            yield f"{name} is {value}, which has more digits than it is measured with"


def span_us(call: records.CallFinished) -> Optional[tuple[int, int]]:
    """When a call began, with its first attempt, and when it ended, in t_us."""
    timing, attempts = call["timing"], call["attempts"]
    if timing is None:
        return (attempts[0]["started_us"], attempts[-1]["ended_us"]) if attempts else None
    # done_us is that of the last byte; a call that failed or was left open waited for more.
    end_us = timing["started_us"] + (timing["done_us"] or 0)
    waited = call["outcome"] != "ok" or "left_open" in call["flags"]
    return ((attempts[0] if attempts else timing)["started_us"],
            max(end_us, call["t_us"]) if waited else end_us)
