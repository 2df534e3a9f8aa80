# ruff: noqa: E501, S608 - column values are naive; statements stay whole
"""Every type on the wire, as text and as a parameter."""

from __future__ import annotations

import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pytds
import pytest
from hypothesis import given, strategies as st

from tests.sandbox.mssql import MssqlSandbox, types
from tests.sandbox.mssql.convert import convert, text_function
from tests.sandbox.mssql.tests.client import ask, ask_nothing, connect, fails_with
from tests.sandbox.mssql.wire import PlpOptions

DATETIME2_MAX = dt.datetime(9999, 12, 31, 23, 59, 59, 999999)
EXTREMES: list[tuple[str, list[tuple[Any, Any]]]] = [
    ("bit", [(True, True), (0, False)]),
    ("tinyint", [(0, 0), (255, 255)]),
    ("smallint", [(-(2**15), -(2**15)), (2**15 - 1, 2**15 - 1)]),
    ("int", [(-(2**31), -(2**31)), (2**31 - 1, 2**31 - 1)]),
    ("bigint", [(-(2**63), -(2**63)), (2**63 - 1, 2**63 - 1)]),
    ("decimal(1, 0)", [("9", Decimal(9)), ("-9", Decimal(-9))]),
    ("decimal(9, 9)", [("0.999999999", Decimal("0.999999999"))]),
    ("decimal(18, 4)", [("-99999999999999.9999", Decimal("-99999999999999.9999"))]),
    ("numeric(19, 0)", [("9" * 19, Decimal("9" * 19)), ("-" + "9" * 19, Decimal("-" + "9" * 19))]),
    ("decimal(38, 0)", [("9" * 38, Decimal("9" * 38)), ("-" + "9" * 38, Decimal("-" + "9" * 38))]),
    ("decimal(38, 38)", [("0." + "9" * 38, Decimal("0." + "9" * 38))]),
    ("decimal(28, 10)", [("-1e-10", Decimal("-1e-10")), (0, Decimal(0))]),
    ("money", [("922337203685477.5807", Decimal("922337203685477.5807")),
               ("-922337203685477.5808", Decimal("-922337203685477.5808"))]),
    ("smallmoney", [("214748.3647", Decimal("214748.3647")),
                    ("-214748.3648", Decimal("-214748.3648"))]),
    ("float", [(1.7976931348623157e308, 1.7976931348623157e308), (-5e-324, -5e-324), (0.1, 0.1)]),
    ("real", [(1.5, 1.5), (-3.4028234663852886e38, -3.4028234663852886e38)]),
    ("date", [(dt.date(1, 1, 1), dt.date(1, 1, 1)), (dt.date(9999, 12, 31), dt.date(9999, 12, 31))]),
    ("datetime", [(dt.datetime(1753, 1, 1), dt.datetime(1753, 1, 1)),
                  ("9999-12-31T23:59:59.997", dt.datetime(9999, 12, 31, 23, 59, 59, 997000)),
                  ("2024-02-29T01:02:03.004", dt.datetime(2024, 2, 29, 1, 2, 3, 3000)),
                  ("2024-02-29T01:02:03.009", dt.datetime(2024, 2, 29, 1, 2, 3, 10000))]),
    ("smalldatetime", [("2079-06-06T23:59:00", dt.datetime(2079, 6, 6, 23, 59)),
                       ("2024-01-01T00:00:29.998", dt.datetime(2024, 1, 1)),
                       ("2024-01-01T00:00:29.999", dt.datetime(2024, 1, 1, 0, 1))]),
    *[(f"datetime2({n})", [(dt.datetime(1, 1, 1), dt.datetime(1, 1, 1)),
                           ("2024-05-06T07:08:09", dt.datetime(2024, 5, 6, 7, 8, 9))])
      for n in range(8)],
    ("datetime2(7)", [("9999-12-31T23:59:59.9999999", DATETIME2_MAX)]),
    ("datetime2(3)", [("2024-01-01T00:00:00.0005", dt.datetime(2024, 1, 1, 0, 0, 0, 1000))]),
    *[(f"time({n})", [("23:59:58", dt.time(23, 59, 58)), ("00:00:00", dt.time())])
      for n in range(8)],
    ("time(7)", [("23:59:59.9999999", dt.time(23, 59, 59, 999999))]),
    *[(f"datetimeoffset({n})", [("2024-01-01T05:30:00+05:30",
                                 dt.datetime(2024, 1, 1, tzinfo=dt.timezone.utc))])
      for n in range(8)],
    ("datetimeoffset(7)", [("2024-01-01T00:00:00.1234567-14:00",
                            dt.datetime(2024, 1, 1, 14, 0, 0, 123456, dt.timezone.utc))]),
    ("uniqueidentifier", [(uuid.UUID(int=0), uuid.UUID(int=0)),
                          (uuid.UUID("00112233-4455-6677-8899-aabbccddeeff"),
                           uuid.UUID("00112233-4455-6677-8899-aabbccddeeff"))]),
    ("char(5)", [("ab", "ab   "), ("é€", "é€   ")]),
    ("varchar(8000)", [("", ""), ("x" * 8000, "x" * 8000), ("é€ł", "é€?")]),
    ("nchar(3)", [("ł", "ł  ")]),
    ("nvarchar(4000)", [("", ""), ("ł€😀\0", "ł€😀\0"), ("y" * 4000, "y" * 4000)]),
    ("varchar(max)", [("", ""), ("z" * 1_200_000, "z" * 1_200_000)]),
    ("nvarchar(max)", [("", ""), ("ł😀" * 400_000, "ł😀" * 400_000)]),
    ("text", [("old", "old"), ("", "")]),
    ("ntext", [("ałt", "ałt")]),
    ("sysname", [("a name", "a name")]),
    ("xml", [("<a>ł</a>", "<a>ł</a>")]),
    ("json", [('{"a": 1}', '{"a": 1}')]),
    ("binary(4)", [(b"\1", b"\1\0\0\0")]),
    ("varbinary(8000)", [(b"", b""), (b"\xff" * 8000, b"\xff" * 8000)]),
    ("varbinary(max)", [(b"", b""), (bytes(range(256)) * 5000, bytes(range(256)) * 5000)]),
    ("image", [(b"\0\1", b"\0\1")]),
    ("sql_variant", [(5, 5), ("ł", "ł"), (Decimal("-1.50"), Decimal("-1.50")), (b"\1", b"\1"),
                     (dt.datetime(2024, 1, 2, 3, 4, 5), dt.datetime(2024, 1, 2, 3, 4, 5)),
                     (1.5, 1.5), (2**40, 2**40), (uuid.UUID(int=7), uuid.UUID(int=7)),
                     (dt.date(2024, 1, 2), dt.date(2024, 1, 2))]),
    ("hierarchyid", [("/", b""), ("/1/", b"\x58"), ("/1/2/", b"\x5b\x40")]),
    ("geometry", [("POINT (1 2)", bytes.fromhex("00000000010c000000000000f03f0000000000000040"))]),
    ("geography", [("POINT (1 2)", bytes.fromhex("e6100000010c0000000000000040000000000000f03f"))]),
]  # fmt: skip


