"""Records of a source as rows of typed columns. The types are declared, never taken from data."""

import functools
import json
import math
import re
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Context, Decimal, Inexact, InvalidOperation
from functools import partial, reduce
from itertools import repeat
from typing import Any, NamedTuple

from fivetran_connector_sdk import Logging, Operations as op

from . import times
from .errors import SourceError
from .rest import Number

Row = dict[str, Any]
_SORTED = json.JSONEncoder(ensure_ascii=False, sort_keys=True)  # equal values make equal text
_KEY = "KEY"  # the type, here, of a STRING that is a key or refers to one
_NULL: Any = type(None)
_AS_THEY_ARE: dict[str, set[Any]] = {"STRING": {str}, _KEY: {str}, "BOOLEAN": {bool}}
_NOTHING: set[Any] = set()
_FLAGS: dict[Any, bool] = {
    **dict.fromkeys((1, "1", "true", "t", "yes", "y", "on"), True),
    **dict.fromkeys((0, "0", "false", "f", "no", "n", "off"), False),
}
_BINARY_ERROR = Decimal("1e-9")  # of a number
_DIFFERENCE = Context(prec=28)
# What a conversion, or a `derive`, raises for what it cannot read.
_UNFIT = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
_UNREADABLE = object()  # no type holds it
_DEEPER = 100  # levels by which the stack of the SDK may be deeper when it writes JSON
_EXAMPLES = 3  # positions that are named in the log


class InvalidRecord(ValueError):
    """A record that cannot be stored. The message names a column, never a value."""


class OddValue(NamedTuple):
    """A value that its ``column`` cannot hold, in the ``record`` (by its index, from 0).
    ``placeholder``: it stands for "no date"."""

    record: int
    column: str
    placeholder: bool = False


@dataclass(repr=False)
class Rows:
    """A row for each record, or an InvalidRecord that says why it cannot be stored; and the values
    in these rows that are null since their columns cannot hold them, in the order of the
    records."""

    rows: list[Row | InvalidRecord]
    odd: list[OddValue] = field(default_factory=list)

    def split(self, sizes: Iterable[int]) -> Iterator["Rows"]:
        """Those of so many records each."""
        odd, begin = deque(self.odd), 0
        for size in sizes:
            end, of_part = begin + size, []
            while odd and odd[0].record < end:
                value = odd.popleft()
                of_part.append(value._replace(record=value.record - begin))
            yield Rows(self.rows[begin:end], of_part)
            begin = end


@dataclass(frozen=True)
class Column:
    """A column: its SDK ``type`` and where its value comes from.

    The value is that of the first of ``sources`` (else of the column's own name) that is not
    null. With ``derive`` it is that of the own name, unless it is a list or an object, else what
    ``derive`` makes of the record; it raises ValueError for what it cannot read, or what Python
    raises for a record of another form.
    ``required``: a record whose value is null or "" is skipped. Raises ValueError for a type that
    is not STRING, INT, LONG, DOUBLE, BOOLEAN, UTC_DATETIME, JSON or a ``decimal``.
    """

    type: Any = "STRING"
    sources: tuple[str, ...] = ()
    derive: Callable[[Mapping[str, Any]], Any] | None = None
    required: bool = False

    def __post_init__(self) -> None:
        kind = _kind(self.type)
        if kind != "DECIMAL" and kind not in _CONVERTERS:
            raise ValueError(f"no value can be converted to a column of the type {kind}")


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

    def rows(self, records: Sequence[Any], **given: Any) -> Rows:
        """``records`` as rows, column by column since that takes half the time; ``given`` holds
        the columns whose value is not in them. What no column takes is not looked at: records are
        as ``parse_json`` makes them.

        A value that its column cannot hold is null there, and stays in ``additional_fields``
        under the name that it came with. A record whose key cannot be read is an InvalidRecord; a
        STRING part of the key that is missing becomes "".
        """
        batch = _Batch(records)
        columns = {name: self._values(name, batch) for name in self.columns if name not in given}
        columns["additional_fields"] = [fields or None for fields in batch.left]
        names, same = [*given, *columns], map(repeat, given.values())
        rows: list[Row | InvalidRecord]
        rows = [dict(zip(names, row)) for row in zip(*same, *columns.values())]  # noqa: B905
        for index, reason in batch.skipped.items():
            rows[index] = reason
        odd = [value for value in batch.odd if value.record not in batch.skipped]
        return Rows(rows, sorted(odd))

    def keys(self, records: Sequence[Any]) -> Rows:
        """The keys of ``records``, as ``rows`` has them: for deletes."""
        found = replace(self, columns={name: self.columns[name] for name in self.key}).rows(
            records
        )
        for row in found.rows:
            if isinstance(row, dict):
                del row["additional_fields"]
        return found

    def _values(self, name: str, batch: "_Batch") -> list[Any]:
        """The values of a column, which are taken out of what is left of the records."""
        column, in_key = self.columns[name], name in self.key
        kind = _kind(column.type)
        if kind == "STRING" and (in_key or name == "id" or name.endswith("_id")):
            kind = _KEY
        to_type, taken = _converter(column.type, kind), batch.take(name, column)
        try:
            values = _converted(taken, kind, to_type)
        except _UNFIT:
            values, unfit = _converted_one_by_one(taken, to_type)
            for index, placeholder in unfit.items():
                if in_key or column.required:
                    batch.skip(index, _misfit(name, column.type))
                else:
                    batch.give_back(index, column.sources or (name,), taken[index])
                    batch.odd.append(OddValue(index, name, placeholder))
        if column.required or (in_key and kind != _KEY):
            if None in values or "" in values:
                batch.skip_missing(name, values)
        elif in_key:
            return ["" if value is None else value for value in values]
        return values


