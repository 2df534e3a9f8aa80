"""A table brought up to date from its list at the source: replaced where that is due and the list
is proven whole, else by the rows that changed. Rows that the destination has are not sent."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import compress
from operator import itemgetter
from typing import Any

from fivetran_connector_sdk import Logging, Operations as op

from .completeness import ReadProgress, Verdict, judge
from .errors import all_or_nothing
from .fingerprint import Encoder, Fingerprint, after_storing
from .pages import Page, read_ahead
from .report import Progress, SyncReport, TableCounts
from .rest import RestClient
from .rows import Row, Rows, SkippedRecords, Table, counted
from .spool import Spool
from .state import OVERLAP, State, TableState, Window

CHECKPOINT_ROWS = 5_000
REPLACED_AT_ONCE = 1_000_000  # rows that may wait; a longer list is stored, and replaces nothing
STREAMED_FIRST_LOAD = 100_000  # rows of a first load that may wait; more are handed over at once
RECORDS_AT_ONCE = 5_000  # of a page become rows, which take as much memory as they do


@dataclass(repr=False)
class Listing:
    """How to sync one table.

    ``pages`` begins a full pass over the list, ``pages_again`` a second one, in the other
    direction where the source can sort (None: as the first). ``to_rows`` maps the records of a
    page, ``changed_at`` tells when a row last changed (None: nobody knows, it counts as changed).
    ``deletions`` are pages of the records that were deleted at a moment or later, with the fields
    of the table's key, for a source that lists them. ``volatile`` are the columns that differ at
    each sync, such as its time: a row is unchanged if all others are.
    """

    table: Table
    window: Window
    client: RestClient
    pages: Callable[[], Iterator[Page]]
    to_rows: Callable[[list[Any]], Rows]
    changed_at: Callable[[Row], datetime | None] = lambda row: None
    pages_again: Callable[[], Iterator[Page]] | None = None
    deletions: Callable[[datetime], Iterator[Page]] | None = None
    volatile: tuple[str, ...] = ()
    log_pages: bool = False

    def sync(self, state: State, report: SyncReport) -> None:
        """Hands the rows over and moves the cursor.

        A full refresh replaces the table only when it is proven whole: its distinct keys are as
        many as the source's own total, and no page repeats another's. Where they are not, the
        list is read once more and the rows of both are stored. If both saw the same keys, the
        total is what is wrong: the cursor moves, but nothing is deleted; else it stays. A list
        that became empty is believed when the next sync finds it empty, too. Rows that are as the
        state tells that the destination has them are not sent. Raises SourceError.
        """
        with report.table(self.table.name, self.window.mode) as counts:
            self.sync_counted(state, report.skipped, counts)

    def sync_counted(self, state: State, skipped: SkippedRecords, counts: TableCounts) -> None:
        """The same for a caller who has begun the table's report, and has its ``counts``."""
        name = self.client.table = self.table.name
        before = TableState.from_json(state.table(name))
        stored = _Stored(self.table, state, before, counts)
        before = replace(before, fingerprint="")  # stored knows it, and what becomes of it
        deletes = self._delete(before, stored, skipped)
        with ExitStack() as stack:
            fingerprint = _RowsRead(self, before, stored.fingerprint)
            may_wait = self._may_wait(before, stored)
            staged = _StagedRows(
                stored, fingerprint, may_wait, before, stack, is_window=not self.window.full
            )
            reads = [self._read(self.pages, staged, skipped)]
            if self.window.full and not reads[0].seen and not before.confirms_empty:
                self._note_empty(before, stored)
                return
            if not reads[0].is_settled(before.miscount):
                Logging.warning(f"{name}: {reads[0].counts()}; the list is read once more")
                skipped.clear(name)
                reads.append(self._read(self.pages_again or self.pages, staged, skipped))
            self._check_skipped(reads[-1], before, skipped)
            verdict = judge(reads)
            is_list = self._hand_over(verdict, reads, staged, skipped)
            self._warn(verdict, staged, before)
            after = self._after(verdict, staged, before)
            if not is_list:
                after = deletes.keep_due(after, before)
            stored.save(after)

    def _may_wait(self, before: TableState, stored: "_Stored") -> int:
        """How many rows wait until the read is proven whole or, in a window of changes, until it
        is known whether they are those that the destination has. If there are more, all are
        upserted as they come."""
        if not self.window.full:
            return REPLACED_AT_ONCE if stored.fingerprint else 0
        return REPLACED_AT_ONCE if before.is_known else STREAMED_FIRST_LOAD

    def _delete(
        self, before: TableState, stored: "_Stored", skipped: SkippedRecords
    ) -> "_Deletes":
        """Deletes what the source lists as deleted since the cursor. Raises SourceError.

        The window begins before this list is asked for, so that no delete falls between two syncs;
        and changes are read after it, so that a record that was deleted and made anew comes back.
        A full refresh deletes, too: it may not be proven whole, and the cursor moves all the same.
        """
        if not (self.deletions and before.cursor):
            return _Deletes()
        if not self.window.covers(before.cursor):
            return _Deletes(unknown=True)
        name = f"{self.table.name} (deletes)"
        reads = [self._read_deletes(self.deletions, before.cursor, stored, skipped)]
        if not reads[0].is_settled(0):
            Logging.warning(f"{name}: {reads[0].counts()}; the list is read once more")
            skipped.clear(name)
            reads.append(self._read_deletes(self.deletions, before.cursor, stored, skipped))
        skipped.check(name, reads[-1].seen)
        verdict = judge(reads)
        if not verdict.moves:
            op.warning(
                f"{name}: {reads[-1].counts()}: the list changes while it is read. The next sync "
                "reads it again, since the cursor stays"
            )
        Logging.info(f"{name}: {reads[-1].distinct} since {before.cursor}")
        return _Deletes(incomplete=not verdict.moves)

    def _read_deletes(
        self,
        deletions: Callable[[datetime], Iterator[Page]],
        since: datetime,
        stored: "_Stored",
        skipped: SkippedRecords,
    ) -> ReadProgress:
        name, progress = self.table.name, ReadProgress()
        for page in read_ahead(deletions(since), self.client.closed, self.client.ahead):
            found = self.table.keys(page.records)
            keys = skipped.take(f"{name} (deletes)", found, f"page {page.number}, record ")
            stored.note(keys)
            for key in keys:
                op.delete(name, key)
            stored.counts.deleted += len(keys)
            skips = len(page.records) - len(keys)
            progress.note(page, map(itemgetter(*self.table.key), keys), skips)
        progress.end()
        return progress

    def _read(
        self, pages: Callable[[], Iterator[Page]], staged: "_StagedRows", skipped: SkippedRecords
    ) -> ReadProgress:
        name, progress = self.table.name, ReadProgress()
        line = Progress(lambda: self.client.waited)
        staged.begin()
        for page in read_ahead(pages(), self.client.closed, self.client.ahead):
            for rows in self._rows(page, progress, skipped):
                staged.add(rows)
            staged.counts.read += len(page.records)
            if self.log_pages or line.is_due:
                of = f" of {page.pages}" if page.pages else ""
                text = line.text(progress.seen, "record", progress.seen, progress.total)
                Logging.info(f"{name}: page {page.number}{of}, {text}")
            del page  # it may be large, and so may the next one
        progress.end()
        return progress

    def _rows(
        self, page: Page, progress: ReadProgress, skipped: SkippedRecords
    ) -> Iterator[list[Row]]:
        """The rows of a page that are to be stored, those of RECORDS_AT_ONCE at a time; of several
        with one key the last one, as the destination would have it."""
        where, since, keys = f"page {page.number}, record ", self.window.since, list[Any]()
        key_of = itemgetter(*self.table.key)
        for begin in range(0, len(page.records), RECORDS_AT_ONCE):
            found = self.to_rows(page.records[begin : begin + RECORDS_AT_ONCE])
            rows = skipped.take(self.table.name, found, where, begin)
            keys_here = [*map(key_of, rows)]
            keys += keys_here
            twice = len(rows) - len({*keys_here})
            progress.dropped += twice
            if since:
                rows = [row for row in rows if (self.changed_at(row) or since) >= since]
            yield [*{key_of(row): row for row in rows}.values()] if twice else rows
        progress.note(page, keys, skipped=len(page.records) - len(keys))

    def _note_empty(self, before: TableState, stored: "_Stored") -> None:
        name = self.table.name
        if before.rows:
            op.warning(
                f"{name}: the source lists nothing where it had {counted(before.rows, 'row')}. "
                "Nothing is replaced unless the next sync sees the same: check what the "
                "credentials may read"
            )
        stored.save(replace(before, emptied=True))

    def _check_skipped(
        self, progress: ReadProgress, before: TableState, skipped: SkippedRecords
    ) -> None:
        # A window of changes may hold a few records only, and one of them a bad one.
        known = 0 if self.window.full else before.rows or 0
        skipped.check(self.table.name, max(progress.seen, known))

    def _hand_over(
        self,
        verdict: Verdict,
        reads: list[ReadProgress],
        staged: "_StagedRows",
        skipped: SkippedRecords,
    ) -> bool:
        """Upserts the rows that wait, in the place of the table's if they may replace them; only
        those that may be others, if the table has the rest and no others. Returns whether the
        table is the list now."""
        name = self.table.name
        replaces = self.window.full and verdict.whole and not staged.streams
        if replaces and skipped.counts[name]:
            replaces = False
            skipped.unreplaced.append(name)
            Logging.warning(
                f"{name}: skipped records: {skipped.counts[name]}. Nothing was replaced, and "
                "deletes were not looked for"
            )
        # Of changes that were read twice, all are stored.
        only_last = verdict.last_only and (self.window.full or len(reads) == 1)
        comparable = only_last and not reads[-1].repeats
        flags = staged.to_send() if comparable else None
        if flags is not None:
            done = staged.hand_over_changed(flags)
        elif replaces:
            staged.replace_table(only_last=only_last, comparable=comparable)
            done = " replaced the table"
        elif comparable and not self.window.full:
            done = staged.hand_over_window()
        else:
            staged.hand_over(only_last=only_last)
            done = " stored, and nothing taken away"
        Logging.info(f"{name}: {counted(staged.count, 'row')}{done}")
        return replaces

    def _warn(self, verdict: Verdict, staged: "_StagedRows", before: TableState) -> None:
        """Says on the dashboard why deletes were not looked for."""
        name = self.table.name
        if verdict.reason:
            op.warning(f"{name}: {verdict.reason}")
        if self.window.full and staged.streams and before.is_known and verdict.whole:
            op.warning(
                f"{name}: more than {REPLACED_AT_ONCE} rows. They were stored, and nothing was "
                "replaced: deletes were not looked for"
            )

    def _after(self, verdict: Verdict, staged: "_StagedRows", before: TableState) -> TableState:
        """The state of the table after this sync."""
        if not verdict.moves:
            return staged.noted(before)
        full = self.window.full
        # A first load that was streamed is not proven whole: the next sync is a full refresh.
        proven = full and (before.is_known or not staged.streams)
        return TableState(
            cursor=self.window.started - OVERLAP,
            listed_at=self.window.started if proven else before.listed_at,
            rows=staged.count if full else max(before.rows or 0, staged.count),
            miscount=verdict.miscount,
        )


