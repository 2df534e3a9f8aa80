"""mssql_ehi: how values that were read become rows, by a generated function where there are many;
and the converters of times."""

import ast
import random
import re
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from importlib import import_module
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings, strategies as st

from tests.sandbox.fivetran import load

load("mssql_ehi")
rows, type_mapping, source_tables = map(
    import_module, ("sqlserver.rows", "sqlserver.type_mapping", "sqlserver.source_tables")
)

# Values of each type as they are read, some of which it cannot hold.
_GOOD: dict[str, tuple[Any, ...]] = {
    "int": (0, 7, -1),
    "nvarchar": ("", "a", "Zürich", "\U0001f469"),
    "uniqueidentifier": ("6F9619FF-8B86-D011-B42D-00C04FC964FF",),
    "date": ("2026-01-31", "0001-01-01"),
    "datetime2": ("2026-01-31 01:02:03.1234567", "9999-12-31 23:59:59"),
    "datetimeoffset": ("2026-01-31 01:02:03.1234567 +02:00", "2026-01-31 01:02:03 -11:30"),
    "time": ("01:02:03.1234567",),
    "json": ("[1]", "{}"),
    "varbinary": (b"", b"\0\xff"),
}
_ODD = ("soon", "", b"a", 5, "half \ud83d", "0001-01-01 00:00:00 +14:00")


def mapper(kinds: list[str], keys: list[int]) -> Any:
    """A mapper of columns of these types, the key at the places ``keys``."""
    columns = [
        source_tables.Column(f"Name {place}", type_mapping.ColumnInfo(kind), True, f"name_{place}")
        for place, kind in enumerate(kinds)
    ]
    key = tuple(columns[place] for place in keys)
    return rows.RowMapper(source_tables.SourceTable("dbo", "t", tuple(columns), key))


def batch(draw: random.Random, kinds: list[str], behind: int) -> list[tuple[Any, ...]]:
    """Rows of these types, with ``behind`` values behind them; odd ones in some batches."""
    odd, nulls = draw.choice((0, 0, 0, 0.02)), draw.choice((0, 0.3))

    def value(kind: str) -> Any:
        if draw.random() < odd:
            return draw.choice(_ODD)
        return None if draw.random() < nulls else draw.choice(_GOOD[kind])

    size = draw.randint(0, 20)
    return [(*map(value, kinds), *"KU"[:behind]) for _ in range(size)]


@settings(max_examples=300)
@given(st.integers(0, 2**32))
def test_both_ways_give_the_same(number: int) -> None:
    """The same rows, odd values and reasons, of the same types, whatever the values."""
    draw = random.Random(number)
    kinds = draw.choices([*_GOOD], k=draw.choice((1, 3, 20, 40)))
    keys = draw.sample(range(len(kinds)), draw.randint(0, min(2, len(kinds))))
    by_function, by_column = mapper(kinds, keys), mapper(kinds, keys)
    for _ in range(5):
        given = batch(draw, kinds, draw.choice((0, 0, 2)))
        with mock.patch.object(rows, "FEW_ROWS", 0):
            found = by_function.rows(given)
        expected = by_column._rows_by_column(given)
        assert repr(found) == repr(expected)  # the types, too


def test_a_function_is_made_for_many_rows() -> None:
    """And not for few, or for rows of too many values."""
    made = mapper(["int", "date"], [0])
    made.rows([(1, "2026-01-31")] * rows.FEW_ROWS)
    assert made._functions == {}
    with mock.patch.object(rows, "MOST_COLUMNS", 1):
        made.rows([(1, "2026-01-31")])
    assert made._functions == {}
    made.rows([(1, "2026-01-31")])
    assert [*made._functions] == [2]


def test_the_usual_batch_is_mapped_by_the_function() -> None:
    """One with an odd value or an invalid key is mapped column by column."""
    made = mapper(["nvarchar", "date"], [0])
    good = [("k", "2026-01-31")]
    assert made._usual_rows(good) == made._rows_by_column(good).rows
    for odd in ((None, None), ("half \ud83d", None), (b"k", None), ("k", "soon")):
        assert made._usual_rows([*good, odd]) is None


def test_tables_of_one_shape_share_their_code() -> None:
    """It has numbers for names, so that it is compiled once."""
    rows._compiled.cache_clear()
    for kinds in (["int", "date"], ["nvarchar", "time"], ["int", "date"]):
        mapper(kinds, [])._function(2)
    assert rows._compiled.cache_info().misses == 1


def test_the_source_has_nothing_of_the_server() -> None:
    """Its names are this module's, its only constant is None; no column's name is in it."""
    sources: list[str] = []

    def spy(source: str, *rest: Any) -> Any:
        sources.append(source)
        return compile(source, *rest)

    rows._compiled.cache_clear()
    with mock.patch.object(rows, "compile", spy, create=True):
        mapper([*_GOOD], [0, 1])._function(len(_GOOD) + 3)
    rows._compiled.cache_clear()
    [source] = sources
    assert "ame" not in source.replace("names", "")
    nodes = list(ast.walk(ast.parse(source)))
    assert {node.value for node in nodes if isinstance(node, ast.Constant)} == {None}
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    known = "names|converters|batch|map_rows|[nvc][0-9]+"
    assert {name for name in names if not re.fullmatch(known, name)} == set()


def test_a_table_of_the_most_columns() -> None:
    """SQL Server has 1,024 of them."""
    kinds = ["int", "date"] * 512
    made = mapper(kinds, [0])
    given = [(1, "2026-01-31") * 512]
    assert made._usual_rows(given) == made._rows_by_column(given).rows


# Times


@pytest.mark.parametrize("read", [type_mapping._moment, type_mapping._parse])
@pytest.mark.parametrize("digits", range(8))
def test_moments_are_cut_to_microseconds(read: Callable[[str], datetime], digits: int) -> None:
    """And not rounded, however many digits of a second the column has."""
    fraction = "9876549"[:digits]
    microseconds = int(f"{fraction:0<6}"[:6])
    text = f"2026-01-31 01:02:03.{fraction}" if digits else "2026-01-31 01:02:03"
    expected = datetime(2026, 1, 31, 1, 2, 3, microseconds)
    assert read(text) == expected
    instant = type_mapping.TYPE_MAPPINGS["datetimeoffset"].convert
    for offset, ahead in (("+00:00", 0), ("+14:00", 840), ("-00:30", -30), ("-11:45", -705)):
        moment = instant(f"{text} {offset}")
        assert moment == expected.replace(tzinfo=timezone.utc) - timedelta(minutes=ahead)
        assert moment.tzinfo is timezone.utc


@pytest.mark.parametrize("text", ["", "soon", "2026-01-31 01:02:03 +02", "2026-02-30 01:02:03 Z"])
def test_what_is_no_instant_is_refused(text: str) -> None:
    """So that its value becomes null, and is reported."""
    with pytest.raises(ValueError):  # noqa: PT011  # whatever the message
        type_mapping.TYPE_MAPPINGS["datetimeoffset"].convert(text)
