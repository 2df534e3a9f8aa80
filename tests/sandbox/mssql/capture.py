# ruff: noqa: S608 - table names are numbers of our own
"""Change Data Capture: capture instances, their change tables, the log's LSNs and the agent.

A change is written to the change tables together with the row, and is visible there as soon as
the agent has come so far: at once, or when the test lets a stopped agent scan the log. One
transaction writes at a time, so the order of LSNs is the order of commits.

https://learn.microsoft.com/sql/relational-databases/track-changes/about-change-data-capture-sql-server
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.sandbox.mssql.types import Stored

if TYPE_CHECKING:
    from tests.sandbox.mssql.store import ColumnDef, Row, Store, TableDef

DELETE, INSERT, BEFORE, AFTER = 1, 2, 3, 4
_LSN_BYTES = 10
NO_LSN = bytes(_LSN_BYTES)
_ALL = b"\xff" * _LSN_BYTES
_FIRST_FILE = 0x2C << 48  # of the log; a transaction has 4,096 blocks of it
_IDLE_TICKS = 5 * 60 * 10_000_000  # the agent notes the time when nothing happened for so long

# The highest LSN that the agent has come to; NULL when there is none.
VISIBLE = "(SELECT max(lsn) FROM cdc_log WHERE NOT open AND lsn <= (SELECT upto FROM cdc_agent))"
_TABLES = (
    (
        "CREATE TABLE cdc_log (tx INTEGER PRIMARY KEY AUTOINCREMENT, lsn BLOB, began INTEGER, "
        "ended INTEGER, idle INTEGER, open INTEGER, changes INTEGER, commands INTEGER)"
    ),
    "CREATE INDEX cdc_log_lsn ON cdc_log (lsn)",
    "CREATE INDEX cdc_log_open ON cdc_log (open) WHERE open",
    "CREATE TABLE cdc_agent (upto BLOB)",
    "CREATE TABLE cdc_instances (id INTEGER PRIMARY KEY, start_lsn BLOB)",
)


@dataclass
class CaptureInstance:
    """A capture instance: its source, its change table, and what it captures of a row."""

    name: str
    source: TableDef
    changes: TableDef
    columns: list[ColumnDef]  # of the source, as they were when the instance was made
    index: str | None
    keys: list[ColumnDef]
    net: bool
    role: str | None
    created: int
    functions: dict[str, int]  # ids of fn_cdc_get_all_changes_<name>, ..._net_..., by name


def lsn_bytes(number: int) -> bytes:
    return number.to_bytes(_LSN_BYTES, "big")


def _first_record(transaction: int) -> int:
    return _FIRST_FILE + (transaction << 28)


def commit_lsn(transaction: int) -> bytes:
    """The LSN of a transaction's commit, after those of its changes."""
    return lsn_bytes(_first_record(transaction) + (0xFFF << 16) + 3)


def _record_lsn(transaction: int, change: int) -> bytes:
    block, slot = divmod(change, 0x8000)
    return lsn_bytes(_first_record(transaction) + (block << 16) + 2 + slot)


