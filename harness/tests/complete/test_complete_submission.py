"""complete_submission: what it writes, keeps, refuses and reports."""
from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import tempfile
import unittest
from pathlib import Path
from typing import Any, Optional
from unittest import mock

import complete_submission
from complete import attestation, declared, metadata
from core import files, ledger, privacy, schema
from core.errors import HarnessError, StorageError
from machine import inventory, system
from tests import make_example, valid_run
from tests.machine.test_machine import RecordedMachine
from tests.make_example import Call, Mac, ledger_of, manifest_of, write_raw
from tests.valid_run import Spec

NAMES = ("hardware.json", "manifest.json", "metadata.json", "run.jsonl", "run.md")
WRITTEN = ["hardware.json", "metadata.json", "run.md"]
BACKEND, QUANTIZATION = "metadata.runtime.backend", "metadata.models.0.quantization"
IMPORTANT = (f"{BACKEND}=metal", "metadata.models.0.gpu_offload_ratio=1")
LOCAL = "metadata.endpoint.same_machine"
ADA = privacy.MachineName("user", "adalovelace")


def answer(first_us: int = 210_000, gap_us: int = 25_000, tokens: int = 40) -> Call:
    """An answer of evenly spaced tokens."""
    return Call(first_us, [gap_us] * (tokens - 1), "word " * tokens)


def hello_and_5q(*answers: Call) -> list[Call]:
    """A hello and the answers to the five questions."""
    return [answer(tokens=8), *answers, *[answer()] * (5 - len(answers))]


class NoGpu(RecordedMachine):
    """A recorded Linux desktop, without its graphics card."""

    system, architecture = "Linux", "x86_64"

    def __init__(self) -> None:
        super().__init__("linux_amd_desktop")

    def names(self, path: str) -> list[str]:
        return [] if "drm" in path else super().names(path)

    def run(self, argv: Any, limit_s: float = 0.0) -> Optional[str]:
        return None if "lspci" in argv[0] or "smi" in argv[0] else super().run(argv, limit_s)


def known(value: Any, source: str, reason: Optional[str] = None) -> dict[str, Any]:
    return {"value": value, "source": source, "reason": reason}


def missing(reason: str) -> dict[str, Any]:
    return {"value": None, "source": None, "reason": reason}


class Case(unittest.TestCase):
    """A run of hello and 5q in its own folder."""

    maxDiff = None

    def setUp(self) -> None:
        holder = tempfile.TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.root = holder.name
        self.folder = os.path.join(self.root, "ada", "mac-m1-8gb", "run-x")
        self.manifest = manifest_of(("5q",), synthetic=False)
        self.write()
        # The made ledgers have no greeting and the like; Checked has runs that the check accepts.
        self.check = mock.patch.object(complete_submission, "check_folder", return_value=[])
        self.check.start()
        self.addCleanup(self.check.stop)

    def write(self, facts: dict[str, Any] = make_example.FACTS,
              hardware: Optional[dict[str, Any]] = None, **changed: Any) -> None:
        """Replace the raw files. hardware: as the run has recorded it."""
        self.manifest = {**self.manifest, **changed}
        self.events = ledger_of(self.manifest, hello_and_5q(), facts, hardware=hardware)
        shutil.rmtree(self.folder, ignore_errors=True)
        write_raw(self.folder, self.manifest, self.events)

    def truncate(self, lines: int) -> None:
        """Keep so many lines of the ledger."""
        with open(self.path("run.jsonl"), "wb") as file:
            file.writelines(map(ledger.dump_line, self.events[:lines]))

    def complete(self, *settings: str, machine: Any = None, names: Any = (),
                 **more: Any) -> complete_submission.Report:
        return complete_submission.complete(self.folder, settings, machine=machine or Mac(),
                                            names=names, **more)

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def bytes(self) -> dict[str, bytes]:
        """{name: bytes} of every file in the folder."""
        return {path.name: path.read_bytes() for path in Path(self.folder).iterdir()}

    def read(self, name: str) -> Any:
        text = Path(self.path(name)).read_text("utf-8")
        return json.loads(text) if name.endswith(".json") else text

    def model(self) -> dict[str, Any]:
        found: dict[str, Any] = self.read("metadata.json")["models"][0]
        return found

    def assert_refused(self, words: str, *settings: str, kind: type = HarnessError,
                       **more: Any) -> None:
        """A call ends with one printable line that contains the words, and changes no file."""
        before = self.bytes()
        with self.assertRaises(kind) as caught:
            self.complete(*settings, **more)
        message = str(caught.exception)
        self.assertIn(words, message)
        self.assertTrue(message.isprintable(), ascii(message))
        self.assertEqual(before, self.bytes())
        self.assertEqual(4 if kind is StorageError else 2, caught.exception.exit_code)


class Writes(Case):
    def test_example_is_what_its_script_writes(self) -> None:
        folder = os.path.join(make_example.SUBMISSIONS, make_example.RUN)
        kept = {name: Path(folder, name).read_bytes() for name in os.listdir(folder)}
        written = make_example.make(self.root, json.loads(kept["manifest.json"])["files_sha256"])
        self.assertEqual(sorted(NAMES), sorted(kept))
        for name in NAMES:
            self.assertEqual(kept[name].decode(), Path(written, name).read_text("utf-8"),
                             "run python3 harness/tests/make_example.py")

    def test_adds_three_files_and_keeps_the_other_two(self) -> None:
        before = self.bytes()
        report = self.complete(*IMPORTANT)
        after = self.bytes()
        self.assertEqual(sorted(NAMES), sorted(after))
        self.assertEqual(before, {name: after[name] for name in before})
        self.assertEqual((0, WRITTEN), (report.exit_code, report.written))

    def test_both_documents_fit_their_schemas(self) -> None:
        for settings in ((), IMPORTANT, (f"{LOCAL}=false",)):
            self.complete(*settings)
            for name in ("hardware", "metadata"):
                self.assertEqual([], schema.validate(self.read(f"{name}.json"), name))

    def test_second_call_changes_no_byte(self) -> None:
        self.complete(*IMPORTANT, "run_md.notes=a note")
        before = self.bytes()
        self.complete()
        self.assertEqual(before, self.bytes())

    def test_writes_all_files_or_none(self) -> None:
        self.complete()
        write = files.write_whole

        def write_until_full(path: str, data: bytes) -> None:
            if "run.md" in path:
                raise OSError(errno.ENOSPC, "No space left on device")
            write(path, data)

        with mock.patch.object(files, "write_whole", write_until_full):
            self.assert_refused("cannot be written (No space left on device)",
                                f"{QUANTIZATION}=Q8_0", kind=StorageError)


