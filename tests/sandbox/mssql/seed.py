"""An EHR-like database of any size, the same for the same seed."""

from __future__ import annotations

import datetime as dt
import functools
import random
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from faker import Faker

from tests.sandbox.mssql.server import ColumnSpec

# What warehouses of the Caboodle kind write for "unknown", "not yet" and "for ever".
SENTINELS = (dt.datetime(1979, 1, 1), dt.datetime(2099, 12, 31), dt.datetime(9999, 12, 31))
COST_COLUMN = "Total ] Cost (USD)"
_START = dt.datetime(2023, 1, 1)
_Columns = list[ColumnSpec | tuple[str, str] | tuple[str, str, bool]]
_POOL = 400  # Faker is slow: names come from a pool of this many


class Tables(Protocol):
    """What the seed needs of a server; the sandbox and the adapter have it."""

    def create_table(
        self,
        schema: str,
        name: str,
        columns: Iterable[ColumnSpec | tuple[str, str] | tuple[str, str, bool]],
        *,
        key: Sequence[str] = (),
        unique: Sequence[Sequence[str]] = (),
        indexes: Sequence[Sequence[str]] = (),
        clustered: bool = True,
        rows: Iterable[Any] = (),
    ) -> Any: ...


@dataclass(frozen=True)
class Seeded:
    """How many rows each table got, by `schema.table`."""

    rows: dict[str, int]


@functools.cache
def _texts(seed: int) -> tuple[list[str], list[str], list[str], list[str]]:
    """First names, last names, sentences and names of drugs."""
    fake = Faker(["en_US", "de_DE", "ja_JP", "pl_PL"])
    fake.seed_instance(seed)
    return (
        [fake.first_name() for _ in range(_POOL)],
        [fake.last_name() for _ in range(_POOL)],
        [fake["en_US"].sentence() for _ in range(_POOL)],
        [fake["en_US"].unique.word().title() + "ol" for _ in range(60)],
    )


