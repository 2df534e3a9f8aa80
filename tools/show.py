"""The tables that the last local sync of a connector has filled."""

import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tools import warehouse
from tools.paths import ROOT

WIDTH = 100  # columns of the terminal
_ROWS = 3
_SHORT = {"TIMESTAMP WITH TIME ZONE": "TIMESTAMPTZ"}


def show(name: str) -> None:
    """Prints the tables of the newest sync, by `make debug` or by `make demo`.

    Raises SystemExit with a sentence if there was none.
    """
    found = find(name)
    if found is None:
        sys.exit(f"{name} was not synced yet: run `make demo CONNECTOR={name}` or `make debug`")
    console = Console(width=WIDTH)
    console.print(Text(str(found.relative_to(ROOT))))
    print_tables(found, console)


def find(name: str, root: Path = ROOT) -> Path | None:
    """The warehouse.db of a connector that was written last, if there is one."""
    folders = root / "connectors" / name, root / "build" / "demo" / name / name
    found = [path for path in (f / "files" / "warehouse.db" for f in folders) if path.exists()]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def print_tables(path: Path, console: Console) -> None:
    """Prints each table of a warehouse.db: its columns down the page, its first rows across it."""
    with duckdb.connect(str(path), read_only=True) as connection:
        for table in warehouse.table_names(connection):
            console.print(_describe(connection, table))


def _describe(connection: duckdb.DuckDBPyConnection, name: str) -> Table:
    types = warehouse.column_types(connection, name)
    live, deleted = warehouse.count_rows(connection, name)
    rows = warehouse.rows(connection, name, limit=_ROWS)
    title = f"{name}: {live} rows, {deleted} deleted, {len(types)} columns"
    table = Table(title=title, title_justify="left", title_style="bold", width=WIDTH)
    table.add_column("column", no_wrap=True, max_width=32)
    table.add_column("type", no_wrap=True, max_width=16)
    for number in range(1, len(rows) + 1):
        table.add_column(f"row {number}", ratio=1, no_wrap=True)
    for column, type_ in types.items():
        values = [_text(row[column]) for row in rows]
        table.add_row(Text(column), _SHORT.get(type_, type_), *values)
    return table


def _text(value: Any) -> Text:
    """A value in one line, without control characters that a terminal would obey."""
    if value is None:
        return Text("null", style="dim")
    if isinstance(value, datetime):
        value = f"{value:%Y-%m-%d %H:%M:%S}"
    return Text("".join(c if c.isprintable() else " " for c in str(value)))
