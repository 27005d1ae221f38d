"""Decodes both speakers side by side, a second at a time, so that an hour takes no more memory."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import av
import numpy as np
import numpy.typing as npt

from ..core.opus import SAMPLE_RATE
from ..storage.recorder import audio_name
from .facts import SPEAKERS

BLOCK: Final = SAMPLE_RATE
"""Samples of each speaker handed out at once."""

_GAP: Final = SAMPLE_RATE // 100
"""A hole in the container's own times longer than this (10 ms) is damage, and filled."""

Samples = npt.NDArray[np.float32]
Both = npt.NDArray[np.float32]
"""Shape (2, samples): candidate, interviewer; 48 kHz, full scale 1."""


def both(folder: Path) -> Iterator[Both]:
    """Decode a folder's two recordings in blocks of a second, the last one shorter.

    The shorter of the two ends in silence; a file that cannot be read is silence throughout.
    Raises ``OSError`` if neither can be read.
    """
    readers = [_Reader(folder / audio_name(speaker)) for speaker in SPEAKERS]
    try:
        if all(reader.error is not None for reader in readers):
            assert readers[0].error is not None
            raise readers[0].error
        while True:
            pieces = [reader.read(BLOCK) for reader in readers]
            length = max(len(piece) for piece in pieces)
            if not length:
                return
            block = np.zeros((2, length), np.float32)
            for row, piece in zip(block, pieces, strict=True):
                row[: len(piece)] = piece
            yield block
    finally:
        for reader in readers:
            reader.close()


class _Reader:
    """One file as a row of samples."""

    def __init__(self, path: Path) -> None:
        self.error: OSError | None = None
        self._waiting: list[Samples] = []
        self._size = 0
        self._done = False
        self._container: av.container.InputContainer | None = None
        self._blocks: Iterator[Samples] = iter(())
        try:
            self._container = av.open(path, mode="r", format="ogg")
            stream = self._container.streams.audio[0]
        except (av.FFmpegError, IndexError) as error:
            self.error = error if isinstance(error, OSError) else OSError(errno.EILSEQ, str(error))
            self._done = True
        else:
            self._blocks = self._decode(self._container, stream)

    def read(self, count: int) -> Samples:
        """The next ``count`` samples, fewer at the end."""
        while self._size < count and not self._done:
            samples = next(self._blocks, None)
            if samples is None:
                self._done = True
            else:
                self._waiting.append(samples)
                self._size += len(samples)
        joined = np.concatenate(self._waiting) if self._waiting else np.zeros(0, np.float32)
        piece, rest = joined[:count], joined[count:]
        self._waiting, self._size = ([rest], len(rest)) if len(rest) else ([], 0)
        return piece

    def close(self) -> None:
        """Close the file."""
        if self._container is not None:
            self._container.close()

    def _decode(
        self, container: av.container.InputContainer, stream: av.AudioStream
    ) -> Iterator[Samples]:
        # The reference decoder: it conceals lost frames as browsers do.
        decoder = av.CodecContext.create("libopus", "r")
        assert isinstance(decoder, av.AudioCodecContext)
        decoder.extradata = stream.codec_context.extradata
        decoder.sample_rate = SAMPLE_RATE
        decoder.layout = "mono"
        position: int | None = None
        for packet in container.demux(stream):
            if packet.pts is not None:
                if position is not None and packet.pts - position > _GAP:
                    # Pages are missing: what follows must not come early.
                    for start in range(position, packet.pts, BLOCK):
                        yield np.zeros(min(BLOCK, packet.pts - start), np.float32)
                position = packet.pts + (packet.duration or 0)
            try:
                frames = decoder.decode(packet)
            except av.FFmpegError:
                yield np.zeros(packet.duration or 0, np.float32)
                continue
            for frame in frames:
                yield _mono(frame)


def _mono(frame: av.AudioFrame) -> Samples:
    samples = frame.to_ndarray()[0]
    scale = 32_768 if samples.dtype == np.int16 else 1
    return np.asarray(samples, np.float32) / np.float32(scale)
