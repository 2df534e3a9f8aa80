"""The SQL Server Browser: tells the TCP ports of named instances, over UDP on loopback.

https://learn.microsoft.com/openspecs/windows_protocols/mc-sqlr/
"""

from __future__ import annotations

import socket
import struct
import threading

from typing_extensions import Self


class Browser:
    """Responds while the context manager is open, but not about instances that it does not know.

    ``instances``: their ports by name, None for one without TCP. ``deaf``: how many requests are
    lost. ``noise``: what is sent before each response. ``asked``: the names that were asked for.
    """

    def __init__(
        self, instances: dict[str, int | None], *, deaf: int = 0, noise: bytes = b""
    ) -> None:
        self.instances, self.deaf, self.noise = instances, deaf, noise
        self.asked: list[str] = []
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as ending:
            ending.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            request, client = self._socket.recvfrom(1024)
            if not request:
                return
            if request[:1] != b"\x04":  # CLNT_UCAST_INST, 2.2.3
                continue
            name = request[1:].rstrip(b"\0").decode("ascii")
            self.asked.append(name)
            if self.deaf:
                self.deaf -= 1
                continue
            for known, port in self.instances.items():
                if known.casefold() == name.casefold():
                    if self.noise:
                        self._socket.sendto(self.noise, client)
                    self._socket.sendto(_response(known, port), client)


def _response(name: str, port: int | None) -> bytes:
    facts = f"ServerName;SANDBOX;InstanceName;{name};IsClustered;No;Version;16.0.1000.6"
    text = f"{facts};tcp;{port};;" if port else f"{facts};np;\\\\SANDBOX\\pipe\\sql\\query;;"
    return b"\x05" + struct.pack("<H", len(text)) + text.encode()
