"""What the state keeps of a table between two syncs, and the keys under which it does."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from shared.state import ODD, check_types

# How the rows of a read are stored; ``read_progress`` says what each means.
MODES = ("first", "replacement", "full", "incremental", "changes")
_MOMENT = re.compile(
    r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d:\d\d(?:\.\d{1,7})?(?: ?[+-]\d\d:\d\d|Z)?)?", re.ASCII
)
_VERSION = re.compile(r"0x[\dA-Fa-f]{1,20}|\d{1,19}", re.ASCII)
_MOST_MINUTES = 24 * 60  # that a server's clock can be ahead of UTC
_LAST_MINUTE = 2**32  # since 1970
_LONGEST_NAME = 1_000  # bytes; those of SQL Server have 128 characters


@dataclass(frozen=True)
class Cursor:
    """Where the next incremental read starts. What a table's plan does not need is None.

    column         digest of name and type of the column that tells the changes (of older versions
                   both, in a list of one)
    moment         texts from this moment on are read next
    rowversion     rows from this version on are read next, in place of a moment
    columns        fingerprint of the table's columns, to notice new ones
    offset         minutes by which the server's clock was ahead of UTC
    version        changes since this version of Change Tracking are read next
    tracked_since  the version at which Change Tracking of the table began
    lsn            changes behind this LSN of Change Data Capture are read next
    window         fingerprint of the rows that are read next if none has changed
    """

    column: str | list[str] | None = None
    moment: str | None = None
    rowversion: str | None = None
    columns: str | None = None
    offset: int | None = None
    version: int | None = None
    tracked_since: int | None = None
    window: str | None = None
    lsn: str | None = None

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Cursor":
        """The cursor in the entry of a table."""
        values = {
            name: entry.get(key, entry.get(_OLDER_CURSOR_KEYS.get(name, "")))
            for name, key in _CURSOR_KEYS.items()
        }
        if values["moment"] is not None and values["offset"] is None:
            values["offset"] = 0
        digests = str(entry.get("c", "")).split(";")
        if len(digests) == len(_DIGESTS):
            values |= {n: text or None for n, text in zip(_DIGESTS, digests, strict=True)}
        return cls(**values)

    def check(self) -> None:
        """Raises TypeError or ValueError if no version can have written this."""
        check_types(self)
        _check(
            self.moment is None or _is_moment(self.moment),
            self.rowversion is None or _is_version(self.rowversion),
            self.lsn is None or _is_version(self.lsn),
            abs(self.offset or 0) <= _MOST_MINUTES,
        )

    def to_json(self) -> dict[str, Any]:
        entry = {key: getattr(self, name) for name, key in _CURSOR_KEYS.items()}
        if isinstance(self.column, str):
            digests = (getattr(self, name) or "" for name in _DIGESTS)
            entry |= {**dict.fromkeys("bcw"), "c": ";".join(digests)}
        if self.moment is not None:
            entry["o"] = self.offset or None
        return _without_empty(entry)


# The state has the entries of ten thousand tables: their keys are short, and no digest has one of
# its own where all of them are there.
_DIGESTS = ("columns", "column", "window")
_CURSOR_KEYS = {
    "column": "b",
    "moment": "m",
    "rowversion": "r",
    "columns": "c",
    "offset": "o",
    "version": "v",
    "tracked_since": "s",
    "window": "w",
    "lsn": "l",
}
_OLDER_CURSOR_KEYS = {
    "column": "column",
    "moment": "cursor",
    "rowversion": "rowversion",
    "columns": "columns",
    "offset": "offset",
    "version": "version",
    "tracked_since": "tracked",
}


@dataclass(frozen=True)
class SavedRead:
    """A read that was interrupted. Older versions did not save all of this.

    order      what the position belongs to: the plan, and the columns that order its rows
    columns    fingerprint of the table's columns when the read was saved
    mode       how the rows are stored, as ``ReadProgress`` has it
    start      where the read began: a moment, a rowversion or a version; None: all rows
    clock      where the next read may start, as the server told when this one began
    offset     minutes by which the server's clock was ahead of UTC
    position   the position of the last row that was stored, encrypted; None: there is none
    greatest   the greatest moment of the plan's column so far
    latest     the greatest one that the table had when this read began
    window     fingerprint, then, of the rows that the next sync reads again
    stored     rows stored since the read began
    skipped    rows skipped since then
    nulls      rows without a value of the plan's column since then
    tracked_since  the version at which Change Tracking of the table began, as the server told when
                   this read began
    """

    mode: str
    clock: str
    order: list[str] | None = None
    columns: str | None = None
    start: str | None = None
    offset: int = 0
    position: str | None = None
    greatest: str | None = None
    latest: str | None = None
    window: str | None = None
    stored: int = 0
    skipped: int = 0
    nulls: int = 0
    tracked_since: int | None = None

    @classmethod
    def from_json(cls, saved: Mapping[str, Any]) -> "SavedRead | None":
        """None for a read that this version does not understand, such as one with other keys: it
        cannot be resumed."""
        try:
            if saved.keys() - _READ_KEYS.values():
                return None
            read = cls(**{name: saved[key] for name, key in _READ_KEYS.items() if key in saved})
            read.check()
        except ODD:
            return None
        return read

    def check(self) -> None:
        """Raises TypeError or ValueError if no version can have written this."""
        check_types(self)
        places = (self.start, self.clock or None, self.greatest, self.latest)
        _check(
            self.mode in MODES,
            self.mode != "changes" or self.start is not None,
            all(place is None or _is_moment(place) or _is_version(place) for place in places),
            abs(self.offset) <= _MOST_MINUTES,
        )

    def to_json(self) -> dict[str, Any]:
        return {key: getattr(self, name) for name, key in _READ_KEYS.items()}


_READ_KEYS = {
    "order": "order",
    "columns": "columns",
    "mode": "mode",
    "start": "start",
    "clock": "clock",
    "offset": "offset",
    "position": "after",
    "greatest": "greatest",
    "latest": "latest",
    "window": "window",
    "stored": "sent",
    "skipped": "rejected",
    "nulls": "nulls",
    "tracked_since": "tracked",
}


@dataclass(frozen=True)
class TableState:
    """The entry of a table. What is not known is None or False, and not saved.

    destination   name of the table at the destination
    destination_schema  its schema there, if it is not the connection's own
    key           names of the columns of its key, as the source spells them; []: it has none
    key_types     types of these columns, as ``table_keys.types_of`` names them
    identity      tells the table from another one of its name
    column_names  names at the destination of the columns that could not be named again, by column
    key_refused   the last sync failed since the source has another key now
    rows          how many rows the last full read stored; None: the table was never loaded
    emptied       the last read found the table empty, and did not replace it
    outgrown      the last full read proved too large to replace the table
    has_stale     the destination has rows that are deleted at the source: all is read next
    fingerprint   of the rows that the last full read has left at the destination
    delivered     the keys of the rows that the destination has, as ``KeyRanges`` writes them; or
                  TOO_MANY
    swept         when the last sweep for deleted rows began, in minutes since 1970
    doubted       the last sweep missed so many rows that it deleted none (all, if ``swept`` is
                  not known)
    refreshed     when the last full read began, of a table that has one from time to time
    cursor        where the next incremental read starts
    read          the read that was interrupted
    others        what other versions of the connector saved; it is kept until a read is complete
    """

    destination: str | None = None
    destination_schema: str | None = None
    key: list[str] | None = None
    key_types: list[str] | None = None
    identity: str | None = None
    column_names: dict[str, str] | None = None
    key_refused: bool = False
    rows: int | None = None
    emptied: bool = False
    outgrown: bool = False
    has_stale: bool = False
    fingerprint: str | None = None
    delivered: str | None = None
    swept: int | None = None
    doubted: bool = False
    refreshed: int | None = None
    cursor: Cursor = Cursor()
    read: SavedRead | None = None
    others: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any], label: str) -> "TableState":
        """The state in the entry of the table ``label``, in the form of this version or an older
        one."""
        values = {name: entry[key] for name, key in _OLDER_KEYS.items() if key in entry}
        values |= {name: entry[key] for name, key in _KEYS.items() if key in entry}
        if _KEY in entry:
            values.setdefault("destination", _own_name(label))
            columns = [column.rpartition(":") for column in _list(entry[_KEY])]
            values["key"] = [name for name, _, _ in columns]
            values["key_types"] = [_TYPES.get(short, short) for _, _, short in columns]
        if DELIVERED in entry:
            values["delivered"], _, swept = entry[DELIVERED].partition(" ")
            values["swept"] = int(swept, 16) if swept else None
        return cls(
            **values,
            cursor=Cursor.from_json(entry),
            read=SavedRead.from_json(entry[READ]) if entry.get(READ) else None,
            others={key: value for key, value in entry.items() if key not in _KNOWN},
        )

    def check(self) -> None:
        """Raises TypeError or ValueError if no version can have written this."""
        check_types(self)
        self.cursor.check()
        typed = self.key is None or self.key_types is None
        names = (self.destination, self.destination_schema, *(self.column_names or {}).values())
        _check(
            all(name is None or _is_name(name) for name in names),
            typed or len(self.key or ()) == len(self.key_types or ()),
            all(0 <= (minute or 0) < _LAST_MINUTE for minute in (self.swept, self.refreshed)),
        )

    def to_json(self, label: str) -> dict[str, Any]:
        """The entry of the table ``label``."""
        entry = {**self.others}
        saved = {key: getattr(self, name) for name, key in _KEYS.items()}
        if self.key is not None and self.key_types is not None:
            typed = zip(self.key, self.key_types, strict=True)
            columns = [f"{name}:{_SHORT_TYPES.get(kind, kind)}" for name, kind in typed]
            entry[_KEY] = columns[0] if len(columns) == 1 else columns
            if self.destination == _own_name(label):
                saved["as"] = None
        else:  # an older version saved only one of them
            saved |= {"key": self.key, "types": self.key_types}
        if self.delivered is not None:
            swept = "" if self.swept is None else f" {self.swept:x}"
            saved[DELIVERED] = self.delivered + swept
        entry |= {**_without_empty(saved), **self.cursor.to_json()}
        return {**entry, READ: self.read.to_json()} if self.read else entry

    @property
    def confirms_empty(self) -> bool:
        """Whether a table that is empty now may be emptied at the destination: the last full
        refresh found it empty, too."""
        return self.emptied or self.rows == 0

    @property
    def is_known(self) -> bool:
        """Whether the table was loaded, or its load has begun."""
        return self.rows is not None or self.read is not None

    def undigested(self) -> "TableState":
        """This entry without what it tells of the rows at the destination."""
        return replace(self, fingerprint=None, cursor=replace(self.cursor, window=None))

    def lasting(self) -> "TableState":
        """What the destination has of the table, however its rows are read."""
        return TableState(
            destination=self.destination,
            destination_schema=self.destination_schema,
            key=self.key,
            key_types=self.key_types,
            identity=self.identity,
            column_names=self.column_names,
        )

    def renewed(self, lasting: "TableState") -> "TableState":
        """This entry, with what is ``lasting`` as it is now."""
        return replace(
            self,
            destination=lasting.destination,
            destination_schema=lasting.destination_schema,
            key=lasting.key,
            key_types=lasting.key_types,
            identity=lasting.identity,
            column_names=lasting.column_names or self.column_names,
        )


READ, _KEY = "read", "k"
DELIVERED = "d"
TOO_MANY = "-"  # in place of keys: there is no room for them
_KEYS = {
    "destination": "as",
    "destination_schema": "in",
    "identity": "i",
    "column_names": "names",
    "key_refused": "refused",
    "rows": "n",
    "emptied": "emptied",
    "outgrown": "large",
    "has_stale": "mixed",
    "fingerprint": "f",
    "doubted": "doubted",
    "refreshed": "u",
}
_OLDER_KEYS = {"key": "key", "key_types": "types", "identity": "id", "rows": "rows"}
_KNOWN = {
    *(READ, _KEY, DELIVERED),
    *(*_KEYS.values(), *_OLDER_KEYS.values()),
    *(*_CURSOR_KEYS.values(), *_OLDER_CURSOR_KEYS.values()),
}
# The types of keys that are frequent, behind the names of their columns.
_TYPES = {"w": "whole", "t": "text", "d": "decimal", "b": "bytes", "u": "uniqueidentifier"}
_SHORT_TYPES = {name: short for short, name in _TYPES.items()}


def _check(*are_so: bool) -> None:
    if not all(are_so):
        raise ValueError


def _is_name(text: str) -> bool:
    """Whether a table, a schema or a column can have this name at the destination."""
    return 0 < len(text.encode()) <= _LONGEST_NAME  # half of a surrogate pair is a ValueError


def _is_moment(text: str) -> bool:
    if not _MOMENT.fullmatch(text):
        return False
    try:
        datetime.fromisoformat(text[:19])
    except ValueError:
        return False
    return True


def _is_version(text: str) -> bool:
    """Of Change Tracking, of a row, or of a log."""
    return _VERSION.fullmatch(text) is not None


def _list(value: str | list[str]) -> list[str]:
    if not isinstance(value, (str, list)):
        raise TypeError
    return [value] if isinstance(value, str) else value


def _own_name(label: str) -> str | None:
    """The table's name in a label without brackets, which most tables have at the destination."""
    return None if "[" in label else label.partition(".")[2]


def _without_empty(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value for key, value in values.items() if value is not None and value is not False
    }
