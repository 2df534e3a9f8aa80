"""Rows as the driver reads them, converted to rows of the destination.

A function is generated for a table of many rows, as row_decoder generates one for a result. It
takes the batches in which every value and every key is as it should be. Its source text has no
text in it that came from the server: columns are numbered there, and their names are values.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from operator import itemgetter
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
_NULL = type(None)
FEW_ROWS = 1000  # of a table, for which it does not pay to compile a function
MOST_COLUMNS = 1024  # of a function: to compile one for so many takes 13 ms

# A value that its column cannot hold: the place of its row in the batch, and the column.
OddValue = tuple[int, str]

Convert = Callable[[Any], Any]
MapRows = Callable[[Sequence[Values]], list[Row]]
"""Returns a row of the destination for each row of a batch. Raises what a converter raises."""


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
        self._converters = {
            place: column.type_mapping.convert
            for place, column in enumerate(table.columns)
            if column.type_mapping.convert is not None
        }
        self._texts = [
            place for place, column in enumerate(table.columns) if column.sdk_type in _TEXTS
        ]
        self._key = [column.destination for column in table.key]
        self._key_places = [table.columns.index(column) for column in table.key]
        self._key_converters = [
            (column.destination, column.type_mapping.convert) for column in table.key
        ]
        self._functions: dict[int, MapRows] = {}  # by the number of values in a row
        self._seen = 0  # rows

    def rows(self, batch: Sequence[Values]) -> MappedBatch:
        """The rows of a batch, with null for a value that its column cannot hold, and without
        those whose key cannot be stored."""
        self._seen += len(batch)
        if self._seen > FEW_ROWS and batch and len(batch[0]) <= MOST_COLUMNS:
            rows = self._usual_rows(batch)
            if rows is not None:
                return MappedBatch(rows, {}, [])
        return self._rows_by_column(batch)

    def _usual_rows(self, batch: Sequence[Values]) -> list[Row] | None:
        """The rows of a batch by the generated function; None if one of its values is odd, or one
        of its keys invalid."""
        try:
            rows = self._function(len(batch[0]))(batch)
        except _CONVERSION_ERRORS:
            return None
        for place in self._texts:
            if bytes in {*map(type, map(itemgetter(place), batch))}:
                return None
        for name in self._key:
            values = [row[name] for row in rows]
            types = {*map(type, values)}
            if _NULL in types or (str in types and not all(map(is_storable, values))):
                return None
        return rows

    def _function(self, width: int) -> MapRows:
        """The function that maps rows of ``width`` values."""
        if width not in self._functions:
            code = _compiled(width, len(self._names), tuple(self._converters))
            scope: dict[str, Any] = {}
            exec(code, scope)  # noqa: S102  # of this module's own lines, and of numbers
            build = scope["build"]
            self._functions[width] = build(self._names, self._converters.values())
        return self._functions[width]

    def _rows_by_column(self, batch: Sequence[Values]) -> MappedBatch:
        # A column at a time: to call a function for each row would cost half as much again.
        rows = [dict(zip(self._names, values)) for values in batch]  # noqa: B905  # a change has its key behind them
        odd = _remove_bytes(rows, [self._names[place] for place in self._texts])
        for place, convert in self._converters.items():
            odd += _convert(rows, self._names[place], convert)
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
        return change[self._key_places[0]] is None

    def is_spelled_otherwise(self, change: Values) -> bool:
        """Whether the key of a change is not that of its row to the destination, though it is to
        the server, as "ab" and "AB" may be. Raises InvalidRecord."""
        values = [change[place] for place in self._key_places]
        if values == [*change[len(self._names) : -1]]:
            return False
        return self._converted(values) != self.key(change)

    def key(self, change: Values) -> Row:
        """The key of a change. Raises InvalidRecord."""
        return self._converted(change[len(self._names) : -1])

    def _converted(self, key: Sequence[Any]) -> Row:
        values = zip(self._key_converters, key, strict=True)
        try:
            return {n: convert(value) if convert else value for (n, convert), value in values}
        except _CONVERSION_ERRORS:
            raise InvalidRecord("the key holds what its type cannot hold") from None


@lru_cache(maxsize=32)
def _compiled(width: int, columns: int, converted: tuple[int, ...]) -> Any:
    """The code of a function ``build``, which returns a MapRows for rows of ``width`` values, of
    which the first ``columns`` are mapped. It is given their names, and the converters of those at
    the places ``converted``."""
    items = [f"n{place}: {_item(place, place in converted)}" for place in range(columns)]
    lines = [
        "def build(names, converters):",
        f" [{_numbered('n', range(columns))}] = names",
        f" [{_numbered('c', converted)}] = converters",
        " def map_rows(batch):",
        f"  return [{{{', '.join(items)}}} for [{_numbered('v', range(width))}] in batch]",
        " return map_rows",
    ]
    return compile("\n".join(lines), "<mapping>", "exec")


def _item(place: int, converted: bool) -> str:
    return f"None if v{place} is None else c{place}(v{place})" if converted else f"v{place}"


def _numbered(letter: str, places: Iterable[int]) -> str:
    return ", ".join(f"{letter}{place}" for place in places)


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


def _convert(rows: Sequence[Row], name: str, convert: Convert) -> list[OddValue]:
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
