"""Reads the captured conversations with real servers in data/wire/<server>/<case>.txt.

A capture holds one connection: the bytes sent, the bytes received, and the pieces they came in.
The files are bytes, not text: their CR LF and UTF-8 stand as they came over the wire.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple, Optional

WIRE_FOLDER = Path(__file__).resolve().parent / "data" / "wire"

# Two line feeds before a marker are the recorder's own. Of a long request it kept both ends only.
_FORMAT = re.compile(
    rb"##### (?P<title>[^\n]*)\n"
    rb"##### REQUEST \(raw\)\n(?P<request>.*?)\n\n"
    rb"##### RESPONSE BYTES \(raw, concatenated\)\n(?P<response>.*)\n\n"
    rb"##### END: (?P<end>[^\n]*)\n"
    rb"##### SEGMENTS: seconds, repr \(first 60\)\n(?P<segments>.*)",
    re.DOTALL,
)
_ELISION = re.compile(rb"\n\.\.\.\[\d+ bytes\]\.\.\.\n")


class Segment(NamedTuple):
    """What one read brought: seconds since the request was sent, and the bytes."""

    at_s: float
    data: bytes


class Capture(NamedTuple):
    """One connection, as the client saw it.

    `segments` are the reads, in order; joined they are `response_bytes`.
    `request_cut` tells that the recorder left out the middle of a long request.
    `end` is how it ended: "EOF", "ok" (two answers on one connection), or where the client itself
    hung up; "" in the one capture that kept only a title and the reads, and so has no request.
    """

    request_bytes: bytes
    response_bytes: bytes
    segments: tuple[Segment, ...]
    end: str
    request_cut: bool


def load(path: Path) -> Capture:
    """The capture in the file `path`; ValueError where it does not have the recorder's shape."""
    content = Path(path).read_bytes()
    match = _FORMAT.fullmatch(content)
    if match is not None:
        return Capture(
            request_bytes=match["request"],
            response_bytes=match["response"],
            segments=_segments(match["segments"]),
            end=match["end"].decode("ascii"),
            request_cut=_ELISION.search(match["request"]) is not None,
        )
    if content.startswith(b"#####"):
        raise ValueError(f"{path}: not a capture")
    segments = _segments(content.partition(b"\n")[2])
    return Capture(b"", b"".join(segment.data for segment in segments), segments, "", False)


def _segments(lines: bytes) -> tuple[Segment, ...]:
    return tuple(map(_segment, lines.splitlines()))


def _segment(line: bytes) -> Segment:
    at_s, literal = line.decode("ascii").split(None, 1)
    return Segment(float(at_s), ast.literal_eval(literal))


def all_captures(server: Optional[str] = None) -> dict[str, Capture]:
    """Every capture, or those of one server, by "<server>/<case>"."""
    pattern = f"{server or '*'}/*.txt"
    return {
        f"{path.parent.name}/{path.stem}": load(path) for path in sorted(WIRE_FOLDER.glob(pattern))
    }
