"""mssql_ehi: rows that commit long after their moment, and rows that have none."""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytds
import pytest

from tests.connectors.mssql import (
    DATA,
    NOW,
    Columns,
    Source,
    configuration,
    create_plain,
    create_timed,
    failed,
    ids,
    moments,
    synced,
    table_state,
    upserts,
)
from tests.sandbox.fivetran import Project
from tests.sandbox.mssql import MssqlSandbox, faults
from tests.width import wide

pytestmark = pytest.mark.usefixtures("slept")
BEGAN = NOW - timedelta(hours=2)
GRANT = "GRANT VIEW SERVER STATE"


def local(server: MssqlSandbox, moment: datetime = BEGAN) -> datetime:
    """A moment on the server's local clock."""
    ahead = timedelta(minutes=server.instance.offset_minutes)
    return moment.replace(tzinfo=None) + ahead


# Transactions that commit late


@pytest.mark.parametrize(
    "kind", ["datetime2(7)", "datetime", "smalldatetime", "datetimeoffset(3)"]
)
@pytest.mark.parametrize("stamp", ["local", "utc"])
@pytest.mark.parametrize("offset", [-300, *wide(0, 120)])
def test_a_transaction_of_two_hours_loses_no_row(
    project: Project, server: MssqlSandbox, offset: int, stamp: str, kind: str
) -> None:
    """Its rows carry the moment of its begin, in the server's local time or in UTC."""
    server.set_clock(BEGAN, offset)
    moment: Callable[[datetime], datetime] = (
        (lambda at: local(server, at)) if stamp == "local" else lambda at: at.replace(tzinfo=None)
    )
    create_timed(server, [(i, moment(BEGAN - timedelta(hours=9 - i))) for i in range(9)], kind)
    with server.transaction() as late:
        late.insert("dbo.t", [(50, moment(BEGAN))])
        server.set_clock(NOW, offset)
        server.insert("dbo.t", [(60, moment(NOW))])
        synced(project, server, lookback_seconds="0")
        synced(project, server, lookback_seconds="0")
        late.commit()
    synced(project, server, lookback_seconds="0")
    assert ids(project) == [*range(9), 50, 60]


def test_the_cursor_goes_on_after_the_transaction(project: Project, server: MssqlSandbox) -> None:
    """Only while it is open are its rows waited for."""
    create_timed(server, moments(30))
    server.set_clock(BEGAN)
    with server.transaction():
        server.set_clock(NOW)
        server.insert("dbo.t", [(60, local(server, NOW))])
        output = synced(project, server, lookback_seconds="0").output
        assert "dbo.t: a transaction is open since 2026-11-20 10:00:00" in output
        assert table_state(project).cursor.moment == "2026-11-20 10:00:00"
    assert upserts(synced(project, server, lookback_seconds="0")) == 31
    assert upserts(synced(project, server, lookback_seconds="0")) == 1


def test_a_transaction_that_is_seen_later_takes_the_cursor_back(
    project: Project, server: MssqlSandbox
) -> None:
    """Also where nothing has changed since, and without a read of everything."""
    create_timed(server, [(i, local(server, NOW)) for i in range(5)])
    synced(project, server, lookback_seconds="0")
    server.delete("dbo.t")
    server.set_clock(BEGAN)
    with server.transaction() as late:
        late.insert("dbo.t", [(50, local(server))])
        server.set_clock(NOW + timedelta(minutes=5))
        output = synced(project, server, lookback_seconds="0").output
        assert "ahead of the server's clock" not in output
        late.commit()
    synced(project, server, lookback_seconds="0")
    assert 50 in ids(project)


@pytest.mark.usefixtures("small_steps")
def test_an_unfinished_read_remembers_what_was_open(
    project: Project, server: MssqlSandbox
) -> None:
    """When it began, not when it resumes."""
    create_timed(server, moments(100))
    server.set_clock(BEGAN)
    with server.transaction() as late:
        late.insert("dbo.t", [(500, local(server))])
        server.set_clock(NOW)
        server.faults.add(faults.drop(DATA, after_rows=55), faults.drop(DATA, after_rows=5))
        failed(project, server, retry_attempts="0", lookback_seconds="0")
        late.commit()
    synced(project, server, lookback_seconds="0")
    synced(project, server, lookback_seconds="0")
    assert ids(project) == [*range(100), 500]


def test_a_distributed_transaction_without_a_session_counts(
    project: Project, server: MssqlSandbox
) -> None:
    """Its client has disconnected, and it may still commit."""
    create_timed(server, moments(5))
    server.set_clock(BEGAN)
    with server.transaction(program=None):
        server.set_clock(NOW)
        server.insert("dbo.t", [(60, local(server, NOW))])
        synced(project, server, lookback_seconds="0")
    assert table_state(project).cursor.moment == "2026-11-20 10:00:00"


