"""complete_submission: what it writes, keeps and refuses, and the page that it renders."""
from __future__ import annotations

import contextlib
import copy
import errno
import hashlib
import io
import json
import os
import re
import shutil
import tempfile
import unittest
from pathlib import Path
from typing import Any, Optional
from unittest import mock

import complete_submission
from complete import declared as declareds
from complete import metadata, run_md
from core import files, ledger, plan, privacy, schema
from core.errors import HarnessError, StorageError
from machine import inventory, server_process, system

from tests import make_example
from tests.make_example import Call, Mac, ledger_of, manifest_of, write_raw
from tests.machine.test_machine import RecordedMachine

Json = dict[str, Any]
NAMES = ("hardware.json", "manifest.json", "metadata.json", "run.jsonl", "run.md")
OURS = ("hardware.json", "metadata.json", "run.md")
IMPORTANT = ("backend=metal", "gpu_offload_ratio=1")
ADA = privacy.MachineName("user", "adalovelace")


def answer(first_us: int = 210_000, gap_us: int = 25_000, tokens: int = 40) -> Call:
    """An answer of so many tokens, evenly spaced."""
    return Call(first_us, [gap_us] * (tokens - 1), "word " * tokens)


def five(*answers: Call) -> list[Call]:
    """A hello and the answers to the five questions."""
    return [answer(tokens=8), *answers, *[answer()] * (5 - len(answers))]


class Server(RecordedMachine):
    """A recorded Linux desktop with a graphics card."""

    def __init__(self) -> None:
        super().__init__("linux_amd_desktop")


class Bare(Server):
    """A machine without any graphics card."""

    system, architecture = "Linux", "x86_64"

    def names(self, path: str) -> list[str]:
        return [] if "drm" in path else super().names(path)

    def run(self, argv: Any, limit_s: float = 0.0) -> Optional[str]:
        return None if "lspci" in argv[0] or "smi" in argv[0] else super().run(argv, limit_s)


class Case(unittest.TestCase):
    """A run of hello and 5q in a folder of its own."""

    maxDiff = None

    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.root = holder.name
        self.folder = os.path.join(self.root, "ada", "mac-m1-8gb", "run-x")
        self.manifest = manifest_of(("5q",), synthetic=False)
        self.write()

    def write(self, facts: Json = make_example.FACTS, **changed: Any) -> None:
        """The raw files, in place of what is there."""
        self.manifest = {**self.manifest, **changed}
        self.events = ledger_of(self.manifest, five(), facts)
        shutil.rmtree(self.folder, ignore_errors=True)
        write_raw(self.folder, self.manifest, self.events)

    def cut(self, lines: int) -> None:
        """Leave so many lines of the ledger."""
        with open(self.path("run.jsonl"), "wb") as file:
            file.writelines(map(ledger.dump_line, self.events[:lines]))

    def complete(self, *settings: str, machine: Any = None, names: Any = (), **more: Any
                 ) -> complete_submission.Told:
        told, _ = complete_submission.complete(self.folder, settings, machine=machine or Mac(),
                                               names=names, **more)
        return told

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def bytes(self) -> dict[str, bytes]:
        """{name: bytes} of every file of the folder."""
        return {path.name: path.read_bytes() for path in Path(self.folder).iterdir()}

    def read(self, name: str) -> Any:
        with open(self.path(name), encoding="utf-8") as file:
            return json.load(file) if name.endswith(".json") else file.read()

    def refused(self, words: str, *settings: str, kind: type = HarnessError, **more: Any) -> None:
        """A call is refused with these words in one line, and no file changes."""
        before = self.bytes()
        with self.assertRaises(kind) as caught:
            self.complete(*settings, **more)
        message = str(caught.exception)
        self.assertIn(words, message)
        self.assertNotIn("\n", message)
        self.assertTrue(message.isascii() and message.isprintable(), ascii(message))
        self.assertEqual(before, self.bytes())
        self.assertEqual(4 if kind is StorageError else 2, caught.exception.exit_code)


def known(value: Any, source: str, reason: Optional[str] = None) -> Json:
    return {"value": value, "source": source, "reason": reason}


def missing(reason: str) -> Json:
    return {"value": None, "source": None, "reason": reason}


