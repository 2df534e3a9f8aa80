"""How a table is read: which rows, in which order, and from where on.

A position is the text of the order's columns in one row. It is exact, so that a read resumes
behind that very row. Text is compared as the column's own type (see
type_mapping).
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any

from .change_capture import source_of, spelling
from .naming import quoted
from .restrictions import MASKED
from .session import Values
from .source_tables import Column, SourceTable, digest

Position = list[str | None]
_BEGINNING = datetime(1, 1, 1)  # noqa: DTZ001  # the source's times have no zone
_VERSIONS = ("rowversion", "timestamp")
NO_COLUMN = "none"  # as incremental_column: the user knows that tables are read in full
# Names of columns that tell when a row changed: _LastUpdatedInstant, UPDATE_DATE, chg_dt.
_TELLS_CHANGES = re.compile(
    "modif|updat|upd_|_upd|chang|chg|edit|revis|touch|etl|load|last_?(mod|wri|sav)", re.IGNORECASE
)
_NAMED = 20  # columns that a warning names
# Styles in which CONVERT writes all digits of a value.
_EXACT_STYLES = {
    **dict.fromkeys(("float", "real"), 3),
    **dict.fromkeys(("datetime", "smalldatetime", "datetime2", "datetimeoffset", "time"), 121),
    "date": 23,
    **dict.fromkeys(("binary", "varbinary", *_VERSIONS), 1),
}
# Types that a checksum takes; those without a comparison it leaves out.
_CHECKSUMMED = {
    *("bit", "tinyint", "smallint", "int", "bigint", "decimal", "numeric", "money", "smallmoney"),
    *("float", "real", "date", "datetime", "datetime2", "smalldatetime", "datetimeoffset", "time"),
    *(
        "uniqueidentifier",
        "char",
        "varchar",
        "nchar",
        "nvarchar",
        "sysname",
        "binary",
        "varbinary",
    ),
}
# By how much the clocks of two places may differ: time zones lie between -12 and +14 hours.
ALL_ZONES = timedelta(hours=26)
_COARSE = ("date", "smalldatetime")  # two changes of a row may well have one moment of these
_CATEGORIES = ((100_000, "small"), (10_000_000, "medium"))  # rows, at most


@dataclass(frozen=True)
class Plan:
    """Rows of ``table`` ordered by ``column``, which says when a row changed, and the ``key``.

    Without ``column`` the order is that of the key, and without a key there is none. ``tracked``:
    Change Tracking tells which rows changed. ``whole``: all rows are read, ordered by the key
    alone; the cursor of the next sync is still found. ``indexed``: an index begins with
    ``column`` (None: not known).
    """

    table: SourceTable
    column: Column | None
    key: tuple[Column, ...]
    tracked: bool = False
    captured: bool = False
    whole: bool = False
    indexed: bool | None = None

    @property
    def order(self) -> tuple[Column, ...]:
        # A column that is also in the key need not be compared twice.
        first = (self.column,) if self.column and not self.whole else ()
        return first + tuple(column for column in self.key if column != self.column)

    @property
    def reads_by_index(self) -> bool:
        """Whether an index has the order, so that the server need not sort the table."""
        by_key = self.column is None or self.whole
        has_index = not self.table.has_declared_key if by_key else bool(self.indexed)
        return bool(self.order) and has_index

    @property
    def fault(self) -> str:
        """Why the table cannot be synced, "" if it can."""
        if self.column is not None and self.column.masked and not self.table.fault:
            return (
                f"column {self.column.name}, by which its changes are found, {MASKED}: GRANT "
                "UNMASK to mssql_user, or name another one in incremental_column"
            )
        return self.table.fault

    @property
    def by_version(self) -> bool:
        """Whether ``column`` is a rowversion, not a time."""
        return self.column is not None and is_version(self.column)

    @property
    def is_timed(self) -> bool:
        """Whether the cursor is a moment."""
        return self.column is not None and not self.by_version

    @property
    def by_changes(self) -> bool:
        """Whether the server keeps the keys of the rows that changed."""
        return self.tracked or self.captured

    def __str__(self) -> str:
        if self.tracked and not self.whole:
            return "changes by Change Tracking"
        if self.captured and not self.whole:
            return "changes by Change Data Capture"
        if self.column and not self.whole:
            return f"incremental by {self.column.name}"
        return "in full, in key order" if self.key else "in full, in one statement"

    def statement(
        self,
        start: str | None = None,
        end: str | None = None,
        after: Position | None = None,
        *,
        limit: int | None = None,
        columns: Sequence[Column] | None = None,
    ) -> tuple[str, dict[str, Any]]:
        """A SELECT and its parameters. It reads ``columns`` (None: all) of the rows behind
        position ``after`` whose ``column`` is ``start`` or later and, if it is a rowversion,
        before ``end``; of these the first ``limit`` (None: all)."""
        parameters, source = _Parameters(), _name(self.table)
        conditions = []
        if start is not None and self.column:
            name = f"T.{quoted(self.column.name)}"
            conditions.append(f"{name} >= {parameters.add(self.column, start)}")
            if self.by_version and end is not None:
                conditions.append(f"{name} < {parameters.add(self.column, end)}")
        if after is not None:
            conditions.append(_keyset_condition(self._values(after, parameters, "T.")))
        read = _listed(column.select("T.") for column in columns or self.table.columns)
        sql = f"SELECT {_top(limit)}{read} FROM {source} AS T"  # noqa: S608  # names are quoted
        return sql + _where(conditions) + _order(self.order, "T."), parameters.values

    def probe_statement(self, start: str, end: str) -> tuple[str, dict[str, Any]]:
        """A SELECT that finds a row if there is any whose rowversion is ``start`` or later and
        before ``end``."""
        assert self.column is not None  # noqa: S101
        parameters, name = _Parameters(), f"T.{quoted(self.column.name)}"
        conditions = [
            f"{name} >= {parameters.add(self.column, start)}",
            f"{name} < {parameters.add(self.column, end)}",
        ]
        sql = f"SELECT TOP (1) 1 AS one FROM {_name(self.table)} AS T"  # noqa: S608
        return sql + _where(conditions), parameters.values

    def window_statement(
        self, start: str, end: str | None, *, whole_rows: bool
    ) -> tuple[str, dict[str, Any]]:
        """A SELECT of one row: how many rows have their ``column`` from ``start`` to ``end``
        (None: or later), and the sum of their hashes, null for no rows. A hash is of key and
        column; with ``whole_rows`` of a checksum of all columns, too, since a source that stamps
        all that a job changes with the time of its begin changes a row twice under one stamp.

        https://learn.microsoft.com/sql/t-sql/functions/hashbytes-transact-sql
        """
        assert self.column is not None  # noqa: S101
        parameters, name = _Parameters(), f"T.{quoted(self.column.name)}"
        conditions = [f"{name} >= {parameters.add(self.column, start)}"]
        if end is not None:
            conditions.append(f"{name} <= {parameters.add(self.column, end)}")
        hashed = []
        for column in (self.column, *(c for c in self.key if c != self.column)):
            text = _hashed(column, "T.")
            hashed += [f"DATALENGTH({text})", "N':'", text]
        if whole_rows:
            compared = [c for c in self.table.columns if c.info.name in _CHECKSUMMED]
            listed = ", ".join(f"T.{quoted(column.name)}" for column in compared)
            hashed += ["N'#'", f"BINARY_CHECKSUM({listed})"]
        digest = f"HASHBYTES('SHA2_256', CONCAT({', '.join(hashed)}))"
        number = f"CONVERT(decimal(38,0), CONVERT(bigint, SUBSTRING({digest}, 1, 8)))"
        sql = (
            f"SELECT COUNT_BIG(*) AS row_count, CONVERT(varchar(40), SUM({number})) AS digest "  # noqa: S608
            f"FROM {_name(self.table)} AS T"
        )
        return sql + _where(conditions), parameters.values

    def greatest_statement(self, start: str | None) -> tuple[str, dict[str, Any]]:
        """A SELECT of the greatest moment of ``column``, as a row has it, from ``start`` on (None:
        of all), null for no rows."""
        assert self.column is not None  # noqa: S101
        parameters, name = _Parameters(), f"T.{quoted(self.column.name)}"
        conditions = [] if start is None else [f"{name} >= {parameters.add(self.column, start)}"]
        greatest = self.column.type_mapping.select.format(f"MAX({name})")
        sql = f"SELECT {greatest} AS greatest FROM {_name(self.table)} AS T"  # noqa: S608
        return sql + _where(conditions), parameters.values

    def position(self, row: Values) -> Position:
        """The position of a row that was read with all columns."""
        places = [self.table.columns.index(column) for column in self.order]
        return self.position_of(row[place] for place in places)

    def position_of(self, values: Iterable[Any]) -> Position:
        """The position with these values of the order's columns, as they were read."""
        return [
            None if value is None else column.type_mapping.text(value)
            for column, value in zip(self.order, values, strict=True)
        ]

    def greatest(self, batch: Sequence[Values], before: str | None) -> str | None:
        """The greatest moment of ``column`` in ``batch`` and ``before`` it, as the text of a
        position."""
        column = self.column
        if column is None or self.by_version:
            return before
        place = self.table.columns.index(column)
        if not self.whole:  # in their order, the last one is the greatest
            last = batch[-1][place]
            return before if last is None else column.type_mapping.text(last)
        texts = [column.type_mapping.text(row[place]) for row in batch if row[place] is not None]
        if before is not None:
            texts.append(before)
        return max(texts, key=_sort_key(column), default=None)

    def earlier(self, moment: str, other: str) -> str:
        """The earlier one of two moments of ``column``."""
        assert self.column is not None  # noqa: S101
        return min(moment, other, key=_sort_key(self.column) or str)

    def nulls(self, batch: Sequence[Values]) -> int:
        """How many rows of a batch have no value of ``column``."""
        if self.column is None or not self.column.nullable:
            return 0
        place = self.table.columns.index(self.column)
        if not self.whole and batch[0][place] is not None:  # nulls come first
            return 0
        return sum(row[place] is None for row in batch)

    def _values(
        self, position: Position, parameters: "_Parameters", source: str
    ) -> list[tuple[str, str | None]]:
        """The order's columns, and the expressions of their values in a position."""
        return [
            (
                f"{source}{quoted(column.name)}",
                None if text is None else parameters.add(column, text),
            )
            for column, text in zip(self.order, position, strict=True)
        ]


