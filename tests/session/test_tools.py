"""Tools that the interviewer calls: run by the server, answered in any case, in the right order."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Callable

import pytest

from interview_peer.core.lifecycle import Reason
from interview_peer.core.realtime import model_event
from interview_peer.core.tools import END_INTERVIEW
from interview_peer.session import tools as tools_module
from interview_peer.session.farewell import Farewell
from interview_peer.session.tools import MAX_CALLS, MAX_REPLIES, Toolbox
from interview_peer.tasks import Tasks
from interview_peer.types import Json
from tests.support.waiting import eventually

from .scripted_service import Service


class Interviewer(Service):
    """A model that calls tools."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[Reason] = []
        self.tasks = Tasks("of a test")
        log = logging.LoggerAdapter(logging.getLogger(__name__))
        self.farewell = Farewell(self.control, self.tasks, self.ended.append, log)
        self.toolbox = Toolbox(self.control, self.farewell, self.tasks, self.ended.append, log)
        self.toolbox.given = frozenset({END_INTERVIEW})

    def tell(self, kind: str, **fields: object) -> None:
        event = model_event({"type": kind, **fields})
        self.control.take(event)
        self.toolbox.take(event)

    def begin_silently(self, conversation: str | None = "conv_1", name: str = "resp_s") -> str:
        """Begin a reply that has no sound yet."""
        self.tell("response.created", response={"id": name, "conversation_id": conversation})
        return name

    def call(self, response_id: str, name: str = END_INTERVIEW, arguments: str = "{}") -> None:
        item = {
            "id": f"item_{name}",
            "type": "function_call",
            "status": "completed",
            "call_id": f"call_{name}",
            "name": name,
            "arguments": arguments,
        }
        self.tell("response.output_item.done", response_id=response_id, output_index=1, item=item)

    def done(self, response_id: str, status: str = "completed") -> None:
        self.tell("response.done", response={"id": response_id, "status": status})

    def outputs(self) -> list[Json]:
        """What the calls were answered with."""
        return [
            json.loads(event["item"]["output"])
            for event in self.sent
            if event["type"] == "conversation.item.create"
            and event["item"]["type"] == "function_call_output"
        ]


@pytest.fixture
async def model() -> AsyncIterator[Interviewer]:
    model = Interviewer()
    yield model
    model.control.close()
    await model.tasks.drain(2)


async def until(look: Callable[[], bool], what: str) -> None:
    async def seen() -> bool:
        return look()

    await eventually(seen, within=2, what=what)


async def test_the_interview_ends_when_the_goodbye_before_the_call_was_heard(
    model: Interviewer,
) -> None:
    reply = model.begin()
    model.call(reply)
    assert model.sent == []
    model.done(reply)
    await until(lambda: bool(model.outputs()), "the call answered")
    assert model.outputs()[0]["ok"] is True
    assert model.sent[0]["item"]["call_id"] == "call_end_interview"
    assert model.ended == []
    model.tell("output_audio_buffer.stopped", response_id=reply)
    await until(lambda: bool(model.ended), "the end")
    assert model.ended == [Reason.INTERVIEWER_ENDED]
    assert model.kinds() == ["conversation.item.create"]


async def test_a_goodbye_that_was_heard_before_the_call_was_finished_is_not_waited_for(
    model: Interviewer,
) -> None:
    reply = model.begin()
    model.call(reply)
    model.tell("output_audio_buffer.stopped", response_id=reply)
    model.done(reply)
    await until(lambda: bool(model.ended), "the end")
    assert model.kinds() == ["conversation.item.create"]


async def test_a_goodbye_in_the_reply_before_the_call_is_waited_for(model: Interviewer) -> None:
    goodbye = model.begin()
    model.done(goodbye)
    reply = model.begin_silently()
    model.call(reply)
    model.done(reply)
    await until(lambda: bool(model.outputs()), "the call answered")
    assert model.ended == []
    model.tell("output_audio_buffer.stopped", response_id=goodbye)
    await until(lambda: bool(model.ended), "the end")


