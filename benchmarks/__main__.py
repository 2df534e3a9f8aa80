import argparse
import json
import platform
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

import benchmarks

from . import mssql_ehi


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=benchmarks.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="of the largest table")
    parser.add_argument("--repeats", type=int, default=5, help="runs, of which medians are shown")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--check", action="store_true", help="exit code 1 over a limit")
    chosen = parser.parse_args()
    console = Console(width=100)
    with console.status("") as status:
        figures = list(mssql_ehi.run(chosen.rows, chosen.repeats, status.update))
    table = Table("figure, floor", "unit", title=f"mssql_ehi, {chosen.rows:,} rows")
    for heading in ("measured", "floor", "ratio", "spread", "limit"):
        table.add_column(heading, justify="right")
    for f in figures:
        spread = f"{min(f.ratios):.2f} to {max(f.ratios):.2f}"
        limit = f.limit if f.within else f"[red]exceeds {f.limit}"
        table.add_row(
            f.name, f.unit, f"{f.value:.2f}", f"{f.floor:.2f}", f"{f.ratio:.2f}", spread, limit
        )
    console.print(table)
    if chosen.json:
        report = {
            "python": platform.python_version(),
            "rows": chosen.rows,
            "repeats": chosen.repeats,
            "benchmarks": {"mssql_ehi": [figure.report() for figure in figures]},
        }
        chosen.json.write_text(json.dumps(report, indent=2) + "\n")
    return int(chosen.check and not all(figure.within for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
