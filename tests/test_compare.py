"""How destinations are compared with their sources."""

from datetime import datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests import compare
from tests.sandbox.fivetran import Project
from tests.sandbox.server import Sandbox


class Source(Sandbox):
    """A source with one table, whose rows are given."""

    name = "dentally"

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        super().__init__()
        self.rows = rows

    def expected(self) -> dict[str, list[dict[str, Any]]]:
        return {"items": self.rows}


def stored(project: Project, monkeypatch: pytest.MonkeyPatch, rows: list[dict[str, Any]]) -> None:
    monkeypatch.setattr(project, "rows", lambda table: rows)


EQUAL = [
    (Decimal("12.5000"), Decimal("12.5")),
    (Decimal("1E+2"), Decimal(100)),
    (Decimal("-0.00"), Decimal(0)),
    (Decimal("5.0"), 5),
    (0.5, Decimal("0.50")),
    (
        datetime(2026, 1, 1, tzinfo=timezone.utc),
        datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))),
    ),
]


@pytest.mark.parametrize(("one", "other"), EQUAL, ids=str)
def test_values_are_compared_not_their_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: Any, other: Any
) -> None:
    """In whole tables and row by row, in whatever order their texts sort."""
    project = Project("dentally", tmp_path)
    stored(project, monkeypatch, [{"id": "a", "price": one}, {"id": "a", "price": 7}])
    source = Source([{"id": "a", "price": 7}, {"id": "a", "price": other}])
    compare.assert_equal_to_source(project, source)
    assert compare.differences(project, source) == ({}, {})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Decimal("0.1"), 0.1),
        (1, True),
        ("5", 5),
        (Decimal("0.10000000000000000001"), Decimal("0.1")),
    ],
    ids=str,
)
def test_values_that_differ_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one: Any, other: Any
) -> None:
    """A number is no text, true is not 1, and no digit is rounded away."""
    project = Project("dentally", tmp_path)
    stored(project, monkeypatch, [{"price": one}])
    with pytest.raises(AssertionError):
        compare.assert_equal_to_source(project, Source([{"price": other}]))


def test_a_difference_shows_the_nearest_stored_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table, the counts, and the columns that differ, with both values."""
    project = Project("dentally", tmp_path)
    rows = [{"id": str(n), "name": f"Item {n}", "price": Decimal(n)} for n in range(200)]
    changed = [{**row, "price": Decimal("7.25")} if row["id"] == "63" else row for row in rows]
    stored(project, monkeypatch, changed[:-1])
    with pytest.raises(AssertionError) as failure:
        compare.assert_equal_to_source(project, Source(rows))
    lines = str(failure.value).splitlines()
    assert lines[0].startswith("items: 199 rows are stored, 200 expected; 2 are missing, 1 ")
    assert "    price: Decimal('7.25'), expected Decimal('63')" in lines
    assert len("".join(lines)) < 1000
