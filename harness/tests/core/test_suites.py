"""Prompts and suites: their format, and answers that must pass or fail."""
from __future__ import annotations

import json
import os
import re
import unittest
from collections.abc import Iterator
from typing import Any

import prompts
from core import answer_checks, plan, privacy
from core.plan import cells_of, messages_of, plan_of, skip_reason
from core.release import RELEASES
from core.suites import ALL_PHASES, PHASES, load_suites

HARNESS = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SUITES = os.path.join(HARNESS, "suites")
ANSWERS = os.path.join(HARNESS, "tests", "data", "answers")

RUN_MODES = {"single": "sequential", "same": "parallel", "mixed": "parallel", "append": "append",
             "suite_context": "suite_context"}
# Fields of a suite file that describe it, which the runner does not read, and those of a question.
ADVISORY_FIELDS = ("suite_name", "version", "purpose", "models", "run_mode", "lanes",
                   "question_assignment")
QUESTION_FIELDS = ("id", "prompt", "required_markers", "format_rule")
DEFAULT_LANES = 4                 # of --lanes
EDGE_ANSWER_CHARS = 1_500         # below 512 tokens at 3 characters per token; pure code has 2.7,
                                  # and no edge answer is pure code

FROZEN = [PHASES[name] for name in ALL_PHASES]


def read_json(folder: str, name: str) -> Any:
    with open(os.path.join(folder, name), encoding="utf-8") as file:
        return json.load(file)


def every_question() -> Iterator[tuple[Any, Any, Any]]:
    """(phase, raw question, its test answers) of all suites."""
    for phase in FROZEN:
        if phase.suite_file:
            answers = read_json(ANSWERS, phase.suite_file)
            for question in read_json(SUITES, phase.suite_file)["questions"]:
                yield phase, question, answers[question["id"]]


def failed_checks(question: dict[str, Any], text: str) -> list[str]:
    """"format_rule" and the markers that an answer misses, in this order."""
    checks = answer_checks.check_answer(
        text, question.get("required_markers", ()), question.get("format_rule"))
    rule = ["format_rule"] if checks["format_ok"] is False else []
    return rule + [m["marker"] for m in checks["markers"] if not m["found"]]


def code_in(prompt: str) -> list[str]:
    """The Python code in a prompt: paragraphs that parse and are more than a name."""
    found, paragraphs = [], prompt.split("\n\n")
    for first in range(len(paragraphs)):
        for last in range(len(paragraphs), first, -1):
            piece = f"```python\n{chr(10).join(paragraphs[first:last])}\n```"
            if answer_checks.is_python_code(piece):
                found.append(piece)
                break
    return found


