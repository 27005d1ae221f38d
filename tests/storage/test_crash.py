"""What a killed process leaves behind."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from interview_peer.storage.recorder import JOURNAL_NAME, audio_name
from interview_peer.types import Speaker
from tests.storage.sound import decode


@pytest.mark.parametrize("seed", range(6))
def test_a_killed_process_loses_less_than_a_second(tmp_path: Path, seed: int) -> None:
    flushes = random.Random(seed).randrange(3, 150)
    child = subprocess.Popen(
        [sys.executable, "-m", "tests.storage.crash_child", str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    with child, child.stdout as output:
        flushed = 0.0
        for _ in range(flushes):
            flushed = float(output.readline())
        # It goes on writing while the signal is on its way.
        child.kill()
        child.wait()
    folder = tmp_path / "interviews" / "crash"
    for speaker in Speaker:
        seconds = len(decode(folder / audio_name(speaker))) / 48_000
        # Half a second more can pass before the next flush.
        assert seconds > flushed - 0.5
    lines = (folder / JOURNAL_NAME).read_bytes().split(b"\n")
    numbers = [json.loads(line)["event"].get("number") for line in lines[:-1]]
    assert numbers == [None, *range(0, 5 * (len(numbers) - 1), 5)]
    assert numbers[-1] >= flushed / 0.02 - 5
