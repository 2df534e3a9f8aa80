"""A table brought up to date from its list at the source: replaced where that is due, else by the
rows that changed."""

import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Any

from fivetran_connector_sdk import Logging, Operations as op

from . import times
from .pages import Page, read_ahead
from .rows import Rejects, Row, Rows, Table, UnusableRecord
from .state import OVERLAP, State, Window

CHECKPOINT_ROWS = 5_000
REPLACED_AT_ONCE = 100_000  # rows; a longer list checkpoints on its way
_IN_MEMORY = 8 * 1024 * 1024  # bytes of rows that wait; more of them go to a temporary file
_PROGRESS = 10.0  # seconds between two lines of progress


@dataclass(repr=False)
class Listing:
    """How to read one table. ``pages`` begins a reading, ``cancel`` ends a request under way,
    ``to_rows`` maps the records of a page, ``changed_at`` tells when a row last changed
    (None: nobody knows, it is always sent)."""

    table: Table
    window: Window
    pages: Callable[[], Iterator[Page]]
    to_rows: Callable[[list[Any]], Rows]
    cancel: Callable[[], None]
    changed_at: Callable[[Row], datetime | None] = lambda row: None
    log_pages: bool = False

    def sync(self, state: State, rejects: Rejects) -> None:
        """Hands the rows over and moves the cursor.

        Where the source's totals disagree with what was read, the list is read once more; if they
        still do, the rows are stored, nothing is replaced and the cursor stays. A first load goes
        straight to the destination; the rows of a later full one wait until it has proven whole.
        A list that has become empty replaces the table when it is empty at the next sync, too.
        """
        name, entry = self.table.name, state.table(self.table.name)
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as spool:
            for attempt in ("first", "second"):
                reading = self._read(state, rejects, entry, spool)
                if reading.whole or reading.emptied:
                    break
                Logging.warning(f"{name}: the list changed under the {attempt} reading")
            if reading.emptied:
                if entry.get("rows"):
                    op.warning(
                        f"{name}: the source lists nothing where it had {entry['rows']} rows. "
                        "Nothing is replaced unless the next sync sees the same: check what the "
                        "credentials may read"
                    )
                state.save({name: {**entry, "emptied": True}})
                return
            rejects.check(name, max(reading.seen, entry.get("rows", 0)))
            if reading.whole and not reading.direct:
                op.truncate(name)
            self._hand_over(reading)
        if not reading.whole:
            op.warning(
                f"{name}: what was read, twice, does not agree with the source's own total. The "
                "rows are stored; deletes were not looked for, and the next sync reads them again"
            )
            return
        full, cursor = self.window.full, times.to_text(self.window.started - OVERLAP)
        listed_at = times.to_text(self.window.started) if full else entry["listed_at"]
        rows = reading.sent + (0 if full else entry["rows"])
        state.save({name: {"cursor": cursor, "listed_at": listed_at, "rows": rows}})

    def _read(
        self, state: State, rejects: Rejects, entry: dict[str, Any], spool: IO[bytes]
    ) -> "_Reading":
        name, full, said = self.table.name, self.window.full, time.monotonic()
        direct = not full or "listed_at" not in entry or "unfinished" in entry
        reading = _Reading(direct, spool)
        spool.seek(0)
        spool.truncate()
        rejects.clear(name)
        for page in read_ahead(self.pages(), self.cancel):
            if full and not reading.totals:
                known = entry.get("emptied") or entry.get("rows") == 0
                reading.emptied = not page.records and not known
                if reading.emptied:
                    continue
                if reading.direct:
                    self._truncate(state, entry)
            reading.totals.add(page.total)
            reading.seen += len(page.records)
            reading.keep(self._rows(page, rejects))
            if not reading.direct and reading.sent > REPLACED_AT_ONCE:
                reading.direct = True
                self._truncate(state, entry)
            if reading.direct:
                self._hand_over(reading)
                if reading.sent - reading.saved >= CHECKPOINT_ROWS:
                    reading.saved = reading.sent
                    state.save()
            if self.log_pages or time.monotonic() - said >= _PROGRESS:
                said = time.monotonic()
                pages = f" of {page.pages}" if page.pages else ""
                Logging.info(f"{name}: page {page.number}{pages}, {reading.progress()}")
        since = f"changes since {self.window.since}" if self.window.since else "everything"
        Logging.info(f"{name}: {since}, {reading.progress()}")
        return reading

    def _rows(self, page: Page, rejects: Rejects) -> list[Row]:
        rows, since = [], self.window.since
        found = self.to_rows(page.records)
        for record, column, placeholder in found.odd:
            position = f"page {page.number}, record {record + 1}"
            rejects.add_odd(self.table.name, column, position, placeholder)
        for number, row in enumerate(found.rows, 1):
            if isinstance(row, UnusableRecord):
                rejects.add(self.table.name, f"page {page.number}, record {number}", row)
            elif not since or (self.changed_at(row) or since) >= since:
                rows.append(row)
        return rows

    def _truncate(self, state: State, entry: dict[str, Any]) -> None:
        # From here on any checkpoint, one for new tokens too, shows a table that is not whole.
        state.put({self.table.name: {**entry, "unfinished": True}})
        op.truncate(self.table.name)

    def _hand_over(self, reading: "_Reading") -> None:
        for rows in reading.waiting():
            for row in rows:
                op.upsert(self.table.name, row)


@dataclass(repr=False)
class _Reading:
    """One reading of a list. Its rows wait in ``spool`` unless they are handed over ``direct``."""

    direct: bool
    spool: IO[bytes]
    emptied: bool = False
    seen: int = 0
    sent: int = 0
    saved: int = 0
    kept: int = 0
    next_rows: list[Row] = field(default_factory=list)
    totals: set[int | None] = field(default_factory=set)
    began: float = field(default_factory=time.monotonic)

    @property
    def whole(self) -> bool:
        """Whether all pages spoke of one total (or of none), and so many records came."""
        return self.totals in ({self.seen}, {None}, set())

    def keep(self, rows: list[Row]) -> None:
        self.sent += len(rows)
        if self.direct:
            self.next_rows = rows
        else:
            pickle.dump(rows, self.spool)
            self.kept += 1

    def waiting(self) -> Iterator[list[Row]]:
        """The rows to hand over next."""
        self.spool.seek(0)
        for _ in range(self.kept):
            yield pickle.load(self.spool)  # noqa: S301  # written by this very object
        yield self.next_rows
        self.kept, self.next_rows = 0, []

    def progress(self) -> str:
        rate = self.seen / max(time.monotonic() - self.began, 0.001)
        return f"{self.seen} records read, {self.sent} rows to store, {rate:.0f} records/s"
