"""A client's WebSocket of bytes alone, which keeps to no rule unless the test does."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
from collections.abc import AsyncIterator
from urllib.parse import urlsplit

from interview_peer.app import Server

PING = b"\x89\x80\0\0\0\0"
TEXT = b"\x81\x82\0\0\0\0{}"
BEGUN = b"\x01\x80\0\0\0\0"
"""A text message of which more is to come."""
CONTINUED = b"\x00\x80\0\0\0\0"
"""More of a message: nothing, and still not the end."""
FRAGMENT = b"\x00\x81\0\0\0\0x"
CLOSE = 8
PONG = 10


class Raw:
    """A WebSocket of bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def frame(self) -> tuple[int, bytes]:
        """The next frame of the server: its opcode and what it holds."""
        head = await self.reader.readexactly(2)
        length = head[1] & 127
        if length == 126:
            length = int.from_bytes(await self.reader.readexactly(2))
        return head[0] & 15, await self.reader.readexactly(length)


@contextlib.asynccontextmanager
async def raw(server: Server, path: str = "/ws", *, greeted: bool = True) -> AsyncIterator[Raw]:
    """Such a client, behind the greeting, if it is ``greeted`` without a token."""
    place = urlsplit(server.url)
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    key = base64.b64encode(os.urandom(16)).decode()
    request = (
        f"GET {path} HTTP/1.1\r\nHost: {place.netloc}\r\nUpgrade: websocket\r\n"
        f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    )
    writer.write(request.encode())
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        client = Raw(reader, writer)
        if greeted:
            assert json.loads((await client.frame())[1])["type"] == "session"
        try:
            yield client
        finally:
            writer.transport.abort()
