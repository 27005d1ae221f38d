"""Who waits for an interview while the server is emptied or ends: told so, and not lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from interview_peer.core.lifecycle import Phase
from interview_peer.storage.folder import InterviewFolder
from interview_peer.types import Json
from interview_peer.web import signalling
from tests.session.test_upstream import ANSWERED, accepting
from tests.session.voice_service import KEY as SERVICE
from tests.session.voice_service import voice_service
from tests.support.caller import Caller, calling
from tests.support.inprocess import live as alive
from tests.support.inprocess import serving
from tests.support.operator import KEY, Operator
from tests.support.server import ServerProcess, running_server, running_simulator
from tests.support.waiting import eventually

GOING_AWAY = 1001
SERVICE_KEY = "sk-of-the-service"
JOIN_SECRET = "a-join-secret-of-more-than-32-characters"
KEYS = {"admin_key": KEY, "join_secret": JOIN_SECRET}


@contextlib.asynccontextmanager
async def live(tmp_path: Path) -> AsyncIterator[tuple[dict[str, str], ServerProcess]]:
    """Settings of a server that lets in the invited alone, and the voice service that it calls."""
    async with running_simulator(tmp_path / "service", SERVICE_KEY) as service:
        yield (
            {
                "SIMULATION_MODE": "false",
                "OPENAI_BASE_URL": service.url,
                "OPENAI_API_KEY": SERVICE_KEY,
                "INTERVIEW_ALLOW_ANONYMOUS": "false",
                "INTERVIEW_ADMIN_KEY": KEY,
                "INTERVIEW_JOIN_SECRET": JOIN_SECRET,
            },
            service,
        )


async def come(caller: Caller, made: Json) -> None:
    """Open a socket by the invitation."""
    await caller.open_bare(f"/ws/{made['id']}")
    await caller.send({"type": "init", "sessionId": made["id"], "token": made["join_token"]})
    await caller.message("session")


async def turned_away(caller: Caller) -> None:
    """The socket says why, and is closed in order."""
    assert await caller.error() == "DRAINING"
    await caller.socket_closed()
    assert caller.close_code == GOING_AWAY


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_that_ends_tells_whoever_waits_and_takes_no_longer_for_them(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with live(tmp_path) as (settings, _):
        async with (
            running_server(tmp_path, INTERVIEW_DRAIN_SECONDS="600", **settings) as server,
            calling(server.url) as reading,
            calling(server.url) as unknown,
        ):
            made = await Operator(reading).make(consent="required")
            await come(reading, made)
            await reading.message("consent_required")
            await unknown.open_bare()
            # One that does not even answer that its connection is closed.
            deaf = await asyncio.open_connection(*server.url.removeprefix("http://").split(":"))
            deaf[1].write(
                b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            await deaf[0].readuntil(b"\r\n\r\n")
            began = time.monotonic()
            server.process.send_signal(number)
            await asyncio.gather(turned_away(reading), turned_away(unknown))
            async with asyncio.timeout(10):
                assert await server.process.wait() == 0, server.tail()
            assert time.monotonic() - began < 5
            server.killed = True
            deaf[1].close()
        async with (
            running_server(tmp_path, **settings) as again,
            calling(again.url) as back,
        ):
            # What was not decided can be decided now.
            await come(back, made)
            asked = await back.message("consent_required")
            await back.send({"type": "consent", "agreed": True, "version": asked["version"]})
            assert (await back.message("consent"))["agreed"] is True
            await back.connect()


async def test_while_the_server_is_emptied_nobody_is_asked_for_what_cannot_begin(
    tmp_path: Path,
) -> None:
    async with (
        serving(tmp_path, admin_key=KEY, drain_seconds=600) as server,
        calling(server.url) as running,
        calling(server.url) as reading,
        calling(server.url) as agreed,
    ):
        operator = Operator(running)
        await running.open()
        await running.connect()
        wanted = await operator.make(consent="required")
        await come(reading, wanted)
        await reading.message("consent_required")
        given = await operator.make()
        await come(agreed, given)
        assert (await operator.ask("POST", "/api/drain")).status == 202
        await asyncio.gather(turned_away(reading), turned_away(agreed))
        # Coming again changes nothing, and asks nothing.
        await come(reading, wanted)
        await turned_away(reading)
        asked = [one for one in reading.messages.items if one["type"] == "consent_required"]
        assert asked == []
        # Nor does coming for the first time, with an invitation or without one.
        new = await operator.make()
        await agreed.open_bare(f"/ws/{new['id']}")
        await agreed.send({"type": "init", "token": new["join_token"]})
        await turned_away(agreed)
        await agreed.open_bare()
        await turned_away(agreed)
        # Who is being interviewed is not disturbed, and may come back.
        await running.leave()
        await running.open(f"/ws/{running.session_id}")
        assert await running.known_phase() == "live"
        shown = [(await operator.show(one))["phase"] for one in (wanted, given)]
        assert shown == ["consent", "created"]
        assert server.interviews.running == 1


async def test_without_a_token_a_running_interview_is_come_back_to_by_init_and_no_other_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Front ends of a proxy open one address for all interviews. Who has none is not kept waiting.
    monkeypatch.setattr(signalling, "INIT_SECONDS", 600.0)
    async with (
        serving(tmp_path, admin_key=KEY, drain_seconds=600) as server,
        calling(server.url) as running,
        calling(server.url) as late,
    ):
        await running.open()
        await running.connect()
        assert (await Operator(running).ask("POST", "/api/drain")).status == 202
        await running.leave()
        await running.drop()
        await running.open_bare("/ws")
        await running.send({"type": "init", "sessionId": running.session_id})
        assert (await running.message("session"))["sessionId"] == running.session_id
        await running.connect()
        for first in (
            {"type": "init"},
            {"type": "init", "sessionId": "one-that-is-new"},
            {"type": "sdp_offer", "offer": {"type": "offer", "sdp": "v=0"}},
        ):
            await late.open_bare("/ws")
            await late.send(first)
            await turned_away(late)
        monkeypatch.setattr(signalling, "INIT_SECONDS", 0.01)
        await late.open_bare("/ws")
        await turned_away(late)
        assert len(server.interviews) == 1


async def test_a_page_that_is_loaded_anew_as_a_drain_begins_comes_back_by_its_token(
    tmp_path: Path,
) -> None:
    async with (
        serving(tmp_path, drain_seconds=600, **KEYS) as server,
        calling(server.url) as invited,
    ):
        operator = Operator(invited)
        made = await operator.make()
        await come(invited, made)
        await invited.send({"type": "sdp_offer", "offer": await invited.offer()})
        answer = await invited.message("sdp_answer")
        await invited.accept(answer["answer"]["sdp"])
        await invited.phase("live")
        await invited.drop()
        await invited.leave()
        assert (await operator.ask("POST", "/api/drain")).status == 202
        await invited.open_bare(f"/ws/{made['id']}")
        await invited.send({"type": "init", "token": answer["resumeToken"]})
        await invited.message("session")
        await invited.connect()
        assert server.interviews.running == 1


# -- candidates on their way in: the invitation is not used up before somebody is connected


async def offered(caller: Caller, made: Json) -> None:
    """Come by the invitation and offer; the answer is not waited for."""
    await come(caller, made)
    sdp = await caller.offer()
    await caller.send({"type": "sdp_offer", "offer": {"type": "offer", "sdp": sdp}})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
async def test_an_invitation_outlives_a_server_that_ends_while_its_offer_is_answered(
    tmp_path: Path, number: signal.Signals
) -> None:
    async with live(tmp_path) as (settings, service):
        async with (
            running_server(tmp_path, INTERVIEW_DRAIN_SECONDS="1", **settings) as server,
            calling(server.url) as candidate,
        ):
            made = await Operator(candidate).make()
            service.process.send_signal(signal.SIGSTOP)
            try:
                await offered(candidate, made)
                await candidate.phase("connecting")
                server.process.send_signal(number)
                if number is not signal.SIGKILL:
                    # It hears of it as of any other refused offer.
                    assert await candidate.refusal() == "DRAINING"
                await candidate.socket_closed()
                async with asyncio.timeout(20):
                    code = await server.process.wait()
                assert code == (-number if number is signal.SIGKILL else 0), server.tail()
                server.killed = True
            finally:
                service.process.send_signal(signal.SIGCONT)
        async with running_server(tmp_path, **settings) as again, calling(again.url) as back:
            assert (await Operator(back).show(made))["phase"] == "created"
            await come(back, made)
            await back.connect()


async def test_an_answer_that_nobody_took_up_is_undone_with_all_its_files(tmp_path: Path) -> None:
    async with serving(tmp_path, **KEYS) as server, calling(server.url) as candidate:
        operator = Operator(candidate)
        made = await operator.make()
        await offered(candidate, made)
        await candidate.message("sdp_answer")
        await server.state.chronicle.drained()
        assert (await operator.show(made))["phase"] == "connecting"
        folder = tmp_path / "interviews" / made["id"]

        async def files() -> int:
            return await asyncio.to_thread(lambda: len([*folder.glob("*.*")]))

        await eventually(files, within=5, what="a recording", good=lambda count: count >= 3)
        interview = server.interviews.find(made["id"])
        assert (await operator.ask("POST", "/api/drain", json={"seconds": 0})).status == 202
        await turned_away(candidate)

        async def phase() -> str:
            return str((await operator.show(made))["phase"])

        await eventually(phase, within=10, what="created", good=lambda one: one == "created")
        assert await asyncio.to_thread(folder.exists) is False
        assert interview.legs == [] and interview.call_id is None
        assert interview.phase.value == "created"
    async with serving(tmp_path, **KEYS) as again, calling(again.url) as back:
        await come(back, made)
        await back.connect()
        await back.send({"type": "end_session"})
        await back.message("session_ended")
        await again.state.chronicle.drained()
        shown = await Operator(back).show(made)
        assert (shown["phase"], shown["reason"]) == ("ended", "client_request")


async def test_a_token_for_coming_back_is_no_invitation_once_its_beginning_is_undone(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, **KEYS) as server, calling(server.url) as candidate:
        made = await Operator(candidate).make()
        await offered(candidate, made)
        answer = await candidate.message("sdp_answer")
        reply = await Operator(candidate).ask("POST", "/api/drain", json={"seconds": 0})
        assert reply.status == 202
        await turned_away(candidate)
    async with serving(tmp_path, **KEYS) as again, calling(again.url) as back:
        assert (await Operator(back).show(made))["phase"] == "created"
        # It would begin the interview and leave the link good, for another one to take it over.
        headers = {"Authorization": f"Bearer {answer['resumeToken']}"}
        refused = await back.get(f"/api/consent/{made['id']}", headers=headers)
        assert (refused.status, refused.json()["error"]["code"]) == (401, "TOKEN_INVALID")
        await come(back, made)
        # Also while the candidate is here already.
        refused = await back.post(
            "/api/sdp-exchange", json={"sdpOffer": await back.offer()}, headers=headers
        )
        assert (refused.status, refused.json()["code"]) == (401, "TOKEN_INVALID")
        await back.connect()
        async with calling(again.url) as other:
            await other.open_bare(f"/ws/{made['id']}")
            await other.send({"type": "init", "token": made["join_token"]})
            assert await other.error() == "TOKEN_USED"


async def test_who_is_ended_while_called_off_leaves_no_half_of_a_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked, released = threading.Event(), threading.Event()
    remove = InterviewFolder.remove

    def hanging(self: InterviewFolder) -> None:
        asked.set()
        released.wait(10)
        remove(self)

    monkeypatch.setattr(InterviewFolder, "remove", hanging)
    async with serving(tmp_path, **KEYS) as server, calling(server.url) as candidate:
        operator = Operator(candidate)
        made = await operator.make()
        await offered(candidate, made)
        await candidate.message("sdp_answer")
        try:
            await operator.ask("POST", "/api/drain", json={"seconds": 0})
            assert await asyncio.to_thread(asked.wait, 10)
            await candidate.send({"type": "end_session"})
            await candidate.phase("ending")
        finally:
            released.set()
        assert (await candidate.message("session_ended"))["reason"] == "client_request"
        await server.state.chronicle.drained()
        assert (await operator.show(made))["phase"] == "ended"
        assert await asyncio.to_thread((tmp_path / "interviews" / made["id"]).exists) is False
    assert [one.message for one in caplog.records if one.levelno >= logging.ERROR] == []


async def test_an_offer_that_fails_by_itself_in_that_moment_ends_no_invitation(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, **KEYS) as server, calling(server.url) as candidate:
        made = await Operator(candidate).make()
        await come(candidate, made)
        interview = server.interviews.find(made["id"])
        assert interview.phase is Phase.CREATED
        assert await server.interviews.call_off(interview) is True
        assert interview.phase is Phase.CREATED
        assert len(server.interviews) == 0


async def test_who_is_connected_is_ended_and_not_called_off(tmp_path: Path) -> None:
    async with voice_service() as service:
        # The model's leg never stands.
        service.answer = accepting(ANSWERED)
        settings = alive(service.base_url, SERVICE, **KEYS)
        async with serving(tmp_path, **settings) as server, calling(server.url) as candidate:
            operator = Operator(candidate)
            made = await operator.make()
            await offered(candidate, made)
            await candidate.accept((await candidate.message("sdp_answer"))["answer"]["sdp"])
            async with asyncio.timeout(10):
                await candidate.media_connected.wait()
            interview = server.interviews.find(made["id"])

            async def used() -> bool:
                return not interview.can_be_called_off

            await eventually(used, within=5, what="a connected browser", good=bool)
            assert interview.phase.value == "connecting"
            await operator.ask("POST", "/api/drain", json={"seconds": 0})
            assert (await candidate.message("session_ended"))["reason"] == "server_shutdown"
            await server.state.chronicle.drained()
            assert (await operator.show(made))["phase"] == "ended"
