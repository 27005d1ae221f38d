"""The conversation that the browser tests hold, and what must be true of it afterwards.

The simulated interviewer greets by itself, asks after each thing the candidate says, and stops when
interrupted. The candidate is a WAV file, so its times are fixed from the moment the microphone
opens:

======  =========================================================================================
t       what happens
======  =========================================================================================
0       the microphone opens; the page connects; the interviewer greets (6.7 s)
11      the candidate answers, after the greeting
        the interviewer asks a question (3.1 s), about a second after the answer
+2.5    the candidate interrupts that question in its middle
        the interviewer asks another one, heard to its end
======  =========================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from interview_peer.simulator.library import SPEECH_FOLDER, Line, scripts
from tests.support import audio, speech

SCRIPT = scripts()[0]
GREETING, CUT_SHORT, LAST, NEVER_SAID = SCRIPT.lines[:4]

ANSWER = "I built a small server for telephone calls in the mountains."
INTERRUPTION = "Excuse me, may I correct something before you go on?"

Samples = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Candidate:
    """What the candidate says, and the file that says it."""

    wav: Path
    answer: speech.Utterance
    interruption: speech.Utterance


def candidate(folder: Path) -> Candidate:
    """Speak the candidate's part into a file in `folder`."""
    answer, interruption = speech.monologue([(11.0, ANSWER), (2.5, INTERRUPTION)])
    wav = speech.write_wav(folder / "candidate.wav", [answer, interruption], tail=20)
    return Candidate(wav, answer, interruption)


def spoken(line: Line) -> Samples:
    """A line of the interviewer's from its shipped file."""
    return audio.decode(Path(str(SPEECH_FOLDER / line.file)))


def words(utterance: speech.Utterance) -> Samples:
    """What the candidate said, at the rate that is compared."""
    return audio.at_rate(utterance.samples, speech.RATE)


def beginning(samples: Samples, seconds: float) -> Samples:
    """The first `seconds` of a sound."""
    return samples[: round(seconds * audio.RATE)]


def question(recording: Samples, greeting: audio.Match) -> audio.Match:
    """Where the question that is cut off begins, in a recording in which the greeting was found.

    A machine that is busy lets it begin late, so no more of it is sure to be heard than its first
    0.8 s. So short a sound is like many others: it is looked for behind the greeting only.
    """
    over = greeting.at + len(spoken(GREETING)) / audio.RATE
    heard = beginning(spoken(CUT_SHORT), 0.8)
    found = audio.find(heard, recording[round(over * audio.RATE) :])
    return audio.Match(found.score, over + found.at)
