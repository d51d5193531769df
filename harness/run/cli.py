"""The runner's command line: every flag with its default, its unit and what it is for.

One table, from which the parser, its help, the resume command and the
documents' table are made. Pure: nothing here looks at the machine or talks to a server.
"""
from __future__ import annotations

import argparse
import re
import shlex
import urllib.parse
import uuid
from collections.abc import Sequence
from typing import Any, Callable, NamedTuple, Optional

from core import plan, suites
from core.errors import HarnessError
from core.text import Parser, printable

DEFAULT_URL = "http://127.0.0.1:11434"


class Target(NamedTuple):
    """Where the endpoint is; never published but for class, scheme, port and path."""

    base: str
    scheme: str
    host: str
    port: int
    path: str


class OptionSpec(NamedTuple):
    """One flag. kept: its value stands in the manifest, so that a resume need not repeat it and may
    not change it; private: its value names a place, a folder or a variable, and is never published.
    """

    flag: str
    group: str
    metavar: Any                       # None: a switch
    default: Any
    unit: str
    type: Optional[Callable[[str], Any]]
    text: str
    kept: bool = False
    private: bool = False

    @property
    def dest(self) -> str:
        """Its attribute on the parsed arguments."""
        return self.flag[2:].replace("-", "_")


# --- values --------------------------------------------------------------------------------------
def _number(low: float, high: float, whole: bool, example: str) -> Callable[[str], Any]:
    """A type for argparse: a number within bounds."""
    def read(text: str) -> Any:
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            kind = "a whole number" if whole else "a number"
            raise argparse.ArgumentTypeError(
                f"{printable(text)!r} is not {kind} from {low} to {high}; type for example "
                f"{example}")
        return value
    return read


