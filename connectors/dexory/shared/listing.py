"""A table brought up to date from its list at the source: replaced where that is due and the list
is proven whole, else by the rows that changed."""

import time
from array import array
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import Any

from fivetran_connector_sdk import Logging, Operations as op

from . import times
from .pages import Page, read_ahead
from .rest import RestClient
from .rows import InvalidRecord, Row, Rows, SkippedRecords, Table
from .spool import Spool
from .state import OVERLAP, State, Window

CHECKPOINT_ROWS = 5_000
REPLACED_AT_ONCE = 1_000_000  # rows that may wait; a longer list is stored, and replaces nothing
STREAMED_FIRST_LOAD = 100_000  # rows of a first load that may wait; more are handed over at once
_FEW_KEYS = 50_000  # which a set may hold: 4 MB
_PROGRESS = 10.0  # seconds between two lines of progress


@dataclass(repr=False)
class Listing:
    """How to read one table.

    ``pages`` begins a full pass over the list, ``pages_again`` a second one, in the other
    direction where the source can sort (None: as the first). ``to_rows`` maps the records of a
    page, ``changed_at`` tells when a row last changed (None: nobody knows, it is always sent).
    """

    table: Table
    window: Window
    client: RestClient
    pages: Callable[[], Iterator[Page]]
    to_rows: Callable[[list[Any]], Rows]
    changed_at: Callable[[Row], datetime | None] = lambda row: None
    pages_again: Callable[[], Iterator[Page]] | None = None
    log_pages: bool = False

    def sync(self, state: State, skipped: SkippedRecords) -> None:
        """Hands the rows over and moves the cursor.

        A full reading replaces the table only when it is proven whole: its distinct keys are as
        many as the source's own total, and no page repeats another's. Where they are not, the
        list is read once more and the rows of both are stored. If both saw the same keys, the
        total is what is wrong: the cursor moves, but nothing is deleted; else it stays. A list
        that became empty is believed when the next sync finds it empty, too. Raises SourceError.
        """
        name, entry = self.table.name, state.table(self.table.name)
        with ExitStack() as stack:
            store = _Store(name, state, self._may_wait(entry), stack)
            readings = [self._read(self.pages, store, skipped)]
            if self.window.full and _became_empty(readings[0], entry):
                self._note_empty(state, entry)
                return
            if not readings[0].is_settled(entry.get("miscount", 0)):
                Logging.warning(f"{name}: {readings[0].counts()}; the list is read once more")
                readings.append(self._read(self.pages_again or self.pages, store, skipped))
            self._check_skipped(readings[-1], entry, skipped)
            self._store(_judge(readings), store, entry, state, skipped)

    def _may_wait(self, entry: dict[str, Any]) -> int:
        """How many rows wait until they are proven whole; the others are handed over as they
        come."""
        if not self.window.full:
            return 0
        return REPLACED_AT_ONCE if entry else STREAMED_FIRST_LOAD

    def _read(
        self, pages: Callable[[], Iterator[Page]], store: "_Store", skipped: SkippedRecords
    ) -> "_Reading":
        name, reading, said = self.table.name, _Reading(), time.monotonic()
        skipped.clear(name)
        store.begin()
        for page in read_ahead(pages(), self.client.closed):
            store.add(self._rows(page, reading, skipped))
            if self.log_pages or time.monotonic() - said >= _PROGRESS:
                said = time.monotonic()
                of = f" of {page.pages}" if page.pages else ""
                Logging.info(f"{name}: page {page.number}{of}, {reading.progress(store.count)}")
        reading.end()
        since = f"changes since {self.window.since}" if self.window.since else "everything"
        Logging.info(f"{name}: {since}, {reading.progress(store.count)}")
        return reading

    def _rows(self, page: Page, reading: "_Reading", skipped: SkippedRecords) -> list[Row]:
        """The rows of a page that are to be stored; records that cannot be are reported."""
        name = self.table.name
        where, found = f"page {page.number}, record ", self.to_rows(page.records)
        for record, column, placeholder in found.odd:
            skipped.add_odd(name, column, f"{where}{record + 1}", placeholder)
        rows: list[Row] = []
        if {*map(type, found.rows)} <= {dict}:  # as in most pages
            rows = found.rows  # type: ignore[assignment]
        else:
            for position, row in enumerate(found.rows, 1):
                if isinstance(row, InvalidRecord):
                    skipped.add(name, f"{where}{position}", row)
                else:
                    rows.append(row)
        keys = map(itemgetter(*self.table.key), rows)
        reading.note(page, keys, skipped=len(page.records) - len(rows))
        since = self.window.since
        if not since:
            return rows
        return [row for row in rows if (self.changed_at(row) or since) >= since]

    def _note_empty(self, state: State, entry: dict[str, Any]) -> None:
        name = self.table.name
        if entry.get("rows"):
            op.warning(
                f"{name}: the source lists nothing where it had {entry['rows']} rows. "
                "Nothing is replaced unless the next sync sees the same: check what the "
                "credentials may read"
            )
        state.save({name: {**entry, "emptied": True}})

    def _check_skipped(
        self, reading: "_Reading", entry: dict[str, Any], skipped: SkippedRecords
    ) -> None:
        # A window of changes may hold a few records only, and one of them a bad one.
        known = 0 if self.window.full else entry.get("rows", 0)
        skipped.check(self.table.name, max(reading.seen, known))

    def _store(
        self,
        outcome: "_Outcome",
        store: "_Store",
        entry: dict[str, Any],
        state: State,
        skipped: SkippedRecords,
    ) -> None:
        """Hands over what waits, replaces the table if it may be, and checkpoints."""
        name, full = self.table.name, self.window.full
        replaces = full and outcome.whole and not store.streams
        if replaces and skipped.counts[name]:
            replaces = False
            skipped.unreplaced.append(name)
            Logging.warning(
                f"{name}: skipped records: {skipped.counts[name]}. Nothing was replaced "
                "and deletes were not looked for"
            )
        if replaces:
            op.truncate(name)
        store.hand_over(only_last=len(outcome.used) == 1, in_one_step=replaces)
        done = "replaced the table" if replaces else "were stored, and nothing was taken away"
        Logging.info(f"{name}: {store.count} rows {done}")
        if outcome.why:
            op.warning(f"{name}: {outcome.why}")
        if not outcome.moves:
            state.save({name: {key: entry[key] for key in entry if key != "emptied"}})
            return
        streamed = full and store.streams
        if streamed and entry and outcome.whole:
            op.warning(
                f"{name}: more than {REPLACED_AT_ONCE} rows. They were stored, and nothing was "
                "replaced: deletes were not looked for"
            )
        new: dict[str, Any] = {"cursor": times.to_text(self.window.started - OVERLAP)}
        # A first load that was streamed is not proven whole: the next sync is a full refresh.
        if full and (entry or not streamed):
            new["listed_at"] = times.to_text(self.window.started)
        elif "listed_at" in entry:
            new["listed_at"] = entry["listed_at"]
        new["rows"] = store.count if full else entry.get("rows", store.count)
        if outcome.miscount:
            new["miscount"] = outcome.miscount
        state.save({name: new})


