"""What the simulator sounds like: one paced stream of Opus packets, 20 ms apart.

Packet n is due at the stream's beginning plus n times 20 ms, so lateness never adds up. Not
responsible for what is said: ``conversation`` is.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from ..tasks import stop
from .library import FRAME_MS, Line
from .settings import IdleAudio

SILENCE = b"\xf8\xff\xfe"
FRAME_SECONDS = FRAME_MS / 1000
FRAME_TICKS = 48 * FRAME_MS
GIVE_UP_SECONDS = 1.0

SendAudio = Callable[[int, int, bytes, bool], bool]


class Mouth:
    """Sends one call's audio from ``start`` to ``close``. Owns one task."""

    def __init__(
        self, send: SendAudio, played_out: Callable[[str], None], idle: IdleAudio, name: str
    ) -> None:
        """``send`` takes sequence, timestamp, payload and marker; ``played_out`` a response id."""
        self._send = send
        self._played_out = played_out
        self._idle = idle
        self._name = name
        self._task: asyncio.Task[None] | None = None
        self._sequence = random.getrandbits(16)
        self._timestamp = random.getrandbits(32)
        self._response_id: str | None = None
        self._packets: tuple[bytes, ...] = ()
        self._position = 0
        self._spurt_begins = True

    def start(self) -> None:
        """Begin to send; a second call does nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name=f"simulator mouth {self._name}")

    def play(self, response_id: str, line: Line) -> None:
        """Speak a line from the next packet on, in place of whatever is spoken now."""
        self._response_id = response_id
        self._packets = line.packets
        self._position = 0

    def limit(self, played_ms: int) -> None:
        """End the present line after this much of it."""
        self._packets = self._packets[: max(self._position, played_ms // FRAME_MS)]

    def stop(self) -> None:
        """Stop speaking; the next packet is an idle one."""
        self._response_id = None
        self._packets = ()
        self._position = 0

    async def close(self) -> None:
        """Stop sending and wait for the task's end. Idempotent."""
        await stop(self._task)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            late = loop.time() - due
            if late > GIVE_UP_SECONDS:
                # The process was held up: go on from here instead of sending a burst.
                frames = int(late / FRAME_SECONDS)
                due += frames * FRAME_SECONDS
                self._timestamp += frames * FRAME_TICKS
            elif late < 0:
                await asyncio.sleep(-late)
            self._tick()
            due += FRAME_SECONDS

    def _tick(self) -> None:
        if self._position < len(self._packets):
            payload: bytes | None = self._packets[self._position]
            self._position += 1
        else:
            finished, self._response_id = self._response_id, None
            if finished is not None:
                self._played_out(finished)
            payload = SILENCE if self._idle == "silence" else None
        if payload is None:
            self._spurt_begins = True
            if self._idle == "stop_jump":
                self._timestamp += FRAME_TICKS
            return
        self._send(
            self._sequence & 0xFFFF, self._timestamp & 0xFFFFFFFF, payload, self._spurt_begins
        )
        self._spurt_begins = False
        self._sequence += 1
        self._timestamp += FRAME_TICKS
