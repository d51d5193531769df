"""compare_submissions: its output formats, refusals and HTML page."""
from __future__ import annotations

import base64
import contextlib
import csv
import gzip
import hashlib
import html.parser
import io
import json
import os
import re
import tempfile
import unittest
from typing import Any, Optional
from unittest import mock

import compare_submissions
from compare import folders, headline, run_detail
from compare import page as pages
from complete import attestation
from core import ledger, metrics, run_summary
from core.text import printable
from tests import made_submissions, runs
from tests.compare.test_ranking import cell, documents, known, set_at
from tests.made_submissions import DESKTOP, GIB, MAC, Spec

Json = dict[str, Any]
HOSTILE = "</script><img src=x onerror=alert(1)>|`@me`\u202e\x1b[31m=1+1"


def run_program(*words: str, columns: Optional[int] = None) -> tuple[int, str, str]:
    """(exit code, standard output, standard error) of the program."""
    out, err = io.StringIO(), io.StringIO()
    environment = {} if columns is None else {"COLUMNS": str(columns)}
    with mock.patch.dict(os.environ, environment), contextlib.redirect_stdout(out), \
            contextlib.redirect_stderr(err):
        if columns is None:
            os.environ.pop("COLUMNS", None)
        try:
            code = compare_submissions.main(words)
        except SystemExit as stop:
            code = int(stop.code or 0)
    return code, out.getvalue(), err.getvalue()


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self) -> None:
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.root = temporary.name

    def put(self, *made: Json, lines: Optional[bytes] = None) -> str:
        """Write manifest, metadata and hardware; the folder."""
        folder = made_submissions.folder_of(self.root, {
            **made[0], "submitter_handle": made[1]["submitter_handle"],
            "device_tag": made[1]["device_tag"]})
        os.makedirs(folder)
        for name, document in zip(folders.DOCUMENTS, made):
            with open(os.path.join(folder, name), "w", encoding="ascii") as file:
                json.dump(document, file)
        if lines is not None:
            with open(os.path.join(folder, ledger.LEDGER), "wb") as ledger_file:
                ledger_file.write(lines)
        return folder

    def put_three(self) -> None:
        """Two machines, one with two runs of which one is not ranked."""
        def small(made: list[Json]) -> list[Json]:
            for name in ("ttft_ms", "tpot_ms"):
                made[1]["cells"][0]["metrics"][name].update(
                    {"median": 12.5, "ci_low": None, "ci_high": None})
            made[1]["cells"][0]["checks"] = {"passed": 3, "total": 4}
            return made

        self.put(*small(documents(cell(flags=["outliers"]), run=1)))
        self.put(*small(documents(cell(decode=70.0, flags=["truncated"]), run=2)))
        self.put(*small(documents(cell(decode=400.0), run=3, handle="bob", tag="desktop-rtx4090",
                                  probed=DESKTOP)))


