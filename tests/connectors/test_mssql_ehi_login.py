"""mssql_ehi: how the server is found and logged in to."""

import contextlib
import errno
import socket
from collections.abc import Iterator
from importlib import import_module

import pytest
import spnego

from shared.errors import TransientError
from tests.connectors.mssql import (
    DATA,
    NOW,
    Columns,
    configuration,
    create_plain,
    create_timed,
    failed,
    ids,
    moments,
    synced,
)
from tests.sandbox.fivetran import Project, load
from tests.sandbox.mssql import MssqlSandbox, faults
from tests.sandbox.mssql.browser import Browser
from tests.width import wide

pytestmark = pytest.mark.usefixtures("slept")
load("mssql_ehi")  # makes its modules importable
addresses, errors, tds_patches = map(
    import_module, ("sqlserver.addresses", "sqlserver.errors", "sqlserver.tds_patches")
)


# Connections


def test_a_connection_is_kept_alive(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a cloud's network forgets it while the server sorts a table."""
    made: list[socket.socket] = []
    open_socket = tds_patches.open_socket

    def note(*arguments: object) -> socket.socket:
        connected: socket.socket = open_socket(*arguments)
        made.append(connected.dup())  # which has the options of the other one
        return connected

    monkeypatch.setattr(tds_patches, "open_socket", note)
    create_plain(server)
    synced(project, server)
    assert made
    for each in made:
        with each:
            assert each.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            name = "TCP_KEEPIDLE" if hasattr(socket, "TCP_KEEPIDLE") else "TCP_KEEPALIVE"
            assert each.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == 30


def test_a_host_that_is_gone_is_no_slow_query() -> None:
    """The system ends a connection that is not kept alive: it is retried as any that was lost."""
    gone, slow = TimeoutError(errno.ETIMEDOUT, "timed out"), TimeoutError("timed out")
    assert type(errors.explain(gone, "reading")) is TransientError
    assert type(errors.explain(slow, "reading")) is errors.QueryTimeout


# Names and passwords


@pytest.mark.parametrize(
    ("user", "password", "database"),
    [
        ("reader", "<Abc-123>", "EHR"),
        ("reader", " p w ", "EHR"),
        ("läs🩺are", "🩺", "EHR"),
        *wide(
            ("reader", "pass🩺word𝄞", "EHR"),
            ("reader", "plain", "患者🩺 data"),
            (" reader", "<abc>", "<Ehr>"),
            ("𠮷" * 60, "𠮷" * 60, "𠮷" * 60),
        ),
    ],
)
@pytest.mark.parametrize("encrypted", ["true", "false"])
def test_names_and_passwords_are_passed_on_exactly(
    project: Project, user: str, password: str, database: str, encrypted: str
) -> None:
    """With characters beyond the basic plane, spaces at the ends, and angle brackets."""
    with MssqlSandbox(user=user, password=password, database=database) as server:
        create_plain(server)
        synced(project, server, mssql_encrypt=encrypted)
        assert ids(project) == list(range(30))
        assert {(login.user, login.database) for login in server.logins} == {(user, database)}
        assert server.failures == []


# The server's name


@pytest.mark.parametrize(
    ("written", "port"),
    [
        ("127.0.0.1", "{port}"),
        ("tcp:127.0.0.1,{port}", ""),
        ("127.0.0.1 , {port}", "<YOUR_SQL_SERVER_PORT>"),
        ("(local)", "{port}"),
        *wide(
            ("tcp:127.0.0.1", "{port}"),
            ("127.0.0.1,{port}", ""),
            ("127.0.0.1,{port}", "{port}"),
            ("127.0.0.1:{port}", ""),
            (".", "{port}"),
            ("localhost,{port}", ""),
        ),
    ],
)
def test_a_server_is_written_as_people_do(
    project: Project, server: MssqlSandbox, written: str, port: str
) -> None:
    """With its protocol, its port, or as the machine itself; encryption and all."""
    create_plain(server)
    names = [text.format(port=server.port) for text in (written, port)]
    synced(project, server, mssql_server=names[0], mssql_port=names[1])
    assert ids(project) == list(range(30))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("[::1]:5", ("::1", 5, "")),
        ("fe80::1,1433", ("fe80::1", 1433, "")),
        ("::1", ("::1", None, "")),
        (".\\SQLEXPRESS", ("localhost", None, "SQLEXPRESS")),
        ("h\\MSSQLServer", ("h", None, "")),
        ("TCP: h\\x_1", ("h", None, "x_1")),
    ],
)
def test_what_the_forms_of_a_name_mean(
    written: str, expected: tuple[str, int | None, str]
) -> None:
    """A host, and its port or its instance."""
    assert addresses.parse_server(written) == expected


