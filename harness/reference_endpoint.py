"""OpenAI-compatible test server with a known schedule; it runs no model.

The runner rehearses against it and measures its own timing error with it
before a run, and tests check the runner with it. To stay independent, it
imports nothing from the other files. It serves HTTP/1.1 in one thread, on
127.0.0.1 only.

    python3 harness/reference_endpoint.py [--port 0] [--models a,b:200] ...

When it is ready it prints one JSON line: {"port", "pid", "clock", "models"}.
It exits when its standard input ends, so it ends with the process that started
it, or on SIGTERM or SIGINT. With --keep, it exits only on a signal.

routes:
  GET  /version              {"engine": "reference-endpoint", "version",
                             "slots", "cache"}
  GET  /health               {"status": "ok"}
  GET  /v1/models            the models; max_model_len is the context of one
                             request
  GET  /clock                {"received_ns", "monotonic_ns", "wall_ns"}: when
                             the request was read, and when the answer was
                             handed to the socket
  GET  /log?after=SEQ        {"last", "requests": [...]}: one entry per
                             completion that ended after SEQ, by the same
                             clock: "id" (7 is "chatcmpl-7"), "outcome"
                             (finished, aborted, refused), "received_ns" (first
                             byte of the request), "request_end_ns" (its last
                             byte), "start_ns" (it got a slot), "sent_ns" (of
                             each chunk with text), "end_ns", "running"
                             (requests in progress when it started), and what
                             was requested
  POST /v1/chat/completions  streamed or not

Every chunk with text has a field "sent_ns": perf_counter_ns() of this process
just before the chunk was handed to the socket. The chunk with the finish
reason follows one gap after the last token, as if a model had generated an end
token.

A request may set its own schedule with the field "reference":
{"first_token_ms", "gap_ms", "tokens", "burst"}. The first token follows
first_token_ms after the last byte of the request (or after it got a slot, if
it had to wait), then `burst` chunks (default 1) in one send every gap_ms,
counted from the first token, until there were `tokens`, whatever the context.
With "gap_ms": 0 chunks are sent as fast as the socket takes them, in blocks
with one stamp.

The same model and prompt always get the same answer: a few arbitrary
sentences.

exit codes:
  0 ended as requested; 2 wrong usage; 3 the port is not available.
"""
import sys

if sys.version_info < (3, 9):      # above all code that an older Python cannot run
    sys.exit("reference_endpoint needs Python 3.9 or newer; this is " + sys.version.split()[0])

import argparse
import contextlib
import gc
import hashlib
import heapq
import json
import math
import os
import re
import selectors
import signal
import socket
import textwrap
import threading
import time
from array import array
from collections import deque
from time import perf_counter_ns as clock_ns
from typing import Any, Callable, NamedTuple, NoReturn, Optional, Sequence

NAME, VERSION = "reference-endpoint", "1"
HOST = "127.0.0.1"


class Model(NamedTuple):
    """A served name and its speed."""

    name: str
    tokens_per_s: float
    prefill_tokens_per_s: float


# A rehearsal sends about fifty questions to each and must end well within a minute. With this speed
# and answers of 40 to 120 tokens, both together need about 25 s.
MODELS = (Model("reference-swift", 500.0, 20_000.0), Model("reference-steady", 300.0, 12_000.0))
FIRST_TOKEN_MS = 5.0          # before the first token, besides the time for the prompt
SLOTS = 64                    # more than a run has lanes, so that no request waits by default
CONTEXT_TOKENS = 4096         # what the runner requests

# A sleep ends late: on Linux by 80 us at the median, by 50 us with the finest timer slack, and by
# 100 us at p99. So the last moment before a send is spent polling. Measured on Linux, with 16
# streams of 200 tokens/s: 300 us of polling took twice the CPU of 150 us and was no more exact;
# with 60 us one chunk in ten was late. EpollSelector is no option: it sleeps in whole ms. Windows
# sleeps in ticks of 15.6 ms; neither Windows nor macOS was measured.
SPIN_NS = {"linux": 150_000, "win32": 16_000_000}.get(sys.platform, 300_000)
TIMER_SLACK_FILE = "/proc/self/timerslack_ns"
BLOCK_CHUNKS = 256            # of a stream without gaps: 60 kB, about what one send takes

