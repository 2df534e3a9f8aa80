"""mssql_ehi: rows that did not change are not sent again."""

import json
import re
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import pytest

from tests.connectors.mssql import (
    DATA,
    NOW,
    Columns,
    configuration,
    create_plain,
    create_timed,
    failed,
    ids,
    reads,
    synced,
    upserts,
)
from tests.sandbox.fivetran import Project, load
from tests.sandbox.mssql import MssqlSandbox, faults
from tests.soak.crashes import Crash, Process
from tests.width import wide

pytestmark = pytest.mark.usefixtures("slept", "small_steps")
IDENTITY, TEXT = ("id", "int", False), ("v", "varchar(40)")
TIMED: Columns = [IDENTITY, TEXT, ("ModifiedDate", "datetime2(7)")]
HERE = NOW.replace(tzinfo=None)
HOUR = timedelta(hours=1)


def create_ties(server: MssqlSandbox, age: timedelta, count: int = 50, name: str = "t") -> None:
    """Rows that have one moment, so long before NOW."""
    rows = [(i, f"value {i}", HERE - age) for i in range(count)]
    server.create_table("dbo", name, TIMED, key=["id"], rows=rows)


def stored(project: Project, table: str = "t") -> dict[Any, Any]:
    return {row["id"]: row["v"] for row in project.rows(table)}


def test_a_second_sync_of_an_unchanged_database_sends_nothing(
    project: Project, server: MssqlSandbox
) -> None:
    """Whatever the plan of a table."""
    server.info.tracking = True
    rows = [(i, f"value {i}") for i in range(50)]
    server.create_table("dbo", "keyless", [IDENTITY, TEXT], rows=rows)
    server.create_table("dbo", "empty", [IDENTITY, TEXT], key=["id"])
    server.create_table(
        "dbo", "versioned", [IDENTITY, TEXT, ("rv", "rowversion")], key=["id"], rows=rows
    )
    create_plain(server, 50, "plain")
    create_plain(server, 50, "tracked")
    server.execute("ALTER TABLE dbo.tracked ENABLE CHANGE_TRACKING")
    create_ties(server, 2 * HOUR, name="timed")
    create_ties(server, timedelta(days=700), name="quiet")
    assert upserts(synced(project, server), 7) == 6 * 50
    second = synced(project, server)
    assert upserts(second, 7) == 0
    assert second.counts["Truncates"] == second.counts["Deletes"] == 0
    report = project.rows("sync_validation_tables")
    assert {row["rows_sent"] for row in report} == {0, 50}
    assert {row["deletes_sent"] for row in report} == {0}
    for table in ("keyless", "plain", "tracked", "versioned", "timed", "quiet"):
        assert ids(project, table) == list(range(50))


# Windows of an incremental read


@pytest.mark.parametrize("age", [2 * HOUR, 40 * HOUR])
@pytest.mark.parametrize("kind", ["a tie", "a later one", "lost and got", "changed"])
def test_a_window_that_changed_is_read(
    project: Project, server: MssqlSandbox, age: timedelta, kind: str
) -> None:
    """Also by a row that comes late, with a moment that was read already, or by one that changes
    twice under one moment."""
    create_ties(server, age)
    synced(project, server)
    server.set_clock(NOW + 40 * HOUR)
    if kind == "a tie":
        server.insert("dbo.t", [(99, "late", HERE - age)])
    elif kind == "a later one":
        server.insert("dbo.t", [(99, "late", HERE - age + timedelta(microseconds=1))])
    elif kind == "lost and got":
        server.execute("DELETE FROM dbo.t WHERE id = 7")
        server.insert("dbo.t", [(99, "late", HERE - age)])
    else:
        server.update("dbo.t", {"id": 7}, v="once more")
    assert upserts(synced(project, server)) >= 50
    expected = {7: "once more"} if kind == "changed" else {99: "late"}
    assert expected.items() <= stored(project).items()
    assert upserts(synced(project, server)) == 0


