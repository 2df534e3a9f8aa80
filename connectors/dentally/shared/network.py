"""Connections to a source: the reason in a sentence where one fails, and a deadline for each
response.

A kind of failure is told by the types of exceptions, never by a word of their messages, which may
hold a URL. The sentences name no host either: with a damaged proxy URL, libraries take a part of
the password for the host.
"""

import errno
import ipaddress
import os
import queue
import re
import selectors
import socket
import ssl
import threading
import time
import weakref
from contextlib import suppress
from functools import cached_property
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from typing import Any, cast
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import BaseHTTPError  # type: ignore[attr-defined]
from requests.utils import select_proxy
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, ProxyManager
from urllib3.connection import HTTPConnection, HTTPSConnection

_PROXY = "the proxy that the environment names (HTTPS_PROXY, HTTP_PROXY or ALL_PROXY)"
PROXY_REFUSES = f"{_PROXY} refuses the request. Check its user, its password and its rules"
_NO_SOCKS = f"{_PROXY} is a SOCKS proxy, for which there is no support. Name an HTTP proxy"
_NO_PROXY_URL = f"{_PROXY} has no valid address. It must be like http://proxy.example.com:3128"
_NO_AUTHORITIES = (
    "the file of certificate authorities is missing, unreadable or no PEM file. Check the path in "
    "REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE"
)
_NOT_FOUND = "the host was not found. Check its name, and whether the DNS here knows it"
_NOT_VERIFIED = "the TLS certificate could not be verified"
_NO_HANDSHAKE = (
    "the TLS handshake failed: what listens there speaks no TLS, or has no version of it in "
    "common with this client. Check the address and its port"
)
_NOT_LOOKED_UP = "the address of the host could not be looked up: the DNS fails at the moment"
_NO_ROUTE = "the network has no way to the host"
_LOST = "the connection broke off before it was complete"
_REFUSED = "the connection was refused: nothing listens at that port, or a firewall refuses it"
_TIMED_OUT = "timed out connecting: the host is down, or a firewall drops what it is sent"

# Python leaves some control characters out, and browsers take a backslash for a slash.
_CONTROL = re.compile(r"[\x00-\x1f\x7f]|^[^?]*\\")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[^\s%@\[\]:]+)(?::[0-9]{0,5})?")
_DOTS = re.compile(r"/(?:\.|%2e){1,2}(?:/|$)", re.IGNORECASE)

# Not every platform has every one. All other codes mean that the DNS gave no response.
_NO_SUCH_HOST = {
    getattr(socket, name, socket.EAI_NONAME)
    for name in ("EAI_NONAME", "EAI_NODATA", "EAI_ADDRFAMILY")
}
# X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH, whose messages hold the host.
_OTHER_HOST = (62, 64)
_SLICE = 0.2  # seconds between two looks at an event that cannot wake who waits
# What a connection's failure comes from, and whether it is final. The first that fits counts:
# most are subclasses of others.
_REASONS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, bool], ...] = (
    (ssl.SSLCertVerificationError, _NOT_VERIFIED, True),
    ((ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError), _LOST, False),
    (ssl.SSLError, _NO_HANDSHAKE, True),
    ((ConnectionResetError, ConnectionAbortedError, BrokenPipeError), _LOST, False),
    (HTTPException, _LOST, False),  # a proxy that speaks no HTTP, or hangs up
    (ConnectionRefusedError, _REFUSED, False),
    (TimeoutError, _TIMED_OUT, False),
    (ValueError, _NOT_FOUND, True),  # a name that no host can have
)


def is_ambiguous(url: str) -> bool:
    """Whether it may depend on the library to which host, or which path, an absolute ``url``
    leads: it has control characters, a backslash before its query, a user name (``@``), an
    escaped host, no valid port, or segments of dots."""
    try:
        parts = urlsplit(url)
        return bool(
            _CONTROL.search(url)
            or not _HOST.fullmatch(parts.netloc)
            or parts.port == 0
            or _DOTS.search(parts.path)
        )
    except ValueError:
        return True


