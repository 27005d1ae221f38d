"""What each key of operators opens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; keys that are there keep opening everything."""
    op.add_column(
        "admin_keys",
        sa.Column("scopes", sa.String(length=200), nullable=False, server_default="all"),
    )
