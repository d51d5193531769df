"""However a stream is cut and whatever it holds, the parser hears the same, and never raises."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from run import sse
from run import timing as timings
from tests import wire_captures

STREAMS = {
    name: capture.response_bytes.partition(b"\r\n\r\n")
    for name, capture in wire_captures.all_captures().items()
    if b"text/event-stream" in capture.response_bytes and capture.end == "EOF"
}


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in zip(edges, edges[1:])]


def heard(reads: list[bytes], framing: str) -> tuple[sse.Body, sse.StreamParser]:
    body, stream = sse.Body(framing), sse.StreamParser()
    for number, read in enumerate(reads):
        stream.feed(body.feed(read), number)
    return body, stream.close(len(reads))


def told(stream: sse.StreamParser) -> tuple[object, ...]:
    return (
        stream.texts,
        stream.kinds,
        stream.usage,
        stream.server_timings,
        stream.finish_reason,
        stream.model,
        stream.error,
        stream.done,
        stream.events,
        stream.bad_events,
    )


def framing_of(head: bytes) -> str:
    return "chunked" if b"chunked" in head else "close"


places = st.lists(st.integers(min_value=0, max_value=60_000), max_size=40)


@given(st.sampled_from(sorted(STREAMS)), places)
def test_a_real_stream_says_the_same_in_any_cut(name: str, where: list[int]) -> None:
    head, _, payload = STREAMS[name]
    body, whole = heard([payload], framing_of(head))
    body_cut, in_pieces = heard(cut(payload, where), framing_of(head))
    assert told(in_pieces) == told(whole)
    assert (body_cut.complete, body_cut.broken) == (body.complete, body.broken)
    assert in_pieces.reads == sorted(in_pieces.reads)


@given(st.lists(st.binary(min_size=1, max_size=80), max_size=8), places)
def test_chunked_framing_gives_back_what_was_framed(blocks: list[bytes], where: list[int]) -> None:
    framed = b"".join(b"%x;note=1\r\n%s\r\n" % (len(block), block) for block in blocks)
    body = sse.Body("chunked")
    out = b"".join(body.feed(read) for read in cut(framed + b"0\r\n\r\n", where))
    assert (out, body.complete, body.broken) == (b"".join(blocks), True, False)


texts = st.lists(st.text(min_size=1, max_size=12), max_size=8)


@given(texts, places, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.booleans(), st.booleans())
def test_texts_arrive_unchanged_in_any_cut_and_dialect(
    parts: list[str], where: list[int], newline: bytes, space: bool, escaped: bool
) -> None:
    prefix = b"data: " if space else b"data:"
    messages = [
        json.dumps({"choices": [{"delta": {"content": p}}]}, ensure_ascii=escaped) for p in parts
    ]
    # A lone surrogate exists in JSON's escapes only; no server can send it as UTF-8.
    payload = b": ping" + newline * 2
    for message in messages:
        payload += prefix + message.encode("utf-8", "replace") + newline * 2
    _, stream = heard(cut(payload, where), "close")
    expected = [p if escaped else p.encode("utf-8", "replace").decode() for p in parts]
    assert stream.texts == expected
    us_of_read = list(range(0, 10 * (len(payload) + 1), 10))
    timing = timings.chunk_timing(stream, us_of_read)
    assert len(timing["chunk_us"]) == len(expected)
    assert sum(timing["chunk_us"]) == (timing["last_token_us"] or 0)


@given(texts, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_a_text_belongs_to_the_read_that_completed_its_line(
    parts: list[str], newline: str, late: bool
) -> None:
    messages = [json.dumps({"choices": [{"delta": {"content": part}}]}) for part in parts]
    # The empty line that closes an event may come with the next one.
    head, tail = (newline, "") if late else ("", newline)
    reads = [f"{head}data: {message}{newline}{tail}".encode() for message in messages]
    _, stream = heard(reads, "close")
    assert stream.reads == list(range(len(parts)))


KEYS = "choices delta content usage error timings model index finish_reason message text".split()
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5)
    ),
    max_leaves=12,
)


@given(
    st.lists(st.binary(max_size=60) | json_values.map(lambda v: json.dumps(v).encode()), max_size=6)
)
def test_no_stream_makes_it_raise(lines: list[bytes]) -> None:
    for framing in ("close", "chunked"):
        for prefix in (b"data: ", b""):
            payload = b"\n\n".join(prefix + line for line in lines)
            _, stream = heard([payload], framing)
            assert all(isinstance(text, str) and text for text in stream.texts)
            assert len(stream.texts) == len(stream.kinds) == len(stream.reads)


PIECES = (
    b"data: ", b"data:", b"event: error", b"event: x", b":", b"id: 1", b"\r", b"\n",
    b"\r\n", b"\n\n", b"[DONE]", b"{", b"}", b"[", b"]", b'"', b"\0", b"\xff", b"\xef\xbb\xbf",
    b"\xf0\x9f", b"text",
    b'{"choices": [{"delta": {"content": "<think>a</think>b"}}]}', b'{"choices": []}',
    b'{"choices": [{"message": {"content": "c"}, "finish_reason": "stop"}]}',
    b'{"error": "e"}', b'{"error": "', b'{"usage": {"total_tokens": 1}}', b'{"detail": [1]}',
)  # fmt: skip
garbage = st.lists(st.sampled_from(PIECES), max_size=24).map(b"".join)


@given(garbage, places)
def test_whatever_comes_it_is_heard_alike_in_any_cut(payload: bytes, where: list[int]) -> None:
    _, whole = heard([payload], "close")
    _, in_pieces = heard(cut(payload, where), "close")
    assert told(in_pieces) == told(whole)
    assert in_pieces.reads == sorted(in_pieces.reads)


FRAMING = b"3 a 0 ff ;x abc".split() + [b" ", b"\r", b"\n", b"\r\n", b"0\r\n\r\n", b"3\r\nabc\r\n"]


@given(st.lists(st.sampled_from(FRAMING), max_size=20).map(b"".join), places)
def test_whatever_framing_comes_it_is_undone_alike_in_any_cut(
    framed: bytes, where: list[int]
) -> None:
    whole, in_pieces = sse.Body("chunked"), sse.Body("chunked")
    payload = whole.feed(framed)
    assert b"".join(in_pieces.feed(read) for read in cut(framed, where)) == payload
    assert (in_pieces.complete, in_pieces.broken) == (whole.complete, whole.broken)


THINKING = ["<think>", "</think>", "<th", "ink>", "a", " ", "\n"]


@given(st.lists(st.sampled_from(THINKING), max_size=9))
def test_marking_reasoning_moves_no_text(parts: list[str]) -> None:
    messages = [json.dumps({"choices": [{"delta": {"content": part}}]}) for part in parts]
    _, stream = heard([f"data: {message}\n\n".encode() for message in messages], "close")
    marked = stream.mark_inline_reasoning()
    assert "".join(stream.texts) == "".join(parts)
    assert "".join(stream.kinds).lstrip("r").rstrip("a") == ""
    assert marked == ("r" in stream.kinds)
    assert len(stream.texts) == len(stream.kinds) == len(stream.reads)
    assert stream.reads == sorted(stream.reads)


@given(json_values)
def test_what_is_kept_of_a_servers_object_is_json_and_small(value: object) -> None:
    kept = sse.bounded(value)
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept
    assert sse.bounded(kept) == kept


@given(st.lists(st.integers(min_value=0, max_value=5), max_size=30).map(sorted))
def test_shared_reads_list_every_read_that_brought_several_chunks(reads: list[int]) -> None:
    _, stream = heard([f"data: {json.dumps({'choices': [{'delta': {'content': 'x'}}]})}\n\n".encode()
                       * reads.count(read) for read in range(6)], "close")
    shared = timings.chunk_timing(stream, range(6))["reads"]
    named = {reads[first]: count for first, count in shared}
    assert named == {read: reads.count(read) for read in reads if reads.count(read) > 1}