class _Batch:
    """Records that become rows: which fields of each are ``left``, which records are ``skipped``
    and why, and the ``odd`` values so far."""

    def __init__(self, records: Sequence[Any]) -> None:
        self.skipped: dict[int, InvalidRecord] = {}
        self.odd: list[OddValue] = []
        if not {*map(type, records)} <= {dict}:
            for index, record in enumerate(records):
                if type(record) is not dict:
                    self.skip(index, "it is not an object")
            records = [{} if index in self.skipped else r for index, r in enumerate(records)]
        self._records: Sequence[Row] = records
        self.left: list[Row] = [record.copy() for record in self._records]

    def take(self, name: str, column: Column) -> list[Any]:
        """The values of a column, as they were sent."""
        first, *others = column.sources or (name,)
        if derive := column.derive:
            pairs = zip(self.left, self._records, strict=True)
            values = [_derived(name, derive, *pair) for pair in pairs]
        else:
            values = [fields.pop(first, None) for fields in self.left]
        for source in others:
            values = [
                fields.pop(source, None) if value is None else value
                for value, fields in zip(values, self.left, strict=True)
            ]
        return values

    def give_back(self, index: int, sources: Iterable[str], value: Any) -> None:
        """Puts a value back under the field of ``sources`` that it was taken from. A derived value
        is under none of them, and the fields that it was made of were not taken."""
        for source in sources:
            if self._records[index].get(source) is value:
                self.left[index][source] = _encodable(value)
                return

    def skip(self, index: int, reason: str) -> None:
        """Makes a record one that cannot be stored; the first reason counts."""
        self.skipped.setdefault(index, InvalidRecord(reason))

    def skip_missing(self, name: str, values: Sequence[Any]) -> None:
        for index, value in enumerate(values):
            if value is None or value == "":
                self.skip(index, f"{name} is missing")


def _derived(name: str, derive: Callable[[Row], Any], left: Row, record: Row) -> Any:
    value = None if isinstance(left.get(name), (dict, list)) else left.pop(name, None)
    if value is not None:
        return value
    try:
        return derive(record)
    except _UNFIT:
        return _UNREADABLE


def convert(values: Sequence[Any], type_: Any, name: str) -> list[Any]:
    """``values`` as the SDK takes them for ``type_``; null and, but for STRING, "" are None.

    Raises InvalidRecord, with the column's ``name``, for what the type cannot hold.
    """
    kind = _kind(type_)
    try:
        return _converted(values, kind, _converter(type_, kind))
    except _UNFIT:
        raise InvalidRecord(_misfit(name, type_)) from None


def _kind(type_: Any) -> str:
    kind: str = type_["type"] if isinstance(type_, dict) else type_
    return kind


