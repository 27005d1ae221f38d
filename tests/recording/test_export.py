"""The same sound in another container, for those who need one."""

from __future__ import annotations

import os
from pathlib import Path

import av
import pytest
from click.testing import CliRunner, Result

from interview_peer.cli import main
from interview_peer.storage.folder import InterviewFolder
from interview_peer.types import SessionId, Speaker
from tests.storage.sound import RATE, Ear

from .folders import MARKS, SECONDS, finished, record
from .test_mix import stereo


def run(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["export", *arguments, "--data-dir", str(root)])


@pytest.mark.parametrize(
    ("kind", "codec"), [("wav", "pcm_s16le"), ("ogg", "opus"), ("webm", "opus")]
)
@pytest.mark.parametrize("whole", [True, False], ids=["finished", "unfinished"])
def test_both_voices_are_in_every_format(
    tmp_path: Path, kind: str, codec: str, whole: bool
) -> None:
    _ = finished(tmp_path) if whole else record(tmp_path, close=False)
    target = tmp_path / f"out.{kind}"
    done = run(tmp_path, "one", "--format", kind, "--output", str(target))
    assert (done.exit_code, done.stdout) == (0, f"{target}\n"), done.output
    with av.open(target) as container:
        assert container.streams.audio[0].codec_context.name == codec
        assert container.format.name.split(",")[-1] in (kind, "webm")
    sides = stereo(target)
    scale = 32_768.0 if kind == "wav" else 1.0
    if kind == "wav":
        sides = sides.reshape(-1, 2).T / scale
    assert sides.shape[1] / RATE == pytest.approx(SECONDS, abs=0.6 if not whole else 0.03)
    for side, speaker in zip(sides, (Speaker.CANDIDATE, Speaker.INTERVIEWER), strict=True):
        ear = Ear(side)
        for frame, seed in list(MARKS[speaker].items())[:2]:
            place, likeness = ear.find(seed)
            assert likeness > 0.8
            assert place == pytest.approx(frame / 50, abs=0.003)


def test_a_live_interview_says_that_it_runs(tmp_path: Path) -> None:
    folder = record(tmp_path, close=False)
    claim = folder.hold()
    assert claim is not None
    refused = run(tmp_path, "one", "--format", "wav", "--output", str(tmp_path / "out.wav"))
    os.close(claim)
    assert refused.exit_code == 1
    assert "still running" in refused.stderr
    assert not list(tmp_path.glob("*out*"))


def test_what_cannot_be_exported_is_one_sentence(tmp_path: Path) -> None:
    InterviewFolder(tmp_path, SessionId("empty")).create()
    for name, sentence in (
        ("nobody", "There is no interview nobody"),
        ("../one", "A session id is"),
        ("empty", "Nothing was recorded"),
    ):
        refused = run(tmp_path, name, "--format", "webm", "--output", str(tmp_path / "x.webm"))
        assert refused.exit_code == 1, name
        assert sentence in refused.stderr
        assert refused.stderr.count("\n") == 1
    assert not (tmp_path / "x.webm").exists()


def test_of_files_that_were_moved_it_is_said_where_they_can_be_had(tmp_path: Path) -> None:
    for sound in finished(tmp_path).path.glob("*.ogg"):
        sound.unlink()
    refused = run(tmp_path, "one", "--format", "wav", "--output", str(tmp_path / "out.wav"))
    assert refused.exit_code == 1
    assert "GET /api/interviews/one/recording" in refused.stderr


def test_an_export_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    finished(tmp_path)
    target = tmp_path / "folder" / "out.webm"
    refused = run(tmp_path, "one", "--format", "webm", "--output", str(target))
    assert refused.exit_code == 1
    target.parent.mkdir()
    target.write_bytes(b"before")
    (tmp_path / "interviews" / "one" / "mixed.webm").write_bytes(b"broken")
    refused = run(tmp_path, "one", "--format", "ogg", "--output", str(target))
    assert refused.exit_code == 1
    assert target.read_bytes() == b"before"
    assert [path.name for path in target.parent.iterdir()] == ["out.webm"]
