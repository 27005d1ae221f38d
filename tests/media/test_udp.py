"""One UDP port: who gets which datagram, and that strangers get none."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from interview_peer.core import sdp
from interview_peer.errors import ConfigurationError, StartFailed
from interview_peer.media import native
from interview_peer.media.addresses import default_address
from interview_peer.media.leg import Leg
from interview_peer.media.meters import SAMPLE_EVERY, DelayMeter
from interview_peer.media.udp import MAX_DATAGRAM, Address, UdpPort
from tests.media.legs import Heard, connected, packets_of, until
from tests.media.strays import Credentials, Stranger, check, strays, transaction_of
from tests.support.lossy_link import LossyLink

BROWSER = Credentials("Brow", "browserspassword123456")


@dataclass(eq=False)
class Desk:
    """An endpoint that writes down what it is handed."""

    ufrag: str
    port: UdpPort
    valid: bool = True
    delay: DelayMeter = field(default_factory=DelayMeter)
    lane: native.Lane | None = None
    calls: list[tuple[str, bytes]] = field(default_factory=list)

    def stun_request(self, data: bytes, addr: Address) -> bool:
        self.calls.append(("request", data))
        return self.valid

    def stun_response(self, data: bytes, addr: Address) -> None:
        self.calls.append(("response", data))

    def handshake(self, data: bytes, addr: Address) -> None:
        self.calls.append(("handshake", data))

    def packet(self, size: int, at: float) -> None:
        self.calls.append(("packet", bytes(self.port.buffer[:size])))

    def stray(self, size: int, at: float, addr: Address) -> None:
        self.calls.append(("stray", bytes(self.port.buffer[:size])))


@pytest.fixture
async def port() -> AsyncIterator[UdpPort]:
    port = await UdpPort.open("127.0.0.1")
    yield port
    port.close()


@pytest.fixture
async def stranger() -> AsyncIterator[Stranger]:
    stranger = Stranger()
    yield stranger
    stranger.close()


def tables(port: UdpPort) -> list[dict[Any, Any]]:
    """The tables by which the port finds its endpoints; the counter is none, nor are lanes."""
    own = {name: value for name, value in vars(port).items() if name != "_lanes"}
    found = [value for value in own.values() if type(value) is dict]
    assert len(found) >= 3
    return found


def rtp(ssrc: int = 7) -> bytes:
    return b"\x80\x6f\x00\x01\x00\x00\x00\x00" + ssrc.to_bytes(4, "big") + b"payload"


DTLS = b"\x16\xfe\xfd" + bytes(30)


# -- routing ------------------------------------------------------------------------------------


async def test_check_goes_to_whom_its_user_name_addresses(
    port: UdpPort, stranger: Stranger
) -> None:
    first, second = Desk("first", port), Desk("second", port)
    port.register(first)
    port.register(second)
    for_second = check(Credentials("second", "p" * 22), BROWSER)
    stranger.send(for_second, port.address)
    await until(lambda: second.calls, "the check")
    assert second.calls == [("request", for_second)]
    assert first.calls == []


async def test_address_belongs_to_nobody_until_it_is_learned(
    port: UdpPort, stranger: Stranger
) -> None:
    desk = Desk("first", port)
    port.register(desk)
    for data in (DTLS, rtp()):
        stranger.send(data, port.address)
    await until(lambda: port.dropped["unknown"] == 2, "both dropped")
    port.learn(stranger.address, desk)
    for data in (DTLS, rtp()):
        stranger.send(data, port.address)
    await until(lambda: len(desk.calls) == 2, "both delivered")
    assert desk.calls == [("handshake", DTLS), ("packet", rtp())]


async def test_user_name_wins_over_the_address_table(port: UdpPort, stranger: Stranger) -> None:
    old, new = Desk("old", port), Desk("new", port)
    port.register(old)
    port.register(new)
    port.learn(stranger.address, old)
    stranger.send(check(Credentials("new", "p" * 22), BROWSER), port.address)
    await until(lambda: new.calls, "the check at the new endpoint")
    assert old.calls == []
    port.learn(stranger.address, new)
    stranger.send(rtp(), port.address)
    await until(lambda: len(new.calls) == 2, "the packet at the new endpoint")
    # The old one gives up an address that has become another's.
    port.unlearn(stranger.address, old)
    stranger.send(rtp(), port.address)
    await until(lambda: len(new.calls) == 3, "the next packet at the new endpoint")


async def test_response_goes_once_to_whom_its_transaction_belongs(
    port: UdpPort, stranger: Stranger
) -> None:
    first, second = Desk("first", port), Desk("second", port)
    port.register(first)
    port.register(second)
    port.learn(stranger.address, first)
    transaction = b"transaction2"
    port.expect(transaction, second)
    response = b"\x01\x01\x00\x00\x21\x12\xa4\x42" + transaction
    stranger.send(response, port.address)
    stranger.send(response, port.address)
    await until(lambda: port.dropped["transaction"] == 1, "the repeated response dropped")
    assert second.calls == [("response", response)]
    assert first.calls == []
    port.expect(transaction, second)
    port.forget(transaction)
    stranger.send(response, port.address)
    await until(lambda: port.dropped["transaction"] == 2, "the forgotten response dropped")


async def test_known_stream_from_an_unknown_address_is_put_to_its_endpoint(
    port: UdpPort, stranger: Stranger
) -> None:
    first, thief = Desk("first", port), Desk("thief", port)
    port.learn_ssrc(7, first)
    port.learn_ssrc(7, thief)
    stranger.send(rtp(7), port.address)
    stranger.send(rtp(8), port.address)
    await until(lambda: port.dropped["unknown"] == 1, "the unknown stream dropped")
    assert first.calls == [("stray", rtp(7))]
    assert thief.calls == []


async def test_measured_datagram_goes_where_any_other_would(
    port: UdpPort, stranger: Stranger
) -> None:
    desk = Desk("first", port)
    port.register(desk)
    port.learn_ssrc(7, desk)
    request = check(Credentials("first", "p" * 22), BROWSER)

    async def measured(data: bytes, calls: int) -> None:
        port._wake_ups = SAMPLE_EVERY - 1
        stranger.send(data, port.address)
        await until(lambda: len(desk.calls) == calls, "the datagram")

    await measured(rtp(7), 1)
    await measured(request, 2)
    port.learn(stranger.address, desk)
    await measured(rtp(7), 3)
    await measured(DTLS, 4)
    kinds = [kind for kind, _ in desk.calls]
    assert kinds == ["stray", "request", "packet", "handshake"]
    assert port.delay.count == 1, "only what is forwarded is measured"
    assert 0 <= port.delay.largest < 1
    assert port.dropped == {}


@pytest.mark.parametrize("measured", [True, False])
async def test_no_datagram_fills_the_room_for_its_tag(
    measured: bool, port: UdpPort, stranger: Stranger
) -> None:
    desk = Desk("first", port)
    port.learn(stranger.address, desk)
    port._wake_ups = SAMPLE_EVERY - 1 if measured else 0
    stranger.send(b"\x80" * 5000, port.address)
    await until(lambda: desk.calls, "the datagram")
    assert len(desk.calls[0][1]) + 148 <= len(port.buffer)
    assert len(desk.calls[0][1]) == MAX_DATAGRAM


async def test_second_endpoint_of_the_same_fragment_is_refused(port: UdpPort) -> None:
    first = Desk("same", port)
    port.register(first)
    with pytest.raises(ValueError, match="already in use"):
        port.register(Desk("same", port))
    port.unregister(Desk("same", port))
    with pytest.raises(ValueError, match="already in use"):
        port.register(Desk("same", port))
    port.unregister(first)
    port.register(Desk("same", port))


async def test_endpoint_that_leaves_leaves_nothing_in_the_tables(port: UdpPort) -> None:
    leaving, staying = Desk("leaving", port), Desk("staying", port)
    for number, desk in enumerate((leaving, staying)):
        port.register(desk)
        port.learn(("192.0.2.1", number), desk)
        port.expect(b"transaction%d" % number, desk)
        port.learn_ssrc(number, desk)
    port.unregister(leaving)
    assert [list(table.values()) for table in tables(port)] == [[staying]] * len(tables(port))
    port.unregister(leaving)
    port.unregister(staying)
    assert not any(tables(port))


# -- strangers ----------------------------------------------------------------------------------


@contextlib.contextmanager
def nothing_raised() -> Iterator[None]:
    """No exception may reach the event loop's handler."""
    raised: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: raised.append(context))
    try:
        yield
    finally:
        loop.set_exception_handler(None)
    assert raised == []


