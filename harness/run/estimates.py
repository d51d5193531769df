"""Estimate how long planned calls take, from calls and phases that have ended.

Rates come from warm calls on one lane, for each model. The upper bound lets every answer reach its
limit, and counts parallel lanes as one unless the server reports its slots; ramp, which measures
what lanes bring, counts them as one in any case. The usual time is corrected by what finished
phases really took, and leaves out levels of ramp after the first with more lanes than slots.
"""
from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Optional

from core import curve_levels, metrics, plan
from core.records import CallFinished, Manifest
from core.suites import CURVES, PHASES, Question
from core.text import duration

TYPICAL_SHARE = 3             # a typical answer ends at a third of its limit, or at a short limit
SLOWER_SHARE = 1.25           # long answers are generated more slowly than short ones
CHARS_PER_TOKEN = 4
LONG_TIMEOUT_S = 3600         # --timeout for answers that take longer than the usual one
TEMPLATE_TOKENS = 20          # if the server does not count the tokens of a prompt


class Estimate(NamedTuple):
    """Seconds that planned calls take: at most, and usually.

    longest_s: of one call whose answer reaches its limit, with its turn among parallel lanes.
    """

    most_s: float
    typical_s: float
    longest_s: float


def estimate_line(found: Optional[Estimate], timeout_s: float,
                  left: bool = False) -> str:
    """`Estimated time: 5 min, at most 14 min`, and a longer --timeout if an answer may need it."""
    if found is None:
        return "No estimate yet: it needs a few answers." if left else (
            "No estimate: the first call was too short.")
    usual, most = duration(found.typical_s), duration(found.most_s)
    line = f"About {usual} left, at most {most} at this speed" if left else (
        f"Estimated time: {usual}, at most {most} at this speed (every answer at its limit)")
    if not left and found.longest_s > timeout_s:
        line += (f"\nAn answer at its limit may take {duration(found.longest_s)}, longer than "
                 f"--timeout {timeout_s:g}: use --timeout {LONG_TIMEOUT_S}")
    return line


class Rates(NamedTuple):
    """What a model's warm calls took: the longest prompt, its first token, and one token.

    template_tokens: of the prompt's tokens, those that its characters do not explain.
    """

    prompt_tokens: float
    template_tokens: float
    first_s: float
    token_s: float
    worst_token_s: float


