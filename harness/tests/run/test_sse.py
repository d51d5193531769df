"""The stream parser against every quirk that is known of a server, and against hostile input."""

from __future__ import annotations

import json
import time
import tracemalloc
import unittest
from typing import Any, Callable, Optional
from unittest import mock

from run import sse

DEFAULTS: dict[str, Any] = {
    "streamed": True, "events": 0, "bad_events": 0, "done": False, "texts": [], "reads": [],
    "finish_reason": None, "usage": None, "server_timings": None, "model": None,
    "system_fingerprint": None, "error": None}


def fields_of(stream: sse.StreamParser, *left_out: str) -> dict[str, Any]:
    """What a parser found beyond DEFAULTS; `kinds` only if there is reasoning."""
    found = {name: getattr(stream, name) for name in DEFAULTS}
    if "r" in stream.kinds:
        found["kinds"] = "".join(stream.kinds)
    if not stream.streamed:
        found["reads"] = []
    return {k: v for k, v in found.items() if k not in left_out and v != DEFAULTS.get(k, "")}


def parse_reads(reads: Any, framing: str = "close",
                length_bytes: int = 0) -> tuple[sse.Body, sse.StreamParser]:
    """Return (body, parser) after these reads."""
    body, stream = sse.Body(framing, length_bytes), sse.StreamParser()
    for number, read in enumerate(reads):
        stream.feed(body.feed(read), number)
    return body, stream.close(max(len(reads) - 1, 0))


def parsed(*reads: bytes) -> sse.StreamParser:
    """The parser after a body of these reads."""
    return parse_reads(reads)[1]


def event(message: Any, ends: bytes = b"\n\n") -> bytes:
    return b"data: " + json.dumps(message, ensure_ascii=False).encode() + ends


def delta(finish_reason: Any = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish_reason}]}


def text(content: str, ends: bytes = b"\n\n", **others: Any) -> bytes:
    """An event with one text."""
    return event({**delta(content=content), **others}, ends)


STOP = event(delta("stop"))
DONE = b"data: [DONE]\n\n"
ROLE = event(delta(role="assistant"))
USAGE = {"prompt_tokens": 37, "completion_tokens": 8, "total_tokens": 45}
USAGE_EVENT = event({"choices": [], "usage": USAGE})


class Table(unittest.TestCase):
    maxDiff = None

    def assert_rows(self, rows: Any) -> None:
        """rows: (name, body or list of reads, what the parser finds in them)."""
        for name, reads, expected in rows:
            with self.subTest(name):
                found = fields_of(parsed(*([reads] if isinstance(reads, bytes) else reads)))
                self.assertEqual(found, expected)


# --- HTTP framing --------------------------------------------------------------------------------
def unchunked(*reads: bytes) -> tuple[bytes, bool, bool]:
    body = sse.Body("chunked")
    return b"".join(map(body.feed, reads)), body.complete, body.broken


