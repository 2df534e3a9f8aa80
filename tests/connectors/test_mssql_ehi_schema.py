"""mssql_ehi: keys, names and columns that change at the source, or that the login sees otherwise,
over real TDS to the simulator of SQL Server."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from typing import Any

import duckdb
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
    reads,
    synced,
    table_state,
    take_no_bad_ones,
    upserts,
)
from tests.sandbox.fivetran import Project, load
from tests.sandbox.mssql import ColumnSpec, MssqlSandbox, faults
from tests.width import wide

pytestmark = pytest.mark.usefixtures("slept")
load("mssql_ehi")  # makes its modules importable
type_mapping = import_module("sqlserver.type_mapping")

KEYED: Columns = [("id", "int", False), ("part", "int", False), ("v", "nvarchar(20)")]


@pytest.fixture
def cased() -> Iterator[MssqlSandbox]:
    """A database that tells upper from lower case."""
    with MssqlSandbox(collation_name="Latin1_General_CS_AS") as started:
        started.set_clock(NOW)
        yield started
        assert started.failures == []


def create_keyed(server: Source, name: str = "m", **more: Any) -> None:
    rows = [(i, i % 3, f"v{i}") for i in range(6)]
    server.create_table("dbo", name, KEYED, rows=rows, **more)


def create_neighbours(server: Source) -> None:
    """Tables before and behind the one called m."""
    create_plain(server, 4, "a")
    create_plain(server, 4, "z")


def add_to_neighbours(server: Source) -> None:
    for name in ("a", "z"):
        server.insert(f"dbo.{name}", [(99, "new")])


def neighbours_arrived(project: Project) -> bool:
    return all(99 in ids(project, name) for name in ("a", "z"))


def older(project: Project) -> dict[str, Any]:
    """The state as an older version would have written it: without the types of keys, and without
    what tells a table from another one of its name."""
    entries = {}
    for label in project.state["tables"]:
        table = table_state(project, label)
        cursor = table.cursor
        entry = {
            "as": table.destination,
            "key": table.key,
            "rows": table.rows,
            "column": cursor.column,
            "cursor": cursor.moment,
            "columns": cursor.columns,
            "offset": cursor.offset,
        }
        entries[label] = {key: value for key, value in entry.items() if value is not None}
    return {**project.state, "tables": entries}


# Keys that change


@pytest.mark.parametrize(
    ("change", "new"),
    [
        (["ALTER TABLE dbo.m DROP CONSTRAINT PK_m"], "none"),
        (
            [
                "ALTER TABLE dbo.m DROP CONSTRAINT PK_m",
                "ALTER TABLE dbo.m ADD extra int NOT NULL DEFAULT 0",
                "ALTER TABLE dbo.m ADD CONSTRAINT PK2 PRIMARY KEY (id, extra)",
            ],
            "(id, extra)",
        ),
        (["EXEC sp_rename 'dbo.m.id', 'number', 'COLUMN'"], "(number)"),
        (
            [
                "ALTER TABLE dbo.m DROP CONSTRAINT PK_m",
                "ALTER TABLE dbo.m DROP COLUMN id",
            ],
            "none",
        ),
    ],
)
@pytest.mark.parametrize("as_before", [False, *wide(True)])
def test_a_key_that_is_lost_costs_its_table_only(
    project: Project, server: MssqlSandbox, change: list[str], new: str, as_before: bool
) -> None:
    """The others are complete, the failure names both keys, and nothing of the table is sent."""
    create_neighbours(server)
    create_keyed(server, key=["id"])
    synced(project, server)
    if as_before:
        (project.path / "files" / "state.json").write_text(json.dumps(older(project)))
    for statement in change:
        server.execute(statement)
    for _ in range(2):
        add_to_neighbours(server)
        result = failed(project, server)
        assert neighbours_arrived(project)
        assert f"dbo.m: its key was (id) and is {new} now, and the destination" in result.output
        assert "1 of 3 tables failed" in result.output
        assert len(project.rows("m")) == 6
        server.delete("dbo.a", {"id": 99})
        server.delete("dbo.z", {"id": 99})


def test_on_the_command_line_a_lost_key_costs_its_table_only(
    project: Project, server: MssqlSandbox
) -> None:
    """By the SDK's own command, where schema() finds the state by itself."""
    create_neighbours(server)
    create_keyed(server, key=["id"])
    assert project.debug(configuration(server)).code == 0
    server.execute("ALTER TABLE dbo.m DROP CONSTRAINT PK_m")
    server.execute("ALTER TABLE dbo.m ADD extra int NOT NULL DEFAULT 0")
    server.execute("ALTER TABLE dbo.m ADD CONSTRAINT PK2 PRIMARY KEY (id, extra)")
    add_to_neighbours(server)
    result = project.debug(configuration(server))
    assert result.code == 1
    assert neighbours_arrived(project)
    assert "dbo.m: its key was (id) and is (id, extra) now" in result.output


@pytest.mark.source
def test_a_key_that_still_tells_rows_apart_is_kept(project: Project, source: Source) -> None:
    """By a unique index in place of the primary key, and by a new key of fewer columns."""
    create_neighbours(source)
    create_keyed(source, key=["id", "part"])
    synced(project, source)
    source.execute("ALTER TABLE dbo.m DROP CONSTRAINT PK_m")
    source.execute("ALTER TABLE dbo.m ADD CONSTRAINT PK2 PRIMARY KEY (id)")
    source.insert("dbo.m", [(50, 1, "new")])
    source.delete("dbo.m", {"id": 0})
    result = synced(project, source)
    assert "its key was (id, part) and is (id) now: rows are stored under the old" in result.output
    assert "reloaded" not in result.output
    assert ids(project, "m") == [1, 2, 3, 4, 5, 50]
    source.execute("ALTER TABLE dbo.m DROP CONSTRAINT PK2")
    source.execute("CREATE UNIQUE INDEX UX ON dbo.m (part, id)")
    source.delete("dbo.m", {"id": 1})
    assert "its key was" not in synced(project, source).output
    assert ids(project, "m") == [2, 3, 4, 5, 50]
    assert table_state(project, "dbo.m").key == ["id", "part"]


