"""mssql_ehi: Change Tracking, rowversion, several tables at once, the report, and Azure AD."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.connectors.mssql import (
    DATA,
    Columns,
    assert_equal,
    change,
    configuration,
    create_plain,
    create_timed,
    failed,
    ids,
    moments,
    reads,
    synced,
    table_state,
    take_no_bad_ones,
    upserts,
)
from tests.sandbox.fivetran import Project, load
from tests.sandbox.mssql import MssqlSandbox, faults, seed_ehr
from tests.sandbox.server import Sandbox
from tests.width import wide

pytestmark = pytest.mark.usefixtures("slept")
load("mssql_ehi")  # makes its modules importable
table_sync = import_module("sqlserver.table_sync")
CHANGES = "CHANGETABLE.*LEFT JOIN"


def track(server: MssqlSandbox, table: str = "t") -> None:
    server.info.tracking = True
    server.execute(f"ALTER TABLE dbo.{table} ENABLE CHANGE_TRACKING")


def create_tracked(server: MssqlSandbox, count: int = 30, name: str = "t") -> None:
    create_plain(server, count, name)
    track(server, name)


# Change Tracking


def test_exactly_the_changes_arrive(project: Project, server: MssqlSandbox) -> None:
    """Inserts, updates, deletes and changes of keys; nothing else is read or sent."""
    create_tracked(server)
    first = synced(project, server)
    assert "dbo.t: small, about 30 rows, changes by Change Tracking" in first.output
    change(server)
    result = synced(project, server)
    assert_equal(project, server)
    assert upserts(result) == 3
    assert result.counts["Deletes"] == 3
    assert {row["id"] for row in project.rows("t", deleted=True)} == {2, 3}
    assert upserts(synced(project, server)) == 0


def test_rows_that_came_since_make_an_empty_table_doubtful(
    project: Project, server: MssqlSandbox
) -> None:
    """A table that was empty once, and proven so, has rows again by changes alone."""
    create_tracked(server, 0)
    synced(project, server)
    server.insert("dbo.t", [(number, 1) for number in range(9)])
    assert upserts(synced(project, server)) == 9
    server.execute("ALTER TABLE dbo.t DISABLE CHANGE_TRACKING")
    server.delete("dbo.t")
    for rows in (9, 0):
        synced(project, server)
        assert len(project.rows("t")) == rows


def test_it_goes_before_a_column_of_changes(project: Project, server: MssqlSandbox) -> None:
    """Which would not see a row that changed without its time, nor a delete."""
    create_timed(server, moments(30))
    track(server)
    synced(project, server)
    server.delete("dbo.t", {"id": 3})
    server.insert("dbo.t", [(99, datetime(1979, 1, 1))])
    result = synced(project, server)
    assert ids(project) == [0, 1, 2, *range(4, 30), 99]
    assert upserts(result) == 1


def test_the_version_is_read_in_the_snapshot_of_the_rows(
    project: Project, server: MssqlSandbox
) -> None:
    """In one transaction: the versions, then the changes. In between the columns, which may be
    new."""
    create_tracked(server)
    synced(project, server)
    server.update("dbo.t", {"id": 3}, v="changed")
    server.statements.clear()
    synced(project, server)
    sent = [statement.sql for statement in server.statements]
    begin = sent.index("BEGIN TRANSACTION")
    assert "CHANGE_TRACKING_MIN_VALID_VERSION" in sent[begin + 1]
    assert "INFORMATION_SCHEMA.COLUMNS" in sent[begin + 2]
    assert "CHANGETABLE" in sent[begin + 3]
    assert sent[begin + 4] == "COMMIT TRANSACTION"


def test_tracked_tables_without_a_change_cost_no_statement(
    project: Project, server: MssqlSandbox
) -> None:
    """All of them are asked at once; those that changed are read."""
    server.info.tracking = True
    names = [f"t{letter}" for letter in "abcdefgh"]
    for name in names:
        create_plain(server, 5, name)
        server.execute(f"ALTER TABLE dbo.{name} ENABLE CHANGE_TRACKING")
    synced(project, server)
    server.update("dbo.tc", {"id": 3}, v="changed")
    server.statements.clear()
    assert upserts(synced(project, server), len(names)) == 1
    assert [sql for s in server.statements if "LEFT JOIN [dbo]" in (sql := s.sql)] == [
        sql for s in server.statements if "LEFT JOIN [dbo].[tc]" in (sql := s.sql)
    ]
    versions = {table_state(project, f"dbo.{name}").cursor.version for name in names}
    assert versions == {1}  # so that they do not expire
    modes = {row["mode"] for row in project.rows("sync_validation_tables")}
    assert modes == {"first", "changes"}


def test_a_new_column_of_a_table_without_a_change_is_told(
    project: Project, server: MssqlSandbox
) -> None:
    """Change Tracking tells no change then, but rows may have a default there."""
    create_tracked(server)
    synced(project, server)
    server.execute("ALTER TABLE dbo.t ADD w int NOT NULL DEFAULT 7")
    assert "dbo.t: new columns (w) are filled for rows" in synced(project, server).output
    assert "new columns" not in synced(project, server).output


@pytest.mark.parametrize("cause", ["changed", "cleaned up", "refused", "switched off and on"])
def test_what_happens_while_tracked_tables_are_asked(
    project: Project, server: MssqlSandbox, cause: str
) -> None:
    """A change that comes in between is read by this sync or the next, a clean-up is noticed."""
    create_tracked(server)
    server.update("dbo.t", {"id": 7}, v="changed")
    synced(project, server)
    if cause == "cleaned up":
        server.delete("dbo.t", {"id": 3})

    def act() -> None:
        if cause == "changed":
            server.delete("dbo.t", {"id": 3})
        elif cause == "cleaned up":
            server.store.expire_tracking(server.table("dbo.t"))
        elif cause == "switched off and on":
            server.execute("ALTER TABLE dbo.t DISABLE CHANGE_TRACKING")
            server.delete("dbo.t", {"id": 3})
            server.execute("ALTER TABLE dbo.t ENABLE CHANGE_TRACKING")

    if cause == "refused":
        server.delete("dbo.t", {"id": 3})
        server.faults.add(faults.fail(8115, match="WHERE EXISTS"))
    else:
        server.faults.add(faults.call(act, "WHERE EXISTS"))
    project.sync(configuration(server))
    synced(project, server)
    assert ids(project) == [i for i in range(30) if i != 3]


@pytest.mark.parametrize("snapshot", [True, False])
@pytest.mark.usefixtures("small_steps")
def test_a_writer_during_the_read(project: Project, server: MssqlSandbox, snapshot: bool) -> None:
    """In a first load and in a read of changes, with the rows that are just being read."""
    server.info.snapshot = snapshot
    create_tracked(server, 60)
    for round_number in range(3):
        match = CHANGES if round_number else DATA
        work = lambda first=10 * round_number: change(server, first)  # noqa: E731
        server.faults.add(faults.call(work, match, after_rows=5 if not round_number else 0))
        synced(project, server)
    synced(project, server)
    assert_equal(project, server)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("mode", ["first", "changes"])
def test_interrupted_at_every_batch(project: Project, server: MssqlSandbox, mode: str) -> None:
    """Each sync dies a little further on, and a writer is at work between them."""
    create_tracked(server, 100)
    if mode == "changes":
        synced(project, server)
        server.execute("UPDATE dbo.t SET v = 'all new'")
        server.execute("DELETE FROM dbo.t WHERE id % 7 = 0")
    syncs = 0
    while True:
        server.faults.add(faults.drop(DATA if mode == "first" else CHANGES, after_rows=15))
        result = project.sync(configuration(server, retry_attempts="0"))
        server.faults.clear()
        if result.code == 0:
            break
        change(server, 10 * syncs)
        syncs += 1
        assert syncs < 9, result.output
    assert syncs >= 2
    synced(project, server)
    assert_equal(project, server)


@pytest.mark.usefixtures("small_steps")
def test_killed_in_a_read_of_changes(project: Project, server: MssqlSandbox) -> None:
    """kill -9 of the real command; the next one makes up for it."""
    create_tracked(server, 3_000)
    synced(project, server)
    server.execute("UPDATE dbo.t SET v = 'all new'")
    server.execute("DELETE FROM dbo.t WHERE id % 7 = 0")
    running: list[Any] = []

    def kill() -> None:
        running[0].kill()
        running[0].wait()

    server.faults.add(faults.call(kill, CHANGES, after_rows=1_500))
    running.append(project.start(configuration(server)))
    running[0].communicate(timeout=60)
    assert running[0].returncode == -9
    result = project.sync(configuration(server))
    assert result.code == 0, result.output
    assert_equal(project, server)


@pytest.mark.parametrize("large", [True, *wide(False)])
@pytest.mark.parametrize("cause", ["retention", "truncate", "switched off and on", "restored"])
@pytest.mark.usefixtures("small_steps")
def test_what_is_forgotten_leads_to_a_load_of_everything(
    project: Project,
    server: MssqlSandbox,
    monkeypatch: pytest.MonkeyPatch,
    cause: str,
    large: bool,
) -> None:
    """Never to a silent gap: rows that were deleted meanwhile are deleted here, too."""
    if large:
        monkeypatch.setattr(table_sync, "SMALL", 10)
    create_tracked(server, 60)
    server.execute("UPDATE dbo.t SET v = 'once more'")
    synced(project, server)
    change(server)
    if cause == "retention":
        server.store.expire_tracking(server.table("dbo.t"))
    elif cause == "truncate":
        server.execute("TRUNCATE TABLE dbo.t")
        server.insert("dbo.t", [(i, "after") for i in range(40, 50)])
    elif cause == "switched off and on":
        server.execute("ALTER TABLE dbo.t DISABLE CHANGE_TRACKING")
        server.delete("dbo.t", {"id": 20})
        server.execute("ALTER TABLE dbo.t ENABLE CHANGE_TRACKING")
    else:
        state = project.state
        state["tables"]["dbo.t"]["v"] += 1_000
        (project.path / "files" / "state.json").write_text(json.dumps(state))
    server.faults.add(faults.drop(DATA, after_rows=9))
    result = synced(project, server)
    assert result.counts["Truncates"] == 1
    assert_equal(project, server)
    change(server, 30)
    assert upserts(synced(project, server)) <= 3
    assert_equal(project, server)


@pytest.mark.usefixtures("small_steps")
def test_a_large_table_that_is_loaded_anew_resumes(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is truncated once, and a sync that dies resumes; changes meanwhile are not lost."""
    monkeypatch.setattr(table_sync, "SMALL", 10)
    create_tracked(server, 100)
    synced(project, server)
    change(server)
    server.store.expire_tracking(server.table("dbo.t"))
    server.faults.add(faults.drop(DATA, after_rows=55), faults.drop(DATA, after_rows=5))
    first = failed(project, server, retry_attempts="0")
    change(server, 10)
    second = synced(project, server)
    assert first.counts["Truncates"] + second.counts["Truncates"] == 1
    assert upserts(second) <= 50
    synced(project, server)
    assert_equal(project, server)


