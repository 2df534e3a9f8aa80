"""Finds the tables of the database, their columns and keys, and names them for the destination.

https://learn.microsoft.com/sql/relational-databases/system-information-schema-views/
"""

import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from . import naming, restrictions, table_keys, type_mapping
from .naming import ColumnName, Name, quoted
from .session import Session
from .source_tables import Column, SourceTable, known_columns
from .table_state import TableState
from .type_mapping import ColumnInfo

_SYSTEM_SCHEMAS = ("sys", "information_schema")
# Tools put these into dbo, and the server does not count them as its own.
_SYSTEM_TABLES = ("sysdiagrams", "dtproperties")
# The state of the tables by their labels, as `dbo.Patients`.
TableStates = Mapping[str, TableState]


@dataclass(frozen=True)
class Selection:
    """What the settings select: patterns of tables and columns, and how many tables (0: all)."""

    tables: Sequence[str] = ()
    exclude_tables: Sequence[str] = ()
    exclude_columns: Sequence[str] = ()
    max_tables: int = 0


@dataclass(frozen=True)
class DatabaseSchema:
    """What a sync reads.

    tables      the tables to sync
    all         labels of all tables that there are
    over_limit  labels of those that max_tables excludes
    warnings    what the user should know
    states      the state of the tables to sync, and of others that the destination may hold
    """

    tables: tuple[SourceTable, ...]
    all: frozenset[str]
    over_limit: tuple[str, ...]
    warnings: tuple[str, ...]
    states: dict[str, TableState]


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
    session: Session, selection: Selection, states: TableStates, *, keep_names: bool = True
) -> DatabaseSchema:
    """The tables that the settings select, in the order of their names. ``states``: what the last
    sync saved of them. Without ``keep_names`` they are named as if nothing was saved, and a table
    that had other names is reloaded.

    Raises SourceError, and SettingsError for a pattern that names no table or column.
    """
    details = _read_details(session)
    tables = session.with_retries("the tables", lambda: _read_tables(session, details))
    found = [table for table in tables if table.columns]
    selected = naming.select([_name(t) for t in found], selection.tables, selection.exclude_tables)
    excluded = naming.select_columns(
        [(*_name(t), c.name) for t in found for c in t.columns], selection.exclude_columns
    )
    states = _by_present_labels(found, states)
    named, warnings = _name_tables(found, selected, states if keep_names else {}, details)
    limited = named[: selection.max_tables or None]
    completed = []
    complete = _Completion(session, limited, details, excluded, keep_names=keep_names).complete
    for table in limited:
        completed_table, more = complete(table, states.get(table.label, TableState()))
        completed.append(completed_table)
        warnings += more
    return DatabaseSchema(
        tuple(completed),
        frozenset(table.label for table in found),
        tuple(table.label for table in named[len(limited) :]),
        tuple(warnings),
        _states_to_keep(completed, named, found, states),
    )


def _name(table: SourceTable) -> Name:
    return table.schema, table.name


# Finding the tables


def _read_details(session: Session) -> dict[Name, _Details]:
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
    for schema, table, name, nullable, *values in session.rows(
        "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, IS_NULLABLE, DATA_TYPE, "
        "CHARACTER_MAXIMUM_LENGTH, NUMERIC_PRECISION, NUMERIC_SCALE, DATETIME_PRECISION, "
        "COLLATION_NAME FROM INFORMATION_SCHEMA.COLUMNS "
        "ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"
    ):
        # A CLR type that the login has no right on has no name.
        info = ColumnInfo((values[0] or "").lower(), *values[1:])
        columns[schema, table].append(Column(name, info, nullable != "NO"))
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


# Names


def _by_present_labels(found: Sequence[SourceTable], states: TableStates) -> dict[str, TableState]:
    """The states by the labels of today. Labels of older versions had no brackets, so that two
    tables could share one; and a table may be spelled in another case now."""
    sharing: dict[str, list[str]] = defaultdict(list)
    for table in found:
        if table.label != (plain := f"{table.schema}.{table.name}"):
            sharing[plain].append(table.label)
    present = {label: state for label, state in states.items() if label not in sharing}
    for plain, labels in sharing.items():
        if plain in states and len(labels) == 1:
            present.setdefault(labels[0], states[plain])
    there = {table.label for table in found}
    spelled = {label.casefold(): label for label in present if label not in there}
    for label in sorted(there - present.keys()):
        if (before := spelled.pop(label.casefold(), None)) is not None:
            present[label] = present.pop(before)
    return present


