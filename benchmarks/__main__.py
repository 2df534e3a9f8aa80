import argparse
import json
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

import benchmarks

from . import mssql_ehi, mssql_parallel, mssql_tables, rest, simulated, sources
from .measure import Figure, Plan

_RUNS = {
    "mssql_ehi": mssql_ehi.run,
    "mssql_ehi_tables": mssql_tables.run,
    "mssql_ehi_parallel": mssql_parallel.run,
}
NAMES = (*_RUNS, *sources.NAMES, *simulated.NAMES)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=benchmarks.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--rows", type=int, help="rows of the largest table (see above)")
    parser.add_argument("--repeats", type=int, default=5, help="number of runs; medians are shown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE, too")
    parser.add_argument("--scale", type=float, default=1.0, help=argparse.SUPPRESS)  # for tests
    parser.add_argument("--check", action="store_true", help="exit code 1 if over a limit")
    chosen = parser.parse_args()
    if unknown := set(chosen.names) - set(NAMES):
        parser.error(f"there is no benchmark of {', '.join(sorted(unknown))}")
    console = Console(width=100)
    report: dict[str, list[Figure]] = {}
    for name in chosen.names or NAMES:
        with console.status("") as status:
            plan = Plan(chosen.repeats, chosen.rows, status.update, chosen.scale)
            report[name] = list(_figures(name, plan))
        console.print(_table(name, report[name]))
    if chosen.json:
        found = {
            "python": platform.python_version(),
            "repeats": chosen.repeats,
            "benchmarks": {n: [f.report() for f in figures] for n, figures in report.items()},
        }
        chosen.json.write_text(json.dumps(found, indent=2) + "\n")
    within = all(figure.within for figures in report.values() for figure in figures)
    return int(chosen.check and not within)


def _figures(name: str, plan: Plan) -> Iterator[Figure]:
    run = rest.run if name in sources.NAMES else simulated.run
    return _RUNS[name](plan) if name in _RUNS else run(name, plan)


def _table(name: str, figures: list[Figure]) -> Table:
    table = Table("figure, floor", "unit", title=name)
    for heading in ("measured", "floor", "ratio", "spread", "limit"):
        table.add_column(heading, justify="right")
    for f in figures:
        spread = f"{min(f.ratios):.2f} to {max(f.ratios):.2f}"
        limit = f.limit if f.within else f"[red]exceeds {f.limit}"
        table.add_row(
            f.name, f.unit, f"{f.value:.2f}", f"{f.floor:.2f}", f"{f.ratio:.2f}", spread, limit
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
