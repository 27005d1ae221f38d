"""Where a live server's model legs leave from, and what a connection that cannot be opened is."""

from __future__ import annotations

import errno
import ipaddress
from pathlib import Path
from unittest import mock

import aiohttp
import pytest

from interview_peer.errors import OutOfDescriptors, UpstreamUnreachable
from interview_peer.media.addresses import address_towards
from interview_peer.model.openai_realtime import RealtimeConnector
from tests.support.inprocess import live, serving
from tests.web.offers import GOOD

ELSEWHERE = "192.0.2.99"
"""Documentation's (RFC 5737): never asked, only looked up in the routing table."""


@pytest.mark.parametrize("host", [ELSEWHERE, "[2001:db8::99]"])
async def test_model_legs_leave_the_machine_though_the_browser_port_does_not(
    tmp_path: Path, host: str
) -> None:
    async with serving(tmp_path, **live(f"http://{host}/v1")) as server:
        assert server.browser_port.address[0] == "127.0.0.1"
        bound = server.interviews._around.model_host()
        ways = {address_towards(ELSEWHERE), address_towards("2001:db8::99")} - {None}
        assert bound in ways if ways else bound == "127.0.0.1"
        assert not ways or not ipaddress.ip_address(bound).is_loopback


@pytest.mark.parametrize("base", ["http://127.0.0.1:9/v1", "http://localhost:9/v1"])
async def test_model_legs_stay_on_the_machine_with_the_service(tmp_path: Path, base: str) -> None:
    async with serving(tmp_path, **live(base), udp_host="0.0.0.0") as server:
        assert ipaddress.ip_address(server.interviews._around.model_host()).is_loopback


async def test_a_service_whose_name_is_unknown_does_not_keep_the_server_from_starting(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, **live("https://no-such-host.invalid/v1")) as server:
        assert ipaddress.ip_address(server.interviews._around.model_host())


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (errno.EMFILE, OutOfDescriptors),
        (errno.ENFILE, OutOfDescriptors),
        (errno.ECONNREFUSED, UpstreamUnreachable),
    ],
)
async def test_a_want_of_sockets_is_not_taken_for_a_fault_of_the_service(
    number: int, told: type[Exception]
) -> None:
    http = mock.Mock()
    failure = aiohttp.ClientConnectorError(mock.Mock(), OSError(number, "planted"))
    http.post.side_effect = failure
    connector = RealtimeConnector("http://127.0.0.1:9/v1", "sk-test-of-no-worth", http)
    with pytest.raises(told):
        await connector.create_call(GOOD, {})