class Table(Case):
    def put_headlines(self) -> None:
        """put_three as headlines: the numbers of a run of 20q, on the Mac also a long prompt."""
        for run, (decode, handle, tag, probed) in enumerate((
                (100.0, "ada", "mac-m1-8gb", MAC), (110.0, "eve", "my-mac", MAC),
                (400.0, "bob", "desktop-rtx4090", DESKTOP)), 1):
            made = documents(cell(decode=decode), run=run, handle=handle, tag=tag, probed=probed)
            long_ttft = {"median": 16357.1} if probed is MAC else None
            made[1]["headlines"] = [{"model": made[1]["models"][0]["model"], "lanes": None,
                                     "decode_tokens_per_s": {"median": decode},
                                     "long_ttft_ms": long_ttft}]
            self.put(*made)

    def test_table_has_a_row_per_machine_and_model(self) -> None:
        self.put_headlines()
        code, out, err = run_program(self.root, columns=80)
        lines = [line.split() for line in out.split("\n")]
        self.assertEqual((code, err), (0, ""))
        self.assertIn("8-bit", lines[0])
        self.assertEqual([(line[0], line[-5:]) for line in lines[3:5]], [
            ("1", ["400.0", "-", "-", "-", "1/1"]), ("2", ["105.0", "-", "16.36", "-", "2/2"])])
        self.assertEqual({"Q8_0" in line for line in lines[3:5]}, {True})
        self.assertIn("3 submissions.", out)

    def test_energy_and_memory_have_columns_where_a_row_has_them(self) -> None:
        self.put_headlines()
        made = documents(cell(decode=90.0), run=9, probed=DESKTOP)
        made[1]["headlines"][0].update({
            "energy": {"joules_per_output_token": 1.256}, "memory": {"peak_card_bytes": 5 * GIB}})
        self.put(*made)
        _, out, _ = run_program(self.root, columns=100)
        self.assertRegex(out, r"1\.26\W+5\.0")
        _, out, _ = run_program(self.root, "--sort", "energy", columns=100)
        self.assertIn("J per token: energy per output token.", re.sub(r"\s+", " ", out))
        self.assertEqual(out.count("Rows without a # lack the number that ranks."), 1)

    def test_a_narrow_table_leaves_out_the_engine_then_the_last_numbers(self) -> None:
        self.put_headlines()
        made = documents(cell(decode=90.0), run=9, handle="eve", probed=DESKTOP)
        made[1]["runtime"]["name"] = known("vLLM")
        made[1]["headlines"][0]["memory"] = {"peak_card_bytes": 5 * GIB}
        self.put(*made)
        wide, middle, narrow = (run_program(self.root, columns=columns)[1]
                                for columns in (100, 72, 62))
        for text, in_wide, in_middle, in_narrow in (
                ("vLLM +1", True, False, False), ("+1: also runs", True, False, False),
                ("card GiB: peak", True, True, False), ("RTX 4090 24 GB", True, True, True)):
            with self.subTest(text):
                self.assertEqual([text in re.sub(r"\s+", " ", out)
                                  for out in (wide, middle, narrow)],
                                 [in_wide, in_middle, in_narrow])

    def test_history_and_wanted_are_printed_and_in_json(self) -> None:
        self.put_headlines()
        newer = documents(cell(decode=50.0), run=11)
        newer[1]["runtime"]["version"] = known("b9999")
        self.put(*newer)
        self.assertIn("slower", run_program(self.root, "--history")[1])
        self.assertIn("7-9 B", run_program(self.root, "--wanted")[1])
        found = json.loads(run_program(self.root, "--json")[1])
        self.assertEqual([one["version"] for one in found["history"][0]["versions"]],
                         ["6800", "9999"])
        self.assertIn("7-9 B", found["wanted"][0]["wanted"])

    def test_options_that_an_output_ignores_are_refused(self) -> None:
        for words in (("--history", "--model", "x"), ("--wanted", "--sort", "ttft"),
                      ("--html", "x", "--all-phases"), ("--vs", "a", "b", "--sort", "ttft")):
            with self.subTest(words):
                code, out, err = run_program(*words)
                self.assertEqual((code, out, err.count("\n")), (2, "", 1))
                other = [word for word in words if word.startswith("--")][1]
                self.assertIn(f"{words[0]} cannot be combined with {other}", err)

    def test_number_by_which_rows_are_sorted_is_shown(self) -> None:
        self.put_headlines()
        for metric, title in (("energy", "J per"), ("ttft", "TTFT"), ("load", "load")):
            _, out, _ = run_program(self.root, "--sort", metric, columns=80)
            self.assertIn(title, out.split("\n")[1])

    def test_left_out_runs_are_named_with_their_reasons(self) -> None:
        self.put_headlines()
        self.put(*documents(cell(decode=9.0, flags=["truncated"]), run=7, handle="zoe"))
        self.put(*documents(cell(flags=["truncated"]), run=8, tag="other", probed={
            **DESKTOP, "accelerators": []}))
        _, out, _ = run_program(self.root, columns=100)
        self.assertIn("Left out: 2 runs (truncated)", out)
        self.assertIn("    not ranked: truncated", out.split("\n"))

    def test_lines_fit_the_terminal(self) -> None:
        self.put_headlines()
        for columns in (80, 100, 131, 200):
            for words in ((), ("--all-phases",)):
                with self.subTest(columns, words=words):
                    _, out, _ = run_program(self.root, *words, columns=columns)
                    self.assertLessEqual(max(map(len, out.split("\n"))), columns)

    def test_phases_have_a_heading_and_reasons(self) -> None:
        self.put_three()
        code, out, err = run_program(self.root, "--all-phases", columns=300)
        lines = [line.split()[:2] for line in out.split("\n")]
        self.assertEqual((code, err), (0, ""))
        self.assertTrue(out.split("\n")[0].endswith(": 20q"))
        self.assertEqual(lines[1:6], [["#", "device"], ["1", "desktop-rtx4090"],
                                      ["2", "mac-m1-8gb"], ["-", "mac-m1-8gb"],
                                      ["not", "ranked:"]])
        self.assertIn("not ranked: 1 row, truncated", out)
        self.assertIn("outliers: A few calls were much faster", out)
        self.assertNotIn("prefill", out.split("\n")[1])

    def test_filter_without_matches_is_reported(self) -> None:
        self.put_three()
        for words in ((), ("--all-phases",), ("--markdown",), ("--json",)):
            code, out, err = run_program(self.root, "--model", "llama 3\x1b", *words)
            self.assertEqual((code, err), (0, "compare_submissions: no row matches --model "
                                           "'llama 3\\x1b'; leave it out to see all rows\n"))

    def test_filters_find_what_the_table_shows(self) -> None:
        self.put_headlines()
        older = documents(cell(decode=390.0), run=9, handle="eve", probed=DESKTOP)
        older[1]["runtime"]["name"] = known("vLLM")
        older[1]["headlines"][0]["model"] = older[1]["models"][0]["model"]
        self.put(*older)
        shown = run_program(self.root, columns=120)[1].split("\n")[0].partition(",")[0]
        for words in (("--model", shown), ("--hardware", "rtx 4090 24 gb"), ("--runtime", "vllm"),
                      ("--runtime", "llama.cpp")):
            with self.subTest(words):
                self.assertIn("RTX 4090 24 GB", run_program(self.root, *words, columns=120)[1])

    def test_filter_keeps_ranks(self) -> None:
        self.put_three()
        for words, at in (((), 3), (("--all-phases",), 2)):
            line = run_program(self.root, "--hardware", "m1-8gb", *words,
                               columns=300)[1].split("\n")[at]
            self.assertEqual(line.split()[0], "2", words)

    def test_sort_takes_known_names_only(self) -> None:
        self.put_three()
        code, _, err = run_program(self.root, "--sort", "beauty")
        self.assertEqual((code, err.count("\n")), (2, 1))
        self.assertIn("decode, prefill, ttft", err.replace("'", ""))

    def test_scoreboard_has_ranked_rows_only(self) -> None:
        self.put_headlines()
        self.put(*documents(cell(flags=["truncated"]), run=8, tag="other", probed={
            **DESKTOP, "accelerators": []}))
        code, out, err = run_program(self.root, "--markdown")
        self.assertEqual((code, err), (0, ""))
        rows = [line.strip("| ").split(" | ") for line in out.split("\n") if line[:1] == "|"]
        self.assertEqual([[row[0], *row[4:]] for row in rows[2:]], [
            ["1", "400.0", "-", "-", "-", "1/1"], ["2", "105.0", "-", "16.36", "-", "2/2"]])
        self.assertIn("Left out: 1 run (truncated)", out)


