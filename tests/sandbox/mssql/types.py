"""The data types: their declarations, and the form in which values are stored.

Stored forms are chosen so that SQLite's own comparison is the server's comparison:

=================================  ==========================================================
bit, tinyint .. bigint             INTEGER
decimal(p <= 18), money            INTEGER, the value times 10**scale
decimal(p > 18)                    BLOB, 16 bytes big-endian, offset by 2**127
float, real                        REAL
date, datetime, datetime2, ...     INTEGER, 100 ns since 0001-01-01 (a datetime of n/300 s is
                                   widened as the server does: .003 is .0033333)
time                               INTEGER, 100 ns since midnight
datetimeoffset                     BLOB, 8 bytes UTC ticks big-endian, 2 bytes offset in minutes
uniqueidentifier                   BLOB, the 16 bytes in the server's order of significance
char .. nvarchar(max), xml, json   TEXT
binary .. image, rowversion        BLOB
sql_variant                        BLOB, MS-TDS 2.2.5.5.3 without its length
hierarchyid, geometry, geography   BLOB, the serialised form
=================================  ==========================================================
"""

from __future__ import annotations

import datetime as dt
import re
import struct
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from tests.sandbox.mssql import udt
from tests.sandbox.mssql.collation import DEFAULT
from tests.sandbox.mssql.errors import error

Stored = Any  # None, int, float, str or bytes, as the table above says

TICKS_PER_SECOND = 10_000_000
TICKS_PER_DAY = 86_400 * TICKS_PER_SECOND
_EPOCH_1900 = dt.date(1900, 1, 1).toordinal() - 1
DATE_1900 = _EPOCH_1900 * TICKS_PER_DAY
_MAX_TICKS = dt.date.max.toordinal() * TICKS_PER_DAY

FAMILY = {
    "bit": "int", "tinyint": "int", "smallint": "int", "int": "int", "bigint": "int",
    "decimal": "dec", "numeric": "dec", "money": "dec", "smallmoney": "dec",
    "float": "float", "real": "float",
    "date": "dt", "datetime": "dt", "datetime2": "dt", "smalldatetime": "dt",
    "datetimeoffset": "dto", "time": "time", "uniqueidentifier": "guid",
    "char": "str", "varchar": "str", "text": "str",
    "nchar": "str", "nvarchar": "str", "ntext": "str", "sysname": "str",
    "xml": "xml", "json": "json",
    "binary": "bin", "varbinary": "bin", "image": "bin", "timestamp": "bin",
    "sql_variant": "variant", "hierarchyid": "udt", "geometry": "udt", "geography": "udt",
}  # fmt: skip
NATIONAL = {"nchar", "nvarchar", "ntext", "sysname", "xml", "json"}
INT_RANGES = {
    "bit": (0, 1),
    "tinyint": (0, 255),
    "smallint": (-(2**15), 2**15 - 1),
    "int": (-(2**31), 2**31 - 1),
    "bigint": (-(2**63), 2**63 - 1),
}
INT_DIGITS = {"bit": 1, "tinyint": 3, "smallint": 5, "int": 10, "bigint": 19}
_SYNONYMS = {
    "integer": "int",
    "dec": "decimal",
    "double precision": "float",
    "character": "char",
    "character varying": "varchar",
    "char varying": "varchar",
    "national character": "nchar",
    "national char": "nchar",
    "national character varying": "nvarchar",
    "national char varying": "nvarchar",
    "national text": "ntext",
    "binary varying": "varbinary",
    "rowversion": "timestamp",
}
_GUID_ORDER = (10, 11, 12, 13, 14, 15, 8, 9, 6, 7, 4, 5, 0, 1, 2, 3)


@dataclass(frozen=True)
class SqlType:
    """A data type: `length` in characters (or bytes of a binary), -1 for max."""

    name: str
    length: int = 0
    precision: int = 0
    scale: int = 0
    collation: str = ""

    @property
    def family(self) -> str:
        return FAMILY[self.name]

    @property
    def national(self) -> bool:
        return self.name in NATIONAL

    @property
    def wide(self) -> bool:
        """Whether a decimal is stored as 16 bytes rather than as an integer."""
        return self.name in ("decimal", "numeric") and self.precision > 18

    def __str__(self) -> str:
        if self.name in ("decimal", "numeric"):
            return f"{self.name}({self.precision},{self.scale})"
        if self.name in ("datetime2", "datetimeoffset", "time"):
            return f"{self.name}({self.scale})"
        if self.name in ("char", "varchar", "nchar", "nvarchar", "binary", "varbinary"):
            return f"{self.name}({'max' if self.length < 0 else self.length})"
        return self.name


