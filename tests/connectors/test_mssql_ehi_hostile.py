"""mssql_ehi: servers that mean harm, or are none. Each is the simulator with a part replaced."""

import random
import struct
import threading
import tracemalloc
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from tests.connectors.mssql import create_plain, failed, ids, synced
from tests.connectors.tds_responses import (
    Column,
    by_driver,
    columns_of_all_formats,
    decoded,
    plain_response,
    read,
)
from tests.sandbox.fivetran import Project, load
from tests.sandbox.mssql import MssqlSandbox, connection, tls, wire
from tests.sandbox.mssql.errors import SqlError
from tests.width import wide

pytestmark = pytest.mark.usefixtures("slept")
load("mssql_ehi")  # makes its modules importable
tds_patches, errors, row_reader = map(
    import_module, ("sqlserver.tds_patches", "sqlserver.errors", "sqlserver.row_reader")
)
SourceError = import_module("shared.errors").SourceError
INFO = wire.message(wire.INFO, SqlError(50_000, "text " * 5_000, severity=9), "server")
SMALL = wire.envchange_text(wire.ENV_LANGUAGE, "us_english", "")


def log_in(server: MssqlSandbox, trust: str | None, timeout: float) -> Any:
    return tds_patches.connect(
        trust,
        tds_patches.LoginLimits(timeout),
        dsn=server.host,
        port=server.port,
        user=server.user,
        password=server.password,
        database=server.database,
        login_timeout=timeout,
    )


# Logins


def test_a_login_that_trickles_ends(server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """After twice the timeout, though no byte is waited for as long as that."""

    def trickle(self: Any, _body: bytes) -> bool:
        self.plain.send(wire.HEADER.pack(wire.REPLY, 1, 4_000, 0, 0, 0))
        while True:
            self.plain.send(b"\0")
            threading.Event().wait(0.02)

    monkeypatch.setattr(connection.Connection, "_prelogin", trickle)
    with pytest.raises(errors.ServerUnreachable, match=r"complete after 0.4 s, which is twice"):
        log_in(server, None, 0.2)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (INFO, "more than 65,536 bytes before the login was complete"),
        (SMALL, "more than 100 messages before the login was complete"),
        *wide((wire.message(wire.ERROR, SqlError(5701, ""), ""), "more than 100 messages")),
    ],
)
def test_a_login_without_end_is_refused(
    project: Project,
    server: MssqlSandbox,
    slept: list[float],
    monkeypatch: pytest.MonkeyPatch,
    token: bytes,
    message: str,
) -> None:
    """At once: no retry makes a SQL Server of it."""
    monkeypatch.setattr(connection.Connection, "_accept", _endless(token))
    assert message in failed(project, server, mssql_encrypt="false").output
    assert slept == []


def _endless(token: bytes) -> Callable[..., None]:
    def send(self: Any, *_: Any) -> None:
        while True:
            self._reply.write(token)

    return send


