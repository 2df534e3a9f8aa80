"""Logins, encryption and the databases that a session sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sandbox.mssql import MssqlSandbox
from tests.sandbox.mssql.tests.client import (
    ask,
    ask_nothing,
    connect,
    fails_with,
    number_of,
    refused,
)


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


def test_access_token(server: MssqlSandbox) -> None:
    """A federated login is taken when its token is known."""
    server.tokens.add("token-1")
    options = {"user": None, "password": None, "cafile": str(server.ca_file())}
    with connect(server, access_token_callable=lambda: "token-1", **options) as c:
        assert ask(c, "SELECT 1 AS one") == [(1,)]
    assert number_of(refused(server, access_token_callable=lambda: "stale", **options)) == 18456


def test_ca_file_is_pem(server: MssqlSandbox) -> None:
    """The CA can be handed over as text or as a file."""
    assert Path(server.ca_file()).read_text() == server.ca_pem
    assert server.ca_pem.startswith("-----BEGIN CERTIFICATE-----")
