# ruff: noqa: E501, S608 - statements stay whole
"""Digests, sums and counts of a window, pages, windows over rows: what a reader compares."""

from __future__ import annotations

import hashlib
from decimal import Decimal

import pytest

from tests.sandbox.mssql import ColumnSpec, MssqlSandbox
from tests.sandbox.mssql.adapter import RealServer
from tests.sandbox.mssql.tests.client import ask, connect, fails_with

Source = MssqlSandbox | RealServer


@pytest.mark.source
def test_hashbytes(source: Source) -> None:
    """The bytes are hashed as the type keeps them: UTF-16, the code page, or as they are."""
    with connect(source) as c:
        for algorithm, make in (
            ("SHA2_256", hashlib.sha256),
            ("SHA2_512", hashlib.sha512),
            ("SHA1", hashlib.sha1),
            ("MD5", hashlib.md5),
        ):
            [row] = ask(
                c,
                f"SELECT HASHBYTES('{algorithm}', N'ü'), HASHBYTES('{algorithm}', 'ü'), "
                f"HASHBYTES('{algorithm}', 0x00FF), HASHBYTES('{algorithm}', CAST(NULL AS nvarchar(9))), "
                f"HASHBYTES('{algorithm}', REPLICATE(CAST(N'x' AS nvarchar(max)), 9000))",
            )
            raw = [b"\xfc\x00", b"\xfc", b"\x00\xff", b"x\x00" * 9000]
            digests = [make(part).digest() for part in raw]
            assert row == (*digests[:3], None, digests[3])
        fails_with(8116, c, "SELECT HASHBYTES('MD5', 1) AS h")


@pytest.mark.source
def test_bytes_to_numbers_and_back(source: Source) -> None:
    """The last bytes count, big-endian, in two's complement."""
    cases = {
        "CONVERT(bigint, 0x0102)": 258,
        "CONVERT(bigint, 0xFFFFFFFFFFFFFFFE)": -2,
        "CONVERT(bigint, 0x01FFFFFFFFFFFFFFFF)": -1,
        "CONVERT(int, 0x01FFFFFFFE)": -2,
        "CONVERT(bigint, SUBSTRING(0x0102030405, 2, 2))": 0x0203,
        "SUBSTRING(0x010203, 2, 9)": b"\x02\x03",
        "DATALENGTH(SUBSTRING(CAST(0x01 AS binary(8)), 1, 3))": 3,
        "CONVERT(binary(8), -2)": b"\0\0\0\0\xff\xff\xff\xfe",
        "CONVERT(varbinary(8), CAST(258 AS bigint))": b"\0\0\0\0\0\0\x01\x02",
        "CONVERT(varbinary(2), 66051)": b"\x02\x03",
        "CAST(CAST(9223372036854775807 AS bigint) AS decimal(38,0))": Decimal(2**63 - 1),
    }
    with connect(source) as c:
        for expression, wanted in cases.items():
            assert ask(c, f"SELECT {expression} AS v") == [(wanted,)], expression
        fails_with(537, c, "SELECT SUBSTRING(0x0102, 1, -1) AS v")


@pytest.mark.source
def test_sums_are_exact_or_overflow(source: Source) -> None:
    """decimal(38,0) sums beyond 64 bits; what does not fit is 8115."""
    most = 2**63 - 1
    source.create_table(
        "dbo", "s", [("id", "int"), ("b", "bigint"), ("d", "decimal(18,0)"), ("w", "decimal(38,0)")],
        key=["id"], rows=[(i, most, 10**18 - 1, 4 * 10**37) for i in range(20)],
    )  # fmt: skip
    with connect(source) as c:
        sql = (
            "SELECT COUNT_BIG(*) AS n, SUM(CAST(b AS decimal(38,0))) AS b, SUM(d) AS d, MIN(id) AS a, "
            "MAX(b) AS z, SUM(DISTINCT d) AS u FROM dbo.s WHERE id >= %s"
        )
        one = Decimal(10**18 - 1)
        assert ask(c, sql, (0,)) == [(20, Decimal(20 * most), 20 * one, 0, most, one)]
        assert ask(c, sql, (20,)) == [(0, None, None, None, None, None)]
        assert ask(c, "SELECT SUM(b) AS b, SUM(w) AS w FROM dbo.s WHERE id < 1") == [
            (most, Decimal(4 * 10**37))
        ]
        for column in ("b", "w"):
            fails_with(8115, c, f"SELECT SUM({column}) AS s FROM dbo.s")


