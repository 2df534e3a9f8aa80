"""The catalog views: their columns, and their rows from the tables of a store.

Columns follow the documentation of each view; columns that no connector asks for are not there.
Sources: https://learn.microsoft.com/sql/relational-databases/system-information-schema-views/
and .../system-catalog-views/.
"""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.sandbox.mssql import types
from tests.sandbox.mssql.errors import SqlError
from tests.sandbox.mssql.store import ColumnDef, IndexDef, Store, TableDef, ViewDef
from tests.sandbox.mssql.types import SqlType
from tests.sandbox.mssql.wire import Column

_CREATED = types.ticks_of(dt.datetime(2024, 1, 2, 3, 4, 5))
_TYPE_IDS = {
    "image": 34, "text": 35, "uniqueidentifier": 36, "date": 40, "time": 41, "datetime2": 42,
    "datetimeoffset": 43, "tinyint": 48, "smallint": 52, "int": 56, "smalldatetime": 58,
    "real": 59, "money": 60, "datetime": 61, "float": 62, "sql_variant": 98, "ntext": 99,
    "bit": 104, "decimal": 106, "numeric": 108, "smallmoney": 122, "bigint": 127,
    "hierarchyid": 240, "geometry": 240, "geography": 240, "varbinary": 165, "varchar": 167,
    "binary": 173, "char": 175, "timestamp": 189, "nvarchar": 231, "nchar": 239, "xml": 241,
    "sysname": 231, "json": 244,
}  # fmt: skip
_USER_TYPE_IDS = {"hierarchyid": 128, "geometry": 129, "geography": 130, "sysname": 256}
_MAX_LENGTHS = {
    "bit": 1, "tinyint": 1, "smallint": 2, "int": 4, "bigint": 8, "real": 4, "float": 8,
    "money": 8, "smallmoney": 4, "date": 3, "datetime": 8, "smalldatetime": 4,
    "uniqueidentifier": 16, "text": 16, "ntext": 16, "image": 16, "timestamp": 8, "xml": -1,
    "json": -1, "sql_variant": 8016, "hierarchyid": 892, "geometry": -1, "geography": -1,
}  # fmt: skip


@dataclass
class DatabaseInfo:
    """What sys.databases says of one database."""

    name: str
    id: int
    collation: str
    compatibility_level: int = 160
    snapshot: bool = False
    read_committed_snapshot: bool = False
    tracking: bool = False
    unmask: bool = False  # whether logins see what dynamic data masking hides
    read_only: bool = False  # as on a secondary replica
    cdc: bool = False  # Change Data Capture
    roles: set[str] = field(default_factory=set)  # of the logins without further rights


@dataclass(frozen=True)
class OpenTransaction:
    """A transaction that was begun and has not ended. ``began``: local ticks; ``spid`` 0: of no
    session, such as a distributed one whose client has disconnected."""

    id: int
    began: int
    database_id: int
    spid: int
    program: str
    wrote: bool


@dataclass
class Context:
    """Where the views take their rows from."""

    store: Store
    database: DatabaseInfo
    databases: list[DatabaseInfo]
    tracking_versions: Callable[[], dict[int, tuple[int, int]]]
    transactions: list[OpenTransaction] = field(default_factory=list)
    sessions: list[tuple[int, str, str]] = field(default_factory=list)  # spid, login, program
    refused: dict[str, SqlError] = field(default_factory=dict)
    connection: sqlite3.Connection | None = None  # of the session, with its snapshot

    def tables(self) -> list[TableDef]:
        found = sorted(self.store.tables.values(), key=lambda t: t.id)
        return [table for table in found if not table.hidden]

    def views(self) -> list[ViewDef]:
        found = sorted(self.store.views.values(), key=lambda view: view.id)
        return [view for view in found if not view.hidden]

    def relations(self) -> list[TableDef]:
        """Tables, then views."""
        return [*self.tables(), *self.views()]

    def schema_id(self, table: TableDef) -> int:
        return self.store.schemas[self.store.fold(table.schema)][0]