def _phases(text: str) -> str:
    try:
        plan.parse_phases(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(printable(str(error))) from None
    return text


def _run_id(text: str) -> str:
    name = text[4:] if text.startswith("run-") else text
    try:
        if str(uuid.UUID(name)) == name.lower():
            return name.lower()
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(
        f"{printable(text)!r} is no run id; type one such as {uuid.UUID(int=0)}, or leave the flag "
        "out for a new run")


def _variable(text: str) -> str:
    if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", text):
        return text
    raise argparse.ArgumentTypeError(
        "that is not the name of an environment variable; type the variable's name, never the key "
        "itself")


def parse_target(text: str) -> Target:
    """A base URL with or without `/v1` or a trailing slash; raises ArgumentTypeError."""
    try:
        parts = urllib.parse.urlsplit(text if "://" in text else "http://" + text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if (not host or port == 0 or parts.scheme not in ("http", "https")
            or not re.fullmatch(r"[\x21-\x7e]+", text)):
        raise argparse.ArgumentTypeError(
            f"{printable(text)!r} is no http or https URL; type something like {DEFAULT_URL}")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise argparse.ArgumentTypeError(
            "leave out user, password, query and fragment; a key goes into an environment variable "
            "that --api-key-env names")
    path = parts.path.rstrip("/")
    path = path[:-3] if path.endswith("/v1") else path
    port = port or (443 if parts.scheme == "https" else 80)
    name = f"[{host}]" if ":" in host else host
    return Target(f"{parts.scheme}://{name}:{port}{path}", parts.scheme, host, port, path)


def _url(text: str) -> str:
    parse_target(text)
    return text


# --- the table -----------------------------------------------------------------------------------
def option_table(canonical: dict[str, Any]) -> tuple[OptionSpec, ...]:
    """Every flag; canonical: the runner's CANONICAL_OPTIONS, which are defaults here."""
    what, how, modes, out = ("what is asked", "how it is asked", "instead of a run",
                             "what is shown")
    where = "whose run it is, and where it goes"
    return (
        OptionSpec("--target-url", what, "URL", DEFAULT_URL, "", _url,
             "base URL of the endpoint, with or without /v1", kept=True, private=True),
        OptionSpec("--models", what, "LIST", None, "", None,
             "model ids with commas between, or auto for all that chat; default: the only model "
             "served", kept=True),
        OptionSpec("--phases", what, "LIST", ",".join(suites.DEFAULT_PHASES), "", _phases,
             f"phases with commas between, or all: {', '.join(suites.PHASES)}; a hello always goes "
             "first", kept=True),
        OptionSpec("--repeats", what, "N", 1, "times", _number(1, 1000, True, "--repeats 3"),
             "how often each question is asked", kept=True),
        OptionSpec("--lanes", what, "N", 4, "calls at once", _number(1, 256, True, "--lanes 4"),
             "parallel lanes of the parallel phases", kept=True),
        OptionSpec("--timeout", how, "S", 360.0, "s", _number(0.1, 86400, False, "--timeout 360"),
             "cap of one call, name look-up, connection and waiting included", kept=True),
        OptionSpec("--temperature", how, "T", canonical["temperature"], "1",
             _number(0, 2, False, "--temperature 0.1"), "sampling temperature", kept=True),
        OptionSpec("--num-ctx", how, "TOKENS", canonical["num_ctx"], "tokens",
             _number(128, 10_000_000, True, "--num-ctx 4096"),
             "context that is asked for; no server takes it with a request, so it is held against "
             "the context in force", kept=True),
        OptionSpec("--num-predict", how, "TOKENS", canonical["num_predict"], "tokens",
             _number(1, 1_000_000, True, "--num-predict 2048"), "cap of one answer", kept=True),
        OptionSpec("--prompt-cache", how, "POLICY", "avoid", "", None,
             "avoid: no prompt may come out of the server's cache; allow: as the server likes",
             kept=True),
        OptionSpec("--api-key-env", how, "NAME", None, "", _variable,
             "environment variable that holds the endpoint's key; without it no key is sent",
             private=True),
        OptionSpec("--submitter-handle", where, "LOGIN", "unnamed", "", None,
             "your GitHub login in lower case", kept=True),
        OptionSpec("--device-tag", where, "TAG", "unnamed-device", "", None,
             "what the machine is, such as mac-m1-8gb", kept=True),
        OptionSpec("--cell-id-prefix", where, "TAG:ENGINE", None, "", None,
             "begin of every cell id; default <device-tag>:<engine>, without a tag local:<engine>",
             kept=True),
        OptionSpec("--run-id", where, "UUID", None, "", _run_id,
             "id of the run; of one that exists: go on with it, its other flags as they were"),
        OptionSpec("--out-dir", where, "FOLDER", None, "", None,
             "folder for <handle>/<device-tag>/run-<uuid>/; default: submissions/ of this "
             "repository", private=True),
        OptionSpec("--retry-failed", where, None, False, "", None,
             "with --run-id: ask the failed calls again, too"),
        OptionSpec("--no-hostname", where, None, False, "", None,
             "leave this machine's short name out of manifest.json", kept=True),
        OptionSpec("--no-calibration", where, None, False, "", None,
             "do not measure this client's own error first (3 s)"),
        OptionSpec("--probe", modes, None, False, "", None,
             "say what is served and make one hello call; without --target-url, at the usual ports "
             "of this machine; writes nothing"),
        OptionSpec("--smoke", modes, None, False, "", None,
             "one hello call from end to end, with a ledger", kept=True),
        OptionSpec("--plan", modes, None, False, "", None,
             "say what would be asked and, after a hello, how long it may take; writes nothing"),
        OptionSpec("--rehearse", modes, None, False, "", None,
             "all phases against the embedded endpoint, under a minute; writes into a temporary "
             "folder"),
        OptionSpec("--detach", modes, None, False, "", None,
             "run in the background, also when this shell ends; prints run id and log"),
        OptionSpec("--wait", modes, ("SECONDS", "RUN"), None, "s", None,
             "follow a run until it ends or the time is up"),
        OptionSpec("--json", out, None, False, "", None, "print one JSON document on standard output"),
        OptionSpec("--quiet", out, None, False, "", None, "no progress on standard error"),
    )


def _help_of(knob: OptionSpec) -> str:
    unit = f" {knob.unit}" if knob.unit and knob.unit != "1" else ""
    shown = knob.metavar is not None and knob.default is not None
    default = f" (default {knob.default:g}{unit})" if shown and isinstance(knob.default, float) \
        else f" (default {knob.default}{unit})" if shown else ""
    return (knob.text + default).replace("%", "%%")


def build_parser(description: str, canonical: dict[str, Any]) -> Parser:
    """The parser; flags that a manifest keeps are None unless they were typed (see `settle`)."""
    parser = Parser("run_benchmark", description)
    parser.set_defaults(out_dir_typed=False)
    groups: dict[str, Any] = {}
    for knob in option_table(canonical):
        group = groups.setdefault(knob.group, None) or parser.add_argument_group(knob.group)
        groups[knob.group] = group
        group.add_argument(knob.flag, **_argument_of(knob))
    return parser


def _argument_of(knob: OptionSpec) -> dict[str, Any]:
    default = None if knob.kept else knob.default
    if knob.metavar is None:
        return {"action": "store_true", "default": default, "help": _help_of(knob)}
    made: dict[str, Any] = {"metavar": knob.metavar, "default": default, "help": _help_of(knob)}
    if isinstance(knob.metavar, tuple):
        made["nargs"] = len(knob.metavar)
    if knob.type:
        made["type"] = knob.type
    if knob.dest == "prompt_cache":
        made["choices"] = ("avoid", "allow")
    return made


def require_valid_combination(args: argparse.Namespace) -> None:
    """Flags that exclude each other; raises Stop."""
    modes = [flag for flag in ("--probe", "--plan", "--rehearse", "--smoke", "--wait")
             if getattr(args, flag[2:])]
    if len(modes) > 1 and modes != ["--rehearse", "--smoke"]:
        raise HarnessError(f"{' and '.join(modes)} exclude each other; type one of them")
    if args.detach and modes and modes[0] in ("--probe", "--plan", "--wait"):
        raise HarnessError(f"--detach is for runs; type {modes[0]} without it")
    if args.rehearse and args.target_url:
        raise HarnessError("--rehearse asks its own endpoint; type it without --target-url")
    if args.retry_failed and not args.run_id:
        raise HarnessError("--retry-failed goes on with a run; type its id behind --run-id")


def api_key(args: argparse.Namespace, environment: Any) -> Optional[str]:
    """The key that --api-key-env names, None without one; raises Stop."""
    if not args.api_key_env:
        return None
    key = str(environment.get(args.api_key_env, ""))
    if not re.fullmatch(r"[\x21-\x7e]+", key):
        what = "holds a space or another character that no key has" if key else "is not set"
        raise HarnessError(f"--api-key-env {args.api_key_env}: that variable {what}")
    return key


def wait_seconds(args: argparse.Namespace) -> float:
    """SECONDS of --wait; raises Stop."""
    try:
        return float(_number(0, 86400, False, "--wait 100 RUN")(args.wait[0]))
    except argparse.ArgumentTypeError as error:
        raise HarnessError(f"--wait: {error}") from None


# --- settled arguments ---------------------------------------------------------------------------
def settle(args: argparse.Namespace, canonical: dict[str, Any]) -> None:
    """Put the default into every flag that was neither typed nor taken from a manifest."""
    for knob in option_table(canonical):
        if getattr(args, knob.dest) is None:
            setattr(args, knob.dest, knob.default)


def typed(args: argparse.Namespace, canonical: dict[str, Any]) -> list[tuple[OptionSpec, Any]]:
    """The flags that stand at something else than their default, with their values."""
    values = [(knob, getattr(args, knob.dest)) for knob in option_table(canonical)]
    return [(knob, value) for knob, value in values
            if value is not None and value is not False and value != knob.default
            and (knob.dest != "out_dir" or args.out_dir_typed)]


def resume_command(args: argparse.Namespace, canonical: dict[str, Any], run_id: str,
                   retry_failed: bool = False) -> str:
    """What to type to go on with a run: its id, and what its manifest does not hold."""
    words = ["python3", "harness/run_benchmark.py", "--run-id", run_id]
    wanted = ["--rehearse"] if args.rehearse else ["--target-url", "--api-key-env"]
    for knob, value in typed(args, canonical):
        if knob.flag in (*wanted, "--out-dir", "--no-calibration"):
            words += [knob.flag] if knob.metavar is None else [knob.flag, str(value)]
    return shlex.join(words + ["--retry-failed"] * retry_failed)


def detached_words(args: argparse.Namespace, words: Sequence[str], run_id: str) -> list[str]:
    """The command line of the same run in the background."""
    return [word for word in words if word != "--detach"] + ["--run-id", run_id] + [
        "--out-dir", args.out_dir] * args.out_dir_typed


def wait_command(args: argparse.Namespace, seconds: str, run: str) -> str:
    """What to type to follow a run."""
    words = ["python3", "harness/run_benchmark.py", "--wait", seconds, run]
    return shlex.join(words + ["--out-dir", args.out_dir] * args.out_dir_typed)


def follow_command(folder: str) -> str:
    """What to type to follow the run in a folder."""
    return shlex.join(["python3", "harness/run_benchmark.py", "--wait", "100", folder])


def flags_markdown(canonical: dict[str, Any]) -> str:
    """The flags as a Markdown table; the documents hold it byte for byte."""
    rows = ["| flag | default | unit | what it does |", "| --- | --- | --- | --- |"]
    for knob in option_table(canonical):
        metavar = " ".join(knob.metavar) if isinstance(knob.metavar, tuple) else knob.metavar
        name = f"`{knob.flag} {metavar}`" if metavar else f"`{knob.flag}`"
        shown = knob.default if metavar and knob.default is not None else ""
        text = f"{shown:g}" if isinstance(shown, float) else str(shown)
        default = f"`{text}`" if text else ""
        rows.append(f"| {name} | {default} | {knob.unit} | {knob.text} |")
    return "\n".join(rows) + "\n"
