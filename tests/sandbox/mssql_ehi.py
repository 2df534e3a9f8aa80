"""A simulator of SQL Server with an EHR-like database, as tests/contract and the demo take it."""

import functools
import random
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, ClassVar

from typing_extensions import Self

from .mssql import ColumnSpec, Fragmentation, MssqlSandbox, faults, seed_ehr, types, variant
from .mssql.parser import quote
from .mssql.server import LoggedStatement
from .proxy import Proxy
from .simulator import PAGE, Simulator

# The name of each table at the destination.
TABLES = {
    "archive.Patients": "archive_patients",
    "dbo.AccessLog": "access_log",
    "dbo.Encounters": "encounters",
    "dbo.Medications": "medications",
    "dbo.Orders": "orders",
    "dbo.Patients": "patients",
    "dbo.Providers": "providers",
    "dbo.Results": "results",
    "dbo.Wards": "wards",
}
_AS_TEXT: dict[str, Callable[[Any], Any]] = {
    "uniqueidentifier": lambda value: str(value).lower(),
    "time": lambda value: value.isoformat("microseconds"),
    "hierarchyid": str,
    "datetimeoffset": lambda value: value.astimezone(timezone.utc),
    "sql_variant": lambda stored: _variant_text(stored),
}

# The tables of a small one: one for each way of reading, and one too large to be replaced.
_NAMES = ("tracked", "captured", "timed", "versioned", "counted", "plain", "log", "big")
_SMALL = {f"dbo.{name}": name for name in _NAMES}
_TIMED = ("timed", "counted")  # read by a moment; the key of "counted" is a number, so it is swept
_MARKED = ("tracked", "captured", "timed", "counted", "plain")  # these mark rows as deleted
_REFRESHED = ("timed", "versioned", "big")  # deletes arrive with a full refresh alone
_TRACKED = ("dbo.Orders", "dbo.Providers", "dbo.tracked", "dbo.captured")
_LOOKBACK = 30  # seconds; the moments of the seed are seconds apart
_FEW = 12  # rows, that is: a table of more is not replaced, so its deletes do not arrive
_BEGIN = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
_DATA = r"^SELECT .* FROM (\[dbo\]|CHANGETABLE)"
# Of these only statements that a sync cannot do without: others look whether to read.
_ROWS = (
    r"^SELECT (?!COUNT_BIG|TOP \(1\) 1|\d+ AS number|\S+ MAX\(|MIN\(R|MAX\(R)"
    r".* FROM (\[dbo\]|CHANGETABLE)"
)
_TROUBLES: dict[str, Callable[[int], faults.Fault]] = {
    "deadlock": lambda skip: faults.fail(1205, 60, "lock", match=_DATA, after_rows=1, skip=skip),
    "busy": lambda skip: faults.fail(40501, "x", 0, match=_DATA, skip=skip, times=2),
    "drop": lambda skip: faults.drop(after_rows=1, skip=skip),
    "cut": lambda skip: faults.drop(_DATA, after_rows=2, cut="row", skip=skip),
    "packet": lambda skip: faults.drop(_DATA, after_rows=1, cut="packet", skip=skip),
}
_REFUSALS: dict[str, Callable[[int], faults.Fault]] = {
    "denied": lambda skip: faults.fail(229, "SELECT", "t", "EHR", "dbo", match=_ROWS, skip=skip),
    "down": lambda skip: faults.fail(40501, "x", 0, match=_DATA, skip=skip, times=99),
}


