"""Rows as they were read, made rows of the destination."""

from collections.abc import Iterable
from typing import Any

from catalogue import SourceTable
from session import Values
from shared.rows import Row, UnusableRecord

# What a converter raises for a value that its type cannot hold, or that is of another type.
_REFUSALS = (ValueError, TypeError, AttributeError, ArithmeticError)


class Mapping:
    """The columns of a table, ready for use on many rows."""

    def __init__(self, table: SourceTable) -> None:
        self._names = [column.destination for column in table.columns]
        self._converters = [
            (column.destination, column.kind.convert)
            for column in table.columns
            if column.kind.convert is not None
        ]
        self._key = [column.destination for column in table.key]
        self._place = table.columns.index(table.key[0]) if table.key else 0
        self._of_key = [(column.destination, column.kind.convert) for column in table.key]

    def row(self, values: Values) -> Row:
        """Raises UnusableRecord, which names a column and no value."""
        row = dict(zip(self._names, values, strict=False))  # a change has its key behind them
        name = ""
        try:
            for name, convert in self._converters:
                value = row[name]
                if value is not None:
                    row[name] = convert(value)
        except _REFUSALS:
            raise UnusableRecord(f"{name} holds what its type cannot hold") from None
        for name in self._key:
            if row[name] is None:
                raise UnusableRecord(f"{name} is missing")
        return row

    def is_deleted(self, change: Values) -> bool:
        """Whether there is no row any more; such a change has nothing but its key."""
        return change[self._place] is None

    def key(self, change: Values) -> Row:
        """The key of a change. Raises UnusableRecord."""
        values = zip(self._of_key, change[len(self._names) :], strict=True)
        try:
            return {n: convert(value) if convert else value for (n, convert), value in values}
        except _REFUSALS:
            raise UnusableRecord("the key holds what its type cannot hold") from None


def size(values: Iterable[Any]) -> int:
    """About how many bytes the values take in memory."""
    return sum(
        len(value) * (2 if isinstance(value, str) else 1) if isinstance(value, (str, bytes)) else 8
        for value in values
    )
