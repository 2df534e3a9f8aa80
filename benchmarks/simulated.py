"""A connector that has no source in sources.py, with the simulator of its tests.

time, its requests      a sync, to its very requests by a bare requests.Session, in a row
requests, 2nd and 1st   how many a sync sends when nothing has changed, to those of the first one
memory, 20,000 rows     the peak of memory with so many records in each list, to that with 2,000
state, 20,000 rows      the size of the state that is saved, to that with 2,000
checkpoints, requests   how often so many rows are checkpointed, to the requests that read them
import, SDK             as in rest.py, and so is
first request, SDK      this one

A simulator costs more than a source in sources.py, so neither CPU by row nor large tables are
measured. A connector with tables of a million rows deserves such a source.
"""

from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import urlencode

from tests.sandbox import create, names
from tests.sandbox.lists import RecordLists
from tests.sandbox.server import Recorded, Sandbox

from . import sources
from .measure import Figure, Plan, fresh
from .rest import UNSERVED, memory_figures, send, start_figures, sync
from .server_process import respond, server_process
from .serving import Request

ROWS = 20_000  # of each list, by default
NAMES = tuple(name for name in names(Sandbox) if name not in sources.NAMES)


def run(name: str, plan: Plan) -> Iterator[Figure]:
    """The figures of one connector."""
    values, floors = [], []
    with server_process(_serve, name, max(round(plan.size(ROWS) / 10), 10)) as ask:
        configuration, rows = ask("configuration"), ask("rows")
        for number in range(1, plan.repeats + 1):
            plan.say(f"{name}, time: run {number} of {plan.repeats}")
            cost, state = fresh(sync, name, configuration, rows)
            sent = ask("take")
            values.append(cost.seconds)
            floors.append(fresh(send, ask("address"), sent).seconds)
            ask("take")
        yield Figure("time, its requests", "s", values, floors)
        fresh(sync, name, configuration, None, state)
        yield Figure("requests, 2nd and 1st", "count", [len(ask("take"))], [len(sent)])
    most = max(plan.size(ROWS), 20)
    sizes = [most // 10, most]
    yield from memory_figures(name, plan, sizes, lambda rows: server_process(_serve, name, rows))
    simulator = create(name)
    simulator.url = UNSERVED
    yield from start_figures(name, plan, simulator.configuration())


def _serve(pipe: Connection, name: str, count: int) -> None:
    simulator = create(name)
    assert isinstance(simulator, Sandbox)  # noqa: S101  # NAMES has no other
    if isinstance(simulator, RecordLists):
        simulator.empty()
        simulator.grow(**dict.fromkeys(simulator.lists, count))  # which changed long ago
    else:
        simulator.fill(count)
    with simulator:

        def response(question: str) -> Any:
            if question == "take":
                taken = [_plain(request) for request in simulator.requests]
                simulator.requests.clear()
                return taken
            if question == "rows":
                return sum(map(len, simulator.expected().values()))
            return simulator.url if question == "address" else simulator.configuration()

        respond(pipe, response)


def _plain(request: Recorded) -> Request:
    target = f"{request.path}?{urlencode(request.query)}"
    headers = {name: value for name, value in request.headers.items() if name != "Host"}
    return Request(request.method, target, request.body, headers)
