"""Where packets land on the time line, against the truth of a simulated sender."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import accumulate

import pytest

from interview_peer.core.opus import SILENCE_20_MS, packet_samples
from interview_peer.core.timeline import (
    FILL_LAG_SECONDS,
    HOLD_SECONDS,
    LOOK_SECONDS,
    Timeline,
)
from tests.storage.senders import FRAME, Sender, index_of

START = 1_000.0
BOUND = 0.020
"""What the recording promises: each speaker within 20 ms of true time."""


class Line:
    """A time line's output, with the position of every packet in it."""

    def __init__(self, sender: Sender, tail: float = 1.0) -> None:
        self.timeline = Timeline(START)
        self.packets: list[bytes] = []
        self.at: dict[int, float] = {}
        self.end = sender.now + tail
        self._position = 0
        place = self.timeline.place
        for now, batch in sender.batches(self.end):
            for each in batch:
                self._take(place(each.at, each.sequence, each.timestamp, each.payload, each.source))
            self._take(self.timeline.fill_to(now))
        self._take(self.timeline.drain())
        self.counters = self.timeline.counters

    def _take(self, packets: list[bytes]) -> None:
        for packet in packets:
            samples = packet_samples(packet)
            assert samples > 0
            index = index_of(packet)
            if index is not None:
                assert index not in self.at, "written twice"
                self.at[index] = START + self._position / 48_000
            self._position += samples
            self.packets.append(packet)
        assert self._position == self.timeline.position

    def errors(self, sender: Sender) -> dict[int, float]:
        """Placed minus true, seconds, by frame index."""
        return {index: at - sender.true[index] for index, at in self.at.items()}


def worst(line: Line, sender: Sender) -> float:
    return max(abs(error) for error in line.errors(sender).values())


def test_a_clean_stream_is_passed_as_it_is() -> None:
    sender = Sender(START)
    sender.talk(5)
    line = Line(sender)
    assert list(line.at) == list(range(250))
    assert worst(line, sender) < 0.003
    assert line.counters.packets == 250
    assert line.counters.lost == line.counters.late == line.counters.concealed == 0


def test_position_zero_is_the_start_of_the_recording() -> None:
    sender = Sender(START + 7.5, delay=0.1)
    sender.talk(1)
    line = Line(sender)
    assert line.at[0] - START == pytest.approx(7.6, abs=0.003)
    assert line.packets[: int(7.5 / 0.02)] == [SILENCE_20_MS] * 375


@pytest.mark.parametrize("clock_stands", [True, False])
@pytest.mark.parametrize("seconds", [0.5, 3.0, 40.0])
def test_speech_after_a_pause_lands_where_it_was_spoken(clock_stands: bool, seconds: float) -> None:
    sender = Sender(START)
    sender.talk(2)
    sender.pause(seconds, clock_stands=clock_stands)
    sender.talk(2)
    line = Line(sender)
    assert len(line.at) == 200
    assert worst(line, sender) < 0.006
    assert line.counters.reanchors == (1 if clock_stands else 0)


def test_packets_far_apart_are_not_held_for_ever() -> None:
    line = Timeline(START)
    for index in range(40):
        at = START + 0.25 * index
        line.place(at, index, index * 12_000, b"\x78ab")
        assert line.counters.packets >= index - 1
    line.drain()
    assert line.counters.packets == 40


def test_a_clock_that_stands_twice_in_short_order_is_noticed_twice() -> None:
    sender = Sender(START)
    sender.talk(2)
    sender.pause(1, clock_stands=True)
    sender.talk(0.1)
    sender.pause(0.26, clock_stands=True)
    sender.talk(2)
    line = Line(sender)
    assert worst(line, sender) < BOUND
    assert line.counters.reanchors == 2


def test_several_pauses_of_a_standing_clock_do_not_add_up() -> None:
    sender = Sender(START)
    for _ in range(12):
        sender.talk(1)
        sender.pause(1.7, clock_stands=True)
    line = Line(sender)
    assert worst(line, sender) < 0.006
    assert line.counters.reanchors == 11


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_up_to_three_missing_frames_are_concealed(missing: int) -> None:
    sender = Sender(START)
    sender.frames(100, lost=range(50, 50 + missing))
    line = Line(sender)
    first = line.packets.index(sender.deliveries[50].payload)
    assert line.packets[first - missing : first] == [b"\x78"] * missing
    assert line.counters.concealed == line.counters.lost == missing
    assert worst(line, sender) < 0.003


