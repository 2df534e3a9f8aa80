"""The benchmarks run; what they measure on a busy machine is no matter of the tests."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import simulated, sources
from benchmarks.__main__ import NAMES
from benchmarks.measure import Figure
from tests.width import wide
from tools.paths import ROOT

_FIGURES = {"mssql_ehi": 7, "mssql_ehi_tables": 15, "mssql_ehi_parallel": 8}
_FIGURES |= dict.fromkeys(sources.NAMES, 11) | dict.fromkeys(simulated.NAMES, 7)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is measured on Linux only")
@pytest.mark.parametrize("name", ["sensource", *wide(*(n for n in NAMES if n != "sensource"))])
def test_the_benchmarks_run(name: str, tmp_path: Path) -> None:
    """On tables of any size, with a report for machines."""
    path = tmp_path / "figures.json"
    options = [name, "--scale", "0.01", "--repeats", "1", "--json", str(path)]
    subprocess.run(
        [sys.executable, "-m", "benchmarks", *options], cwd=ROOT, check=True, capture_output=True
    )
    report = json.loads(path.read_text())["benchmarks"]
    counts = {each: len(figures) for each, figures in report.items()}
    if name == "mssql_ehi":  # which is measured beside other drivers, too, where there are any
        counts[name] -= sum("read, " in figure["name"] for figure in report[name]) - 1
    assert counts == {name: _FIGURES[name]}
    assert all(figure["ratio"] > 0 for figures in report.values() for figure in figures)


def test_a_ratio_is_the_median_of_the_runs() -> None:
    """Each run is compared with its own floor."""
    figure = Figure("f", "s", [2.0, 9.0, 3.0], [1.0, 3.0, 2.0], most_ratio=1.9)
    assert figure.ratios == [2.0, 3.0, 1.5]
    assert (figure.ratio, figure.within) == (2.0, False)


def test_a_limit_above_the_floor_is_one_in_units() -> None:
    """20 MB above 100 MB are 120 MB, whatever the ratio."""
    assert Figure("f", "MB", [120.0], [100.0], most_above=20).within
    assert not Figure("f", "MB", [121.0], [100.0], most_above=20).within
