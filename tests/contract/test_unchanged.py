"""Full refreshes of a source that did not change, or of which little did."""

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import time_machine

from tests.compare import assert_equal_to_source
from tests.contract.helpers import handed_over, in_full, over_http, succeeded
from tests.sandbox import names
from tests.sandbox.fivetran import Project, load
from tests.sandbox.server import Sandbox
from tests.soak import schedules
from tests.soak.crashes import CHECKPOINTS
from tests.width import wide


def sent(project: Project, configuration: dict[str, str]) -> dict[str, int]:
    """How many rows of each table a sync sends."""
    with handed_over() as rows:
        succeeded(project.sync(configuration))
    return {table: len(given) for table, given in rows.items() if given}


@over_http
def test_a_full_refresh_of_an_unchanged_source_sends_nothing(
    project: Project, sandbox: Sandbox
) -> None:
    """Neither rows nor a truncate, though every sync reads everything. What changed arrives, and a
    row that is gone at the source goes."""
    configuration = in_full(sandbox)
    sent(project, configuration)
    sent(project, configuration)  # of a look-back the first day may be read in part
    again = succeeded(project.sync(configuration))
    assert (again.counts["Upserts"], again.counts["Truncates"]) == (0, 0)
    assert "nothing was sent" in again.output
    sandbox.change_something()
    assert sent(project, configuration)
    assert_equal_to_source(project, sandbox)
    with time_machine.travel(datetime.now(timezone.utc) + timedelta(hours=1)):
        sent(project, configuration)  # a list of deletes tells those of the overlap once more
        assert not sent(project, configuration)


@over_http
def test_a_full_refresh_sends_the_part_that_changed(
    project: Project, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a table of which parts can be told apart. Objects have no key, and a title is in the
    paths of all taxonomies below it."""
    load(sandbox.name)
    monkeypatch.setattr("shared.fingerprint._FEW_ROWS", 20)
    if sandbox.name in ("dentally", "paligo", "dexory"):
        sandbox.fill(300)
    configuration = in_full(sandbox)
    for _ in range(2):
        sent(project, configuration)
    assert not sent(project, configuration)
    rows = {table: len(project.rows(table)) for table in sandbox.expected()}
    changed = sandbox.place("another", "of it")
    few = sent(project, configuration)
    assert few.keys() <= {*changed}
    whole = ("expected_inventory_objects", "taxonomies")
    large = [table for table in few if rows[table] >= 200 and table not in whole]
    assert all(few[table] * 4 < rows[table] for table in large)
    assert_equal_to_source(project, sandbox)


@over_http
def test_a_state_that_tells_nothing_known_sends_everything(
    project: Project, sandbox: Sandbox
) -> None:
    """One of an older version, one of a newer, and one of a table that was forgotten; each full
    refresh makes the destination equal."""
    configuration = in_full(sandbox)
    first = sent(project, configuration)
    listed = {t: n for t, n in first.items() if "fingerprint" in project.state["tables"][t]}
    assert listed
    for told in (None, "", "of a newer version"):
        state: dict[str, Any] = project.state
        for table in listed:
            state["tables"][table].pop("fingerprint", None)
            if told is not None:
                state["tables"][table]["fingerprint"] = told
        with handed_over() as rows:
            succeeded(project.sync(configuration, state))
        assert {table: len(rows[table]) for table in listed} == listed
        assert_equal_to_source(project, sandbox)


@over_http
def test_what_the_state_tells_of_rows_is_small(project: Project, sandbox: Sandbox) -> None:
    """At most 512 characters a table, and no value of a row."""
    sandbox.fill(60)
    with pytest.MonkeyPatch.context() as monkeypatch:
        load(sandbox.name)
        monkeypatch.setattr("shared.fingerprint._FEW_ROWS", 10)
        succeeded(project.sync(in_full(sandbox)))
    told = [
        text
        for entry in project.state["tables"].values()
        for name, text in entry.items()
        if name in ("fingerprint", "days")
    ]
    assert told
    assert max(map(len, told)) <= 512
    assert not [secret for secret in sandbox.secrets() if secret in "".join(told)]


@pytest.mark.parametrize("place", CHECKPOINTS)
@pytest.mark.parametrize("number", [1, 2, 3, *wide(4, 5, 6)])
@pytest.mark.parametrize("name", names(Sandbox))
def test_killed_at_a_checkpoint_what_goes_back_arrives(name: str, number: int, place: str) -> None:
    """Full refreshes and windows are killed, before and after the state of a checkpoint is
    written; then rows are what they were before these syncs."""
    changes = [f"change {change}" for change in range(12)]
    restores = [f"restore {restore}" for restore in range(30)]
    killed = f"sync {place}@{number}"
    schedules.run(name, ["form 3", "sync", *changes, killed, *restores, "sync"])
    full = ["wait 25", killed, *restores]
    schedules.run(name, ["form 5", "sync", *changes, *full, "wait 25", "sync"])
