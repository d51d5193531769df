"""What the submission check can find, as one table, and the report that findings are put into.

A code's name says what is wrong. Its severity says what follows: an error keeps a submission out,
a warning asks a person to look or the contributor for a second run, an info tells. `why` is the
reason that no honest run has it, or, for a warning, which honest run may have it.

    CODES             the table; the documents are rendered from it (check_markdown)
    Report            findings of many submissions, sorted, as text or as one JSON document
    Notes             a Report with a submission's path in front
"""
from __future__ import annotations

import json
from collections import Counter
from typing import Any, NamedTuple, Optional

from core.text import printable

ERROR, WARNING, INFO = "error", "warning", "info"
SEVERITIES = (ERROR, WARNING, INFO)
GROUPS = {
    "files": "names, kinds and sizes of files, and how they parse",
    "provenance": "whose run it is, and with what it was made",
    "ledger": "the ledger's lines against each other, the plan and the suites",
    "time": "clocks and marks",
    "physics": "what no machine of this kind can do; warnings that ask for a second run",
    "authenticity": "signs of invention and of copying",
    "disclosure": "what is said of the machine, the server and the numbers",
    "privacy": "what must not be published",
    "statistics": "how much the numbers bear",
}
KEPT_EACH = 3             # findings of one code in one file; the rest is counted
LONGEST_WHAT = 300
LONGEST_PLACE = 160


class Code(NamedTuple):
    """One thing that can be found."""

    name: str
    group: str
    severity: str
    text: str
    why: str
    remedy: str


# What is to be done, where it is often the same.
LEDGER_AGAIN = "take run.jsonl again as the run wrote it"
MANIFEST_AGAIN = "take manifest.json again as the run wrote it"
RELEASED = "run with a released harness"
SECOND_RUN = "make a second run"
NOTHING = "none needed"

