"""The comparison as one HTML page: its data, and the files of page/ in one.

Ranks, medians and intervals are computed here and in compare/headline; the script filters, sorts
and draws. Text of submissions is compressed JSON in data blocks, and the script writes text nodes
only. The content security policy allows this one script and style by their hashes, nothing else.

The index has all runs. Details of single runs (calls, gaps, gauges, facts) are packs of runs that
the browser unpacks when one is opened, as many as fit: the newest run of every machine and runtime
first, then the next of each.
"""
from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Callable, NamedTuple, Optional

from compare import entries, headline, identity, ranking, run_detail
from compare.run_detail import columns
from compare.titles_and_sizes import SIZES, machine_title, model_title, size_class
from core import flag_definitions, ledger, suites
from core.records import Json

PAGE_FOLDER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "page")
SCRIPTS = ("data.js", "dom.js", "drawing.js", "bars.js", "pictures.js", "search.js", "first.js",
           "machine.js", "model.js", "runs.js", "run.js", "how.js", "main.js")
MAX_PAGE_BYTES = 9_500_000
PACK_RUNS = 100               # of details that are compressed together
BATCH_RUNS = 400              # that are sorted by likeness before they are packed
DIGITS = 4
# Numbers of a headline that the page shows, and how a row's medians are called.
NUMBERS = ("decode_tokens_per_s", "prefill_tokens_per_s", "ttft_ms", "long_ttft_ms",
           "output_token_throughput_tokens_per_s", "joules_per_output_token", "peak_card_bytes",
           "peak_process_bytes")


class Page(NamedTuple):
    """The file's bytes, a note on its contents, and (folder, reason) of unreadable details."""

    data: bytes
    note: str
    broken: list[tuple[str, str]]


# (metadata, hardware, manifest, events, sections of run.md) of a folder; raises BrokenSubmission
# or LedgerError
Detail = Callable[[str], tuple[Json, Json, Json, list[Json], Mapping[str, str]]]


def make_page(submissions: Sequence[entries.Submission], folders: dict[str, str], read: Detail,
              left_out: int, files: Optional[str]) -> Page:
    """The page of all submissions. folders: run id -> folder, whose details `read` reads; left_out:
    number of submissions that could not be read; files: address of the folder of all submissions,
    seen from the page, if any."""
    index = page_index(submissions, left_out, files)
    room = MAX_PAGE_BYTES - len(join_page(index, []))
    packs, packed, broken = _packs(submissions, folders, read, room)
    index["packs"] = packed
    data = join_page(index, packs)
    count = sum(map(len, packed))
    return Page(data, f"{len(submissions)} runs, details of {count}", broken)


# --- one file ------------------------------------------------------------------------------------
def join_page(index: Json, packs: Iterable[str]) -> bytes:
    """page.html with style, script, data and policy inserted."""
    style, script = _part("page.css"), "".join(map(_part, SCRIPTS))
    policy = (f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
              "img-src data:; base-uri 'none'; form-action 'none'")
    parts = {"style": style, "script": script, "index": packed_json(index), "policy": policy,
             "packs": "\n".join(packs)}
    return re.sub("@(style|script|index|packs|policy)@", lambda match: parts[match[1]],
                  _part("page.html")).encode()


@functools.cache
def _part(name: str) -> str:
    with open(os.path.join(PAGE_FOLDER, name), encoding="utf-8") as file:
        return file.read()


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
    return f"sha256-{digest}"


def packed_json(data: Any) -> str:
    """JSON, gzip and base64: nothing in it can end its block in HTML."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


# --- the index -----------------------------------------------------------------------------------
class Table:
    """Numbers the values, so that a value of many runs is written once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[Any, int] = {}

    def number(self, key: Any, value: Any = None) -> int:
        """The index in `values` of the value that belongs to a key, by default the key."""
        found = self._numbers.setdefault(key, len(self.values))
        if found == len(self.values):
            self.values.append(key if value is None else value)
        return found


