"""Transient faults are retried; final ones fail a table or the sync, and nothing is lost."""

import errno
import io
import random
import re
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shared.rest import LONGEST_WAIT
from shared.spool import Spool
from tests.compare import assert_equal_to_source
from tests.contract.helpers import failed, in_full, known, over_http, succeeded, truncated, within
from tests.sandbox import create
from tests.sandbox.fivetran import Project, stored_table
from tests.width import wide

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "what",
    [
        {"skip": 0, "status": 503},
        {"skip": 2, "cut": True},
        *wide(
            {"skip": 2, "status": 500, "body": "<html>"},
            {"skip": 1, "status": 408},
            {"skip": 0, "status": 429},
            {"skip": 2, "drop": True},
            {"skip": 1, "cut": True, "part": "headers"},
            {"skip": 2, "status": 200, "body": "{", "headers": JSON},
        ),
    ],
    ids=lambda what: "-".join(f"{key}{value}"[:9] for key, value in what.items()),
)
@over_http
def test_a_transient_fault_is_retried(
    sync: Any, project: Any, sandbox: Any, waits: list[float], what: dict[str, Any]
) -> None:
    """After one retry all rows are there, none lost or doubled."""
    at = {"skip": within(sandbox, what["skip"])}
    sandbox.fault(sandbox.data_path, **{**what, **at})
    succeeded(sync())
    assert_equal_to_source(project, sandbox)
    assert len(waits) == 1


@pytest.mark.parametrize("status", [429, *wide(503)])
@over_http
def test_the_source_says_how_long_to_wait(
    sync: Any, project: Any, sandbox: Any, waits: list[float], status: int
) -> None:
    """Retry-After is honoured to the second."""
    sandbox.fault(
        sandbox.data_path, skip=within(sandbox, 1), status=status, headers={"Retry-After": "77"}
    )
    succeeded(sync())
    assert waits == [77.0]


@over_http
def test_a_wait_that_is_too_long_ends_the_sync(
    sync: Any, project: Any, sandbox: Any, waits: list[float]
) -> None:
    """Beyond the stated cap the sync ends at once, and the error says so."""
    asked = str(int(LONGEST_WAIT) + 1)
    sandbox.fault(
        sandbox.data_path, skip=within(sandbox, 1), status=429, headers={"Retry-After": asked}
    )
    assert f"asks to wait {asked} s" in failed(sync()).output
    assert waits == []
    sandbox.faults.clear()
    succeeded(sync())
    assert_equal_to_source(project, sandbox)


@pytest.mark.parametrize("attempts", [*wide(0), 2])
@over_http
def test_an_endless_fault_ends_the_sync(
    sync: Any, sandbox: Any, waits: list[float], attempts: int
) -> None:
    """After the first request of a list come `retry_attempts` retries, then an error that names
    the endpoint."""
    sandbox.fault(sandbox.data_path, times=None, status=503)
    result = failed(sync(retry_attempts=str(attempts)))
    paths = Counter(sandbox.paths(sandbox.data_path))
    assert set(paths.values()) == {1 + attempts}
    assert len(waits) == attempts * len(paths)
    error = result.output.rpartition("Error: failed while executing")[2]
    gave_up = f"; gave up after {attempts} retries" if attempts else ""
    assert all(re.search(rf"{path}: status 503{gave_up}$", error, re.M) for path in paths)


@pytest.mark.parametrize("status", [403, *wide(400, 404, 410, 422)])
@over_http
def test_a_final_refusal_is_not_retried(
    sync: Any, project: Any, sandbox: Any, waits: list[float], status: int
) -> None:
    """Each list gets one request, and the error names each endpoint and the status."""
    sandbox.fault(sandbox.data_path, times=None, status=status, body='{"error": "no"}')
    result = failed(sync())
    paths = sandbox.paths(sandbox.data_path)
    assert len(paths) == len(set(paths))
    error = result.output.rpartition("Error: failed while executing")[2]
    assert all(f"{path}: status {status}" in error for path in paths)
    assert waits == []


@over_http
def test_credentials_that_are_refused_end_the_sync_at_once(
    sync: Any, sandbox: Any, waits: list[float]
) -> None:
    """They concern every table, so no other list is requested."""
    sandbox.fault(sandbox.data_path, times=None, status=401, body='{"error": "no"}')
    assert "status 401" in failed(sync()).output
    assert len(set(sandbox.paths(sandbox.data_path))) == 1


