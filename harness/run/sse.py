"""What a model server put on the wire: bytes of a response body in, chunks of text out.

Pure code. The runner keeps the raw bytes of every read with their time; after the stream has ended
(or on another thread) it feeds them through here, read by read, so that each chunk of text knows
the read that completed it. This is the only stream parser of the project.

    Body          undoes HTTP framing (chunked, Content-Length, or until the connection closes)
    StreamParser  server-sent events -> texts, usage, finish reason, server timings, errors
    timing_of     stamps of the reads + chunks -> the `timing` marks of a ledger line

Total and linear: whatever bytes come, in whatever pieces, nothing here raises, and the time is in
proportion to their number.
"""
from __future__ import annotations

import array
import json
import math
import operator
import queue
import re
import threading
import time
from collections.abc import Sequence
from itertools import accumulate, chain, groupby, repeat
from typing import Any, Callable, Iterable, Iterator, Optional, Sequence

MAX_KEPT_DEPTH = 6        # of a server's own usage and timings objects
MAX_KEPT_ITEMS = 64       # so that a hostile usage object cannot swell the ledger
MAX_KEPT_VALUES = 512     # in one object, all depths together
MAX_KEPT_CHARACTERS = 200
MAX_ERROR_CHARACTERS = 2000
MAX_SIZE_LINE_BYTES = 4096
MAX_INTEGER_DIGITS = 32   # int() of a long number is quadratic in old Pythons, an error in new ones

BOM = b"\xef\xbb\xbf"
SIZE_LINE = re.compile(rb"[ \t]*([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?", re.DOTALL)


class Body:
    """HTTP framing undone, piece by piece (RFC 9112).

    framing: "chunked", "length" or "close"; length_bytes: Content-Length where framing is "length".
    `complete` tells whether the framing says that everything came: with "chunked" from the chunk of
    size 0 on; "close" never knows. `broken` tells of chunks that are none; what came before counts.
    Chunk extensions, trailers and whatever follows the end are dropped; a lone LF ends a line, too.
    """

    def __init__(self, framing: str, length_bytes: int = 0) -> None:
        self.framing = framing
        self.complete = framing == "length" and length_bytes <= 0
        self.broken = False
        self._left = max(length_bytes, 0) if framing == "length" else 0
        self._chunk_ends = False          # the line end that closes a chunk is due
        self._pending = b""               # a line of the framing that has not ended

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
        if not (self._left or self._pending or self._chunk_ends or self.complete or self.broken):
            whole = _whole_chunk(data)
            if whole is not None:
                return whole
        data, at, out = self._pending + data, 0, []
        self._pending = b""
        while at < len(data) and not (self.complete or self.broken):
            if self._left:
                piece = data[at:at + self._left]
                out.append(piece)
                at += len(piece)
                self._left -= len(piece)
                self._chunk_ends = not self._left
            else:
                at = self._take_line(data, at)
        return b"".join(out)

    def _take_line(self, data: bytes, at: int) -> int:
        """Reads one line of the framing; returns where it ended."""
        line_end = data.find(b"\n", at)
        line = data[at:line_end if line_end >= 0 else None]
        if len(line) > MAX_SIZE_LINE_BYTES:
            self.broken = True
        elif line_end < 0:
            self._pending = line
        elif self._chunk_ends:
            self._chunk_ends, self.broken = False, line.strip(b"\r") != b""
        else:
            self._open_chunk(line.rstrip(b"\r"))
        return line_end + 1 if line_end >= 0 else len(data)

    def _open_chunk(self, size_line: bytes) -> None:
        size = SIZE_LINE.fullmatch(size_line)
        self.broken = size is None
        self._left = int(size[1], 16) if size else 0
        self.complete = size is not None and not self._left


def _whole_chunk(data: bytes) -> Optional[bytes]:
    """The payload of data that is just one chunk, as nearly every read of a stream is, else None.

    What it does not take the slow way takes; it halves the cost of a chunk.
    """
    end = data.find(b"\r\n", 0, 10)
    head = data[:end]
    if end < 1 or not head.isalnum() or head[1:2] in (b"x", b"X"):
        return None
    try:
        size = int(head, 16)
    except ValueError:
        return None
    whole = size and len(data) == end + size + 4 and data.endswith(b"\r\n")
    return data[end + 2:-2] if whole else None


