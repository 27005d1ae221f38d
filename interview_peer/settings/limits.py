"""What callers may ask of the server: how often, how much, how many at once."""

from __future__ import annotations

from pydantic import BaseModel, Field

from .values import Seconds

MUST_BE = {
    "waiting_per_address": "must be a whole number from 1 to 100",
    "waiting_sockets": "must be a whole number from 1 to 10000",
    "requests_per_second": "must be a whole number from 0 to 100000",
    "requests_per_minute": "must be a whole number from 0 to 100000",
    "offers_per_minute": "must be a whole number from 0 to 100000",
    "offers_per_interview": "must be a whole number from 0 to 100000",
    "sockets_per_minute": "must be a whole number from 0 to 100000",
    "messages_per_second": "must be a whole number from 0 to 10000",
    "events_per_second": "must be a whole number from 0 to 10000",
    "max_message_kb": "must be a whole number from 16 to 4096",
    "max_body_kb": "must be a whole number from 16 to 4096",
    "max_sdp_kb": "must be a whole number from 4 to 64",
    "request_seconds": "must be a number of seconds from 0.1 to 600",
    "max_connections": "must be a whole number from 10 to 1000000",
    "connections_per_address": "must be a whole number from 0 to 1000000",
}


class LimitSettings(BaseModel):
    """Settings of what callers may ask for."""

    waiting_per_address: int = Field(
        default=10, ge=1, le=100, validation_alias="INTERVIEW_WAITING_PER_ADDRESS"
    )
    """WebSockets of one address at once that have not shown the token they need."""

    waiting_sockets: int = Field(
        default=100, ge=1, le=10000, validation_alias="INTERVIEW_WAITING_SOCKETS"
    )
    """The same of all addresses together."""

    requests_per_second: int = Field(
        default=200, ge=0, le=100000, validation_alias="INTERVIEW_REQUESTS_PER_SECOND"
    )
    """HTTP requests of one address, of every sort, that are answered in a second, and at once;
    others wait for their turn. 0 counts none."""

    requests_per_minute: int = Field(
        default=240, ge=0, le=100000, validation_alias="INTERVIEW_REQUESTS_PER_MINUTE"
    )
    """Requests that one address may post to the paths of candidates in a minute, and at once,
    whatever becomes of them; 0 counts none."""

    offers_per_minute: int = Field(
        default=60, ge=0, le=100000, validation_alias="INTERVIEW_OFFERS_PER_MINUTE"
    )
    """Offers of one address that are looked at in a minute, and at once; 0 counts none."""

    offers_per_interview: int = Field(
        default=20, ge=0, le=100000, validation_alias="INTERVIEW_OFFERS_PER_INTERVIEW"
    )
    """The same of one interview: its first offer and each return."""

    sockets_per_minute: int = Field(
        default=120, ge=0, le=100000, validation_alias="INTERVIEW_SOCKETS_PER_MINUTE"
    )
    """WebSockets that one address may open in a minute; 0 counts none."""

    messages_per_second: int = Field(
        default=20, ge=0, le=10000, validation_alias="INTERVIEW_MESSAGES_PER_SECOND"
    )
    """Messages that one WebSocket may send, five seconds' worth at once; 0 counts none."""

    events_per_second: int = Field(
        default=50, ge=0, le=10000, validation_alias="INTERVIEW_EVENTS_PER_SECOND"
    )
    """Events that one browser may send on its data channel, two seconds' worth at once; 0 counts
    none."""

    max_message_kb: int = Field(
        default=256, ge=16, le=4096, validation_alias="INTERVIEW_MAX_MESSAGE_KB"
    )
    """Longest message of a WebSocket."""

    max_body_kb: int = Field(default=256, ge=16, le=4096, validation_alias="INTERVIEW_MAX_BODY_KB")
    """Longest body of a request."""

    max_sdp_kb: int = Field(default=64, ge=4, le=64, validation_alias="INTERVIEW_MAX_SDP_KB")
    """Longest offer."""

    request_seconds: Seconds = Field(
        default=10.0, ge=0.1, le=600, validation_alias="INTERVIEW_REQUEST_SECONDS"
    )
    """How long the head of an HTTP request may take to arrive, and again its body; and how long a
    client may take nothing of what it is sent."""

    max_connections: int = Field(
        default=2000, ge=10, le=1000000, validation_alias="INTERVIEW_MAX_CONNECTIONS"
    )
    """TCP connections open at once; further ones are closed."""

    connections_per_address: int = Field(
        default=500, ge=0, le=1000000, validation_alias="INTERVIEW_CONNECTIONS_PER_ADDRESS"
    )
    """The same of one address, unless it is a trusted proxy's; 0 counts none."""
