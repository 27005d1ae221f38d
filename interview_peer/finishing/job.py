"""Finishes one folder: mends what a crash left, mixes, draws the waveform, writes the transcript's
other forms and the manifest.

Every step can be done again: what is made is written beside and put in place whole, the originals
are only ever added to, and the manifest comes last.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from ..core.opus import SAMPLE_RATE
from ..errors import InterviewPeerError
from ..storage.folder import InterviewFolder, draft_of, open_draft, put_in_place, write_whole
from ..storage.recorder import audio_name
from . import captions, manifest, repair
from . import facts as known
from .mix import Mixer
from .names import FACTS_NAME, MANIFEST_NAME, MIX_NAME, WAVEFORM_NAME
from .pages import scan
from .times import Loudness, refine
from .voices import both
from .waveform import Waveform

HOLD_SECONDS: Final = 10.0
"""How long to wait for a folder that a process about to end still holds."""

Progress = Callable[[float], None]
"""Takes the share that is done, 0 to 1."""


class StillRunning(InterviewPeerError):
    """The interview goes on, or somebody else finishes the folder."""

    sentence = "The interview is still running, or is being finished by another process."


class NothingRecorded(InterviewPeerError):
    """The folder holds no sound and no events."""

    sentence = "Nothing was recorded in that folder."


def finish(folder: InterviewFolder, progress: Progress, *, patience: float = HOLD_SECONDS) -> None:
    """Do all that a folder without manifest lacks; a finished one is left as it is.

    Raises:
        StillRunning: the folder is held after ``patience`` seconds.
        NothingRecorded: there is nothing to finish.
        OSError: the disk refused, or no original can be read.
    """
    claim = _claim(folder, patience)
    try:
        if not (folder.path / MANIFEST_NAME).exists():
            _finish(folder, progress)
        # Also of a job that was killed right after the manifest.
        with suppress(OSError):
            (folder.path / FACTS_NAME).unlink(missing_ok=True)
        progress(1.0)
    finally:
        os.close(claim)


def _finish(folder: InterviewFolder, progress: Progress) -> None:
    originals = [folder.path / audio_name(speaker) for speaker in known.SPEAKERS]
    if not any(path.exists() for path in originals):
        raise NothingRecorded
    facts = known.read(folder)
    repaired = repair.sound(folder)
    repair.transcript(folder, facts)
    loudness = Loudness()
    seconds = mix(folder, progress, loudness)
    refine(folder, loudness, seconds)
    captions.write(folder)
    manifest.write(folder, facts, seconds=seconds, repaired=repaired)


def mix(folder: InterviewFolder, progress: Progress, loudness: Loudness | None = None) -> float:
    """Make the stereo mix and the waveform; returns how long the mix is, in seconds.

    ``loudness`` is told what is mixed.

    Raises ``OSError`` if the disk refuses, or no original can be read.
    """
    expected = max(
        scan(path).seconds
        for speaker in known.SPEAKERS
        if (path := folder.path / audio_name(speaker)).exists()
    )
    target = folder.path / MIX_NAME
    draft = draft_of(target)
    # The library opens files by name, and with the usual permissions.
    os.close(open_draft(draft))
    waveform = Waveform()
    samples = 0
    try:
        with Mixer(draft) as mixer:
            for block in both(folder.path):
                mixer.add(block)
                waveform.add(block)
                if loudness is not None:
                    loudness.add(block)
                samples += block.shape[1]
                if expected:
                    # The rest is for the index and the hashes.
                    progress(min(samples / SAMPLE_RATE / expected, 1.0) * 0.98)
        put_in_place(draft, target)
        write_whole(folder.path / WAVEFORM_NAME, waveform.document())
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    return samples / SAMPLE_RATE


def _claim(folder: InterviewFolder, patience: float) -> int:
    """Hold the folder, or raise ``StillRunning``."""
    deadline = time.monotonic() + patience
    while (claim := folder.hold()) is None:
        if time.monotonic() >= deadline:
            raise StillRunning
        time.sleep(0.05)
    return claim
