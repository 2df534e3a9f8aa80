"""Ends a sync in this process as `kill -9` would: at a request or at a checkpoint.

A checkpoint of the SDK's engine writes the rows, then the state (`_Sync.checkpoint` in
fivetran_connector_sdk_core/runner.py). So a crash has three places: before it (nothing is
written), in it (the rows are written, the state is not) and after it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any
from unittest import mock

import pytds
import pytds.cursor
from fivetran_connector_sdk_core import runner
from requests.adapters import HTTPAdapter

REQUESTS = ("before-request", "after-request")
CHECKPOINTS = ("before-checkpoint", "in-checkpoint", "after-checkpoint")
PLACES = (*REQUESTS, *CHECKPOINTS)


class Crash(BaseException):
    """The process is dead. It is no Exception, so that nobody handles it."""


class Process:
    """A process that dies when it comes to ``place``, one of PLACES (None: it lives), for the
    ``number``-th time. From then on none of its threads reaches source or destination."""

    def __init__(self, place: str | None = None, number: int = 1) -> None:
        self.dead = False
        self.states: list[str] = []  # what was written, in order
        self._place, self._left = place, number
        self._opened: list[Any] = []  # whatever has a socket
        self._lock = threading.Lock()

    def passes(self, place: str) -> None:
        """Raises Crash if the process is dead, or dies here."""
        with self._lock:
            if place == self._place:
                self._left -= 1
                self.dead = self.dead or self._left == 0
            if self.dead:
                raise Crash(place)

    @contextmanager
    def running(self) -> Iterator[None]:
        """While this context is open, a connector in the SDK's engine runs in this process."""
        with ExitStack() as stack:

            def replace(owner: Any, name: str, before: str, after: str = "") -> None:
                around = self._around(getattr(owner, name), before, after)
                stack.enter_context(mock.patch.object(owner, name, around))

            replace(HTTPAdapter, "send", "before-request", "after-request")
            replace(pytds.cursor.BaseCursor, "execute", "before-request", "after-request")
            replace(runner._Sync, "record", "operation")
            replace(runner._Sync, "truncate", "operation")
            replace(runner._Sync, "checkpoint", "before-checkpoint", "after-checkpoint")
            write = self._noting(runner._write_atomically)
            stack.enter_context(mock.patch.object(runner, "_write_atomically", write))
            replace(pytds, "connect", "before-connection")
            try:
                yield
            finally:
                self._close_sockets()

    def _around(self, real: Callable[..., Any], before: str, after: str) -> Callable[..., Any]:
        def passing(*arguments: Any, **options: Any) -> Any:
            self.passes(before)
            result = real(*arguments, **options)
            if before in ("before-request", "before-connection"):
                self._opened += [*arguments[:1], result]
            if after:
                self.passes(after)
            return result

        return passing

    def _close_sockets(self) -> None:
        """Does what the system does for a process that was killed."""
        for each in self._opened if self.dead else []:
            with suppress(Exception):
                each.close()
        self._opened.clear()

    def _noting(self, real: Callable[[str, str], None]) -> Callable[[str, str], None]:
        def write(path: str, text: str) -> None:
            self.passes("in-checkpoint")
            real(path, text)
            self.states.append(text)

        return write
