"""The order of a ledger: was this run made as the runner makes one?

The runner is a fixed machine. In each segment it calibrates, identifies its models, and then takes
them one after the other: hello, identification, phases in their order, the cache probe; last the
phase of all models. A lane's line is on disk before its next call starts. So each line has one
place, and each call a moment before which it cannot have begun.

    walk       every line of a ledger that fits its schema -> findings
    clocks     wall clock against monotonic clock
"""
from __future__ import annotations

import base64
import binascii
import calendar
import re
import time
from collections.abc import Sequence
from typing import Any, Optional, cast

from core import ledger, records, schema
from core.plan import Cell, cell_id_of, skip_reason
from core.suites import PHASES
from machine import gauges
from run import reply

from check import calls, findings

Json = dict[str, Any]

Key = tuple[Optional[str], str]       # model (None: all of them) and phase

MAX_FOUND = 300                       # the rest follows, and takes a hostile ledger's time
MAX_SEGMENTS = 200                    # hours in a shell that ends commands after minutes have 100
TIMEOUT_SPARE_US = 5_000_000          # a read that ends late; a machine that sleeps takes longer
JUMP_US, JUMP_SHARE = 2_000_000, 0.001
PREPARATION_US = 600_000_000          # a slow server may be asked for minutes before the first line
SAMPLED_US = int(gauges.SAMPLE_EVERY_S * 0.9e6)
PAUSE_US = int(reply.RETRY_PAUSE_S * 0.9e6)      # a sleep may end a little early
ENDS = ("run_finished", "run_interrupted")


def walk(manifest: Json, events: list[Json], seals: dict[int, str], suites: Optional[calls.Suites],
         notes: findings.Notes) -> None:
    """All findings on a ledger's order and contents. seals: line number of each run_finished ->
    SHA-256 of the bytes before it."""
    walker = Walker(manifest, events, seals, suites, notes)
    for event in events:
        walker.take(event)
        if walker.found > MAX_FOUND or walker.segment.number > MAX_SEGMENTS:
            walker.note("segment-order", "too much is wrong to go on")
            return
    walker.end()


class Segment:
    """What one process did so far; times are t_us of its clock.

    barrier_us: of the last line that no lane wrote; lanes_us: of each lane's last line since;
    open_calls: calls since, of the phase that is going on; places: where each lane is in its phase.
    """

    def __init__(self, number: int) -> None:
        self.number, self.t_us, self.barrier_us = number, 0, 0
        self.ended = self.calibrated = False
        self.identified: list[str] = []
        self.hellos: dict[str, str] = {}
        self.known_again: set[str] = set()
        self.asked: set[str] = set()
        self.position = -1
        self.open_calls: list[Json] = []
        self.lanes_us: dict[int, int] = {}
        self.places: dict[int, int] = {}
        self.samples_us: list[int] = []