@pytest.mark.parametrize(
    ("kind", "age", "sent"),
    [
        ("datetime2(7)", timedelta(minutes=30), 50),  # a transaction may commit late
        ("datetime2(7)", 2 * HOUR, 0),
        ("datetime2(0)", 2 * HOUR, 50),  # two changes may have one moment
        ("date", 30 * HOUR, 50),
        *wide(("datetime", 2 * HOUR, 0), ("smalldatetime", 2 * HOUR, 50)),
        *wide(("date", 80 * HOUR, 0), ("datetimeoffset(7)", 2 * HOUR, 0)),
    ],
)
def test_rows_that_may_still_change_are_read_again(
    project: Project, server: MssqlSandbox, kind: str, age: timedelta, sent: int
) -> None:
    """As long as another change may have the moment of the last one."""
    create_timed(server, [(i, HERE - age) for i in range(50)], kind)
    synced(project, server)
    assert upserts(synced(project, server)) == sent


def test_a_table_in_motion_sends_its_look_back(project: Project, server: MssqlSandbox) -> None:
    """And nothing else."""
    moments = [(i, f"value {i}", HERE - timedelta(minutes=2 * i)) for i in range(90)]
    server.create_table("dbo", "t", TIMED, key=["id"], rows=moments)
    synced(project, server)
    assert upserts(synced(project, server)) == 31
    assert not [s for s in server.statements if "HASHBYTES" in s.sql]


def test_old_rows_are_read_from_their_greatest_moment(
    project: Project, server: MssqlSandbox
) -> None:
    """When a later one comes, those of the look-back before them are not sent again."""
    old = HERE - timedelta(days=300)
    rows = [(i, f"value {i}", old + timedelta(seconds=i)) for i in range(50)]
    server.create_table("dbo", "t", TIMED, key=["id"], rows=rows)
    synced(project, server)
    server.insert("dbo.t", [(99, "new", HERE)])
    assert upserts(synced(project, server)) == 2
    assert len(stored(project)) == 51


@pytest.mark.parametrize("seen", ["at once", "later"])
def test_an_open_transaction_takes_the_cursor_back(
    project: Project, server: MssqlSandbox, seen: str
) -> None:
    """One that began long before the greatest moment may still commit rows behind it."""
    create_ties(server, 40 * HOUR)
    if seen == "later":
        synced(project, server)
    server.set_clock(NOW - 50 * HOUR)
    with server.transaction() as transaction:
        transaction.insert("dbo.t", [(99, "late", HERE - 45 * HOUR)])
        server.set_clock(NOW)
        synced(project, server)
        transaction.commit()
    synced(project, server)
    assert stored(project)[99] == "late"


@pytest.mark.parametrize("mode", ["first", "incremental"])
def test_a_late_row_that_comes_during_the_read_arrives(
    project: Project, server: MssqlSandbox, mode: str
) -> None:
    """The fingerprint of the window is that of the rows from before the read."""
    create_ties(server, 2 * HOUR)
    if mode == "incremental":
        synced(project, server)
        server.update("dbo.t", {"id": 7}, v="changed")
    late = (99, "late", HERE - 2 * HOUR)
    server.faults.add(faults.call(lambda: server.insert("dbo.t", [late]), DATA, after_rows=1))
    synced(project, server)
    assert 99 not in stored(project)
    synced(project, server)
    assert stored(project)[99] == "late"
    assert upserts(synced(project, server)) == 0


