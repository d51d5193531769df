"""Parse a response body: bytes in, chunks of text out.

Pure code, and the only stream parser of the project. The runner keeps the raw bytes of every read
and parses them here once the stream has ended, read by read, so that each chunk of text is
assigned to the read that completed it.

    Body          removes HTTP framing (chunked, Content-Length, or until the connection closes)
    StreamParser  server-sent events -> texts, usage, finish reason, server timings, errors
    parse_body    the reads of one response through both

Never raises on any input, however it is split into reads; time is linear in the number of bytes.
"""
from __future__ import annotations

import array
import bisect
import json
import math
import re
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, Optional

MAX_KEPT_DEPTH = 6        # of a server's own usage and timings objects
MAX_KEPT_ITEMS = 64       # a hostile usage object must not fill the ledger
MAX_KEPT_VALUES = 512     # in one object, at all depths together
MAX_KEPT_CHARACTERS = 200
MAX_ERROR_CHARACTERS = 2000
MAX_SIZE_LINE_BYTES = 4096
MAX_INTEGER_DIGITS = 32   # int() of a long number is quadratic in old Pythons, an error in new ones
YIELD_EVERY_BYTES = 8192  # a fraction of a millisecond of parsing

BOM = b"\xef\xbb\xbf"
SIZE_LINE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?", re.DOTALL)
JSON_LINE = re.compile(rb"^\{.*\n", re.MULTILINE)


class Body:
    """Remove HTTP framing, read by read (RFC 9112).

    framing: "chunked", "length" or "close"; length_bytes: Content-Length if framing is "length".
    `complete`: the framing shows that the whole body has arrived (with "chunked" from the chunk of
    size 0 on, with "close" never). `broken`: the chunks are invalid; what came before them counts.
    Drops chunk extensions, trailers and whatever follows the end; a lone LF also ends a line.
    """

    def __init__(self, framing: str, length_bytes: int = 0) -> None:
        self.framing = framing
        self.complete = framing == "length" and length_bytes <= 0
        self.broken = False
        self._left = max(length_bytes, 0) if framing == "length" else 0
        self._chunk_ends = False          # the line end that closes a chunk comes next
        self._pending = b""               # a framing line that has not ended yet

    def feed(self, data: bytes) -> bytes:
        """Return the payload in `data`, without framing bytes."""
        if self.framing == "chunked":
            return self._feed_chunked(data)
        if self.framing == "length":
            data = data[:self._left]
            self._left -= len(data)
            self.complete = self._left == 0
        return data

    def _feed_chunked(self, data: bytes) -> bytes:
        data, at, payload = self._pending + data, 0, []
        self._pending = b""
        while at < len(data) and not (self.complete or self.broken):
            if self._left:
                piece = data[at:at + self._left]
                payload.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._chunk_ends = not self._left
            else:
                at = self._read_framing_line(data, at)
        return b"".join(payload)

    def _read_framing_line(self, data: bytes, at: int) -> int:
        """Read one framing line; return the position after it."""
        line_end = data.find(b"\n", at)
        line = data[at:line_end if line_end >= 0 else None]
        if len(line) > MAX_SIZE_LINE_BYTES:
            self.broken = True
        elif line_end < 0:
            self._pending = line
        elif self._chunk_ends:
            self._chunk_ends, self.broken = False, line.strip(b"\r") != b""
        else:
            size = SIZE_LINE.fullmatch(line.rstrip(b"\r"))
            self.broken = size is None
            self._left = int(size[1], 16) if size else 0
            self.complete = size is not None and not self._left
        return line_end + 1 if line_end >= 0 else len(data)


def parse_body(body: Body, raw: bytearray, ends: Sequence[int], start: int,
               sink: Callable[[bytes, int], None], keep_bytes: int) -> bytes:
    """Pass the payload of each read to sink(payload, read); return its first `keep_bytes` bytes.

    raw: all bytes of the response; ends: where each read ended in it; start: where the body begins.
    """
    head, since_yield = bytearray(), 0
    with memoryview(raw) as view:
        for read, end in enumerate(ends):
            if end <= start:                   # part of the header
                continue
            payload = body.feed(bytes(view[start:end]))
            start = end
            if len(head) < keep_bytes:
                head += payload[:keep_bytes - len(head)]
            sink(payload, read)
            since_yield += len(payload)
            if since_yield > YIELD_EVERY_BYTES:
                since_yield = 0
                time.sleep(0)      # release the interpreter lock to a lane that has data to read
    return bytes(head)


