"""Deletes of sources that tell which records were deleted."""

from pathlib import Path

import pytest

from tests.compare import assert_equal_to_source
from tests.contract.helpers import known, succeeded
from tests.sandbox import create, kind_of, names
from tests.sandbox.fivetran import Project
from tests.sandbox.server import Sandbox

LISTING = [name for name in names(Sandbox) if getattr(kind_of(name), "lists_deletes", ())]


@pytest.mark.parametrize("name", names())
def test_every_simulator_says_of_which_tables_the_source_tells_deletes(name: str) -> None:
    """Of none is a statement, too. Nothing would ask for these deletes if it were forgotten."""
    kind = kind_of(name)
    assert hasattr(kind, "lists_deletes"), f"{kind.__name__} has no lists_deletes"
    if kind.lists_deletes:
        assert {*kind.lists_deletes} <= create(name).expected().keys()


@pytest.mark.parametrize("name", LISTING)
def test_deletes_arrive_without_a_full_refresh(name: str, tmp_path: Path) -> None:
    """What the source tells is enough, and a record that is made anew comes back."""
    project = Project(name, tmp_path)
    with create(name) as source:
        settings = source.configuration(**known(source, {"reconcile_hours": "8760"}))
        succeeded(project.sync(settings))
        for _ in range(2):
            before = {table: len(project.rows(table, deleted=True)) for table in source.expected()}
            source.change_something()
            result = succeeded(project.sync(settings))
            assert result.counts["Truncates"] == 0
            for table in source.lists_deletes:
                assert len(project.rows(table, deleted=True)) > before[table], table
            assert_equal_to_source(project, source)
