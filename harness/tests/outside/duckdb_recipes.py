"""Runs the recipes of submissions/QUERIES.md in DuckDB, on generated submissions and on the real
ones, and holds every median they give to metrics.py and comparison.py, to the last digit.

    python duckdb_recipes.py        needs the package duckdb; PYTHONPATH=harness

Exit codes: 0 all equal; 1 a recipe fails or differs, with a line for each difference.
"""
from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from typing import Any, Iterator

import duckdb

import compare_submissions
from compare import entries, folders
from compare import ranking as rankings
from core import ledger, metrics, run_summary
from tests import made_submissions, valid_run
from tests.made_submissions import Spec

Json = dict[str, Any]
Rows = list[Json]

REPOSITORY = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__)))))
PAGE = os.path.join(REPOSITORY, "submissions", "QUERIES.md")
RECIPES = ("Views used by the other queries", "Which device is fastest?",
           "How fast is each question answered?", "How long are the pauses between chunks?",
           "Does memory bandwidth limit the decode rate?", "What does a token need?",
           "How does speed change with lanes and with context?")
NEEDS = ("scope", "joules_per_output_token", "mean_power_w", "error_ratio",
         "draft_acceptance_ratio", "load_s", "server_decode_tokens_per_s")
PARQUET = "All rows as Parquet"
UNCOUNTED = {"hidden_reasoning", "usage_implausible", "tokens_from_chunks", "reloaded"}


def recipes(text: str) -> dict[str, str]:
    """{heading: SQL} of the page's fenced blocks."""
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    return {part.split("\n", 1)[0]: "\n".join(re.findall(r"^```sql\n(.*?)^```", part,
                                                         re.MULTILINE | re.DOTALL))
            for part in parts}


