"""Which bytes make up a release of the harness, and which bytes stand here.

A run's manifest holds the SHA-256 of every program file and suite that it ran with; the submission
check holds them against RELEASES. Old releases stay valid, so an entry is never changed once it was
released: its runs could no longer be told from those of a changed harness. For a new release, raise
`version` in every suite and HARNESS_VERSION, and append an entry with the hashes that this prints:

    python3 harness/releases.py            the hashes of the files as they stand here
    python3 harness/releases.py --check    exit 1 and a line for each file unlike the newest release

This file holds the table and so cannot be in it.
"""
from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
from typing import Any, Optional, Sequence

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

HERE = os.path.dirname(os.path.abspath(__file__))


def current_hashes() -> dict[str, str]:
    """{`harness/...`: SHA-256} of every program file and suite beside this one, sorted."""
    found = {}
    for folder, ending in (("", ".py"), ("suites", ".json")):
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


def differences(release: dict[str, str], current: dict[str, str]) -> list[str]:
    """A line for each file of `release` that is missing or changed, and each suite that is new."""
    added = [p for p in current if p.startswith("harness/suites/") and p not in release]
    return [f"{path}: not in the release" for path in added] + [
        f"{path}: {'changed' if path in current else 'missing'}"
        for path, sha256 in release.items() if current.get(path) != sha256]


def main(argv: Optional[Sequence[str]] = None) -> int:
    parser = argparse.ArgumentParser(description="SHA-256 of the harness's files.")
    parser.add_argument("--check", action="store_true",
                        help="name what differs from the newest release; exit 1 if anything does")
    if not parser.parse_args(argv).check:
        print("\n".join(f'"{path}": "{sha256}",' for path, sha256 in current_hashes().items()))
        return 0
    newest = list(RELEASES)[-1]
    lines = differences(RELEASES[newest], current_hashes())
    print("\n".join(lines) or f"as released: {newest}")
    return 1 if lines else 0


if __name__ == "__main__":
    raise SystemExit(main())
