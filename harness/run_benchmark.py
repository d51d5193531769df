#!/usr/bin/env python3
"""Benchmark language models behind any OpenAI-compatible endpoint, with the standard library only.

  python3 harness/run_benchmark.py --rehearse             try everything on the built-in endpoint
  python3 harness/run_benchmark.py --probe                show what is served here; writes nothing
  python3 harness/run_benchmark.py --models qwen2.5:7b    run hello, 5q and 20q on Ollama's port
  python3 harness/run_benchmark.py --target-url http://127.0.0.1:8080 --phases all --detach

A run writes submissions/<handle>/<device-tag>/run-<uuid>/ with manifest.json (what was asked) and
run.jsonl (the ledger: one line per request, on disk before that lane sends the next). To resume a
run that was stopped or killed, use --run-id. Every number is computed from the ledger later.

Times are what a client sees: from the moment the request is passed to the socket until each chunk
arrives. Not included: connecting, reading suites, parsing and writing.

exit codes:
  0 all planned calls have an answer; 1 finished, some calls failed; 2 wrong usage; 3 the endpoint
  cannot be used; 4 a file cannot be read or written; 5 (--wait) still running; 130/143 interrupted.
"""
import sys

if sys.version_info < (3, 9):      # above all code that an older Python cannot run
    sys.exit("run_benchmark needs Python 3.9 or newer; this is " + sys.version.split()[0])

import array
import bisect
import contextlib
import dataclasses
import gc
import http.client
import io
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
import urllib.request
import uuid
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Callable, Optional, cast

from core import files, names, plan
from core import ledger as ledger_file
from core.errors import EndpointError, HarnessError, StorageError
from core.records import CallFinished, Json, LedgerLine, Manifest, Phase
from core.suites import load_suites
from core.text import Parser, command, print_error, print_result, print_text, printable, readable
from engines import answers, queries
from machine import awake, gauges, inventory
from machine.heartbeat import HEARTBEAT_FINE_S, HEARTBEAT_S, Heartbeat
from run import calibration, cli, discover, plan_and_probe, redaction, sse, wait_and_stop
from run import manifest as manifests
from run import reply as replies
from run.cli import Options
from run.end_of_run import error_text, next_step, print_end
from run.lanes import Clocks, Run
from run.ledger_writer import LedgerWriter, utc_now
from run.progress import Progress
from run.state import State
from run.timing import Arrivals

# --- version and constants -----------------------------------------------------------------------
HARNESS_VERSION = "public-1"
CANONICAL_OPTIONS = {"temperature": 0.1, "num_ctx": 4096, "num_predict": 2048}
HERE = os.path.dirname(os.path.abspath(__file__))
DEFAULT_OUT = os.path.join(os.path.dirname(HERE), "submissions")
DEFAULTS = {**CANONICAL_OPTIONS, "out_dir": DEFAULT_OUT}      # of the options; see run/cli.py

READ_BYTES = 16 * 1024            # reads of 256 KiB cost more than parsing; 16 KiB halves the CPU
BODY_LIMIT_BYTES = 64 * 1024 * 1024
READS_LIMIT = 4_000_000           # bounds the memory for stamps if a body comes in one-byte reads
HEAD_BYTES = 4096                 # first bytes of a body, kept for messages
WAIT_TICK_S = 0.5                 # how often a silent read checks its deadline
DONE_GRACE_S = 0.25               # how long a stream may stay open after its [DONE]
END_GRACE_S = 5.0                 # how long it may stay open after an answer without [DONE]
DROP_GRACE_S = 2.0                # how long dropped calls that hang may delay the end of a run
DONE_ENDS = tuple(start + b"[DONE]" + blank for start in (b"\ndata: ", b"\ndata:") for blank in (
    b"", b"\n", b"\n\n", b"\r\n", b"\r\n\r\n", b"\n\r\n", b"\n\n\r\n", b"\r\n\r\n\r\n"))
LOOPBACK = ("127.0.0.1", "[::1]") if socket.has_ipv6 else ("127.0.0.1",)     # "localhost"
SCAN_TIMEOUT_S = 1.0              # for each usual port
LOADING_PAUSE_S = 1.0             # between two requests to a server that is loading
NO_WINDOW = 0x08000000 if os.name == "nt" else 0       # CREATE_NO_WINDOW
DETACH_WAIT_S = 20.0              # for the first line of a background run
SO_TIMESTAMPNS = 35               # Linux (asm-generic); not named in the socket module
TIMESPEC = struct.Struct("ll")


class CallStopped(Exception):
    """The client ended a call: (kind, message); kind "ended": a [DONE] came, then nothing more."""