class Metadata(Case):
    def build(self, events: list[dict[str, Any]]) -> Any:
        return metadata.build(self.manifest, events, "0" * 64, inventory.inventory(Mac()), {})

    def test_can_be_rebuilt_from_the_files(self) -> None:
        self.complete(*IMPORTANT, f"{QUANTIZATION}=Q8_0", "metadata.models.0.family=null",
                      f"{LOCAL}=true", "metadata.models.0.name=Qwen2.5 1.5B")
        document = self.read("metadata.json")
        sha256 = hashlib.sha256(self.bytes()["run.jsonl"]).hexdigest()
        self.assertEqual(document, metadata.build(
            self.manifest, self.events, sha256, self.read("hardware.json"),
            metadata.declared_in(document)))

    def test_run_times_and_hashes(self) -> None:
        self.complete()
        last = self.events[-1]
        self.assertEqual({
            "started_at": self.events[0]["at"], "ended_at": last["at"], "segments_count": 1,
            "wall_s": round(last["t_us"] / 1e6, 5), "class": "complete",
            "run_jsonl_sha256": hashlib.sha256(self.bytes()["run.jsonl"]).hexdigest(),
            "manifest_sha256": self.events[0]["manifest_sha256"]},
            self.read("metadata.json")["run"])

    def test_time_is_summed_over_segments_without_pauses(self) -> None:
        resumed = [{**event, "segment": 1, "t_us": 500_000} for event in self.events[-2:]]
        run = self.build([*self.events[:3], *resumed])["run"]
        self.assertEqual((2, (self.events[2]["t_us"] + 500_000) / 1e6),
                         (run["segments_count"], run["wall_s"]))

    def test_reported_and_declared_values_side_by_side(self) -> None:
        self.complete(*IMPORTANT, "metadata.models.0.slots_count=2",
                      "metadata.models.0.draft_model=none")
        undeclared, model = missing(metadata.UNDECLARED), self.model()
        for name, expected in (
                ("quantization", known("Q4_K_M", "server")),
                ("parameters_count", known(1_543_714_304, "server")),
                ("active_parameters_count", undeclared), ("file_name", undeclared),
                ("bits_per_weight", known(5.11007, "computed")),
                ("draft_model", known("none", "declared")),
                ("context_effective_tokens", known(4096, "server")),
                ("slots_count", known(2, "declared")), ("gpu_offload_ratio", known(1, "declared"))):
            self.assertEqual(expected, model[name], name)
        runtime = self.read("metadata.json")["runtime"]
        self.assertEqual({**dict.fromkeys(runtime, undeclared), "name": known("Ollama", "server"),
                          "version": known("0.12.6", "server"),
                          "backend": known("metal", "declared")}, runtime)

    def test_unknown_server_is_a_missing_value(self) -> None:
        self.write(engine={"name": "unknown", "version": None, "build": None,
                           "recognised_by": None})
        report = self.complete(*IMPORTANT)
        runtime = self.read("metadata.json")["runtime"]
        self.assertEqual([missing(metadata.NOT_REPORTED)] * 2,
                         [runtime["name"], runtime["version"]])
        self.assertEqual(["metadata.runtime.name", "metadata.runtime.version"],
                         [one.key for one in report.to_declare if one.important])

    def test_build_replaces_an_unreported_version(self) -> None:
        self.write(engine={**make_example.ENGINE, "version": None, "build": "b6800-abc"})
        self.complete()
        self.assertEqual(known("b6800-abc", "server"),
                         self.read("metadata.json")["runtime"]["version"])

    def test_name_of_a_model_is_there_only_if_declared(self) -> None:
        for setting, found in (("metadata.models.0.family=null", None),
                               ("models.0.name=Qwen3 8B", known("Qwen3 8B", "declared")),
                               ("models.0.name=null", None)):
            self.complete(setting)
            self.assertEqual(found, self.model().get("name"))
            self.assertEqual([], schema.validate(self.read("metadata.json"), "metadata",
                                                 exact=True))

    def test_last_identification_of_the_server_counts(self) -> None:
        updated = {**make_example.ENGINE, "version": "0.13.0"}
        found = self.build([
            {**event, "engine": updated} if event["event"] == "endpoint_identified" else event
            for event in self.events])
        self.assertEqual((updated, known("0.13.0", "server")),
                         (found["endpoint"]["engine"], found["runtime"]["version"]))

    def test_bits_per_weight_from_sizes_that_fit(self) -> None:
        file_bytes, count = "metadata.models.0.file_bytes", "metadata.models.0.parameters_count"
        for settings, bits in (
                ((f"{file_bytes}=null",), missing(metadata.NO_SIZE)),
                ((f"{file_bytes}=9000000000000",), missing(metadata.IMPLAUSIBLE_SIZE)),
                ((f"{file_bytes}=986061888", f"{count}=1972123784"), known(4.0, "computed")),
                ((f"{file_bytes}=986061888", f"{count}=123257736"), known(64.0, "computed"))):
            self.complete(*settings)
            self.assertEqual(bits, self.model()["bits_per_weight"])

    def test_unreported_quantization_is_important(self) -> None:
        self.write(facts={**make_example.FACTS, "quantization": None})
        report = self.complete(f"{BACKEND}=cpu")
        self.assertEqual((1, [QUANTIZATION]), (
            report.exit_code, [one.key for one in report.to_declare if one.important]))
        self.assertEqual(0, self.complete(f"{QUANTIZATION}=Q8_0").exit_code)

    def test_finished_run_without_a_planned_call_is_partial(self) -> None:
        events = ledger_of(self.manifest, hello_and_5q())
        del events[5]
        self.assertEqual("partial", metadata.run_class(self.manifest, events))