class Paces:
    """Times of calls and phases so far, by model."""

    def __init__(self, manifest: Manifest, suites: Mapping[str, Sequence[Question]]) -> None:
        self._manifest, self._suites = manifest, suites
        self._phases = {entry["phase"]: entry for entry in manifest["plan"]["phases"]}
        self.slots: dict[str, Optional[int]] = {}
        self._contexts: dict[str, Optional[int]] = {}
        self._rates: dict[str, Rates] = {}
        self._cold_s = 0.0
        # By (model, phase): calls since the last phase_finished; seconds per call of finished ones.
        self._made: dict[tuple[Optional[str], str], int] = {}
        self._took_s: dict[tuple[Optional[str], str], float] = {}

    def take(self, event: Mapping[str, Any]) -> None:
        """Learn from a ledger line."""
        if event["event"] == "call_finished":
            call: Any = event
            key = self._key(event["model"], event["phase"])
            self._made[key] = self._made.get(key, 0) + (event["outcome"] != "skipped")
            if event["cold"] and call["timing"]:
                self._cold_s = max(self._cold_s, (call["timing"]["done_us"] or 0) / 1e6)
            elif event["phase"] in self._phases and self._phases[event["phase"]]["lanes"] == 1 \
                    and PHASES[event["phase"]].kind not in CURVES:
                self.learn(call)
        elif event["event"] == "phase_finished":
            made = self._made.pop((event["model"], event["phase"]), 0)
            if made and event["phase"] != "hello":
                self._took_s[event["model"], event["phase"]] = event["wall_us"] / 1e6 / made
        elif event["event"] == "endpoint_identified":
            self.slots[event["model"]] = event["slots"]["count"]
            self._contexts[event["model"]] = event["context"]["effective_tokens"]

    def learn(self, call: CallFinished) -> None:
        """Learn a model's rates from one warm call on one lane."""
        numbers = metrics.call_metrics(call) if call["outcome"] == "ok" else {}
        if not numbers.get("e2el_ms") or not numbers.get("output_tokens"):
            return
        # An answer that was not streamed counts with its whole time, which is too long.
        token_ms = numbers["tpot_ms"] or metrics.decode_step_ms(
            call, metrics.output_tokens(call, metrics.usable_counts(call)), False)[0]
        token_s = (token_ms or numbers["e2el_ms"] / numbers["output_tokens"]) / 1000
        from_chars = call["request"]["messages_chars"] / CHARS_PER_TOKEN
        prompt = numbers["prompt_tokens"] or from_chars + TEMPLATE_TOKENS
        new = Rates(prompt, max(prompt - from_chars, 0.0),
                    (numbers["ttft_ms"] or numbers["e2el_ms"]) / 1000, token_s, token_s)
        old = self._rates.get(call["model"])
        if old:
            # In a growing conversation, most of a prompt may come from the server's cache.
            grows = PHASES[call["phase"]].kind == "append"
            longer = new if prompt > old.prompt_tokens and not grows else old
            new = longer._replace(token_s=(old.token_s + token_s) / 2,
                                  worst_token_s=max(old.worst_token_s, token_s))
        self._rates[call["model"]] = new

    def estimate(self, cells: Iterable[plan.Cell]) -> Optional[Estimate]:
        """How long calls take; None if nothing is known. Unknown models count as the slowest."""
        if not self._rates:
            return None
        groups: dict[tuple[Optional[str], str], list[plan.Cell]] = {}
        for cell in cells:
            groups.setdefault(self._key(cell.model, cell.phase), []).append(cell)
        most_s = typical_s = longest_s = 0.0
        for key, group in groups.items():
            if key[1] == "hello":
                most_s += self._cold_s * len(group)
                typical_s += self._cold_s * len(group)
                continue
            most, typical, longest = self._predict(key, group)
            longest_s = max(longest_s, longest)
            took_s = self._took_s.get(key)
            most_s += max(most, typical)
            typical_s += took_s * len(group) if took_s else min(
                typical * self._correction(key), most)
        return Estimate(most_s, typical_s, longest_s)

    def _key(self, model: str, phase: str) -> tuple[Optional[str], str]:
        return None if PHASES[phase].kind == "mixed" else model, phase

    def _predict(self, key: tuple[Optional[str], str],
                 cells: Sequence[plan.Cell]) -> tuple[float, float, float]:
        """(most, typical, longest call) seconds of a phase, by the rates of single calls."""
        found, kind = sorted({cell.level for cell in cells if cell.level}), PHASES[key[1]].kind
        slots = self.slots.get(key[0]) if key[0] else None
        if len(found) > 1:             # ramp and depth, level by level
            parts = [self._predict(key, [cell for cell in cells if cell.level == level])
                     for level in found]
            most, typical, longest = zip(*parts)
            usual = 1 + sum(level <= slots for level in found) if slots and kind == "ramp" else \
                len(found)
            return sum(most), sum(typical[:usual]), max(longest)
        if kind == "depth" and curve_levels.context_end(
                found[0], self._contexts.get(cells[0].model)):
            return 0.0, 0.0, 0.0       # it is not asked
        limit_s, tokens = self._manifest["timeout_s"], self._phases[key[1]]["max_tokens"]
        lanes = found[0] if kind == "ramp" else self._phases[key[1]]["lanes"]
        at_once = max(min(lanes, slots or 1), 1)       # as the server is known to serve
        # Engines side by side slow each other down, or each call loads its model again.
        crowd = len(self._manifest["models"]) if key[0] is None else 1
        slowest = max(self._rates.values(), key=lambda rates: rates.token_s)
        most_s = typical_s = longest_s = 0.0
        for cell in cells:
            rates = self._rates.get(cell.model, slowest)
            prompt = self._chars(cell) / CHARS_PER_TOKEN + rates.template_tokens
            first_s = rates.first_s * max(1.0, prompt / rates.prompt_tokens)
            full_s = first_s + tokens * rates.worst_token_s * SLOWER_SHARE
            longest_s = max(longest_s, full_s * crowd * lanes / at_once)
            most_s += min(full_s * crowd + self._cold_s * (crowd > 1), limit_s)
            typical_s += min(first_s + tokens / (1 if found else TYPICAL_SHARE) * rates.token_s,
                             limit_s)
        rounds = -(-len(cells) // lanes)
        sure = 1 if kind == "ramp" else at_once
        return min(most_s / sure, rounds * limit_s), typical_s / at_once, longest_s

    def _chars(self, cell: plan.Cell) -> int:
        """Characters of a call's messages, about as many in a growing conversation; 0 if unknown.

        A run of another version of the harness may have other questions.
        """
        if PHASES[cell.phase].kind == "depth":      # its second call continues the first
            return (cell.level or 0) * CHARS_PER_TOKEN if cell.question_id == "cold" else 0
        suite = self._suites.get(cell.phase, ())
        ids = [question.id for question in suite]
        if cell.question_id not in ids:
            return 0
        at = ids.index(cell.question_id)
        if PHASES[cell.phase].kind == "append":
            answer_chars = self._phases[cell.phase]["max_tokens"] * CHARS_PER_TOKEN // TYPICAL_SHARE
            return sum(len(question.prompt) for question in suite[:at + 1]) + at * answer_chars
        return sum(len(message["content"])
                   for message in plan.messages_of(cell.phase, suite[at], suite))

    def _correction(self, wanted: tuple[Optional[str], str]) -> float:
        """What finished phases took, as a share of what was predicted: those of the same model with
        as many lanes, else of the same model, else with as many lanes."""
        lanes = {key: self._phases[key[1]]["lanes"] for key in (wanted, *self._took_s)}
        own = [key for key in self._took_s if key[0] == wanted[0]]
        alike = [key for key in self._took_s if lanes[key] == lanes[wanted]]
        took_s = predicted_s = 0.0
        for key in [key for key in own if key in alike] or own or alike:
            models = [key[0]] if key[0] else self._manifest["models"]
            cells = plan.cells_of(self._manifest["plan"], key[1], models, "x")
            took_s += self._took_s[key] * len(cells)
            predicted_s += self._predict(key, cells)[1]
        return took_s / predicted_s if predicted_s else 1.0