class Framing(unittest.TestCase):
    def test_chunked_bodies_in_every_split(self):
        for name, framed, expected in (
            ("plain", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", (b"abcde", True, False)),
            ("extensions", b'3;name="a;b"\r\nabc\r\n0;last\r\n\r\n', (b"abc", True, False)),
            ("blanks around the size", b" 3 \r\nabc\r\n0\r\n\r\n", (b"abc", True, False)),
            ("leading zeros", b"0003\r\nabc\r\n000\r\n\r\n", (b"abc", True, False)),
            ("upper case", b"0A\r\n0123456789\r\n0\r\n\r\n", (b"0123456789", True, False)),
            ("lower case", b"a\r\n0123456789\r\n0\r\n\r\n", (b"0123456789", True, False)),
            ("lone line feeds", b"3\nabc\n2\nde\n0\n\n", (b"abcde", True, False)),
            ("trailers", b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n", (b"abc", True, False)),
            ("line ends inside a chunk", b"4\r\n\r\n\r\n\r\n0\r\n\r\n", (b"\r\n\r\n", True, False)),
            ("end inside a chunk", b"5\r\nabc", (b"abc", False, False)),
            ("a size beyond the body", b"fffffff\r\nabc", (b"abc", False, False)),
            ("end before the last chunk", b"3\r\nabc\r\n", (b"abc", False, False)),
            ("end after the last size", b"3\r\nabc\r\n0\r\n", (b"abc", True, False)),
            ("bytes after the end", b"1\r\na\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n", (b"a", True, False)),
            ("no size", b"3\r\nabc\r\n\r\n0\r\n\r\n", (b"abc", False, True)),
            ("not hexadecimal", b"3\r\nabc\r\nxyz\r\nabc", (b"abc", False, True)),
            ("a signed size", b"-3\r\nabc\r\n", (b"", False, True)),
            ("an underscore", b"1_0\r\nabc\r\n", (b"", False, True)),
            ("a prefix", b"0x3\r\nabc\r\n", (b"", False, True)),
            ("a size of 64 bits", b"f" * 16 + b"\r\nabc", (b"", False, True)),
            ("a chunk longer than its size", b"2\r\nabc\r\n0\r\n\r\n", (b"ab", False, True)),
            ("a size line without end", b"3" * 5000, (b"", False, True)),
            ("not chunked", b"data: {}\n\n", (b"", False, True)),
            ("nothing", b"", (b"", False, False)),
        ):
            with self.subTest(name):
                self.assertEqual(unchunked(framed), expected)
                pieces = [framed[i:i + 1] for i in range(len(framed))]
                self.assertEqual(unchunked(*pieces), expected)
                for cut in range(1, len(framed)):
                    self.assertEqual(unchunked(framed[:cut], framed[cut:]), expected, cut)

    def test_content_length_ends_the_body(self):
        body = sse.Body("length", 5)
        found = [(body.feed(read), body.complete) for read in (b"abc", b"", b"defg", b"h")]
        self.assertEqual(found, [(b"abc", False), (b"", False), (b"de", True), (b"", True)])
        for length in (0, -1):
            body = sse.Body("length", length)
            self.assertEqual((body.complete, body.feed(b"abc"), body.complete), (True, b"", True))

    def test_a_body_that_ends_with_its_connection_is_never_complete(self):
        body = sse.Body("close")
        self.assertEqual((body.feed(b"0\r\n\r\n"), body.complete), (b"0\r\n\r\n", False))

    def test_a_chunk_belongs_to_the_read_of_its_payload_whatever_its_framing(self):
        framed = b"%x\r\n%s\r\n" % (len(text("a")), text("a"))
        for cut in (1, 5, len(framed) - 2, len(framed) - 1):
            _, stream = parse_reads([framed[:cut], framed[cut:] + b"0\r\n\r\n"], "chunked")
            with self.subTest(cut=cut):
                self.assertEqual(stream.reads, [0 if cut > 5 else 1])


class ParseBody(unittest.TestCase):
    def test_each_payload_has_the_read_that_brought_it(self):
        for name, pieces, start, framing, length, payloads in (
                ("header in its own read", [b"H", b"ab", b"c"], 1, "close", 0,
                 [(b"ab", 1), (b"c", 2)]),
                ("header in two reads", [b"HE", b"AD", b"ab"], 4, "close", 0, [(b"ab", 2)]),
                ("body in the header's read", [b"Hab", b"c"], 1, "close", 0,
                 [(b"ab", 0), (b"c", 1)]),
                ("chunked", [b"H", b"2\r\nab\r", b"\n1\r\nc\r\n0\r\n\r\n"], 1, "chunked", 0,
                 [(b"ab", 1), (b"c", 2)]),
                ("Content-Length", [b"H", b"ab", b"cd"], 1, "length", 3, [(b"ab", 1), (b"c", 2)]),
                ("no body", [b"H"], 1, "length", 0, [])):
            with self.subTest(name):
                raw, ends, sink = bytearray(), [], mock.Mock()
                for piece in pieces:
                    raw += piece
                    ends.append(len(raw))
                head = sse.parse_body(sse.Body(framing, length), raw, ends, start, sink, 2)
                self.assertEqual([call.args for call in sink.call_args_list], payloads)
                self.assertEqual(head, b"".join(payload for payload, _ in payloads)[:2])


# --- lines and events ----------------------------------------------------------------------------
class Lines(Table):
    def test_every_line_end_in_every_split(self):
        for newline in (b"\n", b"\r\n", b"\r"):
            events = b"".join((ROLE, text("a"), text("b\u00e9\U0001f389"), STOP, DONE))
            payload = events.replace(b"\n", newline)
            whole = {"events": 5, "done": True, "texts": ["a", "b\u00e9\U0001f389"],
                     "finish_reason": "stop"}
            for cut in range(len(payload)):
                found = fields_of(parsed(payload[:cut], payload[cut:]), "reads")
                self.assertEqual(found, whole, (newline, cut))

    def test_a_text_belongs_to_the_read_that_ends_its_line(self):
        line = text("a").rstrip(b"\n")
        pretty = b"".join(b"data: " + part + b"\n" for part in json.dumps(
            delta(content="a"), indent=1).encode().split(b"\n")) + b"\n"
        half = pretty.index(b"content")
        for name, reads, read in (
            ("the empty line in the next read", [line + b"\n", b"\n"], 0),
            ("the empty line never", [line + b"\n"], 0),
            ("the line end in the next read", [line, b"\n\n"], 1),
            ("CR and LF in two reads", [line + b"\r", b"\n\r\n"], 0),
            ("CR LF in the next read", [line, b"\r\n\r\n"], 1),
            ("an LF after an empty read", [line + b"\r", b"", b"\n", b"\r\n"], 0),
            ("no line end at all", [line[:-4], line[-4:]], 1),
            ("a byte order mark in two reads", [b"\xef", b"\xbb", b"\xbf" + text("a")], 2),
            ("an event in several data lines", [pretty[:half], pretty[half:]], 1),
            # If the LF were an empty line, the two data lines would be two events.
            ("an LF after a CR is not an empty line",
             [b'data: {"choices": [{"delta":\r', b'\ndata: {"content": "a"}}]}\r\n\r\n'], 1),
        ):
            with self.subTest(name):
                self.assertEqual(fields_of(parsed(*reads)),
                                 {"events": 1, "texts": ["a"], "reads": [read]})

    def test_a_cr_counts_only_for_the_byte_that_follows(self):
        stream = parsed(text("a", ends=b"\r\r"), b"data: {", b"\n", b"data: }\n\n")
        self.assertEqual(fields_of(stream), {"events": 2, "texts": ["a"], "reads": [0]})

    def test_dialects_of_the_data_line(self):
        one = json.dumps(delta(content="a")).encode()
        for name, payload, expected in (
            ("no space", b"data:" + one + b"\n\ndata:[DONE]\n\n", {"events": 2, "done": True}),
            ("two spaces", b"data:  " + one + b"\n\n", {}),
            ("done without a newline", text("a") + b"data: [DONE]", {"events": 2, "done": True}),
            ("no empty line at the end", b"data: " + one + b"\n", {}),
            ("a blank after done", text("a") + b"data: [DONE] \n\n", {"events": 2, "done": True}),
            ("byte order mark", b"\xef\xbb\xbf" + text("a"), {}),
            ("id and retry", b"id: 7\nretry: 3000\n" + text("a"), {}),
            ("event: message", b"event: message\n" + text("a"), {}),
            ("comments", b":\n\n: keepalive 3/9\n\n" + text("a") + b":\n\n", {}),
            ("empty data", b"data:\n\ndata: \n\n" + text("a"), {}),
            ("blank lines", b"\n\n\n" + text("a") + b"\n\n", {}),
            ("text of another event", b"event: ping\ndata: now\n\n" + text("a"), {}),
            ("a comment inside an event", b"data: " + one + b"\n:\n\n", {}),
            ("NUL bytes around", b"\0\n" + text("a") + b"\0\0", {}),
            ("unreadable numbers", b'data: {"created": 1%s, "x": NaN, "choices": '
             b'[{"delta": {"content": "a"}}]}\n\n' % (b"0" * 5000), {}),
        ):
            with self.subTest(name):
                self.assertEqual(fields_of(parsed(payload)),
                                 {"events": 1, "texts": ["a"], "reads": [0], **expected})

    def test_events_without_separators_are_parsed_per_line_each_with_its_read(self):
        lines = [e.replace(b"\n\n", b"\n") for e in (text("a"), text("b"), STOP, DONE)]
        self.assertEqual(
            fields_of(parsed(*lines)),
            {"events": 4, "done": True, "texts": ["a", "b"], "reads": [0, 1],
             "finish_reason": "stop"})

    def test_events_in_one_packet_share_a_read(self):
        stream = parsed(text("a"), text("b") + text("c") + text("d"), text("e") + STOP)
        self.assertEqual(stream.reads, [0, 1, 1, 1, 2])

    def test_characters_that_are_not_valid(self):
        for content, found in ((b"x\xffy\xc3", "x\ufffdy\ufffd"), (b"x\0\ty", "x\0\ty")):
            payload = b'data: {"choices": [{"delta": {"content": "%b"}}]}\n\n' % content
            self.assertEqual(parsed(payload).texts, [found])

    def test_invalid_json_is_counted_and_skipped(self):
        self.assert_rows((
            bad[:20], text("a") + (b"data: " + bad + b"\n\n") * 2 + text("b"),
            {"events": 2, "bad_events": 2, "texts": ["a", "b"], "reads": [0, 0]})
            for bad in (b"{", b'{"choices": [', b"now", b"7", b"null", b'"text"', b"[" * 100_000,
                        b'{"a": ' + b"1" * 5000 + b"}}"))


# --- messages ------------------------------------------------------------------------------------
class Messages(Table):
    def test_messages_without_text(self):
        self.assert_rows((name, event(message), {"events": 1}) for name, message in (
            ("no choices", {"choices": []}),
            ("choices null", {"choices": None}),
            ("no delta", {"choices": [{"index": 0}]}),
            ("delta null", {"choices": [{"index": 0, "delta": None}]}),
            ("empty delta", delta()),
            ("delta of another type", {"choices": [{"delta": 7}]}),
            ("model of another type", {"choices": [], "model": 7}),
            ("role", delta(role="assistant")),
            ("content null", delta(role="assistant", content=None)),
            ("content empty", delta(role="assistant", content="")),
            ("reasoning empty", delta(content=None, reasoning_content="", reasoning="")),
            ("content of another type", delta(content=7)),
            ("a tool call", delta(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}])),
            ("an image part", delta(content=[{"type": "image_url", "image_url": {"url": "x"}}])),
            ("encrypted reasoning", delta(reasoning_details=[{"type": "reasoning.encrypted",
                                                              "data": "abc"}]))))

    def test_texts_and_their_kinds(self):
        thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "t"}]}
        part = {"type": "text", "text": "a"}
        for name, fields, texts, kinds in (
            ("content", {"content": "a"}, ["a"], "a"),
            ("blank", {"content": " \n"}, [" \n"], "a"),
            ("DeepSeek, llama.cpp", {"reasoning_content": "t", "content": None}, ["t"], "r"),
            ("Ollama, vLLM", {"reasoning": "t", "content": ""}, ["t"], "r"),
            ("both at once", {"reasoning": "t", "content": "a"}, ["t", "a"], "ra"),
            ("the same twice", {"reasoning": "t", "reasoning_content": "t"}, ["t"], "r"),
            ("one of the two empty", {"reasoning_content": "", "reasoning": "t"}, ["t"], "r"),
            ("OpenRouter", {"content": "", "reasoning": "t",
                            "reasoning_details": [{"type": "reasoning.text", "text": "t"}]},
             ["t"], "r"),
            ("details only", {"reasoning_details": [
                {"type": "reasoning.summary", "summary": "s"},
                {"type": "reasoning.text", "text": "t", "signature": None}]}, ["st"], "r"),
            ("thinking", {"thinking": "t"}, ["t"], "r"),
            ("thinking blocks", {"thinking_blocks": [{"type": "thinking", "thinking": "t"}]},
             ["t"], "r"),
            ("parts", {"content": [part, {"type": "text", "text": "b"}]}, ["ab"], "a"),
            ("strings as parts", {"content": ["a", "b"]}, ["ab"], "a"),
            ("Mistral", {"content": [thinking, part, part]}, ["t", "aa"], "ra"),
            ("one part", {"content": part}, ["a"], "a"),
            ("parts too deep", {"content": [[[[[[["a"]]]]]]]}, [], ""),
        ):
            with self.subTest(name):
                stream = parsed(event(delta(**fields)))
                self.assertEqual((stream.texts, "".join(stream.kinds)), (texts, kinds))

    def test_which_part_of_a_message_counts(self):
        message = {"role": "assistant", "content": "ab"}
        stop = {"finish_reason": "stop"}
        whole = {"object": "chat.completion", "usage": USAGE,
                 "choices": [{"index": 0, "message": message, **stop}]}
        both = {"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": "length"},
                            {"index": 0, "delta": {"content": "a"}, **stop}]}
        self.assert_rows((
            ("a text completion", [event({"choices": [{"text": "a"}]}),
                                   event({"choices": [{"text": "b"}]})],
             {"events": 2, "texts": ["a", "b"], "reads": [0, 1]}),
            ("a whole message after its deltas", [text("a"), text("b"), event(whole)],
             {"events": 3, "texts": ["a", "b"], "reads": [0, 1], **stop, "usage": USAGE}),
            ("a whole message without deltas", [ROLE, event(whole)],
             {"events": 2, "texts": ["ab"], "reads": [1], **stop, "usage": USAGE}),
            ("a whole message beside an empty delta",
             event({"choices": [{"delta": {}, "message": message, **stop}]}),
             {"events": 1, "texts": ["ab"], "reads": [0], **stop}),
            ("the first of two choices", event(both),
             {"events": 1, "texts": ["a"], "reads": [0], **stop}),
            ("a choice without an index", event({"choices": [{"delta": {"content": "a"}}]}),
             {"events": 1, "texts": ["a"], "reads": [0]}),
            ("a choice with index null",
             event({"choices": [{"index": None, "delta": {"content": "a"}}]}),
             {"events": 1, "texts": ["a"], "reads": [0]}),
            ("the first model, the last fingerprint", [
                event({"model": "", "system_fingerprint": None, "choices": []}),
                event({"model": "m", "system_fingerprint": "f1", "choices": []}),
                event({"model": "other", "system_fingerprint": "f2", "choices": []}),
                event({"model": None, "system_fingerprint": "", "choices": []})],
             {"events": 4, "model": "m", "system_fingerprint": "f2"}),
            ("the last valid finish_reason",
             [event(delta(reason)) for reason in ("length", None, "", 7, "stop", None)],
             {"events": 6, **stop}),
            ("the last timings", [event({"choices": [], "timings": {"prompt_n": 1}}),
                                  event({"choices": [], "timings": None})],
             {"events": 2, "server_timings": {"prompt_n": 1}}),
            ("usage in the choice",
             event({"choices": [{"index": 0, "delta": {}, "usage": USAGE}]}),
             {"events": 1, "usage": USAGE})))

    def test_which_usage_counts(self):
        less = {"prompt_tokens": 37, "completion_tokens": 1, "total_tokens": 38}
        zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        self.assert_rows((
            name, b"".join(event({"choices": [], "usage": usage}) for usage in usages),
            {"events": len(usages), "usage": expected})
            for name, usages, expected in (
                ("the last", (less, USAGE), USAGE),
                ("the last, even if less", (USAGE, less), less),
                ("null", (USAGE, None), USAGE),
                ("empty", (USAGE, {}), USAGE),
                ("of another type", (USAGE, [1], "x", 7), USAGE),
                ("zeros never hide counts", (USAGE, zeros), USAGE),
                ("zeros as placeholders", (zeros, zeros, USAGE), USAGE),
                ("only zeros", (zeros,), zeros),
                ("the last of zeros", ({"total_tokens": 0}, zeros), zeros),
                ("invalid counts hide nothing", (USAGE, {"total_tokens": "9"}), USAGE),
                ("field by field", (USAGE, {"total_tokens": 1}), {**USAGE, "total_tokens": 1}),
                ("prompt first, answer later",
                 ({"input_tokens": 37, "output_tokens": 0}, {"output_tokens": 8}),
                 {"input_tokens": 37, "output_tokens": 8})))


