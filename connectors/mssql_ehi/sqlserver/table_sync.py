"""The sync of one table: where its read starts, how its rows are stored, what the state keeps."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from fivetran_connector_sdk import Logging, Operations as op

from shared.completeness import Keys
from shared.encryption import Encryption
from shared.errors import SourceError, TransientError, all_or_nothing
from shared.rows import SkippedRecords, counted
from shared.state import State

from . import change_capture
from .change_capture import NO_LSN, newest
from .change_tracking import check_changes
from .checkpoints import Checkpoints
from .deletes import Deletes, DeliveredKeys, is_due
from .destination_schemas import CHANGED
from .errors import ADVICE, ChangesExpired, SchemaChanged, StatementError, UndecodableRow
from .late_rows import LateRows
from .naming import bracketed, quoted
from .query import Changes, Plan, Position, column_digest, is_settled, next_start
from .read_progress import (
    CHANGES,
    FIRST,
    FULL,
    INCREMENTAL,
    POSTPONED,
    REPLACEMENT,
    ProgressLog,
    ReadProgress,
    SyncLog,
)
from .read_start import ReadStart, leaves_stale_rows
from .rows import MAPPING_VERSION, size
from .session import Session, Values
from .source_clock import SourceClock, check_columns
from .source_tables import fingerprint
from .sweep import TableSweep
from .table_keys import types_of
from .table_state import Cursor, TableState
from .table_writer import TableWriter
from .windows import WindowProbe
from .workers import Workers

# A larger table is not replaced in one step: so many rows, or bytes, wait on disk at most.
SMALL = 1_000_000
LARGEST_WAITING = 1024 * 1024 * 1024
LONGEST_SLICE = 600.0  # seconds
GetData = Callable[
    [Session, Plan, str | None, str | None, Position | None, int | None],
    Generator[list[Values], None, None],
]


@dataclass(frozen=True, repr=False)
class Sync:
    """What the tables of a sync have in common.

    ``get_data`` streams the rows of a plan in batches; ``unchanged`` has the tables that Change
    Tracking has no change of, and up to which version; ``checkpoint_rows`` is after how many rows
    a checkpoint comes; ``slice_rows`` is how many rows a statement reads at most; ``deletes`` says
    how deletes are found that the server does not tell.
    """

    get_data: GetData
    state: State
    skipped: SkippedRecords
    encryption: Encryption
    lookback: timedelta
    checkpoint_rows: int
    slice_rows: int
    deleted_columns: Sequence[str]
    unchanged: Mapping[str, int]
    workers: Workers
    late_rows: LateRows
    clock: SourceClock
    windows: WindowProbe
    checkpoints: Checkpoints
    log: SyncLog
    deletes: Deletes


class TableSync:
    """The sync of one table by ``plan``. ``mode`` and ``seconds`` tell afterwards what it did.

    It runs in the thread of a worker. What calls the SDK or changes the state runs in the thread
    that makes checkpoints, by way of ``_in_turn``.
    """

    def __init__(self, plan: Plan, sync: Sync) -> None:
        self.plan, self.mode, self.seconds = plan, "", 0.0
        self.description = str(plan)  # of how the table is read at this and later syncs
        self._sync, self._in_turn = sync, sync.workers.in_turn
        self._checkpoints = sync.checkpoints
        self._table, self._label = plan.table, plan.table.label
        self._saved = TableState.from_json(sync.state.table(self._label), self._label)
        self._lasting = self._as_stored()
        self._state = replace(self._saved.renewed(self._lasting), key_refused=False)
        if reason := self._table.reload_reason:
            # Until the table is replaced, the destination has rows that it never had.
            self._state = replace(self._lasting, rows=self._saved.rows, has_stale=True)
            if self._saved.is_known and not self.is_moved:
                op.warning(f"{self._label}: {reason}: the table is reloaded")
        self._delivered = self._delivered_keys()
        self._writer = TableWriter(plan.table, sync.skipped, sync.deleted_columns, self._delivered)
        # The hours between two full reads that bring the deletes, 0: there are none.
        self._refresh_hours = self._hours_of_refresh()
        self._refreshes = False  # this sync reads the table in full for that
        self._fingerprint_of_all: str | None = None  # before rows were handed over by this read
        # Of this read: whether it resumes another one, how many bytes were handed over as they
        # came, and whether the table proved too large to be replaced.
        self._resumed, self._bytes, self._outgrew = False, 0, False
        # The cursor of the last sync, if this one cannot find another.
        self._last_cursor: Cursor | None = None
        # Of the rows of this read, if the server knows no key.
        self._keys: Keys | None = None
        self._keyed_rows = 0

    def _delivered_keys(self) -> DeliveredKeys | None:
        """The keys of the rows that the destination has, None if the table is not swept."""
        key = self._sync.deletes.sweep_key(self.plan, replaced=self._is_small)
        if key is None:
            return None
        return DeliveredKeys(self._table, key, self._state.delivered, self._sync.deletes.budget)

    def _hours_of_refresh(self) -> int:
        keys = self._delivered
        swept = keys is not None and not keys.are_too_many
        return self._sync.deletes.hours_of_refresh(self.plan, replaced=self._is_small, swept=swept)

    def _as_stored(self) -> TableState:
        """What the destination has of the table, however its rows are read."""
        table = self._table
        return TableState(
            destination=table.destination,
            destination_schema=table.destination_schema,
            key=[column.name for column in table.key],
            key_types=types_of(table.key),
            identity=table.identity or self._saved.identity or None,
            column_names=dict(table.renamed) or None,
        )

    @property
    def is_moved(self) -> bool:
        """Whether the table was stored in another schema, as all are when the setting changes."""
        return self._saved.is_known and self._table.reload_reason == CHANGED

    @property
    def runs_first(self) -> bool:
        """Whether the table is small, or was never loaded: it is synced before the others."""
        estimate = self._table.estimate
        return self._state.rows is None or (estimate is not None and estimate <= SMALL)

    @property
    def rows_to_read(self) -> int:
        """About how many, as far as it is known before the read begins."""
        found = self.plan.column is not None or self.plan.by_changes
        estimate = self._table.estimate or 0
        if self._state.read is not None:
            return max(estimate - self._state.read.stored, 0)
        return 0 if found and self._state.rows is not None else estimate

    @property
    def rows_sent(self) -> int:
        return self._writer.sent

    @property
    def deletes_sent(self) -> int:
        return self._writer.deleted

    # Beginning

    def sync(self, session: Session) -> int:
        """Reads what is due, and returns how many rows were read. Raises SourceError."""
        if self.plan.fault:
            self._sync.log.end(self._label)
            self._sync.state.put({self._label: self._refused().to_json(self._label)})
            raise SourceError(self.plan.fault)
        self._session = session
        session.begin_table(self._label)
        self._log = ProgressLog(self._table, self._sync.log, lambda: session.waited)
        self._sync.log.begin(self._label)
        try:
            if self._table.postponed:
                raise SchemaChanged(self._table.postponed)
            return self._sync_with_fallback()
        except SchemaChanged as error:
            self.mode = POSTPONED
            self._warn(f"{error}: the next sync reads the table")
            return 0
        finally:
            self.seconds = self._log.seconds
            self._sync.log.end(self._label)
            session.begin_table("")

    def _refused(self) -> TableState:
        """The entry of a table that cannot be synced: as it was, so that nothing is lost."""
        return replace(self._saved, key_refused=self._saved.key_refused or self._table.key_refused)

    def _sync_with_fallback(self) -> int:
        """Reads what is due. Where the server refuses an incremental read, for a reason other than
        the rights of the login, all rows are read; the next sync is incremental again."""
        try:
            self._allow_for_a_kill()
            start = self._start()
            if progress := start.resume():
                self.plan = start.plan
                return self._read(progress)
            if self._is_refresh_due:
                progress = self._refresh(start)
                self.plan = start.plan
                start.check(progress)
                return self._read(progress)
            progress = start.incremental()
            if progress and self._label in self._sync.unchanged:
                version = self._sync.unchanged[self._label]
                return self._leave(progress, replace(self._state.cursor, version=version))
            if progress and (cursor := start.unchanged(progress)):
                return self._leave(progress, cursor)
            progress = progress or start.full(small=self._is_small)
            self.plan = start.plan
            start.check(progress)
            return self._read(progress)
        except ChangesExpired as error:
            self._warn(f"{error}: the table is reloaded")
        except StatementError as error:
            incremental = (self.plan.column or self.plan.by_changes) and not self.plan.whole
            if not incremental or error.number in ADVICE:
                raise
            self._warn(f"{error}: in place of the incremental read, all rows are read")
            self.plan = replace(self.plan, whole=True)
            self.description = str(self.plan)
        return self._read(self._start_full())

    @property
    def _is_refresh_due(self) -> bool:
        """Whether the table has to be read in full, for the rows that are gone at the source."""
        hours, state = self._refresh_hours, self._state
        if not hours or state.rows is None:
            return False
        return is_due(state.refreshed, hours, self._sync.deletes.now)

    def _refresh(self, start: ReadStart) -> ReadProgress:
        """A read of all rows, which replaces the table or, where it is too large for that, loads
        it anew."""
        self._refreshes = True
        if self._is_small or self._seems_empty():
            return start.full(small=True)
        progress = start.full(small=False)
        progress.mode = FIRST
        self._warn(
            f"full_refresh_hours: the table, of about {self._known_rows} rows, is emptied at "
            "the destination and loaded anew, so that rows go that are gone at the source"
        )
        return progress

    def _seems_empty(self) -> bool:
        """Whether a table that has rows by the server's statistics shows none: a login that lost
        its rights must not empty it."""
        sql, parameters = Plan(self._table, None, ()).statement(limit=1)
        try:
            return not self._session.with_retries(
                "its first row", lambda: self._session.rows(sql, parameters)
            )
        except UndecodableRow:
            return False

    def _sweep(self) -> TableSweep | None:
        """The sweep for rows that are gone at the source, None if the table has none."""
        if self._delivered is None:
            return None
        return TableSweep(
            self._session,
            self._table,
            self._writer,
            self._delivered,
            self._sync.deletes,
            self._checkpoints,
            self._in_turn,
            self._warn,
        )

    def _allow_for_a_kill(self) -> None:
        """If the last sync was killed, it may have handed over rows that the state does not
        tell."""
        if self._sync.deletes.was_killed and self._saved.is_known and (sweep := self._sweep()):
            sweep.widen()

    def _start(self) -> ReadStart:
        return ReadStart(
            self._session,
            self.plan,
            self._state,
            self._sync.clock,
            self._sync.windows,
            self._sync.encryption,
            self._sync.log,
            self._warn,
        )

    def _start_full(self) -> ReadProgress:
        """A read of all rows. If the server refuses to tell its clock, there is no new cursor, and
        the last one stays."""
        try:
            start = self._start()
            progress = start.full(small=self._is_small)
            self.plan = start.plan
            start.check(progress)
            return progress
        except StatementError as error:
            if not self.plan.whole:
                raise
            Logging.warning(
                f"{self._label}: {error}: there is no new cursor, so the next sync starts where "
                "this one did"
            )
        # The rows that are read now may be others than those that its window tells.
        self._last_cursor = replace(self._state.cursor, window=None)
        self.plan = replace(self.plan, column=None, tracked=False, captured=False)
        return self._start().full(small=self._is_small)

    @property
    def _is_small(self) -> bool:
        """Whether a full read replaces the table, as far as that is known before. Of a view there
        is no estimate, and how much disk its rows take nobody tells but the last read."""
        rows = self._known_rows
        return not self._saved.outgrown and (rows is None or rows <= SMALL)

    @property
    def _known_rows(self) -> int | None:
        """About how many rows the table has: by the server or, if it does not tell, by the last
        read."""
        return self._saved.rows if self._table.estimate is None else self._table.estimate

    @property
    def _most_waiting(self) -> int:
        """How many bytes of rows wait for a replacement at most."""
        return LARGEST_WAITING // self._sync.workers.count

    def _is_outgrown(self, progress: ReadProgress) -> bool:
        """Whether the table is too large to be replaced, as far as this read tells."""
        if self._outgrew or progress.mode == REPLACEMENT:
            return self._outgrew
        is_whole = not (progress.is_incremental or self._resumed)
        fits = is_whole and progress.stored <= SMALL and self._bytes <= self._most_waiting
        return self._saved.outgrown and not fits

    def _warn(self, message: str) -> None:
        self._in_turn(op.warning, f"{self._label}: {message}")

    def _leave(self, progress: ReadProgress, cursor: Cursor) -> int:
        """Nothing is read, since nothing changed."""
        self.mode = progress.mode
        if self._delete_missing():
            cursor = replace(cursor, window=None)
        cursor = replace(cursor, columns=fingerprint(self._table.columns))
        self._state = replace(self._state, cursor=cursor)
        self._in_turn(self._checkpoints.put, self._label, self._state)
        self._sync.log.detail(f"{self._label}: unchanged since the last sync")
        self._count_nulls(progress)
        return 0

    def _delete_missing(self) -> bool:
        """Deletes the rows that are gone at the source, if their table is swept and that is due.
        Returns whether there were any: what is known of a window is of no use then, since they may
        come back as they were."""
        before = self._writer.deleted
        if sweep := self._sweep():
            self._state = sweep.run(self._state)
        return self._writer.deleted > before

    # Reading

    def _read(self, progress: ReadProgress) -> int:
        """Reads to the end, over transient faults, and saves the new cursor."""
        self.mode = progress.mode
        if progress.position is None:  # of a read that resumes it was said already
            self._sync.log.detail(f"{self._label}: {self._what_is_read(progress)}")
        if progress.mode in (INCREMENTAL, FULL) and self._delete_missing():
            progress.window = None  # of a read that resumes
        self._look_ahead(progress)
        with self._writer.replacement(wanted=progress.mode == REPLACEMENT):
            self._in_turn(self._begin, progress)
            try:
                self._session.with_retries("its rows", lambda: self._read_on(progress))
            except SourceError:
                self._in_turn(self._break_off, progress)
                raise
            self._in_turn(self._finish, progress)
        self._count_nulls(progress)
        return progress.rows

    def _what_is_read(self, progress: ReadProgress) -> str:
        """The mode, and why it is that, for the log."""
        if progress.is_incremental:
            return "changes since the last sync"
        if self._state.rows is None:
            return "first load"
        empties = ", and empties the table first" if progress.mode == FIRST else ""
        if self._refreshes:
            return f"full refresh, which is due every {self._refresh_hours} hours{empties}"
        if self._table.reload_reason:
            return f"full refresh, since the table is reloaded{empties}"
        if self.plan.column is None and not self.plan.by_changes:
            return f"full refresh, as at every sync{empties}"
        return f"full refresh, since it is not known from where on changes are to be read{empties}"

    def _look_ahead(self, progress: ReadProgress) -> None:
        """Asks for the greatest moment that the table has, and for the fingerprint of the rows
        that the next sync would read again, unless some may still come or change under the moments
        that are read now. Before any row is read: what changes behind the read, or after it, is
        not what the fingerprint tells."""
        plan, lookback = self.plan, self._sync.lookback
        if not plan.is_timed or progress.position is not None:
            return
        assert plan.column is not None  # noqa: S101
        windows = self._sync.windows
        latest = windows.greatest(self._session, plan, progress.start)
        progress.latest, progress.window = latest, None
        if latest is not None and is_settled(plan.column, latest, progress.clock, lookback):
            start = next_start(plan.column, latest, progress.clock, lookback)
            progress.window = windows.fingerprint(self._session, plan, start, latest)

    def _begin(self, progress: ReadProgress) -> None:
        """From here on the destination may have other rows than the state tells."""
        # A sync that was killed may have stored what a first load that resumes finds marked.
        self._resumed = progress.position is not None
        empties = progress.mode in (FIRST, REPLACEMENT) and not self._resumed
        self._writer.begin(self._fingerprint_before(progress), self._form, empties=empties)
        self._advise(progress)
        if progress.mode != REPLACEMENT:
            self._stream(progress)

    def _advise(self, progress: ReadProgress) -> None:
        """Names the index that would spare the server work."""
        plan, estimate = self.plan, self._table.estimate or 0
        name = f"{bracketed(self._table.schema)}.{bracketed(self._table.name)}"
        if self._table.is_view:
            return
        if progress.mode == INCREMENTAL and plan.column and plan.indexed is False:
            index = f"CREATE INDEX ... ON {name} ({bracketed(plan.column.name)})"
            self._sync.log.detail(
                f"{self._label}: the server looks through all of about {estimate} rows, and sorts "
                f"what it finds, since no index begins with {plan.column.name}: {index} would "
                "spare it that"
            )
        elif not progress.is_incremental and not plan.order and estimate > self._sync.slice_rows:
            self._sync.log.detail(
                f"{self._label}: about {estimate} rows are read in one statement, which begins "
                "again if it breaks off, since no unique index has an order without nulls: a "
                f"primary key, or CREATE UNIQUE INDEX ... ON {name} over NOT NULL columns, "
                "would let it be read in parts"
            )

    def _fingerprint_before(self, progress: ReadProgress) -> str | None:
        """The fingerprint of the last full read, "" if there is none. None: this read needs none,
        since it is not one of all rows, or will not be compared with another one."""
        plan, resumes = self.plan, progress.position is not None
        if plan.by_changes or progress.is_incremental or resumes or not self._is_small:
            return None
        if plan.column and not self._refresh_hours:
            return None
        return self._state.fingerprint or ""

    @property
    def _form(self) -> str:
        columns = [f"{c.destination} {c.declared}" for c in self._table.columns]
        deleted = self._writer.deleted_column
        key = [c.destination for c in self._table.key]
        return repr((MAPPING_VERSION, columns, key, deleted and deleted.name))

    def _stream(self, progress: ReadProgress) -> None:
        """Rows are handed over as they come from now on."""
        self._fingerprint_of_all = self._state.fingerprint
        self._state = self._state.undigested()
        self._sync.state.put({self._label: self._state.to_json(self._label)})
        self._checkpoints.follow(self._label, lambda: self._resumable(progress))

    def _break_off(self, progress: ReadProgress) -> None:
        """The next sync resumes here, if rows are handed over as they come."""
        if self._checkpoints.follows(self._label):
            entry = self._resumable(progress) if progress.rows else self._with_keys(self._state)
            self._checkpoints.put(self._label, entry)

    def _with_keys(self, entry: TableState) -> TableState:
        """The entry with the keys of all rows that were handed over."""
        return replace(entry, delivered=self._delivered.to_text() if self._delivered else None)

    def _give_up(self) -> None:
        """The next sync reads again what this one does, also the rows that it has handed over."""
        streams = self._checkpoints.follows(self._label)
        entry = self._with_keys(self._state) if streams else self._state
        self._checkpoints.put(self._label, entry)

    def _read_on(self, progress: ReadProgress) -> None:
        """Reads to the end, past rows that cannot be decoded, and over faults that come once in
        many rows. Raises TransientError for others; called again it resumes there."""
        while True:
            if progress.position is None:
                self._in_turn(self._restart, progress)
            before = progress.rows
            try:
                self._read_statement(progress)
                return
            except UndecodableRow as error:
                self._pass_undecodable_row(progress, error)
            except TransientError as error:
                read = progress.rows - before
                if not self._plan_of(progress).order or read < self._sync.checkpoint_rows:
                    raise
                Logging.warning(f"{self._label}: {error}; resuming after the last row")
                self._session.pause()

    def _read_statement(self, progress: ReadProgress) -> None:
        """Stores the rows of one statement, the one that starts behind the position."""
        if progress.mode != CHANGES:
            self._store_rows(progress)
            return
        with self._session.transaction():
            version = self._check_changes(progress)
            if version is None:
                return  # nothing changed
            if progress.position is None:
                check_columns(self._session, self._table)
                progress.clock = version
            self._store_rows(progress)
        # The server may have forgotten some meanwhile, of captured ones under a snapshot, too.
        if self.plan.captured or not self._session.snapshots:
            self._check_changes(progress)

    def _store_rows(self, progress: ReadProgress) -> None:
        """Stores the rows from the position on, slice by slice."""
        limit = self._limit(progress)
        while not self._store_slice(progress, limit):
            pass

    def _limit(self, progress: ReadProgress) -> int | None:
        """How many rows a statement reads at most, so that none holds a lock on the schema, and
        row versions, for hours. None: all, where each statement would have to sort the table, and
        of a table that is replaced, which has to be one consistent read."""
        plan, most = self.plan, self._sync.slice_rows
        if progress.mode in (CHANGES, REPLACEMENT) or not plan.reads_by_index:
            return None
        estimate = self._table.estimate
        return None if estimate is not None and estimate <= most else most

    def _store_slice(self, progress: ReadProgress, limit: int | None) -> bool:
        """Stores up to ``limit`` rows. Returns whether they were the last ones."""
        began, before = time.monotonic(), progress.rows
        batches = self._sync.get_data(
            self._session,
            self._plan_of(progress),
            progress.start,
            progress.clock,
            progress.position,
            limit,
        )
        with closing(batches):
            for batch in batches:
                self._in_turn(self._store, progress, batch)
                if limit is not None and time.monotonic() - began > LONGEST_SLICE:
                    return False
        return limit is None or progress.rows - before < limit

    def _plan_of(self, progress: ReadProgress) -> Plan:
        plan = self.plan
        if progress.mode != CHANGES:
            return plan
        return Changes(plan.table, None, plan.key, captured=plan.captured)

    def _check_changes(self, progress: ReadProgress) -> str | None:
        """The version or LSN that the server is at, None if nothing changed. Raises
        ChangesExpired if it does not know all changes."""
        if self.plan.captured:
            since = progress.start or NO_LSN
            capture = newest(self._table.captures, since)
            return change_capture.check(self._session, capture, since)
        return check_changes(self._session, self._table, int(progress.start or 0))

    def _restart(self, progress: ReadProgress) -> None:
        """Without a position nothing counts that may have been read."""
        progress.restart()
        self._writer.restart()
        self._keys, self._keyed_rows = Keys() if self._table.has_declared_key else None, 0
        if progress.mode == FIRST:
            self._truncate()

    def _truncate(self) -> None:
        """Empties the table. From now on any checkpoint, another table's too, shows a table that
        is not complete."""
        self._state = self._lasting
        self._sync.state.put({self._label: self._lasting.to_json(self._label)})
        self._writer.truncate()

    def _pass_undecodable_row(self, progress: ReadProgress, error: UndecodableRow) -> None:
        """Reads the next row alone, and skips it if it cannot be decoded. Raises SourceError."""
        plan = self._plan_of(progress)
        if not plan.order:
            raise SourceError(
                f"{self._label}: {error}. Without a key the read cannot resume after this row"
            )
        where = progress.start, progress.clock, progress.position
        try:
            # Rows may have come in between: only the one that is read alone is known to be bad.
            rows = self._session.rows(*plan.statement(*where, limit=1))
            if not rows:
                raise SourceError(f"{self._label}: {error}, and there is no row to skip")
            self._in_turn(self._store, progress, rows)
            return
        except UndecodableRow as again:
            reason = again
        try:
            rows = self._session.rows(*plan.statement(*where, limit=1, columns=plan.order))
        except UndecodableRow:
            raise SourceError(f"{self._label}: the key of a row cannot be decoded") from None
        if rows:
            progress.position = plan.position_of(rows[0])
            self._in_turn(self._skip, progress, reason)

    # Storing

    def _store(self, progress: ReadProgress, batch: list[Values]) -> None:
        """Stores a batch, moves the position behind it, and checkpoints if one is due."""
        write = self._writer.write_changes if progress.mode == CHANGES else self._writer.write
        written = write(batch, progress.rows)
        progress.rows += len(batch)
        progress.stored += written.stored
        progress.skipped += written.skipped
        if progress.rows > SMALL:
            self._writer.stop_comparing()
        if self._keys is not None and not progress.is_incremental:
            places = [self._table.columns.index(column) for column in self._table.key]
            self._keys.add(tuple(row[place] for place in places) for row in batch)
            self._keyed_rows += len(batch)
        self._advance(progress, batch)
        self._log.log(progress)
        if self._writer.is_replacing:
            if progress.stored > SMALL or self._writer.waiting_bytes > self._most_waiting:
                self._stop_replacing(progress)
                self._save(progress)
            return
        size_of_batch = self._size(batch)
        self._bytes += size_of_batch
        self._checkpoints.add(len(batch), size_of_batch)
        if self._checkpoints.is_due(self._session.largest_batch):
            self._save(progress)

    def _advance(self, progress: ReadProgress, batch: list[Values]) -> None:
        plan = self._plan_of(progress)
        progress.nulls += plan.nulls(batch)
        if plan.order:
            progress.position = plan.position(batch[-1])
            progress.greatest = plan.greatest(batch, progress.greatest)

    def _size(self, batch: list[Values]) -> int:
        width = self._table.row_width
        if width is None or width * len(batch) > self._session.largest_batch // 2:
            return sum(map(size, batch))
        return width * len(batch)  # the most that the rows can take is little enough

    def _skip(self, progress: ReadProgress, reason: UndecodableRow) -> None:
        self._writer.skip(progress.rows, reason)
        progress.skipped += 1
        progress.rows += 1
        self._check_skipped(progress)

    def _stop_replacing(self, progress: ReadProgress) -> None:
        """The table proves too large to be replaced: the rows that wait are stored."""
        self._outgrew = True
        progress.mode = self.mode = FULL
        if self._refreshes or leaves_stale_rows(self.plan, self._state):
            progress.mode = self.mode = FIRST
            self._truncate()
        self._writer.stop_replacing(empties=progress.mode == FIRST)
        self._state = replace(self._state, fingerprint=None, outgrown=True)
        for rows, stored in self._writer.release():
            # The position counts only when all of them are stored.
            entry = self._with_keys(self._state)
            self._sync.state.put({self._label: entry.to_json(self._label)})
            self._checkpoints.add(rows, stored)
            if self._checkpoints.is_due(self._session.largest_batch):
                self._checkpoints.save()
        self._stream(progress)

    # Saving

    def _check_skipped(self, progress: ReadProgress, *, complete: bool = False) -> None:
        """Raises SourceError if more than a tenth of the table is skipped, as far as is known
        before its read is ``complete``."""
        rows = max(progress.stored + progress.skipped, self._state.rows or 0)
        if not complete or progress.is_incremental:
            rows = max(rows, self._table.estimate or 0)
        if not complete:
            rows = max(rows, self._sync.checkpoint_rows)
        try:
            self._sync.skipped.check(self._label, rows)
        except SourceError:
            self._give_up()
            raise

    def _check_declared_key(self, progress: ReadProgress) -> None:
        """Raises SourceError if rows of this read have one key: all but one would be lost."""
        if self._keys is None or progress.is_incremental:
            return
        same = self._keyed_rows - self._keys.distinct()
        if same:
            self._give_up()
            key = ", ".join(column.name for column in self._table.key)
            raise SourceError(
                f"its declared key ({key}) is not unique: of {self._keyed_rows} rows, {same} have "
                "the key of another one. Name more columns in keys"
            )

    def _save(self, progress: ReadProgress) -> None:
        """Checkpoints in mid-read."""
        self._check_skipped(progress)
        self._checkpoints.save()

    def _resumable(self, progress: ReadProgress) -> TableState:
        """The entry with which the next sync resumes behind the last row that was stored."""
        if self._state.confirms_empty and progress.stored:
            # An empty table is not believed at once any more.
            self._state = replace(self._state, rows=progress.stored, emptied=False)
        read = progress.saved(self.plan, self._sync.encryption)
        return self._with_keys(replace(self._state, read=read))

    def _finish(self, progress: ReadProgress) -> None:
        """Replaces the table, if its rows wait for that, and saves the new cursor."""
        self._check_skipped(progress, complete=True)
        self._check_declared_key(progress)
        if self._writer.is_replacing and not progress.rows and self._is_first_time_empty():
            return
        rows_before = self._state.rows or 0
        keeps_stale = self._writer.is_replacing and self._replace_table(progress)
        entry = replace(
            self._lasting,
            rows=max(rows_before, progress.stored) if progress.is_incremental else progress.stored,
            outgrown=self._is_outgrown(progress),
            has_stale=keeps_stale,
            # With a cursor no later sync would delete the rows that this one had to leave.
            cursor=Cursor() if keeps_stale else self._cursor(progress),
            fingerprint=None if keeps_stale else self._fingerprint_after(progress),
            **self._about_deletes(progress),
        )
        self._checkpoints.put(self._label, entry)
        self._log.log(progress, done=True)
        if self._checkpoints.is_due():
            self._checkpoints.save()

    def _fingerprint_after(self, progress: ReadProgress) -> str | None:
        if progress.is_incremental and not progress.rows:
            return self._fingerprint_of_all
        return self._writer.fingerprint()

    def _about_deletes(self, progress: ReadProgress) -> dict[str, Any]:
        """What the next sync has to know to find rows that are gone, as TableState has it."""
        now, state = self._sync.deletes.now, self._state
        replaced = progress.mode in (FIRST, REPLACEMENT)
        found: dict[str, Any] = {}
        if self._delivered is not None:
            found["delivered"] = self._delivered.to_text()
            found["swept"] = now if replaced else state.swept
            found["doubted"] = state.doubted and not replaced
        if self._refresh_hours:
            found["refreshed"] = now if replaced else state.refreshed
        return found

    def _is_first_time_empty(self) -> bool:
        """Notes a table that is empty and had rows: it is replaced if the next sync sees the same,
        since a login that lost its rights looks like that."""
        if not self._state.rows or self._state.emptied:
            return False
        op.warning(
            f"{self._label}: the source lists no rows, and had {self._state.rows} before. Nothing "
            "is replaced unless the next sync sees the same: check what mssql_user may read"
        )
        self._checkpoints.put(self._label, replace(self._state, emptied=True))
        return True

    def _replace_table(self, progress: ReadProgress) -> bool:
        """Stores the rows that wait, in place of those before, unless some were skipped. Returns
        whether rows stay that do not exist any more."""
        if not progress.skipped:
            changed = self._writer.changed()
            if changed is not None:
                self._store_waiting(changed)
                return False
            with all_or_nothing(self._label):
                self._truncate()
                self._store_waiting(None)
            return False
        were = "1 row was" if progress.skipped == 1 else f"{progress.skipped} rows were"
        op.warning(
            f"{self._label}: {were} skipped, so nothing is replaced: rows deleted at the source "
            "stay until a sync reads every row"
        )
        self._store_waiting(None)
        self._writer.delete_waiting()
        return leaves_stale_rows(self.plan, self._state)

    def _store_waiting(self, changed: Sequence[bool] | None) -> None:
        """Stores the rows that wait, or those that ``changed``, before the next checkpoint."""
        before = self._writer.sent
        self._writer.replace(changed)
        self._checkpoints.add(self._writer.sent - before, self._writer.waiting_bytes)
        if changed is not None:
            sent, rows = self._writer.sent - before, counted(len(changed), "row")
            said = f"{rows}, as the destination has them: nothing is sent"
            if sent:
                said = f"{sent} of {rows} are sent, the others did not change"
            self._sync.log.detail(f"{self._label}: {said}")

    def _cursor(self, progress: ReadProgress) -> Cursor:
        """Where the next incremental read starts."""
        if self._last_cursor is not None:
            return self._last_cursor
        columns = fingerprint(self._table.columns)
        if self.plan.tracked:
            since = self._table.tracked_since
            return Cursor(version=int(progress.clock), tracked_since=since, columns=columns)
        if self.plan.captured:
            return Cursor(lsn=progress.clock, columns=columns)
        column = self.plan.column
        if column is None:
            return Cursor()
        signed = column_digest(column)
        if self.plan.by_version:
            return Cursor(column=signed, rowversion=progress.clock, columns=columns)
        greatest, window = self._greatest(progress)
        if greatest is not None:
            moment = next_start(column, greatest, progress.clock, self._sync.lookback)
        elif progress.start is not None:  # nothing but nulls, or no rows
            moment = next_start(column, progress.start, progress.clock, timedelta())
        else:
            return Cursor()
        return Cursor(
            column=signed,
            moment=moment,
            columns=columns,
            offset=progress.offset,
            window=window,
        )

    def _greatest(self, progress: ReadProgress) -> tuple[str | None, str | None]:
        """The greatest moment that counts, and the fingerprint of the window up to it, None if
        there is none or it would not be found again, since later rows were read."""
        greatest, latest = progress.greatest, progress.latest
        if greatest is None or latest is None:
            return greatest, None
        earlier = self.plan.earlier(greatest, latest)
        window = progress.window if earlier == greatest else None
        # In the order of the key a row may have changed behind the read, and been stamped by a
        # clock that is behind the server's.
        return earlier if self.plan.whole else greatest, window

    def _count_nulls(self, progress: ReadProgress) -> None:
        """Reports how many rows of the table an incremental read does not see."""
        table, column = self._table, self.plan.column
        if column is None or not self.plan.is_timed:
            return
        late_rows = self._sync.late_rows
        if progress.mode == INCREMENTAL and column.nullable and self.plan.indexed:
            sql = (
                f"SELECT COUNT_BIG(*) AS nulls FROM {quoted(table.schema)}.{quoted(table.name)} "  # noqa: S608
                f"WHERE {quoted(column.name)} IS NULL"
            )
            with suppress(SourceError):  # the table is complete without it
                rows = self._session.optional("a count of rows without a moment", sql)
                progress.nulls = rows[0][0] if rows else 0
        late_rows.note(self._label, column, progress.nulls)
