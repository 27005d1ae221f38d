"""Adding up the counts of replies."""

from __future__ import annotations

from typing import Any

from interview_peer.core.usage import add_usage
from interview_peer.types import Json


def test_counts_are_added_by_kind_at_every_depth() -> None:
    total: Json = {}
    for _ in range(2):
        add_usage(total, {"total_tokens": 3, "input_token_details": {"text_tokens": 1}})
    assert total == {"total_tokens": 6, "input_token_details": {"text_tokens": 2}}


def test_what_is_no_count_is_left_out() -> None:
    total: Json = {}
    add_usage(total, {"a": "1", "b": None, "c": True, "d": [1], "e": 1.5, "f": 1})
    assert total == {"f": 1}


def test_shape_that_changes_midway_breaks_nothing() -> None:
    total: Json = {"a": 1, "b": {"c": 1}}
    add_usage(total, {"a": {"x": 1}, "b": 2})
    assert total == {"a": 1, "b": {"c": 1}}


def test_endless_nesting_is_cut() -> None:
    nested: dict[str, Any] = {}
    for _ in range(500):
        nested = {"n": nested, "count": 1}
    total: Json = {}
    add_usage(total, nested)
    depth = 0
    while "n" in total:
        total, depth = total["n"], depth + 1
    assert depth < 10