def _name_tables(
    found: Sequence[SourceTable],
    selected: set[Name],
    states: TableStates,
    details: Mapping[Name, _Details],
) -> tuple[list[SourceTable], list[str]]:
    """Those of ``found`` that are ``selected``, with their names at the destination, and warnings.
    A table keeps the name that it has in the state, also when it is not there: the destination
    still has its rows, and its key."""

    def created(table: Name) -> tuple[str, int]:
        known = details.get(table)
        return (known.created, known.object_id) if known else ("", 0)

    tables = [table for table in found if _name(table) in selected]
    labels = {table.label: _name(table) for table in tables}
    saved = {
        label: state.destination
        for label, state in states.items()
        if state.destination is not None
    }
    kept = {labels[label]: destination for label, destination in saved.items() if label in labels}
    taken = [destination for label, destination in saved.items() if label not in labels]
    in_order = sorted(map(_name, tables), key=created)
    destinations, warnings = naming.of_tables(in_order, kept, taken)
    by_name = dict(zip(in_order, destinations, strict=True))
    return [replace(table, destination=by_name[_name(table)]) for table in tables], warnings


def _name_columns(table: SourceTable, state: TableState) -> tuple[SourceTable, list[str]]:
    """The names that columns have in the state stay theirs, also where one was dropped."""
    kept = state.column_names or {}
    every = [column.name for column in table.columns]
    destinations, warnings = naming.of_columns(
        table.label,
        every,
        kept,
        first=[column.name for column in _named_before(table, state)],
        as_before=state != TableState() and state.key_types is None,
    )
    by_name = dict(zip(every, destinations, strict=True))
    columns = tuple(replace(c, destination=by_name[c.name]) for c in table.columns)
    renamed = tuple(naming.to_remember({**kept, **by_name}).items())
    return replace(table, columns=columns, renamed=renamed), warnings


def _named_before(table: SourceTable, state: TableState) -> Sequence[Column]:
    """The columns that had a name when the state was saved, as far as it tells."""
    known = state.cursor.columns
    return known_columns(table.columns, known) or () if known else ()


# Completing the tables


class _Completion:
    """Completes ``tables`` by what the catalog views tell of all of them: restrictions, keys,
    estimates, Change Tracking. ``excluded``: the columns that the settings exclude."""

    def __init__(
        self,
        session: Session,
        tables: Sequence[SourceTable],
        details: Mapping[Name, _Details],
        excluded: Collection[ColumnName],
        *,
        keep_names: bool,
    ) -> None:
        self._session, self._keep_names = session, keep_names
        names = {_name(table) for table in tables}
        ids = [details[_name(table)].object_id for table in tables if _name(table) in details]
        self._restrictions = restrictions.read(session, names, ids, excluded)
        self._estimates = _read_estimates(session)
        self._indexes = table_keys.read(session)
        self._tracked = _read_tracked(session)
        self._version = _current_version(session) if self._tracked else None

    def complete(self, table: SourceTable, state: TableState) -> tuple[SourceTable, list[str]]:
        """The table with its columns, its key and what else is known of it, and warnings."""
        name = _name(table)
        table, warnings = self._with_column_names(table, state)
        if state.destination not in (None, table.destination):
            state = TableState()  # there is no key yet under the name that it has now
        table, more = self._with_key(table, state)
        warnings += more
        if not table.fault and state.key_types not in (None, table_keys.types_of(table.key)):
            reason = table.reload_reason or "the type of its key changed"
            table = replace(table, reload_reason=reason)
        since, more = self._tracked_since(table)
        estimate = self._estimates.get(name)
        return replace(table, estimate=estimate, tracked_since=since), [*warnings, *more]

    def _with_column_names(
        self, table: SourceTable, state: TableState
    ) -> tuple[SourceTable, list[str]]:
        """The table with the names of its columns, and with the reason why it is reloaded."""
        reason = _reload_reason(table, state) or _doubtful_names(table, state)
        named, warnings = _name_columns(table, TableState() if reason else state)
        if not self._keep_names and not reason:
            kept = named.columns
            named, warnings = _name_columns(table, TableState())
            reason = "" if named.columns == kept else "the names of its columns changed"
        return replace(named, reload_reason=reason), warnings

    def _with_key(self, table: SourceTable, state: TableState) -> tuple[SourceTable, list[str]]:
        """The table with its key and without the columns that are not read, and warnings."""
        indexes, restricted = self._indexes[_name(table)], self._restrictions[_name(table)]
        excluded, masked = restricted.excluded, restricted.masked
        if len(excluded) == len(table.columns) and {*excluded.values()} == {restrictions.DENIED}:
            excluded = {}  # nothing of the table may be read: the server's error says so
        warnings = restrictions.warnings(table.label, excluded, masked)
        # No column of a primary key has nulls, whatever a catalog view says.
        primary = {name for i in indexes if i.primary for name in i.columns}
        columns = tuple(
            replace(c, nullable=c.nullable and c.name not in primary, masked=c.name in masked)
            for c in table.columns
        )
        table = replace(table, columns=columns)
        keys = table_keys.Keys(table, indexes, excluded, state.key, self._null_check(table))
        table, more = keys.choose()
        warnings += [*more, *_unknown_types(table)]
        unreadable = {*excluded.values()} - {restrictions.INTERNAL}
        if not (table.key or table.fault) and (masked or unreadable):
            warnings.append(
                f"{table.label} has no key, and some of its columns are masked or not read: rows "
                "that differ in nothing else become one"
            )
        return table, warnings

    def _null_check(self, table: SourceTable) -> Callable[[Column], bool]:
        """Asks the server whether a column of the table holds nulls."""

        def has_nulls(column: Column) -> bool:
            source = f"{quoted(table.schema)}.{quoted(table.name)}"
            asked = f"SELECT TOP (1) 1 AS one FROM {source} WHERE {quoted(column.name)} IS NULL"  # noqa: S608
            doing = f"a check of {column.name}, which was its key, for nulls"
            return self._session.optional(doing, asked) != []

        return has_nulls

    def _tracked_since(self, table: SourceTable) -> tuple[int | None, list[str]]:
        """Since which version Change Tracking tells the changes, None if it is not used, and what
        the user should know in that case."""
        since = self._tracked.get(_name(table))
        if since is None or table.fault:
            return None, []
        # It names a row by its primary key, so that has to be the key of the destination, too.
        indexes = self._indexes[_name(table)]
        primary = {name for i in indexes if i.primary for name in i.columns}
        if table.key and primary != {column.name for column in table.key}:
            return None, [f"{table.label}: Change Tracking is not used, since it has another key"]
        if _can_read_changes(self._session, table, self._version):
            return since, []
        warning = (
            f"{table.label} has Change Tracking, which mssql_user cannot read: it is not used "
            "unless you GRANT VIEW CHANGE TRACKING on the table to mssql_user"
        )
        return None, [warning]


