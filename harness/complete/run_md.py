"""The results of one run as a page for GitHub, computed from the other four files.

The contributor writes only the sections of complete/attestation.py, which reads them back from a
page, so that the check can render the page again and find every other edit:

    render_run_md(manifest, document, hardware, attestation.read_sections(page), events) == page

Text from a server, a model name or a declared value is printable ASCII in a code span or block. It
cannot become a link, an image, HTML or a mention.
"""
from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from complete import attestation, metadata, results_md
from core import curve_levels, plan, result_tables, suites
from core import text as texts
from core.names import UNNAMED_TAG, usual_prefix
from core.records import Fact, LedgerLine, Manifest, Metadata

HEADER = ('<!-- Written by harness/complete_submission.py. Edit only between the "begin" and "end" '
          "comments: the rest is computed from the other four files and will be overwritten. -->")
LONGEST_CELL = 120
# The values of hardware.json that the page shows, in this order.
MACHINE = (
    "system.model_name", "system.kind", "system.virtualization", "system.container",
    "cpu.model_name", "cpu.physical_cores_count", "cpu.performance_cores_count",
    "cpu.efficiency_cores_count", "cpu.usable_threads_count", "cpu.max_mhz",
    "cpu.instruction_sets", "memory.capacity_bytes", "memory.limit_bytes", "memory.type",
    "memory.speed_mts", "memory.channels_count", "memory.bandwidth_theoretical_gb_per_s",
    "memory.bandwidth_measured_gb_per_s", "memory.unified", "os.name", "os.version",
    "power.source", "power.mode", "power.governor", "accelerators_count")


# --- parts of the page ---------------------------------------------------------------------------
def _code(value: Any, limit: int = LONGEST_CELL) -> str:
    return texts.code_span(str(value), limit) or "-"


def _block(*lines: str) -> str:
    return "\n".join(["```text", *lines, "```"])


def _list(items: Sequence[str]) -> str:
    return "\n".join(f"- {item}" for item in items) or "None."


def _values(values: Mapping[str, Fact]) -> str:
    """A table of the known values with their sources, and the names of the unknown ones."""
    rows = []
    for key, item in values.items():
        if item["value"] is not None:
            value = texts.markdown_words(texts.field_text(key, item["value"]), LONGEST_CELL) or "-"
            reason = f"; {_code(item['reason'])}" if item["reason"] else ""
            rows.append([texts.field_title(key), f"{value} <sub>{item['source']}</sub>{reason}"])
    unknown = [_code(key) for key, item in values.items() if item["value"] is None]
    parts = [texts.markdown_table(("", ""), rows).rstrip()] if rows else []
    return "\n\n".join([*parts, *([f"Not known: {', '.join(unknown)}."] if unknown else [])])


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def _machine(hardware: Mapping[str, Any], document: Metadata) -> str:
    values = dict(metadata.values(hardware))
    parts = [_values({key: values[key] for key in MACHINE})]
    parts += [f"Accelerator {at}:\n\n{_values(card)}"
              for at, card in enumerate(hardware["accelerators"])]
    if document["endpoint"]["same_machine"]["value"] is not True:
        parts.insert(0, "The server ran on another machine than the benchmark. Its hardware was "
                        "declared by the contributor. All times include the network between the "
                        "two machines.")
    return "\n\n".join(parts)


def _models(document: Metadata) -> str:
    parts = ["Runtime:\n\n" + _values(dict(metadata.values(document["runtime"])))]
    parts += [f"Model {_code(model['model'], 200)}:\n\n{_values(dict(metadata.values(model)))}"
              for model in document["models"]]
    return "\n\n".join(parts)


def _timing_error(document: Metadata) -> str:
    lines = [texts.markdown_safe(result_tables.instrument_line(document), 300)]
    lag = document["instrument"]["read_lag_us"]
    if lag:
        p50, p99, largest = (texts.format_number(None if us is None else us / 1000)
                             for us in (lag["p50"], lag["p99"], lag["max"]))
        lines.append(f"in this run: bytes read {p50} ms after they reached the kernel (median), "
                     f"p99 {p99} ms, at most {largest} ms, over {lag['n']} calls")
    return _block(*lines)