KINDS = sorted(strays(Credentials("a" * 22, "p" * 22), BROWSER))


@pytest.mark.parametrize("kind", KINDS)
async def test_stray_datagram_is_counted_and_never_answered(
    kind: str, port: UdpPort, stranger: Stranger
) -> None:
    leg = Leg("browser", port, Heard(), dtls_server=True)
    offerer = Leg("offerer", await UdpPort.open("127.0.0.1"), Heard(), own_port=True)
    try:
        answer = await leg.answer(sdp.check_offer(await offerer.offer()))
        offers = Credentials(offerer.engine.ufrag, "")
        theirs = Credentials.of(answer)
        with nothing_raised():
            for _ in range(3):
                stranger.send(strays(theirs, offers)[kind], port.address)
            # A valid check follows: had a stray been answered, that would be here before.
            good = check(theirs, offers)
            stranger.send(good, port.address)
            await until(lambda: stranger.received, "the answer to a valid check")
            assert transaction_of(stranger.received[0]) == transaction_of(good)
            assert stranger.received[0][:2] == b"\x01\x01"
        assert sum(port.dropped.values()) == 3, port.dropped
    finally:
        await leg.close()
        await offerer.close()


async def test_check_without_priority_is_dropped_though_it_verifies(
    port: UdpPort, stranger: Stranger
) -> None:
    async with connected(far_port=port) as ends:
        theirs = Credentials(ends.far.engine.ufrag, ends.far.engine._ice.local_password)
        ours = Credentials(ends.near.engine.ufrag, "")
        with nothing_raised():
            for _ in range(3):
                stranger.send(
                    check(theirs, ours, change=lambda message: message.attributes.pop("PRIORITY")),
                    port.address,
                )
            stranger.send(check(theirs, ours), port.address)
            await until(lambda: stranger.received, "the answer to a whole check")
        assert port.dropped["integrity"] == 3


