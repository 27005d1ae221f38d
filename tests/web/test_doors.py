"""Every door, tried with everything that somebody could hold in their hand.

One table over all routes of the application: a route that has no row here fails, and so does a row
without a route. Each door says which credentials open it, on a server that asks for tokens and on
one that is open to all.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest

from interview_peer import errors
from interview_peer.app import SIMULATED_KEY, Server
from interview_peer.core.tokens import claims_of
from interview_peer.settings import Settings
from interview_peer.simulator.server import SimulatorSettings, start_simulator
from interview_peer.types import Json, SessionId
from interview_peer.web import access as access_module
from interview_peer.web.acts import ROUTES, Unrecorded
from interview_peer.web.api import make_app
from tests.support.caller import Caller, Reply, calling
from tests.support.inprocess import live, serving
from tests.support.operator import KEY, Operator

from . import offers

SECRET = "a-join-secret-of-more-than-32-characters"
IN = "in"
"""The door opened; what is behind it is tested elsewhere."""

REQUIRED, INVALID, EXPIRED, USED, KEY_NEEDED = (
    one.code
    for one in (
        errors.TokenRequired,
        errors.TokenInvalid,
        errors.TokenExpired,
        errors.TokenUsed,
        errors.Unauthorized,
    )
)

NO_TOKEN = ("none", "admin key", "kept key", "wrong key", "unknown key", "revoked key")
"""What is no candidate's token by its look, so that it counts as none where one is asked for."""
NO_GOOD = ("unsigned", "alg none", "other secret", "wrong audience", "unknown resume")
CREDENTIALS = (*NO_TOKEN, *NO_GOOD, "expired", "reused", "another's", "resume")

Expected = Mapping[str, str]


def opened_by(**codes: str) -> Expected:
    """What each credential gets; underscores stand for spaces."""
    given = {name.replace("__", "'").replace("_", " "): code for name, code in codes.items()}
    assert set(given) <= set(CREDENTIALS), given
    return given


BROKEN = {**dict.fromkeys(NO_GOOD, INVALID), "expired": EXPIRED}
ANYBODY: Expected = dict.fromkeys(CREDENTIALS, IN)
OPERATORS: Expected = {
    **dict.fromkeys(CREDENTIALS, KEY_NEEDED),
    **opened_by(admin_key=IN, kept_key=IN),
}
JOINING: Expected = {
    **dict.fromkeys(NO_TOKEN, REQUIRED),
    **BROKEN,
    **opened_by(reused=USED, another__s=IN, resume=IN),
}
"""Whichever interview the token is of."""
JOINING_OPEN: Expected = {**JOINING, **dict.fromkeys(NO_TOKEN, IN)}
JOINING_THIS: Expected = {**JOINING, **opened_by(another__s=INVALID)}
"""One interview, which the request names."""
ASKING: Expected = {
    **dict.fromkeys(NO_TOKEN, REQUIRED),
    **BROKEN,
    **opened_by(reused=IN, another__s=INVALID, resume=IN),
}
"""After one's own interview, though the token has let somebody in."""
HANGING_UP: Expected = {
    **ASKING,
    **opened_by(wrong_key=KEY_NEEDED, unknown_key=KEY_NEEDED, revoked_key=KEY_NEEDED),
    **opened_by(admin_key=IN, kept_key=IN),
}


@dataclass(frozen=True)
class Door:
    """Who is let through: on a server that asks for tokens, and on one that is open to all."""

    closed: Expected
    open: Expected
    spoils: bool = False
    """Whoever is let in ends what the other doors are tried with: only refusals are tried."""


PUBLIC = Door(ANYBODY, ANYBODY)
OPERATOR = Door(OPERATORS, OPERATORS)
JOIN = Door(JOINING, JOINING_OPEN)
JOIN_THIS = Door(JOINING_THIS, JOINING_THIS)