READ_BYTES = 64 << 10
CONNECTIONS = 200             # select takes 512 sockets on Windows, 1,024 elsewhere
LOG_REQUESTS = 1_000
LOG_STAMPS = 20_000           # per request
EARLY_NS = 200_000_000        # standard input that ends this early was probably never there

REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found"}
Pieces = list[bytes]          # what is sent is stamp.join(pieces)
Messages = tuple[tuple[str, str], ...]


# --- Tokens and answers ---------------------------------------------------------------------------

# Pieces of words with the blank before them: 3.9 characters on average in English and code.
TOKEN = re.compile(r" ?\w{1,6}| ?[^\w\s]{1,3}|\s{1,8}")
MESSAGE_TOKENS = 3            # the marks around a message
SHORT_TOKENS = 16             # a prompt this short gets an answer of one sentence

SENTENCES = (
    "Begin with the input, since everything else depends on it.",
    "Look at the first case before anything is changed.",
    "Write a test for the empty case and for the limit.",
    "Keep the old order and write down the reason for it.",
    "Measure again after every step and compare the results.",
    "The weak part is the last step, so check it twice.",
    "Most of the time is spent in the inner loop.",
    "Log every failure together with the value that caused it.",
    "A short name for each part makes the review easier.",
    "Compare the result with the state before the change.",
    "Make a copy of the data before the script is started.",
    "Remove the temporary files when everything else is done.")

# {0} ... {4} are different sentences, {n} is a number; both depend on the prompt.
ANSWER = "{0} {1} {2} {3} {4} This is answer {n}."
GREETING = "Hello, this is answer {n}."


def tokens_of(text: str) -> list[str]:
    """The tokens of a text; joined they are the text."""
    return TOKEN.findall(text)


def answer_to(model: str, messages: Messages) -> str:
    """A model's answer to (role, text) messages: always the same for the same messages."""
    texts = "\0".join((model, *(text for _, text in messages)))
    digest = hashlib.sha256(texts.encode("utf-8", "surrogatepass")).digest()
    # A step that shares no divisor with their number visits every sentence once.
    first, step = digest[0], (1, 5, 7, 11)[digest[1] % 4]
    chosen = [SENTENCES[(first + i * step) % len(SENTENCES)] for i in range(5)]
    is_short = len(tokens_of(messages[-1][1][:200])) <= SHORT_TOKENS
    form = GREETING if is_short else ANSWER
    return form.format(*chosen, n=int.from_bytes(digest[2:6], "big") % 1_000_000)


# --- Requests -------------------------------------------------------------------------------------

class Refusal(Exception):
    """A request that gets an error object; `more` are further fields of that object."""

    def __init__(self, status: int, message: str, kind: str = "invalid_request_error",
                 **more: int) -> None:
        super().__init__(message)
        self.status = status
        self.error = {"code": status, "message": message, "type": kind, **more}


class Request(NamedTuple):
    """One HTTP request."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes


REQUEST_LINE = re.compile(r"([A-Z]{1,16}) (/[^ ?]*)\??([^ ]*) HTTP/1\.1")


def cut_request(inbox: bytearray) -> Optional[Request]:
    """Take the first request out of the bytes read so far; None while it is incomplete. Raises
    Refusal where the end of the request cannot be known."""
    end = inbox.find(b"\r\n\r\n")
    if end < 0:
        return None
    line, *fields = inbox[:end].decode("latin-1").split("\r\n")
    pairs = (field.partition(":") for field in fields)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    match, length = REQUEST_LINE.fullmatch(line), headers.get("content-length", "0")
    if not match or "transfer-encoding" in headers or not re.fullmatch("[0-9]{1,9}", length):
        raise Refusal(400, "send HTTP/1.1 with a Content-Length")
    body_end = end + 4 + int(length)
    if len(inbox) < body_end:
        return None
    body = bytes(inbox[end + 4:body_end])
    del inbox[:body_end]
    return Request(match[1], match[2], match[3], headers, body)


def _bounded(value: Any, least: float, most: float) -> Any:
    if isinstance(value, bool) or not least <= value <= most:
        raise ValueError(f"{value!r} is not a number from {least} to {most}")
    return value


def _text_of(content: Any) -> str:
    """A message's text; the content may be a list of parts."""
    parts = content if isinstance(content, list) else [{"text": content}]
    return "".join(part["text"] for part in parts)


BOUNDS = {"first_token_ms": (0, 600_000), "gap_ms": (0, 600_000), "tokens": (1, 10_000_000),
          "burst": (1, 4096)}