@pytest.mark.source
def test_concatenation(source: Source) -> None:
    """NULL is empty, the type follows the arguments, CONCAT_WS leaves nulls out."""
    cases = {
        "CONCAT(1, NULL, 'a', CAST(NULL AS int), CAST(-2.50 AS decimal(9,2)))": "1a-2.50",
        "CONCAT(NULL, NULL)": "",
        "DATALENGTH(CONCAT('a', 1))": 2,
        "DATALENGTH(CONCAT('a', N'b'))": 4,
        "CONCAT_WS('|', 1, NULL, 'b', N'ü')": "1|b|ü",
        "CONCAT_WS(NULL, 'a', 'b')": "ab",
        "CONCAT('a', 0x4142)": "aAB",
        "CONCAT(N'a', 0x41004200)": "aAB",
    }
    with connect(source) as c:
        for expression, wanted in cases.items():
            assert ask(c, f"SELECT {expression} AS v") == [(wanted,)], expression
        fails_with(189, c, "SELECT CONCAT('a') AS v")


KINDS = {
    "int": (-7, "-7", "FFFFFFF9"),
    "bigint": (2**40, "1099511627776", "0000010000000000"),
    "bit": (True, "1", "01"),
    "uniqueidentifier": (
        "6F9619FF-8B86-D011-B42D-00C04FC964FF",
        "6F9619FF-8B86-D011-B42D-00C04FC964FF",
        "FF19966F868B11D0B42D00C04FC964FF",
    ),
    "varchar(20)": ("aü", "aü", "61FC"),
    "nvarchar(20)": ("aü", "aü", "6100FC00"),
    "date": ("2024-01-02", "2024-01-02", "46460B"),
    "datetime": ("2024-01-02T03:04:05.123", "2024-01-02 03:04:05.123", "0000B0EB00328F81"),
    "smalldatetime": ("2024-01-02T03:04:00", "2024-01-02 03:04:00.000", "B0EB00B8"),
    "datetime2(7)": ("2024-01-02T00:00:00.0000001", "2024-01-02 00:00:00.0000001", "07010000000046460B"),
    "datetimeoffset(7)": (
        "2024-01-02T02:00:00.0000001+02:00",
        "2024-01-02 02:00:00.0000001 +02:00",
        "07010000000046460B7800",
    ),
    "time(7)": ("00:00:00.0000001", "00:00:00.0000001", "070100000000"),
    "decimal(10,4)": (Decimal("-126"), "-126.0000", "0A040000E0391300"),
    "binary(4)": (b"\x01\x02", "01020000", "01020000"),
}  # fmt: skip


@pytest.mark.source
def test_every_type_as_text_and_bytes(source: Source) -> None:
    """In style 121, or 2 for bytes; the layouts that CAST(... AS varbinary) gives."""
    columns = [ColumnSpec("id", "int"), *(ColumnSpec(f"c{i}", t) for i, t in enumerate(KINDS))]
    columns.append(ColumnSpec("r", "rowversion"))
    source.create_table("dbo", "k", columns, key=["id"],
                        rows=[(1, *(given for given, _, _ in KINDS.values()))])  # fmt: skip
    with connect(source) as c:
        for place, (kind, (_, text, raw)) in enumerate(KINDS.items()):
            style = (
                ", 2"
                if kind == "binary(4)"
                else ", 121"
                if "date" in kind or "time" in kind
                else ""
            )
            [row] = ask(
                c,
                f"SELECT CONVERT(nvarchar(64), c{place}{style}), CONVERT(varbinary(64), c{place}), "
                f"HASHBYTES('SHA2_256', CONCAT(CONVERT(nvarchar(64), c{place}{style}), N'|')) "
                "FROM dbo.k",
            )
            digest = hashlib.sha256(f"{text}|".encode("utf-16-le")).digest()
            assert row == (text, bytes.fromhex(raw), digest), kind
        version = "SELECT CONVERT(nvarchar(64), r, 1), CONVERT(varbinary(8), r), CONVERT(bigint, r) FROM dbo.k"
        [(text, raw_version, number)] = ask(c, version)
        assert text == "0x" + raw_version.hex().upper()
        assert number == int.from_bytes(raw_version, "big")


