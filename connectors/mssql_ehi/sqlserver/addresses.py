"""Where the server is: its name in the settings, and the port of its instance."""

import ipaddress
import re
import select
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from shared.errors import SourceError
from shared.network import Closed, look_up, time_slice

from .errors import ServerUnreachable

DEFAULT_PORT = 1433
_BROWSER_PORT = 1434  # UDP
_REQUESTS = 3  # since a datagram may be lost
_DEFAULT_INSTANCE = "MSSQLSERVER"
_HOST = re.compile(r"[A-Za-z0-9_.-]{1,253}", re.ASCII)
_INSTANCE = re.compile(r"[^\W\d][\w$#]{0,15}")


class ServerName(NamedTuple):
    """A host, and the port or the name of an instance of it, where one is given."""

    host: str
    port: int | None = None
    instance: str = ""


def parse_server(text: str) -> ServerName:
    """Reads ``host``, ``tcp:host``, ``host,port``, ``host:port`` or ``host\\instance``, where the
    host may be an IP address, ``(local)`` or a point. Raises ValueError.

    https://learn.microsoft.com/sql/connect/odbc/windows/sqlconnect
    """
    text = re.sub(r"^tcp:\s*", "", text, flags=re.IGNORECASE)
    if "\\" in text:
        host, _, instance = text.partition("\\")
        if not _INSTANCE.fullmatch(instance):
            raise ValueError
        default = instance.upper() == _DEFAULT_INSTANCE
        return ServerName(_parse_host(host), instance="" if default else instance)
    if match := re.fullmatch(r"([^,]+)\s*,\s*(\d{1,5})|([^:]+|\[.+\]):(\d{1,5})", text, re.ASCII):
        host, port = match[1] or match[3], int(match[2] or match[4])
        if not 1 <= port <= 65535:
            raise ValueError
        return ServerName(_parse_host(host.strip()), port)
    return ServerName(_parse_host(text))


def _parse_host(text: str) -> str:
    if text in (".", "(local)"):
        return "localhost"
    if ":" in text:
        bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
        return str(ipaddress.IPv6Address(bare))
    if not _HOST.fullmatch(text):
        raise ValueError
    return text


def ask_browser(host: str, instance: str, timeout: float, closed: Closed) -> int:
    """The TCP port of an instance, which the SQL Server Browser of its host tells. ``timeout``: in
    seconds. Raises SourceError, and OSError for a host that does not exist, or when ``closed`` is
    set.

    https://learn.microsoft.com/openspecs/windows_protocols/mc-sqlr/
    """
    request = b"\x04" + instance.encode() + b"\0"
    found = look_up(host, _BROWSER_PORT, timeout, closed, socket.SOCK_DGRAM)
    asked = [socket.socket(family, kind, protocol) for family, kind, protocol, _, _ in found]
    try:
        for each, (*_, address) in zip(asked, found, strict=True):
            each.setblocking(False)
            each.connect(address)  # no response of another host is taken
        for _ in range(_REQUESTS):
            if port := _exchange(asked, request, instance, timeout / _REQUESTS, closed):
                return port
    finally:
        for each in asked:
            each.close()
    raise ServerUnreachable(
        "connecting: the SQL Server Browser does not tell the port of the instance in "
        "mssql_server. Check the instance's name and UDP port 1434 on the way, or set mssql_port "
        "to the TCP port that SQL Server Configuration Manager shows for it"
    )


def _exchange(
    asked: Sequence[socket.socket],
    request: bytes,
    instance: str,
    seconds: float,
    closed: Closed,
) -> int | None:
    """Asks all addresses once. Returns the port if one of them tells it in time."""
    end = time.monotonic() + seconds
    waiting = []
    for each in asked:
        with suppress(OSError):  # an earlier request may have shown that nobody listens there
            each.send(request)
            waiting.append(each)
    with suppress(TimeoutError):
        while waiting:
            ready, _, _ = select.select(waiting, [], [], time_slice(end, closed))
            for each in ready:
                try:
                    port = _parse_response(each.recv(65535), instance)
                except OSError:
                    waiting.remove(each)
                    continue
                if port:
                    return port
    return None


def _parse_response(response: bytes, instance: str) -> int | None:
    """The port in a response, None if it is not of this instance. Raises SourceError."""
    words = response[3:].decode("ascii", "replace").split(";")
    values = dict(zip(words[::2], words[1::2], strict=False))
    if response[:1] != b"\x05" or values.get("InstanceName", "").casefold() != instance.casefold():
        return None
    port = values.get("tcp", "")
    if not (port.isascii() and port.isdigit() and 1 <= int(port) <= 65535):
        raise SourceError(
            "connecting: the instance in mssql_server takes no TCP connections. Switch TCP/IP on "
            "for it in SQL Server Configuration Manager"
        )
    return int(port)
