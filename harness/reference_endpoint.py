"""An OpenAI-compatible endpoint with a known schedule: no model, only time.

The runner rehearses on it, and measures its own error with it before a run; tests judge the runner
by it. So it imports nothing of the rest. One thread serves, on loopback only, HTTP/1.1.

    python3 harness/reference_endpoint.py [--port 0] [--models a,b:200] ...

When it listens it prints one JSON line: {"port", "pid", "models", "clock"}. It ends when its
standard input ends, and so with the process that holds the other end, or on SIGTERM or SIGINT;
with --keep only on a signal. Exit codes: 0 asked to end, 2 usage, 3 the port cannot be had.

Routes
    GET  /version              {"engine": "reference-endpoint", "version", "slots", "cache"}
    GET  /health               {"status": "ok"}
    GET  /v1/models            the models; max_model_len is the context of one request
    GET  /clock                {"received_ns", "monotonic_ns", "wall_ns"}: the request read, the
                               answer handed to the socket; the shortest round trip counts
    GET  /log?after=SEQ        {"last", "requests": [...]}: what was done for every completion that
                               ended after that one, by the same clock: "id" (7 is "chatcmpl-7"),
                               "outcome" (finished, aborted, refused), "received_ns" (its first
                               byte), "request_end_ns" (its last), "start_ns" (its turn came),
                               "sent_ns" (of each chunk with text), "end_ns", "running" (requests
                               under way at its start) and what was asked
    POST /v1/chat/completions  streamed or not

Every chunk with text carries "sent_ns", this process's perf_counter_ns() right before it was handed
to the socket. The chunk with the finish reason follows one gap after the last token, as if a model
had made an end mark.

A request may bring its own schedule, "reference": {"first_token_ms", "gap_ms", "tokens", "burst"}:
the first token so long after the request's last byte (or after its turn came, if it had to wait),
then a send of `burst` chunks (1) every gap, counted from the first, `tokens` in all, whatever the
context. With "gap_ms": 0 chunks go as fast as the socket takes them, in blocks with one stamp.

Answers are made from the prompt: the same prompt gives the same answer, another one another. They
have the form that was asked for and quote the prompt's names; they know nothing.
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
import random
import re
import selectors
import signal
import socket
import threading
import time
from array import array
from collections import OrderedDict, deque
from time import perf_counter_ns as clock_ns
from typing import Any, Callable, NamedTuple, NoReturn, Optional, Sequence

NAME, VERSION = "reference-endpoint", "1"
HOST = "127.0.0.1"


class Model(NamedTuple):
    """A served name and its speed."""

    name: str
    tokens_per_s: float
    prefill_tokens_per_s: float


# A rehearsal asks each about fifty questions and has to end well within a minute: so fast, and with
# answers so short (most of 40 to 120 tokens), that both together need about 25 s.
MODELS = (Model("reference-swift", 500.0, 20_000.0), Model("reference-steady", 300.0, 12_000.0))
FIRST_TOKEN_MS = 5.0          # before the first token, besides the prompt's own time
SLOTS = 64                    # more than a run has lanes: nothing waits unless that is wanted
CONTEXT_TOKENS = 4096         # what the runner asks for

# A sleep ends late: on Linux by 80 us at the median, by 50 us with the finest timer slack, and by
# 100 us at p99. So the last bit before a due moment is spent polling. Tried on Linux, with 16
# streams of 200 tokens/s: 300 us of polling took twice the CPU of 150 us and was no more exact;
# with 60 us one chunk in ten came late. EpollSelector will not do: it sleeps in whole ms. Windows
# sleeps in ticks of 15.6 ms; neither that nor macOS was measured.
SPIN_NS = {"linux": 150_000, "win32": 16_000_000}.get(sys.platform, 300_000)
TIMER_SLACK_FILE = "/proc/self/timerslack_ns"
BLOCK_CHUNKS = 256            # of a stream without gaps: 60 kB, about what one send takes

HEAD_BYTES = 64 << 10
BODY_BYTES = 16 << 20
READ_BYTES = 64 << 10
DROPPED_BYTES = 64 << 20      # read, and thrown away, after a refusal
CONNECTIONS = 200             # select takes 512 sockets on Windows, 1,024 elsewhere
LOG_REQUESTS = 2_000
LOG_STAMPS = 20_000           # of one request
LOG_ALL_STAMPS = 2_000_000    # of all together: 16 MB
CACHE_ENTRIES = 10_000
EARLY_NS = 200_000_000        # standard input ends so soon where there is none: worth a word

REASONS = {200: "OK", 400: "Bad Request", 401: "Unauthorized", 404: "Not Found",
           405: "Method Not Allowed", 411: "Length Required", 413: "Payload Too Large",
           417: "Expectation Failed", 431: "Request Header Fields Too Large",
           505: "HTTP Version Not Supported"}

Pieces = list[bytes]          # what is sent is stamp.join(pieces)
Messages = tuple[tuple[str, str], ...]


# --- Tokens and answers ---------------------------------------------------------------------------

# Pieces of words with the blank before them, 3.9 characters on the average of English and code.
TOKEN = re.compile(r" ?\w{1,6}| ?[^\w\s]{1,3}|\s{1,8}")
MESSAGE_TOKENS = 3            # the marks around a message
SHORT_TOKENS = 16             # a prompt so short is a greeting, and gets one sentence
QUOTED_CHARACTERS = 32_000    # of a conversation's end, searched for names
MOST_NAMES = 14

# What an answer quotes of its prompt, the most telling kind first: planted names, names inside a
# sentence, words that are introduced, quoted ones, options with times and numbers, code. Every
# length is bounded, so that no prompt makes the search slow.
NAMES = tuple(re.compile(pattern) for pattern in (
    r"(?<=[a-z,] )([A-Z]{6,16})\b",
    r"(?<=[a-z,] )([A-Z][A-Za-z]{3,12})\b",
    r"(?:named|called|[Uu]se|with|function|of|key|class) "
    r"((?!th|each|every)[a-z][\w-]{3,20}(?:\.\w{2,20})?)\b",
    r"(\"[^\"\s\\]{2,16}\"|\"[a-z]{2,8} [a-z]{2,8}\")",
    r"(\B--[a-z][a-z-]{1,16}|\b\d\d:\d\d\b|\b[A-Z]{2}-\d{3,6}\b|\b\d\d(?= days| minutes))",
    r"\b(?!test_|self\.)([A-Za-z][a-z0-9]{0,16}(?:[._][A-Za-z]\w{0,16}){1,3})"))
SUBJECT = re.compile(r"\b(?:def|function|class) (?!_)(\w{1,30})\(")
JSON_KEY = re.compile(r"\"(\w{2,30})\"")

SENTENCES = (
    "Begin with {}, since the rest depends on it.", "What decides here is {}.",
    "Look at {} before anything is changed.", "What matters most here is {}.",
    "A test should hold {} in place.", "Keep {} as it is and write down why.",
    "The weak spot is {}, so check it twice.", "Most of the time goes into {}.",
    "Nobody notices when {} goes wrong, so log it.", "With {} the order of work is safe.",
    "Compare {} with the state before.", "Last comes {}, when all else is done.")
THINGS = ("the input", "the result", "the first case", "the empty case", "the limit", "the order")
FUNCTIONS = (
    "    return [value for value in values if not isinstance(value, bool)]",
    "    for value in sorted(values):\n        if value is not None:\n            yield value",
    "    seen = set()\n    for value in values:\n        seen.add(value)\n    return len(seen)",
    "    counts = {}\n    for value in values:\n        counts[value] = counts.get(value, 0) + 1\n"
    "    return counts")
COMMANDS = ("df -h", "git status --short", "git switch main", "du -sh ./*", "ls -l", "git push",
            "mkdir -p backups", "sort -rn sizes.txt", "git commit -m Fix", "git stash list")

# The first that is asked for is the form of the answer. {0}, {1} ... are sentences.
PROSE = "{0} {1} {2} {3} {4}"
FORMS = tuple((re.compile(asked), form) for asked, form in (
    (r"one JSON object", "{json}"),
    (r"exactly five bullets", "- {0}\n- {1}\n- {2}\n- {3}\n- {4}"),
    (r"exactly four numbered steps", "1. {0}\n2. {1}\n3. {2}\n4. {3}"),
    (r"[Ss]hell commands", "```bash\n# {names}\n{commands}\n```"),
    (r"bash script", "```bash\n#!/usr/bin/env bash\n# {names}\nset -euo pipefail\n"
     "if [ ! -d \"$1\" ]; then\n  echo \"no folder\" >&2\n  exit 1\nfi\n"
     "find \"$1\" -type f -mtime +{n}\n{commands}\n```"),
    (r"[Ww]rite .{0,20}pytest test", "```python\nimport pytest\n\n# {names}\n"
     "def test_{subject}():\n    assert {subject}({n}) == {m}\n"
     "    with pytest.raises(ValueError):\n        {subject}({m})\n```"),
    (r"Python 3|code block", "{0}\n\n```python\n# {calls}\ndef {subject}(*values):\n"
     "    if not values:\n        raise ValueError('no values')\n{body}\n```"),
    (r"", PROSE)))


def tokens_of(text: str) -> list[str]:
    """The tokens of a text; joined they are the text."""
    return TOKEN.findall(text)


def names_in(text: str) -> list[str]:
    """Up to MOST_NAMES words of a prompt that an answer to it would name."""
    found = (name for pattern in NAMES for name in pattern.findall(text))
    return list(dict.fromkeys(found))[:MOST_NAMES]


def _sentences(count: int, names: list[str], dice: random.Random) -> list[str]:
    """So many sentences that quote all the names among them."""
    groups = [", ".join(names[i::count]) for i in range(count)]
    return [dice.choice(SENTENCES).format(group or dice.choice(THINGS)) for group in groups]


def _json_answer(asked: str, names: list[str], dice: random.Random) -> str:
    keys = list(dict.fromkeys(JSON_KEY.findall(asked)))[:8] or ["answer"]
    values = [name for name in names if '"' not in name] or list(THINGS)
    return json.dumps({key: dice.randrange(100) if i % 2 else values[i // 2 % len(values)]
                       for i, key in enumerate(keys)}, indent=2)


def answer_to(model: str, messages: Messages) -> str:
    """The answer of a model to (role, text) messages: always the same for the same ones."""
    asked, texts = messages[-1][1], [text for _, text in messages]
    told = "\n".join(text for role, text in messages if role != "assistant")[-QUOTED_CHARACTERS:]
    names = names_in(told)
    # Seeded with the prompt: nothing is left to chance, on any Python.
    dice = random.Random("\0".join((model, *texts)).encode("utf-8", "surrogatepass"))
    form = next(form for pattern, form in FORMS if pattern.search(asked))
    if form == PROSE and len(tokens_of(asked[:200])) <= SHORT_TOKENS:
        form = "{0}"
    count = len(re.findall(r"{\d}", form))
    subject = SUBJECT.search(asked)
    return form.format(
        *_sentences(count, names if count > 1 else names[:1], dice), names=", ".join(names),
        calls=", ".join(f"{name}()" if re.fullmatch(r"[\w.]+", name) else name for name in names),
        subject=subject[1] if subject else "answer", body=dice.choice(FUNCTIONS),
        commands="\n".join(dice.choice(COMMANDS) for _ in range(5)), n=dice.randrange(100),
        m=dice.randrange(100), json=_json_answer(asked, names, dice))


# --- What a request asks --------------------------------------------------------------------------

class Refusal(Exception):
    """A request that gets an error object: its status, and what goes into the object."""

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


REQUEST_LINE = re.compile(r"([A-Z]{1,16}) (/[^ ?]{0,4000})\??([^ ]{0,4000}) HTTP/1\.1")


def cut_request(inbox: bytearray) -> Optional[Request]:
    """Takes the first request out of the bytes read so far; None while it is incomplete.

    Raises Refusal as soon as it is known that no answer can follow, so that nothing piles up.
    """
    end = inbox.find(b"\r\n\r\n", 0, HEAD_BYTES)
    if end < 0:
        if len(inbox) >= HEAD_BYTES:
            raise Refusal(431, f"the head of the request has more than {HEAD_BYTES} bytes")
        return None
    line, *fields = inbox[:end].decode("latin-1").split("\r\n")
    match = REQUEST_LINE.fullmatch(line)
    if not match:
        raise Refusal(505 if "HTTP/" in line[-12:] else 400, "only HTTP/1.1 is spoken here")
    pairs = (field.partition(":") for field in fields)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    body_end = end + 4 + _body_bytes(headers)
    if len(inbox) < body_end:
        return None
    body = bytes(inbox[end + 4:body_end])
    del inbox[:body_end]
    return Request(match[1], match[2], match[3], headers, body)


def _body_bytes(headers: dict[str, str]) -> int:
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers:
        raise Refusal(411, "send the body with a Content-Length")
    if "expect" in headers:
        raise Refusal(417, "send the body at once, without Expect")
    if not re.fullmatch("[0-9]{1,15}", length):
        raise Refusal(400, "Content-Length is no number")
    if int(length) > BODY_BYTES:
        raise Refusal(413, f"the body has more than {BODY_BYTES} bytes")
    return int(length)


Rule = tuple[Callable[[Any], bool], str]      # whether a value will do; what would


def _number(least: float, most: float, *kinds: type) -> Rule:
    return (lambda value: type(value) in kinds and least <= value <= most,
            f"{'a number' if float in kinds else 'an integer'} from {least} to {most}")


def _text_of(content: Any) -> Any:
    """A message's text; the content may be a list of parts. None where it is neither."""
    if isinstance(content, list):
        texts = [part.get("text") if isinstance(part, dict) else None for part in content]
        return "".join(map(str, texts)) if all(isinstance(t, str) for t in texts) else None
    return content if isinstance(content, str) else None


