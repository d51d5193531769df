"""Check the order of ledger lines, their times, and that each planned call has one line.

A segment is what one process wrote: run_started or run_resumed, the machine, the calibration, each
model identified once, then groups of calls. A group is one phase of one model (parallel_mixed: of
all models) and ends with phase_finished; only the last group of a process that was stopped may lack
it. Groups may come in any order, since a retry asks only what failed, but a model's hello comes
before its other calls. Lines are written under one lock, so their times ascend.
"""
from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from typing import Any, Optional, Union

from check import calls, findings
from complete import declared
from core import curve_levels, ledger, metrics, plan, records, schema
from core.plan import Cell, cell_id_of, skip_reason
from core.records import LedgerLine, Manifest
from core.suites import ADDED, PHASES
from run import calibration, state

Key = tuple[Optional[str], str]       # model (None: all models) and phase

MAX_FOUND = 300                       # a hostile ledger is not read further
MAX_SEGMENTS = 200                    # hours in a shell that ends commands after minutes have 100
TIMEOUT_SPARE_US = 5_000_000          # a read that ends late; a machine that sleeps takes longer
EARLY_RATIO = 0.98                    # of the timeout, by a clock with coarse steps
JUMP_US, JUMP_RATIO = 2_000_000, 0.001
ODD_US = 4_000                        # `at` is in milliseconds
# The clock of t_us is read after that of `at`: a busy machine may be late in between, never early.
EARLY_US = 10_000
APART_US = 50_000                     # between both clocks of a line; 20 ms in runs at load 10
PREPARATION_US = 600_000_000          # between the manifest and the first line: a slow server
WITHIN_GROUPS = ("call_finished", "host_sampled", "curve_ended")
INSIDE_GROUPS = (*WITHIN_GROUPS, "phase_finished", "run_interrupted")
ROUNDED_RATIO = 0.95          # of a time that was rounded up to two digits
MIN_SAMPLE_GAP_US = 4_500_000         # 0.9 of the time between two samples of the host


def walk(manifest: Manifest, events: list[LedgerLine], seals: dict[int, str],
         suites: Optional[calls.Suites], notes: findings.Notes) -> bool:
    """Add all findings on a ledger; False if the rest was not read. seals: line number of each
    run_finished -> SHA-256 of the bytes before it."""
    walker = Walker(manifest, events, seals, suites, notes)
    for event in events:
        walker.take(event)
        if walker.found > MAX_FOUND or walker.segment.number > MAX_SEGMENTS:
            walker.note(f"over {MAX_FOUND} findings or {MAX_SEGMENTS} segments; the lines that "
                        "follow were not checked", "file-malformed")
            return False
    walker.end()
    return True


class Segment:
    """What one process has written so far; times are t_us of its clock. barrier_us: of the last
    line that is neither call nor sample; group: calls since then; lanes_us, places: time and place
    in the plan of each lane's last call in the group; hellos: model -> cell id."""

    def __init__(self, number: int, first_line: int) -> None:
        self.number, self.first_line = number, first_line
        self.t_us = self.barrier_us = 0
        self.has_ended = self.has_machine = self.is_calibrated = False
        self.identified: list[str] = []
        self.identified_again: set[str] = set()
        self.hellos: dict[str, str] = {}
        self.asked: set[str] = set()
        self.finished: list[Key] = []
        self.group: list[records.CallFinished] = []
        self.lanes_us: dict[int, int] = {}
        self.places: dict[int, int] = {}
        self.samples_us: list[int] = []


