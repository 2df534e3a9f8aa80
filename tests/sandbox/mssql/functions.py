# ruff: noqa: S608 - the text is a translated expression
"""T-SQL's built-in functions. One that is not here is error 195, as on the server."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import uuid
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from sqlglot import exp

from tests.sandbox.mssql import cdc, types, variant
from tests.sandbox.mssql.convert import convert, text_bytes
from tests.sandbox.mssql.errors import error, unsupported
from tests.sandbox.mssql.expressions import Expr, Sql, const, join
from tests.sandbox.mssql.parser import name_parts, quote
from tests.sandbox.mssql.store import ViewDef
from tests.sandbox.mssql.types import BIGINT, INT, SYSNAME, SqlType, Stored, nvarchar, varchar

if TYPE_CHECKING:
    from tests.sandbox.mssql.compiler import Compiler, Scope
    from tests.sandbox.mssql.store import IndexDef, TableDef

Handler = Callable[["Compiler", "Scope", Sequence[exp.Expression]], Expr]
SCALARS: dict[str, Handler] = {}


def _function(*names: str) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        for name in names:
            SCALARS[name] = handler
        return handler

    return register


def _simple(name: str, fixed: SqlType | None, *accepts: SqlType | None) -> Callable[[Any], Any]:
    """Registers a strict function of values; `accepts` are the types to convert to.

    None among `accepts` takes the argument as it is; `fixed` None gives the first one's type.
    """

    def register(function: Callable[..., Stored]) -> Callable[..., Stored]:
        def handler(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
            operands = [c.expr(arg, scope) for arg in args]
            cast = [
                operand if t is None else c.build.cast(operand, t)
                for operand, t in zip(operands, [*accepts, *[None] * len(operands)], strict=False)
            ]
            return c.build.apply(function, fixed or cast[0].type, *cast)

        SCALARS[name] = handler
        return function

    return register


_TEXT = nvarchar(-1)

# The clock


def _clock(t: SqlType, moment: str) -> Handler:
    def handler(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
        utc, minutes = c.env.clock()
        ticks = utc if moment == "utc" else utc + minutes * 600_000_000
        if t.family == "dto":
            return const(types.offset_store(utc, minutes), t)
        return const(types.fit_ticks(ticks, t), t)

    return handler


SCALARS["SYSDATETIME"] = _clock(types.DATETIME2, "local")
SCALARS["SYSUTCDATETIME"] = _clock(types.DATETIME2, "utc")
SCALARS["GETDATE"] = SCALARS["CURRENT_TIMESTAMP"] = _clock(types.DATETIME, "local")
SCALARS["GETUTCDATE"] = _clock(types.DATETIME, "utc")
SCALARS["SYSDATETIMEOFFSET"] = _clock(types.DATETIMEOFFSET, "local")

_PARTS = {
    "year": "year", "yy": "year", "yyyy": "year", "quarter": "quarter", "qq": "quarter",
    "month": "month", "mm": "month", "m": "month", "day": "day", "dd": "day", "d": "day",
    "week": "week", "wk": "week", "hour": "hour", "hh": "hour", "minute": "minute",
    "mi": "minute", "n": "minute", "second": "second", "ss": "second", "s": "second",
    "millisecond": "millisecond", "ms": "millisecond", "microsecond": "microsecond",
    "mcs": "microsecond", "nanosecond": "nanosecond", "ns": "nanosecond",
    "tzoffset": "tzoffset", "tz": "tzoffset",
}  # fmt: skip
_UNIT_TICKS = {
    "week": 7 * types.TICKS_PER_DAY, "day": types.TICKS_PER_DAY, "hour": 36_000_000_000,
    "minute": 600_000_000, "second": 10_000_000, "millisecond": 10_000, "microsecond": 10,
}  # fmt: skip


def _part(node: exp.Expression) -> str:
    name = node.name.lower()
    if name not in _PARTS:
        raise error(155, name)
    return _PARTS[name]


def _moment_type(operand: Expr) -> SqlType:
    return operand.type if operand.type.family in ("dt", "dto", "time") else types.DATETIME


def _add_months(ticks: int, months: int) -> int:
    day, clock = divmod(ticks, types.TICKS_PER_DAY)
    date = dt.date.fromordinal(day + 1)
    total = date.year * 12 + date.month - 1 + months
    year, month = divmod(total, 12)
    if not 1 <= year <= 9999:
        raise error(517, "datetime")
    last = (
        (dt.date(year + (month == 11), (month + 1) % 12 + 1, 1) - dt.timedelta(1)).day
        if (year < 9999 or month < 11)
        else 31
    )
    return types.ticks_of(dt.date(year, month + 1, min(date.day, last))) + clock


@_function("DATEADD")
def _dateadd(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    part = _part(args[0])
    number = c.build.cast(c.expr(args[1], scope), BIGINT)
    moment = c.expr(args[2], scope)
    t = _moment_type(moment)
    moment = c.build.cast(moment, t)

    def run(count: int, value: Stored) -> Stored:
        ticks, minutes = types.offset_load(value) if t.family == "dto" else (value, 0)
        if part in ("year", "quarter", "month"):
            ticks = _add_months(ticks, count * {"year": 12, "quarter": 3, "month": 1}[part])
        elif part == "nanosecond":
            ticks += count // 100
        else:
            ticks += count * _UNIT_TICKS[part]
        if t.family == "time":
            return ticks % types.TICKS_PER_DAY
        if t.family == "dto":
            return types.offset_store(ticks, minutes)
        if not 0 <= ticks < types._MAX_TICKS:
            raise error(517, t.name)
        return types.fit_ticks(ticks, t)

    return c.build.apply(run, t, number, moment)


def _datediff(big: bool) -> Handler:
    def handler(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
        part = _part(args[0])
        sides = [
            c.build.cast(c.expr(arg, scope), types.DATETIMEOFFSET)
            if c.expr(arg, scope).type.family == "dto"
            else c.build.cast(c.expr(arg, scope), types.DATETIME2)
            for arg in args[1:3]
        ]

        def boundary(value: Stored) -> int:
            ticks = types.offset_load(value)[0] if isinstance(value, bytes) else value
            if part in ("year", "quarter", "month"):
                date = types.datetime_of(ticks)
                months = date.year * 12 + date.month - 1
                return months // {"year": 12, "quarter": 3, "month": 1}[part]
            if part == "nanosecond":
                return int(ticks * 100)
            if part == "week":
                return int((ticks // types.TICKS_PER_DAY + 1) // 7)
            return int(ticks // _UNIT_TICKS[part])

        def run(start: Stored, end: Stored) -> Stored:
            result = boundary(end) - boundary(start)
            if not big and not -(2**31) <= result < 2**31:
                raise error(535)
            return result

        return c.build.apply(run, BIGINT if big else INT, *sides)

    return handler


SCALARS["DATEDIFF"] = _datediff(False)
SCALARS["DATEDIFF_BIG"] = _datediff(True)


def _datepart_value(part: str, ticks: int, minutes: int) -> int:
    local = ticks + minutes * 600_000_000
    moment = types.datetime_of(local)
    if part == "tzoffset":
        return minutes
    if part == "quarter":
        return (moment.month + 2) // 3
    if part == "week":
        return int(moment.strftime("%U")) + 1
    fraction = local % types.TICKS_PER_SECOND
    fine = {"millisecond": 10_000, "microsecond": 10}
    if part in fine:
        return fraction // fine[part]
    return fraction * 100 if part == "nanosecond" else int(getattr(moment, part))


def _datepart(fixed: str | None) -> Handler:
    def handler(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
        part = fixed or _part(args[0])
        operand = c.expr(args[0 if fixed else 1], scope)
        if operand.type.family == "dto":
            return c.build.apply(
                lambda v: _datepart_value(part, *types.offset_load(v)), INT, operand
            )
        moment = c.build.cast(operand, types.DATETIME2)
        return c.build.apply(lambda v: _datepart_value(part, v, 0), INT, moment)

    return handler


SCALARS["DATEPART"] = _datepart(None)
for _name in ("YEAR", "MONTH", "DAY"):
    SCALARS[_name] = _datepart(_name.lower())


def shift_zone(minutes: int) -> Callable[[Stored], Stored]:
    return lambda value: types.offset_store(types.offset_load(value)[0], minutes)


@_function("SWITCHOFFSET", "TODATETIMEOFFSET")
def _zones(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    zone = c.expr(args[1], scope)
    if not zone.constant:
        raise unsupported("a time zone that is not constant")
    text = str(zone.value)
    if zone.type.family == "int":
        minutes = int(zone.value)
    else:
        sign = -1 if text.startswith("-") else 1
        minutes = sign * (int(text[1:3]) * 60 + int(text[4:6]))
    operand = c.expr(args[0], scope)
    t = types.DATETIMEOFFSET
    if operand.type.family == "dto":
        return c.build.apply(shift_zone(minutes), t, operand)
    local = c.build.cast(operand, types.DATETIME2)
    return c.build.apply(
        lambda v: types.offset_store(v - minutes * 600_000_000, minutes), t, local
    )


# Branches


@_function("COALESCE")
def _coalesce(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    operands, t = c.build.unify([c.expr(arg, scope) for arg in args])
    if all(operand.constant for operand in operands):
        return const(next((o.value for o in operands if o.value is not None), None), t)
    text = join(", ", [operand.sql for operand in operands])
    return Expr(Sql(f"coalesce({text.text})", text.args), t, all(o.nullable for o in operands))


@_function("ISNULL")
def _isnull(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    first, second = (c.expr(arg, scope) for arg in args)
    t = second.type if first.untyped else first.type
    second = c.build.cast(second, t)
    if first.constant:
        return const(second.value if first.value is None else first.value, t)
    text = join(", ", [first.sql, second.sql])
    return Expr(Sql(f"coalesce({text.text})", text.args), t, first.nullable and second.nullable)


@_function("NULLIF")
def _nullif(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    first, second = (c.expr(arg, scope) for arg in args)
    same = c.build.compare(first, "=", second)
    text = join(" ", [Sql("CASE WHEN"), same, Sql("THEN NULL ELSE"), first.sql, Sql("END")])
    return Expr(Sql(f"({text.text})", text.args), first.type)


@_function("IIF")
def _iif(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    return c.case([(c.condition(args[0], scope), c.expr(args[1], scope))], c.expr(args[2], scope))


# Text

_simple("LEN", INT, _TEXT)(lambda s: len(s.rstrip(" ").encode("utf-16-le", "surrogatepass")) // 2)
_simple("UPPER", None, None)(lambda s: s.upper())
_simple("LOWER", None, None)(lambda s: s.lower())
_simple("LTRIM", None, None)(lambda s: s.lstrip(" "))
_simple("RTRIM", None, None)(lambda s: s.rstrip(" "))
_simple("TRIM", None, None)(lambda s: s.strip(" "))
_simple("LEFT", None, None, INT)(lambda s, n: s[:n])
_simple("RIGHT", None, None, INT)(lambda s, n: s[-n:] if n else "")
_simple("REVERSE", None, None)(lambda s: s[::-1])
_simple("REPLICATE", _TEXT, None, INT)(lambda s, n: s * n)
_simple("SPACE", varchar(8000), INT)(lambda n: " " * n)
_simple("CHAR", varchar(1), INT)(lambda n: bytes([n]).decode("cp1252", "replace"))
_simple("NCHAR", nvarchar(1), INT)(chr)
_simple("UNICODE", INT, _TEXT)(lambda s: ord(s[0]) if s else None)
_simple("ASCII", INT, varchar(-1))(lambda s: s.encode("cp1252", "replace")[0] if s else None)
_simple("QUOTENAME", nvarchar(258), _TEXT)(quote)
_simple("ISJSON", INT, _TEXT)(lambda s: int(s.strip()[:1] in ("{", "[")))


@_simple("REPLACE", None, None, _TEXT, _TEXT)
def _replace(text: str, old: str, new: str) -> str:
    return re.sub(re.escape(old), lambda _: new, text, flags=re.IGNORECASE) if old else text


@_simple("CHARINDEX", INT, _TEXT, _TEXT, INT)
def _charindex(wanted: str, text: str, start: int = 1) -> int:
    return text.lower().find(wanted.lower(), max(start - 1, 0)) + 1 if wanted else 0


@_function("DATALENGTH")
def _datalength(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    from tests.sandbox.mssql import wire

    operand = c.expr(args[0], scope)
    t = operand.type
    big = BIGINT if t.length < 0 else INT
    return c.build.apply(lambda v: len(wire.value_bytes(v, t)), big, operand)


@_function("SUBSTRING")
def _substring(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    operand = c.expr(args[0], scope)
    start, length = (c.build.cast(c.expr(arg, scope), BIGINT) for arg in args[1:3])
    t = operand.type
    if t.family not in ("str", "bin"):
        raise error(8116, t.name, 1, "substring")
    varying = {"char": "varchar", "text": "varchar", "nchar": "nvarchar", "ntext": "nvarchar"}
    name = "varbinary" if t.family == "bin" else varying.get(t.name, t.name)

    def run(value: Stored, first: int, count: int) -> Stored:
        if count < 0:
            raise error(537)
        return value[max(first - 1, 0) : max(first - 1 + count, 0)]

    return c.build.apply(run, replace(t, name=name), operand, start, length)


# How many characters a value of another type may need as text.
_TEXT_WIDTHS = {
    "bit": 1, "tinyint": 4, "smallint": 6, "int": 12, "bigint": 24, "float": 32, "real": 32,
    "uniqueidentifier": 36,
}  # fmt: skip


def _concatenated_type(c: Compiler, operands: Sequence[Expr]) -> SqlType:
    """https://learn.microsoft.com/sql/t-sql/functions/concat-transact-sql, its table of types."""
    kinds = [operand.type for operand in operands if not operand.untyped]
    large = [t for t in kinds if t.length < 0 and t.family in ("str", "bin", "xml", "json")]
    clr = any(t.family == "udt" for t in kinds)
    national = clr or any(t.national for t in kinds)
    widths = [
        t.length if t.family in ("str", "bin") else _TEXT_WIDTHS.get(t.name, 41) for t in kinds
    ]
    length = -1 if clr or large else min(max(sum(widths), 1), 4000 if national else 8000)
    columns = {o.type.collation for o in operands if o.type.family == "str" and not o.constant}
    if len(columns) > 1 and not national:  # code pages may differ
        raise error(468, *sorted(columns)[:2])
    rules = columns.pop() if len(columns) == 1 else c.env.database.collation
    return nvarchar(length, rules) if national else varchar(length, rules)


