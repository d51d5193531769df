"""Discover what a server is: which paths to request, and what its answers mean together.

`send` is a method of the runner, which alone connects: send(method, path, body, timeout_s).
"""
from __future__ import annotations

from typing import Any, Callable, NamedTuple, Optional, cast

from core import release
from core.errors import EndpointError
from core.records import Git, Manifest
from core.suites import Question
from core.text import printable
from engines import answers, queries
from run import display
from run.cli import DEFAULT_URL, Options
from run.manifest import RunContext, assemble, choose_models
from run.reply import REDIRECTS, Reply

Json = dict[str, Any]
Send = Callable[..., Reply]

ASK_TIMEOUT_S = 5.0               # for each request
ASK_AGAIN_TIMEOUT_S = 1.0         # after the first timeout: there are many requests


def ask(send: Send, engine: Optional[str] = None, served_id: Optional[str] = None
        ) -> answers.Probes:
    """The answers on every path that engines/ can read; with a model, also those about it alone."""
    requests: list[tuple[str, str, Optional[Json]]] = [
        ("GET", path, None) for path in answers.PROBE_PATHS]
    if engine in queries.EXTRA_POSTS and served_id is not None:
        path, body_of = queries.EXTRA_POSTS[engine]
        requests.append(("POST", path, body_of(served_id)))
    probes, timeout_s = {}, ASK_TIMEOUT_S
    for method, path, body in requests:
        reply = send(method, path, body, timeout_s)
        if reply.failure and reply.failure[0] == "timeout":
            timeout_s = ASK_AGAIN_TIMEOUT_S
        probes[path] = answers.Probe(reply.status, reply.headers, reply.json(),
                                     reply.head.decode("utf-8", "replace"))
    return probes


def ask_about(send: Send, engine: str, served_id: str, probes: answers.Probes) -> answers.Probes:
    """`probes`, asked again if this engine has answers about one model only."""
    return ask(send, engine, served_id) if engine in queries.EXTRA_POSTS else probes


def ask_loaded(send: Send, engine: str, served_id: str, probes: answers.Probes) -> Optional[bool]:
    """Whether a model is loaded now; None, without a request, if the engine does not report it.

    probes: earlier answers of the server, for what does not change.
    """
    if queries.is_loaded(engine, served_id, probes) is None:
        return None
    now = dict(probes)
    for path in queries.state_paths(engine):
        reply = send("GET", path, None, ASK_AGAIN_TIMEOUT_S)
        now[path] = answers.Probe(reply.status, reply.headers, reply.json(), "")
    return queries.is_loaded(engine, served_id, now)


def require_usable_server(reply: Reply, url: Optional[str], options: Options,
                          scan: Callable[[], list[Json]]) -> None:
    """Raise EndpointError if the answer to /v1/models shows that no call can succeed.

    url: as given, None if no URL was given; scan: describes the servers on the usual ports.
    """
    if reply.status is None:
        raise EndpointError(display.no_endpoint(url, options, reply.failure, scan()))
    if reply.status in REDIRECTS and reply.failure:
        raise EndpointError(f"{printable(url or DEFAULT_URL)}: {reply.failure[1]}")
    require_key_accepted(reply.status, options.api_key_env is not None)
    if reply.status == 503:
        raise EndpointError(f"{printable(url or DEFAULT_URL)} still answers HTTP 503 (loading or "
                            "busy) after --timeout; wait, then use the same command again")


def require_key_accepted(status: Optional[int], has_key: bool) -> None:
    """Raise EndpointError if the server refuses the key, or wants one."""
    if status not in (401, 403):
        return
    if has_key:
        raise EndpointError(f"the endpoint refuses the key (HTTP {status}); check the variable "
                            "that --api-key-env names")
    raise EndpointError(f"the endpoint requires a key (HTTP {status}); put it into an environment "
                        "variable and pass the variable's name to --api-key-env")


def describe(send: Send, url: str, num_ctx: int) -> Json:
    """Engine, models, facts and contexts of one endpoint, as --probe shows them."""
    probes = ask(send)
    engine = queries.identify(probes)
    name, models = str(engine["name"]), []
    for model in queries.served_models(probes):
        own = ask_about(send, name, model["id"], probes)
        models.append({
            "id": answers.published_model_id(model["id"]), "chat": model["chat"],
            "facts": queries.model_facts(name, model["id"], own),
            "context": queries.context_in_force(name, model["id"], own, num_ctx)})
    return {"url": url, "engine": engine, "models": models, "slots": queries.slots(name, probes)}


class Ready(NamedTuple):
    """Everything that is known before the first call.

    served: published model id -> served id, in running order; skipped: published ids of models that
    do not chat; probes: the server's answers by published model id.
    """

    suites: dict[str, tuple[Question, ...]]
    served: dict[str, str]
    skipped: list[str]
    probes: dict[str, answers.Probes]
    manifest: Manifest


def prepare(send: Send, options: Options, context: RunContext) -> Ready:
    """Ask the server what it is, choose the models and plan the run."""
    probes = ask(send)
    engine = queries.identify(probes)
    served, skipped = choose_models(options.models, queries.served_models(probes))
    own = {model: ask_about(send, str(engine["name"]), served_id, probes)
           for model, served_id in served.items()}
    manifest = assemble(options, context, engine, served, own, release.current_hashes(),
                        cast(Git, release.git_state()))
    return Ready(context.suites, served, skipped, own, manifest)