def _is_message(raw: Any) -> bool:
    return (isinstance(raw, dict) and isinstance(raw.get("role"), str)
            and _text_of(raw.get("content")) is not None)


AN_OBJECT: Rule = (lambda value: isinstance(value, dict), "an object")
A_FLAG: Rule = (lambda value: isinstance(value, bool), "true or false")
REQUIRED = ("model", "messages")
SCHEDULE_RULES: dict[str, Rule] = {
    "first_token_ms": _number(0, 600_000, int, float), "gap_ms": _number(0, 600_000, int, float),
    "tokens": _number(1, 10_000_000, int), "burst": _number(1, 4096, int)}
RULES: dict[str, Rule] = {
    "model": (lambda value: isinstance(value, str), "a text"),
    "messages": (lambda value: isinstance(value, list) and bool(value)
                 and all(map(_is_message, value)),
                 "a list of objects with role and content, at least one"),
    "temperature": _number(0, 2, int, float), "max_tokens": _number(1, 2 ** 53, int),
    "max_completion_tokens": _number(1, 2 ** 53, int), "stream": A_FLAG,
    "cache_prompt": A_FLAG, "stream_options": AN_OBJECT, "include_usage": A_FLAG,
    "reference": (lambda value: isinstance(value, dict) and set(value) <= set(SCHEDULE_RULES),
                  f"an object with nothing but {', '.join(SCHEDULE_RULES)}")}


