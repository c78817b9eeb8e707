"""Create the journal.

Revision ID: 3b1f6a0c9d27
Revises: start_calico_openstack
"""
# ruff: noqa: INP001 - alembic loads revisions by file, from folders named by release

import sqlalchemy as sa
from alembic import op
from neutron.db.migration import cli

revision = "3b1f6a0c9d27"
down_revision = "start_calico_openstack"
branch_labels = (cli.EXPAND_BRANCH,)


def upgrade() -> None:
    """Create the table of objects that are not yet in etcd as they are now."""
    op.create_table(
        "calico_journal",
        sa.Column("seq", sa.BigInteger(), autoincrement=True, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("created", sa.DateTime(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
        mysql_engine="InnoDB",
    )
    op.create_index("ix_calico_journal_kind_id", "calico_journal", ["kind", "id"])
