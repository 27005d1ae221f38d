"""Whether a disk has room: as it fills up, refuses, is gone and comes back."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from interview_peer.storage import room as module
from interview_peer.storage.room import Room

LEAST = 1000


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the disk says is free; to be changed by tests."""
    disk = SimpleNamespace(free=LEAST)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: disk)
    return disk


def test_there_is_room_from_the_limit_on(tmp_path: Path, free: SimpleNamespace) -> None:
    room = Room(tmp_path, LEAST)
    seen = []
    for free.free in (LEAST, LEAST - 1, LEAST):
        room.look()
        seen.append((room.full, room.unusable))
    assert seen == [(False, False), (True, False), (False, False)]


def test_nothing_is_said_against_a_disk_before_the_first_look(tmp_path: Path) -> None:
    room = Room(tmp_path, LEAST)
    assert (room.full, room.unusable) == (False, False)


def test_a_folder_that_takes_no_file_is_unusable_until_it_does(
    tmp_path: Path, free: SimpleNamespace
) -> None:
    folder = tmp_path / "recordings"
    room = Room(folder, LEAST)
    seen = []
    for _ in range(2):
        room.look()
        seen.append(room.unusable)
        folder.mkdir(exist_ok=True)
    assert seen == [True, False]
    assert list(folder.iterdir()) == []


def test_a_full_disk_is_not_written_to(
    tmp_path: Path, free: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise AssertionError("written to")

    monkeypatch.setattr(module, "probe", refuse)
    free.free = 0
    Room(tmp_path, LEAST).look()


def test_a_disk_that_hangs_is_unusable_and_closing_does_not_wait_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking, answer = threading.Event(), threading.Event()

    def hang(folder: Path) -> Any:
        looking.set()
        answer.wait(30)
        raise OSError

    monkeypatch.setattr(shutil, "disk_usage", hang)
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(module, "CLOSE_SECONDS", 0.05)
    room = Room(tmp_path, LEAST)
    room.start()
    assert looking.wait(5)
    threading.Event().wait(0.1)
    assert room.unusable
    room.close()
    answer.set()


def test_without_a_limit_nothing_is_looked_at(tmp_path: Path) -> None:
    room = Room(tmp_path / "missing", 0)
    before = threading.active_count()
    room.start()
    assert threading.active_count() == before
    assert (room.full, room.unusable) == (False, False)
