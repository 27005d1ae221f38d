"""What the WebSocket says to what a client sends."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from pathlib import Path

import aiohttp
import pytest

from interview_peer.app import Server
from interview_peer.personas import Personas
from interview_peer.types import Json
from tests.support.caller import Caller, calling
from tests.support.inprocess import serving


async def created(caller: Caller) -> Json:
    """The session object that the model told this caller's page."""
    session = (await caller.event("session.created"))["session"]
    assert isinstance(session, dict)
    return session


async def known(caller: Caller, session_id: str) -> int:
    return (await caller.get(f"/api/sessions/{session_id}")).status


# -- greeting and init


@pytest.mark.parametrize("path", ["/ws", "/"])
async def test_a_socket_is_greeted_with_a_session_of_its_own(caller: Caller, path: str) -> None:
    greeting = await caller.open(path)
    assert set(greeting) == {"type", "sessionId", "message", "holdSeconds", "consentRequired"}
    assert greeting["consentRequired"] is False
    assert greeting["holdSeconds"] == 10
    assert uuid.UUID(greeting["sessionId"])
    assert greeting["message"]
    assert await caller.known_phase() == "created"


async def test_two_sockets_get_two_sessions(local: Server, caller: Caller) -> None:
    async with calling(local.url) as other:
        assert (await caller.open())["sessionId"] != (await other.open())["sessionId"]


async def test_a_plain_get_of_the_front_is_the_page(caller: Caller) -> None:
    reply = await caller.get("/")
    assert reply.status == 200
    assert reply.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in reply.headers["content-security-policy"]


async def test_init_with_a_new_id_makes_that_session_and_forgets_the_greeted_one(
    caller: Caller,
) -> None:
    greeted = (await caller.open())["sessionId"]
    await caller.send({"type": "init", "sessionId": "my-own_id-1"})
    assert (await caller.message("session"))["sessionId"] == "my-own_id-1"
    assert await known(caller, "my-own_id-1") == 200
    assert await known(caller, greeted) == 404


async def test_init_with_a_known_id_joins_that_session(local: Server, caller: Caller) -> None:
    await caller.open()
    await caller.connect()
    async with calling(local.url) as second:
        await second.open()
        await second.send({"type": "init", "sessionId": caller.session_id})
        assert (await second.message("session"))["sessionId"] == caller.session_id
        assert (await second.phase("live"))["sessionId"] == caller.session_id


async def test_init_with_the_greeted_id_or_none_changes_nothing(caller: Caller) -> None:
    greeted = (await caller.open())["sessionId"]
    await caller.send({"type": "init", "sessionId": greeted})
    await caller.send({"type": "init"})
    await caller.send({"type": "init", "sessionId": None, "aiPersona": ""})
    await caller.send({"type": "ice_candidate"})
    await caller.message("ice_status")
    assert [one["type"] for one in caller.messages.items] == ["session", "ice_status"]
    assert await known(caller, greeted) == 200


async def test_an_id_whose_interview_has_files_is_taken(
    local: Server, caller: Caller, tmp_path: Path
) -> None:
    (tmp_path / "interviews" / "held-before").mkdir(parents=True)
    greeted = (await caller.open())["sessionId"]
    await caller.send({"type": "init", "sessionId": "held-before"})
    assert await caller.error() == "SESSION_ID_TAKEN"
    # The greeted session is still this socket's.
    await caller.connect()
    assert caller.session_id == greeted


@pytest.mark.parametrize("session_id", ["a/b", "..", "x" * 65, "with space", "\ud800", "a\n"])
async def test_an_id_that_is_no_name_is_refused(caller: Caller, session_id: str) -> None:
    await caller.open()
    await caller.send({"type": "init", "sessionId": session_id})
    assert await caller.error() == "INVALID_SESSION_ID"


async def test_a_persona_asked_for_conducts_the_interview(local: Server, caller: Caller) -> None:
    wanted = Personas.load().find("engineer")
    await caller.open()
    await caller.send({"type": "init", "aiPersona": "engineer"})
    await caller.connect()
    session = await created(caller)
    assert local.interviews.find(caller.session_id).persona == wanted
    assert session["audio"]["output"]["voice"] == wanted.voice
    # Its instructions are between server and model.
    assert session["instructions"] == ""


async def test_a_bare_voice_is_taken_for_a_persona(local: Server, caller: Caller) -> None:
    await caller.open()
    await caller.send({"type": "init", "aiPersona": "Alloy"})
    await caller.connect()
    session = await created(caller)
    persona = local.interviews.find(caller.session_id).persona
    assert persona == Personas.load().default.with_voice("alloy")
    assert session["audio"]["output"]["voice"] == "alloy"


