"""Certificates of a test authority, and the two transports: plain TCP and TLS inside TDS."""

from __future__ import annotations

import datetime as dt
import ipaddress
import select
import socket
import ssl
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.sandbox.mssql import wire

KINDS = ("valid", "wrong_host", "unknown_ca", "expired", "cn_only")

_SIGNS_CERTIFICATES = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


class Authority:
    """A certificate authority that lives as long as the object. From Python 3.13 on, clients
    insist on the identifiers of keys, and on what the authority's key is for."""

    def __init__(self, name: str = "Sandbox test CA") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name, identifier = _name(name), x509.SubjectKeyIdentifier.from_public_key
        now = dt.datetime.now(dt.timezone.utc)
        self._certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=30))
            .not_valid_after(now + dt.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_SIGNS_CERTIFICATES, critical=True)
            .add_extension(identifier(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )

    @property
    def pem(self) -> str:
        return self._certificate.public_bytes(serialization.Encoding.PEM).decode()

    def issue(self, common: str, names: list[str], *, expired: bool = False) -> bytes:
        """Key and certificate in PEM. Without `names` there is no subjectAltName at all."""
        key = ec.generate_private_key(ec.SECP256R1())
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key
        end = dt.datetime.now(dt.timezone.utc) + dt.timedelta(days=-1 if expired else 10)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_name(common))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(end - dt.timedelta(days=20))
            .not_valid_after(end)
            .add_extension(issuer(self._key.public_key()), critical=False)
        )
        if names:
            entries = [_general_name(name) for name in names]
            builder = builder.add_extension(x509.SubjectAlternativeName(entries), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return private + certificate.public_bytes(serialization.Encoding.PEM)


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def server_context(kind: str, trusted: Authority, folder: Path) -> ssl.SSLContext:
    """The context of a server that presents a certificate of that kind (see KINDS)."""
    here = ["localhost", "127.0.0.1"]
    issued = {
        "valid": lambda: trusted.issue("sandbox", here),
        "wrong_host": lambda: trusted.issue("elsewhere.test", ["elsewhere.test"]),
        "unknown_ca": lambda: Authority("Another CA").issue("sandbox", here),
        "expired": lambda: trusted.issue("sandbox", here, expired=True),
        "cn_only": lambda: trusted.issue("localhost", []),
    }[kind]()
    path = folder / f"server-{kind}.pem"
    path.write_bytes(issued)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # TDS 7 hides the handshake in packets; what TLS 1.3 sends after it does not fit.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(path)
    return context


class Disconnected(Exception):
    """The client has disconnected, or the server is stopping."""


class Transport(Protocol):
    """A byte stream."""

    def receive(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises Disconnected."""
        ...

    def send(self, data: bytes) -> None: ...

    def readable(self, timeout: float | None) -> bool:
        """Whether a byte, or the end, can be read within `timeout` seconds (None: wait)."""
        ...


class Plain:
    """TCP. Data may be cut into segments of the given sizes, in turn."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.segments: tuple[int, ...] = ()
        self._turn = 0

    def receive(self, size: int) -> bytes:
        parts = []
        while size:
            try:
                part = self.socket.recv(min(size, 65536))
            except OSError:
                raise Disconnected from None
            if not part:
                raise Disconnected
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def receive_some(self) -> bytes:
        try:
            part = self.socket.recv(65536)
        except OSError:
            raise Disconnected from None
        if not part:
            raise Disconnected
        return part

    def send(self, data: bytes) -> None:
        try:
            if not self.segments:
                self.socket.sendall(data)
                return
            start = 0
            while start < len(data):
                size = self.segments[self._turn % len(self.segments)]
                self._turn += 1
                self.socket.sendall(data[start : start + size])
                start += size
        except OSError:
            raise Disconnected from None

    def readable(self, timeout: float | None) -> bool:
        try:
            return bool(select.select([self.socket], [], [], timeout)[0])
        except (OSError, ValueError):
            raise Disconnected from None


class Secure:
    """TLS over TCP; the handshake goes in PRELOGIN packets (MS-TDS 2.2.6.5)."""

    def __init__(self, plain: Plain, context: ssl.SSLContext) -> None:
        self.plain = plain
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._in, self._out, server_side=True)

    def handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:  # noqa: PERF203 - a few messages
                self._reply()
                header = self.plain.receive(wire.HEADER_SIZE)
                (_, _, length, _, _, _) = wire.HEADER.unpack(header)
                self._in.write(self.plain.receive(length - wire.HEADER_SIZE))
            except ssl.SSLError:
                self._reply()  # an alert says why
                raise Disconnected from None
            else:
                self._reply()
                return

    def _reply(self) -> None:
        data = self._out.read()
        if data:
            size = wire.HEADER_SIZE + len(data)
            head = wire.HEADER.pack(wire.PRELOGIN, wire.END_OF_MESSAGE, size, 0, 0, 0)
            self.plain.send(head + data)

    def receive(self, size: int) -> bytes:
        parts = []
        while size:
            try:
                part = self._tls.read(size)
            except ssl.SSLWantReadError:
                self._in.write(self.plain.receive_some())
                continue
            except ssl.SSLError:
                raise Disconnected from None
            if not part:
                raise Disconnected
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def send(self, data: bytes) -> None:
        try:
            self._tls.write(data)
        except ssl.SSLError:
            raise Disconnected from None
        self.plain.send(self._out.read())

    def readable(self, timeout: float | None) -> bool:
        return bool(self._tls.pending() or self._in.pending) or self.plain.readable(timeout)
