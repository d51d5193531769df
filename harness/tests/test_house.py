"""The structure of the harness: imports, effects on the outside, and the top level."""
from __future__ import annotations

import ast
import functools
import graphlib
import os
import re
import sysconfig
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from core import release
from tests import runs

ROOT, HARNESS = runs.HARNESS.parent, runs.HARNESS
FOLDERS = ("core", "engines", "machine", "run", "complete", "check", "compare")
PROGRAMS = ("run_benchmark", "complete_submission", "check_submission", "compare_submissions",
            "hardware", "reference_endpoint")
SHIPPED = {path.relative_to(HARNESS).with_suffix("").as_posix(): path
           for folder in (".", *FOLDERS) for path in sorted((HARNESS / folder).glob("*.py"))}

# What each folder may import of the harness. Programs may import any folder, and nothing imports a
# program. check imports complete, machine and run to recompute what they wrote.
MAY_IMPORT = {
    "core": {"core", "prompts"},
    "engines": {"engines"},
    "machine": {"machine", "core"},
    "complete": {"complete", "core"},
    "compare": {"compare", "core"},
    "run": {"run", "core", "engines"},
    "check": {"check", "core", "engines", "run", "complete", "machine"}}
MAX_FLOORS = 5
# What the runner imports although it can change no number: texts, results, redaction, releases.
NOT_MEASURING = {f"core/{name}" for name in (
    "corrections", "curves", "energy_and_memory", "flag_definitions", "headline",
    "metric_definitions", "metrics", "names", "privacy", "privacy_patterns", "records", "release",
    "result_tables", "run_summary", "text", "thresholds", "throughput", "vendor_keys")} | {
    # What a probe shows: which machine this is, and what is not measured on it.
    "machine/awake", *(f"compare/{name}" for name in (
        "entries", "folders", "headline", "identity", "canonical_names", "reviewed_names",
        "ranking", "titles_and_sizes", "verdicts", "wanted"))}
TOP = {"AGENTS.md", "CLAUDE.md", "CONTRIBUTING.md", "LICENSE", "LICENSE-MIT", "README.md",
       "harness", "submissions"}

# Effects on the outside, and the files that may have them.
CONNECTING = {"asyncio", "ftplib", "http", "http.client", "http.server", "selectors", "smtplib",
              "socketserver", "ssl", "telnetlib", "urllib.request", "xmlrpc"}
CONNECTS = {"run_benchmark", "reference_endpoint"}
SOCKET_NAMES = {              # names of errors, and this machine's names
    "run/reply": {"timeout"}, "core/names": {"gethostname", "getaddrinfo"}}
STAMPS = {"run_benchmark", "run/ledger_writer", "reference_endpoint", "machine/system",
          "machine/heartbeat"}
STARTS_PROGRAMS = {"run_benchmark", "machine/awake", "machine/system", "core/release",
                   "check/submission_files"}
CHANGES_FILES = {
    "core/files": {"open", "os.open", "os.replace", "os.unlink"},
    "core/release": {"PROGRAMS.write_text"},    # the maintainers' --add
    "run_benchmark": {"open", "os.makedirs"},
    "run/ledger_writer": {"os.write", "os.ftruncate"},
    "complete_submission": {"os.unlink"},
    "reference_endpoint": {"open"},      # this process's own timer slack, in /proc
    "core/text": {"os.open"},            # the null device, if standard output is closed
}
CHANGING = {"os." + name for name in (
    "write", "truncate", "ftruncate", "unlink", "remove", "rename", "replace", "makedirs", "mkdir",
    "rmdir", "removedirs", "link", "symlink", "chmod", "utime")}
CHANGING_METHODS = {"write_text", "write_bytes", "touch", "unlink", "rmtree", "mkdir", "rmdir",
                    "symlink_to", "hardlink_to", "copyfile", "copytree", "copy2"}


def nodes_of(name: str) -> tuple[ast.AST, ...]:
    """The nodes of a shipped file's syntax tree, the root first."""
    return parsed(SHIPPED[name].read_bytes())


@functools.lru_cache(None)
def parsed(data: bytes) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(ast.parse(data)))


def imports_of(name: str) -> set[str]:
    """Every module that a shipped file imports, as a dotted name."""
    found = set()
    for node in nodes_of(name):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or ".")
    return found


@functools.lru_cache(None)
def files_imported(name: str) -> set[str]:
    """The shipped files that a shipped file imports."""
    found = {one.replace(".", "/") for one in imports_of(name)}
    found |= {f"{node.module}/{alias.name}" for node in nodes_of(name)
              if isinstance(node, ast.ImportFrom) for alias in node.names}
    return found & set(SHIPPED)