class Ask:
    """A completion request, read from its body; raises Refusal."""

    def __init__(self, body: bytes, models: Sequence[str]) -> None:
        try:
            raw = json.loads(body.decode("utf-8"))
            self.model: str = raw["model"]
            self.messages: Messages = tuple((message["role"], _text_of(message["content"]))
                                            for message in raw["messages"])
            if not self.messages:
                raise ValueError("'messages' is empty")
            self.stream = bool(raw.get("stream"))
            self.include_usage = bool((raw.get("stream_options") or {}).get("include_usage"))
            self.cache_prompt = raw.get("cache_prompt") is not False
            limits = (raw.get("max_tokens"), raw.get("max_completion_tokens"))
            self.max_tokens = min((_bounded(limit, 1, 2 ** 53) for limit in limits
                                   if limit is not None), default=math.inf)
            self.schedule = {name: _bounded(value, *BOUNDS[name])
                             for name, value in (raw.get("reference") or {}).items()}
        except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise Refusal(400, f"invalid request: {type(error).__name__}: {error}") from None
        if self.model not in models:
            raise Refusal(404, f"unknown model; served: {', '.join(models)}", "not_found_error")
        # Counted without a list of them, since a text may have 16 MB.
        self.message_tokens = [MESSAGE_TOKENS + sum(1 for _ in TOKEN.finditer(text))
                               for _, text in self.messages]
        self.prompt_tokens = sum(self.message_tokens)


# --- One completion -------------------------------------------------------------------------------

STAMP_BYTES = 19              # enough for any reading; blanks fill it up, as JSON allows
TEXT_END = b"}\n\n\r\n"       # what follows the stamp of a chunk


def _compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _head(status: int, close: bool, *fields: str) -> bytes:
    connection = f"Connection: {'close' if close else 'keep-alive'}"
    lines = (f"HTTP/1.1 {status} {REASONS[status]}", f"Server: {NAME}", *fields, connection)
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode("ascii")


def _response(status: int, close: bool, body: bytes, more_bytes: int = 0) -> bytes:
    """A whole response except for the last bytes of its body."""
    return _head(status, close, "Content-Type: application/json",
                 f"Content-Length: {len(body) + more_bytes}") + body


def _event(text: str) -> bytes:
    """A server-sent event in an HTTP chunk of its own."""
    data = f"data: {text}\n\n".encode("ascii")
    return b"%x\r\n%b\r\n" % (len(data), data)


