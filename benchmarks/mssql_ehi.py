"""mssql_ehi against bare `fetchmany` loops over the stock driver, on ten mixed columns.

row, same SELECT        a sync, by row, to the same statement read by the driver, rows dropped
row, SELECT *           a sync, by row, to the plain columns as the driver decodes them: what it
                        saves to read some types as text
read, same SELECT       the rows alone, as the connector reads them, to the driver
read, pymssql           the same to other drivers, where they are installed: see the group `bench`
                        in pyproject.toml. pyodbc needs a driver of its own: on Debian, apt-get
                        install unixodbc tdsodbc
memory, 10,000 rows     the peak of memory with the largest table, to that with 10,000 rows
resumed at 90 %, whole  a sync that resumes from the state of a crash, to one from the beginning
start, whole            what is done once, without imports: login, catalogue, encryption key
local row, parts        a sync into a local file by the SDK's own engine, by row, to the sum of
                        what that takes for the same operations from memory, and the driver for
                        the same SELECT
"""

import contextlib
import io
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any
from unittest import mock

import pytds
from fivetran_connector_sdk import Connector, Logging, Operations
from fivetran_connector_sdk_cli import core_adapter
from fivetran_connector_sdk_cli.memory_tracker import DebugMemoryTracker

from tests.sandbox.fivetran import Project, load
from tests.sandbox.mssql.stock import stock_driver
from tests.sandbox.mssql_ehi import MssqlEhi

from .measure import Figure, Plan, forget_peak, fresh, peak_memory
from .server_process import Ask, respond, server_process
from .sink import Sink, counted, expect

ROWS = 1_000_000  # of the largest table, by default
LOCAL = 20_000  # rows of a local sync, in which the SDK takes most of the time
SMALL = 10_000  # rows of the smaller table whose memory is measured
_BATCH = 1_000
_COLUMNS: list[tuple[str, str]] = [
    ("id", "int"),
    ("patient", "bigint"),
    ("name", "nvarchar(50)"),
    ("code", "varchar(20)"),
    ("amount", "decimal(18,4)"),
    ("guid", "uniqueidentifier"),
    ("born", "date"),
    ("active", "bit"),
    ("score", "float"),
    ("ModifiedDate", "datetime2(7)"),
]
_FIRST_SLICE = re.compile(r"^SELECT TOP \(\d+\) ")  # of a table that is read in several
_BEGINNING = datetime(2024, 1, 1)  # noqa: DTZ001  # the source's times have no zone


@dataclass(frozen=True)
class Cost:
    """``seconds`` of CPU in all, those of the ``start`` before the first row was asked for, and
    MB at the ``peak`` of what came after it."""

    seconds: float
    start: float
    peak: float


