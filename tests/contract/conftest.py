"""Simulators of every source in turn, and a copy of its connector."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.helpers import in_full
from tests.sandbox import create, kind_of, names
from tests.sandbox.fivetran import Project, Result
from tests.sandbox.server import Sandbox
from tests.sandbox.simulator import Simulator

LITTLE = 7  # the number from which the form of little simulators is drawn


@pytest.fixture(params=names())
def sandbox(request: pytest.FixtureRequest) -> Iterator[Simulator]:
    with create(request.param) as started:
        yield started


@pytest.fixture(params=names())
def little(request: pytest.FixtureRequest) -> Iterator[Simulator]:
    """One with few records; its form is always the same."""
    with kind_of(request.param).small(random.Random(LITTLE)) as started:
        yield started


@pytest.fixture
def project(sandbox: Sandbox, tmp_path: Path) -> Project:
    return Project(sandbox.name, tmp_path)


@pytest.fixture
def sync(project: Project, sandbox: Sandbox) -> Callable[..., Result]:
    """A sync that looks for deletes, too, in the connectors where that is not always so."""

    def run(**changes: str) -> Result:
        return project.sync(in_full(sandbox, **changes))

    return run
