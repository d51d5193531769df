#!/usr/bin/env python3
"""Benchmark a language model behind any OpenAI-compatible endpoint, with nothing but Python.

  python3 harness/run_benchmark.py --rehearse             try everything on the embedded endpoint
  python3 harness/run_benchmark.py --probe                what serves here, one hello, no file
  python3 harness/run_benchmark.py --models qwen2.5:7b    hello, 5q and 20q on Ollama's port
  python3 harness/run_benchmark.py --target-url http://127.0.0.1:8080 --phases all --detach

A run streams submissions/<handle>/<device-tag>/run-<uuid>/run.jsonl (evidence, one line a call, on
disk before the next call) and manifest.json (what was asked of what). Killed at any moment, it goes
on at the next call with --run-id. Every number is computed later, by metrics.py, from the ledger.

Timed is what a client sees: from the moment the request is handed to the socket until each chunk
arrives. Not timed: connecting (told apart as connect_us), reading suites, parsing, writing.

exit codes:
  0 all planned calls have an answer; 1 finished, some calls failed; 2 usage; 3 endpoint; 4 storage;
  5 (--wait) still running; 130/143 interrupted.
"""
import sys

if sys.version_info < (3, 9):      # above all code that an older Python cannot run
    sys.exit("run_benchmark needs Python 3.9 or newer; this is " + sys.version.split()[0])

import argparse
import array
import base64
import contextlib
import datetime
import functools
import gc
import hashlib
import http.client
import json
import os
import queue
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from typing import Any, Callable, Optional, cast

from core import answer_checks, files, names, plan, privacy, result_tables
from core import ledger as ledgers
from core.errors import EndpointError, HarnessError, Interrupted, StorageError
from core.records import CallFinished, Timing
from core.suites import PHASES, load_suites
from core.text import Parser, print_safe
from engines import answers, queries, server_errors
from machine import gauges
from run import calibration, cli, discover, display, sse, state
from run import reply as replys
from run.manifest import RunContext, inherit_options, require_same_run, require_valid_names
from run.timing import Arrivals, call_timing

# --- version and knobs ---------------------------------------------------------------------------
HARNESS_VERSION = "public-1"
CANONICAL_OPTIONS = {"temperature": 0.1, "num_ctx": 4096, "num_predict": 2048}
HERE = os.path.dirname(os.path.abspath(__file__))
DEFAULT_OUT = os.path.join(os.path.dirname(HERE), "submissions")

READ_BYTES = 16 * 1024            # 256 KiB a read costs more than parsing; 16 KiB halves the CPU
BODY_CAP_BYTES = 64 * 1024 * 1024
HEAD_BYTES = 4096                 # first bytes of a body, kept for messages
READS_CAP = 4_000_000             # a body in one-byte reads must not fill memory with stamps either
WAIT_TICK_S = 0.5                 # how often a silent read looks at its deadline
DONE_GRACE_S = 0.25               # how long a stream may stay open after its [DONE]
DROP_GRACE_S = 2.0                # how long dropped calls that hang may hold up the end of a run
DONE_ENDS = tuple(start + b"[DONE]" + blank for start in (b"\ndata: ", b"\ndata:") for blank in (
    b"", b"\n", b"\n\n", b"\r\n", b"\r\n\r\n", b"\n\r\n", b"\n\n\r\n", b"\r\n\r\n\r\n"))
SCAN_TIMEOUT_S = 1.0              # for each usual port
LOADING_PAUSE_S = 1.0             # between two looks at a server that is loading
VANISHED_AFTER = 3                # calls in a row that found no server
LOCK_PATIENCE_S = 1.0             # somebody may just be looking whether it is held
DETACH_LOOK_S = 20.0              # for the first line of a background run
SO_TIMESTAMPNS = 35               # Linux (asm-generic); the socket module does not name it
TIMESPEC = struct.Struct("ll")

Json = dict[str, Any]


class CallCut(Exception):
    """A call was ended by us: (kind, message); kind is timeout, body_too_large, client_stopped, or
    ended: the stream said [DONE] and then stayed open."""


