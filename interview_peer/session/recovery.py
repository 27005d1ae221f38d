"""Closes interviews that a server left unfinished when it went down, in the database.

What they came to is read from their folder: the journal gives what was said, its last line the
end. They end as ``recovered``, with the notices of an end, once. One that had ended in order while
the database was away ends as it did. Which folders are to be told is known by a mark in them, so
that also those are found that the database knows nothing of, or only that they were made. But for
that mark nothing is written into a folder here: mending files, the transcript among them, is the
finishing's business, and begins after this.
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

from ..core.consent import Consent
from ..core.lifecycle import FAILURES, Phase, Reason
from ..core.realtime import ReplyDone, model_event
from ..core.replay import rebuild
from ..core.turns import Turn, TurnKind, TurnStatus, document
from ..core.usage import add_usage
from ..errors import InvalidSessionId, StateUnavailable
from ..logs import word_for
from ..state.database import Database, Transaction
from ..state.happenings import Finished, Happening, Opened, Started
from ..state.nodes import Heartbeat
from ..state.records import FINAL
from ..state.schema import from_us, interviews, nodes, turns
from ..storage.finished import MANIFEST_NAME, read_finished
from ..storage.folder import InterviewFolder, untold
from ..storage.recorder import JOURNAL_NAME, audio_name
from ..tasks import stop
from ..types import ItemId, Json, SessionId, Speaker

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 15.0
AT_ONCE: Final = 500
READ_PAUSES: Final = (0.5, 2.0, 8.0)
"""Seconds before each further look at folders that the disk refuses, for want of descriptors maybe:
an end that is told without its journal is told for good."""
TRANSCRIPT: Final = "transcript.json"
RUNNING: Final = tuple(
    phase.value for phase in (Phase.CONNECTING, Phase.LIVE, Phase.DETACHED, Phase.ENDING)
)


@dataclass(frozen=True, slots=True)
class Left:
    """An interview that nobody holds any more."""

    id: SessionId
    created_at: datetime | None
    """None if the database does not know it."""
    opened: bool = True
    """Whether the database knows that it began."""
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
        self._looked_after: set[str] = set()
        """Silent nodes whose folders were looked for."""
        self._task: asyncio.Task[None] | None = None
        self.told = asyncio.Event()
        """Set when the end of all that an earlier process left is told."""

    async def start(self) -> None:
        """Note what an earlier process left, then close it without holding up the start.

        Where several processes share the database, go on looking for what others leave. Raises
        ``StateUnavailable``.
        """
        left = await self._database.run(self._left_at_start)
        alone = self._heartbeat is None
        left += await self._of_folders(lambda node: alone or node in (None, self._node_id))
        if left or self._heartbeat is not None:
            self._task = asyncio.create_task(self._run(left), name="recovery")
        else:
            self.told.set()

    async def close(self) -> None:
        """Stop. What was not closed is found by the next start. Idempotent."""
        task, self._task = self._task, None
        await stop(task)

    async def _run(self, left: list[Left]) -> None:
        try:
            await self._close_all(left)
        finally:
            self.told.set()
        while self._heartbeat is not None:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.look()
            except StateUnavailable:
                log.debug("nothing is recovered while the database is away")
            except Exception as error:
                log.error("recovering broke", extra={"error": word_for(error)})

    async def look(self) -> None:
        """Close what nodes left that are gone by now. Raises ``StateUnavailable``."""
        gone = await self._database.run(self._gone)
        if gone is None:
            return
        living, silent = gone
        left = await self._database.run(lambda tx: _left(tx, lambda node: node not in living))
        # Folders may be shared, and so many that they are not looked through for nothing.
        self._looked_after &= silent
        if silent - self._looked_after:
            left += await self._of_folders(lambda node: node is not None and node not in living)
            self._looked_after |= silent
        await self._close_all(left)

    async def _gone(self, tx: Transaction) -> tuple[set[str], set[str]] | None:
        """Nodes that live, and those that are known and do not; None if that is not known."""
        living = None if self._heartbeat is None else await self._heartbeat.living(tx)
        if living is None:
            return None
        known = await tx.execute(select(nodes.c.id))
        return living, {*known.scalars()} - living

    async def _close_all(self, left: list[Left]) -> None:
        for pause in (*READ_PAUSES, None):
            left = [one for one in left if not await self._close(one, last=pause is None)]
            if not left or pause is None:
                return
            await asyncio.sleep(pause)

    async def _close(self, one: Left, *, last: bool) -> bool:
        """Tell one interview's end; false if the disk refuses and is to be asked once more."""
        try:
            end = await asyncio.to_thread(end_of, one, self._data_dir)
        except (OSError, InvalidSessionId) as error:
            if isinstance(error, OSError) and not last:
                return False
            log.error(
                "an interview's folder cannot be read",
                extra={"session": one.id, "error": word_for(error)},
            )
            end = [_lost(one)]
        except Exception as error:
            # One that we cannot read must not keep all others open; the next start sees it again.
            log.error(
                "an interview could not be recovered",
                extra={"session": one.id, "error": word_for(error)},
            )
            return True
        log.warning("interview recovered", extra={"session": one.id})
        for happening in end:
            self._tell(happening)
        return True

    async def _left_at_start(self, tx: Transaction) -> list[Left]:
        """Ours from before. Of others it is too early to say whether they live."""
        alone = self._heartbeat is None
        return await _left(tx, lambda node: alone or node in (None, self._node_id))

    async def _of_folders(self, is_left: Callable[[str | None], bool]) -> list[Left]:
        """What marked folders tell of and the database does not know to have begun.

        ``is_left`` says whether a node is one whose interviews nobody holds any more; None stands
        for no node.
        """
        marked = await asyncio.to_thread(untold, self._data_dir)
        names = [name for name, node in marked.items() if is_left(node or None)]
        left: list[Left] = []
        for start in range(0, len(names), AT_ONCE):
            part = names[start : start + AT_ONCE]

            async def look(tx: Transaction, part: list[SessionId] = part) -> list[_Known]:
                table = interviews.c
                query = select(table.id, table.phase, table.node_id, table.created_at)
                found = await tx.execute(query.where(table.id.in_(part)))
                return [_Known(*row) for row in found]

            known = {one.id: one for one in await self._database.run(look)}
            told = [name for name in part if name in known and known[name].phase in FINAL]
            await asyncio.to_thread(_mark_told, self._data_dir, told)
            for name in part:
                row = known.get(name)
                if row is None:
                    left.append(Left(name, None, opened=False))
                elif row.phase == Phase.CREATED.value and (
                    row.node_id is None or is_left(row.node_id)
                ):
                    left.append(Left(name, from_us(row.created_at), opened=False))
        return left


