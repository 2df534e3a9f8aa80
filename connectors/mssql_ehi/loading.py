"""One table brought up to date: its rows handed over, its position and cursor saved.

The state of a table: `as` is its name at the destination, `rows` how many its last full read
stored, `column` and `cursor` where the next incremental read starts, `columns` a fingerprint of
its columns. While a read is unfinished, `read` says how it began (`mode`, `start`, `clock`), in
which `order` it goes, and, sealed, the position `after` which it goes on.
"""

import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from fivetran_connector_sdk import Logging, Operations as op

import mapping
from catalogue import Column
from faults import ADVICE, Gone, Refused, Undecodable
from plans import Plan, Position, next_start
from sealing import Seal
from session import LARGEST_BATCH, Session, Values
from shared.errors import SourceError, TransientError
from shared.rows import Rejects, Row, UnusableRecord
from shared.state import State
from spool import Spool

SMALL = 100_000  # rows; a larger table is not replaced in one step
LARGEST_CHECKPOINT = 32 * 1024 * 1024  # bytes
_PROGRESS = 5.0  # seconds between two lines of progress
# The first load of a table truncates it; a replacement is handed over when it is whole.
FIRST, INCREMENTAL, REPLACEMENT, FULL = "first", "incremental", "replacement", "full"
GetData = Callable[[Plan, str | None, Position | None], Iterator[list[Values]]]


@dataclass(repr=False)
class Reading:
    """How a read began, and how far it has come. ``start``, ``greatest``: texts of the plan's
    column; ``clock``: the earlier of the server's clocks when the read began."""

    mode: str
    start: str | None
    clock: str
    after: Position | None = None
    greatest: str | None = None
    sent: int = 0  # rows stored since the read began, by earlier syncs, too
    seen: int = 0  # rows read by this sync
    unsaved_rows: int = 0
    unsaved_bytes: int = 0


