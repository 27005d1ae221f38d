"""The benchmark's parsers, against kernel text as it looks, and its arithmetic."""

from __future__ import annotations

import math
from array import array
from typing import Any

import pytest

from bench import figures, goals, machine, packets, pump, report
from interview_peer.core import opus
from interview_peer.media import native
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
        "late_ms": [0.0, 0.1, 0.2, 0.3],
        "health": {"late": [0, 0], "lag_ms": 1.0},
        "rss_per_call": 500_000,
        "threads": 2,
        "repetition": repetition,
        **changed,
    }


def test_ratio_compares_streams_within_one_repetition() -> None:
    results = figures.Results()
    for repetition, ours, theirs in ((0, 0.2, 0.1), (1, 0.4, 0.4)):
        results.add("ours", 50, 0.0, window(50, ours, repetition))
        results.add("janus", 50, 0.0, window(50, theirs, repetition))
    # An interview forwards two streams, an echo one.
    assert figures.ratio(results, 50, "janus", 50) == pytest.approx([1.0, 0.5])


def test_event_cost_is_the_difference_that_events_make() -> None:
    results = figures.Results()
    results.add("ours", 50, 0.0, window(50, 0.20))
    results.add("ours", 50, 5.0, window(50, 0.25))
    assert figures.event_cost(results, 50) == pytest.approx([0.2])


def test_largest_number_is_the_last_before_the_first_that_fails() -> None:
    results = figures.Results()
    results.add("ours", 100, 0.0, window(100, 0.3))
    results.add("ours", 200, 0.0, window(200, 0.6, received=[100, 99]))
    results.add("ours", 300, 0.0, window(300, 0.9))
    best, beyond = figures.largest(results, 0.0)
    assert best == 100
    assert beyond == "at 200: p99 0.5 ms, 1 lost"


def test_what_the_generator_dropped_counts_as_lost_and_is_told() -> None:
    dropped = window(1, 0.1, received=[90, 100], generator_drops=10)
    assert figures.lost(dropped) == 10
    assert "lost 10 (10 dropped by the generator)" in figures.brief(dropped)
    assert figures.lost(window(1, 0.1, received=[90, 100], kernel_drops=12)) == 12


def test_one_bad_window_of_five_is_not_hidden_by_the_good_ones() -> None:
    results = figures.Results()
    for repetition in range(5):
        lost = repetition == 3
        results.add("ours", 50, 0.0, window(50, 0.3, repetition, received=[100 - lost, 100]))
    assert not figures.fits(results.of("ours", 50))
    assert verdicts(results)["packets lost, N = 50"] is False


def test_events_that_did_not_arrive_do_not_fit() -> None:
    assert figures.fits([window(50, 0.3, events_sent=9, events_received=9)])
    assert not figures.fits([window(50, 0.3, events_sent=9, events_received=8)])


@pytest.mark.parametrize("direction", [0, 1])
def test_direction_that_could_not_be_timed_is_endlessly_late(direction: int) -> None:
    timed = [[0.1, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1]]
    found = window(50, 0.3, delays_ms=[None if n == direction else timed[n] for n in (0, 1)])
    assert figures.worst_p99(found) == math.inf
    assert not figures.fits([found])
    assert "not measured" in figures.brief(found)
    results = figures.Results()
    results.add("ours", 50, 0.0, found)
    assert verdicts(results)["added delay p50, N = 50, ms"] is False
    assert verdicts(results)["added delay p99, N = 50, ms"] is False
    assert "not measured" in report.document(results, 3.0, []).split("## Our server")[1]


def test_window_in_which_nothing_was_sent_is_no_good_one() -> None:
    empty = window(50, 0.3, sent=[0, 0], received=[0, 0], delays_ms=[None, None])
    assert not figures.fits([empty])


def test_echo_has_one_direction_alone() -> None:
    echo = window(50, 0.3, sent=[100, 0], received=[100, 0], delays_ms=[[1, 2, 3, 4], None])
    assert figures.worst_p99(echo) == 3


def test_server_that_says_it_was_late_misses_its_goals() -> None:
    results = figures.Results()
    for late, lag in (([0, 0], 1.0), ([2, 1], 20.1)):
        results.add("ours", 50, 0.0, window(50, 0.3, health={"late": late, "lag_ms": lag}))
    found = verdicts(results)
    assert found["longest hold of the loop, N = 50, ms"] is False
    assert found["share of late packets, N = 50"] is False
    row = our_row(results, "50")
    assert "**20.1**" in row
    assert "**1.50%**" in row


def test_server_that_says_nothing_of_itself_misses_them_too() -> None:
    results = figures.Results()
    results.add("ours", 50, 0.0, window(50, 0.3, health=None))
    assert verdicts(results)["longest hold of the loop, N = 50, ms"] is False
    assert verdicts(results)["share of late packets, N = 50"] is False


def test_set_up_times_stand_in_every_row() -> None:
    results = figures.Results()
    ramp: dict[str, Any] = {
        "ramp_seconds": [0.030, 0.040, 0.050],
        "ramp_cpu": [0.010, 0.012, 0.014],
    }
    results.add("ours", 50, 0.0, window(50, 0.3, **ramp))
    assert "| 40 | 12 |" in our_row(results, "50")


def test_row_with_a_backlog_stands_beside_the_one_without() -> None:
    results = figures.Results()
    results.add("ours", 50, 0.0, window(50, 0.3))
    waiting: dict[str, Any] = {"notices_per_second": 80.0, "notices_waiting": 9_000}
    results.add("backlog", 50, 0.0, window(50, 0.4, **waiting))
    page = report.document(results, 3.0, [])
    without, with_one = (
        (line for line in page.splitlines() if line.endswith("- | - |")),
        [line for line in page.splitlines() if line.startswith("| 50 with backlog |")],
    )
    assert next(without).startswith("| 50 |")
    assert with_one[0].endswith("| 80 | 9000 |")
    assert verdicts(results)["added delay p99, N = 50 with a backlog of notices, ms"] is True


def verdicts(results: figures.Results) -> dict[str, bool | None]:
    return {goal.name: goal.reached for goal in goals.goals(results)}


def our_row(results: figures.Results, interviews: str) -> str:
    page = report.document(results, 3.0, []).split("## Our server")[1]
    return next(line for line in page.splitlines() if line.startswith(f"| {interviews} |"))


@pytest.mark.parametrize(("built", "told"), [(True, "native code"), (False, "Python alone")])
def test_page_tells_what_forwarded(built: bool, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "BUILT", built)
    assert f"- Our audio is forwarded by {told}" in report.document(figures.Results(), 4.0, [])


def test_page_shows_a_missed_goal() -> None:
    results = figures.Results()
    results.add("ours", 50, 0.0, window(50, 0.2, delays_ms=[[0.1, 1, 1, 1], [0.3, 1, 1, 1]]))
    page = report.document(results, 4.0, ["A note."])
    assert "| **MISSED** | added delay p50, N = 50, ms | <= 0.2 | 0.30 |" in page
    assert "| reached | added delay p99, N = 50, ms | <= 2 | 1.00 |" in page
    verdict, first = page.index("1 MISSED: added delay p50, N = 50, ms."), page.index("reached |")
    assert verdict < page.index("**MISSED** |") < first, "seen before anything that was reached"
    assert "| not measured | set-up p50, ms | <= 150 | not measured |" in page
    assert "- A note." in page
