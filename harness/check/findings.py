"""Finding codes of the submission check, and the report that collects findings.

An error keeps a submission out, a warning asks a reviewer to look at something or the contributor
for a second run, and an info only informs. `check_submission.py --explain CODE` prints an entry of
CODES.
"""
from __future__ import annotations

import json
import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

from core.text import WIDE, for_this_system, printable, readable, with_command, wrapped

ERROR, WARNING, INFO = "error", "warning", "info"
SEVERITIES = (ERROR, WARNING, INFO)
KEPT_EACH = 5             # findings of one code in one file; the others are only counted
LONGEST_WHAT = 300
LONGEST_PLACE = 160
LONGEST_PATH = 1000
PLAIN_PATH = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*")


class Code(NamedTuple):
    """One kind of mistake. text: what it means and, of a warning, when an honest run has it."""

    name: str
    severity: str
    text: str
    remedy: str


SECOND_RUN = "make a second run"
NOTHING = "nothing to do"

CODES: dict[str, Code] = {name: Code(name, *entry) for name, entry in {
    # --- files
    "file-missing": (ERROR, "One of the five files is missing.",
        "write what is missing: python3 harness/complete_submission.py FOLDER"),
    "file-unexpected": (ERROR,
        "A file or changed path does not belong to a submission. A pull request adds either "
        "submissions or changes to the project.",
        "remove it, or propose it in a pull request of its own"),
    "file-not-regular": (ERROR,
        "A path is not a plain file with git mode 100644. On Windows and WSL, git may mark a file "
        "as a program by mistake.",
        "replace it with the file itself; for a wrong mode: git update-index --chmod=-x FILE"),
    "file-too-large": (ERROR,
        "A file or ledger line is larger than any run makes it: 32 MiB for run.jsonl, 4 MiB for a "
        "line and for metadata.json, 256 KiB for run.md, 1 MiB for the others.",
        "run fewer models or repeats at a time, or with a smaller --num-predict"),
    "file-unreadable": (ERROR, "A file cannot be read, or its blob is missing in a partial clone.",
        "make it readable, or fetch the whole history"),
    "file-malformed": (ERROR,
        "A file is not strict JSON or UTF-8, does not match its schema (harness/schemas), or is "
        "not formatted as the programs write it.",
        "restore the file as the program wrote it (git config core.autocrlf false); what follows "
        "from the evidence is written again by python3 harness/complete_submission.py FOLDER"),
    "file-changed": (ERROR, "The pull request changes, renames or deletes a merged file.",
        "leave merged files alone; to have a wrong submission annotated, open an issue"),
    "too-many-files": (ERROR,
        "There are too many files to review: over 25 in a pull request (five runs), or over 10,000 "
        "in a folder.", "split the pull request"),
    "text-invisible": (ERROR,
        "A value holds characters that are invisible, or that reverse the direction of the text.",
        "enter the value again with plain characters"),
    "answer-invisible": (WARNING,
        "A model's answer holds invisible characters. Some languages and emoji need them; they "
        "can also hide instructions.", "look at the answer in a viewer that shows them"),
    "check-broken": (ERROR, "The check itself failed on this submission. This is a bug.",
        "open an issue with the name of the folder"),
    "no-submission": (INFO, "No submission was found.", NOTHING),
    # --- whose run it is, and what made it
    "ids-differ": (ERROR,
        "The folder is not <handle>/<device-tag>/run-<uuid>, or folder, manifest and ledger name "
        "different runs.", "name the folder as in manifest.json; keep the files of one run"),
    "harness-modified": (ERROR,
        "The harness version is unknown, or a program, a suite or the list of canonical options "
        "was edited. Options that were given to a run are options-overridden.",
        "git checkout a release, and run again"),
    "harness-unreleased": (WARNING,
        "The programs of this version are not released yet; only prompts and suites were compared.",
        "run a released version of the harness"),
    "suites-unavailable": (INFO,
        "The run used other suites than this checkout has; its requests were not rebuilt.",
        "check it with the harness of its release"),
    "not-a-measurement": (ERROR,
        "The run is a rehearsal, a smoke test, or that of a hosted model, also behind a local "
        "server.",
        "run a model that this machine computes on a real server, without --rehearse and --smoke"),
    "example": (INFO, "This is the example in submissions/EXAMPLE, not a measurement.", NOTHING),
    "name-refused": (ERROR,
        "The handle, device tag or cell id prefix is a placeholder or is not allowed.",
        "run with --submitter-handle and --device-tag"),
    "handle-not-author": (ERROR,
        "The handle is not the GitHub login of the pull request's author.",
        "run with --submitter-handle and your own login"),
    "options-overridden": (INFO,
        "Options differ from the canonical ones. Such a run is shown, but not ranked.",
        NOTHING),
    "endpoint-remote": (INFO,
        "The server's address is not a loopback address. hardware.json has to describe the "
        "server's machine.", NOTHING),
    "manifest-altered": (ERROR,
        "Values of manifest.json contradict each other, the plan, or the hash in the ledger.",
        "restore manifest.json as the run wrote it"),
    "server-changed": (WARNING,
        "The machine, the engine, the model, its facts or its speed changed during the run: an "
        "update between two segments, or a router with several servers.",
        "make a second run on one machine and server"),
    # --- the ledger
    "ledger-altered": (ERROR,
        "A line of run.jsonl is missing, repeated, at the wrong place, or has a value that does "
        "not follow from the plan, the suites or other lines.",
        "restore run.jsonl as the run wrote it; if it is unchanged, open an issue"),
    "ledger-unfinished": (ERROR,
        "The last line is not run_finished, or a planned call has no line.",
        "resume the run: python3 harness/run_benchmark.py --run-id RUN_ID --detach"),
    "call-repeated": (ERROR,
        "A call was made again although it had an answer, or twice without a resume between. After "
        "a resume, the runner repeats only failed calls and the hello of a model.",
        "submit the run as it was; a better second run is a submission of its own"),
    "machine-slept": (WARNING,
        "Wall clock and monotonic clock disagree, or a call outlasted its timeout: the machine "
        "slept, or its clock was set.", "keep the machine awake, and make a second run"),
    "time-unexplained": (WARNING,
        "Time passed that no call explains, or samples of the machine are missing. A machine that "
        "slept or was overloaded does that.",
        "keep the machine awake, stop other programs, and make a second run"),
    "time-in-future": (ERROR, "The run ends more than a day in the future.",
        "set the machine's clock, and run again"),
    "challenge-unanswered": (ERROR,
        "The run does not answer the challenge of --challenge, or not with texts long enough to "
        "measure, or it answered before the commit in the challenge was made.",
        "python3 harness/run_benchmark.py --run-id RUN_ID --challenge TEXT"),
    "challenge-answered": (INFO,
        "The run has answered questions that follow from this text. These answers were made after "
        "the text was known; the rest of the run may be older.", NOTHING),
    # --- physics and the server's own numbers
    "hardware-exceeded": (WARNING,
        "The run is faster than the declared hardware allows, or the weights do not fit into its "
        "memory. Prompt caches, draft models and wrong declared values can also cause this.",
        "check file_bytes, parameters_count, gpu_offload_ratio, backend and memory, declare a "
        "draft model, or make a second run"),
    "context-exceeded": (WARNING,
        "A prompt and its answer are longer than the context in force. Some servers shift their "
        "context.", "check context_effective_tokens"),
    "server-counts-contradict": (WARNING,
        "The server's token counts or timings contradict each other or what the client saw, as "
        "with some proxies.", "name server and proxy in run.md, or run again without a proxy"),
    "answers-cut": (WARNING,
        "Answers ended by their length, but not at the requested length: some servers have their "
        "own limit. Rates are unaffected.",
        "start the server without its own limit and run again, or describe the limit in run.md"),
    "claim-contradicted": (WARNING,
        "The name, quantization or draft model of a model, or the commit of the harness, "
        "contradicts the evidence.", "remove a wrong value with python3 "
        "harness/complete_submission.py FOLDER --set models.0.quantization=null (or "
        "parameters_count, draft_model), or set the true one; or explain it in run.md"),
    # --- copies and invented data
    "run-copied": (ERROR,
        "Another submission has the same run id, or calls with the same times (also if all were "
        "multiplied by a factor).",
        "submit your own run, once, in one folder"),
    "answers-copied": (WARNING,
        "Most long answers have the same text, or the same numbers of tokens and chunks, as those "
        "of another submission. At temperature 0, the same model may repeat them.",
        "say in run.md that the temperature was 0, or make a second run"),
    "weights-contradict": (ERROR,
        "Another submission has weights with the same hash, but over 2 % more or fewer parameters. "
        "One of the two servers reported the values of another model.",
        "run again with a server that reports its own model, and say in run.md which one it is"),
    "data-too-regular": (WARNING,
        "Answers, times or rates are more regular than any known server's: equal answers or "
        "times, no jitter, round numbers. Small models and coarse clocks come close.", SECOND_RUN),
    "tokens-implausible": (WARNING,
        "Characters per token are outside the range of known tokenizers, or chunks and tokens do "
        "not match. Other scripts, draft models, and proxies that join or split text do that.",
        "name the model's tokenizer, draft model and any proxy, or make a second run"),
    # --- documents
    "document-differs": (ERROR,
        "hardware.json, metadata.json or run.md is not what the evidence and your declared values "
        "give. Only your notes in run.md are free.",
        "write them again, with your notes: python3 harness/complete_submission.py FOLDER; to "
        "correct a value of the machine, declare it, such as --set hardware.cpu.model_name=NAME"),
    "attestation-missing": (ERROR, "The privacy attestation in run.md is not ticked.",
        "review the files, then tick it as run.md asks"),
    "placeholder-left": (ERROR, "A placeholder is left where a value or your notes belong.",
        "write None., null or what is true: python3 harness/complete_submission.py FOLDER --set "
        "SETTING"),
    "notes-not-plain": (ERROR,
        "Your notes in run.md hold something that GitHub does not show as written, such as HTML, "
        "an image, a formula, a footnote, a link definition or a code block without end.",
        "write plain text, lists, tables and links; put `backticks` around code"),
    "correction-invalid": (ERROR,
        "submissions/CORRECTIONS.json does not match its schema, or names a run, day, key or value "
        "that does not exist.", "fix it as submissions/README.md describes"),
    "hardware-implausible": (WARNING,
        "A value of hardware.json is not plausible, or contradicts the run.",
        "declare what the system reports wrongly, such as --set hardware.memory.capacity_bytes=N, "
        "with complete_submission.py, explain it in run.md, or make a second run"),
    "hostname-published": (WARNING, "manifest.json holds the machine's host name.",
        "to remove it: python3 harness/complete_submission.py FOLDER --set "
        "manifest.host_hostname_short=null"),
    # --- privacy, rankings
    "private-value": (ERROR, "A file holds a private value: a key, address, name or identifier.",
        "remove it, and revoke keys; if the evidence holds it, make the run again"),
    "author-published": (WARNING,
        "Authors or messages of commits of the change have a private value, such as an e-mail "
        "address, which a merge publishes.",
        "git commit --amend --reset-author, after git config user.email with your "
        "noreply address of github.com/settings/emails; or merge with --squash"),
    "private-history": (ERROR,
        "A file in an earlier commit of the change has a private value. The fork keeps it, also "
        "after a squash.",
        "revoke keys; commit the final files once on a new branch from main, open a new pull "
        "request with it, and delete the old branch"),
    "private-answer": (WARNING,
        "Text in an answer looks private. Models also invent addresses and keys.",
        "look at it with check_submission.py --answers FOLDER; invented values may stay"),
    "cells-not-ranked": (INFO,
        "Some results carry flags that keep them out of rankings. They are published anyway.",
        "nothing to do; run.md explains the flags"),
}.items()}


