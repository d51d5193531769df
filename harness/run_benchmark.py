#!/usr/bin/env python3
"""Benchmark a language model behind any OpenAI-compatible endpoint, with nothing but Python.

  python3 harness/run_benchmark.py --rehearse             try everything on the embedded endpoint
  python3 harness/run_benchmark.py --probe                what serves here, one hello, nothing written
  python3 harness/run_benchmark.py --models qwen2.5:7b    hello, 5q and 20q on the usual Ollama port
  python3 harness/run_benchmark.py --target-url http://127.0.0.1:8080 --phases all --detach

A run streams submissions/<handle>/<device-tag>/run-<uuid>/run.jsonl (evidence, one line a call, on
disk before the next call) and manifest.json (what was asked of what). Killed at any moment, it goes
on at the next call with --run-id. Every number is computed later, by metrics.py, from the ledger.

Timed is what a client sees: from the moment the request is handed to the socket until each chunk
arrives. Not timed: connecting (told apart as connect_us), reading suites, parsing, writing.

exit codes: 0 all planned calls have an answer; 1 finished, some calls failed; 2 usage; 3 endpoint;
4 storage; 5 (--wait) still running; 130/143 interrupted.
"""
from __future__ import annotations

import argparse
import array
import base64
import difflib
import functools
import gc
import hashlib
import http.client
import io
import json
import os
import platform
import queue
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from typing import Any, Callable, Iterator, NamedTuple, Optional, Sequence

if sys.version_info < (3, 9):
    sys.exit("run_benchmark needs Python 3.9 or newer; this is " + sys.version.split()[0])

import answer_checks
import engines
import hardware
import ledger as ledgers
import metrics
import phases
import privacy
import report
import wire

# --- version and knobs -----------------------------------------------------------------------------
HARNESS_VERSION = "public-1"
SCHEMA_VERSION = "1"
CANONICAL_OPTIONS = {"temperature": 0.1, "num_ctx": 4096, "num_predict": 2048}
DEFAULT_URL = "http://127.0.0.1:11434"
DEFAULT_TIMEOUT_S = 360.0
DEFAULT_LANES = 4
HERE = os.path.dirname(os.path.abspath(__file__))
DEFAULT_OUT = os.path.join(os.path.dirname(HERE), "submissions")

READ_BYTES = 16 * 1024            # 256 KiB a read costs more than parsing; 16 KiB halves the CPU
BLOCK_BYTES = 64 * 1024           # raw bytes kept until they are parsed on the side: memory stays flat
BODY_CAP_BYTES = 64 * 1024 * 1024
READS_CAP = 4_000_000             # a body in one-byte reads must not fill memory with stamps either
WAIT_TICK_S = 0.5                 # how often a silent read looks at its deadline
DONE_GRACE_S = 0.25               # how long a stream may stay open after its [DONE]
ASK_TIMEOUT_S = 5.0               # for each question about the server itself
RETRY_STATUSES = (429, 503)
RETRY_PAUSE_S = 1.0               # where the server names no Retry-After
VANISHED_AFTER = 3                # calls in a row that found no server
CLOCK_STEP_NS = 1_000_000         # a wall clock that moved by more makes kernel stamps useless
HEARTBEAT_S = 0.1                 # notices a suspended machine
HEARTBEAT_FINE_S = 0.01           # measures the reader's lag where the kernel gives no stamps
SAMPLE_EVERY_S = 5.0              # host gauges
CALIBRATION_CHUNKS = 700
SATURATION_CHUNKS = 60_000
SO_TIMESTAMPNS = 35               # Linux (asm-generic); the socket module does not name it
TIMESPEC = struct.Struct("ll")


class Stop(Exception):
    """Ends the program with one line on stderr and an exit code."""

    exit_code = 2


class EndpointError(Stop):
    """The endpoint cannot be used (any more)."""

    exit_code = 3


class StorageError(Stop):
    """A file cannot be written (any more)."""

    exit_code = 4


class CallCut(Exception):
    """A call was ended by us: kind is timeout, body_too_large or client_stopped."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Ended(Exception):
    """The stream said [DONE] and then stayed open: read no further."""


# --- one read: stamped before anything looks at it -------------------------------------------------
class Gate:
    """The sockets in flight, so that an interrupt can drop them all from another thread."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()

    def enter(self, sock: socket.socket) -> None:
        with self._lock:
            self._sockets.add(sock)
        if self.stopping.is_set():
            self.drop_all()

    def leave(self, sock: socket.socket) -> None:
        with self._lock:
            self._sockets.discard(sock)

    def drop_all(self) -> None:
        self.stopping.set()
        with self._lock:
            for sock in self._sockets:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass


