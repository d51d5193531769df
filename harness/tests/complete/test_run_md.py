"""run.md: the page of a run."""
from __future__ import annotations

import copy
import re
import unittest
from typing import Any, Optional

from complete import attestation, declared, metadata, run_md
from core import ledger, schema
from machine import inventory
from tests import make_example
from tests.complete.test_complete_submission import answer, hello_and_5q, missing
from tests.make_example import Call, Mac, ledger_of, manifest_of

HOSTILE = ("@torvalds", "#1", "![x](http://evil.example/a.png)", "[x](javascript:alert(1))",
           "<img src=x onerror=alert(1)>", "<!-- begin run_md.notes -->", "`<b>`",
           "``` \n<script>", "| a | b |", "\\| <b> @me", "www.evil.example",
           "https://evil.example", "a\x1b[31mb\u202e", "--- \n# title", "| --- |", "\\`<i>")


def without_code(page: str) -> str:
    """The Markdown of a page without code blocks, code spans and the program's own comments."""
    page = re.sub(r"^```text\n.*?\n```$", "", page, flags=re.DOTALL | re.MULTILINE)
    page = re.sub(r"^<!-- Written by .*? -->$", "", page, flags=re.MULTILINE)
    for name in attestation.SECTIONS:
        begin, end = attestation.section_marks(name)
        page = page.partition(begin)[0] + page.partition(end)[2]
    page = re.sub(r"</?details>|<summary>[\w ]+</summary>|<sub>\w+</sub>", "", page)
    return re.sub(r"`[^`\n]*`", "", page)