def test_a_unique_index_beside_a_wider_key(project: Project, server: MssqlSandbox) -> None:
    """The old key is unique by it, also where its column may hold nulls but does not."""
    columns: Columns = [("id", "int", True), ("part", "int", False)]
    rows = [(i, i) for i in range(4)]
    server.create_table("dbo", "m", columns, unique=[["id"]], key=["id"], rows=rows)
    synced(project, server)
    server.execute("ALTER TABLE dbo.m DROP CONSTRAINT PK_m")
    server.execute("ALTER TABLE dbo.m ADD CONSTRAINT PK2 PRIMARY KEY (part)")
    server.mark("dbo.m", "id", nullable=True)
    server.insert("dbo.m", [(8, 8)])
    assert "its key was (id) and is (part) now: rows are" in synced(project, server).output
    assert ids(project, "m") == [0, 1, 2, 3, 8]
    server.insert("dbo.m", [(None, 9)])
    assert "its key was (id) and is (part) now, and" in failed(project, server).output


@pytest.mark.source
def test_a_table_that_gets_a_key_goes_on_without(project: Project, source: Source) -> None:
    """Rows that changed do not stand beside what they were, since it is read in full."""
    create_keyed(source)
    synced(project, source)
    source.execute("ALTER TABLE dbo.m ADD CONSTRAINT PK2 PRIMARY KEY (id)")
    source.update("dbo.m", {"id": 3}, v="changed")
    result = synced(project, source)
    assert "its key was none and is (id) now: rows are stored under the old" in result.output
    assert sorted((row["id"], row["v"]) for row in project.rows("m")) == [
        (i, "changed" if i == 3 else f"v{i}") for i in range(6)
    ]


def test_a_refused_key_is_forgotten_as_its_message_says(
    project: Project, server: MssqlSandbox
) -> None:
    """Dropped at the destination and excluded for one sync, the table gets its new key."""
    create_neighbours(server)
    create_keyed(server, key=["id"])
    synced(project, server)
    server.execute("ALTER TABLE dbo.m DROP CONSTRAINT PK_m")
    server.execute("ALTER TABLE dbo.m ADD CONSTRAINT PK2 PRIMARY KEY (id, part)")
    synced(project, server, exclude_tables="dbo.m")  # without a failure before, nothing is lost
    failed(project, server)
    with duckdb.connect(str(project.warehouse)) as connection:
        connection.execute("DROP TABLE tester.m")
    synced(project, server, exclude_tables="dbo.m")
    assert "dbo.m" not in project.state["tables"]
    synced(project, server)
    assert ids(project, "m") == list(range(6))
    assert table_state(project, "dbo.m").key == ["id", "part"]


def test_a_key_that_comes_back_goes_on(project: Project, server: MssqlSandbox) -> None:
    """After a failure because of it the table resumes where it was."""
    create_timed(server, moments(10))
    synced(project, server, lookback_seconds="0")
    server.execute("ALTER TABLE dbo.t DROP CONSTRAINT PK_t")
    failed(project, server)
    server.execute("ALTER TABLE dbo.t ADD CONSTRAINT PK_t PRIMARY KEY (id)")
    server.insert("dbo.t", [(77, NOW.replace(tzinfo=None))])
    result = synced(project, server, lookback_seconds="0")
    assert ids(project) == [*range(10), 77]
    assert upserts(result) < 10
    assert not table_state(project).key_refused


@pytest.mark.source
def test_a_disabled_key_is_none(project: Project, source: Source) -> None:
    """Nothing keeps rows apart by a unique index or key that is switched off."""
    create_keyed(source, "m", unique=[["id"], ["id", "part"]])
    source.execute("ALTER INDEX UX_m_1 ON dbo.m DISABLE")
    create_keyed(source, "n", key=["id"], clustered=False)
    source.execute("ALTER INDEX PK_n ON dbo.n DISABLE")
    synced(project, source)
    assert table_state(project, "dbo.m").key == ["id", "part"]
    assert table_state(project, "dbo.n").key == []


def test_change_tracking_needs_the_key_of_the_destination(
    project: Project, server: MssqlSandbox
) -> None:
    """A kept key of other columns than the primary one cannot tell what was deleted."""
    create_keyed(server, key=["id"], unique=[["id"]])
    synced(project, server)
    server.execute("ALTER TABLE dbo.m DROP CONSTRAINT PK_m")
    server.execute("ALTER TABLE dbo.m ADD CONSTRAINT PK2 PRIMARY KEY (id, part)")
    server.info.tracking = True
    server.execute("ALTER TABLE dbo.m ENABLE CHANGE_TRACKING")
    server.delete("dbo.m", {"id": 2})
    result = synced(project, server)
    assert "dbo.m: Change Tracking is not used, since it has another key" in result.output
    assert ids(project, "m") == [0, 1, 3, 4, 5]


@pytest.mark.parametrize("made", [True, False])
def test_a_table_that_changes_while_the_sync_begins(
    project: Project, server: MssqlSandbox, made: bool
) -> None:
    """It was declared otherwise, or not at all, and waits for the next sync."""
    create_neighbours(server)
    if not made:
        create_keyed(server)

    def change() -> None:
        if made:
            create_keyed(server, key=["id"])
        else:
            server.execute("ALTER TABLE dbo.m ADD CONSTRAINT PK2 PRIMARY KEY (id)")

    server.faults.add(faults.call(change, r"modify_date", skip=1))
    if made:
        output = synced(project, server).output
        assert "dbo.m: it could not be read when the sync began: the next sync reads" in output
    else:
        output = failed(project, server).output
        assert "dbo.m: its key, id, is not the one that was declared" in output
    assert ids(project, "a") == ids(project, "z") == list(range(4))
    synced(project, server)
    assert ids(project, "m") == list(range(6))
    synced(project, server)