DOORS: dict[str, Door] = {
    "GET /": PUBLIC,
    "GET /i/{interview_id}": PUBLIC,
    "GET /static/{path}": PUBLIC,
    "GET /health": PUBLIC,
    "GET /healthz": PUBLIC,
    "GET /readyz": PUBLIC,
    "GET /api/personas": PUBLIC,
    "GET /api/openapi.json": PUBLIC,
    # Answers everybody alike, with a secret that is none.
    "POST /api/generate-ephemeral-key": PUBLIC,
    "GET /ws": JOIN,
    "GET /ws/{session_id}": JOIN_THIS,
    "GET /api/ice-servers": JOIN,
    "POST /v1/realtime/calls": JOIN,
    "POST /api/sdp-exchange": JOIN_THIS,
    "GET /api/consent/{session_id}": JOIN_THIS,
    "POST /api/consent/{session_id}": JOIN_THIS,
    "GET /api/sessions/{session_id}": Door(ASKING, ASKING),
    "POST /v1/realtime/calls/{call_id}/hangup": Door(HANGING_UP, HANGING_UP, spoils=True),
    "POST /v1/realtime/client_secrets": OPERATOR,
    "GET /api/drain": OPERATOR,
    "POST /api/drain": Door(OPERATORS, OPERATORS, spoils=True),
    **dict.fromkeys(
        (
            "POST /api/interviews",
            "GET /api/interviews",
            "GET /api/interviews/{interview_id}",
            "DELETE /api/interviews/{interview_id}",
            "GET /api/interviews/{interview_id}/transcript",
            "GET /api/interviews/{interview_id}/transcript.json",
            "GET /api/interviews/{interview_id}/transcript.txt",
            "GET /api/interviews/{interview_id}/transcript.vtt",
            "GET /api/interviews/{interview_id}/transcript.srt",
            "GET /api/interviews/{interview_id}/events",
            "GET /api/interviews/{interview_id}/recording",
            "GET /api/interviews/{interview_id}/recording/{which}",
            "GET /api/interviews/{interview_id}/waveform",
            "GET /api/interviews/{id}/deliveries",
            "POST /api/interviews/{interview_id}/end",
            "POST /api/interviews/{interview_id}/instruct",
            "POST /api/interviews/{interview_id}/say",
            "GET /api/audit",
            "GET /api/keys",
            "POST /api/keys",
            "DELETE /api/keys/{key_id}",
            "GET /api/webhooks",
            "POST /api/webhooks",
            "GET /api/webhooks/{id}",
            "PATCH /api/webhooks/{id}",
            "DELETE /api/webhooks/{id}",
            "POST /api/webhooks/{id}/rotate",
            "POST /api/webhooks/{id}/test",
            "GET /api/webhooks/deliveries",
            "GET /api/webhooks/deliveries/{id}",
            "POST /api/webhooks/deliveries/{id}/retry",
            "POST /api/webhooks/replay",
        ),
        OPERATOR,
    ),
}

BY_MESSAGE: Expected = {
    **dict.fromkeys((*NO_TOKEN[1:], *NO_GOOD), INVALID),
    **opened_by(expired=EXPIRED, reused=USED, another__s=IN, resume=IN),
}
"""A token in a socket's ``init``: there anything else is an invalid one."""

SENTENCES = {
    one.sentence: one.code
    for one in vars(errors).values()
    if isinstance(one, type) and issubclass(one, errors.Unauthorized)
}


class Visitor:
    """Tries the doors of one server, on which one invited candidate is being interviewed."""

    def __init__(self, caller: Caller, operator: Operator, interview: Json, held: Json) -> None:
        self._caller = caller
        self._operator = operator
        self._interview = interview
        self._held = held
        self._invited = {interview["id"]}

    async def credential(self, name: str) -> str | None:
        """What is in the hand; the way into another interview is new each time."""
        if name == "another's":
            made = await self._operator.make()
            self._invited.add(made["id"])
            return str(made["sdk_key"])
        return None if name == "none" else str(self._held[name])

    async def knock(self, route: str, name: str) -> str:
        """What becomes of a request: ``IN``, or the code of the refusal."""
        method, _, path = route.partition(" ")
        # An operator is let in: into nothing, so that the interview goes on.
        mine = str(self._interview["id"])
        if DOORS[route] is OPERATOR and OPERATORS[name] == IN:
            mine = "none-such"
        for place in ("interview_id", "session_id"):
            path = path.replace(f"{{{place}}}", mine)
        path = path.replace("interviews/{id}", f"interviews/{mine}")
        path = path.replace("{call_id}", f"rtc_{mine}").replace("{path}", "app.css")
        for place in ("id", "key_id", "which"):
            path = path.replace(f"{{{place}}}", "none-such")
        key = await self.credential(name)
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        if path.startswith("/ws"):
            return await self.socket(path, headers, {"type": "init"})
        body: Json = {}
        if route == "POST /v1/realtime/calls":
            body = {"data": offers.GOOD.encode()}
            headers["Content-Type"] = "application/sdp"
        elif "consent" in path and method == "POST":
            body = {"json": {"agreed": True, "version": "none-such"}}
        elif method != "GET":
            body = {"json": {"sdpOffer": offers.GOOD, "sessionId": mine} if "sdp" in path else {}}
        return outcome(await self._caller.request(method, path, headers=headers, **body))

    async def socket(self, path: str, headers: Mapping[str, str], first: Json) -> str:
        """The same for a WebSocket, which says ``first``."""
        if path.startswith("/ws/"):
            first = {**first, "sessionId": path.rpartition("/")[2]}
        async with (
            aiohttp.ClientSession() as http,
            http.ws_connect(self._caller.url + path, headers=headers) as socket,
            asyncio.timeout(20),
        ):
            with contextlib.suppress(ConnectionError):
                await socket.send_json(first)
            async for frame in socket:
                told = json.loads(frame.data)
                if told["type"] == "error":
                    return str(told["code"])
                # On an open server a token comes after the greeting of a session of one's own.
                if "token" not in first or told["sessionId"] in self._invited:
                    return IN
        return "closed"


