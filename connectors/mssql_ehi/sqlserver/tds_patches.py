"""python-tds 1.17.1 with parts of it replaced, where it is wrong, and no parameter helps.

Importing this module applies the patches, once, to the whole process. Each function below replaces
one of the driver; its docstring says what it mends, and where that is reported. Where no report is
named, none was found, and the fault was seen in the version that VERSION names. PATCHES lists all.
"""

import base64
import codecs
import copy
import ipaddress
import logging
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytds
import pytds.collate
import pytds.login
import pytds.tds_base
import pytds.tds_reader
import pytds.tds_session
import pytds.tds_types
import pytds.tds_writer
import pytds.tls
import pytds.utils
import requests
from cryptography import x509
from OpenSSL import SSL, crypto

from shared.errors import SourceError, TransientError
from shared.network import Closed, open_socket

from .errors import ServerUnreachable, UndecodableRow

VERSION = "1.17.1"  # of python-tds, for which the patches were written
SYSTEM, ANYONE = "the system's authorities", "any certificate"
# The driver's messages may quote a name or a value. Without a handler its warnings go to stderr.
logging.getLogger("pytds").addHandler(logging.NullHandler())
LARGEST_VALUE = 256 * 1024 * 1024  # bytes, unless the settings say otherwise
_MOST_REDIRECTS = 2
# As Microsoft's own drivers; then up to nine times before the connection counts as lost.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPALIVE": 30, "TCP_KEEPINTVL": 10}
_LARGEST_LOGIN = 64 * 1024  # bytes; the longest chains of certificates have half of it
_MOST_MESSAGES = 100  # responses and their tokens, in a login, which has about twenty
_MOST_TOKENS = 1_000  # of a response, without its rows
_MOST_EMPTY = 20  # packets without data in a row, within a value
_LARGEST_PACKET = 32_767  # bytes, [MS-TDS] 2.2.6.4
_JOINED = 64 * 1024  # bytes of a value that are kept in one piece
_PYTHONS_NTLM = 8  # spnego.NegotiateOptions.use_ntlm: the same on every system
_PEM = re.compile("-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)


class LoginLimits:
    """What one login may take, its redirects included: twice ``timeout`` seconds, of which no more
    than ``timeout`` pass in silence, and no more bytes and messages than a server needs for it.

    ``closed``, when it is set, ends the login, and later the connection. ``largest_value``: bytes
    that a value may have in any response.
    """

    def __init__(
        self, timeout: float, closed: Closed | None = None, largest_value: int = LARGEST_VALUE
    ) -> None:
        self.closed, self.largest_value = closed or Closed(), largest_value
        self._timeout, self._ends = timeout, time.monotonic() + 2 * timeout
        self._redirects = self._bytes = self._messages = 0

    def seconds(self) -> float:
        """How long to wait for the server now. Raises ServerUnreachable when the time is over."""
        left = self._ends - time.monotonic()
        if left <= 0:
            raise ServerUnreachable(
                f"connecting: the login was not complete after {2 * self._timeout:g} s, which is "
                "twice login_timeout_seconds"
            )
        return min(left, self._timeout)

    def note_redirect(self) -> None:
        """Raises SourceError after too many, as the methods below do."""
        if self._redirects == _MOST_REDIRECTS:
            raise SourceError(
                f"connecting: the server redirected the login {_MOST_REDIRECTS} times. Check "
                "mssql_server, and where its listener or gateway sends logins to"
            )
        self._redirects += 1

    def note_bytes(self, count: int) -> None:
        self._bytes += count
        if self._bytes > _LARGEST_LOGIN:
            raise _refused_login(f"more than {_LARGEST_LOGIN:,} bytes")

    def note_message(self) -> None:
        self._messages += 1
        if self._messages > _MOST_MESSAGES:
            raise _refused_login(f"more than {_MOST_MESSAGES} messages")


def _refused_login(what: str) -> SourceError:
    return SourceError(
        f"connecting: the server sent {what} before the login was complete. Check that "
        "mssql_server and mssql_port are those of a SQL Server"
    )


class _LoginSocket:
    """What the driver takes for a socket. It keeps to the limits until it is released."""

    def __init__(self, connected: socket.socket, limits: LoginLimits) -> None:
        self._socket, self._limits = connected, limits
        self.recv: Callable[[int], bytes] = self._recv
        self.recv_into: Callable[[Any, int], int] = self._recv_into

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)

    def release(self) -> None:
        """The login is complete."""
        self.recv, self.recv_into = self._socket.recv, self._socket.recv_into

    def _recv(self, size: int) -> bytes:
        data = bytearray(size)
        return bytes(data[: self._recv_into(data, size)])

    def _recv_into(self, buffer: Any, size: int) -> int:
        self._socket.settimeout(self._limits.seconds())
        try:
            count = self._socket.recv_into(buffer, size)
        except TimeoutError:
            self._limits.seconds()
            raise
        self._limits.note_bytes(count)
        return count


