"""Reads the catalog views: the tables of the database, their columns, keys and sizes.

However many tables there are, a handful of statements asks for all of them, and what they return
is looked at row by row: a database has ten thousand tables, and a sync little memory.
https://learn.microsoft.com/sql/relational-databases/system-information-schema-views/
"""

import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from shared.errors import SettingsError

from . import change_capture, naming, restrictions, table_keys
from .change_capture import Captures
from .naming import Chosen, ColumnName, Name, quoted
from .restrictions import Restrictions
from .session import Session, Values
from .source_tables import Column, SourceTable
from .table_keys import Index
from .type_mapping import ColumnInfo

_SYSTEM_SCHEMAS = ("sys", "information_schema")
# Tools put these into dbo, and the server does not count them as its own.
_SYSTEM_TABLES = ("sysdiagrams", "dtproperties")
_PROBED_AT_ONCE = 100  # tables whose changes one statement asks for
_MOST_SHARED = 20_000  # columns that are looked for among those that were read before


@dataclass(frozen=True)
class Selection:
    """What the settings select: patterns of tables, columns and views, and how many of them (0:
    all); ``keys``: the columns of declared keys, by patterns of one table or view each."""

    tables: Sequence[str] = ()
    exclude_tables: Sequence[str] = ()
    exclude_columns: Sequence[str] = ()
    max_tables: int = 0
    views: Sequence[str] = ()
    keys: Mapping[str, Sequence[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Details:
    """What sys.tables knows of a table. ``created`` and ``altered`` (which a new index is, too):
    as the server writes them, to compare."""

    object_id: int
    created: str
    altered: str
    shipped: bool

    @property
    def identity(self) -> str:
        return f"{zlib.crc32(f'{self.object_id} {self.created}'.encode()):08x}"


@dataclass(frozen=True, repr=False)  # what is printed of a failure would be endless
class Catalogue:
    """What the catalog views tell.

    names         the tables that there are, in their order
    selected      those that the settings select by their names
    over_limit    those of them that max_tables excludes: all but the first
    tables        those that are synced, with all their columns
    views         those of ``names`` that are views
    details       of each table; empty where the server does not show them
    restrictions  columns of the tables that are not read, or read masked
    estimates     about how many rows the tables have
    indexes       the unique indexes of the tables
    tracked       the version at which Change Tracking of a table began
    untold        those of ``tracked`` whose changes mssql_user cannot read
    captures      the instances of Change Data Capture of the tables
    """

    names: tuple[Name, ...]
    selected: tuple[Name, ...]
    over_limit: tuple[Name, ...]
    tables: tuple[SourceTable, ...]
    views: frozenset[Name]
    details: Mapping[Name, Details]
    restrictions: Mapping[Name, Restrictions]
    estimates: Mapping[Name, int]
    indexes: Mapping[Name, list[Index]]
    tracked: Mapping[Name, int]
    untold: Collection[Name]
    captures: Mapping[Name, Captures]

    def is_current(self, session: Session) -> bool:
        """Whether no table was created, altered, dropped or renamed since, nor has another unique
        index, as far as the server tells. Rights on tables may have changed. Raises SourceError.
        """
        dated = bool(self.details) and all(known.altered for known in self.details.values())
        if self.views or not dated or read_details(session) != self.details:
            return False
        # Of a dropped index Microsoft does not say that it changes the date of its table.
        asked = Chosen(((table.schema, table.name) for table in self.tables), len(self.names))
        indexes = table_keys.read(session, asked)
        return _as_sets(indexes) == _as_sets(self.indexes)


def _as_sets(indexes: Mapping[Name, Iterable[Index]]) -> dict[Name, set[Index]]:
    return {name: set(found) for name, found in indexes.items()}


def read(session: Session, selection: Selection) -> Catalogue:
    """The tables that the settings select, and what is known of them.

    Raises SourceError, and SettingsError for a pattern that names no table or column.
    """
    details = read_details(session)
    names = session.with_retries("the tables", lambda: _read_names(session, details))
    every = names
    if selection.views:
        views = session.with_retries("the views", lambda: _read_names(session, details, "VIEW"))
        every = tuple(sorted([*names, *views], key=_in_order))
    else:
        views = ()
    chosen = naming.select(
        names, selection.tables, selection.exclude_tables, views, selection.views
    )
    selected = tuple(name for name in every if name in chosen)
    names = tuple(name for name in every if name in chosen or name not in views)
    limited = selected[: selection.max_tables or None]
    columns, excluded = _read_columns(session, names, limited, selection.exclude_columns)
    dropped = {name for name in limited if not columns[name]}  # just now
    tables = tuple(
        SourceTable(
            schema,
            table,
            columns[schema, table],
            identity=known.identity if (known := details.get((schema, table))) else None,
            is_view=(schema, table) in views,
        )
        for schema, table in limited
        if (schema, table) not in dropped
    )
    asked = Chosen({*limited} - dropped, len(names))
    ids = [details[name].object_id for name in limited if name in details]
    tracked = _read_tracked(session, asked)
    indexes = table_keys.read(session, asked)
    keyed = _with_declared_keys(tables, indexes, names, selection.keys)
    return Catalogue(
        names=tuple(name for name in names if name not in dropped),
        selected=tuple(name for name in selected if name not in dropped),
        over_limit=selected[len(limited) :],
        tables=keyed,
        views=frozenset(chosen.intersection(views)),
        details=details,
        restrictions=restrictions.read(session, asked.names, ids, excluded),
        estimates=_read_estimates(session, asked),
        indexes=indexes,
        tracked={name: begin for name, (begin, _) in tracked.items()},
        untold=_untold(session, tracked),
        captures=change_capture.read(session, asked),
    )


# Tables and columns


def read_details(session: Session) -> dict[Name, Details]:
    """What sys.tables knows of all tables; {} where the server does not show it."""

    def collect(rows: Iterable[Values]) -> dict[Name, Details]:
        return {
            (schema, table): Details(int(object_id), str(created), str(altered), bool(shipped))
            for schema, table, object_id, created, altered, shipped in rows
        }

    # A database that speaks the protocol without being SQL Server may lack the last date.
    for altered in ("CONVERT(varchar(23), t.modify_date, 121)", "''"):
        found = session.optionally(
            "the ids of the tables, and which ones are the server's own",
            "SELECT s.name AS schema_name, t.name AS table_name, t.object_id, "  # noqa: S608
            f"CONVERT(varchar(23), t.create_date, 121) AS created, {altered} AS altered, "
            "CAST(t.is_ms_shipped AS int) AS is_shipped "
            "FROM sys.tables AS t JOIN sys.schemas AS s ON s.schema_id = t.schema_id",
            collect,
            quiet=altered != "''",
        )
        if found is not None:
            return found
    return {}


def _read_names(
    session: Session, details: Mapping[Name, Details], kind: str = "BASE TABLE"
) -> tuple[Name, ...]:
    rows = session.each(
        "SELECT TABLE_SCHEMA, TABLE_NAME FROM INFORMATION_SCHEMA.TABLES "  # noqa: S608
        f"WHERE TABLE_TYPE = '{kind}'"
    )
    names = [(schema, table) for schema, table in rows if not _is_system((schema, table), details)]
    return tuple(sorted(names, key=_in_order))


def _in_order(name: Name) -> tuple[str, str, Name]:
    return name[0].casefold(), name[1].casefold(), name


def _with_declared_keys(
    tables: Sequence[SourceTable],
    indexes: dict[Name, list[Index]],
    names: Sequence[Name],
    keys: Mapping[str, Sequence[str]],
) -> tuple[SourceTable, ...]:
    """The tables, with the ``keys`` that the settings declare, which become ``indexes``. Raises
    SettingsError for one that does not fit."""
    found, faults = naming.of_each(names, keys), []
    by_name = {(table.schema, table.name): table for table in tables}
    for pattern, matching in found.items():
        if not matching:
            faults.append(f"keys: {pattern!r} is no table or view that is synced")
        for name in matching:
            table = by_name.get(name)
            if table is None:  # it is not synced
                continue
            columns = {column.name.casefold(): column.name for column in table.columns}
            missing = [column for column in keys[pattern] if column.casefold() not in columns]
            if any(not _is_nullable(table, i) for i in indexes.get(name, ())):
                faults.append(f"keys: {table.label} has a key of its own: remove it from keys")
            elif missing:
                faults.append(f"keys: {table.label} has no column {', '.join(missing)}")
            else:
                key = tuple(columns[column.casefold()] for column in keys[pattern])
                indexes[name] = [Index(key, primary=True, clustered=False)]
                by_name[name] = replace(table, has_declared_key=True)
    if faults:
        raise SettingsError("The configuration is wrong:\n" + "\n".join(faults))
    return tuple(by_name.values())


def _is_nullable(table: SourceTable, index: Index) -> bool:
    nullable = {column.name for column in table.columns if column.nullable}
    return not index.primary and bool(nullable.intersection(index.columns))


def _is_system(name: Name, details: Mapping[Name, Details]) -> bool:
    if name in details and details[name].shipped:
        return True
    schema, table = (part.casefold() for part in name)
    if not details and schema == "cdc":
        return True
    return schema in _SYSTEM_SCHEMAS or (schema == "dbo" and table in _SYSTEM_TABLES)


_COLUMNS = (
    "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, IS_NULLABLE, DATA_TYPE, "
    "CHARACTER_MAXIMUM_LENGTH, NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION, "
    "COLLATION_NAME FROM INFORMATION_SCHEMA.COLUMNS WHERE 1 = 1{} ORDER BY ORDINAL_POSITION"
)


def _read_columns(
    session: Session, names: Collection[Name], wanted: Collection[Name], exclude: Sequence[str]
) -> tuple[dict[Name, tuple[Column, ...]], set[ColumnName]]:
    """The columns of the tables that are ``wanted``, and those of any table that a pattern of
    ``exclude`` names. Raises SourceError, and SettingsError for one that names none."""
    # A pattern may name a column of a table that is not wanted, so that all have to be looked at.
    asked = Chosen(wanted, len(names)).condition("TABLE_NAME") if not exclude else ""
    sql = _COLUMNS.format(asked)
    every = frozenset(names) if exclude else frozenset()

    def once() -> tuple[dict[Name, tuple[Column, ...]], set[ColumnName]]:
        columns: dict[Name, list[Column]] = {name: [] for name in wanted}
        column_of = _shared_columns()

        def take(rows: Iterable[Values]) -> Iterator[ColumnName]:
            for row in rows:
                table = row[:2]
                if table in columns:
                    columns[table].append(column_of(row[2:]))
                if table in every:
                    yield row[:3]

        excluded = naming.select_columns(take(session.each(sql)), exclude)
        return {name: tuple(listed) for name, listed in columns.items()}, excluded

    found: tuple[dict[Name, tuple[Column, ...]], set[ColumnName]]
    found = session.with_retries("the columns of the tables", once)
    return found


def _shared_columns() -> Callable[[Values], Column]:
    """A function that makes a column of a row. Columns that are equal are one object, so that
    thousands of tables that are alike take little memory."""
    columns: dict[Values, Column] = {}
    infos: dict[Values, ColumnInfo] = {}

    def column_of(values: Values) -> Column:
        column = columns.get(values)
        if column is None:
            name, nullable, *of_type = values
            # A CLR type that the login has no right on has no name.
            of_type[0] = (of_type[0] or "").lower()
            info = infos.setdefault(tuple(of_type), ColumnInfo(*of_type))
            column = Column(name, info, nullable != "NO", name)
            if len(columns) >= _MOST_SHARED:
                columns.clear()
            columns[values] = column
        return column

    return column_of


# What else is known of the tables


def _read_estimates(session: Session, chosen: Chosen) -> dict[Name, int]:
    """How many rows the tables have, as far as the server tells."""

    def collect(rows: Iterable[Values]) -> dict[Name, int]:
        return {(schema, table): int(number) for schema, table, number in rows}

    for view, rows in (("sys.dm_db_partition_stats", "row_count"), ("sys.partitions", "rows")):
        found = session.optionally(
            "the sizes of the tables",
            f"SELECT s.name AS schema_name, t.name AS table_name, SUM(p.{rows}) AS row_count "  # noqa: S608
            "FROM sys.tables AS t JOIN sys.schemas AS s ON s.schema_id = t.schema_id "
            f"JOIN {view} AS p ON p.object_id = t.object_id "
            f"WHERE p.index_id IN (0, 1){chosen.condition('t.name')} GROUP BY s.name, t.name",
            collect,
        )
        if found:
            return found
    return {}


def _read_tracked(session: Session, chosen: Chosen) -> dict[Name, tuple[int, bool]]:
    """Of each of the tables that has Change Tracking the version at which it began, and whether
    mssql_user has no right to read the changes.

    https://learn.microsoft.com/sql/relational-databases/system-catalog-views/change-tracking-catalog-views-sys-change-tracking-tables
    """

    def collect(rows: Iterable[Values]) -> dict[Name, Any]:
        return {
            (schema, table): value
            for schema, table, value in rows
            if (schema, table) in chosen.names
        }

    def ask(value: str) -> dict[Name, Any]:
        found = session.optionally(
            "Change Tracking",
            f"SELECT s.name AS schema_name, t.name AS table_name, {value} "  # noqa: S608
            "FROM sys.change_tracking_tables AS c "
            "JOIN sys.tables AS t ON t.object_id = c.object_id "
            "JOIN sys.schemas AS s ON s.schema_id = t.schema_id",
            collect,
        )
        return found or {}

    begun = ask("c.begin_version")
    allowed = begun and ask(
        "HAS_PERMS_BY_NAME(QUOTENAME(s.name) + N'.' + QUOTENAME(t.name), 'OBJECT', "
        "'VIEW CHANGE TRACKING') AS is_allowed"
    )
    return {name: (int(begin or 0), allowed.get(name) == 0) for name, begin in begun.items()}


def _untold(session: Session, tracked: Mapping[Name, tuple[int, bool]]) -> set[Name]:
    """Those of the ``tracked`` tables whose changes cannot be read: the login may lack the right,
    and a replica may list what it cannot read."""
    if not tracked:
        return set()
    version = _current_version(session)
    if version is None:
        return set(tracked)
    refused = {name for name, (_, is_refused) in tracked.items() if is_refused}
    left = sorted(tracked.keys() - refused)
    for start in range(0, len(left), _PROBED_AT_ONCE):
        refused.update(_refused(session, left[start : start + _PROBED_AT_ONCE], version))
    return refused


def _refused(session: Session, tables: Sequence[Name], version: int) -> Sequence[Name]:
    """Those of the tables whose changes the server refuses to tell, which are found by halves.

    ``version`` is the current one, since which little or nothing changed: to ask for all changes
    that the server knows would be the most expensive query there is. The statement has it as a
    number, since an expression there is an error.
    """
    single = len(tables) == 1
    what = naming.label(*tables[0]) if single else f"{len(tables)} tables"
    probes = (
        f"SELECT TOP (1) 1 AS one FROM CHANGETABLE(CHANGES {quoted(schema)}.{quoted(name)}, "  # noqa: S608
        f"{version}) AS CT"
        for schema, name in tables
    )
    asked = " UNION ALL ".join(probes)
    doing = f"Change Tracking of {what}"
    if session.optionally(doing, asked, list, quiet=not single) is not None:
        return ()
    if single:
        return tables
    half = len(tables) // 2
    return [*_refused(session, tables[:half], version), *_refused(session, tables[half:], version)]


def _current_version(session: Session) -> int | None:
    """The version of Change Tracking that the database is at."""
    found = session.optional(
        "Change Tracking", "SELECT CHANGE_TRACKING_CURRENT_VERSION() AS version"
    )
    return found[0][0] if found else None
