"""mssql_ehi: which errors of the server are transient, which are final, and what each costs."""

import random
from importlib import import_module

import pytest

from tests.connectors.mssql import (
    DATA,
    NOW,
    Columns,
    create_plain,
    create_timed,
    failed,
    ids,
    moments,
    reads,
    synced,
    table_state,
    upserts,
)
from tests.sandbox.fivetran import Project
from tests.sandbox.mssql import MssqlSandbox, faults, wire
from tests.sandbox.mssql.errors import SqlError
from tests.width import wide

pytestmark = pytest.mark.usefixtures("slept")
CHANGES = r"^SELECT .* FROM CHANGETABLE"
SNAPSHOT = "SET TRANSACTION ISOLATION LEVEL SNAPSHOT"
_OF_TRANSACTIONS = (3947, 1219, 3953, 3954, 3959, 3967, 41301, 41302, 41305, 41325, 41839)
_OF_STATEMENTS = (601, 982, 1203, 1221, 3935, 8628, 9515, 10922)


# What heals


@pytest.mark.parametrize("number", [3947, 601, *wide(*_OF_TRANSACTIONS[1:], *_OF_STATEMENTS[1:])])
def test_what_passes_costs_no_cursor(
    project: Project, server: MssqlSandbox, slept: list[float], number: int
) -> None:
    """The read is retried from the same start: no full read, and no other isolation."""
    create_timed(server, moments(30))
    synced(project, server, lookback_seconds="0")
    server.update("dbo.t", {"id": 3}, ModifiedDate=NOW.replace(tzinfo=None))
    server.faults.add(faults.fail(number, match=DATA))
    result = synced(project, server, lookback_seconds="0")
    assert upserts(result) == 2
    assert "in place of the incremental read" not in result.output
    assert "READ COMMITTED" not in result.output
    assert len(slept) == 1


def test_what_is_too_dear_is_not_repeated(
    project: Project, server: MssqlSandbox, slept: list[float]
) -> None:
    """Nor does a full read follow, which costs more; the others are done."""
    create_timed(server, moments(30))
    create_plain(server, name="u")
    server.faults.add(faults.fail(8649, 9000, 100, match=r"\[t\] AS T", times=99))
    output = failed(project, server).output
    assert "error 8649 of the server. Its estimated cost is above" in output
    assert slept == []
    assert ids(project, "u") == list(range(30))


@pytest.mark.parametrize("number", [8621, 8631, 8632])
def test_what_no_repeat_changes_is_final(
    project: Project, server: MssqlSandbox, slept: list[float], number: int
) -> None:
    """However grave the server calls it."""
    create_plain(server)
    server.faults.add(faults.fail(number, severity=17, match=DATA, times=99))
    assert f"error {number} of the server" in failed(project, server).output
    assert slept == []


def test_a_replica_that_wants_read_only_connections(
    project: Project, server: MssqlSandbox
) -> None:
    """The message names the setting."""
    create_plain(server)
    server.faults.add_login(*(faults.fail(978, "EHR") for _ in range(9)))
    output = failed(project, server).output
    assert "error 978 of the server (the replica is not readable). It takes" in output
    assert 'set read_only_intent to "true"' in output


# How long it may take


@pytest.mark.parametrize("where", ["login", "statement", "connection", "server"])
@pytest.mark.parametrize("chance", [0.0, 1.0])
def test_the_default_repeats_outlast_a_fail_over(
    project: Project,
    server: MssqlSandbox,
    slept: list[float],
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    chance: float,
) -> None:
    """Whatever chance makes of them they span 90 s, and no more than three minutes."""
    monkeypatch.setattr(random, "uniform", lambda low, high: low + chance * (high - low))
    create_plain(server)
    if where == "login":
        server.faults.add_login(*(faults.fail(40613, "EHR") for _ in range(9)))
    elif where == "statement":
        server.faults.add(faults.fail(40613, "EHR", match=DATA, times=9))
    elif where == "connection":
        server.faults.add(faults.drop(DATA, times=9))
    else:
        server.pause()
    failed(project, server)
    assert len(slept) == 3
    assert 90 <= sum(slept) <= 185


def test_a_serverless_database_wakes(
    project: Project, server: MssqlSandbox, slept: list[float]
) -> None:
    """It refuses logins for a minute."""
    create_plain(server)
    server.faults.add_login(*(faults.fail(40613, "EHR") for _ in range(2)))
    synced(project, server)
    assert sum(slept) >= 35
    assert ids(project) == list(range(30))