@pytest.mark.parametrize("hours", [0, 3])
@pytest.mark.parametrize("dies", [False, True])
def test_a_row_that_changes_behind_a_first_load_arrives(
    project: Project, server: MssqlSandbox, hours: int, dies: bool
) -> None:
    """Also if rows are stamped by a clock that is eight hours behind the server's, and the load
    takes longer than the look-back, or more than one sync."""
    create_ties(server, 8 * HOUR)
    later = timedelta(hours=hours, seconds=2)

    def act() -> None:
        moment = HERE - 8 * HOUR + timedelta(seconds=1)
        server.update("dbo.t", {"id": 0}, v="behind", ModifiedDate=moment)
        server.update("dbo.t", {"id": 49}, v="ahead", ModifiedDate=moment + later)
        server.set_clock(NOW + later)

    server.faults.add(faults.call(act, DATA, skip=2))
    options = {"slice_rows": "10"}
    if dies:
        server.faults.add(faults.drop(DATA, skip=3, times=2))
        failed(project, server, retry_attempts="0", **options)
    synced(project, server, **options)
    assert (stored(project)[0], stored(project)[49]) == ("value 0", "ahead")
    synced(project, server, **options)
    assert stored(project)[0] == "behind"
    assert upserts(synced(project, server)) == 0


@pytest.mark.parametrize("missing", ["BINARY_CHECKSUM", "HASHBYTES"])
def test_a_server_that_does_not_know_a_function(
    project: Project, server: MssqlSandbox, missing: str
) -> None:
    """Without a checksum of rows it compares keys and moments; without hashes rows are read."""
    create_ties(server, 2 * HOUR)
    create_ties(server, 2 * HOUR, name="u")
    server.faults.add(faults.fail(195, missing, match=missing, times=99))
    synced(project, server)
    asked = [s for s in server.statements if missing in s.sql]
    assert len(asked) == (1 if missing == "BINARY_CHECKSUM" else 2)
    assert upserts(synced(project, server), 2) == (0 if missing == "BINARY_CHECKSUM" else 100)


def test_a_fault_of_the_comparison_costs_no_table(project: Project, server: MssqlSandbox) -> None:
    """The rows are read, as if nothing was known of them."""
    create_ties(server, 2 * HOUR)
    synced(project, server)
    server.faults.add(faults.drop("HASHBYTES", times=1))
    assert upserts(synced(project, server)) == 50
    assert upserts(synced(project, server)) == 0


def test_a_read_that_broke_off_is_not_taken_for_unchanged(
    project: Project, server: MssqlSandbox
) -> None:
    """Even if the source is then what it was before: the destination has rows of in between."""
    create_ties(server, 2 * HOUR)
    synced(project, server)
    server.execute("UPDATE dbo.t SET v = 'mistaken', ModifiedDate = '2026-11-20T11:00:00'")
    server.faults.add(faults.drop(DATA, after_rows=15))
    failed(project, server, retry_attempts="0")
    assert "mistaken" in stored(project).values()
    server.execute("DELETE FROM dbo.t")
    server.insert("dbo.t", [(i, f"value {i}", HERE - 2 * HOUR) for i in range(50)])
    state = project.state
    del state["tables"]["dbo.t"]["read"]  # as a version that cannot resume it reads it
    (project.path / "files" / "state.json").write_text(json.dumps(state))
    synced(project, server)
    assert stored(project) == {i: f"value {i}" for i in range(50)}


def test_a_full_load_without_a_new_cursor_tells_nothing_of_the_window(
    project: Project, server: MssqlSandbox
) -> None:
    """Even if the source is then what it was before: the destination has rows of in between."""
    create_ties(server, 2 * HOUR)
    synced(project, server)
    server.update("dbo.t", {"id": 7}, v="mistaken")
    server.faults.add(faults.fail(8115, match="SYSDATETIME", times=2))
    assert "there is no new cursor" in synced(project, server).output
    assert stored(project)[7] == "mistaken"
    server.update("dbo.t", {"id": 7}, v="value 7")
    synced(project, server)
    assert stored(project)[7] == "value 7"


# Full loads


def create_large(server: MssqlSandbox) -> None:
    create_plain(server, 1_500)


