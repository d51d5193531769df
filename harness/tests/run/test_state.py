"""The state of a run: remaining calls, their messages, and the fields of their ledger lines."""

from __future__ import annotations

import unittest
from typing import Any, Optional

from core import answer_checks, plan, suites
from engines import answers, queries
from run import reply as replys
from run import state
from tests.run.test_reply import reply
from tests.scripted_endpoint import END, event, says

SUITES = suites.load_suites()
TURNS = [question.id for question in SUITES["edge_append"]]
NO_PROBES: answers.Probes = {}


def manifest(names: str = "5q,edge_append", models: str = "m", policy: str = "avoid",
             engine: str = "unknown", repeats: int = 1, smoke: bool = False,
             **overrides: Any) -> dict[str, Any]:
    return {"canonical_options": {"temperature": 0.1, "num_ctx": 4096, "num_predict": 2048},
            "canonical_options_overrides": overrides, "engine": {"name": engine},
            "models": models.split(","), "cell_id_prefix": "x:y", "smoke": smoke,
            "prompt_cache": {"policy": policy, "method": "salt"}, "plan": plan.plan_of(
                plan.parse_phases(names), SUITES, 4, repeats, 2048, smoke)}


def known(retry_failed: bool = False, **options: Any) -> state.State:
    made = manifest(**options)
    return state.State(made, SUITES, {name: f"/served/{name}" for name in made["models"]},
                       retry_failed)


def line(of: state.State, cell: plan.Cell, outcome: str = "ok", text: str = "answer",
         tokens: Optional[int] = 100, first_us: int = 50_000, salt: Optional[str] = None,
         asked: bool = True, truncated: str = "no") -> dict[str, Any]:
    """A call_finished line, as far as state.py reads it."""
    messages = of.messages(cell)
    return {"event": "call_finished", **cell.fields(), "outcome": outcome,
            "cold": cell.phase == "hello", "truncated": {"verdict": truncated, "reason": None},
            "request": {"prompt": of.question(cell).prompt, "salt": salt,
                        **plan.fingerprint(messages)},
            "response": {"text": text, "usage": {"prompt_tokens": tokens}, "server_timings": None},
            "timing": {"first_token_us": first_us, "done_us": 90_000} if asked else None}


def note(of: state.State, cell: plan.Cell, outcome: str = "ok", **options: Any) -> None:
    of.note_call(cell, line(of, cell, outcome, **options))


