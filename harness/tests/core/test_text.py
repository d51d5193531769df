"""Rows as text: fitted to a width, and harmless to whatever reads them."""
from __future__ import annotations

import csv
import io
import unittest

from core.text import NARROWEST, Column, code_span, csv_text, fit_table, markdown, wrapped

COLUMNS = (Column("#", True), Column("device", False, 4), Column("hardware", False, 4, 2),
           Column("rate", True), Column("flags", False, 4, 1))
ROWS = [["1", "mac-m1-8gb", "Apple M1, 8 threads", "100", ""],
        ["12", "desktop", "AMD Ryzen 9", "9", "outliers"]]


class Fitting(unittest.TestCase):
    def test_shows_everything_where_there_is_room(self) -> None:
        self.assertEqual(fit_table(COLUMNS, ROWS, 80), [
            " #  device      hardware             rate  flags",
            " 1  mac-m1-8gb  Apple M1, 8 threads   100",
            "12  desktop     AMD Ryzen 9             9  outliers"])

    def test_shortens_texts_before_it_drops_a_column(self) -> None:
        self.assertEqual(fit_table(COLUMNS, ROWS, 40), [
            " #  device    hardware     rate  flags",
            " 1  mac-m1..  Apple M1,..   100",
            "12  desktop   AMD Ryzen 9     9  outli.."])

    def test_drops_columns_by_their_rank(self) -> None:
        self.assertEqual(fit_table(COLUMNS, ROWS, 28), [
            " #  device     rate  flags",
            " 1  mac-m1-..   100",
            "12  desktop       9  outli.."])
        self.assertEqual(fit_table(COLUMNS, ROWS, 20), [
            " #  device      rate", " 1  mac-m1-8gb   100", "12  desktop        9"])

    def test_tells_once_what_all_rows_share_before_it_drops_a_column(self) -> None:
        columns = [column._replace(common=column.title in ("device", "hardware"))
                   for column in COLUMNS]
        rows = [[number, "desktop", *rest] for number, _, *rest in ROWS]
        self.assertEqual(fit_table(columns, rows, 30), [
            "in all rows: device desktop",
            " #  hardware     rate  flags",
            " 1  Apple M1,..   100",
            "12  AMD Ryzen 9     9  outli.."])
        self.assertEqual([fit_table(columns, rows, 80)[0],
                          fit_table(columns, rows[:1], 30)[0]],
                         [" #  device   hardware             rate  flags",
                          "#  device   hardware      rate"])

    def test_never_writes_a_longer_line(self) -> None:
        for width in range(NARROWEST, 90):
            with self.subTest(width):
                lines = fit_table(COLUMNS, ROWS, width)
                self.assertLessEqual(max(map(len, lines)), width)

    def test_leaves_out_a_column_that_no_row_fills(self) -> None:
        rows = [[*row[:4], ""] for row in ROWS]
        self.assertEqual(fit_table(COLUMNS, rows, 80)[0],
                         " #  device      hardware             rate")

    def test_wraps_sentences_at_words_and_cuts_longer_ones(self) -> None:
        self.assertEqual(wrapped("one two three " + "x" * 30, 20, "  "),
                         ["one two three", "  " + "x" * 18])
        self.assertEqual(wrapped("", 20), [""])


class Harmless(unittest.TestCase):
    def test_markdown_shows_foreign_text_as_code(self) -> None:
        cases = {"plain": "`plain`", "": "", "  ": "", "a|b": "`a\\|b`", "`x`": "`'x'`",
                 "<img src=x>": "`<img src=x>`", "[a](http://b) @c #1": "`[a](http://b) @c #1`",
                 "a\nb": "`a\\nb`", "\x1b[31m": "`\\x1b[31m`", "\u202egnp": "`\\u202egnp`"}
        self.assertEqual({text: code_span(text) for text in cases}, cases)

    def test_markdown_says_which_columns_are_numbers(self) -> None:
        self.assertEqual(markdown(("a", "b"), [("x", "1")], (1,)),
                         "| a | b |\n| --- | --: |\n| x | 1 |\n")

    def test_csv_holds_no_formula(self) -> None:
        for text in ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "'=1", "\"=1", "\n=1",
                     "\uff1d1", "\u3000=1"):
            with self.subTest(text):
                [_, [cell]] = csv.reader(io.StringIO(csv_text(["x"], [[text]])))
                self.assertTrue(cell.startswith("'"), cell)

    def test_csv_leaves_other_text_and_numbers_as_they_are(self) -> None:
        text = csv_text(["a", "b", "c", "d"], [["mac-m1", -1.5, None, 'say "hi", ok']])
        self.assertEqual(text, '"a","b","c","d"\r\n"mac-m1",-1.5,"","say ""hi"", ok"\r\n')

    def test_csv_keeps_a_row_on_one_line(self) -> None:
        self.assertEqual(csv_text(["a"], [["x\r\ny\x00"]]), '"a"\r\n"x\\r\\ny\\x00"\r\n')


if __name__ == "__main__":
    unittest.main()