def outcome(reply: Reply) -> str:
    if reply.status not in (401, 403, 429):
        assert reply.status != 500, reply
        return IN
    told = reply.json()
    error = told["error"] if isinstance(told["error"], dict) else told
    # OpenAI's form has one code for all of them.
    return SENTENCES.get(error["message"], str(error["code"]))


def signed(name: SessionId, secret: str = SECRET, **changes: Any) -> str:
    now = int(time.time())
    return jwt.encode({**claims_of(name, now, now + 600), **changes}, secret, algorithm="HS256")


def unsigned(name: SessionId, header: Json) -> str:
    now = int(time.time())
    parts = (json.dumps(part).encode() for part in (header, claims_of(name, now, now + 600)))
    return b".".join(base64.urlsafe_b64encode(one).rstrip(b"=") for one in parts).decode() + "."


@contextlib.asynccontextmanager
async def visiting(server: Server) -> AsyncIterator[Visitor]:
    """Make an interview on a server, be in it, and collect every kind of credential."""
    async with calling(server.url) as candidate, calling(server.url) as caller:
        operator = Operator(caller)
        made = await operator.make()
        reply = await candidate.post(
            "/api/sdp-exchange",
            json={"sdpOffer": await candidate.offer()},
            headers={"Authorization": f"Bearer {made['join_token']}"},
        )
        assert reply.status == 200, reply
        await candidate.accept(reply.json()["sdpAnswer"])
        await candidate.ready()
        await candidate.sound()
        kept = (await operator.ask("POST", "/api/keys", json={"name": "kept"})).json()
        gone = (await operator.ask("POST", "/api/keys", json={"name": "gone"})).json()
        await operator.ask("DELETE", f"/api/keys/{gone['id']}")
        name, now = SessionId(made["id"]), int(time.time())
        held = {
            "admin key": KEY,
            "kept key": kept["key"],
            "wrong key": KEY + "x",
            "unknown key": "ipk_" + "x" * 43,
            "revoked key": gone["key"],
            "unsigned": unsigned(name, {"alg": "HS256", "typ": "JWT"}),
            "alg none": unsigned(name, {"alg": "none", "typ": "JWT"}),
            "other secret": signed(name, "another-secret-of-more-than-32-characters"),
            "wrong audience": signed(name, aud="somebody-else"),
            "expired": signed(name, iat=now - 900, nbf=now - 900, exp=now - 300),
            "reused": made["sdk_key"],
            "unknown resume": "ipr_" + "x" * 43,
            "resume": reply.json()["resumeToken"],
        }
        yield Visitor(caller, operator, made, held)


async def wrong_doors(visitor: Visitor, doors: Mapping[str, Expected], spoils: set[str]) -> Json:
    """Those that open to somebody else than is expected, or to somebody not."""
    found: Json = {}
    for route, expected in doors.items():
        for name in CREDENTIALS:
            if route in spoils and expected[name] == IN:
                continue
            got = await visitor.knock(route, name)
            if got != expected[name]:
                found[f"{route} with {name}"] = f"{got}, not {expected[name]}"
    for name, code in BY_MESSAGE.items():
        first = {"type": "init", "token": await visitor.credential(name)}
        for path in ("/", "/ws"):
            if code == IN and path == "/":
                # What lets in once was used by the other path.
                continue
            got = await visitor.socket(path, {}, first)
            if got != code:
                found[f"init at {path} with {name}"] = f"{got}, not {code}"
    return found


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Json:
    """Settings, and more patience with wrong credentials than a server has."""
    monkeypatch.setattr(access_module, "FAILURES_AT_ONCE", 1_000_000)
    return {
        "admin_key": KEY,
        "join_secret": SECRET,
        **dict.fromkeys(
            (
                *("requests_per_minute", "offers_per_minute"),
                *("offers_per_interview", "sockets_per_minute"),
            ),
            0,
        ),
    }