class Capture:
    """The log and the agent of one database; nothing is kept before a table is captured."""

    def __init__(self, store: Store, clock: Callable[[], int]) -> None:
        self._store = store
        self._clock = clock  # local time as a datetime, in 100 ns
        self._agent: sqlite3.Connection | None = None
        self._agent_lock = threading.Lock()
        self.instances: list[CaptureInstance] = []
        self.enabled = False

    # Definition

    def enable(self) -> None:
        with self._store.writing() as used:
            for statement in _TABLES:
                used.execute(statement)
            used.execute("INSERT INTO cdc_agent VALUES (?)", (_ALL,))
        # An agent of its own waits for no other transaction.
        self._agent = self._store.connect()
        self._agent.execute("PRAGMA busy_timeout = 0")
        self.enabled = True

    def disable(self) -> None:
        for instance in list(self.instances):
            self.drop(instance)
        with self._store.writing() as used:
            for name in ("cdc_log", "cdc_agent", "cdc_instances"):
                used.execute(f"DROP TABLE {name}")
        if self._agent is not None:
            self._store.release(self._agent)
            self._agent = None
        self.enabled = False

    def find(self, name: str) -> CaptureInstance | None:
        fold = self._store.fold
        return next((i for i in self.instances if fold(i.name) == fold(name)), None)

    def add(self, instance: CaptureInstance) -> None:
        """Lists an instance whose change table exists; it captures from here on."""
        with self._store.writing() as used:
            lsn = commit_lsn(self._note(used, idle=True))
            used.execute("INSERT INTO cdc_instances VALUES (?, ?)", (instance.changes.id, lsn))
        self.instances.append(instance)
        instance.source.captures.append(instance)
        self._store._schema_changed(instance.source)

    def drop(self, instance: CaptureInstance) -> None:
        """Ends an instance; its changes are lost."""
        self.instances.remove(instance)
        instance.source.captures.remove(instance)
        with self._store.writing() as used:
            used.execute("DELETE FROM cdc_instances WHERE id = ?", (instance.changes.id,))
        self._store.drop_table(instance.changes)
        self._store._schema_changed(instance.source)

    # The log

    def _note(self, used: sqlite3.Connection, *, idle: bool) -> int:
        """A new transaction of the log: `idle` is over at once and changed nothing."""
        now = self._clock()
        cursor = used.execute(
            "INSERT INTO cdc_log (began, ended, idle, open, changes, commands) "
            "VALUES (?, ?, ?, ?, 0, 0)",
            (now, now, int(idle), int(not idle)),
        )
        transaction = int(cursor.lastrowid or 0)
        used.execute(
            "UPDATE cdc_log SET lsn = ? WHERE tx = ?", (commit_lsn(transaction), transaction)
        )
        return transaction

    def _current(self, used: sqlite3.Connection) -> tuple[int, int, int]:
        """(transaction, changes, statements) so far of the transaction that writes."""
        row = used.execute("SELECT tx, changes, commands FROM cdc_log WHERE open").fetchone()
        return row or (self._note(used, idle=False), 0, 0)

    def committed(self, used: sqlite3.Connection) -> None:
        """To be called before every COMMIT."""
        if self.instances and used.execute("SELECT 1 FROM cdc_log WHERE open").fetchone():
            used.execute("UPDATE cdc_log SET open = 0, ended = ? WHERE open", (self._clock(),))

    def changed(self, table: TableDef, used: sqlite3.Connection, images: Sequence[_Image]) -> None:
        """Writes the changes of one statement: (row before, row after), None for none."""
        images = [(before, after) for before, after in images if before != after]
        if not images:
            return
        transaction, count, commands = self._current(used)
        for instance in table.captures:
            writer = _Writer(instance, transaction, commands + 1)
            rows = writer.rows(images, count)
            marks = ", ".join("?" * len(instance.changes.columns))
            statement = f"INSERT INTO {instance.changes.sql} VALUES ({marks})"
            added = used.executemany(statement, rows).rowcount
            self._store._counted(instance.changes, added)
        used.execute(
            "UPDATE cdc_log SET changes = ?, commands = ? WHERE tx = ?",
            (count + 2 * len(images), commands + 1, transaction),
        )

    # The agent

    def stop(self) -> None:
        """Stops the agent: what is committed from now on waits for `scan` or `start`."""
        with self._store.writing() as used:
            (seen,) = used.execute(f"SELECT {VISIBLE}").fetchone()
            used.execute("UPDATE cdc_agent SET upto = ?", (seen or NO_LSN,))

    def start(self) -> None:
        """Lets the agent run: every committed change is visible at once."""
        with self._store.writing() as used:
            used.execute("UPDATE cdc_agent SET upto = ?", (_ALL,))

    def scan(self, transactions: int | None = None) -> None:
        """Lets a stopped agent read the log: all of it, or so many transactions."""
        with self._store.writing() as used:
            (upto,) = used.execute("SELECT upto FROM cdc_agent").fetchone()
            if upto == _ALL:
                return
            waiting = "SELECT lsn FROM cdc_log WHERE NOT open AND lsn > ?"
            waiting += "" if transactions is None else " AND NOT idle"
            limit = -1 if transactions is None else transactions
            found = used.execute(f"{waiting} ORDER BY lsn LIMIT ?", (upto, limit)).fetchall()
            if found:
                used.execute("UPDATE cdc_agent SET upto = ?", (found[-1][0],))

    def idle(self) -> None:
        """What the running agent does when nothing happened for five minutes: it notes an LSN."""
        if not self.instances or not self._agent_lock.acquire(blocking=False):
            return
        try:
            # When somebody else writes, something happens.
            with contextlib.suppress(sqlite3.OperationalError):
                self._note_time()
        finally:
            self._agent_lock.release()

    def _note_time(self) -> None:
        assert self._agent is not None
        (upto,) = self._agent.execute("SELECT upto FROM cdc_agent").fetchone()
        newest = f"SELECT (SELECT ended FROM cdc_log WHERE lsn = {VISIBLE})"
        (ended,) = self._agent.execute(newest).fetchone()
        if upto == _ALL and (ended is None or self._clock() - ended >= _IDLE_TICKS):
            with self._store.writing(self._agent) as used:
                self._note(used, idle=True)

    def function(self, name: str) -> tuple[int, CaptureInstance] | None:
        """(id, instance) of a function of the schema cdc."""
        fold = self._store.fold
        for instance in self.instances:
            for own, number in instance.functions.items():
                if fold(own) == fold(name):
                    return number, instance
        return None

    def knows(self, lsn: bytes) -> bool:
        """Whether the LSN is one of a transaction that the agent has seen."""
        with self._store.writing() as used:
            known = f"SELECT 1 FROM cdc_log WHERE lsn = ? AND NOT open AND lsn <= {VISIBLE}"
            return used.execute(known, (lsn,)).fetchone() is not None

    def clean_up(self, instance: CaptureInstance | None = None, lsn: bytes | None = None) -> bytes:
        """Forgets the changes below `lsn`, which becomes the lowest of the instance or of all.

        Without an LSN everything so far is forgotten. Returns the LSN.
        """
        with self._store.writing() as used:
            if lsn is None:
                (upto,) = used.execute("SELECT upto FROM cdc_agent").fetchone()
                if upto == _ALL:
                    self._note(used, idle=True)
                (lsn,) = used.execute(f"SELECT {VISIBLE}").fetchone()
            low: bytes = lsn or NO_LSN
            for one in [instance] if instance else self.instances:
                used.execute(f"DELETE FROM {one.changes.sql} WHERE c1 < ?", (low,))
                used.execute(
                    "UPDATE cdc_instances SET start_lsn = max(start_lsn, ?) WHERE id = ?",
                    (low, one.changes.id),
                )
            used.execute(
                "DELETE FROM cdc_log WHERE lsn < (SELECT min(start_lsn) FROM cdc_instances)"
            )
        self._store.forget_counts()
        return low


