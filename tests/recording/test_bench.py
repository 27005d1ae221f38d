"""The measurements of recording run, and measure what they say."""

from __future__ import annotations

from pathlib import Path

import pytest

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


def test_packets_come_out_of_order_and_none_is_lost(tmp_path: Path) -> None:
    arrivals = [*recording._arrivals(0, 25)]
    frames = [frame for _, frame in arrivals]
    assert frames != sorted(frames)
    assert sorted(frames) == [*range(25)]
    assert all(slot >= frame for slot, frame in arrivals)
    assert [slot for slot, _ in arrivals] == sorted(slot for slot, _ in arrivals)


@pytest.mark.parametrize(
    ("writer", "speed", "code"), [(0.05, 80.0, 0), (0.2, 80.0, 1), (0.05, 30.0, 1)]
)
def test_a_missed_goal_is_shown_and_fails(
    writer: float,
    speed: float,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(recording, "writer", lambda *_, **__: recording.Writer(1.0, writer))
    monkeypatch.setattr(recording, "mixing", lambda *_, **__: speed)
    monkeypatch.setattr("sys.argv", ["bench.recording", "--quick"])
    assert recording.main() == code
    shown = capsys.readouterr()
    assert shown.out.count("MISSED") == code
    assert ("missed: " in shown.err) == bool(code)
