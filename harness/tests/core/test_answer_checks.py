"""Test the format rules and markers, on every Python version and with hostile answers."""

from __future__ import annotations

import ast
import builtins
import json
import os
import subprocess
import threading
import time
import unittest
from unittest import mock

from core.answer_checks import FORMAT_RULES, check_answer, is_python_code


def fence(code: str, tag: str = "") -> str:
    return f"```{tag}\n{code}\n```"


FUNCTION = "def double(x):\n    return 2 * x"
TEST = "from m import double\n\n\ndef test_double():\n    assert double(2) == 4"
SCRIPT = """#!/usr/bin/env bash
set -euo pipefail
# don't count this apostrophe
usage() { echo "usage: $0 FOLDER" >&2; exit 2; }
[ $# -eq 1 ] || usage
for file in "$1"/*.txt; do
  if [[ $file =~ ^.*\\.txt$ ]]; then
    case "$(basename "$file")" in
      a*) echo 'it'\\''s a' ;;
      *) cat <<EOF
It's an unbalanced " quote in a here-document, and if there is no end.
EOF
      ;;
    esac
  fi
done < <(true)
awk '
import_me { print $1 }
' "${1//\\"/}" | wc -l"""

# rule -> (named answers that a person would accept, named answers that a person would reject)
GOLDEN = {
    "python_code": ({
        "a fence": fence(FUNCTION, "python"),
        "a sentence on either side": f"Here it is:\n\n{fence(FUNCTION, 'py')}\n\nIt doubles x.",
        "no fence, nothing else": FUNCTION,
        "a fence without a language": fence(FUNCTION),
        "a language with a version": fence(FUNCTION, "Python3.9"),
        "a language with attributes": fence(FUNCTION, "python title=double.py linenos"),
        "a language in braces": fence(FUNCTION, "{.python}"),
        "tildes": f"~~~python\n{FUNCTION}\n~~~",
        "four backticks around three": f"````python\nTEXT = '''\n```\n'''\n{FUNCTION}\n````",
        "indented below a list item": "- so:\n\n  ```python\n  x = 1\n  y = 2\n  ```",
        "Windows line ends": f"{fence(FUNCTION, 'py')}\nIt doubles x.".replace("\n", "\r\n"),
        "cut by the limit behind a whole line": f"```python\n{FUNCTION}",
        "the broken code quoted first": f"{fence('def f(:', 'py')}\n{fence(FUNCTION, 'py')}",
        "a shell command beside it": f"{fence('pip install x', 'sh')}\n{fence(FUNCTION, 'py')}",
        "one call": fence("print(sum(range(10)))", "python"),
        "one comprehension": fence("[x * x for x in items]", "python"),
        "as long as what is parsed": "x = 1\n" * 3_333,
        "an f-string with other quotes": fence("""x = f"{d['a']:>{width}} {'#' + b!r}\\n" """),
        "a triple f-string": fence('x = f"""\n{d["a"]}\n{b + \n c}"""'),
        "brackets around two contexts": fence("with (open(a) as b, open(c) as d):\n    pass"),
    }, {
        "nothing": "",
        "prose": "You should return twice the value.",
        "a single word": "None",
        "words that parse": "yes, no, maybe",
        "comments only": fence("# TODO: write the function", "python"),
        "a missing colon": fence("def double(x)\n    return 2 * x", "python"),
        "a missing bracket": fence("print((1 + 2)", "python"),
        "Python 2": fence('print "hello"', "python"),
        "prose inside of the fence": fence("Here is the function:\n" + FUNCTION, "python"),
        "a prompt before every line": fence(">>> double(2)\n4", "python"),
        "another language": fence("function double(x) { return 2 * x; }", "javascript"),
        "another language in braces": fence("x = 1", "{.javascript}"),
        "a shell command": fence("pip install double", "bash"),
        "typographic quotes": fence("x = \u201ca\u201d", "python"),
        "cut in the middle of a line": "```python\ndef double(x):\n    return 2 * (x +",
        "match, new in 3.10": fence("match x:\n    case 1:\n        pass", "python"),
        "except*, new in 3.11": fence("try:\n    f()\nexcept* E:\n    pass", "python"),
        "a type parameter, new in 3.12": fence("def f[T](x: T) -> T:\n    return x", "python"),
        "a star in an index, new in 3.11": fence("x = y[*z]", "python"),
        "a star in an annotation, new in 3.11": fence("def f(*a: *T):\n    pass", "python"),
        "a name bound in an index, new in 3.10": fence("x = y[n := 1]", "python"),
        "an f-string's own quote in it, new in 3.12": fence('x = f"{d["a"]}"', "python"),
        "the same one level down": fence("x = f'{f\"{d['a']}\"}'", "python"),
        "a backslash in an f-string's field": fence("x = f\"{'\\n'.join(y)}\"", "python"),
        "a backslash in a nested f-string": fence("x = f\"{f'{a}\\n'}\"", "python"),
        "a comment in an f-string's field": fence('x = f"""{\na  # the first\n}"""', "python"),
        "a line end in a short f-string's field": fence('x = f"{\na}"', "python"),
        "longer than what is parsed": "x = 1\n" * 3_334,
    }),
    "pytest_code": ({
        "one test": fence(TEST, "python"),
        "a class of tests": fence("class TestX:\n    def test_it(self):\n        assert f()", "py"),
        "an expected exception": fence(
            "import pytest\ndef test_x():\n    with pytest.raises(ValueError):\n        int('x')"),
        "raises by its own name": fence(
            "from pytest import raises\ndef test_x():\n    with raises(ValueError):\n        f()"),
        "an expected warning": fence(
            "def test_x():\n    with pytest.warns(UserWarning):\n        f()"),
        "a failure by hand": fence("def test_x():\n    try:\n        f()\n    except ValueError:\n"
                                   "        return\n    pytest.fail('accepted')"),
        "a mock's own assertion": fence("def test_x():\n    f(m)\n    m.put.assert_called_once()"),
        "an assertion in a helper": fence(
            "def check(x):\n    assert x\n\ndef test_x():\n    check(f())"),
        "a coroutine": fence("async def test_x():\n    assert await f()"),
        "parametrized": fence(
            "@pytest.mark.parametrize('x', [1, 2])\ndef test_x(x):\n    assert f(x) == x"),
    }, {
        "no test at all": fence(FUNCTION, "python"),
        "prints in the place of assertions": fence("def test_x():\n    print(f())"),
        "an assertion outside of every test": fence("assert f()\ndef test_x():\n    f()"),
        "a helper that no test calls": fence(
            "def check(x):\n    assert x\n\ndef test_x():\n    print(f())"),
        "a test that pytest does not find": fence("def check_x():\n    assert f()"),
        "a class that pytest does not find": fence(
            "class Cases:\n    def test_x(self):\n        assert f()"),
        "a unittest class": fence(
            "import unittest\nclass TestX(unittest.TestCase):\n    def test_x(self):\n"
            "        self.assertEqual(f(), 1)"),
        "does not parse": fence("def test_x()\n    assert f()"),
        "a list of cases": "- test an empty list\n- test a long list",
    }),
    "bash_code": ({
        "a whole script in a fence": fence(SCRIPT, "bash"),
        "a whole script without a fence": SCRIPT,
        "a fence named sh": fence("set -e\ntar czf a.tgz b", "sh"),
        "a fence without a language": fence("set -e\ntar czf a.tgz b"),
        "a sentence on either side": f"Use this:\n{fence('ls', 'bash')}\nIt lists files.",
        "$# is no comment": fence("for i in $(seq $#); do\n  echo $i\ndone", "bash"),
        "dd's own if=": fence("dd if=/dev/zero of=x bs=1 count=1", "bash"),
        "Python in quotes": fence("python3 -c '\nimport sys\nprint(sys.argv)\n'", "bash"),
        "Python in a here-document": fence("python3 <<'PY'\nimport os\ndef f():\n  pass\nPY", "sh"),
    }, {
        "nothing": "",
        "prose": "Run tar on the folder.",
        "commands without fence or #!": "set -e\ntar czf a.tgz b",
        "an if that is not closed": fence('if [ -d "$1" ]; then\n  ls', "bash"),
        "a loop that is not closed": fence("for x in *; do\n  echo $x", "bash"),
        "a case that is not closed": fence("case $1 in\n  a) ls ;;", "bash"),
        "a quote that is not closed": fence('echo "hello', "bash"),
        "Python in a shell's fence": fence("import os\n\ndef f(x):\n    print(x)", "bash"),
        "prose in a shell's fence": fence("First you have to create a folder\nmkdir x", "bash"),
        "another language": fence(FUNCTION, "python"),
        "an empty fence": fence("", "bash"),
        "comments only": fence("# your code here", "bash"),
    }),
    "shell_lines": ({
        "bare lines": "git switch -c x\ngit push -u origin x",
        "a fence": fence("git switch -c x\ngit push", "bash"),
        "a sentence before the fence": f"Here you are:\n{fence('git push', 'sh')}",
        "prompts": "$ git switch -c x\n$ git push",
        "comments and blank lines": fence("# new branch\ngit switch -c x\n\n# send it\ngit push"),
        "each line in backticks": "`git switch -c x`\n`git push`",
        "a line that goes on": "du -xh --max-depth=1 /var \\\n  | sort -rh \\\n  | head -n 10",
        "pipes and variables": "LANG=C sudo du -sh /var/*/ 2>/dev/null | sort -rh\n./x \"$A\"\n~/y",
        "an assignment": 'name="$(date +%F)"\ntar czf "$name.tgz" x',
        "a message that ends like a sentence": 'git commit -m "Round prices half up."',
        "a subshell and a test": '(cd x && make)\n[ -d y ] || mkdir y',
    }, {
        "nothing": "",
        "numbered": "1. git switch -c x\n2. git push",
        "numbered with brackets": "1) git switch -c x",
        "bulleted": "- git switch -c x\n- git push",
        "explained": "git switch -c x\nThis makes a new branch.",
        "prose behind prompts": "$ This makes a branch\n$ git switch -c x",
        "explained in lower case": "git push\nthen you should check that it is there.",
        "prose": "First switch to a new branch, then push it.",
        "a fence for each": f"{fence('git switch -c x', 'bash')}\n{fence('git push', 'bash')}",
        "comments only": "# switch the branch\n# push it",
        "a heading": "**Commands**\ngit push",
        "another language": fence("import os", "python"),
    }),
    "four_numbered_steps": ({
        "plain": "1. a\n2. b\n3. c\n4. d",
        "with text around": "Do this:\n\n1. a\n2. b\n3. c\n4. d\n\nThen you are done.",
        "brackets": "1) a\n2) b\n3) c\n4) d",
        "bold numbers": "**1.** a\n**2.** b\n**3.** c\n**4.** d",
        "bold titles": "1. **a**: x\n2. **b**: y\n3. **c**: z\n4. **d**: w",
        "steps as headings": "# Step 1: a\nx\n# Step 2: b\ny\n# Step 3: c\nz\n# Step 4: d\nw",
        "bold steps": "**Step 1:** a\n**Step 2:** b\n**Step 3:** c\n**Step 4:** d",
        "steps below a step": "1. a\n   1. x\n   2. y\n2. b\n   - z\n3. c\n4. d",
        "code below a step": f"1. a\n{fence('1. x')}\n2. b\n3. c\n4. d",
        "blank lines between": "1. a\n\n2. b\n\n3. c\n\n4. d",
        "a version at the start of a line": "1. a needs\n3.9 or newer\n2. b\n3. c\n4. d",
        "all indented": "  1. a\n  2. b\n  3. c\n  4. d",
        "as a whole in a fence": fence("1. a\n2. b\n3. c\n4. d", "markdown"),
    }, {
        "nothing": "",
        "three": "1. a\n2. b\n3. c",
        "five": "1. a\n2. b\n3. c\n4. d\n5. e",
        "bullets": "- a\n- b\n- c\n- d",
        "all ones": "1. a\n1. b\n1. c\n1. d",
        "in a wrong order": "1. a\n3. c\n2. b\n4. d",
        "from nought": "0. a\n1. b\n2. c\n3. d",
        "in words": "First a. Second b. Third c. Fourth d.",
        "in one line": "1. a 2. b 3. c 4. d",
        "numbers without text": "1.\n2.\n3.\n4.",
        "two lists": "1. a\n2. b\n3. c\n4. d\n\n1. e\n2. f\n3. g\n4. h",
        "cut in the middle": "1. a\n2. b\n3. c\n4.",
    }),
    "five_bullets": ({
        "hyphens": "- a\n- b\n- c\n- d\n- e",
        "stars": "* a\n* b\n* c\n* d\n* e",
        "dots": "\u2022 a\n\u2022 b\n\u2022 c\n\u2022 d\n\u2022 e",
        "with text around": "Five points:\n\n- a\n- b\n- c\n- d\n- e\n\nThat is all.",
        "bold titles": "- **a**: x\n- **b**: y\n- **c**: z\n- **d**: v\n- **e**: w",
        "deeper bullets": "- a\n  - x\n  - y\n- b\n- c\n- d\n- e",
        "a line that goes on": "- a is\n  long\n- b\n- c\n- d\n- e",
        "inline code in three backticks": "```x``` is weak:\n- a\n- b\n- c\n- d\n- e",
        "a ruler is no bullet": "- a\n- b\n- c\n- d\n- e\n\n- - -\nEnd.",
        "as a whole in a fence": fence("- a\n- b\n- c\n- d\n- e"),
    }, {
        "nothing": "",
        "four": "- a\n- b\n- c\n- d",
        "six": "- a\n- b\n- c\n- d\n- e\n- f",
        "numbered": "1. a\n2. b\n3. c\n4. d\n5. e",
        "paragraphs": "a\n\nb\n\nc\n\nd\n\ne",
        "in one line": "- a - b - c - d - e",
        "no blank behind the hyphen": "-a\n-b\n-c\n-d\n-e",
        "a closing remark as a bullet": "- a\n- b\n- c\n- d\n- e\n\n- Note: that is all.",
        "four and one of them deeper": "- a\n- b\n  - c\n- d\n- e",
        "empty bullets": "- \n- \n- \n- \n- ",
    }),
    "json_dict": ({
        "bare": '{"a": 1, "b": [true, null, -1.5e3]}',
        "in a fence": fence('{"a": 1}', "json"),
        "in a fence without a language": fence('{"a": 1}'),
        "a sentence and another fence": fence('{}', 'text') + "\n" + fence('{"a": 1}', "JSON"),
        "over several lines": '{\n  "a": {\n    "b": "c"\n  }\n}',
        "escapes": '{"a": "\\u00e9\\n\\ud800"}',
        "a number of any length": '{"a": ' + "9" * 10_000 + "}",
        "deep enough": '{"a": ' + "[" * 198 + "]" * 198 + "}",
    }, {
        "nothing": "",
        "an empty object": "{}",
        "a list": '[{"a": 1}]',
        "a text": '"a"',
        "a comma too many": '{"a": 1,}',
        "single quotes": "{'a': 1}",
        "Python's words": '{"a": True, "b": None}',
        "NaN": '{"a": NaN}',
        "infinity": '{"a": -Infinity}',
        "comments": '{"a": 1 // one\n}',
        "no quotes around keys": "{a: 1}",
        "inside of a sentence": 'The object is {"a": 1}.',
        "two of them": '{"a": 1}\n{"b": 2}',
        "one in each line": '{"a": 1}\n{"a": 2}\n',
        "a key twice": '{"a": 1, "b": 2, "a": 1}',
        "a key twice further in": '{"a": {"b": 1, "b": 2}}',
        "cut in the middle": '{"a": 1, "b": "tw',
        "a line end in a text": '{"a": "b\nc"}',
        "too deep": '{"a": ' + "[" * 200 + "]" * 200 + "}",
        "a table": "| a | 1 |",
    }),
}


