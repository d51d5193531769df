"""The plan of a run: the calls of each phase in order, and their messages.

The submission check rebuilds plan and messages from the released suites, and so knows what a run
must have asked.
"""
from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional, cast

from core import curve_levels, depth_prompts, usage
from core.records import LedgerLine, Manifest, Plan
from core.records import Phase as PlannedPhase
from core.suites import ALL_PHASES, CURVES, CURVES_RELEASE, PHASES, Question

CONTEXT_SPARE = 16            # tokens by which a prompt that fills the context may fall short of it
CUT_SHARE = 0.6               # of the expected tokens: fewer were truncated
UNSURE_SHARE = 0.75           # of the expected tokens: fewer may have been truncated
FITS_SHARE = 0.8              # of the expected tokens: they do not fit into a smaller context
FILLED_SHARE = 1.1            # of the prompt's tokens that fill the context: more were sent
TYPICAL_CHARS = 4             # per token of the suites' texts; no tokenizer has twice as many
MIN_GROWTH, CUT_GROWTH = 200, 0.4     # tokens from turn to turn, and the share that must arrive


class Cell(NamedTuple):
    """One planned call. level: lanes of ramp or tokens of depth, None in other phases."""

    cell_id: str
    model: str
    phase: str
    question_id: str
    repeat: int
    lane: int
    level: Optional[int] = None

    def fields(self) -> dict[str, Any]:
        """The fields of its ledger line, which has a level only in ramp and depth."""
        return {name: value for name, value in self._asdict().items() if value is not None}


def parse_phases(text: str) -> tuple[str, ...]:
    """Phase names of `hello,5q` or `all`, in running order; raises ValueError."""
    names = [n.strip() for n in text.split(",") if n.strip()]
    unknown = [n for n in names if n not in PHASES and n != "all"]
    if unknown or not names:
        shown = ", ".join(map(repr, unknown or [text]))
        raise ValueError(f"{shown} is not a phase; use {', '.join(PHASES)}, or all; "
                         "separate several with commas")
    wanted = {*names, *(ALL_PHASES if "all" in names else ())}
    return tuple(name for name in PHASES if name in wanted)


def plan_of(names: Sequence[str], suites: Mapping[str, Sequence[Question]], lanes: int,
            repeats: int, num_predict: int, smoke: bool = False,
            context_tokens: Optional[int] = None, challenge: Optional[str] = None) -> Plan:
    """The manifest's `plan`; it always begins with a hello. context_tokens: what depth needs;
    challenge: the text of that phase."""
    asked = ["hello"] if smoke else ["hello", *(n for n in names if n != "hello")]
    return {"repeats": repeats, "lanes": lanes, "phases": [
        phase_of(name, suites, lanes, num_predict, context_tokens, challenge) for name in asked]}


def phase_of(name: str, suites: Mapping[str, Sequence[Question]], lanes: int, num_predict: int,
             context_tokens: Optional[int] = None,
             challenge: Optional[str] = None) -> PlannedPhase:
    """One phase of a plan."""
    kind = PHASES[name].kind
    entry: PlannedPhase = {
        "phase": name, "suite_file": PHASES[name].suite_file,
        "lanes": lanes if kind in ("same", "mixed") else 1,
        "max_tokens": min(PHASES[name].max_tokens or num_predict, num_predict),
        "question_ids": [q.id for q in suites[name]]}
    if kind == "ramp":
        found = curve_levels.ramp_levels(lanes)
        entry = {**entry, "lanes": found[-1], "levels": found, "release": CURVES_RELEASE}
    elif kind == "depth":
        context = context_tokens or curve_levels.DEEPEST_TOKENS + curve_levels.ROOM_TOKENS
        entry = {**entry, "levels": curve_levels.depth_levels(context), "release": CURVES_RELEASE,
                 "context_tokens": context, "source_sha256": depth_prompts.source_sha256(suites)}
    elif kind == "challenge":
        entry = {**entry, "challenge": challenge or ""}
    return entry


