"""The phases of a run, and the suites with their questions."""
from __future__ import annotations

import json
import os
from typing import NamedTuple, Optional

import prompts
from core.errors import HarnessError

SUITES_FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "suites")
HELLO_MAX_TOKENS = 32         # a hello is short: it measures the model's load, not its speed
EDGE_MAX_TOKENS = 512         # with 2,048, the edge phases would not fit a context of 4,096
CHALLENGE_MAX_TOKENS = 256
RAMP_MAX_TOKENS, DEPTH_MAX_TOKENS = 256, 128
CURVES = ("ramp", "depth")    # kinds of phases that run level by level, and only if named
ADDED = (*CURVES, "challenge")          # kinds of phases that can be added to a run


class Phase(NamedTuple):
    """How a phase runs. kind: single, same (lanes), mixed (lanes), append, suite_context, ramp
    (levels of lanes), depth (levels of context), challenge (single, other prompts in each run)."""

    name: str
    suite_file: Optional[str]
    kind: str
    max_tokens: Optional[int]         # None: num_predict
    text: str


PHASES = {p.name: p for p in (
    Phase("hello", None, "single", HELLO_MAX_TOKENS,
          "one short call, which may include the model's load"),
    Phase("frozen", None, "single", None, "P-EASY, P-MEDIUM, P-HARD, one lane"),
    Phase("5q", "small_model_eval_questions.json", "single", None,
          "5 short, format-checked tasks, one lane"),
    Phase("20q", "python_task_suite_questions.json", "single", None,
          "20 everyday Python tasks, one lane"),
    Phase("parallel_same", "parallel_qwen_same_model_20q_suite.json", "same", None,
          "20 questions on parallel lanes, one model"),
    Phase("parallel_mixed", "parallel_qwen_mixed_model_20q_suite.json", "mixed", None,
          "20 questions on parallel lanes that alternate between the models"),
    Phase("edge_append", "python_context_edge_append_questions.json", "append", EDGE_MAX_TOKENS,
          "one growing conversation, until it ends or the context is full"),
    Phase("edge_suite", "python_context_edge_suite_only.json", "suite_context", EDGE_MAX_TOKENS,
          "each question with the whole suite as its context"),
    Phase("ramp", "parallel_qwen_same_model_20q_suite.json", "ramp", RAMP_MAX_TOKENS,
          "1, 2, 4, 8, 16 lanes, 3 answers per lane, until throughput is flat; only if named"),
    Phase("depth", None, "depth", DEPTH_MAX_TOKENS,
          "prompts of 1 k to 32 k tokens, while they fit the context; only if named"),
    Phase("challenge", None, "challenge", CHALLENGE_MAX_TOKENS,
          "3 questions made from the text of `--challenge`; only with this option"),
)}
ALL_PHASES = tuple(name for name, phase in PHASES.items() if phase.kind not in ADDED)
CURVES_RELEASE = "public-1.1"         # of ramp and depth; the suites and other phases: public-1
# Defaults of a run, which commands that are printed leave out.
DEFAULT_PHASES = ("hello", "5q", "20q")
DEFAULT_LANES, DEFAULT_REPEATS, DEFAULT_TIMEOUT_S = 4, 1, 360.0


class Question(NamedTuple):
    """One question; markers are lower-case substrings that an answer must contain."""

    id: str
    prompt: str
    required_markers: tuple[str, ...] = ()
    format_rule: Optional[str] = None


# The two calls of a level of depth. Their markers depend on the level: see depth_prompts.canaries.
DEPTH_QUESTIONS = (
    Question("cold", "The notes above contain three reference codes: one at the beginning, one in "
             "the middle and one at the end. Write the three codes, one per line. Then explain in "
             "at least ten sentences what the first notes are about."),
    Question("continued", "Write the three reference codes again, one per line. Then explain in at "
             "least ten sentences what the last notes are about."))


# Templates of core/challenge.
CHALLENGE_QUESTIONS = (
    Question("function", "Write a Python function named {code} that {task}. Show an example call, "
             "and explain each line in a sentence."),
    Question("difference", "Begin your answer with the code {code}. Then describe in at least ten "
             "sentences how {one} and {other} differ."),
    Question("story", "Write a story of at least ten sentences that happens in {one} and in "
             "{other}. The code {code} has to appear in it."))


def load_suites() -> dict[str, tuple[Question, ...]]:
    """The questions of every phase; raises HarnessError. Tests check the fields of the files."""
    suites = {"hello": (Question("hello", prompts.HELLO_PROMPT),),
              "frozen": tuple(Question(name, text) for name, text in prompts.PROMPTS.items()),
              "depth": DEPTH_QUESTIONS, "challenge": CHALLENGE_QUESTIONS}
    for phase in PHASES.values():
        if phase.suite_file:
            try:
                with open(os.path.join(SUITES_FOLDER, phase.suite_file), encoding="utf-8") as file:
                    suites[phase.name] = tuple(
                        Question(one["id"], one["prompt"], tuple(one.get("required_markers", ())),
                                 one.get("format_rule")) for one in json.load(file)["questions"])
            except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
                raise HarnessError(
                    f"suite {phase.suite_file} cannot be read ({type(error).__name__}: "
                    f"{getattr(error, 'strerror', error)}); restore it from the "
                    "repository") from None
    return suites
