# ruff: noqa: S608 - column names are numbers of our own
"""The simulator itself: a server on a loopback socket, and what a test does to its data."""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.sandbox.mssql import ddl, script, tls, types, wire
from tests.sandbox.mssql.accounts import Accounts
from tests.sandbox.mssql.catalogue import DatabaseInfo
from tests.sandbox.mssql.collation import DEFAULT, collation
from tests.sandbox.mssql.connection import Connection, Fragmentation, bad_value
from tests.sandbox.mssql.errors import SqlError, error
from tests.sandbox.mssql.faults import Faults
from tests.sandbox.mssql.instance import Instance
from tests.sandbox.mssql.parser import name_parts, quote
from tests.sandbox.mssql.session import ResultSet, Session
from tests.sandbox.mssql.store import ColumnDef, Row, Store, TableDef, ViewDef, python_row
from tests.sandbox.mssql.wire import Login, Parameter

ENCRYPTION = ("supported", "required", "not_supported")


@dataclass(frozen=True)
class LoggedStatement:
    """A request as it came: `parameters` are the stored values, by name."""

    sql: str
    parameters: dict[str, Any]
    spid: int
    database: str


@dataclass(frozen=True)
class LoggedLogin:
    """A login as it came; `errors` are the numbers it was refused with."""

    user: str
    database: str
    application: str
    encrypted: bool
    errors: list[int] = field(default_factory=list)
    server: str = ""
    read_only: bool = False


@dataclass(frozen=True)
class ColumnSpec:
    """A column for `create_table`: the type as in T-SQL, for example "decimal(18, 4)"."""

    name: str
    type: str
    nullable: bool = True
    collation: str | None = None
    computed: str | None = None
    identity: bool = False