@pytest.mark.parametrize(
    ("number", "severity"), [(17187, 16), *wide((17188, 16), (17142, 16), (988, 14)), (17809, 20)]
)
def test_a_server_that_takes_no_logins_yet_is_waited_for(
    project: Project, server: MssqlSandbox, slept: list[float], number: int, severity: int
) -> None:
    """It starts, is paused, or has as many connections as it may have."""
    create_plain(server)
    server.faults.add_login(*(faults.fail(number, severity=severity) for _ in range(2)))
    synced(project, server)
    assert len(slept) == 2
    assert ids(project) == list(range(30))


@pytest.mark.parametrize(
    ("number", "severity", "advice"),
    [
        (17892, 20, "A logon trigger of the server refuses"),
        *wide((47073, 14, "needs a private endpoint"), (40914, 14, "virtual network")),
    ],
)
def test_a_server_that_refuses_the_network_or_the_user_says_why(
    project: Project,
    server: MssqlSandbox,
    slept: list[float],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    severity: int,
    advice: str,
) -> None:
    """At once, however severe the server says that it is; the number alone would tell nobody. A
    message that is no error may follow."""
    message, note = wire.message, SqlError(5701, "Changed database context.", severity=0)
    monkeypatch.setattr(
        wire, "message", lambda *sent: message(*sent) + message(wire.INFO, note, "sandbox")
    )
    create_plain(server)
    server.faults.add_login(faults.fail(number, severity=severity))
    assert advice in failed(project, server).output
    assert slept == []


def test_a_deadlock_is_repeated_within_seconds(
    project: Project, server: MssqlSandbox, slept: list[float]
) -> None:
    """There is nothing to wait for but another session."""
    create_plain(server)
    server.faults.add(faults.fail(1205, match=DATA, times=3))
    synced(project, server)
    assert len(slept) == 3
    assert sum(slept) <= 35


def test_a_computed_column_that_fails_for_a_row(project: Project, server: MssqlSandbox) -> None:
    """The table fails, with what to do about it; the others are done."""
    server.execute("CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY, n int, share AS 100 / n)")
    server.execute("INSERT INTO dbo.t (id, n) VALUES (1, 5), (2, 0)")
    create_plain(server, name="u")
    output = failed(project, server).output
    assert "error 8134 of the server. An expression fails for some row" in output
    assert ids(project, "u") == list(range(30))
    synced(project, server, exclude_columns="t.share")
    assert ids(project) == [1, 2]


# The cursor after a full read in place of an incremental one


