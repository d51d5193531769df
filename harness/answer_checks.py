"""Markers and format rules over an answer's text: pure functions that never execute anything.

They flag shape, not truth. A marker is a lower-case substring that a right answer can hardly do
without; a format rule says whether the text is what was asked for (a JSON object, five bullets, code
that parses). An answer can pass all of them and be wrong, so the counts are a guard against broken
set-ups (cut context, wrong template, hopeless quantisation), not a ranking of intelligence.

What a person would accept is accepted: code in a fence with a sentence around it, bold step numbers,
nested bullets. Python is judged by the grammar of 3.9 wherever the checking Python can be told so,
to let a re-score on another Python agree; what newer versions relaxed inside f-strings remains.

Answers come from strangers' servers. Everything here takes linear time, and nothing that is longer
than MAX_PARSED_CHARS reaches a parser, because some parsers go as deep as their input is long.

    >>> check_answer("- one\\n- two", ("two",), "five_bullets")["passed"]
    False
"""
from __future__ import annotations

import ast
import json
import re
import textwrap
import threading
import warnings
from typing import Any, Callable, Iterable, Optional

# An answer of 2,048 tokens has about 8,000 characters. Python before 3.9.10 overflows its own stack
# on code with some ten thousand operators in a chain; twenty thousand characters stay below that.
MAX_PARSED_CHARS = 20_000
PYTHON_GRAMMAR = (3, 9)

PYTHON_TAGS = ("python", "py", "python3")
SHELL_TAGS = ("bash", "sh", "shell", "zsh", "console", "shell-session")
JSON_TAGS = ("json",)

_PARSE_LOCK = threading.Lock()    # catch_warnings changes the whole process, and lanes are threads
_THINK = re.compile(r"<think>.*?(?:</think>|\Z)", re.DOTALL)
_STEP = re.compile(r"([ \t]*)(?:#{1,6} )?(?:\*\*|__)?(?:step )?(\d{1,3})(?:\*\*|__)?[.):]"
                   r"[ \t*_]*[^\s*_]", re.IGNORECASE)
_BULLET = re.compile(r"([ \t]*)[-*+\u2022\u2013][ \t]+\S")
_DIVIDER = re.compile(r"[ \t]*(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,})$")
_COMMAND = re.compile(r"(?:[A-Za-z_]\w*=\S*[ \t]+)*(?:[A-Za-z_]\w*=|"
                      r"[a-z0-9_.~/$\"({\[][\w.~/+$\"(){}\[-]*(?:[ \t;|&<>=]|$))")
_NUMBERED = re.compile(r"\d+[.)][ \t]")
_SENTENCE_START = re.compile(r"[ \t]*[A-Z][a-z]+,? [a-z]")
_SENTENCE_END = re.compile(r"[a-z]{2}[:.!?]$")
_SHELL_TEXT = re.compile(r"\\.|'[^']*'|\"(?:\\.|[^\"\\])*\"|(?<!\S)#[^\n]*", re.DOTALL)
_HEREDOC = re.compile(r"(?<!<)<<-?[ \t]*[\"'\\]?([A-Za-z_]\w*)")
_NOT_SHELL = re.compile(r"def \w+\(|class \w+.*:$|from [\w.]+ import |import \w+$|print\(")
_SHELL_PAIRS = (("if", "fi"), ("do", "done"), ("case", "esac"))


def strip_reasoning(text: str) -> str:
    """The answer without its `<think>` parts; one that is never closed swallows the rest.

    Some chat templates open the block themselves, so that only its end is in the answer: then
    everything up to the last end is reasoning.
    """
    return _THINK.sub("", text).rpartition("</think>")[2].strip()


def check_answer(text: str, required_markers: Iterable[str],
                 format_rule: Optional[str]) -> dict[str, Any]:
    """Look for the markers and apply the rule to an answer, reasoning taken off first.

    Returns {"markers": [{"marker", "found"}], "format_rule", "format_ok", "passed"}; format_ok is
    None without a rule, passed is None where there is nothing to check. Raises KeyError for a rule
    that is not in FORMAT_RULES.
    """
    answer = strip_reasoning(text)
    lowered = answer.lower()
    markers = [{"marker": m, "found": m in lowered} for m in required_markers]
    format_ok = FORMAT_RULES[format_rule](answer) if format_rule else None
    results = [bool(m["found"]) for m in markers] + ([] if format_ok is None else [format_ok])
    return {"markers": markers, "format_rule": format_rule, "format_ok": format_ok,
            "passed": all(results) if results else None}


def is_python_code(text: str) -> bool:
    """The longest Python block (or the whole text, unfenced) parses and does something."""
    return any(_does_something(node) for node in _python_statements(text))


def is_pytest_code(text: str) -> bool:
    """Python code with a `test_` function, plain or in a `Test` class, that asserts or expects."""
    nodes = _python_statements(text)
    for node in list(nodes):
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            nodes += node.body
    return any(isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
               and node.name.startswith("test_")
               and any(_is_expectation(part) for part in ast.walk(node)) for node in nodes)