def default_mask(t: SqlType) -> Stored:
    """What the masking function default() shows in place of a value."""
    if t.family in ("int", "float"):
        return 0
    if t.family == "dec":
        return decimal_store(0, t)
    if t.family == "str":
        return "xxxx"[: t.length] if t.length > 0 else "xxxx"
    if t.family in ("dt", "time"):
        return DATE_1900 if t.family == "dt" else 0
    return b"\x30" if t.family == "bin" else None


INT = SqlType("int")
BIGINT = SqlType("bigint")
BIT = SqlType("bit")
FLOAT = SqlType("float", precision=53)
DATETIME = SqlType("datetime")
DATETIME2 = SqlType("datetime2", scale=7)
DATETIMEOFFSET = SqlType("datetimeoffset", scale=7)
DATE = SqlType("date")
VARIANT = SqlType("sql_variant")
GUID = SqlType("uniqueidentifier")
SYSNAME = SqlType("sysname", length=128, collation=DEFAULT)


def varchar(length: int, collation: str = DEFAULT) -> SqlType:
    return SqlType("varchar", length=length, collation=collation)


def nvarchar(length: int, collation: str = DEFAULT) -> SqlType:
    return SqlType("nvarchar", length=length, collation=collation)


def decimal_type(precision: int, scale: int) -> SqlType:
    return SqlType("decimal", precision=min(precision, 38), scale=scale)


_DECLARATION = re.compile(
    r"^\s*(?:\[?(?:sys|dbo)\]?\s*\.\s*)?\[?([a-z_][a-z0-9_ ]*?)\]?\s*"
    r"(?:\(\s*(max|\d+)\s*(?:,\s*(\d+)\s*)?\))?\s*$",
    re.IGNORECASE,
)


def parse_type(declaration: str, *, collation: str = DEFAULT, default_length: int = 1) -> SqlType:
    """The type of a T-SQL declaration such as `decimal(18, 4)` or `nvarchar(max)`.

    `default_length` is what char, varchar and binary have without a length: 1 in a column,
    30 in CAST and CONVERT. Raises error 243 for an unknown name.
    """
    match = _DECLARATION.match(declaration)
    name = match[1].lower() if match else ""
    name = _SYNONYMS.get(" ".join(name.split()), name)
    if match is None or name not in FAMILY:
        raise error(243, declaration.strip())
    first = -1 if (match[2] or "").lower() == "max" else int(match[2]) if match[2] else None
    if name in ("decimal", "numeric"):
        precision = 18 if first is None else first
        scale = int(match[3] or 0)
        if not 1 <= precision <= 38 or scale > precision:
            raise error(2715, 1, declaration)
        return SqlType(name, precision=precision, scale=scale)
    if name in ("datetime2", "datetimeoffset", "time"):
        return SqlType(name, scale=7 if first is None else first)
    if name == "float":
        return SqlType("real", precision=24) if first and first <= 24 else FLOAT
    if name == "money":
        return SqlType("money", precision=19, scale=4)
    if name == "smallmoney":
        return SqlType("smallmoney", precision=10, scale=4)
    if name in ("char", "varchar", "nchar", "nvarchar"):
        return SqlType(name, length=first or default_length, collation=collation)
    if name in ("binary", "varbinary"):
        return SqlType(name, length=first or default_length)
    return _fixed_type(name, collation)


def _fixed_type(name: str, collation: str) -> SqlType:
    if name in ("text", "ntext"):
        return SqlType(name, length=-1, collation=collation)
    if name == "sysname":
        return SqlType(name, length=128, collation=collation)
    if name in ("xml", "json"):
        return SqlType(name, length=-1, collation=DEFAULT)
    if name == "timestamp":
        return SqlType(name, length=8)
    if name == "image":
        return SqlType(name, length=-1)
    if name == "real":
        return SqlType(name, precision=24)
    return SqlType(name)


# Decimals


def decimal_load(value: Stored, t: SqlType) -> int:
    """The unscaled integer of a stored decimal."""
    return int.from_bytes(value, "big") - 2**127 if isinstance(value, bytes) else int(value)


