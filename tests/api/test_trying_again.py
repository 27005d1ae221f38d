"""An invitation stays good until its candidate is connected, whatever gets lost on the way, and
never lets in two at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec
from sqlalchemy import select, update

from interview_peer.app import Server
from interview_peer.core.tokens import AUDIENCE
from interview_peer.errors import StateUnavailable
from interview_peer.state.database import Transaction
from interview_peer.state.schema import interviews
from interview_peer.types import Json
from interview_peer.web import claims
from interview_peer.web.claims import Claims
from tests.session.voice_service import KEY as VOICE_KEY
from tests.session.voice_service import VoiceService, voice_service
from tests.support.caller import Caller, calling
from tests.support.inprocess import live, serving
from tests.support.operator import KEY, Operator
from tests.support.postgres import Postgres
from tests.support.server import running_server
from tests.support.waiting import eventually

from .conftest import JOIN_SECRET
from .test_joining import bearer, joins, refused


class Gate:
    """Holds up what passes it, until it is opened."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()
        self.open = asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await self.open.wait()


async def asks(candidate: Caller, token: str) -> None:
    """Show a token and offer, without waiting for the answer."""
    await candidate.open_bare()
    await candidate.send({"type": "init", "token": token})
    await candidate.send({"type": "sdp_offer", "offer": await candidate.offer()})


async def joins_in_the_end(candidate: Caller, made: Json) -> None:
    """Join, as soon as what was begun before is over."""

    async def attempt() -> str:
        await asks(candidate, made["join_token"])
        message = await candidate.messages.take(
            lambda one: one["type"] in ("sdp_answer", "error"), "an answer"
        )
        if message["type"] == "error":
            await candidate.leave()
            return str(message.get("reason", message["code"]))
        await candidate.accept(message["answer"]["sdp"])
        return "joined"

    seen = await eventually(
        attempt, within=10, what="coming in", good=lambda one: one != "SESSION_BUSY"
    )
    assert seen == "joined"
    candidate.session_id = made["id"]
    await candidate.ready()


async def held_by(server: Server, made: Json) -> str | None:
    async def look(tx: Transaction) -> str | None:
        query = select(interviews.c.node_id).where(interviews.c.id == made["id"])
        node: str | None = (await tx.execute(query)).scalar_one()
        return node

    return await server.state.database.run(look)