@dataclass(frozen=True)
class _Deletes:
    """What became of the list of deletes. ``unknown``: the source could not tell those since the
    cursor; ``incomplete``: it was read, but may lack some."""

    unknown: bool = False
    incomplete: bool = False

    def keep_due(self, after: TableState, before: TableState) -> TableState:
        """``after``, with what it takes to find the deletes that are missing at the next sync,
        since this one has not replaced the table."""
        if self.incomplete:
            return replace(after, cursor=before.cursor)
        return replace(after, listed_at=None) if self.unknown else after


class _Stored:
    """What the state tells of the rows that the destination has, as a ``fingerprint``.

    Before rows come to it or go, a checkpoint withdraws that: if the sync ends after the rows are
    written, and before the state is, the state still tells nothing that is not so.
    """

    def __init__(
        self, table: Table, state: State, before: TableState, counts: TableCounts
    ) -> None:
        self.table, self._state, self._before = table, state, before
        self.counts = counts
        self._keys = Encoder({name: table.columns[name].type for name in table.key})
        self.fingerprint = before.fingerprint

    def note(self, rows: list[Row]) -> None:
        """Rows, or keys of rows, are about to be stored beside the others, or deleted."""
        if rows and self.fingerprint:
            self.withdraw()
            self.fingerprint = after_storing(self.fingerprint, self._keys.encode(rows))

    def withdraw(self) -> None:
        if self._before.fingerprint:
            self._before = replace(self._before, fingerprint="")
            self._state.save({self.table.name: self._before.to_json()})

    def checkpoint(self, state: TableState) -> None:
        """On the way: more rows are to come."""
        self._state.save({self.table.name: state.to_json()} if state.is_known else {})

    def save(self, state: TableState) -> None:
        """At the end, when all that was noted has been handed over."""
        after = replace(state, fingerprint=self.fingerprint)
        self._state.save({self.table.name: after.to_json()})


