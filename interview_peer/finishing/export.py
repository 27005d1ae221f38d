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
from ..errors import InterviewPeerError, RecordingDamaged
from ..storage.folder import (
    InterviewFolder,
    draft_of,
    open_draft,
    put_in_place,
    within_recording,
)
from ..storage.recorder import audio_name
from . import manifest
from .facts import SPEAKERS
from .job import NothingRecorded, StillRunning
from .mix import Mixer
from .names import MANIFEST_NAME, MIX_NAME
from .pages import scan
from .voices import both

FORMATS: Final = ("wav", "ogg", "webm")


class InsideRecording(InterviewPeerError):
    """A file would be written among an interview's own."""

    sentence = (
        "That place is inside an interview's folder, whose files are never written over. "
        "Choose one elsewhere."
    )


def export(
    folder: InterviewFolder, kind: str, target: Path, progress: Callable[[float], None]
) -> list[str]:
    """Write ``target``; a file of that name is replaced once the new one is whole.

    Returns the originals that were damaged when the interview was finished: what is missing of
    them is silent. Of a finished interview nothing is exported whose hash is not the manifest's.

    ``kind`` is one of ``FORMATS``. A finished interview's ``webm`` is a copy of its mix and ``ogg``
    the same packets in another container; ``wav`` is decoded from the originals.

    Raises:
        StillRunning: the interview goes on.
        NothingRecorded: there is no such recording.
        RecordingDamaged, BadManifest: it is not what was recorded.
        InsideRecording: ``target`` would lie among an interview's own files.
        OSError: the disk refused, or the recording cannot be read.
    """
    if within_recording(target):
        raise InsideRecording
    if not any((folder.path / audio_name(speaker)).exists() for speaker in SPEAKERS):
        if (folder.path / MANIFEST_NAME).exists():
            raise NothingRecorded(
                "The files of that interview are not on this machine. If they were moved to a "
                f"store, GET /api/interviews/{folder.session_id}/recording of the server has them."
            )
        raise NothingRecorded
    finished = (folder.path / MANIFEST_NAME).exists()
    if not finished and folder.held():
        raise StillRunning
    known = (
        {file.name: file for file in manifest.files(manifest.read(folder.path))} if finished else {}
    )
    mixed = folder.path / MIX_NAME
    originals = [audio_name(speaker) for speaker in SPEAKERS]
    draft = draft_of(target)
    try:
        os.close(open_draft(draft))
        if finished and mixed.exists() and kind == "webm":
            shutil.copyfile(mixed, draft)
            # What was written, so that a disk that reads one thing and writes another is noticed.
            _compare(draft, known.get(MIX_NAME))
        elif finished and mixed.exists() and kind == "ogg":
            _compare(mixed, known.get(MIX_NAME))
            _repack(mixed, draft)
        else:
            for name in originals if finished else ():
                _compare(folder.path / name, known.get(name))
            _decode(folder, kind, draft, progress)
        put_in_place(draft, target)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    progress(1.0)
    return [name for name in originals if name in known and known[name].damage]


def _compare(path: Path, listed: manifest.File | None) -> None:
    """Raise ``RecordingDamaged`` unless the file's bytes are those that the manifest lists."""
    try:
        same = listed is not None and manifest.describe(path).sha256 == listed.sha256
    except FileNotFoundError:
        same = False
    if not same:
        name = path.name if listed is None else listed.name
        raise RecordingDamaged(
            f"{name} is not what the manifest says, so it is not exported. "
            "interview-peer verify tells what is wrong."
        )


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