# Where servers put what the model thought; more than one may hold the same text (OpenRouter, and
# vLLM while it renamed its field), so the first that holds any counts.
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_details",
                    "thinking_blocks")
REASONING_PARTS = ("thinking", "reasoning")       # types of content parts (Mistral)
TOKEN_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens")
THINK_START, THINK_END = "<think>", "</think>"


class Column:
    """Whole numbers in the order they came, held as runs of differences, each run in the smallest
    form that takes it: none where all are the same, as of reads that follow each other."""

    RUN = 512
    FORMS = "bhiq"                # signed, of 1, 2, 4 and 8 bytes

    def __init__(self) -> None:
        self._runs: list[tuple[int, int, str, bytes]] = []    # first, its step, form, the steps
        self._recent: list[int] = []

    def __len__(self) -> int:
        return len(self._runs) * self.RUN + len(self._recent)

    def extend(self, numbers: Iterable[int]) -> None:
        """More numbers, of at most 62 bits each."""
        self._recent += numbers
        while len(self._recent) >= self.RUN:
            self._runs.append(self._packed(self._recent[:self.RUN]))
            self._recent = self._recent[self.RUN:]

    def tolist(self) -> list[int]:
        """All of them."""
        out: list[int] = []
        for first, step, form, packed in self._runs:
            rest = array.array(form, packed) if form else repeat(step, self.RUN - 1)
            out.extend(accumulate(chain((first,), rest)))
        return out + self._recent

    def _packed(self, numbers: Sequence[int]) -> tuple[int, int, str, bytes]:
        steps = list(map(operator.sub, numbers[1:], numbers))
        if min(steps) == max(steps):
            return numbers[0], steps[0], "", b""
        for form in self.FORMS:
            try:
                return numbers[0], 0, form, array.array(form, steps).tobytes()
            except OverflowError:
                continue
        raise OverflowError("a difference of over 64 bits")


class Chunks:
    """Chunks of text in the order they came: a byte or two each besides their text.

    As lists of Python's own objects they would be 130, which over an hour of many lanes is memory
    that a run has no use for.
    """

    def __init__(self) -> None:
        self._blocks: list[str] = []
        self._lengths, self._kinds, self._reads = Column(), Column(), Column()
        self._recent: list[str] = []
        self._recent_kinds: list[str] = []
        self._recent_reads: list[int] = []

    def __len__(self) -> int:
        return len(self._lengths) + len(self._recent)

    def add(self, kind: str, text: str, read: int) -> None:
        """One more chunk, of a kind of one letter."""
        self._recent.append(text)
        self._recent_kinds.append(kind)
        self._recent_reads.append(read)
        if len(self._recent) == Column.RUN:
            self._pack()

    def _pack(self) -> None:
        self._blocks.append("".join(self._recent))
        self._lengths.extend(map(len, self._recent))
        self._kinds.extend(map(ord, self._recent_kinds))
        self._reads.extend(self._recent_reads)
        for recent in (self._recent, self._recent_kinds, self._recent_reads):
            recent.clear()

    def whole(self) -> str:
        """All text joined."""
        return "".join(self._blocks + self._recent)

    def texts(self) -> list[str]:
        """The text of each chunk."""
        packed, at, out = "".join(self._blocks), 0, []
        for length in self._lengths.tolist():
            out.append(packed[at:at + length])
            at += length
        return out + self._recent

    def kinds(self) -> str:
        """The kind of each chunk, a letter each."""
        return "".join([*map(chr, self._kinds.tolist()), *self._recent_kinds])

    def reads(self) -> list[int]:
        """The read of each chunk."""
        return self._reads.tolist() + self._recent_reads

    def of_kind(self, kind: str) -> str:
        """All text of one kind, joined."""
        kinds = self.kinds()
        if kinds.count(kind) in (0, len(kinds)):
            return self.whole() if kind in kinds else ""
        return "".join(text for text, k in zip(self.texts(), kinds) if k == kind)

    def mark_start(self, length: int, kind: str) -> None:
        """The first `length` characters become of a kind; a chunk across the edge becomes two."""
        chunks = list(zip(self.kinds(), self.texts(), self.reads()))
        self.__init__()                                       # type: ignore[misc]
        for own, text, read in chunks:
            for part, of in ((text[:max(length, 0)], kind), (text[max(length, 0):], own)):
                if part:
                    self.add(of, part, read)
            length -= len(text)