class Rules(unittest.TestCase):
    def test_rules_accept_what_a_person_would_accept(self):
        for rule, (accepted, _) in GOLDEN.items():
            for name, text in accepted.items():
                with self.subTest(rule, case=name):
                    self.assertIs(FORMAT_RULES[rule](text), True)

    def test_rules_reject_what_a_person_would_reject(self):
        for rule, (_, refused) in GOLDEN.items():
            for name, text in refused.items():
                with self.subTest(rule, case=name):
                    self.assertIs(FORMAT_RULES[rule](text), False)

    def test_every_rule_has_cases(self):
        self.assertEqual(set(GOLDEN), set(FORMAT_RULES))
        self.assertEqual([rule for rule, (good, bad) in GOLDEN.items()
                          if len(good) < 8 or len(bad) < 9], [])

    def test_reasoning_is_removed_before_every_rule(self):
        thinking = "<think>\n1. a\n- b\n```python\n{\n```\n```bash\nif\n```\n</think>\n\n"
        for rule, (accepted, _) in GOLDEN.items():
            answer = next(iter(accepted.values()))
            with self.subTest(rule):
                self.assertIs(check_answer(thinking + answer, (), rule)["passed"], True)
                self.assertIs(check_answer(f"<think>{answer}</think>", (), rule)["passed"], False)


