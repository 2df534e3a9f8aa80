"""The bytes of TDS 7.4: packets, tokens, type information and values ([MS-TDS] 2.2)."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tests.sandbox.mssql import types, udt
from tests.sandbox.mssql.collation import DEFAULT, collation
from tests.sandbox.mssql.errors import SqlError, unsupported
from tests.sandbox.mssql.types import SqlType, Stored

# Packet types, 2.2.3.1.1
BATCH, RPC, REPLY, ATTENTION, BULK, TRANSACTION, LOGIN7 = 1, 3, 4, 6, 7, 14, 16
SSPI_MESSAGE, PRELOGIN = 17, 18
HEADER = struct.Struct(">BBHHBB")
HEADER_SIZE = 8
END_OF_MESSAGE = 1

# Tokens, 2.2.7
COLMETADATA, ERROR, INFO, LOGINACK, FEATUREEXTACK = 0x81, 0xAA, 0xAB, 0xAD, 0xAE
ROW, NBCROW, ENVCHANGE, RETURNSTATUS, SSPI = 0xD1, 0xD2, 0xE3, 0x79, 0xED
DONE, DONEPROC, DONEINPROC = 0xFD, 0xFE, 0xFF
DONE_MORE, DONE_ERROR, DONE_INXACT, DONE_COUNT, DONE_ATTN = 0x1, 0x2, 0x4, 0x10, 0x20
DONE_SERVER_ERROR = 0x100

ENV_DATABASE, ENV_LANGUAGE, ENV_PACKET_SIZE, ENV_COLLATION = 1, 2, 4, 7
ENV_BEGIN, ENV_COMMIT, ENV_ROLLBACK, ENV_ROUTING = 8, 9, 10, 20

_FIXED_IDS = {
    "bit": 0x32, "tinyint": 0x30, "smallint": 0x34, "int": 0x38, "bigint": 0x7F, "real": 0x3B,
    "float": 0x3E, "money": 0x3C, "smallmoney": 0x7A, "datetime": 0x3D, "smalldatetime": 0x3A,
}  # fmt: skip
# name -> (type id of the nullable form, size of the value, struct format of the value)
_NULLABLE = {
    "bit": (0x68, 1, "B"),
    "tinyint": (0x26, 1, "B"),
    "smallint": (0x26, 2, "h"),
    "int": (0x26, 4, "i"),
    "bigint": (0x26, 8, "q"),
    "real": (0x6D, 4, "f"),
    "float": (0x6D, 8, "d"),
    "money": (0x6E, 8, "iI"),
    "smallmoney": (0x6E, 4, "i"),
    "datetime": (0x6F, 8, "iI"),
    "smalldatetime": (0x6F, 4, "HH"),
}
_SHORT_IDS = {"varchar": 0xA7, "char": 0xAF, "nvarchar": 0xE7, "nchar": 0xEF, "sysname": 0xE7}
_LONG_IDS = {"text": 0x23, "ntext": 0x63, "image": 0x22}
_TIME_IDS = {"time": 0x29, "datetime2": 0x2A, "datetimeoffset": 0x2B}
_PLP_CHUNK = 8000


@dataclass(frozen=True)
class Column:
    """One column of a result: what COLMETADATA says of it."""

    name: str
    type: SqlType
    nullable: bool = True
    identity: bool = False
    computed: bool = False


# Strings and small parts


def b_varchar(text: str) -> bytes:
    return bytes([len(text.encode("utf-16-le")) // 2]) + text.encode("utf-16-le")


def us_varchar(text: str) -> bytes:
    return struct.pack("<H", len(text.encode("utf-16-le")) // 2) + text.encode("utf-16-le")


def time_size(scale: int) -> int:
    """Bytes of a time with `scale` fraction digits (2.2.5.5.1.8)."""
    return 3 if scale <= 2 else 4 if scale <= 4 else 5


def decimal_size(precision: int) -> int:
    """Bytes of a decimal, its sign included."""
    return 5 if precision <= 9 else 9 if precision <= 19 else 13 if precision <= 28 else 17


# Type information


def _text_length(t: SqlType) -> int:
    """The length field of a short or max type, in bytes."""
    if t.length < 0:
        return 0xFFFF
    return t.length * (2 if t.national else 1)


def type_info(t: SqlType, nullable: bool) -> bytes:
    """TYPE_INFO, 2.2.5.6. A column that cannot be null has the fixed-length form."""
    if t.name in _NULLABLE:
        if not nullable:
            return bytes([_FIXED_IDS[t.name]])
        type_id, size, _ = _NULLABLE[t.name]
        return bytes([type_id, size])
    if t.name in ("decimal", "numeric"):
        type_id = 0x6A if t.name == "decimal" else 0x6C
        return bytes([type_id, decimal_size(t.precision), t.precision, t.scale])
    if t.name in _TIME_IDS:
        return bytes([_TIME_IDS[t.name], t.scale])
    if t.family == "str" or t.name == "json":
        return _text_info(t)
    if t.name in ("binary", "timestamp", "varbinary"):
        type_id = 0xA5 if t.name == "varbinary" else 0xAD
        return struct.pack("<BH", type_id, 0xFFFF if t.length < 0 else t.length)
    if t.name == "image":
        return struct.pack("<BiB", 0x22, 2**31 - 1, 1) + us_varchar("t")
    if t.family == "udt":
        names = b_varchar("") + b_varchar("sys") + b_varchar(t.name)
        size = 892 if t.name == "hierarchyid" else 0xFFFF
        return struct.pack("<BH", 0xF0, size) + names + us_varchar(udt.ASSEMBLIES[t.name])
    return {
        "date": b"\x28",
        "uniqueidentifier": b"\x24\x10",
        "xml": b"\xf1\x00",
        "sql_variant": struct.pack("<Bi", 0x62, 8009),
    }[t.name]


def _text_info(t: SqlType) -> bytes:
    rules = collation(t.collation or DEFAULT)
    assert rules is not None
    if t.name in _LONG_IDS:
        size = 2**31 - 2 if t.national else 2**31 - 1
        return (
            struct.pack("<Bi", _LONG_IDS[t.name], size) + rules.wire() + b"\x01" + us_varchar("t")
        )
    # Without the JSON feature of TDS 8 a json column is announced as nvarchar(max).
    type_id = 0xE7 if t.name == "json" else _SHORT_IDS[t.name]
    return struct.pack("<BH", type_id, _text_length(t)) + rules.wire()


def colmetadata(columns: Sequence[Column]) -> bytes:
    """COLMETADATA, 2.2.7.4."""
    parts = [struct.pack("<BH", COLMETADATA, len(columns))]
    for column in columns:
        flags = column.nullable | (column.identity << 4) | (column.computed << 5) | 0x08
        user_type = 80 if column.type.name == "timestamp" else 0
        parts.append(struct.pack("<IH", user_type, flags))
        parts.append(type_info(column.type, column.nullable))
        parts.append(b_varchar(column.name))
    return b"".join(parts)


# Values


def time_part(ticks: int, scale: int) -> int:
    return ticks // int(10 ** (7 - scale))


def value_bytes(value: Stored, t: SqlType) -> bytes:
    """The bytes of a stored value that is not null, without length."""
    family = t.family
    if t.name in _NULLABLE:
        return struct.pack("<" + _NULLABLE[t.name][2], *_fixed_parts(value, t))
    if family == "dec":
        unscaled = types.decimal_load(value, t)
        size = decimal_size(t.precision) - 1
        return bytes([unscaled >= 0]) + abs(unscaled).to_bytes(size, "little")
    if t.name == "date":
        return int(value // types.TICKS_PER_DAY).to_bytes(3, "little")
    if t.name == "time":
        return time_part(value, t.scale).to_bytes(time_size(t.scale), "little")
    if family in ("dt", "dto"):
        ticks, minutes = types.offset_load(value) if family == "dto" else (value, 0)
        day, clock = divmod(ticks, types.TICKS_PER_DAY)
        raw = time_part(clock, t.scale).to_bytes(time_size(t.scale), "little")
        raw += day.to_bytes(3, "little")
        return raw + (struct.pack("<h", minutes) if family == "dto" else b"")
    if family == "guid":
        return types.guid_load(value).bytes_le
    if family in ("str", "xml", "json"):
        return encode_text(value, t)
    return bytes(value)


def _fixed_parts(value: Stored, t: SqlType) -> tuple[Any, ...]:
    if t.name == "money":
        return value >> 32, value & 0xFFFFFFFF
    if t.name == "datetime":
        return days_1900(value), clock_300(value)
    if t.name == "smalldatetime":
        return days_1900(value), value % types.TICKS_PER_DAY // (60 * types.TICKS_PER_SECOND)
    return (value,)


def days_1900(ticks: int) -> int:
    return (ticks - types.DATE_1900) // types.TICKS_PER_DAY


def clock_300(ticks: int) -> int:
    """1/300 s since midnight."""
    return (ticks % types.TICKS_PER_DAY * 3 + 50_000) // 100_000


def encode_text(text: str, t: SqlType) -> bytes:
    if t.national:
        return text.encode("utf-16-le", "surrogatepass")
    rules = collation(t.collation or DEFAULT)
    assert rules is not None
    return text.encode(rules.codec, "replace")


def value_from(data: bytes, t: SqlType) -> Stored:
    """The stored form of a value's bytes; the reverse of `value_bytes`."""
    family = t.family
    if family == "int":
        return int.from_bytes(data, "little", signed=t.name not in ("bit", "tinyint"))
    if family == "float":
        return struct.unpack("<f" if t.name == "real" else "<d", data)[0]
    if t.name == "money":
        high, low = struct.unpack("<iI", data)
        return (high << 32) | low
    if t.name == "smallmoney":
        return struct.unpack("<i", data)[0]
    if family == "dec":
        unscaled = int.from_bytes(data[1:], "little") * (1 if data[0] else -1)
        return types.decimal_store(unscaled, t)
    if family in ("dt", "dto", "time"):
        return _moment_from(data, t)
    if family == "guid":
        return bytes([data[i] for i in types._GUID_ORDER])
    if family in ("str", "xml", "json"):
        return data.decode("utf-16-le" if t.national else "cp1252", "surrogatepass")
    return data


