"""What a run knows so far: pure state, built from the plan and from the ledger's own lines.

The runner notes every line here that it writes or, after a resume, reads back. From that follow
what is still to be asked, with which messages, and what a call's line says; nothing here is lost
with the process, since all of it comes from the ledger again.
"""
from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Optional

from core import answer_checks, plan
from core.suites import PHASES, Question
from engines import answers, queries

from run.reply import Reply, call_flags, outcome_of, prompt_tokens_of, reasoning_of, response_of

Json = dict[str, Any]

Cache = tuple[Optional[str], Json]     # a line of salt, and request fields, that keep a cache out
PROBE_MAX_TOKENS = 16                  # of the calls that only look for a cache


class State:
    """Plan, suites and models of a run, and what its calls came to.

    served: published model id -> the id that the server knows. Kept small: the evidence is on disk.
    """

    def __init__(self, manifest: Json, suites: dict[str, tuple[Question, ...]],
                 served: dict[str, str], retry_failed: bool) -> None:
        self.manifest, self.suites, self.served = manifest, suites, served
        self.retry_failed = retry_failed
        self.secret: Optional[str] = None     # the endpoint's key, which a server may repeat
        chosen = {**manifest["canonical_options"], **manifest["canonical_options_overrides"]}
        self.temperature, self.num_ctx = chosen["temperature"], chosen["num_ctx"]
        self.engine: str = manifest["engine"]["name"]
        self.names = [entry["phase"] for entry in manifest["plan"]["phases"]]
        self.planned = plan.all_cells(manifest)
        self.total = len(self.planned)
        self.outcomes: dict[str, str] = {}
        self.finished: set[tuple[Optional[str], str]] = set()
        self.probed: set[str] = set()
        self.dropped: dict[str, set[str]] = {model: set() for model in served}
        self.effective_tokens: dict[str, Optional[int]] = {}
        self.spent_us: list[int] = []
        self._seen: dict[str, list[tuple[str, int, int]]] = {model: [] for model in served}
        self._longest: dict[str, tuple[int, int, plan.Cell]] = {}
        self._turns: dict[tuple[str, int], list[tuple[str, str]]] = {}
        self._salts: dict[tuple[str, int], str] = {}
        self._edges: dict[tuple[str, int], str] = {}

    # -- what the ledger says
    def recall(self, events: Iterable[Json]) -> None:
        """Take up lines that an earlier process wrote."""
        for event in events:
            if event["event"] == "call_finished":
                self.note_call(plan.Cell(*(event[k] for k in plan.Cell._fields)), event)
            elif event["event"] in ("phase_finished", "phase_skipped"):
                self.finished.add((event["model"], event["phase"]))
            elif event["event"] == "cache_probed":
                self.probed.add(event["model"])

    def note_call(self, cell: plan.Cell, event: Json) -> None:
        """Keep what later calls need of this one."""
        self.outcomes[cell.cell_id] = event["outcome"]
        if event["timing"] and event["timing"]["done_us"]:
            self.spent_us.append(event["timing"]["done_us"])
        if event["outcome"] == "ok":
            self._note_answer(cell, event)
        elif (event["outcome"] == "context_limit" and event["timing"]              # asked, refused
              and PHASES[cell.phase].kind == "append"):
            self._edges[cell.model, cell.repeat] = cell.question_id

    def _note_answer(self, cell: plan.Cell, event: Json) -> None:
        kind, chars = PHASES[cell.phase].kind, event["request"]["messages_chars"]
        tokens, first_us = prompt_tokens_of(event["response"]["usage"]), event["timing"][
            "first_token_us"]
        if tokens and event["truncated"]["verdict"] != "yes":   # a cut one tells of no tokenizer
            self._seen[cell.model].append((cell.phase, chars, tokens))
        if kind == "append":
            answer = answer_checks.strip_reasoning(event["response"]["text"])
            self._turns.setdefault((cell.model, cell.repeat), []).append(
                (event["request"]["prompt"], answer))
            if event["request"]["salt"]:
                self._salts[cell.model, cell.repeat] = event["request"]["salt"]
            if self._edges.get((cell.model, cell.repeat)) == cell.question_id:
                del self._edges[cell.model, cell.repeat]
        # On parallel lanes TTFT holds waiting, and a cold one the load: not to be compared with.
        elif kind in ("single", "suite_context") and first_us and not event["cold"]:
            if chars > self._longest.get(cell.model, (0,))[0]:
                self._longest[cell.model] = (chars, first_us, cell)

    # -- what is to be asked
    def cells(self, name: str, models: Sequence[str]) -> list[plan.Cell]:
        """The planned calls of a phase."""
        return plan.cells_of(self.manifest["plan"], name, models, self.manifest["cell_id_prefix"])

    def done(self, cell: plan.Cell) -> bool:
        """Whether a planned call is not to be made (again)."""
        outcome = self.outcomes.get(cell.cell_id)
        return outcome == "ok" or outcome is not None and not self.retry_failed

    def own_phases(self) -> list[str]:
        """Phases that each model goes through by itself."""
        return [name for name in self.names if PHASES[name].kind != "mixed"]

    def left(self, model: str) -> list[plan.Cell]:
        """What is still to be asked of a model, the mixed phase apart."""
        return [cell for name in self.own_phases() for cell in self.cells(name, [model])
                if not self.done(cell)]

    def model_done(self, model: str) -> bool:
        """Whether nothing is left to do with a model, the mixed phase apart."""
        return not self.left(model) and (model in self.probed or self.own_phases() == ["hello"]
                                         and (model, "hello") in self.finished)

    def ended(self, events: Sequence[Json]) -> bool:
        """Whether the ledger has its last line, and nothing is left to do."""
        return (bool(events) and events[-1]["event"] == "run_finished"
                and all(map(self.model_done, self.served)) and all(map(self.done, self.planned)))

    def all_answered(self) -> bool:
        """Whether every planned call has an answer; hellos that a resume added do not count."""
        return all(self.outcomes.get(cell.cell_id) == "ok" for cell in self.planned)

    def hello(self, model: str, segment: int) -> plan.Cell:
        """A model's hello in a segment: the planned one, and once that is done, one a resume."""
        cell = self.cells("hello", [model])[0]
        if not segment or not self.done(cell):
            return cell
        return cell._replace(repeat=segment, cell_id=plan.cell_id_of(
            self.manifest["cell_id_prefix"], model, "hello", "hello", segment))

    def question(self, cell: plan.Cell) -> Question:
        """The question of a cell."""
        return next(q for q in self.suites[cell.phase] if q.id == cell.question_id)

    def messages(self, cell: plan.Cell) -> list[dict[str, str]]:
        """The messages of a cell as things stand, without salt."""
        grows = PHASES[cell.phase].kind == "append"
        history = self._turns.get((cell.model, cell.repeat), ()) if grows else ()
        return plan.messages_of(cell.phase, self.question(cell), self.suites[cell.phase], history)

    def cap(self, cell: plan.Cell) -> int:
        """max_tokens of a cell."""
        entry = next(p for p in self.manifest["plan"]["phases"] if p["phase"] == cell.phase)
        return int(entry["max_tokens"])

    def cache(self, cell: plan.Cell, fresh: str) -> Cache:
        """What keeps the server's prompt cache out of this call; fresh: a new random word.

        A growing conversation lives on the cache by design; only its begin must be new.
        """
        policy = self.manifest["prompt_cache"]["policy"]
        if policy != "avoid":
            return None, {}
        if PHASES[cell.phase].kind == "append":
            return self._salts.setdefault((cell.model, cell.repeat), fresh), {}
        method, fields = queries.cache_switch(self.engine, policy, fresh)
        fields = {k: v for k, v in fields.items() if k not in self.dropped[cell.model]}
        return (None, fields) if method == "engine_switch" and fields else (fresh, {})

    def options(self, cell: plan.Cell, max_tokens: int, cache: Cache) -> Json:
        """Every field of the request but model and messages."""
        wanted = {"temperature": self.temperature, "max_tokens": max_tokens, "stream": True,
                  "stream_options": {"include_usage": True}, **cache[1]}
        return {k: v for k, v in wanted.items() if k not in self.dropped[cell.model]}

    def longest(self, model: str) -> Optional[tuple[int, plan.Cell]]:
        """(time to first token in µs, cell) of the longest prompt asked on one lane."""
        found = self._longest.get(model)
        return found and found[1:]

    # -- what a call came to
    def call_fields(self, cell: plan.Cell, messages: list[dict[str, str]], reply: Reply,
                    timing: Optional[Json], attempts: list[Json], request: Json) -> Json:
        """The fields of `call_finished` but for those of the cell."""
        kind, error = outcome_of(reply, self.secret)
        reasoning = reasoning_of(reply)
        response = response_of(reply, self.secret)
        checks = self.checks(cell, response) if kind == "ok" and response else None
        return {"cold": cell.phase == "hello", "attempts": attempts,
                "request": {"prompt": self.question(cell).prompt, **plan.fingerprint(messages),
                            **request},
                "response": response, "timing": timing, "reasoning": reasoning,
                "truncated": self._truncated(cell, messages, response, checks, kind),
                "checks": checks, "flags": call_flags(reply, self.served[cell.model]),
                "outcome": kind, "error": error}

    def checks(self, cell: plan.Cell, response: Json) -> Optional[Json]:
        """The checks of an answered call; None where its whole budget went into thinking, so that
        there is no answer whose shape could be wrong."""
        thought = response["reasoning_text"] and not response["text"].strip()
        if thought and response["finish_reason"] == "length":
            return None
        question = self.question(cell)
        return answer_checks.check_answer(response["text"], question.required_markers,
                                          question.format_rule)

    def _truncated(self, cell: plan.Cell, messages: list[dict[str, str]],
                   response: Optional[Json], checks: Optional[Json], kind: str) -> Json:
        if kind != "ok" or response is None:
            return {"verdict": "unknown", "reason": "there is no answer"}
        found = (all(m["found"] for m in checks["markers"])
                 if checks and checks["markers"] else None)
        # Prompts that all carry one suite are cut alike: they are no measure of each other.
        alike = PHASES[cell.phase].kind == "suite_context"
        earlier = [e for e in self._seen[cell.model] if not (alike and e[0] == cell.phase)]
        return plan.truncation(
            cell.phase, prompt_tokens_of(response["usage"]),
            sum(len(m["content"]) for m in messages), earlier,
            self.effective_tokens.get(cell.model), found)

    def edge(self, cell: plan.Cell) -> Optional[str]:
        """The question before this one at which its conversation met the context's edge."""
        edge, ids = self._edges.get((cell.model, cell.repeat)), [
            q.id for q in self.suites[cell.phase]]
        return edge if edge and ids.index(edge) < ids.index(cell.question_id) else None

    def beyond_the_edge(self, cell: plan.Cell, edge: str) -> Json:
        """As `call_fields`, for a turn that is not asked, since question `edge` met the edge."""
        message = f"not asked: the conversation met the context's edge at question {edge}"
        return {"cold": False, "attempts": [],
                "request": {"prompt": self.question(cell).prompt,
                            **plan.fingerprint(self.messages(cell)), "salt": None, "options": {},
                            "dropped_fields": []},
                "response": None, "timing": None,
                "reasoning": {"mode": "none", "chunks": 0, "characters": 0},
                "truncated": {"verdict": "unknown", "reason": "there is no answer"},
                "checks": None, "flags": [], "outcome": "context_limit",
                "error": {"kind": "context_limit", "message": message, "status": None,
                          "body_start": None}}

    def identity(self, model: str, probes: answers.Probes) -> Json:
        """The fields of `endpoint_identified`."""
        served = self.served[model]
        context = queries.context_in_force(self.engine, served, probes, self.num_ctx)
        self.effective_tokens[model] = context["effective_tokens"]
        return {"model": model, "engine": queries.identify(probes),
                "facts": queries.model_facts(self.engine, served, probes), "context": context,
                "slots": queries.slots(self.engine, probes),
                "prompt_cache_method": self.manifest["prompt_cache"]["method"]}