class MssqlEhi(Simulator):
    """An EHR-like database with a table for every way of reading one. ``server`` may be asked for
    anything that MssqlSandbox does."""

    name = "mssql_ehi"
    addresses = ("mssql_port", "mssql_ca_certificate", "mssql_user", "mssql_password")
    tables = ("SYNC_VALIDATION", "SYNC_VALIDATION_TABLES")
    limits: ClassVar = {
        "mssql_ehi_connector.BATCH_SIZE": PAGE,
        "mssql_ehi_connector.CHECKPOINT_INTERVAL": 4,
        "sqlserver.checkpoints.ROWS_A_TABLE": 0,
        "sqlserver.table_sync.SMALL": _FEW,
        "sqlserver.sweep.KEYS_OF_A_STATEMENT": 3,
        "sqlserver.sweep._DELETED_AT_ONCE": 2,
    }
    troubles = tuple(_TROUBLES)
    refusals = tuple(_REFUSALS)
    hostilities = ("cut-off", "reset", "stalled")
    lists_deletes = ()  # each of its ways to find deletes has tests of its own

    def __init__(self, *, patients: int = 40) -> None:
        self.server = MssqlSandbox()
        self.options: dict[str, str] = {}
        self._patients = patients
        self._stored = TABLES
        self._number = 0
        self._before: dict[tuple[str, int], Any] = {}  # what rows held before their last change
        self._proxy: Proxy | None = None
        self._former: list[dict[str, Any]] = []  # what rows of the swept table were
        self._was_set_back = self._is_syncing = False

    def start(self, port: int = 0) -> Self:
        self.server.port = port
        self.server.start()
        if self._stored == TABLES:
            seed_ehr(self.server, patients=self._patients)
            self._create_more()
        else:
            self._create_small()
        self.url = f"{self.server.host}:{self.server.port}"
        return self

    def _create_more(self) -> None:
        """What the seed has none of: Change Tracking, Change Data Capture, and a rowversion
        without a time."""
        self.server.info.tracking = True
        self.server.execute("ALTER TABLE dbo.Orders ENABLE CHANGE_TRACKING")
        self.server.enable_cdc("dbo.Providers")
        columns = [ColumnSpec("Name", "nvarchar(40)", nullable=False), ColumnSpec("Beds", "int")]
        columns += [ColumnSpec("RowVer", "rowversion")]
        wards = [("Cardiology", 12), ("Oncology", 20), ("Emergency", 8)]
        self.server.create_table("dbo", "Wards", columns, key=["Name"], rows=wards)

    def stop(self) -> None:
        self.server.stop()

    @property
    def requests(self) -> list[LoggedStatement]:  # type: ignore[override]
        """The statements that read a table's rows."""
        return [s for s in self.server.statements if re.search(r" FROM \[(dbo|archive)\]", s.sql)]

    def describe(self, request: LoggedStatement) -> str | None:
        return " ".join(request.sql.split())

    def configuration(self, **changes: str) -> dict[str, str]:
        return {
            "mssql_server": self.server.host,
            "mssql_port": str(self.server.port),
            "mssql_database": self.server.database,
            "mssql_user": self.server.user,
            "mssql_password": self.server.password,
            "mssql_ca_certificate": self.server.ca_pem,
            "lookback_seconds": str(_LOOKBACK),
            **self.options,
            **({"mssql_port": str(self._proxy.port)} if self._proxy else {}),
            **changes,
        }

    def expected(self) -> dict[str, list[dict[str, Any]]]:
        """Without the rows that are marked as deleted, where the connector knows the mark."""
        found = {stored: self._rows(table) for table, stored in self._stored.items()}
        if not self.options.get("deleted_column"):
            return found
        return {
            stored: [row for row in rows if not row.get("gone")] for stored, rows in found.items()
        }

    def fill(self, count: int) -> None:
        """Of a small one. No list has pages here: a table is read in batches of so many rows."""
        for name in _SMALL.values():
            self.server.delete(f"dbo.{name}")
            for _ in range(count):
                self._insert(name)

    def resent(self) -> dict[str, int]:
        """Tables that tell no changes, and the look-back of those that have a time."""
        sent = {"sync_validation": 1, "sync_validation_tables": len(self._stored)}
        for table, stored in self._stored.items():
            kinds = {column.name: column.type.name for column in self.server.table(table).columns}
            if table in _TRACKED:
                continue
            if "ModifiedDate" in kinds:
                rows = self.server.execute(f"SELECT ModifiedDate FROM {table}")  # noqa: S608
                moments = [moment for (moment,) in rows if moment]
                # A `smalldatetime` has minutes, so its cursor does, too.
                spare = 60 if kinds["ModifiedDate"] == "smalldatetime" else 1
                begin = min(max(moments), self._now()) - timedelta(seconds=_LOOKBACK + spare)
                sent[stored] = sum(moment >= begin for moment in moments)
            elif "rowversion" not in kinds.values():
                sent[stored] = self.server.count(table)
        return sent

    def place(self, text: str, more: Any) -> list[str]:
        """In a small one. ``more`` has no place: there is no JSON."""
        for table in ("dbo.tracked", "dbo.plain"):
            self.server.execute(f"ALTER TABLE {table} ADD note nvarchar(max) NULL")
            [[part], *_] = self.server.execute(f"SELECT part FROM {table}")  # noqa: S608
            self.server.update(table, {"part": part}, note=text)
        return []

    def be_odd(self) -> None:
        """Text that looks like another type, and a column that holds any type."""
        texts = ("12", "1e5", "true", "2026-11-20", "NaN", "null", "")
        variants = (7, Decimal("7.50"), "seven", True, 7.5, _BEGIN.replace(tzinfo=None))
        for number, table in enumerate(self._stored):
            found = self.server.table(table)
            names = [c.name for c in found.columns if c.nullable and c.type.name == "nvarchar"]
            # Rows that have no key would all be the same.
            odd: dict[str, Any] = dict.fromkeys(names, texts[number % 7])
            odd = {} if table == "dbo.AccessLog" else odd
            if "ModifiedDate" in {column.name for column in found.columns}:
                odd["ModifiedDate"] = self._now()
            self.server.execute(f"ALTER TABLE {table} ADD Anything sql_variant NULL")
            self.server.update(table, {}, **odd, Anything=variants[number % 6])

    def _now(self) -> datetime:
        moment = self.server.instance.fixed_utc or datetime.now(timezone.utc)
        return moment.replace(microsecond=0, tzinfo=None)

    def spoil(self) -> None:
        self.server.faults.add(faults.bad_row(match=_DATA, times=10**6))

    def change_something(self) -> None:
        now = datetime.now(timezone.utc).replace(microsecond=0, tzinfo=None)
        server = self.server
        server.update("dbo.Patients", {"PatientKey": 3}, LastName="Łukaszewicz", ModifiedDate=now)
        server.update("dbo.Results", {"OrderNumber": 2}, Value=Decimal("7.5"), ModifiedDate=now)
        server.insert("dbo.Providers", [(9_000, "0000000009", "Nová", "Cardiology", now)])
        server.delete("dbo.Providers", {"ProviderId": 2})
        server.insert("archive.Patients", [(9_000, "Nový", "2026-01-31")])
        server.delete("archive.Patients", {"PatientKey": 1})
        server.delete("dbo.AccessLog", {"Action": "write"})
        server.update("dbo.Orders", {"OrderNumber": 4}, Quantity=2.5)
        server.delete("dbo.Orders", {"OrderNumber": 5})
        server.update("dbo.Wards", {"Name": "Oncology"}, Beds=21)

    def empty(self) -> None:
        for table in self._stored:
            self.server.delete(table)

    def secrets(self) -> set[str]:
        found = {self.server.password}
        for table, column in (("Patients", "MRN"), ("Orders", "OrderGuid"), ("Providers", "NPI")):
            rows = self.server.execute(f"SELECT [{column}] FROM dbo.{table}")  # noqa: S608
            found |= {str(value) for (value,) in rows}
        return found

    # For generated schedules

    @classmethod
    def small(cls, draw: random.Random) -> Self:
        made = cls()
        made._stored = _SMALL
        made.server.info.snapshot = draw.random() < 0.5
        made.server.set_clock(_BEGIN)
        if draw.random() < 0.5:
            made.server.fragmentation = Fragmentation((20, 300), (7, 1000), draw.randint(0, 99))
        made.options = {
            "mssql_encrypt": "false",  # the time that TLS takes is better spent on schedules
            "query_timeout_seconds": "1",
            "login_timeout_seconds": "1",
            "parallel_tables": draw.choice(("1", "1", "3")),
            "slice_rows": draw.choice(("500000", "3")),
            "delete_sweep_hours": draw.choice(("24", "1")),
            "full_refresh_hours": draw.choice(("0", "24", "big=1, dbo.t*=24, 1")),
            "deleted_column": draw.choice(("", "gone")),
        }
        return made

    def _create_small(self) -> None:
        server, key = self.server, ("id", "varchar(20)", False)
        value = ("v", "nvarchar(40)")
        extra: dict[str, list[Any]] = {
            **{name: [("ModifiedDate", "datetime2(7)")] for name in _TIMED},
            "versioned": [ColumnSpec("version", "rowversion")],
        }
        for name in _SMALL.values():
            keys = {"log": [], "counted": ["part"]}.get(name, ["id", "part"])
            columns = [key, ("part", "int", False), value, *extra.get(name, [])]
            columns += [("gone", "bit")] if name in _MARKED else []
            server.create_table("dbo", name, columns, key=keys)
            for _ in range(_FEW + 5 if name == "big" else 7):
                self._insert(name)
        server.info.tracking = True
        server.execute("ALTER TABLE dbo.tracked ENABLE CHANGE_TRACKING")
        server.enable_cdc("dbo.captured")

    def _insert(self, name: str, draw: random.Random | None = None) -> None:
        self._number += 1
        number = self._number
        if name == "counted" and draw and draw.random() < 0.4 and not self._is_syncing:
            live = {part for (part,) in self.server.execute("SELECT part FROM dbo.counted")}
            number = next((r["part"] for r in self._former if r["part"] not in live), number)
        row: dict[str, Any] = {"id": f"k{number // 3}", "part": number, "v": "né"}
        self.server.insert(f"dbo.{name}", [{**row, **self._touched(name, draw)}])

    def _touched(self, name: str, draw: random.Random | None = None) -> dict[str, Any]:
        """The moment of a change: now or, by ``draw``, the greatest that was there before."""
        now = self.server.instance.fixed_utc
        if name not in _TIMED or not now:
            return {}
        [[greatest]] = self.server.execute(f"SELECT MAX(ModifiedDate) FROM dbo.{name}")  # noqa: S608
        late = draw is not None and greatest is not None and draw.random() < 0.3
        return {"ModifiedDate": greatest if late else now.replace(tzinfo=None)}

    def mutate(self, draw: random.Random, *, deletes: bool = True) -> None:
        server, name = self.server, draw.choice(list(_SMALL.values()))
        table = f"dbo.{name}"
        count, kinds = server.count(table), ["insert", "insert", "change", "change", "column"]
        parts = server.execute(f"SELECT part FROM {table} ORDER BY part")  # noqa: S608
        if deletes and self._brings_deletes(name):
            kinds += ["delete"] * 2 if 1 < count < _FEW - 1 or name == "big" else []
            if count >= _FEW - 1 and name not in ("tracked", "captured", "big"):
                kinds = ["change", "delete"]
        if name in _MARKED:
            kinds += ["mark"]
        kind, where = draw.choice(kinds), {"part": draw.choice(parts)[0]}
        if name == "counted" and kind != "insert":
            self._former += [row for row in self._rows(table) if row["part"] == where["part"]]
        if kind == "insert":
            self._insert(name, draw)
        elif kind == "delete":
            server.delete(table, where)
        elif kind == "mark":
            self._mark(name, where["part"])
        elif kind == "column" and len(server.table(table).columns) < 7:
            self._number += 1
            new = "more" + "abcdefgh"[len(server.table(table).columns)]
            server.execute(f"ALTER TABLE {table} ADD {new} int NULL")
            # A column that is added is not captured: its changes alone are not told.
            told = {"v": str(draw.random())} if name == "captured" else self._touched(name)
            server.update(table, where, **{new: self._number}, **told)
        else:
            [[before]] = server.execute(
                f"SELECT v FROM {table} WHERE part = {where['part']}"  # noqa: S608
            )
            self._before[name, where["part"]] = before
            server.update(table, where, v=str(draw.random()), **self._touched(name, draw))

    def _brings_deletes(self, name: str) -> bool:
        return name not in _REFRESHED or self.options["full_refresh_hours"] != "0"

    def _mark(self, name: str, part: int) -> None:
        """Marks a row as deleted, or takes the mark away. While a sync is under way it does not:
        the row might be there again when it has been deleted at the destination."""
        [[marked]] = self.server.execute(f"SELECT gone FROM dbo.{name} WHERE part = {part}")  # noqa: S608
        rows = [row for row in self._rows(f"dbo.{name}") if not row["gone"]]
        if (marked and not self._is_syncing) or (not marked and len(rows) > 2):
            mark = {"gone": int(not marked)}
            self.server.update(f"dbo.{name}", {"part": part}, **mark, **self._touched(name))

    def set_back(self) -> None:
        self._was_set_back = True

    def remembered(self) -> dict[str, list[dict[str, Any]]]:
        """An earlier state does not know all keys that were delivered, and a sync that does not
        know the mark stores rows that have it."""
        if not self._was_set_back:
            return {}
        kept = {
            name: [row for row in self._rows(f"dbo.{name}") if row["gone"]] for name in _MARKED
        }
        # Columns may have come since a row went.
        names = [_stored(column.name) for column in self.server.table("dbo.counted").columns]
        gone = [{**dict.fromkeys(names), **row} for row in self._former]
        return {**kept, "counted": [*kept["counted"], *gone]}

    def restore(self, draw: random.Random) -> bool:
        """In a table that is read in full, so that the next sync finds it."""
        full = [(name, part) for name, part in self._before if name in ("plain", "log")]
        if full:
            name, part = draw.choice(sorted(full))
            self.server.update(f"dbo.{name}", {"part": part}, v=self._before[name, part])
        return False

    def trouble(self, kind: str, number: int) -> None:
        self.server.faults.add({**_TROUBLES, **_REFUSALS}[kind](number - 1))

    def typed(self, kind: str) -> None:
        """Before the first row: a statement may find none, and never come to what follows one."""
        fault = {**_TROUBLES, **_REFUSALS}[kind](0)
        self.server.faults.add(replace(fault, match=_ROWS, after_rows=0))

    def at_request(self, number: int, act: Callable[[], object]) -> None:
        def during() -> None:
            self._is_syncing = True
            act()
            self._is_syncing = False

        self.server.faults.add(faults.call(during, match=_DATA, skip=number - 1))

    def be_hostile(self, kind: str, draw: random.Random) -> None:
        after = int(10 ** draw.uniform(1, 4.7))  # bytes; a sync takes some 50,000
        how = kind.partition("-")[0]
        self._proxy = Proxy(self.server.port, how, after, draw.choice((1, 7, 100, 65_536)))

    def calm(self) -> None:
        if self._proxy:
            self._proxy.close()
            self._proxy = None
        self.server.faults.clear()
        self.server.drop_connections()

    def set_clock(self, seconds: float) -> None:
        self.server.set_clock(_BEGIN + timedelta(seconds=seconds))

    def _rows(self, table: str) -> list[dict[str, Any]]:
        columns = self.server.table(table).columns
        convert = [_AS_TEXT.get(column.type.name, lambda value: value) for column in columns]
        read = ", ".join(quote(column.name) for column in columns)
        return [
            {
                _stored(column.name): None if value is None else as_stored(value)
                for column, value, as_stored in zip(columns, row, convert, strict=True)
            }
            for row in self.server.execute(f"SELECT {read} FROM {table}")  # noqa: S608
        ]


def _variant_text(stored: bytes) -> str:
    """What a sql_variant becomes at the destination."""
    value = types.to_python(*variant.unpack(stored))
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return value.isoformat() if isinstance(value, datetime) else str(value)


@functools.cache
def _stored(column: str) -> str:
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", re.sub(r"\W", "_", column))
    return re.sub("_+", "_", parted).lower()
