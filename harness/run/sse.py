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

from core import reasoning_marks, usage

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


def is_at_end(framing: str, length_bytes: int, raw: bytearray, ends: Sequence[int],
              start: int) -> bool:
    """Whether a response so far holds a whole answer; arguments as of Body and parse_body."""
    stream = StreamParser()
    parse_body(Body(framing, length_bytes), raw, ends, start, stream.feed, 0)
    return stream.close(0).at_end


# The fields in which servers send the model's thinking. More than one may hold the same text
# (OpenRouter, and vLLM while it renamed its field), so the first non-empty one counts.
REASONING_FIELDS = ("reasoning_content", "reasoning", "thinking", "reasoning_details",
                    "thinking_blocks")
REASONING_PARTS = ("thinking", "reasoning")       # types of content parts (Mistral)
MIN_REPEATED_CHARACTERS = 24      # of a chunk that holds all text so far once more
MIN_REPEATED_CHUNKS = 3           # before it
MIN_DOUBLED_PAIRS, MIN_DISTINCT = 8, 4
MAX_FOREIGN_CHUNKS = 256          # status lines of a server that loads a model
SPARE_MS, SPARE_RATIO = 20, 1.25  # between the server's clock and ours
SLOW_RATIO = 5                    # status lines come much slower than tokens