class Markers(unittest.TestCase):
    def test_markers_ignore_case(self):
        self.assertEqual(check_answer("Use LEFT JOIN.", ("left join", "coalesce"), None), {
            "markers": [{"marker": "left join", "found": True},
                        {"marker": "coalesce", "found": False}],
            "format_rule": None, "format_ok": None, "passed": False})

    def test_answer_passes_only_with_all_markers_and_the_format(self):
        def passed(text):
            return check_answer(text, ("five",), "five_bullets")["passed"]
        bullets = "- a\n- b\n- c\n- d\n"
        self.assertEqual([passed(bullets + "- five"), passed(bullets + "- e"), passed("- five")],
                         [True, False, False])

    def test_answer_without_anything_to_check_has_no_result(self):
        self.assertEqual(check_answer("hello", (), None), {
            "markers": [], "format_rule": None, "format_ok": None, "passed": None})

    def test_marker_only_in_reasoning_is_missing(self):
        self.assertIs(check_answer("<think>larkspur</think> I do not know.", ("larkspur",), None)
                      ["passed"], False)

    def test_unknown_rule_raises_key_error(self):
        with self.assertRaises(KeyError):
            check_answer("x", (), "haiku")


class HostileAnswers(unittest.TestCase):
    """No answer may raise an exception, hang, or be executed."""

    PIECES = ("{", "[", "(", '"', "'", "`", "```", "~~~", "```python\n", "```json\n", "```bash\n",
              "-", "- ", "* ", "1.", "1. ", "**", "#", "$ ", "\\", "\\\n", "<<EOF\n", "\n", "\r",
              "\t", " ", "\x00", "\ud800", "\udfff", "\ufeff", "\u202e", "\U0001f600", "<think>",
              "</think>", "f'{", '{"a":', "if ", "do\n", "not ", "a.", "x=1 ", "a b ", "lambda:",
              "- - ", "step 1: ", "_", "__", "=", "A=b ", "<", "\x0c", "0" * 9)

    def test_repeated_pieces_get_a_result(self):
        for piece in self.PIECES:
            for text in (piece * 3, piece * 3000, "```python\n" + piece * 700, "#!" + piece * 700):
                for rule in FORMAT_RULES:
                    with self.subTest(piece=piece, length=len(text), rule=rule):
                        self.assertIn(check_answer(text, ("x",), rule)["passed"], (True, False))

    def test_deeply_nested_code_has_the_same_result_on_every_python(self):
        deep = {"-" * 5000 + "1": False, "1" + "+1" * 5000: False, "f" + "()" * 5000: False,
                "x" + ".a" * 5000: False, "not " * 4000 + "x": False, "(" * 9000: False,
                "x = " + "[" * 150 + "]" * 150: True, "x = 1" + "+1" * 150: True,
                "x = 1" + "+1" * 250: False,
                "if x:\n f()\n" + "elif x:\n f()\n" * 1400: False}
        results = {}

        def judge():                  # as on a lane: a thread's stack may be the smaller one
            results.update({code: is_python_code(code) for code in deep})

        thread = threading.Thread(target=judge)
        thread.start()
        thread.join()
        self.assertEqual(results, deep)

    def test_time_is_linear_in_the_length(self):
        def seconds(text):
            started = time.process_time()         # other programs' load does not count
            for rule in FORMAT_RULES:
                check_answer(text, ("marker",), rule)
            return time.process_time() - started

        for piece in self.PIECES:
            short, long = piece * (2_000 // len(piece)), piece * (40_000 // len(piece))
            allowed = 20 * 6 * max(min(seconds(short), seconds(short)), 0.0005)
            with self.subTest(piece=piece):       # twenty times the length; quadratic would be 400
                self.assertTrue(any(seconds(long) < allowed for _ in range(2)))

    def test_nothing_in_an_answer_is_executed(self):
        code = "import os\nos.system('touch x')\nopen('x', 'w')\nexec('1')\n__import__('os')\n"
        texts = [fence(code, "python"), fence(code + "def test_x():\n    assert 1", "python"),
                 "#!/bin/bash\ntouch x", "touch x\nrm -rf x", '{"a": "$(touch x)"}']
        with mock.patch.object(os, "system", side_effect=AssertionError), \
                mock.patch.object(subprocess, "Popen", side_effect=AssertionError), \
                mock.patch.object(builtins, "open", side_effect=AssertionError), \
                mock.patch.object(builtins, "exec", side_effect=AssertionError), \
                mock.patch.object(builtins, "eval", side_effect=AssertionError):
            for text in texts:
                for rule in FORMAT_RULES.values():
                    self.assertIn(rule(text), (True, False))

    def test_module_calls_no_function_that_executes_code(self):
        with open(check_answer.__code__.co_filename, encoding="utf-8") as file:
            tree = ast.parse(file.read())
        called = {getattr(node.func, "id", getattr(node.func, "attr", None))
                  for node in ast.walk(tree) if isinstance(node, ast.Call)}
        self.assertEqual(called & {"exec", "eval", "__import__", "open", "system", "run", "Popen"},
                         set())

    def test_result_is_plain_data(self):
        result = check_answer("\ud800 \x00 NaN", ("a",), "json_dict")
        self.assertEqual(json.loads(json.dumps(result)), result)


if __name__ == "__main__":
    unittest.main()
