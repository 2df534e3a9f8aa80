"""Failures of the network: each has a sentence of its own, without a query, a password or a host,
and is retried if it is transient."""

import errno
import os
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from urllib3.connection import HTTPConnection

from shared import network
from shared.errors import SourceError, SourceUnavailable
from shared.network import Closed, Deadline, look_up
from shared.rest import RestClient, Retry
from tests.sandbox.mssql import tls

SECRET = "s3cret"
HTTPS = "https://api.example.com"  # no test looks it up
JSON = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 8\r\n\r\n"


class Listener:
    """Sends each connection ``reply`` (None: nothing) and notes the first bytes that it receives.
    Then it ends its side of the connection, or keeps it open with ``stay``."""

    def __init__(self, reply: bytes | None, *, stay: bool = False) -> None:
        self.heard, self._open = list[bytes](), list[socket.socket]()
        self._reply, self._stay = reply or b"", stay or reply is None
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._open.append(connection)
                self.heard.append(connection.recv(65_536))
                connection.sendall(self._reply)
                if not self._stay:
                    connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for each in [self._socket, *self._open]:
            each.close()


@pytest.fixture
def listen() -> Iterator[Callable[..., Listener]]:
    with ExitStack() as stack:

        def start(reply: bytes | None, *, stay: bool = False) -> Listener:
            listener = Listener(reply, stay=stay)
            stack.callback(listener.close)
            return listener

        yield start


