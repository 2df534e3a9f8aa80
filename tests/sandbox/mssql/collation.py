"""Collations: which texts are equal, how they sort, and how varchar is encoded.

Two orders exist for one collation name, as on the server. `nvarchar` follows Unicode rules:
several levels, hyphen and apostrophe almost without weight, supplementary characters without
weight before version 90. `varchar` under a SQL_ collation follows a table of one weight per
character, in which a hyphen is an ordinary character. So the order of a varchar column is not
the order of the same texts as nvarchar. Trailing spaces never count.
Source: https://learn.microsoft.com/sql/relational-databases/collations/
"""

from __future__ import annotations

import re
import struct
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

DEFAULT = "SQL_Latin1_General_CP1_CI_AS"

NAMES = (
    DEFAULT,
    "SQL_Latin1_General_CP1_CS_AS",
    "Latin1_General_CI_AS",
    "Latin1_General_CS_AS",
    "Latin1_General_CI_AI",
    "Latin1_General_BIN",
    "Latin1_General_BIN2",
    "Latin1_General_100_CI_AS",
    "Latin1_General_100_CS_AS",
    "Latin1_General_100_BIN2",
    "Latin1_General_100_CI_AS_SC_UTF8",
    "Latin1_General_100_BIN2_UTF8",
)
_BY_FOLDED = {name.lower(): name for name in NAMES}

_EXPANSIONS = {"ß": "ss", "æ": "ae", "œ": "oe", "þ": "th", "ð": "d", "ø": "o", "ł": "l", "đ": "d"}
_LIGHT = "-'\u00ad"  # hyphen, apostrophe, soft hyphen: they decide only between equal words


@dataclass(frozen=True)
class Collation:
    """What the parts of a collation's name say."""

    name: str
    ignore_case: bool
    ignore_accent: bool
    binary: bool
    sql_table: bool  # varchar follows the one-weight table of a SQL_ collation
    supplementary: bool  # characters beyond U+FFFF have a weight
    utf8: bool

    @property
    def codec(self) -> str:
        return "utf-8" if self.utf8 else "cp1252"

    def wire(self) -> bytes:
        """The five bytes of MS-TDS 2.2.5.1.2: LCID, flags and version, then the sort id."""
        flags = 0
        if self.name.endswith("_BIN"):
            flags |= 1 << 24
        elif self.binary:
            flags |= 1 << 25
        else:
            flags |= (self.ignore_case << 20) | (self.ignore_accent << 21) | (0b11 << 22)
        version = 2 if "_100_" in self.name else 0
        lump = 0x0409 | flags | (self.utf8 << 26) | (version << 28)
        sort_id = {DEFAULT: 52, "SQL_Latin1_General_CP1_CS_AS": 51}.get(self.name, 0)
        return struct.pack("<IB", lump, sort_id)


@lru_cache(maxsize=64)
def collation(name: str) -> Collation | None:
    """The collation of that name in any case; None for a name that this simulator lacks."""
    known = _BY_FOLDED.get(name.lower())
    if known is None:
        return None
    binary = bool(re.search(r"_BIN2?(_|$)", known))
    return Collation(
        name=known,
        ignore_case="_CI_" in known,
        ignore_accent=known.endswith("_AI"),
        binary=binary,
        sql_table=known.startswith("SQL_"),
        supplementary="_100_" in known,
        utf8=known.endswith("_UTF8"),
    )


@lru_cache(maxsize=65536)
def _parts(char: str) -> tuple[str, str, bool]:
    """(base letters in lower case, accents, is upper case) of one character."""
    lower = char.lower()
    if lower in _EXPANSIONS:
        return _EXPANSIONS[lower], "\u02ff", char != lower
    decomposed = unicodedata.normalize("NFKD", char)
    base = "".join(c for c in decomposed if not unicodedata.combining(c))
    accents = "".join(c for c in decomposed if unicodedata.combining(c))
    return base.lower(), accents, base != base.lower()


@lru_cache(maxsize=65536)
def _primary(char: str) -> str:
    """The first-level weight of one base character: symbols, then digits, then letters."""
    category = unicodedata.category(char)
    if category == "Cc" and char not in "\t\n\v\f\r":
        return ""
    block = {"N": 0x1000, "L": 0x2000}.get(category[0], 0x100)
    return chr(min(block + ord(char), 0x10FFFF))


_Key = tuple[str, str, str, str]


def _unicode_key(text: str, rules: Collation) -> _Key:
    primary: list[str] = []
    accents: list[str] = []
    cases: list[str] = []
    light: list[str] = []
    for position, char in enumerate(text):
        if char in _LIGHT:
            light.append(chr(min(position + 1, 0x10FFFF)) + char)
            continue
        if ord(char) > 0xFFFF and not rules.supplementary:
            continue
        base, accent, upper = _parts(char)
        primary.extend(map(_primary, base))
        accents.append(accent or " ")
        cases.append("b" if upper else "a")
    return (
        "".join(primary),
        "" if rules.ignore_accent else "".join(accents).rstrip(" "),
        "" if rules.ignore_case else "".join(cases),
        "".join(light),
    )


def _table_weights(ignore_case: bool) -> dict[int, str]:
    """One weight for each character of code page 1252, for the SQL_ collations."""
    chars = [bytes([i]).decode("cp1252", "replace") for i in range(256)]

    def rank(char: str) -> tuple[str, str, bool]:
        base, accent, upper = _parts(char)
        return "".join(map(_primary, base)) or char, accent, upper and not ignore_case

    order = sorted({rank(char) for char in chars})
    weights = {key: chr(0x100 + number) for number, key in enumerate(order)}
    return {ord(char): weights[rank(char)] for char in chars}


_TABLES = {True: _table_weights(True), False: _table_weights(False)}


@lru_cache(maxsize=4096)
def sort_key(text: str, name: str, national: bool) -> _Key:
    """A key that compares as the server compares `text`; `national` means nvarchar."""
    rules = collation(name) or collation(DEFAULT)
    assert rules is not None
    stripped = text.rstrip(" ")
    if rules.sql_table and not national:
        return stripped.translate(_TABLES[rules.ignore_case]), "", "", ""
    return _unicode_key(stripped, rules)


def _compare_binary(left: str, right: str, codec: str) -> int:
    width = max(len(left), len(right))
    a, b = (text.ljust(width).encode(codec, "surrogatepass") for text in (left, right))
    return (a > b) - (a < b)


def comparer(name: str, national: bool) -> Callable[[str, str], int]:
    """A comparison for SQLite: negative, zero or positive."""
    rules = collation(name)
    assert rules is not None
    if rules.binary:
        codec = "utf-16-be" if national and not rules.utf8 else "utf-8"
        return lambda a, b: 0 if a == b else _compare_binary(a, b, codec)

    def compare(left: str, right: str) -> int:
        if left == right:
            return 0
        a, b = sort_key(left, name, national), sort_key(right, name, national)
        return (a > b) - (a < b)

    return compare


def sqlite_name(name: str, national: bool) -> str:
    """The name under which `comparer` is registered with SQLite."""
    return f"{'N' if national else 'V'}_{name}"