async def test_without_a_goodbye_one_is_asked_for_after_the_answer(model: Interviewer) -> None:
    reply = model.begin_silently()
    model.call(reply)
    model.done(reply)
    await until(lambda: bool(model.ended), "the end")
    assert model.kinds() == ["conversation.item.create", "response.create"]
    assert model.sent[1]["response"]["tool_choice"] == "none"
    assert model.ended == [Reason.INTERVIEWER_ENDED]


async def test_a_goodbye_that_is_not_heard_to_its_end_is_waited_for_only_so_long(
    model: Interviewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tools_module, "GOODBYE_SECONDS", 0.1)
    reply = model.begin()
    model.call(reply)
    model.done(reply)
    await until(lambda: bool(model.ended), "the end")


async def test_a_candidate_who_interrupts_the_goodbye_is_answered(model: Interviewer) -> None:
    reply = model.begin()
    model.call(reply)
    model.done(reply)
    await until(lambda: bool(model.outputs()), "the call answered")
    model.tell("output_audio_buffer.cleared", response_id=reply)
    await until(lambda: len(model.sent) == 2, "the model told that it goes on")
    assert model.sent[1]["item"]["role"] == "system"
    assert model.ended == []
    assert model.control.counters["goodbyes_interrupted"] == 1
    # The second time it is heard.
    again = model.begin()
    model.call(again)
    model.finish(again)
    await until(lambda: bool(model.ended), "the end")


async def test_a_call_in_an_interrupted_reply_does_nothing(model: Interviewer) -> None:
    reply = model.begin()
    model.call(reply)
    model.finish(reply, "cleared")
    await until(lambda: bool(model.outputs()), "the call answered")
    await model.tasks.drain(2)
    assert model.outputs()[0]["ok"] is False
    assert model.ended == []
    # The service answers whoever interrupted by itself.
    assert model.kinds() == ["conversation.item.create"]


@pytest.mark.parametrize(
    ("name", "arguments", "counter"),
    [
        ("no_such_tool", "{}", "tools_unknown"),
        (END_INTERVIEW, "{", "tools_refused"),
        (END_INTERVIEW, '{"why": "planted"}', "tools_refused"),
    ],
)
async def test_a_call_that_cannot_be_run_is_answered_and_the_model_goes_on(
    model: Interviewer, name: str, arguments: str, counter: str
) -> None:
    reply = model.begin_silently()
    model.call(reply, name, arguments)
    model.done(reply)
    await until(lambda: "response.create" in model.kinds(), "the model asked to go on")
    (output,) = model.outputs()
    assert output["ok"] is False and "planted" not in output["error"]
    assert model.sent[1]["response"]["tool_choice"] == "none"
    assert model.ended == []
    assert model.control.counters[counter] == 1


async def test_several_calls_are_answered_one_by_one_and_the_model_goes_on_once(
    model: Interviewer,
) -> None:
    reply = model.begin_silently()
    for number in range(MAX_CALLS + 1):
        model.call(reply, f"tool_{number}")
    model.done(reply)
    await until(lambda: "response.create" in model.kinds(), "the model asked to go on")
    assert [event["item"]["call_id"] for event in model.sent[:-1]] == [
        f"call_tool_{number}" for number in range(MAX_CALLS + 1)
    ]
    assert model.kinds().count("response.create") == 1


async def test_a_refused_answer_does_not_keep_the_interview_from_ending(
    model: Interviewer,
) -> None:
    model.refusals["conversation.item.create"] = ["invalid_value"]
    reply = model.begin()
    model.call(reply)
    model.finish(reply)
    await until(lambda: bool(model.ended), "the end")


async def test_a_clients_own_tools_are_the_clients(model: Interviewer) -> None:
    model.toolbox.is_alone = False
    aside = model.begin_silently(conversation=None, name="resp_aside")
    model.call(aside)
    model.done(aside)
    reply = model.begin_silently()
    model.call(reply, "of_the_client")
    model.done(reply)
    await model.tasks.drain(2)
    assert (model.sent, model.ended) == ([], [])


