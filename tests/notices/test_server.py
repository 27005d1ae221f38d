"""A whole server tells a receiver what happens, and the next one what this one could not."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest
from standardwebhooks import Webhook

from tests.support.server import running_server
from tests.support.waiting import eventually

from .office import SECRET
from .receiver import Receiver, ok, status


@pytest.mark.timeout(120)
async def test_notices_of_a_server_arrive_and_outlive_it(
    tmp_path: Path, receiver: Receiver
) -> None:
    settings = {
        "INTERVIEW_WEBHOOK_URL": receiver.url,
        "INTERVIEW_WEBHOOK_SECRET": SECRET,
        "INTERVIEW_WEBHOOK_ALLOW": "127.0.0.0/8",
    }
    async with (
        running_server(tmp_path, **settings) as server,
        aiohttp.ClientSession() as http,
    ):
        async with http.post(f"{server.url}/api/interviews", json={}) as answer:
            assert answer.status == 201, await answer.text()
            interview = (await answer.json())["id"]
        await receiver.has(1)
        receiver.answer = status(503, **{"Retry-After": "1"})
        async with http.delete(f"{server.url}/api/interviews/{interview}") as answer:
            assert answer.status in (200, 202, 204), await answer.text()
        await receiver.has(2)
    receiver.answer = ok
    told: set[str] = set()

    async def look() -> set[str]:
        told.update(got.notice["type"] for got in receiver.got if got.order >= refused)
        return told

    refused = len(receiver.got)
    async with running_server(tmp_path, **settings):
        # Tried again five seconds after the first failure, by the next server.
        await eventually(
            look,
            within=40,
            what="the last notice again",
            good=lambda types: "interview.deleted" in types,
        )
    assert "interview.created" in {got.notice["type"] for got in receiver.got[:refused]}
    for got in receiver.got:
        assert got.interview == interview
        Webhook(SECRET).verify(got.body, got.headers)
