"""Ledger lines and manifests, and reading back what a run left."""
from __future__ import annotations

import base64
import contextlib
import hashlib
import math
import os
import signal
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from core import ledger, schema
from machine import gauges
from run import calibration
from tests import make_documents, runs
from tests.scripted_endpoint import ANSWER, HANG, ScriptedEndpoint, models
from tests.scripted_runs import QUICK

# --- lines ---------------------------------------------------------------------------------------
STARTED = {"event": "run_started", "seq": 0, "run_id": "1" * 8 + "-1111-4111-8111-" + "1" * 12,
           "segment": 0, "at": "2026-11-24T10:00:00.000Z", "t_us": 4,
           "manifest_sha256": "0" * 64}


def skipped(seq: int, reason: str = "no") -> dict[str, Any]:
    """A simple ledger line."""
    return {**{name: STARTED[name] for name in ledger.COMMON_FIELDS}, "event": "model_skipped",
            "seq": seq, "model": "m", "reason": reason}


class Lines(unittest.TestCase):
    def test_keys_are_in_the_schemas_order(self):
        fields = dict(reversed(list(STARTED.items())))
        del fields["event"]
        made = ledger.event_line("run_started", **fields)
        self.assertEqual(list(made.items()), list(STARTED.items()))

    def test_missing_and_unknown_fields_are_errors(self):
        fields = {name: value for name, value in STARTED.items() if name != "event"}
        del fields["t_us"]
        with self.assertRaisesRegex(KeyError, r"run_started: \['t_us'\]"):
            ledger.event_line("run_started", **fields)
        with self.assertRaisesRegex(KeyError, r"run_started: \['x'\]"):
            ledger.event_line("run_started", **fields, t_us=1, x=1)
        with self.assertRaisesRegex(KeyError, "run_begun"):
            ledger.event_line("run_begun", **fields, t_us=1)

    def test_every_line_begins_with_the_common_fields(self):
        for event in ledger.event_names():
            names = list(schema.schema("ledger")["$defs"][event]["properties"])
            self.assertEqual(tuple(names[:6]), ledger.COMMON_FIELDS)

    def test_lines_are_compact_utf8(self):
        self.assertEqual(ledger.dump_line({"a": "\u00e9\n", "b": [1, 2.5, None, True]}),
                         '{"a":"\u00e9\\n","b":[1,2.5,null,true]}\n'.encode())

    def test_a_call_outside_of_a_run_records_nothing(self):
        clock = iter((5_000_000, 5_000_999, 7_500_000))
        nothing = ledger.NoLedger(lambda: next(clock))
        self.assertEqual((nothing.segment, nothing.zero_ns, nothing.now_us(), nothing.now_us(),
                          nothing.write("model_skipped", model="m")),
                         (0, 5_000_000, 0, 2500, {"event": "model_skipped", "model": "m"}))

    def test_half_of_a_surrogate_pair_becomes_a_question_mark(self):
        self.assertEqual(ledger.dump_line({"a": "x\ud83d"}), b'{"a":"x?"}\n')

    def test_nan_and_infinities_are_refused(self):
        for value in (math.nan, math.inf, -math.inf):
            with self.assertRaises(ValueError):
                ledger.dump_line({"a": value})
            with self.assertRaises(ValueError):
                ledger.dump_document({"a": value})

    def test_documents_are_indented(self):
        self.assertEqual(ledger.dump_document({"a": {"b": "\u00e9"}}),
                         '{\n  "a": {\n    "b": "\u00e9"\n  }\n}\n'.encode())

    def test_lines_are_validated_by_their_event(self):
        self.assertEqual(ledger.validate_line(STARTED), [])
        self.assertEqual(ledger.validate_line({**STARTED, "t_us": -1}),
                         [("t_us", "-1 is below 0")])
        for line, shown in (({**STARTED, "event": "timing"}, '"timing"'),
                           ({"event": ["x"]}, '["x"]'), ({}, "null"), ([], "null"),
                           (None, "null")):
            self.assertEqual(ledger.validate_line(line),
                             [("event", f"{shown} is not a kind of ledger line")])

    def test_the_last_line_of_a_cell_counts(self):
        def call(seq: int, cell_id: str, outcome: str) -> dict[str, Any]:
            return {"event": "call_finished", "seq": seq, "cell_id": cell_id, "outcome": outcome}

        events = [skipped(0), call(1, "b", "timeout"), call(2, "a", "ok"), call(3, "b", "ok"),
                  call(4, "c", "timeout")]
        self.assertEqual(ledger.latest_calls(events), [events[2], events[3], events[4]])
        self.assertEqual(ledger.counts(events), {"ok": 2, "timeout": 1})
        self.assertEqual(ledger.counts([]), {})

    def test_every_outcome_is_explained(self):
        outcome = schema.schema("ledger")["$defs"]["call_finished"]["properties"]["outcome"]
        self.assertEqual(set(outcome["enum"]), set(make_documents.OUTCOMES))


