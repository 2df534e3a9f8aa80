"""How the tests of this folder run a connector and check the result."""

import functools
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from fivetran_connector_sdk import Operations
from fivetran_connector_sdk_core import runner
from fivetran_connector_sdk_core.cells import decode_row_data

from shared.settings import declared
from tests.sandbox import create, names
from tests.sandbox.fivetran import Project, Result, load
from tests.sandbox.server import Sandbox
from tests.sandbox.simulator import Simulator

over_http = pytest.mark.parametrize("sandbox", names(Sandbox), indirect=True)


def in_full(sandbox: Simulator, **changes: str) -> dict[str, str]:
    """A configuration with which every sync reads everything, and so finds deletes."""
    always = {"reconcile_hours": "0", "max_pages": "1000"}
    return sandbox.configuration(**{**known(sandbox, always), **changes})


def known(sandbox: Simulator, settings: dict[str, str]) -> dict[str, str]:
    """Those of ``settings`` that the connector has."""
    keys = declared(load(sandbox.name).Settings)
    return {key: value for key, value in settings.items() if key in keys}


def within(sandbox: Sandbox, skip: int) -> int:
    """``skip`` requests for data or, if a first sync sends no more than these, all but its last:
    then a fault behind so many meets one."""
    return min(skip, _data_requests(sandbox.name) - 1)


@functools.cache
def _data_requests(name: str) -> int:
    """How many requests for data a first sync sends."""
    with tempfile.TemporaryDirectory() as folder, create(name) as sandbox:
        assert isinstance(sandbox, Sandbox)
        succeeded(Project(name, Path(folder)).sync(in_full(sandbox)))
        return len(sandbox.paths(sandbox.data_path))


@contextmanager
def handed_over() -> Iterator[dict[str, list[dict[str, Any]]]]:
    """The rows, by table, that syncs in this process hand over while this context is open."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    record = runner._Sync.record

    def noting(sync: Any, given: Any) -> None:
        if given.type is runner.RecordType.UPSERT:
            rows[given.table].append(decode_row_data(given.row_data))
        record(sync, given)

    with mock.patch.object(runner._Sync, "record", noting):
        yield rows


@contextmanager
def truncated() -> Iterator[list[str]]:
    """The tables that syncs in this process truncate while this context is open."""
    tables, truncate = list[str](), Operations.truncate

    def noting(table: str, **others: Any) -> None:
        tables.append(table)
        truncate(table, **others)

    with mock.patch.object(Operations, "truncate", noting):
        yield tables


def succeeded(result: Result) -> Result:
    assert result.code == 0, result.output
    return result


def failed(result: Result) -> Result:
    assert result.code != 0, result.output
    assert "Error: failed while executing" in result.output
    return result