def _as_text(c: Compiler, operand: Expr, t: SqlType) -> Expr:
    if operand.untyped:
        return const(None, t)
    return c.build.cast(operand, replace(t, length=-1))


def _limited(text: str, t: SqlType) -> str:
    return text if t.length < 0 else text[: 4000 if t.national else 8000]


@_function("CONCAT")
def _concat(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    if not 2 <= len(args) <= 254:
        raise error(189, "concat", 2, 254)
    operands = [c.expr(arg, scope) for arg in args]
    t = _concatenated_type(c, operands)
    texts = [_as_text(c, operand, t) for operand in operands]

    def run(*values: Stored) -> str:
        return _limited("".join(value for value in values if value is not None), t)

    return c.build.apply(run, t, *texts, strict=False, nullable=False)


@_function("CONCAT_WS")
def _concat_ws(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    """https://learn.microsoft.com/sql/t-sql/functions/concat-ws-transact-sql: without nulls."""
    if not 3 <= len(args) <= 254:
        raise error(189, "concat_ws", 3, 254)
    operands = [c.expr(arg, scope) for arg in args]
    between = operands[0].type.length if operands[0].type.family == "str" else 0
    t = _concatenated_type(c, operands)
    if t.length > 0:
        longest = t.length + max(between, 0) * (len(args) - 2)
        t = replace(t, length=min(longest, 4000 if t.national else 8000))
    texts = [_as_text(c, operand, t) for operand in operands]

    def run(separator: str | None, *values: Stored) -> str:
        return _limited((separator or "").join(v for v in values if v is not None), t)

    return c.build.apply(run, t, *texts, strict=False, nullable=False)


_DIGESTS = {
    "MD5": "md5",
    "SHA": "sha1",
    "SHA1": "sha1",
    "SHA2_256": "sha256",
    "SHA2_512": "sha512",
}


@_function("HASHBYTES")
def _hashbytes(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    """https://learn.microsoft.com/sql/t-sql/functions/hashbytes-transact-sql"""
    name = str(c.constant(args[0], scope)).upper()
    operand = c.expr(args[1], scope)
    t = operand.type
    if operand.untyped or t.family not in ("str", "bin") or t.name in ("text", "ntext", "image"):
        raise error(8116, "NULL" if operand.untyped else t.name, 2, "hashbytes")
    if name not in _DIGESTS:
        raise unsupported(f"HASHBYTES('{name}')")
    make = partial(hashlib.new, _DIGESTS[name], usedforsecurity=False)
    result = SqlType("varbinary", length=8000)
    return c.build.apply(
        lambda v: make(v if t.family == "bin" else text_bytes(v, t)).digest(), result, operand
    )


_ARGUMENTS = 100  # SQLite takes 127


@_function("BINARY_CHECKSUM")
def _binary_checksum(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    """https://learn.microsoft.com/sql/t-sql/functions/binary-checksum-transact-sql: some number
    for the values, since the server's own is not documented."""
    operands = [c.expr(arg, scope) for arg in args]
    checksum = const(0, INT)
    for start in range(0, len(operands), _ARGUMENTS):
        some = operands[start : start + _ARGUMENTS]
        checksum = c.build.apply(_checksum, INT, checksum, *some, strict=False, nullable=False)
    return checksum


def _checksum(*values: Stored) -> int:
    number = zlib.crc32(repr(values).encode("utf-8", "surrogatepass"))
    return number - (1 << 32) if number >> 31 else number


@lru_cache(maxsize=256)
def like_pattern(pattern: str, escape: str, ignore_case: bool) -> re.Pattern[str]:
    """LIKE's %, _, [a-z] and [^a] as a regular expression."""
    parts, i = [], 0
    while i < len(pattern):
        char = pattern[i]
        i += 1
        if escape and char == escape and i < len(pattern):
            parts.append(re.escape(pattern[i]))
            i += 1
        elif char == "%":
            parts.append(".*")
        elif char == "_":
            parts.append(".")
        elif char == "[" and "]" in pattern[i + 1 :]:
            end = pattern.index("]", i + 1)
            inside = pattern[i:end].replace("\\", "\\\\").replace("[", "\\[")
            parts.append(f"[{inside}]")
            i = end + 1
        else:
            parts.append(re.escape(char))
    flags = re.DOTALL | (re.IGNORECASE if ignore_case else 0)
    return re.compile("".join(parts) + " *", flags)


# Numbers

_simple("ABS", None, None)(abs)
_simple("SIGN", None, None)(lambda v: (v > 0) - (v < 0))
_simple("FLOOR", types.FLOAT, types.FLOAT)(lambda v: float(int(v // 1)))
_simple("CEILING", types.FLOAT, types.FLOAT)(lambda v: float(-int(-v // 1)))
_simple("SQRT", types.FLOAT, types.FLOAT)(lambda v: v**0.5)
_simple("POWER", types.FLOAT, types.FLOAT, types.FLOAT)(lambda a, b: a**b)


@_function("ROUND")
def _round(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    operand, digits = c.expr(args[0], scope), c.expr(args[1], scope)
    t = operand.type
    if t.family == "dec":

        def run(value: Stored, places: int) -> Stored:
            cut = types.rescale(types.decimal_load(value, t), t.scale, places)
            return types.decimal_store(types.rescale(cut, places, t.scale), t)

        return c.build.apply(run, t, operand, digits)
    return c.build.apply(round, types.FLOAT, c.build.cast(operand, types.FLOAT), digits)


# The server, its databases and objects

_SERVER_PROPERTIES: dict[str, object] = {
    "productversion": "16.0.4135.4", "productlevel": "RTM", "productmajorversion": "16",
    "edition": "Developer Edition (64-bit)", "engineedition": 3, "servername": "sandbox",
    "machinename": "sandbox", "isintegratedsecurityonly": 0, "issingleuser": 0,
    "isclustered": 0, "ishadrenabled": 0, "productupdatelevel": "CU14",
}  # fmt: skip


@_function("SERVERPROPERTY")
def _serverproperty(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    name = str(c.constant(args[0], scope)).lower()
    if name == "collation":
        return _variant(c.env.database.collation)
    return _variant(_SERVER_PROPERTIES.get(name))


def _variant(value: object) -> Expr:
    return const(types.from_python(value, types.VARIANT), types.VARIANT)


@_function("DATABASEPROPERTYEX")
def _databasepropertyex(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    database = c.env.find_database(str(c.constant(args[0], scope)))
    name = str(c.constant(args[1], scope)).lower()
    if database is None:
        return _variant(None)
    values: dict[str, object] = {
        "collation": database.collation,
        "status": "ONLINE",
        "updateability": "READ_ONLY" if database.read_only else "READ_WRITE",
        "useraccess": "MULTI_USER",
        "recovery": "FULL",
    }
    return _variant(values.get(name))


@_function("DB_NAME")
def _db_name(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    if not args:
        return const(c.env.database.name, nvarchar(128))
    number = c.constant(args[0], scope)
    names = [d.name for d in c.env.databases if d.id == number]
    return const(names[0] if names else None, nvarchar(128))


@_function("DB_ID")
def _db_id(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    name = str(c.constant(args[0], scope)) if args else c.env.database.name
    found = c.env.find_database(name)
    return const(found.id if found else None, INT)


def _text_fact(get: Callable[[Compiler], str | None]) -> Handler:
    return lambda c, scope, args: const(get(c), nvarchar(128))


for _name in ("SUSER_SNAME", "SUSER_NAME", "ORIGINAL_LOGIN", "SYSTEM_USER"):
    SCALARS[_name] = _text_fact(lambda c: c.env.user)
for _name in ("USER_NAME", "CURRENT_USER", "SESSION_USER", "USER"):
    SCALARS[_name] = _text_fact(lambda c: c.env.user)
SCALARS["HOST_NAME"] = _text_fact(lambda c: c.env.host)
SCALARS["APP_NAME"] = _text_fact(lambda c: c.env.application)
SCALARS["ORIGINAL_DB_NAME"] = _text_fact(lambda c: c.env.database.name)
SCALARS["XACT_STATE"] = lambda c, scope, args: const(
    int(c.env.transaction_count > 0), SqlType("smallint")
)
SCALARS["HAS_DBACCESS"] = lambda c, scope, args: const(
    int(c.env.find_database(str(c.constant(args[0], scope))) is not None), INT
)


_FIXED_ROLES = {
    "public", "db_owner", "db_accessadmin", "db_securityadmin", "db_ddladmin", "db_backupoperator",
    "db_datareader", "db_datawriter", "db_denydatareader", "db_denydatawriter",
}  # fmt: skip


@_function("IS_MEMBER", "IS_ROLEMEMBER")
def _is_member(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    """Whether the login is in a role of the database; NULL where there is no such role."""
    if len(args) > 1:
        raise unsupported("IS_ROLEMEMBER of another user")
    own = {role.lower() for role in c.env.database.roles}
    gating = {(one.role or "").lower() for one in c.env.store.capture.instances}
    name = str(c.constant(args[0], scope)).lower()
    if name not in _FIXED_ROLES | own | gating:
        return const(None, INT)
    return const(int(c.env.privileged or name == "public" or name in own), INT)


@_function("NEWID")
def _newid(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    c.build.functions.append(lambda: types.guid_store(uuid.uuid4()))
    return Expr(Sql(f"tsql({len(c.build.functions) - 1})"), types.GUID, nullable=False)


@_function("OBJECT_ID")
def _object_id(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    wanted = str(c.constant(args[1], scope)).strip().upper() if len(args) > 1 else ""

    def find(name: str) -> int | None:
        parts = name_parts(name)
        schema = parts[-2] if len(parts) > 1 and parts[-2] else "dbo"
        if len(parts) > 2 and parts[0].lower() != c.env.database.name.lower():
            return None
        table = c.env.store.find_object(schema, parts[-1])
        if table is not None:
            other = wanted not in ("", "V" if isinstance(table, ViewDef) else "U")
            return None if table.hidden or other else table.id
        if schema.lower() == "cdc" and (function := c.env.store.capture.function(parts[-1])):
            return function[0] if wanted in ("", "IF") else None
        for owner, index in _constraints(c):
            if owner.schema.lower() == schema.lower() and index.name.lower() == parts[-1].lower():
                return index.constraint_id
        return None

    return c.build.apply(find, INT, c.build.cast(c.expr(args[0], scope), _TEXT), nullable=True)


def _constraints(c: Compiler) -> list[tuple[TableDef, IndexDef]]:
    return [
        (table, index)
        for table in c.env.store.tables.values()
        for index in table.indexes
        if index.constraint and not table.hidden
    ]


def _by_id(get: Callable[[Compiler, int], str | None]) -> Handler:
    def handler(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
        if not args:
            return const(get(c, 1), SYSNAME)
        operand = c.build.cast(c.expr(args[0], scope), INT)
        return c.build.apply(lambda number: get(c, number), SYSNAME, operand, nullable=True)

    return handler


def _table_by_id(c: Compiler, number: int) -> tuple[str, str] | None:
    for table in c.env.store.objects():
        if table.id == number and not table.hidden:
            return table.schema, table.name
    return None


SCALARS["SCHEMA_NAME"] = _by_id(
    lambda c, n: next((name for i, name in c.env.store.schemas.values() if i == n), None)
)
SCALARS["OBJECT_NAME"] = _by_id(lambda c, n: (_table_by_id(c, n) or (None, None))[1])
SCALARS["OBJECT_SCHEMA_NAME"] = _by_id(lambda c, n: (_table_by_id(c, n) or (None, None))[0])


@_function("TYPE_NAME")
def _type_name(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    from tests.sandbox.mssql import catalogue

    names = {catalogue._USER_TYPE_IDS.get(n, i): n for n, i in catalogue._TYPE_IDS.items()}
    operand = c.build.cast(c.expr(args[0], scope), INT)
    return c.build.apply(names.get, SYSNAME, operand, nullable=True)


@_function("SCHEMA_ID")
def _schema_id(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    name = str(c.constant(args[0], scope)) if args else "dbo"
    found = c.env.store.schemas.get(c.env.store.fold(name))
    return const(found[0] if found else None, INT)


@_function("OBJECTPROPERTY", "OBJECTPROPERTYEX")
def _objectproperty(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    name = str(c.constant(args[1], scope)).lower()

    def find(number: int) -> int | None:
        table = next((t for t in c.env.store.objects() if t.id == number), None)
        if table is None:
            keys = [index for _, index in _constraints(c) if index.constraint_id == number]
            facts = {"isprimarykey", "isuniquecnst", "isconstraint"}
            if not keys or name not in facts:
                return 0 if keys else None
            return int(name == "isconstraint" or keys[0].primary == (name == "isprimarykey"))
        return {
            "istable": int(not isinstance(table, ViewDef)),
            "isusertable": int(not isinstance(table, ViewDef)),
            "ismsshipped": int(table.shipped),
            "isview": int(isinstance(table, ViewDef)),
            "tablehasprimarykey": int(table.primary_key is not None),
            "isprimarykey": 0,
            "isuniquecnst": 0,
            "tablehasidentity": int(any(column.identity for column in table.columns)),
        }.get(name)

    return c.build.apply(find, INT, c.build.cast(c.expr(args[0], scope), INT), nullable=True)


@_function("COLUMNPROPERTY")
def _columnproperty(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    wanted = str(c.constant(args[2], scope)).lower()

    def find(number: int, column_name: str) -> int | None:
        table = next((t for t in c.env.store.objects() if t.id == number), None)
        if table is None:
            return None
        for place, column in enumerate(table.columns, 1):
            if column.name.lower() == column_name.lower():
                return {
                    "iscomputed": int(column.computed is not None),
                    "isidentity": int(column.identity),
                    "allowsnull": int(column.nullable),
                    "ordinal": place,
                    "columnid": column.id,
                    "generatedalwaystype": column.generated,
                    "ishidden": int(column.hidden),
                }.get(wanted)
        return None

    operands = [
        c.build.cast(c.expr(args[0], scope), INT),
        c.build.cast(c.expr(args[1], scope), _TEXT),
    ]
    return c.build.apply(find, INT, *operands, nullable=True)


@_function("IDENT_CURRENT")
def _ident_current(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    def find(name: str) -> int | None:
        parts = name_parts(name)
        schema = parts[-2] if len(parts) > 1 else "dbo"
        table = c.env.store.find(schema, parts[-1])
        if table is None or not any(column.identity for column in table.columns):
            return None
        return c.env.store.last_identity(table)

    found = c.build.apply(find, BIGINT, c.build.cast(c.expr(args[0], scope), _TEXT), nullable=True)
    return c.build.cast(found, SqlType("numeric", precision=38))


@_function("HAS_PERMS_BY_NAME")
def _has_perms(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    permission = str(c.constant(args[2], scope)).upper()
    if str(c.constant(args[1], scope)).upper() == "DATABASE":
        return const(int(c.env.database.unmask or permission != "UNMASK"), INT)
    operands = [c.expr(args[0], scope), *(c.expr(arg, scope) for arg in args[3:4])]

    @lru_cache(maxsize=1)  # a statement asks for one column of a table after the other
    def table_of(name: str) -> TableDef | None:
        parts = name_parts(name)
        schema = parts[-2] if len(parts) > 1 else "dbo"
        return c.env.store.find_object(schema, parts[-1])

    def find(name: str, column: str | None = None) -> int | None:
        parts = name_parts(name)
        schema = parts[-2] if len(parts) > 1 else "dbo"
        table = table_of(name)
        if table is None:
            function = c.env.store.capture.function(parts[-1]) if schema == "cdc" else None
            return int(cdc.may_call(c, function[1])) if function else None
        if permission == "UNMASK":
            return int(c.env.database.unmask)
        denied = column is not None and table.column(column).denied
        return int(permission not in table.denied and not denied)

    texts = [c.build.cast(operand, _TEXT) for operand in operands]
    return c.build.apply(find, INT, *texts, nullable=True)


@_function("SQL_VARIANT_PROPERTY")
def _variant_property(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    """https://learn.microsoft.com/sql/t-sql/functions/sql-variant-property-transact-sql"""
    wanted = str(c.constant(args[1], scope)).lower()
    operand = c.expr(args[0], scope)

    def find(value: Stored) -> Stored:
        t = variant.unpack(value)[1] if operand.type.family == "variant" else operand.type
        facts = {
            "basetype": t.name,
            "precision": t.precision,
            "scale": t.scale,
            "maxlength": t.length,
            "collation": t.collation or None,
        }
        return types.from_python(facts.get(wanted), types.VARIANT)

    return c.build.apply(find, types.VARIANT, operand, nullable=True)


@_function("CONNECTIONPROPERTY", "SESSIONPROPERTY")
def _connectionproperty(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    name = str(c.constant(args[0], scope)).lower()
    facts: dict[str, object] = {
        "net_transport": "TCP",
        "protocol_type": "TSQL",
        "auth_scheme": "SQL",
    }
    return _variant(facts.get(name))


# Versions of rows

_ROWVERSION = SqlType("binary", length=8)
SCALARS["MIN_ACTIVE_ROWVERSION"] = lambda c, scope, args: const(
    c.env.store.min_active_rowversion(), _ROWVERSION
)
SCALARS["CHANGE_TRACKING_CURRENT_VERSION"] = lambda c, scope, args: (
    Expr(Sql("(SELECT v FROM ct_version)"), BIGINT)
    if c.env.database.tracking
    else const(None, BIGINT)
)


@_function("CHANGE_TRACKING_MIN_VALID_VERSION")
def _min_valid(c: Compiler, scope: Scope, args: Sequence[exp.Expression]) -> Expr:
    operand = c.build.cast(c.expr(args[0], scope), INT)
    text = f"(SELECT min_v FROM ct_tables WHERE id = {operand.sql.text})"
    return Expr(Sql(text, operand.sql.args), BIGINT)


# Variables of the server: @@NAME


def global_variable(c: Compiler, name: str) -> Expr:
    env = c.env
    facts: dict[str, tuple[Stored, SqlType]] = {
        "VERSION": (env.version, nvarchar(300)),
        "SPID": (env.spid, SqlType("smallint")),
        "TRANCOUNT": (env.transaction_count, INT),
        "ROWCOUNT": (env.last_count, INT),
        "ERROR": (0, INT),
        "SERVERNAME": ("sandbox", nvarchar(128)),
        "LANGUAGE": ("us_english", nvarchar(128)),
        "LOCK_TIMEOUT": (env.lock_timeout, INT),
        "DBTS": (env.store.last_rowversion, SqlType("varbinary", length=8)),
        "MICROSOFTVERSION": (0x10000000, INT),
        "MAX_PRECISION": (38, SqlType("tinyint")),
        "TEXTSIZE": (2**31 - 1, INT),
        "DATEFIRST": (7, SqlType("tinyint")),
        "OPTIONS": (5496, INT),
        "NESTLEVEL": (0, INT),
    }
    if name.upper() not in facts:
        raise error(137, "@@" + name)
    return const(*facts[name.upper()])


# Methods of the CLR types


def method(c: Compiler, target: Expr, name: str, args: Sequence[exp.Expression]) -> Expr:
    """`target.Name()`; names of CLR methods are case-sensitive."""
    t = target.type
    if t.family != "udt":
        raise error(258, name, t.name)
    text = {"ToString", "STAsText"} if t.name != "hierarchyid" else {"ToString"}
    if name in text:
        return c.build.apply(
            lambda v: convert(v, t, _TEXT),
            replace(_TEXT, length=-1 if t.name != "hierarchyid" else 4000),
            target,
        )
    if name == "GetLevel" and t.name == "hierarchyid":
        return c.build.apply(
            lambda v: convert(v, t, _TEXT).count("/") - 1, SqlType("smallint"), target
        )
    raise error(6506, name, t.name)


def property_of(c: Compiler, target: Expr, name: str) -> Expr:
    """`target.Name`, without parentheses: the spatial reference of a shape."""
    if name != "STSrid" or target.type.name == "hierarchyid":
        raise error(6506, name, target.type.name)
    return c.build.apply(lambda v: int.from_bytes(v[:4], "little"), INT, target)
