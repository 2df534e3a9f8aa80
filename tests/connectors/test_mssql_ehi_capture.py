"""mssql_ehi by Change Data Capture."""

from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest

from tests.connectors.mssql import (
    DATA,
    NOW,
    Columns,
    assert_equal,
    change,
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
from tests.sandbox.fivetran import Project, load
from tests.sandbox.mssql import MssqlSandbox, faults
from tests.soak.crashes import Crash, Process
from tests.width import wide

pytestmark = pytest.mark.usefixtures("slept")
READS = r"fn_cdc_get_all_changes.* LEFT JOIN"


def create_captured(server: MssqlSandbox, count: int = 30, **options: Any) -> None:
    create_plain(server, count)
    server.enable_cdc("dbo.t", **options)


def plan_of(project: Project) -> tuple[str, str]:
    """How the last sync has read the table."""
    rows = project.rows("sync_validation_tables")
    last = max(rows, key=lambda row: row["sync_timestamp"])
    return last["plan"], last["mode"]


def test_all_kinds_of_changes_arrive(project: Project, server: MssqlSandbox) -> None:
    """Inserts, updates, deletes and changed keys, and nothing else."""
    create_captured(server)
    assert upserts(synced(project, server)) == 30
    change(server)
    server.delete("dbo.t", {"id": 4})
    server.insert("dbo.t", [(4, "back")])
    result = synced(project, server)
    assert_equal(project, server)
    assert plan_of(project) == ("changes by Change Data Capture", "changes")
    assert upserts(result) == 4
    assert result.counts["Truncates"] == 0
    server.statements.clear()
    result = synced(project, server)
    assert (upserts(result), result.counts["Deletes"]) == (0, 0)
    assert not [s for s in server.statements if "LEFT JOIN [dbo]" in s.sql]


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("snapshot", [True, False])
def test_a_writer_during_each_read(project: Project, server: MssqlSandbox, snapshot: bool) -> None:
    """In a first load and in a read of changes: what it changes arrives with the next sync."""
    server.info.snapshot = snapshot
    create_captured(server, 60)
    server.faults.add(faults.call(lambda: change(server), DATA, after_rows=30))
    synced(project, server)
    server.update("dbo.t", {}, v="all")
    server.faults.add(faults.call(lambda: change(server, 20), READS, after_rows=30))
    synced(project, server)
    synced(project, server)
    assert_equal(project, server)


def test_an_agent_that_is_behind(project: Project, server: MssqlSandbox) -> None:
    """What it has not captured yet arrives later; a warning comes after an hour."""
    create_captured(server)
    server.stop_capture()
    synced(project, server)
    change(server)
    server.set_clock(NOW + timedelta(minutes=30))
    assert "minutes behind" not in synced(project, server).output
    server.set_clock(NOW + timedelta(hours=2))
    result = synced(project, server)
    assert "Change Data Capture is 120 minutes behind" in result.output
    server.capture()
    synced(project, server)
    assert_equal(project, server)


def test_an_instance_that_the_agent_has_not_come_to(
    project: Project, server: MssqlSandbox
) -> None:
    """The table is loaded once, and its changes are read when they are captured."""
    create_plain(server)
    server.enable_cdc("dbo.t")
    server.stop_capture()
    create_plain(server, 5, "u")
    server.enable_cdc("dbo.u")
    synced(project, server)
    server.update("dbo.u", {"id": 3}, v="changed")
    assert synced(project, server).counts["Truncates"] == 0
    server.capture()
    result = synced(project, server)
    assert (upserts(result, 2), result.counts["Truncates"]) == (1, 0)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("large", [True, *wide(False)])
@pytest.mark.parametrize("cause", ["retention", "made again", "while it is read"])
def test_what_is_forgotten_leads_to_a_load_of_everything(
    project: Project,
    server: MssqlSandbox,
    monkeypatch: pytest.MonkeyPatch,
    cause: str,
    large: bool,
) -> None:
    """Never to a silent gap: rows that were deleted meanwhile are deleted here, too."""
    if large:
        monkeypatch.setattr(import_module("sqlserver.table_sync"), "SMALL", 10)
    create_captured(server, 60)
    server.info.snapshot = False
    synced(project, server)
    change(server)
    if cause == "retention":
        server.cdc_cleanup("dbo_t")
    elif cause == "made again":
        server.disable_cdc("dbo.t", "dbo_t")
        server.delete("dbo.t", {"id": 40})
        server.enable_cdc("dbo.t")
    else:
        server.faults.add(faults.call(lambda: server.cdc_cleanup("dbo_t"), READS, after_rows=1))
    result = synced(project, server)
    assert result.counts["Truncates"] == 1
    assert "the table is reloaded" in result.output
    assert_equal(project, server)
    change(server, 20)
    assert synced(project, server).counts["Truncates"] == 0
    assert_equal(project, server)


def test_the_newest_instance_that_knows_all_is_read(
    project: Project, server: MssqlSandbox
) -> None:
    """A second one takes over when it has been there since the last sync."""
    create_captured(server)
    synced(project, server)
    change(server)
    server.enable_cdc("dbo.t", "second")
    change(server, 10)
    synced(project, server)
    assert_equal(project, server)
    [first] = [s.sql for s in server.statements if "LEFT JOIN [dbo]" in s.sql]
    assert "fn_cdc_get_all_changes_dbo_t]" in first
    server.disable_cdc("dbo.t", "dbo_t")
    change(server, 20)
    assert synced(project, server).counts["Truncates"] == 0
    assert_equal(project, server)


@pytest.mark.parametrize("cause", ["role", "views"])
def test_an_instance_that_cannot_be_used(
    project: Project, server: MssqlSandbox, cause: str
) -> None:
    """The table is read in the next way; a warning says what to do."""
    create_timed(server, moments(30))
    server.enable_cdc("dbo.t", role="cdc_reader" if cause == "role" else None)
    if cause == "views":
        server.deny("cdc.change_tables")
    output = synced(project, server).output
    assert plan_of(project)[0] == "incremental by ModifiedDate"
    expected = {
        "role": "dbo.t has Change Data Capture (dbo_t), which mssql_user cannot read",
        "views": "The sync goes on without Change Data Capture",
    }
    assert expected[cause] in output
    if cause == "role":
        server.info.roles.add("cdc_reader")
        synced(project, server)
        assert plan_of(project)[0] == "changes by Change Data Capture"


@pytest.mark.parametrize("large", [True, False])
def test_switched_between_the_ways_and_back(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """The destination equals the source after each: no delete is missed at the change."""
    if large:
        monkeypatch.setattr(import_module("sqlserver.table_sync"), "SMALL", 10)
    create_captured(server, 60)
    synced(project, server)
    server.info.tracking = True
    switches: list[Callable[[], object]] = [
        lambda: server.execute("ALTER TABLE dbo.t ENABLE CHANGE_TRACKING"),
        lambda: server.execute("ALTER TABLE dbo.t DISABLE CHANGE_TRACKING"),
        lambda: server.disable_cdc("dbo.t", "dbo_t"),
        lambda: server.enable_cdc("dbo.t"),
    ]
    for number, switch in enumerate(switches):
        change(server, 10 * number)
        switch()
        server.delete("dbo.t", {"id": 10 * number + 5})
        synced(project, server)
        if not (large and number == 3):  # a large table without either tells no deletes
            assert_equal(project, server)
        change(server, 10 * number + 5)
        synced(project, server)
    assert plan_of(project)[0] == "changes by Change Data Capture"
    assert_equal(project, server)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("mode", ["first", "changes"])
def test_a_read_that_dies_resumes(project: Project, server: MssqlSandbox, mode: str) -> None:
    """By the key, within the same range; a writer is at work between the syncs."""
    create_captured(server, 100)
    if mode == "changes":
        synced(project, server)
        server.update("dbo.t", {}, v="all new")
    syncs = 0
    while True:
        match = READS if mode == "changes" else DATA
        server.faults.add(faults.drop(match, after_rows=15))
        result = project.sync(configuration(server, retry_attempts="0"))
        server.faults.clear()
        if result.code == 0:
            break
        server.update("dbo.t", {"id": syncs}, v="changed between")
        server.delete("dbo.t", {"id": 50 + syncs})
        syncs += 1
        assert syncs < 12, result.output
    assert syncs >= 2
    synced(project, server)
    assert_equal(project, server)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("mode", ["first", "changes"])
def test_an_instance_that_is_made_again_while_a_read_is_interrupted(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """What changed in between is told by none: the table is loaded anew."""
    monkeypatch.setattr(import_module("sqlserver.table_sync"), "SMALL", 10)
    create_captured(server, 100)
    if mode == "changes":
        synced(project, server)
        server.update("dbo.t", {}, v="all")
    where = READS if mode == "changes" else DATA
    server.faults.add(faults.drop(where, after_rows=55), faults.drop(where, after_rows=5))
    failed(project, server, retry_attempts="0")
    server.disable_cdc("dbo.t", "dbo_t")
    change(server)
    server.enable_cdc("dbo.t")
    synced(project, server)
    synced(project, server)
    assert_equal(project, server)


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("place", ["before-checkpoint", "in-checkpoint", "after-checkpoint"])
@pytest.mark.parametrize("number", range(1, 5))
def test_killed_at_any_checkpoint(
    project: Project, server: MssqlSandbox, place: str, number: int
) -> None:
    """The next sync makes up for it, with what changed meanwhile."""
    create_captured(server, 60)
    synced(project, server)
    change(server)
    server.update("dbo.t", {}, v="all")
    process = Process(place, number)
    with process.running():
        try:
            project.sync(configuration(server))
        except Crash:
            server.drop_connections()
    change(server, 20)
    synced(project, server)  # it may resume, and come to the end of the range of that read
    synced(project, server)
    assert_equal(project, server)


def test_the_state_is_small(project: Project, server: MssqlSandbox) -> None:
    """It has the LSN, and no key of a row."""
    create_captured(server)
    synced(project, server)
    assert len(str(project.state["tables"]["dbo.t"])) <= 150
    assert int(table_state(project).cursor.lsn, 16) > 0


def test_a_read_that_is_refused_reads_all_rows(project: Project, server: MssqlSandbox) -> None:
    """As an incremental one is; the next sync reads changes again, from before that."""
    create_captured(server)
    synced(project, server)
    change(server)
    server.faults.add(faults.fail(8115, match=READS))
    assert "all rows are read" in synced(project, server).output
    assert_equal(project, server)
    change(server, 10)
    synced(project, server)
    assert_equal(project, server)


def test_a_lost_right_fails_the_table(project: Project, server: MssqlSandbox) -> None:
    """During the sync; the next one reads the table in another way."""
    create_captured(server)
    synced(project, server)
    change(server)
    server.faults.add(faults.fail(229, "SELECT", "t", "EHR", "dbo", match=READS))
    failed(project, server)
    synced(project, server)
    assert_equal(project, server)


def test_a_column_that_only_a_newer_instance_captures(
    project: Project, server: MssqlSandbox
) -> None:
    """Both instances are read until the newer one has been there for a whole sync."""
    create_captured(server)
    server.execute("ALTER TABLE dbo.t ADD w int")
    synced(project, server)
    server.enable_cdc("dbo.t", "second")
    server.update("dbo.t", {"id": 3}, w=7)
    server.update("dbo.t", {"id": 4}, v="changed")
    assert upserts(synced(project, server)) == 2
    assert {row["id"]: row["w"] for row in project.rows("t")}[3] == 7


def test_a_restored_database_is_loaded_anew(project: Project, server: MssqlSandbox) -> None:
    """Its LSNs are behind that of the last sync, and go on from there."""
    create_captured(server)
    synced(project, server)
    server.update("dbo.t", {"id": 3}, v="changed")
    state = project.state
    state["tables"]["dbo.t"]["l"] = "0x00ffffff000000000001"
    result = project.sync(configuration(server), state)
    assert result.code == 0, result.output
    assert "as after a restored backup: the table is reloaded" in result.output
    assert_equal(project, server)


def test_a_restored_database_that_has_passed_the_last_sync(
    project: Project, server: MssqlSandbox
) -> None:
    """Its LSNs are those of other changes."""
    create_captured(server)
    synced(project, server)
    state = project.state
    entry = state["tables"]["dbo.t"]
    entry["l"] = f"0x{int(entry['l'], 16) + 1:020x}"
    server.update("dbo.t", {"id": 3}, v="changed")
    result = project.sync(configuration(server), state)
    assert result.code == 0, result.output
    assert "as after a restored backup: the table is reloaded" in result.output
    assert_equal(project, server)


def test_a_changed_key_of_a_table_without_a_primary_key(
    project: Project, server: MssqlSandbox
) -> None:
    """The instance has no index that tells rows apart, so that it logs an update."""
    columns: Columns = [("id", "int", False), ("v", "varchar(40)")]
    rows = [(i, "v") for i in range(9)]
    server.create_table("dbo", "t", columns, unique=[["id"]], rows=rows)
    server.enable_cdc("dbo.t")
    synced(project, server)
    server.update("dbo.t", {"id": 3}, id=33)
    assert synced(project, server).counts["Truncates"] == 0
    assert_equal(project, server)


def test_composite_keys_and_odd_names(project: Project, server: MssqlSandbox) -> None:
    """Names with brackets and per cent signs are quoted."""
    columns: Columns = [("a]b", "varchar(10)", False), ("50%", "int", False), ("v", "varchar(9)")]
    rows = [(f"k{i // 3}", i, "v") for i in range(20)]
    server.create_table("dbo", "t", columns, key=["a]b", "50%"], rows=rows)
    server.enable_cdc("dbo.t", "odd ] 5%")
    synced(project, server)
    server.delete("dbo.t", {"50%": 7})
    server.update("dbo.t", {"50%": 8}, v="changed")
    result = synced(project, server)
    assert (upserts(result), result.counts["Deletes"]) == (1, 1)
    assert len(project.rows("t")) == 19
    assert ids(project, column="50" if "50" in project.rows("t")[0] else "_50_")


@pytest.mark.parametrize("new", ["AB", "ab "])
@pytest.mark.parametrize("way", ["update", "insert"])
def test_a_key_that_is_spelled_in_another_way(
    project: Project, server: MssqlSandbox, way: str, new: str
) -> None:
    """The server takes both for equal; the destination does not, so the old one goes."""
    columns: Columns = [("part", "int", False), ("id", "varchar(10)", False), ("v", "varchar(9)")]
    rows = [(1, "ab", "v"), (1, "cd", "v"), (2, "ab", "v")]
    server.create_table("dbo", "t", columns, key=["part", "id"], rows=rows)
    server.enable_cdc("dbo.t")
    synced(project, server)
    if way == "update":
        server.update("dbo.t", {"part": 1, "id": "ab"}, id=new, v="new")
    else:
        server.delete("dbo.t", {"part": 1, "id": "ab"})
        server.insert("dbo.t", [(1, new, "new")])
    synced(project, server)
    stored = sorted((row["part"], row["id"], row["v"]) for row in project.rows("t"))
    assert stored == sorted([(1, new, "new"), (1, "cd", "v"), (2, "ab", "v")])


@pytest.mark.parametrize("after", [1, *wide(3)])
def test_a_read_that_resumes_between_two_spellings_of_a_key(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """Finds the other one, too, which the server takes for equal to that of the position."""
    monkeypatch.setattr(load("mssql_ehi"), "BATCH_SIZE", 1)
    columns: Columns = [("part", "int", False), ("id", "varchar(10)", False)]
    rows = [(1, "ab"), (2, "XY")]
    server.create_table("dbo", "t", columns, key=["part", "id"], rows=rows)
    server.enable_cdc("dbo.t")
    synced(project, server)
    server.update("dbo.t", {"part": 1, "id": "ab"}, id="AB")
    server.update("dbo.t", {"part": 2, "id": "XY"}, id="xy")
    server.faults.add(faults.drop(match=READS, after_rows=after))
    synced(project, server)
    assert sorted(row["id"] for row in project.rows("t")) == ["AB", "xy"]


def test_a_declared_key_may_have_several_spellings_at_once(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No index of the server keeps them apart, and none of the rows takes another's place."""
    monkeypatch.setattr(load("mssql_ehi"), "BATCH_SIZE", 1)
    columns: Columns = [("id", "varchar(10)", False), ("v", "varchar(9)")]
    server.create_table("dbo", "t", columns, rows=[("ab", "old"), ("AB", "old"), ("x", "old")])
    server.enable_cdc("dbo.t")
    synced(project, server, keys="t: id")
    server.update("dbo.t", {"id": "x"}, v="new")
    server.execute("UPDATE dbo.t SET v = 'new' WHERE id = 'ab'")
    synced(project, server, keys="t: id")
    stored = sorted((row["id"], row["v"]) for row in project.rows("t"))
    assert stored == [("AB", "new"), ("ab", "new"), ("x", "new")]
