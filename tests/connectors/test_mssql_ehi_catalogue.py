"""mssql_ehi: finding the tables of a database that has thousands of them."""

import re
from collections.abc import Callable, Sequence
from contextlib import closing
from importlib import import_module
from typing import Any

import pytest
from hypothesis import given, strategies as st

from shared.errors import SettingsError
from shared.state import State
from tests.connectors.mssql import (
    Columns,
    configuration,
    create_plain,
    ids,
    synced,
    table_state,
    upserts,
)
from tests.sandbox.fivetran import Project, load
from tests.sandbox.mssql import MssqlSandbox, faults

pytestmark = pytest.mark.usefixtures("slept")
connector = load("mssql_ehi")
catalogue = import_module("sqlserver.catalogue")
naming = import_module("sqlserver.naming")
query = import_module("sqlserver.query")
source_tables = import_module("sqlserver.source_tables")
table_sync = import_module("sqlserver.table_sync")

COLUMNS: Columns = [("id", "int", False), ("v", "varchar(40)"), ("amount", "decimal(9,2)")]
ALL_COLUMNS = "ORDER BY ORDINAL_POSITION"  # the statement that reads the columns of the tables
PROBE = r"TOP \(1\).*CHANGETABLE"


def create_many(server: MssqlSandbox, count: int, *, tracked: bool = False) -> None:
    names = [f"t{number:05d}" for number in range(count)]
    server.create_tables("dbo", names, COLUMNS, key=["id"])
    server.info.tracking = tracked
    for name in names if tracked else ():
        server.execute(f"ALTER TABLE dbo.{name} ENABLE CHANGE_TRACKING")


def declared(server: MssqlSandbox, **changes: str) -> tuple[list[Any], list[str]]:
    """What schema() declares, and the statements that it sends."""
    server.statements.clear()
    tables = connector.schema(configuration(server, **{"max_tables": "0", **changes}))
    return tables, [statement.sql for statement in server.statements]


def matching(statements: Sequence[str], pattern: str) -> list[str]:
    return [sql for sql in statements if re.search(pattern, sql)]


# As many statements for many tables as for a few


def test_statements_do_not_grow_with_the_tables(server: MssqlSandbox) -> None:
    """Change Tracking included, for which one statement asks of 100 tables."""
    create_many(server, 5, tracked=True)
    _, few = declared(server)
    server.create_tables("more", [f"t{number}" for number in range(295)], COLUMNS, key=["id"])
    for number in range(295):
        server.execute(f"ALTER TABLE more.t{number} ENABLE CHANGE_TRACKING")
    tables, many = declared(server)
    assert len(tables) == 300 + 2
    assert (len(matching(few, PROBE)), len(matching(many, PROBE))) == (1, 3)
    assert len(many) - 3 == len(few) - 1 <= 14


def test_two_thousand_tables(server: MssqlSandbox) -> None:
    """Rights on columns are asked for 500 tables at once; equal columns are one object."""
    create_many(server, 2_000)
    tables, statements = declared(server)
    assert len(tables) == 2_000 + 2
    assert len(statements) <= 15
    [found] = connector._found
    first, last = found.catalogue.tables[0], found.catalogue.tables[-1]
    assert all(a is b for a, b in zip(first.columns, last.columns, strict=True))
    server.statements.clear()
    settings = connector.validate_configuration(configuration(server))
    with closing(connector.connect_to_mssql(settings)) as session:
        assert found.catalogue.is_current(session)
    assert len(server.statements) == 3


def test_columns_of_chosen_tables_alone_are_kept(server: MssqlSandbox) -> None:
    """The server sends those of a few tables only, whatever their names are."""
    odd = ["it's", "50%", "a]b", "{0}", "c.d", "t\\", "имя"]
    create_many(server, 20)
    server.create_tables("odd", odd, COLUMNS, key=["id"])
    server.create_tables("other", odd, COLUMNS)
    tables, statements = declared(server, tables="odd.*")
    assert sorted(entry["table"] for entry in tables[:-2]) == sorted([*odd[:-1], "table"])
    assert {tuple(entry["primary_key"]) for entry in tables[:-2]} == {("id",)}
    for asked in matching(statements, "KEY_COLUMN_USAGE|sys.index_columns|" + ALL_COLUMNS):
        assert "N'it''s'" in asked
        assert "t00001" not in asked
    assert matching(statements, "N'50%'")