@dataclass(frozen=True)
class View:
    """A catalog view. A volatile one is read again by every statement."""

    columns: tuple[Column, ...]
    rows: Callable[[Context], Iterable[tuple[Any, ...]]]
    volatile: bool = False


VIEWS: dict[str, View] = {}


def _view(
    name: str, columns: str, volatile: bool = False
) -> Callable[[Callable[[Context], Iterable[tuple[Any, ...]]]], Any]:
    """Registers a view; `columns` is "name type, name type, ...", a `!` means never null."""

    def register(rows: Callable[[Context], Iterable[tuple[Any, ...]]]) -> Any:
        described = []
        for part in columns.split(","):
            column, declaration = part.split()
            t = types.parse_type(declaration.rstrip("!").replace(";", ","))
            described.append(Column(column, t, nullable=not declaration.endswith("!")))
        VIEWS[name.lower()] = View(tuple(described), rows, volatile)
        return rows

    return register


def max_length(t: SqlType) -> int:
    """Bytes, as sys.columns.max_length counts them; -1 for max."""
    if t.name in _MAX_LENGTHS:
        return _MAX_LENGTHS[t.name]
    if t.name in ("decimal", "numeric"):
        return (
            5 if t.precision <= 9 else 9 if t.precision <= 19 else 13 if t.precision <= 28 else 17
        )
    if t.name in ("time", "datetime2", "datetimeoffset"):
        size = 3 if t.scale <= 2 else 4 if t.scale <= 4 else 5
        return size + {"time": 0, "datetime2": 3, "datetimeoffset": 5}[t.name]
    return t.length * 2 if t.national and t.length > 0 else t.length


def _precision(t: SqlType) -> tuple[int, int]:
    """(precision, scale) as sys.columns gives them."""
    if t.family == "int":
        return types.INT_DIGITS[t.name], 0
    if t.family in ("dec", "float"):
        return t.precision, t.scale
    fixed = {"date": (10, 0), "datetime": (23, 3), "smalldatetime": (16, 0)}
    if t.name in fixed:
        return fixed[t.name]
    base = {"time": 8, "datetime2": 19, "datetimeoffset": 26}.get(t.name, 0)
    return (base + t.scale + (t.scale > 0), t.scale) if base else (0, 0)


# INFORMATION_SCHEMA


@_view(
    "INFORMATION_SCHEMA.TABLES",
    "TABLE_CATALOG nvarchar(128), TABLE_SCHEMA nvarchar(128), TABLE_NAME sysname!, "
    "TABLE_TYPE varchar(10)",
)
def _tables(c: Context) -> Iterable[tuple[Any, ...]]:
    name = c.store.name
    yield from ((name, t.schema, t.name, "BASE TABLE") for t in c.tables())
    yield from ((name, v.schema, v.name, "VIEW") for v in c.views())


def _text_lengths(t: SqlType) -> tuple[int | None, int | None]:
    """(characters, bytes) of CHARACTER_MAXIMUM_LENGTH and CHARACTER_OCTET_LENGTH."""
    whole = {"text": (2**31 - 1,) * 2, "ntext": (2**30 - 1, 2**31 - 2), "image": (2**31 - 1,) * 2}
    if t.name in whole:
        return whole[t.name]
    if t.name in ("xml", "json", "geometry", "geography"):
        return -1, -1
    if t.name == "hierarchyid":
        return 892, 892
    if t.name == "sql_variant":
        return 0, 0
    if t.family == "str" or t.name in ("binary", "varbinary"):
        return t.length, max_length(t)
    return None, None


