"""What was damaged before it was finished is named in the manifest, file by file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from interview_peer.cli import main
from interview_peer.finishing import facts, manifest
from interview_peer.finishing.job import finish
from interview_peer.finishing.verify import verify
from interview_peer.storage.finished import Place, Stored, parse_manifest
from interview_peer.storage.folder import InterviewFolder
from interview_peer.types import SessionId

from .folders import finished, ignore, record
from .test_verify import (
    cut_at_page,
    cut_end,
    drop_page,
    flip_sound,
    second_stream,
    torn_journal,
    wrong_granule,
)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data folder of an interview that ended, and was not finished yet."""
    root = tmp_path_factory.mktemp("ended")
    record(root)
    return root


@pytest.fixture
def folder(ended: Path, tmp_path: Path) -> InterviewFolder:
    shutil.copytree(ended, tmp_path, dirs_exist_ok=True)
    return InterviewFolder(tmp_path, SessionId("one"))


def broken_transcript(folder: Path) -> None:
    (folder / "transcript.json").write_text("{")


@pytest.mark.parametrize(
    ("plant", "name", "code"),
    [
        (flip_sound, "candidate.ogg", "torn_page"),
        (drop_page, "interviewer.ogg", "missing_page"),
        (wrong_granule, "candidate.ogg", "wrong_position"),
        (second_stream, "interviewer.ogg", "foreign_page"),
        (torn_journal, "events.jsonl", "broken_line"),
        (broken_transcript, "transcript.json", "unreadable"),
    ],
    ids=lambda one: getattr(one, "__name__", ""),
)
def test_damage_of_before_is_in_the_manifest(
    folder: InterviewFolder, plant: Callable[[Path], None], name: str, code: str
) -> None:
    plant(folder.path)
    finish(folder, ignore)
    document = manifest.read(folder.path)
    damage = {file.name: file.damage for file in manifest.files(document)}
    assert code in damage.pop(name)
    assert set(damage.values()) == {()}
    assert (document["damaged"], document["complete"]) == ([name], False)
    understood = parse_manifest((folder.path / "manifest.json").read_bytes())
    assert understood is not None
    assert {one.name for one in understood.files if one.damage} == {name}


@pytest.mark.parametrize("plant", [cut_end, cut_at_page], ids=lambda one: one.__name__)
def test_what_is_repaired_is_no_damage(
    folder: InterviewFolder, plant: Callable[[Path], None]
) -> None:
    plant(folder.path)
    finish(folder, ignore)
    document = manifest.read(folder.path)
    assert document["repaired"] == ["candidate.ogg"]
    assert document["damaged"] == []


def test_a_file_that_was_set_aside_is_named_as_damaged(folder: InterviewFolder) -> None:
    (folder.path / "interviewer.ogg").write_bytes(b"not a page" * 50)
    finish(folder, ignore)
    files = {file.name: file for file in manifest.files(manifest.read(folder.path))}
    assert "no_header" in files["interviewer.unreadable.ogg"].damage
    assert files["interviewer.ogg"].damage == ()


def test_a_torn_last_line_after_a_crash_is_no_damage(tmp_path: Path) -> None:
    folder = record(tmp_path, close=False)
    torn_journal(folder.path)
    finish(folder, ignore)
    assert manifest.read(folder.path)["damaged"] == []


@pytest.mark.parametrize("left", [0, 30, -20], ids=["nothing", "half a line", "a torn end"])
def test_a_journal_that_the_disk_cut_off_is_no_damage(folder: InterviewFolder, left: int) -> None:
    dataclasses.replace(facts.read(folder), failure="EFBIG").write(folder)
    (folder.path / "transcript.json").write_text(
        json.dumps({"session_id": "one", "started_at": "2026-01-01T12:00:00.000Z", "turns": []})
    )
    journal = folder.path / "events.jsonl"
    journal.write_bytes(journal.read_bytes()[:left])
    finish(folder, ignore)
    document = manifest.read(folder.path)
    assert (document["failure"], document["damaged"]) == ("EFBIG", [])
    assert verify(folder.path) == []


