"""Long results, cancelled ones, and results in short packets."""

from __future__ import annotations

import uuid
from decimal import Decimal

import pytest
from pytds import tds_base

from tests.sandbox.mssql import Fragmentation, MssqlSandbox, faults
from tests.sandbox.mssql.tests.client import ask, connect


def test_many_rows_with_flat_memory(server: MssqlSandbox) -> None:
    """200,000 rows are streamed; the server holds none of them."""
    import resource

    count = 200_000
    server.create_table("dbo", "big", [("id", "int", False), ("t", "nvarchar(40)")], key=["id"],
                        rows=((i, "some text of this row") for i in range(count)))  # fmt: skip
    with connect(server) as c, c.cursor() as cursor:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        cursor.execute("SELECT id, t FROM dbo.big ORDER BY id")
        total, number = 0, 0
        while rows := cursor.fetchmany(5000):
            total += sum(row[0] for row in rows)
            number += len(rows)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (number, total) == (count, count * (count - 1) // 2)
    assert grown < 16_000  # kB; the rows take 12 MB on the wire, far more as Python objects


def test_a_reader_that_stops_reading_stops_the_server(server: MssqlSandbox) -> None:
    """Back-pressure: rows are made as they are taken."""
    server.create_table("dbo", "wide", [("id", "int", False), ("t", "varchar(8000)")], key=["id"],
                        rows=((i, "x" * 8000) for i in range(4000)))  # fmt: skip
    reached = faults.call(lambda: None, after_rows=3900, match="FROM dbo.wide")
    server.faults.add(reached)
    with connect(server) as c, c.cursor() as cursor:
        cursor.execute("SELECT id, t FROM dbo.wide ORDER BY id")
        cursor.fetchmany(10)
        assert not reached.reached.wait(0.05)
        assert len(cursor.fetchall()) == 3990
        assert reached.reached.is_set()


def test_attention_ends_a_result(server: MssqlSandbox) -> None:
    """After a cancel in mid-result the connection takes the next statement."""
    server.create_table("dbo", "big", [("id", "int", False)], key=["id"],
                        rows=((i,) for i in range(50_000)))  # fmt: skip
    with connect(server) as c:
        for _ in range(3):
            with c.cursor() as cursor:
                cursor.execute("SELECT id FROM dbo.big ORDER BY id")
                assert cursor.fetchone() == (0,)
                cursor.cancel()
            assert ask(c, "SELECT COUNT(*) FROM dbo.big") == [(50_000,)]


def test_timeout_then_attention(busy: MssqlSandbox) -> None:
    """A stalled statement times out at the client; its cancel is answered."""
    stalled = faults.stall(match="FROM dbo.b")
    busy.faults.add(stalled)
    with connect(busy, timeout=0.2) as c:
        with pytest.raises(tds_base.TimeoutError):
            ask(c, "SELECT * FROM dbo.b")
        assert stalled.reached.is_set()


@pytest.mark.usefixtures("whole_values")
@pytest.mark.parametrize(
    "cut",
    [
        Fragmentation(packet=(1, 1)),
        Fragmentation(packet=(1, 9), seed=3),
        Fragmentation(packet=(3, 700), segments=(1, 5, 2)),
        Fragmentation(segments=(7, 1, 4096, 3)),
    ],
    ids=["one byte", "tiny", "both", "segments"],
)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_fragments(server: MssqlSandbox, cut: Fragmentation, secure: bool) -> None:
    """Values that straddle many short packets and segments arrive whole."""
    rows = [(i, f"text {i} ł", uuid.UUID(int=i), Decimal(i) / 7, b"\1" * i) for i in range(60)]
    rows = [(i, t, g, d.quantize(Decimal("1.0000000000")), b) for i, t, g, d, b in rows]
    server.create_table(
        "dbo", "f",
        [("id", "int"), ("t", "nvarchar(max)"), ("g", "uniqueidentifier"), ("d", "decimal(38,10)"),
         ("b", "varbinary(99)")], key=["id"], rows=rows,
    )  # fmt: skip
    server.fragmentation = cut
    options = {"cafile": str(server.ca_file())} if secure else {}
    with connect(server, **options) as c:
        assert ask(c, "SELECT * FROM dbo.f ORDER BY id") == rows


def test_short_packets_show_the_clients_fault(server: MssqlSandbox) -> None:
    """Without the guard the client reads stale bytes: what the simulator is there to show."""
    server.create_table("dbo", "f", [("id", "bigint")], rows=[(i * 10**12,) for i in range(50)])
    server.fragmentation = Fragmentation(packet=(3, 3))
    with connect(server) as c:
        try:
            got = ask(c, "SELECT id FROM dbo.f ORDER BY id")
        except Exception:  # it may also lose its way in the stream
            return
        assert got != [(i * 10**12,) for i in range(50)]
