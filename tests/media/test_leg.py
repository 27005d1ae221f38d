"""A leg from its first description to its last: who is told what, and what is left."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import time
from collections.abc import AsyncIterator

import pytest
from aioice import stun
from aioice.ice import ConnectionClosed

from interview_peer.core import rtcp
from interview_peer.core.sdp import check_offer
from interview_peer.errors import InvalidSdp, UpstreamInvalidAnswer
from interview_peer.media.engine import MAX_ADDRESSES
from interview_peer.media.forwarder import Forwarder
from interview_peer.media.leg import (
    CHANNEL_LABEL,
    LOST_SECONDS,
    ChannelClosed,
    Leg,
    MessageTooLarge,
)
from interview_peer.media.udp import UdpPort
from tests.core.test_sdp import BROWSER_OFFER, without
from tests.media.legs import Ends, Heard, connected, own_port, packets_of, until
from tests.media.rtp import read
from tests.support.lossy_link import LossyLink

BINDING_REQUEST, BINDING_RESPONSE = b"\x00\x01", b"\x01\x01"


@contextlib.asynccontextmanager
async def nothing_left() -> AsyncIterator[None]:
    """No task and no descriptor may remain of what happens inside, and no exception unheard."""
    unheard: list[object] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unheard.append(context))
    tasks, descriptors = asyncio.all_tasks(), os.listdir("/proc/self/fd")
    yield
    await until(lambda: asyncio.all_tasks() <= tasks, "every task done", within=5)
    await until(
        lambda: len(os.listdir("/proc/self/fd")) == len(descriptors), "every descriptor closed", 5
    )
    assert unheard == []
    loop.set_exception_handler(None)


async def new_leg(name: str = "leg", heard: Heard | None = None) -> Leg:
    return Leg(name, await own_port(), heard or Heard(), dtls_server=True, own_port=True)


@contextlib.asynccontextmanager
async def linked(seed: int = 1) -> AsyncIterator[tuple[Ends, LossyLink]]:
    """Two legs with a link of changeable badness between them."""
    port = await own_port()
    link = await LossyLink.open(port.address, seed=seed)
    async with connected(far_port=port, change_answer=link.through) as ends:
        yield ends, link
    link.close()
    port.close()


# -- the end ------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaving", ["near", "far"])
async def test_orderly_close_is_told_to_the_other_side_at_once(leaving: str) -> None:
    async with connected() as ends:
        one, heard = (
            (ends.near, ends.far_heard) if leaving == "near" else (ends.far, ends.near_heard)
        )
        started = time.monotonic()
        await one.close()
        await until(lambda: heard.lost, "the loss")
        assert time.monotonic() - started < 0.5
        assert heard.lost == "closed by the far end"
        mine = ends.near_heard if leaving == "near" else ends.far_heard
        assert mine.lost is None, "nobody is told of a close of his own"


async def test_loss_is_told_once() -> None:
    async with connected() as ends:
        await ends.near.close()
        await until(lambda: ends.far_heard.lost, "the loss")
        await ends.far.close()
        assert [event[:4] for event in ends.far_heard.events].count("lost") == 1
        assert ends.near_heard.lost is None


async def test_far_end_that_vanishes_is_lost_after_four_seconds_of_silence() -> None:
    """Takes its real seconds: the silence is the subject."""
    async with connected() as ends:
        ends.near.send_audio(1, 0, b"last words")
        started = time.monotonic()
        ends.near.port.close()
        await until(lambda: ends.far_heard.lost, "the loss", within=8)
        assert LOST_SECONDS - 0.1 < time.monotonic() - started < 5.0
        assert ends.far_heard.lost == "silent"
        assert not ends.far.connected


async def test_bad_network_is_no_loss_of_the_far_end() -> None:
    """Takes its real seconds. The near end says nothing unasked, as a browser without a track does
    for seconds: all that shows it is there are its responses to our checks."""
    async with linked(seed=3) as (ends, link):
        link.up.loss = link.down.loss = 0.15
        link.up.drop = lambda data: data[:2] != BINDING_RESPONSE
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(6):
                await until(lambda: ends.far_heard.lost or ends.near_heard.lost, "a loss", 60)
        assert link.up.passed > 0
        assert link.up.lost + link.down.lost > 0
        link.up.loss = link.down.loss = 0.0
        link.up.drop = None
        ends.near.send_text("still here")
        await until(lambda: ends.far_heard.messages, "a message afterwards")


async def test_short_outage_is_no_loss_and_audio_is_back_with_the_first_packet() -> None:
    async with linked() as (ends, link):
        heard = packets_of(ends.far)
        link.up.outage = True
        for number in range(50):
            ends.near.send_audio(number, number * 960, b"lost")
        await until(lambda: link.up.lost >= 50, "the outage")
        link.up.outage = False
        ends.near.send_audio(50, 50 * 960, b"back")
        await until(lambda: heard, "the first packet")
        assert [packet[12:] for packet in heard] == [b"back"]


async def test_what_a_bad_link_lets_through_is_decrypted_and_counted() -> None:
    async with linked(seed=5) as (ends, link):
        arrived: list[int] = []
        ends.far.on_audio = lambda at, sequence, timestamp, payload: arrived.append(sequence)
        link.up.loss, link.up.delay, link.up.jitter = 0.15, 0.02, 0.02
        link.up.reorder = True
        for number in range(300):
            ends.near.send_audio(number, number * 960, b"%d" % number)
            # At a pace that the sockets' buffers can take.
            await asyncio.sleep(0)
        await until(lambda: link.up.passed + link.up.lost >= 300, "all judged")
        link.up.loss = 0.0
        ends.near.send_audio(300, 300 * 960, b"end")
        await until(lambda: 300 in arrived, "the last")
        await until(lambda: len(arrived) == ends.far.reception.packets > 200, "all of them")
        assert ends.far.engine.dropped == {}
        assert len(set(arrived)) == len(arrived)
        assert arrived != sorted(arrived), "the link did reorder"
        assert ends.far.reception.lost == ends.far.reception.expected - len(arrived)


@pytest.mark.parametrize("times", [2, 3])
async def test_closing_again_is_harmless(times: int) -> None:
    async with nothing_left(), connected() as ends:
        for _ in range(times):
            await ends.near.close()
        await asyncio.gather(*(ends.far.close() for _ in range(times)))


async def test_leg_that_was_never_used_leaves_nothing() -> None:
    async with nothing_left():
        await (await new_leg()).close()


async def test_connection_leaves_nothing() -> None:
    async with nothing_left():
        async with connected() as ends:
            ends.near.send_text("hello")
            await until(lambda: ends.far_heard.messages, "the message")
            ends.near.send_audio(1, 0, b"hello")


async def test_connection_whose_far_end_closed_first_leaves_nothing() -> None:
    async with nothing_left(), connected() as ends:
        await ends.near.close()
        await until(lambda: ends.far_heard.lost, "the loss")


@pytest.mark.parametrize("turns", range(12))
async def test_closing_within_some_turns_of_the_loop_leaves_nothing(turns: int) -> None:
    async with nothing_left():
        near, far = await new_leg("near"), await new_leg("far")
        await near.accept(await far.answer(check_offer(await near.offer())))
        for _ in range(turns):
            await asyncio.sleep(0)
        await asyncio.gather(near.close(), far.close())


@pytest.mark.parametrize("datagrams", range(0, 26, 2))
async def test_closing_while_connecting_leaves_nothing(datagrams: int) -> None:
    async with nothing_left():
        port = await own_port()
        link = await LossyLink.open(port.address)
        heard = Heard()
        near = await new_leg("near")
        far = Leg("far", port, heard, dtls_server=True, own_port=True)
        await near.accept(link.through(await far.answer(check_offer(await near.offer()))))
        # ICE, DTLS and SCTP take about 25 datagrams; the end comes at each stage of them.
        await until(lambda: link.up.passed + link.down.passed >= datagrams, "that many")
        await far.close()
        assert heard.lost is None
        await near.close()
        link.close()


async def test_offer_that_is_never_answered_leaves_nothing() -> None:
    async with nothing_left():
        leg = await new_leg()
        await leg.offer()
        await leg.close()


async def test_answer_that_nobody_takes_up_leaves_nothing() -> None:
    async with nothing_left():
        near, far = await new_leg("near"), await new_leg("far")
        await far.answer(check_offer(await near.offer()))
        await far.close()
        await near.close()


async def test_shared_port_stays_open_when_a_leg_on_it_closes() -> None:
    port = await own_port()
    leg = Leg("browser", port, Heard())
    await leg.close()
    assert port.send(b"data", port.address)
    port.close()


# -- descriptions ---------------------------------------------------------------------------------

NOT_OFFERS = {
    "nothing": "",
    "text": "hello",
    "JSON": '{"type": "offer", "sdp": "v=0"}',
    "a first line only": "v=0\r\n",
    "no audio": "v=0\r\nm=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n",
    "no fingerprint": without(BROWSER_OFFER, "a=fingerprint"),
    "no origin": without(BROWSER_OFFER, "o="),
    "no mid": without(BROWSER_OFFER, "a=mid"),
    "no setup": without(BROWSER_OFFER, "a=setup"),
    "setup of no kind": BROWSER_OFFER.replace("a=setup:actpass", "a=setup:nonsense"),
    "setup of an answer": BROWSER_OFFER.replace("a=setup:actpass", "a=setup:active"),
    "no rtcp-mux": without(BROWSER_OFFER, "a=rtcp-mux"),
    "port that is no number": BROWSER_OFFER.replace("m=audio 54609", "m=audio x"),
    "payload type that is no number": BROWSER_OFFER.replace("SAVPF 111", "SAVPF x"),
    "ssrc that is no number": BROWSER_OFFER.replace("a=ssrc:3735928559", "a=ssrc:x"),
    "fingerprint without a value": re.sub(r"sha-256 \S+", "sha-256", BROWSER_OFFER),
    "bundle of nobody": BROWSER_OFFER.replace("BUNDLE 0 1", "BUNDLE 7 8"),
    "codec of no clock": BROWSER_OFFER.replace("G722/8000", "G722"),
    "connection of no kind": BROWSER_OFFER.replace("c=IN IP4", "c=OUT"),
    "too long": BROWSER_OFFER + "a=x\r\n" * 20_000,
}


@pytest.mark.parametrize("kind", NOT_OFFERS)
async def test_offer_that_is_none_raises_one_error_and_leaves_nothing(kind: str) -> None:
    async with nothing_left():
        leg = await new_leg()
        # Some of these are odd but usable; the others are refused, and by no other exception.
        with contextlib.suppress(InvalidSdp):
            answer = await leg.answer(check_offer(NOT_OFFERS[kind]))
            assert answer.startswith("v=0\r\n")
        await leg.close()
        assert not leg.connected


@pytest.mark.parametrize(
    "kind", ["no setup", "setup of no kind", "port that is no number", "no mid"]
)
async def test_refused_offer_is_refused_before_anything_is_registered(kind: str) -> None:
    port = await own_port()
    leg = Leg("browser", port, Heard())
    with pytest.raises(InvalidSdp):
        await leg.answer(check_offer(NOT_OFFERS[kind]))
    assert not any(table for table in vars(port).values() if type(table) is dict)
    await leg.close()
    port.close()


async def test_mangled_offers_raise_nothing_but_invalid_sdp() -> None:
    chance = random.Random(4)
    deadline, rounds, refused = time.monotonic() + 3, 0, 0
    async with nothing_left():
        while rounds < 150 and time.monotonic() < deadline:
            rounds += 1
            lines = BROWSER_OFFER.splitlines()
            for _ in range(chance.randrange(1, 6)):
                place = chance.randrange(len(lines))
                action = chance.randrange(4)
                if action == 0:
                    del lines[place]
                elif action == 1:
                    lines.insert(place, chance.choice(lines))
                elif action == 2:
                    lines[place] = lines[place][: chance.randrange(len(lines[place]) + 1)]
                else:
                    lines[place] = re.sub(r"\d+", str(chance.randrange(1 << 34)), lines[place])
            leg = await new_leg()
            try:
                await leg.answer(check_offer("\r\n".join(lines) + "\r\n"))
            except InvalidSdp:
                refused += 1
            finally:
                await leg.close()
    assert 0 < refused < rounds
    assert rounds > 20


@pytest.mark.parametrize("body", ["", "<html></html>", '{"error": {}}', BROWSER_OFFER[:200]])
async def test_answer_that_is_none_is_upstreams_fault_and_leaves_nothing(body: str) -> None:
    async with nothing_left():
        leg = await new_leg()
        await leg.offer()
        with pytest.raises(UpstreamInvalidAnswer):
            await leg.accept(body)
        await leg.close()


async def test_answer_to_another_offer_is_upstreams_fault() -> None:
    async with nothing_left():
        leg, other = await new_leg(), await new_leg("other")
        offer = await leg.offer()
        answer = await other.answer(check_offer(offer))
        with pytest.raises(UpstreamInvalidAnswer):
            await leg.accept(answer.replace("a=mid:0", "a=mid:7").replace("a=mid:1", "a=mid:8"))
        await leg.close()
        await other.close()


async def test_offers_candidates_are_never_dialled() -> None:
    """An offer names a third party's address; not one datagram may go there."""
    async with nothing_left():
        victim = await UdpPort.open("127.0.0.1")
        near, far = await new_leg("near"), await new_leg("far")
        number = victim.address[1]
        offer = re.sub(r"127\.0\.0\.1 \d+ typ", f"127.0.0.1 {number} typ", await near.offer())
        assert f"127.0.0.1 {number} typ" in offer
        await near.accept(await far.answer(check_offer(offer)))
        await until(lambda: far.connected and near.connected, "connected all the same")
        assert sum(victim.dropped.values()) == 0
        await near.close()
        await far.close()
        victim.close()


