"""Fixtures for all tests. No test waits for real time, and none reaches beyond this machine."""

import sys
from pathlib import Path

import pytest
from fivetran_connector_sdk import Logging
from fivetran_connector_sdk_common import constants
from hypothesis import settings

from shared.rest import RestClient
from tests.sandbox.fivetran import Project

settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On Windows, tests that need what it does not have are skipped."""
    if sys.platform == "win32":
        for item in items:
            if item.get_closest_marker("posix"):
                item.add_marker(pytest.mark.skip(reason="needs POSIX"))


@pytest.fixture(autouse=True)
def _logging(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's log, as `fivetran debug` sets it up."""
    monkeypatch.setattr(Logging, "LOG_LEVEL", Logging.Level.DEBUG)
    monkeypatch.setattr(constants, "DEBUGGING", True)


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that clients in this process wanted to wait; they go on at once."""
    recorded: list[float] = []
    monkeypatch.setattr(RestClient, "_sleep", lambda _client, seconds: recorded.append(seconds))
    return recorded


@pytest.fixture
def dentally(tmp_path: Path) -> Project:
    return Project("dentally", tmp_path)