class Changes(Plan):
    """The changes of a tracked table since a version, or of a captured one between two LSNs: the
    columns of the row, then its key again, which is all that a delete has, then the operation.

    https://learn.microsoft.com/sql/relational-databases/system-functions/changetable-transact-sql
    """

    def statement(
        self,
        start: str | None = None,
        end: str | None = None,
        after: Position | None = None,
        *,
        limit: int | None = None,
        columns: Sequence[Column] | None = None,
    ) -> tuple[str, dict[str, Any]]:
        parameters, source = _Parameters(), _name(self.table)
        keys = [column.select("CT.") for column in self.key]
        read = keys
        if columns is None:
            whole = [column.select("T.") for column in self.table.columns]
            # A captured key that the table does not have now is that of a deleted row.
            read = [*whole, *keys, "N'D'" if self.captured else "CT.SYS_CHANGE_OPERATION"]
        joined = " AND ".join(
            f"T.{quoted(column.name)} = CT.{quoted(column.name)}" for column in self.key
        )
        conditions = [self._behind(after, parameters)] if after else []
        if self.captured:
            assert start is not None and end is not None  # noqa: S101, PT018
            changes = source_of(self.table.captures, start, end, self.key)
        else:
            changes = f"CHANGETABLE(CHANGES {source}, {int(start or 0)})"  # the snapshot ends it
        sql = (
            f"SELECT {_top(limit)}{_listed(read)} "  # noqa: S608
            f"FROM {changes} AS CT LEFT JOIN {source} AS T ON {joined}"
        )
        spelled = (spelling(f"CT.{quoted(column.name)}") for column in self._texts)
        order = ", ".join([_order(self.key, "CT."), *spelled])
        return sql + _where(conditions) + order, parameters.values

    @property
    def _texts(self) -> list[Column]:
        """The parts of the key of which the changes tell each spelling."""
        return [column for column in self.key if self.captured and column.info.collation]

    def _behind(self, position: Position, parameters: "_Parameters") -> str:
        """The condition for changes behind the position; of keys that are equal to the server, for
        those that are spelled otherwise."""
        values = self._values(position, parameters, "CT.")
        behind = _keyset_condition(values)
        spelled = [
            (spelling(name), spelling(value))
            for column, (name, value) in zip(self.key, values, strict=True)
            if column in self._texts and value is not None
        ]
        if not spelled:
            return behind
        same = " AND ".join(
            f"{name} IS NULL" if value is None else f"{name} = {value}" for name, value in values
        )
        return f"({behind} OR ({same} AND {_keyset_condition(spelled)}))"

    def position(self, row: Values) -> Position:
        return self.position_of(row[len(self.table.columns) : -1])