# -- events ---------------------------------------------------------------------------------------


async def test_message_beyond_what_the_far_end_takes_is_refused_and_the_next_goes() -> None:
    def smaller(answer: str) -> str:
        assert "a=max-message-size:" in answer
        return re.sub(r"a=max-message-size:\d+", "a=max-message-size:1000", answer)

    async with connected(change_answer=smaller) as ends:
        with pytest.raises(MessageTooLarge):
            ends.near.send_text("x" * 1001)
        ends.near.send_text("x" * 1000)
        await until(lambda: ends.far_heard.messages, "the message that fits")
        assert ends.far_heard.messages == ["x" * 1000]


async def test_size_counts_in_bytes_not_characters() -> None:
    def smaller(answer: str) -> str:
        return re.sub(r"a=max-message-size:\d+", "a=max-message-size:1000", answer)

    async with connected(change_answer=smaller) as ends:
        with pytest.raises(MessageTooLarge):
            ends.near.send_text("\u00e4" * 501)


async def test_message_without_an_open_channel_is_refused() -> None:
    leg = await new_leg()
    with pytest.raises(ChannelClosed):
        leg.send_text("early")
    await leg.offer()
    assert not leg.channel_open
    with pytest.raises(ChannelClosed):
        leg.send_text("still early")
    await leg.close()
    with pytest.raises(ChannelClosed):
        leg.send_text("late")


