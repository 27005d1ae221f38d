"""How late we are: the meters' arithmetic, and that every packet both ways is judged."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest

from interview_peer.media.descriptors import Descriptors
from interview_peer.media.forwarder import Forwarder
from interview_peer.media.leg import Leg
from interview_peer.media.meters import (
    BOUNDS,
    LAG_BOUNDS,
    LATE_SECONDS,
    SAMPLE_EVERY,
    DelayMeter,
    LoopWatch,
    MediaLoop,
    looks_of,
    media_health,
)
from interview_peer.media.udp import BATCH, UdpPort
from interview_peer.types import Json
from tests.media.legs import connected, until

HOLD_SECONDS = 0.03
"""Far longer than a packet may take, also on a busy machine."""

# -- delays -------------------------------------------------------------------------------------


def meter_of(*seconds: float) -> DelayMeter:
    meter = DelayMeter()
    for one in seconds:
        meter.add(one)
    return meter


def test_quantile_is_the_upper_bound_of_its_bucket() -> None:
    meter = meter_of(*[0.00005] * 90, *[0.0015] * 9, 0.004)
    assert meter.quantile(0.5) == 0.0001
    assert meter.quantile(0.95) == 0.002
    assert meter.quantile(1.0) == 0.004, "no delay was longer than the longest"
    assert (meter.count, meter.largest) == (100, 0.004)
    assert meter.total == pytest.approx(90 * 0.00005 + 9 * 0.0015 + 0.004)


def test_delay_on_a_bound_belongs_below_it() -> None:
    meter = meter_of(BOUNDS[2])
    assert meter.buckets.index(1) == 2
    assert meter.quantile(0.5) == BOUNDS[2]


def test_delay_beyond_all_bounds_is_told_as_it_is() -> None:
    assert meter_of(0.00005, 7.5).quantile(0.99) == 7.5


def test_meter_without_delays_tells_zero() -> None:
    assert DelayMeter().quantile(0.99) == 0.0


def test_late_is_what_took_longer_than_the_limit() -> None:
    meter = meter_of(LATE_SECONDS, LATE_SECONDS * 1.01)
    assert meter.late == 1


def test_packet_outside_the_sample_counts_as_late_and_changes_no_quantile() -> None:
    meter = meter_of(0.00005)
    meter.judge(0.2)
    assert (meter.late, meter.count, meter.largest) == (1, 1, 0.2)
    assert meter.quantile(1.0) == 0.0001


def test_figures_are_milliseconds() -> None:
    assert meter_of(0.00015, 0.0123456).figures() == {
        "added_delay_p50_ms": 0.2,
        "added_delay_p99_ms": 12.346,
        "added_delay_largest_ms": 12.346,
        "sampled": 2,
        "late": 1,
    }


# -- the loop -----------------------------------------------------------------------------------


def test_holds_are_counted_by_every_bound_they_exceed() -> None:
    watch = LoopWatch()
    for seconds in (0.0005, 0.003, 0.007, 2.0):
        watch.note(seconds, 1.0)
    assert [watch.held_over(bound) for bound in LAG_BOUNDS] == [3, 3, 2, 1, 1, 1, 1, 1, 1]


def test_lag_is_the_longest_hold_of_the_last_ten_seconds_at_least() -> None:
    watch = LoopWatch()
    watch.note(0.5, 100.0)
    watch.note(0.2, 101.0)
    assert watch.recent(109.9) == 0.5
    watch.note(0.1, 111.0)
    assert watch.recent(119.9) == 0.5
    assert watch.recent(121.5) == 0.1
    assert watch.recent(200.0) == 0.0


@pytest.fixture
def on_a_media_loop() -> Callable[[Callable[[], Awaitable[None]]], None]:
    def run(work: Callable[[], Awaitable[None]]) -> None:
        async def main() -> None:
            await work()

        with asyncio.Runner(loop_factory=MediaLoop) as runner:
            runner.run(main())

    return run


Run = Callable[[Callable[[], Awaitable[None]]], None]


def test_every_round_that_holds_the_loop_is_noted(on_a_media_loop: Run) -> None:
    async def work() -> None:
        watch = LoopWatch()
        watch.start()
        for _ in range(3):
            await asyncio.sleep(0)
            time.sleep(0.012)  # noqa: ASYNC251
        await asyncio.sleep(0)
        assert watch.held_over(0.01) == 3
        assert watch.recent(time.monotonic()) >= 0.012
        await watch.close()
        time.sleep(0.012)  # noqa: ASYNC251
        await asyncio.sleep(0)
        assert watch.held_over(0.01) == 3, "closed"

    on_a_media_loop(work)


def test_waiting_for_something_to_happen_does_not_hold_the_loop(on_a_media_loop: Run) -> None:
    async def work() -> None:
        watch = LoopWatch()
        watch.start()
        await asyncio.sleep(0.25)
        # A busy machine may take the processor away, but not for most of that.
        assert watch.recent(time.monotonic()) < 0.2
        await watch.close()

    on_a_media_loop(work)


async def test_another_loop_is_asked_how_late_it_comes() -> None:
    watch = LoopWatch()
    watch.start()
    await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251
    await until(lambda: watch.held_over(0.1), "the hold")
    await watch.close()


def test_look_before_the_newest_is_not_younger_than_what_is_read(on_a_media_loop: Run) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        looks = looks_of(loop)
        one, other = socket.socketpair()
        with one, other:
            other.send(b"there is something to be read")
            loop.add_reader(one, lambda: None)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            earlier = time.monotonic()
            assert 0 < looks.before <= earlier
            await asyncio.sleep(0)
            assert looks.before <= earlier
            await asyncio.sleep(0)
            assert looks.before >= earlier
            # A look that shows nothing may have been cut short by a signal: it proves nothing.
            loop.remove_reader(one)
            before = looks.before
            for _ in range(3):
                await asyncio.sleep(0)
            assert looks.before == before

    on_a_media_loop(work)


# -- packets ------------------------------------------------------------------------------------


@dataclass
class Path:
    """Browser, relay, model: both directions, as an interview has them."""

    browser: Leg
    our_browser: Leg
    our_model: Leg
    model: Leg
    to_browser: DelayMeter
    _count: int = 0

    @property
    def to_model(self) -> DelayMeter:
        return self.our_browser.port.delay

    def speak(self, packets: int) -> None:
        """Both ends send so many packets."""
        for _ in range(packets):
            self._count += 1
            for leg in (self.browser, self.model):
                leg.send_audio(self._count, self._count * 960, b"speech")

    async def heard(self) -> None:
        """Everything has arrived."""
        for leg in (self.browser, self.model):
            await until(lambda leg=leg: leg.reception.packets == self._count, "all packets")  # type: ignore[misc]
        for leg in (self.our_browser, self.our_model):
            leg.settle_received()


@contextlib.asynccontextmanager
async def path() -> AsyncIterator[Path]:
    port, to_browser = await UdpPort.open("127.0.0.1"), DelayMeter()
    model_port = await UdpPort.open("127.0.0.1", delay=to_browser)
    up, down = Forwarder(), Forwarder()
    async with (
        connected(far_port=port) as ends,
        connected(near_port=model_port) as beyond,
    ):
        up.connect(ends.far, beyond.near)
        down.connect(beyond.near, ends.far)
        # What connecting took is not what is asked.
        for meter in (port.delay, to_browser, ends.far.engine.delay, beyond.near.engine.delay):
            meter.__init__()  # type: ignore[misc]
        yield Path(ends.near, ends.far, beyond.near, beyond.far, to_browser)
    port.close()


@pytest.mark.parametrize("media_loop", [True, False])
def test_every_packet_that_waited_is_late_both_ways(media_loop: bool, on_a_media_loop: Run) -> None:
    packets = BATCH + 5

    async def work() -> None:
        async with path() as relay:
            relay.speak(packets)
            # They lie in our sockets while other work holds the loop.
            time.sleep(HOLD_SECONDS)  # noqa: ASYNC251
            await relay.heard()
            for meter in (relay.to_model, relay.to_browser):
                assert meter.late == packets
                assert meter.largest >= HOLD_SECONDS

    if media_loop:
        on_a_media_loop(work)
    else:
        asyncio.run(_of(work))


async def _of(work: Callable[[], Awaitable[None]]) -> None:
    await work()


def test_legs_keep_their_own_delays(on_a_media_loop: Run) -> None:
    async def work() -> None:
        async with path() as one, path() as other:
            for _ in range(2 * SAMPLE_EVERY):
                one.speak(1)
                await one.heard()
            for leg in (one.our_browser, one.our_model):
                received: Json = leg.statistics()["received"]
                assert received["packets"] == 2 * SAMPLE_EVERY
                assert received["sampled"] >= 1
                assert 0 < received["added_delay_p50_ms"] < 1000
            for leg in (other.our_browser, other.our_model):
                assert leg.statistics()["received"]["sampled"] == 0

    on_a_media_loop(work)


def test_health_tells_both_directions_and_the_loop() -> None:
    async def work() -> None:
        watch = LoopWatch()
        watch.note(0.0021, time.monotonic())
        async with path() as relay:
            relay.speak(3)
            time.sleep(HOLD_SECONDS)  # noqa: ASYNC251
            await relay.heard()
            relay.our_browser.port.dropped["unknown"] += 1
            health = media_health(
                relay.our_browser.port, relay.to_browser, watch, Descriptors(None)
            )
        assert health["to_model"]["late"] == health["to_browser"]["late"] == 3
        assert health["loop"]["lag_ms"] == 2.1
        assert health["loop"]["held_over_ms"] == {
            **dict.fromkeys(("1", "2"), 1),
            **dict.fromkeys(("5", "10", "20", "50", "100", "200", "500"), 0),
        }
        assert health["dropped"]["unknown"] >= 1

    asyncio.run(_of(work))


async def test_reports_and_checks_are_no_audio() -> None:
    async with path() as relay:
        ours = relay.our_browser
        ours.port._wake_ups = SAMPLE_EVERY - 1
        heard = ours.engine.last_heard
        relay.browser.engine.send_rtcp(b"\x80\xc9\x00\x01\x00\x00\x00\x07")
        await until(lambda: ours.engine.last_heard > heard, "the report")
        assert relay.to_model.count == relay.to_model.late == 0


@pytest.mark.python_forwarding
def test_packet_in_time_costs_no_look_at_the_kernels_clock(
    on_a_media_loop: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with path() as relay:
            measured: list[bool] = []
            port = relay.our_browser.port
            real = port._measured

            def measure(sample: bool) -> None:
                measured.append(sample)
                real(sample)

            monkeypatch.setattr(port, "_measured", measure)
            # As if the loop had looked just now, every time.
            monkeypatch.setattr(port, "_looks", type(port._looks)(time.monotonic() + 3600))
            for _ in range(2 * SAMPLE_EVERY):
                relay.speak(1)
                await relay.heard()
            assert measured
            assert all(measured), "only the sample was measured"
            assert len(measured) <= 3

    on_a_media_loop(work)
