"""Servers for the tests of the simulator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pytds import tds_base, tds_reader

from tests.sandbox.mssql import MssqlSandbox
from tests.sandbox.mssql.adapter import RealServer, from_environment
from tests.sandbox.mssql.stock import stock_driver


@pytest.fixture(autouse=True)
def _stock() -> Iterator[None]:
    """The driver without the patches of the connector."""
    with stock_driver():
        yield


@pytest.fixture
def server() -> Iterator[MssqlSandbox]:
    """A server that has closed its connections, and failed nowhere, by the end of a test."""
    with MssqlSandbox() as running:
        yield running
    assert running.open_connections == 0
    assert running.failures == []


@pytest.fixture
def source() -> Iterator[MssqlSandbox | RealServer]:
    """The server that MSSQL_TEST_SERVER names, else the simulator."""
    with from_environment() as started:
        yield started


@pytest.fixture
def busy(server: MssqlSandbox) -> MssqlSandbox:
    """A server with 500 rows in dbo.b."""
    server.create_table("dbo", "b", [("id", "int", False), ("v", "int")], key=["id"],
                        rows=[(i, 0) for i in range(500)])  # fmt: skip
    return server


@pytest.fixture
def whole_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client reads a value in at most two pieces, and gets it wrong when there are more."""

    def read_all(stream: Any, size: int) -> tuple[bytes, int]:
        return tds_base.readall(stream, size), 0

    monkeypatch.setattr(tds_reader, "readall_fast", read_all)