def decimal_store(unscaled: int, t: SqlType, source: str = "numeric") -> Stored:
    """Stores an unscaled integer; raises 8115 when it does not fit the type."""
    if t.name == "money":
        fits = -(2**63) <= unscaled < 2**63
    elif t.name == "smallmoney":
        fits = -(2**31) <= unscaled < 2**31
    else:
        fits = abs(unscaled) < 10**t.precision
    if not fits:
        raise error(8115, source, t.name)
    return (unscaled + 2**127).to_bytes(16, "big") if t.wide else unscaled


def rescale(unscaled: int, from_scale: int, to_scale: int) -> int:
    """Changes the scale, rounding half away from zero as the server does."""
    if to_scale >= from_scale:
        return unscaled * int(10 ** (to_scale - from_scale))
    divisor = int(10 ** (from_scale - to_scale))
    quotient, rest = divmod(abs(unscaled), divisor)
    quotient += rest * 2 >= divisor
    return quotient if unscaled >= 0 else -quotient


def unscaled_of(value: Decimal) -> tuple[int, int]:
    """(unscaled integer, scale) of a finite Decimal, exactly."""
    sign, digits, exponent = value.as_tuple()
    number = int("".join(map(str, digits)) or "0")
    assert isinstance(exponent, int)
    if exponent > 0:
        number, exponent = number * int(10**exponent), 0
    return (-number if sign else number), -exponent


# Dates and times


def ticks_of(value: dt.datetime | dt.date) -> int:
    """100 ns since 0001-01-01 of a date or a naive datetime."""
    ticks = (value.toordinal() - 1) * TICKS_PER_DAY
    if isinstance(value, dt.datetime):
        ticks += time_ticks(value.time())
    return ticks


def time_ticks(value: dt.time) -> int:
    seconds = value.hour * 3600 + value.minute * 60 + value.second
    return seconds * TICKS_PER_SECOND + value.microsecond * 10


def datetime_of(ticks: int) -> dt.datetime:
    """The naive datetime, cut to microseconds."""
    return dt.datetime(1, 1, 1) + dt.timedelta(
        days=ticks // TICKS_PER_DAY, microseconds=ticks % TICKS_PER_DAY // 10
    )


