"""A table brought up to date from its list at the source: replaced where that is due, else by the
rows that changed."""

import pickle
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from fivetran_connector_sdk import Logging, Operations as op

from . import times
from .rows import Rejects, Row, Table, UnusableRecord
from .state import OVERLAP, State, Window

T = TypeVar("T")
CHECKPOINT_ROWS = 5_000
REPLACED_AT_ONCE = 100_000  # rows; a longer list checkpoints on its way
_IN_MEMORY = 8 * 1024 * 1024  # bytes of rows that wait; more of them go to a temporary file
_PROGRESS = 10.0  # seconds between two lines of progress


@dataclass(repr=False)
class Page:
    """The records of one answer, and how many ``pages`` and records in ``total`` it says there
    are."""

    records: list[Any]
    number: int = 1
    pages: int | None = None
    total: int | None = None


def read_ahead(pages: Iterator[T], cancel: Callable[[], None]) -> Iterator[T]:
    """``pages``, the next of which a thread reads while the caller has the last one.

    Two at most are in memory. When the caller stops early, ``cancel`` must end a reading under
    way; no thread is left behind.
    """
    end: Any = object()
    with ThreadPoolExecutor(1) as reader:
        try:
            following = reader.submit(next, pages, end)
            while (page := following.result()) is not end:
                following = reader.submit(next, pages, end)
                yield page
        except GeneratorExit:
            cancel()
            raise


@dataclass(repr=False, eq=False)
class Listing:
    """How to read one table. ``pages`` begins a reading, ``cancel`` ends a request under way,
    ``to_row`` maps a record or raises UnusableRecord, ``changed_at`` tells when a row last changed
    (None: nobody knows, it is always sent)."""

    table: Table
    window: Window
    pages: Callable[[], Iterator[Page]]
    to_row: Callable[[Any], Row]
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
        for attempt in ("first", "second"):
            reading = self._read(state, rejects, entry)
            if reading.whole or reading.emptied:
                break
            Logging.warning(f"{name}: the list changed under the {attempt} reading")
        if reading.emptied:
            if entry.get("rows"):
                op.warning(
                    f"{name}: the source lists nothing where it had {entry['rows']} rows. Nothing "
                    "is replaced unless the next sync sees the same: check what the credentials "
                    "may read"
                )
            state.save({name: {**entry, "emptied": True}})
            return
        rejects.check(name, max(reading.seen, entry.get("rows", 0)))
        if reading.whole and self.window.full and not reading.direct:
            op.truncate(name)
        for rows in reading.waiting():
            self._hand_over(rows)
        if not reading.whole:
            op.warning(
                f"{name}: what was read, twice, does not agree with the source's own total. The "
                "rows are stored; deletes were not looked for, and the next sync reads them again"
            )
            return
        listed = self.window.started if self.window.full else times.parse(entry["listed_at"])
        known = 0 if self.window.full else entry["rows"]
        state.save(
            {
                name: {
                    "cursor": times.to_text(self.window.started - OVERLAP),
                    "listed_at": times.to_text(listed),
                    "rows": known + reading.sent,
                }
            }
        )

    def _read(self, state: State, rejects: Rejects, entry: dict[str, Any]) -> "_Reading":
        name, full = self.table.name, self.window.full
        reading = _Reading(direct=not full or "listed_at" not in entry or "unfinished" in entry)
        rejects.clear(name)
        said = began = time.monotonic()
        for page in read_ahead(self.pages(), self.cancel):
            if full and not reading.seen:
                if not page.records and not entry.get("emptied") and entry.get("rows") != 0:
                    reading.emptied = True
                    return reading
                if reading.direct:
                    self._truncate(state, entry)
            rows = []
            for position, record in enumerate(page.records, 1):
                try:
                    row = self.to_row(record)
                except UnusableRecord as reason:
                    rejects.add(name, f"page {page.number}, record {position}", reason)
                    continue
                changed = self.changed_at(row)
                if self.window.since is None or changed is None or changed >= self.window.since:
                    rows.append(row)
            reading.add(page, len(rows))
            if not reading.direct and reading.sent > REPLACED_AT_ONCE:
                reading.direct = True
                self._truncate(state, entry)
                for earlier in reading.waiting():
                    self._hand_over(earlier)
            if reading.direct:
                self._hand_over(rows)
                if reading.sent - reading.saved >= CHECKPOINT_ROWS:
                    reading.saved = reading.sent
                    state.save()
            else:
                reading.keep(rows)
            now = time.monotonic()
            if self.log_pages or now - said >= _PROGRESS:
                said = now
                of = f" of {page.pages}" if page.pages else ""
                Logging.info(f"{name}: page {page.number}{of}, {reading.rate(now - began)}")
        seconds = time.monotonic() - began
        kind = "full" if full else f"since {self.window.since}"
        Logging.info(f"{name}: list read ({kind}), {reading.rate(seconds)}")
        return reading

    def _truncate(self, state: State, entry: dict[str, Any]) -> None:
        # From here on any checkpoint, one for new tokens too, shows a table that is not whole.
        state.values["tables"][self.table.name] = {**entry, "unfinished": True}
        op.truncate(self.table.name)

    def _hand_over(self, rows: list[Row]) -> None:
        for row in rows:
            op.upsert(self.table.name, row)


class _Reading:
    """One reading of a list: what was seen, what is to be sent, and whether it is whole."""

    def __init__(self, direct: bool) -> None:
        self.direct = direct
        self.emptied = False
        self.seen = self.sent = self.saved = 0
        self._totals: set[int | None] = set()
        self._waiting = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115  # lives as long as this
        self._lists = 0

    @property
    def whole(self) -> bool:
        """Whether all pages stated one total (or none at all), and so many records came."""
        return self._totals in ({self.seen}, {None}, set())

    def add(self, page: Page, sent: int) -> None:
        self.seen += len(page.records)
        self.sent += sent
        self._totals.add(page.total)

    def keep(self, rows: list[Row]) -> None:
        pickle.dump(rows, self._waiting)
        self._lists += 1

    def waiting(self) -> Iterator[list[Row]]:
        """The rows that were kept, for the last time."""
        self._waiting.seek(0)
        while self._lists:
            self._lists -= 1
            yield pickle.load(self._waiting)  # noqa: S301  # written above, by this process

    def rate(self, seconds: float) -> str:
        return f"{self.seen} read, {self.sent} to store, {self.seen / max(seconds, 0.001):.0f}/s"
