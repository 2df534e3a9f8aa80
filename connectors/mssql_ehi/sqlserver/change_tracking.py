"""Change Tracking: which tables have changes at all, and whether the server knows all of them.

https://learn.microsoft.com/sql/relational-databases/track-changes/work-with-change-tracking-sql-server
"""

from collections.abc import Mapping, Sequence

from fivetran_connector_sdk import Logging

from shared.errors import TransientError

from .errors import ChangesExpired, StatementError
from .naming import bracketed, quoted
from .session import Session
from .source_tables import SourceTable

_ASKED_AT_ONCE = 200  # tables


def unchanged(
    session: Session, tables: Sequence[SourceTable], versions: Mapping[str, int]
) -> dict[str, int]:
    """Of the tables that have no change since their version in ``versions``, by their labels, the
    version up to which they have none. It takes a few statements for all of them.

    A table is missing whose changes the server does not know since then, or if it does not tell:
    its changes are read. Raises SourceError for a login that is refused.
    """
    asked = [table for table in tables if table.label in versions]
    try:
        # Read first: a change that is later than this is found by the next sync.
        [(now,)] = session.rows("SELECT CHANGE_TRACKING_CURRENT_VERSION() AS now")
        changed: set[str] = set()
        for start in range(0, len(asked), _ASKED_AT_ONCE):
            changed |= _changed(session, asked[start : start + _ASKED_AT_ONCE], versions)
        # Read last: what was cleaned up meanwhile may have been a change.
        known = _oldest_versions(session)
    except (StatementError, TransientError) as error:
        if isinstance(error, StatementError) and session.unreachable:  # it was the login
            raise
        Logging.info(f"Each tracked table is asked for its changes: {error}")
        return {}
    found = {}
    for table in asked:
        oldest = known.get((table.schema, table.name, table.tracked_since))
        version = versions[table.label]
        is_known = oldest is not None and now is not None and oldest <= version <= now
        if is_known and table.label not in changed:
            found[table.label] = int(now)
    return found


def _changed(
    session: Session, tables: Sequence[SourceTable], versions: Mapping[str, int]
) -> set[str]:
    """The labels of those that have a change."""
    probes = (
        f"SELECT {number} AS number WHERE EXISTS (SELECT 1 AS one FROM CHANGETABLE(CHANGES "  # noqa: S608
        f"{quoted(table.schema)}.{quoted(table.name)}, {int(versions[table.label])}) AS CT)"
        for number, table in enumerate(tables)
    )
    return {tables[number].label for (number,) in session.rows(" UNION ALL ".join(probes))}


def _oldest_versions(session: Session) -> dict[tuple[str, str, int | None], int]:
    """The version since which the server knows all changes of a table, by its schema, its name and
    the version at which tracking began."""
    rows = session.rows(
        "SELECT s.name AS schema_name, t.name AS table_name, c.begin_version, c.min_valid_version "
        "FROM sys.change_tracking_tables AS c "
        "JOIN sys.tables AS t ON t.object_id = c.object_id "
        "JOIN sys.schemas AS s ON s.schema_id = t.schema_id"
    )
    return {
        (schema, table, int(begin or 0)): int(oldest)
        for schema, table, begin, oldest in rows
        if oldest is not None
    }


def check_changes(session: Session, table: SourceTable, start: int) -> str:
    """The version of Change Tracking that the database is at. Raises ChangesExpired if the server
    does not know all changes of the table since version ``start``."""
    [(now, oldest)] = session.rows(
        "SELECT CHANGE_TRACKING_CURRENT_VERSION() AS now, CHANGE_TRACKING_MIN_VALID_VERSION("
        "OBJECT_ID(%(name)s)) AS oldest",
        {"name": f"{bracketed(table.schema)}.{bracketed(table.name)}"},
    )
    if now is None or oldest is None or not oldest <= start <= now:
        raise ChangesExpired(
            f"Change Tracking does not know all changes since version {start}, that of the "
            f"last sync (it knows them from {oldest} to {now})"
        )
    return str(now)
