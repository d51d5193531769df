"""One call's record against itself: marks, chunks, reads, stamps, outcome, texts. Pure functions.

The runner makes all of them from one list of reads (calls.timing_of, wire.timing_of), so they
contain each other: what is said here twice has to be equal, and what is made of stamps that never
go back has to ascend. Each function yields (code, what) of findings.CODES.
"""
from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Optional

import calls
import ledger
import wire

Json = dict[str, Any]
Problems = Iterator[tuple[str, str]]

# A chunk of text costs at least so many bytes of JSON around its text, whatever the dialect.
MIN_BYTES_PER_CHUNK = 20
NULL_REASONS = ("the server sent one JSON body instead of a stream", "the answer has no text",
                "no text arrived")
TAKEN_OUT = "<redacted:key>"         # the endpoint's key, where a server repeated it
UNSENT = ("connect_failed", "timeout", "context_limit")     # that no request need have left for
KIND_RUN = re.compile(r"([ra])([1-9][0-9]{0,8})")


def problems(call: Json) -> Problems:
    """Everything that is wrong with one call_finished line by itself."""
    yield from _outcome(call)
    yield from _reasoning(call)
    yield from _flags(call)
    if call["timing"]:
        yield from _order(call["timing"])
        yield from _presence(call)
        yield from _chunks(call)
        yield from _stamps(call)


# --- outcome -------------------------------------------------------------------------------------
def _outcome(call: Json) -> Problems:
    outcome, response, error = call["outcome"], call["response"], call["error"]

    def wrong(what: str) -> tuple[str, str]:
        return "outcome-differs", f"{outcome}, but {what}"

    if outcome == "ok":
        if error is not None:
            yield wrong("there is an error")
        if response is None or call["timing"] is None:
            yield wrong("there is no response")
        elif response["http_status"] != 200 or response["finish_reason"] in (None, "error"):
            yield wrong("status or finish_reason are those of no answer")
        return
    if error is None or error["kind"] != outcome:
        yield wrong("the error is none, or of another kind")
    elif error["status"] != (response and response["http_status"]):
        yield wrong("the error has another status than the response")
    if call["checks"] is not None:
        yield wrong("its answer was checked")
    status = response["http_status"] if response else None
    if not _status_fits(outcome, status):
        yield wrong(f"status {status} is none that it has")
    if call["timing"] is None and (response or outcome not in UNSENT):
        yield wrong("there is no timing")


def _status_fits(outcome: str, status: Optional[int]) -> bool:
    """What engines.error_kind and calls.failure_of can make of a status."""
    if outcome == "connect_failed":
        return status is None
    if outcome in ("no_events", "interrupted_answer", "stream_error"):
        return status == 200
    if outcome in ("http_error", "rate_limited", "server_busy"):
        return status is not None and status != 200
    return True


