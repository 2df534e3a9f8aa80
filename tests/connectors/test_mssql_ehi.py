"""mssql_ehi: types, resumable reads, faults, over real TDS to the simulator of SQL Server.

The tests that take ``source`` run against the server that MSSQL_TEST_SERVER, _PORT, _USER and
_PASSWORD name, if they are set; `pytest -m source` runs these alone.
"""

import inspect
import re
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from importlib import import_module
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import pytds
import pytest
from cryptography import x509
from fivetran_connector_sdk import Operations
from hypothesis import given, strategies as st
from OpenSSL import crypto

from shared.errors import SettingsError, TransientError
from shared.rows import InvalidRecord
from tests.connectors.mssql import (
    DATA,
    NOW,
    Columns,
    Source,
    configuration,
    create_plain,
    create_timed,
    failed,
    ids,
    moments,
    reads,
    synced,
    table_state,
    take_no_bad_ones,
    upserts,
)
from tests.sandbox.fivetran import Project, load, stored_column, stored_table
from tests.sandbox.mssql import (
    ColumnSpec,
    Fragmentation,
    MssqlSandbox,
    faults,
    seed_ehr,
    tls,
)
from tests.sandbox.mssql.collation import Collation
from tests.sandbox.mssql.stock import stock_driver
from tests.width import wide
from tools.paths import ROOT

pytestmark = pytest.mark.usefixtures("slept")
load("mssql_ehi")  # makes its modules importable
schema, type_mapping, tds_patches, table_sync, rows_module, naming, query, row_reader = map(
    import_module,
    (
        "sqlserver.schema",
        "sqlserver.type_mapping",
        "sqlserver.tds_patches",
        "sqlserver.table_sync",
        "sqlserver.rows",
        "sqlserver.naming",
        "sqlserver.query",
        "sqlserver.row_reader",
    ),
)


# Types

EXTREMES: list[tuple[str, Any, Any]] = [
    ("bit", True, True),
    ("bit", False, False),
    ("tinyint", 255, 255),
    ("smallint", -32768, -32768),
    ("int", -(2**31), -(2**31)),
    ("bigint", -(2**63), -(2**63)),
    ("bigint", 2**63 - 1, 2**63 - 1),
    ("decimal(38,0)", Decimal("9" * 38), Decimal("9" * 38)),
    ("decimal(38,38)", Decimal("-0." + "9" * 38), Decimal("-0." + "9" * 38)),
    ("decimal(38,10)", Decimal("0.0000000001"), Decimal("0.0000000001")),
    ("numeric(9,2)", Decimal("-1234567.89"), Decimal("-1234567.89")),
    ("money", Decimal("922337203685477.5807"), Decimal("922337203685477.5807")),
    ("money", Decimal("-922337203685477.5808"), Decimal("-922337203685477.5808")),
    ("smallmoney", Decimal("-214748.3648"), Decimal("-214748.3648")),
    ("float", 0.1, 0.1),
    ("float", 1.7976931348623157e308, 1.7976931348623157e308),
    ("float", -2.23e-308, -2.23e-308),
    ("real", 0.5, 0.5),
    ("date", date(1, 1, 1), date(1, 1, 1)),
    ("date", date(9999, 12, 31), date(9999, 12, 31)),
    ("datetime", "1753-01-01T00:00:00", datetime(1753, 1, 1)),
    ("datetime", "9999-12-31T23:59:59.997", datetime(9999, 12, 31, 23, 59, 59, 997000)),
    ("datetime", "2024-01-01T00:00:00.007", datetime(2024, 1, 1, 0, 0, 0, 7000)),
    ("datetime2(7)", "0001-01-01T00:00:00.0000001", datetime(1, 1, 1)),
    ("datetime2(7)", "9999-12-31T23:59:59.9999999", datetime(9999, 12, 31, 23, 59, 59, 999999)),
    ("datetime2(0)", "2024-02-29T23:59:59", datetime(2024, 2, 29, 23, 59, 59)),
    ("datetime2(3)", "2024-02-29T23:59:59.120", datetime(2024, 2, 29, 23, 59, 59, 120000)),
    ("smalldatetime", "2079-06-06T23:59:00", datetime(2079, 6, 6, 23, 59)),
    (
        "datetimeoffset(7)",
        "2024-06-01T12:00:00.1234567+05:30",
        datetime(2024, 6, 1, 6, 30, 0, 123456, tzinfo=timezone.utc),
    ),
    (
        "datetimeoffset(7)",
        "9999-12-31T23:59:59.9999999+00:00",
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=timezone.utc),
    ),
    (
        "datetimeoffset(0)",
        "0001-01-01T00:00:00+00:00",
        datetime(1, 1, 1, tzinfo=timezone.utc),
    ),
    ("time(7)", "23:59:59.9999999", "23:59:59.999999"),
    ("time(0)", "00:00:00", "00:00:00"),
    (
        "uniqueidentifier",
        "6F9619FF-8B86-D011-B42D-00C04FC964FF",
        "6f9619ff-8b86-d011-b42d-00c04fc964ff",
    ),
    ("binary(4)", b"\x00\xff", b"\x00\xff\x00\x00"),
    ("varbinary(max)", bytes(range(256)) * 100, bytes(range(256)) * 100),
    ("image", b"\x00\x01", b"\x00\x01"),
    ("xml", "<a>ü</a>", "<a>ü</a>"),
    ("char(4)", "é", "é   "),
    ("varchar(max)", "x" * 100_000, "x" * 100_000),
    ("nvarchar(20)", "患者 🩺", "患者 🩺"),
    ("nvarchar(max)", "🩺" * 50_000, "🩺" * 50_000),
    ("text", "long", "long"),
    ("ntext", "läng", "läng"),
    ("sql_variant", 17, "17"),
    ("hierarchyid", "/1/2/", "/1/2/"),
    ("varchar(10)", "", ""),
]


