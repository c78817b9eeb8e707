"""Open the contract branch.

Revision ID: 8e54c7d1ab90
Revises: start_calico_openstack
"""
# ruff: noqa: INP001 - alembic loads revisions by file, from folders named by release

from neutron.db.migration import cli

revision = "8e54c7d1ab90"
down_revision = "start_calico_openstack"
branch_labels = (cli.CONTRACT_BRANCH,)


def upgrade() -> None:
    """Change nothing: there is nothing to take away yet."""
