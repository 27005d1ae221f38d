"""What an interview's files came to, once they are closed."""

from __future__ import annotations

from dataclasses import dataclass

from ..state.happenings import Recorded
from ..storage.folder import InterviewFolder
from ..storage.recorder import audio_name
from ..types import Json, Speaker


@dataclass(frozen=True, slots=True)
class Files:
    """The transcript's document, the recording's files, and what is missing of them."""

    transcript: Json | None = None
    recorded: tuple[Recorded, ...] = ()
    seconds: float | None = None
    failed: str | None = None
    """One word, or None for a whole recording (or none that was ever begun)."""


def recorded_files(folder: InterviewFolder, seconds: float | None) -> tuple[Recorded, ...]:
    """The audio files of a folder with their sizes and digests. Belongs into the storage thread.

    Raises ``OSError`` if the disk refuses; a file that is not there is left out.
    """
    found = []
    for speaker in Speaker:
        name = audio_name(speaker)
        measured = folder.measure(name)
        if measured is not None:
            found.append(Recorded(name, *measured, seconds))
    return tuple(found)
