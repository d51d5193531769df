"""run.md: one run as a page that GitHub shows as it is; a pure function of the other four files.

`render_run_md` writes the whole page. Only what stands between the marks of SECTIONS is the
contributor's own; `read_sections` takes it out of a page again, so that a check renders the page a
second time, and what differs was typed by hand:

    render_run_md(manifest, metadata, hardware, read_sections(page), events) == page

Whatever a server, a model's name or a contributor's value brought stands in code spans or fenced
blocks, in printable ASCII with its odd characters escaped: no link, image, HTML or mention can come
of it.
"""
from __future__ import annotations

import math
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Optional

from core import ledger, metrics, result_tables, suites
from core.names import plain_engine
from core.text import align_columns, duration, format_number, printable, with_interval

from complete import metadata

Json = dict[str, Any]


# The contributor's places, with what stands there until something is written.
STATEMENTS = (
    "I looked through all five files. They hold no key, address, host, user or personal name, and "
    "no serial number.",
    "`python3 harness/check_submission.py --privacy` on this folder found nothing.",
    "The numbers are those of this one run; no byte of `run.jsonl` was changed, and no other run "
    "was left out because its numbers were worse.",
    "These files are to be published under CC-BY-4.0, once a human has agreed to that.",
)
SECTIONS = {
    "deviations": "_What was adapted to this machine, and why. Or: none._",
    "notes": "_What else a reader should know. Or: none._",
    "attestation": "\n".join(f"- [ ] {statement}" for statement in STATEMENTS),
}

NOTE = ("<!-- Written by harness/complete_submission.py. Write between the marks \"words\" only: "
        "everything else is made from the other four files, and made anew each time. -->")

LONGEST_CELL = 120
CHART_LINES = 40
BARS = "▁▂▃▄▅▆▇█"
MOST_BARS = 40
NO_BAR, FAILED_BAR = ".", "x"
GIB = 1024 ** 3

# What the page shows of hardware.json, in this order.
MACHINE = (
    "system.model_name", "system.kind", "system.virtualization", "system.container",
    "cpu.model_name", "cpu.physical_cores_count", "cpu.performance_cores_count",
    "cpu.efficiency_cores_count", "cpu.usable_threads_count", "cpu.max_mhz",
    "cpu.instruction_sets", "memory.capacity_bytes", "memory.limit_bytes", "memory.type",
    "memory.speed_mts", "memory.channels_count", "memory.bandwidth_theoretical_gb_per_s",
    "memory.bandwidth_measured_gb_per_s", "memory.unified", "os.name", "os.version",
    "power.source", "power.mode", "power.governor", "accelerators_count")


# --- words of the contributor --------------------------------------------------------------------
def section_marks(name: str) -> tuple[str, str]:
    """What stands before and behind a place for words."""
    return f"<!-- begin run_md.{name} -->", f"<!-- end run_md.{name} -->"


def read_sections(page: str) -> dict[str, str]:
    """What stands between the marks of a page; raises ValueError where a mark lacks or is twice."""
    found, at = {}, 0
    page = page.replace("\r\n", "\n")
    for name in SECTIONS:
        begin, end = section_marks(name)
        for mark in (begin, end):
            if page.count(mark) != 1:
                raise ValueError(f"the mark {mark} stands there {page.count(mark)} times, not once")
        start, stop = page.index(begin) + len(begin), page.index(end)
        if not at <= start <= stop:
            raise ValueError(f"the mark {begin} stands at the wrong place")
        found[name], at = page[start:stop].strip("\n"), stop
    return found


def section_text(name: str, text: str) -> str:
    """What to put between the marks of a name; raises ValueError where it cannot stand there.

    null: what stood there at first. attestation takes true, which ticks every statement.
    """
    if text == "null":
        return SECTIONS[name]
    if name == "attestation":
        if text != "true":
            raise ValueError("it takes true, which ticks every statement, or null")
        return SECTIONS[name].replace("- [ ]", "- [x]")
    plain = text.strip().replace("\r\n", "\n")
    if not plain or "run_md." in plain and "<!--" in plain or not plain.replace("\n", "").isprintable():
        raise ValueError("it takes printable text without the page's own marks, or null")
    return plain


def is_unwritten(words: Mapping[str, str], name: str) -> bool:
    """Whether a place still holds what stood there at first, or nothing."""
    return words.get(name, "").strip() in ("", SECTIONS[name])


def unticked_statements(words: Mapping[str, str]) -> list[str]:
    """The statements of the attestation that are not ticked, or are gone."""
    lines = [line.strip() for line in words.get("attestation", "").split("\n")]
    return [statement for statement in STATEMENTS
            if not {f"- [x] {statement}", f"- [X] {statement}"} & set(lines)]


