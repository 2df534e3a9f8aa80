"""One table brought up to date: its rows handed over, its position and cursor saved.

The state of a table: `as` and `key` are its name and key at the destination, `types` the key's
types, `names` those of its columns that nobody could make up again, `id` tells it from another
table of its name; `refused`: its key was, at the last sync. `rows` is how many its last full read
stored, `column` and `cursor` (or `rowversion`) where the next incremental read starts, `columns` a
fingerprint of its columns, `offset` by how many minutes the server's clock was ahead of UTC. With
Change Tracking, `version` is since when the next sync reads the changes, and `tracked` at which
version tracking began. `mixed`: the destination has rows that should have gone, so that the next
sync reads all. While a read is unfinished, `read` says how it began (`mode`, `start`, `clock`), in
which `order` it goes, and, sealed, the position `after` which it goes on.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from fivetran_connector_sdk import Logging, Operations as op

from shared.errors import SourceError, TransientError
from shared.rows import InvalidRecord, Row, SkippedRecords
from shared.spool import Spool
from shared.state import State

from .errors import ADVICE, ChangesExpired, SchemaChanged, StatementError, UndecodableRow
from .late_rows import LateRows, is_timed
from .naming import bracketed, quoted
from .query import Changes, Plan, Position, next_start
from .rows import Mapping as RowMapping, is_storable, size
from .sealing import Seal
from .session import Session, Values
from .source_tables import Column, fingerprint
from .table_keys import types_of
from .workers import Workers

SMALL = 100_000  # rows; a larger table is not replaced in one step
LARGEST_CHECKPOINT = 32 * 1024 * 1024  # bytes
_PROGRESS = 5.0  # seconds between two lines of progress
# The first load of a table truncates it; a replacement is handed over when it is whole.
FIRST, REPLACEMENT, FULL = "first", "replacement", "full"
INCREMENTAL, CHANGES, POSTPONED = "incremental", "changes", "postponed"
# What the state keeps of an unfinished read, and of a table's cursor.
_KEPT = ("mode", "start", "clock", "offset", "after", "greatest", "sent", "rejected", "nulls")
_CURSOR = ("column", "cursor", "rowversion", "columns", "offset", "version", "tracked")
GetData = Callable[
    [Session, Plan, str | None, str | None, Position | None], Iterator[list[Values]]
]


@dataclass(repr=False)
class ReadProgress:
    """How a read began, and how far it has come. ``start``, ``greatest``: texts of the plan's
    column; ``clock``: when the read began, by the earlier of the server's clocks, or, where these
    tell the changes, the lowest active rowversion or the version of Change Tracking."""

    mode: str
    start: str | None
    clock: str
    offset: int = 0  # minutes that the server's clock is ahead of UTC
    after: Position | None = None
    greatest: str | None = None
    sent: int = 0  # rows stored since the read began, by earlier syncs, too
    rejected: int = 0  # rows left out since then
    nulls: int = 0  # rows without a value of the column, since then
    seen: int = 0  # rows read by this sync
    unsaved_rows: int = 0
    unsaved_bytes: int = 0


@dataclass(frozen=True, repr=False)
class Sync:
    """What the loads of a sync have in common.

    ``get_data`` streams the rows of a plan in batches; ``checkpoint_rows`` is after how many rows
    a checkpoint comes.
    """

    get_data: GetData
    state: State
    skipped: SkippedRecords
    seal: Seal
    lookback: timedelta
    checkpoint_rows: int
    workers: Workers
    late_rows: LateRows


class TableSync:
    """The sync of one table by ``plan``."""

    def __init__(self, plan: Plan, sync: Sync) -> None:
        self.plan, self.mode, self.seconds = plan, "", 0.0
        self._sync, self._in_turn = sync, sync.workers.in_turn
        self._state, self._rejects, self._seal = sync.state, sync.skipped, sync.seal
        self._lookback, self._checkpoint_rows = sync.lookback, sync.checkpoint_rows
        self._largest_checkpoint = LARGEST_CHECKPOINT // sync.workers.count
        self._table, self._label = plan.table, plan.table.label
        self._mapping = RowMapping(plan.table)
        entry = self._state.table(self._label)
        entry.pop("refused", None)
        self._new = self._lasting(entry)
        self._entry = {**entry, **self._new}
        if anew := self._table.anew:
            rows = {"rows": entry["rows"]} if "rows" in entry else {}
            self._entry = {**self._new, **rows}
            if entry.keys() & {"rows", "read"}:
                op.warning(f"{self._label}: {anew}: it is loaded anew")
        self._spool: Spool | None = None
        self._kept: dict[str, Any] = {}  # the cursor of the last sync, if there can be no other
        self._began = self._said = 0.0

    def _lasting(self, entry: dict[str, Any]) -> dict[str, Any]:
        """What the destination has of the table, however its rows are read."""
        table = self._table
        key = [column.name for column in table.key]
        new: dict[str, Any] = {"as": table.destination, "key": key, "types": types_of(table.key)}
        if identity := table.identity or entry.get("id"):
            new["id"] = identity
        return {**new, "names": dict(table.renamed)} if table.renamed else new

    @property
    def runs_first(self) -> bool:
        """Whether the table is small, or was never loaded: it goes before the others."""
        estimate = self._table.estimate
        return "rows" not in self._entry or (estimate is not None and estimate <= SMALL)

    def sync(self, session: Session) -> int:
        """Reads what is due, and returns how many rows were read. Raises SourceError.

        A read that the server refuses, for a reason other than the rights of the login, gives way
        to a full load by the key alone, after which the next sync is incremental again.
        """
        if self.plan.fault:
            self._state.put({self._label: self._refused()})
            raise SourceError(self.plan.fault)
        self._session = session
        session.begin_table(self._label)
        self._began = self._said = time.monotonic()
        try:
            if self._table.postponed:
                raise SchemaChanged(self._table.postponed)
            return self._sync_once()
        except SchemaChanged as alteration:
            self.mode = POSTPONED
            self._warn(f"{alteration}: the next sync reads the table")
            return 0
        finally:
            self.seconds = time.monotonic() - self._began

    def _refused(self) -> dict[str, Any]:
        """The entry of a table that cannot be synced: as it was, so that nothing is lost."""
        entry = self._state.table(self._label)
        return {**entry, "refused": True} if self._table.key_refused else entry

    def _sync_once(self) -> int:
        try:
            return self._read(self._resume() or self._begin())
        except ChangesExpired as expiry:
            self._warn(f"{expiry}: the table is loaded anew")
        except StatementError as refusal:
            incremental = (self.plan.column or self.plan.tracked) and not self.plan.whole
            if not incremental or refusal.number in ADVICE:
                raise
            self._warn(f"{refusal}: in place of the incremental read a full one follows")
            self.plan = replace(self.plan, whole=True)
        try:
            reading = self._begin_anew()
        except StatementError as refusal:
            if not self.plan.whole:
                raise
            Logging.warning(
                f"{self._label}: {refusal}: there is no new cursor, so the next sync starts "
                "where this one did"
            )
            self._kept = {name: self._entry[name] for name in _CURSOR if name in self._entry}
            self.plan = replace(self.plan, column=None, tracked=False)
            reading = self._begin_anew()
        return self._read(reading)

    # Beginning

    def _resume(self) -> ReadProgress | None:
        saved = dict(self._entry.get("read") or {})
        order = saved.pop("order", None)
        fallback = replace(self.plan, whole=True)
        plan = fallback if order == _order(fallback) else self.plan
        if order != _order(plan) or saved["after"] is None:
            return None
        try:
            saved["after"] = self._seal.open(saved["after"])
        except ValueError:
            Logging.warning(
                f"{self._label}: the position in the state cannot be unsealed (is mssql_password "
                "another one now?): the read begins anew"
            )
            return None
        Logging.info(f"{self._label}: going on where the last sync broke off")
        self.plan = plan
        self._announce_new_columns(saved.pop("columns"))
        return ReadProgress(**saved)

    def _begin(self) -> ReadProgress:
        entry, plan = self._entry, self.plan
        if plan.tracked:
            if entry.get("tracked") == self._table.tracked_since and "version" in entry:
                version = str(entry["version"])
                self._announce_new_columns(entry["columns"])
                return ReadProgress(CHANGES, version, version)  # until the changes' own is known
        elif plan.column and entry.get("column") == _signature([plan.column]):
            clock, offset = self._clock()
            cursor = entry[self._cursor_key]
            if (back := entry.get("offset", offset) - offset) > 0:  # as in autumn
                cursor = next_start(plan.column, cursor, clock, timedelta(minutes=back))
            if cursor <= clock:
                self._announce_new_columns(entry["columns"])
                return ReadProgress(INCREMENTAL, cursor, self._held(clock, offset), offset)
            Logging.warning(
                f"{self._label}: the cursor is ahead of the server's clock: all is read"
            )
        return self._begin_anew()

    def _begin_anew(self) -> ReadProgress:
        """A small table is replaced. A large one is emptied if it never was, or has to be."""
        small = self._table.estimate is None or self._table.estimate <= SMALL
        if "rows" not in self._entry or (not small and self._must_be_emptied):
            mode = FIRST
        else:
            mode = REPLACEMENT if small else FULL
        clock, offset = self._clock()
        return ReadProgress(mode, None, self._held(clock, offset), offset)

    @property
    def _must_be_emptied(self) -> bool:
        """Whether rows would stay that are no more: those of another table, or those whose
        deletes Change Tracking tells or told until now."""
        told = self.plan.tracked or "version" in self._entry
        return bool(self._table.anew) or told or "mixed" in self._entry

    def _empty(self) -> None:
        """From now on any checkpoint, another table's too, shows a table that is not whole."""
        self._entry = self._new
        self._state.put({self._label: self._new})
        op.truncate(self._table.destination)

    def _clock(self) -> tuple[str, int]:
        """What the next sync may start at, whatever this one reads; and by how many minutes the
        server's clock is ahead of UTC."""
        doing = "what version it is at"
        if self.plan.tracked:
            sql = "SELECT CHANGE_TRACKING_CURRENT_VERSION() AS now"
        elif self.plan.by_version:
            sql = "SELECT CONVERT(varchar(18), MIN_ACTIVE_ROWVERSION(), 1) AS now"
        elif self.plan.column:
            doing = "what time it is"
            sql = (
                "SELECT CONVERT(varchar(27), SYSDATETIME(), 121) AS here, "
                "CONVERT(varchar(27), SYSUTCDATETIME(), 121) AS utc, "
                "DATEDIFF(minute, SYSUTCDATETIME(), SYSDATETIME()) AS ahead"
            )
        else:
            return "", 0
        [clocks] = self._session.with_retries(doing, lambda: self._session.rows(sql))
        if None in clocks:
            raise StatementError(f"the server does not tell {doing}", 0)
        self._session.with_retries("its columns", self._check_columns)
        if self.plan.column and not self.plan.by_version:
            *clocks, offset = clocks
            return min(clocks), round(offset / 15) * 15
        return str(clocks[0]).lower(), 0

    def _held(self, clock: str, offset: int) -> str:
        """``clock`` or, if that is earlier, the begin of the oldest transaction that is open: the
        rows that it has stamped may become visible behind it. Called after the clock was read,
        and before the rows are."""
        if not is_timed(self.plan):
            return clock
        began = self._sync.late_rows.earliest_open(self._session, offset)
        if began is None or began >= clock:
            return clock
        Logging.info(
            f"{self._label}: a transaction is open since {began}: the next sync reads from there"
        )
        return began

    def _check_columns(self) -> None:
        """Raises SchemaChanged for a column that was added since the sync began: a row that has a
        value there already, and changed before the clock was read, would not come again."""
        found = self._session.rows(
            "SELECT COLUMN_NAME FROM INFORMATION_SCHEMA.COLUMNS "
            # Text of any length would have the server look through the names of all tables.
            "WHERE TABLE_SCHEMA = CAST(%(schema)s AS sysname) "
            "AND TABLE_NAME = CAST(%(name)s AS sysname)",
            {"schema": self._table.schema, "name": self._table.name},
        )
        known = {*self._table.left_out, *(column.name for column in self._table.columns)}
        if new := [name for (name,) in found if name not in known]:
            raise SchemaChanged(f"columns were added since the sync began ({', '.join(new)})")

    def _announce_new_columns(self, known: str) -> None:
        new = [c.name for c in self._table.columns if fingerprint([c]) not in known.split()]
        if new:
            self._warn(
                f"new columns ({', '.join(new)}) are filled for rows that change from now on. To "
                "fill all rows, name the table in exclude_tables for one sync, then no more: it "
                "is loaded anew"
            )

    def _warn(self, message: str) -> None:
        self._in_turn(op.warning, f"{self._label}: {message}")

    # Reading

    def _read(self, reading: ReadProgress) -> int:
        self.mode = reading.mode
        with Spool() as spool:
            self._spool = spool if reading.mode == REPLACEMENT else None
            try:
                self._session.with_retries(self._label, lambda: self._go_on(reading))
            except SourceError:
                if self._spool is None and reading.unsaved_rows:
                    self._in_turn(self._save, reading)  # the next sync goes on from here
                raise
            self._in_turn(self._finish, reading)
        self._count_nulls(reading)
        return reading.seen

    def _count_nulls(self, reading: ReadProgress) -> None:
        """Notes how many rows of the table an incremental read does not see."""
        table, column = self._table, self.plan.column
        if column is None or not is_timed(self.plan):
            return
        late_rows = self._sync.late_rows
        if reading.mode == INCREMENTAL and late_rows.counts(table, column):
            sql = (
                f"SELECT COUNT_BIG(*) AS nulls FROM {quoted(table.schema)}.{quoted(table.name)} "  # noqa: S608
                f"WHERE {quoted(column.name)} IS NULL"
            )
            with suppress(SourceError):  # the table is complete without it
                rows = self._session.optional("a count of rows without a moment", sql)
                reading.nulls = rows[0][0] if rows else 0
        late_rows.note(self._label, column, reading.nulls)

    def _go_on(self, reading: ReadProgress) -> None:
        """Reads to the end, past rows that cannot be decoded, and over faults that come once in
        many rows. Raises TransientError for others; called again it goes on from there."""
        tracked, plan = reading.mode == CHANGES, self._plan_of(reading)
        while True:
            if reading.after is None:
                self._in_turn(self._start_over, reading)
            before = reading.seen
            try:
                with self._session.transaction() if tracked else nullcontext():
                    if tracked:
                        version = self._check_versions(reading)
                        if reading.after is None:
                            self._check_columns()
                        reading.clock = reading.clock if reading.after else version
                    where = reading.start, reading.clock, reading.after
                    for batch in self._sync.get_data(self._session, plan, *where):
                        self._in_turn(self._store, reading, batch)
                if tracked and not self._session.snapshots:
                    self._check_versions(reading)  # the server may have forgotten some meanwhile
                return
            except UndecodableRow as error:
                self._pass_bad_row(reading, error)
            except TransientError as error:
                if not plan.order or reading.seen - before < self._checkpoint_rows:
                    raise
                Logging.warning(f"{self._label}: {error}; going on from the last row")
                self._session.pause()

    def _plan_of(self, reading: ReadProgress) -> Plan:
        plan = self.plan
        return Changes(plan.table, None, plan.key) if reading.mode == CHANGES else plan

    def _check_versions(self, reading: ReadProgress) -> str:
        """The version that the rows have now. Raises ChangesExpired if changes are missing."""
        # https://learn.microsoft.com/sql/relational-databases/track-changes/work-with-change-tracking-sql-server
        [(now, oldest)] = self._session.rows(
            "SELECT CHANGE_TRACKING_CURRENT_VERSION() AS now, CHANGE_TRACKING_MIN_VALID_VERSION("
            "OBJECT_ID(%(name)s)) AS oldest",
            {"name": f"{bracketed(self._table.schema)}.{bracketed(self._table.name)}"},
        )
        start = int(reading.start or 0)
        if now is None or oldest is None or not oldest <= start <= now:
            raise ChangesExpired(
                f"Change Tracking does not know all changes since version {start}, that of the "
                f"last sync (it knows them from {oldest} to {now})"
            )
        return str(now)

    def _start_over(self, reading: ReadProgress) -> None:
        """Without a position nothing counts that may have been read."""
        reading.seen = reading.sent = reading.rejected = reading.nulls = 0
        self._rejects.clear(self._label)
        if self._spool is not None:
            self._spool.clear()
        if reading.mode == FIRST:
            self._empty()

    def _pass_bad_row(self, reading: ReadProgress, error: UndecodableRow) -> None:
        plan = self._plan_of(reading)
        if not plan.order:
            raise SourceError(
                f"{self._label}: {error}. Without a key there is no way to go on behind it"
            )
        where = reading.start, reading.clock, reading.after
        try:
            # Rows may have come in between: only the one that is read alone is known to be bad.
            rows = self._session.rows(*plan.statement(*where, only_first=True))
            if not rows:
                raise SourceError(f"{self._label}: {error}, and there is no row to pass")
            self._in_turn(self._store, reading, rows)
            return
        except UndecodableRow as again:
            reason = again
        try:
            rows = self._session.rows(*plan.statement(*where, only_first=True, columns=plan.order))
        except UndecodableRow:
            raise SourceError(f"{self._label}: the key of a row cannot be decoded") from None
        if rows:
            reading.after = plan.position_of(rows[0])
            self._in_turn(self._leave_out, reading, reason)

    def _leave_out(self, reading: ReadProgress, reason: UndecodableRow) -> None:
        self._reject(reading, 0, reason)
        reading.seen += 1
        self._check_rejects(reading)

    def _store(self, reading: ReadProgress, batch: list[Values]) -> None:
        plan, live = self._plan_of(reading), batch
        if reading.mode == CHANGES:
            live = self._delete(reading, batch)
        rows, refused, odd = self._mapping.rows(live)
        for place in sorted(refused):
            self._reject(reading, place, refused[place])
        for place, name in odd:
            position = f"row {reading.seen + 1 + place}"
            self._rejects.add_odd(self._label, name, position)
        if self._spool is None:
            self._hand_over(rows)
        else:
            self._spool.add(rows)
        reading.seen += len(batch)
        reading.sent += len(rows)
        reading.nulls += plan.nulls(batch)
        if plan.order:
            reading.after = plan.position(batch[-1])
            reading.greatest = plan.greatest(batch, reading.greatest)
        self._say(reading)
        if self._spool is not None:
            if reading.sent <= SMALL and self._spool.size <= self._largest_checkpoint:
                return
            self._stop_replacing(reading)
            self._save(reading)
            return
        reading.unsaved_rows += len(batch)
        if (
            self._table.row_width is None
            or self._table.row_width * len(batch) > self._session.largest_batch // 2
        ):
            reading.unsaved_bytes += sum(map(size, batch))
        else:
            reading.unsaved_bytes += self._table.row_width * len(batch)
        if (
            reading.unsaved_rows >= self._checkpoint_rows
            or reading.unsaved_bytes > self._largest_checkpoint - self._session.largest_batch
        ):
            self._save(reading)

    def _delete(self, reading: ReadProgress, changes: list[Values]) -> list[Values]:
        """Deletes what is no more; returns the changes of what is."""
        live = []
        for place, change in enumerate(changes):
            if not self._mapping.is_gone(change):
                live.append(change)
            elif change[-1] == "D":  # else it was changed after the version and then deleted
                try:
                    op.delete(self._table.destination, self._mapping.key(change))
                except (TypeError, ValueError) as refusal:  # nor was such a key ever stored
                    reason = f"the SDK refuses its key ({type(refusal).__name__})"
                    self._reject(reading, place, InvalidRecord(reason))
        return live

    def _reject(self, reading: ReadProgress, place: int, reason: Exception) -> None:
        reading.rejected += 1
        self._rejects.add(self._label, f"row {reading.seen + 1 + place}", reason)

    def _hand_over(self, rows: list[Row]) -> None:
        for row in rows:
            try:
                op.upsert(self._table.destination, row)
            except (TypeError, ValueError) as refusal:  # noqa: PERF203  # raised for this row only
                self._hand_over_what_fits(row, refusal)

    def _hand_over_what_fits(self, row: Row, refusal: Exception) -> None:
        """The row with null for the value that the SDK refuses: text that is none, or else the
        first one without which it takes the row."""
        key = {column.destination for column in self._table.key}
        values = [name for name in row if name not in key and row[name] is not None]
        broken = [name for name in values if not is_storable(row[name])]
        attempts = [broken] if broken else []
        attempts += [[*broken, name] for name in values if name not in broken]
        for odd in attempts:
            try:
                op.upsert(self._table.destination, {**row, **dict.fromkeys(odd)})
            except (TypeError, ValueError):
                continue
            for name in odd:
                self._rejects.add_odd(self._label, name, "a row")
            return
        reason = InvalidRecord(f"the SDK refuses a value ({type(refusal).__name__})")
        self._rejects.add(self._label, "a row", reason)

    def _stop_replacing(self, reading: ReadProgress) -> None:
        """The table proves too large to be replaced: what waits is handed over."""
        assert self._spool is not None  # noqa: S101
        reading.mode = FIRST if self._must_be_emptied else FULL
        if self._must_be_emptied:
            self._empty()
        spool, self._spool, saved = self._spool, None, 0
        for rows in spool.batches():
            self._hand_over(rows)
            if spool.place - saved > self._largest_checkpoint - self._session.largest_batch:
                saved = spool.place
                self._state.save()  # the position counts only when all is handed over
        spool.clear()

    # Saving

    def _check_rejects(self, reading: ReadProgress, *, whole: bool = False) -> None:
        """Raises SourceError if more than a tenth of the table is unusable, as far as is known
        before its ``whole`` was read."""
        rows = max(reading.sent + reading.rejected, self._entry.get("rows", 0))
        if not whole or reading.mode in (INCREMENTAL, CHANGES):
            rows = max(rows, self._table.estimate or 0)
        if not whole:
            rows = max(rows, self._checkpoint_rows)
        self._rejects.check(self._label, rows)

    def _save(self, reading: ReadProgress) -> None:
        self._check_rejects(reading)
        read = {name: getattr(reading, name) for name in _KEPT}
        if reading.after is not None:
            read["after"] = self._seal.close(reading.after)
        read = {"order": _order(self.plan), "columns": fingerprint(self._table.columns), **read}
        self._state.save({self._label: {**self._entry, "read": read}})
        reading.unsaved_rows = reading.unsaved_bytes = 0

    def _finish(self, reading: ReadProgress) -> None:
        rows_before = self._entry.get("rows", 0)
        self._check_rejects(reading, whole=True)
        if self._spool is not None:
            if not reading.seen and rows_before and not self._entry.get("emptied"):
                op.warning(
                    f"{self._label}: the source lists nothing where it had {rows_before} rows. "
                    "Nothing is replaced unless the next sync sees the same: check what "
                    "mssql_user may read"
                )
                self._state.save({self._label: {**self._entry, "emptied": True}})
                return
            if reading.rejected:
                op.warning(
                    f"{self._label}: {reading.rejected} rows were skipped, so nothing is "
                    "replaced: what was deleted at the source stays until a sync reads every row"
                )
            else:
                self._empty()
            for waiting in self._spool.batches():
                self._hand_over(waiting)
        rows = rows_before if reading.mode in (INCREMENTAL, CHANGES) else reading.sent
        mixed = self._spool is not None and reading.rejected and self._must_be_emptied
        # With a cursor no later sync would take away what this one had to leave there.
        cursor = {"mixed": True} if mixed else self._cursor(reading)
        entry = {**self._new, "rows": rows, **cursor}
        self._state.save({self._label: entry})
        self._say(reading, done=True)

    def _cursor(self, reading: ReadProgress) -> dict[str, Any]:
        if self._kept:
            return self._kept
        column, columns = self.plan.column, fingerprint(self._table.columns)
        if self.plan.tracked:
            since = self._table.tracked_since
            return {"version": int(reading.clock), "tracked": since, "columns": columns}
        if column is None:
            return {}
        if self.plan.by_version:
            cursor = reading.clock
        elif reading.greatest is None:  # nothing but nulls, or nothing at all
            if reading.start is None:
                return {}
            cursor = next_start(column, reading.start, reading.clock, timedelta())
        else:
            cursor = next_start(column, reading.greatest, reading.clock, self._lookback)
        kept = {"column": _signature([column]), self._cursor_key: cursor, "columns": columns}
        return kept if self.plan.by_version else {**kept, "offset": reading.offset}

    @property
    def _cursor_key(self) -> str:
        return "rowversion" if self.plan.by_version else "cursor"

    def _say(self, reading: ReadProgress, *, done: bool = False) -> None:
        now = time.monotonic()
        if not done and now - self._said < _PROGRESS:
            return
        self._said = now
        rate = reading.seen / max(now - self._began, 0.001)
        text = f"{self._label}: {reading.seen} rows read, {rate:.0f} rows/s"
        estimate = self._table.estimate
        if estimate and not done and reading.mode not in (INCREMENTAL, CHANGES):
            left = max(estimate - reading.sent, 0) / max(rate, 0.001)
            share = min(100 * reading.sent // estimate, 99)
            text += f", {share} % of about {estimate}, {left:.0f} s left"
        Logging.info(f"{text}, done" if done else text)


def _order(plan: Plan) -> list[str]:
    """What a position belongs to: it is of no use to another plan."""
    order = [str(plan), *_signature(plan.order)]
    if plan.whole:  # its clock is one for this column
        order += ["", *_signature([plan.column] if plan.column else []), str(plan.tracked)]
    return order


def _signature(columns: tuple[Column, ...] | list[Column]) -> list[str]:
    """Names and types: a position or a cursor is of no use once one of them is another."""
    return [f"{column.name} {column.declared}" for column in columns]