class Errors(Table):
    def test_errors_inside_a_stream(self):
        for name, payload, error in (
            ("object", event({"error": {"message": "m", "code": 500}}),
             {"message": "m", "code": 500}),
            ("string", event({"error": "m"}), "m"),
            ("list", event({"error": ["m", "n"]}), ["m", "n"]),
            ("empty object", event({"error": {}}), {}),
            ("empty string", event({"error": ""}), ""),
            ("FastAPI text", event({"detail": "m"}), "m"),
            ("FastAPI list", event({"detail": [{"loc": ["body"], "msg": "m"}]}),
             [{"loc": ["body"], "msg": "m"}]),
            ("KoboldCpp busy", event({"detail": {"msg": "busy", "type": "service_unavailable"}}),
             {"msg": "busy", "type": "service_unavailable"}),
            ("old vLLM", event({"object": "error", "message": "m", "code": 400}),
             {"object": "error", "message": "m", "code": 400}),
            ("a gateway", event({"code": 500, "msg": "404 NOT_FOUND", "success": False}),
             {"code": 500, "msg": "404 NOT_FOUND", "success": False}),
            ("event: error", b"event: error\n" + event({"error": {"message": "m"}}),
             {"message": "m"}),
            ("event: error with the error itself", b"event: error\n" + event({"message": "m"}),
             {"message": "m"}),
            ("event: error with text", b"event:error\ndata: it broke\n\n", "it broke"),
            ("event: error with a string", b'event: error\ndata: "it broke"\n\n', "it broke"),
            ("event: error with long text", b"event: error\ndata: " + b"x" * 10_000 + b"\n\n",
             "x" * sse.MAX_ERROR_CHARACTERS),
            ("in a list", event([{"error": {"message": "m"}}]), {"message": "m"}),
            ("not escaped", b'data: {"error": "no "x" here"}\n\n', '{"error": "no "x" here"}'),
        ):
            self.assert_rows((
                (name + " after text", text("a") + payload,
                 {"events": 2, "texts": ["a"], "reads": [0], "error": error}),
                (name + " before [DONE]", payload + DONE,
                 {"events": 2, "error": error, "done": True})))

    def test_messages_without_an_error(self):
        for message in ({"choices": [], "error": None}, {"choices": [], "error": False},
                        {**delta(content="a"), "error": ""}, {**delta(content="a"), "error": {}},
                        {"choices": [], "message": "loading"}, {"usage": USAGE},
                        {"text": "a", "error_code": 0}):
            with self.subTest(message):
                self.assertIsNone(parsed(event(message)).error)

    def test_where_errors_may_be(self):
        in_choice = delta("error", content="")
        in_choice["choices"][0]["error"] = {"code": 502, "message": "m"}
        self.assert_rows((
            ("in the choice", [text("a"), event(in_choice)],
             {"events": 2, "texts": ["a"], "reads": [0], "finish_reason": "error",
              "error": {"code": 502, "message": "m"}}),
            ("the first of two is the cause",
             [event({"error": "out of memory"}), event({"error": "closed"})],
             {"events": 2, "error": "out of memory"}),
            ("bare JSON in a stream", [text("a"), b'{"error": {"message": "m"}}\n'],
             {"events": 1, "texts": ["a"], "reads": [0], "error": {"message": "m"}})))


