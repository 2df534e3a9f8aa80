"""How mssql_ehi finds the tables of a database, 200, 2,000 and 10,000 of them, of 30 columns, and
syncs them, 200 and 2,000 of a few rows.

A third of the columns of a table have names that no other table has. Measured is `schema()`, then
`update()`, each in a fresh process; the simulator runs in another one.

CPU, bare statements      the whole, to the same statements read by the driver, rows dropped
a table, ... to 200       by table, to that of the smallest database: many must not cost more each
memory, 200 tables        the peak with the largest database, to that with the smallest
statements, 200 tables    how many the largest takes: 500 tables share one that asks for rights
first sync, second sync   of tables with a few rows, for each of five ways of reading one. A second
                          sync finds nothing changed. By table, to the same with 200 tables: CPU,
                          statements, bytes of the state and of the log; checkpoints in all, to one
                          for each 5,000 rows
"""

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from multiprocessing.connection import Connection
from typing import Any

import pytds

from tests.sandbox.fivetran import load
from tests.sandbox.mssql import MssqlSandbox
from tests.sandbox.mssql.stock import stock_driver

from .measure import Figure, Plan, fresh, peak_memory
from .server_process import Ask, respond, server_process
from .sink import Sink, counted, expect

SIZES = (200, 2_000, 10_000)  # tables
SYNCED = (200, 2_000)  # tables with rows
_ROWS = 5  # of each of these
_TRIES = 3  # of a sync, of which the quickest counts: a tenth of a second is soon disturbed
_COLUMNS = 30
_KINDS = (
    "nvarchar(50)",
    "int",
    "decimal(18,4)",
    "datetime2(7)",
    "varchar(20)",
    "bit",
    "uniqueidentifier",
    "bigint",
    "date",
    "float",
)
_TABLES_AT_ONCE = 500  # for whose columns a statement asks for the rights
_REPORTS = 2  # tables that report the sync


@dataclass(frozen=True)
class Cost:
    """``seconds`` of CPU, and MB at the ``peak``."""

    seconds: float
    peak: float


@dataclass(frozen=True)
class SyncCost:
    """What a sync took: ``seconds`` of CPU, ``statements``, ``rows`` that were sent,
    ``checkpoints``, and bytes of the ``state`` and of the ``log``."""

    seconds: float
    statements: int
    rows: int
    checkpoints: int
    state: int
    log: int


def run(plan: Plan) -> Iterator[Figure]:
    sizes = [max(round(size * plan.scale), 1) for size in SIZES]
    costs: dict[int, list[Cost]] = {size: [] for size in sizes}
    counts: dict[int, int] = {}
    bare = []
    for size in sizes:
        plan.say(f"creating {size:,} tables")
        with _server(size) as ask:
            configuration = ask("configuration")
            for number in range(1, plan.repeats + 1):
                plan.say(f"{size:,} tables, run {number} of {plan.repeats}")
                costs[size].append(fresh(_discover, configuration, size))
                statements = ask("statements")
                counts[size] = len(statements)
                if size == sizes[-1]:
                    bare.append(fresh(_fetch, configuration, statements).seconds)
                    ask("statements")

    least, *_, most = sizes
    seconds = [cost.seconds for cost in costs[most]]
    yield Figure("CPU, bare statements", "s", seconds, bare, most_above=30)
    floor = _by_table(costs[least], least)
    for size in sizes[1:]:
        name, values = f"a table, {size:,} to {least:,}", _by_table(costs[size], size)
        yield Figure(name, "us CPU", values, floor, most_ratio=1.2)
    small, large = ([cost.peak for cost in costs[size]] for size in (least, most))
    yield Figure(f"memory, {least:,} tables", "MB", large, small, most_above=200)
    name, more = f"statements, {least:,} tables", most / _TABLES_AT_ONCE
    yield Figure(name, "", [counts[most]], [counts[least]], most_above=more)
    yield from _syncs(plan)


def _syncs(plan: Plan) -> Iterator[Figure]:
    """The figures of syncs."""
    sizes = [max(round(size * plan.scale), 10) for size in SYNCED]
    costs: dict[tuple[int, int], list[SyncCost]] = defaultdict(list)
    for size in sizes:
        plan.say(f"creating {size:,} tables of {_ROWS} rows")
        with server_process(_serve_rows, size) as ask:
            configuration = ask("configuration")
            for number in range(1, plan.repeats + 1):
                plan.say(f"{size:,} tables, two syncs, run {number} of {plan.repeats}")
                state: dict[str, Any] = {}
                for which in (0, 1):
                    tries = []
                    for _ in range(_TRIES):
                        ask("statements")
                        tries.append(fresh(_sync, configuration, state))
                    sink = tries[-1][0]
                    seconds = min(seconds for _, seconds in tries)
                    state = sink.state
                    text = len(json.dumps(state))
                    statements = len(ask("statements"))
                    rows = sink.count - size - 1  # without those that report the sync
                    expect(rows, 0 if which else size * _ROWS)
                    cost = SyncCost(seconds, statements, rows, sink.checkpoints, text, sink.logged)
                    costs[size, which].append(cost)
    least, most = sizes
    for which, name in enumerate(("first sync", "second sync")):
        few, many = costs[least, which], costs[most, which]
        for what, unit, scale, limit in (
            ("seconds", "us CPU", 1e6, 1.2),
            ("statements", "", 1, 1.0),
            ("state", "bytes", 1, 1.2),
            ("log", "bytes", 1, 1.0),
        ):
            values, floors = (
                [scale * getattr(cost, what) / size for cost in of_size]
                for of_size, size in ((many, most), (few, least))
            )
            yield Figure(f"{name}, {what}", unit, values, floors, most_ratio=limit)
        due = [cost.rows / 5_000 + 1 for cost in many]
        yield Figure(f"{name}, checkpoints", "", [c.checkpoints for c in many], due, most_above=1)


