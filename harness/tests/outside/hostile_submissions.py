"""Check a thousand hostile inputs; none may break the check.

    python3 -m tests.outside.hostile_submissions [FOLDER]      in harness/

Each input is a folder, a change in a git repository or an argument that no one sends by accident:
depth, size, NaN, repeated keys, NUL, characters that turn the text, half surrogates, links,
devices, pipes, odd names, terminal escapes, Markdown and HTML, 1e999, lines of 200 MB, and random
bytes in a valid submission. The check runs in a child process with a limit of memory and time. It
has to end with exit code 0, 1 or 2, without traceback or check-broken, with printable ASCII only
and at most 300 MB. FOLDER: where inputs are written (default: a temporary folder).
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

from tests import valid_run
from tests.valid_run import Made, Spec

LIMIT_BYTES = 300_000_000
LIMIT_S = 60
INPUTS = 1000
PROGRAM = Path(valid_run.HERE).parent / "check_submission.py"
PLAIN = re.compile(rb"[\n\x20-\x7e]*\Z")
ODD_TEXTS = (
    "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\x9b31m", "\u202egpj.exe", "\u2066a\u2069", "\u200b",
    "\U000e0041\U000e0042", "<script>alert(1)</script>", "![x](http://example.org/x.png)",
    "| a | b |", "`code`", "::error::x", "\x00", "\ufeff", "%0d%0a", "${{ github.token }}",
    "$(id)", "@everyone #1", "\r\nerror", "' or 1=1 --", "../../../etc/passwd", "A" * 5000,
    "\ufdd0", "\U0010ffff", "e\u0301" * 300, "-", "--help", "")
ODD_NUMBERS = (b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b"9" * 400, b"1" * 5000,
               b"-0", b"0.1e-400", b"9007199254740993", b"1.0000000000000000000001", b"01", b"+1")
ODD_NAMES = ("\x1b[31m", "\u202ex", "-rf", "con", "a\nb", " ", ".git", "run.jsonl ", "RUN.JSONL",
             "x" * 250, "\udcff", "$(id)", "`id`", "<b>", "manifest.json.bak", ".DS_Store")


class Input(NamedTuple):
    """A hostile input. put: writes it into a folder; words: of the command line, with {} for the
    folder."""

    name: str
    put: Callable[[Path], None]
    words: tuple[str, ...] = ("{}",)


def with_files(**files: Any) -> Callable[[Path], None]:
    """A valid submission with other bytes in some files; run_md is run.md."""
    def put(root: Path) -> None:
        made = valid_run.make()
        for name, data in files.items():
            key = name.replace("_", ".")
            made.files[key] = data(made.bytes_of().get(key, b"")) if callable(data) else data
        made.write(str(root))
    return put


def in_folder(change: Callable[[Path], None]) -> Callable[[Path], None]:
    """A valid submission with a changed folder."""
    def put(root: Path) -> None:
        change(Path(valid_run.make().write(str(root))))
    return put


def sparse(name: str, size_bytes: int, fill: bytes = b"") -> Callable[[Path], None]:
    """A sparse file of zeros, or a file of one line."""
    def put(folder: Path) -> None:
        with open(folder / name, "wb") as file:
            for _ in range(size_bytes // len(fill) if fill else 0):
                file.write(fill)
            file.truncate(size_bytes)
    return in_folder(put)


def replaced(name: str, make: Callable[[Path], None]) -> Callable[[Path], None]:
    def put(folder: Path) -> None:
        (folder / name).unlink()
        make(folder / name)
    return in_folder(put)


# --- written by hand -----------------------------------------------------------------------------
def bombs() -> Iterator[Input]:
    """Depth, size and cost."""
    mib = 1 << 20
    for name in ("manifest_json", "hardware_json", "metadata_json", "run_jsonl"):
        for what, data in (
                ("depth of lists", b"[" * 200_000), ("depth of objects", b'{"a":' * 200_000),
                ("closed depth", b"[" * 900 + b"]" * 900), ("many lists", b"[" + b"[]," * 300_000),
                ("many objects", b"[" + b"{}," * 300_000 + b"{}]"),
                ("many numbers", b"[" + b"1," * 450_000 + b"1]"),
                ("many texts", b"[" + b'"ab",' * 180_000 + b'""]'),
                ("many keys", b"{" + b",".join(b'"k%d":1' % i for i in range(60_000)) + b"}"),
                ("many keys and one twice", b"{" + b",".join(
                    b'"k%d":1' % (i % 19_999) for i in range(20_000)) + b"}"),
                ("long key", b'{"' + b"k" * 900_000 + b'":1}'),
                ("long number", b"1" * 900_000), ("long fraction", b"0." + b"1" * 900_000),
                ("long exponent", b"1e" + b"9" * 900_000), ("nothing", b""), ("blanks", b" " * mib),
                ("newlines", b"\n" * mib), ("NULs", b"\0" * mib), ("0xff", b"\xff" * mib),
                ("wide text", b'"' + "\U0001f600".encode() * 200_000 + b'"'),
                ("escaped wide text", b'"' + b"\\ud83d\\ude00" * 80_000 + b'"'),
                ("half a pair", b'{"a":"\\ud800"}'), ("byte order mark", b"\xef\xbb\xbf{}"),
                ("UTF-16", "{}".encode("utf-16"))):
            yield Input(f"{name}: {what}", with_files(**{name: data}))
    for size in (33 * mib, 200 * mib, 1 << 40):
        for name in ("manifest.json", "run.jsonl", "run.md"):
            yield Input(f"{name} of {size} zeros", sparse(name, size))
    yield Input("line of 200 MB", sparse("run.jsonl", 200_000_000, b"x" * 1_000_000))
    yield Input("31 MiB of one line", sparse("run.jsonl", 31 * mib, b"[1," * 100_000))
    yield Input("31 MiB of lines", sparse("run.jsonl", 31 * mib, b"{}\n" * 100_000))
    yield from ledgers()


def ledgers() -> Iterator[Input]:
    """Too many valid lines."""
    made = valid_run.make()
    line = valid_run.ledger.dump_line
    call = next(e for e in made.events if e["event"] == "call_finished")

    def swollen(**changes: Any) -> Callable[[bytes], bytes]:
        timing = {**call["timing"], **changes}
        return lambda data: data + line({**call, "timing": timing})

    yield Input("400,000 chunks", with_files(run_jsonl=swollen(chunk_us=[300] * 400_000)))
    yield Input("90,000 reads", with_files(run_jsonl=swollen(reads=[[1, 2]] * 90_000)))
    yield Input("400,000 wrong chunks", with_files(run_jsonl=swollen(chunk_us=[""] * 400_000)))
    for count in (300, 20_000):
        for name in ("run_resumed", "run_finished", "run_started", "host_sampled", "call_finished",
                     "phase_finished", "cache_probed", "endpoint_identified"):
            source = valid_run.make(Spec(kill_after=(3,)))
            event = next(e for e in source.events if e["event"] == name)
            data = line(event) * min(count, 30 * (1 << 20) // len(line(event)))
            yield Input(f"{count} lines of {name}", with_files(
                run_jsonl=lambda start, data=data: start + data))
    whole = made.ledger_bytes()
    yield Input("30 MiB of whole ledgers", with_files(run_jsonl=whole * (30 * (1 << 20)
                                                                         // len(whole))))
    long = {**call, "response": {**call["response"], "text": "\U0001f600" * 250_000}}
    yield Input("texts of wide characters", with_files(run_jsonl=lambda start: start
                                                       + line(long) * 28))
    heavy = {**call, "timing": {**call["timing"], "chunk_us": [70_000] * 480_000}}
    yield Input("ledger at its cap of values", with_files(run_jsonl=lambda start: start
                                                          + line(heavy) * 5))
    for field, value in (("repeats", 1000), ("lanes", 256)):
        plan = {**made.manifest["plan"], field: value}
        yield Input(f"plan of {value} {field}", with_files(manifest_json=json.dumps(
            {**made.manifest, "plan": plan, "models": [f"m{i}" for i in range(50)]}).encode()))
    models = [f"m{i}" for i in range(100_000)]
    yield Input("100,000 models", with_files(manifest_json=json.dumps(
        {**made.manifest, "models": models}).encode()))


def things() -> Iterator[Input]:
    """Things that are not plain files, and odd names."""
    for name in ("manifest.json", "run.jsonl", "run.md"):
        yield Input(f"{name} is a link to a file", replaced(name, lambda p: p.symlink_to(
            "/etc/passwd")))
        yield Input(f"{name} is a link to itself", replaced(name, lambda p: p.symlink_to(p.name)))
        yield Input(f"{name} is a link to a device", replaced(name, lambda p: p.symlink_to(
            "/dev/zero")))
        yield Input(f"{name} is a pipe", replaced(name, lambda p: os.mkfifo(p)))
        yield Input(f"{name} is a folder", replaced(name, lambda p: p.mkdir()))
        yield Input(f"{name} may not be read", in_folder(lambda p, name=name: (p / name).chmod(0)))
        yield Input(f"{name} is missing", in_folder(lambda p, name=name: (p / name).unlink()))
    yield Input("a device itself", lambda root: None, ("/dev/zero",))
    yield Input("a device for privacy", lambda root: None, ("--privacy", "/dev/zero"))
    yield Input("a folder that links to itself", in_folder(lambda p: (p / "x").symlink_to(p)))
    yield Input("a deep tree", lambda root: (root / "/".join("d" * 120)).mkdir(parents=True))

    def crowd(root: Path) -> None:
        (root / "a").mkdir()
        for i in range(12_000):
            (root / "a" / f"f{i}").touch()

    yield Input("12,000 files", crowd)
    for name in ODD_NAMES:
        yield Input(f"file {name!a}", in_folder(lambda p, name=name: (p / name).touch()))
        yield Input(f"folder {name!a}", lambda root, name=name: (root / name / "run-1").mkdir(
            parents=True))
        yield Input(f"argument {name!a}", lambda root: None, (name,))
        yield Input(f"ref {name!a}", lambda root: None, ("--base", name, "--head", "HEAD"))


# --- random --------------------------------------------------------------------------------------
def places(value: Any) -> list[tuple[Any, Any]]:
    """(holder, key) of everything in a document."""
    found, waiting = [], [value]
    while waiting:
        held = waiting.pop()
        inner = list(held.items()) if isinstance(held, dict) else list(enumerate(held))
        found += [(held, key) for key, _ in inner]
        waiting += [one for _, one in inner if isinstance(one, (dict, list))]
    return found


def odd_field(seed: int) -> Callable[[Path], None]:
    """A valid submission with an odd text, number or shape in one field."""
    def put(root: Path) -> None:
        rng = random.Random(seed)
        made = valid_run.make(rng.choice((valid_run.SMALL, Spec(kill_after=(3,), torn=b"{"), Spec(
            phases="hello,edge_append"))))
        document = rng.choice((made.manifest, made.hardware, made.metadata,
                               *rng.sample(made.events, 6)))
        holder, key = rng.choice(places(document))
        holder[key] = rng.choice((rng.choice(ODD_TEXTS), None, True, -1, 0, 2 ** 53 - 1, 1e300, [],
                                  {}, [[]], {"a": None}, [1] * 50, "\ud800"))
        write_quietly(made, root)
    return put


def odd_number(seed: int) -> Callable[[Path], None]:
    """A number written in a way that JSON readers disagree on."""
    def put(root: Path) -> None:
        rng = random.Random(seed)
        name = rng.choice(("manifest.json", "run.jsonl", "hardware.json", "metadata.json"))
        made = valid_run.make()
        data = made.bytes_of()[name]
        match = rng.choice(list(re.finditer(rb"(?<=[:\[,])[ ]?\d+", data)))
        made.files[name] = data[:match.start()] + rng.choice(ODD_NUMBERS) + data[match.end():]
        made.write(str(root))
    return put


def odd_bytes(seed: int) -> Callable[[Path], None]:
    """Some bytes of a file are changed, deleted or repeated."""
    def put(root: Path) -> None:
        rng = random.Random(seed)
        name = rng.choice(("manifest.json", "run.jsonl", "hardware.json", "metadata.json",
                           "run.md"))
        made = valid_run.make()
        data = bytearray(made.bytes_of()[name])
        for _ in range(rng.choice((1, 1, 3, 30))):
            at, count = rng.randrange(len(data)), rng.choice((1, 1, 2, 50))
            kind = rng.randrange(3)
            data[at:at + count] = (rng.randbytes(count) if kind == 0 else b"" if kind == 1
                                   else data[at:at + count] * 2)
        made.files[name] = bytes(data)
        made.write(str(root))
    return put


def write_quietly(made: Made, root: Path) -> None:
    """Write broken documents as far as possible."""
    folder = root / "ada" / "desktop-ryzen-64gb" / f"run-{'0' * 8}-0000-4000-8000-{'0' * 12}"
    folder.mkdir(parents=True)
    for name, document in (("manifest", made.manifest), ("hardware", made.hardware),
                           ("metadata", made.metadata)):
        (folder / f"{name}.json").write_bytes(json.dumps(document).encode("utf-8", "replace"))
    lines = (json.dumps(event, separators=(",", ":")) + "\n" for event in made.events)
    (folder / "run.jsonl").write_bytes("".join(lines).encode("utf-8", "replace"))
    try:
        page = made.page()
    except Exception:                     # the page needs numbers
        page = "# none\n"
    (folder / "run.md").write_bytes(page.encode("utf-8", "replace"))


def inputs(count: int) -> list[Input]:
    made = [*bombs(), *things()]
    kinds = (("field", odd_field), ("number", odd_number), ("bytes", odd_bytes))
    for seed in range(max(count - len(made), 0)):
        name, kind = kinds[seed % len(kinds)]
        made.append(Input(f"odd {name} {seed}", kind(seed)))
    return made


# --- running them --------------------------------------------------------------------------------
class Outcome(NamedTuple):
    """The result of one input. problem: why it failed, or None."""

    problem: Optional[str]
    codes: list[str]
    peak_bytes: int
    lasted_s: float


WATCH = """
import os, runpy, sys
sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(sys.argv[0])
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    sys.stdout.flush()
    # Not ru_maxrss, which remembers the size of the process that this one was forked from.
    with open("/proc/self/status") as file:
        print(next(line.split()[1] for line in file if line.startswith("VmHWM")), file=sys.stderr)
