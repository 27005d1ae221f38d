"""What the mix and the waveform hold of what was recorded."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import pytest

from interview_peer.core.ogg import OggOpusMuxer
from interview_peer.finishing import voices
from interview_peer.finishing.job import mix
from interview_peer.storage.folder import InterviewFolder
from interview_peer.storage.recorder import audio_name
from interview_peer.types import SessionId, Speaker
from tests.storage.sound import RATE, Ear, decode, encode, marked_signal

from .folders import MARKS, SECONDS, finished, ignore, record

Stereo = npt.NDArray[np.float32]


def stereo(path: Path, start: float = 0.0) -> Stereo:
    """Both channels as a stock decoder gives them, from the first frame at or after ``start``."""
    with av.open(path, mode="r") as container:
        stream = container.streams.audio[0]
        assert stream.codec_context.channels == 2
        if start:
            assert stream.time_base is not None
            container.seek(int(start / stream.time_base), stream=stream)
        blocks = [frame.to_ndarray() for frame in container.decode(stream)]
    return np.concatenate(blocks, axis=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> InterviewFolder:
    return finished(tmp_path_factory.mktemp("mix"))


def test_each_voice_is_on_its_side_where_it_was_said(folder: InterviewFolder) -> None:
    sides = stereo(folder.path / "mixed.webm")
    for side, speaker in zip(sides, (Speaker.CANDIDATE, Speaker.INTERVIEWER), strict=True):
        ear = Ear(side)
        for frame, seed in MARKS[speaker].items():
            place, likeness = ear.find(seed)
            assert likeness > 0.8, (speaker, seed)
            assert place == pytest.approx(frame / 50, abs=0.003)
        other = next(one for one in Speaker if one is not speaker)
        for seed in MARKS[other].values():
            assert ear.find(seed)[1] < 0.4, (speaker, seed)


def test_mix_says_how_long_it_is_and_can_be_sought(folder: InterviewFolder) -> None:
    path = folder.path / "mixed.webm"
    with av.open(path, mode="r") as container:
        assert (container.duration or 0) / av.time_base == pytest.approx(SECONDS, abs=0.03)
    assert stereo(path).shape[1] / RATE == pytest.approx(SECONDS, abs=0.03)
    assert path.read_bytes().find(b"\x1c\x53\xbb\x6b") < 4_096, "the index stands behind the sound"
    late = stereo(path, start=6.0)
    assert 1.5 < late.shape[1] / RATE < 4.5


def test_waveform_is_loud_where_marks_are_and_quiet_elsewhere(folder: InterviewFolder) -> None:
    drawn = json.loads((folder.path / "waveform.json").read_bytes())
    for speaker in Speaker:
        peaks = np.array(drawn[speaker.value])
        assert len(peaks) == pytest.approx(SECONDS * drawn["per_second"], abs=1)
        loud = np.flatnonzero(peaks > drawn["full_scale"] / 8) / drawn["per_second"]
        marks = np.array([frame / 50 for frame in MARKS[speaker]])
        assert all(np.min(np.abs(marks + 0.1 - at)) < 0.15 for at in loud)
        assert all(np.min(np.abs(loud - 0.1 - mark)) < 0.1 for mark in marks)


def test_files_are_their_owners_alone(folder: InterviewFolder) -> None:
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.path.iterdir()}
    assert set(modes.values()) == {0o600}, modes


def test_the_shorter_voice_ends_in_silence(tmp_path: Path) -> None:
    folder = InterviewFolder(tmp_path, SessionId("uneven"))
    folder.create()
    for speaker, seconds in ((Speaker.CANDIDATE, 5), (Speaker.INTERVIEWER, 2)):
        write(folder.path / audio_name(speaker), encode(marked_signal(seconds * 50, {10: 5})))
    assert mix(folder, ignore) == pytest.approx(5, abs=0.03)
    left, right = stereo(folder.path / "mixed.webm")
    assert Ear(left).find(5)[0] == Ear(right).find(5)[0] == pytest.approx(0.2, abs=0.003)
    assert np.abs(right[int(2.1 * RATE) :]).max() < 0.01


def test_a_page_that_is_gone_does_not_make_the_rest_early(tmp_path: Path) -> None:
    folder = record(tmp_path)
    path = folder.path / audio_name(Speaker.CANDIDATE)
    data = path.read_bytes()
    starts = [at for at in range(len(data)) if data[at : at + 4] == b"OggS"]
    path.write_bytes(data[: starts[6]] + data[starts[8] :])
    (left, _), *_ = [np.concatenate(list(voices.both(folder.path)), axis=1)]
    frame, seed = list(MARKS[Speaker.CANDIDATE].items())[-1]
    assert Ear(left).find(seed)[0] == pytest.approx(frame / 50, abs=0.003)


def test_an_interview_without_a_second_of_sound_still_gives_a_mix(tmp_path: Path) -> None:
    folder = finished(tmp_path, until=0.0)
    assert stereo(folder.path / "mixed.webm").shape[1] > 0


def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    packets = encode(marked_signal(50, {}))
    for speaker in Speaker:
        write(tmp_path / audio_name(speaker), packets * 120)
    sizes = [block.nbytes for block in voices.both(tmp_path)]
    assert max(sizes) == 2 * 4 * voices.BLOCK
    assert sum(sizes) / (2 * 4 * RATE) == pytest.approx(120, abs=2.5)


def test_blocks_are_what_a_plain_decode_gives(folder: InterviewFolder) -> None:
    left, right = np.concatenate(list(voices.both(folder.path)), axis=1)
    for side, speaker in ((left, Speaker.CANDIDATE), (right, Speaker.INTERVIEWER)):
        plain = decode(folder.path / audio_name(speaker))
        assert len(side) == len(plain)
        # Another decoder, half a sample of 16 kHz off, that makes noise up differently.
        lags = [np.corrcoef(side[2 + lag : lag - 2], plain[2:-2])[0, 1] for lag in (-2, -1, 0, 1)]
        assert max(lags) > 0.97


def write(path: Path, packets: list[bytes]) -> None:
    """An Ogg Opus file of these packets."""
    muxer = OggOpusMuxer(7)
    path.write_bytes(muxer.headers() + muxer.add(packets) + muxer.end())