async def test_an_unknown_persona_is_refused_and_nothing_else_of_the_message_is_done(
    caller: Caller,
) -> None:
    await caller.open()
    await caller.send({"type": "init", "aiPersona": "nobody", "sessionId": "not-made"})
    assert await caller.error() == "PERSONA_NOT_FOUND"
    assert await known(caller, "not-made") == 404


# -- offers


async def test_states_and_answer_come_in_the_order_they_happen(caller: Caller) -> None:
    await caller.open()
    await caller.connect()
    await caller.send({"type": "end_session"})
    await caller.message("session_ended")
    told = [
        (one["type"], one.get("phase")) for one in caller.messages.items if one["type"] != "error"
    ]
    assert told == [
        ("session", None),
        ("state", "connecting"),
        ("sdp_answer", None),
        ("state", "live"),
        ("state", "ending"),
        ("state", "ended"),
        ("session_ended", None),
    ]
    for one in caller.messages.items:
        assert one["sessionId"] == caller.session_id
    assert caller.messages.items[-1]["reason"] == "client_request"


async def test_an_answer_is_complete_and_ends_every_line(caller: Caller) -> None:
    await caller.open()
    await caller.send(
        {"type": "sdp_offer", "offer": {"type": "offer", "sdp": await caller.offer()}}
    )
    message = await caller.message("sdp_answer")
    assert set(message) == {"type", "answer", "sessionId"}
    assert message["answer"]["type"] == "answer"
    lines = message["answer"]["sdp"].split("\r\n")
    assert lines[0] == "v=0" and lines[-1] == ""
    assert any(line.startswith("a=candidate:") for line in lines)
    assert "a=end-of-candidates" in lines


async def test_an_offer_may_be_a_bare_text(caller: Caller) -> None:
    await caller.open()
    await caller.send({"type": "sdp_offer", "offer": await caller.offer()})
    await caller.accept((await caller.message("sdp_answer"))["answer"]["sdp"])
    await caller.phase("live")


async def test_an_offer_without_init_or_candidates_is_enough(caller: Caller) -> None:
    await caller.open()
    sdp = "".join(
        line for line in (await caller.offer()).splitlines(True) if "candidate" not in line
    )
    await caller.send({"type": "sdp_offer", "offer": {"sdp": sdp}})
    await caller.accept((await caller.message("sdp_answer"))["answer"]["sdp"])
    await caller.phase("live")
    await caller.sound()


async def test_candidates_are_acknowledged(caller: Caller) -> None:
    await caller.open()
    for candidate in ({"candidate": "candidate:1 1 udp 1 10.0.0.1 9 typ host"}, None, "text"):
        await caller.send({"type": "ice_candidate", "candidate": candidate})
        status = await caller.message("ice_status")
        assert set(status) == {"type", "message"}


async def test_a_second_offer_while_the_first_is_answered_is_refused(caller: Caller) -> None:
    await caller.open()
    offer = {"type": "sdp_offer", "offer": await caller.offer()}
    await caller.send(offer)
    await caller.send(offer)
    assert await caller.refusal() == "SESSION_BUSY"
    await caller.accept((await caller.message("sdp_answer"))["answer"]["sdp"])
    await caller.phase("live")


async def test_a_caller_hears_the_interviewer_and_is_heard(caller: Caller) -> None:
    await caller.open()
    await caller.connect()
    await caller.sound(10)
    caller.speak(seconds=1.5)
    await caller.event("input_audio_buffer.speech_started")
    await caller.event("output_audio_buffer.cleared")
    await caller.event("input_audio_buffer.speech_stopped")


# -- ending


@pytest.mark.parametrize("kind", ["end_session", "disconnect"])
@pytest.mark.parametrize("named", [True, False])
async def test_both_words_end_a_live_interview_and_the_socket(
    caller: Caller, kind: str, named: bool
) -> None:
    await caller.open()
    await caller.connect()
    await caller.send({"type": kind} | ({"sessionId": caller.session_id} if named else {}))
    ended = await caller.message("session_ended")
    assert ended["sessionId"] == caller.session_id
    assert ended["reason"] == "client_request"
    await caller.socket_closed()
    await caller.media_lost.wait()
    assert await caller.known_phase() == "ended"


