"""Rows that a cursor of moments could miss: those of transactions that commit late, and those
without a moment."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from fivetran_connector_sdk import Logging, Operations as op

from .query import Plan
from .session import Session
from .source_tables import Column

# Transactions of this database that write; not those of this connector, which stamp no row. A
# distributed transaction whose client has disconnected has no session.
_OLDEST = (
    "SELECT CONVERT(varchar(23), MIN(a.transaction_begin_time), 121) AS began "
    "FROM sys.dm_tran_database_transactions AS d "
    "JOIN sys.dm_tran_active_transactions AS a ON a.transaction_id = d.transaction_id "
    "LEFT JOIN sys.dm_tran_session_transactions AS s ON s.transaction_id = d.transaction_id "
    "LEFT JOIN sys.dm_exec_sessions AS e ON e.session_id = s.session_id "
    "WHERE d.database_id = DB_ID() AND a.transaction_type IN (1, 4) "
    "AND (e.program_name IS NULL OR e.program_name <> APP_NAME())"
)


class LateRows:
    """What a sync knows of such rows. Usable from several threads, each with its own session."""

    def __init__(self) -> None:
        self._sees_transactions = False
        self._without_moment: dict[str, str] = {}

    def look(
        self, session: Session, plans: Sequence[Plan], lookback: timedelta, *, replica: bool
    ) -> None:
        """Finds out, before the tables of ``plans`` are read, what the login may see.

        ``replica``: the database is a copy that does not know the transactions of its primary.
        """
        timed = [
            plan
            for plan in plans
            if plan.is_timed and not (plan.fault or plan.table.postponed)  # it is not read
        ]
        if not timed:
            return
        seconds = int(lookback.total_seconds())
        missed = (
            f"a row that commits more than lookback_seconds ({seconds}) after its moment is missed"
        )
        if replica:
            Logging.info(f"A replica does not show the transactions of its primary: {missed}")
        elif session.optional("the open transactions", _OLDEST) is None:
            Logging.warning(
                f"mssql_user may not see which transactions are open: {missed}. GRANT VIEW SERVER "
                "STATE to its login (Azure SQL Database: VIEW DATABASE STATE to its user), so "
                "that the cursor waits for them"
            )
        else:
            self._sees_transactions = True

    def earliest_open(self, session: Session, offset: int) -> str | None:
        """When the oldest open transaction began, None if there is none, or none is seen: by the
        server's local clock, which is ``offset`` minutes ahead of UTC, or by UTC, whichever is
        earlier."""
        rows = (
            session.optional("the open transactions", _OLDEST) if self._sees_transactions else None
        )
        if not rows or rows[0][0] is None:
            return None
        local = datetime.fromisoformat(rows[0][0])
        earlier = min(local, local - timedelta(minutes=offset))
        return earlier.isoformat(" ", "microseconds")

    def note(self, label: str, column: Column, rows: int) -> None:
        """Notes how many rows of the table have no moment."""
        if rows:
            number = "1 row" if rows == 1 else f"{rows} rows"
            self._without_moment[label] = f"{label} ({number} without {column.name})"

    def report(self) -> None:
        """Warns of the tables that have rows without a moment."""
        if self._without_moment:
            found = ", ".join(
                self._without_moment[label] for label in sorted(self._without_moment)
            )
            op.warning(
                "Rows whose column of changes is NULL arrive only at full loads, also when they "
                f"are new or changed: {found}"
            )