@pytest.mark.source
def test_every_type_at_its_extremes(project: Project, source: Source) -> None:
    """What the destination holds is what the source held, in each type of the table."""
    names_of = [f"col{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(len(EXTREMES))]
    columns: Columns = [ColumnSpec("id", "int", nullable=False)]
    columns += [ColumnSpec(n, kind) for n, (kind, _, _) in zip(names_of, EXTREMES, strict=True)]
    full = (1, *(given for _, given, _ in EXTREMES))
    nulls = (2, *(None for _ in EXTREMES))
    source.create_table("dbo", "t", columns, key=["id"], rows=[full, nulls])
    synced(project, source)
    rows = {row["id"]: row for row in project.rows("t")}
    for name, (kind, _, expected) in zip(names_of, EXTREMES, strict=True):
        assert rows[1][name] == expected, kind
        assert rows[2][name] is None


@pytest.mark.source
def test_every_type_in_many_rows(
    project: Project, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same values, whether the driver or the connector's own decoder reads them."""
    decoders: list[Any] = []
    decoder_of = row_reader._decoder_of

    def noted(session: Any) -> Any:
        decoder = decoder_of(session)
        if len(session.res_info.columns) > len(EXTREMES):  # else it is one of the catalogue
            decoders.append(decoder)
        return decoder

    monkeypatch.setattr(row_reader, "_decoder_of", noted)
    names_of = [f"col{chr(97 + i // 26)}{chr(97 + i % 26)}" for i in range(len(EXTREMES))]
    columns: Columns = [ColumnSpec("id", "int", nullable=False)]
    columns += [ColumnSpec(n, kind) for n, (kind, _, _) in zip(names_of, EXTREMES, strict=True)]
    monkeypatch.setattr(row_reader, "DRIVERS_OWN", 10)
    count, given = 50, [given for _, given, _ in EXTREMES]
    rows = [
        (number, *(None if number % (place + 2) == 1 else v for place, v in enumerate(given)))
        for number in range(count)
    ]
    source.create_table("dbo", "t", columns, key=["id"], rows=rows)
    synced(project, source)
    assert len(decoders) == 1
    assert decoders[0] is not None
    stored = project.rows("t")
    assert len(stored) == count
    for row in stored:
        for place, (name, (kind, _, expected)) in enumerate(zip(names_of, EXTREMES, strict=True)):
            value = None if row["id"] % (place + 2) == 1 else expected
            assert row[name] == value, (row["id"], kind)


@pytest.mark.source
def test_columns_have_the_declared_types(project: Project, source: Source) -> None:
    """No column's type depends on the data: here there is none."""
    kinds = {
        "a": ("bit", "BOOLEAN"),
        "b": ("tinyint", "SMALLINT"),
        "c": ("bigint", "BIGINT"),
        "d": ("decimal(20,3)", "DECIMAL(20,3)"),
        "e": ("money", "DECIMAL(19,4)"),
        "f": ("float", "DOUBLE"),
        "g": ("real", "FLOAT"),
        "h": ("date", "DATE"),
        "i": ("datetime", "TIMESTAMP"),
        "j": ("datetimeoffset", "TIMESTAMP WITH TIME ZONE"),
        "k": ("time", "VARCHAR"),
        "l": ("rowversion", "BLOB"),
        "m": ("geography", "VARCHAR"),
    }
    source.create_table("dbo", "t", [(name, kind[0]) for name, kind in kinds.items()])
    synced(project, source)
    assert project.types("t") == {name: kind[1] for name, kind in kinds.items()}


def test_a_value_that_its_type_cannot_hold_is_reported(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The value is null, its column and position are named, its row arrives, nothing is shown."""
    rows = [(i, f'{{"a": {i}}}') for i in range(30)]
    rows[7] = (7, "{no document")
    columns: Columns = [("id", "int", False), ("doc", "nvarchar(max)")]
    server.create_table("dbo", "t", columns, key=["id"], rows=rows)
    monkeypatch.setitem(type_mapping.TYPE_MAPPINGS, "nvarchar", type_mapping.TYPE_MAPPINGS["json"])
    result = synced(project, server)
    assert ids(project) == list(range(30))
    assert [row["id"] for row in project.rows("t") if row["doc"] is None] == [7]
    assert re.search(r"WARNING.*dbo\.t.* doc .*row 8", result.output)
    assert "1 of dbo.t.doc" in result.output
    assert "no document" not in result.output
    [row] = project.rows("sync_validation")
    assert row["skipped_records"] == 0


@pytest.fixture
def picky(monkeypatch: pytest.MonkeyPatch) -> None:
    """No nvarchar that begins with "bad" can be stored."""
    kind = replace(type_mapping.TYPE_MAPPINGS["nvarchar"], convert=take_no_bad_ones)
    monkeypatch.setitem(type_mapping.TYPE_MAPPINGS, "nvarchar", kind)


@pytest.mark.usefixtures("picky")
def test_a_key_that_its_type_cannot_hold_costs_its_row(
    project: Project, server: MssqlSandbox
) -> None:
    """The table is not replaced then: what was deleted stays until every row can be read."""
    columns: Columns = [("k", "nvarchar(20)", False), ("id", "int")]
    rows = [(f"k{i:02d}", i) for i in range(30)]
    server.create_table("dbo", "t", columns, key=["k"], rows=rows)
    synced(project, server)
    server.insert("dbo.t", [("bad one", 77)])
    server.delete("dbo.t", {"id": 3})
    server.update("dbo.t", {"id": 4}, id=44)
    result = synced(project, server)
    assert "dbo.t: 1 row was skipped, so nothing is replaced" in result.output
    assert "1 of dbo.t" in result.output
    assert result.counts["Truncates"] == 0
    assert ids(project) == [0, 1, 2, 3, *range(5, 30), 44]
    server.delete("dbo.t", {"id": 77})
    synced(project, server)
    assert ids(project) == [0, 1, 2, *range(5, 30), 44]


@pytest.mark.usefixtures("picky")
def test_a_table_of_bad_rows_fails(project: Project, server: MssqlSandbox) -> None:
    """More than a tenth is no mishap; all arrive once it is mended."""
    columns: Columns = [("k", "nvarchar(20)", False), ("id", "int")]
    rows = [(f"{'k' if i % 2 else 'bad'}{i}", i) for i in range(30)]
    server.create_table("dbo", "t", columns, key=["k"], rows=rows)
    output = failed(project, server).output
    assert "more than a tenth of 30" in output
    assert "dbo.t: dbo.t:" not in output
    for i in range(0, 30, 2):
        server.update("dbo.t", {"id": i}, k=f"k{i}")
    synced(project, server)
    assert ids(project) == list(range(30))


def test_bytes_are_no_text(project: Project, server: MssqlSandbox) -> None:
    """Whatever the reason for which they arrive: here the catalog view does not tell it."""
    columns: Columns = [("id", "int", False), ("ssn", "nvarchar(20)"), ("at", "time(0)")]
    rows = [(i, f"ssn {i}", "12:00:00") for i in range(20)]
    server.create_table("dbo", "t", columns, key=["id"], rows=rows)
    for name in ("ssn", "at"):
        server.mark("dbo.t", name, encrypted=True)
    server.switch_off_view("sys.columns")
    result = synced(project, server, exclude_columns="at")
    assert ids(project) == list(range(20))
    assert {row["ssn"] for row in project.rows("t")} == {None}
    assert "20 of dbo.t.ssn" in result.output


def test_a_value_that_the_sdk_refuses_costs_that_value(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its column is found by trying, whatever the reason."""
    columns: Columns = [("id", "int", False), ("a", "nvarchar(20)"), ("b", "nvarchar(20)")]
    server.create_table("dbo", "t", columns, key=["id"], rows=[(1, "x", "y"), (2, "x", "odd")])
    upsert = Operations.upsert

    def picky_upsert(table: str, data: dict[str, Any], **more: Any) -> None:
        if data.get("b") == "odd":
            raise TypeError("a value of the test")
        upsert(table, data, **more)

    monkeypatch.setattr(Operations, "upsert", staticmethod(picky_upsert))
    result = synced(project, server)
    found = sorted((row["id"], row["a"], row["b"]) for row in project.rows("t"))
    assert found == [(1, "x", "y"), (2, "x", None)]
    assert "1 of dbo.t.b" in result.output


def test_an_instant_outside_the_calendar_is_refused() -> None:
    """Year 1 with an offset is a moment before the calendar's first."""
    with pytest.raises(OverflowError):
        type_mapping.TYPE_MAPPINGS["datetimeoffset"].convert("0001-01-01 00:00:00 +14:00")


# ReadProgress: resume, ties, cursors


def columns_of(**kinds: str) -> tuple[Any, ...]:
    return tuple(
        schema.Column(name, type_mapping.ColumnInfo(kind), nullable=name == "a", destination=name)
        for name, kind in kinds.items()
    )


def table_of(*key: str, tracked_since: int | None = None, **kinds: str) -> Any:
    columns = columns_of(**kinds)
    keys = tuple(column for column in columns if column.name in key)
    return schema.SourceTable("dbo", "t", columns, keys, keys, tracked_since=tracked_since)


def test_behind_each_position_are_the_rows_that_follow() -> None:
    """Ties and nulls included: a condition on three columns leaves none out, and none in twice."""
    table = table_of("b", "c", a="int", b="int", c="int")
    plan = query.Plan(table, table.columns[0], table.key)
    rows = sorted(product((None, 1, 2), (1, 2), (1, 2, 3)), key=lambda row: (row[0] or 0, row))
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("ATTACH ':memory:' AS dbo")
        connection.execute("CREATE TABLE dbo.t (a, b, c)")
        connection.executemany("INSERT INTO dbo.t VALUES (?, ?, ?)", reversed(rows))

        def read(*arguments: Any) -> list[Any]:
            sql, parameters = plan.statement(*arguments)
            return connection.execute(re.sub(r"%\((\w+)\)s", r":\1", sql), parameters).fetchall()

        assert read() == rows
        for place, row in enumerate(rows):
            assert plan.position(row) == [None if v is None else str(v) for v in row]
            assert read(None, None, plan.position(row)) == rows[place + 1 :]
            later = [one for one in rows[place + 1 :] if one[0] == 2]
            assert read("2", None, plan.position(row)) == later
        assert read("2", "1") == rows[12:]  # only a rowversion has an end


def test_the_statements_of_a_plan() -> None:
    """The order's columns with their table's name, and each column's value in its own type."""
    table = table_of("id", id="int", v="rowversion", x="nvarchar")
    plan = query.Plan(table, table.columns[1], table.key)
    sql, parameters = plan.statement("0x01", "0x09", ["0x05", "7"], limit=1)
    assert sql == (
        "SELECT TOP (1) T.[id] AS [c0], T.[v] AS [c1], T.[x] AS [c2] FROM [dbo].[t] AS T "
        "WHERE T.[v] >= CONVERT(binary(8), %(p0)s, 1) AND T.[v] < CONVERT(binary(8), %(p1)s, 1) "
        "AND (T.[v] >= CONVERT(binary(8), %(p2)s, 1) AND (T.[v] > CONVERT(binary(8), %(p2)s, 1) "
        "OR T.[id] > CAST(%(p3)s AS int))) ORDER BY T.[v], T.[id]"
    )
    assert parameters == {"p0": "0x01", "p1": "0x09", "p2": "0x05", "p3": "7"}
    whole = query.Plan(table, None, ()).statement(columns=table.columns[2:])
    assert whole == ("SELECT T.[x] AS [c0] FROM [dbo].[t] AS T", {})
    changes = query.Changes(table, None, table.key, tracked=True)
    sql, parameters = changes.statement("5", after=["7"])
    assert parameters == {"p0": "7"}
    assert sql == (
        "SELECT T.[id] AS [c0], T.[v] AS [c1], T.[x] AS [c2], CT.[id] AS [c3], "
        "CT.SYS_CHANGE_OPERATION AS [c4] FROM CHANGETABLE(CHANGES [dbo].[t], 5) AS CT "
        "LEFT JOIN [dbo].[t] AS T ON T.[id] = CT.[id] "
        "WHERE CT.[id] > CAST(%(p0)s AS int) ORDER BY CT.[id]"
    )
    assert changes.statement(columns=table.key, limit=1)[0] == (
        "SELECT TOP (1) CT.[id] AS [c0] FROM CHANGETABLE(CHANGES [dbo].[t], 0) AS CT "
        "LEFT JOIN [dbo].[t] AS T ON T.[id] = CT.[id] ORDER BY CT.[id]"
    )
    assert changes.position((None, None, None, 7, "D")) == ["7"]
    facts = type_mapping.ColumnInfo("varchar", length=9, collation="Latin1_General_BIN2")
    text = schema.Column("x", facts, nullable=False)
    table = replace(table, columns=(table.columns[0], text), key=(table.columns[0], text))
    sql, _ = query.Changes(table, None, table.key, tracked=True).statement(after=["7", "a"])
    assert " ON T.[id] = CT.[id] AND T.[x] = CT.[x] WHERE " in sql
    collated = "Latin1_General_BIN2 AS varchar(9)) COLLATE Latin1_General_BIN2"
    assert f"OR CT.[x] > CAST(%(p1)s COLLATE {collated})) ORDER" in sql


def test_a_position_of_other_columns_is_an_error() -> None:
    """Taken for one of fewer columns, it would pass over rows."""
    table = table_of("b", "c", a="int", b="int", c="int")
    plan = query.Plan(table, table.columns[0], table.key)
    for texts in (["1", "2"], ["1", "2", "3", "4"]):
        with pytest.raises(ValueError, match="zip"):
            plan.statement(after=texts)
        with pytest.raises(ValueError, match="zip"):
            plan.position_of(texts)


@pytest.mark.parametrize(
    ("table", "versions", "expected"),
    [
        (table_of("id", id="int", at="datetime2", on="date"), True, "incremental by on"),
        (table_of("id", id="int", AT="datetime2"), True, "incremental by AT"),
        (table_of("id", id="int", on="int", at="datetime2"), True, "incremental by at"),
        (table_of("id", id="int", on="int", v="rowversion"), True, "incremental by v"),
        (table_of("id", id="int", v="timestamp", at="date"), True, "incremental by at"),
        (table_of("id", id="int", v="timestamp"), False, "in full, in key order"),
        (table_of(id="int", at="date"), True, "in full, in one statement"),
        (table_of("id", id="int", at="date", tracked_since=0), True, "changes by Change Tracking"),
        (table_of("id", id="xml", at="date", tracked_since=0), True, "incremental by at"),
        (table_of("a", a="int", at="date", tracked_since=0), True, "incremental by at"),
        (table_of(id="int", tracked_since=0), True, "in full, in one statement"),
    ],
)
def test_which_plan_is_chosen(table: Any, versions: bool, expected: str) -> None:
    """The first candidate that is a time; a rowversion after these; each needs an order."""
    plan = query.choose(table, ["None", "On", "At"], versions=versions)
    assert str(plan) == expected
    assert (plan.table, plan.key) == (table, table.order)
    assert plan.by_version == (expected == "incremental by v")


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        *((None, "of unknown size"), (0, "small"), (100_000, "small"), (100_001, "medium")),
        *((10_000_000, "medium"), (10_000_001, "large")),
    ],
)
def test_sizes_in_words(rows: int | None, expected: str) -> None:
    """The bounds belong to the smaller one."""
    assert query.category(rows) == expected


KEYS: list[tuple[str, list[Any]]] = [
    ("int", list(range(-30, 30))),
    ("bigint", [2**62 + i for i in range(60)]),
    ("decimal(38,10)", [Decimal(i) / 7 for i in range(60)]),
    ("money", [Decimal(i) / 8 for i in range(60)]),
    ("float", [i / 3 for i in range(60)]),
    (
        "uniqueidentifier",
        [f"{i * 79 % 256:02x}000000-0000-0000-0000-{i:012x}" for i in range(60)],
    ),
    ("varchar(20)", [f"{'aB'[i % 2]}{i:03d} ä" for i in range(60)]),
    ("nvarchar(20)", [f"{'é' if i % 2 else 'E'}{i:03d}_%患" for i in range(60)]),
    ("char(6)", [f"k{i}" for i in range(60)]),
    ("binary(8)", [i.to_bytes(8, "little") for i in range(60)]),
    ("varbinary(8)", [bytes([255 - i]) for i in range(60)]),
    ("date", [date(1, 1, 1) + timedelta(days=i) for i in range(60)]),
    ("datetime", [datetime(2024, 1, 1) + timedelta(milliseconds=10 * i) for i in range(60)]),
    ("datetime2(7)", [f"2024-01-01T00:00:00.{i * 11:07d}" for i in range(60)]),
    ("datetimeoffset(7)", [f"2024-01-01T00:00:00.{i * 11:07d}+0{i % 5}:00" for i in range(60)]),
    ("time(7)", [f"00:00:00.{i * 11:07d}" for i in range(60)]),
]


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize(
    ("kind", "values"), [*KEYS[2::4], *wide(*(key for key in KEYS if key not in KEYS[2::4]))]
)
@pytest.mark.source
def test_a_key_of_any_type_resumes_at_every_batch(
    project: Project,
    source: Source,
    kind: str,
    values: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The connection is lost after every 20 rows: no row is lost, none comes twice."""
    columns: Columns = [("k", kind, False), ("n", "int", False)]
    rows = [(value, i) for i, value in enumerate(values)]
    source.create_table("dbo", "t", columns, key=["k"], rows=rows)
    get_table_data = load("mssql_ehi").get_table_data

    def breaking(*arguments: Any) -> Iterator[Any]:
        for number, batch in enumerate(get_table_data(*arguments), 1):
            yield batch
            if number == 2:
                raise TransientError("lost by the test")

    monkeypatch.setattr(load("mssql_ehi"), "get_table_data", breaking)
    result = synced(project, source)
    assert ids(project, column="n") == list(range(60))
    assert upserts(result) == 60


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("mode", ["initial", "incremental"])
@pytest.mark.parametrize(
    "kind", ["datetime", *wide("datetime2(7)", "datetime2(0)", "smalldatetime")]
)
def test_ties_longer_than_many_batches(
    project: Project, server: MssqlSandbox, kind: str, mode: str
) -> None:
    """All rows share a moment; a sync that dies every 15 rows still gets to the end."""
    moment = "2026-11-20T11:00:00"
    rows = [(i, moment) for i in range(100)]
    if mode == "incremental":
        create_timed(server, [(-1, "2026-11-20T10:59:00")], kind)
        synced(project, server)
        server.insert("dbo.t", rows)
    else:
        create_timed(server, rows, kind)
    syncs = 0
    while True:
        server.faults.add(faults.drop(DATA, after_rows=15))
        syncs += 1
        if project.sync(configuration(server, retry_attempts="0")).code == 0:
            break
        assert syncs < 30
    assert [i for i in ids(project) if i >= 0] == list(range(100))
    assert 5 <= syncs <= 11


def test_a_position_has_all_seven_digits(project: Project, server: MssqlSandbox) -> None:
    """Two moments that the destination cannot tell apart are two positions."""
    moments_of_100_ns = [f"2026-11-20T11:00:00.{i:07d}" for i in range(60)]
    create_timed(server, [(99, moments_of_100_ns[0])])
    synced(project, server)
    server.insert("dbo.t", list(enumerate(moments_of_100_ns)))
    server.faults.add(faults.drop(DATA, after_rows=25))
    synced(project, server)
    assert ids(project) == [*range(60), 99]
    resumed = [s for s in server.statements if re.match(DATA, s.sql)][-1]
    assert "2026-11-20 11:00:00.0000023" in resumed.parameters.values()


@pytest.mark.usefixtures("small_steps")
def test_a_first_load_goes_on_where_it_broke_off(project: Project, server: MssqlSandbox) -> None:
    """It is truncated once, and what was stored is not read again."""
    create_timed(server, moments(100, per_moment=7))
    server.faults.add(faults.drop(DATA, after_rows=55), faults.drop(DATA, after_rows=5))
    first = failed(project, server, retry_attempts="0")
    assert first.counts["Truncates"] == 1
    second = synced(project, server)
    assert second.counts["Truncates"] == 0
    assert upserts(second) == 100 - 60
    assert ids(project) == list(range(100))


@pytest.mark.usefixtures("small_steps")
def test_nulls_come_first_and_only_in_full_loads(project: Project, server: MssqlSandbox) -> None:
    """The initial load resumes among them; an incremental read leaves them out."""
    times = moments(20)
    create_timed(server, [(i + 100, None) for i in range(50)] + times)
    server.faults.add(faults.drop(DATA, after_rows=15))
    synced(project, server)
    assert len(project.rows("t")) == 70
    server.insert("dbo.t", [(300, None), (301, times[-1][1])])
    synced(project, server)
    assert {300, 301} & set(ids(project)) == {301}


def test_the_next_start_is_the_smallest_of_three(project: Project, server: MssqlSandbox) -> None:
    """The greatest value, the server's local clock and its UTC clock, less the look-back."""
    for offset, latest, expected in [
        (0, "2026-11-20T11:30:00", "2026-11-20 11:25:00"),
        (0, "9999-12-31T00:00:00", "2026-11-20 11:55:00"),
        (120, "2099-12-31T00:00:00", "2026-11-20 11:55:00"),
        (-120, "2099-12-31T00:00:00", "2026-11-20 09:55:00"),
        (0, "0001-01-01T00:00:00", "0001-01-01 00:00:00"),
    ]:
        server.set_clock(NOW, offset)
        name = f"t{len(server.store.tables)}"
        columns: Columns = [("id", "int", False), ("ModifiedDate", "datetime2(7)")]
        server.create_table("dbo", name, columns, key=["id"], rows=[(1, latest)])
        synced(project, server, lookback_seconds="300")
        assert table_state(project, f"dbo.{name}").cursor.moment == expected


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("smalldatetime", "2026-11-20 11:24:00"),
        ("datetime", "2026-11-20 11:24:59.99"),
        ("datetime2(0)", "2026-11-20 11:25:00"),
        ("date", "2026-11-19"),
        ("datetimeoffset(3)", "2026-11-20 11:25:00 +00:00"),
    ],
)
def test_a_start_is_never_rounded_up(
    project: Project, server: MssqlSandbox, kind: str, expected: str
) -> None:
    """Each type of time cuts in its own way; the start is at most what the rule says."""
    value = "2026-11-20T11:30:00"
    if kind == "smalldatetime":
        value = "2026-11-20T11:29:00"
    if kind == "datetime":
        value = "2026-11-20T11:29:59.997"
    create_timed(server, [(1, value[:10] if kind == "date" else value)], kind)
    synced(project, server, lookback_seconds="300")
    assert table_state(project).cursor.moment == expected
    synced(project, server, lookback_seconds="300")
    assert ids(project) == [1]


