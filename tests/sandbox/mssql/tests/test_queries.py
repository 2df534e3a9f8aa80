# ruff: noqa: E501, S608 - column values are naive; statements stay whole
"""What a SELECT gives: order, comparison, collations, paging."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.sandbox.mssql import ColumnSpec, MssqlSandbox
from tests.sandbox.mssql.tests.client import ask, connect, fails_with


def test_uniqueidentifiers_sort_as_on_the_server(server: MssqlSandbox) -> None:
    """The last six bytes weigh most, then the others from right to left."""
    ids = [
        uuid.UUID("01000000-0000-0000-0000-000000000000"),
        uuid.UUID("00000000-0100-0000-0000-000000000000"),
        uuid.UUID("00000000-0000-0100-0000-000000000000"),
        uuid.UUID("00000000-0000-0000-0100-000000000000"),
        uuid.UUID("00000000-0000-0000-0000-010000000000"),
    ]
    server.create_table("dbo", "g", [("id", "uniqueidentifier")], key=["id"],
                        rows=[(i,) for i in reversed(ids)])  # fmt: skip
    with connect(server) as c:
        assert [row[0] for row in ask(c, "SELECT id FROM dbo.g ORDER BY id")] == ids
        assert ask(c, "SELECT COUNT(*) FROM dbo.g WHERE id > %s", (ids[2],)) == [(2,)]
        assert ask(c, "SELECT MAX(id), MIN(id) FROM dbo.g") == [(ids[-1], ids[0])]


def test_collations(server: MssqlSandbox) -> None:
    """Case, trailing blanks, binary order; varchar and nvarchar differ in order."""
    words = ["b", "B ", "a-c", "ab", "Ä", "a"]
    columns = [
        ColumnSpec("i", "int"),
        ColumnSpec("n", "nvarchar(10)"),
        ColumnSpec("v", "varchar(10)"),
        ColumnSpec("cs", "nvarchar(10)", collation="Latin1_General_CS_AS"),
        ColumnSpec("bin", "nvarchar(10)", collation="Latin1_General_BIN2"),
    ]
    rows = [(i, w, w, w, w) for i, w in enumerate(words)]
    server.create_table("dbo", "w", columns, rows=rows)
    with connect(server) as c:
        assert ask(c, "SELECT COUNT(*) FROM dbo.w WHERE n = 'B'") == [(2,)]
        assert ask(c, "SELECT COUNT(*) FROM dbo.w WHERE cs = 'B'") == [(1,)]
        assert ask(c, "SELECT COUNT(*) FROM dbo.w WHERE bin = 'B'") == [(1,)]
        assert ask(c, "SELECT COUNT(*) FROM dbo.w WHERE n = 'B' COLLATE Latin1_General_BIN2") == [
            (1,)
        ]
        assert ask(c, "SELECT v FROM dbo.w WHERE v LIKE 'A[^a]%'") == [("a-c",), ("ab",)]
        # a hyphen weighs almost nothing in nvarchar, and is a character of its own in varchar
        assert ask(c, "SELECT n FROM dbo.w WHERE n IN ('a-c', 'ab') ORDER BY n") == [
            ("ab",),
            ("a-c",),
        ]
        assert ask(c, "SELECT v FROM dbo.w WHERE v IN ('a-c', 'ab') ORDER BY v") == [
            ("a-c",),
            ("ab",),
        ]
        order = [row[0] for row in ask(c, "SELECT bin FROM dbo.w ORDER BY bin")]
        assert order == ["B ", "a", "a-c", "ab", "b", "Ä"]
        assert ask(c, "SELECT COUNT(DISTINCT n) FROM dbo.w") == [(5,)]
    with pytest.raises(Exception, match="2627"):
        server.create_table("dbo", "k", [("n", "nvarchar(9)")], key=["n"], rows=[("a",), ("A ",)])


def test_datetime_is_widened_when_compared(server: MssqlSandbox) -> None:
    """.003 is .0033333: a datetime2 parameter does not match it, a cast one does."""
    server.create_table("dbo", "d", [("at", "datetime")], rows=[("2024-01-01T00:00:00.003",)])
    at = dt.datetime(2024, 1, 1, 0, 0, 0, 3000)
    with connect(server) as c:
        assert ask(c, "SELECT at FROM dbo.d") == [(at,)]
        assert ask(c, "SELECT at FROM dbo.d WHERE at = %s", (at,)) == []
        assert ask(c, "SELECT at FROM dbo.d WHERE at > %s", (at,)) == [(at,)]
        assert ask(c, "SELECT at FROM dbo.d WHERE at = CAST(%s AS datetime)", (at,)) == [(at,)]
        text = "2024-01-01T00:00:00.003"
        assert ask(c, "SELECT at FROM dbo.d WHERE at = CONVERT(datetime, %s, 126)", (text,)) == [
            (at,)
        ]
        fine = "2024-01-01T00:00:00.0033333"
        sql = "SELECT at FROM dbo.d WHERE at = CONVERT(datetime2(7), %s, 126)"
        assert ask(c, sql, (fine,)) == [(at,)]


def test_numbers_compare_exactly_over_scales(server: MssqlSandbox) -> None:
    """Decimals of other scales and widths, integers and floats."""
    server.create_table("dbo", "n", [("a", "decimal(18,2)"), ("b", "decimal(38,10)"), ("i", "bigint")],
                        rows=[("1.10", "1.1000000000", 1), ("-5", "-5.0000000001", -5)])  # fmt: skip
    with connect(server) as c:
        assert ask(c, "SELECT i FROM dbo.n WHERE a = b") == [(1,)]
        assert ask(c, "SELECT i FROM dbo.n WHERE a > b") == [(-5,)]
        assert ask(c, "SELECT i FROM dbo.n WHERE a = 1.1") == [(1,)]
        assert ask(c, "SELECT i FROM dbo.n WHERE a > 1.095") == [(1,)]
        assert ask(c, "SELECT i FROM dbo.n WHERE i < %s", (Decimal("-4.5"),)) == [(-5,)]
        assert ask(c, "SELECT i FROM dbo.n WHERE b < %s", (Decimal("-5"),)) == [(-5,)]
        assert ask(c, "SELECT SUM(a), SUM(b), AVG(a), COUNT_BIG(*) FROM dbo.n") == [
            (Decimal("-3.90"), Decimal("-3.9000000001"), Decimal("-1.950000"), 2)
        ]
        assert ask(c, "SELECT a * b, a + i, i / 2, -i % 3 FROM dbo.n WHERE i = -5") == [
            (Decimal("25.000000"), Decimal("-10.00"), -2, 2)
        ]


def test_queries_of_every_shape(server: MssqlSandbox) -> None:
    """Joins, sub-queries, CTEs, unions, grouping, paging, CASE, variables."""
    server.create_table("dbo", "p", [("id", "int", False), ("n", "nvarchar(9)")], key=["id"],
                        rows=[(1, "a"), (2, "b"), (3, None)])  # fmt: skip
    server.create_table("dbo", "o", [("p", "int"), ("q", "int")], rows=[(1, 5), (1, 6), (2, 7)])
    cases: dict[str, list[tuple[Any, ...]]] = {
        "SELECT p.n, o.q FROM dbo.p AS p JOIN dbo.o o ON o.p = p.id WHERE o.q > 5 ORDER BY o.q":
            [("a", 6), ("b", 7)],
        "SELECT p.id, o.q FROM dbo.p p LEFT JOIN dbo.o o ON o.p = p.id WHERE o.q IS NULL": [(3, None)],
        "SELECT id FROM dbo.p WHERE id IN (SELECT p FROM dbo.o) ORDER BY id DESC": [(2,), (1,)],
        "SELECT id FROM dbo.p x WHERE NOT EXISTS (SELECT 1 FROM dbo.o WHERE p = x.id)": [(3,)],
        "WITH t AS (SELECT p, SUM(q) AS s FROM dbo.o GROUP BY p HAVING COUNT(*) > 1) SELECT * FROM t":
            [(1, 11)],
        "SELECT id FROM dbo.p UNION ALL SELECT q FROM dbo.o ORDER BY 1 DESC": [(7,), (6,), (5,), (3,), (2,), (1,)],
        "SELECT id FROM dbo.p ORDER BY id OFFSET 1 ROWS FETCH NEXT 1 ROWS ONLY": [(2,)],
        "SELECT TOP 2 id FROM dbo.p ORDER BY id DESC": [(3,), (2,)],
        "SELECT DISTINCT p FROM dbo.o ORDER BY p": [(1,), (2,)],
        "SELECT CASE WHEN n IS NULL THEN 'none' WHEN n = 'A' THEN 'x' ELSE n END FROM dbo.p ORDER BY id":
            [("x",), ("b",), ("none",)],
        "SELECT COALESCE(n, N'?'), ISNULL(n, 'z'), LEN('ab  '), DATALENGTH(N'ab') FROM dbo.p WHERE id = 3":
            [("?", "z", 2, 4)],
        "SELECT (SELECT MAX(q) FROM dbo.o WHERE p = x.id) FROM dbo.p x ORDER BY x.id": [(6,), (7,), (None,)],
        "SELECT id, ROW_NUMBER() OVER (ORDER BY id DESC) AS r FROM dbo.p ORDER BY id": [(1, 3), (2, 2), (3, 1)],
        "DECLARE @a int = 2; SET @a = @a + 1; SELECT @a AS v": [(3,)],
        "IF @@TRANCOUNT = 0 SELECT 'none' ELSE SELECT 'some'": [("none",)],
        "SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS v(x, y) WHERE x = 2": [(2, "b")],
        "SELECT [n] FROM [dbo].[p] WITH (READCOMMITTEDLOCK) WHERE id BETWEEN 1 AND 1 OPTION (RECOMPILE)":
            [("a",)],
        "SELECT N'it''s' + 'x', 0x0A, 1.50, 1e3, -2147483648": [("it'sx", b"\x0a", Decimal("1.50"), 1000.0, -(2**31))],
        "SELECT DATEADD(day, 1, CAST('2024-02-28' AS date)), DATEDIFF(hour, '2024-01-01', '2024-01-02')":
            [(dt.date(2024, 2, 29), 24)],
        "SELECT OBJECT_ID('dbo.nothing'), OBJECT_NAME(OBJECT_ID(N'[dbo].[p]')), SCHEMA_NAME(1)":
            [(None, "p", "dbo")],
        "SELECT COUNT(*) FROM dbo.p WHERE 1 = 0": [(0,)],
    }  # fmt: skip
    with connect(server) as c:
        for sql, wanted in cases.items():
            assert ask(c, sql) == wanted, sql


def test_clock_and_offset(server: MssqlSandbox) -> None:
    """The server's clock can be stopped, and its local time differs from UTC."""
    server.set_clock(dt.datetime(2024, 6, 1, 12, tzinfo=dt.timezone.utc), offset_minutes=-300)
    with connect(server) as c:
        (row,) = ask(c, "SELECT SYSDATETIME(), SYSUTCDATETIME(), GETDATE(), SYSDATETIMEOFFSET()")
    assert row[:3] == (
        dt.datetime(2024, 6, 1, 7),
        dt.datetime(2024, 6, 1, 12),
        dt.datetime(2024, 6, 1, 7),
    )
    assert row[3].isoformat() == "2024-06-01T07:00:00-05:00"


