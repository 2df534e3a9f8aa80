"""The state of a connector, and the window that a table is read for.

{"version": 1, "tables": {"rooms": {"cursor": "2026-01-31T08:00:00Z", ...}}, ...}

What the entry of a table holds, TableState says, or the connector's own class.
"""

import copy
import functools
import hashlib
import math
import threading
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Union, get_args, get_origin, get_type_hints

from fivetran_connector_sdk import Logging, Operations as op

from . import times
from .errors import StateError

VERSION = 1
# The next cursor lies this much before the clock: rows that the source commits late, or stamps by
# a clock of its own, are read once more.
OVERLAP = timedelta(minutes=10)
_DEEPEST = 20  # levels of a state; no version writes more than six
_LARGEST = 2**63  # no version writes a number of more bits
# What the functions that read a part of a state raise where it is not what a version wrote.
ODD = (ValueError, TypeError, AttributeError, LookupError, OverflowError)


def not_understood(what: str, before_resync: str = "") -> StateError:
    """The error for a saved state of which ``what`` is the rest of the sentence."""
    return StateError(
        f"The saved state {what}: deploy the version that wrote it, or re-sync the connection"
        + before_resync
    )


class State:
    """The state, from the last sync's to this one's; usable from several threads.

    ``last_sync_time``, the whole state of older connectors, becomes the cursor of all ``tables``.
    ``read_entry`` reads the entry of a table, whose name is its second argument, and raises one of
    ODD if it cannot. Raises StateError for a state of another form: a new start would hide the
    loss. The advice to re-sync ends with ``before_resync``.
    """

    def __init__(
        self,
        saved: Mapping[str, Any],
        tables: tuple[str, ...],
        before_resync: str = "",
        read_entry: Callable[[Any, str], object] = lambda entry, name: TableState.from_json(entry),
    ) -> None:
        if saved and "version" not in saved:
            saved = {"tables": {name: {"cursor": saved.get("last_sync_time")} for name in tables}}
        values = {"version": VERSION, "tables": {}, **saved}
        odd = form = f"is not one of version {VERSION}, which this connector understands"
        try:
            if values["version"] != VERSION or not _is_plain(values):
                raise ValueError
            if values.get("oldest") is not None:
                times.parse(values["oldest"])
            for name, entry in values["tables"].items():
                if "version" not in saved:
                    times.parse(entry["cursor"])
                else:
                    odd = f"{form} (its table {name})"
                if not isinstance(entry, dict):
                    raise TypeError
                read_entry(entry, name)
        except ODD:
            raise not_understood(odd, before_resync) from None
        self.values = copy.deepcopy(values)
        self._lock = threading.Lock()

    def table(self, name: str) -> dict[str, Any]:
        """A copy of the table's entry, {} if there is none."""
        return dict(self.values["tables"].get(name, {}))

    def put(self, tables: Mapping[str, Any]) -> None:
        """Sets the entries of ``tables``, for the next checkpoint."""
        with self._lock:
            self.values["tables"].update(tables)

    def save(self, tables: Mapping[str, Any] | None = None, **others: Any) -> None:
        """Checkpoints, with new entries for ``tables`` and other values beside the tables."""
        self.put(tables or {})
        with self._lock:
            self.values.update(others)
            op.checkpoint(self.values)


def _is_plain(value: Any, levels: int = _DEEPEST) -> bool:
    """Whether a value has few levels, and no number that JSON cannot hold."""
    if isinstance(value, dict):
        return levels > 0 and all(_is_plain(each, levels - 1) for each in value.values())
    if isinstance(value, list):
        return levels > 0 and all(_is_plain(each, levels - 1) for each in value)
    if isinstance(value, (int, float)):
        return math.isfinite(value) and abs(value) < _LARGEST
    return value is None or isinstance(value, str)


def check_types(read: Any) -> None:
    """Raises TypeError if a field of the dataclass instance ``read`` has a value that is not of
    its type. JSON has no types of its own for what a dataclass declares: true is no int."""
    values = vars(read)
    for name, classes, hint in _fields(read.__class__):  # of ten thousand tables
        if type(values[name]) not in classes and not _has_type(values[name], hint):
            raise TypeError(name)


@functools.cache
def _fields(cls: type) -> list[tuple[str, set[Any], Any]]:
    """The fields of a dataclass, each with the classes that its values have without parts."""
    fields = []
    for name, hint in get_type_hints(cls).items():
        parts = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
        fields.append((name, {part for part in parts if get_origin(part) is None}, hint))
    return fields


def _has_type(value: Any, hint: Any) -> bool:
    kind, parts = get_origin(hint), get_args(hint)
    if kind in (Union, types.UnionType):
        return any(_has_type(value, part) for part in parts)
    if kind in (list, tuple):
        return isinstance(value, kind) and all(_has_type(each, parts[0]) for each in value)
    if kind is dict:
        return isinstance(value, dict) and all(_has_type(e, parts[1]) for e in value.values())
    return hint is Any or type(value) is hint


_MOMENTS = ("cursor", "listed_at")


