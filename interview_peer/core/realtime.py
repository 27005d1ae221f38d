"""The Realtime API's events as types: the one place that knows their JSON.

Text becomes a JSON object (`parse`), a JSON object from the model becomes one of a closed set of
small values (`model_event`). Past this module nobody compares ``"type"`` strings of model events.

The service adds fields and event types whenever it likes, so reading is tolerant: what we do not
use is not looked at, an optional field may be missing, and anything we cannot make sense of is an
`UnknownModelEvent`, which everyone may ignore. Several events a second arrive per interview, nearly
all of them deltas: reading one is a dictionary look-up and three field checks.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Final, NoReturn

from interview_peer.errors import InvalidJson, InvalidMessage
from interview_peer.types import ItemId, Json, ResponseId

TAG: Final = "interview_peer"
"""The key of a reply's metadata under which the server marks those that it asks for itself."""

DICTATED: Final = "dictated-"
"""What the mark begins with where the words are given, not the model's own."""

ASSISTANT_MS_PER_TOKEN: Final = 50
"""How much speech of the model one token of its output stands for."""

_WRITTEN: Final = ("input_text", "output_text", "text")

UNPLACED: Final = ItemId("")
"""Stands for "the event does not say what came before", which is not the same as "nothing did"."""


Padding = tuple[int | None, int | None]
"""What the service's times of speech include, in milliseconds: what precedes each start, and the
silence behind each end. None stands for its default."""


@dataclass(frozen=True, slots=True)
class SessionCreated:
    """The model's session exists; with this its event channel is ready for use."""

    session_id: str | None
    model: str | None
    voice: str | None
    expires_at: int | None
    """Epoch seconds."""
    padding: Padding | None = None


@dataclass(frozen=True, slots=True)
class SessionUpdated:
    """The session's configuration as it is after an accepted update."""

    session_id: str | None
    model: str | None
    voice: str | None
    expires_at: int | None
    """Epoch seconds."""
    padding: Padding | None = None


@dataclass(frozen=True, slots=True)
class ModelError:
    """The service refused an event or failed at something. The session goes on."""

    code: str | None
    message: str
    param: str | None
    event_id: str | None
    """Id of the client event it is about."""


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """The candidate began to speak; the item does not exist yet, but will have this id."""

    item_id: ItemId
    audio_start_ms: int | None


@dataclass(frozen=True, slots=True)
class SpeechStopped:
    """The candidate fell silent."""

    item_id: ItemId
    audio_end_ms: int | None


@dataclass(frozen=True, slots=True)
class IdleTimedOut:
    """The candidate said nothing for long; the silence becomes an item, so that a reply follows."""

    item_id: ItemId


@dataclass(frozen=True, slots=True)
class InputCommitted:
    """What the candidate said becomes an item. `previous_item_id` is as in `ItemAdded`."""

    item_id: ItemId
    previous_item_id: ItemId | None


@dataclass(frozen=True, slots=True)
class ItemAdded:
    """An item took its place in the conversation.

    `previous_item_id` is None for the first item and `UNPLACED` where the event does not say.
    `role` is None for whatever is not a message (function calls and their results). `text` is
    what the item's content holds already, often nothing; `written` says that it was typed or
    written, not spoken. `kind` is the item's own type; `name` and `call_id` are those of a call.
    """

    item_id: ItemId
    previous_item_id: ItemId | None
    role: str | None
    text: str
    kind: str = "message"
    written: bool = False
    name: str | None = None
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class ItemDone:
    """An item is finished, except that a transcription may follow. Fields as in `ItemAdded`."""

    item_id: ItemId
    previous_item_id: ItemId | None
    role: str | None
    text: str
    status: str | None
    kind: str = "message"
    written: bool = False
    name: str | None = None
    call_id: str | None = None


@dataclass(frozen=True, slots=True)
class InputTextDelta:
    """A further piece of the transcription of candidate speech."""

    item_id: ItemId
    delta: str


@dataclass(frozen=True, slots=True)
class InputTextDone:
    """The service finished transcribing one stretch of candidate speech."""

    item_id: ItemId
    text: str


@dataclass(frozen=True, slots=True)
class InputTextFailed:
    """A stretch of candidate speech could not be transcribed."""

    item_id: ItemId
    code: str | None


@dataclass(frozen=True, slots=True)
class ReplyStarted:
    """The model began to generate a reply. Out of band: it joins no conversation.

    `tag` is what the request for it was marked with (`TAG`); None for replies of other requests.
    """

    response_id: ResponseId
    out_of_band: bool = False
    tag: str | None = None