def _moment_from(data: bytes, t: SqlType) -> Stored:
    if t.name == "datetime":
        days, parts = struct.unpack("<iI", data)
        return types.datetime_ticks(
            types.DATE_1900 + days * types.TICKS_PER_DAY + (parts * 100_000 + 1) // 3
        )
    if t.name == "smalldatetime":
        days, minutes = struct.unpack("<HH", data)
        return types.DATE_1900 + days * types.TICKS_PER_DAY + minutes * 600_000_000
    if t.name == "date":
        return int.from_bytes(data, "little") * types.TICKS_PER_DAY
    size = time_size(t.scale)
    clock = int.from_bytes(data[:size], "little") * int(10 ** (7 - t.scale))
    if t.name == "time":
        return clock
    ticks = int.from_bytes(data[size : size + 3], "little") * types.TICKS_PER_DAY + clock
    if t.name == "datetime2":
        return ticks
    return types.offset_store(ticks, struct.unpack("<h", data[size + 3 :])[0])


# Rows


@dataclass
class PlpOptions:
    """How values of max types are cut: bytes in a chunk, and whether the length is told."""

    chunk: int = _PLP_CHUNK
    unknown_length: bool = False


def plp(data: bytes, options: PlpOptions) -> bytes:
    """A value of a max type in chunks, 2.2.5.2.3."""
    length = 0xFFFFFFFFFFFFFFFE if options.unknown_length else len(data)
    parts = [struct.pack("<Q", length)]
    for start in range(0, len(data), options.chunk):
        piece = data[start : start + options.chunk]
        parts.append(struct.pack("<I", len(piece)))
        parts.append(piece)
    parts.append(b"\0\0\0\0")
    return b"".join(parts)