class Bodies(Table):
    """A 200 with something other than a stream of events."""

    def test_one_json_document_is_an_answer_without_times(self):
        document = {"object": "chat.completion", "model": "m", "usage": USAGE, "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "a"},
             "finish_reason": "stop"}]}
        line = json.dumps(document).encode()
        pretty = json.dumps(document, indent=2).encode()
        for name, body in (("one line", line), ("with a newline", line + b"\n"),
                           ("pretty", pretty), ("CR LF", pretty.replace(b"\n", b"\r\n")),
                           ("byte order mark", b"\xef\xbb\xbf" + line),
                           ("after pings", b": ping\n\n" + line)):
            self.assert_rows((f"{name}, {len(reads)} reads", reads, {
                "streamed": False, "events": 1, "texts": ["a"], "finish_reason": "stop",
                "usage": USAGE, "model": "m"})
                for reads in ([body], [body[:9], body[9:60], body[60:]]))

    def test_inline_thinking_in_one_document(self):
        stream = parsed(json.dumps({"choices": [{"message": {
            "content": "<think>t</think>\n\na"}, "finish_reason": "stop"}]}).encode())
        self.assertTrue(stream.mark_inline_reasoning())
        self.assertEqual((stream.text_of("r"), stream.text_of("a")), ("<think>t</think>\n\n", "a"))

    def test_errors_as_a_body(self):
        self.assert_rows((
            name, body, {"streamed": False, "events": 1, "error": error})
            for name, body, error in (
                ("object", b'{"error": {"message": "m"}}', {"message": "m"}),
                ("string", b'{"error": "m"}', "m"),
                ("list", b'{"error": ["m"]}', ["m"]),
                ("FastAPI", b'{"detail": "Not Found"}', "Not Found"),
                ("old vLLM", b'{"object": "error", "message": "m", "code": 400}',
                 {"object": "error", "message": "m", "code": 400}),
                ("Gemini", b'[{"error": {"message": "m"}}]', {"message": "m"})))

    def test_lines_of_json_are_a_stream(self):
        lines = [json.dumps(delta(content=c)).encode() + b"\n" for c in "abcdefg"]
        finish = json.dumps(delta("stop")).encode()
        self.assert_rows((
            ("a line in two reads", [lines[0], lines[1] + lines[2][:9], lines[2][9:] + finish],
             {"events": 4, "texts": ["a", "b", "c"], "reads": [0, 1, 2], "finish_reason": "stop"}),
            ("several lines per read", [b"".join(lines[:3]), b"", lines[3], b"".join(lines[4:6]),
                                        lines[6]],
             {"events": 7, "texts": [*"abcdefg"], "reads": [0, 0, 0, 2, 3, 3, 4]}),
            ("an error in a line", b'{"message": {"content": "a"}}\n{"error": "out of memory"}\n',
             {"events": 1, "error": "out of memory"})))

    def test_bodies_that_are_not_an_answer(self):
        self.assert_rows((
            ("nothing", b"", {}),
            ("blank", b"\n\n", {}),
            ("only pings", b": ping\n\n", {}),
            ("HTML", b"<html>\n<body>Bad gateway</body></html>\n", {"bad_events": 1}),
            ("text", b"Internal Server Error", {"bad_events": 1}),
            ("JSON of another API", b'{"response": "hi", "done": true}', {"bad_events": 1}),
            ("Ollama's own lines", b'{"message": {"content": "a"}, "done": false}\n'
             b'{"message": {"content": ""}, "done": true}\n', {"bad_events": 1}),
            ("torn JSON", b'{"choices": [{"message": {"content": "a"', {"bad_events": 1}),
            ("all bytes", bytes(range(256)), {"bad_events": 1}),
            ("text beside a bad event", b"data: {\n\nInternal Server Error", {"bad_events": 2})))


