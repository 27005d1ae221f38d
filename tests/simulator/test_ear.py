"""What the simulator hears from packets, whole, lost, repeated or broken."""

from __future__ import annotations

import pytest

from interview_peer.simulator.ear import LONGEST_GAP, Ear, vad_settings
from interview_peer.simulator.mouth import SILENCE
from interview_peer.simulator.vad import SpeechStart, SpeechStop

from .sound import spoken


def test_spoken_packets_are_detected_as_a_turn() -> None:
    ear = Ear()
    found = []
    for sequence, packet in enumerate((*spoken().packets, *[SILENCE] * 60)):
        found += ear.hear(sequence, sequence * 960, packet)
    assert [type(detection) for detection in found] == [SpeechStart, SpeechStop]


def test_lost_packets_are_heard_as_silence_once_others_come() -> None:
    ear = Ear()
    for sequence in (0, 1, 2, 50, 51):
        ear.hear(sequence, sequence * 960, SILENCE)
    assert ear.heard_ms == 52 * 20


def test_a_pause_in_which_nothing_is_sent_ends_a_turn() -> None:
    ear = Ear()
    found = []
    for sequence, packet in enumerate(spoken().packets):
        found += ear.hear(sequence, sequence * 960, packet)
    assert [type(detection) for detection in found] == [SpeechStart]
    length = len(spoken().packets)
    found += ear.hear(length, (length + 50) * 960, SILENCE)
    assert isinstance(found[-1], SpeechStop)


@pytest.mark.parametrize("jump", [LONGEST_GAP + 960, -48_000])
def test_a_clock_that_jumps_adds_nothing(jump: int) -> None:
    ear = Ear()
    ear.hear(0, 0, SILENCE)
    ear.hear(1, (960 + jump) & 0xFFFFFFFF, SILENCE)
    ear.hear(2, (1920 + jump) & 0xFFFFFFFF, SILENCE)
    assert ear.heard_ms == 60


@pytest.mark.parametrize("late", [10, 9, 65530])
def test_repeated_and_late_packets_are_dropped(late: int) -> None:
    ear = Ear()
    ear.hear(10, 9600, SILENCE)
    ear.hear(late, late * 960, SILENCE)
    assert ear.heard_ms == 20


def test_the_sequence_number_may_wrap() -> None:
    ear = Ear()
    for number, sequence in enumerate((65534, 65535, 0, 1)):
        ear.hear(sequence, number * 960, SILENCE)
    assert ear.heard_ms == 80


@pytest.mark.parametrize("payload", [b"", b"garbage that is not Opus", b"\xff\xff\xff"])
def test_an_undecodable_packet_does_not_end_hearing(payload: bytes) -> None:
    ear = Ear()
    ear.hear(0, 0, payload)
    before = ear.heard_ms
    found = []
    for sequence, packet in enumerate(spoken().packets, 1):
        found += ear.hear(sequence, sequence * 960, packet)
    assert ear.heard_ms == before + spoken().duration_ms
    assert isinstance(found[0], SpeechStart)


def test_eagerness_chooses_how_long_a_pause_may_be() -> None:
    pauses = [
        vad_settings({"type": "semantic_vad", "eagerness": eagerness}).silence_ms
        for eagerness in ("high", "auto", "low")
    ]
    assert pauses == sorted(set(pauses))