def reproduce_command(manifest: Manifest) -> str:
    """The command that repeats the run: its models, and the options that differ from defaults. In
    one form on every system, since the check renders the page again."""
    words = ["python3", "harness/run_benchmark.py"]
    if manifest["synthetic"] and manifest["submitter_handle"] != "example":
        return " ".join([*words, "--rehearse"])
    target, planned, tag = manifest["target"], manifest["plan"], manifest["device_tag"]
    phases = [entry["phase"] for entry in planned["phases"]]
    depths = [entry["context_tokens"] for entry in planned["phases"] if "context_tokens" in entry]
    is_default_url = (target["class"], target["scheme"], target["port"], target["path"]) == (
        "loopback", "http", 11434, None)
    options: list[tuple[str, object, object]] = [
        ("--phases", "all" if phases == list(suites.ALL_PHASES) else ",".join(phases),
         "hello" if manifest["smoke"] else ",".join(suites.DEFAULT_PHASES)),
        ("--repeats", planned["repeats"], suites.DEFAULT_REPEATS),
        ("--lanes", planned["lanes"], suites.DEFAULT_LANES),
        ("--timeout", manifest["timeout_s"], suites.DEFAULT_TIMEOUT_S),
        *(("--" + name.replace("_", "-"), value, None)
          for name, value in manifest["canonical_options_overrides"].items()),
        *(("--num-ctx", tokens, curve_levels.DEEPEST_TOKENS + curve_levels.ROOM_TOKENS)
          for tokens in depths),
        ("--prompt-cache", manifest["prompt_cache"]["policy"], "avoid"),
        ("--device-tag", tag, UNNAMED_TAG),
        ("--cell-id-prefix", manifest["cell_id_prefix"],
         usual_prefix(tag, manifest["engine"]["name"]))]
    words += ["--models", shlex.quote(",".join(manifest["models"]))]
    words += [] if is_default_url else ["--target-url", "<URL>"]
    words += ["--api-key-env", "<VARIABLE>"] if manifest.get("api_key_used") else []
    for name, value, default in options:
        words += [] if value == default else [name, shlex.quote(str(value))]
    words += ["--no-hostname"] if manifest["host_hostname_short"] is None else []
    return " ".join(words + ["--smoke"] * manifest["smoke"])


def _reproduce(manifest: Manifest, document: Metadata) -> str:
    git, python, system, run = (manifest["git"], manifest["python"], manifest["os"],
                                document["run"])
    changes = " with uncommitted changes" if git["dirty"] else ""
    start = ("The server was started with the launch_flags shown under Model and runtime."
             if document["runtime"]["launch_flags"]["value"] is not None else
             "How the server was started is not known.")
    return (f"Run {_code(manifest['run_id'])} with harness {_code(manifest['harness_version'])}, "
            f"from {run['started_at']} to {run['ended_at']}; endpoint: "
            f"{document['endpoint']['class']}; class: {run['class']}.\n\n"
            f"{_block(texts.markdown_safe(reproduce_command(manifest), 2000))}\n\n"
            f"Harness {_code(manifest['harness_version'])}, commit "
            f"{_code(git['commit'] or 'unknown')}{changes}, {_code(python['implementation'])} "
            f"{_code(python['version'])} on {_code(system['system'])} "
            f"{_code(system['machine'] or 'unknown')}. {start}")


def deviations(manifest: Manifest, document: Metadata, hardware: Mapping[str, Any],
               events: Sequence[LedgerLine]) -> list[str]:
    """How the run differs from a canonical one, as far as the files show."""
    canonical = manifest["canonical_options"]
    overrides = manifest["canonical_options_overrides"]
    found = [f"{name}: {value:g} instead of the canonical {canonical[name]:g}"
             for name, value in overrides.items()]
    requested = overrides.get("num_ctx", canonical["num_ctx"])
    for model in document["models"]:
        tokens, name = model["context_effective_tokens"]["value"], _code(model["model"])
        if tokens is None:
            found.append(f"{name}: a context of {requested} tokens was requested; whether it was "
                         "in effect is not known")
        elif tokens != requested:
            found.append(f"{name}: the context was {tokens} tokens; {requested} were requested")
    found += [f"for depth, a context of {entry['context_tokens']} tokens was requested"
              for entry in plan.extended(manifest, events)["plan"]["phases"]
              if "context_tokens" in entry]
    if manifest["prompt_cache"]["policy"] != "avoid":
        found.append("the server's prompt cache was left on (--prompt-cache allow)")
    found += [f"phase {event['phase']} was skipped: {_code(event['reason'], 300)}"
              for event in events if event["event"] == "phase_skipped"]
    found += [f"{_code(key)}: the contributor declared {_code(item['value'])}; "
              f"{_code(item['reason'])}" for held in (document, hardware)
              for key, item in metadata.values(held)
              if item["source"] == "declared" and item["reason"]]
    if document["run"]["class"] == "partial":
        missing = len(metadata.missing_cells(manifest, events))
        found.append(f"the run is partial: {missing} planned calls were not made")
    return found


