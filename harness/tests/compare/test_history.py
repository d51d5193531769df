"""Versions of a runtime, and what is not measured yet."""
from __future__ import annotations

import os
import tempfile
import unittest
from pathlib import Path
from typing import Any, Optional

from compare import entries, history, wanted
from core import names
from machine import inventory
from tests import made_submissions
from tests.compare.test_headline import run_of
from tests.compare.test_ranking import documents, known
from tests.machine.test_machine import MACHINES, RecordedMachine
from tests.made_submissions import DESKTOP, GIB, MAC, Spec

CARDS = {**DESKTOP, "accelerators": [{**DESKTOP["accelerators"][0],
                                      "memory_bytes": 12 * GIB}] * 2}


def version(number: str, *rates: float, first: int = 0,
            flags: tuple[str, ...] = ()) -> list[entries.Submission]:
    """Runs of one version."""
    return [run_of(rate, first + i, flags, {"runtime.version": known(number)})
            for i, rate in enumerate(rates)]


class History(unittest.TestCase):
    def test_neighbouring_versions_have_a_verdict(self) -> None:
        [one] = history.series([*version("b7012", 101.0, 99.0, 100.0, first=4),
                                *version("b6800", 100.0, 102.0, 98.0),
                                *version("b10000", 151.0, 149.0, 150.0, first=8)])
        self.assertEqual([(point["version"], len(point["run_ids"]), point["verdict"])
                          for point in one["versions"]],
                         [("6800", 3, None), ("7012", 3, "cannot tell"), ("10000", 3, "faster")])
        self.assertAlmostEqual(one["versions"][2]["ratio"], 1.5, places=2)
        self.assertIn("1.500  faster", history.history_text([one], 80))

    def test_one_version_and_runs_that_are_left_out_make_no_series(self) -> None:
        for runs in (version("b6800", 100.0, 90.0),
                     [*version("b6800", 100.0), *version("b7012", 90.0, first=3,
                                                         flags=("truncated",))]):
            self.assertEqual(history.series(runs), [])
        self.assertTrue(history.history_text([], 80))

    def test_other_settings_are_another_series(self) -> None:
        other = run_of(100.0, 5, facts={"runtime.version": known("b7012"),
                                        "runtime.kv_cache_type": known("q8_0")})
        self.assertEqual(history.series([*version("b6800", 100.0), other]), [])

    def test_versions_in_order(self) -> None:
        for ordered in (["6800", "7012", "10000"], ["0.9.1", "0.10.0-rc1", "0.10.0", "0.10.1"],
                        ["1.2", "1.2.1", "1.10"]):
            self.assertEqual(sorted(set(ordered), key=history.version_order), ordered)


class Wanted(unittest.TestCase):
    def titles(self, run: entries.Submission) -> list[str]:
        [one] = wanted.cells([run])
        return list(one["wanted"])

    def test_sizes_that_fit_and_were_not_measured(self) -> None:
        for probed, expected in (
                (MAC, ["7-9 B", "3-4 B", "1-2 B"]),
                (CARDS, ["7-9 B", "3-4 B", "12-15 B", "20-24 B", "27-35 B", "1-2 B"])):
            self.assertEqual(self.titles(run_of(100.0, probed=probed)), expected)

    def test_measured_size_is_not_wanted(self) -> None:
        for name, parameters, missing in (("qwen3-4b", None, "3-4 B"), ("x", 8.2e9, "7-9 B"),
                                          ("gemma-3-270m", None, None)):
            run = run_of(100.0, facts={
                **{f"{part}.0.model": name for part in ("models", "cells", "headlines")},
                "models.0.parameters_count": known(parameters and int(parameters))})
            self.assertEqual({"7-9 B", "3-4 B", "1-2 B"} - set(self.titles(run)),
                             {missing} - {None})

    def test_lines_for_this_machine(self) -> None:
        def lines(*runs: entries.Submission, probed: Optional[Any] = None) -> list[str]:
            return wanted.for_machine(runs, documents(probed=probed or MAC)[2])

        self.assertEqual(lines()[0], "Measured so far on M1 8 GB: no model of these sizes.")
        self.assertIn("7-9 B (Qwen3 8B), 3-4 B (Qwen3 4B), 1-2 B (Llama 3.2 1B)", lines()[1])
        self.assertLessEqual(len(lines(run_of(100.0), probed=CARDS)), 3)
        measured, wish = lines(run_of(100.0, facts={
            "models.0.parameters_count": known(1_200_000_000)}))
        self.assertEqual(("1-2 B" in measured, "1-2 B" in wish), (True, False))

    def test_device_tags_of_recorded_machines_are_valid_and_short(self) -> None:
        tags = {name: wanted.device_tag(inventory.inventory(RecordedMachine(name), measure=False))
                for name in MACHINES}
        self.assertEqual({name: tags[name] for name in (
            "linux_amd_desktop", "linux_container_cgroup1", "mac_m1", "linux_raspberry_pi",
            "linux_x99_type_other")}, {
                "linux_amd_desktop": "rx-7900-xtx-24gb-ryzen-9-7950x",
                "linux_container_cgroup1": "xeon-platinum-8488c-vm-2c-4gb", "mac_m1": "m1-8gb",
                "linux_raspberry_pi": "raspberry-pi-5-8gb", "linux_x99_type_other": None})
        for name, tag in tags.items():
            self.assertTrue(tag is None or names.device_tag_problem(tag) is None, (name, tag))
            self.assertNotRegex(tag or "", "unknown|reported", name)

    def test_lines_from_a_folder_within_a_time_limit(self) -> None:
        made = made_submissions.make(Spec(phases="5q"))
        with tempfile.TemporaryDirectory() as root:
            made_submissions.write(root, made, with_ledger=False)
            broken = os.path.join(root, "x")
            os.mkdir(broken)
            Path(broken, "metadata.json").write_text("{", "ascii")
            [known_line, wish] = wanted.here(root, made.hardware)
            self.assertEqual(known_line, "Measured so far on M1 8 GB: no model of these sizes.")
            self.assertIn("7-9 B", wish)
            self.assertEqual(wanted.here(root, made.hardware, limit_s=-1.0), [])
            self.assertEqual(wanted.here(os.path.join(root, "none"), made.hardware), [])


if __name__ == "__main__":
    unittest.main()
