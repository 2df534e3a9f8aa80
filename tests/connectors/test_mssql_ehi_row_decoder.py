"""mssql_ehi: rows that are decoded by a generated function are those that the driver decodes."""

import ast
import codecs
import re
from collections.abc import Callable
from importlib import import_module
from itertools import pairwise
from typing import Any
from unittest import mock

import pytds
import pytds.tds_reader
import pytds.tds_types
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from tests.sandbox.fivetran import load

from .tds_responses import (
    OTHER_COLUMNS,
    Loop,
    by_driver,
    columns_of_all_formats,
    compare,
    cut_response,
    decoded,
    plain_response,
    read,
    texts_response,
)

load("mssql_ehi")
row_decoder, row_reader, errors, tds_patches = map(
    import_module,
    (
        "sqlserver.row_decoder",
        "sqlserver.row_reader",
        "sqlserver.errors",
        "sqlserver.tds_patches",
    ),
)
TransientError = import_module("shared.errors").TransientError


@pytest.fixture(autouse=True)
def _from_the_second_row_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are decoded by the connector."""
    monkeypatch.setattr(row_reader, "DRIVERS_OWN", 1)


@pytest.fixture
def by_decoder(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of rows that were decoded at once."""
    counts: list[int] = []
    decoder = row_decoder.decoder

    def counted(*formats: Any) -> Any:
        decode = decoder(*formats)

        def decode_and_count(data: bytes, start: int, most: int, append: Any) -> Any:
            rows: list[Any] = []
            stop = decode(data, start, most, rows.append)
            for row in rows:
                append(row)
            counts.append(len(rows))
            return stop

        return decode_and_count

    monkeypatch.setattr(row_decoder, "decoder", counted)
    return counts


@settings(max_examples=800, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 2**32))
def test_both_readers_give_the_same(number: int) -> None:
    """The same rows, errors and state, whatever the server sends; 20,000 rows and more."""
    compare(number)


@pytest.mark.parametrize("size", [30, 504, 4088, 32_759])
def test_every_format_is_decoded(by_decoder: list[int], size: int) -> None:
    """But for a first row, and, where the end of the response is near, a last one."""
    columns = [c for c in columns_of_all_formats(5) if c.info[0] not in (0xA7, 0xAF)]
    given = plain_response(columns, 50, size)
    assert read(given, decoded(1)) == read(given, by_driver)
    assert 2 * 48 <= sum(by_decoder) <= 2 * 49


def test_text_in_a_character_set(by_decoder: list[int]) -> None:
    """ASCII takes a short cut, and gives what any other way gives."""
    column = next(c for c in columns_of_all_formats(50) if c.info[0] == 0xA7)
    texts = [b"0.1234", b"", b"\x80 100", None, b"Z\xfcrich"]
    given = texts_response(column, [*texts] * 10)
    assert read(given, decoded(1)) == read(given, by_driver)
    assert sum(by_decoder) >= 48