"""


def run(one: Input, root: Path) -> Outcome:
    """Check an input in a child process; examine its output, memory and time."""
    words = [word.format(root) if "{}" in word else word for word in one.words]
    begun_s = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-c", WATCH, str(PROGRAM), "--json", *words], cwd=root,
            capture_output=True, timeout=LIMIT_S, stdin=subprocess.DEVNULL, preexec_fn=confine)
    except subprocess.TimeoutExpired:
        return Outcome("it took too long", [], 0, LIMIT_S)
    except ValueError:                    # not a possible argument of a program
        return Outcome(None, [], 0, 0.0)
    lasted_s = time.monotonic() - begun_s
    errors, _, peak = done.stderr.rstrip(b"\n").rpartition(b"\n")
    peak_bytes = int(peak) * 1024 if peak.isdigit() else 0
    return Outcome(problem_of(done, errors, peak_bytes), codes_of(done.stdout), peak_bytes,
                   lasted_s)


def confine() -> None:
    """Limit the child's memory to three times LIMIT_BYTES, to protect this machine."""
    resource.setrlimit(resource.RLIMIT_AS, (3 * LIMIT_BYTES, 3 * LIMIT_BYTES))


def problem_of(done: Any, errors: bytes, peak_bytes: int) -> Optional[str]:
    if done.returncode not in (0, 1, 2):
        return f"exit code {done.returncode}"
    if b"Traceback" in errors or (errors and done.returncode != 2) or errors.count(b"\n"):
        return f"standard error: {errors[-300:]!a}"
    if not PLAIN.match(done.stdout) or not PLAIN.match(errors):
        return "output that is not printable ASCII"
    if b"check-broken" in done.stdout:
        found = [f for f in json.loads(done.stdout)["findings"] if f["code"] == "check-broken"]
        return f"the check broke: {found[0]['what']}"
    if peak_bytes > LIMIT_BYTES:
        return f"{peak_bytes >> 20} MiB of memory"
    return None


