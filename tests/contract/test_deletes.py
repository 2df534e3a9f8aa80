"""Deletes of sources that list the records that were deleted."""

from pathlib import Path

import pytest

from tests.compare import assert_equal_to_source
from tests.sandbox import create, kind_of, names
from tests.sandbox.fivetran import Project
from tests.sandbox.server import Sandbox

LISTING = [name for name in names(Sandbox) if kind_of(name).lists_deletes]


@pytest.mark.parametrize("name", LISTING)
def test_deletes_arrive_without_a_full_refresh(name: str, tmp_path: Path) -> None:
    """The list of deletes is enough, and a record that is made anew comes back."""
    project = Project(name, tmp_path)
    with create(name) as source:
        settings = source.configuration(reconcile_hours="8760")
        assert project.sync(settings).code == 0
        for _ in range(2):
            source.change_something()
            result = project.sync(settings)
            assert result.code == 0, result.output
            assert result.counts["Truncates"] == 0
            assert result.counts["Deletes"] > 0
            assert_equal_to_source(project, source)