class Quirks(Table):
    """One row for each quirk that is known of a server."""

    def test_quirks_of_servers(self):
        def chunk(reason: Optional[str] = None, **fields: Any) -> bytes:
            return event(delta(reason, role="assistant", **fields))

        def counted(tokens: int) -> dict[str, int]:
            return {"prompt_tokens": 37, "completion_tokens": tokens, "total_tokens": 37 + tokens}

        stop, done = {"finish_reason": "stop"}, {"done": True}
        a, ab = {"texts": ["a"], "reads": [0]}, {"texts": ["a", "b"], "reads": [0, 1]}
        error = {"message": "m", "type": "server_error", "code": 500}
        bare = event({"choices": [{"delta": {"role": "assistant"}, "index": 0}]})
        self.assert_rows((
            ("transformers: usage with the finish, no [DONE]",
             [bare, b"", text("a"), text("b"),
              event({"choices": [{"delta": {}, "index": 0, "finish_reason": "stop"}],
                     "system_fingerprint": "", "usage": USAGE})],
             {"events": 4, "texts": ["a", "b"], "reads": [2, 3], **stop, "usage": USAGE}),
            ("llama-server: role with the first token",
             [chunk(content=None) + text("a"), text("b"), STOP + event(
                 {"choices": [], "usage": USAGE, "timings": {"cache_n": 36}}), DONE],
             {"events": 6, **done, **ab, **stop, "usage": USAGE,
              "server_timings": {"cache_n": 36}}),
            ("llama-server: progress repeats the role",
             [event({**delta(role="assistant", content=None), "prompt_progress": {"total": 9}})] * 2
             + [b":\n\n", text("a"), STOP + DONE],
             {"events": 5, **done, "texts": ["a"], "reads": [3], **stop}),
            ("llama-server before August 2025: usage with the finish",
             [text("a"), event({**delta("stop"), "usage": USAGE}), DONE],
             {"events": 3, **done, **a, **stop, "usage": USAGE}),
            ("an end of sequence at once",
             [chunk(content=None), STOP, event({"choices": [], "usage": counted(1)}), DONE],
             {"events": 4, **done, **stop, "usage": counted(1)}),
            ("vLLM: empty texts for halves of a character",
             [chunk(content=""), text(""), text(""), text("\U0001f389"),
              event(delta("length", content="")), USAGE_EVENT, DONE],
             {"events": 7, **done, "texts": ["\U0001f389"], "reads": [3],
              "finish_reason": "length", "usage": USAGE}),
            ("vLLM: the last token with the finish",
             [text("a"), event(delta("length", content="b")), DONE],
             {"events": 3, **done, **ab, "finish_reason": "length"}),
            ("vLLM: usage on every chunk",
             [event({**delta(role="assistant", content=""), "usage": counted(0)}),
              text("a", usage=counted(1)), text("b", usage=counted(2)),
              event({**delta("stop"), "usage": counted(3)}), DONE],
             {"events": 5, **done, "texts": ["a", "b"], "reads": [1, 2], **stop,
              "usage": counted(3)}),
            ("vLLM, LocalAI: an error and [DONE]", [text("a"), event({"error": error}), DONE],
             {"events": 3, **done, **a, "error": error}),
            ("mlx: repeats the role, pings while it reads the prompt",
             [b": keepalive 0/37\n\n", b": keepalive 37/37\n\n", chunk(content="a"),
              chunk(content="b"), chunk("stop"),
              event({"object": "chat.completion", "choices": [], "usage": USAGE}), DONE],
             {"events": 5, **done, "texts": ["a", "b"], "reads": [2, 3], **stop, "usage": USAGE}),
            ("litellm: usage with an empty delta",
             [bare + text("a"), text("b") + STOP + event(
                 {"choices": [{"index": 0, "delta": {}}], "usage": USAGE}) + DONE],
             {"events": 6, **done, **ab, **stop, "usage": USAGE}),
            ("llama-cpp-python: one answer interrupted by the next", [ROLE, DONE],
             {"events": 2, **done}),
            ("Ollama: role with every text, thinking in reasoning",
             [chunk(content="", reasoning="t"), chunk(content="", reasoning="u"),
              chunk(content="a"), STOP, USAGE_EVENT, DONE],
             {"events": 6, **done, "texts": ["t", "u", "a"], "kinds": "rra", "reads": [0, 1, 2],
              **stop, "usage": USAGE}),
            ("Ollama: breaks off with an empty chunk", [chunk(content="a"), chunk(content="")],
             {"events": 2, **a}),
            ("LM Studio: overflow in an event of its own",
             [b"event: error\n" + event({"error": error})], {"events": 1, "error": error}),
            ("SGLang: events of its own",
             [ROLE, b'event: sglext_ids\ndata: {"output_ids": [1, 2]}\n\n',
              event(delta(reasoning_content="t")), text("a"), STOP, DONE],
             {"events": 6, **done, "texts": ["t", "a"], "kinds": "ra", "reads": [2, 3], **stop}),
            ("TGI: a refused request inside a stream", [b": \n\n", event({"error": error}), DONE],
             {"events": 2, **done, "error": error}),
            ("TGI 1.4: the index of each token as that of its choice",
             [event({"choices": [{"index": 1, "delta": {"content": "a"}}]}),
              event({"choices": [{"index": 2, "delta": {"content": "b"},
                                  "finish_reason": "length"}]})],
             {"events": 2, **ab, "finish_reason": "length"}),
            ("llama-server before 2025: an error in a line of that name",
             [text("a"), b'error: {"code":500,"message":"m","type":"server_error"}\n\n'],
             {"events": 2, **a, "error": error}),
            ("FastChat: an error beside its text",
             [ROLE, event({"text": "m", "error_code": 50001}), DONE],
             {"events": 3, **done, "error": {"text": "m", "error_code": 50001}}),
            ("a gateway: an error by its status",
             [ROLE, event({"status": "error", "message": "m"}), DONE],
             {"events": 3, **done, "error": {"status": "error", "message": "m"}}),
            ("TGI: usage without an id",
             [text("a"), STOP, event({"id": "", "model": "m", "choices": [], "usage": USAGE}),
              DONE],
             {"events": 4, **done, **a, **stop, "usage": USAGE, "model": "m"}),
            ("KoboldCpp: repeats the role, ends without a newline",
             [chunk(content="a"), chunk(content="b"), chunk("stop", content=""), b"data: [DONE]"],
             {"events": 4, **done, **ab, **stop}),
            ("llamafile: usage null before its usage",
             [text("a", usage=None), event({**delta("stop"), "usage": None}), USAGE_EVENT, DONE],
             {"events": 4, **done, **a, **stop, "usage": USAGE}),
            ("OpenRouter: pings, an error with the finish",
             [b": OPENROUTER PROCESSING\n\n", text("a"),
              event({**delta("error", content=""), "error": error})],
             {"events": 2, "texts": ["a"], "reads": [1], "finish_reason": "error", "error": error}),
            ("Azure: a frame of its filter first",
             [event({"choices": [], "created": 0, "id": "", "model": "",
                     "prompt_filter_results": [{"prompt_index": 0}]}),
              event({**delta(role="assistant", content=""), "model": "gpt-4o"}),
              text("a", model="gpt-4o") + text("b", model="gpt-4o"),
              event({"choices": [{"index": 0, "content_filter_offsets": {"end_offset": 44}}],
                     "model": ""}), STOP, DONE],
             {"events": 7, **done, "texts": ["a", "b"], "reads": [2, 2], "model": "gpt-4o",
              **stop}),
            ("MiniMax, Moonshot: usage in the choice",
             [text("a", usage={"total_tokens": 0, "total_characters": 0}),
              event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop",
                                  "usage": USAGE}]}), DONE],
             {"events": 3, **done, **a, **stop, "usage": USAGE}),
            ("only tool calls",
             [ROLE, event(delta(tool_calls=[{"index": 0, "id": "c"}])), event(delta("tool_calls")),
              DONE],
             {"events": 4, **done, "finish_reason": "tool_calls"})))


