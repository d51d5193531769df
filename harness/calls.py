"""What one exchange with the server came to: from bytes and stamps to the fields of a ledger line.

The runner reads and stamps; after a response has ended it hands what it has to these functions.
Here is decided which clock's stamps count, what the marks of a call are, whether it is an answer or
which kind of failure, and what the calibration says of the client's own error.
"""
from __future__ import annotations

import array
import bisect
import json
import operator
import queue
import re
import socket
import threading
import time
import urllib.error
import urllib.parse
from collections.abc import Iterable, Sequence
from typing import Any, Callable, NamedTuple, Optional

import engines
import metrics
import privacy
import wire

CLOCK_STEP_NS = 1_000_000     # a wall clock that moved by more makes kernel stamps useless
MAX_MESSAGE = 300
MAX_BODY_START = 500

Json = dict[str, Any]


class Arrivals(NamedTuple):
    """When one response came: nanoseconds of the monotonic clock.

    kernel_ns is on the wall clock, 0 where the kernel gave no stamp. header_reads: how many reads
    it took until the header was complete; body_in_header: whether the last brought body, too.
    """

    started_ns: int
    sent_ns: int
    connect_us: Optional[int]
    user_ns: Sequence[int]
    kernel_ns: Sequence[int]
    header_reads: int
    body_in_header: bool
    bytes_received: int


class Reply(NamedTuple):
    """What came back. failure is (kind, message) where the exchange itself failed; arrivals is None
    where no request left; head holds the first bytes of the body; inline tells of thinking that led
    the answer in tags and was taken out of it."""

    status: Optional[int]
    headers: dict[str, str]
    head: bytes
    stream: wire.StreamParser
    failure: Optional[tuple[str, str]]
    arrivals: Optional[Arrivals]
    inline: bool = False

    def json(self) -> Any:
        """The body as JSON, None where it is none."""
        try:
            return json.loads(self.head)
        except (ValueError, RecursionError):
            return None


class Stamps(NamedTuple):
    """When each read arrived, by the better of two clocks.

    us: since the request was handed over, never going back; lag_us: how late the reads of the body
    were behind the kernel; step_us: by how much the wall clock was set meanwhile.
    """

    us: list[int]
    kind: str
    lag_us: list[int]
    step_us: int