def chosen_options(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run: the canonical ones and those that override them."""
    return {**manifest["canonical_options"], **manifest["canonical_options_overrides"]}


def extended(manifest: Manifest, events: Iterable[LedgerLine]) -> Manifest:
    """The manifest with the phases that were added to the run later, as its ledger records."""
    added = [entry for event in events if event["event"] == "phases_added"
             for entry in event["phases"]]
    return with_phases(manifest, added) if added else manifest


def with_phases(manifest: Manifest, added: Sequence[PlannedPhase]) -> Manifest:
    """The manifest with more phases. It no longer has the hash that the ledger is tied to."""
    plan = manifest["plan"]
    return cast(Manifest, {**manifest, "plan": {**plan, "phases": [*plan["phases"], *added]}})


def calibrated_lanes(plan: Plan) -> list[int]:
    """The numbers of lanes at which the client's timing error is measured."""
    return sorted({1, *(lanes for entry in plan["phases"] for lanes in (
        entry["levels"] if PHASES[entry["phase"]].kind == "ramp" else [entry["lanes"]]))})


def cell_id_of(prefix: str, model: str, phase: str, question_id: str, repeat: int,
               level: Optional[int] = None) -> str:
    """`<node-tag>:<engine>:<model>:<phase>:<question-id>`, with `:r<k>` for a repeat, and the
    level before the question."""
    return ":".join([prefix, model, phase, *([str(level)] if level else []), question_id,
                     *([f"r{repeat}"] if repeat else [])])


def cells_of(plan: Plan, phase: str, models: Sequence[str], prefix: str) -> list[Cell]:
    """The planned calls of a phase on one model (mixed: on all), dealt to lanes in order."""
    entry = next(p for p in plan["phases"] if p["phase"] == phase)
    if PHASES[phase].kind in CURVES:
        return _cells_of_levels(entry, plan["repeats"], models[0], prefix)
    repeats = 1 if phase == "hello" else plan["repeats"]
    cells = []
    for repeat in range(repeats):
        for index, question_id in enumerate(entry["question_ids"]):
            lane = index % entry["lanes"]
            model = models[lane % len(models)]
            cells.append(Cell(cell_id_of(prefix, model, phase, question_id, repeat),
                              model, phase, question_id, repeat, lane))
    return cells


def _cells_of_levels(entry: PlannedPhase, repeats: int, model: str, prefix: str) -> list[Cell]:
    """The planned calls of ramp or depth, level by level."""
    phase, ids, cells = entry["phase"], entry["question_ids"], list[Cell]()
    for level in entry["levels"]:
        is_ramp = PHASES[phase].kind == "ramp"
        count = (curve_levels.calls_count(level) if is_ramp else len(ids)) * repeats
        for index in range(count):
            repeat, at = divmod(index, len(ids))
            cells.append(Cell(cell_id_of(prefix, model, phase, ids[at], repeat, level), model,
                              phase, ids[at], repeat, index % level if is_ramp else 0, level))
    return cells


def skip_reason(phase: str, models: Sequence[str], lanes: int) -> Optional[str]:
    """Why a phase cannot run with these models and lanes, or None. Ledgers hold these texts."""
    if phase == "parallel_mixed" and len(models) < 2:
        return "parallel_mixed needs two models or more; this run has one"
    if phase == "parallel_mixed" and lanes < 2:
        return "parallel_mixed needs two lanes or more"
    return None


def all_cells(manifest: Manifest) -> list[Cell]:
    """Every planned call of a run in running order, without the phases that are skipped."""
    plan, models, prefix = manifest["plan"], manifest["models"], manifest["cell_id_prefix"]
    cells, names = [], [p["phase"] for p in plan["phases"]]
    for model in models:
        for name in names:
            if PHASES[name].kind != "mixed":
                cells += cells_of(plan, name, [model], prefix)
    for name in names:
        if PHASES[name].kind == "mixed" and not skip_reason(name, models, plan["lanes"]):
            cells += cells_of(plan, name, models, prefix)
    return cells


def messages_of(phase: str, question: Question, suite: Sequence[Question],
                history: Sequence[tuple[str, str]] = (),
                document: str = "") -> list[dict[str, str]]:
    """The messages of a call, without salt.

    history: (prompt, answer) of earlier turns, for growing conversations; document: what the first
    question of depth is about.
    """
    content = document + question.prompt
    if PHASES[phase].kind == "suite_context":
        content = "\n\n".join([f"[{q.id}] {q.prompt}" for q in suite] + [
            f"Answer only the question [{question.id}]. The other texts above are its context."])
    messages = []
    for prompt, answer in history:
        messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return messages + [{"role": "user", "content": content}]


def salted(messages: list[dict[str, str]], salt: Optional[str]) -> list[dict[str, str]]:
    """The messages with a short line before the first, so that no cached prefix matches."""
    if salt is None:
        return messages
    first = {**messages[0], "content": f"[{salt}]\n{messages[0]['content']}"}
    return [first, *messages[1:]]


def fingerprint(messages: list[dict[str, str]]) -> dict[str, Any]:
    """SHA-256 (of the messages as compact ASCII JSON), characters and count of messages."""
    text = json.dumps(messages, ensure_ascii=True, separators=(",", ":"))
    return {"messages_sha256": hashlib.sha256(text.encode("ascii")).hexdigest(),
            "messages_chars": sum(len(m["content"]) for m in messages),
            "messages_count": len(messages)}


def truncation(phase: str, prompt_tokens: Any, chars: int, earlier: Sequence[tuple[str, int, int]],
               effective_tokens: Optional[int], markers_found: Optional[bool],
               was_cut: bool = False, room_tokens: Optional[int] = None, max_tokens: int = 0,
               only_new: bool = False) -> tuple[str, Optional[str]]:
    """Whether the server truncated the prompt: (yes, no or unknown; the reason).

    earlier: (phase, messages_chars, prompt_tokens) of this model's answered calls before this one,
    which show the characters per token of its tokenizer. was_cut: an earlier turn of the same
    conversation was truncated. room_tokens: length of an answer that ended at a limit below its
    own limit, max_tokens. only_new: an earlier turn showed that only new tokens are counted, as by
    Ollama 0.30. Ollama silently drops the first half of a prompt that is too long (0.30), whole
    turns, or what does not fit (0.24). Ledgers hold the reasons word by word.
    """
    if was_cut:
        return "yes", "an earlier turn of this conversation was truncated"
    if not isinstance(prompt_tokens, int) or isinstance(prompt_tokens, bool) or prompt_tokens <= 0:
        if markers_found and PHASES[phase].kind in ("suite_context", "depth"):
            return "no", "the planted facts were named"
        return "unknown", "the server reports no prompt_tokens"
    filled = f"the prompt fills the context ({prompt_tokens} of {effective_tokens} tokens)"
    fills = bool(effective_tokens) and prompt_tokens >= (effective_tokens or 0) - CONTEXT_SPARE
    if fills and room_tokens is not None:
        return "yes", f"{filled}; the answer ended after {room_tokens} tokens"
    samples = sorted(c / t for _, c, t in earlier if t > 0 and c >= 200)
    turn = [e for e in earlier if e[0] == phase]
    continues = PHASES[phase].kind in ("append", "depth") and turn and chars > turn[-1][1]
    grew = continues and PHASES[phase].kind == "append"
    per_token = samples[len(samples) // 2] if samples else 1.0
    expected = chars / per_token
    sent = f"prompt_tokens is {prompt_tokens}, about {expected:.0f} were sent"
    fits = FILLED_SHARE * expected + max_tokens + CONTEXT_SPARE <= (effective_tokens or 0)
    if continues and samples and prompt_tokens < CUT_SHARE * expected and (fits or only_new):
        return "unknown", f"{sent}: {usage.ONLY_NEW}"
    if grew and prompt_tokens <= turn[-1][2]:
        return "yes", ("the conversation grew, prompt_tokens did not "
                       f"({turn[-1][2]} -> {prompt_tokens})")
    if not samples and effective_tokens and chars > TYPICAL_CHARS * effective_tokens \
            and chars > 2 * TYPICAL_CHARS * prompt_tokens:
        return "yes", (f"prompt_tokens is {prompt_tokens} for {chars} characters, in a context of "
                       f"{effective_tokens}")
    if not samples:
        return "unknown", "no earlier call to compare prompt_tokens with"
    if grew:
        growth, more = prompt_tokens - turn[-1][2], (chars - turn[-1][1]) / per_token
        if more > MIN_GROWTH and growth < CUT_GROWTH * more:
            return "yes", (f"the conversation grew by about {more:.0f} tokens, prompt_tokens by "
                           f"{growth}")
    if expected > 500 and prompt_tokens < CUT_SHARE * expected:
        half = effective_tokens and abs(prompt_tokens - effective_tokens / 2) <= 8
        return "yes", sent + (": half the window" if half else "")
    if fills and expected > FILLED_SHARE * prompt_tokens:
        return "yes", f"{filled}, about {expected:.0f} were sent"
    if fills:
        return "unknown", filled
    # Tokenizers differ this much between texts; a prompt that fits cannot have been truncated.
    may_not_fit = not effective_tokens or expected > effective_tokens - CONTEXT_SPARE
    if expected > 500 and prompt_tokens < UNSURE_SHARE * expected and may_not_fit:
        if effective_tokens and effective_tokens < FITS_SHARE * expected:
            return "yes", f"{sent} into a context of {effective_tokens}"
        return "unknown", f"{sent}: too close for a verdict"
    return "no", None
