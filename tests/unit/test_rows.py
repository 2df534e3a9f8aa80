"""Rows: types that do not depend on the data, and nothing dropped."""

import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

import pytest
from fivetran_connector_sdk import Operations
from hypothesis import given, strategies as st

from shared.errors import SourceError
from shared.rest import parse_json
from shared.rows import (
    Column,
    InvalidRecord,
    OddValue,
    Row,
    Rows,
    SkippedRecords,
    Table,
    convert,
    decimal,
)
from tests.width import wide

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
ENDLESS = ["1e999999999", "9" * 5000, "1e-999999999", "0." + "0" * 40 + "1"]
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def test_schema_declares_every_column() -> None:
    """In the form of the SDK; a table without a key has no primary_key."""
    assert list(TABLE.schema()["columns"])[:-1] == list(TABLE.columns)
    small = {"id": Column(), "fee": Column(decimal(19, 4))}
    fee = {"type": "DECIMAL", "precision": 19, "scale": 4}
    columns = {"id": "STRING", "fee": fee, "additional_fields": "JSON"}
    keyed = {"table": "t", "columns": columns, "primary_key": ["id"]}
    assert Table("t", ("id",), small).schema() == keyed
    assert Table("t", (), small).schema() == {"table": "t", "columns": columns}


def test_a_row() -> None:
    """The first source that is not null, derived values, given values, and the other fields
    kept."""
    record = {"id": 7, "name": None, "title": "T", "place": {"town": "Leeds"}, "more": [1]}
    [row] = TABLE.rows([record], synced=datetime(2026, 1, 1, tzinfo=timezone.utc)).rows
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
    """It becomes JSON text, unless the column derives its value from such objects; a text stays as
    it is."""
    [row] = TABLE.rows([{"id": "x", "name": {"a": [1]}, "place": "Leeds"}]).rows
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
    [row] = TABLE.rows([{**record, "id": "x"}]).rows
    assert isinstance(row, dict)
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
        ({"id": False}, "id does not fit its type STRING"),
        ({"id": []}, "id does not fit its type STRING"),
        ({"id": {}}, "id does not fit its type STRING"),
    ],
)
def test_records_that_cannot_be_stored(record: Any, reason: str) -> None:
    """They are no object, or have no usable key; the reason names the column."""
    found = TABLE.rows([record])
    [row] = found.rows
    assert isinstance(row, InvalidRecord)
    assert (str(row), found.odd) == (reason, [])


def test_one_record_that_cannot_be_stored_costs_no_other() -> None:
    """The other records of its page are rows, in their places; the reason names a column, not a
    value."""
    records = [
        {"id": 1},
        "s3cret",
        {"id": 3, "size": "s3cret"},
        {"id": 4, "size": 5},
        {"size": []},
    ]
    found = TABLE.rows(records)
    assert [row["id"] for row in found.rows if isinstance(row, dict)] == ["1", "3", "4"]
    reasons = {at: str(r) for at, r in enumerate(found.rows) if isinstance(r, InvalidRecord)}
    assert reasons == {1: "it is not an object", 4: "id is missing"}
    assert found.odd == [OddValue(2, "size")]  # not that of a record that is skipped


def test_a_null_gives_way_to_the_next_source_in_each_record_alone() -> None:
    """A source that was not needed stays in additional_fields."""
    records: list[Any] = [{"name": "N", "title": "T"}, {"title": "T"}, {"name": None}]
    rows = TABLE.rows([{"id": 1, **record} for record in records]).rows
    found = [(row["name"], row["additional_fields"]) for row in rows if isinstance(row, dict)]
    assert found == [("N", {"title": "T"}), ("T", None), (None, None)]


