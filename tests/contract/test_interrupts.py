"""Ctrl-C ends a sync within two seconds, whatever its threads wait for, and needs no second one.

Each test knows from the simulator, or from the log, that the sync waits.
"""

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.rest import RestClient
from tests.contract.helpers import known, over_http
from tests.sandbox import kind_of
from tests.sandbox.fivetran import Project
from tests.sandbox.mssql import faults
from tests.width import wide

LIMIT = 2.0  # seconds
DATA = r"^SELECT .* FROM \[(dbo|archive)\]\.\[.*AS T"

pytestmark = pytest.mark.posix


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What responses wait for; a simulator cannot stop before them."""
    opened = threading.Event()
    yield opened
    opened.set()


def assert_ends(process: Any, number: int = signal.SIGINT) -> None:
    began = time.monotonic()
    os.kill(process.pid, number)
    try:
        output, _ = process.communicate(timeout=10)
    finally:
        if process.returncode is None:
            process.kill()
    assert time.monotonic() - began < LIMIT
    assert process.returncode != 0
    assert not re.search("ERROR|please report|has ended|SUCCEEDED", output)


@over_http
def test_no_request_for_data_runs_in_the_main_thread(
    project: Project, sandbox: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal that comes right before it waits for a response would not end it."""
    threads, once = list[threading.Thread](), RestClient._once

    def noting(client: RestClient, what: str, method: str, url: str, content: Any) -> Any:
        if sandbox.data_path in url:
            threads.append(threading.current_thread())
        return once(client, what, method, url, content)

    monkeypatch.setattr(RestClient, "_once", noting)
    for _ in range(2):
        assert project.sync(sandbox.configuration()).code == 0
    assert threads
    assert threading.main_thread() not in threads


def await_line(process: Any, text: str, times: int = 1) -> None:
    """Reads the log until it has the text so many times. Lines of two threads may be one."""
    stopped = threading.Timer(20, process.kill)
    stopped.start()
    for line in process.stdout:
        times -= line.count(text)
        if times <= 0:
            break
    stopped.cancel()
    assert times <= 0


@over_http
def test_a_back_off(sandbox: Any, project: Project) -> None:
    """For as long as the source asks to wait."""
    sandbox.fault(sandbox.data_path, times=None, status=503, headers={"Retry-After": "600"})
    process = project.start(sandbox.configuration())
    await_line(process, "retry 1 of")
    assert_ends(process)


@over_http
@pytest.mark.parametrize("how", ["silent", *wide("slow")])
def test_a_response(sandbox: Any, project: Project, gate: threading.Event, how: str) -> None:
    """Of which nothing comes, or a byte now and then; of four requests where there are four."""
    waits = threading.Event()

    def wait() -> None:
        waits.set()
        gate.wait(20 if how == "silent" else 0.1)

    does = {"act" if how == "silent" else "trickle": wait}
    sandbox.fault(sandbox.data_path, times=None, **does)
    more = known(sandbox, {"parallel_requests": "4", "request_timeout_seconds": "60"})
    process = project.start(sandbox.configuration(**more))
    assert waits.wait(20)
    assert_ends(process)


@over_http
def test_a_response_that_is_read_ahead(
    sandbox: Any, project: Project, gate: threading.Event
) -> None:
    """While the rows of the pages before it are stored."""
    waits = threading.Event()

    def wait() -> None:
        waits.set()
        gate.wait(20)

    sandbox.fault(sandbox.data_path, skip=2, times=None, act=wait)
    process = project.start(sandbox.configuration(**sandbox.small_pages))
    assert waits.wait(20)
    assert_ends(process)


def test_a_renewal_of_tokens(tmp_path: Path, gate: threading.Event) -> None:
    """Though an error of another request does not end it: new tokens would be lost."""
    waits = threading.Event()

    def wait() -> None:
        waits.set()
        gate.wait(20)

    with kind_of("dentally")() as sandbox:
        sandbox.fault(sandbox.data_path, times=None, status=401)  # type: ignore[attr-defined]
        sandbox.fault("/oauth/token", times=None, act=wait)  # type: ignore[attr-defined]
        process = Project("dentally", tmp_path).start(sandbox.configuration())
        assert waits.wait(20)
        assert_ends(process)


def sql_server() -> Any:
    return kind_of("mssql_ehi")()


@pytest.mark.parametrize("number", [signal.SIGINT, *wide(signal.SIGTERM)])
@pytest.mark.parametrize("workers", [4, *wide(1)])
def test_stalled_queries(tmp_path: Path, workers: int, number: int) -> None:
    """Each over a connection of its own."""
    stalls = [faults.stall(DATA) for _ in range(workers)]
    with sql_server() as simulator:
        simulator.server.faults.add(*stalls)
        process = Project("mssql_ehi", tmp_path).start(
            simulator.configuration(parallel_tables=str(workers), max_tables="0")
        )
        assert all(stall.reached.wait(20) for stall in stalls)
        assert_ends(process, number)


@pytest.mark.parametrize("workers", [4, *wide(1)])
def test_back_offs_of_workers(tmp_path: Path, workers: int) -> None:
    """A fail-over takes a minute."""
    with sql_server() as simulator:
        simulator.server.faults.add(faults.fail(40501, "x", 0, match=DATA, times=99))
        process = Project("mssql_ehi", tmp_path).start(
            simulator.configuration(parallel_tables=str(workers), max_tables="0")
        )
        await_line(process, "retry 1 of", workers)
        assert_ends(process)


def test_a_login_of_a_worker(tmp_path: Path) -> None:
    """The server says nothing, or is one that does not respond at all."""
    stall = faults.stall(skip=1)  # the first one asks what changed
    with sql_server() as simulator:
        simulator.server.faults.add(
            faults.call(lambda: simulator.server.faults.add_login(stall), "isolation_state")
        )
        process = Project("mssql_ehi", tmp_path).start(
            simulator.configuration(parallel_tables="4", login_timeout_seconds="60")
        )
        assert stall.reached.wait(20)
        assert_ends(process)