# --- Markdown ------------------------------------------------------------------------------------
def code(value: Any, limit: int = LONGEST_CELL) -> str:
    """Text that may hold anything, as a code span that is safe in a table, too."""
    text = _plain(str(value), limit).strip()
    return f"`{text}`" if text else "-"


def _plain(text: str, limit: int = LONGEST_CELL) -> str:
    """Printable ASCII that ends no code span, block or table cell, and holds none of our marks."""
    shown = printable(text, limit)
    for odd in ("`", "|", "<!--"):
        shown = shown.replace(odd, f"\\x{ord(odd[0]):02x}{odd[1:]}")
    return shown


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (headers, ["---"] * len(headers), *rows))


def _block(lines: Iterable[str]) -> str:
    return "\n".join(["```text", *lines, "```"])


def _list(items: Sequence[str], otherwise: str) -> str:
    return "\n".join(f"- {item}" for item in items) or otherwise


# --- values --------------------------------------------------------------------------------------
def _shown(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(str, value))
    if not isinstance(value, (int, float)):
        return str(value)
    number = f"{value:,}" if isinstance(value, int) else f"{value:g}"
    return f"{number} ({value / GIB:.2f} GiB)" if key.endswith("_bytes") else number


def _value_row(key: str, item: Json) -> list[str]:
    beside = f"; {code(item['reason'])}" if item["reason"] else ""
    return [key, code(_shown(key, item["value"])), item["source"] + beside]


def _values_table(items: Sequence[tuple[str, Json]]) -> str:
    """The values that are known as a table, the names of the others in a line below."""
    unknown = [key for key, item in items if item["value"] is None]
    below = f"\n\nNot known: {', '.join(unknown)}." if unknown else ""
    rows = [_value_row(key, item) for key, item in items if item["value"] is not None]
    return (_table(("field", "value", "source"), rows) if rows else "") + below


def _machine(hardware: Json, found: Json) -> str:
    values = dict(metadata.values(hardware))
    tables = [_values_table([(key, values[key]) for key in MACHINE])]
    for at, card in enumerate(hardware["accelerators"]):
        tables.append(f"Accelerator {at}:\n\n" + _values_table(list(card.items())))
    if found["endpoint"]["same_machine"]["value"] is not True:
        tables.insert(0, "The server ran on another machine than the benchmark; what is known of "
                         "it is what the contributor says. The network between the two is inside "
                         "every time.")
    return "\n\n".join(tables)


def _models(found: Json) -> str:
    runtime = list(found["runtime"].items())
    parts = ["Runtime:\n\n" + _values_table(runtime)]
    for model in found["models"]:
        held = [(key, item) for key, item in model.items() if metadata.is_value(item)]
        parts.append(f"Model {code(model['model'], 200)}:\n\n" + _values_table(held))
    return "\n\n".join(parts)


# --- what came of it -----------------------------------------------------------------------------
def _results(found: Json) -> str:
    parts = []
    for model in dict.fromkeys(cell["model"] for cell in found["cells"]):
        rows = [_result_row(cell) for cell in found["cells"] if cell["model"] == model]
        headers = ("phase", "calls", *(title for title, _ in result_tables.TABLE_METRICS),
                   "lane efficiency", "checks", "flags")
        parts.append(f"{code(model, 200)}\n\n" + _table(headers, rows))
    legend = ("Medians, with the exact 95 % interval of the median across prompts where there is "
              "one; calls: with an answer, of those asked; checks: shape and markers, not truth.")
    return "\n\n".join([*parts, legend] if parts else ["No call was made."])


def _result_row(cell: Json) -> list[str]:
    checks = cell["checks"]
    return [cell["phase"] + (" (cold)" if cell["cold"] else ""),
            f"{cell['ok']}/{cell['ok'] + cell['failed']}",
            *(with_interval(cell["metrics"][name]) for _, name in result_tables.TABLE_METRICS),
            format_number(cell["lane_efficiency_ratio"]) if cell["lanes"] > 1 else "",
            f"{checks['passed']}/{checks['total']}" if checks["total"] else "",
            ", ".join(map(code, cell["flags"]))]


def _flags(found: Json) -> str:
    """Each flag of the run in words, with its remedy."""
    return _list([f"**{line.partition(':')[0]}**:{line.partition(':')[2]}"
                  for line in result_tables.flags_explained(found)], "None.")


def _instrument(found: Json) -> str:
    lag = found["instrument"]["read_lag_us"]
    lines = [_plain(result_tables.instrument_line(found), 300)]
    if lag:
        lines.append(f"in the run's own calls: read {format_number(lag['p50'] / 1000)} ms after the "
                     f"kernel had the bytes (median), {format_number(lag['p99'] / 1000)} ms (p99), "
                     f"{format_number(lag['max'] / 1000)} ms at most, over {lag['n']} calls")
    return _block(lines)


