"""Turns as they were heard: how their words came, and what was heard of those cut short."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add both columns."""
    kind = sa.Column("kind", sa.String(length=16), server_default="speech", nullable=False)
    op.add_column("turns", kind)
    op.add_column("turns", sa.Column("heard_text", sa.Text(), nullable=True))
