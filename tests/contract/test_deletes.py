"""Deletes of sources that tell which records were deleted."""

from datetime import datetime, timezone
from pathlib import Path

import pytest

from tests.compare import assert_equal_to_source
from tests.contract.helpers import known, succeeded, truncated
from tests.sandbox import create, kind_of, names
from tests.sandbox.fivetran import Project
from tests.sandbox.lists import RecordLists
from tests.sandbox.server import Sandbox

LISTING = [name for name in names(Sandbox) if getattr(kind_of(name), "lists_deletes", ())]


@pytest.mark.parametrize("name", names())
def test_every_simulator_says_which_tables_tell_deletes_and_have_filters(name: str) -> None:
    """Of none is a statement, too. Nothing would ask for these deletes if it were forgotten, nor
    for the use of filters."""
    kind = kind_of(name)
    assert hasattr(kind, "lists_deletes"), f"{kind.__name__} has no lists_deletes"
    assert hasattr(kind, "filtered") or not issubclass(kind, RecordLists)
    if kind.lists_deletes:
        assert {*kind.lists_deletes} <= create(name).expected().keys()


@pytest.mark.parametrize("name", LISTING)
def test_deletes_arrive_without_a_full_refresh(name: str, tmp_path: Path) -> None:
    """What the source tells is enough, of every table of which it tells deletes."""
    project = Project(name, tmp_path)
    with create(name) as source:
        settings = source.configuration(**known(source, {"reconcile_hours": "8760"}))
        succeeded(project.sync(settings))
        for _ in range(2):
            before = {table: len(project.rows(table, deleted=True)) for table in source.expected()}
            source.change_something()
            with truncated() as tables:
                succeeded(project.sync(settings))
            assert not {*tables} & {*source.lists_deletes}
            for table in source.lists_deletes:
                assert len(project.rows(table, deleted=True)) > before[table], table
            assert_equal_to_source(project, source)


@pytest.mark.parametrize("name", [n for n in LISTING if issubclass(kind_of(n), RecordLists)])
def test_a_record_that_was_deleted_and_made_anew_comes_back(name: str, tmp_path: Path) -> None:
    """Both happen between two syncs, so that it is listed as deleted and as changed."""
    project = Project(name, tmp_path)
    with create(name) as source:
        assert isinstance(source, RecordLists)
        settings = source.configuration(**known(source, {"reconcile_hours": "8760"}))
        succeeded(project.sync(settings))
        for table in source.lists_deletes:
            record = source.delete(table, 0)
            now = source.stamp(datetime.now(timezone.utc))
            source.records[table].append({**record, source.changed_at: now})
        succeeded(project.sync(settings))
        assert_equal_to_source(project, source)
