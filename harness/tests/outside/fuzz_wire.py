"""Fuzz the stream parser: the same result in every split of any stream, and no exception."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from run import sse, timing
from tests import wire_captures

STREAMS = {
    name: capture.response_bytes.partition(b"\r\n\r\n")
    for name, capture in wire_captures.all_captures().items()
    if b"text/event-stream" in capture.response_bytes and capture.end == "EOF"
}


def split(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in zip(edges, edges[1:])]


def parse_reads(reads: list[bytes], framing: str) -> tuple[sse.Body, sse.StreamParser]:
    body, stream = sse.Body(framing), sse.StreamParser()
    for number, read in enumerate(reads):
        stream.feed(body.feed(read), number)
    return body, stream.close(len(reads))


def fields_of(stream: sse.StreamParser) -> tuple[object, ...]:
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
def test_a_real_stream_gives_the_same_result_in_any_split(name: str, where: list[int]) -> None:
    head, _, payload = STREAMS[name]
    body, whole = parse_reads([payload], framing_of(head))
    body_split, in_pieces = parse_reads(split(payload, where), framing_of(head))
    assert fields_of(in_pieces) == fields_of(whole)
    assert (body_split.complete, body_split.broken) == (body.complete, body.broken)
    assert in_pieces.reads == sorted(in_pieces.reads)


@given(st.lists(st.binary(min_size=1, max_size=80), max_size=8), places)
def test_chunked_framing_is_removed(blocks: list[bytes], where: list[int]) -> None:
    framed = b"".join(b"%x;note=1\r\n%s\r\n" % (len(block), block) for block in blocks)
    body = sse.Body("chunked")
    out = b"".join(body.feed(read) for read in split(framed + b"0\r\n\r\n", where))
    assert (out, body.complete, body.broken) == (b"".join(blocks), True, False)


texts = st.lists(st.text(min_size=1, max_size=12), max_size=8)


@given(texts, places, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.booleans(), st.booleans())
def test_texts_are_unchanged_in_any_split_and_dialect(
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
    _, stream = parse_reads(split(payload, where), "close")
    expected = [p if escaped else p.encode("utf-8", "replace").decode() for p in parts]
    assert stream.texts == expected
    us_of_read = list(range(0, 10 * (len(payload) + 1), 10))
    found = timing.chunk_timing(stream, us_of_read)
    assert len(found["chunk_us"]) == len(expected)
    assert sum(found["chunk_us"]) == (found["last_token_us"] or 0)


@given(texts, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans())
def test_a_text_belongs_to_the_read_that_ends_its_line(
    parts: list[str], newline: str, late: bool
) -> None:
    messages = [json.dumps({"choices": [{"delta": {"content": part}}]}) for part in parts]
    # The empty line that closes an event may come with the next one.
    head, tail = (newline, "") if late else ("", newline)
    reads = [f"{head}data: {message}{newline}{tail}".encode() for message in messages]
    _, stream = parse_reads(reads, "close")
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
def test_no_stream_raises(lines: list[bytes]) -> None:
    for framing in ("close", "chunked"):
        for prefix in (b"data: ", b""):
            payload = b"\n\n".join(prefix + line for line in lines)
            _, stream = parse_reads([payload], framing)
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
def test_garbage_gives_the_same_result_in_any_split(payload: bytes, where: list[int]) -> None:
    _, whole = parse_reads([payload], "close")
    _, in_pieces = parse_reads(split(payload, where), "close")
    assert fields_of(in_pieces) == fields_of(whole)
    assert in_pieces.reads == sorted(in_pieces.reads)


FRAMING = b"3 a 0 ff ;x abc".split() + [b" ", b"\r", b"\n", b"\r\n", b"0\r\n\r\n", b"3\r\nabc\r\n"]


@given(st.lists(st.sampled_from(FRAMING), max_size=20).map(b"".join), places)
def test_garbage_framing_gives_the_same_result_in_any_split(
    framed: bytes, where: list[int]
) -> None:
    whole, in_pieces = sse.Body("chunked"), sse.Body("chunked")
    payload = whole.feed(framed)
    assert b"".join(in_pieces.feed(read) for read in split(framed, where)) == payload
    assert (in_pieces.complete, in_pieces.broken) == (whole.complete, whole.broken)


THINKING = ["<think>", "</think>", "<th", "ink>", "a", " ", "\n"]


@given(st.lists(st.sampled_from(THINKING), max_size=9))
def test_marking_reasoning_changes_no_text(parts: list[str]) -> None:
    messages = [json.dumps({"choices": [{"delta": {"content": part}}]}) for part in parts]
    _, stream = parse_reads([f"data: {message}\n\n".encode() for message in messages], "close")
    marked = stream.mark_inline_reasoning()
    assert "".join(stream.texts) == "".join(parts)
    assert "".join(stream.kinds).lstrip("r").rstrip("a") == ""
    assert marked == ("r" in stream.kinds)
    assert len(stream.texts) == len(stream.kinds) == len(stream.reads)
    assert stream.reads == sorted(stream.reads)


@given(json_values)
def test_a_bounded_object_is_valid_json(value: object) -> None:
    kept = sse.bounded(value)
    assert json.loads(json.dumps(kept, allow_nan=False)) == kept
    assert sse.bounded(kept) == kept


@given(st.lists(st.integers(min_value=0, max_value=5), max_size=30).map(sorted))
def test_shared_reads_list_every_read_that_brought_several_chunks(reads: list[int]) -> None:
    chunk = b'data: {"choices": [{"delta": {"content": "x"}}]}\n\n'
    _, stream = parse_reads([chunk * reads.count(read) for read in range(6)], "close")
    shared = timing.chunk_timing(stream, range(6))["reads"]
    named = {reads[first]: count for first, count in shared}
    assert named == {read: reads.count(read) for read in reads if reads.count(read) > 1}
