"""The HTTP server under the simulators: it records requests and breaks responses on demand."""

import contextlib
import copy
import io
import json
import random
import socket
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

from flask import Flask
from flask.json.provider import DefaultJSONProvider
from typing_extensions import Self
from werkzeug.datastructures import Headers
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.test import run_wsgi_app
from werkzeug.wrappers import Request, Response

from .forging import forge
from .simulator import Simulator

Environ = dict[str, Any]


@dataclass
class Recorded:
    """A request that arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: Headers
    body: bytes
    status: int = 0

    @property
    def url(self) -> str:
        return self.path + "?" + "&".join(f"{k}={v}" for k, v in self.query.items())


@dataclass
class Fault:
    """A fault of requests whose path is ``path``, or below it.

    ``skip`` of them succeed first, then ``times`` of them fail (None: all). ``status``,
    ``headers`` and ``body`` replace the response, ``cut`` ends a part of it half-way, ``drop``
    closes the connection without a response, ``trickle`` sends a part byte by byte and is called
    before each byte, ``forge`` makes another response of it. ``part`` is "body", "headers" (with
    the status line) or "size" (the first line of a chunked body). ``act`` is called first.
    """

    path: str = "/"
    skip: int = 0
    times: int | None = 1
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | bytes = ""
    cut: bool = False
    drop: bool = False
    trickle: Callable[[], object] | None = None
    part: str = "body"
    forge: Callable[[Response], Response] | None = None
    act: Callable[[], object] | None = None

    @property
    def breaks(self) -> bool:
        """Whether the fault changes the response."""
        return bool(self.status or self.cut or self.drop or self.trickle or self.forge)

    def matches(self, path: str) -> bool:
        """Whether the fault applies to this request; counts the request."""
        # /v1/order_lines is not below /v1/order.
        below = path.startswith(self.path.rstrip("/") + "/")
        if not (path == self.path or below) or self.times == 0:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is not None:
            self.times -= 1
        return True


class _Json(DefaultJSONProvider):
    sort_keys = False


class _Handler(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"  # connections stay open, as they do with the sources

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002  # as in the base
        pass


# The faults of generated schedules, in terms of Fault: transient ones, then final ones.
_DAMAGED = {"status": 200, "body": '{"data": [', "headers": {"Content-Type": "application/json"}}
_TROUBLES: dict[str, dict[str, Any]] = {
    "busy": {"status": 503},
    "failing": {"status": 500, "body": "<html>", "times": 2},
    "limited": {"status": 429, "headers": {"Retry-After": "90"}},
    "drop": {"drop": True},
    "cut": {"cut": True},
    "damaged": _DAMAGED,
}
_REFUSALS: dict[str, dict[str, Any]] = {
    "down": {"status": 503, "times": None},
    "refused": {"status": 422, "body": '{"error": "no"}'},
    "other": {"status": 200, "body": '{"meta": {}, "data": null}'},
}


class Sandbox(Simulator):
    """A simulator over HTTP, on a port of its own on the loopback address.

    ``requests`` holds the requests that arrived, ``faults`` those to come, ``options`` settings.
    ``data_path`` begins the paths of the data (not those of tokens). ``key_fields``: the fields of
    records that are in keys; those whose names end with "id" are taken for such ones.

    Of paged lists: groups of ``ties`` records are equal in the order, and each page sorts them
    differently; the total counts ``miscount`` records that are not listed, and is at most
    ``counts_to``.
    """

    data_path: ClassVar[str]
    key_fields: Collection[str] = ()
    addresses = ("base_url", "auth_url")
    troubles = tuple(_TROUBLES)
    refusals = tuple(_REFUSALS)
    hostilities = ("forged",)
    conditions: ClassVar[tuple[str, ...]] = ("forbidden", "odd")
    limits: ClassVar[dict[str, int]] = {
        "shared.rest.LARGEST_RESPONSE": 1_000_000,
        "shared.fingerprint._FEW_ROWS": 2,
    }

    def __init__(self) -> None:
        self.app = Flask(self.name)
        self.app.json = _Json(self.app)
        self.requests: list[Recorded] = []
        self.faults: list[Fault] = []
        self.options: dict[str, str] = {}
        self.lock = threading.RLock()
        self._older: list[tuple[list[Any], Any, Any]] = []  # list, record, and what it was
        self.ties, self.miscount = 1, 0
        self.counts_to: int | None = None
        self._ties = random.Random(1)

    def remember(self, records: list[Any], record: Any) -> None:
        """A record of this list is about to change; ``restore`` may take the change back."""
        self._older.append((records, record, copy.deepcopy(record)))

    def restore(self, draw: random.Random) -> bool:
        with self.lock:
            listed = [one for one in self._older if any(one[1] is record for record in one[0])]
            if not listed:
                return False
            _, record, older = draw.choice(listed)
            record.clear()
            record.update(copy.deepcopy(older))
            return True

    def tied(self, records: list[Any]) -> list[Any]:
        """``records`` in one of the orders that ``ties`` allows."""
        if self.ties == 1:
            return records
        groups = [records[at : at + self.ties] for at in range(0, len(records), self.ties)]
        return [one for group in groups for one in self._ties.sample(group, len(group))]

    def counted(self, records: list[Any]) -> int:
        """The total that the source tells for so many records."""
        count = len(records) + self.miscount
        return count if self.counts_to is None else min(count, self.counts_to)

    def start(self, port: int = 0) -> Self:
        self._server = make_server(
            "127.0.0.1", port, self._serve, threaded=True, request_handler=_Handler
        )
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        return self

    def describe(self, request: Recorded) -> str | None:
        return f"{request.status} {request.method} {request.url}" if request.status else None

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def fault(self, path: str = "/", **what: Any) -> Fault:
        """Adds a fault; the arguments are those of Fault."""
        fault = Fault(path, **what)
        with self.lock:
            self.faults.append(fault)
        return fault

    def trouble(self, kind: str, number: int) -> None:
        self.fault(skip=number - 1, **{**_TROUBLES, **_REFUSALS}[kind])

    def be_odd(self) -> None:
        self.fault(self.data_path, times=None, forge=partial(_with_records, swapped))

    def spoil(self) -> None:
        self.fault(self.data_path, times=None, forge=partial(_with_records, lambda record: 17))

    def be_hostile(self, kind: str, draw: random.Random) -> None:
        self.fault(skip=draw.randrange(7), forge=lambda response: forge(response, draw))

    def be(self, condition: str, number: int) -> None:
        """Sets a condition: ties in the order, a wrong total, a forbidden list, or odd values."""
        if condition == "tied":
            self.ties = 2 + number % 3
        elif condition == "miscounted":
            self.miscount = 1 + number % 3
        elif condition == "capped":
            # Not within a page: with a single page nobody can tell whether it is full.
            self.counts_to = getattr(self, "cap", 0) + number
        elif condition == "forbidden":
            paths = sorted({*self.paths(self.data_path)}) or [self.data_path]
            body, kind = '{"error": "no"}', {"Content-Type": "application/json"}
            path = paths[number % len(paths)]
            self.fault(path, times=None, status=403, body=body, headers=kind)
        else:
            make = partial(_with_odd_value, random.Random(number), self.key_fields)
            self.fault(self.data_path, times=None, forge=partial(_with_records, make))

    def at_request(self, number: int, act: Callable[[], object]) -> None:
        self.fault(skip=number - 1, act=act)

    def calm(self) -> None:
        with self.lock:
            self.faults.clear()
            self.ties, self.miscount, self.counts_to = 1, 0, None

    def paths(self, start: str = "/") -> list[str]:
        """The paths of the requests, in order."""
        return [r.path for r in self.requests if r.path.startswith(start)]

    def _serve(self, environ: Environ, start_response: Callable[..., Any]) -> Iterable[bytes]:
        request = Request(environ)
        recorded = Recorded(
            request.method,
            request.path,
            request.args.to_dict(),
            Headers(request.headers),
            request.get_data(),
        )
        environ["wsgi.input"] = io.BytesIO(recorded.body)  # the body was read already
        with self.lock:
            self.requests.append(recorded)
            faults = [fault for fault in self.faults if fault.matches(request.path)]
        for fault in faults:
            if fault.act:
                fault.act()
        broken = next((f for f in faults if f.breaks), None)
        if broken and broken.drop:
            _close(environ)
            start_response("200 OK", [])
            return [b""]
        if broken and broken.status:
            body = broken.body
            response = Response(body, broken.status, dict(broken.headers))
        else:
            with self.lock:
                chunks, status, headers = run_wsgi_app(self.app, environ)
                response = Response(b"".join(chunks), status, headers)
        if broken and broken.forge:
            response = broken.forge(response)
        recorded.status = response.status_code
        sent = response(environ, start_response)
        if broken and broken.part != "body":
            return _send_part(environ, response, broken)
        if broken and broken.cut:
            return _half(b"".join(sent), environ)
        if broken and broken.trickle:
            return _byte_by_byte(b"".join(sent), broken.trickle)
        return sent


def swapped(record: dict[str, Any]) -> dict[str, Any]:
    """A record with its numbers as text, and its texts of digits as numbers."""
    return {name: _swapped(value) for name, value in record.items()}


def _swapped(value: Any) -> Any:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    for number in (int, float):
        with contextlib.suppress(ValueError, TypeError):
            if str(number(value)) == value and not value.lower().strip("-+").isalpha():
                return number(value)
    return value


# Values for "no date", of another type, of another form, and empty ones.
_ODD: tuple[Any, ...] = (
    *("0000-00-00 00:00:00", "31/12/2024", "N/A", "-", "", " ", "perhaps", False, True, 0, 12.6),
    *(2**40, 19.990000000000002, [], {}, {"value": True}, None),
)
_IN_KEYS = (
    "name",
    "location_type",
    "aisle",
    "scan_date",
    "recordDate_hour_1",
    "record_date_hour_1",
)


def _with_odd_value(
    draw: random.Random, keys: Collection[str], record: dict[str, Any]
) -> dict[str, Any]:
    """A record; one in three has an odd value, but not in a field that is, or may be, a part of
    its key."""
    in_keys = {*_IN_KEYS, *keys}
    names = [n for n in record if not n.lower().endswith("id") and n not in in_keys]
    if not names or draw.random() > 1 / 3:
        return record
    return {**record, draw.choice(names): draw.choice(_ODD)}


def _with_records(make: Callable[[Any], Any], response: Response) -> Response:
    """The response with ``make`` applied to each of its records."""
    content = json.loads(response.get_data())
    if isinstance(content, list):
        content = list(map(make, content))
    else:
        lists = {name: given for name, given in content.items() if isinstance(given, list)}
        content.update({name: list(map(make, given)) for name, given in lists.items()})
    return Response(json_text(content), response.status_code, content_type=response.content_type)


def json_text(value: Any) -> str:
    """JSON as the simulators send it."""
    return json.dumps(value, ensure_ascii=False)


def _close(environ: Environ) -> None:
    connection: socket.socket = environ["werkzeug.socket"]
    with contextlib.suppress(OSError):  # the client may have left
        connection.shutdown(socket.SHUT_RDWR)


def _half(body: bytes, environ: Environ) -> Iterator[bytes]:
    yield body[: len(body) // 2]
    _close(environ)


def _byte_by_byte(body: bytes, wait: Callable[[], object]) -> Iterator[bytes]:
    for at in range(len(body)):
        wait()
        yield body[at : at + 1]


# Long enough for a client to notice the slowness; many servers allow 8 KB.
_SLOW = 600  # bytes


def _send_part(environ: Environ, response: Response, fault: Fault) -> Iterator[bytes]:
    """Sends the response itself, a part of it byte by byte or cut, and closes the connection."""
    connection: socket.socket = environ["werkzeug.socket"]
    body = response.get_data()
    head = f"HTTP/1.1 {response.status}\r\nContent-Type: {response.content_type}\r\n"
    if fault.part == "size":
        before = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode()
        part = f"{len(body):0{_SLOW}x}\r\n".encode()
        after = body + b"\r\n0\r\n\r\n"
    else:
        padding = f"X-Padding: {'x' * _SLOW}\r\n"
        part = f"{head}{padding}Content-Length: {len(body)}\r\n\r\n".encode()
        before, after = b"", body
    with contextlib.suppress(OSError):  # the client may leave
        connection.sendall(before)
        if fault.trickle:
            for byte in _byte_by_byte(part, fault.trickle):
                connection.sendall(byte)
            connection.sendall(after)
        else:
            connection.sendall(part[: len(part) // 2])
    _close(environ)
    yield b""
