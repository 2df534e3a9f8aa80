"""A source's records as rows of typed columns; the types do not depend on the data."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import partial
from itertools import repeat
from typing import Any

from fivetran_connector_sdk import Logging, Operations as op

from . import times
from .errors import SourceError
from .rest import Number

Row = dict[str, Any]
_SORTED = json.JSONEncoder(ensure_ascii=False, sort_keys=True)  # equal values make equal text


class UnusableRecord(ValueError):
    """A record that cannot be stored. The message names a column, never a value."""


@dataclass(frozen=True)
class Column:
    """A column: its SDK ``type`` and where its value comes from.

    The value is that of the first of ``sources`` (else of the column's own name) that is not
    null. With ``derive`` it is that of the own name, unless it is a list or an object, else what
    ``derive`` makes of the record. ``required``: not null and not "".
    """

    type: Any = "STRING"
    sources: tuple[str, ...] = ()
    derive: Callable[[Mapping[str, Any]], Any] | None = None
    required: bool = False


def decimal(precision: int, scale: int) -> dict[str, Any]:
    """The type of an exact number."""
    return {"type": "DECIMAL", "precision": precision, "scale": scale}


@dataclass(frozen=True)
class Table:
    """A table of the destination. Fields that no column takes are kept, as sent, in the JSON
    column ``additional_fields``."""

    name: str
    key: tuple[str, ...]
    columns: Mapping[str, Column]

    def schema(self) -> dict[str, Any]:
        """The table as the SDK's ``schema()`` declares it."""
        types = {name: column.type for name, column in self.columns.items()}
        entry = {"table": self.name, "columns": {**types, "additional_fields": "JSON"}}
        return {**entry, "primary_key": list(self.key)} if self.key else entry

    def rows(self, records: Sequence[Any], **given: Any) -> "Rows":
        """``records`` as rows, column by column since that takes half the time; ``given`` holds
        the columns whose value is not in them. In place of a row may stand why it is none. What no
        column takes is not looked at: records are as ``parse_json`` makes them.

        A STRING part of the key that is missing becomes "".
        """
        try:
            if not {*map(type, records)} <= {dict}:
                raise UnusableRecord("it is not an object")
            left = [record.copy() for record in records]
            columns = {
                name: self._values(name, left, records)
                for name in self.columns
                if name not in given
            }
        except UnusableRecord as reason:
            if len(records) == 1:
                return [reason.with_traceback(None)]  # its frames hold values
            return [row for record in records for row in self.rows([record], **given)]
        columns["additional_fields"] = [fields or None for fields in left]
        names, same = [*given, *columns], map(repeat, given.values())
        return [dict(zip(names, row)) for row in zip(*same, *columns.values())]  # noqa: B905

    def _values(self, name: str, left: Sequence[Row], records: Sequence[Row]) -> list[Any]:
        """The values of a column, which are taken out of what is ``left`` of the records."""
        column = self.columns[name]
        first, *others = column.sources or (name,)
        if derive := column.derive:
            values = [_derived(name, derive, *pair) for pair in zip(left, records, strict=True)]
        else:
            values = [fields.pop(first, None) for fields in left]
        for source in others:
            values = [
                fields.pop(source, None) if value is None else value
                for value, fields in zip(values, left, strict=True)
            ]
        values = convert(values, column.type, name)
        if column.required and (None in values or "" in values):
            raise UnusableRecord(f"{name} is missing")
        return ["" if v is None else v for v in values] if name in self.key else values


Rows = list[Row | UnusableRecord]


def _derived(name: str, derive: Callable[[Row], Any], left: Row, record: Row) -> Any:
    value = None if isinstance(left.get(name), (dict, list)) else left.pop(name, None)
    return derive(record) if value is None else value


def convert(values: Iterable[Any], type_: Any, name: str) -> list[Any]:
    """``values`` as the SDK takes them for ``type_``; null and, but for STRING, "" are None.

    Raises UnusableRecord, with the column's ``name``, for what the type cannot hold exactly.
    """
    kind = type_["type"] if isinstance(type_, dict) else type_
    try:
        if type_ == "STRING":
            return [v if v is None or type(v) is str else _to_string(v) for v in values]
        to_type = _decimal_converter(type_) if kind == "DECIMAL" else _CONVERTERS[kind]
        return [None if v is None or v == "" else to_type(v) for v in values]
    except (ValueError, ArithmeticError, KeyError, RecursionError):
        raise UnusableRecord(f"{name} does not fit its type {kind}") from None


def _to_string(value: Any) -> str:
    if type(value) is int or isinstance(value, str):
        return str(value)
    return value.text if type(value) is Number else _SORTED.encode(value)


def _number(value: Any) -> Decimal:
    if type(value) not in (str, int, float, Number):
        raise ValueError
    number = Decimal(value.text if type(value) is Number else str(value))
    if not number.is_finite() or number.adjusted() > 400:
        raise ValueError
    return number


def _decimal_converter(type_: Mapping[str, Any]) -> Callable[[Any], str]:
    # The destination would round what has more digits, and make null of what does not fit.
    exact = Context(prec=type_["precision"], traps=[Inexact, InvalidOperation])
    unit = Decimal(10) ** -type_["scale"]

    def to_decimal(value: Any) -> str:
        number = exact.quantize(_number(value), unit)
        return format(exact.normalize(number), "f") if number else "0"

    return to_decimal


def _to_integer(limit: int, value: Any) -> int:
    # Digits alone need no Decimal, which takes twice the time.
    number = int(value) if type(value) is int or str(value).isdigit() else _number(value)
    if number != (whole := int(number)) or not -limit <= whole < limit:
        raise ValueError
    return whole


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "STRING": _to_string,
    "INT": partial(_to_integer, 2**31),
    "LONG": partial(_to_integer, 2**63),
    "DOUBLE": lambda value: float(value if type(value) is Number else _number(value)),
    "BOOLEAN": lambda value: {"true": True, "1": True, "false": False, "0": False}[
        str(value).strip().lower()
    ],
    "UTC_DATETIME": times.parse,
    "JSON": lambda value: value,
}