def _column_row(c: Context, table: TableDef, place: int, column: ColumnDef) -> tuple[Any, ...]:
    t = column.type
    characters, octets = _text_lengths(t)
    precision = radix = scale = fraction = None
    if t.family in ("int", "dec") and t.name != "bit":
        (precision, scale), radix = _precision(t), 10
    elif t.family == "float":
        precision, radix = t.precision, 2
    elif t.family in ("dt", "dto", "time"):
        fraction = {"date": 0, "datetime": 3, "smalldatetime": 0}.get(t.name, t.scale)
    charset = None
    if t.family == "str":
        charset = "UNICODE" if t.national else "iso_1"
    return (
        c.store.name,
        table.schema,
        table.name,
        column.name,
        place,
        None,
        "YES" if column.nullable else "NO",
        None if column.type_hidden else "nvarchar" if t.name == "sysname" else t.name,
        characters,
        octets,
        precision,
        radix,
        scale,
        fraction,
        charset,
        t.collation if t.family == "str" else None,
    )


@_view(
    "INFORMATION_SCHEMA.COLUMNS",
    "TABLE_CATALOG nvarchar(128), TABLE_SCHEMA nvarchar(128), TABLE_NAME sysname!, "
    "COLUMN_NAME sysname, ORDINAL_POSITION int, COLUMN_DEFAULT nvarchar(4000), "
    "IS_NULLABLE varchar(3), DATA_TYPE nvarchar(128), CHARACTER_MAXIMUM_LENGTH int, "
    "CHARACTER_OCTET_LENGTH int, NUMERIC_PRECISION tinyint, NUMERIC_PRECISION_RADIX smallint, "
    "NUMERIC_SCALE int, DATETIME_PRECISION smallint, CHARACTER_SET_NAME sysname, "
    "COLLATION_NAME sysname",
)
def _columns(c: Context) -> Iterable[tuple[Any, ...]]:
    for table in c.relations():
        for place, column in enumerate(table.columns, 1):
            yield _column_row(c, table, place, column)


@_view(
    "INFORMATION_SCHEMA.TABLE_CONSTRAINTS",
    "CONSTRAINT_CATALOG nvarchar(128), CONSTRAINT_SCHEMA nvarchar(128), "
    "CONSTRAINT_NAME sysname!, TABLE_CATALOG nvarchar(128), TABLE_SCHEMA nvarchar(128), "
    "TABLE_NAME sysname, CONSTRAINT_TYPE varchar(11), IS_DEFERRABLE varchar(2)!, "
    "INITIALLY_DEFERRED varchar(2)!",
)
def _table_constraints(c: Context) -> Iterable[tuple[Any, ...]]:
    name = c.store.name
    for table, index in _constraints(c):
        kind = "PRIMARY KEY" if index.primary else "UNIQUE"
        yield name, table.schema, index.name, name, table.schema, table.name, kind, "NO", "NO"


@_view(
    "INFORMATION_SCHEMA.KEY_COLUMN_USAGE",
    "CONSTRAINT_CATALOG nvarchar(128), CONSTRAINT_SCHEMA nvarchar(128), "
    "CONSTRAINT_NAME nvarchar(128)!, TABLE_CATALOG nvarchar(128), TABLE_SCHEMA nvarchar(128), "
    "TABLE_NAME nvarchar(128), COLUMN_NAME nvarchar(128), ORDINAL_POSITION int!",
)
def _key_column_usage(c: Context) -> Iterable[tuple[Any, ...]]:
    name = c.store.name
    for table, index in _constraints(c):
        for place, (column, _) in enumerate(index.columns, 1):
            owner = (name, table.schema, index.name, name, table.schema, table.name)
            yield (*owner, table.column(column).name, place)


@_view(
    "INFORMATION_SCHEMA.SCHEMATA",
    "CATALOG_NAME nvarchar(128), SCHEMA_NAME nvarchar(128)!, SCHEMA_OWNER nvarchar(128)",
)
def _schemata(c: Context) -> Iterable[tuple[Any, ...]]:
    return [(c.store.name, schema, "dbo") for _, schema in c.store.schemas.values()]


@_view(
    "INFORMATION_SCHEMA.VIEWS",
    "TABLE_CATALOG nvarchar(128), TABLE_SCHEMA nvarchar(128), TABLE_NAME sysname!, "
    "VIEW_DEFINITION nvarchar(4000), CHECK_OPTION varchar(7), IS_UPDATABLE varchar(2)!",
)
def _views(c: Context) -> Iterable[tuple[Any, ...]]:
    for view in c.views():
        shown = view.definition if len(view.definition) <= 4000 else None
        yield c.store.name, view.schema, view.name, shown, "NONE", "NO"