WRONG = ("np:host", "host,0", "host,70000", "h,1,2", "host\\", "host\\1x", "(localdb)\\x", "a b")


@pytest.mark.parametrize("written", [*WRONG, "lpc:host", "host:port", "::g", "[::1", "host;x"])
def test_what_is_no_server_is_named(project: Project, server: MssqlSandbox, written: str) -> None:
    """Before any connection, and without the value."""
    output = failed(project, server, mssql_server=written).output
    assert "mssql_server must be a host name or an IP address, with a port" in output
    assert server.logins == []


def test_two_ports_that_differ_are_an_error(project: Project, server: MssqlSandbox) -> None:
    """Nobody can know which one is meant."""
    output = failed(project, server, mssql_server=f"127.0.0.1,{server.port + 1}").output
    assert "mssql_port must be the port in mssql_server, or empty" in output
    assert server.logins == []


@pytest.mark.parametrize("deaf", [*wide(0), 2])
@pytest.mark.parametrize(
    "noise", [*wide(b"", b"?"), b"\x05\0\0ServerName;X;InstanceName;OTHER;tcp;1;;"]
)
def test_the_browser_tells_the_port_of_an_instance(
    project: Project,
    server: MssqlSandbox,
    monkeypatch: pytest.MonkeyPatch,
    deaf: int,
    noise: bytes,
) -> None:
    """Also where a datagram is lost, and whatever else comes."""
    create_plain(server)
    with Browser({"Clarity": server.port}, deaf=deaf, noise=noise) as browser:
        monkeypatch.setattr(addresses, "_BROWSER_PORT", browser.port)
        synced(
            project, server, mssql_server="127.0.0.1\\CLARITY", mssql_port="",
            login_timeout_seconds="2",
        )  # fmt: skip
    assert set(browser.asked) == {"CLARITY"}
    assert ids(project) == list(range(30))


