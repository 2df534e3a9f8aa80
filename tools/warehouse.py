"""Reads a warehouse.db, the DuckDB file into which `fivetran debug` syncs."""

from collections.abc import Iterable
from typing import Any

import duckdb

# The columns that the platform adds to a table.
_ADDED = ("_fivetran_deleted", "_fivetran_synced", "_fivetran_id")


def query(
    connection: duckdb.DuckDBPyConnection, sql: str, parameters: Iterable[Any] = ()
) -> list[dict[str, Any]]:
    """The rows of a query by the names of their columns; times are in UTC."""
    connection.execute("SET TimeZone = 'UTC'")
    result = connection.execute(sql, list(parameters))
    names = [column[0] for column in result.description]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def table_names(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The tables of the connector, sorted."""
    found = query(
        connection,
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'tester' "
        "AND table_name <> '_fivetran_metadata' ORDER BY 1",
    )
    return [row["table_name"] for row in found]


def column_types(connection: duckdb.DuckDBPyConnection, table: str) -> dict[str, str]:
    """The types of a table's columns, in their order, as DuckDB names them; without the columns
    that the platform adds."""
    found = query(
        connection,
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = 'tester' AND table_name = ? ORDER BY ordinal_position",
        [table],
    )
    types = {row["column_name"]: row["data_type"] for row in found}
    return {name: type_ for name, type_ in types.items() if name not in _ADDED}


def rows(
    connection: duckdb.DuckDBPyConnection,
    table: str,
    *,
    deleted: bool = False,
    limit: int | None = None,
) -> list[dict[str, Any]]:
    """The rows of a table that are (not) soft-deleted, at most ``limit`` of them, without the
    columns that the platform adds."""
    where = f"{_deleted(connection, table)} = {str(deleted).lower()}"
    most = "" if limit is None else f" LIMIT {limit}"
    found = query(connection, f"SELECT * FROM tester.{_quoted(table)} WHERE {where}{most}")  # noqa: S608
    return [{k: v for k, v in row.items() if k not in _ADDED} for row in found]


def count_rows(connection: duckdb.DuckDBPyConnection, table: str) -> tuple[int, int]:
    """How many live and how many soft-deleted rows a table has."""
    deleted = _deleted(connection, table)
    [counts] = query(
        connection,
        f"SELECT count(*) FILTER (WHERE NOT {deleted}) AS live, "  # noqa: S608
        f"count(*) FILTER (WHERE {deleted}) AS deleted FROM tester.{_quoted(table)}",
    )
    return counts["live"], counts["deleted"]


def _deleted(connection: duckdb.DuckDBPyConnection, table: str) -> str:
    """The SQL condition that a row is soft-deleted. A table that was declared, but never got a
    row, lacks the platform's columns."""
    described = query(connection, f"DESCRIBE tester.{_quoted(table)}")
    is_synced = "_fivetran_deleted" in {column["column_name"] for column in described}
    return "coalesce(_fivetran_deleted, false)" if is_synced else "false"


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
