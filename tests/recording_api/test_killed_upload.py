"""A server that is killed while it uploads: the next one goes on, and nothing is lost."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from aiohttp import web

from interview_peer.storage.finished import MANIFEST_NAME, STORED_NAME
from interview_peer.storage.folder import InterviewFolder
from interview_peer.types import SessionId
from tests.support.server import ServerProcess, running_server
from tests.support.waiting import eventually

from .s3 import Network
from .test_keeping import held, listed, local

pytestmark = pytest.mark.timeout(240)


def settings(bucket: Network) -> dict[str, str]:
    return {
        "INTERVIEW_RECORDINGS_URL": f"s3://{bucket.bucket}/kept",
        "AWS_ENDPOINT_URL_S3": bucket.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test-secret",
    }


@pytest.mark.parametrize("puts", [1, 4, "manifest"])
async def test_an_upload_that_a_kill_cut_off_is_ended_by_the_next_start(
    model_folder: Path, tmp_path: Path, bucket: Network, puts: int | str
) -> None:
    folder = InterviewFolder(tmp_path / "data", SessionId("one"))
    shutil.copytree(model_folder, folder.path)
    files = listed(folder)
    expected = {file.name: file.sha256 for file in files}
    expected[MANIFEST_NAME] = hashlib.sha256((folder.path / MANIFEST_NAME).read_bytes()).hexdigest()
    doomed: list[ServerProcess] = []

    async def act(request: web.Request, body: bytes) -> bytes | None:
        if request.method != "PUT":
            return body
        is_manifest = request.path.endswith(MANIFEST_NAME)
        if is_manifest if puts == "manifest" else sum(bucket.puts.values()) == puts:
            # The bytes are on their way; whether they arrive, the server does not live to learn.
            await doomed[0].kill()
        return body

    bucket.act = act
    async with running_server(tmp_path, **settings(bucket)) as server:
        doomed.append(server)

        async def dead() -> bool:
            return server.killed

        await eventually(dead, within=60, what="the kill")
    left = {file.name: folder.path / file.name for file in files}
    store = bucket.store()
    there = await held(store)
    # Whatever is not whole in the store is still whole here.
    for name, path in left.items():
        here = path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest()
        assert expected[name] in (here, there.get(name)), name
    assert any(path.is_file() for path in left.values())

    bucket.act = None
    async with running_server(tmp_path, **settings(bucket)):

        async def moved() -> bool:
            return local(folder) == {MANIFEST_NAME, STORED_NAME}

        await eventually(moved, within=60, what="moved")
    assert await held(store) == expected
