"""Microsoft SQL Server: the tables of one database, incremental where a column tells the changes.

What the source does: https://learn.microsoft.com/sql/sql-server/
"""

import gc
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import Any

from fivetran_connector_sdk import ConfigurationForm, Connector, Logging, Operations as op

from shared import times
from shared.errors import SourceError, redact_errors
from shared.form import setup_form
from shared.rest import Retry
from shared.rows import SkippedRecords
from shared.settings import read
from shared.state import State
from sqlserver import tds_patches
from sqlserver.addresses import DEFAULT_PORT, ask_browser
from sqlserver.entra import AccessTokens
from sqlserver.errors import explain_login, unexpected
from sqlserver.late_rows import LateRows
from sqlserver.query import Plan, Position, category, choose, is_version, silently_full
from sqlserver.rows import size
from sqlserver.schema import Catalogue, Wanted, discover
from sqlserver.sealing import Seal
from sqlserver.session import Session, Values
from sqlserver.settings import Settings, check_login, column_patterns, table_patterns
from sqlserver.source_tables import SourceTable
from sqlserver.table_sync import Sync, TableSync
from sqlserver.validation import TABLES, Outcome, report
from sqlserver.workers import Workers

BATCH_SIZE = 1_000  # rows that are read at once
CHECKPOINT_INTERVAL = 5_000  # rows between two checkpoints
_APPLICATION = "fivetran-mssql-ehi-connector/1.0"  # as sys.dm_exec_sessions shows it
# Bytes, as Microsoft's own drivers ask for. Above 8,060 a server takes memory elsewhere for them,
# and it encrypts no more than 16,383; such packets would hardly be cheaper here.
# https://support.microsoft.com/kb/2008195
_PACKET_SIZE = 8_000
# Seconds. A fail-over takes a minute, and so does a serverless database to wake: even if chance
# makes each of three waits as short as it can be, they are half of 26 + 52 + 104, which is 91.
_BASE_DELAY, _LONGEST_DELAY = 26.0, 104.0
_SINGLE_WARNINGS = 5  # about tables; more of them are one
_NAMED = 50  # tables that a warning names; the log names all


def validate_configuration(configuration: Mapping[str, str]) -> Settings:
    """The settings. Raises ValueError with a line for each key that is wrong."""
    settings = read(Settings, configuration, check_login)
    if not settings.mssql_encrypt:
        Logging.warning("mssql_encrypt is false: password and data cross the network in the clear")
    elif settings.mssql_trust_server_certificate:
        Logging.warning("mssql_trust_server_certificate is true: the server may be another one")
    return settings


@redact_errors
def schema(configuration: Mapping[str, str]) -> list[dict[str, Any]]:
    """The tables of the database as they are now, in the form that the SDK takes."""
    settings = validate_configuration(configuration)
    at_hand = _state_at_hand()
    saved = State(at_hand or {}, (_LEGACY,))
    session = connect_to_mssql(settings)
    try:
        tables = _discover(session, settings, saved).tables
    finally:
        session.close()
    # A table that cannot be synced might be declared with another key than the destination's.
    declarations = [table.declaration() for table in tables if not table.fault]
    keys = {entry["table"]: {*entry.get("primary_key", ())} for entry in declarations}
    _declared[:] = [_Declared(keys, by_state=at_hand is not None)]
    return [*declarations, *TABLES]


@dataclass(frozen=True)
class _Declared:
    """The keys of the tables that schema() has declared, and whether it knew the state."""

    keys: Mapping[str, set[str]]
    by_state: bool


# By schema() in this process, if it was called: a table that is stored otherwise ends the sync for
# all, at this sync or at the next.
_declared: list[_Declared] = []


def _state_at_hand() -> Mapping[str, Any] | None:
    """The state of the sync that asks for the schema, None where there is no way to know it.

    The SDK hands it to update() alone, but the keys that the destination has stand in it, and one
    that is declared otherwise ends the sync. Where the sync runs in this process, as with
    `fivetran debug`, the SDK leaves it at the connector's object.
    """
    return getattr(connector, "state", None)


