"""Make the calls of ramp and depth, level by level, until the curve ends.

core/curve_levels decides when that is; here its reason is recorded and shown.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from core import curve_levels, plan
from core.errors import EndpointError
from core.suites import PHASES
from core.text import printable
from engines import queries

AT = {"ramp": "lanes", "depth": "tokens of context"}


def make(run: Any, model: str, phase: str, left: Sequence[plan.Cell]) -> None:
    """Ask what is left of a phase on one model. run: run.lanes.Run."""
    _say_context(run, model, phase)
    if (model, phase) in run.state.ends:           # failed calls of earlier levels are repeated
        run.ask(left)
        return
    levels = run.state.levels_of(phase)
    for level in levels:
        cells = [cell for cell in left if cell.level == level]
        end: Optional[curve_levels.End] = None
        for number, step in enumerate([cells] if PHASES[phase].kind == "ramp" and cells else [
                [cell] for cell in cells]):
            # The second question of a depth is asked only if the first has an answer.
            if number or step[0].question_id == "continued":
                end = run.state.end_after(model, phase, level)
            end = end or run.state.end_before(model, phase, level)
            if end or run.stopping.is_set():
                break
            try:
                run.ask(step)
            except EndpointError:
                # That more lanes break a server is a result, but not at the first level.
                end = run.state.end_after(model, phase, level) if level > levels[0] else None
                if end:
                    record(run, model, phase, end)
                raise
        end = end or run.state.end_after(model, phase, level)
        if run.stopping.is_set():
            return
        if end:
            record(run, model, phase, end)
            return


def record(run: Any, model: str, phase: str, end: curve_levels.End) -> None:
    """Write where and why a curve ended, and show it in one line."""
    event = run.ledger.write("curve_ended", model=model, phase=phase, **end._asdict())
    run.state.note_end(event)
    run.count.take(event)
    run.progress.say(f"{phase}: ended at {end.level} {AT[phase]} ({end.kind}): {end.reason}",
                     bad=end.kind == "failed")


def _say_context(run: Any, model: str, phase: str) -> None:
    """Show how the server gets the context that the deepest level needs, if it has less."""
    wanted = run.state.phases[phase].get("context_tokens")
    context = queries.context_in_force(run.state.engine, run.state.served[model],
                                       run.probes.get(model, {}), wanted) if wanted else None
    if context and context["remedy"]:
        run.progress.say(printable(f"{phase}: {context['reason']}. {context['remedy']}", 700))
