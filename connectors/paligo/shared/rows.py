"""A source's records as rows of typed columns; the types do not depend on the data."""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import MAX_PREC, Context, Decimal
from typing import Any

from fivetran_connector_sdk import Logging, Operations as op

from . import times
from .errors import SourceError
from .rest import Number

Row = dict[str, Any]
_EXACT = Context(prec=MAX_PREC)  # the usual context would round to 28 digits


class UnusableRecord(ValueError):
    """A record that cannot be stored. The message names a column, never a value."""


@dataclass(frozen=True)
class Column:
    """A column: its SDK ``type`` and where its value comes from.

    The value is that of the first of ``sources`` (else of the column's own name) that is not
    null, else what ``derive`` makes of the record: of an object, say, where a text is expected.
    ``required``: not null and not "".
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

    def row(self, record: Any, **given: Any) -> Row:
        """``record`` as a row; ``given`` holds the columns whose value is not in it.

        A STRING part of the key that is missing becomes "". Raises UnusableRecord.
        """
        if not isinstance(record, dict):
            raise UnusableRecord("it is not an object")
        left, row = dict(record), dict(given)
        for name, column in self.columns.items():
            if name in given:
                continue
            value = None
            for source in column.sources or (name,):
                if not (column.derive and isinstance(left.get(source), (dict, list))):
                    value = left.pop(source, None)
                if value is not None:
                    break
            if value is None and column.derive:
                value = column.derive(record)
            value = convert(value, column.type, name)
            if column.required and value in (None, ""):
                raise UnusableRecord(f"{name} is missing")
            row[name] = "" if value is None and name in self.key else value
        row["additional_fields"] = convert(left or None, "JSON", "additional_fields")
        return row


def convert(value: Any, type_: Any, name: str) -> Any:
    """``value`` as the SDK takes it for ``type_``; null and, but for STRING, "" are None.

    Raises UnusableRecord, with the column's ``name``, for what the type cannot hold exactly.
    """
    if value is None or (value == "" and type_ != "STRING"):
        return None
    kind = type_["type"] if isinstance(type_, dict) else type_
    try:
        if kind == "DECIMAL":
            return _to_decimal(_number(value), type_["precision"], type_["scale"])
        return _CONVERTERS[kind](value)
    except (ValueError, ArithmeticError, KeyError, RecursionError):
        raise UnusableRecord(f"{name} does not fit its type {kind}") from None


def _to_string(value: Any) -> str:
    if isinstance(value, (dict, list, bool)):
        return json.dumps(_to_json(value), ensure_ascii=False)
    text = value if isinstance(value, str) else getattr(value, "text", str(value))
    text.encode()  # half of a surrogate pair would fail the whole checkpoint
    return text


def _number(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError
    number = Decimal((value.text if isinstance(value, Number) else str(value)).strip())
    if not number.is_finite() or number.adjusted() > 400:
        raise ValueError
    return number


def _to_decimal(number: Decimal, precision: int, scale: int) -> str:
    # The destination would round what has more digits, and make null of what does not fit.
    exact = number.normalize(_EXACT)
    _, digits, exponent = exact.as_tuple()
    if number and (-int(exponent) > scale or len(digits) + int(exponent) > precision - scale):
        raise ValueError
    return format(exact, "f") if number else "0"


def _to_integer(number: Decimal, bits: int) -> int:
    if number != number.to_integral_value() or not -(2 ** (bits - 1)) <= number < 2 ** (bits - 1):
        raise ValueError
    return int(number)


def _to_json(value: Any) -> Any:
    # NaN and half of a surrogate pair pass the SDK and fail the whole checkpoint.
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return value


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "STRING": _to_string,
    "INT": lambda value: _to_integer(_number(value), 32),
    "LONG": lambda value: _to_integer(_number(value), 64),
    "DOUBLE": lambda value: float(_number(value)),
    "BOOLEAN": lambda value: {"true": True, "1": True, "false": False, "0": False}[
        str(value).strip().lower()
    ],
    "UTC_DATETIME": times.parse,
    "JSON": _to_json,
}


@dataclass
class Rejects:
    """The unusable records of a sync, named by position and column, never by value."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, table: str, position: str, reason: Exception) -> None:
        self.counts[table] += 1
        if self.counts[table] <= 3:
            self.examples.setdefault(table, []).append(f"{position}: {reason}")

    def clear(self, table: str) -> None:
        """Forgets those of ``table``, which is read once more."""
        del self.counts[table]
        self.examples.pop(table, None)

    def check(self, table: str, records: int) -> None:
        """Raises SourceError if more than a tenth of the ``records`` of ``table`` is unusable."""
        if self.counts[table] * 10 > records:
            raise SourceError(f"{self._sentence(table)}. That is more than a tenth of {records}")

    def report(self) -> None:
        """A warning in the log for each table, and one for all on the dashboard."""
        for table in self.counts:
            Logging.warning(self._sentence(table))
        if self.counts:
            counts = ", ".join(f"{count} of {table}" for table, count in self.counts.items())
            op.warning(f"Records that cannot be stored were left out: {counts}. The log says why")

    def _sentence(self, table: str) -> str:
        examples = "; ".join(self.examples[table])
        return f"{table}: {self.counts[table]} unusable records left out, first {examples}"
