"""What the simulated interviewer can say: the shipped speech, read into Opus packets.

Nothing is decoded or encoded here; the packets in the files go out on the wire as they are.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from importlib.resources import files

SPEECH_FOLDER = files("interview_peer.simulator") / "speech"
FRAME_MS = 20


@dataclass(frozen=True, slots=True)
class Line:
    """One spoken sentence or two. ``packets`` are mono Opus packets of 20 ms each."""

    file: str
    text: str
    packets: tuple[bytes, ...]

    @property
    def duration_ms(self) -> int:
        """Length of the speech in milliseconds."""
        return FRAME_MS * len(self.packets)


@dataclass(frozen=True, slots=True)
class Script:
    """The lines of one interview in the order in which they are said."""

    name: str
    keywords: tuple[str, ...]
    lines: tuple[Line, ...]

    def line(self, number: int) -> Line:
        """The line said as reply ``number`` (from 0).

        After the closing the questions come round again, so that a long talk never runs dry.
        """
        if number < len(self.lines):
            return self.lines[number]
        questions = self.lines[1:-1] or self.lines
        return questions[(number - len(self.lines)) % len(questions)]


@functools.cache
def scripts() -> tuple[Script, ...]:
    """Every shipped script; the first is the one for any persona. Read once per process."""
    index = json.loads((SPEECH_FOLDER / "index.json").read_text(encoding="utf-8"))
    return tuple(
        Script(
            name=script["name"],
            keywords=tuple(script["keywords"]),
            lines=tuple(
                Line(
                    file=line["file"],
                    text=line["text"],
                    packets=tuple(opus_packets((SPEECH_FOLDER / line["file"]).read_bytes())),
                )
                for line in script["lines"]
            ),
        )
        for script in index["scripts"]
    )


def script_for(instructions: str) -> Script:
    """The script whose keywords occur in the session's instructions, or the general one."""
    text = instructions.lower()
    for script in scripts():
        if any(keyword in text for keyword in script.keywords):
            return script
    return scripts()[0]


def opus_packets(ogg: bytes) -> list[bytes]:
    """The audio packets of an Ogg Opus file with one stream; the two header packets are left out.

    Raises ValueError if the bytes are not a sequence of whole Ogg pages.
    """
    packets: list[bytes] = []
    open_packet = b""
    position = 0
    while position < len(ogg):
        if ogg[position : position + 4] != b"OggS" or position + 27 > len(ogg):
            raise ValueError("not an Ogg page")
        count = ogg[position + 26]
        body = position + 27 + count
        for length in ogg[position + 27 : body]:
            open_packet += ogg[body : body + length]
            body += length
            # A segment shorter than 255 bytes ends a packet; a full one is continued.
            if length < 255:
                packets.append(open_packet)
                open_packet = b""
        position = body
    return packets[2:]