def test_the_driver_decodes_the_first_rows(
    by_decoder: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A small result is not worth a function of its own."""
    monkeypatch.setattr(row_reader, "DRIVERS_OWN", 200)
    columns = columns_of_all_formats(5)[:5]
    read(plain_response(columns, 200, 504), decoded(1))
    assert sum(by_decoder) == 0
    read(plain_response(columns, 300, 504), decoded(1))
    assert sum(by_decoder) == 2 * 100


@pytest.mark.parametrize("kind", [0xE7, 0xF1, 0xA5])  # nvarchar(max), xml, varbinary(max)
def test_a_max_value_that_is_cut_ends_the_read(kind: int) -> None:
    """By an error that is retried; the stock driver asks for the rest without end."""
    [column] = [
        c for c in columns_of_all_formats(5) if c.info[0] == kind and c.null == b"\xff" * 8
    ]
    given = cut_response(column)
    found = read(given, decoded(1))
    assert found == read(given, by_driver)
    assert len(found) == given.rows + 2
    assert found[-2] == "ClosedConnectionError: Server closed connection"
    assert isinstance(errors.explain(pytds.ClosedConnectionError(), "reading"), TransientError)
    [patch] = [p for p in tds_patches.PATCHES if p.owner is pytds.tds_types.PlpReader]
    with mock.patch.object(patch.owner, patch.name, patch.original), pytest.raises(Loop):
        read(given, by_driver)


@pytest.mark.parametrize("column", OTHER_COLUMNS)
def test_the_driver_decodes_what_is_not_known(by_decoder: list[int], column: Any) -> None:
    """One column of another format, and the result is the driver's; nobody is told."""
    given = plain_response([*columns_of_all_formats(5)[:5], column], 30, 504)
    assert read(given, decoded(1)) == read(given, by_driver)
    assert by_decoder == []


def test_the_driver_decodes_large_rows(
    by_decoder: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A row is not kept here that is larger than the driver needs to keep."""
    monkeypatch.setattr(row_reader, "LARGEST_ROW", 1000)
    columns = [column for column in columns_of_all_formats(2000) if column.info[0] == 0xA5]
    given = plain_response(columns, 50, 504)
    assert read(given, decoded(1)) == read(given, by_driver)
    assert 0 < sum(by_decoder) < 2 * 48


def test_the_driver_decodes_rows_of_very_many_columns(
    by_decoder: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To compile a function for them would take more memory than a sync should."""
    monkeypatch.setattr(row_reader, "MOST_COLUMNS", 3)
    columns = columns_of_all_formats(5)[:4]
    read(plain_response(columns, 50, 504), decoded(1))
    assert by_decoder == []
    read(plain_response(columns[:3], 50, 504), decoded(1))
    assert sum(by_decoder) > 0


def test_no_columns_are_the_drivers(by_decoder: list[int]) -> None:
    """Rows without a column are no reason to decode anything."""
    given = plain_response([], 5, 504)
    assert read(given, decoded(1)) == read(given, by_driver)
    assert by_decoder == []


def test_rows_are_not_held_up() -> None:
    """What is there is given before more is waited for."""
    columns = [columns_of_all_formats(5)[3]]  # integers
    given = plain_response(columns, 1000, 504)
    places: list[int] = []

    def rows_of(cursor: Any) -> Callable[[], list[Any]]:
        reader = row_reader.RowReader(cursor)

        def fetch() -> list[Any]:
            rows: list[Any] = reader.fetch(1000)
            places.append(cursor._session._transport.place)
            return rows

        return fetch

    read(given, rows_of)
    assert max(after - before for before, after in pairwise(places)) == 512


def test_the_source_has_nothing_of_the_server() -> None:
    """Its names are this module's, its constants numbers; no column's name is in it."""
    given = plain_response(columns_of_all_formats(5), 3, 504)
    sources: list[str] = []

    def spy(source: str, *rest: Any) -> Any:
        sources.append(source)
        return compile(source, *rest)

    row_decoder._compiled.cache_clear()
    with mock.patch.object(row_decoder, "compile", spy, create=True):
        read(given, decoded(1))
    row_decoder._compiled.cache_clear()
    [source] = sources
    assert not any(name in source for name in given.names)
    nodes = list(ast.walk(ast.parse(source)))
    constants = {node.value for node in nodes if isinstance(node, ast.Constant)}
    assert {value for value in constants if not isinstance(value, int)} == {None, "surrogatepass"}
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    known = "data|start|most|append|end|len|range|token|struct_error|utf_16|read_long|read_old"
    known += "|IndexError|UnicodeDecodeError|Odd|[_bnpqs]|(v|n|m|codec|unpack)[0-9]+"
    assert {name for name in names if not re.fullmatch(known, name)} == set()


def test_formats_are_of_fixed_texts() -> None:
    """What a source is made of: of the metadata, only which of these a column has."""
    for form in row_reader._FORMATS.values():
        assert form.kind in vars(row_decoder).values()
        assert form.code in ("", *"?Bhiqfd")


def test_another_driver_takes_its_own_way(
    by_decoder: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one warning, however many results there are."""
    monkeypatch.setattr(row_reader, "version", lambda _: "1.18.0")
    monkeypatch.setattr(row_reader, "_UNKNOWN", row_reader._unknown_of_driver())
    row_reader._warn_of_driver.cache_clear()
    given = plain_response(columns_of_all_formats(5), 10, 504)
    assert read(given, decoded(1)) == read(given, by_driver)
    assert by_decoder == []
    assert capsys.readouterr().out.count("its version is 1.18.0") == 1


def test_what_is_used_of_the_driver_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it is there now; what is not is told."""
    assert row_reader._unknown_of_driver() == ""
    monkeypatch.delattr(pytds.tds_types, "Image72Serializer")
    monkeypatch.delattr(pytds.tds_reader._TdsReader, "_read_packet")
    assert row_reader._unknown_of_driver() == "it lacks Image72Serializer, _read_packet"


def test_halves_of_characters_are_the_drivers(
    by_decoder: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its codec refuses them, as it does unless it is replaced, so does a result."""
    monkeypatch.setattr(pytds.tds_types, "ucs2_codec", codecs.lookup("utf-16-le"))
    columns = [column for column in columns_of_all_formats(20) if column.info[0] == 0xE7]
    given = plain_response(columns, 50, 504)
    assert read(given, decoded(1)) == read(given, by_driver)
    assert by_decoder == []
