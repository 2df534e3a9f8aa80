"""mssql_ehi: schemas of the source as schemas of the destination."""

from importlib import import_module
from typing import Any

import duckdb
import pytest

from tests.connectors.mssql import (
    Columns,
    configuration,
    create_plain,
    synced,
    table_state,
    upserts,
)
from tests.sandbox.fivetran import Project, load
from tests.sandbox.mssql import MssqlSandbox

pytestmark = pytest.mark.usefixtures("slept")
connector = load("mssql_ehi")
destination_schemas = import_module("sqlserver.destination_schemas")

COLUMNS: Columns = [("id", "int", False), ("v", "varchar(20)")]
ON = {"destination_schemas": "true"}


def create(server: MssqlSandbox, schema: str, name: str = "t", first: int = 0) -> None:
    rows = [(i, schema) for i in range(first, first + 3)]
    server.create_table(schema, name, COLUMNS, key=["id"], rows=rows)


def stored(project: Project) -> dict[str, list[Any]]:
    """The ids of the live rows of each replicated table, by schema and table."""
    with duckdb.connect(str(project.warehouse)) as connection:
        tables = connection.execute(
            "SELECT table_schema, table_name FROM information_schema.columns "
            "WHERE column_name = '_fivetran_deleted' AND NOT (table_schema = 'tester' "
            "AND table_name LIKE 'sync_%')"
        ).fetchall()
        return {
            f"{schema}.{name}": [
                row[0]
                for row in connection.execute(
                    f"SELECT id FROM {schema}.{name} WHERE NOT _fivetran_deleted ORDER BY id"  # noqa: S608
                ).fetchall()
            ]
            for schema, name in sorted(tables)
        }


def test_each_table_keeps_its_schema(project: Project, server: MssqlSandbox) -> None:
    """Tables of one name need no prefix; the validation tables stay where they are."""
    create(server, "dbo")
    create(server, "Lab Results", first=10)
    result = synced(project, server, **ON)
    assert stored(project) == {"tester_dbo.t": [0, 1, 2], "tester_lab_results.t": [10, 11, 12]}
    assert project.tables() == ["sync_validation", "sync_validation_tables"]
    assert "is stored as" not in result.output
    assert table_state(project, "Lab Results.t").destination_schema == "Lab Results"


def test_deletes_and_replacements_find_their_schema(
    project: Project, server: MssqlSandbox
) -> None:
    """A table that is replaced, and one whose deletes Change Tracking tells."""
    create(server, "dbo")
    create(server, "lab", first=10)
    server.info.tracking = True
    server.execute("ALTER TABLE lab.t ENABLE CHANGE_TRACKING")
    synced(project, server, **ON)
    server.execute("DELETE FROM dbo.t WHERE id = 1")
    server.execute("DELETE FROM lab.t WHERE id = 11")
    result = synced(project, server, **ON)
    assert stored(project) == {"tester_dbo.t": [0, 2], "tester_lab.t": [10, 12]}
    assert result.counts["Deletes"] == 1
    assert upserts(synced(project, server, **ON), 2) == 0


def test_switching_it_on_and_off_reloads(project: Project, server: MssqlSandbox) -> None:
    """What the tables were called before stays there as it was; each switch is one warning."""
    create_plain(server, 3)
    assert "reloaded" not in synced(project, server).output
    warning = "Schemas at the destination changed, by destination_schemas: 1 table is reloaded"
    assert warning in synced(project, server, **ON).output
    server.insert("dbo.t", [(7, "new")])
    assert warning not in synced(project, server, **ON).output
    assert stored(project) == {"tester.t": [0, 1, 2], "tester_dbo.t": [0, 1, 2, 7]}
    assert warning in synced(project, server).output
    assert stored(project)["tester.t"] == [0, 1, 2, 7]


def test_the_state_without_it_is_as_it_was(project: Project, server: MssqlSandbox) -> None:
    """Neither the state nor the declaration names a schema."""
    create_plain(server, 3)
    synced(project, server)
    assert "in" not in project.state["tables"]["dbo.t"]
    assert all("schema" not in entry for entry in connector.schema(configuration(server)))


def test_schemas_that_become_one(project: Project, server: MssqlSandbox) -> None:
    """Their tables of one name get different names; a name that was given stays."""
    create(server, "a b")
    create(server, "a_b", first=10)
    create(server, "a b", "SYNC_VALIDATION", first=20)
    output = synced(project, server, **ON).output
    found = stored(project)
    assert sorted(found.values()) == [[0, 1, 2], [10, 11, 12], [20, 21, 22]]
    assert {name.split(".")[0] for name in found} == {"tester_a_b"}
    assert "tester_a_b.sync_validation" in found
    assert "is stored as" in output
    server.execute("DROP TABLE [a b].t")
    synced(project, server, **ON)
    assert stored(project) == found


def test_names_count_in_their_schema() -> None:
    """Saved names of other schemas are neither kept nor taken; a schema of spaces has a name."""
    tables = [("dbo", "t"), ("x", "T"), (" ", "t")]
    kept = {("dbo", "t"): (None, "t_2"), ("x", "T"): ("x", "old")}
    found, warnings = destination_schemas.of_tables(tables, kept, [("DBO", "t")], schemas=True)
    assert found == {
        ("dbo", "t"): ("dbo", "t_2"),
        ("x", "T"): ("x", "old"),
        (" ", "t"): ("_", "t"),
    }
    assert len(warnings) == 2
    found, _ = destination_schemas.of_tables(tables[:1], kept, [("dbo", "t")], schemas=False)
    assert found == {("dbo", "t"): (None, "t_2")}