@dataclass(frozen=True, slots=True)
class _Known:
    """What the database knows of an interview with a marked folder."""

    id: str
    phase: str
    node_id: str | None
    created_at: int


def _mark_told(data_dir: Path, names: list[SessionId]) -> None:
    for name in names:
        with contextlib.suppress(OSError):
            InterviewFolder(data_dir, name).mark_told()


async def _left(tx: Transaction, is_left: Callable[[str | None], bool]) -> list[Left]:
    found = await tx.execute(
        select(interviews.c.id, interviews.c.node_id, interviews.c.created_at).where(
            interviews.c.phase.in_(RUNNING)
        )
    )
    return [
        Left(SessionId(row.id), from_us(row.created_at), turns=await _turns(tx, row.id))
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
            TurnKind(row.kind),
            row.heard_text,
        )
        for row in found
    )


def end_of(left: Left, data_dir: Path) -> list[Happening]:
    """What happened to an interview that is not written down yet, its end last, as its folder
    tells.

    Waits for the disk. Raises ``OSError`` if that refuses.
    """
    folder = InterviewFolder(data_dir, left.id)
    try:
        # A crash may have torn the last line within a character.
        text = (folder.path / JOURNAL_NAME).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return [_without_journal(left, folder)]
    # At line feeds alone: words may hold other characters that end lines elsewhere.
    lines = text.split("\n")
    story = _story(lines, left.created_at or _made_at(folder))
    built = rebuild(lines)
    written = built.document(left.id, story.began_at)
    recorded = any(
        (folder.path / name).exists() for name in (MANIFEST_NAME, *map(audio_name, Speaker))
    )
    live = story.live_from
    # The transcript is written when all else is: without it the end was not seen to its end.
    reason = story.reason if (folder.path / TRANSCRIPT).exists() else Reason.RECOVERED
    happened: list[Happening] = []
    if not left.opened:
        opened = Opened(interview_id=left.id, at=story.began_at, consent=story.consent)
        happened.append(opened)
    if live is not None:
        at = story.began_at + timedelta(seconds=live)
        happened.append(Started(interview_id=left.id, at=at))
    end = Finished(
        interview_id=left.id,
        at=story.began_at + timedelta(seconds=story.seconds),
        phase=Phase.FAILED if reason in FAILURES else Phase.ENDED,
        reason=reason,
        opened_at=story.began_at,
        seconds=None if live is None else round(story.seconds - live, 3),
        usage=story.usage or None,
        turns=tuple(built.turns()),
        transcript=written,
        recording_failed=None if recorded else "missing",
    )
    return [*happened, end]


def _without_journal(left: Left, folder: InterviewFolder) -> Finished:
    """Of a recording that moved to the store, the manifest stays; of an erased one, less."""
    finished = read_finished(folder)
    if finished is None:
        return _lost(left, recorded=(folder.path / MANIFEST_NAME).exists())
    reason = _reason(finished.document.get("reason"))
    return Finished(
        interview_id=left.id,
        at=finished.ended_at,
        phase=Phase.FAILED if reason in FAILURES else Phase.ENDED,
        reason=reason,
        opened_at=finished.started_at,
        turns=left.turns or None,
        transcript=_document(left),
    )


def _lost(left: Left, *, recorded: bool = False) -> Finished:
    """The end of an interview without a folder: only what was written down is left of it."""
    return Finished(
        interview_id=left.id,
        phase=Phase.ENDED,
        reason=Reason.RECOVERED,
        turns=left.turns,
        transcript=_document(left),
        recording_failed=None if recorded else "missing",
    )


def _document(left: Left) -> Json | None:
    """The transcript as far as the database has it; without a turn, too, for receivers wait."""
    return None if left.created_at is None else document(left.id, left.created_at, left.turns)


def _made_at(folder: InterviewFolder) -> datetime:
    return datetime.fromtimestamp(folder.path.stat().st_mtime, UTC)


def _reason(text: object) -> Reason:
    try:
        return Reason(text)
    except ValueError:
        return Reason.RECOVERED


@dataclass(slots=True)
class _Story:
    """What a journal says beside the conversation."""

    began_at: datetime
    seconds: float
    live_from: float | None
    usage: Json
    reason: Reason = Reason.RECOVERED
    """Why it ended, if it came to that."""
    consent: Consent | None = None


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
        if kind == "interview.started":
            story.consent = Consent.read(event.get("consent"))
        elif kind == "interview.phase" and event.get("phase") == Phase.LIVE.value:
            story.live_from = at if story.live_from is None else story.live_from
        elif kind == "interview.phase" and event.get("phase") == Phase.ENDING.value:
            story.reason = _reason(event.get("reason"))
        elif kind == "response.done":
            typed = model_event(event)
            if isinstance(typed, ReplyDone):
                add_usage(story.usage, typed.usage)
    return story