def test_the_port_of_an_instance_is_asked_for_again(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may change when the instance is restarted."""
    create_plain(server)

    def restart() -> None:
        server.pause(drop_connections=False)
        server.port = 0
        server.start()
        browser.instances["X"] = server.port

    with Browser({"X": server.port}) as browser:
        monkeypatch.setattr(addresses, "_BROWSER_PORT", browser.port)
        server.faults.add(faults.call(restart, DATA), faults.drop(DATA))
        synced(project, server, mssql_server="127.0.0.1\\X", mssql_port="")
    assert ids(project) == list(range(30))


@pytest.mark.parametrize("there", [True, False])
def test_an_instance_that_the_browser_does_not_tell(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """The message says what to set; with a port the Browser is not asked."""
    create_plain(server)
    named = {"mssql_server": "127.0.0.1\\X", "login_timeout_seconds": "1", "retry_attempts": "0"}
    with Browser({"Y": server.port}) as browser:
        asked = browser.port if there else _free_port()
        monkeypatch.setattr(addresses, "_BROWSER_PORT", asked)
        output = failed(project, server, **named, mssql_port="").output
        assert "the SQL Server Browser does not tell the port of the instance in" in output
        assert "or set mssql_port" in output
        before = len(browser.asked)
        synced(project, server, **named)
        assert len(browser.asked) == before == (3 if there else 0)


def test_an_instance_without_tcp_fails_at_once(
    project: Project,
    server: MssqlSandbox,
    slept: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No retry switches it on."""
    with Browser({"X": None}) as browser:
        monkeypatch.setattr(addresses, "_BROWSER_PORT", browser.port)
        output = failed(project, server, mssql_server="127.0.0.1\\X", mssql_port="").output
    assert "takes no TCP connections. Switch TCP/IP on" in output
    assert slept == []


def _free_port() -> int:
    with socket.socket(type=socket.SOCK_DGRAM) as unused:
        unused.bind(("127.0.0.1", 0))
        port: int = unused.getsockname()[1]
        return port


# The names of tables


@pytest.mark.parametrize(
    "written",
    [
        *('"dbo"."t"', "srv.EHR.dbo.t", " [dbo] . [t] ", "[dbo].t, [dbo].[a]]b,c]"),
        *wide("[dbo].[t]", "[DBO].[T]", "EHR.dbo.t", "ehr.DBO.t", "[EHR].[dbo].[t]"),
        *wide("EHR..t", "dbo.[t]", "[t]"),
    ],
)
def test_tables_are_written_as_in_statements(
    project: Project, server: MssqlSandbox, written: str
) -> None:
    """In brackets or quotes, and behind their database's name."""
    for name in ("t", "u", "a]b,c"):
        create_plain(server, name=name)
    output = synced(project, server, tables=written).output
    assert "dbo.t: 30 rows read" in output
    assert "dbo.u: 30" not in output
    assert ("dbo.[a]]b,c]: 30" in output) == ("a]]b" in written)
    output = synced(project, server, exclude_tables=written).output
    assert "dbo.t: 30 rows read" not in output
    assert "dbo.u: 30" in output


def test_a_table_of_another_database_is_none(project: Project, server: MssqlSandbox) -> None:
    """It is named as what matches nothing."""
    create_plain(server)
    output = failed(project, server, tables="Other.dbo.t").output
    assert "'Other.dbo.t' matches no table" in output


def test_a_quoted_part_is_one_part(project: Project, server: MssqlSandbox) -> None:
    """A point in quotes parts no schema from a table: a label means what it says in the log."""
    columns: Columns = [("id", "int", False), ("v", "int")]
    for schema, name in (("a", "b.c"), ("a.b", "c"), ("dbo", "d, e"), ("dbo", " f ")):
        server.create_table(schema, name, columns, key=["id"], rows=[(1, 1)])
    labels = {"a.[b.c]", "[a.b].c", "dbo.[d, e]", "dbo.[ f ]"}
    synced(project, server)
    assert project.state["tables"].keys() == labels
    for label in sorted(labels):
        project.sync(configuration(server, tables=label), {})
        assert project.state["tables"].keys() == {label}
    project.sync(configuration(server, exclude_tables="EHR.[A].[B.*], [ f ]"), {})
    assert project.state["tables"].keys() == {"[a.b].c", "dbo.[d, e]"}
    output = failed(project, server, tables="[f]").output
    assert "'f' matches no table" in output
    project.sync(configuration(server, tables="a.b.c"), {})
    assert project.state["tables"].keys() == {"a.[b.c]", "[a.b].c"}


@pytest.mark.parametrize("written", ["[dbo].[T]", '"dbo"."T"', "EHR.dbo.T", "ehr..T", "[T]"])
def test_quoted_names_that_differ_in_case_only(project: Project, written: str) -> None:
    """In a database that tells upper from lower case, the spelling decides, quoted or not."""
    with MssqlSandbox(collation_name="Latin1_General_CS_AS") as server:
        for name in ("t", "T"):
            create_plain(server, name=name)
        synced(project, server, tables=written)
        assert project.state["tables"].keys() == {"dbo.T"}


@pytest.mark.parametrize(
    "written",
    [
        *("[dbo].[t].[s,s]", "EHR..t.[s,s]", '"s,s"'),
        *wide("t.[s,s]", "[s,s]", "EHR.dbo.t.[s,s]", "[EHR].[dbo].[t].[s*]"),
    ],
)
def test_columns_are_written_like_tables(
    project: Project, server: MssqlSandbox, written: str
) -> None:
    """In brackets or quotes, and behind their database's name."""
    columns: Columns = [("id", "int", False), ("v", "int"), ("s,s", "int")]
    server.create_table("dbo", "t", columns, key=["id"], rows=[(1, 1, 1)])
    synced(project, server, exclude_columns=written)
    assert project.types("t").keys() == {"id", "v"}


def test_columns_of_changes_are_written_like_tables(
    project: Project, server: MssqlSandbox
) -> None:
    """In brackets, too."""
    create_timed(server, moments(5))
    output = synced(project, server, incremental_column="[a,b], [modifieddate]").output
    assert "dbo.t: small, about 5 rows, incremental by ModifiedDate" in output


# Listeners, replicas and redirects


@pytest.fixture
def replica(server: MssqlSandbox) -> Iterator[MssqlSandbox]:
    """A secondary of ``server``: it can only be read, by those that say that they only read."""
    with MssqlSandbox(authority=server.authority) as started:
        started.set_clock(NOW)
        started.info.read_only = started.read_only_connections = True
        yield started
        assert started.failures == []


def test_read_only_intent_is_sent_to_a_secondary(
    project: Project, server: MssqlSandbox, replica: MssqlSandbox
) -> None:
    """By the listener, which responses for the primary; certificates are verified at both."""
    create_plain(replica)
    server.read_only_route = ("localhost", replica.port)
    synced(project, server, read_only_intent="true")
    assert ids(project) == list(range(30))
    assert server.statements == []
    assert all(login.read_only and login.encrypted for login in replica.logins)
    output = failed(project, replica, retry_attempts="0").output
    assert 'set read_only_intent to "true"' in output


def test_without_the_intent_nothing_is_said_of_it(project: Project, server: MssqlSandbox) -> None:
    """The primary responds."""
    create_plain(server)
    server.read_only_route = ("localhost", 1)
    synced(project, server)
    assert not any(login.read_only for login in server.logins)


def test_a_replica_is_read_without_rowversions(
    project: Project, server: MssqlSandbox, replica: MssqlSandbox
) -> None:
    """Nothing tells there which of the primary's transactions are open."""
    columns: Columns = [("id", "int", False), ("rv", "rowversion", False)]
    replica.create_table("dbo", "t", columns, key=["id"], rows=[(i,) for i in range(30)])
    output = synced(project, replica, read_only_intent="true").output
    assert "dbo.t: small, about 30 rows, in full, in key order" in output


@pytest.mark.parametrize("instance", ["", "\\a\\b", *wide("\\inst-1")])
@pytest.mark.parametrize("encrypted", ["true", "false"])
def test_a_redirect_to_an_instance(
    project: Project, server: MssqlSandbox, replica: MssqlSandbox, encrypted: str, instance: str
) -> None:
    """The host goes to DNS and the certificate, the whole name into the login."""
    create_plain(replica)
    server.route = (f"localhost{instance}", replica.port)
    synced(
        project,
        server,
        mssql_encrypt=encrypted,
        read_only_intent="true",
    )
    assert ids(project) == list(range(30))
    assert {login.server for login in server.logins} == {"127.0.0.1"}
    assert {login.server for login in replica.logins} == {f"localhost{instance}"}


def test_a_redirect_to_a_host_of_another_certificate_is_refused(
    project: Project, server: MssqlSandbox, replica: MssqlSandbox
) -> None:
    """Its certificate is verified for the name that it was redirected to."""
    replica.certificate = "wrong_host"
    server.route = ("localhost\\x", replica.port)
    output = failed(project, server).output
    assert "its certificate is not for this host" in output
    assert replica.logins == []


def test_redirects_in_a_circle_end(project: Project, server: MssqlSandbox) -> None:
    """After two, with a sentence of their own."""
    server.route = ("127.0.0.1", server.port)
    output = failed(project, server).output
    assert "the server redirected the login 2 times" in output
    assert len(server.logins) == 3


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of an address that does not respond, as one of a subnet that is offline."""
    with socket.socket() as listener, contextlib.ExitStack() as waiting:
        listener.bind(("127.0.0.2", 0))
        listener.listen(0)
        for _ in range(4):  # whoever comes after these waits
            each = waiting.enter_context(socket.socket())
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.mark.posix
@pytest.mark.parametrize("place", [0, 1])
def test_a_listener_with_an_address_that_answers_nothing(
    project: Project,
    server: MssqlSandbox,
    monkeypatch: pytest.MonkeyPatch,
    silent: int,
    place: int,
) -> None:
    """The other one is used, within the login timeout, whichever DNS tells first."""
    create_plain(server)
    found = [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", server.port)),
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.9", 9)),  # refused
    ]
    found.insert(place, (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", silent)))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: found)
    result = synced(project, server, mssql_server="localhost", login_timeout_seconds="3")
    assert ids(project) == list(range(30))
    assert result.seconds < 3


@pytest.mark.posix
def test_a_listener_that_answers_nowhere(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch, silent: int
) -> None:
    """One login timeout for all addresses together."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.2", silent))] * 3
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: found)
    given = {"login_timeout_seconds": "1", "retry_attempts": "0"}
    result = failed(project, server, mssql_server="localhost", **given)
    assert "no response (TimeoutError). Check mssql_server, mssql_port" in result.output
    assert result.seconds < 3


