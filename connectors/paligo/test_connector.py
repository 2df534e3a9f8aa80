"""The rows that the connector makes of made-up records, in both forms that Paligo may send.

`pytest connectors/paligo/test_connector.py`. Whole syncs are in tests/connectors/test_paligo.py.
"""

import json
import random
import re
import threading
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import pytest

from shared.rows import InvalidRecord

# By name: the SDK's check of dependencies looks each imported name up at the package index.
paligo: Any = resolve_name("tests.sandbox.fivetran:load")("paligo")
generator: Any = resolve_name("connectors.paligo.faker_mock.mock_data_generator")
Record = dict[str, Any]
SHAPES, MockDataGenerator = generator.SHAPES, generator.MockDataGenerator
GIVEN = {
    "username": "someone@company.example",
    "api_key": "key",
    "base_url": "https://company.paligoapp.com/api/v2",
}
NOW = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
MAPS = {
    "users": (paligo.USERS, paligo._map_user_data),
    "taxonomies": (paligo.TAXONOMIES, paligo._map_taxonomy_data),
    "assignments": (paligo.ASSIGNMENTS, paligo._map_assignment_data),
}


@pytest.fixture(params=[(shape, seed) for shape in SHAPES for seed in (1, 2, 3)], ids=str)
def records(request: pytest.FixtureRequest) -> dict[str, list[Record]]:
    """Lists of records, in each form."""
    shape, seed = request.param
    made: dict[str, list[Record]] = MockDataGenerator(seed, shape).dataset(
        users=10, taxonomies=40, assignments=60
    )
    return made


class Client:
    """A client that returns pages of at most three taxonomies, from a list."""

    base_url = "https://paligo.example"
    parallel = 4
    closed = threading.Event()

    def __init__(self, taxonomies: list[Any]) -> None:
        self._taxonomies = taxonomies

    def ahead(self) -> int:
        return self.parallel

    def get(self, where: str, params: dict[str, int]) -> dict[str, Any]:
        number, size = params["page"], min(params["per_page"], 3)
        records = self._taxonomies[(number - 1) * size : number * size]
        pages = -(-len(self._taxonomies) // size)
        return {"page": number, "total_pages": pages, "taxonomies": records}


def places(taxonomies: list[Any]) -> Iterator[tuple[Any, Any, Any]]:
    """Id, level and path of each taxonomy, as the connector derives them."""
    settings = paligo.validate_configuration(GIVEN)
    for page in paligo.get_taxonomies_data(Client(taxonomies), settings):
        for record in page.records:
            yield record["id"], record.get("level"), record.get("path")


def test_every_record_becomes_a_row_of_the_declared_columns(
    records: dict[str, list[Record]],
) -> None:
    """No column is missing and none is added."""
    for name, (table, to_rows) in MAPS.items():
        for row in to_rows(records[name], synced_at=NOW).rows:
            assert row.keys() == table.schema()["columns"].keys()


def test_no_field_is_lost(records: dict[str, list[Record]]) -> None:
    """Each value that the source sent is in a column or in `additional_fields`."""
    for name, (_, to_rows) in MAPS.items():
        rows = to_rows(records[name], synced_at=NOW).rows
        for row, record in zip(rows, records[name], strict=True):
            texts = {str(value) for value in row.values()}
            for field, value in record.items():
                if isinstance(value, (int, str)) and not field.endswith(("_at", "_date", "login")):
                    assert str(value) in texts | {str((row["additional_fields"] or {}).get(field))}


def test_times_of_both_forms_are_utc() -> None:
    """Unix seconds and ISO 8601 with an offset give the same moment."""
    for value in (
        1_772_366_400,
        "1772366400",
        "2026-03-01T12:00:00Z",
        "2026-03-01T14:00:00+02:00",
    ):
        found = paligo._map_assignment_data([{"id": 1, "created_at": value}], synced_at=NOW)
        [row] = found.rows
        assert row["created_at"] == NOW == row["sync_timestamp"]


@pytest.mark.parametrize("map_data", [to_rows for _, to_rows in MAPS.values()])
@pytest.mark.parametrize("record", [None, [], "text", {}, {"id": None}, {"id": ""}])
def test_a_record_without_an_id_is_skipped(map_data: Any, record: Any) -> None:
    """It is reported, and the other records become rows."""
    row, reason = map_data([{"id": 1}, record], synced_at=NOW).rows
    assert row["id"] == "1"
    assert isinstance(reason, InvalidRecord)


@pytest.mark.parametrize("root", [None, "", 0, "0", "taxonomy-root"])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_level_and_path_are_those_of_the_hierarchy(root: Any, seed: int) -> None:
    """The connector derives from the parents alone what the generator knew."""
    made = MockDataGenerator(seed, "documented", root)
    taxonomies = made.dataset(users=0, taxonomies=50, assignments=0)["taxonomies"]
    truth = {(t["id"], t["level"], t["path"]) for t in taxonomies}
    bare = [{k: v for k, v in t.items() if k not in ("level", "path")} for t in taxonomies]
    random.Random(seed).shuffle(bare)
    assert set(places(bare)) == truth
    assert max(level for _, level, _ in truth) > 2


def test_the_generator_is_consistent(records: dict[str, list[Record]]) -> None:
    """Ids are unique, and every reference leads to a record of the set."""
    ids = {name: {record["id"] for record in listed} for name, listed in records.items()}
    assert {name: len(ids[name]) for name in ids} == {
        "users": 10,
        "taxonomies": 40,
        "assignments": 60,
    }
    for record in records["assignments"]:
        assert {record.get("issuer_id"), record.get("assigner_id")} & ids["users"]
    for record in records["taxonomies"]:
        assert {record.get("parent"), record.get("parent_id")} <= ids["taxonomies"] | {None}


def test_the_template_is_complete_but_for_what_only_the_user_knows() -> None:
    """With the credentials and the address filled in, the configuration is valid."""
    template = json.loads((Path(__file__).parent / "configuration.json").read_text())
    with pytest.raises(ValueError, match="The configuration is wrong") as refused:
        paligo.validate_configuration(template)
    assert re.findall(r"^(\w+) is missing", str(refused.value), re.M) == list(GIVEN)
    assert paligo.validate_configuration({**template, **GIVEN}).initial_sync_days == 90