# --- texts ---------------------------------------------------------------------------------------
def _characters(text: str) -> int:
    """The most characters that a text can have come in: a server may cut a pair in halves."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le")) // 2


def _texts(call: Json) -> tuple[str, str]:
    response = call["response"]
    return (response["text"], response["reasoning_text"]) if response else ("", "")


def _reasoning(call: Json) -> Problems:
    told, (_, thinking) = call["reasoning"], _texts(call)
    if not len(thinking) <= told["characters"] <= _characters(thinking) \
            and TAKEN_OUT not in thinking:
        yield "reasoning-differs", f"{told['characters']} characters of {len(thinking)}"
    if bool(told["chunks"]) != bool(thinking) or \
            (told["mode"] in ("streamed", "inline")) != bool(thinking):
        yield "reasoning-differs", f"mode {told['mode']} with {told['chunks']} chunks"
    if told["mode"] in ("none", "hidden") and (told["mode"] == "hidden") != _hidden_tokens(call):
        yield "reasoning-differs", f"mode {told['mode']} is not what usage tells"
    if told["mode"] == "inline" and wire.THINK_START not in thinking \
            and wire.THINK_END not in thinking:
        yield "reasoning-differs", "it is inline, but no tag is in it"


def _hidden_tokens(call: Json) -> bool:
    usage = call["response"]["usage"] if call["response"] else None
    details = usage.get("completion_tokens_details") if usage else None
    count = details.get("reasoning_tokens") if isinstance(details, dict) else None
    return isinstance(count, int) and not isinstance(count, bool) and count > 0


def _flags(call: Json) -> Problems:
    stream = wire.StreamParser()
    stream.model = call["response"]["model"] if call["response"] else None
    reply = calls.Reply(None, {}, b"", stream, None, None)
    if call["flags"] != calls.call_flags(reply, call["model"]):
        yield "call-flags-differ", ", ".join(call["flags"]) or "none"


# --- marks ---------------------------------------------------------------------------------------
ASCENDING = ("headers_us", "first_chunk_us", "first_token_us", "last_token_us", "done_us")


def _order(timing: Json) -> Problems:
    known = [(name, timing[name]) for name in ASCENDING if timing[name] is not None]
    for (earlier, before), (later, after) in zip(known, known[1:]):
        if after < before:
            yield "marks-out-of-order", f"{later} {after} lies before {earlier} {before}"


def _presence(call: Json) -> Problems:
    """Which marks there are: a response has a header, bytes have an end."""
    timing, response = call["timing"], call["response"]
    if (response is None) != (timing["headers_us"] is None):
        yield "marks-out-of-order", "headers_us and response: one of them lacks"
    marks = [timing[name] is not None for name in ASCENDING]
    if (timing["bytes_received"] > 0) != marks[-1] or any(marks) > marks[-1]:
        yield "marks-out-of-order", "done_us lacks, or tells the end of nothing"
    if (timing["first_token_us"] is None) != (timing["last_token_us"] is None):
        yield "marks-out-of-order", "first_token_us and last_token_us: one of them lacks"
    if timing["first_chunk_us"] is None and timing["first_token_us"] is not None:
        yield "marks-out-of-order", "there is text, but first_chunk_us lacks"


def _chunks(call: Json) -> Problems:
    timing, chunk_us = call["timing"], call["timing"]["chunk_us"]

    def wrong(what: str) -> tuple[str, str]:
        return "chunks-differ", what

    first = chunk_us[0] if chunk_us else None
    if first != timing["first_token_us"]:
        yield wrong(f"chunk_us begins with {first}, first_token_us is {timing['first_token_us']}")
    if chunk_us and sum(chunk_us) != timing["last_token_us"]:
        yield wrong(f"chunk_us sums up to {sum(chunk_us)}, last_token_us is "
                    f"{timing['last_token_us']}")
    if bool(chunk_us) == (timing["ttft_null_reason"] in NULL_REASONS) or \
            (chunk_us and timing["ttft_null_reason"] is not None):
        yield wrong("ttft_null_reason is told where there is text, or is none that is known")
    runs = kind_runs(timing["chunk_kinds"], len(chunk_us))
    if runs is None:
        yield wrong("chunk_kinds does not count the chunks, or is not in its shortest form")
    else:
        yield from _first_answer(timing, runs)
        yield from _chunks_and_texts(call, runs)
    yield from _reads(timing)


def kind_runs(kinds: Optional[str], chunks: int) -> Optional[list[tuple[str, int]]]:
    """[("r", 12), ("a", 30)] of a chunk_kinds; None where it does not fit so many chunks."""
    if kinds is None:
        return [("a", chunks)] if chunks else []
    runs = [(kind, int(count)) for kind, count in KIND_RUN.findall(kinds)]
    fits = ("".join(f"{kind}{count}" for kind, count in runs) == kinds
            and sum(count for _, count in runs) == chunks and "r" in kinds
            and all(a[0] != b[0] for a, b in zip(runs, runs[1:])))
    return runs if fits else None


def _first_answer(timing: Json, runs: list[tuple[str, int]]) -> Problems:
    ahead = runs[0][1] if runs and runs[0][0] == "r" else 0
    has_answer = any(kind == "a" for kind, _ in runs)
    expected = sum(timing["chunk_us"][:ahead + 1]) if has_answer else None
    if timing["first_answer_us"] != expected:
        yield "chunks-differ", f"first_answer_us is {timing['first_answer_us']}, the first chunk " \
            f"of the answer came at {expected}"


def _chunks_and_texts(call: Json, runs: list[tuple[str, int]]) -> Problems:
    """No chunk without text, no text without a chunk, but where the answer came in one piece."""
    in_one_piece = call["timing"]["ttft_null_reason"] is not None
    for kind, text in zip("ar", _texts(call)):
        chunks = sum(count for name, count in runs if name == kind)
        if chunks > _characters(text) and TAKEN_OUT not in text:
            yield "chunks-differ", f"{chunks} chunks for {len(text)} characters"
        if text and not chunks and not in_one_piece:
            yield "chunks-differ", f"{len(text)} characters came in no chunk"
    reasoning = sum(count for name, count in runs if name == "r")
    if not in_one_piece and reasoning != call["reasoning"]["chunks"]:
        yield "reasoning-differs", f"{call['reasoning']['chunks']} chunks, chunk_kinds has " \
            f"{reasoning}"


def _reads(timing: Json) -> Problems:
    chunk_us, at = timing["chunk_us"], 0
    for first, count in timing["reads"]:
        if first < at or count < 2 or first + count > len(chunk_us):
            yield "chunks-differ", f"the read [{first}, {count}] is not among the chunks"
        elif any(chunk_us[first + 1:first + count]):
            yield "chunks-differ", f"chunks of the read [{first}, {count}] have times of their own"
        at = first + count


# --- stamps and bytes ----------------------------------------------------------------------------
def _stamps(call: Json) -> Problems:
    timing, lag = call["timing"], call["timing"]["read_lag_us"]
    text_reads = len(timing["chunk_us"]) - sum(count - 1 for _, count in timing["reads"])
    if (lag is None) != (timing["stamp"] == "user"):
        yield "stamps-differ", f"{timing['stamp']} stamps, read_lag_us is {ledger.shown(lag)}"
    elif lag is not None and not (spread_fits(lag) and lag["n"] >= max(text_reads, 1)):
        yield "stamps-differ", f"p50 {lag['p50']}, p99 {lag['p99']}, max {lag['max']} of " \
            f"{lag['n']} reads, {text_reads} of them with text"
    characters = sum(map(len, _texts(call)))
    least = characters + MIN_BYTES_PER_CHUNK * max(len(timing["chunk_us"]) - 1, 0)
    if timing["bytes_received"] < least:
        yield "bytes-too-few", f"{timing['bytes_received']} bytes for {characters} characters in " \
            f"{len(timing['chunk_us'])} chunks"


def spread_fits(spread: Json) -> bool:
    """Whether a spread can be one: percentiles ascend, and a few values have few of them."""
    p50, p99, most, n = (spread[name] for name in ("p50", "p99", "max", "n"))
    few = n < 100 and p99 != most or n == 1 and p50 != most
    return bool(n >= 1 and p50 <= p99 <= most and not few)