async def test_strangers_cannot_disturb_a_connected_leg(port: UdpPort, stranger: Stranger) -> None:
    async with connected(far_port=port) as ends:
        local = Credentials(ends.far.engine.ufrag, "p" * 22)
        heard = packets_of(ends.far)
        with nothing_raised():
            for data in strays(local, Credentials(ends.near.engine.ufrag, "")).values():
                stranger.send(data, port.address)
            ends.near.send_audio(1, 960, b"still here")
            await until(lambda: heard, "audio after the strays")
        assert [packet[12:] for packet in heard] == [b"still here"]
        assert stranger.received == []
        assert ends.far_heard.lost is None


async def test_replayed_packets_from_elsewhere_reach_nobody(
    port: UdpPort, stranger: Stranger
) -> None:
    recorded: list[bytes] = []
    link = await LossyLink.open(port.address)

    def record(data: bytes) -> bool:
        recorded.append(data)
        return False

    link.up.drop = record
    async with connected(far_port=port, change_answer=link.through) as ends:
        heard = packets_of(ends.far)
        ends.far.engine.learn_ssrc(ends.near.engine.ssrc)
        ends.near.send_audio(1, 960, b"once")
        await until(lambda: heard, "the first copy")
        remote = ends.far.engine.remote
        with nothing_raised():
            for data in [data for data in recorded if data[0] > 19]:
                stranger.send(data, port.address)
            ends.near.send_audio(2, 1920, b"twice")
            await until(lambda: len(heard) == 2, "the next packet")
        assert [packet[12:] for packet in heard] == [b"once", b"twice"]
        assert stranger.received == []
        assert ends.far.engine.remote == remote
    link.close()


