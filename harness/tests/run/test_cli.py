"""The runner's command line: values, combinations, help, and the commands it prints."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import re
import shlex
import sys
import unittest
from typing import Any, Optional

import run_benchmark
from core import suites
from core.errors import HarnessError
from core.text import WIDE
from run import cli

RUN_ID = "11111111-2222-4333-8444-555555555555"
KEY = "sk-abcdefghijklmnop0123456789"
# Valid values of each option that takes one, and how they are parsed.
VALID: dict[str, list[tuple[list[str], Any]]] = {
    "--target-url": [(["http://h:8080/v1"], "http://h:8080/v1"), (["h:80"], "h:80")],
    "--models": [(["a,b:7b"], "a,b:7b")],
    "--phases": [(["all"], "all"), (["5q, hello"], "5q, hello")],
    "--challenge": [(["PR 12"], "PR 12")],
    "--repeats": [(["1"], 1), (["1000"], 1000)],
    "--lanes": [(["1"], 1), (["256"], 256)],
    "--timeout": [(["0.1"], 0.1), (["86400"], 86400.0)],
    "--temperature": [(["0"], 0.0), (["2"], 2.0)],
    "--num-ctx": [(["128"], 128), (["10000000"], 10_000_000)],
    "--num-predict": [(["1"], 1), (["1000000"], 1_000_000)],
    "--prompt-cache": [(["avoid"], "avoid"), (["allow"], "allow")],
    "--api-key-env": [(["LLM_KEY"], "LLM_KEY")],
    "--submitter-handle": [(["ada"], "ada")],
    "--device-tag": [(["mac-m1-8gb"], "mac-m1-8gb")],
    "--cell-id-prefix": [(["mac:ollama"], "mac:ollama")],
    "--run-id": [([RUN_ID.upper()], RUN_ID), ([f"run-{RUN_ID}"], RUN_ID)],
    "--out-dir": [(["there"], "there")],
    "--stop": [([RUN_ID], RUN_ID)],
    "--wait": [(["0", RUN_ID], ["0", RUN_ID]), (["1.5", "x"], ["1.5", "x"])],
}
SWITCHES = ("--retry-failed", "--no-hostname", "--no-calibration", "--probe", "--smoke", "--plan",
            "--rehearse", "--detach", "--json", "--quiet")
INVALID: dict[str, tuple[list[list[str]], str]] = {
    "--target-url": ([["ftp://h"], ["http://"], ["http://h:99999"], ["http://h:0"], ["a b"],
                      ["http://[::1"], ["http://h\u00e9"]], "use for example http://127.0.0.1"),
    "--phases": ([["6q"], [""], [","]], "is not a phase; use hello, frozen, 5q, 20q, "),
    "--repeats": ([["0"], ["1001"], ["1.5"], ["x"], [""]],
                  "whole number from 1 to 1000; use for example --repeats 3"),
    "--lanes": ([["0"], ["257"]], "whole number from 1 to 256"),
    "--timeout": ([["0"], ["86401"], ["nan"], ["inf"], ["5s"]], "a number from 0.1 to 86400"),
    "--temperature": ([["-0.1"], ["2.1"], ["nan"]], "a number from 0 to 2"),
    "--num-ctx": ([["127"], ["10000001"]], "whole number from 128 to 10000000"),
    "--num-predict": ([["0"], ["1000001"]], "whole number from 1 to 1000000"),
    "--prompt-cache": ([["never"]], "invalid choice: 'never' (choose from"),
    "--api-key-env": ([[KEY], [""], ["1X"], ["A B"]], "pass the variable's name, never the key"),
    "--run-id": ([["1"], [RUN_ID.replace("-", "")], ["{" + RUN_ID + "}"], ["../x"]],
                 "is not a run id such as 00000000-0000-"),
    "--wait": ([["-1", "x"], ["nan", "x"], ["86401", "x"], ["\x1b", "x"]],
               "a number from 0 to 86400"),
}


def parse(*words: str) -> cli.Options:
    """Options as the runner parses them."""
    return cli.parse_options(run_benchmark.build_parser(), words, run_benchmark.DEFAULTS)


def field(option: str) -> str:
    """The field of an option."""
    return option[2:].replace("-", "_")


def refusal(*words: str) -> tuple[Any, str]:
    """(exit code, standard error) of words that are refused; (None, "") if they are not."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        try:
            parse(*words)
        except SystemExit as ended:
            return ended.code, err.getvalue()
    return None, err.getvalue()


