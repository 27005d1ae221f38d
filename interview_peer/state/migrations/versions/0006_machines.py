"""How other processes reach a node, and what it announces to browsers."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; nodes that run say so with their next word."""
    op.add_column("nodes", sa.Column("place", sa.String(length=64), nullable=True))
    op.add_column("nodes", sa.Column("address", sa.Text(), nullable=True))
    op.add_column("nodes", sa.Column("instance", sa.String(length=64), nullable=True))
    op.add_column("nodes", sa.Column("key", sa.String(length=64), nullable=True))
    op.add_column("nodes", sa.Column("announced", sa.Text(), nullable=True))
