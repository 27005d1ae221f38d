"""A job that is killed at any step of mix, waveform, captions and manifest is done all over."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from interview_peer.finishing.names import FACTS_NAME

from .folders import record

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("close", [True, False], ids=["ended", "crashed"])
def test_a_job_killed_at_any_step_is_finished_by_the_next(tmp_path: Path, close: bool) -> None:
    folder = record(tmp_path / "model", "model-one", until=2.0, close=close)
    assert (folder.path / FACTS_NAME).exists() == close
    child = subprocess.run(
        [sys.executable, "-m", "tests.recording.kill_child", str(folder.path), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert child.returncode == 0, child.stderr
    *rounds, end = [json.loads(line) for line in child.stdout.splitlines()]
    assert len(rounds) == end["steps"] > 20
    assert [one for one in rounds if one["problems"]] == []
    # Nothing is left lying about for good, and every part of the work was struck.
    assert {name for one in rounds for name in one["drafts"]} == set()
    lefts = [set(one["left"]) for one in rounds]
    originals = {"candidate.ogg", "interviewer.ogg", "events.jsonl"}
    assert all(left >= originals for left in lefts)
    for made, next_one in (
        ("candidate.ogg", "mixed.webm"),
        ("mixed.webm", "waveform.json"),
        ("waveform.json", "transcript.srt"),
        ("transcript.srt", "manifest.json"),
    ):
        assert any(made in left and next_one not in left for left in lefts), (made, next_one)
