"""CAST and CONVERT between stored values.

Styles follow https://learn.microsoft.com/sql/t-sql/functions/cast-and-convert-transact-sql.
"""

from __future__ import annotations

import datetime as dt
import re
import struct
import uuid
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from functools import lru_cache

from tests.sandbox.mssql import types, udt, variant
from tests.sandbox.mssql.errors import error, unsupported
from tests.sandbox.mssql.types import SqlType, Stored

_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


def convert(value: Stored, src: SqlType, dst: SqlType, style: int | None = None) -> Stored:
    """`value` of type `src` as type `dst`. Raises the server's conversion errors."""
    if value is None:
        return None
    if src.name == "sql_variant" and dst.name != "sql_variant":
        inner, inner_type = variant.unpack(value)
        return convert(inner, inner_type, dst, style)
    return _TO[dst.family](value, src, dst, style)


def _refuse(src: SqlType, dst: SqlType) -> Stored:
    raise error(529, src.name, dst.name)


def _to_int(value: Stored, src: SqlType, dst: SqlType, style: int | None) -> Stored:
    if src.family in ("str", "xml", "json"):
        number = _parse_int(value, src, dst)
    elif src.family == "dec":
        unscaled = types.decimal_load(value, src)
        number = abs(unscaled) // int(10**src.scale) * (1 if unscaled >= 0 else -1)
        if dst.name == "bit":
            number = int(unscaled != 0)
    elif src.family in ("int", "float"):
        number = int(value)
    elif src.family == "bin":  # the last bytes, as many as the type has
        size = 8 if dst.name == "bit" else INT_SIZE[dst.name]
        signed = dst.name not in ("bit", "tinyint") and len(value) >= size
        number = int.from_bytes(value[-size:], "big", signed=signed)
    else:
        return _refuse(src, dst)
    if dst.name == "bit":
        return int(value != 0) if src.family == "float" else int(number != 0)
    low, high = types.INT_RANGES[dst.name]
    if not low <= number <= high:
        raise error(8115, "expression", dst.name)
    return number


def _parse_int(text: str, src: SqlType, dst: SqlType) -> int:
    stripped = text.strip()
    if dst.name == "bit" and stripped.lower() in ("true", "false"):
        return int(stripped.lower() == "true")
    if not re.fullmatch(r"[+-]?\d+|", stripped):
        if dst.name == "bigint":
            raise error(8114, src.name, dst.name)
        raise error(245, src.name, text, dst.name)
    return int(stripped or "0")


def _to_dec(value: Stored, src: SqlType, dst: SqlType, style: int | None) -> Stored:
    if src.family == "int":
        unscaled, scale = int(value), 0
    elif src.family == "dec":
        unscaled, scale = types.decimal_load(value, src), src.scale
    elif src.family == "float":
        unscaled, scale = types.unscaled_of(Decimal(f"{value:.17g}"))
    elif src.family == "str":
        try:
            text = value.strip()
            if dst.name in ("money", "smallmoney"):
                text = text.replace(",", "").replace("$", "") or "0"
            exact = Decimal(text)
        except InvalidOperation:
            raise error(8114, src.name, "numeric") from None
        unscaled, scale = types.unscaled_of(exact)
    else:
        return _refuse(src, dst)
    return types.decimal_store(types.rescale(unscaled, scale, dst.scale), dst, src.name)


def _to_float(value: Stored, src: SqlType, dst: SqlType, style: int | None) -> Stored:
    if src.family in ("int", "float"):
        number = float(value)
    elif src.family == "dec":
        number = float(Decimal(types.decimal_load(value, src)).scaleb(-src.scale))
    elif src.family == "str":
        try:
            number = float(value.strip() or "0")
        except ValueError:
            raise error(8114, src.name, dst.name) from None
    else:
        return _refuse(src, dst)
    return _to_real(number) if dst.name == "real" else number


def _to_real(number: float) -> float:
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", number))[0]
    except OverflowError:
        raise error(8115, "expression", "real") from None
    return rounded


def _moment(value: Stored, src: SqlType) -> tuple[int, int]:
    """(local ticks, offset minutes) of a date or time value."""
    if src.family == "dto":
        utc, minutes = types.offset_load(value)
        return utc + minutes * 600_000_000, minutes
    if src.family == "time":
        return types.DATE_1900 + value, 0
    return value, 0


