"""mssql_ehi: servers that respond, fail and change in ways that a connector must survive."""

import re
import socket
import threading
import time
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest

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
from tests.sandbox.fivetran import Project, Result, load
from tests.sandbox.mssql import MssqlSandbox, connection, faults, wire
from tests.width import wide

pytestmark = pytest.mark.usefixtures("slept")
load("mssql_ehi")  # makes its modules importable
schema, type_mapping, table_sync, query, session = map(
    import_module,
    (
        "sqlserver.schema",
        "sqlserver.type_mapping",
        "sqlserver.table_sync",
        "sqlserver.query",
        "sqlserver.session",
    ),
)


# Responses


@pytest.mark.usefixtures("small_steps")
def test_columns_named_like_the_aliases_of_a_statement(
    project: Project, server: MssqlSandbox
) -> None:
    """ORDER BY means the table's columns, not what the statement calls its own."""
    columns: Columns = [("c1", "int", False), ("c0", "int"), ("ModifiedDate", "datetime2(7)")]
    rows = [(i, i * 37 % 200, NOW.replace(tzinfo=None)) for i in range(200)]
    server.create_table("dbo", "t", columns, key=["c1"], rows=rows)
    server.faults.add(faults.drop(DATA, after_rows=25, times=3))
    synced(project, server)
    assert ids(project, column="c_1") == list(range(200))


