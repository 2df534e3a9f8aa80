# ruff: noqa: E501, S608 - column values are naive; statements stay whole
"""Changes through T-SQL, transactions, isolation, change tracking."""

from __future__ import annotations

import pytest
from pytds import tds_base

from tests.sandbox.mssql import MssqlSandbox, faults
from tests.sandbox.mssql.tests.client import ask, ask_nothing, connect, fails_with


def test_data_definition_and_changes_in_tsql(server: MssqlSandbox) -> None:
    """CREATE, INSERT, UPDATE, DELETE, ALTER, TRUNCATE and DROP through the wire."""
    with connect(server) as c:
        for sql in (
            "CREATE SCHEMA [my s]",
            (
                "CREATE TABLE [my s].[t]]x] ([id] int IDENTITY(1,1) NOT NULL, [a ]]b] nvarchar(20) "
                "COLLATE Latin1_General_BIN2 NULL, at datetime2(3) NOT NULL DEFAULT SYSUTCDATETIME(), "
                "twice AS ([id] * 2), CONSTRAINT [PK x] PRIMARY KEY CLUSTERED ([id]))"
            ),
            "CREATE UNIQUE NONCLUSTERED INDEX ux ON [my s].[t]]x] ([a ]]b])",
        ):
            ask_nothing(c, sql)
        name = "[my s].[t]]x]"
        assert ask_nothing(c, f"INSERT INTO {name} ([a ]]b]) VALUES (%s), (%s)", ("x", "y")) == 2
        assert ask(c, f"SELECT id, [a ]]b], twice FROM {name}") == [(1, "x", 2), (2, "y", 4)]
        assert ask_nothing(c, f"UPDATE {name} SET [a ]]b] = N'z' + [a ]]b] WHERE id = 2") == 1
        with pytest.raises(tds_base.IntegrityError):
            ask_nothing(c, f"INSERT INTO {name} ([a ]]b]) VALUES ('zy')")
        ask_nothing(c, f"ALTER TABLE {name} ADD extra int NULL")
        assert ask(c, f"SELECT extra, [a ]]b] FROM {name} WHERE id = 2") == [(None, "zy")]
        ask_nothing(c, f"ALTER TABLE {name} DROP COLUMN extra")
        fails_with(207, c, f"SELECT extra FROM {name}")
        fails_with(515, c, f"INSERT INTO {name} (at) VALUES (NULL)")
        assert ask_nothing(c, f"DELETE FROM {name} WHERE id = 1") == 1
        assert ask(c, f"SELECT IDENT_CURRENT(N'{name}'), IDENT_CURRENT('nothing')") == [(4, None)]
        ask_nothing(c, f"TRUNCATE TABLE {name}")
        assert ask(c, f"SELECT IDENT_CURRENT(N'{name}')") == [(1,)]
        assert ask(c, f"SELECT COUNT(*) FROM {name}") == [(0,)]
        ask_nothing(c, f"DROP TABLE {name}")
        fails_with(208, c, f"SELECT * FROM {name}")


def test_transactions_of_the_client(server: MssqlSandbox) -> None:
    """Begin, commit and rollback by transaction manager requests."""
    server.create_table("dbo", "x", [("id", "int")])
    with connect(server, autocommit=False) as c:
        ask_nothing(c, "INSERT INTO dbo.x VALUES (1)")
        assert ask(c, "SELECT @@TRANCOUNT") == [(1,)]
        c.rollback()
        assert ask(c, "SELECT COUNT(*) FROM dbo.x") == [(0,)]
        ask_nothing(c, "INSERT INTO dbo.x VALUES (2)")
        c.commit()
    assert server.execute("SELECT id FROM dbo.x") == [(2,)]


def test_statement_that_fails_in_a_transaction(server: MssqlSandbox) -> None:
    """It alone is undone, with all it had changed, tracked and captured until then."""
    server.info.tracking = True
    server.create_table("dbo", "t", [("id", "int", False), ("u", "int")], key=["id"], unique=[["u"]],
                        rows=[(i, i * 10) for i in range(5)])  # fmt: skip
    server.execute("ALTER TABLE dbo.t ENABLE CHANGE_TRACKING")
    server.enable_cdc("dbo.t")
    with connect(server, autocommit=False) as c:
        ask_nothing(c, "UPDATE dbo.t SET u = 99 WHERE id = 4")
        fails_with(2601, c, "UPDATE dbo.t SET u = 7 WHERE id < 3")
        c.commit()
        assert ask(c, "SELECT u FROM dbo.t ORDER BY id") == [(0,), (10,), (20,), (30,), (99,)]
        assert ask(c, "SELECT CT.id FROM CHANGETABLE(CHANGES dbo.t, 0) AS CT") == [(4,)]
        assert ask(c, "SELECT id, u FROM cdc.dbo_t_CT WHERE [__$operation] = 4") == [(4, 99)]


def test_snapshot_sees_the_data_of_its_first_read(busy: MssqlSandbox) -> None:
    """A writer goes on; the transaction does not see it until it ends."""
    with connect(busy, autocommit=False, isolation_level=5) as c:
        busy.insert("dbo.b", [(1000, 1)])
        assert ask(c, "SELECT COUNT(*) FROM dbo.b") == [(501,)]
        busy.insert("dbo.b", [(1001, 1)])
        busy.update("dbo.b", {"id": 1}, v=9)
        busy.delete("dbo.b", {"id": 2})
        assert ask(c, "SELECT COUNT(*), SUM(v) FROM dbo.b") == [(501, 1)]
        c.commit()
        assert ask(c, "SELECT COUNT(*), SUM(v) FROM dbo.b") == [(501, 11)]


