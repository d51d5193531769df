"""Check an answer's text for markers and format, without executing anything.

The checks are about form, not truth. A marker is a lower-case substring that a correct answer
almost always contains. A format rule checks whether the text has the requested form (a JSON object,
five bullets, code that parses). An answer can pass and still be wrong, so the counts detect broken
setups (truncated context, wrong template, damaged quantization) and do not rank models.

The rules accept what a person would accept: code in a fence with a sentence around it, bold step
numbers, nested bullets. Every Python version judges Python code by the grammar of 3.9, so that the
check of a submission gets the runner's result again: syntax that a newer parser accepts anyway is
rejected here. (Not detected, and never seen in an answer: a space after `!r`, and a format in the
format of a format, inside an f-string.)

Answers come from untrusted servers. Everything here takes linear time. Texts longer than
MAX_PARSED_CHARS reach no parser, because some parsers recurse as deep as their input is long. Code
nested deeper than MAX_DEPTH is rejected, because each Python version has another parser depth.

    >>> check_answer("- one\\n- two", ("two",), "five_bullets")["passed"]
    False
"""
from __future__ import annotations

import ast
import io
import json
import re
import textwrap
import threading
import tokenize
import warnings
from collections.abc import Iterable
from typing import Any, Callable, Optional

from core import schema
from core.reasoning_marks import strip_reasoning
from core.records import Checks, Marker

# An answer of 2,048 tokens has about 8,000 characters. Python before 3.9.10 overflows its own stack
# on code with about ten thousand operators in a chain, which needs more characters than this.
MAX_PARSED_CHARS = 20_000
MAX_DEPTH = 200               # every Python from 3.9 to 3.13 can parse this; no answer needs it
PYTHON_GRAMMAR = (3, 9)

PYTHON_TAGS = ("python", "py", "python3")
SHELL_TAGS = ("bash", "sh", "shell", "zsh", "console", "shell-session")
JSON_TAGS = ("json",)
TEXT_TAGS = ("", "markdown", "md", "text", "txt", "plaintext")

_PARSE_LOCK = threading.Lock()    # catch_warnings changes the whole process, and lanes are threads
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

_STEP = re.compile(r"([ \t]*)(?:#{1,6} )?(?:\*\*|__)?(?:step )?(\d{1,3})(?:\*\*|__)?[.):](?!\d)"
                   r"[ \t*_]*[^\s*_]", re.IGNORECASE)
_BULLET = re.compile(r"([ \t]*)[-*+\u2022\u2013\u25cf][ \t]+\S")
_DIVIDER = re.compile(r"[ \t]*(?:(?:-[ \t]*){3,}|(?:\*[ \t]*){3,})$")
_COMMAND = re.compile(r"(?:[A-Za-z_]\w*=\S*[ \t]+)*(?:[A-Za-z_]\w*=|"
                      r"[a-z0-9_.~/$\"({\[][\w.~/+$\"(){}\[-]*(?:[ \t;|&<>=]|$))")
_CODE_SPAN = re.compile(r"^`([^`]+)`$")
_NUMBERED = re.compile(r"\d+[.)][ \t]")
_SENTENCE_START = re.compile(r"[ \t]*[A-Z][a-z]+,? [a-z]")
_SENTENCE_END = re.compile(r"[a-z]{2}[:.!?]$")
_SHELL_TEXT = re.compile(r"\\.|'[^']*'|\"(?:\\.|[^\"\\])*\"|(?<!\S)#[^\n]*", re.DOTALL)
_HEREDOC = re.compile(r"(?<!<)<<-?[ \t]*[\"'\\]?([A-Za-z_]\w*)")
_NOT_SHELL = re.compile(r"def \w+\(|class \w+.*:$|from [\w.]+ import |import \w+$|print\(")
_SHELL_PAIRS = (("if", "fi"), ("do", "done"), ("case", "esac"))
_TAG_END = re.compile(r"[^\w+-]")
_FSTRING_START, _FSTRING_MIDDLE, _FSTRING_END = (
    getattr(tokenize, f"FSTRING_{part}", None) for part in ("START", "MIDDLE", "END"))