class WithoutAccelerator(Case):
    def setUp(self) -> None:
        super().setUp()
        self.write(os={"system": "Linux", "machine": "x86_64"})

    def test_backend_is_computed(self) -> None:
        report = self.complete(machine=NoGpu())
        runtime = self.read("metadata.json")["runtime"]
        self.assertEqual(known(0, "probed"), self.read("hardware.json")["accelerators_count"])
        self.assertEqual((known("cpu", "computed"), known(0, "computed"), known(0, "computed")), (
            runtime["backend"], runtime["accelerators_used_count"],
            self.model()["gpu_offload_ratio"]))
        self.assertEqual(0, report.exit_code)
        self.assertNotIn("hardware.memory.unified", [one.key for one in report.to_declare])

    def test_declaration_overrides_the_computed_backend(self) -> None:
        self.complete(f"{BACKEND}=vulkan", machine=NoGpu())
        self.assertEqual(known("vulkan", "declared", 'computed was "cpu"'),
                         self.read("metadata.json")["runtime"]["backend"])
        self.assertEqual(missing(metadata.UNDECLARED), self.model()["gpu_offload_ratio"])

    def test_backend_of_a_remote_server_is_not_computed(self) -> None:
        self.complete(f"{LOCAL}=false", "hardware.accelerators_count=0", machine=NoGpu())
        self.assertEqual(missing(metadata.UNDECLARED),
                         self.read("metadata.json")["runtime"]["backend"])


class Keeps(Case):
    def test_declarations_and_notes_while_numbers_are_recomputed(self) -> None:
        self.complete(*IMPORTANT, "hardware.memory.type=LPDDR4X", "run_md.notes=mine\nand more")
        before = self.read("metadata.json")
        files.write_whole(self.path("run.md"), self.read("run.md").replace(
            attestation.SECTIONS["deviations"], "by hand, **bold**").encode())
        self.events = ledger_of(self.manifest, hello_and_5q(answer(gap_us=50_000)))
        self.truncate(len(self.events))
        self.complete()
        after = self.read("metadata.json")
        self.assertEqual(metadata.declared_in(before), metadata.declared_in(after))
        self.assertEqual({"memory.type": "LPDDR4X"},
                         metadata.declared_in(self.read("hardware.json")))
        self.assertNotEqual(before["cells"], after["cells"])
        self.assertEqual({**attestation.SECTIONS, "deviations": "by hand, **bold**",
                          "notes": "mine\nand more"},
                         attestation.read_sections(self.read("run.md")))

    def test_machine_is_the_recorded_one_and_not_probed(self) -> None:
        found, machine = inventory.inventory(Mac()), Mac()
        self.write(hardware=found)
        self.complete("hardware.power.mode=low_power", "metadata.runtime.launch_flags=none",
                      machine=machine)
        found["power"]["mode"] = known("low_power", "declared", 'the system reported "automatic"')
        self.assertEqual(found, self.read("hardware.json"))
        files.write_whole(self.path("hardware.json"), self.bytes()["hardware.json"].replace(
            b'"Apple M1"', b'"Apple M9"'))
        self.complete(machine=machine)
        self.assertEqual(known("Apple M1", "probed"),
                         self.read("hardware.json")["cpu"]["model_name"])
        self.assertEqual([], machine.asked)

    def test_run_that_recorded_no_machine_is_probed_once(self) -> None:
        first, second = Mac(), Mac()
        self.complete("hardware.power.mode=low_power", "metadata.runtime.launch_flags=none",
                      machine=first)
        before = self.read("hardware.json")
        second.commands["sysctl hw.model"] = ""
        self.complete(machine=second)
        self.assertEqual(before, self.read("hardware.json"))
        self.assertEqual((True, []), (bool(first.asked), second.asked))

    def test_null_withdraws_a_declaration_and_then_removes_the_reported_value(self) -> None:
        seen = []
        for setting in (f"{QUANTIZATION}=Q8_0", f"{QUANTIZATION}=null", f"{QUANTIZATION}=null",
                        "metadata.models.0.slots_count=null", f"{QUANTIZATION}=Q4_K_M"):
            self.complete(setting)
            seen.append(self.model()["quantization"])
        self.assertEqual([
            known("Q8_0", "declared", 'the server reported "Q4_K_M"'), known("Q4_K_M", "server"),
            missing(metadata.WITHHELD), missing(metadata.WITHHELD),
            known("Q4_K_M", "server")], seen)

    def test_null_does_the_same_in_hardware(self) -> None:
        def seen() -> tuple[Any, Any]:
            document = self.read("hardware.json")
            return document["memory"]["type"], document["os"]["version"]

        self.write(hardware=inventory.inventory(Mac()))
        version, reported = known("14.6.1", "probed"), known("LPDDR4", "probed")
        for setting, expected in (
                ("hardware.memory.type=DDR5", (
                    known("DDR5", "declared", 'the system reported "LPDDR4"'), version)),
                ("hardware.memory.type=null", (reported, version)),
                ("hardware.os.version=null", (reported, missing(metadata.WITHHELD)))):
            self.complete(setting)
            self.assertEqual(expected, seen(), setting)

    def test_removed_value_is_not_asked_for_again(self) -> None:
        key = "metadata.models.0.file_name"
        self.assertIn(key, [one.key for one in self.complete().to_declare])
        self.assertNotIn(key, [one.key for one in self.complete(f"{key}=null").to_declare])


