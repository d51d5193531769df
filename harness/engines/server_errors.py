"""Error messages of servers, and what they mean."""
from __future__ import annotations

import json
import re
from typing import Any

from engines import answers

LONGEST_MESSAGE = 300
LONGEST_BODY = 1 << 18  # a longer error body is not parsed
LONGEST_TEXT = 20_000  # of an error, where fields and reasons are looked for


# --- Errors -------------------------------------------------------------------------------------


# Where the words of an error stand, the most telling first: KoboldCpp's are in detail.msg.
ERROR_FIELDS = ("message", "error", "errors", "detail", "msg")


def _parsed(body_text: Any) -> Any:
    if not isinstance(body_text, str) or len(body_text) > LONGEST_BODY:
        return None
    try:
        return json.loads(body_text)
    except (ValueError, RecursionError):
        return None


def _told_text(item: Any, depth: int = 3) -> str:
    """The words of an error in whatever shape it came: text, an object, a list of either."""
    if isinstance(item, list) and depth:
        return "; ".join(filter(None, (_told_text(part, depth - 1) for part in item[:20])))
    if isinstance(item, dict) and depth:
        words = (_told_text(item.get(name), depth - 1) for name in ERROR_FIELDS)
        place = item.get("loc")  # FastAPI: where, then what
        where = ".".join(map(str, place[:20])) + ": " if isinstance(place, list) and place else ""
        return where + next(filter(None, words), "")
    return answers.plain(item[:LONGEST_TEXT]) if isinstance(item, str) else ""


def _error_text(body_text: Any) -> str:
    """The server's own words, on one line."""
    body = _parsed(body_text)
    return _told_text(body if isinstance(body, (dict, list)) else body_text)[:LONGEST_TEXT]


def error_message(body_text: Any) -> str:
    """What a server said about an error, at most 300 characters; "" where it said nothing.

    error.message, a plain `error`, FastAPI's `detail` (text or list), else the body as text.  It
    may hold addresses and paths: redact it before it is written.
    """
    return _error_text(body_text)[:LONGEST_MESSAGE]


# llama.cpp's type, llama-cpp-python's and OpenAI's code, vLLM's param.
CONTEXT_NAMES = ("exceed_context_size_error", "context_length_exceeded", "input_tokens")
# Each engine's own words.
CONTEXT_ERROR = re.compile(
    r"maximum (?:context|model) length|max_model_len"  # vLLM, SGLang, llama-cpp-python
    r"|exceeds? the available context|exceeds? context window|ContextWindowExceeded"  # llama.cpp
    r"|longer than the (?:model's )?context|exceeds? the model's context"  # Ollama, SGLang
    r"|context (?:size|length) (?:has been )?exceeded"
    r"|trying to keep the first|greater than the context length"  # LM Studio
    r"|inputs` (?:tokens \+ `max_new_tokens` must be <=|must have less than)"  # TGI
    r"|prompt is too long",
    re.IGNORECASE,
)
NOT_ABOUT_CONTEXT = (401, 403, 404, 429)


def _error_object(body_text: Any) -> Any:
    """The object that holds type, code and param: `error`, or the body itself (old vLLM)."""
    body = _parsed(body_text)
    body = body[0] if isinstance(body, list) and body else body
    error = answers.field(body, "error")
    return error if isinstance(error, dict) else body


def _about_context(body_text: Any) -> bool:
    error = _error_object(body_text)
    named = any(answers.field(error, key) in CONTEXT_NAMES for key in ("type", "code", "param"))
    return named or bool(CONTEXT_ERROR.search(_error_text(body_text)))


def error_kind(status: Any, body_text: Any) -> str:
    """The error kind of an answer that is no completion, by its status and its own words.

    `status` 200 means an error that came inside a stream or a completion; 429 and 503 count there,
    too, since routers tell them as the error's code.
    """
    if not isinstance(status, int) or isinstance(status, bool):
        return "bad_response"
    if status not in NOT_ABOUT_CONTEXT and _about_context(body_text):
        return "context_limit"
    told = [status]
    if status == 200:
        told += [answers.field(_error_object(body_text), key) for key in ("code", "http_status_code")]
    if 429 in told:
        return "rate_limited"
    if 503 in told:
        return "server_busy"
    if 300 <= status < 400:
        return "bad_redirect"
    if status >= 400:
        return "http_error"
    return "stream_error" if error_message(body_text) else "bad_response"


# max_tokens stays: without it an answer could grow without end, and would not be the phase's.
NEVER_DROPPED = frozenset(("model", "messages", "stream", "max_tokens"))
REFUSAL = re.compile(
    r"unexpected (?:field|key|parameter|argument|keyword)|unknown (?:field|name|param|arg|key)"
    r"|unrecognized|extra (?:inputs|fields)|extra_forbidden|not (?:permitted|supported|allowed)"
    r"|unsupported|does not support|additional properties|unavailable field",
    re.IGNORECASE,
)
REFUSAL_REACH = 300  # characters around the refusal in which the field's name counts


def refused_fields(status: Any, body_text: Any, sent_fields: Any) -> set[str]:
    """The sent fields that a 400 or 422 refuses by name: worth ONE try without them, else empty."""
    if status not in (400, 422) or _about_context(body_text):
        return set()
    names = {n for n in sent_fields if isinstance(n, str)} if _iterable(sent_fields) else set()
    names -= NEVER_DROPPED
    blamed = answers.field(_error_object(body_text), "param")
    text = _error_text(body_text)
    near = " ".join(
        text[max(0, hit.start() - REFUSAL_REACH) : hit.end() + REFUSAL_REACH]
        for hit in list(REFUSAL.finditer(text))[:20]
    )
    if near and isinstance(blamed, str) and blamed in names:
        return {blamed}
    return names & set(re.findall(r"[A-Za-z0-9_]+", near))


def _iterable(value: Any) -> bool:
    return isinstance(value, (dict, list, tuple, set, frozenset))
