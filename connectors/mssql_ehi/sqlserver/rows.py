"""Rows as they were read, made rows of the destination."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from shared.rows import InvalidRecord, Row

from .session import Values
from .source_tables import SourceTable

# What a converter raises for a value that its type cannot hold, or that is of another type.
_REFUSALS = (ValueError, TypeError, AttributeError, ArithmeticError)


# Types of the destination that would take bytes for text.
_TEXTS = ("STRING", "XML", "JSON")


class Mapped(NamedTuple):
    """The ``rows`` of a batch; by their places in it, why others were ``refused``, and the columns
    in which there was an ``odd`` value. Columns are named as at the destination, values not."""

    rows: list[Row]
    refused: dict[int, InvalidRecord]
    odd: list[tuple[int, str]]


class Mapping:
    """The columns of a table, ready for use on many rows."""

    def __init__(self, table: SourceTable) -> None:
        self._names = [column.destination for column in table.columns]
        self._converters = [
            (column.destination, column.kind.convert)
            for column in table.columns
            if column.kind.convert is not None
        ]
        self._texts = [column.destination for column in table.columns if column.sdk_type in _TEXTS]
        self._key = [column.destination for column in table.key]
        self._place = table.columns.index(table.key[0]) if table.key else 0
        self._of_key = [(column.destination, column.kind.convert) for column in table.key]

    def rows(self, batch: Sequence[Values]) -> "Mapped":
        """The rows of a batch, with null for a value that its column cannot hold, and without
        those whose key cannot be stored."""
        # A column at a time: to call a function for each row would cost half as much again.
        rows = [dict(zip(self._names, values)) for values in batch]  # noqa: B905  # a change has its key behind them
        odd: list[tuple[int, str]] = []
        for name in self._texts:
            if bytes in {type(row[name]) for row in rows}:  # whatever the reason, it is no text
                for place, row in enumerate(rows):
                    if type(row[name]) is bytes:
                        row[name] = None
                        odd.append((place, name))
        for name, convert in self._converters:
            for place, row in enumerate(rows):
                value = row[name]
                if value is None:
                    continue
                try:
                    row[name] = convert(value)
                except _REFUSALS:
                    row[name] = None
                    odd.append((place, name))
        refused = {
            place: InvalidRecord(f"{name} holds what its type cannot hold")
            for place, name in odd
            if name in self._key
        }
        for name in self._key:
            for place, row in enumerate(rows):
                if row[name] is None:
                    refused.setdefault(place, InvalidRecord(f"{name} is missing"))
                elif not is_storable(row[name]):
                    reason = InvalidRecord(f"{name} holds half a character")
                    refused.setdefault(place, reason)
        if refused:
            rows = [row for place, row in enumerate(rows) if place not in refused]
            odd = [(place, name) for place, name in odd if place not in refused]
        return Mapped(rows, refused, odd)

    def is_gone(self, change: Values) -> bool:
        """Whether there is no row any more; such a change has nothing but its key."""
        return change[self._place] is None

    def key(self, change: Values) -> Row:
        """The key of a change. Raises InvalidRecord."""
        values = zip(self._of_key, change[len(self._names) : -1], strict=True)
        try:
            return {n: convert(value) if convert else value for (n, convert), value in values}
        except _REFUSALS:
            raise InvalidRecord("the key holds what its type cannot hold") from None


def is_storable(value: Any) -> bool:
    """Whether there is UTF-8 for a value: there is none for half of a surrogate pair."""
    if not isinstance(value, str) or value.isascii():
        return True
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


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