@pytest.mark.parametrize(
    ("kind", "fraction", "expected"),
    [
        ("smalldatetime", 0, "2026-11-20 11:28:00"),
        ("datetime", 3, "2026-11-20 11:28:59.98"),
        ("datetime2", 0, "2026-11-20 11:28:59"),
        ("datetime2", 3, "2026-11-20 11:28:59.987"),
        ("datetime2", 7, "2026-11-20 11:28:59.987654"),
        ("datetime2", None, "2026-11-20 11:28:59.987654"),
    ],
)
def test_a_look_back_of_any_length_is_not_rounded_up(
    kind: str, fraction: int | None, expected: str
) -> None:
    """What the type has no digits for is cut, since the server would round it to a later one."""
    column = schema.Column("t", type_mapping.ColumnInfo(kind, fraction=fraction), nullable=True)
    arguments = "2026-11-20 11:29:29.9876543", "2026-11-20 12:00:00.0000000"
    assert query.next_start(column, *arguments, timedelta(seconds=30)) == expected
    late = query.next_start(column, *reversed(arguments), timedelta(seconds=30))
    assert late == expected  # the clock is the smaller one now


def test_rows_that_commit_late_arrive(project: Project, server: MssqlSandbox) -> None:
    """A row stamped before the greatest one, and visible after it, is in the look-back."""
    create_timed(server, moments(10))
    with server.transaction() as late:
        late.insert("dbo.t", [(50, moments(10)[5][1])])
        server.insert("dbo.t", [(60, NOW.replace(tzinfo=None) - timedelta(minutes=50))])
        synced(project, server, lookback_seconds="900")
        late.commit()
    synced(project, server, lookback_seconds="900")
    assert ids(project) == [*range(10), 50, 60]


