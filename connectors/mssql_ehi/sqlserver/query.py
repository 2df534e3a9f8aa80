"""How a table is read: which rows, in which order, and from where on.

A position is the text of the order's columns in one row. It is exact, so that a read resumes
behind that very row. Text is compared as the column's own type (see
type_mapping).
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any

from .naming import quoted
from .restrictions import MASKED
from .session import Values
from .source_tables import Column, SourceTable

Position = list[str | None]
_BEGINNING = datetime(1, 1, 1)  # noqa: DTZ001  # the source's times have no zone
_VERSIONS = ("rowversion", "timestamp")
NO_COLUMN = "none"  # as incremental_column: the user knows that tables are read in full
# Names of columns that tell when a row changed: _LastUpdatedInstant, UPDATE_DATE, chg_dt.
_TELLS_CHANGES = re.compile(
    "modif|updat|upd_|_upd|chang|chg|edit|revis|touch|etl|load|last_?(mod|wri|sav)", re.IGNORECASE
)
_NAMED = 20  # columns that a warning names
_CATEGORIES = ((100_000, "small"), (10_000_000, "medium"))  # rows, at most


@dataclass(frozen=True)
class Plan:
    """Rows of ``table`` ordered by ``column``, which says when a row changed, and the ``key``.

    Without ``column`` the order is that of the key, and without a key there is none. ``tracked``:
    Change Tracking tells which rows changed. ``whole``: all rows are read, ordered by the key
    alone, since the server refuses the incremental read; the cursor of the next sync is still
    found.
    """

    table: SourceTable
    column: Column | None
    key: tuple[Column, ...]
    tracked: bool = False
    whole: bool = False

    @property
    def order(self) -> tuple[Column, ...]:
        # A column that is also in the key need not be compared twice.
        first = (self.column,) if self.column and not self.whole else ()
        return first + tuple(column for column in self.key if column != self.column)

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
        return self.column is not None and not self.by_version and not self.tracked

    def __str__(self) -> str:
        if self.tracked and not self.whole:
            return "changes by Change Tracking"
        if self.column and not self.whole:
            return f"incremental by {self.column.name}"
        return "in full, in key order" if self.key else "in full, in one statement"

    def statement(
        self,
        start: str | None = None,
        end: str | None = None,
        after: Position | None = None,
        *,
        only_first: bool = False,
        columns: Sequence[Column] | None = None,
    ) -> tuple[str, dict[str, Any]]:
        """A SELECT and its parameters. It reads ``columns`` (None: all) of the rows behind
        position ``after`` whose ``column`` is ``start`` or later and, if it is a rowversion,
        before ``end``."""
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
        sql = f"SELECT {_top(only_first)}{read} FROM {source} AS T"  # noqa: S608  # names are quoted
        return sql + _where(conditions) + _order(self.order, "T."), parameters.values

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
        assert column.type_mapping.convert is not None  # noqa: S101  # a type of times
        found = {} if before is None else {column.type_mapping.convert(before): before}
        for value in (row[place] for row in batch):
            if value is not None:
                with suppress(ValueError, ArithmeticError):  # such a value becomes null
                    found[column.type_mapping.convert(value)] = column.type_mapping.text(value)
        return found[max(found)] if found else None

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
    """The changes of a tracked table since a version: the columns of the row, then its key again,
    which is all that a delete has, then the operation.

    https://learn.microsoft.com/sql/relational-databases/system-functions/changetable-transact-sql
    """

    def statement(
        self,
        start: str | None = None,
        end: str | None = None,  # noqa: ARG002  # the snapshot's version ends it
        after: Position | None = None,
        *,
        only_first: bool = False,
        columns: Sequence[Column] | None = None,
    ) -> tuple[str, dict[str, Any]]:
        parameters, source = _Parameters(), _name(self.table)
        keys = [column.select("CT.") for column in self.key]
        read = keys
        if columns is None:
            whole = [column.select("T.") for column in self.table.columns]
            read = [*whole, *keys, "CT.SYS_CHANGE_OPERATION"]
        joined = " AND ".join(
            f"T.{quoted(column.name)} = CT.{quoted(column.name)}" for column in self.key
        )
        conditions = [_keyset_condition(self._values(after, parameters, "CT."))] if after else []
        sql = (
            f"SELECT {_top(only_first)}{_listed(read)} "  # noqa: S608
            f"FROM CHANGETABLE(CHANGES {source}, {int(start or 0)}) AS CT "
            f"LEFT JOIN {source} AS T ON {joined}"
        )
        return sql + _where(conditions) + _order(self.key, "CT."), parameters.values

    def position(self, row: Values) -> Position:
        return self.position_of(row[len(self.table.columns) : -1])


def signature(columns: Sequence[Column]) -> list[str]:
    """Names and types: a position or a cursor is of no use once one of them is another."""
    return [f"{column.name} {column.declared}" for column in columns]


def order_signature(plan: Plan) -> list[str]:
    """What a position belongs to: it is of no use to another plan."""
    order = [str(plan), *signature(plan.order)]
    if plan.whole:  # its clock is one for this column
        order += ["", *signature([plan.column] if plan.column else []), str(plan.tracked)]
    return order


def _name(table: SourceTable) -> str:
    return f"{quoted(table.schema)}.{quoted(table.name)}"


def _top(only_first: bool) -> str:
    return "TOP (1) " if only_first else ""


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
    """The best plan for a table: by Change Tracking, else incremental by the first of
    ``candidates`` that is a time or, with ``versions``, by a rowversion."""
    if table.tracked_since is not None and table.key and all(c.orderable for c in table.key):
        return Plan(table, None, table.key, tracked=True)
    times = [column for column in table.columns if column.type_mapping.first is not None]
    by_name = {column.name.casefold(): column for column in times}
    by_name |= {column.name: column for column in times}
    names = [name if name in by_name else name.casefold() for name in candidates]
    found = [by_name[name] for name in names if name in by_name]
    if versions:
        found += [column for column in table.columns if is_version(column)]
    # Without a key at the destination a changed row would be stored beside the old one.
    usable = found and table.order and table.key
    return Plan(table, found[0] if usable else None, table.order)


def full_read_warning(plans: Sequence[Plan], candidates: Sequence[str]) -> tuple[str, list[str]]:
    """A warning if no table has a column of ``candidates`` and some are read in full at each sync,
    else ""; and the columns that look as if they told the changes."""
    full = [plan for plan in plans if not (plan.fault or plan.tracked or plan.column)]
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
    """Where the next sync starts to read: at the earlier of two moments, less ``lookback``.

    ``greatest``: the greatest value seen; ``clock``: the earlier of the server's clocks when the
    read began, as `YYYY-MM-DD hh:mm:ss.fffffff`. The result is not before the first
    moment of the type.
    """
    convert, first = column.type_mapping.convert, column.type_mapping.first
    assert convert is not None and first is not None  # noqa: S101, PT018  # a type of times
    earliest = min(_naive(convert(greatest)), datetime.fromisoformat(clock[:26]))
    floor = _naive(convert(first))
    moment = max(earliest - min(lookback, earliest - _BEGINNING), floor)
    if column.info.name == "date":
        return moment.date().isoformat()
    # The server must not round it up: `datetime` has steps of 1/300 s, `smalldatetime` minutes.
    if column.info.name == "smalldatetime":
        moment = moment.replace(second=0)
    digits = {"datetime": 2, "smalldatetime": 0}.get(column.info.name, column.info.fraction)
    cut = 20 + min(6 if digits is None else digits, 6)
    text = moment.isoformat(" ", "microseconds")[:cut].rstrip(".")
    return f"{text} +00:00" if column.info.name == "datetimeoffset" else text


def _naive(moment: Any) -> datetime:
    """A date or a time with an offset as a naive one, in UTC."""
    if not isinstance(moment, datetime):
        return datetime.combine(moment, time.min)
    return moment.replace(tzinfo=None)
