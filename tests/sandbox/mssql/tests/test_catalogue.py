# ruff: noqa: E501, S608 - column values are naive; statements stay whole
"""The system views, what a login may see, and tables that change."""

from __future__ import annotations

import pytds
import pytest

from tests.sandbox.mssql import ColumnSpec, MssqlSandbox
from tests.sandbox.mssql.tests.client import ask, connect, fails_with


def test_catalogue(server: MssqlSandbox) -> None:
    """Tables, keys in ordinal order, columns, indexes, row counts."""
    server.create_table(
        "hr", "Pay [x]",
        [("b", "decimal(9,2)"), ("a", "varchar(7)"), ("t", "nvarchar(max)"), ("r", "rowversion"),
         ColumnSpec("c", "", computed="b * 2")],
        key=["a", "b DESC"], unique=[["t"]], rows=[("1", "x", "t")],
    )  # fmt: skip
    server.create_table("dbo", "heap", [("z", "xml")], rows=[("<a/>",)] * 3)
    with connect(server) as c:
        assert ask(c, "select table_schema, table_name, table_type from information_schema.tables "
                      "where Table_Type = 'base table' order by 2") == [
            ("dbo", "heap", "BASE TABLE"), ("hr", "Pay [x]", "BASE TABLE")]  # fmt: skip
        assert ask(c, """
            SELECT k.COLUMN_NAME, k.ORDINAL_POSITION, tc.CONSTRAINT_TYPE
            FROM INFORMATION_SCHEMA.TABLE_CONSTRAINTS tc
            JOIN INFORMATION_SCHEMA.KEY_COLUMN_USAGE k ON k.CONSTRAINT_SCHEMA = tc.CONSTRAINT_SCHEMA
             AND k.CONSTRAINT_NAME = tc.CONSTRAINT_NAME AND k.TABLE_NAME = tc.TABLE_NAME
            WHERE tc.CONSTRAINT_TYPE = 'PRIMARY KEY' ORDER BY k.ORDINAL_POSITION
        """) == [("a", 1, "PRIMARY KEY"), ("b", 2, "PRIMARY KEY")]  # fmt: skip
        assert ask(c, """
            SELECT COLUMN_NAME, IS_NULLABLE, DATA_TYPE, CHARACTER_MAXIMUM_LENGTH, NUMERIC_PRECISION,
                   NUMERIC_SCALE, COLLATION_NAME
            FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_NAME = %s ORDER BY ORDINAL_POSITION
        """, ("pay [X]",)) == [
            ("b", "NO", "decimal", None, 9, 2, None),
            ("a", "NO", "varchar", 7, None, None, "SQL_Latin1_General_CP1_CI_AS"),
            ("t", "YES", "nvarchar", -1, None, None, "SQL_Latin1_General_CP1_CI_AS"),
            ("r", "NO", "timestamp", None, None, None, None),
            ("c", "NO", "decimal", None, 20, 2, None),
        ]  # fmt: skip
        assert ask(c, """
            SELECT s.name, t.name, SUM(p.rows) FROM sys.tables t
            JOIN sys.schemas s ON s.schema_id = t.schema_id
            JOIN sys.partitions p ON p.object_id = t.object_id AND p.index_id IN (0, 1)
            WHERE t.is_ms_shipped = 0 GROUP BY s.name, t.name ORDER BY t.name
        """) == [("dbo", "heap", 3), ("hr", "Pay [x]", 1)]  # fmt: skip
        assert ask(c, """
            SELECT i.type_desc, i.is_unique, i.is_primary_key, col.name, ic.is_descending_key
            FROM sys.indexes i JOIN sys.index_columns ic
              ON ic.object_id = i.object_id AND ic.index_id = i.index_id
            JOIN sys.columns col ON col.object_id = ic.object_id AND col.column_id = ic.column_id
            WHERE i.object_id = OBJECT_ID(N'[hr].[Pay [x]]]') ORDER BY i.index_id, ic.key_ordinal
        """) == [("CLUSTERED", True, True, "a", False), ("CLUSTERED", True, True, "b", True),
                 ("NONCLUSTERED", True, False, "t", False)]  # fmt: skip
        assert ask(c, "SELECT name, snapshot_isolation_state, is_read_committed_snapshot_on, "
                      "compatibility_level FROM sys.databases WHERE name = DB_NAME()") == [
            (server.database, 1, False, 160)]  # fmt: skip
        assert ask(c, "SELECT name, definition FROM sys.computed_columns") == [("c", "(b * 2)")]
        assert ask(c, "SELECT ty.name FROM sys.columns c JOIN sys.types ty ON "
                      "ty.user_type_id = c.user_type_id WHERE c.name = 'z'") == [("xml",)]  # fmt: skip