def answers(sql: dict[str, str], folder: str) -> dict[str, Rows]:
    """Each recipe's rows, in a database of its own with `folder` as the place it is typed at."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        with duckdb.connect() as database:
            return {name: _rows(database.execute(text)) for name, text in sql.items()}
    finally:
        os.chdir(before)


def _rows(cursor: Any) -> Rows:
    names = [column[0] for column in cursor.description or []]
    return [dict(zip(names, row)) for row in cursor.fetchall()]


def generate(folder: str) -> None:
    """Submissions with what recipes must get right: several runs, models and repeats, short
    answers, shared reads, failed and repeated calls, and runs that are not ranked."""
    specs = [Spec(seed=seed, day=seed, tokens=40 + 30 * seed) for seed in range(3)]
    specs += [Spec(seed=9, tag="desktop-rtx4090", handle="bob", probed=made_submissions.DESKTOP,
                   models=("smollm2-135m", "qwen2.5-0.5b"), repeats=2, tokens=20,
                   decode_ms_per_token=2.7, prefill_ms_per_token=0.3),
              Spec(seed=10, handle="carol", overrides={"num_predict": 64}),
              Spec(seed=11, handle="dave", noise=0.5), Spec(seed=12, handle="erin", synthetic=True),
              Spec(seed=13, handle="frank", target_class="public"),
              Spec(seed=14, handle="gail", tag="desktop-rtx4090", probed=made_submissions.DESKTOP,
                   tokens=100, decode_ms_per_token=60.0)]      # long enough for energy
    for spec in specs:
        manifest = made_submissions.make_manifest(spec)
        events = _disturbed(made_submissions.make_events(spec, manifest), spec.seed)
        made = made_submissions.complete(manifest, events, spec.probed)
        made_submissions.write(os.path.join(folder, "submissions"), made)
    valid_run.make(valid_run.Spec(phases="ramp,depth")).write(os.path.join(folder, "submissions"))
    wrong = [{"run_id": manifest["run_id"], "state": "disputed", "since": "2026-11-29",
              "reason": "made up for this test", "issue": None, "values": {}}]
    with open(os.path.join(folder, "submissions", "CORRECTIONS.json"), "w") as file:
        json.dump({"schema_version": "1", "corrections": wrong}, file)


def _disturbed(events: list[Json], seed: int) -> list[Json]:
    """Some calls share reads, some have failed, and some were asked again after that."""
    out: list[Json] = []
    for i, event in enumerate(events):
        turn = (i + seed) % 7 if event["event"] == "call_finished" else None
        if turn in (0, 1):
            reads = [[first, count] for first, count in (
                [[3, 2], [9, 4], [62, 6]] if turn == 0 else [[0, 9], [70, 5]])
                if first + count < len(event["timing"]["chunk_us"])]
            event = {**event, "timing": {**event["timing"], "reads": reads}}
        if turn == 2:
            marks = {**event["timing"], "first_token_us": 1, "first_answer_us": 1}
            out.append({**event, "timing": marks})
        if turn in (3, 4):
            out.append({**event, "outcome": "interrupted_answer", "checks": None, "error": {
                "kind": "interrupted_answer", "message": "the stream ended without a reason why",
                "status": None, "body_start": None}})
        if turn != 4 or seed % 2:
            out.append(event)
    return [{**event, "seq": seq} for seq, event in enumerate(out)]


# --- expected values -----------------------------------------------------------------------------
def run_folders(root: str) -> list[str]:
    return list(folders.submission_folders([os.path.join(root, "submissions")]))


def expected_needs(paths: list[str]) -> dict[tuple[str, str], Json]:
    """(run, model) -> the numbers of its headline that the last recipe shows."""
    out = {}
    for folder in paths:
        manifest, state = ledger.load_run(folder)
        for one in [] if manifest["synthetic"] else run_summary.summarize_run(
                manifest, state.events)["headlines"]:
            energy = one["energy"] or {}
            out[manifest["run_id"], one["model"]] = {
                **{name: energy.get(name) for name in (
                    "scope", "joules_per_output_token", "mean_power_w", "error_ratio")},
                **{name: one[name] for name in NEEDS[4:]}}
    return out


def expected_cells(folders: list[str]) -> dict[tuple[str, str, str], Json]:
    """(run, model, phase) -> the cell of metrics.py, without rehearsals and the example."""
    out = {}
    for folder in folders:
        manifest, state = ledger.load_run(folder)
        if manifest["synthetic"]:
            continue
        for cell in run_summary.summarize_run(manifest, state.events)["cells"]:
            out[manifest["run_id"], cell["model"], cell["phase"]] = cell
    return out


def expected_points(folders: list[str]) -> dict[tuple[Any, ...], tuple[Any, ...]]:
    """(run, model, phase, metric, at) -> the other fields of every point of a curve."""
    out = {}
    for folder in folders:
        manifest, state = ledger.load_run(folder)
        for curve in () if manifest["synthetic"] else run_summary.summarize_run(
                manifest, state.events)["curves"]:
            out.update({(manifest["run_id"], curve["model"], curve["phase"], one["metric"],
                         float(point["at"])): (curve["knee"], point["n"], point["value"],
                                               point["low"], point["high"])
                        for one in curve["series"] for point in one["points"]})
    return out


def expected_ranking(root: str) -> dict[tuple[Any, ...], Json]:
    """(phase, served name, tag, quantisation, runtime) -> medians over ranked runs."""
    found = folders.read_all([os.path.join(root, "submissions")])
    groups: dict[tuple[Any, ...], list[entries.Entry]] = {}
    for submission in found.submissions:
        for entry in submission.entries:
            if not rankings.refusals(submission, entry):
                groups.setdefault((
                    entry.phase, entry.model, submission.device.tag, entry.quantization,
                    entries.runtime_text(submission.runtime)), []).append(entry)
    return {key: {"runs": len(of), **{
        name: metrics.round_sig(metrics.median(entry.numbers[name] for entry in of))
        for name in ("decode_tokens_per_s", "ttft_ms")}} for key, of in groups.items()
        if all("decode_tokens_per_s" in entry.numbers for entry in of)}


def differences(found: dict[str, Rows], root: str) -> Iterator[str]:
    """One line for every number that differs from the harness's.

    Cells whose tokens cannot be counted are skipped, because the recipes leave them out.
    """
    cells = expected_cells(run_folders(root))
    ranking = {(r["phase"], r["model"], r["device_tag"], r["quantization"], r["runtime"]): {
        name: r[name] for name in ("runs", "decode_tokens_per_s", "ttft_ms")}
        for r in found[RECIPES[1]]}
    yield from _unlike("ranking", ranking, expected_ranking(root))
    usable = {key: cell for key, cell in cells.items()
              if cell["ok"] and not cell["left_out"] and not UNCOUNTED.intersection(cell["flags"])}
    for name, columns in ((RECIPES[2], ("decode_tokens_per_s", "ttft_ms")),
                          (RECIPES[3], ("icl_ms", "icl_max_ms"))):
        rows = {(r["run_id"], r["model"], r["phase"]): {c: r[c] for c in columns}
                for r in found[name] if (r["run_id"], r["model"], r["phase"]) in usable}
        yield from _unlike(name, rows, {key: {c: cell["metrics"][c]["median"] for c in columns}
                                        for key, cell in usable.items()})
    joined = {(r["run_id"], r["model"], r["phase"]): r["decode_tokens_per_s"]
              for r in found[RECIPES[4]] if (r["run_id"], r["model"], r["phase"]) in usable}
    yield from _unlike(RECIPES[4], joined, {
        key: cell["metrics"]["decode_tokens_per_s"]["median"] for key, cell in usable.items()
        if key[2] in ("frozen", "5q", "20q") and cell["metrics"]["decode_tokens_per_s"]["n"]})
    points = {(r["run_id"], r["model"], r["phase"], r["metric"], r["place"]): (
        r["knee"], r["n"], r["value"], r["low"], r["high"]) for r in found[RECIPES[6]]}
    yield from _unlike(RECIPES[6], points, expected_points(run_folders(root)))


def need_differences(rows: Rows, root: str) -> Iterator[str]:
    """Differences of the recipe for energy, memory and the server's own rates."""
    yield from _unlike(RECIPES[5], {(row["run_id"], row["model"]): {
        name: row[name] for name in NEEDS} for row in rows}, expected_needs(run_folders(root)))