def test_more_than_three_missing_frames_become_silence() -> None:
    sender = Sender(START)
    sender.frames(100, lost=range(50, 54))
    line = Line(sender)
    first = line.packets.index(sender.deliveries[50].payload)
    assert line.packets[first - 4 : first] == [SILENCE_20_MS] * 4
    assert line.counters.concealed == 0
    assert line.counters.lost == 4
    assert worst(line, sender) < 0.003


def test_a_frame_that_never_was_sent_is_concealed_but_not_lost() -> None:
    line = Timeline(START)
    for index in range(20):
        jump = FRAME if index >= 10 else 0
        line.place(START + 0.02 * (index + (index >= 10)), index, index * FRAME + jump, b"\x78ab")
    line.drain()
    assert line.counters.lost == 0
    assert line.counters.concealed == 1


def test_packets_out_of_order_are_written_in_order() -> None:
    sender = Sender(START, jitter=0.09, seed=5)
    sender.talk(20)
    line = Line(sender)
    order = [d.sequence for d in sorted(sender.deliveries, key=lambda d: d.at)]
    assert order != sorted(order)
    assert list(line.at) == list(range(1_000))
    assert line.counters.lost == line.counters.late == line.counters.concealed == 0
    assert worst(line, sender) < BOUND


def test_order_holds_across_two_flushes() -> None:
    line = Timeline(START)
    packets = [b"\x78" + bytes((index,)) * 4 for index in range(60)]
    written: list[bytes] = []
    for index in [*range(24), *range(25, 30)]:
        written += line.place(START + 0.02 * index, index, index * FRAME, packets[index])
    written += line.fill_to(START + 0.6)
    written += line.place(START + 0.61, 24, 24 * FRAME, packets[24])
    for index in range(31, 40):
        written += line.place(START + 0.02 * index, index, index * FRAME, packets[index])
    written += line.place(START + 0.79, 30, 30 * FRAME, packets[30])
    written += line.drain()
    assert written == packets[:40]


def test_a_missing_packet_is_not_waited_for_longer_than_the_hold() -> None:
    line = Timeline(START)
    for index in range(30):
        line.place(START + 0.02 * index, index, index * FRAME, b"\x78ab")
    line.place(START + 0.62, 31, 31 * FRAME, b"\x78ab")
    assert line.fill_to(START + 0.62 + HOLD_SECONDS - 0.01) == []
    assert line.fill_to(START + 0.62 + HOLD_SECONDS + 0.01) == [b"\x78", b"\x78ab"]
    assert line.place(START + 0.84, 30, 30 * FRAME, b"\x78ab") == []
    assert (line.counters.lost, line.counters.late) == (1, 1)


def test_duplicates_are_dropped_and_counted() -> None:
    sender = Sender(START, duplicates=0.3, seed=3)
    sender.talk(10)
    line = Line(sender)
    repeated = len(sender.deliveries) - 500
    assert repeated > 100
    assert line.counters.duplicate == repeated
    assert line.counters.packets == 500
    assert worst(line, sender) < 0.003


def test_a_payload_that_is_not_opus_leaves_no_trace_but_a_count() -> None:
    line = Timeline(START)
    written: list[bytes] = []
    for index in range(30):
        payload = b"" if index == 10 else b"\x7b" if index == 11 else b"\x78ab"
        written += line.place(START + 0.02 * index, index, index * FRAME, payload)
    written += line.drain()
    assert line.counters.invalid == 2
    assert line.counters.concealed == 2
    assert sum(map(packet_samples, written)) == 30 * FRAME


@pytest.mark.parametrize(("sequence", "timestamp"), [(65_500, 0xFFFFFFFF - 30_000), (65_535, 7)])
def test_sequence_and_time_wrap_around(sequence: int, timestamp: int) -> None:
    sender = Sender(START, sequence=sequence, timestamp=timestamp, jitter=0.05, loss=0.02, seed=9)
    sender.talk(6)
    sender.pause(3, clock_stands=False)
    sender.talk(3)
    line = Line(sender)
    assert line.counters.packets == sum(sender.delivered)
    assert line.counters.reanchors == 0
    assert worst(line, sender) < BOUND


