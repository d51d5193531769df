"""Error messages of servers, and what they mean."""
from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any, Optional

from engines.answers import field, one_line
from engines.servers import ENGINES, UNKNOWN

LONGEST_MESSAGE = 300
LONGEST_BODY = 1 << 18            # a longer error body is not parsed
LONGEST_TEXT = 20_000             # of an error, where fields and reasons are looked for
# Fields with the message of an error, the most specific first: KoboldCpp's is in detail.msg.
ERROR_FIELDS = ("message", "error", "errors", "detail", "msg", "text", "status")


def _parsed(body_text: str) -> Any:
    """The JSON of an error body, None where it is not JSON."""
    if len(body_text) > LONGEST_BODY:
        return None
    try:
        return json.loads(body_text)
    except (ValueError, RecursionError):
        return None


HTML_TITLE = re.compile(r"<title[^>]*>([^<]+)</title>", re.IGNORECASE)


def _message_in(item: Any, depth: int = 3) -> str:
    """The message of an error in any shape: text, an object, or a list of either."""
    if isinstance(item, list) and depth:
        return "; ".join(filter(None, (_message_in(part, depth - 1) for part in item[:20])))
    if isinstance(item, dict) and depth:
        messages = (_message_in(item.get(name), depth - 1) for name in ERROR_FIELDS)
        place = item.get("loc")                # FastAPI: where, then what
        where = ".".join(map(str, place[:20])) + ": " if isinstance(place, list) and place else ""
        return where + next(filter(None, messages), "")
    return one_line(item[:LONGEST_TEXT]) if isinstance(item, str) else ""


def _error_text(body_text: str) -> str:
    """The server's own message on one line; of a web page, as proxies send, its title."""
    body = _parsed(body_text)
    title = HTML_TITLE.search(body_text[:LONGEST_TEXT])
    if title and body is None:
        return one_line(title[1])
    return _message_in(body if isinstance(body, (dict, list)) else body_text)[:LONGEST_TEXT]


def error_message(body_text: str) -> str:
    """A server's message about an error, at most 300 characters; "" without a message.

    That is error.message, a plain `error`, FastAPI's `detail` (text or list), else the body as
    text. It may hold addresses and paths: redact it before it is written.
    """
    return _error_text(body_text)[:LONGEST_MESSAGE]


_ALL = (UNKNOWN, *ENGINES.values())
CONTEXT_ERROR = re.compile("|".join(dict.fromkeys(t for e in _ALL for t in e.context_errors)),
                           re.IGNORECASE)
CONTEXT_CODES = {code for engine in _ALL for code in engine.context_error_codes}
NOT_ABOUT_CONTEXT = (401, 403, 404, 429)
# With these, some servers and proxies answer while a model is being loaded. 200: with the error in
# the body or the stream.
LOADING_STATUSES = (200, 202, 400, 404, 409, 423, 424, 425, 500, 502, 504)
LOADING = re.compile(r"\b(?:is|still|currently|being) (?:loading|starting|warming)|^loading\b"
                     r"|\bnot (?:yet )?ready\b|\bloading (?:the )?model\b", re.IGNORECASE)
NOT_LOADING = re.compile(r"fail|error|unable|can(?:not|'t)|could not|exit|crash", re.IGNORECASE)


def _error_object(body_text: str) -> Any:
    """The object that holds type, code and param: `error`, or the body itself (old vLLM)."""
    body = _parsed(body_text)
    body = body[0] if isinstance(body, list) and body else body
    error = field(body, "error")
    return error if isinstance(error, dict) else body


def _about_context(body_text: str) -> bool:
    codes = [field(_error_object(body_text), key) for key in ("type", "code", "param")]
    named = any(isinstance(code, str) and code in CONTEXT_CODES for code in codes)
    return named or bool(CONTEXT_ERROR.search(_error_text(body_text)))


def is_loading(status: Optional[int], body_text: str) -> bool:
    """Whether an answer means that the model is still being loaded."""
    text = _error_text(body_text) if status in LOADING_STATUSES else ""
    return bool(LOADING.search(text)) and not NOT_LOADING.search(text)


def error_kind(status: Optional[int], body_text: str) -> str:
    """The error kind of an answer that is not a completion, by its status and its message.

    `status` 200 means an error inside a stream or a completion, where 429 and 503 count as the
    error's code, too: routers report them so.
    """
    if status is None:
        return "bad_response"
    if status not in NOT_ABOUT_CONTEXT and _about_context(body_text):
        return "context_limit"
    codes = [status]
    if status == 200:
        error = _error_object(body_text)
        codes += [field(error, "code"), field(error, "http_status_code")]
    if 429 in codes:
        return "rate_limited"
    if 503 in codes or is_loading(status, body_text):
        return "server_busy"
    if 300 <= status < 400:
        return "bad_redirect"
    if status >= 400:
        return "http_error"
    return "stream_error" if error_message(body_text) else "bad_response"


# Without max_tokens an answer could grow without end, and would not be what the phase asks for.
NEVER_DROPPED = frozenset(("model", "messages", "stream", "max_tokens"))
REFUSAL = re.compile(
    r"unexpected (?:field|key|parameter|argument|keyword)|unknown (?:field|name|param|arg|key)"
    r"|unrecognized|extra (?:inputs|fields)|extra_forbidden|not (?:permitted|supported|allowed)"
    r"|unsupported|does not support|additional properties|unavailable field", re.IGNORECASE)
REFUSAL_REACH = 300               # characters around the refusal in which a field's name counts


def refused_fields(status: Optional[int], body_text: str, sent_fields: Collection[str]) -> set[str]:
    """The sent fields that a 400 or 422 refuses by name: retry once without them."""
    if status not in (400, 422) or _about_context(body_text):
        return set()
    if "max_tokens" in sent_fields and "max_completion_tokens" in _error_text(body_text):
        return {"max_tokens"}                      # the caller sends it under the other name
    names = set(sent_fields) - NEVER_DROPPED
    text = _error_text(body_text)
    near = " ".join(text[max(0, hit.start() - REFUSAL_REACH):hit.end() + REFUSAL_REACH]
                    for hit in list(REFUSAL.finditer(text))[:20])
    param = field(_error_object(body_text), "param")
    if near and isinstance(param, str) and param in names:
        return {param}
    return names & set(re.findall(r"[A-Za-z0-9_]+", near))
