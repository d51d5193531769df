"""Schemas, their validator, and strict JSON."""
from __future__ import annotations

import json
import re
import unittest
from collections.abc import Iterator
from typing import Any

from core import schema
from tests import format_schemas

FILES = sorted(format_schemas.SCHEMAS.iterdir())
ANNOTATIONS = {"$schema", "$defs", "title", "description", "examples"}
HUGE = 2 ** 53


def findings(value: Any, by: dict[str, Any]) -> list[schema.Finding]:
    """What is wrong with a value by a schema that is not one of the project's."""
    check = schema.compiled(by, {"$defs": {"small": {"maximum": 9}}, **by})
    return [found._replace(path=found.path.removeprefix(".")) for found in check(value)]


def parts_of(node: Any) -> Iterator[dict[str, Any]]:
    """Every schema in a schema, itself included."""
    if isinstance(node, dict):
        yield node
        inner = [node.get(name) for name in ("items", "additionalProperties", "propertyNames")]
        for name in ("properties", "$defs"):
            inner += node.get(name, {}).values()
        for name in ("anyOf", "oneOf"):
            inner += node.get(name, ())
        for one in inner:
            yield from parts_of(one)


# keyword: (schema, valid values, [(invalid value, path, message)])
KEYWORDS: dict[str, tuple[dict[str, Any], list[Any], list[tuple[Any, str, str]]]] = {
    "type": ({"type": "integer"}, [0, -3, 4.0], [
        (True, "", "true is not of type integer"), (0.5, "", "0.5 is not of type integer"),
        ("1", "", '"1" is not of type integer'), (None, "", "null is not of type integer")]),
    "const": ({"const": "1"}, ["1"], [(True, "", 'true is not "1"'), (1, "", '1 is not "1"')]),
    "enum": ({"enum": ["a", "0"]}, ["a", "0"], [
        (0, "", '0 is not one of "a", "0"'), ("A", "", '"A" is not one of "a", "0"')]),
    "minimum": ({"minimum": 2}, [2, 3.5, "text"], [(1.9, "", "1.9 is below 2")]),
    "maximum": ({"maximum": 2}, [2, -3.5, "text"], [(2.1, "", "2.1 is above 2")]),
    "exclusiveMinimum": ({"exclusiveMinimum": 0}, [0.1, None], [(0, "", "0 is not above 0")]),
    "minLength": ({"minLength": 2}, ["ab", 1], [("a", "", '"a" has fewer than 2 characters')]),
    "maxLength": ({"maxLength": 2}, ["ab", "\U0001f600" * 2, 1], [
        ("abc", "", '"abc" has more than 2 characters')]),
    "pattern": ({"pattern": "^a+$"}, ["aa", 1], [("ba", "", '"ba" does not match ^a+$')]),
    "minItems": ({"minItems": 1}, [[0], {}], [([], "", "[] has fewer than 1 items")]),
    "maxItems": ({"maxItems": 1}, [[0], {}], [([0, 0], "", "[0, 0] has more than 1 items")]),
    "uniqueItems": ({"uniqueItems": True}, [["a", "A", ""]], [
        (["a", "b", "a"], "", '["a", "b", "a"] has a repeated item'),
        ([{"a": 1}, {"a": 1}], "", '[{"a": 1}, {"a": 1}] has a repeated item')]),
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
        (1.5, "", "1.5 is below 2")]),
}


class Validator(unittest.TestCase):
    def test_each_keyword_accepts_valid_values_and_explains_invalid_ones(self):
        for keyword, (by, valid, invalid) in KEYWORDS.items():
            with self.subTest(keyword):
                self.assertIn(keyword, by)
                self.assertEqual([findings(value, by) for value in valid], [[] for _ in valid])
                self.assertEqual([findings(value, by) for value, *_ in invalid],
                                 [[schema.Finding(*wrong)] for _, *wrong in invalid])

    def test_each_type_accepts_only_its_values(self):
        values = {"object": {}, "array": [], "string": "", "boolean": False, "null": None,
                  "number": 0.5, "integer": 0}
        for name in values:
            valid = {other for other, value in values.items()
                     if not findings(value, {"type": name})}
            self.assertEqual(valid, {"number", "integer"} if name == "number" else {name})

    def test_unknown_fields_are_named(self):
        closed = {"properties": {"a": {}}, "additionalProperties": False}
        self.assertEqual(findings({"a": 1, "b": 2}, closed), [("b", "is not a known field")])

    def test_paths_are_complete(self):
        by = {"properties": {"a": {"items": {"properties": {"b": {"minimum": 0}}}}}}
        self.assertEqual(findings({"a": [{"b": 0}, {"b": -1}]}, by), [("a[1].b", "-1 is below 0")])

    def test_the_branch_that_was_meant_is_reported(self):
        by = {"anyOf": [{"type": "null"}, {"type": "object", "properties": {
            "a": {"type": "string"}}}]}
        self.assertEqual(findings({"a": 1}, by), [("a", "1 is not of type string")])
        self.assertEqual(findings(3, {"anyOf": [{"type": "null"}, {"type": "string"}]}),
                         [("", "3 is not of type string")])

    def test_everything_wrong_is_reported(self):
        by = {"required": ["a", "b"], "properties": {"c": {"type": "null"}}}
        self.assertEqual(findings({"c": 1}, by), [
            ("", '"a" is missing'), ("", '"b" is missing'), ("c", "1 is not of type null")])

    def test_long_lists_of_integers_are_checked_like_single_values(self):
        times = {"type": "integer", "minimum": 1, "maximum": 5}
        for values in ([], [1, 5], [1, 2.0], [1, 0], [6, 1], [True], ["1"], [1.5]):
            self.assertEqual(findings(values, {"items": times}),
                             findings(values, {"items": {**times, "title": "one by one"}}), values)
        self.assertEqual(len(findings([6, 1, 0], {"items": times})), 2)

    def test_shown_values_are_short_and_printable(self):
        for value, shown in ((None, "null"), ("\x1b[31m\u202e", r'"\u001b[31m\u202e"'),
                             ("x" * 100, '"' + "x" * 56 + "..."), ({1, 2}, "'set'"),
                             (float("nan"), "NaN")):
            self.assertEqual(schema.shown(value), shown)

    def test_the_first_difference_is_named(self):
        for before, after, expected in (
                (1, 2, ("x was 1", "2")),
                ({"a": 1, "b": 2}, {"a": 1, "b": 3}, ("x.b was 2", "3")),
                ({"a": 1}, {"a": 1, "b": 3}, ("x.b was null", "3")),
                ({"a": 1, "b": 3}, {"a": 1}, ("x.b was 3", "null")),
                ({"a": {"b": [1, {"c": 1}]}}, {"a": {"b": [1, {"c": "\x1b"}]}},
                 ("x.a.b[1].c was 1", r'"\u001b"')),
                ([1, 2], [1], ("x was [1, 2]", "[1]")),
                ([1, 2], {"a": 1}, ("x was [1, 2]", '{"a": 1}'))):
            self.assertEqual(schema.difference("x", before, after), expected)