class RemoteServer(Case):
    def setUp(self) -> None:
        super().setUp()
        self.write(target={"class": "lan", "scheme": "http", "port": 8080, "path": None})

    def test_this_machine_is_not_probed(self) -> None:
        machine = Mac()
        report = self.complete(*IMPORTANT, machine=machine)
        self.assertEqual([], machine.asked)
        self.assertEqual({"python.version": known("3.9.6", "probed"),
                          "python.implementation": known("CPython", "probed")},
                         {key: item for key, item in metadata.values(self.read("hardware.json"))
                          if item != missing(declared.REMOTE)})
        self.assertEqual(["hardware.cpu.model_name", "hardware.memory.capacity_bytes",
                          "hardware.accelerators_count"],
                         [one.key for one in report.to_declare if one.important])
        self.assertIn("The server ran on another machine", self.read("run.md"))

    def test_declared_hardware_is_kept(self) -> None:
        report = self.complete(
            *IMPORTANT, "hardware.cpu.model_name=AMD EPYC 9354",
            "hardware.memory.capacity_bytes=405000000000",
            "hardware.accelerators.0.model_name=NVIDIA L40S",
            "hardware.accelerators.1.model_name=NVIDIA L40S")
        self.assertEqual(0, report.exit_code)
        self.complete("hardware.accelerators.1.memory_bytes=48000000000")
        document = self.read("hardware.json")
        card = dict.fromkeys(inventory.ACCELERATOR_FIELDS, missing(metadata.UNDECLARED))
        card["model_name"] = known("NVIDIA L40S", "declared")
        self.assertEqual((known(2, "declared"), [
            card, {**card, "memory_bytes": known(48_000_000_000, "declared")}]),
            (document["accelerators_count"], document["accelerators"]))

    def test_lan_address_of_this_machine_can_be_declared(self) -> None:
        machine, hint = Mac(), f"--set {LOCAL}=true"
        self.assertIn(hint, " ".join(self.complete(*IMPORTANT).notes))
        machine.python = {"version": "3.13.7", "implementation": "PyPy"}     # not the run's
        report = self.complete(f"{LOCAL}=true", machine=machine)
        self.assertNotIn(hint, " ".join(report.notes))
        self.assertTrue(machine.asked)
        self.assertEqual(known("Apple M1", "probed"),
                         self.read("hardware.json")["cpu"]["model_name"])
        self.assertEqual(self.read("manifest.json")["python"], {
            name: item["value"] for name, item in self.read("hardware.json")["python"].items()})
        self.assertEqual(known(True, "declared", "computed was false"),
                         self.read("metadata.json")["endpoint"]["same_machine"])

    def test_tunnel_removes_probed_values_and_keeps_declared_ones(self) -> None:
        self.write(target={"class": "loopback", "scheme": "http", "port": 8080, "path": None})
        self.complete("hardware.power.mode=low_power")
        self.complete(f"{LOCAL}=false")
        self.assertEqual({"power.mode": "low_power"}, {
            key: item["value"] for key, item in metadata.values(self.read("hardware.json"))
            if item["value"] is not None and not key.startswith("python.")})
        self.complete(f"{LOCAL}=null")
        document = self.read("hardware.json")
        self.assertEqual((known("Apple M1", "probed"), known(
            "low_power", "declared", 'the system reported "automatic"')),
                         (document["cpu"]["model_name"], document["power"]["mode"]))

    def test_public_endpoint_needs_no_declaration(self) -> None:
        self.write(target={"class": "public", "scheme": "https", "port": 443, "path": None})
        self.assertEqual(0, self.complete().exit_code)

    def test_accelerators_are_counted_as_listed(self) -> None:
        self.assert_refused("has no value", "hardware.accelerators.1.model_name=A")
        self.complete("hardware.accelerators.0.model_name=A")
        self.assertEqual(known(1, "declared"), self.read("hardware.json")["accelerators_count"])
        self.assert_refused("1 are listed", "hardware.accelerators_count=0")
        self.complete("hardware.accelerators_count=8")
        self.complete("hardware.accelerators.0.model_name=null")
        document = self.read("hardware.json")
        self.assertEqual((known(8, "declared"), []),
                         (document["accelerators_count"], document["accelerators"]))

    def test_local_process_at_the_port_is_not_taken_for_the_server(self) -> None:
        machine = Mac()
        self.complete(machine=machine)
        self.assertEqual([], [line for line in machine.asked if line.startswith("lsof")])


