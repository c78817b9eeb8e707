"""The tables that this project adds to Neutron's database.

The journal says which objects of Neutron are not yet in etcd as they are now. It holds
ids and no payloads, so that the order in which rows are worked off never matters.
"""

import sqlalchemy as sa
from neutron_lib.db import model_base
from oslo_utils import timeutils


class JournalRow(model_base.BASEV2):
    """One object that changed: written in the transaction that changed it."""

    __tablename__ = "calico_journal"

    # SQLite counts up INTEGER primary keys only.
    seq = sa.Column(
        sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
        primary_key=True,
        autoincrement=True,
    )
    kind = sa.Column(sa.String(16), nullable=False)
    id = sa.Column(sa.String(36), nullable=False)
    attempts = sa.Column(sa.Integer(), nullable=False, default=0, server_default="0")
    created = sa.Column(sa.DateTime(), nullable=False, default=timeutils.utcnow)

    __table_args__ = (
        sa.Index("ix_calico_journal_kind_id", "kind", "id"),
        model_base.BASEV2.__table_args__,
    )


class AddressSpaceRow(model_base.BASEV2):
    """The one row that whoever takes address space changes first."""

    __tablename__ = "calico_address_space"

    id = sa.Column(sa.Integer(), primary_key=True, autoincrement=False)
    changes = sa.Column(sa.BigInteger(), nullable=False)
