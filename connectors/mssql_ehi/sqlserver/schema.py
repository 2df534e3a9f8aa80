"""What there is to read: tables, columns and keys of the database, and their names at the
destination.

https://learn.microsoft.com/sql/relational-databases/system-information-schema-views/
"""

import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import naming, restrictions, table_keys, type_mapping
from .naming import Name, quoted
from .session import Session
from .source_tables import Column, SourceTable, fingerprint
from .type_mapping import ColumnInfo

_SYSTEM_SCHEMAS = ("sys", "information_schema")
# Tools put these into dbo, and the server does not count them as its own.
_SYSTEM_TABLES = ("sysdiagrams", "dtproperties")
# What the state keeps of a table that is not read for a while: what the destination has of it.
_LASTING = ("as", "key", "types", "id", "names")
Entries = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Wanted:
    """What the settings say of what is to be synced: patterns, and how many tables (0: all)."""

    tables: Sequence[str] = ()
    exclude_tables: Sequence[str] = ()
    exclude_columns: Sequence[str] = ()
    max_tables: int = 0


@dataclass(frozen=True)
class Catalogue:
    """The ``tables`` to sync, the labels of ``all`` there are, of those that max_tables
    ``left_out``, what the user should know, and the ``entries`` that the state has of the tables
    to sync and of others that the destination may hold, by their labels."""

    tables: tuple[SourceTable, ...]
    all: frozenset[str]
    left_out: tuple[str, ...]
    warnings: tuple[str, ...]
    entries: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class _Details:
    """What sys.tables knows of a table. ``created``: as the server writes it, to compare."""

    object_id: int
    created: str
    shipped: bool

    @property
    def identity(self) -> str:
        return f"{zlib.crc32(f'{self.object_id} {self.created}'.encode()):08x}"


def discover(
    session: Session, wanted: Wanted, entries: Entries, *, keep_names: bool = True
) -> Catalogue:
    """The tables that the settings want, in the order of their names. ``entries``: what the state
    has of them. Without ``keep_names`` they are named as if there was no state, and a table that
    had other names is loaded anew.

    Raises SourceError, and SettingsError for a pattern that names no table or column.
    """
    details = _details(session)
    found = session.with_retries("the catalogue", lambda: _read_tables(session, details))
    found = [table for table in found if table.columns]
    chosen = naming.select([_name(t) for t in found], wanted.tables, wanted.exclude_tables)
    excluded = naming.select_columns(
        [(*_name(t), c.name) for t in found for c in t.columns], wanted.exclude_columns
    )
    entries = _by_present_labels(found, entries)
    named, warnings = _name_tables(found, chosen, entries if keep_names else {}, details)
    kept = named[: wanted.max_tables or None]
    ids = [details[_name(table)].object_id for table in kept if _name(table) in details]
    restricted = restrictions.read(session, {*map(_name, kept)}, ids, excluded)
    estimates, indexes = _estimates(session), table_keys.read(session)
    tracked = _tracked(session)
    version = _current_version(session) if tracked else None
    tables = []
    for table in kept:
        name, entry = _name(table), entries.get(table.label, {})
        built, warned = _build(
            session, table, entry, indexes[name], restricted[name], keep_names=keep_names
        )
        since, more = _tracking(session, built, indexes[name], tracked.get(name), version)
        warnings += [*warned, *more]
        tables.append(replace(built, estimate=estimates.get(name), tracked_since=since))
    return Catalogue(
        tuple(tables),
        frozenset(table.label for table in found),
        tuple(table.label for table in named[len(kept) :]),
        tuple(warnings),
        _lasting(tables, named, found, entries),
    )


def _name(table: SourceTable) -> Name:
    return table.schema, table.name


def _details(session: Session) -> dict[Name, _Details]:
    rows = session.optional(
        "the ids of the tables, and which ones are the server's own",
        "SELECT s.name AS schema_name, t.name AS table_name, t.object_id, "
        "CONVERT(varchar(23), t.create_date, 121) AS created, "
        "CAST(t.is_ms_shipped AS int) AS is_shipped "
        "FROM sys.tables AS t JOIN sys.schemas AS s ON s.schema_id = t.schema_id",
    )
    return {
        (schema, table): _Details(int(object_id), str(created), bool(shipped))
        for schema, table, object_id, created, shipped in rows or []
    }