class WhatIsWritten(Case):
    def test_the_example_is_what_its_script_makes(self) -> None:
        folder = os.path.join(make_example.SUBMISSIONS, make_example.RUN)
        kept = {name: Path(folder, name).read_bytes() for name in NAMES}
        hashes = json.loads(kept["manifest.json"])["files_sha256"]
        made = make_example.make(self.root, hashes)
        again = "run python3 harness/tests/make_example.py"
        for name in NAMES:
            self.assertEqual(kept[name].decode(), Path(made, name).read_text("utf-8"), again)
        self.assertEqual(sorted(NAMES), sorted(os.listdir(folder)))

    def test_three_files_beside_the_two_that_stay_as_they_are(self) -> None:
        before = self.bytes()
        told = self.complete(*IMPORTANT)
        after = self.bytes()
        self.assertEqual(sorted(NAMES), sorted(after))
        self.assertEqual(before, {name: after[name] for name in before})
        self.assertEqual((0, list(OURS)), (told.exit_code, told.written))

    def test_both_documents_fit_their_schemas(self) -> None:
        for settings in ((), IMPORTANT, ("same_machine=false",)):
            self.complete(*settings)
            for name in ("hardware", "metadata"):
                self.assertEqual([], schema.validate(self.read(f"{name}.json"), name))

    def test_a_second_call_changes_no_byte(self) -> None:
        self.complete(*IMPORTANT, "run_md.notes=a word")
        before = self.bytes()
        self.complete()
        self.assertEqual(before, self.bytes())

    def test_metadata_can_be_built_again_from_the_files(self) -> None:
        self.complete(*IMPORTANT, "quantization=Q8_0", "family=null", "endpoint.same_machine=true")
        found = self.read("metadata.json")
        sha256 = hashlib.sha256(self.bytes()["run.jsonl"]).hexdigest()
        self.assertEqual(found, metadata.build(
            self.manifest, self.events, sha256, self.read("hardware.json"),
            metadata.declared_in(found)))

    def test_the_run_as_a_whole(self) -> None:
        self.complete()
        last = self.events[-1]
        data = self.bytes()["run.jsonl"]
        self.assertEqual({
            "started_at": self.events[0]["at"], "ended_at": last["at"], "segments_count": 1,
            "wall_s": round(last["t_us"] / 1e6, 5), "class": "complete",
            "run_jsonl_sha256": hashlib.sha256(data).hexdigest(),
            "manifest_sha256": self.events[0]["manifest_sha256"],
            "host_name_removed": False}, self.read("metadata.json")["run"])

    def test_time_is_summed_over_segments_and_pauses_are_left_out(self) -> None:
        resumed = [{**event, "segment": 1, "t_us": 500_000} for event in self.events[-2:]]
        run = metadata.build(self.manifest, [*self.events[:3], *resumed], "0" * 64,
                             hardware_of(Mac()), {})["run"]
        self.assertEqual((2, (self.events[2]["t_us"] + 500_000) / 1e6),
                         (run["segments_count"], run["wall_s"]))

    def test_what_the_server_told_stands_beside_what_only_a_person_knows(self) -> None:
        self.complete(*IMPORTANT, "slots_count=2", "draft_model=none")
        found = self.read("metadata.json")
        unsaid = missing(metadata.UNDECLARED)
        self.assertEqual({
            "model": "qwen2.5:1.5b", "quantization": known("Q4_K_M", "server"),
            "parameters_count": known(1_543_714_304, "server"),
            "active_parameters_count": unsaid, "file_bytes": known(986_061_892, "server"),
            "bits_per_weight": known(5.11007, "computed"),
            "digest": known(make_example.FACTS["digest"], "server"),
            "family": known("qwen2", "server"), "source_repository": unsaid, "file_name": unsaid,
            "draft_model": known("none", "declared"),
            "trained_context_tokens": known(32_768, "server"),
            "context_effective_tokens": known(4096, "server"),
            "slots_count": known(2, "declared"), "gpu_offload_ratio": known(1.0, "declared"),
        }, found["models"][0])
        self.assertEqual({
            "name": known("Ollama", "server"), "version": known("0.12.6", "server"),
            "backend": known("metal", "declared"), "build_origin": unsaid, "launch_flags": unsaid,
            "threads_count": unsaid, "accelerators_used_count": unsaid, "flash_attention": unsaid,
            "kv_cache_type": unsaid, "batch_tokens": unsaid, "micro_batch_tokens": unsaid,
        }, found["runtime"])

    def test_an_unknown_server_is_a_value_that_is_missing(self) -> None:
        engine = {"name": "unknown", "version": None, "build": None, "recognised_by": None}
        self.write(engine=engine)
        told = self.complete(*IMPORTANT)
        untold = missing(metadata.UNTOLD)
        runtime = self.read("metadata.json")["runtime"]
        self.assertEqual((untold, untold), (runtime["name"], runtime["version"]))
        self.assertEqual(["metadata.runtime.name", "metadata.runtime.version"],
                         [ask.key for ask in told.asks if ask.important])

    def test_a_build_stands_for_a_version_that_is_not_told(self) -> None:
        self.write(engine={**make_example.ENGINE, "version": None, "build": "b6800-abc"})
        self.complete()
        self.assertEqual(known("b6800-abc", "server"),
                         self.read("metadata.json")["runtime"]["version"])

    def test_sizes_that_do_not_fit_together_give_no_bits(self) -> None:
        for settings, reason in ((("file_bytes=null",), metadata.NO_SIZE),
                                 (("file_bytes=9000000000000",), metadata.ODD_SIZE)):
            self.complete(*settings)
            self.assertEqual(missing(reason),
                             self.read("metadata.json")["models"][0]["bits_per_weight"])

    def test_the_server_as_it_showed_itself_last_is_the_one_that_counts(self) -> None:
        updated = {**make_example.ENGINE, "version": "0.13.0"}
        events = [{**event, "engine": updated} if event["event"] == "endpoint_identified" else event
                  for event in self.events]
        found = metadata.build(self.manifest, events, "0" * 64, hardware_of(Mac()), {})
        self.assertEqual((updated, known("0.13.0", "server")),
                         (found["endpoint"]["engine"], found["runtime"]["version"]))

    def test_a_quantization_that_nobody_tells_is_missing(self) -> None:
        self.write(facts={**make_example.FACTS, "quantization": None})
        told = self.complete("backend=cpu")
        self.assertEqual((1, ["metadata.models.0.quantization"]),
                         (told.exit_code, [ask.key for ask in told.asks if ask.important]))
        self.assertEqual(0, self.complete("quantization=Q8_0").exit_code)

    def test_declared_sizes_give_bits(self) -> None:
        for count, bits in ((1972123784, 4.0), (123257736, 64.0)):
            self.complete(f"parameters_count={count}", "file_bytes=986061888")
            self.assertEqual(known(bits, "computed"),
                             self.read("metadata.json")["models"][0]["bits_per_weight"])


class WithoutAGraphicsCard(Case):
    def setUp(self) -> None:
        super().setUp()
        self.write(os={"system": "Linux", "machine": "x86_64"})

    def test_the_backend_follows_and_nothing_has_to_be_declared(self) -> None:
        told = self.complete(machine=Bare())
        found = self.read("metadata.json")
        self.assertEqual(known(0, "probed"), self.read("hardware.json")["accelerators_count"])
        self.assertEqual((known("cpu", "computed"), known(0, "computed"), known(0, "computed")), (
            found["runtime"]["backend"], found["runtime"]["accelerators_used_count"],
            found["models"][0]["gpu_offload_ratio"]))
        self.assertEqual(0, told.exit_code)
        self.assertNotIn("hardware.memory.unified", [ask.key for ask in told.asks])

    def test_a_contributor_may_know_better(self) -> None:
        self.complete("backend=vulkan", machine=Bare())
        found = self.read("metadata.json")
        self.assertEqual(known("vulkan", "declared", 'computed was "cpu"'),
                         found["runtime"]["backend"])
        self.assertEqual(missing(metadata.UNDECLARED), found["models"][0]["gpu_offload_ratio"])

    def test_nothing_follows_where_the_server_is_elsewhere(self) -> None:
        self.complete("same_machine=false", "accelerators_count=0", machine=Bare())
        self.assertEqual(missing(metadata.UNDECLARED),
                         self.read("metadata.json")["runtime"]["backend"])


