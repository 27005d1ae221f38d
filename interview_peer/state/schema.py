"""Every table the server keeps, the same for SQLite and PostgreSQL.

Times are whole microseconds since 1970 in UTC (``now_us``): SQLite gives a timestamp back without
its zone. Texts that name a state or a kind hold the value of the enum that owns it. What is written
when, and by whom, is decided elsewhere.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)
"""Names are given, so that a migration can change what SQLite would leave nameless."""

_JSON: Final = JSON(none_as_null=True).with_variant(JSONB(none_as_null=True), "postgresql")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _id() -> String:
    return String(64)


def _time(name: str, *, nullable: bool = False) -> Column[Any]:
    return Column(name, BigInteger, nullable=nullable)


def _belongs_to(column: str, *, nullable: bool = False) -> Column[Any]:
    """A reference whose row goes when what it belongs to goes."""
    table, key = column.split(".")
    name = f"{table.rstrip('s')}_{key}"
    return Column(name, _id(), ForeignKey(column, ondelete="CASCADE"), nullable=nullable)


interviews = Table(
    "interviews",
    metadata,
    Column("id", _id(), primary_key=True),
    # "api" or "open": made by an integrator, or by an open client that just came.
    Column("origin", String(16), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("reason", String(32)),
    _time("created_at"),
    _time("started_at", nullable=True),
    _time("ended_at", nullable=True),
    _time("expires_at", nullable=True),
    _time("deleted_at", nullable=True),
    Column("persona", String(100)),
    Column("plan", _JSON),
    Column("candidate_reference", String(200)),
    Column("metadata", _JSON),
    Column("limits", _JSON),
    Column("callback", _JSON),
    # sha256 in hex of the key, which may name a candidate, and of the request that came with it.
    Column("idempotency_key", String(255), unique=True),
    Column("idempotency_hash", String(64)),
    Column("usage", _JSON),
    Column("seconds", Float),
    # The sequence that the interview's next notice gets.
    Column("next_sequence", Integer, nullable=False, server_default=text("1")),
    # The node that holds its legs, or is about to make them; null while none does.
    Column("node_id", _id()),
    # Made anew each time a node takes it: only the same taking can be given back.
    Column("claim", _id()),
    # The last happening the chronicle applied: what a commit of unknown outcome is known by.
    Column("applied", _id()),
    # "required", "given" or "off": what it needs before anything of it may be recorded.
    Column("consent", String(16), nullable=False, server_default="off"),
    # When the agreement was noted, and, of the candidate's own, to which text: version, and sha256
    # in hex. They stay when an interview is erased: what is kept of a recording is why it was made.
    _time("consent_at", nullable=True),
    Column("consent_version", String(100)),
    Column("consent_sha256", String(64)),
    # The data folder that holds its files; null while none does. In an erased one: still does.
    Column("place", _id()),
    Index(None, "created_at", "id"),
    Index(None, "phase"),
    Index(None, "candidate_reference"),
    Index("ix_interviews_place_deleted_at", "place", "deleted_at"),
)

turns = Table(
    "turns",
    metadata,
    Column(
        "interview_id",
        _id(),
        ForeignKey("interviews.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    # Place in the conversation, from 0; a late turn moves those after it.
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("item_id", Text, nullable=False),
    Column("speaker", String(16), nullable=False),
    Column("text", Text, nullable=False),
    # Seconds since the interview's start.
    Column("started_at", Float),
    Column("ended_at", Float),
    Column("status", String(16), nullable=False),
    Column("heard_ms", Integer),
    # "speech" or "text".
    Column("kind", String(16), nullable=False, server_default="speech"),
    Column("heard_text", Text),
)

recordings = Table(
    "recordings",
    metadata,
    Column(
        "interview_id",
        _id(),
        ForeignKey("interviews.id", ondelete="CASCADE"),
        primary_key=True,
    ),
    # File name within the interview's folder.
    Column("name", String(100), primary_key=True),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64)),
    Column("seconds", Float),
    _time("created_at"),
)

notices = Table(
    "notices",
    metadata,
    Column("id", _id(), primary_key=True),
    _belongs_to("interviews.id", nullable=True),
    # 1, 2, 3 … within its interview; null for a notice of no interview.
    Column("sequence", Integer),
    Column("type", String(64), nullable=False),
    _time("created_at"),
    # The exact text that is signed and sent.
    Column("body", Text, nullable=False),
    Index(None, "interview_id", "sequence", unique=True),
    Index(None, "created_at"),
)

endpoints = Table(
    "endpoints",
    metadata,
    Column("id", _id(), primary_key=True),
    Column("url", Text, nullable=False),
    # A list: while a secret is being replaced, both sign.
    Column("secrets", _JSON, nullable=False),
    # A list of notice types; null takes all.
    Column("events", _JSON),
    Column("description", Text),
    Column("active", Boolean, nullable=False, server_default=text("true")),
    _time("created_at"),
    Column("disabled_reason", String(64)),
    Column("idempotency_key", String(255)),
    Column("idempotency_hash", String(64)),
    Index(None, "idempotency_key", unique=True),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", _id(), primary_key=True),
    _belongs_to("notices.id"),
    _belongs_to("endpoints.id", nullable=True),
    # Repeated from the notice: order holds per interview and destination.
    Column("interview_id", _id()),
    Column("sequence", Integer),
    # "default", an endpoint's id, or "callback:…": what waits, rests and is counted together.
    Column("destination", String(128), nullable=False),
    # Where to, when it is an interview's own callback.
    Column("url", Text),
    # "due", "paused", "delivered" or "dead".
    Column("state", String(16), nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    _time("next_at"),
    _time("created_at"),
    _time("first_failed_at", nullable=True),
    _time("delivered_at", nullable=True),
    Column("lease_owner", _id()),
    _time("lease_until", nullable=True),
    Column("last_status", Integer),
    Column("last_error", Text),
    Index(None, "state", "destination", "next_at"),
    Index(None, "notice_id"),
    Index(None, "interview_id", "destination", "state", "sequence"),
    Index(None, "endpoint_id"),
    Index(None, "created_at"),
)

attempts = Table(
    "attempts",
    metadata,
    # SQLite counts up by itself in a column of exactly this type alone.
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("delivery_id", _id(), ForeignKey("deliveries.id", ondelete="CASCADE"), nullable=False),
    _time("at"),
    Column("milliseconds", Integer, nullable=False),
    Column("status", Integer),
    Column("error", Text),
    Index(None, "delivery_id"),
)

used_tokens = Table(
    "used_tokens",
    metadata,
    Column("jti", String(128), primary_key=True),
    Column("interview_id", _id(), nullable=False),
    _time("at"),
    Index(None, "at"),
)

resume_tokens = Table(
    "resume_tokens",
    metadata,
    # sha256 in hex; the token itself is kept nowhere.
    Column("hash", String(64), primary_key=True),
    _belongs_to("interviews.id"),
    _time("at"),
    Index(None, "interview_id"),
)

admin_keys = Table(
    "admin_keys",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("name", String(100), nullable=False),
    # Names of scopes with spaces between. A server of an older version leaves them out.
    Column("scopes", String(200), nullable=False, server_default="all"),
    _time("created_at"),
    _time("last_used_at", nullable=True),
    _time("revoked_at", nullable=True),
)

acts = Table(
    "acts",
    metadata,
    # What operators did. Bound to no other row: it stays when what was acted upon is gone.
    Column("id", _id(), primary_key=True),
    _time("at"),
    Column("act", String(32), nullable=False),
    # The id of a key, or a word for who has none; never the key. Its name as it was then.
    Column("key_id", _id(), nullable=False),
    Column("key_name", String(100), nullable=False),
    Column("address", String(64)),
    Column("interview_id", _id()),
    # Of a key, an endpoint or a delivery.
    Column("object_id", _id()),
    # "begun", "done" or "refused", and the stable code of a refusal.
    Column("outcome", String(16), nullable=False),
    Column("code", String(64)),
    Index(None, "at"),
    Index(None, "interview_id", "id"),
    Index(None, "key_id", "id"),
    Index(None, "act", "id"),
)

nodes = Table(
    "nodes",
    metadata,
    # One server process; it says every few seconds that it lives.
    Column("id", _id(), primary_key=True),
    _time("started_at"),
    _time("seen_at"),
    # The name of its data folder.
    Column("place", _id()),
    # How other nodes reach it: by HTTP, and by Fly.io's proxy.
    Column("address", Text),
    Column("instance", String(64)),
    # Made anew at each start; signs requests that others pass on to it.
    Column("key", _id()),
    # Addresses with ports, separated by commas, at which browsers send it their audio.
    Column("announced", Text),
)


def now_us() -> int:
    """The time as the tables hold it."""
    return time.time_ns() // 1000


def to_us(moment: datetime) -> int:
    """A moment as the tables hold it. Raises ``ValueError`` for one without a zone."""
    if moment.tzinfo is None:
        raise ValueError("a moment without a zone")
    return (moment - _EPOCH) // timedelta(microseconds=1)


def from_us(microseconds: int) -> datetime:
    """A moment, in UTC, of what the tables hold."""
    return _EPOCH + timedelta(microseconds=microseconds)


def rfc3339(microseconds: int) -> str:
    """The same as text: ``2026-11-20T10:00:00.123456Z``."""
    return from_us(microseconds).isoformat(timespec="microseconds").replace("+00:00", "Z")
