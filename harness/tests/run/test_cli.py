"""The command line: what every flag takes and refuses, and the commands that are printed."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
import unittest
from typing import Any, Optional

import run_benchmark
from core import suites
from core.errors import HarnessError
from core.text import WIDE
from run import cli

from tests import runs

try:
    import resource
except ImportError:           # Windows
    resource = None

CANONICAL = run_benchmark.CANONICAL_OPTIONS
KNOBS = {knob.flag: knob for knob in cli.option_table(CANONICAL)}
RUN_ID = "11111111-2222-4333-8444-555555555555"
KEY = "sk-abcdefghijklmnop0123456789"
HELP_S = 0.2
BARE_STARTS = 20              # or so many bare starts, on a machine that is busy or slow
# Of every flag: what may be typed, and what that comes to.
TYPED: dict[str, list[tuple[list[str], Any]]] = {
    "--target-url": [(["http://h:8080/v1"], "http://h:8080/v1"), (["h:80"], "h:80")],
    "--models": [(["a,b:7b"], "a,b:7b")],
    "--phases": [(["all"], "all"), (["5q, hello"], "5q, hello")],
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
    "--wait": [(["100", RUN_ID], ["100", RUN_ID])],
}
REFUSED: dict[str, list[tuple[str, str]]] = {
    "--target-url": [(value, "is no http or https URL; type something like http://127.0.0.1:11434")
                     for value in ("ftp://h", "http://", "http://h:99999", "http://h:0", "a b",
                                   "http://[::1", "http://h\u00e9")]
    + [(value, "leave out user, password, query and fragment; a key goes into an environment "
        "variable that --api-key-env names")
       for value in (f"http://u:{KEY}@h", f"http://h?key={KEY}", "http://h#x")],
    "--phases": [("6q", "'6q': a phase is one of hello, frozen, 5q, 20q, parallel_same, "
                  "parallel_mixed, edge_append, edge_suite, or all"), ("", "a phase is one of"),
                 (",", "a phase is one of")],
    "--repeats": [(v, "is not a whole number from 1 to 1000; type for example --repeats 3")
                  for v in ("0", "1001", "1.5", "x", "")],
    "--lanes": [(v, "is not a whole number from 1 to 256; type for example --lanes 4")
                for v in ("0", "257")],
    "--timeout": [(v, "is not a number from 0.1 to 86400; type for example --timeout 360")
                  for v in ("0", "86401", "nan", "inf", "5s")],
    "--temperature": [(v, "is not a number from 0 to 2; type for example --temperature 0.1")
                      for v in ("-0.1", "2.1", "nan")],
    "--num-ctx": [(v, "is not a whole number from 128 to 10000000; type for example --num-ctx "
                   "4096") for v in ("127", "10000001")],
    "--num-predict": [(v, "is not a whole number from 1 to 1000000; type for example "
                       "--num-predict 2048") for v in ("0", "1000001")],
    "--prompt-cache": [("never", "invalid choice: 'never' (choose from")],
    "--api-key-env": [(v, "that is not the name of an environment variable; type the variable's "
                       "name, never the key itself") for v in (KEY, "", "1X", "A B")],
    "--run-id": [(v, "is no run id; type one such as 00000000-0000-0000-0000-000000000000, or "
                  "leave the flag out for a new run")
                 for v in ("1", RUN_ID.replace("-", ""), "{" + RUN_ID + "}", "../x")],
}


def parse(*words: str, settle: bool = True) -> argparse.Namespace:
    args = run_benchmark.build_parser().parse_args(words)
    if settle:
        cli.settle(args, CANONICAL)
    return args


def refusal(*words: str) -> tuple[Any, str]:
    """(exit code, standard error) of words that are refused."""
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        try:
            parse(*words)
        except SystemExit as ended:
            return ended.code, err.getvalue()
    return None, err.getvalue()


class Parsing(unittest.TestCase):
    def test_every_flag_takes_what_is_allowed_up_to_its_bounds(self):
        for flag, cases in TYPED.items():
            for typed, value in cases:
                with self.subTest(flag, typed=typed):
                    self.assertEqual(getattr(parse(flag, *typed), KNOBS[flag].dest), value)

    def test_every_switch_is_off_until_it_is_typed(self):
        switches = [flag for flag, knob in KNOBS.items() if knob.metavar is None]
        self.assertEqual([flag for flag in switches if getattr(parse(), KNOBS[flag].dest)], [])
        self.assertEqual([flag for flag in switches
                          if getattr(parse(flag), KNOBS[flag].dest) is not True], [])
        self.assertEqual({*switches, *TYPED}, set(KNOBS))

    def test_defaults_are_those_of_the_canonical_run(self):
        args = vars(parse())
        self.assertEqual(args, {
            "target_url": "http://127.0.0.1:11434", "models": None, "phases": "hello,5q,20q",
            "repeats": 1, "lanes": 4, "timeout": 360.0, "temperature": 0.1, "num_ctx": 4096,
            "num_predict": 2048, "prompt_cache": "avoid", "api_key_env": None,
            "submitter_handle": "unnamed", "device_tag": "unnamed-device", "cell_id_prefix": None,
            "run_id": None, "out_dir": None, "out_dir_typed": False, "wait": None,
            **dict.fromkeys(("retry_failed", "no_hostname", "no_calibration", "probe", "smoke",
                             "plan", "rehearse", "detach", "json", "quiet"), False)})

    def test_what_a_manifest_keeps_is_open_until_it_is_settled(self):
        open_ones = {name for name, value in vars(parse(settle=False)).items() if value is None}
        kept = {knob.dest for knob in KNOBS.values() if knob.kept}
        self.assertEqual(kept, {
            "target_url", "models", "phases", "repeats", "lanes", "timeout", "temperature",
            "num_ctx", "num_predict", "prompt_cache", "submitter_handle", "device_tag",
            "cell_id_prefix", "no_hostname", "smoke"})
        self.assertEqual(open_ones - kept, {"api_key_env", "run_id", "out_dir", "wait"})
        self.assertEqual(kept - open_ones, set())

    def test_what_was_typed_is_not_settled_over(self):
        args = parse("--temperature", "0", "--repeats", "2")
        self.assertEqual((args.temperature, args.repeats, args.lanes), (0.0, 2, 4))

    def test_every_bad_value_is_refused_in_one_line_that_says_what_to_type(self):
        for flag, cases in REFUSED.items():
            for value, message in cases:
                with self.subTest(flag, value=value):
                    code, err = refusal(flag, value)
                    self.assertEqual(code, 2)
                    self.assertRegex(err, rf"\Arun_benchmark: {flag}: .*{re.escape(message)}.*; "
                                     r"--help lists the options\n\Z")

    def test_a_key_that_was_typed_by_mistake_is_not_repeated(self):
        for words in (("--api-key-env", KEY), ("--target-url", f"http://u:{KEY}@h")):
            self.assertNotIn(KEY, refusal(*words)[1])

    def test_nothing_that_was_typed_reaches_the_terminal_unescaped(self):
        evil = "\x1b[31m\r\u202e\u00e9\n"
        for words in ([[flag, evil] for flag in REFUSED] + [[evil], ["--" + evil], ["--js", evil]]):
            with self.subTest(words):
                code, err = refusal(*words)
                self.assertEqual(code, 2)
                self.assertRegex(err, r"\A[\x20-\x7e]+\n\Z")

    def test_a_flag_is_not_guessed_from_its_begin(self):
        for words in (("--model", "x"), ("--quie",), ("x",), ("--repeats",)):
            self.assertEqual(refusal(*words)[0], 2, words)


class Targets(unittest.TestCase):
    def test_a_base_url_may_end_as_people_type_it(self):
        for text, expected in (
                ("http://h", ("http://h:80", "http", "h", 80, "")),
                ("http://h/", ("http://h:80", "http", "h", 80, "")),
                ("http://h/v1", ("http://h:80", "http", "h", 80, "")),
                ("http://h/v1/", ("http://h:80", "http", "h", 80, "")),
                ("h:8080", ("http://h:8080", "http", "h", 8080, "")),
                ("HTTPS://H.example", ("https://h.example:443", "https", "h.example", 443, "")),
                ("https://h:1/api/v1", ("https://h:1/api", "https", "h", 1, "/api")),
                ("http://h/v1/x", ("http://h:80/v1/x", "http", "h", 80, "/v1/x")),
                ("[::1]:8080", ("http://[::1]:8080", "http", "::1", 8080, ""))):
            self.assertEqual(cli.parse_target(text), cli.Target(*expected), text)


class Combinations(unittest.TestCase):
    def refuse(self, words: str) -> Optional[str]:
        try:
            cli.require_valid_combination(parse(*words.split(), settle=False))
        except HarnessError as stop:
            self.assertEqual(stop.exit_code, 2)
            return str(stop)
        return None

    def test_what_excludes_each_other_is_refused(self):
        for words, message in (
                ("--probe --plan", "--probe and --plan exclude each other; type one of them"),
                ("--smoke --probe --rehearse",
                 "--probe and --rehearse and --smoke exclude each other; type one of them"),
                ("--wait 1 x --smoke", "--smoke and --wait exclude each other; type one of them"),
                ("--plan --smoke", "--plan and --smoke exclude each other; type one of them"),
                ("--detach --probe", "--detach is for runs; type --probe without it"),
                ("--detach --plan", "--detach is for runs; type --plan without it"),
                ("--detach --wait 1 x", "--detach is for runs; type --wait without it"),
                ("--rehearse --target-url http://h",
                 "--rehearse asks its own endpoint; type it without --target-url"),
                ("--retry-failed",
                 "--retry-failed goes on with a run; type its id behind --run-id")):
            self.assertEqual(self.refuse(words), message, words)

    def test_what_goes_together_goes(self):
        for words in ("", "--rehearse --smoke", "--detach --smoke", "--detach --rehearse",
                      f"--retry-failed --run-id {RUN_ID}", "--probe --target-url http://h --json"):
            self.assertIsNone(self.refuse(words), words)

    def test_a_key_is_read_from_the_variable_that_is_named_and_from_no_other(self):
        environment = {"OPENAI_API_KEY": "other", "LLM_KEY": KEY, "SPACED": "a b", "EMPTY": ""}
        self.assertIsNone(cli.api_key(parse(), environment))
        self.assertEqual(cli.api_key(parse("--api-key-env", "LLM_KEY"), environment), KEY)
        for name, said in (("SPACED", "holds a space or another character that no key has"),
                           ("EMPTY", "is not set"), ("NOWHERE", "is not set")):
            with self.assertRaises(HarnessError) as raised:
                cli.api_key(parse("--api-key-env", name), environment)
            self.assertEqual(str(raised.exception),
                             f"--api-key-env {name}: that variable {said}")

    def test_seconds_are_a_number(self):
        self.assertEqual([cli.wait_seconds(parse("--wait", s, "x")) for s in ("0", "1.5")],
                         [0.0, 1.5])
        for seconds in ("-1", "nan", "86401", "\x1b"):
            with self.assertRaisesRegex(HarnessError, r"\A--wait: '[\x20-\x7e]+' is not a number from 0 to "
                                        r"86400; type for example --wait 100 RUN\Z"):
                cli.wait_seconds(argparse.Namespace(wait=[seconds, "x"]))


# --- what is printed and published ---------------------------------------------------------------
PRIVATE = ("--target-url", "http://10.1.2.3:8080/secret", "--out-dir", "/mnt/bob/runs",
           "--api-key-env", "BOBS_KEY")


def settled(*words: str) -> argparse.Namespace:
    """Parsed as the runner does it."""
    args = parse(*words)
    args.out_dir_typed = args.out_dir is not None
    args.out_dir = args.out_dir or run_benchmark.DEFAULT_OUT
    return args


class Commands(unittest.TestCase):
    def test_what_goes_on_with_a_run_holds_its_id_and_what_its_manifest_does_not(self):
        for words, expected in (
                ((), ""), (("--phases", "all", "--quiet", "--json", "--timeout", "5"), ""),
                (("--target-url", "http://127.0.0.1:11434"), ""), (("--no-calibration",),
                                                                  " --no-calibration"),
                (PRIVATE, " --target-url http://10.1.2.3:8080/secret --api-key-env BOBS_KEY "
                 "--out-dir /mnt/bob/runs"),
                (("--out-dir", "my runs"), " --out-dir 'my runs'"),
                (("--rehearse", "--out-dir", "x", "--detach"), " --out-dir x --rehearse")):
            self.assertEqual(cli.resume_command(settled(*words), CANONICAL, RUN_ID),
                             f"python3 harness/run_benchmark.py --run-id {RUN_ID}{expected}")

    def test_what_asks_failed_calls_again_says_so(self):
        self.assertEqual(cli.resume_command(settled(), CANONICAL, RUN_ID, retry_failed=True),
                         f"python3 harness/run_benchmark.py --run-id {RUN_ID} --retry-failed")

    def test_every_printed_command_is_taken_again(self):
        args = settled(*PRIVATE, "--no-calibration", "--out-dir", "a 'b' $c")
        for command in (cli.resume_command(args, CANONICAL, RUN_ID),
                        cli.resume_command(args, CANONICAL, RUN_ID, retry_failed=True),
                        cli.wait_command(args, "100", RUN_ID),
                        cli.follow_command("/mnt/my runs/run-x")):
            words = shlex.split(command)
            self.assertEqual(words[:2], ["python3", "harness/run_benchmark.py"])
            again = settled(*words[2:])
            cli.require_valid_combination(again)
            if again.run_id:
                self.assertEqual(cli.resume_command(again, CANONICAL, RUN_ID,
                                                      again.retry_failed), command)

    def test_what_follows_a_run(self):
        self.assertEqual(cli.wait_command(settled(), "100", RUN_ID),
                         f"python3 harness/run_benchmark.py --wait 100 {RUN_ID}")
        self.assertEqual(cli.wait_command(settled("--out-dir", "my runs"), "9", RUN_ID),
                         f"python3 harness/run_benchmark.py --wait 9 {RUN_ID} --out-dir 'my runs'")

    def test_the_same_run_in_the_background(self):
        words = ["--detach", "--phases", "all", "--quiet"]
        self.assertEqual(cli.detached_words(settled(*words), words, RUN_ID),
                         ["--phases", "all", "--quiet", "--run-id", RUN_ID])
        words = ["--rehearse", "--detach"]
        args = settled(*words)
        args.out_dir, args.out_dir_typed = "/tmp/x", True
        self.assertEqual(cli.detached_words(args, words, RUN_ID),
                         ["--rehearse", "--run-id", RUN_ID, "--out-dir", "/tmp/x"])

    def test_every_flag_that_names_a_place_or_a_variable_is_private(self):
        self.assertEqual({flag for flag, knob in KNOBS.items() if knob.private},
                         {"--target-url", "--api-key-env", "--out-dir"})


def cpu_of_children_s() -> float:
    """CPU time of all programs started so far that have ended."""
    used = os.times()
    if resource is None:
        return used.children_user + used.children_system
    fine = resource.getrusage(resource.RUSAGE_CHILDREN)
    return fine.ru_utime + fine.ru_stime


# --- help ----------------------------------------------------------------------------------------
class Help(unittest.TestCase):
    maxDiff = None

    def test_help_comes_at_once(self):
        def took(*words: str) -> tuple[float, float]:
            """(seconds, seconds of CPU) of a program."""
            begun_s, before_s = time.perf_counter(), cpu_of_children_s()
            subprocess.run([sys.executable, *words], check=True, stdin=subprocess.DEVNULL,
                           stdout=subprocess.DEVNULL)
            return time.perf_counter() - begun_s, cpu_of_children_s() - before_s

        # Taken in turn, and of the CPU besides: others may have the machine at any moment.
        rounds = [(took("-c", "pass"), took(str(runs.HARNESS / "run_benchmark.py"), "--help"))
                  for _ in range(5)]
        bare_s = statistics.median(bare[1] for bare, _ in rounds)
        help_s = min(statistics.median(full[i] for _, full in rounds) for i in (0, 1))
        self.assertLessEqual(help_s, max(HELP_S, BARE_STARTS * bare_s))

    def text(self) -> str:
        return run_benchmark.build_parser().format_help()

    def test_every_flag_says_what_it_is_for_with_default_and_unit(self):
        told = re.sub(r"\s+", " ", self.text())
        for flag, knob in KNOBS.items():
            self.assertTrue(knob.text, flag)
            self.assertIn(f" {flag} ", told)
            self.assertIn(re.sub(r"\s+", " ", cli._help_of(knob)).replace("%%", "%"), told)
        for words in ("(default http://127.0.0.1:11434)", "(default 360 s)", "(default 0.1)",
                      "(default 4096 tokens)", "(default 2048 tokens)", "(default hello,5q,20q)",
                      "(default avoid)", "(default 1 times)", "(default 4 calls at once)"):
            self.assertIn(words, told)

    def test_it_reads_well_in_a_terminal(self):
        lines = self.text().splitlines()
        self.assertEqual([line for line in lines if len(line) > WIDE], [])
        self.assertEqual(lines[0], "usage: python3 harness/run_benchmark.py [options]")
        self.assertIn("exit codes:", lines)
        for name in suites.PHASES:
            self.assertIn(name, self.text())

    def test_every_exit_code_is_told(self):
        codes = self.text().partition("exit codes:")[2]
        self.assertEqual(re.findall(r"\b(\d+)(?:/(\d+))?(?: \(--wait\))? [a-z]", codes),
                         [("0", ""), ("1", ""), ("2", ""), ("3", ""), ("4", ""), ("5", ""),
                          ("130", "143")])

    def test_the_documents_table_has_a_row_for_every_flag(self):
        lines = cli.flags_markdown(CANONICAL).splitlines()
        self.assertEqual(len(lines), 2 + len(KNOBS))
        self.assertTrue(cli.flags_markdown(CANONICAL).endswith(" |\n"))
        self.assertEqual(lines[:3] + [line for line in lines if "--timeout" in line or
                                      "--wait" in line or "--quiet" in line], [
            "| flag | default | unit | what it does |", "| --- | --- | --- | --- |",
            "| `--target-url URL` | `http://127.0.0.1:11434` |  | base URL of the endpoint, with "
            "or without /v1 |",
            "| `--timeout S` | `360` | s | cap of one call, name look-up, connection and waiting "
            "included |",
            "| `--wait SECONDS RUN` |  | s | follow a run until it ends or the time is up |",
            "| `--quiet` |  |  | no progress on standard error |"])

    def test_the_fixed_flags_are_all_there(self):
        fixed = ("--target-url --models --cell-id-prefix --phases --timeout --temperature "
                 "--num-ctx --num-predict --probe --smoke --run-id --out-dir --submitter-handle "
                 "--device-tag")
        self.assertEqual(set(fixed.split()) - set(KNOBS), set())