class _Source:
    """Random values, all drawn from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.first, self.last, self.words, self.drugs = _texts(seed)

    def guid(self) -> uuid.UUID:
        return uuid.UUID(int=self.random.getrandbits(128), version=4)

    def name(self) -> tuple[str, str]:
        return self.random.choice(self.first), self.random.choice(self.last)

    def maybe(self, value: Any, chance: float = 0.8) -> Any:
        return value if self.random.random() < chance else None

    def modified(self, number: int) -> dt.datetime:
        """Grows with `number`, ten rows to a moment, with some sentinels in between."""
        if self.random.random() < 0.002:
            return self.random.choice(SENTINELS)
        return _START + dt.timedelta(seconds=number // 10 * 37, microseconds=number // 10 % 997)


def seed_ehr(server: Tables, patients: int = 100, seed: int = 1) -> Seeded:
    """Creates and fills the tables; about 12 rows in all for each patient.

    dbo: Providers, Patients, Encounters (composite key), Orders (uniqueidentifier key), Results
    (composite), Medications (varchar key, rowversion), AccessLog (no key). archive: Patients, a
    second table of that name.
    """
    source = _Source(seed)
    counts: dict[str, int] = {}

    def counted(name: str, rows: Iterable[Any]) -> Iterator[Any]:
        counts[name] = 0
        for row in rows:
            counts[name] += 1
            yield row

    providers = max(patients // 20, 3)
    for schema, name, columns, options, rows in (
        ("dbo", "Providers", _PROVIDERS, {"key": ["ProviderId"]}, _providers(source, providers)),
        ("dbo", "Medications", _MEDICATIONS, {"key": ["MedicationCode"]}, _medications(source)),
        ("dbo", "Patients", _PATIENTS, _PATIENT_KEYS, _patients(source, patients)),
        ("archive", "Patients", _ARCHIVED, {"key": ["PatientKey"]}, _archived(source, patients)),
        (
            "dbo",
            "Encounters",
            _ENCOUNTERS,
            _ENCOUNTER_KEYS,
            _encounters(source, patients, providers),
        ),
        ("dbo", "Orders", _ORDERS, {"key": ["OrderGuid"]}, _orders(source, patients)),
        (
            "dbo",
            "Results",
            _RESULTS,
            {"key": ["OrderNumber", "LineNumber"]},
            _results(source, patients),
        ),
        ("dbo", "AccessLog", _ACCESS_LOG, {}, _access_log(source, patients)),
    ):
        options_any: dict[str, Any] = dict(options)
        full = f"{schema}.{name}"
        server.create_table(schema, name, columns, rows=counted(full, rows), **options_any)
    return Seeded(counts)


_PROVIDERS: _Columns = [
    ("ProviderId", "int", False), ("NPI", "char(10)", False), ("Name", "nvarchar(100)"),
    ("Specialty", "varchar(50)"), ("ModifiedDate", "datetime", False),
]  # fmt: skip


def _providers(s: _Source, count: int) -> Iterator[Any]:
    kinds = ["Cardiology", "Oncology", "Family Medicine", "Médecine générale"]
    for i in range(count):
        name = " ".join(s.name())
        yield (
            i + 1,
            f"{s.random.randrange(10**10):010d}",
            name,
            s.random.choice(kinds),
            s.modified(i),
        )


_MEDICATIONS: _Columns = [
    ("MedicationCode", "varchar(20)", False), ("Name", "nvarchar(100)", False),
    ("Price", "smallmoney"), ("Strength", "real"), ("Leaflet", "xml"), ("Extra", "sql_variant"),
    ("RowVer", "rowversion"), ("ModifiedDate", "smalldatetime"),
]  # fmt: skip


def _medications(s: _Source) -> Iterator[Any]:
    for i, drug in enumerate(s.drugs):
        code = f"{drug[:3].upper()}-{i:03d}" if i % 2 else f"{drug[:3].lower()}{i:03d}"
        extra: Any = [None, i, f"text {i}", Decimal(i) / 8][i % 4]
        price = Decimal(s.random.randrange(1, 10**6)) / 100
        yield (code, drug, price, s.random.choice([0.5, 2.5, 100.0]), f"<leaflet n='{i}'/>", extra,
               s.modified(i))  # fmt: skip


_PATIENTS: _Columns = [
    ("PatientKey", "bigint", False), ("PatientGuid", "uniqueidentifier", False),
    ("MRN", "varchar(20)", False), ("FirstName", "nvarchar(50)"), ("LastName", "nvarchar(50)"),
    ("BirthDate", "date"), ("DeathDate", "date"), ("WeightKg", "decimal(9, 3)"),
    ("Balance", "money"), ("IsActive", "bit", False), ("Notes", "nvarchar(max)"),
    ("ModifiedDate", "datetime2(7)", False),
]  # fmt: skip
_PATIENT_KEYS = {
    "key": ["PatientKey"],
    "unique": [["MRN"]],
    "indexes": [["ModifiedDate", "PatientKey"]],
}


def _patients(s: _Source, count: int) -> Iterator[Any]:
    for i in range(count):
        first, last = s.name()
        born = dt.date(1930, 1, 1) + dt.timedelta(days=s.random.randrange(33_000))
        died = s.random.choice([None, None, None, dt.date(9999, 12, 31), dt.date(2022, 5, 6)])
        weight = s.maybe(Decimal(s.random.randrange(2_000, 150_000)) / 1000)
        balance = Decimal(s.random.randrange(-(10**8), 10**8)) / 10_000
        yield (i + 1, s.guid(), f"MRN{i:09d}", first, s.maybe(last, 0.95), born, died, weight,
               balance, i % 9 > 0, s.maybe(s.random.choice(s.words) + " 🩺", 0.3),
               s.modified(i))  # fmt: skip


_ARCHIVED: _Columns = [
    ("PatientKey", "bigint", False), ("LastName", "nvarchar(50)"), ("ArchivedOn", "date", False),
]  # fmt: skip


def _archived(s: _Source, count: int) -> Iterator[Any]:
    for i in range(count // 10):
        yield i + 1, s.name()[1], dt.date(1979, 1, 1) + dt.timedelta(days=i)


_ENCOUNTERS: _Columns = [
    ("PatientKey", "bigint", False), ("EncounterNumber", "int", False),
    ("StartDate", "datetime2(3)", False), ("EndDate", "datetime2(3)", False),
    ("ProviderId", "int"), ("Kind", "varchar(20)", False), (COST_COLUMN, "decimal(19, 4)"),
    ("ModifiedDate", "datetime", False),
]  # fmt: skip
_ENCOUNTER_KEYS = {
    "key": ["PatientKey", "EncounterNumber"],
    "indexes": [["ModifiedDate", "PatientKey", "EncounterNumber"]],
}


def _encounters(s: _Source, patients: int, providers: int) -> Iterator[Any]:
    for i in range(patients * 3):
        start = _START + dt.timedelta(minutes=i, milliseconds=i % 1000)
        end = s.maybe(start + dt.timedelta(hours=2), 0.7) or dt.datetime(9999, 12, 31)
        kind = s.random.choice(["Inpatient", "Outpatient", "ED", "Télé"])
        cost = s.maybe(Decimal(s.random.randrange(10**9)) / 10_000)
        provider = s.random.randrange(providers) + 1
        yield i // 3 + 1, i % 3 + 1, start, end, provider, kind, cost, s.modified(i)


_ORDERS: _Columns = [
    ("OrderGuid", "uniqueidentifier", False), ("OrderNumber", "bigint", False),
    ("PatientKey", "bigint", False), ("MedicationCode", "varchar(20)"),
    ("OrderedAt", "datetimeoffset(7)", False), ("Quantity", "float"), ("Instructions", "ntext"),
    ("Path", "hierarchyid"), ("ModifiedDate", "datetime2(7)", False),
]  # fmt: skip


def _orders(s: _Source, patients: int) -> Iterator[Any]:
    zones = [
        dt.timezone.utc,
        dt.timezone(dt.timedelta(hours=-5)),
        dt.timezone(dt.timedelta(hours=5.5)),
    ]
    for i in range(patients * 2):
        at = (_START + dt.timedelta(minutes=i * 7)).replace(tzinfo=s.random.choice(zones))
        note = s.maybe(s.random.choice(s.words), 0.5)
        yield (s.guid(), i + 1, i // 2 + 1, s.random.choice(s.drugs)[:3], at,
               s.random.random() * 10, note, f"/{i % 50 + 1}/{i % 7}/", s.modified(i))  # fmt: skip


_RESULTS: _Columns = [
    ("OrderNumber", "bigint", False), ("LineNumber", "smallint", False),
    ("Value", "decimal(38, 10)"), ("Unit", "nvarchar(20)"), ("Comment", "varchar(max)"),
    ("Raw", "varbinary(max)"), ("TakenAt", "time(7)"), ("Flag", "tinyint"),
    ("ModifiedDate", "datetime2(7)"),
]  # fmt: skip


def _results(s: _Source, patients: int) -> Iterator[Any]:
    for i in range(patients * 5):
        value = s.maybe(Decimal(s.random.randrange(-(10**12), 10**12)) / 10**6)
        taken = dt.time(i % 24, i % 60, i % 59, i % 10**6)
        raw = s.maybe(s.random.randbytes(i % 40), 0.2)
        modified = s.maybe(s.modified(i), 0.98)
        yield (i // 5 + 1, i % 5 + 1, value, s.random.choice(["mg/dl", "µmol/l", "°C", None]),
               s.maybe(s.random.choice(s.words), 0.3), raw, taken, i % 3, modified)  # fmt: skip


_ACCESS_LOG: _Columns = [
    ("At", "datetime2(0)", False),
    ("Who", "nvarchar(60)"),
    ("Action", "varchar(20)"),
]


def _access_log(s: _Source, patients: int) -> Iterator[Any]:
    for i in range(patients):
        at = _START + dt.timedelta(seconds=i // 4)
        yield at, s.random.choice(s.first), s.random.choice(["read", "write", None])
