"""Adds up what the voice service counted: tokens, by kind, of every reply."""

from __future__ import annotations

from ..types import Json

_DEEPEST = 4


def add_usage(total: Json, usage: Json, depth: int = 0) -> None:
    """Add one reply's ``usage`` into ``total``, which has the same shape; only counts are taken."""
    for name, value in usage.items():
        if isinstance(value, bool):
            continue
        if isinstance(value, int):
            known = total.get(name, 0)
            if isinstance(known, int):
                total[name] = known + value
        elif isinstance(value, dict) and depth < _DEEPEST:
            below = total.setdefault(name, {})
            if isinstance(below, dict):
                add_usage(below, value, depth + 1)
