"""Closes interviews that a server left unfinished when it went down, in the database.

What they came to is read from their folder: the journal gives what was said, its last line the
end. They end as ``recovered``, with the notices of an end, once. Nothing is written into a folder
here: mending files, the transcript among them, is the finishing's business, and begins after this.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select

from ..core.lifecycle import Phase, Reason
from ..core.realtime import ReplyDone, model_event
from ..core.transcript import Turn, TurnStatus, document, rebuild
from ..core.usage import add_usage
from ..errors import InvalidSessionId, StateUnavailable
from ..state.database import Database, Transaction
from ..state.happenings import Finished, Happening
from ..state.nodes import Heartbeat
from ..state.schema import from_us, interviews, turns
from ..storage.finished import MANIFEST_NAME
from ..storage.folder import INTERVIEWS, InterviewFolder
from ..storage.recorder import JOURNAL_NAME, audio_name
from ..types import ItemId, Json, SessionId, Speaker

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 15.0
TRANSCRIPT: Final = "transcript.json"
RUNNING: Final = tuple(
    phase.value for phase in (Phase.CONNECTING, Phase.LIVE, Phase.DETACHED, Phase.ENDING)
)


@dataclass(frozen=True, slots=True)
class Left:
    """An interview that nobody holds any more."""

    id: SessionId
    created_at: datetime
    turns: tuple[Turn, ...] = ()
    """As far as they were written down; for where the folder is gone."""


class Recovery:
    """Finds and closes what is left. ``start`` looks once before anything new can begin."""

    def __init__(
        self,
        database: Database,
        data_dir: Path,
        node_id: str,
        tell: Callable[[Happening], None],
        heartbeat: Heartbeat | None = None,
    ) -> None:
        """``heartbeat`` knows the other nodes; None where there can be none, on SQLite."""
        self._database = database
        self._data_dir = data_dir
        self._node_id = node_id
        self._tell = tell
        self._heartbeat = heartbeat
        self._task: asyncio.Task[None] | None = None
        self.told = asyncio.Event()
        """Set when the end of all that an earlier process left is told."""

    async def start(self) -> None:
        """Note what an earlier process left, then close it without holding up the start.

        Where several processes share the database, go on looking for what others leave. Raises
        ``StateUnavailable``.
        """
        left = await self._database.run(self._left_at_start)
        unknown = await asyncio.to_thread(self._unwritten_folders)
        left += await self._database.run(lambda tx: _without_rows(tx, unknown))
        if left or self._heartbeat is not None:
            self._task = asyncio.create_task(self._run(left), name="recovery")
        else:
            self.told.set()

    async def close(self) -> None:
        """Stop. What was not closed is found by the next start. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def _run(self, left: list[Left]) -> None:
        try:
            await self._close_all(left)
        finally:
            self.told.set()
        while self._heartbeat is not None:
            await asyncio.sleep(LOOK_SECONDS)
            with contextlib.suppress(StateUnavailable):
                await self.look()

    async def look(self) -> None:
        """Close what nodes left that are gone by now. Raises ``StateUnavailable``."""
        await self._close_all(await self._database.run(self._left_by_others))

    async def _close_all(self, left: list[Left]) -> None:
        for one in left:
            try:
                end = await asyncio.to_thread(end_of, one, self._data_dir)
            except (OSError, InvalidSessionId) as error:
                log.error(
                    "an interview's folder cannot be read",
                    extra={"session": one.id, "error": type(error).__name__},
                )
                end = _lost(one)
            log.warning("interview recovered", extra={"session": one.id})
            self._tell(end)

    async def _left_at_start(self, tx: Transaction) -> list[Left]:
        """Ours from before. Of others it is too early to say whether they live."""
        alone = self._heartbeat is None
        return await _left(tx, lambda node: alone or node in (None, self._node_id))

    async def _left_by_others(self, tx: Transaction) -> list[Left]:
        living = None if self._heartbeat is None else await self._heartbeat.living(tx)
        if living is None:
            return []
        return await _left(tx, lambda node: node not in living)

    def _unwritten_folders(self) -> list[str]:
        """Folders with a journal but without the file that is written last."""
        try:
            folders = list((self._data_dir / INTERVIEWS).iterdir())
        except OSError:
            return []
        return [
            one.name
            for one in folders
            if (one / JOURNAL_NAME).is_file() and not (one / TRANSCRIPT).exists()
        ]


