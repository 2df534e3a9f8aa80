"""The sync of one table: where its read starts, how its rows are stored, what the state keeps."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from fivetran_connector_sdk import Logging, Operations as op

from shared.encryption import Encryption
from shared.errors import SourceError, TransientError
from shared.rows import SkippedRecords
from shared.state import State

from .errors import ADVICE, ChangesExpired, SchemaChanged, StatementError, UndecodableRow
from .late_rows import LateRows
from .naming import quoted
from .query import Changes, Plan, Position, next_start, signature
from .read_progress import (
    CHANGES,
    FIRST,
    FULL,
    INCREMENTAL,
    POSTPONED,
    REPLACEMENT,
    ProgressLog,
    ReadProgress,
)
from .read_start import ReadStart, leaves_stale_rows
from .rows import size
from .session import Session, Values
from .source_clock import check_changes, check_columns
from .source_tables import fingerprint
from .table_keys import types_of
from .table_state import Cursor, TableState
from .table_writer import TableWriter
from .workers import Workers

SMALL = 100_000  # rows; a larger table is not replaced in one step
LARGEST_CHECKPOINT = 32 * 1024 * 1024  # bytes
GetData = Callable[
    [Session, Plan, str | None, str | None, Position | None], Iterator[list[Values]]
]


@dataclass(frozen=True, repr=False)
class Sync:
    """What the tables of a sync have in common.

    ``get_data`` streams the rows of a plan in batches; ``checkpoint_rows`` is after how many rows
    a checkpoint comes.
    """

    get_data: GetData
    state: State
    skipped: SkippedRecords
    encryption: Encryption
    lookback: timedelta
    checkpoint_rows: int
    workers: Workers
    late_rows: LateRows


class TableSync:
    """The sync of one table by ``plan``. ``mode`` and ``seconds`` tell afterwards what it did.

    It runs in the thread of a worker. What calls the SDK or changes the state runs in the thread
    that makes checkpoints, by way of ``_in_turn``.
    """

    def __init__(self, plan: Plan, sync: Sync) -> None:
        self.plan, self.mode, self.seconds = plan, "", 0.0
        self._sync, self._in_turn = sync, sync.workers.in_turn
        self._largest_checkpoint = LARGEST_CHECKPOINT // sync.workers.count
        self._table, self._label = plan.table, plan.table.label
        self._writer = TableWriter(plan.table, sync.skipped)
        self._saved = TableState.from_json(sync.state.table(self._label))
        self._lasting = self._as_stored()
        self._state = replace(self._saved.renewed(self._lasting), key_refused=False)
        if reason := self._table.reload_reason:
            self._state = replace(self._lasting, rows=self._saved.rows)
            if self._saved.is_known:
                op.warning(f"{self._label}: {reason}: the table is reloaded")
        # The cursor of the last sync, if this one cannot find another.
        self._last_cursor: Cursor | None = None

    def _as_stored(self) -> TableState:
        """What the destination has of the table, however its rows are read."""
        table = self._table
        return TableState(
            destination=table.destination,
            key=[column.name for column in table.key],
            key_types=types_of(table.key),
            identity=table.identity or self._saved.identity or None,
            column_names=dict(table.renamed) or None,
        )

    @property
    def runs_first(self) -> bool:
        """Whether the table is small, or was never loaded: it is synced before the others."""
        estimate = self._table.estimate
        return self._state.rows is None or (estimate is not None and estimate <= SMALL)

    # Beginning

    def sync(self, session: Session) -> int:
        """Reads what is due, and returns how many rows were read. Raises SourceError."""
        if self.plan.fault:
            self._sync.state.put({self._label: self._refused().to_json()})
            raise SourceError(self.plan.fault)
        self._session = session
        session.begin_table(self._label)
        self._log = ProgressLog(self._table)
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

    def _refused(self) -> TableState:
        """The entry of a table that cannot be synced: as it was, so that nothing is lost."""
        return replace(self._saved, key_refused=self._saved.key_refused or self._table.key_refused)

    def _sync_with_fallback(self) -> int:
        """Reads what is due. Where the server refuses an incremental read, for a reason other than
        the rights of the login, all rows are read; the next sync is incremental again."""
        try:
            start = self._start()
            progress = start.resume() or start.incremental() or start.full(small=self._is_small)
            self.plan = start.plan
            return self._read(progress)
        except ChangesExpired as error:
            self._warn(f"{error}: the table is reloaded")
        except StatementError as error:
            incremental = (self.plan.column or self.plan.tracked) and not self.plan.whole
            if not incremental or error.number in ADVICE:
                raise
            self._warn(f"{error}: in place of the incremental read, all rows are read")
            self.plan = replace(self.plan, whole=True)
        return self._read(self._start_full())

    def _start(self) -> ReadStart:
        return ReadStart(
            self._session,
            self.plan,
            self._state,
            self._sync.late_rows,
            self._sync.encryption,
            self._warn,
        )

    def _start_full(self) -> ReadProgress:
        """A read of all rows. If the server refuses to tell its clock, there is no new cursor, and
        the last one stays."""
        try:
            return self._start().full(small=self._is_small)
        except StatementError as error:
            if not self.plan.whole:
                raise
            Logging.warning(
                f"{self._label}: {error}: there is no new cursor, so the next sync starts where "
                "this one did"
            )
        self._last_cursor = self._state.cursor
        self.plan = replace(self.plan, column=None, tracked=False)
        return self._start().full(small=self._is_small)

    @property
    def _is_small(self) -> bool:
        return self._table.estimate is None or self._table.estimate <= SMALL

    def _warn(self, message: str) -> None:
        self._in_turn(op.warning, f"{self._label}: {message}")

    # Reading

    def _read(self, progress: ReadProgress) -> int:
        """Reads to the end, over transient faults, and saves the new cursor."""
        self.mode = progress.mode
        with self._writer.replacement(wanted=progress.mode == REPLACEMENT):
            try:
                self._session.with_retries(self._label, lambda: self._read_on(progress))
            except SourceError:
                if progress.unsaved_rows and not self._writer.is_replacing:
                    self._in_turn(self._save, progress)  # the next sync resumes here
                raise
            self._in_turn(self._finish, progress)
        self._count_nulls(progress)
        return progress.rows

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
            if progress.position is None:
                check_columns(self._session, self._table)
                progress.clock = version
            self._store_rows(progress)
        if not self._session.snapshots:
            self._check_changes(progress)  # the server may have forgotten some meanwhile

    def _store_rows(self, progress: ReadProgress) -> None:
        for batch in self._sync.get_data(
            self._session,
            self._plan_of(progress),
            progress.start,
            progress.clock,
            progress.position,
        ):
            self._in_turn(self._store, progress, batch)

    def _plan_of(self, progress: ReadProgress) -> Plan:
        plan = self.plan
        return Changes(plan.table, None, plan.key) if progress.mode == CHANGES else plan

    def _check_changes(self, progress: ReadProgress) -> str:
        return check_changes(self._session, self._table, int(progress.start or 0))

    def _restart(self, progress: ReadProgress) -> None:
        """Without a position nothing counts that may have been read."""
        progress.restart()
        self._writer.restart()
        if progress.mode == FIRST:
            self._truncate()

    def _truncate(self) -> None:
        """Empties the table. From now on any checkpoint, another table's too, shows a table that
        is not complete."""
        self._state = self._lasting
        self._sync.state.put({self._label: self._lasting.to_json()})
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
            rows = self._session.rows(*plan.statement(*where, only_first=True))
            if not rows:
                raise SourceError(f"{self._label}: {error}, and there is no row to skip")
            self._in_turn(self._store, progress, rows)
            return
        except UndecodableRow as again:
            reason = again
        try:
            rows = self._session.rows(*plan.statement(*where, only_first=True, columns=plan.order))
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
        self._advance(progress, batch)
        self._log.log(progress)
        if self._writer.is_replacing:
            waiting = self._writer.waiting_bytes
            if progress.stored > SMALL or waiting > self._largest_checkpoint:
                self._stop_replacing(progress)
                self._save(progress)
        elif self._is_checkpoint_due(progress, batch):
            self._save(progress)

    def _advance(self, progress: ReadProgress, batch: list[Values]) -> None:
        plan = self._plan_of(progress)
        progress.nulls += plan.nulls(batch)
        if plan.order:
            progress.position = plan.position(batch[-1])
            progress.greatest = plan.greatest(batch, progress.greatest)

    def _is_checkpoint_due(self, progress: ReadProgress, batch: list[Values]) -> bool:
        """Counts the batch among what is not saved yet."""
        width, largest_batch = self._table.row_width, self._session.largest_batch
        progress.unsaved_rows += len(batch)
        if width is None or width * len(batch) > largest_batch // 2:
            progress.unsaved_bytes += sum(map(size, batch))
        else:  # the most that the rows can take is little enough
            progress.unsaved_bytes += width * len(batch)
        return (
            progress.unsaved_rows >= self._sync.checkpoint_rows
            or progress.unsaved_bytes > self._largest_checkpoint - largest_batch
        )

    def _skip(self, progress: ReadProgress, reason: UndecodableRow) -> None:
        self._writer.skip(progress.rows, reason)
        progress.skipped += 1
        progress.rows += 1
        self._check_skipped(progress)

    def _stop_replacing(self, progress: ReadProgress) -> None:
        """The table proves too large to be replaced: the rows that wait are stored."""
        progress.mode = FULL
        if leaves_stale_rows(self.plan, self._state):
            progress.mode = FIRST
            self._truncate()
        saved = 0
        for stored in self._writer.release():
            if stored - saved > self._largest_checkpoint - self._session.largest_batch:
                saved = stored
                self._sync.state.save()  # the position counts only when all of them are stored

    # Saving

    def _check_skipped(self, progress: ReadProgress, *, complete: bool = False) -> None:
        """Raises SourceError if more than a tenth of the table is skipped, as far as is known
        before its read is ``complete``."""
        rows = max(progress.stored + progress.skipped, self._state.rows or 0)
        if not complete or progress.is_incremental:
            rows = max(rows, self._table.estimate or 0)
        if not complete:
            rows = max(rows, self._sync.checkpoint_rows)
        self._sync.skipped.check(self._label, rows)

    def _save(self, progress: ReadProgress) -> None:
        """Checkpoints in mid-read."""
        self._check_skipped(progress)
        if self._state.confirms_empty and progress.stored:
            # An empty table is not believed at once any more.
            self._state = replace(self._state, rows=progress.stored, emptied=False)
        read = progress.saved(self.plan, self._sync.encryption)
        self._checkpoint(replace(self._state, read=read))
        progress.unsaved_rows = progress.unsaved_bytes = 0

    def _checkpoint(self, state: TableState) -> None:
        self._sync.state.save({self._label: state.to_json()})

    def _finish(self, progress: ReadProgress) -> None:
        """Replaces the table, if its rows wait for that, and saves the new cursor."""
        self._check_skipped(progress, complete=True)
        if self._writer.is_replacing and not progress.rows and self._is_first_time_empty():
            return
        rows_before = self._state.rows or 0
        keeps_stale = self._writer.is_replacing and self._replace_table(progress)
        self._checkpoint(
            replace(
                self._lasting,
                rows=max(rows_before, progress.stored)
                if progress.is_incremental
                else progress.stored,
                has_stale=keeps_stale,
                # With a cursor no later sync would delete the rows that this one had to leave.
                cursor=Cursor() if keeps_stale else self._cursor(progress),
            )
        )
        self._log.log(progress, done=True)

    def _is_first_time_empty(self) -> bool:
        """Notes a table that is empty and had rows: it is replaced if the next sync sees the same,
        since a login that lost its rights looks like that."""
        if not self._state.rows or self._state.emptied:
            return False
        op.warning(
            f"{self._label}: the source lists no rows, and had {self._state.rows} before. Nothing "
            "is replaced unless the next sync sees the same: check what mssql_user may read"
        )
        self._checkpoint(replace(self._state, emptied=True))
        return True

    def _replace_table(self, progress: ReadProgress) -> bool:
        """Stores the rows that wait, in place of those before, unless some were skipped. Returns
        whether rows stay that do not exist any more."""
        if not progress.skipped:
            self._truncate()
            self._writer.replace()
            return False
        were = "1 row was" if progress.skipped == 1 else f"{progress.skipped} rows were"
        op.warning(
            f"{self._label}: {were} skipped, so nothing is replaced: rows deleted at the source "
            "stay until a sync reads every row"
        )
        self._writer.replace()
        return leaves_stale_rows(self.plan, self._state)

    def _cursor(self, progress: ReadProgress) -> Cursor:
        """Where the next incremental read starts."""
        if self._last_cursor is not None:
            return self._last_cursor
        columns = fingerprint(self._table.columns)
        if self.plan.tracked:
            since = self._table.tracked_since
            return Cursor(version=int(progress.clock), tracked_since=since, columns=columns)
        column = self.plan.column
        if column is None:
            return Cursor()
        signed = signature([column])
        if self.plan.by_version:
            return Cursor(column=signed, rowversion=progress.clock, columns=columns)
        if progress.greatest is not None:
            moment = next_start(column, progress.greatest, progress.clock, self._sync.lookback)
        elif progress.start is not None:  # nothing but nulls, or no rows
            moment = next_start(column, progress.start, progress.clock, timedelta())
        else:
            return Cursor()
        return Cursor(column=signed, moment=moment, columns=columns, offset=progress.offset)

    def _count_nulls(self, progress: ReadProgress) -> None:
        """Reports how many rows of the table an incremental read does not see."""
        table, column = self._table, self.plan.column
        if column is None or not self.plan.is_timed:
            return
        late_rows = self._sync.late_rows
        if progress.mode == INCREMENTAL and late_rows.counts(table, column):
            sql = (
                f"SELECT COUNT_BIG(*) AS nulls FROM {quoted(table.schema)}.{quoted(table.name)} "  # noqa: S608
                f"WHERE {quoted(column.name)} IS NULL"
            )
            with suppress(SourceError):  # the table is complete without it
                rows = self._session.optional("a count of rows without a moment", sql)
                progress.nulls = rows[0][0] if rows else 0
        late_rows.note(self._label, column, progress.nulls)
