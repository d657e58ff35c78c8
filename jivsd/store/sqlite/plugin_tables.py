"""A plugin's own tables in jivsd's database, by the plugin's numbered migrations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import apsw

from jivsd.store.api import StoreError
from jivsd.store.plugin_tables import pending
from jivsd.store.sqlite.database import query, together
from jivsd.store.statements import statements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jivsd.store.plugin_tables import Migration
    from jivsd.store.sqlite.transaction import Guard


def migrate(connection: apsw.Connection, guard: Guard, plugin: str, migrations: Sequence[Migration]) -> None:
    """See `Store.migrate_plugin`."""
    sql = statements("sqlite")
    applied = dict(query(connection, sql["plugin_migrations"], (plugin,)).fetchall())
    for where, migration, row in pending(plugin, migrations, applied):
        try:
            with together(connection):
                with guard.active():
                    query(connection, migration)
                query(connection, sql["put_plugin_migration"], row)
        except apsw.SQLError as error:
            raise StoreError(f"{where} failed: {guard.denied or error}") from None
        except apsw.AuthError:
            raise StoreError(f"{where} failed: {guard.denied}") from None