def test_views_that_are_missing_or_refused(server: MssqlSandbox) -> None:
    """208, 262 with 297, 229: as the server words them; others go on."""
    server.switch_off_view("sys.partitions")
    server.refuse_view("sys.dm_db_partition_stats", 262)
    server.refuse_view("sys.databases", 229)
    with connect(server) as c:
        fails_with(208, c, "SELECT * FROM sys.partitions")
        fails_with(297, c, "SELECT * FROM sys.dm_db_partition_stats")
        fails_with(229, c, "SELECT * FROM sys.databases")
        assert ask(c, "SELECT COUNT(*) FROM sys.tables") == [(0,)]


def test_table_that_may_not_be_read(busy: MssqlSandbox) -> None:
    """229 with the names; a hidden table is not in the catalogue either."""
    busy.deny("dbo.b")
    with connect(busy) as c:
        fails_with(229, c, "SELECT * FROM dbo.b")
        assert ask(c, "SELECT COUNT(*) FROM INFORMATION_SCHEMA.TABLES") == [(1,)]
        busy.deny("dbo.b", hidden=True)
        assert ask(c, "SELECT COUNT(*) FROM INFORMATION_SCHEMA.TABLES") == [(0,)]
        busy.grant("dbo.b")
        assert len(ask(c, "SELECT * FROM dbo.b")) == 500


def test_columns_that_are_masked_encrypted_or_refused(server: MssqlSandbox) -> None:
    """As sys.columns tells them, and as a login without further rights reads them."""
    names = ["id", "masked", "secret", "denied", "inner_id", "typed"]
    columns = [(name, "nvarchar(20)") for name in names]
    server.create_table("dbo", "t", columns, rows=[("1", "m", "s", "d", "g", "u")])
    for name, fact in zip(names[1:4], ("masked", "encrypted", "denied"), strict=True):
        server.mark("dbo.t", name, **{fact: True})
    server.mark("dbo.t", "inner_id", graph=1)
    server.mark("dbo.t", "typed", type_hidden=True)
    with connect(server) as c:
        assert ask(c, "SELECT id, masked, typed FROM dbo.t") == [("1", "xxxx", "u")]
        [(secret,)] = ask(c, "SELECT secret FROM dbo.t")
        assert isinstance(secret, bytes)
        for name, number in (("denied", 230), ("inner_id", 13908)):
            with pytest.raises(pytds.DatabaseError) as caught:
                ask(c, f"SELECT {name} FROM dbo.t")
            assert caught.value.msg_no == number
        facts = ask(
            c,
            "SELECT name, CAST(is_masked AS int), encryption_type, graph_type, HAS_PERMS_BY_NAME("
            "'dbo.t', 'OBJECT', 'SELECT', name, 'COLUMN') FROM sys.columns ORDER BY column_id",
        )
        assert facts == [
            ("id", 0, None, None, 1),
            ("masked", 1, None, None, 1),
            ("secret", 0, 2, None, 1),
            ("denied", 0, None, None, 0),
            ("inner_id", 0, None, 1, 1),
            ("typed", 0, None, None, 1),
        ]
        found = ask(c, "SELECT DATA_TYPE FROM INFORMATION_SCHEMA.COLUMNS ORDER BY COLUMN_NAME")
        assert found.count((None,)) == 1
        server.info.unmask = True
        assert ask(c, "SELECT masked FROM dbo.t") == [("m",)]


