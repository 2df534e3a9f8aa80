"""A table of the source: its columns, its key, and why it cannot be synced."""

import base64
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from . import naming, type_mapping
from .type_mapping import ColumnInfo, TypeMapping


@dataclass(frozen=True, slots=True)  # there may be 300,000 of them
class Column:
    """A column, under its ``name`` at the source and that at the ``destination``. ``masked``: the
    login reads a mask in place of its values."""

    name: str
    info: ColumnInfo
    nullable: bool
    destination: str = ""
    masked: bool = False

    @property
    def type_mapping(self) -> TypeMapping:
        return type_mapping.TYPE_MAPPINGS.get(self.info.name, type_mapping.UNKNOWN)

    @property
    def sdk_type(self) -> Any:
        return self.type_mapping.sdk_type(self.info)

    def select(self, source: str) -> str:
        """The expression that reads the column; ``source``: its table's alias, and a dot."""
        name = f"{source}{naming.quoted(self.name)}"
        return self.type_mapping.select.format(name, text=type_mapping.text(self.info))

    @property
    def declared(self) -> str:
        return type_mapping.declared(self.info)

    @property
    def collation(self) -> str:
        return self.info.collation or "DATABASE_DEFAULT"

    @property
    def orderable(self) -> bool:
        return not self.nullable and self.type_mapping.compare is not None


@dataclass(frozen=True)
class Capture:
    """An ``instance`` of Change Data Capture, which knows changes from LSN ``start`` on."""

    instance: str
    start: str


@dataclass(frozen=True)
class SourceTable:
    """A table. ``key``: the destination's; ``order``: the columns, unique and without nulls, in
    whose order it can be read; ``estimate``: of its rows; ``tracked_since``: the version at which
    Change Tracking began; ``captures``: instances of Change Data Capture, the newest first. Each
    is empty where there is none.

    ``excluded_columns`` are the names of columns that are not read. ``identity`` tells it from
    another table of the same name (None: not known), and ``renamed`` are the columns whose names
    at the destination must be kept. ``fault``: why it cannot be synced; ``key_refused``: because
    the destination has another key. ``reload_reason``: why what was stored of it does not count
    any more. ``postponed``: why it is left to the next sync. ``has_declared_key``: its key
    is one of the settings, which the server does not know. ``destination_schema``: that of the
    destination, if it is not the connection's own.
    """

    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[Column, ...] = ()
    order: tuple[Column, ...] = ()
    estimate: int | None = None
    tracked_since: int | None = None
    captures: tuple[Capture, ...] = ()
    is_view: bool = False
    has_declared_key: bool = False
    destination: str = ""
    destination_schema: str | None = None
    excluded_columns: tuple[str, ...] = ()
    identity: str | None = None
    renamed: tuple[tuple[str, str], ...] = ()
    fault: str = ""
    key_refused: bool = False
    reload_reason: str = ""
    postponed: str = ""

    @property
    def label(self) -> str:
        return naming.label(self.schema, self.name)

    @cached_property
    def row_width(self) -> int | None:
        """The most bytes that a row takes; None: there is no limit."""
        widths = [type_mapping.width(column.info) for column in self.columns]
        return None if None in widths else sum(width or 0 for width in widths)

    @property
    def within(self) -> dict[str, str]:
        """The argument by which the SDK is told of the table's schema, if it has one of its own
        at the destination."""
        return {} if self.destination_schema is None else {"schema": self.destination_schema}

    def declaration(self) -> dict[str, Any]:
        """The table as the SDK's ``schema()`` declares it."""
        types = {column.destination: column.sdk_type for column in self.columns}
        entry = {**self.within, "table": self.destination, "columns": types}
        key = [column.destination for column in self.key]
        return {**entry, "primary_key": key} if key else entry


def fingerprint(columns: Sequence[Column]) -> str:
    """How many columns there are, and a digest of their names in their order."""
    names = "\n".join(column.name.casefold() for column in columns)
    return f"{len(columns)}:{digest(names)}"


def known_columns(columns: Sequence[Column], known: str) -> Sequence[Column] | None:
    """Those of ``columns`` that the table had when its fingerprint was ``known``. None: not only
    were some added since, side by side, so that this is not told."""
    number, is_counted, _ = known.partition(":")
    if not is_counted:  # of an older version: a hash for each column
        hashes = set(known.split())
        return [c for c in columns if f"{zlib.crc32(c.name.casefold().encode()):08x}" in hashes]
    added = len(columns) - int(number)
    for place in range(len(columns) - added, -1, -1) if added >= 0 else ():
        others = [*columns[:place], *columns[place + added :]]
        if fingerprint(others) == known:
            return others
    return None


def digest(text: str) -> str:
    """36 bits of a hash, in base64."""
    hashed = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=6).digest()
    return base64.b64encode(hashed).decode()[:6]