@dataclass(frozen=True, slots=True)
class ReplyDone:
    """Generation is over, however it ended; the sound usually plays on for seconds.

    `status` is ``completed``, ``cancelled``, ``failed`` or ``incomplete``. `reason` is the
    service's reason, or the code of the error that made it fail.
    """

    response_id: ResponseId
    status: str | None
    reason: str | None
    usage: Json = field(default_factory=dict)
    audio_ms: int | None = None
    """How much sound was generated, by the tokens that were counted; None if they were not."""


@dataclass(frozen=True, slots=True)
class ReplyItemAdded:
    """The reply began a new item, spoken or a function call."""

    response_id: ResponseId
    item_id: ItemId


@dataclass(frozen=True, slots=True)
class ToolCalled:
    """The model asks for a function to be run; `arguments` should be JSON, and may be nonsense."""

    response_id: ResponseId
    item_id: ItemId
    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class ReplyTextDelta:
    """A further piece of what the interviewer says, or writes."""

    response_id: ResponseId
    item_id: ItemId
    delta: str
    written: bool = False


@dataclass(frozen=True, slots=True)
class ReplyTextDone:
    """All that was generated of what the interviewer says, or writes."""

    response_id: ResponseId
    item_id: ItemId
    text: str
    written: bool = False


@dataclass(frozen=True, slots=True)
class PlayoutStarted:
    """The reply's sound is on its way to the candidate."""

    response_id: ResponseId


@dataclass(frozen=True, slots=True)
class PlayoutStopped:
    """The reply's sound was played to its end."""

    response_id: ResponseId


@dataclass(frozen=True, slots=True)
class PlayoutCleared:
    """The rest of the reply's sound was thrown away; no `PlayoutStopped` follows."""

    response_id: ResponseId


@dataclass(frozen=True, slots=True)
class ItemTruncated:
    """The candidate heard this item only up to `audio_end_ms`."""

    item_id: ItemId
    audio_end_ms: int | None


@dataclass(frozen=True, slots=True)
class ItemDeleted:
    """An item was taken out of the conversation."""

    item_id: ItemId


@dataclass(frozen=True, slots=True)
class UnknownModelEvent:
    """An event that we have no use for, do not know, or cannot make sense of."""

    type: str


ModelEvent = (
    SessionCreated
    | SessionUpdated
    | ModelError
    | SpeechStarted
    | SpeechStopped
    | IdleTimedOut
    | InputCommitted
    | ItemAdded
    | ItemDone
    | InputTextDelta
    | InputTextDone
    | InputTextFailed
    | ReplyStarted
    | ReplyDone
    | ReplyItemAdded
    | ToolCalled
    | ReplyTextDelta
    | ReplyTextDone
    | PlayoutStarted
    | PlayoutStopped
    | PlayoutCleared
    | ItemTruncated
    | ItemDeleted
    | UnknownModelEvent
)
"""The closed set of what a model may tell us."""


def parse(text: str) -> Json:
    """Read one event-channel message.

    Raises `InvalidJson` for what is not a JSON object and `InvalidMessage` for one whose
    ``type`` is not a string.
    """
    try:
        event = _DECODER.decode(text)
    except (ValueError, RecursionError):
        # No chain: the decoder's error carries the text, which may be somebody's speech.
        raise InvalidJson from None
    if not isinstance(event, dict):
        raise InvalidJson
    if not isinstance(event.get("type"), str):
        raise InvalidMessage("The event has no 'type', or one that is not a string.")
    return event


def model_event(event: Json) -> ModelEvent:
    """Say what an event of the model means. Never raises: odd ones are `UnknownModelEvent`."""
    kind = event.get("type")
    if not isinstance(kind, str):
        return UnknownModelEvent("")
    read = _READERS.get(kind)
    if read is None:
        return UnknownModelEvent(kind)
    try:
        return read(event)
    except _OddShapeError:
        return UnknownModelEvent(kind)


class _OddShapeError(Exception):
    """A field we cannot do without is missing or of the wrong kind."""


def _refuse_constant(_name: str) -> NoReturn:
    # Python would read NaN and Infinity, and write them again; no other JSON reader takes them.
    raise ValueError


_DECODER: Final = json.JSONDecoder(parse_constant=_refuse_constant)