def check_answer(text: str, required_markers: Iterable[str],
                 format_rule: Optional[str]) -> Checks:
    """Find the markers and apply the rule in an answer without its reasoning.

    format_ok is None without a rule, passed is None without anything to check. Raises KeyError for
    a rule that is not in FORMAT_RULES.
    """
    answer = strip_reasoning(text)
    lowered = answer.lower()
    markers: list[Marker] = [{"marker": m, "found": m in lowered} for m in required_markers]
    format_ok = FORMAT_RULES[format_rule](answer) if format_rule else None
    results = [m["found"] for m in markers] + ([] if format_ok is None else [format_ok])
    return {"markers": markers, "format_rule": format_rule, "format_ok": format_ok,
            "passed": all(results) if results else None}


def is_python_code(text: str) -> bool:
    """The longest Python block (or the whole text, unfenced) parses and does something."""
    # A statement or a call: single words and numbers parse as Python, too.
    return any(not isinstance(node, ast.Expr) or any(
        isinstance(part, (ast.Call, ast.comprehension)) for part in ast.walk(node))
        for node in _python_statements(text))


def is_pytest_code(text: str) -> bool:
    """Python code with a `test_` function, plain or in a `Test` class, with an assertion or an
    expected exception.

    An assertion in a function of the same block that the test calls also counts.
    """
    nodes = _python_statements(text)
    for node in list(nodes):
        if isinstance(node, ast.ClassDef) and node.name.startswith("Test"):
            nodes += node.body
    checking = {f.name for f in nodes if isinstance(f, _FUNCTIONS)
                and any(_is_expectation(part) for part in ast.walk(f))}
    return any(isinstance(f, _FUNCTIONS) and f.name.startswith("test_")
               and (f.name in checking or any(_name_of(part) in checking for part in ast.walk(f)))
               for f in nodes)


def is_bash_code(text: str) -> bool:
    """A shell block, or an unfenced script with its `#!` line, with closed quotes and blocks."""
    code, fenced = _code(text, SHELL_TAGS)
    if len(code) > MAX_PARSED_CHARS or not (fenced or code.startswith("#!")):
        return False
    lines = _without_heredocs(code)
    bare = _SHELL_TEXT.sub(_placeholder, "\n".join(lines))
    words = [word for word in re.split(r"[\s;|&()<>]+", bare) if word]
    return (bool(words) and "'" not in bare and '"' not in bare
            and not any(_NOT_SHELL.match(line) or _SENTENCE_START.match(line)
                        for line in bare.split("\n"))
            and all(words.count(start) == words.count(end) for start, end in _SHELL_PAIRS))


def is_shell_lines(text: str) -> bool:
    """One command per line; comments, blank lines and a `$` prompt are accepted, prose is not."""
    code, fenced = _code(text, SHELL_TAGS)
    lines = [_CODE_SPAN.sub(r"\1", line.strip()) for line in code.replace("\\\n", " ").split("\n")]
    commands = [line[2:] if line.startswith("$ ") else line
                for line in lines if line and not line.startswith("#")]
    return fenced < 2 and bool(commands) and all(map(_is_command, commands))


def is_four_numbered_steps(text: str) -> bool:
    """Exactly the steps 1, 2, 3 and 4 at the outer level, each with text on its line."""
    return [step[2] for step in _outer_items(text, _STEP)] == ["1", "2", "3", "4"]


def is_five_bullets(text: str) -> bool:
    """Exactly five bullets at the outer level; nested bullets do not count."""
    return len(_outer_items(text, _BULLET)) == 5


def is_json_dict(text: str) -> bool:
    """One non-empty JSON object, as the whole text or in a fence, without NaN or repeated keys."""
    code, _ = _code(text, JSON_TAGS)
    if len(code) > MAX_PARSED_CHARS:
        return False
    try:
        # Numbers stay text: the longest integer that json accepts depends on the Python version.
        value = json.loads(code, parse_constant=schema.no_constant, parse_int=str,
                           parse_float=str, object_pairs_hook=schema.unique_keys)
    except (ValueError, RecursionError, MemoryError):
        return False
    return isinstance(value, dict) and bool(value) and _nodes(value, _json_children) is not None


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
    """Lines outside of fences, and (tag, content) of each fence; the last may be unclosed."""
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
            # `python`, `{.python}`, `Python3.9`, `python title=x`
            fences.append((_TAG_END.split(info.strip().lstrip("{."), 1)[0].lower(), []))
        else:
            prose.append(line)
    return prose, [(tag, "\n".join(lines)) for tag, lines in fences]


def _code(text: str, tags: tuple[str, ...]) -> tuple[str, int]:
    """The longest fence with one of these tags, else without a tag, and the number of such fences.

    A text without any fence is returned as a whole, with 0.
    """
    _, fences = _split_fences(text)
    if not fences:
        return text.strip(), 0
    fitting = [c for t, c in fences if t in tags] or [c for t, c in fences if not t]
    return textwrap.dedent(max(fitting, key=len, default="")).strip(), len(fitting)


