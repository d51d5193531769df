"""A loopback server that follows scripts byte by byte.

It does on demand what no correct server does: it stalls, drips, resets and sends wrong data. A
script is a sequence of steps that starts when the request has been read; after the last step the
connection is closed. A step is one of:

    bytes               to send
    a number            of seconds to pause
    an Event            to wait for
    a function          of the connection: RESET, HANG, drip(...), or a test's own

`ScriptedEndpoint(script, script, ...)` plays one script per chat request, in order, and `then` for
all later ones. `get` holds the scripts of all other paths, for example `recorded("ollama")`;
without it a model named `m` is listed. A function that makes a script from the request may take the
place of a script. Requests are kept.

    with ScriptedEndpoint((STREAM + says("One"), RESET)) as endpoint:
        ...                               # the first answer is cut off, the others are complete
"""
from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional, Union

LIMIT_S = 20.0                # nothing here waits longer; far more than a busy machine needs
CHAT = "/v1/chat/completions"
ENGINES = Path(__file__).resolve().parent / "data" / "engines"

Step = Union[bytes, float, threading.Event, Callable[[socket.socket], Any]]
Script = Sequence[Step]
Played = Union[Script, Callable[["Request"], Script]]
Json = dict[str, Any]


# --- parts of a script --------------------------------------------------------------------
def RESET(connection: socket.socket) -> None:
    """Reset the connection; what was sent before still arrives."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def HANG(connection: socket.socket) -> None:
    """Do nothing until the client leaves."""
    while connection.recv(4096):
        pass


def drip(piece: bytes, every_s: float) -> Callable[[socket.socket], None]:
    """Send `piece` again and again until the client leaves."""
    def send_on(connection: socket.socket) -> None:
        while True:
            connection.sendall(piece)
            time.sleep(every_s)
    return send_on


def response(body: bytes = b"", status: str = "200 OK", kind: str = "application/json",
             **headers: str) -> bytes:
    """A whole response with its length; `Retry_After="1"` adds the header Retry-After."""
    fields = {"Content-Type": kind, "Content-Length": str(len(body)), **headers}
    lines = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items()]
    return f"HTTP/1.1 {status}\r\n{''.join(lines)}\r\n".encode("latin-1") + body


STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
DONE = b"data: [DONE]\n\n"


def event(delta: Optional[Json] = None, finish: Optional[str] = None, **fields: Any) -> bytes:
    """One event of a stream, without choices if there is no delta."""
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return b"data: " + json.dumps({"choices": choices, **fields}).encode() + b"\n\n"


def says(*texts: str, field: str = "content") -> bytes:
    """One event for each text."""
    return b"".join(event({field: text}) for text in texts)


USAGE = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
END = event({}, "stop") + event(usage=USAGE) + DONE
ANSWER: Script = (STREAM + says("One", " two.") + END,)
GONE: Script = ()             # the connection is closed without an answer


# --- the server ----------------------------------------------------------------------------------
class Request(NamedTuple):
    """One request. target: of the request line, which is a whole URL at a proxy."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return "CONNECT" if self.method == "CONNECT" else urllib.parse.urlsplit(self.target).path

    @property
    def json(self) -> Json:
        return json.loads(self.body)


