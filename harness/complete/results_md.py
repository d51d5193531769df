"""The first part of run.md: whether the run is ranked, its numbers, a picture, results by phase.

Everything here is computed from manifest.json, metadata.json and run.jsonl. Foreign text is in code
spans, or holds only words.
"""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Optional

from core import flag_definitions, ledger, metrics, result_tables
from core import metric_definitions as defs
from core import text as texts
from core.records import Headline, LedgerLine, Manifest, Metadata, Summary

MAX_BARS = 20                 # of a phase, for a phone's width
RESULTS_LEGEND = (
    "Medians of the answered calls; in brackets the exact 95 % confidence interval of the median "
    "across prompts. TTFT: time to the first token. Calls: answered/asked. Checks: answers with "
    "the expected format and markers, which does not mean that they are true.")


# --- ranked or not -------------------------------------------------------------------------------
def verdict(manifest: Manifest, document: Metadata) -> str:
    """`**Ranked**, except edge_append (cached_prefill).`, a sentence per model. Later releases and
    corrections can change what the comparison ranks; the page shows the run as it was measured."""
    whole = list(_reasons_of_run(manifest, document))
    if whole:
        return f"**Not ranked**: {'; '.join(whole)}."
    names = [model["model"] for model in document["models"]]
    return "\n\n".join((f"{texts.code_span(name)}: " if len(names) > 1 else "")
                       + _verdict_of_model(document, name) for name in names)


def _reasons_of_run(manifest: Manifest, document: Metadata) -> Iterator[str]:
    if document["synthetic"]:
        yield "synthetic, no model answered"
    if document["endpoint"]["class"] == "public":
        yield "a hosted endpoint, not the contributor's machine"
    if document["run"]["class"] != "complete":
        yield f"a {document['run']['class']} run"
    canonical = manifest["canonical_options"]
    for name, value in manifest["canonical_options_overrides"].items():
        yield f"{name} {value:g} instead of {canonical[name]:g}"


def _verdict_of_model(document: Metadata, model: str) -> str:
    found = {cell["phase"]: [flag for flag in cell["flags"]
                             if flag_definitions.FLAGS[flag].unrankable]
             for cell in document["cells"] if cell["model"] == model and not cell["cold"]}
    spoilt = {phase: f"{phase} ({', '.join(map(texts.code_span, flags))})"
              for phase, flags in found.items() if flags}
    alone = [phase for phase in found if phase in defs.ONE_LANE_PHASES]
    if not alone:
        return "**Not ranked**: no phase with one lane was run."
    first = [spoilt[phase] for phase in alone if phase in spoilt]
    if first:
        return f"**Not ranked**: {', '.join(first)}."
    return f"**Ranked**, except {', '.join(spoilt.values())}." if spoilt else "**Ranked**."


# --- numbers -------------------------------------------------------------------------------------
def headline_tables(document: Metadata) -> str:
    """A table of two columns per model: what people ask first."""
    quants = {model["model"]: model["quantization"]["value"] for model in document["models"]}
    parts = []
    for one in document["headlines"]:
        rows = [(name, value) for name, value in _headline_rows(one) if value]
        name = " ".join(filter(None, (texts.code_span(one["model"]),
                                      texts.code_span(str(quants.get(one["model"]) or "")))))
        parts += [texts.markdown_table((name, ""), rows, (1,))] if rows else []
    tokens = [one["long_prompt_tokens"] for one in document["headlines"]
              if one["long_prompt_tokens"]]
    notes = ["In brackets the 95 % confidence interval across prompts."] * ("** [" in str(parts))
    notes += [f"Long prompt: {max(tokens):,.0f} tokens."] if tokens else []
    return "\n".join([*parts, " ".join(notes)]) if parts else "No headline number was measured."


def _headline_rows(one: Headline) -> Iterator[tuple[str, Optional[str]]]:
    """(name, value); None or "": it was not measured."""
    lanes, energy, memory = one["lanes"], one["energy"], one["memory"]
    yield "writes", _rate(one["decode_tokens_per_s"])
    yield "reads", _rate(one["prefill_tokens_per_s"])
    yield "first word", _time(one["ttft_ms"])
    yield "first word, long prompt", _time(one["long_ttft_ms"])
    if lanes and lanes["output_token_throughput_tokens_per_s"]:
        gain = f", {lanes['speedup_ratio']:.2g} x of one" if lanes["speedup_ratio"] else ""
        rate = texts.number_column([lanes["output_token_throughput_tokens_per_s"]])[0]
        yield f"{lanes['lanes_count']} at once", f"**{rate} tok/s**{gain}"
    if energy and energy["joules_per_output_token"]:
        yield (f"energy of the {energy['scope']}", f"**{energy['joules_per_output_token']:.2f} J** "
               f"per token, {energy['mean_power_w'] or 0:.0f} W "
               f"(\u00b1{energy['error_ratio'] or 0:.1%} from {energy['samples_count']} samples)")
    if memory:
        yield "memory at most", ", ".join(
            f"**{texts.size_text(size)}** {where}" for size, where in (
                (memory["peak_card_bytes"], "on cards"),
                (memory["peak_process_bytes"], "of the server process")) if size)
    yield "load", f"**{texts.time_text(one['load_s'] * 1000)}**" if one["load_s"] else None
    accepted, reads = one["draft_acceptance_ratio"], one["server_prefill_tokens_per_s"]
    yield "drafts accepted", f"**{accepted:.0%}**" if accepted is not None else None
    own = [f"{name} {texts.number_column([rate])[0]} tok/s" for name, rate in (
        ("writes", one["server_decode_tokens_per_s"]), ("reads", reads)) if rate]
    yield "the server's own rates, of whole answers and without HTTP", ", ".join(own)
    if one["checks_count"]:
        yield "right format", f"{one['checks_passed']} of {one['checks_count']}"


