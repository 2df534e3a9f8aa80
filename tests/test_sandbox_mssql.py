# ruff: noqa: E501, PT012, S608 - column values are naive; statements stay whole
"""The SQL Server simulator, driven through the stock python-tds client."""

from __future__ import annotations

import datetime as dt
import gc
import signal
import socket
import subprocess
import sys
import threading
import uuid
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytds
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from pytds import tds_base, tds_reader

from tests.sandbox.mssql import (
    ColumnSpec,
    Fragmentation,
    MssqlSandbox,
    RealServer,
    faults,
    from_environment,
    seed_ehr,
    types,
)
from tests.sandbox.mssql.convert import convert, text_function
from tests.sandbox.mssql.parser import quote
from tests.sandbox.mssql.stock import stock_driver
from tests.sandbox.mssql.wire import PlpOptions

Connect = Callable[..., Any]


@pytest.fixture(autouse=True)
def _stock() -> Iterator[None]:
    """The driver without the patches of the connector."""
    with stock_driver():
        yield


@pytest.fixture
def server() -> Iterator[MssqlSandbox]:
    with MssqlSandbox() as running:
        yield running
    assert running.open_connections == 0
    assert running.failures == []


def connect(server: MssqlSandbox, **options: Any) -> Any:
    """A stock client, autocommit unless told otherwise."""
    given_options: dict[str, Any] = {
        "port": server.port,
        "user": server.user,
        "password": server.password,
        "database": server.database,
        "autocommit": True,
        "validate_host": False,
        "login_timeout": 5,
        "timeout": 20,
        "disable_connect_retry": True,
    }
    return pytds.connect(server.host, **{**given_options, **options})


def refused(server: MssqlSandbox, **options: Any) -> BaseException:
    """The client's error of a login that fails; the sockets that it leaks are collected here."""
    problem: BaseException | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            connect(server, **{"login_timeout": 0.3, **options}).close()
        except Exception as caught:  # whatever the client makes of it
            problem = (caught.__cause__ or caught).with_traceback(None)
            caught.__cause__ = None
        gc.collect()
    assert problem is not None
    return problem