def _string(owner: Json, key: str) -> str:
    value = owner.get(key)
    if type(value) is not str:
        raise _OddShapeError
    return value


def _name(owner: Json, key: str) -> str:
    value = _string(owner, key)
    if not value:
        raise _OddShapeError
    return value


def _object(owner: Json, key: str) -> Json:
    value = owner.get(key)
    if not isinstance(value, dict):
        raise _OddShapeError
    return value


def _string_or_none(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _whole_or_none(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return round(value)


def _item_id(event: Json) -> ItemId:
    return ItemId(_name(event, "item_id"))


def _response_id(event: Json) -> ResponseId:
    return ResponseId(_name(event, "response_id"))


def _previous(event: Json) -> ItemId | None:
    value = event.get("previous_item_id", UNPLACED)
    if value is None:
        return None
    return ItemId(value) if isinstance(value, str) else UNPLACED


def _role(item: Json) -> str | None:
    if item.get("type", "message") != "message":
        return None
    return _string_or_none(item.get("role"))


def _content_text(item: Json) -> str:
    content = item.get("content")
    if not isinstance(content, list):
        return ""
    texts: list[str] = []
    for part in content:
        if isinstance(part, dict):
            text = part.get("text") or part.get("transcript")
            if isinstance(text, str):
                texts.append(text)
    return " ".join(texts)


def _is_written(item: Json) -> bool:
    content = item.get("content")
    kinds = (
        [part.get("type") for part in content if isinstance(part, dict)]
        if isinstance(content, list)
        else []
    )
    return bool(kinds) and all(kind in _WRITTEN for kind in kinds)


def _call(item: Json) -> tuple[str, bool, str | None, str | None]:
    """An item's own type, whether it was written, and a call's name and id."""
    kind = _string_or_none(item.get("type")) or "message"
    name, call_id = _string_or_none(item.get("name")), _string_or_none(item.get("call_id"))
    return kind, _is_written(item), name, call_id


def _padding(audio: Any) -> Padding | None:
    heard = audio.get("input") if isinstance(audio, dict) else None
    if not isinstance(heard, dict) or "turn_detection" not in heard:
        return None
    detection = heard["turn_detection"]
    if not isinstance(detection, dict):
        return None
    if detection.get("type") == "semantic_vad":
        # It waits as long as it likes, and does not say how long that was.
        return None, 0
    return (
        _whole_or_none(detection.get("prefix_padding_ms")),
        _whole_or_none(detection.get("silence_duration_ms")),
    )


def _session_facts(
    event: Json,
) -> tuple[str | None, str | None, str | None, int | None, Padding | None]:
    session = _object(event, "session")
    audio = session.get("audio")
    output = audio.get("output") if isinstance(audio, dict) else None
    voice = output.get("voice") if isinstance(output, dict) else None
    if isinstance(voice, dict):
        voice = voice.get("id")
    return (
        _string_or_none(session.get("id")),
        _string_or_none(session.get("model")),
        _string_or_none(voice),
        _whole_or_none(session.get("expires_at")),
        _padding(audio),
    )


def _model_error(event: Json) -> ModelEvent:
    error = _object(event, "error")
    return ModelError(
        _string_or_none(error.get("code")),
        _string_or_none(error.get("message")) or "",
        _string_or_none(error.get("param")),
        _string_or_none(error.get("event_id")),
    )


def _item_added(event: Json) -> ModelEvent:
    item = _object(event, "item")
    return ItemAdded(
        ItemId(_name(item, "id")),
        _previous(event),
        _role(item),
        _content_text(item),
        *_call(item),
    )


def _item_done(event: Json) -> ModelEvent:
    item = _object(event, "item")
    return ItemDone(
        ItemId(_name(item, "id")),
        _previous(event),
        _role(item),
        _content_text(item),
        _string_or_none(item.get("status")),
        *_call(item),
    )


def _input_text_delta(event: Json) -> ModelEvent:
    # The one delta whose text is optional: a model may send log probabilities alone.
    return InputTextDelta(_item_id(event), _string_or_none(event.get("delta")) or "")


def _input_text_failed(event: Json) -> ModelEvent:
    error = event.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return InputTextFailed(_item_id(event), _string_or_none(code))


def _reply_started(event: Json) -> ModelEvent:
    response = _object(event, "response")
    out_of_band = response.get("conversation_id", "absent") is None
    metadata = response.get("metadata")
    tag = _string_or_none(metadata.get(TAG)) if isinstance(metadata, dict) else None
    return ReplyStarted(ResponseId(_name(response, "id")), out_of_band, tag)


def _reply_done(event: Json) -> ModelEvent:
    response = _object(event, "response")
    details = response.get("status_details")
    reason = None
    if isinstance(details, dict):
        error = details.get("error")
        code = error.get("code") if isinstance(error, dict) else None
        reason = _string_or_none(details.get("reason")) or _string_or_none(code)
    usage = response.get("usage")
    spoken = usage.get("output_token_details") if isinstance(usage, dict) else None
    tokens = _whole_or_none(spoken.get("audio_tokens")) if isinstance(spoken, dict) else None
    return ReplyDone(
        ResponseId(_name(response, "id")),
        _string_or_none(response.get("status")),
        reason,
        usage if isinstance(usage, dict) else {},
        tokens * ASSISTANT_MS_PER_TOKEN if tokens else None,
    )


def _reply_item_added(event: Json) -> ModelEvent:
    return ReplyItemAdded(_response_id(event), ItemId(_name(_object(event, "item"), "id")))


def _reply_item_done(event: Json) -> ModelEvent:
    item = _object(event, "item")
    if item.get("type") != "function_call" or item.get("status", "completed") != "completed":
        raise _OddShapeError
    return ToolCalled(
        _response_id(event),
        ItemId(_name(item, "id")),
        _name(item, "call_id"),
        _string(item, "name"),
        _string_or_none(item.get("arguments")) or "",
    )


def _reply_text_delta(event: Json) -> ModelEvent:
    return ReplyTextDelta(_response_id(event), _item_id(event), _string(event, "delta"))


def _reply_text_done(event: Json) -> ModelEvent:
    return ReplyTextDone(_response_id(event), _item_id(event), _string(event, "text"), True)


def _reply_written_delta(event: Json) -> ModelEvent:
    return ReplyTextDelta(_response_id(event), _item_id(event), _string(event, "delta"), True)


def _reply_transcript_done(event: Json) -> ModelEvent:
    return ReplyTextDone(_response_id(event), _item_id(event), _string(event, "transcript"))


_TRANSCRIPTION: Final = "conversation.item.input_audio_transcription"

_READERS: Final[dict[str, Callable[[Json], ModelEvent]]] = {
    "session.created": lambda e: SessionCreated(*_session_facts(e)),
    "session.updated": lambda e: SessionUpdated(*_session_facts(e)),
    "error": _model_error,
    "input_audio_buffer.speech_started": lambda e: SpeechStarted(
        _item_id(e), _whole_or_none(e.get("audio_start_ms"))
    ),
    "input_audio_buffer.speech_stopped": lambda e: SpeechStopped(
        _item_id(e), _whole_or_none(e.get("audio_end_ms"))
    ),
    "input_audio_buffer.timeout_triggered": lambda e: IdleTimedOut(_item_id(e)),
    "input_audio_buffer.committed": lambda e: InputCommitted(_item_id(e), _previous(e)),
    "conversation.item.added": _item_added,
    # The earlier name of the same event. The service's schema still lists it.
    "conversation.item.created": _item_added,
    "conversation.item.done": _item_done,
    "conversation.item.truncated": lambda e: ItemTruncated(
        _item_id(e), _whole_or_none(e.get("audio_end_ms"))
    ),
    "conversation.item.deleted": lambda e: ItemDeleted(_item_id(e)),
    f"{_TRANSCRIPTION}.delta": _input_text_delta,
    f"{_TRANSCRIPTION}.completed": lambda e: InputTextDone(_item_id(e), _string(e, "transcript")),
    f"{_TRANSCRIPTION}.failed": _input_text_failed,
    "response.created": _reply_started,
    "response.done": _reply_done,
    "response.output_item.added": _reply_item_added,
    # Of what is finished only calls are of use here; the rest is told by the items' own events.
    "response.output_item.done": _reply_item_done,
    "response.output_audio_transcript.delta": _reply_text_delta,
    "response.output_audio_transcript.done": _reply_transcript_done,
    "response.output_text.delta": _reply_written_delta,
    "response.output_text.done": _reply_text_done,
    "output_audio_buffer.started": lambda e: PlayoutStarted(_response_id(e)),
    "output_audio_buffer.stopped": lambda e: PlayoutStopped(_response_id(e)),
    "output_audio_buffer.cleared": lambda e: PlayoutCleared(_response_id(e)),
}