class _Store:
    """The rows of one or two readings on their way to the destination: ``may_wait`` of a reading
    wait in spools, and are handed over as they come when there are more."""

    def __init__(self, table: str, state: State, may_wait: int, stack: ExitStack) -> None:
        self._table, self._state, self._may_wait, self._stack = table, state, may_wait, stack
        self._spools: list[Spool] = []
        self._unsaved = 0
        self.count = 0  # rows of the last reading
        self.streams = may_wait == 0

    def begin(self) -> None:
        """A reading begins."""
        self.count = 0
        self._spools.append(self._stack.enter_context(Spool()))

    def add(self, rows: list[Row]) -> None:
        self.count += len(rows)
        if self.streams:
            self._upsert(rows)
            return
        self._spools[-1].add(rows)
        if self.count > self._may_wait:
            self.streams = True
            self.hand_over()

    def hand_over(self, *, only_last: bool = False, in_one_step: bool = False) -> None:
        """Upserts the rows that wait: those of all readings, or ``only_last``; ``in_one_step``:
        without a checkpoint, since they take the place of rows that were truncated."""
        for spool in self._spools[-1 if only_last else 0 :]:
            for rows in spool.batches():
                self._upsert(rows, in_one_step=in_one_step)
            spool.clear()

    def _upsert(self, rows: list[Row], *, in_one_step: bool = False) -> None:
        for row in rows:
            op.upsert(self._table, row)
        self._unsaved += len(rows)
        if self._unsaved >= CHECKPOINT_ROWS and not in_one_step:
            self._state.save()
            self._unsaved = 0