class WhatIsKept(Case):
    def test_declared_values_and_words_stay_and_numbers_are_computed_anew(self) -> None:
        self.complete(*IMPORTANT, "hardware.memory.type=LPDDR4X", "run_md.notes=mine\nand more")
        before = self.read("metadata.json")
        page = self.read("run.md")
        files.write_whole(self.path("run.md"), page.replace(
            run_md.SECTIONS["deviations"], "by hand, **bold**").encode())
        self.events = ledger_of(self.manifest, five(answer(gap_us=50_000)))
        self.cut(len(self.events))
        self.complete()
        after = self.read("metadata.json")
        self.assertEqual(metadata.declared_in(before), metadata.declared_in(after))
        self.assertEqual({"memory.type": "LPDDR4X"},
                         metadata.declared_in(self.read("hardware.json")))
        self.assertNotEqual(before["cells"], after["cells"])
        self.assertEqual({**run_md.SECTIONS, "deviations": "by hand, **bold**",
                          "notes": "mine\nand more"}, run_md.read_sections(self.read("run.md")))

    def test_the_machine_is_probed_once_and_again_only_where_it_is_asked_for(self) -> None:
        first, second, third = Mac(), Mac(), Mac()
        self.complete("power.mode=low_power", "launch_flags=none", machine=first)
        self.complete(machine=second)
        self.complete(machine=third, reprobe=True)
        self.assertEqual((True, [], True), (bool(first.asked), second.asked, bool(third.asked)))
        self.assertEqual(known("low_power", "declared"),
                         self.read("hardware.json")["power"]["mode"])

    def test_what_was_probed_stays_though_the_machine_changes(self) -> None:
        self.complete()
        before = self.read("hardware.json")
        changed = Mac()
        changed.commands["sysctl hw.model"] = ""
        self.complete(machine=changed)
        self.assertEqual(before, self.read("hardware.json"))
        self.complete(machine=changed, reprobe=True)
        self.assertNotEqual(before, self.read("hardware.json"))

    def test_null_takes_back_what_was_declared_and_then_takes_out_what_was_told(self) -> None:
        seen = []
        for setting in ("quantization=Q8_0", "quantization=null", "quantization=null",
                        "slots_count=null", "quantization=Q4_K_M"):
            self.complete(setting)
            seen.append(self.read("metadata.json")["models"][0]["quantization"])
        self.assertEqual([
            known("Q8_0", "declared", 'the server told "Q4_K_M"'), known("Q4_K_M", "server"),
            missing(metadata.WITHHELD), missing(metadata.WITHHELD),
            known("Q4_K_M", "server")], seen)

    def test_null_does_the_same_in_hardware(self) -> None:
        seen = []
        for setting in ("memory.type=DDR5", "memory.type=null", "os.version=null"):
            self.complete(setting)
            document = self.read("hardware.json")
            seen.append((document["memory"]["type"], document["os"]["version"]))
        version = known("14.6.1", "probed")
        self.assertEqual([(known("DDR5", "declared"), version),
                          (missing(declareds.TAKEN_BACK), version),
                          (missing(declareds.TAKEN_BACK), missing(metadata.WITHHELD))], seen)
        self.complete(reprobe=True)
        document = self.read("hardware.json")
        self.assertEqual((known("LPDDR4", "probed"), missing(metadata.WITHHELD)),
                         (document["memory"]["type"], document["os"]["version"]))

    def test_what_was_taken_out_is_not_asked_for_again(self) -> None:
        keys = [ask.key for ask in self.complete().asks]
        self.assertIn("metadata.models.0.file_name", keys)
        keys = [ask.key for ask in self.complete("file_name=null").asks]
        self.assertNotIn("metadata.models.0.file_name", keys)


class AServerElsewhere(Case):
    def setUp(self) -> None:
        super().setUp()
        self.write(target={"class": "lan", "scheme": "http", "port": 8080, "path": None})

    def test_nothing_of_this_machine_stands_for_the_servers(self) -> None:
        machine = Mac()
        told = self.complete(*IMPORTANT, machine=machine)
        document = self.read("hardware.json")
        self.assertEqual([], machine.asked)
        self.assertEqual({"python.version": known("3.9.6", "probed"),
                          "python.implementation": known("CPython", "probed")},
                         {key: item for key, item in metadata.values(document)
                          if item != missing(declareds.REMOTE)})
        self.assertEqual(["hardware.cpu.model_name", "hardware.memory.capacity_bytes",
                          "hardware.accelerators_count"],
                         [ask.key for ask in told.asks if ask.important])
        self.assertIn("The server ran on another machine", self.read("run.md"))

    def test_an_address_of_this_very_machine_is_to_be_said(self) -> None:
        said = "--set same_machine=true"
        self.assertIn(said, " ".join(self.complete(*IMPORTANT).notes))
        self.assertNotIn(said, " ".join(self.complete("same_machine=true").notes))

    def test_its_machine_is_described_and_the_description_is_kept(self) -> None:
        told = self.complete(
            *IMPORTANT, "cpu.model_name=AMD EPYC 9354", "memory.capacity_bytes=405000000000",
            "accelerators.0.model_name=NVIDIA L40S", "accelerators.1.model_name=NVIDIA L40S")
        self.assertEqual(0, told.exit_code)
        self.complete("accelerators.1.memory_bytes=48000000000")
        document = self.read("hardware.json")
        card = {name: missing(why) for name, why in
                inventory.ACCELERATOR_FIELDS.items()}
        card["model_name"] = known("NVIDIA L40S", "declared")
        self.assertEqual((known(2, "declared"), [
            card, {**card, "memory_bytes": known(48_000_000_000, "declared")}]),
            (document["accelerators_count"], document["accelerators"]))

    def test_an_address_in_the_lan_may_be_this_very_machine(self) -> None:
        machine = Mac()
        self.complete("same_machine=true", machine=machine)
        self.assertTrue(machine.asked)
        self.assertEqual(known("Apple M1", "probed"),
                         self.read("hardware.json")["cpu"]["model_name"])
        self.assertEqual(known(True, "declared", "computed was false"),
                         self.read("metadata.json")["endpoint"]["same_machine"])

    def test_a_tunnel_takes_out_what_was_probed_and_keeps_what_was_declared(self) -> None:
        self.write(target={"class": "loopback", "scheme": "http", "port": 8080, "path": None})
        self.complete("power.mode=low_power")
        self.complete("same_machine=false")
        self.assertEqual({"power.mode": "low_power"}, {
            key: item["value"] for key, item in metadata.values(self.read("hardware.json"))
            if item["value"] is not None and not key.startswith("python.")})
        self.complete("same_machine=null")
        document = self.read("hardware.json")
        self.assertEqual((known("Apple M1", "probed"), known("low_power", "declared")),
                         (document["cpu"]["model_name"], document["power"]["mode"]))

    def test_nothing_is_demanded_of_a_public_endpoint(self) -> None:
        self.write(target={"class": "public", "scheme": "https", "port": 443, "path": None})
        self.assertEqual(0, self.complete().exit_code)

    def test_accelerators_are_counted_as_listed(self) -> None:
        self.refused("nothing is said of it", "accelerators.1.model_name=A")
        self.complete("accelerators.0.model_name=A")
        self.assertEqual(known(1, "declared"), self.read("hardware.json")["accelerators_count"])
        self.refused("1 are listed", "accelerators_count=0")
        self.complete("accelerators_count=8")
        self.complete("accelerators.0.model_name=null")
        document = self.read("hardware.json")
        self.assertEqual((known(8, "declared"), []),
                         (document["accelerators_count"], document["accelerators"]))