# --- one read: stamped before anything looks at it -----------------------------------------------
class Gate:
    """The exchanges in flight, so that an interrupt can drop them all from another thread."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.finished_reads, self.patience_s = 0, float("inf")
        self._flying: set[Exchange] = set()
        self._lock = threading.RLock()       # a signal's handler may meet its own thread in here

    def enter(self, exchange: "Exchange") -> None:
        with self._lock:
            self._flying.add(exchange)
        if self.stopping.is_set():
            self.drop_all()

    def leave(self, exchange: "Exchange") -> None:
        with self._lock:
            if exchange in self._flying:
                self._flying.discard(exchange)
                self.finished_reads += len(exchange.ends)

    def drop_all(self) -> None:
        self.stopping.set()
        self.patience_s = min(self.patience_s, time.monotonic() + DROP_GRACE_S)
        with self._lock:
            for exchange in self._flying:
                with contextlib.suppress(OSError):
                    exchange.sock.shutdown(socket.SHUT_RDWR)

    def reads(self) -> int:
        """Reads so far, those in flight included: for the live display."""
        with self._lock:
            return self.finished_reads + sum(len(one.ends) for one in self._flying)


class Exchange:
    """One request and its response: its deadline, every byte read and when it arrived.

    raw: all bytes of the response; ends: where each read ended in it; user_ns: when the read
    returned (time.perf_counter_ns); kernel_ns: the kernel's receive time on its real-time clock, 0
    if it gave none. Parsed after the response has ended; BODY_CAP_BYTES and READS_CAP bound both.
    """

    def __init__(self, gate: Gate, timeout_s: float, addresses: dict[Any, list[Any]]) -> None:
        self.gate, self.addresses = gate, addresses
        self.deadline_ns = time.perf_counter_ns() + int(timeout_s * 1e9)
        self.sock: Any = None
        self.kernel = self.kernel_wait = False
        self.hold: Any = None
        self.connect_us: Optional[int] = None
        self.started_ns = self.sent_ns = self.quiet_ns = 0
        self.header_reads, self.body_in_header, self.cursor = 0, False, 0
        self.raw = bytearray()
        self.ends, self.user_ns, self.kernel_ns = (array.array("q") for _ in range(3))
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
            try:
                sock = self.sock = socket.socket(family, kind, protocol)
                sock.settimeout(self.left_s())
                self.gate.enter(self)
                sock.connect(place)
                return sock
            except OSError as failed:
                error = failed
                self.end()
        raise error

    def _resolve(self, address: tuple[str, int]) -> list[Any]:
        """A host's addresses, looked up once a run; a hanging look-up does not outlive the call."""
        if address not in self.addresses:
            box: queue.SimpleQueue[Any] = queue.SimpleQueue()

            def look_up() -> None:
                try:
                    box.put(socket.getaddrinfo(*address, 0, socket.SOCK_STREAM))
                except (OSError, UnicodeError):
                    box.put(OSError(0, "the host name cannot be resolved"))

            threading.Thread(target=look_up, daemon=True).start()
            found: Any = None
            while found is None:
                with contextlib.suppress(queue.Empty):
                    found = box.get(timeout=min(self.left_s(), WAIT_TICK_S))
            if isinstance(found, OSError):
                raise found
            self.addresses[address] = found
        return self.addresses[address]

    def hand_over(self, sock: Any, request: bytes) -> None:
        """Send the whole request in one piece; its first byte's moment is the zero of all marks."""
        self.sock = sock
        for record in (self.raw, self.ends, self.user_ns, self.kernel_ns):
            del record[:]                     # the answer to a proxy's CONNECT
        self.cursor = 0
        sock.settimeout(self.left_s())
        plain = type(sock) is socket.socket
        self.kernel = plain and ask_for_stamps(sock)
        self.started_ns = time.perf_counter_ns()
        sock.sendall(request)
        self.sent_ns = time.perf_counter_ns()
        # A kernel time-out spares the poll() before every read that a Python time-out costs.
        self.kernel_wait = plain and os.name == "posix"
        if self.kernel_wait:
            sock.settimeout(None)
        self._arm(min(self.left_s(), WAIT_TICK_S))

    def _arm(self, wait_s: float) -> None:
        if self.kernel_wait:
            value = struct.pack("ll", int(wait_s), int(wait_s % 1 * 1e6) or 1)
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
        else:
            self.sock.settimeout(max(wait_s, 0.001))

    def _waited(self) -> None:
        left_s = self.left_s()
        if self.quiet_ns and time.perf_counter_ns() > self.quiet_ns:
            raise CallCut("ended", "")
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
            seconds, nanoseconds = TIMESPEC.unpack_from(ancillary[0][2])
            stamp_ns = seconds * 1_000_000_000 + nanoseconds
        self.raw += self._buffer[:count]
        self.user_ns.append(now_ns)
        self.kernel_ns.append(stamp_ns)
        self.ends.append(len(self.raw))
        if now_ns > self.deadline_ns:
            raise CallCut("timeout", "the call's time was up")
        if len(self.raw) > BODY_CAP_BYTES or len(self.ends) > READS_CAP:
            raise CallCut("body_too_large", f"the response passed {BODY_CAP_BYTES >> 20} MiB")
        return True

    def readline(self, limit: int = -1) -> bytes:
        """A header line, for http.client."""
        while True:
            raw = self.raw
            end = raw.find(b"\n", self.cursor) + 1
            if not end and limit >= 0 and len(raw) - self.cursor >= limit:
                end = self.cursor + limit
            if end or not self.receive():
                line = bytes(raw[self.cursor:end or len(raw)])
                self.cursor += len(line)
                return line

    def headers_done(self, response: http.client.HTTPResponse) -> tuple[str, int]:
        """The header is complete: (framing, Content-Length) of the body."""
        self.header_reads = len(self.ends)
        self.body_in_header = self.cursor < len(self.raw)
        if response.chunked:
            return "chunked", 0
        return ("close", 0) if response.length is None else ("length", response.length)

    def read_body(self, framing: str, length_bytes: int) -> None:
        """Read until the framing, a [DONE] that nothing follows, or the connection ends."""
        raw, chunked = self.raw, framing == "chunked"
        while True:
            got = len(raw) - self.cursor
            if framing == "length" and got >= length_bytes:
                return
            if chunked and (raw.endswith(b"\r\n0\r\n\r\n") or
                            got == 5 and raw.endswith(b"0\r\n\r\n")):
                return
            if self.quiet_ns:
                if self.user_ns[-1] > self.quiet_ns:
                    return
            elif got and raw.endswith(DONE_ENDS):
                self.quiet_ns = time.perf_counter_ns() + int(DONE_GRACE_S * 1e9)
                self._arm(DONE_GRACE_S)
            if not self.receive():
                return

    def flush(self) -> None:
        """Part of what http.client asks of a file, as is `close`."""

    close = flush

    def end(self) -> None:
        self.gate.leave(self)
        for file in (self.hold, self.sock):
            if file is not None:
                file.close()

    def arrivals(self) -> Optional[Arrivals]:
        """What stamps there are; None where no request left."""
        if not self.started_ns:
            return None
        return Arrivals(self.started_ns, self.sent_ns, self.connect_us, self.user_ns,
                        self.kernel_ns, self.header_reads, self.body_in_header, len(self.raw))


