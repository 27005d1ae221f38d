"""Whoever makes and ends interviews: a caller with the operator's key."""

from __future__ import annotations

from typing import Any, Final

from interview_peer.types import Json

from .caller import Caller, Reply

KEY: Final = "operators-key-0123456789"
PATH: Final = "/api/interviews"


class Operator:
    """Asks with the operator's key, unless told another one."""

    def __init__(self, caller: Caller, key: str | None = KEY) -> None:
        self._caller = caller
        self.key = key

    async def ask(self, method: str, path: str, **options: Any) -> Reply:
        """One request."""
        headers = dict(options.pop("headers", {}))
        if self.key is not None:
            headers["Authorization"] = f"Bearer {self.key}"
        return await self._caller.request(method, path, headers=headers, **options)

    async def make(self, **body: Any) -> Json:
        """An interview that was made as asked; its candidate has agreed to being recorded, unless
        it says otherwise."""
        body.setdefault("consent", "given")
        reply = await self.ask("POST", PATH, json=body)
        assert reply.status == 201, reply
        return reply.json()

    async def show(self, interview: Json) -> Json:
        """The same interview as it is now."""
        reply = await self.ask("GET", f"{PATH}/{interview['id']}")
        assert reply.status == 200, reply
        return reply.json()

    async def ids(self, query: str = "") -> list[str]:
        """Ids of the interviews on one page."""
        reply = await self.ask("GET", PATH + query)
        assert reply.status == 200, reply
        return [one["id"] for one in reply.json()["interviews"]]
