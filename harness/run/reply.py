"""Turn one reply of the server into an outcome and the `response` of its ledger line.

Which fields of a message hold its text, and which its reasoning, is in run/sse.py.
Also decides what to do about it: follow a redirect, or call it a failure.
"""
from __future__ import annotations

import json
import re
import socket
import urllib.error
import urllib.parse
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from core import metrics, records, usage
from core.plan import Cell
from core.text import printable
from engines import answers, server_errors
from run import redaction, sse
from run.timing import Arrivals, coarse

MAX_MESSAGE = 300
MAX_BODY_START = 500
MAX_SEEN = 60                 # characters of an unreadable body that its message shows

# Reasons that end an answer as asked; all others (abort, content_filter, load ...) are no answer.
STOPPED = ("stop", "eos", "eos_token", "end_turn", "stop_sequence", "stop_token", "end", "done",
           "finished", "completed", "complete", "finish", "generated", "stopped", "stopped_eos",
           "stopped_word", "stop_str", "stop_string", "eot", "endoftext", "end_of_text")
AT_LIMIT = ("length", "max_tokens", "max_length", "max_new_tokens", "max_output_tokens", "limit",
            "max_completion_tokens", "stopped_limit", "token_limit")
CALLED_TOOLS = ("tool_calls", "tool_call", "tool_use", "function_call")
BUSY = ("rate_limited", "server_busy")        # kinds of failures after which a call is tried again
# What was removed from a stream, and how it ended.
STREAM_FLAGS = ("foreign_text", "repeated_text", "left_open")
NO_REASONS = ("", "null", "none")     # written by servers that have no reason to report


class Reply(NamedTuple):
    """One reply of the server.

    head: the first bytes of the body; failure: (kind, message) if the exchange itself failed;
    arrivals: None if no request was sent; inline: thinking in tags was separated from the answer.
    """

    status: Optional[int]
    headers: dict[str, str]
    head: bytes
    stream: sse.StreamParser
    failure: Optional[tuple[str, str]]
    arrivals: Optional[Arrivals]
    inline: bool = False

    def json(self) -> Any:
        """Return the body as JSON, None if it is not valid JSON."""
        try:
            return json.loads(self.head)
        except (ValueError, RecursionError):
            return None

    def text(self) -> str:
        """Return the first bytes of the body as text."""
        return self.head.decode("utf-8", "replace")

    def probe(self) -> answers.Probe:
        """Return the reply as engines/ reads it."""
        return answers.Probe(self.status, self.headers, self.json(), self.text())


def reply_of(status: Optional[int], headers: dict[str, str], head: bytes, stream: sse.StreamParser,
             failure: Optional[tuple[str, str]], arrivals: Optional[Arrivals]) -> Reply:
    """Close the stream, separate inline thinking from the answer, and return the reply.

    A whole answer is not a failure because the server leaves its stream open.
    """
    stream.close(max(len(arrivals.user_ns) - 1, 0) if arrivals else 0)
    if failure and failure[0] == "timeout" and stream.at_end and not stream.done:
        failure, stream.flags = None, ["left_open"]
    stream.remove_foreign_text([(at_ns - arrivals.started_ns) / 1e6 for at_ns in arrivals.user_ns]
                               if arrivals else [])
    stream.remove_repeated_text()
    return Reply(status, headers, head, stream, failure, arrivals, stream.mark_inline_reasoning())