def _reload_reason(table: SourceTable, state: TableState) -> str:
    """Why what the state says of a table is not of this one, "" if it is."""
    if table.identity is not None and state.identity not in (None, table.identity):
        return "the table was dropped and recreated at the source"
    if state.destination not in (None, table.destination):
        return "its name at the destination changed"
    return ""


def _doubtful_names(table: SourceTable, state: TableState) -> str:
    """Why a column may have got the name of another one at the destination, "" if none has."""
    known = state.cursor.columns
    if not known or known_columns(table.columns, known) is not None:
        return ""
    shared = naming.to_remember({column.name: column.name for column in table.columns})
    if shared.keys() <= (state.column_names or {}).keys():
        return ""
    return "columns were renamed or dropped, and others have their names at the destination now"


def _unknown_types(table: SourceTable) -> list[str]:
    return [
        f"{table.label}: column {column.name} has a type that mssql_user has no right on; it is "
        "read as text"
        if not column.info.name
        else f"{table.label}: the type {column.info.name} of column {column.name} is not known; "
        "it is read as text"
        for column in table.columns
        if column.type_mapping is type_mapping.UNKNOWN
    ]


def _states_to_keep(
    tables: Sequence[SourceTable],
    named: Sequence[SourceTable],
    found: Sequence[SourceTable],
    states: TableStates,
) -> dict[str, TableState]:
    """The states of the tables that are read, and what must be known of others if they come back:
    their names and keys at the destination. A table that is excluded after its key was refused is
    forgotten, as the user was told to bring about."""
    kept = {t.label: states[t.label] for t in tables if t.label in states}
    excluded = {table.label for table in found} - {table.label for table in named}
    for label, state in states.items():
        forgotten = label in excluded and state.key_refused
        if label not in kept and state.destination is not None and not forgotten:
            kept[label] = state.lasting()
    return kept


def _read_estimates(session: Session) -> dict[Name, int]:
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


def _read_tracked(session: Session) -> dict[Name, int]:
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


def _current_version(session: Session) -> int | None:
    """The version of Change Tracking that the database is at."""
    found = session.optional(
        "Change Tracking", "SELECT CHANGE_TRACKING_CURRENT_VERSION() AS version"
    )
    return found[0][0] if found else None


def _can_read_changes(session: Session, table: SourceTable, version: int | None) -> bool:
    """The login may lack the right, and a replica may list what it cannot read.

    ``version`` is the current one, since which little or nothing changed: to ask for all changes
    that the server knows would be the most expensive query there is. The statement has it as a
    number, since an expression there is an error.
    """
    if version is None:
        return False
    name = f"{quoted(table.schema)}.{quoted(table.name)}"
    asked = f"SELECT TOP (1) 1 AS one FROM CHANGETABLE(CHANGES {name}, {version}) AS CT"  # noqa: S608
    return session.optional(f"Change Tracking of {table.label}", asked) is not None
