"""A sweep: rows that the destination was given, and the server does not have any more, are
deleted.

The server tells its keys as ranges, by gaps and islands over the key's index. They are asked for
before the rows of the sync are read, and the keys of those are added afterwards. So a row that is
inserted again, after the server told its keys, is deleted and then handed over once more; and a
row that comes and goes between two sweeps is known by the key that was handed over.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from fivetran_connector_sdk import Logging

from shared.errors import SourceError

from .checkpoints import Checkpoints
from .deletes import INTEGERS, Deletes, DeliveredKeys, is_due
from .errors import StatementError
from .key_ranges import MOST_RANGES, KeyRanges, Range, difference, within
from .naming import bracketed, literal, quoted
from .session import Session
from .source_tables import Column, SourceTable
from .table_state import TableState
from .table_writer import TableWriter

KEYS_OF_A_STATEMENT = 5_000_000  # so that it takes seconds
# Ranges of the server that are read at most: many more keys are deleted than can be kept.
_MOST_READ = 2 * MOST_RANGES
_VERIFIED_AT_ONCE = 200  # ranges
_NO_PLAN = 8622  # the error for a hint that the server cannot follow
_DELETED_AT_ONCE = 10_000  # keys, between two states
_MOST_GAPS = 100_000  # between the keys of rows that were handed over behind the last state
_MANY_ROWS = 1_000  # of which half do not go at the first sight


class TooManyRangesError(SourceError):
    """The server has more ranges of keys than are read."""


@dataclass(repr=False)
class TableSweep:
    """The sweep of one table, before its rows are read."""

    session: Session
    table: SourceTable
    writer: TableWriter
    keys: DeliveredKeys
    deletes: Deletes
    checkpoints: Checkpoints
    in_turn: Callable[..., Any]
    warn: Callable[[str], None]

    def run(self, state: TableState) -> TableState:
        """Sweeps the table if that is due. Returns its entry, which may have been saved."""
        if self.keys.are_too_many or state.rows is None:
            return state
        if self.keys.ranges is not None and not is_due(
            state.swept, self.deletes.sweep_hours, self.deletes.now
        ):
            return state
        try:
            if self.keys.ranges is None:
                return self._adopt(state)
            return self._sweep(state, self.keys.ranges)
        except TooManyRangesError:
            self.in_turn(self.keys.set, None)
            return replace(state, delivered=self.in_turn(self.keys.to_text))
        except SourceError as error:
            if self.session.unreachable:
                raise
            Logging.warning(
                f"{self.table.label}: {error}: the sync goes on without the sweep for deleted "
                "rows, which the next sync tries again"
            )
            return state

    def _adopt(self, state: TableState) -> TableState:
        """Takes the keys that the server has now for those that the destination was given. What
        is deleted later is told by them; what was deleted before is not."""
        ranges = KeyRanges(self._server_ranges())
        if ranges.is_too_long:
            raise TooManyRangesError("there are more ranges than are kept")
        Logging.warning(
            f"{self.table.label}: nobody knows which keys were synced until now, so rows that "
            "were deleted at the source before this sync stay until a re-sync; deletes from now "
            "on arrive"
        )
        self.in_turn(self.keys.set, ranges)
        return self._swept(state)

    def _sweep(self, state: TableState, delivered: KeyRanges) -> TableState:
        count = _Counted(self._server_ranges())
        missing = KeyRanges(difference(delivered, count))
        if missing:
            missing = missing.without(self._existing(missing))
        if not missing:
            return self._swept(state)
        gone, known, empty = missing.keys, delivered.keys, not count.number
        most = known > _MANY_ROWS and 2 * gone > known
        # A doubt about an empty table leaves no time of a sweep, so that the next sync sweeps.
        same = state.doubted and empty == (state.swept is None)
        if (empty or most) and not same:
            return self._doubt(state, gone, known, empty=empty)
        return self._swept(self._delete(state, missing))

    def _doubt(self, state: TableState, gone: int, known: int, *, empty: bool) -> TableState:
        again = "sync" if empty else "sweep"
        self.warn(
            f"{gone} of {known} rows are gone at the source, which may be since mssql_user has "
            f"lost a right: they are deleted if the next {again} sees the same"
        )
        return replace(state, doubted=True, swept=None if empty else self.deletes.now)

    def _swept(self, state: TableState) -> TableState:
        delivered = self.in_turn(self.keys.to_text)
        return replace(state, delivered=delivered, swept=self.deletes.now, doubted=False)

    def widen(self) -> None:
        """Counts keys as delivered that a sync which was killed may have handed over behind its
        last state: those that follow the greatest one, where they have few gaps, up to the last
        one that the server gave, since those at the end may be gone. To delete a row that the
        destination does not have does no harm."""
        ranges = self.keys.ranges
        if not ranges:
            return
        greatest = ranges.greatest
        if greatest > INTEGERS[self.keys.key.info.name][1]:
            return
        most = 2 * self.checkpoints.most_rows  # the last batch may have been a large one
        sql = behind_statement(self.table, self.keys.key, greatest, most)
        [[last, number]] = self.session.with_retries("its keys", lambda: self.session.rows(sql))
        if not number:
            last = greatest
        if last - greatest - number > _MOST_GAPS:
            return
        if number < most:
            given = self._last_given()
            last = given if last <= given <= last + most else last
        if last > greatest:
            self.in_turn(ranges.add_ranges, [(greatest + 1, last)])

    def _last_given(self) -> int:
        """The last key that the server gave to a row, 0 if it does not give them, or does not
        tell."""
        found = self.session.optional(
            "the last identity", identity_statement(self.table, self.keys.key)
        )
        return found[0][0] or 0 if found else 0

    # What the server has

    def _server_ranges(self) -> Iterator[Range]:
        """The ranges of its keys, in their order. Raises SourceError."""
        after, read = None, 0
        while True:
            sql = ranges_statement(self.table, self.keys.key, after, KEYS_OF_A_STATEMENT)
            left = _MOST_READ - read
            found = self.session.with_retries("its keys", lambda: self._first(sql, left))  # noqa: B023
            for low, high, _ in found:
                yield int(low), int(high)
            read += len(found)
            if sum(number for *_, number in found) < KEYS_OF_A_STATEMENT:
                return
            after = int(found[-1][1])

    def _first(self, sql: str, most: int) -> list[tuple[Any, ...]]:
        """The rows of a statement. Raises TooManyRangesError for more than ``most``."""
        rows: list[tuple[Any, ...]] = []
        with closing(self.session.stream(sql)) as batches:
            for batch in batches:
                rows += batch
                if len(rows) > most:
                    raise TooManyRangesError(f"the server has more than {most} ranges of keys")
        return rows

    def _existing(self, missing: KeyRanges) -> KeyRanges:
        """Those of the keys that the server has all the same: a scan that is not of one moment,
        as of a table that is not read under SNAPSHOT, may miss a row that moves in the index that
        it goes by, and a row may be there again. No row moves in the index of the key.

        A key that was delivered may lie outside its type, if that was made a smaller one since:
        it cannot be there, and to ask for it would be an error."""
        found = KeyRanges()
        ranges = within(missing, INTEGERS[self.keys.key.info.name])
        while some := list(islice(ranges, _VERIFIED_AT_ONCE)):
            found.add(self._look_up(some))
        return found

    def _look_up(self, ranges: Sequence[Range]) -> list[int]:
        """The keys that the server has in the ranges, sorted."""
        try:
            return self._keys_within(ranges, seek=not self.table.has_declared_key)
        except StatementError as error:
            # A hash index, which a table in memory may have, knows no ranges. To scan such a table
            # misses no row: each statement sees it as of one moment.
            if error.number != _NO_PLAN:
                raise
        return self._keys_within(ranges, seek=False)

    def _keys_within(self, ranges: Sequence[Range], *, seek: bool) -> list[int]:
        sql = existing_statement(self.table, self.keys.key, ranges, seek=seek)
        found = self.session.with_retries("its keys", lambda: self.session.rows(sql))
        return sorted(int(key) for (key,) in found)

    # Deleting

    def _delete(self, state: TableState, missing: KeyRanges) -> TableState:
        """Deletes the rows with these keys, and keeps the others in the state."""
        # If a row comes back as it was, its window, or the whole table, is what it was, too.
        cursor = replace(state.cursor, window=None)
        state = replace(state, cursor=cursor, fingerprint=None)
        number = missing.keys
        keys = (key for low, high in missing for key in range(low, high + 1))
        while some := list(islice(keys, _DELETED_AT_ONCE)):
            state = self.in_turn(self._delete_some, state, some)
        rows = "1 row that is" if number == 1 else f"{number} rows that are"
        verb = "is" if number == 1 else "are"
        Logging.info(f"{self.table.label}: {rows} gone at the source {verb} deleted")
        return state

    def _delete_some(self, state: TableState, keys: list[int]) -> TableState:
        self.writer.delete_keys(self.keys.key.destination, keys)
        gone = KeyRanges()
        gone.add(keys)
        if self.keys.ranges is not None:  # they may prove too many
            self.keys.set(self.keys.ranges.without(gone))
        state = replace(state, delivered=self.keys.to_text())
        self.checkpoints.put(self.table.label, state)
        self.checkpoints.add(len(keys), 8 * len(keys))
        if self.checkpoints.is_due():
            self.checkpoints.save()
        return state


class _Counted:
    """Ranges, and how many were read of them."""

    def __init__(self, ranges: Iterable[Range]) -> None:
        self._ranges, self.number = ranges, 0

    def __iter__(self) -> Iterator[Range]:
        for each in self._ranges:
            self.number += 1
            yield each


def ranges_statement(table: SourceTable, key: Column, after: int | None, limit: int) -> str:
    """A SELECT of the ranges of the first ``limit`` keys behind ``after``, and how many keys each
    one has."""
    name = f"T.{quoted(key.name)}"
    # A key less the number of its row is lower than the least bigint.
    wide = "decimal(20,0)" if key.info.name == "bigint" else "bigint"
    where = "" if after is None else f"WHERE {name} > {_constant(key, after)} "
    if after is None and key.nullable:
        where = f"WHERE {name} IS NOT NULL "
    return (
        "SELECT MIN(R.k) AS low, MAX(R.k) AS high, COUNT_BIG(*) AS number FROM ("  # noqa: S608
        f"SELECT TOP ({limit}) {name} AS k, "
        f"CONVERT({wide}, {name}) - ROW_NUMBER() OVER (ORDER BY {name}) AS island "
        f"FROM {_name(table)} AS T {where}ORDER BY {name}"
        ") AS R GROUP BY R.island ORDER BY MIN(R.k)"
    )


def behind_statement(table: SourceTable, key: Column, after: int, limit: int) -> str:
    """A SELECT of the last of the first ``limit`` keys behind ``after``, and of their number."""
    name = f"T.{quoted(key.name)}"
    return (
        "SELECT MAX(R.k) AS last, COUNT_BIG(*) AS number FROM ("  # noqa: S608
        f"SELECT TOP ({limit}) {name} AS k FROM {_name(table)} AS T "
        f"WHERE {name} > {_constant(key, after)} ORDER BY {name}) AS R"
    )


def identity_statement(table: SourceTable, key: Column) -> str:
    """A SELECT of the last identity of the table, null if the key is none."""
    name = literal(f"{bracketed(table.schema)}.{bracketed(table.name)}")
    is_identity = f"COLUMNPROPERTY(OBJECT_ID({name}), {literal(key.name)}, 'IsIdentity') = 1"
    given = f"CONVERT(bigint, IDENT_CURRENT({name}))"
    return f"SELECT CASE WHEN {is_identity} THEN {given} END AS given"


def existing_statement(
    table: SourceTable, key: Column, ranges: Iterable[Range], *, seek: bool
) -> str:
    """A SELECT of the keys in ``ranges``; ``seek``: by an index."""
    name = f"T.{quoted(key.name)}"
    any_of_them = " OR ".join(
        f"{name} BETWEEN {_constant(key, low)} AND {_constant(key, high)}" for low, high in ranges
    )
    hint = " WITH (FORCESEEK)" if seek else ""
    return f"SELECT {name} AS k FROM {_name(table)} AS T{hint} WHERE {any_of_them}"  # noqa: S608


def _name(table: SourceTable) -> str:
    return f"{quoted(table.schema)}.{quoted(table.name)}"


def _constant(key: Column, value: int) -> str:
    # A number alone may be of a type that the column, and with it the index, is converted to.
    return f"CAST('{value}' AS {key.declared})"