# Windows authentication

WINDOWS = {"mssql_domain": "CORP", "mssql_user": "reader", "mssql_password": "Pa:ss🩺 word "}


@pytest.mark.parametrize("encrypted", ["true", "false"])
@pytest.mark.parametrize(
    ("domain", "user"),
    [("CORP", "reader"), ("corp.example", "svc-läsare$"), *wide(("corp", "READER"))],
)
def test_a_windows_account_logs_in(
    project: Project, server: MssqlSandbox, domain: str, user: str, encrypted: str
) -> None:
    """By NTLMv2, as pyspnego's own server side verifies it; over several connections."""
    for name in ("a", "b", "c"):
        create_plain(server, name=name)
    server.accounts.add(domain, user, WINDOWS["mssql_password"])
    server.faults.add(faults.drop(DATA, after_rows=7))
    given = {**WINDOWS, "mssql_domain": domain, "mssql_user": user, "mssql_encrypt": encrypted}
    result = synced(project, server, **given, parallel_tables="2")
    assert ids(project, "c") == list(range(30))
    assert {login.user for login in server.logins} == {f"{domain}\\{user}"}
    assert len(server.logins) >= 4
    assert WINDOWS["mssql_password"] not in result.output + project.everything_written()


def test_a_windows_account_is_redirected(
    project: Project, server: MssqlSandbox, replica: MssqlSandbox
) -> None:
    """The exchange starts again at the other server."""
    create_plain(replica)
    for each in (server, replica):
        each.accounts.add("CORP", "reader", WINDOWS["mssql_password"])
    server.read_only_route = ("localhost\\x", replica.port)
    synced(project, server, **WINDOWS, read_only_intent="true")
    assert ids(project) == list(range(30))