class Schemas(unittest.TestCase):
    def test_schemas_are_formatted(self):
        for path in FILES:
            with self.subTest(path.name):
                text = path.read_text("utf-8")
                self.assertEqual(text, format_schemas.formatted(json.loads(text)) + "\n",
                                 "type python3 harness/tests/format_schemas.py")

    def test_schemas_are_valid_and_use_known_keywords_only(self):
        self.assertEqual([path.name.partition(".")[0] for path in FILES],
                         ["corrections", "hardware", "ledger", "manifest", "metadata"])
        used = set()
        for path in FILES:
            root = schema.strict_json(path.read_bytes())
            self.assertEqual(root["$schema"], "https://json-schema.org/draft/2020-12/schema")
            for part in parts_of(root):
                used.update(part)
                re.compile(part.get("pattern", ""))
                texts = [part.get("const", ""), *part.get("enum", ())]
                self.assertEqual({type(one) for one in texts}, {str})
                self.assertIs(part.get("uniqueItems", True), True)
        # A ledger line is checked by its event: see ledger.validate_line.
        self.assertEqual(used - ANNOTATIONS - {"oneOf"}, set(KEYWORDS))

    def test_every_field_has_a_description(self):
        for path in FILES:
            for part in parts_of(json.loads(path.read_text("utf-8"))):
                for name, field in part.get("properties", {}).items():
                    self.assertTrue(field.get("description"), f"{path.name}: {name}")


class StrictJson(unittest.TestCase):
    def test_unambiguous_json_is_parsed(self):
        text = '{"a": [1, -2.5e3, "\u00e9\U0001f600\\u00e9", true, null], "b": {}, "c": %d}'
        text %= HUGE - 1
        self.assertEqual(schema.strict_json(text.encode("utf-8")), json.loads(text))
        for data, value in ((b" [ ] \n", []), (b'"\\ud83d\\ude00"', "\U0001f600"),
                            (b'"\\ud7ff\\ue000"', "\ud7ff\ue000")):
            self.assertEqual(schema.strict_json(data), value)
        self.assertTrue(schema.strict_json(b"[" * 32 + b"]" * 32))

    def test_ambiguous_json_is_refused_with_the_reason(self):
        deep = b"[" * 33 + b"]" * 33
        for data, reason in (
                (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
                (b"\xef\xbb\xbf{}", "begins with a byte order mark"),
                (b'{"a": 1, "b": {"a": 2, "a": 3}}', 'key "a" occurs twice in one object'),
                (b"[NaN]", "NaN is not JSON"),
                (b"[Infinity]", "Infinity is not JSON"),
                (b"[-Infinity]", "-Infinity is not JSON"),
                (b"[1e999]", "number 1e999 is infinite"),
                (b"[-1e999]", "number -1e999 is infinite"),
                (b"[%d]" % HUGE, f"integer {HUGE} is beyond 2^53 - 1"),
                (b"[%d]" % -HUGE, f"integer -{HUGE} is beyond 2^53 - 1"),
                (b"[" + b"9" * 5000 + b"]", f"integer {'9' * 20} is beyond 2^53 - 1"),
                (b'{"b": 1, "a": 2, "a": 3}', 'key "a" occurs twice in one object'),
                (b'["\\ud800"]', "a text contains half of a surrogate pair"),
                (b'["\\udfff"]', "a text contains half of a surrogate pair"),
                (b'{"\\ude00": 1}', "a text contains half of a surrogate pair"),
                (deep, "is nested too deep"),
                (b'{"a":' * 33 + b"1" + b"}" * 33, "is nested too deep"),
                (b"[" * 100_000, "is nested too deep"),
                (b"", "is not JSON at character 0: Expecting value"),
                (b"[1,]", "is not JSON at character"),
                (b"[1] 2", "is not JSON at character 4: Extra data"),
                (b"{'a': 1}", "is not JSON at character 1"),
                (b'["\n"]', "is not JSON at character 2: Invalid control character at")):
            with self.subTest(data[:40]), self.assertRaises(ValueError) as raised:
                schema.strict_json(data)
            self.assertTrue(str(raised.exception).startswith(reason), raised.exception)


if __name__ == "__main__":
    unittest.main()
