"""What a server writes, in a form that may be published.

Texts lose private values, the names of this machine and its user, and the endpoint's key. Only
numbers under known names are kept of a server's own objects, see core/usage.
"""
from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import Any, Optional

from core import names, privacy, privacy_patterns
from engines import answers

REDACTED_KEY = "<redacted:key>"
_keys: set[str] = set()


def hide(key: Optional[str]) -> None:
    """Replace the endpoint's key wherever a server repeats it."""
    if key:
        _keys.add(key)


@functools.cache
def own_names(handle: Optional[str] = None) -> tuple[privacy.MachineName, ...]:
    """Names of this machine and its user. handle: a login is often a part of it, and is published
    anyway."""
    public = [privacy.MachineName(privacy_patterns.PUBLIC, handle)] if handle else []
    return (*names.this_machine(), *public)


def text(value: str) -> str:
    """A text without private values."""
    return str(document(value))


@functools.lru_cache(maxsize=4096)
def _field(key: str, value: str) -> str:
    return privacy.redact(value, own_names(), key)


def without_keys(value: Any) -> Any:
    """A JSON value without the endpoint's key, which a server may repeat anywhere."""
    if not _keys:
        return value
    if isinstance(value, str):
        for key in _keys:
            value = value.replace(key, REDACTED_KEY)
    if isinstance(value, list):
        return [without_keys(one) for one in value]
    if isinstance(value, dict):
        return {without_keys(name): without_keys(one) for name, one in value.items()}
    return value


def document(value: Any, key: str = "") -> Any:
    """A JSON value whose texts have no private values."""
    if isinstance(value, str):
        return _field(key, without_keys(value))
    if isinstance(value, list):
        return [document(one, key) for one in value]
    if isinstance(value, dict):
        return {name: document(one, name) for name, one in value.items()}
    return value


def model_id(served_id: Any) -> str:
    """The model id that may be published, see answers.published_model_id."""
    return text(answers.published_model_id(served_id))


def model_names(served_ids: Iterable[str]) -> dict[str, str]:
    """Published name by served id; equal names get the first digits of a hash of the id."""
    names_of = {served_id: model_id(served_id) for served_id in served_ids}
    times = Counter(names_of.values())
    return {served_id: name if times[name] == 1 else
            f"{name}~{hashlib.sha256(served_id.encode('utf-8', 'replace')).hexdigest()[:6]}"
            for served_id, name in names_of.items()}
