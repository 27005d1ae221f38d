"""``/api/keys``: further keys for operators, so that one can be replaced while another works.

A key is shown once, when it is made; kept is its digest alone.
"""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web
from sqlalchemy import Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from ..core import scopes, tokens
from ..core.scopes import Scope, Scopes
from ..errors import InsufficientScope, InvalidField, KeyNotFound
from ..state.database import Database, Transaction
from ..state.schema import admin_keys, now_us
from ..types import Json
from . import forms, times
from .access import GRANTED, KEY_ID_LENGTH
from .acts import concerns

PATH: Final = "/api/keys"
MAX_NAME: Final = 100


class KeysApi:
    """The routes of admin keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_to(self, app: web.Application) -> None:
        """Register the routes."""
        app.router.add_post(PATH, self.create)
        app.router.add_get(PATH, self.list)
        app.router.add_delete(PATH + "/{key_id}", self.revoke)

    async def create(self, request: web.Request) -> web.Response:
        """Make a key; this answer alone holds it."""
        body = await forms.read_json(request)
        name = _name(body)
        granted = _scopes(body, request[GRANTED])
        key = tokens.new_admin_key()
        row: Json = {
            "hash": tokens.digest(key),
            "name": name,
            "scopes": scopes.written(granted),
            "created_at": now_us(),
        }

        async def work(tx: Transaction) -> None:
            await tx.execute(insert(admin_keys).values(**row))

        try:
            await self._database.run(work)
        except IntegrityError:
            # Its digest is random: written by an attempt whose end was not heard of.
            pass
        name_of_it = row["hash"][:KEY_ID_LENGTH]
        concerns(request, object_id=name_of_it)
        return web.json_response(
            {
                "id": name_of_it,
                "name": name,
                "scopes": scopes.listed(granted),
                "key": key,
                "created_at": times.told(row["created_at"]),
                "last_used_at": None,
                "revoked_at": None,
            },
            status=201,
        )

    async def list(self, request: web.Request) -> web.Response:
        """Every key that was ever made, without the keys themselves."""

        async def look(tx: Transaction) -> list[Row[Any]]:
            query = select(admin_keys).order_by(admin_keys.c.created_at, admin_keys.c.hash)
            return [*(await tx.execute(query))]

        return web.json_response({"keys": [_told(row) for row in await self._database.run(look)]})

    async def revoke(self, request: web.Request) -> web.Response:
        """Make a key open nothing from now on; again is harmless."""
        name = request.match_info["key_id"]
        if len(name) != KEY_ID_LENGTH or set(name) - set("0123456789abcdef"):
            raise KeyNotFound

        async def work(tx: Transaction) -> Row[Any] | None:
            is_it = admin_keys.c.hash.startswith(name)
            await tx.execute(
                update(admin_keys)
                .where(is_it, admin_keys.c.revoked_at.is_(None))
                .values(revoked_at=now_us())
            )
            return (await tx.execute(select(admin_keys).where(is_it))).one_or_none()

        row = await self._database.run(work)
        if row is None:
            raise KeyNotFound
        return web.json_response(_told(row))


def _told(row: Row[Any]) -> Json:
    return {
        "id": row.hash[:KEY_ID_LENGTH],
        "name": row.name,
        "scopes": scopes.listed(scopes.read(row.scopes)),
        "created_at": times.told(row.created_at),
        "last_used_at": times.told(row.last_used_at),
        "revoked_at": times.told(row.revoked_at),
    }


def _name(body: Json) -> str:
    name = body.get("name")
    if set(body) - {"name", "scopes"}:
        raise InvalidField("body", "body: takes name and scopes alone.")
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_NAME or not name.isprintable():
        raise InvalidField("name", f"name: must be a text of 1 to {MAX_NAME} characters.")
    return name


def _scopes(body: Json, own: Scopes) -> Scopes:
    """What the new key is to open; as much as the one that asks for it, where nothing is said.

    Raises:
        InvalidField: those are no scopes.
        InsufficientScope: they are more than ``own``.
    """
    asked = body.get("scopes")
    if asked is None:
        return own
    texts = isinstance(asked, list) and all(isinstance(one, str) for one in asked)
    if not texts or not asked or set(asked) - set(Scope):
        named = ", ".join(Scope)
        raise InvalidField("scopes", f"scopes: must be a list of one or more of {named}.")
    wanted = frozenset(Scope(one) for one in asked)
    more = scopes.beyond(wanted, own)
    if more:
        raise InsufficientScope(
            "A key cannot make one with more scopes than its own; it has not "
            f"{', '.join(scopes.listed(more))}."
        )
    return wanted