def ask_for_stamps(sock: socket.socket) -> bool:
    """Whether the kernel will stamp what this socket receives (Linux)."""
    if sys.platform != "linux":
        return False
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        return True
    return False


class StampedResponse(http.client.HTTPResponse):
    """http.client's response, its bytes taken from an Exchange instead of a buffered file."""

    def __init__(self, sock: Any, exchange: Exchange, method: Optional[str] = None) -> None:
        super().__init__(sock, method=method)
        exchange.hold = self.fp           # never read; it keeps the socket open after urllib's end
        self.fp = exchange                # type: ignore[assignment]


class StampedConnection(http.client.HTTPConnection):
    """Connects first, then sends head and body in one piece, through the exchange."""

    def __init__(self, host: str, exchange: Exchange, **options: Any) -> None:
        super().__init__(host, **options)
        self._create_connection = exchange.open
        self._exchange, self._held = exchange, bytearray()
        self._holding = False
        self.response_class = functools.partial(      # type: ignore[assignment]
            StampedResponse, exchange=exchange)

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


class StampedHandler(urllib.request.AbstractHTTPHandler):
    """urllib's handler for http and https; the exchange rides on the request."""

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def http_open(self, request: Any) -> Any:
        connection: Any = StampedConnection
        return self.do_open(connection, request, exchange=request.exchange)

    def https_open(self, request: Any) -> Any:
        connection: Any = StampedTLSConnection
        return self.do_open(connection, request, exchange=request.exchange)


# --- one call ------------------------------------------------------------------------------------
class Client:
    """Speaks HTTP to one endpoint with urllib; a key goes to this origin and nowhere else."""

    def __init__(self, target: cli.Target, api_key: Optional[str] = None) -> None:
        self.target, self.key, self.gate = target, api_key, Gate()
        self.addresses: dict[Any, list[Any]] = {}
        self.headers = {"Content-Type": "application/json", "Accept": "*/*",
                        "User-Agent": f"run_benchmark/{HARNESS_VERSION}"}
        if api_key:
            self.headers["Authorization"] = "Bearer " + api_key
        self.opener = urllib.request.OpenerDirector()
        self.opener.add_handler(StampedHandler())
        if names.target_class(target.host) != "loopback":
            self.opener.add_handler(urllib.request.ProxyHandler())

    def send(self, method: str, path: str, body: Optional[Json], timeout_s: float,
             sink: Optional[Callable[[bytes, int], None]] = None) -> replys.Reply:
        """One exchange; 307/308 to the same origin are sent again, other redirects refused."""
        data = None if body is None else json.dumps(body).encode("ascii")
        url, until_ns = self.target.base + path, time.perf_counter_ns() + int(timeout_s * 1e9)
        keep_bytes = HEAD_BYTES if body and body.get("stream") else BODY_CAP_BYTES
        for _ in range(4):
            left_s = (until_ns - time.perf_counter_ns()) / 1e9
            reply = self._once(method, url, data, left_s, sink, keep_bytes)
            if reply.status not in replys.REDIRECTS:
                return reply
            place = replys.redirected(url, reply)
            if place is None:
                break
            url = place
        return reply._replace(failure=replys.bad_redirect(reply.status))

    def _once(self, method: str, url: str, data: Optional[bytes], timeout_s: float,
              sink: Optional[Callable[[bytes, int], None]], keep_bytes: int) -> replys.Reply:
        exchange = Exchange(self.gate, timeout_s, self.addresses)
        request: Any = urllib.request.Request(url, data=data, method=method, headers=self.headers)
        request.exchange = exchange
        status, headers, failure, body = None, {}, None, None
        stream, head = sse.StreamParser(), b""
        try:
            response = self.opener.open(request, timeout=timeout_s)
            status, headers = response.status, {k.lower(): v for k, v in response.headers.items()}
            framing, length_bytes = exchange.headers_done(response)
            body = sse.Body(framing, length_bytes)
            exchange.read_body(framing, length_bytes)
        except CallCut as cut:
            failure = None if cut.args[0] == "ended" else cut.args
        except (OSError, http.client.HTTPException, ValueError) as error:
            failure = replys.failure_of(error, bool(exchange.started_ns))
        finally:
            exchange.end()
        if body:
            head = sse.parse_body(body, exchange.raw, exchange.ends, exchange.cursor,
                                  sink or stream.feed, keep_bytes)
        return replys.reply_of(status, headers, head, stream, failure, exchange.arrivals())