class Exchange:
    """One request and its response: its deadline, its marks, every byte read and when.

    Nanoseconds on time.perf_counter_ns; `kernel_ns` holds the kernel's own receive time (on its
    real-time clock, 0 where there is none), `ends` the bytes received up to and with each read.
    """

    def __init__(self, gate: Gate, timeout_s: float, addresses: dict[tuple[str, int], list[Any]]) -> None:
        self.gate, self.addresses = gate, addresses
        self.deadline_ns = time.perf_counter_ns() + int(timeout_s * 1e9)
        self.sock: Any = None
        self.kernel = self.kernel_wait = False
        self.hold: Any = None
        self.connect_us: Optional[int] = None
        self.started_ns = self.sent_ns = self.quiet_ns = 0
        self.header_reads = 0
        self.raw, self.cursor, self.total = bytearray(), 0, 0
        self.last = b""
        self.ends, self.user_ns, self.kernel_ns = (array.array("q") for _ in range(3))
        self.digest: Any = None
        self._buffer = memoryview(bytearray(READ_BYTES))

    def left_s(self) -> float:
        left = (self.deadline_ns - time.perf_counter_ns()) / 1e9
        if self.gate.stopping.is_set():
            raise CallCut("client_stopped", "the run was stopped")
        if left <= 0:
            raise CallCut("timeout", "the call's time was up")
        return left

    def open(self, address: tuple[str, int], *_: Any) -> socket.socket:
        """Connect inside the deadline; stands in for socket.create_connection."""
        error = OSError("no address")
        for family, kind, protocol, _, place in self._resolve(address):
            sock = socket.socket(family, kind, protocol)
            try:
                sock.settimeout(self.left_s())
                sock.connect(place)
            except OSError as failed:
                sock.close()
                error = failed
                continue
            return sock
        raise error

    def _resolve(self, address: tuple[str, int]) -> list[Any]:
        """Addresses of a host, looked up once a run; a look-up that hangs does not outlive the call."""
        if address not in self.addresses:
            box: queue.SimpleQueue[Any] = queue.SimpleQueue()

            def look_up() -> None:
                try:
                    box.put(socket.getaddrinfo(*address, 0, socket.SOCK_STREAM))
                except (OSError, UnicodeError) as error:
                    box.put(OSError(f"the host name cannot be resolved ({type(error).__name__})"))

            threading.Thread(target=look_up, daemon=True).start()
            try:
                found = box.get(timeout=self.left_s())
            except queue.Empty:
                raise CallCut("timeout", "looking up the host name took too long") from None
            if isinstance(found, OSError):
                raise found
            self.addresses[address] = found
        return self.addresses[address]

    def hand_over(self, sock: Any, request: bytes) -> None:
        """Send the whole request in one piece; its first byte's moment is the zero of all marks."""
        self.sock = sock
        self.gate.enter(sock)
        sock.settimeout(self.left_s())
        plain = type(sock) is socket.socket
        if plain and sys.platform == "linux":
            try:
                sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
                self.kernel = True
            except OSError:
                pass
        self.started_ns = time.perf_counter_ns()
        sock.sendall(request)
        self.sent_ns = time.perf_counter_ns()
        # A kernel time-out spares the poll() before every read that a Python time-out costs.
        self.kernel_wait = plain and os.name == "posix"
        if self.kernel_wait:
            sock.settimeout(None)
        self._arm(WAIT_TICK_S)

    def _arm(self, wait_s: float) -> None:
        if self.kernel_wait:
            value = struct.pack("ll", int(wait_s), int(wait_s % 1 * 1e6) or 1)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        else:
            self.sock.settimeout(max(wait_s, 0.001))

    def _waited(self) -> None:
        left_s = self.left_s()
        if self.quiet_ns and time.perf_counter_ns() > self.quiet_ns:
            raise Ended
        self._arm(min(left_s, DONE_GRACE_S if self.quiet_ns else WAIT_TICK_S))

    def receive(self) -> bool:
        """One read; False at the end of the connection. Nothing is parsed here."""
        ancillary: Any = ()
        while True:
            try:
                if self.kernel:
                    count, ancillary, _, _ = self.sock.recvmsg_into([self._buffer], 64)
                else:
                    count = self.sock.recv_into(self._buffer)
                break
            except (BlockingIOError, InterruptedError, socket.timeout):
                self._waited()
        now_ns = time.perf_counter_ns()
        if not count:
            return False
        stamp_ns = 0
        if ancillary:
            seconds, nanoseconds = TIMESPEC.unpack(ancillary[0][2][:TIMESPEC.size])
            stamp_ns = seconds * 1_000_000_000 + nanoseconds
        if self.digest is not None and len(self.raw) > BLOCK_BYTES:
            self.digest.pass_on(self)
        self.total += count
        self.user_ns.append(now_ns)
        self.kernel_ns.append(stamp_ns)
        self.ends.append(self.total)
        data = self._buffer[:count]
        self.raw += data
        self.last = bytes(data[-24:]) if count >= 24 else (self.last + data)[-24:]
        if now_ns > self.deadline_ns:
            raise CallCut("timeout", "the call's time was up")
        if self.total > BODY_CAP_BYTES or len(self.ends) > READS_CAP:
            raise CallCut("body_too_large", f"the body passed {BODY_CAP_BYTES >> 20} MiB")
        return True

    def readline(self, limit: int = -1) -> bytes:
        """A header line, for http.client."""
        while True:
            end = self.raw.find(b"\n", self.cursor) + 1
            if not end and limit >= 0 and len(self.raw) - self.cursor >= limit:
                end = self.cursor + limit
            if end or not self.receive():
                line = bytes(self.raw[self.cursor:end or len(self.raw)])
                self.cursor += len(line)
                return line

    def read_body(self, framing: str, length_bytes: int) -> None:
        """Read until the framing, a [DONE] that nothing follows, or the connection ends."""
        body_start = self.cursor
        while True:
            got = self.total - body_start
            if framing == "length" and got >= length_bytes:
                return
            if framing == "chunked" and (self.last.endswith(b"\r\n0\r\n\r\n") or
                                         got == 5 and self.last.endswith(b"0\r\n\r\n")):
                return
            if self.last.rstrip().endswith(b"[DONE]") and got and not self.quiet_ns:
                self.quiet_ns = time.perf_counter_ns() + int(DONE_GRACE_S * 1e9)
                self._arm(DONE_GRACE_S)
            try:
                if not self.receive():
                    return
            except Ended:
                return

    def flush(self) -> None:
        """Part of what http.client asks of a file."""

    def close(self) -> None:
        for file in (self.hold, self.sock):
            if file is not None:
                file.close()
        if self.sock is not None:
            self.gate.leave(self.sock)