def page_index(submissions: Sequence[entries.Submission], left_out: int,
               files: Optional[str]) -> Json:
    """Everything except details; columns of runs, of their models, and of headline rows."""
    every = headline.runs_of(submissions)
    tables = {name: Table() for name in ("handles", "tags", "devices", "runtimes", "reasons",
                                         "texts", "machines", "models")}
    sizes: dict[str, Optional[int]] = {}
    for run in every:
        block = run.member.identity.block
        sizes[block] = run.member.entry.about.parameters or sizes.get(block)
    size_of = {block: size_class(block, known) for block, known in sizes.items()}
    rows = headline.rows_by(every, lambda run: run.member.identity.headline)
    by_size = headline.rows_by(every, lambda run: (
        run.member.identity.machine.group, size_of[run.member.identity.block],
        run.member.identity.bits_class))
    for submission in submissions:
        tables["machines"].number(submission.machine.group)
    for run in every:
        tables["models"].number(run.member.identity.block)
    made = columns([_run(submission, tables) for submission in submissions])
    numbers = {submission.run_id: i for i, submission in enumerate(submissions)}
    results = columns([_result(run, numbers, tables) for run in every])
    machines = [_machine(group, [s for s in submissions if s.machine.group == group])
                for group in tables["machines"].values]
    models = [{"title": model_title(block), "size": size_of[block]}
              for block in tables["models"].values]
    return {
        "phases": {name: phase.text for name, phase in suites.PHASES.items()},
        "flags": {f.name: {"text": f.text, "remedy": f.remedy, "refuses": f.unrankable}
                  for f in flag_definitions.FLAGS.values()},
        "sizes": SIZES, "numbers": NUMBERS, "left_out": left_out, "files": files,
        **{name: table.values for name, table in tables.items()}, "machines": machines,
        "models": models, "runs": made, "results": results, "packs": [],
        "rows": columns([*_rows(rows, tables, True), *_rows(by_size, tables, False)])}


def _machine(group: str, runs: Sequence[entries.Submission]) -> Json:
    """A machine class: title, what it is, and the words by which it is found."""
    newest = max(runs, key=lambda run: (run.started_at, run.run_id))
    device, own = newest.device, newest.machine.has_own_memory
    cards = " ".join(device.accelerators)
    maker = next((name for name in ("NVIDIA", "AMD", "Radeon", "Apple")
                  if name in (cards if own else device.cpu or "")), "other")
    cores = re.search(r"\d+-core GPU", cards)
    systems = sorted({run.device.system for run in runs if run.device.system})
    title, chip = machine_title(group, systems), group.rsplit(" ", 2)[0]
    if systems and title.rsplit(" ", 2)[0] in systems[0]:
        systems = [chip]
    return {"title": title,
            "maker": {"Radeon": "AMD"}.get(maker, maker),
            "about": cores[0] if cores and not own else "graphics card"
            if own and not systems else ", ".join(systems[:2]) or "processor only",
            "gib": newest.machine.memory_gib, "own": own, "words": " ".join(sorted({word
            for run in runs for text in (entries.device_text(run.device), run.device.system or "",
                                         run.device.tag, f"{run.device.memory_gib or 0:g}gb")
            for word in text.lower().split()}))}


def _run(run: entries.Submission, tables: dict[str, Table]) -> Json:
    device = run.device
    return {"id": run.run_id, "handle": tables["handles"].number(run.handle),
            "tag": tables["tags"].number(device.tag), "started": run.started_at[:16],
            "machine": tables["machines"].number(run.machine.group),
            "device": tables["devices"].number(device, {
                "text": entries.device_text(device), "gib": device.memory_gib,
                "notes": entries.device_notes(device)}),
            "runtime": tables["runtimes"].number(run.runtime, run.runtime._asdict()),
            "flags": list(run.run_flags)}