# --- one exchange: each read is stamped before anything else happens -----------------------------
class InFlight:
    """The exchanges in flight; an interrupt drops them all from another thread."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.patience_until_s = float("inf")
        self._finished_reads = 0
        self._exchanges: set[Exchange] = set()
        self._lock = threading.RLock()       # a signal handler may interrupt its own thread here

    def add(self, exchange: "Exchange") -> None:
        with self._lock:
            self._exchanges.add(exchange)
        if self.stopping.is_set():
            self.drop_all()

    def remove(self, exchange: "Exchange") -> None:
        with self._lock:
            if exchange in self._exchanges:
                self._exchanges.discard(exchange)
                self._finished_reads += len(exchange.ends)

    def drop_all(self) -> None:
        self.stopping.set()
        self.patience_until_s = min(self.patience_until_s, time.monotonic() + DROP_GRACE_S)
        with self._lock:
            for exchange in self._exchanges:
                with contextlib.suppress(OSError):
                    exchange.sock.shutdown(socket.SHUT_RDWR)

    def reads(self) -> int:
        """Number of reads so far, for the live display."""
        with self._lock:
            return self._finished_reads + sum(len(one.ends) for one in self._exchanges)


class Deadline:
    """The end of one call's time, on time.perf_counter_ns; an interrupt of the run ends it, too."""

    def __init__(self, timeout_s: float, stopping: threading.Event) -> None:
        self.at_ns = time.perf_counter_ns() + int(timeout_s * 1e9)
        self._stopping = stopping

    def left_s(self) -> float:
        """Seconds left, above 0; raises CallStopped when the time is up."""
        left = (self.at_ns - time.perf_counter_ns()) / 1e9
        if self._stopping.is_set():
            raise CallStopped("client_stopped", "the run was stopped")
        if left <= 0:
            raise CallStopped("timeout", "the call's time was up")
        return left