@pytest.mark.parametrize("odd", [None, "", " ", "soon", "0000-00-00", "2026-02-30T08:00:00Z"])
@pytest.mark.parametrize("other", ["2026-01-31T09:00:00.5+01:00", "2026-01-31T08:00:00.500Z"])
def test_dates_keep_their_places(odd: Any, other: str) -> None:
    """Whether they are read together or one by one, with or without nulls between them."""
    first = datetime(2026, 1, 31, 8, tzinfo=timezone.utc)
    table = Table("t", (), {"at": Column("UTC_DATETIME")})
    texts = ["2026-01-31T08:00:00Z", odd, None, other]
    rows = [
        row for row in table.rows([{"at": text} for text in texts]).rows if isinstance(row, dict)
    ]
    assert [row["at"] for row in rows] == [first, None, None, first.replace(microsecond=500_000)]


def test_no_records_are_no_rows() -> None:
    """Also where all columns are given."""
    assert TABLE.rows([]).rows == []
    assert Table("t", (), {"a": Column()}).rows([], a=1).rows == []


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
        *(("BOOLEAN", value, True) for value in (True, 1, 1.0, "1", " Yes ", "y", "T", "on")),
        *(("BOOLEAN", value, False) for value in (False, 0, "0", "No", "n", "f", "FALSE", "OFF")),
        ("BOOLEAN", parse_json("1.0"), True),
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
        # Errors of binary floating point are removed.
        (decimal(19, 4), "19.990000000000002", "19.99"),
        (decimal(19, 4), parse_json("19.990000000000002"), "19.99"),
        (decimal(19, 4), parse_json("0.30000000000000004"), "0.3"),
        (decimal(19, 4), parse_json("-1234567.8900000001"), "-1234567.89"),
        (decimal(19, 4), "19.98999999999999843680598132777959108352661", "19.99"),
        (decimal(19, 4), "100000.00005", "100000"),
        (decimal(19, 4), "100000.00015", "100000.0002"),
        (decimal(38, 10), f"{LONG}.0123456789", f"{LONG}.0123456789"),
        (decimal(38, 10), parse_json(f"{LONG}.0123456789"), f"{LONG}.0123456789"),
    ],
)
def test_values_that_fit(kind: Any, value: Any, expected: Any) -> None:
    """They have the declared type, in the form that the SDK takes."""
    [converted] = convert([value], kind, "c")
    assert converted == expected
    assert type(converted) is type(expected)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


UNFIT: dict[Any, list[Any]] = {
    "INT": [2**31, -(2**31) - 1, "x", 1.5, True, [], "NaN", "1e999999999", "20_24"],
    "LONG": [2**63, "1e30", {}, 2.5, "12.6", parse_json("2.5"), [1]],
    "DOUBLE": ["inf", "nan", True, [], "1e999", "1e309", "-1e309", 10**400, "twelve", "1_0"],
    "BOOLEAN": ["maybe", 2, [], {"value": True}, 0.5, "truee", "10"],
    "UTC_DATETIME": ["soon", True, [], "31/12/2024", "0000-00-00", False, 1e300],
    "DECIMAL": [
        *("0.00001", "1e15", "NaN", "Infinity", True, [], {}, "1,5", *ENDLESS),
        *("19.99001", "9.9999500001", "999999999999999.99999999999"),
    ],
    "JSON": [float("nan"), deep(100_000)],
}


@pytest.mark.parametrize(
    ("kind", "value"), [(kind, value) for kind, values in UNFIT.items() for value in values]
)
def test_values_that_do_not_fit(kind: Any, value: Any) -> None:
    """They are neither rounded nor left to fail a whole checkpoint; no value is shown."""
    with pytest.raises(InvalidRecord, match=r"^c does not fit its type [A-Z_]+$"):
        convert([value], decimal(19, 4) if kind == "DECIMAL" else kind, "c")


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, max_value=10**14))
def test_decimals_are_exact(number: Decimal) -> None:
    """Every digit arrives, without an exponent."""
    if abs(number) < 10**15:
        [text] = convert([str(number)], decimal(19, 4), "c")
        assert Decimal(text) == number
        assert "E" not in text


def test_json_of_any_depth_is_text() -> None:
    """It has the same form as other JSON text, though the usual encoder cannot write it."""
    inner: Any = {"b": [1, "ü", None, {}], "a": []}
    usual = convert([inner], "STRING", "c")[0]
    for _ in range(50_000):
        inner = {"in": [inner]}
    [text] = convert([inner], "STRING", "c")
    assert text == '{"in": [' * 50_000 + usual + "]}" * 50_000