# --- the shape of the run ------------------------------------------------------------------------
def chart(events: Sequence[Json]) -> list[str]:
    """A line for each model and phase: decode rate and TTFT of its calls as bars, in order.

    A bar's height is its share of the row's largest value. Of more than MOST_BARS calls a bar is
    the median of several. "." has no value, "x" no answer.
    """
    models: dict[str, dict[str, list[Json]]] = {}
    for call in ledger.latest_calls(events):
        models.setdefault(call["model"], {}).setdefault(call["phase"], []).append(call)
    table = [["", "decode, tokens/s", "TTFT, ms"]]
    for name, rows in models.items():
        table += [[_plain(name, 80)], *(_chart_row(phase, calls) for phase, calls in rows.items())]
    left_out = len(table) - CHART_LINES
    if left_out > 0:
        table = [*table[:CHART_LINES - 1], [f"... and {left_out + 1} lines more"]]
    return _aligned(table) if models else []


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Rows of three cells in columns; a row of one stands as it is."""
    rows = iter(align_columns([row for row in table if len(row) > 1]))
    return [next(rows) if len(row) > 1 else row[0] for row in table]


def _chart_row(phase: str, calls: Sequence[Any]) -> list[str]:
    numbers = [metrics.call_metrics(call) if call["outcome"] == "ok" else None for call in calls]
    return ["  " + phase, *(_bars(numbers, name) for name in ("decode_tokens_per_s", "ttft_ms"))]


def _bars(numbers: Sequence[Optional[Json]], name: str) -> str:
    size = math.ceil(len(numbers) / MOST_BARS)
    groups = [numbers[at:at + size] for at in range(0, len(numbers), size)]
    heights = [[one[name] for one in group if one and one[name] is not None] for group in groups]
    values = [metrics.median(height) if height else None for height in heights]
    there = [value for value in values if value is not None]
    bars = "".join(_bar(value, max(there)) if value is not None else
                   NO_BAR if any(group) else FAILED_BAR for value, group in zip(values, groups))
    ends = dict.fromkeys(map(format_number, (min(there), max(there)))) if there else ()
    return f"{bars} {' to '.join(ends)}".rstrip()


def _bar(value: float, largest: float) -> str:
    share = value / largest if largest > 0 else 0
    return BARS[min(max(math.ceil(share * len(BARS)) - 1, 0), len(BARS) - 1)]


# --- how it was made -----------------------------------------------------------------------------
def reproduce_command(manifest: Json) -> str:
    """The command for the same run against another endpoint: models, and options off default."""
    words = ["python3", "harness/run_benchmark.py"]
    if manifest["synthetic"] and manifest["submitter_handle"] != "example":
        return " ".join([*words, "--rehearse"])
    target, plan, tag = manifest["target"], manifest["plan"], manifest["device_tag"]
    phases = [entry["phase"] for entry in plan["phases"]]
    prefix = ("local" if tag == "unnamed-device" else tag) + ":" + plain_engine(
        manifest["engine"]["name"])
    at_default = (target["class"], target["scheme"], target["port"], target["path"]) == (
        "loopback", "http", 11434, None)
    options: list[tuple[str, Any, Any]] = [
        ("--phases", "all" if phases == list(suites.PHASES) else ",".join(phases),
         "hello" if manifest["smoke"] else ",".join(suites.DEFAULT_PHASES)),
        ("--repeats", plan["repeats"], suites.DEFAULT_REPEATS),
        ("--lanes", plan["lanes"], suites.DEFAULT_LANES),
        ("--timeout", manifest["timeout_s"], suites.DEFAULT_TIMEOUT_S),
        *(("--" + name.replace("_", "-"), value, None)
          for name, value in manifest["canonical_options_overrides"].items()),
        ("--prompt-cache", manifest["prompt_cache"]["policy"], "avoid"),
        ("--api-key-env", "NAME" if manifest.get("api_key_used") else None, None),
        ("--device-tag", tag, "unnamed-device"),
        ("--cell-id-prefix", manifest["cell_id_prefix"], prefix)]
    words += ["--models", shlex.quote(",".join(manifest["models"]))]
    words += [] if at_default else ["--target-url", "<URL>"]
    for name, value, default in options:
        words += [] if value == default else [name, shlex.quote(str(value))]
    words += ["--no-hostname"] if manifest["host_hostname_short"] is None else []
    return " ".join(words + ["--smoke"] * manifest["smoke"])


def _reproduce(manifest: Json) -> str:
    git, python, system = manifest["git"], manifest["python"], manifest["os"]
    commit = code(git["commit"] or "unknown") + (", with changes" if git["dirty"] else "")
    made = (f"Harness {code(manifest['harness_version'])}, commit {commit}; "
            f"{code(python['implementation'])} {code(python['version'])} on "
            f"{code(system['system'])} {code(system['machine'] or 'unknown')}. The server was "
            "started as the table above says.")
    return _block([_plain(reproduce_command(manifest), 2000)]) + "\n\n" + made


def deviations(manifest: Json, found: Json, events: Sequence[Json]) -> list[str]:
    """Where the run differs from the canonical one, as far as the files tell."""
    canonical, overrides = manifest["canonical_options"], manifest["canonical_options_overrides"]
    out = [f"{name}: {value:g}, canonical is {canonical[name]:g}"
           for name, value in overrides.items()]
    asked = overrides.get("num_ctx", canonical["num_ctx"])
    for model in found["models"]:
        tokens = model["context_effective_tokens"]["value"]
        if tokens is None:
            out.append(f"{code(model['model'])}: it is not known whether the context of {asked} "
                       "tokens that was asked for was in force")
        elif tokens != asked:
            out.append(f"{code(model['model'])}: a context of {tokens} tokens was in force, "
                       f"{asked} were asked for")
    if manifest["prompt_cache"]["policy"] != "avoid":
        out.append("prompts were allowed to come out of the server's cache")
    out += [f"{event['phase']} was left out: {code(event['reason'], 300)}" for event in events
            if event["event"] == "phase_skipped"]
    out += [f"{code(key)}: the contributor says {code(item['value'])}, {code(item['reason'])}"
            for key, item in metadata.values(found)
            if item["source"] == "declared" and item["reason"]]
    missing = len(metadata.missing_cells(manifest, events))
    if found["run"]["class"] == "partial":
        out.append(f"the run is partial: {missing} planned calls were not made")
    return out


# --- the page ------------------------------------------------------------------------------------
def _banner(manifest: Json) -> str:
    if not manifest["synthetic"]:
        return ""
    what = ("**EXAMPLE, SYNTHETIC.** Made up to show the shape of a submission"
            if manifest["submitter_handle"] == "example" else
            "**SYNTHETIC.** A rehearsal on the embedded endpoint")
    return f"> {what}; no machine was measured.\n\n"


def _summary(manifest: Json, found: Json) -> str:
    run, engine = found["run"], found["endpoint"]["engine"]
    counts = ", ".join(f"{count} {code(kind)}" for kind, count in found["counts"].items())
    asked = sum(found["counts"].values())
    version = engine["version"] or engine["build"]
    segments = "" if run["segments_count"] == 1 else f" in {run['segments_count']} segments"
    return (
        f"Run {code(manifest['run_id'])} by {code(manifest['submitter_handle'])}, harness "
        f"{code(manifest['harness_version'])}, from {run['started_at']} to {run['ended_at']}: "
        f"{asked} call{'' if asked == 1 else 's'} ({counts or 'none'}) to {code(engine['name'])}"
        f"{' ' + code(version) if version else ''} ({found['endpoint']['class']}), "
        f"{duration(run['wall_s'])}{segments}. Class: {run['class']}.")


def _place(words: Mapping[str, str], name: str) -> str:
    begin, end = section_marks(name)
    return f"{begin}\n{words.get(name) or SECTIONS[name]}\n{end}"


def render_run_md(manifest: Json, found: Json, hardware: Json, words: Mapping[str, str],
                  events: Sequence[Json]) -> str:
    """The whole page. found: metadata.json; words: of the contributor, by the names of SECTIONS."""
    models = ", ".join(code(model, 200) for model in manifest["models"])
    bars = chart(events)
    legend = ("Each bar is a call, in the order in which they ended, its height relative to the "
              "row's largest; `.` has no value (too short an answer), `x` no answer.")
    parts = (
        (f"# {models} on {code(manifest['device_tag'])}", _summary(manifest, found)),
        ("## Machine", _machine(hardware, found)),
        ("## Model and runtime", _models(found)),
        ("## Results", _results(found)),
        ("## Shape of the run", _block(bars) + "\n\n" + legend if bars else "No call was made."),
        ("## Flags", _flags(found)),
        ("## The instrument's own error", _instrument(found)),
        ("## To reproduce", _reproduce(manifest)),
        ("## Deviations", _list(deviations(manifest, found, events),
                                "The canonical knobs were in force.")
         + "\n\nIn the contributor's words:\n\n" + _place(words, "deviations")),
        ("## Notes", _place(words, "notes")),
        ("## Privacy and honesty", _place(words, "attestation")),
    )
    page = "\n\n".join(f"{head}\n\n{body}" for head, body in parts)
    return f"{_banner(manifest)}{NOTE}\n\n{page}\n"
