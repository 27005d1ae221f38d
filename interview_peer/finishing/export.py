"""Hands out an interview's sound in another container: candidate left, interviewer right."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import av

from ..core.opus import SAMPLE_RATE
from ..storage.folder import InterviewFolder, draft_of, open_draft, put_in_place
from ..storage.recorder import audio_name
from .facts import SPEAKERS
from .job import NothingRecorded, StillRunning
from .mix import Mixer
from .names import MANIFEST_NAME, MIX_NAME
from .pages import scan
from .voices import both

FORMATS: Final = ("wav", "ogg", "webm")


def export(
    folder: InterviewFolder, kind: str, target: Path, progress: Callable[[float], None]
) -> None:
    """Write ``target``; a file of that name is replaced once the new one is whole.

    ``kind`` is one of ``FORMATS``. A finished interview's ``webm`` is a copy of its mix and ``ogg``
    the same packets in another container; ``wav`` is decoded from the originals.

    Raises:
        StillRunning: the interview goes on.
        NothingRecorded: there is no such recording.
        OSError: the disk refused, or the recording cannot be read.
    """
    if not any((folder.path / audio_name(speaker)).exists() for speaker in SPEAKERS):
        if (folder.path / MANIFEST_NAME).exists():
            raise NothingRecorded("The files of that interview are not kept on this machine.")
        raise NothingRecorded
    finished = (folder.path / MANIFEST_NAME).exists()
    if not finished and folder.held():
        raise StillRunning
    mixed = folder.path / MIX_NAME
    draft = draft_of(target)
    try:
        os.close(open_draft(draft))
        if finished and mixed.exists() and kind == "webm":
            shutil.copyfile(mixed, draft)
        elif finished and mixed.exists() and kind == "ogg":
            _repack(mixed, draft)
        else:
            _decode(folder, kind, draft, progress)
        put_in_place(draft, target)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    progress(1.0)


def _decode(
    folder: InterviewFolder, kind: str, draft: Path, progress: Callable[[float], None]
) -> None:
    paths = [folder.path / audio_name(speaker) for speaker in SPEAKERS]
    expected = max(scan(path).seconds for path in paths if path.exists())
    samples = 0
    with Mixer(draft, kind) as mixer:
        for block in both(folder.path):
            mixer.add(block)
            samples += block.shape[1]
            if expected:
                progress(min(samples / SAMPLE_RATE / expected, 1.0))


def _repack(mixed: Path, draft: Path) -> None:
    """The same Opus packets as Ogg."""
    with (
        av.open(mixed, mode="r") as source,
        av.open(draft, mode="w", format="ogg", options={"page_duration": "500000"}) as target,
    ):
        stream = source.streams.audio[0]
        copy = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                target.mux(packet)