class Values(unittest.TestCase):
    def test_options_take_values_up_to_their_bounds(self):
        for option, cases in VALID.items():
            for words, value in cases:
                with self.subTest(option, words=words):
                    self.assertEqual(getattr(parse(option, *words), field(option)), value)

    def test_switches_are_off_by_default(self):
        for option in SWITCHES:
            words = (option, "--run-id", RUN_ID) if option == "--retry-failed" else (option,)
            with self.subTest(option):
                self.assertIs(getattr(parse(), field(option)), False)
                self.assertIs(getattr(parse(*words), field(option)), True)

    def test_every_option_is_a_field_with_a_tested_value(self):
        fields = {one.name for one in dataclasses.fields(cli.Options)} - {"given", "asked"}
        actions = run_benchmark.build_parser()._actions[1:]
        self.assertEqual({action.dest for action in actions}, fields)
        self.assertEqual({*map(field, (*SWITCHES, *VALID))}, fields)

    def test_required_options_exist(self):
        required = ("--target-url --models --cell-id-prefix --phases --timeout --temperature "
                    "--num-ctx --num-predict --probe --smoke --run-id --out-dir "
                    "--submitter-handle --device-tag")
        self.assertLessEqual(set(required.split()), {*SWITCHES, *VALID})

    def test_defaults_are_those_of_the_canonical_run(self):
        self.assertEqual(parse(), cli.Options(
            target_url="http://127.0.0.1:11434", phases="hello,5q,20q", repeats=1, lanes=4,
            timeout=360.0, temperature=0.1, num_ctx=4096, num_predict=2048, prompt_cache="avoid",
            submitter_handle="unnamed", device_tag="unnamed-device",
            out_dir=run_benchmark.DEFAULT_OUT))

    def test_given_names_the_options_of_the_command_line(self):
        self.assertEqual(parse("--repeats", "1", "--json").given, {"repeats", "json"})

    def test_options_cannot_be_changed(self):
        with self.assertRaises(dataclasses.FrozenInstanceError):
            parse().lanes = 8

    def test_invalid_values_are_refused_in_one_line(self):
        for option, (cases, message) in INVALID.items():
            for words in cases:
                with self.subTest(option, words=words):
                    code, err = refusal(option, *words)
                    self.assertEqual(code, 2)
                    self.assertRegex(err, rf"\Arun_benchmark: {option}: .*{re.escape(message)}.*; "
                                     r"--help lists the options\n\Z")

    def test_text_of_a_refused_option(self):
        self.assertEqual(refusal("--lanes", "many"), (2, (
            "run_benchmark: --lanes: 'many' is not a whole number from 1 to 256; use for example "
            "--lanes 4; --help lists the options\n")))

    def test_a_mistyped_option_is_refused_with_what_to_type(self):
        for words, told in (
                (["probe"], "unknown argument: probe (did you mean --probe?)"),
                (["-plan"], "unknown argument: -plan (did you mean --plan?)"),
                (["\u2014probe"], "unknown argument: \\u2014probe (did you mean --probe?)"),
                (["--target_url", "h"], "--target_url h (did you mean --target-url?)"),
                (["http://h:80"], "unknown argument: http://h:80 (write its option before it, such "
                                  "as --target-url URL or --run-id UUID)"),
                (["--wait", RUN_ID], "2 values are needed; type --wait SECONDS RUN"),
                (["--models"], "a value is missing; type --models LIST"),
                (["--plan=all"], "--plan: takes no value; leave out 'all'"),
                (["--target-url", "8080"], "use for example http://127.0.0.1:8080"),
                (["--target-url", ":8080"], "use for example http://127.0.0.1:8080"),
                (["--target-url", "https:/h:1/v1"], "use for example https://h:1/v1"),
                (["--target-url", "http//h:1"], "use for example http://h:1"),
                (["--run-id", f"submissions\\ada\\m1\\run-{RUN_ID}\\"],
                 f"type --run-id {RUN_ID}, with its --out-dir")):
            with self.subTest(words):
                code, err = refusal(*words)
                self.assertEqual((code, err.count("\n")), (2, 1))
                self.assertIn(f"{told}; --help lists", err)

    def test_refused_urls_and_names_never_show_a_key(self):
        for words in (["--api-key-env", KEY],
                      *(["--target-url", url] for url in (f"http://u:{KEY}@h", f"http://h?k={KEY}",
                                                          f"http://h#{KEY}"))):
            with self.subTest(words):
                code, err = refusal(*words)
                self.assertEqual((code, KEY in err, "--api-key-env" in err), (2, False, True))

    def test_refusals_are_printable_ascii(self):
        odd = "\x1b[31m\r\u202e\u00e9\n"
        for words in ([[option, odd, "x"] for option in INVALID]
                      + [[odd], ["--" + odd], ["--js", odd]]):
            with self.subTest(words):
                code, err = refusal(*words)
                self.assertEqual(code, 2)
                self.assertRegex(err, r"\A[\x20-\x7e]+\n\Z")

    def test_abbreviated_and_incomplete_options_are_refused(self):
        for words in (("--model", "x"), ("--quie",), ("x",), ("--repeats",), ("--wait", "1")):
            self.assertEqual(refusal(*words)[0], 2, words)

    def test_base_urls_are_normalised(self):
        for text, expected in (
                ("http://h", ("http://h:80", "http", "h", 80, "")),
                ("http://h/", ("http://h:80", "http", "h", 80, "")),
                ("http://h/v1", ("http://h:80", "http", "h", 80, "")),
                ("http://h/v1/", ("http://h:80", "http", "h", 80, "")),
                ("h:8080", ("http://h:8080", "http", "h", 8080, "")),
                ("HTTPS://H.example", ("https://h.example:443", "https", "h.example", 443, "")),
                ("https://h:1/api/v1", ("https://h:1/api", "https", "h", 1, "/api")),
                ("http://h/v1/x", ("http://h:80/v1/x", "http", "h", 80, "/v1/x")),
                ("http://h/v1/chat/completions", ("http://h:80", "http", "h", 80, "")),
                ("http://h/v1/models", ("http://h:80", "http", "h", 80, "")),
                ("http://h/openai/v1/", ("http://h:80/openai", "http", "h", 80, "/openai")),
                ("http://h/v3", ("http://h:80", "http", "h", 80, "/v3", "/v3")),
                ("http://h/v1beta", ("http://h:80", "http", "h", 80, "/v1beta", "/v1beta")),
                ("http://h/x/v4/chat/completions",
                 ("http://h:80/x", "http", "h", 80, "/x/v4", "/v4")),
                ("http://h/api", ("http://h:80", "http", "h", 80, "/api", "/api")),
                ("http://h/api/chat/completions", ("http://h:80", "http", "h", 80, "/api", "/api")),
                ("[::1]:8080", ("http://[::1]:8080", "http", "::1", 8080, ""))):
            self.assertEqual(cli.parse_target(text), cli.Target(*expected), text)


    def test_url_of_a_path(self):
        for text, api, other in (
                ("http://h", "http://h:80/v1/models", "http://h:80/props"),
                ("http://h/p/v1", "http://h:80/p/v1/models", "http://h:80/p/props"),
                ("http://h/p/v3", "http://h:80/p/v3/models", "http://h:80/p/props"),
                ("http://h/api", "http://h:80/api/models", "http://h:80/props")):
            target = cli.parse_target(text)
            self.assertEqual((target.url_of("/v1/models"), target.url_of("/props")), (api, other))

    def test_other_place_of_the_api(self):
        for text, expected in (("http://h", None), ("http://h/v3", None),
                               ("http://h/a/b", "http://h:80/a/b/models"),
                               ("http://h/api", "http://h:80/api/v1/models")):
            other = cli.other_api(cli.parse_target(text))
            self.assertEqual(other and other.url_of("/v1/models"), expected)


