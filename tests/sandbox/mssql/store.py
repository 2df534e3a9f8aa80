# ruff: noqa: S608 - table names are numbers of our own
"""Tables and their rows, in one SQLite file in WAL mode.

SQLite was chosen over DuckDB because it gives what this simulator needs without threads or large
buffers of its own: rows stepped one at a time in index order (a million rows are streamed without
being held), a pinned snapshot for a reader while a writer goes on, collations and functions
written in Python, and point reads that cost microseconds. The types that SQLite lacks are stored
in the comparable forms of `types`.
"""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.sandbox.mssql import types
from tests.sandbox.mssql.capture import Capture, CaptureInstance
from tests.sandbox.mssql.collation import NAMES, collation, comparer, sqlite_name
from tests.sandbox.mssql.errors import SqlError, error
from tests.sandbox.mssql.types import SqlType, Stored

Row = tuple[Stored, ...]


@dataclass
class ColumnDef:
    """A column of a table. `id` is the server's column_id, never used again after a drop."""

    id: int
    name: str
    type: SqlType
    nullable: bool = True
    identity: bool = False
    computed: str | None = None  # the T-SQL expression
    default: Callable[[], Stored] | None = None
    masked: bool = False  # dynamic data masking, by default()
    encrypted: bool = False  # Always Encrypted: what arrives without its key are bytes
    graph: int | None = None  # sys.columns.graph_type
    type_hidden: bool = False  # the login has no right on the type
    denied: bool = False  # SELECT on this column alone
    generated: int = 0  # 1 the start, 2 the end of a row's period
    hidden: bool = False  # not in SELECT *

    @property
    def sql(self) -> str:
        return f'"c{self.id}"'

    @property
    def writable(self) -> bool:
        return self.computed is None and self.type.name != "timestamp" and not self.generated


@dataclass
class IndexDef:
    """An index: the clustered one has id 1, others 2 and up."""

    id: int
    name: str
    columns: list[tuple[str, bool]]  # (column, descending)
    unique: bool = True
    clustered: bool = False
    primary: bool = False
    constraint: bool = False
    constraint_id: int = 0
    disabled: bool = False


@dataclass
class TableDef:
    """A table of a user, and what the server knows about it."""

    id: int
    schema: str
    name: str
    columns: list[ColumnDef]
    indexes: list[IndexDef] = field(default_factory=list)
    changed_in: int = 0  # schema version of the last DDL
    tracked: bool = False
    denied: set[str] = field(default_factory=set)  # SELECT, INSERT, ...
    hidden: bool = False  # no metadata either
    shipped: bool = False  # the server's own
    created: int = 0  # 100 ns since 0001-01-01
    make: Callable[[TableDef], None] | None = None  # makes its file of rows at the first use
    last_column_id: int = 0  # of a column that was dropped
    captures: list[CaptureInstance] = field(default_factory=list)
    holds_changes: bool = False  # a change table of Change Data Capture
    history: TableDef | None = field(default=None, repr=False)  # of a system-versioned table
    history_of: TableDef | None = field(default=None, repr=False)

    @property
    def watched(self) -> bool:
        """Whether changes of rows are kept anywhere else than in the table."""
        return self.tracked or bool(self.captures) or self.history is not None

    @property
    def next_column_id(self) -> int:
        return max([self.last_column_id, *(column.id for column in self.columns)]) + 1

    @property
    def sql(self) -> str:
        if self.make is not None:
            self.make(self)
        return f'"t{self.id}"'

    @property
    def full_name(self) -> str:
        return f"{self.schema}.{self.name}"

    def column(self, name: str) -> ColumnDef:
        folded = name.lower()
        found = [column for column in self.columns if column.name.lower() == folded]
        for column in found:
            if column.name == name or len(found) == 1:
                return column
        raise error(207, name)

    @property
    def primary_key(self) -> IndexDef | None:
        return next((index for index in self.indexes if index.primary), None)

    @property
    def stored_columns(self) -> list[ColumnDef]:
        return [column for column in self.columns if column.computed is None]


