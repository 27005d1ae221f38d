"""The page's transcript shows the same conversation as the server's, however the events arrive."""

from __future__ import annotations

from typing import Any

from interview_peer.core import realtime
from interview_peer.core.transcript import Transcript
from interview_peer.types import Json
from tests.support.chromium import Browser, browsing
from tests.support.server import ServerProcess

FEED = """async ([events, ended]) => {
  const { Transcript } = await import("/static/transcript.js");
  const transcript = new Transcript();
  for (const event of events) transcript.feed(event);
  if (ended) transcript.finish();
  return transcript.turns();
}"""


def _item(name: str, role: str, status: str = "completed", content: Any = ()) -> Json:
    return {
        "id": name,
        "type": "message",
        "role": role,
        "status": status,
        "content": list(content),
    }


def _candidate(name: str, after: str | None) -> list[Json]:
    return [
        {"type": "input_audio_buffer.speech_started", "item_id": name, "audio_start_ms": 0},
        {"type": "input_audio_buffer.speech_stopped", "item_id": name, "audio_end_ms": 900},
        {"type": "input_audio_buffer.committed", "item_id": name, "previous_item_id": after},
        {
            "type": "conversation.item.added",
            "previous_item_id": after,
            "item": _item(name, "user", content=[{"type": "input_audio", "transcript": None}]),
        },
        {
            "type": "conversation.item.done",
            "previous_item_id": after,
            "item": _item(name, "user", content=[{"type": "input_audio", "transcript": None}]),
        },
    ]


def _heard(name: str, text: str) -> Json:
    return {
        "type": "conversation.item.input_audio_transcription.completed",
        "item_id": name,
        "content_index": 0,
        "transcript": text,
    }


def _begins(reply: str, name: str, after: str | None) -> list[Json]:
    item = _item(name, "assistant", "in_progress")
    return [
        {"type": "response.created", "response": {"id": reply, "status": "in_progress"}},
        {"type": "response.output_item.added", "response_id": reply, "item": item},
        {"type": "conversation.item.added", "previous_item_id": after, "item": item},
    ]


def _says(reply: str, name: str, *pieces: str) -> list[Json]:
    return [
        {
            "type": "response.output_audio_transcript.delta",
            "response_id": reply,
            "item_id": name,
            "delta": piece,
            "obfuscation": "x9",
        }
        for piece in pieces
    ]


def _ends(reply: str, name: str, text: str, status: str = "completed") -> list[Json]:
    item = _item(name, "assistant", "completed" if status == "completed" else "incomplete")
    return [
        {
            "type": "response.output_audio_transcript.done",
            "response_id": reply,
            "item_id": name,
            "transcript": text,
        },
        {"type": "conversation.item.done", "item": item},
        {"type": "response.output_item.done", "response_id": reply, "item": item},
        {"type": "response.done", "response": {"id": reply, "status": status, "output": [item]}},
    ]


def _sounds(reply: str, what: str = "started") -> Json:
    return {"type": f"output_audio_buffer.{what}", "response_id": reply}


def _cut(name: str, reply: str) -> list[Json]:
    return [
        {"type": "output_audio_buffer.cleared", "response_id": reply},
        {
            "type": "conversation.item.truncated",
            "item_id": name,
            "content_index": 0,
            "audio_end_ms": 700,
        },
    ]


CASES: dict[str, tuple[list[Json], list[tuple[str, str, str]]]] = {
    "text of the candidate after the reply has ended": (
        [
            *_candidate("U", None),
            *_begins("R", "A", "U"),
            *_says("R", "A", "Thank ", "you."),
            *_ends("R", "A", "Thank you."),
            _heard("U", "I am here."),
        ],
        [
            ("candidate", "I am here.", "complete"),
            ("interviewer", "Thank you.", "complete"),
        ],
    ),
    "a reply still growing": (
        [*_begins("R", "A", None), *_says("R", "A", "Thank ", "you")],
        [("interviewer", "Thank you", "partial")],
    ),
    "an interruption after the words were all there": (
        [
            *_begins("R", "A", None),
            *_says("R", "A", "Which one?"),
            *_ends("R", "A", "Which one?"),
            *_cut("A", "R"),
            *_candidate("U", "A"),
            _heard("U", "Wait."),
        ],
        [
            ("interviewer", "Which one?", "interrupted"),
            ("candidate", "Wait.", "complete"),
        ],
    ),
    "an interruption while the words were still coming": (
        [
            *_begins("R", "A", None),
            *_says("R", "A", "Which "),
            *_cut("A", "R"),
            *_ends("R", "A", "Which ", "cancelled"),
            *_candidate("U", "A"),
            _heard("U", "Wait."),
        ],
        [
            ("interviewer", "Which", "interrupted"),
            ("candidate", "Wait.", "complete"),
        ],
    ),
    "a transcription that failed": (
        [
            *_candidate("U", None),
            {
                "type": "conversation.item.input_audio_transcription.failed",
                "item_id": "U",
                "content_index": 0,
                "error": {"type": "server_error", "code": "x", "message": "y"},
            },
        ],
        [("candidate", "", "failed")],
    ),
    "a silence that became an item, and what a transcription made of it": (
        [
            {
                "type": "input_audio_buffer.timeout_triggered",
                "item_id": "I",
                "audio_start_ms": 0,
                "audio_end_ms": 5000,
            },
            *_candidate("I", None)[2:],
            *_begins("R", "A", "I"),
            *_ends("R", "A", "Are you there?"),
            _heard("I", "Thank you for watching."),
        ],
        [("interviewer", "Are you there?", "complete")],
    ),
    "an item placed before one that came earlier": (
        [
            *_begins("R", "A", None),
            *_ends("R", "A", "Second."),
            *_candidate("U", None),
            {
                "type": "conversation.item.added",
                "previous_item_id": "U",
                "item": _item("A", "assistant", "completed"),
            },
            _heard("U", "First."),
        ],
        [
            ("candidate", "First.", "complete"),
            ("interviewer", "Second.", "complete"),
        ],
    ),
    "events nobody knows": (
        [
            {"type": "x.unknown", "item_id": 3},
            {"type": "conversation.item.added", "item": None},
            {"type": "response.output_audio_transcript.delta", "item_id": None, "delta": 4},
            {"type": "response.done"},
        ],
        [],
    ),
}