@pytest.mark.source
def test_what_changed_arrives(project: Project, source: Source) -> None:
    """The second sync reads the rows of the greatest moment, which is old, and what changed."""
    early = [(i, moment - timedelta(days=700)) for i, moment in moments(900)]
    create_timed(source, early)
    synced(project, source, lookback_seconds="300")
    source.update("dbo.t", {"id": 5}, ModifiedDate=early[-1][1] + timedelta(days=1))
    source.insert("dbo.t", [(5_000, early[-1][1])])
    result = synced(project, source, lookback_seconds="300")
    assert ids(project) == [*range(900), 5_000]
    assert upserts(result) == 1 + 2


def test_only_what_changed_is_read(project: Project, server: MssqlSandbox) -> None:
    """The second sync reads from the start that the first one left."""
    create_timed(server, moments(3000))
    synced(project, server, lookback_seconds="300")
    server.update("dbo.t", {"id": 5}, ModifiedDate=NOW.replace(tzinfo=None))
    result = synced(project, server, lookback_seconds="0")
    assert upserts(result) == 300 + 1 + 1
    assert "CAST(@P1 AS datetime2(7))" in reads(server, "t")[-1]


def test_a_server_clock_that_was_set_back_leads_to_a_full_read(
    project: Project, server: MssqlSandbox
) -> None:
    """Nothing tells what was stamped meanwhile."""
    create_timed(server, moments(10))
    synced(project, server)
    server.set_clock(NOW - timedelta(days=1))
    server.insert("dbo.t", [(99, NOW.replace(tzinfo=None) - timedelta(days=1))])
    assert "ahead of the server's clock" in synced(project, server).output
    assert 99 in ids(project)


def test_a_refused_incremental_read_gives_way_to_a_full_one(
    project: Project, server: MssqlSandbox
) -> None:
    """With a warning that says why; the sync after it is in order again."""
    create_timed(server, moments(10))
    synced(project, server)
    server.delete("dbo.t", {"id": 3})
    server.faults.add(faults.fail(8115, match=DATA))
    result = synced(project, server)
    assert "error 8115 of the server" in result.output
    assert ": in place of the incremental read, all rows are read" in result.output
    assert ids(project) == [0, 1, 2, 4, 5, 6, 7, 8, 9]
    for _ in range(2):
        synced(project, server)
    assert ">= CAST" in reads(server, "t")[-1]


# Full loads and deletes


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.source
def test_deletes_arrive_by_replacing_a_small_table(
    project: Project, source: Source, keyed: bool
) -> None:
    """One checkpoint holds the truncate and all rows, with and without a key."""
    source.create_table(
        "dbo", "t", [("id", "int", False)], key=["id"] if keyed else [], rows=[(1,), (2,), (3,)]
    )
    synced(project, source)
    source.delete("dbo.t", {"id": 2})
    result = synced(project, source)
    assert ids(project) == [1, 3]
    assert len(project.rows("t", deleted=True)) == 1
    assert result.counts["Truncates"] == 1


