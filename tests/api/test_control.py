"""The server takes part in an interview: by what operators ask for, and by the model's tools.

Each from the request, or the call, to the journal and the transcript.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from datetime import datetime
from pathlib import Path

import pytest

from interview_peer.app import Server
from interview_peer.core.lifecycle import Reason
from interview_peer.core.realtime import model_event
from interview_peer.core.replay import rebuild
from interview_peer.core.tools import END_INTERVIEW
from interview_peer.session import control as control_module
from interview_peer.session.control import MAX_WAITING
from interview_peer.session.interview import Interview
from interview_peer.simulator.server import RunningSimulator, SimulatorSettings, start_simulator
from interview_peer.types import Json, SessionId
from interview_peer.web import control_api
from tests.support.caller import Caller, Reply, calling
from tests.support.inprocess import live, serving
from tests.support.operator import KEY, PATH, Operator
from tests.support.waiting import eventually

from .conftest import JOIN_SECRET
from .test_interviews import UNKNOWN, join

WORDS = "Please take your time with this one."


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


async def begun(
    server: Server, operator: Operator, candidate: Caller, **wanted: object
) -> tuple[Json, Interview]:
    """An interview whose interviewer has begun to speak."""
    made = await operator.make(**wanted)
    await join(candidate, made)
    await candidate.event("output_audio_buffer.started")
    return made, server.interviews.find(made["id"])


async def ask(operator: Operator, made: Json, action: str, **body: object) -> Reply:
    return await operator.ask("POST", f"{PATH}/{made['id']}/{action}", json=body)


async def code(operator: Operator, made: Json, action: str, **body: object) -> str:
    """The status and code of a refusal."""
    reply = await ask(operator, made, action, **body)
    return f"{reply.status} {reply.json()['error']['code']}"


def be_quiet(interview: Interview) -> None:
    """Stop what is being said, as a barge-in would."""
    interview._relay.to_model({"type": "response.cancel"})
    interview._relay.to_model({"type": "output_audio_buffer.clear"})


def hold_floor(interview: Interview) -> None:
    """Let the candidate speak, for the control, until ``free_floor``."""
    event = {"type": "input_audio_buffer.speech_started", "item_id": "held", "audio_start_ms": 0}
    interview.control.take(model_event(event))


def free_floor(interview: Interview) -> None:
    """The candidate falls silent, and so does the interviewer."""
    event = {"type": "input_audio_buffer.speech_stopped", "item_id": "held", "audio_end_ms": 900}
    interview.control.take(model_event(event))
    be_quiet(interview)


def call_a_tool(interview: Interview, name: str) -> None:
    """Let the simulated model call a tool in its next reply."""
    choice = {"tool_choice": {"type": "function", "name": name}}
    interview._relay.to_model({"type": "response.create", "response": choice})


def journal(folder: Path, session_id: str) -> list[tuple[str | None, str, Json]]:
    """Direction, type and event of each line."""
    text = (folder / "interviews" / session_id / "events.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    return [(line["direction"], line["event"]["type"], line["event"]) for line in lines]


# -- what operators ask for


async def test_what_is_asked_for_happens_in_order_and_is_in_journal_and_transcript(
    server: Server,
    operator: Operator,
    candidate: Caller,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    made, interview = await begun(server, operator, candidate)
    told = await ask(operator, made, "instruct", text="Ask about bridges next.")
    assert (told.status, told.json()["response_id"]) == (200, None)
    item_id = told.json()["item_id"]
    said = await ask(operator, made, "say", text=WORDS, interrupt=True)
    assert said.status == 200
    reply = await ask(operator, made, "end", say="Goodbye.", seconds=30)
    assert (reply.json()["phase"], reply.json()["reason"]) == ("ended", "operator_request")

    heard = "\n".join(candidate.heard)
    assert said.json()["response_id"] in heard
    assert "phase" in caplog.text
    assert item_id not in heard
    for text in ("bridges next", WORDS, "Goodbye."):
        assert text not in heard, "the candidate is told nothing of it"
        assert text not in caplog.text

    lines = journal(tmp_path, made["id"])
    steps = [
        (direction, kind.removeprefix("conversation.").removeprefix("output_audio_buffer."))
        for direction, kind, event in lines
        if direction == "to_model"
        or event.get("item", {}).get("id") == item_id
        or kind in ("response.created", "output_audio_buffer.stopped")
        or kind == "output_audio_buffer.cleared"
        or event.get("phase") == "ending"
    ]
    assert steps == [
        ("to_browser", "response.created"),
        ("to_model", "item.create"),
        ("to_browser", "item.added"),
        ("to_browser", "item.done"),
        # What is said is interrupted, and its end heard of, before the words are asked for.
        *[("to_model", "response.cancel")] * steps.count(("to_model", "response.cancel")),
        ("to_model", "clear"),
        ("to_browser", "cleared"),
        ("to_model", "response.create"),
        ("to_browser", "response.created"),
        # The words were heard, and then the goodbye.
        ("to_browser", "stopped"),
        ("to_model", "response.create"),
        ("to_browser", "response.created"),
        ("to_browser", "stopped"),
        (None, "interview.phase"),
    ]
    wishes = [
        event["response"]["instructions"].split("\n\n")[1]
        for _, kind, event in lines
        if kind == "response.create"
    ]
    assert wishes == [WORDS, "Goodbye."]
    created = [event["response"]["id"] for _, kind, event in lines if kind == "response.created"]
    assert said.json()["response_id"] == created[1]

    folder = tmp_path / "interviews" / made["id"]
    text = (folder / "events.jsonl").read_text(encoding="utf-8")
    live = interview.transcript_so_far()
    assert live is not None
    began = datetime.fromisoformat(json.loads(text.splitlines()[0])["at"])
    again = rebuild(text.splitlines()).document(SessionId(made["id"]), began, final=False)
    assert json.dumps(again) == json.dumps(live)
    assert [turn["status"] for turn in live["turns"]] == ["interrupted", "complete", "complete"]
    marks = [(mark["kind"], mark["item_id"]) for mark in live["marks"] if mark["kind"] != "silence"]
    spoken = [turn["item_id"] for turn in live["turns"]]
    assert marks == [("instruction", item_id), ("dictated", spoken[1]), ("dictated", spoken[2])]
    kept = json.loads((folder / "transcript.json").read_text(encoding="utf-8"))
    assert [mark for mark in kept["marks"] if mark["kind"] != "silence"] == [
        mark for mark in live["marks"] if mark["kind"] != "silence"
    ]


async def test_an_instruction_may_ask_for_a_reply(
    server: Server, operator: Operator, candidate: Caller
) -> None:
    made, interview = await begun(server, operator, candidate)
    told = await ask(operator, made, "instruct", text="Greet.", respond=True, interrupt=True)
    assert told.status == 200
    began = await candidate.event(
        "response.created", where=lambda one: one["response"]["id"] == told.json()["response_id"]
    )
    assert began["response"]["status"] == "in_progress"
    assert interview.statistics()["control"] == {"instructed": 1, "interrupted": 1, "said": 1}


async def test_words_that_wait_long_are_answered_before_they_are_said(
    server: Server, operator: Operator, candidate: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_api, "BEGIN_SECONDS", 0.1)
    made, interview = await begun(server, operator, candidate)
    hold_floor(interview)
    headers = {"Idempotency-Key": "k-1"}
    path = f"{PATH}/{made['id']}/say"
    first = await operator.ask("POST", path, json={"text": WORDS}, headers=headers)
    assert (first.status, first.json()["response_id"]) == (202, None)
    free_floor(interview)

    async def said() -> bool:
        return interview.control.counters["said"] == 1

    await eventually(said, within=10, what="the words begun")
    # Asked again, it is known and not said twice.
    again = await operator.ask("POST", path, json={"text": WORDS}, headers=headers)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.status == 200
    response_id = again.json()["response_id"]
    await candidate.event(
        "response.created", where=lambda one: one["response"]["id"] == response_id
    )
    assert interview.control.counters["said"] == 1
    other = await operator.ask("POST", path, json={"text": "Else."}, headers=headers)
    assert (other.status, other.json()["error"]["code"]) == (409, "IDEMPOTENCY_CONFLICT")


async def test_what_is_refused_may_be_asked_for_again_with_the_same_key(
    server: Server, operator: Operator, candidate: Caller
) -> None:
    made, interview = await begun(server, operator, candidate)
    send = interview.control._send
    interview.control._send = lambda event: False
    ask: Json = {"json": {"text": "Be brief."}, "headers": {"Idempotency-Key": "k-1"}}
    path = f"{PATH}/{made['id']}/instruct"
    refused = await operator.ask("POST", path, **ask)
    assert refused.json()["error"]["code"] == "INTERVIEW_NOT_LIVE"
    interview.control._send = send
    assert (await operator.ask("POST", path, **ask)).status == 200


async def test_an_instruction_is_given_once_however_often_its_reply_is_refused(
    server: Server, operator: Operator, candidate: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, interview = await begun(server, operator, candidate)
    counters = interview.control.counters
    hold_floor(interview)
    waiting = [asyncio.create_task(interview.control.say("Wait.")) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    path = f"{PATH}/{made['id']}/instruct"
    wish: Json = {
        "json": {"text": "Be brief.", "respond": True},
        "headers": {"Idempotency-Key": "k-1"},
    }
    refused = await operator.ask("POST", path, **wish)
    assert refused.json()["error"]["code"] == "TOO_MUCH_TO_SAY"
    # Refused as a whole.
    assert counters["instructed"] == 0
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    free_floor(interview)
    # The model takes the instruction, and then no wish for a reply.
    send = interview.control._send
    broken = {"response": {"conversation": "nonsense"}}
    interview.control._send = lambda event: send(
        {**event, **(broken if event["type"] == "response.create" else {})}
    )
    refused = await operator.ask("POST", path, **wish)
    assert refused.json()["error"]["code"] == "MODEL_REFUSED"
    interview.control._send = send
    told = await operator.ask("POST", path, **wish)
    assert told.status == 200 and told.json()["response_id"] is not None
    assert counters["instructed"] == 1
    again = await operator.ask("POST", path, **wish)
    assert again.headers["idempotent-replayed"] == "true"
    assert again.json() == told.json()


async def test_a_model_that_refuses_is_told_as_such(
    server: Server, operator: Operator, candidate: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, interview = await begun(server, operator, candidate)
    send = interview.control._send
    broken = {"previous_item_id": "item_of_nobody"}
    interview.control._send = lambda event: send({**event, **broken})
    assert await code(operator, made, "instruct", text="x") == "502 MODEL_REFUSED"
    interview.control._send = lambda event: True
    # Its silence, too.
    monkeypatch.setattr(control_module, "ANSWER_SECONDS", 0.1)
    assert await code(operator, made, "instruct", text="x") == "503 UPSTREAM_TIMEOUT"
    assert interview.reason is None


async def test_only_a_live_interview_can_be_told_something(
    server: Server, operator: Operator, candidate: Caller
) -> None:
    made = await operator.make()
    for action in ("instruct", "say"):
        assert await code(operator, {"id": UNKNOWN}, action, text="x") == "404 SESSION_NOT_FOUND"
        assert await code(operator, made, action, text="x") == "409 INTERVIEW_NOT_LIVE"
    await join(candidate, made)
    await candidate.drop()
    await candidate.phase("detached")
    # The model is held, and knows it when the candidate comes back; words nobody would hear.
    assert (await ask(operator, made, "instruct", text="x")).status == 200
    assert await code(operator, made, "instruct", text="x", respond=True) == (
        "409 INTERVIEW_NOT_LIVE"
    )
    assert await code(operator, made, "say", text="x") == "409 INTERVIEW_NOT_LIVE"
    ended = await ask(operator, made, "end", politely=True)
    assert ended.json()["phase"] == "ended"
    for action in ("instruct", "say"):
        assert await code(operator, made, action, text="x") == "409 SESSION_ENDED"
    server.interviews.drop(made["id"])
    for action in ("instruct", "say"):
        assert await code(operator, made, action, text="x") == "409 SESSION_ENDED"


@pytest.mark.parametrize(
    ("action", "body", "field"),
    [
        ("instruct", {}, "text"),
        ("instruct", {"text": ""}, "text"),
        ("instruct", {"text": " \n"}, "text"),
        ("instruct", {"text": "x" * 8001}, "text"),
        ("instruct", {"text": "\x00"}, "text"),
        ("instruct", {"text": "\ud800"}, "text"),
        ("instruct", {"text": 7}, "text"),
        ("instruct", {"text": "x", "respond": "yes"}, "respond"),
        ("instruct", {"text": "x", "interrupt": True}, "interrupt"),
        ("instruct", {"text": "x", "role": "user"}, "role"),
        ("say", {"text": "x" * 2001}, "text"),
        ("say", {"text": "x", "interrupt": None}, "interrupt"),
        ("end", {"say": ""}, "say"),
        ("end", {"politely": True, "seconds": 61}, "seconds"),
        ("end", {"politely": True, "seconds": 0}, "seconds"),
        ("end", {"seconds": 5}, "seconds"),
    ],
)
async def test_a_field_that_cannot_be_used_is_named(
    plain: Operator, action: str, body: Json, field: str
) -> None:
    reply = await ask(plain, {"id": UNKNOWN}, action, **body)
    assert (reply.status, reply.json()["error"]["field"]) == (422, field)


async def test_only_operators_take_part_and_not_too_often(
    server: Server, operator: Operator, candidate: Caller
) -> None:
    made, interview = await begun(server, operator, candidate)
    for action in ("instruct", "say", "end"):
        path = f"{PATH}/{made['id']}/{action}"
        assert (await candidate.post(path, json={"text": "x"})).status == 401
        token = {"Authorization": f"Bearer {made['join_token']}"}
        assert (await candidate.post(path, json={"text": "x"}, headers=token)).status == 401
    seen = [(await ask(operator, made, "instruct", text="x")).status for _ in range(12)]
    assert seen[:10] == [200] * 10
    assert 429 in seen
    assert interview.control.counters["rate_limited"] == seen.count(429)


async def test_an_end_without_a_goodbye_is_at_once(
    server: Server, operator: Operator, candidate: Caller
) -> None:
    made, interview = await begun(server, operator, candidate)
    reply = await operator.ask("POST", f"{PATH}/{made['id']}/end")
    assert (reply.status, reply.json()["phase"]) == (200, "ended")
    assert interview.statistics()["control"] == {}


# -- the model's tools


@pytest.fixture
async def calling_simulator() -> AsyncIterator[RunningSimulator]:
    """A simulator whose model calls its tool once it has said a line, in a reply of its own."""
    simulator = await start_simulator(SimulatorSettings(tool_after=1, tool_speaks=False))
    yield simulator
    await simulator.close()


async def test_the_interviewer_ends_the_interview_by_its_tool(
    calling_simulator: RunningSimulator, tmp_path: Path
) -> None:
    settings = live(calling_simulator.base_url, admin_key=KEY, join_secret=JOIN_SECRET)
    async with (
        serving(tmp_path, **settings) as server,
        calling(server.url) as asking,
        calling(server.url) as candidate,
    ):
        operator = Operator(asking)
        made, _ = await begun(server, operator, candidate)
        candidate.speak(seconds=1)
        await ends_by_its_tool(operator, candidate, made, tmp_path)


async def test_an_interviewer_that_calls_its_tool_while_speaking_is_heard_to_the_end(
    calling_simulator: RunningSimulator, tmp_path: Path
) -> None:
    calling_simulator.settings = calling_simulator.settings.changed(tool_speaks=True)
    settings = live(calling_simulator.base_url, admin_key=KEY, join_secret=JOIN_SECRET)
    async with (
        serving(tmp_path, **settings) as server,
        calling(server.url) as asking,
        calling(server.url) as candidate,
    ):
        operator = Operator(asking)
        made, _ = await begun(server, operator, candidate)
        ended = await candidate.message("session_ended", within=20)
    assert ended["reason"] == "interviewer_ended"
    lines = [(kind, event) for _, kind, event in journal(tmp_path, made["id"])]
    (done,) = [event["response"] for kind, event in lines if kind == "response.done"]
    assert [item["type"] for item in done["output"]] == ["message", "function_call"]
    kinds = [kind for kind, _ in lines]
    # The sound lasts longer than it took to generate it.
    assert kinds.index("response.done") < kinds.index("output_audio_buffer.stopped")


async def ends_by_its_tool(
    operator: Operator, candidate: Caller, made: Json, tmp_path: Path
) -> None:
    ended = await candidate.message("session_ended", within=20)
    assert ended["reason"] == "interviewer_ended"
    shown = await operator.show(made)
    assert (shown["phase"], shown["reason"]) == ("ended", "interviewer_ended")
    heard = "\n".join(candidate.heard)
    assert "interviewer_ended" in heard
    for withheld in ("function_call", END_INTERVIEW):
        assert withheld not in heard, "the browser takes no part in it"

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
        (END_INTERVIEW, transcript["turns"][1]["item_id"])
    ]
    said = [(turn["speaker"], turn["status"]) for turn in transcript["turns"]]
    assert said[0] == ("interviewer", "interrupted")
    assert said[1][0] == "candidate"
    assert said[2:] == [("interviewer", "complete")]


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
    answer = {"type": "function_call_output", "call_id": "call_1", "output": "{}"}
    candidate.say({"type": "conversation.item.create", "event_id": "forged", "item": answer})
    refused = await candidate.event("error")
    assert refused["error"]["event_id"] == "forged"
    await interview.end(Reason.OPERATOR_REQUEST)
    outputs = [
        event["item"]["output"]
        for direction, kind, event in journal(tmp_path, made["id"])
        if direction == "to_model" and event.get("item", {}).get("type") == "function_call_output"
    ]
    assert [json.loads(output)["ok"] for output in outputs] == [False]


async def test_a_plan_may_keep_the_interviewer_from_tools(
    server: Server, operator: Operator, candidate: Caller, tmp_path: Path
) -> None:
    plan = {"instructions": "Ask.", "tools": []}
    made, interview = await begun(server, operator, candidate, plan=plan)
    assert made["plan"]["tools"] == []
    await interview.end(Reason.OPERATOR_REQUEST)
    created = [
        event for _, kind, event in journal(tmp_path, made["id"]) if kind == "session.created"
    ]
    assert [event["session"]["tools"] for event in created] == [[]]


async def test_an_open_client_is_given_no_tools(server: Server, candidate: Caller) -> None:
    await candidate.open()
    await candidate.connect()
    assert (await candidate.event("session.created"))["session"]["tools"] == []
