"""The types of SQL Server: how each is read, stored, and compared with a saved position.

Where the driver would round or cut a value, or fail, the server converts it to text.
https://learn.microsoft.com/sql/t-sql/functions/cast-and-convert-transact-sql

Other types are read as text, too, where their native format would not be cheaper if row_decoder
decoded it. CPU of a value, from its bytes up to the SDK's sink, native to text: 1.13 to 1.27 for
decimal and money, 0.99 for date, 1.04 to 1.08 for datetime, datetime2 and smalldatetime, 0.96 for
datetimeoffset, 1.8 for time, 1.5 for uniqueidentifier. Most of it is the SDK's, in both cases; and
text is parsed by one function in C, while a native value is put together from its parts in Python.
"""

import re
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import Any

from shared.rest import parse_json
from shared.rows import decimal


@dataclass(frozen=True, slots=True)
class ColumnInfo:
    """What INFORMATION_SCHEMA.COLUMNS says of a column's type. Lengths are in characters or
    bytes, -1 for max; ``fraction``: digits of a second."""

    name: str
    length: int | None = None
    precision: int | None = None
    scale: int | None = None
    fraction: int | None = None
    collation: str | None = None


@dataclass(frozen=True)
class TypeMapping:
    """How a type is handled.

    type       the type of the SDK, or a function that derives it from ColumnInfo
    select     the expression that reads column {0}; its text fits into {text}
    convert    converts a value that was read to one of the SDK; raises ValueError, OverflowError
               or InvalidRecord if there is none
    compare    the expression that converts the text of a position, {0}, to a value of the column's
               own type {type}, so that an index serves and the column's rules of comparison hold;
               None: the type cannot be part of a position
    text       converts a value that was read to that text
    parameter  converts that text to the parameter that is sent
    first      the earliest moment, for types that can tell when a row changed
    """

    type: Any
    select: str = "{0}"
    convert: Callable[[Any], Any] | None = None
    compare: str | None = "CAST({0} AS {type})"
    text: Callable[[Any], str] = str
    parameter: Callable[[str], Any] = str
    first: str | None = None

    def sdk_type(self, info: ColumnInfo) -> Any:
        return self.type(info) if callable(self.type) else self.type


def _microseconds(text: str) -> str:
    """A moment with six digits behind the point, or without a point: the destination has
    microseconds, and Python 3.10 reads no other fractions but milliseconds."""
    return f"{text:0<26}"[:26] if len(text) > 20 else text


def _parse(text: str) -> datetime:
    return datetime.fromisoformat(_microseconds(text))


# From Python 3.11 on it reads any number of digits, and cuts those behind the sixth.
_moment = datetime.fromisoformat if sys.version_info >= (3, 11) else _parse


_OFFSET = re.compile(r" ([+-])(\d\d):(\d\d)")  # ahead of UTC


def _instant(text: str) -> datetime:
    """For example of "2024-01-01 00:00:00.1234567 +02:00"."""
    # Python makes a zone of its own for each time that it reads, unless it is UTC.
    return datetime.fromisoformat(f"{_microseconds(text[:-7])}+00:00") - _offset(text[-7:])


@lru_cache(maxsize=2048)  # more than there are: minutes up to 14 hours
def _offset(text: str) -> timedelta:
    if not (found := _OFFSET.fullmatch(text)):
        raise ValueError
    sign, hours, minutes = found.groups()
    ahead = timedelta(hours=int(hours), minutes=int(minutes))
    return -ahead if sign == "-" else ahead


def _hex(value: bytes) -> str:
    return f"0x{value.hex()}"


def _double(text: str) -> str:
    (value,) = struct.unpack(">d", bytes.fromhex(text[2:]))
    return repr(value).removesuffix(".0")


def _single(text: str) -> str:
    """As few digits as tell the number from all others of its type; nine always do."""
    raw = bytes.fromhex(text[2:])
    (value,) = struct.unpack(">f", raw)
    texts = (f"{value:.{digits}g}" for digits in range(1, 9))
    return next((t for t in texts if struct.pack(">f", float(t)) == raw), f"{value:.9g}")


def _iso(text: str) -> str:
    """A moment as the server writes it, in ISO 8601: fractions of a second without zeros."""
    moment, *offset = re.split(r" (?=[+-]\d\d:\d\d$)", text)
    whole, point, fraction = moment.partition(".")
    fraction = fraction.rstrip("0")
    return whole.replace(" ", "T") + (point + fraction if fraction else "") + "".join(offset)