class Remaining(unittest.TestCase):
    def test_every_planned_call_remains_until_it_has_a_line(self):
        of = known(names="5q")
        cells = of.left("m")
        self.assertEqual([cell.phase for cell in cells], ["hello"] + ["5q"] * 5)
        self.assertEqual((cells, of.total), (of.planned, 6))
        note(of, cells[0])
        note(of, cells[1], "timeout")
        self.assertEqual(of.left("m"), cells[2:])
        self.assertEqual(of.spent_us, [90_000, 90_000])

    def test_failed_calls_remain_only_with_retry_failed(self):
        for retry, left in ((False, False), (True, True)):
            of = known(retry, names="5q")
            note(of, of.planned[1], "timeout")
            self.assertEqual(of.planned[1] in of.left("m"), left)
            note(of, of.planned[1], "ok")
            self.assertNotIn(of.planned[1], of.left("m"))

    def test_a_model_is_done_once_its_cache_was_probed(self):
        of = known(names="5q")
        for cell in of.planned:
            note(of, cell)
        self.assertFalse(of.model_done("m"))
        of.recall([{"event": "cache_probed", "model": "m"}])
        self.assertTrue(of.model_done("m"))

    def test_a_smoke_run_is_done_once_its_hello_phase_has_finished(self):
        of = known(smoke=True)
        note(of, of.planned[0])
        self.assertFalse(of.model_done("m"))
        of.recall([{"event": "phase_finished", "model": "m", "phase": "hello"}])
        self.assertTrue(of.model_done("m"))

    def test_a_run_has_ended_with_its_last_line_and_nothing_remaining(self):
        last = [{"event": "run_finished"}]
        of = known(names="parallel_mixed", models="m,n")
        self.assertEqual([cell.phase for cell in of.planned].count("parallel_mixed"), 20)
        of.recall([{"event": "phase_finished", "model": m, "phase": "hello"} for m in "mn"])
        for cell in of.planned:
            self.assertFalse(of.ended(last))
            note(of, cell)
        self.assertTrue(of.ended(last))
        self.assertEqual([of.ended([]), of.ended([*last, {"event": "run_resumed"}])],
                         [False, False])

    def test_a_mixed_phase_that_cannot_run_does_not_keep_a_run_open(self):
        of = known(names="parallel_mixed")
        self.assertEqual([cell.phase for cell in of.planned], ["hello"])
        note(of, of.planned[0])
        of.recall([{"event": "phase_finished", "model": "m", "phase": "hello"}])
        self.assertTrue(of.ended([{"event": "run_finished"}]))

    def test_only_planned_calls_decide_whether_all_are_answered(self):
        of = known(smoke=True)
        self.assertFalse(of.all_answered())
        note(of, of.planned[0])
        note(of, of.hello("m", 1), "timeout")
        self.assertTrue(of.all_answered())
        note(of, of.planned[0], "timeout")
        self.assertFalse(of.all_answered())

    def test_a_resume_has_its_own_hello_once_the_planned_one_is_done(self):
        of = known()
        planned = of.planned[0]
        self.assertEqual([of.hello("m", 0), of.hello("m", 3)], [planned, planned])
        note(of, planned)
        self.assertEqual([of.hello("m", 0), of.hello("m", 3)], [planned, planned._replace(
            cell_id="x:y:m:hello:hello:r3", repeat=3)])

    def test_recall_restores_the_state_of_the_live_run(self):
        live, lines = known(repeats=2), []
        for cell in live.planned[:9]:
            made = line(live, cell, salt="s" if cell.phase == "edge_append" else None)
            live.note_call(cell, made)
            lines.append(made)
        lines += [{"event": "phase_finished", "model": "m", "phase": "5q"},
                  {"event": "phase_skipped", "model": None, "phase": "parallel_mixed"},
                  {"event": "host_sampled"}]
        live.finished |= {("m", "5q"), (None, "parallel_mixed")}
        again = known(repeats=2)
        again.recall(lines)
        self.assertEqual({**vars(again), "manifest": None}, {**vars(live), "manifest": None})


class Messages(unittest.TestCase):
    def test_only_a_conversation_grows_by_its_own_answered_turns(self):
        of = known(repeats=2, models="m,n")
        turns = of.cells("edge_append", ["m"])
        note(of, turns[0], text="<think>hm</think>First.")
        note(of, turns[1], "timeout")
        note(of, of.cells("5q", ["m"])[0])
        question = SUITES["edge_append"][2].prompt
        self.assertEqual(of.messages(turns[2]), [
            {"role": "user", "content": SUITES["edge_append"][0].prompt},
            {"role": "assistant", "content": "First."}, {"role": "user", "content": question}])
        again, other = turns[2 + len(TURNS)], of.cells("edge_append", ["n"])[2]
        self.assertEqual((again.repeat, other.model), (1, "n"))
        for cell in (again, other):
            self.assertEqual(of.messages(cell), [{"role": "user", "content": question}])
        five = of.cells("5q", ["m"])[1]
        self.assertEqual(of.messages(five),
                         [{"role": "user", "content": SUITES["5q"][1].prompt}])

    def test_a_suite_in_context_contains_every_question(self):
        of = known(names="edge_suite")
        content = of.messages(of.cells("edge_suite", ["m"])[1])[0]["content"]
        for question in SUITES["edge_suite"]:
            self.assertIn(f"[{question.id}] {question.prompt}", content)

    def test_max_tokens_is_that_of_the_phase(self):
        of = known(names="5q,edge_append")
        self.assertEqual([of.max_tokens(of.cells(name, ["m"])[0]) for name in ("hello", "5q",
                                                                        "edge_append")],
                         [32, 2048, 512])

    def test_questions_go_to_lanes_in_order_and_mixed_lanes_to_models_in_turn(self):
        of = known(names="parallel_same,parallel_mixed", models="m,n,o")
        same = of.cells("parallel_same", ["m"])
        self.assertEqual([cell.lane for cell in same], [0, 1, 2, 3] * 5)
        self.assertEqual([cell.question_id for cell in same],
                         [question.id for question in SUITES["parallel_same"]])
        mixed = of.cells("parallel_mixed", ["m", "n", "o"])
        self.assertEqual([(cell.lane, cell.model) for cell in mixed[:5]],
                         [(0, "m"), (1, "n"), (2, "o"), (3, "m"), (0, "m")])