def is_loopback(host: str | None) -> bool:
    """Whether ``host`` is this machine, by its name or address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


class NoConnection(Exception):
    """Why there is no connection, in a sentence. ``final``: no retry changes that."""

    def __init__(self, reason: str, *, final: bool) -> None:
        super().__init__(reason)
        self.final = final


LONGEST_UNINTERRUPTED = 0.5  # seconds that the main thread waits before it looks for signals


class Closed(threading.Event):
    """Set, it ends what threads wait for: their back-offs, and the sockets that it watches."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    @cached_property
    def interrupted(self) -> "Closed":
        """Is set by ``end`` at Ctrl-C alone: for a request whose response must not be lost."""
        return Closed()

    def end(self, error: BaseException) -> None:
        """Is set because of ``error``, which a caller has met."""
        self.set()
        if not isinstance(error, (Exception, GeneratorExit)):  # such as Ctrl-C
            self.interrupted.set()

    def set(self) -> None:
        """Wakes all threads. The sockets are of no use afterwards."""
        with self._lock:
            super().set()
            watched = list(self._sockets)
        for each in watched:
            _shut(each)

    def watch(self, each: socket.socket) -> None:
        """Shuts the socket down when the event is set, or at once if it is set already."""
        with self._lock:
            self._sockets.add(each)
            is_set = self.is_set()
        if is_set:
            _shut(each)


def _shut(each: socket.socket) -> None:
    with suppress(OSError):  # it is closed already
        # Not the method of a TLS socket, which must not be called meanwhile.
        socket.socket.shutdown(each, socket.SHUT_RDWR)


def open_socket(host: str, port: int, seconds: float, closed: Closed) -> socket.socket:
    """A connection to the first address of a host that accepts one, within so many seconds. Raises
    OSError, also when ``closed`` is set.

    All are tried at once: the listener of an availability group has an address in each subnet, and
    those that are offline do not respond.
    """
    end = time.monotonic() + seconds
    sockets, failure = _start_connecting(look_up(host, port, seconds, closed))
    waiting = selectors.DefaultSelector()
    try:
        for each in sockets:
            waiting.register(each, selectors.EVENT_WRITE, each)
        while waiting.get_map():
            for key, _ in waiting.select(time_slice(end, closed)):
                waiting.unregister(key.fileobj)
                connected: socket.socket = key.data
                code = connected.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if not code:
                    sockets.remove(connected)
                    closed.watch(connected)
                    return connected
                failure = OSError(code, os.strerror(code))
    finally:
        waiting.close()
        for each in sockets:
            each.close()
    raise failure


