"""The interview's folder: names, rights, and files that appear whole."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path

import pytest

from interview_peer.errors import InvalidSessionId, SessionIdTaken
from interview_peer.storage.folder import InterviewFolder, prepare
from interview_peer.types import SessionId


def made(root: Path, name: str = "abc") -> InterviewFolder:
    folder = InterviewFolder(root, SessionId(name))
    folder.create()
    return folder


def test_a_folder_is_made_once(tmp_path: Path) -> None:
    folder = InterviewFolder(tmp_path / "data", SessionId("an-id_1"))
    assert not folder.exists()
    folder.create()
    assert folder.exists()
    assert folder.path == tmp_path / "data" / "interviews" / "an-id_1"
    with pytest.raises(SessionIdTaken):
        InterviewFolder(tmp_path / "data", SessionId("an-id_1")).create()


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../x", "a b", "a\n", "a\0", "\u00e4", "x" * 65]
)
def test_an_id_that_could_lead_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidSessionId):
        InterviewFolder(tmp_path, SessionId(name))


def test_only_the_owner_may_read(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = made(tmp_path)
        folder.write_json("transcript.json", {})
        os.close(folder.open_new("candidate.ogg"))
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.path.iterdir()}
    assert modes == {"transcript.json": 0o600, "candidate.ogg": 0o600}
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.path.parent.stat().st_mode) == 0o700


def test_json_is_replaced_as_a_whole(tmp_path: Path) -> None:
    folder = made(tmp_path)
    folder.write_json("transcript.json", {"turns": [1]})
    folder.write_json("transcript.json", {"turns": ["\u00fc", "\ud800"]})
    assert json.loads((folder.path / "transcript.json").read_text()) == {"turns": ["\u00fc", "?"]}
    assert [path.name for path in folder.path.iterdir()] == ["transcript.json"]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path)
    folder.write_json("transcript.json", {"turns": [1]})

    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(OSError, match="No space"):
        folder.write_json("transcript.json", {"turns": [2]})
    with pytest.raises(TypeError):
        folder.write_json("transcript.json", {"turns": {1, 2}})
    assert json.loads((folder.path / "transcript.json").read_text()) == {"turns": [1]}
    assert len(list(folder.path.iterdir())) == 1


@pytest.mark.parametrize("name", ["../x.json", ".hidden", "", "a/b.json"])
def test_a_file_name_cannot_leave_the_folder(tmp_path: Path, name: str) -> None:
    folder = made(tmp_path)
    with pytest.raises(ValueError, match="plain file name"):
        folder.write_json(name, {})
    with pytest.raises(ValueError, match="plain file name"):
        folder.open_new(name)


def test_a_recording_is_never_overwritten(tmp_path: Path) -> None:
    folder = made(tmp_path)
    os.close(folder.open_new("candidate.ogg"))
    with pytest.raises(FileExistsError):
        folder.open_new("candidate.ogg")


def test_a_data_folder_is_made_private_and_left_empty(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        prepare(tmp_path / "data")
    finally:
        os.umask(before)
    (interviews,) = (tmp_path / "data").iterdir()
    assert stat.S_IMODE(interviews.stat().st_mode) == 0o700
    assert [*interviews.iterdir()] == []
    prepare(tmp_path / "data")


def test_a_data_folder_on_a_full_disk_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        prepare(tmp_path)
    assert [*(tmp_path / "interviews").iterdir()] == []