class Refuses(Case):
    def test_settings_that_are_not_valid(self) -> None:
        self.complete()
        family, memory = "metadata.models.0.family", "hardware.memory"
        for setting, words in (
                ("backed=cuda", f"did you mean {BACKEND}"),
                ("version=1", "several values end like this; type hardware.os.version or"),
                ("name=x", "or metadata.runtime.name"),
                ("backend=VALUE", "one of cpu, cuda"),
                ("zzz=1", "there is no such value; type a whole key, such as hardware.memory"),
                ("\x1b]0;x\x07=1", "there is no such value"),
                ("metadata.cells.0=1", "computed from the run and cannot be set"),
                ("metadata.run.wall_s=1", "computed from the run and cannot be set"),
                ("metadata.models.1.quantization=F16", "there is no such value"),
                (f"{BACKEND}=gpu", "one of cpu, cuda"),
                (f"{memory}.speed_mts=fast", "a whole number from 1, such as 6000, or null"),
                (f"{memory}.speed_mts=0", "a whole number from 1"),
                (f"{memory}.speed_mts=1.5", "a whole number from 1"),
                (f"{memory}.capacity_bytes=99999999999999999999", "a whole number from 1"),
                ("metadata.models.0.gpu_offload_ratio=1.1", "a number from 0 to 1"),
                ("metadata.models.0.gpu_offload_ratio=nan", "a number from 0 to 1"),
                ("metadata.models.0.gpu_offload_ratio=1e999", "a number from 0 to 1"),
                ("metadata.models.0.bits_per_weight=65", "a number from 0 to 64"),
                (f"{memory}.unified=maybe", "true or false"),
                ("hardware.cpu.instruction_sets=AVX 2", "words separated by commas"),
                ("metadata.runtime.kv_cache_type=F16", "lower-case letters"),
                (f"{family}=", "at most 120 characters"),
                (f"{family}=" + "x" * 121, "at most 120 characters"),
                (f"{family}=unknown", "no placeholder"),
                (f"{family}=VALUE", "no placeholder"),
                (f"{family}=a\x1b[31m", "printable text"),
                (f"{family}=a\u202eb", "printable text"),
                ("manifest.host_hostname_short=box", "manifest.host_hostname_short=null"),
                ("run_md.poem=a", "run_md.deviations, run_md.notes, run_md.attestation"),
                ("run_md.notes=<!-- end run_md.notes -->", "the page's own comments"),
                ("run_md.notes=TEXT", "without placeholders"),
                ("run_md.notes=a\x1bb", "printable text"),
                ("run_md.notes= ", "printable text"),
                ("run_md.attestation=yes", "type true")):
            with self.subTest(setting=ascii(setting[:40])):
                self.assert_refused(words, setting)

    def test_private_values_and_notes(self) -> None:
        for setting in ("metadata.runtime.launch_flags=-m /home/adalove/x.gguf",
                        "hardware.system.model_name=192.168.1.7",
                        "metadata.models.0.file_name=adalovelace.gguf",
                        "run_md.notes=mail ada@lovelace.org"):
            with self.subTest(setting=setting):
                self.assert_refused("must not be published", setting, names=(ADA,))
        self.complete()
        page = self.read("run.md").replace(attestation.SECTIONS["notes"], "of adalovelace")
        files.write_whole(self.path("run.md"), page.encode())
        self.assert_refused("run.md, notes: ada... (11 characters)", names=(ADA,))

    def test_folder_without_a_run(self) -> None:
        for folder in (self.root, os.path.join(self.root, "\x1b[31m")):
            self.folder = folder
            with self.assertRaisesRegex(HarnessError, "manifest.json is missing") as caught:
                self.complete()
            self.assertTrue(str(caught.exception).isprintable())

    def test_run_without_a_line_or_a_ledger(self) -> None:
        self.truncate(0)
        for partial in (False, True):
            self.assert_refused("is not finished (6 planned calls are missing)", partial=partial)
        os.unlink(self.path("run.jsonl"))
        self.assert_refused("run.jsonl is missing")

    def test_unfinished_run_with_the_command_that_resumes_it(self) -> None:
        self.truncate(4)
        self.assert_refused(
            "is not finished (5 planned calls are missing); add --partial to complete it as it is, "
            "or resume it: " + complete_submission.command(
                "run_benchmark", "--run-id", self.manifest["run_id"], "--out-dir", self.root))
        self.write(target={"class": "lan", "scheme": "http", "port": 80, "path": None},
                   api_key_used=True)
        self.truncate(4)
        self.assert_refused("(with --target-url and --api-key-env as before)")

    def test_unfinished_run_is_completed_with_partial(self) -> None:
        self.truncate(4)
        with open(self.path("run.jsonl"), "ab") as file:
            file.write(b'{"event": "call_fin')
        report = self.complete(partial=True)
        self.assertEqual("partial", report.run_class)
        self.assertEqual("partial", self.read("metadata.json")["run"]["class"])
        self.assertIn("the run is partial: 5 planned calls were not made", self.read("run.md"))
        self.assertIn("incomplete line of 19 bytes", " ".join(report.notes))
        # The check refuses it, so the only way on is to resume it.
        self.assertEqual(complete_submission.command(
            "run_benchmark", "--run-id", self.manifest["run_id"], "--out-dir", self.root,
            "--detach"), report.next)
        text = complete_submission.as_text(report, 80)
        self.assertIn("Next (a partial run cannot be submitted: resume it):", text)
        self.assertNotIn("run_md.attestation=true", text)

    def test_running_run(self) -> None:
        fd = files.open_to_append(self.path("run.jsonl"))
        self.addCleanup(os.close, fd)
        self.assertTrue(files.lock(fd))
        self.assert_refused("is still running; wait for its end: ")

    def test_changed_evidence(self) -> None:
        data = self.bytes()["run.jsonl"]
        files.write_whole(self.path("run.jsonl"), data.replace(b"word word", b"word  word", 1))
        self.assert_refused("was changed after the run", kind=StorageError)
        files.write_whole(self.path("run.jsonl"), data)
        files.write_whole(self.path("manifest.json"), ledger.dump_document(
            {**self.manifest, "device_tag": "mac-m9-8gb"}))
        with self.assertRaises(StorageError):
            self.complete()

    def test_broken_files_of_an_earlier_call(self) -> None:
        self.complete()
        for name, data, words in (
                ("hardware.json", b"{", "is not JSON"),
                ("metadata.json", b'{"schema_version": "1"}', "is missing"),
                ("hardware.json", b"\xff", "is not UTF-8"),
                ("run.md", b"# mine", "begin run_md.deviations --> appears 0 times"),
                ("run.md", b"\xff", "decode")):
            kept = self.bytes()[name]
            files.write_whole(self.path(name), data)
            with self.subTest(name=name, data=data):
                self.assert_refused(words, kind=StorageError)
            files.write_whole(self.path(name), kept)

    def test_run_of_another_machine_unless_its_hardware_is_known(self) -> None:
        self.assert_refused("made on another machine (Darwin arm64) than this one (Linux x86_64)",
                            machine=NoGpu())
        self.complete(f"{LOCAL}=false", machine=NoGpu())
        self.complete(machine=NoGpu())
        self.complete(f"{LOCAL}=null")
        before = self.bytes()
        self.complete(machine=NoGpu())
        self.assertEqual(before, self.bytes())