class Combinations(unittest.TestCase):
    def test_options_that_exclude_each_other_are_refused(self):
        for words, message in (
                ("--probe --plan", "--probe and --plan exclude each other"),
                ("--smoke --probe --rehearse", "--probe and --rehearse and --smoke exclude"),
                ("--wait 1 x --smoke", "--smoke and --wait exclude each other"),
                ("--plan --smoke", "--plan and --smoke exclude each other"),
                ("--detach --probe", "use --probe without it"),
                ("--detach --plan", "use --plan without it"),
                ("--detach --wait 1 x", "use --wait without it"),
                ("--rehearse --target-url http://h", "leave out --target-url"),
                ("--retry-failed", "pass its id to --run-id")):
            with self.subTest(words):
                code, err = refusal(*words.split())
                self.assertEqual((code, err.count("\n")), (2, 1))
                self.assertIn(message, err)

    def test_options_that_go_together_are_accepted(self):
        for words in ("", "--rehearse --smoke", "--detach --smoke", "--detach --rehearse",
                      f"--retry-failed --run-id {RUN_ID}", "--probe --target-url http://h --json"):
            self.assertEqual(refusal(*words.split()), (None, ""), words)

    def test_key_comes_from_the_named_variable_only(self):
        environment = {"OPENAI_API_KEY": "other", "LLM_KEY": KEY, "SPACED": "a b", "EMPTY": ""}
        self.assertIsNone(cli.api_key(parse(), environment))
        self.assertEqual(cli.api_key(parse("--api-key-env", "LLM_KEY"), environment), KEY)
        for name, problem in (("SPACED", "contains a blank"), ("EMPTY", "is not set"),
                              ("NOWHERE", "is not set")):
            with self.assertRaisesRegex(HarnessError, f"--api-key-env {name}: .*{problem}"):
                cli.api_key(parse("--api-key-env", name), environment)


