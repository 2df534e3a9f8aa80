"""Rows as they were read, made rows of the destination."""

from collections.abc import Iterable, Sequence
from typing import Any

from session import Values
from shared.rows import Row, UnusableRecord
from source_tables import SourceTable

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

    def rows(self, batch: Sequence[Values]) -> tuple[list[Row], dict[int, UnusableRecord]]:
        """The rows of a batch without those that cannot be stored, and why not, by their place
        in the batch; the reason names a column and no value."""
        # A column at a time: to call a function for each row would cost half as much again.
        rows = [dict(zip(self._names, values)) for values in batch]  # noqa: B905  # a change has its key behind them
        refused: dict[int, UnusableRecord] = {}
        for name, convert in self._converters:
            for place, row in enumerate(rows):
                value = row[name]
                if value is None:
                    continue
                try:
                    row[name] = convert(value)
                except _REFUSALS:
                    reason = UnusableRecord(f"{name} holds what its type cannot hold")
                    refused.setdefault(place, reason)
        for name in self._key:
            for place, row in enumerate(rows):
                if row[name] is None:
                    refused.setdefault(place, UnusableRecord(f"{name} is missing"))
        if refused:
            rows = [row for place, row in enumerate(rows) if place not in refused]
        return rows, refused

    def is_gone(self, change: Values) -> bool:
        """Whether there is no row any more; such a change has nothing but its key."""
        return change[self._place] is None

    def key(self, change: Values) -> Row:
        """The key of a change. Raises UnusableRecord."""
        values = zip(self._of_key, change[len(self._names) : -1], strict=True)
        try:
            return {n: convert(value) if convert else value for (n, convert), value in values}
        except _REFUSALS:
            raise UnusableRecord("the key holds what its type cannot hold") from None


def size(values: Iterable[Any]) -> int:
    """About how many bytes the values take in memory."""
    total = 0
    for value in values:
        if isinstance(value, str):
            total += 2 * len(value)
        elif isinstance(value, bytes):
            total += len(value)
        else:
            total += 8
    return total