class ScriptedEndpoint:
    """See the module. certificate: a file with key and certificate, to use TLS; a proxy (`tunnels`)
    uses TLS only after the CONNECT."""

    def __init__(self, *chat: Played, then: Played = ANSWER,
                 get: Optional[Mapping[str, Played]] = None, certificate: Optional[str] = None,
                 tunnels: bool = False, port: int = 0, host: str = "127.0.0.1") -> None:
        self._chat, self._then = list(chat), then
        self.get = dict(models("m") if get is None else get)
        self._tls: Optional[ssl.SSLContext] = None
        if certificate:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate)
        self._tunnels = tunnels
        self.requests: list[Request] = []
        self._lock, self._open = threading.Lock(), set()
        self._waiting: list[socket.socket] = []
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.create_server((host, port), family=family, backlog=64)
        self.port = self._listener.getsockname()[1]
        scheme = "https" if certificate and not tunnels else "http"
        self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> ScriptedEndpoint:
        return self

    def __exit__(self, *_: Any) -> None:
        self.vanish()

    def script_next(self, *chat: Played) -> None:
        """Replace the remaining scripts by these, one per chat request."""
        self._chat = list(chat)

    def go_deaf(self) -> None:
        """Make new connections to this port hang (on Linux)."""
        self.close_port()
        listener = socket.create_server(("127.0.0.1", self.port), backlog=0)
        self._waiting = [listener, *fill(listener)]

    def close_port(self) -> None:
        """Stop listening."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def vanish(self) -> None:
        """Stop listening and drop all connections."""
        self.close_port()
        with self._lock:
            connections, self._open = self._open, None
        for connection in connections or ():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for waiting in self._waiting:
            waiting.close()

    @property
    def chats(self) -> list[Json]:
        """The bodies of the chat requests so far."""
        return [request.json for request in self.requests if request.path == CHAT]

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                gone = self._open is None
                if not gone:
                    self._open.add(connection)
            if gone:
                connection.close()
            else:
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            connection.settimeout(LIMIT_S)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls and not self._tunnels:
                connection = self._swap(connection)
            request = read_request(connection)
            if request.method == "CONNECT" and self._tunnels:
                self._note(request)
                connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                connection = self._swap(connection)
                request = read_request(connection)
            for step in self._note(request):
                play(connection, step)
        except OSError:
            pass                                        # the client has left
        finally:
            connection.close()
            with self._lock:
                if self._open:
                    self._open.discard(connection)

    def _swap(self, connection: socket.socket) -> socket.socket:
        """The same connection with TLS."""
        assert self._tls is not None
        wrapped = self._tls.wrap_socket(connection, server_side=True)
        with self._lock:
            if self._open is not None:
                self._open.discard(connection)
                self._open.add(wrapped)
        return wrapped

    def _note(self, request: Request) -> Script:
        """Keep a request and return the script that answers it."""
        with self._lock:
            self.requests.append(request)
            script = self.get.get(request.path, NOT_FOUND)
            if (request.method, request.path) == ("POST", CHAT):
                script = self._chat.pop(0) if self._chat else self._then
            return script(request) if callable(script) else script


NOT_FOUND: Script = (response(b"", "404 Not Found"),)


def play(connection: socket.socket, step: Step) -> None:
    """Do one step."""
    if isinstance(step, bytes):
        connection.sendall(step)
    elif isinstance(step, threading.Event):
        assert step.wait(LIMIT_S), "an event that a script waits for was not set"
    elif callable(step):
        step(connection)
    else:
        time.sleep(step)


def read_request(connection: socket.socket) -> Request:
    """Read a whole request; raises ConnectionError if the client leaves before its end."""
    data = b""
    while True:
        head, end, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
        if end and len(body) >= (int(length[1]) if length else 0):
            break
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionError
        data += piece
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in
               (line.partition(":") for line in lines)}
    return Request(method, target, headers, body)


def models(*names: str, **more: Any) -> dict[str, Script]:
    """Scripts that list these models; more JSON answers by path, with `_` for "/"."""
    listed = {"object": "list", "data": [{"id": name, "object": "model"} for name in names]}
    answers = {"/v1/models": listed, **{"/" + k.replace("_", "/"): v for k, v in more.items()}}
    return {path: (response(json.dumps(body).encode()),) for path, body in answers.items()}


def recorded(engine: str) -> dict[str, Script]:
    """Scripts with an engine's recorded answers, by path (data/engines)."""
    answers = json.loads((ENGINES / f"{engine}.json").read_text("utf-8"))
    made: dict[str, Script] = {}
    for path, answer in answers.items():
        if answer["status"] is not None:
            headers = {name.title(): value for name, value in answer["headers"].items()}
            headers.pop("Content-Length", None)
            status = f"{answer['status']} Recorded"
            made[path] = (response(answer["text"].encode(), status, **headers),)
    return made


@contextlib.contextmanager
def deaf_port() -> Any:
    """A port whose connection queue is full, so that connecting hangs (on Linux)."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for waiting in fill(listener):
            stack.enter_context(waiting)
        yield listener.getsockname()[1]


def fill(listener: socket.socket) -> list[socket.socket]:
    """Fill a listener's queue with connections."""
    waiting = [socket.socket() for _ in range(4)]
    for one in waiting:
        one.setblocking(False)
        one.connect_ex(listener.getsockname())
    return waiting


def closed_port() -> int:
    """A port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def make_certificate(folder: str) -> Optional[str]:
    """One file with a new key and a self-signed certificate for 127.0.0.1 and model.example.

    None where openssl is missing.
    """
    path = os.path.join(folder, "self-signed.pem")
    program = shutil.which("openssl")
    done = program and subprocess.run(
        [program, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-subj", "/CN=scripted endpoint", "-keyout", path + ".key",
         "-addext", "subjectAltName=IP:127.0.0.1,DNS:model.example", "-out", path],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if not done or done.returncode:
        return None
    with open(path, "ab") as file:
        file.write(Path(path + ".key").read_bytes())
    return path