class Job:
    """One completion from its request to its end; all times are readings of clock_ns."""

    def __init__(self, conn: "Connection", ask: Ask, model: Model, first_token_ms: float,
                 context_tokens: int, cached_tokens: int, entry: dict[str, Any]) -> None:
        self.conn, self.ask, self.id, self._entry = conn, ask, int(entry["id"]), entry
        self.waited = self.ended = False
        self.start_ns: Optional[int] = None
        self._answer = tokens_of(answer_to(ask.model, ask.messages))
        schedule, prompt_tokens = ask.schedule, ask.prompt_tokens
        wanted = int(schedule.get("tokens", len(self._answer)))
        room = math.inf if "tokens" in schedule else context_tokens - prompt_tokens
        self._tokens = int(min(wanted, ask.max_tokens, room))
        self._finish_reason = "stop" if self._tokens == wanted else "length"
        prefill_ms = (prompt_tokens - cached_tokens) * 1e3 / model.prefill_tokens_per_s
        self._first_ns = int(schedule.get("first_token_ms", first_token_ms + prefill_ms) * 1e6)
        self._gap_ns = int(schedule.get("gap_ms", 1e3 / model.tokens_per_s) * 1e6)
        self._burst = int(schedule.get("burst", 1 if self._gap_ns else BLOCK_CHUNKS))
        self._usage = {"prompt_tokens": prompt_tokens, "completion_tokens": self._tokens,
                       "total_tokens": prompt_tokens + self._tokens,
                       "prompt_tokens_details": {"cached_tokens": cached_tokens}}
        self._sent = self.due_ns = self._running = 0
        self._stamps_ns = array("q")
        self.pieces: Pieces = []

    def start(self, running: int) -> None:
        """It gets a slot, with so many requests in progress; prepare the bytes of all chunks."""
        self._running, self.start_ns = running, clock_ns()
        self._first_ns += self.start_ns if self.waited else self._entry["request_end_ns"]
        self._base = _compact({"id": f"chatcmpl-{self.id}", "object": "chat.completion.chunk",
                               "created": int(time.time()), "model": self.ask.model})[:-1]
        texts = (f'data: {self._base},"choices":[{{"index":0,"delta":{{"content":'
                 f'{json.dumps(token)}}},"finish_reason":null}}],"sent_ns":'.encode("ascii")
                 for token in self._answer)
        rest_bytes = STAMP_BYTES + len(TEXT_END) - 2    # the line end behind it does not count
        self._texts = [b"%x\r\n%b" % (len(text) + rest_bytes, text) for text in texts]
        self._joints = [TEXT_END + text for text in self._texts]
        self._prepare()

    def _prepare(self) -> None:
        """Set bytes and moment of the next send. What is longer than the answer repeats it."""
        if not self.ask.stream:
            self._sent = self._tokens
        self.due_ns = self._first_ns + -(-self._sent // self._burst) * self._gap_ns
        first, cycle = self._sent, len(self._texts)
        count = min(self._burst, self._tokens - first)
        if count:
            joints = [self._joints[i % cycle] for i in range(first + 1, first + count)]
            self.pieces = [self._texts[first % cycle], *joints, TEXT_END]
        else:
            self.pieces = self._stream_end() if self.ask.stream else self._whole()
        if self.ask.stream and not first:
            role = self._chunk({"role": "assistant", "content": ""}, None)
            self.pieces = [role + self.pieces[0], *self.pieces[1:]]

    def note_sent(self, stamp_ns: int) -> bool:
        """Record that the pieces were sent, and prepare the next; False after the last."""
        count = len(self.pieces) - 1
        self._stamps_ns.extend([stamp_ns] * min(count, LOG_STAMPS - len(self._stamps_ns)))
        if self._sent == self._tokens:
            return False
        self._sent += count
        self._prepare()
        return True

    def _chunk(self, delta: dict[str, str], finish_reason: Optional[str]) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return _event(f'{self._base},"choices":[{_compact(choice)}]}}')

    def _stream_end(self) -> Pieces:
        usage = _event(f'{self._base},"choices":[],"usage":{_compact(self._usage)}}}')
        return [self._chunk({}, self._finish_reason) + (usage if self.ask.include_usage else b"")
                + _event("[DONE]") + b"0\r\n\r\n"]

    def _whole(self) -> Pieces:
        text = "".join((self._answer * -(-self._tokens // len(self._answer)))[:self._tokens])
        choice = {"index": 0, "message": {"role": "assistant", "content": text},
                  "finish_reason": self._finish_reason}
        body = (self._base.replace(".chunk", "", 1) + f',"choices":[{_compact(choice)}],'
                f'"usage":{_compact(self._usage)},"sent_ns":')
        return [_response(200, self.conn.closing, body.encode("ascii"), STAMP_BYTES + 1), b"}"]

    def entry(self, outcome: str) -> dict[str, Any]:
        """Its entry in the log; running counts this request, too."""
        return {**self._entry, "outcome": outcome, "start_ns": self.start_ns,
                "sent_ns": self._stamps_ns, "end_ns": clock_ns(), "running": self._running,
                "model": self.ask.model, "stream": self.ask.stream,
                "prompt_tokens": self.ask.prompt_tokens, "tokens": self._tokens}


# --- Serving --------------------------------------------------------------------------------------

class Connection:
    """One client's connection and the job in progress on it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.inbox = bytearray()
        self.received_ns = self.read_ns = 0     # first byte of the next request; last byte read
        self.outbox = memoryview(b"")           # what the socket did not take yet
        self.job: Optional[Job] = None
        self.closing = False                    # after the answer in progress


def _json(conn: Connection, value: Any, status: int = 200) -> Pieces:
    return [_response(status, conn.closing, _compact(value).encode("ascii"))]


class Endpoint:
    """The listening socket, the connections, the slots and the log. settings: the command line."""

    def __init__(self, settings: argparse.Namespace) -> None:
        self.settings = settings
        self._models = {model.name: model for model in settings.models}
        self._listener = socket.create_server((HOST, settings.port), backlog=128)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.SelectSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._due: list[tuple[int, int, Job]] = []
        self._waiting: deque[Job] = deque()
        self._running = self._connections = self._last_id = self._log_seq = 0
        self._log: deque[dict[str, Any]] = deque(maxlen=LOG_REQUESTS)
        self._seen: set[bytes] = set()             # digests of beginnings of prompts
        self._facts: dict[str, Any] = {
            "/version": {"engine": NAME, "version": VERSION, "slots": settings.slots,
                         "cache": settings.cache},
            "/health": {"status": "ok"},
            "/v1/models": {"object": "list", "data": [
                {"id": name, "object": "model", "created": 0, "owned_by": NAME,
                 "max_model_len": settings.context} for name in self._models]}}

    def serve(self) -> NoReturn:
        while True:
            sleep_s = max(0, self._due[0][0] - clock_ns() - SPIN_NS) / 1e9 if self._due else None
            for key, events in self._selector.select(sleep_s):
                if key.data is None:
                    self._accept()
                elif events & selectors.EVENT_WRITE:        # the socket takes bytes again
                    self._push(key.data, True)
                    if key.data.job:
                        self._schedule(key.data.job)
                    else:
                        self._after_answer(key.data)
                else:
                    self._read(key.data)
            self._send_due()
            self._start_waiting()               # last, since a stream that ends frees a slot

    # Connections

    def _accept(self) -> None:
        with contextlib.suppress(OSError):      # the client has already gone
            sock, _ = self._listener.accept()
            if self._connections >= CONNECTIONS:
                sock.close()
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(sock, selectors.EVENT_READ, Connection(sock))
            self._connections += 1

    def _drop(self, conn: Connection) -> None:
        if conn.sock.fileno() < 0:
            return
        self._selector.unregister(conn.sock)
        conn.sock.close()
        conn.inbox.clear()
        self._connections -= 1
        if conn.job:
            self._end(conn.job, "aborted")

    def _read(self, conn: Connection) -> None:
        try:
            data = conn.sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        now_ns = clock_ns()
        conn.received_ns = conn.received_ns if conn.inbox else now_ns
        conn.read_ns = now_ns
        conn.inbox += data
        if not data:                    # a client that closes only its own half has gone, too
            self._drop(conn)
        else:
            self._take_requests(conn)

    def _send(self, conn: Connection, pieces: Pieces) -> int:
        """Hand the pieces to the socket, joined by the time, and return that time."""
        stamp_ns = clock_ns()
        conn.outbox = memoryview((b"%19d" % stamp_ns).join(pieces))
        self._push(conn, False)
        return stamp_ns

    def _push(self, conn: Connection, watched: bool) -> None:
        """Send what the socket takes; the rest waits. watched: whether the selector knows that."""
        try:
            conn.outbox = conn.outbox[conn.sock.send(conn.outbox):]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(conn)
            return
        if watched != bool(conn.outbox):
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if conn.outbox else 0)
            self._selector.modify(conn.sock, events, conn)

    def _after_answer(self, conn: Connection) -> None:
        """Close the connection, or take its next request, once everything is sent."""
        if conn.outbox or conn.sock.fileno() < 0:
            return
        if conn.closing:
            self._drop(conn)
        else:
            self._take_requests(conn)

    # Requests

    def _take_requests(self, conn: Connection) -> None:
        """Answer the requests read so far, one after the other."""
        while conn.inbox and not (conn.job or conn.outbox or conn.closing):
            close = True                # unless it is known where the next request begins
            try:
                request = cut_request(conn.inbox)
                if request is None:
                    return
                close = "close" in request.headers.get("connection", "").lower()
                conn.closing = close
                pieces = self._answer(conn, request)
            except Refusal as refusal:
                conn.closing = close
                pieces = _json(conn, {"error": refusal.error}, refusal.status)
            conn.received_ns = conn.read_ns
            if pieces:
                self._send(conn, pieces)
                if conn.closing:
                    self._after_answer(conn)

    def _answer(self, conn: Connection, request: Request) -> Pieces:
        """The whole answer, or nothing where a job will bring it; raises Refusal."""
        route = (request.method, request.path)
        if route == ("POST", "/v1/chat/completions"):
            return self._take_job(conn, request)
        if route == ("GET", "/clock"):
            before = b'{"received_ns":%d,"monotonic_ns":' % conn.read_ns
            after = b',"wall_ns":%d}' % time.time_ns()
            return [_response(200, conn.closing, before, STAMP_BYTES + len(after)), after]
        if route == ("GET", "/log"):
            seq = re.fullmatch(r"(?:after=([0-9]{1,15}))?", request.query)
            if not seq:
                raise Refusal(400, "the query must be after=NUMBER, or empty")
            return _json(conn, {"last": self._log_seq, "requests": [
                {**entry, "sent_ns": list(entry["sent_ns"])} for entry in self._log
                if entry["seq"] > int(seq[1] or 0)]})
        if request.method == "GET" and request.path in self._facts:
            return _json(conn, self._facts[request.path])
        raise Refusal(404, "unknown path or method", "not_found_error")

    def _note(self, entry: dict[str, Any]) -> None:
        self._log_seq += 1
        self._log.append({"seq": self._log_seq, **entry})

    # Completions

    def _take_job(self, conn: Connection, request: Request) -> Pieces:
        """Queue a completion; a refused one is logged, too."""
        self._last_id += 1
        entry = {"id": self._last_id, "outcome": "refused", "status": 200, "sent_ns": (),
                 "received_ns": conn.received_ns, "request_end_ns": conn.read_ns}
        context_tokens = self.settings.context
        try:
            ask = Ask(request.body, tuple(self._models))
            if ask.prompt_tokens >= context_tokens:             # as llama.cpp refuses it
                raise Refusal(400, f"request ({ask.prompt_tokens} tokens) exceeds the available "
                              f"context size ({context_tokens} tokens)",
                              "exceed_context_size_error", n_prompt_tokens=ask.prompt_tokens,
                              n_ctx=context_tokens)
        except Refusal as refusal:
            self._note({**entry, "status": refusal.status, "end_ns": clock_ns()})
            raise
        model = self._models[ask.model]
        gap_s = 1 / model.tokens_per_s + ask.prompt_tokens * self.settings.context_ns / 1e9
        conn.job = Job(conn, ask, model._replace(tokens_per_s=1 / gap_s),
                       self.settings.first_token_ms, context_tokens, self._cached_tokens(ask),
                       entry)
        conn.job.waited = self._running + len(self._waiting) >= self.settings.slots
        self._waiting.append(conn.job)
        return []

    def _cached_tokens(self, ask: Ask) -> int:
        """Tokens of the longest sequence of whole messages, from the first, that was seen."""
        state, tokens, cached_tokens = hashlib.sha256(ascii(ask.model).encode("ascii")), 0, 0
        for message, count in zip(ask.messages, ask.message_tokens):
            state.update(ascii(message).encode("ascii"))
            tokens += count
            if state.digest() in self._seen:
                cached_tokens = tokens
            self._seen.add(state.digest())
        # Never the whole prompt: the next token needs work on the last one.
        return min(cached_tokens, tokens - 1) if self.settings.cache and ask.cache_prompt else 0

    def _start_waiting(self) -> None:
        """Give free slots to the requests that came first."""
        while self._waiting and self._running < self.settings.slots:
            job = self._waiting.popleft()
            if not job.ended:
                self._running += 1
                job.start(self._running)
                if job.ask.stream:      # the head alone, as soon as there is a slot, as llama.cpp
                    self._send(job.conn, [_head(
                        200, job.conn.closing, "Content-Type: text/event-stream",
                        "Cache-Control: no-cache", "Transfer-Encoding: chunked")])
                self._schedule(job)

    def _schedule(self, job: Job) -> None:
        if not (job.ended or job.conn.outbox):      # else when the socket has taken that
            heapq.heappush(self._due, (job.due_ns, job.id, job))

    def _send_due(self) -> None:
        """Make one send for every job that is due; a stream without gaps is due again at once."""
        now_ns, jobs = clock_ns(), []
        while self._due and self._due[0][0] <= now_ns:
            jobs.append(heapq.heappop(self._due)[2])
        for job in jobs:
            stamp_ns = 0 if job.ended else self._send(job.conn, job.pieces)
            if job.ended:                           # its client has gone, maybe just now
                continue
            if job.note_sent(stamp_ns):
                self._schedule(job)
            else:
                self._end(job, "finished")

    def _end(self, job: Job, outcome: str) -> None:
        job.ended, job.conn.job = True, None
        self._running -= job.start_ns is not None
        self._note(job.entry(outcome))
        self._after_answer(job.conn)


# --- Command line ---------------------------------------------------------------------------------

class _Help(argparse.RawDescriptionHelpFormatter):
    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        shown = message.encode("unicode_escape").decode("ascii")
        self.exit(2, f"{self.prog}: {shown}; see --help\n")


def _between(kind: Callable[[str], float], least: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        with contextlib.suppress(ValueError):
            value = kind(text)
            if least <= value <= most:
                return value
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number from {least:.10g} to {most:.10g}")
    return read


_rate = _between(float, 0.1, 1e7)


def _model_rates(text: str) -> dict[str, Optional[float]]:
    """`a,b:200` -> {"a": None, "b": 200.0}; a tag that is not a number belongs to the name."""
    found: dict[str, Optional[float]] = {}
    for item in text.split(","):
        name, rate = item, None
        if re.fullmatch(r".+:[0-9.]+", item):
            name, _, number = item.rpartition(":")
            rate = _rate(number)
        if not name or name in found:
            raise argparse.ArgumentTypeError(f"{text!r} has an empty or repeated name")
        found[name] = rate
    return found


def build_parser() -> argparse.ArgumentParser:
    """All options, each with its default and unit."""
    parser = _Parser(prog="reference_endpoint.py", allow_abbrev=False, description=__doc__,
                     formatter_class=_Help)
    add = parser.add_argument
    add("--port", type=_between(int, 0, 65535), default=0, metavar="N",
        help="port on 127.0.0.1 (default: 0, a free one)")
    add("--models", type=_model_rates, metavar="NAME[:TOKENS_PER_S],...",
        default={model.name: None for model in MODELS},
        help="served names, each with an optional speed (default: "
        + ", ".join(f"{model.name}:{model.tokens_per_s:g}" for model in MODELS) + ")")
    add("--slots", type=_between(int, 1, CONNECTIONS), default=SLOTS, metavar="N",
        help=f"requests answered at once; others wait (default: {SLOTS})")
    add("--context", type=_between(int, 16, 10 ** 7), default=CONTEXT_TOKENS, metavar="TOKENS",
        help=f"tokens of prompt and answer of one request (default: {CONTEXT_TOKENS})")
    add("--prefill-tokens-per-s", type=_rate, metavar="X",
        help="speed of reading a prompt before the first token (default: each model's own)")
    add("--first-token-ms", type=_between(float, 0, 6e5), default=FIRST_TOKEN_MS, metavar="X",
        help="time before the first token, added to the time for the prompt "
        f"(default: {FIRST_TOKEN_MS:g})")
    add("--context-ns", type=_between(float, 0, 1e9), default=0.0, metavar="X",
        help="time that each token of the prompt adds to every gap between tokens (default: 0)")
    add("--cache", action="store_true", help="leading messages of a prompt that were seen before "
        'take no time, unless the request sets "cache_prompt": false')
    add("--keep", action="store_true", help="keep running when standard input ends")
    return parser


def _exit_with_stdin() -> None:
    """Exit when standard input ends; until then the thread sleeps in the system. It has a thread of
    its own, since select cannot wait for a pipe on Windows."""
    begun_ns = clock_ns()
    with contextlib.suppress(OSError):              # no standard input at all
        while os.read(0, 4096):
            pass
    if clock_ns() - begun_ns < EARLY_NS:
        print("reference_endpoint.py: exiting because standard input ended; use --keep to keep "
              "running", file=sys.stderr, flush=True)
    os._exit(0)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Serve until asked to end; return the exit code."""
    settings = build_parser().parse_args(argv)
    usual = {model.name: model for model in MODELS}
    named = [(name, rate, usual.get(name, MODELS[0])) for name, rate in settings.models.items()]
    settings.models = [Model(name, rate or model.tokens_per_s,
                             settings.prefill_tokens_per_s or model.prefill_tokens_per_s)
                       for name, rate, model in named]
    try:
        endpoint = Endpoint(settings)
    except OSError as error:
        print(f"reference_endpoint.py: port {settings.port} is not available ("
              f"{os.strerror(error.errno or 0)}); "
              "use --port 0 for a free one", file=sys.stderr)
        return 3
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    print(json.dumps({"port": endpoint.port, "pid": os.getpid(), "clock": "perf_counter_ns",
                      "models": [model.name for model in settings.models]}), flush=True)
    if not settings.keep:
        threading.Thread(target=_exit_with_stdin, daemon=True).start()
    # Remove what would delay a send now and then: collections of what exists, and timer slack.
    gc.collect()
    gc.freeze()
    with contextlib.suppress(OSError), open(TIMER_SLACK_FILE, "w", encoding="ascii") as file:
        file.write("1")
    endpoint.serve()


if __name__ == "__main__":
    sys.exit(main())