def connect(trust: str | None, limits: LoginLimits, **options: Any) -> Any:
    """``pytds.connect``. ``trust``: PEM text, SYSTEM, ANYONE, or None for no encryption at all."""
    # The driver hands over ``sock`` to what replaces its ``_connect``.
    return pytds.connect(cafile=trust, validate_host=trust != ANYONE, sock=limits, **options)


class WindowsLogin(pytds.login.SpnegoAuth):  # type: ignore[misc]
    """A login by NTLMv2 with the password of a Windows account, which is not sent."""

    def __init__(self, domain: str, user: str, password: str, host: str) -> None:
        self._account, self._password, self._host = f"{domain}\\{user}", password, host

    def create_packet(self) -> bytes:
        """The first message, of a new exchange: a redirected login is another one."""
        super().__init__(
            self._account,
            self._password,
            hostname=self._host,
            service="MSSQLSvc",
            protocol="ntlm",
            options=_PYTHONS_NTLM,
        )
        packet: bytes = super().create_packet()
        return packet


def parse_certificates(text: str) -> list[x509.Certificate]:
    """The certificates of a PEM text, of which a form may have taken the line ends.

    Raises ValueError if there is none, or one that cannot be read.
    """
    found = [re.sub(r"\\n|\s", "", body) for body in _PEM.findall(text)]
    if not found:
        raise ValueError
    return [x509.load_der_x509_certificate(base64.b64decode(body)) for body in found]


def _create_context(trust: str) -> SSL.Context:
    """Replaces ``pytds.tls.create_context``, which trusts only the authorities in a file.

    Here a PEM text, the system's authorities or any certificate may be trusted.
    https://github.com/denisenkom/pytds/issues/162 (closed, not planned)
    """
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_max_proto_version(SSL.TLS1_2_VERSION)  # TDS 7.4 wraps the handshake of no other
    if trust == ANYONE:
        return context
    context.set_verify(SSL.VERIFY_PEER)
    if trust == SYSTEM:
        context.set_default_verify_paths()
        # Windows has no such paths: there Python reads the system's own store.
        authorities = ssl.create_default_context().get_ca_certs(binary_form=True)
        certificates = [crypto.load_certificate(crypto.FILETYPE_ASN1, der) for der in authorities]
        if not certificates:
            context.load_verify_locations(requests.certs.where())  # type: ignore[attr-defined]
    else:
        certificates = [crypto.X509.from_cryptography(c) for c in parse_certificates(trust)]
    store = context.get_cert_store()
    for certificate in certificates:
        if store is not None:
            store.add_cert(certificate)
    return context


def _validate_host(cert: crypto.X509, name: bytes) -> bool:
    """Replaces ``pytds.tls.validate_host``, which calls a method that pyOpenSSL 26.2 removed,
    accepts the common name for the host's, and knows no IP addresses.

    https://github.com/denisenkom/pytds/issues/199
    """
    try:
        extensions = cert.to_cryptography().extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return False
    wanted = name.decode("ascii").lower().rstrip(".")
    try:
        return ipaddress.ip_address(wanted) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        accepted = {wanted, f"*.{wanted.partition('.')[2]}"}
    return any(entry.lower() in accepted for entry in names.get_values_for_type(x509.DNSName))