def signature(columns: Sequence[Column]) -> list[str]:
    """Names and types: a position or a cursor is of no use once one of them is another."""
    return [f"{column.name} {column.declared}" for column in columns]


def column_digest(column: Column) -> str:
    """The same of one column, in few bytes."""
    return digest(signature([column])[0])


def order_signature(plan: Plan) -> list[str]:
    """What a position belongs to: it is of no use to another plan, nor in another collation."""
    collations = [column.info.collation for column in plan.order if column.info.collation]
    return [*signature_without_collations(plan), *collations]


def signature_without_collations(plan: Plan) -> list[str]:
    """The same as older versions saved it."""
    order = [str(plan), *signature(plan.order)]
    if plan.whole:  # its clock is one for this column
        order += ["", *signature([plan.column] if plan.column else []), str(plan.tracked)]
    return order


def _name(table: SourceTable) -> str:
    return f"{quoted(table.schema)}.{quoted(table.name)}"


def _hashed(column: Column, source: str) -> str:
    """The expression for a text that tells a value of an order from all others."""
    name, style = f"{source}{quoted(column.name)}", _EXACT_STYLES.get(column.info.name)
    text = f"CONVERT(nvarchar(4000), {name}{'' if style is None else f', {style}'})"
    # Columns of several collations may not be joined.
    return f"{text} COLLATE DATABASE_DEFAULT" if column.info.collation else text