def test_read_committed_sees_each_statement_anew(busy: MssqlSandbox) -> None:
    """Within a transaction another's commit becomes visible."""
    with connect(busy, autocommit=False) as c:
        assert ask(c, "SELECT COUNT(*) FROM dbo.b") == [(500,)]
        busy.insert("dbo.b", [(1000, 1)])
        assert ask(c, "SELECT COUNT(*) FROM dbo.b") == [(501,)]


def test_snapshot_that_is_not_allowed(busy: MssqlSandbox) -> None:
    """3952 where the database does not allow it, 3951 in mid-transaction."""
    busy.info.snapshot = False
    with connect(busy) as c:
        ask_nothing(c, "SET TRANSACTION ISOLATION LEVEL SNAPSHOT")
        fails_with(3952, c, "SELECT * FROM dbo.b")
        ask_nothing(c, f"ALTER DATABASE [{busy.database}] SET ALLOW_SNAPSHOT_ISOLATION ON")
        assert len(ask(c, "SELECT * FROM dbo.b")) == 500
        ask_nothing(c, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; BEGIN TRAN")
        ask_nothing(c, "SET TRANSACTION ISOLATION LEVEL SNAPSHOT")
        fails_with(3951, c, "SELECT * FROM dbo.b")


def test_definition_changed_under_a_snapshot(busy: MssqlSandbox) -> None:
    """3961 when a table was altered after the snapshot began."""
    with connect(busy, autocommit=False, isolation_level=5) as c:
        ask(c, "SELECT COUNT(*) FROM dbo.b")
        busy.execute("ALTER TABLE dbo.b ADD late int NULL")
        fails_with(3961, c, "SELECT COUNT(*) FROM dbo.b")


def test_writer_goes_on_while_rows_are_streamed(busy: MssqlSandbox) -> None:
    """A statement reads one state of the table, whatever is written meanwhile."""
    busy.faults.add(faults.call(lambda: write(busy), after_rows=10, match="FROM dbo.b"))
    with connect(busy) as c:
        assert ask(c, "SELECT v FROM dbo.b ORDER BY id") == [(0,)] * 500
        assert ask(c, "SELECT COUNT(*), MAX(v) FROM dbo.b") == [(500, 7)]


def write(server: MssqlSandbox) -> None:
    server.update("dbo.b", {"id": 400}, v=7)
    server.delete("dbo.b", {"id": 401})
    server.insert("dbo.b", [(5000, 7)])


def test_rows_that_commit_late(busy: MssqlSandbox) -> None:
    """An open transaction's rows are not seen, others' are; then they are."""
    with connect(busy) as c, busy.transaction() as late:
        late.insert("dbo.b", [(900, 1)])
        busy.insert("dbo.b", [(901, 1)])
        assert ask(c, "SELECT id FROM dbo.b WHERE v = 1") == [(901,)]
        late.commit()
        assert ask(c, "SELECT id FROM dbo.b WHERE v = 1 ORDER BY id") == [(900,), (901,)]


def test_change_tracking(server: MssqlSandbox) -> None:
    """Net changes since a version, deletes and key changes, expiry and truncation."""
    server.info.tracking = True
    server.create_table("dbo", "t", [("id", "int", False), ("v", "int")], key=["id"],
                        rows=[(i, 0) for i in range(5)])  # fmt: skip
    server.execute("ALTER TABLE dbo.t ENABLE CHANGE_TRACKING WITH (TRACK_COLUMNS_UPDATED = OFF)")
    with connect(server) as c:
        ((start,),) = ask(c, "SELECT CHANGE_TRACKING_CURRENT_VERSION()")
        server.update("dbo.t", {"id": 1}, v=1)
        server.insert("dbo.t", [(10, 0)])
        server.delete("dbo.t", {"id": 2})
        server.update("dbo.t", {"id": 3}, id=30)
        changes = (
            "SELECT CT.id, CT.SYS_CHANGE_OPERATION, t.v FROM CHANGETABLE(CHANGES [dbo].[t], %s) AS CT "
            "LEFT JOIN dbo.t AS t ON t.id = CT.id ORDER BY CT.id"
        )
        assert ask(c, changes, (start,)) == [
            (1, "U", 1), (2, "D", None), (3, "D", None), (10, "I", 0), (30, "I", 0)]  # fmt: skip
        ((now,),) = ask(c, "SELECT CHANGE_TRACKING_CURRENT_VERSION()")
        assert ask(c, changes, (now,)) == []
        valid = "SELECT CHANGE_TRACKING_MIN_VALID_VERSION(OBJECT_ID('dbo.t'))"
        assert ask(c, valid) == [(start,)]
        server.store.expire_tracking(server.table("dbo.t"))
        assert ask(c, valid) == [(now,)]
        server.execute("TRUNCATE TABLE dbo.t")
        assert ask(c, valid)[0][0] > now
        fails_with(22105, c, "SELECT * FROM CHANGETABLE(CHANGES dbo.nothing, 0) AS x") if (
            server.store.tables.get(("dbo", "nothing"))
        ) else fails_with(208, c, "SELECT * FROM CHANGETABLE(CHANGES dbo.nothing, 0) AS x")