class Privacy(Case):
    def test_private_probed_value_is_left_out_for_good(self) -> None:
        self.complete(names=(privacy.MachineName("host", "Apple M1"),))
        self.complete()
        document = self.read("hardware.json")
        self.assertEqual([missing(inventory.PRIVATE)] * 2, [
            document["cpu"]["model_name"], document["accelerators"][0]["model_name"]])

    def test_host_name_is_the_only_change_of_a_manifest(self) -> None:
        self.write(host_hostname_short="ada-box")
        before = self.bytes()["manifest.json"]
        self.complete()
        self.assertEqual(before, self.bytes()["manifest.json"])
        report = self.complete("manifest.host_hostname_short=null")
        self.assertEqual(sorted([*WRITTEN, "manifest.json"]), report.written)
        self.assertEqual(before.replace(b'"ada-box"', b"null"), self.bytes()["manifest.json"])
        self.complete()
        self.assertIsNone(self.read("manifest.json")["host_hostname_short"])


class Command(Case):
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

    def set(self, *settings: str) -> tuple[int, str, str]:
        return self.main(self.folder, *(w for one in settings for w in ("--set", one)))

    def test_required_values_come_first_and_exit_with_1(self) -> None:
        code, out, err = self.main(self.folder)
        self.assertEqual((1, ""), (code, err))
        self.assertRegex(out, r"(?s)\n\nImportant for comparisons .*:\n  backend=cuda  +one "
                              r"of cpu, cuda, .* the devices in .*\n  gpu_offload_ratio=1  .*\n\n"
                              r"Optional \(skip what you don't know\):\n"
                              r"  memory.speed_mts=6000  +sudo dmidecode")
        self.assertRegex(out, r"\nNext \(with your text after each =\):\n([ '\w].*\n)+?.* "
                              r"--set gpu_offload_ratio= ")

    def test_a_setting_without_its_sign_or_with_blanks(self) -> None:
        code, out, err = self.main(self.folder, "--set", "backend", "cuda")
        self.assertEqual((code, out), (2, ""))
        self.assertIn("--set: backend: the value is missing; type KEY=VALUE", err)
        self.assertEqual(0, self.set(" backend = cuda", "gpu_offload_ratio= 1 ")[0])
        self.assertEqual(self.read("metadata.json")["runtime"]["backend"]["value"], "cuda")

    def test_a_run_is_found_by_its_id(self) -> None:
        with mock.patch.object(complete_submission, "SUBMISSIONS", os.path.join(self.folder, *(
                [os.pardir] * 3))):
            self.assertEqual(1, self.main(os.path.basename(self.folder))[0])
            self.assertEqual(1, self.main(os.path.join(self.folder, "run.jsonl"))[0])

    def test_run_can_be_completed_from_its_own_folder(self) -> None:
        before = os.getcwd()
        os.chdir(self.folder)
        try:
            self.assertNotIn("private-value", self.main(".")[1])
        finally:
            os.chdir(before)

    def test_version_of_a_llama_cpp_that_does_not_report_it_is_not_looked_for_in_vain(self) -> None:
        with mock.patch.object(declared, "important_keys",
                               return_value=["metadata.runtime.version"]):
            for name, expected in (("llama.cpp", "this build does not know it"),
                                   ("Ollama", "its --version option")):
                out = self.main(self.folder, f"--set=metadata.runtime.name={name}")[1]
                self.assertRegex(out, rf"runtime.version=\S+ +{expected}")

    def test_optional_values_are_only_counted_on_later_calls(self) -> None:
        first, later = self.main(self.folder)[1], self.main(self.folder)[1]
        self.assertNotIn("\nOptional values not declared: ", first)
        self.assertRegex(later, r"\nOptional values not declared: \d+ \(--optional lists them\)\n")
        self.assertIn("\nImportant for comparisons", later)
        self.assertIn("\nOptional (skip", self.main(self.folder, "--optional")[1])

    def test_next_command_is_refused_until_its_values_are_filled_in(self) -> None:
        out = self.main(self.folder)[1].replace("\\\n", "")
        line = re.search(r"\nNext .*:\n(.*)\n", out)[1]
        words = shlex.split(line)
        self.assertEqual(["python3", "harness/complete_submission.py"], words[:2])
        code, _, err = self.main(self.folder, *words[3:])
        self.assertEqual((2, True), (code, "backend=: not valid" in err))
        typed = shlex.split(line.replace("backend=", "backend=metal").replace("ratio=", "ratio=1"))
        self.assertEqual(0, self.main(self.folder, *typed[3:])[0])

    def test_unknown_required_value_does_not_hold_back_the_check(self) -> None:
        out = self.set("run_md.deviations=None.", "notes=None.")[1]
        self.assertIn("--set backend=", out.partition("\nNext")[2])
        code, out, _ = self.set("run_md.attestation=true")
        self.assertEqual(1, code)                  # it can be submitted without
        self.assertIn("\n  backend=cuda ", out)
        self.assertRegex(out, r"\nNext:\n  python3 harness/check_submission.py [^-]")

    def test_notes_are_not_filled_in_if_there_are_warnings(self) -> None:
        warning = complete_submission.findings.Finding(
            "run.jsonl", 0, "data-too-regular", "", "x")
        for found, text in (([], "notes=None."), ([warning], "notes=")):
            self.check.stop()
            with mock.patch.object(complete_submission, "check_folder", return_value=found):
                self.assertTrue(self.complete().next.endswith(f"--set run_md.{text}"))
            self.check.start()

    def test_no_line_is_wider_than_the_terminal_but_commands_and_paths(self) -> None:
        with mock.patch.dict(os.environ, {"COLUMNS": "80"}):
            out = self.main(self.folder)[1]
        for line in out.split("\n"):
            self.assertTrue(len(line) <= 80 or "run-x" in line, line)

    def test_server_command_line_is_shown_until_it_is_declared(self) -> None:
        machine = Mac()
        machine.commands.update({
            "lsof -nP -iTCP:11434": "p5\n",
            "ps -ww": "llama-server -m /Users/ada/x.gguf -t 8 --api-key abc\n"})
        report = self.complete("metadata.models.0.file_name=x.gguf", machine=machine)
        self.assertEqual(("llama-server -m x.gguf -t 8 --api-key ...",
                          {"metadata.runtime.launch_flags": "-t 8"}),
                         (report.server_line, report.proposed))
        self.assertRegex(complete_submission.as_text(report, 80),
                         r"(?s)\nNext .*:\n  python3 .* --set 'launch_flags=-t 8' ")
        for is_new in (True, False):
            text = complete_submission.as_text(report._replace(proposed={}, is_new=is_new), 80)
            self.assertEqual(is_new, "It shows no option that affects speed" in text)
        self.assertIn("The next command declares it.",
                      complete_submission.as_text(report._replace(is_new=False), 80))
        report = self.complete("launch_flags=-t 8", machine=machine)
        self.assertNotIn("command line", complete_submission.as_text(report, 80))

    def test_server_that_cannot_be_read_is_named_with_the_reason(self) -> None:
        self.assertRegex(complete_submission.as_text(self.complete(), 80),
                         r"\nHow the server was started could not be read: no process ")

    def test_server_settings_are_proposed_only_if_set_accepts_them(self) -> None:
        accepted = {"launch_flags": "-fa 1", "runtime.backend": "cuda",
                    "runtime.threads_count": "8"}
        started = complete_submission.server_process.Started("x", {
            **accepted, "runtime.flash_attention": "1", "other": "y",
            "runtime.build_origin": "x" * 500})
        with mock.patch.object(complete_submission.server_process, "started",
                               return_value=started):
            report = self.complete()
        self.assertEqual({f"metadata.runtime.{key.rpartition('.')[2]}": text
                          for key, text in accepted.items()}, report.proposed)

    def test_json_is_one_document(self) -> None:
        code, out, err = self.main(self.folder, "--json", "--set", f"{BACKEND}=metal")
        document = json.loads(out)
        self.assertEqual((1, "", 1), (code, err, document["exit_code"]))
        self.assertEqual(
            (self.manifest["run_id"], "complete", WRITTEN, [],
             ["deviations", "notes", "attestation"]),
            tuple(document[name] for name in ("run_id", "run_class", "written", "refused",
                                              "to_do")))
        first, *others = document["to_declare"]
        self.assertEqual(
            ("metadata.models.0.gpu_offload_ratio", "1", "a number from 0 to 1", True,
             "--set gpu_offload_ratio="),
            tuple(first[name] for name in ("key", "example", "accepts", "important", "set")))
        self.assertEqual([first["key"]], document["missing"])
        self.assertEqual({False}, {one["important"] for one in others})

    def test_still_to_do_names_what_is_unwritten(self) -> None:
        out = self.set(*IMPORTANT)[1]
        self.assertRegex(out, r"\nStill to do in run.md: deviations, notes, attestation\n")
        self.assertRegex(out, r"(?s)\nNext:\n  \S+ harness/complete_submission\.py .*=None\..*"
                              r"=None\.\n.*\nthen, .*:\n.*--set run_md\.attestation=true\n")
        for statement in attestation.STATEMENTS:
            self.assertIn(statement, " ".join(out.split()))
        out = self.set("run_md.notes=none", "run_md.deviations=none")[1]
        self.assertRegex(out, r"\nNext:\n  \S+ harness/check_submission\.py (\\\n +)?--privacy ")
        code, out, err = self.set("run_md.notes=none", "run_md.deviations=none",
                                  "run_md.attestation=true")
        self.assertEqual((0, ""), (code, err))
        self.assertNotIn("Still to do", out)
        self.assertRegex(out, r"(?s)\nNext:\n  \S+ harness/check_submission\.py .*run-x'?\n$")
        self.assertNotIn("--privacy", out)
        sections = attestation.read_sections(self.read("run.md"))
        self.assertEqual([], attestation.unticked_statements(sections))
        report = self.complete("run_md.notes=null", "run_md.attestation=null")
        self.assertEqual(["notes", "attestation"], report.to_do)

    def test_usage_errors_are_one_safe_line(self) -> None:
        for words in ((), (self.folder, "--sat"), (self.folder, "--set", "x=1"),
                      (self.folder, "--set", "\x1b[2J=\x1b"), ("\x1b[2J",)):
            code, out, err = self.main(*words)
            with self.subTest(words=words):
                self.assertEqual((2, "", 1), (code, out, err.count("\n")))
                self.assertTrue(err.startswith("complete_submission: "), err)
                self.assertTrue(err[:-1].isascii() and err[:-1].isprintable(), ascii(err))

    def test_storage_errors_exit_with_4(self) -> None:
        self.complete()
        files.write_whole(self.path("metadata.json"), b"[")
        self.assertEqual(4, self.main(self.folder)[0])

    def test_server_text_is_escaped(self) -> None:
        self.manifest = manifest_of(("5q",), models=("m\x1b[2J\u202e/`|<b>",), synthetic=False)
        self.write()
        code, out, err = self.main(self.folder)
        self.assertEqual((1, ""), (code, err))
        self.assertTrue(all(line.isprintable() for line in out.split("\n")), ascii(out))

    def test_help_lists_options_and_exit_codes(self) -> None:
        code, out, _ = self.main("--help")
        self.assertEqual(0, code)
        for words in ("RUN_DIR", "--set KEY=VALUE", "--partial", "--optional",
                      "--json", "0 written", "1 written", "2 wrong usage", "4 a file"):
            self.assertIn(words, out)
        self.assertLessEqual(max(map(len, out.split("\n"))), 100)


