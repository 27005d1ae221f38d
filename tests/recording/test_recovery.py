"""What a crash leaves is found, made whole and kept, byte for byte."""

from __future__ import annotations

import json
import os
import pty
import random
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from interview_peer.cli import main
from interview_peer.finishing import manifest, repair
from interview_peer.finishing.job import NothingRecorded, StillRunning, finish
from interview_peer.finishing.names import FACTS_NAME
from interview_peer.finishing.pages import scan
from interview_peer.finishing.verify import verify
from interview_peer.finishing.worker import finished_before, unfinished
from interview_peer.storage.finished import TOMBSTONE_NAME
from interview_peer.storage.folder import InterviewFolder
from interview_peer.types import SessionId
from tests.storage.sound import decode

from .folders import SECONDS, finished, ignore, record

NAMES = ("candidate.ogg", "interviewer.ogg")


def whole_part(data: bytes) -> int:
    """Where the last page ends that the muxer wrote whole, by the page headers alone."""
    end = at = 0
    while at + 27 <= len(data):
        segments = data[at + 26]
        at += 27 + segments + sum(data[at + 27 : at + 27 + segments])
        if at <= len(data):
            end = at
    return end


def test_a_killed_recording_becomes_a_finished_folder(tmp_path: Path) -> None:
    folder = record(tmp_path, until=5.0, close=False)
    before = {name: (folder.path / name).read_bytes() for name in NAMES}
    finish(folder, ignore)
    assert verify(folder.path) == []
    document = manifest.read(folder.path)
    assert (document["phase"], document["complete"]) == ("recovered", False)
    assert document["repaired"] == list(NAMES)
    assert document["started_at"] == "2026-01-01T12:00:00.000Z"
    assert document["seconds"] > 4.2
    for name in NAMES:
        assert (folder.path / name).read_bytes().startswith(before[name])
        # A stock decoder is told of the end.
        assert len(decode(folder.path / name)) == round(document["seconds"] * 48_000)
    turns = json.loads((folder.path / "transcript.json").read_bytes())["turns"]
    assert [turn["text"] for turn in turns] == ["What do you build?", "Bridges."]
    for kind in ("txt", "vtt", "srt"):
        assert "Candidate" in (folder.path / f"transcript.{kind}").read_text()


@pytest.mark.parametrize("seed", range(12))
def test_a_file_torn_anywhere_keeps_every_whole_page(tmp_path: Path, seed: int) -> None:
    folder = record(tmp_path, until=4.0, close=False)
    chance = random.Random(seed)
    kept: dict[str, bytes] = {}
    for name in NAMES:
        path = folder.path / name
        data = path.read_bytes()[: chance.randrange(0, 14_000)]
        kept[name] = data[: whole_part(data)]
        if chance.random() < 0.5:
            # What some file systems leave after a power cut.
            data += bytes(chance.randrange(1, 5_000))
        path.write_bytes(data)
    finish(folder, ignore)
    assert verify(folder.path) == []
    for name in NAMES:
        if len(kept[name]) > 200:
            assert (folder.path / name).read_bytes().startswith(kept[name])


def test_a_torn_last_line_of_the_journal_is_left_as_it_is(tmp_path: Path) -> None:
    folder = record(tmp_path, close=False)
    journal = folder.path / "events.jsonl"
    torn = journal.read_bytes()[:-15]
    journal.write_bytes(torn)
    finish(folder, ignore)
    assert journal.read_bytes() == torn
    assert verify(folder.path) == []


def test_a_missing_voice_becomes_silence_and_an_unreadable_one_is_kept(tmp_path: Path) -> None:
    folder = record(tmp_path, close=False)
    (folder.path / NAMES[0]).unlink()
    (folder.path / NAMES[1]).write_bytes(b"not a page" * 50)
    (folder.path / "third.ogg").write_bytes(b"")
    finish(folder, ignore)
    assert (folder.path / "interviewer.unreadable.ogg").read_bytes() == b"not a page" * 50
    assert verify(folder.path) == []


def test_a_file_damaged_in_its_middle_is_not_touched_but_told(tmp_path: Path) -> None:
    folder = record(tmp_path, close=False)
    path = folder.path / NAMES[0]
    data = bytearray(path.read_bytes())
    data[9_000] ^= 0xFF
    path.write_bytes(data)
    finish(folder, ignore)
    assert path.read_bytes() == bytes(data)
    assert manifest.read(folder.path)["damaged"] == [NAMES[0]]
    assert any("no whole page" in problem for problem in verify(folder.path))


