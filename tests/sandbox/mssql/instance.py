"""What all sessions of one server share: databases, logins, the clock, permissions."""

from __future__ import annotations

import datetime as dt
import itertools
import shutil
import tempfile
import threading
from pathlib import Path

from tests.sandbox.mssql import types
from tests.sandbox.mssql.catalogue import VIEWS, DatabaseInfo, OpenTransaction
from tests.sandbox.mssql.collation import DEFAULT
from tests.sandbox.mssql.errors import error
from tests.sandbox.mssql.store import Store

_UTC_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)


class Instance:
    """The databases of a server, each in its own file under a temporary folder."""

    def __init__(self, database: str, collation: str, offset_minutes: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mssql-sandbox-"))
        self.offset_minutes = offset_minutes
        self.fixed_utc: dt.datetime | None = None
        self.refused_views: dict[str, list[Exception]] = {}
        self.lock = threading.RLock()
        self._transactions = itertools.count(0x1000)
        self.open_transactions: dict[int, OpenTransaction] = {}
        self.sessions: dict[int, tuple[int, str, str]] = {}  # spid, login, program
        self._stores: dict[str, Store] = {}
        self._infos: list[DatabaseInfo] = []
        for name in ("master", "tempdb", "model", "msdb"):
            self.add_database(name, collation)
        self.add_database(database, collation)
        self.database_info("master").snapshot = True
        self.database_info("msdb").snapshot = True

    def close(self) -> None:
        for store in self._stores.values():
            store.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def add_database(self, name: str, collation: str = DEFAULT) -> DatabaseInfo:
        last = max((info.id for info in self._infos), default=0)
        info = DatabaseInfo(name, last + 1, collation)
        self._infos.append(info)
        return info

    def drop_database(self, name: str) -> None:
        info = self.database_info(name)
        with self.lock:
            self._infos.remove(info)
            store = self._stores.pop(info.name, None)
        if store is not None:
            store.close()
            for path in self.folder.glob(f"db{info.id}.sqlite*"):
                path.unlink()  # the next database may get the same number

    def database_infos(self) -> list[DatabaseInfo]:
        return self._infos

    def database_info(self, name: str) -> DatabaseInfo:
        for info in self._infos:
            if info.name.lower() == name.lower():
                return info
        raise error(911, name)

    def store_of(self, name: str) -> Store:
        """The tables of a database; the file is made at first use."""
        info = self.database_info(name)
        with self.lock:
            if info.name not in self._stores:
                path = self.folder / f"db{info.id}.sqlite"
                self._stores[info.name] = Store(
                    path, info.name, info.collation, self.created, lambda: self.clock()[0]
                )
            return self._stores[info.name]

    def clock(self) -> tuple[int, int]:
        """(UTC in 100 ns ticks, minutes that local time is ahead of UTC)."""
        now = self.fixed_utc or dt.datetime.now(dt.timezone.utc)
        since = now - _UTC_EPOCH
        ticks = types.ticks_of(dt.date(1970, 1, 1))
        ticks += (since.days * 86_400 + since.seconds) * types.TICKS_PER_SECOND
        return ticks + since.microseconds * 10, self.offset_minutes

    def created(self) -> int:
        """The local time as create_date of what is made now."""
        utc, minutes = self.clock()
        return types.fit_ticks(utc + minutes * 600_000_000, types.DATETIME)

    def next_transaction_id(self) -> int:
        return next(self._transactions)

    def begin_transaction(
        self, number: int, database: DatabaseInfo, spid: int, program: str, *, wrote: bool
    ) -> None:
        """Lists a transaction among the open ones, until ``end_transaction``."""
        ticks, offset = self.clock()
        local = ticks + offset * 60 * types.TICKS_PER_SECOND
        begun = OpenTransaction(number, local, database.id, spid, program, wrote)
        with self.lock:
            self.open_transactions[number] = begun

    def end_transaction(self, number: int) -> None:
        with self.lock:
            self.open_transactions.pop(number, None)

    def switch_off_view(self, name: str) -> None:
        """The view does not exist: 208."""
        self.refused_views[self._view(name)] = [error(208, name)]

    def refuse_view(self, name: str, number: int) -> None:
        """The login may not read the view: 229, 262, 297, 300 or 371, in the server's words."""
        schema, view = name.split(".")
        if number == 229:
            problems: list[Exception] = [error(229, "SELECT", view, "mssqlsystemresource", schema)]
        elif number == 262:
            problems = [error(262, "VIEW DATABASE STATE", "master"), error(297)]
        elif number == 300:
            problems = [error(300, "VIEW SERVER STATE"), error(297)]
        else:
            problems = [error(number, name)]
        self.refused_views[self._view(name)] = problems

    def allow_view(self, name: str) -> None:
        self.refused_views.pop(self._view(name), None)

    @staticmethod
    def _view(name: str) -> str:
        if name.lower() not in VIEWS:
            raise KeyError(name)
        return name.lower()
