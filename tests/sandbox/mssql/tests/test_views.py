# ruff: noqa: E501, S608 - statements stay whole
"""Views: read like tables, told by the catalogue, broken by what becomes of their tables."""

from __future__ import annotations

import pytest
from pytds import tds_base

from tests.sandbox.mssql import MssqlSandbox
from tests.sandbox.mssql.adapter import RealServer
from tests.sandbox.mssql.tests.client import ask, ask_nothing, connect, fails_with

Source = MssqlSandbox | RealServer


def patients(source: Source) -> None:
    source.create_table(
        "dbo", "p", [("id", "int", False), ("name", "nvarchar(20)"), ("born", "date")], key=["id"],
        rows=[(i, f"n{i}", None) for i in range(1, 6)],
    )  # fmt: skip


@pytest.mark.source
def test_view_is_read_like_a_table(source: Source) -> None:
    """Conditions, order, pages, joins, aggregates; a view over a view."""
    patients(source)
    source.create_view("dbo", "v", "SELECT id AS k, UPPER(name) AS [n m] FROM dbo.p WHERE id > 1")
    source.create_view("rep", "w", "SELECT v.k, v.[n m] FROM dbo.v AS v WHERE v.k < 5")
    with connect(source) as c:
        assert ask(c, "SELECT TOP (2) k, [n m] FROM dbo.v WHERE k > %s ORDER BY k", (2,)) == [
            (3, "N3"),
            (4, "N4"),
        ]
        assert ask(c, "SELECT COUNT_BIG(*) AS n, MIN(k) AS a, MAX(k) AS z FROM rep.w") == [
            (3, 2, 4)
        ]
        assert ask(
            c, "SELECT x.k, p.name FROM rep.w AS x JOIN dbo.p AS p ON p.id = x.k ORDER BY x.k DESC"
        ) == [(4, "n4"), (3, "n3"), (2, "n2")]
        assert ask(
            c, "SELECT * FROM rep.w AS w WHERE EXISTS (SELECT 1 FROM dbo.v WHERE k = w.k + 2)"
        ) == [
            (2, "N2"),
            (3, "N3"),
        ]


@pytest.mark.source
def test_views_in_the_catalogue(source: Source) -> None:
    """TABLES, COLUMNS, VIEWS, sys.views, sys.objects, OBJECT_ID and OBJECTPROPERTY."""
    patients(source)
    with connect(source) as c:
        ask_nothing(c, "CREATE VIEW dbo.v (k, n) WITH SCHEMABINDING AS SELECT id, name FROM dbo.p")
        assert ask(
            c, "SELECT TABLE_NAME, TABLE_TYPE FROM INFORMATION_SCHEMA.TABLES ORDER BY 1"
        ) == [
            ("p", "BASE TABLE"),
            ("v", "VIEW"),
        ]
        assert ask(
            c,
            "SELECT COLUMN_NAME, ORDINAL_POSITION, IS_NULLABLE, DATA_TYPE, CHARACTER_MAXIMUM_LENGTH "
            "FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_NAME = 'v' ORDER BY 2",
        ) == [("k", 1, "NO", "int", None), ("n", 2, "YES", "nvarchar", 20)]
        assert ask(
            c,
            "SELECT o.type, v.name, m.is_schema_bound, c.name FROM sys.views AS v "
            "JOIN sys.objects AS o ON o.object_id = v.object_id "
            "JOIN sys.sql_modules AS m ON m.object_id = v.object_id "
            "JOIN sys.columns AS c ON c.object_id = v.object_id ORDER BY c.column_id",
        ) == [("V ", "v", True, "k"), ("V ", "v", True, "n")]
        assert ask(
            c,
            "SELECT OBJECTPROPERTY(OBJECT_ID('dbo.v'), 'IsView') AS a, OBJECT_ID('dbo.v', 'U') AS b, "
            "OBJECT_NAME(OBJECT_ID('dbo.v', 'V')) AS c, OBJECTPROPERTY(OBJECT_ID('dbo.p'), 'IsView') AS d",
        ) == [(1, None, "v", 0)]
        assert ask(c, "SELECT COUNT(*) AS n FROM sys.tables WHERE name = 'v'") == [(0,)]
        ask_nothing(c, "DROP VIEW dbo.v")
        assert ask(c, "SELECT COUNT(*) AS n FROM INFORMATION_SCHEMA.VIEWS") == [(0,)]
        fails_with(208, c, "SELECT k FROM dbo.v")


