"""A stand-in of SQL Server with an EHR-like database, as the battery and the demo take it."""

import re
from collections.abc import Callable
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any

from typing_extensions import Self

from .mssql import ColumnSpec, MssqlSandbox, seed_ehr
from .mssql.parser import quote
from .mssql.server import LoggedStatement
from .standin import StandIn

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
}

_READ = {"sql_variant": "CONVERT(nvarchar(4000), {})"}


class MssqlEhi(StandIn):
    """An EHR-like database with a table for every way of reading one. ``server`` may be asked for
    anything that MssqlSandbox does."""

    name = "mssql_ehi"
    addresses = ("mssql_port", "mssql_ca_certificate", "mssql_user", "mssql_password")
    tables = ("SYNC_VALIDATION", "SYNC_VALIDATION_TABLES")

    def __init__(self, *, patients: int = 40) -> None:
        self.server = MssqlSandbox()
        self._patients = patients

    def start(self, port: int = 0) -> Self:
        self.server.port = port
        self.server.start()
        seed_ehr(self.server, patients=self._patients)
        self.server.info.tracking = True
        self.server.execute("ALTER TABLE dbo.Orders ENABLE CHANGE_TRACKING")
        columns = [ColumnSpec("Name", "nvarchar(40)", nullable=False), ColumnSpec("Beds", "int")]
        columns += [ColumnSpec("RowVer", "rowversion")]
        wards = [("Cardiology", 12), ("Oncology", 20), ("Emergency", 8)]
        self.server.create_table("dbo", "Wards", columns, key=["Name"], rows=wards)
        self.url = f"{self.server.host}:{self.server.port}"
        return self

    def stop(self) -> None:
        self.server.stop()

    @property
    def requests(self) -> list[LoggedStatement]:  # type: ignore[override]
        """The statements that read a table's rows."""
        return [s for s in self.server.statements if re.search(r" FROM \[(dbo|archive)\]", s.sql)]

    def configuration(self, **changes: str) -> dict[str, str]:
        return {
            "mssql_server": self.server.host,
            "mssql_port": str(self.server.port),
            "mssql_database": self.server.database,
            "mssql_user": self.server.user,
            "mssql_password": self.server.password,
            "mssql_ca_certificate": self.server.ca_pem,
            "lookback_seconds": "30",  # the moments of the seed are seconds apart
            **changes,
        }

    def expected(self) -> dict[str, list[dict[str, Any]]]:
        return {stored: self._rows(table) for table, stored in TABLES.items()}

    def change_something(self) -> None:
        now = datetime.now(timezone.utc).replace(microsecond=0, tzinfo=None)
        server = self.server
        server.update("dbo.Patients", {"PatientKey": 3}, LastName="Łukaszewicz", ModifiedDate=now)
        server.update("dbo.Results", {"OrderNumber": 2}, Value=Decimal("7.5"), ModifiedDate=now)
        server.insert("dbo.Providers", [(9_000, "0000000009", "Nová", "Cardiology", now)])
        server.insert("archive.Patients", [(9_000, "Nový", "2026-01-31")])
        server.delete("archive.Patients", {"PatientKey": 1})
        server.delete("dbo.AccessLog", {"Action": "write"})
        server.update("dbo.Orders", {"OrderNumber": 4}, Quantity=2.5)
        server.delete("dbo.Orders", {"OrderNumber": 5})
        server.update("dbo.Wards", {"Name": "Oncology"}, Beds=21)

    def empty(self) -> None:
        for table in TABLES:
            self.server.delete(table)

    def secrets(self) -> set[str]:
        found = {self.server.password}
        for table, column in (("Patients", "MRN"), ("Orders", "OrderGuid"), ("Providers", "NPI")):
            rows = self.server.execute(f"SELECT [{column}] FROM dbo.{table}")  # noqa: S608
            found |= {str(value) for (value,) in rows}
        return found

    def _rows(self, table: str) -> list[dict[str, Any]]:
        columns = self.server.table(table).columns
        convert = [_AS_TEXT.get(column.type.name, lambda value: value) for column in columns]
        read = ", ".join(_READ.get(c.type.name, "{}").format(quote(c.name)) for c in columns)
        return [
            {
                _stored(column.name): None if value is None else as_stored(value)
                for column, value, as_stored in zip(columns, row, convert, strict=True)
            }
            for row in self.server.execute(f"SELECT {read} FROM {table}")  # noqa: S608
        ]


def _stored(column: str) -> str:
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", re.sub(r"\W", "_", column))
    return re.sub("_+", "_", parted).lower()