def _to_moment(value: Stored, src: SqlType, dst: SqlType, style: int | None) -> Stored:
    if src.family in ("str", "xml", "json"):
        return types.from_text_moment(value, dst)
    if src.family in ("int", "float", "dec") and dst.name in ("datetime", "smalldatetime"):
        days = float(_to_float(value, src, types.FLOAT, None))
        return types.fit_ticks(types.DATE_1900 + round(days * types.TICKS_PER_DAY), dst)
    if src.family not in ("dt", "dto", "time"):
        return _refuse(src, dst)
    local, minutes = _moment(value, src)
    if dst.family == "time":
        return types.round_ticks(local % types.TICKS_PER_DAY, dst.scale) % types.TICKS_PER_DAY
    if dst.family == "dto":
        rounded = types.round_ticks(local, dst.scale)
        return types.offset_store(rounded - minutes * 600_000_000, minutes)
    return types.fit_ticks(local, dst, src.name)


def _to_guid(value: Stored, src: SqlType, dst: SqlType, style: int | None) -> Stored:
    if src.family == "guid":
        return value
    if src.family == "bin":
        return types.guid_store(uuid.UUID(bytes_le=value[:16].ljust(16, b"\0")))
    if src.family != "str":
        return _refuse(src, dst)
    text = value.strip()
    text = text[1:-1] if text[:1] == "{" and text[-1:] == "}" else text[:36]
    if not re.fullmatch(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", text):
        raise error(8169)
    return types.guid_store(uuid.UUID(text))


def _to_str(value: Stored, src: SqlType, dst: SqlType, style: int | None) -> Stored:
    if src.family == "bin" and dst.national and style not in (1, 2):
        text = (value + b"\0" * (len(value) % 2)).decode("utf-16-le", "surrogatepass")
    else:
        text = to_text(value, src, style)
    if 0 < dst.length < len(text):
        if src.family == "guid":
            raise error(8170)
        if src.family in ("dec", "float"):
            raise error(8115, src.name, dst.name)
        if src.family == "int":
            if dst.national:
                raise error(8115, "expression", dst.name)
            text = "*"
    return types.fit_text(text, dst, cut=True)


def _to_markup(value: Stored, src: SqlType, dst: SqlType, style: int | None) -> Stored:
    return to_text(value, src, None) if src.family in ("str", "xml", "json") else _refuse(src, dst)


def _to_bin(value: Stored, src: SqlType, dst: SqlType, style: int | None) -> Stored:
    if src.family in ("bin", "udt"):
        raw = bytes(value)
    elif src.family == "str" and style in (1, 2):
        raw = _parse_hex(value, src, dst, style)
    elif src.family == "str":
        raw = text_bytes(value, src)
    elif src.family == "int":
        raw = int(value).to_bytes(INT_SIZE[src.name], "big", signed=src.name != "tinyint")
        width = dst.length if dst.length > 0 else len(raw)
        raw = raw[-width:].rjust(width, b"\0") if dst.name == "binary" else raw[-width:]
    elif src.family == "guid":
        raw = types.guid_load(value).bytes_le
    elif src.family == "float":
        raw = struct.pack(">f" if src.name == "real" else ">d", value)
    elif src.family in ("dt", "dto", "time", "dec"):
        raw = _typed_bytes(value, src)
        if 0 < dst.length < len(raw) or (dst.name == "binary" and dst.length != len(raw)):
            raise unsupported(f"CAST({src.name} AS {dst})")
    else:
        return _refuse(src, dst)
    return types.fit_bytes(raw, dst, cut=True)


def text_bytes(text: str, t: SqlType) -> bytes:
    """The bytes of a text as its type keeps them: UTF-16, or the code page of its collation."""
    if t.national:
        return text.encode("utf-16-le", "surrogatepass")
    return text.encode("utf-8" if t.collation.endswith("_UTF8") else "cp1252", "replace")


def _typed_bytes(value: Stored, t: SqlType) -> bytes:
    """The bytes of a date, time or decimal as CAST(... AS varbinary(max)) gives them.

    The old types are big-endian; the new ones begin with their scale, and a decimal with
    precision, scale, 0 and its sign, followed by as many words as its digits need.
    """
    if t.name == "datetime":
        day, clock = divmod(value - types.DATE_1900, types.TICKS_PER_DAY)
        return struct.pack(">iI", day, (clock * 3 + 50_000) // 100_000)
    if t.name == "smalldatetime":
        day, clock = divmod(value - types.DATE_1900, types.TICKS_PER_DAY)
        return struct.pack(">HH", day, clock // (60 * types.TICKS_PER_SECOND))
    if t.name in ("money", "smallmoney"):
        return struct.pack(">q" if t.name == "money" else ">i", value)
    if t.family == "dec":
        unscaled = types.decimal_load(value, t)
        words = max((abs(unscaled).bit_length() + 31) // 32, 1)
        head = bytes([t.precision, t.scale, 0, unscaled >= 0])
        return head + abs(unscaled).to_bytes(words * 4, "little")
    from tests.sandbox.mssql import wire

    raw = wire.value_bytes(value, t)
    return raw if t.name == "date" else bytes([t.scale]) + raw


def _parse_hex(text: str, src: SqlType, dst: SqlType, style: int) -> bytes:
    digits = text
    if style == 1:
        if text[:2].lower() != "0x":
            raise error(8114, src.name, dst.name)
        digits = text[2:]
    if not re.fullmatch(r"(?:[0-9A-Fa-f]{2})*", digits):
        raise error(8114, src.name, dst.name)
    return bytes.fromhex(digits)


def _to_variant(value: Stored, src: SqlType, dst: SqlType, style: int | None) -> Stored:
    return value if src.name == "sql_variant" else variant.pack(value, src)


def _to_udt(value: Stored, src: SqlType, dst: SqlType, style: int | None) -> Stored:
    if src.family == "str":
        return udt.parse(value, dst.name)
    return bytes(value) if src.family in ("bin", "udt") else _refuse(src, dst)


_TO: dict[str, Callable[[Stored, SqlType, SqlType, int | None], Stored]] = {
    "int": _to_int,
    "dec": _to_dec,
    "float": _to_float,
    "dt": _to_moment,
    "dto": _to_moment,
    "time": _to_moment,
    "guid": _to_guid,
    "str": _to_str,
    "xml": _to_markup,
    "json": _to_markup,
    "bin": _to_bin,
    "variant": _to_variant,
    "udt": _to_udt,
}
INT_SIZE = {"bit": 1, "tinyint": 1, "smallint": 2, "int": 4, "bigint": 8}


@lru_cache(maxsize=8192)
def _date_text(day: int) -> str:
    return dt.date.fromordinal(day + 1).isoformat()


def text_function(
    src: SqlType, dst: SqlType, style: int | None
) -> Callable[[Stored], Stored] | None:
    """A short cut of `convert` for what large reads convert; None for anything else.

    It gives the same text; only the way through the general tables is saved.
    """
    if dst.name not in ("varchar", "nvarchar") or 0 < dst.length < 41:
        return None
    if src.name in ("decimal", "numeric") and not src.wide and src.scale and style is None:
        places, unit = src.scale, int(10**src.scale)

        def decimal(value: Stored) -> Stored:
            if value is None:
                return None
            whole, rest = divmod(abs(value), unit)
            return f"{'-' if value < 0 else ''}{whole}.{rest:0{places}d}"

        return decimal
    if src.name == "datetime2" and src.scale and style in (121, 126):
        cut = 20 + src.scale
        between = " " if style == 121 else "T"

        def moment(value: Stored) -> Stored:
            if value is None:
                return None
            day, clock = divmod(value, types.TICKS_PER_DAY)
            seconds, fraction = divmod(clock, types.TICKS_PER_SECOND)
            minutes, seconds = divmod(seconds, 60)
            hours, minutes = divmod(minutes, 60)
            text = f"{_date_text(day)}{between}{hours:02d}:{minutes:02d}:{seconds:02d}"
            if not fraction and style == 126:
                return text
            return f"{text}.{fraction:07d}"[:cut]

        return moment
    return None


def to_text(value: Stored, src: SqlType, style: int | None = None) -> str:
    """The text that CONVERT(varchar(max), value, style) gives."""
    if src.name == "sql_variant":
        inner, inner_type = variant.unpack(value)
        return to_text(inner, inner_type, style)
    return _TEXT[src.family](value, src, style)


def decimal_text(unscaled: int, scale: int) -> str:
    digits = str(abs(unscaled)).rjust(scale + 1, "0")
    sign = "-" if unscaled < 0 else ""
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}" if scale else f"{sign}{digits}"


def _dec_text(value: Stored, src: SqlType, style: int | None) -> str:
    unscaled = types.decimal_load(value, src)
    if src.name not in ("money", "smallmoney"):
        return decimal_text(unscaled, src.scale)
    if style in (2, 126):
        return decimal_text(unscaled, 4)
    text = decimal_text(types.rescale(unscaled, 4, 2), 2)
    if style != 1:
        return text
    whole, _, cents = text.partition(".")
    return f"{int(whole):,}.{cents}"


def _float_text(value: Stored, src: SqlType, style: int | None) -> str:
    if style in (1, 2, 3, 126, 128, 129):
        lossless = (8, 9) if src.name == "real" else (16, 17)
        digits = {1: 8, 3: lossless[1]}.get(style, lossless[0])
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa}e{exponent[0]}{int(exponent[1:]):03d}"
    text = f"{value:.6g}"
    mantissa, _, exponent = text.partition("e")
    return f"{mantissa}e{exponent[0]}{int(exponent[1:]):03d}" if exponent else text


def _clock_text(ticks: int, digits: int) -> str:
    seconds, fraction = divmod(ticks, types.TICKS_PER_SECOND)
    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
    return f"{text}.{fraction:07d}"[: 9 + digits] if digits else text


def _offset_text(minutes: int) -> str:
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"


def _digits(src: SqlType) -> int:
    return {"datetime": 3, "smalldatetime": 3, "date": 0}.get(src.name, src.scale)


def _moment_text(value: Stored, src: SqlType, style: int | None) -> str:
    if style in (None, 0, 100):
        style = 0 if src.name in ("datetime", "smalldatetime") else 121
    if style == 127 and src.family == "dto":
        local, minutes = types.offset_load(value)[0], 0
    else:
        local, minutes = _moment(value, src)
    day, clock = divmod(local, types.TICKS_PER_DAY)
    if src.name == "datetime":  # milliseconds are rounded, never carried
        clock = (clock + 5_000) // 10_000 * 10_000
    date = dt.date.fromordinal(day + 1)
    digits = _digits(src)
    if src.family == "time":
        return _clock_text(clock, 0 if style in (8, 108, 120) else digits)
    dates = {
        112: f"{date.year:04d}{date.month:02d}{date.day:02d}",
        101: f"{date.month:02d}/{date.day:02d}/{date.year:04d}",
        103: f"{date.day:02d}/{date.month:02d}/{date.year:04d}",
        104: f"{date.day:02d}.{date.month:02d}.{date.year:04d}",
        111: f"{date.year:04d}/{date.month:02d}/{date.day:02d}",
        23: date.isoformat(),
    }
    if style in dates:
        return dates[style]
    if style in (8, 108):
        return _clock_text(clock, 0)
    if style in (14, 114):
        return _clock_text(clock, digits)
    if src.name == "date":
        return date.isoformat()
    if style == 0:
        hour = clock // types.TICKS_PER_SECOND // 3600
        minute = clock // types.TICKS_PER_SECOND // 60 % 60
        half = "AM" if hour < 12 else "PM"
        return (
            f"{_MONTHS[date.month - 1]} {date.day:2d} {date.year:04d} "
            f"{(hour + 11) % 12 + 1:2d}:{minute:02d}{half}"
        )
    if style in (126, 127):
        shown = digits if clock % types.TICKS_PER_SECOND else 0
        zone = "Z" if style == 127 and src.family == "dto" else _offset_text(minutes)
        tail = zone if src.family == "dto" else ""
        return f"{date.isoformat()}T{_clock_text(clock, shown)}{tail}"
    if style in (20, 120):
        digits = 0
    elif style not in (21, 25, 121):
        raise error(281, style, src.name)
    tail = f" {_offset_text(minutes)}" if src.family == "dto" else ""
    return f"{date.isoformat()} {_clock_text(clock, digits)}{tail}"


def _bin_text(value: Stored, src: SqlType, style: int | None) -> str:
    raw = bytes(value)
    if style in (1, 2):
        return ("0x" if style == 1 else "") + raw.hex().upper()
    return raw.decode("cp1252", "replace")


_TEXT: dict[str, Callable[[Stored, SqlType, int | None], str]] = {
    "int": lambda v, s, _: str(v),
    "dec": _dec_text,
    "float": _float_text,
    "dt": _moment_text,
    "dto": _moment_text,
    "time": _moment_text,
    "guid": lambda v, s, _: str(types.guid_load(v)).upper(),
    "str": lambda v, s, _: v,
    "xml": lambda v, s, _: v,
    "json": lambda v, s, _: v,
    "bin": _bin_text,
    "udt": lambda v, s, _: udt.to_text(v, s.name),
}
