"""Who may use the API: the setting's key and those in the database, several at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy import select, text

from interview_peer.app import Server
from interview_peer.core.scopes import Scope
from interview_peer.core.tokens import digest
from interview_peer.state.database import Transaction
from interview_peer.state.schema import admin_keys, now_us
from tests.support.caller import calling
from tests.support.inprocess import serving
from tests.support.operator import PATH, Operator

KEYS = "/api/keys"


async def test_keys_work_beside_each_other_until_one_is_revoked(operator: Operator) -> None:
    made = [
        (await operator.ask("POST", KEYS, json={"name": name})).json() for name in ("old", "new")
    ]
    for one in made:
        assert one["key"].startswith("ipk_")
        reply = await operator.ask("GET", PATH)
        assert reply.status == 200
    old, new = (Operator(operator._caller, one["key"]) for one in made)
    assert (await old.ask("GET", PATH)).status == (await new.ask("GET", PATH)).status == 200
    for _ in range(2):
        revoked = await operator.ask("DELETE", f"{KEYS}/{made[0]['id']}")
        assert revoked.status == 200 and revoked.json()["revoked_at"]
    assert (await old.ask("GET", PATH)).status == 401
    assert (await new.ask("GET", PATH)).status == 200
    listed = (await operator.ask("GET", KEYS)).json()["keys"]
    assert [
        (one["name"], bool(one["revoked_at"]), bool(one["last_used_at"])) for one in listed
    ] == [
        ("old", True, True),
        ("new", False, True),
    ]


async def test_a_key_is_kept_as_a_digest_alone(served: Server, operator: Operator) -> None:
    made = (await operator.ask("POST", KEYS, json={"name": "tracker"})).json()

    async def look(tx: Transaction) -> str:
        return str([tuple(row) for row in await tx.execute(select(admin_keys))])

    kept = await served.state.database.run(look)
    assert made["id"] in kept and made["key"] not in kept
    assert made["key"] not in (await operator.ask("GET", KEYS)).text


async def test_a_key_has_the_scopes_it_was_made_with(operator: Operator) -> None:
    asked = ["erase", "recordings", "erase"]
    made = (await operator.ask("POST", KEYS, json={"name": "r", "scopes": asked})).json()
    assert made["scopes"] == ["recordings", "erase"]
    reader = Operator(operator._caller, made["key"])
    for _ in range(2):
        assert (await reader.ask("GET", PATH)).status == 200
        refused = await reader.ask("POST", PATH, json={})
        assert (refused.status, refused.json()["error"]["code"]) == (403, "INSUFFICIENT_SCOPE")
    assert await operator.ids() == []
    listed = (await operator.ask("GET", KEYS)).json()["keys"]
    assert [one["scopes"] for one in listed] == [["recordings", "erase"]]
    # It is known and good: an operator who tries the wrong path is not one who guesses.
    for _ in range(15):
        assert (await reader.ask("GET", KEYS)).status == 403
    await operator.ask("DELETE", f"{KEYS}/{made['id']}")
    assert (await reader.ask("POST", PATH, json={})).status == 401


async def test_requests_that_come_at_once_with_a_new_key_get_no_more_than_it_opens(
    operator: Operator,
) -> None:
    wanted = {"name": "at once", "scopes": ["webhooks"]}
    key = (await operator.ask("POST", KEYS, json=wanted)).json()["key"]
    limited = Operator(operator._caller, key)
    replies = await asyncio.gather(
        *(limited.ask("GET", path) for path in (PATH, "/api/webhooks") * 10)
    )
    assert [reply.status for reply in replies] == [403, 200] * 10


async def test_a_key_makes_none_with_more_scopes_than_its_own(operator: Operator) -> None:
    own = ["recordings", "operate"]
    made = (await operator.ask("POST", KEYS, json={"name": "o", "scopes": own})).json()
    maker = Operator(operator._caller, made["key"])
    for more in (["interviews"], ["recordings", "erase"], ["all"], [*Scope][1:]):
        refused = await maker.ask("POST", KEYS, json={"name": "more", "scopes": more})
        assert (refused.status, refused.json()["error"]["code"]) == (403, "INSUFFICIENT_SCOPE")
    same = (await maker.ask("POST", KEYS, json={"name": "same"})).json()
    less = (await maker.ask("POST", KEYS, json={"name": "less", "scopes": ["recordings"]})).json()
    assert (same["scopes"], less["scopes"]) == (own, ["recordings"])
    listed = (await maker.ask("GET", KEYS)).json()["keys"]
    assert [(one["name"], one["scopes"]) for one in listed] == [
        ("o", own),
        ("same", own),
        ("less", ["recordings"]),
    ]
    assert (await operator.ask("POST", KEYS, json={"name": "all"})).json()["scopes"] == ["all"]


async def test_a_key_of_a_server_without_scopes_opens_everything(
    served: Server, operator: Operator
) -> None:
    key = "ipk_of-an-older-server"
    # As such a server writes it, while the database is of this version already.
    row = {"hash": digest(key), "name": "older", "at": now_us()}

    async def write(tx: Transaction) -> None:
        columns = "INSERT INTO admin_keys (hash, name, created_at) VALUES (:hash, :name, :at)"
        await tx.execute(text(columns), row)

    await served.state.database.run(write)
    older = Operator(operator._caller, key)
    made = await older.ask("POST", KEYS, json={"name": "newer"})
    assert (made.status, made.json()["scopes"]) == (201, ["all"])
    assert (await older.make())["join_token"]
    assert (await older.ask("GET", "/api/webhooks")).status == 200


@pytest.mark.parametrize(
    "scopes", [[], "all", ["everything"], ["ALL"], ["interviews", 1], [["all"]], {"all": True}, 1]
)
async def test_scopes_that_are_none_are_refused(plain: Operator, scopes: object) -> None:
    reply = await plain.ask("POST", KEYS, json={"name": "k", "scopes": scopes})
    assert (reply.status, reply.json()["error"]["code"]) == (422, "INVALID_FIELD")
    assert reply.json()["error"]["field"] == "scopes"


@pytest.mark.parametrize("path", [PATH, KEYS, "/api/webhooks", "/api/webhooks/deliveries"])
@pytest.mark.parametrize("key", [None, "wrong", "ipk_wrong", "ipk_\xff", "operators-key"])
async def test_without_a_good_key_nothing_is_told(
    plain: Operator, path: str, key: str | None
) -> None:
    reply = await Operator(plain._caller, key).ask("GET", path)
    assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
    assert reply.json()["error"]["code"] == "UNAUTHORIZED"


async def test_guessing_keys_is_slowed_down_and_costs_nobody_else(plain: Operator) -> None:
    guesser = Operator(plain._caller, "ipk_guess")
    statuses = [(await guesser.ask("GET", PATH)).status for _ in range(12)]
    assert statuses[0] == 401 and statuses[-1] == 429
    assert (await plain.ask("GET", PATH)).status == 200


async def test_a_simulation_at_home_without_a_key_asks_nobody(tmp_path: Path) -> None:
    async with serving(tmp_path) as server, calling(server.url) as caller:
        assert (await Operator(caller, None).ask("GET", KEYS)).status == 200


@pytest.mark.parametrize(
    "body", [{}, {"name": ""}, {"name": 1}, {"name": "x" * 101}, {"name": "a\n"}, {"a": 1}]
)
async def test_a_key_needs_a_name(plain: Operator, body: dict[str, object]) -> None:
    reply = await plain.ask("POST", KEYS, json=body)
    assert (reply.status, reply.json()["error"]["code"]) == (422, "INVALID_FIELD")


@pytest.mark.parametrize("name", ["0" * 16, "0", "%", "_" * 16, "0" * 64])
async def test_a_key_that_is_not_there_cannot_be_revoked(plain: Operator, name: str) -> None:
    reply = await plain.ask("DELETE", f"{KEYS}/{name}")
    assert reply.status == 404
