"""Microsoft SQL Server: the tables of one database, incremental where a column tells the changes.

What the source does: https://learn.microsoft.com/sql/sql-server/
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from fivetran_connector_sdk import Connector, Logging, Operations as op

import driver
import mapping
import names
from catalogue import Catalogue, SourceTable, discover
from faults import DRIVER_ERRORS, explain_login
from loading import Load
from plans import Plan, Position, category, choose
from sealing import Seal
from session import LARGEST_BATCH, Session, Values
from shared import times
from shared.errors import SourceError, guarded
from shared.rest import Retry
from shared.rows import Rejects
from shared.settings import FLAG, Kind, integer, read, setting
from shared.state import State

BATCH_SIZE = 1_000  # rows that are read at once
CHECKPOINT_INTERVAL = 5_000  # rows between two checkpoints
_APPLICATION = "fivetran-mssql-ehi-connector/1.0"  # as sys.dm_exec_sessions shows it
_NAMED = 50  # tables that a warning names; the log names all


def _parse_host(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{1,253}", text, re.ASCII):
        raise ValueError
    return text


def _parse_certificates(text: str) -> str:
    driver.parse_certificates(text)
    return text


def _parse_names(text: str) -> tuple[str, ...]:
    if not text.isprintable():
        raise ValueError
    return names.patterns(text)


HOST = Kind("a host name or an IP address, without port and instance", _parse_host)
CERTIFICATES = Kind("one or more certificates in PEM form", _parse_certificates)
NAMES = Kind("a comma-separated list", _parse_names)


@dataclass(frozen=True, repr=False)
class Settings:
    """The keys of configuration.json."""

    mssql_server: str = setting("Server", "Host name or IP address of the server", HOST)
    mssql_database: str = setting("Database", "Name of the database to read")
    mssql_user: str = setting("User", "Login of SQL Server authentication")
    mssql_password: str = setting("Password", "Password of that login", secret=True)
    mssql_port: int = setting("Port", "TCP port of the server", integer(1, 65535), default="1433")
    mssql_encrypt: bool = setting("Encrypt", "Encrypt the whole session", FLAG, default="true")
    mssql_ca_certificate: str | None = setting(
        "CA certificate", "Authorities to trust; empty: the system's", CERTIFICATES, default=""
    )
    mssql_trust_server_certificate: bool = setting(
        "Trust any certificate", "Encrypt, but verify nothing", FLAG, default="false"
    )
    tables: tuple[str, ...] | None = setting(
        "Tables", "schema.table to sync, * allowed; empty: all", NAMES, default=""
    )
    exclude_tables: tuple[str, ...] | None = setting(
        "Excluded tables", "schema.table to leave out, * allowed", NAMES, default=""
    )
    max_tables: int = setting(
        "Most tables", "How many tables to sync; 0: all", integer(0, 1_000_000), default="10"
    )
    incremental_column: tuple[str, ...] = setting(
        "Incremental column",
        "Columns that tell when a row changed, the preferred first",
        NAMES,
        default="ModifiedDate",
    )
    lookback_seconds: int = setting(
        "Look-back", "Seconds that are read again", integer(0, 31_536_000), default="300"
    )
    query_timeout_seconds: int = setting(
        "Query timeout", "Seconds of silence that end a query", integer(1, 86_400), default="300"
    )
    login_timeout_seconds: int = setting(
        "Login timeout", "Seconds that a login may take", integer(1, 300), default="15"
    )
    retry_attempts: int = setting(
        "Retry attempts", "Repeats of what failed", integer(0, 10), default="3"
    )


def validate_configuration(configuration: Mapping[str, str]) -> Settings:
    """The settings. Raises ValueError with a line for each key that is wrong."""
    return read(Settings, configuration)


@guarded
def schema(configuration: Mapping[str, str]) -> list[dict[str, Any]]:
    """The tables of the database as they are now, in the form that the SDK takes."""
    settings = validate_configuration(configuration)
    session = connect_to_mssql(settings)
    try:
        tables = _discover(session, settings).tables
    finally:
        session.close()
    return [*(table.declaration() for table in tables), _SYNC_VALIDATION]


_SYNC_VALIDATION = {
    "table": names.SYNC_VALIDATION,
    "primary_key": ["sync_timestamp"],
    "columns": {
        "sync_timestamp": "UTC_DATETIME",
        "total_tables": "INT",
        "total_records": "LONG",
        "tables_processed": "STRING",
        "failed_tables": "STRING",
        "skipped_records": "LONG",
    },
}


@guarded
def update(configuration: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Syncs the tables one after the other; those that fail do so after the others are done."""
    settings = validate_configuration(configuration)
    saved = State(state, (_LEGACY,))
    session = connect_to_mssql(settings)
    rejects = Rejects()
    seal = Seal(settings.mssql_password, f"{settings.mssql_database} {settings.mssql_user}")
    try:
        catalogue = _discover(session, settings)
        _warn(catalogue)
        _forget_others(saved, catalogue)
        if _allows_snapshots(session):
            session.use_snapshots()
        loads = []
        for table in catalogue.tables:
            plan = choose(table, settings.incremental_column)
            get_data = partial(get_table_data, session)
            lookback = timedelta(seconds=settings.lookback_seconds)
            load = Load(
                session, plan, get_data, saved, rejects, seal, lookback, CHECKPOINT_INTERVAL
            )
            loads.append((table, plan, load))
        loads.sort(key=lambda entry: (not entry[2].is_urgent, entry[0].estimate or 0))
        for table, plan, _ in loads:
            about = f"about {table.estimate} rows" if table.estimate is not None else "no estimate"
            Logging.info(f"{table.label}: {category(table.estimate)}, {about}, {plan}")
        _sync_all([(table, load) for table, _, load in loads], session, saved, rejects)
    finally:
        rejects.report()
        session.close()