class Load:
    """The sync of one table by ``plan``; ``get_data`` streams its rows in batches."""

    def __init__(
        self,
        session: Session,
        plan: Plan,
        get_data: GetData,
        state: State,
        rejects: Rejects,
        seal: Seal,
        lookback: timedelta,
        checkpoint_rows: int,
    ) -> None:
        self._session, self._plan, self._get_data = session, plan, get_data
        self._state, self._rejects, self._seal = state, rejects, seal
        self._lookback, self._checkpoint_rows = lookback, checkpoint_rows
        self._table, self._label = plan.table, plan.table.label
        self._mapping = mapping.Mapping(plan.table)
        entry = state.table(self._label)
        same = entry.get("as") == plan.table.destination
        self._entry: dict[str, Any] = entry if same else {"as": plan.table.destination}
        self._spool: Spool | None = None
        self._began = self._said = time.monotonic()

    @property
    def is_urgent(self) -> bool:
        """Whether the table is small, or was never loaded: it goes before the others."""
        estimate = self._table.estimate
        return "rows" not in self._entry or (estimate is not None and estimate <= SMALL)

    def sync(self) -> int:
        """Reads what is due, and returns how many rows were read. Raises SourceError.

        An incremental read that the server refuses, for a reason other than the rights of the
        login, gives way to a full load.
        """
        reading = self._resume() or self._begin()
        try:
            return self._read(reading)
        except Refused as refusal:
            if reading.mode != INCREMENTAL or refusal.number in ADVICE:
                raise
            op.warning(
                f"{self._label}: {refusal}: in place of the incremental read a full one follows"
            )
        # Without a cursor the next sync reads in full, too, and finds a new one.
        self._entry = {k: v for k, v in self._entry.items() if k not in ("column", "cursor")}
        self._plan = replace(self._plan, column=None)
        return self._read(self._begin())

    # Beginning

    def _resume(self) -> Reading | None:
        saved = dict(self._entry.get("read") or {})
        if saved.pop("order", None) != _signature(self._plan.order) or saved["after"] is None:
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
        return Reading(**saved)

    def _begin(self) -> Reading:
        column, cursor = self._plan.column, self._entry.get("cursor")
        clock = self._clock() if column else ""
        if "rows" not in self._entry:
            return Reading(FIRST, None, clock)
        if column and cursor and self._entry.get("column") == _signature([column]):
            if cursor <= clock:
                self._announce_new_columns()
                return Reading(INCREMENTAL, cursor, clock)
            Logging.warning(
                f"{self._label}: the cursor is ahead of the server's clock: all is read"
            )
        small = self._table.estimate is None or self._table.estimate <= SMALL
        return Reading(REPLACEMENT if small else FULL, None, clock)

    def _clock(self) -> str:
        [clocks] = self._session.patiently(
            "the server's clock",
            lambda: self._session.rows(
                "SELECT CONVERT(varchar(27), SYSDATETIME(), 121) AS here, "
                "CONVERT(varchar(27), SYSUTCDATETIME(), 121) AS utc"
            ),
        )
        return min(map(str, clocks))

    def _announce_new_columns(self) -> None:
        known = self._entry.get("columns", "")
        new = [c.name for c in self._table.columns if _fingerprint([c]) not in known.split()]
        if new:
            op.warning(
                f"{self._label}: new columns ({', '.join(new)}) are filled for rows that change "
                "from now on. To fill all rows, name the table in exclude_tables for one sync, "
                "then no more: it is loaded anew"
            )

    # Reading

    def _read(self, reading: Reading) -> int:
        with Spool() as spool:
            self._spool = spool if reading.mode == REPLACEMENT else None
            try:
                self._session.patiently(self._label, lambda: self._go_on(reading))
            except SourceError:
                if self._spool is None and reading.unsaved_rows:
                    self._save(reading)  # the next sync goes on from here
                raise
            self._finish(reading)
        return reading.seen

    def _go_on(self, reading: Reading) -> None:
        """Reads to the end, past rows that cannot be decoded, and over faults that come once in
        many rows. Raises TransientError for others; called again it goes on from there."""
        while True:
            if reading.after is None:
                self._start_over(reading)
            before = reading.seen
            try:
                for batch in self._get_data(self._plan, reading.start, reading.after):
                    self._store(reading, batch)
                return
            except Undecodable as error:
                self._pass_bad_row(reading, error)
            except Gone:
                raise
            except TransientError as error:
                if not self._plan.order or reading.seen - before < self._checkpoint_rows:
                    raise
                Logging.warning(f"{self._label}: {error}; going on from the last row")
                self._session.pause()

    def _start_over(self, reading: Reading) -> None:
        """Without a position nothing counts that may have been read."""
        reading.seen = reading.sent = 0
        self._rejects.clear(self._label)
        if self._spool is not None:
            self._spool.clear()
        if reading.mode == FIRST:
            op.truncate(self._table.destination)

    def _pass_bad_row(self, reading: Reading, error: Undecodable) -> None:
        if not self._plan.order:
            raise SourceError(
                f"{self._label}: {error}. Without a key there is no way to go on behind it"
            )
        where = reading.start, reading.after
        try:
            # Rows may have come in between: only the one that is read alone is known to be bad.
            rows = self._session.rows(*self._plan.statement(*where, only_first=True))
            if rows:
                self._store(reading, rows)
            return
        except Undecodable as again:
            reason = again
        try:
            order = self._plan.order
            rows = self._session.rows(
                *self._plan.statement(*where, only_first=True, columns=order)
            )
        except Undecodable:
            raise SourceError(f"{self._label}: the key of a row cannot be decoded") from None
        if rows:
            reading.seen += 1
            reading.after = self._plan.position_of(rows[0])
            self._rejects.add(self._label, f"row {reading.seen}", reason)
            self._rejects.check(self._label, max(reading.seen, self._checkpoint_rows))

    def _store(self, reading: Reading, batch: list[Values]) -> None:
        rows: list[Row] = []
        for number, values in enumerate(batch, reading.seen + 1):
            try:
                rows.append(self._mapping.row(values))
            except UnusableRecord as reason:  # noqa: PERF203  # one bad row does not stop the rest
                self._rejects.add(self._label, f"row {number}", reason)
        if self._spool is None:
            self._hand_over(rows)
        else:
            self._spool.add(rows)
        reading.seen += len(batch)
        reading.sent += len(rows)
        if self._plan.order:
            reading.after = self._plan.position(batch[-1])
            if self._plan.column and reading.after[0] is not None:
                reading.greatest = reading.after[0]
        self._say(reading)
        if self._spool is not None:
            if reading.sent <= SMALL and self._spool.size <= LARGEST_CHECKPOINT:
                return
            self._stop_replacing(reading)
            self._save(reading)
            return
        reading.unsaved_rows += len(batch)
        if (
            self._table.row_width is None
            or self._table.row_width * len(batch) > LARGEST_BATCH // 2
        ):
            reading.unsaved_bytes += sum(map(mapping.size, batch))
        else:
            reading.unsaved_bytes += self._table.row_width * len(batch)
        if (
            reading.unsaved_rows >= self._checkpoint_rows
            or reading.unsaved_bytes > LARGEST_CHECKPOINT - LARGEST_BATCH
        ):
            self._save(reading)

    def _hand_over(self, rows: list[Row]) -> None:
        for row in rows:
            try:
                op.upsert(self._table.destination, row)
            except (TypeError, ValueError) as refusal:  # noqa: PERF203  # raised for this row only
                reason = UnusableRecord(f"the SDK refuses a value ({type(refusal).__name__})")
                self._rejects.add(self._label, "a row", reason)

    def _stop_replacing(self, reading: Reading) -> None:
        """The table proves too large to be replaced: what waits is handed over."""
        assert self._spool is not None  # noqa: S101
        reading.mode = FULL
        spool, self._spool, saved = self._spool, None, 0
        for rows in spool.batches():
            self._hand_over(rows)
            if spool.place - saved > LARGEST_CHECKPOINT - LARGEST_BATCH:
                saved = spool.place
                self._state.save()  # the position counts only when all is handed over
        spool.clear()

    # Saving

    def _save(self, reading: Reading) -> None:
        self._rejects.check(self._label, reading.seen)
        kept = ("mode", "start", "clock", "after", "greatest", "sent")
        read = {name: getattr(reading, name) for name in kept}
        order = _signature(self._plan.order)
        if reading.after is not None:
            read["after"] = self._seal.close(reading.after)
        self._state.save({self._label: {**self._entry, "read": {"order": order, **read}}})
        reading.unsaved_rows = reading.unsaved_bytes = 0

    def _finish(self, reading: Reading) -> None:
        rows_before = self._entry.get("rows", 0)
        self._rejects.check(self._label, max(reading.seen, rows_before))
        if self._spool is not None:
            if not reading.seen and rows_before and not self._entry.get("emptied"):
                op.warning(
                    f"{self._label}: the source lists nothing where it had {rows_before} rows. "
                    "Nothing is replaced unless the next sync sees the same: check what "
                    "mssql_user may read"
                )
                self._state.save({self._label: {**self._entry, "emptied": True}})
                return
            op.truncate(self._table.destination)
            for waiting in self._spool.batches():
                self._hand_over(waiting)
        rows = rows_before if reading.mode == INCREMENTAL else reading.sent
        entry = {"as": self._table.destination, "rows": rows}
        self._state.save({self._label: {**entry, **self._cursor(reading)}})
        self._say(reading, done=True)

    def _cursor(self, reading: Reading) -> dict[str, Any]:
        column = self._plan.column
        if column is None:
            return {}
        if reading.greatest is None:  # nothing but nulls, or nothing at all
            if reading.mode != INCREMENTAL:
                return {}
            cursor = self._entry["cursor"]
        else:
            cursor = next_start(column, reading.greatest, reading.clock, self._lookback)
        columns = _fingerprint(self._table.columns)
        return {"column": _signature([column]), "cursor": cursor, "columns": columns}

    def _say(self, reading: Reading, *, done: bool = False) -> None:
        now = time.monotonic()
        if not done and now - self._said < _PROGRESS:
            return
        self._said = now
        rate = reading.seen / max(now - self._began, 0.001)
        text = f"{self._label}: {reading.seen} rows read, {rate:.0f} rows/s"
        estimate = self._table.estimate
        if estimate and not done and reading.mode != INCREMENTAL:
            left = max(estimate - reading.sent, 0) / max(rate, 0.001)
            share = min(100 * reading.sent // estimate, 99)
            text += f", {share} % of about {estimate}, {left:.0f} s left"
        Logging.info(f"{text}, done" if done else text)


def _signature(columns: tuple[Column, ...] | list[Column]) -> list[str]:
    """Names and types: a position or a cursor is of no use once one of them is another."""
    return [f"{column.name} {column.declared}" for column in columns]


def _fingerprint(columns: tuple[Column, ...] | list[Column]) -> str:
    """The columns' names in a form that keeps the state small."""
    return " ".join(f"{zlib.crc32(c.name.casefold().encode()) & 0xFFFF:04x}" for c in columns)
