"""Which bytes make up a release of the harness, and which bytes stand here.

A run's manifest holds the SHA-256 of every program file and suite that it ran with; the submission
check holds them against two tables. RELEASES pins what is asked, prompts and suites: an entry is
never changed once it was released, since its runs could no longer be told from others. The file
released_programs.json pins what asks, {release: {path: [SHA-256, ...]}}: a program may be mended
within a release where old and new runs stay comparable, and then has one hash more; where they do
not, since it measured wrongly, its older hashes are taken out and such runs refused; null stands
for a program that runs of the release may be without, since it came or went later.

    python3 harness/releases.py            the hashes of the files as they stand here
    python3 harness/releases.py --check    exit 1 and a line for each file unlike the newest release
    python3 harness/releases.py --add      take up the programs as they stand here, after a change

For a new release raise `version` in every suite and HARNESS_VERSION, append its prompts and suites
to RELEASES, and take up the programs.
"""
from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import subprocess
from typing import Any, Mapping, Optional, Sequence

from core import files

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

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAMS = os.path.join(HERE, "released_programs.json")

FOLDERS = ("run", "engines", "core", "machine", "complete", "check", "compare")

# {release: {path: the SHA-256 that are its own; None where it may be missing}}
Hashes = Sequence[Optional[str]]
Known = Mapping[str, Mapping[str, Hashes]]


def known() -> Known:
    """All that is pinned. A release whose programs are not pinned yet has prompts and suites
    alone."""
    programs = _programs()
    return {release: {**{path: (sha256,) for path, sha256 in frozen.items()},
                      **programs.get(release, {})} for release, frozen in RELEASES.items()}


def _programs() -> dict[str, dict[str, list[Optional[str]]]]:
    found: dict[str, dict[str, list[Optional[str]]]] = json.loads(files.read(PROGRAMS) or b"{}")
    return found


def add(release: str, current: Mapping[str, str]) -> list[str]:
    """Pin the programs among `current` in the table of programs; the paths that are new to it."""
    table, frozen = _programs(), RELEASES[release]
    pinned = table.setdefault(release, {})
    before: list[Optional[str]] = [None] if pinned else []
    here = {path for path in current if path.endswith(".py") and path not in frozen}
    new = [path for path in sorted({*here, *pinned})
           if current.get(path) not in pinned.get(path, ())]
    for path in new:
        pinned.setdefault(path, [*before]).append(current.get(path))
    table[release] = dict(sorted(pinned.items()))
    files.write_whole(PROGRAMS, (json.dumps(table, indent=1) + "\n").encode("ascii"))
    return new


def current_hashes() -> dict[str, str]:
    """{`harness/...`: SHA-256} of every program file and suite beside this one, sorted."""
    found = {}
    for folder, ending in (*(("", ".py"),), *((name, ".py") for name in FOLDERS), ("suites", ".json")):
        for name in sorted(os.listdir(os.path.join(HERE, folder))):
            if name.endswith(ending):
                with open(os.path.join(HERE, folder, name), "rb") as file:
                    path = "/".join(filter(None, ("harness", folder, name)))
                    found[path] = hashlib.sha256(file.read()).hexdigest()
    return found


def git_state() -> dict[str, Any]:
    """{"commit", "dirty"} of the checkout that this file lies in; nulls outside of one."""
    commit, status = _git("rev-parse", "HEAD"), _git("status", "--porcelain", "--", ".")
    known = commit is not None and re.fullmatch(r"[0-9a-f]{40,64}", commit) is not None
    return {"commit": commit if known else None, "dirty": bool(status) if known else None}


def _git(*words: str) -> Optional[str]:
    try:
        done = subprocess.run(["git", "-C", HERE, *words], stdin=subprocess.DEVNULL,
                              capture_output=True, timeout=5, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("ascii", "replace").strip()


def differences(release: Mapping[str, Hashes], current: Mapping[str, str]) -> list[str]:
    """A line for each file of `release` that is missing or changed, and each file that is new: any
    suite, and any program once programs are pinned at all."""
    programs = "harness/run_benchmark.py" in release
    added = [path for path in current if path not in release
             and (programs or path.startswith("harness/suites/"))]
    return [f"{path}: not in the release" for path in added] + [
        f"{path}: {'changed' if path in current else 'missing'}"
        for path, hashes in release.items() if current.get(path) not in hashes]


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="SHA-256 of the harness's files.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true",
                      help="name what differs from the newest release; exit 1 if anything does")
    what.add_argument("--add", action="store_true",
                      help="take the programs as they stand here up into the newest release; only "
                           "where runs before and after stay comparable")
    chosen = parser.parse_args(argv)
    newest, current = list(RELEASES)[-1], current_hashes()
    if chosen.add:
        print("\n".join(f"{path}: taken up" for path in add(newest, current)) or "nothing new")
        return 0
    if not chosen.check:
        print("\n".join(f'"{path}": "{sha256}",' for path, sha256 in current.items()))
        return 0
    lines = differences(known()[newest], current)
    print("\n".join(lines) or f"as released: {newest}")
    return 1 if lines else 0


if __name__ == "__main__":
    raise SystemExit(main())
