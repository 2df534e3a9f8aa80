"""A proxy on the loopback address that breaks connections at a given byte."""

import contextlib
import socket
import struct
import threading

from typing_extensions import Self


class Proxy:
    """Passes bytes on to ``port``, and responses in segments of at most ``segment`` bytes.

    After ``after`` bytes of responses (None: never), counted over all connections, it breaks one
    of them. ``how``: "cut" (the connection ends normally), "reset", or "stalled" (no more bytes
    come).
    """

    def __init__(
        self, port: int, how: str = "cut", after: int | None = None, segment: int = 65_536
    ) -> None:
        self._target, self._how, self._left, self._segment = port, how, after, segment
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends all connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        for each in self._sockets:
            _end(each)
        for thread in self._threads[1:]:
            thread.join()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [client, server]
            for source, sink, is_response in ((client, server, False), (server, client, True)):
                thread = threading.Thread(target=self._pass_on, args=(source, sink, is_response))
                self._threads.append(thread)
                thread.start()

    def _pass_on(self, source: socket.socket, sink: socket.socket, is_response: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(self._segment if is_response else 65_536):
                if is_response and (passing := self._passing(len(data))) < len(data):
                    sink.sendall(data[:passing])
                    if self._how == "stalled":
                        while source.recv(65_536):
                            pass
                        return
                    if self._how == "reset":  # closed with a linger of 0 s
                        linger = struct.pack("ii", 1, 0)
                        sink.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                        sink.shutdown(socket.SHUT_RD)  # the other thread stops reading from it
                        sink.close()
                    break
                sink.sendall(data)
        _end(source)
        _end(sink)

    def _passing(self, size: int) -> int:
        """How many of ``size`` bytes pass."""
        with self._lock:
            if self._left is None:
                return size
            passing = min(size, self._left)
            self._left = self._left - size if self._left >= size else None
            return passing


def _end(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