async def _left(tx: Transaction, is_left: Callable[[str | None], bool]) -> list[Left]:
    found = await tx.execute(
        select(interviews.c.id, interviews.c.node_id, interviews.c.created_at).where(
            interviews.c.phase.in_(RUNNING)
        )
    )
    return [
        Left(SessionId(row.id), from_us(row.created_at), await _turns(tx, row.id))
        for row in found.all()
        if is_left(row.node_id)
    ]


async def _turns(tx: Transaction, interview_id: str) -> tuple[Turn, ...]:
    found = await tx.execute(
        select(turns).where(turns.c.interview_id == interview_id).order_by(turns.c.position)
    )
    return tuple(
        Turn(
            ItemId(row.item_id),
            Speaker(row.speaker),
            row.text,
            row.started_at,
            row.ended_at,
            TurnStatus(row.status),
            row.heard_ms,
        )
        for row in found
    )


async def _without_rows(tx: Transaction, names: list[str]) -> list[Left]:
    """Of these folders, those whose interview never reached the database before the end."""
    known: set[str] = set()
    for start in range(0, len(names), 500):
        part = names[start : start + 500]
        found = await tx.execute(select(interviews.c.id).where(interviews.c.id.in_(part)))
        known.update(found.scalars())
    return [Left(SessionId(name), datetime.now(UTC)) for name in names if name not in known]


def end_of(left: Left, data_dir: Path) -> Finished:
    """How an interview ended, as its folder tells.

    Waits for the disk. Raises ``OSError`` if that refuses.
    """
    folder = InterviewFolder(data_dir, left.id)
    try:
        # A crash may have torn the last line within a character.
        text = (folder.path / JOURNAL_NAME).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        # Of a recording that moved to the store, the manifest stays.
        return _lost(left, recorded=(folder.path / MANIFEST_NAME).exists())
    lines = text.splitlines()
    story = _story(lines, left.created_at)
    built = rebuild(lines)
    written = built.document(left.id, story.began_at)
    recorded = any(
        (folder.path / name).exists() for name in (MANIFEST_NAME, *map(audio_name, Speaker))
    )
    live = story.live_from
    return Finished(
        interview_id=left.id,
        at=story.began_at + timedelta(seconds=story.seconds),
        phase=Phase.ENDED,
        reason=Reason.RECOVERED,
        opened_at=story.began_at,
        seconds=None if live is None else round(story.seconds - live, 3),
        usage=story.usage or None,
        turns=tuple(built.turns()),
        transcript=written,
        recording_failed=None if recorded else "missing",
    )


def _lost(left: Left, *, recorded: bool = False) -> Finished:
    """The end of an interview without a folder: only what was written down is left of it."""
    return Finished(
        interview_id=left.id,
        phase=Phase.ENDED,
        reason=Reason.RECOVERED,
        turns=left.turns,
        transcript=document(left.id, left.created_at, left.turns) if left.turns else None,
        recording_failed=None if recorded else "missing",
    )


@dataclass(slots=True)
class _Story:
    """What a journal says beside the conversation."""

    began_at: datetime
    seconds: float
    live_from: float | None
    usage: Json


def _story(lines: Iterable[str], created_at: datetime) -> _Story:
    story = _Story(created_at, 0.0, None, {})
    first = True
    for line in lines:
        try:
            record: Any = json.loads(line)
            at, event = float(record["t"]), record["event"]
            kind = event["type"]
            if first:
                story.began_at = datetime.fromisoformat(record["at"])
        except (ValueError, TypeError, KeyError, RecursionError):
            continue
        finally:
            first = False
        story.seconds = max(story.seconds, at)
        if kind == "interview.phase" and event.get("phase") == Phase.LIVE.value:
            story.live_from = at if story.live_from is None else story.live_from
        elif kind == "response.done":
            typed = model_event(event)
            if isinstance(typed, ReplyDone):
                add_usage(story.usage, typed.usage)
    return story