@over_http
def test_a_table_that_fails_leaves_the_others_alone(
    sync: Any, project: Any, sandbox: Any, full: bool
) -> None:
    """Each in turn (the first and the last one, but for --full) is forbidden for two syncs: the
    others keep up with the source, and the error at the end names the one. When it is allowed
    again, nothing is missing."""
    succeeded(sync())
    paths = list(dict.fromkeys(sandbox.paths(sandbox.data_path)))
    if not full:
        paths = [paths[0], paths[-1]]
    for path in paths if len(set(paths)) > 1 else []:
        sandbox.fault(path, times=None, status=403, body='{"error": "no"}')
        for _ in range(2):
            sandbox.change_something()
            output = failed(sync()).output
            # A list of deletes may be below that of the records, and is asked for first.
            assert re.search(rf"{path}\S*: status 403", output.rpartition("1 of ")[2])
            assert_equal_to_source(project, sandbox, without=path.rpartition("/")[2])
        sandbox.faults.clear()
        succeeded(sync())
        assert_equal_to_source(project, sandbox)


@pytest.mark.parametrize(
    ("skip", "body"),
    [
        (0, "{}"),
        (1, '{"error": {"type": "x"}}'),
        (2, '{"meta": {"total": 0}}'),
        (1, "null"),
        *wide((2, '"text"'), (0, "17"), (1, "<html>")),
    ],
)
@over_http
def test_what_is_not_understood_is_not_taken_for_the_end(
    sync: Any, project: Any, sandbox: Any, body: str, skip: int
) -> None:
    """Status 200 with anything but the expected response fails, and the error names the
    endpoint."""
    kind = "text/html" if body.startswith("<") else "application/json"
    sandbox.fault(
        sandbox.data_path,
        skip=within(sandbox, skip),
        times=None,
        status=200,
        body=body,
        headers={"Content-Type": kind},
    )
    result = failed(sync())
    assert sandbox.paths(sandbox.data_path)[-1] in result.output
    sandbox.faults.clear()
    succeeded(sync())
    assert_equal_to_source(project, sandbox)


@over_http
def test_a_redirect_to_another_host_gets_no_request(sync: Any, sandbox: Any) -> None:
    """The credentials are sent to the configured host only."""
    with create(sandbox.name) as elsewhere:
        target = f"{elsewhere.url}{sandbox.data_path}"
        sandbox.fault(sandbox.data_path, times=None, status=302, headers={"Location": target})
        failed(sync())
        assert elsewhere.requests == []


@pytest.mark.parametrize("part", ["headers", *wide("size", "body")])
@over_http
def test_a_response_that_trickles_ends_at_its_deadline(
    project: Any, sandbox: Any, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """A response that trickles byte by byte ends at its deadline, in any part of it from the
    status line on."""
    monkeypatch.setattr("shared.rest.DEADLINE", 0.2)  # times the timeout of one second
    sent = []

    def trickle() -> None:
        sent.append(part)
        threading.Event().wait(0.005)

    sandbox.fault(sandbox.data_path, trickle=trickle, part=part)
    settings = {"request_timeout_seconds": "1", "retry_attempts": "0"}
    output = failed(project.sync(in_full(sandbox, **settings))).output
    assert f"{sandbox.paths(sandbox.data_path)[0]}: " in output
    assert "gave up" not in output
    assert 0 < len(sent) < 400  # of at least 600 bytes


def test_a_full_disk_costs_no_row(
    little: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that wait find no room: the sync fails, says where, and the next one is complete."""
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    project = Project(little.name, tmp_path)
    succeeded(project.sync(in_full(little)))
    little.mutate(random.Random(1))
    with monkeypatch.context() as patches:
        patches.setattr("shared.spool._IN_MEMORY", 0)
        patches.setattr(tempfile, "TemporaryFile", FullDisk)
        output = failed(project.sync(in_full(little))).output
    assert f"the disk of {tempfile.gettempdir()} is full" in output
    assert "please report" not in output
    succeeded(project.sync(in_full(little)))
    assert_equal_to_source(project, little)


@pytest.mark.parametrize("failure", [MemoryError(), *wide(OSError(errno.EIO, "damaged"))])
def test_a_replacement_that_breaks_off_empties_no_table(
    little: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """Whatever fails between a truncate and the last row ends the sync: no checkpoint of another
    table follows, so that the destination keeps what it had."""
    project, parallel = Project(little.name, tmp_path), known(little, {"parallel_tables": "2"})
    succeeded(project.sync(in_full(little)))
    before = {table: project.rows(stored_table(table)) for table in little.expected()}
    for seed in range(20):
        little.mutate(random.Random(seed), deletes=False)
    batches = Spool.batches

    def broken(spool: Spool) -> Iterator[list[Any]]:
        if tables:
            raise failure
        yield from batches(spool)

    with monkeypatch.context() as patches, truncated() as tables:
        patches.setattr(Spool, "batches", broken)
        failed(project.sync(in_full(little, **parallel)))
    for table in tables:
        assert project.rows(stored_table(table)) == before[table]
    assert tables
    succeeded(project.sync(in_full(little)))
    assert_equal_to_source(project, little)


class FullDisk(io.BytesIO):
    def write(self, data: Any) -> int:
        raise OSError(errno.ENOSPC, "no space")
