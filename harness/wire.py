"""What a model server put on the wire: bytes of a response body in, chunks of text out.

Pure code. The runner keeps the raw bytes of every read with their time; after the stream has ended
(or on another thread) it feeds them through here, read by read, so that each chunk of text knows the
read that completed it. This is the only stream parser of the project.

    Body          undoes HTTP framing (chunked, Content-Length, or until the connection closes)
    StreamParser  server-sent events -> texts, usage, finish reason, server timings, errors
    timing_of     stamps of the reads + chunks -> the `timing` marks of a ledger line
"""
from __future__ import annotations

import json
import math
from typing import Any, Optional, Sequence

MAX_KEPT_DEPTH = 6        # of a server's own usage and timings objects
MAX_KEPT_ITEMS = 64       # so that a hostile usage object cannot swell the ledger
MAX_KEPT_CHARACTERS = 200


class Body:
    """HTTP framing undone, piece by piece.

    framing: "chunked", "length" or "close"; length_bytes: Content-Length where framing is "length".
    `complete` tells whether the framing says that everything came; "close" never knows.
    """

    def __init__(self, framing: str, length_bytes: int = 0) -> None:
        self.framing = framing
        self.complete = framing == "length" and length_bytes == 0
        self.broken = False
        self._left = length_bytes
        self._pending = b""

    def feed(self, data: bytes) -> bytes:
        """The payload inside `data`; framing bytes are taken off."""
        if self.framing == "chunked":
            return self._feed_chunked(data)
        if self.framing == "length":
            data = data[:self._left]
            self._left -= len(data)
            self.complete = self._left == 0
        return data

    def _feed_chunked(self, data: bytes) -> bytes:
        data, at, out = self._pending + data, 0, []
        while not (self.complete or self.broken):
            if self._left > 0:
                piece = data[at:at + self._left]
                out.append(piece)
                at += len(piece)
                self._left -= len(piece)
                if self._left:
                    break
                self._left = -2                   # the line end that closes a chunk
            if self._left < 0:
                skip = min(-self._left, len(data) - at)
                at += skip
                self._left += skip
                if self._left:
                    break
            line_end = data.find(b"\r\n", at)
            if line_end < 0:
                self.broken = len(data) - at > 4096
                break
            at = self._open_chunk(data[at:line_end], line_end + 2)
        self._pending = data[at:]
        return b"".join(out)

    def _open_chunk(self, size_line: bytes, after: int) -> int:
        try:
            self._left = int(size_line.split(b";", 1)[0].strip() or b"x", 16)
        except ValueError:
            self._left, self.broken = 0, True
        self.broken = self.broken or self._left < 0
        self.complete = not self.broken and self._left == 0
        return after


class StreamParser:
    """Server-sent events of a chat completion, in any cut, to what the model said.

    After `close()`: `texts`, `kinds` ("r" reasoning, "a" answer) and `reads` (index of the read that
    completed the chunk) run in parallel, one entry for every non-empty text; `usage`, `server_timings`,
    `finish_reason`, `model`, `system_fingerprint` as the server gave them (last wins, model: first);
    `error` is the body of an error inside the stream; `done` tells of `[DONE]`.
    """

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.kinds: list[str] = []
        self.reads: list[int] = []
        self.usage: Optional[dict[str, Any]] = None
        self.server_timings: Optional[dict[str, Any]] = None
        self.finish_reason: Optional[str] = None
        self.model: Optional[str] = None
        self.system_fingerprint: Optional[str] = None
        self.error: Any = None
        self.done = False
        self.streamed = True
        self.events = 0
        self.bad_events = 0
        self._parts: list[bytes] = []
        self._data: list[str] = []
        self._data_read = 0
        self._other: list[str] = []

    def feed(self, payload: bytes, read: int) -> None:
        """Take what read number `read` brought. A line without end costs one copy, not one a read."""
        cut = payload.rfind(b"\n")
        if cut < 0:
            if payload:
                self._parts.append(payload)
            return
        self._parts.append(payload[:cut])
        whole = b"".join(self._parts)
        self._parts = [payload[cut + 1:]]
        for line in whole.split(b"\n"):
            self._line(line, read)

    def close(self, read: int) -> StreamParser:
        """The stream has ended: a last line without its newline counts (some servers never send it)."""
        rest = b"".join(self._parts)
        self._parts = []
        if rest:
            for line in rest.split(b"\n"):
                self._line(line, read)
        self._dispatch()
        if not self.events and self._other:
            self._plain_body("\n".join(self._other), read)
        return self

    def _line(self, raw: bytes, read: int) -> None:
        line = raw[:-1] if raw.endswith(b"\r") else raw
        if not line:
            self._dispatch()
        elif line.startswith(b"data:"):
            value = line[6:] if line[5:6] == b" " else line[5:]
            self._data.append(value.decode("utf-8", "replace"))
            self._data_read = read
        elif not line.startswith((b":", b"event:", b"id:", b"retry:")) and len(self._other) < 10_000:
            self._other.append(line.decode("utf-8", "replace"))

    def _dispatch(self) -> None:
        lines, self._data = self._data, []
        if not lines:
            return
        joined = "\n".join(lines)
        # Events that a server forgot to part by an empty line are taken one by one.
        for text in [joined] if len(lines) == 1 or _parse(joined) is not None else lines:
            self._event(text, self._data_read)

    def _event(self, text: str, read: int) -> None:
        if text.strip() == "[DONE]":
            self.events += 1
            self.done = True
            return
        message = _parse(text)
        if isinstance(message, dict):
            self.events += 1
            self._message(message, read)
        else:
            self.bad_events += 1

    def _plain_body(self, text: str, read: int) -> None:
        """One JSON document instead of a stream: the server ignored `stream`, or reports an error."""
        message = _parse(text)
        if isinstance(message, dict):
            self.streamed = False
            self.events += 1
            if "choices" not in message and "detail" in message:
                self.error = message["detail"]
            self._message(message, read)

    def _message(self, message: dict[str, Any], read: int) -> None:
        if message.get("error"):
            self.error = message["error"]
        if isinstance(message.get("usage"), dict):
            self.usage = message["usage"]
        if isinstance(message.get("timings"), dict):
            self.server_timings = message["timings"]
        if self.model is None and isinstance(message.get("model"), str):
            self.model = message["model"]
        if isinstance(message.get("system_fingerprint"), str):
            self.system_fingerprint = message["system_fingerprint"]
        choice = _first_choice(message.get("choices"))
        if isinstance(choice.get("finish_reason"), str) and choice["finish_reason"]:
            self.finish_reason = choice["finish_reason"]
        delta = choice.get("delta") or choice.get("message") or {}
        if isinstance(delta, dict):
            self._take(delta.get("reasoning_content") or delta.get("reasoning"), "r", read)
            self._take(delta.get("content"), "a", read)
        self._take(choice.get("text"), "a", read)

    def _take(self, content: Any, kind: str, read: int) -> None:
        if isinstance(content, list):       # content parts, as some gateways send them
            content = "".join(part["text"] for part in content
                              if isinstance(part, dict) and isinstance(part.get("text"), str))
        if isinstance(content, str) and content:
            self.texts.append(content)
            self.kinds.append(kind)
            self.reads.append(read)

    def text_of(self, kind: str) -> str:
        """All text of one kind, joined."""
        return "".join(t for t, k in zip(self.texts, self.kinds) if k == kind)

    def mark_inline_reasoning(self) -> bool:
        """Chunks inside a leading `<think>...</think>` become reasoning; True where there were any."""
        if "r" in self.kinds or not self.text_of("a").lstrip().startswith("<think>"):
            return False
        seen = ""
        for i, text in enumerate(self.texts):
            if "</think>" in seen:
                break
            self.kinds[i] = "r"
            seen = seen[-8:] + text
        return True


