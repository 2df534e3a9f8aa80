"""What the server tells of its time, its versions, and the columns that a table has by now."""

import time
from typing import NamedTuple

from .change_capture import NO_LSN
from .errors import SchemaChanged, StatementError
from .late_rows import LateRows
from .query import Plan
from .session import Session
from .source_tables import SourceTable

_TIME_ZONE_STEP = 15  # minutes; the clocks are read one after the other
_LONGEST_USE = 60.0  # seconds


class Clock(NamedTuple):
    """``now``: where the next read may start, whatever this one reads: a moment, a rowversion or
    a version, "" for a plan without a cursor. ``offset``: minutes that the server's clock is ahead
    of UTC. ``open_since``: when the oldest open transaction began, None if there is none: rows
    that it has stamped may become visible behind ``now``."""

    now: str
    offset: int
    open_since: str | None = None

    @property
    def settled(self) -> str:
        """The earlier of both moments."""
        return self.now if self.open_since is None else min(self.now, self.open_since)


class SourceClock:
    """The clock for the tables of a sync: read once a minute at most, since an earlier one serves
    any table as well. Usable from several threads, each with its own session."""

    def __init__(self, late_rows: LateRows) -> None:
        self._late_rows = late_rows
        self._read: dict[str, tuple[float, Clock]] = {}

    def read(self, session: Session, plan: Plan) -> Clock:
        """What the cursor of ``plan`` is made of. Raises SourceError."""
        if plan.column is None and not plan.by_changes:
            return Clock("", 0)
        kind = "rowversion" if plan.by_version else "moment"
        if plan.by_changes:
            kind = "version" if plan.tracked else "LSN"
        moment, clock = self._read.get(kind, (0.0, None))
        if clock is None or time.monotonic() - moment > _LONGEST_USE:
            moment, clock = time.monotonic(), read_clock(session, plan)
            if plan.is_timed:
                began = self._late_rows.earliest_open(session, clock.offset)
                clock = clock._replace(open_since=began)
            self._read[kind] = moment, clock
        return clock


def read_clock(session: Session, plan: Plan) -> Clock:
    """Asks for what the cursor of ``plan`` is made of. Raises SourceError."""
    if plan.tracked:
        what = "what version it is at"
        sql = "SELECT CHANGE_TRACKING_CURRENT_VERSION() AS now"
    elif plan.captured:
        what = "which LSN it is at"
        sql = (
            f"SELECT ISNULL(CONVERT(varchar(22), sys.fn_cdc_get_max_lsn(), 1), '{NO_LSN}') AS now"
        )
    elif plan.by_version:
        what = "what version it is at"
        sql = "SELECT CONVERT(varchar(18), MIN_ACTIVE_ROWVERSION(), 1) AS now"
    else:
        what = "what time it is"
        sql = (
            "SELECT CONVERT(varchar(27), SYSDATETIME(), 121) AS here, "
            "CONVERT(varchar(27), SYSUTCDATETIME(), 121) AS utc, "
            "DATEDIFF(minute, SYSUTCDATETIME(), SYSDATETIME()) AS ahead"
        )
    [values] = session.with_retries(what, lambda: session.rows(sql))
    if None in values:
        raise StatementError(f"the server does not tell {what}", 0)
    if plan.is_timed:
        local, utc, ahead = values
        return Clock(min(local, utc), round(ahead / _TIME_ZONE_STEP) * _TIME_ZONE_STEP)
    # The prefix of a hexadecimal number is in lower case, whoever wrote it.
    return Clock(str(values[0]).lower(), 0)


def check_columns(session: Session, table: SourceTable) -> None:
    """Raises SchemaChanged for a column that was added since the sync began: a row that has a
    value there already, and changed before the clock was read, would not come again."""
    found = session.rows(
        "SELECT COLUMN_NAME FROM INFORMATION_SCHEMA.COLUMNS "
        # Text of any length would have the server look through the names of all tables.
        "WHERE TABLE_SCHEMA = CAST(%(schema)s AS sysname) "
        "AND TABLE_NAME = CAST(%(name)s AS sysname)",
        {"schema": table.schema, "name": table.name},
    )
    known = {*table.excluded_columns, *(column.name for column in table.columns)}
    if new := [name for (name,) in found if name not in known]:
        raise SchemaChanged(f"columns were added since the sync began ({', '.join(new)})")