class Walker:
    """Goes through a ledger line by line."""

    def __init__(self, manifest: Json, events: list[Json], seals: dict[int, str],
                 suites: Optional[calls.Suites], notes: findings.Notes) -> None:
        self.manifest, self.events, self.seals, self.notes = manifest, events, seals, notes
        self.replay, self.segment = calls.Replay(manifest, suites), Segment(0)
        self.models: list[str] = manifest["models"]
        self.line = self.found = 0
        self.taken: list[Json] = []       # calls as planned; what a next process would take up
        self.finished: set[Key] = set()
        self.probed: set[str] = set()
        self.skipped: set[str] = set()
        names, plan = self.replay.names, manifest["plan"]
        mixed = [n for n in names if PHASES[n].kind == "mixed"]
        self.skip_reasons = {n: skip_reason(n, self.models, plan["lanes"]) for n in mixed}
        self.order: list[Key] = [(model, name) for model in self.models
                                 for name in self.replay.own_phases()]
        self.order += [(None, n) for n in mixed if not self.skip_reasons[n]]
        self.cells = {key: self.replay.cells(key[1], [key[0]] if key[0] else self.models)
                      for key in self.order}
        self.places = {cell.cell_id: (key, at) for key, cells in self.cells.items()
                       for at, cell in enumerate(cells)}

    def note(self, code: str, what: str, place: str = "") -> None:
        """A finding on the line at hand."""
        self.found += 1
        self.notes.add(code, what, self.line, place)

    # -- every line
    def take(self, event: Json) -> None:
        """One line."""
        name = event["event"]
        self.line += 1
        if event["seq"] != self.line - 1:
            self.note("ledger-gap", f"seq is {event['seq']}, not {self.line - 1}")
        if event["run_id"] != self.manifest["run_id"]:
            self.note("ids-differ", f"run_id is {event['run_id']}")
        if (name == "run_started") != (self.line == 1):
            self.note("ledger-start", f"line {self.line} is {name}")
        self._follow_segments(event)
        if event["t_us"] < self.segment.t_us:
            self.note("clock-backwards", f"t_us is {event['t_us']} after {self.segment.t_us}")
        self.segment.t_us = event["t_us"]
        getattr(self, f"_{name}")(event)
        if name != "call_finished":
            self.taken.append(event)

    def _follow_segments(self, event: Json) -> None:
        if event["event"] == "run_resumed":
            if event["segment"] != self.segment.number + 1:
                self.note("segment-order", f"segment {event['segment']} follows "
                                           f"{self.segment.number}")
            self.segment = Segment(event["segment"])
            self.replay = self.replay.resumed(self.taken)
        elif event["segment"] != self.segment.number:
            self.note("segment-order", f"segment is {event['segment']}, no run_resumed said so")
        elif self.segment.ended:
            self.note("segment-order", f"{event['event']} follows the end of segment "
                                       f"{self.segment.number}")

    def _barrier(self, event: Json, ends_phase: bool = False) -> None:
        """A line that no lane wrote: whatever was going on has ended."""
        if self.segment.open_calls and not ends_phase:
            self.note("event-order", f"{event['event']} stands inside of a phase")
        self.segment.barrier_us = event["t_us"]
        self.segment.open_calls = []
        self.segment.lanes_us, self.segment.places = {}, {}

    # -- begin and end
    def _run_started(self, event: Json) -> None:
        if event["manifest_sha256"] != ledger.manifest_sha256(self.manifest):
            self.note("manifest-unsealed", "manifest_sha256 is not that of manifest.json")
        self._barrier(event)

    def _run_resumed(self, event: Json) -> None:
        self._run_started(event)
        try:
            torn = base64.b64decode(event["torn_base64"] or "", validate=True)
        except (binascii.Error, ValueError):
            torn = b""
        if len(torn) != event["torn_bytes"] or (event["torn_base64"] is None) == bool(torn):
            self.note("resume-differs", f"{event['torn_bytes']} bytes are told, {len(torn)} kept")
        if torn and event["newline_added"]:
            self.note("resume-differs", "a torn line was kept, and one counted as whole")

    def _run_interrupted(self, event: Json) -> None:
        dropped = event["in_flight"]
        unknown = [cell_id for cell_id in dropped if self._planned(cell_id) is None]
        if unknown or sorted(set(dropped)) != dropped:
            self.note("cell-unplanned", f"in_flight has {schema.shown(unknown or dropped)}")
        elif set(dropped) & self.segment.asked:
            self.note("segment-order", "in_flight has a call that is recorded")
        self._barrier(event, ends_phase=True)
        self.segment.ended = True

    def _run_finished(self, event: Json) -> None:
        if self.segment.ended:
            return
        before = max([self.segment.barrier_us, *self.segment.lanes_us.values()])
        self._barrier(event)
        self.segment.ended = True
        if (event["lines"], event["sha256"]) != (self.line - 1, self.seals.get(self.line)):
            self.note("ledger-unsealed", f"{event['lines']} lines are told, {self.line - 1} stand "
                                         "there; or the sha256 is another")
        counts = ledger.counts(self.events[:self.line - 1])
        if event["counts"] != counts or \
                event["exit_code"] != int(not self.replay.all_answered()):
            self.note("finish-differs", f"{schema.shown(event['counts'])} with exit code "
                                        f"{event['exit_code']}; counted it is "
                                        f"{schema.shown(counts)}")
        if not before <= event["wall_us"] <= event["t_us"]:
            self.note("finish-differs", f"wall_us is {event['wall_us']}, the last line is of "
                                        f"{before}, this one of {event['t_us']}")

    # -- ahead of the calls
    def _heads_done(self) -> bool:
        return self.segment.identified == self.models and (
            self.segment.calibrated or self.manifest["smoke"])

    def _instrument_calibrated(self, event: Json) -> None:
        segment = self.segment
        self._barrier(event)
        if segment.calibrated or segment.identified or self.manifest["smoke"]:
            self.note("event-order", "the calibration is the first thing of a segment")
        segment.calibrated = True
        lanes = sorted({1, max(entry["lanes"] for entry in self.manifest["plan"]["phases"])})
        for what in calibration_problems(event, lanes):
            self.note("calibration-differs", what)

    def _endpoint_identified(self, event: Json) -> None:
        segment, model = self.segment, event["model"]
        self._barrier(event)
        if model not in self.models:
            self.note("model-unknown", f"{schema.shown(model)} is not of this run")
            return
        is_head = not self._heads_done()
        if is_head:
            expected = self.models[len(segment.identified)] \
                if len(segment.identified) < len(self.models) else None
            if model != expected or not (segment.calibrated or self.manifest["smoke"]):
                self.note("event-order", f"{schema.shown(model)} is identified out of turn")
            segment.identified.append(model)
        elif segment.position < 0 or self.order[segment.position] != (model, "hello") \
                or model in segment.known_again or self.manifest["smoke"]:
            self.note("event-order", f"{schema.shown(model)} is identified out of turn")
        else:
            segment.known_again.add(model)
        for code, what in self.replay.identified(event, is_head and self._is_first_process()):
            self.note(code, what)

    def _is_first_process(self) -> bool:
        """Whether the process at hand began the run; a crash may have cut its very first line."""
        return self.segment.number == 0 or (
            self.segment.number == 1 and self.events[1]["event"] == "run_resumed")

    def _model_skipped(self, event: Json) -> None:
        self._barrier(event)
        if event["model"] in self.models or event["model"] in self.skipped:
            self.note("model-unknown", f"{schema.shown(event['model'])} is of this run, or was "
                                       "skipped before")
        if not self._heads_done() or self.segment.asked or not self._is_first_process():
            self.note("event-order", "models are skipped ahead of the first call")
        self.skipped.add(event["model"])

    def _host_sampled(self, event: Json) -> None:
        """Written by a thread of its own, wherever the run is; only a segment's last one may follow
        the one before at once."""
        times = self.segment.samples_us
        times.append(event["t_us"])
        if len(times) > 2 and times[-2] - times[-3] < SAMPLED_US:
            self.note("event-order", f"samples of the host at {times[-3]} and {times[-2]}")

    # -- phases
    def _advance(self, key: Key, name: str) -> bool:
        """Whether a line of this phase may stand here; takes up the position."""
        if key not in self.cells:
            skips = key[1] in self.skip_reasons
            self.note("phase-skip-differs" if skips else "model-unknown",
                      f"{name} of {schema.shown(key[0])}, {key[1]}")
            return False
        return True

    def _phase_skipped(self, event: Json) -> None:
        self._barrier(event)
        name, reason = event["phase"], self.skip_reasons.get(event["phase"])
        if event["model"] is not None or reason is None or event["reason"] != reason \
                or (None, name) in self.finished:
            self.note("phase-skip-differs", f"{name}, {schema.shown(event['reason'])}; it follows "
                                            f"{schema.shown(reason)}")
        self.finished.add((None, name))

    def _phase_finished(self, event: Json) -> None:
        key, segment = (event["model"], event["phase"]), self.segment
        made, before_us = segment.open_calls, segment.barrier_us
        last_us = max([before_us, *(call["t_us"] for call in made)])
        begun_us = [begun for begun in map(begin_us, made) if begun is not None]
        self._barrier(event, ends_phase=True)
        if not self._advance(key, "phase_finished"):
            return
        at = self.order.index(key)
        if any(self._key_of(call) != key for call in made) or at <= segment.position:
            self.note("event-order", f"phase_finished of {schema.shown(key[0])}, {key[1]} stands "
                                     "after calls of another phase, or out of turn")
        segment.position = max(at, segment.position)
        self.finished.add(key)
        self._count_phase(event, key, made)
        end_us = event["started_us"] + event["wall_us"]
        if not before_us <= event["started_us"] <= min([*begun_us, end_us]) \
                or not last_us <= end_us <= event["t_us"]:
            self.note("phase-finished-differs", f"told are {event['started_us']} to {end_us}, "
                                                f"its lines are of {before_us} to {last_us}")

    def _count_phase(self, event: Json, key: Key, made: Sequence[Json]) -> None:
        cell_ids = [self.segment.hellos.get(str(key[0]), "")] if key[1] == "hello" \
            else [cell.cell_id for cell in self.cells[key]]
        outcomes = [self.replay.outcomes.get(cell_id) for cell_id in cell_ids]
        told = (event["planned"], event["ok"], event["failed"])
        found = (len(cell_ids), outcomes.count("ok"), len(cell_ids) - outcomes.count("ok"))
        if told != found:
            self.note("phase-finished-differs", f"planned, ok, failed are {told}, counted they are "
                                                f"{found}")
        if None in outcomes or (not made and (key[1] == "hello" or not self.segment.number)):
            self.note("phase-finished-differs", "calls of it were not made before")

    def _cache_probed(self, event: Json) -> None:
        model, barrier_us = event["model"], self.segment.barrier_us
        self._barrier(event)
        own = [key for key in self.order if key[0] == model]
        if not own:
            self.note("model-unknown", f"{schema.shown(model)} is not of this run")
            return
        if not set(own) <= self.finished or model in self.probed or len(own) < 2:
            self.note("event-order", "the cache is probed once, after all phases of the model")
        self.probed.add(model)
        for code, what in self.replay.cache_probed(event):
            self.note(code, what)
        took_us = sum(probe["first_token_us"] or 0 for probe in event["probes"])
        if barrier_us + took_us > event["t_us"]:
            self.note("call-outside-phase", f"the probes took {took_us} us, more than there was "
                                            "time")

    # -- calls
    def _planned(self, cell_id: str) -> Optional[Cell]:
        """The planned call of that id, the hello of this segment included."""
        if cell_id in self.places:
            key, at = self.places[cell_id]
            return self.cells[key][at]
        hellos = (self._added_hello(model) for model in self.models)
        return next((cell for cell in hellos if cell and cell.cell_id == cell_id), None)

    def _added_hello(self, model: str) -> Optional[Cell]:
        """The hello that a resume adds once the planned one is done."""
        planned, number = self.cells[model, "hello"][0], self.segment.number
        if not number or planned.cell_id not in self.replay.outcomes:
            return None
        return planned._replace(repeat=number, cell_id=cell_id_of(
            self.manifest["cell_id_prefix"], model, "hello", "hello", number))

    def _key_of(self, call: Json) -> Key:
        return (None if PHASES[call["phase"]].kind == "mixed" else call["model"],
                call["phase"])

    def _call_finished(self, call: Json) -> None:
        cell = self._planned(call["cell_id"])
        if cell is None:
            self.note("cell-unplanned", schema.shown(call["cell_id"]))
            return
        told = {name: call[name] for name in (*cell._fields, "cold")}
        expected = {**cell._asdict(), "cold": cell.phase == "hello"}
        if told != expected:
            self.note("cell-differs", " but ".join(schema.difference("it", told, expected)))
            call = {**call, **expected}
        for code, what in calls.problems(call):
            self.note(code, what)
        self._place(cell, call)
        self._time(cell, call)
        lanes = next(e["lanes"] for e in self.manifest["plan"]["phases"]
                     if e["phase"] == cell.phase)
        for code, what in self.replay.problems(cell, call, lanes):
            self.note(code, what)
        self.segment.asked.add(cell.cell_id)
        self.segment.open_calls.append(call)
        self.segment.lanes_us[cell.lane] = call["t_us"]
        self.replay.note_call(cell, cast(records.CallFinished, call))
        self.taken.append(call)

    def _place(self, cell: Cell, call: Json) -> None:
        """Whether this call may be made now."""
        segment, key = self.segment, self._key_of(call)
        if self.replay.outcomes.get(cell.cell_id) == "ok" or cell.cell_id in segment.asked:
            self.note("cell-repeated", f"{schema.shown(cell.cell_id)} had "
                                       f"{self.replay.outcomes.get(cell.cell_id)}")
        if not self._heads_done():
            self.note("event-order", "calibration and identification come before the first call")
        if cell.phase == "hello":
            if segment.hellos.setdefault(cell.model, cell.cell_id) != cell.cell_id:
                self.note("cell-repeated", f"a second hello of {schema.shown(cell.model)}")
        elif key[0] and cell.model not in segment.hellos:
            self.note("hello-missing", f"{schema.shown(cell.model)} in segment {segment.number}")
        elif key[0] and cell.model not in segment.known_again:
            self.note("event-order", "the model is identified again after its hello")
        if any(self._key_of(one) != key for one in segment.open_calls[:1]) \
                or self.order.index(key) <= segment.position:
            self.note("event-order", f"a call of {key[1]} stands in another phase")
        at = 0 if cell.phase == "hello" else self.places[cell.cell_id][1]
        if at <= segment.places.get(cell.lane, -1):
            self.note("call-order", f"{schema.shown(cell.cell_id)} comes after a later one of lane "
                                    f"{cell.lane}")
        segment.places[cell.lane] = at

    def _time(self, cell: Cell, call: Json) -> None:
        segment, begun, ended = self.segment, begin_us(call), end_us(call)
        for what in attempt_problems(call):
            self.note("attempts-differ", what)
        if begun is None or ended is None:
            return
        if begun < segment.lanes_us.get(cell.lane, 0):
            self.note("time-overlap-on-one-lane", f"it began at {begun}, lane {cell.lane} was busy "
                                                  f"until {segment.lanes_us[cell.lane]}")
        elif begun < segment.barrier_us or ended > call["t_us"]:
            self.note("call-outside-phase", f"it lasted from {begun} to {ended}; possible were "
                                            f"{segment.barrier_us} to {call['t_us']}")
        limit_us = self.manifest["timeout_s"] * 1e6 + TIMEOUT_SPARE_US
        if ended - begun > limit_us:
            self.note("call-outlasts-timeout", f"{(ended - begun) / 1e6:.1f} s")

    # -- the end
    def end(self) -> None:
        """What should have come, and did not."""
        self.line = 0
        last = self.events[-1]["event"]
        if last != "run_finished":
            self.line = len(self.events)
            self.note("ledger-unfinished", f"it ends with {last}")
            return
        missing = [cell.cell_id for cells in self.cells.values() for cell in cells
                   if cell.cell_id not in self.replay.outcomes]
        for cell_id in missing:
            self.note("cell-missing", schema.shown(cell_id))
        for key in self.order:
            if key not in self.finished:
                self.note("phase-finished-differs", f"{schema.shown(key[0])}, {key[1]} has none")
        for name, reason in self.skip_reasons.items():
            if reason and (None, name) not in self.finished:
                self.note("phase-skip-differs", f"{name} was neither asked nor skipped")
        probes = [] if self.replay.own_phases() == ["hello"] else self.models
        for model in probes:
            if model not in self.probed:
                self.note("cache-probe-differs", f"{schema.shown(model)} has none")


