"""Recordings over HTTP: what there is, ranges, who may ask, damage, erasing."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import aiohttp
import pytest
import yarl
from aiohttp import web

from interview_peer.storage import shelf
from interview_peer.storage.finished import TOMBSTONE_NAME
from interview_peer.storage.folder import InterviewFolder
from interview_peer.types import Json, SessionId
from tests.recording.folders import record
from tests.support.caller import calling
from tests.support.inprocess import serving
from tests.support.waiting import eventually

from .s3 import Network, out_of_order
from .test_keeping import large_folder

ONE = "/api/interviews/one"
KEY = "operator-key-of-no-worth"


@dataclass(frozen=True)
class Answer:
    """One HTTP answer with its bytes."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Json:
        value: Json = json.loads(self.body)
        return value

    @property
    def code(self) -> str:
        return str(self.json["error"]["code"])


class Client:
    """Asks one server."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self._url = url
        self._http = http

    async def ask(self, path: str, method: str = "GET", **headers: str) -> Answer:
        url = yarl.URL(self._url + path, encoded=True)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._http.request(method, url, headers=named) as answer:
            return Answer(answer.status, answer.headers.copy(), await answer.read())


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(force_close=True)
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        yield session


@pytest.fixture
async def client(
    folder: InterviewFolder, tmp_path: Path, http: aiohttp.ClientSession
) -> AsyncIterator[Client]:
    """A client of a server with one finished interview."""
    async with serving(tmp_path) as server:
        yield Client(server.url, http)


def with_store(bucket: Network) -> dict[str, Any]:
    return {
        "recordings_url": f"s3://{bucket.bucket}/kept",
        "s3_endpoint": bucket.url,
        "s3_access_key": "test",
        "s3_secret_key": "test-secret",
    }


async def until_state(client: Client, path: str, **wanted: str) -> Json:
    async def look() -> Json:
        answer = await client.ask(path)
        return answer.json if answer.status == 200 else {}

    return await eventually(
        look,
        within=40,
        what=str(wanted),
        good=lambda body: all(body.get(name) == value for name, value in wanted.items()),
    )


# -- what there is


async def test_the_listing_agrees_with_the_manifest_and_the_files(
    client: Client, folder: InterviewFolder
) -> None:
    answer = await client.ask(f"{ONE}/recording")
    assert answer.status == 200
    body = answer.json
    assert (body["state"], body["kept"], body["complete"]) == ("ready", "disk", True)
    assert body["started_at"] == "2026-01-01T12:00:00.000Z"
    assert body["seconds"] == pytest.approx(8.0, abs=0.02)
    files = {one["name"]: one for one in body["files"]}
    assert set(files) == {path.name for path in folder.path.iterdir()} - {"manifest.json"}
    for name, one in files.items():
        data = (folder.path / name).read_bytes()
        assert (one["bytes"], one["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        assert one["url"] is None
        sounds = name.endswith((".ogg", ".webm"))
        assert one["seconds"] == (pytest.approx(8.0, abs=0.02) if sounds else None)
        if one["path"] is not None:
            assert (await client.ask(one["path"])).body == data
    assert {name for name, one in files.items() if one["path"] is None} == {"events.jsonl"}


@pytest.mark.parametrize(
    ("which", "name", "kind"),
    [
        ("candidate", "candidate.ogg", "audio/ogg; codecs=opus"),
        ("interviewer", "interviewer.ogg", "audio/ogg; codecs=opus"),
        ("mixed", "mixed.webm", "audio/webm; codecs=opus"),
    ],
)
async def test_a_sound_comes_whole_with_its_type(
    client: Client, folder: InterviewFolder, which: str, name: str, kind: str
) -> None:
    data = (folder.path / name).read_bytes()
    answer = await client.ask(f"{ONE}/recording/{which}")
    assert (answer.status, answer.body) == (200, data)
    assert answer.headers["Content-Type"] == kind
    assert answer.headers["Content-Length"] == str(len(data))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["ETag"] == f'"{hashlib.sha256(data).hexdigest()}"'
    assert answer.headers["Content-Disposition"] == f'attachment; filename="one-{name}"'
    assert "no-store" in answer.headers["Cache-Control"]
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    head = await client.ask(f"{ONE}/recording/{which}", "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == str(len(data))


# -- ranges


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("bytes=0-99", 0, 100), ("bytes=1000-", 1000, None), ("bytes=-7", -7, None)],
)
async def test_a_part_is_given(
    client: Client, folder: InterviewFolder, asked: str, start: int, stop: int | None
) -> None:
    data = (folder.path / "mixed.webm").read_bytes()
    answer = await client.ask(f"{ONE}/recording/mixed", Range=asked)
    assert (answer.status, answer.body) == (206, data[start:stop])
    first = start % len(data)
    last = first + len(answer.body) - 1
    assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{len(data)}"
    assert answer.headers["Content-Length"] == str(len(answer.body))


async def test_a_range_outside_of_the_file_is_416(client: Client, folder: InterviewFolder) -> None:
    size = (folder.path / "mixed.webm").stat().st_size
    answer = await client.ask(f"{ONE}/recording/mixed", Range=f"bytes={size}-")
    assert (answer.status, answer.code) == (416, "RANGE_NOT_SATISFIABLE")
    assert answer.headers["Content-Range"] == f"bytes */{size}"


async def test_a_part_of_another_file_than_the_caller_has_is_not_given(client: Client) -> None:
    path = f"{ONE}/recording/mixed"
    tag = (await client.ask(path, "HEAD")).headers["ETag"]
    assert (await client.ask(path, Range="bytes=0-9", If_Range=tag)).status == 206
    assert (await client.ask(path, Range="bytes=0-9", If_Range='"other"')).status == 200
    unchanged = await client.ask(path, If_None_Match=f'"other", {tag}')
    assert (unchanged.status, unchanged.body) == (304, b"")


# -- who may ask


async def test_every_path_asks_for_the_operators_key(
    folder: InterviewFolder, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with serving(tmp_path, admin_key=KEY) as server:
        client = Client(server.url, http)
        for method, path in (
            ("GET", f"{ONE}/recording"),
            ("GET", f"{ONE}/recording/mixed"),
            ("GET", f"{ONE}/waveform"),
            ("GET", f"{ONE}/transcript"),
            ("DELETE", ONE),
        ):
            for headers in ({}, {"Authorization": "Bearer wrong"}):
                answer = await client.ask(path, method, **headers)
                assert (answer.status, answer.code) == (401, "UNAUTHORIZED"), path
        right = await client.ask(f"{ONE}/recording/mixed", Authorization=f"Bearer {KEY}")
        assert right.status == 200
        # The page itself holds nothing, and asks for the key.
        assert (await client.ask("/static/review.html")).status == 200


# -- what bad input gets


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/api/interviews/nobody/recording", 404, "SESSION_NOT_FOUND"),
        ("/api/interviews/nobody/recording/mixed", 404, "SESSION_NOT_FOUND"),
        (f"{ONE}/recording/events.jsonl", 404, "NOT_FOUND"),
        (f"{ONE}/recording/mixed.webm", 404, "NOT_FOUND"),
        (f"{ONE}/recording/..%2fmanifest.json", 404, "NOT_FOUND"),
        (f"{ONE}/recording/%2e%2e%2f%2e%2e%2fsecret", 404, "NOT_FOUND"),
        ("/api/interviews/..%2f..%2fsecret/recording", 400, "INVALID_SESSION_ID"),
        ("/api/interviews/%2e%2e/recording/mixed", 400, "INVALID_SESSION_ID"),
        ("/api/interviews/one%00/recording", 400, "INVALID_SESSION_ID"),
        ("/api/interviews/one%0a/recording/mixed", 400, "INVALID_SESSION_ID"),
        (f"/api/interviews/{'a' * 65}/recording", 400, "INVALID_SESSION_ID"),
        ("/api/interviews/%2fetc%2fpasswd/waveform", 400, "INVALID_SESSION_ID"),
    ],
)
async def test_unknown_names_and_path_tricks_are_refused(
    client: Client, path: str, status: int, code: str
) -> None:
    answer = await client.ask(path)
    assert (answer.status, answer.code) == (status, code)
    deleted = await client.ask(path.removesuffix("/recording"), "DELETE")
    assert deleted.status in (400, 404, 405)


@pytest.mark.parametrize("query", ["end=yes", "now=1", "end=true&x=1"])
async def test_an_erasure_with_strange_wishes_is_refused(
    client: Client, folder: InterviewFolder, query: str
) -> None:
    answer = await client.ask(f"{ONE}?{query}", "DELETE")
    assert (answer.status, answer.code) == (400, "INVALID_MESSAGE")
    assert (folder.path / "candidate.ogg").exists()


# -- damage


async def test_a_damaged_file_is_not_served(client: Client, folder: InterviewFolder) -> None:
    path = folder.path / "candidate.ogg"
    good = path.read_bytes()
    assert (await client.ask(f"{ONE}/recording/candidate")).status == 200
    # One bit, in the middle, after it was once found to be right.
    middle = len(good) // 2
    path.write_bytes(good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :])
    for headers in ({}, {"Range": "bytes=0-9"}):
        answer = await client.ask(f"{ONE}/recording/candidate", **headers)
        assert (answer.status, answer.code) == (500, "RECORDING_DAMAGED")
    assert (await client.ask(f"{ONE}/recording/mixed")).status == 200
    path.unlink()
    assert (await client.ask(f"{ONE}/recording/candidate")).code == "RECORDING_DAMAGED"
    path.write_bytes(good)
    assert (await client.ask(f"{ONE}/recording/candidate")).body == good


async def test_the_list_names_what_is_wrong_with_each_file(
    client: Client, folder: InterviewFolder
) -> None:
    async def damage() -> dict[str, list[str]]:
        files = (await client.ask(f"{ONE}/recording")).json["files"]
        return {one["name"]: one["damage"] for one in files if one["damage"]}

    assert await damage() == {}
    (folder.path / "candidate.ogg").write_bytes(b"something else")
    (folder.path / "mixed.webm").unlink()
    (folder.path / "waveform.json").unlink()
    (folder.path / "waveform.json").mkdir()
    assert await damage() == {
        "candidate.ogg": ["changed"],
        "mixed.webm": ["missing"],
        "waveform.json": ["unreadable"],
    }


async def test_a_file_that_was_damaged_before_is_had_only_by_who_asks_for_what_is_left(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    folder = record(tmp_path, "one")
    path = folder.path / "candidate.ogg"
    data = bytearray(path.read_bytes())
    data[9_000] ^= 0xFF
    path.write_bytes(data)
    async with serving(tmp_path) as server:
        client = Client(server.url, http)
        listing = await until_state(client, f"{ONE}/recording", state="ready")
        damage = {one["name"]: one["damage"] for one in listing["files"]}
        assert damage.pop("candidate.ogg") == ["torn_page", "missing_page"]
        assert not any(damage.values())
        assert listing["complete"] is False
        for query in ("", "?damaged=false"):
            refused = await client.ask(f"{ONE}/recording/candidate{query}")
            assert (refused.status, refused.code) == (500, "RECORDING_DAMAGED")
            assert "torn_page" in refused.json["error"]["message"]
        given = await client.ask(f"{ONE}/recording/candidate?damaged=true")
        assert (given.status, given.body) == (200, bytes(data))
        assert given.headers["X-Recording-Damage"] == "torn_page, missing_page"
        assert (await client.ask(f"{ONE}/recording/mixed")).status == 200
        strange = await client.ask(f"{ONE}/recording/candidate?damaged=1")
        assert (strange.status, strange.code) == (400, "INVALID_MESSAGE")
        # What has changed since is handed out to nobody.
        path.write_bytes(data + b"more")
        changed = await client.ask(f"{ONE}/recording/candidate?damaged=true")
        assert (changed.status, changed.code) == (500, "RECORDING_DAMAGED")


async def test_the_list_names_what_is_wrong_in_the_store(
    tmp_path: Path, http: aiohttp.ClientSession, bucket: Network, folder: InterviewFolder
) -> None:
    async with serving(tmp_path, **with_store(bucket)) as server:
        client = Client(server.url, http)
        listing = await until_state(client, f"{ONE}/recording", state="ready", kept="store")
        assert not any(one["damage"] for one in listing["files"])
        store = bucket.store()
        size = next(one["bytes"] for one in listing["files"] if one["name"] == "mixed.webm")
        await store.put_bytes(bytes(size), "one/mixed.webm", "audio/webm")
        await store.delete(["one/waveform.json"])

        async def wrong() -> dict[str, list[str]]:
            files = (await client.ask(f"{ONE}/recording")).json["files"]
            return {one["name"]: one["damage"] for one in files if one["damage"]}

        await eventually(
            wrong,
            within=10,
            what="the damage",
            good=lambda seen: seen == {"mixed.webm": ["changed"], "waveform.json": ["missing"]},
        )
        files = (await client.ask(f"{ONE}/recording")).json["files"]
        assert {one["name"] for one in files if one["url"] is None} == {
            "mixed.webm",
            "waveform.json",
        }
        bucket.act = out_of_order
        listing = (await client.ask(f"{ONE}/recording")).json
        assert (listing["state"], listing["code"]) == ("ready", "STORE_UNAVAILABLE")


async def test_an_unreadable_manifest_is_told_as_damage_and_can_be_erased(
    client: Client, folder: InterviewFolder
) -> None:
    for text in (b"{", b"[]", b'{"seconds": 1, "files": [{"name": "../x"}]}'):
        (folder.path / "manifest.json").write_bytes(text)
        listing = (await client.ask(f"{ONE}/recording")).json
        assert (listing["state"], listing["code"]) == ("damaged", "MANIFEST_DAMAGED")
        assert listing["files"] == [] and listing["message"]
        answer = await client.ask(f"{ONE}/recording/mixed")
        assert (answer.status, answer.code) == (500, "MANIFEST_DAMAGED")
    assert (await client.ask(ONE, "DELETE")).status == 200


async def test_an_interview_whose_manifest_is_damaged_does_not_read_as_finished(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        await caller.send({"type": "end_session"})
        await caller.message("session_ended")
        path = f"/api/interviews/{caller.session_id}"

        async def finishing() -> Json:
            return (await caller.get(path)).json()["finishing"] or {}

        await eventually(
            finishing, within=60, what="done", good=lambda one: one.get("state") == "done"
        )
        folder = tmp_path / "interviews" / caller.session_id
        (folder / "manifest.json").write_text("{")
        assert await finishing() == {
            "state": "failed",
            "progress": 1.0,
            "reason": "MANIFEST_DAMAGED",
        }


async def test_a_folder_without_a_recording_says_so_once_it_is_no_longer_new(
    client: Client, tmp_path: Path
) -> None:
    empty = InterviewFolder(tmp_path, SessionId("empty"))
    empty.create()
    path = "/api/interviews/empty/recording"
    assert (await client.ask(path)).json["state"] == "finishing"
    assert (await client.ask(f"{path}/mixed")).code == "RECORDING_NOT_READY"
    os.utime(empty.path, (0, 0))
    listing = (await client.ask(path)).json
    assert (listing["state"], listing["code"]) == ("failed", "RECORDING_MISSING")
    answer = await client.ask(f"{path}/mixed")
    assert (answer.status, answer.code) == (404, "RECORDING_MISSING")


async def test_a_recording_that_cannot_be_finished_says_so(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    folder = record(tmp_path, "one", until=1.0)
    (folder.path / "mixed.webm").mkdir()
    async with serving(tmp_path) as server:
        client = Client(server.url, http)
        listing = await until_state(client, f"{ONE}/recording", state="failed")
        assert listing["code"] == "RECORDING_FAILED"
        assert listing["finishing"]["reason"] == "EISDIR"
        answer = await client.ask(f"{ONE}/recording/mixed")
        assert (answer.status, answer.code) == (503, "RECORDING_FAILED")


# -- while it runs, and after


async def test_a_running_interview_says_so_and_can_be_ended_and_erased(
    tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    async with serving(tmp_path) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        client, path = Client(server.url, http), f"/api/interviews/{caller.session_id}"
        listing = await client.ask(f"{path}/recording")
        assert (listing.status, listing.json["state"]) == (200, "running")
        for which in ("recording/mixed", "recording/candidate", "waveform"):
            answer = await client.ask(f"{path}/{which}")
            assert (answer.status, answer.code) == (409, "INTERVIEW_RUNNING")
        refused = await client.ask(path, "DELETE")
        assert (refused.status, refused.code) == (409, "INTERVIEW_RUNNING")
        assert await caller.known_phase() == "live"

        erased = await client.ask(f"{path}?end=true", "DELETE")
        assert (erased.status, erased.json["complete"]) == (200, True)
        ended = await caller.message("session_ended")
        assert ended["reason"] == "operator_request"
        folder = tmp_path / "interviews" / caller.session_id
        assert [one.name for one in folder.iterdir()] == [TOMBSTONE_NAME]
        # Nothing of it is remembered, and the id stays taken.
        assert await caller.known_phase() == "unknown"
        again = await client.ask(f"{path}/recording")
        assert (again.status, again.code) == (410, "RECORDING_ERASED")
        assert (await client.ask(f"{path}/transcript")).code == "RECORDING_ERASED"
        offer = {"sdpOffer": await caller.offer(), "sessionId": caller.session_id}
        assert (await caller.post("/api/sdp-exchange", json=offer)).json()["code"] == (
            "SESSION_ID_TAKEN"
        )


@pytest.mark.parametrize("moment", ["waiting", "running"])
async def test_erasing_does_not_wait_for_the_finishing(
    tmp_path: Path, http: aiohttp.ClientSession, moment: str
) -> None:
    for name in ("first", "second"):
        record(tmp_path, name)
    async with serving(tmp_path) as server:
        client = Client(server.url, http)

        async def state() -> tuple[str, str]:
            known = [server.finishing.state(SessionId(name)) for name in ("first", "second")]
            return known[0]["state"] if known[0] else "", known[1]["state"] if known[1] else ""

        await eventually(
            state, within=20, what="one runs", good=lambda both: both == ("running", "waiting")
        )
        name = {"waiting": "second", "running": "first"}[moment]
        listing = await client.ask(f"/api/interviews/{name}/recording")
        assert (listing.json["state"], listing.json["finishing"]["state"]) == ("finishing", moment)
        refused = await client.ask(f"/api/interviews/{name}/recording/mixed")
        assert (refused.status, refused.code) == (409, "RECORDING_NOT_READY")
        erased = await client.ask(f"/api/interviews/{name}", "DELETE")
        assert (erased.status, erased.json["complete"]) == (200, True)
        assert server.finishing.state(SessionId(name)) is None
        # The other one is finished all the same.
        other = {"first": "second", "second": "first"}[name]
        await until_state(client, f"/api/interviews/{other}/recording", state="ready")
        assert server.finishing.failures == 0
    folder = tmp_path / "interviews" / name
    assert [one.name for one in folder.iterdir()] == [TOMBSTONE_NAME]


async def test_erasing_leaves_a_tombstone_and_can_be_asked_again(
    client: Client, folder: InterviewFolder
) -> None:
    first = await client.ask(ONE, "DELETE")
    assert first.status == 200
    assert first.json["id"] == "one" and first.json["complete"]
    assert [path.name for path in folder.path.iterdir()] == [TOMBSTONE_NAME]
    for path in ("recording", "recording/mixed", "waveform", "transcript"):
        answer = await client.ask(f"{ONE}/{path}")
        assert (answer.status, answer.code) == (410, "RECORDING_ERASED")
    assert "candidate.ogg" in first.json["files"]
    assert (await client.ask(ONE)).code == "SESSION_NOT_FOUND"
    assert (await client.ask(ONE, "DELETE")).json == {**first.json, "files": []}


async def test_a_whole_interview_ends_up_in_the_store_and_is_served_from_there(
    tmp_path: Path, http: aiohttp.ClientSession, bucket: Network
) -> None:
    async with serving(tmp_path, **with_store(bucket)) as server, calling(server.url) as caller:
        await caller.open()
        await caller.connect()
        await caller.sound(50)
        client, path = Client(server.url, http), f"/api/interviews/{caller.session_id}"
        await caller.send({"type": "end_session"})
        await caller.message("session_ended")
        body = await until_state(client, f"{path}/recording", state="ready", kept="store")
        here = tmp_path / "interviews" / caller.session_id

        async def local() -> set[str]:
            return await asyncio.to_thread(lambda: {one.name for one in here.iterdir()})

        # Local files go after the mark that the store has them.
        await eventually(
            local,
            within=10,
            what="nothing but the manifest",
            good=lambda names: names == {"manifest.json", ".stored.json"},
        )
        for one in body["files"]:
            async with http.get(one["url"]) as signed:
                data = await signed.read()
                assert signed.status == 200
                assert signed.headers["Content-Type"] == one["content_type"]
            assert hashlib.sha256(data).hexdigest() == one["sha256"]
            assert "X-Amz-Expires=300" in one["url"]
            if one["path"] is not None:
                assert (await client.ask(one["path"])).body == data
        part = await client.ask(f"{path}/recording/mixed", Range="bytes=100-199")
        assert (part.status, len(part.body)) == (206, 100)
        transcript = (await client.ask(f"{path}/transcript")).json
        assert transcript["session_id"] == caller.session_id

        bucket.act = out_of_order
        away = await client.ask(f"{path}/recording/mixed")
        assert (away.status, away.code) == (503, "STORE_UNAVAILABLE")
        pending = await client.ask(path, "DELETE")
        assert (pending.status, pending.json["complete"]) == (202, False)
        bucket.act = None
        assert (await client.ask(path, "DELETE")).status == 200
        assert [one.key.rpartition("/")[2] for one in await bucket.store().under()] == [
            TOMBSTONE_NAME
        ]


async def test_a_file_that_cannot_be_read_is_refused_before_anything_of_it_is_sent(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = f"{ONE}/recording/candidate"
    whole = (await client.ask(path)).body

    def gone(path: Path, start: int) -> BinaryIO:
        raise FileNotFoundError(errno.ENOENT, "moved to the store")

    with monkeypatch.context() as patched:
        patched.setattr(shelf, "_open_at", gone)
        answer = await client.ask(path)
        assert (answer.status, answer.code) == (503, "STORE_UNAVAILABLE")
        assert "Content-Disposition" not in answer.headers
    assert (await client.ask(path)).body == whole


async def test_a_file_that_breaks_off_in_the_store_does_not_look_whole(
    tmp_path: Path, http: aiohttp.ClientSession, bucket: Network
) -> None:
    folder, data = large_folder(tmp_path, 3_000_000)
    async with serving(tmp_path, **with_store(bucket)) as server:
        client, path = Client(server.url, http), f"{ONE}/recording/candidate"
        await until_state(client, f"{ONE}/recording", state="ready", kept="store")

        async def is_here() -> bool:
            return (folder.path / "candidate.ogg").exists()

        # It counts as in the store a moment before it goes here.
        await eventually(is_here, within=10, what="no local file", good=lambda here: not here)
        assert (await client.ask(path)).body == data

        async def fail_later(request: web.Request, body: bytes) -> bytes | web.Response:
            asked = request.headers.get("Range", "bytes=0-")
            return body if asked.startswith("bytes=0-") else web.Response(status=403)

        async def fail_reads(request: web.Request, body: bytes) -> bytes | web.Response:
            return web.Response(status=403) if "Range" in request.headers else body

        bucket.act = fail_reads
        none = await client.ask(path)
        assert (none.status, none.code) == (503, "STORE_UNAVAILABLE")
        bucket.act = fail_later
        # On a connection that is kept: only breaking it tells the caller that no more will come.
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as kept:
            with pytest.raises(aiohttp.ClientPayloadError):
                await Client(server.url, kept).ask(path)
        bucket.act = None
        assert (await client.ask(path, Range="bytes=2999990-")).body == data[-10:]


async def test_what_only_the_store_has_of_a_broken_off_upload_can_be_erased(
    bucket: Network, tmp_path: Path, http: aiohttp.ClientSession
) -> None:
    store = bucket.store()
    await store.put_bytes(b"a voice", "half/candidate.ogg", "audio/ogg")
    await store.put_bytes(b"a cat", "photos/cat.jpg", "image/jpeg")
    async with serving(tmp_path, **with_store(bucket)) as server:
        client = Client(server.url, http)
        gone = await client.ask("/api/interviews/half", "DELETE")
        assert (gone.status, gone.json["complete"]) == (200, True)
        assert (await client.ask("/api/interviews/photos", "DELETE")).status == 404
        assert (await client.ask("/api/interviews/half/recording")).status == 410
    assert {one.key for one in await store.under()} == {f"half/{TOMBSTONE_NAME}", "photos/cat.jpg"}
