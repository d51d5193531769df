"""Questions that follow from a text, and runs that answer them."""
from __future__ import annotations

import random
import unittest

from check import challenge as checking
from check import copies, findings
from core import challenge
from core.suites import CHALLENGE_QUESTIONS
from run import cli
from tests import valid_run
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

    def test_answers_from_before_the_commit_of_the_text_are_found(self):
        made = make(ANSWERED)
        asked_s = valid_run.BASE.timestamp()
        for made_s, expected in ((asked_s - 60, []), (asked_s + 7200, ["challenge-unanswered"]),
                                 (None, [])):
            found = [code for code, _ in checking.problems(
                made.manifest, made.events, TEXT, {"0a1b2c3": made_s}.get)]
            self.assertEqual(found, [*expected, "challenge-answered"])

    def test_answers_of_another_run_are_found_with_noise_and_without(self):
        """Among many other calls, of which a sketch keeps only some."""
        long = Spec(phases="frozen,5q,20q", tokens=90, more=("--challenge", TEXT))
        source, made = make(long), make(long._replace(handle="grace", seed=2))
        self.assertEqual(self.copied(source, made), set())
        own, others = ([event for event in one.events if event.get("phase") == "challenge"
                        and event["event"] == "call_finished"] for one in (made, source))
        rng = random.Random(1)
        for call in others:
            call["timing"]["chunk_us"] = [rng.randrange(9000, 9900) + 9000 * (rng.random() < 0.05)
                                          for _ in call["timing"]["chunk_us"]]
        for noise, codes_of_copy in ((0, {"run-copied", "answers-copied"}),
                                     (9, {"answers-copied"})):
            for call, other in zip(own, others):
                call["timing"]["chunk_us"] = [us + noise * (at % 3) for at, us in enumerate(
                    other["timing"]["chunk_us"])]
            self.assertEqual(self.copied(source, made), codes_of_copy)

    def copied(self, *runs):
        """Codes of the last run, with those before it in the index."""
        index, report = copies.Index(), findings.Report()
        *known, last = (copies.sketch(f"run-{one.manifest['run_id']}",
                                      one.ledger_bytes().split(b"\n")) for one in runs)
        for one in known:
            index.add(one)
        index.check(last, False, findings.Notes(report, "x"))
        return set(codes(report))

    def test_prompts_of_another_text_are_found(self):
        made = make(ANSWERED)
        made.manifest["plan"]["phases"][-1]["challenge"] = "PR 99 fffffff"
        self.assertIn("ledger-altered", codes(check(made.sealed())))