# --- times of a call -----------------------------------------------------------------------------
def begin_us(call: Json) -> Optional[int]:
    """When a call began on its segment's clock: its first try, connection included."""
    if call["attempts"]:
        return int(call["attempts"][0]["started_us"])
    timing = call["timing"]
    # Both marks are cut to whole microseconds, so their difference may be one short.
    return timing["started_us"] - max((timing["connect_us"] or 0) - 1, 0) if timing else None


def end_us(call: Json) -> Optional[int]:
    """When its last bytes came, or all that is known of its end."""
    timing = call["timing"]
    if timing:
        return int(timing["started_us"] + (timing["done_us"] or 0))
    return int(call["attempts"][-1]["ended_us"]) if call["attempts"] else None


def attempt_problems(call: Json) -> list[str]:
    """Earlier tries: one after the other, and of the kinds that are tried again."""
    found, at = [], 0
    for number, attempt in enumerate(call["attempts"]):
        if not at <= attempt["started_us"] <= attempt["ended_us"]:
            found.append(f"try {number} is told from {attempt['started_us']} to "
                         f"{attempt['ended_us']}, the one before until {at}")
        at = max(at, attempt["ended_us"] + (0 if attempt["kind"] == "refused_fields" else PAUSE_US))
        kind, status = attempt["kind"], attempt["status"]
        if kind == "refused_fields" and status not in (400, 422) or \
                kind != "refused_fields" and status not in reply.RETRY_STATUSES:
            found.append(f"try {number} is {kind} with status {status}")
    if call["timing"] and call["timing"]["started_us"] < at:
        found.append(f"the call began at {call['timing']['started_us']}, a try ended at {at}")
    return found