def test_every_type_at_its_extremes(server: MssqlSandbox) -> None:
    """What Python puts in comes out of the wire, in nullable and in NOT NULL columns."""
    with connect(server) as c, connect(server, cafile=str(server.ca_file())) as secure:
        for number, (declared, values) in enumerate(EXTREMES):
            rows = [(i, stored, stored) for i, (stored, _) in enumerate(values)]
            columns = [("id", "int", False), ("v", declared, True), ("w", declared, False)]
            server.create_table("dbo", f"t{number}", columns, key=["id"], rows=rows)
            server.insert(f"dbo.t{number}", [(99, None, values[0][0])])
            expected = [(wanted, wanted) for _, wanted in values] + [(None, values[0][1])]
            for client in (c, secure):
                got = ask(client, f"SELECT v, w FROM dbo.t{number} ORDER BY id")
                assert got == expected, declared
                assert [type(v) for row in got for v in row] == [
                    type(v) for row in expected for v in row
                ], declared


def test_rowversion_grows_with_every_write(server: MssqlSandbox) -> None:
    """A rowversion is 8 bytes, unique in the database, renewed by updates."""
    server.create_table("dbo", "r", [("id", "int", False), ("v", "rowversion")], key=["id"],
                        rows=[(1,), (2,)])  # fmt: skip
    with connect(server) as c:
        before = dict(ask(c, "SELECT id, v FROM dbo.r"))
        ask_nothing(c, "UPDATE dbo.r SET id = 1 WHERE id = 1")
        after = dict(ask(c, "SELECT id, v FROM dbo.r"))
        assert before[1] < before[2] < after[1]
        assert after[2] == before[2]
        ((lowest, last),) = ask(c, "SELECT MIN_ACTIVE_ROWVERSION(), @@DBTS")
        assert last == after[1] < lowest
        with server.transaction() as late:
            late.insert("dbo.r", [(3,)])
            server.insert("dbo.r", [(4,)])
            ((held,),) = ask(c, "SELECT MIN_ACTIVE_ROWVERSION()")
            assert ask(c, "SELECT COUNT(*) FROM dbo.r WHERE v >= %s", (pytds.Binary(held),)) == [
                (1,)
            ]
            late.commit()
        assert ask(c, "SELECT id FROM dbo.r ORDER BY v") == [(2,), (1,), (3,), (4,)]


