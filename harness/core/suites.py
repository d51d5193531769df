"""The phases of a run, and the suites with their questions."""
from __future__ import annotations

import json
import os
from collections.abc import Iterable
from typing import Any, NamedTuple, Optional

import prompts
from core.errors import HarnessError

HELLO_MAX_TOKENS = 32         # a hello is short: it measures the model's load, not its speed
EDGE_MAX_TOKENS = 512         # with 2,048, the edge phases would not fit a context of 4,096
CHALLENGE_MAX_TOKENS = 256
RAMP_MAX_TOKENS, DEPTH_MAX_TOKENS = 256, 128
CURVES = ("ramp", "depth")    # kinds of phases that run level by level, and only if named
ADDED = (*CURVES, "challenge")          # kinds of phases that can be added to a run


class SuiteError(HarnessError):
    """A suite file that cannot be used."""


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


def load_suites(folder: str, format_rules: Iterable[str]) -> dict[str, tuple[Question, ...]]:
    """The questions of every phase, from the suite files in `folder`; raises SuiteError."""
    rules = frozenset(format_rules)
    suites = {"hello": (Question("hello", prompts.HELLO_PROMPT),),
              "frozen": tuple(Question(name, text) for name, text in prompts.PROMPTS.items()),
              "depth": DEPTH_QUESTIONS, "challenge": CHALLENGE_QUESTIONS}
    for phase in PHASES.values():
        if phase.suite_file:
            suites[phase.name] = _read_suite(os.path.join(folder, phase.suite_file), rules)
    return suites


def _read_suite(path: str, rules: frozenset[str]) -> tuple[Question, ...]:
    name = os.path.basename(path)
    try:
        with open(path, encoding="utf-8") as file:
            questions = json.load(file)["questions"]
    except OSError as error:
        raise SuiteError(f"suite {name}: {error.strerror}; restore it from the "
                         "repository") from None
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise SuiteError(f"suite {name} cannot be read ({type(error).__name__}: {error}); "
                         "restore it from the repository") from None
    if not isinstance(questions, list) or not questions:
        raise SuiteError(f"suite {name}: questions[] is empty")
    made = tuple(_question(f"suite {name}, question {i}", raw, rules)
                 for i, raw in enumerate(questions))
    if len({question.id for question in made}) < len(made):
        raise SuiteError(f"suite {name}: two questions have the same id")
    return made


def _question(place: str, raw: Any, rules: frozenset[str]) -> Question:
    if not isinstance(raw, dict) or not {"id", "prompt"} <= set(raw):
        raise SuiteError(f"{place}: it needs an id and a prompt")
    markers, rule = raw.get("required_markers", []), raw.get("format_rule")
    if not all(isinstance(raw[key], str) and raw[key] for key in ("id", "prompt")):
        raise SuiteError(f"{place}: id and prompt are texts")
    if not isinstance(markers, list) or not all(isinstance(m, str) and m for m in markers):
        raise SuiteError(f"{place}: required_markers is a list of texts")
    if rule is not None and rule not in rules:
        raise SuiteError(f"{place}: format_rule {rule!r} is not one of {', '.join(sorted(rules))}")
    return Question(raw["id"], raw["prompt"], tuple(markers), rule)