class Keys:
    """Counts the distinct ones of many keys; of each 8 bytes are kept, a 64-bit hash."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def add(self, keys: Iterable[Hashable]) -> int:
        """Notes the keys of a page. Returns how many distinct ones it has."""
        hashes = array("q", map(hash, keys))
        self._hashes += hashes
        return len(set(hashes))

    def distinct(self, *others: "Keys") -> int:
        """How many distinct keys there are in these and ``others``."""
        if sum(len(keys._hashes) for keys in (self, *others)) <= _FEW_KEYS:
            return len({*self._hashes}.union(*(keys._hashes for keys in others)))
        # A set of all would take ten times the memory.
        parts = [array("q") for _ in range(256)]
        for keys in (self, *others):
            for each in keys._hashes:
                parts[each & 255].append(each)
        return sum(len(set(part)) for part in parts)


@dataclass(repr=False)
class _Reading:
    """What one reading of a list has seen."""

    keys: Keys = field(default_factory=Keys)
    totals: dict[int | None, None] = field(default_factory=dict)  # in the order they came
    seen: int = 0  # records
    skipped: int = 0  # of them, since they cannot be stored
    on_pages: int = 0  # keys that are distinct on their page
    distinct: int = 0
    began: float = field(default_factory=time.monotonic)

    def note(self, page: Page, keys: Iterable[Hashable], skipped: int) -> None:
        self.totals[page.total] = None
        self.seen += len(page.records)
        self.skipped += skipped
        self.on_pages += self.keys.add(keys)

    def end(self) -> None:
        self.distinct = self.keys.distinct()

    @property
    def total(self) -> int | None:
        """The records that the source says it has. None: it does not say, or it says several
        numbers."""
        [total, *others] = self.totals or [None]
        return None if others else total

    @property
    def moved(self) -> bool:
        """Whether the source told several totals."""
        return len(self.totals) > 1

    @property
    def miscount(self) -> int:
        """By how many the distinct keys differ from the source's total or, without one, how many
        keys stand on several pages."""
        total = self.total
        return (self.on_pages if total is None else total - self.skipped) - self.distinct

    @property
    def whole(self) -> bool:
        return not self.moved and self.miscount == 0 and self.on_pages == self.distinct

    def is_settled(self, known_miscount: int) -> bool:
        """Whether another reading would tell nothing new: it is whole, or the source counts what
        it does not list, or stops counting, as it did at the last sync."""
        counts = self.miscount == known_miscount != 0 or max(self.miscount, known_miscount) < 0
        return self.whole or (counts and not self.moved)

    def counts(self) -> str:
        of = " or ".join(str(total) for total in self.totals if total is not None)
        return f"{self.distinct + self.skipped} distinct of {of or self.seen} records"

    def progress(self, to_store: int) -> str:
        rate = self.seen / max(time.monotonic() - self.began, 0.001)
        return f"{self.seen} records read, {to_store} rows to store, {rate:.0f} records/s"


@dataclass(repr=False)
class _Outcome:
    """What to do with the rows of the readings that are ``used``: whether they are the ``whole``
    list, whether the cursor ``moves``, and ``why`` no deletes were looked for."""

    used: list[_Reading]
    whole: bool
    moves: bool
    why: str = ""
    miscount: int = 0


def _became_empty(reading: _Reading, entry: dict[str, Any]) -> bool:
    """Whether a list is empty that was not, as far as is known, at the last sync."""
    return not reading.seen and not (entry.get("emptied") or entry.get("rows") == 0)


def _judge(readings: list[_Reading]) -> _Outcome:
    first, last = readings[0], readings[-1]
    if last.whole:
        return _Outcome([last], whole=True, moves=True)
    if first is last:
        why = f"{last.counts()}, as at the last sync: the source's total {_STORED}"
        return _Outcome(readings, whole=False, moves=True, why=why, miscount=last.miscount)
    both = first.keys.distinct(last.keys)
    steady = not first.moved and first.totals.keys() == last.totals.keys()
    if steady and both + last.skipped == last.total:
        return _Outcome(readings, whole=True, moves=True)
    counts = f"read twice, {first.counts()}, then {last.counts()}"
    if last.seen and not last.moved and both == first.distinct == last.distinct:
        why = f"{counts}. Both had the same keys: the source's total {_STORED}"
        return _Outcome(readings, whole=False, moves=True, why=why, miscount=last.miscount)
    why = (
        f"{counts}, {both} in both: the list changes while it is read. The rows were stored, "
        "deletes were not looked for, and the next sync reads them again, since the cursor stays"
    )
    return _Outcome(readings, whole=False, moves=False, why=why)


_STORED = (
    "is not the number of its records. The rows were stored and the cursor moved, but deletes "
    "were not looked for"
)
