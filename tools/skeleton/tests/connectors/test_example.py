"""What is particular to Example.

What holds for every connector is in tests/contract.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sandbox.fivetran import Project
from tools.skeleton.tests.sandbox.example import Example


@pytest.fixture
def source() -> Iterator[Example]:
    with Example() as started:
        yield started


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project("example", tmp_path)


def test_a_wrong_key_is_named_by_the_setup_test(project: Project, source: Example) -> None:
    """The failure names the setting to check, without its value."""
    found = project.test_settings(source.configuration(api_key="not-this-one"))
    assert "refuses api_key" in str(found)
    assert "not-this-one" not in str(found)