async def test_an_offer_cut_off_while_it_is_written_down_burns_nothing(
    served: Server, operator: Operator, candidate: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, real = Gate(), Claims._work

    async def slow(self: Claims, tx: Transaction, **what: Any) -> None:
        await real(self, tx, **what)
        await gate()

    made = await operator.make()
    monkeypatch.setattr(Claims, "_work", slow)
    await asks(candidate, made["join_token"])
    await gate.reached.wait()
    await candidate.leave()
    monkeypatch.setattr(Claims, "_work", real)
    gate.open.set()
    async with calling(served.url) as again:
        await joins_in_the_end(again, made)


async def test_a_commit_that_comes_late_burns_nothing(
    served: Server, operator: Operator, candidate: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, real = Gate(), Claims._work

    async def slow(self: Claims, tx: Transaction, **what: Any) -> None:
        await real(self, tx, **what)
        await gate()

    made = await operator.make()
    monkeypatch.setattr(Claims, "_work", slow)
    monkeypatch.setattr(claims, "PATIENCE_SECONDS", 0.2)
    offer = {"sdpOffer": await candidate.offer()}
    request = asyncio.create_task(
        candidate.post("/api/sdp-exchange", json=offer, **bearer(made["join_token"]))
    )
    await gate.reached.wait()
    reply = await request
    assert (reply.status, reply.json()["code"]) == (503, "STATE_UNAVAILABLE")
    monkeypatch.undo()
    gate.open.set()
    await joins_in_the_end(candidate, made)


@pytest.mark.parametrize("times", [1, None])
async def test_a_commit_whose_answer_is_lost_burns_nothing(
    served: Server,
    operator: Operator,
    candidate: Caller,
    monkeypatch: pytest.MonkeyPatch,
    times: int | None,
) -> None:
    """Lost once, it is found to be written; lost again and again, the candidate is told so."""
    real = Claims._work
    made = await operator.make()
    database = served.state.database
    losses = 0

    async def lossy(work: Any) -> Any:
        nonlocal losses
        result = await type(database).once(database, work)
        if getattr(getattr(work, "func", None), "__func__", None) is real and losses != times:
            losses += 1
            raise ConnectionResetError
        return result

    monkeypatch.setattr(database, "once", lossy)
    if times is None:
        monkeypatch.setattr(claims, "PATIENCE_SECONDS", 0.3)
        await asks(candidate, made["join_token"])
        assert await candidate.refusal() == StateUnavailable.code
        await candidate.leave()
        monkeypatch.undo()
        await eventually(
            lambda: held_by(served, made), within=5, what="its release", good=lambda one: not one
        )
    await joins_in_the_end(candidate, made)
    assert losses > 0


async def test_an_answer_that_is_lost_can_be_asked_for_again(
    served: Server, operator: Operator, candidate: Caller
) -> None:
    made = await operator.make()
    await asks(candidate, made["join_token"])
    lost = (await candidate.message("sdp_answer"))["answer"]["sdp"]
    await candidate.leave()
    async with calling(served.url) as again:
        await joins_in_the_end(again, made)
        await again.sound()
        # From here on the link opens nothing, and what was answered first connects nobody.
        await candidate.accept(lost)
        async with calling(served.url) as thief:
            assert await refused(thief, token=made["join_token"]) == "TOKEN_USED"
        await again.sound(20)
        assert not candidate.media_connected.is_set()
        assert (await operator.show(made))["phase"] == "live"


async def test_a_link_shown_beside_its_candidate_lets_nobody_in(
    served: Server, operator: Operator, candidate: Caller
) -> None:
    made = await operator.make()
    async with calling(served.url) as thief:
        # In good time it is greeted, and then the candidate is quicker.
        await thief.open_bare()
        await thief.send({"type": "init", "token": made["join_token"]})
        await thief.message("session", where=lambda one: one["sessionId"] == made["id"])
        await joins(candidate, made)
        await thief.send({"type": "sdp_offer", "offer": await thief.offer()})
        assert await thief.refusal() == "TOKEN_USED"
        # Also while the candidate is away for a moment.
        await candidate.drop()
        await candidate.phase("detached")
        await thief.send({"type": "sdp_offer", "offer": await thief.offer()})
        assert await thief.refusal() == "TOKEN_USED"
        await candidate.connect()


async def test_a_link_shown_while_the_first_offer_is_answered_is_told_to_wait(
    tmp_path: Path,
) -> None:
    gate = Gate()
    async with (
        voice_service() as voice,
        serving(tmp_path, **settings(voice)) as server,
        calling(server.url) as first,
        calling(server.url) as second,
    ):
        hold_up(voice, gate)
        made = await Operator(first).make()
        await asks(first, made["join_token"])
        await gate.reached.wait()
        await asks(second, made["join_token"])
        assert await second.refusal() == "SESSION_BUSY"
        gate.open.set()
        await first.accept((await first.message("sdp_answer"))["answer"]["sdp"])
        await first.ready()


def settings(voice: VoiceService, **more: Any) -> Json:
    return live(voice.base_url, VOICE_KEY, admin_key=KEY, join_secret=JOIN_SECRET, **more)


def hold_up(voice: VoiceService, gate: Gate, *, refuse: bool = False) -> None:
    """Calls wait at the gate; then they are taken, or refused."""

    async def answer(request: web.Request) -> web.StreamResponse:
        await gate()
        if refuse:
            return web.json_response({}, status=500)
        voice.answer = None
        return await voice.handle(request)

    voice.answer = answer


# -- a server that goes down


async def test_a_server_killed_before_its_answer_leaves_the_invitation_good(
    tmp_path: Path, migrated_url: str | None
) -> None:
    gate = Gate()
    async with voice_service() as voice:
        environment = {
            "SIMULATION_MODE": "false",
            "OPENAI_API_KEY": VOICE_KEY,
            "OPENAI_BASE_URL": voice.base_url,
            "INTERVIEW_ADMIN_KEY": KEY,
            "INTERVIEW_JOIN_SECRET": JOIN_SECRET,
            **({} if migrated_url is None else {"DATABASE_URL": migrated_url}),
        }
        hold_up(voice, gate)
        async with (
            running_server(tmp_path, **environment) as server,
            calling(server.url) as candidate,
        ):
            made = await Operator(candidate).make()
            await asks(candidate, made["join_token"])
            # The call is asked for only after everything was written.
            await gate.reached.wait()
            await server.kill()
        voice.answer = None
        gate.open.set()
        async with (
            running_server(tmp_path, **environment) as server,
            calling(server.url) as candidate,
        ):
            await joins(candidate, made)
            await candidate.sound()
            await candidate.leave()
            assert await refused(candidate, token=made["join_token"]) == "TOKEN_USED"


# -- several nodes


class Provider:
    """An identity provider with one key, which may issue many tokens for one interview."""

    def __init__(self) -> None:
        self.url = ""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._issued = 0

    async def serve(self, request: web.Request) -> web.Response:
        public = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self._key.public_key()))
        return web.json_response({"keys": [{**public, "kid": "k"}]})

    def issue(self, made: Json) -> str:
        self._issued += 1
        now = int(time.time())
        claims = {
            "aud": AUDIENCE,
            "sub": made["id"],
            "jti": f"token {self._issued}",
            "iat": now,
            "exp": now + 600,
        }
        return jwt.encode(claims, self._key, algorithm="ES256", headers={"kid": "k"})


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    made = Provider()
    app = web.Application()
    app.router.add_get("/jwks.json", made.serve)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks.json"
    yield made
    await runner.cleanup()


