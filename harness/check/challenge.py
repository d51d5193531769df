"""Check that a run has answered a challenge: questions that follow from a maintainer's text.

That the prompts are those of the text is checked with all other requests, in calls.Replay.
"""
from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Callable, Optional

from check.ledger_order import epoch_us
from check.manifest import CLOCK_SPARE_S
from core import ledger, metrics
from core.metric_definitions import ONE_LANE_PHASES
from core.plan import extended
from core.records import LedgerLine, Manifest

MIN_TOKENS = 32               # of an answer that shows a speed
SPEED_RATIO = 1.3             # between the challenge and the phases on one lane
COMMIT = re.compile(r"(?<![^ :#@])[0-9a-f]{7,40}(?![^ :#@])")


def problems(manifest: Manifest, events: Sequence[LedgerLine], wanted: Optional[str],
             time_s: Callable[[str], Optional[int]] = lambda _: None) -> Iterator[tuple[str, str]]:
    """(code, what). wanted: the text that has to be answered; None: any, or none. time_s: when a
    commit was made; None if it is unknown."""
    text = next((entry["challenge"] for entry in extended(manifest, events)["plan"]["phases"]
                 if entry["phase"] == "challenge"), None)
    if wanted is not None and text != wanted:
        yield "challenge-unanswered", f"the challenge is {wanted!a}, " + (
            f"the run answers {text!a}" if text else "the run answers none")
    if text is None:
        return
    for model in manifest["models"]:
        calls = [call for call in ledger.latest_calls(events) if call["model"] == model]
        own = [call for call in calls if call["phase"] == "challenge"]
        rates, others = (
            [rate for call in found for rate in [metrics.decode_rate(call)]
             if rate and len((call["timing"] or {"chunk_us": []})["chunk_us"]) >= MIN_TOKENS]
            for found in (own, [call for call in calls if call["phase"] in ONE_LANE_PHASES]))
        named = sum(bool(call["checks"] and call["checks"]["passed"]) for call in own)
        if not own or len(rates) < len(own):
            yield "challenge-unanswered", f"{model!a}: {len(rates)} of {len(own)} questions have " \
                f"an answer of {MIN_TOKENS} chunks or more"
            continue
        for commit in COMMIT.findall(text):
            made_s, asked_us = time_s(commit), epoch_us(own[0]["at"])
            if made_s and asked_us and asked_us / 1e6 < made_s - CLOCK_SPARE_S:
                yield "challenge-unanswered", f"{model!a}: the answers are of {own[0]['at']}, " \
                    f"before commit {commit} was made"
        speed = metrics.median(rates)
        yield "challenge-answered", f"{text!a}: {model!a} answered {len(own)} questions at " \
            f"{speed:.3g} tokens/s, {named} of them with the code, from {own[0]['at']} on"
        if others and not 1 / SPEED_RATIO < speed / metrics.median(others) < SPEED_RATIO:
            yield "server-changed", f"{model!a}: {speed:.4g} tokens/s in the challenge, " \
                f"{metrics.median(others):.4g} in the other phases"
