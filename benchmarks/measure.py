"""Work in fresh processes, and figures beside their floors."""

import multiprocessing
import os
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

T = TypeVar("T")
# Processes are forks of one that has only imported what they need: a fork of this process would
# inherit its memory, and imports would take longer than what is measured.
if sys.platform == "win32":
    PROCESSES = multiprocessing.get_context("spawn")
else:
    PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "benchmarks.rest",
        "benchmarks.simulated",
        "benchmarks.mssql_ehi",
        "benchmarks.mssql_parallel",
        "benchmarks.mssql_tables",
    ]
)


@dataclass(frozen=True)
class Plan:
    """How often to measure, on how many ``rows`` (None: the usual ones); ``say`` reports the
    progress.

    ``scale`` multiplies the usual sizes and latencies: a small one only shows that all works.
    """

    repeats: int
    rows: int | None
    say: Callable[[str], object]
    scale: float = 1.0

    def size(self, usual: int) -> int:
        """The rows of the largest table."""
        return self.rows or round(usual * self.scale)


@dataclass(frozen=True)
class Figure:
    """What was measured in each run, and the floor of that run, in ``unit``.

    Limits, where there are any: ``most_ratio`` to the floor, ``most_above`` it in ``unit``.
    """

    name: str
    unit: str
    values: Sequence[float]
    floors: Sequence[float]
    most_ratio: float | None = None
    most_above: float | None = None

    @property
    def value(self) -> float:
        return median(self.values)

    @property
    def floor(self) -> float:
        return median(self.floors)

    @property
    def ratios(self) -> list[float]:
        """The ratio of each run, so that the slowness of a whole run cancels out."""
        return [value / floor for value, floor in zip(self.values, self.floors, strict=True)]

    @property
    def ratio(self) -> float:
        return median(self.ratios)

    @property
    def limit(self) -> str:
        if self.most_ratio is not None:
            return f"ratio {self.most_ratio:g}"
        return "" if self.most_above is None else f"floor + {self.most_above:g} {self.unit}"

    @property
    def within(self) -> bool:
        """Whether the figure is within its limits."""
        return (self.most_ratio is None or self.ratio <= self.most_ratio) and (
            self.most_above is None or self.value - self.floor <= self.most_above
        )

    def report(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "unit": self.unit,
            "value": self.value,
            "floor": self.floor,
            "ratio": self.ratio,
            "ratios": self.ratios,
            "limit": self.limit,
            "within": self.within,
        }


def fresh(work: Callable[..., T], *arguments: Any) -> T:
    """The result of ``work(*arguments)`` in a new process."""
    with ProcessPoolExecutor(1, PROCESSES) as pool:
        return pool.submit(work, *arguments).result()


def peak_memory() -> float:
    """The most MB of memory that this process had resident.

    Not ru_maxrss of getrusage, which also counts the parent that a process was started from.
    """
    [peak] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(peak) / 1024


def forget_peak() -> None:
    """Lets ``peak_memory`` begin anew, at what is resident now."""
    Path("/proc/self/clear_refs").write_text("5")


def use_one_core() -> None:
    """Keeps this process on one core: threads that compete for the interpreter's lock on several
    cores cost more, and a varying amount."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