@pytest.mark.parametrize("kind", ["datetime2(7)", "datetime", "datetimeoffset(7)", "date"])
def test_a_refused_incremental_read_keeps_the_cursor(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """The full read finds a new one, though it does not go in the column's order."""
    rows = [(i, NOW.replace(tzinfo=None, day=20 - i)) for i in range(10)]
    create_timed(server, rows, kind)
    synced(project, server, lookback_seconds="0")
    before = table_state(project).cursor.moment
    server.set_clock(NOW.replace(day=25))
    server.insert("dbo.t", [(-5, NOW.replace(tzinfo=None, day=23)), (99, None)])
    server.faults.add(faults.fail(8115, match=DATA))
    output = synced(project, server, lookback_seconds="0").output
    assert "in place of the incremental read, all rows are read" in output
    assert reads(server, "t")[-1].endswith("ORDER BY T.[id]")
    assert before < table_state(project).cursor.moment
    assert "2026-11-23" in table_state(project).cursor.moment
    assert upserts(synced(project, server, lookback_seconds="0")) == 0
    assert len(ids(project)) == 12


@pytest.mark.parametrize("seen_before", [True, False])
def test_a_first_load_that_is_refused_once_resumes(
    project: Project, server: MssqlSandbox, seen_before: bool
) -> None:
    """By the next sync, since no other statement would read all rows with less."""
    create_timed(server, moments(30))
    server.faults.add(faults.fail(8115, match=DATA, after_rows=7 if seen_before else 0))
    failed(project, server, lookback_seconds="0")
    assert upserts(synced(project, server, lookback_seconds="0")) == (23 if seen_before else 30)
    assert ids(project) == list(range(30))
    server.update("dbo.t", {"id": 3}, ModifiedDate=NOW.replace(tzinfo=None))
    assert upserts(synced(project, server, lookback_seconds="0")) <= 2


def test_a_refused_read_of_changes_keeps_the_version(
    project: Project, server: MssqlSandbox
) -> None:
    """The version from before the full read."""
    create_plain(server)
    server.info.tracking = True
    server.execute("ALTER TABLE dbo.t ENABLE CHANGE_TRACKING")
    synced(project, server)
    server.update("dbo.t", {"id": 3}, v="changed")
    server.faults.add(faults.fail(8115, match=CHANGES + ".* LEFT JOIN"))
    assert "all rows are read" in synced(project, server).output
    server.update("dbo.t", {"id": 4}, v="changed later")
    server.delete("dbo.t", {"id": 5})
    result = synced(project, server)
    assert upserts(result) == 1
    assert result.counts["Deletes"] == 1
    assert ids(project) == [i for i in range(30) if i != 5]


def test_a_refused_read_by_rowversion_keeps_the_cursor(
    project: Project, server: MssqlSandbox
) -> None:
    """The lowest active one from before the full read."""
    columns: Columns = [("id", "int", False), ("v", "varchar(40)"), ("rv", "rowversion", False)]
    server.create_table("dbo", "t", columns, key=["id"], rows=[(i, "v") for i in range(30)])
    synced(project, server)
    server.update("dbo.t", {"id": 3}, v="changed")
    server.faults.add(faults.fail(8115, match=DATA))
    assert "all rows are read" in synced(project, server).output
    server.update("dbo.t", {"id": 4}, v="changed")
    assert upserts(synced(project, server)) == 1


def test_a_clock_that_is_refused_later_keeps_the_old_cursor(
    project: Project, server: MssqlSandbox
) -> None:
    """There is no new one, so what came since the old one is read again."""
    create_timed(server, moments(30))
    synced(project, server, lookback_seconds="0")
    kept = table_state(project).cursor.moment
    server.insert("dbo.t", [(99, NOW.replace(tzinfo=None))])
    server.faults.add(faults.fail(195, match="SYSUTCDATETIME", times=2))
    assert "the next sync starts where this one did" in synced(project, server).output
    assert table_state(project).cursor.moment == kept
    assert upserts(synced(project, server, lookback_seconds="0")) == 2


@pytest.mark.usefixtures("small_steps")
def test_a_full_read_in_place_of_an_incremental_one_resumes(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It resumes by the key, and has a cursor in the end."""
    create_timed(server, moments(100))
    synced(project, server, lookback_seconds="0")
    server.update("dbo.t", {"id": 3}, ModifiedDate=NOW.replace(tzinfo=None))
    server.faults.add(faults.fail(8115, match=r"ORDER BY T\.\[ModifiedDate\]"))
    server.faults.add(faults.drop(DATA, after_rows=55), faults.drop(DATA, after_rows=5))
    monkeypatch.setattr(import_module("sqlserver.table_sync"), "SMALL", 10)
    failed(project, server, retry_attempts="0", lookback_seconds="0")
    result = synced(project, server, lookback_seconds="0")
    assert result.counts["Truncates"] == 0
    assert upserts(result) < 60
    assert ids(project) == list(range(100))
    assert upserts(synced(project, server, lookback_seconds="0")) <= 1


# Isolation


@pytest.mark.parametrize("number", [33447, *wide(7420, 35371, 41332)])
@pytest.mark.parametrize("attempts", ["0", "3"])
def test_a_table_without_snapshots_is_read_without_them(
    project: Project, server: MssqlSandbox, slept: list[float], number: int, attempts: str
) -> None:
    """It alone, at once, and at any number of retries: the tables behind it have snapshots."""
    for name in ("a", "b", "c"):
        create_plain(server, name=name)
    server.faults.add(faults.fail(number, match=r"\[b\]"))
    output = synced(project, server, retry_attempts=attempts).output
    assert (
        f"dbo.b: a statement: error {number} of the server: from now on reads are READ COMMITTED"
        in output
    )
    assert "not SNAPSHOT, of this table alone" in output
    assert "in place of" not in output
    assert slept == []
    for name in ("a", "b", "c"):
        assert ids(project, name) == list(range(30))
    levels = _isolation(server)
    assert levels == {"a": [True], "b": [True, False], "c": [True]}


def test_a_database_without_snapshots_is_read_without_them(
    project: Project, server: MssqlSandbox, slept: list[float]
) -> None:
    """From then on, and at once."""
    for name in ("a", "b", "c"):
        create_plain(server, name=name)
    server.faults.add(faults.fail(3952, "EHR", match=r"\[b\]"))
    synced(project, server, retry_attempts="0")
    assert slept == []
    assert _isolation(server) == {"a": [True], "b": [True, False], "c": [False]}


def _isolation(server: MssqlSandbox) -> dict[str, list[bool]]:
    """For each read of a table, whether its connection had asked for snapshots."""
    asked: set[int] = set()
    found: dict[str, list[bool]] = {}
    for statement in server.statements:
        if statement.sql == SNAPSHOT:
            asked.add(statement.spid)
        elif " AS T" in statement.sql:
            name = statement.sql.split("FROM [dbo].[")[1][0]
            found.setdefault(name, []).append(statement.spid in asked)
    return found