async def test_every_route_has_a_row(tmp_path: Path) -> None:
    async with serving(tmp_path) as server:
        settings = Settings(simulation=True, data_dir=tmp_path)
        app = make_app(
            settings, server.interviews, dict, server.state, server.archive, server.drain
        )
    routes = {
        f"{route.method} {route.resource.canonical}"
        for route in app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert routes == set(DOORS)


def test_every_door_of_operators_is_an_act_or_says_why_not() -> None:
    # A route of operators is one that their keys open, and nobody who comes without anything.
    operators = {
        route
        for route, door in DOORS.items()
        if door.closed["kept key"] == IN and door.closed["none"] != IN
    }
    assert set(ROUTES) == operators
    for route, entry in ROUTES.items():
        if isinstance(entry, Unrecorded):
            assert route.startswith("GET ") and entry.because.endswith("."), route


SPOILS = {route for route, door in DOORS.items() if door.spoils}


@pytest.mark.timeout(120)
async def test_each_door_of_a_server_with_tokens_opens_to_whom_it_should(
    tmp_path: Path, patient: Json
) -> None:
    simulator = await start_simulator(SimulatorSettings())
    try:
        settings = live(simulator.base_url, SIMULATED_KEY, allow_anonymous=False, **patient)
        async with serving(tmp_path, **settings) as server, visiting(server) as visitor:
            doors = {route: door.closed for route, door in DOORS.items()}
            assert await wrong_doors(visitor, doors, SPOILS) == {}
    finally:
        await simulator.close()


@pytest.mark.timeout(120)
async def test_each_door_of_an_open_server_opens_to_whom_it_should(
    tmp_path: Path, patient: Json
) -> None:
    async with serving(tmp_path, **patient) as server, visiting(server) as visitor:
        doors = {route: door.open for route, door in DOORS.items()}
        assert await wrong_doors(visitor, doors, SPOILS) == {}


async def test_a_flood_of_wrong_secrets_is_refused_before_the_database_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        serving(tmp_path, admin_key=KEY, join_secret=SECRET) as server,
        calling(server.url) as caller,
    ):
        operator = Operator(caller)
        kept = (await operator.ask("POST", "/api/keys", json={"name": "kept"})).json()["key"]
        assert (await caller.get("/api/interviews", headers=bearing(kept))).status == 200
        asked = 0
        real = server.state.database.run

        async def run(work: Any, **options: Any) -> Any:
            nonlocal asked
            # The server's own tasks ask it now and then, too.
            asked += getattr(work, "__module__", None) == access_module.__name__
            return await real(work, **options)

        monkeypatch.setattr(server.state.database, "run", run)
        began = time.monotonic()
        replies = await asyncio.gather(
            *(
                caller.get("/api/keys", headers=bearing(f"ipk_{number:043}"))
                for number in range(40)
            ),
            *(
                caller.get("/api/ice-servers", headers=bearing(f"ipr_{number:043}"))
                for number in range(15)
            ),
        )
        statuses = [reply.status for reply in replies]
        assert set(statuses) == {401, 429} and statuses.count(429) >= 40, statuses
        more = (time.monotonic() - began) * access_module.FAILURES_PER_SECOND
        assert 0 < asked <= access_module.FAILURES_AT_ONCE + 1 + more
        # Who is known here goes on, though they share the address with whoever floods.
        assert (await caller.get("/api/interviews", headers=bearing(kept))).status == 200
        assert (await caller.get("/api/interviews", headers=bearing(KEY))).status == 200


async def test_a_key_that_comes_many_times_at_once_is_one_question(tmp_path: Path) -> None:
    async with serving(tmp_path / "one", admin_key=KEY) as server, calling(server.url) as caller:
        reply = await Operator(caller).ask("POST", "/api/keys", json={"name": "kept"})
        key = reply.json()["key"]
        count = access_module.FAILURES_AT_ONCE * 3
        replies = await asyncio.gather(
            *(caller.get("/api/keys", headers=bearing(key)) for _ in range(count))
        )
        assert {reply.status for reply in replies} == {200}


def bearing(key: str) -> Json:
    return {"Authorization": f"Bearer {key}"}