def calibration_problems(event: Json, lanes: list[int]) -> list[str]:
    """What instrument.calibrate cannot have written; lanes: at which it measures."""
    if not event["lanes"]:
        return [] if event["reason"] else ["it measured nothing, and no reason is told"]
    found = []
    if event["reason"] is not None or event["stamp"] is None:
        found.append("it measured, and a reason says that it did not")
    for name in ("lanes", "saturation"):
        if [row["lanes"] for row in event[name]] != lanes:
            found.append(f"{name}: measured at {schema.shown([r['lanes'] for r in event[name]])}, "
                         f"the run needs {lanes}")
    spreads = [(name, row[name], row["chunks"]) for row in event["lanes"]
               for name in ("lag_us", "read_lag_us", "ttft_error_us") if row[name]]
    spreads += [("heartbeat_overshoot_us", event["heartbeat_overshoot_us"], None)
                ] if event["heartbeat_overshoot_us"] else []
    found += [f"{name}: p50, p99, max of n cannot be {schema.shown(list(spread.values()))}"
              for name, spread, most in spreads if not calls.spread_fits(spread)
              or name != "read_lag_us" and most is not None and spread["n"] > most]
    return found


# --- two clocks ----------------------------------------------------------------------------------
def epoch_us(at: str) -> Optional[int]:
    """Microseconds since 1970 of a ledger's `at`; None where there is no such day or hour."""
    match = re.fullmatch(r"(.{19})\.(\d{3})Z", at)
    try:
        seconds = calendar.timegm(time.strptime(match[1], "%Y-%m-%dT%H:%M:%S")) if match else None
    except ValueError:
        return None
    return None if seconds is None or match is None else seconds * 1_000_000 + int(match[2]) * 1000


def clocks(manifest: Json, events: Sequence[Json], now_s: float, notes: findings.Notes) -> None:
    """Where the two clocks went apart, and whether the run lies in the future."""
    before = epoch_us(manifest["started_at"])
    segment, t_us = -1, 0
    for line, event in enumerate(events, 1):
        at = epoch_us(event["at"])
        if at is None or before is None:
            notes.add("schema", f"there is no such time: {event['at']}", line)
            return
        passed_us = at - before
        if event["segment"] == segment:
            step_us = abs(passed_us - (event["t_us"] - t_us))
            jumped = step_us > max(JUMP_US, JUMP_SHARE * (event["t_us"] - t_us))
        else:
            jumped = passed_us < -JUMP_US or segment < 0 and passed_us > PREPARATION_US
        if jumped:
            other_us = event["t_us"] - t_us
            notes.add("wall-clock-jump", f"{passed_us / 1e6:.3f} s went by on the wall clock, "
                                         f"{other_us / 1e6:.3f} s on the other", line)
        before, segment, t_us = at, event["segment"], event["t_us"]
    if before is not None and before / 1e6 > now_s + 86_400:
        notes.add("time-in-future", f"it ends at {events[-1]['at']}", len(events))
