"""How Alembic runs a migration here: within the transaction that ``state.migrate`` has open."""

from __future__ import annotations

from alembic import context

from interview_peer.state.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter a column: Alembic copies the table instead.
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