def _connect(
    login: Any, host: str, port: int, timeout: float, sock: LoginLimits | None, **options: Any
) -> Any:
    """Replaces ``pytds._connect``, which tries the addresses of a host one after the other, each
    for the whole timeout; which takes the name of an instance behind a backslash, to which Azure
    redirects a login, for a part of the host's name; which follows redirects without end; and
    which reads whatever a server sends for as long as it sends anything.

    ``sock``: the limits of the login. Raises SourceError where one is passed. Why the driver tries
    addresses one after the other: https://github.com/denisenkom/pytds/issues/56
    """
    limits: LoginLimits | None = getattr(login, "limits", None)
    if limits is None:
        limits = login.limits = sock or LoginLimits(timeout)
        login.largest_value = limits.largest_value
    else:
        limits.note_redirect()
    login.named = host
    address, _, _ = host.partition("\\")
    connected = open_socket(address, port, limits.seconds(), limits.closed)
    _keep_alive(connected)
    limited = _LoginSocket(connected, limits)
    options |= {"host": address, "port": port, "timeout": limits.seconds(), "sock": limited}
    try:
        connection = _original_connect(login=login, **options)
    except BaseException:
        connected.close()
        raise
    limited.release()
    login.limits = None
    return connection


def _keep_alive(connected: socket.socket) -> None:
    """Has the system send something when nothing came for _KEEP_ALIVE seconds: the networks of
    clouds forget a connection on which a query takes minutes before its first row. The driver
    switches that on, but leaves the two hours that are the system's default.

    https://learn.microsoft.com/azure/load-balancer/load-balancer-tcp-reset
    """
    for name, seconds in _KEEP_ALIVE.items():
        if hasattr(socket, name):  # macOS has another name for the first
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)


def _begin_response(reader: Any) -> Any:
    """Replaces ``_TdsReader.begin_response``, which does not count the responses of a login."""
    reader.session.tokens = 0
    _note_message(reader.session)
    return _original_begin_response(reader)


def _get_token_id(session: Any) -> int:
    """Replaces ``_TdsSession.get_token_id``, which lets a server send messages without end in
    place of rows. Raises SourceError."""
    token: int = _original_get_token_id(session)
    if token not in _ROWS:
        session.tokens = getattr(session, "tokens", 0) + 1
        if session.tokens > _MOST_TOKENS:
            raise SourceError(
                f"the server sent more than {_MOST_TOKENS:,} messages beside the rows of a "
                "response, which is none of a SQL Server"
            )
    return token


def _process_token(session: Any, token: int) -> Any:
    """Replaces ``_TdsSession.process_token``, which does not count the messages of a login."""
    _note_message(session)
    return _original_process_token(session, token)


def _note_message(session: Any) -> None:
    limits = getattr(session._tds._login, "limits", None)
    if limits is not None:
        limits.note_message()


def _process_end(session: Any, marker: int) -> None:
    """Replaces ``_TdsSession.process_end``, which takes the end of a result that the server had to
    give up (DONE_SRVERROR) for that of a complete one.

    [MS-TDS] 2.2.7.6
    """
    _original_process_end(session, marker)
    if session.done_flags & pytds.tds_base.TDS_DONE_SRVERROR and not session.in_cancel:
        session.raise_db_exception()


def _raise_db_exception(session: Any) -> None:
    """Replaces ``_TdsSession.raise_db_exception``, which takes the last message for the error,
    also where that is only information, as behind the refusal of a logon trigger. Raises
    TransientError where there is no error among them."""
    is_error = pytds.tds_base.TDS_ERROR_TOKEN
    session.messages = [m for m in session.messages if m["marker"] == is_error]
    if not session.messages:
        raise TransientError("the server ended a response by an error without a message")
    _original_raise(session)


def _process_param(session: Any) -> None:
    """Replaces ``_TdsSession.process_param``, which keeps output parameters of any size: no
    statement here has one."""
    session.process_param()
    session.output_params.clear()


def _set_packet_size(writer: Any, size: int) -> None:
    """Replaces the setter of ``_TdsWriter.bufsize``, which makes buffers of any size."""
    if size > _LARGEST_PACKET:
        raise SourceError(
            f"the server asks for packets of {size:,} bytes, and a SQL Server has at most "
            f"{_LARGEST_PACKET:,}"
        )
    _original_bufsize.fset(writer, size)


