"""The recorder: bounds, failing disks, and what a summary says."""

from __future__ import annotations

import json
import logging
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from interview_peer.storage.folder import InterviewFolder
from interview_peer.storage.recorder import (
    JOURNAL_NAME,
    SYNC_SECONDS,
    WAITING_PACKETS,
    Recorder,
    audio_name,
)
from interview_peer.types import Direction, SessionId, Speaker
from tests.storage.sound import decode

PACKET = b"\xf8\xff\xfe"
START = 50.0


def opened(root: Path) -> Recorder:
    folder = InterviewFolder(root, SessionId("abc"))
    folder.create()
    return Recorder(folder, START, datetime(2026, 1, 1, tzinfo=UTC))


def talk(recorder: Recorder, first: int, count: int, speaker: Speaker = Speaker.CANDIDATE) -> None:
    for number in range(first, first + count):
        recorder.audio(speaker, START + number * 0.02, number & 0xFFFF, number * 960, PACKET)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_nothing_touches_the_disk_before_the_first_flush(tmp_path: Path) -> None:
    recorder = opened(tmp_path)
    talk(recorder, 0, 10)
    recorder.event(Direction.TO_MODEL, START, {"type": "x"})
    assert list(recorder.folder.path.iterdir()) == []
    recorder.flush(START + 1)
    assert {path.name for path in recorder.folder.path.iterdir()} == {
        "candidate.ogg",
        "interviewer.ogg",
        "events.jsonl",
    }
    recorder.close(START + 1)


def test_both_speakers_end_together_even_if_one_said_nothing(tmp_path: Path) -> None:
    recorder = opened(tmp_path)
    talk(recorder, 0, 333)
    recorder.flush(START + 3)
    summary = recorder.close(START + 8.123)
    lengths = [len(decode(recorder.folder.path / audio_name(speaker))) for speaker in Speaker]
    assert lengths[0] == lengths[1] == round(summary.duration_seconds * 48_000)
    assert summary.duration_seconds == pytest.approx(8.123, abs=0.003)
    assert summary.counters[Speaker.CANDIDATE].packets == 333
    assert summary.counters[Speaker.INTERVIEWER].packets == 0
    assert summary.counters[Speaker.INTERVIEWER].silence_ms == pytest.approx(8_130, abs=3)
    sizes = [path.stat().st_size for path in recorder.folder.path.iterdir()]
    assert summary.bytes == sum(sizes)
    assert summary.failed is None


def test_closing_twice_gives_the_same_answer_and_keeps_nothing_open(tmp_path: Path) -> None:
    before = descriptors()
    recorder = opened(tmp_path)
    talk(recorder, 0, 50)
    recorder.flush(START + 1)
    assert descriptors() == before + 4
    summary = recorder.close(START + 2)
    talk(recorder, 50, 50)
    recorder.event(None, START + 3, {"type": "x"})
    recorder.flush(START + 3)
    assert recorder.close(START + 9) is summary
    assert descriptors() == before


def test_a_recording_closed_before_any_flush_is_whole(tmp_path: Path) -> None:
    recorder = opened(tmp_path)
    summary = recorder.close(START)
    assert summary.failed is None
    assert 0 <= summary.duration_seconds < 0.003
    assert summary.events == 1


def test_events_reach_the_file_with_each_flush(tmp_path: Path) -> None:
    recorder = opened(tmp_path)
    for number in range(3):
        recorder.event(Direction.TO_MODEL, START + number, {"type": "x", "n": number})
        recorder.flush(START + number)
        text = (recorder.folder.path / JOURNAL_NAME).read_text()
        assert json.loads(text.splitlines()[-1])["event"]["n"] == number
    recorder.event(None, START + 4, {"type": "interview.ended"})
    summary = recorder.close(START + 4)
    assert (summary.events, summary.events_dropped) == (5, 0)


def test_packets_beyond_the_bound_are_counted_and_become_silence(tmp_path: Path) -> None:
    recorder = opened(tmp_path)
    talk(recorder, 0, WAITING_PACKETS + 500)
    assert recorder.counters(Speaker.CANDIDATE).overflow == 500
    recorder.flush(START + 70)
    talk(recorder, WAITING_PACKETS + 500, 100)
    summary = recorder.close(START + 72)
    counters = summary.counters[Speaker.CANDIDATE]
    assert counters.overflow == 500
    assert counters.packets == WAITING_PACKETS + 100
    assert summary.duration_seconds == pytest.approx(72, abs=0.003)