class Checked(Case):
    """Runs that the check accepts, but for one mistake."""

    def make(self, spec: Spec, change: Any = None) -> None:
        self.check.stop()
        made = valid_run.make(spec)
        if change:
            change(made.events)
            made = made.sealed()
        self.folder = made.write(self.root)

    def text(self, report: complete_submission.Report) -> str:
        return complete_submission.as_text(report, 80)

    def test_honest_run_waits_only_for_notes_and_attestation(self) -> None:
        self.make(Spec(phases="frozen"))
        os.unlink(self.path("run.md"))
        report = self.complete()
        self.assertEqual((0, [], ["deviations", "notes", "attestation"]),
                         (report.exit_code, report.refused, report.to_do))
        self.assertNotIn("would refuse", self.text(report))

    def test_errors_are_shown_with_remedies_apart_from_what_is_to_do(self) -> None:
        self.make(Spec(phases="frozen,5q", swapped=True))
        report = self.complete("run_md.notes=null")
        self.assertEqual((1, {"ledger-altered"}, ["notes"]),
                         (report.exit_code, {one.code for one in report.refused}, report.to_do))
        text = self.text(report)
        self.assertRegex(text, r"\nThe check would refuse this:\n  ledger-altered  run\.jsonl:\d+ "
                               r".*\n    lane 0 made .*\n    fix: restore run\.jsonl")
        self.assertIn("\nNext (once the errors are fixed):\n", text)
        self.assertIn("harness/complete_submission.py ", report.next)

    def test_placeholder_in_a_note_would_be_refused(self) -> None:
        self.make(Spec(phases="frozen"))
        report = self.complete("run_md.notes=TODO: cooling")
        self.assertEqual((["placeholder-left"], []),
                         ([one.code for one in report.refused], report.to_do))

    def test_cell_with_failed_calls_is_named_as_not_ranked(self) -> None:
        ids = [question.id for question in valid_run.SUITES["20q"]]
        self.make(Spec(phases="frozen,20q", failing=tuple(ids[:8])))
        report = self.complete()
        self.assertEqual(0, report.exit_code)
        self.assertIn("smollm2-135m 20q: failures (8 of 20 calls: 8 connection_lost), survivors",
                      report.not_ranked)
        self.assertRegex(self.text(report), r"\nNot ranked, but published:\n  smollm2-135m 20q: ")

    def test_private_text_of_the_run_would_be_refused(self) -> None:
        self.make(Spec(phases="frozen"))
        report = self.complete(names=(privacy.MachineName("host", "smollm2-135m"),))
        self.assertEqual({"private-value"}, {one.code for one in report.refused})
        self.assertIn("manifest.json", {one.path.rpartition("/")[2] for one in report.refused})

    def test_warnings_are_shown_with_remedies(self) -> None:
        def add_address(events: Any) -> None:
            for event in events:
                if event["event"] == "call_finished" and event["response"]:
                    event["response"]["text"] += " mail me: ada.lovelace@posteo.net"

        self.make(Spec(phases="frozen"), add_address)
        report = self.complete()
        self.assertIn("private-answer", {one.code for one in report.warnings})
        self.assertRegex(self.text(report), r"(?s)\nWarnings \(.*\):.*  private-answer  "
                                            r"run\.jsonl:\d+ \(response\.text\)\n.*fix: ")