@pytest.mark.source
def test_digest_of_a_window(source: Source) -> None:
    """Count, sum of hashes and greatest cursor of the rows from a moment on, in one statement."""
    rows = [(i, f"2024-01-01T00:00:{i:02d}.0000001") for i in range(40)]
    source.create_table("dbo", "t", [("id", "int"), ("at", "datetime2(7)")], key=["id"], rows=rows)
    sql = (
        "SELECT COUNT_BIG(*) AS n, SUM(CONVERT(decimal(38,0), CONVERT(bigint, SUBSTRING(HASHBYTES("
        "'SHA2_256', CONCAT(CONVERT(nvarchar(64), T.[id]), N'|', CONVERT(nvarchar(64), T.[at], 121))), "
        "1, 8)))) AS h, CONVERT(varchar(27), MAX(T.[at]), 121) AS greatest "
        "FROM [dbo].[t] AS T WHERE T.[at] >= CAST(%s AS datetime2(7))"
    )

    def digest(number: int) -> int:
        text = f"{number}|2024-01-01 00:00:{number:02d}.0000001".encode("utf-16-le")
        return int.from_bytes(hashlib.sha256(text).digest()[:8], "big", signed=True)

    with connect(source) as c:
        assert ask(c, sql, ("2024-01-01T00:00:07.0000001",)) == [
            (33, Decimal(sum(map(digest, range(7, 40)))), "2024-01-01 00:00:39.0000001")
        ]


@pytest.mark.source
def test_top_of_many_rows_by_literal_and_parameter(source: Source) -> None:
    """A page by keyset, its size written out or a parameter."""
    source.create_table("dbo", "t", [("id", "int"), ("v", "nvarchar(9)")], key=["id"],
                        rows=[(i, "v") for i in range(3000)])  # fmt: skip
    with connect(source) as c:
        page = "SELECT TOP ({}) id, v FROM dbo.t WHERE id > %s ORDER BY id"
        wanted = [(i, "v") for i in range(101, 2101)]
        assert ask(c, page.format("2000"), (100,)) == wanted
        assert ask(c, page.format("%s"), (2000, 100)) == wanted


@pytest.mark.source
def test_several_selects_and_subqueries(source: Source) -> None:
    """UNION ALL of TOP (1), EXISTS, CROSS APPLY (VALUES ...)."""
    source.create_table("dbo", "a", [("id", "int"), ("v", "int")], key=["id"],
                        rows=[(i, i * 10) for i in range(5)])  # fmt: skip
    source.create_table("dbo", "b", [("id", "int")], key=["id"], rows=[(2,), (9,)])
    with connect(source) as c:
        assert ask(
            c,
            "SELECT TOP (1) 'a' AS t, id FROM dbo.a WHERE id > 1 UNION ALL SELECT TOP (1) 'b', id FROM dbo.b WHERE id > 5 "
            "UNION ALL SELECT TOP (1) 'c', id FROM dbo.b WHERE id > 50",
        ) == [("a", 2), ("b", 9)]
        assert ask(
            c,
            "SELECT 'a' AS t, CASE WHEN EXISTS (SELECT 1 FROM dbo.a WHERE v = 30) THEN 1 ELSE 0 END AS e "
            "UNION ALL SELECT 'b', CASE WHEN EXISTS (SELECT TOP (1) id FROM dbo.b WHERE id = 3) THEN 1 ELSE 0 END",
        ) == [("a", 1), ("b", 0)]
        both = "EXISTS (SELECT 1 FROM dbo.b AS b WHERE b.id = a.id)"
        assert ask(c, f"SELECT id FROM dbo.a AS a WHERE {both}") == [(2,)]
        assert ask(c, f"SELECT COUNT(*) AS n FROM dbo.a AS a WHERE NOT {both}") == [(4,)]
        assert ask(
            c,
            "SELECT a.id, x.k, x.w FROM dbo.a AS a CROSS APPLY (VALUES ('id', a.id), ('v', a.v)) AS x(k, w) "
            "WHERE a.id > 2 ORDER BY a.id, x.k",
        ) == [(3, "id", 3), (3, "v", 30), (4, "id", 4), (4, "v", 40)]


@pytest.mark.source
def test_gaps_and_islands(source: Source) -> None:
    """The ranges of an integer key, by the number of each row; neighbours by LAG and LEAD."""
    keys = [-3, -2, 5, 7, 8, 9, 2**40]
    source.create_table("dbo", "g", [("k", "bigint")], key=["k"], rows=[(k,) for k in keys])
    with connect(source) as c:
        assert ask(
            c,
            "SELECT MIN(k) AS low, MAX(k) AS high FROM (SELECT k, k - ROW_NUMBER() OVER (ORDER BY k) AS g "
            "FROM dbo.g) AS x GROUP BY g ORDER BY MIN(k)",
        ) == [(-3, -2), (5, 5), (7, 9), (2**40, 2**40)]
        assert ask(
            c,
            "SELECT k, LAG(k) OVER (ORDER BY k), LEAD(k, 2, 0) OVER (ORDER BY k) FROM dbo.g WHERE k < 9 ORDER BY k",
        ) == [(-3, None, 5), (-2, -3, 7), (5, -2, 8), (7, 5, 0), (8, 7, 0)]
        fails_with(4112, c, "SELECT ROW_NUMBER() OVER () AS n FROM dbo.g")