# sys


def _constraints(c: Context) -> Iterable[tuple[TableDef, IndexDef]]:
    for table in c.tables():
        for index in table.indexes:
            if index.constraint:
                yield table, index


_OBJECT_COLUMNS = (
    "name sysname!, object_id int!, principal_id int, schema_id int!, parent_object_id int!, "
    "type char(2), type_desc nvarchar(60), create_date datetime!, modify_date datetime!, "
    "is_ms_shipped bit!, is_published bit!, is_schema_published bit!"
)


def _table_object(c: Context, table: TableDef) -> tuple[Any, ...]:
    schema = c.schema_id(table)
    created = table.created or _CREATED
    # Each change counts as 10 ms, since the clock of a test may stand still.
    dates = (created, created + table.changed_in * 100_000)
    shipped = int(table.shipped)
    return table.name, table.id, None, schema, 0, "U ", "USER_TABLE", *dates, shipped, 0, 0


def _view_object(c: Context, view: ViewDef) -> tuple[Any, ...]:
    return *_table_object(c, view)[:5], "V ", "VIEW", *_table_object(c, view)[7:]


def _function_objects(c: Context) -> Iterable[tuple[Any, ...]]:
    """The functions that give the changes of captured tables."""
    for instance in c.store.capture.instances:
        place = (None, c.schema_id(instance.changes), 0)
        kind = ("IF", "SQL_INLINE_TABLE_VALUED_FUNCTION")
        dates = (instance.created, instance.created)
        for name, number in instance.functions.items():
            yield name, number, *place, *kind, *dates, 1, 0, 0


def _constraint_object(c: Context, table: TableDef, index: IndexDef) -> tuple[Any, ...]:
    kind = ("PK", "PRIMARY_KEY_CONSTRAINT") if index.primary else ("UQ", "UNIQUE_CONSTRAINT")
    owner = (c.schema_id(table), table.id)
    dates = (_CREATED, _CREATED)
    return index.name, index.constraint_id, None, *owner, *kind, *dates, 0, 0, 0


@_view("sys.objects", _OBJECT_COLUMNS)
def _sys_objects(c: Context) -> Iterable[tuple[Any, ...]]:
    yield from (_table_object(c, table) for table in c.tables())
    yield from (_view_object(c, view) for view in c.views())
    yield from _function_objects(c)
    yield from (_constraint_object(c, table, index) for table, index in _constraints(c))


@_view(
    "sys.tables",
    _OBJECT_COLUMNS + ", max_column_id_used int!, is_replicated bit, is_tracked_by_cdc bit, "
    "lock_escalation tinyint, is_memory_optimized bit, temporal_type tinyint, "
    "is_external bit!, is_node bit, is_edge bit, temporal_type_desc nvarchar(60), "
    "history_table_id int",
)
def _sys_tables(c: Context) -> Iterable[tuple[Any, ...]]:
    for table in c.tables():
        captured, kind = int(bool(table.captures)), _temporal_kind(table)
        facts = (table.next_column_id - 1, 0, captured, 0, 0, kind, 0, 0, 0, _TEMPORAL[kind])
        yield *_table_object(c, table), *facts, table.history.id if table.history else None


_TEMPORAL = ("NON_TEMPORAL_TABLE", "HISTORY_TABLE", "SYSTEM_VERSIONED_TEMPORAL_TABLE")


def _temporal_kind(table: TableDef) -> int:
    return 2 if table.history is not None else 1 if table.history_of is not None else 0


@_view(
    "sys.periods",
    "name sysname!, period_type tinyint!, period_type_desc nvarchar(60), object_id int!, "
    "start_column_id int!, end_column_id int!",
)
def _sys_periods(c: Context) -> Iterable[tuple[Any, ...]]:
    for table in c.tables():
        ends = {column.generated: column.id for column in table.columns if column.generated}
        if ends:
            yield "SYSTEM_TIME", 1, "SYSTEM_TIME_PERIOD", table.id, ends[1], ends[2]