def test_an_excluded_column_of_a_table_that_is_not_synced(server: MssqlSandbox) -> None:
    """Its pattern is right; one that names no column at all is an error."""
    create_many(server, 3)
    server.create_table("dbo", "u", [("id", "int", False), ("ssn", "int")], key=["id"])
    tables, _ = declared(server, tables="dbo.t*", exclude_columns="SSN, t00001.v")
    assert [sorted(entry["columns"]) for entry in tables[:-2]] == [
        ["amount", "id", "v"],
        ["amount", "id"],
        ["amount", "id", "v"],
    ]
    with pytest.raises(ValueError, match="'w\\*' matches no column"):
        declared(server, exclude_columns="w*")


def test_many_names_and_patterns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name is looked up among the patterns, and a number is tried once."""
    compared: list[Any] = []
    monkeypatch.setattr(naming, "_matches", lambda *given: compared.append(given))
    tables = [("dbo", f"t{number}") for number in range(2_000)]
    assert naming.select(tables, [f"DBO.T{number}" for number in range(1_000)], ["t7"]) == {
        *tables[:7],
        *tables[8:1_000],
    }
    assert not compared
    stored: list[str] = []
    stored_table_name = naming.stored_table_name

    def counted(name: str) -> Any:
        stored.append(name)
        return stored_table_name(name)

    monkeypatch.setattr(naming, "stored_table_name", counted)
    names, _ = naming.of_tables([("dbo", "表" * number) for number in range(1, 2_001)])
    assert names == ["table", *(f"table_{number}" for number in range(2, 2_001))]
    assert len(stored) < 20 * 2_000


# Change Tracking that cannot be read


def test_one_refused_table_is_found_by_halves(project: Project, server: MssqlSandbox) -> None:
    """The others are read by their changes; the log names the one."""
    create_many(server, 16, tracked=True)
    server.faults.add(faults.fail(22117, match=PROBE + r".*\[t00005\]", times=99))
    output = synced(project, server, max_tables="0").output
    probes = matching([s.sql for s in server.statements], PROBE)
    assert len(probes) == 1 + 2 * 4
    assert "dbo.t00005 has Change Tracking, which mssql_user cannot read" in output
    assert "goes on without Change Tracking of dbo.t00005" in output
    assert "goes on without Change Tracking of 8 tables" not in output
    assert output.count("small, about 0 rows, changes by Change Tracking") == 15


def test_a_right_that_is_missing_needs_no_probe(server: MssqlSandbox) -> None:
    """The server says for all tables at once whether it is there."""
    create_many(server, 4, tracked=True)
    for number in range(4):
        server.deny(f"dbo.t0000{number}", "VIEW CHANGE TRACKING")
    _, statements = declared(server)
    assert not matching(statements, PROBE)
    [found] = connector._found
    assert len(found.catalogue.untold) == 4


# schema() and update() in one process


def catalogues(server: MssqlSandbox) -> int:
    return len(matching([s.sql for s in server.statements], ALL_COLUMNS))


def test_the_catalogue_is_read_once(project: Project, server: MssqlSandbox) -> None:
    """update() takes what schema() found, at the first sync and at later ones."""
    create_plain(server, 5)
    for times in (1, 2):
        synced(project, server)
        assert catalogues(server) == times
    assert connector._found == []


def add_column(server: MssqlSandbox) -> None:
    server.execute("ALTER TABLE dbo.t ADD extra int")


def drop_index(server: MssqlSandbox) -> None:
    """Which need not change the date of its table."""
    server.execute("DROP INDEX UX_t_1 ON dbo.t")
    server.table("dbo.t").changed_in = 0


def recreate(server: MssqlSandbox) -> None:
    server.execute("DROP TABLE dbo.t")
    create_plain(server, 3)


@pytest.mark.parametrize(
    ("change", "left"),
    [
        (add_column, 5),
        (recreate, 3),
        (lambda server: server.execute("DROP TABLE dbo.t"), 5),
        (lambda server: server.execute("CREATE UNIQUE INDEX ux ON dbo.t (v)"), 5),
        (drop_index, 5),
        (lambda server: create_plain(server, 1, "u"), 5),
    ],
    ids=["column", "recreated", "dropped", "index", "no index", "new"],
)
def test_a_table_that_changed_since_is_seen(
    project: Project, server: MssqlSandbox, change: Callable[[MssqlSandbox], Any], left: int
) -> None:
    """Between schema() and update(): all is read again."""
    rows = [(i, f"value {i}") for i in range(5)]
    columns: Columns = [("id", "int", False), ("v", "varchar(40)", False)]
    server.create_table("dbo", "t", columns, key=["id"], unique=[["v"]], rows=rows)
    server.table("dbo.t").changed_in = 0
    create_plain(server, 5, "z")
    synced(project, server)
    server.faults.add(faults.call(lambda: change(server), "modify_date", skip=1))
    synced(project, server)
    assert catalogues(server) == 1 + 2
    assert ids(project) == list(range(left))
    assert ids(project, "z") == list(range(5))


@pytest.mark.parametrize("reason", ["age", "settings", "view"])
def test_what_is_old_or_another_is_not_used(
    server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch, reason: str
) -> None:
    """Nor what cannot be compared, since the server does not show sys.tables."""
    create_plain(server, 5)
    if reason == "view":
        server.switch_off_view("sys.tables")
    declared(server)
    if reason == "age":
        monkeypatch.setattr(connector, "_MOST_AGE", -1.0)
    settings = connector.validate_configuration(
        configuration(server, max_tables="7" if reason == "settings" else "0")
    )
    with closing(connector.connect_to_mssql(settings)) as session:
        assert connector._found_by_schema(session, settings) is None
    assert connector._found == []


# What the log says


def test_tables_over_the_limit(project: Project, server: MssqlSandbox) -> None:
    """They are counted after the choice by name; a warning names fifty, the debug log all."""
    create_many(server, 63)
    create_plain(server, 1, "u")
    output = synced(project, server, tables="dbo.t*", max_tables="2").output
    assert (
        "max_tables is 2, but 63 tables match, so 61 tables are not synced: dbo.t00002," in output
    )
    assert 'and 11 more. Set max_tables to "0" to sync all, or name' in output
    assert re.search(r"DEBUG .*Not synced, by max_tables: dbo\.t00002.*dbo\.t00062$", output, re.M)
    assert not re.search(r"INFO .*Not synced, by max_tables", output)


def plan_of(number: int, estimate: int | None, column: str = "") -> Any:
    changed = source_tables.Column(column, type_info("datetime2"), True) if column else None
    table = source_tables.SourceTable("dbo", f"t{number}", (), estimate=estimate)
    return query.Plan(table, changed, ())


def type_info(name: str) -> Any:
    return import_module("sqlserver.type_mapping").ColumnInfo(name)


def test_plans_of_many_tables_are_summed_up(capsys: pytest.CaptureFixture[str]) -> None:
    """One line at INFO, and one a table for those who debug; of up to fifty, as before."""
    plans = [plan_of(n, 10, "ModifiedDate") for n in range(1_500)]
    plans += [plan_of(n, 2_000_000_000) for n in range(1_500, 1_502)]
    plans += [plan_of(n, None, f"c{n}") for n in range(2_000, 2_012)]
    connector._log_plans(plans)
    printed = capsys.readouterr().out
    [summary] = [line for line in printed.splitlines() if re.search(r"\bINFO\b", line)]
    assert "1,514 tables with about 4,000,015,000 rows in all: 1,500 small; " in summary
    assert "1,500 incremental by ModifiedDate; 2 in full, in one statement; 1 " in summary
    assert "; 4 otherwise. The debug log" in summary
    assert len(re.findall(r"\bDEBUG\b", printed)) == 1_514
    connector._log_plans(plans[:50])
    assert len(re.findall(r"\bINFO\b", capsys.readouterr().out)) == 50


@pytest.mark.parametrize("missing", ["modify_date", "'VIEW CHANGE TRACKING'"])
def test_a_server_that_does_not_know_a_part_of_the_catalogue(
    project: Project, server: MssqlSandbox, missing: str
) -> None:
    """The rest of what it tells is used: which table it is, and Change Tracking."""
    server.info.tracking = True
    create_plain(server)
    server.execute("ALTER TABLE dbo.t ENABLE CHANGE_TRACKING")
    server.faults.add(faults.fail(207, missing, match=missing, times=99))
    synced(project, server)
    assert table_state(project).identity is not None
    server.update("dbo.t", {"id": 3}, v="changed")
    assert upserts(synced(project, server)) == 1
    assert "changes by Change Tracking" in {
        row["plan"] for row in project.rows("sync_validation_tables")
    }


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        *(("a*", "a", True), ("a*a", "a", False), ("a*a", "aa", True), ("*", "", True)),
        *(("**", "x", True), ("a", "a", True), ("a", "ab", False), ("", "", True)),
        *(("*b*b*", "ab", False), ("*b*b*", "abcb", True), ("ab*bc", "abc", False)),
        *(("*ab*ba", "xaba", False), ("*ab*ba", "xabba", True), ("a.c*", "abc", False)),
    ],
)
def test_what_a_star_stands_for(pattern: str, name: str, fits: bool) -> None:
    """Any text, which may be empty; two parts of a pattern share no character of a name."""
    assert naming._Like(pattern).fits(name) is fits


@given(st.text("ab*", max_size=8), st.text("ab", max_size=10))
def test_a_pattern_fits_what_its_expression_does(pattern: str, name: str) -> None:
    """It is compared in another way, since an expression may take for ever."""
    expression = ".*".join(map(re.escape, pattern.split("*")))
    assert naming._Like(pattern).fits(name) is bool(re.fullmatch(expression, name))


def test_many_stars_cost_no_time() -> None:
    """An expression would try more ways to divide the name than there are atoms."""
    name = ("dbo", "a" * 128)
    with pytest.raises(SettingsError, match="matches no table"):
        naming.select([name], ["a*" * 50 + "b"], [])
    assert naming.select([name], ["*a" * 50], []) == {name}


def test_columns_that_are_stored_as_one_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each number is tried once for all of them, and the names are as if each had tried all."""
    tried = list[str]()
    stored_name = naming.stored_name

    def counted(name: str) -> Any:
        tried.append(name)
        return stored_name(name)

    monkeypatch.setattr(naming, "stored_name", counted)
    spellings = [f"{bits:012b}".translate({48: "-", 49: " "}) for bits in range(3_000)]
    columns = [f"a{spelling}b" for spelling in spellings]
    names, _ = naming.of_columns("dbo.t", columns)
    assert names == [columns[0], *(f"{c}_{n}" for n, c in enumerate(columns[1:], 2))]
    assert len(tried) < 10 * len(columns)


@pytest.mark.parametrize(("tables", "rows"), [(10, 5_000), (10_000, 20_000)])
def test_a_checkpoint_comes_after_more_rows_where_it_writes_more_tables(
    tables: int, rows: int
) -> None:
    """Each writes the state of all tables."""
    state = State({"version": 1, "tables": {str(n): {} for n in range(tables)}}, ())
    checkpoints = import_module("sqlserver.checkpoints").Checkpoints(state, 5_000)
    checkpoints.add(rows - 1, 1)
    assert not checkpoints.is_due()
    checkpoints.add(1, 1)
    assert checkpoints.is_due()
