"""The hours of one table: what is read of them, and how they come into the destination."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import Any

from fivetran_connector_sdk import Logging, Operations as op

from known_days import KnownDays
from setting_kinds import Metric
from shared import times
from shared.errors import SourceError, all_or_nothing
from shared.listing import REPLACED_AT_ONCE, STREAMED_FIRST_LOAD
from shared.report import Progress, TableCounts
from shared.rows import Row, SkippedRecords, Table, counted
from shared.spool import Spool
from shared.state import State, check_types

DAY = timedelta(days=1)
HOUR = "record_date_hour_1"  # the column of the hour
# The values of HoursState.load.
FIRST = "first"  # the first load has not begun
UNFINISHED = "unfinished"  # it was streamed, or broke off: it resumes at the cursor
UNPROVEN = "unproven"  # the rows are there, but replaced nothing: a full refresh is due


@dataclass(frozen=True)
class HoursState:
    """The entry of a table of hours in the state.

    cursor   the first day that is to be read
    start    the table is whole from this day on, as far as the source does not change it
    metrics  the fields of the metrics that its rows have
    load     how far its first load is: FIRST, UNFINISHED, UNPROVEN, or "" when that is over
    days     what the destination has of the last days (see known_days.py)
    """

    cursor: date
    start: date
    metrics: tuple[str, ...]
    load: str = ""
    days: str = ""

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "HoursState | None":
        """None: the table was never read, or by an older connector whose cursor tells nothing.
        Raises one of ODD for an entry that no version wrote."""
        if "start" not in entry:
            return None
        cursor, start = (times.parse(entry[key]).date() for key in ("cursor", "start"))
        load, days = (entry.get(key, "") for key in ("load", "days"))
        days = days if isinstance(days, str) else ""  # as any other text that tells nothing
        metrics = entry["metrics"]
        if not isinstance(metrics, list) or load not in ("", FIRST, UNFINISHED, UNPROVEN):
            raise ValueError
        read = cls(cursor, start, tuple(metrics), load, days)
        check_types(read)
        return read

    def to_json(self) -> dict[str, Any]:
        entry = {
            "cursor": self.cursor.isoformat(),
            "start": self.start.isoformat(),
            "metrics": [*self.metrics],
        }
        optional = {"load": self.load, "days": self.days}
        return {**entry, **{key: value for key, value in optional.items() if value}}


@dataclass(frozen=True)
class Plan:
    """What to read of a table: the days from ``begin`` on. ``state``: what is known before.
    ``lookback_days``: how many days before its cursor the next sync begins."""

    table: Table
    metrics: tuple[Metric, ...]
    begin: date
    state: HoursState
    lookback_days: int

    @property
    def load(self) -> str:
        return self.state.load

    @property
    def mode(self) -> str:
        """What is read, for the log."""
        kind = {FIRST: "first load", UNFINISHED: "first load, resumed", UNPROVEN: "full refresh"}
        if self.load in kind:
            return f"{kind[self.load]}, from {self.begin} on"
        days = (self.state.cursor - self.begin).days
        lookback = f", with a look-back of {counted(days, 'day')}" if days else ""
        return f"hours since {self.begin}{lookback}"

    def after(self, end: date, today: date, load: str) -> HoursState:
        """The state of the table when it has the days before ``end``. Yesterday is never over:
        the account's zone may be behind UTC."""
        cursor = max(self.state.cursor, min(end, today - DAY))
        return replace(self.state, cursor=cursor, load=load)


@dataclass(frozen=True, repr=False)
class Chunk:
    """The hours of the days from ``start`` up to ``end``, which is not in it, and what the source
    says of them, in plain words."""

    start: date
    end: date
    records: list[Any]
    messages: tuple[str, ...]

    def has(self, row: Row) -> bool:
        """Whether an hour is of these days in some time zone: that of the account is not known."""
        day: date = row[HOUR].date()
        return self.start - DAY <= day <= self.end


