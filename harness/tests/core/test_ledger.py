"""The shapes of a run's files, the validator that reads them, and reading back what a run left."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import math
import os
import re
import signal
import tempfile
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from core import ledger
from core import schema as schemas
from machine import gauges
from run import calibration

from tests import runs
from tests.scripted_endpoint import ANSWER, HANG, ScriptedEndpoint, models
from tests.scripted_runs import QUICK

SCHEMAS = sorted(path.name.partition(".")[0] for path in Path(schemas.SCHEMA_FOLDER).iterdir())
HUGE = 2 ** 53


def findings(value: Any, schema: dict[str, Any]) -> list[schemas.Finding]:
    """Of a value against a schema that is not one of the project's."""
    return list(schemas._Validator({"$defs": {"small": {"maximum": 9}}, **schema}).check(
        value, schema, ""))


# --- the validator -------------------------------------------------------------------------------
# keyword: (schema, values that fit, (a value that does not, where, what is said))
KEYWORDS: dict[str, tuple[dict[str, Any], list[Any], list[tuple[Any, str, str]]]] = {
    "type": ({"type": "integer"}, [0, -3, 4.0], [
        (True, "", "true is not of type integer"), (0.5, "", "0.5 is not of type integer"),
        ("1", "", '"1" is not of type integer'), (None, "", "null is not of type integer")]),
    "const": ({"const": 1}, [1, 1.0], [(True, "", "true is not 1"), ("1", "", '"1" is not 1')]),
    "enum": ({"enum": ["a", 0, None]}, ["a", 0, None], [
        (False, "", 'false is not one of "a", 0, null'), ("A", "", '"A" is not one of "a", 0, '
                                                                   "null")]),
    "minimum": ({"minimum": 2}, [2, 3.5, "text"], [(1.9, "", "1.9 is below 2")]),
    "maximum": ({"maximum": 2}, [2, -3.5, "text"], [(2.1, "", "2.1 is above 2")]),
    "exclusiveMinimum": ({"exclusiveMinimum": 0}, [0.1, None], [(0, "", "0 is not above 0")]),
    "minLength": ({"minLength": 2}, ["ab", 1], [("a", "", '"a" has fewer than 2 characters')]),
    "maxLength": ({"maxLength": 2}, ["ab", "\U0001f600" * 2, 1], [
        ("abc", "", '"abc" has more than 2 characters')]),
    "pattern": ({"pattern": "^a+$"}, ["aa", 1], [("ba", "", '"ba" does not match ^a+$')]),
    "minItems": ({"minItems": 1}, [[0], {}], [([], "", "[] has fewer than 1 items")]),
    "maxItems": ({"maxItems": 1}, [[0], {}], [([0, 0], "", "[0, 0] has more than 1 items")]),
    "uniqueItems": ({"uniqueItems": True}, [[0, False, "0", [1], [True]]], [
        ([0, 0.0], "", "[0, 0.0] has an item twice"),
        ([{"a": 1}, {"a": 1}], "", '[{"a": 1}, {"a": 1}] has an item twice')]),
    "minProperties": ({"minProperties": 1}, [{"a": 0}, []], [({}, "", "{} has fewer than 1 keys")]),
    "maxProperties": ({"maxProperties": 1}, [{"a": 0}, []], [
        ({"a": 0, "b": 0}, "", '{"a": 0, "b": 0} has more than 1 keys')]),
    "required": ({"required": ["a"]}, [{"a": None}, []], [({"b": 0}, "", '"a" is missing')]),
    "properties": ({"properties": {"a": {"type": "null"}}}, [{"a": None}, {"b": 1}, 3], [
        ({"a": 1}, "a", "1 is not of type null")]),
    "additionalProperties": ({"properties": {"a": {}}, "additionalProperties": {"type": "null"}},
                             [{"a": 1, "b": None}, []], [
        ({"a": 1, "b": 2}, "b", "2 is not of type null")]),
    "propertyNames": ({"propertyNames": {"maxLength": 1}}, [{"a": 1}, []], [
        ({"ab": 1}, "ab", '"ab" has more than 1 characters')]),
    "items": ({"items": {"type": "null"}}, [[], [None], "text"], [
        ([None, 1], "[1]", "1 is not of type null")]),
    "$ref": ({"$ref": "#/$defs/small"}, [9, "text"], [(10, "", "10 is above 9")]),
    "anyOf": ({"anyOf": [{"type": "integer"}, {"minimum": 2}]}, [1, 2, 2.5, "text"], [
        (1.5, "", "1.5 is not of type integer")]),
    "oneOf": ({"oneOf": [{"type": "integer"}, {"minimum": 2}]}, [1, 2.5, "text"], [
        (1.5, "", "1.5 is not of type integer"), (2, "", "2 fits more than one form")]),
}


