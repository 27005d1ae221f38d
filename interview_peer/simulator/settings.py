"""How a simulator behaves: one model, read by Python callers, command line and admin path alike.

Every field says when a change takes effect: requests and calls already under way keep what they
began with.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

IdleAudio = Literal["silence", "stop_jump", "stop_contiguous"]
"""What goes out while nobody speaks: coded silence; nothing, and the RTP clock goes on; nothing,
and the RTP clock stands still. Which of them the real service does is not known."""

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=86_400, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=0, le=8_000_000)]

HTTP: Final = "Requests"
CONNECTION: Final = "Connection"
SESSION: Final = "Session"
TURNS: Final = "Turns and replies"
TOOLS: Final = "Tools"
FAULTS: Final = "Faults on the channel"

FIXED: Final = frozenset({"api_key", "udp_host"})
"""Set when the simulator starts and by nobody afterwards."""


def _field(default: Any, group: str, description: str) -> Any:
    return Field(default, description=description, json_schema_extra={"group": group})


class SimulatorSettings(BaseModel):
    """Every knob and fault; a wrong or unknown one raises pydantic's ``ValidationError``.

    Immutable; ``changed`` makes another. All chance comes from ``seed``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)

    api_key: str | None = Field(
        default=None,
        description="The only standard key taken, and the admin path's; any is taken without.",
        repr=False,
        json_schema_extra={"group": HTTP},
    )
    answer_status: Annotated[int, Field(ge=400, le=599)] | None = _field(
        None, HTTP, "Refuse every call with this HTTP status."
    )
    answer_code: str | None = _field(
        None,
        HTTP,
        "The refusal's code; fits the status if not given (429: insufficient_quota).",
    )
    answer_delay: Seconds = _field(0.0, HTTP, "Seconds before a call is answered.")
    answer_garbage: bool = _field(False, HTTP, "Answer calls with 201 and a body that is no SDP.")
    hang: bool = _field(False, HTTP, "Never answer a call.")
    max_calls: Annotated[int, Field(ge=0, le=100_000)] = _field(
        256, HTTP, "Calls at a time; more are refused with 429 rate_limit_exceeded."
    )
    single_use_secrets: bool = _field(
        False, HTTP, "Take an ephemeral key (ek_) for one call only; a second use gets 401."
    )
    echo_key: bool = _field(
        False,
        HTTP,
        "Repeat the received and the expected key in refusals and in an error event: "
        "shows that a client does not pass them on.",
    )

    udp_host: str = _field(
        "127.0.0.1", CONNECTION, "Address that the calls' sockets are bound to and announce."
    )
    connect_seconds: Seconds = _field(
        20.0, CONNECTION, "A call that nobody connects to ends after so many seconds."
    )
    ice_lite: bool = _field(True, CONNECTION, "Announce a=ice-lite in the answer.")
    idle_audio: IdleAudio = _field(
        "silence",
        CONNECTION,
        "RTP while nobody speaks: coded silence; none, the clock goes on; none, it stands still.",
    )
    oversized_events: Literal["send", "drop"] = _field(
        "send", CONNECTION, "What becomes of events beyond the client's max-message-size."
    )
    drop_in_reply: Annotated[int, Field(ge=1)] | None = _field(
        None,
        CONNECTION,
        "Lose the network in the middle of this reply (from 1): no media, no answer to STUN.",
    )

    session_seconds: Seconds = _field(3600.0, SESSION, "A session expires after so many seconds.")
    expiry: Literal["event", "silent"] = _field(
        "event", SESSION, "Expire with the error session_expired and a close, or with a close only."
    )
    session_delay: Seconds = _field(
        0.0,
        SESSION,
        "Seconds from the channel's opening to session.created; events that come before it wait.",
    )
    instructions_padding: Bytes = _field(
        0, SESSION, "Characters added to the instructions that the session events tell."
    )
    unknown_events: bool = _field(
        True, SESSION, "Send one event of an invented type in every session."
    )
    planted_error: str | None = _field(
        None, SESSION, "Text of an error event sent right after session.created."
    )

    greet: bool = _field(True, TURNS, "Speak first, once audio flows.")
    greet_after: Seconds = _field(0.3, TURNS, "Seconds of audio before the greeting.")
    generation_speed: Annotated[float, Field(ge=0.1, le=100, allow_inf_nan=False)] = _field(
        4.0,
        TURNS,
        "How much faster than speech replies are generated. 1: barge-in meets a reply that is "
        "still being generated; 100: one that is only being played.",
    )
    barge_in: Literal["random", "before", "between", "after"] = _field(
        "random",
        TURNS,
        "Where cleared and truncated stand to a cancelled reply's closing events.",
    )
    reply_failure_share: Share = _field(0.0, TURNS, "Share of replies that end as failed.")
    reply_failure_code: str = _field(
        "rate_limit_exceeded", TURNS, "The error code of a reply that failed."
    )
    reply_incomplete_share: Share = _field(0.0, TURNS, "Share of replies that end as incomplete.")
    transcription_delay: Seconds | None = _field(
        None,
        TURNS,
        "Seconds from a turn's end to its transcription; without, 0.2 to 1, or 2.5 to 3.5 if late.",
    )
    transcription_late_share: Share = _field(
        0.25, TURNS, "Share of transcriptions that come late, after the reply."
    )
    transcription_swap_share: Share = _field(
        0.0, TURNS, "Share of transcriptions held back until the next turn's is told."
    )
    transcription_failure_share: Share = _field(0.0, TURNS, "Share of transcriptions that fail.")
    transcription_missing_share: Share = _field(
        0.0, TURNS, "Share of transcriptions that never come."
    )
    rate_limits_share: Share = _field(0.9, TURNS, "Share of replies followed by rate limits.")
    retrieve_audio: bool = _field(
        True, TURNS, "Put audio (silence of the item's length, base64) into retrieved items."
    )
    retrieved_audio_ms: Annotated[int, Field(ge=0, le=120_000)] = _field(
        0, TURNS, "Least length of that audio; 30000 makes an event of 1.9 MB."
    )

    tool: str = _field(
        "end_interview",
        TOOLS,
        "Function that the model calls once of itself, if the session has it.",
    )
    tool_speaks: bool = _field(
        True,
        TOOLS,
        "Call it in the reply that says the last line before, not in a reply of its own.",
    )
    tool_after: Annotated[int, Field(ge=0)] | None = _field(
        None, TOOLS, "Lines before the call; without, all up to the closing."
    )
    tool_arguments: str = _field("{}", TOOLS, "The call's arguments, a JSON object.")

    malformed_events: bool = _field(
        False, FAULTS, "Begin sessions with messages that are not JSON, no object, or no event."
    )
    binary_events: bool = _field(
        False, FAULTS, "Begin sessions with binary frames: noise, and an event in binary."
    )
    strict_channel: bool = _field(
        False, FAULTS, "End the call when the client sends a binary or non-JSON message."
    )

    seed: int = _field(
        1, SESSION, "Of all that is left to chance, together with the call's number."
    )

    @field_validator("tool_arguments")
    @classmethod
    def _is_an_object(cls, value: str) -> str:
        try:
            is_object = isinstance(json.loads(value), dict)
        except (ValueError, RecursionError):
            is_object = False
        if not is_object:
            raise ValueError("must be a JSON object, as text")
        return value

    @model_validator(mode="after")
    def _agree(self) -> SimulatorSettings:
        if self.reply_failure_share + self.reply_incomplete_share > 1:
            raise ValueError("reply_failure_share and reply_incomplete_share exceed 1 together")
        return self

    def changed(self, **fields: Any) -> SimulatorSettings:
        """The same settings but for these, checked. Raises ``ValidationError``."""
        return SimulatorSettings(**(dict(self) | fields))


def group_of(name: str) -> str:
    """Under which heading a field is told."""
    extra = SimulatorSettings.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return str(extra["group"])