def _answer_challenge(session: Any) -> None:
    """Replaces ``_TdsSession.process_auth``, which sends the response to the server's challenge in
    a packet of the login's type, where MS-TDS demands one of type SSPI.

    https://learn.microsoft.com/openspecs/windows_protocols/ms-tds/dc57840a-d13b-43a1-aad3-5425afadbc0c
    """
    reader, writer = session._reader, session._writer
    challenge = pytds.tds_base.readall(reader, reader.get_usmallint())
    if not session.authentication:
        raise pytds.Error("a challenge that was not asked for")
    writer.begin_packet(pytds.tds_base.PacketType.AUTH)
    writer.write(session.authentication.handle_next(challenge))
    writer.flush()


def _send_login(session: Any, login: Any) -> None:
    """Replaces ``_TdsSession.tds7_send_login``, which counts characters where the server counts
    UTF-16 units, so that an emoji in a password breaks the login; and which does not send the
    instance to which a login was redirected."""
    sent = copy.copy(login)
    sent.server_name = login.named
    for name in ("user_name", "password", "database", "client_host_name"):
        setattr(sent, name, _in_units(getattr(login, name)))
    _original_send_login(session, sent)


def _in_units(text: str) -> str:
    """The text with two halves, which the driver counts as the server does, in place of each
    character beyond the basic plane."""
    encoded = text.encode("utf-16-le", "surrogatepass")
    units = (encoded[i : i + 2] for i in range(0, len(encoded), 2))
    return "".join(unit.decode("utf-16-le", "surrogatepass") for unit in units)


def _attempt_once(work: Any, ex_handler: Any, max_time_sec: float, **_: Any) -> Any:  # noqa: ARG001
    """Replaces ``pytds.utils.exponential_backoff``, by which the driver retries a login into a
    database that does not exist until the login times out, which hides the reason."""
    return work(max_time_sec)


# Replaces the codec ``ucs2_codec``, which raises UnicodeDecodeError for half of a surrogate pair,
# in the middle of a row, so that the connection is lost. SQL Server stores such text, for example
# where it was cut. Here it is read, and its value becomes null.
_UCS2 = SimpleNamespace(
    encode=lambda text: codecs.utf_16_le_encode(text, "surrogatepass"),
    decode=lambda data: codecs.utf_16_le_decode(data, "surrogatepass", True),
    incrementaldecoder=partial(codecs.getincrementaldecoder("utf_16_le"), errors="surrogatepass"),
)


def _charset_of_sort_order(sort_id: int) -> str:
    """Replaces ``pytds.collate.sortid2charset``, which raises Exception for collations that it
    does not know, such as SQL_EBCDIC037_CP1_CS_AS: no result with a varchar could be read.

    They are of code page 1252; and the server converts all text to nvarchar here but numbers and
    times, which are ASCII.
    https://learn.microsoft.com/sql/relational-databases/system-functions/sys-fn-helpcollations-transact-sql
    """
    try:
        charset: str = _original_charset(sort_id)
    except Exception:  # the driver raises no other
        return "CP1252"
    return charset


def _read_whole(reader: Any, size: int) -> tuple[Any, int]:
    """Replaces ``readall_fast`` for the fixed-size values of ``_TdsReader.unpack``. It takes bytes
    that an earlier, longer packet left in the buffer for data, and where a value spans packets it
    may return less than asked for.

    Returns a buffer, and where in it the ``size`` bytes begin.
    https://github.com/denisenkom/pytds/issues/116
    """
    begin = reader._pos
    if begin + size <= reader._size:
        reader._pos = begin + size  # as read_fast does, without a call for each value
        return reader._buf, begin
    return pytds.tds_base.readall(reader, size), 0


def _max_chunks(value: Any) -> Iterator[bytes]:
    """Replaces ``PlpReader.chunks`` for values of MAX types and XML, which reads values of any
    size. Where the last packet of a response ends within a chunk, it asks the reader for the rest
    again and again, without end.

    Raises ClosedConnectionError there, as the driver does for values of all other types, and
    UndecodableRow for a value that is too large.
    """
    reader, total, empty = value._rdr, 0, 0
    if not (value.is_null() or value.is_unknown_len()):
        _check_size(reader, value.size())
    for chunk in _original_max_chunks(value):
        empty = 0 if chunk else empty + 1  # a packet without data
        if empty > _MOST_EMPTY or (empty and reader.stream_finished()):
            raise pytds.ClosedConnectionError
        total += len(chunk)
        _check_size(reader, total)
        yield chunk