class StreamParser:
    """Server-sent events of a chat completion, in any cut, to what the model said.

    After `close()`: `texts`, `kinds` ("r" reasoning, "a" answer) and `reads` (index of the read
    that completed the chunk) run in parallel, one entry for every non-empty text; `usage` (the last
    that counts anything), `server_timings`, `finish_reason`, `system_fingerprint` (last wins) and
    `model` (first wins) as the server gave them; `error` is the body of the first error, in
    whatever shape; `done` tells of `[DONE]`; `streamed` is False where one JSON document came
    instead of a stream. `events` counts what was understood, `bad_events` what was not.

    A chunk belongs to the read that brought the end of its `data:` line, be it CR, LF or CR LF (of
    which the CR alone is enough): from there on the text is known, though the empty line that
    closes the event, or the LF of a CR LF, may come in a later packet.
    """

    def __init__(self) -> None:
        self.chunks = Chunks()
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
        self._line_start = bytearray()            # of a line that has not ended, held once
        self._after_cr = False                    # an LF that comes next belongs to that CR
        self._at_start = True
        self._event_name = b""
        self._data: list[tuple[str, int]] = []    # lines of the event at hand, with their reads
        self._deltas_came = False
        self._other = bytearray()                 # lines that are no part of an event stream
        self._other_ends: list[tuple[int, int]] = []       # (its length after a read, that read)

    def feed(self, payload: bytes, read: int) -> None:
        """Take what read number `read` brought."""
        if payload.startswith(b"data: ") and payload.endswith(b"\n\n") and not (
                self._line_start or self._data or self._after_cr or self._event_name
                or b"\r" in payload):
            self._whole_events(payload, read)
            return
        if self._after_cr and payload:
            self._after_cr = False
            payload = payload[payload[:1] == b"\n":]
        if b"\n" not in payload and b"\r" not in payload:
            self._line_start += payload           # amortised: costs one copy, not one a read
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

    def _whole_events(self, payload: bytes, read: int) -> None:
        """Whole events in the usual dialect, as most reads bring them: the same, cheaper."""
        self._at_start = False
        for event in payload[:-2].split(b"\n\n"):
            if event.startswith(b"data: ") and b"\n" not in event:
                self._event(event[6:].decode("utf-8", "replace").strip(), read, b"")
            else:
                for line in event.split(b"\n"):
                    self._line(line, read)
                self._dispatch()
        self._note_other(read)

    def close(self, read: int) -> StreamParser:
        """The stream has ended: a last line without its end counts (some servers never send it)."""
        rest, self._line_start = bytes(self._line_start), bytearray()
        if rest:
            self._line(rest, read)
        self._dispatch()
        self._note_other(read)
        if self._other:
            self._read_other(read)
        return self

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
        if len(self._other) > (self._other_ends[-1][0] if self._other_ends else 0):
            self._other_ends.append((len(self._other), read))

    def _dispatch(self) -> None:
        """An event has ended. Events that a server forgot to part are taken line by line."""
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
        # transformers serve puts an error's words into JSON without escaping them.
        if name == b"error" or (not messages and text.startswith('{"error"')):
            self.events += 1
            told = next((e for e in map(_error_in, messages) if e is not None), value)
            self._fail(text[:MAX_ERROR_CHARACTERS] if told is None else told)
        elif messages:
            self.events += 1
            for message in messages:
                self._message(message, read)
        elif text and name in (b"", b"message"):      # events of other names are not for us
            self.bad_events += 1

    def _read_other(self, read: int) -> None:
        """Lines outside of events: the whole answer at once, lines of JSON, or no answer at all."""
        raw, self._other = bytes(self._other), bytearray()
        messages = _objects(_parse(raw.decode("utf-8", "replace")))
        if self.events:                               # an error written bare into a stream
            for message in messages:
                self._fail(_error_in(message))
        elif any(map(_tells, messages)):
            self.events, self.streamed = 1, False
            for message in messages:
                self._message(message, read)
        else:
            self._read_json_lines(raw)

    def _read_json_lines(self, raw: bytes) -> None:
        """One JSON object a line instead of events, each with the read that brought its end."""
        at, ends = 0, iter(self._other_ends)
        end, read = next(ends)
        for line in raw.split(b"\n"):
            at += len(line) + 1
            if at > end:
                end, read = next(ends, (len(raw) + 1, read))
            messages = _objects(_parse(line.decode("utf-8", "replace"))) if line[:1] == b"{" else []
            for message in filter(_tells, messages):
                self.events += 1
                self._message(message, read)
        self.bad_events += not self.events

    def _fail(self, told: Any) -> None:
        """The first error is the cause; what follows it is its consequence."""
        if self.error is None:
            self.error = told

    def _message(self, message: dict[str, Any], read: int) -> None:
        text = self._plain_text(message)
        if text:
            self._take("a", text, read)
            self._deltas_came = True
            return
        self._fail(_error_in(message))
        choice = _first_choice(message.get("choices"))
        for usage in (choice.get("usage"), message.get("usage")):     # in the choice: Moonshot
            self._take_usage(usage)
        if isinstance(message.get("timings"), dict):
            self.server_timings = message["timings"]
        # Azure's first frame names no model: "".
        self.model = self.model or _text(message.get("model"))
        fingerprint = _text(message.get("system_fingerprint"))
        self.system_fingerprint = fingerprint or self.system_fingerprint
        self.finish_reason = _text(choice.get("finish_reason")) or self.finish_reason
        self._take_choice(choice, read)

    def _plain_text(self, message: dict[str, Any]) -> Optional[str]:
        """The text of a message that brings an answer's next text and nothing else, else None."""
        choices = message.get("choices")
        if not (self.model and type(choices) is list and len(choices) == 1
                and type(choices[0]) is dict):
            return None
        choice = choices[0]
        delta = choice.get("delta")
        if not (type(delta) is dict and len(delta) == 1 and choice.get("index") in (None, 0)
                and choice.get("finish_reason") is None and not choice.get("error")
                and not choice.get("usage") and not message.get("error")
                and not message.get("usage") and "timings" not in message
                and message.get("system_fingerprint") in (None, self.system_fingerprint)):
            return None
        text = delta.get("content")
        return text if type(text) is str else None

    def _take_usage(self, usage: Any) -> None:
        """The last wins, but zeros (placeholders of some gateways) never hide counts."""
        if isinstance(usage, dict) and (_counts(usage) or not _counts(self.usage or {})):
            self.usage = usage

    def _take_choice(self, choice: dict[str, Any], read: int) -> None:
        delta, whole = choice.get("delta"), choice.get("message")
        if isinstance(delta, dict) and delta:
            self._deltas_came = self._take_delta(delta, read) or self._deltas_came
        elif self._deltas_came:
            pass             # the whole message once more, at the end of its stream (MiniMax)
        elif isinstance(whole, dict):
            self._take_delta(whole, read)
        else:
            self._take("a", _text(choice.get("text")), read)

    def _take_delta(self, delta: dict[str, Any], read: int) -> bool:
        before = len(self.chunks)
        thoughts = (_flat(delta.get(name)) for name in REASONING_FIELDS)
        self._take("r", next(filter(None, thoughts), None), read)
        for kind, parts in groupby(_content_parts(delta.get("content")), key=lambda part: part[0]):
            self._take(kind, "".join(text for _, text in parts), read)
        return len(self.chunks) > before

    def _take(self, kind: str, text: Optional[str], read: int) -> None:
        if text:
            self.chunks.add(kind, text, read)

    @property
    def texts(self) -> list[str]:
        """The text of each chunk."""
        return self.chunks.texts()

    @property
    def kinds(self) -> list[str]:
        """The kind of each chunk."""
        return list(self.chunks.kinds())

    @property
    def reads(self) -> list[int]:
        """The read of each chunk."""
        return self.chunks.reads()

    def text_of(self, kind: str) -> str:
        """All text of one kind, joined."""
        return self.chunks.of_kind(kind)

    def mark_inline_reasoning(self) -> bool:
        """Thinking that leads the answer in `<think>` tags becomes reasoning; True where it does.

        Where the chat template opened the block, only `</think>` is in the answer. The tags and the
        blank between thinking and answer go with the thinking; a chunk that holds the end of one
        and the start of the other becomes two, of one read. Call it before `timing_of`.
        """
        text = "" if "r" in self.chunks.kinds() else self.chunks.whole()
        end = text.find(THINK_END)
        opened = text.lstrip().startswith(THINK_START)
        if not opened and (end < 0 or THINK_START in text[:end]):
            return False
        answer = text[end + len(THINK_END):].lstrip() if end >= 0 else ""
        self.chunks.mark_start(len(text) - len(answer), "r")
        return True