def test_an_outage_leaves_silence_and_nothing_shifts() -> None:
    sender = Sender(START)
    sender.talk(3)
    sender.talk(5, lost=True)
    sender.talk(3)
    line = Line(sender)
    assert line.counters.lost == 250
    assert line.counters.reanchors == 0
    assert worst(line, sender) < 0.003


def test_held_up_packets_come_too_late_and_do_not_push_the_rest() -> None:
    sender = Sender(START)
    sender.talk(3)
    sender.talk(2, held_until_end=True)
    sender.talk(3)
    line = Line(sender)
    errors = line.errors(sender)
    assert max(map(abs, errors.values())) < 0.006
    assert all(index in errors for index in range(250, 400))
    assert line.counters.late > 60
    assert line.counters.reanchors == 0


def test_a_sender_that_falls_behind_for_good_is_placed_by_arrival() -> None:
    """A queue that grew to a second and stays: later speech is late, but it is heard."""
    line = Timeline(START)
    written = 0
    for index in range(400):
        late = 1.0 if index >= 150 else 0.0
        at = START + 0.02 * index + late
        if index == 150:
            line.fill_to(at - 0.01)
        line.place(at, index, index * FRAME, b"\x78ab")
        if index % 25 == 0:
            line.fill_to(at)
    line.drain()
    written = line.position
    assert line.counters.reanchors == 1
    assert written / 48_000 == pytest.approx(400 * 0.02 + 1.0, abs=0.01)


def test_time_set_back_by_the_sender_costs_half_a_second_at_most() -> None:
    line = Timeline(START)
    for index in range(500):
        back = 3_000_000 if index >= 250 else 0
        at = START + 0.02 * index
        line.place(at, index, (5_000_000 + index * FRAME - back) & 0xFFFFFFFF, b"\x78ab")
        if index % 25 == 0:
            line.fill_to(at)
    line.drain()
    assert line.counters.reanchors == 1
    assert line.counters.late <= 25
    assert line.position / 48_000 == pytest.approx(10.0, abs=0.01)


def test_time_set_forward_by_the_sender_does_not_write_hours_of_silence() -> None:
    line = Timeline(START)
    for index in range(500):
        jump = 48_000 * 7_200 if index >= 250 else 0
        line.place(START + 0.02 * index, index, index * FRAME + jump, b"\x78ab")
    line.drain()
    assert line.counters.reanchors == 1
    assert line.counters.packets == 500
    assert line.position == 500 * FRAME


def test_a_new_source_is_placed_by_its_arrival() -> None:
    sender = Sender(START)
    sender.talk(3)
    sender.pause(1.3, clock_stands=True)
    sender.restart()
    sender.talk(3)
    sender.restart()
    sender.talk(3)
    line = Line(sender)
    assert len(line.at) == 450
    assert worst(line, sender) < 0.006
    assert line.counters.reanchors == 2
    assert line.counters.lost == 0


def test_a_sender_that_starts_anew_under_the_same_source_is_recognised() -> None:
    line = Timeline(START)
    for index in range(100):
        line.place(START + 0.02 * index, 40_000 + index, index * FRAME, b"\x78ab")
    for index in range(100):
        line.place(START + 5 + 0.02 * index, 100 + index, 77 + index * FRAME, b"\x78ab")
    line.drain()
    assert line.counters.packets == 200
    assert line.counters.lost == 0
    assert line.position / 48_000 == pytest.approx(7.0, abs=0.003)


def test_silence_is_written_while_nothing_arrives() -> None:
    line = Timeline(START)
    for tick in range(1, 21):
        line.fill_to(START + tick * 0.5)
        behind = START + tick * 0.5 - (START + line.position / 48_000)
        assert FILL_LAG_SECONDS - 1e-6 <= behind < FILL_LAG_SECONDS + 0.021
    assert line.counters.silence_ms == pytest.approx(9_600, abs=21)


def test_padding_ends_exactly_and_never_goes_back() -> None:
    line = Timeline(START)
    line.pad_to(48_000 + 119)
    assert line.position == 48_120
    assert line.pad_to(48_000) == []
    assert line.position == 48_120


