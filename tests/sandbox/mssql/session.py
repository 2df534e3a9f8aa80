# ruff: noqa: S608 - view names are our own
"""One login's session: runs batches, keeps settings, variables and the transaction."""

from __future__ import annotations

import contextlib
import re
import sqlite3
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from sqlglot import exp

from tests.sandbox.mssql import catalogue, ddl, dml, procedures, types
from tests.sandbox.mssql.compiler import Compiler, Query, Scope, register
from tests.sandbox.mssql.errors import SqlError, error, unsupported
from tests.sandbox.mssql.parser import (
    Statement,
    name_parts,
    parse,
    parse_query,
    split_batch,
    tokenize,
)
from tests.sandbox.mssql.store import Row, Store, TableDef
from tests.sandbox.mssql.wire import Column, Parameter

if TYPE_CHECKING:
    from tests.sandbox.mssql.instance import Instance

VERSION = (
    "Microsoft SQL Server 2022 (RTM-CU14) (simulator) - 16.0.4135.4 (X64) \n"
    "\tDeveloper Edition (64-bit)"
)
READ_COMMITTED, SNAPSHOT = "READ COMMITTED", "SNAPSHOT"
DEFAULT_LOCK_WAIT = 10_000  # ms; the real default is for ever
_LEVELS = {
    1: "READ UNCOMMITTED",
    2: READ_COMMITTED,
    3: "REPEATABLE READ",
    4: "SERIALIZABLE",
    5: SNAPSHOT,
}


@dataclass
class ResultSet:
    """Rows of stored values, read as they are asked for. `close` ends the statement early.

    Who reads the rows sets `count`.
    """

    columns: list[Column]
    rows: Iterator[Row]
    close: Callable[[], None] = lambda: None
    count: int = 0


@dataclass(frozen=True)
class Done:
    """The end of a statement; `count` None for one that counts no rows."""

    count: int | None = None


@dataclass(frozen=True)
class Changed:
    """What the client is told with ENVCHANGE: "database", "begin", "commit" or "rollback"."""

    kind: str
    new: str = ""
    old: str = ""


Event = ResultSet | Done | Changed | SqlError


@dataclass
class _CallState:
    """What the SQLite functions of a connection need of the running statement."""

    functions: Sequence[Callable[..., Any]] = ()
    problem: Exception | None = None


