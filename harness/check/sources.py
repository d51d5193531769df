"""Where a submission's bytes come from: a folder on disk, or the objects of a git repository.

Both are taken for hostile. On disk every name is looked at with lstat before it is opened, nothing
is followed, and only plain files are read. From git only objects are read: no work tree is made, no
attribute, filter, hook or configured program has a say, and sizes are asked before bytes.

    of_paths      submissions in and below folders
    Repository    commits, changes, trees and blobs of a repository
    of_changes    the submissions that a change adds
"""
from __future__ import annotations

import io
import os
import re
import stat
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, Callable, NamedTuple, Optional

from core.errors import HarnessError
from core.text import printable

from check import findings

NAMES = ("manifest.json", "run.jsonl", "hardware.json", "metadata.json", "run.md")
MIB = 1024 * 1024
# How large each may be. Real ones: 10 KB, 1 to 3 MB a model and repeat, 15 KB, 10 KB a cell, 10 KB.
LIMITS_BYTES = {"manifest.json": MIB, "run.jsonl": 32 * MIB, "hardware.json": MIB,
                "metadata.json": 4 * MIB, "run.md": MIB // 4}
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
RUN_FOLDER = re.compile(rf"run-({UUID})\Z")
EXAMPLE = ("EXAMPLE", "run-00000000-0000-0000-0000-000000000000")
# Below submissions/, but changed with the harness: reviewed by hand, as that is.
PROJECTS_OWN = ("submissions/README.md", "submissions/EXAMPLE/")
MAX_ENTRIES = 10_000          # of one folder
MAX_LEVELS = 4                # submissions/<handle>/<device-tag>/run-<uuid>


class Blob(NamedTuple):
    """One plain file: where it is, and how to read it from its start."""

    path: str
    size_bytes: int
    open: Callable[[], BinaryIO]


class Submission(NamedTuple):
    """One folder run-<uuid>. parts: handle, device tag and folder name as the path has them."""

    path: str
    parts: tuple[str, str, str]
    files: dict[str, Blob]

    def is_example(self) -> bool:
        """Whether it lies where the example lies."""
        return (self.parts[0], self.parts[2]) == EXAMPLE


# --- folders -------------------------------------------------------------------------------------
def of_paths(paths: Iterable[str], report: findings.Report) -> Iterator[Submission]:
    """Every submission in and below the folders; raises Stop for a path that is no folder."""
    for path in paths:
        shown = os.path.normpath(path).replace(os.sep, "/")
        try:
            mode = os.lstat(path).st_mode
        except (OSError, ValueError) as error:
            raise HarnessError(f"{printable(path)} cannot be read ({_why(error)}); name the folder of a "
                       "submission, or one above") from None
        if stat.S_ISREG(mode):
            raise HarnessError(f"{printable(path)} is a file; name its folder")
        if stat.S_ISDIR(mode):
            yield from _below(path, shown, report, 0)
        else:
            report.add("file-not-regular", shown, _kind_of(mode))


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or type(error).__name__


def _kind_of(mode: int) -> str:
    kinds = (("a symbolic link", stat.S_ISLNK), ("a folder", stat.S_ISDIR),
             ("a named pipe", stat.S_ISFIFO), ("a socket", stat.S_ISSOCK),
             ("a device", stat.S_ISBLK), ("a device", stat.S_ISCHR))
    return "is " + next((name for name, holds in kinds if holds(mode)), "of an unknown kind")


def _entries(path: str, shown: str, report: findings.Report) -> list[tuple[str, os.stat_result]]:
    """(name, lstat) of everything in a folder, sorted."""
    found: list[tuple[str, os.stat_result]] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if len(found) == MAX_ENTRIES:
                    report.add("too-many-files", shown, f"over {MAX_ENTRIES} in one folder")
                    break
                found.append((entry.name, entry.stat(follow_symlinks=False)))
    except OSError as error:
        report.add("file-unreadable", shown, _why(error))
    return sorted(found)


def _below(path: str, shown: str, report: findings.Report, level: int) -> Iterator[Submission]:
    entries = _entries(path, shown, report)
    name = os.path.basename(os.path.abspath(path))
    if name.startswith("run-") or {name for name, _ in entries} & set(NAMES[:2]):
        yield _submission(path, shown, entries, report)
        return
    for name, status in entries:
        below = f"{shown}/{name}"
        if stat.S_ISDIR(status.st_mode) and level < MAX_LEVELS:
            yield from _below(os.path.join(path, name), below, report, level + 1)
        elif not stat.S_ISREG(status.st_mode):
            report.add("file-not-regular", below, _kind_of(status.st_mode))
        elif name != "README.md":
            report.add("file-unexpected", below, "no submission has it")


def _submission(path: str, shown: str, entries: Sequence[tuple[str, os.stat_result]],
                report: findings.Report) -> Submission:
    places = os.path.abspath(path).replace(os.sep, "/").split("/")
    handle, tag, folder = (["", "", ""] + places)[-3:]
    files = {}
    for name, status in entries:
        if name not in NAMES:
            report.add("file-unexpected", f"{shown}/{name}", "no submission has it")
        elif not stat.S_ISREG(status.st_mode):
            report.add("file-not-regular", f"{shown}/{name}", _kind_of(status.st_mode))
        else:
            files[name] = Blob(f"{shown}/{name}", status.st_size,
                               _opener(os.path.join(path, name)))
    for name in NAMES:
        if name not in {entry for entry, _ in entries}:
            report.add("file-missing", f"{shown}/{name}", "is not there")
    return Submission(shown, (handle, tag, folder), files)


def _opener(path: str) -> Callable[[], BinaryIO]:
    def read() -> BinaryIO:
        # Between lstat and now somebody may have put a link or a pipe there.
        flags = os.O_RDONLY | sum(getattr(os, name, 0) for name in (
            "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
        fd = os.open(path, flags)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(0, "it is no plain file any more")
        return os.fdopen(fd, "rb")
    return read


# --- git -----------------------------------------------------------------------------------------
COMMAND_LIMIT_S = 120
MAX_TREE_BYTES = 256 * MIB    # of all names below submissions/; it is read record by record
MAX_CHANGES_BYTES = 4 * MIB   # of all names that a change touches
SHAS_AT_ONCE = 1000
SAFE_CONFIG = ("core.fsmonitor=false", f"core.hooksPath={os.devnull}", "core.pager=cat",
               "core.attributesFile=" + os.devnull, "protocol.allow=never")
SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")


class Change(NamedTuple):
    """One path that differs: mode and object after it, status A, M, D, T, ..."""

    mode: str
    sha: str
    status: str
    path: str


class Repository:
    """A git repository's objects. git_dir None: the one that the current folder belongs to."""

    def __init__(self, git_dir: Optional[str] = None) -> None:
        self._words = ["git", "--no-pager", *([f"--git-dir={git_dir}"] if git_dir else [])]
        for setting in SAFE_CONFIG:
            self._words += ["-c", setting]
        kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
        self._environment = {
            **kept, "LC_ALL": "C", "HOME": os.devnull, "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": os.devnull, "GIT_NO_LAZY_FETCH": "1", "GIT_OPTIONAL_LOCKS": "0",
            "GIT_NO_REPLACE_OBJECTS": "1", "GIT_TERMINAL_PROMPT": "0", "GIT_ALLOW_PROTOCOL": "",
            "GIT_ATTR_NOSYSTEM": "1", "GIT_LITERAL_PATHSPECS": "1"}
        self._batch: Optional[subprocess.Popen[bytes]] = None

    def _start(self, words: Sequence[str], stdin: int) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen([*self._words, *words], stdin=stdin, stdout=subprocess.PIPE,
                                    stderr=subprocess.DEVNULL, env=self._environment)
        except OSError as error:
            raise HarnessError(f"git cannot be run ({_why(error)}); install it") from None

    def _output(self, *words: str, stdin: bytes = b"") -> bytes:
        """What a command prints that prints little; nothing where it fails."""
        child = self._start(words, subprocess.PIPE)
        try:
            out, _ = child.communicate(stdin, COMMAND_LIMIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            return b""
        return b"" if child.returncode else out

    def _records(self, words: Sequence[str], limit_bytes: int) -> Iterator[str]:
        """What a command prints, NUL after NUL; raises Stop where it fails or does not end."""
        child = self._start(words, subprocess.DEVNULL)
        timer = threading.Timer(COMMAND_LIMIT_S, child.kill)
        timer.start()
        try:
            assert child.stdout is not None
            rest, total = b"", 0
            while total <= limit_bytes:
                block = child.stdout.read(MIB)
                if not block:
                    child.wait(COMMAND_LIMIT_S)
                    break
                total += len(block)
                *whole, rest = (rest + block).split(b"\0")
                for record in whole:
                    yield record.decode("utf-8", "surrogateescape")
        finally:
            timer.cancel()
            child.kill()
            child.communicate()
        if child.returncode or total > limit_bytes:
            raise HarnessError(f"git {words[0]} does not list what is asked for; fetch base and head whole")

    def commit(self, name: str) -> str:
        """The commit that a name means; raises Stop."""
        out = b"" if name.startswith("-") or "\0" in name else self._output(
            "rev-parse", "--verify", "--quiet", "--end-of-options", name + "^{commit}")
        found = out.decode("ascii", "replace").strip()
        if not SHA.match(found):
            raise HarnessError(f"{printable(name)} names no commit here; fetch it, and name it by its id")
        return found

    def merge_base(self, base: str, head: str) -> str:
        """The commit from which two went apart; raises Stop."""
        found = self._output("merge-base", base, head).decode("ascii", "replace")[:64]
        if not SHA.match(found.strip()):
            raise HarnessError("base and head have no commit in common here; fetch more of the history")
        return found.strip()

    def changes(self, base: str, head: str) -> list[Change]:
        """Every path that differs; a rename is a deletion and an addition. Raises Stop."""
        words = list(self._records(
            ["diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev", "--no-ext-diff",
             "--no-textconv", base, head], MAX_CHANGES_BYTES))
        return [Change(told[1], told[3], told[4][:1], path) for told, path in
                ((meta.split(" "), path) for meta, path in zip(words[::2], words[1::2]))]

    def files(self, commit: str, folder: str, name: str) -> Iterator[tuple[str, str]]:
        """(path, object) of every file of that name below a folder; raises Stop."""
        for line in self._records(["ls-tree", "-r", "-z", commit, "--", folder + "/"],
                                  MAX_TREE_BYTES):
            told, _, path = line.partition("\t")
            if path.endswith("/" + name):
                yield path, told.split(" ")[2]

    def sizes_bytes(self, shas: Sequence[str]) -> dict[str, int]:
        """{object: size} of the blobs that are here; others are left out."""
        found: dict[str, int] = {}
        for at in range(0, len(shas), SHAS_AT_ONCE):
            asked = "".join(sha + "\n" for sha in shas[at:at + SHAS_AT_ONCE] if SHA.match(sha))
            out = self._output("cat-file", "--batch-check", stdin=asked.encode("ascii"))
            rows = (line.split(" ") for line in out.decode("ascii", "replace").split("\n"))
            found.update((row[0], int(row[2])) for row in rows
                         if len(row) == 3 and row[1] == "blob")
        return found

    def read(self, sha: str) -> bytes:
        """A blob's bytes; ask for its size first. Raises OSError."""
        if self._batch is None:
            self._batch = self._start(["cat-file", "--batch"], subprocess.PIPE)
        asked, told = self._batch.stdin, self._batch.stdout
        assert asked is not None and told is not None
        asked.write(sha.encode("ascii") + b"\n")
        asked.flush()
        row = told.readline(200).split(b" ")
        if len(row) != 3 or row[1] != b"blob":
            raise OSError(0, "the object is not here")
        data = told.read(int(row[2]) + 1)
        return data[:-1]

    def close(self) -> None:
        """End the child, if there is one."""
        if self._batch is not None:
            self._batch.kill()
            self._batch.communicate()
            self._batch = None


def of_changes(repository: Repository, changes: Sequence[Change],
               report: findings.Report) -> Iterator[Submission]:
    """The submissions that a change adds; whatever else it does is a finding."""
    folders: dict[tuple[str, str, str], dict[str, str]] = {}
    for change in changes:
        parts, name = _place_of(change.path)
        if change.status != "A":
            report.add("path-changed", change.path, f"status {change.status}")
        elif change.mode != "100644":
            report.add("file-mode", change.path, f"mode {change.mode}")
        elif parts is None:
            report.add("path-outside", change.path, "is no file of a submission")
        else:
            folders.setdefault(parts, {})[name] = change.sha
    sizes = repository.sizes_bytes([sha for found in folders.values() for sha in found.values()])
    for parts, found in sorted(folders.items()):
        path = "/".join(("submissions", *parts))
        notes = findings.Notes(report, path)
        for name in NAMES:
            if name not in found:
                notes.of(name).add("file-missing", "is not there")
            elif found[name] not in sizes:
                notes.of(name).add("file-unreadable", "the object is not here")
        yield Submission(path, parts, {
            name: Blob(f"{path}/{name}", sizes[sha], _blob_opener(repository, sha))
            for name, sha in found.items() if sha in sizes})


def _blob_opener(repository: Repository, sha: str) -> Callable[[], BinaryIO]:
    return lambda: io.BytesIO(repository.read(sha))


def _place_of(path: str) -> tuple[Optional[tuple[str, str, str]], str]:
    """((handle, device tag, folder), name) of a submission's path; (None, "") of another."""
    parts = path.split("/")
    fits = (len(parts) == 5 and parts[0] == "submissions" and parts[4] in NAMES
            and RUN_FOLDER.match(parts[3]) and re.match(r"[a-z0-9-]+\Z", parts[1])
            and re.match(r"[a-z0-9-]+\Z", parts[2]))
    return ((parts[1], parts[2], parts[3]), parts[4]) if fits else (None, "")
