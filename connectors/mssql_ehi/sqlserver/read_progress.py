"""How far the read of a table has come, and what of it the state keeps."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from fivetran_connector_sdk import Logging

from shared.encryption import Encryption
from shared.report import Progress
from shared.rows import counted

from .query import Plan, Position, order_signature
from .source_tables import SourceTable, fingerprint
from .table_state import MODES, SavedRead

# How the rows of a read are stored. The first load empties the table, then streams; a replacement
# is stored in one step when it is complete; a full read stores rows over those that are there.
# Of the last two only rows that changed are read, by a column or by Change Tracking.
FIRST, REPLACEMENT, FULL, INCREMENTAL, CHANGES = MODES
POSTPONED = "postponed"  # nothing is read
MANY_TABLES = 50  # of more, the log has details on level DEBUG


@dataclass(repr=False)
class ReadProgress:
    """A read: how it began, and how far it has come.

    ``start``, ``greatest``: texts of the plan's column. ``clock``: the earlier of the server's
    clocks when the read began or, where these tell the changes, the lowest active rowversion or
    the version of Change Tracking. ``offset``: minutes that the server's clock is ahead of UTC.
    """

    mode: str
    start: str | None
    clock: str
    offset: int = 0
    position: Position | None = None  # of the last row that was stored
    greatest: str | None = None
    latest: str | None = None  # the greatest moment of the table when the read began
    window: str | None = None  # fingerprint, then, of the rows that the next sync reads again
    stored: int = 0  # rows, since the read began, by earlier syncs, too
    skipped: int = 0  # rows, since then
    nulls: int = 0  # rows without a value of the plan's column, since then
    rows: int = 0  # read by this sync

    @property
    def is_incremental(self) -> bool:
        return self.mode in (INCREMENTAL, CHANGES)

    def restart(self) -> None:
        """Forgets what was read: without a position it is read once more."""
        self.rows = self.stored = self.skipped = self.nulls = 0

    def saved(self, plan: Plan, encryption: Encryption) -> SavedRead:
        """The form for the state."""
        return SavedRead(
            order=order_signature(plan),
            columns=fingerprint(plan.table.columns),
            mode=self.mode,
            start=self.start,
            clock=self.clock,
            offset=self.offset,
            position=None if self.position is None else encryption.encrypt(self.position),
            greatest=self.greatest,
            latest=self.latest,
            window=self.window,
            stored=self.stored,
            skipped=self.skipped,
            nulls=self.nulls,
            tracked_since=plan.table.tracked_since,
        )

    @classmethod
    def resumed(cls, saved: SavedRead, encryption: Encryption) -> "ReadProgress":
        """The read that was ``saved``. Raises ValueError if its position cannot be decrypted."""
        return cls(
            mode=saved.mode,
            start=saved.start,
            clock=saved.clock,
            offset=saved.offset,
            position=None if saved.position is None else encryption.decrypt(saved.position),
            greatest=saved.greatest,
            latest=saved.latest,
            window=saved.window,
            stored=saved.stored,
            skipped=saved.skipped,
            nulls=saved.nulls,
        )


class SyncLog:
    """Tells in the log how far a sync of ``tables`` tables has come, every ten seconds. Of many
    tables the details are of level DEBUG. Usable from several threads."""

    def __init__(self, tables: int) -> None:
        self._tables, self._done, self._rows = tables, 0, 0
        self._to_read: dict[str, int] = {}  # rows, as far as they are known
        self._reading: dict[str, None] = {}  # in the order in which they began
        self._line = Progress()
        self._lock = threading.Lock()
        self.detail = Logging.info if tables <= MANY_TABLES else Logging.debug

    def expect(self, label: str, rows: int) -> None:
        """About so many rows of the table are to be read."""
        self._to_read[label] = rows

    def begin(self, label: str) -> None:
        """The read of a table begins."""
        with self._lock:
            self._reading[label] = None

    def end(self, label: str) -> None:
        """A table is done, or has failed."""
        with self._lock:
            self._reading.pop(label, None)
            self._to_read.pop(label, None)
            self._done += 1
            self._log()

    def read(self, label: str, rows: int) -> None:
        """So many more rows of the table were read."""
        with self._lock:
            self._rows += rows
            if left := self._to_read.get(label):
                self._to_read[label] = max(left - rows, 0)
            self._log()

    def _log(self) -> None:
        if not self._line.is_due:
            return
        left = sum(self._to_read.values())
        total = self._rows + left if left else None
        text = self._line.text(self._rows, "row", self._rows, total)
        reading = f", reading {', '.join(self._reading)}" if self._reading else ""
        Logging.info(f"{self._done} of {self._tables} tables done{reading}: {text}")


class ProgressLog:
    """Tells in the log how far the read of a table has come, every ten seconds. ``waited``: the
    seconds that were spent before retries until now, which do not count in the rates."""

    def __init__(self, table: SourceTable, log: SyncLog, waited: Callable[[], float]) -> None:
        self._table, self._sync_log, self._rows = table, log, 0
        self._began, self._line = time.monotonic(), Progress(waited)
        self._waited, self._waits = waited, waited()

    @property
    def seconds(self) -> float:
        """Since the sync of the table began."""
        return time.monotonic() - self._began

    def log(self, progress: ReadProgress, *, done: bool = False) -> None:
        self._sync_log.read(self._table.label, progress.rows - self._rows)
        self._rows = progress.rows
        if done:
            seconds = self.seconds - (self._waited() - self._waits)
            rate = progress.rows / max(seconds, 0.001)
            text = f"{counted(progress.rows, 'row')} read, {rate:.0f} rows/s, done"
        elif self._line.is_due:
            total = None if progress.is_incremental else self._table.estimate
            text = self._line.text(progress.rows, "row", progress.stored, total)
        else:
            return
        self._sync_log.detail(f"{self._table.label}: {text}")
