"""Rows: types that do not depend on the data, and nothing dropped."""

import json
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from fivetran_connector_sdk import Operations
from hypothesis import given, strategies as st

from shared.errors import SourceError
from shared.rest import parse_json
from shared.rows import Column, Rejects, Table, UnusableRecord, convert, decimal

TABLE = Table(
    "things",
    ("id", "part"),
    {
        "id": Column(required=True),
        "synced": Column("UTC_DATETIME"),
        "part": Column(),
        "name": Column(sources=("name", "title")),
        "size": Column("INT"),
        "place": Column(derive=lambda r: r["place"]["town"] if "place" in r else None),
    },
)
LONG = "1234567890123456789012345678"
ENDLESS = ["1e999999999", "9" * 5000, "1." + "0" * 40 + "1"]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def test_schema_declares_every_column() -> None:
    """In the form of the SDK; a table without a key leaves the key out."""
    assert list(TABLE.schema()["columns"])[:-1] == list(TABLE.columns)
    small = {"id": Column(), "fee": Column(decimal(19, 4))}
    fee = {"type": "DECIMAL", "precision": 19, "scale": 4}
    columns = {"id": "STRING", "fee": fee, "additional_fields": "JSON"}
    keyed = {"table": "t", "columns": columns, "primary_key": ["id"]}
    assert Table("t", ("id",), small).schema() == keyed
    assert Table("t", (), small).schema() == {"table": "t", "columns": columns}


def test_a_row() -> None:
    """The first source that is not null, derived values, given ones, and the rest kept."""
    record = {"id": 7, "name": None, "title": "T", "place": {"town": "Leeds"}, "more": [1]}
    [row] = TABLE.rows([record], synced=datetime(2026, 1, 1, tzinfo=timezone.utc))
    assert row == {
        "id": "7",
        "part": "",
        "name": "T",
        "size": None,
        "place": "Leeds",
        "synced": datetime(2026, 1, 1, tzinfo=timezone.utc),
        "additional_fields": {"place": {"town": "Leeds"}, "more": [1]},
    }


def test_an_object_where_a_text_is_expected() -> None:
    """It is JSON text, unless the column derives its value from such objects; a text is itself."""
    [row] = TABLE.rows([{"id": "x", "name": {"a": [1]}, "place": "Leeds"}])
    assert row == {
        **dict.fromkeys(("size", "synced", "additional_fields")),
        "id": "x",
        "part": "",
        "name": '{"a": [1]}',
        "place": "Leeds",
    }


@given(st.dictionaries(st.text(), JSON_VALUES))
def test_nothing_that_was_sent_is_dropped(record: dict[str, Any]) -> None:
    """Each field is in a column of its own or in additional_fields; the record is not changed."""
    before = json.dumps(record)
    [row] = TABLE.rows([{**record, "id": "x"}])
    if isinstance(row, UnusableRecord):
        return
    kept = row["additional_fields"] or {}
    assert all(
        kept[key] == record[key] for key in record.keys() - TABLE.columns.keys() - {"title"}
    )
    assert json.dumps(record) == before


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (None, "it is not an object"),
        ([], "it is not an object"),
        ("x", "it is not an object"),
        (5, "it is not an object"),
        ({}, "id is missing"),
        ({"id": ""}, "id is missing"),
        ({"id": None}, "id is missing"),
        ({"id": "x", "size": "large"}, "size does not fit its type INT"),
    ],
)
def test_records_that_cannot_be_stored(record: Any, reason: str) -> None:
    """What is no object, lacks what is required, or does not fit; the reason names the column."""
    [row] = TABLE.rows([record])
    assert isinstance(row, UnusableRecord)
    assert str(row) == reason


def test_one_record_that_cannot_be_stored_costs_no_other() -> None:
    """The others of its page are rows, in their places; the reason names a column, not a value."""
    records = [{"id": 1}, {"id": 2, "size": "s3cret"}, "s3cret", {"id": 4, "size": 5}, {}]
    rows = TABLE.rows(records)
    assert [row["id"] for row in rows if isinstance(row, dict)] == ["1", "4"]
    reasons = {at: str(row) for at, row in enumerate(rows) if isinstance(row, UnusableRecord)}
    assert reasons == {
        1: "size does not fit its type INT",
        2: "it is not an object",
        4: "id is missing",
    }


def test_a_null_gives_way_to_the_next_source_in_each_record_alone() -> None:
    """What no column takes stays, as that of the source that was not needed."""
    records: list[Any] = [{"name": "N", "title": "T"}, {"title": "T"}, {"name": None}]
    rows = TABLE.rows([{"id": 1, **record} for record in records])
    found = [(row["name"], row["additional_fields"]) for row in rows if isinstance(row, dict)]
    assert found == [("N", {"title": "T"}), ("T", None), (None, None)]