class Refusals(Case):
    def test_settings(self) -> None:
        self.complete()
        for setting, words in (
                ("backend", "type KEY=VALUE"),
                ("backed=cuda", "did you mean metadata.runtime.backend"),
                ("zzz=1", "there is no such value"),
                ("version=1", "several values end so (hardware.os.version"),
                ("metadata.cells.0=1", "computed from the run and cannot be set"),
                ("metadata.run.wall_s=1", "computed from the run and cannot be set"),
                ("models.1.quantization=F16", "there is no such value"),
                ("backend=gpu", "one of cpu, cuda"),
                ("memory.speed_mts=fast", "a whole number from 1"),
                ("memory.speed_mts=0", "a whole number from 1"),
                ("memory.speed_mts=1.5", "a whole number from 1"),
                ("memory.capacity_bytes=99999999999999999999", "a whole number from 1"),
                ("gpu_offload_ratio=1.1", "a number from 0 to 1"),
                ("gpu_offload_ratio=nan", "a number from 0 to 1"),
                ("gpu_offload_ratio=1e999", "a number from 0 to 1"),
                ("bits_per_weight=65", "a number from 0 to 64"),
                ("unified=maybe", "true or false"),
                ("instruction_sets=AVX 2", "words with commas between"),
                ("kv_cache_type=F16", "small letters"),
                ("family=", "at most 120 characters"),
                ("family=" + "x" * 121, "at most 120 characters"),
                ("family=unknown", "a stand-in says less than nothing"),
                ("family=TBD", "a stand-in says less than nothing"),
                ("family= qwen", "plain printable text"),
                ("family=a\x1b[31m", "plain printable text"),
                ("family=a\u202eb", "plain printable text"),
                ("host_hostname_short=box", "host_hostname_short=null"),
                ("run_md.poem=a", "run_md.deviations, run_md.notes, run_md.attestation"),
                ("run_md.notes=<!-- end run_md.notes -->", "without the page's own marks"),
                ("run_md.notes=a\x1bb", "printable text"),
                ("run_md.notes= ", "printable text"),
                ("run_md.attestation=yes", "it takes true"),
                ("\x1b]0;x\x07=1", "there is no such value")):
            with self.subTest(setting=ascii(setting[:40])):
                self.refused(words, setting)

    def test_private_values_are_refused_with_the_reason(self) -> None:
        for setting in ("launch_flags=-m /home/adalove/x.gguf", "system.model_name=192.168.1.7",
                        "file_name=adalovelace.gguf", "run_md.notes=mail ada@lovelace.org"):
            with self.subTest(setting=setting):
                self.refused("must not be published", setting, names=(ADA,))

    def test_private_words_in_the_page_are_refused(self) -> None:
        self.complete()
        page = self.read("run.md").replace(run_md.SECTIONS["notes"], "of adalovelace")
        files.write_whole(self.path("run.md"), page.encode())
        self.refused("run.md, run_md.notes: ada... (11 characters)", names=(ADA,))

    def test_a_folder_that_is_no_run(self) -> None:
        self.folder = self.root
        with self.assertRaisesRegex(HarnessError, "is no run: it holds no manifest.json"):
            self.complete()
        self.folder = os.path.join(self.root, "\x1b[31m")
        with self.assertRaises(HarnessError) as caught:
            self.complete()
        self.assertTrue(str(caught.exception).isprintable())

    def test_a_run_without_a_ledger_or_without_a_line(self) -> None:
        self.cut(0)
        self.refused("has not written a line")
        self.refused("has not written a line", partial=True)
        os.unlink(self.path("run.jsonl"))
        self.refused("holds no run.jsonl")

    def test_a_run_that_has_not_ended_is_named_with_the_command_that_goes_on(self) -> None:
        self.cut(4)
        resume = ("python3 harness/run_benchmark.py --run-id 00000000-0000-0000-0000-000000000000 "
                  f"--out-dir {self.root}")
        self.refused(f"has not ended (5 planned calls are missing). Go on with it: {resume} -- or "
                     "add --partial")

    def test_it_is_completed_as_partial_where_that_is_asked_for(self) -> None:
        self.cut(4)
        told = self.complete(partial=True)
        self.assertEqual("partial", told.run_class)
        self.assertEqual("partial", self.read("metadata.json")["run"]["class"])
        self.assertIn("the run is partial: 5 planned calls were not made", self.read("run.md"))

    def test_a_torn_line_is_told(self) -> None:
        self.cut(4)
        with open(self.path("run.jsonl"), "ab") as file:
            file.write(b'{"event": "call_fin')
        notes = " ".join(self.complete(partial=True).notes)
        self.assertIn("ends in 19 bytes of a torn line", notes)

    def test_the_resume_command_names_what_the_manifest_does_not_hold(self) -> None:
        self.write(target={"class": "lan", "scheme": "http", "port": 80, "path": None},
                   api_key_used=True)
        self.cut(4)
        self.refused(f"--target-url URL --api-key-env NAME --out-dir {self.root} -- or")

    def test_a_finished_run_in_which_a_cell_is_missing_is_partial(self) -> None:
        events = ledger_of(self.manifest, five())
        del events[5]
        self.assertEqual("partial", metadata.run_class(self.manifest, events))

    def test_a_run_that_somebody_writes(self) -> None:
        fd = files.open_to_append(self.path("run.jsonl"))
        self.addCleanup(os.close, fd)
        self.assertTrue(files.lock(fd))
        self.refused("is still being written; wait for its end: python3 harness/run_benchmark.py "
                     "--wait 100")

    def test_evidence_that_was_changed(self) -> None:
        data = self.bytes()["run.jsonl"]
        files.write_whole(self.path("run.jsonl"), data.replace(b"word word", b"word  word", 1))
        self.refused("was changed after the run", kind=StorageError)
        files.write_whole(self.path("run.jsonl"), data)
        files.write_whole(self.path("manifest.json"), ledger.dump_document(
            {**self.manifest, "device_tag": "mac-m9-8gb"}))
        with self.assertRaises(StorageError):
            self.complete()

    def test_own_files_that_were_broken_since(self) -> None:
        self.complete()
        for name, data, words in (
                ("hardware.json", b"{", "is not JSON"),
                ("metadata.json", b'{"schema_version": "1"}', "is missing"),
                ("hardware.json", b"\xff", "is not UTF-8"),
                ("run.md", b"# mine", "begin run_md.deviations --> stands there 0 times"),
                ("run.md", b"\xff", "decode")):
            kept = self.bytes()[name]
            files.write_whole(self.path(name), data)
            with self.subTest(name=name, data=data):
                self.refused(words, kind=StorageError)
            files.write_whole(self.path(name), kept)

    def test_a_run_of_another_machine(self) -> None:
        self.refused("made on another machine (Darwin arm64) than this one (Linux x86_64)",
                     machine=Bare())
        self.complete("same_machine=false", machine=Bare())
        self.complete(machine=Bare())

    def test_an_earlier_inventory_is_enough_elsewhere(self) -> None:
        self.complete()
        before = self.bytes()
        self.complete(machine=Bare())
        self.assertEqual(before, self.bytes())