class InlineReasoning(unittest.TestCase):
    def test_where_thinking_ends_and_the_answer_begins(self):
        for name, texts, expected in (
            ("tags in chunks of their own", ("<think>", "t", "</think>", "\n\n", "a", "b"),
             (True, "<think>t</think>\n\n", "ab", [0, 1, 2, 3, 4, 5])),
            ("tags in several chunks", ("<th", "ink>", "t", "</thi", "nk>", "a"),
             (True, "<think>t</think>", "a", [0, 1, 2, 3, 4, 5])),
            ("blanks before", ("\n", " <think>", "t</think>", "a"),
             (True, "\n <think>t</think>", "a", [0, 1, 2, 3])),
            ("end and answer in one chunk", ("<think>t", "u</think>\n\na", "b"),
             (True, "<think>tu</think>\n\n", "ab", [0, 1, 1, 2])),
            ("all in one chunk", ("<think>t</think>a",),
             (True, "<think>t</think>", "a", [0, 0])),
            ("the template opened the block", ("t", "u</think>", "a"),
             (True, "tu</think>", "a", [0, 1, 2])),
            ("thinking used up the token limit", ("<think>", "t", "u"),
             (True, "<think>tu", "", [0, 1, 2])),
            ("thinking without an answer", ("<think>t", "</think>\n"),
             (True, "<think>t</think>\n", "", [0, 1])),
            ("empty thinking", ("<think>\n\n</think>\n\na",),
             (True, "<think>\n\n</think>\n\n", "a", [0, 0])),
            ("tags again in the answer", ("<think>t</think>", "a <think>b</think>"),
             (True, "<think>t</think>", "a <think>b</think>", [0, 1])),
            ("the template opened and closed it", ("</think>", "a"),
             (True, "</think>", "a", [0, 1])),
            ("no thinking", ("a", "b"), (False, "", "ab", [0, 1])),
            ("tags inside the answer", ("a <think>", "b</think>"),
             (False, "", "a <think>b</think>", [0, 1])),
            ("no text", (), (False, "", "", [])),
        ):
            with self.subTest(name):
                stream = parsed(*map(text, texts))
                found = stream.mark_inline_reasoning()
                self.assertEqual("".join(stream.texts), "".join(texts))
                self.assertEqual(
                    (found, stream.text_of("r"), stream.text_of("a"), stream.reads), expected)
                self.assertFalse(stream.mark_inline_reasoning())           # changes nothing

    def test_thinking_that_was_streamed_apart_stays_as_it_is(self):
        stream = parsed(event(delta(reasoning="t")), text("<think>a</think>b"))
        self.assertFalse(stream.mark_inline_reasoning())
        self.assertEqual((stream.texts, stream.kinds), (["t", "<think>a</think>b"], ["r", "a"]))


