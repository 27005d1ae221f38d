"""Every operation of operators, tried with keys of too few scopes and with keys of one alone.

What is tried with too few would do something if it were let through: it names what is there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import pytest
from sqlalchemy import select

from interview_peer.app import SIMULATED_KEY, Server
from interview_peer.core.scopes import EVERYTHING, NEEDED, Scope
from interview_peer.errors import InsufficientScope
from interview_peer.simulator.server import SimulatorSettings, start_simulator
from interview_peer.state.database import Transaction
from interview_peer.state.schema import metadata
from interview_peer.types import Json
from tests.support.caller import Caller, Reply, calling
from tests.support.inprocess import live, serving
from tests.support.operator import KEY, Operator

from .test_doors import DOORS, HANGING_UP, OPERATORS, SECRET

REFUSED: Final = {InsufficientScope.code, InsufficientScope.openai_code}
SINGLE: Final = tuple(scope for scope in Scope if scope not in EVERYTHING)
CHANGES: Final = {"nodes": ("seen_at",), "admin_keys": ("last_used_at",)}
"""What is written although a request was refused: that a server lives, and that a key was used."""


def test_every_operation_of_operators_has_its_scopes_and_nothing_else_has() -> None:
    operators = {
        route for route, door in DOORS.items() if door.closed is OPERATORS or "hangup" in route
    }
    assert DOORS["POST /v1/realtime/calls/{call_id}/hangup"].closed is HANGING_UP
    assert operators == set(NEEDED)


async def made_key(operator: Operator, *scopes: Scope) -> str:
    reply = await operator.ask("POST", "/api/keys", json={"name": "k", "scopes": [*scopes]})
    assert reply.status == 201, reply
    assert reply.json()["scopes"] == [*scopes]
    return str(reply.json()["key"])


async def state_of(server: Server) -> Json:
    """All that the database holds, and what the server itself knows."""

    async def look(tx: Transaction) -> Json:
        rows = {}
        for name, table in metadata.tables.items():
            if name == "acts":
                # That it was tried is written down.
                continue
            kept = [one for one in table.columns if one.name not in CHANGES.get(name, ())]
            rows[name] = sorted(map(str, await tx.execute(select(*kept))))
        return rows

    running = server.interviews.running
    return {
        **await server.state.database.run(look),
        **{"running": running, "drain": server.drain.document()},
    }


class Tries:
    """Requests of every operation: those that would do something, and those that do nothing."""

    def __init__(self, caller: Caller, there: Json) -> None:
        self._caller = caller
        self._there = there

    async def real(self, operation: str, key: str, method: str | None = None) -> Reply:
        """One that does what it says, if it is let through."""
        path = operation.partition(" ")[2].replace("{which}", "mixed")
        if path.startswith("/api/webhooks"):
            path = path.replace("{id}", self._there["webhook"])
        path = path.replace("{key_id}", self._there["key"])
        path = path.replace("{call_id}", f"rtc_{self._there['interview']}")
        for name in ("{id}", "{interview_id}"):
            path = path.replace(name, self._there["interview"])
        bodies: dict[str, Json] = {
            "POST /api/keys": {"name": "more"},
            "POST /api/webhooks": {"url": "https://example.org/more"},
            "PATCH /api/webhooks/{id}": {"active": False},
            "POST /api/webhooks/replay": {"since": "2020-01-01T00:00:00Z"},
            "POST /api/interviews/{interview_id}/say": {"text": "Hello."},
            "POST /api/interviews/{interview_id}/instruct": {"text": "Be brief."},
        }
        return await self._ask(operation, method, path, key, bodies.get(operation, {}))

    async def harmless(self, operation: str, key: str) -> Reply:
        """One that does nothing, though it is let through."""
        path = operation.partition(" ")[2].replace("{which}", "mixed")
        for name in ("{id}", "{interview_id}", "{key_id}", "{call_id}"):
            path = path.replace(name, "none-such")
        return await self._ask(operation, None, path, key, {"seconds": -1, "none": "such"})

    async def _ask(
        self, operation: str, method: str | None, path: str, key: str, body: Json
    ) -> Reply:
        method = method or operation.partition(" ")[0]
        options: dict[str, Any] = {} if method in ("GET", "HEAD") else {"json": body}
        headers = {"Authorization": f"Bearer {key}"}
        return await self._caller.request(method, path, headers=headers, **options)


@pytest.fixture
async def asking(tmp_path: Path) -> AsyncIterator[Server]:
    """A server on which nothing is open to those without token or key."""
    simulator = await start_simulator(SimulatorSettings())
    try:
        keys = {"admin_key": KEY, "join_secret": SECRET}
        settings = live(simulator.base_url, SIMULATED_KEY, allow_anonymous=False, **keys)
        async with serving(tmp_path, **settings) as server:
            yield server
    finally:
        await simulator.close()


async def test_a_key_without_the_scope_gets_403_and_changes_nothing_and_one_with_it_gets_through(
    asking: Server,
) -> None:
    async with calling(asking.url) as caller:
        operator = Operator(caller)
        interview = await operator.make()
        hook = {"url": "https://example.org/hook"}
        webhook = (await operator.ask("POST", "/api/webhooks", json=hook)).json()
        key = (await operator.ask("POST", "/api/keys", json={"name": "other"})).json()
        there = {"interview": interview["id"], "webhook": webhook["id"], "key": key["id"]}
        tries = Tries(caller, there)
        with_one = {one: await made_key(operator, one) for one in SINGLE}
        without: dict[frozenset[Scope], str] = {
            wanted: await made_key(operator, *(one for one in SINGLE if one not in wanted))
            for wanted in set(NEEDED.values())
        }
        before = await state_of(asking)
        for operation, wanted in NEEDED.items():
            reply = await tries.real(operation, without[wanted])
            assert (reply.status, reply.json()["error"]["code"] in REFUSED) == (403, True), (
                operation,
                reply,
            )
            assert reply.headers["www-authenticate"] == 'Bearer error="insufficient_scope"'
            named = " or ".join(one for one in Scope if one in wanted)
            assert reply.json()["error"]["message"].endswith(f"needs the scope {named}.")
            if operation.startswith("GET "):
                bodiless = await tries.real(operation, without[wanted], "HEAD")
                assert bodiless.status in (403, 405), operation
        assert await state_of(asking) == before
        for operation, wanted in NEEDED.items():
            for scope in wanted:
                reply = await tries.harmless(operation, with_one[scope])
                assert reply.status not in (401, 403, 429, 500), (operation, scope, reply)
        # What was refused would have been done.
        for operation, scope in (
            ("PATCH /api/webhooks/{id}", Scope.WEBHOOKS),
            ("DELETE /api/keys/{key_id}", Scope.OPERATE),
            ("POST /api/interviews/{interview_id}/end", Scope.INTERVIEWS),
            ("DELETE /api/interviews/{interview_id}", Scope.ERASE),
        ):
            assert (await tries.real(operation, with_one[scope])).status == 200, operation


async def test_where_there_is_nothing_a_key_is_told_so_whatever_its_scopes(tmp_path: Path) -> None:
    async with serving(tmp_path, admin_key=KEY) as server, calling(server.url) as caller:
        key = await made_key(Operator(caller), Scope.ERASE)
        limited = Operator(caller, key)
        assert (await limited.ask("GET", "/api/interviews/a/nothing")).status == 404
        assert (await limited.ask("PUT", "/api/keys")).status == 405
