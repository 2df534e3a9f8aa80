"""sql_variant: a value with its own type (MS-TDS 2.2.5.5.3), stored as on the wire."""

from __future__ import annotations

import struct

from tests.sandbox.mssql import types
from tests.sandbox.mssql.collation import DEFAULT, NAMES, collation
from tests.sandbox.mssql.errors import error
from tests.sandbox.mssql.types import SqlType, Stored

_IDS = {
    "uniqueidentifier": 0x24, "bit": 0x32, "tinyint": 0x30, "smallint": 0x34, "int": 0x38,
    "bigint": 0x7F, "datetime": 0x3D, "smalldatetime": 0x3A, "real": 0x3B, "float": 0x3E,
    "money": 0x3C, "smallmoney": 0x7A, "date": 0x28, "time": 0x29, "datetime2": 0x2A,
    "datetimeoffset": 0x2B, "varbinary": 0xA5, "binary": 0xAD, "numeric": 0x6C,
    "decimal": 0x6A, "varchar": 0xA7, "char": 0xAF, "nvarchar": 0xE7, "nchar": 0xEF,
}  # fmt: skip
_NAMES = {number: name for name, number in _IDS.items()}
_WIRE_COLLATION = {}
for _name in reversed(NAMES):
    _rules = collation(_name)
    assert _rules is not None
    _WIRE_COLLATION[_rules.wire()] = _name


def pack(value: Stored, t: SqlType) -> bytes:
    """Type id, length of the properties, properties, value."""
    from tests.sandbox.mssql import wire  # it needs this module

    name = "nvarchar" if t.name == "sysname" else t.name
    if name not in _IDS or t.length < 0:
        raise error(206, t.name, "sql_variant")
    if t.family == "str":
        rules = collation(t.collation or DEFAULT)
        assert rules is not None
        data = value.encode("utf-16-le") if t.national else value.encode(rules.codec, "replace")
        properties = rules.wire() + struct.pack("<H", 8000)
    elif t.family == "bin":
        data, properties = bytes(value), struct.pack("<H", 8000)
    else:
        data = wire.value_bytes(value, t)
        properties = b""
        if name in ("decimal", "numeric"):
            properties = bytes([t.precision, t.scale])
        elif name in ("time", "datetime2", "datetimeoffset"):
            properties = bytes([t.scale])
    return bytes([_IDS[name], len(properties), *properties, *data])


def unpack(raw: bytes) -> tuple[Stored, SqlType]:
    """The inner value, stored as its own type, and that type."""
    from tests.sandbox.mssql import wire

    name, size = _NAMES[raw[0]], raw[1]
    properties, data = raw[2 : 2 + size], raw[2 + size :]
    if types.FAMILY[name] == "str":
        chosen = _WIRE_COLLATION.get(properties[:5], DEFAULT)
        national = name in types.NATIONAL
        text = data.decode("utf-16-le" if national else "cp1252", "replace")
        return text, SqlType(name, length=max(len(text), 1), collation=chosen)
    if types.FAMILY[name] == "bin":
        return data, SqlType(name, length=max(len(data), 1))
    if name in ("decimal", "numeric"):
        t = SqlType(name, precision=properties[0], scale=properties[1])
    elif name in ("time", "datetime2", "datetimeoffset"):
        t = SqlType(name, scale=properties[0])
    else:
        t = types.parse_type(name)
    return wire.value_from(data, t), t
