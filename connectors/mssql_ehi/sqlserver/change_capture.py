"""Change Data Capture: the capture instances of tables, and whether one knows all changes.

An instance keeps the changes of a table by the log sequence number (LSN) of their transactions,
which is compared here as text, as 0x00000027000001F40003.
https://learn.microsoft.com/sql/relational-databases/track-changes/about-change-data-capture-sql-server
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from fivetran_connector_sdk import Logging, Operations as op

from .errors import ChangesExpired
from .naming import Chosen, Name, literal, quoted
from .session import Session
from .source_tables import Capture, Column

NO_LSN = f"0x{'0' * 20}"
_LONGEST_LAG = 60  # minutes; a running agent notes an LSN every five, also if nothing changes


@dataclass
class Captures:
    """The ``instances`` of a table, the newest one first, and names of the columns that each
    captures. ``refused``: those whose changes mssql_user cannot read."""

    instances: list[Capture] = field(default_factory=list)
    columns: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    refused: set[str] = field(default_factory=set)


def read(session: Session, chosen: Chosen) -> dict[Name, Captures]:
    """The capture instances of each of the tables."""
    enabled = session.optional(
        "Change Data Capture",
        "SELECT CAST(is_cdc_enabled AS int) AS enabled FROM sys.databases WHERE name = DB_NAME()",
    )
    if enabled != [(1,)]:
        return {}
    rows = session.optional(
        "Change Data Capture",
        "SELECT s.name AS schema_name, t.name AS table_name, c.capture_instance, "
        "CONVERT(varchar(22), c.start_lsn, 1) AS start_lsn, k.column_name "
        "FROM cdc.change_tables AS c "
        "JOIN cdc.captured_columns AS k ON k.object_id = c.object_id "
        "JOIN sys.tables AS t ON t.object_id = c.source_object_id "
        "JOIN sys.schemas AS s ON s.schema_id = t.schema_id",
    )
    found: dict[Name, Captures] = defaultdict(Captures)
    for schema, table, instance, start, column in rows or []:
        if (schema, table) in chosen.names:
            captures = found[schema, table]
            if instance not in captures.columns:
                captures.instances.append(Capture(instance, start or NO_LSN))
            captures.columns[instance].add(column)
    for captures in found.values():
        captures.instances.sort(key=lambda capture: capture.start, reverse=True)
        captures.refused = {
            capture.instance
            for capture in captures.instances
            if not _can_read(session, capture.instance)
        }
    return dict(found)


def _can_read(session: Session, instance: str) -> bool:
    """The login may lack the right on a column, or a role that the instance asks for. A replica
    may list what it cannot read."""
    name = literal(instance)
    # Of the last LSN alone; before anything is captured there is no range that may be asked for.
    asked = (
        f"SELECT TOP (1) 1 AS one FROM cdc.{_function(instance)}("  # noqa: S608
        "sys.fn_cdc_get_max_lsn(), sys.fn_cdc_get_max_lsn(), N'all') AS C "
    )
    known = session.optional(
        f"the changes of {instance}",
        f"SELECT CASE WHEN sys.fn_cdc_get_min_lsn({name}) <= sys.fn_cdc_get_max_lsn() "
        f"AND sys.fn_cdc_get_min_lsn({name}) > 0x{'0' * 20} THEN 1 ELSE 0 END AS known, "
        f"CASE WHEN sys.fn_cdc_get_min_lsn({name}) = 0x{'0' * 20} THEN 1 ELSE 0 END AS refused",
    )
    if known is None or known[0][1]:
        return False
    return not known[0][0] or session.optional(f"the changes of {instance}", asked) is not None


def _function(instance: str) -> str:
    return "[fn_cdc_get_all_changes_" + instance.replace("]", "]]").replace("%", "%%") + "]"


def source_of(captures: Sequence[Capture], start: str, end: str, key: Sequence[Column]) -> str:
    """The FROM clause for the ``key`` of each row that changed behind LSN ``start``, up to
    ``end``. Of texts that are equal to the server, as "ab", "AB" and "ab " may be, each is there:
    the destination takes them for different keys.

    An instance that is newer than ``start`` is read beside the one that knows all since then: it
    may capture a column that the older one does not. Rows from before an update count, too:
    without an index of the instance that tells rows apart, a key that changed is an update, not a
    delete and an insert. Raises ChangesExpired if no instance knows all.
    """
    known, newer = newest(captures, start), _newer(captures, start, end)
    first = f"sys.fn_cdc_increment_lsn(CONVERT(binary(10), {_lsn(start)}, 1))"
    ranges = [(known, first)]
    ranges += [(c, f"sys.fn_cdc_get_min_lsn({literal(c.instance)})") for c in newer]
    keys = ", ".join(quoted(column.name) for column in key)
    texts = (quoted(column.name) for column in key if column.info.collation)
    spelled = "".join(f", {spelling(name)}" for name in texts)
    selects = (
        f"SELECT {keys} FROM cdc.{_function(capture.instance)}("  # noqa: S608
        f"{begins}, CONVERT(binary(10), {_lsn(end)}, 1), N'all update old') AS C"
        for capture, begins in ranges
    )
    changed = " UNION ALL ".join(selects)
    return f"(SELECT {keys} FROM ({changed}) AS U GROUP BY {keys}{spelled})"  # noqa: S608


def spelling(text: str) -> str:
    """The expression that tells the values of the expression ``text`` apart, also where they are
    equal to the server."""
    return f"CONVERT(varbinary(8000), {text})"


def _newer(captures: Sequence[Capture], start: str, end: str) -> list[Capture]:
    """The instances that began behind LSN ``start``, and not behind ``end``."""
    return [c for c in captures if int(start, 16) < int(c.start, 16) <= int(end, 16)]


def _lsn(text: str) -> str:
    """The literal of an LSN. Raises ValueError for text that is none: it may come from a state."""
    return f"'0x{int(text, 16):020X}'"


def newest(captures: Sequence[Capture], since: str) -> Capture:
    """The newest instance that has been there since LSN ``since``. Raises ChangesExpired if there
    is none."""
    for capture in captures:
        if int(capture.start, 16) <= int(since, 16):
            return capture
    raise ChangesExpired(
        f"no instance of Change Data Capture has been there since LSN {since}, that of the last "
        "sync"
    )


def begin(captures: Sequence[Capture], now: str) -> str:
    """The LSN that the changes after a full read are read from, which begins at ``now``: an
    instance that the agent has not come to yet knows what comes after its start."""
    return max(now, captures[0].start, key=lambda lsn: int(lsn, 16))


def check(session: Session, capture: Capture, since: str) -> str | None:
    """The newest LSN, None if nothing came after LSN ``since``. Raises ChangesExpired if the
    instance does not know all changes since then."""
    saved = f"CONVERT(binary(10), {_lsn(since)}, 1)"
    [(first, now, noted, oldest)] = session.rows(
        f"SELECT CONVERT(varchar(22), sys.fn_cdc_increment_lsn({saved}), 1) AS first_lsn, "
        "CONVERT(varchar(22), sys.fn_cdc_get_max_lsn(), 1) AS now, "
        f"CASE WHEN sys.fn_cdc_map_lsn_to_time({saved}) IS NULL THEN 0 ELSE 1 END AS noted, "
        f"CONVERT(varchar(22), sys.fn_cdc_get_min_lsn({literal(capture.instance)}), 1) AS oldest"
    )
    now = now or NO_LSN
    if int(since, 16) > max(int(now, 16), int(capture.start, 16)):
        raise ChangesExpired(
            f"Change Data Capture is at LSN {now}, before {since}, that of the last sync, as "
            "after a restored backup"
        )
    # NULL: the agent has not come to the instance yet. Zeros: it is gone, or cannot be read.
    if oldest == NO_LSN or (oldest is not None and int(first, 16) < int(oldest, 16)):
        raise ChangesExpired(
            f"Change Data Capture ({capture.instance}) does not know all changes since LSN "
            f"{since}, that of the last sync (it knows them from {oldest} on)"
        )
    # Every LSN that was the newest one is noted, until clean-up has passed it.
    if not noted and int(since, 16) > int(capture.start, 16):
        raise ChangesExpired(
            f"Change Data Capture does not know LSN {since}, that of the last sync, as after a "
            "restored backup"
        )
    return now if int(first, 16) <= int(now, 16) else None


def warn_of_lag(session: Session) -> None:
    """Warns if the agent that captures is stopped, or far behind."""
    rows = session.optional(
        "how far Change Data Capture is behind",
        "SELECT DATEDIFF(minute, sys.fn_cdc_map_lsn_to_time(sys.fn_cdc_get_max_lsn()), GETDATE()) "
        "AS minutes",
    )
    minutes = rows[0][0] if rows else None
    if minutes is not None and minutes > _LONGEST_LAG:
        op.warning(
            f"Change Data Capture is {minutes} minutes behind: changes since then arrive when SQL "
            "Server Agent runs its capture job again"
        )
    elif rows and minutes is None:
        Logging.info("Change Data Capture has not captured anything yet")


def choose(
    label: str, key: Iterable[str], captures: Captures | None
) -> tuple[tuple[Capture, ...], list[str]]:
    """The instances of a table that can be used, the newest one first, and warnings. ``key``:
    names of the columns of its key."""
    if captures is None:
        return (), []
    usable, warnings, names = [], list[str](), set(key)
    for capture in captures.instances:
        if capture.instance in captures.refused:
            warnings.append(
                f"{label} has Change Data Capture ({capture.instance}), which mssql_user cannot "
                "read: it is not used unless mssql_user may SELECT its captured columns, and is a "
                "member of the role that the instance asks for"
            )
        elif not names or not names <= captures.columns[capture.instance]:
            warnings.append(
                f"{label}: Change Data Capture ({capture.instance}) is not used, since it does "
                "not capture the key"
            )
        else:
            usable.append(capture)
    return tuple(usable), [] if usable else warnings
