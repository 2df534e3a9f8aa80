"""What `parallel_tables` brings mssql_ehi where its process has half a core, as on the platform.

Measured are the seconds of a first sync by 2 and by 4 connections, to those by one. The simulator
runs in a process of its own, and responds at once, or waits for 20 ms before each response, as a
server does that is far away or busy.

many tables     200 of 5 rows, so that most of the time goes to statements
large tables    4 of 20,000 rows of ten columns, so that most of it goes to rows
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from pathlib import Path

from tests.sandbox.fivetran import load
from tests.sandbox.mssql import MssqlSandbox, faults

from .measure import Figure, Plan, fresh
from .mssql_tables import configuration_of
from .server_process import respond, server_process
from .sink import Sink, counted, expect

_MANY, _FEW_ROWS = 200, 5
_LARGE, _MANY_ROWS = 4, 20_000
_LATENCY = 0.02  # seconds
_READERS = (1, 2, 4)
_SHARE = 0.5  # of a core
_PERIOD = 0.1  # seconds, as of a container's quota
_STEP = 0.005


def run(plan: Plan) -> Iterator[Figure]:
    """The figures of both databases, with and without latency."""
    sizes = {
        "many tables": (max(round(_MANY * plan.scale), 4), _FEW_ROWS),
        "large tables": (_LARGE, max(round(_MANY_ROWS * plan.scale), 10)),
    }
    for what, (tables, rows) in sizes.items():
        with server_process(_serve, tables, rows) as ask:
            for latency in (0.0, _LATENCY * plan.scale):
                ask(str(latency))
                taken: dict[int, list[float]] = {readers: [] for readers in _READERS}
                fresh(_sync, ask("configuration"), tables * (rows + 1) + 1)  # now all is warm
                for number in range(1, plan.repeats + 1):
                    plan.say(f"{what}, run {number} of {plan.repeats}")
                    for readers in _READERS:
                        chosen = {**ask("configuration"), "parallel_tables": str(readers)}
                        taken[readers].append(fresh(_sync, chosen, tables * (rows + 1) + 1))
                waits = f", {1000 * latency:.0f} ms a response" if latency else ""
                for readers in _READERS[1:]:
                    name = f"{what}{waits}, {readers} connections"
                    yield Figure(name, "s", taken[readers], taken[1])


def _serve(pipe: Connection, tables: int, rows: int) -> None:
    with MssqlSandbox() as server:
        columns = [("id", "int"), *((f"value{i}", "varchar(20)") for i in range(9))]
        for number in range(tables):
            found = ((i, *(f"value {i}" for _ in range(9))) for i in range(rows))
            server.create_table("dbo", f"T{number:03d}", columns, key=["id"], rows=found)
        respond(pipe, _responses(server))


def _responses(server: MssqlSandbox) -> Callable[[str], dict[str, str]]:
    """Of "configuration", or of a latency in seconds."""

    def response(question: str) -> dict[str, str]:
        if question != "configuration":
            latency = float(question)
            server.faults.clear()
            server.faults.add(faults.call(lambda: time.sleep(latency), times=10**9))
        return {**configuration_of(server), "incremental_column": "none"}

    return response


def _sync(configuration: Mapping[str, str], rows: int) -> float:
    """The seconds of a first sync."""
    connector, sink = load("mssql_ehi"), Sink()
    with counted(sink), _half_a_core():
        before = time.monotonic()
        connector.update(configuration, state={})
        seconds = time.monotonic() - before
    expect(sink.count, rows)
    return seconds


@contextmanager
def _half_a_core() -> Iterator[None]:
    """Meanwhile another process stops this one whenever it has used its share of a period."""
    watched, watcher = os.getpid(), os.fork()
    if not watcher:
        _throttle(watched)
    try:
        yield
    finally:
        os.kill(watcher, signal.SIGTERM)
        os.waitpid(watcher, 0)


def _throttle(process: int) -> None:
    """Ends with the process that watches over it, or by SIGTERM between two periods."""
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    ended = threading.Event()
    with suppress(OSError):
        while not ended.is_set():
            until, before = time.monotonic() + _PERIOD, _cpu(process)
            while time.monotonic() < until and _cpu(process) - before < _SHARE * _PERIOD:
                time.sleep(_STEP)
            if (left := until - time.monotonic()) > 0:
                os.kill(process, signal.SIGSTOP)
                time.sleep(left)
                os.kill(process, signal.SIGCONT)
    os._exit(0)


def _cpu(process: int) -> float:
    """Seconds of CPU of a process, to the nanosecond."""
    threads = Path(f"/proc/{process}/task").iterdir()
    return sum(int((each / "schedstat").read_text().split()[0]) for each in threads) / 1e9