@pytest.mark.parametrize("samples", [120, 240, 480, 1_920, 2_880, 5_760])
def test_other_packet_durations_stay_gapless(samples: int) -> None:
    payload = {
        120: b"\xe0ab",
        240: b"\xe8ab",
        480: b"\xf0ab",
        1_920: b"\x10ab",
        2_880: b"\x18ab",
        5_760: b"\x19abab",
    }[samples]
    assert packet_samples(payload) == samples
    line = Timeline(START)
    written: list[bytes] = []
    for index in range(80):
        if index == 40:
            continue
        at = START + index * samples / 48_000
        written += line.place(at, index, index * samples, payload)
    written += line.drain()
    assert sum(map(packet_samples, written)) == 80 * samples
    assert written.count(payload) == 79
    assert line.counters.lost == 1
    assert line.counters.concealed == (2 if samples == 5_760 else 1)


QUEUE_SECONDS = 20.0
"""A queue that stands for less than this does not move anything."""

PATIENCE_SECONDS = 26.0
"""A stall of the sender is followed within this much of its speech, however short it was."""

MOST_BEHIND = 0.2
"""What stalls come to before they are followed at once: when this much was heard:"""

AT_ONCE_SECONDS = 2 * LOOK_SECONDS


def check_stalls_are_followed(line: Line, sender: Sender) -> None:
    """Fail for a packet that is late, or early by more than the stalls that may yet be a queue.

    Those are the ones within the patience before it, and no more than ``MOST_BEHIND`` of them,
    but for a moment. A packet just before a stall can be looked at together with those after it,
    and be late by a part of it.
    """
    heard = [0.0, *accumulate(0.02 * delivered for delivered in sender.delivered)]
    for index, error in line.errors(sender).items():
        young = fresh = ahead = 0.0
        for frame, seconds in sender.stalls:
            age = heard[index] - heard[frame]
            if frame > index:
                ahead += seconds if -age < LOOK_SECONDS else 0.0
            elif age < PATIENCE_SECONDS:
                young += seconds
                fresh += seconds if age < AT_ONCE_SECONDS else 0.0
        assert error < BOUND + ahead, (index, error, ahead)
        assert -error < BOUND + min(young, MOST_BEHIND + fresh), (index, error, young, fresh)


@pytest.mark.parametrize("every", [0.5, 1.0, 4.0, 30.0])
@pytest.mark.parametrize("stalled", [0.012, 0.04, 0.1, 0.16, 0.195])
def test_small_stalls_of_the_sender_do_not_add_up(stalled: float, every: float) -> None:
    sender = Sender(START, jitter=0.005)
    for _ in range(20):
        sender.talk(every)
        sender.stall(stalled)
    sender.talk(40)
    line = Line(sender)
    errors = line.errors(sender)
    assert len(errors) == len(sender.true), "speech was dropped"
    check_stalls_are_followed(line, sender)
    # In the end nothing is left of them, and all that was followed has been counted.
    assert all(abs(error) < BOUND for index, error in errors.items() if index > len(errors) - 500)
    if every == 30.0 or stalled * 2 < MOST_BEHIND:
        assert line.counters.reanchors * MOST_BEHIND * 1_000 + line.counters.drift_ms > 0
    if line.counters.reanchors == 0:
        assert line.counters.drift_ms == pytest.approx(20 * stalled * 1_000, abs=11)


def test_stalls_that_pass_200_ms_together_are_followed_at_once() -> None:
    sender = Sender(START)
    sender.talk(2)
    sender.stall(0.16)
    sender.talk(2)
    sender.stall(0.16)
    sender.talk(5)
    line = Line(sender)
    errors = line.errors(sender)
    assert all(abs(errors[index]) < 0.006 for index in [*range(100), *range(200, 450)])
    assert line.counters.reanchors == 1