ENDED: dict[str, tuple[list[Json], list[tuple[str, str, str]]]] = {
    "words still coming": (
        [*_begins("R", "A", None), _sounds("R"), *_says("R", "A", "Thank ", "you")],
        [("interviewer", "Thank you", "interrupted")],
    ),
    "all words there and still sounding": (
        [*_begins("R", "A", None), _sounds("R"), *_ends("R", "A", "Thank you.")],
        [("interviewer", "Thank you.", "interrupted")],
    ),
    "heard to the end": (
        [
            *_begins("R", "A", None),
            _sounds("R"),
            *_ends("R", "A", "Thank you."),
            _sounds("R", "stopped"),
        ],
        [("interviewer", "Thank you.", "complete")],
    ),
    "sounding without a word": (
        [*_begins("R", "A", None), _sounds("R")],
        [("interviewer", "", "interrupted")],
    ),
    "announced and never begun": (_begins("R", "A", None), []),
    "the candidate speaking": (_candidate("U", None)[:1], [("candidate", "", "failed")]),
    "the candidate not transcribed yet": (_candidate("U", None), [("candidate", "", "failed")]),
    "the candidate half transcribed": (
        [
            *_candidate("U", None),
            {
                "type": "conversation.item.input_audio_transcription.delta",
                "item_id": "U",
                "content_index": 0,
                "delta": "I am",
            },
        ],
        [("candidate", "I am", "interrupted")],
    ),
}


async def test_the_page_and_the_server_keep_the_same_transcript(server: ServerProcess) -> None:
    async with browsing(None) as browser:
        await browser.page.goto(server.url)
        for name, (events, expected) in CASES.items():
            assert await _shown_by_the_page(browser, events) == expected, name
            assert _kept_by_the_server(events) == expected, name


async def test_the_page_and_the_server_agree_on_what_the_end_cut_off(server: ServerProcess) -> None:
    async with browsing(None) as browser:
        await browser.page.goto(server.url)
        for name, (events, expected) in ENDED.items():
            assert await _shown_by_the_page(browser, events, ended=True) == expected, name
            assert _kept_by_the_server(events, ended=True) == expected, name
        for name, (events, _) in CASES.items():
            shown = await _shown_by_the_page(browser, events, ended=True)
            assert shown == _kept_by_the_server(events, ended=True), name


async def _shown_by_the_page(
    browser: Browser, events: list[Json], *, ended: bool = False
) -> list[tuple[str, str, str]]:
    shown = await browser.page.evaluate(FEED, [events, ended])
    return [(turn["speaker"], turn["text"], turn["status"]) for turn in shown]


def _kept_by_the_server(events: list[Json], *, ended: bool = False) -> list[tuple[str, str, str]]:
    transcript = Transcript()
    for at, event in enumerate(events):
        transcript.feed(realtime.model_event(event), at / 10)
    if ended:
        transcript.close(len(events) / 10)
    return [(turn.speaker.value, turn.text, turn.status.value) for turn in transcript.turns()]


async def test_what_people_type_becomes_an_address(server: ServerProcess) -> None:
    meant: dict[str, object] = {
        "ws://host:1/ws": {"socket": "ws://host:1/ws", "http": "http://host:1"},
        "wss://host": {"socket": "wss://host/ws", "http": "https://host"},
        "https://host/": {"socket": "wss://host/ws", "http": "https://host"},
        " host:8080 ": {"socket": "ws://host:8080/ws", "http": "http://host:8080"},
        "ws://host/base/ws/own-id": {
            "socket": "ws://host/base/ws/own-id",
            "http": "http://host/base",
        },
        "": "BAD_ADDRESS",
        "ftp://host": "BAD_ADDRESS",
        "ws://": "BAD_ADDRESS",
    }
    async with browsing(None) as browser:
        await browser.page.goto(server.url)
        read = await browser.page.evaluate(
            """async (typed) => {
              const { serverAddress } = await import("/static/connection.js");
              const read = (one) => {
                try { return serverAddress(one, false); } catch (error) { return error.code; }
              };
              return typed.map((one) => [one, read(one)]);
            }""",
            list(meant),
        )
    assert dict(read) == meant
