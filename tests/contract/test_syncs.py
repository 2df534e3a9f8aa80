"""Whole syncs: everything is stored, changes and deletes arrive, little is sent again."""

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.compare import assert_equal_to_source
from tests.contract.helpers import handed_over, in_full, known, over_http, succeeded
from tests.sandbox import kind_of, names
from tests.sandbox.fivetran import Project, load, stored_table
from tests.sandbox.lists import RecordLists
from tests.sandbox.simulator import PAGE, Simulator

LISTS = {
    name: kind for name in names(RecordLists) if issubclass(kind := kind_of(name), RecordLists)
}


def test_a_first_sync_stores_what_the_source_has(sync: Any, project: Any, sandbox: Any) -> None:
    """The main job, in the SDK's own engine, over real HTTP; each row is sent once, with every
    column."""
    with handed_over() as sent:
        succeeded(sync())
    assert_equal_to_source(project, sandbox)
    for entry in load(sandbox.name).schema(sandbox.configuration()):
        table, columns, rows = entry["table"], entry["columns"], sent[entry["table"]]
        key = entry.get("primary_key", [])
        # In a table without a key the row itself is the key, so nulls may be left out.
        assert all(row.keys() == columns.keys() for row in rows if key), table
        assert not any(row[name] is None for row in rows for name in key), table
        keys = Counter(tuple(str(row.get(name)) for name in key or columns) for row in rows)
        assert len(keys) == len(rows), table


def test_the_command_line_does_the_same(little: Any, tmp_path: Path) -> None:
    """The real `fivetran debug`, with the folder as it is deployed; it asks nobody but the source,
    neither for a connection nor for the address of a name."""
    project = Project(little.name, tmp_path)
    asked = project.watch()
    succeeded(project.debug(in_full(little)))
    assert_equal_to_source(project, little)
    assert project.state["version"] == 1
    host, _, port = little.url.rpartition("/")[2].partition(":")
    assert set(asked.read_text().splitlines()) == {f"{host} {port}"}


def test_changes_and_deletes_arrive(sync: Any, project: Any, sandbox: Any) -> None:
    """After a change at the source the next sync makes the destination equal again."""
    succeeded(sync())
    sandbox.change_something()
    succeeded(sync())
    assert_equal_to_source(project, sandbox)


def test_a_second_sync_sends_only_what_it_must(project: Any, sandbox: Any) -> None:
    """Unchanged rows are sent again only where the source does not tell that, and in look-backs; a
    second sync sends no more requests than the first."""
    assert_little_is_sent_again(project, sandbox)


def test_a_second_sync_of_another_form_sends_only_what_it_must(
    little: Any, tmp_path: Path
) -> None:
    """The same, where the source may tell more, or less, of its changes."""
    assert_little_is_sent_again(Project(little.name, tmp_path), little)


def assert_little_is_sent_again(project: Project, sandbox: Simulator) -> None:
    configuration = sandbox.configuration(**known(sandbox, {"max_pages": "1000"}))
    most = Counter(sandbox.resent())
    succeeded(project.sync(configuration))
    requests = len(sandbox.requests)
    with handed_over() as rows:
        succeeded(project.sync(configuration))
    sent = Counter({stored_table(table): len(given) for table, given in rows.items()})
    assert not sent - most
    assert len(sandbox.requests) <= 2 * requests + len(sandbox.lists_deletes)
    assert_equal_to_source(project, sandbox)


def test_an_empty_source_gives_empty_tables(sync: Any, project: Any, sandbox: Any) -> None:
    """No records are no error, and every table exists."""
    sandbox.empty()
    for _ in range(2):
        succeeded(sync())
    assert_equal_to_source(project, sandbox)


@over_http
def test_a_listing_that_became_empty_is_believed_at_the_second_time(
    sync: Any, project: Any, sandbox: Any
) -> None:
    """Credentials that lost their rights look like an empty source, so the first sync deletes
    nothing."""
    succeeded(sync())
    sandbox_before = {table: len(project.rows(table)) for table in sandbox.expected()}
    sandbox.empty()
    result = succeeded(sync())
    assert "lists nothing" in result.output
    assert {table: len(project.rows(table)) for table in sandbox_before} == sandbox_before
    succeeded(sync())
    assert_equal_to_source(project, sandbox)


@pytest.mark.parametrize(
    "sandbox", [name for name, kind in LISTS.items() if kind.filtered], indirect=True
)
def test_a_filter_is_used(project: Any, sandbox: Any) -> None:
    """Of the lists that have one, the source sends what changed since the cursor, and no more."""
    settings = sandbox.configuration(**known(sandbox, {"reconcile_hours": "8760"}))
    succeeded(project.sync(settings))
    sandbox.served = 0
    for name in sandbox.filtered:
        sandbox.change(name, 0, **{sandbox.text_field(name): "Another text"})
    succeeded(project.sync(settings))
    whole = [len(sandbox.records[name]) for name in {*sandbox.lists} - {*sandbox.filtered}]
    assert sandbox.served == sum(whole) + len(sandbox.filtered)
    assert_equal_to_source(project, sandbox)


@pytest.mark.parametrize(
    "sandbox", [name for name, kind in LISTS.items() if not kind.one_list], indirect=True
)
def test_a_record_without_a_key_costs_no_other_row(sync: Any, project: Any, sandbox: Any) -> None:
    """The log names its position and what is missing. Nothing is deleted meanwhile; it arrives
    when it has a key."""
    sandbox.fill(20)
    succeeded(sync())
    kept = {}
    for name in sandbox.lists:
        kept[name] = sandbox.records[name][7].copy()
        sandbox.change(name, 7, **{sandbox.key_of(name)[0]: None})
    output = succeeded(sync()).output
    for name in sandbox.lists:
        assert re.search(rf"{name}: 1 record skipped, first .*record \d+: \w+ is missing", output)
        assert project.rows(name, deleted=True) == []
    for name, record in kept.items():
        sandbox.change(name, 7, **record)
    succeeded(sync())
    assert_equal_to_source(project, sandbox)


@pytest.mark.parametrize("counts", [(3 * PAGE + 1, PAGE), (1, 3 * PAGE)], ids=str)
def test_pages_may_end_anywhere(
    little: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: tuple[int, ...]
) -> None:
    """Lists of one row, of some whole pages, and of one row more, the second time over a table
    that has rows."""
    load(little.name)
    for constant, value in little.limits.items():
        monkeypatch.setattr(constant, value)
    project = Project(little.name, tmp_path)
    for count in counts:
        little.fill(count)
        succeeded(project.sync(in_full(little, **little.small_pages), {}))
        assert max(map(len, little.expected().values())) >= count
        assert_equal_to_source(project, little)
