"""Asking a server what it is: which questions, and what its answers say together.

`send` is the runner's: it alone connects. It is called as send(method, path, body, timeout_s).
"""
from __future__ import annotations

import argparse
from typing import Any, Callable, NamedTuple, Optional

from core import release
from core.errors import EndpointError
from core.suites import Question
from core.text import printable
from engines import answers, queries

from run import display
from run.manifest import RunContext, assemble, choose_models
from run.reply import REDIRECTS, Reply

Json = dict[str, Any]

Send = Callable[..., Reply]
ASK_TIMEOUT_S = 5.0               # for each question
ASK_AGAIN_TIMEOUT_S = 1.0         # once a server has left one unanswered: there are many


def ask(send: Send, engine: Optional[str] = None, served_id: Optional[str] = None
        ) -> answers.Probes:
    """Everything that engines.py can read, and what an engine tells about one model only."""
    asked: list[tuple[str, str, Optional[Json]]] = [("GET", p, None) for p in answers.PROBE_PATHS]
    if engine in queries.EXTRA_POSTS and served_id is not None:
        path, body_of = queries.EXTRA_POSTS[engine]
        asked.append(("POST", path, body_of(served_id)))
    probes, timeout_s = {}, ASK_TIMEOUT_S
    for method, path, body in asked:
        reply = send(method, path, body, timeout_s)
        if reply.failure and reply.failure[0] == "timeout":
            timeout_s = ASK_AGAIN_TIMEOUT_S
        probes[path] = answers.Probe(reply.status, reply.headers, reply.json(),
                                     reply.head.decode("utf-8", "replace"))
    return probes


def about(send: Send, engine: str, served_id: str, probes: answers.Probes) -> answers.Probes:
    """The answers `probes` again, with those about one model where the engine gives such."""
    return ask(send, engine, served_id) if engine in queries.EXTRA_POSTS else probes


def require_usable_server(reply: Reply, url: str, keyed: bool, scan: Callable[[], Any]) -> None:
    """Raise EndpointError where the answer to /v1/models says that nothing can be asked here.

    keyed: whether a key was sent; scan: what answers at the usual ports of this machine.
    """
    if reply.status is None:
        raise EndpointError(display.no_endpoint(url, reply.failure, scan()))
    if reply.status in REDIRECTS and reply.failure:
        raise EndpointError(f"{printable(url)}: {reply.failure[1]}")
    if reply.status in (401, 403):
        raise EndpointError(display.refused_key(reply.status, keyed))
    if reply.status == 503:
        raise EndpointError(f"{printable(url)} still answers HTTP 503 (loading, or too "
                            "busy) after --timeout; wait for it, then type the same command again")


def refuse_key(hello: Json, keyed: bool) -> None:
    """Raise EndpointError where a hello was refused for want of a key: all calls would be. Some
    servers list their models to everybody."""
    if hello["error"] and hello["error"]["status"] == 401:
        raise EndpointError(display.refused_key(401, keyed))


def describe(send: Send, url: str, canonical_options: Json) -> Json:
    """Engine, models, facts and contexts of one endpoint, as --probe tells them."""
    probes = ask(send)
    engine = queries.identify(probes)
    name, models = str(engine["name"]), []
    for model in queries.served_models(probes):
        own = about(send, name, model["id"], probes)
        models.append({
            "id": answers.published_model_id(model["id"]), "chat": model["chat"],
            "facts": queries.model_facts(name, model["id"], own),
            "context": queries.context_in_force(name, model["id"], own,
                                                canonical_options["num_ctx"])})
    return {"url": url, "engine": engine, "models": models, "slots": queries.slots(name, probes)}


class Ready(NamedTuple):
    """Everything that is known before the first call.

    served: published model id -> served id, in running order; skipped: published ids that do not
    chat; probes: the server's answers by published model id.
    """

    suites: dict[str, tuple[Question, ...]]
    served: dict[str, str]
    skipped: list[str]
    probes: dict[str, answers.Probes]
    manifest: Json


def prepare(send: Send, args: argparse.Namespace, found: RunContext) -> Ready:
    """Ask the server what it is, choose the models and plan the run; raises Stop."""
    probes = ask(send)
    engine = queries.identify(probes)
    served, skipped = choose_models(args.models, queries.served_models(probes))
    own = {model: about(send, str(engine["name"]), served_id, probes)
           for model, served_id in served.items()}
    manifest = assemble(args, found, engine, served, own, release.current_hashes(),
                                  release.git_state())
    return Ready(found.suites, served, skipped, own, manifest)