# --- files ---------------------------------------------------------------------------------------
class Files(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.path = os.path.join(folder.name, "run.jsonl")

    def write(self, *pieces: Any):
        with open(self.path, "wb") as file:
            file.write(b"".join(p if isinstance(p, bytes) else ledger.dump_line(p) for p in pieces))


class ReadLedger(Files):
    def test_torn_lines_are_separated_from_whole_ones(self):
        one, two = skipped(0), skipped(1)
        bytes_one, bytes_two = map(ledger.dump_line, (one, two))
        for data, expected in (
                (b"", ([], 0, b"", False)),
                (bytes_one, ([one], len(bytes_one), b"", False)),
                (bytes_one + bytes_two, ([one, two], len(bytes_one + bytes_two), b"", False)),
                (bytes_one + bytes_two[:-1], ([one, two], len(bytes_one + bytes_two) - 1, b"",
                                              True)),
                (bytes_one + bytes_two[:-2], ([one], len(bytes_one), bytes_two[:-2], False)),
                (bytes_one + b"{", ([one], len(bytes_one), b"{", False)),
                (bytes_one + b"7", ([one], len(bytes_one), b"7", False)),
                (bytes_one + b"{}", ([one], len(bytes_one), b"{}", False)),
                (bytes_one + b"\xff\x00", ([one], len(bytes_one), b"\xff\x00", False)),
                (bytes_one + b"[" * 99_999, ([one], len(bytes_one), b"[" * 99_999, False)),
                (b"\0" * 9, ([], 0, b"\0" * 9, False))):
            with self.subTest(data[-20:]):
                self.write(data)
                self.assertEqual(ledger.read_ledger(self.path), ledger.LedgerState(*expected))

    def test_a_missing_ledger_is_empty(self):
        self.assertEqual(ledger.read_ledger(self.path), ledger.LedgerState([], 0, b"", False))

    def test_a_changed_line_is_an_error_with_its_number(self):
        for pieces, line in (((skipped(0), b"{}\n", skipped(2)), 2), ((skipped(1),), 1),
                             ((skipped(0), skipped(2)), 2), ((skipped(0), b"\n"), 2),
                             ((skipped(0), ledger.dump_line(skipped(2))[:-1]), 2),
                             ((b"[" * 99_999 + b"\n",), 1), ((b"\xff\n", skipped(1)), 1)):
            self.write(*pieces)
            with self.subTest(pieces=len(pieces)), self.assertRaises(ledger.LedgerError) as raised:
                ledger.read_ledger(self.path)
            self.assertIn(f"{self.path}, line {line}: not the line", str(raised.exception))
            self.assertEqual(raised.exception.exit_code, 4)

    def test_an_unreadable_ledger_is_an_error(self):
        with self.assertRaisesRegex(ledger.LedgerError, r"cannot be read \(Is a directory\)"):
            ledger.read_ledger(self.folder)

    def test_torn_bytes_are_kept_until_they_are_recorded(self):
        recorded = {"event": "run_resumed", "torn_base64": base64.b64encode(b"old").decode()}
        none = {"event": "run_resumed", "torn_base64": None}
        for events, torn, kept, expected in (
                ([], b"", b"", b""), ([], b"new", b"", b"new"), ([], b"", b"old", b"old"),
                ([], b"new", b"new", b"new"), ([], b"new", b"old", b"oldnew"),
                ([recorded], b"", b"old", b""), ([none], b"", b"old", b"old"),
                ([recorded], b"", b"", b""), ([recorded], b"new", b"", b"new"),
                ([recorded], b"new", b"old", b"new"), ([recorded], b"old", b"old", b"old")):
            self.assertEqual(ledger.unrecorded_torn_bytes(
                ledger.LedgerState(events, 0, torn, False), kept), expected)


class Tail(Files):
    def test_each_line_is_read_once_and_whole(self):
        lines = [skipped(0), skipped(1), skipped(2)]
        bytes_of = b"".join(map(ledger.dump_line, lines))
        tail, came = ledger.Tail(self.path), []
        for end in range(len(bytes_of) + 1):
            self.write(bytes_of[:end])
            new = tail.new_events()
            self.assertLessEqual(len(new), 1)
            came += new
            self.assertEqual(len(came), bytes_of[:end].count(b"\n"))
        self.assertEqual((came, tail.events), (lines, lines))
        self.assertEqual(tail.new_events(), [])

    def test_several_lines_are_read_at_once(self):
        self.write(skipped(0), skipped(1), b'{"torn')
        tail = ledger.Tail(self.path)
        self.assertEqual(tail.new_events(), [skipped(0), skipped(1)])
        self.write(skipped(0), skipped(1), skipped(2))         # the torn one was cut off meanwhile
        self.assertEqual(tail.new_events(), [skipped(2)])

    def test_a_changed_line_ends_the_tail(self):
        self.write(skipped(0), b"{}\n")
        with self.assertRaisesRegex(ledger.LedgerError, "line 2: not the line"):
            ledger.Tail(self.path).new_events()

    def test_a_removed_file_ends_the_tail(self):
        with self.assertRaisesRegex(ledger.LedgerError, r"cannot be read \(No such file"):
            ledger.Tail(self.path).new_events()


class Manifests(Files):
    def test_only_the_host_name_may_be_removed(self):
        manifest = {"a": 1, "host_hostname_short": "box", "b": {"c": [1, 2]}}
        tie = ledger.manifest_sha256(manifest)
        self.assertEqual(tie, ledger.manifest_sha256({**manifest, "host_hostname_short": None}))
        self.assertEqual(tie, ledger.manifest_sha256(dict(reversed(list(manifest.items())))))
        self.assertEqual(tie, hashlib.sha256(
            b'{"a":1,"b":{"c":[1,2]},"host_hostname_short":null}').hexdigest())
        for changed in ({"a": 2}, {"b": {"c": [2, 1]}}, {"d": None}):
            self.assertNotEqual(tie, ledger.manifest_sha256({**manifest, **changed}))

    def test_a_run_is_found_by_id_and_by_folder(self):
        folder = os.path.join(self.folder, "ada", "desk", "run-x[1]")
        os.makedirs(folder)
        Path(folder, "manifest.json").touch()
        for run in ("x[1]", "run-x[1]", folder):
            self.assertEqual(ledger.find_run(self.folder, run), folder)
        for run in ("x1", "", "*", os.path.join(self.folder, "ada")):
            self.assertIsNone(ledger.find_run(self.folder, run))

    def test_a_ledger_with_a_byte_has_lines(self):
        found = [ledger.has_lines(os.path.join(self.folder, "none")),
                 ledger.has_lines(self.folder)]
        for data in (b"", b"{"):
            self.write(data)
            found.append(ledger.has_lines(self.folder))
        self.assertEqual(found, [False, False, False, True])

    def test_a_run_with_an_invalid_line_is_refused(self):
        with ScriptedEndpoint() as endpoint:
            runs.run("--target-url", endpoint.url, "--out-dir", self.folder, "--smoke", "--quiet",
                     "--run-id", STARTED["run_id"])
        folder = runs.folder_of(self.folder, STARTED["run_id"])
        manifest, held = ledger.load_run(folder)
        self.assertEqual((manifest["run_id"], len(held.events)), (STARTED["run_id"], 5))
        path = Path(folder, "run.jsonl")
        path.write_bytes(path.read_bytes().replace(b'"t_us":', b'"t_us":-4', 1))
        with self.assertRaisesRegex(ledger.LedgerError, r"line 1: t_us: -\d+ is below 0"):
            ledger.load_run(folder)

    def test_a_folder_without_a_run_is_refused(self):
        with self.assertRaisesRegex(ledger.LedgerError, "has no manifest.json: use the folder"):
            ledger.load_run(self.folder)

    def test_an_unreadable_manifest_is_an_error(self):
        os.mkdir(os.path.join(self.folder, "manifest.json"))
        with self.assertRaisesRegex(ledger.LedgerError, r"manifest\.json cannot be read \(Is a"):
            ledger.read_manifest(self.folder)


# --- what the runner writes ----------------------------------------------------------------------
class EveryLine(unittest.TestCase):
    @runs.posix_only
    def test_every_kind_of_line_is_written_and_valid(self):
        def interrupt(connection: Any):
            os.kill(os.getpid(), signal.SIGINT)
            HANG(connection)

        short = {**calibration.SCHEDULE, "tokens": 5, "first_token_ms": 1}
        with contextlib.ExitStack() as stack:
            for patch in (*QUICK, mock.patch.object(calibration, "SCHEDULE", short),
                          mock.patch.object(calibration, "SATURATION_CHUNKS", 100),
                          mock.patch.object(gauges, "SAMPLE_EVERY_S", 0.01)):
                stack.enter_context(patch)
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            endpoint = stack.enter_context(ScriptedEndpoint(ANSWER, ANSWER, (interrupt,)))
            endpoint.get["/v1/models"] = models("m", "text-embedding-3")["/v1/models"]
            words = ("--target-url", endpoint.url, "--out-dir", folder, "--models", "auto",
                     "--phases", "5q,parallel_mixed", "--quiet", "--run-id", STARTED["run_id"])
            self.assertEqual([runs.run(*words, *more).code for more in (
                [], ["--phases", "depth"])], [130, 0])
            found = runs.folder_of(folder, STARTED["run_id"])
            lines = Path(found, "run.jsonl").read_bytes().splitlines()
            events = [schema.strict_json(line) for line in lines]
            manifest = schema.strict_json(Path(found, "manifest.json").read_bytes())
        self.assertEqual({event["event"] for event in events}, set(ledger.event_names()))
        self.assertEqual([ledger.validate_line(event) for event in events], [[]] * len(events))
        self.assertEqual(schema.validate(manifest, "manifest"), [])
        self.assertEqual([list(event) for event in events], [
            [name for name, node in schema.schema("ledger")["$defs"][event["event"]][
                "properties"].items() if "by earlier versions" not in node["description"]
             and (name != "level" or event.get("phase") == "depth")] for event in events])
        calibrated = [e for e in events if e["event"] == "instrument_calibrated"]
        self.assertEqual([e["reason"] for e in calibrated], [None, None])
        self.assertEqual([[row["lanes"] for row in e["lanes"]] for e in calibrated], [[1, 4]] * 2)


if __name__ == "__main__":
    unittest.main()
