"""Format the JSON Schemas: what fits into a line of 100 characters is on one line.

    python3 harness/tests/format_schemas.py
"""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"
WIDTH = 100


def formatted(value: Any, indent: int = 0, used: int = 0) -> str:
    """JSON whose objects and arrays are on one line if they fit, and else one member per line.

    used: characters of the line that come before the value. Members that are no objects or arrays
    of objects share lines. An object of objects (properties, $defs) always has one member per line.
    """
    flat = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, (dict, list)) or not value:
        return flat
    is_table = isinstance(value, dict) and len(value) > 1 and all(
        isinstance(one, dict) for one in value.values())
    if used + len(flat) < WIDTH and not is_table:
        return flat
    pairs = value.items() if isinstance(value, dict) else (("", one) for one in value)
    lines, inner = [], " " * (indent + 1)
    joinable = False
    for name, one in pairs:
        head = f"{json.dumps(name)}: " if name else ""
        text = head + formatted(one, indent + 1, len(inner) + len(head))
        is_plain = not is_table and "\n" not in text and "{" not in text
        if joinable and is_plain and len(lines[-1]) + len(text) + 3 <= WIDTH:
            lines[-1] += f", {text}"
        else:
            lines.append(inner + text)
        joinable = is_plain
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + "\n" + ",\n".join(lines) + "\n" + " " * indent + closing


def main() -> int:
    for path in sorted(SCHEMAS.glob("*.json")):
        path.write_text(formatted(json.loads(path.read_text("utf-8"))) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
