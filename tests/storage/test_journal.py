"""The journal's lines: shape, order, bounds, odd contents."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from interview_peer.storage.journal import WAITING_CHARACTERS, WAITING_EVENTS, Journal
from interview_peer.types import Direction, SessionId

WALL = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)


def opened() -> Journal:
    return Journal(SessionId("abc"), 100.0, WALL)


def lines(data: bytes) -> list[dict[str, Any]]:
    assert data == b"" or data.endswith(b"\n")
    return [json.loads(line) for line in data.decode().splitlines()]


def test_the_first_line_names_session_and_schema() -> None:
    assert lines(opened().take()) == [
        {
            "t": 0.0,
            "at": "2026-11-20T10:00:00.000Z",
            "direction": None,
            "event": {"type": "interview.started", "session_id": "abc", "schema": 1},
        }
    ]


def test_events_keep_order_time_and_direction() -> None:
    journal = opened()
    journal.record(Direction.TO_MODEL, 112.3456, {"type": "response.create"})
    assert len(lines(journal.take())) == 2
    journal.record(Direction.TO_BROWSER, 113.0, '{"type":\n "x",\r\n "n": 1}')
    journal.record(None, 113.5, {"type": "interview.ended"})
    model, own = lines(journal.take())
    assert model == {
        "t": 13.0,
        "at": "2026-11-20T10:00:13.000Z",
        "direction": "to_browser",
        "event": {"type": "x", "n": 1},
    }
    assert own["direction"] is None
    assert journal.take() == b""
    assert journal.events == 4


def test_dates_are_utc_whatever_zone_the_start_came_in() -> None:
    local = WALL.astimezone(timezone(timedelta(hours=5, minutes=30)))
    (line,) = lines(Journal(SessionId("abc"), 0.0, local).take())
    assert line["at"] == "2026-11-20T10:00:00.000Z"


def test_text_that_utf8_cannot_hold_is_kept_as_escapes() -> None:
    journal = opened()
    event = {"type": "x", "text": "gr\u00fc\u00df \ud83d \u2028 \u0085"}
    journal.record(Direction.TO_MODEL, 101.0, event)
    journal.record(Direction.TO_MODEL, 101.0, {"type": "y", "text": "gr\u00fc\u00df"})
    data = journal.take()
    assert data.count(b"\n") == 3
    second, third = (json.loads(line) for line in data.split(b"\n")[1:3])
    assert second["event"] == event
    assert third["event"]["text"] == "gr\u00fc\u00df"
    assert "gr\u00fc\u00df".encode() in data


def test_an_event_that_is_no_json_is_counted_and_harms_no_other() -> None:
    journal = opened()
    journal.record(Direction.TO_MODEL, 101.0, {"type": "x", "value": float("nan")})
    journal.record(Direction.TO_MODEL, 101.0, {"type": "x", "value": object()})
    journal.record(Direction.TO_MODEL, 101.0, {"type": "good"})
    assert [line["event"]["type"] for line in lines(journal.take())] == [
        "interview.started",
        "good",
    ]
    assert (journal.events, journal.dropped) == (2, 2)


def test_waiting_events_are_bounded() -> None:
    journal = opened()
    for _ in range(WAITING_EVENTS + 10):
        journal.record(None, 101.0, {"type": "x"})
    assert journal.dropped == 11
    assert len(lines(journal.take())) == WAITING_EVENTS
    journal.record(None, 102.0, {"type": "x"})
    assert len(lines(journal.take())) == 1


def test_waiting_text_is_bounded_by_its_length_and_the_room_comes_back() -> None:
    journal = opened()
    large = '{"a":"' + "x" * (WAITING_CHARACTERS // 2) + '"}'
    for _ in range(2):
        journal.record(None, 101.0, large)
    journal.record(None, 101.0, '{"a":"small"}')
    assert journal.dropped == 1
    assert [len(str(line["event"].get("a", ""))) > 5 for line in lines(journal.take())] == [
        False,
        True,
        False,
    ]
    journal.record(None, 102.0, large)
    assert len(lines(journal.take())) == 1
    assert journal.dropped == 1
