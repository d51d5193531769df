"""Generate the tables of the documents from the code.

    python3 harness/tests/make_documents.py      rewrites them in place, and prints what changed

A table is between `<!-- table:NAME:begin -->` and `<!-- table:NAME:end -->`, and a function below
generates it. A test fails if a document differs.
"""
from __future__ import annotations

import importlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

HARNESS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [path for path in (HARNESS,) if path not in sys.path]

import run_benchmark
from check import findings, submission_files
from compare import folders, headline, ranking, tables
from core import answer_checks, flag_definitions, ledger, metric_definitions, privacy, suites, text
from core import schema as schemas
from core.text import markdown_table
from engines import queries, servers
from tests import documents, picture

Json = dict[str, Any]
COMMON_FIELDS = ("event", "seq", "run_id", "segment", "at", "t_us")
PROGRAMS = ("run_benchmark", "complete_submission", "check_submission", "compare_submissions",
            "hardware", "reference_endpoint")


# Outcomes of a call, with their explanation in the documents.
OUTCOMES = {
    "ok": "the answer is complete, with a reason why it ended",
    "timeout": "the call's time ran out; the part received is kept",
    "connect_failed": "the connection could not be made",
    "connection_lost": "the connection broke before the end of the answer",
    "bad_redirect": "the server redirects to another place or changes the request",
    "http_error": "the server answered with an error status",
    "rate_limited": "HTTP 429 until the call's time ran out, or for longer than that",
    "server_busy": "HTTP 503 until the call's time ran out",
    "context_limit": "the server reports that the prompt does not fit the context",
    "stream_error": "the stream contained an error",
    "no_events": "the server answered 200 and sent no event",
    "interrupted_answer": "the stream ended without a reason, or for another reason than its end",
    "empty_answer": "the server answered 200 without any text",
    "bad_response": "the response is not a completion",
    "body_too_large": "the response is larger than 64 MiB",
    "skipped": "not asked, because a model's hello failed",
}


# --- Markdown ------------------------------------------------------------------------------------
def privacy_table() -> str:
    """The patterns of private text: id, what each finds, why it must not be published."""
    return markdown_table(("id", "what", "why"), (
        (f"`{p.id}`", p.what, p.why) for p in privacy.PATTERNS))


def shown(text: str) -> str:
    """Markdown in which `<word>` outside of code is text, not an HTML tag."""
    pieces = re.split(r"(`[^`]*`)", text)
    return "".join(piece if piece.startswith("`") else piece.replace("<", "&lt;")
                   for piece in pieces)


def code(text: str) -> str:
    """The text as inline code; "" for an empty one."""
    return f"`{text}`" if text else ""


# --- files ---------------------------------------------------------------------------------------
def first_paragraph(path: Path) -> str:
    """The first paragraph of a Python file's docstring."""
    found = re.match(r'(?:#[^\n]*\n)*"""(.*?)(?:\n\n|""")', path.read_text("utf-8"), re.DOTALL)
    return " ".join(found[1].split()) if found else ""


# --- the check -----------------------------------------------------------------------------------
def codes_table() -> str:
    """The finding codes."""
    return markdown_table(("code", "severity", "meaning"), (
        (code(one.name), one.severity, one.text) for one in findings.CODES.values()))


# --- phases and suites ---------------------------------------------------------------------------
def phases_table() -> str:
    """The phases in running order."""
    questions = suites.load_suites()
    return markdown_table(("phase", "suite", "calls", "lanes", "answer at most", "what"), (
        (code(name), code(phase.suite_file or "prompts.py"),
         {"ramp": "3 per lane", "depth": "2 per depth"}.get(name, str(len(questions[name]))),
         "1 to 16" if name == "ramp" else "`--lanes`" if phase.kind in ("same", "mixed") else "1",
         f"{phase.max_tokens} tokens" if phase.max_tokens else "`--num-predict`", phase.text)
        for name, phase in suites.PHASES.items()))


def format_rules_table() -> str:
    """The format rules, described by their docstrings."""
    return markdown_table(("`format_rule`", "what passes"), (
        (code(name), " ".join((rule.__doc__ or "").split()))
        for name, rule in answer_checks.FORMAT_RULES.items()))