# How the text of a sql_variant is converted, by its base type; other texts stay as they are.
_OF_BASE_TYPE: dict[str, Callable[[str], str]] = {
    "float": _double,
    "real": _single,
    **dict.fromkeys(
        ("datetime", "smalldatetime", "datetime2", "datetimeoffset", "time", "date"), _iso
    ),
    "uniqueidentifier": str.lower,
}


def _variant(text: str) -> str:
    base_type, _, value = text.partition(":")
    convert = _OF_BASE_TYPE.get(base_type)
    return convert(value) if convert else value


@lru_cache(maxsize=1024)  # columns of one type share it
def _decimal(info: ColumnInfo) -> dict[str, Any]:
    return decimal(info.precision or 18, info.scale or 0)


# Only of datetime and smalldatetime does the server read years, months and days in its own order.
_STYLE_121 = "CONVERT({type}, {0}, 121)"
_WHOLE = {"text": lambda value: str(int(value))}
# The collation comes first: a cast to varchar goes by the code page of what is cast.
_COMPARE_TEXT = "CAST({0} COLLATE {collation} AS {type}) COLLATE {collation}"
_NATIONAL = TypeMapping("STRING", compare=_COMPARE_TEXT)
# The server knows its code pages; the driver decodes UTF-8 as a code page, and fails at odd bytes.
# To decode them here would cost 0.93 of this for 40 characters, and 0.85 for 200, with half the
# bytes on the network; but no codec of Python is known to be the server's for each byte.
_CODED = TypeMapping("STRING", "CONVERT({text}, {0})", compare=_COMPARE_TEXT)
_BYTES = TypeMapping("BINARY", compare="CONVERT({type}, {0}, 1)", text=_hex)
# ToString() alone would lose which coordinates are meant; PostGIS writes them so.
_SHAPE = "N'SRID=' + CONVERT(nvarchar(11), {0}.STSrid) + N';' + {0}.ToString()"
_SPATIAL = TypeMapping("STRING", _SHAPE, compare=None)
# By default CONVERT writes a float with six digits, money with two, and a moment without seconds.
# Style 3 for a float needs SQL Server 2016; any server gives its bytes.
_VARIANT_TYPE = "CONVERT(nvarchar(128), SQL_VARIANT_PROPERTY({0}, 'BaseType'))"
_OF_VARIANT = {
    "float": "CONVERT(varbinary(8), CONVERT(float, {0})), 1",
    "real": "CONVERT(varbinary(4), CONVERT(real, {0})), 1",
    **dict.fromkeys(("money", "smallmoney"), "CONVERT(decimal(19,4), {0})"),
    **dict.fromkeys(("datetime", "smalldatetime"), "CONVERT(datetime, {0}), 121"),
    "date": "CONVERT(date, {0}), 23",
    "datetime2": "CONVERT(datetime2(7), {0}), 121",
    "datetimeoffset": "CONVERT(datetimeoffset(7), {0}), 121",
    "time": "CONVERT(time(7), {0}), 121",
    **dict.fromkeys(("binary", "varbinary"), "CONVERT(varbinary(8000), {0}), 1"),
    # A longer text must be converted to varchar first, which takes the code page of the database.
    **dict.fromkeys(
        ("char", "varchar"),
        "CASE WHEN DATALENGTH({0}) > 4000 THEN CONVERT(nvarchar(max), CONVERT(varchar(8000), {0}))"
        " ELSE CONVERT(nvarchar(4000), {0}) END",
    ),
}
_BRANCHES = " ".join(
    f"WHEN N'{name}' THEN CONVERT(nvarchar(max), {value})" for name, value in _OF_VARIANT.items()
)
_VARIANT = (
    f"{_VARIANT_TYPE} + N':' + CASE {_VARIANT_TYPE} {_BRANCHES} "
    "ELSE CONVERT(nvarchar(4000), {0}) END"
)


def _time(first: str, compare: str = "CAST({0} AS {type})") -> TypeMapping:
    return TypeMapping(
        "NAIVE_DATETIME", "CONVERT(varchar(27), {0}, 121)", _moment, compare, first=first
    )