class Finding(NamedTuple):
    """One finding. line: of the file, 0 for none; place: field or part of the file; more: how many
    findings of the same code in the same file are not listed."""

    path: str
    line: int
    code: str
    place: str
    what: str
    more: int = 0

    @property
    def severity(self) -> str:
        """error, warning or info."""
        return CODES[self.code].severity

    def text(self, width: int = WIDE) -> str:
        """Printable lines: severity, code and `path:line`, then what is wrong and its fix."""
        line = f":{self.line}" if self.line else ""
        place = f" ({printable(self.place, LONGEST_PLACE)})" if self.place else ""
        more = f" ({self.more} more like it)" if self.more else ""
        return "\n".join([
            f"{self.severity} {self.code} {printable(self.path, LONGEST_PATH)}{line}{place}",
            *wrapped(f"  {printable(self.what, LONGEST_WHAT)}{more}", width, "  "),
            *with_command(f"fix: {self.fix()}", width)])

    def fix(self) -> str:
        """The remedy with the names of file, folder, run and setting, quoted for this system's
        shell."""
        folder, _, name = self.path.rpartition("/")
        remedy = for_this_system(CODES[self.code].remedy)
        if not folder or not (PLAIN_PATH.fullmatch(self.path) or os.name != "nt"
                              and self.path.isascii() and self.path.isprintable()):
            return remedy
        run = re.search(r"run-([0-9a-f-]{36})\Z", folder)
        names = {"FOLDER": shlex.quote(folder), "FILE": shlex.quote(self.path),
                 "RUN_ID": run[1] if run else "RUN_ID",
                 "SETTING": shlex.quote(f"run_md.{self.place}=None." if name == "run.md" else
                                        f"{name.partition('.')[0]}.{self.place}=null")}
        return re.sub(r"\b(?:FOLDER|FILE|RUN_ID|SETTING)\b", lambda found: names[found[0]], remedy)

    def document(self) -> dict[str, Any]:
        """The finding as JSON; its remedy holds no text of the submission."""
        return {"severity": self.severity, "code": self.code,
                "path": readable(self.path, LONGEST_PATH), "line": self.line or None,
                "place": printable(self.place, LONGEST_PLACE) or None,
                "what": printable(self.what, LONGEST_WHAT), "more": self.more,
                "remedy": CODES[self.code].remedy}


