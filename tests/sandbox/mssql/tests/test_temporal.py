# ruff: noqa: E501, S608 - statements stay whole
"""System-versioned tables: hidden columns, the history, what is refused."""

from __future__ import annotations

import datetime as dt

import pytest

from tests.sandbox.mssql import MssqlSandbox
from tests.sandbox.mssql.adapter import RealServer
from tests.sandbox.mssql.tests.client import ask, ask_nothing, connect, fails_with

Source = MssqlSandbox | RealServer

FOR_EVER = "ValidTo = CONVERT(datetime2(7), '9999-12-31 23:59:59.9999999')"


def versioned(source: Source, *, hidden: bool = True) -> None:
    source.create_temporal_table(
        "dbo", "t", [("id", "int", False), ("v", "nvarchar(20)")], key=["id"], hidden=hidden,
        rows=[(1, "a"), (2, "b"), (3, "c")],
    )  # fmt: skip


@pytest.mark.source
def test_hidden_period_columns(source: Source) -> None:
    """They are not in SELECT *, but in the catalogue, and may be selected."""
    versioned(source)
    with connect(source) as c:
        assert ask(c, "SELECT * FROM dbo.t ORDER BY id") == [(1, "a"), (2, "b"), (3, "c")]
        assert ask(
            c,
            f"SELECT COUNT(*) AS n FROM dbo.t WHERE {FOR_EVER} AND ValidFrom <= SYSUTCDATETIME()",
        ) == [(3,)]
        assert ask(
            c,
            "SELECT COLUMN_NAME, IS_NULLABLE, DATA_TYPE FROM INFORMATION_SCHEMA.COLUMNS "
            "WHERE TABLE_NAME = 't' ORDER BY ORDINAL_POSITION",
        ) == [
            ("id", "NO", "int"), ("v", "YES", "nvarchar"), ("ValidFrom", "NO", "datetime2"),
            ("ValidTo", "NO", "datetime2"),
        ]  # fmt: skip
        assert ask(
            c,
            "SELECT name, generated_always_type, generated_always_type_desc, is_hidden FROM sys.columns "
            "WHERE object_id = OBJECT_ID('dbo.t') AND generated_always_type > 0 ORDER BY column_id",
        ) == [("ValidFrom", 1, "AS_ROW_START", True), ("ValidTo", 2, "AS_ROW_END", True)]


@pytest.mark.source
def test_temporal_tables_in_the_catalogue(source: Source) -> None:
    """The table, its history, its period."""
    versioned(source, hidden=False)
    with connect(source) as c:
        assert ask(
            c,
            "SELECT t.name, t.temporal_type, t.temporal_type_desc, h.name, h.temporal_type, h.temporal_type_desc "
            "FROM sys.tables AS t JOIN sys.tables AS h ON h.object_id = t.history_table_id",
        ) == [("t", 2, "SYSTEM_VERSIONED_TEMPORAL_TABLE", "t_History", 1, "HISTORY_TABLE")]
        assert ask(
            c,
            "SELECT p.name, p.period_type_desc, OBJECT_NAME(p.object_id), s.name, e.name FROM sys.periods AS p "
            "JOIN sys.columns AS s ON s.object_id = p.object_id AND s.column_id = p.start_column_id "
            "JOIN sys.columns AS e ON e.object_id = p.object_id AND e.column_id = p.end_column_id",
        ) == [("SYSTEM_TIME", "SYSTEM_TIME_PERIOD", "t", "ValidFrom", "ValidTo")]
        assert len(ask(c, "SELECT * FROM dbo.t")[0]) == 4
        key = "SELECT COUNT(*) AS n FROM sys.indexes WHERE is_primary_key = 1 AND object_id = OBJECT_ID('dbo.t_History')"
        assert ask(c, key) == [(0,)]
        ask_nothing(c, "ALTER TABLE dbo.t ADD late int NULL")
        assert ask(c, "SELECT COUNT(*) AS n FROM sys.columns WHERE name = 'late'") == [(2,)]
        ask_nothing(c, "ALTER TABLE dbo.t SET (SYSTEM_VERSIONING = OFF)")
        assert ask(c, "SELECT SUM(temporal_type) AS n FROM sys.tables") == [(0,)]
        ask_nothing(
            c, "ALTER TABLE dbo.t SET (SYSTEM_VERSIONING = ON (HISTORY_TABLE = dbo.t_History))"
        )
        assert ask(c, "SELECT SUM(temporal_type) AS n FROM sys.tables") == [(3,)]