@pytest.fixture
def nobody() -> int:
    """A port at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
    return port


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy and the certificates of this machine must not matter."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str], waits: list[float]) -> Callable[..., str]:
    """The message of the error with which a request fails; checks that it was retried once or not
    at all, and that no secret is shown."""

    def fail(
        url: str, *, retried: bool, for_all: bool = True, timeout: float = 30, **options: Any
    ) -> str:
        client = RestClient(url, timeout, Retry(1), **options)
        with pytest.raises(SourceError) as error:
            client.get("/a", {"key": SECRET, "site": "CertError"})
        assert type(error.value) is (SourceUnavailable if for_all else SourceError)
        assert len(waits) == retried
        shown = str(error.value) + capsys.readouterr().out
        assert SECRET not in shown
        assert f"GET {url}/a: " in shown
        return str(error.value)

    return fail


def _raises(error: Exception) -> Callable[..., Any]:
    def function(*_: Any, **__: Any) -> Any:
        raise error

    return function


@pytest.mark.parametrize(
    ("code", "sentence", "retried"),
    [
        (socket.EAI_NONAME, "the host was not found", False),
        (getattr(socket, "EAI_NODATA", socket.EAI_NONAME), "the host was not found", False),
        (socket.EAI_AGAIN, "the DNS fails at the moment", True),
        (socket.EAI_FAIL, "the DNS fails at the moment", True),
    ],
)
def test_a_host_without_an_address(
    fails: Any, monkeypatch: pytest.MonkeyPatch, code: int, sentence: str, retried: bool
) -> None:
    """A host that does not exist is final; a DNS that does not respond is transient."""
    monkeypatch.setattr(socket, "getaddrinfo", _raises(socket.gaierror(code, "s3cret")))
    assert sentence in fails(HTTPS, retried=retried)


def test_a_name_that_no_host_can_have(fails: Any) -> None:
    """It is never looked up."""
    assert "the host was not found" in fails(f"https://{'a' * 64}.example.com", retried=False)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_connection_that_is_refused(fails: Any, nobody: int, scheme: str) -> None:
    """A server that restarts listens again."""
    reason = fails(f"{scheme}://127.0.0.1:{nobody}", retried=True)
    assert "the connection was refused" in reason
    assert "(ECONNREFUSED); gave up after 1 retry" in reason


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (TimeoutError("s3cret"), "timed out connecting"),
        (OSError(errno.ETIMEDOUT, "s3cret"), "timed out connecting"),
        (
            OSError(errno.EHOSTUNREACH, "s3cret"),
            "no way to the host (EHOSTUNREACH",
        ),
        (OSError(errno.ENETUNREACH, "s3cret"), "no way to the host (ENETUNREACH"),
        (ConnectionResetError(errno.ECONNRESET, "s3cret"), "broke off before it was complete"),
    ],
)
def test_a_host_that_is_not_reached(
    fails: Any, monkeypatch: pytest.MonkeyPatch, error: Exception, sentence: str
) -> None:
    """Such failures are transient, and each has its own sentence."""
    monkeypatch.setattr(socket.socket, "connect", _raises(error))
    assert sentence in fails("http://127.0.0.1:9", retried=True)


def test_a_handshake_that_times_out(fails: Any, listen: Any) -> None:
    """Without a handshake there is no connection: every table would fail."""
    url = f"https://127.0.0.1:{listen(None).port}"
    assert "timed out connecting" in fails(url, retried=True, timeout=0.05)


def test_a_handshake_with_what_speaks_no_tls(fails: Any, listen: Any) -> None:
    """It is final: one connection is made."""
    listener = listen(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    reason = fails(f"https://127.0.0.1:{listener.port}", retried=False)
    assert "the TLS handshake failed" in reason
    assert len(listener.heard) == 1


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (None, "timed out reading: no response within 0.05 s"),
        (b"", "the connection broke off before a response came"),
        (JSON, "the response was cut short"),
        (JSON + b"[1,2", "the response was cut short"),
    ],
)
def test_a_response_that_is_missing_or_cut(
    fails: Any, listen: Any, reply: bytes | None, sentence: str
) -> None:
    """The host is reached, so the failure concerns only this request."""
    url = f"http://127.0.0.1:{listen(reply).port}"
    assert sentence in fails(url, retried=True, for_all=False, timeout=0.05)


def test_a_response_that_times_out_in_its_body(fails: Any, listen: Any) -> None:
    """A timeout within the body is reported like one before it."""
    url = f"http://127.0.0.1:{listen(JSON + b'[1,2', stay=True).port}"
    reason = fails(url, retried=True, for_all=False, timeout=0.05)
    assert "timed out reading: no response within 0.05 s" in reason


@pytest.mark.parametrize("status", ["103 Early Hints", "102 Processing"])
def test_interim_responses_are_passed_by(listen: Any, status: str) -> None:
    """A source may send any number of them, unasked."""
    interim = f"HTTP/1.1 {status}\r\nLink: </a>; rel=preload\r\n\r\n".encode()
    url = f"http://127.0.0.1:{listen(2 * interim + JSON + b'[1,2, 3]').port}"
    assert RestClient(url, 30, Retry(0)).get("/a") == [1, 2, 3]


def test_a_change_of_the_protocol_is_final(fails: Any, listen: Any) -> None:
    """Nobody asks for one, and what follows is no HTTP."""
    reply = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n"
    url = f"http://127.0.0.1:{listen(reply).port}"
    assert "status 101" in fails(url, retried=False, for_all=False)


def test_what_cannot_be_sent_is_final(fails: Any) -> None:
    """The message of requests, which would show the header, is not used."""
    headers = {"X-Key": f"{SECRET}\r\nHost: x"}
    assert "no such request can be sent" in fails(HTTPS, retried=False, headers=headers)


# Certificate authorities


@contextmanager
def _serving_tls(folder: Path) -> Iterator[str]:
    """The address of a server that completes the handshake and closes the connection."""
    context = tls.server_context("valid", tls.Authority(), folder)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, suppress(OSError):
                        context.wrap_socket(connection, server_side=True).close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"https://localhost:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("content", [None, "", "garbage", "-----BEGIN CERTIFICATE-----\nAA==\n"])
@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_authorities_that_cannot_be_read(
    fails: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str | None
) -> None:
    """A file that is missing, empty or of another kind is final: no retry mends it."""
    path = tmp_path / f"{SECRET}.pem"
    if content is not None:
        path.write_text(content)
    monkeypatch.setenv(name, str(path))
    with _serving_tls(tmp_path) as url:
        assert "the file of certificate authorities is" in fails(url, retried=False)


def test_authorities_without_the_right_to_read_them(
    fails: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check is replaced, since root, as in a container, may read every file."""
    (tmp_path / "ca.pem").write_text(tls.Authority().pem)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.R_OK)
    assert "the file of certificate authorities is" in fails(HTTPS, retried=False)


def test_a_certificate_of_no_known_authority(fails: Any, tmp_path: Path) -> None:
    """Its sentence differs from that of authorities that cannot be read."""
    with _serving_tls(tmp_path) as url:
        assert "the TLS certificate could not be verified (" in fails(url, retried=False)


# Proxies, which come from the environment


def _proxy(monkeypatch: pytest.MonkeyPatch, where: object, name: str = "HTTPS_PROXY") -> None:
    monkeypatch.setenv(name, f"http://user:{SECRET}@127.0.0.1:{where}")