def run(plan: Plan) -> Iterator[Figure]:
    """The figures: memory at SMALL and at ``rows`` rows, CPU at a fifth of ``rows``."""
    rows, repeats, say = plan.size(ROWS), plan.repeats, plan.say
    some, local = max(rows // 5, 1), max(min(LOCAL, rows // 10), 1)
    say(f"seeding {SMALL:,}, {some:,} and {rows:,} rows")
    with _server({SMALL, some, rows, local}) as ask:
        configuration = ask("configuration")

        def sync(size: int, state: Mapping[str, Any] | None = None) -> tuple[Cost, dict[str, Any]]:
            chosen = {**configuration, "tables": _name(size)}
            return fresh(_sync, chosen, state or {}, size)

        say(f"memory: {rows:,} rows")
        small, large = sync(SMALL)[0], sync(rows)[0]
        yield Figure(f"memory, {SMALL:,} rows", "MB", [large.peak], [small.peak], most_above=20)

        plain = f"SELECT * FROM dbo.{_name(some)}"  # noqa: S608
        sync(some)
        statement = ask(_name(some))
        others = [name for name in _OPENERS if _is_usable(name, configuration, say)]
        wholes, resumed, bare, native, reads = [], [], [], [], []
        foreign: dict[str, list[Cost]] = {name: [] for name in others}
        for number in range(1, repeats + 1):
            say(f"CPU: {some:,} rows, run {number} of {repeats}")
            bare.append(fresh(_fetch, configuration, statement, some))
            whole, state = sync(some)
            wholes.append(whole)
            native.append(fresh(_fetch, configuration, plain, some))
            resumed.append(sync(some, state)[0])
            reads.append(fresh(_read, configuration, statement, some))
            for name in others:
                cost = fresh(_fetch_by_other, name, configuration, statement, some)
                foreign[name].append(cost)

        chosen = {**configuration, "tables": _name(local)}
        fresh(_sync, chosen, {}, local)
        statement = ask(_name(local))
        locals_, parts = [], []
        for number in range(1, repeats + 1):
            say(f"local sync: {local:,} rows, run {number} of {repeats}")
            read = fresh(_fetch, configuration, statement, local).seconds
            parts.append(1e6 * (read + fresh(_hand_over, chosen, local)) / local)
            locals_.append(1e6 * fresh(_sync_locally, chosen) / local)

    def per_row(costs: list[Cost]) -> list[float]:
        return [1e6 * cost.seconds / some for cost in costs]

    yield Figure("row, same SELECT", "us CPU", per_row(wholes), per_row(bare), most_ratio=0.5)
    yield Figure("row, SELECT *", "us CPU", per_row(wholes), per_row(native), most_ratio=0.3)
    yield Figure("read, same SELECT", "us CPU", per_row(reads), per_row(bare))
    for name in others:
        costs, limit = per_row(foreign[name]), _LIMITS.get(name)
        yield Figure(f"read, {name}", "us CPU", per_row(reads), costs, most_ratio=limit)
    seconds = [cost.seconds for cost in wholes]
    yield Figure("resumed at 90 %, whole", "s CPU", [c.seconds for c in resumed], seconds)
    yield Figure("start, whole", "s CPU", [c.start for c in wholes], seconds)
    yield Figure("local row, parts", "us CPU", locals_, parts, most_ratio=1.1)


# The source, in a process of its own


def _server(sizes: set[int]) -> AbstractContextManager[Ask]:
    """A simulator with a table of each size. It can be asked for its "configuration", or by a
    table's name for the statement that read the whole table last."""
    return server_process(_serve, sizes)


def _serve(pipe: Connection, sizes: set[int]) -> None:
    with MssqlEhi(patients=1) as source:
        for size in sizes:
            source.server.create_table(
                "dbo", _name(size), _COLUMNS, key=["id"], rows=map(_row, range(size))
            )

        def response(question: str) -> Any:
            if question == "configuration":
                # What encryption costs is the same with and without the connector.
                return source.configuration(mssql_encrypt="false")
            whole = f" FROM [dbo].[{question}] AS T ORDER BY "
            sql = [s.sql for s in source.requests if whole in s.sql][-1]
            return _FIRST_SLICE.sub("SELECT ", sql)

        respond(pipe, response)


def _name(size: int) -> str:
    return f"Rows{size}"


def _row(i: int) -> tuple[Any, ...]:
    moment = _BEGINNING + timedelta(seconds=i // 10)  # ten rows share one
    guid = f"6F9619FF-8B86-D011-B42D-{i:012X}"
    return (i, i * 7, f"name {i}", f"c{i}", f"{i}.1234", guid, "2001-02-03", i % 2, i / 3, moment)


# The work that is measured, each in a process of its own


def _fetch(configuration: Mapping[str, str], sql: str, rows: int) -> Cost:
    """The floor: the driver as it is, and nothing done with the rows."""
    with (
        stock_driver(),
        pytds.connect(
            configuration["mssql_server"],
            port=int(configuration["mssql_port"]),
            database=configuration["mssql_database"],
            user=configuration["mssql_user"],
            password=configuration["mssql_password"],
            autocommit=True,
        ) as connection,
    ):
        return _fetched(connection, sql, rows)


def _fetched(connection: Any, sql: str, rows: int) -> Cost:
    """What a driver takes for the rows of a statement, which are dropped."""
    cursor = connection.cursor()
    before = time.process_time()
    cursor.execute(sql)
    count = 0
    while batch := cursor.fetchmany(_BATCH):
        count += len(batch)
    expect(count, rows)
    return Cost(time.process_time() - before, 0.0, peak_memory())


def _read(configuration: Mapping[str, str], sql: str, rows: int) -> Cost:
    """The connector's read of the same statement, and nothing done with the rows."""
    module = load("mssql_ehi")
    with counted(Sink()):
        session = module.connect_to_mssql(module.validate_configuration(configuration))
        session.rows("SELECT 1 AS one")  # now it is connected
        before = time.process_time()
        count = sum(map(len, session.stream(sql)))
        cost = Cost(time.process_time() - before, 0.0, peak_memory())
        session.close()
    expect(count, rows)
    return cost


def _fetch_by_other(name: str, configuration: Mapping[str, str], sql: str, rows: int) -> Cost:
    """What another driver takes, of which most is written in C."""
    with contextlib.closing(_OPENERS[name](configuration)) as connection:
        return _fetched(connection, sql, rows)


def _is_usable(name: str, configuration: Mapping[str, str], say: Callable[[str], object]) -> bool:
    try:
        fresh(_fetch_by_other, name, configuration, "SELECT 1 AS one", 1)
    except Exception as error:  # it, or what it needs of the system, is not installed
        say(f"without {name}: {type(error).__name__}")
        return False
    return True


def _open_pymssql(configuration: Mapping[str, str]) -> Any:
    return import_module("pymssql").connect(
        server=configuration["mssql_server"],
        port=configuration["mssql_port"],
        database=configuration["mssql_database"],
        user=configuration["mssql_user"],
        password=configuration["mssql_password"],
    )


def _open_pyodbc(configuration: Mapping[str, str]) -> Any:
    pyodbc = import_module("pyodbc")
    driver = next(d for d in pyodbc.drivers() if "SQL Server" in d or "FreeTDS" in d)
    return pyodbc.connect(f"Driver={{{driver}}};{_odbc(configuration)};TDS_Version=7.4")


def _open_mssql_python(configuration: Mapping[str, str]) -> Any:
    return import_module("mssql_python").connect(_odbc(configuration))


def _odbc(configuration: Mapping[str, str]) -> str:
    c = configuration
    server = f"Server={c['mssql_server']},{c['mssql_port']};Database={c['mssql_database']}"
    return f"{server};UID={c['mssql_user']};PWD={c['mssql_password']};Encrypt=no"


_OPENERS = {
    "pymssql": _open_pymssql,
    "pyodbc": _open_pyodbc,
    "mssql_python": _open_mssql_python,
}
_LIMITS = {"pyodbc": 1.5}  # ratios


def _sync(
    configuration: Mapping[str, str], state: Mapping[str, Any], rows: int
) -> tuple[Cost, dict[str, Any]]:
    """A sync whose rows are counted, and its state at the first checkpoint behind 90 % of
    ``rows``."""
    connector = load("mssql_ehi")
    sink = _Saving(rows)
    with counted(sink):
        before = time.process_time()
        connector.update(configuration, state=state)
        seconds = time.process_time() - before
    if not state:
        expect(sink.count, rows + 2)  # two rows report the sync
    start = (sink.began or before) - before
    return Cost(seconds, start, peak_memory()), sink.state


def _sync_locally(configuration: Mapping[str, str]) -> float:
    """Seconds of CPU of a sync into a local file, by the SDK's unchanged engine."""
    module = load("mssql_ehi")
    return _run_engine(module.update, module.schema, configuration)


def _hand_over(configuration: Mapping[str, str], rows: int) -> float:
    """Seconds of CPU in which the engine takes the operations of the same sync from memory."""
    module, recorder = load("mssql_ehi"), _Recorder()
    with counted(recorder):
        module.update(configuration, state={})
        tables = module.schema(configuration)
    expect(recorder.count, rows + 2)

    def update(configuration: Mapping[str, str], state: Mapping[str, Any]) -> None:  # noqa: ARG001
        for name, arguments in recorder.operations:
            getattr(Operations, name)(*arguments)

    return _run_engine(update, lambda configuration: tables, configuration)


def _run_engine(
    update: Callable[..., None], schema: Callable[..., Any], configuration: Mapping[str, str]
) -> float:
    Logging.LOG_LEVEL = Logging.Level.INFO
    connector = Connector(update=update, schema=schema)
    connector.configuration, connector.state = dict(configuration), {}
    with tempfile.TemporaryDirectory() as folder:
        project = Project("mssql_ehi", Path(folder))
        with (
            mock.patch.dict(os.environ, project.environment),
            mock.patch.object(DebugMemoryTracker, "start"),  # it prints when all is over
            contextlib.redirect_stdout(io.StringIO()),
        ):
            before = time.process_time()
            core_adapter.run(connector, str(project.path), connector.configuration, {})
            return time.process_time() - before


class _Recorder(Sink):
    """Keeps all operations, with what they were given."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[str, tuple[Any, ...]]] = []

    def upsert(self, table: str, row: dict[str, Any]) -> None:
        super().upsert(table, row)
        self.operations.append(("upsert", (table, dict(row))))

    def truncate(self, table: str) -> None:
        self.operations.append(("truncate", (table,)))

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        self.operations.append(("checkpoint", (json.loads(json.dumps(state)),)))


class _Saving(Sink):
    """``state``: that of the first checkpoint behind 90 % of ``rows``."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.began = 0.0
        self._saved_at = rows * 0.9

    def truncate(self, _table: str) -> None:
        # The first SELECT comes next. To make a key of the password took 16 MB, which are free
        # again: rows that pile up would not show before they took more than that.
        self.began = time.process_time()
        forget_peak()

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        if self.count >= self._saved_at and not self.state:
            self.state = json.loads(json.dumps(state))