class EndOfAnswer(unittest.TestCase):
    def test_first_reason_or_count_behind_all_text_ends_an_answer(self):
        counts = event({"choices": [], "usage": {"completion_tokens": 2}})
        counted = {"usage": {"completion_tokens": 1}}
        for name, sent, expected in (
                ("nothing", [], False), ("text", [text("a")], False),
                ("a reason", [text("a"), STOP], True), ("counts", [text("a"), counts], True),
                ("both", [text("a"), STOP, counts], True),
                ("a reason with the text", [event(delta("stop", content="a"))], True),
                ("comments behind", [text("a"), STOP, b": ping\n\n"], True),
                ("nothing behind", [text("a"), event(delta())], False),
                ("text behind", [text("a"), STOP, text("b")], False),
                ("a reason without text", [STOP], False), ("counts first", [counts, text("a")],
                                                            False),
                ("counts with every text", [text("a", **counted), text("b", **counted)], False),
                ("a reason with every text", [event(delta("stop", content="a"))] * 2, False)):
            with self.subTest(name):
                self.assertIs(parsed(*sent).at_end, expected)


class ForeignText(unittest.TestCase):
    """Text that is not newly generated is removed, and named in `flags`."""

    WORDS = [f" word{i}" for i in range(40)]

    def removed(self, *reads: bytes, ms: Optional[list[float]] = None) -> tuple[list[str], Any]:
        stream = parsed(*reads)
        stream.remove_foreign_text(ms or [float(i) for i in range(len(reads))])
        stream.remove_repeated_text()
        self.assertEqual(len(stream.texts), len(stream.reads))
        self.assertEqual(len(stream.texts), len(stream.kinds))
        return stream.texts, stream.flags

    def test_status_lines_before_the_stream_has_an_identity(self):
        status = [event({"choices": [{"delta": {"reasoning_content": line}}]})
                  for line in ("loading\n", ".", "done\n")]
        answer = [event({**delta(content=word), "id": "c-1"}) for word in self.WORDS]
        self.assertEqual(self.removed(*status, *answer), (self.WORDS, ["foreign_text"]))
        role = event(delta(role="assistant", content=None))
        plain = [text(word) for word in self.WORDS]
        self.assertEqual(self.removed(*status, role, *plain), (self.WORDS, ["foreign_text"]))
        self.assertEqual(self.removed(*plain), (self.WORDS, []))           # never an identity

    def test_another_id_counts_if_the_server_counted_fewer_tokens(self):
        status = event({**delta(content="loading\n"), "id": "load"})
        answer = [event({**delta(content=word), "id": "c-1"}) for word in self.WORDS]
        for tokens, flags in ((40, ["foreign_text"]), (41, [])):
            usage = event({"choices": [], "usage": {"completion_tokens": tokens}})
            self.assertEqual(self.removed(status, *answer, usage)[1], flags, tokens)

    def test_the_servers_own_times_and_counts_show_what_came_too_early(self):
        answer = [text(word) for word in self.WORDS]
        ms = [5.0, 6.0, *(1000.0 + 10 * i for i in range(41))]
        late_ms = [5.0, 2000.0, *(4000.0 + 10 * i for i in range(41))]
        for name, end, times in (
                ("prompt_ms", {"timings": {"prompt_ms": 900.0}}, ms),
                ("predicted_ms", {"timings": {"predicted_ms": 400.0, "predicted_n": 40}}, late_ms),
                ("tokens", {"usage": {"completion_tokens": 40}}, late_ms)):
            with self.subTest(name):
                self.assertEqual(self.removed(
                    text("load"), text("ing"), *answer, event({"choices": [], **end}), ms=times),
                    (self.WORDS, ["foreign_text"]))
        # A pause in the middle of an answer is none of this.
        paused = [10.0 * i + 3000 * (i > 9) for i in range(41)]
        for end in ({"timings": {"predicted_ms": 400.0, "predicted_n": 40}},
                    {"usage": {"completion_tokens": 40}}, {"timings": {"prompt_ms": 9e9}}):
            self.assertEqual(self.removed(
                *answer, event({"choices": [], **end}), ms=paused), (self.WORDS, []))

    def test_text_that_was_sent_before(self):
        words, half = self.WORDS, "".join(self.WORDS[:20])
        whole = "".join(words)
        so_far = ["".join(words[:i + 1]) for i in range(len(words))]
        counted = event({"choices": [], "usage": {"completion_tokens": 40}})
        for name, sent in (("again in the middle", [*words[:20], half, *words[20:]]),
                           ("again at the end", [*words, whole]),
                           ("again, without blanks around", [*words, whole.strip()]),
                           ("cumulative", so_far),
                           ("each chunk twice", [one for word in words for one in (word, word)]),
                           ("the stream twice", words + words)):
            with self.subTest(name):
                found, flags = self.removed(*map(text, sent), counted)
                self.assertEqual(("".join(found), flags), (whole, ["repeated_text"]))

    def test_only_the_reasoning_was_sent_twice(self):
        thoughts, counted = self.WORDS[:20], {"completion_tokens": 60}
        sent = [event(delta(reasoning_content=word)) for word in thoughts for _ in "ab"]
        answer = [text(word) for word in self.WORDS]
        found, flags = self.removed(*sent, *answer, event({"choices": [], "usage": counted}))
        self.assertEqual((found, flags), ([*thoughts, *self.WORDS], ["repeated_text"]))

    def test_opening_mark_that_the_server_sent_before_the_prefill(self):
        answer = [text("<think>\n"), *map(text, self.WORDS)]
        for name, ms, found in (
                ("before", [3.0, *(900.0 + 10 * i for i in range(40))],
                 (["<think>\n" + self.WORDS[0], *self.WORDS[1:]], ["foreign_text"])),
                ("before a short prefill", [1.0, *(30.0 + 10 * i for i in range(40))],
                 (["<think>\n" + self.WORDS[0], *self.WORDS[1:]], ["foreign_text"])),
                ("generated", [900.0 + 10 * i for i in range(41)],
                 (["<think>\n", *self.WORDS], []))):
            with self.subTest(name):
                self.assertEqual(self.removed(*answer, ms=ms), found)
        late = [3.0, *(900.0 + 10 * i for i in range(40))]
        self.assertEqual(self.removed(text("Yes"), *map(text, self.WORDS), ms=late),
                         (["Yes", *self.WORDS], []))

    def test_text_that_was_sent_again_with_a_character_made_whole(self):
        words = self.WORDS[:20]
        sent = [*words, " caf\ufffd", "".join(words) + " caf\u00e9", " and", " more"]
        self.assertEqual(self.removed(*map(text, sent)),
                         ([*words, " caf\ufffd", "\u00e9", " and", " more"], ["repeated_text"]))

    def test_a_model_may_repeat_itself(self):
        loop = [" the", " same", " old", " song"] * 10
        counted = event({"choices": [], "usage": {"completion_tokens": 40}})
        for sent in (loop, ["a"] * 40, ["ab", "abab", "abababab", "c"], ["ha", "haha"]):
            self.assertEqual(self.removed(*map(text, sent), counted), (sent, []))
        self.assertEqual(self.removed(*map(text, loop)), (loop, []))