CODES: dict[str, Code] = {code.name: code for code in (
    # --- files
    Code("file-missing", "files", ERROR, "One of the five files is not there.",
         "The runner writes two of them, complete_submission.py the other three.",
         "python3 harness/complete_submission.py FOLDER writes what is missing"),
    Code("file-unexpected", "files", ERROR, "Something lies there that is none of the five files.",
         "Nothing of ours writes it; systems leave such files (.DS_Store), and so do crashes.",
         "move it out of the folder"),
    Code("file-not-regular", "files", ERROR, "It is no plain file or folder.",
         "A link would lead a reader out of the folder; nothing of ours makes one.",
         "put the file itself there"),
    Code("file-mode", "files", ERROR, "Git has it with another mode than 100644.",
         "A link, a submodule or a program has no place among data. Windows and WSL set the mode "
         "of programs by mistake.", "git update-index --chmod=-x FILE, then commit again"),
    Code("file-too-large", "files", ERROR, "It is larger than any run makes it.",
         "manifest, hardware and metadata stay under 1 MiB and run.md under 256 KiB by far; a "
         "ledger of every phase has 1 to 3 MB a model and repeat, and may have 32 MiB.",
         "run fewer models or repeats at a time; every run is a submission of its own"),
    Code("file-unreadable", "files", ERROR, "It cannot be read.",
         "A file without permission, or a blob that was left out of the clone for its size.",
         "make it readable, or fetch the whole history"),
    Code("folder-name", "files", ERROR,
         "The folder is not submissions/<handle>/<device-tag>/run-<uuid>.",
         "The runner names it; what was moved is not found again.",
         "name it as manifest.json does: handle, device tag, run-<run id>"),
    Code("path-outside", "files", ERROR, "A path is changed that belongs to no submission.",
         "A pull request brings either submissions or changes of the project, so that the first "
         "can be merged without being run.",
         "take it out of this pull request, and propose it in one of its own"),
    Code("path-changed", "files", ERROR, "A file that was merged is changed, renamed or deleted.",
         "Evidence is added to, never rewritten.",
         "leave it as it is; a wrong submission is annotated by a maintainer: open an issue"),
    Code("too-many-files", "files", ERROR, "More files than one person can look at.",
         "Twelve submissions have 60.", "split the pull request"),
    Code("json-not-strict", "files", ERROR,
         "The bytes are no JSON, or readers would disagree on it.",
         "NaN, 1e999, a key twice, broken UTF-8, half a surrogate pair, deep nesting: no program "
         "of ours writes them.", "take the file again as it was written"),
    Code("json-too-complex", "files", ERROR, "More values than any run writes.",
         "A cap ahead of the parser, far above the largest real files.",
         "take the file again as it was written"),
    Code("line-too-long", "files", ERROR, "A ledger line is longer than any call makes it.",
         "An answer of 100,000 tokens with its times has about 1.2 MB; the cap is 4 MiB.",
         "run again with a smaller --num-predict"),
    Code("line-not-canonical", "files", ERROR,
         "A ledger line is not written as the runner writes it.",
         "Keys in the schema's order, no blanks, a newline at each end: an editor or git's "
         "autocrlf changed it.",
         "take run.jsonl again as the run wrote it; git config core.autocrlf false"),
    Code("schema", "files", ERROR, "A value is missing, unknown or of another kind.",
         "What is written by the programs fits their own schemas.",
         "see harness/schemas; take the file again as it was written"),
    Code("text-invisible", "files", ERROR, "Characters that are not seen, or that turn the text.",
         "They hide words from a reviewer, and no value here needs one.",
         "type the value again with plain characters"),
    Code("answer-invisible", "files", WARNING,
         "A model's answer holds characters that are not seen, or that turn the text.",
         "Right-to-left languages and emoji need some of them; else they may hide instructions to "
         "whoever reads the ledger.", "look at the answer in a viewer that shows them"),
    Code("ids-differ", "files", ERROR, "Folder, manifest, ledger and metadata name different runs.",
         "All of them are written by one run.", "put together the files of one run"),
    Code("check-broken", "files", ERROR, "The check itself failed on this submission.",
         "No file should be able to do that: it is a defect of the check.",
         "open an issue with the folder's name"),
    Code("no-submission", "files", INFO, "There is no submission to check.",
         "A change of the project itself, or an empty folder.", NOTHING),
    # --- provenance
    Code("release-unknown", "provenance", ERROR, "There is no such release of the harness.",
         "Released versions stand in releases.py, and old ones stay valid.", RELEASED),
    Code("harness-modified", "provenance", ERROR,
         "A program or suite is not the one of the release.",
         "Hashes are taken of the files that ran, and .gitattributes keeps their bytes on every "
         "system.", "git checkout the release, and run again"),
    Code("harness-unpinned", "provenance", INFO,
         "The table of releases does not hold the programs' hashes yet; only prompts and suites "
         "were compared.",
         "So it is between two releases.", NOTHING),
    Code("harness-dirty", "provenance", WARNING,
         "The harness differed from its commit, and its release pins no programs.",
         "A development version; where the release pins its programs, their hashes decide instead.",
         RELEASED),
    Code("suite-not-here", "provenance", INFO,
         "The run used other suites than those of this checkout; requests were not rebuilt.",
         "A run of an older release.", "check it with the harness of that release"),
    Code("synthetic-run", "provenance", ERROR, "A rehearsal, or made up.",
         "It measured the embedded endpoint, and says so itself.",
         "run against a real model server"),
    Code("smoke-run", "provenance", ERROR, "A smoke run: one hello and nothing else.",
         "It has no number to publish.", "run without --smoke"),
    Code("example", "provenance", INFO, "The example of submissions/EXAMPLE; no measurement.",
         "It shows the shapes and is marked as such.", NOTHING),
    Code("unnamed", "provenance", ERROR, "Handle, device tag or prefix is still a stand-in.",
         "unnamed, unnamed-device and local: are what a run has without those flags.",
         "run with --submitter-handle and --device-tag"),
    Code("name-refused", "provenance", ERROR, "Handle, device tag or prefix cannot be a name here.",
         "The runner refuses the same before its first call.",
         "run with the names that the message proposes"),
    Code("handle-not-author", "provenance", ERROR, "The handle is not the login of the author.",
         "Nobody publishes in another's name. Logins are compared in lower case.",
         "run with --submitter-handle and your own login"),
    Code("run-id-taken", "provenance", ERROR, "Another submission has the same run id.",
         "Ids are random; two equal ones are one run filed twice.",
         "submit a run once, in one folder"),
    Code("canonical-differ", "provenance", ERROR, "canonical_options are not those of the release.",
         "They are constants of the runner; deviations stand in canonical_options_overrides.",
         RELEASED),
    Code("options-overridden", "provenance", INFO, "Options differ from the canonical ones.",
         "Allowed and recorded; such a run is compared with its like only.", NOTHING),
    Code("plan-differs", "provenance", ERROR, "The plan is not the one that its own numbers give.",
         "The runner makes it from phases, lanes, repeats, num_predict and the suites.",
         MANIFEST_AGAIN),
    Code("manifest-differs", "provenance", ERROR, "Values of the manifest contradict each other.",
         "They follow from each other in the runner.", MANIFEST_AGAIN),
    Code("manifest-unsealed", "provenance", ERROR, "The ledger was begun with another manifest.",
         "Its first line holds the manifest's hash, in which the host name counts as null.",
         MANIFEST_AGAIN),
    Code("server-changed", "provenance", WARNING,
         "Engine, model, fingerprint or its facts changed during the run.",
         "A server that was updated between two resumes, or a router with several behind it.",
         "make a second run against one server"),
    Code("endpoint-remote", "provenance", INFO,
         "The server's address was none of loopback: another machine's, or this one's own.",
         "Allowed; hardware.json then has to describe the server's machine, or tell of it.",
         NOTHING),
    # --- ledger
    Code("ledger-start", "ledger", ERROR, "The ledger does not begin with run_started, or has two.",
         "It is the first line that a run writes, and the only one of its kind.", LEDGER_AGAIN),
    Code("ledger-gap", "ledger", ERROR, "seq does not count 0, 1, 2, ...",
         "A resume goes on where the run was.", LEDGER_AGAIN),
    Code("ledger-unfinished", "ledger", ERROR, "The last line is not run_finished.",
         "A run can be taken up at any time; one that was stopped where it pleased is no evidence.",
         "python3 harness/run_benchmark.py --run-id ID"),
    Code("ledger-unsealed", "ledger", ERROR,
         "run_finished does not fit the bytes before it (lines or sha256).",
         "The runner hashes what it wrote.", LEDGER_AGAIN),
    Code("finish-differs", "ledger", ERROR,
         "run_finished tells other counts, time or exit code than the lines before it.",
         "It is computed from them.", LEDGER_AGAIN),
    Code("segment-order", "ledger", ERROR, "Segments do not follow each other.",
         "Each resume adds one with run_resumed as its first line, and a line that ends a segment "
         "is its last.", LEDGER_AGAIN),
    Code("event-order", "ledger", ERROR, "A line stands where the runner does not write it.",
         "Calibration, identification, hello, phases in their order, the cache probe: a fixed "
         "order.", LEDGER_AGAIN),
    Code("model-unknown", "ledger", ERROR,
         "A line is about a model that the run does not have, or skips one that it has.",
         "Models are settled before the first line.", LEDGER_AGAIN),
    Code("cell-missing", "ledger", ERROR, "A planned call has no line.",
         "Failures get a line, too, and so do turns beyond the context's edge.",
         "python3 harness/run_benchmark.py --run-id ID"),
    Code("cell-unplanned", "ledger", ERROR, "A call that is not in the plan.",
         "The runner asks by the plan alone.", LEDGER_AGAIN),
    Code("cell-differs", "ledger", ERROR,
         "A call's cell id, model, question, repeat, lane or cold is not as the plan deals it.",
         "Questions are dealt to lanes in order.", LEDGER_AGAIN),
    Code("cell-repeated", "ledger", ERROR,
         "A call was made again though it had an answer, or twice in one segment.",
         "The runner asks again only what failed, and only after a resume.",
         "submit the run as it was; a better second run is a submission of its own"),
    Code("call-order", "ledger", ERROR, "A lane's calls are not in the plan's order.",
         "A lane asks its next question when the last one has ended.", LEDGER_AGAIN),
    Code("hello-missing", "ledger", ERROR, "A model was asked before its hello of this segment.",
         "The hello takes the model's load out of the numbers.", LEDGER_AGAIN),
    Code("phase-skip-differs", "ledger", ERROR,
         "A phase is skipped that can run, or not told to be.",
         "Only parallel_mixed with one model or one lane is skipped, and a line says so.",
         LEDGER_AGAIN),
    Code("phase-finished-differs", "ledger", ERROR,
         "phase_finished does not fit its phase's calls.",
         "It is counted from them, in every segment that asked any.", LEDGER_AGAIN),
    Code("request-differs", "ledger", ERROR, "The messages are not those that the suites give.",
         "Prompt, hash, characters and count are rebuilt, a growing conversation from its answers.",
         RELEASED),
    Code("options-differ", "ledger", ERROR,
         "The request's options, salt or dropped fields are not as the plan says.",
         "They follow from plan, overrides, engine and prompt-cache policy.", LEDGER_AGAIN),
    Code("salt-repeated", "ledger", ERROR, "Two calls carry the same salt.",
         "Each call gets a random one, so that no cached prefix fits; a conversation keeps its "
         "own.", LEDGER_AGAIN),
    Code("outcome-differs", "ledger", ERROR, "Outcome, response and error contradict each other.",
         "An answer has status 200 and a reason why it ended, a failure has an error.",
         LEDGER_AGAIN),
    Code("checks-differ", "ledger", ERROR, "The answer's checks come out otherwise.",
         "They are scored again from the text, by the same code, alike on every Python.",
         LEDGER_AGAIN),
    Code("reasoning-differs", "ledger", ERROR,
         "The count of reasoning does not fit texts and chunks.",
         "It is counted from them.", LEDGER_AGAIN),
    Code("truncated-differs", "ledger", ERROR, "The verdict on a cut prompt comes out otherwise.",
         "It follows from usage and the calls before.", LEDGER_AGAIN),
    Code("call-flags-differ", "ledger", ERROR, "A call's flags are not what its response shows.",
         "model_mismatch is told from the model named in the response.", LEDGER_AGAIN),
    Code("cache-probe-differs", "ledger", ERROR,
         "The verdict on the prompt cache comes out otherwise, or is missing.",
         "It follows from the probes and the longest prompt of one lane.", LEDGER_AGAIN),
    Code("calibration-differs", "ledger", ERROR, "The calibration's numbers contradict each other.",
         "It measures at one lane and at the run's most; percentiles ascend.", LEDGER_AGAIN),
    Code("context-differs", "ledger", ERROR,
         "The context asked for, or told before the run, is not the manifest's.",
         "Both come from the same answers of the server.", LEDGER_AGAIN),
    Code("resume-differs", "ledger", ERROR, "run_resumed does not fit the torn line that it keeps.",
         "Its bytes are counted.", LEDGER_AGAIN),
    # --- time
    Code("clock-backwards", "time", ERROR, "t_us goes back within a segment.",
         "It is a monotonic clock, read under the lock that orders the lines.", LEDGER_AGAIN),
    Code("marks-out-of-order", "time", ERROR, "A call's marks are not in the order of things.",
         "Header, first byte, first text, last text, end: stamps never go back.", LEDGER_AGAIN),
    Code("chunks-differ", "time", ERROR, "Chunks, kinds and reads do not fit the marks or texts.",
         "The gaps sum up to the last mark, kinds count the chunks, no chunk is without text.",
         LEDGER_AGAIN),
    Code("stamps-differ", "time", ERROR, "read_lag_us does not fit the stamps.",
         "Kernel stamps carry the reader's lag of every read, user stamps none.", LEDGER_AGAIN),
    Code("bytes-too-few", "time", ERROR, "Fewer bytes arrived than the text needs.",
         "Each character takes a byte, and each chunk its JSON.", LEDGER_AGAIN),
    Code("time-overlap-on-one-lane", "time", ERROR,
         "A call began before the lane's last one was recorded.",
         "A lane's line is on disk before its next call starts.", LEDGER_AGAIN),
    Code("call-outside-phase", "time", ERROR,
         "A call began before its phase, or ended after its own line.",
         "A phase begins when the one before is recorded; a line is written after the call.",
         LEDGER_AGAIN),
    Code("attempts-differ", "time", ERROR,
         "Earlier tries are not in order, or of no kind that is tried again.",
         "Only 429, 503 and refused fields are, one after the other, before the call.",
         LEDGER_AGAIN),
    Code("call-outlasts-timeout", "time", WARNING, "A call took longer than its own cap.",
         "A machine that slept in the middle of a call does that.", "keep the machine awake"),
    Code("wall-clock-jump", "time", WARNING, "Wall clock and monotonic clock went apart.",
         "A machine that slept, or a clock that was set during the run.",
         "keep the machine awake and let its clock settle, then make a second run"),
    Code("time-in-future", "time", ERROR, "The run lies in the future.",
         "A day is spared for clocks that are wrong.", "set the machine's clock, and run again"),
    # --- physics
    Code("decode-over-bandwidth", "physics", WARNING,
         "Tokens came faster than the memory can deliver the weights.",
         "Each token reads all weights once. Left out: mixtures of experts, drafts, weights that "
         "fit the caches. A wrong size, bandwidth or share of offload does it, too.",
         "see to file_bytes, bandwidth and gpu_offload_ratio, name a draft model, or make a "
         "second run"),
    Code("prefill-over-compute", "physics", WARNING,
         "Prompts were read faster than these processors can compute.",
         "Judged on CPUs alone, by the most that their instruction sets can do. A prompt cache "
         "does it, too.", "see to parameters_count and backend, or make a second run"),
    Code("weights-over-memory", "physics", WARNING,
         "The weights are larger than all memory of the machine.",
         "Weights that are read from the disk again and again, slowly.",
         "see to file_bytes and the memory's size"),
    Code("tokens-over-context", "physics", WARNING,
         "Prompt and answer are longer than the context in force.",
         "A server that shifts its context.", "see to context_effective_tokens"),
    Code("server-timings-differ", "physics", WARNING,
         "The server's own timings are far from what the client saw.",
         "A proxy or a slow network lies in between.", "say so in run.md, or make a second run"),
    # --- authenticity
    Code("timing-copied", "authenticity", ERROR,
         "The times of a call are, to the microsecond, those of a call in another submission.",
         "Sixteen gaps or more do not come out alike twice.", "submit your own run"),
    Code("answers-copied", "authenticity", WARNING,
         "Nearly all long answers are those of another submission.",
         "At temperature 0 the same model on the same kind of machine may honestly give them "
         "again.", "say in run.md that the temperature was 0, or make a second run"),
    Code("usage-differs", "authenticity", WARNING, "The server's own counts contradict each other.",
         "Some gateways count a total that holds thinking which completion_tokens does not.",
         "name server and proxy in run.md, or make a second run without a proxy"),
    Code("answers-cut", "authenticity", WARNING,
         "Answers ended by their length, though not at the length that was asked for.",
         "Some servers, and scripts that start them, have a limit of their own; the rates hold, "
         "and the answers are shorter than those of others.",
         "start the server without its own limit and run again, or say in run.md that it has one"),
    Code("answers-equal", "authenticity", WARNING, "Different questions got the same long answer.",
         "A very small model may fall into the same loop twice.", SECOND_RUN),
    Code("timings-equal", "authenticity", WARNING, "Two calls have the same times.",
         "Not known from any server; a rehearsal on a clock of low resolution comes near.",
         SECOND_RUN),
    Code("gaps-too-even", "authenticity", WARNING, "Gaps between chunks have no jitter.",
         "A clock of low resolution does that; the calibration tells of it, and then it is left "
         "out.", SECOND_RUN),
    Code("rates-too-even", "authenticity", WARNING, "All answers came at the same rate.",
         "Not known from any server; special chips come near.", SECOND_RUN),
    Code("times-round", "authenticity", WARNING,
         "Times are round numbers, or their last digits are not evenly spread.",
         "A clock of low resolution does that; the calibration tells of it, and then it is left "
         "out.", SECOND_RUN),
    Code("tokens-implausible", "authenticity", WARNING,
         "Characters for each token are more or fewer than any tokenizer gives.",
         "A model of another script than ours, or a server that counts wrongly.",
         "name the model's tokenizer in run.md, or make a second run"),
    Code("chunks-exceed-tokens", "authenticity", WARNING, "There are more chunks than tokens.",
         "A proxy that cuts text by the character does that.", "make a second run without a proxy"),
    # --- disclosure
    Code("metadata-differs", "disclosure", ERROR, "metadata.json is not what the evidence gives.",
         "It is built again from manifest, ledger and hardware.json by the same code, to the last "
         "digit.", "python3 harness/complete_submission.py FOLDER writes it again"),
    Code("run-md-differs", "disclosure", ERROR, "run.md is not the rendering of the numbers.",
         "Only the contributor's own words differ from it.",
         "python3 harness/complete_submission.py FOLDER writes it again and keeps your words"),
    Code("attestation-missing", "disclosure", ERROR, "run.md lacks the privacy attestation.",
         "It is the contributor's word that the files were read.",
         "read the files, then state it as run.md asks"),
    Code("placeholder-left", "disclosure", ERROR,
         "A stand-in was left where a value or words belong.",
         "A stand-in is worse than null with a reason.",
         "write your words, or give the value with complete_submission.py --set, or null"),
    Code("words-not-plain", "disclosure", ERROR,
         "The contributor's words hold HTML, an image or the definition of a link.",
         "A rendered page hides what stands in them from whoever reviews it.",
         "write plain text, lists and links"),
    Code("hardware-odd", "disclosure", WARNING, "A value of hardware.json cannot well be true.",
         "Firmware that tells nonsense; rare machines.", "see to it, and declare the true value"),
    Code("hardware-contradicts", "disclosure", WARNING,
         "hardware.json and the run tell of different machines.",
         "A Python for another architecture, or a description made on another machine.",
         "run complete_submission.py on the machine that was measured"),
    Code("hostname-published", "disclosure", WARNING, "manifest.json holds the machine's name.",
         "It is the runner's default, and the contributor's to leave out.",
         "complete_submission.py --set manifest.host_hostname_short=null takes it out"),
    # --- privacy
    Code("private-disclosure", "privacy", ERROR, "Something private stands in what is disclosed.",
         "Patterns of keys, addresses, names and identifiers, each with its near misses tested.",
         "take it out, revoke a key, and make the run again if the evidence holds it"),
    Code("private-answer", "privacy", WARNING, "Something in an answer looks private.",
         "Models write sample addresses and keys.", "look at it; made-up values may stay"),
    # --- statistics
    Code("cells-not-ranked", "statistics", INFO,
         "Some cells carry flags that keep them out of rankings.",
         "They are published all the same; the flags stand in metadata.json.",
         "see harness/README.md for what each flag asks"),
)}


