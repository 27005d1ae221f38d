"""The benchmark's parsers, against kernel text as it looks, and its arithmetic."""

from __future__ import annotations

from array import array

import pytest

from bench import machine, packets, pump, report
from interview_peer.core import opus
from interview_peer.types import Json

UDP_TABLE = """\
   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  271: 0100007F:1F91 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0000000000000000 17
  300: 0100007F:9C41 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0000000000000000 5
"""  # noqa: E501

STAT = """\
cpu  900 0 300 5000 20 0 30 0 0 0
cpu0 400 10 100 2500 10 5 15 20 7 0
cpu1 500 0 200 2500 10 0 15 0 0 0
"""


def test_scheduler_times_are_read_as_seconds() -> None:
    found = machine.schedstat("1500000000 250000000 99\n") - machine.schedstat("500000000 0 1")
    assert found == machine.CpuTime(1.0, 0.25)


def test_busy_time_leaves_out_idling_waiting_and_guests() -> None:
    assert machine.busy_seconds(STAT, 0) == pytest.approx(550 / machine.TICKS)


def test_only_drops_of_the_processes_own_sockets_count() -> None:
    assert machine.drops_of(UDP_TABLE, {"4711"}) == 17
    assert machine.drops_of(UDP_TABLE, {"4711", "4712", "1"}) == 22


def test_status_fields_are_read_by_name() -> None:
    text = "VmHWM:\t  120 kB\nVmRSS:\t    96 kB\nThreads:\t12\n"
    assert machine.status_field(text, "VmRSS") == 96
    assert machine.status_field(text, "Threads") == 12


def test_stamped_speech_stays_one_opus_frame_of_20_ms() -> None:
    for head in packets.speech()[:200]:
        packet = packets.stamped(head + bytes(packets.STAMP.size), 2**60 + 5)
        assert opus.packet_samples(packet) == packets.FRAME
        assert packets.stamp_of(packet) == 2**60 + 5


def test_packet_of_several_frames_is_not_stamped() -> None:
    with pytest.raises(ValueError, match="one frame"):
        packets.with_room(b"\xf9ab")


def test_event_stamp_is_read_from_our_events_alone() -> None:
    text = f'{{"type":"x","event_id":"event_{1234:021d}","delta":"a"}}'
    assert pump.event_stamp(text) == 1234
    assert pump.event_stamp('{"type":"x","event_id":"event_CAbc"}') is None
    assert pump.event_stamp('{"type":"x"}') is None


class Sender:
    def __init__(self, phase: float, sent: list[tuple[float, int]]) -> None:
        self.phase = phase
        self._sent = sent

    def send(self, cycle: int) -> None:
        self._sent.append((self.phase, cycle))


def test_everyone_sends_once_a_period_in_order_of_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[float, int]] = []
    now = 10.0
    monkeypatch.setattr("bench.pump.time.monotonic", lambda: now)
    ring = pump.Ring(1.0)
    ring.restart([Sender(0.75, sent), Sender(0.25, sent)], now)
    late = array("q")
    now = 10.5
    ring.run(late)
    now = 11.5
    ring.run(late)
    assert sent == [(0.25, 10), (0.75, 10), (0.25, 11)]
    assert [lateness // 1_000_000 for lateness in late] == [250, 750, 250]


def window(calls: int, cpu: float, repetition: int = 0, **changed: object) -> Json:
    return {
        "calls": calls,
        "events_per_second": 0.0,
        "cpu": cpu,
        "core_busy": cpu,
        "generator_cpu": 0.1,
        "sent": [100, 100],
        "received": [100, 100],
        "delays_ms": [[0.1, 0.2, 0.3, 0.4], [0.1, 0.2, 0.5, 0.6]],
        "event_delays_ms": None,
        "events_sent": 0,
        "events_received": 0,
        "kernel_drops": 0,
        "generator_drops": 0,
        "rss_per_call": 500_000,
        "threads": 2,
        "repetition": repetition,
        **changed,
    }


def test_ratio_compares_streams_within_one_repetition() -> None:
    results = report.Results()
    for repetition, ours, theirs in ((0, 0.2, 0.1), (1, 0.4, 0.4)):
        results.add("ours", 50, 0.0, window(50, ours, repetition))
        results.add("janus", 50, 0.0, window(50, theirs, repetition))
    # An interview forwards two streams, an echo one.
    assert report.ratio(results, 50, "janus", 50) == pytest.approx([1.0, 0.5])


def test_event_cost_is_the_difference_that_events_make() -> None:
    results = report.Results()
    results.add("ours", 50, 0.0, window(50, 0.20))
    results.add("ours", 50, 5.0, window(50, 0.25))
    assert report.event_cost(results, 50) == pytest.approx([0.2])


def test_largest_number_is_the_last_before_the_first_that_fails() -> None:
    results = report.Results()
    results.add("ours", 100, 0.0, window(100, 0.3))
    results.add("ours", 200, 0.0, window(200, 0.6, received=[100, 99]))
    results.add("ours", 300, 0.0, window(300, 0.9))
    best, beyond = report.largest(results, 0.0)
    assert best == 100
    assert beyond == "at 200: p99 0.5 ms, 1 lost"


def test_packets_dropped_by_the_generator_are_not_the_servers() -> None:
    assert report.lost(window(1, 0.1, received=[90, 100], generator_drops=10)) == 0
    assert report.lost(window(1, 0.1, received=[90, 100], kernel_drops=12)) == 12


def test_page_shows_a_missed_goal() -> None:
    results = report.Results()
    results.add("ours", 50, 0.0, window(50, 0.2, delays_ms=[[0.1, 1, 1, 1], [0.3, 1, 1, 1]]))
    page = report.document(results, 4.0, 5, ["A note."])
    assert "| added delay p50, N = 50, ms | <= 0.2 | 0.30 | **missed** |" in page
    assert "| added delay p99, N = 50, ms | <= 2 | 1.00 | reached |" in page
    assert "- A note." in page
