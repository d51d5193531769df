"""The wire parser against real servers' bytes, and against every quirk that is known of one.

data/wire/expected.json holds what each capture says. Its values were not made by the parser: they
come from http.client and plain splitting, and were looked at beside the captures.
"""

import json
import re
import time
import tracemalloc
import unittest
from functools import cache

from run import sse
from run import timing as timings

from tests import wire_captures

DEFAULTS = {
    "complete": True,
    "streamed": True,
    "events": 0,
    "bad_events": 0,
    "done": False,
    "texts": [],
    "reads": [],
    "finish_reason": None,
    "usage": None,
    "server_timings": None,
    "model": None,
    "system_fingerprint": None,
    "error": None,
}
CUT_BYTES = 1024
READ_US = 1000  # in scripted streams read n arrives at (n + 1) ms


def said(stream, *left_out):
    """What a parser holds beyond `DEFAULTS`; reasoning as `kinds`, where there is any."""
    told = {name: getattr(stream, name) for name in DEFAULTS if name != "complete"}
    if "r" in stream.kinds:
        told["kinds"] = "".join(stream.kinds)
    if not stream.streamed:
        told["reads"] = []
    return {k: v for k, v in told.items() if k not in left_out and v != DEFAULTS.get(k, "")}


def heard(reads, framing="close", length_bytes=0):
    """(body, parser) after these reads."""
    body, stream = sse.Body(framing, length_bytes), sse.StreamParser()
    for number, read in enumerate(reads):
        stream.feed(body.feed(read), number)
    return body, stream.close(max(len(reads) - 1, 0))


def listen(*reads):
    """The parser after a body of these reads, that ended with the connection."""
    return heard(reads)[1]


def event(message, ends=b"\n\n"):
    return b"data: " + json.dumps(message, ensure_ascii=False).encode() + ends


def delta(finish_reason=None, **fields):
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish_reason}]}


def text(content, ends=b"\n\n", **others):
    """An event with one text."""
    return event({**delta(content=content), **others}, ends)


STOP = event(delta("stop"))
DONE = b"data: [DONE]\n\n"
ROLE = event(delta(role="assistant"))
USAGE = {"prompt_tokens": 37, "completion_tokens": 8, "total_tokens": 45}


def timing(stream, reads=20):
    return timings.chunk_timing(stream, range(READ_US, READ_US * (reads + 1), READ_US))


# --- Real servers --------------------------------------------------------------------------------


class Response:
    """A capture's final response: its head read, its body in the recorded reads."""

    def __init__(self, capture):
        raw = capture.response_bytes
        start = 0
        while raw.startswith(b"HTTP/1.1 100 ", start):
            start = raw.index(b"\r\n\r\n", start) + 4
        end = raw.index(b"\r\n\r\n", start) + 4
        head = raw[start:end].lower()
        length = re.search(rb"\ncontent-length: *(\d+)", head)
        self.status = int(head.split()[1])
        self.framing = "chunked" if b"chunked" in head else "length" if length else "close"
        self.length_bytes = int(length[1]) if length else 0
        self.body = raw[end:]
        self.reads, at = [], 0
        for segment in capture.segments:
            self.reads.append(segment.data[max(end - at, 0) :])
            at += len(segment.data)

    def hear(self, reads):
        return heard(reads, self.framing, self.length_bytes)

    def said(self, reads, *left_out):
        body, stream = self.hear(reads)
        told = said(stream, *left_out)
        if self.framing != "close" and not body.complete:
            told["complete"] = False
        return {"status": self.status, **told}


@cache
def responses():
    return {name: Response(c) for name, c in wire_captures.all_captures().items()}


@cache
def expected():
    return json.loads((wire_captures.WIRE_FOLDER / "expected.json").read_text("utf-8"))


def without(values, *names):
    return {name: value for name, value in values.items() if name not in names}


def one_of_each_dialect():
    """Captures whose lines differ in more than their words and numbers."""
    found = {}
    for name, response in responses().items():
        lines = response.body.split(b"\n")
        shapes = frozenset(re.sub(rb'"[^"]*"|[\w.+-]+', b"x", line) for line in lines)
        found.setdefault((name.partition("/")[0], shapes), (name, response))
    return found.values()


class Captures(unittest.TestCase):
    def test_every_capture_has_its_expected_values(self):
        self.assertEqual(set(responses()), set(expected()))

    def test_in_the_recorded_reads(self):
        for name, response in responses().items():
            with self.subTest(name):
                self.assertEqual(response.said(response.reads), expected()[name])

    def test_in_one_piece(self):
        for name, response in responses().items():
            with self.subTest(name):
                self.assertEqual(
                    response.said([response.body], "reads"), without(expected()[name], "reads")
                )

    def test_byte_by_byte(self):
        for name, response in responses().items():
            reads = [response.body[i : i + 1] for i in range(len(response.body))]
            with self.subTest(name):
                self.assertEqual(response.said(reads, "reads"), without(expected()[name], "reads"))

    def test_byte_by_byte_a_text_belongs_to_the_end_of_its_line(self):
        for name in ("llama-server/stream_usage", "vllm/unicode_emoji", "litellm/stream_usage"):
            response = responses()[name]
            reads = [response.body[i : i + 1] for i in range(len(response.body))]
            _, stream = response.hear(reads)
            with self.subTest(name):
                lines = [response.body[:read].rpartition(b"\n")[2] for read in stream.reads]
                told = [json.loads(line[6:])["choices"][0]["delta"]["content"] for line in lines]
                self.assertEqual(told, stream.texts)
                self.assertEqual({response.body[read] for read in stream.reads}, {ord("\n")})

    def test_cut_in_two_anywhere_in_its_first_kib(self):
        for name, response in one_of_each_dialect():
            # What follows the event at the end of the cuts cannot depend on where the cut was.
            end = response.body.find(b"\n\n", CUT_BYTES) + 2
            body = response.body[: end if end > 1 else None]
            whole = response.said([body], "reads")
            with self.subTest(name):
                for cut in range(1, min(CUT_BYTES, len(body))):
                    if response.said([body[:cut], body[cut:]], "reads") != whole:
                        self.fail(f"cut at byte {cut}")

    def test_ping_comments_alone_are_no_tokens(self):
        capture = wire_captures.all_captures("llama-server")["llama-server/sse_ping"]
        response = responses()["llama-server/sse_ping"]
        _, stream = response.hear(response.reads)
        self.assertEqual(
            timings.chunk_timing(stream, [round(s.at_s * 1e6) for s in capture.segments]),
            {
                "first_token_us": None,
                "first_answer_us": None,
                "last_token_us": None,
                "chunk_us": [],
                "chunk_kinds": None,
                "reads": [],
                "ttft_null_reason": "the answer has no text",
            },
        )

    def test_marks_of_a_recorded_stream(self):
        name = "llama-server/stream_usage"
        capture = wire_captures.all_captures("llama-server")[name]
        _, stream = responses()[name].hear(responses()[name].reads)
        self.assertEqual(
            timings.chunk_timing(stream, [round(s.at_s * 1e6) for s in capture.segments]),
            {
                "first_token_us": 18_100,
                "first_answer_us": 18_100,
                "last_token_us": 114_700,
                "chunk_us": [18_100, 14_200, 14_400, 14_600, 16_400, 18_300, 18_700],
                "chunk_kinds": None,
                "reads": [],
                "ttft_null_reason": None,
            },
        )


