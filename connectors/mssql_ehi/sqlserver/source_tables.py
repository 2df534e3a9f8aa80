"""The tables of the source: their columns, their keys, and what stands in the way of a sync."""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from . import naming, type_mapping
from .type_mapping import ColumnInfo, TypeMapping


@dataclass(frozen=True)
class Column:
    """A column, under its ``name`` at the source and that at the ``destination``. ``masked``: the
    login reads a mask in place of its values."""

    name: str
    facts: ColumnInfo
    nullable: bool
    destination: str = ""
    masked: bool = False

    @property
    def kind(self) -> TypeMapping:
        return type_mapping.KINDS.get(self.facts.name, type_mapping.UNKNOWN)

    @property
    def sdk_type(self) -> Any:
        return self.kind.sdk_type(self.facts)

    def select(self, source: str) -> str:
        """The expression that reads the column; ``source``: its table's alias, and a dot."""
        name = f"{source}{naming.quoted(self.name)}"
        return self.kind.select.format(name, text=type_mapping.text(self.facts))

    @property
    def declared(self) -> str:
        return type_mapping.declared(self.facts)

    @property
    def collation(self) -> str:
        return self.facts.collation or "DATABASE_DEFAULT"

    @property
    def orderable(self) -> bool:
        return not self.nullable and self.kind.compare is not None


@dataclass(frozen=True)
class SourceTable:
    """A table. ``key``: the destination's; ``order``: the columns, unique and without nulls, in
    whose order it can be read; ``estimate``: of its rows; ``tracked_since``: the version at which
    Change Tracking began. Each is empty where there is none.

    ``left_out`` are the names of columns that are not read. ``identity`` tells it from another
    table of the same name (None: not known), and ``renamed`` are the columns whose names at the
    destination must be kept. ``fault``: why it cannot be synced; ``key_refused``: because the
    destination has another key. ``anew``: why what was stored of it does not count any more.
    ``postponed``: why it is left to the next sync.
    """

    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[Column, ...] = ()
    order: tuple[Column, ...] = ()
    estimate: int | None = None
    tracked_since: int | None = None
    destination: str = ""
    left_out: tuple[str, ...] = ()
    identity: str | None = None
    renamed: tuple[tuple[str, str], ...] = ()
    fault: str = ""
    key_refused: bool = False
    anew: str = ""
    postponed: str = ""

    @property
    def label(self) -> str:
        return naming.label(self.schema, self.name)

    @cached_property
    def row_width(self) -> int | None:
        """The most bytes of a row; None: without a limit."""
        widths = [type_mapping.width(column.facts) for column in self.columns]
        return None if None in widths else sum(width or 0 for width in widths)

    def declaration(self) -> dict[str, Any]:
        """The table as the SDK's ``schema()`` declares it."""
        types = {column.destination: column.sdk_type for column in self.columns}
        entry = {"table": self.destination, "columns": types}
        key = [column.destination for column in self.key]
        return {**entry, "primary_key": key} if key else entry


def fingerprint(columns: Sequence[Column]) -> str:
    """The columns' names in a form that keeps the state small."""
    return " ".join(f"{zlib.crc32(c.name.casefold().encode()):08x}" for c in columns)
