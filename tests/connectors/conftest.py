"""Fixtures for the tests of mssql_ehi; the tests of the others make their own simulators."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.connectors.mssql import NOW, Source
from tests.sandbox.fivetran import Project, load
from tests.sandbox.mssql import MssqlSandbox, from_environment


@pytest.fixture
def server() -> Iterator[MssqlSandbox]:
    """The simulator, at NOW."""
    with MssqlSandbox() as started:
        started.set_clock(NOW)
        yield started
        assert started.failures == []


@pytest.fixture
def source() -> Iterator[Source]:
    """The server that MSSQL_TEST_SERVER names, else the simulator."""
    with from_environment() as started:
        yield started


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project("mssql_ehi", tmp_path)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that the connector wanted to wait; it goes on at once."""
    recorded: list[float] = []
    monkeypatch.setattr("shared.rest.pause", lambda _, seconds: recorded.append(seconds))
    return recorded


@pytest.fixture
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of 10 rows and checkpoints after 20, in place of 1,000 and 5,000, however many
    tables there are."""
    monkeypatch.setattr(load("mssql_ehi"), "BATCH_SIZE", 10)
    monkeypatch.setattr(load("mssql_ehi"), "CHECKPOINT_INTERVAL", 20)
    monkeypatch.setattr("sqlserver.checkpoints.ROWS_A_TABLE", 0)
