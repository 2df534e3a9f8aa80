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
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytds
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

from shared.errors import SourceError

from .addresses import open_socket

VERSION = "1.17.1"  # of python-tds, for which the patches were written
SYSTEM, ANYONE = "the system's authorities", "any certificate"
# The driver's messages may quote a name or a value. Without a handler its warnings go to stderr.
logging.getLogger("pytds").addHandler(logging.NullHandler())
_MOST_REDIRECTS = 10
_PYTHONS_NTLM = 8  # spnego.NegotiateOptions.use_ntlm: the same on every system
_PEM = re.compile("-----BEGIN CERTIFICATE-----(.+?)-----END CERTIFICATE-----", re.DOTALL)


def connect(trust: str | None, **options: Any) -> Any:
    """``pytds.connect``. ``trust``: PEM text, SYSTEM, ANYONE, or None for no encryption at all."""
    return pytds.connect(cafile=trust, validate_host=trust != ANYONE, **options)


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


def _connect(login: Any, host: str, port: int, timeout: float, **options: Any) -> Any:
    """Replaces ``pytds._connect``, which tries the addresses of a host one after the other, each
    for the whole timeout; which takes the name of an instance behind a backslash, to which Azure
    redirects a login, for a part of the host's name; and which follows redirects without end.

    Here connecting has ``timeout`` seconds in all, redirects included. Raises SourceError after
    too many redirects. Why the driver tries them one after the other:
    https://github.com/denisenkom/pytds/issues/56
    """
    if login.access_token_callable:  # which has a timeout of its own
        login.access_token, login.access_token_callable = login.access_token_callable(), None
    if not hasattr(login, "ends"):
        login.ends, login.redirects = time.monotonic() + timeout, 0
    elif login.redirects == _MOST_REDIRECTS:
        raise SourceError(
            f"connecting: the server redirected the login {_MOST_REDIRECTS} times. Check "
            "mssql_server, and where its listener or gateway sends logins to"
        )
    else:
        login.redirects += 1
    left = login.ends - time.monotonic()
    if left <= 0:
        raise TimeoutError
    login.named = host
    address, _, _ = host.partition("\\")
    options["sock"] = open_socket(address, port, left)
    left = max(login.ends - time.monotonic(), 0.001)
    try:
        return _original_connect(login=login, host=address, port=port, timeout=left, **options)
    except BaseException:
        options["sock"].close()
        raise


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
    """Replaces ``PlpReader.chunks`` for values of MAX types and XML. Where the last packet of a
    response ends within a chunk, it asks the reader for the rest again and again, without end.

    Raises ClosedConnectionError there, as the driver does for values of all other types.
    """
    for chunk in _original_max_chunks(value):
        if not chunk and value._rdr.stream_finished():  # else it was a packet without data
            raise pytds.ClosedConnectionError
        yield chunk


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
_original_connect = pytds._connect
_original_send_login = _session_class.tds7_send_login
_original_max_chunks = pytds.tds_types.PlpReader.chunks
PATCHES = (
    Patch.of(pytds.tls, "create_context", _create_context),
    Patch.of(pytds.tls, "validate_host", _validate_host),
    Patch.of(pytds.utils, "exponential_backoff", _attempt_once),
    Patch.of(pytds.tds_reader, "readall_fast", _read_whole),
    Patch.of(pytds.tds_types, "ucs2_codec", _UCS2),
    Patch.of(pytds.tds_base, "ucs2_codec", _UCS2),
    Patch.of(pytds.tds_writer, "ucs2_codec", _UCS2),
    Patch.of(pytds.tds_types.PlpReader, "chunks", _max_chunks),
    Patch.of(_session_class, "tds7_send_login", _send_login),
    Patch.of(pytds, "_connect", _connect),
    Patch.of(pytds.tds_session._token_map, pytds.tds_base.TDS_AUTH_TOKEN, _answer_challenge),
)
for _patch in PATCHES:
    _patch.apply()