async def test_closed_channel_is_told_and_audio_goes_on() -> None:
    async with connected() as ends:
        heard = packets_of(ends.far)
        assert ends.near._channel is not None
        ends.near._channel.close()
        await until(lambda: "channel closed" in ends.far_heard.events, "the close")
        with pytest.raises(ChannelClosed):
            ends.far.send_text("into the void")
        ends.near.send_audio(1, 0, b"audio")
        await until(lambda: heard, "audio")
        assert ends.far.connected


async def test_lost_leg_sends_nothing_more() -> None:
    async with connected() as ends:
        await ends.near.close()
        await until(lambda: ends.far_heard.lost, "the loss")
        with pytest.raises(ChannelClosed):
            ends.far.send_text("anybody?")
        assert ends.far.send_audio(1, 0, b"anybody?") is False


async def test_second_channel_of_the_name_takes_the_firsts_place() -> None:
    async with connected() as ends:
        first = ends.near._channel
        assert first is not None
        second = ends.near.engine.pc.createDataChannel(CHANNEL_LABEL)
        replies: list[str | bytes] = []
        second.on("message", replies.append)
        await until(lambda: ends.far_heard.events.count("channel opened") == 2, "the second")
        first.send("by the first")
        second.send("by the second")
        await until(lambda: ends.far_heard.messages, "a message")
        ends.far.send_text("reply")
        await until(lambda: replies, "the reply on the second channel")
        assert ends.far_heard.messages == ["by the second"]
        assert ends.near_heard.messages == []
        first.close()
        second.send("behind the close of the first")
        await until(lambda: len(ends.far_heard.messages) == 2, "the next message")
        assert "channel closed" not in ends.far_heard.events
        assert ends.far.channel_open