def test_a_repair_that_the_disk_refuses_leaves_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = record(tmp_path, close=False)
    before = {name: (folder.path / name).read_bytes() for name in NAMES}

    def full(draft: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(repair, "put_in_place", full)
    with pytest.raises(OSError, match="No space"):
        finish(folder, ignore)
    assert {name: (folder.path / name).read_bytes() for name in NAMES} == before
    assert not list(folder.path.glob(".*"))
    monkeypatch.undo()
    finish(folder, ignore)
    assert verify(folder.path) == []


def test_facts_that_were_written_are_believed_after_a_restart(tmp_path: Path) -> None:
    folder = record(tmp_path)
    finish(folder, ignore)
    document = manifest.read(folder.path)
    assert (document["phase"], document["reason"]) == ("ended", "client_request")
    assert (document["complete"], document["repaired"]) == (True, [])
    assert document["speakers"]["candidate"]["packets"] == SECONDS * 50
    assert not (folder.path / ".facts.json").exists()


def test_a_recording_that_lacks_packets_is_not_called_complete(tmp_path: Path) -> None:
    folder = record(tmp_path, until=1.0)
    facts = json.loads((folder.path / FACTS_NAME).read_bytes())
    facts["counters"]["candidate"]["overflow"] = 1
    (folder.path / FACTS_NAME).write_text(json.dumps(facts))
    finish(folder, ignore)
    document = manifest.read(folder.path)
    assert (document["complete"], document["failure"], document["damaged"]) == (False, None, [])
    assert verify(folder.path) == []


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema": 1}', b'{"schema": 9}', b"[]"])
def test_facts_that_cannot_be_read_are_pieced_together(tmp_path: Path, content: bytes) -> None:
    folder = record(tmp_path)
    (folder.path / FACTS_NAME).write_bytes(content)
    finish(folder, ignore)
    assert manifest.read(folder.path)["phase"] == "recovered"
    assert verify(folder.path) == []


def test_without_a_journal_the_sound_is_still_finished(tmp_path: Path) -> None:
    folder = record(tmp_path, close=False)
    (folder.path / "events.jsonl").unlink()
    finish(folder, ignore)
    assert manifest.read(folder.path)["seconds"] > 7
    assert verify(folder.path) == [
        "events.jsonl is missing from the manifest",
        "transcript.json is missing from the manifest",
    ]


def test_a_finished_folder_is_left_alone(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in folder.path.iterdir()}
    finish(folder, ignore)
    assert {path.name: path.stat().st_mtime_ns for path in folder.path.iterdir()} == before


def test_a_folder_that_somebody_holds_is_not_touched(tmp_path: Path) -> None:
    folder = record(tmp_path, close=False)
    claim = folder.hold()
    assert claim is not None
    with pytest.raises(StillRunning):
        finish(folder, ignore, patience=0)
    os.close(claim)
    finish(folder, ignore, patience=0)


def test_an_empty_folder_has_nothing_to_finish(tmp_path: Path) -> None:
    folder = InterviewFolder(tmp_path, SessionId("empty"))
    folder.create()
    with pytest.raises(NothingRecorded):
        finish(folder, ignore)
    assert unfinished(tmp_path) == []


def test_what_is_unfinished_is_found_among_everything_else(tmp_path: Path) -> None:
    assert unfinished(tmp_path) == []
    finished(tmp_path, "whole", until=1.0)
    record(tmp_path, "killed", until=1.0, close=False)
    record(tmp_path, "ended", until=1.0)
    (tmp_path / "interviews" / "not an id!").mkdir()
    (tmp_path / "interviews" / "file.txt").write_text("x")
    assert {folder.session_id for folder in unfinished(tmp_path)} == {"killed", "ended"}
    # A copy that somebody put beside it is no interview.
    copy = tmp_path / "interviews" / "whole.bak"
    copy.mkdir()
    (copy / "manifest.json").write_text("{}")
    assert [folder.session_id for folder in finished_before(tmp_path)] == ["whole"]


def test_the_command_finishes_a_folder_and_shows_how_far_it_is(tmp_path: Path) -> None:
    folder = record(tmp_path, close=False)
    screen, terminal = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "interview_peer", "finish", str(folder.path)],
        stdout=subprocess.PIPE,
        stderr=terminal,
        text=True,
        check=True,
    )
    os.close(terminal)
    shown = os.read(screen, 65_536).decode()
    os.close(screen)
    assert done.stdout == f"{folder.path / 'manifest.json'}\n"
    assert "Finishing" in shown and "100%" in shown
    assert verify(folder.path) == []


def test_the_command_finishes_interviews_folders_alone(tmp_path: Path) -> None:
    unlike = tmp_path / "interviews" / "no.id"
    unlike.mkdir(parents=True)
    # The root has no folder above it that could be a data folder.
    for other in (tmp_path, Path("/"), Path("/tmp"), unlike):
        refused = CliRunner().invoke(main, ["finish", str(other)])
        assert refused.exit_code == 1
        assert "is not an interview's folder" in refused.stderr
    empty = InterviewFolder(tmp_path, SessionId("empty"))
    empty.create()
    assert "Nothing was recorded" in CliRunner().invoke(main, ["finish", str(empty.path)]).stderr


@pytest.mark.parametrize("command", ["finish", "verify", "transcript", "export"])
def test_of_an_erased_folder_every_command_says_so(tmp_path: Path, command: str) -> None:
    folder = InterviewFolder(tmp_path, SessionId("erased"))
    folder.create()
    (folder.path / TOMBSTONE_NAME).write_text("{}")
    arguments = [str(folder.path)]
    if command == "export":
        arguments = ["erased", "--format", "wav", "--data-dir", str(tmp_path)]
    refused = CliRunner().invoke(main, [command, *arguments])
    assert (refused.exit_code, "has been erased" in refused.stderr) == (1, True)


def test_a_scan_of_a_good_file_finds_nothing_wrong(tmp_path: Path) -> None:
    stream = scan(record(tmp_path).path / NAMES[0])
    assert (stream.problems, stream.ended, stream.torn_bytes) == ([], True, 0)
    assert stream.seconds == pytest.approx(SECONDS, abs=0.003)