class Caches(unittest.TestCase):
    def cache(self, of: state.State, name: str, index: int = 0) -> state.Cache:
        return of.cache(of.cells(name, ["m"])[index], f"fresh{index}")

    def test_how_a_call_bypasses_the_prompt_cache(self):
        refused = known(engine="llama.cpp")
        refused.dropped["m"].add("cache_prompt")
        allowed = {"policy": "allow", "engine": "llama.cpp"}
        for name, of, phase, index, cache in (
                ("no switch: a salt", known(), "5q", 0, ("fresh0", {})),
                ("a salt per call", known(), "5q", 1, ("fresh1", {})),
                ("llama.cpp", known(engine="llama.cpp"), "5q", 0, (None, {"cache_prompt": False})),
                ("vLLM", known(engine="vLLM"), "5q", 0, (None, {"cache_salt": "fresh0"})),
                ("a refused switch", refused, "5q", 0, ("fresh0", {})),
                ("cache allowed", known(**allowed), "5q", 0, (None, {})),
                ("cache allowed, conversation", known(**allowed), "edge_append", 0, (None, {}))):
            with self.subTest(name):
                self.assertEqual(self.cache(of, phase, index), cache)

    def test_a_conversation_keeps_its_first_salt_also_after_a_resume(self):
        of = known(repeats=2)
        self.assertEqual([self.cache(of, "edge_append", i)[0] for i in (0, 1, len(TURNS))],
                         ["fresh0", "fresh0", f"fresh{len(TURNS)}"])
        of = known()
        note(of, of.cells("edge_append", ["m"])[0], salt="old")
        self.assertEqual(self.cache(of, "edge_append", 1), ("old", {}))

    def test_options_leave_out_what_the_server_refused(self):
        of = known(temperature=0.7)
        cell = of.planned[1]
        self.assertEqual(of.options(cell, 64, (None, {"cache_prompt": False})), {
            "temperature": 0.7, "max_tokens": 64, "stream": True,
            "stream_options": {"include_usage": True}, "cache_prompt": False})
        of.dropped["m"] |= {"stream_options", "temperature"}
        self.assertEqual(of.options(cell, 64, ("salt", {})), {"max_tokens": 64, "stream": True})

    def test_longest_is_the_longest_answered_prompt_of_one_lane(self):
        of = known(names="5q,parallel_same,edge_append,edge_suite")
        self.assertIsNone(of.longest("m"))
        one, two = of.cells("5q", ["m"])[:2]
        chars = {cell: plan.fingerprint(of.messages(cell))["messages_chars"]
                 for cell in (one, two)}
        for cell in (of.planned[0], one, two):
            note(of, cell, first_us=1000 + cell.lane)
        longer = max(chars, key=lambda cell: chars[cell])
        shorter_chars, longer_chars = sorted(chars.values())
        before = (1000, longer, 1000 * longer_chars / shorter_chars
                  if 2 * shorter_chars >= longer_chars else None)
        self.assertEqual(of.longest("m"), before)
        for name in ("parallel_same", "edge_append"):
            note(of, of.cells(name, ["m"])[5])
        self.assertEqual(of.longest("m"), before)
        suite = of.cells("edge_suite", ["m"])[0]
        note(of, suite, "timeout")
        note(of, suite, first_us=70_000)
        self.assertEqual(of.longest("m"), (70_000, suite, None))


