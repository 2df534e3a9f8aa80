"""What there is to read: tables, columns and keys of the database, and their names at the
destination.

https://learn.microsoft.com/sql/relational-databases/system-information-schema-views/
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import column_types
import names
from column_types import Facts, Kind
from session import Session, Values

_SYSTEM_SCHEMAS = ("sys", "information_schema", "cdc")
# Tools put these into dbo, and the server does not count them as its own.
_SYSTEM_TABLES = ("sysdiagrams", "dtproperties")


@dataclass(frozen=True)
class Column:
    """A column, under its ``name`` at the source and that at the ``destination``."""

    name: str
    facts: Facts
    nullable: bool
    destination: str = ""

    @property
    def kind(self) -> Kind:
        return column_types.KINDS.get(self.facts.name, column_types.UNKNOWN)

    @property
    def sdk_type(self) -> Any:
        return self.kind.sdk_type(self.facts)

    def select(self, source: str) -> str:
        """The expression that reads the column; ``source``: its table's alias, and a dot."""
        name = f"{source}{names.quoted(self.name)}"
        return self.kind.select.format(name, text=column_types.text(self.facts))

    @property
    def declared(self) -> str:
        return column_types.declared(self.facts)

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
    Change Tracking began. Each is empty where there is none."""

    schema: str
    name: str
    columns: tuple[Column, ...]
    key: tuple[Column, ...] = ()
    order: tuple[Column, ...] = ()
    estimate: int | None = None
    tracked_since: int | None = None
    destination: str = ""

    @property
    def label(self) -> str:
        return f"{self.schema}.{self.name}"

    @cached_property
    def row_width(self) -> int | None:
        """The most bytes of a row; None: without a limit."""
        widths = [column_types.width(column.facts) for column in self.columns]
        return None if None in widths else sum(width or 0 for width in widths)

    def declaration(self) -> dict[str, Any]:
        """The table as the SDK's ``schema()`` declares it."""
        types = {column.destination: column.sdk_type for column in self.columns}
        entry = {"table": self.destination, "columns": types}
        key = [column.destination for column in self.key]
        return {**entry, "primary_key": key} if key else entry


@dataclass(frozen=True)
class Catalogue:
    """The ``tables`` to sync, the labels of ``all`` there are, of those that max_tables
    ``left_out``, and what the user should know."""

    tables: tuple[SourceTable, ...]
    all: frozenset[str]
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Index:
    """A unique index or constraint, and its columns in order."""

    columns: tuple[str, ...]
    primary: bool
    clustered: bool


def discover(
    session: Session, take: Sequence[str], exclude: Sequence[str], max_tables: int
) -> Catalogue:
    """The tables that match a pattern of ``take`` (none: all) and none of ``exclude``, in the
    order of their names, ``max_tables`` of them at most (0: all).

    Raises SourceError, and SettingsError for a pattern that names no table or for two tables
    that end on one name at the destination.
    """
    found = [
        t for t in session.patiently("the catalogue", lambda: _read_tables(session)) if t.columns
    ]
    labels = names.select([(t.schema, t.name) for t in found], take, exclude)
    chosen = [table for table in found if (table.schema, table.name) in labels]
    destinations, warnings = names.of_tables([(t.schema, t.name) for t in chosen])
    named = [replace(t, destination=n) for t, n in zip(chosen, destinations, strict=True)]
    kept = named[: max_tables or None]
    names.check([(table.label, table.destination) for table in kept])
    estimates, indexes, tracked = _estimates(session), _indexes(session), _tracked(session)
    version = _current_version(session) if tracked else None
    tables = []
    for table in kept:
        columns, warned = _name_columns(table)
        key = names.fold(table.schema, table.name)
        since = tracked.get(key)
        if since is not None and not _can_read_changes(session, table, version):
            since = None
            warned.append(
                f"{table.label} has Change Tracking, which cannot be read: the connector does "
                "without, unless you GRANT VIEW CHANGE TRACKING on the table to mssql_user"
            )
        warnings += warned
        facts = {"estimate": estimates.get(key), "tracked_since": since}
        # No column of a primary key has nulls, whatever a catalogue says.
        primary = {n.casefold() for i in indexes[key] if i.primary for n in i.columns}
        columns = tuple(
            replace(c, nullable=c.nullable and c.name.casefold() not in primary) for c in columns
        )
        tables.append(_with_keys(replace(table, columns=columns, **facts), indexes[key]))
    left_out = tuple(table.label for table in named[len(kept) :])
    every = frozenset(table.label for table in found)
    return Catalogue(tuple(tables), every, left_out, tuple(warnings))