class Recompute(unittest.TestCase):
    def recompute(self, *words: str) -> tuple[int, str]:
        with contextlib.redirect_stdout(io.StringIO()) as out, \
                contextlib.redirect_stderr(io.StringIO()) as error:
            code = complete_submission.main(["--recompute", *words])
        return code, out.getvalue() + error.getvalue()

    def test_outdated_documents_are_recomputed_and_broken_ones_left(self) -> None:
        with tempfile.TemporaryDirectory() as root:
            folders = [valid_run.make(Spec(phases="frozen", seed=seed)).write(root)
                       for seed in (1, 2)]
            texts = [[Path(folder, name).read_bytes() for name in NAMES] for folder in folders]
            self.assertEqual(self.recompute(root)[1].count(": unchanged\n"), 2)
            path = Path(folders[0], "metadata.json")
            document = json.loads(path.read_bytes())
            document.update(metrics_version=2, headlines=[], cells=[{}])
            path.write_text(json.dumps(document), encoding="utf-8")
            ledger_path = Path(folders[1], "run.jsonl")
            ledger_path.write_bytes(b"{}\n")
            code, output = self.recompute(root)
            self.assertEqual((code, output.count(": recomputed\n"), output.count(": failed, ")),
                             (4, 1, 1))
            ledger_path.write_bytes(texts[1][NAMES.index("run.jsonl")])
            self.assertEqual(
                texts, [[Path(folder, name).read_bytes() for name in NAMES] for folder in folders])

    def test_wrong_use_is_one_line(self) -> None:
        with tempfile.TemporaryDirectory() as empty:
            for words in (("/no/such",), (empty,), (empty, "--partial")):
                code, output = self.recompute(*words)
                self.assertEqual((code, output.count("\n")), (2, 1), words)


if __name__ == "__main__":
    unittest.main()