@dataclass(frozen=True)
class TableState:
    """The entry of a table that ``Listing`` syncs; a key without a value is left out.

    cursor      changes from this moment on are still to be read
    listed_at   when the last full refresh began; None: the next one is due
    rows        how many rows it left, or of those that came since if they are more; None: not
                known
    emptied     the last full refresh found nothing, and did not replace the table
    miscount    by how many the source's total differs from the distinct keys that it lists
    fingerprint  of the rows that the destination has (see fingerprint.py); "": not known
    unfinished  (of older versions) a full refresh broke off, and the table is not whole
    """

    cursor: datetime | None = None
    listed_at: datetime | None = None
    rows: int | None = None
    emptied: bool = False
    miscount: int = 0
    fingerprint: str = ""
    unfinished: bool = False

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "TableState":
        """Raises one of ODD for an entry that no version wrote."""
        known = {name: entry[name] for name in cls.__dataclass_fields__ if name in entry}
        known.update({name: times.parse(known[name]) for name in _MOMENTS if name in known})
        read = cls(**known)
        check_types(read)
        return read

    def to_json(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values.update({name: times.to_text(values[name]) for name in _MOMENTS if values[name]})
        return {k: v for k, v in values.items() if v != self.__dataclass_fields__[k].default}

    @property
    def is_known(self) -> bool:
        """Whether an earlier sync left anything."""
        return self != TableState()

    @property
    def confirms_empty(self) -> bool:
        """Whether a list that is empty now may empty the table: the last full refresh found it
        empty, too. Else it may be that the credentials have lost a right."""
        return self.emptied or self.rows == 0


def fix_oldest(state: State, days: int | None, started: datetime) -> None:
    """Sets ``oldest`` in the state: how far back the connection reads, ``days`` before its first
    sync (None: all). It is saved with the first checkpoint, and stays.

    A moment after ``started`` was written by a clock that was wrong, and is replaced.
    """
    known = state.values.get("oldest")
    if "oldest" not in state.values or (known and times.parse(known) > started):
        oldest = started - timedelta(days=days) if days else None
        state.values["oldest"] = times.to_text(oldest) if oldest else None


def note_source(state: State, address: str) -> None:
    """Keeps the digest of the ``address`` that is read, as ``source``, for the next checkpoint. At
    another one than before each table has a full refresh: the cursors, and what the last source
    was found to be, such as empty, tell nothing of this one."""
    source = hashlib.sha256(address.encode()).hexdigest()[:16]
    if state.values.get("source", source) != source:
        Logging.info("The address of the source has changed: each table has a full refresh")
        for name in state.values["tables"]:
            entry = state.table(name)
            for of_the_other in ("listed_at", "emptied", "miscount"):
                entry.pop(of_the_other, None)
            state.put({name: entry})
    state.values["source"] = source


@dataclass(frozen=True)
class Window:
    """What to read: rows that changed at ``since`` or later (None: all). ``started``: when the
    read began. ``full``: the rows replace the table. ``history``: how far back the source knows of
    changes and deletes (None: of all). ``mode``: the same for the log, and why it is so."""

    since: datetime | None
    started: datetime
    full: bool
    history: timedelta | None = None
    mode: str = "all records"

    def covers(self, cursor: datetime) -> bool:
        """Whether the source knows all that happened since ``cursor``: it is not in the future,
        where a clock that was wrong put it, and not before the history."""
        reaches = self.history is None or self.started - self.history <= cursor
        return reaches and cursor <= self.started


def window(
    entry: Mapping[str, Any],
    reconcile_hours: int,
    oldest: datetime | None = None,
    history: timedelta | None = None,
    *,
    filters: bool = True,
) -> Window:
    """The window of a table whose state is ``entry`` and whose read begins now.

    It is full, back to ``oldest``, for a first load, after one that broke off, when the last full
    one began ``reconcile_hours`` ago, when the state is ahead of the clock, and when the cursor is
    older than the ``history`` of changes and deletes that the source keeps (None: all).
    ``filters``: whether the source leaves out what did not change; else its whole list is read.
    """
    started, table = times.now(), TableState.from_json(entry)
    cursor = table.cursor
    reason = _reason_for_all(table, started, reconcile_hours, history)
    mode = reason or _changes_since(cursor, filters=filters)
    since = oldest if reason else cursor
    return Window(since, started, bool(reason), history, mode)


def _changes_since(cursor: datetime | None, *, filters: bool) -> str:
    moment = times.to_text(cursor.replace(microsecond=0)) if cursor else ""
    changes = f"changes since {moment}"
    return changes if filters else f"whole list, of which {changes} are stored"


def _reason_for_all(
    table: TableState, started: datetime, hours: int, history: timedelta | None
) -> str:
    """Why all records are read, "" if they are not."""
    cursor, listed = table.cursor, table.listed_at
    if cursor is None and not table.is_known:
        return "first load"
    if cursor is None or listed is None or table.unfinished:
        return "full refresh, since no sync has completed one that is proven whole"
    if cursor > started or listed > started:
        return "full refresh, since the state is ahead of the clock"
    if not started < listed + timedelta(hours=hours):
        ago = (started - listed) // timedelta(hours=1)
        due = f"since the last one was {ago} hour{'' if ago == 1 else 's'} ago"
        return f"full refresh, {due if hours else 'as at every sync'}"
    if history is not None and cursor < started - history:
        return "full refresh, since the source does not keep all changes since the last sync"
    return ""
