"""What one exchange with the server came to: from bytes and stamps to the fields of a ledger line.

The runner reads and stamps; after a response has ended it hands what it has to these functions.
Here is decided which clock's stamps count, what the marks of a call are, whether it is an answer or
which kind of failure, and what the calibration says of the client's own error.
"""
from __future__ import annotations

import json
import re
import socket
import urllib.error
import urllib.parse
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from core import metrics, privacy
from engines import answers, server_errors

from run import sse

Json = dict[str, Any]

MAX_MESSAGE = 300
MAX_BODY_START = 500


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
    stream: sse.StreamParser
    failure: Optional[tuple[str, str]]
    arrivals: Optional[Arrivals]
    inline: bool = False

    def json(self) -> Any:
        """The body as JSON, None where it is none."""
        try:
            return json.loads(self.head)
        except (ValueError, RecursionError):
            return None


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
        return error(server_errors.error_kind(reply.status, body),
                     server_errors.error_message(body) or f"HTTP {reply.status}, without a word why")
    if stream.error is not None or stream.finish_reason == "error":
        text = json.dumps({"error": sse.bounded(without(secret, stream.error))})
        about_context = server_errors.error_kind(200, text) == "context_limit"
        return error("context_limit" if about_context else "stream_error",
                     server_errors.error_message(text) or "an error in the stream, without a word why")
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
    told = {name: sse.bounded(getattr(stream, name)) for name in (
        "finish_reason", "model", "system_fingerprint", "usage", "server_timings")}
    if told["model"] is not None:
        told["model"] = answers.published_model_id(told["model"])
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
    names = [answers.published_model_id(name).lower() for name in (told, asked)]
    plain = [re.sub(r":latest$|@[^/@]*$", "", name) for name in names]
    return plain[0] == plain[1] or plain[0].rpartition("/")[2] == plain[1].rpartition("/")[2]


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


def reply_of(status: Optional[int], headers: dict[str, str], head: bytes,
             stream: sse.StreamParser, failure: Optional[tuple[str, str]],
             arrivals: Optional[Arrivals]) -> Reply:
    """What an exchange came to, once its last byte was parsed. Thinking inside the answer is told
    apart before anybody asks for texts or marks."""
    stream.close(max(len(arrivals.user_ns) - 1, 0) if arrivals else 0)
    return Reply(status, headers, head, stream, failure, arrivals,
                 stream.mark_inline_reasoning())
