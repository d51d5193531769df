"""The stream parser against the bytes of real servers, in every split.

data/wire/expected.json holds what each capture contains. Its values were not made by the parser:
they come from http.client and plain splitting, and were reviewed beside the captures.
"""

from __future__ import annotations

import json
import re
import unittest
from functools import cache
from typing import Any

from run import sse, timing
from tests import wire_captures
from tests.run.test_sse import fields_of, parse_reads

SPLIT_BYTES = 1024


class Response:
    """The final response of a capture: its header, and its body in the recorded reads."""

    def __init__(self, capture: wire_captures.Capture) -> None:
        raw, start = capture.response_bytes, 0
        while raw.startswith(b"HTTP/1.1 100 ", start):
            start = raw.index(b"\r\n\r\n", start) + 4
        end = raw.index(b"\r\n\r\n", start) + 4
        head = raw[start:end].lower()
        length = re.search(rb"\ncontent-length: *(\d+)", head)
        self.status = int(head.split()[1])
        self.framing = "chunked" if b"chunked" in head else "length" if length else "close"
        self.length_bytes = int(length[1]) if length else 0
        self.body, self.capture = raw[end:], capture
        self.reads, at = [], 0
        for segment in capture.segments:
            self.reads.append(segment.data[max(end - at, 0):])
            at += len(segment.data)

    def parse(self, reads: list[bytes]) -> tuple[sse.Body, sse.StreamParser]:
        return parse_reads(reads, self.framing, self.length_bytes)

    def found(self, reads: list[bytes], *left_out: str) -> dict[str, Any]:
        body, stream = self.parse(reads)
        found = {"status": self.status, **fields_of(stream, *left_out)}
        if self.framing != "close" and not body.complete:
            found["complete"] = False
        return found


@cache
def responses() -> dict[str, Response]:
    return {name: Response(one) for name, one in wire_captures.all_captures().items()}


@cache
def expected() -> dict[str, Any]:
    return json.loads((wire_captures.WIRE_FOLDER / "expected.json").read_text("utf-8"))


class Files(unittest.TestCase):
    def test_every_capture_is_complete_and_has_expected_values(self):
        self.assertEqual(set(responses()), set(expected()))
        for name, response in responses().items():
            with self.subTest(name):
                segments = response.capture.segments
                self.assertEqual(b"".join(s.data for s in segments),
                                 response.capture.response_bytes)
                self.assertEqual([s.at_s for s in segments], sorted(s.at_s for s in segments))
                if response.framing == "length":
                    self.assertEqual(len(response.body), response.length_bytes)


class Captures(unittest.TestCase):
    def test_in_the_recorded_reads(self):
        for name, response in responses().items():
            with self.subTest(name):
                self.assertEqual(response.found(response.reads), expected()[name])

    def test_in_one_read_and_byte_by_byte(self):
        for name, response in responses().items():
            without_reads = {k: v for k, v in expected()[name].items() if k != "reads"}
            single_bytes = [response.body[i:i + 1] for i in range(len(response.body))]
            for reads in ([response.body], single_bytes):
                with self.subTest(name, reads=len(reads)):
                    self.assertEqual(response.found(reads, "reads"), without_reads)

    def test_byte_by_byte_a_text_belongs_to_the_end_of_its_line(self):
        for name in ("llama-server/stream_usage", "vllm/unicode_emoji", "litellm/stream_usage"):
            response = responses()[name]
            _, stream = response.parse([response.body[i:i + 1] for i in range(len(response.body))])
            with self.subTest(name):
                lines = [response.body[:read].rpartition(b"\n")[2] for read in stream.reads]
                texts = [json.loads(line[6:])["choices"][0]["delta"]["content"] for line in lines]
                self.assertEqual(texts, stream.texts)
                self.assertEqual({response.body[read] for read in stream.reads}, {ord("\n")})

    def test_split_in_two_at_every_third_byte_of_the_first_kib(self):
        dialects = {}                 # one capture of each whose lines differ in more than words
        for name, response in responses().items():
            lines = response.body.split(b"\n")
            shapes = frozenset(re.sub(rb'"[^"]*"|[\w.+-]+', b"x", line) for line in lines)
            dialects.setdefault((name.partition("/")[0], shapes), (name, response))
        for name, response in dialects.values():
            # What follows the event at the end of the splits cannot depend on the split.
            end = response.body.find(b"\n\n", SPLIT_BYTES) + 2
            body = response.body[:end if end > 1 else None]
            whole = response.found([body], "reads")
            with self.subTest(name):
                for at in range(1, min(SPLIT_BYTES, len(body)), 3):
                    if response.found([body[:at], body[at:]], "reads") != whole:
                        self.fail(f"split at byte {at}")

    def test_chunk_times_of_a_recorded_stream(self):
        response = responses()["llama-server/stream_usage"]
        _, stream = response.parse(response.reads)
        us = [round(segment.at_s * 1e6) for segment in response.capture.segments]
        self.assertEqual(timing.chunk_timing(stream, us), {
            "first_token_us": 18_100, "first_answer_us": 18_100, "last_token_us": 114_700,
            "chunk_us": [18_100, 14_200, 14_400, 14_600, 16_400, 18_300, 18_700],
            "chunk_kinds": None, "reads": [], "ttft_null_reason": None})


if __name__ == "__main__":
    unittest.main()
