"""The connectors that read JSON over HTTP, each compared with the same requests, or the same
responses, without it.

time, one by one        a sync of 60 pages at 40 ms a request, to its very requests by a bare
                        requests.Session, one after the other. A page has 100 records. SenSource:
                        24 chunks of 30 days for traffic and 24 for occupancy, at 200 ms.
requests, 2nd and 1st   how many a sync sends when nothing has changed, to those of the first one
row, live form          CPU of a sync, by row, to the least that any Python program needs:
                        json.loads of the same responses; for each record a dictionary with the
                        columns of the row (times by datetime.fromisoformat, lists in text columns
                        by json.dumps, other values as sent) and the fields without a column; and,
                        since rows wait until their list is proven whole, pickling the rows of each
                        response and reading them back; and, to tell rows that changed from others,
                        a hash of the repr of each row (but for SenSource, where only the hours of
                        the last days are compared). The connector's figure includes all else:
                        checks, other types, keys, pages, state, log, start. Neither includes the
                        exchange of requests: responses come from memory in place of
                        `requests.Session.request`. Both have one core, as production has half of
                        one.
row, documented form    the same with the fields that a specification names
request, bare session   CPU of a sync, by request, with pages of one record (SenSource: 24 hours),
                        to that of the same requests as in "time"
memory, 400,000 rows    the peak of memory with so many rows, to that with 4,000
state, 400,000 rows     the size of the state that is saved, to that with 4,000
checkpoints, requests   how often so many rows are checkpointed, to the requests that read them
import, SDK             CPU from the start of Python until the connector is imported, to importing
                        the SDK and requests alone
first request, SDK      the same until the connector's first request, to one of a new Session
"""

import hashlib
import io
import json
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple
from unittest import mock
from urllib.parse import parse_qsl, urlencode, urlsplit

import requests

from tests.sandbox.fivetran import load
from tools.paths import ROOT

from .measure import Figure, Plan, forget_peak, fresh, peak_memory, use_one_core
from .server_process import Ask
from .serving import Request, serving
from .sink import Sink, counted, expect
from .sources import Size, Source, create

ROWS = 400_000  # of the largest table, by default
# Dexory's pages are linked, so they cannot be requested concurrently; and its 15,000 rows wait, to
# be compared with those of the last sync after the last page.
MOST_TIME = {"dentally": 0.4, "dexory": 1.2, "paligo": 0.4, "sensource": 0.4}
# Rows of hours are not hashed, but for the last days.
MOST_ROW = {"dentally": 1.4, "dexory": 1.4, "paligo": 1.4, "sensource": 2}
SHAPES = ("live", "documented")
UNSERVED = "http://127.0.0.1:1"  # where nobody listens