# The fields in which servers send the model's thinking. More than one may hold the same text
# (OpenRouter, and vLLM while it renamed its field), so the first non-empty one counts.
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_details",
                    "thinking_blocks")
REASONING_PARTS = ("thinking", "reasoning")       # types of content parts (Mistral)
TOKEN_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
THINK_START, THINK_END = "<think>", "</think>"


class StreamParser:
    """Parse the server-sent events of a chat completion, however they are split into reads.

    After `close()`: `texts`, `kinds` ("r" reasoning, "a" answer) and `reads` (index of the read
    that completed the chunk) run in parallel, one entry per non-empty text. `usage` (the last one
    with a count), `server_timings`, `finish_reason`, `system_fingerprint` (last wins) and `model`
    (first wins) are as the server sent them. `error` is the body of the first error, in any shape;
    `done`: `[DONE]` was received; `streamed` is False if the body was one JSON document instead of
    a stream. `events` counts the events that were understood, `bad_events` the others.

    A chunk belongs to the read that brought the end of its `data:` line, be it CR, LF or CR LF (of
    which the CR is enough): from then on the text is known, although the empty line that closes
    the event, or the LF of a CR LF, may arrive in a later packet.
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
        self._line_start = bytearray()            # of a line that has not ended, kept once
        self._after_cr = False                    # an LF that comes next belongs to that CR
        self._at_start = True
        self._event_name = b""
        self._data: list[tuple[str, int]] = []    # data lines of the current event, and their reads
        self._deltas_came = False
        self._other = bytearray()                 # lines that are not part of an event stream,
        self._other_ends = array.array("q")       # its length after each read that added to it,
        self._other_reads = array.array("q")      # and that read

    def feed(self, payload: bytes, read: int) -> None:
        """Parse the payload of one read."""
        if self._after_cr and payload:
            self._after_cr = False
            payload = payload[payload[:1] == b"\n":]
        if b"\n" not in payload and b"\r" not in payload:
            self._line_start += payload           # amortised: copied once, not once per read
            return
        self._after_cr = payload.endswith(b"\r")
        if self._line_start:
            self._line_start += payload
            payload, self._line_start = bytes(self._line_start), bytearray()
        lines = payload.splitlines(keepends=True)
        if not lines[-1].endswith((b"\n", b"\r")):
            self._line_start += lines.pop()
        for line in lines:
            self._line(line.rstrip(b"\r\n"), read)
        self._note_other(read)

    def close(self, read: int) -> StreamParser:
        """End the stream; a last line without a line end counts (some servers never send it)."""
        rest, self._line_start = bytes(self._line_start), bytearray()
        if rest:
            self._line(rest, read)
        self._dispatch()
        self._note_other(read)
        if self._other:
            self._read_other(read)
        return self

    def text_of(self, kind: str) -> str:
        """Return all text of one kind, joined."""
        return "".join(text for text, own in zip(self.texts, self.kinds) if own == kind)

    def mark_inline_reasoning(self) -> bool:
        """Make thinking that opens the answer in `<think>` tags reasoning; return whether it does.

        If the chat template opened the block, only `</think>` is in the answer. The tags and the
        blanks after them become part of the thinking; a chunk that holds the end of the thinking
        and the start of the answer is split into two chunks of the same read.
        """
        text = "" if "r" in self.kinds else "".join(self.texts)
        end = text.find(THINK_END)
        opened = text.lstrip().startswith(THINK_START)
        if not opened and (end < 0 or THINK_START in text[:end]):
            return False
        answer = text[end + len(THINK_END):].lstrip() if end >= 0 else ""
        left = len(text) - len(answer)            # characters of thinking still to be marked
        chunks = list(zip(self.texts, self.reads))
        self.texts, self.kinds, self.reads = [], [], []
        for chunk, read in chunks:
            self._add("r", chunk[:left], read)
            self._add("a", chunk[left:], read)
            left = max(left - len(chunk), 0)
        return True

    def _line(self, line: bytes, read: int) -> None:
        if self._at_start:
            self._at_start = False
            line = line[len(BOM):] if line.startswith(BOM) else line
        if not line:
            self._dispatch()
        elif line.startswith(b"data:"):
            value = line[6:] if line[5:6] == b" " else line[5:]
            self._data.append((value.decode("utf-8", "replace"), read))
        elif line.startswith(b"event:"):
            self._event_name = line[6:].strip()
        elif not line.startswith((b":", b"id:", b"retry:")):
            self._other += line + b"\n"

    def _note_other(self, read: int) -> None:
        if len(self._other) > (self._other_ends[-1] if self._other_ends else 0):
            self._other_ends.append(len(self._other))
            self._other_reads.append(read)

    def _dispatch(self) -> None:
        """End the current event. Events that a server forgot to separate are parsed per line."""
        lines, self._data = self._data, []
        name, self._event_name = self._event_name, b""
        if len(lines) > 1 and _parse(lines[0][0]) is None:
            joined = "\n".join(text for text, _ in lines)
            if _parse(joined) is not None:
                lines = [(joined, lines[-1][1])]
        for text, read in lines:
            self._event(text.strip(), read, name)

    def _event(self, text: str, read: int, name: bytes) -> None:
        if text == "[DONE]":
            self.events += 1
            self.done = True
            return
        value = _parse(text)
        messages = _objects(value)
        # transformers serve puts an error message into JSON without escaping it.
        if name == b"error" or (not messages and text.startswith('{"error"')):
            self.events += 1
            error = next((e for e in map(_error_in, messages) if e is not None), value)
            self._fail(text[:MAX_ERROR_CHARACTERS] if error is None else error)
        elif messages:
            self.events += 1
            for message in messages:
                self._message(message, read)
        elif text and name in (b"", b"message"):      # events of other names are not for us
            self.bad_events += 1

    def _read_other(self, read: int) -> None:
        """Parse lines outside of events: a whole answer, JSON lines, or something else."""
        raw, self._other = bytes(self._other), bytearray()
        messages = _objects(_parse(raw.decode("utf-8", "replace")))
        if self.events:                               # an error written bare into a stream
            for message in messages:
                self._fail(_error_in(message))
            return
        if any(map(_is_completion, messages)):
            self.events, self.streamed = 1, False
            for message in messages:
                self._message(message, read)
            return
        for line in JSON_LINE.finditer(raw):          # one JSON object per line instead of events
            read = self._other_reads[bisect.bisect_left(self._other_ends, line.end())]
            for message in _objects(_parse(line[0].decode("utf-8", "replace"))):
                if _is_completion(message):
                    self.events += 1
                    self._message(message, read)
        self.bad_events += not self.events

    def _fail(self, error: Any) -> None:
        """Keep the first error: it is the cause, later ones are its consequences."""
        if self.error is None:
            self.error = error

    def _message(self, message: dict[str, Any], read: int) -> None:
        self._fail(_error_in(message))
        choice = _first_choice(message.get("choices"))
        for usage in (choice.get("usage"), message.get("usage")):     # in the choice: Moonshot
            # The last wins, but zeros (placeholders of some gateways) never hide counts.
            if isinstance(usage, dict) and (_counts(usage) or not _counts(self.usage or {})):
                self.usage = usage
        if isinstance(message.get("timings"), dict):
            self.server_timings = message["timings"]
        # In Azure's first frame the model is "".
        self.model = self.model or _text(message.get("model"))
        fingerprint = _text(message.get("system_fingerprint"))
        self.system_fingerprint = fingerprint or self.system_fingerprint
        self.finish_reason = _text(choice.get("finish_reason")) or self.finish_reason
        delta, whole = choice.get("delta"), choice.get("message")
        if isinstance(delta, dict) and delta:
            self._deltas_came = self._add_delta(delta, read) or self._deltas_came
        elif self._deltas_came:
            pass             # the whole message once more, at the end of its stream (MiniMax)
        elif isinstance(whole, dict):
            self._add_delta(whole, read)
        else:
            self._add("a", _text(choice.get("text")), read)

    def _add_delta(self, delta: dict[str, Any], read: int) -> bool:
        """Add the texts of a delta; return whether it has any."""
        before = len(self.texts)
        thoughts = (_flat(delta.get(name)) for name in REASONING_FIELDS)
        self._add("r", next(filter(None, thoughts), None), read)
        for kind, parts in groupby(_content_parts(delta.get("content")), key=lambda part: part[0]):
            self._add(kind, "".join(text for _, text in parts), read)
        return len(self.texts) > before

    def _add(self, kind: str, text: Optional[str], read: int) -> None:
        if text:
            self.texts.append(text)
            self.kinds.append(kind)
            self.reads.append(read)


# --- messages of any shape -----------------------------------------------------------------------
# Not strict: some servers leave control characters in strings.
_DECODER = json.JSONDecoder(
    strict=False, parse_constant=lambda name: None,
    parse_int=lambda digits: int(digits) if len(digits) <= MAX_INTEGER_DIGITS else None)


def _parse(text: str) -> Any:
    """Return the JSON value of `text`, None if it is not valid JSON."""
    try:
        value, end = _DECODER.raw_decode(text)        # cheaper than decode
        return value if end == len(text) else _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def _objects(value: Any) -> list[dict[str, Any]]:
    """Return the JSON objects of an event: itself, or those of a list (Gemini's errors)."""
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, dict)]