class Privacy(Case):
    def test_a_probed_value_that_is_private_is_left_out(self) -> None:
        self.complete(names=(privacy.MachineName("host", "Apple M1"),))
        left_out = missing(declareds.PRIVATE)
        document = self.read("hardware.json")
        self.assertEqual((left_out, left_out), (document["cpu"]["model_name"],
                                                document["accelerators"][0]["model_name"]))
        self.complete()
        self.assertEqual(left_out, self.read("hardware.json")["cpu"]["model_name"])

    def test_what_the_run_itself_carries_is_told_with_the_remedy(self) -> None:
        self.manifest = manifest_of(("5q",), models=("adalovelace/tiny",), synthetic=False)
        self.write()
        told = self.complete(*IMPORTANT, names=(ADA,))
        self.assertEqual(1, told.exit_code)
        self.assertIn("metadata.models.0.model", [found.where for found in told.private])
        self.assertIn("serve the model under another name", told.private[0].what)

    def test_the_host_name_is_the_one_thing_that_a_manifest_lets_go(self) -> None:
        self.write(host_hostname_short="ada-box", hostname_omitted=False)
        before = self.bytes()
        told = self.complete()
        self.assertIn("manifest.json publishes this machine's name", told.notes[0])
        self.assertEqual(before["manifest.json"], self.bytes()["manifest.json"])
        told = self.complete("host_hostname_short=null")
        self.assertEqual(["hardware.json", "manifest.json", "metadata.json", "run.md"],
                         told.written)
        self.assertEqual(before["manifest.json"].replace(b'"ada-box"', b"null"),
                         self.bytes()["manifest.json"])
        self.assertNotIn("publishes", " ".join(told.notes))
        self.assertTrue(self.read("metadata.json")["run"]["host_name_removed"])
        self.complete()
        self.assertTrue(self.read("metadata.json")["run"]["host_name_removed"])


class Writing(Case):
    def test_where_one_file_cannot_be_written_none_is(self) -> None:
        self.complete()
        real = files.write_whole

        def full(path: str, data: bytes) -> None:
            if "run.md" in path:
                raise OSError(errno.ENOSPC, "No space left on device")
            real(path, data)

        with mock.patch.object(files, "write_whole", full):
            self.refused("cannot be written (No space left on device)", "quantization=Q8_0",
                         kind=StorageError)

    def test_a_file_is_replaced_whole_and_only_when_all_are_there(self) -> None:
        seen: list[list[str]] = []
        real = os.replace

        def look(source: str, target: str) -> None:
            if target in map(self.path, OURS):
                seen.append(sorted(name for name in os.listdir(self.folder)
                                   if name.endswith(complete_submission.STAGED)))
            real(source, target)

        with mock.patch.object(os, "replace", look):
            self.complete()
        self.assertEqual([f"{name}.new" for name in OURS], seen[0])
        self.assertEqual(sorted(NAMES), sorted(os.listdir(self.folder)))