def test_a_replacement_that_breaks_off_changes_nothing(
    project: Project, server: MssqlSandbox
) -> None:
    """Not even with other tables' checkpoints after it."""
    create_plain(server)
    create_plain(server, name="u")
    synced(project, server)
    server.delete("dbo.t")
    server.insert("dbo.t", [(100, "new")])
    server.insert("dbo.u", [(100, "new")])
    server.faults.add(faults.fail(208, match=r"FROM \[dbo\]\.\[t\]"))
    failed(project, server)
    assert ids(project) == list(range(30))
    assert 100 in ids(project, "u")
    synced(project, server)
    assert ids(project) == [100]


@pytest.mark.source
def test_an_emptied_table_is_believed_at_the_second_time(project: Project, source: Source) -> None:
    """A login that lost its rights by a row filter looks the same."""
    create_plain(source)
    synced(project, source)
    source.delete("dbo.t")
    assert "lists no rows, and had 30 before" in synced(project, source).output
    assert len(project.rows("t")) == 30
    synced(project, source)
    assert project.rows("t") == []


def test_a_table_that_proves_large_is_not_replaced(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Past the limit on the way it checkpoints, and nothing is truncated or lost."""
    create_plain(server, 60)
    synced(project, server)
    monkeypatch.setattr(table_sync, "LARGEST_WAITING", 500)
    result = synced(project, server)
    assert result.counts["Truncates"] == 0
    assert ids(project) == list(range(60))


def test_a_table_without_a_key_starts_again(project: Project, server: MssqlSandbox) -> None:
    """After a lost connection it is read from its beginning, and no row comes twice."""
    server.create_table(
        "dbo", "t", [("id", "int"), ("v", "int")], rows=[(i, 1) for i in range(60)]
    )
    server.faults.add(faults.drop(DATA, after_rows=25))
    synced(project, server)
    assert ids(project) == list(range(60))
    server.faults.add(faults.drop(DATA, after_rows=25))
    synced(project, server)
    assert ids(project) == list(range(60))


def test_a_batch_without_the_rows_that_cannot_be_stored() -> None:
    """These are named by their places, whatever else is wrong with one; elsewhere a value that
    cannot be held is null, and named by its place and column."""
    columns = rows_module.RowMapper(table_of("day", "id", day="date", id="int", at="date"))
    mapped = columns.rows(
        [
            ("2026-01-31", 1, "2026-02-01", "2026-01-31", 1, "U"),
            ("2026-01-31", 2, "soon", "2026-01-31", 2, "U"),
            ("soon", 3, "soon", "soon", 3, "U"),
            ("2026-01-31", None, "soon", "2026-01-31", 4, "U"),
            (None, 5, None, None, 5, "U"),
            ("2026-01-31", 6, None, "2026-01-31", 6, "U"),
        ]
    )
    day = date(2026, 1, 31)
    assert mapped.rows == [
        {"day": day, "id": 1, "at": date(2026, 2, 1)},
        {"day": day, "id": 2, "at": None},
        {"day": day, "id": 6, "at": None},
    ]
    assert {place: str(reason) for place, reason in mapped.invalid.items()} == {
        2: "day holds what its type cannot hold",
        3: "id is missing",
        4: "day is missing",
    }
    assert mapped.odd == [(1, "at")]


def test_text_that_is_none() -> None:
    """Half a character in a key, and bytes where there should be text."""
    columns = rows_module.RowMapper(table_of("k", k="nvarchar", v="nvarchar", doc="json"))
    mapped = columns.rows(
        [("k\ud83d", "v", "[]"), (b"k", b"v", None), ("\U0001f469", b"v", b"[]"), ("k", "v", None)]
    )
    assert mapped.rows == [
        {"k": "\U0001f469", "v": None, "doc": None},
        {"k": "k", "v": "v", "doc": None},
    ]
    assert {place: str(reason) for place, reason in mapped.invalid.items()} == {
        0: "k holds half a character",
        1: "k holds what its type cannot hold",
    }
    assert mapped.odd == [(2, "v"), (2, "doc")]


def test_a_change_without_a_row() -> None:
    """Its key stands behind the columns, and is converted as these are."""
    columns = rows_module.RowMapper(table_of("b", a="int", b="date", id="int"))
    gone, there = (None, None, None, "2026-01-31", "D"), (1, "2026-01-31", 3, "2026-01-31", "U")
    assert columns.is_deleted(gone)
    assert not columns.is_deleted(there)
    assert not columns.is_deleted((None, *there[1:]))  # a column that is not of the key
    assert columns.key(gone) == columns.key(there) == {"b": date(2026, 1, 31)}
    with pytest.raises(InvalidRecord, match=r"^the key holds what its type cannot hold$"):
        columns.key((None, None, None, "soon", "D"))
    assert rows_module.RowMapper(table_of("id", id="int")).key((None, 7, "D")) == {"id": 7}


def test_a_table_without_a_key_is_mapped() -> None:
    """No column is missed in a row that has nulls alone."""
    mapped = rows_module.RowMapper(table_of(a="int", b="int")).rows([(None, None)])
    assert mapped == ([{"a": None, "b": None}], {}, [])


def test_the_size_of_values() -> None:
    """Text counts double, bytes by their number, anything else eight."""
    assert rows_module.size([1, "abc", b"abcd", None, 2.5, b"ab", "a"]) == 3 * 8 + 6 + 4 + 2 + 2


# Discovery


@pytest.mark.source
def test_names_keys_and_collisions(project: Project, source: Source) -> None:
    """The same name in two schemas, `]` and `%` in names, columns that end on one name."""
    odd = "odd ] 100%s [name"
    columns: Columns = [
        ColumnSpec("Id]", "int", nullable=False),
        ColumnSpec("A b", "int"),
        ColumnSpec("A_b", "int"),
    ]
    source.create_table("dbo", odd, columns, key=["Id]"], rows=[(1, 2, 3), (2, 3, 4)])
    create_plain(source, name="Visits")
    source.create_table("archive", "visits", [("id", "int")], rows=[(1,)])
    result = synced(project, source)
    assert "archive.visits is stored as archive_visits" in result.output
    assert "column A_b is stored as A_b_2" in result.output
    assert len(project.rows("archive_visits")) == 1
    [table] = [t for t in project.query("SHOW ALL TABLES") if t["name"].startswith("odd")]
    assert sorted((row["a_b"], row["a_b_2"]) for row in project.rows(table["name"])) == [
        (2, 3),
        (3, 4),
    ]


@pytest.mark.source
def test_two_tables_of_one_stored_name(project: Project, source: Source) -> None:
    """The one that was made later gets a number, and a warning says so."""
    create_plain(source, 3, name="PatientVisits")
    create_plain(source, 5, name="Patient_Visits")
    output = synced(project, source).output
    assert "dbo.Patient_Visits is stored as Patient_Visits_2, since" in output
    assert len(project.rows("patient_visits")) == 3
    assert len(project.rows("patient_visits_2")) == 5


@given(st.text(st.sampled_from("aAzZ019_ -%éÄßİñǅΩ患²½①ª"), min_size=1, max_size=8))
def test_names_are_those_that_the_platform_makes(name: str) -> None:
    """Only so is it noticed that two columns or tables would end as one."""
    assert naming.stored_name(name) == stored_column(name)
    assert naming.stored_table_name(name) == stored_table(name)


def test_columns_that_would_have_one_name() -> None:
    """The later gets a number that no other column has; what is free as it is stays."""
    given_names = ["id", "ID", "Id_2", "a b", "a_b", "A-B", "_fivetran_deleted", "c"]
    destinations, warnings = naming.of_columns("dbo.t", given_names)
    assert destinations == [
        *("id", "ID_3", "Id_2", "a b", "a_b_2", "A-B_3", "_fivetran_deleted_2", "c"),
    ]
    assert len({stored_column(name) for name in destinations}) == len(given_names)
    assert warnings[0] == ("dbo.t: column ID is stored as ID_3, since another one has its name")
    assert len(warnings) == 4


def test_tables_that_would_have_one_name() -> None:
    """Those outside dbo carry their schema; the connector's own tables are not replaced."""
    tables = [("DBO", "Visits"), ("arch", "visits"), ("old", "Visits"), ("arch", "Beds")]
    destinations, warnings = naming.of_tables(tables)
    assert destinations == ["Visits", "arch_visits", "old_Visits", "Beds"]
    assert warnings == [
        "Several schemas have a table visits: arch.visits is stored as arch_visits",
        "Several schemas have a table Visits: old.Visits is stored as old_Visits",
    ]
    assert naming.of_tables([("a", "Beds"), ("b", "beds")])[0] == ["a_Beds", "b_beds"]
    own = [("dbo", "sync validation"), ("dbo", "b"), ("dbo", "_SYNC_VALIDATION_TABLES")]
    assert naming.of_tables(own)[0] == ["sync validation_2", "b", "_SYNC_VALIDATION_TABLES_2"]


@pytest.mark.source
def test_max_tables(project: Project, source: Source) -> None:
    """Ten of thirty by default, the others are named; "0" takes all."""
    for number in range(30):
        create_plain(source, 1, f"table_{chr(97 + number // 26)}{chr(97 + number % 26)}")
    output = synced(project, source).output
    assert "20 tables are not synced: dbo.table_ak, dbo.table_al" in output
    synced(project, source, max_tables="0")
    [row] = [r for r in project.rows("sync_validation") if r["total_tables"] == 30]
    assert row["total_records"] == 30


def test_patterns(project: Project, server: MssqlSandbox) -> None:
    """Any case, any schema, `*`; what matches nothing is an error."""
    for name in ("Alpha", "Beta", "Gamma"):
        create_plain(server, 1, name)
    server.create_table("arch", "Alpha", [("id", "int")])
    tables = [("dbo", "Alpha"), ("dbo", "Beta"), ("arch", "Alpha"), ("dbo", "a.b")]
    assert naming.select(tables, ["ALPHA"], ["arch.*"]) == {("dbo", "Alpha")}
    assert naming.select(tables, ["a.b", "dbo.b*"], []) == {("dbo", "a.b"), ("dbo", "Beta")}
    assert naming.select(tables, [], ["*a"]) == {("dbo", "a.b")}
    assert naming.select(tables, ["dbo.a*"], []) == {("dbo", "Alpha"), ("dbo", "a.b")}
    odd = [("dbo", "a\nb"), ("dbo", "a.b"), ("dbo", "axb")]
    assert naming.select(odd, ["a*"], ["a.b"]) == {odd[0], odd[2]}
    with pytest.raises(SettingsError) as error:  # a point tells a schema from a name
        naming.select(tables, ["d*", "dbo.*"], ["x"])
    assert str(error.value).splitlines() == [
        "The configuration is wrong:",
        "tables: 'd*' matches no table that mssql_user may see",
        "exclude_tables: 'x' matches no table that mssql_user may see",
    ]
    output = failed(project, server, tables="dbo.al*", exclude_tables="nothing").output
    assert "exclude_tables: 'nothing' matches no table" in output
    synced(project, server, tables="dbo.al*,gamma")
    assert project.state["tables"].keys() == {"dbo.Alpha", "dbo.Gamma"}


def test_names_in_statements() -> None:
    """No name ends its bracket, and the driver takes no per cent sign for a parameter's."""
    assert naming.quoted("a]b%c]") == "[a]]b%%c]]]"
    assert naming.bracketed("a]b%c]") == "[a]]b%c]]]"
    assert naming.label("a.b", "c]") == "[a.b].[c]]]"
    assert naming.label("a b", "c%") == "a b.c%"


@pytest.mark.source
def test_system_tables_are_not_synced_and_users_are(project: Project, source: Source) -> None:
    """By schema and exact name, never by the beginning of a name."""
    for name in ("sysdiagrams", "system_user", "sysproc", "dtproperties"):
        create_plain(source, 1, name)
    synced(project, source)
    assert project.state["tables"].keys() == {"dbo.system_user", "dbo.sysproc"}


@pytest.mark.parametrize("refuse", ["missing", "refused"])
def test_optional_views_may_be_missing(
    project: Project, server: MssqlSandbox, refuse: str
) -> None:
    """Without sys views there are no estimates, and keys come from the constraints."""
    create_plain(server)
    timed: Columns = [("id", "int", False), ("ModifiedDate", "datetime")]
    server.create_table("dbo", "u", timed, key=["id"], rows=[(1, "2026-01-01")])
    for view in (
        "sys.partitions",
        "sys.dm_db_partition_stats",
        "sys.databases",
        "sys.indexes",
        "sys.tables",
    ):
        if refuse == "missing":
            server.switch_off_view(view)
        else:
            server.refuse_view(view, 297)
    for _ in range(2):
        synced(project, server)
    assert ids(project) == list(range(30))
    assert "ORDER BY T.[id]" in reads(server, "t")[-1]


def test_a_unique_index_is_a_key_and_the_clustered_one_the_order(
    project: Project, server: MssqlSandbox
) -> None:
    """A nullable unique index is neither."""
    columns: Columns = [("a", "int", False), ("b", "int", False), ("c", "int")]
    rows = [(1, 5, None), (2, 4, 1)]
    server.create_table("dbo", "t", columns, unique=[["c"], ["b"]], rows=rows)
    server.create_table("dbo", "u", columns, key=["a"], clustered=False, rows=rows)
    server.execute("CREATE UNIQUE CLUSTERED INDEX CX ON dbo.u (b)")
    synced(project, server)
    tables = {t["table"]: t for t in load("mssql_ehi").schema(configuration(server))}
    assert tables["t"]["primary_key"] == ["b"]
    assert tables["u"]["primary_key"] == ["a"]
    assert reads(server, "u")[-1].endswith("ORDER BY T.[b]")


@pytest.mark.source
def test_columns_come_and_go(project: Project, source: Source) -> None:
    """A new column is announced, with the way to fill it; a dropped one does no harm."""
    create_timed(source, moments(5))
    synced(project, source)
    source.execute("ALTER TABLE dbo.t ADD extra int")
    result = synced(project, source)
    assert "dbo.t: new columns (extra)" in result.output
    assert "new columns" not in synced(project, source).output
    source.execute("ALTER TABLE dbo.t DROP COLUMN extra")
    synced(project, source)
    source.execute("ALTER TABLE dbo.t DROP COLUMN ModifiedDate")
    source.execute("INSERT INTO dbo.t (id) VALUES (77)")
    synced(project, source)
    assert 77 in ids(project)


# Faults


@pytest.mark.parametrize("number", [1205, 40613, *wide(1222, 40501, 40197, 49918, 10928)])
@pytest.mark.parametrize("after_rows", [0, 7])
def test_what_can_heal_is_repeated(
    project: Project, server: MssqlSandbox, slept: list[float], number: int, after_rows: int
) -> None:
    """Once; the read resumes behind the last row."""
    create_plain(server)
    server.faults.add(faults.fail(number, match=DATA, after_rows=after_rows))
    result = synced(project, server)
    assert ids(project) == list(range(30))
    assert upserts(result) == 30
    assert len(slept) == 1


@pytest.mark.parametrize("cut", ["row_end", "row", "packet"])
def test_a_dropped_connection_is_made_up_for(
    project: Project, server: MssqlSandbox, cut: str
) -> None:
    """Wherever in the stream it breaks."""
    create_plain(server)
    server.faults.add(faults.drop(DATA, after_rows=7, cut=cut))
    synced(project, server)
    assert ids(project) == list(range(30))


def test_endless_deadlocks_end_the_sync(
    project: Project, server: MssqlSandbox, slept: list[float]
) -> None:
    """After `retry_attempts` retries; the other tables are done, and the failure is recorded."""
    create_plain(server)
    create_plain(server, name="u")
    server.faults.add(faults.fail(1205, match=r"\[t\]", times=100))
    output = failed(project, server).output
    assert "1 of 2 tables failed" in output
    assert "error 1205 of the server (chosen as the victim of a deadlock)" in output
    assert len(slept) == 3
    assert len(project.rows("u")) == 30
    [row] = project.rows("sync_validation")
    assert (row["total_tables"], row["tables_processed"], row["failed_tables"]) == (
        1,
        "dbo.u",
        "dbo.t",
    )


def test_faults_at_every_table_end_the_sync(
    project: Project, server: MssqlSandbox, slept: list[float]
) -> None:
    """Three tables in a row are enough; the sync does not wait for all of them."""
    for name in ("a", "b", "c", "d", "e"):
        create_plain(server, name=name)
    server.faults.add(faults.fail(1205, match=DATA, times=1000))
    assert "3 of 5 tables failed" in failed(project, server).output
    assert len(slept) == 9


def test_a_silent_server_is_asked_once_more(project: Project, server: MssqlSandbox) -> None:
    """Then the sync ends, and the other tables are not waited for."""
    create_plain(server)
    create_plain(server, name="u")
    server.faults.add(faults.stall(DATA, after_rows=3, times=2))
    output = failed(project, server, query_timeout_seconds="1").output
    assert "the server did not respond in time, twice; query_timeout_seconds" in output
    assert server.faults.pending == 0
    synced(project, server)
    assert ids(project) == list(range(30))


def test_a_server_that_is_not_there(
    project: Project, server: MssqlSandbox, slept: list[float]
) -> None:
    """The retries are bounded, and the message names the settings."""
    create_plain(server)
    server.pause()
    output = failed(project, server).output
    assert "Check mssql_server, mssql_port" in output
    assert len(slept) == 3
    server.start()
    synced(project, server)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mssql_password": "wrong"}, "Check mssql_user and mssql_password"),
        ({"mssql_database": "Elsewhere"}, "Check mssql_database"),
    ],
)
@pytest.mark.source
def test_a_wrong_login_fails_at_once(
    project: Project,
    source: Source,
    slept: list[float],
    changes: dict[str, str],
    message: str,
) -> None:
    """Without waiting, and with the setting's name."""
    result = failed(project, source, **changes)
    assert message in result.output
    assert slept == []