def _by_table(costs: Sequence[Cost], tables: int) -> list[float]:
    return [1e6 * cost.seconds / tables for cost in costs]


# The source, in a process of its own


def _server(tables: int) -> AbstractContextManager[Ask]:
    """A simulator with so many tables. It can be asked for its "configuration", and for the
    "statements" that came since it was last asked."""
    return server_process(_serve, tables)


def _serve(pipe: Connection, tables: int) -> None:
    with MssqlSandbox() as server:
        for number in range(tables):
            server.create_tables("dbo", [f"Table{number:05d}"], _columns(number), key=["id"])
        respond(pipe, _responses(server))


def configuration_of(server: MssqlSandbox) -> dict[str, str]:
    """All tables of the simulator, without encryption."""
    return {
        "mssql_encrypt": "false",
        "mssql_server": server.host,
        "mssql_port": str(server.port),
        "mssql_database": server.database,
        "mssql_user": server.user,
        "mssql_password": server.password,
        "max_tables": "0",
    }


def _responses(server: MssqlSandbox) -> Callable[[str], Any]:
    def response(question: str) -> Any:
        if question == "configuration":
            return configuration_of(server)
        sent = [statement.sql for statement in server.statements]
        server.statements.clear()
        return sent

    return response


def _serve_rows(pipe: Connection, tables: int) -> None:
    """A simulator with so many tables of a few rows: a fifth each has Change Tracking, a column of
    changes, a rowversion, a key and no key."""
    with MssqlSandbox() as server:
        server.info.tracking = True
        moment = datetime(2024, 1, 1)  # noqa: DTZ001  # the source's times have no zone
        for number in range(tables):
            name, kind = f"Table{number:05d}", number % 5
            columns: list[tuple[str, str]] = [("id", "int"), ("v", "varchar(40)")]
            rows: list[tuple[Any, ...]] = [(i, f"value {i}") for i in range(_ROWS)]
            if kind == 1:
                columns.append(("ModifiedDate", "datetime2(7)"))
                rows = [(*row, moment) for row in rows]
            elif kind == 2:
                columns.append(("rv", "rowversion"))
            key = ["id"] if kind < 4 else []
            server.create_table("dbo", name, columns, key=key, rows=rows)
            if kind == 0:
                server.execute(f"ALTER TABLE dbo.{name} ENABLE CHANGE_TRACKING")
        respond(pipe, _responses(server))


def _columns(table: int) -> list[tuple[str, str]]:
    own = [f"T{table:05d}Column{i}" for i in range(_COLUMNS // 3)]
    shared = [f"Column{i}" for i in range(_COLUMNS - len(own) - 2)]
    named = [(name, _KINDS[i % len(_KINDS)]) for i, name in enumerate([*own, *shared])]
    return [("id", "int"), *named, ("ModifiedDate", "datetime2(7)")]


# The work that is measured, each in a process of its own


def _discover(configuration: Mapping[str, str], tables: int) -> Cost:
    connector = load("mssql_ehi")
    with counted(Sink()):
        before = time.process_time()
        declared = connector.schema(configuration)
        seconds = time.process_time() - before
    expect(len(declared), tables + _REPORTS)
    return Cost(seconds, peak_memory())


def _sync(configuration: Mapping[str, str], state: Mapping[str, Any]) -> tuple[Sink, float]:
    """A sync, with the CPU seconds that it takes."""
    connector, sink = load("mssql_ehi"), Sink(warns=True)
    with counted(sink):
        before = time.process_time()
        connector.update(configuration, state=state)
        seconds = time.process_time() - before
    return sink, seconds


def _fetch(configuration: Mapping[str, str], statements: Sequence[str]) -> Cost:
    """The floor: the driver as it is, and nothing done with the rows."""
    before = time.process_time()
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
        for statement in statements:
            cursor = connection.cursor()
            cursor.execute(statement)
            while cursor.fetchmany(1_000):
                pass
    return Cost(time.process_time() - before, peak_memory())