@pytest.mark.parametrize("unknown", [False, True])
def test_max_values_in_chunks(server: MssqlSandbox, unknown: bool) -> None:
    """PLP values of known and of unknown length, in odd chunks."""
    server.plp = PlpOptions(chunk=777, unknown_length=unknown)
    text = "ł😀x" * 5000
    server.create_table("dbo", "m", [("a", "nvarchar(max)"), ("b", "varbinary(max)")],
                        rows=[(text, text.encode()), (None, b""), ("", None)])  # fmt: skip
    with connect(server) as c:
        got = ask(c, "SELECT a, b FROM dbo.m")
    assert got == [(text, text.encode()), (None, b""), ("", None)]


def test_types_as_text(server: MssqlSandbox) -> None:
    """CONVERT with its styles, and the CLR types' ToString()."""
    server.create_table(
        "dbo",
        "c",
        [("d2", "datetime2(7)"), ("d", "datetime"), ("o", "datetimeoffset(7)"), ("b", "varbinary(4)"),
         ("m", "money"), ("f", "float"), ("g", "uniqueidentifier"), ("h", "hierarchyid"),
         ("p", "geography"), ("t", "time(7)"), ("x", "decimal(38,10)"), ("v", "sql_variant")],
        rows=[("2024-01-02T03:04:05.1234567", "2024-01-02T03:04:05.003", "2024-01-02T03:04:05+02:00",
               b"\x0a\xff", "1234.5678", 0.1, uuid.UUID(int=255), "/1/2/", "POINT (1.5 2)",
               "01:02:03.1234567", "-0.0000000001", "ł")],
    )  # fmt: skip
    questions = {
        "CONVERT(nvarchar(40), d2, 121)": "2024-01-02 03:04:05.1234567",
        "CONVERT(nvarchar(40), d2, 126)": "2024-01-02T03:04:05.1234567",
        "CONVERT(varchar(30), d, 121)": "2024-01-02 03:04:05.003",
        "CONVERT(varchar(30), d, 126)": "2024-01-02T03:04:05.003",
        "CONVERT(varchar(30), d)": "Jan  2 2024  3:04AM",
        "CONVERT(nvarchar(40), o, 126)": "2024-01-02T03:04:05+02:00",
        "CONVERT(nvarchar(40), o, 127)": "2024-01-02T01:04:05Z",
        "CONVERT(nvarchar(40), o, 121)": "2024-01-02 03:04:05.0000000 +02:00",
        "CONVERT(varchar(10), b, 1)": "0x0AFF",
        "CONVERT(varchar(10), b, 2)": "0AFF",
        "CONVERT(varchar(20), m, 2)": "1234.5678",
        "CONVERT(varchar(20), m)": "1234.57",
        "CONVERT(varchar(30), f, 3)": "1.0000000000000001e-001",
        "CONVERT(varchar(36), g)": "00000000-0000-0000-0000-0000000000FF",
        "h.ToString()": "/1/2/",
        "c.p.ToString()": "POINT (1.5 2)",
        "CONVERT(nvarchar(16), t)": "01:02:03.1234567",
        "CONVERT(varchar(41), x)": "-0.0000000001",
        "CONVERT(nvarchar(max), v)": "ł",
        "CONVERT(varbinary(2), '0x0AFF', 1)": b"\x0a\xff",
    }
    with connect(server) as c:
        for question, wanted in questions.items():
            assert ask(c, f"SELECT {question} AS v FROM dbo.c") == [(wanted,)], question


