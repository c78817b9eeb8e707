"""Start of the branch: where expansion and contraction part.

Revision ID: start_calico_openstack
Revises: None
"""
# ruff: noqa: INP001 - alembic loads revisions by file, from folders named by release

revision = "start_calico_openstack"
down_revision = None


def upgrade() -> None:
    """Change nothing: the first tables come with the expand branch."""