class Formats(Case):
    def test_csv_has_one_line_per_row_and_three_columns_per_number(self) -> None:
        self.put_three()
        code, out, err = run_program(self.root, "--csv")
        rows = [row for row in csv.DictReader(io.StringIO(out)) if row["phase"]]
        self.assertEqual((code, err, len(rows)), (0, "", 3))
        shown = ("rank", "device_tag", "decode_tokens_per_s", "decode_tokens_per_s_low",
                 "decode_tokens_per_s_high", "ttft_ms", "ttft_ms_low", "not_ranked",
                 "checks_passed", "flags", "run_ids")
        self.assertEqual([[row[name] for name in shown] for row in rows], [
            ["1", "desktop-rtx4090", "400.0", "368.033", "434.744", "12.5", "11.501", "", "3", "",
             "00000000-0000-0000-0000-000000000003"],
            ["2", "mac-m1-8gb", "100.0", "92.0082", "108.686", "12.5", "11.501", "", "3",
             "outliers",
             "00000000-0000-0000-0000-000000000001"],
            ["", "mac-m1-8gb", "70.0", "64.4058", "76.0801", "12.5", "11.501", "truncated", "3",
             "truncated",
             "00000000-0000-0000-0000-000000000002"]])

    def test_csv_without_rows_is_empty(self) -> None:
        self.put_three()
        self.assertEqual(run_program(self.root, "--csv", "--phase", "5q")[1].strip(), "")

    def test_json_lists_rows_and_submissions_left_out(self) -> None:
        self.put_three()
        broken = self.put(*documents(run=4, handle="eve"))
        os.unlink(os.path.join(broken, "hardware.json"))
        code, out, _ = run_program(self.root, "--json")
        found = json.loads(out)
        self.assertEqual(code, 1)
        self.assertEqual({name: found[name] for name in ("submissions", "left_out")}, {
            "submissions": 3, "left_out": [
                {"path": broken, "reason": "hardware.json: No such file or directory"}]})
        exact, headlines = ([row for row in found["rows"] if row["phase"] == phase]
                            for phase in ("20q", None))
        self.assertEqual([(row["rank"], row["device_tag"], row["not_ranked"]) for row in exact],
                         [(1, "desktop-rtx4090", []), (2, "mac-m1-8gb", []),
                          (None, "mac-m1-8gb", ["truncated"])])
        self.assertEqual([(row["rank"], row["machine_class"], row["runs"],
                           [one["reasons"] for one in row["runs_left_out"]])
                          for row in headlines],
                         [(1, "rtx 4090 24 GiB", 1, []), (2, "m1 8 GiB", 1, [["truncated"]])])

    def test_output_formats_exclude_each_other(self) -> None:
        code, _, err = run_program(self.root, "--csv", "--json")
        self.assertEqual((code, err.count("\n")), (2, 1))