def codes_of(out: bytes) -> list[str]:
    return sorted({found["code"] for found in json.loads(out)["findings"]}) if out else []


def clean(root: Path) -> None:
    subprocess.run(["chmod", "-R", "u+rwx", str(root)], check=False, stderr=subprocess.DEVNULL)
    subprocess.run(["rm", "-rf", str(root)], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", metavar="FOLDER")
    parser.add_argument("--count", type=int, default=INPUTS, help=f"inputs (default {INPUTS})")
    parser.add_argument("--only", default="", help="those whose name holds this")
    args = parser.parse_args()
    codes: Counter[str] = Counter()
    outcomes: list[tuple[str, Outcome]] = []
    with tempfile.TemporaryDirectory(dir=args.folder) as top:
        for number, one in enumerate(inputs(args.count)):
            if args.only not in one.name:
                continue
            root = Path(top) / f"{number}"
            root.mkdir()
            one.put(root)
            outcome = run(one, root)
            clean(root)
            codes.update(outcome.codes)
            outcomes.append((one.name, outcome))
            if outcome.problem:
                print(f"FAILED {one.name}: {outcome.problem}")
    failed = sum(outcome.problem is not None for _, outcome in outcomes)
    print(f"{len(outcomes)} inputs, {failed} failed, {len(codes)} codes found")
    for what, key in (("largest", lambda o: o.peak_bytes), ("slowest", lambda o: o.lasted_s)):
        for name, outcome in sorted(outcomes, key=lambda item: -key(item[1]))[:3]:
            print(f"{what}: {outcome.peak_bytes >> 20} MiB, {outcome.lasted_s:.1f} s: {name}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
