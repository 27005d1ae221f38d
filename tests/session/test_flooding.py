"""A candidate who floods the event channel is told and cut; nobody else feels it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from interview_peer.app import Server
from interview_peer.core import flood
from interview_peer.core.flood import Flood
from interview_peer.session.interview import Interview
from interview_peer.types import Json
from tests.support.caller import Caller, calling
from tests.support.inprocess import serving
from tests.support.waiting import eventually

ENOUGH = 3 * flood.CHUNKS_AT_ONCE
"""Events that no connection lives to send."""


async def flooding(caller: Caller, event: Json) -> int:
    """Send an event over and over until the connection is lost; how often it was sent."""
    for number in range(ENOUGH):
        if caller.media_lost.is_set():
            return number
        caller.say(event)
        if number % 5 == 0:
            # The sender's own SCTP has to keep up.
            await asyncio.sleep(0.001)
    raise AssertionError("nobody minded")


async def asking(caller: Caller, over: asyncio.Event) -> int:
    """Ask for something again and again and wait for each answer; how many came."""
    answers = 0
    while not over.is_set():
        caller.say({"type": "session.update", "session": {"type": "realtime"}})
        await caller.event("session.updated", within=3)
        answers += 1
        await asyncio.sleep(0.05)
    return answers


def browser(interview: Interview) -> Json:
    """What is known of the browser's packets."""
    told: Json = interview.statistics()["legs"]["browser"]["received"]
    return told


async def journal(folder: Path, caller: Caller) -> list[Json]:
    path = folder / "interviews" / caller.session_id / "events.jsonl"
    text = await asyncio.to_thread(path.read_text, encoding="utf-8")
    return [json.loads(line)["event"] for line in text.splitlines()]


async def test_who_floods_the_channel_is_told_and_cut_and_others_lose_nothing(
    tmp_path: Path,
) -> None:
    async with (
        serving(tmp_path, offers_per_interview=2) as server,
        calling(server.url) as caller,
        calling(server.url) as other,
    ):
        for one in (caller, other):
            await one.open()
            await one.connect()
            await one.event("session.created")
        interview = server.interviews.find(caller.session_id)
        theirs = server.interviews.find(other.session_id)
        before, over = browser(theirs), asyncio.Event()
        heard = len(other.audio.items)
        answered = asyncio.create_task(asking(other, over), name="ask")
        sent = await flooding(caller, {"type": "nonsense"})
        over.set()

        # Told on both ways, once; then the interview is held.
        told = [one["error"]["code"] for one in caller.events.items if one["type"] == "error"]
        assert told.count("connection_flooded") == 1 and told[-1] == "connection_flooded"
        assert await caller.error() == "CONNECTION_FLOODED"
        await caller.phase("detached")
        assert sent >= flood.CHUNKS_AT_ONCE
        assert _flooded(server) == 1

        # The other's events were answered all the while, and none of its packets is missing.
        assert await answered > 5
        now = browser(theirs)
        assert now["packets"] - before["packets"] > 20
        assert (before["lost"], now["lost"]) == (0, 0)
        assert other._leg is not None and other._leg.reception.lost == 0
        assert len(other.audio.items) - heard > 20
        assert await other.known_phase() == "live"

        # It may come back, which its offers put an end to.
        await caller.connect(sessionId=caller.session_id)
        assert interview.phase.value == "live"
        await flooding(caller, {"type": "nonsense"})
        await caller.phase("detached")
        offer = {"type": "offer", "sdp": await caller.offer()}
        await caller.send({"type": "sdp_offer", "offer": offer, "sessionId": caller.session_id})
        assert await caller.error() == "CONNECTION_FLOODED"
        assert await caller.refusal() == "RATE_LIMITED"
        assert _flooded(server) == 2

        async def written() -> int:
            lines = await journal(tmp_path, caller)
            return lines.count({"type": "interview.flooded", "by": "events"})

        await eventually(written, within=5, what="the journal", good=lambda count: count == 2)


def _flooded(server: Server) -> int:
    return server.interviews._around.tally.flooded[Flood.EVENTS]


async def test_faster_than_the_gate_allows_is_no_flood_yet(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        await caller.event("session.created")
        for _ in range(300):
            caller.say({"type": "nonsense"})
            await asyncio.sleep(0.003)
        refused = server.interviews.find(caller.session_id)._relay.counters

        async def limited() -> int:
            return refused["rate_limited"]

        await eventually(limited, within=5, what="refusals", good=bool)
        assert not caller.media_lost.is_set()
        assert await caller.known_phase() == "live"