def _text(value: Any) -> Optional[str]:
    return value if isinstance(value, str) and value else None


def _first_choice(choices: Any) -> dict[str, Any]:
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict) and choice.get("index") in (None, 0):
                return choice
    return {}


def _error_in(message: dict[str, Any]) -> Any:
    """Return the body of the error in a message, None if there is none."""
    error = message.get("error") or _first_choice(message.get("choices")).get("error")
    if error or message.get("choices"):
        return error or None
    if message.get("error") in ("", {}, []):
        return message["error"]
    if message.get("detail"):                         # FastAPI
        return message["detail"]
    # Old vLLM's {"object": "error", "message": ...}, and gateways' {"code": 500, "msg": ...}.
    has_text = isinstance(message.get("message"), str) or isinstance(message.get("msg"), str)
    marked = "error" in (message.get("object"), message.get("type")) or "code" in message
    return message if has_text and marked else None


def _is_completion(message: dict[str, Any]) -> bool:
    """Whether a message belongs to a completion, or to its failure."""
    return "choices" in message or _error_in(message) is not None


def _counts(usage: dict[str, Any]) -> bool:
    """Whether any token count is above zero."""
    counts = (usage.get(name) for name in TOKEN_COUNTS)
    return any(isinstance(count, (int, float)) and count > 0 for count in counts)


