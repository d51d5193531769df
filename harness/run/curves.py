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
    for level in run.state.levels_of(phase):
        cells = [cell for cell in left if cell.level == level]
        end: Optional[curve_levels.End] = None
        # The second question of a depth is asked only if the first has an answer.
        steps = [cells] if PHASES[phase].kind == "ramp" and cells else [[cell] for cell in cells]
        for step in steps:
            if step[0].question_id == "continued":
                end = run.state.end_after(model, phase, level)
            end = end or run.state.end_before(model, phase, level) or _ask(
                run, model, phase, level, step)
            if end or run.stopping.is_set():
                break
        end = end or run.state.end_after(model, phase, level)
        if run.stopping.is_set():
            return
        if end:
            record(run, model, phase, end)
            return


def _ask(run: Any, model: str, phase: str, level: int,
         cells: Sequence[plan.Cell]) -> Optional[curve_levels.End]:
    """Ask some calls of a level; why the curve ends with them, if it does."""
    try:
        run.ask(cells)
    except EndpointError:
        # A server that breaks down under more lanes is a result, but not at the first level.
        if level > run.state.levels_of(phase)[0]:
            end = run.state.end_after(model, phase, level)
            if end:
                record(run, model, phase, end)
        raise
    found: Optional[curve_levels.End] = run.state.end_after(model, phase, level)
    return found


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