def test_readers_of_the_connector_hold_nothing_up(project: Project, server: MssqlSandbox) -> None:
    """Their own transactions stamp no rows, nor do those of another database."""
    create_timed(server, moments(5))
    server.instance.add_database("Other")
    server.set_clock(BEGAN)
    info = server.instance.database_info("Other")
    server.instance.begin_transaction(7, info, 0, "", wrote=True)
    with server.transaction(program="fivetran-mssql-ehi-connector/1.0"):
        server.set_clock(NOW)
        server.insert("dbo.t", [(60, local(server, NOW))])
        assert "a transaction is open" not in synced(project, server, lookback_seconds="0").output
    assert table_state(project).cursor.moment == "2026-11-20 12:00:00"


@pytest.mark.parametrize("number", [300, *wide(262, 297, 371)])
@pytest.mark.parametrize("view", ["sys.dm_tran_database_transactions", "sys.dm_exec_sessions"])
def test_transactions_that_the_login_may_not_see(
    project: Project, server: MssqlSandbox, view: str, number: int
) -> None:
    """The log says once what to grant; the look-back of an hour does what it can."""
    for name in ("a", "b"):
        server.create_table("dbo", name, [("id", "int", False), ("ModifiedDate", "datetime2")],
                            key=["id"], rows=[(1, local(server, NOW))])  # fmt: skip
    server.refuse_view(view, number)
    output = synced(project, server).output
    assert output.count(GRANT) == 1
    assert "more than lookback_seconds (3600) after" in output
    assert table_state(project, "dbo.b").cursor.moment == "2026-11-20 11:00:00"


@pytest.mark.usefixtures("small_steps")
def test_a_right_that_is_taken_away_meanwhile_costs_nothing(
    project: Project, server: MssqlSandbox
) -> None:
    """The cursor is then the clock's, as without the right."""
    create_timed(server, moments(5))
    server.faults.add(faults.fail(297, match="dm_tran_database_transactions", skip=1))
    assert "in place of" not in synced(project, server).output
    assert ids(project) == list(range(5))


def test_nothing_is_asked_where_no_cursor_is_a_moment(
    project: Project, server: MssqlSandbox
) -> None:
    """Change Tracking and rowversions know the open transactions."""
    create_plain(server)
    versioned: Columns = [("id", "int", False), ("rv", "rowversion", False)]
    server.create_table("dbo", "v", versioned, key=["id"], rows=[(1,)])
    create_plain(server, name="w")
    server.info.tracking = True
    server.execute("ALTER TABLE dbo.w ENABLE CHANGE_TRACKING")
    server.refuse_view("sys.dm_tran_database_transactions", 300)
    assert GRANT not in synced(project, server).output
    assert not [s for s in server.statements if "dm_tran" in s.sql]


def test_a_replica_does_not_know_the_transactions_of_its_primary(
    project: Project, server: MssqlSandbox
) -> None:
    """So nothing is asked there, and the log says what that means."""
    create_timed(server, moments(5))
    server.info.read_only = True
    output = synced(project, server).output
    assert "A replica does not show the transactions of its primary: a row that" in output
    assert GRANT not in output
    assert not [s for s in server.statements if "dm_tran" in s.sql]


@pytest.mark.source
def test_a_row_that_commits_after_the_sync_arrives(project: Project, source: Source) -> None:
    """With a real server its own views tell of the transaction; the login must be allowed to."""
    future: list[Any] = [(1, datetime(2099, 1, 1))]  # the cursor is the clock's
    create_timed(source, future)
    with pytds.connect(
        source.host,
        port=source.port,
        user=source.user,
        password=source.password,
        database=source.database,
    ) as writer:
        writer.cursor().execute("INSERT INTO dbo.t VALUES (50, SYSDATETIME())")
        synced(project, source, lookback_seconds="0")
        writer.commit()
    synced(project, source, lookback_seconds="0")
    assert ids(project) == [1, 50]


def test_nothing_is_asked_for_a_table_that_is_not_read(
    project: Project, server: MssqlSandbox
) -> None:
    """Its column of changes is masked, so that it fails: no right is missing for it."""
    without_moment(server, indexed=True)
    server.mark("dbo.t", "ModifiedDate", masked=True)
    server.refuse_view("sys.dm_tran_database_transactions", 300)
    output = failed(project, server).output
    assert "by which its changes are found, is masked" in output
    assert GRANT not in output
    assert not [s for s in server.statements if "dm_tran" in s.sql]


