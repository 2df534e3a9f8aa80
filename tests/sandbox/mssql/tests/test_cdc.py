# ruff: noqa: E501, S608 - statements stay whole
"""Change Data Capture: instances, LSNs, changes, the agent, expiry, rights."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from pytds import Binary

from tests.sandbox.mssql import MssqlSandbox
from tests.sandbox.mssql.adapter import RealServer
from tests.sandbox.mssql.tests.client import ask, ask_nothing, connect, fails_with

Source = MssqlSandbox | RealServer

LIMITS = "sys.fn_cdc_get_min_lsn('{0}'), sys.fn_cdc_get_max_lsn()"


def changes(kind: str = "all", instance: str = "dbo_t", option: str = "all") -> str:
    """FROM ... of all changes that are known."""
    return f"cdc.fn_cdc_get_{kind}_changes_{instance}({LIMITS.format(instance)}, N'{option}') AS C"


def captured(source: Source, **options: Any) -> None:
    """dbo.t with five rows, and a capture instance."""
    source.create_table("dbo", "t", [("id", "int", False), ("v", "nvarchar(20)"), ("w", "int")],
                        key=["id"], rows=[(i, f"v{i}", 0) for i in range(1, 6)])  # fmt: skip
    source.enable_cdc("dbo.t", **options)


@pytest.mark.source
def test_what_is_captured(source: Source) -> None:
    """The database, the instance, its columns and its index, in the tables of schema cdc."""
    source.create_table("dbo", "other", [("id", "int")])
    with connect(source) as c:
        enabled = "SELECT is_cdc_enabled FROM sys.databases WHERE name = DB_NAME()"
        assert ask(c, enabled) == [(False,)]
        fails_with(208, c, "SELECT sys.fn_cdc_get_max_lsn() AS lsn")
        fails_with(208, c, "SELECT * FROM cdc.change_tables")
        captured(source, instance="mine", columns=["id", "w"])
        assert ask(c, enabled) == [(True,)]
        assert ask(
            c,
            "SELECT s.name, c.capture_instance, c.supports_net_changes, c.index_name, c.role_name, "
            "t.name, t.is_ms_shipped, c.end_lsn, c.partition_switch "
            "FROM cdc.change_tables AS c JOIN sys.tables AS s ON s.object_id = c.source_object_id "
            "JOIN sys.tables AS t ON t.object_id = c.object_id WHERE c.start_lsn IS NOT NULL",
        ) == [("t", "mine", True, "PK_t", None, "mine_CT", True, None, True)]
        of_mine = "object_id = OBJECT_ID('cdc.mine_CT')"
        assert ask(
            c,
            "SELECT column_name, column_id, column_type, column_ordinal, is_computed "
            f"FROM cdc.captured_columns WHERE {of_mine} ORDER BY column_ordinal",
        ) == [("id", 1, "int", 1, False), ("w", 3, "int", 2, False)]
        assert ask(
            c,
            f"SELECT column_name, index_ordinal, column_id FROM cdc.index_columns WHERE {of_mine}",
        ) == [("id", 1, 1)]
        assert ask(
            c,
            "SELECT COLUMN_NAME, DATA_TYPE, IS_NULLABLE FROM INFORMATION_SCHEMA.COLUMNS "
            "WHERE TABLE_SCHEMA = 'cdc' AND TABLE_NAME = 'mine_CT' ORDER BY ORDINAL_POSITION",
        ) == [
            ("__$start_lsn", "binary", "NO"),
            ("__$end_lsn", "binary", "YES"),
            ("__$seqval", "binary", "NO"),
            ("__$operation", "int", "NO"),
            ("__$update_mask", "varbinary", "YES"),
            ("id", "int", "YES"),
            ("w", "int", "YES"),
            ("__$command_id", "int", "YES"),
        ]
        assert ask(
            c,
            "SELECT name, type FROM sys.objects "
            "WHERE object_id = OBJECT_ID('cdc.fn_cdc_get_net_changes_mine')",
        ) == [("fn_cdc_get_net_changes_mine", "IF")]
        assert ask(c, "SELECT name FROM sys.tables WHERE is_tracked_by_cdc = 1") == [("t",)]
        assert ask(c, "SELECT COUNT(*) AS n FROM sys.tables WHERE is_ms_shipped = 0") == [(2,)]


@pytest.mark.source
def test_all_changes(source: Source) -> None:
    """Operations, masks and order; a changed key is a delete and an insert; rollbacks are none."""
    captured(source)
    with connect(source) as c:
        ask_nothing(c, "INSERT INTO dbo.t (id, v, w) VALUES (10, N'a', 1), (11, N'b', 1)")
        ask_nothing(c, "UPDATE dbo.t SET w = 7 WHERE id IN (1, 10)")
        ask_nothing(c, "UPDATE dbo.t SET id = 20 WHERE id = 2")
        ask_nothing(c, "DELETE FROM dbo.t WHERE id = 11")
        ask_nothing(c, "BEGIN TRANSACTION; DELETE FROM dbo.t; ROLLBACK TRANSACTION")
        source.capture()
        picked = "SELECT C.[__$operation], C.[__$update_mask], C.id, C.v, C.w FROM "
        order = " ORDER BY C.[__$start_lsn], C.[__$seqval], C.[__$operation]"
        first = [(2, b"\x07", 10, "a", 1), (2, b"\x07", 11, "b", 1)]
        last = [(1, b"\x07", 2, "v2", 0), (2, b"\x07", 20, "v2", 0), (1, b"\x07", 11, "b", 1)]
        assert ask(c, picked + changes() + order) == [
            *first, (4, b"\x04", 1, "v1", 7), (4, b"\x04", 10, "a", 7), *last,
        ]  # fmt: skip
        assert ask(c, picked + changes(option="all update old") + order) == [
            *first, (3, b"\x04", 1, "v1", 0), (4, b"\x04", 1, "v1", 7), (3, b"\x04", 10, "a", 1),
            (4, b"\x04", 10, "a", 7), *last,
        ]  # fmt: skip
        counted = f"SELECT COUNT(DISTINCT C.[__$start_lsn]) AS n FROM {changes()}"
        assert ask(c, counted) == [(4,)]
        assert ask(
            c,
            f"SELECT sys.fn_cdc_is_bit_set(3, C.[__$update_mask]) AS b FROM {changes()} WHERE C.id = 1",
        ) == [(True,)]


@pytest.mark.source
def test_net_changes(source: Source) -> None:
    """One row a key over the whole range, whatever the transactions."""
    captured(source, net=True)
    with connect(source) as c:
        for sql in (
            "INSERT INTO dbo.t VALUES (10, N'a', 1)",
            "UPDATE dbo.t SET w = 2 WHERE id = 10",
            "INSERT INTO dbo.t VALUES (11, N'gone', 1)",
            "DELETE FROM dbo.t WHERE id = 11",
            "UPDATE dbo.t SET w = 3 WHERE id = 1",
            "UPDATE dbo.t SET w = 4 WHERE id = 2",
            "DELETE FROM dbo.t WHERE id = 2",
            "DELETE FROM dbo.t WHERE id = 3",
            "INSERT INTO dbo.t VALUES (3, N'reborn', 5)",
            "UPDATE dbo.t SET id = 40 WHERE id = 4",
        ):
            ask_nothing(c, sql)
        source.capture()
        picked = "SELECT C.[__$operation], C.[__$update_mask], C.id, C.v, C.w FROM "
        assert ask(c, picked + changes("net") + " ORDER BY C.id") == [
            (4, None, 1, "v1", 3), (1, None, 2, "v2", 4), (4, None, 3, "reborn", 5),
            (1, None, 4, "v4", 0), (2, None, 10, "a", 2), (2, None, 40, "v4", 0),
        ]  # fmt: skip
        merged = ask(c, picked + changes("net", option="all with merge") + " ORDER BY C.id")
        assert [(row[0], row[2]) for row in merged] == [
            (5, 1), (1, 2), (5, 3), (1, 4), (5, 10), (5, 40),
        ]  # fmt: skip


@pytest.mark.source
def test_changes_joined_with_the_table(source: Source) -> None:
    """The changed keys, each once, with the rows as they are now, page by page."""
    captured(source)
    with connect(source) as c:
        for sql in (
            "UPDATE dbo.t SET w = w + 1",
            "UPDATE dbo.t SET w = w + 1 WHERE id < 4",
            "DELETE FROM dbo.t WHERE id = 2",
            "INSERT INTO dbo.t VALUES (9, N'new', 9)",
        ):
            ask_nothing(c, sql)
        source.capture()
        [row] = ask(c, f"SELECT {LIMITS.format('dbo_t')}")
        low, high = map(Binary, row)
        function = "cdc.fn_cdc_get_all_changes_dbo_t(CAST(%s AS binary(10)), CAST(%s AS binary(10)), N'all')"
        for keys in (
            f"SELECT DISTINCT C.id FROM {function} AS C",
            f"SELECT C.id, MAX(C.[__$start_lsn]) AS lsn FROM {function} AS C GROUP BY C.id",
        ):
            page = (
                f"SELECT TOP (3) K.id, T.id, T.w FROM ({keys}) AS K LEFT JOIN dbo.t AS T ON T.id = K.id "
                "WHERE K.id > %s ORDER BY K.id"
            )
            assert ask(c, page, (low, high, 0)) == [(1, 1, 2), (2, None, None), (3, 3, 2)]
            assert ask(c, page, (low, high, 3)) == [(4, 4, 1), (5, 5, 1), (9, 9, 9)]
        direct = f"SELECT C.id, T.w FROM {function} AS C LEFT JOIN dbo.t AS T ON T.id = C.id ORDER BY C.id"
        assert len(ask(c, direct, (low, high))) == 10


@pytest.mark.source
def test_ranges_that_are_not_known(source: Source) -> None:
    """313 for every LSN out of range, NULL and unknown options; 208 for functions that are not there."""
    captured(source, net=False)
    with connect(source) as c:
        ask_nothing(c, "UPDATE dbo.t SET w = 1")
        source.capture()
        low, high = "sys.fn_cdc_get_min_lsn('dbo_t')", "sys.fn_cdc_get_max_lsn()"
        function = "SELECT COUNT(*) AS n FROM cdc.fn_cdc_get_{}_changes_{}({}, {}, N'{}')"
        assert ask(c, function.format("all", "dbo_t", low, high, "all")) == [(5,)]
        for start, end, option in (
            (f"sys.fn_cdc_decrement_lsn({low})", high, "all"),
            (low, f"sys.fn_cdc_increment_lsn({high})", "all"),
            (f"sys.fn_cdc_increment_lsn({high})", high, "all"),
            ("NULL", high, "all"),
            (low, high, "every"),
        ):
            fails_with(313, c, function.format("all", "dbo_t", start, end, option))
        fails_with(208, c, function.format("net", "dbo_t", low, high, "all"))
        fails_with(208, c, function.format("all", "dbo_x", low, high, "all"))
        assert ask(c, "SELECT sys.fn_cdc_get_min_lsn('dbo_x') AS lsn") == [(bytes(10),)]
        assert ask(
            c,
            "SELECT capture_instance FROM cdc.change_tables "
            "WHERE start_lsn = sys.fn_cdc_get_min_lsn(capture_instance)",
        ) == [("dbo_t",)]


@pytest.mark.source
def test_lsns(source: Source) -> None:
    """Ten bytes that compare bytewise, their neighbours, their times."""
    captured(source)
    with connect(source) as c:
        ask_nothing(c, "UPDATE dbo.t SET w = 1 WHERE id = 1")
        source.capture()
        [(first,)] = ask(c, "SELECT sys.fn_cdc_get_max_lsn() AS lsn")
        ask_nothing(c, "UPDATE dbo.t SET w = 1 WHERE id = 2")
        source.capture()
        [(second,)] = ask(c, "SELECT sys.fn_cdc_get_max_lsn() AS lsn")
        assert len(first) == len(second) == 10
        assert first < second
        assert ask(
            c,
            "SELECT sys.fn_cdc_increment_lsn(0x0000002D000005900005) AS a, sys.fn_cdc_decrement_lsn(0x0000002D000005900005) AS b",
        ) == [(bytes.fromhex("0000002D000005900006"), bytes.fromhex("0000002D000005900004"))]
        assert ask(
            c,
            "SELECT COUNT(*) AS n FROM cdc.lsn_time_mapping WHERE start_lsn = CAST(%s AS binary(10)) "
            "AND tran_end_time = sys.fn_cdc_map_lsn_to_time(start_lsn)",
            (Binary(first),),
        ) == [(1,)]
        assert ask(c, "SELECT sys.fn_cdc_map_lsn_to_time(0x01) AS t") == [(None,)]
        assert ask(
            c, "SELECT sys.fn_cdc_map_time_to_lsn('largest less than or equal', GETDATE()) AS lsn"
        ) == [(second,)]
        ask_nothing(c, "DECLARE @a binary(10) = sys.fn_cdc_get_max_lsn()")


@pytest.mark.source
def test_clean_up_raises_the_lowest_lsn(source: Source) -> None:
    """What lies below is gone, and asking for it is 313."""
    captured(source)
    with connect(source) as c:
        for number in (1, 2):
            ask_nothing(c, f"UPDATE dbo.t SET w = {number}")
            source.capture()
        [(low, high)] = ask(c, f"SELECT {LIMITS.format('dbo_t')}")
        new = source.cdc_cleanup("dbo_t")
        assert high <= new
        assert ask(c, "SELECT sys.fn_cdc_get_min_lsn('dbo_t') AS lsn") == [(new,)]
        assert ask(c, "SELECT start_lsn FROM cdc.change_tables") == [(new,)]
        function = "SELECT COUNT(*) AS n FROM cdc.fn_cdc_get_all_changes_dbo_t(%s, sys.fn_cdc_get_max_lsn(), N'all')"
        fails_with(313, c, function, (Binary(low),))
        assert ask(c, function, (Binary(new),))[0][0] in (
            0,
            5,
        )  # of the newest transaction, if any
        wrong = "EXEC sys.sp_cdc_cleanup_change_table @capture_instance = N'dbo_t', @low_water_mark = 0x01"
        fails_with(22964, c, wrong) if isinstance(source, MssqlSandbox) else None


@pytest.mark.source
def test_two_instances_and_new_columns(source: Source) -> None:
    """Both capture; a later column is in the later one only; a third is refused."""
    captured(source)
    with connect(source) as c:
        ask_nothing(c, "ALTER TABLE dbo.t ADD late int NULL")
        source.enable_cdc("dbo.t", "second")
        ask_nothing(c, "UPDATE dbo.t SET late = 5, w = 1 WHERE id = 1")
        source.capture()
        names = "SELECT c.name FROM sys.columns AS c WHERE c.object_id = OBJECT_ID('cdc.{}_CT') AND c.name = 'late'"
        assert ask(c, names.format("dbo_t")) == []
        assert ask(c, names.format("second")) == [("late",)]
        assert ask(c, f"SELECT C.id, C.w FROM {changes()}") == [(1, 1)]
        assert ask(c, f"SELECT C.id, C.w, C.late FROM {changes(instance='second')}") == [(1, 1, 5)]
        fails_with(207, c, f"SELECT C.late FROM {changes()}")
        table = "@source_schema = N'dbo', @source_name = N't', @role_name = NULL"
        fails_with(22962, c, f"EXEC sys.sp_cdc_enable_table {table}, @capture_instance = N'third'")
        source.disable_cdc("dbo.t", "dbo_t")
        fails_with(
            22926, c, f"EXEC sys.sp_cdc_enable_table {table}, @capture_instance = N'second'"
        )
        assert ask(c, "SELECT capture_instance FROM cdc.change_tables") == [("second",)]
        ask_nothing(c, "ALTER TABLE dbo.t DROP COLUMN late")
        ask_nothing(c, "ALTER TABLE dbo.t ADD other int NULL")
        ask_nothing(c, "UPDATE dbo.t SET other = 8, w = 2 WHERE id = 2")
        source.capture()
        assert ask(
            c, f"SELECT C.id, C.w, C.late FROM {changes(instance='second')} WHERE C.id = 2"
        ) == [(2, 2, None)]


@pytest.mark.source
def test_instance_that_is_made_again(source: Source) -> None:
    """It begins later: what the first one knew is gone, an old LSN is out of range."""
    captured(source)
    with connect(source) as c:
        ask_nothing(c, "UPDATE dbo.t SET w = 1")
        source.capture()
        [(low,)] = ask(c, "SELECT sys.fn_cdc_get_min_lsn('dbo_t') AS lsn")
        source.disable_cdc("dbo.t")
        fails_with(208, c, f"SELECT C.id FROM {changes()}")
        ask_nothing(c, "UPDATE dbo.t SET w = 2")
        source.enable_cdc("dbo.t")
        ask_nothing(c, "UPDATE dbo.t SET w = 3 WHERE id = 1")
        source.capture()
        assert ask(c, f"SELECT C.id, C.w FROM {changes()}") == [(1, 3)]
        fails_with(
            313,
            c,
            "SELECT * FROM cdc.fn_cdc_get_all_changes_dbo_t(%s, sys.fn_cdc_get_max_lsn(), N'all')",
            (Binary(low),),
        )


@pytest.mark.source
def test_what_is_refused(source: Source) -> None:
    """Tables and databases that cannot be captured, and what a captured table does not allow."""
    source.create_table("dbo", "heap", [("id", "int"), ("v", "int")], rows=[(1, 1), (1, 1)])
    with connect(source) as c:
        table = "EXEC sys.sp_cdc_enable_table @source_schema = N'dbo', @source_name = N'{}', @role_name = NULL"
        fails_with(22901, c, table.format("heap"))
        ask_nothing(c, "EXEC sys.sp_cdc_enable_db")
        fails_with(22931, c, table.format("nothing"))
        fails_with(22939, c, table.format("heap") + ", @supports_net_changes = 1")
        source.enable_cdc("dbo.heap")
        fails_with(4711, c, "TRUNCATE TABLE dbo.heap")
        ask_nothing(c, "UPDATE dbo.heap SET v = 2")
        source.capture()
        picked = "SELECT C.[__$operation], C.id, C.v FROM "
        old = picked + changes(instance="dbo_heap", option="all update old") + " ORDER BY 1"
        assert ask(c, old) == [(3, 1, 1), (3, 1, 1), (4, 1, 2), (4, 1, 2)]
        fails_with(208, c, picked + changes("net", instance="dbo_heap"))
        ask_nothing(c, "DROP TABLE dbo.heap")
        assert ask(c, "SELECT COUNT(*) AS n FROM cdc.change_tables") == [(0,)]
        ask_nothing(c, "EXEC sys.sp_cdc_disable_db")
        assert ask(c, "SELECT COUNT(*) AS n FROM sys.schemas WHERE name = 'cdc'") == [(0,)]


@pytest.mark.source
def test_large_values_before_an_update(source: Source) -> None:
    """A large value that an update did not change is NULL in the row as it was."""
    source.create_table("dbo", "t", [("id", "int", False), ("big", "nvarchar(max)"), ("w", "int")],
                        key=["id"], rows=[(1, "first", 0)])  # fmt: skip
    source.enable_cdc("dbo.t")
    with connect(source) as c:
        ask_nothing(c, "UPDATE dbo.t SET w = 1")
        ask_nothing(c, "UPDATE dbo.t SET big = N'second'")
        source.capture()
        assert ask(
            c,
            f"SELECT C.[__$operation], C.big FROM {changes(option='all update old')} ORDER BY C.[__$start_lsn], 1",
        ) == [(3, None), (4, "first"), (3, "first"), (4, "second")]


def test_agent_that_lags(server: MssqlSandbox) -> None:
    """Changes appear when the agent has read the log, in the order of their commits."""
    captured(server)
    server.stop_capture()
    with connect(server) as c:
        newest = "SELECT sys.fn_cdc_get_max_lsn()"
        [(before,)] = ask(c, newest)
        for number in (1, 2, 3):
            server.update("dbo.t", {"id": number}, w=number)
        assert ask(c, newest) == [(before,)]
        assert ask(c, "SELECT COUNT(*) FROM cdc.dbo_t_CT") == [(0,)]
        server.capture(transactions=2)
        assert ask(c, f"SELECT C.id FROM {changes()} ORDER BY 1") == [(1,), (2,)]
        ask_nothing(c, "EXEC sys.sp_cdc_scan")
        assert len(ask(c, f"SELECT C.id FROM {changes()}")) == 3
        server.enable_cdc("dbo.t", "second")
        lowest = "SELECT sys.fn_cdc_get_min_lsn('second')"
        assert ask(c, lowest) == [(None,)]  # not told before the agent has come to it
        fails_with(313, c, f"SELECT C.id FROM {changes(instance='second')}")
        server.start_capture()
        assert ask(c, lowest)[0][0] > before


def test_time_goes_on_without_changes(server: MssqlSandbox) -> None:
    """A running agent notes an LSN after five minutes; a stopped one does not."""
    start = dt.datetime(2024, 6, 1, 12, tzinfo=dt.timezone.utc)
    server.set_clock(start)
    captured(server)
    newest = "SELECT sys.fn_cdc_map_lsn_to_time(sys.fn_cdc_get_max_lsn())"
    with connect(server) as c:
        assert ask(c, newest) == [(dt.datetime(2024, 6, 1, 12),)]
        server.set_clock(start + dt.timedelta(minutes=4))
        assert ask(c, newest) == [(dt.datetime(2024, 6, 1, 12),)]
        server.set_clock(start + dt.timedelta(hours=1))
        assert ask(c, newest) == [(dt.datetime(2024, 6, 1, 13),)]
        server.stop_capture()
        server.set_clock(start + dt.timedelta(hours=5))
        server.update("dbo.t", {"id": 1}, w=1)
        assert ask(c, newest) == [(dt.datetime(2024, 6, 1, 13),)]
        server.capture()
        assert ask(c, newest) == [(dt.datetime(2024, 6, 1, 17),)]


def test_rights_on_changes(server: MssqlSandbox) -> None:
    """SELECT on every captured column and the gating role; else 229, and a lowest LSN of zero."""
    captured(server, role="cdc_reader")
    count = f"SELECT COUNT(*) FROM {changes()}"
    lowest = "SELECT sys.fn_cdc_get_min_lsn('dbo_t')"
    allowed = "SELECT HAS_PERMS_BY_NAME('cdc.fn_cdc_get_all_changes_dbo_t', 'OBJECT', 'SELECT')"
    member = "SELECT IS_ROLEMEMBER('cdc_reader'), IS_MEMBER('nothing'), IS_MEMBER('db_owner')"
    with connect(server) as c:
        fails_with(229, c, count)
        assert ask(c, lowest) == [(bytes(10),)]
        assert ask(c, allowed) == [(0,)]
        assert ask(c, member) == [(0, None, 0)]
        server.info.roles.add("cdc_reader")
        assert ask(c, member) == [(1, None, 0)]
        assert ask(c, allowed) == [(1,)]
        assert ask(c, count) == [(0,)]
        server.mark("dbo.t", "v", denied=True)
        fails_with(229, c, count)
        server.mark("dbo.t", "v", denied=False)
        server.deny("dbo.t")
        fails_with(229, c, count)
        server.grant("dbo.t")
        server.deny("cdc.change_tables")
        fails_with(229, c, "SELECT * FROM cdc.change_tables")
        server.deny("cdc.dbo_t_CT")
        fails_with(229, c, "SELECT * FROM cdc.dbo_t_CT")
        assert ask(c, count) == [(0,)]


def test_changes_under_a_snapshot(server: MssqlSandbox) -> None:
    """The LSNs and changes are those of the snapshot, whatever is written and forgotten since."""
    captured(server)
    server.update("dbo.t", {"id": 1}, w=1)
    with connect(server, autocommit=False, isolation_level=5) as c:
        [(high,)] = ask(c, "SELECT sys.fn_cdc_get_max_lsn()")
        server.update("dbo.t", {"id": 2}, w=1)
        server.cdc_cleanup()
        assert ask(c, "SELECT sys.fn_cdc_get_max_lsn()") == [(high,)]
        assert ask(c, f"SELECT C.id FROM {changes()}") == [(1,)]
        c.commit()
        assert ask(c, f"SELECT C.id FROM {changes()}") == []


def test_updates_that_change_nothing(server: MssqlSandbox) -> None:
    """They are no changes, nor are those of columns that are not captured."""
    captured(server, columns=["id", "v"])
    server.update("dbo.t", {"id": 1}, v="v1")
    server.update("dbo.t", {"id": 1}, w=5)
    assert server.execute(f"SELECT C.id FROM {changes()}") == []


def test_transactions_have_one_lsn(server: MssqlSandbox) -> None:
    """Each statement is a command of it; nothing is seen before the commit, nor by itself."""
    captured(server)
    with connect(server) as c, connect(server, autocommit=False) as writer:
        ask_nothing(writer, "UPDATE dbo.t SET w = 1 WHERE id = 1")
        ask_nothing(writer, "UPDATE dbo.t SET w = 2 WHERE id = 1")
        count = "SELECT COUNT(*) FROM cdc.dbo_t_CT"
        assert ask(c, count) == ask(writer, count) == [(0,)]
        writer.commit()
        assert ask(
            c,
            "SELECT COUNT(DISTINCT [__$start_lsn]), MAX([__$command_id]), COUNT(*) FROM cdc.dbo_t_CT",
        ) == [(1, 2, 4)]
        with server.transaction() as late:
            late.insert("dbo.t", [(50, "late", 0)])
            server.update("dbo.t", {"id": 2}, w=1)
            late.commit()
        assert ask(c, f"SELECT TOP (1) C.id FROM {changes()} ORDER BY C.[__$start_lsn] DESC") == [
            (50,)
        ]


_STEPS = st.lists(
    st.tuples(st.sampled_from(["insert", "update", "delete", "move"]), st.integers(0, 5), st.integers(0, 5)),
    max_size=25,
)  # fmt: skip


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=_STEPS, cut=st.integers(0, 25))
def test_changes_replayed_give_the_table(
    server: MssqlSandbox, steps: list[tuple[str, int, int]], cut: int
) -> None:
    """From any LSN on, applied in order or net, to a copy of that moment."""
    if server.store.find("dbo", "t"):
        server.execute("DROP TABLE dbo.t")
    captured(server)
    copy, saved = {}, b""
    for number, (step, a, b) in enumerate([*steps, ("insert", 99, 0)]):
        if number == min(cut, len(steps)):
            copy = dict(server.execute("SELECT id, w FROM dbo.t"))
            [(saved,)] = server.execute("SELECT sys.fn_cdc_get_max_lsn()")
        taken = server.execute("SELECT id FROM dbo.t")
        if step == "insert" and (a,) not in taken:
            server.insert("dbo.t", [(a, "x", b)])
        elif step == "update":
            server.update("dbo.t", {"id": a}, w=b)
        elif step == "delete":
            server.delete("dbo.t", {"id": a})
        elif step == "move" and (b,) not in taken:
            server.update("dbo.t", {"id": a}, id=b)
    limits = f"sys.fn_cdc_increment_lsn(0x{saved.hex()}), sys.fn_cdc_get_max_lsn()"
    function = (
        "SELECT [__$operation], id, w FROM cdc.fn_cdc_get_{}_changes_dbo_t({}, N'all') ORDER BY {}"
    )
    for kind, order in (("all", "[__$start_lsn], [__$seqval]"), ("net", "[__$operation]")):
        replayed = dict(copy)
        for operation, key, w in server.execute(function.format(kind, limits, order)):
            replayed.pop(key, None) if operation == 1 else replayed.update({key: w})
        assert replayed == dict(server.execute("SELECT id, w FROM dbo.t"))