async def test_channel_of_another_name_is_not_listened_to() -> None:
    async with connected() as ends:
        other = ends.near.engine.pc.createDataChannel("chat")
        opened: list[bool] = []
        other.on("open", lambda: opened.append(True))
        await until(lambda: opened, "the other channel")
        other.send("psst")
        ends.near.send_text("event")
        await until(lambda: ends.far_heard.messages, "the event")
        assert ends.far_heard.messages == ["event"]
        assert ends.far_heard.events.count("channel opened") == 1


async def test_binary_message_is_passed_as_bytes_and_text_as_text() -> None:
    async with connected() as ends:
        assert ends.near._channel is not None
        for data in (b"\x00\xff", "t\u00e9xt \U0001f600", b"", ""):
            ends.near._channel.send(data)
        await until(lambda: len(ends.far_heard.messages) == 4, "all messages")
        assert ends.far_heard.messages == [b"\x00\xff", "t\u00e9xt \U0001f600", b"", ""]


async def test_handler_that_fails_is_logged_and_the_transport_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with connected() as ends:
        heard = packets_of(ends.far)
        ends.far_heard.fail = True
        for number in range(3):
            ends.near.send_text(f"secret {number}")
        await until(lambda: len(ends.far_heard.messages) == 3, "all three")
        ends.near.send_audio(1, 0, b"audio")
        await until(lambda: heard, "audio")
        assert ends.far_heard.lost is None
        failures = [record for record in caplog.records if record.levelname == "ERROR"]
        assert len(failures) == 3
        assert "secret" not in caplog.text