@pytest.fixture
async def voice() -> AsyncIterator[VoiceService]:
    async with voice_service() as service:
        yield service


@pytest.fixture
async def nodes(
    postgres: Postgres,
    postgres_template: str,
    tmp_path: Path,
    provider: Provider,
    voice: VoiceService,
) -> AsyncIterator[tuple[Server, Server]]:
    """Two servers on one PostgreSQL that take the same tokens."""
    url = postgres.create(postgres_template)
    chosen = settings(voice, database_url=url, jwks_url=provider.url)
    async with contextlib.AsyncExitStack() as stack:
        first, second = [
            await stack.enter_async_context(serving(tmp_path / name, **chosen))
            for name in ("first", "second")
        ]
        yield first, second
    postgres.drop(url)


async def test_two_tokens_let_only_one_into_an_interview_whichever_node_is_asked(
    nodes: tuple[Server, Server], provider: Provider, voice: VoiceService
) -> None:
    gate = Gate()
    async with calling(nodes[0].url) as one, calling(nodes[1].url) as other:
        made = await Operator(one).make()
        hold_up(voice, gate)
        await asks(one, provider.issue(made))
        await gate.reached.wait()
        # Nothing tells the second node yet but who holds it.
        assert (await Operator(other).show(made))["phase"] == "created"
        await asks(other, provider.issue(made))
        assert await other.refusal() == "INTERVIEW_ELSEWHERE"
        gate.open.set()
        await one.accept((await one.message("sdp_answer"))["answer"]["sdp"])
        await one.ready()
        await nodes[0].state.chronicle.drained()
        await other.leave()
        await asks(other, provider.issue(made))
        assert await other.refusal() == "INTERVIEW_ELSEWHERE"
        for action, body in (("end", {}), ("instruct", {"text": "x"}), ("say", {"text": "x"})):
            path = f"/api/interviews/{made['id']}/{action}"
            reply = await Operator(other).ask("POST", path, json=body)
            assert reply.json()["error"]["code"] == "INTERVIEW_ELSEWHERE", action