def test_no_records_are_no_rows() -> None:
    """Also where all columns are given."""
    assert TABLE.rows([]) == []
    assert Table("t", (), {"a": Column()}).rows([], a=1) == []


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("STRING", "", ""),
        ("STRING", 12, "12"),
        ("STRING", parse_json("1.50"), "1.50"),
        ("STRING", True, "true"),
        ("STRING", {"a": ["ü"]}, '{"a": ["ü"]}'),
        ("INT", "007", 7),
        ("INT", 7.0, 7),
        ("INT", parse_json("1e2"), 100),
        ("INT", "", None),
        ("LONG", 2**63 - 1, 2**63 - 1),
        ("LONG", -(2**63), -(2**63)),
        ("LONG", parse_json("9223372036854775807.0"), 2**63 - 1),
        ("INT", 2**31 - 1, 2**31 - 1),
        ("INT", -(2**31), -(2**31)),
        ("DOUBLE", "812.5", 812.5),
        ("DOUBLE", 7, 7.0),
        ("BOOLEAN", "TRUE", True),
        ("BOOLEAN", 0, False),
        ("UTC_DATETIME", 0, datetime(1970, 1, 1, tzinfo=timezone.utc)),
        ("JSON", {"a": None}, {"a": None}),
        (decimal(19, 4), "27.9", "27.9"),
        (decimal(19, 4), "27.90000", "27.9"),
        (decimal(19, 4), 1234, "1234"),
        (decimal(19, 4), "-1E-4", "-0.0001"),
        (decimal(19, 4), "1e14", "100000000000000"),
        (decimal(19, 4), parse_json("0.1"), "0.1"),
        (decimal(19, 4), "0.00", "0"),
        (decimal(19, 4), "-0", "0"),
        (decimal(3, 3), "0.125", "0.125"),
        (decimal(38, 10), f"{LONG}.0123456789", f"{LONG}.0123456789"),
        (decimal(38, 10), parse_json(f"{LONG}.0123456789"), f"{LONG}.0123456789"),
    ],
)
def test_values_that_fit(kind: Any, value: Any, expected: Any) -> None:
    """As the SDK takes them, of the very type that was declared."""
    [converted] = convert([value], kind, "c")
    assert converted == expected
    assert type(converted) is type(expected)


UNFIT: dict[Any, list[Any]] = {
    "INT": [2**31, -(2**31) - 1, "x", 1.5, True, [], "NaN", "1e999999999"],
    "LONG": [2**63, "1e30", {}],
    "DOUBLE": ["inf", "nan", True, [], "1e999", "twelve"],
    "BOOLEAN": ["yes", 2, [], 0.5],
    "UTC_DATETIME": ["soon", True, []],
    "DECIMAL": ["0.00001", "1e15", "NaN", "Infinity", True, [], "1,5", *ENDLESS],
}


@pytest.mark.parametrize(
    ("kind", "value"), [(kind, value) for kind, values in UNFIT.items() for value in values]
)
def test_values_that_do_not_fit(kind: Any, value: Any) -> None:
    """Neither rounded nor nulled, and not left to fail a whole checkpoint; no value is shown."""
    with pytest.raises(UnusableRecord, match=r"^c does not fit its type [A-Z_]+$"):
        convert([value], decimal(19, 4) if kind == "DECIMAL" else kind, "c")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, max_value=10**14))
def test_decimals_are_exact(number: Decimal) -> None:
    """Every digit arrives, without an exponent."""
    if abs(number) < 10**15:
        [text] = convert([str(number)], decimal(19, 4), "c")
        assert Decimal(text) == number
        assert "E" not in text


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_json_that_is_too_deep_is_no_defect() -> None:
    """It is one record that cannot be stored."""
    with pytest.raises(UnusableRecord):
        convert([deep(100_000)], "STRING", "c")


def test_more_than_a_tenth_is_a_failure() -> None:
    """Ten of a hundred are reported, eleven end the sync."""
    rejects = Rejects()
    for number in range(10):
        rejects.add("things", f"record {number}", ValueError("id is missing"))
    rejects.check("things", 100)
    rejects.add("things", "record 10", ValueError("id is missing"))
    first = "; ".join(f"record {number}: id is missing" for number in range(3))
    with pytest.raises(SourceError) as error:
        rejects.check("things", 100)
    assert str(error.value) == (
        f"things: 11 unusable records left out, first {first}. That is more than a tenth of 100"
    )


def test_a_table_that_is_read_again_is_counted_anew() -> None:
    """What its first reading had is neither counted nor shown."""
    rejects = Rejects()
    rejects.clear("things")
    for number in range(4):
        rejects.add("things", f"first reading, record {number}", ValueError("id is missing"))
    rejects.clear("things")
    rejects.check("things", 0)
    rejects.add("things", "second reading, record 7", ValueError("size is missing"))
    with pytest.raises(SourceError, match="1 unusable records left out, first second reading, re"):
        rejects.check("things", 9)


def test_the_report_of_a_sync(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One warning for all tables, and in the log the places and reasons of each."""
    warnings: list[str] = []
    monkeypatch.setattr(Operations, "warning", warnings.append)
    rejects = Rejects()
    rejects.report()
    assert not warnings
    for table in ("things", "things", "places"):
        rejects.add(table, "page 2, record 1", ValueError("id is missing"))
    rejects.report()
    assert warnings == [
        "Records that cannot be stored were left out: 2 of things, 1 of places. The log says why"
    ]
    output = capsys.readouterr().out
    twice = "; ".join(["page 2, record 1: id is missing"] * 2)
    assert f"things: 2 unusable records left out, first {twice}" in output
    assert "places: 1 unusable records left out, first page 2, record 1: id is miss" in output