# --- HTTP framing --------------------------------------------------------------------------------


def unchunked(*reads):
    body = sse.Body("chunked")
    return b"".join(map(body.feed, reads)), body.complete, body.broken


class Framing(unittest.TestCase):
    def test_chunked_bodies(self):
        for name, framed, expected in (
            ("plain", b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n", (b"abcde", True, False)),
            ("extensions", b'3;name="a;b"\r\nabc\r\n0;last\r\n\r\n', (b"abc", True, False)),
            ("blank around the size", b" 3 \r\nabc\r\n0\r\n\r\n", (b"abc", True, False)),
            ("leading zeros", b"0003\r\nabc\r\n000\r\n\r\n", (b"abc", True, False)),
            ("upper case", b"0A\r\n0123456789\r\n0\r\n\r\n", (b"0123456789", True, False)),
            ("lower case", b"a\r\n0123456789\r\n0\r\n\r\n", (b"0123456789", True, False)),
            ("lone line feeds", b"3\nabc\n2\nde\n0\n\n", (b"abcde", True, False)),
            ("trailers", b"3\r\nabc\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\n", (b"abc", True, False)),
            ("line ends inside a chunk", b"4\r\n\r\n\r\n\r\n0\r\n\r\n", (b"\r\n\r\n", True, False)),
            ("cut in a chunk", b"5\r\nabc", (b"abc", False, False)),
            ("a size beyond the body", b"fffffff\r\nabc", (b"abc", False, False)),
            ("cut before the last chunk", b"3\r\nabc\r\n", (b"abc", False, False)),
            ("cut after the last size", b"3\r\nabc\r\n0\r\n", (b"abc", True, False)),
            ("after the end", b"1\r\na\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n", (b"a", True, False)),
            ("no size", b"3\r\nabc\r\n\r\n0\r\n\r\n", (b"abc", False, True)),
            ("not hexadecimal", b"3\r\nabc\r\nxyz\r\nabc", (b"abc", False, True)),
            ("a signed size", b"-3\r\nabc\r\n", (b"", False, True)),
            ("an underscore", b"1_0\r\nabc\r\n", (b"", False, True)),
            ("a prefix", b"0x3\r\nabc\r\n", (b"", False, True)),
            ("a size of 64 bits", b"f" * 16 + b"\r\nabc", (b"", False, True)),
            ("a chunk longer than its size", b"2\r\nabc\r\n0\r\n\r\n", (b"ab", False, True)),
            ("a size line without end", b"3" * 5000, (b"", False, True)),
            ("no chunks at all", b"data: {}\n\n", (b"", False, True)),
            ("nothing", b"", (b"", False, False)),
        ):
            with self.subTest(name):
                self.assertEqual(unchunked(framed), expected)
                pieces = [framed[i : i + 1] for i in range(len(framed))]
                self.assertEqual(unchunked(*pieces), expected)
                for cut in range(1, len(framed)):
                    self.assertEqual(unchunked(framed[:cut], framed[cut:]), expected, cut)

    def test_a_content_length_ends_the_body(self):
        body = sse.Body("length", 5)
        told = [(body.feed(read), body.complete) for read in (b"abc", b"", b"defg", b"h")]
        self.assertEqual(told, [(b"abc", False), (b"", False), (b"de", True), (b"", True)])

    def test_a_content_length_of_nothing(self):
        for length in (0, -1):
            body = sse.Body("length", length)
            self.assertEqual((body.complete, body.feed(b"abc"), body.complete), (True, b"", True))

    def test_a_body_that_ends_with_its_connection_is_never_known_to_be_complete(self):
        body = sse.Body("close")
        self.assertEqual((body.feed(b"0\r\n\r\n"), body.complete), (b"0\r\n\r\n", False))

    def test_the_read_that_brought_the_payload_counts_whatever_its_framing(self):
        framed = b"%x\r\n%s\r\n" % (len(text("a")), text("a"))
        for cut in (1, 5, len(framed) - 2, len(framed) - 1):
            _, stream = heard([framed[:cut], framed[cut:] + b"0\r\n\r\n"], "chunked")
            with self.subTest(cut=cut):
                self.assertEqual(stream.reads, [0 if cut > 5 else 1])


# --- Lines and events ----------------------------------------------------------------------------


class Lines(unittest.TestCase):
    def test_every_line_end_in_every_cut(self):
        for newline in (b"\n", b"\r\n", b"\r"):
            events = b"".join((ROLE, text("a"), text("b\u00e9"), STOP, DONE))
            payload = events.replace(b"\n", newline)
            whole = said(listen(payload))
            self.assertEqual(
                whole,
                {"events": 5, "done": True, "texts": ["a", "b\u00e9"], "reads": [0, 0],
                 "finish_reason": "stop"},
            )
            for cut in range(1, len(payload)):
                with self.subTest(newline, cut=cut):
                    stream = listen(payload[:cut], payload[cut:])
                    self.assertEqual(said(stream, "reads"), without(whole, "reads"))

    def test_a_text_is_complete_with_its_line_not_with_its_event(self):
        line = text("a").rstrip(b"\n")
        for name, reads, read in (
            ("the empty line in the next read", [line + b"\n", b"\n"], 0),
            ("the empty line never", [line + b"\n"], 0),
            ("the line end in the next read", [line, b"\n\n"], 1),
            ("cut between CR and LF", [line + b"\r", b"\n\r\n"], 0),
            ("CR LF in the next read", [line, b"\r\n\r\n"], 1),
            ("an LF between reads without bytes", [line + b"\r", b"", b"\n", b"\r\n"], 0),
            ("no line end at all", [line[:-4], line[-4:]], 1),
        ):
            with self.subTest(name):
                told = said(listen(*reads))
                self.assertEqual(told, {"events": 1, "texts": ["a"], "reads": [read]})

    def test_an_lf_after_a_cut_cr_is_no_empty_line(self):
        # Else the two data lines of one event would be two events.
        stream = listen(b'data: {"choices": [{"delta":\r', b'\ndata: {"content": "a"}}]}\r\n\r\n')
        self.assertEqual(said(stream), {"events": 1, "texts": ["a"], "reads": [1]})

    def test_a_cr_counts_only_for_the_byte_that_follows(self):
        stream = listen(text("a", ends=b"\r\r"), b"data: {", b"\n", b"data: }\n\n")
        self.assertEqual(said(stream), {"events": 2, "texts": ["a"], "reads": [0]})

    def test_dialects_of_the_data_line(self):
        one = json.dumps(delta(content="a")).encode()
        for name, payload, expected in (
            ("no space", b"data:" + one + b"\n\ndata:[DONE]\n\n", {"events": 2, "done": True}),
            ("two spaces", b"data:  " + one + b"\n\n", {"events": 1}),
            ("done without a newline", text("a") + b"data: [DONE]", {"events": 2, "done": True}),
            ("no empty line at the end", b"data: " + one + b"\n", {"events": 1}),
            ("blank after done", text("a") + b"data: [DONE] \n\n", {"events": 2, "done": True}),
            ("byte order mark", b"\xef\xbb\xbf" + text("a"), {"events": 1}),
            ("id and retry", b"id: 7\nretry: 3000\n" + text("a"), {"events": 1}),
            ("event: message", b"event: message\n" + text("a"), {"events": 1}),
            ("comments", b":\n\n: keepalive 3/9\n\n" + text("a") + b":\n\n", {"events": 1}),
            ("empty data", b"data:\n\ndata: \n\n" + text("a"), {"events": 1}),
            ("blank lines", b"\n\n\n" + text("a") + b"\n\n", {"events": 1}),
            ("another event's text", b"event: ping\ndata: now\n\n" + text("a"), {"events": 1}),
            ("a comment inside an event", b"data: " + one + b"\n:\n\n", {"events": 1}),
            ("NUL bytes around", b"\0\n" + text("a") + b"\0\0", {"events": 1}),
        ):
            with self.subTest(name):
                self.assertEqual(said(listen(payload)), {**expected, "texts": ["a"], "reads": [0]})

    def test_a_byte_order_mark_cut_in_two(self):
        stream = listen(b"\xef", b"\xbb", b"\xbf" + text("a"))
        self.assertEqual(said(stream), {"events": 1, "texts": ["a"], "reads": [2]})

    def test_an_event_in_several_data_lines(self):
        pretty = json.dumps(delta(content="a"), indent=1).encode()
        payload = b"".join(b"data: " + line + b"\n" for line in pretty.split(b"\n")) + b"\n"
        half = payload.index(b"content")
        told = said(listen(payload[:half], payload[half:]))
        self.assertEqual(told, {"events": 1, "texts": ["a"], "reads": [1]})

    def test_events_that_are_not_parted_are_taken_line_by_line_each_with_its_read(self):
        lines = [e.replace(b"\n\n", b"\n") for e in (text("a"), text("b"), STOP, DONE)]
        self.assertEqual(
            said(listen(*lines)),
            {"events": 4, "done": True, "texts": ["a", "b"], "reads": [0, 1],
             "finish_reason": "stop"},
        )

    def test_events_in_one_packet_share_a_read(self):
        stream = listen(text("a"), text("b") + text("c") + text("d"), text("e") + STOP)
        self.assertEqual(stream.reads, [0, 1, 1, 1, 2])
        self.assertEqual(timing(stream)["reads"], [[1, 3]])

    def test_a_character_cut_between_packets(self):
        payload = text("\u00e9\U0001f389")
        for cut in range(1, len(payload)):
            stream = listen(payload[:cut], payload[cut:])
            self.assertEqual(stream.texts, ["\u00e9\U0001f389"])

    def test_broken_utf8_is_replaced(self):
        payload = b'data: {"choices": [{"delta": {"content": "x\xffy\xc3"}}]}\n\n'
        self.assertEqual(listen(payload).texts, ["x\ufffdy\ufffd"])

    def test_control_characters_inside_a_string(self):
        payload = b'data: {"choices": [{"delta": {"content": "x\0\ty"}}]}\n\n'
        self.assertEqual(listen(payload).texts, ["x\0\ty"])

    def test_what_is_no_json_is_counted_and_skipped(self):
        for bad in (b"{", b'{"choices": [', b"now", b"7", b"null", b'"text"', b"[" * 100_000,
                    b'{"a": ' + b"1" * 5000 + b"}}"):
            with self.subTest(bad[:20]):
                told = said(listen(text("a") + (b"data: " + bad + b"\n\n") * 2 + text("b")))
                self.assertEqual(
                    told, {"events": 2, "bad_events": 2, "texts": ["a", "b"], "reads": [0, 0]}
                )

    def test_numbers_that_no_reader_holds_do_not_spoil_their_event(self):
        payload = b'data: {"created": 1%s, "x": NaN, "choices": [{"delta": {"content": "a"}}]}\n\n'
        stream = listen(payload % (b"0" * 5000))
        self.assertEqual(said(stream), {"events": 1, "texts": ["a"], "reads": [0]})


# --- What messages hold --------------------------------------------------------------------------


class Messages(unittest.TestCase):
    def test_messages_without_text(self):
        for name, message in (
            ("no choices", {"choices": []}),
            ("choices null", {"choices": None}),
            ("no delta", {"choices": [{"index": 0}]}),
            ("delta null", {"choices": [{"index": 0, "delta": None}]}),
            ("empty delta", delta()),
            ("delta of another type", {"choices": [{"delta": "a"}]}),
            ("model of another type", {"choices": [], "model": 7}),
            ("role", delta(role="assistant")),
            ("content null", delta(role="assistant", content=None)),
            ("content empty", delta(role="assistant", content="")),
            ("reasoning empty", delta(content=None, reasoning_content="", reasoning="")),
            ("content of another type", delta(content=7)),
            ("another choice", {"choices": [{"index": 1, "delta": {"content": "b"}}]}),
            ("a tool call", delta(tool_calls=[{"index": 0, "function": {"arguments": "{}"}}])),
            ("an image part", delta(content=[{"type": "image_url", "image_url": {"url": "x"}}])),
            ("encrypted reasoning", delta(reasoning_details=[{"type": "reasoning.encrypted",
                                                              "data": "abc"}])),
        ):
            with self.subTest(name):
                self.assertEqual(said(listen(event(message))), {"events": 1})

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
            ("details alone", {"reasoning_details": [
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
                stream = listen(event(delta(**fields)))
                self.assertEqual((stream.texts, "".join(stream.kinds)), (texts, kinds))

    def test_text_of_a_text_completion(self):
        stream = listen(event({"choices": [{"text": "a"}]}), event({"choices": [{"text": "b"}]}))
        self.assertEqual(said(stream), {"events": 2, "texts": ["a", "b"], "reads": [0, 1]})

    def test_a_whole_message_after_its_deltas_is_not_heard_twice(self):
        message = {"role": "assistant", "content": "ab"}
        whole = {"object": "chat.completion", "usage": USAGE,
                 "choices": [{"index": 0, "finish_reason": "stop", "message": message}]}
        self.assertEqual(
            said(listen(text("a"), text("b"), event(whole))),
            {"events": 3, "texts": ["a", "b"], "reads": [0, 1], "finish_reason": "stop",
             "usage": USAGE},
        )

    def test_a_message_in_an_event_counts_where_no_delta_came(self):
        whole = {"choices": [{"finish_reason": "stop", "message": {"content": "ab"}}]}
        self.assertEqual(
            said(listen(ROLE, event(whole))),
            {"events": 2, "texts": ["ab"], "reads": [1], "finish_reason": "stop"},
        )

    def test_a_message_beside_an_empty_delta(self):
        choice = {"delta": {}, "message": {"content": "ab"}, "finish_reason": "stop"}
        self.assertEqual(listen(event({"choices": [choice]})).texts, ["ab"])

    def test_of_several_choices_the_first_counts(self):
        both = {"choices": [{"index": 1, "delta": {"content": "b"}, "finish_reason": "length"},
                            {"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
        self.assertEqual(
            said(listen(event(both))),
            {"events": 1, "texts": ["a"], "reads": [0], "finish_reason": "stop"},
        )

    def test_a_choice_without_an_index_is_the_first(self):
        for choice in ({"delta": {"content": "a"}}, {"index": None, "delta": {"content": "a"}}):
            self.assertEqual(listen(event({"choices": [choice]})).texts, ["a"])

    def test_the_first_model_and_the_last_fingerprint(self):
        stream = listen(
            event({"model": "", "system_fingerprint": None, "choices": []}),
            event({"model": "m", "system_fingerprint": "f1", "choices": []}),
            event({"model": "other", "system_fingerprint": "f2", "choices": []}),
            event({"model": None, "system_fingerprint": "", "choices": []}),
        )
        self.assertEqual(said(stream), {"events": 4, "model": "m", "system_fingerprint": "f2"})

    def test_the_last_finish_reason_that_is_one(self):
        reasons = ("length", None, "", 7, "stop", None)
        stream = listen(*(event(delta(reason)) for reason in reasons))
        self.assertEqual(stream.finish_reason, "stop")


class Usage(unittest.TestCase):
    def usage_of(self, *usages):
        return listen(*(event({"choices": [], "usage": usage}) for usage in usages)).usage

    def test_which_usage_counts(self):
        less = {"prompt_tokens": 37, "completion_tokens": 1, "total_tokens": 38}
        zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
        for name, usages, expected in (
            ("the last", (less, USAGE), USAGE),
            ("the last, be it less", (USAGE, less), less),
            ("null is none", (USAGE, None), USAGE),
            ("nothing is none", (USAGE, {}), USAGE),
            ("of another type", (USAGE, [1], "x", 7), USAGE),
            ("zeros never hide counts", (USAGE, zeros), USAGE),
            ("zeros as placeholders", (zeros, zeros, USAGE), USAGE),
            ("zeros alone are told", (zeros,), zeros),
            ("the last of zeros", ({"total_tokens": 0}, zeros), zeros),
            ("counts that are none hide nothing", (USAGE, {"total_tokens": "9"}), USAGE),
            ("one token counts", (USAGE, {"total_tokens": 1}), {"total_tokens": 1}),
        ):
            with self.subTest(name):
                self.assertEqual(self.usage_of(*usages), expected)

    def test_usage_in_the_choice(self):
        stream = listen(event({"choices": [{"index": 0, "delta": {}, "usage": USAGE}]}))
        self.assertEqual(stream.usage, USAGE)

    def test_timings_are_kept_as_given(self):
        stream = listen(event({"choices": [], "timings": {"prompt_n": 1}}),
                        event({"choices": [], "timings": None}))
        self.assertEqual(stream.server_timings, {"prompt_n": 1})


class Errors(unittest.TestCase):
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
            ("in a list", event([{"error": {"message": "m"}}]), {"message": "m"}),
            ("words not escaped", b'data: {"error": "no "x" here"}\n\n',
             '{"error": "no "x" here"}'),
        ):
            with self.subTest(name):
                self.assertEqual(
                    said(listen(text("a"), payload)),
                    {"events": 2, "texts": ["a"], "reads": [0], "error": error},
                )
                self.assertEqual(said(listen(payload + DONE)),
                                 {"events": 2, "error": error, "done": True})

    def test_no_errors(self):
        for message in ({"choices": [], "error": None}, {"choices": [], "error": False},
                        {**delta(content="a"), "error": ""}, {**delta(content="a"), "error": {}},
                        {"choices": [], "message": "loading"}, {"usage": USAGE}):
            with self.subTest(message):
                self.assertIsNone(listen(event(message)).error)

    def test_an_error_in_the_choice(self):
        message = delta("error", content="")
        message["choices"][0]["error"] = {"code": 502, "message": "m"}
        self.assertEqual(
            said(listen(text("a"), event(message))),
            {"events": 2, "texts": ["a"], "reads": [0], "finish_reason": "error",
             "error": {"code": 502, "message": "m"}},
        )

    def test_the_first_error_is_the_cause(self):
        stream = listen(event({"error": "out of memory"}), event({"error": "closed"}))
        self.assertEqual(stream.error, "out of memory")

    def test_an_error_written_bare_into_a_stream(self):
        stream = listen(text("a"), b'{"error": {"message": "m"}}\n')
        self.assertEqual(
            said(stream), {"events": 1, "texts": ["a"], "reads": [0], "error": {"message": "m"}}
        )

    def test_a_long_text_of_an_error_is_cut(self):
        stream = listen(b"event: error\ndata: " + b"x" * 10_000 + b"\n\n")
        self.assertEqual(stream.error, "x" * sse.MAX_ERROR_CHARACTERS)


class Bodies(unittest.TestCase):
    """A 200 that is no stream of events."""

    COMPLETION = {"object": "chat.completion", "model": "m", "usage": USAGE, "choices": [
        {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}]}

    def test_one_json_document_is_an_answer_without_times(self):
        line = json.dumps(self.COMPLETION).encode()
        pretty = json.dumps(self.COMPLETION, indent=2).encode()
        for name, body in (
            ("one line", line),
            ("with its newline", line + b"\n"),
            ("pretty", pretty),
            ("pretty, CR LF", pretty.replace(b"\n", b"\r\n")),
            ("byte order mark", b"\xef\xbb\xbf" + line),
            ("after pings", b": ping\n\n" + line),
        ):
            for reads in ([body], [body[:9], body[9:60], body[60:]]):
                with self.subTest(name, reads=len(reads)):
                    stream = listen(*reads)
                    self.assertEqual(
                        said(stream),
                        {"streamed": False, "events": 1, "texts": ["a"], "finish_reason": "stop",
                         "usage": USAGE, "model": "m"},
                    )
                    self.assertEqual(
                        timing(stream),
                        {"first_token_us": None, "first_answer_us": None, "last_token_us": None,
                         "chunk_us": [], "chunk_kinds": None, "reads": [],
                         "ttft_null_reason": "the server sent one JSON body instead of a stream"},
                    )

    def test_inline_thinking_in_one_document(self):
        body = json.dumps({"choices": [{"message": {"content": "<think>t</think>\n\na"},
                                        "finish_reason": "stop"}]}).encode()
        stream = listen(body)
        self.assertTrue(stream.mark_inline_reasoning())
        self.assertEqual((stream.text_of("r"), stream.text_of("a")), ("<think>t</think>\n\n", "a"))

    def test_errors_as_a_body(self):
        for name, body, error in (
            ("object", b'{"error": {"message": "m"}}', {"message": "m"}),
            ("string", b'{"error": "m"}', "m"),
            ("list", b'{"error": ["m"]}', ["m"]),
            ("FastAPI", b'{"detail": "Not Found"}', "Not Found"),
            ("old vLLM", b'{"object": "error", "message": "m", "code": 400}',
             {"object": "error", "message": "m", "code": 400}),
            ("Gemini", b'[{"error": {"message": "m"}}]', {"message": "m"}),
        ):
            with self.subTest(name):
                stream = listen(body)
                self.assertEqual(
                    said(stream), {"streamed": False, "events": 1, "error": error}
                )
                self.assertEqual(timing(stream)["ttft_null_reason"], "no text arrived")

    def test_lines_of_json_with_choices_are_a_stream(self):
        lines = [json.dumps(delta(content=c)).encode() + b"\n" for c in "abc"]
        finish = json.dumps(delta("stop")).encode()
        stream = listen(lines[0], lines[1] + lines[2][:9], lines[2][9:] + finish)
        self.assertEqual(
            said(stream),
            {"events": 4, "texts": ["a", "b", "c"], "reads": [0, 1, 2], "finish_reason": "stop"},
        )
        self.assertEqual(timing(stream)["chunk_us"], [1000, 1000, 1000])

    def test_many_lines_of_json_in_a_read_have_that_read(self):
        lines = [json.dumps(delta(content=c)).encode() + b"\n" for c in "abcdefg"]
        reads = [lines[0:3], [], lines[3:4], lines[4:6], lines[6:7]]
        stream = listen(*map(b"".join, reads))
        self.assertEqual(stream.reads, [0, 0, 0, 2, 3, 3, 4])

    def test_bodies_that_are_no_answer(self):
        for name, body, expected in (
            ("nothing", b"", {}),
            ("blank", b"\n\n", {}),
            ("pings alone", b": ping\n\n", {}),
            ("HTML", b"<html>\n<body>Bad gateway</body></html>\n", {"bad_events": 1}),
            ("text", b"Internal Server Error", {"bad_events": 1}),
            ("another API's JSON", b'{"response": "hi", "done": true}', {"bad_events": 1}),
            ("Ollama's own lines", b'{"message": {"content": "a"}, "done": false}\n'
             b'{"message": {"content": ""}, "done": true}\n', {"bad_events": 1}),
            ("torn JSON", b'{"choices": [{"message": {"content": "a"', {"bad_events": 1}),
            ("bytes", bytes(range(256)), {"bad_events": 1}),
            ("text beside a bad event", b"data: {\n\nInternal Server Error", {"bad_events": 2}),
        ):
            with self.subTest(name):
                stream = listen(body)
                self.assertEqual(said(stream), expected)
                self.assertEqual(timing(stream)["ttft_null_reason"], "no text arrived")

    def test_an_error_in_lines_of_json_is_told(self):
        stream = listen(b'{"message": {"content": "a"}}\n{"error": "out of memory"}\n')
        self.assertEqual(said(stream), {"events": 1, "error": "out of memory"})


# --- One case for each quirk that is known of a server -------------------------------------------


class Quirks(unittest.TestCase):
    """What each server is known to send, and what it must come to."""

    def check(self, reads, expected, marks=()):
        stream = listen(*reads)
        self.assertEqual(said(stream), expected)
        told = timing(stream)
        self.assertEqual({name: told[name] for name in dict(marks)}, dict(marks))

    def test_transformers_sends_the_role_at_once_and_usage_with_the_finish_and_no_done(self):
        finish = event({"choices": [{"delta": {}, "index": 0, "finish_reason": "stop"}],
                        "system_fingerprint": "", "usage": USAGE})
        first = event({"choices": [{"delta": {"role": "assistant"}, "index": 0}]})
        chunks = [event({"choices": [{"delta": {"content": c}, "index": 0}]}) for c in "ab"]
        self.check(
            [first, b"", *chunks, finish],
            {"events": 4, "texts": ["a", "b"], "reads": [2, 3], "finish_reason": "stop",
             "usage": USAGE},
            {"first_token_us": 3000, "last_token_us": 4000, "chunk_us": [3000, 1000]},
        )

    def test_llama_server_sends_the_role_with_the_first_token(self):
        usage = event({"choices": [], "usage": USAGE, "timings": {"cache_n": 36}})
        self.check(
            [event(delta(role="assistant", content=None)) + text("a"), text("b"),
             STOP + usage, DONE],
            {"events": 6, "done": True, "texts": ["a", "b"], "reads": [0, 1],
             "finish_reason": "stop", "usage": USAGE, "server_timings": {"cache_n": 36}},
            {"first_token_us": 1000, "last_token_us": 2000, "reads": []},
        )

    def test_llama_server_with_progress_repeats_the_role(self):
        progress = event({**delta(role="assistant", content=None),
                          "prompt_progress": {"total": 9, "processed": 3}})
        self.check(
            [progress, progress, b":\n\n", text("a"), STOP + DONE],
            {"events": 5, "done": True, "texts": ["a"], "reads": [3], "finish_reason": "stop"},
            {"first_token_us": 4000, "chunk_us": [4000]},
        )

    def test_llama_server_before_august_2025_sent_usage_with_the_finish(self):
        self.check(
            [text("a"), event({**delta("stop"), "usage": USAGE}), DONE],
            {"events": 3, "done": True, "texts": ["a"], "reads": [0], "finish_reason": "stop",
             "usage": USAGE},
        )

    def test_an_end_of_sequence_at_once_is_an_answer_without_text(self):
        usage = {"prompt_tokens": 37, "completion_tokens": 1, "total_tokens": 38}
        self.check(
            [event(delta(role="assistant", content=None)), STOP,
             event({"choices": [], "usage": usage}), DONE],
            {"events": 4, "done": True, "finish_reason": "stop", "usage": usage},
            {"first_token_us": None, "ttft_null_reason": "the answer has no text"},
        )

    def test_vllm_sends_empty_texts_for_halves_of_a_character(self):
        finish = event({"choices": [], "usage": USAGE})
        self.check(
            [event(delta(role="assistant", content="")), text(""), text(""), text("\U0001f389"),
             event(delta("length", content="")), finish, DONE],
            {"events": 7, "done": True, "texts": ["\U0001f389"], "reads": [3],
             "finish_reason": "length", "usage": USAGE},
            {"first_token_us": 4000, "last_token_us": 4000},
        )

    def test_vllm_merges_the_last_token_with_the_finish(self):
        self.check(
            [text("a"), event(delta("length", content="b")), DONE],
            {"events": 3, "done": True, "texts": ["a", "b"], "reads": [0, 1],
             "finish_reason": "length"},
        )

    def test_vllm_can_send_usage_on_every_chunk(self):
        def counted(tokens):
            return {"prompt_tokens": 37, "completion_tokens": tokens, "total_tokens": 37 + tokens}
        self.check(
            [event({**delta(role="assistant", content=""), "usage": counted(0)}),
             text("a", usage=counted(1)), text("b", usage=counted(2)),
             event({**delta("stop"), "usage": counted(3)}),
             event({"choices": [], "usage": counted(3)}), DONE],
            {"events": 6, "done": True, "texts": ["a", "b"], "reads": [1, 2],
             "finish_reason": "stop", "usage": counted(3)},
        )

    def test_vllm_breaks_off_with_an_error_and_done(self):
        error = {"message": "EngineDead", "type": "InternalServerError", "code": 500}
        self.check(
            [text("a"), event({"error": error}), DONE],
            {"events": 3, "done": True, "texts": ["a"], "reads": [0], "error": error},
        )

    def test_mlx_repeats_the_role_and_calls_its_usage_a_completion(self):
        usage = event({"object": "chat.completion", "choices": [], "usage": USAGE})
        self.check(
            [b": keepalive 0/37\n\n", b": keepalive 37/37\n\n",
             event(delta(role="assistant", content="a")),
             event(delta(role="assistant", content="b")),
             event(delta("stop", role="assistant")), usage, DONE],
            {"events": 5, "done": True, "texts": ["a", "b"], "reads": [2, 3],
             "finish_reason": "stop", "usage": USAGE},
            {"first_token_us": 3000, "chunk_us": [3000, 1000]},
        )

    def test_litellm_sends_usage_with_an_empty_delta(self):
        usage = event({"choices": [{"index": 0, "delta": {}}], "usage": USAGE})
        finish = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self.check(
            [event({"choices": [{"index": 0, "delta": {"role": "assistant"}}]}) + text("a"),
             text("b") + finish + usage + DONE],
            {"events": 6, "done": True, "texts": ["a", "b"], "reads": [0, 1],
             "finish_reason": "stop", "usage": USAGE},
        )

    def test_llama_cpp_python_never_sends_usage(self):
        self.check(
            [ROLE, text("a"), STOP, DONE],
            {"events": 4, "done": True, "texts": ["a"], "reads": [1], "finish_reason": "stop"},
        )

    def test_llama_cpp_python_interrupts_one_answer_for_the_next(self):
        self.check(
            [ROLE, DONE], {"events": 2, "done": True},
            {"first_token_us": None, "ttft_null_reason": "no text arrived"},
        )

    def test_llama_cpp_python_sends_nothing_where_a_prompt_does_not_fit(self):
        self.check([b""], {}, {"ttft_null_reason": "no text arrived"})

    def test_ollama_sends_role_and_content_together_and_thinks_in_reasoning(self):
        def chunk(**fields):
            return event(delta(role="assistant", **fields))
        usage = event({"choices": [], "usage": USAGE})
        self.check(
            [chunk(content="", reasoning="t"), chunk(content="", reasoning="u"),
             chunk(content="a"), event(delta("stop")), usage, DONE],
            {"events": 6, "done": True, "texts": ["t", "u", "a"], "kinds": "rra",
             "reads": [0, 1, 2], "finish_reason": "stop", "usage": USAGE},
            {"first_token_us": 1000, "first_answer_us": 3000, "chunk_kinds": "r2a1"},
        )

    def test_ollama_breaks_off_with_an_empty_chunk(self):
        self.check(
            [event(delta(role="assistant", content="a")),
             event(delta(role="assistant", content=""))],
            {"events": 2, "texts": ["a"], "reads": [0]},
        )

    def test_lm_studio_tells_an_overflow_in_an_event_of_its_own(self):
        error = {"message": "Trying to keep the first 4000 tokens when context the overflows."}
        self.check(
            [b"event: error\n" + event({"error": error})], {"events": 1, "error": error}
        )

    def test_lm_studio_tells_an_overflow_in_a_body(self):
        self.check(
            [b'{"error": "The number of tokens to keep is greater than the context length"}'],
            {"streamed": False, "events": 1,
             "error": "The number of tokens to keep is greater than the context length"},
        )

    def test_sglang_sends_events_of_its_own(self):
        own = b'event: sglext_ids\ndata: {"output_ids": [1, 2]}\n\n'
        error = {"object": "error", "message": "m", "code": 500}
        self.check(
            [ROLE, own, event(delta(reasoning_content="t")), text("a"), STOP, DONE],
            {"events": 6, "done": True, "texts": ["t", "a"], "kinds": "ra", "reads": [2, 3],
             "finish_reason": "stop"},
            {"first_token_us": 3000, "first_answer_us": 4000},
        )
        self.check([ROLE, event({"error": error}), DONE],
                   {"events": 3, "done": True, "error": error})

    def test_tgi_tells_a_refused_request_inside_a_stream(self):
        error = {"message": "Input validation error", "http_status_code": 422}
        self.check([b": \n\n", event({"error": error}), DONE],
                   {"events": 2, "done": True, "error": error})

    def test_tgi_sends_usage_without_an_id(self):
        usage = event({"id": "", "object": "chat.completion.chunk", "model": "m", "choices": [],
                       "usage": USAGE})
        self.check(
            [text("a"), STOP, usage, DONE],
            {"events": 4, "done": True, "texts": ["a"], "reads": [0], "finish_reason": "stop",
             "usage": USAGE, "model": "m"},
        )

    def test_koboldcpp_repeats_the_role_and_ends_without_a_newline(self):
        def chunk(content, reason=None):
            return event(delta(reason, role="assistant", content=content))
        self.check(
            [chunk("a"), chunk("b"), chunk("", "stop"), b"data: [DONE]"],
            {"events": 4, "done": True, "texts": ["a", "b"], "reads": [0, 1],
             "finish_reason": "stop"},
        )

    def test_localai_breaks_off_with_an_error_and_done(self):
        error = {"message": "m", "type": "server_error", "code": "server_error"}
        self.check([text("a"), event({"error": error}), DONE],
                   {"events": 3, "done": True, "texts": ["a"], "reads": [0], "error": error})

    def test_llamafile_sends_usage_null_before_its_usage(self):
        self.check(
            [text("a", usage=None), event({**delta("stop"), "usage": None}),
             event({"choices": [], "usage": USAGE}), DONE],
            {"events": 4, "done": True, "texts": ["a"], "reads": [0], "finish_reason": "stop",
             "usage": USAGE},
        )

    def test_openrouter_waits_with_comments_and_tells_an_error_with_its_finish(self):
        ping = b": OPENROUTER PROCESSING\n\n"
        error = {"code": "server_error", "message": "Provider disconnected unexpectedly"}
        self.check(
            [ping, ping, text("a"), event({**delta("error", content=""), "error": error})],
            {"events": 2, "texts": ["a"], "reads": [2], "finish_reason": "error", "error": error},
            {"first_token_us": 3000},
        )

    def test_azure_begins_with_a_frame_of_its_filter(self):
        first = event({"choices": [], "created": 0, "id": "", "model": "", "object": "",
                       "prompt_filter_results": [{"prompt_index": 0}]})
        late = event({"choices": [{"index": 0, "content_filter_offsets": {"end_offset": 44}}],
                      "model": ""})
        self.check(
            [first, event({**delta(role="assistant", content=""), "model": "gpt-4o"}),
             text("a", model="gpt-4o") + text("b", model="gpt-4o"), late, STOP, DONE],
            {"events": 7, "done": True, "texts": ["a", "b"], "reads": [2, 2], "model": "gpt-4o",
             "finish_reason": "stop"},
            {"first_token_us": 3000, "chunk_us": [3000, 0], "reads": [[0, 2]]},
        )

    def test_minimax_and_moonshot_count_in_the_choice_or_at_the_end(self):
        zeros = {"total_tokens": 0, "total_characters": 0}
        self.check(
            [text("a", usage=zeros),
             event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop",
                                 "usage": USAGE}]}), DONE],
            {"events": 3, "done": True, "texts": ["a"], "reads": [0], "finish_reason": "stop",
             "usage": USAGE},
        )

    def test_a_stream_that_only_calls_tools_is_an_answer_without_text(self):
        call = {"index": 0, "id": "c", "function": {"name": "f", "arguments": "{}"}}
        self.check(
            [ROLE, event(delta(tool_calls=[call])), event(delta("tool_calls")), DONE],
            {"events": 4, "done": True, "finish_reason": "tool_calls"},
            {"first_token_us": None, "ttft_null_reason": "the answer has no text"},
        )


# --- Inline reasoning ----------------------------------------------------------------------------


class InlineReasoning(unittest.TestCase):
    def marked(self, *texts):
        stream = listen(*map(text, texts))
        found = stream.mark_inline_reasoning()
        self.assertEqual("".join(stream.texts), "".join(texts))
        return found, stream.text_of("r"), stream.text_of("a"), stream.reads

    def test_where_thinking_ends_and_the_answer_begins(self):
        for name, texts, expected in (
            ("tags alone in chunks", ("<think>", "t", "</think>", "\n\n", "a", "b"),
             (True, "<think>t</think>\n\n", "ab", [0, 1, 2, 3, 4, 5])),
            ("tags cut", ("<th", "ink>", "t", "</thi", "nk>", "a"),
             (True, "<think>t</think>", "a", [0, 1, 2, 3, 4, 5])),
            ("blank ahead", ("\n", " <think>", "t</think>", "a"),
             (True, "\n <think>t</think>", "a", [0, 1, 2, 3])),
            ("end and answer in one chunk", ("<think>t", "u</think>\n\na", "b"),
             (True, "<think>tu</think>\n\n", "ab", [0, 1, 1, 2])),
            ("all in one chunk", ("<think>t</think>a",),
             (True, "<think>t</think>", "a", [0, 0])),
            ("the template opened the block", ("t", "u</think>", "a"),
             (True, "tu</think>", "a", [0, 1, 2])),
            ("the budget went into thinking", ("<think>", "t", "u"),
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
                self.assertEqual(self.marked(*texts), expected)

    def test_thinking_that_came_apart_stays_as_it_is(self):
        stream = listen(event(delta(reasoning="t")), text("<think>a</think>b"))
        self.assertFalse(stream.mark_inline_reasoning())
        self.assertEqual((stream.texts, stream.kinds), (["t", "<think>a</think>b"], ["r", "a"]))

    def test_marking_twice_changes_nothing(self):
        stream = listen(text("<think>t</think>a"))
        self.assertTrue(stream.mark_inline_reasoning())
        before = said(stream)
        self.assertFalse(stream.mark_inline_reasoning())
        self.assertEqual(said(stream), before)


# --- The marks, and what is kept -----------------------------------------------------------------


class Plain(unittest.TestCase):
    def test_what_is_kept_of_a_servers_object(self):
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
            ((1, 2), None), ({1, 2}, None), (b"x", None),
        ):
            with self.subTest(repr(value)[:40]):
                self.assertEqual(sse.bounded(value), kept)

    def test_a_wide_object_is_bounded_in_all(self):
        # 512 values: the list, then lists of 64 with their items, until there is no room.
        self.assertEqual(sse.bounded([[1] * 64] * 64), [[1] * 64] * 7 + [[1] * 55])

    def test_a_deep_object_is_bounded(self):
        value, kept = "x", None
        for _ in range(10):
            value = {"k": value}
        for _ in range(sse.MAX_KEPT_DEPTH):
            kept = {"k": kept}
        self.assertEqual(sse.bounded(value), kept)


# --- Total and linear ----------------------------------------------------------------------------


def seconds(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


class Cost(unittest.TestCase):
    """Each would take minutes, or hundreds of megabytes, were it not linear."""

    LIMIT_S = 10

    def test_a_line_of_100_mb(self):
        pieces = [b"data: "] + [b"x" * 65_536] * 1526

        def work():
            stream = sse.StreamParser()
            for number, piece in enumerate(pieces):
                stream.feed(piece, number)
            self.assertEqual(said(stream.close(len(pieces))), {"bad_events": 1})

        self.assertLess(seconds(work), self.LIMIT_S)

    def test_a_line_in_many_small_reads(self):
        def work():
            listen(b"data: ", *[b"x" * 20] * 200_000)

        self.assertLess(seconds(work), self.LIMIT_S)

    def test_a_line_without_end_is_held_once(self):
        stream = sse.StreamParser()
        piece = b"x" * 4096
        tracemalloc.start()
        try:
            for number in range(2000):
                stream.feed(piece, number)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertLess(peak, 2.5 * 2000 * 4096)

    def test_bytes_after_the_end_cost_nothing(self):
        for start in (b"0\r\n\r\n", b"xyz\r\n"):
            def work(start=start):
                body = sse.Body("chunked")
                body.feed(start)
                for _ in range(100_000):
                    self.assertEqual(body.feed(b"more bytes" * 10), b"")

            self.assertLess(seconds(work), self.LIMIT_S)

    def test_many_events_that_are_not_parted(self):
        lines = text("a").replace(b"\n\n", b"\n") * 20_000
        self.assertLess(seconds(lambda: listen(lines)), self.LIMIT_S)

    def test_many_lines_of_anything(self):
        for line in (b"{\n", b"<\r", b"\n", b"\r", b"data:\n", b'{"choices": []}\n', b"event:\n"):
            with self.subTest(line):
                self.assertLess(seconds(lambda line=line: listen(line * 50_000)), self.LIMIT_S)

    def test_numbers_of_a_million_digits(self):
        for number in (b"9" * 1_000_000, b"0." + b"9" * 1_000_000, b"1e" + b"9" * 1_000_000):
            with self.subTest(number[:3]):
                payload = b'data: {"usage": ' + number + b"}\n\n"
                begun = time.perf_counter()
                self.assertEqual(said(listen(payload)), {"events": 1})
                self.assertLess(time.perf_counter() - begun, self.LIMIT_S)

    def test_many_chunks_of_thinking(self):
        stream = listen(text("<think>t") * 20_000 + text("</think>a"))
        self.assertLess(seconds(stream.mark_inline_reasoning), self.LIMIT_S)
        self.assertEqual(stream.kinds.count("a"), 1)


if __name__ == "__main__":
    unittest.main()