def test_of_an_excluded_column_no_rows_are_counted(project: Project, server: MssqlSandbox) -> None:
    """Neither is it read by, nor is it searched for rows without a moment."""
    without_moment(server, indexed=True)
    server.insert("dbo.t", [(7, None)])
    synced(project, server)
    server.statements.clear()
    output = synced(project, server, exclude_columns="ModifiedDate").output
    assert "without ModifiedDate" not in output
    assert not [s for s in server.statements if "COUNT_BIG" in s.sql or "dm_tran" in s.sql]
    assert table_state(project).cursor.moment is None
    assert ids(project) == [*range(5), 7]


# Rows without a moment


def without_moment(server: MssqlSandbox, *, indexed: bool) -> None:
    columns: Columns = [("id", "int", False), ("ModifiedDate", "datetime2(7)")]
    rows = [(i, local(server, NOW)) for i in range(5)]
    server.create_table(
        "dbo", "t", columns, key=["id"], rows=rows, indexes=[["ModifiedDate"]] if indexed else []
    )


@pytest.mark.parametrize("indexed", [True, False])
def test_rows_without_a_moment_are_told(
    project: Project, server: MssqlSandbox, indexed: bool
) -> None:
    """On the dashboard, once there are any and an index makes it cheap to count them."""
    without_moment(server, indexed=indexed)
    for _ in range(2):
        assert "is NULL arrive only at full loads" not in synced(project, server).output
    server.insert("dbo.t", [(7, None), (8, None)])
    output = synced(project, server).output
    assert ("dbo.t (2 rows without ModifiedDate)" in output) == indexed
    counted = [s.sql for s in server.statements if "COUNT_BIG" in s.sql]
    assert len(counted) == (2 if indexed else 0)
    assert ids(project) == list(range(5))


def test_rows_without_a_moment_are_told_of_a_quiet_table(
    project: Project, server: MssqlSandbox
) -> None:
    """Whose other rows are not read, since they are what they were."""
    columns: Columns = [("id", "int", False), ("ModifiedDate", "datetime2(7)")]
    rows = [(i, local(server)) for i in range(5)]
    server.create_table("dbo", "t", columns, key=["id"], rows=rows, indexes=[["ModifiedDate"]])
    synced(project, server)
    server.insert("dbo.t", [(7, None), (8, None)])
    result = synced(project, server)
    assert upserts(result) == 0
    assert "dbo.t (2 rows without ModifiedDate)" in result.output


def test_a_full_load_counts_them_by_itself(project: Project, server: MssqlSandbox) -> None:
    """No index is needed, since it reads them."""
    without_moment(server, indexed=False)
    server.insert("dbo.t", [(7, None), (8, None)])
    output = synced(project, server).output
    assert "Rows whose column of changes is NULL arrive only at full loads" in output
    assert "dbo.t (2 rows without ModifiedDate)" in output
    server.faults.add(faults.fail(8115, match=DATA))
    assert "dbo.t (2 rows without ModifiedDate)" in synced(project, server).output


def test_a_count_that_fails_costs_nothing(project: Project, server: MssqlSandbox) -> None:
    """The table is complete without it."""
    without_moment(server, indexed=True)
    synced(project, server)
    server.faults.add(faults.fail(1205, match="COUNT_BIG", times=99))
    synced(project, server)


@pytest.mark.usefixtures("small_steps")
def test_an_interrupted_load_counts_them_over_its_syncs(
    project: Project, server: MssqlSandbox
) -> None:
    """What an earlier sync saw of them is not forgotten."""
    rows = [(i, None if i < 30 else local(server, NOW)) for i in range(100)]
    create_timed(server, rows)
    server.faults.add(faults.drop(DATA, after_rows=55), faults.drop(DATA, after_rows=5))
    failed(project, server, retry_attempts="0")
    assert "dbo.t (30 rows without ModifiedDate)" in synced(project, server).output


@pytest.mark.usefixtures("small_steps")
def test_a_state_from_before_this_goes_on(project: Project, server: MssqlSandbox) -> None:
    """An unfinished read of an older version has no count of such rows."""
    create_timed(server, moments(100))
    server.faults.add(faults.drop(DATA, after_rows=55), faults.drop(DATA, after_rows=5))
    failed(project, server, retry_attempts="0")
    state = project.state
    del state["tables"]["dbo.t"]["read"]["nulls"]
    result = project.sync(configuration(server), state)
    assert result.code == 0, result.output
    assert result.counts["Truncates"] == 0
    assert ids(project) == list(range(100))
