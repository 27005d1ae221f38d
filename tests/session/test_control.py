"""What the server says to the model: taken, refused, unanswered, in turn and in time.

The service here is a script of the test's (``scripted_service``).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from interview_peer.core.floor import Ending
from interview_peer.errors import (
    InterviewNotLive,
    ModelRefused,
    SessionEnded,
    TooMuchToSay,
    UpstreamTimeout,
)
from interview_peer.session import control as control_module
from interview_peer.session.control import MAX_WAITING
from tests.support.waiting import eventually

from .scripted_service import Service


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_module, "ANSWER_SECONDS", 0.1)
    monkeypatch.setattr(control_module, "CLEARED_SECONDS", 0.1)


async def until(look: Callable[[], bool]) -> None:
    async def seen() -> bool:
        return look()

    await eventually(seen, within=2, what="what the test waits for")


# -- nobody there


async def test_words_that_wait_fail_when_nobody_is_left_to_hear_them(service: Service) -> None:
    running = service.begin()
    saying = [asyncio.create_task(service.control.say(text)) for text in ("One.", "Two.")]
    for _ in range(20):
        await asyncio.sleep(0)
    service.control.leave()
    for one in saying:
        with pytest.raises(InterviewNotLive):
            await one
    assert service.kinds() == ["response.cancel", "output_audio_buffer.clear"]
    with pytest.raises(InterviewNotLive):
        await service.control.say("Three.")
    with pytest.raises(InterviewNotLive):
        await service.control.respond()
    # The model is held: what it is told it knows later.
    await service.control.instruct("The candidate is away.")
    assert service.control.counters == {"unheard": 2, "instructed": 1}
    service.finish(running)
    service.control.come_back()
    assert await service.control.say("Four.") == "resp_2"


async def test_words_that_were_asked_for_and_have_not_begun_fail_as_well(
    service: Service,
) -> None:
    service.mute.add("response.create")
    saying = asyncio.create_task(service.control.say("One."))
    await until(lambda: service.kinds() == ["response.create"])
    service.control.leave()
    with pytest.raises(InterviewNotLive):
        await saying


async def test_a_reply_that_begins_while_nobody_is_there_is_stopped(service: Service) -> None:
    service.control.leave()
    assert service.sent == []
    response = {"id": "resp_x", "conversation_id": "conv_1", "metadata": None}
    service.tell("response.created", response=response)
    assert service.kinds() == ["response.cancel", "output_audio_buffer.clear"]
    # It had been made before the word to stop came.
    service.tell(
        "response.output_audio_transcript.delta", response_id="resp_x", item_id="i", delta="A"
    )
    service.tell("response.done", response={"id": "resp_x", "status": "completed"})
    service.sent.clear()
    service.tell("output_audio_buffer.started", response_id="resp_x")
    assert service.kinds() == ["output_audio_buffer.clear"]
    service.tell("output_audio_buffer.cleared", response_id="resp_x")
    service.sent.clear()
    service.control.come_back()
    service.begin()
    assert service.sent == []


# -- instructions


async def test_an_instruction_is_a_system_message_that_the_service_has_taken(
    service: Service,
) -> None:
    item_id = await service.control.instruct("Be brief.")
    (event,) = service.sent
    assert event["item"] == {
        "id": item_id,
        "type": "message",
        "role": "system",
        "content": [{"type": "input_text", "text": "Be brief."}],
    }
    assert len(item_id) <= 32 and len(event["event_id"]) <= 32
    assert service.control.counters == {"instructed": 1}


async def test_a_refused_instruction_is_told_as_such_and_ends_nothing(service: Service) -> None:
    service.refusals["conversation.item.create"] = ["invalid_value"]
    with pytest.raises(ModelRefused):
        await service.control.instruct("Be brief.")
    await service.control.instruct("Be brief.")
    assert service.control.counters == {"refused": 1, "instructed": 1}


async def test_an_error_about_another_event_is_nobodys_answer(service: Service) -> None:
    service.mute.add("conversation.item.create")
    instructing = asyncio.create_task(service.control.instruct("Be brief."))
    await until(lambda: bool(service.sent))
    for event_id in (None, "", "another"):
        service.tell("error", error={"code": "x", "message": "No.", "event_id": event_id})
    with pytest.raises(UpstreamTimeout):
        await instructing
    assert service.control.counters == {"unanswered": 1}


async def test_nothing_can_be_said_over_a_closed_channel(service: Service) -> None:
    service.is_open = False
    with pytest.raises(InterviewNotLive):
        await service.control.instruct("Be brief.")
    with pytest.raises(InterviewNotLive):
        await service.control.say("Hello.")


# -- words


async def test_words_are_asked_for_exactly_and_without_tools(service: Service) -> None:
    response_id = await service.control.say("Take your time.")
    (event,) = service.sent
    response = event["response"]
    assert response_id == "resp_1"
    assert response["instructions"].endswith("\n\nTake your time.")
    assert (response["input"], response["tool_choice"]) == ([], "none")
    assert response["conversation"] == "auto"


async def test_words_wait_for_the_end_of_the_running_reply_and_keep_their_order(
    service: Service,
) -> None:
    running = service.begin()
    first = asyncio.create_task(service.control.say("One."))
    second = asyncio.create_task(service.control.say("Two."))
    service.tell("response.done", response={"id": running, "status": "completed"})
    for _ in range(20):
        await asyncio.sleep(0)
    # It was made, but it is still heard.
    assert service.sent == []
    service.tell("output_audio_buffer.stopped", response_id=running)
    assert [await first, await second] == ["resp_2", "resp_3"]
    said = [event["response"]["instructions"].split("\n\n")[1] for event in service.sent]
    assert said == ["One.", "Two."]


async def test_words_wait_for_a_candidate_who_speaks(service: Service) -> None:
    service.tell("input_audio_buffer.speech_started", item_id="item_u", audio_start_ms=0)
    saying = asyncio.create_task(service.control.say("One."))
    for _ in range(20):
        await asyncio.sleep(0)
    assert service.sent == []
    service.tell("input_audio_buffer.speech_stopped", item_id="item_u", audio_end_ms=900)
    assert await saying == "resp_1"


async def test_an_interruption_stops_what_is_said_first(service: Service) -> None:
    service.begin()
    assert await service.control.say("One.", interrupt=True) == "resp_2"
    assert service.kinds() == ["response.cancel", "output_audio_buffer.clear", "response.create"]
    assert service.control.counters["interrupted"] == 1


async def test_with_nothing_to_interrupt_nothing_is_stopped(service: Service) -> None:
    await service.control.say("One.", interrupt=True)
    assert service.kinds() == ["response.create"]


async def test_a_reply_that_came_first_is_waited_for_and_the_words_are_asked_for_again(
    service: Service,
) -> None:
    service.refusals["response.create"] = ["conversation_already_has_active_response"]
    saying = asyncio.create_task(service.control.say("One."))
    await until(lambda: service.control.counters["active"] == 1)
    running = service.begin()
    for _ in range(20):
        await asyncio.sleep(0)
    assert service.kinds() == ["response.create"]
    service.finish(running)
    assert await saying == "resp_2"


async def test_refused_words_are_told_as_such(service: Service) -> None:
    service.refusals["response.create"] = ["invalid_value"]
    with pytest.raises(ModelRefused):
        await service.control.say("One.")
    assert await service.control.say("Two.") == "resp_1"


async def test_no_more_wait_than_may(service: Service) -> None:
    running = service.begin()
    waiting = [asyncio.create_task(service.control.say("More.")) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    with pytest.raises(TooMuchToSay):
        await service.control.say("Too much.")
    service.finish(running)
    assert len(await asyncio.gather(*waiting)) == MAX_WAITING
    assert service.control.counters["too_much"] == 1


async def test_words_are_said_over_a_reply_whose_end_is_never_told(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_module, "QUIET_SECONDS", 0.05)
    service.begin()
    assert await service.control.say("One.") == "resp_2"
    assert service.control.counters["impatient"] == 1


async def test_whoever_waits_is_told_that_the_interview_ended(service: Service) -> None:
    service.begin()
    saying = asyncio.create_task(service.control.say("One."))
    service.mute.add("conversation.item.create")
    instructing = asyncio.create_task(service.control.instruct("Be brief."))
    await until(lambda: bool(service.sent))
    service.control.close()
    for task in (saying, instructing):
        with pytest.raises(SessionEnded):
            await task
    with pytest.raises(SessionEnded):
        await service.control.instruct("Be brief.")


# -- the goodbye


async def test_a_goodbye_is_over_once_it_was_heard(service: Service) -> None:
    service.speaks = False
    parting = asyncio.create_task(service.control.part(5, instruction="Say goodbye."))
    await until(lambda: "response.create" in service.kinds())
    await until(lambda: service.control.floor.sounding)
    assert not parting.done()
    service.finish("resp_1")
    await parting
    assert service.kinds() == ["conversation.item.create", "response.create"]
    assert "instructions" not in service.sent[1]["response"]


async def test_a_goodbye_waits_half_of_its_time_for_what_is_said_and_then_interrupts(
    service: Service,
) -> None:
    service.begin()
    await service.control.part(0.1, words="Goodbye.")
    assert service.kinds() == ["response.cancel", "output_audio_buffer.clear", "response.create"]
    assert service.sent[-1]["response"]["instructions"].endswith("\n\nGoodbye.")


async def test_an_interrupted_goodbye_goes_on_with_the_answer(service: Service) -> None:
    service.speaks = False
    parting = asyncio.create_task(service.control.part(5))
    await until(lambda: service.control.floor.sounding)
    service.finish("resp_1", "cleared")
    for _ in range(20):
        await asyncio.sleep(0)
    assert not parting.done()
    service.finish(service.begin())
    await parting


async def test_nothing_else_is_said_once_goodbye_is(service: Service) -> None:
    running = service.begin()
    saying = asyncio.create_task(service.control.say("One."))
    parting = asyncio.create_task(service.control.part(5))
    await asyncio.sleep(0)
    service.finish(running)
    await parting
    with pytest.raises(SessionEnded):
        await saying
    assert service.kinds() == ["response.create"]
    assert service.control.counters["said"] == 0


async def test_an_ending_is_known_however_late_it_is_asked_for(service: Service) -> None:
    service.finish(service.begin(), "cleared")
    service.finish(service.begin())
    assert await service.control.next_ending(0) is Ending.CUT
    assert await service.control.next_ending(1) is Ending.PLAYED