def is_plp(t: SqlType) -> bool:
    return (
        t.name in ("xml", "json")
        or t.family == "udt"
        or (t.length < 0 and t.name not in _LONG_IDS)
    )


_TEXT_POINTER = b"\x10" + b"sandbox-text-ptr" + b"\0" * 8


@dataclass
class _Piece:
    """How one column is written: `fmt` and `args` for struct, then `tail`, a bytes expression."""

    fmt: str
    args: list[str]
    tail: str = ""
    setup: str = ""


def _piece(i: int, column: Column) -> _Piece:
    """Python source that writes column `i`, whose stored value is the variable v<i>."""
    t, v, e = column.type, f"v{i}", f"e{i}"
    if t.name in _NULLABLE:
        return _fixed_piece(v, column)
    if t.name in ("decimal", "numeric"):
        size = decimal_size(t.precision)
        if not t.wide:
            return _Piece(
                "BB" + ("I" if size == 5 else "Q"), [str(size), f"{v} >= 0", f"abs({v})"]
            )
        return _Piece(f"B{size}s", [str(size), f"value_bytes({v}, t{i})"])
    if t.name == "date":
        days = f"{v} // {types.TICKS_PER_DAY}"
        return _Piece("BHB", ["3", f"({days}) & 65535", f"({days}) >> 16"])
    if t.name == "datetime2" and t.scale >= 5:
        unit, day = 10 ** (7 - t.scale), types.TICKS_PER_DAY
        return _Piece("BQ", ["8", f"({v} % {day}) // {unit} | ({v} // {day} << 40)"])
    if t.name in _TIME_IDS:
        size = time_size(t.scale) + {"time": 0, "datetime2": 3, "datetimeoffset": 5}[t.name]
        return _Piece(f"B{size}s", [str(size), f"value_bytes({v}, t{i})"])
    if t.name == "uniqueidentifier":
        order = f"{v}[12:16] + {v}[10:12] + {v}[8:10] + {v}[6:8] + {v}[:6]"
        return _Piece("B16s", ["16", order])
    if t.family in ("str", "xml", "json"):
        rules = collation(t.collation or DEFAULT)
        assert rules is not None
        codec = "utf-16-le" if t.national else rules.codec
        errors = "surrogatepass" if t.national else "replace"
        setup = f"{e} = {v}.encode({codec!r}, {errors!r})"
    else:
        setup = f"{e} = bytes({v})"
    return _tail_piece(t, e, setup)