def _flat(value: Any, depth: int = 3) -> str:
    """Return the text of a string, of a part with text under a usual name, or of a list."""
    if isinstance(value, dict):
        value = next((value[name] for name in ("text", "thinking", "summary", "content")
                      if value.get(name)), None)
    if isinstance(value, list) and depth:
        return "".join(_flat(part, depth - 1) for part in value)
    return value if isinstance(value, str) else ""


def _content_parts(content: Any) -> Iterator[tuple[str, str]]:
    """Yield (kind, text) of a delta's content: a string, or parts as some gateways send them."""
    for part in content if isinstance(content, list) else [content]:
        thinks = isinstance(part, dict) and part.get("type") in REASONING_PARTS
        yield "r" if thinks else "a", _flat(part)


# --- server objects in the ledger ----------------------------------------------------------------
def bounded(value: Any, depth: int = MAX_KEPT_DEPTH, room: Optional[list[int]] = None) -> Any:
    """Return a server's own object with bounded depth, items and lengths, as valid JSON.

    room: [number of values that may still be kept].
    """
    room = [MAX_KEPT_VALUES] if room is None else room
    room[0] -= 1
    if isinstance(value, dict) and depth:
        return {_bounded_text(str(k)): bounded(v, depth - 1, room)
                for k, v in list(value.items())[:MAX_KEPT_ITEMS] if room[0] > 0}
    if isinstance(value, list) and depth:
        return [bounded(v, depth - 1, room) for v in value[:MAX_KEPT_ITEMS] if room[0] > 0]
    if isinstance(value, str):
        return _bounded_text(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2 ** 53 else None
    return value if isinstance(value, float) and math.isfinite(value) else None


def _bounded_text(text: str) -> str:
    """Truncate, and replace halves of surrogate pairs, which UTF-8 cannot represent."""
    return text[:MAX_KEPT_CHARACTERS].encode("utf-8", "replace").decode("utf-8")