class Walker:
    """Reads a ledger line by line."""

    def __init__(self, manifest: Manifest, events: list[LedgerLine], seals: dict[int, str],
                 suites: Optional[calls.Suites], notes: findings.Notes) -> None:
        self.events, self.seals, self.notes = events, seals, notes
        self.manifest_sha256 = ledger.manifest_sha256(manifest)
        self.segment, self.models = Segment(0, 1), manifest["models"]
        self.is_rounded = "clock_origin_ns" not in events[0]      # earlier versions did not
        self.line = self.found = 0
        self.taken: list[LedgerLine] = []     # lines as planned, for the state after a resume
        self.finished: set[Key] = set()
        self.probed: set[str] = set()
        self.skipped: set[str] = set()
        self._plan(manifest, calls.Replay(manifest, suites))

    def _plan(self, manifest: Manifest, replay: calls.Replay) -> None:
        """Take over a plan: the manifest's, or one to which phases were added."""
        self.manifest, self.replay = manifest, replay
        mixed = [name for name in self.replay.phases if PHASES[name].kind == "mixed"]
        self.skip_reasons = {name: skip_reason(name, self.models, manifest["plan"]["lanes"])
                             for name in mixed}
        keys: list[Key] = [(model, name) for model in self.models
                           for name in self.replay.own_phases()]
        keys += [(None, name) for name in mixed if not self.skip_reasons[name]]
        self.cells = {key: self.replay.cells(key[1], [key[0]] if key[0] else self.models)
                      for key in keys}
        self.places = {cell.cell_id: (cell, key, at) for key, cells in self.cells.items()
                       for at, cell in enumerate(cells)}

    def note(self, what: str, code: str = "ledger-altered") -> None:
        self.found += 1
        event = self.events[self.line - 1]["event"] if self.line else ""
        self.notes.add(code, what, self.line, event)

    def note_all(self, whats: Iterable[str]) -> None:
        """Add findings on the current line, as far as they are altered lines."""
        for what in whats:
            self.note(what)

    # -- every line
    def take(self, event: LedgerLine) -> None:
        self.line += 1
        if event["seq"] != self.line - 1:
            self.note(f"seq is {event['seq']}, expected {self.line - 1}: a line is missing, "
                      "repeated or at another place")
        if event["run_id"] != self.manifest["run_id"]:
            self.note(f"run_id is {event['run_id']}", "ids-differ")
        if (event["event"] == "run_started") != (self.line == 1):
            self.note("run_started has to be the first line, and only that")
        if event["event"] == "run_resumed":
            if event["segment"] != self.segment.number + 1:
                self.note(f"segment is {event['segment']} after {self.segment.number}")
            self.segment = Segment(event["segment"], self.line)
            self.replay = self.replay.resumed(self.taken)
        elif event["segment"] != self.segment.number:
            self.note(f"segment is {event['segment']} without run_resumed")
        elif self.segment.has_ended:
            self.note(f"segment {self.segment.number} has ended already")
        if event["t_us"] < self.segment.t_us:
            self.note(f"t_us is {event['t_us']} after {self.segment.t_us}")
        self.segment.t_us = event["t_us"]
        if self.segment.group and event["event"] not in INSIDE_GROUPS:
            self.note("comes before phase_finished of the calls above")
        self.note_all(calls.more_digits(event) if self.is_rounded else ())
        getattr(self, f"_{event['event']}")(event)
        if event["event"] not in WITHIN_GROUPS:
            self.segment.barrier_us = event["t_us"]
            self.segment.group = []
            self.segment.lanes_us, self.segment.places = {}, {}
        if event["event"] != "call_finished":
            self.taken.append(event)

    # -- begin and end
    def _run_started(self, event: Union[records.RunStarted, records.RunResumed]) -> None:
        if self.is_rounded and event["t_us"]:
            self.note(f"t_us is {event['t_us']}; the segment's clock begins with this line")
        if event["manifest_sha256"] != self.manifest_sha256:
            self.note("manifest_sha256 is not the hash of manifest.json", "manifest-altered")

    def _run_resumed(self, event: records.RunResumed) -> None:
        self._run_started(event)
        try:
            torn = base64.b64decode(event["torn_base64"] or "", validate=True)
        except (binascii.Error, ValueError):
            torn = b""
        if len(torn) != event["torn_bytes"] or (event["torn_base64"] is None) == bool(torn) \
                or torn and event["newline_added"]:
            self.note(f"torn_bytes is {event['torn_bytes']}, torn_base64 has {len(torn)}, "
                      f"newline_added is {str(event['newline_added']).lower()}")

    def _run_interrupted(self, event: records.RunInterrupted) -> None:
        in_flight, segment = event["in_flight"], self.segment
        if sorted(set(in_flight)) != in_flight or set(in_flight) & segment.asked \
                or None in map(self._planned, in_flight):
            self.note(f"in_flight {schema.shown(in_flight)} is not a sorted list of planned calls "
                      "without a line in this segment")
        segment.has_ended = True

    def _run_finished(self, event: records.RunFinished) -> None:
        segment = self.segment
        if segment.has_ended:
            return
        segment.has_ended = True
        if (event["lines"], event["sha256"]) != (self.line - 1, self.seals.get(self.line)):
            self.note(f"lines or sha256 do not match the {self.line - 1} lines before")
        counts = ledger.counts(self.events[:self.line - 1])
        code = int(not self.replay.all_answered())
        if (event["counts"], event["exit_code"]) != (counts, code):
            self.note(f"counts are {schema.shown(event['counts'])} and exit_code is "
                      f"{event['exit_code']}; expected {schema.shown(counts)} and {code}")
        before_us = max([segment.barrier_us, *segment.lanes_us.values()])
        if not before_us <= event["wall_us"] <= event["t_us"]:
            self.note(f"wall_us is {event['wall_us']}, expected {before_us} to {event['t_us']}")

    # -- before the calls
    def _is_ready(self) -> bool:
        return self.segment.identified == self.models and (
            self.segment.is_calibrated or self.manifest["smoke"])

    def _is_first_process(self) -> bool:
        """Also of a second segment, if a crash has torn the very first line."""
        return self.segment.number == 0 or self.segment.number == 1 and self.segment.first_line == 2

    def _machine_identified(self, _: records.MachineIdentified) -> None:
        segment = self.segment
        if segment.has_machine or segment.is_calibrated or self.manifest["smoke"]:
            self.note("the machine is identified once, at the start of a segment")
        segment.has_machine = True

    def _instrument_calibrated(self, event: records.InstrumentCalibrated) -> None:
        segment = self.segment
        if segment.is_calibrated or segment.identified or segment.asked or self.manifest["smoke"]:
            self.note("the calibration comes once, at the start of a segment")
        is_local = self.manifest["target"]["class"] == "loopback"
        if segment.has_machine != (is_local and declared.records_hardware(self.manifest)):
            self.note("machine_identified is missing, or should not be above")
        segment.is_calibrated = True
        self.note_all(calibration_problems(event, plan.calibrated_lanes(self.manifest["plan"]),
                                           event["t_us"] - segment.barrier_us))

    def _endpoint_identified(self, event: records.EndpointIdentified) -> None:
        segment, model = self.segment, event["model"]
        if model not in self.models:
            self.note(f"model {schema.shown(model)} is not in manifest.models")
            return
        is_head = not self._is_ready()
        if is_head:
            if self.models[:len(segment.identified) + 1] != [*segment.identified, model] \
                    or not (segment.is_calibrated or self.manifest["smoke"]):
                self.note(f"{schema.shown(model)} is identified out of turn")
            segment.identified.append(model)
        elif (model, "hello") not in segment.finished[-1:] or model in segment.identified_again \
                or self.manifest["smoke"]:
            self.note(f"{schema.shown(model)} is identified again, but not after its hello")
        segment.identified_again |= set() if is_head else {model}
        self.note_all(self.replay.identified(event, is_head and self._is_first_process()))

    def _model_skipped(self, event: records.ModelSkipped) -> None:
        if event["model"] in (*self.models, *self.skipped) or not self._is_ready() \
                or self.segment.asked or not self._is_first_process():
            self.note(f"model {schema.shown(event['model'])} is in manifest.models, or skipped "
                      "twice, or not before the first call")
        self.skipped.add(event["model"])

    def _host_sampled(self, event: records.HostSampled) -> None:
        """Samples come at any time; only the last one may follow the one before at once."""
        times = self.segment.samples_us
        times.append(event["t_us"])
        self.replay.note_sample(event)
        if len(times) > 2 and times[-2] - times[-3] < MIN_SAMPLE_GAP_US:
            self.note(f"t_us of samples is {times[-3]} and {times[-2]}, too close together")

    # -- phases
    def _phases_added(self, event: records.PhasesAdded) -> None:
        """Phases that a resume adds come right after its first line, and only once each."""
        segment, planned = self.segment, [p["phase"] for p in self.manifest["plan"]["phases"]]
        names = [entry["phase"] for entry in event["phases"]]
        if self.line != segment.first_line + 1 or set(names) & set(planned) \
                or len(set(names)) < len(names) or self.manifest["smoke"] \
                or any(PHASES[name].kind not in ADDED for name in names):
            self.note(f"{', '.join(names)} cannot be added here")
            return
        manifest = plan.with_phases(self.manifest, event["phases"])
        for entry in event["phases"]:
            self.note_all(self.replay.entry_problems(entry))
        self._plan(manifest, self.replay.resumed(self.taken, manifest))

    def _curve_ended(self, event: records.CurveEnded) -> None:
        model, phase, level = event["model"], event["phase"], event["level"]
        if (model, phase) not in self.cells or level not in self.replay.levels_of(phase) \
                or (model, phase) in self.replay.ends \
                or any(_key_of(call) != (model, phase) for call in self.segment.group):
            self.note(f"{phase} of model {schema.shown(model)} cannot end here")
            return
        given = curve_levels.End(level, event["kind"], event["reason"])
        if given.kind == "memory":
            # Of any sample of this segment, since the runner may have written one meanwhile.
            samples: list[Any] = [one for one in self.events[:self.line] if one["event"] ==
                                  "host_sampled" and one["segment"] == self.segment.number]
            expected = next((end for end in (curve_levels.memory_end(level, samples[0], sample)
                                             for sample in samples[1:]) if end == given), None)
        else:
            expected = self.replay.end_after(model, phase, level) \
                or self.replay.end_before(model, phase, level)
        if given != expected and self.replay.has_suites:
            self.note(f"{phase} ends with {schema.shown(list(given))}; expected "
                      f"{schema.shown(list(expected) if expected else None)}")
        self.replay.note_end(event)
        self.taken.append(event)

    def _phase_skipped(self, event: records.PhaseSkipped) -> None:
        name, reason = event["phase"], self.skip_reasons.get(event["phase"])
        if event["model"] is not None or event["reason"] != reason or (None, name) in self.finished:
            self.note(f"{name} cannot be skipped here, or for another reason: "
                      f"{schema.shown(reason)}")
        self.finished.add((None, name))

    def _phase_finished(self, event: records.PhaseFinished) -> None:
        segment, key = self.segment, (event["model"], event["phase"])
        if key not in self.cells:
            self.note(f"phase {event['phase']} of model {schema.shown(event['model'])} is not "
                      "planned")
            return
        made = segment.group
        if key in segment.finished or any(_key_of(call) != key for call in made):
            self.note("repeats a line above, or ends another phase than that of the calls above")
        segment.finished.append(key)
        self.finished.add(key)
        cell_ids = [segment.hellos.get(str(key[0]), "")] if key[1] == "hello" \
            else [cell.cell_id for cell in self.replay.asked(self.cells[key])]
        outcomes = [self.replay.outcomes.get(cell_id) for cell_id in cell_ids]
        given = (event["planned"], event["ok"], event["failed"])
        counted = (len(cell_ids), outcomes.count("ok"), len(cell_ids) - outcomes.count("ok"))
        if given != counted:
            self.note(f"planned, ok and failed are {given}, expected {counted}")
        has_ended = (str(key[0]), key[1]) in self.replay.ends      # maybe before its first call
        if None in outcomes or not made and not has_ended and (
                key[1] == "hello" or not segment.number):
            self.note("comes before calls of its phase")
        if key[0] not in self.replay.failed_hellos:
            self._require_identified(key)
        begun_us = [span[0] for span in map(calls.span_us, made) if span]
        last_us = max([segment.barrier_us, *(call["t_us"] for call in made)])
        end_us = event["started_us"] + event["wall_us"]
        if not segment.barrier_us <= event["started_us"] <= min([*begun_us, end_us]) \
                or not last_us <= end_us <= event["t_us"]:
            self.note(f"started_us and wall_us give {event['started_us']} to {end_us}, its calls "
                      f"took from {segment.barrier_us} to {last_us}")

    def _require_identified(self, key: Key) -> None:
        """A model is identified again between its hello and its other phases."""
        if key[0] and key[1] != "hello" and key[0] not in self.segment.identified_again:
            self.note(f"model {schema.shown(key[0])} was not identified again after its hello")

    def _cache_probed(self, event: records.CacheProbed) -> None:
        model = event["model"]
        own = [key for key in self.cells if key[0] == model]
        if not set(own) <= self.finished or model in self.probed or len(own) < 2 \
                or model not in self.segment.identified_again:
            self.note("the cache is probed once, after all phases of a model of the run")
            return
        self.probed.add(model)
        self.note_all(self.replay.cache_probed(event))
        took_us = sum(probe["first_token_us"] or 0 for probe in event["probes"])
        if self.segment.barrier_us + ROUNDED_RATIO * took_us > event["t_us"]:
            self.note(f"probes took {took_us} us, more than since the line before")

    # -- calls
    def _planned(self, cell_id: str) -> Optional[Cell]:
        """The planned call of that id; after a resume also a model's additional hello."""
        if cell_id in self.places:
            return self.places[cell_id][0]
        number = self.segment.number
        for model in self.models if number else ():
            hello = self.cells[model, "hello"][0]
            added_id = cell_id_of(self.manifest["cell_id_prefix"], model, "hello", "hello", number)
            if added_id == cell_id and hello.cell_id in self.replay.outcomes:
                return hello._replace(repeat=number, cell_id=cell_id)
        return None

    def _call_finished(self, call: records.CallFinished) -> None:
        cell = self._planned(call["cell_id"])
        if cell is None:
            self.note(f"cell_id {schema.shown(call['cell_id'])} is not planned")
            return
        given: dict[str, Any] = dict(call)
        expected = {**cell._asdict(), "cold": state.is_cold(cell, call.get("loaded"))}
        for name, value in expected.items():
            if given.get(name) != value:
                self.note(f"{name} is {schema.shown(given.get(name))}, planned is "
                          f"{schema.shown(value)}")
        call = {**call, **cell.fields(), "cold": expected["cold"]}  # type: ignore[typeddict-item]
        self.note_all(calls.contradictions(call))
        self._check_place(cell, call)
        self._check_times(cell, call)
        self.note_all(self.replay.problems(cell, call))
        self.segment.asked.add(cell.cell_id)
        self.segment.group.append(call)
        self.segment.lanes_us[cell.lane] = call["t_us"]
        self.replay.note_call(cell, call)
        self.taken.append(call)

    def _check_place(self, cell: Cell, call: records.CallFinished) -> None:
        """Whether this call may be made now."""
        segment, key = self.segment, _key_of(call)
        outcome = self.replay.outcomes.get(cell.cell_id)
        is_hello = cell.phase == "hello"
        if outcome == "ok" or cell.cell_id in segment.asked or is_hello \
                and segment.hellos.setdefault(cell.model, cell.cell_id) != cell.cell_id:
            self.note(f"{schema.shown(cell.cell_id)} was made before, with outcome {outcome}",
                      "call-repeated")
        if not self._is_ready():
            self.note("calibration and identification come before the first call")
        if key[0] and not is_hello and cell.model not in segment.hellos:
            self.note(f"model {schema.shown(cell.model)} has no hello in this segment")
        if call["outcome"] != "skipped":
            self._require_identified(key)
        if any(_key_of(one) != key for one in segment.group[:1]) or key in segment.finished:
            self.note(f"a call of {key[1]} between calls of another phase, or after its end")
        if cell.level and call["outcome"] != "skipped":
            self._check_level(cell, cell.level)
        at = 0 if is_hello else self.places[cell.cell_id][2]
        if at <= segment.places.get(cell.lane, -1):
            self.note(f"lane {cell.lane} made this call after a later one of the plan")
        segment.places[cell.lane] = at

    def _check_level(self, cell: Cell, level: int) -> None:
        """Whether the levels before are complete, and the curve had not ended with them."""
        model, phase, replay = cell.model, cell.phase, self.replay
        is_depth = PHASES[phase].kind == "depth"
        if replay.is_beyond(cell):
            self.note(f"{phase} had ended before level {level}")
        if not is_depth and any(one.get("level") == level for one in self.segment.group[-1:]):
            return
        before = [one for one in self.cells[model, phase] if (one.level or 0) < level]
        if any(one.cell_id not in replay.outcomes for one in before):
            self.note(f"level {level} of {phase} begins before the one before it is complete")
        end = replay.end_after(model, phase, before[-1].level or 0) if before else None
        if cell.question_id == "continued":
            end = end or replay.end_after(model, phase, level)
        if is_depth:
            end = end or curve_levels.context_end(level, replay.effective_tokens.get(model))
        if end and replay.has_suites:
            self.note(f"{phase} had to end before level {level}: {end.reason}")

    def _check_times(self, cell: Cell, call: records.CallFinished) -> None:
        segment, span = self.segment, calls.span_us(call)
        if span is None:
            return
        free_us = max(segment.barrier_us, segment.lanes_us.get(cell.lane, 0))
        if span[0] < free_us or span[1] > call["t_us"]:
            self.note(f"timing gives {span[0]} to {span[1]} us; lane {cell.lane} was free from "
                      f"{free_us}, the line was written at {call['t_us']}")
        timeout_us = self.manifest["timeout_s"] * 1e6
        # A system that gives up connecting does so earlier, but then there is no response.
        if call["outcome"] == "timeout" and call["response"] \
                and call["t_us"] - free_us < EARLY_RATIO * timeout_us:
            self.note(f"the call timed out {(call['t_us'] - free_us) / 1e6:.1f} s after the one "
                      f"before, timeout_s is {self.manifest['timeout_s']:g}")
        if span[1] - span[0] > timeout_us + TIMEOUT_SPARE_US:
            self.note(f"the call took {(span[1] - span[0]) / 1e6:.1f} s, timeout_s is "
                      f"{self.manifest['timeout_s']:g}", "machine-slept")

    # -- the end
    def end(self) -> None:
        if self.events[-1]["event"] != "run_finished":
            self.note("is the last line; expected run_finished", "ledger-unfinished")
            return
        self.line = 0
        for cell_id, (cell, _, _) in self.places.items():
            if cell_id not in self.replay.outcomes and not self.replay.is_beyond(cell):
                self.note(f"no line for the planned call {schema.shown(cell_id)}",
                          "ledger-unfinished")
        expected = [*self.cells, *((None, name) for name, why in self.skip_reasons.items() if why)]
        for model, name in expected:
            if (model, name) not in self.finished:
                self.note(f"no phase_finished or phase_skipped for {name} of "
                          f"{schema.shown(model or 'all models')}")
        for model in self.models if self.replay.own_phases() != ["hello"] else ():
            if model not in self.probed and not self.replay.has_skipped(model):
                self.note(f"no cache_probed for {schema.shown(model)}")


