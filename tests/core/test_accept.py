"""The Accept header chooses among what a path has."""

from __future__ import annotations

import pytest

from interview_peer.core.accept import preferred

OFFERED = ["application/json", "text/plain", "text/vtt"]


@pytest.mark.parametrize(
    ("header", "wanted"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("text/*", "text/plain"),
        ("text/vtt", "text/vtt"),
        ("TEXT/VTT; charset=utf-8", "text/vtt"),
        ("text/html, application/xml;q=0.9, */*;q=0.8", "application/json"),
        ("text/plain;q=0.5, text/vtt;q=0.7", "text/vtt"),
        ("application/json;q=0, */*", "text/plain"),
        ("text/*;q=0.3, text/plain;q=0.1, */*;q=0.2", "text/vtt"),
        ("nonsense, text/vtt", "text/vtt"),
        ("text/plain;q=nan, text/vtt;q=0.1", "text/vtt"),
        ("text/plain;q=7, text/vtt;q=0.1", "text/vtt"),
        ("text/html", None),
        ("*/*;q=0", None),
        (",;,", None),
    ],
)
def test_the_most_wanted_type_is_chosen(header: str | None, wanted: str | None) -> None:
    assert preferred(header, OFFERED) == wanted


def test_nothing_offered_is_nothing_chosen() -> None:
    assert preferred(None, []) is None
