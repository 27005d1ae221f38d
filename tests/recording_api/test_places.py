"""Where a recording went stays where it is had from and erased from, whatever is configured."""

from __future__ import annotations

import asyncio
import json
import os
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from interview_peer.errors import RecordingElsewhere
from interview_peer.finishing.worker import Finisher
from interview_peer.storage.finished import (
    MANIFEST_NAME,
    STORED_NAME,
    TOMBSTONE_NAME,
    Tombstone,
    read_stored,
    read_tombstone,
)
from interview_peer.storage.folder import InterviewFolder
from interview_peer.storage.keeper import Keeper
from interview_peer.storage.shelf import Shelf
from interview_peer.storage.worker import StorageWorker
from interview_peer.types import SessionId
from tests.recording.folders import record
from tests.support.inprocess import serving
from tests.support.waiting import eventually

from .s3 import Network, never, out_of_order
from .test_keeping import held, keeping, local, until, whole
from .test_paths import Client, with_store

ONE = SessionId("one")


@pytest.fixture
async def moved(folder: InterviewFolder, bucket: Network) -> InterviewFolder:
    """A folder that moved to the prefix "old"."""
    async with keeping(folder, bucket.store("old")) as keeper:
        await until(keeper, "uploaded")
    return folder


def shelf_of(folder: InterviewFolder, bucket: Network, prefix: str | None = "new") -> Shelf:
    """What a server knows that was set up with another address, or with none, since."""
    store = None if prefix is None else bucket.store(prefix)
    return Shelf(folder.path.parents[1], store, bucket.reopen)


@pytest.mark.parametrize("prefix", ["new", None])
async def test_a_moved_recording_is_had_from_where_it_went(
    moved: InterviewFolder, bucket: Network, model_folder: Path, prefix: str | None
) -> None:
    shelf = shelf_of(moved, bucket, prefix)
    assert await whole(shelf, "mixed.webm") == (model_folder / "mixed.webm").read_bytes()
    found = await shelf.find("one")
    assert found is not None and found.in_store
    file = found.finished.file("mixed.webm")
    assert file is not None
    url = await shelf.url_for("one", found, file, 60)
    assert url is not None and "/old/one/mixed.webm?" in url


@pytest.mark.parametrize("prefix", ["new", None])
async def test_erasing_reaches_the_store_that_a_recording_went_to(
    moved: InterviewFolder, bucket: Network, prefix: str | None
) -> None:
    keeper = Keeper(shelf_of(moved, bucket, prefix))
    erasure = await keeper.erase(ONE)
    assert erasure.tombstone.complete and erasure.waits_for is None
    assert set(await held(bucket.store("old"))) == {TOMBSTONE_NAME}
    assert local(moved) == {TOMBSTONE_NAME}


async def test_a_store_out_of_reach_keeps_the_erasure_pending_and_says_which_it_is(
    moved: InterviewFolder, bucket: Network
) -> None:
    bucket.act = out_of_order
    shelf = shelf_of(moved, bucket, None)
    with pytest.raises(RecordingElsewhere):
        await whole(shelf, "mixed.webm")
    keeper = Keeper(shelf, retry_seconds=(0.05,))
    keeper.start()
    try:
        erasure = await keeper.erase(ONE)
        assert (erasure.tombstone.complete, erasure.waits_for) == (False, "RECORDING_ELSEWHERE")
        assert local(moved) == {TOMBSTONE_NAME}
        await until(keeper, "retries", 3)
        bucket.act = None

        async def buried() -> Tombstone | None:
            return await asyncio.to_thread(read_tombstone, moved)

        await eventually(
            buried, within=20, what="it is erased", good=lambda one: bool(one and one.complete)
        )
    finally:
        await keeper.close()
    assert set(await held(bucket.store("old"))) == {TOMBSTONE_NAME}


async def test_an_address_that_cannot_be_opened_any_more_is_told_and_not_forgotten(
    moved: InterviewFolder, tmp_path: Path
) -> None:
    mark = moved.path / STORED_NAME
    mark.write_text(json.dumps({**json.loads(mark.read_bytes()), "url": "none://bucket"}))
    shelf = Shelf(tmp_path, None)
    with pytest.raises(RecordingElsewhere):
        await whole(shelf, "mixed.webm")
    keeper = Keeper(shelf)
    for _ in range(2):
        erasure = await keeper.erase(ONE)
        assert (erasure.tombstone.complete, erasure.waits_for) == (False, "RECORDING_ELSEWHERE")
    stone = read_tombstone(moved)
    assert stone is not None
    assert [place.url for place in stone.places] == ["none://bucket"]