class Page(unittest.TestCase):
    maxDiff = None

    def setUp(self) -> None:
        self.manifest = manifest_of(("5q",), synthetic=False)
        self.events = ledger_of(self.manifest, hello_and_5q())
        self.hardware = inventory.inventory(Mac())

    def build(self, declared: Optional[dict[str, Any]] = None) -> Any:
        return metadata.build(self.manifest, self.events, "0" * 64, self.hardware, declared or {})

    def render(self, sections: Optional[dict[str, str]] = None) -> str:
        document = self.build()
        self.assertEqual([], schema.validate(document, "metadata"))
        return run_md.render_run_md(self.manifest, document, self.hardware, sections or {},
                                    self.events)

    def test_hostile_names_stay_text(self) -> None:
        for name in HOSTILE:
            self.manifest = manifest_of(
                ("5q",), models=(name, "m"), submitter_handle=name[:39], device_tag=name[:48],
                cell_id_prefix=name,
                engine={"name": name, "version": name, "build": name, "recognised_by": name})
            self.events = ledger_of(self.manifest, hello_and_5q() * 2, facts={
                **make_example.FACTS, "family": name, "digest": name, "quantization": name})
            page = self.render()
            plain = without_code(page)
            with self.subTest(name=name):
                self.assertNotRegex(plain, r"[<@\x1b\u202e]|\]\(|!\[|https?:|www\.|javascript")
                self.assertNotIn("`", plain)
                self.assertEqual(attestation.SECTIONS, attestation.read_sections(page))
                for row in re.findall(r"^\|.*$", page, flags=re.MULTILINE):
                    self.assertIn(row.count("|"), (3, 7), row)

    def test_command_quotes_names_and_hides_addresses(self) -> None:
        manifest = manifest_of(("5q",), models=("a; rm -rf ~ 'x'",), submitter_handle="ada",
                               device_tag="$(reboot)", api_key_used=True, synthetic=False,
                               target={"class": "lan", "scheme": "http", "port": 80, "path": "/x"})
        self.assertEqual(
            "python3 harness/run_benchmark.py --models 'a; rm -rf ~ '\"'\"'x'\"'\"'' "
            "--target-url <URL> --api-key-env <VARIABLE> --phases hello,5q "
            "--device-tag '$(reboot)' --cell-id-prefix mac-m1-8gb:ollama --no-hostname",
            run_md.reproduce_command(manifest))

    def test_banner_of_synthetic_runs(self) -> None:
        self.manifest = manifest_of(("5q",))
        self.assertTrue(self.render().startswith("> **EXAMPLE, SYNTHETIC.** "))
        self.manifest["submitter_handle"] = "ada"
        self.assertTrue(self.render().startswith("> **SYNTHETIC.** A rehearsal "))
        self.assertEqual("python3 harness/run_benchmark.py --rehearse",
                         run_md.reproduce_command(self.manifest))

    def test_rendering_is_repeatable_and_sections_can_be_read_back(self) -> None:
        sections = {"deviations": "a\n\n- b", "notes": "c `d`", "attestation": "- [x] e"}
        before = copy.deepcopy((self.manifest, self.events))
        page = self.render(sections)
        self.assertEqual(sections, attestation.read_sections(page))
        self.assertEqual(sections, attestation.read_sections(page.replace("\n", "\r\n")))
        self.assertEqual(page, self.render(sections))
        self.assertEqual(before, (self.manifest, self.events))
        self.assertLess(len(page.encode()), 16_000)

    def test_missing_repeated_and_swapped_marks_are_named(self) -> None:
        page = self.render()
        begin, end = attestation.section_marks("notes")
        for changed in (page.replace(begin, ""), page + end,
                        page.replace(begin, "X").replace(end, begin).replace("X", end)):
            with self.assertRaisesRegex(ValueError, "run_md.notes"):
                attestation.read_sections(changed)

    def test_placeholders_count_as_unwritten(self) -> None:
        for text, unwritten in ((attestation.SECTIONS["notes"], True), ("", True), (" \n", True),
                                ("none", False)):
            self.assertEqual(unwritten, attestation.is_unwritten({"notes": text}, "notes"))

    def test_statements_count_only_unedited(self) -> None:
        ticked = attestation.section_text("attestation", "true")
        for text, unticked in ((ticked, []), ("", list(attestation.STATEMENTS)),
                               (ticked.replace("real key", "key"), [attestation.STATEMENTS[0]]),
                               (attestation.SECTIONS["attestation"], list(attestation.STATEMENTS))):
            self.assertEqual(unticked, attestation.unticked_statements({"attestation": text}))

    def test_read_lag_is_shown_in_milliseconds(self) -> None:
        for event in self.events:
            if event["event"] == "call_finished":
                event["timing"].update(stamp="kernel", read_lag_us={
                    "p50": 1500, "p99": 2500, "max": 3000, "n": 40})
        self.assertIn("read 1.5 ms after they reached the kernel (median), p99 2.5 ms, at most "
                      "3 ms, over 6 calls\n```\n", self.render())

    def test_deviations_are_computed(self) -> None:
        self.manifest = manifest_of(
            ("5q", "parallel_mixed"), canonical_options_overrides={"num_ctx": 8192,
                                                                   "temperature": 0.5},
            prompt_cache={"policy": "allow", "method": "none"})
        self.events = ledger_of(self.manifest, hello_and_5q())
        self.events.insert(0, ledger.event_line(
            "phase_skipped", seq=2, run_id=self.manifest["run_id"], segment=0,
            at=self.events[0]["at"], t_us=1, model=None, phase="parallel_mixed",
            reason="two models | needed"))
        hardware = declared.declare(inventory.assemble({"memory": {"type": "DDR5"}}),
                                    {"memory.type": "DDR4", "cpu.model_name": "M1"})
        found = run_md.deviations(self.manifest, self.build({"models.0.quantization": "F16"}),
                                  hardware, self.events)
        for line, words in zip(found, (
                "num_ctx: 8192 instead of the canonical 4096",
                "temperature: 0.5 instead of the canonical 0.1",
                "`qwen2.5:1.5b`: the context was 4096 tokens; 8192 were requested",
                "prompt cache was left on", "parallel_mixed was skipped: `two models \\x7c needed`",
                "`models.0.quantization`: the contributor declared `F16`; `the server reported ",
                "`memory.type`: the contributor declared `DDR4`; `the system reported \"DDR5\"`")):
            self.assertIn(words, line)
        self.assertEqual(7, len(found))

    def test_unknown_context_is_a_deviation(self) -> None:
        self.events = ledger_of(self.manifest, hello_and_5q(), context={
            **make_example.CONTEXT, "effective_tokens": None, "reason": "not told"})
        found = self.build()
        self.assertEqual(missing("not told"), found["models"][0]["context_effective_tokens"])
        self.assertIn("whether it was in effect is not known",
                      run_md.deviations(self.manifest, found, {}, self.events)[0])

    def test_start_of_the_server_is_claimed_only_where_it_is_known(self) -> None:
        for flags, sentence in (({}, "How the server was started is not known."), (
                {"runtime.launch_flags": "-t 4"}, "The server was started with the launch_flags ")):
            page = run_md.render_run_md(self.manifest, self.build(flags), self.hardware, {},
                                        self.events)
            self.assertIn(sentence, page)

    def test_canonical_run_has_no_deviations(self) -> None:
        self.assertIn("\n## Deviations\n\nComputed:\n\nNone.\n", self.render())

    def test_results_are_those_of_the_metadata(self) -> None:
        self.events = ledger_of(self.manifest, hello_and_5q(answer(gap_us=40_000),
                                                            Call(1, [], "", "timeout")))
        page = self.render()
        self.assertIn("| hello (cold) | 1/1 | - | 210 ms | - |  |\n"
                      "| 5q | 4/5 | 40.0 | 210 ms | - | 0/4 |\n", page)
        self.assertIn("| writes | **40.0 tok/s** |\n| first word | **210 ms** |\n", page)
        self.assertIn("6 calls (5 `ok`, 1 `timeout`)", page)
        self.assertIn("\n- **failures** (5q): ", page)

    def test_page_begins_with_the_verdict(self) -> None:
        failed = hello_and_5q(answer(gap_us=40_000), Call(1, [], "", "timeout"))
        for changes, calls, expected in (
                ({}, hello_and_5q(), "**Ranked**."),
                ({}, failed, "**Not ranked**: 5q (`failures`)."),
                ({"canonical_options_overrides": {"num_ctx": 8192}}, hello_and_5q(),
                 "**Not ranked**: num_ctx 8192 instead of 4096."),
                ({"synthetic": True}, hello_and_5q(), "**Not ranked**: synthetic, ")):
            self.manifest = {**manifest_of(("5q",), synthetic=False), **changes}
            self.events = ledger_of(self.manifest, calls)
            self.assertIn(f"\n\n{expected}", self.render().partition("<details>")[0])

    def test_what_a_model_needed_and_the_servers_own_rates(self) -> None:
        document = self.build({})
        document["headlines"][0].update({
            "energy": {"joules_per_output_token": 1.25, "mean_power_w": 61.7, "scope": "cards",
                       "samples_count": 40, "error_ratio": 0.021},
            "memory": {"peak_card_bytes": 6 << 30, "peak_process_bytes": None,
                       "peak_swap_bytes": 0},
            "draft_acceptance_ratio": 0.714, "load_s": 6.2, "server_decode_tokens_per_s": 52.2,
            "server_prefill_tokens_per_s": 1803.0})
        page = run_md.render_run_md(self.manifest, document, self.hardware, {}, self.events)
        for text in ("energy of the cards | **1.25 J** per token, 62 W "
                     "(\u00b12.1% from 40 samples)",
                     "**6 GiB** on cards", "drafts accepted | **71%**", "load | **6.20 s**",
                     "writes 52.2 tok/s, reads 1803 tok/s"):
            with self.subTest(text):
                self.assertIn(text, page)

    def test_head_has_corrected_values(self) -> None:
        page = run_md.render_run_md(self.manifest, self.build({"runtime.version": "b11549"}),
                                    self.hardware, {}, self.events)
        head = page.partition("<details>")[0]
        self.assertIn("`Ollama` `b11549`", head)
        self.assertNotIn("0.12.6", head)

    def test_picture_has_a_bar_per_call(self) -> None:
        self.events = ledger_of(self.manifest, hello_and_5q(answer(gap_us=40_000),
                                                            Call(1, [], "", "timeout")))
        self.assertRegex(self.render(), r"```text\ntok/s, median and each call, .*; x: no rate\n"
                         "5q +40.0 [\u2581-\u2588]x[\u2581-\u2588]{3}\n```")


if __name__ == "__main__":
    unittest.main()
