"""``interview-peer transcript``, ``verify``, ``finish`` and ``export``: what is done to folders.

They need no running server, and a folder may lie anywhere but for ``finish``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import click

from interview_peer.errors import InterviewPeerError, InvalidSessionId, RecordingErased
from interview_peer.settings import load_settings
from interview_peer.storage.finished import (
    MANIFEST_NAME,
    TOMBSTONE_NAME,
    read_finished,
    read_stored,
)
from interview_peer.storage.folder import INTERVIEWS, InterviewFolder, hold
from interview_peer.types import Json, SessionId


class CommandFailed(Exception):
    """Ends the command with this sentence and exit code 1."""


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "kind",
    type=click.Choice(["json", "txt", "vtt", "srt"]),
    help="Print the transcript in this form instead; nothing is written.",
)
def transcript(folder: Path, kind: str | None) -> None:
    """Rebuild FOLDER/transcript.json from FOLDER/events.jsonl, or print it.

    The files of a finished interview do not change: its manifest holds their hashes, and two files
    cannot be replaced in one step. There, and while the interview runs, it can only be printed.
    """
    _refuse_erased(folder)
    target = folder / "transcript.json"
    try:
        if kind is not None:
            click.echo(_transcript_text(folder, kind), nl=False)
            return
        with _own(folder):
            _replace(target, json.dumps(_rebuilt_transcript(folder), ensure_ascii=False))
    except OSError as error:
        raise CommandFailed(f"{error.filename or folder}: {error.strerror}.") from error
    click.echo(str(target))


def _transcript_text(folder: Path, kind: str) -> str:
    """A folder's transcript in one of its forms; from the journal where it was not written."""
    from interview_peer.core.transcript_text import FORMATS

    try:
        document = json.loads((folder / "transcript.json").read_bytes())
        if not isinstance(document, dict):
            raise ValueError
    except FileNotFoundError:
        document = _rebuilt_transcript(folder)
    except (ValueError, RecursionError):
        raise CommandFailed(f"{folder / 'transcript.json'} is not a transcript.") from None
    if kind == "json":
        return json.dumps(document, ensure_ascii=False, indent=2) + "\n"
    return FORMATS[kind].render(document)


def _rebuilt_transcript(folder: Path) -> Json:
    from interview_peer.core.replay import rebuild

    # A crash may have torn the last line within a character.
    with (folder / "events.jsonl").open(encoding="utf-8", errors="replace") as lines:
        first = lines.readline()
        session_id, started_at = _interview_started(first, folder)
        return rebuild([first, *lines]).document(session_id, started_at)


@contextmanager
def _own(folder: Path) -> Iterator[None]:
    """Hold a folder whose transcript may be written anew, or say why it may not."""
    claim = hold(folder)
    if claim is None:
        raise CommandFailed(
            f"{folder} is in use: the interview runs, or is being finished. "
            "Its transcript can be had with --format."
        )
    try:
        if (folder / MANIFEST_NAME).exists():
            raise CommandFailed(f"{folder} is finished; its transcript can be had with --format.")
        yield
    finally:
        os.close(claim)


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def verify(folder: Path) -> None:
    """Check a finished interview's FOLDER against its manifest; exit code 1 if anything is wrong.

    Reads lengths and hashes, every Ogg page, the lengths of the sound and whether the journal
    still gives the same transcript. Changes nothing.
    """
    from interview_peer.finishing.verify import verify as check

    if not folder.is_dir():
        raise CommandFailed(f"{folder} is not a folder.")
    _refuse_erased(folder)
    interview = _interview_folder(folder)
    if interview is not None:
        where = interview.path
        try:
            stored, finished = read_stored(interview), read_finished(interview)
        except OSError as error:
            raise _disk_problem(error, folder) from error
        gone = finished and not any((where / file.name).exists() for file in finished.files)
        if stored is not None and stored.tags is not None and gone:
            raise CommandFailed(
                f"{folder}: its files were moved to {stored.place.url}/{interview.session_id}; "
                "only the manifest is here."
            )
    try:
        problems = check(folder)
    except OSError as error:
        raise _disk_problem(error, folder) from error
    for problem in problems:
        click.echo(problem)
    if problems:
        raise CommandFailed(f"{folder}: {len(problems)} problem(s).")
    click.echo(f"{folder}: all is as the manifest says.")


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
def finish(folder: Path) -> None:
    """Mix and close an interview's FOLDER that has no manifest, after a crash or a full disk.

    The server does the same by itself after each interview and, for what a crash left, when it
    starts.
    """
    from interview_peer.finishing.job import finish as finish_folder

    target = _interview_folder(folder)
    if target is None or not target.exists():
        raise CommandFailed(f"{folder} is not an interview's folder ({INTERVIEWS}/ID).")
    _refuse_erased(folder)
    try:
        with _progress("Finishing") as progress:
            finish_folder(target, progress, patience=0)
    except OSError as error:
        raise _disk_problem(error, folder) from error
    except InterviewPeerError as error:
        raise CommandFailed(error.message) from error
    click.echo(str(folder / "manifest.json"))


