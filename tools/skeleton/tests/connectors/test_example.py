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


def test_only_changed_items_are_requested(project: Project, source: Example) -> None:
    """Once all items are stored, a sync requests only those that changed since its cursor."""
    synced(project, source)
    assert not [request for request in source.requests if "updated_since" in request.query]
    source.requests.clear()
    source.change(7, price=17.35)
    synced(project, source)
    deleted, changed = source.requests
    assert "deleted_since" in deleted.query
    assert "updated_since" in changed.query
    assert_equal_to_source(project, source)


def test_fields_without_a_column_are_kept(project: Project, source: Example) -> None:
    """As they were sent."""
    synced(project, source)
    rows = {row["id"]: json.loads(row["additional_fields"]) for row in project.rows("items")}
    assert rows == {str(each["id"]): {"labels": each["labels"]} for each in source.records}


def test_an_item_without_a_key_is_skipped(project: Project, source: Example) -> None:
    """The log names its position, and nothing is deleted."""
    source.records[24]["id"] = None
    output = synced(project, source).output
    assert "page 2, record 5: id is missing" in output
    assert len(project.rows("items")) == len(source.records) - 1


def test_a_value_that_does_not_fit_costs_no_item(project: Project, source: Example) -> None:
    """The value is null, kept as it was sent, and reported by its column and position."""
    item = source.records[24]
    item["price"] = "a lot"
    output = synced(project, source).output
    assert "items: 1 value of price cannot be held by its type" in output
    assert "first page 2, record 5" in output
    assert "a lot" not in output
    [row] = [row for row in project.rows("items") if row["id"] == str(item["id"])]
    assert row["price"] is None
    assert json.loads(row["additional_fields"])["price"] == "a lot"
    assert len(project.rows("items")) == len(source.records)


def test_a_response_for_another_page_is_an_error(project: Project, source: Example) -> None:
    """A source that ignores the page's number would seem to have the same items for ever."""
    first = {"items": source.records[:20], "page": 1, "pages": 3, "total": 50}
    kind = {"Content-Type": "application/json"}
    source.fault(skip=1, status=200, body=json.dumps(first), headers=kind)
    result = project.sync(source.configuration())
    assert result.code != 0
    assert "page 2 was asked for, and the source sent another one" in result.output
