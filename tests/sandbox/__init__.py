"""Local stand-ins of the sources: for the tests, for `make demo` and for the benchmarks.

Each is faithful to what is known of its source: authentication, paging, filters, caps, limits,
and every form in which records are sent. `python -m tests.sandbox NAME` starts one alone.
"""

import importlib
from pathlib import Path

from .server import Sandbox


def names() -> list[str]:
    """The connectors that have a stand-in."""
    here = Path(__file__).parent
    connectors = here.parent.parent / "connectors"
    return sorted(p.name for p in connectors.iterdir() if (here / f"{p.name}.py").exists())


def create(name: str) -> Sandbox:
    """The stand-in of a connector's source, with its usual data; not started yet."""
    module = importlib.import_module(f"{__package__}.{name}")
    stand_in: Sandbox = module.create()
    return stand_in
