"""Where the files of an interview are."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Name the data folder of each interview, found quickly among those that were erased."""
    op.add_column("interviews", sa.Column("place", sa.String(length=64), nullable=True))
    op.create_index("ix_interviews_place_deleted_at", "interviews", ["place", "deleted_at"])