def wall_offset_ns() -> int:
    """Wall clock minus monotonic clock, by the narrowest of five readings."""
    readings = []
    for _ in range(5):
        before, wall, after = time.perf_counter_ns(), time.time_ns(), time.perf_counter_ns()
        readings.append((after - before, wall - (before + after) // 2))
    return min(readings)[1]


def utc_now() -> str:
    """Now, as the ledger writes it: UTC to the millisecond."""
    now = datetime.datetime.now(datetime.timezone.utc)
    return now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03d}Z"


# --- the ledger, written -------------------------------------------------------------------------
class Ledger:
    """run.jsonl: append-only, one write a line, on disk before `write` returns."""

    def __init__(self, path: str, run_id: str, resume: str) -> None:
        self.path, self.run_id, self.resume = path, run_id, resume
        self.seq = self.segment = 0
        self.zero_ns = time.perf_counter_ns()
        self.sha256, self.size = hashlib.sha256(), 0
        self._lock = threading.Lock()
        self._fd, until_s = files.open_to_append(path), time.monotonic() + LOCK_PATIENCE_S
        while not files.lock(self._fd):
            if time.monotonic() < until_s:
                time.sleep(0.05)
                continue
            raise HarnessError(f"run {run_id} is being written by another process; follow it: "
                       f"{cli.follow_command(os.path.dirname(path))}")

    def now_us(self) -> int:
        return (time.perf_counter_ns() - self.zero_ns) // 1000

    def write(self, event: str, **fields: Any) -> Json:
        """Append one event; raises StorageError and leaves a ledger that reads."""
        with self._lock:
            made = ledgers.event_line(
                event, seq=self.seq, run_id=self.run_id, segment=self.segment, at=utc_now(),
                t_us=self.now_us(), **fields)
            self._append(ledgers.dump_line(made))
            self.seq += 1
        try:
            files.flush_to_disk(self._fd)
        except OSError as error:
            raise self._full(error) from None
        return made

    def close(self) -> None:
        os.close(self._fd)

    def _append(self, line: bytes) -> None:
        try:
            if os.write(self._fd, line) < len(line):
                raise OSError(28, "No space left on device")
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self.size)
            raise self._full(error) from None
        self.size += len(line)
        self.sha256.update(line)

    def _full(self, error: OSError) -> StorageError:
        return StorageError(f"{self.path} cannot be written ({error.strerror}); the ledger is "
                            f"whole up to here. Make room, then: {self.resume}")

    def take_up(self, manifest: Json) -> tuple[list[Json], Json]:
        """What an earlier process left: its events, and the fields of `run_resumed`.

        A torn last line is first saved beside, then cut off; the caller records it and then calls
        `forget_torn`, so that it is never lost.
        """
        found, torn_path = ledgers.read_ledger(self.path), self.path + ".torn"
        ledgers.refuse_foreign(self.path, manifest, found.events)
        torn = ledgers.unrecorded_torn_bytes(found, files.read(torn_path))
        try:
            if found.torn:
                files.write_whole(torn_path, torn)
                os.ftruncate(self._fd, found.whole_bytes)
            elif found.newline_missing:
                os.write(self._fd, b"\n")
        except OSError as error:
            raise self._full(error) from None
        whole = files.read(self.path)
        self.sha256, self.size = hashlib.sha256(whole), len(whole)
        if found.events:
            self.seq = found.events[-1]["seq"] + 1
            self.segment = found.events[-1]["segment"] + 1
        return found.events, {"newline_added": found.newline_missing, "torn_bytes": len(torn),
                              "torn_base64": base64.b64encode(torn).decode() if torn else None}

    def forget_torn(self) -> None:
        """The torn line stands in `run_resumed` now."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.path + ".torn")


# --- a run ---------------------------------------------------------------------------------------
class Run:
    """Phases and lanes over one endpoint into one ledger."""

    def __init__(self, client: Client, known: state.State, ledger: Any, resume: str,
                 progress: display.Progress) -> None:
        self.client, self.known, self.ledger = client, known, ledger
        self.resume, self.progress, self.timeout_s = resume, progress, known.manifest["timeout_s"]
        self.heartbeat = gauges.Heartbeat(gauges.HEARTBEAT_S)
        self.in_flight: dict[int, str] = {}
        self.greeted: set[str] = set()
        self.shown = (0, time.monotonic())
        self.misses = self.signal_number = 0
        self.fatal: Optional[Exception] = None

    # -- phases
    def all(self) -> None:
        """Every phase of every model, then the phase of all models."""
        for model in self.known.served:
            if not self.known.model_done(model):
                self._model(model)
        for name in self.known.names:
            if PHASES[name].kind == "mixed":
                self._phase(name, list(self.known.served))

    def _greet(self, model: str) -> Json:
        """A model's hello in this segment: its time holds the load."""
        hello, begun_us = self.known.hello(model, self.ledger.segment), self.ledger.now_us()
        greeted: list[Json] = []
        self._on_lanes([[hello]], lambda cells: greeted.append(self.call(cells[0])))
        self._phase_finished(model, "hello", begun_us, [hello])
        discover.refuse_key(greeted[0], bool(self.client.key))
        self.greeted.add(model)
        return greeted[0]

    def _model(self, model: str) -> None:
        greeted = self._greet(model)
        if self.known.manifest["smoke"]:
            return
        self.identify(model, discover.ask(self.client.send, self.known.engine,
                                        self.known.served[model]))
        todo = [cell for cell in self.known.left(model) if cell.phase != "hello"]
        if todo:
            self.progress.say(display.estimate_line(display.estimate(
                self.known.manifest, todo, greeted)))
        for name in self.known.own_phases()[1:]:
            self._phase(name, [model])
        if len(self.known.own_phases()) > 1 and model not in self.known.probed:
            self._on_lanes([[]], lambda _: self._probe_cache(model))

    def _phase(self, name: str, models: Sequence[str]) -> None:
        kind, known = PHASES[name].kind, self.known
        model = None if kind == "mixed" else models[0]
        reason = plan.skip_reason(name, models, known.manifest["plan"]["lanes"])
        if reason and (model, name) not in known.finished:
            known.finished.add((model, name))
            self.ledger.write("phase_skipped", model=model, phase=name, reason=reason)
            self.progress.say(f"{name}: skipped; {reason}")
        cells = known.cells(name, models)
        todo = [] if reason else [cell for cell in cells if not known.done(cell)]
        for one in [m for m in models if todo and m not in self.greeted]:
            self._greet(one)
        begun_us = self.ledger.now_us()
        if not reason and (todo or (model, name) not in known.finished):
            self._on_lanes([[cell for cell in todo if cell.lane == lane]
                            for lane in sorted({cell.lane for cell in todo})],
                           self._append if kind == "append" else self._ask_each)
            self._phase_finished(model, name, begun_us, cells)

    def _on_lanes(self, lanes: list[list[plan.Cell]],
                  work: Callable[[list[plan.Cell]], Any]) -> None:
        """A thread a lane; the main thread shows progress and hears signals meanwhile."""
        def guarded(cells: list[plan.Cell]) -> None:
            try:
                work(cells)
            except Exception as error:      # a lane's failure is the run's, told by the main thread
                self.fatal = self.fatal or error
                self.client.gate.drop_all()

        gc.collect()                        # now, since it is off while calls are made
        threads = [threading.Thread(target=guarded, args=(cells,), daemon=True) for cells in lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            while thread.is_alive() and time.monotonic() < self.client.gate.patience_s:
                thread.join(display.LIVE_EVERY_S)
                self._show()
        if self.fatal or self.signal_number:
            raise self.fatal or Interrupted(self.signal_number)

    def _show(self) -> None:
        """The live line, where there is a terminal."""
        now, now_s, known = self.client.gate.reads(), time.monotonic(), self.known
        (reads, at_s), self.shown = self.shown, (now, now_s)
        self.progress.show(lambda width: display.live_line(
            width, len(known.outcomes), known.total, list(self.in_flight.values()),
            (now - reads) / max(now_s - at_s, 1e-3), known.spent_us))

    def _ask_each(self, cells: list[plan.Cell]) -> None:
        """One after the other."""
        for cell in cells:
            if not self.client.gate.stopping.is_set():
                self.call(cell)

    def _append(self, cells: list[plan.Cell]) -> None:
        """One conversation a repeat; what lies beyond the context's edge is recorded, not asked."""
        for cell in cells:
            if self.client.gate.stopping.is_set():
                return
            edge = self.known.edge(cell)
            if edge:
                self._record(cell, self.known.beyond_the_edge(cell, edge))
            else:
                self.call(cell)

    def _phase_finished(self, model: Optional[str], name: str, begun_us: int,
                        cells: list[plan.Cell]) -> None:
        if self.client.gate.stopping.is_set():
            return
        ok = sum(self.known.outcomes.get(cell.cell_id) == "ok" for cell in cells)
        self.known.finished.add((model, name))
        self.ledger.write("phase_finished", model=model, phase=name, planned=len(cells), ok=ok,
                          failed=len(cells) - ok, started_us=begun_us,
                          wall_us=self.ledger.now_us() - begun_us)

    # -- one call
    def call(self, cell: plan.Cell) -> Json:
        """Ask one cell and record it."""
        messages = self.known.messages(cell)
        self.in_flight[cell.lane] = cell.cell_id
        asked = self._ask(cell, messages, self.known.max_tokens(cell),
                          self.known.cache(cell, uuid.uuid4().hex[:16]))
        if self.client.gate.stopping.is_set():        # dropped: the next segment asks it again
            return {"outcome": "client_stopped"}
        return self._record(cell, self.known.call_fields(cell, messages, *asked))

    def _ask(self, cell: plan.Cell, messages: list[dict[str, str]], max_tokens: int,
             cache: state.Cache) -> tuple[replys.Reply, Optional[Timing], list[Json], Json]:
        """One call with its repetitions, all inside its cap: reply, timing, attempts, request.

        Repeated are 429 and 503, after Retry-After; and once a request whose fields the server
        refuses, without them.
        """
        until_ns = time.perf_counter_ns() + int(self.timeout_s * 1e9)
        dropped, attempts = self.known.dropped[cell.model], list[Json]()
        while True:
            options = self.known.options(cell, max_tokens, cache)
            body = {"model": self.known.served[cell.model],
                    "messages": plan.salted(messages, cache[0]), **options}
            begun_us, before_ns = self.ledger.now_us(), wall_offset_ns()
            reply = self.client.send("POST", "/v1/chat/completions", body,
                                     (until_ns - time.perf_counter_ns()) / 1e9)
            after_ns = wall_offset_ns()
            text = reply.head.decode("utf-8", "replace")
            refused = server_errors.refused_fields(reply.status, text, options) - dropped
            left_s = (until_ns - time.perf_counter_ns()) / 1e9
            pause_s = 0.0 if refused else replys.retry_pause_s(reply, len(attempts))
            if pause_s is None or pause_s >= left_s or self.client.gate.stopping.is_set():
                break
            dropped |= refused
            cache = self.known.cache(cell, uuid.uuid4().hex[:16]) if refused else cache
            attempts.append({"kind": "refused_fields" if refused else replys.outcome_of(reply)[0],
                             "status": reply.status, "started_us": begun_us,
                             "ended_us": self.ledger.now_us()})
            self.client.gate.stopping.wait(pause_s)
        self._watch_for_the_server(reply)
        timing = call_timing(reply.stream, reply.arrivals, before_ns, after_ns,
                             self.ledger.zero_ns, self._heartbeat_gap(reply))
        return reply, timing, attempts, {"salt": cache[0], "options": options,
                                         "dropped_fields": sorted(dropped)}

    def _watch_for_the_server(self, reply: replys.Reply) -> None:
        """After a few calls in a row that met no server, the run stops instead of failing on."""
        if self.client.gate.stopping.is_set():
            return                            # it is us who dropped these calls
        self.misses = self.misses + 1 if replys.met_no_server(reply) else 0
        if self.misses >= VANISHED_AFTER and reply.failure:
            self.fatal = self.fatal or EndpointError(
                f"the server is gone: {self.misses} calls in a row met none ({reply.failure[1]}); "
                "start it again")

    def _heartbeat_gap(self, reply: replys.Reply) -> Optional[int]:
        if reply.arrivals is None or not self.heartbeat.is_alive():
            return None
        return self.heartbeat.longest_gap_us(reply.arrivals.started_ns, time.perf_counter_ns())

    def _record(self, cell: plan.Cell, fields: Json) -> Json:
        """Write a call's line, on disk before this returns; stop where the run has to."""
        event: Json = self.ledger.write("call_finished", **cell._asdict(), **fields)
        self.known.note_call(cell, cast(CallFinished, event))
        self.in_flight.pop(cell.lane, None)
        self.progress.say(result_tables.call_line(len(self.known.outcomes), self.known.total, event),
                          bad=event["outcome"] != "ok")
        if self.fatal:
            raise self.fatal
        return event

    def identify(self, model: str, probes: answers.Probes) -> None:
        """Record what the server tells of itself and one model; some tell only after its load."""
        if self.client.gate.stopping.is_set():
            return                            # the answers are those of a dropped connection
        found = self.ledger.write("endpoint_identified", **self.known.identity(model, probes))
        if found["context"]["remedy"]:
            self.progress.say(display.context_line(found))

    def _probe_cache(self, model: str) -> None:
        """Ask the longest prompt of one lane twice more: as the run asks, then the same bytes."""
        longest, probes = self.known.longest(model), []
        if longest:
            cell = longest[1]
            messages = self.known.messages(cell)
            cache = self.known.cache(cell, uuid.uuid4().hex[:16])
            for kind in ("as_run", "identical"):
                reply, timing, _, _ = self._ask(
                    cell, messages, min(state.PROBE_MAX_TOKENS, self.known.max_tokens(cell)), cache)
                probes.append(replys.cache_probe(kind, reply, timing))
        if not self.client.gate.stopping.is_set():
            self.known.probed.add(model)
            self.ledger.write("cache_probed", model=model, **replys.cache_verdicts(longest, probes))


# --- the server, asked ---------------------------------------------------------------------------
def wait_for_server(client: Client, url: str, timeout_s: float) -> None:
    """Return when the endpoint answers; raises EndpointError that says what to do."""
    until_s = time.monotonic() + timeout_s
    while True:
        reply = client.send("GET", "/v1/models", None, min(timeout_s, 30.0))
        if reply.status != 503 or time.monotonic() + LOADING_PAUSE_S > until_s:
            break
        time.sleep(LOADING_PAUSE_S)                        # it says that it is loading
    discover.require_usable_server(reply, url, bool(client.key), scan_ports)


def scan_ports() -> list[Json]:
    """What answers at the usual loopback ports, as survey.describe tells it."""
    found = []
    for port in queries.USUAL_PORTS:
        client = Client(cli.parse_target(f"127.0.0.1:{port}"))
        if client.send("GET", "/v1/models", None, SCAN_TIMEOUT_S).status is not None:
            found.append(discover.describe(client.send, client.target.base, CANONICAL_OPTIONS))
    return found


def prepare(args: argparse.Namespace, run_id: str, environment: Any,
            synthetic: bool) -> tuple[Client, discover.Ready]:
    """Look at flags, suites and server; args are settled. Raises Stop where a run cannot begin."""
    require_valid_names(args)
    client = Client(cli.parse_target(args.target_url), cli.api_key(args, environment))
    suites = load_suites(os.path.join(HERE, "suites"), answer_checks.FORMAT_RULES)
    wait_for_server(client, args.target_url, args.timeout)
    address = client.addresses.get((client.target.host, client.target.port))
    return client, discover.prepare(client.send, args, RunContext(
        run_id, HARNESS_VERSION, CANONICAL_OPTIONS, suites, utc_now(), synthetic, client.target,
        address[0][4][0] if address else None, socket.gethostname()))


# --- the instrument ------------------------------------------------------------------------------
@contextlib.contextmanager
def reference_endpoint(*options: str) -> Iterator[cli.Target]:
    """The embedded endpoint as a child process, which dies with us."""
    child = subprocess.Popen(
        [sys.executable, os.path.join(HERE, "reference_endpoint.py"), *options],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        told = json.loads(child.stdout.readline() or b"{}")      # type: ignore[union-attr]
        if "port" not in told:
            raise EndpointError("the embedded endpoint did not start; to see why: python3 "
                                "harness/reference_endpoint.py")
        yield cli.parse_target(f"http://127.0.0.1:{told['port']}")
    finally:
        child.kill()
        child.communicate()


def calibrate(lanes: int) -> Json:
    """The fields of `instrument_calibrated`, measured with the embedded endpoint."""
    heartbeat = gauges.Heartbeat(gauges.HEARTBEAT_FINE_S)
    heartbeat.start()
    try:
        with reference_endpoint("--slots", str(lanes)) as target:
            return calibration.calibrate(Client(target).send, time.perf_counter_ns,
                                         wall_offset_ns, lanes, heartbeat.between)
    except (HarnessError, OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        return calibration.calibration(f"the calibration failed: {type(error).__name__}")
    finally:
        heartbeat.ended.set()


@contextlib.contextmanager
def quiet_interpreter() -> Iterator[None]:
    """No garbage collection while calls are made (it is done between phases); put back after."""
    was_on = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    keeper = socket.socket()             # while one socket wants stamps, the kernel stays ready
    ask_for_stamps(keeper)
    try:
        yield
    finally:
        keeper.close()
        gc.unfreeze()
        if was_on:
            gc.enable()


# --- a whole run ---------------------------------------------------------------------------------
def open_run(folder: str, manifest: Json, is_new: bool, resume: str) -> Ledger:
    """The locked ledger; the manifest is written once, and never again."""
    path = os.path.join(folder, ledgers.MANIFEST)
    try:
        os.makedirs(folder, exist_ok=True)
        ledger = Ledger(os.path.join(folder, ledgers.LEDGER), manifest["run_id"], resume)
        if is_new and os.path.exists(path):
            raise HarnessError(f"another process has just begun this run; go on with it: {resume}")
        if is_new:
            files.write_whole(path, ledgers.dump_document(manifest))
    except OSError as error:
        raise display.unwritable(folder, error) from None
    return ledger


def do_run(args: argparse.Namespace, progress: display.Progress, environment: Any,
           synthetic: bool = False) -> int:
    """A run, or the rest of one, and its table."""
    run_id = args.run_id or str(uuid.uuid4())
    folder = ledgers.find_run(args.out_dir, run_id) if args.run_id else None
    earlier = ledgers.read_manifest(folder) if folder else None
    if earlier:
        inherit_options(args, earlier)
    if synthetic:
        args.models, args.phases = args.models or "auto", args.phases or "all"
    cli.settle(args, CANONICAL_OPTIONS)
    client, ready = prepare(args, run_id, environment, synthetic)
    if earlier:
        require_same_run(earlier, ready.manifest)
        ready = ready._replace(manifest=earlier)
    if not earlier or not folder:
        folder = os.path.join(args.out_dir, args.submitter_handle, args.device_tag, f"run-{run_id}")
    resume = cli.resume_command(args, CANONICAL_OPTIONS, run_id)
    with contextlib.closing(open_run(folder, ready.manifest, not earlier, resume)) as ledger:
        events, resumed = ledger.take_up(ready.manifest)
        known = state.State(ready.manifest, ready.suites, ready.served, args.retry_failed)
        known.secret = client.key
        known.recall(events)
        run = Run(client, known, ledger, resume, progress)
        if resumed["torn_bytes"] or not known.ended(events):
            begin_segment(ledger, ready.manifest, events, resumed)
            progress.say(display.begin_line(run_id, known.total, args.no_calibration or args.smoke))
            with quiet_interpreter(), interruptible(run):
                carry_out(run, ready, args.no_calibration, not events)
                events = finish(run)
    progress.end()
    return display.print_end(ready.manifest, events, folder, resume, args.json)


def begin_segment(ledger: Ledger, manifest: Json, events: Sequence[Json], resumed: Json) -> None:
    """`run_started`; in a later segment, or where a crash left something, `run_resumed`."""
    shared = {"clock_origin_ns": ledger.zero_ns,
              "manifest_sha256": ledgers.manifest_sha256(manifest)}
    if not events:
        ledger.write("run_started", **shared)
    if events or resumed["torn_bytes"]:
        ledger.segment = max(ledger.segment, 1)
        ledger.write("run_resumed", **shared, **resumed)
        ledger.forget_torn()


def carry_out(run: Run, ready: discover.Ready, no_calibration: bool, is_first: bool) -> None:
    """Everything between the first and the last line of a segment; raises Stop."""
    target, ledger, patrol = ready.manifest["target"], run.ledger, None
    run.heartbeat.start()
    try:
        if not ready.manifest["smoke"]:
            ledger.write("instrument_calibrated", **(
                calibration.calibration("--no-calibration") if no_calibration else
                calibrate(max(p["lanes"] for p in ready.manifest["plan"]["phases"]))))
            patrol = gauges.HostMonitor(target["port"] if target["class"] == "loopback" else None,
                                     lambda found: ledger.write("host_sampled", **found))
        for model, probes in ready.probes.items():
            run.identify(model, probes)
        for model in ready.skipped if is_first else ():
            ledger.write("model_skipped", model=model,
                         reason="it does not chat, as the engine says or its name does")
        run.all()
    except HarnessError as stop:
        if patrol:
            patrol.close(tell=False)
        if not isinstance(stop, StorageError):
            ledger.write("run_interrupted", reason=privacy.redact(str(stop))[:300],
                         exit_code=stop.exit_code, in_flight=sorted(run.in_flight.values()))
            stop.args = (f"{stop}\nnext: {display.next_step(stop.exit_code, run.resume)}",)
        raise
    finally:
        run.heartbeat.ended.set()
    if patrol:
        patrol.close(tell=True)


@contextlib.contextmanager
def interruptible(run: Run) -> Iterator[None]:
    """SIGINT and SIGTERM drop the calls in flight; a second one ends the program at once."""
    def hear(number: int, _: Any) -> None:
        run.signal_number = number
        signal.signal(number, signal.SIG_DFL)
        run.client.gate.drop_all()

    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, hear) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)


def finish(run: Run) -> list[Json]:
    """Write the last line; all events of the run."""
    events, ledger = ledgers.read_ledger(run.ledger.path).events, run.ledger
    return [*events, ledger.write(
        "run_finished", counts=ledgers.counts(events), wall_us=ledger.now_us(), lines=ledger.seq,
        exit_code=int(not run.known.all_answered()), sha256=ledger.sha256.hexdigest())]


# --- what else the command line offers -----------------------------------------------------------
def do_rehearse(args: argparse.Namespace, progress: display.Progress, environment: Any) -> int:
    """The main job with nothing installed: all phases against the embedded endpoint."""
    with reference_endpoint() as target:
        args.target_url, args.api_key_env = target.base, None
        return do_run(args, progress, environment, synthetic=True)


def hello_of(args: argparse.Namespace, environment: Any) -> tuple[Json, Json]:
    """(manifest of the run that is not made, one hello to its first model, recorded nowhere)."""
    cli.settle(args, CANONICAL_OPTIONS)
    client, ready = prepare(args, str(uuid.UUID(int=0)), environment, False)
    known = state.State(ready.manifest, ready.suites, ready.served, False)
    run = Run(client, known, ledgers.NoLedger(time.perf_counter_ns), "",
              display.Progress(None, False, False))
    return ready.manifest, run.call(known.hello(next(iter(ready.served)), 0))


def do_probe(args: argparse.Namespace, progress: display.Progress, environment: Any) -> int:
    """What is served, and one hello; writes nothing."""
    found = [] if args.target_url else scan_ports()
    if len(found) <= 1:
        args.target_url = found[0]["url"] if found else args.target_url or cli.DEFAULT_URL
        if not found:
            client = Client(cli.parse_target(args.target_url), cli.api_key(args, environment))
            wait_for_server(client, args.target_url, discover.ASK_TIMEOUT_S)
            found = [discover.describe(client.send, args.target_url, CANONICAL_OPTIONS)]
        args.models = args.models or ("auto" if found[0]["models"] else None)
    hello = hello_of(args, environment)[1] if len(found) == 1 else None
    print_safe(json.dumps({"endpoints": found, "hello": hello}) if args.json else
          display.probes_text(found, hello))
    return int(hello is not None and hello["outcome"] != "ok")


def do_plan(args: argparse.Namespace, progress: display.Progress, environment: Any) -> int:
    """What a run would ask, and after a hello how long it may take."""
    manifest, hello = hello_of(args, environment)
    cells = plan.all_cells(manifest)
    found = display.estimate(manifest, cells, hello)
    print_safe(json.dumps({"manifest": manifest, "calls": len(cells), "hello": hello,
                      "estimate": found and found._asdict()}) if args.json else
          display.plan_text(manifest, len(cells), found))
    return int(hello["outcome"] != "ok")


def do_detach(args: argparse.Namespace, words: Sequence[str]) -> int:
    """The same run in a session of its own; returns when it has begun or failed."""
    run_id = args.run_id or str(uuid.uuid4())
    argv = cli.detached_words(args, words, run_id)
    log_path = os.path.join(tempfile.gettempdir(), f"run-{run_id}.log")
    # 0x208: no console, its own group
    apart: Json = {"creationflags": 0x208} if os.name == "nt" else {"start_new_session": True}
    with open(log_path, "wb") as log:
        child = subprocess.Popen([sys.executable, os.path.abspath(__file__), *argv],
                                 stdin=subprocess.DEVNULL, stdout=log, stderr=log, **apart)
    until_s, begun = time.monotonic() + DETACH_LOOK_S, False
    while child.poll() is None and not begun and time.monotonic() < until_s:
        time.sleep(0.05)
        begun = display.is_under_way(args.out_dir, run_id)
    if child.returncode not in (None, 0, 1):
        sys.stderr.write(files.read(log_path).decode("ascii", "backslashreplace")[-4000:])
        return int(child.returncode)
    print_safe(display.detached_text(begun or child.returncode is not None, run_id, log_path,
                                 cli.wait_command(args, "100", run_id), args.json))
    return 0


def build_parser() -> Parser:
    """The command line; its table stands in flags.py."""
    return cli.build_parser(__doc__ or "", CANONICAL_OPTIONS)


def main(argv: Optional[Sequence[str]] = None, environment: Any = os.environ) -> int:
    """Run the program; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    args = build_parser().parse_args(words)
    progress = display.Progress.on(sys.stderr, args.quiet, environment)
    try:
        cli.require_valid_combination(args)
        args.out_dir_typed = args.out_dir is not None or args.rehearse
        args.out_dir = args.out_dir or (tempfile.mkdtemp(prefix="rehearsal-") if args.rehearse
                                        else DEFAULT_OUT)
        if args.wait:
            return display.follow(args, progress, CANONICAL_OPTIONS)
        if args.detach:
            return do_detach(args, words)
        mode = (do_probe if args.probe else do_plan if args.plan else
                do_rehearse if args.rehearse else do_run)
        return mode(args, progress, environment)
    except (HarnessError, OSError) as error:
        progress.end()
        print(f"run_benchmark: {display.stopped_text(error)}", file=sys.stderr)
        return getattr(error, "exit_code", StorageError.exit_code)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
