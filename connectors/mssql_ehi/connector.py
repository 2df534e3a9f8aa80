"""Microsoft SQL Server: the tables of one database, incremental where a column tells the changes.

What the source does: https://learn.microsoft.com/sql/sql-server/
"""

import gc
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from typing import Any

from fivetran_connector_sdk import ConfigurationForm, Connector, Logging, Operations as op

from shared import times
from shared.encryption import Encryption
from shared.errors import SourceError, SourceUnavailable, describe_defect, redact_errors
from shared.form import setup_form
from shared.local import debug
from shared.network import Closed
from shared.rest import Retry
from shared.rows import SkippedRecords
from shared.settings import read
from shared.state import State
from sqlserver import catalogue, tds_patches
from sqlserver.addresses import DEFAULT_PORT, ask_browser
from sqlserver.catalogue import Catalogue, Selection
from sqlserver.change_capture import warn_of_lag
from sqlserver.change_tracking import unchanged
from sqlserver.checkpoints import Checkpoints, was_killed
from sqlserver.deletes import Deletes, KeyBudget, hours_by_table, minutes_now
from sqlserver.entra import AccessTokens
from sqlserver.errors import PRINCIPAL_ADVICE, WINDOWS_ADVICE, explain_login
from sqlserver.late_rows import LateRows
from sqlserver.query import Plan, Position, category, choose, full_read_warning
from sqlserver.read_progress import MANY_TABLES, SyncLog
from sqlserver.rows import size
from sqlserver.schema import DatabaseSchema, complete
from sqlserver.server_features import (
    allows_snapshots,
    is_replica,
    tells_active_rowversions,
    with_indexes,
)
from sqlserver.session import Session, Values
from sqlserver.settings import (
    Settings,
    check_login,
    column_patterns,
    declared_keys,
    table_patterns,
)
from sqlserver.source_clock import SourceClock
from sqlserver.source_tables import SourceTable
from sqlserver.table_state import READ, TableState
from sqlserver.table_sync import Sync, TableSync
from sqlserver.table_writer import find_deleted_column
from sqlserver.tds_patches import LoginLimits
from sqlserver.validation import TABLES, Outcome, report
from sqlserver.windows import WindowProbe
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
_NAMED = 50  # tables that the log or a warning names; the debug log names all
_WAYS = 10  # of reading tables that the log counts
# Connectors before this one saved one cursor for all tables, which is of no use here.
_LEGACY = "last_sync_time"


def validate_configuration(configuration: Mapping[str, str]) -> Settings:
    """The settings. Raises ValueError with a line for each key that is wrong."""
    settings = read(Settings, configuration, check_login)
    if not settings.mssql_encrypt:
        Logging.warning("mssql_encrypt is false: password and data are sent unencrypted")
    elif settings.mssql_trust_server_certificate:
        Logging.warning(
            "mssql_trust_server_certificate is true: nothing proves that the server is the one "
            "that is meant"
        )
    return settings


@redact_errors
def schema(configuration: Mapping[str, str]) -> list[dict[str, Any]]:
    """The tables of the database as they are now, in the form that the SDK takes."""
    settings = validate_configuration(configuration)
    known_state = _state_at_hand()
    saved = _saved_state(known_state or {})
    session = connect_to_mssql(settings)
    try:
        read_at = time.monotonic()
        found = catalogue.read(session, _selection(settings))
        tables = _complete(session, found, saved, settings).tables
    finally:
        session.close()
    # A table that cannot be synced might be declared with another key than the destination's.
    declarations = [table.declaration() for table in tables if not table.fault]
    keys = {
        (entry.get("schema"), entry["table"]): {*entry.get("primary_key", ())}
        for entry in declarations
    }
    _declared[:] = [_Declared(keys, by_state=known_state is not None)]
    _found[:] = [_Found(found, settings, read_at)]
    return [*declarations, *TABLES]


@dataclass(frozen=True)
class _Declared:
    """The keys of the tables that schema() has declared, and whether it knew the state."""

    keys: Mapping[tuple[str | None, str], set[str]]  # by schema and table at the destination
    by_state: bool