_Image = tuple["Row | None", "Row | None"]


class _Writer:
    """Makes the rows of a change table from the rows of its source."""

    def __init__(self, instance: CaptureInstance, transaction: int, command: int) -> None:
        self._instance, self._transaction, self._command = instance, transaction, command
        places = {c.id: i for i, c in enumerate(instance.source.stored_columns)}
        self._places = [
            None if column.computed is not None else places.get(column.id)
            for column in instance.columns
        ]
        ids = {column.id for column in instance.keys}
        self._keys = [i for i, column in enumerate(instance.columns) if column.id in ids]

    def rows(self, images: Sequence[_Image], count: int) -> Iterator[Row]:
        for number, (old, new) in enumerate(images):
            place = count + 2 * number
            if old is not None and new is not None:
                yield from self._updated(self._captured(old), self._captured(new), place)
            elif new is not None:
                yield self._row(place, INSERT, self._captured(new), None)
            elif old is not None:
                yield self._row(place, DELETE, self._captured(old), None)

    def _captured(self, row: Row) -> list[Stored]:
        return [None if place is None else row[place] for place in self._places]

    def _updated(self, old: list[Stored], new: list[Stored], place: int) -> Iterator[Row]:
        changed = [i for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
        if set(changed) & set(self._keys):
            yield self._row(place, DELETE, old, None)
            yield self._row(place + 1, INSERT, new, None)
        elif changed:
            yield self._row(place, BEFORE, old, changed)
            yield self._row(place, AFTER, new, changed)

    def _row(
        self, place: int, operation: int, values: list[Stored], changed: list[int] | None
    ) -> Row:
        """One row; `changed` are the places of the columns that an update changed."""
        size = len(values)
        bits = range(size) if changed is None else changed
        mask = sum(1 << bit for bit in bits).to_bytes((size + 7) // 8, "big")
        kept = [
            None if self._is_lost(i, operation, changed or []) else value
            for i, value in enumerate(values)
        ]
        sequence = _record_lsn(self._transaction, place)
        start = commit_lsn(self._transaction)
        return (start, None, sequence, operation, mask, *kept, self._command)

    def _is_lost(self, place: int, operation: int, changed: list[int]) -> bool:
        """Whether the log does not keep a large value of a row as it was."""
        t = self._instance.columns[place].type
        if t.name in ("text", "ntext", "image"):
            return operation in (DELETE, BEFORE)
        large = t.length < 0 and t.name in ("varchar", "nvarchar", "varbinary")
        return large and operation == BEFORE and place not in changed