def _result(run: headline.Run, numbers: dict[str, int], tables: dict[str, Table]) -> Json:
    """One model of one run. reasons: why it is left out; empty if it counts."""
    member = run.member
    known = member.identity
    texts = tables["texts"]
    return {"run": numbers[member.submission.run_id],
            "model": tables["models"].number(known.block),
            "served": texts.number(member.entry.model), "quant": texts.number(known.quant or ""),
            "bits": texts.number(known.bits_class),
            "weights": texts.number(identity.weights_text(known)),
            "settings": texts.number(identity.configuration_text(known)),
            "bytes": member.entry.about.file_bytes,
            "context": member.entry.context_tokens,
            "checks": [run.passed, run.checked],
            "flags": flag_definitions.ordered_flags(run.flags),
            "reasons": [tables["reasons"].number(reason) for reason in run.reasons],
            "curves": {axis: series for model, axis, series in member.submission.curves
                       if model == member.entry.model} or None,
            "dropped": [i for i, name in enumerate(NUMBERS) if name not in run.numbers and name in
                        member.submission.headlines.get(member.entry.model, {})],
            "values": [run_detail.drawn(run.numbers.get(name), DIGITS) for name in NUMBERS]}


def _rows(rows: Sequence[ranking.Row], tables: dict[str, Table], by_model: bool) -> list[Json]:
    """Headline rows; those of a class of sizes have no model."""
    ranks = {id(place.row): f"{place.rank}{'=' * place.tied}"
             for block in ranking.ranked(rows) for place in block if place.rank}
    return [{"machine": tables["machines"].number(row.group),
             "model": tables["models"].number(row.block) if by_model else None,
             "size": None if by_model else row.block,
             "bits": tables["texts"].number(row.bits_class), "rank": ranks.get(id(row), ""),
             "runs": len(row.runs), "owners": row.owners_count, "left": len(row.left_out),
             "reproduced": row.reproduced,
             "values": [spread and [run_detail.drawn(value, DIGITS) for value in spread]
                        for spread in map(row.numbers.get, NUMBERS)]} for row in rows]


# --- details -------------------------------------------------------------------------------------
def _packs(submissions: Sequence[entries.Submission], folders: dict[str, str], read: Detail,
           room: int) -> tuple[list[str], list[list[int]], list[tuple[str, str]]]:
    """(packs as far as they fit, numbers of the runs in each, what could not be read)."""
    packs: list[str] = []
    packed: list[list[int]] = []
    broken: list[tuple[str, str]] = []
    numbers = {submission.run_id: i for i, submission in enumerate(submissions)}
    order = detail_order(submissions)
    for start in range(0, len(order), BATCH_RUNS):
        batch = sorted(order[start:start + BATCH_RUNS], key=lambda run: (
            run.machine.group, run.entries[0].model if run.entries else "", run.started_at))
        for at in range(0, len(batch), PACK_RUNS):
            details: dict[int, Json] = {}
            for run in batch[at:at + PACK_RUNS]:
                try:
                    details[numbers[run.run_id]] = run_detail.run_detail(*read(folders[run.run_id]))
                except (entries.BrokenSubmission, ledger.LedgerError) as error:
                    broken.append((folders[run.run_id], f"its detail: {error}"))
            facts = Table()
            found = [{**detail, "facts": [facts.number(tuple(fact)) for fact in detail["facts"]]}
                     for detail in details.values()]
            pack = packed_json({"runs": columns(found), "facts": facts.values}) if details else ""
            room -= len(pack) + len(details) * 4
            if room < 0:
                return packs, packed, broken
            if details:
                packs.append(pack)
                packed.append(list(details))
    return packs, packed, broken


def detail_order(runs: Iterable[entries.Submission]) -> list[entries.Submission]:
    """The newest run of every machine and runtime, then the next of each, newest first."""
    newest = sorted(runs, key=lambda run: (run.started_at, run.run_id), reverse=True)
    seen: dict[Any, int] = {}
    turns = []
    for i, run in enumerate(newest):
        key = (run.machine, run.runtime)
        turns.append((seen.setdefault(key, 0), i))
        seen[key] += 1
    return [newest[i] for _, i in sorted(turns)]
