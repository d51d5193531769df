"""Decide whether, and after how long, a call that a busy server refused is tried again.

A server that loads a model (by its message), is busy (503) or limits requests (429), by its HTTP
status or in its stream, is asked again within the time of the call. The pause is what the server
asks for, otherwise it doubles with each attempt.
"""
from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from typing import Optional

from engines import server_errors
from run.reply import BUSY

RETRY_STATUSES = (200, 429, 503)                # 200: with the error in the stream
RETRY_PAUSE_S = 1.0           # the first pause, and the shortest
LONGEST_PAUSE_S = 30.0        # between two attempts, if the server names no time
MAX_ATTEMPTS = 100            # of one call
RESET_HEADERS = ("retry-after", "x-ratelimit-reset", "x-ratelimit-reset-requests",
                 "x-ratelimit-reset-tokens", "ratelimit-reset")
# Limits that no pause within a call can outlast. A limit per minute is not meant.
QUOTA = re.compile(r"per[ -]day|daily|per[ -](?:week|month)|monthly|insufficient[ _]quota"
                   r"|exceeded your current quota|credits?\b", re.IGNORECASE)
DURATION = re.compile(r"(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?!s))?"
                      r"(?:(\d+(?:\.\d+)?)s)?(?:(\d+(?:\.\d+)?)ms)?")
UNITS_S = (86_400, 3_600, 60, 1, 0.001)


def pause_s(kind: str, headers: Mapping[str, str], body: str, attempts: int) -> Optional[float]:
    """Seconds until the next attempt; None if the call is not to be tried again.

    kind: of the call's failure; headers: with names in lower case; attempts: number of attempts
    before this one.
    """
    if attempts >= MAX_ATTEMPTS or kind not in BUSY or is_used_up(kind, body):
        return None
    asked_s = reset_s(headers, time.time())
    if asked_s is None:
        asked_s = min(RETRY_PAUSE_S * 2.0 ** min(attempts, 10), LONGEST_PAUSE_S)
    return max(asked_s, RETRY_PAUSE_S)


def is_used_up(kind: str, body: str) -> bool:
    """Whether the server reports that the quota of a day or more is used up."""
    return kind == "rate_limited" and bool(QUOTA.search(server_errors.error_message(body)))


def reset_s(headers: Mapping[str, str], now_s: float) -> Optional[float]:
    """Seconds until the server accepts requests again, by its headers; None if they do not show it.

    now_s: seconds since 1970. A header names seconds, a duration such as 1m30s, a date, or a moment
    since 1970 in seconds or milliseconds.
    """
    for name in RESET_HEADERS:
        text = headers.get(name, "").strip()
        if re.fullmatch(r"\d{1,15}(\.\d+)?", text):
            number = float(text)
            moment_s = number / 1000 if number > 1e11 else number
            return max(moment_s - now_s, 0.0) if moment_s > 1e9 else number
        parts = DURATION.fullmatch(text) if text else None
        if parts:
            return sum(float(part) * unit for part, unit in zip(parts.groups(), UNITS_S) if part)
        try:
            return max(email.utils.parsedate_to_datetime(text).timestamp() - now_s, 0.0)
        except (TypeError, ValueError, IndexError, OverflowError):
            continue
    return None