async def test_messages_arrive_in_order_over_a_bad_link() -> None:
    async with linked(seed=11) as (ends, link):
        link.up.loss, link.up.jitter, link.up.delay = 0.05, 0.01, 0.01
        link.up.reorder = True
        sent = [f"event {number}" for number in range(30)]
        for text in sent:
            ends.near.send_text(text)
        await until(lambda: len(ends.far_heard.messages) == 30, "all of them", within=20)
        assert ends.far_heard.messages == sent


async def test_channel_that_does_not_drain_ends_the_leg() -> None:
    async with linked() as (ends, link):
        link.up.outage = True
        with pytest.raises(ChannelClosed):
            for _ in range(100):
                ends.near.send_text("x" * 60_000)
        assert ends.near_heard.lost == "event channel does not drain"


# -- a new address --------------------------------------------------------------------------------


async def test_new_source_port_is_followed_without_a_lost_packet() -> None:
    async with linked() as (ends, link):
        forwarder = Forwarder()
        taken: list[bytes] = []
        forwarder = Forwarder(lambda at, ssrc, sequence, timestamp, payload: taken.append(payload))
        forwarder.connect(ends.far, None)
        answers = packets_of(ends.near)
        ends.far.engine.learn_ssrc(ends.near.engine.ssrc)
        ends.near.send_audio(1, 960, b"1")
        await until(lambda: taken, "the first packet")
        old = link.far_side
        new = await link.rebind()
        assert ends.far.engine.remote == old
        ends.near.send_audio(2, 1920, b"2")
        await until(lambda: ends.far.engine.remote == new, "the new address", within=1)
        ends.far.send_audio(1, 960, b"back")
        await until(lambda: answers, "the answer at the old near end")
        assert taken == [b"1", b"2"]
        assert [read(packet).payload for packet in answers] == [b"back"]
        assert ends.far.engine.moves == 1
        ends.near.send_text("event")
        ends.far.send_text("event")
        await until(lambda: ends.far_heard.messages and ends.near_heard.messages, "events")


async def test_new_source_port_is_followed_over_a_long_way() -> None:
    async with linked() as (ends, link):
        # A round trip of 300 ms: three questions are under way before the first is answered.
        link.up.delay = link.down.delay = 0.15
        ends.far.engine.learn_ssrc(ends.near.engine.ssrc)
        new = await link.rebind()
        number = 0

        def followed() -> bool:
            nonlocal number
            number += 1
            ends.near.send_audio(number, number * 960, b"%d" % number)
            return ends.far.engine.remote == new

        await until(followed, "the new address", within=5)
        assert ends.far.engine.moves == 1


async def test_a_check_that_comes_first_does_not_hide_that_the_audio_has_moved() -> None:
    async with linked() as (ends, link):
        ends.far.engine.learn_ssrc(ends.near.engine.ssrc)
        new = await link.rebind()
        before = link.up.passed
        # Not every far end says with each check that it sends there from now on.
        ends.near.engine.check()
        await until(lambda: link.up.passed > before, "the check")
        ends.near.send_audio(1, 960, b"1")
        await until(lambda: ends.far.engine.remote == new, "the new address", within=1)


async def test_an_address_that_comes_back_is_followed_as_well() -> None:
    async with linked() as (ends, link):
        ends.far.engine.learn_ssrc(ends.near.engine.ssrc)
        first, number = link.far_side, 0

        def followed() -> bool:
            nonlocal number
            number += 1
            ends.near.send_audio(number, number * 960, b"%d" % number)
            return ends.far.engine.remote == link.far_side

        for port in (0, first[1], 0):
            await link.rebind(port)
            await until(followed, "the newest address", within=2)
        assert ends.far.engine.moves == 3


