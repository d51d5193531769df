"""Text for people: safe, aligned, and harmless to the programs that read it."""
from __future__ import annotations

import contextlib
import csv
import io
import os
import re
import shlex
import subprocess
import sys
import unittest
from unittest import mock

from core import text
from tests import runs

TITLES = ("#", "device", "hardware", "rate", "flags")
ROWS = [["1", "mac-m1-8gb", "Apple M1, 8 threads", "100", ""],
        ["12", "desktop", "AMD Ryzen 9", "9", "outliers"]]


class Tables(unittest.TestCase):
    def test_numbers_are_aligned_to_the_right(self):
        self.assertEqual(text.fit_table(TITLES, ROWS, (0, 3), 80), [
            " #  device      hardware             rate  flags",
            " 1  mac-m1-8gb  Apple M1, 8 threads   100",
            "12  desktop     AMD Ryzen 9             9  outliers"])

    def test_wide_rows_continue_on_indented_lines(self):
        self.assertEqual(text.fit_table(TITLES, ROWS, (0, 3), 30), [
            " #  device", "  hardware             rate", "  flags",
            " 1  mac-m1-8gb", "  Apple M1, 8 threads   100",
            "12  desktop", "  AMD Ryzen 9             9", "  outliers"])

    def test_no_line_is_wider_than_asked(self):
        rows = [*ROWS, ["3", "x" * 99, "some words " * 9, "1", ""]]
        for width in range(text.NARROWEST, 90):
            with self.subTest(width):
                lines = text.fit_table(TITLES, rows, (0, 3), width)
                self.assertLessEqual(max(map(len, lines)), width)

    def test_empty_columns_are_left_out(self):
        rows = [[*row[:4], ""] for row in ROWS]
        self.assertNotIn("flags", text.fit_table(TITLES, rows, (0, 3), 80)[0])

    def test_wide_letters_take_two_columns_and_combining_marks_none(self):
        rows = [["\u6a21\u578b", "1"], ["llama", "22"], ["e\u0301t\u00e9", "3"]]
        self.assertEqual(text.align_columns(rows, (1,)), [
            "\u6a21\u578b    1", "llama  22", "e\u0301t\u00e9     3"])
        for sentence in ("\u6a21\u578b" * 30, "a \u6a21\u578b two " * 9, "e\u0301" * 19 + " word"):
            with self.subTest(sentence):
                lines = text.wrapped(sentence, 20, "  ")
                self.assertLessEqual(max(map(text.columns_of, lines)), 20)
                self.assertEqual("".join(lines).replace(" ", ""), sentence.replace(" ", ""))

    def test_sentences_are_wrapped_at_words(self):
        self.assertEqual(text.wrapped("one two three four-five", 20, "  "),
                         ["one two three", "  four-five"])
        self.assertEqual(text.wrapped("a " + "x" * 30, 20, "  "), ["a", "  " + "x" * 30])
        self.assertEqual(text.wrapped("", 20), [""])