class _RowsRead:
    """The fingerprint of the rows of a read, which do not count in their volatile columns."""

    def __init__(self, listing: Listing, before: TableState, fingerprint: str) -> None:
        table, volatile = listing.table, listing.volatile
        columns = table.schema()["columns"]
        self._rows = Encoder({name: columns[name] for name in columns if name not in volatile})
        self._keys = Encoder({name: columns[name] for name in table.key})
        self._is_first_load = not before.is_known
        self.fingerprint = Fingerprint(fingerprint, self._rows.form)

    def add(self, rows: list[Row]) -> None:
        encoded = self._rows.encode(rows)
        if self._is_first_load:
            self.fingerprint.add_without_keys(encoded)
        else:
            self.fingerprint.add(self._keys.encode(rows), encoded)


class _StagedRows:
    """The rows of one or two reads, before they are upserted. Up to ``may_wait`` rows of a read
    wait in spools; when there are more, all are upserted as they come. ``is_window``: they are
    those of a window of changes."""

    def __init__(
        self,
        stored: _Stored,
        rows_read: _RowsRead,
        may_wait: int,
        before: TableState,
        stack: ExitStack,
        *,
        is_window: bool,
    ) -> None:
        self._table, self._may_wait, self._stack = stored.table.name, may_wait, stack
        self._stored, self._rows_read, self._before = stored, rows_read, before
        self.counts = stored.counts
        self._spools: list[Spool] = []
        self._unsaved = 0
        self.count = 0  # rows of the last read
        self.streams = may_wait == 0
        self._is_window = is_window

    def begin(self) -> None:
        """A read begins."""
        self.count = 0
        self._rows_read.fingerprint.clear()
        self._spools.append(self._stack.enter_context(Spool()))

    def add(self, rows: list[Row]) -> None:
        self.count += len(rows)
        if self._is_window or not self.streams:
            self._rows_read.add(rows)
        if self.streams:
            self._upsert(rows)
            return
        self._spools[-1].add(rows)
        if self.count > self._may_wait:
            self.streams = True
            self.hand_over()

    def to_send(self) -> Sequence[bool] | None:
        """For each row of the last read whether it may be another than that of the destination.
        None: that is not known, or the destination may have rows that were not read."""
        return None if self.streams else self._rows_read.fingerprint.to_send()

    def hand_over_changed(self, flags: Sequence[bool]) -> str:
        """Upserts the rows of the last read that ``flags`` name. Returns what was done."""
        sent = self._upsert_flagged(flags)
        self._stored.fingerprint = self._rows_read.fingerprint.to_text()
        if not sent:
            return ", as at the last full refresh: nothing was sent"
        return _part_sent(sent)

    def hand_over_window(self) -> str:
        """Upserts the rows of the last read, a window of changes, that the destination may not
        have. Returns what was done. If the state tells nothing of the whole table any more, it
        tells of these rows, for a source that lists them again in the next window."""
        fingerprint, sent = self._rows_read.fingerprint, self.count
        if not self.streams:
            sent = self._upsert_flagged(fingerprint.to_add())
        if self.count and not self._stored.fingerprint:
            self._stored.fingerprint = fingerprint.to_text(among_others=True)
        if sent == self.count:
            return " stored, and nothing taken away"
        if not sent:
            return ", which the destination has: nothing was sent"
        return _part_sent(sent)

    def _upsert_flagged(self, flags: Sequence[bool]) -> int:
        """Upserts the rows of the last read that ``flags`` name. Returns how many there are."""
        sent, flag = sum(flags), iter(flags)
        for rows in self._spools[-1].batches() if sent else ():
            self._upsert(list(compress(rows, flag)))
        return sent

    def replace_table(self, *, only_last: bool, comparable: bool) -> None:
        """Upserts the rows that wait in the place of those of the table, without a checkpoint
        until all are there. ``comparable``: the last read has each row once, and has all."""
        self._stored.withdraw()
        self._stored.fingerprint = ""
        with all_or_nothing(self._table):
            op.truncate(self._table)
            self.hand_over(only_last=only_last, in_one_step=True)
        if comparable:
            self._stored.fingerprint = self._rows_read.fingerprint.to_text()

    def hand_over(self, *, only_last: bool = False, in_one_step: bool = False) -> None:
        """Upserts the rows that wait: those of all reads, or ``only_last``; ``in_one_step``:
        without a checkpoint, since they take the place of rows that were truncated."""
        for spool in self._spools[-1 if only_last else 0 :]:
            for rows in spool.batches():
                self._upsert(rows, in_one_step=in_one_step)
            spool.clear()

    def _upsert(self, rows: list[Row], *, in_one_step: bool = False) -> None:
        self._stored.note(rows)
        for row in rows:
            op.upsert(self._table, row)
        self.counts.sent += len(rows)
        self._unsaved += len(rows)
        if self._unsaved >= CHECKPOINT_ROWS and not in_one_step:
            after = self.noted(self._before) if self._before.confirms_empty else self._before
            self._stored.checkpoint(after)
            self._unsaved = 0

    def noted(self, before: TableState) -> TableState:
        """``before``, with a note that rows are stored: an empty list is not believed at once."""
        if not before.is_known:
            return before
        rows = max(before.rows or 0, self.count) or before.rows
        return replace(before, emptied=False, rows=rows)


def _part_sent(rows: int) -> str:
    verb = "was" if rows == 1 else "were"
    return f": {rows} {verb} sent, since the others did not change"