def _read_tables(session: Session, details: Mapping[Name, _Details]) -> list[SourceTable]:
    columns: dict[Name, list[Column]] = defaultdict(list)
    for schema, table, name, nullable, *facts in session.rows(
        "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, IS_NULLABLE, DATA_TYPE, "
        "CHARACTER_MAXIMUM_LENGTH, NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION, "
        "COLLATION_NAME FROM INFORMATION_SCHEMA.COLUMNS "
        "ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"
    ):
        # There is no type of a CLR type that the login has no right on.
        described = ColumnInfo((facts[0] or "").lower(), *facts[1:])
        columns[schema, table].append(Column(name, described, nullable != "NO"))
    tables = session.rows(
        "SELECT TABLE_SCHEMA, TABLE_NAME FROM INFORMATION_SCHEMA.TABLES "
        "WHERE TABLE_TYPE = 'BASE TABLE'"
    )
    tables.sort(key=lambda row: (row[0].casefold(), row[1].casefold(), row))
    return [
        SourceTable(
            schema,
            table,
            tuple(columns[schema, table]),
            identity=details[schema, table].identity if (schema, table) in details else None,
        )
        for schema, table in tables
        if not _is_system((schema, table), details)
    ]


def _is_system(name: Name, details: Mapping[Name, _Details]) -> bool:
    if name in details and details[name].shipped:
        return True
    schema, table = (part.casefold() for part in name)
    if not details and schema == "cdc":
        return True
    return schema in _SYSTEM_SCHEMAS or (schema == "dbo" and table in _SYSTEM_TABLES)


def _by_present_labels(found: Sequence[SourceTable], entries: Entries) -> dict[str, Any]:
    """The entries by the labels of today. Before, none had brackets, so that two tables could
    share one; and a table may be spelled in another case now."""
    sharing: dict[str, list[str]] = defaultdict(list)
    for table in found:
        if table.label != (plain := f"{table.schema}.{table.name}"):
            sharing[plain].append(table.label)
    present = {label: entry for label, entry in entries.items() if label not in sharing}
    for plain, labels in sharing.items():
        if plain in entries and len(labels) == 1:
            present.setdefault(labels[0], entries[plain])
    there = {table.label for table in found}
    spelled = {label.casefold(): label for label in present if label not in there}
    for label in sorted(there - present.keys()):
        if (before := spelled.pop(label.casefold(), None)) is not None:
            present[label] = present.pop(before)
    return present


def _name_tables(
    found: Sequence[SourceTable],
    chosen: set[Name],
    entries: Entries,
    details: Mapping[Name, _Details],
) -> tuple[list[SourceTable], list[str]]:
    """Those of ``found`` that are ``chosen``, with their names at the destination, and warnings.
    A table keeps the name that it has in the state, also when it is not there: the destination
    still has its rows, and its key."""

    def created(table: Name) -> tuple[str, int]:
        known = details.get(table)
        return (known.created, known.object_id) if known else ("", 0)

    tables = [table for table in found if _name(table) in chosen]
    labels = {table.label: _name(table) for table in tables}
    has = {label: entry["as"] for label, entry in entries.items() if "as" in entry}
    kept = {labels[label]: stored for label, stored in has.items() if label in labels}
    taken = [stored for label, stored in has.items() if label not in labels]
    in_order = sorted(map(_name, tables), key=created)
    destinations, warnings = naming.of_tables(in_order, kept, taken)
    by_name = dict(zip(in_order, destinations, strict=True))
    return [replace(table, destination=by_name[_name(table)]) for table in tables], warnings


def _build(
    session: Session,
    table: SourceTable,
    entry: Mapping[str, Any],
    indexes: Sequence[table_keys.Index],
    restricted: restrictions.Restrictions,
    *,
    keep_names: bool,
) -> tuple[SourceTable, list[str]]:
    """The table with its columns and its key, and what the user should know."""
    anew = _why_anew(table, entry)
    named, warnings = _name_columns(table, {} if anew else entry)
    if not keep_names and not anew:
        with_names = named.columns
        named, warnings = _name_columns(table, {})
        anew = "" if named.columns == with_names else "the names of its columns are other ones now"
    table = named
    if entry.get("as") not in (None, table.destination):
        entry = {}  # there is no key yet under the name that it has now
    left_out, masked = restricted.left_out, restricted.masked
    if len(left_out) == len(table.columns) and {*left_out.values()} == {restrictions.DENIED}:
        left_out = {}  # nothing of the table may be read: the server's error says so
    warnings += restrictions.warnings(table.label, left_out, masked)
    # No column of a primary key has nulls, whatever a catalogue says.
    primary = {name for i in indexes if i.primary for name in i.columns}
    columns = tuple(
        replace(c, nullable=c.nullable and c.name not in primary, masked=c.name in masked)
        for c in table.columns
    )

    def has_nulls(column: Column) -> bool:
        source = f"{quoted(table.schema)}.{quoted(table.name)}"
        asked = f"SELECT TOP (1) 1 AS one FROM {source} WHERE {quoted(column.name)} IS NULL"  # noqa: S608
        return session.optional(f"its key, {column.name}, as it was", asked) != []

    table = replace(table, columns=columns)
    table, more = table_keys.Keys(table, indexes, left_out, entry, has_nulls).chosen()
    warnings += [*more, *_unknown_types(table)]
    if not (table.key or table.fault) and (
        masked or {*left_out.values()} - {restrictions.INTERNAL}
    ):
        warnings.append(
            f"{table.label} has no key, and some of its columns are masked or left out: rows that "
            "differ in nothing else become one"
        )
    if not table.fault and entry.get("types") not in (None, table_keys.types_of(table.key)):
        anew = anew or "its key has another type now"
    return replace(table, anew=anew), warnings


