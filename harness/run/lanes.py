"""Make the planned calls: phases, lanes, and the attempts of each call.

The runner hands in what connects, times and writes; here it is decided which call is next, when a
call is repeated, and when the run has to stop.
"""
from __future__ import annotations

import functools
import gc
import os
import signal
import threading
import time
import uuid
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, Optional, cast

from core import plan
from core.errors import EndpointError, Interrupted
from core.metric_definitions import BROKEN_OUTCOMES
from core.records import CallFinished, Json, Timing
from core.suites import CURVES, PHASES
from core.text import duration, readable
from engines import answers, server_errors
from run import curves, discover, estimates, redaction, retries
from run import reply as replies
from run.ledger_writer import STOP_SUFFIX
from run.progress import LIVE_EVERY_S, Count, Progress, live_line
from run.state import PROBE_MAX_TOKENS, Cache, State
from run.timing import call_timing, coarse

VANISHED_AFTER = 3                # calls in a row that found no server


class Clocks(NamedTuple):
    """The runner's clocks: monotonic ns, and wall clock minus monotonic clock in ns."""

    now_ns: Callable[[], int]
    wall_offset_ns: Callable[[], int]


class Asked(NamedTuple):
    """One call with its attempts."""

    reply: replies.Reply
    timing: Optional[Timing]
    attempts: list[Json]
    request: Json
    loaded: Optional[bool]


