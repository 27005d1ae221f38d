"""An hour of simulated time: clocks that run wrong stay within the bound to the end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from interview_peer.storage.folder import InterviewFolder
from interview_peer.storage.recorder import Recorder, audio_name
from interview_peer.types import SessionId, Speaker
from tests.storage.senders import Sender
from tests.storage.sound import MARK_FRAMES, RATE, Ear, Samples, encode, marked_signal

from .folders import START, STARTED_AT

logger = logging.getLogger(__name__)

pytestmark = pytest.mark.timeout(300)

BOUND = 0.020
HOUR = 3_600
EVERY = 1_000
"""Frames from mark to mark: 20 s."""

LIKE = 0.4
"""A mark is told by this; one that a drift correction cuts in two is as like as its larger part."""

LENGTH = MARK_FRAMES + 4
SILENCE = b"\xf8\xff\xfe"


class Speech:
    """Packets by index: silence with a mark now and then, each unlike the others."""

    def __init__(self, first_seed: int) -> None:
        self._first_seed = first_seed
        self._marks: dict[int, list[bytes]] = {}

    def seed(self, number: int) -> int:
        return self._first_seed + number

    def __call__(self, index: int) -> bytes:
        number, at = divmod(index, EVERY)
        if at >= LENGTH:
            return SILENCE
        if number not in self._marks:
            # The mark begins in the second frame: its encoder has settled.
            self._marks[number] = encode(marked_signal(LENGTH, {1: self.seed(number)}))
        return self._marks[number][at]


def talks_all_the_time(sender: Sender) -> None:
    sender.talk(HOUR - 2)


def talks_in_turns(sender: Sender) -> None:
    while sender.now < START + HOUR - 70:
        sender.talk(31)
        sender.pause(9.4, clock_stands=False)
        sender.talk(17)
        sender.pause(6.1, clock_stands=True)


def pauses_for_minutes(sender: Sender) -> None:
    """Drift of five minutes is 60 ms, and nothing is heard of it meanwhile."""
    stands = False
    while sender.now < START + HOUR - 420:
        sender.talk(70)
        sender.pause(300, clock_stands=stands)
        stands = not stands
    sender.talk(70)


def windows(path: Path, places: Iterable[float]) -> Iterator[Samples]:
    """A second and a half of the decoded file around each place, decoding it once, as a whole."""
    wanted = iter(places)
    place = next(wanted, None)
    position = 0
    kept: list[Samples] = []
    with av.open(path, mode="r") as container:
        for frame in container.decode(audio=0):
            end = position + frame.samples
            while place is not None and end > (place - 0.5) * RATE:
                kept.append(frame.to_ndarray()[0])
                if end < (place + 1.0) * RATE:
                    break
                first = end - sum(map(len, kept))
                start = int((place - 0.5) * RATE) - first
                yield np.concatenate(kept)[start : start + int(1.5 * RATE)]
                kept.clear()
                place = next(wanted, None)
            position = end


@pytest.mark.parametrize(
    ("speaker", "script", "ppm"),
    [
        (Speaker.CANDIDATE, talks_all_the_time, 200.0),
        (Speaker.CANDIDATE, talks_all_the_time, -200.0),
        (Speaker.INTERVIEWER, talks_in_turns, 200.0),
        (Speaker.INTERVIEWER, pauses_for_minutes, 200.0),
        (Speaker.CANDIDATE, pauses_for_minutes, -200.0),
    ],
)
def test_marks_stay_in_their_place_for_an_hour(
    tmp_path: Path,
    speaker: Speaker,
    script: object,
    ppm: float,
    record_property: Callable[[str, object], None],
) -> None:
    speech = Speech(7_000)
    sender = Sender(START + 0.5, payload=speech, delay=0.04, jitter=0.04, loss=0.005, ppm=ppm)
    assert callable(script)
    script(sender)
    folder = InterviewFolder(tmp_path, SessionId("hour"))
    folder.create()
    recorder = Recorder(folder, START, STARTED_AT)
    for now, arrived in sender.batches(START + HOUR):
        for one in arrived:
            recorder.audio(speaker, one.at, one.sequence, one.timestamp, one.payload, one.source)
        recorder.flush(now)
    summary = recorder.close(START + HOUR)
    assert summary.failed is None

    said: dict[int, float] = {}
    for number in range(len(sender.true) // EVERY):
        frames = range(number * EVERY, number * EVERY + LENGTH)
        together = all(
            sender.true[after] - sender.true[before] < 0.021 for before, after in pairwise(frames)
        )
        if together and all(sender.delivered[frame] for frame in frames):
            said[number] = sender.true[frames[1]] - START
    errors: list[float] = []
    missing: list[tuple[int, float]] = []
    heard = windows(folder.path / audio_name(speaker), said.values())
    for (number, place), samples in zip(said.items(), heard, strict=True):
        found, likeness = Ear(samples).find(speech.seed(number))
        if likeness > LIKE:
            errors.append(found - 0.5 - (place - int(place * RATE) / RATE))
        else:
            missing.append((number, round(likeness, 2)))
    worst = max(map(abs, errors)) * 1_000
    logger.info("%d marks, worst error %.1f ms", len(errors), worst)
    record_property("worst error ms", round(worst, 1))
    # Every mark whose packets all arrived is heard.
    assert len(said) > 25
    assert missing == []
    assert worst < BOUND * 1_000, [round(error * 1_000, 1) for error in errors]
    if script is talks_all_the_time:
        corrected = summary.counters[speaker].drift_ms
        assert corrected == pytest.approx(ppm * 1e-6 * HOUR * 1_000, abs=25)