def _fixed_piece(v: str, column: Column) -> _Piece:
    t = column.type
    _, size, fmt = _NULLABLE[t.name]
    args = {
        "money": [f"{v} >> 32", f"{v} & 4294967295"],
        "datetime": [f"days_1900({v})", f"clock_300({v})"],
        "smalldatetime": [f"days_1900({v})", f"{v} % {types.TICKS_PER_DAY} // 600000000"],
    }.get(t.name, [v])
    return _Piece("B" + fmt, [str(size), *args]) if column.nullable else _Piece(fmt, args)


def _tail_piece(t: SqlType, e: str, setup: str) -> _Piece:
    if is_plp(t):
        return _Piece("", [], f"plp({e}, options)", setup)
    if t.name in _LONG_IDS:
        return _Piece("25sI", ["_TEXT_POINTER", f"len({e})"], e, setup)
    if t.name == "sql_variant":
        return _Piece("I", [f"len({e})"], e, setup)
    return _Piece("H", [f"len({e})"], e, setup)


def row_encoder(
    columns: Sequence[Column], options: PlpOptions
) -> Callable[[Sequence[Stored]], bytes]:
    """A function that writes one row of stored values as a ROW token, or NBCROW with nulls.

    It is generated for these columns, since it runs for every row of a benchmark: runs of
    fixed-size values become one call of struct.
    """
    pieces = [_piece(i, column) for i, column in enumerate(columns)]
    scope: dict[str, Any] = {
        "value_bytes": value_bytes,
        "plp": plp,
        "options": options,
        "days_1900": days_1900,
        "clock_300": clock_300,
        "_TEXT_POINTER": _TEXT_POINTER,
        **{f"t{i}": column.type for i, column in enumerate(columns)},
    }
    names = ", ".join(f"v{i}" for i in range(len(columns)))
    lines = ["def encode(row):", f"    ({names},) = row", "    if None in row:"]
    lines += _null_lines(pieces, scope)
    lines += [f"    {piece.setup}" for piece in pieces if piece.setup]
    lines.append(f"    return b''.join(({', '.join(_runs(pieces, scope))},))")
    exec("\n".join(lines), scope)  # noqa: S102 - source from this module only
    encode: Callable[[Sequence[Stored]], bytes] = scope["encode"]
    return encode


def _struct(fmt: str, scope: dict[str, Any]) -> str:
    """The name of a pack function for `fmt` in the generated code's scope."""
    name = f"pack_{len(scope)}"
    scope[name] = struct.Struct("<" + fmt).pack
    return name


def _runs(pieces: Sequence[_Piece], scope: dict[str, Any]) -> list[str]:
    """Expressions of the whole row: one struct call before each value of variable size."""
    parts: list[str] = []
    fmt, args = "B", [str(ROW)]
    for piece in pieces:
        fmt, args = fmt + piece.fmt, args + piece.args
        if piece.tail:
            if fmt:
                parts.append(f"{_struct(fmt, scope)}({', '.join(args)})")
            parts.append(piece.tail)
            fmt, args = "", []
    if fmt:
        parts.append(f"{_struct(fmt, scope)}({', '.join(args)})")
    return parts