def test_the_first_refused_packet_of_either_speaker_is_told_once_and_the_files_go_on(
    tmp_path: Path,
) -> None:
    recorder = opened(tmp_path)
    told: list[str] = []
    recorder.on_failure = told.append
    talk(recorder, 0, WAITING_PACKETS)
    assert told == []
    talk(recorder, WAITING_PACKETS, 2)
    assert told == ["overflow"]
    talk(recorder, 0, WAITING_PACKETS + 2, Speaker.INTERVIEWER)
    recorder.flush(START + 70)
    talk(recorder, WAITING_PACKETS + 500, WAITING_PACKETS + 2)
    assert told == ["overflow"]
    assert recorder.close(START + 140).failed is None


def test_a_claim_that_is_kept_outlasts_the_closing_until_it_is_released(tmp_path: Path) -> None:
    before = descriptors()
    folder = InterviewFolder(tmp_path, SessionId("abc"))
    folder.create()
    recorder = Recorder(folder, START, datetime(2026, 1, 1, tzinfo=UTC), keep_claim=True)
    recorder.close(START + 1)
    assert folder.held()
    recorder.release()
    recorder.release()
    assert not folder.held()
    assert descriptors() == before


def test_the_disk_is_synced_at_most_every_two_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    sync = os.fdatasync

    def count(descriptor: int) -> None:
        synced.append(descriptor)
        sync(descriptor)

    monkeypatch.setattr(os, "fdatasync", count)
    recorder = opened(tmp_path)
    for tick in range(1, 21):
        recorder.flush(START + tick * 0.5)
    # Both voices each time; the journal, to which nothing was added, once.
    expected = 2 * int(10 / SYNC_SECONDS) + 1
    assert len(synced) == expected
    recorder.close(START + 10)
    assert len(synced) == expected + 2


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """The kernel refuses to let any file grow beyond ``size``, and takes half of a write."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_marks_the_recording_and_the_caller_notices_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    before = descriptors()
    recorder = opened(tmp_path)
    with largest_file(3_000):
        for tick in range(40):
            talk(recorder, tick * 25, 25)
            recorder.event(Direction.TO_MODEL, START + tick / 2, {"type": "x"})
            recorder.flush(START + tick / 2 + 0.5)
        assert recorder.failed == "EFBIG"
        summary = recorder.close(START + 20)
    assert summary.failed == "EFBIG"
    assert descriptors() == before
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert str(tmp_path) not in caplog.text
    # What was written before is still a good file, without half a page at its end.
    candidate = recorder.folder.path / audio_name(Speaker.CANDIDATE)
    assert 2_000 < candidate.stat().st_size < 3_000
    assert len(decode(candidate)) / 48_000 > 5
    assert summary.counters[Speaker.CANDIDATE].overflow > 400


def test_a_failed_recording_does_not_collect_packets(tmp_path: Path) -> None:
    recorder = opened(tmp_path)
    os.close(recorder.folder.open_new(audio_name(Speaker.INTERVIEWER)))
    recorder.flush(START)
    assert recorder.failed == "EEXIST"
    for minute in range(3):
        talk(recorder, minute * 3_000, 3_000)
        recorder.flush(START + minute * 60)
    # Each flush empties the list, so no packet found it full.
    assert recorder.close(START + 180).counters[Speaker.CANDIDATE].overflow == 9_000


def test_a_folder_that_is_gone_is_a_failed_recording(tmp_path: Path) -> None:
    recorder = opened(tmp_path)
    recorder.folder.path.rmdir()
    recorder.flush(START + 1)
    assert recorder.failed == "ENOENT"
    summary = recorder.close(START + 2)
    assert (summary.failed, summary.bytes) == ("ENOENT", 0)


def test_a_disk_that_fails_at_the_end_is_told_by_the_summary(tmp_path: Path) -> None:
    recorder = opened(tmp_path)
    talk(recorder, 0, 50)
    recorder.flush(START + 1)
    with largest_file(500):
        talk(recorder, 50, 500)
        summary = recorder.close(START + 11)
    assert summary.failed == "EFBIG"


def test_a_fault_of_ours_is_a_failed_recording_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = opened(tmp_path)
    recorder.audio(Speaker.CANDIDATE, START, 0, 0, None)  # type: ignore[arg-type]
    recorder.audio(Speaker.CANDIDATE, START + 0.02, 1, 960, PACKET)
    recorder.flush(START + 1)
    assert recorder.failed == "TypeError"
    assert len(caplog.records) == 1