def options_table() -> str:
    """The runner's options, as its help describes them."""
    rows = []
    for action in run_benchmark.build_parser()._actions[1:]:
        values = action.metavar if isinstance(action.metavar, tuple) else [action.metavar]
        rows.append((code(" ".join(filter(None, [*action.option_strings, *values]))),
                     shown(action.help)))
    return markdown_table(("option", "description"), rows)


# --- files of a run ------------------------------------------------------------------------------
def submission_files_table() -> str:
    """The five files of a submission."""
    said = {f"{name}.json": schemas.schema(name)["description"]
            for name in ("manifest", "metadata", "hardware")}
    said["run.jsonl"] = schemas.schema("ledger")["description"]
    said["run.md"] = first_paragraph(Path(HARNESS) / "complete" / "run_md.py")
    makers = ("run_benchmark.py", "complete_submission.py")
    return markdown_table(("file", "written by", "at most", "what it is"), (
        (code(name), code(makers[name not in (ledger.MANIFEST, ledger.LEDGER)]),
         f"{limit / submission_files.MIB:g} MiB", said[name])
        for name, limit in submission_files.LIMITS_BYTES.items()))


def events_table() -> str:
    """Every kind of ledger line."""
    definitions = schemas.schema("ledger")["$defs"]
    return markdown_table(("event", "meaning"), (
        (code(name), definitions[name]["description"]) for name in ledger.event_names()))


def call_fields_table() -> str:
    """The fields of a call's line; those of inner objects follow a dot."""
    root = schemas.schema("ledger")
    return markdown_table(("field of `call_finished`", "meaning"), (
        (code(name), text) for name, text in fields_below(root, root["$defs"]["call_finished"])
        if name not in COMMON_FIELDS and not name.startswith("timing.read_lag_us.")
        and not text.startswith("Written by earlier versions")))


def fields_below(root: Json, node: Json, prefix: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, description) of every property in a schema."""
    for name, held in node.get("properties", {}).items():
        yield prefix + name, held["description"]
        inner = held.get("anyOf", [held])[0]
        inner = root["$defs"][inner["$ref"].rpartition("/")[2]] if "$ref" in inner else inner
        yield from fields_below(root, inner, f"{prefix}{name}.")


def outcomes_table() -> str:
    """The outcomes of a call."""
    return markdown_table(("outcome", "meaning"), (
        (code(name), text) for name, text in OUTCOMES.items()))


# --- programs and engines -------------------------------------------------------------------------
def exit_codes(program: str) -> dict[str, str]:
    """{code: meaning} from the program's help; a code may be `130/143`."""
    parser = parser_of(program)
    help_text = f"{parser.description or ''}\n{parser.epilog or ''}"
    found = re.search(r"exit codes:\s*(.*?)\.(?:\s|$)", help_text, re.DOTALL | re.IGNORECASE)
    parts = re.split(r"[;,]\s+(?=\d)", " ".join(found[1].split())) if found else []
    return dict(part.split(" ", 1) for part in parts)


def parser_of(program: str) -> Any:
    """A program's own parser."""
    return importlib.import_module(program).build_parser()


def exit_codes_table() -> str:
    """The exit codes of every program."""
    return markdown_table(("program", "exit codes"), (
        (code(f"{program}.py"), "; ".join(f"{number} {text}"
                                          for number, text in exit_codes(program).items()))
        for program in PROGRAMS))


def metrics_table() -> str:
    """What each metric of the registry is."""
    return markdown_table(("metric", "unit", "better", "meaning", "formula"), (
        (code(m.name), m.unit, m.direction, m.text, code(m.formula))
        for m in metric_definitions.METRICS.values()))


def null_rules_table() -> str:
    """When each metric of the registry is null, and who else uses it."""
    return markdown_table(("metric", "null if", "source"), (
        (code(m.name), m.null_if, m.source) for m in metric_definitions.METRICS.values()))


def thresholds_table() -> str:
    """The registry's thresholds: its lines `NAME = value  # meaning`."""
    source = (Path(HARNESS) / "core" / "thresholds.py").read_text("utf-8")
    found = re.findall(r"^([A-Z][A-Z0-9_]+) = ([\d{].*?)  +# (.+)$", source, re.MULTILINE)
    return markdown_table(("threshold", "value", "of what, and why"), (
        (code(name), code(value), text) for name, value, text in found))


