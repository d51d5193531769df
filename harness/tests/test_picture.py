"""The picture of the README."""
from __future__ import annotations

import unittest
import xml.etree.ElementTree as ElementTree
from typing import Any

from compare import entries, headline, ranking
from tests import picture
from tests.compare.test_ranking import cell, documents
from tests.made_submissions import DESKTOP, MAC

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "<script>&\"'\x1b"


def drawn(*runs: tuple[float, str, Any, list[str]]) -> ElementTree.Element:
    """The picture of runs, each of a decode rate, a handle, a machine, and flags."""
    submissions = []
    for number, (decode, handle, probed, flags) in enumerate(runs, 1):
        made = documents(cell(decode=decode, flags=flags), run=number, handle=handle,
                         tag=f"tag-{number}", probed=probed)
        made[1]["headlines"] = [{"model": made[1]["models"][0]["model"],
                                 "decode_tokens_per_s": {"median": decode}}]
        submissions.append(entries.read_submission(*made))
    blocks = ranking.ranked(headline.headline_rows(submissions))
    return ElementTree.fromstring(picture.svg(blocks, picture.SCHEMES["light"]))


class Picture(unittest.TestCase):
    def test_rows_have_a_bar_from_zero_and_a_dot_per_run(self) -> None:
        found = drawn((100.0, "ada", MAC, []), (50.0, "eve", MAC, []),
                      (400.0, "bob", DESKTOP, []), (200.0, "zoe", DESKTOP, ["truncated"]))
        bars = [float(one.get("width", "")) for one in found.iter(f"{SVG}rect") if one.get("rx")]
        self.assertEqual([round(bar / bars[0], 3) for bar in bars], [1, 0.188])
        fills = [one.get("fill") for one in found.iter(f"{SVG}circle")]
        light = picture.SCHEMES["light"]
        self.assertEqual([fills.count(light.dot), fills.count(light.background)], [3, 1])
        texts = [one.text for one in found.iter(f"{SVG}text")]
        self.assertIn("75.0 tok/s", texts)
        self.assertIn("2 runs, 2 owners", texts)

    def test_foreign_text_stays_text(self) -> None:
        cards = [{**DESKTOP["accelerators"][0], "model_name": HOSTILE}]
        found = drawn((100.0, "ada", {**DESKTOP, "accelerators": cards}, []))
        self.assertEqual([one.tag for one in found.iter() if "script" in str(one.tag)], [])
        self.assertTrue(any("<script>&" in (one.text or "") for one in found.iter(f"{SVG}text")))

    def test_picture_without_runs_is_valid(self) -> None:
        self.assertEqual(drawn().tag, f"{SVG}svg")

    def test_only_the_rows_that_fit_are_drawn(self) -> None:
        machines = [{**MAC, "memory": {"capacity_bytes": gib * 2 ** 30}}
                    for gib in range(8, 168, 8)]
        found = drawn(*((100.0 + number, "ada", machine, [])
                        for number, machine in enumerate(machines)))
        bars = [one for one in found.iter(f"{SVG}rect") if one.get("rx")]
        self.assertEqual(len(bars), picture.MAX_ROWS)


if __name__ == "__main__":
    unittest.main()