# Odd values


ODDS = Table(
    "odds",
    ("id",),
    {
        "id": Column(required=True),
        "owner_id": Column(),
        "count": Column("LONG"),
        "fee": Column(decimal(19, 4)),
        "share": Column("DOUBLE"),
        "flag": Column("BOOLEAN"),
        "due": Column("UTC_DATETIME", sources=("due", "endDate")),
        "more": Column("JSON"),
        "state": Column(derive=lambda record: {1: "on"}[record["level"]]),
    },
)


def only(field: str, value: Any) -> tuple[Row, list[OddValue]]:
    """The row of a record with ``value`` in ``field``, and its odd values; the records beside it
    stay as they are."""
    sound = {"id": 1, "level": 1, "count": 3, "due": "2026-01-31", "flag": True}
    found = ODDS.rows([sound, {"id": 2, "level": 1, field: value}, sound])
    first, row, last = found.rows
    assert isinstance(row, dict)
    assert first == last == ODDS.rows([sound]).rows[0]
    json.dumps(row["additional_fields"], allow_nan=False)
    return row, found.odd


ODD_VALUES: dict[str, list[Any]] = {
    "due": ["31/12/2024", "2024-01-31 24:00:00", "9999-12-31T23:00:00-05:00", True, [], {}, 1e300],
    "endDate": ["31/12/2024", "12/31/2024", "01.02.2024", "soon", True],
    "count": [2.5, 12.6, "12.6", True, 2**63, "many", [3], {"a": 3}],
    "fee": ["0.00001", "1e15", "free", [1], True],
    "share": ["NaN", "1e309", "half", [0.5], deep(50)],
    "flag": ["perhaps", 2, {"value": True}, []],
    "owner_id": [False, [], {}],
}


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in ODD_VALUES.items() for value in values],
)
def test_an_odd_value_costs_that_value(field: str, value: Any) -> None:
    """It is null, kept as sent under its own name, and counted; the rest of its row is stored."""
    row, odd = only(field, value)
    assert row == {
        **dict.fromkeys(ODDS.columns),
        "id": "2",
        "state": "on",
        "additional_fields": {"level": 1, field: value},
    }
    assert odd == [OddValue(1, "due" if field == "endDate" else field)]


@pytest.mark.parametrize("value", [False, "0000-00-00", "0000-00-00 00:00:00", "N/A", "-"])
def test_values_that_stand_for_no_date(value: Any) -> None:
    """Such a value is kept, too, but counted apart from odd dates."""
    row, odd = only("due", value)
    assert (row["due"], row["additional_fields"]) == (None, {"level": 1, "due": value})
    assert odd == [OddValue(1, "due", placeholder=True)]


@pytest.mark.parametrize("field", ["due", "endDate", "count", "fee", "share", "flag", "more"])
@pytest.mark.parametrize("value", [None, "", " "])
def test_an_empty_value_is_null(field: str, value: Any) -> None:
    """An empty value is neither kept nor counted; in a JSON column, spaces are a text."""
    row, odd = only(field, value)
    assert row["additional_fields"] == {"level": 1}
    assert odd == []
    assert row["due" if field == "endDate" else field] == (
        value if field == "more" and value == " " else None
    )


@pytest.mark.parametrize(
    "field", ["count", *wide("due", "endDate", "fee", "share", "flag", "more")]
)
@pytest.mark.parametrize("value", ["", *wide(None, " ")])
def test_what_is_blank_is_null_beside_what_cannot_be_stored(field: str, value: Any) -> None:
    """A record is the same when the next one of its page is too deep for JSON."""
    row, _ = only(field, value)
    beside = ODDS.rows([{"id": 1, "level": 1, field: each} for each in (value, deep(100_000))])
    assert beside.rows[0] == {**row, "id": "1"}


