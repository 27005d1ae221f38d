"""Sound that can be found again in a decoded file, and the means to find it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

RATE = 48_000
MARK_FRAMES = 10
"""A mark fills ten frames of 20 ms and is unlike every other mark."""

Samples = npt.NDArray[np.float32]


def mark(seed: int) -> Samples:
    """200 ms of noise in the band of speech, different for every seed."""
    size = MARK_FRAMES * 960
    spectrum = np.fft.rfft(np.random.default_rng(seed).standard_normal(size))
    frequencies = np.fft.rfftfreq(size, 1 / RATE)
    spectrum[(frequencies < 300) | (frequencies > 3_500)] = 0
    noise = np.fft.irfft(spectrum, size) * np.hanning(size)
    return np.asarray(noise / np.abs(noise).max() * 0.5, np.float32)


def marked_signal(frames: int, marks: dict[int, int]) -> Samples:
    """A faint hum of ``frames`` frames, with marks ``{first frame: seed}``."""
    time = np.arange(frames * 960) / RATE
    signal = (0.003 * np.sin(2 * np.pi * 120 * time)).astype(np.float32)
    for frame, seed in marks.items():
        signal[frame * 960 : (frame + MARK_FRAMES) * 960] += mark(seed)
    return signal


def encode(signal: Samples, channels: int = 1) -> list[bytes]:
    """Opus packets of 20 ms, as a browser or a voice service would send them."""
    encoder = av.CodecContext.create("libopus", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate = RATE
    encoder.layout = "mono" if channels == 1 else "stereo"
    encoder.format = "flt"
    encoder.bit_rate = 48_000
    encoder.options = {"application": "audio"}
    packets: list[bytes] = []
    for start in range(0, len(signal) - 959, 960):
        block = np.repeat(signal[start : start + 960], channels).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(block, format="flt", layout=encoder.layout.name)
        frame.sample_rate = RATE
        frame.pts = start
        packets += [bytes(packet) for packet in encoder.encode(frame)]
    packets += [bytes(packet) for packet in encoder.encode(None)]
    return packets


def decode(path: Path) -> Samples:
    """What a plain decode of a file gives, container times ignored as most players do."""
    blocks: list[npt.NDArray[np.float32]] = []
    with av.open(path, mode="r") as container:
        for frame in container.decode(audio=0):
            assert frame.sample_rate == RATE
            blocks.append(np.asarray(frame.to_ndarray(), np.float32)[0])
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def decode_with_ffmpeg(path: Path) -> Samples:
    """The same by the ``ffmpeg`` program."""
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-f", "f32le", "-ac", "1", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stderr == b""
    return np.frombuffer(done.stdout, np.float32)


class Ear:
    """Finds marks in a decoded file."""

    _THINNING = 4
    """Marks end at 3.5 kHz, so a quarter of the samples is enough."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples[:: self._THINNING]
        self._size = 1 << int(np.ceil(np.log2(len(self._samples) + RATE)))
        self._spectrum = np.fft.rfft(self._samples, self._size)

    def find(self, seed: int) -> tuple[float, float]:
        """Where a mark is, seconds, and how well it fits there (0 to 1)."""
        pattern = mark(seed)[:: self._THINNING]
        product = self._spectrum * np.conj(np.fft.rfft(pattern, self._size))
        match = np.fft.irfft(product, self._size)[: len(self._samples)]
        place = int(np.argmax(match))
        heard = self._samples[place : place + len(pattern)]
        energy = float(np.linalg.norm(heard) * np.linalg.norm(pattern[: len(heard)]))
        likeness = float(match[place]) / energy if energy else 0.0
        return place * self._THINNING / RATE, likeness