# --- Reading messages that may hold anything -----------------------------------------------------


def _integer(digits: str) -> Optional[int]:
    return int(digits) if len(digits) <= MAX_INTEGER_DIGITS else None


# Not strict: some servers leave control characters in strings as they are.
_DECODER = json.JSONDecoder(strict=False, parse_int=_integer, parse_constant=lambda name: None)


def _parse(text: str) -> Any:
    try:
        value, end = _DECODER.raw_decode(text)        # cheaper than decode, blanks apart
        return value if end == len(text) else _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


def _objects(value: Any) -> list[dict[str, Any]]:
    """The JSON objects of an event: itself, or those of a list (Gemini puts errors into one)."""
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
    """The body of the error that a message tells of, None where it tells of none."""
    error = message.get("error") or _first_choice(message.get("choices")).get("error")
    if error or message.get("choices"):
        return error or None
    if message.get("error") in ("", {}, []):
        return message["error"]
    if message.get("detail"):                         # FastAPI
        return message["detail"]
    # Old vLLM's {"object": "error", "message": ...}, and gateways' {"code": 500, "msg": ...}.
    told = isinstance(message.get("message"), str) or isinstance(message.get("msg"), str)
    marked = "error" in (message.get("object"), message.get("type")) or "code" in message
    return message if told and marked else None