@pytest.mark.source
def test_history_of_rows(source: Source) -> None:
    """Updates and deletes leave the rows as they were; their periods meet."""
    versioned(source)
    with connect(source) as c:
        ask_nothing(c, "UPDATE dbo.t SET v = N'A' WHERE id = 1")
        ask_nothing(c, "UPDATE dbo.t SET v = N'AA' WHERE id = 1")
        ask_nothing(c, "DELETE FROM dbo.t WHERE id = 2")
        ask_nothing(c, "INSERT INTO dbo.t (id, v) VALUES (9, N'new')")
        assert ask(c, "SELECT id, v FROM dbo.t_History ORDER BY id, ValidFrom") == [
            (1, "a"), (1, "A"), (2, "b"),
        ]  # fmt: skip
        assert ask(c, "SELECT COUNT(*) AS n FROM dbo.t_History WHERE ValidFrom <= ValidTo") == [
            (3,)
        ]
        assert ask(
            c,
            "SELECT h.v FROM dbo.t AS t JOIN dbo.t_History AS h ON h.id = t.id AND h.ValidTo = t.ValidFrom",
        ) == [("A",)]
        ask_nothing(
            c,
            "BEGIN TRANSACTION; UPDATE dbo.t SET v = N'x' WHERE id = 3; UPDATE dbo.t SET v = N'y' WHERE id = 3; COMMIT",
        )
        assert ask(
            c,
            "SELECT v, CASE WHEN ValidFrom = ValidTo THEN 1 ELSE 0 END AS empty FROM dbo.t_History "
            "WHERE id = 3 ORDER BY ValidFrom",
        ) == [("c", 0), ("x", 1)]


@pytest.mark.source
def test_what_temporal_tables_refuse(source: Source) -> None:
    """Values for their periods, writes to the history, TRUNCATE and DROP."""
    versioned(source)
    with connect(source) as c:
        for number, sql in (
            (13536, "INSERT INTO dbo.t (id, ValidFrom) VALUES (9, SYSUTCDATETIME())"),
            (13537, "UPDATE dbo.t SET ValidFrom = SYSUTCDATETIME()"),
            (
                13559,
                "INSERT INTO dbo.t_History (id, v, ValidFrom, ValidTo) VALUES (1, N'x', '2020-01-01', '2020-01-02')",
            ),
            (13561, "UPDATE dbo.t_History SET v = N'x'"),
            (13560, "DELETE FROM dbo.t_History"),
            (13545, "TRUNCATE TABLE dbo.t"),
            (13552, "DROP TABLE dbo.t"),
            (13552, "DROP TABLE dbo.t_History"),
        ):
            fails_with(number, c, sql)
        ask_nothing(c, "INSERT INTO dbo.t (id, ValidFrom) VALUES (9, DEFAULT)")
        assert ask(c, "SELECT COUNT(*) AS n FROM dbo.t_History") == [(0,)]


def test_periods_follow_the_clock(server: MssqlSandbox) -> None:
    """UTC, whatever the server's local time; a clock that went back is an error."""
    start = dt.datetime(2024, 6, 1, 12, tzinfo=dt.timezone.utc)
    server.set_clock(start, offset_minutes=-300)
    versioned(server)
    server.set_clock(start + dt.timedelta(hours=1))
    server.update("dbo.t", {"id": 1}, v="A")
    server.delete("dbo.t", {"id": 2})
    with connect(server) as c:
        times = [(dt.datetime(2024, 6, 1, 12), dt.datetime(2024, 6, 1, 13))] * 2
        assert ask(c, "SELECT ValidFrom, ValidTo FROM dbo.t_History") == times
        server.set_clock(start)
        fails_with(13535, c, "UPDATE dbo.t SET v = N'x' WHERE id = 1")
        assert ask(c, "SELECT v FROM dbo.t WHERE id = 1") == [("A",)]
        fails_with(102, c, "SELECT id FROM dbo.t FOR SYSTEM_TIME ALL")