def round_ticks(ticks: int, scale: int) -> int:
    """Rounds half up to `scale` fraction digits."""
    unit = int(10 ** (7 - scale))
    return (ticks + unit // 2) // unit * unit


def datetime_ticks(ticks: int) -> int:
    """Rounds to 1/300 s and widens again, as `datetime` does."""
    day, rest = divmod(ticks, TICKS_PER_DAY)
    parts = (rest * 3 + 50_000) // 100_000
    return day * TICKS_PER_DAY + (parts * 100_000 + 1) // 3


def fit_ticks(ticks: int, t: SqlType, source: str = "datetime2") -> int:
    """The value as the date type `t` holds it; raises 242 outside its range."""
    if t.name == "date":
        return ticks // TICKS_PER_DAY * TICKS_PER_DAY
    if t.name == "datetime":
        low, ticks = (dt.date(1753, 1, 1).toordinal() - 1) * TICKS_PER_DAY, datetime_ticks(ticks)
        high = _MAX_TICKS
    elif t.name == "smalldatetime":
        minute = 60 * TICKS_PER_SECOND
        # 29.998 seconds and below are rounded down to the nearest minute.
        ticks = (ticks + minute // 2 + 10_000) // minute * minute
        low, high = DATE_1900, DATE_1900 + 65536 * TICKS_PER_DAY
    else:
        low, high, ticks = 0, _MAX_TICKS, round_ticks(ticks, t.scale)
        ticks = min(ticks, _MAX_TICKS - int(10 ** (7 - t.scale)))
    if not low <= ticks < high:
        raise error(242, source, t.name)
    return ticks


def latest_ticks(t: SqlType) -> int:
    """9999-12-31 23:59:59.9999999, cut to the scale of a datetime2."""
    return _MAX_TICKS - int(10 ** (7 - t.scale))


def offset_store(utc_ticks: int, minutes: int) -> bytes:
    if not 0 <= utc_ticks < _MAX_TICKS:
        raise error(242, "datetimeoffset", "datetimeoffset")
    return struct.pack(">qh", utc_ticks, minutes)


def offset_load(value: bytes) -> tuple[int, int]:
    """(UTC ticks, offset in minutes) of a stored datetimeoffset."""
    ticks, minutes = struct.unpack(">qh", value)
    return ticks, minutes


_MOMENT = re.compile(
    r"^\s*(?:(\d{4})-?(\d{2})-?(\d{2}))?(?:(?:^|[T ]\s*)(\d{1,2}):(\d{2})(?::(\d{2})"
    r"(?:[.,](\d{1,9}))?)?)?\s*(Z|[+-]\d{2}:\d{2})?\s*$",
    re.IGNORECASE,
)


def parse_moment(text: str, t: SqlType) -> tuple[int, int, int | None]:
    """(day ticks, time ticks, offset in minutes or None) of a date and time text.

    Takes the ISO forms; a text without a date means 1900-01-01. Raises 241.
    """
    match = _MOMENT.match(text)
    if match is None:
        raise error(241)
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    digits = fraction or ""
    if len(digits) > (3 if t.name in ("datetime", "smalldatetime") else 7):
        raise error(241)
    try:
        date = dt.date(int(year), int(month), int(day)) if year else dt.date(1900, 1, 1)
        clock = dt.time(int(hour or 0), int(minute or 0), int(second or 0))
    except ValueError:
        raise (error(242, "varchar", t.name) if t.name == "datetime" else error(241)) from None
    offset = None
    if zone:
        sign = -1 if zone[0] == "-" else 1
        offset = 0 if zone in "Zz" else sign * (int(zone[1:3]) * 60 + int(zone[4:6]))
    return ticks_of(date), time_ticks(clock) + int(digits.ljust(7, "0")), offset


def from_text_moment(text: str, t: SqlType) -> Stored:
    """A date or time text as the type `t` stores it."""
    day, clock, offset = parse_moment(text, t)
    if t.name == "time":
        return round_ticks(clock, t.scale) % TICKS_PER_DAY
    if t.name == "datetimeoffset":
        minutes = offset or 0
        return offset_store(round_ticks(day + clock, t.scale) - minutes * 600_000_000, minutes)
    if t.name == "datetime" and offset is not None and offset != 0:
        raise error(241)
    return fit_ticks(day + clock, t, "varchar")


# Python values


def guid_store(value: uuid.UUID) -> bytes:
    raw = value.bytes_le
    return bytes([raw[i] for i in _GUID_ORDER])


def guid_load(stored: bytes) -> uuid.UUID:
    raw = bytearray(16)
    for place, i in enumerate(_GUID_ORDER):
        raw[i] = stored[place]
    return uuid.UUID(bytes_le=bytes(raw))


def from_python(value: Any, t: SqlType) -> Stored:
    """The stored form of a Python value for a column of type `t`.

    Takes None, bool, int, float, Decimal, str, bytes, UUID, date, datetime and time. A date or
    time may be text, which keeps 100 ns; hierarchyid is "/1/2/", a geometry is "POINT (1 2)".
    Raises SqlError when the type refuses the value.
    """
    if value is None:
        return None
    return _FROM_PYTHON[t.family](value, t)


def _int_from(value: Any, t: SqlType) -> Stored:
    number = int(bool(value)) if t.name == "bit" else int(value)
    low, high = INT_RANGES[t.name]
    if not low <= number <= high:
        raise error(220, t.name, number)
    return number


def _dec_from(value: Any, t: SqlType) -> Stored:
    exact = Decimal(repr(value)) if isinstance(value, float) else Decimal(value)
    return decimal_store(rescale(*unscaled_of(exact), t.scale), t)


def _float_from(value: Any, t: SqlType) -> Stored:
    number = float(value)
    return struct.unpack("<f", struct.pack("<f", number))[0] if t.name == "real" else number


def _moment_from(value: Any, t: SqlType) -> Stored:
    if isinstance(value, str):
        return from_text_moment(value, t)
    if t.name == "time":
        clock = value.time() if isinstance(value, dt.datetime) else value
        return round_ticks(time_ticks(clock), t.scale) % TICKS_PER_DAY
    if t.name == "datetimeoffset":
        shift = value.utcoffset() or dt.timedelta()
        minutes = int(shift.total_seconds() // 60)
        local = round_ticks(ticks_of(value.replace(tzinfo=None)), t.scale)
        return offset_store(local - minutes * 600_000_000, minutes)
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        raise TypeError(f"{t.name} holds no offset: pass a naive datetime")
    return fit_ticks(ticks_of(value), t)


def _text_from(value: Any, t: SqlType) -> Stored:
    return fit_text(str(value), t)


def fit_text(text: str, t: SqlType, *, cut: bool = False) -> str:
    """Text as the type holds it: encoded for varchar, padded for char; 8152 when too long."""
    if t.name in ("char", "varchar", "text") and not text.isascii():
        codec = "utf-8" if t.collation.endswith("_UTF8") else "cp1252"
        text = text.encode(codec, "replace").decode(codec)
    if t.length > 0 and t.name not in ("text", "ntext"):
        if len(text) > t.length:
            if not cut and text[t.length :].strip(" "):
                raise error(8152)
            text = text[: t.length]
        if t.name in ("char", "nchar"):
            text = text.ljust(t.length)
    return text


def fit_bytes(value: bytes, t: SqlType, *, cut: bool = False) -> bytes:
    if t.name == "timestamp":
        return value[-8:].rjust(8, b"\0")
    if t.length > 0:
        if len(value) > t.length:
            if not cut:
                raise error(8152)
            value = value[: t.length]
        if t.name == "binary":
            value = value.ljust(t.length, b"\0")
    return value


def infer_type(value: Any) -> SqlType:
    """The type that the server would give a Python value in a sql_variant."""
    if isinstance(value, bool):
        return BIT
    if isinstance(value, int):
        return INT if -(2**31) <= value < 2**31 else BIGINT
    if isinstance(value, float):
        return FLOAT
    if isinstance(value, Decimal):
        unscaled, scale = unscaled_of(value)
        return decimal_type(max(len(str(abs(unscaled))), scale, 1), scale)
    if isinstance(value, str):
        return nvarchar(max(len(value), 1))
    if isinstance(value, bytes):
        return SqlType("varbinary", length=max(len(value), 1))
    if isinstance(value, uuid.UUID):
        return GUID
    if isinstance(value, dt.datetime):
        return DATETIME2 if value.tzinfo is None else DATETIMEOFFSET
    if isinstance(value, dt.date):
        return DATE
    if isinstance(value, dt.time):
        return SqlType("time", scale=7)
    raise TypeError(f"no SQL Server type for {type(value).__name__}")


def _variant_from(value: Any, t: SqlType) -> Stored:
    from tests.sandbox.mssql import variant  # it needs this module

    inner = infer_type(value)
    return variant.pack(from_python(value, inner), inner)


_FROM_PYTHON: dict[str, Callable[[Any, SqlType], Stored]] = {
    "int": _int_from,
    "dec": _dec_from,
    "float": _float_from,
    "dt": _moment_from,
    "dto": _moment_from,
    "time": _moment_from,
    "guid": lambda v, t: guid_store(v if isinstance(v, uuid.UUID) else uuid.UUID(str(v))),
    "str": _text_from,
    "xml": _text_from,
    "json": _text_from,
    "bin": lambda v, t: fit_bytes(bytes(v), t),
    "variant": _variant_from,
    "udt": lambda v, t: v if isinstance(v, bytes) else udt.parse(str(v), t.name),
}


def to_python(value: Stored, t: SqlType) -> Any:
    """A stored value as the nearest Python value (times are cut to microseconds)."""
    if value is None:
        return None
    family = t.family
    if t.name == "bit":
        return bool(value)
    if family == "dec":
        return (
            Decimal(decimal_load(value, t)).scaleb(-t.scale)
            if t.scale
            else Decimal(decimal_load(value, t))
        )
    if t.name == "date":
        return datetime_of(value).date()
    if family == "dt":
        return datetime_of(value)
    if family == "time":
        return datetime_of(value).time()
    if family == "dto":
        utc, minutes = offset_load(value)
        zone = dt.timezone(dt.timedelta(minutes=minutes))
        return datetime_of(utc + minutes * 600_000_000).replace(tzinfo=zone)
    if family == "guid":
        return guid_load(value)
    if family == "udt":
        return udt.to_text(value, t.name)
    return value


def with_collation(t: SqlType, collation: str) -> SqlType:
    return replace(t, collation=collation) if t.family == "str" else t
