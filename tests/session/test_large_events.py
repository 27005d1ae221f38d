"""Events too large for the event loop: they pass in order, whole, and hold up nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from interview_peer.app import Server
from interview_peer.core.gate import Client
from interview_peer.core.lifecycle import Reason
from interview_peer.core.reading import Reading
from interview_peer.core.redaction import Redactor
from interview_peer.core.replay import rebuild
from interview_peer.media.leg import Leg, MessageTooLarge
from interview_peer.session import backlog, reader
from interview_peer.session.reader import EventReader
from interview_peer.session.relay import MOST_PARSED_HERE, EventRelay
from interview_peer.storage.folder import InterviewFolder
from interview_peer.storage.recorder import Recorder
from interview_peer.storage.worker import StorageWorker
from interview_peer.tasks import Tasks
from interview_peer.types import Json, SessionId
from tests.support.caller import Caller
from tests.support.waiting import eventually

SECRET = "sk-proj-0123456789abcdef"

HOLD_SECONDS = 0.005
"""No code of ours may hold the event loop longer."""

TRIES = 6


@dataclass
class Ear:
    """Stands in for a leg: an open channel, and what was sent into it."""

    limit: int = 64 * 1024 * 1024
    heard: list[str] = field(default_factory=list)
    channel_open: bool = True

    def send_text(self, text: str) -> None:
        if len(text) > self.limit:
            raise MessageTooLarge
        self.heard.append(text)

    @property
    def events(self) -> list[Json]:
        return [json.loads(text) for text in self.heard]


@dataclass
class Relayed:
    """A relay between two ears, with a recorder behind it."""

    relay: EventRelay
    reader: EventReader
    browser: Ear
    model: Ear
    folder: Path
    recorder: Recorder
    storage: StorageWorker

    async def heard(self, count: int, within: float = 20.0) -> list[Json]:
        """What the browser was sent, once there is so much of it."""

        async def enough() -> bool:
            return len(self.browser.heard) >= count

        await eventually(enough, within=within, what=f"{count} events at the browser")
        return self.browser.events

    async def journal(self) -> list[Json]:
        """Close the files and read the journal."""
        await self.storage.finish(self.recorder, time.monotonic())
        text = (self.folder / "events.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n") if line]


@contextlib.asynccontextmanager
async def relaying(tmp_path: Path) -> AsyncIterator[Relayed]:
    storage = StorageWorker()
    storage.start()
    started = time.monotonic()
    folder = InterviewFolder(tmp_path, SessionId("one"))
    folder.create()
    recorder = Recorder(folder, started, datetime.now(UTC))
    storage.register(recorder)
    redactor = Redactor([SECRET])
    events = EventReader(redactor)
    tasks = Tasks("one")
    relay = EventRelay(
        recorder.event,
        lambda at: at - started,
        redactor,
        events,
        tasks,
        logging.LoggerAdapter(logging.getLogger("test")),
    )
    browser, model = Ear(), Ear()
    relay.bind(cast(Leg, browser), cast(Leg, model))
    try:
        yield Relayed(relay, events, browser, model, folder.path, recorder, storage)
    finally:
        await events.close()
        await tasks.drain(5)
        await storage.close()


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Relayed]:
    async with relaying(tmp_path) as relayed:
        yield relayed


def small(number: int) -> str:
    return json.dumps(
        {
            "type": "response.output_audio_transcript.delta",
            "response_id": "r",
            "item_id": "i",
            "delta": f" {number}",
        }
    )


def many_small_objects(megabytes: float = 2.4) -> str:
    """What takes longest to parse: objects of a few characters each."""
    count = int(megabytes * 1e6 / 24)
    parts = ",".join(f'{{"a":{n % 10},"b":[1,{{"c":"d"}}]}}' for n in range(count))
    return f'{{"type":"conversation.item.retrieved","item":{{"id":"i","content":[{parts}]}}}}'


def with_sound(characters: int = 300_000) -> str:
    item = {
        "id": "i",
        "role": "user",
        "content": [{"type": "input_audio", "audio": "A" * characters}],
    }
    return json.dumps({"type": "conversation.item.retrieved", "item": item})


async def longest_hold(work: Callable[[], object]) -> float:
    """The longest stretch between two turns of the event loop until ``work()`` is true, in seconds.

    By the process's own clock: it stands while others have the processor, and runs on while a
    thread of ours keeps the interpreter's lock from the event loop.
    """
    longest, before = 0.0, time.process_time()
    while not work():
        await asyncio.sleep(0)
        now = time.process_time()
        longest, before = max(longest, now - before), now
    return longest


@pytest.mark.timeout(120)
async def test_event_of_many_small_objects_holds_the_loop_no_longer_than_a_packet_may(
    one: Relayed,
) -> None:
    text = many_small_objects()
    assert 2_000_000 < len(text) < 4_000_000
    one.relay.from_model(with_sound())
    await one.heard(1)
    best = 1.0
    for _ in range(TRIES):
        before = len(one.browser.heard)
        began = time.process_time()
        one.relay.from_model(text)
        held = time.process_time() - began
        held = max(held, await longest_hold(lambda: len(one.browser.heard) > before))  # noqa: B023
        best = min(best, held)
        if best < HOLD_SECONDS:
            break
    assert best < HOLD_SECONDS
    assert one.browser.heard[-1] == text


async def test_order_is_kept_before_and_behind_a_large_event_and_the_journal_has_all(
    one: Relayed,
) -> None:
    large = with_sound()
    for number in range(3):
        one.relay.from_model(small(number))
    assert len(one.browser.heard) == 3, "small events pass in the step in which they come"
    one.relay.from_model(large)
    for number in range(3, 6):
        one.relay.from_model(small(number))
    one.relay.from_model(large)
    one.relay.from_model(small(6))
    assert len(one.browser.heard) == 3, "what follows a large event waits behind it"
    wanted = [small(0), small(1), small(2), large, small(3), small(4), small(5), large, small(6)]
    await one.heard(len(wanted))
    assert one.browser.heard == wanted
    one.relay.from_model(small(7))
    assert one.browser.heard[-1] == small(7), "nothing waits any more"

    lines = await one.journal()
    events = [line["event"] for line in lines if line["direction"] == "to_browser"]
    assert events == [json.loads(text) for text in [*wanted, small(7)]]
    turns = rebuild(json.dumps(line) for line in lines).turns()
    assert [turn.text for turn in one.relay.transcript.turns()] == ["0 1 2 3 4 5 6 7"]
    assert [turn.text for turn in turns] == ["0 1 2 3 4 5 6 7"]


async def test_browser_is_heard_while_a_large_event_of_the_model_is_read(one: Relayed) -> None:
    one.relay.from_model(with_sound())
    one.relay.from_browser('{"type":"response.cancel"}')
    assert one.model.events == [{"type": "response.cancel"}]
    await one.heard(1)


async def test_large_event_of_a_browser_is_refused_unread(one: Relayed) -> None:
    one.relay.from_browser(many_small_objects())
    assert one.model.heard == []
    assert one.browser.events[0]["error"]["code"] == "too_large"
    assert one.reader.events == 0


async def test_words_and_counts_of_large_events_reach_transcript_and_bill(one: Relayed) -> None:
    words = "word " * 20_000
    done = {"type": "response.output_text.done", "response_id": "r", "item_id": "i", "text": words}
    bill = {"type": "response.done", "response": {"id": "r", "usage": {"total_tokens": 7}}}
    bill["response"]["output"] = ["x" * MOST_PARSED_HERE]  # type: ignore[index]
    one.relay.from_model(json.dumps(done))
    one.relay.from_model(json.dumps(bill))
    await one.heard(2)
    assert [turn.text for turn in one.relay.transcript.turns()] == [words.strip()]
    assert one.relay.usage == {"total_tokens": 7}


async def test_secret_within_a_large_event_reaches_neither_browser_nor_journal(
    one: Relayed,
) -> None:
    spelt = SECRET.replace("s", "\\u0073")
    event = with_sound()[:-1] + f', "a": "{SECRET}", "b": "{spelt}"}}'
    one.relay.from_model(event)
    (heard,) = await one.heard(1)
    assert (heard["a"], heard["b"]) == ("[redacted]", "[redacted]")
    assert heard["item"] == json.loads(event)["item"]
    lines = await one.journal()
    assert lines[-1]["event"] == heard


async def test_client_of_the_beta_gets_its_names_for_large_events(one: Relayed) -> None:
    one.relay.from_browser('{"type":"session.update","session":{"voice":"verse"}}')
    item = {"id": "i", "type": "message", "role": "assistant", "content": []}
    long = {"type": "conversation.item.added", "item": item, "pad": "x" * MOST_PARSED_HERE}
    swallowed = {"type": "conversation.item.done", "item": item, "pad": "x" * MOST_PARSED_HERE}
    one.relay.from_model(json.dumps(swallowed))
    one.relay.from_model(json.dumps(long))
    (heard,) = await one.heard(1)
    assert heard == long | {"type": "conversation.item.created"}


async def test_browser_that_comes_meanwhile_gets_the_names_of_today(one: Relayed) -> None:
    one.relay.from_browser('{"type":"session.update","session":{"voice":"verse"}}')
    long = {"type": "conversation.item.added", "item": {"id": "i"}, "pad": "x" * MOST_PARSED_HERE}
    one.relay.from_model(json.dumps(long))
    one.browser = Ear()
    one.relay.bind(cast(Leg, one.browser), cast(Leg, one.model))
    assert await one.heard(1) == [long]


async def test_browser_that_takes_less_gets_the_item_without_its_sound(one: Relayed) -> None:
    one.browser.limit = 262_144
    one.relay.from_model(with_sound())
    one.relay.from_model(many_small_objects(0.5))
    retrieved, error = await one.heard(2)
    assert retrieved["item"]["content"] == [{"type": "input_audio", "audio": None}]
    assert error["error"]["code"] == "event_too_large"
    lines = await one.journal()
    assert lines[1]["event"] == json.loads(with_sound()), "the journal has the sound"


@pytest.mark.parametrize(
    "text", ["x" * 100_000, "[" * 100_000, '{"type":1,"x":"' + "y" * 70_000 + '"}']
)
async def test_large_garbage_is_counted_and_what_follows_passes(one: Relayed, text: str) -> None:
    one.relay.from_model(text)
    one.relay.from_model(small(1))
    await one.heard(1)
    assert one.browser.heard == [small(1)]
    assert one.relay.counters["model_garbage"] == 1
    assert one.reader.deaths == 0


@pytest.mark.parametrize("text", [small(1), with_sound()], ids=["small", "large"])
async def test_binary_message_of_the_model_is_no_event_whatever_it_holds(
    one: Relayed, text: str
) -> None:
    one.relay.from_model(text.encode())
    one.relay.from_model(small(2))
    assert one.browser.heard == [small(2)], "it is neither passed on nor waited for"
    assert one.relay.counters["model_binary"] == 1
    assert [turn.text for turn in one.relay.transcript.turns()] == ["2"]
    assert [line["event"] for line in (await one.journal())[1:]] == [json.loads(small(2))]


async def test_more_than_may_wait_is_told_and_counted_and_the_rest_passes(
    one: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backlog, "MOST_CHARACTERS", 700_000)
    large = with_sound(300_000)
    for _ in range(4):
        one.relay.from_model(large)
    one.relay.from_model(small(1))
    heard = await one.heard(5)
    codes = [event["error"]["code"] for event in heard if event["type"] == "error"]
    assert codes == ["event_too_large"] * 2
    assert one.browser.heard[-3:] == [large, large, small(1)]
    assert one.relay.counters["overflow"] == 2
    assert len(one.relay._behind) == 0
    one.relay.from_model(large)
    await one.heard(6)
    assert one.browser.heard[-1] == large, "the room is given back"


async def test_end_waits_for_what_is_being_read_and_loses_nothing(one: Relayed) -> None:
    text = many_small_objects()
    one.relay.from_model(text)
    one.relay.from_model(small(1))
    await one.relay.finish(20)
    assert one.browser.heard == [text, small(1)]
    lines = await one.journal()
    assert [line["event"] for line in lines[1:]] == [json.loads(text), json.loads(small(1))]


async def test_end_does_not_wait_for_ever_and_counts_what_it_leaves(
    one: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(*_: object, **__: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(one.reader, "_ask", never)
    one.relay.from_model(with_sound())
    one.relay.from_model(small(1))
    await one.relay.finish(0.05)
    assert one.relay.counters["unreadable"] == 2
    monkeypatch.undo()
    one.relay.from_model(with_sound())
    await one.heard(1)


def process_of(events: EventReader) -> asyncio.subprocess.Process:
    assert events._process is not None
    return events._process


async def test_death_of_the_reader_costs_no_event(one: Relayed) -> None:
    large = with_sound()
    one.relay.from_model(large)
    await one.heard(1)
    for number in range(2, 5):
        os.kill(process_of(one.reader).pid, signal.SIGKILL)
        one.relay.from_model(large)
        await one.heard(number)
    assert one.browser.heard == [large] * 4
    assert one.reader.statistics() == {"read": 4, "unreadable": 0, "deaths": 3}


async def test_event_that_kills_every_reader_is_told_and_the_next_passes(
    one: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = reader._write

    async def deadly(process: asyncio.subprocess.Process, head: bytes, data: bytes) -> None:
        if b"deadly" in data:
            process.kill()
        with contextlib.suppress(ConnectionError):
            await write(process, head, data)

    monkeypatch.setattr(reader, "_write", deadly)
    one.relay.from_model(with_sound()[:-1] + ', "x": "deadly"}')
    one.relay.from_model(with_sound())
    error, good = await one.heard(2)
    assert error["error"]["code"] == "event_unreadable"
    assert good == json.loads(with_sound())
    assert one.reader.statistics() == {"read": 1, "unreadable": 1, "deaths": 2}
    lines = await one.journal()
    assert lines[1]["event"] == {"type": "interview.event_lost", "code": "event_unreadable"}


async def test_reader_that_hangs_is_replaced(one: Relayed, monkeypatch: pytest.MonkeyPatch) -> None:
    one.relay.from_model(with_sound())
    await one.heard(1)
    os.kill(process_of(one.reader).pid, signal.SIGSTOP)
    monkeypatch.setattr(reader, "READ_SECONDS", 2.0)
    one.relay.from_model(with_sound())
    await one.heard(2)
    assert one.reader.deaths == 1


async def test_reader_starts_with_the_first_large_event_and_is_shared(tmp_path: Path) -> None:
    async with relaying(tmp_path) as one:
        one.relay.from_model(small(1))
        assert vars(one.reader)["_process"] is None
        asked = (one.reader.read(with_sound(), is_beta=False) for _ in range(5))
        assert {reading.text for reading in await asyncio.gather(*asked)} == {None}
        process = process_of(one.reader)
        assert process.returncode is None
        await one.reader.read(with_sound(), is_beta=False)
        assert process_of(one.reader) is process
    assert process.returncode is not None


async def test_interview_that_ends_while_a_large_event_is_read_keeps_it(
    local: Server, caller: Caller, tmp_path: Path
) -> None:
    await caller.open()
    await caller.connect()
    await caller.event("session.created")
    interview = local.interviews.find(caller.session_id)
    words = "word " * 200_000
    done = {"type": "response.output_text.done", "response_id": "r", "item_id": "i", "text": words}
    interview._relay.from_model(json.dumps(done))
    interview.end_soon(Reason.CLIENT_REQUEST)
    await caller.message("session_ended")

    folder = tmp_path / "interviews" / caller.session_id
    written = json.loads((folder / "transcript.json").read_text(encoding="utf-8"))
    assert words.strip() in [turn["text"] for turn in written["turns"]]
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").split("\n")
    assert done in [json.loads(line)["event"] for line in lines if line]
    assert words.strip() in [turn.text for turn in rebuild(lines).turns()]


# -- what an invited candidate is told of them


def padded(event: Json) -> str:
    return json.dumps({**event, "pad": "x" * MOST_PARSED_HERE})


async def test_what_is_withheld_of_small_events_is_withheld_of_large_ones(one: Relayed) -> None:
    one.relay.gate.serve(Client.INVITED)
    session = {"type": "realtime", "model": "m", "instructions": "PLAN " * 20_000}
    one.relay.from_browser('{"type":"session.update","session":{"type":"realtime"}}')
    one.relay.from_model(json.dumps({"type": "session.created", "session": session}))
    system = {"id": "s", "type": "message", "role": "system", "content": []}
    one.relay.from_model(padded({"type": "conversation.item.added", "item": system}))
    out_of_band: Json = {"id": "own", "conversation_id": None, "output": []}
    one.relay.from_model(padded({"type": "response.created", "response": out_of_band}))
    text = {"type": "response.output_text.done", "response_id": "own", "text": "PLAN"}
    one.relay.from_model(padded(text))
    one.relay.from_model(padded({"type": "x.new", "item_id": "i", "text": "PLAN"}))
    one.relay.from_model(json.dumps({"type": "input_audio_buffer.cleared", "event_id": "e"}))
    heard = await one.heard(4)
    told = {"type": "realtime", "model": "m"}
    assert heard[0] == {"type": "session.created", "session": told}
    # Answered as soon as the session was known.
    assert heard[1] == {**heard[0], "type": "session.updated", "event_id": heard[1]["event_id"]}
    assert heard[2:] == [
        {"type": "x.new", "item_id": "i"},
        {"type": "input_audio_buffer.cleared", "event_id": "e"},
    ]
    assert one.model.heard == []
    assert one.relay.counters["withheld"] == 3
    # The item is known to be hidden, the journal has all.
    one.relay.from_browser('{"type":"conversation.item.retrieve","item_id":"s"}')
    assert one.browser.events[-1]["error"]["code"] == "item_retrieve_invalid_item_id"
    kept = [line["event"] for line in await one.journal() if line["direction"] == "to_browser"]
    assert kept[0]["session"] == session
    assert len(kept) == 6


async def test_a_large_event_is_read_anew_for_a_browser_that_may_not_be_told_as_much(
    one: Relayed, monkeypatch: pytest.MonkeyPatch
) -> None:
    one.relay.gate.serve(Client.TRUSTED)
    real, other = one.reader.read, Ear()
    asked: list[bool] = []

    async def read(
        message: str, *, is_beta: bool, withholds: bool, blanks: bool, chosen: bytes | None
    ) -> Reading:
        reading = await real(
            message, is_beta=is_beta, withholds=withholds, blanks=blanks, chosen=chosen
        )
        asked.append(withholds)
        # An invited candidate has come in the place of the trusted client meanwhile.
        one.relay.gate.serve(Client.INVITED)
        one.relay.bind(cast(Leg, other), cast(Leg, one.model))
        return reading

    monkeypatch.setattr(one.reader, "read", read)
    session = {"type": "realtime", "instructions": "PLAN " * 20_000}
    one.relay.from_model(json.dumps({"type": "session.created", "session": session}))

    async def told() -> list[Json]:
        return other.events

    assert await eventually(told, within=20, what="one event") == [
        {"type": "session.created", "session": {"type": "realtime"}}
    ]
    assert asked == [False, True]
    assert one.browser.heard == []


@pytest.mark.parametrize("kind", ["session.created", "session.updated"])
async def test_an_open_client_is_told_no_instructions_of_ours_in_a_large_event_either(
    one: Relayed, kind: str
) -> None:
    voice = {"id": "v" * MOST_PARSED_HERE}
    session = {"instructions": "PLAN", "audio": {"output": {"voice": voice}}}
    one.relay.from_model(json.dumps({"type": kind, "session": session}))
    (heard,) = await one.heard(1)
    assert heard == {"type": kind, "session": {**session, "instructions": ""}}
    assert (await one.journal())[-1]["event"]["session"] == session


async def test_a_client_is_told_large_instructions_of_its_own_choice_and_a_trusted_one_all(
    one: Relayed,
) -> None:
    mine = {"type": "session.update", "session": {"type": "realtime", "instructions": "Mine."}}
    one.relay.from_browser(json.dumps(mine))
    pad = "x" * MOST_PARSED_HERE
    chosen = {"type": "session.updated", "session": {"instructions": "Mine.", "pad": pad}}
    ours = {"type": "session.updated", "session": {"instructions": "PLAN", "pad": pad}}
    one.relay.from_model(json.dumps(chosen))
    one.relay.from_model(json.dumps(ours))
    assert [event["session"]["instructions"] for event in await one.heard(2)] == ["Mine.", ""]
    one.relay.gate.serve(Client.TRUSTED)
    one.relay.from_model(json.dumps(ours))
    assert (await one.heard(3))[2] == ours


async def test_of_our_own_events_that_are_too_large_no_browser_hears(one: Relayed) -> None:
    one.model.limit = 100
    assert not one.relay.to_model({"type": "conversation.item.create", "item": {"x": "y" * 100}})
    assert one.browser.heard == []
    assert one.relay.to_model({"type": "response.cancel"})
    (sent,) = one.model.events
    assert sent["type"] == "response.cancel" and sent["event_id"].startswith("event_")
