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

import calls
import engines
import ledger
import phases
import state

Json = dict[str, Any]
Suites = dict[str, tuple[phases.Question, ...]]
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
        new.recall(event for event in events if not _hollow(event))
        new.salts = self.salts
        return new

    def note_call(self, cell: phases.Cell, event: Json) -> None:
        """Keep what later calls need; an answer without a response gives them nothing."""
        if _hollow(event):
            self.outcomes[cell.cell_id] = event["outcome"]
        else:
            super().note_call(cell, event)

    # -- one call
    def problems(self, cell: phases.Cell, call: Json, lanes: int) -> Problems:
        """Where a call's line is not what the runner would have written; call before note_call."""
        if not self.has_suites:
            return
        edge = self.edge(cell) if phases.PHASES[cell.phase].kind == "append" else None
        if call["outcome"] == "context_limit" and call["timing"] is None and edge is None:
            yield "outcome-differs", "the conversation had not met the context's edge"
        if edge is not None:
            yield from self._beyond(cell, call, edge)
            return
        messages = self.messages(cell)
        expected = {"prompt": self.question(cell).prompt, **phases.fingerprint(messages)}
        for name, value in expected.items():
            if call["request"][name] != value:
                yield "request-differs", f"{name} is {ledger.shown(call['request'][name])}, " \
                    f"rebuilt it is {ledger.shown(value)}"
        yield from self._options(cell, call)
        yield from self._verdicts(cell, call, messages, lanes)

    def _beyond(self, cell: phases.Cell, call: Json, edge: str) -> Problems:
        for name, value in self.beyond_the_edge(cell, edge).items():
            if call[name] != value:
                yield "request-differs", f"beyond the context's edge, yet {name} is " \
                    f"{ledger.shown(call[name])}"

    def _options(self, cell: phases.Cell, call: Json) -> Problems:
        told = call["request"]
        words = [told["salt"], *told["options"].values()]
        fresh = next((w for w in words if isinstance(w, str) and SALT.match(w)), "")
        self.dropped[cell.model] = set(told["dropped_fields"])
        cache = self.cache(cell, fresh)
        options = self.options(cell, self.cap(cell), cache)
        if told["salt"] != cache[0] or _text(told["options"]) != _text(options):
            yield "options-differ", f"salt and options are {ledger.shown(told['salt'])}, " \
                f"{ledger.shown(told['options'])}, the plan gives {ledger.shown(options)}"
        yield from self._dropped(cell, call)
        if fresh:
            grows = phases.PHASES[cell.phase].kind == "append"
            owner = (cell.model, cell.repeat) if grows else (cell.cell_id, call["segment"])
            if self.salts.setdefault(fresh, owner) != owner:
                yield "salt-repeated", f"{fresh} was another call's"

    def _dropped(self, cell: phases.Cell, call: Json) -> Problems:
        """Fields are left out for the rest of a segment once a server has refused them."""
        names = call["request"]["dropped_fields"]
        if any(attempt["kind"] == "refused_fields" for attempt in call["attempts"]):
            self.refusing.add(cell.model)
        self.dropped[cell.model] = set()
        droppable = {*self.options(cell, 1, (None, {})),
                     *engines.cache_switch(self.engine, "avoid", "x")[1]} - engines.NEVER_DROPPED
        self.dropped[cell.model] = set(names)
        fits = sorted(set(names)) == names and set(names) <= droppable
        if not fits or bool(names) != (cell.model in self.refusing):
            yield "options-differ", f"dropped fields {ledger.shown(names)}, refused " \
                f"{'some' if cell.model in self.refusing else 'none'}"

    def _verdicts(self, cell: phases.Cell, call: Json, messages: list[dict[str, str]],
                  lanes: int) -> Problems:
        response = call["response"]
        checks = self.checks(cell, response) if call["outcome"] == "ok" and response else None
        if call["checks"] != checks:
            yield "checks-differ", f"told are {ledger.shown(call['checks'])}, scored again they " \
                f"are {ledger.shown(checks)}"
        told, follows = call["truncated"], self._truncated(cell, messages, response, checks,
                                                           call["outcome"])
        if told != follows and not (lanes > 1 and _without_estimate(told) in map(
                _without_estimate, self._other_verdicts(cell, call, messages, checks))):
            yield "truncated-differs", f"told is {ledger.shown(told)}, it follows " \
                f"{ledger.shown(follows)}"

    def _other_verdicts(self, cell: phases.Cell, call: Json, messages: list[dict[str, str]],
                        checks: Optional[Json]) -> list[Json]:
        """What a lane could say that had not seen the others' last answers."""
        seen, found = self._seen[cell.model], []
        for unseen in range(min(MOST_UNSEEN, len(seen)) + 1):
            self._seen[cell.model] = seen[:len(seen) - unseen]
            found.append(self._truncated(cell, messages, call["response"], checks,
                                         call["outcome"]))
        self._seen[cell.model] = seen
        return found

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
                f"{ledger.shown(event['engine'])}"
        elif event["engine"]["name"] != manifest["engine"]["name"]:
            yield "manifest-differs", f"the engine is {ledger.shown(event['engine']['name'])}"
        before = {one["model"]: one for one in manifest["contexts"]}.get(event["model"])
        if is_first and before != {"model": event["model"], **context}:
            yield "context-differs", "the manifest tells another context of this model"

    def cache_probed(self, event: Json) -> Problems:
        """cache_probed against the run's longest prompt and its own probes."""
        expected = calls.cache_verdicts(self.longest(event["model"]), event["probes"])
        for name, value in expected.items():
            if event[name] != value:
                yield "cache-probe-differs", f"{name} is {ledger.shown(event[name])}, it follows " \
                    f"{ledger.shown(value)}"
        kinds = [probe["kind"] for probe in event["probes"]]
        if kinds != (["as_run", "identical"] if self.longest(event["model"]) else []):
            yield "cache-probe-differs", f"its probes are {ledger.shown(kinds)}"


def context_problems(context: Json) -> Problems:
    """What engines.context_in_force says of a context that is known."""
    asked, given = context["requested_tokens"], context["effective_tokens"]
    reason = (f"the server gives a request {given} tokens, {asked} were asked for"
              if given and asked and given < asked else
              f"the server gives a request {given} tokens, more than was asked for"
              if given and asked and given > asked else None)
    if given is not None and context["reason"] != reason:
        yield "context-differs", f"its reason is {ledger.shown(context['reason'])}, it follows " \
            f"{ledger.shown(reason)}"
    if given is None and not UNTOLD.search(context["reason"] or ""):
        yield "context-differs", f"it is not known, for {ledger.shown(context['reason'])}"


def _hollow(event: Json) -> bool:
    """Whether an answer has nothing that an answer has; another finding tells of it."""
    return event["event"] == "call_finished" and event["outcome"] == "ok" and not (
        event["response"] and event["timing"])


def _without_estimate(verdict: Json) -> Json:
    return {**verdict, "reason": ESTIMATE.sub("about n", verdict["reason"] or "")}


def _text(value: Any) -> str:
    """JSON by which true and 1, 0 and 0.0 are told apart."""
    return json.dumps(value, sort_keys=True)
