"""Releases of the harness: which files can change a number, and the versions of them that count.

A run's manifest lists the SHA-256 of every file in MEASURING, and the submission check compares
that list with two tables:

- RELEASES pins what is asked (prompts and suites), file by file. An entry never changes after its
  release, since old and new runs could no longer be distinguished.
- released_programs.json pins what asks: {release: [digest, ...]}, one digest per accepted revision
  of all measuring files together (see `revision`). A fix that keeps runs comparable adds a digest;
  the digests of revisions that measured wrongly are removed, and their runs are refused.

For maintainers, from the root of the repository:

    python3 harness/core/release.py            print the SHA-256 of each measuring file
    python3 harness/core/release.py --check    exit 1 unless the files are an accepted revision
    python3 harness/core/release.py --add      accept the files as a revision of the newest release

For a new release, raise `version` in every suite and HARNESS_VERSION, append the prompts and suites
to RELEASES, and run --add.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

RELEASES: dict[str, dict[str, str]] = {
    "public-1": {
        "harness/prompts.py":
            "170fdffbeea8a7b395cbafa5bb8aae2a8c1479ed29a95ee592fbdbb1edfbf882",
        "harness/suites/parallel_qwen_mixed_model_20q_suite.json":
            "658817a6f77f49e45f1fa3730f8db1312ff71bd91b11de19dd48e8bc94866764",
        "harness/suites/parallel_qwen_same_model_20q_suite.json":
            "f9db8d32684cd5429ab628f835c1eef2e28ebaa24fe5ff28bbe3d5e71d555efe",
        "harness/suites/python_context_edge_append_questions.json":
            "449519d58760ee4485c2e61f575992f31a581aa75b994dffece6b95550a7c04d",
        "harness/suites/python_context_edge_suite_only.json":
            "faa8873471740f12a1ea296839520acee7357e9d781b7e3a2ea0dc41029e731c",
        "harness/suites/python_task_suite_questions.json":
            "2cc8d17e4cf8b629ace12637b2a818641c3830e8986b7fbb98e4501cc6e233f5",
        "harness/suites/small_model_eval_questions.json":
            "5e20cbf1521564354a466ed2e97ee56a01ce39eb8c8f427a742d143f8a59b101",
    },
}
# What can change what a run asks, times or records. What only prints it, or computes from the
# ledger, is not among them: an edited table or check leaves a run as it is.
MEASURING = ("run_benchmark.py", "prompts.py", "suites/*.json", "run/*.py", "engines/*.py",
             *(f"core/{name}.py" for name in (
                 "answer_checks", "challenge", "curve_levels", "depth_prompts", "errors", "files",
                 "ledger", "plan", "reasoning_marks", "schema", "suites", "usage")),
             *(f"machine/{name}.py" for name in (
                 "gauges", "gpus", "heartbeat", "inventory", "linux", "macos", "processes",
                 "system", "windows")))
HERE = Path(__file__).resolve().parent.parent
PROGRAMS = HERE / "released_programs.json"


class Release(NamedTuple):
    """What is pinned. revisions is empty while a release's programs are not pinned yet."""

    asked: Mapping[str, str]
    revisions: Sequence[str]


def known() -> dict[str, Release]:
    """Every release, oldest first."""
    revisions = json.loads(PROGRAMS.read_bytes())
    return {name: Release(asked, revisions.get(name, ())) for name, asked in RELEASES.items()}


def file_sha256(data: bytes) -> str:
    """SHA-256 of a file with the line ends of the repository: Git may have converted those of this
    checkout, which neither Python nor JSON distinguishes."""
    return hashlib.sha256(data.replace(b"\r\n", b"\n")).hexdigest()


def current_hashes() -> dict[str, str]:
    """{`harness/...`: SHA-256} of the measuring files in this checkout, sorted by path."""
    paths = {path for pattern in MEASURING for path in HERE.glob(pattern)}
    return {f"harness/{path.relative_to(HERE).as_posix()}":
            file_sha256(path.read_bytes()) for path in sorted(paths)}


def revision(files_sha256: Mapping[str, str]) -> str:
    """SHA-256 of the lines `path sha256`, sorted."""
    lines = "".join(f"{path} {sha256}\n" for path, sha256 in sorted(files_sha256.items()))
    return hashlib.sha256(lines.encode("ascii")).hexdigest()


def differences(files_sha256: Mapping[str, str]) -> list[str]:
    """`harness/run/sse.py is changed`: how measuring files differ from this checkout."""
    here = current_hashes()
    return [f"{path} is " + ("missing" if path not in files_sha256 else
                             "changed" if path in here else "not of the harness")
            for path in sorted({*here, *files_sha256}) if files_sha256.get(path) != here.get(path)]


def git_state() -> dict[str, Any]:
    """{"commit", "dirty"} of the checkout that holds this file; nulls outside of a checkout. dirty:
    whether a measuring file differs from the commit."""
    commit = _git("rev-parse", "HEAD")
    status = _git("-c", "core.fileMode=false", "status", "--porcelain", "--", *MEASURING)
    is_commit = commit is not None and re.fullmatch(r"[0-9a-f]{40,64}", commit) is not None
    return {"commit": commit if is_commit else None, "dirty": bool(status) if is_commit else None}


def _git(*words: str) -> Optional[str]:
    try:
        done = subprocess.run(["git", "-C", str(HERE), *words], stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("ascii", "replace").strip()


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the maintainers' command; the exit code."""
    parser = argparse.ArgumentParser(description="Pin the measuring files of the newest release.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true",
                      help="exit 1 unless the files are an accepted revision")
    what.add_argument("--add", action="store_true",
                      help="accept the files as a revision of the newest release; only if runs "
                           "before and after the change stay comparable")
    options = parser.parse_args(argv)
    newest, current = list(RELEASES)[-1], current_hashes()
    digest, is_known = revision(current), revision(current) in known()[newest].revisions
    if options.add and not is_known:
        table = json.loads(PROGRAMS.read_bytes())
        table.setdefault(newest, []).append(digest)
        PROGRAMS.write_text(json.dumps(table, indent=1) + "\n", encoding="ascii")
    if options.add or options.check:
        print(f"{newest}, revision {digest}: " + (
            "accepted" if is_known or options.add else "not accepted; --add accepts it"))
        return 0 if is_known or options.add else 1
    print("\n".join(f'"{path}": "{sha256}",' for path, sha256 in current.items()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