def all_imported(name: str) -> set[str]:
    """The shipped files that a shipped file imports, directly or not."""
    found, waiting = set(), [name]
    while waiting:
        new = files_imported(waiting.pop()) - found
        found |= new
        waiting += new
    return found


def dotted(node: Any) -> str:
    """The dotted name `os.path.join` of an expression; "" for any other expression."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def calls_in(name: str) -> Iterator[tuple[str, ast.Call]]:
    """(dotted name, node) of every call in a shipped file."""
    for node in nodes_of(name):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


def names_in(name: str) -> set[str]:
    """Every dotted name in a shipped file."""
    return {dotted(node) for node in nodes_of(name)
            if isinstance(node, (ast.Attribute, ast.Name))}


def mode_of(call: ast.Call) -> str:
    """The mode of an open(); "?" if it is no literal."""
    given = [k.value for k in call.keywords if k.arg == "mode"] or call.args[1:2]
    if not given:
        return "r"
    return given[0].value if isinstance(given[0], ast.Constant) else "?"


def changes_of(name: str) -> set[str]:
    """The calls in a shipped file that may change a file."""
    found = set()
    for called, call in calls_in(name):
        if called in ("open", "io.open") and set(mode_of(call)) & set("wax+?"):
            found.add("open")
        elif called == "os.open" and not reads_only(call):
            found.add("os.open")
        elif called in CHANGING or called.rpartition(".")[2] in CHANGING_METHODS - {
                one[3:] for one in CHANGING}:
            found.add(called)
    return found


def reads_only(call: ast.Call) -> bool:
    """Whether the flags of an os.open() only read."""
    flags = ast.dump(call.args[1])
    return not re.search("O_WRONLY|O_RDWR|O_CREAT|O_TRUNC|O_APPEND", flags)


class Imports(unittest.TestCase):
    def test_each_folder_imports_only_the_folders_it_may(self) -> None:
        ours, wrong = {*FOLDERS, *PROGRAMS, "prompts"}, []
        for name in SHIPPED:
            folder = name.rpartition("/")[0]
            imported = {one.partition(".")[0] for one in imports_of(name)} & ours
            allowed = MAY_IMPORT[folder] if folder else {*FOLDERS, "prompts"}
            if name == "reference_endpoint":
                allowed = set()
            wrong += [f"{name} imports {one}" for one in imported - allowed]
        self.assertEqual(wrong, [])

    def test_imports_have_few_floors_and_no_circle(self) -> None:
        graphlib.TopologicalSorter({name: files_imported(name) for name in SHIPPED}).prepare()

        def floor(folder: str) -> int:
            return 1 + max(map(floor, MAY_IMPORT[folder] - {folder, "prompts"}), default=0)

        self.assertLess(max(map(floor, FOLDERS)), MAX_FLOORS)       # programs are one floor up

    def test_files_that_can_change_a_number_are_pinned(self) -> None:
        pinned = {path[len("harness/"):-len(".py")] for path in release.current_hashes()
                  if path.endswith(".py")}
        self.assertEqual(all_imported("run_benchmark") - pinned - NOT_MEASURING, set())

    def test_only_the_standard_library_is_imported_otherwise(self) -> None:
        stdlib, elsewhere = Path(sysconfig.get_paths()["stdlib"]), {"msvcrt", "winreg"}
        for name in SHIPPED:
            imported = {found.partition(".")[0] for found in imports_of(name)}
            for one in imported - set(SHIPPED) - set(FOLDERS) - elsewhere:
                with self.subTest(name, imports=one):
                    spec = __import__(one).__spec__
                    origin = (spec and spec.origin) or "built-in"
                    self.assertTrue(origin in ("built-in", "frozen") or (
                        stdlib in Path(origin).parents and "site-packages" not in origin), origin)

    def test_requirements_are_empty(self) -> None:
        lines = (HARNESS / "requirements.txt").read_text("utf-8").splitlines()
        self.assertEqual([line for line in lines if not line.startswith("#")], [])


class Effects(unittest.TestCase):
    def test_only_runner_and_endpoint_connect(self) -> None:
        for name in SHIPPED:
            self.assertEqual(bool(imports_of(name) & CONNECTING), name in CONNECTS, name)

    def test_other_files_use_no_sockets(self) -> None:
        for name in set(SHIPPED) - CONNECTS:
            used = {one[7:] for one in names_in(name) if one.startswith("socket.")}
            self.assertEqual(used, SOCKET_NAMES.get(name, set()), name)
            self.assertFalse([node for node in nodes_of(name) if isinstance(
                node, ast.ImportFrom) and node.module == "socket"], name)

    def test_only_measuring_files_read_the_fine_clock(self) -> None:
        for name in SHIPPED:
            imported = {alias.name for node in nodes_of(name) if isinstance(node, ast.ImportFrom)
                        for alias in node.names}
            if "perf_counter" in " ".join(names_in(name) | imported):
                self.assertIn(name, STAMPS)

    def test_only_listed_files_change_files(self) -> None:
        found = {name: changes_of(name) for name in SHIPPED}
        self.assertEqual({name: changes for name, changes in found.items() if changes},
                         CHANGES_FILES)

    def test_only_listed_files_start_programs(self) -> None:
        for name in SHIPPED:
            self.assertEqual("subprocess" in imports_of(name), name in STARTS_PROGRAMS, name)

    def test_no_file_executes_data(self) -> None:
        for name in SHIPPED:
            called = {called for called, _ in calls_in(name)}
            self.assertEqual(called & {"eval", "exec", "compile", "__import__", "os.system",
                                       "os.popen", "importlib.import_module"}, set(), name)
            self.assertEqual(imports_of(name) & {"pickle", "marshal", "shelve", "runpy"}, set(),
                             name)

    def test_changes_of_files_are_recognised(self) -> None:
        for code, expected in (
                ("open(p)", set()), ("open(p, 'rb')", set()), ("open(p, mode='w')", {"open"}),
                ("open(p, 'ab')", {"open"}), ("open(p, m)", {"open"}),
                ("os.open(p, os.O_RDONLY)", set()), ("os.open(p, os.O_RDWR)", {"os.open"}),
                ("os.unlink(p)", {"os.unlink"}), ("Path(p).write_text('')", {".write_text"}),
                ("shutil.rmtree(p)", {"shutil.rmtree"}), ("file.write(b'')", set())):
            with mock.patch.object(Path, "read_bytes", lambda _, c=code: c.encode()):
                self.assertEqual(changes_of("core/files"), expected, code)


class Runner(unittest.TestCase):
    def test_runner_is_at_most_950_lines_and_48_kib(self) -> None:
        data = SHIPPED["run_benchmark"].read_bytes()
        self.assertLessEqual(data.count(b"\n"), 950)
        self.assertLessEqual(len(data), 48 * 1024)

    def test_version_and_options_are_literals_in_it(self) -> None:
        found = {node.targets[0].id: ast.literal_eval(node.value)
                 for node in nodes_of("run_benchmark")[0].body if isinstance(node, ast.Assign)
                 and dotted(node.targets[0]) in ("HARNESS_VERSION", "CANONICAL_OPTIONS")}
        self.assertEqual(found, {
            "HARNESS_VERSION": "public-1",
            "CANONICAL_OPTIONS": {"temperature": 0.1, "num_ctx": 4096, "num_predict": 2048}})


class Texts(unittest.TestCase):
    def test_modules_and_public_definitions_have_docstrings(self) -> None:
        silent: list[str] = []
        for name in SHIPPED:
            if name.endswith("__init__"):
                continue
            tree = nodes_of(name)[0]
            silent += [] if ast.get_docstring(tree) else [name]
            silent += [f"{name}.{node.name}" for node in tree.body
                       if isinstance(node, (ast.FunctionDef, ast.ClassDef))
                       and not node.name.startswith("_") and node.name != "main"
                       and not name.startswith(("engines", "machine"))
                       and not ast.get_docstring(node)]
        self.assertEqual(silent, [])

    def test_code_is_ascii_except_for_known_symbols(self) -> None:
        for name, path in SHIPPED.items():
            text = path.read_text("utf-8")
            self.assertEqual(set(re.findall(r"[^\x20-\x7e\n]", text))
                             - set("\u00b5\u00b0\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"),
                             set(), name)

    def test_files_end_with_one_line_feed(self) -> None:
        for path in SHIPPED.values():
            data = path.read_bytes() or b"\n"
            self.assertEqual((b"\r" in data, data.endswith(b"\n\n"), data[-1:]),
                             (False, False, b"\n"), path.name)

    def test_agents_file_equals_claude_file(self) -> None:
        claude, agents = (ROOT / name for name in ("CLAUDE.md", "AGENTS.md"))
        if not claude.exists() and not agents.exists():
            self.skipTest("they are not written yet")
        self.assertEqual(claude.read_bytes(), agents.read_bytes())

    def test_top_level_has_no_other_files(self) -> None:
        names = {name for name in os.listdir(ROOT) if not name.startswith(".")}
        self.assertEqual(names - TOP, set())

    def test_programs_end_with_their_main(self) -> None:
        for name in PROGRAMS:
            text = SHIPPED[name].read_text("utf-8")
            self.assertRegex(text, r"(?s)\nif __name__ == \"__main__\":\n    "
                             r"(sys\.exit|raise SystemExit)\(main\(\)\)\n\Z")
