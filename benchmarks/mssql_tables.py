"""How mssql_ehi finds the tables of a database: 200, 2,000 and 10,000 of them, of 30 columns.

A third of the columns of a table have names that no other table has. Measured is `schema()`, in a
fresh process each time; the simulator runs in another one.

CPU, bare statements      the whole, to the same statements read by the driver, rows dropped
a table, ... to 200       by table, to that of the smallest database: many must not cost more each
memory, 200 tables        the peak with the largest database, to that with the smallest
statements, 200 tables    how many the largest takes: 500 tables share one that asks for rights
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
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

        def response(question: str) -> Any:
            if question == "configuration":
                return {
                    "mssql_encrypt": "false",
                    "mssql_server": server.host,
                    "mssql_port": str(server.port),
                    "mssql_database": server.database,
                    "mssql_user": server.user,
                    "mssql_password": server.password,
                    "max_tables": "0",
                }
            sent = [statement.sql for statement in server.statements]
            server.statements.clear()
            return sent

        respond(pipe, response)


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