def parquet_differences(sql: str, root: str) -> Iterator[str]:
    """Differences between the recipe for Parquet and --json, over the CSV of the same rows."""
    paths = [os.path.join(root, "submissions")]
    csv, document = (subprocess.run(
        [sys.executable, compare_submissions.__file__, form, *paths], check=True,
        stdout=subprocess.PIPE).stdout for form in ("--csv", "--json"))
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "rows.csv"), "wb") as file:
            file.write(csv)
        rows = answers({PARQUET: sql}, folder)[PARQUET]
    expected = {(row["model"], row["bits_class"], row["machine_class"]): {
        "rank": row["rank"], "runs": row["runs"],
        "decode_tokens_per_s": row["decode_tokens_per_s"]["median"]}
        for row in json.loads(document)["rows"] if row["phase"] is None and row["rank"]}
    yield from _unlike(PARQUET, {(row["model"], row["bits_class"], row["machine_class"]): {
        name: row[name] for name in ("rank", "runs", "decode_tokens_per_s")}
        for row in rows}, expected)


def _unlike(name: str, found: dict[Any, Any], expected: dict[Any, Any]) -> Iterator[str]:
    for key in sorted(found.keys() | expected.keys(), key=str):
        if found.get(key) != expected.get(key):
            yield f"{name}, {key}: DuckDB {found.get(key)}; expected {expected.get(key)}"


def main() -> int:
    with open(PAGE, encoding="utf-8") as file:
        sql = recipes(file.read())
    if tuple(sql) != (*RECIPES, PARQUET):
        print(f"the page contains {list(sql)}, not {[*RECIPES, PARQUET]}")
        return 1
    parquet = sql.pop(PARQUET)
    wrong = []
    with tempfile.TemporaryDirectory() as folder:
        generate(folder)
        if not any(one["scope"] for one in expected_needs(run_folders(folder)).values()):
            wrong.append("no run with energy was generated")
        if not expected_ranking(folder) or not expected_cells(run_folders(folder)):
            wrong.append("no submissions were generated")
        places = {"generated": folder}
        if any("/EXAMPLE/" not in f.replace(os.sep, "/") for f in run_folders(REPOSITORY)):
            places["real"] = REPOSITORY
        for name, root in places.items():
            found = answers(sql, root)
            lines = [*differences(found, root), *need_differences(found[RECIPES[5]], root),
                     *parquet_differences(parquet, root)]
            wrong += lines
            counts = ", ".join(f"{len(rows)} rows" for rows in list(found.values())[1:])
            print("\n".join([f"{name}: {counts}; {len(lines)} differ", *lines]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
