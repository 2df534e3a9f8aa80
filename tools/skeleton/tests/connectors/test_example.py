"""What is particular to Example.

What holds for every connector is in tests/contract.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.compare import assert_equal_to_source
from tests.sandbox.fivetran import Project, Result
from tools.skeleton.tests.sandbox.example import Example


@pytest.fixture
def source() -> Iterator[Example]:
    with Example() as started:
        yield started


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project("example", tmp_path)


def synced(project: Project, source: Example) -> Result:
    result = project.sync(source.configuration())
    assert result.code == 0, result.output
    return result


def test_a_wrong_key_is_named_by_the_setup_test(project: Project, source: Example) -> None:
    """The failure names the setting to check, without its value."""
    found = project.test_settings(source.configuration(api_key="not-this-one"))
    assert "refuses api_key" in str(found)
    assert "not-this-one" not in str(found)


@pytest.mark.parametrize("table", Example.lists)
def test_only_changed_records_are_requested(project: Project, source: Example, table: str) -> None:
    """Once all records are stored, a sync requests only those that changed since its cursor."""
    synced(project, source)
    assert not [request for request in source.requests if "updated_since" in request.query]
    source.requests.clear()
    source.change(table, 7, **{source.texts[table]: "Another text"})
    synced(project, source)
    assert all(
        {*request.query} & {"updated_since", "deleted_since"} for request in source.requests
    )
    assert_equal_to_source(project, source)


@pytest.mark.parametrize("table", Example.lists)
def test_fields_without_a_column_are_kept(project: Project, source: Example, table: str) -> None:
    """As they were sent."""
    synced(project, source)
    kept = [json.loads(row["additional_fields"]) for row in project.rows(table)]
    sent = [{"labels": record["labels"]} for record in source.records[table]]
    assert sorted(map(str, kept)) == sorted(map(str, sent))


@pytest.mark.parametrize("table", Example.lists)
def test_a_record_without_a_key_is_skipped(project: Project, source: Example, table: str) -> None:
    """The log names its position, and nothing is deleted."""
    key = source.keys.get(table, "id")
    source.records[table][24][key] = None
    output = synced(project, source).output
    assert f"page 2, record 5: {key} is missing" in output
    assert len(project.rows(table)) == len(source.records[table]) - 1


def test_the_rate_limit_is_waited_for(
    project: Project, source: Example, waits: list[float]
) -> None:
    """As long as the source says."""
    source.limit = 1
    synced(project, source)
    assert waits == [1.0]
    assert_equal_to_source(project, source)