async def test_a_far_end_that_sends_reports_alone_is_followed() -> None:
    async with linked() as (ends, link):
        ends.far.engine.learn_ssrc(ends.near.engine.ssrc)
        new = await link.rebind()
        report = rtcp.compound(ends.near.sending, None, "far end", time.monotonic(), time.time())
        assert ends.near.engine.send_rtcp(report)
        await until(lambda: ends.far.engine.remote == new, "the new address", within=1)


async def test_checks_from_many_addresses_are_not_all_answered_with_checks() -> None:
    async with connected() as ends:
        ice = ends.near.engine._ice
        for number in range(100):
            check = ice.build_request(ice._nominated[1], nominate=False)
            check.add_message_integrity(ice.remote_password.encode())
            assert ends.far.engine.stun_request(bytes(check), ("127.0.0.9", 20_000 + number))
        assert len(ends.far.engine._ice._remote_candidates) <= MAX_ADDRESSES + 1
        assert ends.far.engine.dropped["addresses"] >= 100 - MAX_ADDRESSES


async def test_a_stall_of_our_own_loop_is_no_loss_of_the_far_end() -> None:
    async with connected() as ends:
        engine, leg = ends.far.engine, ends.far
        now = asyncio.get_running_loop().time()
        # As after six seconds in which nothing ran: the timer is late, nothing has been read.
        engine.last_heard = now - 6
        leg._pulse_due = now - 5.5
        leg._pulse()
        assert ends.far_heard.lost is None
        # The same silence with a timer in time is a loss.
        engine.last_heard = now - 6
        leg._pulse_due = asyncio.get_running_loop().time()
        leg._pulse()
        assert ends.far_heard.lost == "silent"


async def test_packet_from_a_new_address_moves_nothing_until_its_check_is_answered() -> None:
    async with linked() as (ends, link):
        heard = packets_of(ends.far)
        ends.far.engine.learn_ssrc(ends.near.engine.ssrc)
        old = link.far_side
        # Whoever holds the new address passes our packet on, but cannot answer a check.
        link.down.drop = lambda data: data[:2] == BINDING_REQUEST
        await link.rebind()
        for number in range(5):
            ends.near.send_audio(number, number * 960, b"%d" % number)
        await until(lambda: len(heard) == 5, "the packets")
        assert ends.far.engine.remote == old
        assert ends.far.engine.moves == 0


def forged(kind: str, transaction: bytes, password: str) -> bytes:
    """What somebody at the new address may say instead of a right response."""
    wrong_class = stun.Class.ERROR if kind == "error" else stun.Class.RESPONSE
    message = stun.Message(stun.Method.BINDING, wrong_class, transaction)
    message.attributes["XOR-MAPPED-ADDRESS"] = ("127.0.0.1", 9)
    if kind != "unsigned":
        message.add_message_integrity(b"x" * 22 if kind == "wrong password" else password.encode())
    data = bytes(message)
    return data[:-9] if kind == "cut short" else data


@pytest.mark.parametrize(
    "kind", ["unsigned", "wrong password", "error", "cut short", "from elsewhere"]
)
async def test_forged_response_from_a_new_address_moves_nothing(kind: str) -> None:
    async with linked() as (ends, link):
        far, password = ends.far.engine, ends.near.engine._ice.local_password
        heard = packets_of(ends.far)
        far.learn_ssrc(ends.near.engine.ssrc)
        old = link.far_side
        asked: list[bytes] = []

        def keep(data: bytes) -> bool:
            if data[:2] == BINDING_REQUEST:
                asked.append(data[8:20])
            return data[:2] == BINDING_REQUEST

        link.down.drop = keep
        await link.rebind()
        ends.near.send_audio(1, 960, b"from the new address")
        await until(lambda: asked, "the question to the new address")
        if kind == "from elsewhere":
            await link.rebind()
        ends.near.port.send(forged(kind, asked[0], password), link.address)
        ends.near.send_audio(2, 1920, b"behind the response")
        await until(lambda: len(heard) == 2, "what was sent behind the response")
        assert (far.remote, far.moves) == (old, 0)


async def test_connection_closed_before_anybody_asked_says_that_it_is_closed() -> None:
    """Were it to say nothing, aiortc would ask again for ever without letting go of the loop."""
    leg = await new_leg()
    await leg.offer()
    await leg.close()
    assert isinstance(await leg.engine._ice.get_event(), ConnectionClosed)
