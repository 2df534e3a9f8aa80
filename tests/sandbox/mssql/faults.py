"""Faults on demand: what goes wrong, at which statement, after how many rows."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.sandbox.mssql.errors import SqlError, error

Action = Callable[[], object]


@dataclass
class Fault:
    """One fault. It waits for a request whose text matches, and is used up by `times` of them.

    `after_rows` rows of the request's first result are sent first; 0 means before anything.
    `kind` is one of "error", "drop", "stall", "wait", "call" and "bad_row".
    """

    kind: str
    problem: SqlError | None = None
    match: str | None = None
    after_rows: int = 0
    times: int = 1
    skip: int = 0
    cut: str = "row_end"  # of a drop: "row_end", "row" or "packet"
    column: str | None = None
    action: Action | None = None
    gate: threading.Event = field(default_factory=threading.Event)
    reached: threading.Event = field(default_factory=threading.Event)

    def matches(self, sql: str) -> bool:
        return self.match is None or bool(re.search(self.match, sql, re.IGNORECASE | re.DOTALL))


def fail(
    number: int, *values: object, message: str | None = None, severity: int | None = None,
    match: str | None = None, after_rows: int = 0, times: int = 1, skip: int = 0,
) -> Fault:  # fmt: skip
    """An ERROR token of that number, before any row or after `after_rows` of them."""
    problem = error(number, *values)
    problem.message = message or problem.message
    problem.severity = problem.severity if severity is None else severity
    return Fault("error", problem, match, after_rows, times, skip)


def drop(
    match: str | None = None, after_rows: int = 0, cut: str = "row_end", times: int = 1,
    skip: int = 0,
) -> Fault:  # fmt: skip
    """Closes the connection: after a whole row, in mid-row, or in mid-packet."""
    if cut not in ("row_end", "row", "packet"):
        raise ValueError(f"cut is row_end, row or packet, not {cut!r}")
    return Fault("drop", None, match, after_rows, times, skip, cut)


def stall(match: str | None = None, after_rows: int = 0, times: int = 1, skip: int = 0) -> Fault:
    """Sends nothing until the client cancels or disconnects, or until `fault.gate` is set."""
    return Fault("stall", None, match, after_rows, times, skip)


def wait(match: str | None = None, after_rows: int = 0, times: int = 1) -> Fault:
    """A delay that the test ends: the response continues once `fault.gate` is set."""
    return Fault("stall", None, match, after_rows, times)


def call(
    action: Action, match: str | None = None, after_rows: int = 0, times: int = 1, skip: int = 0
) -> Fault:
    """Calls `action` in the server's thread, before the statement or after so many rows."""
    return Fault("call", None, match, after_rows, times, skip, action=action)


def bad_row(
    match: str | None = None, after_rows: int = 0, column: str | None = None, times: int = 1
) -> Fault:
    """Sends the row after `after_rows` with a value that no client can decode."""
    return Fault("bad_row", None, match, after_rows, times, column=column)


class Faults:
    """The faults that wait, for requests and for logins."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[Fault] = []
        self._logins: list[Fault] = []

    def add(self, *faults: Fault) -> None:
        with self._lock:
            self._requests.extend(faults)

    def add_login(self, *faults: Fault) -> None:
        """Faults of the next logins: "error", "stall" (a login that hangs) or "drop" (refused)."""
        with self._lock:
            self._logins.extend(faults)

    def clear(self) -> None:
        with self._lock:
            self._requests.clear()
            self._logins.clear()

    @property
    def pending(self) -> int:
        with self._lock:
            return len(self._requests) + len(self._logins)

    def take(self, sql: str) -> list[Fault]:
        """The faults of a request, each counted as used."""
        with self._lock:
            return self._taken(self._requests, sql)

    def take_login(self) -> Fault | None:
        with self._lock:
            found = self._taken(self._logins[:1], "")
            self._logins = [fault for fault in self._logins if fault.times > 0]
            return found[0] if found else None

    @staticmethod
    def _taken(waiting: list[Fault], sql: str) -> list[Fault]:
        """All calls that match, and the first other fault that does."""
        found: list[Fault] = []
        for fault in list(waiting):
            ready = fault.kind == "call" or not any(f.kind != "call" for f in found)
            if not ready or not fault.matches(sql):
                continue
            if fault.skip > 0:
                fault.skip -= 1
                continue
            fault.times -= 1
            found.append(fault)
            if fault.times <= 0:
                waiting.remove(fault)
        return sorted(found, key=lambda fault: fault.after_rows)