def is_bash_code(text: str) -> bool:
    """A shell block, or an unfenced script with its `#!` line, whose quotes and blocks close."""
    code, fenced = _code(text, SHELL_TAGS)
    if len(code) > MAX_PARSED_CHARS or not (fenced or code.startswith("#!")):
        return False
    lines = _without_heredocs(code)
    bare = _SHELL_TEXT.sub(_stand_in, "\n".join(lines))
    words = [word for word in re.split(r"[\s;|&()<>]+", bare) if word]
    return (bool(words) and "'" not in bare and '"' not in bare
            and not any(_NOT_SHELL.match(line) for line in lines)
            and not any(_SENTENCE_START.match(line) for line in bare.split("\n"))
            and all(words.count(start) == words.count(end) for start, end in _SHELL_PAIRS))


def is_shell_lines(text: str) -> bool:
    """Commands, one a line; comments, blank lines and a `$` prompt are let through, prose is not."""
    code, fenced = _code(text, SHELL_TAGS)
    lines = [line.strip() for line in code.replace("\\\n", " ").split("\n")]
    commands = [line[2:] if line.startswith("$ ") else line
                for line in lines if line and not line.startswith("#")]
    return fenced < 2 and bool(commands) and all(map(_is_command, commands))


def is_four_numbered_steps(text: str) -> bool:
    """Exactly the steps 1, 2, 3, 4 at the outer level, each with text on its line."""
    return [step[2] for step in _outer_items(text, _STEP)] == ["1", "2", "3", "4"]


def is_five_bullets(text: str) -> bool:
    """Exactly five bullets at the outer level; deeper ones belong to theirs."""
    return len(_outer_items(text, _BULLET)) == 5


def is_json_dict(text: str) -> bool:
    """One JSON object that is not empty, as the whole text or in a fence; NaN is not JSON."""
    code, _ = _code(text, JSON_TAGS)
    if len(code) > MAX_PARSED_CHARS:
        return False
    try:
        value = json.loads(code, parse_constant=_refuse_constant)
    except (ValueError, RecursionError, MemoryError):
        return False
    return isinstance(value, dict) and bool(value)


FORMAT_RULES: dict[str, Callable[[str], bool]] = {
    "bash_code": is_bash_code,
    "python_code": is_python_code,
    "shell_lines": is_shell_lines,
    "four_numbered_steps": is_four_numbered_steps,
    "five_bullets": is_five_bullets,
    "json_dict": is_json_dict,
    "pytest_code": is_pytest_code,
}


def _split_fences(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Lines outside of any fence, and (tag, content) of every fence; an open one runs to the end."""
    prose: list[str] = []
    fences: list[tuple[str, list[str]]] = []
    mark = ""
    for line in text.replace("\r\n", "\n").split("\n"):
        bare = line.strip(" \t")
        if mark and bare.startswith(mark) and not bare.strip(mark[0]):
            mark = ""
        elif mark:
            fences[-1][1].append(line)
        elif bare.startswith(("```", "~~~")) and "`" not in bare.lstrip("`"):
            info = bare.lstrip(bare[0])
            mark = bare[:len(bare) - len(info)]
            fences.append(((info.split() or [""])[0].lower(), []))
        else:
            prose.append(line)
    return prose, [(tag, "\n".join(lines)) for tag, lines in fences]


def _code(text: str, tags: tuple[str, ...]) -> tuple[str, int]:
    """The longest fence with one of these tags, else with none, and how many fences fit.

    Without any fence in the text it is the whole text, and 0.
    """
    _, fences = _split_fences(text)
    if not fences:
        return text.strip(), 0
    fitting = [c for t, c in fences if t in tags] or [c for t, c in fences if not t]
    return textwrap.dedent(max(fitting, key=len, default="")).strip(), len(fitting)


def _outer_items(text: str, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    """The matches no further right than the first one; what stands in a fence is no item."""
    found = [match for match in map(pattern.match, _split_fences(text)[0])
             if match and not _DIVIDER.match(match.string)]
    return [match for match in found if len(match[1]) <= len(found[0][1])]


def _python_statements(text: str) -> list[ast.stmt]:
    """Top-level statements of the code in a text; empty where it is too long or does not parse."""
    code, _ = _code(text, PYTHON_TAGS)
    if len(code) > MAX_PARSED_CHARS:
        return []
    try:
        with _PARSE_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(code, feature_version=PYTHON_GRAMMAR).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _does_something(node: ast.stmt) -> bool:
    """A lone word or number parses as Python, too; a call or any real statement is code."""
    return not isinstance(node, ast.Expr) or isinstance(node.value, (ast.Call, ast.Await))


def _is_expectation(node: ast.AST) -> bool:
    name = getattr(node, "attr", getattr(node, "id", None))
    return isinstance(node, ast.Assert) or name in ("raises", "warns")


def _without_heredocs(code: str) -> list[str]:
    """Lines of a script without the texts of its here-documents, where any quote may stand."""
    lines: list[str] = []
    end = ""
    for line in code.split("\n"):
        if end:
            end = "" if line.strip() == end else end
            continue
        lines.append(line)
        start = _HEREDOC.search(line)
        end = start[1] if start else ""
    return lines


def _stand_in(match: re.Match[str]) -> str:
    """What a quoted text, an escape or a comment leaves: a word's place, but no word of its own."""
    return "" if match[0].startswith("#") else " " if match[0] == "\\\n" else "_"


def _is_command(line: str) -> bool:
    """A command's name or an assignment comes first; it is neither numbered nor a sentence."""
    is_sentence = _SENTENCE_END.search(line) and line.count(" ") > 3
    return bool(_COMMAND.match(line)) and not _NUMBERED.match(line) and not is_sentence


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