@_view(
    "sys.views",
    _OBJECT_COLUMNS + ", is_replicated bit, has_replication_filter bit, has_opaque_metadata bit!, "
    "has_unchecked_assembly_data bit!, with_check_option bit!, is_date_correlation_view bit!",
)
def _sys_views(c: Context) -> Iterable[tuple[Any, ...]]:
    for view in c.views():
        yield *_view_object(c, view), 0, 0, 0, 0, 0, 0


@_view(
    "sys.sql_modules",
    "object_id int!, definition nvarchar(max), uses_ansi_nulls bit, uses_quoted_identifier bit, "
    "is_schema_bound bit, uses_database_collation bit, is_recompiled bit, "
    "null_on_null_input bit, execute_as_principal_id int",
)
def _sys_sql_modules(c: Context) -> Iterable[tuple[Any, ...]]:
    for view in c.views():
        yield view.id, view.definition, 1, 1, int(view.schema_bound), 0, 0, 0, None


@_view("sys.schemas", "name sysname!, schema_id int!, principal_id int")
def _sys_schemas(c: Context) -> Iterable[tuple[Any, ...]]:
    return [(name, schema_id, 1) for schema_id, name in c.store.schemas.values()]


@_view(
    "sys.columns",
    "object_id int!, name sysname, column_id int!, system_type_id tinyint!, user_type_id int!, "
    "max_length smallint!, precision tinyint!, scale tinyint!, collation_name sysname, "
    "is_nullable bit, is_ansi_padded bit!, is_rowguidcol bit!, is_identity bit!, "
    "is_computed bit!, is_filestream bit!, is_xml_document bit!, default_object_id int!, "
    "is_sparse bit, is_column_set bit, generated_always_type tinyint, is_hidden bit, "
    "is_masked bit!, encryption_type int, graph_type int, generated_always_type_desc nvarchar(60)",
)
def _sys_columns(c: Context) -> Iterable[tuple[Any, ...]]:
    for table in c.relations():
        for column in table.columns:
            t = column.type
            yield (
                table.id,
                column.name,
                column.id,
                _TYPE_IDS[t.name],
                _USER_TYPE_IDS.get(t.name, _TYPE_IDS[t.name]),
                max_length(t),
                *_precision(t),
                t.collation if t.family == "str" else None,
                int(column.nullable),
                1,
                0,
                int(column.identity),
                int(column.computed is not None),
                *(0, 0, 0, 0, 0),
                column.generated,
                int(column.hidden),
                int(column.masked),
                2 if column.encrypted else None,
                column.graph,
                ("NOT_APPLICABLE", "AS_ROW_START", "AS_ROW_END")[column.generated],
            )


@_view(
    "sys.types",
    "name sysname!, system_type_id tinyint!, user_type_id int!, schema_id int!, "
    "max_length smallint!, precision tinyint!, scale tinyint!, collation_name sysname, "
    "is_nullable bit, is_user_defined bit!, is_assembly_type bit!, is_table_type bit!",
)
def _sys_types(c: Context) -> Iterable[tuple[Any, ...]]:
    for name, type_id in _TYPE_IDS.items():
        t = types.parse_type(name)
        size = {"decimal": 17, "numeric": 17}.get(name, max_length(t))
        if t.family in ("str", "bin") and t.length == 1:
            size = 8000
        collation = c.store.collation if t.family == "str" else None
        user_id = _USER_TYPE_IDS.get(name, type_id)
        assembly = int(t.family == "udt")
        yield name, type_id, user_id, 4, size, *_precision(t), collation, 1, 0, assembly, 0


def _all_indexes(table: TableDef) -> Iterable[IndexDef]:
    if not any(index.clustered for index in table.indexes) and not isinstance(table, ViewDef):
        yield IndexDef(0, "", [], unique=False)
    yield from table.indexes