def _checked(raw: dict[str, Any], rules: dict[str, Rule]) -> dict[str, Any]:
    """The fields that have rules and are not null; raises Refusal for what breaks its rule."""
    told = {key: raw[key] for key in rules if raw.get(key) is not None}
    for key, value in told.items():
        fits, wanted = rules[key]
        if not fits(value):
            raise Refusal(400, f"'{key}' must be {wanted}")
    return told


class Ask:
    """A completion that is asked for: a request's body, checked; raises Refusal."""

    def __init__(self, body: bytes, models: Sequence[str]) -> None:
        try:
            raw = json.loads(body.decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise Refusal(400, f"the body is no JSON: {error}") from None
        if not isinstance(raw, dict):
            raise Refusal(400, "the body must be a JSON object")
        told = _checked(raw, RULES)
        missing = [key for key in REQUIRED if key not in told]
        if missing:
            raise Refusal(400, f"'{missing[0]}' is required")
        if told["model"] not in models:
            raise Refusal(404, f"no such model; served: {', '.join(models)}", "not_found_error")
        self.model: str = told["model"]
        self.messages: Messages = tuple((message["role"], _text_of(message["content"]))
                                        for message in told["messages"])
        self.stream: bool = told.get("stream", False)
        options = _checked(told.get("stream_options", {}), RULES)
        self.include_usage: bool = options.get("include_usage", False)
        self.cache_prompt: bool = told.get("cache_prompt", True)
        self.max_tokens: float = min(told.get("max_tokens", math.inf),
                                     told.get("max_completion_tokens", math.inf))
        self.schedule = _checked(told.get("reference", {}), SCHEDULE_RULES)
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
    """A whole answer but for the last bytes of its body."""
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
        self._plan(model, first_token_ms, context_tokens, cached_tokens)
        self._sent = self.due_ns = self._running = 0
        self._stamps_ns = array("q")
        self.pieces: Pieces = []

    def _plan(self, model: Model, first_token_ms: float, context_tokens: int,
              cached_tokens: int) -> None:
        """How many tokens, and when."""
        told, prompt_tokens = self.ask.schedule, self.ask.prompt_tokens
        wanted = int(told.get("tokens", len(self._answer)))
        room = math.inf if "tokens" in told else context_tokens - prompt_tokens
        self._tokens = int(min(wanted, self.ask.max_tokens, room))
        self._finish_reason = "stop" if self._tokens == wanted else "length"
        prefill_ms = (prompt_tokens - cached_tokens) * 1e3 / model.prefill_tokens_per_s
        self._first_ns = int(told.get("first_token_ms", first_token_ms + prefill_ms) * 1e6)
        self._gap_ns = int(told.get("gap_ms", 1e3 / model.tokens_per_s) * 1e6)
        self._burst = int(told.get("burst", 1 if self._gap_ns else BLOCK_CHUNKS))
        self._usage = {"prompt_tokens": prompt_tokens, "completion_tokens": self._tokens,
                       "total_tokens": prompt_tokens + self._tokens,
                       "prompt_tokens_details": {"cached_tokens": cached_tokens}}

    def start(self, running: int) -> None:
        """Its turn has come, with so many under way; makes the bytes of all chunks ready."""
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
        """The next send's bytes and moment. What is longer than the answer repeats it."""
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
        """The pieces went out; makes the next ones ready. False where those were the last."""
        count = len(self.pieces) - 1
        self._stamps_ns.extend([stamp_ns] * min(count, LOG_STAMPS - len(self._stamps_ns)))
        if self._sent == self._tokens:
            return False
        self._sent += count
        self._prepare()
        return True

    def opening(self) -> Pieces:
        """Head of a stream, sent alone and as soon as its turn has come, as llama.cpp does."""
        return [_head(200, self.conn.closing, "Content-Type: text/event-stream",
                      "Cache-Control: no-cache", "Transfer-Encoding: chunked")]

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
        """Its line in the log. running: requests under way when it began, itself included."""
        return {**self._entry, "outcome": outcome, "start_ns": self.start_ns,
                "sent_ns": self._stamps_ns, "end_ns": clock_ns(), "running": self._running,
                "model": self.ask.model, "stream": self.ask.stream,
                "prompt_tokens": self.ask.prompt_tokens, "tokens": self._tokens}


# --- Serving --------------------------------------------------------------------------------------

class Connection:
    """One client's connection and what is under way on it."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.inbox = bytearray()
        self.received_ns = self.read_ns = 0     # first byte of the next request; last byte read
        self.outbox = memoryview(b"")           # what the socket did not take yet
        self.job: Optional[Job] = None
        self.closing = False                    # after the answer under way
        self.refused = False                    # what still comes is thrown away
        self.dropped_bytes = 0


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
        self._running = self._connections = self._last_id = self._log_seq = self._log_stamps = 0
        self._log: deque[dict[str, Any]] = deque()
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._facts: dict[str, Any] = {
            "/version": {"engine": NAME, "version": VERSION, "slots": settings.slots,
                         "cache": settings.cache},
            "/health": {"status": "ok"},
            "/v1/models": {"object": "list", "data": [
                {"id": name, "object": "model", "created": 0, "owned_by": NAME,
                 "max_model_len": settings.context} for name in self._models]}}
        self._routes: dict[tuple[str, str], Callable[[Connection, Request], Pieces]] = {
            ("GET", "/clock"): self._tell_clock, ("GET", "/log"): self._tell_log,
            ("POST", "/v1/chat/completions"): self._take_job,
            **{("GET", path): self._tell_fact for path in self._facts}}

    def serve(self) -> NoReturn:
        """Serves until the exception of a signal ends it."""
        while True:
            for key, events in self._selector.select(self._sleep_s()):
                if key.data is None:
                    self._accept()
                elif events & selectors.EVENT_WRITE:
                    self._go_on(key.data)
                else:
                    self._read(key.data)
            self._send_due()
            self._start_waiting()               # last, since a stream that ends frees a slot

    def _sleep_s(self) -> Optional[float]:
        return max(0, self._due[0][0] - clock_ns() - SPIN_NS) / 1e9 if self._due else None

    # Connections

    def _accept(self) -> None:
        with contextlib.suppress(OSError):      # a client that has gone again
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
        if conn.refused:
            conn.dropped_bytes += len(data)
        else:
            conn.received_ns = conn.received_ns if conn.inbox else now_ns
            conn.read_ns = now_ns
            conn.inbox += data
        # A client that closes only its own half has gone, too. One that sends ahead without end, or
        # goes on after a refusal, is cut off.
        if (not data or conn.dropped_bytes > DROPPED_BYTES
                or len(conn.inbox) > HEAD_BYTES + BODY_BYTES + READ_BYTES):
            self._drop(conn)
        else:
            self._take_requests(conn)

    def _send(self, conn: Connection, pieces: Pieces) -> int:
        """Hands the pieces to the socket, the time between them, and returns that time."""
        stamp_ns = clock_ns()
        conn.outbox = memoryview((b"%19d" % stamp_ns).join(pieces))
        self._push(conn, False)
        return stamp_ns

    def _push(self, conn: Connection, watched: bool) -> None:
        """Sends what the socket takes; the rest waits. watched: whether the selector knows that."""
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

    def _go_on(self, conn: Connection) -> None:
        """The socket takes bytes again."""
        self._push(conn, True)
        if conn.job:
            self._schedule(conn.job)
        else:
            self._answered(conn)

    def _answered(self, conn: Connection) -> None:
        """No job is left on the connection: what next?"""
        if conn.outbox or conn.sock.fileno() < 0:
            return
        if conn.refused:
            # Closed at once, with bytes unread, the client would see a reset and not the reason.
            with contextlib.suppress(OSError):
                conn.sock.shutdown(socket.SHUT_WR)
        elif conn.closing:
            self._drop(conn)
        else:
            self._take_requests(conn)

    # Requests

    def _take_requests(self, conn: Connection) -> None:
        """Answers the requests read so far, one after the other."""
        while conn.inbox and not (conn.job or conn.outbox or conn.closing):
            try:
                request = cut_request(conn.inbox)
            except Refusal as refusal:          # where the next one would begin is unknown
                conn.closing = conn.refused = True
                conn.inbox.clear()
                self._send(conn, self._json(conn, {"error": refusal.error}, refusal.status))
                self._answered(conn)
                return
            if request is None:
                return
            conn.closing = "close" in request.headers.get("connection", "").lower()
            pieces = self._answer(conn, request)
            conn.received_ns = conn.read_ns
            if pieces:
                self._send(conn, pieces)
                if conn.closing:
                    self._answered(conn)

    def _answer(self, conn: Connection, request: Request) -> Pieces:
        """The whole answer, or nothing where a job will bring it."""
        try:
            key, told = self.settings.api_key, request.headers.get("authorization")
            if key and request.path.startswith("/v1/") and told != f"Bearer {key}":
                raise Refusal(401, "a wrong API key, or none", "authentication_error")
            handler = self._routes.get((request.method, request.path))
            if handler:
                return handler(conn, request)
            if any(request.path == path for _, path in self._routes):
                raise Refusal(405, "this path does not take that method")
            raise Refusal(404, "there is no such path", "not_found_error")
        except Refusal as refusal:
            return self._json(conn, {"error": refusal.error}, refusal.status)

    def _json(self, conn: Connection, value: Any, status: int = 200) -> Pieces:
        return [_response(status, conn.closing, _compact(value).encode("ascii"))]

    def _tell_fact(self, conn: Connection, request: Request) -> Pieces:
        return self._json(conn, self._facts[request.path])

    def _tell_clock(self, conn: Connection, _: Request) -> Pieces:
        before = b'{"received_ns":%d,"monotonic_ns":' % conn.read_ns
        after = b',"wall_ns":%d}' % time.time_ns()
        return [_response(200, conn.closing, before, STAMP_BYTES + len(after)), after]

    def _tell_log(self, conn: Connection, request: Request) -> Pieces:
        after = re.fullmatch(r"(?:after=([0-9]{1,15}))?", request.query)
        if not after:
            raise Refusal(400, "the query must be after=NUMBER, or nothing")
        return self._json(conn, {"last": self._log_seq, "requests": [
            {**entry, "sent_ns": list(entry["sent_ns"])} for entry in self._log
            if entry["seq"] > int(after[1] or 0)]})

    def _note(self, entry: dict[str, Any]) -> None:
        """One more line of the log; the oldest ones go when there is too much."""
        self._log_seq += 1
        self._log.append({"seq": self._log_seq, **entry})
        self._log_stamps += len(entry["sent_ns"])
        while len(self._log) > LOG_REQUESTS or self._log_stamps > LOG_ALL_STAMPS:
            self._log_stamps -= len(self._log.popleft()["sent_ns"])

    # Completions

    def _take_job(self, conn: Connection, request: Request) -> Pieces:
        """Puts the completion that is asked for into the queue; what is refused is noted, too."""
        self._last_id += 1
        entry = {"id": self._last_id, "outcome": "refused", "status": 200, "sent_ns": (),
                 "received_ns": conn.received_ns, "request_end_ns": conn.read_ns}
        try:
            ask = Ask(request.body, tuple(self._models))
            self._check_context(ask.prompt_tokens)
        except Refusal as refusal:
            self._note({**entry, "status": refusal.status, "end_ns": clock_ns()})
            raise
        conn.job = Job(conn, ask, self._models[ask.model], self.settings.first_token_ms,
                       self.settings.context, self._cached_tokens(ask), entry)
        conn.job.waited = self._running + len(self._waiting) >= self.settings.slots
        self._waiting.append(conn.job)
        return []

    def _check_context(self, prompt_tokens: int) -> None:
        """Answers a prompt that is too long as llama.cpp does."""
        context_tokens = self.settings.context
        if prompt_tokens >= context_tokens:
            raise Refusal(400, f"request ({prompt_tokens} tokens) exceeds the available context "
                          f"size ({context_tokens} tokens)", "exceed_context_size_error",
                          n_prompt_tokens=prompt_tokens, n_ctx=context_tokens)

    def _cached_tokens(self, ask: Ask) -> int:
        """Tokens of the longest row of whole messages, from the first, that was seen before."""
        state, tokens, cached_tokens = hashlib.sha256(ascii(ask.model).encode("ascii")), 0, 0
        for message, count in zip(ask.messages, ask.message_tokens):
            state.update(ascii(message).encode("ascii"))
            tokens += count
            if state.digest() in self._seen:
                cached_tokens = tokens
            self._seen[state.digest()] = None
            self._seen.move_to_end(state.digest())
        while len(self._seen) > CACHE_ENTRIES:
            self._seen.popitem(last=False)
        # Never the whole prompt: without work on its last token there is no next one.
        return min(cached_tokens, tokens - 1) if self.settings.cache and ask.cache_prompt else 0

    def _start_waiting(self) -> None:
        """Gives free slots to those who came first."""
        while self._waiting and self._running < self.settings.slots:
            job = self._waiting.popleft()
            if not job.ended:
                self._running += 1
                job.start(self._running)
                if job.ask.stream:
                    self._send(job.conn, job.opening())
                self._schedule(job)

    def _schedule(self, job: Job) -> None:
        if not (job.ended or job.conn.outbox):      # else when the socket has taken that
            heapq.heappush(self._due, (job.due_ns, job.id, job))

    def _send_due(self) -> None:
        """One send for every job that is due; a stream without gaps is due again at once."""
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
        self._answered(job.conn)


# --- Command line ---------------------------------------------------------------------------------

class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        shown = message.encode("unicode_escape").decode("ascii")
        self.exit(2, f"{self.prog}: {shown}; --help tells what is allowed\n")


def _between(kind: Callable[[str], float], least: float, most: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
        return value
    return read


_rate = _between(float, 0.1, 1e7)


def _named_paces(text: str) -> dict[str, Optional[float]]:
    """`a,b:200` -> {"a": None, "b": 200.0}; a tag that is no number belongs to the name."""
    found: dict[str, Optional[float]] = {}
    for item in text.split(","):
        name, pace = item, None
        if re.fullmatch(r".+:[0-9.]+", item):
            name, _, number = item.rpartition(":")
            pace = _rate(number)
        if not name or name in found:
            raise argparse.ArgumentTypeError(f"{text!r}: every name is given once")
        found[name] = pace
    return found


def build_parser() -> argparse.ArgumentParser:
    """All flags, each with its default and unit."""
    parser = _Parser(prog="reference_endpoint.py", allow_abbrev=False, description=__doc__,
                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--port", type=_between(int, 0, 65535), default=0, metavar="N",
        help="port on 127.0.0.1; 0 (default) takes a free one")
    add("--models", type=_named_paces, metavar="NAME[:TOKENS_PER_S],...",
        default={model.name: None for model in MODELS},
        help="served names, each with its pace if wanted; default: "
        + ", ".join(f"{model.name} ({model.tokens_per_s:g} tokens/s)" for model in MODELS))
    add("--slots", type=_between(int, 1, CONNECTIONS), default=SLOTS, metavar="N",
        help=f"requests answered at once, the others wait (default {SLOTS})")
    add("--context", type=_between(int, 16, 10 ** 7), default=CONTEXT_TOKENS, metavar="TOKENS",
        help=f"prompt and answer of one request together (default {CONTEXT_TOKENS})")
    add("--pace-tokens-per-s", type=_rate, metavar="X",
        help="pace of every model for which --models gives none")
    add("--prefill-tokens-per-s", type=_rate, metavar="X",
        help="at which a prompt is read before the first token (default: each model's own)")
    add("--first-token-ms", type=_between(float, 0, 6e5), default=FIRST_TOKEN_MS, metavar="X",
        help=f"before the first token, besides that (default {FIRST_TOKEN_MS:g})")
    add("--cache", action="store_true", help="a prompt's first messages that were seen before take "
        'no time, unless it says "cache_prompt": false')
    add("--api-key-env", metavar="NAME", help="environment variable with the key that /v1/ demands")
    add("--keep", action="store_true", help="go on when standard input has ended")
    return parser


def settings_of(parser: argparse.ArgumentParser, argv: Optional[Sequence[str]]
                ) -> argparse.Namespace:
    """The command line with models and api_key put in; exits with 2 for a bad value."""
    args = parser.parse_args(argv)
    args.api_key = os.environ.get(args.api_key_env) if args.api_key_env else None
    if args.api_key_env and not args.api_key:
        parser.error(f"--api-key-env: the variable {args.api_key_env!r} is not set, or empty")
    usual = {model.name: model for model in MODELS}
    named = [(usual.get(name, MODELS[0])._replace(name=name), pace)
             for name, pace in args.models.items()]
    args.models = [Model(model.name, pace or args.pace_tokens_per_s or model.tokens_per_s,
                         args.prefill_tokens_per_s or model.prefill_tokens_per_s)
                   for model, pace in named]
    return args


def _end_with_stdin() -> None:
    """Ends the process when standard input has ended; it sleeps in the system until then.

    On a thread of its own, since select cannot wait for a pipe on Windows.
    """
    began_ns = clock_ns()
    with contextlib.suppress(OSError):              # no standard input at all
        while os.read(0, 4096):
            pass
    if clock_ns() - began_ns < EARLY_NS:
        print("reference_endpoint.py: ended, since standard input has ended; "
              "--keep goes on without",
              file=sys.stderr, flush=True)
    os._exit(0)


def _quieten() -> None:
    """Takes away what would delay a send now and then."""
    gc.collect()
    gc.freeze()                                     # what is there now is not looked through again
    with contextlib.suppress(OSError), open(TIMER_SLACK_FILE, "w", encoding="ascii") as file:
        file.write("1")


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Serves until asked to end; returns the exit code."""
    settings = settings_of(build_parser(), argv)
    try:
        endpoint = Endpoint(settings)
    except OSError as error:
        print(f"reference_endpoint.py: port {settings.port} cannot be had ({error.strerror}); "
              "--port 0 takes a free one", file=sys.stderr)
        return 3
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    print(json.dumps({"port": endpoint.port, "pid": os.getpid(), "clock": "perf_counter_ns",
                      "models": [model.name for model in settings.models]}), flush=True)
    if not settings.keep:
        threading.Thread(target=_end_with_stdin, daemon=True).start()
    _quieten()
    endpoint.serve()


if __name__ == "__main__":
    sys.exit(main())