def _read_chunks(reader: Any, size: int) -> Iterator[bytes]:
    """Replaces ``tds_base.read_chunks``, which reads values of any size, in pieces as small as the
    server likes, each of which is an object that callers keep. Raises UndecodableRow for one that
    is too large."""
    _check_size(reader, size)
    joined, left = bytearray(), size
    chunk = reader.recv(left) if left else b""
    while len(chunk) < left:
        if not chunk:
            raise pytds.ClosedConnectionError
        joined += chunk
        left -= len(chunk)
        if len(joined) >= _JOINED:
            yield bytes(joined)
            joined.clear()
        chunk = reader.recv(left)
    yield bytes(joined + chunk) if joined else chunk


def _check_size(reader: Any, size: int) -> None:
    largest = getattr(reader._session._tds._login, "largest_value", LARGEST_VALUE)
    if not 0 <= size <= largest:
        raise UndecodableRow(
            f"reading: a value has more than {largest:,} bytes, which max_value_mebibytes allows"
        )


@dataclass(frozen=True)
class Patch:
    """The ``name`` of a module, a class or a dict of the driver, and its ``replacement``."""

    owner: Any
    name: Any
    replacement: Any
    original: Any

    @classmethod
    def of(cls, owner: Any, name: Any, replacement: Any) -> "Patch":
        original = owner[name] if isinstance(owner, dict) else getattr(owner, name)
        return cls(owner, name, replacement, original)

    def apply(self) -> None:
        self._set(self.replacement)

    def revert(self) -> None:
        """For whoever needs the driver as it is, such as tests of the simulator."""
        self._set(self.original)

    def _set(self, value: Any) -> None:
        if isinstance(self.owner, dict):
            self.owner[self.name] = value
        else:
            setattr(self.owner, self.name, value)


_session_class = pytds.tds_session._TdsSession
_reader_class = pytds.tds_reader._TdsReader
_writer_class = pytds.tds_writer._TdsWriter
_ROWS = (pytds.tds_base.TDS_ROW_TOKEN, pytds.tds_base.TDS_NBC_ROW_TOKEN)
_original_connect = pytds._connect
_original_charset = pytds.collate.sortid2charset
_original_send_login = _session_class.tds7_send_login
_original_begin_response = _reader_class.begin_response
_original_get_token_id = _session_class.get_token_id
_original_process_token = _session_class.process_token
_original_process_end = _session_class.process_end
_original_raise = _session_class.raise_db_exception
_original_bufsize = _writer_class.bufsize
_original_max_chunks = pytds.tds_types.PlpReader.chunks
PATCHES = (
    Patch.of(pytds.tls, "create_context", _create_context),
    Patch.of(pytds.tls, "validate_host", _validate_host),
    Patch.of(pytds.utils, "exponential_backoff", _attempt_once),
    Patch.of(pytds.collate, "sortid2charset", _charset_of_sort_order),
    Patch.of(pytds.tds_reader, "readall_fast", _read_whole),
    Patch.of(pytds.tds_types, "ucs2_codec", _UCS2),
    Patch.of(pytds.tds_base, "ucs2_codec", _UCS2),
    Patch.of(pytds.tds_writer, "ucs2_codec", _UCS2),
    Patch.of(pytds.tds_types.PlpReader, "chunks", _max_chunks),
    Patch.of(pytds.tds_base, "read_chunks", _read_chunks),
    Patch.of(pytds.tds_types, "read_chunks", _read_chunks),
    Patch.of(_writer_class, "bufsize", property(_original_bufsize.fget, _set_packet_size)),
    Patch.of(_reader_class, "begin_response", _begin_response),
    Patch.of(_session_class, "get_token_id", _get_token_id),
    Patch.of(_session_class, "process_token", _process_token),
    Patch.of(_session_class, "process_end", _process_end),
    Patch.of(_session_class, "raise_db_exception", _raise_db_exception),
    Patch.of(_session_class, "tds7_send_login", _send_login),
    Patch.of(pytds, "_connect", _connect),
    Patch.of(pytds.tds_session._token_map, pytds.tds_base.TDS_AUTH_TOKEN, _answer_challenge),
    Patch.of(pytds.tds_session._token_map, pytds.tds_base.TDS_PARAM_TOKEN, _process_param),
)
for _patch in PATCHES:
    _patch.apply()