@redact_errors
def update(configuration: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Syncs the tables; those that fail do so after the others are done."""
    gc.freeze()  # what is imported stays: the many collections need not look through it
    settings = validate_configuration(configuration)
    saved = State(state, (_LEGACY,))
    session = connect_to_mssql(settings)
    skipped = SkippedRecords(become="null")
    try:
        by_state = not _declared or _declared[0].by_state
        catalogue = _discover(session, settings, saved, keep_names=by_state)
        catalogue = _as_declared(catalogue)
        _warn(catalogue)
        _forget_others(saved, catalogue)
        snapshots = _allows_snapshots(session)
        plans = _choose_plans(session, catalogue, settings)
        _warn_of_full_reads(plans, settings)
        lookback, late_rows = timedelta(seconds=settings.lookback_seconds), LateRows()
        late_rows.look(session, plans, lookback, replica=_is_replica(session))
    finally:
        session.close()
    workers = Workers(settings.parallel_tables)
    sync = Sync(
        get_table_data,
        saved,
        skipped,
        Seal(
            settings.mssql_password or settings.mssql_client_secret or "",
            f"{settings.mssql_database} {settings.mssql_user or settings.mssql_client_id}",
        ),
        lookback,
        CHECKPOINT_INTERVAL,
        workers,
        late_rows,
    )
    loads = [TableSync(plan, sync) for plan in plans]
    loads.sort(key=lambda load: (not load.runs_first, load.plan.table.estimate or 0))
    for load in loads:
        if not load.plan.fault:
            _log_plan(load.plan)
    sessions = [
        session.clone(snapshots=snapshots, workers=workers.count) for _ in range(workers.count)
    ]
    try:
        _sync_all(loads, workers, sessions, sync)
    finally:
        skipped.report()
        late_rows.report()
        for each in sessions:
            each.close()


# The older connectors' state is the cursor of no table in particular; it does not outlive this.
_LEGACY = "last_sync_time"


def _sync_all(
    loads: list[TableSync], workers: Workers, sessions: list[Session], sync: Sync
) -> None:
    outcomes: list[Outcome] = []

    def read(number: int, load: TableSync) -> bool:
        session = sessions[number]
        try:
            outcomes.append(Outcome(load, load.sync(session)))
            session.succeeded()
        except Exception as error:  # the others go on
            failure = error if isinstance(error, SourceError) else unexpected(error)
            Logging.error(f"{load.plan.table.label}: {failure}")
            # Not the error itself: its traceback would hold the last batch.
            outcomes.append(Outcome(load, error=str(failure)))
            session.close()
            return not session.unreachable
        return True

    workers.run(loads, read)
    report(outcomes, sync.skipped.counts, times.now())
    sync.state.save()
    failures = [f"{outcome.label}: {outcome.error}" for outcome in outcomes if outcome.error]
    if failures:
        tried = {outcome.label for outcome in outcomes}
        left = [load.plan.table.label for load in loads if load.plan.table.label not in tried]
        untried = f"; not tried: {_some(left)}" if left else ""
        reasons = "\n".join(failures)
        raise SourceError(f"{len(failures)} of {len(loads)} tables failed{untried}:\n{reasons}")


def configuration_form() -> ConfigurationForm:
    """The setup form: a field for each key, and tests that call the server."""
    tests = {
        "Connect, with encryption and certificate as configured": check_connection,
        "Find the tables, plan how to read them, and read a row of each": read_each_table,
        "Find columns that tell which rows changed": find_incremental_columns,
    }
    return setup_form(Settings, validate_configuration, tests)


def check_connection(settings: Settings) -> None:
    """A setup test: a login, which verifies the certificate too. Raises SourceError."""
    session = connect_to_mssql(settings)
    try:
        session.with_retries("connecting", lambda: session.rows("SELECT 1 AS one"))
    finally:
        session.close()


def read_each_table(settings: Settings) -> None:
    """A setup test: logs the plan of each table, and reads a row of it in no order, which needs no
    index. Raises SourceError, for all tables that cannot be read."""
    session = connect_to_mssql(settings)
    failures = []
    try:
        catalogue = _discover(session, settings, State({}, ()))
        for plan in _choose_plans(session, catalogue, settings):
            table = plan.table
            if plan.fault:
                failures.append(f"{table.label}: {plan.fault}")
                continue
            _log_plan(plan)
            sql, _ = Plan(table, None, ()).statement(only_first=True)
            try:
                session.with_retries(table.label, partial(session.rows, sql))
            except SourceError as error:
                failures.append(f"{table.label}: {error}")
                if session.unreachable:
                    break
    finally:
        session.close()
    if not catalogue.tables:
        raise SourceError("There is no table that mssql_user may see: grant SELECT to it")
    if failures:
        raise SourceError("\n".join(failures))


def find_incremental_columns(settings: Settings) -> None:
    """A setup test. Raises SourceError where no table has a column that the settings name, and
    others could be meant."""
    session = connect_to_mssql(settings)
    try:
        tables = _discover(session, settings, State({}, ())).tables
    finally:
        session.close()
    plans = [choose(table, settings.incremental_column, versions=True) for table in tables]
    warning, found = silently_full(plans, settings.incremental_column)
    if found:
        raise SourceError(warning)
    if warning:
        Logging.warning(warning)


def _log_plan(plan: Plan) -> None:
    estimate = plan.table.estimate
    about = f"about {estimate} rows" if estimate is not None else "no estimate"
    Logging.info(f"{plan.table.label}: {category(estimate)}, {about}, {plan}")


def connect_to_mssql(settings: Settings) -> Session:
    """A session that connects at its first statement, and again after a lost connection.

    It is encrypted, and the server's certificate and host name are verified, unless the settings
    say otherwise.
    """
    trust = (
        None
        if not settings.mssql_encrypt
        else tds_patches.ANYONE
        if settings.mssql_trust_server_certificate
        else settings.mssql_ca_certificate or tds_patches.SYSTEM
    )

    log_in = _login_of(settings)
    server, patience = settings.mssql_server, settings.login_timeout_seconds
    known = settings.mssql_port or server.port or (None if server.instance else DEFAULT_PORT)

    def open_connection(timeout: float | None) -> Any:
        try:
            return tds_patches.connect(
                trust,
                dsn=server.host,
                # Asked each time: it may be another one after the instance was started anew.
                port=known or ask_browser(server.host, server.instance, patience),
                database=settings.mssql_database,
                login_timeout=patience,
                timeout=timeout or settings.query_timeout_seconds,
                appname=_APPLICATION,
                blocksize=_PACKET_SIZE,
                readonly=settings.read_only_intent,
                autocommit=True,
                **log_in(),
            )
        except SourceError:  # of the tokens, the Browser, or a redirect
            raise
        except Exception as error:  # what is no SQL Server may answer anything
            windows = bool(settings.mssql_domain)
            failure = explain_login(error, "connecting", settings.mssql_database, windows=windows)
        raise failure

    return Session(open_connection, Retry(settings.retry_attempts, _BASE_DELAY, _LONGEST_DELAY))


def _login_of(settings: Settings) -> Callable[[], dict[str, Any]]:
    """Makes what the driver needs for one login."""
    user, password = settings.mssql_user or "", settings.mssql_password or ""
    if settings.mssql_client_secret:
        tokens = AccessTokens(
            settings.mssql_authority_url,
            settings.mssql_tenant_id or "",
            settings.mssql_client_id or "",
            settings.mssql_client_secret,
            settings.login_timeout_seconds,
            Retry(settings.retry_attempts),
        )
        return lambda: {"access_token_callable": tokens}
    if domain := settings.mssql_domain:
        host = settings.mssql_server.host
        return lambda: {"auth": tds_patches.WindowsLogin(domain, user, password, host)}
    return lambda: {"user": user, "password": password}


def get_table_data(
    session: Session, plan: Plan, start: str | None, end: str | None, after: Position | None
) -> Iterator[list[Values]]:
    """Streams the rows that ``plan`` orders from ``start`` on, before ``end`` and behind position
    ``after``, in batches of BATCH_SIZE rows or about LARGEST_BATCH bytes."""
    sql, parameters = plan.statement(start, end, after)
    width = plan.table.row_width
    narrow = width is not None and width * BATCH_SIZE <= session.largest_batch
    size_of: Callable[[Values], int] | None = None if narrow else size
    return session.stream(sql, parameters, BATCH_SIZE, size_of)


def _discover(
    session: Session, settings: Settings, saved: State, *, keep_names: bool = True
) -> Catalogue:
    database = settings.mssql_database
    wanted = Wanted(
        table_patterns(settings.tables, database),
        table_patterns(settings.exclude_tables, database),
        column_patterns(settings.exclude_columns, database),
        settings.max_tables,
    )
    return discover(session, wanted, saved.values["tables"], keep_names=keep_names)


def _as_declared(catalogue: Catalogue) -> Catalogue:
    """The catalogue, without the tables that schema() has declared otherwise: the source has
    changed since, or the state was not to be known there."""
    if not _declared:
        return catalogue
    keys = _declared[0].keys
    tables = (_if_declared(table, keys.get(table.destination)) for table in catalogue.tables)
    return replace(catalogue, tables=tuple(tables))


def _if_declared(table: SourceTable, declared: set[str] | None) -> SourceTable:
    key = {column.destination for column in table.key}
    if table.fault or declared == key:
        return table
    if declared is None:
        return replace(table, postponed="it could not be read when the sync began")
    old, new = (", ".join(sorted(columns)) or "none" for columns in (declared, key))
    fault = (
        f"its key, {new}, is not the one that was declared when the sync began, {old}. If the "
        "next sync says so, too, give the table its old key again; or drop it at the destination, "
        "name it in exclude_tables for one sync, then no more: it is loaded anew"
    )
    return replace(table, fault=fault, key_refused=True)


def _warn(catalogue: Catalogue) -> None:
    if len(catalogue.warnings) <= _SINGLE_WARNINGS:
        for warning in catalogue.warnings:
            op.warning(warning)
    else:  # the SDK shows ten, and drops the others from the log, too
        for warning in catalogue.warnings:
            Logging.warning(warning)
        op.warning(
            f"{len(catalogue.warnings)} warnings about tables and columns are in the log, the "
            "first: " + "; ".join(catalogue.warnings[:_SINGLE_WARNINGS])
        )
    if catalogue.left_out:
        left_out = catalogue.left_out
        Logging.info(f"Left out by max_tables: {', '.join(left_out)}")
        op.warning(
            f"max_tables is {len(catalogue.tables)}: {len(left_out)} tables are left out: "
            f"{_some(left_out)}"
        )


def _warn_of_full_reads(plans: Sequence[Plan], settings: Settings) -> None:
    warning, _ = silently_full(plans, settings.incremental_column)
    if warning:
        op.warning(warning)


def _some(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return ", ".join(labels[:_NAMED]) + more


def _forget_others(saved: State, catalogue: Catalogue) -> None:
    """A table that is not read now misses changes: taken in again, it is loaded anew."""
    if saved.values["tables"] and not catalogue.all:
        raise SourceError(
            "mssql_user sees no table at all, where there were some at the last sync: check "
            "mssql_database and the rights of mssql_user"
        )
    saved.values["tables"] = catalogue.entries


def _choose_plans(session: Session, catalogue: Catalogue, settings: Settings) -> list[Plan]:
    versions = _knows_rowversions(session, catalogue)
    return [choose(t, settings.incremental_column, versions=versions) for t in catalogue.tables]


def _knows_rowversions(session: Session, catalogue: Catalogue) -> bool:
    """Whether the server tells up to where rowversions are final, if any table has one."""
    if not any(is_version(column) for table in catalogue.tables for column in table.columns):
        return False
    rows = session.optional(
        "rowversions, since MIN_ACTIVE_ROWVERSION() is missing",
        "SELECT MIN_ACTIVE_ROWVERSION() AS lowest",
    )
    # A replica does not know of the transactions that are under way.
    return rows is not None and rows != [(None,)] and not _is_replica(session)


def _is_replica(session: Session) -> bool:
    """Whether the database can only be read, as one on a secondary replica."""
    mode = session.optional(
        "whether the database can be written",
        "SELECT CONVERT(nvarchar(20), DATABASEPROPERTYEX(DB_NAME(), 'Updateability')) AS mode",
    )
    return mode == [("READ_ONLY",)]


def _allows_snapshots(session: Session) -> bool:
    """Whether the database allows SNAPSHOT isolation; else reads are READ COMMITTED."""
    rows = session.optional(
        "the isolation levels of the database",
        "SELECT CAST(snapshot_isolation_state AS int) AS state FROM sys.databases "
        "WHERE name = DB_NAME()",
    )
    return rows == [(1,)]


connector = Connector(update=update, schema=schema, configuration_form=configuration_form)

if __name__ == "__main__":
    with open("configuration.json") as file:
        connector.debug(configuration=json.load(file))