@dataclass
class Rejects:
    """The unusable records of a sync, named by position and column, never by value."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    odd: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    odd_counts: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, table: str, position: str, reason: Exception) -> None:
        self.counts[table] += 1
        if self.counts[table] <= 3:
            self.examples.setdefault(table, []).append(f"{position}: {reason}")

    def add_odd(self, table: str, column: str, position: str, placeholder: bool = False) -> None:
        """A value that its ``column`` cannot hold, and in place of which there is null, or a
        ``placeholder``."""
        self.odd_counts[table, column] += 1
        if self.odd_counts[table, column] <= 3:
            said = f"{position} (a placeholder)" if placeholder else position
            self.odd.setdefault((table, column), []).append(said)

    def clear(self, table: str) -> None:
        """Forgets those of ``table``, which is read once more."""
        del self.counts[table]
        self.examples.pop(table, None)
        for key in [key for key in self.odd if key[0] == table]:
            del self.odd[key], self.odd_counts[key]

    def check(self, table: str, records: int) -> None:
        """Raises SourceError if more than a tenth of the ``records`` of ``table`` is unusable."""
        if self.counts[table] * 10 > records:
            raise SourceError(f"{self._sentence(table)}. That is more than a tenth of {records}")

    def report(self) -> None:
        """A warning in the log for each table, and one for all on the dashboard."""
        for table in self.counts:
            Logging.warning(self._sentence(table))
        if self.counts:
            op.warning(
                "Records that cannot be stored were left out: "
                + ", ".join(f"{count} of {table}" for table, count in self.counts.items())
                + ". The log says why"
            )
        for (table, column), examples in self.odd.items():
            Logging.warning(
                f"{table}: {self.odd_counts[table, column]} values of {column} do not fit its "
                f"type and are null, first {'; '.join(examples)}"
            )
        if odd := self.odd_counts.items():
            op.warning(
                "Values that their columns cannot hold are null: "
                + ", ".join(f"{n} of {table}.{name}" for (table, name), n in odd)
                + ". The log says where"
            )

    def _sentence(self, table: str) -> str:
        return f"{table}: {self.counts[table]} unusable records left out, first " + "; ".join(
            self.examples[table]
        )