async def test_what_an_interrupted_upload_left_elsewhere_is_erased_too(
    folder: InterviewFolder, bucket: Network
) -> None:
    async with keeping(folder, bucket.store("old")) as keeper:
        bucket.act = never

        async def hanging() -> int:
            return sum(bucket.puts.values())

        await eventually(hanging, within=20, what="an upload begins")
    bucket.act = None
    await bucket.store("old").put_bytes(b"a voice", "one/candidate.ogg", "audio/ogg")
    keeper = Keeper(shelf_of(folder, bucket))
    await keeper._move(ONE)
    stored = read_stored(folder)
    assert stored is not None and stored.tags is not None
    assert [place.url.rpartition("/")[2] for place in stored.places] == ["new", "old"]
    assert (await keeper.erase(ONE)).tombstone.complete
    for prefix in ("old", "new"):
        assert set(await held(bucket.store(prefix))) == {TOMBSTONE_NAME}


async def test_a_server_says_that_a_recording_is_out_of_its_reach(
    moved: InterviewFolder, bucket: Network, tmp_path: Path
) -> None:
    mark = moved.path / STORED_NAME
    mark.write_text(json.dumps({**json.loads(mark.read_bytes()), "endpoint": "http://127.0.0.1:9"}))
    async with (
        serving(tmp_path, **with_store(bucket)) as server,
        aiohttp.ClientSession() as http,
    ):
        client = Client(server.url, http)
        listing = (await client.ask("/api/interviews/one/recording")).json
        assert (listing["state"], listing["kept"]) == ("ready", "store")
        assert listing["code"] == "RECORDING_ELSEWHERE"
        answer = await client.ask("/api/interviews/one/recording/mixed")
        assert (answer.status, answer.code) == (503, "RECORDING_ELSEWHERE")
        erased = await client.ask("/api/interviews/one", "DELETE")
        assert (erased.status, erased.json["waits_for"]) == (202, "RECORDING_ELSEWHERE")
    # The other copies are where they were; nobody was told that they are gone.
    assert MANIFEST_NAME in await held(bucket.store("old"))


async def test_a_presigned_address_names_the_file_and_its_type(
    moved: InterviewFolder, bucket: Network
) -> None:
    shelf = shelf_of(moved, bucket)
    found = await shelf.find("one")
    assert found is not None
    async with aiohttp.ClientSession() as http:
        for file in found.finished.files:
            url = await shelf.url_for("one", found, file, 60)
            assert url is not None
            async with http.get(url) as answer:
                assert answer.headers["Content-Type"] == file.content_type
                expected = f'attachment; filename="one-{file.name}"'
                assert answer.headers["Content-Disposition"] == expected


# -- who else works on the folder


async def test_an_erasure_that_is_taken_up_again_waits_for_whoever_holds_the_folder(
    folder: InterviewFolder, tmp_path: Path
) -> None:
    folder.write_json(TOMBSTONE_NAME, {"erased_at": "2026-01-02T00:00:00Z", "complete": False})
    before = local(folder)
    claim = folder.hold()
    assert claim is not None
    keeper = Keeper(Shelf(tmp_path, None), retry_seconds=(0.05,), held_seconds=0.1)
    keeper.start()
    try:
        await until(keeper, "retries", 2)
        assert local(folder) == before
        os.close(claim)

        async def names() -> set[str]:
            return await asyncio.to_thread(local, folder)

        await eventually(
            names, within=10, what="it goes on", good=lambda left: left == {TOMBSTONE_NAME}
        )
    finally:
        await keeper.close()


async def test_nothing_is_uploaded_from_a_folder_that_somebody_holds(
    folder: InterviewFolder, bucket: Network
) -> None:
    claim = folder.hold()
    assert claim is not None
    async with keeping(folder, bucket.store()) as keeper:
        await until(keeper, "retries", 2)
        assert sum(bucket.puts.values()) == 0
        os.close(claim)
        await until(keeper, "uploaded")


async def test_erasing_by_age_ends_the_finishing_of_that_folder(tmp_path: Path) -> None:
    folder = record(tmp_path, "one", close=False)
    for path in [*folder.path.iterdir(), folder.path]:
        os.utime(path, (0, 0))
    storage = StorageWorker()
    storage.start()
    finisher = Finisher(tmp_path, storage)
    await finisher.start()
    try:

        async def state() -> str:
            return str((finisher.state(ONE) or {}).get("state"))

        await eventually(state, within=60, what="it runs", good=lambda one: one == "running")
        keeper = Keeper(
            Shelf(tmp_path, None),
            retention=timedelta(days=1),
            drop=finisher.drop,
            held_seconds=0.1,
        )
        await keeper.look()
        assert keeper.erased == 1
        assert finisher.state(ONE) is None
    finally:
        await finisher.close()
        await storage.close()
    assert local(folder) == {TOMBSTONE_NAME}
    assert finisher.failures == 0