def _misfit(name: str, type_: Any) -> str:
    return f"{name} does not fit its type {_kind(type_)}"


def _converter(type_: Any, kind: str) -> Callable[[Any], Any]:
    if kind == "DECIMAL":
        return _decimal_converter(type_["precision"], type_["scale"])
    return _CONVERTERS[kind]


def _converted(values: Sequence[Any], kind: str, to_type: Callable[[Any], Any]) -> list[Any]:
    """The values of a whole column; what has its type as it is need not be looked at."""
    types = {*map(type, values)} - {_NULL}
    if types <= _AS_THEY_ARE.get(kind, _NOTHING):
        return [*values]
    if kind in ("STRING", _KEY):
        if types == {int} and None not in values:
            return [*map(str, values)]
        return [v if v is None or type(v) is str else to_type(v) for v in values]
    if kind in ("INT", "LONG") and types == {int}:
        numbers = [v for v in values if v is not None]
        to_type(min(numbers))
        to_type(max(numbers))
        return [*values]
    if kind == "UTC_DATETIME" and types == {str}:
        texts = [v for v in values if v is not None]
        if (usual := times.parse_usual(texts)) is not None:
            moments = iter(usual)
            return [None if v is None else next(moments) for v in values]
    if isinstance(to_type, _ToDecimal) and types <= {str, int, Number}:
        return to_type.column(values)
    return [None if v is None or v == "" else to_type(v) for v in values]


def _converted_one_by_one(
    values: Sequence[Any], to_type: Callable[[Any], Any]
) -> tuple[list[Any], dict[int, bool]]:
    """The values of a column, with None for those that do not fit; and of these, by their index,
    whether they stand for "no date". Text of spaces is null, and is not reported."""
    converted: list[Any] = []
    unfit: dict[int, bool] = {}
    for index, value in enumerate(values):
        try:
            converted.append(None if value is None else to_type(value))
        except _UNFIT as reason:  # noqa: PERF203  # for each value is the point
            converted.append(None)
            if not (isinstance(value, str) and not value.strip()):
                unfit[index] = isinstance(reason, times.NoDate)
    return converted, unfit


def _to_string(value: Any) -> str:
    if type(value) is int or isinstance(value, str):
        return str(value)
    if type(value) is Number:
        return value.text
    try:
        return _SORTED.encode(value)
    except RecursionError:
        return _nested_text(value)


def plain_text(value: Any) -> str | None:
    """A text, or a number as text; None for a flag, a list and an object."""
    return _to_string(value) if type(value) in (str, int, float, Number) else None


def to_key(value: Any) -> str:
    """A key, or a reference to one, as text: a whole number is its digits, however it came."""
    if type(value) is int:
        return str(value)
    if value is False or value in ([], {}):
        raise ValueError
    if isinstance(value, float):
        number = _number(value)
        if number == (whole := int(number)):
            return str(whole)
    return _to_string(value)


class _Piece(str):
    """A part of a JSON text, and not a value that is to be written."""

    __slots__ = ()


def _nested_text(value: Any) -> str:
    """What ``_SORTED`` writes, of lists and objects in each other to any depth."""
    pieces, rest = [], [value]
    while rest:
        item = rest.pop()
        if type(item) is _Piece:
            pieces.append(str(item))
        elif isinstance(item, (dict, list)):
            rest += reversed(_parts(item))
        else:
            pieces.append(_SORTED.encode(item))
    return "".join(pieces)


def _parts(value: Any) -> list[Any]:
    """The pieces of the text of a list or an object, and its values between them."""
    if isinstance(value, list):
        parts = [part for each in value for part in (_Piece(", "), each)]
        return [_Piece("["), *parts[1:], _Piece("]")]
    parts = []
    for name in sorted(value):
        parts += [_Piece(", "), _Piece(_SORTED.encode(name) + ": "), value[name]]
    return [_Piece("{"), *parts[1:], _Piece("}")]