@pytest.mark.parametrize("form", ["in a procedure", "without the bit of an error"])
@pytest.mark.usefixtures("small_steps")
def test_an_error_behind_the_last_row_is_no_end(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """The driver leaves unread what follows the first end of rows."""

    def fail(self: Any, problems: Any, token: int) -> None:
        for problem in problems:
            self._reply.write(wire.message(wire.ERROR, problem, "sandbox"))
        if form == "in a procedure":
            self._reply.write(wire.done(wire.DONEINPROC, wire.DONE_MORE))
            self._reply.write(wire.done(token, wire.DONE_ERROR))
        else:
            self._reply.write(wire.done(token, 0))

    create_timed(server, moments(100))
    monkeypatch.setattr(connection.Connection, "_fail", fail)
    server.faults.add(
        faults.drop(DATA, after_rows=25), faults.fail(1205, match=DATA, after_rows=7)
    )
    result = synced(project, server)
    assert "error 1205" in result.output
    assert ids(project) == list(range(100))


@pytest.mark.parametrize("status", [wire.DONE_SERVER_ERROR, *wide(wire.DONE_ERROR)])
@pytest.mark.parametrize("key", [["id"], []])
def test_an_error_without_a_message_is_no_end(
    project: Project,
    server: MssqlSandbox,
    monkeypatch: pytest.MonkeyPatch,
    status: int,
    key: list[str],
) -> None:
    """The rows that came are not all of them. [MS-TDS] 2.2.7.6 has an end in place of the error's,
    and demands no message before either."""
    columns: Columns = [("id", "int", False)]
    server.create_table("dbo", "t", columns, key=key, rows=[(i,) for i in range(100)])
    monkeypatch.setattr(
        connection.Connection,
        "_fail",
        lambda self, _, token: self._reply.write(wire.done(token, status)),
    )
    server.faults.add(faults.fail(1205, match=DATA, after_rows=47))
    output = synced(project, server).output
    assert "the server ended a response by an error without a message; retry 1 of 3" in output
    assert ids(project) == list(range(100))


@pytest.mark.parametrize("number", [3952, 41332])
def test_snapshot_isolation_is_given_up_where_it_is_refused(
    project: Project, server: MssqlSandbox, number: int
) -> None:
    """A table in memory, or a database that forbids it meanwhile, is read without."""
    create_plain(server)
    server.faults.add(faults.fail(number, match=DATA))
    output = synced(project, server).output
    assert f"error {number} of the server: from now on reads are READ COMMITTED" in output
    assert ids(project) == list(range(30))


def test_a_server_that_does_not_know_snapshots(project: Project, server: MssqlSandbox) -> None:
    """The statement that asks for them is refused."""
    create_plain(server)
    server.faults.add(faults.fail(102, match="ISOLATION LEVEL SNAPSHOT", times=9))
    assert "READ COMMITTED" in synced(project, server).output
    assert ids(project) == list(range(30))


@pytest.mark.parametrize("allowed", [True, False])
def test_isolation_is_snapshot_where_the_database_allows_it(
    project: Project, server: MssqlSandbox, allowed: bool
) -> None:
    """And never reads what is not committed."""
    server.info.snapshot = allowed
    create_plain(server)
    synced(project, server)
    sent = " ".join(statement.sql for statement in server.statements)
    assert ("ISOLATION LEVEL SNAPSHOT" in sent) == allowed
    assert "NOLOCK" not in sent
    assert "UNCOMMITTED" not in sent


def test_values_of_another_type_cost_their_column_only(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that ignores a CONVERT costs what it concerns, and no value is shown."""
    create_timed(server, moments(30))
    create_plain(server, name="u")
    native = type_mapping.TypeMapping("NAIVE_DATETIME", "{0}", type_mapping._moment)
    monkeypatch.setitem(type_mapping.TYPE_MAPPINGS, "datetime2", native)
    output = synced(project, server).output
    assert "30 of dbo.t.ModifiedDate" in output
    assert ids(project) == ids(project, "u") == list(range(30))


def test_a_defect_fails_its_table_only(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named by its type and place; its message, which may quote a value, is not shown."""
    create_plain(server)
    create_plain(server, name="u")
    original = table_sync.TableSync._finish

    def broken(sync: Any, *arguments: Any) -> None:
        if sync.plan.table.name == "t":
            raise KeyError("a value")
        original(sync, *arguments)

    monkeypatch.setattr(table_sync.TableSync, "_finish", broken)
    output = failed(project, server).output
    assert "dbo.t: an unexpected KeyError in broken, line" in output
    assert "a value" not in output
    assert ids(project, "u") == list(range(30))


# Faults


def test_one_silent_table_does_not_starve_the_others(
    project: Project, server: MssqlSandbox
) -> None:
    """A blocked writer blocks one table; the server still responds."""
    for name in ("a", "b", "c"):
        create_plain(server, name=name)
    server.faults.add(faults.stall(r"\[b\]", times=2))
    output = failed(project, server, query_timeout_seconds="1").output
    assert "1 of 3 tables failed" in output
    assert ids(project, "c") == list(range(30))


def test_a_silent_server_is_not_waited_for_at_each_table(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not tried is named."""
    monkeypatch.setattr(session, "_PROBE", 1.0)
    for name in ("a", "b", "c"):
        create_plain(server, name=name)
    server.faults.add(faults.stall(r"\[a\]", times=2), faults.stall("SELECT 1"))
    output = failed(project, server, query_timeout_seconds="1").output
    assert "the server did not respond in time, twice; query_timeout_seconds" in output
    assert "1 of 3 tables failed; not tried: dbo.b, dbo.c" in output
    server.faults.clear()
    synced(project, server)


@pytest.mark.usefixtures("small_steps")
def test_repeats_are_counted_since_the_last_progress(
    project: Project, server: MssqlSandbox, slept: list[float]
) -> None:
    """Fifteen fail-overs in one long read are no reason to give up."""
    create_plain(server, 400)
    server.faults.add(faults.drop(DATA, after_rows=25, times=15))
    synced(project, server, retry_attempts="1")
    assert ids(project) == list(range(400))
    assert len(slept) == 15


def test_a_password_that_changes_costs_one_login(project: Project, server: MssqlSandbox) -> None:
    """More of them would lock the login."""
    for number in range(9):
        create_plain(server, name=f"t{chr(97 + number)}")

    def change() -> None:
        server.password = "Another-Pass-2"
        server.drop_connections()

    server.faults.add(faults.call(change, r"\[tb\]"))
    given = configuration(server)
    result = project.sync(given)
    assert result.code == 1
    assert "Check mssql_user and mssql_password" in result.output
    assert len([login for login in server.logins if login.errors]) == 1


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH_8.9\r\n",
        b"\x04\x01\x00\x0c\0\0\0\0zzzz",
        b"\x04\x01\x00\x09\0\0\0\0\x01",
        b"\x15\x03\x03\x00\x02\x02\x46",
        b"",
    ],
    ids=["http", "ssh", "garbage", "short", "tls alert", "nothing"],
)
def test_what_is_no_sql_server(project: Project, response: bytes) -> None:
    """One sentence names the settings to look at."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    accepted, _ = listener.accept()
                except OSError:
                    return
                with accepted:
                    accepted.recv(4096)
                    accepted.sendall(response)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        result = _unreachable(project, port=listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert "mssql_server and mssql_port" in result.output or "mssql_port and" in result.output
    assert "UnexpectedError" not in result.output


def test_a_login_that_hangs(project: Project, server: MssqlSandbox, slept: list[float]) -> None:
    """`login_timeout_seconds` ends each attempt, and the attempts are counted."""
    create_plain(server)
    server.faults.add_login(*(faults.stall() for _ in range(2)))
    result = failed(project, server, login_timeout_seconds="1", retry_attempts="1")
    assert "Check mssql_server, mssql_port" in result.output
    assert result.seconds < 5
    assert len(slept) == 1


def test_a_host_name_that_is_none(project: Project) -> None:
    """It cannot even be looked up."""
    assert "Check" in _unreachable(project, server="a..b").output


def _unreachable(project: Project, server: str = "127.0.0.1", port: int = 1) -> Result:
    given = {"mssql_database": "d", "mssql_user": "u", "mssql_password": "Some-Pass-1"}
    result = project.sync(
        {**given, "mssql_server": server, "mssql_port": str(port), "login_timeout_seconds": "3"}
    )
    assert result.code == 1
    assert "Some-Pass-1" not in result.output
    return result


def test_a_plan_that_is_refused_for_good(project: Project, server: MssqlSandbox) -> None:
    """Sync by sync the table is read by its key, first load and all."""
    create_timed(server, moments(30))
    server.faults.add(faults.fail(8115, match=r"ORDER BY T\.\[ModifiedDate\]", times=99))
    for count in (30, 31, 32):
        synced(project, server)
        assert len(ids(project)) == count
        server.insert("dbo.t", [(count, NOW.replace(tzinfo=None))])


def test_endless_deadlocks_end_within_three_minutes(
    project: Project, server: MssqlSandbox, slept: list[float]
) -> None:
    """With the default settings, however many tables there are and whatever else succeeds."""
    for number in range(10):
        columns: Columns = [("id", "int", False), ("ModifiedDate", "datetime2(7)")]
        server.create_table("dbo", f"t{chr(97 + number)}", columns, key=["id"], rows=[(1, None)])
    server.faults.add(faults.fail(1205, match=DATA, times=999))
    failed(project, server)
    assert sum(slept) < 120


def test_a_clock_that_is_refused(project: Project, server: MssqlSandbox) -> None:
    """Without it there is no cursor, so the table is read in full."""
    create_timed(server, moments(30))
    server.faults.add(faults.fail(195, match="SYSUTCDATETIME", times=99))
    for _ in range(2):
        assert "in place of the incremental read" in synced(project, server).output
    assert ids(project) == list(range(30))


def test_what_cannot_be_decoded_where_there_is_no_row(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A response that the driver chokes on is no row to pass again and again."""
    create_plain(server, 0)
    original = session.Session.stream

    def stream(self: Any, sql: str, *arguments: Any) -> Any:
        if "AS T" in sql and "TOP" not in sql:
            raise import_module("sqlserver.errors").UndecodableRow(
                "reading: a row cannot be decoded"
            )
        return original(self, sql, *arguments)

    monkeypatch.setattr(session.Session, "stream", stream)
    assert "there is no row to skip" in failed(project, server).output


# Changes between syncs and within them


@pytest.mark.usefixtures("small_steps")
def test_a_plan_that_changes_during_a_first_load(project: Project, server: MssqlSandbox) -> None:
    """A position of the old plan is of no use to the new one, even of the same columns."""
    columns: Columns = [("ModifiedDate", "datetime2(7)", False), ("id", "int", False)]
    rows = [(moment, i) for i, moment in moments(100)]
    server.create_table("dbo", "t", columns, key=["ModifiedDate", "id"], rows=rows)
    server.faults.add(faults.drop(DATA, after_rows=25), faults.drop(DATA, after_rows=5))
    failed(project, server, retry_attempts="0", incremental_column="nothing")
    synced(project, server)
    assert ids(project) == list(range(100))
    assert table_state(project).cursor.moment is not None


def test_faults_at_the_catalogue_change_no_key(project: Project, server: MssqlSandbox) -> None:
    """A view that only fails for a while is no view that is missing."""
    server.create_table("dbo", "t", [("id", "int", False)], unique=[["id"]], rows=[(1,), (2,)])
    synced(project, server)
    server.faults.add(faults.fail(1205, match=r"sys\.indexes", times=4))
    assert "error 1205" in failed(project, server).output
    server.faults.clear()
    synced(project, server)
    assert ids(project) == [1, 2]


def test_a_catalogue_that_changes_while_it_is_read(project: Project, server: MssqlSandbox) -> None:
    """An index of a column that was not listed is left alone, as is a table without columns."""
    create_plain(server)

    def alter() -> None:
        server.execute("ALTER TABLE dbo.t ADD k int NOT NULL DEFAULT 0")
        server.execute("CREATE UNIQUE INDEX UK ON dbo.t (k, id)")

    server.faults.add(faults.call(alter, r"sys\.indexes"))
    server.faults.add(
        faults.call(lambda: create_plain(server, name="u"), r"INFORMATION_SCHEMA\.TABLES ")
    )
    synced(project, server)
    assert ids(project) == list(range(30))


@pytest.mark.parametrize("incremental", [True, False])
def test_a_catalogue_that_calls_a_primary_key_nullable(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch, incremental: bool
) -> None:
    """It is one all the same, in catalog views of other servers, too."""
    original = session.Session.rows

    def rows(self: Any, sql: str, parameters: Any = None) -> Any:
        found = original(self, sql, parameters)
        if "IS_NULLABLE" in sql:
            return [(*row[:3], "YES", *row[4:]) for row in found]
        return found

    monkeypatch.setattr(session.Session, "rows", rows)
    if incremental:
        create_timed(server, moments(30))
    else:
        create_plain(server)
    synced(project, server)
    assert reads(server, "t")[-1].endswith("ORDER BY T.[id]")
    server.execute("DELETE FROM dbo.t WHERE id = 29")
    synced(project, server)
    assert ("ORDER BY T.[ModifiedDate], T.[id]" in reads(server, "t")[-1]) == incremental
    assert reads(server, "t")[-1].endswith("T.[id]")


def test_rights_that_are_gone_forget_nothing(project: Project, server: MssqlSandbox) -> None:
    """A login that sees no table is no empty database."""
    create_timed(server, moments(30))
    synced(project, server)
    server.deny("dbo.t", hidden=True)
    assert "sees no table, and saw some at the last sync" in failed(project, server).output
    server.grant("dbo.t")
    result = synced(project, server, lookback_seconds="0")
    assert result.counts["Truncates"] == 0
    assert upserts(result) < 30 + 300


@pytest.mark.usefixtures("small_steps")
def test_a_new_column_in_an_unfinished_first_load(project: Project, server: MssqlSandbox) -> None:
    """The rows that were stored before have no value in it, and a warning says so."""
    create_timed(server, moments(100))
    server.faults.add(faults.drop(DATA, after_rows=55), faults.drop(DATA, after_rows=5))
    failed(project, server, retry_attempts="0")
    server.execute("ALTER TABLE dbo.t ADD extra int")
    assert "dbo.t: new columns (extra)" in synced(project, server).output


@pytest.mark.usefixtures("small_steps")
def test_few_bad_rows_at_the_beginning_of_many(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of a thousand are no tenth, wherever they stand, and after a resumption, too."""
    kind = replace(type_mapping.TYPE_MAPPINGS["nvarchar"], convert=take_no_bad_ones)
    monkeypatch.setitem(type_mapping.TYPE_MAPPINGS, "nvarchar", kind)
    rows = [(f"{'bad' if i in (1, 2, 3, 998) else 'k'}", i) for i in range(1000)]
    columns: Columns = [("k", "nvarchar(20)", False), ("id", "int", False)]
    server.create_table("dbo", "t", columns, key=["id", "k"], rows=rows)
    server.faults.add(faults.drop(DATA, after_rows=995), faults.drop(DATA, after_rows=1))
    failed(project, server, retry_attempts="0")
    synced(project, server)
    assert len(ids(project)) == 996


# Clocks


def test_an_hour_that_comes_twice(project: Project, server: MssqlSandbox) -> None:
    """In autumn a local clock goes back: what is stamped in the second hour arrives at once."""
    local = NOW.replace(tzinfo=None) + timedelta(hours=2)
    server.set_clock(NOW, 120)
    create_timed(server, [(1, local - timedelta(minutes=3))])
    synced(project, server)
    server.set_clock(NOW + timedelta(minutes=40), 60)  # 20 minutes before the last sync's time
    server.insert("dbo.t", [(2, local - timedelta(minutes=25))])
    result = synced(project, server, lookback_seconds="0")
    assert ids(project) == [1, 2]
    assert "ahead of the server's clock" not in result.output
    assert "T.[ModifiedDate] >=" in reads(server, "t")[-1]


def test_an_hour_that_comes_twice_and_a_sync_without_rows(
    project: Project, server: MssqlSandbox
) -> None:
    """The start that was taken back stays so."""
    local = NOW.replace(tzinfo=None) - timedelta(hours=4)
    server.set_clock(NOW, -240)
    create_timed(server, [(1, local - timedelta(minutes=3))])
    synced(project, server)
    server.delete("dbo.t", {"id": 1})
    server.set_clock(NOW + timedelta(minutes=40), -300)
    synced(project, server)
    server.insert("dbo.t", [(2, local - timedelta(minutes=15))])
    server.set_clock(NOW + timedelta(minutes=70), -300)
    synced(project, server)
    assert 2 in ids(project)


# Names and types


@pytest.mark.parametrize(
    ("facts", "declared"),
    [
        (("decimal",), "decimal(18,0)"),
        (("varchar",), "varchar(8000)"),
        (("nvarchar", -1), "nvarchar(max)"),
        (("time", None, None, None, 3), "time(3)"),
        (("rowversion",), "binary(8)"),
    ],
)
def test_types_are_declared_as_a_cast_needs_them(facts: Any, declared: str) -> None:
    """Also where a catalog view tells little of them."""
    assert type_mapping.declared(type_mapping.ColumnInfo(*facts)) == declared


def test_a_vector_is_read_as_text_of_any_length() -> None:
    """To a driver that does not know the type the server would send text in place of its bytes."""
    info = type_mapping.ColumnInfo("vector")
    column = import_module("sqlserver.source_tables").Column("v", info, nullable=True)
    assert column.type_mapping is not type_mapping.UNKNOWN
    assert (column.sdk_type, column.select("T.")) == ("STRING", "CONVERT(nvarchar(max), T.[v])")
    assert type_mapping.width(info) is None


def test_types_that_are_read_as_text(project: Project, server: MssqlSandbox) -> None:
    """Shapes with their spatial reference; their types do not depend on the data."""
    columns: Columns = [
        ("id", "int", False),
        ("place", "geography"),
        ("shape", "geometry"),
        ("path", "hierarchyid"),
        ("kind", "sysname"),
        ("rv", "rowversion"),
    ]
    server.create_table("dbo", "t", columns, key=["id"])
    server.execute(
        "INSERT INTO dbo.t (id, place, shape, path, kind) VALUES (1, 'POINT (1 2)', "
        "'POINT (3 4)', '/1/', N'x')"
    )
    synced(project, server)
    [row] = project.rows("t")
    assert (row["place"], row["shape"], row["path"], row["kind"]) == (
        "SRID=4326;POINT (1 2)",
        "SRID=0;POINT (3 4)",
        "/1/",
        "x",
    )
    assert len(row["rv"]) == 8


VARIANTS: list[tuple[str, str, str]] = [
    ("float", "1234567.8901234567", "1234567.8901234567"),
    ("float", "5e-324", "5e-324"),
    ("float", "-7", "-7"),
    ("real", "0.1", "0.1"),
    ("real", "16777216", "16777216"),
    ("money", "12.3456", "12.3456"),
    ("smallmoney", "-0.0001", "-0.0001"),
    ("decimal(38,10)", "1234567890.0123456789", "1234567890.0123456789"),
    ("bigint", "9223372036854775807", "9223372036854775807"),
    ("bit", "1", "1"),
    ("date", "'2024-02-29'", "2024-02-29"),
    ("datetime", "'2024-02-29T23:59:59.123'", "2024-02-29T23:59:59.123"),
    ("datetime", "'2024-02-29T00:00:00'", "2024-02-29T00:00:00"),
    ("smalldatetime", "'2024-02-29T23:59:00'", "2024-02-29T23:59:00"),
    ("datetime2(7)", "'2024-02-29T23:59:59.1234567'", "2024-02-29T23:59:59.1234567"),
    (
        "datetimeoffset(3)",
        "'2024-02-29T23:59:59.120-05:30'",
        "2024-02-29T23:59:59.12-05:30",
    ),
    ("time(7)", "'23:59:59.0000001'", "23:59:59.0000001"),
    (
        "uniqueidentifier",
        "'6F9619FF-8B86-D011-B42D-00C04FC964FF'",
        "6f9619ff-8b86-d011-b42d-00c04fc964ff",
    ),
    ("varbinary(8)", "0x00FF10", "0x00FF10"),
    ("binary(2)", "0x01", "0x0100"),
    ("nvarchar(20)", "N'a:b, 患者'", "a:b, 患者"),
    ("varchar(20)", "'x: y'", "x: y"),
    ("varchar(8000)", f"'{'long ' * 1000}end'", f"{'long ' * 1000}end"),
]


@pytest.mark.source
def test_a_variant_is_read_by_its_base_type(project: Project, source: Source) -> None:
    """Numbers with all their digits, moments in ISO 8601, bytes in hexadecimal."""
    columns: Columns = [("id", "int", False), ("v", "sql_variant")]
    source.create_table("dbo", "t", columns, key=["id"], rows=[(-1, None)])
    for number, (kind, literal, _) in enumerate(VARIANTS):
        source.execute(
            f"INSERT INTO dbo.t (id, v) VALUES ({number}, CAST(CAST({literal} AS {kind}) AS "  # noqa: S608
            "sql_variant))"
        )
    synced(project, source)
    found = {row["id"]: row["v"] for row in project.rows("t")}
    assert found == {-1: None} | {i: expected for i, (_, _, expected) in enumerate(VARIANTS)}


@pytest.mark.parametrize("kind", ["float", "real"])
def test_a_float_of_a_position_is_sent_as_a_number(kind: str) -> None:
    """Below compatibility level 130 the server makes another one of its text."""
    facts = type_mapping.ColumnInfo(kind)
    column = schema.Column("k", facts, nullable=False, destination="k")
    table = schema.SourceTable("dbo", "t", (column,), (column,), (column,))
    plan = query.Plan(table, None, table.key)
    sql, parameters = plan.statement(after=plan.position((0.1,)))
    assert parameters == {"p0": 0.1}
    assert sql.endswith(f"WHERE T.[k] > CAST(%(p0)s AS {kind}) ORDER BY T.[k]")


def test_names_are_sent_as_names(project: Project, server: MssqlSandbox) -> None:
    """Text of any length has the server look through the names of all tables. Only a real server's
    plan shows it, so this looks at the statements."""
    create_timed(server, moments(3))
    synced(project, server)
    asked = [s.sql for s in server.statements if "INFORMATION_SCHEMA" in s.sql and "@" in s.sql]
    assert asked
    assert all(re.search("= CAST\\(@\\w+ AS sysname\\)", sql) for sql in asked)
    assert not any(re.search("= @", sql) for sql in asked)


def test_small_and_new_tables_go_first(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One huge table does not keep the rest waiting."""
    monkeypatch.setattr(table_sync, "SMALL", 50)
    create_plain(server, 90, "a_large")
    synced(project, server)
    create_plain(server, 80, "b_new")
    create_plain(server, 10, "c_small")
    server.statements.clear()
    synced(project, server)
    read = [s.sql.split("FROM ")[1].split(" ")[0] for s in server.statements if "AS T" in s.sql]
    assert read == ["[dbo].[c_small]", "[dbo].[b_new]", "[dbo].[a_large]"]


def test_progress_is_told(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows, per cent of the estimate, rows a second and the time that is left."""
    monkeypatch.setattr("shared.report._INTERVAL", 0.0)
    create_plain(server, 2_500)
    output = synced(project, server).output
    assert "dbo.t: 1000 rows read, " in output
    assert " rows/s, 40 % of 2500, " in output
    assert " s left" in output


def test_waits_do_not_count_in_the_rate(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those before retries: here a minute, which the clock of the sync shows."""
    waited = [0.0]
    monkeypatch.setattr("shared.rest.pause", lambda _, seconds: waited.append(seconds))
    monotonic = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + sum(waited))
    create_plain(server, 2_500)
    server.faults.add(faults.drop(DATA, after_rows=25))
    output = synced(project, server).output
    found = re.search(r"dbo\.t: 2500 rows read, (\d+) rows/s, done", output)
    assert sum(waited) > 10
    assert found
    assert int(found[1]) > 2_500 / 10