class Validator(unittest.TestCase):
    def test_each_keyword_lets_pass_what_fits_and_says_what_does_not(self):
        for keyword, (schema, fitting, wrong) in KEYWORDS.items():
            with self.subTest(keyword):
                self.assertIn(keyword, schema)
                self.assertEqual([findings(value, schema) for value in fitting],
                                 [[] for _ in fitting])
                self.assertEqual([findings(value, schema) for value, _, _ in wrong],
                                 [[schemas.Finding(*said)] for _, *said in wrong])

    def test_each_type_is_itself_and_nothing_else(self):
        values = {"object": {}, "array": [], "string": "", "boolean": False, "null": None,
                  "number": 0.5, "integer": 0}
        for name in values:
            fitting = {other for other, value in values.items()
                       if not findings(value, {"type": name})}
            self.assertEqual(fitting, {"number", "integer"} if name == "number" else {name})

    def test_a_key_that_is_not_known_is_named(self):
        closed = {"properties": {"a": {}}, "additionalProperties": False}
        self.assertEqual(findings({"a": 1, "b": 2}, closed), [("b", "is not known here")])

    def test_places_are_told_to_the_last_part(self):
        schema = {"properties": {"a": {"items": {"properties": {"b": {"minimum": 0}}}}}}
        self.assertEqual(findings({"a": [{"b": 0}, {"b": -1}]}, schema),
                         [("a[1].b", "-1 is below 0")])

    def test_of_several_forms_the_one_that_was_meant_has_the_word(self):
        schema = {"anyOf": [{"type": "null"}, {"type": "object", "properties": {
            "a": {"type": "string"}}}]}
        self.assertEqual(findings({"a": 1}, schema), [("a", "1 is not of type string")])
        self.assertEqual(findings(3, {"anyOf": [{"type": "null"}, {"type": "string"}]}),
                         [("", "3 is not of type string")])

    def test_everything_that_is_wrong_is_told(self):
        schema = {"required": ["a", "b"], "properties": {"c": {"type": "null"}}}
        self.assertEqual(findings({"c": 1}, schema),
                         [("", '"a" is missing'), ("", '"b" is missing'),
                          ("c", "1 is not of type null")])

    def test_a_calls_many_times_are_judged_as_one_by_one(self):
        times = {"type": "integer", "minimum": 1, "maximum": 5}
        for values in ([], [1, 5], [1, 2.0], [1, 0], [6, 1], [True], ["1"], [1.5]):
            self.assertEqual(findings(values, {"items": times}),
                             findings(values, {"items": {**times, "title": "one by one"}}), values)
        self.assertEqual(len(findings([6, 1, 0], {"items": times})), 2)
        self.assertEqual(schemas.schema("ledger")["$defs"]["timing"]["properties"]["chunk_us"][
            "items"].keys(), times.keys())

    def test_it_knows_every_keyword_that_stands_in_the_schemas(self):
        used: set[str] = set()

        def walk(schema: Any) -> None:
            if not isinstance(schema, dict):
                return
            used.update(schema)
            for name in ("properties", "$defs"):
                for held in schema.get(name, {}).values():
                    walk(held)
            for name in ("items", "additionalProperties", "propertyNames"):
                walk(schema.get(name))
            for name in ("anyOf", "oneOf"):
                for held in schema.get(name, ()):
                    walk(held)

        for name in SCHEMAS:
            walk(schemas.schema(name))
        self.assertEqual(used - set(schemas.ANNOTATIONS), set(KEYWORDS))
        self.assertEqual({*schemas.BOUNDS, *schemas.APPLIED}, set(KEYWORDS))

    def test_every_field_of_every_schema_says_what_it_is(self):
        def undescribed(schema: dict[str, Any], path: str) -> list[str]:
            out = []
            for name, held in schema.get("properties", {}).items():
                out += [] if held.get("description") else [f"{path}.{name}"]
                out += undescribed(held, f"{path}.{name}")
            return out

        for name in SCHEMAS:
            root = schemas.schema(name)
            parts = {"": root, **root.get("$defs", {})}
            self.assertEqual([u for part, held in parts.items() for u in undescribed(held, part)],
                             [], name)

    def test_a_value_is_shown_as_harmless_text(self):
        for value, said in ((None, "null"), ("\x1b[31m\u202e", r'"\u001b[31m\u202e"'),
                            ("x" * 100, '"' + "x" * 56 + "..."), ({1, 2}, "'set'"),
                            (float("nan"), "NaN")):
            self.assertEqual(schemas.shown(value), said)