# Tables that are other ones


@pytest.mark.parametrize("keyed", [True, False])
def test_a_table_that_was_recreated_is_reloaded(
    project: Project, server: MssqlSandbox, keyed: bool
) -> None:
    """Under the old cursor its rows would be passed over, and the old ones would stay."""
    create_timed(server, moments(10))
    synced(project, server)
    old = moments(3)
    server.execute("DROP TABLE dbo.t")
    columns: Columns = [("id", "int", False), ("ModifiedDate", "datetime2(7)")]
    rows = [(i + 100, moment.replace(year=2020)) for i, moment in old]
    server.create_table("dbo", "t", columns, key=["id"] if keyed else [], rows=rows)
    if keyed:
        result = synced(project, server)
        assert "dbo.t: the table was dropped and recreated at the source" in result.output
        assert ids(project) == [100, 101, 102]
        assert "recreated" not in synced(project, server).output
    else:
        assert "dbo.t: its key was (id) and is none now" in failed(project, server).output


def test_a_table_that_was_recreated_and_is_filled_later(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is empty at one sync, and too large to be replaced at the next: the old rows go."""
    create_plain(server, 30)
    synced(project, server)
    server.execute("DROP TABLE dbo.t")
    server.set_clock(NOW + timedelta(hours=1))
    create_plain(server, 0)
    assert "the source lists no rows" in synced(project, server).output
    server.insert("dbo.t", [(key, "new") for key in range(100, 160)])
    monkeypatch.setattr(import_module("sqlserver.table_sync"), "SMALL", 50)
    synced(project, server)
    assert ids(project) == list(range(100, 160))


def test_a_table_of_the_same_id_that_was_made_later(
    project: Project, server: MssqlSandbox
) -> None:
    """Ids are used again; the moment of creation tells."""
    create_timed(server, moments(10))
    synced(project, server)
    server.table("dbo.t").created += 10_000_000
    server.store._schema_changed(None)
    server.delete("dbo.t", {"id": 4})
    synced(project, server)
    assert 4 not in ids(project)


def test_a_table_that_an_older_version_knew_is_not_reloaded(
    project: Project, server: MssqlSandbox
) -> None:
    """What is there is adopted, and what was not known before is kept from then on."""
    create_timed(server, moments(10))
    synced(project, server, lookback_seconds="0")
    result = project.sync(configuration(server, lookback_seconds="0"), older(project))
    assert result.code == 0
    assert result.counts["Truncates"] == 0
    assert upserts(result) < 10
    assert None not in (table_state(project).key_types, table_state(project).identity)


def test_without_ids_nothing_is_reloaded(project: Project, server: MssqlSandbox) -> None:
    """Where the server shows them no more, the last known one stays."""
    create_timed(server, moments(10))
    synced(project, server)
    identity = table_state(project).identity
    server.refuse_view("sys.tables", 371)
    assert synced(project, server).counts["Truncates"] == 0
    assert table_state(project).identity == identity


@pytest.mark.parametrize(("kind", "reloaded"), [("bigint", False), ("nvarchar(20)", True)])
def test_a_key_of_another_type(
    project: Project, server: MssqlSandbox, kind: str, reloaded: bool
) -> None:
    """Text is not the number that it looks like; a larger number is the same one."""
    create_timed(server, moments(10))
    synced(project, server)
    server.execute("DROP TABLE dbo.t")
    columns: Columns = [("id", kind, False), ("ModifiedDate", "datetime2(7)")]
    rows = [(f"{i}" if reloaded else i, moment) for i, moment in moments(10)]
    server.create_table("dbo", "t", columns, key=["id"], rows=rows)
    state = project.state
    state["tables"]["dbo.t"].pop("i")  # as if ALTER COLUMN had done it
    result = project.sync(configuration(server), state)
    assert result.code == 0, result.output
    assert (
        "dbo.t: the type of its key changed: the table is reloaded" in result.output
    ) == reloaded
    assert len(project.rows("t")) == 10


@pytest.mark.usefixtures("small_steps")
def test_a_key_of_another_collation(project: Project, server: MssqlSandbox) -> None:
    """The rows behind a position are others, so that an unfinished read restarts."""

    def create(collation: str) -> None:
        key = ColumnSpec("id", "varchar(9)", nullable=False, collation=collation)
        rows = [(letter + str(i), moment) for letter in "ABCabc" for i, moment in moments(15)]
        server.create_table("dbo", "t", [key, ("ModifiedDate", "datetime2(7)")], key=["id"])
        server.insert("dbo.t", rows)

    create("Latin1_General_BIN2")
    server.faults.add(faults.drop(DATA, after_rows=35), faults.drop(DATA, after_rows=3, times=9))
    failed(project, server, retry_attempts="0")
    server.faults.clear()
    server.execute("DROP TABLE dbo.t")
    create("Latin1_General_CS_AS")
    state = project.state
    state["tables"]["dbo.t"].pop("i")  # as if ALTER COLUMN had done it
    result = project.sync(configuration(server), state)
    assert result.code == 0, result.output
    assert len(ids(project)) == 90


def test_a_table_that_was_excluded_while_its_key_changed(
    project: Project, server: MssqlSandbox
) -> None:
    """The destination still has it under its old key."""
    create_neighbours(server)
    create_keyed(server, key=["id"])
    synced(project, server)
    synced(project, server, exclude_tables="dbo.m")
    server.execute("ALTER TABLE dbo.m DROP CONSTRAINT PK_m")
    add_to_neighbours(server)
    assert "its key was (id) and is none now" in failed(project, server).output
    assert neighbours_arrived(project)


# Names


@pytest.mark.source
def test_the_name_of_a_dropped_column_stays_its_own(project: Project, source: Source) -> None:
    """One column at the destination never holds two of the source."""
    columns: Columns = [("id", "int", False), ("A b", "int"), ("A_b", "int")]
    columns += [("ModifiedDate", "datetime2(7)")]
    rows = [(i, 1, 2, moment) for i, moment in moments(5)]
    source.create_table("dbo", "t", columns, key=["id"], rows=rows)
    synced(project, source)
    source.execute("ALTER TABLE dbo.t DROP COLUMN [A b]")
    source.update("dbo.t", {"id": 3}, A_b=20, ModifiedDate=NOW.replace(tzinfo=None))
    synced(project, source, lookback_seconds="0")
    found = {row["id"]: (row["a_b"], row["a_b_2"]) for row in project.rows("t")}
    assert {found[i][1] for i in (0, 1, 2, 4)} == {2}
    assert found[3] == (None, 20)
    source.execute("ALTER TABLE dbo.t ADD [A-b] int")
    source.execute("ALTER TABLE dbo.t ADD [A b] int")
    later = NOW.replace(tzinfo=None)
    source.execute("UPDATE dbo.t SET [A-b] = 30, [A b] = 40 WHERE id = 2")
    source.update("dbo.t", {"id": 2}, ModifiedDate=later)
    synced(project, source, lookback_seconds="0")
    [row] = [row for row in project.rows("t") if row["id"] == 2]
    assert (row["a_b"], row["a_b_2"], row["a_b_3"]) == (40, 2, 30)
    assert table_state(project).column_names == {"A b": "A b", "A_b": "A_b_2", "A-b": "A-b_3"}


@pytest.mark.source
def test_a_column_that_is_renamed_takes_no_name_away(project: Project, source: Source) -> None:
    """The table is reloaded, so that no name has values of two columns."""
    columns: Columns = [("id", "int", False), ("x", "int"), ("A_b", "int")]
    columns += [("ModifiedDate", "datetime2(7)")]
    rows = [(i, 1, 2, moment) for i, moment in moments(5)]
    source.create_table("dbo", "t", columns, key=["id"], rows=rows)
    synced(project, source)
    source.execute("EXEC sp_rename 'dbo.t.x', 'A b', 'COLUMN'")
    source.execute("UPDATE dbo.t SET [A b] = 5 WHERE id = 3")
    source.update("dbo.t", {"id": 3}, ModifiedDate=NOW.replace(tzinfo=None))
    output = synced(project, source).output
    assert "dbo.t: columns were renamed or dropped, and others have their names" in output
    assert sorted(row["a_b"] for row in project.rows("t")) == [1, 1, 1, 1, 5]
    assert {row["a_b_2"] for row in project.rows("t")} == {2}


def test_names_of_columns_in_an_older_state(project: Project, server: MssqlSandbox) -> None:
    """They are those that the older version gave, and stay so."""
    columns: Columns = [("id", "int", False), ("A b", "int"), ("A_b", "int")]
    columns += [("имя", "int"), ("ModifiedDate", "datetime2(7)")]
    rows = [(i, 1, 2, 3, moment) for i, moment in moments(5)]
    server.create_table("dbo", "t", columns, key=["id"], rows=rows)
    synced(project, server)
    assert project.sync(configuration(server), older(project)).code == 0
    assert table_state(project).column_names == {"A b": "A b", "A_b": "A_b_2", "имя": "имя"}
    synced(project, server)
    assert table_state(project).column_names["имя"] == "имя"


def test_names_without_a_latin_letter(project: Project, server: MssqlSandbox) -> None:
    """Tables and columns of any script are synced, under names with a number."""
    for name in ("Пациенты", "患者", "...", "Visits"):
        columns: Columns = [("ключ", "int", False), ("имя", "nvarchar(20)"), ("名", "int")]
        rows = [(1, name, 7), (2, "-", 8)]
        server.create_table("dbo", name, columns, key=["ключ"], rows=rows)
    for _ in range(2):
        result = synced(project, server)
        assert result.counts["Deletes"] == 0
        assert "dbo.患者 is stored as table_2, since" in result.output
        assert "column ключ is stored as column, since its name has no Latin" in result.output
        stored = {
            name: {row["column_2"] for row in project.rows(name)}
            for name in ("table", "table_2", "table_3", "visits")
        }
        assert stored == {
            "table": {"Пациенты", "-"},
            "table_2": {"患者", "-"},
            "table_3": {"...", "-"},
            "visits": {"Visits", "-"},
        }


def test_tables_that_differ_in_case_only(project: Project, cased: MssqlSandbox) -> None:
    """Both are synced, the later under a number, which it keeps; exact spelling tells them."""
    create_plain(cased, 3, "visits")
    cased.set_clock(NOW.replace(hour=13))
    create_plain(cased, 5, "Visits")
    result = synced(project, cased)
    assert "dbo.Visits is stored as Visits_2, since" in result.output
    assert (ids(project, "visits"), ids(project, "visits_2")) == ([*range(3)], [*range(5)])
    cased.delete("dbo.visits", {"id": 1})
    cased.insert("dbo.Visits", [(9, "new")])
    synced(project, cased, tables="dbo.Visits")
    assert (ids(project, "visits"), ids(project, "visits_2")) == ([0, 1, 2], [0, 1, 2, 3, 4, 9])
    synced(project, cased, exclude_tables="Visits")
    assert ids(project, "visits") == [0, 2]
    cased.execute("DROP TABLE dbo.visits")
    synced(project, cased)
    assert table_state(project, "dbo.Visits").destination == "Visits_2"


def test_a_name_that_is_free_again_stays_where_it_was(
    project: Project, server: MssqlSandbox
) -> None:
    """The destination still has the dropped table under it, with another key."""
    create_neighbours(server)
    create_keyed(server, "Patient Visits", key=["id"])
    synced(project, server)
    server.execute("DROP TABLE dbo.[Patient Visits]")
    create_keyed(server, "Patient_Visits", key=["v", "id"])
    add_to_neighbours(server)
    synced(project, server)
    assert neighbours_arrived(project)
    assert len(project.rows("patient_visits_2")) == 6


def test_a_table_that_is_spelled_otherwise_is_the_same(
    project: Project, server: MssqlSandbox
) -> None:
    """A new case of its letters costs nothing."""
    create_timed(server, moments(10))
    synced(project, server, lookback_seconds="0")
    server.execute("EXEC sp_rename 'dbo.t', 'T'")
    result = synced(project, server, lookback_seconds="0")
    assert result.counts["Truncates"] == 0
    assert upserts(result) < 10
    assert project.state["tables"].keys() == {"dbo.T"}


def test_a_small_table_that_was_made_anew_is_replaced_in_one_step(
    project: Project, server: MssqlSandbox
) -> None:
    """A failure on the way leaves what was there."""
    create_plain(server, 10)
    synced(project, server)
    server.execute("DROP TABLE dbo.t")
    create_plain(server, 5)
    server.faults.add(faults.drop(DATA, after_rows=3))
    failed(project, server, retry_attempts="0")
    assert ids(project) == list(range(10))
    synced(project, server)
    assert ids(project) == list(range(5))


@pytest.mark.usefixtures("small_steps")
def test_a_large_table_that_was_made_anew_is_emptied(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And resumes after an interruption, without being truncated twice."""
    monkeypatch.setattr(import_module("sqlserver.table_sync"), "SMALL", 20)
    create_plain(server, 60)
    synced(project, server)
    server.execute("DROP TABLE dbo.t")
    rows = [(i, "new") for i in range(100, 180)]
    columns: Columns = [("id", "int", False), ("v", "varchar(40)")]
    server.create_table("dbo", "t", columns, key=["id"], rows=rows)
    server.faults.add(faults.drop(DATA, after_rows=55), faults.drop(DATA, after_rows=1))
    failed(project, server, retry_attempts="0")
    result = synced(project, server)
    assert result.counts["Truncates"] == 0
    assert ids(project) == list(range(100, 180))


@pytest.mark.parametrize("plan", ["times", "tracked"])
def test_skipped_rows_keep_no_row_of_another_table(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch, plan: str
) -> None:
    """What could not be replaced is replaced when every row can be read; there is no cursor until
    then, since an incremental read takes nothing away."""
    kind = replace(type_mapping.TYPE_MAPPINGS["nvarchar"], convert=take_no_bad_ones)
    monkeypatch.setitem(type_mapping.TYPE_MAPPINGS, "nvarchar", kind)
    columns: Columns = [("k", "nvarchar(20)", False), ("ModifiedDate", "datetime2(7)")]

    def create(keys: list[str]) -> None:
        moment = NOW.replace(tzinfo=None, year=2020)
        rows = [(key, moment) for key in keys]
        server.create_table("dbo", "t", columns, key=["k"], rows=rows)
        if plan == "tracked":
            server.info.tracking = True
            server.execute("ALTER TABLE dbo.t ENABLE CHANGE_TRACKING")

    create([f"old {i}" for i in range(20)])
    synced(project, server)
    server.execute("DROP TABLE dbo.t")
    create([*(f"new {i:02d}" for i in range(20)), "bad"])
    for _ in range(2):
        output = synced(project, server).output
        assert "dbo.t: 1 row was skipped, so nothing is replaced" in output
        assert "old 3" in ids(project, column="k")
    server.delete("dbo.t", {"k": "bad"})
    synced(project, server)
    assert ids(project, column="k") == [f"new {i:02d}" for i in range(20)]
    assert upserts(synced(project, server, lookback_seconds="0")) <= 20
    cursor = table_state(project).cursor
    assert (cursor.moment, cursor.version) != (None, None)


def test_the_cursor_of_a_table_does_not_outlive_it(project: Project, server: MssqlSandbox) -> None:
    """Not even where a recreated table can only be read in full, and has no new one."""
    create_timed(server, moments(10))
    synced(project, server)
    assert table_state(project).cursor.moment is not None
    server.execute("DROP TABLE dbo.t")
    create_timed(server, [(i + 100, moment.replace(year=2020)) for i, moment in moments(3)])
    server.faults.add(faults.fail(8115, match="SYSUTCDATETIME", times=2))
    assert "there is no new cursor" in synced(project, server).output
    assert table_state(project).cursor.moment is None
    assert ids(project) == [100, 101, 102]
    synced(project, server)
    assert ids(project) == [100, 101, 102]


def test_keys_of_tables_that_differ_in_case_only(project: Project, cased: MssqlSandbox) -> None:
    """The key of one is not that of the other."""
    create_keyed(cased, "T", key=["id"])
    create_keyed(cased, "t", key=["part", "id"])
    create_neighbours(cased)
    synced(project, cased)
    assert table_state(project, "dbo.T").key == ["id"]
    assert table_state(project, "dbo.t").key == ["part", "id"]


@pytest.mark.source
def test_labels_that_would_be_equal(project: Project, source: Source) -> None:
    """Two tables are two, and neither is reloaded at the next sync."""
    for schema, name, key in (("a", "b.c", 1), ("a.b", "c", 2)):
        columns: Columns = [("id", "int", False), ("ModifiedDate", "datetime2(7)")]
        rows = [(key, NOW.replace(tzinfo=None, year=2020))]
        source.create_table(schema, name, columns, key=["id"], rows=rows)
    synced(project, source)
    assert project.state["tables"].keys() == {"a.[b.c]", "[a.b].c"}
    result = synced(project, source)
    assert result.counts["Truncates"] == 0
    assert (ids(project, "b_c"), ids(project, "c")) == ([1], [2])


def test_the_label_of_an_older_version_is_found(project: Project, server: MssqlSandbox) -> None:
    """It had no brackets."""
    columns: Columns = [("id", "int", False), ("ModifiedDate", "datetime2(7)")]
    server.create_table("a", "b.c", columns, key=["id"], rows=[(1, "2020-01-01")])
    synced(project, server)
    state = older(project)
    state["tables"]["a.b.c"] = state["tables"].pop("a.[b.c]")
    result = project.sync(configuration(server), state)
    assert result.counts["Truncates"] == 0
    assert project.state["tables"].keys() == {"a.[b.c]"}


def test_system_tables_are_those_that_the_server_ships(
    project: Project, server: MssqlSandbox
) -> None:
    """Not all that a schema called CDC holds."""
    for schema, name in (("CDC", "Diagnoses"), ("dbo", "shipped")):
        server.create_table(schema, name, [("id", "int")], rows=[(1,)])
    server.table("dbo.shipped").shipped = True
    server.store._schema_changed(None)
    synced(project, server)
    assert project.state["tables"].keys() == {"CDC.Diagnoses"}


def test_a_per_cent_sign_in_a_tracked_table(project: Project, server: MssqlSandbox) -> None:
    """Its name is a parameter where the server is asked for versions."""
    columns: Columns = [("id", "int", False), ("v", "int")]
    server.create_table("dbo", "50%", columns, key=["id"], rows=[(1, 1), (2, 2)])
    server.info.tracking = True
    server.execute("ALTER TABLE dbo.[50%] ENABLE CHANGE_TRACKING")
    synced(project, server)
    server.delete("dbo.[50%]", {"id": 1})
    result = synced(project, server)
    assert "Change Tracking does not know" not in result.output
    assert (result.counts["Truncates"], result.counts["Deletes"]) == (0, 1)


# Where schema() does not know the state, as on the platform


@pytest.fixture
def unknown_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's Connector has none when it calls schema()."""
    monkeypatch.setattr(load("mssql_ehi"), "_state_at_hand", lambda: None)


@pytest.mark.usefixtures("unknown_state")
def test_names_are_those_that_were_declared(project: Project, server: MssqlSandbox) -> None:
    """What would get another name than before is reloaded, so that nothing is mixed."""
    columns: Columns = [("id", "int", False), ("A b", "int"), ("A_b", "int")]
    columns += [("ModifiedDate", "datetime2(7)")]
    rows = [(i, 1, 2, moment) for i, moment in moments(5)]
    server.create_table("dbo", "t", columns, key=["id"], rows=rows)
    create_plain(server, 3, "Visits")
    server.create_table("old", "Visits", [("id", "int", False)], key=["id"], rows=[(9,)])
    for _ in range(2):
        result = synced(project, server)
        assert "reloaded" not in result.output
    server.execute("ALTER TABLE dbo.t DROP COLUMN [A b]")
    server.execute("DROP TABLE dbo.Visits")
    output = synced(project, server).output
    assert "dbo.t: the names of its columns changed: the table is reloaded" in output
    assert "old.Visits: its name at the destination changed: the table is" in output
    assert {row["a_b"] for row in project.rows("t")} == {2}
    assert ids(project, "visits") == [9]
    assert "reloaded" not in synced(project, server).output


@pytest.mark.usefixtures("unknown_state")
def test_a_key_that_was_declared_otherwise_fails_its_table(
    project: Project, server: MssqlSandbox
) -> None:
    """Before any of its rows is stored under a key that the next sync would not declare."""
    create_neighbours(server)
    create_keyed(server, key=["id"], unique=[["id"]])
    synced(project, server)
    server.execute("ALTER TABLE dbo.m DROP CONSTRAINT PK_m")
    server.execute("ALTER TABLE dbo.m ADD CONSTRAINT PK2 PRIMARY KEY (id, part)")
    add_to_neighbours(server)
    output = failed(project, server).output
    assert (
        "dbo.m: its key, id, is not the one that was declared when the sync began, id, p" in output
    )
    assert neighbours_arrived(project)


# Columns that the login sees otherwise


def create_secret(server: MssqlSandbox, **kinds: str) -> None:
    columns: Columns = [("id", "int", False), *((n, kind) for n, kind in kinds.items())]
    columns += [("v", "int")]
    rows = [{"id": i, "v": i} | dict.fromkeys(kinds, "1") for i in range(5)]
    server.create_table("dbo", "t", columns, key=["id"], rows=rows)


def test_a_masked_key_fails_its_table(project: Project, server: MssqlSandbox) -> None:
    """All rows would become one."""
    create_neighbours(server)
    create_keyed(server, key=["id"])
    server.mark("dbo.m", "id", masked=True)
    add_to_neighbours(server)
    result = failed(project, server)
    assert "dbo.m: column id of its key is masked for mssql_user" in result.output
    assert neighbours_arrived(project)
    assert project.rows("m") == [] if "m" in _tables(project) else True
    server.info.unmask = True
    synced(project, server)
    assert ids(project, "m") == list(range(6))


def _tables(project: Project) -> set[str]:
    return {row["name"] for row in project.query("SHOW ALL TABLES")}


def test_a_masked_cursor_fails_its_table(project: Project, server: MssqlSandbox) -> None:
    """No row would ever be a changed one."""
    create_timed(server, moments(5))
    server.mark("dbo.t", "ModifiedDate", masked=True)
    output = failed(project, server).output
    assert "dbo.t: column ModifiedDate, by which its changes are found, is masked" in output
    synced(project, server, incremental_column="nothing")


def test_masked_columns_are_named(project: Project, server: MssqlSandbox) -> None:
    """Elsewhere a mask is stored, with a warning, unless the column is excluded."""
    create_secret(server, ssn="nvarchar(20)", phone="nvarchar(20)")
    for name in ("ssn", "phone"):
        server.mark("dbo.t", name, masked=True)
    output = synced(project, server).output
    assert "dbo.t: each of phone, ssn is masked for mssql_user: the mask is stored" in output
    assert {row["ssn"] for row in project.rows("t")} == {"xxxx"}
    output = synced(project, server, exclude_columns="dbo.t.ssn,phone").output
    assert "is masked" not in output


def test_masks_in_a_table_without_a_key(project: Project, server: MssqlSandbox) -> None:
    """Rows may become one, and a warning says so."""
    create_keyed(server)
    for name in ("id", "part"):
        server.mark("dbo.m", name, masked=True)
    output = synced(project, server).output
    assert "dbo.m has no key, and some of its columns are masked or not read" in output


def test_encrypted_columns_are_not_read(project: Project, server: MssqlSandbox) -> None:
    """What arrives of them is no text. One in a key fails its table."""
    create_secret(server, ssn="nvarchar(20)")
    server.mark("dbo.t", "ssn", encrypted=True)
    create_keyed(server, "m", key=["v"])
    server.mark("dbo.m", "v", encrypted=True)
    output = failed(project, server).output
    assert "dbo.t: column ssn is encrypted by the client (Always Encrypted)" in output
    assert "dbo.m: column v of its key is encrypted by the client" in output
    assert ids(project) == list(range(5))
    assert project.types("t").keys() == {"id", "v"}


def test_denied_columns_are_not_read(project: Project, server: MssqlSandbox) -> None:
    """By themselves, with a warning, unless they are in the key."""
    create_secret(server, ssn="nvarchar(20)")
    server.mark("dbo.t", "ssn", denied=True)
    create_keyed(server, "m", key=["id"])
    server.mark("dbo.m", "id", denied=True)
    output = failed(project, server).output
    assert "dbo.t: column ssn may not be read by mssql_user, and is not read" in output
    assert "dbo.m: column id of its key may not be read by mssql_user" in output
    assert ids(project) == list(range(5))
    assert project.types("t").keys() == {"id", "v"}


def test_excluded_columns(project: Project, server: MssqlSandbox) -> None:
    """Patterns of a column in a table; what matches nothing is an error, and no key is one."""
    create_secret(server, SSN="nvarchar(20)", ssn_last="nvarchar(20)")
    output = failed(project, server, exclude_columns="dbo.t.nothing").output
    assert "exclude_columns: 'dbo.t.nothing' matches no column that mssql_user" in output
    output = synced(project, server, exclude_columns="*.T.ssn*").output
    assert project.types("t").keys() == {"id", "v"}
    assert "[ssn_last]" not in " ".join(reads(server, "t"))
    result = failed(project, server, exclude_columns="id")
    assert "dbo.t: column id of its key is named in exclude_columns" in result.output
    synced(project, server)
    assert {row["ssn"] for row in project.rows("t")} == {"1"}


def test_a_column_that_is_excluded_is_no_new_one(project: Project, server: MssqlSandbox) -> None:
    """Neither in an incremental read nor with Change Tracking."""
    columns: Columns = [("id", "int", False), ("ssn", "int"), ("ModifiedDate", "datetime2(7)")]
    for name in ("t", "u"):
        rows = [(i, i, moment) for i, moment in moments(5)]
        server.create_table("dbo", name, columns, key=["id"], rows=rows)
    server.info.tracking = True
    server.execute("ALTER TABLE dbo.u ENABLE CHANGE_TRACKING")
    for number in range(3):
        for name in ("t", "u"):
            server.insert(f"dbo.{name}", [(50 + number, 1, NOW.replace(tzinfo=None))])
        output = synced(project, server, exclude_columns="ssn").output
        assert "columns were added" not in output
        for name in ("t", "u"):
            assert ids(project, name) == [*range(5), *range(50, 51 + number)]
    assert "new columns (ssn)" in synced(project, server).output


def test_many_warnings_are_one(project: Project, server: MssqlSandbox) -> None:
    """The SDK shows ten of a sync, and what the others say would be lost."""
    for name in ("a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"):
        columns: Columns = [("id", "int", False), ("ssn", "nvarchar(9)")]
        server.create_table("dbo", name, columns, key=["id"])
        server.mark(f"dbo.{name}", "ssn", encrypted=True)
    output = synced(project, server, max_tables="0").output
    assert "12 warnings about tables and columns are in the log, the first: dbo.a" in output
    assert "dbo.l: column ssn is encrypted" in output


def test_internal_columns_of_graph_tables_are_not_read(
    project: Project, server: MssqlSandbox
) -> None:
    """They cannot be selected; the index over one of them is no key."""
    columns: Columns = [("graph_id_1", "bigint", False), ("$node_id_1", "nvarchar(40)", False)]
    columns += [("id", "int", False)]
    rows = [(i, f'{{"id":{i}}}', i) for i in range(4)]
    server.create_table("dbo", "t", columns, unique=[["graph_id_1"]], key=["id"], rows=rows)
    server.create_table("dbo", "u", columns, unique=[["graph_id_1"]], rows=rows)
    for name in ("t", "u"):
        server.mark(f"dbo.{name}", "graph_id_1", graph=1)
        server.mark(f"dbo.{name}", "$node_id_1", graph=2)
        output = synced(project, server, tables=f"dbo.{name}").output
        assert "graph_id_1" not in output
        assert ids(project, name) == list(range(4))
    assert table_state(project, "dbo.u").key == []


@pytest.mark.parametrize("excluded", [True, False])
def test_a_type_that_the_login_does_not_see(
    project: Project, server: MssqlSandbox, excluded: bool
) -> None:
    """It is read as text; of a table that is excluded it does not matter."""
    create_secret(server, shape="nvarchar(20)")
    server.mark("dbo.t", "shape", type_hidden=True)
    create_plain(server, name="u")
    output = synced(project, server, exclude_tables="dbo.t" if excluded else "").output
    warning = "dbo.t: column shape has a type that mssql_user has no right on"
    assert (warning in output) == (not excluded)
    assert ids(project, "u") == list(range(30))
    if not excluded:
        assert {row["shape"] for row in project.rows("t")} == {"1"}


@pytest.mark.parametrize("view", ["sys.columns", "sys.tables", "sys.indexes"])
def test_a_server_without_these_views(project: Project, server: MssqlSandbox, view: str) -> None:
    """SQL Server 2012 knows no masks, no encryption by the client and no graphs."""
    create_keyed(server, key=["id"])
    server.switch_off_view(view)
    for _ in range(2):
        synced(project, server)
    assert ids(project, "m") == list(range(6))


# Columns that tell the changes


def create_unknown_clock(server: MssqlSandbox) -> None:
    """Tables whose change columns no default names."""
    columns: Columns = [("id", "int", False), ("CHG_DT", "datetime"), ("BirthDate", "date")]
    columns += [("LoadCount", "int")]
    for name in ("t", "u"):
        rows = [(i, NOW.replace(tzinfo=None), None, i) for i in range(4)]
        server.create_table("dbo", name, columns, key=["id"], rows=rows)


def test_a_database_that_is_silently_read_in_full(project: Project, server: MssqlSandbox) -> None:
    """Columns that look as if they told the changes are named, also by the setup test."""
    create_unknown_clock(server)
    warning = "so 2 of 2 tables are read in full at each sync. These look as if they did: "
    assert f"{warning}CHG_DT (2 tables). Name those" in synced(project, server).output
    failures = " ".join(filter(None, project.test_settings(configuration(server)).values()))
    assert f"{warning}CHG_DT (2 tables). Name those" in failures
    for given in ("CHG_DT", "none"):
        assert "in full at each" not in synced(project, server, incremental_column=given).output
        assert set(
            project.test_settings(configuration(server, incremental_column=given)).values()
        ) == {None}


def test_nothing_is_said_where_changes_are_known(project: Project, server: MssqlSandbox) -> None:
    """By one table's column, or by the server for all; without a hint the log says so alone."""
    create_plain(server, 3, "u")
    assert "None looks as if it did" in synced(project, server).output
    assert set(project.test_settings(configuration(server)).values()) == {None}
    server.info.tracking = True
    server.execute("ALTER TABLE dbo.u ENABLE CHANGE_TRACKING")
    assert "in full at each" not in synced(project, server).output
    server.execute("ALTER TABLE dbo.u DISABLE CHANGE_TRACKING")
    create_timed(server, moments(3))
    assert "in full at each" not in synced(project, server).output


@pytest.mark.parametrize(
    "name", ["_LastUpdatedInstant", "UPDATE_DATE", "UpdatedAt", "LastModified"]
)
def test_columns_that_the_field_uses_are_known(
    project: Project, server: MssqlSandbox, name: str
) -> None:
    """Without a setting, and behind ModifiedDate."""
    columns: Columns = [("id", "int", False), (name, "datetime2(3)")]
    server.create_table("dbo", "t", columns, key=["id"], rows=moments(3))
    columns.append(("ModifiedDate", "datetime2(3)"))
    rows = [(*row, row[1]) for row in moments(3)]
    server.create_table("dbo", "u", columns, key=["id"], rows=rows)
    output = synced(project, server).output
    assert f"dbo.t: small, about 3 rows, incremental by {name}" in output
    assert "dbo.u: small, about 3 rows, incremental by ModifiedDate" in output


# What only a real server has


@pytest.mark.source
def test_graph_tables_of_a_real_server(project: Project, source: Source) -> None:
    """Their internal columns cannot be selected, the others can. The simulator has no AS NODE."""
    if isinstance(source, MssqlSandbox):
        pytest.skip("the simulator has no graph tables")
    source.execute("CREATE TABLE dbo.person (id int NOT NULL PRIMARY KEY, v int) AS NODE")
    source.execute("CREATE TABLE dbo.knows (since int) AS EDGE")
    source.execute("INSERT INTO dbo.person (id, v) VALUES (1, 1), (2, 2)")
    source.execute(
        "INSERT INTO dbo.knows SELECT a.$node_id, b.$node_id, 7 FROM dbo.person AS a, "
        "dbo.person AS b WHERE a.id = 1 AND b.id = 2"
    )
    synced(project, source)
    assert ids(project, "person") == [1, 2]
    assert [row["since"] for row in project.rows("knows")] == [7]


@pytest.mark.source
def test_masks_and_denials_of_a_real_server(project: Project, source: Source) -> None:
    """As a login without rights sees them. The simulator's ways to them are other ones."""
    if isinstance(source, MssqlSandbox):
        pytest.skip("the simulator has no logins but one")
    source.execute(
        "CREATE TABLE dbo.t (id int NOT NULL PRIMARY KEY, "
        "phone nvarchar(20) MASKED WITH (FUNCTION = 'default()'), ssn nvarchar(20))"
    )
    source.execute(
        "CREATE TABLE dbo.u (id int MASKED WITH (FUNCTION = 'default()') NOT NULL PRIMARY KEY)"
    )
    source.execute("INSERT INTO dbo.t VALUES (1, N'555', N'123'), (2, N'556', N'124')")
    source.execute("INSERT INTO dbo.u VALUES (1), (2)")
    login = f"plain_{source.database}"
    source.execute(f"CREATE LOGIN {login} WITH PASSWORD = 'Plain-Pass-1'")
    try:
        source.execute(f"CREATE USER {login} FOR LOGIN {login}")
        source.execute(f"GRANT SELECT ON SCHEMA::dbo TO {login}")
        source.execute(f"DENY SELECT ON dbo.t (ssn) TO {login}")
        output = failed(project, source, mssql_user=login, mssql_password="Plain-Pass-1").output
    finally:
        source.execute(f"DROP USER IF EXISTS {login}")
        source.execute(f"DROP LOGIN {login}")
    assert "dbo.u: column id of its key is masked" in output
    assert "dbo.t: column phone is masked" in output
    assert "dbo.t: column ssn may not be read" in output
    assert ids(project) == [1, 2]
