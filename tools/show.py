"""`python -m tools.show NAME`: the tables that the last local sync of a connector has filled.

That is the newer of what `make debug` and `make demo` have left.
"""

import argparse
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tools.deploy import CONNECTORS, ROOT

WIDTH = 100  # columns of the terminal
_ROWS = 3
_SHORT = {"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}
# What the platform adds to a table.
_ADDED = ("_fivetran_deleted", "_fivetran_synced", "_fivetran_id")


def find(name: str, root: Path = ROOT) -> Path | None:
    """The warehouse.db that was written last."""
    folders = root / "connectors" / name, root / "build" / "demo" / name / name
    found = [path for path in (f / "files" / "warehouse.db" for f in folders) if path.exists()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def show(warehouse: Path, console: Console) -> None:
    """Prints each table: its columns down the page, its first rows across it."""
    with duckdb.connect(str(warehouse), read_only=True) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        tables = connection.execute(
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'tester' "
            "AND table_name <> '_fivetran_metadata' ORDER BY 1"
        ).fetchall()
        for (table,) in tables:
            console.print(_describe(connection, table))


def _describe(connection: duckdb.DuckDBPyConnection, name: str) -> Table:
    columns = connection.execute(
        "SELECT column_name, data_type FROM information_schema.columns "
        "WHERE table_schema = 'tester' AND table_name = ? ORDER BY ordinal_position",
        [name],
    ).fetchall()
    shown = [(column, type_) for column, type_ in columns if column not in _ADDED]
    # A table that never got a row lacks the platform's columns.
    synced = "_fivetran_deleted" in dict(columns)
    deleted = "coalesce(_fivetran_deleted, false)" if synced else "false"
    source = f"tester.{_quoted(name)}"
    counts = f"SELECT count(*) FILTER (NOT {deleted}), count(*) FILTER ({deleted}) FROM {source}"  # noqa: S608
    live, gone = connection.execute(counts).fetchone() or (0, 0)
    read = ", ".join(_quoted(column) for column, _ in shown)
    first = f"SELECT {read} FROM {source} WHERE NOT {deleted} LIMIT {_ROWS}"  # noqa: S608
    rows = connection.execute(first).fetchall()
    title = f"{name}: {live} rows, {gone} deleted, {len(shown)} columns"
    table = Table(title=title, title_justify="left", title_style="bold", width=WIDTH)
    table.add_column("column", no_wrap=True, max_width=32)
    table.add_column("type", no_wrap=True, max_width=16)
    for number in range(1, len(rows) + 1):
        table.add_column(f"row {number}", ratio=1, no_wrap=True)
    for place, (column, type_) in enumerate(shown):
        values = [_text(row[place]) for row in rows]
        table.add_row(Text(column), _SHORT.get(type_, type_), *values)
    return table


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _text(value: Any) -> Text:
    """A value in one line, without what could command the terminal; times in UTC."""
    if value is None:
        return Text("null", style="dim")
    if isinstance(value, datetime):
        value = f"{value:%Y-%m-%d %H:%M:%S}"
    return Text("".join(c if c.isprintable() else " " for c in str(value)))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tools.show", description=__doc__)
    parser.add_argument("name", choices=CONNECTORS)
    name = parser.parse_args().name
    warehouse = find(name)
    if warehouse is None:
        sys.exit(f"Nothing was synced yet: run `make demo CONNECTOR={name}` or `make debug`")
    console = Console(width=WIDTH)
    console.print(Text(str(warehouse.relative_to(ROOT))))
    show(warehouse, console)


if __name__ == "__main__":
    main()