TYPE_MAPPINGS = {
    "bit": TypeMapping("BOOLEAN", **_WHOLE),  # type: ignore[arg-type]
    "tinyint": TypeMapping("SHORT"),
    "smallint": TypeMapping("SHORT"),
    "int": TypeMapping("INT"),
    "bigint": TypeMapping("LONG"),
    "decimal": TypeMapping(_decimal, "CONVERT(varchar(41), {0})"),
    "numeric": TypeMapping(_decimal, "CONVERT(varchar(41), {0})"),
    "money": TypeMapping(decimal(19, 4), "CONVERT(varchar(41), CONVERT(decimal(19,4), {0}))"),
    "smallmoney": TypeMapping(decimal(10, 4), "CONVERT(varchar(41), CONVERT(decimal(10,4), {0}))"),
    # Below compatibility level 130 the server makes another float of the same text.
    "float": TypeMapping("DOUBLE", text=repr, parameter=float),
    "real": TypeMapping("FLOAT", text=repr, parameter=float),
    "date": TypeMapping(
        "NAIVE_DATE", "CONVERT(varchar(10), {0}, 23)", date.fromisoformat, first="0001-01-01"
    ),
    "datetime": _time("1753-01-01 00:00:00", _STYLE_121),
    "datetime2": _time("0001-01-01 00:00:00"),
    "smalldatetime": _time("1900-01-01 00:00:00", _STYLE_121),
    "datetimeoffset": TypeMapping(
        "UTC_DATETIME",
        "CONVERT(varchar(34), {0}, 121)",
        _instant,
        first="0001-01-01 00:00:00 +00:00",
    ),
    "time": TypeMapping("STRING", "CONVERT(varchar(16), {0}, 121)", lambda text: text[:15]),
    "uniqueidentifier": TypeMapping("STRING", "CONVERT(varchar(36), {0})", str.lower),
    **dict.fromkeys(("binary", "varbinary", "timestamp", "rowversion"), _BYTES),
    "image": TypeMapping("BINARY", compare=None),
    "xml": TypeMapping("XML", compare=None),
    **dict.fromkeys(("nchar", "nvarchar", "sysname"), _NATIONAL),
    **dict.fromkeys(("char", "varchar"), _CODED),
    "ntext": TypeMapping("STRING", compare=None),
    "text": TypeMapping("STRING", "CONVERT(nvarchar(max), {0})", compare=None),
    "sql_variant": TypeMapping("STRING", _VARIANT, _variant, None),
    **dict.fromkeys(("geometry", "geography"), _SPATIAL),
    "hierarchyid": TypeMapping("STRING", "{0}.ToString()", compare=None),
    "json": TypeMapping("JSON", "CONVERT(nvarchar(max), {0})", parse_json, None),
    "vector": TypeMapping("STRING", "CONVERT(nvarchar(max), {0})", compare=None),
}
UNKNOWN = TypeMapping("STRING", "CONVERT(nvarchar(max), {0})", compare=None)

_SIZED = ("char", "varchar", "nchar", "nvarchar", "binary", "varbinary")
_FRACTIONS = ("datetime2", "datetimeoffset", "time")


def declared(info: ColumnInfo) -> str:
    """The type as it is declared in T-SQL, for example varchar(20) or decimal(18,4)."""
    if info.name in _SIZED:
        length = info.length or (4000 if info.name.startswith("n") else 8000)
        return f"{info.name}({'max' if length < 0 else length})"
    if info.name in ("decimal", "numeric"):
        return f"{info.name}({info.precision or 18},{info.scale or 0})"
    if info.name in _FRACTIONS and info.fraction is not None:
        return f"{info.name}({info.fraction})"
    return {"timestamp": "binary(8)", "rowversion": "binary(8)", "sysname": "nvarchar(128)"}.get(
        info.name, info.name
    )


def text(info: ColumnInfo) -> str:
    """A type that any text of the column fits into."""
    fits = info.length is not None and 0 < info.length <= 4000
    return f"nvarchar({info.length})" if fits else "nvarchar(max)"


_LARGEST_TEXTS = {  # bytes
    "decimal": 41,
    "numeric": 41,
    "money": 30,
    "smallmoney": 30,
    "sql_variant": 2 * 16_100,  # 8,000 bytes in hexadecimal
    "hierarchyid": 4000,
}


_UNLIMITED = ("image", "text", "ntext", "xml", "json", "vector", "geometry", "geography")


def width(info: ColumnInfo) -> int | None:
    """The most bytes that a value takes on the network; None: there is no limit."""
    if info.name in _SIZED:
        per_character = 1 if "binary" in info.name else 2
        return None if not info.length or info.length < 0 else info.length * per_character
    if info.name in _UNLIMITED:
        return None
    return _LARGEST_TEXTS.get(info.name, 36) if info.name in TYPE_MAPPINGS else None