def test_the_changed_part_of_a_full_load_is_sent(project: Project, server: MssqlSandbox) -> None:
    """Without a truncate; new rows, too, if they come behind the others."""
    create_large(server)
    synced(project, server)
    server.update("dbo.t", {"id": 7}, v="changed")
    server.insert("dbo.t", [(5_000, "new")])
    result = synced(project, server)
    assert result.counts["Truncates"] == 0
    assert 2 <= upserts(result) < 150
    assert "rows are sent, the others did not change" in result.output
    assert len(stored(project)) == 1_501
    assert stored(project)[7] == "changed"
    assert upserts(synced(project, server)) == 0


@pytest.mark.parametrize("keyed", [True, False])
def test_a_full_load_without_a_row_replaces_the_table(
    project: Project, server: MssqlSandbox, keyed: bool
) -> None:
    """So that the row is marked as deleted, also where another came for it."""
    rows = [(i, f"value {i}") for i in range(1_500)]
    server.create_table("dbo", "t", [IDENTITY, TEXT], key=["id"] if keyed else (), rows=rows)
    synced(project, server)
    server.execute("DELETE FROM dbo.t WHERE id = 7")
    server.insert("dbo.t", [(5_000, "new")])
    assert synced(project, server).counts["Truncates"] == 1
    assert ids(project) == [i for i in range(1_500) if i != 7] + [5_000]
    assert upserts(synced(project, server)) == 0


