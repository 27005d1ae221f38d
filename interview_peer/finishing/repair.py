"""Makes what a crash left behind whole again, without losing a page of it.

A repaired file is written beside the original and takes its place in one step: all whole pages as
they are, silence until both speakers end together, and the mark that ends a stream. Bytes that no
player could use are cut off the end; a file that is damaged elsewhere is kept as it is.
"""

from __future__ import annotations

import errno
import secrets
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from ..core.ogg import OggOpusMuxer
from ..core.opus import silence
from ..core.replay import rebuild
from ..storage.folder import InterviewFolder, draft_of, open_draft, put_in_place
from ..storage.recorder import JOURNAL_NAME, audio_name
from ..types import SessionId
from .facts import SPEAKERS, Facts
from .names import TRANSCRIPT_NAME
from .pages import Stream, scan

UNREADABLE: Final = ".unreadable"
"""Added to the name of a file that holds no whole page, but holds something."""

_ONE_PACKET: Final = 960


def sound(folder: InterviewFolder) -> list[str]:
    """Close both speakers' files and end them together; returns the names of changed files.

    Whole files that are closed and equally long are left alone. Raises ``OSError`` if the disk
    refuses; the originals are untouched then.
    """
    paths = [folder.path / audio_name(speaker) for speaker in SPEAKERS]
    streams = [_scan(path) for path in paths]
    # Players refuse a file without a single packet.
    end = max(_ONE_PACKET, *(stream.granule for stream in streams))
    changed: list[str] = []
    for path, stream in zip(paths, streams, strict=True):
        if stream.header and stream.ended and not stream.torn_bytes and stream.granule >= end:
            continue
        if stream.header and (stream.damaged or stream.ended):
            # Nothing is known of what belongs where: the manifest and ``verify`` tell of it.
            continue
        _close(path, stream, end)
        changed.append(path.name)
    return changed


def transcript(folder: InterviewFolder, facts: Facts) -> bool:
    """Rebuild the transcript from the journal where it is missing; whether it was.

    Raises ``OSError`` if the disk refuses.
    """
    target, journal = folder.path / TRANSCRIPT_NAME, folder.path / JOURNAL_NAME
    if target.exists() or not journal.exists():
        return False
    with journal.open(encoding="utf-8", errors="replace") as lines:
        built = rebuild(lines)
    document = built.document(SessionId(facts.session_id), facts.moment)
    folder.write_json(TRANSCRIPT_NAME, document)
    return True


def _scan(path: Path) -> Stream:
    try:
        return scan(path)
    except FileNotFoundError:
        return Stream()


def _close(path: Path, stream: Stream, end: int) -> None:
    """Write the file anew, closed and as long as ``end``, and put it in its place."""
    draft = draft_of(path)
    try:
        with open(open_draft(draft), "wb") as output:
            if stream.header:
                with path.open("rb") as original:
                    _copy(original, output, stream.whole_bytes)
                muxer = OggOpusMuxer.resume(stream.serial, stream.pages, stream.granule)
            else:
                muxer = OggOpusMuxer(secrets.randbits(32))
                output.write(muxer.headers())
            output.write(muxer.add(silence(max(0, end - stream.granule))) + muxer.end())
        if not stream.header and path.exists() and path.stat().st_size:
            path.rename(path.with_name(path.stem + UNREADABLE + path.suffix))
        put_in_place(draft, path)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def _copy(original: BinaryIO, output: BinaryIO, count: int) -> None:
    while count > 0:
        data = original.read(min(count, 1 << 20))
        if not data:
            raise OSError(errno.EIO, "the file became shorter while it was read")
        output.write(data)
        count -= len(data)
