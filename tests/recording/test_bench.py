"""The measurements of recording run, and measure what they say."""

from __future__ import annotations

from pathlib import Path

from bench import recording
from interview_peer.finishing.pages import scan


def test_writer_and_mixing_are_measured_on_whole_recordings(tmp_path: Path) -> None:
    alone = recording.writer(tmp_path, interviews=2, seconds=20)
    # A stream has 37 packets a second on average: one talks all the time, one half of it.
    assert 25 < alone.milliseconds_per_second / alone.microseconds_per_packet * 1e3 < 50
    assert recording.mixing(tmp_path, seconds=20) > 1
    for name in ("writer-0", "writer-1", "mix"):
        stream = scan(tmp_path / "interviews" / name / "candidate.ogg")
        assert (stream.problems, round(stream.seconds)) == ([], 20)
