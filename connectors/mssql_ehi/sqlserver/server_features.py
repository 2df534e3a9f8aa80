"""What the server and its database allow."""

from collections.abc import Sequence
from dataclasses import replace

from .naming import Chosen
from .query import Plan, is_version
from .session import Session
from .source_tables import SourceTable

_LEADING_COLUMNS = (
    "SELECT s.name AS schema_name, t.name AS table_name, c.name AS column_name "
    "FROM sys.indexes AS i "
    "JOIN sys.index_columns AS x ON x.object_id = i.object_id AND x.index_id = i.index_id "
    "JOIN sys.columns AS c ON c.object_id = x.object_id AND c.column_id = x.column_id "
    "JOIN sys.tables AS t ON t.object_id = i.object_id "
    "JOIN sys.schemas AS s ON s.schema_id = t.schema_id "
    "WHERE x.key_ordinal = 1 AND i.type IN (1, 2) AND i.is_disabled = 0 "
    "AND i.is_hypothetical = 0 AND i.has_filter = 0"
)


def tells_active_rowversions(session: Session, tables: Sequence[SourceTable]) -> bool:
    """Whether the server tells up to where rowversions are final, if any table has one."""
    if not any(is_version(column) for table in tables for column in table.columns):
        return False
    rows = session.optional(
        "rowversions, since MIN_ACTIVE_ROWVERSION() is missing",
        "SELECT MIN_ACTIVE_ROWVERSION() AS lowest",
    )
    # A replica does not know the open transactions of its primary.
    return rows is not None and rows != [(None,)] and not is_replica(session)


def is_replica(session: Session) -> bool:
    """Whether the database is read-only, as one on a secondary replica."""
    mode = session.optional(
        "whether the database can be written",
        "SELECT CONVERT(nvarchar(20), DATABASEPROPERTYEX(DB_NAME(), 'Updateability')) AS mode",
    )
    return mode == [("READ_ONLY",)]


def allows_snapshots(session: Session) -> bool:
    """Whether the database allows SNAPSHOT isolation; else reads are READ COMMITTED."""
    rows = session.optional(
        "the isolation levels of the database",
        "SELECT CAST(snapshot_isolation_state AS int) AS state FROM sys.databases "
        "WHERE name = DB_NAME()",
    )
    return rows == [(1,)]


def with_indexes(session: Session, plans: Sequence[Plan], of: int) -> list[Plan]:
    """The plans, with what is known of indexes of their columns; ``of``: how many tables there
    are in all."""
    timed = [(plan.table.schema, plan.table.name) for plan in plans if plan.column]
    if not timed:
        return list(plans)
    asked = _LEADING_COLUMNS + Chosen(timed, of).condition("t.name")
    rows = session.optional("the indexes of the columns of changes", asked)
    if rows is None:
        return list(plans)
    leading = set(rows)
    return [
        replace(plan, indexed=(plan.table.schema, plan.table.name, plan.column.name) in leading)
        if plan.column
        else plan
        for plan in plans
    ]
