"""mssql_ehi: views, keys that the settings declare, and tables of periods."""

from datetime import timedelta
from typing import Any

import pytest

from tests.connectors.mssql import (
    NOW,
    Columns,
    create_plain,
    failed,
    ids,
    reads,
    synced,
    table_state,
    upserts,
)
from tests.sandbox.fivetran import Project
from tests.sandbox.mssql import MssqlSandbox, faults

pytestmark = pytest.mark.usefixtures("slept", "small_steps")
HERE = NOW.replace(tzinfo=None)
VIEWS = {"views": "dbo.v*", "keys": "dbo.vt: ID"}


def create_view(server: MssqlSandbox, count: int = 60) -> None:
    """A view of a table with a column of changes."""
    columns: Columns = [("id", "int", False), ("v", "varchar(40)"), ("ModifiedDate", "datetime")]
    rows = [(i, f"value {i}", HERE - timedelta(hours=5)) for i in range(count)]
    server.create_table("dbo", "t", columns, key=["id"], rows=rows)
    server.create_view("dbo", "vt", "SELECT id, v, ModifiedDate FROM dbo.t")


def test_a_view_with_a_key_is_read_like_a_table(project: Project, server: MssqlSandbox) -> None:
    """By its column of changes, resumed behind the last row, under its key."""
    create_view(server)
    server.faults.add(
        faults.drop(r"^SELECT T\..*\[vt\]", after_rows=35),
        faults.drop(r"^SELECT T\..*\[vt\]", after_rows=5),
    )
    failed(project, server, **VIEWS, tables="t", exclude_tables="t", retry_attempts="0")
    first = synced(project, server, **VIEWS, tables="t", exclude_tables="t", slice_rows="10")
    assert (upserts(first), first.counts["Truncates"]) == (20, 0)
    assert ids(project, "vt") == list(range(60))
    assert not [sql for sql in reads(server, "vt") if "TOP" in sql]
    server.update("dbo.t", {"id": 7}, v="changed", ModifiedDate=HERE - timedelta(hours=4))
    second = synced(project, server, **VIEWS, tables="t", exclude_tables="t")
    assert upserts(second) == 60
    assert upserts(synced(project, server, **VIEWS, tables="t", exclude_tables="t")) == 0
    assert table_state(project, "dbo.vt").key == ["id"]


def test_a_view_without_a_key_is_replaced(project: Project, server: MssqlSandbox) -> None:
    """In one statement; its deleted rows are deleted."""
    create_view(server)
    synced(project, server, views="dbo.vt")
    assert ids(project, "vt") == ids(project) == list(range(60))
    server.delete("dbo.t", {"id": 7})
    assert synced(project, server, views="dbo.vt").counts["Truncates"] == 1
    assert ids(project, "vt") == [i for i in range(60) if i != 7]


def test_views_are_read_only_if_they_are_named(project: Project, server: MssqlSandbox) -> None:
    """And not if `exclude_tables` names them."""
    create_view(server)
    server.create_view("dbo", "vu", "SELECT id FROM dbo.t")
    synced(project, server)
    assert "dbo.vt" not in project.state["tables"]
    synced(project, server, views="v*", exclude_tables="vu")
    assert {"dbo.t", "dbo.vt"} == project.state["tables"].keys()
    output = synced(project, server, views="v*", max_tables="2").output
    assert "max_tables is 2, but 3 tables match" in output


def test_a_login_that_may_only_read_views(project: Project, server: MssqlSandbox) -> None:
    """It is served."""
    create_view(server)
    server.deny("dbo.t", hidden=True)
    synced(project, server, **VIEWS)
    assert ids(project, "vt") == list(range(60))


@pytest.mark.parametrize("mode", ["first", "later"])
@pytest.mark.parametrize("of", ["view", "table"])
def test_a_declared_key_that_is_not_unique(
    project: Project, server: MssqlSandbox, of: str, mode: str
) -> None:
    """The table fails with the count, and what the destination has stays."""
    columns: Columns = [("id", "int"), ("v", "varchar(40)")]
    rows = [(i, f"value {i}") for i in range(50)]
    server.create_table("dbo", "t", columns, rows=rows)
    server.create_view("dbo", "vt", "SELECT id, v FROM dbo.t")
    name = "vt" if of == "view" else "t"
    options = {"views": "dbo.vt", "keys": f"dbo.{name}: id"}
    if mode == "later":
        synced(project, server, **options)
        assert ids(project, name) == list(range(50))
    server.insert("dbo.t", [(7, "another"), (8, "another")])
    output = failed(project, server, **options).output
    assert f"dbo.{name}: its declared key (id) is not unique: of 52 rows, 2 have the key" in output
    if mode == "later":
        stored = {row["id"]: row["v"] for row in project.rows(name)}
        assert stored == {i: f"value {i}" for i in range(50)}
    server.execute("DELETE FROM dbo.t WHERE v = 'another'")
    synced(project, server, **options)
    assert ids(project, name) == list(range(50))


