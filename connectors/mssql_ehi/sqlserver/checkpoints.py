"""Checkpoints that the tables of a sync share: one for each small table would cost more than its
rows, and each writes the state of all tables."""

import time
from collections.abc import Callable

from shared.state import State

from .table_state import TableState

_LONGEST = 60.0  # seconds between two checkpoints
_OPEN = "open"  # in the state of a sync that has not ended
LARGEST = 32 * 1024 * 1024  # bytes between two checkpoints
ROWS_A_TABLE = 2  # that come with a checkpoint at least, for each table whose entry it writes


def was_killed(state: State) -> bool:
    """Whether the last sync did not end by itself; it is told once."""
    return bool(state.values.pop(_OPEN, False))


class Checkpoints:
    """Makes a checkpoint once ``rows`` rows, 32 MB or 60 seconds have come since the last one; of
    ten thousand tables, whose state takes as long as some thousand rows, after more rows.

    Of each table that is being read it holds a function that returns its entry as of the last row
    that was handed over, so that every checkpoint has the rows of a table and its position. All of
    it runs in the thread that makes checkpoints.
    """

    def __init__(self, state: State, rows: int) -> None:
        self._state, self._most_rows = state, rows
        self._reads: dict[str, Callable[[], TableState]] = {}
        self._restart()

    def begin(self) -> None:
        """The sync begins to hand rows over. From this checkpoint on until ``end`` the destination
        may have rows that the state does not tell."""
        self._state.save(None, **{_OPEN: True})

    def end(self) -> None:
        """The sync ends by itself."""
        self._state.values.pop(_OPEN, None)
        self.save()

    def _restart(self) -> None:
        self._rows = self._bytes = 0
        self._saved = time.monotonic()

    def follow(self, label: str, entry: Callable[[], TableState]) -> None:
        """A read begins, whose rows are handed over as they come."""
        self._reads[label] = entry

    def follows(self, label: str) -> bool:
        """Whether rows of the table are handed over as they come."""
        return label in self._reads

    def put(self, label: str, entry: TableState) -> None:
        """Sets the entry of a table that is not read any more, for the next checkpoint."""
        self._reads.pop(label, None)
        self._state.put({label: entry.to_json(label)})

    def add(self, rows: int, size: int) -> None:
        """Rows of so many bytes were handed over."""
        self._rows += rows
        self._bytes += size

    @property
    def most_rows(self) -> int:
        """How many rows come between two checkpoints at most, but for one batch."""
        return max(self._most_rows, ROWS_A_TABLE * len(self._state.values["tables"]))

    def is_due(self, margin: int = 0) -> bool:
        """Whether the next checkpoint is due; ``margin``: bytes that may come in one step."""
        return bool(self._rows) and (
            self._rows >= self.most_rows
            or self._bytes > LARGEST - margin
            or time.monotonic() - self._saved >= _LONGEST
        )

    def save(self) -> None:
        entries = {label: entry().to_json(label) for label, entry in self._reads.items()}
        self._state.save(entries)
        self._restart()