class Values(unittest.TestCase):
    def test_numbers(self):
        for value, shown in ((None, "-"), (0, "0"), (0.0004, "4.0e-04"), (0.012345, "0.0123"),
                             (7.0, "7"), (84.06, "84.1"), (99.96, "100"), (12345.6, "12346")):
            with self.subTest(value):
                self.assertEqual(text.format_number(value), shown)

    def test_columns_of_numbers_have_equally_many_decimals(self):
        for values, shown in (([70, 69.8, None, 24], ["70.0", "69.8", "-", "24.0"]),
                              ([1698.2, 0.123, 0], ["1698.20", "0.12", "0.00"]),
                              ([500, 99.96], ["500", "100"]), ([None], ["-"])):
            self.assertEqual(text.number_column(values), shown)
        self.assertEqual(text.interval_column([
            {"median": 84.06, "ci_low": 80.2, "ci_high": 99},
            {"median": 7.5, "ci_low": None, "ci_high": None}]), ["84.06 [80.20-99.00]", " 7.50"])

    def test_times_are_in_seconds_where_milliseconds_are_unreadable(self):
        for time_ms, shown in ((None, "-"), (5.9, "5.90 ms"), (697.2, "697 ms"),
                               (16357, "16.4 s"), (999.6, "1.00 s")):
            self.assertEqual(text.time_text(time_ms), shown)

    def test_durations(self):
        for seconds, shown in ((0.4, "0 s"), (89, "89 s"), (91, "2 min"), (3600, "60 min"),
                               (12000, "3 h 20 min")):
            with self.subTest(seconds):
                self.assertEqual(text.duration(seconds), shown)

    def test_fields_have_a_title_and_their_unit(self):
        for field, value, title, shown in (
                ("memory.capacity_bytes", 8 * 2 ** 30, "memory capacity", "8 GiB"),
                ("file_bytes", 144_000_000, "file size", "137 MiB"),
                ("cache_l3_kib", 307200, "cache l3", "300 MiB"),
                ("max_mhz", 3200, "max", "3,200 MHz"), ("unified", True, "unified", "yes"),
                ("unified", None, "unified", "-"), ("model", "M1", "model", "M1"),
                ("swap_bytes", 0, "swap", "0 bytes"), ("clock_ghz", 3.5, "clock ghz", "3.5"),
                ("parameters_count", 134515008, "parameters", "134,515,008"),
                ("instruction_sets", ["avx", "fma"], "instruction sets", "avx fma"),
                ("context_effective_tokens", 4096, "context effective", "4,096 tokens")):
            with self.subTest(field):
                self.assertEqual((text.field_title(field), text.field_text(field, value)),
                                 (title, shown))


class Harmless(unittest.TestCase):
    def test_printable_escapes_what_a_terminal_would_obey(self):
        for given, shown in (("plain", "plain"), ("a\nb", "a\\nb"), ("\x1b[31m", "\\x1b[31m"),
                             ("\u202egnp", "\\u202egnp"), ("J\u00fcrgen", "J\\xfcrgen")):
            with self.subTest(shown):
                self.assertEqual(text.printable(given), shown)
        self.assertEqual(text.printable("x" * 9, 4), "xxxx...")

    def test_code_spans_cannot_be_left(self):
        for given, shown in (("plain", "`plain`"), ("", ""), ("  ", ""), ("a|b", "`a\\x7cb`"),
                             ("`x`", "`\\x60x\\x60`"), ("<!-- x", "`\\x3c!-- x`"),
                             ("[a](http://b) @c #1", "`[a](http://b) @c #1`"), ("a\nb", "`a\\nb`")):
            with self.subTest(given):
                self.assertEqual(text.code_span(given), shown)

    def test_markdown_aligns_numbers_to_the_right(self):
        self.assertEqual(text.markdown_table(("a", "b"), [("x", "1")], (1,)),
                         "| a | b |\n| --- | --: |\n| x | 1 |\n")

    def test_csv_holds_no_formula(self):
        for cell in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "'=1", "\"=1", "\n=1",
                     "\uff1d1", "\u3000=1"):
            with self.subTest(cell):
                [_, [shown]] = csv.reader(io.StringIO(text.csv_text(["x"], [[cell]])))
                self.assertTrue(shown.startswith("'"), shown)

    def test_csv_keeps_other_text_and_numbers(self):
        table = text.csv_text(["a", "b", "c", "d"], [["mac-m1", -1.5, None, 'say "hi", ok'],
                                                     ["x\r\ny\x00", 2, None, ""]])
        self.assertEqual(table, '"a","b","c","d"\n"mac-m1",-1.5,"","say ""hi"", ok"\n'
                                '"x\\r\\ny\\x00",2,"",""\n')


