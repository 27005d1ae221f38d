"""A track for aiortc's peer connections: silence, and the speech that a test puts in."""

from __future__ import annotations

import asyncio
from collections import deque
from fractions import Fraction

import numpy as np
import numpy.typing as npt
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame

from .speech import SAMPLE_RATE, Speech

FRAME_SAMPLES = SAMPLE_RATE // 50


class Microphone(MediaStreamTrack):
    """Add it with ``peer.addTrack(microphone)``, then ``say`` something.

    Its pace is that of the event loop's clock. Between what is said it sends silence, or nothing
    while ``muted``.
    """

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.muted = False
        self._to_say: deque[npt.NDArray[np.int16]] = deque()
        self._position = 0
        self._begun: float | None = None
        self._quiet = asyncio.Event()
        self._quiet.set()

    def say(self, *speeches: Speech) -> None:
        """Speak after what is still to be said."""
        self._to_say.extend(speech.samples for speech in speeches)
        if self._to_say:
            self._quiet.clear()

    def hush(self) -> None:
        """Say no more of it."""
        self._to_say.clear()
        self._quiet.set()

    async def said(self) -> None:
        """Wait until everything was spoken."""
        await self._quiet.wait()

    async def recv(self) -> AudioFrame:
        """The next 20 ms, when they are due: aiortc asks for them."""
        loop = asyncio.get_running_loop()
        if self._begun is None:
            self._begun = loop.time()
        while True:
            if self.readyState != "live":
                raise MediaStreamError
            due = self._begun + self._position / SAMPLE_RATE
            await asyncio.sleep(max(0.0, due - loop.time()))
            position, self._position = self._position, self._position + FRAME_SAMPLES
            samples = self._next()
            if not self.muted:
                break
        frame = AudioFrame.from_ndarray(samples.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        frame.pts = position
        frame.time_base = Fraction(1, SAMPLE_RATE)
        return frame

    def _next(self) -> npt.NDArray[np.int16]:
        samples = np.zeros(FRAME_SAMPLES, np.int16)
        if self._to_say:
            speech = self._to_say.popleft()
            piece, rest = speech[:FRAME_SAMPLES], speech[FRAME_SAMPLES:]
            samples[: len(piece)] = piece
            if rest.size:
                self._to_say.appendleft(rest)
        if not self._to_say:
            self._quiet.set()
        return samples