class AddressBook:
    """Addresses of hosts, looked up once per run. A call does not wait longer than its deadline."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], list[Any]] = {}

    def addresses(self, host: str, port: int, deadline: Deadline) -> list[Any]:
        """What socket.getaddrinfo returns; raises OSError or CallStopped."""
        if (host, port) not in self._found:
            results: queue.SimpleQueue[Any] = queue.SimpleQueue()

            def look_up() -> None:
                try:
                    hosts = LOOPBACK if host == "localhost" else (host,)
                    results.put([one for name in hosts for one in socket.getaddrinfo(
                        name.strip("[]"), port, 0, socket.SOCK_STREAM)])
                except (OSError, UnicodeError):
                    results.put(OSError(0, "the host name cannot be resolved"))

            threading.Thread(target=look_up, daemon=True).start()
            found: Any = None
            while found is None:
                with contextlib.suppress(queue.Empty):
                    found = results.get(timeout=min(deadline.left_s(), WAIT_TICK_S))
            if isinstance(found, OSError):
                raise found
            self._found[host, port] = found
        return self._found[host, port]

    def prefer(self, address: tuple[str, int], working: Any) -> None:
        """Put the address that worked first: on Windows, a silent one costs two seconds a call."""
        found = self._found[address]
        self._found[address] = [working, *(one for one in found if one is not working)]

    def first_ip(self, target: cli.Target) -> Optional[str]:
        """The address of a target that was looked up before."""
        found = self._found.get((target.host, target.port))
        return found[0][4][0] if found else None


class Exchange:
    """One request and its response: every byte that was read, and when it arrived.

    raw: all bytes of the response; ends: where each read ended in it; user_ns: when the read
    returned (time.perf_counter_ns); kernel_ns: the kernel's receive time on its real-time clock, 0
    if it gave none. Parsed after the response has ended; BODY_LIMIT_BYTES and READS_LIMIT bound
    both.
    """

    def __init__(self, in_flight: InFlight, deadline: Deadline, addresses: AddressBook) -> None:
        self._in_flight, self._deadline, self._addresses = in_flight, deadline, addresses
        self.sock: Any = None
        self._kernel_stamps = self._kernel_timeout = False
        self._open_files: list[Any] = []
        self.started_ns = self._quiet_until_ns = 0
        self._framing: tuple[str, int] = ("", 0)
        self._look_ns = float("inf")       # when a body is next searched for a whole answer
        self.header_reads = self.cursor = 0
        self.raw = bytearray()
        self.ends, self.user_ns, self.kernel_ns = (array.array("q") for _ in range(3))
        self._buffer = memoryview(bytearray(READ_BYTES))

    def connect(self, address: tuple[str, int], *_: Any) -> socket.socket:
        """Connect within the deadline; for http.client, in place of socket.create_connection."""
        error = OSError("no address")
        for one in self._addresses.addresses(*address, self._deadline):
            family, kind, protocol, _, place = one
            try:
                sock = self.sock = socket.socket(family, kind, protocol)
                sock.settimeout(self._deadline.left_s())
                self._in_flight.add(self)
                sock.connect(place)
                self._addresses.prefer(address, one)
                return sock
            except OSError as failed:
                error = failed
                self.end()
        raise error

    def send(self, sock: Any, request: bytes) -> None:
        """Send the whole request at once; the moment of its first byte is the zero of all times."""
        self.sock = sock
        for record in (self.raw, self.ends, self.user_ns, self.kernel_ns):
            del record[:]                     # the answer to a proxy's CONNECT
        self.cursor = 0
        sock.settimeout(self._deadline.left_s())
        plain = type(sock) is socket.socket
        self._kernel_stamps = plain and request_kernel_stamps(sock)
        self.started_ns = time.perf_counter_ns()
        sock.sendall(request)
        # A timeout in the kernel avoids the poll() before every read that Python's own costs.
        self._kernel_timeout = plain and os.name == "posix"
        if self._kernel_timeout:
            sock.settimeout(None)
        self._set_read_timeout(min(self._deadline.left_s(), WAIT_TICK_S))

    def _set_read_timeout(self, wait_s: float) -> None:
        if self._kernel_timeout:
            # 32-bit systems with 64-bit times want 16 bytes.
            for layout in ("ll", "qq"):
                value = struct.pack(layout, int(wait_s), int(wait_s % 1 * 1e6) or 1)
                with contextlib.suppress(OSError):
                    self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
                    return
            self._kernel_timeout = False
        self.sock.settimeout(max(wait_s, 0.001))

    def _after_timeout(self) -> None:
        left_s = self._deadline.left_s()
        if self._quiet_until_ns and time.perf_counter_ns() > self._quiet_until_ns:
            raise CallStopped("ended", "")
        if time.perf_counter_ns() > self._look_ns:
            self._stop_at_end()
        self._set_read_timeout(min(left_s, DONE_GRACE_S if self._quiet_until_ns else WAIT_TICK_S))

    def _stop_at_end(self) -> None:
        """Stop the call if a whole answer arrived, and then for a while nothing but comments."""
        now_ns, grace_ns = time.perf_counter_ns(), int(END_GRACE_S * 1e9)
        last = max(self.raw.rfind(b"{"), self.cursor - 1)       # byte that is not of a comment
        heard_ns = self.user_ns[bisect.bisect_right(self.ends, last)]
        if now_ns - heard_ns > grace_ns:
            if sse.is_at_end(*self._framing, self.raw, self.ends, self.cursor):
                raise CallStopped("timeout", "the server left the stream open")
            heard_ns = now_ns
        self._look_ns = heard_ns + grace_ns

    def receive(self) -> bool:
        """Read once; False at the end of the connection. Nothing is parsed here."""
        ancillary: Any = ()
        while True:
            try:
                if self._kernel_stamps:
                    count, ancillary, _, _ = self.sock.recvmsg_into([self._buffer], 64)
                else:
                    count = self.sock.recv_into(self._buffer)
                break
            except (BlockingIOError, InterruptedError, socket.timeout):
                self._after_timeout()
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
        if now_ns > self._deadline.at_ns:
            raise CallStopped("timeout", "the call's time was up")
        if len(self.raw) > BODY_LIMIT_BYTES or len(self.ends) > READS_LIMIT:
            raise CallStopped("body_too_large",
                              f"the response passed {BODY_LIMIT_BYTES >> 20} MiB")
        return True

    def makefile(self, _: str) -> "HeaderFile":
        """The file from which http.client reads the header."""
        # Never read. It keeps the socket open, which urllib closes after the header.
        self._open_files.append(self.sock.makefile("rb"))
        return HeaderFile(self)

    def read_body(self, framing: str, length_bytes: int) -> None:
        """Read until the body ends, by its framing, by a last [DONE], or with the connection."""
        self.header_reads = len(self.ends)
        raw, self._framing = self.raw, (framing, length_bytes)
        self._look_ns = self.user_ns[-1] + END_GRACE_S * 1e9
        while not body_is_complete(raw, self.cursor, framing, length_bytes):
            if self._quiet_until_ns:
                if self.user_ns[-1] > self._quiet_until_ns:
                    return
            elif len(raw) > self.cursor and raw.endswith(DONE_ENDS):
                self._quiet_until_ns = time.perf_counter_ns() + int(DONE_GRACE_S * 1e9)
                self._set_read_timeout(DONE_GRACE_S)
            if not self.receive():
                return
            if self.user_ns[-1] > self._look_ns:
                self._stop_at_end()

    def end(self) -> None:
        self._in_flight.remove(self)
        for file in (*self._open_files, self.sock):
            if file is not None:
                file.close()

    def arrivals(self) -> Optional[Arrivals]:
        """The stamps; None if no request was sent."""
        if not self.started_ns:
            return None
        return Arrivals(self.started_ns, self.user_ns, self.kernel_ns, self.header_reads,
                        len(self.raw))


def body_is_complete(raw: bytearray, start: int, framing: str, length_bytes: int) -> bool:
    """Whether the body of a response, from `start` on, has ended by its framing."""
    if framing == "length":
        return len(raw) - start >= length_bytes
    return framing == "chunked" and (raw.endswith(b"\r\n0\r\n\r\n") or (
        len(raw) - start == 5 and raw.endswith(b"0\r\n\r\n")))


def request_kernel_stamps(sock: socket.socket) -> bool:
    """Ask the kernel to stamp what this socket receives; True if it will (Linux)."""
    if sys.platform != "linux":
        return False
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        return True
    return False


class HeaderFile(io.BufferedIOBase):
    """The header of a response as a file, read through the exchange, which stamps each read."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange

    def readline(self, limit: Optional[int] = -1) -> bytes:
        exchange, most = self._exchange, -1 if limit is None else limit
        while True:
            end = exchange.raw.find(b"\n", exchange.cursor) + 1
            if not end and 0 <= most <= len(exchange.raw) - exchange.cursor:
                end = exchange.cursor + most
            if end or not exchange.receive():
                line = bytes(exchange.raw[exchange.cursor:end or None])
                exchange.cursor += len(line)
                return line


