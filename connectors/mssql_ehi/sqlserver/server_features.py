"""What the server and its database allow."""

from collections.abc import Sequence

from .query import is_version
from .session import Session
from .source_tables import SourceTable


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