class StreamParser:
    """Parse the server-sent events of a chat completion, however they are split into reads.

    After `close()`: `texts`, `kinds` ("r" reasoning, "a" answer) and `reads` (index of the read
    that completed the chunk) run in parallel, one entry per non-empty text. `usage` (the last count
    of each field), `server_timings`, `finish_reason`, `system_fingerprint` (last wins) and `model`
    (first wins) are as the server sent them. `error` is the body of the first error, in any shape;
    `done`: `[DONE]` was received; `streamed` is False if the body was one JSON document instead of
    a stream. `events` counts the events that were understood, `bad_events` the others. `at_end`:
    since the first finish_reason or the first token counts behind some text, no text came. `flags`
    names what was removed from the texts: see `remove_foreign_text` and `remove_repeated_text`.

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
        self.at_end = False
        self.flags: list[str] = []
        self._sources: list[Optional[str]] = []   # of each text: its message's id, see _message
        self._has_identity = False                # a message had an id, a model or a role
        self._source: Optional[str] = None        # of the current message
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

    def remove_foreign_text(self, ms_of_read: Sequence[float]) -> None:
        """Remove text at the start that the model did not generate: status lines during its load.

        ms_of_read: when each read arrived, since the request. Four signs, each of a whole prefix:
        its messages have no id, model or role, but later ones have; they have another id, and the
        server counted fewer tokens than there are chunks; they came before the server, by its own
        timings, had read the prompt or begun to generate; there are exactly as many more chunks
        than tokens, and they came much slower.
        """
        at_ms = [ms_of_read[min(read, len(ms_of_read) - 1)] for read in self.reads] \
            if len(ms_of_read) and self.streamed else []
        self._delay_opening_mark(at_ms)
        total = len(self.texts)
        counted = usage.counts(self._counted())
        tokens = counted.completion
        prefix = next((at for at, source in enumerate(self._sources) if source is not None), 0)
        if not prefix and tokens is not None and tokens < total and len(set(self._sources)) == 2:
            prefix = next(at for at, source in enumerate(self._sources)
                          if source != self._sources[0])
            prefix *= self._sources[0] not in self._sources[prefix:]
        if not prefix and at_ms:
            prefix = self._early_chunks(at_ms, tokens)
        if 0 < prefix < total and prefix <= MAX_FOREIGN_CHUNKS:
            self._keep(range(prefix, total))
            self.flags.append("foreign_text")

    def _delay_opening_mark(self, at_ms: list[float]) -> None:
        """Join a mark that opens reasoning to the text behind it if it came before the prefill.

        Some servers send the mark of a chat template themselves (KTransformers --force_think): it
        comes much sooner than the next text, and sooner than a decode step or long before one.
        """
        gaps = [after - before for before, after in zip(at_ms, at_ms[1:])]
        step_ms = sorted(gaps)[len(gaps) // 2] if gaps else 0
        if len(gaps) > MIN_REPEATED_CHUNKS and reasoning_marks.is_opening(self.texts[0]) \
                and self.kinds[0] == self.kinds[1] and gaps[0] > SLOW_RATIO * at_ms[0] \
                and (at_ms[0] < step_ms or gaps[0] > SLOW_RATIO * step_ms):
            self.texts[1] = self.texts[0] + self.texts[1]
            self._keep(range(1, len(self.texts)))
            del at_ms[0]
            self.flags.append("foreign_text")

    def _early_chunks(self, at_ms: list[float], tokens: Optional[int]) -> int:
        """How many chunks the server's timings or its token count show to be no tokens."""
        timings, total = self.server_timings or {}, len(at_ms)
        read_ms, generated_ms = (
            float(value) if isinstance(value, (int, float)) and math.isfinite(value) else 0.0
            for value in (timings.get("prompt_ms"), timings.get("predicted_ms")))
        too_early = sum(ms * SPARE_RATIO + SPARE_MS < read_ms for ms in at_ms)
        spare_ms = SPARE_RATIO * generated_ms + 1000
        long_before = sum(at_ms[-1] - ms > spare_ms for ms in at_ms) if generated_ms else 0
        more = total - tokens if tokens else 0
        if 0 < too_early < total:
            return too_early
        if 0 < long_before < total and (not tokens or abs(total - long_before - tokens)
                                        <= max(0.1 * tokens, 2)):
            return long_before
        if 2 <= more < total - 1 and tokens:
            slow_ms, rest_ms = at_ms[more] - at_ms[0], at_ms[-1] - at_ms[more]
            if slow_ms > 1000 and slow_ms / more > SLOW_RATIO * rest_ms / (tokens - 1):
                return more
        return 0

    def remove_repeated_text(self) -> None:
        """Remove text that was sent before: cumulative deltas, and the whole text once more.

        A text so far that comes again as one chunk, every chunk twice in a row, or the whole
        stream twice; the last two only if the server counted about half as many tokens, since a
        model may repeat itself.
        """
        kept: list[int] = []
        for kind in "ra":
            own = [at for at, one in enumerate(self.kinds) if one == kind]
            kept += self._without_cumulation(own) or self._without_repeats(own)
        if len(kept) < len(self.texts) or "repeated_text" in self.flags:
            self._keep(sorted(kept))
            self.flags = sorted({*self.flags, "repeated_text"})

    def _without_cumulation(self, own: list[int]) -> list[int]:
        """If each text begins with all of the one before, keep what is new in each."""
        texts = [self.texts[at] for at in own]
        grows = [after.startswith(before) for before, after in zip(texts, texts[1:])]
        longer = sum(len(after) > len(before) for before, after in zip(texts, texts[1:]))
        if len(own) <= MIN_REPEATED_CHUNKS or not all(grows) or longer < 0.5 * len(grows) \
                or len(texts[-1]) < MIN_REPEATED_CHARACTERS:
            return []
        for at, before, after in zip(own[1:], texts, texts[1:]):
            self.texts[at] = after[len(before):]
        self.flags.append("repeated_text")
        return [at for at in own if self.texts[at]]

    def _without_repeats(self, own: list[int]) -> list[int]:
        kept: list[int] = []
        length = 0
        for at in own:
            text = self.texts[at]
            if len(text) >= MIN_REPEATED_CHARACTERS and len(kept) >= MIN_REPEATED_CHUNKS \
                    and abs(len(text) - length) <= 8:
                so_far = "".join(self.texts[one] for one in kept)
                if text.strip() == so_far.strip():
                    continue
                # Once a character is whole that was U+FFFD, some servers send all of it again.
                stem = so_far.rstrip("\ufffd")
                if stem != so_far and text.startswith(stem):
                    text = self.texts[at] = text[len(stem):]
                    self.flags.append("repeated_text")
            kept.append(at)
            length += len(text)
        texts, half = [self.texts[at] for at in kept], len(kept) // 2
        tokens = usage.counts(self._counted()).completion
        others = len(self.texts) - len(own)              # of the other kind
        if half < MIN_DOUBLED_PAIRS or len(kept) % 2 or len(set(texts)) < MIN_DISTINCT \
                or tokens and tokens - others > 0.75 * len(kept):
            return kept
        if texts[0::2] == texts[1::2]:
            return kept[0::2]
        return kept[:half] if tokens and texts[:half] == texts[half:] else kept

    def _counted(self) -> Any:
        """The part of a ledger's response that holds counts."""
        return {"usage": self.usage, "server_timings": self.server_timings}

    def _keep(self, places: Sequence[int]) -> None:
        for name in ("texts", "kinds", "reads", "_sources"):
            held = getattr(self, name)
            held[:] = [held[at] for at in places]

    def mark_inline_reasoning(self) -> bool:
        """Make reasoning that opens the answer in marks reasoning; return whether there is any.

        The marks and the blanks after them become part of the reasoning; a chunk that holds the end
        of the reasoning and the start of the answer is split into two chunks of the same read.
        """
        text = "" if "r" in self.kinds else "".join(self.texts)
        left = reasoning_marks.reasoning_characters(text)
        if not left:
            return False
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
        elif line.startswith((b"data:", b"error:")):          # "error: {...}": old llama.cpp
            value = line.partition(b":")[2]
            self._event_name = b"error" if line[:1] == b"e" else self._event_name
            self._data.append((value[value[:1] == b" ":].decode("utf-8", "replace"), read))
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
        while text.startswith("data:"):               # a gateway that frames a framed stream
            text = text[5:].strip()
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
        # Some servers send both with every chunk; then neither shows an end.
        texts, known = len(self.texts), (bool(self.finish_reason), bool(self.usage))
        self._read_message(message, read)
        is_first = known != (bool(self.finish_reason), bool(self.usage))
        if len(self.texts) > texts:
            self.at_end = is_first and bool(self.finish_reason)
        else:
            self.at_end |= is_first and bool(texts)

    def _read_message(self, message: dict[str, Any], read: int) -> None:
        self._fail(_error_in(message))
        choice = _first_choice(message.get("choices"))
        # In the choice: Moonshot. At the top: Ollama's own API.
        top = {name: message[name] for name in usage.TOP_LEVEL if name in message}
        holders = [message[name] for name in usage.PLACES if name in message]
        for holder in (choice.get("usage"), top, *holders, message.get("usage"),
                       *(holder.get("usage") for holder in holders if isinstance(holder, dict))):
            if holder and isinstance(holder, dict) and (holder is message.get("usage")
                                                        or usage.has_counts(holder)):
                self._note_usage(holder)
        if isinstance(message.get("timings"), dict):
            self.server_timings = message["timings"]
        delta, whole = choice.get("delta"), choice.get("message")
        role = delta.get("role") if isinstance(delta, dict) else None
        self._source = _text(message.get("id"))
        self._has_identity |= bool(self._source or _text(message.get("model")) or role)
        # In Azure's first frame the model is "".
        self.model = self.model or _text(message.get("model"))
        fingerprint = _text(message.get("system_fingerprint"))
        self.system_fingerprint = fingerprint or self.system_fingerprint
        self.finish_reason = _text(choice.get("finish_reason")) or self.finish_reason
        if isinstance(delta, str):                    # FastChat
            self._add("a", delta, read)
        elif isinstance(delta, dict) and delta:
            self._deltas_came = self._add_delta(delta, read) or self._deltas_came
        elif self._deltas_came:
            pass             # the whole message once more, at the end of its stream (MiniMax)
        elif isinstance(whole, dict):
            self._add_delta(whole, read)
        else:
            self._add("a", _text(choice.get("text")), read)

    def _note_usage(self, found: dict[str, Any]) -> None:
        """The last count of each field; zeros (placeholders of some gateways) never hide counts."""
        if not self.usage or not any(self.usage.get(name) for name in usage.ALL_NAMES):
            self.usage = {}                           # placeholders so far
        held = self.usage
        for name, value in found.items():
            hides = name in usage.ALL_NAMES and not usage.count(value)
            if not held.get(name) or value and not hides:
                held[name] = value

    def _add_delta(self, delta: dict[str, Any], read: int) -> bool:
        """Add the texts of a delta; return whether it has any."""
        before = len(self.texts)
        thoughts = (_flat(delta[name]) for name in REASONING_FIELDS if name in delta)
        self._add("r", next(filter(None, thoughts), None), read)
        content = delta.get("content")
        if isinstance(content, str):                  # nearly always: saves time
            self._add("a", content, read)
        else:
            for kind, parts in groupby(_content_parts(content), key=lambda part: part[0]):
                self._add(kind, "".join(text for _, text in parts), read)
        return len(self.texts) > before

    def _add(self, kind: str, text: Optional[str], read: int) -> None:
        if text:
            self.texts.append(text)
            self.kinds.append(kind)
            self.reads.append(read)
            self._sources.append((self._source or "") if self._has_identity else None)


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
    """The choice of index 0, else the first: old TGI's index is that of the token."""
    found = _objects(choices) if isinstance(choices, list) else []
    if len(found) == 1:                               # nearly always: saves time
        return found[0]
    return next((one for one in found if one.get("index") in (None, 0)), found[0] if found else {})


def _error_in(message: dict[str, Any]) -> Any:
    """Return the body of the error in a message, or None."""
    error = message.get("error") or _first_choice(message.get("choices")).get("error")
    if error or message.get("choices"):
        return error or None
    if message.get("error") in ("", {}, []):
        return message["error"]
    if message.get("detail"):                         # FastAPI
        return message["detail"]
    # Old vLLM's {"object": "error", "message": ...}, gateways' {"code": 500, "msg": ...}, and
    # FastChat's {"error_code": 50001, "text": ...}.
    has_text = any(isinstance(message.get(name), str) for name in ("message", "msg", "text"))
    marked = "error" in map(message.get, ("object", "type", "status")) or "code" in message
    return message if has_text and (marked or message.get("error_code")) else None


def _is_completion(message: dict[str, Any]) -> bool:
    """Whether a message belongs to a completion, or to its failure."""
    return "choices" in message or _error_in(message) is not None


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