def test_names_that_differ_in_case_only() -> None:
    """Two tables where the database tells cases apart, one where it does not."""
    with MssqlSandbox(collation_name="Latin1_General_CS_AS") as server:
        for name in ("Visits", "visits"):
            server.create_table("dbo", name, [("id", "int")], key=["id"], rows=[(len(name),)])
        server.insert("dbo.visits", [(7,)])
        with connect(server) as c:
            assert ask(c, "SELECT COUNT(*) FROM dbo.Visits") == [(1,)]
            assert ask(c, "SELECT COUNT(*) FROM dbo.visits") == [(2,)]


def test_keys_are_dropped_disabled_and_renamed(server: MssqlSandbox) -> None:
    """As the catalogue shows them afterwards."""
    server.create_table("dbo", "t", [("id", "int", False), ("b", "int", False)], key=["id"])
    server.execute("CREATE UNIQUE INDEX UX ON dbo.t (b)")
    server.execute("ALTER INDEX UX ON dbo.t DISABLE")
    disabled = "SELECT CAST(is_disabled AS int) FROM sys.indexes WHERE name = 'UX'"
    with connect(server) as c:
        assert ask(c, disabled) == [(1,)]
        server.execute("ALTER INDEX UX ON dbo.t REBUILD")
        assert ask(c, disabled) == [(0,)]
        keys = "SELECT COLUMN_NAME FROM INFORMATION_SCHEMA.KEY_COLUMN_USAGE"
        server.execute("EXEC sp_rename 'dbo.t.id', 'number', 'COLUMN'")
        assert ask(c, keys) == [("number",)]
        server.execute("ALTER TABLE dbo.t DROP CONSTRAINT PK_t")
        assert ask(c, keys) == []
        server.execute("EXEC sp_rename 'dbo.t', 'u'")
        assert ask(c, "SELECT number FROM dbo.u") == []


def test_thousands_of_tables(server: MssqlSandbox) -> None:
    """They are listed at once, and are like others as soon as a statement is about them."""
    server.info.tracking = True
    names = [f"t{number}" for number in range(3_000)]
    server.create_tables("dbo", names, [("id", "int"), ("v", "varchar(9)")], key=["id"])
    server.insert("dbo.t7", [(1, "x"), (2, "y")])
    server.execute("ALTER TABLE dbo.t8 ENABLE CHANGE_TRACKING")
    server.execute("ALTER TABLE dbo.t9 ADD more int")
    server.execute("DROP TABLE dbo.t10")
    with connect(server) as c:
        assert ask(c, "SELECT COUNT(*) AS n FROM sys.indexes WHERE is_primary_key = 1") == [
            (2_999,)
        ]
        assert ask(c, "SELECT id, v FROM dbo.t7 ORDER BY id") == [(1, "x"), (2, "y")]
        assert ask(c, "SELECT id FROM dbo.t8") == ask(c, "SELECT more FROM dbo.t9") == []
        assert ask(c, "SELECT rows FROM sys.partitions AS p JOIN sys.tables AS t ON "
                      "t.object_id = p.object_id WHERE t.name IN ('T7', 't11') ORDER BY t.name") == [
            (0,), (2,)]  # fmt: skip
        fails_with(2627, c, "INSERT INTO dbo.t7 VALUES (1, 'z')")
        fails_with(208, c, "SELECT * FROM dbo.t10")


def test_when_a_table_was_modified(server: MssqlSandbox) -> None:
    """By ALTER or by a new index, not by its rows; a clock that stands still does not matter."""
    server.create_table("dbo", "t", [("id", "int")])
    asked = "SELECT CONVERT(varchar(23), modify_date, 121) AS d FROM sys.tables"
    with connect(server) as c:
        seen = [ask(c, asked)]
        server.insert("dbo.t", [(1,)])
        assert ask(c, asked) == seen[0]
        for change in ("ALTER TABLE dbo.t ADD v int", "CREATE UNIQUE INDEX ux ON dbo.t (id)"):
            server.execute(change)
            seen.append(ask(c, asked))
        assert sorted(seen) == seen
        assert len(set(map(str, seen))) == 3