# --- outcome and response ------------------------------------------------------------------------
def outcome_of(reply: Reply) -> tuple[str, Optional[records.Error]]:
    """Return ("ok", None), or the kind of error and its details without private values."""
    body: str = redaction.without_keys(reply.text())
    stream = reply.stream

    def error(kind: str, message: str) -> tuple[str, records.Error]:
        start = redaction.text(body[:MAX_BODY_START])[:MAX_BODY_START]
        return kind, {"kind": kind, "message": redaction.text(message)[:MAX_MESSAGE],
                      "status": reply.status, "body_start": start or None}

    reason = reason_of(stream.finish_reason)
    # A server that never sends a reason ends its answer with its token counts, with [DONE], or with
    # the end of its JSON.
    ended = is_complete(reason) or reason is None and bool(stream.texts) and (
        stream.done or stream.at_end or not stream.streamed and not reply.failure)
    # Some servers break the connection after a complete answer.
    complete = reply.status == 200 and stream.error is None and ended
    if reply.failure and not (
            complete and (stream.done or reply.failure[0] == "connection_lost")):
        return error(*reply.failure)
    if reply.status != 200 or not stream.events and server_errors.is_loading(200, body):
        return error(server_errors.error_kind(reply.status, body),
                     server_errors.error_message(body) or f"HTTP {reply.status} (no error message)")
    if stream.error is not None or reason == "error":
        text = json.dumps({"error": sse.bounded(redaction.without_keys(stream.error))})
        kind = server_errors.error_kind(200, text)
        known = kind == "context_limit" or kind in BUSY and not stream.texts
        return error(kind if known else "stream_error",
                     server_errors.error_message(text) or "error in the stream (no error message)")
    if not stream.events and not body.strip():
        return error("no_events", "the server answered 200 and sent no event")
    packed = reply.headers.get("content-encoding", "identity")
    if not stream.events and packed != "identity":
        return error("bad_response", "the server compresses its answers (Content-Encoding: "
                     f"{printable(packed, 60)}) although the request forbids it; turn it off for "
                     "text/event-stream")
    if not stream.events or not (stream.texts or stream.done or '"choices"' in body):
        seen = printable(body.strip(), MAX_SEEN)
        return error("bad_response", "the server answered 200, but not with events of a chat "
                     f"completion; the answer begins with '{seen}'")
    if not ended and reason is None:
        return error("interrupted_answer", "the stream ended without a finish_reason")
    if not ended:
        return error("interrupted_answer", "the server ended the answer early: finish_reason is "
                     f"'{printable(reason or '', 60)}'")
    counted = usage.counts(response_of(reply))
    if not stream.texts and reason in AT_LIMIT and counted.completion == 0:
        return error("context_limit", "the context has no room for an answer: the server answered "
                     f"200 with finish_reason {reason} and no token")
    if not stream.texts and not counted.reasoning and reason not in CALLED_TOOLS:
        shown = "no token count" if counted.completion is None else \
            f"{counted.completion} tokens by its count"
        return error("empty_answer", f"the server answered 200 with finish_reason {reason}, "
                     f"{shown}, and without any text")
    return "ok", None


def interrupted(status: Optional[int]) -> tuple[str, records.Error]:
    """The failure of an answer without a finish_reason from a server that gives them."""
    return "interrupted_answer", {
        "kind": "interrupted_answer", "status": status, "body_start": None,
        "message": "the stream ended without a finish_reason; earlier answers had one"}


def reason_of(finish_reason: Optional[str]) -> Optional[str]:
    """A finish_reason in lower case, or None for one of NO_REASONS."""
    reason = (finish_reason or "").strip().lower()
    return None if reason in NO_REASONS else reason


def is_complete(reason: Optional[str]) -> bool:
    """Whether a reason (of reason_of) ends an answer as it was asked for."""
    return reason in STOPPED or reason in AT_LIMIT or reason in CALLED_TOOLS


def response_of(reply: Reply) -> Optional[records.Response]:
    """Return the `response` of a ledger line, None if there was no response."""
    if reply.status is None:
        return None
    stream = reply.stream
    model = sse.bounded(stream.model)
    response: records.Response = redaction.without_keys({
        "http_status": reply.status,
        "text": join_surrogates(stream.text_of("a")),
        "reasoning_text": join_surrogates(stream.text_of("r")),
        "finish_reason": redaction.document(sse.bounded(stream.finish_reason)),
        "model": None if model is None else redaction.model_id(model),
        "system_fingerprint": redaction.document(sse.bounded(stream.system_fingerprint)),
        "usage": sse.bounded(usage.kept(stream.usage)),
        "server_timings": sse.bounded(usage.kept(stream.server_timings))})
    return response


def reasoning_of(reply: Reply) -> records.Reasoning:
    """Return how the model's thinking was sent: streamed apart, inline, hidden, or none."""
    stream = reply.stream
    chunks = stream.kinds.count("r")
    hidden = bool(usage.counts(response_of(reply)).reasoning)
    mode = "inline" if reply.inline else "streamed" if chunks else "hidden" if hidden else "none"
    return {"mode": mode, "chunks": chunks, "characters": len(stream.text_of("r"))}