# The older connectors' state is the cursor of no table in particular; it does not outlive this.
_LEGACY = "last_sync_time"


def _sync_all(
    loads: list[tuple[SourceTable, Load]], session: Session, saved: State, rejects: Rejects
) -> None:
    done: list[str] = []
    failures: dict[str, SourceError] = {}
    records = 0
    for table, load in loads:
        try:
            records += load.sync()
            done.append(table.label)
        except SourceError as error:  # noqa: PERF203  # the others go on
            Logging.error(f"{table.label}: {error}")
            failures[table.label] = error
            if session.gone:
                break
    op.upsert(
        names.SYNC_VALIDATION,
        {
            "sync_timestamp": times.now(),
            "total_tables": len(done),
            "total_records": records,
            "tables_processed": ", ".join(done),
            "failed_tables": ", ".join(failures),
            "skipped_records": sum(rejects.counts.values()),
        },
    )
    saved.save()
    if failures:
        reasons = "\n".join(f"{label}: {error}" for label, error in failures.items())
        raise SourceError(f"{len(failures)} of {len(loads)} tables failed:\n{reasons}")


def connect_to_mssql(settings: Settings) -> Session:
    """A session that connects at its first statement, and again after a lost connection.

    It is encrypted, and the server's certificate and host name are verified, unless the settings
    say otherwise.
    """
    if not settings.mssql_encrypt:
        Logging.warning("mssql_encrypt is false: password and data cross the network in the clear")
    elif settings.mssql_trust_server_certificate:
        Logging.warning("mssql_trust_server_certificate is true: the server may be another one")
    trust = (
        None
        if not settings.mssql_encrypt
        else driver.ANYONE
        if settings.mssql_trust_server_certificate
        else settings.mssql_ca_certificate or driver.SYSTEM
    )

    def open_connection() -> Any:
        try:
            return driver.connect(
                trust,
                dsn=settings.mssql_server,
                port=settings.mssql_port,
                database=settings.mssql_database,
                user=settings.mssql_user,
                password=settings.mssql_password,
                login_timeout=settings.login_timeout_seconds,
                timeout=settings.query_timeout_seconds,
                appname=_APPLICATION,
                autocommit=True,
            )
        except DRIVER_ERRORS as error:
            failure = explain_login(error, "connecting", settings.mssql_database)
        raise failure

    return Session(open_connection, Retry(settings.retry_attempts))


def get_table_data(
    session: Session, plan: Plan, start: str | None, after: Position | None
) -> Iterator[list[Values]]:
    """Streams the rows that ``plan`` orders from ``start`` on and behind position ``after``, in
    batches of BATCH_SIZE rows or about LARGEST_BATCH bytes."""
    sql, parameters = plan.statement(start, after)
    width = plan.table.row_width
    narrow = width is not None and width * BATCH_SIZE <= LARGEST_BATCH
    size_of: Callable[[Values], int] | None = None if narrow else mapping.size
    return session.stream(sql, parameters, BATCH_SIZE, size_of)


def _discover(session: Session, settings: Settings) -> Catalogue:
    return discover(
        session, settings.tables or (), settings.exclude_tables or (), settings.max_tables
    )


def _warn(catalogue: Catalogue) -> None:
    for warning in catalogue.warnings:
        op.warning(warning)
    if catalogue.left_out:
        left_out = catalogue.left_out
        Logging.info(f"Left out by max_tables: {', '.join(left_out)}")
        more = f" and {len(left_out) - _NAMED} more" if len(left_out) > _NAMED else ""
        op.warning(
            f"max_tables is {len(catalogue.tables)}: {len(left_out)} tables are left out: "
            f"{', '.join(left_out[:_NAMED])}{more}"
        )


def _forget_others(saved: State, catalogue: Catalogue) -> None:
    """A table that is not read now misses changes: taken in again, it is loaded anew."""
    labels = {table.label for table in catalogue.tables}
    entries = saved.values["tables"]
    saved.values["tables"] = {name: entries[name] for name in entries if name in labels}


def _allows_snapshots(session: Session) -> bool:
    """Whether the database allows SNAPSHOT isolation; else reads are READ COMMITTED."""
    rows = session.optional(
        "the isolation levels of the database",
        "SELECT CAST(snapshot_isolation_state AS int) AS state FROM sys.databases "
        "WHERE name = DB_NAME()",
    )
    return rows == [(1,)]


connector = Connector(update=update, schema=schema)

if __name__ == "__main__":
    with open("configuration.json") as file:
        connector.debug(configuration=json.load(file))