def test_values_that_json_cannot_hold_are_kept_as_text() -> None:
    """NaN, and lists that are nested too deeply for an encoder."""
    row, odd = only("count", deep(100_000))
    assert row["additional_fields"]["count"] == "[" * 100_000 + "1" + "]" * 100_000
    row, more = only("more", float("nan"))
    assert row["additional_fields"]["more"] == "nan"
    assert [*odd, *more] == [OddValue(1, "count"), OddValue(1, "more")]


@pytest.mark.parametrize("level", [2, [], {}, None])
def test_a_value_that_cannot_be_derived(level: Any) -> None:
    """It is null and counted; the field that it is derived from has no column, and stays where it
    is."""
    found = ODDS.rows([{"id": 1, "level": level}, {"id": 2, "state": "own", "level": level}])
    rows = [
        (row["state"], row["additional_fields"]) for row in found.rows if isinstance(row, dict)
    ]
    assert rows == [(None, {"level": level}), ("own", {"level": level})]
    assert found.odd == [OddValue(0, "state")]


def test_odd_values_of_a_page_are_in_the_order_of_its_records() -> None:
    """For all columns together, so that they can be split as the records are."""
    odd: Row = {"id": 1, "level": 1, "flag": "?", "count": "?"}
    found = ODDS.rows([{"id": 0, "level": 1}, odd, odd, "?", odd])
    columns = [(value.record, value.column) for value in found.odd]
    assert columns == [(at, name) for at in (1, 2, 4) for name in ("count", "flag")]
    parts = [*found.split([2, 0, 3])]
    assert [row for part in parts for row in part.rows] == found.rows
    places = [[value.record for value in part.odd] for part in parts]
    assert places == [[1, 1], [], [0, 0, 2, 2]]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4, "4"),
        ("4", "4"),
        (4.0, "4"),
        (parse_json("4.0"), "4"),
        (parse_json("4e0"), "4"),
        (parse_json("1E20"), "1" + "0" * 20),
        (parse_json("-0.0"), "0"),
        (parse_json("12345678901234567890.5"), "12345678901234567890.5"),
        ("4.0", "4.0"),
        ("4e0", "4e0"),
        ("004", "004"),
    ],
)
def test_a_whole_number_is_one_key_however_it_is_written(value: Any, text: str) -> None:
    """So it is in references to keys; a text stays as it is, and so does a number in another text
    column."""
    columns = {**ODDS.columns, "name": Column()}
    record = {"id": value, "owner_id": value, "name": parse_json("4.0")}
    [row] = Table("t", ("id",), columns).rows([record]).rows
    assert isinstance(row, dict)
    assert (row["id"], row["owner_id"], row["name"]) == (text, text, "4.0")
    [row] = Table("t", ("name",), columns).rows([record]).rows
    assert isinstance(row, dict)
    assert row["name"] == "4"


@pytest.mark.parametrize("value", [None, "", " ", "soon", "0000-00-00", False])
def test_a_key_without_a_date(value: Any) -> None:
    """A part of the key that is no text cannot be null, even if it is not marked as required."""
    for required in (True, False):
        table = Table("t", ("at",), {"at": Column("UTC_DATETIME", required=required)})
        found = table.rows([{"at": "2026-01-31"}, {"at": value}])
        assert [type(row) for row in found.rows] == [dict, InvalidRecord]
        assert str(found.rows[1]).startswith("at ")
        assert found.odd == []


def test_odd_values_cost_no_more_than_their_column() -> None:
    """The other columns of their page are converted once, not once more for each record."""
    seen = Counter[int]()

    def derive(record: Mapping[str, Any]) -> int:
        seen[record["id"]] += 1
        return 0

    columns = {
        "id": Column("INT"),
        "due": Column("UTC_DATETIME"),
        "derived": Column(derive=derive),
    }
    found = Table("t", ("id",), columns).rows([{"id": n, "due": "?"} for n in range(100)])
    assert len(found.odd) == 100
    assert seen == Counter(range(100))


# Rows that can be stored