def _key_of(call: records.CallFinished) -> Key:
    is_mixed = PHASES[call["phase"]].kind == "mixed"
    return None if is_mixed else call["model"], call["phase"]


def calibration_problems(event: records.InstrumentCalibrated, lanes: list[int],
                         took_us: int) -> list[str]:
    """Values that no calibration writes. lanes: the numbers of lanes at which it measures."""
    if not event["lanes"]:
        return [] if event["reason"] else ["lanes is empty, and reason is null"]
    found = []
    if event["reason"] is not None or event["stamp"] is None:
        found.append("lanes were measured, yet reason is set or stamp is null")
    if not [row["lanes"] for row in event["lanes"]] == lanes \
            == [row["lanes"] for row in event["saturation"]]:
        found.append(f"lanes and saturation were not measured at {schema.shown(lanes)} lanes")
    schedule, streams_ms = calibration.SCHEDULE, 0.0
    for fast in event["saturation"]:
        chunks = calibration.SATURATION_CHUNKS // max(fast["lanes"], 1) * fast["lanes"]
        streams_ms += schedule["first_token_ms"] + schedule["gap_ms"] * (schedule["tokens"] - 1)
        streams_ms += chunks / fast["chunks_per_s"] * 1000 if fast["chunks_per_s"] else 0.0
    found += [f"the spread cannot be {schema.shown(spread)}" for spread in (
        event["heartbeat_overshoot_us"], *(row["lag_us"] for row in event["lanes"]))
        if spread and not calls.spread_fits(spread)]
    rates = [fast["chunks_per_s"] for fast in event["saturation"]]
    found += [f"{rate} has more digits than it is measured with" for rate in rates
              if rate != metrics.round_sig(rate)]
    if took_us + 1000 < streams_ms * 1000:
        found.append(f"it took {took_us / 1000:.0f} ms, its streams {streams_ms:.0f} ms")
    return found


