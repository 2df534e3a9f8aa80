"""Generated schedules of changes, faults and crashes, a few for each connector; `make soak` runs
thousands."""

import os
import signal
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.compare import assert_equal_to_source
from tests.sandbox import create, names
from tests.sandbox.fivetran import Project
from tests.soak import schedules
from tests.soak.crashes import PLACES, Crash, Process


@pytest.mark.parametrize("name", names())
def test_after_any_schedule_the_destination_equals_the_source(name: str, full: bool) -> None:
    """Law 2: crash anywhere, run again, and nothing is lost, invented or wedged."""

    @settings(
        max_examples=10 if full else 2,
        phases=[Phase.generate],  # `python -m tests.soak` makes failing examples short
        suppress_health_check=list(HealthCheck),
    )
    @given(schedules.schedules(name))
    def check(steps: list[str]) -> None:
        schedules.run(name, steps)

    check()


@pytest.mark.parametrize("name", names())
def test_a_sync_goes_on_from_any_state_that_was_written(name: str, full: bool) -> None:
    """A connection may be set back to any of them: nothing that changed since is left out."""
    schedules.resume(name, form=7, every=full)


@pytest.mark.parametrize("name", names())
def test_a_broken_state_costs_no_row(name: str, full: bool) -> None:
    """A state that no version wrote is refused by a StateError, or costs a full refresh."""

    @settings(
        max_examples=30 if full else 1,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(schedules.broken_state_schedules())
    def check(steps: list[str]) -> None:
        schedules.run(name, steps)

    check()


@pytest.mark.parametrize("place", PLACES)
def test_a_crash_leaves_what_a_killed_process_would_leave(dentally: Project, place: str) -> None:
    """A crash before a checkpoint leaves neither rows nor state, in it only the rows, after it
    both."""
    with create("dentally") as sandbox, Process(place).running(), pytest.raises(Crash):
        dentally.sync(sandbox.configuration())
    stored = place in ("in-checkpoint", "after-checkpoint")
    assert bool(dentally.query("FROM duckdb_tables() WHERE schema_name = 'tester'")) == stored
    assert (dentally.path / "files" / "state.json").exists() == (place == "after-checkpoint")


def test_a_dead_process_reaches_nothing(dentally: Project) -> None:
    """After the crash none of its threads sends a request or a row."""
    process = Process("after-request", 2)
    with create("dentally") as sandbox, process.running():
        with pytest.raises(Crash):
            dentally.sync(sandbox.configuration())
        seen = len(sandbox.requests)
        with pytest.raises(Crash):
            dentally.sync(sandbox.configuration())
        assert seen == len(sandbox.requests) == 2


def test_a_schedule_that_loses_a_row_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness notices a row that a sync has missed."""
    monkeypatch.setattr("shared.listing.OVERLAP", timedelta(minutes=-5))
    changes = [f"change {number}" for number in range(5)]
    with pytest.raises(AssertionError, match="left changed rows out"):
        schedules.run("dentally", ["form 1", "sync", *changes, "wait 0.1"])


def test_killed_on_the_command_line_sql_server_is_resumed(tmp_path: Path) -> None:
    """kill -9 of the real `fivetran debug` in the middle of a table; test_crashes.py does so for
    the sources over HTTP."""
    project = Project("mssql_ehi", tmp_path)
    with create("mssql_ehi") as sandbox:
        for number in (3, 6):
            running: list[Any] = []
            sandbox.at_request(number, partial(_kill, running))
            running.append(project.start(sandbox.configuration()))
            running[0].communicate(timeout=60)
            assert running[0].returncode == -signal.SIGKILL
            sandbox.calm()
        sandbox.change_something()
        assert project.debug(sandbox.configuration()).code == 0
        assert_equal_to_source(project, sandbox)


def _kill(running: list[Any]) -> None:
    os.kill(running[0].pid, signal.SIGKILL)
    running[0].wait()