class Hostile(Case):
    """Texts of a submission may contain anything."""

    def put_hostile(self, text: str = HOSTILE) -> str:
        made = documents(cell(model=text))
        for document, path in ((made[1], "models.0.model"),):
            set_at(document, path, text)
        for document, path in ((made[1], "models.0.quantization"), (made[1], "runtime.version"),
                               (made[1], "runtime.name"), (made[2], "cpu.model_name"),
                               (made[2], "system.model_name"), (made[2], "power.mode"),
                               (made[2], "accelerators.0.model_name")):
            set_at(document, path, known(text))
        folder = self.put(*made)
        made[1]["device_tag"] = made[1]["submitter_handle"] = text
        with open(os.path.join(folder, "metadata.json"), "w", encoding="ascii") as file:
            json.dump(made[1], file)
        return folder

    def test_terminal_output_is_printable_ascii(self) -> None:
        self.put_hostile()
        for columns, words in ((80, ()), (60, ("--all-phases",)), (400, ("--all-phases",))):
            _, out, _ = run_program(self.root, *words, columns=columns)
            self.assertTrue(all(line.isascii() and line.isprintable() for line in out.split("\n")))

    def test_markdown_keeps_columns_and_puts_text_in_code_spans(self) -> None:
        self.put_hostile()
        _, out, _ = run_program(self.root, "--markdown")
        head, line = out.split("\n")[0], out.split("\n")[4]
        self.assertEqual(len(re.findall(r"(?<!\\)\|", line)), 10)
        self.assertNotRegex(re.sub(r"`[^`]*`", "", head + line), r"[<>\[\]@`&\\]")

    def test_csv_cells_are_not_formulas(self) -> None:
        for text in ("=HYPERLINK(1)", "+1", "-1", "@x", "\t=1"):
            with self.subTest(text):
                self.put_hostile(text)
                [row, _] = list(csv.reader(io.StringIO(run_program(self.root, "--csv")[1])))[1:]
                self.assertEqual([c for c in row if c[:1] in "=+-@\t" and c], [])
                self.assertIn("'" + printable(text), row)
            self.setUp()

    def test_json_is_ascii(self) -> None:
        self.put_hostile()
        out = run_program(self.root, "--json")[1]
        self.assertTrue(out.isascii())
        self.assertEqual(json.loads(out)["rows"][0]["served_as"], [HOSTILE])

    def test_warning_is_one_printable_line(self) -> None:
        folder = self.put_hostile()
        with open(os.path.join(folder, "hardware.json"), "w", encoding="utf-8") as file:
            file.write('{"a": "\x1b[31m\u202e"')
        os.rename(folder, folder + "\n\x1b[2J")
        code, out, err = run_program(self.root)
        self.assertEqual((code, out), (2, ""))
        self.assertTrue(all(line.isascii() and line.isprintable() for line in err.split("\n")))
        self.assertEqual(err.count("\n"), 2)             # the warning, and that nothing is left

    def test_warning_about_a_broken_ledger_is_one_printable_line(self) -> None:
        folder = self.put(*documents(), lines=b"{}\n")
        os.rename(folder, folder + "\n\x1b[2J")
        _, _, err = run_program(self.root, "--html", os.path.join(self.root, "page.html"))
        self.assertEqual(err.count("\n"), 2)             # the warning, and what was written
        self.assertTrue(all(line.isprintable() for line in err.split("\n")))

    def test_page_shows_hostile_text_and_runs_none_of_it(self) -> None:
        self.put_hostile()
        path = os.path.join(self.root, "page.html")
        run_program(self.root, "--html", path)
        page = Page(path)
        self.assertIn(HOSTILE, page.index["texts"] + [page.index["runtimes"][0]["version"]])
        self.assertEqual(page.tags.count("img"), 0)
        self.assertEqual(page.tags.count("script"), 3)


