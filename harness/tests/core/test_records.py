"""Test that the types of records and the schemas describe the same fields."""
from __future__ import annotations

import typing
import unittest
from typing import Any, Optional, Union

from core import ledger, records, schema

Json = dict[str, Any]
IGNORED = "Written by earlier versions; ignored."
EARLIER = {                   # of manifests that earlier versions have written
    "manifest: api_key_used is required only in one",
    "manifest: kept_awake_by is required only in one"}


def at(root: Json, node: Json) -> Json:
    """The node, or the definition that it refers to."""
    return at(root, root["$defs"][node["$ref"].rpartition("/")[2]]) if "$ref" in node else node


def differences(kind: Any, root: Json, node: Json, where: str) -> list[str]:
    """Fields of a type that are missing, required or nullable in only one of type and schema."""
    node = at(root, node)
    variants = [at(root, one) for one in node.get("anyOf", [node])]
    values = [one for one in variants if one.get("type") != "null"]
    optional = typing.get_origin(kind) is Union and type(None) in typing.get_args(kind)
    if kind is Any:
        return []
    if kind is records.Fact:                  # one variant with a value, one without
        objects = [at(root, v) for one in variants for v in one.get("anyOf", [one])]
        return [f"{where}: fields" for one in objects
                if set(one["properties"]) != kind.__required_keys__]
    found = [] if optional == (len(values) < len(variants)) else [f"{where}: null"]
    if optional:
        kind = Union[tuple(one for one in typing.get_args(kind) if one is not type(None))]
    if typing.get_origin(kind) is list:
        [kind], node = typing.get_args(kind), values[0]["items"]
        return found + differences(kind, root, node, f"{where}[]")
    if not hasattr(kind, "__required_keys__"):
        return found
    hints = typing.get_type_hints(kind)
    properties = {name: part for name, part in values[0]["properties"].items()
                  if name in hints or part.get("description") != IGNORED}
    found += [f"{where}: {name} is only in one" for name in properties.keys() ^ hints.keys()]
    found += [f"{where}: {name} is required only in one"
              for name in set(values[0].get("required", ())) ^ set(kind.__required_keys__)]
    return found + [text for name in properties.keys() & hints.keys()
                    for text in differences(hints[name], root, properties[name],
                                            f"{where}.{name}")]


class Records(unittest.TestCase):
    def test_types_and_schemas_have_the_same_fields(self):
        root = schema.schema("ledger")
        lines = {typing.get_args(typing.get_type_hints(kind)["event"])[0]: kind
                 for kind in typing.get_args(records.LedgerLine)}
        self.assertEqual(set(lines), set(ledger.event_names()))
        found = [text for name, kind in lines.items()
                 for text in differences(kind, root, root["$defs"][name], name)]
        for name, document in (("manifest", records.Manifest), ("metadata", records.Metadata)):
            found += differences(document, schema.schema(name), schema.schema(name), name)
        self.assertEqual(set(found), EARLIER)

    def test_a_difference_is_found(self):
        root = {"properties": {"a": {"type": "integer"}}, "required": []}

        class Same(typing.TypedDict, total=False):
            a: int

        class Other(typing.TypedDict):
            a: Optional[int]
            b: str

        for kind, expected in ((Same, 0), (Other, 4)):
            kind.__annotations__ = typing.get_type_hints(kind, {**globals(), "Optional": Optional})
            self.assertEqual(len(differences(kind, root, root, "x")), expected, kind)


if __name__ == "__main__":
    unittest.main()