@pytest.mark.source
def test_broken_views(source: Source) -> None:
    """A column or table that is gone: 207 or 208, then 4413; a new column is not in the view."""
    patients(source)
    source.create_table("dbo", "q", [("id", "int")], rows=[(1,)])
    source.create_view("dbo", "columns_of", "SELECT id, born FROM dbo.p")
    source.create_view("dbo", "all_of", "SELECT * FROM dbo.q")
    with connect(source) as c:
        ask_nothing(c, "ALTER TABLE dbo.q ADD late int NULL")
        assert ask(c, "SELECT * FROM dbo.all_of") == [(1,)]
        ask_nothing(c, "EXEC sp_refreshview N'dbo.all_of'")
        assert ask(c, "SELECT * FROM dbo.all_of") == [(1, None)]
        ask_nothing(c, "ALTER TABLE dbo.p DROP COLUMN born")
        ask_nothing(c, "DROP TABLE dbo.q")
        for name, words in (("columns_of", "Invalid column name 'born'"), ("all_of", "'dbo.q'")):
            with pytest.raises(tds_base.Error, match=words) as caught:
                ask(c, f"SELECT id FROM dbo.{name}")
            assert caught.value.msg_no == 4413
        assert ask(
            c,
            "SELECT COUNT(*) AS n FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_NAME = 'columns_of'",
        ) == [(2,)]
        ask_nothing(c, "CREATE OR ALTER VIEW dbo.columns_of AS SELECT id FROM dbo.p")
        assert len(ask(c, "SELECT * FROM dbo.columns_of")) == 5


@pytest.mark.source
def test_definitions_that_are_refused(source: Source) -> None:
    """As the server refuses them, by number; a bound table stays as it is."""
    patients(source)
    with connect(source) as c:
        for number, sql in (
            (208, "CREATE VIEW dbo.x AS SELECT a FROM dbo.nothing"),
            (207, "CREATE VIEW dbo.x AS SELECT nothing FROM dbo.p"),
            (1033, "CREATE VIEW dbo.x AS SELECT id FROM dbo.p ORDER BY id"),
            (4511, "CREATE VIEW dbo.x AS SELECT id + 1 FROM dbo.p"),
            (4506, "CREATE VIEW dbo.x AS SELECT id, name AS id FROM dbo.p"),
            (8158, "CREATE VIEW dbo.x (a) AS SELECT id, name FROM dbo.p"),
            (2714, "CREATE VIEW dbo.p AS SELECT 1 AS a"),
            (3705, "DROP VIEW dbo.p"),
            (3701, "DROP VIEW dbo.nothing"),
            (7202, "SELECT id FROM linked.db.dbo.t"),
        ):
            fails_with(number, c, sql)
        ask_nothing(c, "CREATE VIEW dbo.b WITH SCHEMABINDING AS SELECT id, name FROM dbo.p")
        fails_with(3729, c, "DROP TABLE dbo.p")
        fails_with(3705, c, "DROP TABLE dbo.b")
        ask_nothing(c, "CREATE UNIQUE CLUSTERED INDEX ix ON dbo.b (id)")
        assert ask(
            c, "SELECT name, is_unique FROM sys.indexes WHERE object_id = OBJECT_ID('dbo.b')"
        ) == [("ix", True)]
        ask_nothing(c, "CREATE VIEW dbo.u AS SELECT id FROM dbo.p")
        fails_with(1939, c, "CREATE UNIQUE CLUSTERED INDEX ix ON dbo.u (id)")


def test_rights_on_views(server: MssqlSandbox) -> None:
    """The rights on the view decide, not those on its tables; its columns, too."""
    patients(server)
    server.create_view("dbo", "v", "SELECT id, name FROM dbo.p")
    server.deny("dbo.p")
    server.mark("dbo.p", "name", denied=True)
    allowed = "SELECT HAS_PERMS_BY_NAME('dbo.v', 'OBJECT', 'SELECT')"
    with connect(server) as c:
        fails_with(229, c, "SELECT * FROM dbo.p")
        assert len(ask(c, "SELECT id, name FROM dbo.v")) == 5
        assert ask(c, allowed) == [(1,)]
        server.mark("dbo.v", "name", denied=True)
        fails_with(230, c, "SELECT name FROM dbo.v")
        server.execute("DENY SELECT ON dbo.v TO reader")
        fails_with(229, c, "SELECT id FROM dbo.v")
        assert ask(c, allowed) == [(0,)]
        server.deny("dbo.v", hidden=True)
        assert ask(c, "SELECT TABLE_NAME FROM INFORMATION_SCHEMA.TABLES") == [("p",)]
        server.mark("dbo.v", "name", denied=False)
        server.grant("dbo.v")
        server.mark("dbo.p", "name", masked=True)
        assert ask(c, "SELECT name FROM dbo.v WHERE id = 1") == [("xxxx",)]


def test_view_whose_linked_server_fails(server: MssqlSandbox) -> None:
    """Its columns are known, a SELECT fails with the error that the test chooses."""
    patients(server)
    server.create_view("dbo", "v", "SELECT id FROM dbo.p")
    with connect(server) as c:
        for number in (7399, 7202):
            server.break_view("dbo.v", number)
            fails_with(number, c, "SELECT id FROM dbo.v")
        assert ask(
            c, "SELECT COUNT(*) FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_NAME = 'v'"
        ) == [(1,)]
        server.break_view("dbo.v", 0)
        assert len(ask(c, "SELECT id FROM dbo.v")) == 5


def test_view_that_is_not_written_through(server: MssqlSandbox) -> None:
    """The server would; this simulator refuses."""
    patients(server)
    server.create_view("dbo", "v", "SELECT id FROM dbo.p")
    with connect(server) as c:
        fails_with(102, c, "DELETE FROM dbo.v")
        fails_with(102, c, "CREATE VIEW dbo.w AS SELECT id FROM dbo.p WITH CHECK OPTION")