# --- the page ------------------------------------------------------------------------------------
def _summary(manifest: Manifest, document: Metadata, hardware: Mapping[str, Any]) -> str:
    """What ran where, with the values that the contributor corrected."""
    run, runtime, counts = document["run"], document["runtime"], document["counts"]
    engine = document["endpoint"]["engine"]
    server = " ".join(_code(value) for value in (
        runtime["name"]["value"] or engine["name"],
        runtime["version"]["value"] or engine["version"] or engine["build"],
        runtime["backend"]["value"]) if value)
    cards = [card["model_name"]["value"] for card in hardware["accelerators"]]
    memory = hardware["memory"]["limit_bytes"]["value"] or hardware["memory"]["capacity_bytes"][
        "value"]
    machine = ", ".join([*(_code(name) for name in dict.fromkeys(
        [*cards, hardware["cpu"]["model_name"]["value"]]) if name),
        *([texts.size_text(memory)] if memory else [])])
    total = sum(counts.values())
    outcomes = ", ".join(f"{count} {_code(kind)}" for kind, count in counts.items())
    segments = "" if run["segments_count"] == 1 else f" in {run['segments_count']} segments"
    return (f"{machine or 'Unknown machine'}; {server}. By {_code(manifest['submitter_handle'])} "
            f"on {run['started_at'][:10]}: {total} call{'s' * (total != 1)} "
            f"({outcomes or 'none'}) in {texts.duration(run['wall_s'])}{segments}.")


def render_run_md(manifest: Manifest, document: Metadata, hardware: Mapping[str, Any],
                  sections: Mapping[str, str], events: Sequence[LedgerLine]) -> str:
    """The whole page. document: metadata.json; sections: the contributor's, by their names."""
    manifest = plan.extended(manifest, events)
    models = ", ".join(_code(model, 200) for model in manifest["models"])
    own = {}
    for name, unwritten in attestation.SECTIONS.items():
        begin, end = attestation.section_marks(name)
        own[name] = "\n".join((begin, sections.get(name) or unwritten, end))
    banner = "" if not manifest["synthetic"] else "> {}; no machine was measured.\n\n".format(
        "**EXAMPLE, SYNTHETIC.** Made-up data that shows what a submission looks like"
        if manifest["submitter_handle"] == "example" else
        "**SYNTHETIC.** A rehearsal against the built-in test server")
    parts = (
        f"# {models} on {_code(manifest['device_tag'])}",
        results_md.verdict(manifest, document), _summary(manifest, document, hardware),
        results_md.headline_tables(document), results_md.picture(document, events),
        _folded("Results by phase", results_md.phase_tables(document)),
        f"## Flags\n\n{_list(results_md.flag_lines(document))}",
        "## Deviations\n\nComputed:\n\n"
        f"{_list(deviations(manifest, document, hardware, events))}\n\n"
        f"From the contributor:\n\n{own['deviations']}",
        f"## Notes\n\n{own['notes']}",
        "## Facts",
        _folded("Machine", _machine(hardware, document)),
        _folded("Model and runtime", _models(document)),
        _folded("Timing error", _timing_error(document)),
        _folded("How to repeat this run", _reproduce(manifest, document)),
        f"## Privacy and honesty\n\n{own['attestation']}")
    return f"{banner}{HEADER}\n\n" + "\n\n".join(part for part in parts if part) + "\n"
