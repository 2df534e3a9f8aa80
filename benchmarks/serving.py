"""The sources in sources.py over HTTP, each in a process of its own."""

import threading
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

from .server_process import Ask, respond, server_process
from .sources import Size, create


class Request(NamedTuple):
    """A request that arrived; ``target`` is its path and query, ``headers`` are those to send
    again."""

    method: str
    target: str
    body: bytes
    headers: Mapping[str, str] = {}


def serving(name: str, size: Size, latency: float = 0) -> AbstractContextManager[Ask]:
    """A source that responds after ``latency`` seconds. It can be asked for its "configuration",
    for its "rows", and to "take" the requests that came since it was last asked."""
    return server_process(_serve, name, size, latency)


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

        def response(question: str) -> Any:
            if question == "take":
                taken = [*requests]
                requests.clear()
                return taken
            if question == "rows":
                return source.rows
            return source.configuration(f"http://127.0.0.1:{server.server_port}")

        respond(pipe, response)
        server.shutdown()