class StampedResponse(http.client.HTTPResponse):
    """http.client's response, its bytes taken from an Exchange instead of a buffered file."""

    def __init__(self, sock: Any, exchange: Exchange, method: Optional[str] = None) -> None:
        super().__init__(sock, method=method)
        if exchange.started_ns:           # before that it is a proxy's answer to CONNECT
            exchange.hold = self.fp       # never read; it keeps the socket open after urllib lets go
            self.fp = exchange            # type: ignore[assignment]


class StampedConnection(http.client.HTTPConnection):
    """Connects first, then sends head and body in one piece, and hands the socket to the exchange."""

    def __init__(self, host: str, exchange: Exchange, **options: Any) -> None:
        super().__init__(host, **options)
        self._create_connection = exchange.open
        self._exchange, self._held = exchange, bytearray()
        self._holding = False
        self.response_class = functools.partial(StampedResponse, exchange=exchange)  # type: ignore

    def request(self, *args: Any, **options: Any) -> None:
        self._holding = True
        super().request(*args, **options)
        self._holding = False

    def send(self, data: Any) -> None:
        if self._holding:
            self._held += data
        else:                      # a proxy's CONNECT, which http.client sends while it connects
            super().send(data)

    def getresponse(self) -> http.client.HTTPResponse:
        begun_ns = time.perf_counter_ns()
        self.connect()
        self._exchange.connect_us = (time.perf_counter_ns() - begun_ns) // 1000
        self._exchange.hand_over(self.sock, bytes(self._held))
        return super().getresponse()


class StampedTLSConnection(StampedConnection, http.client.HTTPSConnection):
    """The same over TLS; stamped in user space, since a TLS socket has no recvmsg."""


class PlainHandler(urllib.request.HTTPHandler):
    """urllib's handler for http; the exchange rides on the request."""

    def http_open(self, request: Any) -> Any:
        return self.do_open(StampedConnection, request, exchange=request.exchange)


class TLSHandler(urllib.request.HTTPSHandler):
    """urllib's handler for https."""

    def https_open(self, request: Any) -> Any:
        return self.do_open(StampedTLSConnection, request, exchange=request.exchange,
                            context=self._context)   # type: ignore[attr-defined]


# --- one call --------------------------------------------------------------------------------------
class Target(NamedTuple):
    """Where the endpoint is; never published but for class, scheme, port and path."""

    base: str
    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, text: str) -> Target:
        """A base URL with or without `/v1` or a trailing slash; raises Stop."""
        parts = urllib.parse.urlsplit(text if "://" in text else "http://" + text)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if parts.scheme not in ("http", "https") or not host:
            raise Stop(f"--target-url {report.printable(text)}: not an http or https URL; "
                       f"type something like {DEFAULT_URL}")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise Stop("--target-url: leave out user, password, query and fragment; a key goes into "
                       "an environment variable named by --api-key-env")
        path = parts.path.rstrip("/")
        path = path[:-3] if path.endswith("/v1") else path
        port = port or (443 if parts.scheme == "https" else 80)
        name = f"[{host}]" if ":" in host else host
        return cls(f"{parts.scheme}://{name}:{port}{path}", parts.scheme, host, port, path)


class Reply(NamedTuple):
    """What came back: failure is (kind, message) where the exchange itself failed."""

    status: Optional[int]
    headers: dict[str, str]
    head: bytes
    stream: wire.StreamParser
    failure: Optional[tuple[str, str]]
    exchange: Exchange

    def json(self) -> Any:
        try:
            return json.loads(self.head)
        except (ValueError, RecursionError):
            return None


