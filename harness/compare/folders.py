"""Find and read the submissions in folders."""
from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from compare import entries
from core import corrections, files, schema
from core import text as texts
from core.errors import HarnessError
from core.records import Json

DOCUMENTS = ("manifest.json", "metadata.json", "hardware.json")
MAX_DOCUMENT_BYTES = 8 * 1024 * 1024     # 20 models in 8 phases take 0.6 MiB


class Found(NamedTuple):
    """Submissions that were read, {run id: folder} of them, and the others as (path, reason)."""

    submissions: list[entries.Submission]
    folders: dict[str, str]
    broken: list[tuple[str, str]]


def read_all(paths: Iterable[str]) -> Found:
    """Every submission below some folders, in order of their paths; raises HarnessError."""
    found = Found([], {}, [])
    for folder in submission_folders(paths):
        try:
            submission = entries.read_submission(*corrected(folder))
            first = found.folders.setdefault(submission.run_id, folder)
            if first != folder:
                raise entries.BrokenSubmission(f"the same run as {first}")
            found.submissions.append(submission)
        except entries.BrokenSubmission as error:
            found.broken.append((folder, str(error)))
    return found


def corrected(folder: str) -> tuple[Json, Json, Json, tuple[str, ...]]:
    """Manifest, metadata and hardware of a submission with corrected values, and why it is not to
    be compared; raises BrokenSubmission and HarnessError."""
    manifest, metadata, hardware = (read_document(folder, name) for name in DOCUMENTS)
    run_id = str(manifest.get("run_id") if isinstance(manifest, dict) else None)
    known = corrections.near(os.path.dirname(os.path.abspath(folder)))
    corrections.apply(run_id, known, {"metadata": metadata, "hardware": hardware})
    return manifest, metadata, hardware, corrections.reasons(run_id, known)


def submission_folders(paths: Iterable[str]) -> Iterator[str]:
    """Folders that hold a metadata.json, sorted; links to folders are not followed."""
    for path in paths:
        if not os.path.isdir(path):
            raise HarnessError(f"{texts.printable(path)}: no such folder; pass the folder of a "
                               "submission or one above it")
        for folder, names, held in os.walk(path):
            names[:] = sorted(name for name in names if not name.startswith("."))
            if "metadata.json" in held:
                yield folder


def read_document(folder: str, name: str) -> Any:
    """A parsed document of a submission; raises BrokenSubmission."""
    path = os.path.join(folder, name)
    try:
        refuse_odd_file(path, MAX_DOCUMENT_BYTES)
        return json.loads(files.read(path), parse_constant=schema.no_constant)
    except OSError as error:
        raise entries.BrokenSubmission(f"{name}: {error.strerror or error}") from None
    except RecursionError:
        raise entries.BrokenSubmission(f"{name}: nested too deep") from None
    except ValueError as error:
        raise entries.BrokenSubmission(f"{name}: {error}") from None


def refuse_odd_file(path: str, limit: int) -> None:
    """Raise OSError for a path that is not a plain file of at most `limit` bytes."""
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(0, "is not a plain file")
    if found.st_size > limit:
        raise OSError(0, f"is larger than {limit} bytes")