class ContextEdge(unittest.TestCase):
    def test_turns_beyond_the_edge_of_the_context_are_not_asked(self):
        of = known(repeats=2)
        turns = of.cells("edge_append", ["m"])
        note(of, turns[0])
        note(of, turns[3], "context_limit")
        self.assertEqual([of.edge(cell) for cell in turns],
                         [None] * 4 + [TURNS[3]] * (len(TURNS) - 4) + [None] * len(TURNS))
        note(of, turns[4], "context_limit", asked=False)           # as it is recorded then
        self.assertEqual(of.edge(turns[5]), TURNS[3])

    def test_an_answer_at_the_edge_removes_it(self):
        of = known(retry_failed=True)
        turns = of.cells("edge_append", ["m"])
        note(of, turns[3], "context_limit")
        note(of, turns[3])
        self.assertIsNone(of.edge(turns[4]))

    def test_a_turn_beyond_the_edge_is_recorded_with_its_messages(self):
        of = known()
        turns = of.cells("edge_append", ["m"])
        note(of, turns[0], text="First.")
        note(of, turns[1], "context_limit")
        fields = of.beyond_the_edge(turns[2], TURNS[1])
        message = f"not asked: the conversation met the context's edge at question {TURNS[1]}"
        self.assertEqual(fields, {
            "cold": False, "loaded": None, "attempts": [], "request": {
                "prompt": SUITES["edge_append"][2].prompt,
                **plan.fingerprint(of.messages(turns[2])), "salt": None, "options": {},
                "dropped_fields": []},
            "response": None, "timing": None,
            "reasoning": {"mode": "none", "chunks": 0, "characters": 0},
            "truncated": {"verdict": "unknown", "reason": "there is no answer"}, "checks": None,
            "flags": [], "outcome": "context_limit", "error": {
                "kind": "context_limit", "message": message, "status": None, "body_start": None}})