def join_surrogates(text: str) -> str:
    """Join halves of a surrogate pair that came in two chunks; replace a lone half by U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def call_flags(model: Optional[str], asked_model: str) -> list[str]:
    """Return the flags of one answer that metrics.py cannot derive; model: as the server sent it.

    `qwen` is the same model as `qwen:latest`, `qwen@main`, `Qwen` and `path/qwen`.
    """
    if model is None:
        return []
    one, other = (re.sub(r":latest$|@[^/@]*$", "", redaction.model_id(name).lower())
                  for name in (model, asked_model))
    same = one == other or one.rpartition("/")[2] == other.rpartition("/")[2]
    return [] if same else ["model_mismatch"]


# --- cached or not -------------------------------------------------------------------------------
CACHED_TTFT_SHARE = 0.5       # of the TTFT in the run: the prompt was read in half the time
# For servers that count cached tokens and counted few: other load that has ended since can halve
# the time, while a cache saves nearly all of it.
DENIED_TTFT_SHARE = 0.2
MIN_SAVED_US = 100_000        # less may be other load on this machine


class Longest(NamedTuple):
    """The longest prompt that was answered on one lane.

    first_token_us: its time to first token in the run; usual_us: what that of prompts of at least
    half its length suggests, None without any.
    """

    first_token_us: int
    cell: Cell
    usual_us: Optional[float]


def cache_probe(kind: str, reply: Reply, timing: Optional[records.Timing]) -> records.Probe:
    """Return one of the probes of `cache_probed`."""
    counted, first_us = usage.counts(response_of(reply)), timing and timing["first_token_us"]
    return {"kind": kind, "outcome": outcome_of(reply)[0],
            "first_token_us": None if first_us is None else coarse(first_us),
            "prompt_tokens": counted.prompt or None,
            "cached_tokens": counted.cached}


def cache_verdicts(longest: Optional[Longest],
                   probes: Sequence[records.Probe]) -> dict[str, Any]:
    """Return the fields of `cache_probed` except the model.

    longest: the prompt that was sent again. The first probe decides; the second shows what a
    working cache does with identical bytes.
    """
    verdicts = [_cache_verdict(longest, probe, probes[at + 1:])
                for at, probe in enumerate(probes) if longest] or [
        ("unknown", "no call on one lane whose prompt could be asked again")]
    return {"cell_id": longest.cell.cell_id if longest else None,
            "run_first_token_us": longest.first_token_us if longest else None,
            "probes": list(probes), "verdict": verdicts[0][0],
            "control": verdicts[1][0] if len(verdicts) > 1 else "unknown",
            "reason": verdicts[0][1]}


def _cache_verdict(longest: Longest, probe: records.Probe,
                   later: Sequence[records.Probe]) -> tuple[str, str]:
    """Return (verdict, reason). The check recomputes the reason: keep its words."""
    run_us = longest.first_token_us
    prompt, cached, first_us = (
        probe["prompt_tokens"], probe["cached_tokens"], probe["first_token_us"])
    if probe["outcome"] != "ok" or first_us is None:
        return "unknown", f"the probe brought no text ({probe['outcome']})"
    if metrics.counts_as_cached(cached, prompt):
        return "cached", f"the server reports {cached} of {prompt} prompt tokens as cached"
    # If the probe is as fast as the run's other calls, other load has delayed the run's own. So it
    # has if the same bytes again are much faster than the probe: it was read once more.
    is_usual = longest.usual_us is not None and first_us >= CACHED_TTFT_SHARE * longest.usual_us \
        or any(_is_faster(one["first_token_us"], first_us, CACHED_TTFT_SHARE) for one in later)
    share = CACHED_TTFT_SHARE if cached is None and not is_usual else DENIED_TTFT_SHARE
    return "cached" if _is_faster(first_us, run_us, share) else "not_cached", \
        f"its first token came after {first_us} us, in the run after {run_us} us"


def _is_faster(us: Optional[int], than_us: int, share: float) -> bool:
    return us is not None and us < share * than_us and than_us - us > MIN_SAVED_US


# --- redirects, failures --------------------------------------------------------------------------
REDIRECTS = (301, 302, 303, 307, 308)


def redirected(url: str, reply: Reply) -> Optional[str]:
    """Return the URL to which the same request is to be sent again.

    None if it must not be sent: the redirect changes the method to GET, leads to another origin
    (which would receive the key), or is not a URL.
    """
    location = reply.headers.get("location", "")
    if reply.status not in (307, 308) or not re.fullmatch(r"[\x21-\x7e]+", location):
        return None
    try:
        location = urllib.parse.urljoin(url, location)
    except ValueError:
        return None
    return location if origin(location) == origin(url) else None


def bad_redirect(status: Optional[int]) -> tuple[str, str]:
    """Return the failure of a call with a refused redirect, or with too many of them."""
    return "bad_redirect", (f"the server redirects (HTTP {status}) to another place or method, or "
                            "in a circle; name the final URL in --target-url")


def met_no_server(reply: Reply) -> bool:
    """Whether no server was reached: no connection, or one that was closed without a byte.

    A forwarder whose server is gone does the latter. A server that is silent until the timeout is
    still there.
    """
    if reply.failure is None or reply.status is not None:
        return False
    return reply.arrivals is None or (reply.failure[0] == "connection_lost"
                                      and not reply.arrivals.bytes_received)


def origin(url: str) -> tuple[str, Optional[str], Optional[int]]:
    """Return (scheme, host, port) of a URL; ("", None, None) for an invalid one."""
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return "", None, None
    return parts.scheme, parts.hostname, port


def failure_of(error: BaseException, sent: bool) -> tuple[str, str]:
    """Return (kind, message) of an exception during a request; the message holds no address."""
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
    return "bad_response", f"invalid HTTP response: {text}"
