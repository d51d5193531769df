"""The captures are byte-exact: lengths and pieces agree with what the servers announced."""

import re
import unittest

from tests import wire_captures


def body_of(message: bytes) -> tuple:
    """(header bytes, body bytes) of the first final message; an interim 100 is stepped over."""
    if message.startswith(b"HTTP/1.1 100 "):
        message = message.partition(b"\r\n\r\n")[2]
    head, _, body = message.partition(b"\r\n\r\n")
    return head, body


def chunked_messages_end(body: bytes) -> bool:
    """Whether `body` is one chunked body, complete to its last byte."""
    position = 0
    while True:
        line_end = body.index(b"\r\n", position)
        size = int(body[position:line_end], 16)
        position = line_end + 2 + size + 2
        if body[position - 2 : position] != b"\r\n":
            return False
        if size == 0:
            return position == len(body)


def announced_length(head: bytes) -> int:
    match = re.search(rb"(?im)^content-length: *(\d+)\r?$", head)
    return int(match[1]) if match else -1


class Captures(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.captures = wire_captures.all_captures()

    def test_every_server_is_there(self):
        servers = {name.partition("/")[0] for name in self.captures}
        self.assertEqual(
            servers, {"litellm", "llama-server", "llama-server-apikey", "vllm", "vllm-apikey"}
        )

    def test_the_reads_joined_are_the_response(self):
        for name, capture in self.captures.items():
            with self.subTest(name):
                joined = b"".join(segment.data for segment in capture.segments)
                self.assertEqual(joined, capture.response_bytes)

    def test_times_of_the_reads_never_go_back(self):
        for name, capture in self.captures.items():
            with self.subTest(name):
                times_s = [segment.at_s for segment in capture.segments]
                self.assertEqual(times_s, sorted(times_s))

    def test_bodies_are_as_long_as_announced(self):
        for name, capture in self.captures.items():
            messages = {"response": capture.response_bytes}
            if not capture.request_cut:
                messages["request"] = capture.request_bytes
            for kind, message in messages.items():
                head, body = body_of(message)
                if announced_length(head) >= 0:
                    with self.subTest(name, message=kind):
                        self.assertEqual(len(body), announced_length(head))

    def test_streams_that_ended_are_chunked_to_the_last_byte(self):
        for name, capture in self.captures.items():
            head, body = body_of(capture.response_bytes)
            if b"chunked" in head and capture.end == "EOF":
                with self.subTest(name):
                    self.assertTrue(chunked_messages_end(body))

    def test_a_file_of_another_shape_is_refused(self):
        path = wire_captures.WIRE_FOLDER / "vllm" / "no-such-case.txt"
        with self.assertRaises(FileNotFoundError):
            wire_captures.load(path)


if __name__ == "__main__":
    unittest.main()