@click.command()
@click.argument("interview_id", metavar="ID")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["wav", "ogg", "webm"]),
    required=True,
    help="Stereo, candidate left: 16 bit PCM, or Opus in Ogg or WebM.",
)
@click.option(
    "--output", type=click.Path(path_type=Path, dir_okay=False), help="Where to.  [ID.FORMAT]"
)
@click.option("--data-dir", help="Folder of recordings.  [INTERVIEW_DATA_DIR; data]")
def export(interview_id: str, kind: str, output: Path | None, data_dir: str | None) -> None:
    """Write the recording of the interview ID as one stereo file."""
    from interview_peer.finishing.export import export as export_folder

    # What only a server needs must not be asked for here.
    settings = load_settings(simulation=True, data_dir=data_dir)
    target = output or Path(f"{interview_id}.{kind}")
    try:
        folder = InterviewFolder(settings.data_dir, SessionId(interview_id))
        if not folder.exists():
            raise CommandFailed(f"There is no interview {interview_id} in {settings.data_dir}.")
        _refuse_erased(folder.path)
        with _progress("Exporting") as progress:
            damaged = export_folder(folder, kind, target, progress)
    except OSError as error:
        raise _disk_problem(error, target) from error
    except InterviewPeerError as error:
        raise CommandFailed(error.message) from error
    for name in damaged:
        click.echo(
            f"{name} was damaged when it was finished: what is missing of it is silent.", err=True
        )
    click.echo(str(target))


@contextmanager
def _progress(label: str) -> Iterator[Callable[[float], None]]:
    """A bar on stderr that follows a share from 0 to 1, where a person watches."""
    steps, alone = 1_000, not sys.stderr.isatty()
    with click.progressbar(length=steps, label=label, file=sys.stderr, hidden=alone) as bar:
        yield lambda share: bar.update(max(0, int(share * steps) - bar.pos))


def _interview_folder(folder: Path) -> InterviewFolder | None:
    """The interview whose folder this would be by its place and name, or None."""
    where = folder.resolve()
    if where.parent.name != INTERVIEWS:
        return None
    try:
        return InterviewFolder(where.parents[1], SessionId(where.name))
    except InvalidSessionId:
        return None


def _refuse_erased(folder: Path) -> None:
    """Say of an erased interview's folder what is the matter, not what is missing of it."""
    if (folder / TOMBSTONE_NAME).exists():
        raise CommandFailed(f"{folder}: {RecordingErased.sentence}")


def _disk_problem(error: OSError, place: Path) -> CommandFailed:
    return CommandFailed(f"{error.filename or place}: {error.strerror or error}.")


def _interview_started(line: str, folder: Path) -> tuple[SessionId, datetime]:
    try:
        record = json.loads(line)
        session_id = str(record["event"].get("session_id") or folder.resolve().name)
        return SessionId(session_id), datetime.fromisoformat(record["at"])
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    raise CommandFailed(f"{folder / 'events.jsonl'} does not begin like an interview's journal.")


def _replace(target: Path, text: str) -> None:
    """Write ``target`` whole or not at all."""
    partial = target.with_name(f".{target.name}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(target)