def _read_tables(session: Session) -> list[SourceTable]:
    columns: dict[names.Folded, list[Column]] = defaultdict(list)
    for schema, table, name, nullable, *facts in session.rows(
        "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, IS_NULLABLE, DATA_TYPE, "
        "CHARACTER_MAXIMUM_LENGTH, NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION, "
        "COLLATION_NAME FROM INFORMATION_SCHEMA.COLUMNS "
        "ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"
    ):
        described = Facts(facts[0].lower(), *facts[1:])
        columns[names.fold(schema, table)].append(Column(name, described, nullable != "NO"))
    tables = session.rows(
        "SELECT TABLE_SCHEMA, TABLE_NAME FROM INFORMATION_SCHEMA.TABLES "
        "WHERE TABLE_TYPE = 'BASE TABLE'"
    )
    shipped = session.optional(
        "which tables are the server's own",
        "SELECT s.name AS schema_name, t.name AS table_name FROM sys.tables AS t "
        "JOIN sys.schemas AS s ON s.schema_id = t.schema_id WHERE t.is_ms_shipped = 1",
    )
    system = {names.fold(schema, table) for schema, table in shipped or []}
    return [
        SourceTable(schema, table, tuple(columns[names.fold(schema, table)]))
        for schema, table in sorted(tables, key=lambda row: names.fold(*row))
        if names.fold(schema, table) not in system and not _is_system(schema, table)
    ]


def _is_system(schema: str, table: str) -> bool:
    folded_schema, folded = names.fold(schema, table)
    return folded_schema in _SYSTEM_SCHEMAS or (
        folded_schema == "dbo" and folded in _SYSTEM_TABLES
    )


def _name_columns(table: SourceTable) -> tuple[tuple[Column, ...], list[str]]:
    destinations, warnings = names.of_columns(table.label, [c.name for c in table.columns])
    columns = tuple(
        replace(column, destination=destination)
        for column, destination in zip(table.columns, destinations, strict=True)
    )
    warnings += [
        f"{table.label}: the type {column.facts.name} of column {column.name} is not known; it is "
        "read as text"
        for column in columns
        if column.kind is column_types.UNKNOWN
    ]
    return columns, warnings


def _indexes(session: Session) -> dict[names.Folded, list[_Index]]:
    """The unique indexes by table. Constraints are always to be seen, other indexes not."""
    constraints = session.patiently(
        "the keys",
        lambda: session.rows(
            "SELECT t.TABLE_SCHEMA, t.TABLE_NAME, t.CONSTRAINT_NAME, "
            "CASE WHEN t.CONSTRAINT_TYPE = 'PRIMARY KEY' THEN 1 ELSE 0 END AS is_primary, "
            "0 AS is_clustered, k.COLUMN_NAME "
            "FROM INFORMATION_SCHEMA.TABLE_CONSTRAINTS AS t "
            "JOIN INFORMATION_SCHEMA.KEY_COLUMN_USAGE AS k "
            "ON k.CONSTRAINT_SCHEMA = t.CONSTRAINT_SCHEMA "
            "AND k.CONSTRAINT_NAME = t.CONSTRAINT_NAME "
            "AND k.TABLE_SCHEMA = t.TABLE_SCHEMA AND k.TABLE_NAME = t.TABLE_NAME "
            "WHERE t.CONSTRAINT_TYPE IN ('PRIMARY KEY', 'UNIQUE') "
            "ORDER BY t.TABLE_SCHEMA, t.TABLE_NAME, t.CONSTRAINT_NAME, k.ORDINAL_POSITION"
        ),
    )
    indexes = session.optional(
        "the unique indexes",
        "SELECT s.name AS schema_name, t.name AS table_name, i.name AS index_name, "
        "CAST(i.is_primary_key AS int) AS is_primary, "
        "CASE WHEN i.type = 1 THEN 1 ELSE 0 END AS is_clustered, c.name AS column_name "
        "FROM sys.indexes AS i "
        "JOIN sys.index_columns AS x ON x.object_id = i.object_id AND x.index_id = i.index_id "
        "JOIN sys.columns AS c ON c.object_id = x.object_id AND c.column_id = x.column_id "
        "JOIN sys.tables AS t ON t.object_id = i.object_id "
        "JOIN sys.schemas AS s ON s.schema_id = t.schema_id "
        "WHERE i.is_unique = 1 AND i.is_disabled = 0 AND i.is_hypothetical = 0 "
        "AND i.has_filter = 0 AND x.key_ordinal > 0 "
        "ORDER BY s.name, t.name, i.name, x.key_ordinal",
    )
    found: dict[names.Folded, list[_Index]] = defaultdict(list)
    for rows in (constraints, indexes or []):
        for (schema, table, _), primary, clustered, columns in _grouped(rows):
            found[names.fold(schema, table)].append(_Index(columns, primary, clustered))
    return found


