"""System-versioned tables: their definition, and the rows that go into their history.

https://learn.microsoft.com/sql/relational-databases/tables/temporal-tables
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from sqlglot import exp

from tests.sandbox.mssql.errors import error, unsupported
from tests.sandbox.mssql.store import ColumnDef, IndexDef, TableDef
from tests.sandbox.mssql.types import SqlType

if TYPE_CHECKING:
    from tests.sandbox.mssql.session import Session


def set_period(table: TableDef, node: exp.Expression | None) -> None:
    """Checks PERIOD FOR SYSTEM_TIME (start, end) against the generated columns of a table."""
    generated = [column.generated for column in table.columns if column.generated]
    if node is None:
        if generated:
            raise error(13510)
        return
    start, end = table.column(node.this.name), table.column(node.expression.name)
    if sorted(generated) != [1, 2] or (start.generated, end.generated) != (1, 2):
        raise unsupported("PERIOD FOR SYSTEM_TIME over other columns")
    for column in (start, end):
        if column.type.name != "datetime2":
            raise error(13501, column.name)
        if column.type.scale != start.type.scale:
            raise unsupported("a period whose columns differ in precision")
        column.nullable = False


def set_versioning(
    session: Session, table: TableDef, prop: exp.WithSystemVersioningProperty
) -> None:
    """WITH or SET (SYSTEM_VERSIONING = ON (HISTORY_TABLE = ...)) or OFF."""
    database = session.database.name
    if not prop.args.get("on"):
        if table.history is None:
            raise error(13591, f"{database}.{table.full_name}")
        table.history.history_of, table.history = None, None
        session.store._schema_changed(table)
        return
    if not any(column.generated for column in table.columns):
        raise error(13510)
    if table.primary_key is None:
        raise error(13553, f"{database}.{table.full_name}")
    if any(column.computed is not None for column in table.columns):
        raise unsupported("a computed column in a system-versioned table")
    if prop.args.get("data_consistency") or prop.args.get("retention_period"):
        raise unsupported("SYSTEM_VERSIONING with further options")
    table.history = _history(session, table, prop.this)
    table.history.history_of = table
    session.store._schema_changed(table)


def _history(session: Session, table: TableDef, named: exp.Expression | None) -> TableDef:
    """The history table: the one that is there, or a new one."""
    parts = [part.name for part in named.parts] if isinstance(named, exp.Table) else []
    if parts and len(parts) != 2:
        raise error(13539, ".".join(parts))
    schema, name = parts or (table.schema, f"MSSQL_TemporalHistoryFor_{table.id}")
    found = session.store.find(schema, name)
    if found is not None:
        return _checked(found, table)
    made = TableDef(
        session.store.new_id(),
        schema,
        name,
        [history_column(column) for column in table.columns],
        created=session.instance.created(),
    )
    session.store.create_table(made, session.connection)
    start, end = period(table)
    made_index = IndexDef(1, f"ix_{name}", [(end.name, False), (start.name, False)], unique=False,
                          clustered=True)  # fmt: skip
    session.store.create_index(made, made_index, session.connection)
    return made


def _checked(found: TableDef, table: TableDef) -> TableDef:
    """A table that is there already, if its columns are those of a history."""
    if found.history is not None or found.history_of is not None:
        raise error(13566, found.full_name)
    wanted = [(c.name.lower(), c.type) for c in map(history_column, table.columns)]
    if [(c.name.lower(), c.type) for c in found.columns] != wanted or found.primary_key:
        raise unsupported(f"{found.full_name}: other columns or keys than a history has")
    return found


def history_column(column: ColumnDef) -> ColumnDef:
    """The column of a history table: a plain one, of the same number."""
    t = SqlType("binary", length=8) if column.type.name == "timestamp" else column.type
    kept = replace(column, type=t, identity=False, default=None, generated=0, hidden=False)
    return replace(kept, masked=False, encrypted=False, denied=False)


def period(table: TableDef) -> tuple[ColumnDef, ColumnDef]:
    """The columns of start and end."""
    start, end = sorted((c for c in table.columns if c.generated), key=lambda c: c.generated)
    return start, end


def refuse_write(table: TableDef, database: str, permission: str) -> None:
    """Raises what a statement that writes to a history table is answered with."""
    numbers = {"INSERT": 13559, "UPDATE": 13561, "DELETE": 13560}
    if table.history_of is not None and permission in numbers:
        raise error(numbers[permission], f"{database}.{table.full_name}")


def refuse(table: TableDef, number: int, database: str) -> None:
    """Raises an error for what neither a system-versioned table nor its history allows."""
    if table.history is not None or table.history_of is not None:
        raise error(number, f"{database}.{table.full_name}")


def system_versioning(node: exp.Expression) -> Sequence[exp.WithSystemVersioningProperty]:
    return list(node.find_all(exp.WithSystemVersioningProperty))
