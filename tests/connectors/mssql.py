"""What the tests of mssql_ehi have in common."""

import re
from datetime import datetime, timedelta, timezone
from importlib import import_module
from typing import Any

from tests.sandbox.fivetran import Project, Result
from tests.sandbox.mssql import ColumnSpec, MssqlSandbox, RealServer

NOW = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
# Statements that read rows of a table, not those that look for changes.
DATA = r"^SELECT (?!COUNT_BIG|TOP \(1\) 1|\S+ MAX\(|MIN\(R).* FROM \[(dbo|archive)\]"
Source = MssqlSandbox | RealServer
Columns = list[ColumnSpec | tuple[str, str] | tuple[str, str, bool]]


def configuration(server: Source, **changes: str) -> dict[str, str]:
    given = {
        "mssql_encrypt": "true" if server.ca_pem else "false",
        "mssql_server": server.host,
        "mssql_port": str(server.port),
        "mssql_database": server.database,
        "mssql_user": server.user,
        "mssql_password": server.password,
        "mssql_ca_certificate": server.ca_pem,
    }
    return {**given, **changes}


def synced(project: Project, server: Source, **changes: str) -> Result:
    result = project.sync(configuration(server, **changes))
    assert result.code == 0, result.output
    return result


def failed(project: Project, server: Source, **changes: str) -> Result:
    result = project.sync(configuration(server, **changes))
    assert result.code == 1, result.output
    return result


def upserts(result: Result, tables: int = 1) -> int:
    """How many rows were stored in the replicated tables, without those that report the sync."""
    return result.counts["Upserts"] - 1 - tables


def reads(server: MssqlSandbox, table: str) -> list[str]:
    """The statements that read rows of a table."""
    found = [s.sql for s in server.statements if f"FROM [dbo].[{table}]" in s.sql]
    return [sql for sql in found if re.match(DATA, sql)]


def table_state(project: Project, label: str = "dbo.t") -> Any:
    """What the state keeps of a table."""
    module = import_module("sqlserver.table_state")
    return module.TableState.from_json(project.state["tables"][label], label)


def ids(project: Project, table: str = "t", column: str = "id") -> list[Any]:
    return sorted(row[column] for row in project.rows(table))


def moments(count: int, per_moment: int = 1) -> list[tuple[int, datetime]]:
    """Rows of an id and a time: NOW less an hour, a second later for each ``per_moment``."""
    start = NOW.replace(tzinfo=None) - timedelta(hours=1)
    return [(i, start + timedelta(seconds=i // per_moment)) for i in range(count)]


def take_no_bad_ones(text: str) -> str:
    """A converter for text that begins with "bad", for which there is no value."""
    if text.startswith("bad"):
        raise ValueError(text)
    return text


def create_timed(server: Source, rows: Any, kind: str = "datetime2(7)") -> None:
    columns: Columns = [("id", "int", False), ("ModifiedDate", kind)]
    server.create_table("dbo", "t", columns, key=["id"], rows=rows)


def create_plain(server: Source, count: int = 30, name: str = "t") -> None:
    rows = [(i, f"value {i}") for i in range(count)]
    columns: Columns = [("id", "int", False), ("v", "varchar(40)")]
    server.create_table("dbo", name, columns, key=["id"], rows=rows)


def change(server: MssqlSandbox, first: int = 0) -> None:
    """An insert, an update, a delete, a change of a key, and a row that comes and goes."""
    server.insert("dbo.t", [(1_000 + first, "new"), (2_000 + first, "gone again")])
    server.update("dbo.t", {"id": first + 1}, v="changed")
    server.delete("dbo.t", {"id": first + 2})
    server.update("dbo.t", {"id": first + 3}, id=3_000 + first)
    server.delete("dbo.t", {"id": 2_000 + first})


def assert_equal(project: Project, server: MssqlSandbox, table: str = "t") -> None:
    """What is stored is what the source has."""
    stored = sorted((row["id"], row["v"]) for row in project.rows(table))
    assert stored == sorted(server.execute(f"SELECT id, v FROM dbo.{table}"))  # noqa: S608
