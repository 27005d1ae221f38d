"""Sends a recording's file, whole or in the part that is asked for."""

from __future__ import annotations

import contextlib
import logging

from aiohttp import web

from ..core import ranges
from ..errors import RangeNotSatisfiable, StoreUnavailable
from ..logs import word_for
from ..session.archive import Content
from . import forms
from .acts import before_answer

log = logging.getLogger(__name__)


async def send(request: web.Request, content: Content) -> web.StreamResponse:
    """The file, or the part of it that is asked for; its interview is in the request's path."""
    file = content.file
    tag = f'"{file.sha256}"'
    headers = {
        "Accept-Ranges": "bytes",
        "ETag": tag,
        # Personal data: a browser may hold it for this page, nobody may keep it.
        "Cache-Control": "private, no-store",
        "Content-Disposition": (
            f'attachment; filename="{request.match_info["interview_id"]}-{file.name}"'
        ),
    }
    if file.damage:
        headers["X-Recording-Damage"] = ", ".join(file.damage)
    if listed(request.headers.get("If-None-Match"), tag):
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
    if request.method == "HEAD":
        await before_answer(request)
        await response.prepare(request)
        return response
    told = {"session": request.match_info["interview_id"], "file": file.name}
    async with contextlib.aclosing(content.read(start, end)) as pieces:
        try:
            # Before the head of the answer: what cannot be had at all is refused as such.
            first = await anext(pieces, b"")
        except OSError as error:
            # A file of this disk's may have moved to the store a moment ago; the next try finds it.
            log.warning("a file could not be read", extra={**told, "why": word_for(error)})
            raise StoreUnavailable from None
        await before_answer(request)
        await response.prepare(request)
        try:
            await response.write(first)
            async for chunk in pieces:
                await response.write(chunk)
        except ConnectionError:
            # The listener went away, as players do that seek.
            return response
        except (OSError, StoreUnavailable) as error:
            log.warning(
                "a file broke off while it was sent", extra={**told, "why": word_for(error)}
            )
            # Without its end the answer is not whole, and the caller must see that.
            if request.transport is not None:
                request.transport.abort()
    return response


def listed(header: str | None, tag: str) -> bool:
    """Whether an ``If-None-Match`` names what a caller would get: it has that already."""
    if header is None:
        return False
    tags = [one.strip().removeprefix("W/") for one in header.split(",")]
    return tag in tags or "*" in tags