@dataclass(frozen=True)
class _Found:
    """What schema() has found in the catalog views, by which settings, and when."""

    catalogue: Catalogue
    settings: Settings = field(repr=False)  # it has the password
    read_at: float


# What schema() has declared, if it was called in this process. A table that is stored with another
# key ends the sync of all tables, now or at the next sync.
_declared: list[_Declared] = []
# For the update() that follows: the catalogue of ten thousand tables is large.
_found: list[_Found] = []
_MOST_AGE = 300.0  # seconds; rights and sizes may change, which the server does not tell


def _saved_state(state: Mapping[str, Any]) -> State:
    """The state of the last sync. Raises StateError for one that no version wrote."""
    return State(
        state,
        (_LEGACY,),
        read_entry=lambda entry, label: TableState.from_json(entry, label).check(),
    )


def _state_at_hand() -> Mapping[str, Any] | None:
    """The state of the sync for which the SDK asks for the schema, None if it is not known.

    The SDK hands the state to update() alone, but it holds the keys that the destination has, and
    a table that is declared with another key ends the sync. Where the sync runs in this process,
    as with `fivetran debug`, the SDK keeps the state in the connector object.
    """
    return getattr(connector, "state", None)


@redact_errors
def update(configuration: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Syncs the tables. If some fail, the others are synced, then SourceError names those."""
    gc.freeze()  # what is imported stays: the many collections need not look through it
    settings = validate_configuration(configuration)
    saved = _saved_state(state)
    late_rows, lookback = LateRows(), timedelta(seconds=settings.lookback_seconds)
    session = connect_to_mssql(settings)
    try:
        database = _discover_as_declared(session, settings, saved)
        _warn(database)
        killed = was_killed(saved)
        _forget_other_tables(saved, database, was_killed=killed)
        snapshots = allows_snapshots(session)
        plans = _choose_plans(session, database, settings)
        plans = with_indexes(session, plans, len(database.all))
        _warn_of_full_reads(plans, settings)
        _warn_of_deleted_rows(plans, settings)
        if any(plan.captured for plan in plans):
            warn_of_lag(session)
        late_rows.look(session, plans, lookback, replica=is_replica(session))
    finally:
        session.close()

    workers = Workers(settings.parallel_tables, session.closed)
    sessions = [
        session.clone(snapshots=snapshots, workers=workers.count) for _ in range(workers.count)
    ]
    skipped = SkippedRecords(become="null")
    sync = Sync(
        get_table_data,
        saved,
        skipped,
        _encryption(settings),
        lookback,
        CHECKPOINT_INTERVAL,
        settings.slice_rows,
        settings.deleted_column or (),
        _unchanged(sessions[0], plans, saved),
        workers,
        late_rows,
        SourceClock(late_rows),
        WindowProbe(),
        Checkpoints(saved, CHECKPOINT_INTERVAL),
        SyncLog(len(plans)),
        _deletes(settings, database, saved, was_killed=killed),
    )
    tables = _in_order([TableSync(plan, sync) for plan in plans])
    _warn_of_moved(tables)
    sync.checkpoints.begin()
    for table in tables:
        sync.log.expect(table.plan.table.label, table.rows_to_read)
    gc.freeze()  # so do ten thousand tables
    try:
        outcomes = _sync_tables(tables, sessions, workers)
        report(outcomes, skipped.counts, times.now())
        sync.checkpoints.end()
        _raise_failures(tables, outcomes)
    finally:
        skipped.report()
        late_rows.report()
        for each in sessions:
            each.close()


def _unchanged(session: Session, plans: Sequence[Plan], saved: State) -> dict[str, int]:
    """Up to which version the tables that Change Tracking has no change of have none."""
    versions, tables = {}, []
    for table in (plan.table for plan in plans if plan.tracked and not plan.fault):
        state = TableState.from_json(saved.table(table.label), table.label)
        since = state.cursor.version
        resumes = state.read is not None or bool(table.reload_reason or table.postponed)
        if since is not None and state.cursor.tracked_since == table.tracked_since and not resumes:
            versions[table.label] = since
            tables.append(table)
    return unchanged(session, tables, versions) if tables else {}


def _deletes(
    settings: Settings, database: DatabaseSchema, saved: State, *, was_killed: bool
) -> Deletes:
    hours, others = hours_by_table(
        settings.full_refresh_hours, database.tables, settings.mssql_database
    )
    return Deletes(
        settings.delete_sweep_hours, hours, others, KeyBudget(saved), was_killed, minutes_now()
    )


def _encryption(settings: Settings) -> Encryption:
    """Encrypts positions with a key made from the secret of the login."""
    return Encryption(
        settings.mssql_password or settings.mssql_client_secret or "",
        f"{settings.mssql_database} {settings.mssql_user or settings.mssql_client_id}",
    )


def _in_order(tables: list[TableSync]) -> list[TableSync]:
    """Small tables and new ones come first. Logs how each is read."""
    tables.sort(key=lambda table: (not table.runs_first, table.plan.table.estimate or 0))
    _log_plans([table.plan for table in tables])
    return tables


def _sync_tables(
    tables: Sequence[TableSync], sessions: Sequence[Session], workers: Workers
) -> list[Outcome]:
    """Syncs the tables, until all are done or the server does not respond any more."""
    outcomes: list[Outcome] = []

    def sync_one(worker: int, table: TableSync) -> bool:
        session = sessions[worker]
        try:
            outcomes.append(Outcome(table, table.sync(session)))
            session.succeeded()
        except SourceUnavailable:
            raise
        except Exception as error:  # the others are synced all the same
            if session.closed.is_set():  # at Ctrl-C, which the caller raises
                return False
            label = table.plan.table.label
            failure = str(error) if isinstance(error, SourceError) else describe_defect(error)
            failure = failure.removeprefix(f"{label}: ")  # it may name the table already
            Logging.error(f"{label}: {failure}")
            # Not the error itself: its traceback would hold the last batch.
            outcomes.append(Outcome(table, error=failure))
            session.close()
            return not session.unreachable
        return True

    workers.run(tables, sync_one)
    return outcomes


def _raise_failures(tables: Sequence[TableSync], outcomes: Sequence[Outcome]) -> None:
    """Raises SourceError with the reasons of all tables that failed."""
    failures = [f"{outcome.label}: {outcome.error}" for outcome in outcomes if outcome.error]
    if failures:
        tried = {outcome.label for outcome in outcomes}
        left = [label for table in tables if (label := table.plan.table.label) not in tried]
        untried = f"; not tried: {_some(left)}" if left else ""
        reasons = "\n".join(failures[:_NAMED])
        if len(failures) > _NAMED:
            reasons += f"\nand {len(failures) - _NAMED} more, which are in the log"
        raise SourceError(f"{len(failures)} of {len(tables)} tables failed{untried}:\n{reasons}")


def configuration_form() -> ConfigurationForm:
    """The setup form: a field for each key, and tests that call the server."""
    tests = {
        "Connect, with encryption and certificate as configured": check_connection,
        "Find the tables, plan how to read them, and read a row of each": read_each_table,
        "Find columns that tell which rows changed": find_incremental_columns,
    }
    return setup_form(Settings, validate_configuration, tests)


def check_connection(settings: Settings) -> None:
    """A setup test: logs in, which verifies the certificate too. Raises SourceError."""
    session = connect_to_mssql(settings)
    try:
        session.with_retries("connecting", lambda: session.rows("SELECT 1 AS one"))
    finally:
        session.close()


def read_each_table(settings: Settings) -> None:
    """A setup test: logs the plan of each table, and reads a row of it in no order, which needs no
    index. Raises SourceError with the reasons of all tables that cannot be read."""
    session = connect_to_mssql(settings)
    failures = []
    try:
        database = _discover(session, settings)
        plans = _choose_plans(session, database, settings)
        _log_plans(plans)
        for plan in plans:
            table = plan.table
            if plan.fault:
                failures.append(f"{table.label}: {plan.fault}")
                continue
            sql, _ = Plan(table, None, ()).statement(limit=1)
            try:
                session.with_retries("a row", partial(session.rows, sql))
            except SourceError as error:
                failures.append(f"{table.label}: {error}")
                if session.unreachable:
                    break
    finally:
        session.close()
    if not database.tables:
        raise SourceError("There is no table that mssql_user may see: grant SELECT to it")
    if failures:
        raise SourceError("\n".join(failures))


def find_incremental_columns(settings: Settings) -> None:
    """A setup test: looks for columns that tell the changes. Raises SourceError where no table has
    one that the settings name, and others could be meant."""
    session = connect_to_mssql(settings)
    try:
        tables = _discover(session, settings).tables
    finally:
        session.close()
    plans = [choose(table, settings.incremental_column, versions=True) for table in tables]
    warning, found = full_read_warning(plans, settings.incremental_column)
    if found:
        raise SourceError(warning)
    if warning:
        Logging.warning(warning)


def _log_plans(plans: Sequence[Plan]) -> None:
    """Logs how each table is read; of many tables, how many are read in each way."""
    readable = [plan for plan in plans if not plan.fault]
    many = len(readable) > MANY_TABLES
    if many:
        Logging.info(_summary(readable))
    for plan in readable:
        estimate = plan.table.estimate
        about = f"about {estimate} rows" if estimate is not None else "no estimate"
        line = f"{plan.table.label}: {category(estimate)}, {about}, {plan}"
        (Logging.debug if many else Logging.info)(line)


def _summary(plans: Sequence[Plan]) -> str:
    rows = sum(plan.table.estimate or 0 for plan in plans)
    sizes = _counted(category(plan.table.estimate) for plan in plans)
    return (
        f"{len(plans):,} tables with about {rows:,} rows in all: {sizes}. They are read as "
        f"follows: {_counted(str(plan) for plan in plans)}. The debug log names each table"
    )


def _counted(words: Iterable[str]) -> str:
    """How often there is each word, the most frequent ones first."""
    found = Counter(words).most_common()
    listed = [f"{number:,} {word}" for word, number in found[:_WAYS]]
    left = sum(number for _, number in found[_WAYS:])
    return "; ".join([*listed, f"{left:,} otherwise"] if left else listed)


def connect_to_mssql(settings: Settings) -> Session:
    """A session that connects at its first statement, and again after a lost connection.

    It is encrypted, and the server's certificate and host name are verified, unless the settings
    say otherwise.
    """
    trust, closed = _trust(settings), Closed()
    log_in = _login(settings, closed)
    server, login_timeout = settings.mssql_server, settings.login_timeout_seconds
    known = settings.mssql_port or server.port or (None if server.instance else DEFAULT_PORT)
    advice = WINDOWS_ADVICE if settings.mssql_domain else {}
    if settings.mssql_client_secret:
        advice = PRINCIPAL_ADVICE

    def open_connection(read_timeout: float | None) -> Any:
        try:
            credentials = log_in()  # which have timeouts of their own
            limits = LoginLimits(login_timeout, closed, settings.max_value_mebibytes * 1024**2)
            return tds_patches.connect(
                trust,
                limits,
                dsn=server.host,
                # Asked each time: the port may change when the instance is restarted.
                port=known or ask_browser(server.host, server.instance, login_timeout, closed),
                database=settings.mssql_database,
                login_timeout=login_timeout,
                timeout=read_timeout or settings.query_timeout_seconds,
                appname=_APPLICATION,
                blocksize=_PACKET_SIZE,
                readonly=settings.read_only_intent,
                autocommit=True,
                **credentials,
            )
        except SourceError:  # of the tokens, the Browser, or the limits
            raise
        except Exception as error:  # what is no SQL Server may respond anything
            failure = explain_login(error, "connecting", settings.mssql_database, advice)
        raise failure

    retry = Retry(settings.retry_attempts, _BASE_DELAY, _LONGEST_DELAY)
    return Session(open_connection, retry, closed=closed)


def _trust(settings: Settings) -> str | None:
    """Which certificates are trusted, as ``tds_patches.connect`` takes it."""
    if not settings.mssql_encrypt:
        return None
    if settings.mssql_trust_server_certificate:
        return tds_patches.ANYONE
    return settings.mssql_ca_certificate or tds_patches.SYSTEM


def _login(settings: Settings, closed: Closed) -> Callable[[], dict[str, Any]]:
    """A function that returns the arguments of the driver for one login."""
    user, password = settings.mssql_user or "", settings.mssql_password or ""
    if settings.mssql_client_secret:
        tokens = AccessTokens(
            settings.mssql_authority_url,
            settings.mssql_tenant_id or "",
            settings.mssql_client_id or "",
            settings.mssql_client_secret,
            settings.login_timeout_seconds,
            Retry(settings.retry_attempts),
            closed,
        )
        return lambda: {"access_token_callable": partial(str, tokens())}
    if domain := settings.mssql_domain:
        host = settings.mssql_server.host
        return lambda: {"auth": tds_patches.WindowsLogin(domain, user, password, host)}
    return lambda: {"user": user, "password": password}


def get_table_data(
    session: Session,
    plan: Plan,
    start: str | None,
    end: str | None,
    after: Position | None,
    limit: int | None = None,
) -> Generator[list[Values], None, None]:
    """Streams the rows of ``plan`` from ``start`` on, before ``end`` and behind ``after``, up to
    ``limit`` of them, in batches of BATCH_SIZE rows or about LARGEST_BATCH bytes."""
    sql, parameters = plan.statement(start, end, after, limit=limit)
    width = plan.table.row_width
    narrow = width is not None and width * BATCH_SIZE <= session.largest_batch
    size_of: Callable[[Values], int] | None = None if narrow else size
    return session.stream(sql, parameters, BATCH_SIZE, size_of)


def _selection(settings: Settings) -> Selection:
    database = settings.mssql_database
    return Selection(
        table_patterns(settings.tables, database),
        table_patterns(settings.exclude_tables, database),
        column_patterns(settings.exclude_columns, database),
        settings.max_tables,
        table_patterns(settings.views, database),
        declared_keys(settings.keys, database),
    )


def _discover(session: Session, settings: Settings) -> DatabaseSchema:
    """The tables as they are now, as if none was ever synced."""
    return complete(session, catalogue.read(session, _selection(settings)), {})


def _complete(
    session: Session,
    found: Catalogue,
    saved: State,
    settings: Settings,
    *,
    keep_names: bool = True,
) -> DatabaseSchema:
    states = {
        label: TableState.from_json(entry, label)
        for label, entry in saved.values["tables"].items()
    }
    schemas = settings.destination_schemas
    return complete(session, found, states, keep_names=keep_names, schemas=schemas)


def _discover_as_declared(session: Session, settings: Settings, saved: State) -> DatabaseSchema:
    """The tables as they are now. A table that schema() has declared otherwise is not synced: the
    source has changed since, or schema() did not know the state."""
    found = _found_by_schema(session, settings)
    if found is None:
        found = catalogue.read(session, _selection(settings))
    if not _declared:
        return _complete(session, found, saved, settings)
    [declared] = _declared
    database = _complete(session, found, saved, settings, keep_names=declared.by_state)
    tables = [
        _if_declared(t, declared.keys.get((t.destination_schema, t.destination)))
        for t in database.tables
    ]
    return replace(database, tables=tuple(tables))


def _found_by_schema(session: Session, settings: Settings) -> Catalogue | None:
    """What schema() has found, if it did so just now by the same settings, and the server says
    that no table has changed since. None: the catalogue must be read again."""
    found = [_found.pop() for _ in _found[:]]
    fresh = [f for f in found if f.settings == settings and _age(f) <= _MOST_AGE]
    return next((f.catalogue for f in fresh if f.catalogue.is_current(session)), None)


def _age(found: _Found) -> float:
    return time.monotonic() - found.read_at


def _if_declared(table: SourceTable, declared: set[str] | None) -> SourceTable:
    """The table, with the reason if it cannot be synced now. ``declared``: its key then."""
    key = {column.destination for column in table.key}
    if table.fault or declared == key:
        return table
    if declared is None:
        return replace(table, postponed="it could not be read when the sync began")
    old, new = (", ".join(sorted(columns)) or "none" for columns in (declared, key))
    fault = (
        f"its key, {new}, is not the one that was declared when the sync began, {old}. If the "
        "next sync reports the same, give the table its old key again; or drop it at the "
        "destination, name it in exclude_tables for one sync, then remove it there: it is reloaded"
    )
    return replace(table, fault=fault, key_refused=True)


def _warn(database: DatabaseSchema) -> None:
    if len(database.warnings) <= _SINGLE_WARNINGS:
        for warning in database.warnings:
            op.warning(warning)
    else:  # the SDK shows ten, and drops the others from the log, too
        for warning in database.warnings:
            Logging.warning(warning)
        op.warning(
            f"{len(database.warnings)} warnings about tables and columns are in the log, the "
            "first: " + "; ".join(database.warnings[:_SINGLE_WARNINGS])
        )
    if excluded := database.over_limit:
        Logging.debug(f"Not synced, by max_tables: {', '.join(excluded)}")
        most, tables = len(database.tables), "table is" if len(excluded) == 1 else "tables are"
        op.warning(
            f"max_tables is {most:,}, but {most + len(excluded):,} tables match, so "
            f"{len(excluded):,} {tables} not synced: {_some(excluded)}. Set max_tables to "
            '"0" to sync all, or name those that you need in tables'
        )


def _warn_of_deleted_rows(plans: Sequence[Plan], settings: Settings) -> None:
    """A row without a key cannot be deleted."""
    names = settings.deleted_column or ()
    keyless = [
        plan.table.label
        for plan in plans
        if not (plan.fault or plan.table.key) and find_deleted_column(plan.table, names)
    ]
    if keyless:
        op.warning(
            f"deleted_column is not used of tables without a key, whose rows stay: "
            f"{_some(keyless)}"
        )


def _warn_of_full_reads(plans: Sequence[Plan], settings: Settings) -> None:
    warning, _ = full_read_warning(plans, settings.incremental_column)
    if warning:
        op.warning(warning)


def _warn_of_moved(tables: Sequence[TableSync]) -> None:
    if moved := [table.plan.table.label for table in tables if table.is_moved]:
        were = "1 table is" if len(moved) == 1 else f"{len(moved):,} tables are"
        op.warning(
            f"Schemas at the destination changed, by destination_schemas: {were} reloaded into "
            f"the new ones, and what the former ones hold stays as it is: {_some(moved)}"
        )


def _some(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return ", ".join(labels[:_NAMED]) + more


def _forget_other_tables(saved: State, database: DatabaseSchema, *, was_killed: bool) -> None:
    """Drops the cursors of tables that are not synced now, and miss changes: they are reloaded
    when they are synced again."""
    if saved.values["tables"] and not database.all:
        raise SourceError(
            "mssql_user sees no table, and saw some at the last sync: check mssql_database and "
            "the rights of mssql_user"
        )
    for label, entry in saved.values["tables"].items():
        if entry.get(READ) and TableState.from_json(entry, label).read is None:
            Logging.warning(
                f"{label}: the state of its unfinished read is not one that this version "
                "understands: the read restarts"
            )
    states = database.states
    if was_killed:
        Logging.info("The last sync was killed: rows may be sent again that did not change")
        states = {label: state.undigested() for label, state in states.items()}
    saved.values["tables"] = {label: state.to_json(label) for label, state in states.items()}


def _choose_plans(session: Session, database: DatabaseSchema, settings: Settings) -> list[Plan]:
    versions = tells_active_rowversions(session, database.tables)
    return [choose(t, settings.incremental_column, versions=versions) for t in database.tables]


connector = Connector(update=update, schema=schema, configuration_form=configuration_form)

if __name__ == "__main__":
    debug(connector, __file__)
