# ruff: noqa: S608 - names are quoted, values are parameters
"""The create and insert interface over T-SQL, so that one test runs against any server.

It has been run against the simulator only, not against a real SQL Server.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import pytds

from tests.sandbox.mssql import script
from tests.sandbox.mssql.parser import name_parts, quote
from tests.sandbox.mssql.server import ColumnSpec, MssqlSandbox

_CAPTURED_NOW = "SELECT 1 AS x FROM sys.databases WHERE name = DB_NAME() AND is_cdc_enabled = 1"
_MAX_PARAMETERS = 2000  # the server takes 2,100 in one request


class RealServer:
    """A scratch database on a server that is already there; dropped at the end.

    Has `host`, `port`, `user`, `password`, `database` and the data methods of MssqlSandbox;
    faults, certificates and the clock belong to the simulator alone. Nothing is encrypted.
    """

    ca_pem = ""

    def __init__(
        self,
        host: str,
        port: int,
        user: str,
        password: str,
        *,
        snapshot: bool = True,
    ) -> None:
        self.host, self.port, self.user, self.password = host, port, user, password
        self.database = f"sandbox_{uuid.uuid4().hex[:12]}"
        self._snapshot = snapshot
        self._columns: dict[tuple[str, str], list[ColumnSpec]] = {}
        self._connection: Any = None
        self._captured = False

    def __enter__(self) -> RealServer:
        with self._connect("master") as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {quote(self.database)}")
            if self._snapshot:
                cursor.execute(
                    f"ALTER DATABASE {quote(self.database)} SET ALLOW_SNAPSHOT_ISOLATION ON"
                )
        self._connection = self._connect(self.database)
        return self

    def __exit__(self, *_: object) -> None:
        if self._captured:  # else the agent that reads the log keeps the database open
            self.execute(f"IF EXISTS ({_CAPTURED_NOW}) EXEC sys.sp_cdc_disable_db")
        self._connection.close()
        with self._connect("master") as connection, connection.cursor() as cursor:
            cursor.execute(f"DROP DATABASE {quote(self.database)}")

    def _connect(self, database: str) -> Any:
        return pytds.connect(
            self.host,
            port=self.port,
            user=self.user,
            password=self.password,
            database=database,
            autocommit=True,
        )

    def execute(
        self, sql: str, parameters: Mapping[str, Any] | None = None
    ) -> list[tuple[Any, ...]]:
        """Runs T-SQL; parameters are written %(name)s. Returns the rows of the result, if any."""
        with self._connection.cursor() as cursor:
            cursor.execute(sql, dict(parameters) if parameters else None)
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

    def create_schema(self, name: str) -> None:
        if name.lower() != "dbo" and not self.execute(
            "SELECT 1 AS found FROM sys.schemas WHERE name = %(name)s", {"name": name}
        ):
            self.execute(f"CREATE SCHEMA {quote(name)}")

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
    ) -> None:
        """See MssqlSandbox.create_table."""
        self.create_schema(schema)
        specs = [c if isinstance(c, ColumnSpec) else ColumnSpec(*c) for c in columns]
        table = f"{quote(schema)}.{quote(name)}"
        in_key = {part.removesuffix(" DESC").lower() for part in key}
        parts = [script.column_definition(spec, spec.name.lower() in in_key) for spec in specs]
        if key:
            kind = "CLUSTERED" if clustered else "NONCLUSTERED"
            parts.append(
                f"CONSTRAINT {quote('PK_' + name)} PRIMARY KEY {kind} ({script.listed(key)})"
            )
        self.execute(f"CREATE TABLE {table} ({', '.join(parts)})")
        self._columns[schema.lower(), name.lower()] = specs
        self.insert(f"{quote(schema)}.{quote(name)}", rows)
        for number, columns_of in enumerate(unique, 1):
            index = quote(f"UX_{name}_{number}")
            self.execute(f"CREATE UNIQUE INDEX {index} ON {table} ({script.listed(columns_of)})")
        for number, columns_of in enumerate(indexes, 1):
            index = quote(f"IX_{name}_{number}")
            self.execute(f"CREATE INDEX {index} ON {table} ({script.listed(columns_of)})")

    def create_temporal_table(
        self,
        schema: str,
        name: str,
        columns: Iterable[ColumnSpec | tuple[str, str] | tuple[str, str, bool]],
        *,
        key: Sequence[str],
        period: tuple[str, str] = ("ValidFrom", "ValidTo"),
        hidden: bool = True,
        history: str | None = None,
        rows: Iterable[Any] = (),
    ) -> None:
        """See MssqlSandbox.create_temporal_table."""
        self.create_schema(schema)
        specs = [c if isinstance(c, ColumnSpec) else ColumnSpec(*c) for c in columns]
        self.execute(
            script.temporal_table(schema, name, specs, key=key, period=period, hidden=hidden,
                                  history=history or f"{name}_History")
        )  # fmt: skip
        self._columns[schema.lower(), name.lower()] = specs
        self.insert(f"{quote(schema)}.{quote(name)}", rows)

    def create_view(self, schema: str, name: str, query: str) -> None:
        """See MssqlSandbox.create_view."""
        self.create_schema(schema)
        self.execute(f"CREATE VIEW {quote(schema)}.{quote(name)} AS {query}")

    def enable_cdc(
        self,
        table: str,
        instance: str | None = None,
        *,
        role: str | None = None,
        net: bool | None = None,
        columns: Sequence[str] = (),
        index: str | None = None,
    ) -> None:
        """See MssqlSandbox.enable_cdc; the first scan of the log is awaited."""
        self.execute(f"IF NOT EXISTS ({_CAPTURED_NOW}) EXEC sys.sp_cdc_enable_db")
        self._captured = True
        self.execute(script.enable_table(table, instance, role, net, columns, index))
        self.capture()

    def disable_cdc(self, table: str, instance: str = "all") -> None:
        """See MssqlSandbox.disable_cdc."""
        self.execute(script.disable_table(table, instance))

    def capture(self) -> None:
        """Scans the log, whether an agent runs or not."""
        self.execute("EXEC sys.sp_cdc_scan")

    def cdc_cleanup(self, instance: str, lsn: bytes | None = None) -> bytes:
        """See MssqlSandbox.cdc_cleanup; without an LSN the newest transaction stays."""
        if lsn is None:
            [(lsn,)] = self.execute("SELECT sys.fn_cdc_get_max_lsn() AS lsn")
        assert lsn is not None
        name = instance.replace("'", "''")
        self.execute(
            f"EXEC sys.sp_cdc_cleanup_change_table @capture_instance = N'{name}', "
            f"@low_water_mark = 0x{lsn.hex()}"
        )
        return lsn

    def insert(self, table: str, rows: Iterable[Any]) -> int:
        specs = self._specs(table)
        written = [
            spec
            for spec in specs
            if spec.computed is None
            and not spec.identity
            and spec.type.lower() not in ("rowversion", "timestamp")
        ]
        names = ", ".join(quote(spec.name) for spec in written)
        size = max(1, min(1000, _MAX_PARAMETERS // len(written)))
        pending = iter(rows)
        count = 0
        while batch := list(islice(pending, size)):
            values: list[Any] = []
            lines = []
            for row in batch:
                cells = [row.get(s.name) for s in written] if isinstance(row, Mapping) else row
                lines.append(
                    "(" + ", ".join(map(_placeholder, written, cells)).replace("%%", "%") + ")"
                )
                values.extend(map(_bound, cells))
            with self._connection.cursor() as cursor:
                cursor.execute(
                    f"INSERT INTO {table.replace('%', '%%')} ({names.replace('%', '%%')}) "
                    f"VALUES {', '.join(lines)}",
                    tuple(values),
                )
            count += len(batch)
        return count

    def update(self, table: str, where: Mapping[str, Any], **changes: Any) -> int:
        types = {spec.name.lower(): spec for spec in self._specs(table)}
        assigned = ", ".join(
            f"{quote(name)} = {_placeholder(types[name.lower()], value)}"
            for name, value in changes.items()
        )
        condition, values = self._where(table, where)
        return self._write(
            f"UPDATE {table} SET {assigned} WHERE {condition}", [*changes.values(), *values]
        )

    def delete(self, table: str, where: Mapping[str, Any] | None = None) -> int:
        condition, values = self._where(table, where or {})
        return self._write(f"DELETE FROM {table} WHERE {condition}", values)

    def count(self, table: str) -> int:
        return int(self.execute(f"SELECT COUNT_BIG(*) AS n FROM {table}")[0][0])

    def _write(self, sql: str, values: Sequence[Any]) -> int:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, tuple(map(_bound, values)) or None)
            return int(cursor.rowcount)

    def _where(self, table: str, where: Mapping[str, Any]) -> tuple[str, list[Any]]:
        types = {spec.name.lower(): spec for spec in self._specs(table)}
        parts, values = ["1 = 1"], []
        for name, value in where.items():
            if value is None:
                parts.append(f"{quote(name)} IS NULL")
            else:
                parts.append(f"{quote(name)} = {_placeholder(types[name.lower()], value)}")
                values.append(value)
        return " AND ".join(parts), values

    def _specs(self, table: str) -> list[ColumnSpec]:
        parts = name_parts(table)
        schema = parts[-2] if len(parts) > 1 else "dbo"
        return self._columns[schema.lower(), parts[-1].lower()]


def _placeholder(spec: ColumnSpec, value: Any) -> str:
    """A parameter in the column's own type; text goes into a variant by way of nvarchar(4000)."""
    if spec.type.lower() == "sql_variant":
        return "CAST(%s AS nvarchar(4000))" if isinstance(value, str) else "%s"
    return f"CAST(%s AS {spec.type})"


def _bound(value: Any) -> Any:
    return pytds.Binary(value) if isinstance(value, bytes) else value


def from_environment() -> MssqlSandbox | RealServer:
    """The server of MSSQL_TEST_SERVER, _PORT, _USER and _PASSWORD, if set, else a sandbox."""
    host = os.environ.get("MSSQL_TEST_SERVER")
    if not host:
        return MssqlSandbox()
    return RealServer(
        host,
        int(os.environ.get("MSSQL_TEST_PORT", "1433")),
        os.environ["MSSQL_TEST_USER"],
        os.environ["MSSQL_TEST_PASSWORD"],
    )
