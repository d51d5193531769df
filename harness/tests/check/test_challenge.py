"""Questions that follow from a text, and runs that answer them."""
from __future__ import annotations

import unittest

from check import challenge as checking
from core import challenge
from core.suites import CHALLENGE_QUESTIONS
from run import cli
from tests.check.test_check_submission import check, codes
from tests.valid_run import Spec, make

TEXT = "PR 12 0a1b2c3"
ANSWERED = Spec(phases="frozen", more=("--challenge", TEXT))


class Questions(unittest.TestCase):
    def test_questions_follow_from_the_text(self):
        found = {challenge.question(one, text).prompt for one in CHALLENGE_QUESTIONS
                 for text in (TEXT, "PR 12 0a1b2c4", "PR 13 0a1b2c3")}
        self.assertEqual(len(found), 9)
        one = challenge.question(CHALLENGE_QUESTIONS[1], TEXT)
        self.assertEqual(one, challenge.question(CHALLENGE_QUESTIONS[1], TEXT))
        self.assertIn(one.required_markers[0], one.prompt)

    def test_options(self):
        self.assertEqual(make(ANSWERED).manifest["plan"]["phases"][-1]["challenge"], TEXT)
        self.assertIn("--challenge", cli.combination_problem({"phases": "5q,challenge"}) or "")
        for text in ("PR", "PR 12\n", "a'b c", "x" * 101):
            self.assertIsNone(challenge.TEXT.fullmatch(text), text)


class Challenges(unittest.TestCase):
    def problems(self, made, wanted=None):
        return [code for code, _ in checking.problems(made.manifest, made.events, wanted)]

    def test_an_answered_challenge_is_named(self):
        made = make(ANSWERED)
        self.assertEqual(self.problems(made, TEXT), ["challenge-answered"])
        self.assertEqual(self.problems(make(Spec(phases="frozen"))), [])

    def test_a_missing_short_or_faster_answer_is_found(self):
        self.assertEqual(self.problems(make(Spec(phases="frozen")), TEXT), ["challenge-unanswered"])
        self.assertEqual(self.problems(make(ANSWERED), "PR 13"),
                         ["challenge-unanswered", "challenge-answered"])
        made = make(ANSWERED)
        for call in made.events:
            if call.get("phase") == "challenge" and call["event"] == "call_finished":
                call["timing"]["chunk_us"] = call["timing"]["chunk_us"][:1]
        self.assertEqual(self.problems(made, TEXT), ["challenge-unanswered"])
        made = make(ANSWERED)
        for call in made.events:
            if call.get("phase") == "challenge" and call["event"] == "call_finished":
                timing = call["timing"]
                timing["chunk_us"] = [timing["chunk_us"][0],
                                      *(us // 2 for us in timing["chunk_us"][1:])]
                timing["last_token_us"] = sum(timing["chunk_us"])
        self.assertEqual(self.problems(made, TEXT), ["challenge-answered", "server-changed"])

    def test_prompts_of_another_text_are_found(self):
        made = make(ANSWERED)
        made.manifest["plan"]["phases"][-1]["challenge"] = "PR 99 fffffff"
        self.assertIn("ledger-altered", codes(check(made.sealed())))
