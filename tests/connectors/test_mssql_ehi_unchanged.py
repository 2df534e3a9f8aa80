"""mssql_ehi: rows that did not change are not sent again."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.connectors.mssql import (
    NOW,
    create_plain,
    ids,
    synced,
    upserts,
)
from tests.sandbox.fivetran import Project
from tests.sandbox.mssql import MssqlSandbox

pytestmark = pytest.mark.usefixtures("slept", "small_steps")
HOUR = timedelta(hours=1)


def before_now(**age: float) -> datetime:
    return NOW.replace(tzinfo=None) - timedelta(**age)


def test_a_second_sync_of_an_unchanged_database_sends_nothing(
    project: Project, server: MssqlSandbox
) -> None:
    """Whatever the plan of a table."""
    server.info.tracking = True
    rows = [(i, f"value {i}") for i in range(50)]
    text: Any = ("v", "varchar(40)")
    identity: Any = ("id", "int", False)
    server.create_table("dbo", "keyless", [identity, text], rows=rows)
    create_plain(server, 50, "plain")
    create_plain(server, 50, "tracked")
    server.execute("ALTER TABLE dbo.tracked ENABLE CHANGE_TRACKING")
    server.create_table(
        "dbo", "versioned", [identity, text, ("rv", "rowversion")], key=["id"], rows=rows
    )
    for name, age in (("timed", HOUR * 2), ("quiet", timedelta(days=700))):
        moment = NOW.replace(tzinfo=None) - age
        timed = [(i, moment) for i in range(50)]
        server.create_table(
            "dbo", name, [identity, ("ModifiedDate", "datetime2(7)")], key=["id"], rows=timed
        )
    server.create_table("dbo", "empty", [identity, text], key=["id"])
    assert upserts(synced(project, server), 7) == 6 * 50
    second = synced(project, server)
    assert upserts(second, 7) == 0
    assert second.counts["Truncates"] == second.counts["Deletes"] == 0
    report = project.rows("sync_validation_tables")
    assert {row["rows_sent"] for row in report} == {0, 50}
    assert {row["deletes_sent"] for row in report} == {0}
    for table in ("keyless", "plain", "tracked", "versioned", "timed", "quiet"):
        assert ids(project, table) == list(range(50))
