"""Finished folders move to a real S3 server, whatever the network does to them."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from interview_peer.errors import RecordingDamaged, RecordingErased, StoreUnavailable
from interview_peer.storage import eraser
from interview_peer.storage.finished import (
    MANIFEST_NAME,
    STORED_NAME,
    TOMBSTONE_NAME,
    FinishedFile,
    read_finished,
    read_tombstone,
)
from interview_peer.storage.folder import InterviewFolder
from interview_peer.storage.keeper import Keeper
from interview_peer.storage.shelf import Shelf
from interview_peer.storage.store import Store
from interview_peer.types import SessionId
from tests.support.waiting import eventually

from .s3 import Network, never, out_of_order

ONE = SessionId("one")


def listed(folder: InterviewFolder) -> tuple[FinishedFile, ...]:
    finished = read_finished(folder)
    assert finished is not None
    return finished.files


def local(folder: InterviewFolder) -> set[str]:
    return {path.name for path in folder.path.iterdir()}


@contextlib.asynccontextmanager
async def keeping(folder: InterviewFolder, store: Store, **options: Any) -> AsyncIterator[Keeper]:
    shelf = Shelf(folder.path.parents[1], store)
    keeper = Keeper(shelf, retry_seconds=(0.05,), held_seconds=0.2, **options)
    keeper.start()
    try:
        yield keeper
    finally:
        await keeper.close()


async def until(keeper: Keeper, name: str, least: int = 1) -> None:
    async def look() -> int:
        return int(getattr(keeper, name))

    await eventually(look, within=30, what=f"{name} {least}", good=lambda seen: seen >= least)


async def held(store: Store, session_id: str = "one") -> dict[str, str]:
    """Names and hashes of what the store has."""
    return {
        one.key.rpartition("/")[2]: await store.sha256(one) for one in await store.under(session_id)
    }


async def whole(shelf: Shelf, name: str) -> bytes:
    found = await shelf.find("one")
    assert found is not None
    file = found.finished.file(name)
    assert file is not None
    content = await shelf.open("one", found, file)
    return b"".join([chunk async for chunk in content.read(0, file.bytes)])


async def test_a_finished_folder_moves_to_the_store(
    folder: InterviewFolder, bucket: Network
) -> None:
    files, manifest = listed(folder), (folder.path / MANIFEST_NAME).read_bytes()
    store = bucket.store()
    async with keeping(folder, store) as keeper:
        await until(keeper, "uploaded")
        assert keeper.waiting == 0
    expected = {file.name: file.sha256 for file in files}
    expected[MANIFEST_NAME] = hashlib.sha256(manifest).hexdigest()
    assert await held(store) == expected
    assert local(folder) == {MANIFEST_NAME, STORED_NAME}
    for file in files:
        assert (
            hashlib.sha256(await whole(Shelf(folder.path.parents[1], store), file.name)).hexdigest()
            == file.sha256
        )


async def test_a_folder_that_is_told_of_later_moves_too(
    folder: InterviewFolder, bucket: Network, tmp_path: Path
) -> None:
    hidden = folder.path.rename(tmp_path / "elsewhere")
    async with keeping(folder, bucket.store()) as keeper:
        hidden.rename(folder.path)
        keeper.take(ONE)
        await until(keeper, "uploaded")


async def test_an_unfinished_folder_stays(
    folder: InterviewFolder, bucket: Network, tmp_path: Path
) -> None:
    (folder.path / MANIFEST_NAME).unlink()
    other = InterviewFolder(tmp_path, SessionId("two"))
    other.create()
    async with keeping(folder, bucket.store()) as keeper:
        await keeper.look()
        keeper.take(ONE)

        async def idle() -> bool:
            return keeper.waiting == 0

        await eventually(idle, within=5, what="nothing waits")
    assert sum(bucket.puts.values()) == 0
    assert "candidate.ogg" in local(folder)


async def test_broken_connections_are_tried_again_and_the_local_copy_stays_meanwhile(
    folder: InterviewFolder, bucket: Network
) -> None:
    before = local(folder)
    seen: list[set[str]] = []

    async def cut(request: web.Request, body: bytes) -> bytes | None:
        if request.method == "PUT" and len(seen) < 4:
            seen.append(local(folder))
            return None
        return body

    bucket.act = cut
    async with keeping(folder, bucket.store()) as keeper:
        await until(keeper, "uploaded")
        assert keeper.retries >= 4
    assert seen == [before | {STORED_NAME}] * 4
    assert local(folder) == {MANIFEST_NAME, STORED_NAME}


async def test_bytes_that_arrive_wrong_are_noticed_and_sent_again(
    folder: InterviewFolder, bucket: Network
) -> None:
    files = listed(folder)
    spoilt: list[str] = []

    async def flip(request: web.Request, body: bytes) -> bytes:
        if request.method == "PUT" and request.path.endswith(".ogg") and len(spoilt) < 2:
            spoilt.append(request.path)
            return bytes([*body[:-1], body[-1] ^ 1])
        return body

    bucket.act = flip
    store = bucket.store()
    async with keeping(folder, store) as keeper:
        await until(keeper, "uploaded")
        assert keeper.retries == 2
    found = await held(store)
    assert {file.name: file.sha256 for file in files}.items() <= found.items()


async def test_a_store_that_always_spoils_never_costs_the_local_copy(
    folder: InterviewFolder, bucket: Network
) -> None:
    before = local(folder)

    async def flip(request: web.Request, body: bytes) -> bytes:
        if request.method == "PUT" and request.path.endswith("mixed.webm"):
            return bytes([body[0] ^ 1, *body[1:]])
        return body

    bucket.act = flip
    async with keeping(folder, bucket.store()) as keeper:
        await until(keeper, "retries", 3)
        assert keeper.uploaded == 0
    assert local(folder) == before | {STORED_NAME}
    assert MANIFEST_NAME not in await held(bucket.store())


async def test_a_refusal_is_waited_out(folder: InterviewFolder, bucket: Network) -> None:
    async def refuse(request: web.Request, body: bytes) -> web.Response:
        return web.Response(status=403)

    before = local(folder)
    bucket.act = refuse
    async with keeping(folder, bucket.store()) as keeper:
        await until(keeper, "retries", 2)
        assert local(folder) == before
        bucket.act = None
        await until(keeper, "uploaded")


async def test_a_restart_goes_on_where_the_upload_was_interrupted(
    folder: InterviewFolder, bucket: Network
) -> None:
    files = listed(folder)
    last = files[-1].name
    reached = asyncio.Event()

    async def hang(request: web.Request, body: bytes) -> bytes:
        if request.method == "PUT" and request.path.endswith(last):
            reached.set()
            await asyncio.Event().wait()
        return body

    bucket.act = hang
    async with keeping(folder, bucket.store()) as keeper:
        async with asyncio.timeout(20):
            await reached.wait()
        assert keeper.waiting == 1
    assert local(folder) >= {file.name for file in files}
    bucket.act = None
    async with keeping(folder, bucket.store()) as keeper:
        await until(keeper, "uploaded")
    # What had arrived was read back, not sent again.
    assert all(bucket.puts[file.name] == 1 for file in files[:-1])
    assert local(folder) == {MANIFEST_NAME, STORED_NAME}


async def test_a_restart_after_the_mark_only_removes_the_local_copy(
    folder: InterviewFolder, bucket: Network, model_folder: Path
) -> None:
    async with keeping(folder, bucket.store()) as keeper:
        await until(keeper, "uploaded")
    # As if the process had ended between the mark and the last removal.
    (folder.path / "mixed.webm").write_bytes((model_folder / "mixed.webm").read_bytes())
    bucket.puts.clear()
    async with keeping(folder, bucket.store()) as keeper:
        await until(keeper, "uploaded")
    assert local(folder) == {MANIFEST_NAME, STORED_NAME}
    assert sum(bucket.puts.values()) == 0


async def test_a_damaged_local_file_is_not_uploaded_as_whole(
    folder: InterviewFolder, bucket: Network
) -> None:
    path = folder.path / "candidate.ogg"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00\x00")
    before = local(folder)
    async with keeping(folder, bucket.store()) as keeper:
        await until(keeper, "damaged")
        assert keeper.waiting == 0
    assert local(folder) == before | {STORED_NAME}
    assert not {"candidate.ogg", MANIFEST_NAME} & set(await held(bucket.store()))


async def test_a_folder_that_was_taken_away_and_put_back_mended_is_looked_at_anew(
    folder: InterviewFolder, bucket: Network, tmp_path: Path
) -> None:
    path, whole_file = folder.path / "candidate.ogg", (folder.path / "candidate.ogg").read_bytes()
    path.write_bytes(whole_file[:-1] + b"\x00\x00")
    async with keeping(folder, bucket.store(), look_seconds=0.05) as keeper:
        await until(keeper, "damaged")
        elsewhere = folder.path.rename(tmp_path / "elsewhere")
        await keeper.look()
        (elsewhere / "candidate.ogg").write_bytes(whole_file)
        elsewhere.rename(folder.path)
        await until(keeper, "uploaded")
    assert local(folder) == {MANIFEST_NAME, STORED_NAME}


def large_folder(root: Path, size: int) -> tuple[InterviewFolder, bytes]:
    """A finished folder with one large file, and its bytes."""
    folder = InterviewFolder(root, ONE)
    folder.create()
    data = hashlib.shake_256(b"sound").digest(size)
    (folder.path / "candidate.ogg").write_bytes(data)
    folder.write_json(
        MANIFEST_NAME,
        {
            "schema": 1,
            "started_at": "2026-01-01T12:00:00.000Z",
            "seconds": 3600.0,
            "files": [
                {
                    "name": "candidate.ogg",
                    "bytes": len(data),
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "content_type": "audio/ogg; codecs=opus",
                }
            ],
        },
    )
    return folder, data


async def test_a_file_of_several_parts_survives_the_loss_of_one(
    tmp_path: Path, bucket: Network
) -> None:
    folder, data = large_folder(tmp_path, 12_000_000)
    digest = hashlib.sha256(data).hexdigest()
    parts: list[str] = []

    async def cut(request: web.Request, body: bytes) -> bytes | None:
        part = request.query.get("partNumber")
        if part is not None:
            parts.append(part)
            if parts.count("2") == 1 and part == "2":
                return None
        return body

    bucket.act = cut
    store = bucket.store()
    async with keeping(folder, store) as keeper:
        await until(keeper, "uploaded")
    # The first upload was given up as a whole, the second one brought every part.
    assert parts.count("2") == 2
    assert (await held(store))["candidate.ogg"] == digest
    shelf = Shelf(tmp_path, store)
    found = await shelf.find("one")
    assert found is not None
    content = await shelf.open("one", found, found.finished.files[0])
    middle = b"".join([chunk async for chunk in content.read(4_000_000, 9_000_001)])
    assert middle == data[4_000_000:9_000_001]


# -- reading from the store


async def test_a_recording_is_found_in_the_store_by_another_machine(
    folder: InterviewFolder, bucket: Network, model_folder: Path, tmp_path: Path
) -> None:
    async with keeping(folder, bucket.store()) as keeper:
        await until(keeper, "uploaded")
    elsewhere = Shelf(tmp_path / "empty", bucket.store())
    assert await whole(elsewhere, "mixed.webm") == (model_folder / "mixed.webm").read_bytes()
    assert await elsewhere.find("two") is None


async def test_an_object_that_was_changed_in_the_store_is_refused(
    folder: InterviewFolder, bucket: Network
) -> None:
    store = bucket.store()
    async with keeping(folder, store) as keeper:
        await until(keeper, "uploaded")
    shelf = Shelf(folder.path.parents[1], store)
    good = await whole(shelf, "candidate.ogg")
    await store.put_bytes(good[:-1] + b"\x00", "one/candidate.ogg", "audio/ogg")
    with pytest.raises(RecordingDamaged):
        await whole(shelf, "candidate.ogg")
    await store.put_bytes(good, "one/candidate.ogg", "audio/ogg")
    assert await whole(shelf, "candidate.ogg") == good
    await store.delete(["one/candidate.ogg"])
    with pytest.raises(RecordingDamaged):
        await whole(shelf, "candidate.ogg")


async def test_a_store_in_trouble_is_told_apart_from_a_missing_recording(
    bucket: Network, tmp_path: Path
) -> None:
    bucket.act = out_of_order
    with pytest.raises(StoreUnavailable):
        await Shelf(tmp_path, bucket.store()).find("one")


# -- erasing


async def test_erasing_takes_every_copy_and_leaves_tombstones(
    folder: InterviewFolder, bucket: Network, tmp_path: Path
) -> None:
    store = bucket.store()
    async with keeping(folder, store) as keeper:
        await until(keeper, "uploaded")
        answer = await keeper.erase(ONE)
        assert answer.tombstone.complete
        assert await keeper.erase(ONE) == answer
    assert local(folder) == set(await held(store)) == {TOMBSTONE_NAME}
    for shelf in (Shelf(tmp_path, store), Shelf(tmp_path / "empty", store)):
        with pytest.raises(RecordingErased):
            await shelf.find("one")
    stone = json.loads((folder.path / TOMBSTONE_NAME).read_bytes())
    assert stone["why"] == "request" and stone["session_id"] == "one"


async def test_erasing_calls_off_an_upload(folder: InterviewFolder, bucket: Network) -> None:
    bucket.act = never
    async with keeping(folder, bucket.store()) as keeper:

        async def begun() -> int:
            return sum(bucket.puts.values())

        await eventually(begun, within=20, what="an upload begins")
        bucket.act = None
        async with asyncio.timeout(20):
            assert (await keeper.erase(ONE)).tombstone.complete
    assert local(folder) == set(await held(bucket.store())) == {TOMBSTONE_NAME}


@pytest.mark.parametrize("restart", [False, True])
async def test_what_an_upload_brings_after_it_was_called_off_is_erased_too(
    folder: InterviewFolder, bucket: Network, monkeypatch: pytest.MonkeyPatch, restart: bool
) -> None:
    store = bucket.store()
    bucket.act = never
    monkeypatch.setattr(eraser, "AGAIN_SECONDS", 60.0 if restart else 1.5)
    late = datetime.now(UTC) + timedelta(seconds=61)

    async def begun() -> int:
        return sum(bucket.puts.values())

    async def looked() -> bool:
        stone = read_tombstone(folder)
        return stone is not None and stone.complete and stone.again_at is None

    async with keeping(folder, store) as keeper:
        await eventually(begun, within=20, what="an upload begins")
        bucket.act = None
        assert (await keeper.erase(ONE)).tombstone.complete
        await store.put_bytes(b"voice", "one/candidate.ogg", "audio/ogg")
        assert not await looked()
        if restart:
            await keeper.close()
        more = keeping(folder, store, now=lambda: late) if restart else contextlib.nullcontext()
        async with more:
            await eventually(looked, within=20, what="it is looked at again")
    assert local(folder) == set(await held(store)) == {TOMBSTONE_NAME}


@pytest.mark.parametrize("restart", [False, True])
async def test_an_erasure_ends_when_the_store_answers_again(
    folder: InterviewFolder, bucket: Network, restart: bool
) -> None:
    store = bucket.store()
    async with keeping(folder, store) as keeper:
        await until(keeper, "uploaded")
        bucket.act = out_of_order
        assert not (await keeper.erase(ONE)).tombstone.complete
        # Here it is gone at once.
        assert local(folder) == {TOMBSTONE_NAME}
        if restart:
            await keeper.close()
        bucket.act = None

        async def complete() -> bool:
            stone = read_tombstone(folder)
            return stone is not None and stone.complete

        async with keeping(folder, store) if restart else contextlib.nullcontext():
            await eventually(complete, within=20, what="the erasure is complete")
    assert set(await held(store)) == {TOMBSTONE_NAME}


async def test_two_erasures_at_once_agree(folder: InterviewFolder, bucket: Network) -> None:
    async with keeping(folder, bucket.store()) as keeper:
        first, second = await asyncio.gather(keeper.erase(ONE), keeper.erase(ONE))
        assert first == second
        assert keeper.erased == 1


def without_descriptors(patch: pytest.MonkeyPatch, *names: str) -> None:
    """As if the process had no free descriptor: no such file opens, whether it is there or not."""
    read = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name in names:
            raise OSError(errno.EMFILE, "Too many open files")
        return read(path)

    patch.setattr(Path, "read_bytes", read_bytes)


async def test_nothing_is_taken_for_erased_because_no_more_files_can_be_opened(
    folder: InterviewFolder, bucket: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = listed(folder)
    shelf = Shelf(folder.path.parents[1], bucket.store())
    keeper = Keeper(shelf)
    without_descriptors(monkeypatch, TOMBSTONE_NAME)
    await keeper.look()
    assert await shelf.find("one") is not None
    await keeper._move(ONE)
    assert set(await held(bucket.store())) == {*(one.name for one in files), MANIFEST_NAME}
    assert local(folder) == {MANIFEST_NAME, STORED_NAME}


async def test_where_copies_are_is_not_forgotten_because_no_more_files_can_be_opened(
    folder: InterviewFolder, bucket: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Keeper(Shelf(folder.path.parents[1], bucket.store("old")))._move(ONE)
    mark = (folder.path / STORED_NAME).read_bytes()
    keeper = Keeper(Shelf(folder.path.parents[1], bucket.store("new"), bucket.reopen))
    with monkeypatch.context() as patch:
        without_descriptors(patch, STORED_NAME)
        with pytest.raises(OSError, match="Too many"):
            await keeper._move(ONE)
        with pytest.raises(OSError, match="Too many"):
            await keeper.erase(ONE)
    assert (folder.path / STORED_NAME).read_bytes() == mark
    assert (await keeper.erase(ONE)).tombstone.complete
    assert set(await held(bucket.store("old"))) == {TOMBSTONE_NAME}


async def test_copies_that_nobody_knows_the_place_of_keep_an_erasure_open(
    folder: InterviewFolder, tmp_path: Path
) -> None:
    (folder.path / STORED_NAME).write_text("nonsense")
    erasure = await Keeper(Shelf(tmp_path, None)).erase(ONE)
    assert (erasure.tombstone.complete, erasure.waits_for) == (False, "RECORDING_ELSEWHERE")
    assert local(folder) == {TOMBSTONE_NAME}