class CallFields(unittest.TestCase):
    maxDiff = None

    def fields(self, of: state.State, cell: plan.Cell, made: replys.Reply) -> dict[str, Any]:
        return of.call_fields(cell, of.messages(cell), made, {"timing": 1}, ["attempt"],
                              {"salt": "s", "options": {"o": 1}, "dropped_fields": []})

    def test_an_answer_is_recorded_with_its_request_and_checks(self):
        of = known(names="frozen")
        cell = of.cells("frozen", ["m"])[0]
        prompt = of.question(cell).prompt
        fields = self.fields(of, cell, reply(event({"content": "An answer."}, model="/served/m"),
                                           END))
        self.assertEqual(fields, {
            "cold": False, "loaded": None, "attempts": ["attempt"],
            "request": {"prompt": prompt, **plan.fingerprint(of.messages(cell)), "salt": "s",
                        "options": {"o": 1}, "dropped_fields": []},
            "response": {"http_status": 200, "text": "An answer.", "reasoning_text": "",
                         "finish_reason": "stop", "model": "m", "system_fingerprint": None,
                         "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12},
                         "server_timings": None},
            "timing": {"timing": 1}, "reasoning": {"mode": "none", "chunks": 0, "characters": 0},
            "truncated": {"verdict": "unknown",
                          "reason": "no earlier call to compare prompt_tokens with"},
            "checks": answer_checks.check_answer("An answer.", (), None), "flags": [],
            "outcome": "ok", "error": None})

    def test_a_failed_call_has_no_checks(self):
        of = known(names="5q")
        fields = self.fields(of, of.planned[1], reply(b"{}", status=500))
        self.assertEqual((fields["outcome"], fields["checks"], fields["truncated"]["verdict"]),
                         ("http_error", None, "unknown"))

    def test_a_hello_is_cold_and_another_model_is_flagged(self):
        of = known(smoke=True)
        fields = self.fields(of, of.planned[0], reply(event({"content": "a"}, "stop", model="n")))
        self.assertEqual((fields["cold"], fields["flags"]), (True, ["model_mismatch"]))

    def test_thinking_that_used_up_the_token_limit_leaves_nothing_to_check(self):
        of = known(names="5q")
        cell = of.planned[1]
        for finish, text, checked in (("length", "", False), ("length", "a", True),
                                      ("stop", "", True)):
            body = says("hm", field="reasoning_content") + (says(text) if text else b"") + event(
                {}, finish)
            self.assertEqual(self.fields(of, cell, reply(body))["checks"] is not None, checked)

    def test_earlier_prompts_decide_whether_this_one_was_truncated(self):
        of = known(names="frozen,edge_suite")
        for cell in of.cells("frozen", ["m"]):
            chars = plan.fingerprint(of.messages(cell))["messages_chars"]
            note(of, cell, tokens=chars // 4)
        suite = of.cells("edge_suite", ["m"])[0]
        usage = {"prompt_tokens": 300, "completion_tokens": 1, "total_tokens": 301}
        cut = reply(says("a") + event({}, "stop", usage=usage))
        self.assertEqual(self.fields(of, suite, cut)["truncated"]["verdict"], "yes")
        of = known(names="frozen,edge_suite")
        for cell in of.cells("frozen", ["m"]):
            note(of, cell, tokens=1000, truncated="yes")
        self.assertEqual(self.fields(of, suite, cut)["truncated"]["verdict"], "unknown")

    def test_truncation_can_leave_out_the_latest_answers(self):
        of = known(names="frozen,edge_suite")
        first, second = of.cells("frozen", ["m"])[:2]
        suite, response = of.cells("edge_suite", ["m"])[0], {
            "usage": {"prompt_tokens": 300}, "server_timings": None, "finish_reason": "stop"}
        for cell, per_token in ((first, 4), (second, 400)):
            note(of, cell, tokens=max(
                plan.fingerprint(of.messages(cell))["messages_chars"] // per_token, 1))
        found = [of.truncation(suite, of.messages(suite), response, None, "ok", unseen)["verdict"]
                 for unseen in (0, 1, 2, 9)]
        self.assertEqual(found, ["no", "yes", "unknown", "unknown"])

    def test_prompts_that_contain_one_suite_are_not_compared_with_each_other(self):
        of = known(names="edge_suite")
        first, second = of.cells("edge_suite", ["m"])[:2]
        note(of, first, tokens=3000)
        usage = {"prompt_tokens": 1000, "completion_tokens": 1, "total_tokens": 1001}
        fields = self.fields(of, second, reply(says("a") + event({}, "stop", usage=usage)))
        self.assertEqual(fields["truncated"]["verdict"], "unknown")

    def test_identity_holds_what_the_server_reports(self):
        of = known(engine="llama.cpp")
        self.assertEqual(of.identity("m", NO_PROBES), {
            "model": "m", "engine": queries.identify(NO_PROBES),
            "facts": queries.model_facts("llama.cpp", "/served/m", NO_PROBES),
            "context": queries.context_in_force("llama.cpp", "/served/m", NO_PROBES, 4096),
            "slots": queries.slots("llama.cpp", NO_PROBES), "prompt_cache_method": "salt"})
        probes = {"/v1/models": answers.Probe(200, {}, {"data": [{
            "id": "/served/m", "object": "model", "max_model_len": 2048}]}, "")}
        of = known(engine="vLLM")
        of.identity("m", probes)
        self.assertEqual(of.effective_tokens, {"m": 2048})
