"""Create the row that guards the address space.

Revision ID: c41d8e7b5f02
Revises: 3b1f6a0c9d27
"""
# ruff: noqa: INP001 - alembic loads revisions by file, from folders named by release

import sqlalchemy as sa
from alembic import op

revision = "c41d8e7b5f02"
down_revision = "3b1f6a0c9d27"


def upgrade() -> None:
    """Create the table, and its row."""
    table = op.create_table(
        "calico_address_space",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("changes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        mysql_engine="InnoDB",
    )
    op.bulk_insert(table, [{"id": 1, "changes": 0}])
