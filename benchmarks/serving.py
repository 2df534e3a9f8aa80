"""Serves a source of sources.py over HTTP, in a process of its own."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from .measure import PROCESSES
from .sources import Size, create

Ask = Callable[[str], Any]


class Request(NamedTuple):
    """A request that arrived; ``target`` is its path and query."""

    method: str
    target: str
    body: bytes


@contextmanager
def serving(name: str, size: Size, latency: float = 0) -> Iterator[Ask]:
    """A source that responds after ``latency`` seconds. Ask it for its "configuration", for its
    "rows", and to "take" the requests that came since the last "take"."""
    here, there = PROCESSES.Pipe()
    process = PROCESSES.Process(target=_serve, args=(there, name, size, latency), daemon=True)
    process.start()
    there.close()  # so that the end of the process is noticed here

    def ask(question: str) -> Any:
        here.send(question)
        return here.recv()

    try:
        yield ask
    finally:
        here.close()
        process.join()


def _serve(pipe: Connection, name: str, size: Size, latency: float) -> None:
    source, requests = create(name, size), list[Request]()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # head and body leave together

        def do_GET(self) -> None:
            received = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            requests.append(Request(self.command, self.path, received))
            path, _, query = self.path.partition("?")
            time.sleep(latency)
            body = source.response(path, dict(parse_qsl(query))).encode()
            self.send_response_only(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  # as the base class calls it

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with contextlib.suppress(EOFError):
            while True:
                question = pipe.recv()
                if question == "take":
                    pipe.send([*requests])
                    requests.clear()
                elif question == "rows":
                    pipe.send(source.rows)
                else:
                    address = f"http://127.0.0.1:{server.server_port}"
                    pipe.send(source.configuration(address))
        server.shutdown()