def test_a_rowversion_of_a_view_is_not_used(project: Project, server: MssqlSandbox) -> None:
    """It may be that of another database, whose open transactions nobody tells here."""
    columns: Columns = [("id", "int", False), ("rv", "rowversion")]
    server.create_table("dbo", "t", columns, key=["id"], rows=[(i,) for i in range(9)])
    server.create_view("dbo", "vt", "SELECT id, rv FROM dbo.t")
    synced(project, server, **VIEWS)
    plans = {row["table_name"]: row["plan"] for row in project.rows("sync_validation_tables")}
    assert plans == {"dbo.t": "incremental by rv", "dbo.vt": "in full, in key order"}


def test_a_key_counts_for_each_table_of_its_name(project: Project, server: MssqlSandbox) -> None:
    """Of several schemas."""
    server.create_schema("more")
    for schema in ("dbo", "more"):
        server.create_table(schema, "t", [("id", "int")], rows=[(1,), (2,)])
    synced(project, server, keys="t: id")
    assert table_state(project, "dbo.t").key == table_state(project, "more.t").key == ["id"]


def test_declared_keys_that_python_hashes_alike(project: Project, server: MssqlSandbox) -> None:
    """-1 and -2 stand for rows that are unknown or deleted in many warehouses."""
    server.create_table("dbo", "t", [("id", "int"), ("v", "int")], rows=[(-1, 0), (-2, 0)])
    synced(project, server, keys="t: id")
    assert ids(project) == [-2, -1]


def test_a_declared_key_of_several_columns(project: Project, server: MssqlSandbox) -> None:
    """Rows whose key has a null are skipped, and reported."""
    columns: Columns = [("id", "int"), ("line", "varchar(9)"), ("v", "varchar(40)")]
    rows: list[Any] = [(i // 3, f"line {i % 3}", "v") for i in range(60)]
    server.create_table("dbo", "t", columns, rows=[*rows, (99, None, "v")])
    output = synced(project, server, keys="[dbo].[t]: ID, Line").output
    assert "1 of dbo.t" in output
    assert len(project.rows("t")) == 60
    server.update("dbo.t", {"id": 3}, v="changed")
    synced(project, server, keys="t: id, line")
    assert len(project.rows("t")) == 60


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"views": "dbo.w*"}, "views: 'dbo.w*' matches no view that mssql_user may see"),
        ({"keys": "dbo.u: id"}, "keys: 'dbo.u' is no table or view that is synced"),
        ({"keys": "dbo.t: id"}, "keys: dbo.t has a key of its own"),
        ({"views": "vt", "keys": "vt: nothing"}, "keys: dbo.vt has no column nothing"),
        ({"keys": "dbo.t"}, "keys must be a list as schema.view: column, column"),
        ({"keys": "a, b: id"}, "keys must be a list as schema.view: column, column"),
    ],
)
def test_settings_that_do_not_fit(
    project: Project, server: MssqlSandbox, options: dict[str, str], expected: str
) -> None:
    """One sentence says what is wrong."""
    create_view(server)
    assert expected in failed(project, server, **options).output


@pytest.mark.parametrize("kind", ["dropped column", "dropped table", "linked server"])
def test_a_view_that_breaks_fails_alone(project: Project, server: MssqlSandbox, kind: str) -> None:
    """The others are synced, and its rows stay."""
    create_view(server)
    create_plain(server, 30, "u")
    server.create_view("dbo", "vu", "SELECT id, v FROM dbo.u")
    options = {"views": "vu, vt", "keys": "vt: id"}
    synced(project, server, **options)
    server.update("dbo.t", {"id": 7}, v="changed", ModifiedDate=HERE - timedelta(hours=4))
    if kind == "dropped column":
        server.execute("ALTER TABLE dbo.u DROP COLUMN v")
    elif kind == "dropped table":
        server.execute("DROP TABLE dbo.u")
    else:
        server.break_view("dbo.vu", 7399)
    output = failed(project, server, **options, tables="t").output
    assert "1 of 3 tables failed" in output
    assert {row["v"] for row in project.rows("vt") if row["id"] == 7} == {"changed"}
    assert len(ids(project, "vu")) == 30


def test_a_history_table_and_hidden_periods(project: Project, server: MssqlSandbox) -> None:
    """The history has every version of a row; a hidden column is read unless it is excluded."""
    columns: Columns = [("id", "int", False), ("v", "varchar(40)")]
    rows = [(i, f"value {i}") for i in range(20)]
    server.create_temporal_table(
        "dbo", "t", columns, key=["id"], hidden=True, history="t_History", rows=rows
    )
    server.update("dbo.t", {"id": 7}, v="second")
    server.update("dbo.t", {"id": 7}, v="third")
    synced(project, server)
    assert len(project.types("t")) == 4
    assert [row["v"] for row in project.rows("t") if row["id"] == 7] == ["third"]
    assert sorted(row["v"] for row in project.rows("t_history")) == ["second", "value 7"]
    server.delete("dbo.t", {"id": 8})
    synced(project, server)
    assert len(project.rows("t_history")) == 3


def test_the_key_of_a_view_that_changes(project: Project, server: MssqlSandbox) -> None:
    """As that of a table: the destination takes no other key."""
    create_view(server)
    synced(project, server, **VIEWS)
    output = failed(project, server, views="dbo.v*", keys="dbo.vt: v").output
    assert "dbo.vt: its key was (id) and is (v) now" in output