def _why_anew(table: SourceTable, entry: Mapping[str, Any]) -> str:
    """Why what the state says of a table is not of this one, "" if it is."""
    if table.identity is not None and entry.get("id", table.identity) != table.identity:
        return "the table was dropped and made anew at the source"
    if entry.get("as") not in (None, table.destination):
        return "its name at the destination is another one now"
    return ""


def _name_columns(table: SourceTable, entry: Mapping[str, Any]) -> tuple[SourceTable, list[str]]:
    """The names that columns have in the state stay theirs, also where one was dropped."""
    kept = entry.get("names", {})
    known = entry.get("columns", "").split()
    every = [column.name for column in table.columns]
    destinations, warnings = naming.of_columns(
        table.label,
        every,
        kept,
        first=[column.name for column in table.columns if fingerprint([column]) in known],
        as_before=bool(entry) and "types" not in entry,
    )
    by_name = dict(zip(every, destinations, strict=True))
    columns = tuple(replace(c, destination=by_name[c.name]) for c in table.columns)
    renamed = tuple(naming.of_a_kind({**kept, **by_name}).items())
    return replace(table, columns=columns, renamed=renamed), warnings


def _unknown_types(table: SourceTable) -> list[str]:
    return [
        f"{table.label}: column {column.name} has a type that mssql_user has no right on; it is "
        "read as text"
        if not column.facts.name
        else f"{table.label}: the type {column.facts.name} of column {column.name} is not known; "
        "it is read as text"
        for column in table.columns
        if column.kind is type_mapping.UNKNOWN
    ]


def _lasting(
    tables: Sequence[SourceTable],
    named: Sequence[SourceTable],
    found: Sequence[SourceTable],
    entries: Entries,
) -> dict[str, dict[str, Any]]:
    """The entries of the tables that are read, and what must be known of others if they come back:
    their names and keys at the destination. A table that is left out after its key was refused is
    forgotten, as the user was told to bring about."""
    kept = {t.label: dict(entries[t.label]) for t in tables if t.label in entries}
    there = {table.label for table in found}
    excluded = there - {table.label for table in named}
    for label, entry in entries.items():
        forgotten = label in excluded and "refused" in entry
        if label not in kept and "as" in entry and not forgotten:
            kept[label] = {name: entry[name] for name in _LASTING if name in entry}
    return kept


def _estimates(session: Session) -> dict[Name, int]:
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
            return {(schema, table): int(n) for schema, table, n in found}
    return {}


def _tracked(session: Session) -> dict[Name, int]:
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
    return {(schema, table): int(begin or 0) for schema, table, begin in found or []}


def _tracking(
    session: Session,
    table: SourceTable,
    indexes: Sequence[table_keys.Index],
    since: int | None,
    version: int | None,
) -> tuple[int | None, list[str]]:
    """Since when Change Tracking tells the changes, if it can be used, and what the user should
    know if it cannot. ``version`` is the current one."""
    if since is None or table.fault:
        return None, []
    # It names a row by its primary key, so that has to be the key of the destination, too.
    primary = {name for i in indexes if i.primary for name in i.columns}
    if table.key and primary != {column.name for column in table.key}:
        return None, [f"{table.label}: Change Tracking is not used, since it has another key"]
    if _can_read_changes(session, table, version):
        return since, []
    warning = (
        f"{table.label} has Change Tracking, which cannot be read: the connector does without, "
        "unless you GRANT VIEW CHANGE TRACKING on the table to mssql_user"
    )
    return None, [warning]


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
    name = f"{naming.quoted(table.schema)}.{naming.quoted(table.name)}"
    asked = f"SELECT TOP (1) 1 AS one FROM CHANGETABLE(CHANGES {name}, {version}) AS CT"  # noqa: S608
    return session.optional(f"Change Tracking of {table.label}", asked) is not None
