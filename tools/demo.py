"""The real `fivetran debug`, twice, for every connector, against its simulator.

Records change at the source between the two syncs. A connector that finds deletes only by a full
refresh has a third sync, which is one. All files are in build/demo/.
"""

import json
import shutil
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from tests.sandbox import create
from tests.sandbox.fivetran import Project, Result
from tools.paths import NAMES, ROOT, build_folder

_COLUMNS = ("connector", "table", "rows", "columns", "1st sync", "2nd sync", "deleted", "seconds")


def demo(names: Sequence[str] = ()) -> None:
    """Syncs the connectors of these names, or all, and prints what is in their tables then.

    Raises SystemExit with the output of `fivetran debug` if a sync fails.
    """
    console = Console(width=100)
    summary = Table(*_COLUMNS, title="Rows by table; the columns of the syncs count upserts")
    projects = []
    for name in names or NAMES:
        console.print(f"{name}: first sync, a change at the source, second sync ...")
        projects.append(_demonstrate(name, summary))
    console.print(summary, "The logs of the syncs: build/demo/*/*.log", sep="\n")
    console.print("Look into the tables with:")
    for project in projects:
        path = project.warehouse.relative_to(ROOT)
        console.print(f"  duckdb -ui {path}", soft_wrap=True)


def _demonstrate(name: str, summary: Table) -> Project:
    """Syncs one connector, and adds a row for each of its tables to ``summary``."""
    folder = build_folder() / "demo" / name
    shutil.rmtree(folder, ignore_errors=True)
    project = Project(name, folder)
    with create(name) as sandbox:
        first = _sync(project, sandbox.configuration(), "first")
        before = {table: _stored(project, table, "1970-01-01") for table in project.tables()}
        last = max(moment for _, moment in before.values() if moment)
        sandbox.change_something()
        second = _sync(project, sandbox.configuration(), "second")
        again = {table: _stored(project, table, last)[0] for table in before}
        if "reconcile_hours" in json.loads((project.path / "configuration.json").read_text()):
            # A full refresh, which finds the deletes.
            _sync(project, sandbox.configuration(reconcile_hours="0"), "third")
    seconds = f"{first.seconds:.1f} + {second.seconds:.1f}"
    for table, (upserts, _) in before.items():
        live, deleted = len(project.rows(table)), len(project.rows(table, deleted=True))
        counts = (live, len(project.types(table)), upserts, again[table], deleted)
        summary.add_row(name, table, *map(str, counts), seconds)
    return project


def _sync(project: Project, configuration: dict[str, str], name: str) -> Result:
    """One sync, whose log goes into ``<name>.log``."""
    result = project.debug(configuration)
    (project.path.parent / f"{name}.log").write_text(result.output, encoding="utf-8")
    if result.code:
        sys.exit(f"fivetran debug failed:\n{result.output}")
    return result


def _stored(project: Project, table: str, after: str) -> tuple[int, str]:
    """How many live rows of a table were stored after a moment, and when the last one was."""
    where = f"NOT coalesce(_fivetran_deleted, false) AND _fivetran_synced > TIMESTAMPTZ '{after}'"
    [row] = project.query(
        f'SELECT count(*) AS n, max(_fivetran_synced) AS last FROM tester."{table}" '  # noqa: S608
        f"WHERE {where}"
    )
    return row["n"], str(row["last"] or "")
