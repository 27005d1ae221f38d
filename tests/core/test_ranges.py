"""Which bytes a Range header asks for."""

from __future__ import annotations

import pytest

from interview_peer.core.ranges import Span, requested
from interview_peer.errors import RangeNotSatisfiable


@pytest.mark.parametrize(
    ("header", "span"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-", (0, 100)),
        ("bytes=10-19", (10, 20)),
        ("bytes=90-400", (90, 100)),
        ("bytes=99-99", (99, 100)),
        ("bytes=-1", (99, 100)),
        ("bytes=-400", (0, 100)),
        ("Bytes = 5 - 6", (5, 7)),
    ],
)
def test_a_single_range_is_taken(header: str, span: tuple[int, int]) -> None:
    assert requested(header, 100) == Span(*span)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=9-8",
        "bytes=a-b",
        "bytes=0-1,4-5",
        "items=0-1",
        "bytes=\u0661-\u0662",
        "bytes=0-" + "9" * 40,
    ],
)
def test_what_is_no_single_range_means_the_whole(header: str | None) -> None:
    assert requested(header, 100) is None


@pytest.mark.parametrize(
    ("header", "size"),
    [("bytes=100-", 100), ("bytes=100-200", 100), ("bytes=-0", 100), ("bytes=0-", 0)],
)
def test_a_range_outside_of_the_file_is_refused(header: str, size: int) -> None:
    with pytest.raises(RangeNotSatisfiable):
        requested(header, size)


def test_a_span_knows_its_length() -> None:
    assert len(Span(10, 20)) == 10
