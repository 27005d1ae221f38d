"""What becomes of one large event of the model's: all that needs its JSON parsed, in one step.

A relay reads small events piece by piece, where it stands. A large one is read by another process
(``session.reader``), so what that process finds must be small itself: `Reading` never holds the
parsed event, and holds its text only where that changed.
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from typing import Final

from ..types import Json
from . import realtime
from .beta import ClientDialect
from .redaction import Redactor
from .speech_redaction import SpeechRedactor
from .usage import add_usage
from .withholding import OF_SESSION, session_told, withhold, without_ours

MOST_GIST: Final = 64 * 1024
"""Longest event, in characters, that goes along whole as the gist of a larger one."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """What a relay needs of an event that it does not parse itself."""

    typed: realtime.ModelEvent
    text: str | None
    """The event's JSON; None where it is the message as it came."""
    told: str | None
    """JSON for the browser; None where that is `text`."""
    swallowed: bool
    """Whether the browser is told nothing."""
    kept: str | None
    """JSON of the event as it may be kept; None where that is `text`."""
    taken: Mapping[str, int]
    """What was taken out of it for that, by pattern."""
    gist: Json
    """The event as it may take a larger one's place: a retrieved item without its sound, or no more
    than the type."""
    session: Json | None = None
    """What any browser may be told of the session in it, if there is one."""
    response_id: str | None = None
    """The reply that it belongs to."""


def read(
    message: str,
    redactor: Redactor,
    *,
    is_beta: bool,
    withholds: bool = False,
    blanks: bool = False,
    chosen: bytes | None = None,
    speech: SpeechRedactor | None = None,
) -> Reading:
    """Read one message of the model's, for one browser.

    Args:
        message: as it came.
        redactor: masks the server's own secrets.
        is_beta: whether the browser speaks the beta's dialect.
        withholds: whether it is an invited candidate's.
        blanks: whether it is an open client's.
        chosen: the digest of what instructions that client chose, if it did.
        speech: takes out of texts what may not be kept.

    Raises as `realtime.parse` does.
    """
    original = realtime.parse(message)
    event, text = redactor.event(original, message)
    taken: Counter[str] = Counter()
    kept = event if speech is None else speech.event(event, taken)
    typed = realtime.model_event(kept)
    if isinstance(typed, realtime.ReplyDone):
        # Only counts are ever taken of it, and there is no telling what else it holds.
        counts: Json = {}
        add_usage(counts, typed.usage)
        typed = dataclasses.replace(typed, usage=counts)
    shown = withhold(event) if withholds else without_ours(event, chosen) if blanks else event
    spoken = [] if shown is None else ClientDialect(is_beta=is_beta).to_client(shown)
    told = spoken[0] if spoken else event
    response = event.get("response")
    reply = response.get("id") if isinstance(response, dict) else event.get("response_id")
    is_session = event["type"] in OF_SESSION
    return Reading(
        typed,
        text=None if text is message else text,
        told=None if told is event else json.dumps(told, ensure_ascii=False),
        swallowed=not spoken,
        kept=None if kept is event else json.dumps(kept, ensure_ascii=False),
        taken=dict(taken),
        gist=_gist(told),
        session=session_told(event.get("session")) if is_session else None,
        response_id=reply if isinstance(reply, str) else None,
    )


def without_audio(event: Json) -> Json | None:
    """A retrieved item without its base64 sound, which no page of ours needs; None for others."""
    item = event.get("item")
    if event.get("type") != "conversation.item.retrieved" or not isinstance(item, dict):
        return None
    content = item.get("content")
    if not isinstance(content, list):
        content = []
    parts = [
        {**part, "audio": None} if isinstance(part, dict) and "audio" in part else part
        for part in content
    ]
    return {**event, "item": {**item, "content": parts}}


def _gist(event: Json) -> Json:
    smaller = without_audio(event)
    if smaller is not None and len(json.dumps(smaller, ensure_ascii=False)) <= MOST_GIST:
        return smaller
    return {"type": event["type"]}