# --- stamps and marks ----------------------------------------------------------------------------
def stamps_of(arrivals: Arrivals, offset_before_ns: int, offset_after_ns: int) -> Stamps:
    """The kernel's stamps where every read has one and the wall clock stood still, else ours.

    The offsets are wall clock minus monotonic clock, read before and after the call. A kernel stamp
    later than the read it belongs to would mean a wrong offset; up to 1 ms of it is the offset's
    own error and counts as a lag of 0.
    """
    step_ns = offset_after_ns - offset_before_ns
    lags_ns = [user - (kernel - offset_before_ns) for user, kernel in
               zip(arrivals.user_ns, arrivals.kernel_ns)]
    kernel = (bool(lags_ns) and all(arrivals.kernel_ns) and abs(step_ns) < CLOCK_STEP_NS
              and min(lags_ns) > -CLOCK_STEP_NS)
    us, latest = [], 0
    for user, lag in zip(arrivals.user_ns, lags_ns):
        at_ns = user - (max(lag, 0) if kernel else 0) - arrivals.started_ns
        latest = max(latest, at_ns // 1000)
        us.append(latest)
    body_lags = [max(lag, 0) // 1000 for lag in lags_ns[max(arrivals.header_reads - 1, 0):]]
    return Stamps(us, "kernel" if kernel else "user", body_lags if kernel else [],
                  step_ns // 1000 if abs(step_ns) >= CLOCK_STEP_NS else 0)


def timing_of(reply: Reply, offset_before_ns: int, offset_after_ns: int, zero_ns: int,
              heartbeat_gap_us: Optional[int]) -> Optional[Json]:
    """The `timing` of a ledger line; None where no request left. zero_ns: the segment's zero."""
    arrivals = reply.arrivals
    if arrivals is None:
        return None
    stamps = stamps_of(arrivals, offset_before_ns, offset_after_ns)
    us, headers = stamps.us, arrivals.header_reads
    body_us = us[headers - arrivals.body_in_header:] if headers else []
    text = wire.timing_of(reply.stream, us)
    # A thread that lost its CPU in the sending notes its end late: after the kernel's stamps even.
    sent_us = max(arrivals.sent_ns - arrivals.started_ns, 0) // 1000
    return {"started_us": (arrivals.started_ns - zero_ns) // 1000,
            "connect_us": arrivals.connect_us,
            "sent_us": sent_us if not headers else min(sent_us, us[headers - 1]),
            "headers_us": us[headers - 1] if headers else None,
            "first_chunk_us": body_us[0] if body_us else None,
            **{name: text[name] for name in ("first_token_us", "first_answer_us", "last_token_us")},
            "done_us": us[-1] if us else None,
            **{name: text[name] for name in ("chunk_us", "chunk_kinds", "reads",
                                             "ttft_null_reason")},
            "bytes_received": arrivals.bytes_received, "stamp": stamps.kind,
            "read_lag_us": wire.spread(stamps.lag_us), "clock_step_us": stamps.step_us,
            "heartbeat_gap_us": heartbeat_gap_us}


# --- what was answered ---------------------------------------------------------------------------
def outcome_of(reply: Reply, secret: Optional[str] = None) -> tuple[str, Optional[Json]]:
    """("ok", None), or an error kind with what is told about it: no address, no `secret` in it."""
    body, stream = without(secret, reply.head.decode("utf-8", "replace")), reply.stream

    def error(kind: str, message: str) -> tuple[str, Json]:
        start = privacy.redact(body[:MAX_BODY_START])[:MAX_BODY_START]
        return kind, {"kind": kind, "message": privacy.redact(message)[:MAX_MESSAGE],
                      "status": reply.status, "body_start": start or None}

    # Some servers break the connection after a whole answer instead of closing it, or never do.
    whole = reply.status == 200 and stream.error is None and stream.finish_reason
    if reply.failure and not (whole and (stream.done or reply.failure[0] == "connection_lost")):
        return error(*reply.failure)
    if reply.status != 200:
        return error(engines.error_kind(reply.status, body),
                     engines.error_message(body) or f"HTTP {reply.status}, without a word why")
    if stream.error is not None or stream.finish_reason == "error":
        text = json.dumps({"error": wire.plain(without(secret, stream.error))})
        about_context = engines.error_kind(200, text) == "context_limit"
        return error("context_limit" if about_context else "stream_error",
                     engines.error_message(text) or "an error in the stream, without a word why")
    if not stream.events:
        return (error("no_events", "the server answered 200 and sent no event")
                if not body.strip() else
                error("bad_response", "the server answered 200 with something else than events"))
    if not stream.finish_reason:
        return error("interrupted_answer", "the stream ended without a finish_reason")
    return "ok", None


def reasoning_of(reply: Reply) -> Json:
    """How the model's thinking reached us: streamed apart, inline, hidden, or none."""
    stream = reply.stream
    chunks = stream.kinds.count("r")
    details = (stream.usage or {}).get("completion_tokens_details")
    counted = details.get("reasoning_tokens") if isinstance(details, dict) else None
    hidden = isinstance(counted, int) and not isinstance(counted, bool) and counted > 0
    mode = "inline" if reply.inline else "streamed" if chunks else "hidden" if hidden else "none"
    return {"mode": mode, "chunks": chunks, "characters": len(stream.text_of("r"))}


def response_of(reply: Reply, secret: Optional[str] = None) -> Optional[Json]:
    """The `response` of a ledger line, `secret` taken out; None where no response came."""
    if reply.status is None:
        return None
    stream = reply.stream
    told = {name: wire.plain(getattr(stream, name)) for name in (
        "finish_reason", "model", "system_fingerprint", "usage", "server_timings")}
    if told["model"] is not None:
        told["model"] = engines.published_model_id(told["model"])
    found: Json = without(secret, {
        "http_status": reply.status, "text": whole_text(stream.text_of("a")),
        "reasoning_text": whole_text(stream.text_of("r")), **told})
    return found


def without(secret: Optional[str], value: Any) -> Any:
    """Any JSON value with `secret` (a key that a server repeats) taken out of all its texts."""
    if not secret:
        return value
    if isinstance(value, str):
        return value.replace(secret, "<redacted:key>")
    if isinstance(value, list):
        return [without(secret, item) for item in value]
    if isinstance(value, dict):
        return {without(secret, name): without(secret, held) for name, held in value.items()}
    return value


def whole_text(text: str) -> str:
    """Halves of a surrogate pair that came in two chunks joined; a lone half becomes U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def prompt_tokens_of(usage: Any) -> Optional[int]:
    """usage.prompt_tokens where it is a positive whole number."""
    tokens = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens > 0 \
        else None


def call_flags(reply: Reply, asked_model: str) -> list[str]:
    """What one answer shows that metrics.py cannot see in its record."""
    told = reply.stream.model
    if isinstance(told, str) and not _same_model(told, asked_model):
        return ["model_mismatch"]
    return []


def _same_model(told: str, asked: str) -> bool:
    """`qwen` and `qwen:latest` or `qwen@main`, a path and its last part, another case: the same."""
    names = [engines.published_model_id(name).lower() for name in (told, asked)]
    plain = [re.sub(r":latest$|@[^/@]*$", "", name) for name in names]
    return plain[0] == plain[1] or plain[0].rpartition("/")[2] == plain[1].rpartition("/")[2]


# --- the calibration -----------------------------------------------------------------------------
_SENT = re.compile(rb'"sent_ns": *(\d+)')
_CALL_ID = re.compile(rb'"id": *"chatcmpl-(\d+)"')


class SentStamps:
    """Takes the payload of a stream whose chunks say when they were sent.

    `feed` fits where a parser's would; `pairs` gives (read, sent_ns) of the last chunk of each
    read, since a read that brought several has one stamp, that of its last bytes.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._ends: list[int] = []
        self._reads: list[int] = []
        self._total = 0

    def feed(self, payload: bytes, read: int) -> None:
        """One read's payload."""
        self._pieces.append(payload)
        self._total += len(payload)
        self._ends.append(self._total)
        self._reads.append(read)

    def pairs(self) -> list[tuple[int, int]]:
        """See the class; in order."""
        last: dict[int, int] = {}
        for match in _SENT.finditer(b"".join(self._pieces)):
            last[self._reads[bisect.bisect_left(self._ends, match.end())]] = int(match[1])
        return sorted(last.items())

    def call_id(self) -> int:
        """The number that the endpoint gave this call, 0 where it gave none."""
        found = _CALL_ID.search(b"".join(self._pieces[:4]))
        return int(found[1]) if found else 0

    def count(self) -> int:
        """How many chunks came."""
        return len(_SENT.findall(b"".join(self._pieces)))


def calibration_row(streams: Iterable[tuple[Reply, SentStamps, Stamps]], lanes: int, gap_us: int,
                    clock_offset_ns: int) -> tuple[str, Json]:
    """(whose stamps, row of `instrument_calibrated`) of one scheduled stream a lane."""
    lags: list[int] = []
    firsts: list[int] = []
    read_lags: list[int] = []
    chunks, kinds = 0, set()
    for reply, sent, stamps in streams:
        assert reply.arrivals is not None
        found = lags_us(sent.pairs(), stamps.us, reply.arrivals.started_ns, clock_offset_ns)
        lags += found
        firsts += found[:1]
        read_lags += stamps.lag_us
        chunks += sent.count()
        kinds.add(stamps.kind)
    return "kernel" if kinds == {"kernel"} else "user", {
        "lanes": lanes, "chunks": chunks, "gap_us": gap_us, "lag_us": wire.spread(lags),
        "read_lag_us": wire.spread(read_lags), "ttft_error_us": wire.spread(firsts)}


def calibration(reason: Optional[str], **found: Any) -> Json:
    """The fields of `instrument_calibrated`; without findings, all null and a reason."""
    names = ("stamp", "clock_resolution_ns", "lanes", "saturation", "clock_offset_us",
             "heartbeat_overshoot_us", "wall_ms")
    return {**dict.fromkeys(names), "lanes": [], "saturation": [], **found, "reason": reason}


def lags_us(pairs: Iterable[tuple[int, int]], us_of_read: Sequence[int], started_ns: int,
            clock_offset_ns: int) -> list[int]:
    """Stamp minus sending of each read, in µs, not below 0.

    clock_offset_ns: our clock minus that of the sender.
    """
    return [max(us_of_read[read] - (sent_ns + clock_offset_ns - started_ns) // 1000, 0)
            for read, sent_ns in pairs]


def clock_offset_ns(readings: Iterable[tuple[int, int, int]]) -> tuple[int, int]:
    """(our clock minus theirs, bound of its error) from (before, theirs, after) readings in ns.

    The narrowest reading decides. Where it cannot tell the clocks apart they are one: the monotonic
    clocks of Linux, macOS and Windows are the whole system's.
    """
    before, theirs, after = min(readings, key=lambda r: r[2] - r[0])
    offset, bound = (before + after) // 2 - theirs, (after - before + 1) // 2
    return (0 if abs(offset) <= bound else offset), bound


# --- was it cached? ------------------------------------------------------------------------------
CACHED_TTFT_SHARE = 0.5       # of the first time's TTFT: a prompt that is read in half the time
# Where the server counts its cached tokens and found few: other load that has ended since can halve
# the time, and a cache takes nearly all of it.
DENIED_TTFT_SHARE = 0.2


def cache_probe(kind: str, reply: Reply, timing: Optional[Json]) -> Json:
    """One of `cache_probed`'s probes."""
    response = response_of(reply) or {}
    return {"kind": kind, "outcome": outcome_of(reply)[0],
            "first_token_us": timing["first_token_us"] if timing else None,
            "prompt_tokens": prompt_tokens_of(response.get("usage")),
            "cached_tokens": metrics.cached_tokens({"response": response})}


def cache_verdicts(longest: Optional[tuple[int, Any]], probes: Sequence[Json]) -> Json:
    """The fields of `cache_probed` but the model.

    longest: (time to first token in the run in µs, cell) of the prompt that was asked again. The
    first probe decides; the second is what a cache that works would do with identical bytes.
    """
    run_us, cell_id = (longest[0], longest[1].cell_id) if longest else (None, None)
    found = [_cache_verdict(run_us, probe) for probe in probes] or [
        ("unknown", "no call on one lane whose prompt could be asked again")]
    return {"cell_id": cell_id, "run_first_token_us": run_us, "probes": list(probes),
            "verdict": found[0][0], "control": found[1][0] if len(found) > 1 else "unknown",
            "reason": found[0][1]}


def _cache_verdict(run_us: Optional[int], probe: Json) -> tuple[str, str]:
    prompt, cached, first_us = (probe[k] for k in ("prompt_tokens", "cached_tokens",
                                                   "first_token_us"))
    if probe["outcome"] != "ok" or first_us is None:
        return "unknown", f"the probe brought no text ({probe['outcome']})"
    if metrics.counts_as_cached(cached, prompt):
        return "cached", f"{cached} of {prompt} prompt tokens came from a cache, says the server"
    share = CACHED_TTFT_SHARE if cached is None else DENIED_TTFT_SHARE
    if run_us and first_us < share * run_us:
        return "cached", f"its first token came after {first_us} us, in the run after {run_us} us"
    return "not_cached", f"its first token came after {first_us} us, in the run after {run_us} us"


# --- what to do about it -------------------------------------------------------------------------
RETRY_STATUSES = (429, 503)
RETRY_PAUSE_S = 1.0           # at least, also where the server names no Retry-After, or 0
MAX_ATTEMPTS = 1000           # as many as a ledger line holds


def retry_pause_s(reply: Reply, attempts: int) -> Optional[float]:
    """How long to wait before the call is tried again, after so many `attempts` before this one;
    None where it is not to be tried again."""
    if reply.status not in RETRY_STATUSES or reply.failure or attempts >= MAX_ATTEMPTS:
        return None
    asked = reply.headers.get("retry-after", "")
    return max(float(asked) if re.fullmatch(r"\d{1,6}", asked) else 0.0, RETRY_PAUSE_S)


REDIRECTS = (301, 302, 303, 307, 308)


def redirected(url: str, reply: Reply) -> Optional[str]:
    """Where the same request is to be sent again.

    None where it must not go: the redirect turns it into a GET, leads to another origin (which
    would get the key), or to no URL at all.
    """
    place = reply.headers.get("location", "")
    if reply.status not in (307, 308) or not re.fullmatch(r"[\x21-\x7e]+", place):
        return None
    try:
        place = urllib.parse.urljoin(url, place)
    except ValueError:
        return None
    return place if origin(place) == origin(url) else None


def bad_redirect(status: Optional[int]) -> tuple[str, str]:
    """The failure of a call that was redirected where it must not go, or too often."""
    return "bad_redirect", (f"the server redirects (HTTP {status}) to another place or method, or "
                            "in a circle; name the final URL in --target-url")


def met_no_server(reply: Reply) -> bool:
    """Whether a call found nobody: no connection, or one that was closed without a byte, as by a
    forwarder whose server is gone. A server that is silent until the time is up is still there."""
    if reply.failure is None or reply.status is not None:
        return False
    return reply.arrivals is None or (reply.failure[0] == "connection_lost"
                                      and not reply.arrivals.bytes_received)


# --- what went wrong below HTTP ------------------------------------------------------------------
def origin(url: str) -> tuple[str, Optional[str], Optional[int]]:
    """(scheme, host, port) of a URL; nothing fits ("", None, None), which a broken one has."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", None, None
    return parts.scheme, parts.hostname, port


def failure_of(error: BaseException, sent: bool) -> tuple[str, str]:
    """(kind, message) of an exception while a request was made; the message names no address."""
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    text = getattr(reason, "strerror", None) or type(reason).__name__
    refused = re.match(r"Tunnel connection failed: (\d{3})", str(reason))
    if isinstance(reason, socket.timeout):
        return "timeout", "the call's time was up"
    if refused:
        return "connect_failed", f"no connection: the proxy refuses it (HTTP {refused[1]})"
    if not sent:
        return "connect_failed", f"no connection: {text}"
    if isinstance(reason, OSError):
        return "connection_lost", f"the connection broke: {text}"
    return "bad_response", f"not HTTP as anybody knows it: {text}"


def reply_of(status: Optional[int], headers: dict[str, str], digest: Optional[Digest],
             stream: wire.StreamParser, failure: Optional[tuple[str, str]],
             arrivals: Optional[Arrivals]) -> Reply:
    """What an exchange came to, once its last byte was parsed. Thinking inside the answer is told
    apart before anybody asks for texts or marks."""
    stream.close(max(len(arrivals.user_ns) - 1, 0) if arrivals else 0)
    return Reply(status, headers, bytes(digest.head if digest else b""), stream, failure, arrivals,
                 stream.mark_inline_reasoning())


# --- bytes on their way to the parser ------------------------------------------------------------
class Side(threading.Thread):
    """Does on the side, one after the other, what lanes have no time for."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self.start()

    def run(self) -> None:
        """Takes functions from `work` for as long as the program lives."""
        while True:
            self.work.get()()


class Reads:
    """What one read after the other brought: the bytes, joined; bytes received up to and with each
    read; ns when it returned; and the kernel's own stamp of it, 0 where there is none."""

    def __init__(self) -> None:
        self.raw = bytearray()
        self.ends, self.user_ns, self.kernel_ns = (array.array("q") for _ in range(3))

    def stamps(self) -> tuple[Sequence[int], Sequence[int]]:
        """user_ns and kernel_ns of all reads."""
        return self.user_ns, self.kernel_ns


class Digest:
    """Raw bytes of one body on their way to `sink(payload, read)`; keeps the first of them, and the
    stamps of all, packed.

    `elsewhere` runs a function on another thread, in order; long streams are parsed there, in
    slices, so that their bytes need not be kept. at: bytes of the response ahead of its body, in
    one read or more, which are the first that are handed over.
    """

    SLICE_BYTES = 8192            # a fraction of a millisecond of parsing

    def __init__(self, body: wire.Body, sink: Callable[[bytes, int], None], keep_bytes: int,
                 elsewhere: Callable[[Callable[[], None]], None], at: int) -> None:
        self._body, self._sink, self._keep_bytes = body, sink, keep_bytes
        self._elsewhere = elsewhere
        self._at, self._base, self._passed = at, 0, False
        self._user_ns, self._ahead_ns = wire.Column(), wire.Column()
        self.head = bytearray()

    def pass_on(self, reads: Reads) -> None:
        """What has come since the last time is parsed elsewhere."""
        self._passed = True
        self._elsewhere(lambda: self._take(reads))

    def finish(self, reads: Reads) -> None:
        """The stream has ended: everything is parsed when this returns."""
        if self._passed:
            done = threading.Event()
            self._elsewhere(done.set)
            done.wait()
        self._take(reads)

    def stamps(self) -> tuple[list[int], list[int]]:
        """user_ns and kernel_ns of all reads so far."""
        user_ns = self._user_ns.tolist()
        return user_ns, [user + ahead for user, ahead in zip(user_ns, self._ahead_ns.tolist())]

    def _take(self, reads: Reads) -> None:
        first, base, sliced = len(self._user_ns), self._base, 0
        for read, end in enumerate(reads.ends, first):
            payload = self._body.feed(bytes(reads.raw[self._at - base:end - base]))
            self._at = max(end, self._at)
            if len(self.head) < self._keep_bytes:
                self.head += payload[:self._keep_bytes - len(self.head)]
            self._sink(payload, read)
            sliced += len(payload)
            if sliced > self.SLICE_BYTES:
                sliced = 0
                time.sleep(0)      # gives the interpreter lock to a lane that waits with data
        self._base += len(reads.raw)
        self._user_ns.extend(reads.user_ns)
        self._ahead_ns.extend(map(operator.sub, reads.kernel_ns, reads.user_ns))
