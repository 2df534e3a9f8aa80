"""Fixtures: the simulator of each source in turn, and a copy of its connector."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.helpers import in_full
from tests.sandbox import create, kind_of, names
from tests.sandbox.fivetran import Project, Result
from tests.sandbox.server import Sandbox
from tests.sandbox.simulator import Simulator

LITTLE = 7  # the seed of the form of little simulators


@pytest.fixture(params=names())
def sandbox(request: pytest.FixtureRequest) -> Iterator[Simulator]:
    with create(request.param) as started:
        yield started


@pytest.fixture(params=names())
def little(request: pytest.FixtureRequest) -> Iterator[Simulator]:
    """A simulator with few records; its form is always the same."""
    with kind_of(request.param).small(random.Random(LITTLE)) as started:
        yield started


@pytest.fixture
def project(sandbox: Sandbox, tmp_path: Path) -> Project:
    return Project(sandbox.name, tmp_path)


@pytest.fixture
def sync(project: Project, sandbox: Sandbox) -> Callable[..., Result]:
    """Runs a sync that also finds deletes, in every connector."""

    def run(**changes: str) -> Result:
        return project.sync(in_full(sandbox, **changes))

    return run
