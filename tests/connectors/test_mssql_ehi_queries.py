"""mssql_ehi: the queries over the tables that report the syncs."""

from datetime import timedelta
from typing import Any

import pytest

from tests.connectors.mssql import NOW, create_plain, failed, synced
from tests.sandbox.engine import connect
from tests.sandbox.fivetran import Project
from tests.sandbox.mssql import MssqlSandbox, faults
from tools.paths import ROOT

pytestmark = pytest.mark.usefixtures("slept", "small_steps")
QUERIES = ROOT / "connectors" / "mssql_ehi" / "queries"


def result_of(project: Project, name: str) -> list[dict[str, Any]]:
    """The rows of a query, as a user runs it."""
    with connect(str(project.path / "files" / "warehouse.db")) as warehouse:
        warehouse.execute("SET search_path = 'tester'")
        found = warehouse.execute((QUERIES / f"{name}.sql").read_text())
        columns = [column[0] for column in found.description]
        return [dict(zip(columns, row, strict=True)) for row in found.fetchall()]


@pytest.fixture
def two_syncs(project: Project, server: MssqlSandbox) -> Project:
    """One that succeeds; then one in which a table fails and another sends two rows."""
    create_plain(server, 30)
    old = NOW.replace(tzinfo=None) - timedelta(days=9)
    create_timed_u(server, old)
    synced(project, server)
    server.insert("dbo.u", [(100 + i, old + timedelta(days=1)) for i in range(2)])
    server.faults.add(faults.fail(229, "SELECT", "t", "EHR", "dbo", match=r"\[dbo\]\.\[t\] AS T"))
    failed(project, server)
    return project


def create_timed_u(server: MssqlSandbox, moment: Any) -> None:
    columns: Any = [("id", "int", False), ("ModifiedDate", "datetime2(7)")]
    rows = [(i, moment + timedelta(seconds=i)) for i in range(20)]
    server.create_table("dbo", "u", columns, key=["id"], rows=rows)


def test_completeness_shows_what_failed(two_syncs: Project) -> None:
    """And nothing else."""
    [row] = result_of(two_syncs, "completeness")
    assert (row["table_name"], row["completed"]) == ("dbo.t", False)


def test_completeness_shows_what_was_never_sent(project: Project, server: MssqlSandbox) -> None:
    """Such as rows that come with a moment that was read long before."""
    create_timed_u(server, NOW.replace(tzinfo=None) - timedelta(days=9))
    synced(project, server)
    assert result_of(project, "completeness") == []
    server.insert("dbo.u", [(99, NOW.replace(tzinfo=None) - timedelta(days=99))])
    synced(project, server)
    [row] = result_of(project, "completeness")
    assert (row["source_rows"], row["rows_sent"]) == (21, 20)


def test_lag_shows_when_each_table_was_complete(two_syncs: Project) -> None:
    """The one that fails comes first."""
    first, second = result_of(two_syncs, "lag")
    assert (first["table_name"], first["failed_since"]) == ("dbo.t", 1)
    assert (second["table_name"], second["failed_since"]) == ("dbo.u", 0)
    assert first["last_completed"] < second["last_completed"]


def test_rows_sent_by_month(two_syncs: Project) -> None:
    """As they were handed over; the greatest moment that was there already comes once more."""
    rows = result_of(two_syncs, "rows_sent")
    sent = {row["table_name"]: (row["rows_sent"], row["deletes_sent"]) for row in rows}
    assert sent == {"dbo.t": (30, 0), "dbo.u": (20 + 3, 0)}


def test_speed_shows_tables_that_became_slow(project: Project, server: MssqlSandbox) -> None:
    """Compared with their own average in the same mode."""
    create_timed_u(server, NOW.replace(tzinfo=None) - timedelta(days=9))
    synced(project, server)
    assert result_of(project, "speed") == []
    with connect(str(project.path / "files" / "warehouse.db")) as warehouse:
        warehouse.execute("SET search_path = 'tester'")
        warehouse.execute(
            "INSERT INTO sync_validation_tables BY NAME SELECT * REPLACE ("
            "sync_timestamp - INTERVAL 1 DAY AS sync_timestamp, "
            "rows_per_second * 100 AS rows_per_second) FROM sync_validation_tables"
        )
    [row] = result_of(project, "speed")
    assert row["table_name"] == "dbo.u"


def test_the_readme_names_each_query() -> None:
    """Nobody finds another."""
    text = (QUERIES.parent / "README.md").read_text()
    for path in QUERIES.glob("*.sql"):
        assert f"queries/{path.name}" in text
