"""The CLR types: hierarchyid, geometry and geography, serialised and as text.

hierarchyid is the bit string of [MS-SSCLRT] 2.1: each label has a prefix that says its range, so
that the bytes sort in depth-first order. A point is [MS-SSCLRT] 2.3: SRID, version, properties and
two doubles. Other shapes are beyond this simulator, as text; as bytes they pass unread.
"""

from __future__ import annotations

import re
import struct

from tests.sandbox.mssql.errors import SqlError, unsupported

# (first label, last label, pattern): x is a bit of label - first, T ends the label.
_LABELS = (
    (0, 3, "01xxT"),
    (4, 7, "100xxT"),
    (8, 15, "101xxxT"),
    (16, 79, "110xx0x1xxxT"),
    (80, 1103, "1110xxx0xxx0x1xxxT"),
)
_POINT = re.compile(r"^\s*POINT\s*\(\s*(\S+)\s+(\S+)\s*\)\s*$", re.IGNORECASE)
_SRID = {"geometry": 0, "geography": 4326}
_VALID_POINT = 0x0C

ASSEMBLIES = {
    "hierarchyid": "Microsoft.SqlServer.Types.SqlHierarchyId, Microsoft.SqlServer.Types, "
    "Version=11.0.0.0, Culture=neutral, PublicKeyToken=89845dcd8080cc91",
    "geometry": "Microsoft.SqlServer.Types.SqlGeometry, Microsoft.SqlServer.Types, "
    "Version=11.0.0.0, Culture=neutral, PublicKeyToken=89845dcd8080cc91",
    "geography": "Microsoft.SqlServer.Types.SqlGeography, Microsoft.SqlServer.Types, "
    "Version=11.0.0.0, Culture=neutral, PublicKeyToken=89845dcd8080cc91",
}


def _bad(text: str) -> SqlError:
    return SqlError(
        6522,
        "A .NET Framework error occurred during execution of user-defined routine or aggregate: "
        f"the text of {len(text)} characters is not valid.",
    )


def _label_bits(label: int) -> str:
    for first, last, pattern in _LABELS:
        if first <= label <= last:
            width = pattern.count("x")
            data = iter(f"{label - first:0{width}b}")
            return "".join(next(data) if c == "x" else "1" if c == "T" else c for c in pattern)
    raise unsupported(f"hierarchyid label {label}")


def _parse_hierarchy(text: str) -> bytes:
    if not re.fullmatch(r"/(\d+/)*", text):
        raise _bad(text)
    bits = "".join(_label_bits(int(label)) for label in text.strip("/").split("/") if label)
    bits += "0" * (-len(bits) % 8)
    return int(bits or "0", 2).to_bytes(len(bits) // 8, "big")


def _match_label(bits: str) -> tuple[int, int] | None:
    """(label, bits used) at the start of `bits`."""
    for first, _, pattern in _LABELS:
        part = bits[: len(pattern)]
        if len(part) == len(pattern) and all(
            p in "xT" or p == b for p, b in zip(pattern, part, strict=True)
        ):
            data = "".join(b for p, b in zip(pattern, part, strict=True) if p == "x")
            return first + int(data, 2), len(pattern)
    return None


def _hierarchy_text(value: bytes) -> str:
    bits = "".join(f"{byte:08b}" for byte in value)
    labels = []
    while "1" in bits:
        found = _match_label(bits)
        if found is None:
            raise unsupported("hierarchyid bytes")
        labels.append(str(found[0]))
        bits = bits[found[1] :]
    return "".join(["/", *(label + "/" for label in labels)])


def parse(text: str, name: str) -> bytes:
    """The serialised form of "/1/2/" or "POINT (x y)"."""
    if name == "hierarchyid":
        return _parse_hierarchy(text)
    match = _POINT.match(text)
    if match is None:
        raise unsupported(f"{name} text other than POINT")
    first, second = float(match[1]), float(match[2])
    if name == "geography":  # the text has longitude first, the bytes have latitude first
        first, second = second, first
    return struct.pack("<iBBdd", _SRID[name], 1, _VALID_POINT, first, second)


def to_text(value: bytes, name: str) -> str:
    """What .ToString() gives."""
    if name == "hierarchyid":
        return _hierarchy_text(value)
    if len(value) != 22 or value[5] != _VALID_POINT:
        raise unsupported(f"{name} bytes other than a point")
    _, _, _, first, second = struct.unpack("<iBBdd", value)
    if name == "geography":
        first, second = second, first
    return f"POINT ({first:.15g} {second:.15g})"
