"""A live server does not start with TURN servers that no candidate could use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from interview_peer.core.turn import read_servers
from interview_peer.errors import ConfigurationError
from tests.support.coturn import relaying
from tests.support.inprocess import live, serving

SECRET = "a-secret-of-the-relays-0123"
HOST = "127.0.0.1"


async def test_a_live_start_needs_a_relay_that_answers_and_takes_the_credential(
    tmp_path: Path,
) -> None:
    def wanted(urls: str, secret: str = SECRET) -> dict[str, Any]:
        return live(f"http://{HOST}:9", ice_servers=read_servers(urls), turn_secret=secret)

    async with relaying(tmp_path / "coturn", SECRET, HOST) as relay:
        # One address that is away is warned of alone.
        async with serving(tmp_path / "a", **wanted(f"{relay.udp},turn:{HOST}:9?transport=tcp")):
            pass
        for urls, secret in (
            (f"turn:{HOST}:9?transport=tcp", SECRET),
            (f"{relay.udp},turn:no..name", SECRET),
            (relay.udp, "another-secret-0123"),
        ):
            with pytest.raises(ConfigurationError, match=r"^INTERVIEW_ICE_SERVERS names turn:"):
                async with serving(tmp_path / "b", **wanted(urls, secret)):
                    pass
    # A simulation asks nobody.
    simulated = wanted(f"turn:{HOST}:9") | {"simulation": True}
    async with serving(tmp_path / "c", **simulated):
        pass
