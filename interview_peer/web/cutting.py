"""Rids the server of a WebSocket's client that is not wanted, which learns why.

The handshake that closes a WebSocket would go on reading what the client sends.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, web

from ..errors import InterviewPeerError
from ..types import Json

LAST_WORD_SECONDS: Final = 0.4
"""How long one that is cut off may take to read why; nothing of it is read any more."""


def told(error: InterviewPeerError) -> Json:
    """The message of the signalling protocol that says what went wrong."""
    return {"type": "error", "message": error.message, "code": error.code}


async def say_closed(socket: web.WebSocketResponse) -> None:
    """Say that the connection is closed because of what the client did, and wait for nothing."""
    with contextlib.suppress(ConnectionError):
        code = int(WSCloseCode.POLICY_VIOLATION).to_bytes(2)
        await socket.send_frame(code, WSMsgType.CLOSE)


async def cut_off(transport: asyncio.Transport, telling: asyncio.Task[None]) -> None:
    """End the connection, read no further, once ``telling`` said why, or could not in time."""
    transport.pause_reading()
    await asyncio.wait([telling], timeout=LAST_WORD_SECONDS)
    if telling.done() and not transport.is_closing():
        # Closing at once, with bytes of it unread, would take back what it was told.
        await asyncio.sleep(LAST_WORD_SECONDS)
    transport.abort()