@pytest.mark.parametrize("held", [0.06, 0.16, 0.4, 1.5])
@pytest.mark.parametrize("ppm", [-200, 0, 200])
def test_hold_ups_on_the_path_move_nothing_however_many(held: float, ppm: int) -> None:
    sender = Sender(START, jitter=0.005, ppm=ppm)
    for _ in range(40):
        sender.talk(1.5)
        sender.talk(held, held_until_end=True)
    sender.talk(5)
    line = Line(sender)
    assert worst(line, sender) < BOUND
    assert line.counters.reanchors == 0
    assert abs(line.counters.drift_ms) <= sender.now * abs(ppm) / 1_000 + 20
    if held < FILL_LAG_SECONDS - 0.05:
        # A fast clock's speech is longer than the time it took: one packet in 100 s has to go.
        assert len(line.at) >= len(sender.true) - (2 if ppm < 0 else 0), "speech was dropped"


@pytest.mark.parametrize("queue", [0.03, 0.08, 0.15, 0.19])
@pytest.mark.parametrize("stands", [0.5, 3.0, QUEUE_SECONDS - 1])
def test_queues_that_pass_move_nothing_however_many(queue: float, stands: float) -> None:
    sender = Sender(START, jitter=0.005)
    for _ in range(12):
        sender.talk(3)
        sender.queue = queue
        sender.talk(stands)
        sender.queue = 0.0
    sender.talk(3)
    line = Line(sender)
    assert worst(line, sender) < BOUND
    assert len(line.at) == len(sender.true), "speech was dropped"
    assert line.counters.drift_ms == line.counters.reanchors == 0


@pytest.mark.parametrize("faster", [0.015, 0.05, 0.15])
def test_a_path_that_gets_faster_is_believed_at_once(faster: float) -> None:
    sender = Sender(START, delay=0.2)
    sender.talk(5)
    line = Timeline(START)
    for each in sender.deliveries:
        gain = faster if each.at > START + 2 else 0.0
        line.place(each.at - gain, each.sequence, each.timestamp, each.payload)
    assert line.counters.drift_ms == pytest.approx(-faster * 1_000, abs=10.1)
    assert line.position / 48_000 == pytest.approx(5.2 - faster, abs=BOUND)


def test_a_delay_that_stays_is_taken_for_the_senders_after_a_while_and_not_before() -> None:
    sender = Sender(START)
    sender.talk(5)
    sender.queue = 0.15
    sender.talk(60)
    line = Line(sender)
    errors = line.errors(sender)
    moved = min(index for index, error in errors.items() if error > BOUND)
    assert QUEUE_SECONDS <= sender.true[moved] - START - 5 <= PATIENCE_SECONDS
    assert line.counters.drift_ms == pytest.approx(150, abs=10)
    assert len(errors) == len(sender.true)


@pytest.mark.parametrize("seed", range(40))
def test_stalls_among_everything_else_are_followed(seed: int) -> None:
    choose = random.Random(5_000 + seed)
    sender = Sender(
        START,
        seed=seed,
        jitter=choose.choice([0, 0.01, 0.04]),
        loss=choose.choice([0, 0.02, 0.1]),
        duplicates=choose.choice([0, 0.1]),
        ppm=choose.uniform(-100, 100),
    )
    acts: list[Callable[[], None]] = [
        lambda: sender.stall(choose.uniform(0.01, 0.199)),
        lambda: sender.stall(choose.uniform(0.01, 0.199)),
        lambda: sender.talk(choose.uniform(0.05, 2), held_until_end=True),
        lambda: sender.pause(choose.uniform(0.1, 8), clock_stands=False),
        lambda: sender.talk(choose.uniform(0.1, 5), lost=True),
    ]
    sender.talk(2)
    for _ in range(30):
        choose.choice(acts)()
        sender.talk(choose.uniform(0.8, 8))
    line = Line(sender)
    check_stalls_are_followed(line, sender)