async def test_an_interview_whose_first_call_is_refused_may_begin_on_another_node(
    nodes: tuple[Server, Server], provider: Provider, voice: VoiceService
) -> None:
    gate = Gate()
    gate.open.set()
    async with calling(nodes[0].url) as one, calling(nodes[1].url) as other:
        made = await Operator(one).make()
        token = provider.issue(made)
        hold_up(voice, gate, refuse=True)
        await asks(one, token)
        assert (await one.refusal()).startswith("UPSTREAM")
        voice.answer = None
        await nodes[0].state.chronicle.drained()
        await asks(other, token)
        await other.accept((await other.message("sdp_answer"))["answer"]["sdp"])
        await other.ready()
        await nodes[1].state.chronicle.drained()
        await one.leave()
        assert await refused(one, token=token) == "TOKEN_USED"


@pytest.mark.parametrize("way", ["end_session", "disconnect", "refusal", "hangup"])
async def test_who_was_left_over_on_one_node_ends_nothing_that_runs_on_another(
    nodes: tuple[Server, Server], way: str
) -> None:
    async with calling(nodes[0].url) as left, calling(nodes[1].url) as candidate:
        made = await Operator(left).make()
        await left.open_bare(f"/ws/{made['id']}")
        await left.send({"type": "init", "token": made["join_token"]})
        await left.message("session")
        await joins(candidate, made)
        if way == "hangup":
            path = f"/v1/realtime/calls/rtc_{made['id']}/hangup"
            reply = await left.post(path, **bearer(made["join_token"]))
            assert (reply.status, reply.json()["error"]["code"]) == (409, "interview_elsewhere")
        else:
            refusal: Json = {"type": "consent", "agreed": False}
            await left.send(refusal if way == "refusal" else {"type": way})
            assert await left.error() == "INTERVIEW_ELSEWHERE"
        for node in nodes:
            await node.state.chronicle.drained()
        # The database would tell an end, and take no further word of what goes on.
        for caller in (left, candidate):
            assert (await Operator(caller).show(made))["phase"] == "live"
        await candidate.send({"type": "end_session"})
        await candidate.message("session_ended")
        await nodes[1].state.chronicle.drained()
        shown = await Operator(candidate).show(made)
        assert (shown["phase"], shown["reason"]) == ("ended", "client_request")
        assert shown["seconds"] is not None


async def test_who_was_left_over_ends_nothing_that_is_to_be_recovered(
    nodes: tuple[Server, Server],
) -> None:
    async with calling(nodes[0].url) as left:
        made = await Operator(left).make()
        await left.open_bare(f"/ws/{made['id']}")
        await left.send({"type": "init", "token": made["join_token"]})
        await left.message("session")

        async def ran(tx: Transaction) -> None:
            # Nothing is known of its node any more.
            left = {"phase": "live", "node_id": None}
            await tx.execute(update(interviews).where(interviews.c.id == made["id"]).values(left))

        await nodes[0].state.database.run(ran)
        for message in ({"type": "disconnect"}, {"type": "consent", "agreed": False}):
            await left.send(message)
            assert await left.error() == "INTERVIEW_ELSEWHERE"


async def test_who_waits_may_end_it_on_the_node_that_has_no_other(
    nodes: tuple[Server, Server],
) -> None:
    async with calling(nodes[0].url) as one, calling(nodes[1].url) as other:
        made = await Operator(one).make()
        for caller in (one, other):
            await caller.open_bare(f"/ws/{made['id']}")
            await caller.send({"type": "init", "token": made["join_token"]})
            await caller.message("session")
        await one.send({"type": "end_session"})
        await one.message("session_ended")
        await nodes[0].state.chronicle.drained()
        assert (await Operator(one).show(made))["reason"] == "client_request"
        # There it is ended as well, and for the same reason.
        await other.send({"type": "disconnect"})
        assert (await other.message("session_ended"))["reason"] == "client_request"


async def test_an_operator_cannot_end_on_one_node_what_begins_on_another(
    nodes: tuple[Server, Server], voice: VoiceService
) -> None:
    gate = Gate()
    async with calling(nodes[0].url) as one, calling(nodes[1].url) as other:
        made = await Operator(one).make()
        hold_up(voice, gate)
        await asks(one, made["join_token"])
        await gate.reached.wait()
        reply = await Operator(other).ask("POST", f"/api/interviews/{made['id']}/end")
        assert reply.json()["error"]["code"] == "INTERVIEW_ELSEWHERE"
        gate.open.set()
        await one.message("sdp_answer")