class Run:
    """All calls of one run to one endpoint, recorded in one ledger.

    client, ledger, heartbeat: the runner's; in_progress: cell id by lane; warm: models that had
    their hello in this segment; probes: what the server reported of each model last; sampler: of
    the host's gauges, null in a smoke run; lost: lanes and models of which the server lost a
    process, so that the next call loads the model again, which it may not notice before; fatal: the
    error that stops the run.
    """

    def __init__(self, client: Any, state: State, ledger: Any, clocks: Clocks, heartbeat: Any,
                 progress: Progress) -> None:
        self.client, self.state, self.ledger = client, state, ledger
        self.clocks, self.heartbeat, self.progress = clocks, heartbeat, progress
        self.stopping: threading.Event = client.in_flight.stopping
        self.in_progress: dict[int, str] = {}
        self.warm: set[str] = set()
        self.probes: dict[str, answers.Probes] = {}
        self.sampler: Any = None
        self.lost: set[tuple[int, str]] = set()
        self.shown = (0, time.monotonic())
        self.paces = estimates.Paces(state.manifest, state.suites)
        self.counting = threading.Lock()
        self.count = Count([cell for cell in state.planned if not state.is_beyond(cell)],
                           state.retry_failed, state.outcomes)
        self.misses = self.signal_number = 0
        self.fatal: Optional[Exception] = None

    # -- phases
    def run_all(self) -> None:
        """Every phase of every model, then the phases that mix models."""
        state, own = self.state, self.state.own_phases()
        for model in state.served:
            if state.model_done(model):
                continue
            self._run_hello(model)
            if state.manifest["smoke"]:
                continue
            answers_calls = model not in state.failed_hellos
            if answers_calls:
                self.identify(model, discover.ask_again(
                    self.client.send, state.engine, state.served[model], self.probes[model]))
            for name in own[1:]:
                self._run_phase(name, [model])
                if answers_calls:
                    self._say_time_left()
            if answers_calls and len(own) > 1 and model not in state.probed:
                self._on_lanes([[]], functools.partial(self._probe_cache, model))
        for name in state.phases:
            if PHASES[name].kind == "mixed":
                self._run_phase(name, list(state.served))

    def _run_hello(self, model: str) -> None:
        """The hello of a model in this segment; its time includes loading the model.

        If it fails, nothing more is asked of the model; raises EndpointError if none is left.
        """
        hello, begun_us = self.state.hello(model, self.ledger.segment), self.ledger.now_us()
        calls: list[Json] = []
        self._on_lanes([[hello]], lambda cells: calls.append(self.call(cells[0])))
        self._phase_finished(model, "hello", begun_us, [hello])
        error = calls[0]["error"]
        if error and error["status"] == 401:         # some servers list models without a key
            discover.require_key_accepted(401, bool(self.client.key))
        self.warm.add(model)
        if self.sampler:
            self.sampler.note_server_processes()
        if error and not self.state.manifest["smoke"]:
            why = (f"the hello of {readable(model)} failed ({error['kind']}: "
                   f"{readable(error['message'], 400)})")
            if self.state.failed_hellos >= set(self.state.served):
                raise EndpointError(f"{why}; no other call was made")
            self.progress.say(f"{why}; its other calls are skipped", bad=True)

    def _say_time_left(self) -> None:
        state = self.state
        hides = self.progress.live or state.manifest["synthetic"]        # a rehearsal takes 30 s
        cells = [] if hides else self.count.left_cells()
        found = self.paces.estimate(cells) if cells else None
        if found is not None:
            self.progress.say(estimates.estimate_line(found, state.manifest["timeout_s"],
                                                      left=True))

    def _run_phase(self, name: str, models: Sequence[str]) -> None:
        kind, state = PHASES[name].kind, self.state
        model = None if kind == "mixed" else models[0]
        reason = plan.skip_reason(name, models, state.manifest["plan"]["lanes"])
        if reason:
            if (model, name) not in state.finished:
                state.finished.add((model, name))
                self.ledger.write("phase_skipped", model=model, phase=name, reason=reason)
                self.progress.say(f"{name}: skipped; {reason}")
            return
        cells = state.cells(name, models)
        left = [cell for cell in cells if not state.done(cell)]
        for one in models if left else ():
            if one not in self.warm:
                self._run_hello(one)
        begun_us = self.ledger.now_us()
        if left or (model, name) not in state.finished:
            if kind in CURVES and models[0] not in state.failed_hellos:
                curves.make(self, models[0], name, left)
            else:
                self.ask(left)
            self._phase_finished(model, name, begun_us, state.asked(cells))

    def ask(self, cells: Sequence[plan.Cell]) -> None:
        """Ask calls on their lanes."""
        self._on_lanes([[cell for cell in cells if cell.lane == lane]
                        for lane in sorted({cell.lane for cell in cells})], self._call_each)

    def _on_lanes(self, lanes: list[list[plan.Cell]],
                  work: Callable[[list[plan.Cell]], Any]) -> None:
        """One thread per lane; the main thread shows progress and receives signals meanwhile."""
        def guarded(cells: list[plan.Cell]) -> None:
            try:
                work(cells)
            except Exception as error:      # the main thread raises it for the whole run
                self.fatal = self.fatal or error
                self.client.in_flight.drop_all()

        gc.collect()                        # now, since it is off while calls are made
        threads = [threading.Thread(target=guarded, args=(cells,), daemon=True) for cells in lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive() and time.monotonic() < self.client.in_flight.patience_until_s:
                thread.join(LIVE_EVERY_S)
                self._show()
                if not self.signal_number and os.path.exists(    # as --stop leaves it
                        self.ledger.path + STOP_SUFFIX):
                    self.signal_number = int(signal.SIGTERM)
                    self.client.in_flight.drop_all()
        if self.fatal or self.signal_number:
            raise self.fatal or Interrupted(self.signal_number)

    def _show(self) -> None:
        """Update the live line."""
        now, now_s, state = self.client.in_flight.reads(), time.monotonic(), self.state
        (reads, at_s), self.shown = self.shown, (now, now_s)
        self.progress.show(lambda width: live_line(
            width, self.count.made, self.count.total(), list(self.in_progress.values()),
            (now - reads) / max(now_s - at_s, 1e-3), state.spent_us))

    def _call_each(self, cells: list[plan.Cell]) -> None:
        """One lane: one call after the other.

        Turns beyond the context, and calls that need a model whose hello failed, are recorded, not
        asked.
        """
        for cell in cells:
            if self.stopping.is_set():
                return
            kind, state = PHASES[cell.phase].kind, self.state
            needed = set(state.served) if kind == "mixed" else {cell.model}
            failed = sorted(needed & state.failed_hellos)
            edge = state.edge(cell) if kind == "append" else None
            if failed:
                self._record(cell, state.not_asked(cell, "skipped", "not asked: the hello failed "
                                                   "of " + ", ".join(failed)), False)
            elif edge:
                self._record(cell, state.beyond_the_edge(cell, edge))
            else:
                self.call(cell)

    def _phase_finished(self, model: Optional[str], name: str, begun_us: int,
                        cells: list[plan.Cell]) -> None:
        if self.stopping.is_set():
            return
        ok = sum(self.state.outcomes.get(cell.cell_id) == "ok" for cell in cells)
        self.state.finished.add((model, name))
        event = self.ledger.write(
            "phase_finished", model=model, phase=name, planned=len(cells), ok=ok,
            failed=len(cells) - ok, started_us=begun_us, wall_us=self.ledger.now_us() - begun_us)
        self.paces.take(event)
        self.progress.phase_ended(event)

    # -- one call
    def call(self, cell: plan.Cell) -> Json:
        """Ask one question and record the call."""
        messages = self.state.messages(cell)
        self.in_progress[cell.lane] = cell.cell_id
        asked = self._ask(cell, messages, self.state.max_tokens(cell), self._fresh_cache(cell))
        if self.stopping.is_set():                    # dropped; the next segment asks it again
            return {"outcome": "client_stopped", "error": None}
        event = self._record(cell, self.state.call_fields(cell, messages, *asked))
        if event["outcome"] in BROKEN_OUTCOMES and self.sampler \
                and self.sampler.server_lost_processes():
            self.lost.add((cell.lane, cell.model))
        return event

    def _fresh_cache(self, cell: plan.Cell) -> Cache:
        return self.state.cache(cell, uuid.uuid4().hex[:16])

    def _ask(self, cell: plan.Cell, messages: list[dict[str, str]], max_tokens: int,
             cache: Cache) -> Asked:
        """One call with its attempts, all within its time limit.

        Repeats a call that a busy server refused, see run/retries.py, and once one with fields
        that the server refuses, without them.
        """
        until_ns = self.clocks.now_ns() + int(self.state.manifest["timeout_s"] * 1e9)
        dropped, attempts = self.state.dropped[cell.model], list[Json]()
        loaded = discover.ask_loaded(self.client.send, self.state.engine,
                                     self.state.served[cell.model],
                                     self.probes.get(cell.model, {}))
        if (cell.lane, cell.model) in self.lost:
            self.lost.remove((cell.lane, cell.model))
            loaded = False
        while True:
            options = self.state.options(cell, max_tokens, cache)
            body = {"model": self.state.served[cell.model],
                    "messages": plan.salted(messages, cache[0]), **options}
            begun_us, before_ns = self.ledger.now_us(), self.clocks.wall_offset_ns()
            reply = self.client.send("POST", "/v1/chat/completions", body,
                                     (until_ns - self.clocks.now_ns()) / 1e9)
            after_ns = self.clocks.wall_offset_ns()
            text = reply.text()
            refused = server_errors.refused_fields(reply.status, text, options) - dropped
            left_s = (until_ns - self.clocks.now_ns()) / 1e9
            kind = replies.outcome_of(reply)[0]
            pause_s = 0.0 if refused else None if reply.failure or reply.stream.texts else \
                retries.pause_s(kind, reply.headers, text, len(attempts))
            if pause_s is None or pause_s >= left_s or self.stopping.is_set():
                break
            dropped |= refused
            cache = self._fresh_cache(cell) if refused else cache
            attempts.append({"kind": "refused_fields" if refused else kind,
                             "status": reply.status, "started_us": begun_us,
                             "ended_us": self.ledger.now_us()})
            self.stopping.wait(pause_s)
        self._stop_if_useless(reply, kind, text)
        gap_us = (coarse(self.heartbeat.longest_gap_us(
            reply.arrivals.started_ns, self.clocks.now_ns()))
            if reply.arrivals and self.heartbeat.is_alive() else None)
        timing = call_timing(reply.stream, reply.arrivals, before_ns, after_ns,
                             self.ledger.zero_ns, gap_us)
        return Asked(reply, timing, attempts, {"salt": cache[0], "options": options,
                                               "dropped_fields": sorted(dropped)}, loaded)

    def _stop_if_useless(self, reply: replies.Reply, kind: str, text: str) -> None:
        """Stop the run after a few calls in a row that found no server, or if a quota is used up.
        """
        if self.stopping.is_set():
            return                            # the client itself dropped this call
        self.misses = self.misses + 1 if replies.met_no_server(reply) else 0
        if self.misses >= VANISHED_AFTER and reply.failure:
            self.fatal = self.fatal or EndpointError(
                f"the server is gone: {self.misses} calls in a row found none "
                f"({reply.failure[1]}); start it again")
        reset_s = retries.reset_s(reply.headers, time.time()) if kind == "rate_limited" else None
        if retries.is_used_up(kind, text) \
                or reset_s and reset_s > self.state.manifest["timeout_s"]:
            when = f"resume in {duration(reset_s)}" if reset_s else "resume when it is renewed"
            self.fatal = self.fatal or EndpointError(
                f"the endpoint refuses more calls (HTTP {reply.status}: "
                f"{readable(redaction.text(server_errors.error_message(text)))}); {when}")

    def _record(self, cell: plan.Cell, fields: Json, shows: bool = True) -> Json:
        """Write a call's line, on disk before this returns; raise an error that stops the run."""
        event: Json = self.ledger.write("call_finished", **cell.fields(), **fields)
        call = cast(CallFinished, event)
        self.state.note_call(cell, call)
        self.in_progress.pop(cell.lane, None)
        with self.counting:                   # another lane may end a call at the same moment
            self.count.take(event)
            self.paces.take(event)
            made, total = self.count.made, self.count.total()
        if shows:
            # The built-in endpoint's answers pass no check.
            is_rehearsal = self.state.manifest["synthetic"]
            self.progress.call_ended({**call, "checks": None} if is_rehearsal else call, made,
                                     total)
        if self.fatal:
            raise self.fatal
        return event

    def identify(self, model: str, probes: answers.Probes) -> str:
        """Record what the server reports of itself and of one model, some only after its load.

        Returns what to do about a context that is too short, or "".
        """
        if self.stopping.is_set():
            return ""                         # the answers are those of a dropped connection
        self.probes[model] = probes
        found = self.ledger.write("endpoint_identified", **redaction.document(
            self.state.identity(model, probes)))
        self.paces.take(found)
        context, note = found["context"], ""
        if context["remedy"]:
            note = readable(f"{model}: {context['reason']}. {context['remedy']}", 700)
            self.progress.say(note)
        return note

    def _probe_cache(self, model: str, _: Any) -> None:
        """Ask the longest prompt of one lane twice more: as in the run, then the same bytes."""
        longest, probes = self.state.longest(model), []
        if longest:
            cell = longest.cell
            messages, cache = self.state.messages(cell), self._fresh_cache(cell)
            for kind in ("as_run", "identical"):
                asked = self._ask(cell, messages, min(
                    PROBE_MAX_TOKENS, self.state.max_tokens(cell)), cache)
                probes.append(replies.cache_probe(kind, asked.reply, asked.timing))
        if not self.stopping.is_set():
            self.state.probed.add(model)
            self.ledger.write("cache_probed", model=model,
                              **replies.cache_verdicts(longest, probes))
