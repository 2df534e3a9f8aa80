# ruff: noqa: PT012 - column values are naive; statements stay whole
"""Errors, drops and timeouts on demand."""

from __future__ import annotations

import socket
import threading

import pytest
from pytds import tds_base

from tests.sandbox.mssql import MssqlSandbox, faults
from tests.sandbox.mssql.tests.client import (
    ask,
    ask_nothing,
    connect,
    fails_with,
    number_of,
    refused,
)


def test_errors_on_demand(busy: MssqlSandbox) -> None:
    """Any number, before a row or after some, once or several times."""
    busy.faults.add(
        faults.fail(1205, 51, match="FROM dbo.b", times=2), faults.fail(1222, after_rows=3)
    )
    with connect(busy) as c:
        for _ in range(2):
            fails_with(1205, c, "SELECT id FROM dbo.b")
        with c.cursor() as cursor:
            cursor.execute("SELECT id FROM dbo.b ORDER BY id")
            got = []
            with pytest.raises(tds_base.Error) as caught:
                while row := cursor.fetchone():
                    got.append(row[0])
        assert (number_of(caught.value), got) == (1222, [0, 1, 2])
        assert len(ask(c, "SELECT id FROM dbo.b")) == 500
        assert busy.faults.pending == 0


def test_deadlock_rolls_the_transaction_back(busy: MssqlSandbox) -> None:
    """After 1205 there is no transaction."""
    with connect(busy, autocommit=False) as c:
        ask_nothing(c, "UPDATE dbo.b SET v = 5 WHERE id = 1")
        busy.faults.add(faults.fail(1205, 51))
        fails_with(1205, c, "SELECT id FROM dbo.b")
        assert ask(c, "SELECT v FROM dbo.b WHERE id = 1") == [(0,)]


@pytest.mark.usefixtures("whole_values")
@pytest.mark.parametrize("cut", ["row_end", "row", "packet"])
def test_dropped_connections(busy: MssqlSandbox, cut: str) -> None:
    """The connection ends after some rows, in mid-row, or in mid-packet."""
    busy.faults.add(faults.drop(after_rows=5, cut=cut))
    c = connect(busy)
    got = []
    with pytest.raises((tds_base.Error, OSError)), c.cursor() as cursor:
        cursor.execute("SELECT id FROM dbo.b ORDER BY id")
        while row := cursor.fetchone():
            got.append(row[0])
    c.close()
    assert got == [0, 1, 2, 3, 4]
    with connect(busy) as again:
        assert len(ask(again, "SELECT id FROM dbo.b")) == 500


def test_stall_after_rows_and_release(busy: MssqlSandbox) -> None:
    """Silence in mid-result; the test ends it."""
    stalled = faults.stall(after_rows=5)
    busy.faults.add(stalled)
    with connect(busy) as c, c.cursor() as cursor:
        cursor.execute("SELECT id FROM dbo.b ORDER BY id")
        assert [cursor.fetchone()[0] for _ in range(5)] == [0, 1, 2, 3, 4]
        assert stalled.reached.wait(5)
        stalled.gate.set()
        assert len(cursor.fetchall()) == 495


def test_undecodable_row(busy: MssqlSandbox) -> None:
    """The client fails at that row, after the ones before it."""
    busy.create_table("dbo", "u", [("id", "int", False), ("at", "datetime2(7)")], key=["id"],
                      rows=[(i, "2024-01-01") for i in range(9)])  # fmt: skip
    busy.faults.add(faults.bad_row(after_rows=4, match="FROM dbo.u"))
    busy.corrupt("dbo.u", "at", {"id": 7})
    for wanted in (4, 7):
        c = connect(busy)
        got = []
        with pytest.raises((OverflowError, ValueError)), c.cursor() as cursor:
            cursor.execute("SELECT id, at FROM dbo.u ORDER BY id")
            while row := cursor.fetchone():
                got.append(row[0])
        assert got == list(range(wanted))
        c.close()


def test_faults_of_logins(server: MssqlSandbox) -> None:
    """Errors, a refused connection, and a login that hangs."""
    server.faults.add_login(faults.fail(40613, server.database), faults.drop(), faults.stall())
    assert number_of(refused(server)) == 40613
    assert isinstance(refused(server), (tds_base.ClosedConnectionError, ConnectionError))
    assert isinstance(refused(server), (tds_base.TimeoutError, TimeoutError))
    with connect(server) as c:
        assert ask(c, "SELECT 1 AS one") == [(1,)]


def test_paused_server_refuses_and_comes_back(busy: MssqlSandbox) -> None:
    """A pause ends connections and refuses new ones; the port stays the same."""
    port = busy.port
    c = connect(busy)
    busy.pause()
    with pytest.raises((tds_base.Error, OSError)):
        ask(c, "SELECT 1 AS one")
    c.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((busy.host, port), timeout=2)
    busy.start()
    assert busy.port == port
    with connect(busy) as again:
        assert ask(again, "SELECT COUNT(*) FROM dbo.b") == [(500,)]


def test_statements_are_logged(busy: MssqlSandbox) -> None:
    """Each request with its parameters."""
    with connect(busy) as c:
        ask(c, "SELECT id FROM dbo.b WHERE id = %s", (7,))
    (entry,) = busy.statements
    assert entry.sql == "SELECT id FROM dbo.b WHERE id = @P1"
    assert list(entry.parameters.values()) == [7]


def test_several_clients_at_once(busy: MssqlSandbox) -> None:
    """A thread for each connection."""
    results: list[int] = []

    def read() -> None:
        with connect(busy) as c:
            results.append(len(ask(c, "SELECT id FROM dbo.b")))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [500] * 8
