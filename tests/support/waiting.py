"""Waiting for a condition, with a deadline and never with a fixed sleep."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

PAUSE = 0.02
"""Seconds between two looks: short beside everything that is measured, long beside one look."""


async def eventually(
    look: Callable[[], Awaitable[T]],
    *,
    within: float,
    what: str,
    good: Callable[[T], bool] = bool,
) -> T:
    """Look until `good(value)` holds and return that value.

    Raises AssertionError after `within` seconds, naming `what` was waited for and what was seen.
    """
    deadline = time.monotonic() + within
    while True:
        value = await look()
        if good(value):
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s: {what}; last seen: {value!r}")
        await asyncio.sleep(PAUSE)