def _top(limit: int | None) -> str:
    return "" if limit is None else f"TOP ({limit}) "


def _listed(expressions: Iterable[str]) -> str:
    return ", ".join(f"{each} AS [c{number}]" for number, each in enumerate(expressions))


def _where(conditions: Sequence[str]) -> str:
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""


def _order(columns: Sequence[Column], source: str) -> str:
    # Without its source a name here would mean one of the statement's own, c0, c1 and so on.
    names = ", ".join(f"{source}{quoted(column.name)}" for column in columns)
    return f" ORDER BY {names}" if names else ""


class _Parameters:
    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def add(self, column: Column, text: str) -> str:
        """The expression for a value of the column."""
        name = f"p{len(self.values)}"
        self.values[name] = column.type_mapping.parameter(text)
        compare = column.type_mapping.compare or "{0}"
        return compare.format(f"%({name})s", type=column.declared, collation=column.collation)


def _keyset_condition(values: Sequence[tuple[str, str | None]]) -> str:
    """The condition for rows behind the one with these values. Nulls come first."""
    (name, value), rest = values[0], values[1:]
    further = _keyset_condition(rest) if rest else None
    if value is None:
        return f"({name} IS NOT NULL OR {further})" if further else f"{name} IS NOT NULL"
    if further is None:
        return f"{name} > {value}"
    # The first part is redundant, but it is what the server looks up in an index.
    return f"({name} >= {value} AND ({name} > {value} OR {further}))"


def is_version(column: Column) -> bool:
    """Whether a column holds rowversions."""
    return column.info.name in _VERSIONS


def choose(table: SourceTable, candidates: Sequence[str], *, versions: bool) -> Plan:
    """The best plan for a table: by Change Tracking, else by Change Data Capture, else incremental
    by the first of ``candidates`` that is a time or, with ``versions``, by a rowversion."""
    if table.tracked_since is not None and table.key and all(c.orderable for c in table.key):
        return Plan(table, None, table.key, tracked=True)
    if table.captures and table.key and all(c.orderable for c in table.key):
        return Plan(table, None, table.key, captured=True)
    times = [column for column in table.columns if column.type_mapping.first is not None]
    by_name = {column.name.casefold(): column for column in times}
    by_name |= {column.name: column for column in times}
    names = [name if name in by_name else name.casefold() for name in candidates]
    found = [by_name[name] for name in names if name in by_name]
    if versions and not table.is_view:  # a view may show those of another database
        found += [column for column in table.columns if is_version(column)]
    # Without a key at the destination a changed row would be stored beside the old one.
    usable = found and table.order and table.key
    return Plan(table, found[0] if usable else None, table.order)


