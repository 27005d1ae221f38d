"""The paths of recordings: what there is, the sound itself with ranges, and its waveform.

Their text is had and erased by the paths of interviews.
"""

from __future__ import annotations

from typing import Final

from aiohttp import web

from ..errors import InvalidMessage
from ..session.archive import WAVEFORM, Archive
from .files import send

BASE: Final = "/api/interviews/{interview_id}"


class RecordingPaths:
    """The routes; the operator's key is asked for before any of them is reached."""

    def __init__(self, archive: Archive) -> None:
        self._archive = archive

    def add_to(self, app: web.Application) -> None:
        """Register every route."""
        router = app.router
        router.add_get(f"{BASE}/recording", self.listing)
        router.add_get(f"{BASE}/recording/{{which}}", self.sound)
        router.add_get(f"{BASE}/waveform", self.waveform)

    async def listing(self, request: web.Request) -> web.Response:
        """Files with sizes, lengths and hashes."""
        return web.json_response(await self._archive.listing(request.match_info["interview_id"]))

    async def sound(self, request: web.Request) -> web.StreamResponse:
        """One voice, or both mixed; whole or in part, and damaged only if that is asked for."""
        which, damaged = request.match_info["which"], request.query.get("damaged", "false")
        if damaged not in ("true", "false"):
            raise InvalidMessage("damaged is true or false.")
        content = await self._archive.sound(
            request.match_info["interview_id"], which, damaged=damaged == "true"
        )
        return await send(request, content)

    async def waveform(self, request: web.Request) -> web.StreamResponse:
        """Peaks of both voices."""
        content = await self._archive.file(request.match_info["interview_id"], WAVEFORM)
        return await send(request, content)