class Report:
    """Findings of many submissions; of each code in each file the first `kept_each` are kept."""

    def __init__(self, kept_each: int = KEPT_EACH) -> None:
        self.kept_each = kept_each
        self._kept: dict[tuple[str, str], list[Finding]] = {}
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, code: str, path: str, what: str, line: int = 0, place: str = "") -> None:
        """Add a finding. Raises KeyError for an unknown code."""
        key = path, CODES[code].name
        self._counts[key] += 1
        kept = self._kept.setdefault(key, [])
        if len(kept) < self.kept_each:
            kept.append(Finding(path, line, code, place[:4 * LONGEST_PLACE],
                                what[:4 * LONGEST_WHAT]))

    def findings(self) -> list[Finding]:
        """All kept findings: errors first, then by path, line and code."""
        found: list[Finding] = []
        for key, kept in self._kept.items():
            found += kept[:-1] + [kept[-1]._replace(more=self._counts[key] - len(kept))]
        return sorted(found, key=lambda one: (SEVERITIES.index(one.severity), one))

    def counts(self) -> dict[str, int]:
        """Findings per severity, including those that are not kept."""
        found = dict.fromkeys(SEVERITIES, 0)
        for (_, code), count in self._counts.items():
            found[CODES[code].severity] += count
        return found

    def exit_code(self) -> int:
        """1 if there are errors, else 0."""
        return int(self.counts()[ERROR] > 0)

    def text(self, checked: int, noun: str = "submission", width: int = WIDE) -> str:
        """All findings and a line with their counts. checked: number of `noun`s."""
        counts = self.counts()
        total = ", ".join(_plural(counts[severity], severity) for severity in (ERROR, WARNING))
        return "\n".join([*(one.text(width) for one in self.findings()),
                          f"{_plural(checked, noun)} checked: {total}"])

    def json(self, checked: int) -> str:
        """All findings as one JSON document in ASCII."""
        return json.dumps({"submissions": checked, "counts": self.counts(),
                           "findings": [one.document() for one in self.findings()],
                           "exit_code": self.exit_code()}, indent=1)


def _plural(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


class Notes(NamedTuple):
    """A report with a path: `notes.of("run.jsonl").add(code, what, line, place)`."""

    report: Report
    path: str

    def of(self, name: str) -> Notes:
        """Notes of a file in the folder."""
        return Notes(self.report, f"{self.path}/{name}")

    def add(self, code: str, what: str, line: int = 0, place: str = "") -> None:
        self.report.add(code, self.path, what, line, place)

    def add_all(self, problems: Iterable[Any]) -> None:
        """Add findings, each a tuple of the arguments of `add`."""
        for problem in problems:
            self.add(*problem)


def explain(code: Code, width: int = WIDE) -> str:
    """An entry of CODES as text."""
    body = (code.text, f"fix: {code.remedy}")
    return "\n".join([f"{code.name} ({code.severity})",
                      *(row for text in body for row in wrapped(f"  {text}", width, "  "))])