class Reading(Case):
    def outcome(self, *words: str) -> tuple[int, list[str]]:
        """Exit code and lines of standard error, with ROOT for the folder."""
        code, _, err = run_program(*(words or (self.root,)))
        return code, [line.replace(printable(self.root), "ROOT") for line in err.splitlines()]

    def test_broken_submission_is_one_warning_and_the_rest_is_compared(self) -> None:
        self.put(*documents(run=1))
        whole = self.put(*documents(run=2, handle="eve"))
        cases = {
            "{": "metadata.json: Expecting property name enclosed in double quotes",
            "[" * 100_000: "metadata.json: ",
            '{"run_id": NaN}': "metadata.json: NaN is not JSON",
            '{"run_id": -Infinity}': "metadata.json: -Infinity is not JSON",
            "null": "run_id is missing",
            "{}": "run_id is missing",
            "\x00": "metadata.json: ",
            '{"run_id": ' + "9" * 5000 + "}": "digits|run_id: 9"}        # by Python's version
        for text, reason in cases.items():
            with self.subTest(text[:20]):
                with open(os.path.join(whole, "metadata.json"), "w", encoding="utf-8") as file:
                    file.write(text)
                code, [line] = self.outcome()
                self.assertEqual(code, 1)
                self.assertIn("left out ROOT/eve/mac-m1-8gb/run-", line)
                self.assertTrue(any(one in line for one in reason.split("|")), line)

    @runs.posix_only
    def test_links_and_pipes_are_not_opened(self) -> None:
        folder = self.put(*documents())
        path = os.path.join(folder, "hardware.json")
        os.unlink(path)
        os.symlink(os.devnull, path)
        self.assertIn("hardware.json: is not a plain file", self.outcome()[1][0])
        os.unlink(path)
        os.mkfifo(path)
        self.assertIn("hardware.json: is not a plain file", self.outcome()[1][0])

    def test_oversized_document_is_not_read(self) -> None:
        self.put(*documents())
        with mock.patch.object(folders, "MAX_DOCUMENT_BYTES", 100):
            self.assertIn("manifest.json: is larger than 100 bytes", self.outcome()[1][0])

    def test_copied_run_counts_once(self) -> None:
        self.put(*documents())
        self.put(*documents(handle="bob"))
        code, lines = self.outcome()
        self.assertEqual((code, len(lines)), (1, 1))
        self.assertIn("the same run as", lines[0])

    @runs.posix_only
    def test_linked_and_hidden_folders_are_skipped(self) -> None:
        folder = self.put(*documents())
        os.symlink(os.path.dirname(os.path.dirname(folder)), os.path.join(self.root, "again"))
        os.mkdir(os.path.join(self.root, ".hidden"))
        os.rename(folder, os.path.join(self.root, ".hidden", "run"))
        self.assertEqual(self.outcome()[0], 2)

    def test_several_folders_are_combined(self) -> None:
        one, two = self.put(*documents(run=1)), self.put(*documents(run=2, handle="bob"))
        _, out, _ = run_program(one, two, "--json")
        self.assertEqual(json.loads(out)["rows"][0]["runs"], 2)

    def test_nothing_to_compare_explains_what_a_submission_is(self) -> None:
        code, [line] = self.outcome()
        self.assertEqual(code, 2)
        self.assertIn("complete_submission.py", line)

    def test_missing_folder_is_named(self) -> None:
        self.assertEqual(self.outcome(os.path.join(self.root, "x")), (2, [
            "compare_submissions: ROOT/x: no such folder; pass the folder of a submission or one "
            "above it"]))

    def test_default_path_is_submissions(self) -> None:
        self.put(*documents())
        with mock.patch.object(compare_submissions, "DEFAULT_PATH", self.root):
            self.assertEqual(run_program()[0], 0)


class Versus(Case):
    def write(self, *specs: Spec) -> list[str]:
        folders = []
        for spec in specs:
            manifest = made_submissions.make_manifest(spec)
            made = made_submissions.complete(
                manifest, made_submissions.make_events(spec, manifest), spec.probed)
            folders.append(made_submissions.write(self.root, made))
        return folders

    def test_two_run_folders_are_compared(self) -> None:
        a, b = self.write(Spec(phases="20q"), Spec(2, handle="bob", phases="20q",
                                                   decode_ms_per_token=15))
        code, out, err = run_program("--vs", a, b)
        self.assertEqual((code, err), (0, ""))
        self.assertRegex(out, r"decode +0\.66\d \[.*\] +1 and 1  slower, hint")
        with mock.patch.object(compare_submissions, "DEFAULT_PATH", self.root):
            ids = [os.path.basename(folder) for folder in (a, b)]
            self.assertEqual(run_program("--vs", *ids), (0, out, ""))

    def test_side_is_a_list_or_a_folder_of_runs(self) -> None:
        specs = [Spec(i, phases="5q") for i in range(3)]
        slow = [Spec(i, handle="bob", phases="5q", decode_ms_per_token=15) for i in range(3)]
        folders = self.write(*specs, *slow)
        code, out, _ = run_program("--vs", ",".join(folders[:3]), os.path.join(self.root, "bob"),
                                   "--json")
        found = json.loads(out)
        self.assertEqual((code, len(found["a"]), len(found["b"])), (0, 3, 3))
        self.assertEqual([row["standing"] for row in found["verdicts"]
                          if row["quantity"] == "decode"], ["holds over runs"])

    def test_invalid_sides_are_refused_in_one_line(self) -> None:
        a, b = self.write(Spec(phases="5q"), Spec(2, phases="5q", models=("x", "y")))
        empty = os.path.join(self.root, "empty")
        os.mkdir(empty)
        cases = [((a, a), 2, "is on both sides; name it on one"),
                 ((f"{a},{a}", b), 2, "is on one side twice; name it once"),
                 ((a, "nowhere\x1b"), 2, "nowhere\\x1b: no such folder"),
                 ((a, ""), 2, "(nothing): no such folder"),
                 ((a, empty), 2, "contains no run"),
                 ((a, b), 1, "no model is on both sides: A has smollm2-135m; B has x, y"),
                 ((a, b, "--csv"), 2, "--vs cannot be combined with --csv"),
                 ((a, b, "--model", "x"), 2, "--vs cannot be combined with --model"),
                 ((a, b, "--html", "x"), 2, "--vs cannot be combined with --html"),
                 ((a, b, self.root), 2, "--vs cannot be combined with PATH")]
        for words, expected, message in cases:
            with self.subTest(message):
                code, out, err = run_program("--vs", *words)
                self.assertEqual((code, out, err.count("\n")), (expected, "", 1), err)
                self.assertIn(message, err)

    def test_broken_ledger_is_named_in_one_line(self) -> None:
        a, b = self.write(Spec(phases="5q"), Spec(2, phases="5q"))
        with open(os.path.join(b, ledger.LEDGER), "r+b") as file:
            file.write(b"\x1b[31m")
        code, out, err = run_program("--vs", a, b)
        self.assertEqual((code, out, err.count("\n")), (2, "", 1))
        self.assertTrue(err.strip().isprintable())
        os.unlink(os.path.join(b, ledger.LEDGER))
        code, _, err = run_program("--vs", a, b)
        self.assertEqual((code, err.count("\n")), (2, 1))
        self.assertIn("run.jsonl: No such file", err)