class StampedConnection(http.client.HTTPConnection):
    """Connects first, then sends head and body at once, through the exchange."""

    def __init__(self, host: str, exchange: Exchange, **options: Any) -> None:
        super().__init__(host, **options)
        self._create_connection = exchange.connect
        self._exchange, self._request, self._is_holding = exchange, bytearray(), False

    def response_class(self, _: Any, **options: Any) -> http.client.HTTPResponse:  # type: ignore
        source: Any = self._exchange          # of a socket, a response uses makefile() only
        return http.client.HTTPResponse(source, **options)

    def request(self, *args: Any, **options: Any) -> None:
        self._is_holding = True
        super().request(*args, **options)
        self._is_holding = False

    def send(self, data: Any) -> None:
        if self._is_holding:
            self._request += data
        else:                      # a proxy's CONNECT, which http.client sends while it connects
            super().send(data)

    def getresponse(self) -> http.client.HTTPResponse:
        self.connect()
        self._exchange.send(self.sock, bytes(self._request))
        return super().getresponse()


# Some Pythons are built without ssl; http works with them.
HTTPSConnection: Any = getattr(http.client, "HTTPSConnection", None)


class StampedTLSConnection(StampedConnection,
                           HTTPSConnection or object):  # type: ignore[misc]
    """The same over TLS, without kernel stamps, since a TLS socket has no recvmsg."""


class StampedHandler(urllib.request.AbstractHTTPHandler):
    """urllib's handler for http and https; each request carries its exchange."""

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def http_open(self, request: Any) -> Any:
        connection: Any = StampedConnection
        return self.do_open(connection, request, exchange=request.exchange)

    def https_open(self, request: Any) -> Any:
        if HTTPSConnection is None:
            raise OSError(0, "this Python has no ssl module; use http, or another Python")
        connection: Any = StampedTLSConnection
        return self.do_open(connection, request, exchange=request.exchange)


# --- the client ----------------------------------------------------------------------------------
class Client:
    """HTTP to one endpoint. A key is sent to this origin only."""

    def __init__(self, target: cli.Target, api_key: Optional[str] = None) -> None:
        self.target, self.key = target, api_key
        self.in_flight, self.addresses = InFlight(), AddressBook()
        self.headers = {"Content-Type": "application/json", "Accept": "*/*",
                        "User-Agent": f"run_benchmark/{HARNESS_VERSION}"}
        if api_key:
            self.headers["Authorization"] = "Bearer " + api_key
        self.opener = urllib.request.OpenerDirector()
        self.opener.add_handler(StampedHandler())
        if names.target_class(target.host) != "loopback":
            self.opener.add_handler(urllib.request.ProxyHandler())

    def send(self, method: str, path: str, body: Optional[Json], timeout_s: float,
             sink: Optional[Callable[[bytes, int], None]] = None) -> replies.Reply:
        """One request and its reply. Follows 307 and 308 within the origin, no other redirect."""
        data = None if body is None else json.dumps(body).encode("ascii")
        url, until_ns = self.target.url_of(path), time.perf_counter_ns() + int(timeout_s * 1e9)
        keep_bytes = HEAD_BYTES if body and body.get("stream") else BODY_LIMIT_BYTES
        for _ in range(4):
            left_s = (until_ns - time.perf_counter_ns()) / 1e9
            reply = self._exchange(method, url, data, left_s, sink, keep_bytes)
            if reply.status not in replies.REDIRECTS:
                return reply
            place = replies.redirected(url, reply)
            if place is None:
                break
            url = place
        return reply._replace(failure=replies.bad_redirect(reply.status))

    def _exchange(self, method: str, url: str, data: Optional[bytes], timeout_s: float,
                  sink: Optional[Callable[[bytes, int], None]], keep_bytes: int) -> replies.Reply:
        exchange = Exchange(self.in_flight, Deadline(timeout_s, self.in_flight.stopping),
                            self.addresses)
        request: Any = urllib.request.Request(url, data=data, method=method, headers=self.headers)
        request.exchange = exchange
        status, headers, failure, body = None, {}, None, None
        stream, head = sse.StreamParser(), b""
        try:
            response = self.opener.open(request, timeout=timeout_s)
            status, headers = response.status, {k.lower(): v for k, v in response.headers.items()}
            framing, length_bytes = (("chunked", 0) if response.chunked else ("close", 0)
                                     if response.length is None else ("length", response.length))
            body = sse.Body(framing, length_bytes)
            exchange.read_body(framing, length_bytes)
        except CallStopped as stopped:
            failure = None if stopped.args[0] == "ended" else stopped.args
        except (OSError, http.client.HTTPException, ValueError) as error:
            failure = replies.failure_of(error, bool(exchange.started_ns))
        finally:
            exchange.end()
        if body:
            head = sse.parse_body(body, exchange.raw, exchange.ends, exchange.cursor,
                                  sink or stream.feed, keep_bytes)
        return replies.reply_of(status, headers, head, stream, failure, exchange.arrivals())


