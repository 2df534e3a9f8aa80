"""What a sync does to each table: a line in the log when a table begins, a table of all at the
end, and an error with the tables that failed."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fivetran_connector_sdk import Logging

from .errors import NO_MEMORY, SourceError, SourceUnavailable
from .rows import SkippedRecords, counted

_INTERVAL = 10.0  # seconds between two lines of progress


@dataclass
class TableCounts:
    """What has been done to a table until now. ``mode``: what is read of it, and why; ``read``:
    records; ``sent``: rows; ``deleted``: rows that were deleted one by one."""

    mode: str
    read: int = 0
    sent: int = 0
    deleted: int = 0
    failed: bool = False
    began: float = field(default_factory=time.monotonic)
    seconds: float = 0.0


class SyncReport:
    """The report of a sync: what it does to each table, the records that it skips, the tables that
    fail. A context manager: at its end it logs all of them, and then raises SourceError with the
    reasons of the tables that failed."""

    def __init__(self) -> None:
        self.skipped = SkippedRecords()
        self._tables: dict[str, TableCounts] = {}
        self._tried = 0
        self._reasons: dict[str, str] = {}

    @contextmanager
    def attempt(self, table: str) -> Iterator[None]:
        """Notes that the table failed in place of raising its SourceError, so that the others are
        synced all the same, unless the error concerns every table."""
        self._tried += 1
        try:
            yield
        except SourceUnavailable:
            raise
        except SourceError as error:
            # Not the error itself: its traceback would hold rows. It may name the table already.
            reason = str(error).removeprefix(f"{table}: ")
        except MemoryError:
            reason = NO_MEMORY
        else:
            return
        self._reasons[table] = reason
        Logging.error(f"{table}: {reason}")

    @contextmanager
    def table(self, name: str, mode: str) -> Iterator[TableCounts]:
        """The sync of a table; what it does is added to the counts."""
        Logging.info(f"{name}: {mode}")
        counts = self._tables[name] = TableCounts(mode)
        try:
            yield counts
        except BaseException:
            counts.failed = True
            raise
        finally:
            counts.seconds = time.monotonic() - counts.began

    def __enter__(self) -> "SyncReport":
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._log()
        if self._reasons and error is None:
            reasons = "\n".join(f"{table}: {why}" for table, why in self._reasons.items())
            raise SourceError(f"{len(self._reasons)} of {self._tried} tables failed:\n{reasons}")

    def _log(self) -> None:
        rows = [
            {
                "table": name,
                "mode": "failed" if counts.failed else counts.mode.partition(",")[0],
                "read": counts.read,
                "sent": counts.sent,
                "deleted": counts.deleted,
                "skipped": self.skipped.counts[name],
                "seconds": round(counts.seconds, 1),
            }
            for name, counts in self._tables.items()
        ]
        if rows:
            Logging.info(f"Tables of this sync:\n{aligned(rows)}")
        self.skipped.report()


class Progress:
    """How far a read has come, for a line in the log every ten seconds. ``waited``: the seconds
    that were spent in waits until now, which do not count in the rate."""

    def __init__(self, waited: Callable[[], float] = lambda: 0.0) -> None:
        self._waited = waited
        self._said, self._rows, self._waits = time.monotonic(), 0, waited()

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._said >= _INTERVAL

    def text(self, rows: int, noun: str, done: int, total: int | None) -> str:
        """`5000 rows read, 250 rows/s, 20 % of 25000, 80 s left`. ``rows``: that were read until
        now, of which those since the last text give the rate; ``noun``: what one of them is.
        ``done``: how many of the ``total`` (None: not known) there are, with those of earlier
        syncs."""
        now, waits = time.monotonic(), self._waited()
        rate = (rows - self._rows) / max(now - self._said - (waits - self._waits), 0.001)
        self._said, self._rows, self._waits = now, rows, waits
        text = f"{counted(rows, noun)} read, {rate:.0f} {noun}s/s"
        if total:
            text += f", {min(100 * done // total, 99)} % of {total}"
            if rate:
                text += f", {max(total - done, 0) / rate:.0f} s left"
        return text


def aligned(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same names of values, as lines of aligned columns below these names."""
    lines = [[*rows[0]], *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
