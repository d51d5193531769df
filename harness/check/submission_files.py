"""Read the bytes of submissions from folders or from the objects of a git repository.

Both may be hostile. On disk, lstat comes before open, no link is followed, and only plain files are
read. From git only objects are read: there is no work tree, no attribute, filter, hook or
configured program applies, and sizes are read before bytes.
"""
from __future__ import annotations

import functools
import hashlib
import importlib.machinery
import io
import os
import re
import stat
import subprocess
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO, Callable, NamedTuple, Optional

from check import findings
from core.errors import HarnessError
from core.text import printable

NAMES = ("manifest.json", "run.jsonl", "hardware.json", "metadata.json", "run.md")
MIB = 1024 * 1024
# Real files: 10 KB, 1 to 3 MB per model and repeat, 15 KB, 10 KB per cell, 10 KB.
LIMITS_BYTES = {"manifest.json": MIB, "run.jsonl": 32 * MIB, "hardware.json": MIB,
                "metadata.json": 4 * MIB, "run.md": MIB // 4}
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
RUN_FOLDER = re.compile(rf"run-({UUID})\Z")
EXAMPLE = ("EXAMPLE", "run-00000000-0000-0000-0000-000000000000")
# Below submissions/, but maintained and reviewed with the harness.
PROJECTS_OWN = ("submissions/README.md", "submissions/QUERIES.md", "submissions/CORRECTIONS.json",
                "submissions/EXAMPLE/")
OWN_PAGES = ("README.md", "QUERIES.md", "CORRECTIONS.json")
NOT_PROGRAMS = ("harness/tests/", "harness/docs/")
MAX_ENTRIES = 10_000          # of one folder
MAX_LEVELS = 4                # submissions/<handle>/<device-tag>/run-<uuid>


class Blob(NamedTuple):
    """A plain file. open: opens it at its start."""

    path: str
    size_bytes: int
    open: Callable[[], BinaryIO]


class Submission(NamedTuple):
    """A folder run-<uuid>. parts: handle, device tag and folder name in its path."""

    path: str
    parts: tuple[str, str, str]
    files: dict[str, Blob]


# --- folders -------------------------------------------------------------------------------------
def of_paths(paths: Iterable[str], report: findings.Report) -> Iterator[Submission]:
    """All submissions in and below the folders. Raises HarnessError for other paths."""
    for path in paths:
        shown = os.path.normpath(path).replace(os.sep, "/")
        try:
            mode = os.lstat(path).st_mode
        except (OSError, ValueError) as error:
            raise HarnessError(f"{printable(path)} cannot be read ({cause(error)}); pass the "
                               "folder of a submission, or a folder above it") from None
        if stat.S_ISREG(mode):
            raise HarnessError(f"{printable(path)} is a file; pass the "
                               "folder of a submission, or a folder above it")
        if stat.S_ISDIR(mode):
            yield from _below(path, shown, report, 0)
        else:
            report.add("file-not-regular", shown, f"is {_kind_of(mode)}")


def cause(error: Exception) -> str:
    """The reason of an OSError or ValueError."""
    return getattr(error, "strerror", None) or type(error).__name__


KINDS = {stat.S_IFLNK: "a symbolic link", stat.S_IFDIR: "a folder", stat.S_IFIFO: "a named pipe",
         stat.S_IFSOCK: "a socket", stat.S_IFBLK: "a device", stat.S_IFCHR: "a device"}


def _kind_of(mode: int) -> str:
    return KINDS.get(stat.S_IFMT(mode), "of an unknown kind")


def _entries(path: str, shown: str, report: findings.Report) -> list[tuple[str, os.stat_result]]:
    """(name, lstat) of all entries of a folder, sorted."""
    found: list[tuple[str, os.stat_result]] = []
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if len(found) == MAX_ENTRIES:
                    report.add("too-many-files", shown, f"more than {MAX_ENTRIES} in one folder")
                    break
                found.append((entry.name, entry.stat(follow_symlinks=False)))
    except OSError as error:
        report.add("file-unreadable", shown, cause(error))
    return sorted(found)


def _below(path: str, shown: str, report: findings.Report, level: int) -> Iterator[Submission]:
    entries, files = _entries(path, shown, report), dict[str, Blob]()
    places = ["", "", "", *os.path.abspath(path).replace(os.sep, "/").split("/")]
    is_submission = places[-1].startswith("run-") or not {
        name for name, _ in entries}.isdisjoint(NAMES[:2])
    for name, status in entries:
        below, is_folder = f"{shown}/{name}", stat.S_ISDIR(status.st_mode)
        if is_folder and not is_submission and level < MAX_LEVELS:
            yield from _below(os.path.join(path, name), below, report, level + 1)
        elif not stat.S_ISREG(status.st_mode) and (name in NAMES or not is_submission):
            report.add("file-not-regular", below, f"is {_kind_of(status.st_mode)}")
        elif is_submission and name in NAMES:
            files[name] = Blob(below, status.st_size,
                               functools.partial(open_regular, os.path.join(path, name)))
        elif is_submission or name not in OWN_PAGES:
            report.add("file-unexpected", below, "is not one of the five files")
    if is_submission:
        for name in NAMES:
            if name not in {entry for entry, _ in entries}:
                report.add("file-missing", f"{shown}/{name}", "is missing")
        yield Submission(shown, (places[-3], places[-2], places[-1]), files)


def open_regular(path: str) -> BinaryIO:
    """Open a plain file. Raises OSError if a link or pipe has replaced it since lstat."""
    flags = os.O_RDONLY | sum(getattr(os, name, 0) for name in (
        "O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
    fd = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(0, "not a plain file any more")
    return os.fdopen(fd, "rb")


# --- git -----------------------------------------------------------------------------------------
COMMAND_LIMIT_S = 120
MAX_TREE_BYTES = 256 * MIB    # of all names below submissions/, read record by record
MAX_CHANGES_BYTES = 4 * MIB   # of all changed names
SHAS_AT_ONCE = 1000
SAFE_CONFIG = ("core.fsmonitor=false", f"core.hooksPath={os.devnull}", "core.pager=cat",
               "core.attributesFile=" + os.devnull, "protocol.allow=never")
SHA = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?\Z")
HEX = re.compile(r"[0-9a-f]{7,64}\Z")


class Change(NamedTuple):
    """A changed path: new mode and object, status A, M, D, T, ..."""

    mode: str
    sha: str
    status: str
    path: str


class Repository:
    """The objects of a git repository; git_dir None: that of the current folder."""

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
            raise HarnessError(f"git does not start ({cause(error)}); install it") from None

    def _output(self, *words: str, stdin: bytes = b"") -> str:
        """The short output of a command; empty if it fails."""
        child = self._start(words, subprocess.PIPE)
        try:
            out, _ = child.communicate(stdin, COMMAND_LIMIT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.communicate()
            return ""
        return "" if child.returncode else out.decode("ascii", "replace")

    def _records(self, words: Sequence[str], limit_bytes: int) -> Iterator[str]:
        """The NUL-separated output of a command. Raises HarnessError if it fails."""
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
            raise HarnessError(f"git {words[0]} failed; fetch base and head completely")

    def commit(self, name: str) -> str:
        """The id of a commit. Raises HarnessError."""
        found = "" if name.startswith("-") or "\0" in name else self._output(
            "rev-parse", "--verify", "--quiet", "--end-of-options", name + "^{commit}").strip()
        if not SHA.match(found):
            raise HarnessError(f"{printable(name)} is not a commit of the git directory; fetch it "
                               "and pass its id, or pass another folder to --git-dir")
        return found

    def merge_base(self, base: str, head: str) -> str:
        """The common ancestor of two commits. Raises HarnessError."""
        found = self._output("merge-base", base, head)[:64].strip()
        if not SHA.match(found):
            raise HarnessError("base and head have no common commit here; fetch more history")
        return found

    def changes(self, base: str, head: str) -> list[Change]:
        """All changed paths; a rename is a deletion and an addition. Raises HarnessError."""
        return self._changes("diff-tree", "-r", base, head)

    def all_changes(self, base: str, head: str) -> list[Change]:
        """All changed paths of each commit between two commits; of a merge, what it alone changed.
        Raises HarnessError."""
        return self._changes("log", "-c", "--format=", f"{base}..{head}")

    def _changes(self, name: str, *words: str) -> list[Change]:
        found = list(self._records(
            [name, "-z", "--raw", "--no-renames", "--no-abbrev", "--no-ext-diff", "--no-textconv",
             *words], MAX_CHANGES_BYTES))
        # One colon, mode and object for each parent, then those of the commit.
        rows = ((meta.split(" "), meta.count(":"), path)
                for meta, path in zip(found[::2], found[1::2]))
        return [Change(row[parents], row[-2], row[-1][:1], path) for row, parents, path in rows]

    def files(self, commit: str, folder: str, name: str) -> Iterator[tuple[str, str]]:
        """(path, object) of all files of that name, or all files, below a folder. Raises
        HarnessError."""
        for line in self._records(["ls-tree", "-r", "-z", "--full-tree", commit, "--",
                                   folder + "/"],
                                  MAX_TREE_BYTES):
            entry, _, path = line.partition("\t")
            if not name or path.endswith("/" + name):
                yield path, entry.split(" ")[2]

    def differences(self, commit: str, root: str) -> list[str]:
        """How the programs of the harness at `root` differ from those of a commit. Raises
        HarnessError."""
        suffixes = (".json", *importlib.machinery.all_suffixes())
        theirs = {path: sha for path, sha in self.files(commit, "harness", "")
                  if path.endswith(suffixes) and not path.startswith(NOT_PROGRAMS)}
        found, seen = [], set[str]()
        for folder, _, names in os.walk(root):
            for name in names:
                path = "harness/" + os.path.relpath(os.path.join(folder, name),
                                                    root).replace(os.sep, "/")
                if not name.endswith(suffixes) or "__pycache__" in path \
                        or path.startswith(NOT_PROGRAMS):
                    continue
                seen.add(path)
                with open_regular(os.path.join(folder, name)) as file:
                    data = file.read()
                # Git for Windows writes other line ends into the work tree.
                if theirs.get(path) not in (_blob_id(data, len(commit)),
                                            _blob_id(data.replace(b"\r\n", b"\n"), len(commit))):
                    found.append(f"{path} is " + ("changed" if path in theirs else "added"))
        return sorted([*found, *(f"{path} is missing" for path in theirs if path not in seen)])

    def time_s(self, commit: str) -> Optional[int]:
        """When a commit was made, in seconds since 1970; None if it is not here. commit: its id or
        the first digits of it."""
        found = re.match(r"(\d{1,12}) ", self._output(
            "rev-list", "--max-count=1", "--timestamp", commit + "^{commit}", "--")
            if HEX.match(commit) else "")
        return int(found[1]) if found else None

    def authors(self, base: str, head: str) -> list[str]:
        """`name <mail>` of all authors and committers between two commits, and the lines of their
        messages, each once. Raises HarnessError."""
        found = self._records(["log", "-z", "--format=%an <%ae>%n%cn <%ce>%n%B", f"{base}..{head}"],
                              MAX_CHANGES_BYTES)
        return sorted({line for commit in found for line in commit.split("\n")})

    def sizes_bytes(self, shas: Sequence[str]) -> dict[str, int]:
        """{object: size} of the blobs that are available."""
        found: dict[str, int] = {}
        for at in range(0, len(shas), SHAS_AT_ONCE):
            asked = "".join(sha + "\n" for sha in shas[at:at + SHAS_AT_ONCE] if SHA.match(sha))
            out = self._output("cat-file", "--batch-check", stdin=asked.encode("ascii"))
            rows = (line.split(" ") for line in out.split("\n"))
            found.update((row[0], int(row[2])) for row in rows
                         if len(row) == 3 and row[1] == "blob")
        return found

    def read(self, sha: str) -> bytes:
        """The bytes of a blob; check its size first. Raises OSError."""
        if self._batch is None:
            self._batch = self._start(["cat-file", "--batch"], subprocess.PIPE)
        stdin, stdout = self._batch.stdin, self._batch.stdout
        assert stdin is not None and stdout is not None
        stdin.write(sha.encode("ascii") + b"\n")
        stdin.flush()
        row = stdout.readline(200).split(b" ")
        if len(row) != 3 or row[1] != b"blob":
            raise OSError(0, "the object is missing in this clone")
        return stdout.read(int(row[2]) + 1)[:-1]

    def close(self) -> None:
        """End the child process, if there is one."""
        if self._batch is not None:
            self._batch.kill()
            self._batch.communicate()
            self._batch = None


def _blob_id(data: bytes, digits: int) -> str:
    """Git's id of a file's bytes, in a repository whose ids have this many digits."""
    header = b"blob %d\0" % len(data)
    return (hashlib.sha1 if digits == 40 else hashlib.sha256)(header + data).hexdigest()


def of_changes(repository: Repository, changes: Sequence[Change],
               report: findings.Report) -> Iterator[Submission]:
    """The submissions that a change adds; all other changes are findings."""
    folders: dict[tuple[str, str, str], dict[str, str]] = {}
    for change in changes:
        parts, name = _place_of(change.path)
        if change.status != "A":
            report.add("file-changed", change.path, f"git status {change.status}")
        elif change.mode != "100644":
            report.add("file-not-regular", change.path, f"git mode {change.mode}")
        elif parts is None:
            report.add("file-unexpected", change.path, "is not a file of a submission")
        else:
            folders.setdefault(parts, {})[name] = change.sha
    sizes = repository.sizes_bytes([sha for found in folders.values() for sha in found.values()])
    for parts, found in sorted(folders.items()):
        path = "/".join(("submissions", *parts))
        notes = findings.Notes(report, path)
        for name in NAMES:
            if name not in found:
                notes.of(name).add("file-missing", "is missing")
            elif found[name] not in sizes:
                notes.of(name).add("file-unreadable", "the object is missing in this clone")
        yield Submission(path, parts, {
            name: Blob(f"{path}/{name}", sizes[sha], functools.partial(_open_blob, repository, sha))
            for name, sha in found.items() if sha in sizes})


def _open_blob(repository: Repository, sha: str) -> BinaryIO:
    return io.BytesIO(repository.read(sha))


def _place_of(path: str) -> tuple[Optional[tuple[str, str, str]], str]:
    """((handle, device tag, folder), name) of a submission's file; (None, "") of other paths."""
    parts = path.split("/")
    fits = (len(parts) == 5 and parts[0] == "submissions" and parts[4] in NAMES
            and RUN_FOLDER.match(parts[3]) and re.match(r"[a-z0-9-]+\Z", parts[1])
            and re.match(r"[a-z0-9-]+\Z", parts[2])
            and parts[1] != EXAMPLE[0].lower())      # the same folder on some systems
    return ((parts[1], parts[2], parts[3]), parts[4]) if fits else (None, "")
