"""Tests of core/reasoning_marks.py."""
from __future__ import annotations

import unittest

from core.reasoning_marks import reasoning_characters, strip_reasoning


class Reasoning(unittest.TestCase):
    CASES = {
        "answer": "answer",
        "<think>a</think>answer": "answer",
        "<think>\na\n</think>\n\nanswer\n": "answer",
        "<think></think>answer": "answer",
        "<think>a</think>one <think>b</think>two": "one two",
        "<think>a <think> b</think>answer": "answer",
        "a</think>answer": "answer",
        "a</think>b</think>answer": "answer",
        "<think>never closed, answer": "",
        "one <think>\nnever closed,\nanswer": "one",
        "<think>a</think>answer<think>b": "answer",
        "<think>a</think>": "",
        "": "",
        "if x < think > y: pass": "if x < think > y: pass",
    }

    def test_think_blocks_are_removed(self):
        self.assertEqual({text: strip_reasoning(text) for text in self.CASES}, self.CASES)


class ReasoningMarks(unittest.TestCase):
    def test_reasoning_in_the_marks_of_many_models(self) -> None:
        for opened, closed in (
                ("<think>", "</think>\n\n"), ("<thinking>\n", "\n</thinking>\n"),
                ("<reasoning>", "</reasoning>"), ("<thought>", "</thought>"),
                ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"),
                ("\u25c1think\u25b7", "\u25c1/think\u25b7"),
                ("<|START_THINKING|>", "<|END_THINKING|><|START_RESPONSE|>"),
                ("<|channel>thought\n", "<channel|>"), ("<unused94>thought\n", "<unused95>"),
                ("<think>", "</think><answer>"), ("<think>", "</think>\n<response>"),
                ("<|channel|>analysis<|message|>",
                 "<|end|><|start|>assistant<|channel|>final<|message|>"),
                ("<|start|>assistant<|channel|>analysis<|message|>",
                 "<|end|><|start|>assistant<|channel|>final <|constrain|>json<|message|>"),
                ("analysis", "assistantfinal"),
                ("Here is my thought process:\n", "Here is my response:\n"),
                ("Here are my reasoning steps:\n", "[BEGIN FINAL RESPONSE]\n"),
                ("<Thought>", "</Thought>\n<Output>"), ("<longcat_think>", "</longcat_think>"),
                ("", "</think>\n"), ("", "[/THINK]")):
            thought = opened + "We need < to say it." + closed
            with self.subTest(thought):
                self.assertEqual(reasoning_characters(thought + "It."), len(thought))
                self.assertEqual(strip_reasoning(thought + "It."), "It.")

    def test_an_open_block_is_all_reasoning(self) -> None:
        for text in ("<think>so", " <|channel|>analysis<|message|>so", "[THINK]so"):
            self.assertEqual(reasoning_characters(text), len(text))

    def test_answers_about_reasoning_are_answers(self) -> None:
        for text in ("", "Use <think> and </think>.", "analysis of this",
                     "a <thinking>b</thinking>",
                     "Here is my code:", "[1] THINK"):
            self.assertEqual(reasoning_characters(text), 0, text)

    def test_marks_of_the_end_are_removed(self) -> None:
        for text in ("It.<|return|>", "It.</answer>\n", "It. <|im_end|>",
                     "It.\n[END FINAL RESPONSE]"):
            self.assertEqual(strip_reasoning(text), "It.")


if __name__ == "__main__":
    unittest.main()