# -- what the commands make of it


@contextlib.contextmanager
def folder_held(folder: InterviewFolder) -> Iterator[None]:
    claim = folder.hold()
    assert claim is not None
    try:
        yield
    finally:
        os.close(claim)


def export(root: Path, kind: str, target: Path) -> tuple[int, str]:
    arguments = ["export", "one", "--format", kind, "--output", str(target)]
    done = CliRunner().invoke(main, [*arguments, "--data-dir", str(root)])
    return done.exit_code, done.stderr


@pytest.mark.parametrize(
    ("kind", "name"),
    [("webm", "mixed.webm"), ("ogg", "mixed.webm"), ("wav", "candidate.ogg")],
)
def test_nothing_is_exported_that_its_manifest_does_not_know(
    folder: InterviewFolder, tmp_path: Path, kind: str, name: str
) -> None:
    finish(folder, ignore)
    path = folder.path / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    target = tmp_path / f"out.{kind}"
    code, said = export(tmp_path, kind, target)
    assert code == 1
    assert said == (
        f"{name} is not what the manifest says, so it is not exported. "
        "interview-peer verify tells what is wrong.\n"
    )
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize("kind", ["webm", "ogg", "wav"])
def test_an_export_says_that_an_original_was_damaged(
    folder: InterviewFolder, tmp_path: Path, kind: str
) -> None:
    flip_sound(folder.path)
    finish(folder, ignore)
    code, said = export(tmp_path, kind, tmp_path / f"out.{kind}")
    assert code == 0
    assert said.startswith("candidate.ogg was damaged when it was finished")


@pytest.mark.parametrize(
    "place", ["one/candidate.ogg", "one/export.wav", "one/below/export.wav", "another/x.wav"]
)
def test_an_export_never_writes_among_an_interviews_files(
    folder: InterviewFolder, tmp_path: Path, place: str
) -> None:
    finish(folder, ignore)
    target = tmp_path / "interviews" / place
    target.parent.mkdir(exist_ok=True)
    before = {path: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
    link = tmp_path / "link"
    link.symlink_to(target.parent)
    for way in (target, link / target.name, target.parent / ".." / place):
        code, said = export(tmp_path, "wav", way)
        assert (code, said.startswith("That place is inside an interview's folder")) == (1, True)
    assert before == {path: path.read_bytes() for path in folder.path.iterdir() if path.is_file()}
    assert not (target.exists() and place != "one/candidate.ogg")


def test_a_transcript_is_not_written_into_a_folder_in_use(folder: InterviewFolder) -> None:
    before = {path.name for path in folder.path.iterdir()}
    with folder_held(folder):
        refused = CliRunner().invoke(main, ["transcript", str(folder.path)])
        assert refused.exit_code == 1
        assert "is in use" in refused.stderr
        assert {path.name for path in folder.path.iterdir()} == before
        shown = CliRunner().invoke(main, ["transcript", str(folder.path), "--format", "json"])
        assert shown.exit_code == 0 and "Bridges." in shown.stdout
    assert CliRunner().invoke(main, ["transcript", str(folder.path)]).exit_code == 0
    assert (folder.path / "transcript.json").exists()


def test_verify_says_where_the_files_went(tmp_path: Path) -> None:
    folder = finished(tmp_path, until=1.0)
    for path in folder.path.iterdir():
        if path.name != "manifest.json":
            path.unlink()
    mark = Stored(Place("s3://bucket/kept"), {})
    folder.write_json("stored.json", mark.document())
    (folder.path / "stored.json").rename(folder.path / ".stored.json")
    done = CliRunner().invoke(main, ["verify", str(folder.path)])
    assert done.exit_code == 1
    assert "were moved to s3://bucket/kept/one; only the manifest is here." in done.stderr
