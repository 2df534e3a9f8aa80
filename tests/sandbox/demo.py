"""`make demo`: runs the real `fivetran debug` of every connector, twice, against its simulator.

Records change at the source between the two syncs. A connector that finds deletes only by a full
refresh has a third sync, which is one. All files are in build/demo/.
"""

import argparse
import json
import shutil
import sys

from rich.console import Console
from rich.table import Table

from . import create, names
from .fivetran import ROOT, Project, Result

_COLUMNS = ("connector", "table", "rows", "columns", "1st sync", "2nd sync", "deleted", "seconds")


def demonstrate(name: str, summary: Table) -> Project:
    """Runs the syncs of one connector; ``summary`` gets a line for each of its tables."""
    folder = ROOT / "build" / "demo" / name
    shutil.rmtree(folder, ignore_errors=True)
    project = Project(name, folder)
    with create(name) as sandbox:
        first = _sync(project, sandbox.configuration(), "first")
        before = {table: _stored(project, table, "1970-01-01") for table in _tables(project)}
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
    result = project.debug(configuration)
    (project.path.parent / f"{name}.log").write_text(result.output)
    if result.code:
        sys.exit(f"fivetran debug failed:\n{result.output}")
    return result


def _tables(project: Project) -> list[str]:
    rows = project.query(
        "SELECT table_name FROM information_schema.tables WHERE table_schema = 'tester' "
        "AND table_name <> '_fivetran_metadata' ORDER BY 1"
    )
    return [row["table_name"] for row in rows]


def _stored(project: Project, table: str, after: str) -> tuple[int, str]:
    """How many live rows of a table were stored after a moment, and when the last one was."""
    where = f"NOT coalesce(_fivetran_deleted, false) AND _fivetran_synced > TIMESTAMPTZ '{after}'"
    [row] = project.query(
        f'SELECT count(*) AS n, max(_fivetran_synced) AS last FROM tester."{table}" '  # noqa: S608
        f"WHERE {where}"
    )
    return row["n"], str(row["last"] or "")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="CONNECTOR", help=", ".join(names()))
    chosen = parser.parse_args().names or names()
    console = Console(width=100)
    summary = Table(*_COLUMNS, title="Rows by table; the columns of the syncs count upserts")
    projects = []
    for name in chosen:
        console.print(f"{name}: first sync, a change at the source, second sync ...")
        projects.append(demonstrate(name, summary))
    logs = "build/demo/*/*.log"
    console.print(
        summary, f"The logs of the syncs: {logs}", "Look into the tables with:", sep="\n"
    )
    for project in projects:
        console.print(f"  duckdb -ui {project.warehouse.relative_to(ROOT)}", soft_wrap=True)


if __name__ == "__main__":
    main()