class CommandLines(unittest.TestCase):
    def test_lines_are_wrapped_at_words_and_commands_where_a_shell_joins_them(self):
        command = text.command("x", "--target-url", "http://127.0.0.1:8080", "--device-tag", "m1")
        for width in (40, 60, 80):
            lines = text.fit_lines(f"short\n    some words and more {'words ' * 9}\n"
                                   f"next: {command}", width).splitlines()
            self.assertLessEqual(max(map(len, lines)), width)
            at = -1 if lines[-1].startswith("next: ") else lines.index("next:")
            typed = "\n".join(lines[at:]).replace("next:", "").replace("\\\n", "")
            self.assertEqual(shlex.split(typed), shlex.split(command))
        self.assertEqual(text.fit_lines("a " * 99, None), "a " * 99)
        prose = text.fit_lines(f"see: {command}; it's {'long ' * 9}", 40)
        self.assertNotIn("\\", prose)

    def test_long_paths_go_on_after_a_slash(self):
        path = "/".join(["folder"] * 8)
        self.assertEqual(text.wrapped(f"in {path}", 30, "  "),
                         ["in folder/folder/folder/", "  folder/folder/folder/folder/", "  folder"])
        for typed in (path, f"a b's/{path}"):
            lines = text.command_lines(text.command("x", typed, "--json"), 30)
            self.assertEqual(self.typed_in("\n".join(lines)),
                             ["python3", "harness/x.py", typed, "--json"])
            self.assertLessEqual(max(map(len, lines)), 30)

    def typed_in(self, command: str) -> list[str]:
        """The words that a shell makes of a command; quotes keep the end of a line."""
        outside = re.sub(r"\\\n|('[^']*'|\"[^\"]*\")", lambda found: found[1] or "", command)
        return shlex.split(outside)

    def test_width_is_that_of_the_terminal_or_of_columns(self):
        for columns, is_terminal, width in (("", False, None), ("80", False, 80), ("80", True, 80),
                                            ("odd", False, None), ("3", True, text.NARROWEST),
                                            ("", True, 80)):
            stream = io.StringIO()
            with mock.patch.dict(os.environ, COLUMNS=columns), \
                    mock.patch.object(stream, "isatty", return_value=is_terminal):
                self.assertEqual(text.width_of(stream), width)

    def test_help_ends_with_the_exit_codes(self):
        about = "Do it.\n\n  python3 harness/x.py\n\nexit codes:\n  0 done\n"
        for launcher, python in ((None, "python3"), ("C:\\py.exe", "py"), ("", "python")):
            with self.subTest(python), mock.patch("shutil.which", lambda _, at=launcher: at), \
                    mock.patch.object(text, "ON_WINDOWS", launcher is not None):
                shown = text.Parser("x", about, "PATH").format_help()
                self.assertTrue(shown.startswith(
                    f"usage: {python} harness/x.py PATH\n\nDo it.\n\n  {python} harness/x.py\n"))
                self.assertTrue(shown.endswith("exit codes:\n  0 done\n"), shown)

    def test_an_error_is_one_safe_line_and_exit_code_2(self):
        err = io.StringIO()
        parser = text.Parser("x", "Do it.")
        parser.add_argument("--count", type=int)
        with contextlib.redirect_stderr(err), self.assertRaises(SystemExit) as ended:
            parser.parse_args(["--count", "\x1b[31m"])
        self.assertEqual((ended.exception.code, err.getvalue().count("\n")), (2, 1))
        self.assertTrue(err.getvalue().startswith("x: --count: "))
        self.assertNotIn("\x1b", err.getvalue())

    def test_parser_words_what_argparse_refuses(self):
        parser = text.Parser("x", "About.\n\nexit codes:\n  0 done")
        parser.add_argument("folder", metavar="FOLDER")
        parser.add_argument("--phases", nargs=2)
        parser.add_argument("--lanes")
        for words, message in (
                (["f", "--phase", "a"], "unknown argument: --phase a (did you mean --phases?)"),
                (["f", "g"], "unknown argument: g"), ([], "FOLDER is missing"),
                (["f", "--lanes"], "--lanes: a value is missing"),
                (["f", "--phases", "a"], "--phases: 2 values are needed")):
            with contextlib.redirect_stderr(io.StringIO()) as err, self.assertRaises(SystemExit):
                parser.parse_args(words)
            self.assertEqual(err.getvalue(), f"x: {message}; --help lists the options\n")

    def test_printed_commands_can_be_typed(self):
        for system, shown in (("posix", "python3 harness/x.py --out 'a b' c:7b"),
                              ("nt", 'py harness/x.py --out "a b" c:7b')):
            with self.subTest(system), mock.patch("shutil.which", lambda _: "py.exe"), \
                    mock.patch.object(text, "ON_WINDOWS", system == "nt"):
                self.assertEqual(text.command("x", "--out", "a b", "c:7b"), shown)

    def test_words_are_quoted_as_powershell_reads_them(self):
        for word, shown in (
                ("hf.co/x@y:7b", "hf.co/x@y:7b"), ("hello,5q", '"hello,5q"'),
                ("C:\\runs\\jörg", '"C:\\runs\\jörg"'),
                ("--out-dir", "--out-dir"), ("-m.x", '"-m.x"'), ("-", '"-"'), ("=", '"="'),
                ("a.b=1+2", "a.b=1+2"), ("C:\\a b\\", '"C:\\a b\\\\"'),
                ("C:\\a b\\\\", '"C:\\a b\\\\\\\\"'),
                ("@cf/meta", '"@cf/meta"'), ("a'b", '"a\'b"'), ("a;b&c", '"a;b&c"'), ("", '""'),
                ("$HOME\u2019s", "'$HOME\u2019\u2019s'"), ("a`b'", "'a`b'''"),
                ("\u201ca\u201d", "'\u201ca\u201d'")):
            with self.subTest(word), mock.patch.object(text, "ON_WINDOWS", True):
                self.assertEqual(text.shell_word(word), shown)

    def test_long_commands_continue_where_a_shell_joins_them(self):
        typed = text.command("x", "folder" * 3, "--set", "a=b c", "--set", "d=1")
        for width in (20, 40, 60, 200):
            lines = text.command_lines(typed, width)
            joined = "\n".join(lines).replace("\\\n", "")
            self.assertEqual(shlex.split(joined), shlex.split(typed))
            self.assertIn("--set 'a=b c'", "\n".join(lines))
        self.assertLessEqual(max(map(len, text.command_lines(typed, 40))), 40)
        with mock.patch.object(text, "ON_WINDOWS", True):
            for one in (typed, "py harness/x.py --out-dir C:\\runs\\"):
                self.assertEqual(text.command_lines(one, 20), ["  " + one])


class StandardOutput(unittest.TestCase):
    def test_characters_outside_the_encoding_are_escaped(self):
        for encoding, expected in (("ascii", rb"\xe9\u4e2d" + b"\n"),
                                   ("latin-1", b"\xe9" + rb"\u4e2d" + b"\n"),
                                   ("utf-8", "\u00e9\u4e2d\n".encode())):
            raw = io.BytesIO()
            with contextlib.redirect_stdout(io.TextIOWrapper(raw, encoding, newline="\n")):
                text.print_safe("\u00e9\u4e2d")
                self.assertEqual(raw.getvalue(), expected)

    def test_closed_pipe_ends_nothing(self):
        program = ("import sys\nfrom core.text import print_safe\nsys.stdin.read()\n"
                   "print_safe('x')\nprint_safe('y' * 99999)\nprint('went on', file=sys.stderr)")
        process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=runs.HARNESS, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        process.stdout.close()
        process.stdout = None
        self.assertEqual(process.communicate("", runs.LIMIT_S), (None, "went on\n"))
        self.assertEqual(process.returncode, 0)


if __name__ == "__main__":
    unittest.main()