def ask(connection: Any, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return [tuple(row) for row in cursor.fetchall()]


def number_of(problem: BaseException) -> int:
    """The server's error number in a client's exception."""
    return int(getattr(problem, "number", 0) or getattr(problem, "msg_no", 0))


def fails_with(number: int, connection: Any, sql: str, parameters: Any = None) -> None:
    with pytest.raises(tds_base.Error) as caught:
        ask(connection, sql, parameters)
    assert number_of(caught.value) == number


# Login and encryption


def test_login_and_session_facts(server: MssqlSandbox) -> None:
    """A plain login sees its database, its spid and the version."""
    with connect(server) as c:
        (row,) = ask(c, "SELECT DB_NAME(), @@SPID, @@VERSION, SUSER_SNAME(), @@TRANCOUNT")
    assert row[0] == server.database
    assert row[2].startswith("Microsoft SQL Server")
    assert row[3:] == (server.user, 0)
    assert server.logins[0].encrypted is False


def test_whole_session_is_encrypted(server: MssqlSandbox) -> None:
    """With a trusted CA the session runs in TLS."""
    with connect(server, cafile=str(server.ca_file())) as c:
        assert ask(c, "SELECT 1 AS one") == [(1,)]
    assert server.logins[0].encrypted is True


def test_only_the_login_is_encrypted_when_both_sides_say_off(server: MssqlSandbox) -> None:
    """ENCRYPT_OFF on both sides: TLS for LOGIN7, clear afterwards."""
    with connect(server, cafile=str(server.ca_file()), enc_login_only=True) as c:
        assert ask(c, "SELECT 1 AS one") == [(1,)]
    assert server.logins[0].encrypted is True


@pytest.mark.parametrize("kind", ["unknown_ca", "expired"])
def test_refused_certificates(kind: str) -> None:
    """A certificate that the client must refuse ends the handshake."""
    with MssqlSandbox(certificate=kind) as server:
        problem = refused(server, cafile=str(server.ca_file()))
        assert "certificate verify failed" in str(problem)
        assert server.logins == []


@pytest.mark.parametrize(
    ("kind", "names"),
    [("valid", ["localhost"]), ("wrong_host", ["elsewhere.test"]), ("cn_only", None)],
)
def test_names_of_certificates(kind: str, names: list[str] | None) -> None:
    """The presented certificate carries the names that its kind promises."""
    from cryptography import x509

    with MssqlSandbox(certificate=kind) as server:
        context = server.tls_context()
        assert context.get_ca_certs() == []
        pem = (server.instance.folder / f"server-{kind}.pem").read_bytes()
        certificate = x509.load_pem_x509_certificate(pem[pem.index(b"-----BEGIN CERT") :])
        if names is None:
            found = {type(extension.value) for extension in certificate.extensions}
            assert x509.SubjectAlternativeName not in found
        else:
            san = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
            assert san.value.get_values_for_type(x509.DNSName)[:1] == names
        with connect(server, cafile=str(server.ca_file())) as c:
            assert ask(c, "SELECT 1 AS one") == [(1,)]


def test_server_that_requires_encryption() -> None:
    """A client that cannot encrypt is turned away."""
    with MssqlSandbox(encryption="required") as server:
        assert "required by server" in str(refused(server))
        with connect(server, cafile=str(server.ca_file())) as c:
            assert ask(c, "SELECT 1 AS one") == [(1,)]


def test_server_without_encryption() -> None:
    """A client that insists on encryption gives up."""
    with MssqlSandbox(encryption="not_supported") as server:
        assert "not supported" in str(refused(server, cafile=str(server.ca_file())))


def test_wrong_password_and_unknown_database(server: MssqlSandbox) -> None:
    """18456, and 4060 followed by 18456."""
    assert number_of(refused(server, password="nope")) == 18456
    assert number_of(refused(server, database="Nowhere")) == 18456
    assert [entry.errors for entry in server.logins] == [[18456], [4060, 18456]]


def test_use_and_unknown_database(server: MssqlSandbox) -> None:
    """USE changes the database, or gives 911."""
    with connect(server, database=None) as c:
        assert ask(c, "SELECT DB_NAME()") == [("master",)]
        ask_nothing(c, f"USE [{server.database}]")
        assert ask(c, "SELECT DB_NAME()") == [(server.database,)]
        fails_with(911, c, "USE Nowhere")


def test_dropped_database_under_an_open_session(server: MssqlSandbox) -> None:
    """The session ends quietly, whatever the order."""
    with connect(server, database="master") as c:
        ask_nothing(c, "CREATE DATABASE [scratch]")
        with connect(server, database="scratch") as inside:
            ask_nothing(inside, "CREATE TABLE t (a int)")
            ask_nothing(c, "DROP DATABASE [scratch]")


def ask_nothing(connection: Any, sql: str, parameters: Any = None) -> int:
    """Runs a statement without a result; returns its row count."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return int(cursor.rowcount)


def test_access_token(server: MssqlSandbox) -> None:
    """A federated login is taken when its token is known."""
    server.tokens.add("token-1")
    options = {"user": None, "password": None, "cafile": str(server.ca_file())}
    with connect(server, access_token_callable=lambda: "token-1", **options) as c:
        assert ask(c, "SELECT 1 AS one") == [(1,)]
    assert number_of(refused(server, access_token_callable=lambda: "stale", **options)) == 18456


# Types

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


# The engine


def test_uniqueidentifiers_sort_as_on_the_server(server: MssqlSandbox) -> None:
    """The last six bytes weigh most, then the others from right to left."""
    ids = [
        uuid.UUID("01000000-0000-0000-0000-000000000000"),
        uuid.UUID("00000000-0100-0000-0000-000000000000"),
        uuid.UUID("00000000-0000-0100-0000-000000000000"),
        uuid.UUID("00000000-0000-0000-0100-000000000000"),
        uuid.UUID("00000000-0000-0000-0000-010000000000"),
    ]
    server.create_table("dbo", "g", [("id", "uniqueidentifier")], key=["id"],
                        rows=[(i,) for i in reversed(ids)])  # fmt: skip
    with connect(server) as c:
        assert [row[0] for row in ask(c, "SELECT id FROM dbo.g ORDER BY id")] == ids
        assert ask(c, "SELECT COUNT(*) FROM dbo.g WHERE id > %s", (ids[2],)) == [(2,)]
        assert ask(c, "SELECT MAX(id), MIN(id) FROM dbo.g") == [(ids[-1], ids[0])]


def test_collations(server: MssqlSandbox) -> None:
    """Case, trailing spaces, binary order; varchar and nvarchar differ in order."""
    words = ["b", "B ", "a-c", "ab", "Ä", "a"]
    columns = [
        ColumnSpec("i", "int"),
        ColumnSpec("n", "nvarchar(10)"),
        ColumnSpec("v", "varchar(10)"),
        ColumnSpec("cs", "nvarchar(10)", collation="Latin1_General_CS_AS"),
        ColumnSpec("bin", "nvarchar(10)", collation="Latin1_General_BIN2"),
    ]
    rows = [(i, w, w, w, w) for i, w in enumerate(words)]
    server.create_table("dbo", "w", columns, rows=rows)
    with connect(server) as c:
        assert ask(c, "SELECT COUNT(*) FROM dbo.w WHERE n = 'B'") == [(2,)]
        assert ask(c, "SELECT COUNT(*) FROM dbo.w WHERE cs = 'B'") == [(1,)]
        assert ask(c, "SELECT COUNT(*) FROM dbo.w WHERE bin = 'B'") == [(1,)]
        assert ask(c, "SELECT COUNT(*) FROM dbo.w WHERE n = 'B' COLLATE Latin1_General_BIN2") == [
            (1,)
        ]
        assert ask(c, "SELECT v FROM dbo.w WHERE v LIKE 'A[^a]%'") == [("a-c",), ("ab",)]
        # a hyphen weighs almost nothing in nvarchar, and is a character of its own in varchar
        assert ask(c, "SELECT n FROM dbo.w WHERE n IN ('a-c', 'ab') ORDER BY n") == [
            ("ab",),
            ("a-c",),
        ]
        assert ask(c, "SELECT v FROM dbo.w WHERE v IN ('a-c', 'ab') ORDER BY v") == [
            ("a-c",),
            ("ab",),
        ]
        order = [row[0] for row in ask(c, "SELECT bin FROM dbo.w ORDER BY bin")]
        assert order == ["B ", "a", "a-c", "ab", "b", "Ä"]
        assert ask(c, "SELECT COUNT(DISTINCT n) FROM dbo.w") == [(5,)]
    with pytest.raises(Exception, match="2627"):
        server.create_table("dbo", "k", [("n", "nvarchar(9)")], key=["n"], rows=[("a",), ("A ",)])


def test_datetime_is_widened_when_compared(server: MssqlSandbox) -> None:
    """.003 is .0033333: a datetime2 parameter does not match it, a cast one does."""
    server.create_table("dbo", "d", [("at", "datetime")], rows=[("2024-01-01T00:00:00.003",)])
    at = dt.datetime(2024, 1, 1, 0, 0, 0, 3000)
    with connect(server) as c:
        assert ask(c, "SELECT at FROM dbo.d") == [(at,)]
        assert ask(c, "SELECT at FROM dbo.d WHERE at = %s", (at,)) == []
        assert ask(c, "SELECT at FROM dbo.d WHERE at > %s", (at,)) == [(at,)]
        assert ask(c, "SELECT at FROM dbo.d WHERE at = CAST(%s AS datetime)", (at,)) == [(at,)]
        text = "2024-01-01T00:00:00.003"
        assert ask(c, "SELECT at FROM dbo.d WHERE at = CONVERT(datetime, %s, 126)", (text,)) == [
            (at,)
        ]
        fine = "2024-01-01T00:00:00.0033333"
        sql = "SELECT at FROM dbo.d WHERE at = CONVERT(datetime2(7), %s, 126)"
        assert ask(c, sql, (fine,)) == [(at,)]


def test_numbers_compare_exactly_over_scales(server: MssqlSandbox) -> None:
    """Decimals of other scales and widths, integers and floats."""
    server.create_table("dbo", "n", [("a", "decimal(18,2)"), ("b", "decimal(38,10)"), ("i", "bigint")],
                        rows=[("1.10", "1.1000000000", 1), ("-5", "-5.0000000001", -5)])  # fmt: skip
    with connect(server) as c:
        assert ask(c, "SELECT i FROM dbo.n WHERE a = b") == [(1,)]
        assert ask(c, "SELECT i FROM dbo.n WHERE a > b") == [(-5,)]
        assert ask(c, "SELECT i FROM dbo.n WHERE a = 1.1") == [(1,)]
        assert ask(c, "SELECT i FROM dbo.n WHERE a > 1.095") == [(1,)]
        assert ask(c, "SELECT i FROM dbo.n WHERE i < %s", (Decimal("-4.5"),)) == [(-5,)]
        assert ask(c, "SELECT i FROM dbo.n WHERE b < %s", (Decimal("-5"),)) == [(-5,)]
        assert ask(c, "SELECT SUM(a), SUM(b), AVG(a), COUNT_BIG(*) FROM dbo.n") == [
            (Decimal("-3.90"), Decimal("-3.9000000001"), Decimal("-1.950000"), 2)
        ]
        assert ask(c, "SELECT a * b, a + i, i / 2, -i % 3 FROM dbo.n WHERE i = -5") == [
            (Decimal("25.000000"), Decimal("-10.00"), -2, 2)
        ]


def test_queries_of_every_shape(server: MssqlSandbox) -> None:
    """Joins, sub-queries, CTEs, unions, grouping, paging, CASE, variables."""
    server.create_table("dbo", "p", [("id", "int", False), ("n", "nvarchar(9)")], key=["id"],
                        rows=[(1, "a"), (2, "b"), (3, None)])  # fmt: skip
    server.create_table("dbo", "o", [("p", "int"), ("q", "int")], rows=[(1, 5), (1, 6), (2, 7)])
    cases: dict[str, list[tuple[Any, ...]]] = {
        "SELECT p.n, o.q FROM dbo.p AS p JOIN dbo.o o ON o.p = p.id WHERE o.q > 5 ORDER BY o.q":
            [("a", 6), ("b", 7)],
        "SELECT p.id, o.q FROM dbo.p p LEFT JOIN dbo.o o ON o.p = p.id WHERE o.q IS NULL": [(3, None)],
        "SELECT id FROM dbo.p WHERE id IN (SELECT p FROM dbo.o) ORDER BY id DESC": [(2,), (1,)],
        "SELECT id FROM dbo.p x WHERE NOT EXISTS (SELECT 1 FROM dbo.o WHERE p = x.id)": [(3,)],
        "WITH t AS (SELECT p, SUM(q) AS s FROM dbo.o GROUP BY p HAVING COUNT(*) > 1) SELECT * FROM t":
            [(1, 11)],
        "SELECT id FROM dbo.p UNION ALL SELECT q FROM dbo.o ORDER BY 1 DESC": [(7,), (6,), (5,), (3,), (2,), (1,)],
        "SELECT id FROM dbo.p ORDER BY id OFFSET 1 ROWS FETCH NEXT 1 ROWS ONLY": [(2,)],
        "SELECT TOP 2 id FROM dbo.p ORDER BY id DESC": [(3,), (2,)],
        "SELECT DISTINCT p FROM dbo.o ORDER BY p": [(1,), (2,)],
        "SELECT CASE WHEN n IS NULL THEN 'none' WHEN n = 'A' THEN 'x' ELSE n END FROM dbo.p ORDER BY id":
            [("x",), ("b",), ("none",)],
        "SELECT COALESCE(n, N'?'), ISNULL(n, 'z'), LEN('ab  '), DATALENGTH(N'ab') FROM dbo.p WHERE id = 3":
            [("?", "z", 2, 4)],
        "SELECT (SELECT MAX(q) FROM dbo.o WHERE p = x.id) FROM dbo.p x ORDER BY x.id": [(6,), (7,), (None,)],
        "SELECT id, ROW_NUMBER() OVER (ORDER BY id DESC) AS r FROM dbo.p ORDER BY id": [(1, 3), (2, 2), (3, 1)],
        "DECLARE @a int = 2; SET @a = @a + 1; SELECT @a AS v": [(3,)],
        "IF @@TRANCOUNT = 0 SELECT 'none' ELSE SELECT 'some'": [("none",)],
        "SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS v(x, y) WHERE x = 2": [(2, "b")],
        "SELECT [n] FROM [dbo].[p] WITH (READCOMMITTEDLOCK) WHERE id BETWEEN 1 AND 1 OPTION (RECOMPILE)":
            [("a",)],
        "SELECT N'it''s' + 'x', 0x0A, 1.50, 1e3, -2147483648": [("it'sx", b"\x0a", Decimal("1.50"), 1000.0, -(2**31))],
        "SELECT DATEADD(day, 1, CAST('2024-02-28' AS date)), DATEDIFF(hour, '2024-01-01', '2024-01-02')":
            [(dt.date(2024, 2, 29), 24)],
        "SELECT OBJECT_ID('dbo.nothing'), OBJECT_NAME(OBJECT_ID(N'[dbo].[p]')), SCHEMA_NAME(1)":
            [(None, "p", "dbo")],
        "SELECT COUNT(*) FROM dbo.p WHERE 1 = 0": [(0,)],
    }  # fmt: skip
    with connect(server) as c:
        for sql, wanted in cases.items():
            assert ask(c, sql) == wanted, sql


def test_clock_and_offset(server: MssqlSandbox) -> None:
    """The server's clock can be stopped, and its local time differs from UTC."""
    server.set_clock(dt.datetime(2024, 6, 1, 12, tzinfo=dt.timezone.utc), offset_minutes=-300)
    with connect(server) as c:
        (row,) = ask(c, "SELECT SYSDATETIME(), SYSUTCDATETIME(), GETDATE(), SYSDATETIMEOFFSET()")
    assert row[:3] == (
        dt.datetime(2024, 6, 1, 7),
        dt.datetime(2024, 6, 1, 12),
        dt.datetime(2024, 6, 1, 7),
    )
    assert row[3].isoformat() == "2024-06-01T07:00:00-05:00"


@pytest.mark.parametrize("page", [1, 7, 1000])
def test_keyset_paging_gives_all_rows_with_ties(server: MssqlSandbox, page: int) -> None:
    """Pages by (time, composite key), many rows with one time: every row once, in order."""
    rows = [
        (f"2024-01-01T00:00:00.{i // 25:07d}", f"K{i % 5}", Decimal(i) / 4, i) for i in range(60)
    ]
    server.create_table(
        "dbo", "k",
        [("at", "datetime2(7)", False), ("a", "varchar(9)"), ("b", "decimal(9,2)"), ("n", "int")],
        key=["a", "b"], indexes=[["at", "a", "b"]], rows=rows,
    )  # fmt: skip
    seen: list[int] = []
    where, values = "", ()
    with connect(server) as c:
        while True:
            sql = (
                f"SELECT TOP ({page}) CONVERT(varchar(30), at, 126), a, b, n FROM dbo.k {where} "
                "ORDER BY at, a, b"
            )
            got = ask(c, sql, values or None)
            seen += [row[3] for row in got]
            if len(got) < page:
                break
            at, a, b, _ = got[-1]
            where = (
                "WHERE (at > CONVERT(datetime2(7), %(t)s, 126) OR (at = CONVERT(datetime2(7), %(t)s, 126)"
                " AND (a > CAST(%(a)s AS varchar(9)) OR (a = CAST(%(a)s AS varchar(9)) AND b > %(b)s))))"
            )
            values = {"t": at, "a": a, "b": b}  # type: ignore[assignment]
    assert seen == sorted(range(60), key=lambda i: (i // 25, i % 5, i))


def test_keyset_page_uses_the_index(server: MssqlSandbox) -> None:
    """The predicate seeks in the index and sorts nothing."""
    from tests.sandbox.mssql.compiler import Compiler
    from tests.sandbox.mssql.parser import parse
    from tests.sandbox.mssql.session import Session

    server.create_table("dbo", "k", [("a", "nvarchar(9)"), ("b", "int")], key=["a", "b"])
    session = Session(server.instance, server.store, server.info)
    compiler = Compiler(session)
    query = compiler.query(
        parse("SELECT TOP (5) * FROM dbo.k WHERE (a > N'x' OR (a = N'x' AND b > 5)) ORDER BY a, b")
    )
    plan = session.connection.execute(
        "EXPLAIN QUERY PLAN " + query.sql.text, query.sql.args
    ).fetchall()
    session.close()
    assert [step[3].split("(")[0] for step in plan] == [
        f"SEARCH s1 USING COVERING INDEX i{server.table('dbo.k').id}_1 "
    ]


_KEYS = st.lists(
    st.tuples(st.text("aAbB -'é", max_size=3), st.integers(-3, 3)), max_size=12,
    unique_by=lambda k: (k[0].rstrip(" ").lower(), k[1]),
)  # fmt: skip


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=_KEYS, data=st.data())
def test_order_and_comparison_agree(server: MssqlSandbox, rows: list[Any], data: Any) -> None:
    """What sorts after a key is what compares greater than it, whatever the text."""
    if server.store.tables:
        server.execute("DROP TABLE dbo.h")
    server.create_table(
        "dbo", "h", [("a", "nvarchar(9)"), ("b", "int")], key=["a", "b"], rows=rows
    )
    order = [(a, b) for a, b in server.execute("SELECT a, b FROM dbo.h ORDER BY a, b")]
    if not order:
        return
    place = data.draw(st.integers(0, len(order) - 1))
    a, b = order[place]
    after = server.execute(
        "SELECT a, b FROM dbo.h WHERE (a > @a OR (a = @a AND b > @b)) ORDER BY a, b",
        {"a": a, "b": b},
    )
    assert after == order[place + 1 :]


def test_what_is_not_understood_is_an_error(server: MssqlSandbox) -> None:
    """A clause that is not translated never changes a result silently."""
    server.create_table(
        "dbo", "t", [("a", "int"), ("b", "nvarchar(9)")], rows=[(1, "x"), (2, "y")]
    )
    with connect(server) as c:
        for sql in (
            "SELECT a FROM dbo.t FOR JSON PATH",
            "SELECT TOP (1) WITH TIES a FROM dbo.t ORDER BY b",
            "SELECT TOP 50 PERCENT a FROM dbo.t",
            "SELECT a FROM dbo.t LIMIT 1",
            "SELECT a::bigint FROM dbo.t",
            "SELECT a FROM dbo.t TABLESAMPLE (10 PERCENT)",
            "SELECT a FROM dbo.t FOR SYSTEM_TIME AS OF '2020-01-01'",
            "SELECT a FROM dbo.t GROUP BY ROLLUP(a)",
            "SELECT a FROM dbo.t ORDER BY a NULLS LAST",
            "SELECT SUM(a) OVER (ORDER BY a ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM dbo.t",
            "SELECT a FROM dbo.t WHERE a",
            "SELECT TRUE",
            "SELECT a INTO dbo.u FROM dbo.t",
            "INSERT INTO dbo.t (a) OUTPUT inserted.a VALUES (3)",
            "DELETE TOP (1) FROM dbo.t",
            "MERGE INTO dbo.t USING dbo.t AS u ON u.a = t.a WHEN MATCHED THEN DELETE",
            "CREATE VIEW dbo.v AS SELECT 1 AS a",
            "WAITFOR DELAY '00:00:01'",
        ):
            fails_with(102, c, sql)
        assert ask(c, "SELECT a FROM dbo.t WHERE b NOT LIKE 'X%%' AND a NOT IN (5, 6)", ()) == [
            (2,)
        ]
        assert ask(c, "SELECT COUNT(*) FROM dbo.t WHERE NOT a BETWEEN 2 AND 3 OR b IS NULL") == [
            (1,)
        ]


# Writing through T-SQL


def test_data_definition_and_changes_in_tsql(server: MssqlSandbox) -> None:
    """CREATE, INSERT, UPDATE, DELETE, ALTER, TRUNCATE and DROP through the wire."""
    with connect(server) as c:
        for sql in (
            "CREATE SCHEMA [my s]",
            (
                "CREATE TABLE [my s].[t]]x] ([id] int IDENTITY(1,1) NOT NULL, [a ]]b] nvarchar(20) "
                "COLLATE Latin1_General_BIN2 NULL, at datetime2(3) NOT NULL DEFAULT SYSUTCDATETIME(), "
                "twice AS ([id] * 2), CONSTRAINT [PK x] PRIMARY KEY CLUSTERED ([id]))"
            ),
            "CREATE UNIQUE NONCLUSTERED INDEX ux ON [my s].[t]]x] ([a ]]b])",
        ):
            ask_nothing(c, sql)
        name = "[my s].[t]]x]"
        assert ask_nothing(c, f"INSERT INTO {name} ([a ]]b]) VALUES (%s), (%s)", ("x", "y")) == 2
        assert ask(c, f"SELECT id, [a ]]b], twice FROM {name}") == [(1, "x", 2), (2, "y", 4)]
        assert ask_nothing(c, f"UPDATE {name} SET [a ]]b] = N'z' + [a ]]b] WHERE id = 2") == 1
        with pytest.raises(tds_base.IntegrityError):
            ask_nothing(c, f"INSERT INTO {name} ([a ]]b]) VALUES ('zy')")
        ask_nothing(c, f"ALTER TABLE {name} ADD extra int NULL")
        assert ask(c, f"SELECT extra, [a ]]b] FROM {name} WHERE id = 2") == [(None, "zy")]
        ask_nothing(c, f"ALTER TABLE {name} DROP COLUMN extra")
        fails_with(207, c, f"SELECT extra FROM {name}")
        fails_with(515, c, f"INSERT INTO {name} (at) VALUES (NULL)")
        assert ask_nothing(c, f"DELETE FROM {name} WHERE id = 1") == 1
        ask_nothing(c, f"TRUNCATE TABLE {name}")
        assert ask(c, f"SELECT COUNT(*) FROM {name}") == [(0,)]
        ask_nothing(c, f"DROP TABLE {name}")
        fails_with(208, c, f"SELECT * FROM {name}")


def test_transactions_of_the_client(server: MssqlSandbox) -> None:
    """Begin, commit and rollback by transaction manager requests."""
    server.create_table("dbo", "x", [("id", "int")])
    with connect(server, autocommit=False) as c:
        ask_nothing(c, "INSERT INTO dbo.x VALUES (1)")
        assert ask(c, "SELECT @@TRANCOUNT") == [(1,)]
        c.rollback()
        assert ask(c, "SELECT COUNT(*) FROM dbo.x") == [(0,)]
        ask_nothing(c, "INSERT INTO dbo.x VALUES (2)")
        c.commit()
    assert server.execute("SELECT id FROM dbo.x") == [(2,)]


# Isolation


@pytest.fixture
def busy(server: MssqlSandbox) -> MssqlSandbox:
    server.create_table("dbo", "b", [("id", "int", False), ("v", "int")], key=["id"],
                        rows=[(i, 0) for i in range(500)])  # fmt: skip
    return server


def test_snapshot_sees_the_data_of_its_first_read(busy: MssqlSandbox) -> None:
    """A writer goes on; the transaction does not see it until it ends."""
    with connect(busy, autocommit=False, isolation_level=5) as c:
        busy.insert("dbo.b", [(1000, 1)])
        assert ask(c, "SELECT COUNT(*) FROM dbo.b") == [(501,)]
        busy.insert("dbo.b", [(1001, 1)])
        busy.update("dbo.b", {"id": 1}, v=9)
        busy.delete("dbo.b", {"id": 2})
        assert ask(c, "SELECT COUNT(*), SUM(v) FROM dbo.b") == [(501, 1)]
        c.commit()
        assert ask(c, "SELECT COUNT(*), SUM(v) FROM dbo.b") == [(501, 11)]


def test_read_committed_sees_the_data_of_each_statement(busy: MssqlSandbox) -> None:
    """Within a transaction another's commit becomes visible."""
    with connect(busy, autocommit=False) as c:
        assert ask(c, "SELECT COUNT(*) FROM dbo.b") == [(500,)]
        busy.insert("dbo.b", [(1000, 1)])
        assert ask(c, "SELECT COUNT(*) FROM dbo.b") == [(501,)]


def test_snapshot_that_is_not_allowed(busy: MssqlSandbox) -> None:
    """3952 where the database does not allow it, 3951 in mid-transaction."""
    busy.info.snapshot = False
    with connect(busy) as c:
        ask_nothing(c, "SET TRANSACTION ISOLATION LEVEL SNAPSHOT")
        fails_with(3952, c, "SELECT * FROM dbo.b")
        ask_nothing(c, f"ALTER DATABASE [{busy.database}] SET ALLOW_SNAPSHOT_ISOLATION ON")
        assert len(ask(c, "SELECT * FROM dbo.b")) == 500
        ask_nothing(c, "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; BEGIN TRAN")
        ask_nothing(c, "SET TRANSACTION ISOLATION LEVEL SNAPSHOT")
        fails_with(3951, c, "SELECT * FROM dbo.b")


def test_definition_changed_under_a_snapshot(busy: MssqlSandbox) -> None:
    """3961 when a table was altered after the snapshot began."""
    with connect(busy, autocommit=False, isolation_level=5) as c:
        ask(c, "SELECT COUNT(*) FROM dbo.b")
        busy.execute("ALTER TABLE dbo.b ADD late int NULL")
        fails_with(3961, c, "SELECT COUNT(*) FROM dbo.b")


def test_writer_goes_on_while_rows_are_streamed(busy: MssqlSandbox) -> None:
    """A statement reads one state of the table, whatever is written meanwhile."""
    busy.faults.add(faults.call(lambda: write(busy), after_rows=10, match="FROM dbo.b"))
    with connect(busy) as c:
        assert ask(c, "SELECT v FROM dbo.b ORDER BY id") == [(0,)] * 500
        assert ask(c, "SELECT COUNT(*), MAX(v) FROM dbo.b") == [(500, 7)]


def write(server: MssqlSandbox) -> None:
    server.update("dbo.b", {"id": 400}, v=7)
    server.delete("dbo.b", {"id": 401})
    server.insert("dbo.b", [(5000, 7)])


def test_rows_that_commit_late(busy: MssqlSandbox) -> None:
    """An open transaction's rows are not seen, others' are; then they are."""
    with connect(busy) as c, busy.transaction() as late:
        late.insert("dbo.b", [(900, 1)])
        busy.insert("dbo.b", [(901, 1)])
        assert ask(c, "SELECT id FROM dbo.b WHERE v = 1") == [(901,)]
        late.commit()
        assert ask(c, "SELECT id FROM dbo.b WHERE v = 1 ORDER BY id") == [(900,), (901,)]


# Catalogue


def test_catalog_views(server: MssqlSandbox) -> None:
    """Tables, keys in ordinal order, columns, indexes, row counts."""
    server.create_table(
        "hr", "Pay [x]",
        [("b", "decimal(9,2)"), ("a", "varchar(7)"), ("t", "nvarchar(max)"), ("r", "rowversion"),
         ColumnSpec("c", "", computed="b * 2")],
        key=["a", "b DESC"], unique=[["t"]], rows=[("1", "x", "t")],
    )  # fmt: skip
    server.create_table("dbo", "heap", [("z", "xml")], rows=[("<a/>",)] * 3)
    with connect(server) as c:
        assert ask(c, "select table_schema, table_name, table_type from information_schema.tables "
                      "where Table_Type = 'base table' order by 2") == [
            ("dbo", "heap", "BASE TABLE"), ("hr", "Pay [x]", "BASE TABLE")]  # fmt: skip
        assert ask(c, """
            SELECT k.COLUMN_NAME, k.ORDINAL_POSITION, tc.CONSTRAINT_TYPE
            FROM INFORMATION_SCHEMA.TABLE_CONSTRAINTS tc
            JOIN INFORMATION_SCHEMA.KEY_COLUMN_USAGE k ON k.CONSTRAINT_SCHEMA = tc.CONSTRAINT_SCHEMA
             AND k.CONSTRAINT_NAME = tc.CONSTRAINT_NAME AND k.TABLE_NAME = tc.TABLE_NAME
            WHERE tc.CONSTRAINT_TYPE = 'PRIMARY KEY' ORDER BY k.ORDINAL_POSITION
        """) == [("a", 1, "PRIMARY KEY"), ("b", 2, "PRIMARY KEY")]  # fmt: skip
        assert ask(c, """
            SELECT COLUMN_NAME, IS_NULLABLE, DATA_TYPE, CHARACTER_MAXIMUM_LENGTH, NUMERIC_PRECISION,
                   NUMERIC_SCALE, COLLATION_NAME
            FROM INFORMATION_SCHEMA.COLUMNS WHERE TABLE_NAME = %s ORDER BY ORDINAL_POSITION
        """, ("pay [X]",)) == [
            ("b", "NO", "decimal", None, 9, 2, None),
            ("a", "NO", "varchar", 7, None, None, "SQL_Latin1_General_CP1_CI_AS"),
            ("t", "YES", "nvarchar", -1, None, None, "SQL_Latin1_General_CP1_CI_AS"),
            ("r", "NO", "timestamp", None, None, None, None),
            ("c", "NO", "decimal", None, 20, 2, None),
        ]  # fmt: skip
        assert ask(c, """
            SELECT s.name, t.name, SUM(p.rows) FROM sys.tables t
            JOIN sys.schemas s ON s.schema_id = t.schema_id
            JOIN sys.partitions p ON p.object_id = t.object_id AND p.index_id IN (0, 1)
            WHERE t.is_ms_shipped = 0 GROUP BY s.name, t.name ORDER BY t.name
        """) == [("dbo", "heap", 3), ("hr", "Pay [x]", 1)]  # fmt: skip
        assert ask(c, """
            SELECT i.type_desc, i.is_unique, i.is_primary_key, col.name, ic.is_descending_key
            FROM sys.indexes i JOIN sys.index_columns ic
              ON ic.object_id = i.object_id AND ic.index_id = i.index_id
            JOIN sys.columns col ON col.object_id = ic.object_id AND col.column_id = ic.column_id
            WHERE i.object_id = OBJECT_ID(N'[hr].[Pay [x]]]') ORDER BY i.index_id, ic.key_ordinal
        """) == [("CLUSTERED", True, True, "a", False), ("CLUSTERED", True, True, "b", True),
                 ("NONCLUSTERED", True, False, "t", False)]  # fmt: skip
        assert ask(c, "SELECT name, snapshot_isolation_state, is_read_committed_snapshot_on, "
                      "compatibility_level FROM sys.databases WHERE name = DB_NAME()") == [
            (server.database, 1, False, 160)]  # fmt: skip
        assert ask(c, "SELECT name, definition FROM sys.computed_columns") == [("c", "(b * 2)")]
        assert ask(c, "SELECT ty.name FROM sys.columns c JOIN sys.types ty ON "
                      "ty.user_type_id = c.user_type_id WHERE c.name = 'z'") == [("xml",)]  # fmt: skip


def test_views_that_are_missing_or_refused(server: MssqlSandbox) -> None:
    """208, 262 with 297, 229: as the server words them; other views can still be read."""
    server.switch_off_view("sys.partitions")
    server.refuse_view("sys.dm_db_partition_stats", 262)
    server.refuse_view("sys.databases", 229)
    with connect(server) as c:
        fails_with(208, c, "SELECT * FROM sys.partitions")
        fails_with(297, c, "SELECT * FROM sys.dm_db_partition_stats")
        fails_with(229, c, "SELECT * FROM sys.databases")
        assert ask(c, "SELECT COUNT(*) FROM sys.tables") == [(0,)]


def test_table_that_may_not_be_read(busy: MssqlSandbox) -> None:
    """229 with the names; a hidden table is not in the catalog views either."""
    busy.deny("dbo.b")
    with connect(busy) as c:
        fails_with(229, c, "SELECT * FROM dbo.b")
        assert ask(c, "SELECT COUNT(*) FROM INFORMATION_SCHEMA.TABLES") == [(1,)]
        busy.deny("dbo.b", hidden=True)
        assert ask(c, "SELECT COUNT(*) FROM INFORMATION_SCHEMA.TABLES") == [(0,)]
        busy.grant("dbo.b")
        assert len(ask(c, "SELECT * FROM dbo.b")) == 500


# Streaming


def test_many_rows_with_flat_memory(server: MssqlSandbox) -> None:
    """200,000 rows are streamed; the server holds none of them."""
    import resource

    count = 200_000
    server.create_table("dbo", "big", [("id", "int", False), ("t", "nvarchar(40)")], key=["id"],
                        rows=((i, "some text of this row") for i in range(count)))  # fmt: skip
    with connect(server) as c, c.cursor() as cursor:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        cursor.execute("SELECT id, t FROM dbo.big ORDER BY id")
        total, number = 0, 0
        while rows := cursor.fetchmany(5000):
            total += sum(row[0] for row in rows)
            number += len(rows)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (number, total) == (count, count * (count - 1) // 2)
    assert grown < 16_000  # kB; the rows take 12 MB on the wire, far more as Python objects


def test_a_reader_that_stops_reading_stops_the_server(server: MssqlSandbox) -> None:
    """Back-pressure: rows are made as they are taken."""
    server.create_table("dbo", "wide", [("id", "int", False), ("t", "varchar(8000)")], key=["id"],
                        rows=((i, "x" * 8000) for i in range(4000)))  # fmt: skip
    reached = faults.call(lambda: None, after_rows=3900, match="FROM dbo.wide")
    server.faults.add(reached)
    with connect(server) as c, c.cursor() as cursor:
        cursor.execute("SELECT id, t FROM dbo.wide ORDER BY id")
        cursor.fetchmany(10)
        assert not reached.reached.wait(0.05)
        assert len(cursor.fetchall()) == 3990
        assert reached.reached.is_set()


def test_attention_ends_a_result(server: MssqlSandbox) -> None:
    """After a cancel in mid-result the connection takes the next statement."""
    server.create_table("dbo", "big", [("id", "int", False)], key=["id"],
                        rows=((i,) for i in range(50_000)))  # fmt: skip
    with connect(server) as c:
        for _ in range(3):
            with c.cursor() as cursor:
                cursor.execute("SELECT id FROM dbo.big ORDER BY id")
                assert cursor.fetchone() == (0,)
                cursor.cancel()
            assert ask(c, "SELECT COUNT(*) FROM dbo.big") == [(50_000,)]


def test_timeout_then_attention(busy: MssqlSandbox) -> None:
    """A stalled statement times out at the client; it gets a response to its cancel."""
    stalled = faults.stall(match="FROM dbo.b")
    busy.faults.add(stalled)
    with connect(busy, timeout=0.2) as c:
        with pytest.raises(tds_base.TimeoutError):
            ask(c, "SELECT * FROM dbo.b")
        assert stalled.reached.is_set()


# Fragments


@pytest.fixture
def whole_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client reads a value in at most two pieces, and gets it wrong when there are more."""

    def read_all(stream: Any, size: int) -> tuple[bytes, int]:
        return tds_base.readall(stream, size), 0

    monkeypatch.setattr(tds_reader, "readall_fast", read_all)


@pytest.mark.usefixtures("whole_values")
@pytest.mark.parametrize(
    "cut",
    [
        Fragmentation(packet=(1, 1)),
        Fragmentation(packet=(1, 9), seed=3),
        Fragmentation(packet=(3, 700), segments=(1, 5, 2)),
        Fragmentation(segments=(7, 1, 4096, 3)),
    ],
    ids=["one byte", "tiny", "both", "segments"],
)
@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_fragments(server: MssqlSandbox, cut: Fragmentation, secure: bool) -> None:
    """Values that straddle many short packets and segments arrive whole."""
    rows = [(i, f"text {i} ł", uuid.UUID(int=i), Decimal(i) / 7, b"\1" * i) for i in range(60)]
    rows = [(i, t, g, d.quantize(Decimal("1.0000000000")), b) for i, t, g, d, b in rows]
    server.create_table(
        "dbo", "f",
        [("id", "int"), ("t", "nvarchar(max)"), ("g", "uniqueidentifier"), ("d", "decimal(38,10)"),
         ("b", "varbinary(99)")], key=["id"], rows=rows,
    )  # fmt: skip
    server.fragmentation = cut
    options = {"cafile": str(server.ca_file())} if secure else {}
    with connect(server, **options) as c:
        assert ask(c, "SELECT * FROM dbo.f ORDER BY id") == rows


def test_short_packets_show_the_clients_fault(server: MssqlSandbox) -> None:
    """Without the guard the client reads stale bytes: what the simulator is there to show."""
    server.create_table("dbo", "f", [("id", "bigint")], rows=[(i * 10**12,) for i in range(50)])
    server.fragmentation = Fragmentation(packet=(3, 3))
    with connect(server) as c:
        try:
            got = ask(c, "SELECT id FROM dbo.f ORDER BY id")
        except Exception:  # it may also lose its way in the stream
            return
        assert got != [(i * 10**12,) for i in range(50)]


# Faults


def test_errors_on_demand(busy: MssqlSandbox) -> None:
    """Any number, before a row or after some, once or several times."""
    busy.faults.add(
        faults.fail(1205, 51, match="FROM dbo.b", times=2), faults.fail(1222, after_rows=3)
    )
    with connect(busy) as c:
        for _ in range(2):
            fails_with(1205, c, "SELECT id FROM dbo.b")
        with c.cursor() as cursor:
            cursor.execute("SELECT id FROM dbo.b ORDER BY id")
            got = []
            with pytest.raises(tds_base.Error) as caught:
                while row := cursor.fetchone():
                    got.append(row[0])
        assert (number_of(caught.value), got) == (1222, [0, 1, 2])
        assert len(ask(c, "SELECT id FROM dbo.b")) == 500
        assert busy.faults.pending == 0


def test_deadlock_rolls_the_transaction_back(busy: MssqlSandbox) -> None:
    """After 1205 there is no transaction."""
    with connect(busy, autocommit=False) as c:
        ask_nothing(c, "UPDATE dbo.b SET v = 5 WHERE id = 1")
        busy.faults.add(faults.fail(1205, 51))
        fails_with(1205, c, "SELECT id FROM dbo.b")
        assert ask(c, "SELECT v FROM dbo.b WHERE id = 1") == [(0,)]


@pytest.mark.usefixtures("whole_values")
@pytest.mark.parametrize("cut", ["row_end", "row", "packet"])
def test_dropped_connections(busy: MssqlSandbox, cut: str) -> None:
    """The connection ends after some rows, in mid-row, or in mid-packet."""
    busy.faults.add(faults.drop(after_rows=5, cut=cut))
    c = connect(busy)
    got = []
    with pytest.raises((tds_base.Error, OSError)), c.cursor() as cursor:
        cursor.execute("SELECT id FROM dbo.b ORDER BY id")
        while row := cursor.fetchone():
            got.append(row[0])
    c.close()
    assert got == [0, 1, 2, 3, 4]
    with connect(busy) as again:
        assert len(ask(again, "SELECT id FROM dbo.b")) == 500


def test_stall_after_rows_and_release(busy: MssqlSandbox) -> None:
    """Silence in mid-result; the test ends it."""
    stalled = faults.stall(after_rows=5)
    busy.faults.add(stalled)
    with connect(busy) as c, c.cursor() as cursor:
        cursor.execute("SELECT id FROM dbo.b ORDER BY id")
        assert [cursor.fetchone()[0] for _ in range(5)] == [0, 1, 2, 3, 4]
        assert stalled.reached.wait(5)
        stalled.gate.set()
        assert len(cursor.fetchall()) == 495


def test_undecodable_row(busy: MssqlSandbox) -> None:
    """The client fails at that row, after the ones before it."""
    busy.create_table("dbo", "u", [("id", "int", False), ("at", "datetime2(7)")], key=["id"],
                      rows=[(i, "2024-01-01") for i in range(9)])  # fmt: skip
    busy.faults.add(faults.bad_row(after_rows=4, match="FROM dbo.u"))
    busy.corrupt("dbo.u", "at", {"id": 7})
    for wanted in (4, 7):
        c = connect(busy)
        got = []
        with pytest.raises((OverflowError, ValueError)), c.cursor() as cursor:
            cursor.execute("SELECT id, at FROM dbo.u ORDER BY id")
            while row := cursor.fetchone():
                got.append(row[0])
        assert got == list(range(wanted))
        c.close()


def test_faults_of_logins(server: MssqlSandbox) -> None:
    """Errors, a refused connection, and a login that hangs."""
    server.faults.add_login(faults.fail(40613, server.database), faults.drop(), faults.stall())
    assert number_of(refused(server)) == 40613
    assert isinstance(refused(server), (tds_base.ClosedConnectionError, ConnectionError))
    assert isinstance(refused(server), (tds_base.TimeoutError, TimeoutError))
    with connect(server) as c:
        assert ask(c, "SELECT 1 AS one") == [(1,)]


def test_paused_server_refuses_and_comes_back(busy: MssqlSandbox) -> None:
    """A pause ends connections and refuses new ones; the port stays the same."""
    port = busy.port
    c = connect(busy)
    busy.pause()
    with pytest.raises((tds_base.Error, OSError)):
        ask(c, "SELECT 1 AS one")
    c.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((busy.host, port), timeout=2)
    busy.start()
    assert busy.port == port
    with connect(busy) as again:
        assert ask(again, "SELECT COUNT(*) FROM dbo.b") == [(500,)]


def test_statements_are_logged(busy: MssqlSandbox) -> None:
    """Each request with its parameters."""
    with connect(busy) as c:
        ask(c, "SELECT id FROM dbo.b WHERE id = %s", (7,))
    (entry,) = busy.statements
    assert entry.sql == "SELECT id FROM dbo.b WHERE id = @P1"
    assert list(entry.parameters.values()) == [7]


def test_several_clients_at_once(busy: MssqlSandbox) -> None:
    """A thread for each connection."""
    results: list[int] = []

    def read() -> None:
        with connect(busy) as c:
            results.append(len(ask(c, "SELECT id FROM dbo.b")))

    threads = [threading.Thread(target=read) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [500] * 8


# Change tracking


def test_change_tracking(server: MssqlSandbox) -> None:
    """Net changes since a version, deletes and key changes, expiry and truncation."""
    server.info.tracking = True
    server.create_table("dbo", "t", [("id", "int", False), ("v", "int")], key=["id"],
                        rows=[(i, 0) for i in range(5)])  # fmt: skip
    server.execute("ALTER TABLE dbo.t ENABLE CHANGE_TRACKING WITH (TRACK_COLUMNS_UPDATED = OFF)")
    with connect(server) as c:
        ((start,),) = ask(c, "SELECT CHANGE_TRACKING_CURRENT_VERSION()")
        server.update("dbo.t", {"id": 1}, v=1)
        server.insert("dbo.t", [(10, 0)])
        server.delete("dbo.t", {"id": 2})
        server.update("dbo.t", {"id": 3}, id=30)
        changes = (
            "SELECT CT.id, CT.SYS_CHANGE_OPERATION, t.v FROM CHANGETABLE(CHANGES [dbo].[t], %s) AS CT "
            "LEFT JOIN dbo.t AS t ON t.id = CT.id ORDER BY CT.id"
        )
        assert ask(c, changes, (start,)) == [
            (1, "U", 1), (2, "D", None), (3, "D", None), (10, "I", 0), (30, "I", 0)]  # fmt: skip
        ((now,),) = ask(c, "SELECT CHANGE_TRACKING_CURRENT_VERSION()")
        assert ask(c, changes, (now,)) == []
        valid = "SELECT CHANGE_TRACKING_MIN_VALID_VERSION(OBJECT_ID('dbo.t'))"
        assert ask(c, valid) == [(start,)]
        server.store.expire_tracking(server.table("dbo.t"))
        assert ask(c, valid) == [(now,)]
        server.execute("TRUNCATE TABLE dbo.t")
        assert ask(c, valid)[0][0] > now
        fails_with(22105, c, "SELECT * FROM CHANGETABLE(CHANGES dbo.nothing, 0) AS x") if (
            server.store.tables.get(("dbo", "nothing"))
        ) else fails_with(208, c, "SELECT * FROM CHANGETABLE(CHANGES dbo.nothing, 0) AS x")


# Seed and adapter


def test_seeded_ehr(server: MssqlSandbox) -> None:
    """The same seed gives the same rows; the shapes that a connector must survive are there."""
    seeded = seed_ehr(server, patients=60, seed=3)
    with MssqlSandbox() as other:
        seed_ehr(other, patients=60, seed=3)
        for name in seeded.rows:
            assert server.execute(f"SELECT * FROM {name}") == other.execute(
                f"SELECT * FROM {name}"
            )
    assert seeded.rows["dbo.Results"] == 300
    with connect(server) as c:
        assert ask(c, "SELECT TABLE_SCHEMA FROM INFORMATION_SCHEMA.TABLES WHERE TABLE_NAME = "
                      "'Patients' ORDER BY 1") == [("archive",), ("dbo",)]  # fmt: skip
        cost = "[Total ]] Cost (USD)]"
        ((total,),) = ask(c, f"SELECT SUM({cost}) FROM dbo.Encounters")
        assert total > 0
        for name, count in seeded.rows.items():
            assert len(ask(c, f"SELECT * FROM {name}")) == count


def test_adapter_has_the_same_interface(server: MssqlSandbox) -> None:
    """The T-SQL that the adapter sends makes the same tables, here on the simulator."""
    with RealServer(server.host, server.port, server.user, server.password) as other:
        seed_ehr(other, patients=30, seed=5)
        seed_ehr(server, patients=30, seed=5)
        for name in (
            "dbo.Patients",
            "dbo.Orders",
            "dbo.Results",
            "dbo.Encounters",
            "dbo.AccessLog",
        ):
            columns = [c.name for c in server.table(name).columns]
            listed = ", ".join(quote(c) + (".ToString()" if c == "Path" else "") for c in columns)
            sql = f"SELECT {listed} FROM {name}"
            with connect(server) as c:
                assert other.execute(sql) == ask(c, sql)
        assert other.update("dbo.Patients", {"PatientKey": 3}, LastName="Neu", DeathDate=None) == 1
        assert other.delete("dbo.Patients", {"PatientKey": 4}) == 1
        assert other.count("dbo.Patients") == 29
        assert other.execute(
            "SELECT LastName FROM dbo.Patients WHERE PatientKey = %(key)s", {"key": 3}
        ) == [("Neu",)]


def test_server_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without MSSQL_TEST_SERVER there is the sandbox, with it the adapter."""
    monkeypatch.delenv("MSSQL_TEST_SERVER", raising=False)
    with from_environment() as found:
        assert isinstance(found, MssqlSandbox)
    for name, value in {"SERVER": "h", "PORT": "7", "USER": "u", "PASSWORD": "p"}.items():
        monkeypatch.setenv(f"MSSQL_TEST_{name}", value)
    named = from_environment()
    assert isinstance(named, RealServer)
    assert (named.host, named.port) == ("h", 7)


@pytest.mark.posix
def test_command_line() -> None:
    """`python -m tests.sandbox.mssql` serves the seeded database until it is interrupted."""
    command = [sys.executable, "-m", "tests.sandbox.mssql", "--patients", "20"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        facts: dict[str, str] = {}
        for line in process.stdout:
            name, _, value = line.strip().partition("  ")
            facts[name] = value.strip()
            if line.startswith("Ctrl-C"):
                break
        with pytds.connect(
            facts["host"], port=int(facts["port"]), user=facts["user"], password=facts["password"],
            database=facts["database"], cafile=facts["CA file"], validate_host=False,
        ) as c:  # fmt: skip
            assert ask(c, "SELECT COUNT(*) FROM dbo.Patients") == [(20,)]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


def test_ca_file_is_pem(server: MssqlSandbox) -> None:
    """The CA can be handed over as text or as a file."""
    assert Path(server.ca_file()).read_text() == server.ca_pem
    assert server.ca_pem.startswith("-----BEGIN CERTIFICATE-----")


# Columns that a login sees otherwise than the owner, and tables that change


def test_columns_that_are_masked_encrypted_or_refused(server: MssqlSandbox) -> None:
    """As sys.columns tells them, and as a login without further rights reads them."""
    names = ["id", "masked", "secret", "denied", "inner_id", "typed"]
    columns = [(name, "nvarchar(20)") for name in names]
    server.create_table("dbo", "t", columns, rows=[("1", "m", "s", "d", "g", "u")])
    for name, fact in zip(names[1:4], ("masked", "encrypted", "denied"), strict=True):
        server.mark("dbo.t", name, **{fact: True})
    server.mark("dbo.t", "inner_id", graph=1)
    server.mark("dbo.t", "typed", type_hidden=True)
    with connect(server) as c:
        assert ask(c, "SELECT id, masked, typed FROM dbo.t") == [("1", "xxxx", "u")]
        [(secret,)] = ask(c, "SELECT secret FROM dbo.t")
        assert isinstance(secret, bytes)
        for name, number in (("denied", 230), ("inner_id", 13908)):
            with pytest.raises(pytds.DatabaseError) as caught:
                ask(c, f"SELECT {name} FROM dbo.t")
            assert caught.value.msg_no == number
        facts = ask(
            c,
            "SELECT name, CAST(is_masked AS int), encryption_type, graph_type, HAS_PERMS_BY_NAME("
            "'dbo.t', 'OBJECT', 'SELECT', name, 'COLUMN') FROM sys.columns ORDER BY column_id",
        )
        assert facts == [
            ("id", 0, None, None, 1),
            ("masked", 1, None, None, 1),
            ("secret", 0, 2, None, 1),
            ("denied", 0, None, None, 0),
            ("inner_id", 0, None, 1, 1),
            ("typed", 0, None, None, 1),
        ]
        found = ask(c, "SELECT DATA_TYPE FROM INFORMATION_SCHEMA.COLUMNS ORDER BY COLUMN_NAME")
        assert found.count((None,)) == 1
        server.info.unmask = True
        assert ask(c, "SELECT masked FROM dbo.t") == [("m",)]


def test_names_that_differ_in_case_only() -> None:
    """Two tables where the database tells cases apart, one where it does not."""
    with MssqlSandbox(collation_name="Latin1_General_CS_AS") as server:
        for name in ("Visits", "visits"):
            server.create_table("dbo", name, [("id", "int")], key=["id"], rows=[(len(name),)])
        server.insert("dbo.visits", [(7,)])
        with connect(server) as c:
            assert ask(c, "SELECT COUNT(*) FROM dbo.Visits") == [(1,)]
            assert ask(c, "SELECT COUNT(*) FROM dbo.visits") == [(2,)]


def test_keys_are_dropped_disabled_and_renamed(server: MssqlSandbox) -> None:
    """As the catalog views show them afterwards."""
    server.create_table("dbo", "t", [("id", "int", False), ("b", "int", False)], key=["id"])
    server.execute("CREATE UNIQUE INDEX UX ON dbo.t (b)")
    server.execute("ALTER INDEX UX ON dbo.t DISABLE")
    disabled = "SELECT CAST(is_disabled AS int) FROM sys.indexes WHERE name = 'UX'"
    with connect(server) as c:
        assert ask(c, disabled) == [(1,)]
        server.execute("ALTER INDEX UX ON dbo.t REBUILD")
        assert ask(c, disabled) == [(0,)]
        keys = "SELECT COLUMN_NAME FROM INFORMATION_SCHEMA.KEY_COLUMN_USAGE"
        server.execute("EXEC sp_rename 'dbo.t.id', 'number', 'COLUMN'")
        assert ask(c, keys) == [("number",)]
        server.execute("ALTER TABLE dbo.t DROP CONSTRAINT PK_t")
        assert ask(c, keys) == []
        server.execute("EXEC sp_rename 'dbo.t', 'u'")
        assert ask(c, "SELECT number FROM dbo.u") == []


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