class Side(threading.Thread):
    """Parses on the side what long streams have brought so far, in slices that let lanes read."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def run(self) -> None:
        while True:
            self.work.get()()


class Digest:
    """Raw bytes of one body on their way to `sink(payload, read)`; keeps the first `keep` bytes."""

    def __init__(self, exchange: Exchange, framing: str, length_bytes: int, side: Side,
                 sink: Callable[[bytes, int], None], keep: int) -> None:
        self.body, self.sink, self.keep, self.side = wire.Body(framing, length_bytes), sink, keep, side
        self.at, self.base, self.head = exchange.cursor, 0, bytearray()
        self.next_read = len(exchange.ends) - (exchange.cursor < exchange.total)

    def pass_on(self, exchange: Exchange) -> None:
        """Called by the lane: what it has read so far is parsed by the side thread."""
        block, base = bytes(exchange.raw), self.base
        first, ends = self.next_read, exchange.ends[self.next_read:]
        exchange.raw, self.base, self.next_read = bytearray(), base + len(block), first + len(ends)
        self.side.work.put(lambda: self._take(block, base, first, ends, 32))

    def finish(self, exchange: Exchange) -> None:
        """Called by the lane after the stream has ended: everything is parsed when this returns."""
        if self.base:
            done = threading.Event()
            self.side.work.put(done.set)
            done.wait()
        self._take(exchange.raw, self.base, self.next_read, exchange.ends[self.next_read:], 0)

    def _take(self, block: Any, base: int, first: int, ends: Any, slice_reads: int) -> None:
        for read, end in enumerate(ends, first):
            payload = self.body.feed(bytes(block[self.at - base:end - base]))
            self.at = end
            if len(self.head) < self.keep:
                self.head += payload[:self.keep - len(self.head)]
            self.sink(payload, read)
            if slice_reads and not read % slice_reads:
                time.sleep(0)          # gives the interpreter lock to a lane that waits with data


class Client:
    """Speaks HTTP to one endpoint with urllib; a key goes to this origin and nowhere else."""

    def __init__(self, target: Target, api_key: Optional[str] = None, gate: Optional[Gate] = None) -> None:
        self.target, self.gate = target, gate or Gate()
        self.side = Side()
        self.side.start()
        self.addresses: dict[tuple[str, int], list[Any]] = {}
        self.headers = {"Content-Type": "application/json", "Accept": "*/*",
                        "User-Agent": f"run_benchmark/{HARNESS_VERSION}"}
        if api_key:
            self.headers["Authorization"] = "Bearer " + api_key
        self.opener = urllib.request.OpenerDirector()
        for handler in [TLSHandler() if target.scheme == "https" else PlainHandler()] + (
                [] if privacy.target_class(target.host) == "loopback" else [urllib.request.ProxyHandler()]):
            self.opener.add_handler(handler)

    def send(self, method: str, path: str, body: Optional[dict[str, Any]], timeout_s: float,
             sink: Optional[Callable[[bytes, int], None]] = None) -> Reply:
        """One exchange; 307/308 to the same origin are sent again with the body, others refused."""
        data = None if body is None else json.dumps(body).encode("ascii")
        url, until_ns = self.target.base + path, time.perf_counter_ns() + int(timeout_s * 1e9)
        for _ in range(4):
            left_s = (until_ns - time.perf_counter_ns()) / 1e9
            reply = self._once(method, url, data, left_s, sink)
            if reply.status not in (301, 302, 303, 307, 308):
                return reply
            place = urllib.parse.urljoin(url, reply.headers.get("location", ""))
            if reply.status < 307 or _origin(place) != _origin(url):
                break
            url = place
        return reply._replace(failure=("bad_redirect", f"the server redirects (HTTP {reply.status}) to "
                                       "another place or method; name the final URL in --target-url"))

    def _once(self, method: str, url: str, data: Optional[bytes], timeout_s: float,
              sink: Optional[Callable[[bytes, int], None]]) -> Reply:
        exchange = Exchange(self.gate, timeout_s, self.addresses)
        request: Any = urllib.request.Request(url, data=data, method=method, headers=self.headers)
        request.exchange = exchange
        status, headers, failure, digest = None, {}, None, None
        stream = wire.StreamParser()
        try:
            response = self.opener.open(request, timeout=timeout_s)
            status, headers = response.status, {k.lower(): v for k, v in response.headers.items()}
            exchange.header_reads = len(exchange.ends)
            framing = ("chunked" if response.chunked else
                       "close" if response.length is None else "length")
            digest = exchange.digest = Digest(exchange, framing, response.length or 0, self.side,
                                              sink or stream.feed, BODY_CAP_BYTES if data is None else 4096)
            exchange.read_body(framing, response.length or 0)
        except CallCut as cut:
            failure = (cut.kind, str(cut))
        except (OSError, http.client.HTTPException, ValueError) as error:
            failure = _failure(error, exchange)
        finally:
            exchange.close()
        if digest:
            digest.finish(exchange)
        return Reply(status, headers, bytes(digest.head if digest else b""),
                     stream.close(max(len(exchange.ends) - 1, 0)), failure, exchange)


def _origin(url: str) -> tuple[str, Optional[str], Optional[int]]:
    parts = urllib.parse.urlsplit(url)
    try:
        return parts.scheme, parts.hostname, parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "", None, None


def _failure(error: Exception, exchange: Exchange) -> tuple[str, str]:
    """(kind, message) of what went wrong below HTTP; the message names no address."""
    reason = getattr(error, "reason", error)
    text = getattr(reason, "strerror", None) or type(reason).__name__
    if exchange.gate.stopping.is_set():
        return "client_stopped", "the run was stopped"
    if isinstance(reason, socket.timeout):
        return "timeout", "the call's time was up"
    if not exchange.started_ns:
        return "connect_failed", f"no connection: {text}"
    if isinstance(reason, OSError):
        return "connection_lost", f"the connection broke: {text}"
    return "bad_response", f"not HTTP as anybody knows it: {text}"


def wall_offset_ns() -> int:
    """Wall clock minus monotonic clock, by the narrowest of five readings."""
    readings = []
    for _ in range(5):
        before, wall, after = time.perf_counter_ns(), time.time_ns(), time.perf_counter_ns()
        readings.append((after - before, wall - (before + after) // 2))
    return min(readings)[1]


class Stamps(NamedTuple):
    """When each read arrived, µs since the request was handed over, by the better of two clocks."""

    us: list[int]
    kind: str
    lag_us: list[int]
    step_us: int


def stamps_of(exchange: Exchange, offset_before_ns: int, offset_after_ns: int) -> Stamps:
    """The kernel's stamps where every read has one and the wall clock did not step, else ours."""
    step_ns, begun = offset_after_ns - offset_before_ns, exchange.started_ns
    lag_ns = [user - (kernel - offset_before_ns) for user, kernel in
              zip(exchange.user_ns, exchange.kernel_ns)]
    kernel = (exchange.kernel and all(exchange.kernel_ns) and abs(step_ns) < CLOCK_STEP_NS
              and all(-CLOCK_STEP_NS < lag for lag in lag_ns))
    us, latest = [], 0
    for user, lag in zip(exchange.user_ns, lag_ns):
        latest = max(latest, (user - (max(lag, 0) if kernel else 0) - begun) // 1000)
        us.append(latest)
    body = [max(lag, 0) // 1000 for lag in lag_ns[max(exchange.header_reads - 1, 0):]]
    return Stamps(us, "kernel" if kernel else "user", body if kernel else [],
                  step_ns // 1000 if abs(step_ns) >= CLOCK_STEP_NS else 0)


def timing_of(reply: Reply, stamps: Stamps, zero_ns: int) -> Optional[dict[str, Any]]:
    """The `timing` of a ledger line; None where no request left."""
    exchange, first_body = reply.exchange, reply.exchange.header_reads
    if not exchange.started_ns:
        return None
    us = stamps.us
    body_us = us[first_body - 1:] if first_body and len(us) >= first_body else []
    if first_body and exchange.cursor == exchange.ends[first_body - 1]:
        body_us = body_us[1:]
    return {"started_us": (exchange.started_ns - zero_ns) // 1000, "connect_us": exchange.connect_us,
            "sent_us": max(exchange.sent_ns - exchange.started_ns, 0) // 1000,
            "headers_us": us[first_body - 1] if first_body else None,
            "first_chunk_us": body_us[0] if body_us else None,
            "done_us": us[-1] if us else None,
            **wire.timing_of(reply.stream, us), "bytes_received": exchange.total,
            "stamp": stamps.kind, "read_lag_us": wire.spread(stamps.lag_us),
            "clock_step_us": stamps.step_us}


def outcome_of(reply: Reply) -> tuple[str, Optional[dict[str, Any]]]:
    """("ok", None) or an error kind with what is told about it."""
    body = reply.head.decode("utf-8", "replace")
    stream = reply.stream

    def error(kind: str, message: str) -> tuple[str, dict[str, Any]]:
        return kind, {"kind": kind, "message": privacy.redact(message)[:300], "status": reply.status,
                      "body_start": privacy.redact(body[:500]) or None}

    if reply.failure and not (reply.failure[0] == "connection_lost" and stream.finish_reason):
        return error(*reply.failure)
    if reply.status != 200:
        return error(engines.error_kind(reply.status, body), engines.error_message(body))
    if stream.error is not None or stream.finish_reason == "error":
        text = json.dumps({"error": wire.plain(stream.error)})
        kind = engines.error_kind(200, text)
        return error(kind if kind == "context_limit" else "stream_error", engines.error_message(text))
    if not stream.events:
        return error("no_events", "the server answered 200 and sent no event")
    if not stream.finish_reason:
        return error("interrupted_answer", "the stream ended without a finish_reason")
    return "ok", None


def reasoning_of(stream: wire.StreamParser) -> dict[str, Any]:
    """How the model's thinking reached us: streamed apart, inline, hidden, or none."""
    inline = stream.mark_inline_reasoning()
    chunks = stream.kinds.count("r")
    details = (stream.usage or {}).get("completion_tokens_details")
    hidden = details.get("reasoning_tokens") if isinstance(details, dict) else None
    mode = ("inline" if inline else "streamed" if chunks else
            "hidden" if isinstance(hidden, int) and hidden > 0 else "none")
    return {"mode": mode, "chunks": chunks, "characters": len(stream.text_of("r"))}


class Heartbeat(threading.Thread):
    """Sleeps and looks at the clock: oversleeping is a suspended or starved machine."""

    def __init__(self, period_s: float) -> None:
        super().__init__(daemon=True)
        self.period_s, self.beats = period_s, array.array("q")       # pairs: when ns, overshoot µs
        self.ended = threading.Event()

    def run(self) -> None:
        last_ns = time.perf_counter_ns()
        while not self.ended.wait(self.period_s):
            now_ns = time.perf_counter_ns()
            overshoot_us = (now_ns - last_ns) // 1000 - int(self.period_s * 1e6)
            if overshoot_us > 50_000 or self.period_s < HEARTBEAT_S:
                self.beats.extend((now_ns, max(overshoot_us, 0)))
            last_ns = now_ns

    def between(self, from_ns: int, to_ns: int) -> list[int]:
        """Overshoots in µs of the beats in a window."""
        out = []
        for i in range(len(self.beats) - 2, -1, -2):
            if self.beats[i] < from_ns:
                break
            if self.beats[i] - self.beats[i + 1] * 1000 <= to_ns:
                out.append(self.beats[i + 1])
        return out


# --- the ledger, written ---------------------------------------------------------------------------
def flush_to_disk(fd: int) -> None:
    """The system's strongest flush."""
    if sys.platform == "darwin":
        import fcntl
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def lock_file(fd: int) -> bool:
    """Take the system's own lock, which dies with its process; False where another holds it."""
    try:
        if os.name == "nt":
            import msvcrt
            os.lseek(fd, 1 << 40, os.SEEK_SET)        # a byte that no ledger reaches
            msvcrt.locking(fd, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


class Ledger:
    """run.jsonl: append-only, one write a line, on disk before `write` returns."""

    def __init__(self, path: str, run_id: str) -> None:
        self.path, self.run_id = path, run_id
        self.seq = self.segment = 0
        self.zero_ns = time.perf_counter_ns()
        self.sha256, self.size = hashlib.sha256(), 0
        self._lock = threading.Lock()
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        except OSError as error:
            raise StorageError(f"{path} cannot be opened ({error.strerror}); name another --out-dir") from None
        if not lock_file(self._fd):
            raise Stop(f"run {run_id} is being written by another process; follow it with "
                       f"--wait 300 {run_id}")

    def now_us(self) -> int:
        return (time.perf_counter_ns() - self.zero_ns) // 1000

    def write(self, event: str, **fields: Any) -> None:
        """Append one event; raises StorageError and leaves a ledger that reads."""
        with self._lock:
            line = ledgers.dump_line(ledgers.event_line(
                event, seq=self.seq, run_id=self.run_id, segment=self.segment, at=report.utc_now(),
                t_us=self.now_us(), **fields))
            self._append(line)
            self.seq += 1
        try:
            flush_to_disk(self._fd)
        except OSError as error:
            raise self._full(error) from None

    def _append(self, line: bytes) -> None:
        try:
            written = os.write(self._fd, line)
            if written < len(line):
                raise OSError(28, "No space left on device")
        except OSError as error:
            os.ftruncate(self._fd, self.size)
            raise self._full(error) from None
        self.size += len(line)
        self.sha256.update(line)

    def _full(self, error: OSError) -> StorageError:
        return StorageError(f"{self.path} cannot be written ({error.strerror}); the ledger is whole up to "
                            "here. Make room, then resume with the same command and "
                            f"--run-id {self.run_id}")

    def take_up(self) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """What an earlier process left: its events, and the fields of `run_resumed`.

        A torn last line is first saved beside, then cut off; the caller records it and then calls
        `forget_torn`, so that it is never lost.
        """
        state = ledgers.read_ledger(self.path)
        os.lseek(self._fd, 0, os.SEEK_SET)
        if state.torn:
            with open(self.path + ".torn", "wb") as file:
                file.write(state.torn)
                file.flush()
                flush_to_disk(file.fileno())
            os.ftruncate(self._fd, state.whole_bytes)
        elif state.newline_missing:
            os.write(self._fd, b"\n")
        with open(self.path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                self.sha256.update(block)
                self.size += len(block)
        saved = state.torn or self._saved_torn()
        if state.events:
            self.seq = state.events[-1]["seq"] + 1
            self.segment = state.events[-1]["segment"] + 1
        return state.events, {"torn_bytes": len(saved), "newline_added": state.newline_missing,
                              "torn_base64": base64.b64encode(saved).decode() if saved else None}

    def _saved_torn(self) -> bytes:
        try:
            with open(self.path + ".torn", "rb") as file:
                return file.read()
        except OSError:
            return b""

    def forget_torn(self) -> None:
        """The torn line stands in `run_resumed` now."""
        if os.path.exists(self.path + ".torn"):
            os.unlink(self.path + ".torn")

    def finish(self, counts: dict[str, int], exit_code: int) -> None:
        self.write("run_finished", counts=counts, wall_us=self.now_us(), exit_code=exit_code,
                   lines=self.seq, sha256=self.sha256.hexdigest())


# --- a run -----------------------------------------------------------------------------------------
class Run:
    """Phases and lanes over one endpoint into one ledger.

    `served` maps published model ids to those the server knows; what a call needs of earlier calls
    is kept small (`seen`), since the evidence itself is on disk.
    """

    def __init__(self, args: argparse.Namespace, client: Client, manifest: dict[str, Any],
                 suites: dict[str, tuple[phases.Question, ...]], served: dict[str, str],
                 ledger: Ledger, progress: report.Progress) -> None:
        self.args, self.client, self.manifest, self.suites = args, client, manifest, suites
        self.served, self.ledger, self.progress = served, ledger, progress
        self.engine = manifest["engine"]["name"]
        self.policy = manifest["prompt_cache"]["policy"]
        self.outcomes: dict[str, str] = {}
        self.finished: set[tuple[Optional[str], str]] = set()
        self.seen: dict[str, list[tuple[str, int, int]]] = {m: [] for m in served}
        self.longest: dict[str, tuple[int, int, phases.Cell]] = {}
        self.turns: dict[tuple[str, int], list[tuple[str, str]]] = {}
        self.dropped: dict[str, set[str]] = {m: set() for m in served}
        self.effective_tokens: dict[str, Optional[int]] = {}
        self.heartbeat: Optional[Heartbeat] = None
        self.in_flight: dict[int, str] = {}
        self.misses = 0
        self.fatal: Optional[Exception] = None

    def recall(self, events: Sequence[dict[str, Any]]) -> None:
        """Take up what an earlier process recorded."""
        for event in events:
            if event["event"] == "call_finished":
                self._note(phases.Cell(*(event[k] for k in phases.Cell._fields)), event)
            elif event["event"] == "phase_finished":
                self.finished.add((event["model"], event["phase"]))

    def _note(self, cell: phases.Cell, event: dict[str, Any]) -> None:
        self.outcomes[cell.cell_id] = event["outcome"]
        if event["outcome"] != "ok":
            return
        usage, kind = event["response"]["usage"] or {}, phases.PHASES[cell.phase].kind
        chars, tokens = event["request"]["messages_chars"], usage.get("prompt_tokens")
        if isinstance(tokens, int) and not isinstance(tokens, bool):
            self.seen[cell.model].append((cell.phase, chars, tokens))
        if kind == "append":
            self.turns.setdefault((cell.model, cell.repeat), []).append(
                (event["request"]["prompt"], answer_checks.strip_reasoning(event["response"]["text"])))
        elif event["timing"]["first_token_us"] and chars > self.longest.get(cell.model, (0,))[0]:
            self.longest[cell.model] = (chars, event["timing"]["first_token_us"], cell)

    # -- phases
    def run_all(self) -> None:
        """Every phase of every model, then the mixed phase, then nothing is left."""
        names = [p["phase"] for p in self.manifest["plan"]["phases"]]
        for model in self.served:
            own = [n for n in names if phases.PHASES[n].kind != "mixed"]
            if all(self._done(c) for n in own for c in self._cells(n, [model])):
                continue
            hello = self._cells("hello", [model])[0]
            self._call(hello._replace(repeat=self.ledger.segment, cell_id=phases.cell_id_of(
                self.manifest["cell_id_prefix"], model, "hello", "hello", self.ledger.segment)))
            self._phase_finished(model, "hello", self.ledger.now_us(), [hello])
            if not self.args.smoke:
                self.identify(model, again=True)
                self.progress.say(report.estimate_line(self._estimate(model, own)))
            for name in own[1:]:
                self._phase(name, [model])
            if not self.args.smoke:
                self._probe_cache(model)
        for name in names:
            if phases.PHASES[name].kind == "mixed":
                self._phase(name, list(self.served))

    def _cells(self, name: str, models: Sequence[str]) -> list[phases.Cell]:
        return phases.cells_of(self.manifest["plan"], name, models, self.manifest["cell_id_prefix"])

    def _done(self, cell: phases.Cell) -> bool:
        outcome = self.outcomes.get(cell.cell_id)
        return outcome == "ok" or outcome is not None and not self.args.retry_failed

    def _phase(self, name: str, models: Sequence[str]) -> None:
        kind = phases.PHASES[name].kind
        model = None if kind == "mixed" else models[0]
        reason = phases.skip_reason(name, models, self.manifest["plan"]["lanes"])
        if reason:
            if (model, name) not in self.finished:
                self.finished.add((model, name))
                self.ledger.write("phase_skipped", model=model, phase=name, reason=reason)
                self.progress.say(f"{name}: skipped; {reason}")
            return
        cells, begun_us = self._cells(name, models), self.ledger.now_us()
        todo = [c for c in cells if not self._done(c)]
        if todo or (model, name) not in self.finished:
            work = self._append if kind == "append" else self._ask_each
            self._on_lanes([[c for c in todo if c.lane == lane] for lane in
                            sorted({c.lane for c in todo})], work)
            self._phase_finished(model, name, begun_us, cells)

    def _on_lanes(self, lanes: list[list[phases.Cell]],
                  work: Callable[[list[phases.Cell]], None]) -> None:
        """A thread a lane; signals reach the main thread between its waits."""
        def guarded(cells: list[phases.Cell]) -> None:
            try:
                work(cells)
            except Exception as error:      # a lane's failure is the run's: told once, by the main thread
                self.fatal = self.fatal or error
                self.client.gate.drop_all()

        threads = [threading.Thread(target=guarded, args=(cells,), daemon=True) for cells in lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive():
                thread.join(0.2)
        if self.fatal:
            raise self.fatal

    def _ask_each(self, cells: list[phases.Cell]) -> None:
        for cell in cells:
            if self.client.gate.stopping.is_set():
                return
            self._call(cell)

    def _append(self, cells: list[phases.Cell]) -> None:
        """One conversation a repeat; what lies beyond the context's edge is recorded, not asked."""
        salt, edge = None, None
        for before, cell in zip([None, *cells], cells):
            if self.client.gate.stopping.is_set():
                return
            if before is None or before.repeat != cell.repeat:
                salt, edge = uuid.uuid4().hex[:16], None
            if edge:
                self._not_reached(cell, edge)
            elif self._call(cell, salt)["outcome"] == "context_limit":
                edge = cell.question_id

    def _not_reached(self, cell: phases.Cell, edge: str) -> None:
        message = f"not asked: the conversation met the context's edge at question {edge}"
        question = self._question(cell)
        self._record(cell, ledgers.unasked_call(cell, question.prompt, "context_limit", message))

    def _phase_finished(self, model: Optional[str], name: str, begun_us: int,
                        cells: list[phases.Cell]) -> None:
        if self.client.gate.stopping.is_set():
            return
        ok = sum(self.outcomes.get(c.cell_id) == "ok" for c in cells)
        if name == "hello":
            ok = 1 if self.last_hello == "ok" else 0
        self.finished.add((model, name))
        self.ledger.write("phase_finished", model=model, phase=name, planned=len(cells), ok=ok,
                          failed=len(cells) - ok, started_us=begun_us,
                          wall_us=self.ledger.now_us() - begun_us)

    # -- one call
    def _question(self, cell: phases.Cell) -> phases.Question:
        return next(q for q in self.suites[cell.phase] if q.id == cell.question_id)

    def _call(self, cell: phases.Cell, conversation_salt: Optional[str] = None) -> dict[str, Any]:
        question = self._question(cell)
        messages = phases.messages_of(cell.phase, question, self.suites[cell.phase],
                                      self.turns.get((cell.model, cell.repeat), ()))
        entry = next(p for p in self.manifest["plan"]["phases"] if p["phase"] == cell.phase)
        self.in_flight[cell.lane] = cell.cell_id
        reply, asked, fields = self.ask(cell.model, messages, entry["max_tokens"], conversation_salt)
        stream, outcome = reply.stream, wire_outcome(reply)
        fields["reasoning"] = reasoning_of(stream)
        timing = self._timing(reply, asked)
        response = None if reply.status is None else {
            "http_status": reply.status, "text": stream.text_of("a"), "reasoning_text": stream.text_of("r"),
            **{k: wire.plain(getattr(stream, k)) for k in (
                "finish_reason", "model", "system_fingerprint", "usage", "server_timings")}}
        checks = answer_checks.check_answer(stream.text_of("a"), question.required_markers,
                                            question.format_rule) if outcome[0] == "ok" else None
        tokens = (stream.usage or {}).get("prompt_tokens")
        found = all(m["found"] for m in checks["markers"]) if checks and checks["markers"] else None
        fields["truncated"] = phases.truncation(
            cell.phase, tokens, sum(len(m["content"]) for m in messages), self.seen[cell.model],
            self.effective_tokens.get(cell.model), found) if outcome[0] == "ok" else {
                "verdict": "unknown", "reason": "there is no answer"}
        fields["request"] = {"prompt": question.prompt, **phases.fingerprint(messages), **fields["request"]}
        return self._record(cell, {
            **fields, "cold": cell.phase == "hello", "response": response, "timing": timing,
            "checks": checks, "flags": self._flags(cell, reply), "outcome": outcome[0], "error": outcome[1]})
