"""The energy detector on real synthetic speech, noise and silence."""

from __future__ import annotations

import numpy as np
import pytest

from interview_peer.simulator.vad import (
    Detection,
    SpeechStart,
    SpeechStop,
    VadSettings,
    VoiceDetector,
)

from .sound import RATE, Samples, decoded, noise, silence, spoken


def detections(
    *sounds: Samples, settings: VadSettings | None = None, piece: int = 960
) -> list[Detection]:
    detector = VoiceDetector(settings or VadSettings(silence_ms=700))
    samples = np.concatenate(sounds)
    found: list[Detection] = []
    for start in range(0, len(samples), piece):
        found += detector.feed(samples[start : start + piece])
    return found


def test_a_spoken_sentence_between_silences_is_one_turn() -> None:
    line = spoken()
    start, stop = detections(silence(1000), decoded(line.packets), silence(1500))
    assert isinstance(start, SpeechStart)
    assert isinstance(stop, SpeechStop)
    assert 700 <= start.at_ms <= 900  # the voice begins soon after 1000, less the prefix of 300
    assert 1000 < start.detected_ms <= 1350
    assert 1000 + line.duration_ms - 500 <= stop.at_ms - 700 <= 1000 + line.duration_ms
    assert line.duration_ms - 700 <= stop.voiced_ms <= line.duration_ms


def test_two_sentences_apart_are_two_turns() -> None:
    sentence = decoded(spoken().packets)
    found = detections(sentence, silence(1200), sentence, silence(1200))
    assert [type(detection) for detection in found] == [SpeechStart, SpeechStop] * 2


@pytest.mark.parametrize("sound", [silence(3000), noise(3000, -50.0)], ids=["silence", "noise"])
def test_silence_and_faint_noise_are_not_speech(sound: Samples) -> None:
    assert detections(sound) == []


def test_a_sentence_in_faint_noise_is_still_one_turn() -> None:
    speech = np.concatenate((silence(500), decoded(spoken().packets), silence(1500)))
    noisy = speech + noise(len(speech) * 1000 // RATE, -50.0)[: len(speech)]
    assert [type(found) for found in detections(noisy)] == [SpeechStart, SpeechStop]


def test_a_click_is_not_speech() -> None:
    assert detections(silence(500), noise(60, -10.0), silence(1500)) == []


def test_a_pause_shorter_than_the_set_silence_does_not_end_a_turn() -> None:
    voice = noise(500, -20.0)
    settings = VadSettings(silence_ms=500)
    short = detections(voice, silence(400), voice, silence(800), settings=settings)
    long = detections(voice, silence(600), voice, silence(800), settings=settings)
    assert (len(short), len(long)) == (2, 4)


def test_a_level_between_the_two_thresholds_holds_a_turn_but_does_not_begin_one() -> None:
    between = noise(2000, -45.0)
    assert detections(between) == []
    found = detections(noise(500, -20.0), between, silence(1000))
    assert [type(detection) for detection in found] == [SpeechStart, SpeechStop]
    assert isinstance(found[1], SpeechStop)
    assert found[1].voiced_ms >= 2400


def test_a_lower_threshold_hears_a_quieter_voice() -> None:
    quiet = noise(1000, -50.0)
    assert detections(quiet, settings=VadSettings(threshold=0.5)) == []
    assert len(detections(quiet, settings=VadSettings(threshold=0.1))) == 1


def test_the_prefix_never_reaches_before_the_beginning() -> None:
    (start,) = detections(noise(300, -20.0))
    assert isinstance(start, SpeechStart)
    assert start.at_ms == 0


@pytest.mark.parametrize("piece", [1, 7, 480, 961, 48000])
def test_the_size_of_the_pieces_does_not_matter(piece: int) -> None:
    sound = np.concatenate((silence(200), noise(300, -20.0), silence(900)))
    assert detections(sound, piece=piece) == detections(sound)


def test_other_settings_forget_the_turn_but_not_the_time() -> None:
    detector = VoiceDetector(VadSettings())
    assert len(detector.feed(noise(500, -20.0))) == 1
    detector.configure(VadSettings(silence_ms=200))
    assert detector.feed(silence(1000)) == []
    assert detector.heard_ms == 1500