@pytest.mark.parametrize("seed", range(40))
def test_everything_but_short_stalls_stays_within_the_bound(seed: int) -> None:
    """Twenty minutes of queues, hold-ups, silences, outages and restarts at any drift."""
    choose = random.Random(9_000 + seed)
    sender = Sender(
        START + choose.random(),
        seed=seed,
        delay=choose.uniform(0.01, 0.1),
        jitter=choose.choice([0, 0.01, 0.04]),
        loss=choose.choice([0, 0.02, 0.1]),
        duplicates=choose.choice([0, 0.05]),
        ppm=choose.choice([-200, 200, choose.uniform(-200, 200)]),
    )

    def queue() -> None:
        sender.queue = choose.uniform(0.01, 0.13)
        sender.talk(choose.uniform(0.1, 12))
        sender.queue = 0.0
        sender.talk(1)

    acts: list[Callable[[], None]] = [
        queue,
        lambda: sender.talk(choose.uniform(0.05, 3), held_until_end=True),
        lambda: sender.pause(choose.uniform(0.5, 60), clock_stands=True),
        lambda: sender.pause(choose.uniform(0.1, 60), clock_stands=False),
        lambda: sender.pause(300, clock_stands=choose.random() < 0.5),
        lambda: sender.talk(choose.uniform(0.1, 8), lost=True),
        sender.restart,
    ]
    while sender.now < START + 1_200:
        sender.talk(choose.uniform(1.5, 30))
        choose.choice(acts)()
    sender.talk(2)
    line = Line(sender)
    assert worst(line, sender) < BOUND
    assert len(line.at) > 0.6 * sum(sender.delivered)


@pytest.mark.parametrize("ppm", [-200, -40, 40, 200])
def test_an_hour_of_a_drifting_clock_stays_within_the_bound(ppm: int) -> None:
    sender = Sender(START, ppm=ppm, jitter=0.02)
    sender.talk(3_600)
    line = Line(sender)
    errors = line.errors(sender)
    assert max(map(abs, errors.values())) < BOUND
    assert line.counters.drift_ms == pytest.approx(3_600 * ppm / 1_000, abs=30)
    assert len(errors) > 0.999 * len(sender.true)


@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_every_packet_lands_within_the_bound(seed: int) -> None:
    choose = random.Random(seed)
    sender = Sender(
        START + choose.random() * 3,
        seed=seed,
        sequence=choose.randrange(1 << 16),
        timestamp=choose.randrange(1 << 32),
        delay=choose.uniform(0.001, 0.15),
        jitter=choose.choice([0, 0.01, 0.04]),
        loss=choose.choice([0, 0.02, 0.15]),
        duplicates=choose.choice([0, 0.1]),
        ppm=choose.uniform(-200, 200),
    )
    acts: list[Callable[[], None]] = [
        lambda: sender.talk(choose.uniform(0.8, 6)),
        lambda: sender.pause(choose.uniform(0.5, 8), clock_stands=True),
        lambda: sender.pause(choose.uniform(0.1, 8), clock_stands=False),
        lambda: sender.talk(choose.uniform(0.1, 5), lost=True),
        lambda: sender.talk(choose.uniform(0.1, 3), held_until_end=True),
        sender.restart,
    ]
    for _ in range(12):
        sender.talk(choose.uniform(0.8, 3))
        choose.choice(acts)()
    sender.talk(1)
    line = Line(sender)
    assert worst(line, sender) < BOUND
    counters = line.counters
    arrived = sum(sender.delivered)
    assert counters.packets == len(line.at)
    # Every packet that arrived was written or is accounted for.
    assert counters.packets + counters.late + counters.duplicate + counters.invalid == len(
        sender.deliveries
    )
    assert counters.packets <= arrived
    assert line.timeline.position / 48_000 >= line.end - START - FILL_LAG_SECONDS - 0.5 - 0.02


def test_what_a_crash_takes_stays_below_a_second() -> None:
    flush_every = 0.5
    assert flush_every + max(LOOK_SECONDS, HOLD_SECONDS, FILL_LAG_SECONDS) < 1.0


@pytest.mark.parametrize("ppm", [200, -200])
def test_a_long_pause_does_not_hide_the_drift_of_its_length(ppm: int) -> None:
    line = Timeline(0.0)
    payload = bytes([0x78]) + bytes(50)
    rate = 1 + ppm / 1e6
    for sequence in range(200):
        # Two seconds of speech, five minutes of nothing in which RTP time goes on, two more.
        sent = sequence / 50 + (298.0 if sequence >= 100 else 0.0)
        line.place(sent + 0.04, sequence, int(sent * 48_000 * rate), payload)
        line.fill_to(sent + 0.04)
    line.drain()
    # The last packet was sent at 301.98 s of our clock, whatever the sender's said.
    assert line.position / 48_000 == pytest.approx(302.0 + 0.04, abs=0.02)
