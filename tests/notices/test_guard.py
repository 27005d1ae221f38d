"""Which addresses notices can reach, whatever a URL, a name or a redirect says."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections import Counter
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from interview_peer.errors import InvalidWebhookUrl
from interview_peer.notices.guard import AddressRefused, Guard, networks
from interview_peer.notices.sender import MAX_ANSWER_BYTES, Attempt, Sender
from interview_peer.state.schema import now_us

from .office import LOOPBACK, SECRET
from .receiver import Got, Receiver, status

PUBLIC = ["93.184.216.34", "1.1.1.1", "2606:4700:4700::1111", "::ffff:93.184.216.34"]
REFUSED = {
    "loopback": ["127.0.0.1", "127.8.9.10", "::1"],
    "unspecified": ["0.0.0.0", "0.1.2.3", "::"],
    "private": ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "fd00::1", "fdaa::3"],
    "link-local": ["169.254.0.1", "fe80::1", "fe80::1%eth0"],
    "metadata": ["169.254.169.254", "fd00:ec2::254", "168.63.129.16", "100.100.100.200"],
    "carrier": ["100.64.0.1", "100.127.255.255"],
    "mapped": ["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe"],
    "compatible": ["::127.0.0.1", "::a9fe:a9fe"],
    "translated": ["64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "::ffff:0:7f00:1"],
    "6to4": ["2002:7f00:1::", "2002:a9fe:a9fe::1", "192.88.99.1"],
    "teredo": ["2001:0:4136:e378::1"],
    "multicast": ["224.0.0.1", "239.1.2.3", "ff02::1"],
    "broadcast": ["255.255.255.255"],
    "reserved": ["240.0.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1", "203.0.113.1"],
    "documentation": ["2001:db8::1"],
    "site-local": ["fec0::1"],
    "no address": ["localhost", "", "1.2.3", "0x7f.1", "2130706433"],
}


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_are_permitted(address: str) -> None:
    assert Guard().permits(address, 443)
    assert Guard().permits(address, 8443)


@pytest.mark.parametrize("address", [one for group in REFUSED.values() for one in group])
def test_other_addresses_are_refused(address: str) -> None:
    assert not Guard().permits(address, 443)


@pytest.mark.parametrize("port", [0, 22, 25, 80, 5432, 6379])
def test_public_addresses_are_permitted_on_web_ports_alone(port: int) -> None:
    assert not Guard().permits(PUBLIC[0], port)


def test_public_addresses_need_tls() -> None:
    assert not Guard().permits(PUBLIC[0], 443, secure=False)


def test_a_network_can_be_allowed_on_any_port_and_without_tls() -> None:
    guard = Guard(networks(["10.1.0.0/16", "fd12::/16", "192.168.7.7"]))
    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd12::5", "192.168.7.7"):
        assert guard.permits(address, 9000, secure=False)
    for address in ("10.2.0.1", "fd13::1", "192.168.7.8", "127.0.0.1"):
        assert not guard.permits(address, 443)


def test_what_is_not_a_network_cannot_be_allowed() -> None:
    with pytest.raises(ValueError, match="host bits"):
        networks(["10.1.2.3/8"])


def test_a_socket_is_made_for_a_permitted_address_alone() -> None:
    guard = Guard(LOOPBACK)
    stream = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    with guard.make_socket((*stream, ("127.0.0.1", 80)), secure=False) as made:
        assert made.getblocking() is False
    with pytest.raises(AddressRefused):
        guard.make_socket((*stream, ("10.0.0.1", 80)), secure=True)


# -- URLs


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/hook",
        "https://example.com:8443/hook?key=1",
        "https://93.184.216.34/",
        "https://[2606:4700:4700::1111]/x",
        "https://xn--bcher-kva.example/",
    ],
)
def test_urls_of_public_receivers_are_taken(url: str) -> None:
    assert Guard().check_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        None,
        5,
        "",
        "example.com",
        "http://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://",
        "https:///x",
        "https://user@example.com/",
        "https://user:pass@example.com/",
        "https://example.com/#x",
        "https://example.com\\@evil.example/",
        "https://exam ple.com/",
        "https://example.com/\n",
        "https://example.com:0/",
        "https://example.com:99999/",
        "https://example.com:x/",
        "https://[::1/",
        "https://127.0.0.1/",
        "https://[::1]/",
        "https://[::ffff:127.0.0.1]/",
        "https://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/",
        "https://0.0.0.0/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://0x7f000001/",
        "https://127.1/",
        "https://0177.0.0.1/",
        "https://93.184.216.34:22/",
        "https://example.com/" + "x" * 2048,
    ],
)
def test_other_urls_are_refused(url: object) -> None:
    with pytest.raises(InvalidWebhookUrl):
        Guard().check_url(url)


def test_plain_http_is_taken_where_a_network_is_allowed() -> None:
    guard = Guard(LOOPBACK)
    assert guard.check_url("http://127.0.0.1:3000/hook")
    # The name's address is looked at when it is connected to.
    assert guard.check_url("http://localhost:3000/hook")
    with pytest.raises(InvalidWebhookUrl):
        guard.check_url("http://93.184.216.34/")


# -- connecting


class Names(AbstractResolver):
    """Resolves every name to the next of these addresses; the last one stays."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked = 0

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked += 1
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    async def close(self) -> None:
        """Nothing to close."""