def _outer_items(text: str, pattern: re.Pattern[str]) -> list[re.Match[str]]:
    """The matches outside of fences that are indented no deeper than the first one.

    If the whole text is one fence of plain text, its content is used instead.
    """
    lines, fences = _split_fences(text)
    if len(fences) == 1 and fences[0][0] in TEXT_TAGS and not "".join(lines).strip():
        lines = fences[0][1].split("\n")
    found = [match for match in map(pattern.match, lines)
             if match and not _DIVIDER.match(match.string)]
    return [match for match in found if len(match[1]) <= len(found[0][1])]


def _python_statements(text: str) -> list[ast.stmt]:
    """Top-level statements of the code in a text; empty if it is too long or does not parse."""
    code, _ = _code(text, PYTHON_TAGS)
    if len(code) > MAX_PARSED_CHARS:
        return []
    try:
        with _PARSE_LOCK, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(code, feature_version=PYTHON_GRAMMAR)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    nodes = _nodes(tree, ast.iter_child_nodes)
    newer = nodes is None or any(map(_is_newer_syntax, nodes)) or _has_newer_fstring(code)
    return [] if newer else tree.body


def _nodes(root: Any, children_of: Callable[[Any], Iterable[Any]]) -> Optional[list[Any]]:
    """All nodes of a tree; None if it is too deep."""
    found, level = list[Any](), [root]
    for _ in range(MAX_DEPTH):
        found += level
        level = [child for node in level for child in children_of(node)]
        if not level:
            return found
    return None


def _json_children(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _is_newer_syntax(node: ast.AST) -> bool:
    """Syntax of 3.10 and 3.11 that feature_version does not reject: `x[*a]`, `x[y := 1]`.

    In parentheses, 3.9 accepts these. They have the same syntax tree and are rejected as well.
    """
    if isinstance(node, ast.Subscript):
        parts = getattr(node.slice, "elts", [node.slice])
        return any(isinstance(part, (ast.Starred, ast.NamedExpr)) for part in parts)
    inner = getattr(node, "annotation", None) or getattr(node, "value", None)
    return isinstance(node, (ast.arg, ast.FormattedValue)) and isinstance(inner, ast.Starred)


def _has_newer_fstring(code: str) -> bool:
    """Whether a replacement field has its f-string's quote, `\\` or `#`, which 3.12 allowed first.

    Before 3.12 the parser rejects these itself, and there are no tokens inside f-strings.
    """
    quotes: list[str] = []
    for token in _tokens(code) if _FSTRING_START else ():
        if token.type == _FSTRING_END:
            quotes.pop()
        if quotes and not (token.type == _FSTRING_MIDDLE and len(quotes) == 1):
            banned = ["\\", *quotes] + ["\n"] * (min(map(len, quotes)) == 1)
            if token.type == tokenize.COMMENT or any(mark in token.string for mark in banned):
                return True
        if token.type == _FSTRING_START:
            quotes.append(token.string.lstrip("rRfF"))
    return False


def _tokens(code: str) -> Iterable[tokenize.TokenInfo]:
    try:
        yield from tokenize.generate_tokens(io.StringIO(code).readline)
    except (tokenize.TokenError, SyntaxError):
        return                        # the parser has accepted it; the tokens so far suffice


def _name_of(node: ast.AST) -> Optional[str]:
    return getattr(node, "attr", getattr(node, "id", None))


def _is_expectation(node: ast.AST) -> bool:
    name = _name_of(node) or ""
    return (isinstance(node, ast.Assert) or name in ("raises", "warns", "fail")
            or name.startswith("assert_"))


def _without_heredocs(code: str) -> list[str]:
    """Lines of a script without its here-documents, which may contain any quotes."""
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


def _placeholder(match: re.Match[str]) -> str:
    """Replacement for a quoted text, escape or comment: part of a word, but not a keyword."""
    return "" if match[0].startswith("#") else " " if match[0] == "\\\n" else "_"


def _is_command(line: str) -> bool:
    """Whether it starts with a command's name or an assignment, and is not numbered or prose."""
    is_sentence = _SENTENCE_END.search(line) and line.count(" ") > 3
    return bool(_COMMAND.match(line)) and not _NUMBERED.match(line) and not is_sentence