def wall_offset_ns() -> int:
    """Wall clock minus monotonic clock, from the narrowest of five readings."""
    readings = []
    for _ in range(5):
        before, wall, after = time.perf_counter_ns(), time.time_ns(), time.perf_counter_ns()
        readings.append((after - before, wall - (before + after) // 2))
    return min(readings)[1]


CLOCKS = Clocks(time.perf_counter_ns, wall_offset_ns)


# --- asking the server what it is ----------------------------------------------------------------
def wait_for_server(client: Client, options: Options, url: Optional[str],
                    timeout_s: float) -> None:
    """Return when the endpoint answers; raise EndpointError with the remedy if it does not.

    url: None if no URL was given, and other ports were tried before.
    """
    until_s = time.monotonic() + timeout_s
    while True:
        reply = client.send("GET", "/v1/models", None, min(timeout_s, 30.0))
        if not discover.is_busy(reply) or time.monotonic() + LOADING_PAUSE_S > until_s:
            break
        time.sleep(LOADING_PAUSE_S)
    if not (reply.status and discover.found_api(client, reply)):
        discover.require_usable_server(reply, url, options, scan_ports, client)


def scan_ports(key: Optional[str] = None) -> list[Json]:
    """The servers on the usual loopback ports; on ::1 where 127.0.0.1 has none. key: for those that
    require one."""
    found = []
    for port in queries.USUAL_PORTS:
        for host in LOOPBACK:
            client = Client(cli.parse_target(f"{host}:{port}"))
            reply = client.send("GET", "/v1/models", None, SCAN_TIMEOUT_S)
            if reply.status is not None:
                needs_key = reply.status in discover.KEY_REFUSED and not key
                if reply.status in discover.KEY_REFUSED:
                    client = Client(client.target, key)
                found += [] if answers.is_web_page(reply.probe()) else [{**discover.describe(
                    client.send, client.target.base, int(CANONICAL_OPTIONS["num_ctx"])),
                    "needs_key": needs_key}]
                break
    return found


def prepare(options: Options, run_id: str, environment: Mapping[str, str], synthetic: bool,
            kept_awake_by: Optional[str] = None) -> tuple[Client, discover.Ready]:
    """Check names, suites and server; raises HarnessError if a run cannot begin."""
    manifests.require_valid_names(options)
    client = Client(cli.parse_target(options.target_url), cli.api_key(options, environment))
    redaction.hide(client.key)
    suites = load_suites()
    wait_for_server(client, options, options.target_url, options.timeout)
    return client, discover.prepare(client.send, options, manifests.RunContext(
        run_id, HARNESS_VERSION, CANONICAL_OPTIONS, suites, utc_now(), synthetic, client.target,
        client.addresses.first_ip(client.target), socket.gethostname(), kept_awake_by))


# --- calibration ---------------------------------------------------------------------------------
@contextlib.contextmanager
def reference_endpoint(*options: str) -> Iterator[cli.Target]:
    """The built-in endpoint as a child process, which ends with this one."""
    child = subprocess.Popen(
        [sys.executable, os.path.join(HERE, "reference_endpoint.py"), *options],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        creationflags=NO_WINDOW)
    try:
        started = json.loads(child.stdout.readline() or b"{}")      # type: ignore[union-attr]
        if "port" not in started:
            raise EndpointError("the endpoint does not start: " + command("reference_endpoint"))
        yield cli.parse_target(f"http://127.0.0.1:{started['port']}")
    finally:
        child.kill()
        child.communicate()


def calibrate(lanes: Sequence[int]) -> Json:
    """The fields of `instrument_calibrated`, measured with the built-in endpoint."""
    heartbeat = Heartbeat(HEARTBEAT_FINE_S)
    heartbeat.start()
    try:
        with reference_endpoint("--slots", str(max(lanes))) as target:
            return calibration.calibrate(Client(target).send, *CLOCKS, lanes, heartbeat.between)
    except (HarnessError, OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        return calibration.calibration(f"the calibration failed: {type(error).__name__}")
    finally:
        heartbeat.ended.set()


@contextlib.contextmanager
def quiet_interpreter() -> Iterator[None]:
    """No garbage collection while calls are made (it is done between phases)."""
    was_on = gc.isenabled()
    gc.collect()
    gc.freeze()
    gc.disable()
    keeper = socket.socket()             # while one socket wants stamps, the kernel stays ready
    request_kernel_stamps(keeper)
    try:
        yield
    finally:
        keeper.close()
        gc.unfreeze()
        if was_on:
            gc.enable()


# --- a whole run ---------------------------------------------------------------------------------
def open_run(folder: str, manifest: Manifest, is_new: bool, resume: str) -> LedgerWriter:
    """The locked ledger. Writes manifest.json of a new run; it is never written again."""
    path = os.path.join(folder, ledger_file.MANIFEST)
    try:
        os.makedirs(folder, exist_ok=True)
        ledger = LedgerWriter(os.path.join(folder, ledger_file.LEDGER), manifest["run_id"], resume)
        if is_new and os.path.exists(path):
            raise HarnessError(f"another process has just begun this run; to resume it: {resume}")
        if is_new:
            files.write_whole(path, ledger_file.dump_document(manifest))
    except OSError as error:
        raise plan_and_probe.unwritable(folder, error) from None
    return ledger


def do_run(options: Options, progress: Progress, environment: Mapping[str, str],
           synthetic: bool = False) -> int:
    """Make a run, or what is left of it, and print its results."""
    run_id = options.run_id or str(uuid.uuid4())
    folder = ledger_file.find_run(options.out_dir, run_id) if options.run_id else None
    earlier = ledger_file.read_manifest(folder) if folder else None
    if options.retry_failed and not earlier:
        raise HarnessError(f"--retry-failed: no run {run_id} in {printable(options.out_dir)}; pass "
                           "its id, and its --out-dir")
    if earlier:
        options = manifests.inherit_options(options, earlier)
    if not earlier or not folder:
        folder = os.path.join(options.out_dir, options.submitter_handle, options.device_tag,
                              f"run-{run_id}")
    resume, is_short = cli.next_command(options, run_id), synthetic or options.smoke
    with contextlib.ExitStack() as stack:
        method = None if is_short else stack.enter_context(awake.kept_awake())
        client, ready = prepare(options, run_id, environment, synthetic, method)
        if earlier:
            manifests.require_same_run(earlier, ready.manifest)
            ready = ready._replace(manifest=earlier)
        ledger = stack.enter_context(contextlib.closing(
            open_run(folder, ready.manifest, not earlier, resume)))
        events, resumed = ledger.recover(ready.manifest)
        manifest, added = manifests.with_added(ready.manifest, options, events, ready.suites)
        state = State(manifest, ready.suites, ready.served, options.retry_failed)
        state.recall(events)
        run = Run(client, state, ledger, CLOCKS, Heartbeat(HEARTBEAT_S), progress)
        for event in events:
            run.paces.take(event)
        if resumed["torn_bytes"] or not state.ended(events):
            begin_segment(ledger, ready.manifest, events, resumed, added)
            progress.say(plan_and_probe.begin_line(
                run_id, len(run.count.left_cells()), state.total,
                manifest if not (options.no_calibration or options.smoke) else None))
            with quiet_interpreter(), interruptible(run):
                carry_out(run, ready, options.no_calibration, not events)
                events = finish(run)
    progress.end()
    return print_end(ready.manifest, events, folder, resume, options)


def begin_segment(ledger: LedgerWriter, manifest: Manifest, events: Sequence[LedgerLine],
                  resumed: Json, added: Sequence[Phase]) -> None:
    """Write `run_started`; in a later segment, or after a torn first line, `run_resumed`."""
    shared = {"manifest_sha256": ledger_file.manifest_sha256(manifest)}
    if not events:
        ledger.write("run_started", **shared)
    if events or resumed["torn_bytes"]:
        ledger.segment = max(ledger.segment, 1)
        ledger.write("run_resumed", **shared, **resumed)
        files.remove(ledger.path + ".torn")           # its bytes are recorded now
    if added:
        ledger.write("phases_added", phases=added)


def carry_out(run: Run, ready: discover.Ready, no_calibration: bool, is_first: bool) -> None:
    """Everything between the first and the last line of a segment; raises HarnessError."""
    target, ledger, monitor = ready.manifest["target"], run.ledger, None
    is_local = target["class"] == "loopback"
    run.heartbeat.start()
    try:
        if not ready.manifest["smoke"]:
            if is_local:
                ledger.write("machine_identified", hardware=inventory.inventory(
                    measure=is_first and not no_calibration,
                    names=redaction.own_names(ready.manifest["submitter_handle"])))
            ledger.write("instrument_calibrated", **(
                calibration.calibration("--no-calibration") if no_calibration else
                calibrate(plan.calibrated_lanes(run.state.manifest["plan"]))))
            monitor = gauges.HostMonitor(
                target["port"] if is_local else None,
                lambda found: run.state.note_sample(ledger.write("host_sampled", **found)))
            run.sampler = monitor.sampler
        for model, probes in ready.probes.items():
            run.identify(model, probes)
        for note in ready.notes:
            run.progress.say(note)
        for model, reason in ready.skipped.items() if is_first else ():
            ledger.write("model_skipped", model=model, reason=reason)
        run.run_all()
    except HarnessError as stop:
        if monitor:
            monitor.close(False)
        if not isinstance(stop, StorageError):
            ledger.write("run_interrupted", reason=redaction.text(str(stop))[:300],
                         exit_code=stop.exit_code, in_flight=sorted(run.in_progress.values()))
            stop.args = (f"{stop}\nnext: {next_step(stop.exit_code, ledger.resume)}",)
        raise
    finally:
        run.heartbeat.ended.set()
    if monitor:
        monitor.close(True)


@contextlib.contextmanager
def interruptible(run: Run) -> Iterator[None]:
    """SIGINT and SIGTERM drop the calls in flight; a second one ends the program at once."""
    def on_signal(number: int, _: Any) -> None:
        run.signal_number = number
        signal.signal(number, signal.SIG_DFL)
        run.client.in_flight.drop_all()

    numbers = [signal.SIGINT, signal.SIGTERM, *(
        getattr(signal, name) for name in ("SIGBREAK",) if hasattr(signal, name))]
    before = [signal.signal(number, on_signal) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before):
            signal.signal(number, handler)


def finish(run: Run) -> list[Any]:
    """Write the last line; return all events of the run."""
    events, ledger = ledger_file.read_ledger(run.ledger.path).events, run.ledger
    return [*events, ledger.write(
        "run_finished", counts=ledger_file.counts(events), wall_us=ledger.now_us(),
        lines=ledger.seq, exit_code=int(not run.state.all_answered()),
        sha256=ledger.sha256.hexdigest())]


# --- other modes ---------------------------------------------------------------------------------
def do_rehearse(options: Options, progress: Progress, environment: Mapping[str, str]) -> int:
    """A run of all phases and models against the built-in endpoint."""
    with reference_endpoint() as target:
        return do_run(dataclasses.replace(
            options, target_url=target.base, api_key_env=None, models=options.models or "auto",
            phases=options.phases if "phases" in options.given else "all",
            given=options.given | {"target_url"}), progress, environment, synthetic=True)


def try_hello(options: Options, environment: Mapping[str, str], progress: Progress
              ) -> tuple[Run, list[str], Json]:
    """(a run that is not made, notes, one hello call to its first model, not recorded)."""
    client, ready = prepare(options, str(uuid.UUID(int=0)), environment, False)
    state = State(ready.manifest, ready.suites, ready.served, False)
    run = Run(client, state, ledger_file.NoLedger(time.perf_counter_ns), CLOCKS,
              Heartbeat(HEARTBEAT_S), Progress(None, False, False))
    for model, probes in ready.probes.items():
        run.identify(model, probes)
    hello = state.hello(next(iter(ready.served)), 0)
    progress.say(f"hello call to {readable(hello.model)} (at most {options.timeout:g} s)")
    return run, ready.notes, run.call(hello)


def do_probe(options: Options, progress: Progress, environment: Mapping[str, str]) -> int:
    """Show what is served, and one hello call; writes nothing."""
    # Not above: it would delay the start of each run.
    from compare import wanted

    url = options.target_url if "target_url" in options.given else None
    key = cli.api_key(options, environment)
    redaction.hide(key)
    found = [] if url else scan_ports(key)
    if not found:
        client = Client(cli.parse_target(options.target_url), key)
        wait_for_server(client, options, url, discover.ASK_TIMEOUT_S)
        found = [discover.describe(client.send, options.target_url, options.num_ctx)]
    hello, models = None, options.models
    if not options.json:                 # now, since a hello may take minutes
        print_text(plan_and_probe.served_text(found, options))
    if len(found) == 1:
        models = models or discover.to_greet(found[0]["models"])
        if models or not found[0]["models"]:
            hello = try_hello(dataclasses.replace(options, target_url=found[0]["url"],
                                                  models=models), environment, progress)[2]
    hardware = None if url else inventory.inventory(measure=False)
    wishes = wanted.here(DEFAULT_OUT, hardware) if hardware else []
    tag = wanted.device_tag(hardware) if hardware and "device_tag" not in options.given else None
    print_result(options.json,
                 {"endpoints": found, "hello": hello, "wanted": wishes, "device_tag": tag},
                 "\n".join([*wishes, *([f"A device tag for this machine: {tag}"] if tag else []),
                            plan_and_probe.hello_text(found, hello, options)]))
    return int(hello is not None and hello["outcome"] != "ok")


def do_plan(options: Options, progress: Progress, environment: Mapping[str, str]) -> int:
    """Show the planned calls and, after hello calls, how long they may take; writes nothing."""
    run, notes, hello = try_hello(options, environment, progress)
    manifest, cells = run.state.manifest, run.state.planned
    for model, served in run.state.served.items():  # the first call of each may load the model
        progress.say(f"warm call to {readable(model)}")
        first = hello if model == manifest["models"][0] else run.call(run.state.hello(model, 0))
        if first["outcome"] == "ok":
            run.paces.learn(cast(CallFinished, run.call(run.state.hello(model, 0))))
        notes.append(run.identify(model, discover.ask_again(
            run.client.send, run.state.engine, served, run.probes[model])))
    found = run.paces.estimate(cells)
    fewer = [run.paces.estimate(cell for cell in cells if cell.phase in names)
             for names in plan_and_probe.SHORTER]
    print_result(options.json, {"manifest": manifest, "calls": len(cells), "hello": hello,
                                "estimate": found and found._asdict()},
                 plan_and_probe.plan_text(manifest, len(cells), found, fewer,
                                          list(filter(None, notes)), options))
    return int(hello["outcome"] != "ok")


def do_detach(options: Options, words: Sequence[str]) -> int:
    """The same run in a session (0x200: process group) of its own; returns when it has begun."""
    run_id = options.run_id or str(uuid.uuid4())
    argv = [word for word in words if word != "--detach"] + ["--run-id", run_id]
    argv += ["--out-dir", options.out_dir] if "out_dir" in options.given else []
    log_path = os.path.join(tempfile.gettempdir(), f"run-{run_id}.log")
    own: Json = {"creationflags": NO_WINDOW | 0x200} if NO_WINDOW else {"start_new_session": True}
    with open(log_path, "ab") as log:    # begun by an earlier process
        begin = log.tell()
        child = subprocess.Popen([sys.executable, os.path.abspath(__file__), *argv],
                                 stdin=subprocess.DEVNULL, stdout=log, stderr=log, **own)
    until_s, begun = time.monotonic() + DETACH_WAIT_S, False
    while child.poll() is None and not begun and time.monotonic() < until_s:
        time.sleep(0.05)
        begun = wait_and_stop.is_under_way(options.out_dir, run_id)
    if child.returncode not in (None, 0, 1):
        sys.stderr.write(files.read(log_path)[begin:].decode("ascii", "backslashreplace")[-4000:])
        return int(child.returncode)
    begun, follow = begun or child.returncode is not None, cli.next_command(options, run_id, "100")
    state = "started in the background" if begun else "has not started yet; its log shows why"
    folder = ledger_file.find_run(options.out_dir, run_id)
    where = f"run folder: {folder}\n" if folder else ""
    print_result(options.json, {"run_id": run_id, "begun": begun, "folder": folder,
                                "log": log_path, "next": follow},
                 f"run {run_id} {state}\n{where}log: {log_path}\nnext: {follow}")
    return 0


def build_parser() -> Parser:
    """The command line; see run/cli.py."""
    return cli.build_parser(__doc__, DEFAULTS)


def main(argv: Optional[Sequence[str]] = None,
         environment: Mapping[str, str] = os.environ) -> int:
    """Run the program; return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    options = cli.parse_options(build_parser(), words, DEFAULTS)
    progress = Progress.on(sys.stderr, options.quiet, environment)
    try:
        if options.rehearse and "out_dir" not in options.given:
            options = dataclasses.replace(options, out_dir=tempfile.mkdtemp(prefix="rehearsal-"),
                                          given=options.given | {"out_dir"})
        if options.wait:
            return wait_and_stop.follow(options, progress, load_suites())
        if options.stop:
            return wait_and_stop.stop(options)
        if options.detach:
            return do_detach(options, words)
        mode = (do_probe if options.probe else do_plan if options.plan else
                do_rehearse if options.rehearse else do_run)
        return mode(options, progress, environment)
    except (HarnessError, OSError) as error:
        progress.end()
        print_error(f"run_benchmark: {error_text(error)}")
        return getattr(error, "exit_code", StorageError.exit_code)
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