class Finding(NamedTuple):
    """One thing found. line: of the file, 0 where that says nothing; place: inside the line or
    document, in words; count: how many more of the code the file has."""

    path: str
    line: int
    code: str
    place: str
    what: str
    more: int = 0

    @property
    def severity(self) -> str:
        """As the table says."""
        return CODES[self.code].severity

    def where(self) -> str:
        """`path:line place`, harmless to print."""
        line = f":{self.line}" if self.line else ""
        place = f" {printable(self.place, LONGEST_PLACE)}" if self.place else ""
        return printable(self.path, LONGEST_PLACE) + line + place

    def text(self) -> str:
        """The line that people read."""
        more = f" (and {self.more} more like it)" if self.more else ""
        return (f"{self.severity} {self.code} {self.where()}: "
                f"{printable(self.what, LONGEST_WHAT)}{more}; {CODES[self.code].remedy}")

    def document(self) -> dict[str, Any]:
        """The same for programs."""
        return {"severity": self.severity, "code": self.code,
                "path": printable(self.path, LONGEST_PLACE), "line": self.line or None,
                "place": printable(self.place, LONGEST_PLACE) or None,
                "what": printable(self.what, LONGEST_WHAT), "more": self.more,
                "remedy": CODES[self.code].remedy}


class Report:
    """Findings as they come; of one code in one file the first few are kept, the rest counted."""

    def __init__(self, kept_each: int = KEPT_EACH) -> None:
        self.kept_each = kept_each
        self._kept: dict[tuple[str, str], list[Finding]] = {}
        self._counts: Counter[tuple[str, str]] = Counter()

    def add(self, code: str, path: str, what: str, line: int = 0, place: str = "") -> None:
        """Take one up; raises KeyError for a code that is not in the table."""
        if code not in CODES:
            raise KeyError(code)
        self._counts[path, code] += 1
        kept = self._kept.setdefault((path, code), [])
        if len(kept) < self.kept_each:
            kept.append(Finding(path, line, code, place[:4 * LONGEST_PLACE],
                                what[:4 * LONGEST_WHAT]))

    def findings(self) -> list[Finding]:
        """Errors first, then warnings; within them by path, line and code."""
        out = []
        for key, kept in self._kept.items():
            out += kept[:-1] + [kept[-1]._replace(more=self._counts[key] - len(kept))]
        return sorted(out, key=lambda f: (SEVERITIES.index(f.severity), f))

    def codes(self) -> list[str]:
        """Every code found, sorted."""
        return sorted({code for _, code in self._kept})

    def counts(self) -> dict[str, int]:
        """How many findings of each severity, those that were only counted included."""
        found = dict.fromkeys(SEVERITIES, 0)
        for (_, code), count in self._counts.items():
            found[CODES[code].severity] += count
        return found

    def exit_code(self) -> int:
        """0 without errors, else 1."""
        return int(self.counts()[ERROR] > 0)

    def text(self, checked: int, noun: str = "submission") -> str:
        """One finding a line, and what it comes to; checked: how many nouns were looked at."""
        counts = self.counts()
        total = ", ".join(_plural(counts[severity], severity) for severity in (ERROR, WARNING))
        return "\n".join([f.text() for f in self.findings()]
                         + [f"{_plural(checked, noun)} checked: {total}"])

    def json(self, checked: int) -> str:
        """The same as one JSON document in ASCII."""
        return json.dumps({"submissions": checked, "counts": self.counts(),
                           "findings": [f.document() for f in self.findings()],
                           "exit_code": self.exit_code()}, indent=1)


