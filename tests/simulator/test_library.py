"""The shipped speech: complete, small, audible, in packets of 20 ms."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from interview_peer.simulator.library import (
    SPEECH_FOLDER,
    Line,
    opus_packets,
    script_for,
    scripts,
)

from .sound import decoded

LINES = [line for script in scripts() for line in script.lines]


def test_the_speech_is_at_most_400_kilobytes() -> None:
    folder = Path(str(SPEECH_FOLDER))
    assert 100_000 < sum(path.stat().st_size for path in folder.iterdir()) < 400_000


def test_the_index_says_what_the_files_hold() -> None:
    index = json.loads((SPEECH_FOLDER / "index.json").read_text(encoding="utf-8"))
    stated = [line["duration_ms"] for script in index["scripts"] for line in script["lines"]]
    assert stated == [line.duration_ms for line in LINES]
    assert index["licence"]


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.file)
def test_every_line_is_audible_mono_speech(line: Line) -> None:
    assert all(packet[0] & 0b111 == 0 for packet in line.packets)  # mono, one frame a packet
    samples = decoded(line.packets)
    assert len(samples) == 48 * line.duration_ms  # so every frame has 20 ms
    assert float(np.sqrt(np.mean(samples**2))) > 0.02


def test_every_script_has_a_greeting_questions_and_a_closing() -> None:
    for script in scripts():
        assert len(script.lines) >= 7
        assert script.lines[-1].text.rstrip(".") != script.lines[0].text


def test_instructions_choose_the_script() -> None:
    assert script_for("You interview a senior Software Engineer.").name == "technical"
    assert script_for("Ask about leadership.").name == "behavioural"
    assert script_for("Be kind.").name == scripts()[0].name


def test_after_the_closing_the_questions_come_round_again() -> None:
    script = scripts()[0]
    count = len(script.lines)
    assert script.line(count - 1) is script.lines[-1]
    assert [script.line(count), script.line(count + 1)] == list(script.lines[1:3])
    assert script.line(2 * count - 2) is script.lines[1]


def page(*lengths: int, body: bytes) -> bytes:
    """An Ogg page with this segment table; the header's other fields do not matter here."""
    return b"OggS" + bytes(22) + bytes([len(lengths), *lengths]) + body


def test_a_packet_may_be_longer_than_a_segment_and_than_a_page() -> None:
    headers = page(1, 1, body=b"HT")
    audio = page(255, 45, 255, body=b"a" * 300 + b"b" * 255) + page(0, 2, body=b"cc")
    assert opus_packets(headers + audio) == [b"a" * 300, b"b" * 255, b"cc"]


def test_bytes_that_are_no_ogg_pages_are_refused() -> None:
    with pytest.raises(ValueError, match="Ogg"):
        opus_packets(b"RIFF" + bytes(100))
