"""The server takes part in an interview: the model's tools, from the call to the recording."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from interview_peer.app import Server
from interview_peer.core.lifecycle import Reason
from interview_peer.core.tools import END_INTERVIEW
from interview_peer.session.interview import Interview
from interview_peer.types import Json
from tests.support.caller import Caller, calling
from tests.support.inprocess import serving
from tests.support.operator import KEY, Operator

from .conftest import JOIN_SECRET
from .test_interviews import join


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with serving(tmp_path, admin_key=KEY, join_secret=JOIN_SECRET) as server:
        yield server


@pytest.fixture
async def operator(server: Server) -> AsyncIterator[Operator]:
    async with calling(server.url) as caller:
        yield Operator(caller)


@pytest.fixture
async def candidate(server: Server) -> AsyncIterator[Caller]:
    async with calling(server.url) as caller:
        yield caller


async def begun(server: Server, operator: Operator, candidate: Caller) -> tuple[Json, Interview]:
    """An interview whose interviewer has begun to speak."""
    made = await operator.make()
    await join(candidate, made)
    await candidate.event("output_audio_buffer.started")
    return made, server.interviews.find(made["id"])


def be_quiet(interview: Interview) -> None:
    """Stop what is being said, as a barge-in would."""
    interview._relay.to_model({"type": "response.cancel"})
    interview._relay.to_model({"type": "output_audio_buffer.clear"})


def call_a_tool(interview: Interview, name: str) -> None:
    """Let the simulated model call a tool in its next reply."""
    choice = {"tool_choice": {"type": "function", "name": name}}
    interview._relay.to_model({"type": "response.create", "response": choice})


def journal(folder: Path, session_id: str) -> list[tuple[str | None, str, Json]]:
    """Direction, type and event of each line."""
    text = (folder / "interviews" / session_id / "events.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    return [(line["direction"], line["event"]["type"], line["event"]) for line in lines]


async def test_the_interviewer_ends_the_interview_by_its_tool(
    server: Server, operator: Operator, candidate: Caller, tmp_path: Path
) -> None:
    made, interview = await begun(server, operator, candidate)
    be_quiet(interview)
    await candidate.event("output_audio_buffer.cleared")
    call_a_tool(interview, END_INTERVIEW)
    ended = await candidate.message("session_ended", within=20)
    assert ended["reason"] == "interviewer_ended"
    shown = await operator.show(made)
    assert (shown["phase"], shown["reason"]) == ("ended", "interviewer_ended")

    lines = journal(tmp_path, made["id"])
    steps = [
        (direction, kind)
        for direction, kind, event in lines
        if event.get("item", {}).get("type", "").startswith("function_call")
        or kind in ("response.create", "output_audio_buffer.stopped")
        or event.get("phase") == "ending"
    ]
    begin = steps.index(("to_browser", "response.output_item.added"))
    assert steps[begin:] == [
        ("to_browser", "response.output_item.added"),
        ("to_browser", "conversation.item.added"),
        ("to_browser", "conversation.item.done"),
        ("to_browser", "response.output_item.done"),
        # Answered before anything else is asked for; the goodbye is heard before the end.
        ("to_model", "conversation.item.create"),
        ("to_browser", "conversation.item.added"),
        ("to_browser", "conversation.item.done"),
        ("to_model", "response.create"),
        ("to_browser", "output_audio_buffer.stopped"),
        (None, "interview.phase"),
    ]
    transcript = json.loads(
        (tmp_path / "interviews" / made["id"] / "transcript.json").read_text(encoding="utf-8")
    )
    calls = [mark for mark in transcript["marks"] if mark["kind"] == "tool_call"]
    assert [(mark["name"], mark["after"]) for mark in calls] == [
        (END_INTERVIEW, transcript["turns"][0]["item_id"])
    ]
    greeting, goodbye = transcript["turns"]
    assert (greeting["status"], goodbye["status"]) == ("interrupted", "complete")


async def test_an_unknown_tool_is_answered_and_the_interview_goes_on(
    server: Server, operator: Operator, candidate: Caller, tmp_path: Path
) -> None:
    made, interview = await begun(server, operator, candidate)
    be_quiet(interview)
    await candidate.event("output_audio_buffer.cleared")
    call_a_tool(interview, "no_such_tool")
    # The reply that the server asks for is heard.
    await candidate.event("output_audio_buffer.started")
    assert interview.statistics()["control"]["tools_unknown"] == 1
    assert interview.reason is None
    await interview.end(Reason.OPERATOR_REQUEST)
    outputs = [
        event["item"]["output"]
        for direction, kind, event in journal(tmp_path, made["id"])
        if direction == "to_model" and event.get("item", {}).get("type") == "function_call_output"
    ]
    assert [json.loads(output)["ok"] for output in outputs] == [False]


async def test_an_open_client_is_given_no_tools(server: Server, candidate: Caller) -> None:
    await candidate.open()
    await candidate.connect()
    assert (await candidate.event("session.created"))["session"]["tools"] == []
