"""The way of the rows of one table: from a batch of the source to the operations of the SDK.

    TableWriter.write    a batch of the source
    RowMapper.rows       converts it, a column at a time
    _upsert              hands the rows to the SDK; or Spool.add, where they wait for a replacement

All of it runs in the thread that makes checkpoints.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import compress
from typing import Any, NamedTuple

from fivetran_connector_sdk import Operations as op

from shared.fingerprint import Fingerprint, encode
from shared.rows import InvalidRecord, Row, SkippedRecords
from shared.spool import Spool

from .deletes import DeliveredKeys
from .rows import MappedBatch, RowMapper, is_storable
from .session import Values
from .source_tables import Column, SourceTable

_TRUE = ("1", "true", "t", "yes", "y")
_DELETED = "D"  # as Change Tracking calls the operation


class Written(NamedTuple):
    """How many rows of a batch were ``stored``, and how many were ``skipped``."""

    stored: int
    skipped: int


class TableWriter:
    """Stores rows of ``table`` at the destination, and reports to ``skipped`` what cannot be
    stored there. A row in which the first of ``deleted_columns`` that the table has is true is
    handed over as a delete. ``delivered`` notes the keys of the rows; None: nobody needs them."""

    def __init__(
        self,
        table: SourceTable,
        skipped: SkippedRecords,
        deleted_columns: Sequence[str] = (),
        delivered: DeliveredKeys | None = None,
    ) -> None:
        self._destination, self._label = table.destination, table.label
        self._within = table.within
        self._is_key_unique = not table.has_declared_key
        self._key = {column.destination for column in table.key}
        self._skipped, self._delivered = skipped, delivered
        self._mapper = RowMapper(table)
        self._key_places = [table.columns.index(column) for column in table.key]
        self.deleted_column = find_deleted_column(table, deleted_columns)
        self._deleted_place = (
            table.columns.index(self.deleted_column) if self.deleted_column and table.key else None
        )
        self._sends_deletes = False
        self._waiting_deletes: Spool | None = None
        self._spool: Spool | None = None
        self._fingerprint: Fingerprint | None = None
        self.sent = self.deleted = 0

    def begin(self, before: str | None, form: str, *, empties: bool) -> None:
        """A read begins. ``before``: the fingerprint of the rows that the destination has, "" if
        there is none, None if the rows of this read need none; ``form``: see Fingerprint.
        ``empties``: the read takes the place of all rows, so that none need be deleted."""
        self._sends_deletes = not empties
        self._fingerprint = None if before is None else Fingerprint(before, form)

    @contextmanager
    def replacement(self, *, wanted: bool) -> Iterator[None]:
        """If ``wanted``, rows wait meanwhile until ``replace`` or ``release`` stores them."""
        with Spool() as spool, Spool() as deletes:
            self._spool = spool if wanted else None
            self._waiting_deletes = deletes if wanted else None
            if self._delivered is not None:
                self._delivered.wait(wanted=wanted)
            yield

    @property
    def is_replacing(self) -> bool:
        """Whether rows wait."""
        return self._spool is not None

    @property
    def waiting_bytes(self) -> int:
        return self._spool.size if self._spool else 0

    def restart(self) -> None:
        """Forgets the rows that wait and the skipped ones: they are read once more."""
        self._skipped.clear(self._label)
        for spool in (self._spool, self._waiting_deletes):
            if spool is not None:
                spool.clear()
        if self._delivered is not None:
            self._delivered.restart()
        if self._fingerprint is not None:
            self._fingerprint.clear()

    def truncate(self) -> None:
        op.truncate(self._destination, **self._within)
        if self._delivered is not None:
            self._delivered.truncate()

    def write(self, batch: Sequence[Values], before: int) -> Written:
        """Stores a batch that comes after ``before`` rows of the read."""
        mapped = self._mapper.rows(batch)
        for place in sorted(mapped.invalid):
            self.skip(before + place, mapped.invalid[place])
        marked = self._marked(batch)
        for place, name in mapped.odd:
            if place not in marked:
                self._skipped.add_odd(self._label, name, f"row {before + 1 + place}")
        rows, gone = mapped.rows, list[Row]()
        if marked:
            places = [place for place in range(len(batch)) if place not in mapped.invalid]
            rows = [
                row for place, row in zip(places, mapped.rows, strict=True) if place not in marked
            ]
            gone = [row for place, row in zip(places, mapped.rows, strict=True) if place in marked]
            batch = [values for place, values in enumerate(batch) if place not in marked]
        self._compare(batch, mapped)
        self._hand_over_deletes(gone)
        if self._delivered is not None:
            self._delivered.add(rows)
        if self._spool is None:
            self._upsert(rows)
        else:
            self._spool.add(rows)
        return Written(len(rows), len(mapped.invalid))

    def _marked(self, batch: Sequence[Values]) -> set[int]:
        """The places of the rows that count as deleted."""
        column = self._deleted_place
        if column is None:
            return set()
        return {place for place, values in enumerate(batch) if _is_true(values[column])}

    def _hand_over_deletes(self, rows: Sequence[Row]) -> None:
        keys = [{name: row[name] for name in self._key} for row in rows]
        if self._waiting_deletes is not None:
            self._waiting_deletes.add(keys)
        elif self._sends_deletes:
            self._delete_all(keys)

    def _delete_all(self, keys: Sequence[Row]) -> None:
        for key in keys:
            with suppress(InvalidRecord):  # such a row was never stored either
                self._delete(key)

    def delete_keys(self, name: str, values: Sequence[int]) -> None:
        """Deletes the rows that have these values in ``name``, which is their whole key."""
        for value in values:
            op.delete(self._destination, {name: value}, **self._within)
        self.deleted += len(values)

    def _delete(self, key: Row) -> None:
        """Raises InvalidRecord for a key that the SDK refuses."""
        if None in key.values():
            raise InvalidRecord("a part of its key is missing")
        try:
            op.delete(self._destination, key, **self._within)
        except (TypeError, ValueError) as error:
            raise InvalidRecord(f"the SDK refuses its key ({type(error).__name__})") from None
        self.deleted += 1

    def stop_comparing(self) -> None:
        """The rows of this read get no fingerprint."""
        self._fingerprint = None

    def _compare(self, batch: Sequence[Values], mapped: MappedBatch) -> None:
        """Adds the rows to the fingerprint. What cannot be stored as it is has none: it is
        reported at each sync."""
        if self._fingerprint is None:
            return
        if mapped.invalid or mapped.odd:
            self.stop_comparing()
            return
        rows, places = encode(lambda: batch), self._key_places
        if places:
            keys = encode(lambda: (tuple(values[i] for i in places) for values in batch))
            self._fingerprint.add(keys, rows)
        else:
            self._fingerprint.add_without_keys(rows)

    def changed(self) -> Sequence[bool] | None:
        """For each row that waits whether it may be another than the destination has. None: all
        have to replace the table."""
        return self._fingerprint.to_send() if self._fingerprint else None

    def fingerprint(self) -> str | None:
        """The fingerprint of the rows of the read, None if it has none."""
        return self._fingerprint.to_text() if self._fingerprint else None

    def write_changes(self, batch: Sequence[Values], before: int) -> Written:
        """The same for changes that the server keeps, of which some are deletes."""
        live, skipped = [], 0
        for place, change in enumerate(batch):
            if not self._mapper.is_deleted(change):
                live.append(change)
                self._delete_other_spelling(change)
            elif change[-1] == _DELETED:  # else it was changed after the version, then deleted
                try:
                    self._delete(self._mapper.key(change))
                except InvalidRecord as reason:  # such a row was never stored either
                    self.skip(before + place, reason)
                    skipped += 1
        written = self.write(live, before)
        return Written(written.stored, written.skipped + skipped)

    def _delete_other_spelling(self, change: Values) -> None:
        """Deletes the row of a change's key, if that of the table is spelled otherwise. Where the
        server does not enforce the key, there may be both."""
        if not self._is_key_unique:
            return
        with suppress(InvalidRecord):  # a row of such a key was never stored
            if self._mapper.is_spelled_otherwise(change):
                self._delete(self._mapper.key(change))

    def skip(self, before: int, reason: Exception) -> None:
        """Reports that the row after ``before`` others is skipped."""
        self.stop_comparing()
        self._skipped.add(self._label, f"row {before + 1}", reason)

    def replace(self, changed: Sequence[bool] | None) -> None:
        """Stores the rows that wait, or those that ``changed``."""
        assert self._spool is not None  # noqa: S101
        if self._delivered is not None:
            self._delivered.release(whole=changed is not None)
        if changed is not None and not any(changed):
            return
        place = 0
        for rows in self._spool.batches():
            flags = None if changed is None else changed[place : place + len(rows)]
            self._upsert(rows if flags is None else list(compress(rows, flags)))
            place += len(rows)

    def delete_waiting(self) -> None:
        """Deletes the rows that wait for that, where the others do not take the table's place."""
        assert self._waiting_deletes is not None  # noqa: S101
        for keys in self._waiting_deletes.batches():
            self._delete_all(keys)

    def stop_replacing(self, *, empties: bool) -> None:
        """The rows that wait are stored over those before, unless the table was truncated."""
        self._sends_deletes = not empties

    def release(self) -> Iterator[tuple[int, int]]:
        """Stores the rows that wait, after which rows wait no more. Yields after each batch how
        many rows it had, and how many bytes."""
        assert self._spool is not None  # noqa: S101
        spool, self._spool = self._spool, None
        if self._delivered is not None:
            self._delivered.release(whole=False)
        self._fingerprint, before = None, 0
        if self._sends_deletes:
            self.delete_waiting()
        self._waiting_deletes = None
        for rows in spool.batches():
            self._upsert(rows)
            yield len(rows), spool.place - before
            before = spool.place
        spool.clear()

    def _upsert(self, rows: Sequence[Row]) -> None:
        within = self._within
        for row in rows:
            try:
                op.upsert(self._destination, row, **within)
            except (TypeError, ValueError) as error:  # noqa: PERF203  # raised for this row only
                self._upsert_without_odd_values(row, error)
        self.sent += len(rows)

    def _upsert_without_odd_values(self, row: Row, refusal: Exception) -> None:
        """Stores the row with null for the value that the SDK refuses: text that is none, or else
        the first value without which it takes the row."""
        self.stop_comparing()
        values = [name for name in row if name not in self._key and row[name] is not None]
        broken = [name for name in values if not is_storable(row[name])]
        attempts = [broken] if broken else []
        attempts += [[*broken, name] for name in values if name not in broken]
        for odd in attempts:
            try:
                op.upsert(self._destination, {**row, **dict.fromkeys(odd)}, **self._within)
            except (TypeError, ValueError):
                continue
            for name in odd:
                self._skipped.add_odd(self._label, name, "a row")
            return
        reason = InvalidRecord(f"the SDK refuses a value ({type(refusal).__name__})")
        self._skipped.add(self._label, "a row", reason)


def find_deleted_column(table: SourceTable, names: Sequence[str]) -> Column | None:
    """The first of ``names`` that the table has as a column, in any case."""
    by_name = {column.name.casefold(): column for column in table.columns}
    found = (by_name.get(name.casefold()) for name in names)
    return next((column for column in found if column), None)


def _is_true(value: Any) -> bool:
    """Whether a value says that its row is deleted."""
    if isinstance(value, str):
        return value.strip().casefold() in _TRUE
    return bool(value) and not isinstance(value, bytes)