def _encodable(value: Any) -> Any:
    """``value``, or its text where ``additional_fields`` could not hold it: the SDK makes JSON of
    them, which has no form for NaN, and whose encoder gives up on what is nested too deeply."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, (dict, list)):
        try:
            if len(_SORTED.encode(value)) > _DEEPER:  # else it has fewer levels than that
                _SORTED.encode(reduce(lambda inner, _: [inner], range(_DEEPER), value))
        except RecursionError:
            return _nested_text(value)
    return value


def _number(value: Any) -> Decimal:
    if type(value) not in (str, int, float, Number):
        raise ValueError
    text = value.text if type(value) is Number else str(value)
    number = Decimal(text)
    # Python, but nobody else, divides digits by "_".
    if not number.is_finite() or number.adjusted() > 400 or "_" in text:
        raise ValueError
    return number


class _ToDecimal:
    """Makes the text of an exact number of ``precision`` digits, ``scale`` of them behind the
    point. The destination would round what has more, and make null of what does not fit."""

    def __init__(self, precision: int, scale: int) -> None:
        self._precision, self._unit = precision, Decimal(10) ** -scale
        self._exact = Context(prec=precision, traps=[Inexact, InvalidOperation])
        whole = rf"(?:0|[1-9]\d{{0,{precision - scale - 1}}})"
        # As they are stored, but for zeros at the end; "-0" is not.
        self._plain_lines = re.compile(
            rf"(?:(?!-0(?:\.0*)?\n)-?{whole}(?:\.\d{{1,{scale}}})?\n)*", re.ASCII
        )

    def __call__(self, value: Any) -> str:
        number = _number(value)
        try:
            fitting = self._exact.quantize(number, self._unit)
        except Inexact:
            fitting = _without_binary_error(number, self._unit, self._precision)
        return format(self._exact.normalize(fitting), "f") if fitting else "0"

    def column(self, values: Sequence[Any]) -> list[str | None]:
        """The same of texts, integers and Numbers, None for None and ""."""
        texts = ["" if v is None else v.text if type(v) is Number else str(v) for v in values]
        given = [*filter(None, texts)]
        lines = "\n".join([*given, ""])
        if not self._plain_lines.fullmatch(lines) or lines.count("\n") != len(given):
            return [self(value) if text else None for value, text in zip(values, texts)]  # noqa: B905
        # In a fifth of the time: all are written as they are stored, but for zeros at the end.
        return [(t.rstrip("0").rstrip(".") if "." in t else t) or None for t in texts]


@functools.lru_cache(maxsize=64)
def _decimal_converter(precision: int, scale: int) -> _ToDecimal:
    return _ToDecimal(precision, scale)


def _without_binary_error(number: Decimal, unit: Decimal, precision: int) -> Decimal:
    """``number`` as a multiple of ``unit``, where they differ by no more than what the binary
    form of a number adds to it, as in 19.990000000000002. Raises ArithmeticError otherwise."""
    context = Context(prec=precision, traps=[InvalidOperation])
    rounded = context.quantize(number, unit)
    difference = _DIFFERENCE.abs(_DIFFERENCE.subtract(number, rounded))
    if difference >= _DIFFERENCE.multiply(_DIFFERENCE.abs(number), _BINARY_ERROR):
        raise Inexact
    return rounded


def _to_integer(limit: int, value: Any) -> int:
    # Digits alone need no Decimal, which takes twice the time.
    number = int(value) if type(value) is int or str(value).isdigit() else _number(value)
    if number != (whole := int(number)) or not -limit <= whole < limit:
        raise ValueError
    return whole


def _to_double(value: Any) -> float:
    number = float(value if type(value) is Number else _number(value))
    if not math.isfinite(number):
        raise ValueError
    return number


def to_flag(value: Any) -> bool:
    """A yes or no, in any of the usual words or as 1 or 0. Raises ValueError otherwise."""
    word = value.strip().lower() if isinstance(value, str) else value
    if isinstance(word, (str, int, float)) and word in _FLAGS:
        return _FLAGS[word]
    raise ValueError


def _to_json(value: Any) -> Any:
    if value == "" or _encodable(value) is not value:
        raise ValueError
    return value


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "STRING": _to_string,
    _KEY: to_key,
    "INT": partial(_to_integer, 2**31),
    "LONG": partial(_to_integer, 2**63),
    "DOUBLE": _to_double,
    "BOOLEAN": to_flag,
    "UTC_DATETIME": times.parse,
    "JSON": _to_json,
}


@dataclass
class SkippedRecords:
    """The records of a sync that were skipped, since they cannot be stored, and the values that
    are null in its rows, since their columns cannot hold them. Reports name position and column,
    never a value."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    odd: dict[tuple[str, str, bool], "_Places"] = field(default_factory=dict)
    become: str = "null, and kept as sent in additional_fields"  # odd values
    unreplaced: list[str] = field(default_factory=list)  # tables, since records were skipped

    def take(self, table: str, found: Rows, where: str, before: int = 0) -> list[Row]:
        """The rows of ``found`` that can be stored. Counts the other records, and the odd values;
        ``where`` and the number of a record (from 1, after so many ``before``) are its
        position."""
        for index, column, placeholder in found.odd:
            self.add_odd(table, column, f"{where}{before + index + 1}", placeholder)
        if {*map(type, found.rows)} <= {dict}:  # as in most pages
            return found.rows  # type: ignore[return-value]
        rows: list[Row] = []
        for number, row in enumerate(found.rows, before + 1):
            if isinstance(row, InvalidRecord):
                self.add(table, f"{where}{number}", row)
            else:
                rows.append(row)
        return rows

    def add(self, table: str, position: str, reason: Exception) -> None:
        """Counts a skipped record."""
        self.counts[table] += 1
        if self.counts[table] <= _EXAMPLES:
            self.examples.setdefault(table, []).append(f"{position}: {reason}")

    def add_odd(self, table: str, column: str, position: str, placeholder: bool = False) -> None:
        """Counts a value that its ``column`` cannot hold, in the record at ``position``."""
        self.odd.setdefault((table, column, placeholder), _Places()).add(position)

    def clear(self, table: str) -> None:
        """Forgets what is known of ``table``, which is read once more."""
        del self.counts[table]
        self.examples.pop(table, None)
        self.odd = {key: places for key, places in self.odd.items() if key[0] != table}

    def check(self, table: str, records: int) -> None:
        """Raises SourceError if more than a tenth of the ``records`` of ``table`` were skipped."""
        if self.counts[table] * 10 > records:
            raise SourceError(f"{self._sentence(table)}. That is more than a tenth of {records}")

    def report(self) -> None:
        """Logs a warning for each table with skipped records and for each column with odd values,
        and shows one for all on the dashboard. That one leaves out values that stand for "no
        date", which nobody can mend."""
        for table in self.counts:
            Logging.warning(self._sentence(table))
        for key, places in self.odd.items():
            Logging.warning(self._odd_sentence(*key, places))
        sentences = []
        if self.counts:
            skipped = ", ".join(f"{count} of {table}" for table, count in self.counts.items())
            sentences.append(f"Records that cannot be stored were skipped: {skipped}")
        if self.unreplaced:
            tables = ", ".join(self.unreplaced)
            sentences.append(f"Deletes were not looked for meanwhile in {tables}")
        values = ", ".join(
            f"{places.count} of {table}.{column}"
            for (table, column, placeholder), places in self.odd.items()
            if not placeholder
        )
        if values:
            sentences.append(
                f"Values that their columns cannot hold are {self.become}: {values}. "
                "The log says where"
            )
        elif sentences:
            sentences.append("The log says why")
        if sentences:
            op.warning(". ".join(sentences))

    def _sentence(self, table: str) -> str:
        skipped = counted(self.counts[table], "record")
        return f"{table}: {skipped} skipped, first {'; '.join(self.examples[table])}"

    def _odd_sentence(self, table: str, column: str, placeholder: bool, places: "_Places") -> str:
        values, one = f"{counted(places.count, 'value')} of {column}", places.count == 1
        reason = "cannot be held by its type"
        if placeholder:
            reason = 'stands for "no date"' if one else 'stand for "no date"'
        they = "it is" if one else "they are"
        return f"{table}: {values} {reason}: {they} {self.become}; first {'; '.join(places.first)}"


def counted(count: int, thing: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{count} {thing}" + ("" if count == 1 else "s")


@dataclass
class _Places:
    """How many values there are, and the positions of the first ones."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, position: str) -> None:
        self.count += 1
        if self.count <= _EXAMPLES:
            self.first.append(position)