class TheCommand(Case):
    def main(self, *words: str) -> tuple[int, str, str]:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), \
                mock.patch.object(system, "Machine", Mac), \
                mock.patch.object(complete_submission, "this_machine", lambda: []):
            try:
                code: Any = complete_submission.main(words)
            except SystemExit as ended:
                code = ended.code
        return code, out.getvalue(), err.getvalue()

    def test_what_matters_for_the_ranking_is_told_first_and_makes_it_1(self) -> None:
        code, out, err = self.main(self.folder)
        self.assertEqual((1, ""), (code, err))
        self.assertEqual([
            "Missing, and the run is not ranked without:",
            "  --set metadata.runtime.backend=VALUE   one of cpu, cuda, rocm, metal, vulkan, sycl, "
            "openvino, opencl, directml, webgpu, cann, tpu, other",
            "      Compute API that it used. Look at: the devices in its log at the start "
            "(MLX is metal, NVIDIA cards are usually cuda)",
            "  --set metadata.models.0.gpu_offload_ratio=VALUE   a number from 0 to 1"],
            out.split("\n")[3:7])
        self.assertIn("\n\nOnly you can tell; leave out what you do not know:\n  --set "
                      "hardware.memory.speed_mts=VALUE   a whole number from 1\n", out)
        self.assertTrue(out.endswith(
            "--set metadata.runtime.backend=VALUE --set metadata.models.0.gpu_offload_ratio=VALUE"
            "\n"))

    def test_the_servers_command_line_is_shown_until_it_is_declared(self) -> None:
        machine = Mac()
        machine.commands.update({
            "lsof -nP -iTCP:11434": "p5\n",
            "ps -ww": "llama-server -m /Users/ada/x.gguf -t 8 --api-key abc\n"})
        told = self.complete("file_name=x.gguf", machine=machine)
        shown = [
            "The server's command line as it is now, without folders, addresses and keys:",
            "  llama-server -m x.gguf -t 8 --api-key ...",
            "  If it ran like this all the time, declare: --set launch_flags='-t 8'"]
        self.assertIn("\n".join(["", *shown, ""]), complete_submission.as_text(told))
        self.assertEqual(("llama-server -m x.gguf -t 8 --api-key ...",
                          {"launch_flags": "-t 8"}), told.server)
        told = self.complete("launch_flags=-t 8", machine=machine)
        self.assertNotIn("command line", complete_submission.as_text(told))

    def test_what_the_process_tells_is_proposed_only_in_a_form_that_is_taken(self) -> None:
        asks = self.complete().asks
        started = server_process.Started("x", {"launch_flags": "-fa 1", "runtime.backend": "cuda",
                                               "runtime.flash_attention": "1",
                                               "runtime.threads_count": "8", "other": "y",
                                               "runtime.build_origin": "x" * 500})
        kept = {key: started.settings[key]
                for key in ("launch_flags", "runtime.backend", "runtime.threads_count")}
        self.assertEqual(started._replace(settings=kept),
                         complete_submission._undeclared(started, asks))
        self.assertIsNone(complete_submission._undeclared(None, asks))

    def test_the_process_at_a_port_of_this_machine_is_not_asked_for_another_machines(self) -> None:
        machine = Mac()
        self.write(target={"class": "lan", "scheme": "http", "port": 8080, "path": None})
        self.complete(machine=machine)
        self.assertEqual([], [line for line in machine.asked if line.startswith("lsof")])

    def test_one_document_for_programs(self) -> None:
        code, out, err = self.main(self.folder, "--json", "--set", "backend=metal")
        document = json.loads(out)
        asks = document.pop("asks")
        self.assertEqual({
            "run_id": self.manifest["run_id"], "folder": self.folder, "class": "complete",
            "exit_code": 1, "written": list(OURS),
            "missing": ["metadata.models.0.gpu_offload_ratio"], "private": [],
            "warnings": document["warnings"], "notes": document["notes"], "server": None,
            "next": document["next"]}, document)
        self.assertEqual((1, ""), (code, err))
        self.assertEqual({
            "key": "metadata.models.0.gpu_offload_ratio",
            "what": "Share of the weights on accelerators, 1 for all and 0 for none",
            "how": "ollama ps, or the number of offloaded layers in llama.cpp's log",
            "takes": "a number from 0 to 1", "important": True,
            "set": "--set metadata.models.0.gpu_offload_ratio=VALUE"}, asks[0])
        self.assertEqual({False}, {ask["important"] for ask in asks[1:]})

    def test_what_the_check_will_warn_of_is_told_before_the_words_are_written(self) -> None:
        told = self.complete()
        self.assertEqual(["data-too-regular", "data-too-regular"],
                         [warning.partition(":")[0] for warning in told.warnings])
        out = self.main(self.folder)[1]
        self.assertIn("\nThe check will ask readers to look at (say in your words what explains "
                      f"it):\n  {told.warnings[0]}\n", out)

    def test_what_flags_tell_is_not_asked_once_the_flags_are_known(self) -> None:
        found, machine = self.complete() and (self.read("metadata.json"),
                                              self.read("hardware.json"))
        settings = {f"metadata.runtime.{name}" for name in (
            "flash_attention", "kv_cache_type", "batch_tokens", "micro_batch_tokens")}
        settings.add("metadata.models.0.draft_model")

        def keys(read: bool) -> set[str]:
            return {ask.key for ask in declareds.asks(found, machine, read)}

        self.assertEqual(settings, keys(False) - keys(True))
        self.complete("launch_flags=-t 4")
        found = self.read("metadata.json")
        self.assertEqual(set(), settings & keys(False))

    def test_memory_is_not_asked_of_a_guest_nor_experts_of_a_dense_model(self) -> None:
        self.complete()
        found, machine = self.read("metadata.json"), self.read("hardware.json")
        machine["memory"]["type"] = metadata.unknown("")
        experts = "metadata.models.0.active_parameters_count"

        def keys() -> set[str]:
            return {ask.key for ask in declareds.asks(found, machine)}

        self.assertIn("hardware.memory.type", keys())
        machine["system"]["kind"] = known("vm", "probed")
        self.assertNotIn("hardware.memory.type", keys())
        for model, asked in (("Qwen3-30B-A3B-Q4_K_M", True), ("mixtral:8x7b", True),
                             ("gpt-oss:20b", True), ("gemma-3-4b-it", False),
                             ("smollm2-135m", False)):
            found["models"][0]["model"] = model
            self.assertEqual(asked, experts in keys(), model)

    def test_the_grep_comes_before_the_statements_that_it_was_done(self) -> None:
        out = self.main(self.folder, *(word for setting in IMPORTANT
                                       for word in ("--set", setting)))[1]
        self.assertRegex(out, r"\nnext: python3 harness/check_submission\.py --privacy \S+run-x\n")

    def test_with_words_and_statements_nothing_is_left_to_note(self) -> None:
        words = [word for setting in (*IMPORTANT, "run_md.notes=none", "run_md.deviations=none",
                                      "run_md.attestation=true") for word in ("--set", setting)]
        code, out, err = self.main(self.folder, *words)
        self.assertEqual((0, ""), (code, err))
        self.assertNotIn("note:", out)
        self.assertRegex(out, r"\nnext: python3 harness/check_submission\.py [^- ]\S+run-x\n")
        self.assertEqual([], run_md.unticked_statements(run_md.read_sections(self.read("run.md"))))

    def test_usage_errors_are_one_line_and_2(self) -> None:
        for words in ((), (self.folder, "--sat"), (self.folder, "--set", "x=1"),
                      (self.folder, "--set", "\x1b[2J=\x1b"), ("\x1b[2J",)):
            code, out, err = self.main(*words)
            with self.subTest(words=words):
                self.assertEqual((2, "", 1), (code, out, err.count("\n")))
                self.assertTrue(err.startswith("complete_submission: "), err)
                self.assertTrue(err[:-1].isascii() and err[:-1].isprintable(), ascii(err))

    def test_storage_errors_are_4(self) -> None:
        self.complete()
        files.write_whole(self.path("metadata.json"), b"[")
        self.assertEqual(4, self.main(self.folder)[0])

    def test_nothing_that_a_server_wrote_reaches_the_terminal_as_it_is(self) -> None:
        odd = "m\x1b[2J\u202e/`|<b>"
        self.manifest = manifest_of(("5q",), models=(odd,), synthetic=False)
        self.write()
        code, out, err = self.main(self.folder)
        self.assertEqual((1, ""), (code, err))
        self.assertTrue(out.isascii())
        self.assertTrue(all(line.isprintable() for line in out.split("\n")))

    def test_the_help_names_every_exit_code(self) -> None:
        code, out, _ = self.main("--help")
        self.assertEqual(0, code)
        for words in ("RUN_DIR", "--set KEY=VALUE", "--partial", "--reprobe", "--json",
                      "0 written", "1 written", "2 usage", "4 storage"):
            self.assertIn(words, out)
        self.assertLessEqual(max(map(len, out.split("\n"))), 100)


class Keys(unittest.TestCase):
    def test_every_key_names_itself_and_takes_something(self) -> None:
        for key in declareds.all_keys(2):
            self.assertEqual(key, declareds.resolve(key, 2))
            self.assertTrue(declareds.takes(key) and declareds.field(key)["description"])

    def test_every_value_of_a_whole_submission_has_a_key(self) -> None:
        folder = os.path.join(make_example.SUBMISSIONS, make_example.RUN)
        keys = set(declareds.all_keys(1))
        for name in ("hardware", "metadata"):
            document = json.loads(Path(folder, f"{name}.json").read_text("utf-8"))
            found = {f"{name}.{key}" for key, _ in metadata.values(document)}
            self.assertTrue(found)
            self.assertEqual(set(), found - keys)

    def test_as_many_accelerators_as_the_schema_allows(self) -> None:
        self.assertEqual(schema.schema("hardware")["properties"]["accelerators"]["maxItems"],
                         declareds.MAX_ACCELERATORS)

    def test_the_end_of_a_key_is_enough_where_no_other_ends_so(self) -> None:
        for typed, models, key in (
                ("backend", 1, "metadata.runtime.backend"),
                ("memory.type", 3, "hardware.memory.type"),
                ("quantization", 1, "metadata.models.0.quantization"),
                ("models.1.quantization", 2, "metadata.models.1.quantization"),
                ("accelerators.3.memory_bytes", 1, "hardware.accelerators.3.memory_bytes"),
                ("runtime.version", 1, "metadata.runtime.version")):
            self.assertEqual(key, declareds.resolve(typed, models))
        with self.assertRaisesRegex(HarnessError, "metadata.models.0.quantization, metadata.models.1"):
            declareds.resolve("quantization", 2)

    def test_text_becomes_the_type_of_its_key(self) -> None:
        for key, text, value in (
                ("hardware.memory.unified", "true", True),
                ("hardware.memory.unified", "false", False),
                ("hardware.memory.speed_mts", "6000", 6000),
                ("hardware.cpu.max_mhz", "5.5e3", 5500.0),
                ("hardware.cpu.instruction_sets", "avx2, fma", ["avx2", "fma"]),
                ("hardware.memory.type", "DDR5", "DDR5"),
                ("metadata.runtime.kv_cache_type", "q8_0/f16", "q8_0/f16"),
                ("metadata.runtime.flash_attention", "on", "on"),
                ("metadata.models.0.draft_model", "none", "none"),
                ("metadata.models.0.file_bytes", "null", None)):
            found = declareds.parse(key, text)
            self.assertEqual((type(value), value), (type(found), found))

    def test_every_declared_field_says_how_it_is_found(self) -> None:
        for key in declareds.all_keys(1):
            if key.startswith("metadata."):
                what, _, how = declareds.field(key)["description"].partition("; ")
                self.assertTrue(what and how, key)

    def test_every_place_to_look_is_one_of_hardware(self) -> None:
        keys = {declareds._look(key) for key in declareds.all_keys(1)
                if key.startswith("hardware.")}
        self.assertEqual(set(), set(declareds.LOOK) - keys)

    def test_every_text_of_the_terminal_is_ascii(self) -> None:
        for key in declareds.all_keys(1):
            self.assertTrue(declareds.field(key)["description"].isascii(), key)