async def sent(url: str, guard: Guard | None = None, **options: Any) -> Attempt:
    sender = Sender(guard or Guard(LOOPBACK), **{"total_seconds": 5.0, **options})
    try:
        return await sender.send(url, "msg_1", b"{}", [SECRET], now_us())
    finally:
        await sender.close()


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "0.0.0.0", "[::ffff:127.0.0.1]", "localhost", "0x7f.1", "[::1]"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_nothing_reaches_loopback_that_is_not_allowed(
    receiver: Receiver, host: str, scheme: str
) -> None:
    attempt = await sent(f"{scheme}://{host}:{receiver.port}/", Guard())
    assert attempt.status is None
    assert attempt.error == "address_refused"
    assert receiver.got == []


@pytest.mark.parametrize("host", ["2130706433", "127.1"])
async def test_old_spellings_of_an_address_reach_nothing(receiver: Receiver, host: str) -> None:
    attempt = await sent(f"http://{host}:{receiver.port}/", Guard())
    assert attempt.status is None
    assert receiver.got == []


async def test_a_name_that_changes_its_mind_reaches_nothing(receiver: Receiver) -> None:
    names = Names(["127.0.0.1"], ["127.0.0.2"])
    guard = Guard(networks(["127.0.0.1"]))
    sender = Sender(guard, total_seconds=5, resolver=names)
    url = f"http://rebinding.test:{receiver.port}/"

    async def cut(got: Got) -> web.StreamResponse:
        answer = web.Response()
        answer.force_close()
        return answer

    receiver.answer = cut
    try:
        first = await sender.send(url, "msg_1", b"{}", [SECRET], now_us())
        second = await sender.send(url, "msg_2", b"{}", [SECRET], now_us())
    finally:
        await sender.close()
    assert first.status == 200
    assert (second.status, second.error) == (None, "address_refused")
    assert names.asked == 2
    assert receiver.ids == ["msg_1"]


async def test_a_name_with_a_good_and_a_bad_address_reaches_the_good_one(
    receiver: Receiver,
) -> None:
    names = Names(["10.0.0.1", "127.0.0.1"])
    attempt = await sent(f"http://two.test:{receiver.port}/", resolver=names)
    assert attempt.status == 204


async def test_a_name_with_bad_addresses_alone_is_refused(receiver: Receiver) -> None:
    names = Names(["127.0.0.1", "169.254.169.254", "::1"])
    attempt = await sent(f"http://bad.test:{receiver.port}/", Guard(), resolver=names)
    assert (attempt.status, attempt.error) == (None, "address_refused")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(receiver: Receiver, code: int) -> None:
    other = await Receiver().start()
    try:
        for place in (other.url, "http://169.254.169.254/latest/meta-data", "/elsewhere"):
            receiver.answer = status(code, Location=place)
            assert (await sent(receiver.url)).status == code
    finally:
        await other.close()
    assert other.got == []
    assert {got.path for got in receiver.got} == {"/hook"}


async def test_the_environments_proxy_is_not_used(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = await Receiver().start()
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.port}")
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
    try:
        assert (await sent(receiver.url)).status == 204
    finally:
        await proxy.close()
    assert proxy.got == []


async def test_no_cookie_is_kept(receiver: Receiver) -> None:
    receiver.answer = status(200, **{"Set-Cookie": "a=b"})
    sender = Sender(Guard(LOOPBACK))
    for _ in range(2):
        await sender.send(receiver.url, "msg_1", b"{}", [SECRET], now_us())
    await sender.close()
    assert all("Cookie" not in got.headers for got in receiver.got)


# -- answers that do not end