# --- two clocks ----------------------------------------------------------------------------------
def epoch_us(at: str) -> Optional[int]:
    """Microseconds since 1970 of a ledger's `at`; None for a day or hour that does not exist."""
    try:
        moment = datetime.strptime(at, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    except ValueError:
        return None
    return round(moment.timestamp() * 1000) * 1000


def clocks(manifest: Manifest, events: Sequence[LedgerLine], now_s: float,
           notes: findings.Notes) -> None:
    """Add findings where wall clock and monotonic clock disagree, or the run is in the future."""
    before, segment, t_us = epoch_us(manifest["started_at"]), -1, 0
    times_us = [epoch_us(event["at"]) for event in events]
    for line, (event, at) in enumerate(zip(events, times_us), 1):
        if at is None or before is None:
            notes.add("file-malformed", f"at or started_at is no time: {event['at']}", line)
            return
        wall_us, clock_us = at - before, event["t_us"] - t_us
        if abs(wall_us - clock_us) > max(JUMP_US, JUMP_RATIO * clock_us) \
                if event["segment"] == segment else \
                wall_us < -JUMP_US or segment < 0 and wall_us > PREPARATION_US:
            notes.add("machine-slept", f"{wall_us / 1e6:.3f} s passed on the wall clock, "
                                       f"{clock_us / 1e6:.3f} s on the monotonic clock", line)
        after = events[line] if line < len(events) else event
        if after["segment"] == event["segment"] == segment:
            # Lines are written under one lock. A clock that is set stays so for the next line.
            after_us = times_us[min(line, len(events) - 1)] or at
            beside_us = abs(after_us - before - (after["t_us"] - t_us))
            if beside_us < ODD_US and not before - ODD_US < at < after_us + ODD_US \
                    or 2 * beside_us < (
                        APART_US if wall_us < clock_us else EARLY_US) < abs(wall_us - clock_us):
                notes.add("machine-slept", f"the clocks of this line, {event['at']} and "
                                           f"{event['t_us']}, do not fit the lines beside", line)
        before, segment, t_us = at, event["segment"], event["t_us"]
    if before is not None and before / 1e6 > now_s + 86_400:
        notes.add("time-in-future", f"the run ends at {events[-1]['at']}", len(events))