def _grouped(
    rows: Iterable[Values],
) -> list[tuple[tuple[str, str, str], bool, bool, tuple[str, ...]]]:
    groups: dict[Values, list[str]] = defaultdict(list)
    for *index, column in rows:
        groups[tuple(index)].append(column)
    return [
        ((schema, table, name), bool(primary), bool(clustered), tuple(columns))
        for (schema, table, name, primary, clustered), columns in groups.items()
    ]


def _with_keys(table: SourceTable, indexes: Sequence[_Index]) -> SourceTable:
    """The key is the primary key, else a unique index without nulls. The order that costs the
    server least is that of the clustered index, if its columns can tell a position."""
    by_name = {column.name.casefold(): column for column in table.columns}
    by_name.update({column.name: column for column in table.columns})

    def columns(index: _Index) -> tuple[Column, ...]:
        return tuple(by_name[n if n in by_name else n.casefold()] for n in index.columns)

    # A table that is altered just now may have an index of a column that was not listed.
    known = [i for i in indexes if all({n, n.casefold()} & by_name.keys() for n in i.columns)]
    usable = [i for i in known if not any(c.nullable for c in columns(i))]
    keys = sorted(usable, key=lambda i: (not i.primary, len(i.columns), i.columns))
    orders = sorted(
        (i for i in usable if all(column.orderable for column in columns(i))),
        key=lambda i: (not i.clustered, not i.primary, len(i.columns), i.columns),
    )
    return replace(
        table,
        key=columns(keys[0]) if keys else (),
        order=columns(orders[0]) if orders else (),
    )


def _estimates(session: Session) -> dict[names.Folded, int]:
    """How many rows the tables have, as far as the server tells."""
    for view, rows in (("sys.dm_db_partition_stats", "row_count"), ("sys.partitions", "rows")):
        found = session.optional(
            "the sizes of the tables",
            f"SELECT s.name AS schema_name, t.name AS table_name, SUM(p.{rows}) AS row_count "  # noqa: S608
            "FROM sys.tables AS t JOIN sys.schemas AS s ON s.schema_id = t.schema_id "
            f"JOIN {view} AS p ON p.object_id = t.object_id "
            "WHERE p.index_id IN (0, 1) GROUP BY s.name, t.name",
        )
        if found:
            return {names.fold(schema, table): int(n) for schema, table, n in found}
    return {}


def _tracked(session: Session) -> dict[names.Folded, int]:
    """Of each table with Change Tracking the version at which it began.

    https://learn.microsoft.com/sql/relational-databases/system-catalog-views/change-tracking-catalog-views-sys-change-tracking-tables
    """
    found = session.optional(
        "Change Tracking",
        "SELECT s.name AS schema_name, t.name AS table_name, c.begin_version "
        "FROM sys.change_tracking_tables AS c "
        "JOIN sys.tables AS t ON t.object_id = c.object_id "
        "JOIN sys.schemas AS s ON s.schema_id = t.schema_id",
    )
    return {names.fold(schema, table): int(begin or 0) for schema, table, begin in found or []}


def _current_version(session: Session) -> int | None:
    """The version of Change Tracking that the database is at."""
    found = session.optional(
        "Change Tracking", "SELECT CHANGE_TRACKING_CURRENT_VERSION() AS version"
    )
    return found[0][0] if found else None


def _can_read_changes(session: Session, table: SourceTable, version: int | None) -> bool:
    """The login may lack the right, and a replica may list what it cannot read.

    ``version`` is the current one, since which little or nothing changed: to ask for all changes
    that the server knows would be the dearest question there is. It stands in the statement as a
    number, since an expression there is an error.
    """
    if version is None:
        return False
    name = f"{names.quoted(table.schema)}.{names.quoted(table.name)}"
    asked = f"SELECT TOP (1) 1 AS one FROM CHANGETABLE(CHANGES {name}, {version}) AS CT"  # noqa: S608
    return session.optional(f"Change Tracking of {table.label}", asked) is not None