@given(value=st.integers(0, 3_652_058 * 864_000_000_000), number=st.integers(-(10**18), 10**18))
def test_short_cuts_of_conversions_change_nothing(value: int, number: int) -> None:
    """What large reads convert by a short cut is what the general way gives."""
    text = types.nvarchar(-1)
    for source, stored, styles in (
        *((types.SqlType("datetime2", scale=n), types.round_ticks(value, n), (121, 126))
          for n in range(1, 8)),
        *((types.decimal_type(18, n), number, (None,)) for n in range(1, 19)),
    ):  # fmt: skip
        for style in styles:
            quick = text_function(source, text, style)
            assert quick is not None
            assert quick(stored) == convert(stored, source, text, style)
            assert quick(None) is None


def test_parameters_of_every_kind(server: MssqlSandbox) -> None:
    """sp_executesql takes all that the client binds."""
    values = [
        "text ł", "", "x" * 9000, 1, -(2**40), 2**62, Decimal("1.2300"), Decimal("-9" * 1 + "9" * 30),
        pytds.Binary(b"\0\1"), pytds.Binary(b"z" * 9000), dt.datetime(2024, 1, 2, 3, 4, 5, 678901),
        dt.date(1, 1, 1), dt.time(1, 2, 3), True, 1.5, uuid.UUID(int=9), None,
    ]  # fmt: skip
    with connect(server) as c:
        for value in values:
            ((got,),) = ask(c, "SELECT %s AS v", (value,))
            assert got == value


def test_bad_values_are_the_servers_errors(server: MssqlSandbox) -> None:
    """Conversions that fail carry the documented numbers."""
    cases = {
        "SELECT CAST('x' AS int)": 245,
        "SELECT CAST('x' AS decimal(5,2))": 8114,
        "SELECT CAST(300 AS tinyint)": 8115,
        "SELECT CAST('2024-13-01' AS datetime2)": 241,
        "SELECT CAST('1700-01-01' AS datetime)": 242,
        "SELECT CAST('nope' AS uniqueidentifier)": 8169,
        "SELECT 1 / 0": 8134,
        "SELECT 9999999999 * 1 + CAST(1 AS bigint) FROM nowhere": 208,
        "SELECT nothing": 207,
        "SELEC 1": 102,
        "SELECT * FROM sys.nowhere": 208,
        "SELECT @missing": 137,
        "SELECT FORMATMESSAGE2(1)": 195,
        "SELECT 'a' COLLATE Klingon_CI_AS": 448,
        "EXEC sp_nowhere": 2812,
        "COMMIT": 3902,
    }
    with connect(server) as c:
        for sql, number in cases.items():
            fails_with(number, c, sql)
        assert ask(c, "SELECT 1 AS one") == [(1,)]


def test_properties_of_variants_and_shapes(server: MssqlSandbox) -> None:
    """The base type of a sql_variant, and the spatial reference of a point."""
    columns = [("v", "sql_variant"), ("g", "geography")]
    rows = [(Decimal("1.50"), "POINT (1 2)"), (None, None)]
    server.create_table("dbo", "t", columns, rows=rows)
    asked = (
        "SELECT CONVERT(nvarchar(128), SQL_VARIANT_PROPERTY(T.v, 'BaseType')), T.[g].STSrid "
        "FROM dbo.t AS T"
    )
    with connect(server) as c:
        assert ask(c, asked) == [("decimal", 4326), (None, None)]
