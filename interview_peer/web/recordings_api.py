"""The paths of recordings: what there is, the sound itself with ranges, its text, and erasing."""

from __future__ import annotations

import logging
from typing import Final

from aiohttp import web

from ..core import ranges
from ..errors import InvalidMessage, RangeNotSatisfiable, StoreUnavailable
from ..session.archive import WAVEFORM, Archive, Content
from . import forms

log = logging.getLogger(__name__)

BASE: Final = "/api/interviews/{session_id}"


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
        router.add_get(f"{BASE}/transcript", self.transcript)
        router.add_delete(BASE, self.erase)

    async def listing(self, request: web.Request) -> web.Response:
        """Files with sizes, lengths and hashes."""
        return web.json_response(await self._archive.listing(request.match_info["session_id"]))

    async def sound(self, request: web.Request) -> web.StreamResponse:
        """One voice, or both mixed; whole or in part."""
        which = request.match_info["which"]
        content = await self._archive.sound(request.match_info["session_id"], which)
        return await _send(request, content)

    async def waveform(self, request: web.Request) -> web.StreamResponse:
        """Peaks of both voices."""
        content = await self._archive.file(request.match_info["session_id"], WAVEFORM)
        return await _send(request, content)

    async def transcript(self, request: web.Request) -> web.StreamResponse:
        """The transcript of an interview that is over."""
        found = await self._archive.transcript(request.match_info["session_id"])
        if isinstance(found, bytes):
            return web.Response(body=found, content_type="application/json")
        return await _send(request, found)

    async def erase(self, request: web.Request) -> web.Response:
        """Erase; 202 while copies in the store are still to go."""
        end = request.query.get("end", "false")
        if end not in ("true", "false") or set(request.query) - {"end"}:
            raise InvalidMessage("This path takes ?end=true or nothing.")
        session_id = request.match_info["session_id"]
        answer = await self._archive.erase(session_id, end=end == "true")
        return web.json_response(answer, status=200 if answer["complete"] else 202)


async def _send(request: web.Request, content: Content) -> web.StreamResponse:
    """The file, or the part of it that is asked for."""
    file = content.file
    tag = f'"{file.sha256}"'
    headers = {
        **forms.PAGE_HEADERS,
        "Accept-Ranges": "bytes",
        "ETag": tag,
        # Personal data: a browser may hold it for this page, nobody may keep it.
        "Cache-Control": "private, no-store",
        "Content-Disposition": (
            f'attachment; filename="{request.match_info["session_id"]}-{file.name}"'
        ),
    }
    if _listed(request.headers.get("If-None-Match"), tag):
        return web.Response(status=304, headers=headers)
    asked = request.headers.get("Range")
    if request.headers.get("If-Range", tag) != tag:
        # The part would be one of another file than the caller has.
        asked = None
    try:
        span = ranges.requested(asked, file.bytes)
    except RangeNotSatisfiable as error:
        refused = forms.error_response(request.path, error)
        refused.headers["Content-Range"] = f"bytes */{file.bytes}"
        return refused
    start, end = (0, file.bytes) if span is None else (span.start, span.end)
    response = web.StreamResponse(status=200 if span is None else 206, headers=headers)
    response.headers["Content-Type"] = file.content_type
    response.content_length = end - start
    if span is not None:
        response.headers["Content-Range"] = f"bytes {start}-{end - 1}/{file.bytes}"
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    try:
        async for chunk in content.read(start, end):
            await response.write(chunk)
    except ConnectionError:
        # The listener went away, as players do that seek.
        return response
    except (OSError, StoreUnavailable) as error:
        log.warning("a file broke off while it was sent", extra={"why": type(error).__name__})
        # Without its end the answer is not whole, and the caller must see that.
        if request.transport is not None:
            request.transport.abort()
    return response


def _listed(header: str | None, tag: str) -> bool:
    if header is None:
        return False
    tags = [one.strip().removeprefix("W/") for one in header.split(",")]
    return tag in tags or "*" in tags
