"""The runner's command line: its options, which of them go together, and the commands it prints.

A new option is a field of `Options` and one line in `build_parser`; if a resumed run has to keep
its value, also one in manifest.inherit_options. Pure: nothing here reads a file or connects.
"""
from __future__ import annotations

import argparse
import dataclasses
import re
import urllib.parse
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple, Optional

from core import challenge, curve_levels, plan, suites
from core.errors import HarnessError
from core.names import UNNAMED_HANDLE, UNNAMED_TAG, target_class
from core.text import Parser, command, printable

DEFAULT_URL = "http://127.0.0.1:11434"


@dataclasses.dataclass(frozen=True)
class Options:
    """One command line. Never changed: `dataclasses.replace` makes another one.

    given: names of the fields that were set on the command line. A resumed run takes the others
    from its manifest; asked: the options before that. The fields without a default here have one in
    the runner.
    """

    temperature: float
    num_ctx: int
    num_predict: int
    out_dir: str
    target_url: str = DEFAULT_URL
    models: Optional[str] = None
    phases: str = ",".join(suites.DEFAULT_PHASES)
    challenge: Optional[str] = None
    repeats: int = suites.DEFAULT_REPEATS
    lanes: int = suites.DEFAULT_LANES
    no_calibration: bool = False
    timeout: float = suites.DEFAULT_TIMEOUT_S
    prompt_cache: str = "avoid"
    api_key_env: Optional[str] = None
    submitter_handle: str = UNNAMED_HANDLE
    device_tag: str = UNNAMED_TAG
    cell_id_prefix: Optional[str] = None
    run_id: Optional[str] = None
    retry_failed: bool = False
    no_hostname: bool = False
    probe: bool = False
    smoke: bool = False
    plan: bool = False
    rehearse: bool = False
    detach: bool = False
    wait: Sequence[str] = ()                  # SECONDS and RUN
    stop: Optional[str] = None
    json: bool = False
    quiet: bool = False
    given: frozenset[str] = frozenset()
    asked: Optional[Options] = None


class Target(NamedTuple):
    """Where the endpoint is. Only its class, scheme, port and path are ever published.

    base: URL of the server's root; api: path of the API below it, mostly /v1; path: of the URL,
    without /v1.
    """

    base: str
    scheme: str
    host: str
    port: int
    path: str
    api: str = "/v1"

    def url_of(self, path: str) -> str:
        """The URL of a path, where "/v1/..." is the API's."""
        return self.base + (self.api + path[3:] if path.startswith("/v1/") else path)


# --- values --------------------------------------------------------------------------------------
def _number(low: float, high: float, example: str) -> Callable[[str], Any]:
    """An argparse type: a number within bounds; a whole one if the bounds are whole numbers."""
    whole = isinstance(low, int)

    def read(text: str) -> Any:
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"'{printable(text)}' is not a {'whole ' * whole}number from {low:.10g} to "
                f"{high:.10g}; use for example {example}")
        return value
    return read