def test_a_handshake_without_end_is_refused(
    server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Messages without content count, too."""

    def handshake(self: Any) -> None:
        while True:
            self.plain.send(wire.HEADER.pack(wire.PRELOGIN, 1, wire.HEADER_SIZE, 0, 0, 0))

    monkeypatch.setattr(tls.Secure, "handshake", handshake)
    with pytest.raises(SourceError, match="more than 100 messages"):
        log_in(server, tds_patches.ANYONE, 5)


@pytest.mark.parametrize("size", [32_768, *wide(2**31 - 1)])
def test_a_packet_size_that_is_none(project: Project, server: MssqlSandbox, size: int) -> None:
    """Buffers of that size are not made."""
    server.packet_size = size
    output = failed(project, server).output
    assert f"the server asks for packets of {size:,} bytes, and a SQL Server has" in output


@pytest.mark.parametrize("flag", [0, 1, 3])
@pytest.mark.parametrize("windows", [False, *wide(True)])
def test_without_encryption_no_password_is_sent_to_a_server_that_asks_for_it(
    project: Project,
    server: MssqlSandbox,
    monkeypatch: pytest.MonkeyPatch,
    flag: int,
    windows: bool,
) -> None:
    """Encryption of the login, of all, or required: after the first message there is no other."""
    kinds: list[int] = []
    message = connection.Connection._message

    def noting(self: Any) -> tuple[int, bytes]:
        kind, body = message(self)
        kinds.append(kind)
        return kind, body

    monkeypatch.setattr(connection.Connection, "_message", noting)
    monkeypatch.setattr(connection.Connection, "_encryption", lambda self, asked: flag)
    domain = {"mssql_domain": "CORP"} if windows else {}
    output = failed(project, server, mssql_encrypt="false", **domain).output
    assert "the server does not agree on encryption. mssql_encrypt says whether" in output
    assert kinds == [wire.PRELOGIN]
    assert server.logins == []


# Responses


@pytest.mark.parametrize("token", [SMALL, wire.done(wire.DONE, wire.DONE_MORE, 0)])
def test_messages_without_end_in_place_of_rows(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch, token: bytes
) -> None:
    """They cost one table, not the sync."""
    create_plain(server, name="a")
    create_plain(server, name="b")
    run, send = connection.Connection._run, _endless(token)

    def flooding(self: Any, sql: str, *arguments: Any) -> None:
        (send if "[a]" in sql and "AS T" in sql else run)(self, sql, *arguments)

    monkeypatch.setattr(connection.Connection, "_run", flooding)
    output = failed(project, server).output
    assert "dbo.a: the server sent more than 1,000 messages beside the rows" in output
    assert ids(project, "b") == list(range(30))


def test_a_value_that_is_too_large_costs_its_row(project: Project, server: MssqlSandbox) -> None:
    """It is named by its place, and by the setting that limits it."""
    kinds: Any = [("id", "int", False), ("v", "varbinary(max)")]
    rows = [(i, bytes(5 << 20) if i == 3 else b"v") for i in range(30)]
    server.create_table("dbo", "t", kinds, key=["id"], rows=rows)
    output = synced(project, server, max_value_mebibytes="4").output
    assert "a value has more than 4,194,304 bytes, which max_value_mebibytes allows" in output
    assert ids(project) == [i for i in range(30) if i != 3]
    synced(project, server)
    assert ids(project) == list(range(30))


def _of(kind: int, write: Callable[[random.Random], bytes]) -> Column:
    [found] = [
        c for c in columns_of_all_formats(5) if c.info[0] == kind and c.info[1:3] != b"@\x1f"
    ]
    return Column(found.info, write, found.null)


def _in_chunks(total: int, count: int, size: int) -> Callable[[random.Random], bytes]:
    chunk = struct.pack("<I", size) + b"a" * size
    return lambda draw: struct.pack("<Q", total) + chunk * count + b"\0" * 4


UNKNOWN = 0xFFFFFFFFFFFFFFFE


@pytest.mark.parametrize(
    ("kind", "write"),
    [
        (0xE7, _in_chunks(10_002, 1, 2)),  # nvarchar(max) that tells a size
        (0xA5, _in_chunks(UNKNOWN, 3_334, 3)),  # varbinary(max) that does not
        (0xF1, _in_chunks(UNKNOWN, 5_001, 2)),  # xml
        (0x63, lambda draw: b"\x10" + bytes(24) + struct.pack("<i", 10_002)),  # ntext
        (0x22, lambda draw: b"\x10" + bytes(24) + struct.pack("<i", -2)),  # image
    ],
)
@pytest.mark.parametrize("reader", [by_driver, decoded(1)])
def test_a_value_is_refused_by_its_size(
    monkeypatch: pytest.MonkeyPatch, kind: int, write: Any, reader: Any
) -> None:
    """By the one that it tells, before it is read, or by the one that it has."""
    monkeypatch.setattr(tds_patches, "LARGEST_VALUE", 10_000)
    found = read(plain_response([_of(kind, write)], 1, 504), reader)
    assert found[0].startswith("UndecodableRow: reading: a value has more than 10,000 bytes")


def test_a_value_in_little_pieces_takes_little_memory() -> None:
    """Each packet would be an object of its own, sixty times as large."""
    value = struct.pack("<iBBH", 10_004, 0xA5, 2, 8_000) + bytes(10_000)
    variant = Column(struct.pack("<Bi", 0x62, 8_009), lambda draw: value, bytes(4))
    given = plain_response([variant], 1, 1)
    tracemalloc.start()
    found = read(given, by_driver)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found[0]) > 10_000
    assert peak < 350_000


def test_packets_without_data_within_a_value_end() -> None:
    """A value of a MAX type waits for its rest, but not for ever."""
    given = plain_response([_of(0xA5, _in_chunks(100, 1, 100))], 1, 504)
    head = given.data[: given.data.index(b"a" * 100)]
    first = bytearray(head[: wire.HEADER_SIZE])
    struct.pack_into(">BH", first, 1, 0, len(head))
    empty = wire.HEADER.pack(wire.REPLY, 0, wire.HEADER_SIZE, 51, 1, 0)
    given.data = bytes(first) + head[wire.HEADER_SIZE :] + empty * 2_000
    assert read(given, by_driver)[0] == "ClosedConnectionError: Server closed connection"
