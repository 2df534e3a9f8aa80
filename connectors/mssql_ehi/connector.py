"""Microsoft SQL Server: the tables of one database, incremental where a column tells the changes.

What the source does: https://learn.microsoft.com/sql/sql-server/
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from fivetran_connector_sdk import Connector, Logging, Operations as op

import driver
import mapping
import names
from azure import AccessTokens
from catalogue import Catalogue, discover
from faults import explain_login, unexpected
from loading import Load, Sync
from plans import Plan, Position, category, choose, is_version
from readers import Readers
from report import TABLES, Outcome, report
from sealing import Seal
from session import Session, Values
from shared import times
from shared.errors import SourceError, guarded
from shared.rest import Retry
from shared.rows import Rejects
from shared.settings import FLAG, URL, Kind, declared, integer, read, setting
from shared.state import State

BATCH_SIZE = 1_000  # rows that are read at once
CHECKPOINT_INTERVAL = 5_000  # rows between two checkpoints
_APPLICATION = "fivetran-mssql-ehi-connector/1.0"  # as sys.dm_exec_sessions shows it
_BASE_DELAY = 5.0  # seconds; a fail-over takes a minute
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


def _parse_tenant(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.-]{1,253}", text, re.ASCII):
        raise ValueError
    return text


HOST = Kind("a host name or an IP address, without port and instance", _parse_host)
CERTIFICATES = Kind("one or more certificates in PEM form", _parse_certificates)
TENANT = Kind("the id or a domain of a tenant", _parse_tenant)
NAMES = Kind("a comma-separated list", _parse_names)


@dataclass(frozen=True, repr=False)
class Settings:
    """The keys of configuration.json."""

    mssql_server: str = setting("Server", "Host name or IP address of the server", HOST)
    mssql_database: str = setting("Database", "Name of the database to read")
    mssql_user: str | None = setting("User", "Login of SQL Server authentication", default="")
    mssql_password: str | None = setting(
        "Password", "Password of that login", secret=True, default=""
    )
    mssql_port: int = setting("Port", "TCP port of the server", integer(1, 65535), default="1433")
    mssql_encrypt: bool = setting("Encrypt", "Encrypt the whole session", FLAG, default="true")
    mssql_ca_certificate: str | None = setting(
        "CA certificate", "Authorities to trust; empty: the system's", CERTIFICATES, default=""
    )
    mssql_trust_server_certificate: bool = setting(
        "Trust any certificate", "Encrypt, but verify nothing", FLAG, default="false"
    )
    mssql_tenant_id: str | None = setting(
        "Tenant", "Directory of a service principal of Azure AD", TENANT, default=""
    )
    mssql_client_id: str | None = setting(
        "Client", "Application id of the service principal", default=""
    )
    mssql_client_secret: str | None = setting(
        "Client secret", "Secret of the service principal", secret=True, default=""
    )
    mssql_authority_url: str = setting(
        "Authority", "Where tokens come from", URL, default="https://login.microsoftonline.com"
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
    parallel_tables: int = setting(
        "Parallel tables", "How many tables to read at once", integer(1, 4), default="1"
    )
    retry_attempts: int = setting(
        "Retry attempts", "Repeats of what failed", integer(0, 10), default="3"
    )


def validate_configuration(configuration: Mapping[str, str]) -> Settings:
    """The settings. Raises ValueError with a line for each key that is wrong."""
    settings = read(Settings, configuration, _check_login)
    if not settings.mssql_encrypt:
        Logging.warning("mssql_encrypt is false: password and data cross the network in the clear")
    elif settings.mssql_trust_server_certificate:
        Logging.warning("mssql_trust_server_certificate is true: the server may be another one")
    return settings


_LOGIN = ("mssql_user", "mssql_password")
_PRINCIPAL = ("mssql_tenant_id", "mssql_client_id", "mssql_client_secret")


def _check_login(values: Mapping[str, Any]) -> list[str]:
    """A user and a password, or a service principal: one of them, and all of it."""
    principal = any(values.get(key) for key in _PRINCIPAL)
    known = declared(Settings)
    lines = [
        f"{key} is missing: {known[key].description}"
        for key in (_PRINCIPAL if principal else _LOGIN)
        if key in values and not values[key]
    ]
    if principal and any(values.get(key) for key in _LOGIN):
        lines.append("mssql_user and mssql_password must be empty beside a service principal")
    if principal and not values.get("mssql_encrypt", True):
        lines.append('mssql_encrypt must be "true" for a service principal: its token is a secret')
    return lines


@guarded
def schema(configuration: Mapping[str, str]) -> list[dict[str, Any]]:
    """The tables of the database as they are now, in the form that the SDK takes."""
    settings = validate_configuration(configuration)
    session = connect_to_mssql(settings)
    try:
        tables = _discover(session, settings).tables
    finally:
        session.close()
    return [*(table.declaration() for table in tables), *TABLES]


@guarded
def update(configuration: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Syncs the tables; those that fail do so after the others are done."""
    settings = validate_configuration(configuration)
    saved = State(state, (_LEGACY,))
    session = connect_to_mssql(settings)
    rejects = Rejects()
    try:
        catalogue = _discover(session, settings)
        _warn(catalogue)
        _forget_others(saved, catalogue)
        snapshots = _allows_snapshots(session)
        versions = _knows_rowversions(session, catalogue)
    finally:
        session.close()
    readers = Readers(settings.parallel_tables)
    sync = Sync(
        get_table_data,
        saved,
        rejects,
        Seal(
            settings.mssql_password or settings.mssql_client_secret or "",
            f"{settings.mssql_database} {settings.mssql_user or settings.mssql_client_id}",
        ),
        timedelta(seconds=settings.lookback_seconds),
        CHECKPOINT_INTERVAL,
        readers,
    )
    plans = [choose(t, settings.incremental_column, versions=versions) for t in catalogue.tables]
    loads = [Load(plan, sync) for plan in plans]
    loads.sort(key=lambda load: (not load.is_urgent, load.plan.table.estimate or 0))
    for plan in (load.plan for load in loads):
        estimate = plan.table.estimate
        about = f"about {estimate} rows" if estimate is not None else "no estimate"
        Logging.info(f"{plan.table.label}: {category(estimate)}, {about}, {plan}")
    sessions = [
        session.another(snapshots=snapshots, readers=readers.count) for _ in range(readers.count)
    ]
    try:
        _sync_all(loads, readers, sessions, sync)
    finally:
        rejects.report()
        for each in sessions:
            each.close()


