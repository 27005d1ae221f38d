"""Which taking of an interview holds it; keys that make endpoints only once."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; what is there holds nothing in them."""
    op.add_column("interviews", sa.Column("claim", sa.String(length=64), nullable=True))
    op.add_column("endpoints", sa.Column("idempotency_key", sa.String(length=255), nullable=True))
    op.add_column("endpoints", sa.Column("idempotency_hash", sa.String(length=64), nullable=True))
    op.create_index("ix_endpoints_idempotency_key", "endpoints", ["idempotency_key"], unique=True)