@_view(
    "sys.indexes",
    "object_id int!, name sysname, index_id int!, type tinyint!, type_desc nvarchar(60), "
    "is_unique bit, data_space_id int, ignore_dup_key bit, is_primary_key bit, "
    "is_unique_constraint bit, fill_factor tinyint!, is_padded bit, is_disabled bit, "
    "is_hypothetical bit, allow_row_locks bit, allow_page_locks bit, has_filter bit, "
    "filter_definition nvarchar(max)",
)
def _sys_indexes(c: Context) -> Iterable[tuple[Any, ...]]:
    kinds = {0: (0, "HEAP"), 1: (1, "CLUSTERED")}
    for table in c.relations():
        for index in _all_indexes(table):
            kind = kinds.get(index.id, (2, "NONCLUSTERED"))
            unique_constraint = index.constraint and not index.primary
            off = int(index.disabled)
            flags = (int(index.primary), int(unique_constraint), 0, 0, off, 0, 1, 1, 0, None)
            yield table.id, index.name or None, index.id, *kind, int(index.unique), 1, 0, *flags


@_view(
    "sys.index_columns",
    "object_id int!, index_id int!, index_column_id int!, column_id int!, key_ordinal tinyint!, "
    "partition_ordinal tinyint!, is_descending_key bit, is_included_column bit",
)
def _sys_index_columns(c: Context) -> Iterable[tuple[Any, ...]]:
    for table in c.relations():
        for index in table.indexes:
            for place, (name, descending) in enumerate(index.columns, 1):
                column = table.column(name).id
                yield table.id, index.id, place, column, place, 0, int(descending), 0


@_view(
    "sys.key_constraints",
    _OBJECT_COLUMNS + ", unique_index_id int, is_system_named bit!, is_enforced bit",
)
def _sys_key_constraints(c: Context) -> Iterable[tuple[Any, ...]]:
    for table, index in _constraints(c):
        yield *_constraint_object(c, table, index), index.id, 0, 1


@_view(
    "sys.computed_columns",
    "object_id int!, name sysname, column_id int!, definition nvarchar(max), "
    "uses_database_collation bit!, is_persisted bit!, is_computed bit!, is_nullable bit",
)
def _sys_computed(c: Context) -> Iterable[tuple[Any, ...]]:
    for table in c.tables():
        for column in table.columns:
            if column.computed is not None:
                definition = f"({column.computed})"
                yield table.id, column.name, column.id, definition, 1, 0, 1, int(column.nullable)


@_view(
    "sys.identity_columns",
    "object_id int!, name sysname, column_id int!, seed_value sql_variant, "
    "increment_value sql_variant, last_value sql_variant",
)
def _sys_identity(c: Context) -> Iterable[tuple[Any, ...]]:
    for table in c.tables():
        for column in table.columns:
            if column.identity:
                yield table.id, column.name, column.id, None, None, None


@_view(
    "sys.partitions",
    "partition_id bigint!, object_id int!, index_id int!, partition_number int!, "
    "hobt_id bigint!, rows bigint, filestream_filegroup_id smallint!, "
    "data_compression tinyint!, data_compression_desc nvarchar(60)",
    volatile=True,
)
def _sys_partitions(c: Context) -> Iterable[tuple[Any, ...]]:
    for table in c.tables():
        rows = c.store.row_count(table.id)
        for index in _all_indexes(table):
            number = table.id * 65536 + index.id
            yield number, table.id, index.id, 1, number, rows, 0, 0, "NONE"


@_view(
    "sys.dm_db_partition_stats",
    "partition_id bigint, object_id int!, index_id int!, partition_number int!, "
    "in_row_data_page_count bigint, in_row_used_page_count bigint, used_page_count bigint, "
    "reserved_page_count bigint, row_count bigint",
    volatile=True,
)
def _partition_stats(c: Context) -> Iterable[tuple[Any, ...]]:
    for table in c.tables():
        rows = c.store.row_count(table.id)
        pages = rows // 40 + 1
        for index in _all_indexes(table):
            number = table.id * 65536 + index.id
            yield number, table.id, index.id, 1, pages, pages, pages, pages + 8, rows


