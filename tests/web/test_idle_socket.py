"""A socket on which nothing is said outlives a minute, because it is pinged."""

from __future__ import annotations

import asyncio
import json
import subprocess

import pytest


@pytest.mark.timeout(120)
async def test_an_idle_socket_is_pinged_every_20_seconds_and_outlives_65(
    watcher: subprocess.Popen[str],
) -> None:
    out, error = await asyncio.to_thread(watcher.communicate, timeout=110)
    assert watcher.returncode == 0, error
    seen = json.loads(out)
    patient = seen["patient"]
    assert patient["closed_after"] is None
    assert [round(at / 20) for at in patient["pings"]] == [1, 2, 3]
    assert patient["said"]["type"] == "ice_status"

    # The other one shows that the pings are what keeps the first alive.
    deaf = seen["deaf"]
    assert len(deaf["pings"]) == 1
    assert 20 < deaf["closed_after"] < 40