async def test_dropped_datagrams_are_not_logged(
    port: UdpPort, stranger: Stranger, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        for data in strays(Credentials("a" * 22, "p" * 22), BROWSER).values():
            stranger.send(data, port.address)
        await until(lambda: sum(port.dropped.values()) == len(KINDS), "all counted")
    assert caplog.records == []


# -- legs on a port -----------------------------------------------------------------------------


async def test_two_legs_on_one_port_hear_only_their_own(port: UdpPort) -> None:
    async with connected(far_port=port) as one, connected(far_port=port) as two:
        heard = packets_of(one.far), packets_of(two.far)
        for number in range(20):
            one.near.send_audio(number, number * 960, b"one %d" % number)
            two.near.send_audio(number, number * 960, b"two %d" % number)
        one.near.send_text("one")
        two.near.send_text("two")
        await until(lambda: all(len(packets) == 20 for packets in heard), "all packets")
        await until(lambda: one.far_heard.messages and two.far_heard.messages, "both messages")
        assert [packet[12:] for packet in heard[0]] == [b"one %d" % n for n in range(20)]
        assert [packet[12:] for packet in heard[1]] == [b"two %d" % n for n in range(20)]
        assert (one.far_heard.messages, two.far_heard.messages) == (["one"], ["two"])
        assert one.far.engine.dropped + two.far.engine.dropped == {}
    assert not any(tables(port))


async def test_a_check_with_a_forged_source_takes_nobodys_address(port: UdpPort) -> None:
    async with connected(far_port=port) as victim, connected(far_port=port) as attacker:
        ice = attacker.near.engine._ice
        check = ice.build_request(ice._nominated[1], nominate=False)
        check.add_message_integrity(ice.remote_password.encode())
        address = victim.near.port.address
        assert attacker.far.engine.stun_request(bytes(check), address), "the check must verify"

        heard = packets_of(victim.far)
        victim.near.send_audio(1, 960, b"still mine")
        await until(lambda: heard, "the victim's audio")
        assert heard[0][12:] == b"still mine"


async def test_leg_that_closes_leaves_its_neighbour_on_the_port(port: UdpPort) -> None:
    async with connected(far_port=port) as staying:
        async with connected(far_port=port):
            pass
        heard = packets_of(staying.far)
        staying.near.send_audio(1, 960, b"still here")
        await until(lambda: heard, "audio of the neighbour")
        assert staying.far_heard.lost is None
    assert not any(tables(port))


async def test_legs_connect_over_ipv6() -> None:
    port = await UdpPort.open("::1")
    answers: list[str] = []

    def keep(answer: str) -> str:
        answers.append(answer)
        return answer

    async with connected(far_port=port, host="::1", change_answer=keep) as ends:
        heard = packets_of(ends.far)
        ends.near.send_audio(1, 960, b"six")
        await until(lambda: heard, "audio")
        assert ends.far.engine.remote == ends.near.port.address
        assert all(len(addr) == 2 for addr in (port.address, ends.far.engine.remote))
    assert [line.split()[4] for line in sdp.candidate_lines(answers[0])] == ["::1"]
    assert not any(tables(port))
    port.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_one_port_for_both_families_serves_each(host: str) -> None:
    port = await UdpPort.open("::", announce=["127.0.0.1", "::1"])
    async with connected(far_port=port, host=host) as ends:
        heard = packets_of(ends.far), packets_of(ends.near)
        ends.near.send_audio(1, 960, b"up")
        ends.far.send_audio(1, 960, b"down")
        await until(lambda: all(heard), "audio both ways")
        # IPv4 is told apart by nobody who reads the address.
        assert ends.far.engine.remote == ends.near.port.address
    assert not any(tables(port))
    port.close()


async def test_ipv6_strangers_are_not_answered_either() -> None:
    port = await UdpPort.open("::1")
    stranger = Stranger("::1")
    for data in strays(Credentials("a" * 22, "p" * 22), BROWSER).values():
        stranger.send(data, port.address)
    await until(lambda: sum(port.dropped.values()) == len(KINDS), "all counted")
    assert stranger.received == []
    stranger.close()
    port.close()


async def test_announced_addresses_appear_in_the_description_with_the_bound_port() -> None:
    port = await UdpPort.open("127.0.0.1", announce=["203.0.113.5", "2001:db8::5"])
    leg = Leg("far", port, Heard(), own_port=True)
    offerer = Leg("near", await UdpPort.open("127.0.0.1"), Heard(), own_port=True)
    answer = await leg.answer(sdp.check_offer(await offerer.offer()))
    fields = [line.split() for line in sdp.candidate_lines(answer)]
    number = str(port.address[1])
    assert [(f[4], f[5]) for f in fields] == [("203.0.113.5", number), ("2001:db8::5", number)]
    assert int(fields[0][3]) > int(fields[1][3]), "the first announced is preferred"
    assert "127.0.0.1" not in answer
    await leg.close()
    await offerer.close()


async def test_leg_behind_address_translation_connects_by_its_announced_address() -> None:
    port = await UdpPort.open("127.0.0.1", announce=["203.0.113.5"])
    async with connected(
        far_port=port, change_answer=lambda text: text.replace("203.0.113.5", "127.0.0.1")
    ) as ends:
        heard = packets_of(ends.near)
        ends.far.send_audio(1, 960, b"from behind")
        await until(lambda: heard, "audio")
    port.close()


async def test_wildcard_address_is_not_announced_as_it_is() -> None:
    port = await UdpPort.open("0.0.0.0")
    (announced,) = port.announced
    assert announced == default_address()
    assert not ipaddress.ip_address(announced).is_unspecified
    port.close()


# -- the socket ---------------------------------------------------------------------------------


async def test_port_goes_on_after_sending_to_where_nobody_listens(
    port: UdpPort, stranger: Stranger
) -> None:
    deaf = Stranger()
    nowhere = deaf.address
    deaf.close()
    for _ in range(50):
        assert port.send(b"anybody?", nowhere) in (True, False)
    stranger.send(DTLS, port.address)
    await until(lambda: port.dropped["unknown"] == 1, "the next datagram")


@pytest.mark.parametrize("addr", [("127.0.0.1", 0), ("255.255.255.255", 9)])
async def test_datagram_that_cannot_be_sent_is_counted(port: UdpPort, addr: Address) -> None:
    assert port.send(b"data", addr) is False
    assert port.dropped["send_error"] == 1


async def test_full_socket_drops_what_is_sent_now(
    port: UdpPort, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(data: bytes, addr: Address) -> int:
        raise BlockingIOError

    monkeypatch.setattr(port, "_send", full)
    assert port.send(b"data", ("127.0.0.1", 9)) is False
    assert port.dropped["send_full"] == 1


@pytest.mark.python_forwarding
@pytest.mark.parametrize("error", [ConnectionRefusedError, OSError])
async def test_error_told_by_the_socket_does_not_stop_reading(
    error: type[OSError], port: UdpPort, stranger: Stranger, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, failures = port._receive, iter([True])

    def receive(*args: Any) -> tuple[int, Address]:
        if next(failures, False):
            raise error
        return real(*args)

    monkeypatch.setattr(port, "_receive", receive)
    stranger.send(DTLS, port.address)
    await until(lambda: port.dropped["unknown"] == 1, "the datagram behind the error")
    assert port.dropped["receive_error"] == 1


async def test_closed_port_is_free_and_closing_again_is_harmless() -> None:
    port = await UdpPort.open("127.0.0.1")
    number = port.address[1]
    port.close()
    port.close()
    again = await UdpPort.open("127.0.0.1", number)
    assert again.address[1] == number
    again.close()


async def test_port_in_use_is_the_operators_to_mend() -> None:
    port = await UdpPort.open("127.0.0.1")
    with pytest.raises(StartFailed) as caught:
        await UdpPort.open("127.0.0.1", port.address[1])
    assert f"UDP port {port.address[1]} on 127.0.0.1" in caught.value.message
    assert "INTERVIEW_UDP_PORT" in caught.value.message
    port.close()


@pytest.mark.parametrize("host", ["192.0.2.77", "no-such-host.invalid", "", "1.2.3.4.5"])
async def test_host_that_is_not_this_machines_is_named(host: str) -> None:
    try:
        port = await UdpPort.open(host)
    except ConfigurationError as error:
        assert "INTERVIEW_UDP_HOST" in error.message
        assert host in error.message
    else:
        # An empty name means every address of the machine.
        assert host == ""
        port.close()
