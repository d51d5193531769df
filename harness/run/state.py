"""The state of a run: what has been asked, what remains, and what a call's ledger line contains.

Pure, and built only from the manifest and from ledger lines. The runner passes in every line that
it writes or, after a resume, reads back, so that no state is lost with a process.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from core import challenge, curve_levels, depth_prompts, plan, records, usage
from core.answer_checks import check_answer
from core.metrics import median_or_none
from core.reasoning_marks import strip_reasoning
from core.records import Json
from core.suites import ADDED, PHASES, Question
from engines import answers, queries
from run import reply as replies

Conversation = tuple[str, str, int, Optional[int]]     # model, phase, repeat, level
GROWING = ("append", "depth")          # kinds of phases whose later questions follow the answers
Cache = tuple[Optional[str], Json]     # a salt, and request fields, that bypass the prompt cache
PROBE_MAX_TOKENS = 16                  # of the calls that only test for a cache


class State:
    """Plan, suites and models of a run, and the outcomes of its calls.

    served: published model id -> the id that the server knows. Kept small: the evidence is on disk.
    """

    def __init__(self, manifest: records.Manifest, suites: dict[str, tuple[Question, ...]],
                 served: dict[str, str], retry_failed: bool) -> None:
        self.manifest: Any = manifest
        self.suites, self.served, self.retry_failed = suites, served, retry_failed
        chosen = plan.chosen_options(manifest)
        self.temperature, self.num_ctx = chosen["temperature"], chosen["num_ctx"]
        self.engine: str = manifest["engine"]["name"]
        self.phases: dict[str, Any] = {p["phase"]: p for p in manifest["plan"]["phases"]}
        self.planned = plan.all_cells(manifest)
        self.outcomes: dict[str, str] = {}
        self.finished: set[tuple[Optional[str], str]] = set()
        self.failed_hellos: set[str] = set()  # models whose hello failed in this segment
        self.probed: set[str] = set()
        self.dropped: dict[str, set[str]] = {model: set() for model in served}
        self.effective_tokens: dict[str, Optional[int]] = {}
        self.spent_us: list[int] = []
        # Of each model's answers, in order: (phase, characters, tokens) of the prompt.
        self._prompt_sizes: dict[str, list[tuple[str, int, int]]] = {m: [] for m in served}
        # Of answers on one lane, by model: characters, time to first token in µs, cell.
        self._prompts: dict[str, list[tuple[int, int, plan.Cell]]] = {}
        # By conversation_of, for growing conversations: turns, salt, question at the edge.
        self._turns: dict[Conversation, list[tuple[str, str]]] = {}
        self._salts: dict[Conversation, str] = {}
        self._edges: dict[Conversation, str] = {}
        self._gives_reasons: set[str] = set()           # models with a finish_reason so far
        self._cut: set[Conversation] = set()            # conversations that the server truncated
        self._only_new: set[Conversation] = set()       # usage.counts_only_new
        # Of ramp and depth: latest calls by level and cell id; where a curve ended; samples of the
        # machine in this segment, the first and the latest; characters and tokens of a prompt.
        self._level_calls: dict[tuple[str, str, int], dict[str, records.CallFinished]] = {}
        self.ends: dict[tuple[str, str], curve_levels.End] = {}
        self.samples: list[records.HostSampled] = []
        self._counted: dict[str, tuple[int, int]] = {}

    # -- from ledger lines
    def recall(self, events: Iterable[records.LedgerLine]) -> None:
        """Restore the state from lines that an earlier process wrote."""
        for event in events:
            if event["event"] == "call_finished":
                call: Any = event
                self.note_call(plan.Cell(*(call.get(k) for k in plan.Cell._fields)), event)
            elif event["event"] == "phase_finished" or event["event"] == "phase_skipped":
                self.finished.add((event["model"], event["phase"]))
            elif event["event"] == "cache_probed":
                self.probed.add(event["model"])
            elif event["event"] == "curve_ended":
                self.note_end(event)
        self.failed_hellos = set()            # the next segment greets its models again

    def note_call(self, cell: plan.Cell, event: records.CallFinished) -> None:
        """Keep what later calls need from this one."""
        timing, kind = event["timing"], PHASES[cell.phase].kind
        self.outcomes[cell.cell_id] = event["outcome"]
        if cell.phase == "hello" and event["outcome"] != "ok":
            self.failed_hellos.add(cell.model)
        if event["response"] and replies.reason_of(event["response"].get("finish_reason")):
            self._gives_reasons.add(cell.model)
        if cell.level:
            calls = self._level_calls.setdefault((cell.model, cell.phase, cell.level), {})
            calls.pop(cell.cell_id, None)
            calls[cell.cell_id] = event
        if timing and timing["done_us"]:
            self.spent_us.append(timing["done_us"])
        if event["outcome"] == "ok" and timing and event["response"]:
            self._note_answer(cell, event, timing, event["response"])
        elif event["outcome"] == "context_limit" and timing and kind == "append":
            self._edges[conversation_of(cell)] = cell.question_id       # asked, and refused

    def _note_answer(self, cell: plan.Cell, event: records.CallFinished, timing: records.Timing,
                     response: records.Response) -> None:
        kind, request = PHASES[cell.phase].kind, event["request"]
        chars, tokens = request["messages_chars"], usage.counts(response).prompt
        if kind == "append" and event["truncated"]["verdict"] == "yes":
            self._cut.add(conversation_of(cell))
        if usage.counts_only_new(event):
            self._only_new.add(conversation_of(cell))
        elif tokens and event["truncated"]["verdict"] != "yes":   # a truncated one has fewer
            self._prompt_sizes[cell.model].append((cell.phase, chars, tokens))
        if kind == "depth" and tokens:
            self._counted[cell.model] = chars, tokens
        if kind in GROWING:
            conversation = conversation_of(cell)
            document = self.document(cell, chars - len(request["prompt"])) \
                if kind == "depth" and conversation not in self._turns else ""
            self._turns.setdefault(conversation, []).append(
                (document + request["prompt"], strip_reasoning(response["text"])))
            if request["salt"]:
                self._salts[conversation] = request["salt"]
            if self._edges.get(conversation) == cell.question_id:
                del self._edges[conversation]
        # On parallel lanes TTFT includes waiting, and a cold one the load: not comparable.
        elif kind in ("single", "suite_context") and timing["first_token_us"] and not event["cold"]:
            self._prompts.setdefault(cell.model, []).append(
                (chars, timing["first_token_us"], cell))

    # -- what remains
    def cells(self, name: str, models: Sequence[str]) -> list[plan.Cell]:
        """Return the planned calls of a phase."""
        return plan.cells_of(self.manifest["plan"], name, models, self.manifest["cell_id_prefix"])

    def done(self, cell: plan.Cell) -> bool:
        """Whether a planned call is not to be made (again)."""
        outcome = self.outcomes.get(cell.cell_id)
        return outcome == "ok" or self.is_beyond(cell) or \
            outcome is not None and not self.retry_failed

    @property
    def total(self) -> int:
        """The number of planned calls that are or were asked."""
        return len(self.asked(self.planned))

    def is_beyond(self, cell: plan.Cell) -> bool:
        """Whether a curve ended before or at the level of a call, which is then not asked."""
        end = self.ends.get((cell.model, cell.phase))
        return end is not None and cell.level is not None and cell.level >= end.level

    def asked(self, cells: Iterable[plan.Cell]) -> list[plan.Cell]:
        """The cells without those that are not asked because a curve ended."""
        return [cell for cell in cells if not self.is_beyond(cell)
                or cell.cell_id in self.outcomes]

    def own_phases(self) -> list[str]:
        """Return the phases that run once per model: all but the mixed phase."""
        return [name for name in self.phases if PHASES[name].kind != "mixed"]

    def left(self, model: str) -> list[plan.Cell]:
        """Return the calls of a model that remain, without the mixed phase."""
        return [cell for name in self.own_phases() for cell in self.cells(name, [model])
                if not self.done(cell)]

    def model_done(self, model: str) -> bool:
        """Whether nothing remains to be done with a model, except in the mixed phase."""
        own = self.own_phases()
        finished = all((model, name) in self.finished for name in own)
        # Phases may have been added after the cache was probed.
        probed = model in self.probed and all((model, name) in self.finished for name in own
                                              if PHASES[name].kind in ADDED)
        return not self.left(model) and (probed or finished and (
            own == ["hello"] or self.has_skipped(model)))

    def has_skipped(self, model: str) -> bool:
        """Whether calls of a model were not made because its hello failed."""
        return any(self.outcomes.get(cell.cell_id) == "skipped" for name in self.own_phases()
                   for cell in self.cells(name, [model]))

    def ended(self, events: Sequence[Mapping[str, Any]]) -> bool:
        """Whether the ledger has its last line, and nothing remains to be done."""
        return (bool(events) and events[-1]["event"] == "run_finished"
                and all(map(self.model_done, self.served)) and all(map(self.done, self.planned)))

    def all_answered(self) -> bool:
        """Whether every planned call has an answer; hellos that a resume added do not count, nor
        the level at which a curve ended."""
        return all(self.outcomes.get(cell.cell_id) == "ok" or self.is_beyond(cell)
                   for cell in self.planned)

    # -- levels of ramp and depth
    def levels_of(self, phase: str) -> list[int]:
        """Return the planned levels of a phase, none except of ramp and depth."""
        return list(self.phases[phase].get("levels", ()))

    def note_end(self, event: records.CurveEnded) -> None:
        """Keep where a curve ended."""
        self.ends[event["model"], event["phase"]] = curve_levels.End(
            event["level"], event["kind"], event["reason"])

    def note_sample(self, sample: records.HostSampled) -> None:
        """Keep the first and the latest sample of the machine in this segment."""
        self.samples = [*self.samples[:1], sample]

    def end_before(self, model: str, phase: str, level: int) -> Optional[curve_levels.End]:
        """Return why a level cannot be asked; None if it can."""
        too_deep = curve_levels.context_end(level, self.effective_tokens.get(model)) \
            if PHASES[phase].kind == "depth" else None
        is_here = self.manifest["target"]["class"] == "loopback" and len(self.samples) > 1
        return too_deep or (curve_levels.memory_end(level, *self.samples) if is_here else None)

    def end_after(self, model: str, phase: str, level: int) -> Optional[curve_levels.End]:
        """Return whether a curve ends with the calls of its deepest level so far."""
        planned = self.levels_of(phase)
        found = [list(self._level_calls.get((model, phase, one), {}).values()) for one in planned]
        at = planned.index(level)
        if not found[at] or any(found[at + 1:]) \
                or any(call["outcome"] == "skipped" for call in found[at]):
            return None
        if PHASES[phase].kind == "depth":
            return curve_levels.depth_end(found[at], level)
        return curve_levels.ramp_end(list(zip(planned, found[:at + 1])))

    def document(self, cell: plan.Cell, chars: int) -> str:
        """Return the document of a level of depth."""
        texts = depth_prompts.source_texts(self.suites)
        return depth_prompts.document(texts, cell.level or 0, chars)

    # -- the request of a call
    def hello(self, model: str, segment: int) -> plan.Cell:
        """Return a model's hello in a segment: the planned one or, once done, one per resume."""
        cell = self.cells("hello", [model])[0]
        if not segment or not self.done(cell):
            return cell
        return cell._replace(repeat=segment, cell_id=plan.cell_id_of(
            self.manifest["cell_id_prefix"], model, "hello", "hello", segment))

    def question(self, cell: plan.Cell) -> Question:
        """Return the question of a cell."""
        found = next(q for q in self.suites[cell.phase] if q.id == cell.question_id)
        if cell.phase == "challenge":
            return challenge.question(found, self.phases["challenge"]["challenge"])
        return found._replace(required_markers=depth_prompts.canaries(cell.level or 0)) \
            if PHASES[cell.phase].kind == "depth" else found

    def messages(self, cell: plan.Cell) -> list[dict[str, str]]:
        """Return the messages of a cell after the answers so far, without salt."""
        kind, question = PHASES[cell.phase].kind, self.question(cell)
        history = self._turns.get(conversation_of(cell), ()) if kind in GROWING else ()
        document = self.document(cell, depth_prompts.document_chars(
            cell.level or 0, question, self._counted.get(cell.model))) \
            if kind == "depth" and cell.question_id == "cold" else ""
        return plan.messages_of(cell.phase, question, self.suites[cell.phase],
                                () if document else history, document)

    def max_tokens(self, cell: plan.Cell) -> int:
        """Return the limit of output tokens of a cell."""
        return int(self.phases[cell.phase]["max_tokens"])

    def cache(self, cell: plan.Cell, fresh: str) -> Cache:
        """Return what makes this call bypass the prompt cache; fresh: a new random word.

        A growing conversation uses the cache by design; only its beginning must be new. The first
        call at a depth is cold by definition.
        """
        policy, kind = self.manifest["prompt_cache"]["policy"], PHASES[cell.phase].kind
        if policy != "avoid" and kind != "depth":
            return None, {}
        if kind in GROWING:
            return self._salts.setdefault(conversation_of(cell), fresh), {}
        method, fields = queries.cache_switch(self.engine, policy, fresh)
        fields = {k: v for k, v in fields.items() if k not in self.dropped[cell.model]}
        return (None, fields) if method == "engine_switch" and fields else (fresh, {})

    def options(self, cell: plan.Cell, max_tokens: int, cache: Cache) -> Json:
        """Return every field of the request except model and messages."""
        dropped = self.dropped[cell.model]
        limit = "max_completion_tokens" if "max_tokens" in dropped else "max_tokens"
        wanted = {"temperature": self.temperature, limit: max_tokens, "stream": True,
                  "stream_options": {"include_usage": True}, **cache[1]}
        return {k: v for k, v in wanted.items() if k not in dropped}

    def longest(self, model: str) -> Optional[replies.Longest]:
        """Return the longest prompt sent on one lane."""
        found = self._prompts.get(model)
        if not found:
            return None
        chars, first_us, cell = max(found, key=lambda one: one[0])
        return replies.Longest(first_us, cell, median_or_none(
            us * chars / own for own, us, other in found
            if 2 * own >= chars and other.cell_id != cell.cell_id))

    # -- the ledger line of a call
    def call_fields(self, cell: plan.Cell, messages: list[dict[str, str]], reply: replies.Reply,
                    timing: Optional[records.Timing], attempts: list[Json],
                    request: Json, loaded: Optional[bool] = None) -> Json:
        """Return the fields of `call_finished` except those of the cell.

        loaded: whether the model was loaded before the request, None if unknown.
        """
        outcome, error = replies.outcome_of(reply)
        response = replies.response_of(reply)
        if error and outcome == "empty_answer" and self._fills_context(cell, response):
            outcome = "context_limit"
            error = {**error, "kind": outcome, "message":
                     "the prompt fills the context; " + error["message"]}
        if outcome == "ok" and self.lacks_reason(cell, response):
            outcome, error = replies.interrupted(reply.status)
        checks = self.checks(cell, response) if outcome == "ok" and response else None
        return {"cold": is_cold(cell, loaded), "loaded": loaded, "attempts": attempts,
                "request": {"prompt": self.question(cell).prompt, **plan.fingerprint(messages),
                            **request},
                "response": response, "timing": timing, "reasoning": replies.reasoning_of(reply),
                "truncated": self.truncation(cell, messages, response, checks, outcome),
                "checks": checks, "flags": sorted({*reply.stream.flags, *replies.call_flags(
                    reply.stream.model, self.served[cell.model])}),
                "outcome": outcome, "error": error}

    def lacks_reason(self, cell: plan.Cell, response: Optional[records.Response]) -> bool:
        """Whether an answer ended without a finish_reason, while earlier ones had one."""
        return (cell.model in self._gives_reasons and response is not None
                and replies.reason_of(response["finish_reason"]) is None)

    def _fills_context(self, cell: plan.Cell, response: Optional[records.Response]) -> bool:
        """Whether the prompt left no room for an answer."""
        tokens, context = usage.counts(response).prompt, self.effective_tokens.get(cell.model)
        return bool(tokens and context and tokens >= context - plan.CONTEXT_SPARE and response
                    and replies.reason_of(response["finish_reason"]) in replies.AT_LIMIT)

    def checks(self, cell: plan.Cell, response: records.Response) -> Optional[records.Checks]:
        """Return the checks of an answer; None if thinking used up the limit of output tokens.

        Then there is no answer whose format could be wrong.
        """
        only_thinking = response["reasoning_text"] and not response["text"].strip()
        if only_thinking and replies.reason_of(response["finish_reason"]) in replies.AT_LIMIT:
            return None
        question = self.question(cell)
        return check_answer(response["text"], question.required_markers, question.format_rule)

    def truncation(self, cell: plan.Cell, messages: list[dict[str, str]],
                   response: Optional[records.Response],
                   checks: Optional[records.Checks], outcome: str,
                   unseen: int = 0) -> Json:
        """Return whether the server truncated the prompt, judged by the model's earlier answers.

        unseen: number of latest answers to leave out, as a parallel lane may not have seen them.
        """
        if outcome != "ok" or response is None:
            return {"verdict": "unknown", "reason": "there is no answer"}
        found = (all(m["found"] for m in checks["markers"])
                 if checks and checks["markers"] else None)
        sizes = self._prompt_sizes[cell.model]
        # Prompts that all contain one suite are truncated alike: not comparable with each other.
        alike = PHASES[cell.phase].kind == "suite_context"
        earlier = [size for size in sizes[:max(len(sizes) - unseen, 0)]
                   if not (alike and size[0] == cell.phase)]
        counted = usage.counts(response)
        at_limit = replies.reason_of(response["finish_reason"]) in replies.AT_LIMIT and (
            counted.completion is not None
            and counted.completion < self.max_tokens(cell) - plan.CONTEXT_SPARE)
        verdict, reason = plan.truncation(
            cell.phase, counted.prompt, sum(len(m["content"]) for m in messages), earlier,
            self.effective_tokens.get(cell.model), found,
            PHASES[cell.phase].kind == "append" and conversation_of(cell) in self._cut,
            counted.completion if at_limit else None, self.max_tokens(cell),
            conversation_of(cell) in self._only_new)
        return {"verdict": verdict, "reason": reason}

    def edge(self, cell: plan.Cell) -> Optional[str]:
        """Return the earlier question at which the cell's conversation filled the context."""
        edge = self._edges.get(conversation_of(cell))
        ids = [q.id for q in self.suites[cell.phase]]
        return edge if edge and ids.index(edge) < ids.index(cell.question_id) else None

    def beyond_the_edge(self, cell: plan.Cell, edge: str) -> Json:
        """As `call_fields`, for a turn that is not asked because question `edge` did not fit."""
        return self.not_asked(cell, "context_limit", "not asked: the conversation met the "
                              f"context's edge at question {edge}")

    def not_asked(self, cell: plan.Cell, outcome: str, message: str) -> Json:
        """As `call_fields`, for a call that is not made."""
        return {"cold": False, "loaded": None, "attempts": [],
                "request": {"prompt": self.question(cell).prompt,
                            **plan.fingerprint(self.messages(cell)), "salt": None, "options": {},
                            "dropped_fields": []},
                "response": None, "timing": None,
                "reasoning": {"mode": "none", "chunks": 0, "characters": 0},
                "truncated": {"verdict": "unknown", "reason": "there is no answer"},
                "checks": None, "flags": [], "outcome": outcome,
                "error": {"kind": outcome, "message": message, "status": None,
                          "body_start": None}}

    def identity(self, model: str, probes: answers.Probes) -> Json:
        """Return the fields of `endpoint_identified`."""
        served = self.served[model]
        context = queries.context_in_force(self.engine, served, probes, self.num_ctx)
        self.effective_tokens[model] = context["effective_tokens"]
        return {"model": model, "engine": queries.identify(probes),
                "facts": queries.model_facts(self.engine, served, probes), "context": context,
                "slots": queries.slots(self.engine, probes),
                "prompt_cache_method": self.manifest["prompt_cache"]["method"]}


def conversation_of(cell: plan.Cell) -> Conversation:
    """The conversation to which a call of a growing phase belongs."""
    return cell.model, cell.phase, cell.repeat, cell.level


def is_cold(cell: plan.Cell, loaded: Optional[bool]) -> bool:
    """Whether a call's time may include the load of its model."""
    return not loaded if loaded is not None else cell.phase == "hello"