def look_up(
    host: str, port: int, seconds: float, closed: Closed, kind: int = socket.SOCK_STREAM
) -> list[Any]:
    """What ``socket.getaddrinfo`` tells within so many seconds. Raises OSError, also when
    ``closed`` is set.

    Nothing wakes a thread that asks the DNS, so a thread asks that nobody has to wait for.
    """
    end = time.monotonic() + seconds
    told: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def ask() -> None:
        try:
            told.put(socket.getaddrinfo(host, port, type=kind))
        except Exception as error:
            told.put(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    while True:
        with suppress(queue.Empty):
            found = told.get(timeout=time_slice(end, closed))
            asking.join()  # it ends now
            if isinstance(found, Exception):
                raise found
            return list(found)


def time_slice(end: float, closed: Closed) -> float:
    """Seconds to wait at once for what ``closed`` cannot wake, up to ``end`` (monotonic). Raises
    OSError when the time is over, or ``closed`` is set."""
    left = end - time.monotonic()
    if closed.is_set():
        raise ConnectionAbortedError
    if left <= 0:
        raise TimeoutError
    return min(left, _SLICE)


def _start_connecting(found: list[Any]) -> tuple[list[socket.socket], OSError]:
    """A socket that connects to each address of a host, and the error of the last address that
    refused at once."""
    failure = OSError("the host has no address")
    sockets = []
    for family, kind, protocol, _, address in found:
        with suppress(OSError):  # a family that this machine does not have
            each = socket.socket(family, kind, protocol)
            each.setblocking(False)
            try:
                each.connect(address)
            except BlockingIOError:
                sockets.append(each)
            except OSError as error:
                each.close()
                failure = error
            else:
                sockets.append(each)
    return sockets, failure


class Deadline:
    """Seconds from the first connection that a response may take, in the thread that enters this
    context.

    The read timeout starts again at each byte, so a header or a body that trickles could last for
    ever. When the time is over, the sockets of the response are shut down: whoever waits for them
    gets an error, and ``passed`` is true. A timer does it, since the libraries read headers, and
    compressed bodies, in loops of their own that no caller can leave. ``closed`` does so, too.
    """

    def __init__(self, seconds: float, closed: Closed | None = None) -> None:
        self.passed, self.closed = False, closed or Closed()
        self._lock, self._over = threading.Lock(), False
        self._connections: list[HTTPConnection] = []
        self._sockets: list[socket.socket] = []
        self._twins: list[socket.socket] = []  # of new ones, which are closed at the end
        self._timer = threading.Timer(seconds, self._pass)
        self._timer.daemon = True
        self._outer: Deadline | None = None

    def __enter__(self) -> "Deadline":
        self._outer, _current.deadline = getattr(_current, "deadline", None), self
        return self

    def __exit__(self, *_: object) -> None:
        _current.deadline = self._outer
        self._timer.cancel()
        with self._lock:
            self._over = True  # the connection may be used for another response now
            for each in self._twins:
                each.close()

    def watch(self, connection: HTTPConnection) -> None:
        """Notes a connection that is made or used for the response. Its socket is kept, too: the
        connection forgets one that the server closes after the response."""
        with self._lock:
            if not self._connections:
                self._timer.start()  # not before: the credentials may need a request of their own
            self._connections.append(connection)
            if connection.sock is not None:
                self._sockets.append(_innermost(connection.sock))
                self.closed.watch(self._sockets[-1])

    def watch_handshake(self, connected: socket.socket) -> None:
        """Notes a new socket, which a TLS connection takes for its own before the handshake."""
        twin = connected.dup()
        with self._lock:
            self._twins.append(twin)
        self.closed.watch(twin)

    def _pass(self) -> None:
        with self._lock:
            if self._over:
                return
            self.passed = True
            made = [connection.sock for connection in self._connections]
            for each in [*self._sockets, *self._twins, *made]:
                if each is not None:
                    _shut(_innermost(each))


def _innermost(each: Any) -> socket.socket:
    """TLS within TLS, as behind a proxy of HTTPS, has the socket inside."""
    inner: socket.socket = getattr(each, "socket", each)
    return inner


_current = threading.local()


class _FinalResponse(HTTPResponse):
    """Passes interim responses by, such as 103 (Early Hints), which a source may send unasked
    before any response (RFC 9110, 15.2). ``http.client`` does so with 100 alone, and takes another
    one for the response; the real one would be taken for that of the next request.

    https://github.com/python/cpython/issues/42550
    """

    def begin(self) -> None:
        super().begin()
        while 100 < self.status < 200 and self.status != HTTPStatus.SWITCHING_PROTOCOLS:
            self.headers = None  # type: ignore[assignment]  # it reads others if there are none
            super().begin()


class _Explaining(HTTPConnection):
    """Raises NoConnection where no connection can be made, and keeps to the deadline."""

    response_class = _FinalResponse

    def connect(self) -> None:
        """Nothing but this method looks hosts up, opens connections, asks a proxy to pass them on,
        and shakes hands."""
        deadline = _watch(self)
        try:
            super().connect()
        except (OSError, HTTPException, BaseHTTPError, ValueError) as error:
            raise _no_connection(self, error) from None
        if deadline and deadline.passed:  # when there was no socket yet that could be shut
            self.close()
            raise NoConnection(_TIMED_OUT, final=False)

    def _new_conn(self) -> socket.socket:
        """Replaces a method of urllib3 that no other thread can wake."""
        deadline: Deadline | None = getattr(_current, "deadline", None)
        closed, timeout = deadline.closed if deadline else Closed(), cast("float", self.timeout)
        connected = open_socket(self._dns_host, self.port, timeout, closed)
        connected.settimeout(timeout)
        for option in self.socket_options or ():
            connected.setsockopt(*option)
        if deadline:
            deadline.watch_handshake(connected)
        return connected

    def getresponse(self) -> Any:
        _watch(self)
        return super().getresponse()


def _watch(connection: HTTPConnection) -> Deadline | None:
    deadline: Deadline | None = getattr(_current, "deadline", None)
    if deadline:
        deadline.watch(connection)
    return deadline


class _ExplainingTls(_Explaining, HTTPSConnection): ...


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Explaining


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _ExplainingTls


_POOLS = {"http": _Pool, "https": _TlsPool}


class Adapter(HTTPAdapter):
    """Raises NoConnection, and keeps to the Deadline of the thread."""

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        manager: Any = super().proxy_manager_for(proxy, **options)
        if type(manager) is ProxyManager:  # not one for SOCKS, which has pools of its own
            manager.pool_classes_by_scheme = _POOLS
        return manager

    def get_connection_with_tls_context(
        self, request: Any, verify: Any, proxies: Any = None, cert: Any = None
    ) -> Any:
        try:
            return super().get_connection_with_tls_context(request, verify, proxies, cert)
        except requests.exceptions.InvalidSchema:  # the schemes of requests are those of adapters
            raise NoConnection(_NO_SOCKS, final=True) from None
        except ValueError:
            if not select_proxy(request.url, proxies):
                raise
            raise NoConnection(_NO_PROXY_URL, final=True) from None

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        try:
            super().cert_verify(conn, url, verify, cert)  # type: ignore[no-untyped-call]
        except OSError:
            raise NoConnection(_NO_AUTHORITIES, final=True) from None
        authorities = conn.ca_certs or conn.ca_cert_dir
        if authorities and not os.access(authorities, os.R_OK):
            raise NoConnection(_NO_AUTHORITIES, final=True)


def _no_connection(connection: Any, error: Exception) -> NoConnection:
    # http.client has no other way to tell the status of a proxy's response to CONNECT.
    refusal = re.match(r"Tunnel connection failed: (\d{3})\b", str(error))
    if type(error) is OSError and refusal:
        status = int(refusal[1])
        if status in (408, 429) or status >= 500:
            reason = f"{_PROXY} did not get through to the host (status {status})"
            return NoConnection(reason, final=False)
        return NoConnection(f"status {status}: {PROXY_REFUSES}", final=True)
    reason, final = _reason(error)
    if connection.proxy and not connection.has_connected_to_proxy:
        reason = f"{_PROXY} cannot be reached: {reason}"
    return NoConnection(reason, final=final)


def _reason(error: Exception) -> tuple[str, bool]:
    """A sentence for what ``connect`` of urllib3 has raised, and whether that is final."""
    cause = error.__cause__ or error  # urllib3 wraps most of what the system says
    if isinstance(cause, socket.gaierror):
        missing = cause.errno in _NO_SUCH_HOST
        return (_NOT_FOUND if missing else _NOT_LOOKED_UP), missing
    if isinstance(cause, ssl.SSLError) and cause is not error:  # before the handshake
        return _NO_AUTHORITIES, True
    if type(error).__name__ == "CertificateError":  # urllib3's own
        return f"{_NOT_VERIFIED} (it is another host's)", True
    for types, sentence, final in _REASONS:
        if isinstance(cause, types):
            return f"{sentence}{_detail(cause)}", final
    return f"{_NO_ROUTE}{_detail(cause)}", False


def _detail(cause: BaseException) -> str:
    """What OpenSSL or the system calls it, as far as that is a constant of theirs."""
    name: str | None
    if isinstance(cause, ssl.SSLCertVerificationError):
        other_host = cause.verify_code in _OTHER_HOST
        name = "it is another host's" if other_host else cause.verify_message
    elif isinstance(cause, ssl.SSLError):
        name = cause.reason
    else:
        name = errno.errorcode.get(getattr(cause, "errno", None) or 0)
    return f" ({name})" if name else ""