def _parse(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return None


def _first_choice(choices: Any) -> dict[str, Any]:
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict) and choice.get("index", 0) == 0:
                return choice
    return {}


def plain(value: Any, depth: int = MAX_KEPT_DEPTH) -> Any:
    """A server's own object, bounded in depth, items and lengths, without what JSON cannot hold."""
    if isinstance(value, dict) and depth:
        return {str(k)[:MAX_KEPT_CHARACTERS]: plain(v, depth - 1)
                for k, v in list(value.items())[:MAX_KEPT_ITEMS]}
    if isinstance(value, list) and depth:
        return [plain(v, depth - 1) for v in value[:MAX_KEPT_ITEMS]]
    if isinstance(value, str):
        return value[:MAX_KEPT_CHARACTERS]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2 ** 53 else None
    return value if isinstance(value, float) and math.isfinite(value) else None


def runs_of(kinds: Sequence[str]) -> Optional[str]:
    """"rra" -> "r2a1"; None where every chunk is answer, as almost always."""
    if "r" not in kinds:
        return None
    out, start = [], 0
    for i in range(1, len(kinds) + 1):
        if i == len(kinds) or kinds[i] != kinds[start]:
            out.append(f"{kinds[start]}{i - start}")
            start = i
    return "".join(out)


def shared_reads(reads: Sequence[int]) -> list[list[int]]:
    """[[index of the first chunk, chunks]] of every read that brought more than one chunk."""
    out: list[list[int]] = []
    start = 0
    for i in range(1, len(reads) + 1):
        if i == len(reads) or reads[i] != reads[start]:
            if i - start > 1:
                out.append([start, i - start])
            start = i
    return out


def percentile(ordered: Sequence[int], share: float) -> int:
    """Nearest-rank percentile of an ascending, non-empty sequence."""
    return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


def spread(values: Sequence[int]) -> Optional[dict[str, int]]:
    """p50, p99, max and n of integer values; None of nothing."""
    if not values:
        return None
    ordered = sorted(values)
    return {"p50": percentile(ordered, 0.5), "p99": percentile(ordered, 0.99),
            "max": ordered[-1], "n": len(ordered)}


def timing_of(stream: StreamParser, us_of_read: Sequence[int]) -> dict[str, Any]:
    """The text marks of a call, in µs since its request was handed to the socket.

    us_of_read: the stamp of each read of the body. Returns first_token_us, first_answer_us,
    last_token_us, chunk_us, chunk_kinds, reads and ttft_null_reason.
    """
    marks = [us_of_read[r] for r in stream.reads] if stream.streamed else []
    answers = [m for m, kind in zip(marks, stream.kinds) if kind == "a"]
    reason = None if marks else (
        "the server sent one JSON body instead of a stream" if not stream.streamed
        else "the answer has no text" if stream.finish_reason else "no text arrived")
    return {
        "first_token_us": marks[0] if marks else None,
        "first_answer_us": answers[0] if answers else None,
        "last_token_us": marks[-1] if marks else None,
        "chunk_us": marks[:1] + [b - a for a, b in zip(marks, marks[1:])],
        "chunk_kinds": runs_of(stream.kinds) if marks else None,
        "reads": shared_reads(stream.reads) if marks else [],
        "ttft_null_reason": reason,
    }
