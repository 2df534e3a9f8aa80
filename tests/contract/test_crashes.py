"""A process that is killed, and a sync that fails."""

import os
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from fivetran_connector_sdk_core import runner

from tests.compare import assert_equal_to_source
from tests.contract.helpers import failed, in_full, known, over_http, succeeded
from tests.sandbox.fivetran import Project
from tests.width import wide


@pytest.mark.posix
@pytest.mark.parametrize(("request_number", "by"), [(2, 15), (3, 9), *wide((1, 9), (5, 15))])
@over_http
def test_killed_at_a_request_the_next_sync_reads_the_rest(
    project: Any, sandbox: Any, request_number: int, by: int
) -> None:
    """SIGKILL or SIGTERM during a request, in a first sync and in a later one."""
    for _ in range(2):
        configuration = in_full(sandbox)
        running: list[Any] = []
        fault = sandbox.fault(
            skip=request_number - 1, act=lambda running=running: _kill(running[0], by)
        )
        with sandbox.lock:  # no response is sent until the process is known
            running.append(project.start(configuration))
        output, _ = running[0].communicate(timeout=60)
        killed = running[0].returncode == -by
        assert killed or fault.times, output  # or there were fewer requests
        sandbox.faults.clear()
        succeeded(project.sync(configuration))
        assert_equal_to_source(project, sandbox)
        sandbox.change_something()


def _kill(process: Any, by: int) -> None:
    os.kill(process.pid, by)
    process.wait()


@pytest.mark.parametrize("what", ["a request", "the records", "an upsert", "a checkpoint"])
def test_a_failed_sync_leaves_no_thread(
    little: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: Any, what: str
) -> None:
    """Whatever fails, in whichever thread."""
    settings = {**little.small_pages, **known(little, {"parallel_tables": "3"})}
    if what == "a request":
        little.trouble(little.refusals[0], 3)
    elif what == "the records":
        little.spoil()
    else:
        operation = {"an upsert": "record", "a checkpoint": "checkpoint"}[what]
        monkeypatch.setattr(runner._Sync, operation, mock.Mock(side_effect=RuntimeError))
    failed(Project(little.name, tmp_path).sync(in_full(little, **settings)))
    for thread in threads[1:]:
        thread.join(5)
    assert not [thread.name for thread in threads[1:] if thread.is_alive()]
