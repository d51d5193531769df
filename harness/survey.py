"""Asking a server what it is: which questions, and what its answers say together.

`send` is the runner's: it alone connects. It is called as send(method, path, body, timeout_s).
"""
from __future__ import annotations

import argparse
from typing import Any, Callable, NamedTuple, Optional

import calls
import engines
import manifests
import phases
import releases
import report
from stops import EndpointError

Json = dict[str, Any]
Send = Callable[..., calls.Reply]
ASK_TIMEOUT_S = 5.0               # for each question
ASK_AGAIN_TIMEOUT_S = 1.0         # once a server has left one unanswered: there are many


def ask(send: Send, engine: Optional[str] = None, served_id: Optional[str] = None
        ) -> engines.Probes:
    """Everything that engines.py can read, and what an engine tells about one model only."""
    asked: list[tuple[str, str, Optional[Json]]] = [("GET", p, None) for p in engines.PROBE_PATHS]
    if engine in engines.EXTRA_POSTS and served_id is not None:
        path, body_of = engines.EXTRA_POSTS[engine]
        asked.append(("POST", path, body_of(served_id)))
    probes, timeout_s = {}, ASK_TIMEOUT_S
    for method, path, body in asked:
        reply = send(method, path, body, timeout_s)
        if reply.failure and reply.failure[0] == "timeout":
            timeout_s = ASK_AGAIN_TIMEOUT_S
        probes[path] = engines.Probe(reply.status, reply.headers, reply.json(),
                                     reply.head.decode("utf-8", "replace"))
    return probes


def about(send: Send, engine: str, served_id: str, probes: engines.Probes) -> engines.Probes:
    """The answers `probes` again, with those about one model where the engine gives such."""
    return ask(send, engine, served_id) if engine in engines.EXTRA_POSTS else probes


def refuse(reply: calls.Reply, url: str, keyed: bool, scan: Callable[[], Any]) -> None:
    """Raise EndpointError where the answer to /v1/models says that nothing can be asked here.

    keyed: whether a key was sent; scan: what answers at the usual ports of this machine.
    """
    if reply.status is None:
        raise EndpointError(report.no_endpoint(url, reply.failure, scan()))
    if reply.status in calls.REDIRECTS and reply.failure:
        raise EndpointError(f"{report.printable(url)}: {reply.failure[1]}")
    if reply.status in (401, 403):
        raise EndpointError(report.refused_key(reply.status, keyed))
    if reply.status == 503:
        raise EndpointError(f"{report.printable(url)} still answers HTTP 503 (loading, or too "
                            "busy) after --timeout; wait for it, then type the same command again")


def refuse_key(hello: Json, keyed: bool) -> None:
    """Raise EndpointError where a hello was refused for want of a key: all calls would be. Some
    servers list their models to everybody."""
    if hello["error"] and hello["error"]["status"] == 401:
        raise EndpointError(report.refused_key(401, keyed))


def describe(send: Send, url: str, canonical_options: Json) -> Json:
    """Engine, models, facts and contexts of one endpoint, as --probe tells them."""
    probes = ask(send)
    engine = engines.identify(probes)
    name, models = str(engine["name"]), []
    for model in engines.served_models(probes):
        own = about(send, name, model["id"], probes)
        models.append({
            "id": engines.published_model_id(model["id"]), "chat": model["chat"],
            "facts": engines.model_facts(name, model["id"], own),
            "context": engines.context_in_force(name, model["id"], own,
                                                canonical_options["num_ctx"])})
    return {"url": url, "engine": engine, "models": models, "slots": engines.slots(name, probes)}


class Ready(NamedTuple):
    """Everything that is known before the first call.

    served: published model id -> served id, in running order; skipped: published ids that do not
    chat; probes: the server's answers by published model id.
    """

    suites: dict[str, tuple[phases.Question, ...]]
    served: dict[str, str]
    skipped: list[str]
    probes: dict[str, engines.Probes]
    manifest: Json


def prepare(send: Send, args: argparse.Namespace, found: manifests.Found) -> Ready:
    """Ask the server what it is, choose the models and plan the run; raises Stop."""
    probes = ask(send)
    engine = engines.identify(probes)
    served, skipped = manifests.choose_models(args.models, engines.served_models(probes))
    own = {model: about(send, str(engine["name"]), served_id, probes)
           for model, served_id in served.items()}
    manifest = manifests.assemble(args, found, engine, served, own, releases.current_hashes(),
                                  releases.git_state())
    return Ready(found.suites, served, skipped, own, manifest)
