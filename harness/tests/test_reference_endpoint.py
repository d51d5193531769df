"""The reference endpoint, run as a child process and checked over loopback."""
from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import time
import unittest
from typing import Any, NamedTuple, Optional

import prompts
import reference_endpoint
from tests import runs

PROGRAM = str(runs.HARNESS / "reference_endpoint.py")
PATH = "/v1/chat/completions"
MODELS = "reference-swift:5000,reference-steady:5000"
LIMIT_S = 20                  # for one answer: far more than a test needs on a busy machine
MS = 1_000_000                # ns


class Answer(NamedTuple):
    """A response: a JSON body parsed, a stream as the list of its events' data."""

    status: int
    headers: dict[str, str]
    body: Any


class Reference(runs.Endpoint):
    """The endpoint in a child process, and a keep-alive connection to it."""

    def __init__(self, *flags: str, bounds: Optional[dict[str, int]] = None):
        super().__init__(*flags, bounds=bounds)
        self.client = http.client.HTTPConnection("127.0.0.1", self.port, timeout=LIMIT_S)

    def close(self):
        self.client.close()
        super().close()

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), LIMIT_S)

    def ask(self, method: str, path: str, body: Any = None) -> Answer:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        self.client.request(method, path, data)
        return answer_of(self.client.getresponse())

    def log(self, after: int = 0) -> list[dict[str, Any]]:
        return self.ask("GET", f"/log?after={after}").body["requests"]

    def moment(self) -> int:
        """A reading of its clock, after it has read everything that was sent before."""
        for _ in range(2):                  # rounds of its loop: one to accept, one to read
            self.ask("GET", "/clock")
        return self.ask("GET", "/clock").body["monotonic_ns"]

    def last(self) -> int:
        return self.ask("GET", "/log").body["last"]


def answer_of(response: http.client.HTTPResponse) -> Answer:
    """Read a response to its end."""
    data = response.read()
    headers = {name.lower(): value for name, value in response.getheaders()}
    if headers["content-type"] == "application/json":
        return Answer(response.status, headers, json.loads(data))
    return Answer(response.status, headers, events_of(data))


def events_of(data: bytes) -> list[Any]:
    *events, rest = data.decode("utf-8").split("\n\n")
    assert rest == "" and all(event.startswith("data: ") for event in events), data[-200:]
    return [event[6:] if event == "data: [DONE]" else json.loads(event[6:]) for event in events]


def chat(text: str = "Say hello.", **more: Any) -> dict[str, Any]:
    return {"model": "reference-swift", "messages": [{"role": "user", "content": text}], **more}


def post_bytes(body: dict[str, Any], *fields: str) -> bytes:
    data = json.dumps(body).encode()
    lines = [f"POST {PATH} HTTP/1.1", "Host: x", f"Content-Length: {len(data)}", *fields, "", ""]
    return "\r\n".join(lines).encode() + data


def read_all(sock: socket.socket) -> bytes:
    """Read until the other side closes or resets the connection."""
    pieces = []
    try:
        while True:
            data = sock.recv(1 << 16)
            if not data:
                break
            pieces.append(data)
    except ConnectionError:
        pass
    return b"".join(pieces)


def texts_of(events: list[Any]) -> list[str]:
    return [event["choices"][0]["delta"]["content"] for event in events
            if isinstance(event, dict) and "sent_ns" in event]