@pytest.mark.parametrize("page", [1, 7, 1000])
def test_keyset_paging_gives_all_rows_with_ties(server: MssqlSandbox, page: int) -> None:
    """Pages by (time, composite key), many rows with one time: every row once, in order."""
    rows = [
        (f"2024-01-01T00:00:00.{i // 25:07d}", f"K{i % 5}", Decimal(i) / 4, i) for i in range(60)
    ]
    server.create_table(
        "dbo", "k",
        [("at", "datetime2(7)", False), ("a", "varchar(9)"), ("b", "decimal(9,2)"), ("n", "int")],
        key=["a", "b"], indexes=[["at", "a", "b"]], rows=rows,
    )  # fmt: skip
    seen: list[int] = []
    where, values = "", ()
    with connect(server) as c:
        while True:
            sql = (
                f"SELECT TOP ({page}) CONVERT(varchar(30), at, 126), a, b, n FROM dbo.k {where} "
                "ORDER BY at, a, b"
            )
            got = ask(c, sql, values or None)
            seen += [row[3] for row in got]
            if len(got) < page:
                break
            at, a, b, _ = got[-1]
            where = (
                "WHERE (at > CONVERT(datetime2(7), %(t)s, 126) OR (at = CONVERT(datetime2(7), %(t)s, 126)"
                " AND (a > CAST(%(a)s AS varchar(9)) OR (a = CAST(%(a)s AS varchar(9)) AND b > %(b)s))))"
            )
            values = {"t": at, "a": a, "b": b}  # type: ignore[assignment]
    assert seen == sorted(range(60), key=lambda i: (i // 25, i % 5, i))


def test_keyset_page_uses_the_index(server: MssqlSandbox) -> None:
    """The predicate seeks in the index and sorts nothing."""
    from tests.sandbox.mssql.compiler import Compiler
    from tests.sandbox.mssql.parser import parse
    from tests.sandbox.mssql.session import Session

    server.create_table("dbo", "k", [("a", "nvarchar(9)"), ("b", "int")], key=["a", "b"])
    session = Session(server.instance, server.store, server.info)
    compiler = Compiler(session)
    query = compiler.query(
        parse("SELECT TOP (5) * FROM dbo.k WHERE (a > N'x' OR (a = N'x' AND b > 5)) ORDER BY a, b")
    )
    plan = session.connection.execute(
        "EXPLAIN QUERY PLAN " + query.sql.text, query.sql.args
    ).fetchall()
    session.close()
    assert [step[3].split("(")[0] for step in plan] == [
        f"SEARCH s1 USING COVERING INDEX i{server.table('dbo.k').id}_1 "
    ]


_KEYS = st.lists(
    st.tuples(st.text("aAbB -'é", max_size=3), st.integers(-3, 3)), max_size=12,
    unique_by=lambda k: (k[0].rstrip(" ").lower(), k[1]),
)  # fmt: skip


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=_KEYS, data=st.data())
def test_order_and_comparison_agree(server: MssqlSandbox, rows: list[Any], data: Any) -> None:
    """What sorts after a key is what compares greater than it, whatever the text."""
    if server.store.tables:
        server.execute("DROP TABLE dbo.h")
    server.create_table(
        "dbo", "h", [("a", "nvarchar(9)"), ("b", "int")], key=["a", "b"], rows=rows
    )
    order = [(a, b) for a, b in server.execute("SELECT a, b FROM dbo.h ORDER BY a, b")]
    if not order:
        return
    place = data.draw(st.integers(0, len(order) - 1))
    a, b = order[place]
    after = server.execute(
        "SELECT a, b FROM dbo.h WHERE (a > @a OR (a = @a AND b > @b)) ORDER BY a, b",
        {"a": a, "b": b},
    )
    assert after == order[place + 1 :]


def test_what_is_not_understood_is_an_error(server: MssqlSandbox) -> None:
    """A clause that is not translated never changes a result silently."""
    server.create_table(
        "dbo", "t", [("a", "int"), ("b", "nvarchar(9)")], rows=[(1, "x"), (2, "y")]
    )
    with connect(server) as c:
        for sql in (
            "SELECT a FROM dbo.t FOR JSON PATH",
            "SELECT TOP (1) WITH TIES a FROM dbo.t ORDER BY b",
            "SELECT TOP 50 PERCENT a FROM dbo.t",
            "SELECT a FROM dbo.t LIMIT 1",
            "SELECT a::bigint FROM dbo.t",
            "SELECT a FROM dbo.t TABLESAMPLE (10 PERCENT)",
            "SELECT a FROM dbo.t FOR SYSTEM_TIME AS OF '2020-01-01'",
            "SELECT a FROM dbo.t GROUP BY ROLLUP(a)",
            "SELECT a FROM dbo.t ORDER BY a NULLS LAST",
            "SELECT SUM(a) OVER (ORDER BY a ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM dbo.t",
            "SELECT a FROM dbo.t WHERE a",
            "SELECT TRUE",
            "SELECT a INTO dbo.u FROM dbo.t",
            "INSERT INTO dbo.t (a) OUTPUT inserted.a VALUES (3)",
            "DELETE TOP (1) FROM dbo.t",
            "MERGE INTO dbo.t USING dbo.t AS u ON u.a = t.a WHEN MATCHED THEN DELETE",
            "CREATE PROCEDURE dbo.p AS SELECT 1 AS a",
            "WAITFOR DELAY '00:00:01'",
            "SELECT x.b FROM dbo.t AS t CROSS APPLY (SELECT TOP (1) u.a AS b FROM dbo.t AS u WHERE u.a > t.a) AS x",
            "SELECT HASHBYTES('MD4', b) FROM dbo.t",
            "SELECT CAST(CAST(SYSUTCDATETIME() AS datetime2(7)) AS varbinary(4)) FROM dbo.t",
        ):
            fails_with(102, c, sql)
        assert ask(c, "SELECT a FROM dbo.t WHERE b NOT LIKE 'X%%' AND a NOT IN (5, 6)", ()) == [
            (2,)
        ]
        assert ask(c, "SELECT COUNT(*) FROM dbo.t WHERE NOT a BETWEEN 2 AND 3 OR b IS NULL") == [
            (1,)
        ]


def test_long_lists(server: MssqlSandbox) -> None:
    """IN compares by the column's collation, and knows no NULL; UNION ALL goes on and on."""
    rows = [(1, "a"), (2, "B"), (3, None)]
    server.create_table("dbo", "words", [("id", "int"), ("w", "nvarchar(9)")], rows=rows)
    words = ", ".join(["NULL", *(f"N'{word}'" for word in ("A ", "b", *map(str, range(500))))])
    one = "SELECT {} AS n FROM dbo.words WHERE id = 1"
    chain = " UNION ALL ".join(map(one.format, range(150)))
    with connect(server) as c:
        assert ask(c, f"SELECT id FROM dbo.words WHERE w IN ({words}) ORDER BY id") == [(1,), (2,)]
        assert ask(c, "SELECT id FROM dbo.words WHERE id IN (3, 1, NULL) ORDER BY id") == [
            (1,),
            (3,),
        ]
        assert ask(c, "SELECT id FROM dbo.words WHERE id NOT IN (3, 1)") == [(2,)]
        assert ask(c, "SELECT id FROM dbo.words WHERE id IN (1.0, 2)  ORDER BY 1") == [(1,), (2,)]
        assert sorted(ask(c, chain)) == [(n,) for n in range(150)]
