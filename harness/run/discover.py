"""Discover what a server is: which paths to request, and what its answers mean together.

`send` is a method of the runner, which alone connects: send(method, path, body, timeout_s).
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable, NamedTuple, Optional, cast

from core import release
from core.errors import EndpointError
from core.records import Git, Json, Manifest
from core.suites import Question
from core.text import printable, readable
from engines import answers, queries, server_errors
from run import plan_and_probe, redaction
from run.cli import DEFAULT_URL, Options, Target, other_api
from run.manifest import RunContext, assemble
from run.model_choice import choose_models, measurable, model_notes, named_models, require_local
from run.reply import REDIRECTS, Reply

Send = Callable[..., Reply]

ASK_TIMEOUT_S = 5.0               # for each request
ASK_AGAIN_TIMEOUT_S = 1.0         # after the first timeout: there are many requests
KEY_REFUSED = (401, 403)
FEW_MODELS = 30                   # all are asked about, to know which have the same weights
MOST_ASKED = 200                  # models of a list that a probe asks about one by one
# Where some servers have theirs.
OTHER_APIS = ("/api", "/v3", "/api/v1", "/openai/v1", "/v2", "/engines/v1", "/v1-openai",
              "/api/v1/openai")


def ask(send: Send, paths: Iterable[str] = answers.PROBE_PATHS) -> answers.Probes:
    """The answers on the paths that engines/ can read, without a question about single models."""
    probes, timeout_s = {}, ASK_TIMEOUT_S
    for path in paths:
        reply = send("GET", path, None, timeout_s)
        if reply.failure and reply.failure[0] == "timeout":
            timeout_s = ASK_AGAIN_TIMEOUT_S
        probes[path] = reply.probe()
    return probes


def ask_about(send: Send, engine: str, served_id: str, probes: answers.Probes) -> answers.Probes:
    """`probes`, and what the engine answers about one model, if it has such a question."""
    request = queries.engine_named(engine).model_request(served_id, probes)
    if request is None:
        return probes
    method, path, body, kept_as = request
    reply = send(method, path, body, ASK_TIMEOUT_S)
    return {**probes, kept_as: reply.probe()} if reply.status == 200 else probes


def ask_again(send: Send, engine: str, served_id: str, probes: answers.Probes) -> answers.Probes:
    """`probes` with what may have changed since: which models are loaded, and how."""
    paths = "/v1/models", "/props", *queries.engine_named(engine).state_paths
    state = ask(send, dict.fromkeys(paths))
    return ask_about(send, engine, served_id, {**probes, **state})


def is_busy(reply: Reply) -> bool:
    """Whether the server is busy, or still loads a model."""
    return reply.status == 503 or not answers.lists_models(reply.probe()) \
        and server_errors.is_loading(reply.status, reply.text())


def found_api(client: Any, reply: Reply) -> bool:
    """Whether the API is at the target's path and not in /v1 below it; then `client` uses it.

    reply: to /v1/models where the client looks first.
    """
    other = other_api(client.target)
    return other is not None and not answers.lists_models(reply.probe()) \
        and _use_first(client, [other])


def _use_first(client: Any, targets: Iterable[Target]) -> bool:
    """Let `client` use the first of these targets that lists models; False if none does."""
    given = client.target
    for target in targets:
        client.target = target
        if answers.lists_models(client.send("GET", "/v1/models", None, ASK_TIMEOUT_S).probe()):
            return True
    client.target = given
    return False


def ask_loaded(send: Send, engine: str, served_id: str, probes: answers.Probes) -> Optional[bool]:
    """Whether a model is loaded now; None, without a request, if the engine does not report it.

    probes: earlier answers of the server, for what does not change.
    """
    if queries.is_loaded(engine, served_id, probes) is None:
        return None
    now = dict(probes)
    for path in queries.engine_named(engine).state_paths:
        if answers.probe_at(probes, path).status == 200:
            now[path] = send("GET", path, None, ASK_AGAIN_TIMEOUT_S).probe()
    return queries.is_loaded(engine, served_id, now)


def require_usable_server(reply: Reply, url: Optional[str], options: Options,
                          scan: Callable[[], list[Json]], client: Any) -> None:
    """Raise EndpointError if the answer to /v1/models shows that no call can succeed.

    url: as given, None if no URL was given; scan: describes the servers on the usual ports;
    client: the runner's, for another path of the API.
    """
    if reply.status is None:
        raise EndpointError(plan_and_probe.no_endpoint(url, options, reply.failure, scan()))
    if reply.status in REDIRECTS and reply.failure:
        raise EndpointError(f"{printable(url or DEFAULT_URL)}: {reply.failure[1]}")
    require_key_accepted(reply.status, options.api_key_env is not None)
    is_page, shown, place = answers.is_web_page(reply.probe()), printable(url or DEFAULT_URL), None
    if (is_page or reply.status == 404) and _use_first(
            client, [client.target._replace(api=api) for api in OTHER_APIS]):
        place = f"{client.target.base}{client.target.api}"
    if is_page or place:
        what = f"a web page (HTML, HTTP {reply.status})" if is_page else f"HTTP {reply.status}"
        todo = f"its API is here: --target-url {printable(place)}" if place else (
            "pass the base URL of its API, with its path, to --target-url")
        raise EndpointError(
            f"{shown} answers /v1/models with {what}, not with a list of models; {todo}")
    if is_busy(reply):
        why = server_errors.error_message(reply.text()) or "loading or busy"
        raise EndpointError(f"{shown} still answers HTTP {reply.status} ({readable(why)}); wait, "
                            "then use the same command again")


def require_key_accepted(status: Optional[int], has_key: bool) -> None:
    """Raise EndpointError if the server refuses the key, or wants one."""
    if status not in KEY_REFUSED:
        return
    if has_key:
        raise EndpointError(f"the endpoint refuses the key (HTTP {status}); check the variable "
                            "that --api-key-env names")
    raise EndpointError(f"the endpoint requires a key (HTTP {status}); put it into an environment "
                        "variable and pass the variable's name to --api-key-env")


class Survey(NamedTuple):
    """The server: its answers, those about single models by served id, and what they mean."""

    probes: answers.Probes
    engine: queries.Identity
    own: dict[str, answers.Probes]
    models: list[queries.ServedModel]


def survey(send: Send, wanted: Callable[[list[str]], list[str]]) -> Survey:
    """Ask the server what it is, once, and then about the wanted ones of the models it lists."""
    probes = ask(send)
    engine = queries.identify(probes)
    listed = [model["id"] for model in queries.served_models(engine["name"], probes)]
    own = {served_id: ask_about(send, engine["name"], served_id, probes)
           for served_id in wanted(listed)}
    return Survey(probes, engine, own, queries.served_models(engine["name"], probes, own))


def describe(send: Send, url: str, num_ctx: int) -> Json:
    """Engine, models, facts and contexts of one endpoint, as --probe shows them."""
    found = survey(send, lambda ids: ids[:MOST_ASKED])
    name, models = found.engine["name"], []
    names = redaction.model_names(model["id"] for model in found.models)
    for model in found.models:
        own = found.own.get(model["id"], found.probes)
        models.append({
            **model, "id": names[model["id"]],
            "same_as": names[model["same_as"]] if model["same_as"] else None,
            "facts": queries.model_facts(name, model["id"], own),
            "context": queries.context_in_force(name, model["id"], own, num_ctx)})
    return {"url": url, "engine": found.engine, "models": models,
            "slots": queries.slots(name, found.probes)}


def to_greet(models: Sequence[Mapping[str, Any]]) -> Optional[str]:
    """The model that a probe calls: the loaded one. None where a call would load a model.

    models: those of `describe`.
    """
    able = [model for model in models if measurable(model)]
    loaded = [model for model in able if model["state"] == "loaded"]
    silent = [model for model in able if model["state"] is None]
    greeted = (loaded or silent)[:1]
    return greeted[0]["id"] if greeted else None


class Ready(NamedTuple):
    """Everything that is known before the first call.

    served: published model id -> served id, in running order; skipped: why a model is not measured,
    by published id; notes: what the user should know of the models; probes: the server's answers by
    published model id.
    """

    suites: dict[str, tuple[Question, ...]]
    served: dict[str, str]
    skipped: dict[str, str]
    notes: list[str]
    probes: dict[str, answers.Probes]
    manifest: Manifest


def prepare(send: Send, options: Options, context: RunContext) -> Ready:
    """Ask the server what it is, choose the models and plan the run."""
    found = survey(send, lambda ids: ids if len(ids) <= FEW_MODELS else
                   named_models(options.models, ids))
    served, skipped = choose_models(options, found.models)
    name, by_id = found.engine["name"], {model["id"]: model for model in found.models}
    own = {model: found.own.get(served_id) or ask_about(send, name, served_id, found.probes)
           for model, served_id in served.items()}
    for model, served_id in served.items():          # of one that the server does not list
        require_local(model, queries.remote(name, served_id, own[model]))
    notes = [note for model, served_id in served.items() if served_id in by_id
             for note in model_notes(model, by_id[served_id], found.models)]
    manifest = assemble(options, context, found.engine, served, own, release.current_hashes(),
                        cast(Git, release.git_state()))
    return Ready(context.suites, served, skipped, notes, own, manifest)