def test_rows_are_taken_and_the_rest_is_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By position: the records that are skipped, and the values that are null."""
    monkeypatch.setattr(Operations, "warning", lambda message: None)
    table = Table("things", ("id",), {"id": Column(required=True), "level": Column("INT")})
    skipped, records = SkippedRecords(), [{"id": 1, "level": "high"}, {"id": None}, {"id": 3}]
    found = table.rows(records)
    rows = skipped.take("things", found, "page 2, record ")
    assert [row["id"] for row in rows] == ["1", "3"]
    assert skipped.counts == {"things": 1}
    assert skipped.examples == {"things": ["page 2, record 2: id is missing"]}
    skipped.report()
    output = capsys.readouterr().out
    assert "things: 1 value of level cannot be held by its type: it is null" in output
    assert "first page 2, record 1" in output


def test_what_stands_for_no_date_is_in_the_log_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One is "it", and the dashboard names the tables whose deletes were not looked for."""
    shown, table = (
        list[str](),
        Table("t", ("id",), {"id": Column(), "due": Column("UTC_DATETIME")}),
    )
    monkeypatch.setattr(Operations, "warning", shown.append)
    skipped = SkippedRecords(unreplaced=["t", "u"])
    skipped.take("t", table.rows([{"id": 1, "due": "0000-00-00"}]), "record ")
    skipped.report()
    assert shown == ["Deletes were not looked for meanwhile in t, u. The log says why"]
    log = 't: 1 value of due stands for "no date": it is null, and kept as sent in'
    assert log in capsys.readouterr().out


def test_rows_that_can_all_be_stored_are_taken_as_they_are() -> None:
    """Without a look at each."""
    skipped, found = SkippedRecords(), ODDS.rows([{"id": 1}, {"id": 2}])
    assert skipped.take("things", found, "record ") is found.rows
    assert skipped.take("things", Rows([]), "record ") == []
    assert not skipped.counts


def test_the_keys_of_records() -> None:
    """As their rows have them, and nothing else; a record without a key is an InvalidRecord."""
    columns = {"id": Column(required=True), "on": Column("UTC_DATETIME"), "name": Column()}
    table = Table("things", ("id", "on"), columns)
    records = [{"id": 7.0, "on": "2026-01-31", "name": "a", "more": 1}, {"name": "b"}, 5]
    first, *others = table.keys(records).rows
    assert first == {"id": "7", "on": datetime(2026, 1, 31, tzinfo=timezone.utc)}
    assert [str(other) for other in others] == ["id is missing", "it is not an object"]


# Reports


def test_more_than_a_tenth_is_a_failure() -> None:
    """Ten skipped records of a hundred are reported, eleven end the sync."""
    skipped = SkippedRecords()
    for number in range(10):
        skipped.add("things", f"record {number}", ValueError("id is missing"))
    skipped.check("things", 100)
    skipped.add("things", "record 10", ValueError("id is missing"))
    first = "; ".join(f"record {number}: id is missing" for number in range(3))
    with pytest.raises(SourceError) as error:
        skipped.check("things", 100)
    assert str(error.value) == (
        f"things: 11 records skipped, first {first}. That is more than a tenth of 100"
    )


def test_a_table_that_is_read_again_is_counted_anew() -> None:
    """The skipped records of its first read are neither counted nor shown."""
    skipped = SkippedRecords()
    skipped.clear("things")
    for number in range(4):
        skipped.add("things", f"first read, record {number}", ValueError("id is missing"))
    skipped.clear("things")
    skipped.check("things", 0)
    skipped.add("things", "second read, record 7", ValueError("size is missing"))
    with pytest.raises(SourceError, match="1 record skipped, first second read, record 7"):
        skipped.check("things", 9)


