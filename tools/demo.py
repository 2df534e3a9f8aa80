"""The real `fivetran debug` for every connector, against its simulator.

Records change at the source between the first sync and the second. A connector that finds deletes
only by a full refresh has a third sync, which is one. All files are in build/demo/.
"""

import json
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.sandbox import create
from tests.sandbox.fivetran import Project
from tools.paths import NAMES, build_folder

_HEADERS = ("1st\nupserts", "2nd\nupserts", "2nd\ndeletes", "3rd\nupserts", "3rd\ndeletes")
_EXPLAINED = (
    "What did not change is not sent; a full refresh of a list with up to 1,000 records that has\n"
    "changed sends all of them. Deletes that only a full refresh finds come with the third sync."
)
_FONTS = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


@dataclass(frozen=True)
class _Sync:
    """What one sync did: the rows that it stored and those that it deleted, by table.
    ``last``: the newest time of a row after it."""

    seconds: float
    upserts: dict[str, int]
    deletes: dict[str, int]
    last: str


def demo(names: Sequence[str] = (), picture: str = "") -> None:
    """Syncs the connectors of these names, or all, and prints what is in their tables then; with
    the path of a ``picture``, into an SVG file, too.

    Raises SystemExit with the output of `fivetran debug` if a sync fails.
    """
    console = Console(width=100, record=bool(picture), highlight=False)
    chosen = names or NAMES
    summary = Table("connector", "table", "rows", *_HEADERS, title="Rows, and what each sync did")
    for name in chosen:
        _demonstrate(name, summary, console)
    console.print(summary, _EXPLAINED, "The logs of the syncs: build/demo/*/*.log", sep="\n")
    console.print("Look into the tables with:")
    for name in chosen:
        console.print(f"  make show CONNECTOR={name}")
    if picture:
        svg = console.export_svg(title="make demo")
        # Fonts of another host are loaded by no page that shows the picture.
        Path(picture).write_text(_FONTS.sub("", svg), encoding="utf-8")


def _demonstrate(name: str, summary: Table, console: Console) -> None:
    """Syncs one connector, and adds a row for each of its tables to ``summary``."""
    folder = build_folder() / "demo" / name
    shutil.rmtree(folder, ignore_errors=True)
    project = Project(name, folder)
    refreshes = "reconcile_hours" in json.loads((project.path / "configuration.json").read_text())
    third = ", third sync (a full refresh)" if refreshes else ""
    console.print(f"{name}: first sync, a change at the source, second sync{third} ...")
    with create(name) as sandbox:
        syncs = [_sync(project, sandbox.configuration(), "first", None)]
        sandbox.change_something()
        syncs.append(_sync(project, sandbox.configuration(), "second", syncs[-1]))
        if refreshes:
            settings = sandbox.configuration(reconcile_hours="0")
            syncs.append(_sync(project, settings, "third", syncs[-1]))
    console.print("  " + ", ".join(f"{sync.seconds:.1f} s" for sync in syncs))
    for table in project.tables():
        summary.add_row(name, table, str(len(project.rows(table))), *_cells(table, syncs))


def _cells(table: str, syncs: Sequence[_Sync]) -> list[str]:
    """The counts of a table for the columns of ``_HEADERS``: the first sync has none to delete."""
    counts = [n for s in syncs for n in (s.upserts.get(table, 0), s.deletes.get(table, 0))]
    del counts[1]
    return [*map(str, counts), *["-"] * (len(_HEADERS) - len(counts))]


def _sync(
    project: Project, configuration: dict[str, str], name: str, before: _Sync | None
) -> _Sync:
    """One sync, whose log goes into ``<name>.log``. ``before``: the one before it."""
    gone = {table: _deleted(project, table) for table in project.tables()} if before else {}
    result = project.debug(configuration)
    (project.path.parent / f"{name}.log").write_text(result.output, encoding="utf-8")
    if result.code:
        sys.exit(f"fivetran debug failed:\n{result.output}")
    tables = project.tables()
    after = before.last if before else "1970-01-01"
    stored = {table: _stored(project, table, after) for table in tables}
    return _Sync(
        result.seconds,
        {table: count for table, (count, _) in stored.items()},
        {table: _deleted(project, table) - gone.get(table, 0) for table in tables},
        max([after, *(last for _, last in stored.values())]),
    )


def _deleted(project: Project, table: str) -> int:
    return len(project.rows(table, deleted=True))


def _stored(project: Project, table: str, after: str) -> tuple[int, str]:
    """How many live rows of a table were stored after a moment, and when the last one was."""
    where = f"NOT coalesce(_fivetran_deleted, false) AND _fivetran_synced > TIMESTAMPTZ '{after}'"
    [row] = project.query(
        f'SELECT count(*) AS n, max(_fivetran_synced) AS last FROM tester."{table}" '  # noqa: S608
        f"WHERE {where}"
    )
    return row["n"], str(row["last"] or "")