# The older connectors' state is the cursor of no table in particular; it does not outlive this.
_LEGACY = "last_sync_time"


def _sync_all(loads: list[Load], readers: Readers, sessions: list[Session], sync: Sync) -> None:
    outcomes: list[Outcome] = []

    def read(number: int, load: Load) -> bool:
        session = sessions[number]
        try:
            outcomes.append(Outcome(load, load.sync(session)))
        except Exception as error:  # the others go on
            failure = error if isinstance(error, SourceError) else unexpected(error)
            Logging.error(f"{load.plan.table.label}: {failure}")
            outcomes.append(Outcome(load, error=failure))
            session.close()
            return not session.gone
        return True

    readers.run(loads, read)
    report(outcomes, sync.rejects.counts, times.now())
    sync.state.save()
    failures = [f"{outcome.label}: {outcome.error}" for outcome in outcomes if outcome.error]
    if failures:
        tried = {outcome.label for outcome in outcomes}
        left = [load.plan.table.label for load in loads if load.plan.table.label not in tried]
        untried = f"; not tried: {_some(left)}" if left else ""
        reasons = "\n".join(failures)
        raise SourceError(f"{len(failures)} of {len(loads)} tables failed{untried}:\n{reasons}")


def connect_to_mssql(settings: Settings) -> Session:
    """A session that connects at its first statement, and again after a lost connection.

    It is encrypted, and the server's certificate and host name are verified, unless the settings
    say otherwise.
    """
    trust = (
        None
        if not settings.mssql_encrypt
        else driver.ANYONE
        if settings.mssql_trust_server_certificate
        else settings.mssql_ca_certificate or driver.SYSTEM
    )

    retry = Retry(settings.retry_attempts, base_delay=_BASE_DELAY)
    if settings.mssql_client_secret:
        login: dict[str, Any] = {
            "access_token_callable": AccessTokens(
                settings.mssql_authority_url,
                settings.mssql_tenant_id or "",
                settings.mssql_client_id or "",
                settings.mssql_client_secret,
                settings.login_timeout_seconds,
                retry,
            )
        }
    else:
        login = {"user": settings.mssql_user, "password": settings.mssql_password}

    def open_connection(timeout: float | None) -> Any:
        try:
            return driver.connect(
                trust,
                dsn=settings.mssql_server,
                port=settings.mssql_port,
                database=settings.mssql_database,
                login_timeout=settings.login_timeout_seconds,
                timeout=timeout or settings.query_timeout_seconds,
                appname=_APPLICATION,
                autocommit=True,
                **login,
            )
        except SourceError:  # of the tokens
            raise
        except Exception as error:  # what is no SQL Server may answer anything
            failure = explain_login(error, "connecting", settings.mssql_database)
        raise failure

    return Session(open_connection, retry)


def get_table_data(
    session: Session, plan: Plan, start: str | None, end: str | None, after: Position | None
) -> Iterator[list[Values]]:
    """Streams the rows that ``plan`` orders from ``start`` on, before ``end`` and behind position
    ``after``, in batches of BATCH_SIZE rows or about LARGEST_BATCH bytes."""
    sql, parameters = plan.statement(start, end, after)
    width = plan.table.row_width
    narrow = width is not None and width * BATCH_SIZE <= session.largest_batch
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
        op.warning(
            f"max_tables is {len(catalogue.tables)}: {len(left_out)} tables are left out: "
            f"{_some(left_out)}"
        )


def _some(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return ", ".join(labels[:_NAMED]) + more


def _forget_others(saved: State, catalogue: Catalogue) -> None:
    """A table that is not read now misses changes: taken in again, it is loaded anew."""
    labels = {table.label for table in catalogue.tables}
    entries = saved.values["tables"]
    if entries and not catalogue.all:
        raise SourceError(
            "mssql_user sees no table at all, where there were some at the last sync: check "
            "mssql_database and the rights of mssql_user"
        )
    saved.values["tables"] = {name: entries[name] for name in entries if name in labels}


def _knows_rowversions(session: Session, catalogue: Catalogue) -> bool:
    """Whether the server tells up to where rowversions are final, if any table has one."""
    if not any(is_version(column) for table in catalogue.tables for column in table.columns):
        return False
    rows = session.optional(
        "rowversions, since MIN_ACTIVE_ROWVERSION() is missing",
        "SELECT MIN_ACTIVE_ROWVERSION() AS lowest",
    )
    return rows is not None and rows != [(None,)]


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