@pytest.mark.parametrize(
    ("changes", "number", "message"),
    [
        ({"mssql_password": "wrong"}, 18452, "The password is wrong, or the server does not"),
        (
            {"mssql_domain": "OTHER"},
            18452,
            "know or trust the domain. Check mssql_domain",
        ),
        ({"mssql_user": "nobody"}, 18452, "Check mssql_domain, mssql_user and mssql_password"),
        ({"mssql_user": "guest"}, 18456, "and that the server has a login for the account"),
        ({"mssql_database": "Elsewhere"}, 4060, "Check mssql_database"),
    ],
)
def test_a_wrong_windows_login_fails_at_once(
    project: Project,
    server: MssqlSandbox,
    slept: list[float],
    changes: dict[str, str],
    number: int,
    message: str,
) -> None:
    """After one login, with the settings to look at. A server does not tell a wrong password from
    an unknown domain: both are error 18452."""
    server.accounts.add("CORP", "reader", WINDOWS["mssql_password"])
    server.accounts.add("CORP", "guest", WINDOWS["mssql_password"], has_login=False)
    result = failed(project, server, **{**WINDOWS, **changes})
    assert f"error {number} of the server" in result.output
    assert message in result.output
    assert slept == []
    assert len(server.logins) == 1
    assert WINDOWS["mssql_password"] not in result.output + project.everything_written()


def test_a_server_of_windows_accounts_alone(
    project: Project, server: MssqlSandbox, slept: list[float]
) -> None:
    """It refuses a login of SQL Server with the same number."""
    server.faults.add_login(faults.fail(18452))
    output = failed(project, server).output
    assert "error 18452 of the server. It takes Windows accounts alone: set mssql_domain" in output
    assert slept == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mssql_user": "CORP\\reader"}, "mssql_user must be without a domain: set mssql_domain"),
        ({"mssql_user": "CORP\\r", "mssql_domain": ""}, "mssql_user must be without a domain"),
        ({"mssql_password": ""}, "mssql_password is missing"),
        ({"mssql_domain": "CORP\\x"}, "mssql_domain must be the name of a Windows domain"),
        ({"mssql_domain": "a b"}, "mssql_domain must be the name of a Windows domain"),
        (
            {"mssql_tenant_id": "t", "mssql_client_id": "c", "mssql_client_secret": "s"},
            "mssql_domain must be empty beside a service principal",
        ),
    ],
)
def test_half_a_windows_login_is_named(
    project: Project, server: MssqlSandbox, changes: dict[str, str], message: str
) -> None:
    """Before any connection."""
    assert message in failed(project, server, **{**WINDOWS, **changes}).output
    assert server.logins == []


def test_the_setup_test_logs_in_as_a_windows_account(
    project: Project, server: MssqlSandbox
) -> None:
    """And names what is wrong."""
    create_plain(server)
    server.accounts.add("CORP", "reader", WINDOWS["mssql_password"])
    assert set(project.test_settings(configuration(server, **WINDOWS)).values()) == {None}
    wrong = configuration(server, **{**WINDOWS, "mssql_password": "wrong"})
    found = project.test_settings(wrong)
    assert all("The password is wrong, or" in str(failure) for failure in found.values())


def test_ntlm_is_pythons_own() -> None:
    """Whatever else the machine has for it."""
    assert spnego.NegotiateOptions.use_ntlm == tds_patches._PYTHONS_NTLM
