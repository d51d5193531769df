"""Recorded answers of servers: data/engines/<name>.json holds path -> status, headers, body.

Those of litellm, llama.cpp, llama-cpp-python, mlx-lm, transformers and vLLM, and the errors, come
from real servers; the others are written after the engines' documentation or source.
"""
from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from engines.answers import Probe

FOLDER = Path(__file__).resolve().parents[1] / "data" / "engines"


def probe(status: Any, headers: Any, text: str) -> Probe:
    try:
        return Probe(status, headers, json.loads(text), text)
    except ValueError:
        return Probe(status, headers, None, text)


@cache
def recorded(name: str) -> dict[str, Probe]:
    answers = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    return {path: probe(a["status"], a["headers"], a["text"]) for path, a in answers.items()}


def only(**answers: Any) -> dict[str, Probe]:
    """These JSON answers alone; `_` in a name means "/"."""
    return {"/" + path.replace("_", "/"): probe(200, {}, json.dumps(body))
            for path, body in answers.items()}


def changed(name: str, **answers: Any) -> dict[str, Probe]:
    """Recorded answers, some of them replaced."""
    return {**recorded(name), **only(**answers)}


def listing(**entry: Any) -> dict[str, Any]:
    """/v1/models with one entry."""
    return {"v1_models": {"data": [entry]}}


def recorded_errors() -> dict[str, Any]:
    return json.loads((FOLDER / "errors.json").read_text("utf-8"))


HOSTILE = (None, True, 0, -1, 1e308, "", "x", "\ud800", [], [[]], {}, [None], {"": {}}, [{}] * 3,
           {"data": 7, "models": "x"})


def spoiled(value: Any) -> Any:
    """Copies of a JSON value in which one part is something else."""
    yield from HOSTILE
    if isinstance(value, dict):
        for key in value:
            for other in spoiled(value[key]):
                yield {**value, key: other}
    elif isinstance(value, list):
        for i in range(min(len(value), 2)):
            for other in spoiled(value[i]):
                yield value[:i] + [other] + value[i + 1:]
