"""Agreement to being recorded: whether it is needed, when it came, and to which text."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns; nobody is asked in interviews that were made before."""
    policy = sa.Column("consent", sa.String(length=16), server_default="off", nullable=False)
    op.add_column("interviews", policy)
    op.add_column("interviews", sa.Column("consent_at", sa.BigInteger(), nullable=True))
    op.add_column("interviews", sa.Column("consent_version", sa.String(length=100), nullable=True))
    op.add_column("interviews", sa.Column("consent_sha256", sa.String(length=64), nullable=True))
