"""What each kind of client may send to the model: one table for each, one row for each event type.

What has no row is refused. A rule returns the event as the model may see it, without changing the
one it was given, or raises `GateRefused`. Rules see one event and nothing else; what depends on
the conversation so far is the ``Gate``'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from ..types import Json
from .beta import BETA_RESPONSE_FIELDS
from .refusal import GateRefused, event_id_of
from .tools import BUILT_IN, definitions

MAX_TYPED: Final = 8_192
"""Longest text that an invited candidate may add to the conversation at once, in characters."""

MAX_PARTS: Final = 16
"""Pieces that such a text may come in."""

MAX_ITEM_ID: Final = 32
"""Longest id that the service lets a client choose."""

MAX_VOICE: Final = 64
"""Longest name of a voice, or id of one, in characters."""

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")

Rule = Callable[[Json], Json]


def _pass(event: Json) -> Json:
    return event


def _refuse_audio(_event: Json) -> Json:
    raise GateRefused(
        "invalid_event_for_transport",
        "Audio travels on the audio track, not in events.",
        "type",
    )


# -- the session --------------------------------------------------------------------------------


def checked_session(event: Json) -> Json:
    """The session of a ``session.update``. Raises `GateRefused` where there is none to speak of."""
    session = event.get("session")
    if session is None:
        raise GateRefused("missing_required_parameter", "There is no session.", "session")
    if not isinstance(session, dict):
        raise GateRefused("invalid_type", "The session is not an object.", "session")
    if session.get("type", "realtime") != "realtime":
        raise GateRefused("invalid_value", "Only 'realtime' is possible here.", "session.type")
    return session


def reduce_session(event: Json) -> Json:
    """Keep instructions and voice of a session update, and drop everything else unsaid.

    Stock clients send their whole configuration, model included, and wait for an answer: so what
    is dropped is no error, and an update that has nothing left still goes to the model.
    """
    session = checked_session(event)
    reduced: Json = {"type": "realtime"}
    if "instructions" in session:
        if not isinstance(session["instructions"], str):
            raise GateRefused(
                "invalid_type", "The instructions are not a string.", "session.instructions"
            )
        reduced["instructions"] = session["instructions"]
    voice = _voice(session)
    if voice is not None:
        reduced["audio"] = {"output": {"voice": voice}}
    kept = {key: event[key] for key in ("type", "event_id") if key in event}
    return kept | {"session": reduced}


def _voice(session: Json) -> Any:
    audio = session.get("audio")
    output = audio.get("output") if isinstance(audio, dict) else None
    voice = output.get("voice") if isinstance(output, dict) else None
    place = "session.audio.output.voice"
    match voice:
        case None:
            return None
        case str(name):
            chosen: Any = name
        case {"id": str(name)}:
            chosen = {"id": name}
        case _:
            raise GateRefused("invalid_type", "The voice is no name.", place)
    if len(name) > MAX_VOICE:
        # It would come back with the session, and make of it what is too large to be read here.
        raise GateRefused("invalid_value", f"A voice has {MAX_VOICE} characters at most.", place)
    return chosen


def _trusted_session(event: Json) -> Json:
    """Keep all but what the recording and its transcript rest on.

    The model cannot be changed in a session, and stock clients name one of theirs; the transcript
    is made of the transcription that the server asked for, and they ask for another.
    """
    session = {key: value for key, value in checked_session(event).items() if key != "model"}
    audio = session.get("audio")
    heard = audio.get("input") if isinstance(audio, dict) else None
    if isinstance(audio, dict) and isinstance(heard, dict):
        kept = {key: value for key, value in heard.items() if key != "transcription"}
        session["audio"] = audio | {"input": kept}
    return event | {"session": {"type": "realtime"} | session}


def with_given_tools(event: Json, given: Iterable[str]) -> Json:
    """The event of a trusted client with the server's own tools in any list of tools that it has.

    A list takes the place of the one before it, so the interviewer would lose them. A reply that
    joins no conversation is the client's alone and has what the client says.

    Args:
        event: what goes to the model.
        given: names of the tools that the server gave it.

    Raises `GateRefused` for another tool of such a name, or what is no list.
    """
    owner = {"session.update": "session", "response.create": "response"}.get(event["type"], "")
    settings = event.get(owner)
    if not isinstance(settings, dict) or "tools" not in settings:
        return event
    if owner == "response" and settings.get("conversation") == "none":
        return event
    ours = definitions(given)
    tools, place = settings["tools"], f"{owner}.tools"
    if tools is None:
        # Whatever that means to the service: those that are there stay.
        return event | {owner: {key: settings[key] for key in settings if key != "tools"}}
    if not isinstance(tools, list):
        raise GateRefused("invalid_type", "The tools are not a list.", place)
    theirs = []
    for tool in tools:
        name = tool.get("name") if isinstance(tool, dict) else None
        if not isinstance(name, str) or name not in BUILT_IN:
            theirs.append(tool)
        elif not any(tool.items() >= own.items() for own in ours):
            # One that it read in the session and sends back is no other.
            raise GateRefused("invalid_value", "The server has a tool of this name.", place)
    return event | {owner: settings | {"tools": theirs + ours}}


# -- replies ------------------------------------------------------------------------------------


def _clean_response(event: Json) -> Json:
    """Let a reply be asked for; without fields of the beta, which would make the model refuse."""
    response = event.get("response")
    if not isinstance(response, dict) or BETA_RESPONSE_FIELDS.isdisjoint(response):
        return event
    kept = {key: value for key, value in response.items() if key not in BETA_RESPONSE_FIELDS}
    return event | {"response": kept}


# -- invited candidates: each event is made anew, of checked fields alone -------------------------


def _bare(event: Json, **fields: Any) -> Json:
    made: Json = {"type": event["type"]}
    event_id = event_id_of(event)
    if event_id is not None:
        made["event_id"] = event_id
    return made | fields


def _only(*names: str) -> Rule:
    """The event with these ids of it; those ending in ``?`` may be missing."""

    def rule(event: Json) -> Json:
        fields: Json = {}
        for name in names:
            key = name.rstrip("?")
            value = event.get(key)
            if value is None and key != name:
                continue
            fields[key] = _id_of(value, key)
        return _bare(event, **fields)

    return rule


def _id_of(value: Any, place: str) -> str:
    if value is None:
        raise GateRefused("missing_required_parameter", "An id is missing.", place)
    if not isinstance(value, str):
        raise GateRefused("invalid_type", "An id is not a string.", place)
    if not _ID.fullmatch(value):
        raise GateRefused("invalid_value", "An id is not one of this conversation.", place)
    return value


def _truncation(event: Json) -> Json:
    made = _only("item_id")(event)
    for key in ("content_index", "audio_end_ms"):
        value = event.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise GateRefused("invalid_type", "This is not a whole number.", key)
        made[key] = value
    return made


def _typed(event: Json) -> Json:
    """What the candidate types, and only that, at the end of the conversation."""
    if event.get("previous_item_id") is not None:
        # The transcript is ordered by these: nobody answers a question before it was asked.
        raise GateRefused(
            "invalid_value", "An item can only be added at the end.", "previous_item_id"
        )
    item = event.get("item")
    if not isinstance(item, dict):
        raise GateRefused("missing_required_parameter", "There is no item.", "item")
    if item.get("type") != "message":
        raise GateRefused("invalid_value", "Only messages can be added.", "item.type")
    if item.get("role") != "user":
        raise GateRefused("invalid_value", "Only a user's messages can be added.", "item.role")
    content = item.get("content")
    if not isinstance(content, list) or not 1 <= len(content) <= MAX_PARTS:
        raise GateRefused("invalid_value", f"A message has 1 to {MAX_PARTS} parts.", "item.content")
    parts = [_typed_part(part, f"item.content[{index}]") for index, part in enumerate(content)]
    if sum(len(part["text"]) for part in parts) > MAX_TYPED:
        raise GateRefused(
            "too_large", f"A message may have {MAX_TYPED} characters at most.", "item.content"
        )
    made: Json = {"type": "message", "role": "user", "content": parts}
    if item.get("id") is not None:
        item_id = _id_of(item["id"], "item.id")
        if len(item_id) > MAX_ITEM_ID:
            raise GateRefused("invalid_value", "The id is too long.", "item.id")
        made = {"id": item_id} | made
    return _bare(event, item=made)


def _typed_part(part: Any, place: str) -> Json:
    if not isinstance(part, dict) or part.get("type") != "input_text":
        raise GateRefused("invalid_value", "Only 'input_text' can be added.", f"{place}.type")
    if not isinstance(part.get("text"), str):
        raise GateRefused("invalid_type", "The text is not a string.", f"{place}.text")
    return {"type": "input_text", "text": part["text"]}


# -- the tables ---------------------------------------------------------------------------------

OPEN: Final[Mapping[str, Rule]] = {
    # The session is the server's. Its model, tools, turn detection and, above all, transcription
    # stay as they were set when the call was made.
    "session.update": reduce_session,
    # Would by-pass the recorder, and the service takes no audio here on a call anyway.
    "input_audio_buffer.append": _refuse_audio,
    # Push-to-talk, and silencing the interviewer.
    "input_audio_buffer.commit": _pass,
    "input_audio_buffer.clear": _pass,
    "output_audio_buffer.clear": _pass,
    "response.cancel": _pass,
    # The conversation: typed messages, results of functions, edits of history. All of it is in
    # the journal.
    "conversation.item.create": _pass,
    "conversation.item.retrieve": _pass,
    "conversation.item.truncate": _pass,
    "conversation.item.delete": _pass,
    "response.create": _clean_response,
}
"""Clients without a token."""

TRUSTED: Final[Mapping[str, Rule]] = {**OPEN, "session.update": _trusted_session}
"""Clients whose token says so, or whose persona."""

INVITED: Final[Mapping[str, Rule]] = {
    "input_audio_buffer.append": _refuse_audio,
    "input_audio_buffer.commit": _bare,
    "input_audio_buffer.clear": _bare,
    "output_audio_buffer.clear": _bare,
    "response.create": _bare,
    "response.cancel": _only("response_id?"),
    "conversation.item.create": _typed,
    "conversation.item.retrieve": _only("item_id"),
}
"""Candidates who came by a token. ``session.update`` is answered by the gate itself."""

WIDENING: Final[Mapping[str, Rule]] = {
    "session.update": reduce_session,
    "conversation.item.truncate": _truncation,
    "conversation.item.delete": _only("item_id"),
}
"""What a persona may allow them besides."""

ALLOWABLE: Final = frozenset({*INVITED, *WIDENING} - {"input_audio_buffer.append"})
DENIABLE: Final = frozenset(OPEN)
"""Event types that a persona's ``allow`` and ``deny`` may name."""