# --- JSON from strangers -------------------------------------------------------------------------
class StrictJson(unittest.TestCase):
    def test_what_every_reader_sees_alike_is_taken(self):
        text = '{"a": [1, -2.5e3, "\u00e9\U0001f600\\u00e9", true, null], "b": {}, "c": %d}'
        text %= HUGE - 1
        self.assertEqual(schemas.strict_json(text.encode("utf-8")), json.loads(text))
        self.assertEqual(schemas.strict_json(b" [ ] \n"), [])
        self.assertEqual(schemas.strict_json(b'"\\ud83d\\ude00"'), "\U0001f600")
        self.assertEqual(schemas.strict_json(b'"\\ud7ff\\ue000"'), "\ud7ff\ue000")

    def test_what_readers_disagree_on_is_refused_with_the_reason(self):
        deep = b"[" * 33 + b"]" * 33
        for data, reason in (
                (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
                (b"\xef\xbb\xbf{}", "begins with a byte order mark"),
                (b'{"a": 1, "b": {"a": 2, "a": 3}}', 'key "a" stands twice in one object'),
                (b"[NaN]", "NaN is not JSON"),
                (b"[Infinity]", "Infinity is not JSON"),
                (b"[-Infinity]", "-Infinity is not JSON"),
                (b"[1e999]", "number 1e999 is infinite"),
                (b"[-1e999]", "number -1e999 is infinite"),
                (b"[%d]" % HUGE, f"integer {HUGE} is beyond 2^53 - 1"),
                (b"[%d]" % -HUGE, f"integer -{HUGE} is beyond 2^53 - 1"),
                (b"[" + b"9" * 5000 + b"]", f"integer {'9' * 20} is beyond 2^53 - 1"),
                (b'{"b": 1, "a": 2, "a": 3}', 'key "a" stands twice in one object'),
                (b'["\\ud800"]', "half of a surrogate pair stands in a text"),
                (b'["\\udfff"]', "half of a surrogate pair stands in a text"),
                (b'{"\\ude00": 1}', "half of a surrogate pair stands in a text"),
                (deep, "is nested too deep"),
                (b'{"a":' * 33 + b"1" + b"}" * 33, "is nested too deep"),
                (b"[" * 100_000, "is nested too deep"),
                (b"", "is not JSON at character 0: Expecting value"),
                (b"[1,]", "is not JSON at character"),
                (b"[1] 2", "is not JSON at character 4: Extra data"),
                (b"{'a': 1}", "is not JSON at character 1"),
                (b'["\n"]', "is not JSON at character 2: Invalid control character at")):
            with self.subTest(data[:40]), self.assertRaises(ValueError) as raised:
                schemas.strict_json(data)
            self.assertTrue(str(raised.exception).startswith(reason), raised.exception)

    def test_the_depth_that_is_allowed_is_allowed(self):
        self.assertTrue(schemas.strict_json(b"[" * 32 + b"]" * 32))


# --- lines ---------------------------------------------------------------------------------------
STARTED = {"event": "run_started", "seq": 0, "run_id": "1" * 8 + "-1111-4111-8111-" + "1" * 12,
           "segment": 0, "at": "2026-11-24T10:00:00.000Z", "t_us": 4, "clock_origin_ns": 123,
           "manifest_sha256": "0" * 64}


def skipped(seq: int, reason: str = "no") -> dict[str, Any]:
    """A line that is easy to make."""
    return {**{name: STARTED[name] for name in ledger.COMMON_FIELDS}, "event": "model_skipped",
            "seq": seq, "model": "m", "reason": reason}


class Lines(unittest.TestCase):
    def test_keys_stand_in_the_schemas_order_whatever_order_they_come_in(self):
        fields = dict(reversed(list(STARTED.items())))
        del fields["event"]
        made = ledger.event_line("run_started", **fields)
        self.assertEqual(list(made.items()), list(STARTED.items()))

    def test_a_field_that_lacks_or_is_unknown_is_an_error(self):
        fields = {name: value for name, value in STARTED.items() if name != "event"}
        del fields["t_us"]
        with self.assertRaisesRegex(KeyError, r"run_started: \['t_us'\]"):
            ledger.event_line("run_started", **fields)
        with self.assertRaisesRegex(KeyError, r"run_started: \['x'\]"):
            ledger.event_line("run_started", **fields, t_us=1, x=1)
        with self.assertRaisesRegex(KeyError, "run_begun"):
            ledger.event_line("run_begun", **fields, t_us=1)

    def test_every_line_begins_with_what_all_have_in_common(self):
        for event in ledger.event_names():
            names = list(schemas.schema("ledger")["$defs"][event]["properties"])
            self.assertEqual(tuple(names[:6]), ledger.COMMON_FIELDS)

    def test_a_line_is_compact_utf8_with_one_newline_at_its_end(self):
        self.assertEqual(ledger.dump_line({"a": "\u00e9\n", "b": [1, 2.5, None, True]}),
                         '{"a":"\u00e9\\n","b":[1,2.5,null,true]}\n'.encode())

    def test_where_nothing_is_written_a_line_is_what_was_handed_in(self):
        clock = iter((5_000_000, 5_000_999, 7_500_000))
        nothing = ledger.NoLedger(lambda: next(clock))
        self.assertEqual((nothing.segment, nothing.zero_ns, nothing.now_us(), nothing.now_us(),
                          nothing.write("model_skipped", model="m")),
                         (0, 5_000_000, 0, 2500, {"event": "model_skipped", "model": "m"}))

    def test_half_a_surrogate_pair_becomes_a_question_mark(self):
        self.assertEqual(ledger.dump_line({"a": "x\ud83d"}), b'{"a":"x?"}\n')

    def test_nothing_is_written_that_is_no_json(self):
        for value in (math.nan, math.inf, -math.inf):
            with self.assertRaises(ValueError):
                ledger.dump_line({"a": value})
            with self.assertRaises(ValueError):
                ledger.dump_document({"a": value})

    def test_a_document_is_for_people_too(self):
        self.assertEqual(ledger.dump_document({"a": {"b": "\u00e9"}}),
                         '{\n  "a": {\n    "b": "\u00e9"\n  }\n}\n'.encode())

    def test_a_line_is_judged_by_the_shape_that_it_names(self):
        self.assertEqual(ledger.validate_line(STARTED), [])
        self.assertEqual(ledger.validate_line({**STARTED, "t_us": -1}),
                         [("t_us", "-1 is below 0")])
        for line, said in (({**STARTED, "event": "timing"}, '"timing"'),
                           ({"event": ["x"]}, '["x"]'), ({}, "null"), ([], "null"),
                           (None, "null")):
            self.assertEqual(ledger.validate_line(line),
                             [("event", f"{said} is no kind of ledger line")])

    def test_of_several_lines_of_a_cell_the_last_counts(self):
        def call(seq: int, cell_id: str, outcome: str) -> dict[str, Any]:
            return {"event": "call_finished", "seq": seq, "cell_id": cell_id, "outcome": outcome}

        events = [skipped(0), call(1, "b", "timeout"), call(2, "a", "ok"), call(3, "b", "ok"),
                  call(4, "c", "timeout")]
        self.assertEqual(ledger.latest_calls(events), [events[2], events[3], events[4]])
        self.assertEqual(ledger.counts(events), {"ok": 2, "timeout": 1})
        self.assertEqual(ledger.counts([]), {})

    def test_every_outcome_has_its_words(self):
        outcome = schemas.schema("ledger")["$defs"]["call_finished"]["properties"]["outcome"]
        self.assertEqual(set(outcome["enum"]), set(ledger.OUTCOMES))


# --- files ---------------------------------------------------------------------------------------
class Files(unittest.TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.path = os.path.join(folder.name, "run.jsonl")

    def write(self, *pieces: Any) -> None:
        with open(self.path, "wb") as file:
            file.write(b"".join(p if isinstance(p, bytes) else ledger.dump_line(p) for p in pieces))


class ReadLedger(Files):
    def test_whatever_a_crash_left_is_told_apart(self):
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

    def test_a_file_that_is_not_there_is_empty(self):
        self.assertEqual(ledger.read_ledger(self.path), ledger.LedgerState([], 0, b"", False))

    def test_more_than_a_broken_end_is_an_error_with_the_line(self):
        for pieces, line in (((skipped(0), b"{}\n", skipped(2)), 2), ((skipped(1),), 1),
                             ((skipped(0), skipped(2)), 2), ((skipped(0), b"\n"), 2),
                             ((skipped(0), ledger.dump_line(skipped(2))[:-1]), 2),
                             ((b"[" * 99_999 + b"\n",), 1), ((b"\xff\n", skipped(1)), 1)):
            self.write(*pieces)
            with self.subTest(pieces=len(pieces)), self.assertRaises(ledger.LedgerError) as raised:
                ledger.read_ledger(self.path)
            self.assertEqual(str(raised.exception), f"{self.path}, line {line}: not the line that "
                             "a run wrote there; the file was changed afterwards. Take it from a "
                             "backup, or begin a new run")
            self.assertEqual(raised.exception.exit_code, 4)

    def test_what_cannot_be_read_is_an_error(self):
        with self.assertRaisesRegex(ledger.LedgerError, r"cannot be read \(Is a directory\)"):
            ledger.read_ledger(self.folder)

    def test_a_torn_line_is_told_until_it_stands_in_the_ledger(self):
        told = {"event": "run_resumed", "torn_base64": base64.b64encode(b"old").decode()}
        none = {"event": "run_resumed", "torn_base64": None}
        for events, torn, kept, expected in (
                ([], b"", b"", b""), ([], b"new", b"", b"new"), ([], b"", b"old", b"old"),
                ([], b"new", b"new", b"new"), ([], b"new", b"old", b"oldnew"),
                ([told], b"", b"old", b""), ([none], b"", b"old", b"old"),
                ([told], b"", b"", b""), ([told], b"new", b"", b"new"),
                ([told], b"new", b"old", b"new"), ([told], b"old", b"old", b"old")):
            self.assertEqual(ledger.unrecorded_torn_bytes(
                ledger.LedgerState(events, 0, torn, False), kept), expected)


class Tail(Files):
    def test_each_line_comes_once_and_whole(self):
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

    def test_several_lines_at_once(self):
        self.write(skipped(0), skipped(1), b'{"torn')
        tail = ledger.Tail(self.path)
        self.assertEqual(tail.new_events(), [skipped(0), skipped(1)])
        self.write(skipped(0), skipped(1), skipped(2))         # the torn one was cut off meanwhile
        self.assertEqual(tail.new_events(), [skipped(2)])

    def test_a_changed_line_is_an_error(self):
        self.write(skipped(0), b"{}\n")
        with self.assertRaisesRegex(ledger.LedgerError, "line 2: not the line"):
            ledger.Tail(self.path).new_events()

    def test_a_file_that_is_gone_is_an_error(self):
        with self.assertRaisesRegex(ledger.LedgerError, r"cannot be read \(No such file"):
            ledger.Tail(self.path).new_events()


class Manifests(Files):
    def test_only_the_host_name_may_be_taken_out(self):
        manifest = {"a": 1, "host_hostname_short": "box", "b": {"c": [1, 2]}}
        tie = ledger.manifest_sha256(manifest)
        self.assertEqual(tie, ledger.manifest_sha256({**manifest, "host_hostname_short": None}))
        self.assertEqual(tie, ledger.manifest_sha256(dict(reversed(list(manifest.items())))))
        self.assertEqual(tie, hashlib.sha256(
            b'{"a":1,"b":{"c":[1,2]},"host_hostname_short":null}').hexdigest())
        for changed in ({"a": 2}, {"b": {"c": [2, 1]}}, {"d": None}):
            self.assertNotEqual(tie, ledger.manifest_sha256({**manifest, **changed}))

    def test_a_run_is_found_by_its_id_and_by_its_folder(self):
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

    def test_a_run_is_read_only_where_every_line_is_one_of_its_manifest(self):
        with ScriptedEndpoint() as endpoint:
            runs.run("--target-url", endpoint.url, "--out-dir", self.folder, "--smoke", "--quiet",
                     "--run-id", STARTED["run_id"])
        folder = runs.folder_of(self.folder, STARTED["run_id"])
        manifest, held = ledger.load_run(folder)
        self.assertEqual((manifest["run_id"], len(held.events)), (STARTED["run_id"], 5))
        path = Path(folder, "run.jsonl")
        path.write_bytes(path.read_bytes().replace(b'"t_us":', b'"t_us":-', 1))
        with self.assertRaisesRegex(ledger.LedgerError, r"line 1: t_us: -\d+ is below 0"):
            ledger.load_run(folder)

    def test_a_folder_that_is_none_of_a_run_is_told(self):
        with self.assertRaises(ledger.LedgerError) as raised:
            ledger.load_run(self.folder)
        self.assertEqual(str(raised.exception), f"{self.folder} holds no manifest.json: name the "
                         "folder of a run, submissions/<handle>/<device-tag>/run-<uuid>")

    def test_a_manifest_that_cannot_be_read_is_told(self):
        os.mkdir(os.path.join(self.folder, "manifest.json"))
        with self.assertRaisesRegex(ledger.LedgerError, r"manifest\.json cannot be read \(Is a"):
            ledger.read_manifest(self.folder)


class Difference(unittest.TestCase):
    def test_the_first_place_that_differs_is_told(self):
        for was, now, expected in (
                (1, 2, ("x was 1", "2")),
                ({"a": 1, "b": 2}, {"a": 1, "b": 3}, ("x.b was 2", "3")),
                ({"a": 1}, {"a": 1, "b": 3}, ("x.b was null", "3")),
                ({"a": 1, "b": 3}, {"a": 1}, ("x.b was 3", "null")),
                ({"a": {"b": [1, {"c": 1}]}}, {"a": {"b": [1, {"c": "\x1b"}]}},
                 ("x.a.b[1].c was 1", r'"\u001b"')),
                ([1, 2], [1], ("x was [1, 2]", "[1]")),
                ([1, 2], {"a": 1}, ("x was [1, 2]", '{"a": 1}'))):
            self.assertEqual(schemas.difference("x", was, now), expected)


# --- what the runner writes ----------------------------------------------------------------------
class EveryLine(unittest.TestCase):
    def test_every_kind_of_line_is_written_and_fits_its_shape(self):
        def interrupt(connection: Any) -> None:
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
            self.assertEqual([runs.run(*words).code for _ in "ab"], [130, 0])
            found = runs.folder_of(folder, STARTED["run_id"])
            lines = Path(found, "run.jsonl").read_bytes().splitlines()
            events = [schemas.strict_json(line) for line in lines]
            manifest = schemas.strict_json(Path(found, "manifest.json").read_bytes())
        self.assertEqual({event["event"] for event in events}, set(ledger.event_names()))
        self.assertEqual([ledger.validate_line(event) for event in events], [[]] * len(events))
        self.assertEqual(schemas.validate(manifest, "manifest"), [])
        self.assertEqual([list(event) for event in events],
                         [list(schemas.schema("ledger")["$defs"][event["event"]]["properties"])
                          for event in events])
        calibrated = [e for e in events if e["event"] == "instrument_calibrated"]
        self.assertEqual([e["reason"] for e in calibrated], [None, None])
        self.assertEqual([[row["lanes"] for row in e["lanes"]] for e in calibrated], [[1, 4]] * 2)

    def test_every_file_of_the_schemas_is_a_schema_of_its_own(self):
        self.assertEqual(SCHEMAS, ["hardware", "ledger", "manifest", "metadata"])
        for name in SCHEMAS:
            text = Path(schemas.SCHEMA_FOLDER, f"{name}.schema.json").read_bytes()
            self.assertEqual(schemas.strict_json(text)["$schema"],
                             "https://json-schema.org/draft/2020-12/schema")
            for pattern in re.findall(r'"pattern": "((?:[^"\\]|\\.)*)"', text.decode()):
                re.compile(json.loads(f'"{pattern}"'))