def test_a_row_that_cannot_be_stored_is_reported_at_each_sync(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such a load is never taken for unchanged."""
    mappings = import_module("sqlserver.type_mapping").TYPE_MAPPINGS
    create_plain(server, 30)

    def convert(text: str) -> str:
        if text == "value 7":
            raise ValueError
        return text

    with monkeypatch.context() as patch:
        patch.setitem(mappings, "varchar", replace(mappings["varchar"], convert=convert))
        for _ in range(2):
            result = synced(project, server)
            assert "1 of dbo.t.v" in result.output
            assert upserts(result) == 30
    assert upserts(synced(project, server)) == 30
    assert upserts(synced(project, server)) == 0


def test_a_table_with_other_columns_is_sent(project: Project, server: MssqlSandbox) -> None:
    """The rows of the destination have no value of a new one."""
    create_plain(server, 30)
    synced(project, server)
    server.execute("ALTER TABLE dbo.t ADD w int")
    assert upserts(synced(project, server)) == 30
    assert upserts(synced(project, server)) == 0


def test_a_full_load_that_broke_off_is_not_taken_for_unchanged(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was too large to wait, and stored rows that the source does not have any more."""
    table_sync = import_module("sqlserver.table_sync")
    create_plain(server, 50)
    synced(project, server)
    server.execute("UPDATE dbo.t SET v = 'mistaken'")
    with monkeypatch.context() as patch:
        patch.setattr(table_sync, "LARGEST_WAITING", 500)
        server.faults.add(faults.drop(DATA, after_rows=35), faults.drop(DATA, after_rows=5))
        failed(project, server, retry_attempts="0")
    assert "mistaken" in stored(project).values()
    for i in range(50):
        server.update("dbo.t", {"id": i}, v=f"value {i}")
    state = project.state
    del state["tables"]["dbo.t"]["read"]
    (project.path / "files" / "state.json").write_text(json.dumps(state))
    synced(project, server)
    assert stored(project) == {i: f"value {i}" for i in range(50)}


def test_a_table_that_is_read_by_a_column_in_between(
    project: Project, server: MssqlSandbox
) -> None:
    """The digests of the full load before do not count any more."""
    create_ties(server, 2 * HOUR)
    none = {"incremental_column": "none"}
    synced(project, server, **none)
    synced(project, server)
    server.update("dbo.t", {"id": 7}, v="in between", ModifiedDate=HERE - HOUR)
    synced(project, server)
    server.update("dbo.t", {"id": 7}, v="value 7", ModifiedDate=HERE - 2 * HOUR)
    synced(project, server, **none)
    assert stored(project) == {i: f"value {i}" for i in range(50)}


# First loads and slices


def test_a_first_load_goes_by_the_key(project: Project, server: MssqlSandbox) -> None:
    """The server need not sort the table; the next sync reads what changed since its begin."""
    create_ties(server, 2 * HOUR)
    server.faults.add(faults.call(lambda: server.set_clock(NOW + HOUR), DATA, after_rows=10))
    synced(project, server, lookback_seconds="60")
    [statement] = reads(server, "t")
    assert statement.endswith("ORDER BY T.[id]")
    server.update("dbo.t", {"id": 3}, v="while it was read", ModifiedDate=HERE)
    synced(project, server, lookback_seconds="60")
    assert stored(project)[3] == "while it was read"


@pytest.mark.parametrize("way", ["first", "incremental", "full"])
def test_a_keyed_read_is_cut_into_slices(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Statements of so many rows, each behind the last row of the one before."""
    options = {"slice_rows": "100", "lookback_seconds": "0"}
    if way == "incremental":
        create_ties(server, 2 * HOUR, 5)
        server.execute("CREATE INDEX by_moment ON dbo.t (ModifiedDate)")
        synced(project, server, **options)
        server.insert("dbo.t", [(i, f"value {i}", HERE - HOUR) for i in range(5, 450)])
    elif way == "full":
        create_plain(server, 450)
        synced(project, server)
        monkeypatch.setattr(import_module("sqlserver.table_sync"), "SMALL", 10)
    else:
        create_plain(server, 450)
    before = len(reads(server, "t"))
    synced(project, server, **options)
    statements = reads(server, "t")[before:]
    assert len(statements) == 5
    assert all(sql.startswith("SELECT TOP (100) ") for sql in statements)
    assert ids(project) == list(range(450))


def test_a_read_that_has_no_order_of_an_index_is_one_statement(
    project: Project, server: MssqlSandbox
) -> None:
    """The server would sort the table for each slice; the log names the index that helps."""
    server.create_table("dbo", "t", [IDENTITY, TEXT], rows=[(i, "v") for i in range(300)])
    create_ties(server, 2 * HOUR, 5, name="timed")
    first = synced(project, server, slice_rows="100")
    assert "CREATE UNIQUE INDEX ... ON [dbo].[t]" in first.output
    server.insert("dbo.timed", [(i, "v", HERE - HOUR) for i in range(5, 300)])
    second = synced(project, server, slice_rows="100")
    assert "CREATE INDEX ... ON [dbo].[timed] ([ModifiedDate])" in second.output
    assert not [sql for sql in reads(server, "t") + reads(server, "timed") if "TOP" in sql]
    assert ids(project, "timed") == list(range(300))


def test_a_slice_ends_after_ten_minutes(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next statement resumes behind the last row."""
    monkeypatch.setattr(import_module("sqlserver.table_sync"), "LONGEST_SLICE", 0.0)
    create_plain(server, 120)
    synced(project, server, slice_rows="100")
    assert len(reads(server, "t")) == 13
    assert ids(project) == list(range(120))


def test_a_first_load_that_dies_between_slices_resumes(
    project: Project, server: MssqlSandbox
) -> None:
    """Nothing is read twice but what came after the last checkpoint."""
    create_ties(server, 2 * HOUR, 450)
    server.faults.add(faults.drop(r"TOP \(100\).* > CAST", skip=2, times=9))
    failed(project, server, slice_rows="100", retry_attempts="0")
    server.faults.clear()
    result = synced(project, server, slice_rows="100")
    assert result.counts["Truncates"] == 0
    assert upserts(result) == 150
    assert len(stored(project)) == 450
    assert upserts(synced(project, server)) == 0


# Checkpoints


def test_small_tables_share_a_checkpoint(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One for so many rows, whatever tables they are of; each has the state of these tables."""
    for number in range(12):
        create_plain(server, 5, f"t{number}")
    options = {"max_tables": "0"}
    first = synced(project, server, **options)
    assert first.counts["Checkpoints"] == 12 * 5 // 20 + 2  # one tells that the sync has begun
    assert len(project.state["tables"]) == 12
    assert synced(project, server, **options).counts["Checkpoints"] == 2


def test_killed_within_a_shared_checkpoint(project: Project, server: MssqlSandbox) -> None:
    """The tables before it are complete, the others are read by the next sync."""
    names = [f"t{letter}" for letter in "abcdefghijkl"]
    for name in names:
        create_plain(server, 5, name)
    running: list[Any] = []

    def kill() -> None:
        running[0].kill()
        running[0].wait()

    server.faults.add(faults.call(kill, r"^SELECT T\..*\[tj\]", after_rows=2))
    running.append(project.start(configuration(server, max_tables="0")))
    running[0].communicate(timeout=60)
    assert running[0].returncode == -9
    synced(project, server, max_tables="0")
    for name in names:
        assert ids(project, name) == list(range(5))
    assert upserts(synced(project, server, max_tables="0"), 12) == 0


@pytest.mark.parametrize(
    ("kind", "place", "number"),
    [
        ("full", "in-checkpoint", 2),
        ("full", "after-checkpoint", 2),
        ("incremental", "in-checkpoint", 2),
    ],
)
def test_a_sync_that_was_killed_may_have_stored_more_than_the_state_tells(
    project: Project, server: MssqlSandbox, kind: str, place: str, number: int
) -> None:
    """Even if the source is then what the state tells: all is sent again, once."""
    count = 50 if kind == "full" else 15
    if kind == "full":
        create_plain(server, count)
    else:
        create_ties(server, 2 * HOUR, count)
    synced(project, server)
    changes: Any = {"ModifiedDate": HERE - HOUR} if kind == "incremental" else {}
    server.update("dbo.t", {"id": 7}, v="mistaken", **changes)
    process = Process(place, number)
    with process.running(), pytest.raises(Crash):
        project.sync(configuration(server))
    assert stored(project)[7] == "mistaken"
    changes = {"ModifiedDate": HERE - 2 * HOUR} if kind == "incremental" else {}
    server.update("dbo.t", {"id": 7}, v="value 7", **changes)
    assert "The last sync was killed" in synced(project, server).output
    assert stored(project) == {i: f"value {i}" for i in range(count)}
    assert "was killed" not in (third := synced(project, server)).output
    assert upserts(third) == 0


# The log of many tables


def test_the_log_of_many_tables_has_one_line_in_ten_seconds(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It tells tables and rows done, what is read and how long it takes, not each table."""
    progress = import_module("sqlserver.read_progress")
    monkeypatch.setattr(progress, "MANY_TABLES", 3)
    monkeypatch.setattr(load("mssql_ehi"), "MANY_TABLES", 3)
    monkeypatch.setattr(import_module("sqlserver.validation"), "MANY_TABLES", 3)
    for letter in "abcd":
        create_plain(server, 30, f"t{letter}")
    seconds = iter(range(0, 100_000, 3))
    clock = SimpleNamespace(monotonic=lambda: next(seconds))
    monkeypatch.setattr("shared.report.time", clock)
    lines = [line for line in synced(project, server).output.splitlines() if " INFO " in line]
    told = [line for line in lines if "tables done" in line]
    assert any("1 of 4 tables done" in line for line in told)
    left = r"reading dbo\.t[a-d]: \d+ rows read, \d+ rows/s, \d+ % of \d+, \d+ s left"
    assert any(re.search(left, line) for line in told)
    assert not [line for line in lines if re.search(r"connector dbo\.t[a-d]:", line)]
    assert "The slowest 20 of 4 tables" in "\n".join(lines)