async def test_an_endless_answer_is_cut_off(receiver: Receiver) -> None:
    written = 0

    async def endless(got: Got) -> web.StreamResponse:
        nonlocal written
        answer = web.StreamResponse()
        assert got.request is not None
        await answer.prepare(got.request)
        while True:
            await answer.write(b"x" * 65_536)
            written += 65_536

    receiver.answer = endless
    attempt = await sent(receiver.url)
    assert attempt.status == 200
    # What the sockets hold on both sides is written too.
    assert MAX_ANSWER_BYTES <= written < 64 * 1024 * 1024
    assert attempt.milliseconds < 4_000


async def test_a_success_whose_body_never_ends_is_a_success(receiver: Receiver) -> None:
    async def stuck(got: Got) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"Content-Length": "10"})
        assert got.request is not None
        await answer.prepare(got.request)
        await asyncio.get_running_loop().create_future()
        return answer

    receiver.answer = stuck
    attempt = await sent(receiver.url, total_seconds=0.3)
    assert (attempt.status, attempt.error) == (200, None)


async def raw(answer: bytes, *, close: bool = True) -> Attempt:
    """What becomes of an attempt whose receiver writes these bytes."""
    held: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        held.append(writer)
        if close:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        return await sent(f"http://127.0.0.1:{port}/", total_seconds=0.5)
    finally:
        for writer in held:
            writer.close()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "connection_lost"),
        (b"nonsense\r\n\r\n", "invalid_answer"),
        (b"HTTP/1.1 2\xff0 OK\r\n\r\n", "invalid_answer"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "invalid_answer"),
    ],
)
async def test_an_answer_that_is_none_has_a_word(answer: bytes, error: str) -> None:
    attempt = await raw(answer)
    assert (attempt.status, attempt.error) == (None, error)


async def test_half_a_head_is_waited_for_within_the_time_limit() -> None:
    attempt = await raw(b"HTTP/1.1 200 OK\r\n", close=False)
    assert (attempt.status, attempt.error) == (None, "timeout")


async def test_a_receiver_that_is_not_there_has_a_word() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        attempt = await sent(f"http://127.0.0.1:{taken.getsockname()[1]}/")
    assert (attempt.status, attempt.error) == (None, "cannot_connect")


async def test_a_name_that_is_nobodys_has_a_word() -> None:
    class Nobody(Names):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            raise OSError("no such name")

    attempt = await sent("https://nobody.test/", resolver=Nobody([]))
    assert (attempt.status, attempt.error) == (None, "no_such_host")


async def test_names_that_hang_hold_up_neither_other_names_nor_other_threads(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, answers = socket.getaddrinfo, threading.Event()
    asked: Counter[str] = Counter()

    def hanging(host: str, *rest: Any) -> Any:
        asked[host] += 1
        if host.endswith(".test"):
            answers.wait()
            raise socket.gaierror("nobody knows it")
        return real(host, *rest)

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    sender = Sender(Guard(LOOPBACK), total_seconds=0.3)
    try:
        # More than the event loop has threads for everybody, and each name more than once.
        urls = [f"https://hangs-{number}.test/" for number in range(36)] * 2
        attempts = await asyncio.gather(
            *(sender.send(url, "msg_1", b"{}", [SECRET], now_us()) for url in urls)
        )
        assert {attempt.error for attempt in attempts} == {"timeout"}
        assert set(asked.values()) == {1}
        async with asyncio.timeout(5):
            await asyncio.to_thread(str)
        url = f"http://localhost:{receiver.port}/"
        attempt = await sender.send(url, "msg_2", b"{}", [SECRET], now_us())
        assert attempt.status == 204
    finally:
        answers.set()
        await sender.close()


@pytest.mark.parametrize(
    ("scheme", "secure"), [("http", False), ("HTTP", False), ("https", True), ("HTTPS", True)]
)
async def test_an_address_is_judged_by_what_is_spoken_however_that_is_spelled(
    scheme: str, secure: bool
) -> None:
    judged = []

    class Noting(Guard):
        def permits(self, host: str, port: int, *, secure: bool = True) -> bool:
            judged.append(secure)
            return False

    attempt = await sent(f"{scheme}://93.184.216.34:443/", Noting())
    assert attempt.error == "address_refused"
    assert set(judged) == {secure}


async def test_a_receiver_without_tls_is_refused(receiver: Receiver) -> None:
    attempt = await sent(receiver.url.replace("http", "https", 1))
    assert (attempt.status, attempt.error) == (None, "tls")