def _plural(count: int, noun: str) -> str:
    return f"{count or 'no'} {noun}{'' if count == 1 else 's'}"


class Notes(NamedTuple):
    """A report with a path in front: `notes.of("run.jsonl").add(code, what, line, place)`."""

    report: Report
    path: str

    def of(self, name: str) -> Notes:
        """Notes of a file of the folder."""
        return Notes(self.report, f"{self.path}/{name}")

    def add(self, code: str, what: str, line: int = 0, place: str = "") -> None:
        """Take up a finding."""
        self.report.add(code, self.path, what, line, place)

    def unless(self, holds: Optional[bool], code: str, what: str, line: int = 0,
               place: str = "") -> bool:
        """Take up a finding unless something holds; whether it does."""
        if not holds:
            self.add(code, what, line, place)
        return bool(holds)


def check_markdown() -> str:
    """CODES as a Markdown table; the documents hold it byte for byte."""
    rows = ["| code | severity | what it says | why no honest run has it | what to do |",
            "| --- | --- | --- | --- | --- |"]
    for group, about in GROUPS.items():
        rows.append(f"| **{group}** | | {about} | | |")
        rows += [f"| `{c.name}` | {c.severity} | {c.text} | {c.why} | {c.remedy} |"
                 for c in CODES.values() if c.group == group]
    return "\n".join(rows) + "\n"
