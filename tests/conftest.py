"""Fixtures for all tests. No test waits for real time, and none reaches beyond this machine."""

import gc
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fivetran_connector_sdk import Logging
from fivetran_connector_sdk_common import constants
from hypothesis import settings

from tests.sandbox.engine import CAN_FORK, Forks
from tests.sandbox.fivetran import Project

settings.register_profile(
    "repeatable", max_examples=40, derandomize=True, deadline=None, database=None
)
settings.register_profile("full", settings.get_profile("repeatable"), max_examples=300)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--full", action="store_true", help="at full width: `wide` tests, too, and more examples"
    )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores, for some tests wait for a timeout of theirs."""
    return (os.cpu_count() or 1) + 1


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--full"):
        settings.load_profile("full")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without --full, `wide` tests are left out; on Windows those that need what it has not."""
    if not config.getoption("--full"):
        wide = [item for item in items if item.get_closest_marker("wide")]
        config.hook.pytest_deselected(items=wide)
        items[:] = [item for item in items if item not in wide]
    if sys.platform == "win32":
        for item in items:
            if item.get_closest_marker("posix"):
                item.add_marker(pytest.mark.skip(reason="needs POSIX"))


@pytest.fixture(autouse=True, scope="session")
def _forks() -> Iterator[None]:
    """The `fivetran` command runs in forks of one process, where the system lets it."""
    Project.forks = Forks() if CAN_FORK else None
    yield
    if Project.forks:
        Project.forks.stop()


@pytest.fixture
def full(pytestconfig: pytest.Config) -> bool:
    """Whether the tests run at full width."""
    return bool(pytestconfig.getoption("--full"))


@pytest.fixture(autouse=True)
def _logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's log, as `fivetran debug` sets it up."""
    monkeypatch.setattr(Logging, "LOG_LEVEL", Logging.Level.DEBUG)
    monkeypatch.setattr(constants, "DEBUGGING", True)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that clients in this process wanted to wait; they go on at once."""
    recorded: list[float] = []
    monkeypatch.setattr(
        "shared.rest.pause", lambda closed, seconds: recorded.append(round(seconds, 3))
    )
    return recorded


@pytest.fixture(autouse=True)
def _collectable() -> Iterator[None]:
    """What a sync in this process kept from collections is collected after the test."""
    yield
    gc.unfreeze()


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Those that this test starts, and those that they start; not those of simulators."""
    started, start = [threading.current_thread()], threading.Thread.start

    def noting(thread: threading.Thread) -> None:
        if threading.current_thread() in started:
            started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noting)
    return started


@pytest.fixture
def dentally(tmp_path: Path) -> Project:
    return Project("dentally", tmp_path)
