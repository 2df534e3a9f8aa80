"""mssql_ehi: rows that the source marks as deleted."""

import re
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest

from tests.connectors.mssql import NOW, Columns, configuration, ids, synced, upserts
from tests.sandbox.fivetran import Project
from tests.sandbox.mssql import MssqlSandbox
from tests.soak.crashes import Crash, Process

pytestmark = pytest.mark.usefixtures("slept", "small_steps")
SETTING = {"deleted_column": "_IsDeleted, IsDeleted"}
HERE = NOW.replace(tzinfo=None)


def create(
    server: MssqlSandbox, way: str, kind: str = "bit", values: tuple[Any, Any] = (0, 1)
) -> None:
    """A table of 40 rows, every tenth of which is marked, that is read in this way."""
    columns: Columns = [("id", "int", False), ("v", "varchar(40)"), ("isdeleted", kind)]
    rows: list[tuple[Any, ...]] = [(i, f"value {i}", values[i % 10 == 0]) for i in range(40)]
    if way == "incremental":
        columns.append(("ModifiedDate", "datetime2(7)"))
        rows = [(*row, HERE - timedelta(hours=5)) for row in rows]
    server.create_table("dbo", "t", columns, key=["id"], rows=rows)
    if way == "tracked":
        server.info.tracking = True
        server.execute("ALTER TABLE dbo.t ENABLE CHANGE_TRACKING")


LIVE = [i for i in range(40) if i % 10]


@pytest.mark.parametrize("way", ["incremental", "tracked", "replacement", "full"])
def test_marked_rows_are_deleted(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Whatever the way in which the table is read; a row whose mark goes comes back."""
    create(server, way)
    synced(project, server, **SETTING)
    assert ids(project) == LIVE
    if way == "full":
        monkeypatch.setattr(import_module("sqlserver.table_sync"), "SMALL", 10)
    later: Any = {"ModifiedDate": HERE - timedelta(hours=4)} if way == "incremental" else {}
    server.update("dbo.t", {"id": 7}, isdeleted=1, **later)
    server.update("dbo.t", {"id": 10}, isdeleted=0, **later)
    result = synced(project, server, **SETTING)
    assert ids(project) == sorted({*LIVE, 10} - {7})
    assert {row["id"] for row in project.rows("t", deleted=True)} == {7}
    sent = {row["deletes_sent"] for row in project.rows("sync_validation_tables")}
    assert max(sent) == result.counts["Deletes"]
    again = synced(project, server, **SETTING)
    if way != "full":
        assert (upserts(again), again.counts["Deletes"]) == (0, 0)


def test_a_table_that_proves_too_large_to_be_replaced(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows that were marked by then are deleted one by one."""
    create(server, "replacement")
    synced(project, server, **SETTING)
    server.update("dbo.t", {"id": 7}, isdeleted=1)
    server.update("dbo.t", {"id": 37}, isdeleted=1)
    monkeypatch.setattr(import_module("sqlserver.table_sync"), "LARGEST_WAITING", 500)
    synced(project, server, **SETTING)
    assert ids(project) == [i for i in LIVE if i not in (7, 37)]


def test_a_marked_row_that_a_killed_sync_has_stored(
    project: Project, server: MssqlSandbox
) -> None:
    """The first load that resumes deletes it."""
    create(server, "replacement")
    process = Process("in-checkpoint", 3)
    with process.running(), pytest.raises(Crash):
        project.sync(configuration(server, **SETTING))
    stored = ids(project)
    assert stored
    server.drop_connections()
    server.update("dbo.t", {"id": stored[-1]}, isdeleted=1)
    synced(project, server, **SETTING)
    assert ids(project) == [i for i in LIVE if i != stored[-1]]


def test_a_marked_row_without_a_usable_key_is_named_by_its_place(
    project: Project, server: MssqlSandbox
) -> None:
    """Counted among all rows, as any other."""
    columns: Columns = [("id", "int"), ("v", "varchar(40)"), ("IsDeleted", "bit")]
    rows = [(i, "v", 0) for i in range(30)]
    server.create_table("dbo", "t", columns, rows=[*rows[:9], (None, "v", 1), *rows[9:]])
    output = synced(project, server, keys="t: id", **SETTING).output
    assert re.search(r"row 1\b", output)
    assert ids(project) == list(range(30))


@pytest.mark.parametrize(
    ("kind", "values"),
    [("int", (0, 3)), ("varchar(5)", ("n", "Yes")), ("nvarchar(5)", (None, " TRUE"))],
)
def test_what_counts_as_true(
    project: Project, server: MssqlSandbox, kind: str, values: tuple[Any, Any]
) -> None:
    """Numbers other than 0, and words of it; null is false."""
    create(server, "replacement", kind, values)
    synced(project, server, **SETTING)
    assert ids(project) == LIVE


def test_the_first_column_that_a_table_has_counts(project: Project, server: MssqlSandbox) -> None:
    """The others are data."""
    columns: Columns = [("id", "int", False), ("IsDeleted", "bit"), ("_IsDeleted", "bit")]
    rows = [(1, 1, 0), (2, 0, 1)]
    server.create_table("dbo", "t", columns, key=["id"], rows=rows)
    synced(project, server, **SETTING)
    assert ids(project) == [1]


def test_a_table_without_a_key_keeps_its_rows(project: Project, server: MssqlSandbox) -> None:
    """A warning names it."""
    server.create_table("dbo", "t", [("id", "int"), ("IsDeleted", "bit")], rows=[(1, 1), (2, 0)])
    output = synced(project, server, **SETTING).output
    assert "deleted_column is not used of tables without a key, whose rows stay: dbo.t" in output
    assert ids(project) == [1, 2]


def test_the_setting_of_a_later_sync(project: Project, server: MssqlSandbox) -> None:
    """A full load that is otherwise unchanged takes the marked rows away."""
    create(server, "replacement")
    synced(project, server)
    assert ids(project) == list(range(40))
    synced(project, server, **SETTING)
    assert ids(project) == LIVE
