"""``GET /api/audit``: what operators did, newest first."""

from __future__ import annotations

import functools
import re
from typing import Final

from aiohttp import web

from ..core.acts import Act, Entry
from ..errors import InvalidField
from ..state.acts import Wanted, page
from ..state.database import Database
from ..types import Json
from . import paging, times

PATH: Final = "/api/audit"
FILTERS: Final = ("interview", "key", "act", "since", "until", "limit", "cursor")
ACTS: Final = tuple(act.value for act in Act)

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


class AuditApi:
    """The route; the operator's key is asked for before it is reached."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add_to(self, app: web.Application) -> None:
        """Register the route."""
        app.router.add_get(PATH, self.list)

    async def list(self, request: web.Request) -> web.Response:
        """Acts, newest first, a page at a time."""
        wanted = _wanted(request)
        found = await self._database.run(functools.partial(page, wanted=wanted))
        shown = found[: wanted.limit]
        return web.json_response(
            {
                "acts": [_told(entry) for entry in shown],
                "next_cursor": shown[-1].id if len(found) > len(shown) else None,
            }
        )


def _told(entry: Entry) -> Json:
    return {
        "id": entry.id,
        "at": times.told(entry.at),
        "act": str(entry.act),
        "outcome": entry.outcome.value,
        "code": entry.code,
        "key_id": entry.actor.id,
        "key_name": entry.actor.name,
        "interview_id": entry.interview_id,
        "object_id": entry.object_id,
        "address": entry.address,
    }


def _wanted(request: web.Request) -> Wanted:
    query = request.query
    paging.check_names(query, FILTERS)
    for name in ("interview", "key", "cursor"):
        if name in query and not _ID.fullmatch(query[name]):
            raise InvalidField(name, f"{name}: is none that can be there.")
    act = query.get("act")
    if act is not None and act not in ACTS:
        raise InvalidField("act", f"act: must be one of {', '.join(ACTS)}.")
    return Wanted(
        interview_id=query.get("interview"),
        key_id=query.get("key"),
        act=None if act is None else Act(act),
        since=times.asked("since", query["since"]) if "since" in query else None,
        until=times.asked("until", query["until"]) if "until" in query else None,
        before=query.get("cursor"),
        limit=paging.limit_of(query),
    )