@_view(
    "sys.databases",
    "name sysname!, database_id int!, create_date datetime!, compatibility_level tinyint!, "
    "collation_name sysname, user_access tinyint, user_access_desc nvarchar(60), "
    "is_read_only bit, state tinyint, state_desc nvarchar(60), "
    "snapshot_isolation_state tinyint, snapshot_isolation_state_desc nvarchar(60), "
    "is_read_committed_snapshot_on bit, recovery_model tinyint, recovery_model_desc nvarchar(60), "
    "is_cdc_enabled bit!",
    volatile=True,
)
def _sys_databases(c: Context) -> Iterable[tuple[Any, ...]]:
    for d in c.databases:
        snapshot = (1, "ON") if d.snapshot else (0, "OFF")
        access = (0, "MULTI_USER", 0, 0, "ONLINE")
        start = (d.name, d.id, _CREATED, d.compatibility_level, d.collation)
        yield *start, *access, *snapshot, int(d.read_committed_snapshot), 1, "FULL", int(d.cdc)


@_view(
    "sys.extended_properties",
    "class tinyint!, class_desc nvarchar(60), major_id int!, minor_id int!, name sysname!, "
    "value sql_variant",
)
def _extended_properties(c: Context) -> Iterable[tuple[Any, ...]]:
    return []


@_view(
    "sys.change_tracking_databases",
    "database_id int!, is_auto_cleanup_on bit, retention_period int, "
    "retention_period_units tinyint, retention_period_units_desc nvarchar(60)",
    volatile=True,
)
def _tracking_databases(c: Context) -> Iterable[tuple[Any, ...]]:
    return [(d.id, 1, 2, 3, "DAYS") for d in c.databases if d.tracking]


@_view(
    "sys.change_tracking_tables",
    "object_id int!, is_track_columns_updated_on bit, min_valid_version bigint, "
    "begin_version bigint, cleanup_version bigint",
    volatile=True,
)
def _tracking_tables(c: Context) -> Iterable[tuple[Any, ...]]:
    versions = c.tracking_versions()
    for table in c.tables():
        if table.tracked:
            lowest, begin = versions[table.id]
            yield table.id, 0, lowest, begin, lowest


# Open transactions:
# https://learn.microsoft.com/sql/relational-databases/system-dynamic-management-views/transaction-related-dynamic-management-views-and-functions-transact-sql


@_view(
    "sys.dm_tran_database_transactions",
    "transaction_id bigint!, database_id int!, database_transaction_begin_time datetime, "
    "database_transaction_type int!, database_transaction_state int!",
    volatile=True,
)
def _database_transactions(c: Context) -> Iterable[tuple[Any, ...]]:
    for t in c.transactions:
        yield t.id, t.database_id, t.began if t.wrote else None, 1, 4 if t.wrote else 3


@_view(
    "sys.dm_tran_active_transactions",
    "transaction_id bigint!, name nvarchar(32)!, transaction_begin_time datetime!, "
    "transaction_type int!, transaction_state int!",
    volatile=True,
)
def _active_transactions(c: Context) -> Iterable[tuple[Any, ...]]:
    for t in c.transactions:
        yield t.id, "user_transaction", t.began, 1 if t.spid else 4, 2
    yield 1, "worktable", _CREATED, 2, 2


@_view(
    "sys.dm_tran_session_transactions",
    "session_id int!, transaction_id bigint!, is_user_transaction bit!",
    volatile=True,
)
def _session_transactions(c: Context) -> Iterable[tuple[Any, ...]]:
    return [(t.spid, t.id, 1) for t in c.transactions if t.spid]


@_view(
    "sys.dm_exec_sessions",
    "session_id smallint!, login_name nvarchar(128)!, program_name nvarchar(128), "
    "is_user_process bit!",
    volatile=True,
)
def _exec_sessions(c: Context) -> Iterable[tuple[Any, ...]]:
    return [(spid, login, program, 1) for spid, login, program in c.sessions]