class HoursSync:
    """The hours of one table on their way to the destination, and its cursor.

    The rows of a first load wait, up to STREAMED_FIRST_LOAD of them, and replace the table when
    all have come. The rows of a longer one are stored as they come and replace nothing, like
    those before a failure, those that a message came with, and all of a load that skipped a
    record. Once such a load is over, the next sync is a full refresh, of which REPLACED_AT_ONCE
    rows may wait. Whether that replaces the table or not, there is no other one. Of the days that
    are read again, those that did not change are not sent.
    """

    def __init__(
        self,
        plan: Plan,
        today: date,
        state: State,
        skipped: SkippedRecords,
        counts: TableCounts,
    ) -> None:
        self.plan, self.today, self.waiting = plan, today, Spool()
        self._counts = counts
        self.line = Progress()
        self._state, self._skipped = state, skipped
        self._may_wait = {FIRST: STREAMED_FIRST_LOAD, UNPROVEN: REPLACED_AT_ONCE}.get(plan.load, 0)
        self._waits = self._may_wait > 0
        self._end, self._records, self._has_messages = plan.begin, 0, False
        # A day in UTC may begin in the account's day before.
        oldest = today - (plan.lookback_days + 2) * DAY
        self._days = KnownDays(plan.table, HOUR, plan.state.days, oldest)
        self._last = plan.state  # that is in the state

    def add(self, chunk: Chunk) -> None:
        """Takes the next hours. Unless they wait, they are stored, and the cursor moves. Raises
        SourceError if all are of other days than those that were asked for."""
        table, where = self.plan.table, f"{chunk.start} to {chunk.end}, record "
        rows = self._skipped.take(table.name, table.rows(chunk.records), where)
        if rows and not any(map(chunk.has, rows)):
            raise SourceError(
                f"{chunk.start} to {chunk.end}: status 200, but of {counted(len(rows), 'hour')} "
                "none is of these days. The cursor stays: report it to SenSource"
            )
        self._records += len(chunk.records)
        self._counts.read += len(chunk.records)
        self._has_messages |= bool(chunk.messages)
        self._log_progress(chunk)
        if not self._waits:
            self._upsert(rows)
            self._end = chunk.end
        else:
            self.waiting.add(rows)
            self._end = chunk.end  # not before: the disk may have no room for the rows
            if self.waiting.rows <= self._may_wait:
                return
            self._waits = False
            Logging.info(
                f"{self.plan.table.name}: more than {self._may_wait} hours, which are stored as "
                "they come from here on; they replace nothing"
            )
            self._hand_over()
        self._save(UNFINISHED if self.plan.load else "")

    def _log_progress(self, chunk: Chunk) -> None:
        """Says now and then how far the read has come. How many hours there will be is not known:
        as many a day as until now."""
        if not self.line.is_due:
            return
        begin, read = self.plan.begin, self._counts.read
        days, of = (chunk.end - begin).days, (self.today + 2 * DAY - begin).days
        text = self.line.text(read, "hour", read, read * of // days)
        Logging.info(f"{self.plan.table.name}: up to {chunk.end}, {text}")

    def end(self) -> None:
        """All hours have come. Raises SourceError if more than a tenth was skipped."""
        plan, name = self.plan, self.plan.table.name
        self._skipped.check(name, self._records)
        why = self._why_unproven()
        replaces = self._waits and self.waiting.rows > 0 and not why
        self._waits = False  # a failure from here on is followed by no checkpoint
        if replaces:
            self._withdraw()
            self._days.forget()
            with all_or_nothing(name):
                op.truncate(name)
                self._hand_over()
        else:
            self._hand_over()
        due = UNPROVEN if plan.load in (FIRST, UNFINISHED) and not replaces else ""
        if why:
            then = ". The next sync is a full refresh" if due else ""
            op.warning(
                f"{name}: {why}. The rows were stored, but nothing was replaced: deletes were not "
                f"looked for{then}"
            )
        self._save(due)

    def break_off(self) -> None:
        """A request failed, or too much was skipped. What waits in a first load is stored; that of
        a full refresh was there before, and the next sync resumes at the cursor."""
        if not self._waits:
            return
        if self.plan.load == UNPROVEN:
            self._end = self.plan.begin
            self._save_entry(UNFINISHED)
        elif self._end > self.plan.begin and self._is_sound():
            self._hand_over()
            self._save(UNFINISHED)

    def _hand_over(self) -> None:
        for rows in self.waiting.batches():
            self._upsert(rows)
        self.waiting.clear()

    def _upsert(self, rows: list[Row]) -> None:
        to_send = rows if self.plan.load else self._days.without_known(rows)
        if to_send:
            self._withdraw()
        for row in to_send:
            op.upsert(self.plan.table.name, row)
        self._counts.sent += len(to_send)
        self._days.note(rows)
        if len(to_send) < len(rows):
            hours = counted(len(rows), "hour")
            said = "as the destination has them: nothing was sent"
            if to_send:
                said = f"{len(to_send)} sent, since the days of the others did not change"
            Logging.info(f"{self.plan.table.name}: {hours}, {said}")

    def _withdraw(self) -> None:
        """Before rows come, or go, the state tells nothing of what the destination has: if the
        sync ends after they are written, and before the state is, nothing false is left."""
        if self._last.days:
            self._last = replace(self._last, days="")
            self._state.save({self.plan.table.name: self._last.to_json()})

    def _save(self, load: str) -> None:
        # While more than a tenth was skipped, the cursor stays: the table may yet fail.
        if self._is_sound():
            self._save_entry(load)

    def _save_entry(self, load: str) -> None:
        after = self.plan.after(self._end, self.today, load)
        self._last = replace(after, days=self._days.to_text())
        self._state.save({self.plan.table.name: self._last.to_json()})

    def _is_sound(self) -> bool:
        return self._skipped.counts[self.plan.table.name] * 10 <= self._records

    def _why_unproven(self) -> str:
        """What the dashboard says of a load that replaces nothing, or ""."""
        if not self._may_wait:
            return ""
        if skipped := self._skipped.counts[self.plan.table.name]:
            return f"{skipped} of {self._records} records were skipped"
        if self._has_messages:
            return "SenSource sent messages with the hours, which may not be all"
        is_last = self.plan.load == UNPROVEN
        return f"more than {self._may_wait} hours" if is_last and not self._waits else ""
