"""Rows as the driver reads them, converted to rows of the destination."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from shared.rows import InvalidRecord, Row

from .session import Values
from .source_tables import SourceTable

# To be raised with each change of what a value of the source becomes: the rows that were stored
# before it are sent again then.
MAPPING_VERSION = 1
# What a converter raises for a value that its type cannot hold, or that is of another type.
_CONVERSION_ERRORS = (ValueError, TypeError, AttributeError, ArithmeticError)
# Types of the destination that would take bytes for text.
_TEXTS = ("STRING", "XML", "JSON")

# A value that its column cannot hold: the place of its row in the batch, and the column.
OddValue = tuple[int, str]


class MappedBatch(NamedTuple):
    """The ``rows`` of a batch that can be stored; by its place in the batch, why another one is
    ``invalid``; and the ``odd`` values, which are null in the rows. Columns are named as at the
    destination."""

    rows: list[Row]
    invalid: dict[int, InvalidRecord]
    odd: list[OddValue]


class RowMapper:
    """Converts rows of ``table``."""

    def __init__(self, table: SourceTable) -> None:
        self._names = [column.destination for column in table.columns]
        self._converters = [
            (column.destination, column.type_mapping.convert)
            for column in table.columns
            if column.type_mapping.convert is not None
        ]
        self._texts = [column.destination for column in table.columns if column.sdk_type in _TEXTS]
        self._key = [column.destination for column in table.key]
        self._key_place = table.columns.index(table.key[0]) if table.key else 0
        self._key_converters = [
            (column.destination, column.type_mapping.convert) for column in table.key
        ]

    def rows(self, batch: Sequence[Values]) -> MappedBatch:
        """The rows of a batch, with null for a value that its column cannot hold, and without
        those whose key cannot be stored."""
        # A column at a time: to call a function for each row would cost half as much again.
        rows = [dict(zip(self._names, values)) for values in batch]  # noqa: B905  # a change has its key behind them
        odd = _remove_bytes(rows, self._texts)
        for name, convert in self._converters:
            odd += _convert(rows, name, convert)
        invalid = self._invalid(rows, odd)
        if invalid:
            rows = [row for place, row in enumerate(rows) if place not in invalid]
            odd = [(place, name) for place, name in odd if place not in invalid]
        return MappedBatch(rows, invalid, odd)

    def _invalid(self, rows: Sequence[Row], odd: Iterable[OddValue]) -> dict[int, InvalidRecord]:
        """By their places, why rows have no key that can be stored."""
        invalid = {
            place: InvalidRecord(f"{name} holds what its type cannot hold")
            for place, name in odd
            if name in self._key
        }
        for name in self._key:
            for place, row in enumerate(rows):
                if row[name] is None:
                    invalid.setdefault(place, InvalidRecord(f"{name} is missing"))
                elif not is_storable(row[name]):
                    reason = InvalidRecord(f"{name} holds half a character")
                    invalid.setdefault(place, reason)
        return invalid

    def is_deleted(self, change: Values) -> bool:
        """Whether the row of a change does not exist any more: it has nothing but its key."""
        return change[self._key_place] is None

    def key(self, change: Values) -> Row:
        """The key of a change. Raises InvalidRecord."""
        values = zip(self._key_converters, change[len(self._names) : -1], strict=True)
        try:
            return {n: convert(value) if convert else value for (n, convert), value in values}
        except _CONVERSION_ERRORS:
            raise InvalidRecord("the key holds what its type cannot hold") from None


def _remove_bytes(rows: Sequence[Row], names: Iterable[str]) -> list[OddValue]:
    """Sets bytes in columns of text to null, whatever the reason they are there."""
    odd = []
    for name in names:
        if bytes in {type(row[name]) for row in rows}:
            for place, row in enumerate(rows):
                if type(row[name]) is bytes:
                    row[name] = None
                    odd.append((place, name))
    return odd


def _convert(rows: Sequence[Row], name: str, convert: Callable[[Any], Any]) -> list[OddValue]:
    """Converts the values of a column; one that cannot be converted becomes null."""
    odd = []
    for place, row in enumerate(rows):
        value = row[name]
        if value is None:
            continue
        try:
            row[name] = convert(value)
        except _CONVERSION_ERRORS:
            row[name] = None
            odd.append((place, name))
    return odd


def is_storable(value: Any) -> bool:
    """Whether a value can be UTF-8: half of a surrogate pair cannot."""
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