def _null_lines(pieces: Sequence[_Piece], scope: dict[str, Any]) -> list[str]:
    lines = ["        nulls = 0", "        parts = [b'']"]
    for i, piece in enumerate(pieces):
        lines += [f"        if v{i} is None:", f"            nulls |= {1 << i}", "        else:"]
        if piece.setup:
            lines.append(f"            {piece.setup}")
        if piece.fmt:
            call = f"{_struct(piece.fmt, scope)}({', '.join(piece.args)})"
            lines.append(f"            parts.append({call})")
        if piece.tail:
            lines.append(f"            parts.append({piece.tail})")
    size = (len(pieces) + 7) // 8
    lines.append(f"        parts[0] = {bytes([NBCROW])!r} + nulls.to_bytes({size}, 'little')")
    lines.append("        return b''.join(parts)")
    return lines


# Tokens


def done(token: int, status: int, count: int = 0, command: int = 0xC1) -> bytes:
    return struct.pack("<BHHQ", token, status, command, count)


def message(token: int, problem: SqlError, server: str, procedure: str = "") -> bytes:
    """ERROR or INFO, 2.2.7.10."""
    body = struct.pack("<iBB", problem.number, problem.state, problem.severity)
    body += us_varchar(problem.message) + b_varchar(server) + b_varchar(procedure)
    body += struct.pack("<I", problem.line)
    return struct.pack("<BH", token, len(body)) + body


def envchange(kind: int, new: bytes, old: bytes = b"\0") -> bytes:
    body = bytes([kind]) + new + old
    return struct.pack("<BH", ENVCHANGE, len(body)) + body


def envchange_text(kind: int, new: str, old: str) -> bytes:
    return envchange(kind, b_varchar(new), b_varchar(old))