@pytest.mark.parametrize("kind", ["end_session", "disconnect"])
async def test_a_foreign_session_cannot_be_ended(local: Server, caller: Caller, kind: str) -> None:
    await caller.open()
    await caller.connect()
    async with calling(local.url) as other:
        await other.open()
        await other.send({"type": kind, "sessionId": caller.session_id})
        assert await other.error() == "SESSION_NOT_FOUND"
        assert await other.known_phase() == "created"
    assert await caller.known_phase() == "live"


async def test_a_session_that_never_began_can_be_ended(caller: Caller) -> None:
    await caller.open()
    await caller.send({"type": "disconnect"})
    assert (await caller.message("session_ended"))["reason"] == "client_request"
    await caller.socket_closed()


async def test_an_end_while_an_offer_is_answered_wins(caller: Caller) -> None:
    await caller.open()
    await caller.send({"type": "sdp_offer", "offer": await caller.offer()})
    await caller.send({"type": "end_session"})
    assert (await caller.message("session_ended"))["reason"] == "client_request"
    assert await caller.known_phase() == "ended"


async def test_an_ended_session_takes_no_offer(local: Server, caller: Caller) -> None:
    await caller.open()
    await caller.connect()
    await caller.send({"type": "end_session"})
    await caller.message("session_ended")
    async with calling(local.url) as other:
        assert (await other.open(f"/ws/{caller.session_id}"))["sessionId"] == caller.session_id
        assert (await other.phase("ended"))["reason"] == "client_request"
        await other.send({"type": "sdp_offer", "offer": await other.offer()})
        assert await other.refusal() == "SESSION_ENDED"
        # A goodbye that comes too late is answered all the same.
        await other.send({"type": "disconnect"})
        assert (await other.message("session_ended"))["reason"] == "client_request"
        await other.socket_closed()


# -- sockets come and go


async def test_closing_the_socket_leaves_flowing_media_alone(caller: Caller) -> None:
    await caller.open()
    await caller.connect()
    await caller.leave()
    await caller.sound(50)
    caller.say({"type": "response.cancel"})
    assert await caller.known_phase() == "live"


async def test_a_socket_by_id_follows_the_interview(local: Server, caller: Caller) -> None:
    await caller.open()
    await caller.connect()
    await caller.leave()
    await caller.open(f"/ws/{caller.session_id}")
    await caller.phase("live")
    await caller.send({"type": "end_session"})
    await caller.message("session_ended")


async def test_a_socket_by_an_unknown_id_is_told_and_closed(caller: Caller) -> None:
    await caller.open_bare("/ws/no-such-session")
    assert await caller.error() == "SESSION_NOT_FOUND"
    await caller.socket_closed()
    assert [one["type"] for one in caller.messages.items] == ["error"]


async def test_a_socket_address_without_a_socket_is_an_error(caller: Caller) -> None:
    reply = await caller.get("/ws")
    assert reply.status == 400
    assert reply.json()["error"]["code"] == "BAD_REQUEST"


async def test_any_origin_may_connect(local: Server) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.ws_connect(local.url + "/ws", origin="https://elsewhere.example") as socket,
    ):
        assert (await socket.receive_json(timeout=5))["type"] == "session"


async def test_a_full_server_says_so(tmp_path: Path) -> None:
    async with serving(tmp_path, max_interviews=1) as server, calling(server.url) as first:
        await first.open()
        await first.connect()
        async with calling(server.url) as second:
            await second.open()
            await second.send({"type": "sdp_offer", "offer": await second.offer()})
            assert await second.refusal() == "AT_CAPACITY"
            await first.send({"type": "end_session"})
            await first.message("session_ended")
            await second.connect()


async def test_a_returning_browser_goes_on_in_the_same_interview(caller: Caller) -> None:
    await caller.open()
    await caller.connect()
    first = await created(caller)
    await caller.drop()
    await caller.phase("detached")
    await caller.connect()
    caller.say({"type": "session.update", "session": {"type": "realtime"}})
    again = (await caller.event("session.updated"))["session"]
    assert again["id"] == first["id"]


async def test_the_server_tells_its_clients_when_it_stops(tmp_path: Path) -> None:
    async with contextlib.AsyncExitStack() as stack:
        async with serving(tmp_path) as server:
            caller = await stack.enter_async_context(calling(server.url))
            await caller.open()
            await caller.connect()
        assert (await caller.message("session_ended"))["reason"] == "server_shutdown"
        await caller.socket_closed()
        async with asyncio.timeout(5):
            await caller.media_lost.wait()