def _phases(text: str) -> str:
    try:
        plan.parse_phases(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(printable(str(error))) from None
    return text


def _challenge(text: str) -> str:
    if challenge.TEXT.fullmatch(text):
        return text
    raise argparse.ArgumentTypeError(
        f"'{printable(text)}' is not a text of 4 to 100 letters, digits, blanks and ._:/#@-; use "
        "the one that the maintainer gave you")


def _run_id(text: str) -> str:
    last = re.split(r"[/\\]", text.rstrip("/\\"))[-1].lower()
    name = last[4:] if last.startswith("run-") else last
    try:
        is_id = str(uuid.UUID(name)) == name
    except ValueError:
        is_id = False
    if is_id and last == text.lower():
        return name
    todo = f"type --run-id {name}, with its --out-dir" if is_id else \
        "leave the option out for a new run"
    raise argparse.ArgumentTypeError(
        f"'{printable(text)}' is not a run id such as {uuid.UUID(int=0)}; {todo}")


def _variable(text: str) -> str:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        return text
    raise argparse.ArgumentTypeError(
        "that is not the name of an environment variable; pass the variable's name, never the key "
        "itself")


API_CALL = re.compile(r"/(?:chat/completions|completions|responses|embeddings|models)$")
API_FOLDER = re.compile(r"/(?:v\d+\w*|api)$")        # where the API is at the path itself


def parse_target(text: str) -> Target:
    """A base URL with or without `/v1`, a trailing slash or a path of the API.

    Raises ArgumentTypeError.
    """
    port_only = re.fullmatch(r":?(\d{2,5})/?", text)
    odd_scheme = re.match(r"(https?)[:/]+(?<!://)(?=[^:/])", text)
    try:
        parts = urllib.parse.urlsplit(text if "://" in text else "http://" + text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if (port_only or odd_scheme or not host or port == 0 or parts.scheme not in ("http", "https")
            or not re.fullmatch(r"[\x21-\x7e]+", text)):
        example = (f"http://127.0.0.1:{port_only[1]}" if port_only else
                   f"{odd_scheme[1]}://{printable(text[odd_scheme.end():])}" if odd_scheme else
                   DEFAULT_URL)
        raise argparse.ArgumentTypeError(
            f"'{printable(text)}' is not an http or https URL; use for example {example}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise argparse.ArgumentTypeError(
            "leave out user, password, query and fragment; put a key into an environment variable "
            "and pass its name to --api-key-env")
    port = port or (443 if parts.scheme == "https" else 80)
    name = f"[{host}]" if ":" in host else host
    path = API_CALL.sub("", parts.path.rstrip("/"))
    exact = API_FOLDER.search(path)
    root = path[:exact.start()] if exact else path
    api = exact.group() if exact else "/v1"
    return Target(f"{parts.scheme}://{name}:{port}{root}", parts.scheme, host, port,
                  root if api == "/v1" else path, api)


def other_api(target: Target) -> Optional[Target]:
    """The other place where the API of a URL with a path may be: at the path, or in /v1 below."""
    if target.api == "/api":
        return target._replace(base=target.base + target.api, api="/v1")
    if target.api != "/v1" or not target.path:
        return None
    root, _, last = target.base.rpartition("/")
    return target._replace(base=root, api="/" + last)


def _url(text: str) -> str:
    parse_target(text)
    return text


# --- options -------------------------------------------------------------------------------------
def build_parser(doc: Optional[str], defaults: Mapping[str, Any]) -> Parser:
    """The parser. doc: the runner's docstring; defaults: its values for fields of `Options`."""
    parser = Parser("run_benchmark", doc)
    parser.argument_default = argparse.SUPPRESS        # so that only given options are parsed
    parser.loose = " (write its option before it, such as --target-url URL or --run-id UUID)"
    shown = {**{field.name: field.default for field in dataclasses.fields(Options)}, **defaults}
    group: Any = None

    def add(option: str, metavar: Any, text: str, **settings: Any) -> None:
        default = shown[option[2:].replace("-", "_")]
        if metavar is None:
            settings["action"] = "store_true"
        else:
            settings["metavar"] = metavar
            if "(default:" not in text and default:
                value = f"{default:g}" if isinstance(default, float) else default
                text = f"{text} (default: {value})"
        group.add_argument(option, help=text, **settings)

    group = parser.add_argument_group("workload")
    add("--target-url", "URL", "base URL of the endpoint; give the path of its API only if it is "
        "not /v1", type=_url)
    add("--models", "LIST",
        "comma-separated model ids, or auto for all chat models (default: the only model served)")
    add("--phases", "LIST", "comma-separated phases, or all for "
        f"{', '.join(suites.ALL_PHASES)}; hello always runs first. {' and '.join(suites.CURVES)} "
        "run only if you name them; with --run-id, they are added to that run", type=_phases)
    add("--challenge", "TEXT", "also ask 3 questions made from TEXT, which a maintainer gave you; "
        "with --run-id, add them to that run", type=_challenge)
    add("--repeats", "N", "how often each question is asked", type=_number(1, 1000, "--repeats 3"))
    add("--lanes", "N", "number of request loops in the parallel phases; ramp goes up to N if N is "
        "over 16", type=_number(1, 256, "--lanes 4"))
    add("--no-calibration", None, "skip the measurements of this client's timing error and "
        "of the memory's bandwidth (4 s)")

    group = parser.add_argument_group("request options")
    add("--timeout", "SECONDS",
        "time limit of one call, including name look-up, connecting and waiting",
        type=_number(0.1, 86400.0, "--timeout 360"))
    add("--temperature", "T", "sampling temperature", type=_number(0.0, 2.0, "--temperature 0.1"))
    add("--num-ctx", "TOKENS", "context that the server is expected to have; set it in the server, "
        f"because a request cannot (default: {shown['num_ctx']}; with phase depth, "
        f"{curve_levels.DEEPEST_TOKENS + curve_levels.ROOM_TOKENS})",
        type=_number(128, 10_000_000, "--num-ctx 4096"))
    add("--num-predict", "TOKENS", "maximum tokens of one answer",
        type=_number(1, 1_000_000, "--num-predict 2048"))
    add("--prompt-cache", "POLICY", "avoid: bypass the server's prompt cache; allow: leave it on",
        choices=("avoid", "allow"))
    add("--api-key-env", "NAME",
        "environment variable with the endpoint's key (default: no key is sent)", type=_variable)

    group = parser.add_argument_group("output")
    add("--submitter-handle", "LOGIN", "your GitHub login in lower case")
    add("--device-tag", "TAG", "short name for this kind of machine, such as mac-m1-8gb")
    add("--cell-id-prefix", "TAG:ENGINE",
        "first part of every cell id (default: DEVICE_TAG:ENGINE, or local:ENGINE without a tag)")
    add("--run-id", "UUID", "id of the run; if the run exists, resume it with its own options",
        type=_run_id)
    add("--retry-failed", None, "with --run-id: also repeat the calls that failed")
    add("--out-dir", "FOLDER", "folder in which <handle>/<device-tag>/run-<uuid>/ is created "
        "(default: submissions/ of this repository)")
    add("--no-hostname", None, "leave this machine's host name out of manifest.json")

    group = parser.add_argument_group("modes")
    add("--probe", None, "list what is served, and make one hello call if a model is loaded; "
        "without --target-url, search the usual ports of this machine; writes nothing")
    add("--smoke", None, "make one hello call only, and store it like a run")
    add("--plan", None, "show the planned calls and, after one hello call, how long they may "
        "take; writes nothing")
    add("--rehearse", None, "run all phases against the built-in test endpoint, in under a minute "
        "and in a temporary folder")
    add("--detach", None, "run in the background, even after this shell has closed")
    add("--wait", ("SECONDS", "RUN"),
        "follow a run, by its id or folder, until it ends or the time is up", nargs=2)
    add("--stop", "RUN", "stop a run, by its id or folder; no finished call is lost")

    group = parser.add_argument_group("display")
    add("--json", None, "print one JSON document on standard output")
    add("--quiet", None, "show no progress on standard error")
    return parser


def parse_options(parser: Parser, words: Sequence[str], defaults: Mapping[str, Any]) -> Options:
    """The options of a command line; ends the program with exit code 2 if it is not valid."""
    given = vars(parser.parse_args(words))
    if "challenge" in given:
        known = suites.DEFAULT_PHASES if "run_id" not in given else ("hello",)
        given["phases"] = ",".join([given.get("phases", ",".join(known)), "challenge"])
    problem = combination_problem(given)
    if problem:
        parser.error(problem)
    return Options(**{**defaults, **given}, given=frozenset(given))


def combination_problem(given: Mapping[str, Any]) -> Optional[str]:
    """Why options do not go together, None if they do. given: value by name of field."""
    modes = ["--" + name for name in ("probe", "plan", "rehearse", "smoke", "wait", "stop")
             if name in given]
    if len(modes) > 1 and modes != ["--rehearse", "--smoke"]:
        return f"{' and '.join(modes)} exclude each other; use one of them"
    if "detach" in given and modes and modes[0] in ("--probe", "--plan", "--wait", "--stop"):
        return f"--detach is for runs; use {modes[0]} without it"
    if "rehearse" in given and "target_url" in given:
        return "--rehearse has its own endpoint; leave out --target-url"
    if "challenge" not in given and "challenge" in given.get("phases", "").split(","):
        return "the phase challenge needs its text; pass it to --challenge"
    if "retry_failed" in given and "run_id" not in given:
        return "--retry-failed resumes a run; pass its id to --run-id"
    try:
        wait_seconds(given.get("wait", ("0", "")))
    except argparse.ArgumentTypeError as error:
        return f"--wait: {error}"
    return None


def wait_seconds(wait: Sequence[str]) -> float:
    """SECONDS of --wait; raises ArgumentTypeError."""
    return float(_number(0.0, 86400.0, "--wait 100 RUN")(wait[0]))


def api_key(options: Options, environment: Mapping[str, str]) -> Optional[str]:
    """The key in the variable of --api-key-env, None without that option."""
    if options.api_key_env is None:
        return None
    key = environment.get(options.api_key_env, "")
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        problem = "contains a blank or a character that no key has" if key else \
            "is not set; set it to the endpoint's key"
        raise HarnessError(f"--api-key-env {options.api_key_env}: the variable {problem}")
    return key


# --- commands that are printed -------------------------------------------------------------------
def command_with(options: Options, **changes: Any) -> str:
    """The command line of `options` with other values; None and False leave an option out."""
    names = [field.name for field in dataclasses.fields(Options)
             if field.name not in ("given", "asked", "wait")]
    values = {name: getattr(options, name) for name in names if name in options.given}
    return command("run_benchmark", *(
        word for name in names for word in _option(name, {**values, **changes}.get(name))))


def _option(name: str, value: Any) -> list[str]:
    """The words of an option with a value; none for None and False."""
    if value is None or value is False:
        return []
    shown = f"{value:.10g}" if isinstance(value, float) else str(value)
    return ["--" + name.replace("_", "-"), *([] if value is True else [shown])]


def next_command(options: Options, run: str, wait_s: Optional[str] = None) -> str:
    """The command that resumes a run, or follows it for `wait_s` seconds.

    run: its id, or for `wait_s` its folder. The command repeats what the manifest does not hold;
    to follow a run, the address of another machine, so that the end can print it.
    """
    words = ["--run-id", run] if wait_s is None else ["--wait", wait_s, run]
    is_remote = target_class(parse_target(options.target_url).host) != "loopback"
    names = ["target_url", "api_key_env"] * (is_remote or wait_s is None) + ["out_dir"]
    if wait_s is None:
        words += ["--rehearse"] * options.rehearse
        names = [*names[2 * options.rehearse:], "no_calibration"]
    for name in (*names, "json", "quiet"):
        words += _option(name, getattr(options, name) if name in options.given else None)
    return command("run_benchmark", *words)