class Shape(unittest.TestCase):
    def test_every_suite_file_belongs_to_a_phase(self) -> None:
        files = sorted(p.suite_file for p in FROZEN if p.suite_file)
        self.assertEqual(sorted(os.listdir(SUITES)), files)
        self.assertEqual(sorted(os.listdir(ANSWERS)), files)

    def test_files_are_ascii_and_formatted(self) -> None:
        for folder in (SUITES, ANSWERS):
            for name in os.listdir(folder):
                with self.subTest(name), open(os.path.join(folder, name), "rb") as file:
                    raw = file.read()
                    again = json.dumps(json.loads(raw), indent=2) + "\n"
                    self.assertEqual(raw, again.encode("ascii"))

    def test_suites_have_the_documented_fields(self) -> None:
        for phase in FROZEN:
            if phase.suite_file:
                fields = [f for f in ADVISORY_FIELDS
                          if f != "question_assignment" or phase.kind in ("same", "mixed")]
                with self.subTest(phase.name):
                    self.assertEqual(list(read_json(SUITES, phase.suite_file)),
                                     [*fields, "questions"])

    def test_questions_have_the_documented_fields(self) -> None:
        for phase, question, _ in every_question():
            with self.subTest(phase.name, id=question["id"]):
                self.assertEqual(list(question),
                                 [f for f in QUESTION_FIELDS if f in question])
                self.assertTrue(question["prompt"].strip() == question["prompt"] != "")
                self.assertTrue(question.get("required_markers") or question.get("format_rule"))

    def test_suites_have_the_expected_number_of_questions(self) -> None:
        counts = {p.name: len(read_json(SUITES, p.suite_file)["questions"])
                  for p in FROZEN if p.suite_file}
        self.assertEqual(counts, {"5q": 5, "20q": 20, "parallel_same": 20, "parallel_mixed": 20,
                                  "edge_append": 9, "edge_suite": 6})

    def test_ids_and_prompts_are_unique(self) -> None:
        questions = [q for _, q, _ in every_question()]
        ids = [q["id"] for q in questions]
        texts = [q["prompt"] for q in questions] + [prompts.HELLO_PROMPT, *prompts.PROMPTS.values()]
        self.assertEqual(sorted(ids), sorted(set(ids)))
        self.assertEqual([i for i in ids if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", i)], [])
        self.assertEqual(sorted(texts), sorted(set(texts)))

    def test_prompts_are_not_near_copies(self) -> None:
        def words(text: str) -> set[str]:
            return set(re.findall(r"[a-z_]{4,}", text.lower()))

        texts = {q["id"]: words(q["prompt"]) for phase, q, _ in every_question()}
        texts.update((name, words(text)) for name, text in prompts.PROMPTS.items())
        names = sorted(texts)
        alike = {(a, b) for a in names for b in names if a < b
                 and len(texts[a] & texts[b]) > 0.35 * len(texts[a] | texts[b])}
        self.assertEqual(alike, set())

    def test_markers_are_lower_case_and_do_not_contain_each_other(self) -> None:
        for _, question, _ in every_question():
            markers = question.get("required_markers", [])
            with self.subTest(question["id"]):
                self.assertEqual(markers, [m.lower() for m in markers if m.strip()])
                self.assertEqual([m for m in markers for other in markers
                                  if m is not other and m in other], [])

    def test_every_format_rule_is_used(self) -> None:
        used = {q["format_rule"] for _, q, _ in every_question() if "format_rule" in q}
        self.assertEqual(used, set(answer_checks.FORMAT_RULES))

    def test_load_suites_reads_every_question(self) -> None:
        loaded = load_suites()
        self.assertEqual(
            {(phase.name, q["id"], q["prompt"], tuple(q.get("required_markers", ())),
              q.get("format_rule")) for phase, q, _ in every_question()},
            {(name, *q) for name, questions in loaded.items()
             if PHASES[name].suite_file and name in ALL_PHASES
             for q in questions})

    def test_there_are_three_frozen_prompts(self) -> None:
        self.assertEqual(list(prompts.PROMPTS), ["P-EASY", "P-MEDIUM", "P-HARD"])


class Advice(unittest.TestCase):
    """The description in a suite agrees with the runner."""

    def test_advisory_fields_agree_with_the_phases(self) -> None:
        for phase in FROZEN:
            if phase.suite_file is None:
                continue
            suite, parallel = read_json(SUITES, phase.suite_file), phase.kind in ("same", "mixed")
            single = skip_reason(phase.name, ["m"], DEFAULT_LANES)
            expected = {"suite_name": phase.suite_file[:-len(".json")],
                        "version": list(RELEASES)[-1],
                        "models": "two or more" if single else "any",
                        "run_mode": RUN_MODES[phase.kind],
                        "lanes": DEFAULT_LANES if parallel else 1,
                        **({"question_assignment": "round_robin"} if parallel else {})}
            with self.subTest(phase.name):
                self.assertEqual({key: suite[key] for key in expected}, expected)

    def test_plan_has_the_lanes_of_the_suites(self) -> None:
        suites = load_suites()
        plan = plan_of(ALL_PHASES, suites, DEFAULT_LANES, 1, 2048)
        named = {p["phase"]: read_json(SUITES, p["suite_file"])["lanes"]
                 for p in plan["phases"] if p["suite_file"]}
        self.assertEqual({p["phase"]: p["lanes"] for p in plan["phases"] if p["suite_file"]}, named)

    def test_questions_alternate_between_models(self) -> None:
        suites = load_suites()
        plan = plan_of(("parallel_mixed",), suites, DEFAULT_LANES, 1, 2048)
        cells = cells_of(plan, "parallel_mixed", ["a", "b"], "n:e")
        self.assertEqual([(c.lane, c.model) for c in cells],
                         [(i % 4, "ab"[i % 2]) for i in range(20)])

    def test_purpose_names_the_number_of_questions(self) -> None:
        numbers = {5: "Five ", 6: "Six ", 9: "nine ", 20: "Twenty "}
        for phase in FROZEN:
            if phase.suite_file:
                suite = read_json(SUITES, phase.suite_file)
                with self.subTest(phase.name):
                    self.assertIn(numbers[len(suite["questions"])], suite["purpose"])


class Answers(unittest.TestCase):
    def test_every_question_has_a_good_answer_and_two_bad_ones(self) -> None:
        for phase in FROZEN:
            if phase.suite_file:
                ids = [q["id"] for q in read_json(SUITES, phase.suite_file)["questions"]]
                self.assertEqual(list(read_json(ANSWERS, phase.suite_file)), ids)
        for _, question, answers in every_question():
            with self.subTest(question["id"]):
                self.assertEqual(list(answers), ["good", "bad"])
                self.assertGreaterEqual(len(set(answers["good"])), 1)
                self.assertGreaterEqual(len({bad["text"] for bad in answers["bad"]}), 2)
                self.assertEqual(len({bad["why"] for bad in answers["bad"]}), len(answers["bad"]))

    def test_good_answers_pass(self) -> None:
        for _, question, answers in every_question():
            for text in answers["good"]:
                with self.subTest(question["id"]):
                    self.assertEqual(failed_checks(question, text), [])

    def test_bad_answers_fail_the_listed_checks(self) -> None:
        for _, question, answers in every_question():
            for bad in answers["bad"]:
                with self.subTest(question["id"], why=bad["why"]):
                    self.assertEqual(list(bad), ["why", "fails", "text"])
                    self.assertNotEqual(bad["fails"], [])
                    self.assertEqual(failed_checks(question, bad["text"]), bad["fails"])

    def test_every_check_is_failed_by_a_bad_answer(self) -> None:
        for _, question, answers in every_question():
            checks = {*question.get("required_markers", ()),
                      *(["format_rule"] if "format_rule" in question else [])}
            missed = {check for bad in answers["bad"] for check in bad["fails"]}
            with self.subTest(question["id"]):
                self.assertEqual(checks - missed, set())

    def test_repeating_the_question_fails(self) -> None:
        for _, question, _ in every_question():
            with self.subTest(question["id"]):
                self.assertNotEqual(failed_checks(question, question["prompt"]), [])

    def test_returning_the_questions_code_fails(self) -> None:
        handed_back = 0
        for _, question, _ in every_question():
            for code in code_in(question["prompt"]):
                handed_back += 1
                with self.subTest(question["id"]):
                    self.assertNotEqual(failed_checks(question, code), [])
        self.assertGreater(handed_back, 20)

    def test_empty_and_polite_answers_fail(self) -> None:
        for _, question, _ in every_question():
            for text in ("", "I'm sorry, but I can't help with that.", "```\n```",
                         "Sure! Here is what you asked for:\n\n1. \n2. \n", "<think>" * 3):
                with self.subTest(question["id"], text=text):
                    self.assertNotEqual(failed_checks(question, text), [])

    def test_prompts_and_answers_have_no_privacy_hits(self) -> None:
        texts = dict(prompts.PROMPTS)
        for _, question, answers in every_question():
            bad = [answer["text"] for answer in answers["bad"]]
            texts[question["id"]] = "\n".join([question["prompt"], *answers["good"], *bad])
        self.assertEqual({name: privacy.scan(text) for name, text in texts.items()},
                         {name: [] for name in texts})

    def test_answers_of_the_edge_phases_fit_their_limit(self) -> None:
        for phase, question, answers in every_question():
            for text in answers["good"] if phase.max_tokens else ():
                with self.subTest(question["id"]):
                    self.assertLess(len(text), EDGE_ANSWER_CHARS)


class EdgeAppend(unittest.TestCase):
    """Later questions can only be answered from earlier turns."""

    QUESTIONS = read_json(SUITES, "python_context_edge_append_questions.json")["questions"]

    def test_markers_are_in_earlier_prompts_only(self) -> None:
        for index, question in enumerate(self.QUESTIONS[1:], 1):
            earlier = "\n".join(q["prompt"] for q in self.QUESTIONS[:index]).lower()
            own = question["prompt"].lower()
            with self.subTest(question["id"]):
                self.assertGreaterEqual(len(question["required_markers"]), 2)
                self.assertEqual([m for m in question["required_markers"] if m in own], [])
                self.assertEqual([m for m in question["required_markers"] if m not in earlier], [])

    def test_every_question_needs_the_first_turn(self) -> None:
        first = self.QUESTIONS[0]["prompt"].lower()
        self.assertEqual([q["id"] for q in self.QUESTIONS[1:]
                          if not any(m in first for m in q["required_markers"])], [])

    def test_conversation_fits_4096_tokens_and_not_1024(self) -> None:
        # English and code have 3.3 to 4.6 characters per token in the tokenizers of today's models.
        good = read_json(ANSWERS, "python_context_edge_append_questions.json")
        turns = [len(q["prompt"]) + len(good[q["id"]]["good"][0]) for q in self.QUESTIONS]
        self.assertGreater(sum(turns[:4]) / 4.6, 1024 * 0.9)    # met in the fourth turn or before
        self.assertLess(sum(turns) / 3.3, 4096)                 # short answers reach the end
        longest = sum(len(q["prompt"]) for q in self.QUESTIONS) / 4.6 + 512 * len(self.QUESTIONS)
        self.assertGreater(longest, 4096)                       # long ones meet the edge
        before = sum(len(q["prompt"]) for q in self.QUESTIONS[:6]) / 3.3 + 512 * 5
        self.assertLess(before, 4096)                           # in the seventh turn or after it


class EdgeSuite(unittest.TestCase):
    """Every question needs facts from the head, the middle and the tail of its context."""

    FILE = "python_context_edge_suite_only.json"

    def setUp(self) -> None:
        self.questions = load_suites()["edge_suite"]

    def content(self, question: Any) -> str:
        messages = messages_of("edge_suite", question, self.questions)
        self.assertEqual(len(messages), 1)
        return messages[0]["content"].lower()

    def test_each_question_needs_facts_from_every_third(self) -> None:
        for question in self.questions:
            content, thirds = self.content(question), set()
            for marker in question.required_markers:
                places = [m.start() for m in re.finditer(re.escape(marker), content)]
                at = {3 * place // len(content) for place in places}
                thirds |= at if len(at) == 1 else set()
            with self.subTest(question.id):
                self.assertEqual(thirds, {0, 1, 2})

    def test_outermost_markers_are_close_to_the_ends(self) -> None:
        content = self.content(self.questions[0])
        places = sorted(content.find(m) / len(content)
                        for q in self.questions for m in q.required_markers)
        self.assertLess(places[0], 0.05)
        self.assertGreater(places[-1], 0.95)

    def test_each_question_needs_at_least_two_other_texts(self) -> None:
        for question in self.questions:
            homes = {other.id for other in self.questions for marker in question.required_markers
                     if marker in other.prompt.lower() and marker not in question.prompt.lower()}
            with self.subTest(question.id):
                self.assertGreaterEqual(len(homes), 2)

    def test_each_marker_is_in_one_text(self) -> None:
        markers = {m for q in self.questions for m in q.required_markers}
        homes = {m: sum(m in q.prompt.lower() for q in self.questions) for m in markers}
        self.assertEqual(homes, dict.fromkeys(markers, 1))

    def test_truncation_anywhere_hides_a_marker_of_every_question(self) -> None:
        for question in self.questions:
            content = self.content(question)
            length = len(content)
            cuts = {"front": content[length // 2:], "tail": content[:length // 2],
                    "middle": content[:length // 4] + content[-length // 4:]}
            with self.subTest(question.id):
                self.assertEqual([name for name, left in cuts.items()
                                  if all(m in left for m in question.required_markers)], [])

    def test_size_by_characters_is_between_60_and_85_percent_of_4096_tokens(self) -> None:
        # Measured on this very text: 3.92 (SmolLM2), 4.03 (Gemma 3), 4.18 (Qwen2.5) and 4.28
        # (Llama 3) characters per token. harness/tests/outside/edge_suite_tokens.py counts.
        for question in self.questions:
            for chars_per_token in (3.92, 4.28):
                with self.subTest(question.id, chars_per_token=chars_per_token):
                    share = len(self.content(question)) / chars_per_token / 4096
                    self.assertTrue(0.60 < share < 0.85, share)


class Truncation(unittest.TestCase):
    def test_verdict_of_each_kind(self) -> None:
        told = [("frozen", 4000, 1000), ("20q", 2000, 500)]
        turns = [*told, ("edge_append", 8000, 2000)]
        for name, phase, tokens, chars, earlier, context, more, verdict in (
                ("not truncated", "20q", 1000, 4000, told, 4096, {}, "no"),
                ("half is missing", "20q", 1000, 8000, told, 2048, {}, "yes"),
                ("a third is missing, and it may not have fitted", "20q", 1400, 8000, told, None,
                 {}, "unknown"),
                ("a third is missing, but it fits", "20q", 1400, 8000, told, 4096, {}, "no"),
                ("a third is missing of what does not fit", "20q", 1400, 8000, told, 1500, {},
                 "yes"),
                ("a quarter is missing of what may fit", "20q", 1480, 8000, told, 1700, {},
                 "unknown"),
                ("fills the context, no room to answer", "20q", 4090, 17000, told, 4096,
                 {"room_tokens": 3}, "yes"),
                ("fills the context, more was sent", "20q", 4095, 19000, told, 4096, {}, "yes"),
                ("fills the context", "20q", 4095, 16400, told, 4096, {}, "unknown"),
                ("ended at a limit elsewhere", "20q", 1000, 4000, told, 4096, {"room_tokens": 3},
                 "no"),
                ("the conversation shrank", "edge_append", 1900, 9000, turns, 4096, {}, "yes"),
                ("it hardly grew", "edge_append", 2050, 11000, turns, 4096, {}, "yes"),
                ("it grew", "edge_append", 2700, 11000, turns, 4096, {}, "no"),
                ("the first prompt, of which a part is left", "edge_suite", 514, 11507, [], 1024,
                 {}, "yes"),
                ("the first prompt fits", "edge_suite", 2870, 11507, [], 4096, {}, "unknown"),
                ("a wrong count of what fits", "edge_suite", 10, 11507, [], 4096, {}, "unknown"),
                ("the first prompt may fit", "edge_suite", 2000, 11507, [], 2048, {}, "unknown"),
                # Ollama 0.30 counts the new tokens only; the whole of it fits the context.
                ("it counts the new turn", "edge_append", 250, 9000, turns, 4096, {}, "unknown"),
                ("it counts the new turn, which may not fit", "edge_append", 250, 9000, turns,
                 2400, {}, "yes"),
                ("no room for the answer", "edge_append", 250, 9000, turns, 4096,
                 {"max_tokens": 2048}, "yes"),
                ("it always counts the new turn", "edge_append", 600, 15000, turns, 4096,
                 {"only_new": True}, "unknown"),
                ("an earlier turn was truncated", "edge_append", 2700, 11000, turns, 4096,
                 {"was_cut": True}, "yes")):
            with self.subTest(name):
                self.assertEqual(plan.truncation(phase, tokens, chars, earlier, context, None,
                                                 **more)[0], verdict)


if __name__ == "__main__":
    unittest.main()
