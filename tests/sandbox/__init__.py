"""Local simulators of the sources: for the tests, for `make demo` and for the benchmarks.

Each is faithful to what is known of its source: authentication, paging, filters, caps, limits,
and every form in which records are sent. `python -m tools sandbox NAME` starts one alone.
"""

import importlib
from pathlib import Path

from tools.paths import NAMES

from .simulator import Simulator


def names(kind: type[Simulator] = Simulator) -> list[str]:
    """The connectors that have a simulator (of ``kind``)."""
    here = Path(__file__).parent
    found = [name for name in NAMES if (here / f"{name}.py").exists()]
    return [name for name in found if issubclass(kind_of(name), kind)]


def create(name: str) -> Simulator:
    """The simulator of a connector's source, with its usual data; it is not started yet."""
    return kind_of(name)()


def kind_of(name: str) -> type[Simulator]:
    """The class of a connector's simulator."""
    module = importlib.import_module(f"{__package__}.{name}")
    classes = [each for each in vars(module).values() if isinstance(each, type)]
    own = [each for each in classes if each.__module__ == module.__name__]
    [found] = [each for each in own if issubclass(each, Simulator)]
    return found