def test_an_unknown_authority_fails_at_once(
    project: Project, server: MssqlSandbox, slept: list[float]
) -> None:
    """Before the login, and with the setting's name."""
    assert "mssql_ca_certificate" in failed(project, server, mssql_ca_certificate="").output
    assert slept == []
    assert server.logins == []


def test_a_table_that_may_not_be_read(
    project: Project, server: MssqlSandbox, slept: list[float]
) -> None:
    """The others are done first; the message says what to grant or to leave out."""
    create_plain(server)
    create_plain(server, name="u")
    server.deny("dbo.t")
    output = failed(project, server).output
    assert "dbo.t: " in output
    assert "error 229 of the server. Grant SELECT to mssql_user" in output
    assert slept == []
    assert len(project.rows("u")) == 30


# Rows that cannot be decoded


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.usefixtures("small_steps")
def test_a_row_that_cannot_be_decoded_is_passed(
    project: Project, server: MssqlSandbox, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is bad only once arrives at its second read; a bad one is skipped."""
    monkeypatch.setitem(type_mapping.TYPE_MAPPINGS, "date", type_mapping.TypeMapping("NAIVE_DATE"))
    rows = [(i, date(2026, 1, 1 + i)) for i in range(30)]
    columns: Columns = [("id", "int", False), ("v", "date")]
    server.create_table("dbo", "t", columns, key=["id"], rows=rows)
    server.faults.add(faults.bad_row(DATA, after_rows=12, column="c1"))
    if times == 2:
        server.faults.add(faults.bad_row(r"TOP \(1\)", column="c1"))
    result = synced(project, server)
    missing = [12] if times == 2 else []
    assert ids(project) == [i for i in range(30) if i not in missing]
    assert ("1 of dbo.t" in result.output) == (times == 2)
    [row] = project.rows("sync_validation")
    assert row["skipped_records"] == len(missing)


def test_half_a_surrogate_pair_costs_its_value_only(
    project: Project, server: MssqlSandbox
) -> None:
    """A text that was cut in the middle of a character; here in a table without a key."""
    rows = [(i, f"value {i}") for i in range(30)]
    server.create_table("dbo", "t", [("id", "int"), ("v", "nvarchar(40)")], rows=rows)
    server.faults.add(faults.bad_row(DATA, after_rows=12, column="c1"))
    result = synced(project, server)
    assert ids(project) == list(range(30))
    assert [row["id"] for row in project.rows("t") if row["v"] is None] == [12]
    assert "1 of dbo.t.v" in result.output
    assert len(reads(server, "t")) == 1


@pytest.mark.parametrize("keyed", [True, False])
@pytest.mark.parametrize(
    ("collation", "text"),
    [
        ("Latin1_General_100_CI_AS_SC_UTF8", "患者 🩺 é"),
        *wide(("Latin1_General_100_BIN2_UTF8", "患者 🩺 é")),
        ("SQL_Latin1_General_CP1_CI_AS", "naïve €"),
    ],
)
@pytest.mark.usefixtures("small_steps")
def test_text_of_any_code_page(
    project: Project, server: MssqlSandbox, collation: str, text: str, keyed: bool
) -> None:
    """The driver takes UTF-8 for another code page; as a key it is a position, too."""
    columns: Columns = [
        ColumnSpec("k", "varchar(60)", nullable=False, collation=collation),
        ("id", "int", False),
    ]
    rows = [(f"{text} {i:02d}", i) for i in range(60)]
    server.create_table("dbo", "t", columns, key=["k"] if keyed else [], rows=rows)
    server.faults.add(faults.drop(DATA, after_rows=25))
    synced(project, server)
    assert sorted((row["k"], row["id"]) for row in project.rows("t")) == sorted(rows)


@pytest.mark.parametrize("sort_id", [210, *wide(217, 202)])
def test_collations_that_the_driver_does_not_know(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch, sort_id: int
) -> None:
    """Such as SQL_EBCDIC037_CP1_CS_AS, which has the sort order 210."""
    monkeypatch.setattr(Collation, "wire", lambda _: struct.pack("<IB", 0x0409, sort_id))
    columns: Columns = [("id", "decimal(9,2)", False), ("v", "varchar(40)"), ("n", "nvarchar(9)")]
    server.create_table("dbo", "t", columns, key=["id"], rows=[("1.5", "é €", "患者")])
    synced(project, server)
    [row] = project.rows("t")
    assert (str(row["id"]), row["v"], row["n"]) == ("1.50", "é €", "患者")


# The wire


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (3, 100)])
def test_values_across_short_packets_are_right(
    project: Project, tmp_path: Path, size: tuple[int, int]
) -> None:
    """A value may straddle packets of any length."""
    with MssqlSandbox() as server:
        rows = [(i * 1_000_003, i / 7, f"value {i}") for i in range(300)]
        columns: Columns = [("id", "bigint", False), ("f", "float"), ("v", "nvarchar(40)")]
        server.create_table("dbo", "t", columns, key=["id"], rows=rows)
        server.fragmentation = Fragmentation(packet=size, segments=(1, 5, 1400), seed=3)
        synced(project, server)
    stored = sorted((row["id"], row["f"], row["v"]) for row in project.rows("t"))
    assert stored == rows


def test_the_whole_session_is_encrypted_by_default(project: Project, server: MssqlSandbox) -> None:
    """And unencrypted only by choice, with a warning."""
    create_plain(server, 1)
    synced(project, server)
    assert all(login.encrypted for login in server.logins)
    server.logins.clear()
    assert "are sent unencrypted" in synced(project, server, mssql_encrypt="false").output
    assert not any(login.encrypted for login in server.logins)


@pytest.mark.parametrize(
    ("certificate", "message"),
    [
        ("wrong_host", "is not for this host"),
        ("cn_only", "is not for this host"),
        ("unknown_ca", "its certificate is refused"),
        ("expired", "its certificate is refused"),
    ],
)
def test_a_certificate_that_does_not_hold_is_refused(
    project: Project, slept: list[float], certificate: str, message: str
) -> None:
    """Before the password is sent; to trust any certificate is a choice, with a warning."""
    with MssqlSandbox(certificate=certificate) as server:
        create_plain(server, 1)
        assert message in failed(project, server).output
        assert server.logins == []
        assert slept == []
        trusting = synced(project, server, mssql_trust_server_certificate="true")
        assert "nothing proves that the server is the one" in trusting.output


def test_a_server_without_encryption(project: Project) -> None:
    """The setting is named; nothing is sent unencrypted."""
    with MssqlSandbox(encryption="not_supported") as server:
        create_plain(server, 1)
        assert "mssql_encrypt" in failed(project, server).output
        assert server.logins == []
        synced(project, server, mssql_encrypt="false")


def test_the_driver_is_of_the_version_that_is_patched() -> None:
    """For another version each patch must be reviewed, and VERSION set."""
    installed, patched = version("python-tds"), tds_patches.VERSION
    assert installed == patched, (
        f"python-tds {installed} is installed, and sqlserver/tds_patches.py was written for "
        f"{patched}: see for each of its PATCHES whether it is still needed and still called"
    )
    requirements = (ROOT / "connectors" / "mssql_ehi" / "requirements.txt").read_text()
    assert f"python-tds=={patched}" in requirements.split()


def test_the_driver_calls_what_is_patched() -> None:
    """Another version may do without the patches, or not call them any more."""
    source = inspect.getsource(pytds.tls.establish_channel)
    assert "validate_host(cert=conn.get_peer_certificate(), name=bhost)" in source
    connect = inspect.getsource(pytds.connect)
    assert "tls.create_context(cafile)" in connect
    assert "utils.exponential_backoff(" in connect
    unpack = inspect.getsource(pytds.tds_reader._TdsReader.unpack)
    assert "readall_fast(self, struc.size)" in unpack
    original = inspect.getsource(pytds.tds_base.readall_fast)
    assert "if len(buf) - offset < size:" in original


def test_the_driver_can_be_had_as_it_is() -> None:
    """Patches are applied by the import, and reverted only where somebody asks for that."""
    original = pytds.tds_base.readall_fast
    assert pytds.tds_reader.readall_fast is tds_patches._read_whole
    with stock_driver():
        assert pytds.tds_reader.readall_fast is original
    assert pytds.tds_reader.readall_fast is tds_patches._read_whole


@pytest.mark.parametrize(
    ("entries", "host", "fits"),
    [
        (["db.example.com"], "db.example.com", True),
        (["DB.example.com"], "db.EXAMPLE.com.", True),
        (["*.example.com"], "db.example.com", True),
        (["*.example.com"], "a.db.example.com", False),
        (["*.example.com"], "example.com", False),
        (["*.com"], "com", False),
        (["db.example.com.evil.test"], "db.example.com", False),
        (["127.0.0.1"], "127.0.0.1", True),
        (["localhost"], "127.0.0.1", False),
        ([], "sandbox", False),
    ],
)
def test_host_names(entries: list[str], host: str, fits: bool) -> None:
    """Subject alternative names only, a `*` for one label only."""
    pem = tls.Authority().issue("sandbox", entries)
    certificate = x509.load_pem_x509_certificates(pem[pem.index(b"-----BEGIN CERT") :])[0]
    wrapped = crypto.X509.from_cryptography(certificate)
    assert tds_patches._validate_host(wrapped, host.encode()) == fits


# Memory


def test_batches_and_checkpoints_follow_the_width_of_rows(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows with documents of 2 MB: no more than about 8 MB in a batch, 32 MB to a checkpoint."""
    document = b"x" * 2_000_000
    columns: Columns = [("id", "int", False), ("doc", "varbinary(max)")]
    rows = [(i, document) for i in range(24)]
    server.create_table("dbo", "t", columns, key=["id"], rows=rows)
    batches, checkpoints, waiting = [], [], [0]
    real = load("mssql_ehi").get_table_data

    def counted(*arguments: Any) -> Iterator[Any]:
        for batch in real(*arguments):
            batches.append(len(batch))
            yield batch

    def checkpoint(state: Any) -> None:
        checkpoints.append(waiting[0])
        waiting[0] = 0
        real_checkpoint(state)

    def upsert(*arguments: Any) -> None:
        waiting[0] += 1
        real_upsert(*arguments)

    real_checkpoint, real_upsert = Operations.checkpoint, Operations.upsert
    monkeypatch.setattr(Operations, "upsert", upsert)
    monkeypatch.setattr(load("mssql_ehi"), "get_table_data", counted)
    monkeypatch.setattr(Operations, "checkpoint", checkpoint)
    for _ in range(2):
        synced(project, server)
    assert max(batches) <= 5
    assert max(checkpoints) <= 16
    assert len(project.rows("t")) == 24


# Secrets and personal data


def test_no_value_and_no_password_is_shown(project: Project, server: MssqlSandbox) -> None:
    """Not in the log, the state or crash reports; in success, in failure, in mid-read."""
    secrets = [f"Patient-{chr(97 + i)}-MRN{i:05d}" for i in range(26)]
    columns: Columns = [
        ("mrn", "varchar(40)", False),
        ("name", "nvarchar(40)"),
        ("at", "datetime2(7)"),
    ]
    rows = [(secret, f"Name {secret}", None) for secret in secrets]
    server.create_table("dbo", "t", columns, key=["mrn"], rows=rows)
    shown = []
    for fault in (
        faults.fail(8114, message=f"Error converting {secrets[3]}", match=DATA, after_rows=9),
        faults.fail(50000, message=f"{secrets[4]} {server.password}", match=DATA),
        faults.drop(DATA, after_rows=5, times=9),
        faults.bad_row(DATA, after_rows=5, column="c1"),
        None,
    ):
        if fault:
            server.faults.add(fault)
        result = project.debug(configuration(server, retry_attempts="0"))
        shown += [result.output, project.everything_written()]
        server.faults.clear()
    assert result.code == 0, result.output
    assert list(project.path.glob("crash-reports/*"))
    for text in shown:
        assert not [secret for secret in [*secrets, server.password] if secret in text]


def test_a_position_is_encrypted(project: Project, server: MssqlSandbox) -> None:
    """With another password the read restarts, saying so."""
    create_plain(server, 50)
    server.faults.add(faults.drop(DATA, after_rows=25))
    failed(project, server, retry_attempts="0")
    after = project.state["tables"]["dbo.t"]["read"]["after"]
    assert isinstance(after, str)
    server.password = "Another-Pass-2"
    result = synced(project, server)
    assert "cannot be decrypted" in result.output
    assert ids(project) == list(range(50))


# Crashes


@pytest.mark.usefixtures("small_steps")
@pytest.mark.parametrize("when", ["initial", "incremental", "between"])
def test_killed_anywhere_the_next_sync_makes_up_for_it(
    project: Project, server: MssqlSandbox, when: str
) -> None:
    """kill -9 of the real command, in a first load, in an incremental read, between tables."""
    seed_ehr(server, patients=80)
    if when == "incremental":
        synced(project, server)
        server.execute("UPDATE dbo.Results SET ModifiedDate = '2026-11-20T11:59:00'")
    running: list[Any] = []

    def kill() -> None:
        running[0].kill()
        running[0].wait()

    match, rows = (
        (r"^SELECT T\..*\[dbo\]\.\[Results\]", 150) if when != "between" else (r"Orders\]", 0)
    )
    server.faults.add(faults.call(kill, match, after_rows=rows))
    running.append(project.start(configuration(server)))
    running[0].communicate(timeout=60)
    assert running[0].returncode == -9
    synced(project, server)
    for table, stored in {
        "Results": "results",
        "Orders": "orders",
        "Patients": "patients",
    }.items():
        assert len(project.rows(stored)) == server.count(f"dbo.{table}")


# State and settings


@pytest.mark.parametrize(
    "state", [{"version": 2, "tables": {}}, {"something": "else"}, {"last_sync_time": 17.5e300}]
)
def test_a_state_of_another_form_is_an_error(
    project: Project, server: MssqlSandbox, state: dict[str, Any]
) -> None:
    """Not a fresh start, which would hide the loss; update() has no statement run."""
    result = project.sync(configuration(server), state)
    assert result.code == 1
    assert "state is not one of version 1" in result.output


def test_the_state_of_an_older_connector_is_taken(project: Project, server: MssqlSandbox) -> None:
    """`last_sync_time` leads to a load of everything."""
    create_timed(server, moments(5))
    result = project.sync(configuration(server), {"last_sync_time": "2026-11-20T11:59:59Z"})
    assert result.code == 0, result.output
    assert ids(project) == list(range(5))


def test_every_wrong_setting_is_named(project: Project, server: MssqlSandbox) -> None:
    """All in one error, before any connection, with no value."""
    wrong = {
        "mssql_server": "host\\instance,1",
        "mssql_port": "70000",
        "mssql_encrypt": "perhaps",
        "mssql_ca_certificate": "no certificate",
        "max_tables": "-1",
        "query_timeout_seconds": "0",
    }
    output = failed(project, server, **wrong).output
    for key in wrong:
        assert f"{key} must be" in output
    assert server.logins == []