@dataclass
class ViewDef(TableDef):
    """A view of a user: its columns are those it had when it was made, as on the server."""

    definition: str = ""  # the whole CREATE VIEW
    query: str = ""  # its SELECT
    names: tuple[str, ...] = ()  # of its own list of columns
    schema_bound: bool = False
    references: frozenset[int] = frozenset()  # ids of tables and views
    failing: int = 0  # the error of every SELECT from it, 0 for none


def order_sql(sql: str, t: SqlType) -> str:
    """The expression by which a column is indexed and compared."""
    if t.family == "dto":
        return f"substr({sql}, 1, 8)"  # the instant, without the offset
    if t.family == "str":
        return f"{sql} COLLATE {sqlite_name(t.collation, t.national)}"
    return sql


class Store:
    """The tables of one database."""

    def __init__(
        self,
        path: Path,
        name: str,
        collation: str,
        clock: Callable[[], int] = lambda: 0,
        utc_clock: Callable[[], int] = lambda: 0,
    ) -> None:
        self.path = path
        self.name = name
        self.collation = collation
        self.tables: dict[tuple[str, str], TableDef] = {}
        self.views: dict[tuple[str, str], ViewDef] = {}
        self.schemas: dict[str, tuple[int, str]] = {}
        self.schema_version = 0
        self.lock = threading.RLock()
        self._writer_lock = threading.RLock()
        self._ids = itertools.count(901_578_250, 16)
        self._schema_ids = itertools.count(5)
        self._counts: dict[int, int | None] = {}
        self._unmade: set[int] = set()  # tables that SQLite does not have yet
        self._identities: dict[int, int] = {}
        self._rowversion = 2000
        self._open_rowversions: list[int] = []
        self._connections: list[sqlite3.Connection] = []
        for schema, schema_id in (("dbo", 1), ("guest", 2), ("INFORMATION_SCHEMA", 3), ("sys", 4)):
            self.schemas[self.fold(schema)] = (schema_id, schema)
        self.capture = Capture(self, clock)
        self._utc_clock = utc_clock
        self.began: dict[sqlite3.Connection, int] = {}  # UTC ticks of explicit transactions
        self.writer = self.connect()
        self.writer.execute("CREATE TABLE ct_version (v INTEGER)")
        self.writer.execute("INSERT INTO ct_version VALUES (0)")
        self.writer.execute("CREATE TABLE ct_tables (id INTEGER PRIMARY KEY, begin_v, min_v)")

    def connect(self) -> sqlite3.Connection:
        """A new connection that may be used from any one thread at a time."""
        connection = sqlite3.connect(
            self.path, isolation_level=None, check_same_thread=False, cached_statements=64
        )
        for pragma in (
            "journal_mode=WAL",
            "synchronous=OFF",
            "temp_store=FILE",
            "cache_size=-4096",
            "busy_timeout=10000",
            "wal_autocheckpoint=2000",
        ):
            connection.execute(f"PRAGMA {pragma}")
        for name in NAMES:
            for national in (True, False):
                connection.create_collation(sqlite_name(name, national), comparer(name, national))
        with self.lock:
            self._connections.append(connection)
        return connection

    def release(self, connection: sqlite3.Connection) -> None:
        self.began.pop(connection, None)
        with self.lock:
            if connection in self._connections:
                self._connections.remove(connection)
        connection.close()

    def close(self) -> None:
        with self.lock:
            for connection in self._connections:
                connection.close()
            self._connections.clear()

    @contextmanager
    def writing(
        self, connection: sqlite3.Connection | None = None
    ) -> Iterator[sqlite3.Connection]:
        """A transaction, or one statement of that in which the connection is already."""
        used = connection or self.writer
        with self._writer_lock if used is self.writer else contextlib.nullcontext():
            if used.in_transaction:
                with self._statement(used):
                    yield used
                return
            used.execute("BEGIN IMMEDIATE")
            try:
                yield used
            except BaseException:
                used.execute("ROLLBACK")
                self._counts.clear()
                raise
            self.capture.committed(used)
            used.execute("COMMIT")

    @contextmanager
    def _statement(self, used: sqlite3.Connection) -> Iterator[None]:
        """A statement in a transaction: when it fails, it alone is undone."""
        used.execute("SAVEPOINT statement")
        try:
            yield
        except BaseException:
            used.execute("ROLLBACK TO statement")
            used.execute("RELEASE statement")
            self._counts.clear()
            raise
        used.execute("RELEASE statement")

    # Names

    def fold(self, name: str) -> str:
        """A name as it compares, which the database's collation tells."""
        rules = collation(self.collation)
        return name.lower() if rules is None or rules.ignore_case else name

    def find(self, schema: str, name: str) -> TableDef | None:
        """The table of that name."""
        return self.tables.get((self.fold(schema), self.fold(name)))

    def find_object(self, schema: str, name: str) -> TableDef | None:
        """The table or view of that name."""
        return self.find(schema, name) or self.views.get((self.fold(schema), self.fold(name)))

    def objects(self) -> list[TableDef]:
        """All tables and views."""
        return [*self.tables.values(), *self.views.values()]

    def table(self, schema: str, name: str) -> TableDef:
        """The table of that name; raises 208."""
        found = self.find(schema, name)
        if found is None:
            raise error(208, f"{schema}.{name}")
        return found

    def create_schema(self, name: str) -> None:
        if self.fold(name) in self.schemas:
            raise error(2714, name)
        self.schemas[self.fold(name)] = (next(self._schema_ids), name)
        self._schema_changed(None)

    def new_id(self) -> int:
        return next(self._ids)

    def _schema_changed(self, table: TableDef | None) -> None:
        self.schema_version += 1
        if table is not None:
            table.changed_in = self.schema_version

    def moment(self, connection: sqlite3.Connection | None = None) -> int:
        """When the connection's transaction began, or now: UTC, 100 ns since 0001-01-01."""
        began = self.began.get(connection) if connection is not None else None
        return self._utc_clock() if began is None else began

    # Definition

    def create_table(
        self,
        table: TableDef,
        connection: sqlite3.Connection | None = None,
        *,
        at_first_use: bool = False,
    ) -> None:
        """``at_first_use``: SQLite gets the table when a statement is first about it, since it
        looks through all that it has for each new one, which takes long from some thousands on."""
        key = (self.fold(table.schema), self.fold(table.name))
        if self.fold(table.schema) not in self.schemas:
            raise error(2760, table.schema)
        if key in self.tables or key in self.views:
            raise error(2714, table.name)
        names = [self.fold(column.name) for column in table.columns]
        for name in names:
            if names.count(name) > 1:
                raise error(2705, name)
        if at_first_use:
            table.make = self._make
            self._unmade.add(table.id)
        else:
            with self.writing(connection) as used:
                self._make_table(table, used)
        self.tables[key] = table
        self._counts[table.id] = 0
        self._schema_changed(table)

    def _make(self, table: TableDef) -> None:
        """Gives SQLite a table that was to be made at its first use, and its indexes."""
        with self.writing() as used:
            if table.id in self._unmade:  # else another thread was first
                self._make_table(table, used)
                for index in table.indexes:
                    self._make_index(table, index, used)
                self._unmade.remove(table.id)
        table.make = None

    @staticmethod
    def _make_table(table: TableDef, used: sqlite3.Connection) -> None:
        columns = ", ".join(column.sql for column in table.stored_columns) or '"none"'
        used.execute(f'CREATE TABLE "t{table.id}" ({columns})')

    @staticmethod
    def _make_index(table: TableDef, index: IndexDef, used: sqlite3.Connection) -> None:
        parts = []
        for name, descending in index.columns:
            column = table.column(name)
            if column.computed is None:
                way = " DESC" if descending else ""
                parts.append(order_sql(column.sql, column.type) + way)
        if not parts:
            return
        unique = "UNIQUE " if index.unique and len(parts) == len(index.columns) else ""
        try:
            used.execute(
                f'CREATE {unique}INDEX "i{table.id}_{index.id}" ON "t{table.id}" '
                f"({', '.join(parts)})"
            )
        except sqlite3.IntegrityError:
            number = 2627 if index.primary else 1505
            raise error(number, table.full_name, index.name) from None

    def create_index(
        self, table: TableDef, index: IndexDef, connection: sqlite3.Connection | None = None
    ) -> None:
        for name, _ in index.columns:
            table.column(name)  # raises 207
        if table.make is None:
            with self.writing(connection) as used:
                self._make_index(table, index, used)
        table.indexes.append(index)
        table.indexes.sort(key=lambda i: i.id)
        self._schema_changed(table)

    def _bound_view(self, table: TableDef) -> ViewDef | None:
        """A view WITH SCHEMABINDING over the table."""
        bound = (view for view in self.views.values() if view.schema_bound)
        return next((view for view in bound if table.id in view.references), None)

    def drop_table(self, table: TableDef, connection: sqlite3.Connection | None = None) -> None:
        if view := self._bound_view(table):
            raise error(3729, table.full_name, view.name)
        for instance in list(table.captures):
            self.capture.drop(instance)
        name = table.sql
        with self.writing(connection) as used:
            used.execute(f"DROP TABLE {name}")
            self._untrack(table, used)
        self.tables = {k: v for k, v in self.tables.items() if v is not table}
        self._schema_changed(table)

    def add_column(
        self,
        table: TableDef,
        column: ColumnDef,
        value: Stored = None,
        connection: sqlite3.Connection | None = None,
    ) -> None:
        if any(self.fold(column.name) == self.fold(other.name) for other in table.columns):
            raise error(2705, column.name)
        name = table.sql
        with self.writing(connection) as used:
            if column.computed is None:
                used.execute(f"ALTER TABLE {name} ADD COLUMN {column.sql}")
                if column.type.name == "timestamp":
                    rows = used.execute(f"SELECT rowid FROM {table.sql}").fetchall()
                    used.executemany(
                        f"UPDATE {table.sql} SET {column.sql} = ? WHERE rowid = ?",
                        [(self.next_rowversion(), rowid) for (rowid,) in rows],
                    )
                elif value is not None:
                    used.execute(f"UPDATE {table.sql} SET {column.sql} = ?", (value,))
        table.columns = [*table.columns, column]
        self._schema_changed(table)
        if table.history is not None:
            kept = replace(column, identity=False, default=None)
            self.add_column(table.history, kept, value, connection)

    def drop_column(
        self, table: TableDef, name: str, connection: sqlite3.Connection | None = None
    ) -> None:
        try:
            column = table.column(name)
        except SqlError:
            raise error(4924, name, table.name) from None
        bound = self._bound_view(table)
        if bound or any(column.name == used for i in table.indexes for used, _ in i.columns):
            raise error(4922, f"ALTER TABLE DROP COLUMN {name}")
        table_name = table.sql
        if column.computed is None:
            with self.writing(connection) as used:
                used.execute(f"ALTER TABLE {table_name} DROP COLUMN {column.sql}")
        table.last_column_id = max(table.last_column_id, column.id)
        table.columns = [other for other in table.columns if other is not column]
        self._schema_changed(table)
        if table.history is not None:
            self.drop_column(table.history, name, connection)

    # Rows

    def row_count(self, object_id: int, connection: sqlite3.Connection | None = None) -> int:
        if object_id in self._unmade:
            return 0
        count = self._counts.get(object_id)
        if count is None:
            used = connection or self.writer
            (count,) = used.execute(f'SELECT COUNT(*) FROM "t{object_id}"').fetchone()
            self._counts[object_id] = count
        return int(count)

    def next_rowversion(self) -> bytes:
        with self.lock:
            self._rowversion += 1
            return self._rowversion.to_bytes(8, "big")

    @property
    def last_rowversion(self) -> bytes:
        return self._rowversion.to_bytes(8, "big")

    def min_active_rowversion(self) -> bytes:
        with self.lock:
            lowest = min(self._open_rowversions, default=self._rowversion + 1)
            return lowest.to_bytes(8, "big")

    def hold_rowversion(self) -> Callable[[], None]:
        """Marks the next rowversion as belonging to an open transaction; call to end it."""
        with self.lock:
            held = self._rowversion + 1
            self._open_rowversions.append(held)
        return lambda: self._open_rowversions.remove(held)

    def complete_row(
        self, table: TableDef, given: dict[str, Stored], moment: int | None = None
    ) -> Row:
        """A whole row from the given columns (names in lower case): defaults, identity, checks.

        `moment` is when its period of validity begins, in a table that has one.
        """
        row = []
        for column in table.stored_columns:
            name = column.name.lower()
            if column.type.name == "timestamp":
                if given.get(name) is not None:
                    raise error(273)
                row.append(self.next_rowversion())
                continue
            if column.generated:
                row.append(self._period_limit(table, column, given, moment))
                continue
            if name in given:
                value = given[name]
            elif column.identity:
                value = self._identities.get(table.id, 0) + 1
            else:
                value = column.default() if column.default else None
            if value is None and not column.nullable:
                raise error(515, column.name, f"{self.name}.{table.full_name}")
            if column.identity:
                self._identities[table.id] = max(self._identities.get(table.id, 0), value)
            row.append(value)
        return tuple(row)

    def last_identity(self, table: TableDef) -> int:
        """The last value that its identity column was given; the seed if there is none."""
        return self._identities.get(table.id, 1)

    def _period_limit(
        self, table: TableDef, column: ColumnDef, given: dict[str, Stored], moment: int | None
    ) -> Stored:
        if column.name.lower() in given:
            raise error(13536, f"{self.name}.{table.full_name}")
        now = self.moment() if moment is None else moment
        return (
            types.round_ticks(now, column.type.scale)
            if column.generated == 1
            else (types.latest_ticks(column.type))
        )

    def insert(
        self,
        table: TableDef,
        rows: Iterable[Row],
        connection: sqlite3.Connection | None = None,
    ) -> int:
        """Inserts whole rows of stored values, in the order of `stored_columns`."""
        marks = ", ".join("?" * len(table.stored_columns))
        statement = f"INSERT INTO {table.sql} VALUES ({marks})"
        with self.writing(connection) as used:
            before = used.total_changes
            try:
                if table.watched:
                    kept = list(rows)
                    used.executemany(statement, kept)
                    self._changed(table, used, [(None, row) for row in kept])
                else:
                    used.executemany(statement, rows)
            except sqlite3.IntegrityError as problem:
                raise self._duplicate(table, str(problem)) from None
            added = len(kept) if table.watched else used.total_changes - before
            self._counted(table, added)
        return added

    def update(
        self,
        table: TableDef,
        columns: Sequence[ColumnDef],
        changes: Sequence[tuple[int, Row]],
        connection: sqlite3.Connection | None = None,
    ) -> int:
        """Sets `columns` of the rows with the given rowids to the given stored values."""
        moment = self.moment(connection)
        own = [c for c in table.columns if c.type.name == "timestamp" or c.generated == 1]
        assigned = ", ".join(f"{column.sql} = ?" for column in [*columns, *own])
        statement = f"UPDATE {table.sql} SET {assigned} WHERE rowid = ?"
        rowids = [rowid for rowid, _ in changes]
        with self.writing(connection) as used:
            before = self._rows_of(table, used, rowids) if table.watched else []
            try:
                for rowid, values in changes:
                    for column, value in zip(columns, values, strict=True):
                        if value is None and not column.nullable:
                            raise error(515, column.name, f"{self.name}.{table.full_name}")
                    extra = [
                        types.round_ticks(moment, column.type.scale)
                        if column.generated
                        else self.next_rowversion()
                        for column in own
                    ]
                    used.execute(statement, (*values, *extra, rowid))
            except sqlite3.IntegrityError as problem:
                raise self._duplicate(table, str(problem)) from None
            if table.watched:
                after = self._rows_of(table, used, rowids)
                self._changed(table, used, list(zip(before, after, strict=True)), moment)
        return len(changes)

    def delete(
        self,
        table: TableDef,
        rowids: Sequence[int],
        connection: sqlite3.Connection | None = None,
    ) -> int:
        moment = self.moment(connection)
        with self.writing(connection) as used:
            before = self._rows_of(table, used, rowids) if table.watched else []
            self._changed(table, used, [(row, None) for row in before], moment)
            used.executemany(
                f"DELETE FROM {table.sql} WHERE rowid = ?", [(rowid,) for rowid in rowids]
            )
            self._counted(table, -len(rowids))
        return len(rowids)

    def truncate(self, table: TableDef, connection: sqlite3.Connection | None = None) -> None:
        """Empties the table. Its tracked changes are lost, so the valid version moves on."""
        if table.captures:
            raise error(4711, table.name)
        name = table.sql
        with self.writing(connection) as used:
            used.execute(f"DELETE FROM {name}")
            if table.tracked:
                version = self._next_change(used)
                used.execute(f'DELETE FROM "ct{table.id}"')
                used.execute(
                    "UPDATE ct_tables SET min_v = ?, begin_v = ? WHERE id = ?",
                    (version, version, table.id),
                )
        self._counts[table.id] = 0
        self._identities.pop(table.id, None)

    def _changed(
        self,
        table: TableDef,
        used: sqlite3.Connection,
        images: Sequence[tuple[Row | None, Row | None]],
        moment: int = 0,
    ) -> None:
        """Keeps what one statement did: (row before, row after), None for none."""
        if table.history is not None:
            self._keep_history(table, used, [old for old, _ in images if old is not None], moment)
        if table.tracked:
            self._track(table, used, images)
        if table.captures:
            self.capture.changed(table, used, images)

    def _keep_history(
        self, table: TableDef, used: sqlite3.Connection, rows: Sequence[Row], moment: int
    ) -> None:
        """Rows as they were go into the history table; their periods end at `moment`."""
        assert table.history is not None
        places = {column.generated: i for i, column in enumerate(table.stored_columns)}
        end = types.round_ticks(moment, table.stored_columns[places[2]].type.scale)
        if any(row[places[1]] > end for row in rows):
            raise error(13535, f"{self.name}.{table.full_name}")
        kept = [(*row[: places[2]], end, *row[places[2] + 1 :]) for row in rows]
        self.insert(table.history, kept, used)

    def _rows_of(
        self, table: TableDef, used: sqlite3.Connection, rowids: Sequence[int]
    ) -> list[Row]:
        names = ", ".join(column.sql for column in table.stored_columns)
        statement = f"SELECT {names} FROM {table.sql} WHERE rowid = ?"
        return [used.execute(statement, (rowid,)).fetchone() for rowid in rowids]

    def _counted(self, table: TableDef, change: int) -> None:
        count = self._counts.get(table.id)
        if count is not None:
            self._counts[table.id] = count + change

    def forget_counts(self) -> None:
        self._counts.clear()

    @staticmethod
    def _duplicate(table: TableDef, problem: str) -> SqlError:
        for index in table.indexes:
            columns = {f"{table.sql}.{table.column(name).sql}" for name, _ in index.columns}
            named = {part.strip() for part in problem.replace('"', "").split(":", 1)[1].split(",")}
            plain = {column.replace('"', "") for column in columns}
            if f"i{table.id}_{index.id}'" in problem or named == plain:
                kind = "PRIMARY KEY" if index.primary else "UNIQUE KEY"
                if index.constraint:
                    return error(2627, table.full_name, f"{kind} constraint '{index.name}'")
                return error(2601, table.full_name, index.name)
        return error(2627, table.full_name, "UNIQUE KEY")

    # Change tracking: https://learn.microsoft.com/sql/relational-databases/track-changes/

    def enable_tracking(self, table: TableDef) -> None:
        key = table.primary_key
        if key is None:
            raise error(4997, table.name)
        columns = ", ".join(f"k{i}" for i in range(len(key.columns)))
        with self.writing() as used:
            (version,) = used.execute("SELECT v FROM ct_version").fetchone()
            used.execute(f'CREATE TABLE "ct{table.id}" (v INTEGER, op TEXT, {columns})')
            used.execute("INSERT INTO ct_tables VALUES (?, ?, ?)", (table.id, version, version))
        table.tracked = True
        self._schema_changed(table)

    def disable_tracking(self, table: TableDef) -> None:
        with self.writing() as used:
            self._untrack(table, used)
        self._schema_changed(table)

    def expire_tracking(self, table: TableDef) -> None:
        """Forgets all changes so far, as the retention period does."""
        with self.writing() as used:
            (version,) = used.execute("SELECT v FROM ct_version").fetchone()
            used.execute(f'DELETE FROM "ct{table.id}"')
            used.execute("UPDATE ct_tables SET min_v = ? WHERE id = ?", (version, table.id))

    def _untrack(self, table: TableDef, used: sqlite3.Connection) -> None:
        if table.tracked:
            used.execute(f'DROP TABLE "ct{table.id}"')
            used.execute("DELETE FROM ct_tables WHERE id = ?", (table.id,))
            table.tracked = False

    @staticmethod
    def _next_change(used: sqlite3.Connection) -> int:
        used.execute("UPDATE ct_version SET v = v + 1")
        (version,) = used.execute("SELECT v FROM ct_version").fetchone()
        return int(version)

    def track(
        self, table: TableDef, used: sqlite3.Connection, operation: str, keys: Sequence[Row]
    ) -> None:
        if not keys:
            return
        version = self._next_change(used)
        marks = ", ".join("?" * len(keys[0]))
        used.executemany(
            f'INSERT INTO "ct{table.id}" VALUES (?, ?, {marks})',
            [(version, operation, *key) for key in keys],
        )

    def _track(
        self,
        table: TableDef,
        used: sqlite3.Connection,
        images: Sequence[tuple[Row | None, Row | None]],
    ) -> None:
        """A changed key is a delete and an insert."""
        old = [self._keys(table, [row])[0] if row is not None else None for row, _ in images]
        new = [self._keys(table, [row])[0] if row is not None else None for _, row in images]
        pairs = list(zip(old, new, strict=True))
        self.track(table, used, "U", [b for a, b in pairs if a == b and b is not None])
        self.track(table, used, "D", [a for a, b in pairs if a != b and a is not None])
        self.track(table, used, "I", [b for a, b in pairs if a != b and b is not None])

    @staticmethod
    def _key_columns(table: TableDef) -> list[ColumnDef]:
        key = table.primary_key
        assert key is not None
        return [table.column(name) for name, _ in key.columns]

    def _keys(self, table: TableDef, rows: Sequence[Row]) -> list[Row]:
        stored = [column.id for column in table.stored_columns]
        places = [stored.index(column.id) for column in self._key_columns(table)]
        return [tuple(row[place] for place in places) for row in rows]


def python_row(table: TableDef, row: Any) -> dict[str, Stored]:
    """Stored values by lower-case column name, from a mapping or a sequence of Python values.

    A sequence gives the writable columns in their order; identity columns are not part of it
    when it is one value shorter for each.
    """
    if isinstance(row, dict):
        return {
            name.lower(): types.from_python(value, table.column(name).type)
            for name, value in row.items()
        }
    columns = [column for column in table.columns if column.writable]
    if len(row) != len(columns):
        columns = [column for column in columns if not column.identity]
    if len(row) != len(columns):
        raise error(213)
    return {
        column.name.lower(): types.from_python(value, column.type)
        for column, value in zip(columns, row, strict=True)
    }