@dataclass
class Session:
    """The environment of statements (see compiler.Environment)."""

    instance: Instance
    store: Store
    database: catalogue.DatabaseInfo
    user: str = "sa"
    host: str = ""
    application: str = ""
    spid: int = 51
    privileged: bool = False
    version: str = VERSION
    transaction_count: int = 0
    transaction_id: int = 0
    transaction_level: str = READ_COMMITTED
    level: str = READ_COMMITTED
    last_count: int = 0
    lock_timeout: int = -1
    no_count: bool = False
    xact_abort: bool = False
    identity_insert: str = ""
    variables: dict[str, Parameter] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._state = _CallState()
        self._views: dict[str, int] = {}
        self._snapshot_schema = -1
        self.connection = self._connect()
        if not self.privileged:
            with self.instance.lock:
                self.instance.sessions[self.spid] = (self.spid, self.user, self.application)

    def _connect(self) -> sqlite3.Connection:
        connection = self.store.connect()
        register(connection, self._state)
        self._views.clear()
        return connection

    def close(self) -> None:
        self.instance.end_transaction(self.transaction_id)
        if not self.privileged:
            with self.instance.lock:
                self.instance.sessions.pop(self.spid, None)
        # Another session may have dropped the database, and with it the connection.
        with contextlib.suppress(sqlite3.ProgrammingError):
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        self.store.release(self.connection)

    @property
    def databases(self) -> list[catalogue.DatabaseInfo]:
        return self.instance.database_infos()

    @property
    def refused_views(self) -> dict[str, list[Exception]]:
        return {} if self.privileged else self.instance.refused_views

    def clock(self) -> tuple[int, int]:
        return self.instance.clock()

    def find_database(self, name: str) -> catalogue.DatabaseInfo | None:
        return next((d for d in self.databases if d.name.lower() == name.lower()), None)

    # Batches

    def run(self, sql: str, parameters: Sequence[Parameter] = ()) -> Generator[Event, None, None]:
        """The events of a batch in order. Raises SqlError; the rest of the batch is not run."""
        self.variables = {p.name.lstrip("@").lower(): p for p in parameters}
        for statement in split_batch(sql):
            try:
                yield from self._statement(statement)
            except SqlError as problem:  # noqa: PERF203 - few statements
                problem.line += statement.line - 1
                raise

    def _statement(self, statement: Statement) -> Iterator[Event]:
        handler = self._HANDLERS.get(statement.keyword)
        if handler is None:
            if statement.keyword in ("(",):
                handler = Session._select
            else:
                raise error(102, statement.keyword.lower())
        yield from handler(self, statement)

    def _select(self, statement: Statement) -> Iterator[Event]:
        tree = parse_query(statement.text)
        if isinstance(tree, (exp.Insert, exp.Update, exp.Delete)):
            yield from self._modify(statement)
            return
        if isinstance(tree, exp.Select) and self._assigns(tree):
            yield Done(1)
            return
        compiler = Compiler(self)
        query = compiler.query(tree)
        if isinstance(tree, exp.Select) and tree.args.get("into"):
            raise unsupported("INTO")
        result = self.open(compiler, query)
        yield result
        self.last_count = result.count
        yield Done(result.count)

    def _assigns(self, tree: exp.Select) -> bool:
        """SELECT @x = ...: sets variables, gives no rows."""
        items = tree.expressions
        if not items or not all(
            isinstance(item, exp.EQ) and isinstance(item.this, exp.Parameter) for item in items
        ):
            return False
        names = [item.this.name for item in items]
        plain = tree.copy()
        plain.set("expressions", [item.expression.copy() for item in items])
        compiler = Compiler(self)
        result = self.open(compiler, compiler.query(plain))
        for row in result.rows:
            for name, column, value in zip(names, result.columns, row, strict=True):
                self.assign(name, column.type, value)
        return True

    def assign(self, name: str, source: types.SqlType, value: types.Stored) -> None:
        from tests.sandbox.mssql.convert import convert

        known = self.variables.get(name.lower())
        if known is None:
            raise error(137, "@" + name)
        self.variables[name.lower()] = Parameter(
            known.name, known.type, convert(value, source, known.type)
        )

    def open(self, compiler: Compiler, query: Query) -> ResultSet:
        """Starts a translated query."""
        if compiler.captured and not self.connection.in_transaction:
            self.store.capture.idle()
        self._before_read(compiler.tables)
        self._fill_views(compiler.views)
        cursor = self.execute(compiler, query.sql.text, query.sql.args)
        rows = self._step(cursor)
        return ResultSet(query.columns, rows, rows.close)

    def execute(self, compiler: Compiler, sql: str, args: Sequence[Any]) -> sqlite3.Cursor:
        self._state.functions, self._state.problem = compiler.build.functions, None
        checks, compiler.checks = compiler.checks, []
        try:
            for check in checks:
                self.connection.execute(f"SELECT {check.text}", check.args).fetchone()
            return self.connection.execute(sql, args)
        except sqlite3.Error as problem:
            raise self._translated(problem) from None

    def _step(self, cursor: sqlite3.Cursor) -> Generator[Row, None, None]:
        try:
            yield from map(_same, cursor)
        except sqlite3.Error as problem:
            raise self._translated(problem) from None
        finally:
            # A result that nobody read to its end may outlive its connection.
            with contextlib.suppress(sqlite3.ProgrammingError):
                cursor.close()

    def _translated(self, problem: sqlite3.Error) -> SqlError:
        found, self._state.problem = self._state.problem, None
        if isinstance(found, SqlError):
            return found
        if found is not None:
            return SqlError(8115, f"Arithmetic overflow error ({type(found).__name__}).")
        if isinstance(problem, sqlite3.OperationalError) and "locked" in str(problem):
            return error(3960 if self.level == SNAPSHOT else 1222)
        if str(problem) == "integer overflow":  # of SUM, in SQLite's own words
            return error(8115, "expression", "bigint")
        return unsupported(str(problem))

    # Reading

    def _before_read(self, tables: Sequence[TableDef]) -> None:
        if not tables:
            return
        if self.level == SNAPSHOT and not self.privileged:
            if self.transaction_count and self.transaction_level != SNAPSHOT:
                raise error(3951, self.database.name)
            if not self.database.snapshot:
                raise error(3952, self.database.name)
        if not self.transaction_count or self.level in (READ_COMMITTED, "READ UNCOMMITTED"):
            return
        if not self.connection.in_transaction:
            self.connection.execute("BEGIN")
            self._snapshot_schema = self.store.schema_version
        for table in tables:
            if table.changed_in > self._snapshot_schema:
                raise error(3961, self.database.name)

    def _fill_views(self, names: set[str]) -> None:
        """Makes the catalog views that a statement reads, as temporary tables."""
        for name in names:
            view = catalogue.VIEWS[name]
            if not view.volatile and self._views.get(name) == self.store.schema_version:
                continue
            columns = ", ".join(f'"c{i}"' for i in range(len(view.columns)))
            marks = ", ".join("?" * len(view.columns))
            self.connection.execute(f'CREATE TEMP TABLE IF NOT EXISTS "{name}" ({columns})')
            self.connection.execute(f'DELETE FROM temp."{name}"')
            with self.instance.lock:
                transactions = list(self.instance.open_transactions.values())
                sessions = list(self.instance.sessions.values())
            context = catalogue.Context(
                self.store,
                self.database,
                self.databases,
                self._tracking_versions,
                transactions,
                sessions,
                connection=self.connection,
            )
            rows = list(view.rows(context))
            self.connection.executemany(f'INSERT INTO temp."{name}" VALUES ({marks})', rows)
            self._views[name] = self.store.schema_version

    def _tracking_versions(self) -> dict[int, tuple[int, int]]:
        rows = self.connection.execute("SELECT id, min_v, begin_v FROM ct_tables")
        return {number: (lowest, begin) for number, lowest, begin in rows}

    # Writing

    def writable(self) -> None:
        """Opens the SQLite transaction of an explicit transaction at its first write."""
        if self.transaction_count and not self.connection.in_transaction:
            try:
                self.connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as problem:
                raise self._translated(problem) from None

    def _modify(self, statement: Statement) -> Iterator[Event]:
        self.last_count = dml.modify(self, parse_query(statement.text))
        yield Done(self.last_count)

    def _define(self, statement: Statement) -> Iterator[Event]:
        ddl.define(self, statement)
        yield Done()

    # Transactions

    def begin(self, level: int = 0) -> Changed:
        if level:
            self.level = _LEVELS[level]
        self.transaction_count += 1
        if self.transaction_count == 1:
            self.transaction_id = self.instance.next_transaction_id()
            self.transaction_level = self.level
            self.store.began[self.connection] = self.clock()[0]
            self.instance.begin_transaction(
                self.transaction_id, self.database, self.spid, self.application, wrote=False
            )
        return Changed("begin")

    def commit(self) -> list[Changed]:
        if not self.transaction_count:
            raise error(3902)
        self.transaction_count -= 1
        if self.transaction_count:
            return []
        self.store.began.pop(self.connection, None)
        self.instance.end_transaction(self.transaction_id)
        if self.connection.in_transaction:
            self.store.capture.committed(self.connection)
            self.connection.execute("COMMIT")
        return [Changed("commit")]

    def rollback(self) -> list[Changed]:
        if not self.transaction_count:
            raise error(3903)
        self.transaction_count = 0
        self.store.began.pop(self.connection, None)
        self.instance.end_transaction(self.transaction_id)
        if self.connection.in_transaction:
            self.connection.execute("ROLLBACK")
            self._views.clear()
            self.store.forget_counts()
        return [Changed("rollback")]

    def _begin(self, statement: Statement) -> Iterator[Event]:
        if not re.match(r"BEGIN\s+TRAN(SACTION)?\b", statement.text, re.IGNORECASE):
            raise unsupported("BEGIN")
        yield self.begin()
        yield Done()

    def _commit(self, statement: Statement) -> Iterator[Event]:
        yield from self.commit()
        yield Done()

    def _rollback(self, statement: Statement) -> Iterator[Event]:
        yield from self.rollback()
        yield Done()

    # Settings and variables

    def _use(self, statement: Statement) -> Iterator[Event]:
        name = name_parts(statement.text.split(None, 1)[1])[0] if " " in statement.text else ""
        yield from self.use(name)
        yield Done()

    def use(self, name: str) -> Iterator[Event]:
        found = self.find_database(name)
        if found is None:
            raise error(911, name)
        old = self.database.name
        if found.name != old:
            self.store.release(self.connection)
            self.database, self.store = found, self.instance.store_of(found.name)
            self.connection = self._connect()
        yield Changed("database", found.name, old)

    def _set(self, statement: Statement) -> Iterator[Event]:
        text = " ".join(statement.text.split())
        if match := re.fullmatch(r"SET @(\w+) ?= ?(.+)", text, re.IGNORECASE | re.DOTALL):
            compiler = Compiler(self)
            tree = parse_query(f"SELECT {match[2]}")
            result = self.open(compiler, compiler.query(tree))
            self.assign(match[1], result.columns[0].type, next(result.rows)[0])
        elif match := re.fullmatch(
            r"SET TRANSACTION ISOLATION LEVEL (READ UNCOMMITTED|READ COMMITTED|REPEATABLE READ"
            r"|SNAPSHOT|SERIALIZABLE)",
            text,
            re.IGNORECASE,
        ):
            self.level = match[1].upper()
        elif match := re.fullmatch(r"SET LOCK_TIMEOUT (-?\d+)", text, re.IGNORECASE):
            self.lock_timeout = int(match[1])
            wait = self.lock_timeout if self.lock_timeout >= 0 else DEFAULT_LOCK_WAIT
            self.connection.execute(f"PRAGMA busy_timeout = {wait}")
        elif match := re.fullmatch(r"SET IDENTITY_INSERT (\S+) (ON|OFF)", text, re.IGNORECASE):
            name = name_parts(match[1])[-1].lower()
            self.identity_insert = name if match[2].upper() == "ON" else ""
        elif match := re.fullmatch(
            r"SET ([A-Z_]+(?: ?, ?[A-Z_]+)*) (ON|OFF)", text, re.IGNORECASE
        ):
            self._set_flags(match[1], match[2].upper() == "ON")
        elif not re.fullmatch(
            r"SET (LANGUAGE|DATEFORMAT|DATEFIRST|TEXTSIZE|DEADLOCK_PRIORITY|CONTEXT_INFO) \S+",
            text,
            re.IGNORECASE,
        ):
            raise unsupported(text[:40])
        yield Done()

    _FLAGS: ClassVar[set[str]] = {
        "ANSI_NULLS", "ANSI_NULL_DFLT_ON", "ANSI_PADDING", "ANSI_WARNINGS", "ANSI_DEFAULTS",
        "ARITHABORT", "ARITHIGNORE", "CONCAT_NULL_YIELDS_NULL", "CURSOR_CLOSE_ON_COMMIT",
        "IMPLICIT_TRANSACTIONS", "NUMERIC_ROUNDABORT", "QUOTED_IDENTIFIER", "NOCOUNT",
        "XACT_ABORT", "FMTONLY", "FORCEPLAN", "NOEXEC", "PARSEONLY",
    }  # fmt: skip

    def _set_flags(self, names: str, on: bool) -> None:
        for name in (part.strip().upper() for part in names.split(",")):
            if name not in self._FLAGS:
                raise SqlError(195, f"'{name}' is not a recognized SET option.", severity=15)
            if name == "NOCOUNT":
                self.no_count = on
            elif name == "XACT_ABORT":
                self.xact_abort = on

    def _declare(self, statement: Statement) -> Iterator[Event]:
        tree = parse(statement.text)
        for item in tree.expressions:
            declared = types.parse_type(
                str(item.args["kind"].args.get("kind")), collation=self.database.collation
            )
            for variable in item.this if isinstance(item.this, list) else [item.this]:
                self.variables[variable.name.lower()] = Parameter(variable.name, declared, None)
                if default := item.args.get("default"):
                    compiler = Compiler(self)
                    result = self.open(compiler, compiler.query(exp.select(default.copy())))
                    self.assign(variable.name, result.columns[0].type, next(result.rows)[0])
                    result.close()
        yield Done()

    def _if(self, statement: Statement) -> Iterator[Event]:
        """IF condition statement [ELSE statement]."""
        tokens = tokenize(statement.text)
        depth, start, other = 0, None, None
        starters = {key for key in self._HANDLERS if key not in ("WITH", "IF")}
        for i, token in enumerate(tokens[1:], 1):
            depth += (token.text == "(") - (token.text == ")")
            word = token.text.upper()
            if depth == 0 and start is None and word in starters:
                start = i
            elif depth == 0 and word == "ELSE":
                other = i
        if start is None:
            raise error(102, "IF")
        condition = statement.text[tokens[1].start : tokens[start].start]
        end = tokens[other].start if other is not None else len(statement.text)
        branches = [statement.text[tokens[start].start : end]]
        branches.append(statement.text[tokens[other].end + 1 :] if other is not None else "")
        compiler = Compiler(self)
        tree = parse_query(f"SELECT CASE WHEN {condition} THEN 1 ELSE 0 END")
        result = self.open(compiler, compiler.query(tree))
        chosen = branches[0] if next(result.rows)[0] else branches[1]
        result.close()
        for inner in split_batch(chosen):
            yield from self._statement(inner)

    def _print(self, statement: Statement) -> Iterator[Event]:
        compiler = Compiler(self)
        value = compiler.expr(parse_query(f"SELECT {statement.text[5:]}").expressions[0], Scope())
        yield SqlError(0, str(value.value), severity=0)
        yield Done()

    def _exec(self, statement: Statement) -> Iterator[Event]:
        words = statement.text.split(None, 2)
        if len(words) > 1 and words[1].lower() == "sp_rename":
            ddl.define(self, statement)
        else:
            procedures.call(self, statement.text)
        yield Done()

    _HANDLERS: ClassVar[dict[str, Callable[[Any, Statement], Iterator[Event]]]] = {
        "SELECT": _select,
        "WITH": _select,
        "INSERT": _modify,
        "UPDATE": _modify,
        "DELETE": _modify,
        "TRUNCATE": _define,
        "CREATE": _define,
        "ALTER": _define,
        "DROP": _define,
        "DENY": _define,
        "GRANT": _define,
        "BEGIN": _begin,
        "COMMIT": _commit,
        "ROLLBACK": _rollback,
        "USE": _use,
        "SET": _set,
        "DECLARE": _declare,
        "IF": _if,
        "PRINT": _print,
        "EXEC": _exec,
        "EXECUTE": _exec,
    }


def _same(row: Row) -> Row:
    """Hides the cursor from `yield from`, which would close it on its own."""
    return row
