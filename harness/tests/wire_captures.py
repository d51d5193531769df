"""Read the captured conversations with real servers in data/wire/<server>/<case>.txt.

A capture holds one connection: the bytes sent, the bytes received, and the reads they came in. The
files are bytes, not text: their CR LF and UTF-8 are as on the wire.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

WIRE_FOLDER = Path(__file__).resolve().parent / "data" / "wire"

# Two line feeds before a marker are the recorder's own.
_FORMAT = re.compile(
    rb"##### [^\n]*\n"
    rb"##### REQUEST \(raw\)\n.*?\n\n"
    rb"##### RESPONSE BYTES \(raw, concatenated\)\n(?P<response>.*)\n\n"
    rb"##### END: (?P<end>[^\n]*)\n"
    rb"##### SEGMENTS: seconds, repr \(first 60\)\n(?P<segments>.*)",
    re.DOTALL)


class Segment(NamedTuple):
    """One read: seconds since the request was sent, and the bytes."""

    at_s: float
    data: bytes


class Capture(NamedTuple):
    """One connection, as the client saw it.

    `segments` are the reads, in order; joined they are `response_bytes`. `end` is how it ended:
    "EOF", "ok" (two answers on one connection), where the client itself hung up, or "" in the one
    capture that kept only the reads.
    """

    response_bytes: bytes
    segments: tuple[Segment, ...]
    end: str


def load(path: Path) -> Capture:
    """Return the capture in a file; ValueError if the file has another format."""
    content = Path(path).read_bytes()
    match = _FORMAT.fullmatch(content)
    if match is not None:
        return Capture(match["response"], _segments(match["segments"]), match["end"].decode())
    if content.startswith(b"#####"):
        raise ValueError(f"{path}: not a capture")
    segments = _segments(content.partition(b"\n")[2])
    return Capture(b"".join(segment.data for segment in segments), segments, "")


def _segments(lines: bytes) -> tuple[Segment, ...]:
    found = (line.decode("ascii").split(None, 1) for line in lines.splitlines())
    return tuple(Segment(float(at_s), ast.literal_eval(literal)) for at_s, literal in found)


def all_captures() -> dict[str, Capture]:
    """Return every capture by "<server>/<case>"."""
    return {f"{path.parent.name}/{path.stem}": load(path)
            for path in sorted(WIRE_FOLDER.glob("*/*.txt"))}
