"""Which tables lose rows at the source without a word of it, and what is done about each.

A table whose key is one whole number is swept: the state keeps the set of keys that the
destination was given, the server is asked for its own, and what it lacks is deleted. Any other
table is read in full from time to time, if the user wants that.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fivetran_connector_sdk import Logging

from shared import times
from shared.rows import Row
from shared.state import State

from . import naming
from .key_ranges import LARGEST_TEXT, KeyRanges
from .query import Plan
from .settings import Hours, table_patterns
from .source_tables import Column, SourceTable
from .table_state import DELIVERED, TOO_MANY

LARGEST_OF_ALL = 500_000  # characters, in the state of all tables
# The types of keys by which tables are swept, and the least and the greatest value of each.
INTEGERS = {
    "tinyint": (0, 2**8 - 1),
    "smallint": (-(2**15), 2**15 - 1),
    "int": (-(2**31), 2**31 - 1),
    "bigint": (-(2**63), 2**63 - 1),
}
_MINUTES = 60  # of an hour
_SLACK = 20  # the part of the hours by which a sync may come early: no two begin on the second


def minutes_now() -> int:
    """By the clock of the machine that syncs, in minutes since 1970."""
    return int(times.now().timestamp()) // 60


def is_due(last: int | None, hours: int, now: int) -> bool:
    """Whether ``hours`` have passed since ``last``, in minutes as ``now``, or nearly so. What lies
    in the future was written by a clock that was wrong."""
    minutes = hours * _MINUTES
    return last is None or not last <= now < last + minutes - minutes // _SLACK


@dataclass(frozen=True)
class Deletes:
    """How deletes are found that the server does not tell.

    ``sweep_hours``: between two sweeps, 0: there are none; ``refresh_hours``: between two full
    reads, by the labels of tables; ``refresh_others``: of other tables whose deletes nothing else
    tells, 0: never; ``was_killed``: the last sync did not end by itself; ``now``: when the sync
    began, in minutes.
    """

    sweep_hours: int
    refresh_hours: Mapping[str, int]
    refresh_others: int
    budget: "KeyBudget"
    was_killed: bool
    now: int

    def sweep_key(self, plan: Plan, *, replaced: bool) -> Column | None:
        """The key by which the table is swept, None if it is not. ``replaced``: the table is read
        in full, and replaced, where it has no column of changes."""
        key = plan.table.key
        told = plan.by_changes or (replaced and plan.column is None)
        if not self.sweep_hours or told or len(key) != 1 or key[0].info.name not in INTEGERS:
            return None
        return key[0]

    def hours_of_refresh(self, plan: Plan, *, replaced: bool, swept: bool) -> int:
        """How many hours lie between two full reads that bring the deletes, 0: there are none."""
        if plan.table.label in self.refresh_hours:
            return self.refresh_hours[plan.table.label]
        told = plan.by_changes or swept or (replaced and plan.column is None)
        return 0 if told else self.refresh_others


def hours_by_table(
    given: Sequence[Hours], tables: Sequence[SourceTable], database: str
) -> tuple[dict[str, int], int]:
    """``full_refresh_hours`` by the labels of the tables that it names, and the hours of all
    others. Of two patterns that match a table the first one counts."""
    hours: dict[str, int] = {}
    names = {(table.schema, table.name): table.label for table in tables}
    for parts, number in given:
        if not parts:
            continue
        [pattern] = table_patterns([parts], database)
        matching = naming.of_each(names, [pattern])[pattern]
        if not matching:
            Logging.warning(f"full_refresh_hours: {pattern!r} matches no table that is synced")
        for name in matching:
            hours.setdefault(names[name], number)
    return hours, next((number for parts, number in given if not parts), 0)


class KeyBudget:
    """Shares out the bytes of the state that the keys of all tables may take, the cheapest tables
    first. It is used in the thread that makes checkpoints."""

    def __init__(self, state: State) -> None:
        self._state = state
        entries = state.values["tables"].items()
        self._sizes = {label: len(e[DELIVERED]) for label, e in entries if e.get(DELIVERED)}
        self._total = sum(self._sizes.values())
        self._dropped: set[str] = set()

    def begin(self, label: str) -> None:
        """The table is loaded anew."""
        self._dropped.discard(label)

    def take(self, label: str, text: str) -> bool:
        """Whether the keys of the table are kept. Those of others may be dropped for it."""
        if label in self._dropped:
            return False
        if len(text) > LARGEST_TEXT:
            self._drop(label, f"they take {len(text)} characters, of {LARGEST_TEXT} at most")
            return False
        self._total += len(text) - self._sizes.get(label, 0)
        self._sizes[label] = len(text)
        while self._total > LARGEST_OF_ALL:
            largest = max(self._sizes, key=lambda each: self._sizes[each])
            self._drop(largest, f"those of all tables take more than {LARGEST_OF_ALL} characters")
        return label not in self._dropped

    def _drop(self, label: str, reason: str) -> None:
        self._total -= self._sizes.pop(label, 0)
        self._dropped.add(label)
        entry = self._state.table(label)
        if entry.get(DELIVERED):
            self._state.put({label: {**entry, DELIVERED: TOO_MANY}})
        warn_of_gaps(label, reason)


def warn_of_gaps(label: str, reason: str) -> None:
    """Says that a table is not swept any more."""
    Logging.warning(
        f"{label}: its keys have too many gaps to be kept in the state ({reason}): rows that are "
        "deleted at the source stay, until the table is loaded anew. Change Tracking, or "
        "full_refresh_hours for this table, would bring the deletes"
    )


class DeliveredKeys:
    """The keys of a table that the destination was given, by the ``saved`` text of the state.

    ``ranges`` is None if they are not known; ``are_too_many``: since there is no room for them.
    """

    def __init__(
        self, table: SourceTable, key: Column, saved: str | None, budget: KeyBudget
    ) -> None:
        self.key, self._label, self._budget = key, table.label, budget
        self.are_too_many = saved == TOO_MANY
        self.ranges = None if saved is None else KeyRanges.from_text(saved)
        self._waiting: KeyRanges | None = None
        self._waits = False

    def wait(self, *, wanted: bool) -> None:
        """If ``wanted``, rows wait from now on, until ``release`` or ``restart``."""
        self._waits, self._waiting = wanted, KeyRanges() if wanted else None

    def add(self, rows: Sequence[Row]) -> None:
        """The rows are handed over, or wait for that."""
        ranges = self._waiting if self._waits else self.ranges
        if ranges is None:
            return
        name = self.key.destination
        ranges.add([row[name] for row in rows])
        if ranges.is_too_long:
            if self._waits:
                self._waiting = None
            else:
                self._give_up()

    def restart(self) -> None:
        """The rows that wait are read once more."""
        self.wait(wanted=self._waits)

    def truncate(self) -> None:
        """The destination has no row any more."""
        self.ranges, self.are_too_many = KeyRanges(), False
        self._budget.begin(self._label)

    def release(self, *, whole: bool) -> None:
        """The rows that waited are handed over. ``whole``: the destination has no others."""
        if not self._waits:
            return
        if whole:
            self.truncate()
        if self._waiting is None:
            self._give_up()
        elif self.ranges is not None:
            self.ranges.add_ranges(self._waiting)
        self.wait(wanted=False)

    def set(self, ranges: KeyRanges | None) -> None:
        """``ranges`` are what the destination has; None: they are too many."""
        self.ranges = ranges
        if ranges is None:
            self._give_up()

    def _give_up(self) -> None:
        self.ranges = None
        if not self.are_too_many:
            self.are_too_many = True
            warn_of_gaps(self._label, "they are too many ranges")

    def to_text(self) -> str | None:
        """The form for the state. It is called in the thread that makes checkpoints."""
        if self.ranges is not None:
            text = self.ranges.to_text()
            if self._budget.take(self._label, text):
                return text
            self.ranges, self.are_too_many = None, True
        return TOO_MANY if self.are_too_many else None