async def test_a_tool_that_was_not_given_is_not_run(model: Interviewer) -> None:
    model.toolbox.given = frozenset()
    reply = model.begin()
    model.call(reply)
    model.finish(reply)
    await until(lambda: bool(model.outputs()), "the call answered")
    assert model.outputs()[0]["ok"] is False
    assert model.ended == []


async def test_of_two_goodbyes_in_one_reply_only_the_first_counts(model: Interviewer) -> None:
    reply = model.begin_silently()
    model.call(reply)
    model.call(reply)
    model.done(reply)
    await until(lambda: bool(model.ended), "the end")
    await model.tasks.drain(2)
    first, second = model.outputs()
    assert first["ok"] is True and "goodbye" in first["note"]
    assert second == {"ok": True, "note": "The interview is ending already."}
    assert model.ended == [Reason.INTERVIEWER_ENDED]


async def test_two_calls_after_a_goodbye_end_the_interview_once(model: Interviewer) -> None:
    reply = model.begin()
    model.call(reply)
    model.call(reply)
    model.finish(reply)
    await until(lambda: bool(model.ended), "the end")
    await model.tasks.drain(2)
    assert model.ended == [Reason.INTERVIEWER_ENDED]


async def test_a_call_in_a_failed_reply_is_not_run_and_the_model_goes_on(
    model: Interviewer,
) -> None:
    reply = model.begin_silently()
    model.call(reply)
    model.done(reply, "failed")
    await until(lambda: "response.create" in model.kinds(), "the model asked to go on")
    await model.tasks.drain(2)
    assert [output["ok"] for output in model.outputs()] == [False]
    assert model.ended == []


async def test_a_whole_call_in_an_incomplete_reply_is_run(model: Interviewer) -> None:
    reply = model.begin_silently()
    model.call(reply)
    model.done(reply, "incomplete")
    await until(lambda: bool(model.ended), "the end")
    assert [output["ok"] for output in model.outputs()] == [True]


async def test_more_calls_of_a_tool_in_one_reply_than_may_be_are_not_run(
    model: Interviewer,
) -> None:
    reply = model.begin_silently()
    for _ in range(MAX_CALLS + 1):
        model.call(reply)
    model.done(reply)
    await until(lambda: len(model.outputs()) == MAX_CALLS + 1, "the calls answered")
    assert [output["ok"] for output in model.outputs()] == [True] * MAX_CALLS + [False]
    assert model.outputs()[-1]["error"] == "Too many calls."
    assert model.control.counters["tools_run"] == MAX_CALLS


async def test_calls_of_replies_that_never_end_are_forgotten(model: Interviewer) -> None:
    replies = [model.begin_silently(name=f"resp_{number}") for number in range(MAX_REPLIES + 1)]
    for reply in replies:
        model.call(reply, f"tool_of_{reply}")
    for reply in (replies[0], replies[1], replies[-1]):
        model.done(reply)
    await until(lambda: len(model.outputs()) == 2, "the calls answered")
    answered = [
        event["item"]["call_id"]
        for event in model.sent
        if event["type"] == "conversation.item.create"
    ]
    assert answered == [f"call_tool_of_{reply}" for reply in (replies[1], replies[-1])]


# -- the time for a goodbye


async def test_a_second_goodbye_makes_the_time_of_one_that_is_being_said_shorter(
    model: Interviewer,
) -> None:
    model.speaks = False
    model.farewell.begin(Reason.TIME_LIMIT, 30)
    await until(lambda: model.control.floor.sounding, "the goodbye begun")
    model.farewell.begin(Reason.IDLE, 0.05)
    await until(lambda: bool(model.ended), "the end")
    assert model.ended == [Reason.TIME_LIMIT]
    assert model.control.counters["goodbyes_cut"] == 1


async def test_a_second_goodbye_makes_the_time_of_one_that_is_being_said_no_longer(
    model: Interviewer,
) -> None:
    model.speaks = False
    model.farewell.begin(Reason.TIME_LIMIT, 0.3)
    await until(lambda: model.control.floor.sounding, "the goodbye begun")
    model.farewell.begin(Reason.IDLE, 30)
    await until(lambda: bool(model.ended), "the end")
    assert model.ended == [Reason.TIME_LIMIT]