def _rate(summary: Optional[Summary]) -> Optional[str]:
    if summary is None:
        return None
    median, *ends = texts.number_column(summary[key] for key in ("median", "ci_low", "ci_high"))
    return f"**{median} tok/s**" + (f" [{'-'.join(ends)}]" if summary["ci_low"] else "")


def _time(summary: Optional[Summary]) -> Optional[str]:
    if summary is None:
        return None
    median, _, ends = " ".join(result_tables.time_cell(summary, True).split()).partition(" [")
    return f"**{median}**" + (f" [{ends}" if ends else "")


def picture(document: Metadata, events: Sequence[LedgerLine]) -> str:
    """Bars of the decode rates of all calls in order, a line per model and phase."""
    rates: dict[tuple[str, str], list[Optional[float]]] = {}
    for call in ledger.latest_calls(events):
        if call["phase"] != "hello":
            rate = metrics.decode_rate(call) if call["outcome"] == "ok" else None
            rates.setdefault((call["model"], call["phase"]), []).append(rate)
    largest = max((rate for every in rates.values() for rate in every if rate), default=0.0)
    if not largest:
        return ""
    cells = [cell for cell in document["cells"] if (cell["model"], cell["phase"]) in rates]
    medians = texts.number_column(cell["metrics"]["decode_tokens_per_s"]["median"]
                                  for cell in cells)
    lines, model, size = [], None, max(len(phase) for _, phase in rates)
    for cell, median in zip(cells, medians):
        if cell["model"] != model and len(document["models"]) > 1:
            model = cell["model"]
            lines.append(texts.code_span(model).strip("`"))
        is_known = cell["metrics"]["decode_tokens_per_s"]["median"] is not None
        bars = _bars(rates[cell["model"], cell["phase"]], largest) if is_known else ""
        lines.append(f"{cell['phase']:<{size}} {median:>5} {bars}".rstrip())
    title = f"tok/s, median and each call, 0 to {texts.number_column([largest])[0]}"
    title += "; x: no rate" * any(None in every for every in rates.values())
    title += "; -: no call was usable" * (None in [
        cell["metrics"]["decode_tokens_per_s"]["median"] for cell in cells])
    return "\n".join(["```text", title, *lines, "```"])


def _bars(rates: Sequence[Optional[float]], largest: float) -> str:
    per_bar = -(-len(rates) // MAX_BARS)
    groups = [[rate for rate in rates[at:at + per_bar] if rate]
              for at in range(0, len(rates), per_bar)]
    levels = result_tables.EIGHTHS
    return "".join(levels[round(metrics.median(group) / largest * (len(levels) - 1))]
                   if group else "x" for group in groups)


# --- all results ---------------------------------------------------------------------------------
def phase_tables(document: Metadata) -> str:
    """One table per model, one row per phase."""
    parts = []
    for model in dict.fromkeys(cell["model"] for cell in document["cells"]):
        cells = [cell for cell in document["cells"] if cell["model"] == model]
        rows = [[" ".join(text.split()) for text in row]
                for row in result_tables.phase_rows(cells, True)]
        parts.append(f"{texts.code_span(model)}\n\n" + texts.markdown_table(
            result_tables.PHASE_TITLES, rows, (1, 2, 3, 4, 5)))
        parts += [f"{line}\n" for line in result_tables.lanes_lines(cells)]
        for curve in (one for one in document["curves"] if one["model"] == model):
            heading, *lines = result_tables.curve_lines(curve)
            parts.append("\n".join(["```text", texts.markdown_safe(heading, 400), *lines, "```\n"]))
    return "\n".join([*parts, RESULTS_LEGEND]) if parts else "No call was made."


def flag_lines(document: Metadata) -> list[str]:
    """`**drifting** (20q): what it means and what to do` of each flag."""
    phases: dict[str, list[str]] = {}
    for cell in document["cells"]:
        for flag in cell["flags"]:
            phases.setdefault(flag, []).append(cell["phase"])
    lines = []
    for line in result_tables.flags_explained(document):
        name, _, text = line.partition(":")
        where = f" ({', '.join(dict.fromkeys(phases[name]))})" if name in phases else ""
        lines.append(f"**{name}**{where}:{text}")
    return lines