def odd_values() -> SkippedRecords:
    """Odd values of two columns of a table and one of another, and two values that stand for no
    date."""
    skipped = SkippedRecords()
    for number in range(1, 5):
        skipped.add_odd("rooms", "created_at", f"page 1, record {number}")
    skipped.add_odd("sites", "size", "page 2, record 1")
    for number in (8, 9):
        skipped.add_odd("rooms", "closed_at", f"page 1, record {number}", placeholder=True)
    return skipped


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The warnings on the dashboard."""
    shown: list[str] = []
    monkeypatch.setattr(Operations, "warning", shown.append)
    return shown


def test_the_report_of_a_sync(warnings: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One warning covers all tables; the log gives the positions and reasons of each."""
    skipped = SkippedRecords()
    skipped.report()
    assert not warnings
    for table in ("things", "things", "places"):
        skipped.add(table, "page 2, record 1", ValueError("id is missing"))
    skipped.report()
    assert warnings == [
        "Records that cannot be stored were skipped: 2 of things, 1 of places. The log says why"
    ]
    output = capsys.readouterr().out
    twice = "; ".join(["page 2, record 1: id is missing"] * 2)
    assert f"things: 2 records skipped, first {twice}" in output
    assert "places: 1 record skipped, first page 2, record 1: id is miss" in output


def test_the_report_of_odd_values(warnings: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The log has a line for each column, with the first positions. One warning covers all
    columns, without values that stand for no date, since nobody can mend those."""
    skipped = odd_values()
    assert capsys.readouterr().out == ""
    skipped.check("rooms", 1)  # no record is skipped
    skipped.report()
    kept = "null, and kept as sent in additional_fields; first page"
    held = "cannot be held by its type"
    shown = "Values that their columns cannot hold are null, and kept as sent in additional_fields"
    assert warnings == [f"{shown}: 4 of rooms.created_at, 1 of sites.size. The log says where"]
    output = capsys.readouterr().out
    first = "1, record 1; page 1, record 2; page 1, record 3"
    for line in (
        f"rooms: 4 values of created_at {held}: they are {kept} {first}",
        f"sites: 1 value of size {held}: it is {kept} 2, record 1",
        f'rooms: 2 values of closed_at stand for "no date": they are {kept} 1, record 8; page 1',
    ):
        assert line in output
    assert "record 4" not in output


def test_skipped_records_and_odd_values_are_one_warning(warnings: list[str]) -> None:
    """The dashboard shows ten in all."""
    skipped = odd_values()
    skipped.add("rooms", "page 1, record 1", ValueError("id is missing"))
    skipped.report()
    [warning] = warnings
    assert warning.startswith("Records that cannot be stored were skipped: 1 of rooms. Values th")


def test_odd_values_of_a_table_that_is_read_again_are_counted_anew(warnings: list[str]) -> None:
    """As its skipped records are."""
    skipped = odd_values()
    skipped.clear("rooms")
    skipped.report()
    [warning] = warnings
    assert warning.endswith("additional_fields: 1 of sites.size. The log says where")


def test_values_for_no_date_are_no_warning(warnings: list[str]) -> None:
    """Values that stand for no date are in the log alone."""
    skipped = SkippedRecords()
    skipped.add_odd("rooms", "closed_at", "page 1, record 8", placeholder=True)
    skipped.report()
    assert not warnings


@given(
    st.lists(
        st.none()
        | st.integers(-(10**7), 10**7)
        | st.decimals(-1000, 1000, places=3).map(str)
        | st.sampled_from(["", "0", "-0", "-0.0", "1.50", "007", "1\n2", "1\n", " 1", "+1", "1e2"])
    )
)
def test_a_column_of_decimals_equals_its_values_one_by_one(values: list[Any]) -> None:
    """Whether they are converted together or one by one."""

    def one(value: Any) -> Any:
        try:
            return convert([value], decimal(9, 4), "x")
        except InvalidRecord:
            return None

    each = [one(value) for value in values]
    if None in each:
        with pytest.raises(InvalidRecord):
            convert(values, decimal(9, 4), "x")
    else:
        assert convert(values, decimal(9, 4), "x") == [value for [value] in each]


def test_a_type_that_has_no_converter_is_refused_where_it_is_declared() -> None:
    """Not by a KeyError in the middle of a sync."""
    with pytest.raises(ValueError, match="a column of the type NAIVE_TIME"):
        Column("NAIVE_TIME")