def test_a_proxy_gets_the_request_and_its_password(
    listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy of the environment gets the request in place of the host."""
    listener = listen(JSON + b'{"n": 1}')
    _proxy(monkeypatch, listener.port, "HTTP_PROXY")
    assert RestClient("http://api.example.com", 30, Retry(0)).get("/a") == {"n": 1}
    assert listener.heard[0].startswith(b"GET http://api.example.com/a ")
    assert b"Proxy-Authorization: Basic dXNlcjpzM2NyZXQ=" in listener.heard[0]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("name", ["HTTP_PROXY", "ALL_PROXY"])
def test_what_goes_to_this_machine_goes_to_no_proxy(
    listen: Any, monkeypatch: pytest.MonkeyPatch, host: str, name: str
) -> None:
    """Without TLS the proxy would get the credentials in the clear."""
    proxy, listener = listen(JSON + b'{"n": 1}'), listen(JSON + b'{"n": 2}')
    _proxy(monkeypatch, proxy.port, name)
    assert RestClient(f"http://{host}:{listener.port}", 30, Retry(0)).get("/a") == {"n": 2}
    assert proxy.heard == []


@pytest.mark.parametrize("status", [407, 403, 405, 404, 302])
def test_a_proxy_that_refuses(
    fails: Any, listen: Any, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """It is final: its rules do not change between retries."""
    listener = listen(f"HTTP/1.1 {status} No s3cret\r\n\r\n".encode())
    _proxy(monkeypatch, listener.port)
    reason = fails(HTTPS, retried=False)
    assert f"status {status}: the proxy that the environment names" in reason
    assert "refuses the request" in reason
    [heard] = listener.heard
    assert heard.startswith(b"CONNECT api.example.com:443 HTTP/1.")


def test_a_proxy_that_refuses_without_tls(
    fails: Any, listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 407 comes from the proxy even where it responds in place of the source."""
    listener = listen(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
    _proxy(monkeypatch, listener.port, "HTTP_PROXY")
    assert "status 407: the proxy that" in fails("http://api.example.com", retried=False)


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504])
def test_a_proxy_that_does_not_get_through(
    fails: Any, listen: Any, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """It is transient: the host behind the proxy may come back."""
    _proxy(monkeypatch, listen(f"HTTP/1.1 {status} No s3cret\r\n\r\n".encode()).port)
    expected = f"did not get through to the host (status {status})"
    assert expected in fails(HTTPS, retried=True)


def test_a_proxy_that_is_not_there(
    fails: Any, nobody: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says that it is the proxy, and why."""
    _proxy(monkeypatch, nobody)
    reason = fails(HTTPS, retried=True)
    assert "ALL_PROXY) cannot be reached: the connection was refused" in reason


def test_a_proxy_that_has_no_address(fails: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is final: the name of the proxy is wrong."""
    monkeypatch.setattr(socket, "getaddrinfo", _raises(socket.gaierror(socket.EAI_NONAME, "no")))
    monkeypatch.setenv("ALL_PROXY", f"http://user:{SECRET}@proxy.example.com:3128")
    assert "ALL_PROXY) cannot be reached: the host was not found" in fails(HTTPS, retried=False)


@pytest.mark.parametrize("reply", [b"", b"SSH-2.0-OpenSSH\r\n"])
def test_a_proxy_that_speaks_no_http(
    fails: Any, listen: Any, monkeypatch: pytest.MonkeyPatch, reply: bytes
) -> None:
    """A proxy under load may also hang up."""
    _proxy(monkeypatch, listen(reply).port)
    assert "the connection broke off before it was complete" in fails(HTTPS, retried=True)


def test_a_proxy_that_is_said_to_speak_tls(
    fails: Any, listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment names an https proxy that does not speak TLS."""
    port = listen(b"HTTP/1.1 400 Bad Request\r\n\r\n").port
    monkeypatch.setenv("HTTPS_PROXY", f"https://user:{SECRET}@127.0.0.1:{port}")
    assert "cannot be reached: the TLS handshake failed" in fails(HTTPS, retried=False)


@pytest.mark.parametrize(
    "address",
    [
        *(
            "http://",
            "http://:3128",
            "ftp://user:s3cret@proxy:21",
            "http://user:s3cret@proxy:99999",
        ),
        *(
            "http://user:s3cret@[::1",
            "http://us\u20acr:s3cret@127.0.0.1:1",
            "http://a:s3cret/@p:1",
        ),
    ],
)
def test_an_invalid_address_of_a_proxy(
    fails: Any, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    """Nothing of the address is shown, since a part of it may be a password."""
    monkeypatch.setenv("HTTPS_PROXY", address)
    assert "ALL_PROXY) has no valid address" in fails(HTTPS, retried=False)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4"])
def test_a_socks_proxy(fails: Any, monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    """It would need a package that nothing else here needs."""
    monkeypatch.setenv("ALL_PROXY", f"{scheme}://user:{SECRET}@127.0.0.1:1080")
    assert "is a SOCKS proxy, for which there is no support" in fails(HTTPS, retried=False)


def test_an_error_of_tls_is_told_from_its_lookalikes() -> None:
    """The first entry that fits counts, so each kind of error must come before its base
    classes."""
    from shared.network import _REASONS

    earlier: list[type[Exception]] = []
    for types, _, _ in _REASONS:
        for kind in types if isinstance(types, tuple) else (types,):
            assert not issubclass(kind, tuple(earlier))
            earlier.append(kind)
    assert ssl.SSLError in earlier


def test_a_deadline_that_passes_while_connecting(
    listen: Callable[..., Listener], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is sent after it: there was no socket to shut when it passed."""
    listener, look_up = listen(JSON + b'{"a": 1}', stay=True), socket.getaddrinfo

    def slow(*arguments: Any, **options: Any) -> Any:
        for thread in threading.enumerate():
            if isinstance(thread, threading.Timer):
                thread.join(10)  # until the deadline has passed
        return look_up(*arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    monkeypatch.setattr("shared.rest.DEADLINE", 0.001)
    with pytest.raises(SourceUnavailable, match="timed out connecting"):
        RestClient(f"http://127.0.0.1:{listener.port}", 30, Retry(0)).get("/a")
    assert listener.heard in ([], [b""])


def test_a_deadline_shuts_the_socket_within_a_tunnel() -> None:
    """As of TLS within TLS, behind a proxy of HTTPS; what is closed already holds nothing up."""
    closed, near = socket.socket(), socket.socketpair()
    closed.close()
    with Deadline(0.01) as deadline:
        for sock in (closed, SimpleNamespace(socket=near[0])):
            deadline.watch(cast("HTTPConnection", SimpleNamespace(sock=sock)))
        assert near[1].recv(1) == b""  # the end of what was sent
    assert deadline.passed
    for each in near:
        each.close()


# Closing


def test_closing_ends_a_handshake() -> None:
    """Of which a socket is a part that the connection does not know yet."""
    closing = RestClient("", 30, Retry(0))
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:

        def serve() -> None:
            accepted = stack.enter_context(listener.accept()[0])
            accepted.recv(1)
            closing.closed.set()

        thread = threading.Thread(target=serve)
        thread.start()
        closing.base_url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(SourceError, match="the sync has ended"):
            closing.get("/a")
        thread.join()
    assert time.monotonic() - began < 5


@pytest.mark.posix
def test_closing_ends_an_attempt_to_connect(monkeypatch: pytest.MonkeyPatch) -> None:
    """To a host that drops what it is sent, as a full queue of connections does."""
    closing, slices = RestClient("", 30, Retry(0)), list[float]()

    def second(end: float, closed: Closed) -> float:
        slices.append(end)
        if len(slices) > 2:  # the first is that of the look-up
            closing.closed.set()
        return time_slice(end, closed)

    time_slice = network.time_slice
    monkeypatch.setattr(network, "time_slice", second)
    with socket.socket() as listener, ExitStack() as waiting:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            each = waiting.enter_context(socket.socket())
            each.setblocking(False)
            each.connect_ex(listener.getsockname())
        closing.base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(SourceError, match="the sync has ended"):
            closing.get("/a")
    assert len(slices) == 3


def test_closing_ends_a_look_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The DNS may take a minute, and nothing wakes who asks it; nor does the timeout."""
    closed, told = Closed(), threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: told.wait(10))
    with pytest.raises(TimeoutError):
        look_up("db.example.com", 1433, 0.01, closed)
    closed.set()
    with pytest.raises(ConnectionAbortedError):
        look_up("db.example.com", 1433, 30, closed)
    told.set()


def test_what_is_watched_after_closing_is_shut() -> None:
    """A connection that is made at the same moment."""
    closed, (near, far) = Closed(), socket.socketpair()
    with near, far:
        closed.set()
        closed.watch(near)
        assert far.recv(1) == b""


def test_no_request_begins_after_closing() -> None:
    """Of calls that wait for their turn."""
    closing = RestClient("http://127.0.0.1:9", 30, Retry(3))
    closing.closed.set()
    with pytest.raises(SourceError, match="the sync has ended"):
        closing.get("/a")