class MssqlSandbox:
    """A server that runs while the context manager is open.

    `encryption` is "supported", "required" or "not_supported"; `certificate` one of tls.KINDS.
    `utc_offset_minutes` is how far the server's local clock is ahead of UTC.
    `snapshot` allows SNAPSHOT isolation in the database. `authority` issues its certificate.
    """

    def __init__(
        self,
        *,
        database: str = "EHR",
        user: str = "reader",
        password: str = "Sandbox-Pass-1",  # noqa: S107 - of this simulator
        encryption: str = "supported",
        certificate: str = "valid",
        collation_name: str = DEFAULT,
        utc_offset_minutes: int = 0,
        snapshot: bool = True,
        packet_size: int | None = None,
        authority: tls.Authority | None = None,
    ) -> None:
        if encryption not in ENCRYPTION:
            raise ValueError(f"encryption is one of {ENCRYPTION}, not {encryption!r}")
        self.host = "127.0.0.1"
        self.port = 0
        self.database, self.user, self.password = database, user, password
        self.encryption, self.certificate = encryption, certificate
        self.packet_size = packet_size
        self.fragmentation = Fragmentation()
        self.plp = wire.PlpOptions()
        self.faults = Faults()
        self.statements: list[LoggedStatement] = []
        self.logins: list[LoggedLogin] = []
        self.failures: list[Exception] = []  # errors of the simulator itself
        self.tokens: set[str] = set()
        self.read_only_connections = False  # alone are taken, as by some secondary replicas
        self.route: tuple[str, int] | None = None  # where every login is sent to
        self.read_only_route: tuple[str, int] | None = None  # and those of read-only intent
        self.instance = Instance(database, collation_name, utc_offset_minutes)
        self.instance.database_info(database).snapshot = snapshot
        self.accounts = Accounts(self.instance.folder)  # of Windows
        self.authority = authority or tls.Authority()
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._lock = threading.RLock()
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None
        self._connections: dict[Connection, threading.Thread] = {}
        self._spids = iter(range(51, 32_000))
        self._session: Session | None = None

    # Running

    def __enter__(self) -> MssqlSandbox:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Listens; after `pause` on the same port as before."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((self.host, self.port))
        listener.listen(64)
        self.port = listener.getsockname()[1]
        self._listener = listener
        self._acceptor = threading.Thread(target=self._accept, args=(listener,), daemon=True)
        self._acceptor.start()

    def pause(self, *, drop_connections: bool = True) -> None:
        """Refuses connections until `start`."""
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        if self._acceptor is not None:
            self._acceptor.join()
            self._acceptor = None
        if drop_connections:
            self.drop_connections()

    def drop_connections(self) -> None:
        """Ends every open connection, as a fail-over does."""
        with self._lock:
            running = dict(self._connections)
        for connection in running:
            connection.abort()
        for thread in running.values():
            if thread is not threading.current_thread():
                thread.join()

    def stop(self) -> None:
        """Ends all threads and deletes the data."""
        self.pause()
        if self._session is not None:
            self._session.close()
            self._session = None
        self.instance.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                accepted, _ = listener.accept()
            except OSError:
                return
            connection = Connection(self, accepted)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            with self._lock:
                self._connections[connection] = thread
            thread.start()

    def _serve(self, connection: Connection) -> None:
        try:
            connection.serve()
        finally:
            with self._lock:
                self._connections.pop(connection, None)

    @property
    def open_connections(self) -> int:
        with self._lock:
            return len(self._connections)

    def clients_left(self, seconds: float = 5) -> int:
        """How many are connected; those that have left had so long to be noticed."""
        with self._lock:
            threads = list(self._connections.values())
        ends = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0, ends - time.monotonic()))
        return self.open_connections

    # Encryption and logins

    @property
    def ca_pem(self) -> str:
        """The certificate of the authority that a client should trust."""
        return self.authority.pem

    def ca_file(self) -> Path:
        """The same in a file that lives as long as the server."""
        path = self.instance.folder / "ca.pem"
        if not path.exists():
            path.write_text(self.ca_pem)
        return path

    def tls_context(self) -> ssl.SSLContext:
        with self._lock:
            if self.certificate not in self._contexts:
                self._contexts[self.certificate] = tls.server_context(
                    self.certificate, self.authority, self.instance.folder
                )
            return self._contexts[self.certificate]

    def check_login(self, login: Login) -> list[SqlError]:
        """The errors that refuse a login; none when it is right."""
        if login.windows is not None:
            if not login.user:  # also for a wrong password: the reason is in the server's log
                return [error(18452)]
            if not self.accounts.may_log_in(login.user):
                return [error(18456, login.user)]
        elif login.token is not None:
            if login.token not in self.tokens:
                return [error(18456, "<token-identified principal>")]
        elif login.user.lower() != self.user.lower() or login.password != self.password:
            return [error(18456, login.user)]
        try:
            self.instance.database_info(login.database or "master")
        except SqlError:
            return [error(4060, login.database), error(18456, login.user)]
        if self.read_only_connections and not login.read_only:
            return [error(978, login.database)]
        return []

    def route_of(self, login: Login) -> tuple[str, int] | None:
        """The server and port that a login is sent to, as a listener or a gateway does."""
        return self.route or (self.read_only_route if login.read_only else None)

    def log_login(self, login: Login, errors: list[int], encrypted: bool) -> None:
        entry = LoggedLogin(
            login.user,
            login.database,
            login.application,
            encrypted,
            errors,
            login.server,
            login.read_only,
        )
        with self._lock:
            self.logins.append(entry)

    def log_statement(self, sql: str, parameters: Sequence[Parameter], session: Session) -> None:
        values = {p.name: p.value for p in parameters}
        entry = LoggedStatement(sql, values, session.spid, session.database.name)
        with self._lock:
            self.statements.append(entry)

    def open_session(self, login: Login, database: str) -> Session:
        info = self.instance.database_info(database)
        with self._lock:
            spid = next(self._spids)
        return Session(
            self.instance,
            self.instance.store_of(info.name),
            info,
            user=login.user or "token",
            host=login.host,
            application=login.application,
            spid=spid,
        )

    # Clock and settings

    def set_clock(self, utc: dt.datetime | None, offset_minutes: int | None = None) -> None:
        """Stops the server's clock at an aware moment; None lets it run again."""
        if utc is not None and utc.tzinfo is None:
            raise ValueError("the clock needs an aware datetime")
        self.instance.fixed_utc = utc
        if offset_minutes is not None:
            self.instance.offset_minutes = offset_minutes

    @property
    def info(self) -> DatabaseInfo:
        """Settings of the database: snapshot, read_committed_snapshot, compatibility_level, ..."""
        return self.instance.database_info(self.database)

    def switch_off_view(self, name: str) -> None:
        self.instance.switch_off_view(name)

    def refuse_view(self, name: str, number: int) -> None:
        self.instance.refuse_view(name, number)

    def allow_view(self, name: str) -> None:
        self.instance.allow_view(name)

    def deny(self, table: str, permission: str = "SELECT", *, hidden: bool = False) -> None:
        """Takes a permission away; `hidden` also hides the table from the catalog views."""
        found = self._object(table)
        found.denied.add(permission)
        found.hidden = hidden
        self.store._schema_changed(None)

    def grant(self, table: str, permission: str = "SELECT") -> None:
        found = self._object(table)
        found.denied.discard(permission)
        found.hidden = False
        self.store._schema_changed(None)

    def mark(self, table: str, column: str, **facts: Any) -> None:
        """Sets facts of a column: ``masked``, ``encrypted``, ``graph``, ``type_hidden`` or
        ``denied``, see ColumnDef."""
        found = self._object(table)
        for fact, value in facts.items():
            setattr(found.column(column), fact, value)
        self.store._schema_changed(found)

    # Data

    @property
    def store(self) -> Store:
        return self.instance.store_of(self.database)

    def table(self, name: str) -> TableDef:
        """The table of a name such as `dbo.patients` or `[a b].[c]`."""
        parts = name_parts(name)
        return self.store.table(parts[-2] if len(parts) > 1 else "dbo", parts[-1])

    def _object(self, name: str) -> TableDef:
        """The table or view of a name."""
        parts = name_parts(name)
        schema = parts[-2] if len(parts) > 1 else "dbo"
        return self.store.find_object(schema, parts[-1]) or self.store.table(schema, parts[-1])

    def execute(
        self, sql: str, parameters: Mapping[str, Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """Runs T-SQL with all rights; returns the rows of its last result as Python values.

        Parameters are named without "@".
        """
        given = []
        for name, value in (parameters or {}).items():
            t = types.INT if value is None else types.infer_type(value)
            given.append(Parameter(name, t, types.from_python(value, t)))
        rows: list[tuple[Any, ...]] = []
        with self._lock:
            if self._session is None:
                info = self.info
                self._session = Session(self.instance, self.store, info, privileged=True)
            for event in self._session.run(sql, given):
                if isinstance(event, ResultSet):
                    kinds = [column.type for column in event.columns]
                    rows = [tuple(map(types.to_python, row, kinds)) for row in event.rows]
                    event.count = len(rows)
        return rows

    def create_schema(self, name: str) -> None:
        if self.store.fold(name) not in self.store.schemas:
            self.store.create_schema(name)

    def create_table(
        self,
        schema: str,
        name: str,
        columns: Iterable[ColumnSpec | tuple[str, str] | tuple[str, str, bool]],
        *,
        key: Sequence[str] = (),
        unique: Sequence[Sequence[str]] = (),
        indexes: Sequence[Sequence[str]] = (),
        clustered: bool = True,
        rows: Iterable[Any] = (),
    ) -> TableDef:
        """Creates a table and fills it.

        A column is a ColumnSpec or (name, type[, nullable]). `key` is the primary key, `unique`
        and `indexes` further indexes; a name may end in " DESC". `clustered` says whether the
        primary key is. A row is a mapping by column or a sequence of the writable columns.
        """
        self.create_schema(schema)
        table = self._new_table(schema, name)
        table.columns = self._columns(columns, key, table)
        self.store.create_table(table)
        self._load(table, rows)
        self._add_indexes(table, key, unique, indexes, clustered=clustered)
        return table

    def create_tables(
        self,
        schema: str,
        names: Iterable[str],
        columns: Iterable[ColumnSpec | tuple[str, str] | tuple[str, str, bool]],
        *,
        key: Sequence[str] = (),
    ) -> None:
        """Creates tables that are alike and without rows, quickly, even if they are thousands."""
        self.create_schema(schema)
        pattern = self._new_table(schema, "")
        pattern.columns = self._columns(columns, key, pattern)
        for name in names:
            table = self._new_table(schema, name)
            table.columns = [copy.copy(column) for column in pattern.columns]
            self.store.create_table(table, at_first_use=True)
            self._add_indexes(table, key)

    def _new_table(self, schema: str, name: str) -> TableDef:
        return TableDef(self.store.new_id(), schema, name, [], created=self.instance.created())

    def _columns(
        self,
        columns: Iterable[ColumnSpec | tuple[str, str] | tuple[str, str, bool]],
        key: Sequence[str],
        table: TableDef,
    ) -> list[ColumnDef]:
        specs = [c if isinstance(c, ColumnSpec) else ColumnSpec(*c) for c in columns]
        in_key = {part.removesuffix(" DESC").lower() for part in key}
        for number, spec in enumerate(specs, 1):
            column = self._column(number, spec, spec.name.lower() in in_key, table)
            table.columns.append(column)  # a computed one may use those before it
        return table.columns

    def _add_indexes(
        self,
        table: TableDef,
        key: Sequence[str],
        unique: Sequence[Sequence[str]] = (),
        indexes: Sequence[Sequence[str]] = (),
        *,
        clustered: bool = True,
    ) -> None:
        name = table.name
        if key:
            ddl.add_index(self.store, table, f"PK_{name}", _index_columns(key), primary=True,
                          clustered=clustered, constraint=True)  # fmt: skip
        for number, parts in enumerate(unique, 1):
            ddl.add_index(self.store, table, f"UX_{name}_{number}", _index_columns(parts))
        for number, parts in enumerate(indexes, 1):
            ddl.add_index(self.store, table, f"IX_{name}_{number}", _index_columns(parts),
                          unique=False)  # fmt: skip

    def create_temporal_table(
        self,
        schema: str,
        name: str,
        columns: Iterable[ColumnSpec | tuple[str, str] | tuple[str, str, bool]],
        *,
        key: Sequence[str],
        period: tuple[str, str] = ("ValidFrom", "ValidTo"),
        hidden: bool = True,
        history: str | None = None,
        rows: Iterable[Any] = (),
    ) -> TableDef:
        """Creates a system-versioned table, its history table, and fills it.

        `period` are the names of its two period columns, HIDDEN or not; `history` is the name
        of the history table, by default <name>_History.
        """
        self.create_schema(schema)
        specs = [c if isinstance(c, ColumnSpec) else ColumnSpec(*c) for c in columns]
        self.execute(
            script.temporal_table(schema, name, specs, key=key, period=period, hidden=hidden,
                                  history=history or f"{name}_History")
        )  # fmt: skip
        table = self.store.table(schema, name)
        self._load(table, rows)
        return table

    def create_view(self, schema: str, name: str, query: str) -> None:
        """Creates a view of a SELECT."""
        self.create_schema(schema)
        self.execute(f"CREATE VIEW {quote(schema)}.{quote(name)} AS {query}")

    def break_view(self, name: str, number: int = 7399) -> None:
        """Lets every SELECT from the view fail, as if its linked server did: 7399, 7202, ...;
        0 heals it."""
        view = self._object(name)
        assert isinstance(view, ViewDef)
        view.failing = number

    def _column(self, number: int, spec: ColumnSpec, in_key: bool, table: TableDef) -> ColumnDef:
        if spec.computed is not None:
            with self._lock:
                self.execute("SELECT 1")
                assert self._session is not None
                t, nullable = ddl.computed_type(self._session, table, spec.computed)
            return ColumnDef(number, spec.name, t, nullable, computed=spec.computed)
        name = spec.collation or self.info.collation
        if collation(name) is None:
            raise error(448, name)
        t = types.parse_type(spec.type, collation=name)
        nullable = spec.nullable and not in_key and not spec.identity and t.name != "timestamp"
        return ColumnDef(number, spec.name, t, nullable, identity=spec.identity)

    def _load(self, table: TableDef, rows: Iterable[Any]) -> int:
        return self.store.insert(table, self._stored(table, rows))

    def _stored(self, table: TableDef, rows: Iterable[Any]) -> Iterator[Row]:
        moment = self.store.moment()
        for row in rows:
            yield self.store.complete_row(table, python_row(table, row), moment)

    def insert(self, table: str, rows: Iterable[Any]) -> int:
        """Inserts rows (mappings or sequences of Python values); returns how many."""
        return self._load(self.table(table), rows)

    def update(self, table: str, where: Mapping[str, Any], **changes: Any) -> int:
        """Sets columns of the rows whose columns equal `where`; returns how many."""
        found = self.table(table)
        columns = [found.column(name) for name in changes]
        values = tuple(
            types.from_python(value, column.type)
            for column, value in zip(columns, changes.values(), strict=True)
        )
        rowids = self._rowids(found, where)
        return self.store.update(found, columns, [(rowid, values) for rowid in rowids])

    def delete(self, table: str, where: Mapping[str, Any] | None = None) -> int:
        found = self.table(table)
        return self.store.delete(found, self._rowids(found, where or {}))

    def _rowids(self, table: TableDef, where: Mapping[str, Any]) -> list[int]:
        names = [table.column(name) for name in where]
        conditions = " AND ".join(f"{column.sql} IS ?" for column in names) or "1"
        values = [
            types.from_python(value, column.type)
            for column, value in zip(names, where.values(), strict=True)
        ]
        with self.store.writing() as used:
            rows = used.execute(f"SELECT rowid FROM {table.sql} WHERE {conditions}", values)
            return [rowid for (rowid,) in rows]

    def count(self, table: str) -> int:
        return self.store.row_count(self.table(table).id)

    def corrupt(self, table: str, column: str, where: Mapping[str, Any]) -> int:
        """Stores bytes that no client can decode, for good; returns how many rows have them."""
        found = self.table(table)
        spoiled = found.column(column)
        bad = bad_value(spoiled.type)
        if bad is None:
            raise ValueError(f"{spoiled.type} has no undecodable bytes")
        if isinstance(bad, str):
            raise ValueError("SQLite stores no half surrogate pair: use faults.bad_row")
        rowids = self._rowids(found, where)
        return self.store.update(found, [spoiled], [(rowid, (bad,)) for rowid in rowids])

    # Change Data Capture

    def enable_cdc(
        self,
        table: str,
        instance: str | None = None,
        *,
        role: str | None = None,
        net: bool | None = None,
        columns: Sequence[str] = (),
        index: str | None = None,
    ) -> None:
        """Makes a capture instance of a table, and enables the database where it is not.

        `net`: whether it supports net changes, by default where the table has a primary key;
        `columns`: those that are captured, by default all; `index`: a unique index in place of
        the primary key; `role`: the gating role.
        """
        self.execute("EXEC sys.sp_cdc_enable_db")
        self.execute(script.enable_table(table, instance, role, net, columns, index))

    def disable_cdc(self, table: str, instance: str = "all") -> None:
        """Ends one capture instance of a table, or all of them: their changes are lost."""
        self.execute(script.disable_table(table, instance))

    def stop_capture(self) -> None:
        """Stops the capture agent: changes wait for `capture` or `start_capture`."""
        self.store.capture.stop()

    def start_capture(self) -> None:
        """Lets the capture agent run, as it does at first: changes are visible at once."""
        self.store.capture.start()

    def capture(self, transactions: int | None = None) -> None:
        """Lets a stopped agent scan the log: all of it, or so many transactions."""
        self.store.capture.scan(transactions)

    def cdc_cleanup(self, instance: str | None = None, lsn: bytes | None = None) -> bytes:
        """Raises the lowest LSN of an instance, or of all, to `lsn`: what is below is forgotten.

        Without `lsn` everything so far is. Returns the lowest LSN there is now.
        """
        found = None if instance is None else self.store.capture.find(instance)
        if instance is not None and found is None:
            raise KeyError(instance)
        return self.store.capture.clean_up(found, lsn)

    def transaction(self, program: str | None = "nightly") -> Transaction:
        """A transaction that stays open while others read and write, until it is committed;
        ``program`` None: a distributed one, of no session."""
        return Transaction(self, program)


def _index_columns(parts: Sequence[str]) -> list[tuple[str, bool]]:
    return [(part.removesuffix(" DESC"), part.endswith(" DESC")) for part in parts]


class Transaction:
    """Rows that were written early and become visible late.

    Values are taken when they are given: clock defaults and rowversions are those of that moment,
    and MIN_ACTIVE_ROWVERSION() stays below them until the end. Other writers are not held up.
    The views of open transactions list it, as one of ``program`` (None: of no session).
    """

    def __init__(self, server: MssqlSandbox, program: str | None = "nightly") -> None:
        self._server, self._id = server, server.instance.next_transaction_id()
        self._spid = 0 if program is None else next(server._spids)
        if program is not None:
            server.instance.sessions[self._spid] = (self._spid, "etl", program)
        server.instance.begin_transaction(
            self._id, server.info, self._spid, program or "", wrote=True
        )
        self._work: list[tuple[TableDef, list[Row]]] = []
        self._end = server.store.hold_rowversion()
        self._open = True

    def __enter__(self) -> Transaction:
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            self.rollback()

    def insert(self, table: str, rows: Iterable[Any]) -> None:
        found = self._server.table(table)
        self._work.append((found, list(self._server._stored(found, rows))))

    def commit(self) -> None:
        store = self._server.store
        with store.writing() as used:
            for table, rows in self._work:
                store.insert(table, rows, used)
        self._finish()

    def rollback(self) -> None:
        self._finish()

    def _finish(self) -> None:
        self._open = False
        self._server.instance.end_transaction(self._id)
        self._server.instance.sessions.pop(self._spid, None)
        self._end()