def quarter(values_ns: list[int]) -> int:
    """The lower quartile: a busy machine delays some sends, a wrong schedule all of them."""
    return sorted(values_ns)[len(values_ns) // 4]


class WithReference(unittest.TestCase):
    """One child for all tests of a class."""

    flags: tuple[str, ...] = ("--first-token-ms", "1", "--models", MODELS)
    bounds: dict[str, int] = {}
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.reference = Reference(*cls.flags, bounds=cls.bounds)
        cls.addClassCleanup(cls.reference.close)

    def post(self, body: Any) -> Answer:
        return self.reference.ask("POST", PATH, body)

    def get(self, path: str) -> Answer:
        return self.reference.ask("GET", path)


class Routes(WithReference):
    def assert_refused(self, answer: Answer, status: int, words: str, kind: str):
        self.assertEqual((answer.status, answer.body["error"]["code"]), (status, status))
        self.assertIn(words, answer.body["error"]["message"])
        self.assertEqual(answer.body["error"]["type"], kind)

    def test_first_line_says_where_it_listens(self):
        ready = self.reference.ready
        self.assertEqual(ready, {"port": ready["port"], "pid": self.reference.process.pid,
                                 "clock": "perf_counter_ns",
                                 "models": ["reference-swift", "reference-steady"]})

    def test_version_and_health(self):
        self.assertEqual(self.get("/version"), Answer(200, {
            "server": "reference-endpoint", "content-type": "application/json",
            "content-length": "70", "connection": "keep-alive"}, {
                "engine": "reference-endpoint", "version": "1", "slots": 64, "cache": False}))
        self.assertEqual(self.get("/health").body, {"status": "ok"})

    def test_models_are_listed_with_their_context(self):
        model = {"object": "model", "created": 0, "owned_by": "reference-endpoint",
                 "max_model_len": 4096}
        self.assertEqual(self.get("/v1/models").body, {"object": "list", "data": [
            {"id": "reference-swift", **model}, {"id": "reference-steady", **model}]})

    def test_unknown_paths_and_methods_are_404(self):
        answers = [self.get(path) for path in ("/props", "/api/version", "/", PATH)]
        answers.append(self.reference.ask("POST", "/version", {}))
        for answer in answers:
            self.assert_refused(answer, 404, "unknown path or method", "not_found_error")

    def test_unknown_model_is_404_and_the_answer_lists_the_models(self):
        self.assert_refused(self.post(chat(model="gpt")), 404,
                            "served: reference-swift, reference-steady", "not_found_error")

    def test_clock_moves_between_two_readings(self):
        before_ns = time.time_ns()
        first, second = self.get("/clock").body, self.get("/clock").body
        self.assertEqual(list(first), ["received_ns", "monotonic_ns", "wall_ns"])
        times = [first["received_ns"], first["monotonic_ns"], second["received_ns"],
                 second["monotonic_ns"]]
        self.assertEqual(times, sorted(set(times)))
        self.assertLess(abs(first["wall_ns"] - before_ns), 5_000 * MS)

    def test_log_lists_requests_after_a_number(self):
        last = self.reference.last()
        self.post(chat(reference={"tokens": 3}))
        self.post(b"{")
        entries = self.reference.log(last)
        answered, refused = entries
        times = [answered[key] for key in ("received_ns", "request_end_ns", "start_ns")]
        times += [*answered["sent_ns"], answered["end_ns"]]
        self.assertEqual(times, sorted(times))
        self.assertEqual(answered, {**answered, "seq": last + 1, "outcome": "finished",
                                    "status": 200, "running": 1, "model": "reference-swift",
                                    "stream": False, "prompt_tokens": 6, "tokens": 3})
        self.assertEqual(refused, {
            "seq": last + 2, "id": answered["id"] + 1, "outcome": "refused", "status": 400,
            "sent_ns": [], "received_ns": refused["received_ns"],
            "request_end_ns": refused["request_end_ns"], "end_ns": refused["end_ns"]})
        self.assertEqual(self.reference.log(last + 1), [refused])
        self.assertEqual(self.get("/log?after=x").status, 400)

    def test_invalid_bodies_are_400_with_a_reason(self):
        cases: list[tuple[Any, str]] = [
            (b"", "Expecting value"), (b"[]", "TypeError"), (b"\xff", "UnicodeDecodeError"),
            (b"[" * 200_000, "RecursionError"), (b'{"a": ' + b"9" * 5000 + b"x", "Error"),
            ({"messages": chat()["messages"]}, "'model'"),
            ({"model": "reference-swift"}, "'messages'"),
            (chat(messages=[]), "'messages' is empty"), (chat(messages=["hello"]), "TypeError"),
            (chat(messages=[{"role": "user"}]), "'content'"),
            (chat(messages=[{"role": "user", "content": None}]), "TypeError"),
            (chat(messages=[{"role": "user", "content": [{"type": "image_url"}]}]), "'text'"),
            (chat(stream_options=[1]), "AttributeError"),
            (chat(max_tokens=0), "0 is not a number from 1 to"),
            (chat(max_tokens="9"), "TypeError"), (chat(max_tokens=True), "True is not a number"),
            (chat(max_completion_tokens=float("nan")), "nan is not a number"),
            (chat(reference={"gap": 1}), "'gap'"), (chat(reference=[1]), "AttributeError"),
            (chat(reference={"gap_ms": -1}), "-1 is not a number from 0 to 600000"),
            (chat(reference={"tokens": 0}), "0 is not a number from 1 to 10000000"),
            (chat(reference={"burst": 5000}), "from 1 to 4096")]
        for body, words in cases:
            with self.subTest(words, body=str(body)[:60]):
                self.assert_refused(self.post(body), 400, words, "invalid_request_error")


class Completions(WithReference):
    def test_whole_stream(self):
        last = self.reference.last()
        prompt = "Write a Python 3.9 function median(values) for a list of numbers."
        answer = self.post(chat(prompt, stream=True, stream_options={"include_usage": True}))
        self.assertEqual(answer.headers, {
            "server": "reference-endpoint", "content-type": "text/event-stream",
            "cache-control": "no-cache", "transfer-encoding": "chunked",
            "connection": "keep-alive"})
        text = reference_endpoint.answer_to("reference-swift", (("user", prompt),))
        tokens = reference_endpoint.tokens_of(text)
        entry = self.reference.log(last)[0]
        base = {"id": f"chatcmpl-{entry['id']}", "object": "chat.completion.chunk",
                "created": answer.body[0]["created"], "model": "reference-swift"}

        def choice(delta: dict[str, str], reason: Optional[str] = None) -> dict[str, Any]:
            return {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]}

        prompt_tokens = 3 + len(reference_endpoint.tokens_of(prompt))
        self.assertEqual(answer.body, [
            choice({"role": "assistant", "content": ""}),
            *({**choice({"content": token}), "sent_ns": sent_ns}
              for token, sent_ns in zip(tokens, entry["sent_ns"])),
            choice({}, "stop"),
            {**base, "choices": [], "usage": {
                "prompt_tokens": prompt_tokens, "completion_tokens": len(tokens),
                "total_tokens": prompt_tokens + len(tokens),
                "prompt_tokens_details": {"cached_tokens": 0}}},
            "[DONE]"])
        self.assertEqual((len(entry["sent_ns"]), entry["stream"]), (len(tokens), True))

    def test_answer_without_stream_has_the_same_text(self):
        last = self.reference.last()
        streamed = self.post(chat(stream=True)).body
        answer = self.post(chat()).body
        entry = self.reference.log(last)[1]
        text = "".join(texts_of(streamed))
        count = len(texts_of(streamed))
        self.assertEqual(answer, {
            "id": f"chatcmpl-{entry['id']}", "object": "chat.completion",
            "created": answer["created"], "model": "reference-swift", "choices": [
                {"index": 0, "message": {"role": "assistant", "content": text},
                 "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 6, "completion_tokens": count, "total_tokens": 6 + count,
                      "prompt_tokens_details": {"cached_tokens": 0}},
            "sent_ns": entry["sent_ns"][0]})

    def test_usage_is_sent_only_when_requested(self):
        for options in (None, {}, {"include_usage": False}):
            events = self.post(chat(stream=True, stream_options=options)).body
            self.assertEqual([e for e in events if "usage" in e], [])

    def test_answer_ends_at_the_token_limit(self):
        for limits in ({"max_tokens": 4}, {"max_completion_tokens": 4},
                       {"max_tokens": 4, "max_completion_tokens": 9},
                       {"max_tokens": 4, "reference": {"tokens": 1000}}):
            events = self.post(chat(stream=True, **limits)).body
            whole = self.post(chat()).body["choices"][0]["message"]["content"]
            self.assertEqual(texts_of(events), reference_endpoint.tokens_of(whole)[:4])
            self.assertEqual(events[-2]["choices"][0]["finish_reason"], "length")

    def test_content_in_parts_and_half_a_surrogate_pair_are_accepted(self):
        parts = [{"type": "text", "text": "Say "}, {"type": "text", "text": "hello."}]
        message = {"role": "user", "content": parts}
        self.assertEqual(self.post({**chat(), "messages": [message]}).body["choices"],
                         self.post(chat()).body["choices"])
        self.assertEqual(self.post(chat("a \ud800 b")).status, 200)


class Schedule(WithReference):
    def entry(self, schedule: dict[str, Any], **more: Any) -> dict[str, Any]:
        last = self.reference.last()
        answer = self.post(chat(stream=True, reference=schedule, **more))
        self.assertEqual(answer.body[-1], "[DONE]")
        (entry,) = self.reference.log(last)
        return {**entry, "events": answer.body}

    def test_tokens_are_sent_on_schedule(self):
        entry = self.entry({"first_token_ms": 30, "gap_ms": 4, "tokens": 50})
        due_ns = [entry["request_end_ns"] + (30 + 4 * i) * MS for i in range(51)]
        late_ns = [at - due for at, due in zip([*entry["sent_ns"], entry["end_ns"]], due_ns)]
        self.assertEqual(len(entry["sent_ns"]), 50)
        self.assertGreaterEqual(min(late_ns), 0)
        self.assertLess(quarter(late_ns), 50 * MS)

    def test_late_send_does_not_delay_later_ones(self):
        entry = self.entry({"first_token_ms": 1, "gap_ms": 0.5, "tokens": 200})
        late_ns = [at - entry["request_end_ns"] - MS - i * MS // 2
                   for i, at in enumerate(entry["sent_ns"])]
        # Late by 0.1 ms each, they would add up to 15 ms and more.
        self.assertLess(quarter(late_ns[150:]), 10 * MS)

    def test_burst_is_one_send(self):
        entry = self.entry({"first_token_ms": 2, "gap_ms": 3, "tokens": 7, "burst": 3})
        a, b, c = sorted(set(entry["sent_ns"]))
        self.assertEqual(entry["sent_ns"], [a, a, a, b, b, b, c])
        self.assertGreaterEqual(c - entry["request_end_ns"], 8 * MS)

    def test_longer_schedule_repeats_the_answer_beyond_the_context(self):
        entry = self.entry({"first_token_ms": 0, "gap_ms": 0, "tokens": 25_000})
        texts, cycle = texts_of(entry["events"]), reference_endpoint.tokens_of(
            reference_endpoint.answer_to("reference-swift", (("user", "Say hello."),)))
        self.assertEqual(texts, (cycle * (25_000 // len(cycle) + 1))[:25_000])
        self.assertEqual(entry["events"][-2]["choices"][0]["finish_reason"], "stop")
        stamps_ns = [event["sent_ns"] for event in entry["events"][1:-2]]
        self.assertEqual(stamps_ns, sorted(stamps_ns))
        self.assertEqual(entry["sent_ns"], stamps_ns[:20_000])

    def test_slow_reader_gets_everything(self):
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
            sock.settimeout(LIMIT_S)
            sock.connect(("127.0.0.1", self.reference.port))
            sock.sendall(post_bytes(chat(stream=True, reference={"gap_ms": 0, "tokens": 30_000})))
            # By now the socket is full, and other clients are still served.
            self.assertEqual([self.get("/health").status for _ in range(50)], [200] * 50)
            response = http.client.HTTPResponse(sock)
            response.begin()
            self.assertEqual(len(texts_of(answer_of(response).body)), 30_000)

    def test_sixteen_streams_keep_their_schedules(self):
        last = self.reference.last()
        body = chat(stream=True, reference={"first_token_ms": 20, "gap_ms": 5, "tokens": 20})
        socks = [self.reference.connect() for _ in range(16)]
        for sock in socks:
            sock.sendall(post_bytes(body, "Connection: close"))
        for sock in socks:
            read_all(sock)
            sock.close()
        entries = self.reference.log(last)
        late_ns = [at - entry["request_end_ns"] - (20 + 5 * i) * MS
                   for entry in entries for i, at in enumerate(entry["sent_ns"])]
        self.assertEqual((len(entries), len(late_ns)), (16, 320))
        self.assertEqual(max(entry["running"] for entry in entries), 16)
        self.assertGreaterEqual(min(late_ns), 0)
        self.assertLess(quarter(late_ns), 50 * MS)     # one after the other, they would be later


class OneSlot(WithReference):
    flags = ("--slots", "1", "--first-token-ms", "1", "--models", MODELS)

    def wait_for_end(self, last: int) -> list[dict[str, Any]]:
        deadline = time.monotonic() + LIMIT_S
        entries: list[dict[str, Any]] = []
        while not entries and time.monotonic() < deadline:
            entries = self.reference.log(last)
        return entries

    def test_second_request_waits_for_the_first_to_end(self):
        last = self.reference.last()
        body = chat(stream=True, reference={"first_token_ms": 10, "gap_ms": 1, "tokens": 30})
        with self.reference.connect() as first, self.reference.connect() as second:
            for sock in (first, second):
                sock.sendall(post_bytes(body, "Connection: close"))
            read_all(first)
            read_all(second)
        a, b = self.reference.log(last)
        self.assertGreaterEqual(b["start_ns"], a["end_ns"])
        self.assertLess(b["request_end_ns"], a["end_ns"])
        self.assertGreaterEqual(b["sent_ns"][0] - b["start_ns"], 10 * MS)
        self.assertEqual((a["running"], b["running"]), (1, 1))

    @runs.posix_only
    def test_one_of_two_simultaneous_requests_waits(self):
        last = self.reference.last()
        body = chat(stream=True, reference={"first_token_ms": 20, "gap_ms": 0, "tokens": 5})
        with self.reference.connect() as first, self.reference.connect() as second:
            for sock in (first, second):
                sock.sendall(b"GET /health HTTP/1.1\r\n\r\n")
                sock.recv(4096)
            self.reference.process.send_signal(signal.SIGSTOP)
            for sock in (first, second):
                sock.sendall(post_bytes(body, "Connection: close"))
            self.reference.process.send_signal(signal.SIGCONT)
            read_all(first)
            read_all(second)
        _, b = self.reference.log(last)
        self.assertGreaterEqual(b["sent_ns"][0] - b["start_ns"], 20 * MS)

    def test_disconnected_client_frees_its_slot(self):
        last = self.reference.last()
        with self.reference.connect() as sock:
            sock.sendall(post_bytes(chat(stream=True, reference={"first_token_ms": 600_000})))
            self.assertTrue(sock.recv(4096).endswith(b"\r\n\r\n"))
        self.assertEqual(self.post(chat()).status, 200)
        gone, answered = self.reference.log(last)
        self.assertEqual([gone["outcome"], gone["sent_ns"], answered["outcome"]],
                         ["aborted", [], "finished"])

    def test_client_that_disconnects_while_waiting_gets_no_slot(self):
        last = self.reference.last()
        long = post_bytes(chat(stream=True, reference={"first_token_ms": 600_000}))
        with self.reference.connect() as first:
            first.sendall(long)
            first.recv(4096)
            with self.reference.connect() as second:
                second.sendall(long)
            (gone,) = self.wait_for_end(last)
        self.assertEqual([gone["outcome"], gone["start_ns"], gone["running"]], ["aborted", None, 0])
        self.assertEqual(self.post(chat()).status, 200)


class ContextAndCache(WithReference):
    flags = ("--context", "400", "--cache", "--first-token-ms", "0",
             "--prefill-tokens-per-s", "1000", "--models", "swift:5000,steady:4000,tag:v1")

    def ask(self, *texts: str, **more: Any) -> Answer:
        roles = ("user", "assistant")
        messages = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
        return self.post({"model": "swift", "messages": messages, **more})

    def cached(self, *texts: str, **more: Any) -> int:
        usage = self.ask(*texts, max_tokens=1, **more).body["usage"]
        return usage["prompt_tokens_details"]["cached_tokens"]

    def test_tag_that_is_not_a_number_stays_in_the_name(self):
        self.assertEqual(self.reference.ready["models"], ["swift", "steady", "tag:v1"])

    def test_prompt_beyond_the_context_is_refused_like_llama_cpp(self):
        refused = self.ask("word " * 399)
        self.assertEqual((refused.status, refused.body), (400, {"error": {
            "code": 400, "type": "exceed_context_size_error", "n_prompt_tokens": 403, "n_ctx": 400,
            "message": "request (403 tokens) exceeds the available context size (400 tokens)"}}))
        self.assertEqual(self.ask("word " * 396).status, 400)

    def test_answer_ends_at_the_context(self):
        body = self.ask("word " * 391).body
        self.assertEqual([body["choices"][0]["finish_reason"], body["usage"]["prompt_tokens"],
                          body["usage"]["completion_tokens"]], ["length", 395, 5])

    def test_messages_seen_before_count_as_cached(self):
        first, answer, more = "one " * 50, "two " * 20, "three"
        tokens = 3 + len(reference_endpoint.tokens_of(first))
        self.assertEqual([
            self.cached(first),
            self.cached(first),
            self.cached(first, answer, more),
            self.cached(first, answer, "other"),
            self.cached(first, cache_prompt=False),
            self.cached("x" + first),
            self.cached(first, model="steady")],
            [0, tokens - 1, tokens, tokens + 3 + 21, 0, 0, 0])

    def test_cached_messages_take_no_time(self):
        last = self.reference.last()
        for _ in range(2):
            self.ask("again " * 250, max_tokens=1, stream=True)
        cold_ns, warm_ns = (entry["sent_ns"][0] - entry["request_end_ns"]
                            for entry in self.reference.log(last))
        self.assertGreaterEqual(cold_ns, 250 * MS)
        self.assertLess(warm_ns, 200 * MS)


class Bounds(WithReference):
    flags = ("--first-token-ms", "0", "--models", "reference-swift:100000")
    bounds = {"LOG_REQUESTS": 6, "LOG_STAMPS": 20, "CONNECTIONS": 4, "READ_BYTES": 1024}

    def test_log_is_limited_in_requests(self):
        for _ in range(8):
            self.post({})
        body = self.get("/log").body
        self.assertEqual([entry["seq"] for entry in body["requests"]],
                         list(range(body["last"] - 5, body["last"] + 1)))

    def test_log_is_limited_in_stamps_per_request(self):
        last = self.reference.last()
        for tokens in (25, 15):
            self.post(chat(stream=True, reference={"gap_ms": 0, "tokens": tokens}))
        stamps = [len(entry["sent_ns"]) for entry in self.reference.log(last)]
        self.assertEqual(stamps, [20, 15])

    def test_connection_above_the_limit_is_closed(self):
        self.get("/health")             # the first of four
        socks = [self.reference.connect() for _ in range(3)]
        with self.reference.connect() as sock:
            self.assertEqual(read_all(sock), b"")
        for sock in socks:
            sock.close()
        self.assertEqual(self.get("/health").status, 200)


class Wire(WithReference):
    def test_requests_without_a_known_end_are_refused(self):
        head = f"POST {PATH} HTTP/1.1\r\n".encode()
        for data in (head + b"Transfer-Encoding: chunked\r\n\r\n", b"GET / HTTP/1.0\r\n\r\n",
                     head + b"Content-Length: -1\r\n\r\n", b"\x16\x03\x01 tls\r\n\r\n"):
            with self.subTest(data[:80]), self.reference.connect() as sock:
                sock.sendall(data)
                response = http.client.HTTPResponse(sock)
                response.begin()
                answer = answer_of(response)
                self.assertEqual((answer.status, answer.headers["connection"]), (400, "close"))
                self.assertEqual(read_all(sock), b"")

    def test_pipelined_requests_are_answered_in_order(self):
        last = self.reference.last()
        sent = [post_bytes(chat(f"Question {i}.", reference={"tokens": 2})) for i in range(3)]
        with self.reference.connect() as sock:
            sock.sendall(sent[0][:9])
            between_ns = self.reference.moment()
            sock.sendall(b"".join(sent)[9:]
                         + b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n")
            answers = [json.loads(part.partition(b"\r\n\r\n")[2])
                       for part in read_all(sock).split(b"HTTP/1.1 200 OK\r\n")[1:]]
        ids = [int(answer["id"].partition("-")[2]) for answer in answers[:3]]
        self.assertEqual(ids, [ids[0], ids[0] + 1, ids[0] + 2])
        self.assertEqual(answers[3], {"status": "ok"})
        first, second, _ = self.reference.log(last)
        self.assertLess(first["received_ns"], between_ns)
        self.assertGreater(first["request_end_ns"], between_ns)
        self.assertEqual(second["received_ns"], first["request_end_ns"])

    def test_request_may_arrive_byte_by_byte(self):
        last = self.reference.last()
        data = post_bytes(chat(reference={"tokens": 2}), "Connection: close")
        with self.reference.connect() as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for i in range(len(data) - 1):
                sock.sendall(data[i:i + 1])
            between_ns = self.reference.moment()
            sock.sendall(data[-1:])
            self.assertIn(b'"finish_reason":"stop"', read_all(sock))
        (entry,) = self.reference.log(last)
        self.assertLess(entry["received_ns"], between_ns)
        self.assertGreater(entry["request_end_ns"], between_ns)

    def test_one_connection_serves_many_requests(self):
        self.reference.ask("GET", "/health")
        sock = self.reference.client.sock
        for path in ("/health", "/nothing", "/log?after=x", "/version"):
            self.get(path)
        self.post(chat(stream=True, reference={"tokens": 2}))
        self.post(b"{")
        self.assertIs(self.reference.client.sock, sock)

    def test_connection_close_ends_the_connection_with_the_stream(self):
        with self.reference.connect() as sock:
            sock.sendall(post_bytes(chat(stream=True, reference={"tokens": 2}),
                                    "Connection: close"))
            data = read_all(sock)
        self.assertIn(b"\r\nConnection: close\r\n", data)
        self.assertTrue(data.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"))

    def test_every_event_is_an_http_chunk_of_its_own(self):
        with self.reference.connect() as sock:
            sock.sendall(post_bytes(chat(stream=True, reference={"tokens": 5, "burst": 5}),
                                    "Connection: close"))
            body = read_all(sock).partition(b"\r\n\r\n")[2]
        chunks = []
        while body:
            size, _, rest = body.partition(b"\r\n")
            chunks.append(rest[:int(size, 16)])
            self.assertEqual(rest[int(size, 16):int(size, 16) + 2], b"\r\n")
            body = rest[int(size, 16) + 2:]
        self.assertEqual([len(events_of(chunk)) for chunk in chunks], [1] * 8 + [0])


class Process(unittest.TestCase):
    def start(self, *flags: str) -> Reference:
        reference = Reference(*flags)
        self.addCleanup(reference.close)
        return reference

    def test_it_exits_with_its_standard_input(self):
        reference = self.start()
        reference.process.stdin.close()
        self.assertEqual(reference.process.wait(LIMIT_S), 0)

    @runs.posix_only
    def test_with_keep_it_exits_only_on_a_signal(self):
        for number in (signal.SIGTERM, signal.SIGINT):
            reference = self.start("--keep")
            reference.process.stdin.close()
            self.assertEqual(reference.ask("GET", "/health").status, 200)
            reference.process.send_signal(number)
            self.assertEqual(reference.process.wait(LIMIT_S), 0)

    @runs.posix_only
    def test_it_exits_when_its_parent_is_killed(self):
        parent = subprocess.Popen(
            [sys.executable, "-c", "import subprocess, sys\n"
             f"child = subprocess.Popen([sys.executable, {PROGRAM!r}], stdin=subprocess.PIPE)\n"
             "sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        with parent:
            json.loads(parent.stdout.readline())
            parent.kill()
            # The child holds the other end of this pipe: it ends with the child.
            self.assertEqual(parent.stdout.read(), b"")

    def run_with(self, *flags: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, PROGRAM, *flags], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=LIMIT_S)

    def test_without_standard_input_it_prints_why_it_exits(self):
        ended = self.run_with()
        self.assertEqual(ended.returncode, 0)
        self.assertIn("standard input ended; use --keep", ended.stderr)

    def test_invalid_option_prints_one_line_and_exits_with_2(self):
        for flags, words in (
            (("--port", "70000"), "--port: '70000' is not a number from 0 to 65535"),
            (("--slots", "0"), "--slots: '0' is not a number from 1 to 200"),
            (("--context", "many"), "--context: 'many' is not a number"),
            (("--first-token-ms", "nan"), "--first-token-ms: 'nan' is not a number"),
            (("--models", "a,a"), "--models: 'a,a' has an empty or repeated name"),
            (("--models", "a:0"), "--models: '0' is not a number"),
            (("--b\nad\u202e",), "unrecognized arguments: --b\\nad\\u202e"),
        ):
            with self.subTest(words):
                ended = self.run_with(*flags)
                self.assertEqual((ended.returncode, ended.stdout), (2, ""))
                self.assertIn(words, ended.stderr)
                self.assertEqual(ended.stderr.count("\n"), 1)

    def test_port_in_use_prints_one_line_and_exits_with_3(self):
        port = str(self.start().port)
        ended = self.run_with("--port", port)
        self.assertEqual((ended.returncode, ended.stdout), (3, ""))
        self.assertIn(f"port {port} is not available", ended.stderr)
        self.assertEqual(ended.stderr.count("\n"), 1)



def asked_questions() -> list[list[tuple[str, str]]]:
    """The messages that a run sends; edge_append with answers of this endpoint."""
    asked = [[("user", text)]
             for text in (prompts.HELLO_PROMPT, *prompts.PROMPTS.values())]
    for path in sorted((runs.HARNESS / "suites").glob("*.json")):
        questions = json.loads(path.read_text(encoding="utf-8"))["questions"]
        history: list[tuple[str, str]] = []
        together = "\n\n".join(f"[{q['id']}] {q['prompt']}" for q in questions)
        for question in questions:
            content = question["prompt"]
            if "suite_only" in path.name:
                content = f"{together}\n\nAnswer only the question [{question['id']}]."
            messages = [*history, ("user", content)]
            asked.append(messages)
            if "append" in path.name:
                text = reference_endpoint.answer_to("reference-swift", tuple(messages))
                history = [*messages, ("assistant", text)]
    return asked


class Answers(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.asked = asked_questions()
        cls.answers = {model.name: [reference_endpoint.answer_to(model.name, tuple(messages))
                                    for messages in cls.asked]
                       for model in reference_endpoint.MODELS}

    def test_answers_are_unique(self):
        texts = [text for answers in self.answers.values() for text in answers]
        self.assertEqual(len(texts), 2 * len(self.asked))
        self.assertEqual(len(set(texts)), len(texts))

    def test_same_prompt_gets_the_same_answer_in_another_process(self):
        messages = self.asked[-1]
        script = ("import json, sys, reference_endpoint as r\n"
                  "print(json.dumps(r.answer_to('reference-steady', "
                  "tuple(map(tuple, json.load(sys.stdin))))))")
        out = subprocess.run(
            [sys.executable, "-c", script], cwd=runs.HARNESS, text=True, check=True,
            input=json.dumps(messages), capture_output=True, timeout=LIMIT_S,
            env={**os.environ, "PYTHONHASHSEED": "7"}).stdout
        self.assertEqual(json.loads(out), self.answers["reference-steady"][-1])

    def test_answers_are_short_enough_for_a_rehearsal_and_long_enough_for_a_rate(self):
        for answers in self.answers.values():
            greeting, *counts = [len(reference_endpoint.tokens_of(text)) for text in answers]
            self.assertLess(greeting, 32)
            self.assertGreaterEqual(statistics.quantiles(counts, n=20)[0], 32)
            self.assertLess(max(counts), 140)

    def test_tokens_join_to_the_text_and_have_about_four_characters(self):
        texts = [messages[-1][1] for messages in self.asked] + ["", " \n\t ", "ä€😀 x" * 9]
        counts = [len(reference_endpoint.tokens_of(text)) for text in texts]
        for text in texts:
            self.assertEqual("".join(reference_endpoint.tokens_of(text)), text)
        self.assertAlmostEqual(sum(map(len, texts)) / sum(counts), 4, delta=0.5)

    def test_every_prompt_of_a_run_leaves_room_in_the_default_context(self):
        longest = max(sum(3 + len(reference_endpoint.tokens_of(text)) for _, text in messages)
                      for messages in self.asked)
        self.assertLess(longest + 140, reference_endpoint.CONTEXT_TOKENS)


if __name__ == "__main__":
    unittest.main()