# --- commands that are printed -------------------------------------------------------------------
PRIVATE = ("--target-url", "http://10.1.2.3:8080/secret", "--out-dir", "/mnt/bob/runs",
           "--api-key-env", "BOBS_KEY")


class Commands(unittest.TestCase):
    def command(self, *words: str, wait_s: Optional[str] = None) -> str:
        return cli.next_command(parse(*words), RUN_ID, wait_s)

    def test_resume_command_repeats_what_the_manifest_does_not_hold(self):
        for words, expected in (
                ((), ""), (("--phases", "all", "--quiet", "--json", "--timeout", "5"),
                           " --json --quiet"),
                (("--no-calibration",), " --no-calibration"),
                (PRIVATE, " --target-url http://10.1.2.3:8080/secret --api-key-env BOBS_KEY "
                 "--out-dir /mnt/bob/runs"),
                (("--out-dir", "my runs"), " --out-dir 'my runs'"),
                (("--rehearse", "--out-dir", "x", "--detach"), " --rehearse --out-dir x")):
            self.assertEqual(self.command(*words),
                             f"python3 harness/run_benchmark.py --run-id {RUN_ID}{expected}")

    def test_wait_command_repeats_folder_and_address_of_another_machine(self):
        for words, expected in (((), ""), (("--out-dir", "my runs"), " --out-dir 'my runs'"),
                                (("--phases", "all", "--detach", "--quiet"), " --quiet"),
                                (("--no-calibration", "--target-url", "http://[::1]:1"), ""),
                                (PRIVATE, " --target-url http://10.1.2.3:8080/secret "
                                 "--api-key-env BOBS_KEY --out-dir /mnt/bob/runs")):
            self.assertEqual(self.command(*words, wait_s="100"),
                             f"python3 harness/run_benchmark.py --wait 100 {RUN_ID}{expected}")

    def test_printed_commands_can_be_parsed_and_print_themselves_again(self):
        words = (*PRIVATE, "--no-calibration", "--out-dir", "a 'b' $c")
        for wait_s in (None, "100"):
            command = self.command(*words, wait_s=wait_s)
            program, again = shlex.split(command)[:2], shlex.split(command)[2:]
            self.assertEqual(program, ["python3", "harness/run_benchmark.py"])
            self.assertEqual(self.command(*again, wait_s=wait_s), command)


# --- help ----------------------------------------------------------------------------------------
class Help(unittest.TestCase):
    def text(self) -> str:
        return run_benchmark.build_parser().format_help()

    def test_help_shows_defaults(self):
        shown = re.sub(r"\s+", " ", self.text())
        for words in ("(default: http://127.0.0.1:11434)", "(default: 360)", "(default: 0.1)",
                      "(default: 4096; with phase depth, 33280)", "(default: 2048)",
                      "(default: hello,5q,20q)",
                      "(default: avoid)", "(default: 1)", "(default: 4)", "(default: unnamed)"):
            self.assertIn(words, shown)

    def test_help_describes_every_option(self):
        for action in run_benchmark.build_parser()._actions:
            self.assertTrue(action.help and action.help != argparse.SUPPRESS, action.dest)

    def test_help_fits_a_terminal(self):
        lines = self.text().splitlines()
        self.assertEqual([line for line in lines if len(line) > WIDE], [])
        self.assertEqual(lines[0], "usage: python3 harness/run_benchmark.py [options]")
        self.assertEqual([line for line in lines if line.endswith(":") and line[0] != " "], [
            "options:", "workload:", "request options:", "output:", "modes:", "display:",
            "exit codes:"] if sys.version_info >= (3, 10) else [
            "optional arguments:", "workload:", "request options:", "output:", "modes:",
            "display:", "exit codes:"])
        self.assertEqual([name for name in suites.PHASES if name not in self.text()], [])

    def test_help_lists_every_exit_code(self):
        codes = self.text().partition("exit codes:")[2]
        self.assertEqual(re.findall(r"\b(\d+)(?:/(\d+))?(?: \(--wait\))? [a-z]", codes),
                         [("0", ""), ("1", ""), ("2", ""), ("3", ""), ("4", ""), ("5", ""),
                          ("130", "143")])
