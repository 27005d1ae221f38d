"""Recordings are erased by age, told by a clock that stands where the test puts it."""

from __future__ import annotations

import contextlib
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from interview_peer.storage.finished import MANIFEST_NAME, TOMBSTONE_NAME, read_tombstone
from interview_peer.storage.folder import InterviewFolder
from interview_peer.storage.keeper import Keeper
from interview_peer.storage.shelf import Shelf
from interview_peer.types import SessionId
from tests.recording.folders import SECONDS, STARTED_AT

from .s3 import Network
from .test_keeping import listed

ENDED_AT = STARTED_AT + timedelta(seconds=SECONDS)
MONTH = timedelta(days=30)


class Clock:
    """Wall time, moved by hand."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


def names(folder: InterviewFolder) -> set[str]:
    return {path.name for path in folder.path.iterdir()}


async def test_a_recording_is_erased_when_its_days_are_over_and_not_before(
    folder: InterviewFolder, tmp_path: Path
) -> None:
    before = names(folder)
    clock = Clock(ENDED_AT + MONTH - timedelta(seconds=1))
    aged: list[str] = []
    keeper = Keeper(Shelf(tmp_path, None), retention=MONTH, now=clock, aged=aged.append)
    await keeper.look()
    assert names(folder) == before and aged == []
    clock.now = ENDED_AT + MONTH + timedelta(seconds=1)
    await keeper.look()
    assert names(folder) == {TOMBSTONE_NAME}
    stone = read_tombstone(folder)
    assert stone is not None and stone.complete
    assert (stone.why, stone.erased_at) == ("retention", "2026-01-31T12:00:09Z")
    clock.now += MONTH
    await keeper.look()
    assert read_tombstone(folder) == stone
    assert keeper.erased == 1
    assert aged == ["one"]


async def test_without_a_retention_nothing_is_too_old(
    folder: InterviewFolder, tmp_path: Path
) -> None:
    before = names(folder)
    await Keeper(Shelf(tmp_path, None), now=Clock(ENDED_AT + 1000 * MONTH)).look()
    assert names(folder) == before


async def test_a_running_interview_and_a_held_folder_are_left_alone(
    folder: InterviewFolder, tmp_path: Path
) -> None:
    before = names(folder)
    clock = Clock(ENDED_AT + 2 * MONTH)
    shelf = Shelf(tmp_path, None)
    await Keeper(shelf, retention=MONTH, now=clock, busy=lambda _: True).look()
    assert names(folder) == before
    claim = folder.hold()
    assert claim is not None
    await Keeper(shelf, retention=MONTH, now=clock, held_seconds=0.1).look()
    assert names(folder) == before
    os.close(claim)
    await Keeper(shelf, retention=MONTH, now=clock).look()
    assert names(folder) == {TOMBSTONE_NAME}


async def test_a_folder_that_was_never_finished_ages_by_its_files(
    folder: InterviewFolder, tmp_path: Path
) -> None:
    (folder.path / MANIFEST_NAME).unlink()
    newest = datetime(2026, 3, 1, tzinfo=UTC)
    for path in [*folder.path.iterdir(), folder.path]:
        os.utime(path, (newest.timestamp(), newest.timestamp()))
    clock = Clock(newest + MONTH - timedelta(seconds=1))
    keeper = Keeper(Shelf(tmp_path, None), retention=MONTH, now=clock)
    await keeper.look()
    assert TOMBSTONE_NAME not in names(folder)
    clock.now += timedelta(seconds=2)
    await keeper.look()
    assert names(folder) == {TOMBSTONE_NAME}


async def test_strange_names_among_the_folders_are_not_touched(
    folder: InterviewFolder, tmp_path: Path
) -> None:
    strange = folder.path.parent / "not an id"
    strange.mkdir()
    (strange / "mine.txt").write_text("keep")
    (folder.path.parent / "file").write_text("keep")
    keeper = Keeper(Shelf(tmp_path, None), retention=MONTH, now=Clock(ENDED_AT + 999 * MONTH))
    await keeper.look()
    assert (strange / "mine.txt").read_text() == "keep"
    assert (folder.path.parent / "file").read_text() == "keep"


@pytest.mark.parametrize("same_disk", [True, False])
async def test_what_was_moved_to_the_store_ages_as_well(
    folder: InterviewFolder, bucket: Network, tmp_path: Path, same_disk: bool
) -> None:
    store = bucket.store()
    keeper = Keeper(Shelf(tmp_path, store))
    await keeper._move(SessionId("one"))
    kept = len(listed(folder)) + 1
    assert len(await store.under("one")) == kept
    disk = tmp_path if same_disk else tmp_path / "another"
    # The store's own dates are today's.
    late = Clock(datetime.now(UTC) + MONTH + timedelta(days=1))
    if not same_disk:
        soon = Clock(datetime.now(UTC) + MONTH - timedelta(days=1))
        await Keeper(Shelf(disk, store), retention=MONTH, now=soon).look()
        kept = len(listed(folder)) + 1
    assert len(await store.under("one")) == kept
    await Keeper(Shelf(disk, store), retention=MONTH, now=late).look()
    assert [one.key for one in await store.under()] == [f"one/{TOMBSTONE_NAME}"]
    # The id stays taken on this disk.
    with contextlib.closing(os.scandir(disk / "interviews" / "one")) as left:
        assert [entry.name for entry in left] == [TOMBSTONE_NAME]


async def test_an_upload_that_broke_off_and_lost_its_disk_ages_and_nobody_elses_objects_do(
    bucket: Network, tmp_path: Path
) -> None:
    store = bucket.store()
    for key in ("half/candidate.ogg", "photos/cat.jpg", "photos/manifest.txt"):
        await store.put_bytes(b"voice", key, "audio/ogg")
    await store.put_bytes(b"{}", f"grave/{TOMBSTONE_NAME}", "application/json")
    aged: list[str] = []
    for days in (29, 31):
        clock = Clock(datetime.now(UTC) + timedelta(days=days))
        keeper = Keeper(Shelf(tmp_path, store), retention=MONTH, now=clock, aged=aged.append)
        await keeper.look()
        assert aged == ([] if days == 29 else ["half"])
    assert {one.key for one in await store.under()} == {
        f"half/{TOMBSTONE_NAME}",
        f"grave/{TOMBSTONE_NAME}",
        "photos/cat.jpg",
        "photos/manifest.txt",
    }


async def test_a_folder_that_cannot_be_finished_ages_although_it_is_tried_again(
    folder: InterviewFolder, tmp_path: Path
) -> None:
    (folder.path / MANIFEST_NAME).unlink()
    for path in folder.path.iterdir():
        os.utime(path, (ENDED_AT.timestamp(), ENDED_AT.timestamp()))
    # What every try makes anew.
    (folder.path / "mixed.webm").touch()
    (folder.path / ".waveform.json.part").touch()
    keeper = Keeper(
        Shelf(tmp_path, None), retention=MONTH, now=Clock(ENDED_AT + MONTH + timedelta(hours=1))
    )
    await keeper.look()
    assert names(folder) == {TOMBSTONE_NAME}


@pytest.mark.parametrize("seconds", ["1e300", "NaN", "-1e300"])
async def test_one_folder_with_nonsense_in_its_manifest_keeps_no_other_from_ageing(
    folder: InterviewFolder, tmp_path: Path, seconds: str
) -> None:
    other = InterviewFolder(tmp_path, SessionId("another"))
    other.create()
    (other.path / MANIFEST_NAME).write_text(
        f'{{"started_at": "2026-01-01T12:00:00Z", "files": [], "seconds": {seconds}}}'
    )
    await Keeper(Shelf(tmp_path, None), retention=MONTH, now=Clock(ENDED_AT + 2 * MONTH)).look()
    assert names(folder) == {TOMBSTONE_NAME}


async def test_one_folder_that_cannot_be_read_keeps_no_other_from_ageing(
    folder: InterviewFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = InterviewFolder(tmp_path, SessionId("another"))
    other.create()
    listed_ = Path.iterdir

    def iterdir(path: Path) -> object:
        if path == other.path:
            raise PermissionError(13, "no")
        return listed_(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    await Keeper(Shelf(tmp_path, None), retention=MONTH, now=Clock(ENDED_AT + 2 * MONTH)).look()
    monkeypatch.undo()
    assert names(folder) == {TOMBSTONE_NAME}