def flags_table() -> str:
    """The registry of flags."""
    ranked = {**{f.name: "no" if f.unrankable else "yes" for f in flag_definitions.FLAGS.values()},
              "client_bound": "partly", "busy_host": "partly",
              "queued": "partly"}     # as their texts explain
    return markdown_table(("flag", "meaning", "what to do", "still ranked"), (
        (code(f.name), f.text, f.remedy, ranked[f.name])
        for f in flag_definitions.FLAGS.values()))


def engines_table() -> str:
    """Properties of each engine."""
    ports = {name: port for port, names in queries.USUAL_PORTS.items() for name in names}
    values = {"tokens": "TOKENS", "total": "TOKENS_OF_ALL_SLOTS", "slots": "SLOTS",
              "model": "MODEL"}
    titles = "engine", "usual port", "prompt cache bypassed with", "how to set its context"
    return markdown_table(titles, (
        (name, str(ports.get(name, "")), code(engine.cache_field or "") or "a random first line",
         (engine.remedy or "").format(**values))
        for name, engine in servers.ENGINES.items() if name != "reference-endpoint"))


def real_run() -> str:
    """The headline of the merged run with the largest model; of several, of the newest."""
    runs = [json.loads(path.read_bytes()) for path in (documents.ROOT / "submissions").glob(
        "*/*/run-*/metadata.json") if path.parts[-4] != "EXAMPLE"]
    models = [(one["parameters_count"]["value"] or 0, run["run"]["started_at"], run, one, headline)
              for run in runs for one, headline in zip(run["models"], run["headlines"])]
    if not models:
        return "There is no run yet.\n"
    _, _, run, model, headline = max(models, key=lambda found: found[:2])
    lanes = headline["lanes"] or {"lanes_count": 4, "output_token_throughput_tokens_per_s": None}
    rows = [("writes", headline["decode_tokens_per_s"], 1, "tok/s", ""),
            ("reads", headline["prefill_tokens_per_s"], 1, "tok/s", ""),
            ("first word", headline["ttft_ms"], 1000, "s", ""),
            ("first word, long prompt", headline["long_ttft_ms"], 1000, "s", ""),
            (f"{lanes['lanes_count']} at once",
             {"median": lanes["output_token_throughput_tokens_per_s"], "ci_low": None}, 1, "tok/s",
             "  together")]
    shown = [(name, text.format_number(one["median"] / per), unit + (
        "" if one["ci_low"] is None else "  [{}-{}]".format(*(
            text.format_number(one[end] / per) for end in ("ci_low", "ci_high")))) + more)
        for name, one, per, unit, more in rows if one and one["median"] is not None]
    about = (model["quantization"]["value"], run["runtime"]["name"]["value"], run["device_tag"])
    return "\n".join(["```text", f"{model['model']} {about[0]}, {about[1]}, {about[2]}",
                      *text.align_columns(shown, right=(1,)), "```", ""])


TABLES: dict[str, Callable[[], str]] = {
    "phases": phases_table,
    "format-rules": format_rules_table,
    "options": options_table,
    "submission-files": submission_files_table,
    "events": events_table,
    "call-fields": call_fields_table,
    "outcomes": outcomes_table,
    "metrics": metrics_table,
    "null-rules": null_rules_table,
    "thresholds": thresholds_table,
    "flags": flags_table,
    "checks": codes_table,
    "privacy": privacy_table,
    "exit-codes": exit_codes_table,
    "engines": engines_table,
    "real-run": real_run,
}


def made_tables() -> dict[str, str]:
    """Every table, by name."""
    return {name: shown(make()) for name, make in TABLES.items()}


def made_pictures() -> dict[Path, str]:
    """The README's picture of all merged runs, by the path of its file for each colour scheme."""
    found = folders.read_all([str(documents.ROOT / "submissions")])
    rows = headline.headline_rows(found.submissions)
    blocks = tables.shown_blocks(ranking.ranked(rows))
    return {documents.HARNESS / "docs" / f"runs-{name}.svg": picture.svg(blocks, colours)
            for name, colours in picture.SCHEMES.items()}


def main() -> int:
    made = made_tables()
    for path, drawn in made_pictures().items():
        path.write_bytes(drawn.encode("utf-8"))
    for path in documents.PATHS:
        before = documents.read(path)
        after = documents.with_tables(before, made)
        if after != before:
            path.write_bytes(after.encode("utf-8"))
            print(f"rewritten: {path.relative_to(documents.ROOT)}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
