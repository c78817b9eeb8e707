"""How alembic runs this branch's revisions: in Neutron's database, counted apart."""

from typing import Any

from alembic import context
from neutron.db.migration.connection import DBConnection
from neutron_lib.db import model_base

from calico.server.db import models

VERSION_TABLE = "alembic_version_calico_openstack"
OWN_TABLES = frozenset({models.JournalRow.__tablename__})


# Neutron's own command puts its configuration there.
settings: Any = context.config


def _is_ours(_object: Any, name: str | None, kind: str, *_more: Any) -> bool:
    return kind != "table" or name in OWN_TABLES


def _configure(**target: Any) -> None:
    context.configure(
        target_metadata=model_base.BASEV2.metadata,
        version_table=VERSION_TABLE,
        include_object=_is_ours,
        **target,
    )
    with context.begin_transaction():
        context.run_migrations()


def _run_offline() -> None:
    database = settings.neutron_config.database
    if database.connection:
        _configure(url=database.connection)
    else:
        _configure(dialect_name=database.engine)


def _run_online() -> None:
    with DBConnection(
        settings.neutron_config.database.connection,
        settings.attributes.get("connection"),
    ) as connection:
        _configure(connection=connection)


if context.is_offline_mode():
    _run_offline()
else:
    _run_online()
