"""Takes the operations in place of the SDK: counts them, and drops their rows."""

import contextlib
import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

from fivetran_connector_sdk import Logging, Operations


class Sink:
    """``count``: the rows so far; ``state``: that of the last of the ``checkpoints``; ``logged``:
    the characters of the log, when all is done. ``warns``: warnings are expected."""

    def __init__(self, *, warns: bool = False) -> None:
        self._warns = warns
        self.count, self.checkpoints, self.state = 0, 0, dict[str, Any]()
        self.logged = 0

    def upsert(self, _table: str, _row: dict[str, Any]) -> None:
        self.count += 1

    def truncate(self, _table: str) -> None:
        pass

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        self.checkpoints += 1
        self.state = dict(state)

    def warning(self, message: str) -> None:
        if not self._warns:  # a benchmark causes none that it does not expect
            raise AssertionError(message)


@contextmanager
def counted(sink: Sink) -> Iterator[None]:
    """Operations go to ``sink``; log lines are made as in production, but not shown."""
    Logging.LOG_LEVEL = Logging.Level.INFO
    names = ("upsert", "truncate", "checkpoint", "warning")
    stubs = {name: getattr(sink, name) for name in names}
    log = io.StringIO()
    with mock.patch.multiple(Operations, **stubs), contextlib.redirect_stdout(log):
        yield
    sink.logged = len(log.getvalue())


def expect(count: int, rows: int) -> None:
    """Raises AssertionError unless all rows came: a sync that reads less costs less."""
    if count != rows:
        raise AssertionError(f"{count} rows came, not {rows}")