def full_read_warning(plans: Sequence[Plan], candidates: Sequence[str]) -> tuple[str, list[str]]:
    """A warning if no table has a column of ``candidates`` and some are read in full at each sync,
    else ""; and the columns that look as if they told the changes."""
    full = [plan for plan in plans if not (plan.fault or plan.by_changes or plan.column)]
    folded = {name.casefold() for name in candidates}
    times = [c for plan in plans for c in plan.table.columns if c.type_mapping.first is not None]
    if not full or folded == {NO_COLUMN} or any(c.name.casefold() in folded for c in times):
        return "", []
    alike = Counter(column.name for column in times if _TELLS_CHANGES.search(column.name))
    found = [f"{name} ({number} tables)" for name, number in alike.most_common(_NAMED)]
    advice = (
        f"These look as if they did: {', '.join(found)}. Name those in incremental_column that "
        f'the source sets at every change, or "{NO_COLUMN}" if there is none'
        if found
        else "None looks as if it did: for large tables, switch Change Tracking on"
    )
    warning = (
        f"No table has a column that tells when a row changed ({', '.join(candidates)}), so "
        f"{len(full)} of {len(plans)} tables are read in full at each sync. {advice}"
    )
    return warning, found


def category(estimate: int | None) -> str:
    """The size of a table, in a word for the log."""
    if estimate is None:
        return "of unknown size"
    return next((name for most, name in _CATEGORIES if estimate <= most), "large")


def next_start(column: Column, greatest: str, clock: str, lookback: timedelta) -> str:
    """Where the next sync starts to read: at the earlier of two moments, less ``lookback``. If the
    greatest value is so old that no row that is still uncommitted can have it, there: rows with
    that very value, and later ones, are read.

    ``greatest``: the greatest value seen; ``clock``: the earlier of the server's clocks when the
    read began, as `YYYY-MM-DD hh:mm:ss.fffffff`. The result is not before the first
    moment of the type.
    """
    convert, first = column.type_mapping.convert, column.type_mapping.first
    assert convert is not None and first is not None  # noqa: S101, PT018  # a type of times
    last, now = _naive(convert(greatest)), datetime.fromisoformat(clock[:26])
    back = timedelta() if now - last > lookback + ALL_ZONES else lookback
    earliest = min(last, now)
    floor = _naive(convert(first))
    moment = max(earliest - min(back, earliest - _BEGINNING), floor)
    if column.info.name == "date":
        return moment.date().isoformat()
    # The server must not round it up: `datetime` has steps of 1/300 s, `smalldatetime` minutes.
    if column.info.name == "smalldatetime":
        moment = moment.replace(second=0)
    digits = {"datetime": 2, "smalldatetime": 0}.get(column.info.name, column.info.fraction)
    cut = 20 + min(6 if digits is None else digits, 6)
    text = moment.isoformat(" ", "microseconds")[:cut]
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return f"{text} +00:00" if column.info.name == "datetimeoffset" else text


def is_settled(column: Column, greatest: str, clock: str, lookback: timedelta) -> bool:
    """Whether no row gets a value up to ``greatest`` any more, nor changes under it."""
    convert = column.type_mapping.convert
    assert convert is not None  # noqa: S101  # a type of times
    age = datetime.fromisoformat(clock[:26]) - _naive(convert(greatest))
    name, fraction = column.info.name, column.info.fraction
    margin = ALL_ZONES if name in _COARSE or fraction == 0 else timedelta(seconds=1)
    if name == "date":
        margin += timedelta(days=1)
    return age > lookback + margin


def _sort_key(column: Column) -> Callable[[Any], Any] | None:
    # In one column moments have one form, and sort as texts do, unless they have offsets.
    return column.type_mapping.convert if column.info.name == "datetimeoffset" else None


def _naive(moment: Any) -> datetime:
    """A date or a time with an offset as a naive one, in UTC."""
    if not isinstance(moment, datetime):
        return datetime.combine(moment, time.min)
    return moment.replace(tzinfo=None)