def _tells(message: dict[str, Any]) -> bool:
    """Whether a message is of a completion, or of its failure."""
    return "choices" in message or _error_in(message) is not None


def _counts(usage: dict[str, Any]) -> bool:
    counts = (usage.get(name) for name in TOKEN_COUNTS)
    return any(isinstance(count, (int, float)) and count > 0 for count in counts)


def _flat(value: Any, depth: int = 3) -> str:
    """The text of a string, of a part that holds it under one of its usual names, or of a list."""
    if isinstance(value, dict):
        value = next((value[name] for name in ("text", "thinking", "summary", "content")
                      if value.get(name)), None)
    if isinstance(value, list) and depth:
        return "".join(_flat(part, depth - 1) for part in value)
    return value if isinstance(value, str) else ""


def _content_parts(content: Any) -> Iterator[tuple[str, str]]:
    """(kind, text) of a delta's content: a string, or parts as some gateways send them."""
    for part in content if isinstance(content, list) else [content]:
        thinks = isinstance(part, dict) and part.get("type") in REASONING_PARTS
        yield "r" if thinks else "a", _flat(part)


# --- What goes into the ledger -------------------------------------------------------------------


def plain(value: Any, depth: int = MAX_KEPT_DEPTH) -> Any:
    """A server's own object, bounded in depth, items and lengths, without what JSON cannot hold."""
    return _plain(value, depth, [MAX_KEPT_VALUES])