@pytest.mark.parametrize("loaded", [False, *wide(True)])
@pytest.mark.usefixtures("small_steps")
def test_switched_off_and_on_while_a_load_is_interrupted(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch, loaded: bool
) -> None:
    """What changed in between, in rows that were read already, is told by no version."""
    monkeypatch.setattr(table_sync, "SMALL", 10)
    create_tracked(server, 100)
    server.execute("UPDATE dbo.t SET v = 'once more'")
    if loaded:
        synced(project, server)
        change(server, 60)
        server.store.expire_tracking(server.table("dbo.t"))
    server.faults.add(faults.drop(DATA, after_rows=55), faults.drop(DATA, after_rows=5))
    failed(project, server, retry_attempts="0")
    server.execute("ALTER TABLE dbo.t DISABLE CHANGE_TRACKING")
    change(server)
    server.execute("ALTER TABLE dbo.t ENABLE CHANGE_TRACKING")
    synced(project, server)
    synced(project, server)
    assert_equal(project, server)


@pytest.mark.parametrize("large", [True, False])
def test_switched_on_and_off_between_syncs(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """The destination equals the source after each: no delete is missed at the change."""
    if large:
        monkeypatch.setattr(table_sync, "SMALL", 10)
    create_plain(server, 60)
    synced(project, server)
    server.delete("dbo.t", {"id": 50})
    track(server)
    synced(project, server)
    assert_equal(project, server)
    change(server)
    synced(project, server)
    assert_equal(project, server)
    change(server, 10)
    server.execute("ALTER TABLE dbo.t DISABLE CHANGE_TRACKING")
    synced(project, server)
    assert_equal(project, server)
    if not large:  # without tracking, deletes in large tables are not seen
        change(server, 20)
        synced(project, server)
        assert_equal(project, server)


def test_changes_that_may_not_be_read(project: Project, server: MssqlSandbox) -> None:
    """A full load takes their place, and a warning says why."""
    create_tracked(server)
    synced(project, server)
    change(server)
    server.faults.add(faults.fail(22105, match=CHANGES))
    output = synced(project, server).output
    assert "error 22105 of the server: in place of the incremental read" in output
    assert_equal(project, server)


def test_the_question_whether_changes_can_be_read_is_cheap(
    project: Project, server: MssqlSandbox
) -> None:
    """It asks for what changed since the current version, not since tracking began."""
    create_tracked(server)
    for i in range(3):
        server.update("dbo.t", {"id": i}, v="changed")
    [(now,)] = server.execute("SELECT CHANGE_TRACKING_CURRENT_VERSION() AS now")
    synced(project, server)
    asked = {s.sql for s in server.statements if "CHANGETABLE" in s.sql and "TOP (1)" in s.sql}
    assert [sql.partition("CHANGES ")[2] for sql in asked] == [f"[dbo].[t], {now}) AS CT"]
    assert now >= 3


def test_tracking_that_the_login_may_not_see(project: Project, server: MssqlSandbox) -> None:
    """The table is read as if there were none; a warning names the right to grant."""
    create_tracked(server)
    server.deny("dbo.t", "VIEW CHANGE TRACKING")
    output = synced(project, server).output
    assert "GRANT VIEW CHANGE TRACKING" in output
    assert "in full, in key order" in output
    assert_equal(project, server)


def test_no_key_of_a_deleted_row_is_shown(project: Project, server: MssqlSandbox) -> None:
    """Neither in the log nor in the state; the position in the changes is encrypted."""
    columns: Columns = [("mrn", "varchar(40)", False), ("v", "int")]
    secrets = [f"Patient-MRN{i:05d}" for i in range(40)]
    server.create_table("dbo", "t", columns, key=["mrn"], rows=[(s, 1) for s in secrets])
    track(server)
    synced(project, server)
    server.delete("dbo.t")
    server.faults.add(faults.drop(CHANGES, after_rows=25))
    shown = [failed(project, server, retry_attempts="0").output, project.everything_written()]
    shown.append(synced(project, server).output)
    assert not [secret for secret in secrets for text in shown if secret in text]
    assert project.rows("t") == []


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("large", [True, False])
def test_a_load_that_empties_and_then_fails_forgets_what_was_there(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """Between the truncate and the first row, too, the state says that nothing is stored."""
    if large:
        monkeypatch.setattr(table_sync, "SMALL", 10)
    create_tracked(server, 100)
    synced(project, server)
    change(server)
    server.store.expire_tracking(server.table("dbo.t"))
    server.faults.add(faults.fail(1205, match=DATA, times=99))
    failed(project, server)
    server.faults.clear()
    server.execute("ALTER TABLE dbo.t DISABLE CHANGE_TRACKING")
    synced(project, server)
    assert_equal(project, server)


def test_a_column_of_changes_that_comes_back_after_a_failure(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its old cursor does not outlive a table that was emptied for another plan."""
    monkeypatch.setattr(table_sync, "SMALL", 10)
    create_timed(server, moments(100))
    synced(project, server, lookback_seconds="0")
    track(server)
    server.faults.add(faults.fail(1205, match=DATA, times=99))
    failed(project, server)
    server.faults.clear()
    server.execute("ALTER TABLE dbo.t DISABLE CHANGE_TRACKING")
    synced(project, server, lookback_seconds="0")
    assert ids(project) == list(range(100))


@pytest.mark.usefixtures("small_steps")
def test_a_position_does_not_outlive_its_table(project: Project, server: MssqlSandbox) -> None:
    """A first load breaks off, another plan empties the table and fails, the first one returns."""
    create_timed(server, moments(100))
    server.faults.add(faults.drop(DATA, after_rows=55), faults.drop(DATA, after_rows=5))
    failed(project, server, retry_attempts="0")
    server.faults.add(faults.fail(1205, match=DATA))
    failed(project, server, retry_attempts="0", incremental_column="nothing")
    synced(project, server)
    assert ids(project) == list(range(100))


def test_a_replacement_that_proves_large_still_tells_deletes(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small by its rows, large by their width: what was deleted meanwhile goes."""
    monkeypatch.setattr(table_sync, "LARGEST_WAITING", 2_000)
    create_tracked(server, 100)
    synced(project, server)
    server.delete("dbo.t", {"id": 5})
    server.store.expire_tracking(server.table("dbo.t"))
    synced(project, server)
    assert_equal(project, server)


def test_tracking_that_cannot_be_read_is_not_used(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A replica may list what it refuses to tell: the column of changes serves as before."""
    monkeypatch.setattr(table_sync, "SMALL", 10)
    create_timed(server, moments(100))
    synced(project, server)
    track(server)
    server.faults.add(faults.fail(22117, match="CHANGETABLE", times=99))
    for _ in range(2):
        result = synced(project, server)
        assert "which mssql_user cannot read: it is not used" in result.output
        assert "incremental by ModifiedDate" in result.output
        assert result.counts["Truncates"] == 0


def test_a_key_that_cannot_be_stored_cannot_be_deleted(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted as a skipped row, at its delete as at its insert."""
    create_tracked(server, 100)
    synced(project, server)
    server.delete("dbo.t", {"id": 5})
    rows = import_module("sqlserver.rows")
    monkeypatch.setattr(rows.RowMapper, "key", lambda *_: {"id": "a\ud800b"})
    output = synced(project, server).output
    assert "1 of dbo.t" in output
    assert "the SDK refuses its key" in output


def test_the_share_of_bad_rows_is_that_of_the_whole_table(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not that of what it held when it was first read."""
    type_mapping = import_module("sqlserver.type_mapping")
    kind = replace(type_mapping.TYPE_MAPPINGS["nvarchar"], convert=take_no_bad_ones)
    monkeypatch.setitem(type_mapping.TYPE_MAPPINGS, "nvarchar", kind)
    columns: Columns = [("id", "int", False), ("k", "nvarchar(40)", False)]
    server.create_table("dbo", "t", columns, key=["id", "k"])
    track(server)
    synced(project, server)
    server.insert("dbo.t", [(i, "k") for i in range(100)])
    synced(project, server)
    server.insert("dbo.t", [(500, "bad")])
    assert "1 of dbo.t" in synced(project, server).output
    assert len(ids(project)) == 100


def test_no_delete_is_invented_without_snapshots(project: Project, server: MssqlSandbox) -> None:
    """A row that is listed as inserted and not found any more is left to the next sync."""
    server.info.snapshot = False
    create_tracked(server)
    synced(project, server)
    server.insert("dbo.t", [(1_000, "here")])
    changes = import_module("sqlserver.query").Changes
    original = changes.statement

    def without(self: Any, *arguments: Any, **options: Any) -> Any:
        sql, parameters = original(self, *arguments, **options)
        return sql.replace("T.[id] = CT.[id]", "1 = 0"), parameters

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(changes, "statement", without)
        assert synced(project, server).counts["Deletes"] == 0
    assert 1_000 not in ids(project)


# rowversion

VERSIONED: Columns = [("id", "int", False), ("v", "varchar(40)"), ("rv", "rowversion")]


def create_versioned(server: MssqlSandbox, count: int = 30) -> None:
    rows = [(i, f"value {i}") for i in range(count)]
    server.create_table("dbo", "t", VERSIONED, key=["id"], rows=rows)


def test_a_rowversion_tells_what_changed(project: Project, server: MssqlSandbox) -> None:
    """Where no column of times does; nothing else is read again."""
    create_versioned(server)
    assert "incremental by rv" in synced(project, server).output
    server.update("dbo.t", {"id": 3}, v="changed")
    server.insert("dbo.t", [(99, "new")])
    assert upserts(synced(project, server)) == 2
    assert_equal(project, server)
    assert upserts(synced(project, server)) == 0


def test_a_transaction_under_way_holds_the_cursor(project: Project, server: MssqlSandbox) -> None:
    """A row that was stamped before others and commits after them arrives."""
    create_versioned(server)
    synced(project, server)
    with server.transaction() as late:
        late.insert("dbo.t", [(50, "late")])
        server.insert("dbo.t", [(60, "early")])
        synced(project, server)
        assert 50 not in ids(project)
        late.commit()
    synced(project, server)
    assert_equal(project, server)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("mode", ["first", "incremental"])
def test_a_read_by_rowversion_resumes(project: Project, server: MssqlSandbox, mode: str) -> None:
    """Each sync dies a little further on, and a writer is at work between them."""
    create_versioned(server, 100)
    if mode == "incremental":
        synced(project, server)
        server.execute("UPDATE dbo.t SET v = 'all new'")
    syncs = 0
    while True:
        server.faults.add(faults.drop(DATA, after_rows=15))
        result = project.sync(configuration(server, retry_attempts="0"))
        server.faults.clear()
        if result.code == 0:
            break
        server.update("dbo.t", {"id": syncs}, v="changed between")
        syncs += 1
        assert syncs < 9, result.output
    assert syncs >= 2
    synced(project, server)
    assert_equal(project, server)


def test_without_the_lowest_active_rowversion_it_is_not_used(
    project: Project, server: MssqlSandbox
) -> None:
    """The table is read in full, and the log says why."""
    create_versioned(server)
    for _ in range(2):
        server.faults.add(faults.fail(195, match="MIN_ACTIVE_ROWVERSION"))
        output = synced(project, server).output
        assert "goes on without rowversions, since MIN_ACTIVE_ROWVERSION() is missing" in output
        assert "in full, in key order" in output
        server.delete("dbo.t", {"id": 4})
    assert_equal(project, server)


def test_a_column_of_times_goes_before_a_rowversion(
    project: Project, server: MssqlSandbox
) -> None:
    """A candidate that the user named, or the default, is preferred."""
    columns: Columns = [*VERSIONED, ("ModifiedDate", "datetime2(7)")]
    server.create_table("dbo", "t", columns, key=["id"], rows=[(1, "a", datetime(2026, 1, 1))])
    assert "incremental by ModifiedDate" in synced(project, server).output


@pytest.mark.parametrize("plan", ["times", "rowversion", "tracked"])
@pytest.mark.parametrize("first", [True, False])
def test_a_column_that_is_added_while_a_sync_is_under_way(
    project: Project, server: MssqlSandbox, plan: str, first: bool
) -> None:
    """A row that has a value there, and changed before the table's clock was read, would never
    come again: the table waits for the next sync, which knows the column."""
    if plan == "rowversion":
        create_versioned(server)
    else:
        columns: Columns = [("id", "int", False), ("v", "text"), ("ModifiedDate", "datetime2(7)")]
        rows = [(number, "v", datetime(2026, 1, number)) for number in (1, 2, 3)]
        server.create_table("dbo", "t", columns, key=["id"], rows=rows)
    if plan == "tracked":
        track(server)
    if not first:
        synced(project, server)

    def alter() -> None:
        server.execute("ALTER TABLE dbo.t ADD extra int")
        moved = {} if plan == "rowversion" else {"ModifiedDate": datetime(2026, 1, 3)}
        server.update("dbo.t", {"id": 1}, v="changed", extra=7, **moved)

    clock = {"times": "SYSUTCDATETIME", "rowversion": "ROWVERSION"}
    clock["tracked"] = r"CURRENT_VERSION\(\) AS now"  # not that of the discovery
    server.faults.add(faults.call(alter, clock[plan]))
    output = synced(project, server).output
    assert "dbo.t: columns were added since the sync began (extra): the next sync" in output
    reports = project.query("FROM tester.sync_validation_tables ORDER BY sync_timestamp")
    assert reports[-1]["mode"] == "postponed"
    synced(project, server)
    assert [row["extra"] for row in project.rows("t") if row["id"] == 1] == [7]


# Several tables at once


def _meet(meeting: threading.Barrier) -> None:
    meeting.wait()


def test_tables_are_read_at_once(project: Project, server: MssqlSandbox) -> None:
    """Four workers wait for each other in the middle of their tables: none could go on alone."""
    meeting = threading.Barrier(4, timeout=20)
    for name in ("a", "b", "c", "d", "e"):
        create_plain(server, 40, name)
    for name in ("a", "b", "c", "d"):
        server.faults.add(faults.call(lambda: _meet(meeting), rf"\[{name}\]", after_rows=20))
    result = synced(project, server, parallel_tables="4")
    for name in ("a", "b", "c", "d", "e"):
        assert_equal(project, server, name)
    assert upserts(result, tables=5) == 200


@pytest.mark.parametrize("workers", ["2", "4"])
def test_one_failed_table_leaves_the_others_alone(
    project: Project, server: MssqlSandbox, workers: str
) -> None:
    """They are completed, and the report says which one failed."""
    for name in ("a", "b", "c", "d", "e"):
        create_plain(server, 40, name)
    server.deny("dbo.c")
    output = failed(project, server, parallel_tables=workers).output
    assert "1 of 5 tables failed" in output
    for name in ("a", "b", "d", "e"):
        assert_equal(project, server, name)
    [row] = project.rows("sync_validation")
    assert (row["total_tables"], row["failed_tables"]) == (4, "dbo.c")


@pytest.mark.usefixtures("small_steps")
def test_readers_and_faults(project: Project, server: MssqlSandbox) -> None:
    """Connections that break at each table, replacements among them: the result is the source."""
    seed_ehr(server, patients=40)
    options = {"parallel_tables": "3", "retry_attempts": "9"}
    for _ in range(2):
        server.faults.add(faults.drop(DATA, after_rows=15, times=8))
        synced(project, server, **options)
        server.faults.clear()
        server.delete("dbo.AccessLog", {"Action": "write"})
    for table in ("Patients", "Results", "Orders", "Encounters"):
        assert len(project.rows(table.lower())) == server.count(f"dbo.{table}")
    assert len(project.rows("access_log")) >= server.count("dbo.AccessLog")
    synced(project, server, **options)
    assert len(project.rows("access_log")) == server.count("dbo.AccessLog")
    assert server.clients_left() == 0


def test_a_server_that_goes_away_ends_all_readers(project: Project, server: MssqlSandbox) -> None:
    """No worker is left behind, and the tables that nobody tried are counted."""
    for number in range(8):
        create_plain(server, 40, f"t{chr(97 + number)}")
    server.faults.add(faults.call(lambda: server.pause(drop_connections=False), DATA))
    server.faults.add(faults.drop(DATA, times=100))
    before = threading.active_count()
    output = failed(project, server, parallel_tables="2", retry_attempts="1").output
    assert "tables failed; not tried: dbo.t" in output
    assert threading.active_count() <= before
    server.faults.clear()
    server.start()
    synced(project, server, parallel_tables="2")


def test_an_error_of_the_destination_ends_all_readers(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that is no table's ends the sync at once, with its type."""
    for name in ("a", "b", "c"):
        create_plain(server, 40, name)

    def broken(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(table_sync.op, "truncate", broken)
    assert "RuntimeError" in failed(project, server, parallel_tables="3").output


@pytest.mark.usefixtures("small_steps")
def test_ctrl_c_ends_all_readers(
    project: Project,
    server: MssqlSandbox,
    monkeypatch: pytest.MonkeyPatch,
    threads: list[threading.Thread],
) -> None:
    """In the middle of a step: nobody waits for a turn that does not come, no table is begun."""
    for number in range(20):
        create_plain(server, 40, f"t{chr(97 + number)}")

    def interrupted(state: Any) -> None:
        if "dbo.ta" in state["tables"]:
            raise KeyboardInterrupt

    monkeypatch.setattr(import_module("shared.state").op, "checkpoint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        project.sync(configuration(server, parallel_tables="2", max_tables="0"))
    assert len(threads) > 1
    for thread in threads[1:]:
        thread.join(5)
    assert not [thread.name for thread in threads[1:] if thread.is_alive()]
    read = {s.sql for s in server.statements if "AS T" in s.sql}
    assert len(read) <= 4


def test_a_thread_that_cannot_be_started() -> None:
    """The workers that were started do not wait for ever."""
    workers = import_module("sqlserver.workers").Workers(2)
    started: list[int] = []

    class Pool(ThreadPoolExecutor):
        def submit(self, *arguments: Any, **options: Any) -> Any:
            if started:
                raise RuntimeError("can't start new thread")
            started.append(1)
            return super().submit(*arguments, **options)

    def read(_: int, piece: int) -> bool:
        workers.in_turn(lambda: piece)
        return True

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(import_module("sqlserver.workers"), "ThreadPoolExecutor", Pool)
        with pytest.raises(RuntimeError):
            workers.run(range(50), read)


def test_the_same_on_the_command_line(project: Project, server: MssqlSandbox) -> None:
    """The real `fivetran debug`: changes, deletes, keys, expiry, and tracking switched off."""
    create_tracked(server, 60)
    server.create_table("dbo", "u", VERSIONED, key=["id"], rows=[(i, "value") for i in range(60)])

    def expire() -> None:
        server.store.expire_tracking(server.table("dbo.t"))

    def switch_off() -> None:
        server.execute("ALTER TABLE dbo.t DISABLE CHANGE_TRACKING")

    for round_number, event in enumerate((None, None, expire, switch_off)):
        if round_number:
            change(server, 10 * round_number)
            server.update("dbo.u", {"id": round_number}, v="changed")
        if event:
            event()
        result = project.debug(configuration(server, parallel_tables="2"))
        assert result.code == 0, result.output
        assert_equal(project, server)
        assert_equal(project, server, "u")


# The report


def test_each_table_is_reported(project: Project, server: MssqlSandbox) -> None:
    """Plan, mode, rows, skipped rows, seconds, and the source's own count; in the log, too."""
    create_timed(server, moments(30))
    create_tracked(server, 20, "u")
    create_plain(server, 10, "w")
    server.deny("dbo.w")
    output = failed(project, server).output
    rows = {row["table_name"]: row for row in project.rows("sync_validation_tables")}
    assert [
        (name, row["completed"], row["plan"], row["mode"], row["rows_read"], row["source_rows"])
        for name, row in sorted(rows.items())
    ] == [
        ("dbo.t", True, "incremental by ModifiedDate", "first", 30, 30),
        ("dbo.u", True, "changes by Change Tracking", "first", 20, 20),
        ("dbo.w", False, "in full, in key order", "first", 0, 10),
    ]
    assert rows["dbo.t"]["seconds"] > 0
    assert rows["dbo.t"]["rows_per_second"] > 0
    [moment] = {row["sync_timestamp"] for row in rows.values()}
    assert moment == project.rows("sync_validation")[0]["sync_timestamp"]
    assert moment.tzinfo is not None
    assert moment <= datetime.now(timezone.utc)
    assert "dbo.u       True       changes by Change Tracking   first" in output


def test_a_server_without_these_features_is_read_as_before(
    project: Project, server: MssqlSandbox
) -> None:
    """No statement of them reaches a table, and the plans are those of columns and keys."""
    create_timed(server, moments(30))
    create_plain(server, 20, "u")
    server.switch_off_view("sys.change_tracking_tables")
    for _ in range(2):
        output = synced(project, server).output
        assert "dbo.t: small, about 30 rows, incremental by ModifiedDate" in output
        assert "dbo.u: small, about 20 rows, in full, in key order" in output
    sent = [statement.sql for statement in server.statements]
    assert not [sql for sql in sent if "CHANGETABLE" in sql or "BEGIN TRANSACTION" in sql]
    assert len(reads(server, "t")) == 2


# Azure Active Directory

PRINCIPAL = {
    "mssql_user": "",
    "mssql_password": "",
    "mssql_tenant_id": "contoso.example",
    "mssql_client_id": "11111111-2222-3333-4444-555555555555",
    "mssql_client_secret": "a~Secret~Of~A~Principal",
}


class Authority(Sandbox):
    """A simulator of the token endpoint; the tokens that it mints open ``server``."""

    name = "authority"

    def __init__(self, server: MssqlSandbox, lifetime: Any = 3600) -> None:
        super().__init__()
        self._opens, self.lifetime = server, lifetime
        self.app.add_url_rule(
            "/<tenant>/oauth2/v2.0/token", view_func=self._mint, methods=["POST"]
        )

    def _mint(self, tenant: str) -> Any:
        given = parse_qs(self.requests[-1].body.decode())
        wanted = {
            "grant_type": ["client_credentials"],
            "client_id": [PRINCIPAL["mssql_client_id"]],
            "client_secret": [PRINCIPAL["mssql_client_secret"]],
            "scope": ["https://database.windows.net/.default"],
        }
        if tenant != PRINCIPAL["mssql_tenant_id"] or given != wanted:
            return {"error": "invalid_client", "error_description": str(given)}, 401
        token = f"token-{len(self.requests)}"
        self._opens.tokens.clear()  # the one before it is of no use any more
        self._opens.tokens.add(token)
        return {"token_type": "Bearer", "expires_in": self.lifetime, "access_token": token}


@pytest.fixture
def authority(server: MssqlSandbox) -> Iterator[Authority]:
    with Authority(server) as started:
        yield started


def test_a_service_principal_logs_in(
    project: Project, server: MssqlSandbox, authority: Authority
) -> None:
    """By a token in place of user and password; one for each of schema() and update()."""
    for name in ("a", "b", "c"):
        create_plain(server, 40, name)
    options = {**PRINCIPAL, "mssql_authority_url": authority.url, "parallel_tables": "2"}
    server.faults.add(faults.drop(DATA, after_rows=15))
    result = synced(project, server, **options)
    assert_equal(project, server, "a")
    assert len(authority.requests) == 2
    assert all(login.encrypted and not login.user for login in server.logins)
    shown = result.output + project.everything_written()
    assert PRINCIPAL["mssql_client_secret"] not in shown
    assert "token-" not in shown


def test_a_token_is_renewed_before_it_ends(
    project: Project, server: MssqlSandbox, authority: Authority
) -> None:
    """A connection that is made again after that has a new one."""
    create_plain(server, 40)
    authority.lifetime = 0.001
    server.faults.add(faults.drop(DATA, after_rows=15))
    synced(project, server, **PRINCIPAL, mssql_authority_url=authority.url)
    assert len(authority.requests) == len(server.logins) >= 3
    assert_equal(project, server)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mssql_client_secret": "another"}, "status 401 invalid_client. Check mssql_tenant_id"),
        ({"mssql_tenant_id": "other.example"}, "status 401 invalid_client. Check mssql_tenant_id"),
        ({"mssql_client_id": ""}, "mssql_client_id is missing: Application id"),
        ({"mssql_user": "reader"}, "must be empty beside a service principal"),
        ({"mssql_encrypt": "false"}, 'mssql_encrypt must be "true" for a service principal'),
        ({"mssql_tenant_id": "../x"}, "mssql_tenant_id must be the id or a domain of a tenant"),
    ],
)
def test_a_wrong_principal_fails_at_once(
    project: Project,
    server: MssqlSandbox,
    authority: Authority,
    slept: list[float],
    changes: dict[str, str],
    message: str,
) -> None:
    """With the setting to look at, and no login."""
    options = {**PRINCIPAL, "mssql_authority_url": authority.url, **changes}
    result = failed(project, server, **options)
    assert message in result.output
    assert slept == []
    assert server.logins == []
    assert PRINCIPAL["mssql_client_secret"] not in result.output


def test_a_principal_without_a_user_fails_at_once(
    project: Project, server: MssqlSandbox, authority: Authority, slept: list[float]
) -> None:
    """The error names neither mssql_user nor a password, which it does not have."""
    server.faults.add_login(faults.fail(18456, "<token-identified principal>"))
    output = failed(project, server, **PRINCIPAL, mssql_authority_url=authority.url).output
    assert "error 18456 of the server. Check mssql_database, mssql_tenant_id and" in output
    assert "mssql_password" not in output
    assert slept == []


@pytest.mark.parametrize(
    ("lifetime", "reason"),
    [(None, "no expires_in"), (-1, "no expires_in"), ("soon", "no expires_in")],
)
def test_a_token_without_an_end_is_refused(
    project: Project, server: MssqlSandbox, authority: Authority, lifetime: Any, reason: str
) -> None:
    """What cannot be understood is an error, not a token that lasts for ever."""
    authority.lifetime = lifetime
    output = failed(project, server, **PRINCIPAL, mssql_authority_url=authority.url).output
    assert reason in output


def test_neither_user_nor_principal(project: Project, server: MssqlSandbox) -> None:
    """Both keys of a login are named."""
    output = failed(project, server, mssql_user="", mssql_password="").output
    assert "mssql_user is missing" in output
    assert "mssql_password is missing" in output