class Parser(html.parser.HTMLParser):
    """Collects tags, attributes, and the texts of style and script elements."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, Optional[str]]] = []
        self.raw: list[tuple[str, str]] = []
        self.within = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, Optional[str]]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag in ("style", "script"):
            kind = f"{tag} {dict(attrs).get('type', '')}".strip()
            self.raw.append((kind, dict(self.raw).get(kind, "") + "\n"))
            self.within = True

    def handle_endtag(self, tag: str) -> None:
        self.within = False

    def handle_data(self, data: str) -> None:
        if self.within:
            self.raw[-1] = self.raw[-1][0], self.raw[-1][1] + data


def unpacked(text: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(text)))


class Page:
    """A written page in its parts."""

    def __init__(self, path: str) -> None:
        with open(path, encoding="utf-8", newline="") as file:
            self.text = file.read()
        parser = Parser()
        parser.feed(self.text)
        parts = dict(parser.raw)
        self.tags, self.attributes = parser.tags, parser.attributes
        self.style, self.script = parts["style"][1:], parts["script"][1:]
        self.index, *packs = [unpacked(text) for text in parts["script text/plain"].split()]
        self.details = {self.index["runs"]["id"][number]: {
            name: held[at] for name, held in pack["runs"].items()}
            for pack, members in zip(packs, self.index["packs"])
            for at, number in enumerate(members)}
        self.facts = [fact for pack in packs for fact in pack["facts"]]


class PageFile(Case):
    def page(self, *words: str) -> Page:
        path = os.path.join(self.root, "page.html")
        self.code, _, self.err = run_program(self.root, "--html", path, *words)
        return Page(path)

    def put_runs(self, count: int = 3, day: int = 0, **spec: Any) -> list[Json]:
        out = []
        for i in range(count):
            made = made_submissions.make(Spec(i, day=day + i, phases="5q,parallel_same", **spec))
            made_submissions.write(self.root, made)
            out.append(made.manifest["run_id"])
        return out

    def test_page_contains_the_headline_rows(self) -> None:
        self.put_runs()
        self.put_runs(1, 5, handle="bob", decode_ms_per_token=20)
        index = self.page().index
        found = folders.read_all([self.root])
        rows = headline.headline_rows(found.submissions)
        [spread] = [row.numbers["decode_tokens_per_s"] for row in rows]
        shown = index["rows"]
        self.assertEqual((shown["model"], shown["size"], shown["runs"], shown["owners"]),
                         ([0, None], [None, "\u2264 2 B"], [4, 4], [2, 2]))
        at = index["numbers"].index("decode_tokens_per_s")
        self.assertEqual([values[at][0] for values in shown["values"]],
                         [metrics.round_sig(spread.value, 4)] * 2)
        self.assertEqual(self.code, 0)

    def test_page_shows_why_a_run_is_left_out(self) -> None:
        self.put_runs(1, overrides={"num_predict": 256})
        index = self.page().index
        self.assertEqual([index["reasons"][i] for i in index["results"]["reasons"][0]],
                         ["num_predict 256, not 2048"])
        self.assertEqual((index["rows"]["runs"], index["rows"]["left"]), ([0, 0], [1, 1]))

    def test_policy_allows_only_its_own_style_and_script(self) -> None:
        self.put_runs(1)
        page = self.page()
        hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
                  for text in (page.style, page.script)]
        policy = next(value for name, value in page.attributes
                      if name == "content" and value and "default-src" in value)
        self.assertEqual(policy.split("; "), [
            "default-src 'none'", f"style-src 'sha256-{hashes[0]}'",
            f"script-src 'sha256-{hashes[1]}'", "img-src data:", "base-uri 'none'",
            "form-action 'none'"])

    def test_page_has_no_network_address_and_no_handler(self) -> None:
        self.put_runs(1)
        page = self.page()
        places = re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]+", page.text.replace(
            "http://www.w3.org/2000/svg", ""))
        self.assertEqual(places, [])
        self.assertEqual([name for name, _ in page.attributes if name.startswith("on")
                          or name in ("style", "src", "srcset", "action")], [])
        for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(",
                     "fetch(", "XMLHttpRequest", "@import", "url("):
            self.assertNotIn(word, page.style + page.script)

    def test_data_cannot_end_its_block(self) -> None:
        self.put_runs(1, models=("<!--</script><script>&amp;\u2028",))
        page = self.page()
        self.assertEqual(page.tags.count("script"), 3)
        self.assertEqual(list(page.details.values())[0]["models"],
                         ["<!--</script><script>&amp;\u2028"])

    def test_same_submissions_give_the_same_file(self) -> None:
        self.put_runs(2)
        self.assertEqual(self.page().text, self.page().text)

    def test_details_have_all_parts_of_a_run(self) -> None:
        [run_id] = self.put_runs(1)
        page = self.page()
        detail = page.details[run_id]
        self.assertEqual([len(detail[name]["phase"]) for name in ("calls", "cells", "gaps")],
                         [26, 3, 3])
        self.assertEqual(detail["models"], ["smollm2-135m"])
        self.assertEqual(detail["instrument"]["lanes"][0]["lag_us"]["p99"], 20)
        self.assertEqual(len(detail["host"]["t"]), len(detail["host"]["series"]["values"][0]))
        self.assertIn(["Machine", "cpu model name", "Apple M1", "probed"],
                      [page.facts[i] for i in detail["facts"]])

    def test_details_show_the_numbers_of_metrics(self) -> None:
        [run_id] = self.put_runs(1)
        detail = self.page().details[run_id]
        [folder] = folders.submission_folders([self.root])
        manifest, state = ledger.load_run(folder)
        summary = run_summary.summarize_run(manifest, state.events)
        self.assertEqual(detail["cells"]["decode_tokens_per_s"], [
            [metrics.round_sig(cell["metrics"]["decode_tokens_per_s"][part], 3) for part in
             ("median", "ci_low", "ci_high")] for cell in summary["cells"]])
        self.assertEqual(detail["calls"]["decode"], [
            metrics.round_sig(metrics.call_metrics(call)["decode_tokens_per_s"], 3)
            for call in ledger.latest_calls(state.events)])

    def test_details_that_do_not_fit_are_left_out_oldest_first(self) -> None:
        ids = self.put_runs(3) + self.put_runs(3, 10, version="b7000")
        with mock.patch.multiple(pages, PACK_RUNS=1, BATCH_RUNS=1):
            text = self.page().text
            one = max(map(len, text.partition('id="packs">')[2].partition("<")[0].split()))
            limit = len(text) - 3 * one
            with mock.patch.object(pages, "MAX_PAGE_BYTES", limit):
                page = self.page()
        self.assertLessEqual(len(page.text.encode()), limit)
        kept = set(page.details)
        self.assertTrue({ids[2], ids[5]} <= kept < set(ids), kept)
        self.assertEqual(len(page.index["runs"]["id"]), 6)
        self.assertIn(f"6 runs, details of {len(kept)}", self.err)

    def test_details_have_the_texts_of_the_contributor(self) -> None:
        [run_id] = self.put_runs(1)
        [folder] = folders.submission_folders([self.root])
        for data, notes in ((b"<!-- begin run_md.notes -->\n", ""), (b"".join(
                f"{begin}\n{text}\n{end}\n".encode() for name, text in (
                    ("deviations", attestation.SECTIONS["deviations"]),
                    ("notes", "<b>loud\x1b fans"), ("attestation", ""))
                for begin, end in [attestation.section_marks(name)]),
                "<b>loud\\x1b fans")):
            with open(os.path.join(folder, "run.md"), "wb") as file:
                file.write(data)
            detail = self.page().details[run_id]
            self.assertEqual((detail["notes"], detail["deviations"]), (notes, ""))

    def test_page_links_the_files_of_submissions_in_their_own_folders(self) -> None:
        self.put_runs(2)
        self.assertEqual(self.page().index["files"], ".")
        at = "https://example.org/tree/submissions"
        self.assertEqual(self.page("--files-at", f"{at}/").index["files"], at)
        self.assertEqual(run_program(self.root, "--html", "x", "--files-at", "data:x")[0], 2)
        [folder, _] = folders.submission_folders([self.root])
        os.rename(folder, os.path.join(self.root, "elsewhere"))
        self.assertIsNone(self.page().index["files"])

    def test_tokens_of_a_phase_are_counted_alike(self) -> None:
        spec = Spec(phases="5q")
        manifest = made_submissions.make_manifest(spec)
        events = made_submissions.make_events(spec, manifest)
        calls = [e for e in events if e["event"] == "call_finished" and e["phase"] == "5q"]
        plain = [metrics.round_sig(metrics.call_metrics(call, None)["decode_tokens_per_s"], 3)
                 for call in calls]
        for call in calls[1:]:
            call["response"]["usage"]["completion_tokens"] += 8
        calls[0]["response"]["usage"] = None
        made = made_submissions.complete(manifest, events, spec.probed)
        found = run_detail.run_detail(made.metadata, made.hardware, manifest, events, {})["calls"]
        self.assertEqual([rate for rate, phase in zip(found["decode"], found["phase"])
                          if phase == 2], plain)

    def test_times_of_calls_can_be_computed_from_their_differences(self) -> None:
        spec = Spec(phases="parallel_same", noise=0.1)
        manifest = made_submissions.make_manifest(spec)
        events = made_submissions.make_events(spec, manifest)
        made = made_submissions.complete(manifest, events, spec.probed)
        calls = run_detail.run_detail(made.metadata, made.hardware, manifest, events, {})["calls"]
        free: dict[int, float] = {}
        for i, call in enumerate(ledger.latest_calls(events)):
            start = free.get(calls["lane"][i], 0) + calls["start"][i]
            end = start + calls["ttft"][i] + calls["rest"][i] + (
                (calls["tokens"][i] - 1) * 1000 / calls["decode"][i] if calls["decode"][i] else 0)
            free[calls["lane"][i]] = end
            timing = call["timing"]
            self.assertAlmostEqual(start, timing["started_us"] / 1000, delta=call["t_us"] / 5e4)
            self.assertAlmostEqual(end - start, timing["done_us"] / 1000,
                                   delta=timing["done_us"] / 5e4)

    def test_unreadable_details_are_a_warning(self) -> None:
        [run_id] = self.put_runs(1)
        [folder] = folders.submission_folders([self.root])
        os.unlink(os.path.join(folder, ledger.LEDGER))
        page = self.page()
        self.assertEqual((page.details, self.code), ({}, 0))
        self.assertIn("its detail: run.jsonl: No such file", self.err)

    def test_page_holds_the_runs_that_match_the_filters(self) -> None:
        [run_id] = self.put_runs(1)
        self.put_runs(1, tag="box-1", probed=DESKTOP)
        page = self.page("--hardware", "mac-m1-8gb", "--phase", "5q")
        self.assertEqual(page.index["runs"]["id"], [run_id])

    def test_unwritable_file_is_a_storage_error(self) -> None:
        self.put_runs(1)
        code, out, err = run_program(self.root, "--html", os.path.join(self.root, "no", "page"))
        self.assertEqual((code, out), (4, ""))
        self.assertIn("No such file or directory; pass a file in a folder", err)


class Details(unittest.TestCase):
    """Data of the drawings."""

    def test_histogram_has_ten_bins_per_decade(self) -> None:
        self.assertEqual(run_detail.histogram([0, 1, 9, 10, 10, 12, 13, 1000]), (
            0, [2] + [0] * 8 + [1] + [3, 1] + [0] * 18 + [1]))

    def test_segments_follow_each_other_after_a_short_pause(self) -> None:
        events = [{"segment": 0, "t_us": 0, "at": "2026-11-25T10:00:00.000Z"},
                  {"segment": 0, "t_us": 60_000_000, "at": "2026-11-25T10:01:00.000Z"},
                  {"segment": 1, "t_us": 0, "at": "2026-11-25T12:01:00.000Z"},
                  {"segment": 1, "t_us": 40_000_000, "at": "2026-11-25T12:01:40.000Z"}]
        axis = run_detail.TimeAxis(events)
        self.assertEqual(axis.pauses, [[60_000, 7_200_000]])
        self.assertEqual([axis.ms(0, 1000), axis.ms(1, 0), axis.length_ms], [1, 62_000, 102_000])

    def test_clock_set_back_or_invalid_date_is_no_pause(self) -> None:
        for at in ("2026-11-25T09:00:00.000Z", "2026-02-31T10:00:00.000Z"):
            events = [{"segment": 0, "t_us": 1000, "at": "2026-11-25T10:00:00.000Z"},
                      {"segment": 1, "t_us": 1000, "at": at}]
            self.assertEqual(run_detail.TimeAxis(events).pauses, [[1, 0]])

    def test_power_is_energy_between_two_samples(self) -> None:
        samples = [{"segment": 0, "t_us": 0, "energy_uj": 0},
                   {"segment": 0, "t_us": 2_000_000, "energy_uj": 30_000_000},
                   {"segment": 0, "t_us": 4_000_000, "energy_uj": None},
                   {"segment": 1, "t_us": 1_000, "energy_uj": 5}]
        self.assertEqual([run_detail._gauge(samples, i, "power_w") for i in range(4)],
                         [None, 15.0, None, None])

    def test_long_runs_keep_every_nth_sample(self) -> None:
        manifest = made_submissions.make_manifest(Spec(phases="5q"))
        events = made_submissions.make_events(Spec(phases="5q"), manifest)
        sample = next(event for event in events if event["event"] == "host_sampled")
        many = [{**sample, "t_us": i} for i in range(1000)]
        host = run_detail._host(many, run_detail.TimeAxis(many))
        self.assertEqual((host["samples"], len(host["t"])), (1000, 112))


if __name__ == "__main__":
    unittest.main()
