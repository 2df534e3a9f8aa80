"""Where the read of a table starts: at the position of an interrupted read, at the cursor of the
last one, or at the beginning of the table."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta

from fivetran_connector_sdk import Logging

from shared.encryption import Encryption

from .change_capture import begin, newest
from .query import (
    Plan,
    column_digest,
    next_start,
    order_signature,
    signature,
    signature_without_collations,
)
from .read_progress import CHANGES, FIRST, FULL, INCREMENTAL, REPLACEMENT, ReadProgress, SyncLog
from .session import Session
from .source_clock import SourceClock, check_columns
from .source_tables import SourceTable, known_columns
from .table_state import Cursor, TableState
from .windows import WindowProbe


@dataclass(repr=False)
class ReadStart:
    """Decides how the read of a table begins. ``plan``: how it is read, which ``resume`` may
    change; ``state``: what the last sync saved; ``warn`` shows the user a message."""

    session: Session
    plan: Plan
    state: TableState
    clock: SourceClock
    windows: WindowProbe
    encryption: Encryption
    log: SyncLog
    warn: Callable[[str], None]

    @property
    def _table(self) -> SourceTable:
        return self.plan.table

    def resume(self) -> ReadProgress | None:
        """The interrupted read, None if there is none that ``plan`` can resume."""
        saved = self.state.read
        if saved is None or saved.position is None:
            return None
        # The last sync may have read all rows, since the server refused the incremental read.
        plans = (replace(self.plan, whole=True), self.plan)
        signatures = (order_signature, signature_without_collations)
        plan = next((p for p in plans if saved.order in [sign(p) for sign in signatures]), None)
        if plan is None:
            return None
        if saved.tracked_since not in (None, self._table.tracked_since):
            Logging.warning(
                f"{self._table.label}: Change Tracking was switched off and on since the read "
                "began, so that it does not tell all changes since then: the read restarts"
            )
            return None
        if not saved.clock and (plan.column is not None or plan.by_changes):
            Logging.warning(
                f"{self._table.label}: the state does not tell where the next read would start: "
                "the read restarts"
            )
            return None
        try:
            progress = ReadProgress.resumed(saved, self.encryption)
        except ValueError:
            Logging.warning(
                f"{self._table.label}: the position in the state cannot be decrypted (was "
                "mssql_password changed?): the read restarts"
            )
            return None
        self.log.detail(
            f"{self._table.label}: resuming the read that the last sync did not complete"
        )
        self.plan = plan
        self._warn_of_new_columns(saved.columns)
        return progress

    def incremental(self) -> ReadProgress | None:
        """A read of what changed since the last one, None if it is not known from where on."""
        if self.plan.tracked:
            return self._changes()
        if self.plan.captured:
            return self._captured_changes()
        column, cursor = self.plan.column, self.state.cursor
        start = cursor.rowversion if self.plan.by_version else cursor.moment
        if (
            column is None
            or start is None
            or cursor.column not in (column_digest(column), signature([column]))
        ):
            return None
        clock = self.clock.read(self.session, self.plan)
        back = 0 if cursor.offset is None else cursor.offset - clock.offset
        if back > 0:  # the server's clock was set back, as in autumn
            start = next_start(column, start, clock.now, timedelta(minutes=back))
        if start > clock.now:
            Logging.warning(
                f"{self._table.label}: the cursor is ahead of the server's clock: all rows are "
                "read"
            )
            return None
        self._warn_of_new_columns(cursor.columns)
        return ReadProgress(INCREMENTAL, start, clock.settled, clock.offset)

    def unchanged(self, progress: ReadProgress) -> Cursor | None:
        """The next cursor, if an incremental read, which has not begun, would send nothing but
        what is there already."""
        cursor = self.state.cursor
        if progress.mode != INCREMENTAL:
            return None
        if self.plan.by_version:
            changed = self._has_rows(progress)
            return None if changed else replace(cursor, rowversion=progress.clock)
        return cursor if self._is_window_unchanged(progress) else None

    def _has_rows(self, progress: ReadProgress) -> bool:
        """Whether the read would find any row, which the server tells at the first one."""
        assert progress.start is not None  # noqa: S101
        statement = self.plan.probe_statement(progress.start, progress.clock)
        rows = self.session.with_retries("its changes", lambda: self.session.rows(*statement))
        return bool(rows)

    def _is_window_unchanged(self, progress: ReadProgress) -> bool:
        cursor = self.state.cursor
        if not cursor.window:
            return False
        start, clock = cursor.moment, self.clock.read(self.session, self.plan)
        if start is None or progress.start != start:
            return False
        if clock.open_since is not None and clock.open_since < start:
            return False  # rows may come before the window: the cursor has to go back
        return self.windows.fingerprint(self.session, self.plan, start) == cursor.window

    def _changes(self) -> ReadProgress | None:
        """A read by Change Tracking, None if that was switched off and on since the last sync."""
        cursor = self.state.cursor
        if cursor.version is None or cursor.tracked_since != self._table.tracked_since:
            return None
        self._warn_of_new_columns(cursor.columns)
        version = str(cursor.version)
        return ReadProgress(CHANGES, version, version)  # its clock is that of the changes

    def _captured_changes(self) -> ReadProgress | None:
        """A read by Change Data Capture, None if the last sync did not read the table so. Raises
        ChangesExpired if no instance has been there since."""
        cursor = self.state.cursor
        if cursor.lsn is None:
            return None
        newest(self._table.captures, cursor.lsn)  # there has to be one
        self._warn_of_new_columns(cursor.columns)
        return ReadProgress(CHANGES, cursor.lsn, cursor.lsn)

    def full(self, *, small: bool) -> ReadProgress:
        """A read of all rows. A ``small`` table is replaced. A large one is truncated if it was
        never loaded, or if stale rows would stay."""
        if self.state.rows is None or (not small and leaves_stale_rows(self.plan, self.state)):
            mode = FIRST
        else:
            mode = REPLACEMENT if small else FULL
        if self.plan.column is not None:
            # In the order of an index: the server would have to sort the table by the column.
            self.plan = replace(self.plan, whole=True)
        clock = self.clock.read(self.session, self.plan)
        now = begin(self._table.captures, clock.now) if self.plan.captured else clock.settled
        return ReadProgress(mode, None, now, clock.offset)

    def check(self, progress: ReadProgress) -> None:
        """Called before the rows of a read are read that has a new cursor. Raises SchemaChanged if
        the columns are not those of the begin of the sync."""
        if not progress.clock or progress.mode == CHANGES:
            return
        self.session.with_retries("its columns", lambda: check_columns(self.session, self._table))
        began = self.clock.read(self.session, self.plan).open_since
        if began is not None and began == progress.clock:
            self.log.detail(
                f"{self._table.label}: a transaction is open since {began}: the next sync reads "
                "from there"
            )

    def _warn_of_new_columns(self, known: str | None) -> None:
        """``known``: the fingerprint of the columns at the last sync; None: it was not saved."""
        if known is None:
            return
        columns = self._table.columns
        found = known_columns(columns, known)
        new = [c.name for c in columns if c not in found] if found is not None else ["not known"]
        if new:
            self.warn(
                f"new columns ({', '.join(new)}) are filled for rows that change from now on. To "
                "fill all rows, name the table in exclude_tables for one sync, then remove it "
                "there: the table is reloaded"
            )


def leaves_stale_rows(plan: Plan, state: TableState) -> bool:
    """Whether a read that does not truncate the table leaves rows that do not exist any more:
    those of another table, or those whose deletes the server tells, or told until now."""
    told = plan.by_changes or (state.cursor.version, state.cursor.lsn) != (None, None)
    return bool(plan.table.reload_reason) or told or state.has_stale
