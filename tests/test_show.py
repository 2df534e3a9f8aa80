"""What `make show` prints of a sync."""

import io
import os
import re
from pathlib import Path

import duckdb
import pytest
from rich.console import Console

from tests.sandbox import create, names
from tests.sandbox.fivetran import Project
from tools.demo import demo
from tools.show import WIDTH, find, print_tables


def printed(warehouse: Path) -> str:
    console = Console(width=WIDTH, file=io.StringIO())
    print_tables(warehouse, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("name", names())
def test_every_table_is_shown_within_100_columns(name: str, tmp_path: Path) -> None:
    """With its counts, every column and its type; and no credential."""
    project = Project(name, tmp_path)
    with create(name) as sandbox:
        given = sandbox.configuration()
        assert project.sync(given).code == 0
        sandbox.change_something()
        assert project.sync({**given, "reconcile_hours": "0"}).code == 0
        tables = list(sandbox.expected())
    text = printed(project.warehouse)
    assert max(map(len, text.splitlines())) <= 100
    for table in tables:
        live, deleted = len(project.rows(table)), len(project.rows(table, deleted=True))
        types = project.types(table)
        assert f"{table}: {live} rows, {deleted} deleted, {len(types)} columns" in text
        assert all(column[:31] in text for column in types)
    assert "deleted" in text
    assert not [v for k, v in given.items() if v in text and ("key" in k or "secret" in k)]


def test_a_value_is_data_and_nothing_else(tmp_path: Path) -> None:
    """No markup, no command to the terminal, no second line; null is told from a text."""
    warehouse = tmp_path / "warehouse.db"
    with duckdb.connect(str(warehouse)) as connection:
        connection.execute("CREATE SCHEMA tester")
        connection.execute('CREATE TABLE tester."odd ""name" (a VARCHAR, b BIGINT, "[red]" TEXT)')
        values = ["[bold]x\x1b[31m\n", None, "null"]
        connection.execute('INSERT INTO tester."odd ""name" VALUES (?, ?, ?)', values)
    text = printed(warehouse)
    assert 'odd "name: 1 rows, 0 deleted, 3 columns' in text
    assert "[bold]x [31m" in text
    assert "[red]" in text
    assert "\x1b" not in text


def test_the_newest_sync_is_shown(tmp_path: Path) -> None:
    """That of `make debug`, or that of `make demo`."""
    assert find("paligo", tmp_path) is None
    folders = ("connectors/paligo", "build/demo/paligo/paligo")
    debug, demo = (tmp_path / folder / "files" / "warehouse.db" for folder in folders)
    for age, path in ((100, debug), (50, demo)):
        path.parent.mkdir(parents=True)
        path.touch()
        os.utime(path, (1e9 - age, 1e9 - age))
    assert find("paligo", tmp_path) == demo
    os.utime(debug, (1e9, 1e9))
    assert find("paligo", tmp_path) == debug


def test_the_demo_counts_what_each_sync_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says that there is a third sync, and how to look into the tables: by a command that is
    there. What was stored and deleted makes up the rows."""
    monkeypatch.setattr("tools.demo.build_folder", lambda: tmp_path)
    demo(["dentally"])
    printed = capsys.readouterr().out
    assert "second sync, third sync (a full refresh) ..." in printed
    assert printed.splitlines()[-1] == "  make show CONNECTOR=dentally"
    [counts] = re.findall(r"treatments │ (\d+) +│ (\d+) +│ (\d+) +│ 0 +│ \d+ +│ (\d+) ", printed)
    rows, first, second, gone = map(int, counts)
    assert 0 < gone < rows
    assert first - gone <= rows <= first + second - gone
    logs = sorted(path.name for path in tmp_path.glob("demo/dentally/*.log"))
    assert logs == ["first.log", "second.log", "third.log"]
