"""RTCP reports of real legs: when they go out, and that each of them is whole."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import types
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiortc.rtp import RtcpPacket, RtcpReceiverInfo, RtcpRrPacket, RtcpSdesPacket, RtcpSrPacket

from interview_peer.core import rtcp
from interview_peer.media import leg as leg_module
from interview_peer.media.forwarder import Forwarder
from interview_peer.media.leg import CNAME, PULSE_SECONDS, Leg
from tests.media.legs import Ends, Heard, connected, own_port, until
from tests.media.rtp import rtp


@dataclass
class Clock:
    """Time that moves when it is told to, and the timers that wait for it."""

    now: float = 1000.0
    _timers: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _numbers: Any = field(default_factory=itertools.count)

    def call_later(self, delay: float, call: Callable[[], None]) -> Clock:
        assert delay >= 0
        heapq.heappush(self._timers, (self.now + delay, next(self._numbers), call))
        return self

    def cancel(self) -> None:
        """A timer's; legs that are closed here are not run any further."""

    def run(self, seconds: float) -> None:
        """Let so much time pass, each timer at its own moment."""
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            due, _, call = heapq.heappop(self._timers)
            self.now = max(self.now, due)
            call()
        self.now = end

    def stall(self, seconds: float) -> None:
        """Let time pass while nothing runs; then all that is late runs at once."""
        self.now += seconds
        self.run(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The time that legs go by."""
    clock = Clock()
    monkeypatch.setattr(
        leg_module,
        "time",
        types.SimpleNamespace(
            monotonic=lambda: clock.now, time=lambda: 1_786_900_000.0 + clock.now
        ),
    )
    own = types.SimpleNamespace(**vars(asyncio))
    own.get_running_loop = lambda: clock
    monkeypatch.setattr(leg_module, "asyncio", own)
    return clock


Maker = Callable[[int], Leg]


@pytest.fixture
async def reporting(clock: Clock) -> AsyncIterator[tuple[Maker, dict[str, list[float]]]]:
    """Makes connected legs without far ends, by their SSRCs; and when each of them reports."""
    port, legs = await own_port(), list[Leg]()
    sent: dict[str, list[float]] = {}

    def make(ssrc: int) -> Leg:
        leg = Leg(f"leg {len(legs)}", port, Heard())
        legs.append(leg)
        times = sent[leg.name] = []
        leg.engine.ssrc = ssrc
        leg.engine.last_heard = float("inf")

        def note(packet: bytes) -> bool:
            times.append(clock.now)
            return True

        leg.engine.send_rtcp = note  # type: ignore[method-assign]
        leg._srtp_ready()
        return leg

    yield make, sent
    for leg in legs:
        await leg.close()
    port.close()


async def test_leg_reports_once_a_second(
    clock: Clock, reporting: tuple[Maker, dict[str, list[float]]]
) -> None:
    make, sent = reporting
    make(0x12345678)
    began = clock.now
    clock.run(60)
    (times,) = sent.values()
    assert len(times) == 60
    assert 0 < times[0] - began <= PULSE_SECONDS
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps == pytest.approx([1.0] * 59)


async def test_late_timers_do_not_make_reports_fewer(
    clock: Clock, reporting: tuple[Maker, dict[str, list[float]]]
) -> None:
    make, sent = reporting
    make(0x12345678)
    for _ in range(600):
        # Each turn of a busy loop takes 90 ms, so every timer is late.
        clock.stall(0.09)
    (times,) = sent.values()
    assert len(times) == pytest.approx(600 * 0.09, abs=1)


async def test_legs_that_connect_at_once_report_at_times_of_their_own(
    clock: Clock, reporting: tuple[Maker, dict[str, list[float]]]
) -> None:
    make, sent = reporting
    for number in range(64):
        make((number * 0x9E3779B9) & 0xFFFFFFFF)
    clock.run(10)
    assert all(len(times) == 10 for times in sent.values())
    firsts = sorted(times[0] for times in sent.values())
    # Evenly spread over half of a pulse, so at most a few in the same two hundredths of it.
    assert min(b - a for a, b in itertools.pairwise(firsts)) > PULSE_SECONDS / 2 / 64 / 4


async def test_stall_of_the_loop_does_not_bring_legs_into_step(
    clock: Clock, reporting: tuple[Maker, dict[str, list[float]]]
) -> None:
    make, sent = reporting
    for number in range(8):
        make(number << 29)
    clock.run(5)
    clock.stall(3.2)
    late = {name: times[-1] for name, times in sent.items() if times[-1] == clock.now}
    for times in sent.values():
        times.clear()
    clock.run(5)
    firsts = {round(times[0] % PULSE_SECONDS, 6) for times in sent.values()}
    assert late, "the stall made some of them late together"
    assert len(firsts) == 8
    for times in sent.values():
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert gaps == pytest.approx([1.0] * (len(times) - 1))


# -- what is in them ------------------------------------------------------------------------------


def report_now(leg: Leg) -> None:
    """Have a leg report in this step, and by itself no more."""
    leg._stop_pulse()
    leg._pulses = 0
    leg._pulse()
    leg._stop_pulse()


def compounds_at(leg: Leg) -> list[list[Any]]:
    """Every compound packet that reaches ``leg`` from now on, as aiortc reads it."""
    came: list[list[Any]] = []
    inner = leg.engine.on_rtcp

    def keep(data: bytes, at: float) -> None:
        came.append(list(RtcpPacket.parse(data)))
        inner(data, at)

    leg.engine.on_rtcp = keep
    return came


async def next_report(sender: Leg, came: list[list[Any]]) -> list[Any]:
    before = len(came)
    report_now(sender)
    await until(lambda: len(came) > before, "the report")
    return came[before]


def quiet(ends: Ends) -> None:
    ends.near._stop_pulse()
    ends.far._stop_pulse()


@pytest.mark.parametrize("from_near", [True, False], ids=["offering leg", "answering leg"])
async def test_every_compound_packet_of_a_leg_is_whole(from_near: bool) -> None:
    async with connected() as ends:
        quiet(ends)
        ours, theirs = (ends.near, ends.far) if from_near else (ends.far, ends.near)
        came, went = compounds_at(theirs), compounds_at(ours)

        receiver, description = await next_report(ours, came)
        assert isinstance(receiver, RtcpRrPacket), "nothing was sent yet"
        assert isinstance(description, RtcpSdesPacket)
        assert (receiver.ssrc, receiver.reports) == (ours.engine.ssrc, [])

        for number in range(5):
            ours.send_audio(number, number * 960, b"ours")
        # Number 2 is lost, and the last is 10 ms late by its time stamp.
        for number, timestamp in ((0, 0), (1, 960), (3, 2880), (4, 3360)):
            theirs.send_audio(number, timestamp, b"theirs")
        await until(lambda: ours.reception.packets == 4, "their audio")
        await next_report(theirs, went)

        sender, description = await next_report(ours, came)
        assert isinstance(sender, RtcpSrPacket)
        assert sender.ssrc == ours.engine.ssrc
        assert (sender.sender_info.packet_count, sender.sender_info.octet_count) == (5, 20)
        (chunk,) = description.chunks
        assert (chunk.ssrc, chunk.items) == (ours.engine.ssrc, [(1, CNAME.encode())])
        (block,) = sender.reports
        assert isinstance(block, RtcpReceiverInfo)
        assert block.ssrc == theirs.engine.ssrc
        assert (block.packets_lost, block.highest_sequence) == (1, 4)
        assert block.fraction_lost == 256 // 5
        assert block.jitter == int(ours.reception.jitter) > 0
        (told, _) = went[-1]
        assert block.lsr == (told.sender_info.ntp_timestamp >> 16) & 0xFFFFFFFF
        assert 0 < block.dlsr < 65536 * 5
        assert theirs.sending.round_trip is not None
        assert 0 <= theirs.sending.round_trip < 1


@pytest.mark.parametrize(
    ("lost_here", "lost_beyond", "told"),
    [(False, 0.0, 0.0), (False, 0.25, 0.25), (True, 0.25, 0.5), (True, 0.75, 0.75)],
)
@pytest.mark.parametrize("to_model", [True, False], ids=["to the model", "to the browser"])
async def test_loss_that_a_sender_is_told_is_the_larger_of_both_hops(
    to_model: bool, lost_here: bool, lost_beyond: float, told: float
) -> None:
    async with connected() as browser_side, connected(dtls_server=False) as model_side:
        browser, model = browser_side.near, model_side.far
        source, sink = browser_side.far, model_side.near
        talker = browser
        if not to_model:
            source, sink, talker = sink, source, model
        forwarder = Forwarder()
        forwarder.connect(source, sink)
        quiet(browser_side)
        quiet(model_side)
        talker.sending.ssrc = 0x0BADCAFE
        numbers = (1, 2, 3, 4, 5, 6, 7, 8) if not lost_here else (1, 3, 5, 8)
        for number in numbers:
            assert talker.engine.send_rtp(rtp(number, number * 960, b"x", ssrc=0x0BADCAFE))
        await until(lambda: source.reception.packets == len(numbers), "the audio")
        sink.sending.heard = rtcp.ReportBlock(sink.engine.ssrc, lost_beyond, 9, 0, 0, 0)
        came = compounds_at(talker)
        report, _ = await next_report(source, came)
        (block,) = report.reports
        assert block.ssrc == 0x0BADCAFE
        assert block.fraction_lost == int(told * 256)
        forwarder.stop()
