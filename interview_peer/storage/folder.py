"""The folder of one interview: where it is, who may read it, and files that appear whole.

Recordings are personal data: folders are 0700 and files 0600, whatever the process's umask.
Everything here waits for the disk, so it belongs in a thread once media flows.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from interview_peer.errors import InvalidSessionId, SessionIdTaken
from interview_peer.types import Json, SessionId

INTERVIEWS = "interviews"
"""Below the data folder, one folder per interview lives here."""

UNTOLD = ".untold"
"""In an interview's folder until the database has its end; holds the name of who records there."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_FILE_MODE, _FOLDER_MODE = 0o600, 0o700


def prepare(root: Path) -> None:
    """Make the data folder, if need be, and try whether files can be written there.

    Raises ``OSError`` if not.
    """
    interviews = root / INTERVIEWS
    interviews.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
    probe(interviews)


def probe(folder: Path) -> None:
    """Try whether a file can be written there; it leaves nothing. Raises ``OSError`` if not."""
    with tempfile.TemporaryFile(dir=folder) as file:
        # Some disks take a name and refuse the bytes.
        file.write(b"interview_peer")
        file.flush()
        os.fsync(file.fileno())


class InterviewFolder:
    """``root/interviews/<session_id>``. Raises ``InvalidSessionId`` for an id that is no name."""

    def __init__(self, root: Path, session_id: SessionId) -> None:
        if not _ID.fullmatch(session_id):
            raise InvalidSessionId
        self.session_id = session_id
        self._path = Path(root) / INTERVIEWS / session_id

    @property
    def path(self) -> Path:
        """Where the interview's files are; the folder need not exist."""
        return self._path

    def exists(self) -> bool:
        """Whether an interview of this id took place, or takes place."""
        return self._path.is_dir()

    def create(self) -> None:
        """Make the folder. Raises ``SessionIdTaken`` if it is there already, ``OSError`` if the
        disk refuses."""
        interviews = self._path.parent
        interviews.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        try:
            self._path.mkdir(mode=_FOLDER_MODE)
        except FileExistsError:
            raise SessionIdTaken from None
        sync_folder(interviews)

    def remove(self) -> None:
        """Remove the folder with all that is in it; nothing if there is none. Raises ``OSError`` if
        the disk refuses."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._path)
            sync_folder(self._path.parent)

    def mark_untold(self, node_id: str) -> None:
        """Say that the database does not have this interview's end yet, and who is to tell it.

        Survives a power cut. Raises ``OSError`` if the disk refuses.
        """
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(self._path / UNTOLD, flags, _FILE_MODE)
        try:
            os.write(descriptor, f"{node_id}\n".encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self.sync()

    def is_untold(self) -> bool:
        """Whether the database may not have this interview's end yet."""
        return (self._path / UNTOLD).exists()

    def mark_told(self) -> None:
        """The database has it. Harmless to repeat; raises ``OSError`` if the disk refuses."""
        with suppress(FileNotFoundError):
            (self._path / UNTOLD).unlink()

    def open_new(self, name: str) -> int:
        """Create a file for appending and return its descriptor, which the caller closes.

        Raises ``FileExistsError`` rather than touch a file that is there: a recording is never
        overwritten.
        """
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return os.open(self._file(name), flags, _FILE_MODE)

    def hold(self) -> int | None:
        """Claim the folder until the returned descriptor is closed; None if somebody else has it.

        Who records into a folder, or finishes it, holds it. The claim ends with the process,
        however that ends, so it needs no clearing up. Raises ``OSError`` if there is no folder.
        """
        return hold(self._path)

    def held(self) -> bool:
        """Whether somebody records into the folder or finishes it now."""
        try:
            descriptor = self.hold()
        except OSError:
            return False
        if descriptor is not None:
            os.close(descriptor)
        return descriptor is None

    def sync(self) -> None:
        """Make the names of files created so far survive a power cut."""
        sync_folder(self._path)

    def write_json(self, name: str, value: Json) -> None:
        """Write a file so that a reader, or a crash at any moment, finds the old or the new one.

        Raises ``OSError`` if the disk refuses; the old file is untouched then.
        """
        data = json.dumps(value, ensure_ascii=False, indent=2).encode("utf-8", "replace") + b"\n"
        write_whole(self._file(name), data)

    def _file(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise ValueError(f"not a plain file name: {name!r}")
        return self._path / name


def hold(path: Path) -> int | None:
    """``InterviewFolder.hold`` for a folder that lies anywhere."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        # A file system without locks: better recorded without a claim than not at all.
        return descriptor
    return descriptor


def within_recording(target: Path) -> bool:
    """Whether a file of that path would lie in some interview's folder."""
    parent = target.absolute().parent.resolve()
    return any(
        folder.parent.name == INTERVIEWS and _ID.fullmatch(folder.name) is not None
        for folder in (parent, *parent.parents)
    )


def untold(root: Path) -> dict[SessionId, str]:
    """Every interview below the data folder whose end may not be told, and who was to tell it."""
    found: dict[SessionId, str] = {}
    for mark in sorted((root / INTERVIEWS).glob(f"*/{UNTOLD}")):
        # One that is erased at this moment, or cannot be read, keeps no other from being found.
        with suppress(OSError):
            if _ID.fullmatch(mark.parent.name):
                node = mark.read_text(encoding="ascii", errors="replace").strip()
                found[SessionId(mark.parent.name)] = node
    return found


def write_whole(target: Path, data: bytes) -> None:
    """Write ``target`` so that a crash at any moment leaves the old or the new file.

    Raises ``OSError`` if the disk refuses; the old file is untouched then.
    """
    draft = draft_of(target)
    try:
        with open(open_draft(draft), "wb") as file:
            file.write(data)
        put_in_place(draft, target)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise


def draft_of(target: Path) -> Path:
    """Where ``target`` is written before it is whole.

    Hidden, so that nobody takes a half-written file for a result.
    """
    return target.with_name(f".{target.name.lstrip('.')}.part")


def open_draft(draft: Path) -> int:
    """Open an empty draft that its owner alone can read; the caller closes the descriptor."""
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    return os.open(draft, flags, _FILE_MODE)


def put_in_place(draft: Path, target: Path) -> None:
    """Make a finished draft the file it was written for, and make that survive a power cut."""
    descriptor = os.open(draft, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.replace(draft, target)
    sync_folder(target.parent)


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