HOSTILE = ("@torvalds", "#1", "![x](http://evil.example/a.png)", "[x](javascript:alert(1))",
           "<img src=x onerror=alert(1)>", "<!-- begin run_md.notes -->", "`<b>`", "``` \n<script>",
           "| a | b |", "\\| <b> @me", "www.evil.example", "https://evil.example",
           "a\x1b[31mb\u202e", "--- \n# title", "| --- |", "\\`<i>")


def without_code(page: str) -> str:
    """What of a page is read as Markdown: no fenced block, code span, or comment of ours."""
    page = re.sub(r"^```text\n.*?\n```$", "", page, flags=re.DOTALL | re.MULTILINE)
    page = re.sub(r"^<!-- Written by .*? -->$", "", page, flags=re.MULTILINE)
    for name in run_md.SECTIONS:
        begin, end = run_md.section_marks(name)
        page = page.partition(begin)[0] + page.partition(end)[2]
    return re.sub(r"`[^`\n]*`", "", page)


class ThePage(Case):
    def made(self, manifest: Json, events: list[Json], *settings: str,
             words: Optional[Json] = None, machine: Any = None) -> str:
        """The page of a run whose files were never written."""
        declared = {key.partition(".")[2]: value for key, value in (
            (declareds.resolve(typed, len(manifest["models"])), declareds.parse(
                declareds.resolve(typed, len(manifest["models"])), text))
            for typed, _, text in (word.partition("=") for word in settings))}
        document = hardware_of(machine or Mac())
        found = metadata.build(manifest, events, "0" * 64, document, declared)
        self.assertEqual([], schema.validate(found, "metadata"))
        return run_md.render_run_md(manifest, found, document, words or {}, events)

    def test_hostile_names_stay_text(self) -> None:
        for name in HOSTILE:
            manifest = manifest_of(("5q",), models=(name, "m"), submitter_handle=name[:39],
                                   device_tag=name[:48], cell_id_prefix=name)
            manifest["engine"] = {"name": name, "version": name, "build": name,
                                  "recognised_by": name}
            events = ledger_of(manifest, five() * 2, facts={
                **make_example.FACTS, "family": name, "digest": name, "quantization": name})
            page = self.made(manifest, events)
            plain = without_code(page)
            with self.subTest(name=name):
                self.assertNotRegex(plain, r"[<@\x1b\u202e]|\]\(|!\[|https?:|www\.|javascript")
                self.assertNotIn("`", plain)
                self.assertEqual(run_md.SECTIONS, run_md.read_sections(page))
                for row in re.findall(r"^\|.*$", page, flags=re.MULTILINE):
                    self.assertIn(row.count("|"), (4, 10), row)

    def test_names_are_quoted_in_the_command_to_reproduce(self) -> None:
        manifest = manifest_of(("5q",), models=("a; rm -rf ~ 'x'",), submitter_handle="ada",
                               device_tag="$(reboot)", api_key_used=True, synthetic=False,
                               target={"class": "lan", "scheme": "http", "port": 80, "path": "/x"})
        self.assertEqual(
            "python3 harness/run_benchmark.py --models 'a; rm -rf ~ '\"'\"'x'\"'\"'' "
            "--target-url <URL> --phases hello,5q --api-key-env NAME --device-tag '$(reboot)' "
            "--cell-id-prefix mac-m1-8gb:ollama --no-hostname",
            run_md.reproduce_command(manifest))

    def test_a_rehearsal_is_reproduced_as_one(self) -> None:
        manifest = manifest_of(("5q",))
        rehearsal = {**manifest, "submitter_handle": "ada"}
        self.assertEqual("python3 harness/run_benchmark.py --rehearse",
                         run_md.reproduce_command(rehearsal))
        self.assertTrue(self.made(manifest, ledger_of(manifest, five())).startswith(
            "> **EXAMPLE, SYNTHETIC.** Made up"))
        manifest["submitter_handle"] = "ada"
        self.assertTrue(self.made(manifest, ledger_of(manifest, five())).startswith(
            "> **SYNTHETIC.** A rehearsal on the embedded endpoint"))

    def test_rendered_twice_it_is_the_same_and_its_words_can_be_taken_out(self) -> None:
        words = {"deviations": "a\n\n- b", "notes": "c `d`", "attestation": "- [x] e"}
        before = copy.deepcopy((self.manifest, self.events))
        page = self.made(self.manifest, self.events, words=words)
        self.assertEqual(words, run_md.read_sections(page))
        self.assertEqual(words, run_md.read_sections(page.replace("\n", "\r\n")))
        self.assertEqual(page, self.made(self.manifest, self.events, words=words))
        self.assertEqual(before, (self.manifest, self.events))

    def test_marks_that_lack_stand_twice_or_cross_are_named(self) -> None:
        page = self.made(self.manifest, self.events)
        begin, end = run_md.section_marks("notes")
        for changed in (page.replace(begin, ""), page + end,
                        page.replace(begin, "X").replace(end, begin).replace("X", end)):
            with self.assertRaisesRegex(ValueError, "run_md.notes"):
                run_md.read_sections(changed)

    def test_words_that_were_never_written_are_known_as_such(self) -> None:
        for text, unwritten in ((run_md.SECTIONS["notes"], True), ("", True), (" \n", True),
                                ("none", False)):
            self.assertEqual(unwritten, run_md.is_unwritten({"notes": text}, "notes"))
        self.complete("run_md.notes=mine", "run_md.deviations=none", "run_md.attestation=true")
        told = self.complete("run_md.notes=null")
        self.assertIn("run.md waits for your words (notes, attestation)", told.notes[0])
        self.assertEqual({**run_md.SECTIONS, "deviations": "none",
                          "attestation": run_md.section_text("attestation", "true")},
                         run_md.read_sections(self.read("run.md")))

    def test_statements_count_only_as_they_stand(self) -> None:
        first = run_md.STATEMENTS[0]
        ticked = {"attestation": run_md.section_text("attestation", "true")}
        self.assertEqual([], run_md.unticked_statements(ticked))
        self.assertEqual([first], run_md.unticked_statements(
            {"attestation": ticked["attestation"].replace("hold no", "hold a")}))
        self.assertEqual(list(run_md.STATEMENTS), run_md.unticked_statements(run_md.SECTIONS))
        self.assertEqual(list(run_md.STATEMENTS), run_md.unticked_statements({}))

    def test_the_shape_of_a_run(self) -> None:
        calls = [answer(tokens=8), answer(), answer(first_us=420_000, gap_us=50_000),
                 Call(1, [], "", "timeout"), answer(tokens=12), answer(gap_us=100_000)]
        events = ledger_of(self.manifest, calls)
        self.assertEqual([
            "         decode, tokens/s  TTFT, ms",
            "qwen2.5:1.5b",
            "  hello  .                 \u2588 210",
            "  5q     \u2588\u2584x.\u2582 10 to 40    \u2584\u2588x\u2584\u2584 210 to 420",
        ], run_md.chart(events))

    def test_a_models_phases_stand_together_in_the_order_in_which_they_began(self) -> None:
        calls = {}
        for name in ("m1", "m2"):
            cells = plan.cells_of(self.manifest["plan"], "5q", [name], "x:y")[:1]
            calls[name] = make_example.call_of(cells[0], answer(), 0, 64)
        events = [{"event": "call_finished", "seq": seq, **calls[name], "phase": phase,
                   "cell_id": f"{name}{phase}"} for seq, (name, phase) in enumerate((
                       ("m1", "hello"), ("m2", "20q"), ("m1", "5q")))]
        self.assertEqual([["m1"], ["hello"], ["5q"], ["m2"], ["20q"]],
                         [line.split()[:1] for line in run_md.chart(events)[1:]])

    def test_no_chart_is_longer_than_its_limit_or_wider_than_its_bars(self) -> None:
        manifest = manifest_of(("5q", "20q"), models=[f"m{i}" for i in range(30)])
        events = ledger_of(manifest, [answer()] * (30 * 26))
        lines = run_md.chart(events)
        self.assertEqual(run_md.CHART_LINES, len(lines))
        self.assertEqual("... and 82 lines more", lines[-1])
        manifest = manifest_of(("5q",), models=[f"m{i}" for i in range(13)])
        lines = run_md.chart(ledger_of(manifest, five() * 13))
        self.assertEqual((40, "m12"), (len(lines), lines[-3]))
        many = manifest_of(("20q",), plan=plan.plan_of(("20q",), make_example.SUITES, 4, 5, 64))
        line = run_md.chart(ledger_of(many, [answer()] * 101))[3]
        self.assertEqual(["20q", "\u2588" * 34, "40", "\u2588" * 34, "210"], line.split())

    def test_the_instruments_error_is_told_in_milliseconds(self) -> None:
        lag = {"p50": 1500, "p99": 2500, "max": 3000, "n": 40}
        events = copy.deepcopy(self.events)
        for event in events:
            if event["event"] == "call_finished":
                event["timing"].update(stamp="kernel", read_lag_us=lag)
        self.assertIn("\n```text\ntiming error: not measured (no calibration in this run)\n"
                      "in the run's own calls: read 1.5 ms after the kernel had the bytes "
                      "(median), 2.5 ms (p99), 3 ms at most, over 6 calls\n```\n",
                      self.made(self.manifest, events))

    def test_deviations_are_computed(self) -> None:
        manifest = manifest_of(
            ("5q", "parallel_mixed"), canonical_options_overrides={"num_ctx": 8192,
                                                                   "temperature": 0.5},
            prompt_cache={"policy": "allow", "method": "none"})
        events = ledger_of(manifest, five())
        skipped = ledger.event_line(
            "phase_skipped", seq=2, run_id=manifest["run_id"], segment=0, at=events[0]["at"],
            t_us=1, model=None, phase="parallel_mixed", reason="two models | needed")
        found = metadata.build(manifest, [skipped, *events], "0" * 64, hardware_of(Mac()),
                               {"models.0.quantization": "F16"})
        self.assertEqual([
            "num_ctx: 8192, canonical is 4096", "temperature: 0.5, canonical is 0.1",
            "`qwen2.5:1.5b`: a context of 4096 tokens was in force, 8192 were asked for",
            "prompts were allowed to come out of the server's cache",
            "parallel_mixed was left out: `two models \\x7c needed`",
            "`models.0.quantization`: the contributor says `F16`, `the server told \"Q4_K_M\"`",
        ], run_md.deviations(manifest, found, [skipped, *events]))

    def test_an_unknown_context_is_told(self) -> None:
        events = ledger_of(self.manifest, five(), context={
            **make_example.CONTEXT, "effective_tokens": None, "reason": "not told"})
        found = metadata.build(self.manifest, events, "0" * 64, hardware_of(Mac()), {})
        self.assertEqual(missing("not told"), found["models"][0]["context_effective_tokens"])
        self.assertEqual(["`qwen2.5:1.5b`: it is not known whether the context of 4096 tokens that "
                          "was asked for was in force"],
                         run_md.deviations(self.manifest, found, events))

    def test_a_canonical_run_has_none(self) -> None:
        self.assertIn("\nThe canonical knobs were in force.\n",
                      self.made(self.manifest, self.events))

    def test_results_are_those_of_the_metadata(self) -> None:
        calls = five(answer(gap_us=40_000), Call(1, [], "", "timeout"))
        page = self.made(self.manifest, ledger_of(self.manifest, calls))
        self.assertIn("| hello (cold) | 1/1 | 210 | 25 | - | - |  |  |  |\n"
                      "| 5q | 4/5 | 210 | 25 | 40 | - |  | 0/4 | `failures`, `few_samples` |\n",
                      page)
        self.assertIn("6 calls (5 `ok`, 1 `timeout`) to `Ollama` `0.12.6` (loopback)", page)
        self.assertIn("- **failures**: Over 5% of the calls failed", page)

    def test_it_is_small_enough_for_a_review(self) -> None:
        self.assertLess(len(self.made(self.manifest, self.events).encode()), 16_000)


def hardware_of(machine: Any) -> Json:
    """hardware.json of a recorded machine."""
    return inventory.inventory(machine)


if __name__ == "__main__":
    unittest.main()