def _plain(value: Any, depth: int, room: list[int]) -> Any:
    """As `plain`; `room` holds how many values may still be kept."""
    room[0] -= 1
    if isinstance(value, dict) and depth:
        return {_kept(str(k)): _plain(v, depth - 1, room)
                for k, v in list(value.items())[:MAX_KEPT_ITEMS] if room[0] > 0}
    if isinstance(value, list) and depth:
        return [_plain(v, depth - 1, room) for v in value[:MAX_KEPT_ITEMS] if room[0] > 0]
    if isinstance(value, str):
        return _kept(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if abs(value) < 2 ** 53 else None
    return value if isinstance(value, float) and math.isfinite(value) else None


def _kept(text: str) -> str:
    """Cut, and without halves of surrogate pairs, which UTF-8 cannot hold."""
    return text[:MAX_KEPT_CHARACTERS].encode("utf-8", "replace").decode("utf-8")


# --- bytes on their way to the parser ------------------------------------------------------------
class ParserThread(threading.Thread):
    """Does on the side, one after the other, what lanes have no time for."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.start()

    def run(self) -> None:
        """Takes functions from `work` for as long as the program lives."""
        while True:
            self.work.get()()


class Reads:
    """What one read after the other brought: the bytes, joined; bytes received up to and with each
    read; ns when it returned; and the kernel's own stamp of it, 0 where there is none."""

    def __init__(self) -> None:
        self.raw = bytearray()
        self.ends, self.user_ns, self.kernel_ns = (array.array("q") for _ in range(3))

    def stamps(self) -> tuple[Sequence[int], Sequence[int]]:
        """user_ns and kernel_ns of all reads."""
        return self.user_ns, self.kernel_ns


class Digest:
    """Raw bytes of one body on their way to `sink(payload, read)`; keeps the first of them, and the
    stamps of all, packed.

    `elsewhere` runs a function on another thread, in order; long streams are parsed there, in
    slices, so that their bytes need not be kept. at: bytes of the response ahead of its body, in
    one read or more, which are the first that are handed over.
    """

    SLICE_BYTES = 8192            # a fraction of a millisecond of parsing

    def __init__(self, body: Body, sink: Callable[[bytes, int], None], keep_bytes: int,
                 elsewhere: Callable[[Callable[[], None]], None], at: int) -> None:
        self._body, self._sink, self._keep_bytes = body, sink, keep_bytes
        self._elsewhere = elsewhere
        self._at, self._base, self._passed = at, 0, False
        self._user_ns, self._ahead_ns = Column(), Column()
        self.head = bytearray()

    def pass_on(self, reads: Reads) -> None:
        """What has come since the last time is parsed elsewhere."""
        self._passed = True
        self._elsewhere(lambda: self._take(reads))

    def finish(self, reads: Reads) -> None:
        """The stream has ended: everything is parsed when this returns."""
        if self._passed:
            done = threading.Event()
            self._elsewhere(done.set)
            done.wait()
        self._take(reads)

    def stamps(self) -> tuple[list[int], list[int]]:
        """user_ns and kernel_ns of all reads so far."""
        user_ns = self._user_ns.tolist()
        return user_ns, [user + ahead for user, ahead in zip(user_ns, self._ahead_ns.tolist())]

    def _take(self, reads: Reads) -> None:
        first, base, sliced = len(self._user_ns), self._base, 0
        for read, end in enumerate(reads.ends, first):
            payload = self._body.feed(bytes(reads.raw[self._at - base:end - base]))
            self._at = max(end, self._at)
            if len(self.head) < self._keep_bytes:
                self.head += payload[:self._keep_bytes - len(self.head)]
            self._sink(payload, read)
            sliced += len(payload)
            if sliced > self.SLICE_BYTES:
                sliced = 0
                time.sleep(0)      # gives the interpreter lock to a lane that waits with data
        self._base += len(reads.raw)
        self._user_ns.extend(reads.user_ns)
        self._ahead_ns.extend(map(operator.sub, reads.kernel_ns, reads.user_ns))
