"""What is known of an interview when its recording ends, kept until the manifest tells it.

The server writes it beside the recording, so that finishing knows the same after a restart. Where
it is missing, the process ended before the recording did, and the journal has to tell.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from .. import __version__
from ..core.consent import Consent
from ..core.timeline import Counters
from ..storage.folder import InterviewFolder, write_whole
from ..storage.recorder import JOURNAL_NAME, RecordingSummary
from ..types import Json, SessionId, Speaker
from .names import FACTS_NAME

SCHEMA: Final = 1

RECOVERED: Final = "recovered"
"""The phase of an interview whose end the server did not live to see."""


@dataclass(frozen=True, slots=True)
class Facts:
    """One interview, as the server saw it end."""

    session_id: str
    started_at: str
    """Position 0 of the sound: UTC, ISO 8601 with milliseconds."""
    phase: str
    """``ended``, ``failed`` or ``recovered``."""
    reason: str | None
    """Why it ended; None if nobody knows."""
    server: str
    """Version of the server that recorded it."""
    seconds: float | None
    """How long the recording lasted; None if the server did not see its end."""
    counters: Mapping[str, Mapping[str, float]]
    """By speaker; empty if the server did not see the end."""
    events_dropped: int | None
    failure: str | None
    """One word for what stopped the recording before the interview's end, or None."""
    consent: Json | None = None
    """The agreement to be recorded, as ``core.consent`` tells it; None where nobody was asked."""

    @property
    def moment(self) -> datetime:
        """``started_at`` as an aware date."""
        return datetime.fromisoformat(self.started_at)

    @property
    def recovered(self) -> bool:
        """Whether these were pieced together after a crash."""
        return self.phase == RECOVERED

    @classmethod
    def at_end(
        cls,
        session_id: SessionId,
        started_at: datetime,
        phase: str,
        reason: str | None,
        summary: RecordingSummary,
        consent: Consent | None = None,
    ) -> Facts:
        """What the server knows when it has closed a recording."""
        return cls(
            session_id=session_id,
            started_at=_stamp(started_at),
            phase=phase,
            reason=reason,
            server=__version__,
            seconds=round(summary.duration_seconds, 6),
            counters={
                speaker.value: counter_values(counters)
                for speaker, counters in summary.counters.items()
            },
            events_dropped=summary.events_dropped,
            failure=summary.failed,
            consent=None if consent is None else consent.told(),
        )

    def write(self, folder: InterviewFolder) -> None:
        """Keep these beside the recording. Raises ``OSError`` if the disk refuses."""
        document = {"schema": SCHEMA, **dataclasses.asdict(self)}
        write_whole(folder.path / FACTS_NAME, json.dumps(document).encode())


def counter_values(counters: Counters) -> dict[str, float]:
    """Every counter of one speaker by its name."""
    values = dataclasses.asdict(counters)
    return {name: round(value, 3) for name, value in values.items()}


def read(folder: InterviewFolder) -> Facts:
    """What the server kept; if it kept nothing, what the journal tells."""
    try:
        document = json.loads((folder.path / FACTS_NAME).read_bytes())
        if document.pop("schema") == SCHEMA:
            return Facts(**document)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        pass
    return from_journal(folder)


def from_journal(folder: InterviewFolder) -> Facts:
    """Piece the facts together after a crash; without a journal by the files' own dates."""
    started_at: str | None = None
    reason: str | None = None
    consent: Consent | None = None
    for record in journal_records(folder.path):
        event = record["event"]
        if event.get("type") == "interview.started" and started_at is None:
            started_at = _valid(record.get("at"))
            consent = Consent.read(event.get("consent"))
        elif event.get("type") == "interview.phase" and isinstance(event.get("reason"), str):
            reason = event["reason"]
    if started_at is None:
        # The folder is made when the recording begins.
        oldest = min(file.stat().st_mtime for file in [folder.path, *folder.path.iterdir()])
        started_at = _stamp(datetime.fromtimestamp(oldest, UTC))
    return Facts(
        session_id=folder.session_id,
        started_at=started_at,
        phase=RECOVERED,
        reason=reason,
        server=__version__,
        seconds=None,
        counters={},
        events_dropped=None,
        failure=None,
        consent=None if consent is None else consent.told(),
    )


def journal_records(path: Path) -> Iterator[Json]:
    """Every whole line of a folder's journal that holds an event. Nothing if there is none."""
    try:
        # A crash may have torn the last line within a character.
        with (path / JOURNAL_NAME).open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                record = _record(line)
                if record is not None:
                    yield record
    except OSError:
        return


def _record(line: str) -> Json | None:
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if isinstance(record, dict) and isinstance(record.get("event"), dict):
        return record
    return None


def _valid(stamp: Any) -> str | None:
    try:
        return _stamp(datetime.fromisoformat(stamp))
    except (TypeError, ValueError):
        return None


def empty_counters() -> dict[str, None]:
    """The same names as ``counter_values``, for a speaker nobody counted."""
    return dict.fromkeys(counter_values(Counters()))


def _stamp(moment: datetime) -> str:
    stamp = moment.astimezone(UTC).isoformat(timespec="milliseconds")
    return stamp.replace("+00:00", "Z")


SPEAKERS: Final = (Speaker.CANDIDATE, Speaker.INTERVIEWER)
"""In the order of the stereo mix: left, right."""