def envchange_routing(server: str, port: int) -> bytes:
    """Where else to log in, by TCP."""
    name = server.encode("utf-16-le")
    where = struct.pack("<BHH", 0, port, len(name) // 2) + name
    return envchange(ENV_ROUTING, struct.pack("<H", len(where)) + where, b"\0\0")


def loginack(program: str, version: tuple[int, int, int, int]) -> bytes:
    body = struct.pack(">BI", 1, 0x74000004) + b_varchar(program) + bytes(version)
    return struct.pack("<BH", LOGINACK, len(body)) + body


# Requests


class Reader:
    """Reads the little-endian fields of one request."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def take(self, size: int) -> bytes:
        piece = self.data[self.position : self.position + size]
        if len(piece) != size:
            raise SqlError(4002, "The incoming tabular data stream is incorrect.", severity=20)
        self.position += size
        return piece

    def number(self, size: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(size), "little", signed=signed)

    def text(self, characters: int) -> str:
        return self.take(characters * 2).decode("utf-16-le", "surrogatepass")

    @property
    def more(self) -> bool:
        return self.position < len(self.data)

    def skip_headers(self) -> None:
        """ALL_HEADERS, 2.2.5.3."""
        start = self.position
        self.position = start + self.number(4)


@dataclass(frozen=True)
class Parameter:
    """A parameter of an RPC request, its value in the stored form."""

    name: str
    type: SqlType
    value: Stored


_BY_SIZE = {
    0x26: {1: "tinyint", 2: "smallint", 4: "int", 8: "bigint"},
    0x68: {1: "bit"},
    0x6D: {4: "real", 8: "float"},
    0x6E: {4: "smallmoney", 8: "money"},
    0x6F: {4: "smalldatetime", 8: "datetime"},
}
_FIXED_NAMES = {type_id: name for name, type_id in _FIXED_IDS.items()}
_SHORT_NAMES = {0xA7: "varchar", 0xAF: "char", 0xE7: "nvarchar", 0xEF: "nchar"}
_TIME_NAMES = {type_id: name for name, type_id in _TIME_IDS.items()}


def read_parameter(r: Reader) -> Parameter:
    name = r.text(r.number(1))
    r.take(1)  # status flags: by reference, default value
    return Parameter(name, *_read_value(r))


def _read_value(r: Reader) -> tuple[SqlType, Stored]:
    type_id = r.number(1)
    if type_id in _FIXED_NAMES:
        t = types.parse_type(_FIXED_NAMES[type_id])
        return t, value_from(r.take(_NULLABLE[t.name][1]), t)
    if type_id in _BY_SIZE:
        t = types.parse_type(_BY_SIZE[type_id][r.number(1)])
        return t, _short(r, t)
    if type_id in (0x6A, 0x6C):
        r.take(1)
        t = SqlType("decimal", precision=r.number(1), scale=r.number(1))
        return t, _short(r, t)
    if type_id in _TIME_NAMES:
        t = SqlType(_TIME_NAMES[type_id], scale=r.number(1))
        return t, _short(r, t)
    if type_id == 0x28:
        return types.DATE, _short(r, types.DATE)
    if type_id == 0x24:
        r.take(1)
        return types.GUID, _short(r, types.GUID)
    if type_id in _SHORT_NAMES or type_id in (0xA5, 0xAD):
        return _read_long(r, type_id)
    raise unsupported(f"parameter type 0x{type_id:02X}")


def _short(r: Reader, t: SqlType) -> Stored:
    size = r.number(1)
    return value_from(r.take(size), t) if size else None


def _read_long(r: Reader, type_id: int) -> tuple[SqlType, Stored]:
    size = r.number(2)
    if type_id in _SHORT_NAMES:
        r.take(5)
        name = _SHORT_NAMES[type_id]
        length = -1 if size == 0xFFFF else size // (2 if name[0] == "n" else 1)
        t = SqlType(name, length=length, collation=DEFAULT)
    else:
        t = SqlType("varbinary" if type_id == 0xA5 else "binary", length=size)
        t = SqlType(t.name, length=-1) if size == 0xFFFF else t
    if size == 0xFFFF:
        data = _read_plp(r)
    else:
        length = r.number(2)
        data = None if length == 0xFFFF else r.take(length)
    return t, None if data is None else value_from(data, t)


def _read_plp(r: Reader) -> bytes | None:
    if r.number(8) == 0xFFFFFFFFFFFFFFFF:
        return None
    parts = []
    while size := r.number(4):
        parts.append(r.take(size))
    return b"".join(parts)


@dataclass(frozen=True)
class Login:
    """What LOGIN7 says, 2.2.6.4."""

    user: str
    password: str
    host: str
    application: str
    database: str
    packet_size: int
    token: str | None = None
    server: str = ""
    read_only: bool = False
    windows: bytes | None = None  # the first message of Windows authentication


def read_login(data: bytes) -> Login:
    fixed = Reader(data)
    fixed.take(8)
    packet_size = fixed.number(4)
    flags3 = data[27]

    def part(index: int) -> bytes:
        offset, length = struct.unpack_from("<HH", data, 36 + 4 * index)
        return data[offset : offset + 2 * length]

    def text(index: int) -> str:
        return part(index).decode("utf-16-le")

    # Each byte has its halves swapped after an exclusive or with 0xA5.
    plain = bytes(((b ^ 0xA5) << 4 & 0xF0) | ((b ^ 0xA5) >> 4) for b in part(2))
    # Index 8 is the database: host, user, password, application, server, extension, library,
    # language, database.
    return Login(
        user=text(1),
        password=plain.decode("utf-16-le"),
        host=text(0),
        application=text(3),
        database=text(8),
        packet_size=packet_size,
        token=_federated_token(data) if flags3 & 0x10 else None,
        server=text(4),
        read_only=bool(data[26] & 0x20),
        windows=_windows_message(data) if data[25] & 0x80 else None,
    )


def _windows_message(data: bytes) -> bytes:
    offset, length = struct.unpack_from("<HH", data, 78)
    return data[offset : offset + length]


def sspi(message: bytes) -> bytes:
    """A challenge, 2.2.7.22."""
    return struct.pack("<BH", SSPI, len(message)) + message


def _federated_token(data: bytes) -> str | None:
    """The access token of the FEDAUTH feature (2.2.6.4), library 1: a security token."""
    (pointer,) = struct.unpack_from("<H", data, 36 + 4 * 5)
    (offset,) = struct.unpack_from("<I", data, pointer)
    r = Reader(data)
    r.position = offset
    while (feature := r.number(1)) != 0xFF:
        body = Reader(r.take(r.number(4)))
        if feature == 0x02 and body.number(1) >> 1 == 1:
            return body.take(body.number(4)).decode("utf-16-le")
    return None
