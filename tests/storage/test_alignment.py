"""The files against the truth: marks said at known times are found within 20 ms of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from interview_peer.storage.folder import InterviewFolder
from interview_peer.storage.recorder import Recorder, RecordingSummary, audio_name
from interview_peer.types import SessionId, Speaker
from tests.storage.senders import Sender
from tests.storage.sound import MARK_FRAMES, Ear, decode, decode_with_ffmpeg, encode, marked_signal

START = 500.0
BOUND = 0.020
LIKE = 0.4
"""A mark is told by this; one that a drift correction cuts in two is as like as its larger part."""
FRAMES = 1_500
SPACING = 40  # from mark to mark, in frames
MARKS = {
    speaker: {10 + SPACING * n: seed + n for n in range(FRAMES // SPACING)}
    for speaker, seed in ((Speaker.CANDIDATE, 1_000), (Speaker.INTERVIEWER, 2_000))
}


@pytest.fixture(scope="module")
def speech() -> dict[Speaker, list[bytes]]:
    return {speaker: encode(marked_signal(FRAMES, marks)) for speaker, marks in MARKS.items()}


def record(
    root: Path, senders: dict[Speaker, Sender], seconds: float
) -> tuple[Path, RecordingSummary]:
    """Record what the senders sent, flushing twice a second of simulated time."""
    folder = InterviewFolder(root, SessionId("marks"))
    folder.create()
    recorder = Recorder(folder, START, datetime(2026, 1, 1, tzinfo=UTC))
    arrivals = sorted(
        ((each, speaker) for speaker, sender in senders.items() for each in sender.deliveries),
        key=lambda arrival: arrival[0].at,
    )
    first = 0
    for tick in range(1, int(seconds * 2) + 1):
        now = START + tick / 2
        while first < len(arrivals) and arrivals[first][0].at <= now:
            each, speaker = arrivals[first]
            recorder.audio(
                speaker, each.at, each.sequence, each.timestamp, each.payload, source=each.source
            )
            first += 1
        recorder.flush(now)
    return folder.path, recorder.close(START + seconds)


def check(path: Path, speaker: Speaker, sender: Sender, written: int) -> None:
    """Every mark whose packets all arrived is heard where it was said, and there are enough."""
    ear = Ear(decode(path / audio_name(speaker)))
    errors: list[float] = []
    missing: list[tuple[int, float]] = []
    for frame, seed in MARKS[speaker].items():
        # The encoder's look-ahead pushes the mark's last bit into the frame after it.
        frames = range(frame, frame + MARK_FRAMES + 1)
        if frames[-1] >= len(sender.true) or not all(sender.delivered[f] for f in frames):
            continue
        if not sender.held.isdisjoint(frames) or _is_torn(sender, frames):
            continue
        place, likeness = ear.find(seed)
        if likeness > LIKE:
            errors.append(place - (sender.true[frame] - START))
        else:
            missing.append((frame, round(likeness, 2)))
    assert missing == []
    assert len(errors) >= written, f"only {len(errors)} marks came through"
    assert max(map(abs, errors)) < BOUND, [round(error * 1_000) for error in errors]


def _is_torn(sender: Sender, frames: range) -> bool:
    """Whether the speaker paused within these frames."""
    return sender.true[frames[-1]] - sender.true[frames[0]] > 0.0205 * len(frames)


Script = Callable[[Sender], None]


def clean(sender: Sender) -> None:
    sender.talk(16)


def lossy(sender: Sender) -> None:
    sender.loss, sender.jitter = 0.02, 0.05
    sender.talk(30)


def outage(sender: Sender) -> None:
    sender.talk(8)
    sender.talk(5, lost=True)
    sender.talk(8)


def muted_by_removing_the_track(sender: Sender) -> None:
    for _ in range(4):
        sender.talk(4)
        sender.pause(2.3, clock_stands=True)
    sender.talk(2)


def silence_with_a_time_jump(sender: Sender) -> None:
    for _ in range(4):
        sender.talk(4)
        sender.pause(3.1, clock_stands=False)
    sender.talk(2)


def mixed_silences(sender: Sender) -> None:
    sender.talk(4)
    sender.pause(1.1, clock_stands=True)
    sender.talk(4)
    sender.pause(6.5, clock_stands=False)
    sender.talk(4)
    sender.talk(2, held_until_end=True)
    sender.talk(4)
    sender.restart()
    sender.talk(4)


@pytest.mark.parametrize(
    ("candidate", "interviewer", "written"),
    [
        (clean, clean, 19),
        (lossy, lossy, 15),
        (outage, clean, 18),
        (muted_by_removing_the_track, silence_with_a_time_jump, 18),
        (mixed_silences, muted_by_removing_the_track, 18),
        (lossy, mixed_silences, 15),
    ],
)
@pytest.mark.parametrize("drift", [0, 200])
def test_every_mark_is_found_where_it_was_said(
    tmp_path: Path,
    speech: dict[Speaker, list[bytes]],
    candidate: Script,
    interviewer: Script,
    written: int,
    drift: int,
) -> None:
    senders: dict[Speaker, Sender] = {}
    for speaker, script, start in (
        (Speaker.CANDIDATE, candidate, 0.7),
        (Speaker.INTERVIEWER, interviewer, 1.9),
    ):
        senders[speaker] = sender = Sender(
            START + start,
            payload=speech[speaker].__getitem__,
            sequence=65_400,
            timestamp=0xFFFFFFFF - 200_000,
            delay=0.05,
            duplicates=0.05,
            ppm=drift if speaker is Speaker.CANDIDATE else -drift,
        )
        script(sender)
    end = max(sender.now for sender in senders.values()) + 1.26 - START
    path, summary = record(tmp_path, senders, end)
    for speaker, sender in senders.items():
        check(path, speaker, sender, written)
    assert summary.failed is None
    assert summary.duration_seconds == pytest.approx(end, abs=0.003)
    lengths = [len(decode(path / audio_name(speaker))) for speaker in Speaker]
    assert lengths[0] == lengths[1] == round(summary.duration_seconds * 48_000)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="the ffmpeg program is missing")
def test_the_ffmpeg_program_hears_the_same(
    tmp_path: Path, speech: dict[Speaker, list[bytes]]
) -> None:
    sender = Sender(START + 1, payload=speech[Speaker.CANDIDATE].__getitem__, loss=0.03)
    muted_by_removing_the_track(sender)
    path, summary = record(tmp_path, {Speaker.CANDIDATE: sender}, 30)
    file = path / audio_name(Speaker.CANDIDATE)
    heard = decode_with_ffmpeg(file)
    assert len(heard) == len(decode(file)) == round(summary.duration_seconds * 48_000)
    assert np.max(np.abs(heard - decode(file))) < 1e-3


def test_stereo_packets_play_from_a_mono_file(tmp_path: Path) -> None:
    packets = encode(marked_signal(200, {50: 7, 150: 8}), channels=2)
    assert packets[60][0] & 4
    sender = Sender(START, payload=packets.__getitem__, delay=0.0)
    sender.talk(4)
    path, _ = record(tmp_path, {Speaker.INTERVIEWER: sender}, 5)
    ear = Ear(decode(path / audio_name(Speaker.INTERVIEWER)))
    for frame, seed in ((50, 7), (150, 8)):
        place, likeness = ear.find(seed)
        assert likeness > 0.8
        assert place == pytest.approx(frame * 0.02, abs=0.005)
