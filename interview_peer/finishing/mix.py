"""Writes both speakers into one stereo file: candidate left, interviewer right."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Final

import av
import numpy as np

from ..core.opus import SAMPLE_RATE
from .voices import Both

BIT_RATE: Final = 64_000

_WEBM: Final = {
    # The index in front of the sound: a player seeks without asking for the file's end first.
    "cues_to_front": "1",
    # Seeking lands on whole clusters.
    "cluster_time_limit": "2000",
}
_OPUS: Final = {"application": "audio"}
_FORMATS: Final = {
    "webm": ("webm", "libopus", _WEBM),
    "ogg": ("ogg", "libopus", {"page_duration": "500000"}),
    "wav": ("wav", "pcm_s16le", {}),
}


class Mixer:
    """Encodes blocks as they come, in bounded memory. Use it as a context manager.

    ``kind`` is ``webm`` or ``ogg`` (Opus, 64 kbit/s) or ``wav`` (16 bits). Raises ``OSError`` if
    the disk refuses.
    """

    def __init__(self, path: Path, kind: str = "webm") -> None:
        container, codec, options = _FORMATS[kind]
        self._output = av.open(path, mode="w", format=container, container_options=options)
        stream = self._output.add_stream(codec, rate=SAMPLE_RATE, layout="stereo")
        assert isinstance(stream, av.AudioStream)
        self._stream = stream
        self._floats = codec == "libopus"
        if self._floats:
            stream.bit_rate = BIT_RATE
            stream.codec_context.options = dict(_OPUS)
            stream.codec_context.format = "flt"
        self._position = 0

    def add(self, block: Both) -> None:
        """Append a block, ``(2, samples)``."""
        woven = np.ascontiguousarray(block.T).reshape(1, -1)
        if self._floats:
            frame = av.AudioFrame.from_ndarray(woven, format="flt", layout="stereo")
        else:
            scaled = np.clip(np.rint(woven * 32_767), -32_768, 32_767).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(scaled, format="s16", layout="stereo")
        frame.sample_rate = SAMPLE_RATE
        frame.pts = self._position
        self._position += block.shape[1]
        self._output.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Write what the encoder still holds, and the index."""
        if not self._position:
            # A file without a single frame is none that players take.
            self.add(np.zeros((2, SAMPLE_RATE // 50), np.float32))
        self._output.mux(self._stream.encode(None))
        self._output.close()

    def __enter__(self) -> Mixer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self._output.close()