def run(name: str, plan: Plan) -> Iterator[Figure]:
    """The figures of one connector."""
    yield from _time_figures(name, plan)
    yield from _row_figures(name, plan)
    yield _request_figure(name, plan)
    most = plan.size(ROWS)
    sizes = [most // 100, most // 10, most]
    yield from memory_figures(name, plan, sizes, lambda rows: serving(name, _size(name, rows)))
    yield from start_figures(name, plan, create(name, _size(name, 0)).configuration(UNSERVED))


# Over HTTP


class Cost(NamedTuple):
    """Of a sync, or of its requests alone: the ``seconds`` that passed, the seconds of ``cpu``,
    the ``peak`` in MB, and the ``checkpoints``."""

    seconds: float
    cpu: float
    peak: float
    checkpoints: int = 0


def _time_figures(name: str, plan: Plan) -> Iterator[Figure]:
    """The time of a sync, and the requests of the next one."""
    pages, seconds = (24, 0.2) if name == "sensource" else (60, 0.04)
    size = _size(name, 0)._replace(pages=_scaled(pages, plan, 4))
    values, floors = [], []
    with serving(name, size, seconds * plan.scale) as ask:
        configuration, rows = ask("configuration"), ask("rows")
        for number in range(1, plan.repeats + 1):
            plan.say(f"{name}, time: run {number} of {plan.repeats}")
            cost, state = fresh(sync, name, configuration, rows)
            sent = ask("take")
            values.append(cost.seconds)
            floors.append(fresh(send, configuration["base_url"], sent).seconds)
            expect(len(ask("take")), len(sent))
        yield Figure("time, one by one", "s", values, floors, most_ratio=MOST_TIME[name])
        fresh(sync, name, configuration, None, state)
        yield Figure("requests, 2nd and 1st", "count", [len(ask("take"))], [len(sent)])


def _request_figure(name: str, plan: Plan) -> Figure:
    """CPU by request, with pages that hold almost nothing."""
    size = Size(_scaled(300, plan, 4), 1, days=1)
    values, floors = [], []
    with serving(name, size) as ask:
        configuration, rows = ask("configuration"), ask("rows")
        for number in range(1, plan.repeats + 1):
            plan.say(f"{name}, CPU by request: run {number} of {plan.repeats}")
            cost, _ = fresh(sync, name, configuration, rows)
            sent = ask("take")
            values.append(1e6 * cost.cpu / len(sent))
            bare = fresh(send, configuration["base_url"], sent)
            floors.append(1e6 * bare.cpu / len(sent))
            ask("take")
    return Figure("request, bare session", "us CPU", values, floors)


def memory_figures(
    name: str, plan: Plan, sizes: list[int], serve: Callable[[int], AbstractContextManager[Ask]]
) -> Iterator[Figure]:
    """What grows with the rows: ``serve`` starts a source with so many, and the first of ``sizes``
    is the floor."""
    peaks, states = [], []
    for rows in sizes:
        plan.say(f"{name}, memory: {rows:,} rows")
        with serve(rows) as ask:
            cost, state = fresh(sync, name, ask("configuration"), ask("rows"))
            requests = len(ask("take"))
        peaks.append(cost.peak)
        states.append(len(json.dumps(state)))
    for rows, peak in zip(sizes[1:], peaks[1:], strict=True):
        yield Figure(f"memory, {rows:,} rows", "MB", [peak], peaks[:1], most_above=20)
    yield Figure(f"state, {sizes[-1]:,} rows", "bytes", states[-1:], states[:1], most_above=50)
    yield Figure("checkpoints, requests", "count", [cost.checkpoints], [requests], most_ratio=1)


def start_figures(name: str, plan: Plan, settings: Mapping[str, str]) -> Iterator[Figure]:
    """What a connector costs before its first request."""
    values, floors = [], []
    configuration = json.dumps(settings)
    for number in range(1, plan.repeats + 1):
        plan.say(f"{name}, start: run {number} of {plan.repeats}")
        floors.append(_start(configuration))
        values.append(_start(configuration, str(ROOT / "connectors" / name)))
    for place, label in enumerate(("import, SDK", "first request, SDK")):
        yield Figure(label, "s CPU", [v[place] for v in values], [f[place] for f in floors])


def _start(*arguments: str) -> list[float]:
    """Seconds of CPU after the imports, and at the first request."""
    command = [sys.executable, "-m", "benchmarks.startup", *arguments]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S603
    seconds: list[float] = json.loads(done.stderr.splitlines()[-1])
    return seconds


def _scaled(number: int, plan: Plan, least: int) -> int:
    return max(round(number * plan.scale), least)


class _Forgetful(Sink):
    """The peak of memory counts from the first row on."""

    def truncate(self, _table: str) -> None:
        if not self.count:
            forget_peak()


def sync(
    name: str,
    configuration: Mapping[str, str],
    rows: int | None,
    state: Mapping[str, Any] | None = None,
) -> tuple[Cost, dict[str, Any]]:
    """A sync that must find so many ``rows`` (None: any number), and the state after it."""
    update, sink = load(name).update, _Forgetful()
    with counted(sink):
        began, before = time.monotonic(), time.process_time()
        update(configuration, state=state or {})
        seconds, cpu = time.monotonic() - began, time.process_time() - before
    cost = Cost(seconds, cpu, peak_memory(), sink.checkpoints)
    expect(sink.count, sink.count if rows is None else rows)
    return cost, sink.state


def send(address: str, sent: list[Request]) -> Cost:
    """The floor: the same requests in a row, and nothing done with the responses."""
    with requests.Session() as session:
        began, before = time.monotonic(), time.process_time()
        for method, target, body, headers in sent:
            url = address + target
            session.request(method, url, data=body, headers=headers, timeout=60).raise_for_status()
        return Cost(time.monotonic() - began, time.process_time() - before, peak_memory())


# CPU by row, with the responses in memory


def _row_figures(name: str, plan: Plan) -> Iterator[Figure]:
    for shape in SHAPES:
        size = _size(name, plan.size(ROWS) // 10, shape)
        values, floors = [], []
        for number in range(1, plan.repeats + 1):
            plan.say(f"{name}, CPU by row, {shape} form: run {number} of {plan.repeats}")
            floors.append(fresh(_plain_seconds, name, size))
            values.append(fresh(_sync_seconds, name, size))
        figure = f"row, {shape} form"
        yield Figure(figure, "us CPU", values, floors, most_ratio=MOST_ROW[name])


def _size(name: str, rows: int, shape: str = "live") -> Size:
    """About so many rows, in pages of 100 records; for SenSource in chunks of 720 hours."""
    if name == "sensource":
        return Size(max(round(rows / 1440), 1), 1, shape)
    return Size(max(round(rows / (220 if name == "dexory" else 100)), 1), 100, shape)


class _Raw(io.BytesIO):
    def read1(self, size: int | None = -1, decode_content: bool = False) -> bytes:  # noqa: ARG002
        return super().read1(size)


class _Memory:
    """Replaces ``requests.Session.request``. ``bodies`` holds, by address, the responses of
    ``source`` that were requested so far."""

    def __init__(self, source: Source) -> None:
        self.bodies: dict[str, bytes] = {}
        self._source = source

    def __call__(
        self, _method: str, url: str, params: Mapping[str, Any] | None = None, **_: Any
    ) -> requests.Response:
        address = f"{url}?{urlencode(params)}" if params else url
        body = self.bodies.get(address)
        if body is None:
            parts = urlsplit(address)
            text = self._source.response(parts.path, dict(parse_qsl(parts.query)))
            body = self.bodies[address] = text.encode()
        response = requests.Response()
        response.status_code, response.url, response.raw = 200, address, _Raw(body)
        response.headers["Content-Type"] = "application/json"
        return response


def _sync_in_memory(source: Source, memory: _Memory) -> float:
    """Seconds of CPU of a sync."""
    update, sink = load(source.name).update, Sink()
    with mock.patch.object(requests.Session, "request", memory), counted(sink):
        before = time.process_time()
        update(source.configuration(UNSERVED), state={})
        seconds = time.process_time() - before
    expect(sink.count, source.rows)
    return seconds


def _sync_seconds(name: str, size: Size) -> float:
    """Microseconds of CPU by row of a sync; an earlier sync has made the responses."""
    use_one_core()
    source = create(name, size)
    memory = _Memory(source)
    _sync_in_memory(source, memory)
    return 1e6 * _sync_in_memory(source, memory) / source.rows


def _plain_seconds(name: str, size: Size) -> float:
    """Microseconds of CPU by row of the floor."""
    use_one_core()
    source = create(name, size)
    memory, count = _Memory(source), 0
    _sync_in_memory(source, memory)
    responses = [(urlsplit(address).path, body) for address, body in memory.bodies.items()]
    before = time.process_time()
    for path, body in responses:
        rows = pickle.dumps(list(source.plain_rows(path, json.loads(body))))
        for row in pickle.loads(rows):  # noqa: S301  # made here
            count += 1
            if name != "sensource":
                hashlib.blake2b(
                    repr(row).encode("utf-8", "surrogatepass"), digest_size=16
                ).digest()
    return 1e6 * (time.process_time() - before) / source.rows