class Bounded(unittest.TestCase):
    def test_a_servers_object_is_kept_as_valid_json_and_bounded(self):
        deep: Any = "x"
        kept_of_deep: Any = None
        for depth in range(10):
            deep = {"k": deep}
            kept_of_deep = {"k": kept_of_deep} if depth < sse.MAX_KEPT_DEPTH else kept_of_deep
        for value, kept in (
            (USAGE, USAGE),
            (None, None), (True, True), (1.5, 1.5), ("x", "x"),
            (float("nan"), None), (float("inf"), None), (2**53, None), (2**53 - 1, 2**53 - 1),
            ("x" * 300, "x" * 200),
            ({"k" * 300: 1}, {"k" * 200: 1}),
            ({1: 2, None: 3}, {"1": 2, "None": 3}),
            ("a\ud800b", "a?b"),
            ({"\udfff": "\U0001f389"}, {"?": "\U0001f389"}),
            (list(range(100)), list(range(64))),
            ([[[[[[["deep"]]]]]]], [[[[[[None]]]]]]),
            (deep, kept_of_deep),
            # 512 values: the list, then lists of 64 with their items, until there is no room.
            ([[1] * 64] * 64, [[1] * 64] * 7 + [[1] * 55]),
            ((1, 2), None), ({1, 2}, None), (b"x", None),
        ):
            with self.subTest(repr(value)[:40]):
                self.assertEqual(sse.bounded(value), kept)


class Cost(unittest.TestCase):
    """Each case would take minutes, or gigabytes, if its cost were not linear."""

    LIMIT_S = 5

    def assert_linear(self, work: Callable[[], Any]) -> None:
        begun = time.process_time()
        work()
        self.assertLess(time.process_time() - begun, self.LIMIT_S)

    def test_time_is_linear(self):
        thinking = parsed(text("<think>t") * 20_000 + text("</think>a"))
        numbers = (b"9" * 1_000_000, b"0." + b"9" * 1_000_000, b"1e" + b"9" * 1_000_000)
        for name, work in (
            ("a line of 50 MB", lambda: parsed(b"data: ", *[b"x" * 32_768] * 1526)),
            ("a line in many small reads", lambda: parsed(b"data: ", *[b"x" * 20] * 100_000)),
            ("events without separators",
             lambda: parsed(text("a").replace(b"\n\n", b"\n") * 20_000)),
            ("inline thinking", thinking.mark_inline_reasoning),
            *((f"lines of {line!r}", lambda line=line: parsed(line * 20_000)) for line in (
                b"{\n", b"<\r", b"\n", b"\r", b"data:\n", b'{"choices": []}\n', b"event:\n")),
            *((f"a number like {number[:3]!r}",
               lambda number=number: parsed(b'data: {"usage": ' + number + b"}\n\n"))
              for number in numbers),
            *((f"bytes after {start!r}",
               lambda start=start: unchunked(start, *[b"more bytes" * 10] * 50_000))
              for start in (b"0\r\n\r\n", b"xyz\r\n")),
        ):
            with self.subTest(name):
                self.assert_linear(work)
        self.assertEqual(thinking.kinds.count("a"), 1)

    def test_memory_is_bounded(self):
        def line_without_end() -> None:
            stream = sse.StreamParser()
            for number in range(2000):
                stream.feed(b"x" * 4096, number)

        def one_byte_reads() -> None:
            parse_reads([b"x"] * 100_000)

        for name, work, limit_bytes in (
                ("a line without end is kept once", line_without_end, 2.5 * 2000 * 4096),
                ("a body in one-byte reads", one_byte_reads, 2 << 20)):
            with self.subTest(name):
                tracemalloc.start()
                try:
                    work()
                    peak = tracemalloc.get_traced_memory()[1]
                finally:
                    tracemalloc.stop()
                self.assertLess(peak, limit_bytes)


if __name__ == "__main__":
    unittest.main()
