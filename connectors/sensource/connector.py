"""SenSource: traffic and occupancy of physical spaces, hour by hour, and what they belong to.

What the source sends: https://vea.sensourceinc.com/api-docs/
"""

import gc
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from typing import Any

import requests
from fivetran_connector_sdk import ConfigurationForm, Connector, Logging
from requests.auth import AuthBase

from hours import DAY, FIRST, UNPROVEN, Chunk, HoursState, HoursSync, Plan
from setting_kinds import DATE, METRICS, Metric, each_once
from shared import fields, times
from shared.errors import (
    SourceError,
    TransientError,
    redact_errors,
)
from shared.form import setup_form
from shared.listing import Listing
from shared.local import debug
from shared.oauth import AccessToken, request_token
from shared.pages import Page, in_order, read_ahead
from shared.report import Progress, SyncReport
from shared.rest import Response, RestClient, Retry, as_list
from shared.rows import Column, Table, counted
from shared.settings import TOKEN, URL, declared, integer, one_of, read, setting
from shared.state import State, TableState, window
from source_messages import Messages, plain_messages

API_URL = "https://vea.sensourceinc.com/api"
TOKEN_URL = "https://auth.sensourceinc.com/oauth/token"  # noqa: S105  # an address, no password
# A new token ends the one before it, and the token endpoint refuses clients that ask too often.
TOKEN_INTERVAL = 30.0  # seconds
STATIC_ENDPOINTS = ("location", "site", "zone", "space", "sensor")
ENTITIES = {"traffic": "zone", "occupancy": "space"}  # whose hours are in a table
OCCUPANCY_METRICS = "occupancy(max),occupancy(min),occupancy(avg)"

ENDPOINTS = each_once(f"some of {', '.join(STATIC_ENDPOINTS)}", one_of(*STATIC_ENDPOINTS).parse)


@dataclass(frozen=True, repr=False)
class Settings:
    """The keys of configuration.json."""

    client_id: str = setting("Client ID", "From SenSource", TOKEN)
    client_secret: str = setting("Client secret", "From SenSource", TOKEN, secret=True)
    traffic_metrics: tuple[Metric, ...] = setting(
        "Traffic metrics", "What to read for each zone", METRICS, default="ins,outs"
    )
    occupancy_metrics: tuple[Metric, ...] = setting(
        "Occupancy metrics", "What to read for each space", METRICS, default=OCCUPANCY_METRICS
    )
    static_endpoints: tuple[str, ...] = setting(
        "Static endpoints", "Listings to read", ENDPOINTS, default="location,site,zone,space"
    )
    enable_traffic_sync: bool = fields.switch("Traffic", "Read traffic")
    enable_occupancy_sync: bool = fields.switch("Occupancy", "Read occupancy")
    start_date: date = setting(  # noqa: RUF009  # it makes a field
        "Start date", "The first day to read", DATE, default="2022-01-01"
    )
    lookback_days: int = setting("Look-back", "Days to read again", integer(0, 30), default="2")
    chunk_days: int = setting("Days in a request", "30 or fewer", integer(1, 30), default="30")
    base_url: str = fields.base_url(API_URL)
    auth_url: str = setting("Token URL", "Where the tokens are", URL, default=TOKEN_URL)
    request_timeout_seconds: int = fields.request_timeout("60")
    retry_attempts: int = fields.retries()
    parallel_requests: int = fields.parallel_requests()

    @property
    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """The metrics of each table of data that is enabled."""
        tables = {
            "traffic": (self.enable_traffic_sync, self.traffic_metrics),
            "occupancy": (self.enable_occupancy_sync, self.occupancy_metrics),
        }
        return {name: metrics for name, (enabled, metrics) in tables.items() if enabled}


def _snake_case(field: str) -> str:
    """``zoneId`` as ``zone_id``, ``recordDate_hour_1`` as ``record_date_hour_1``."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", field).lower()


def _table(name: str, key: tuple[str, ...], fields: Mapping[str, str]) -> Table:
    """A table of the source's ``fields``, listed by type, in columns of their names in snake_case;
    a record may have either name."""
    columns = {
        _snake_case(field): Column(type_, (field, _snake_case(field)), required=field in key)
        for type_, names in fields.items()
        for field in names.split()
    }
    return Table(name, tuple(map(_snake_case, key)), columns)


# Beside these, each has its name, its organisation and the times of its changes.
STATIC_TABLES = {
    name: _table(
        name,
        (f"{name}Id",),
        {
            **fields,
            "STRING": f"{name}Id name orgId {fields.get('STRING', '')}",
            "UTC_DATETIME": "createdAt updatedAt",
        },
    )
    for name, fields in {
        "location": {
            "STRING": "locationTypeId description locationNumber country city postalCode state "
            "street shippingId",
            "DOUBLE": "latitude longitude",
        },
        "site": {"STRING": "locationId"},
        "zone": {
            "STRING": "sensorId deviceId countType countFilter countApplication perimeter",
            "DOUBLE": "scaleFactor",
            "BOOLEAN": "disabled",
            "JSON": "settings",
        },
        "space": {"STRING": "locationId", "LONG": "maxCapacity"},
        "sensor": {"STRING": "siteId"},
    }.items()
}


def _data_table(name: str, metrics: tuple[Metric, ...]) -> Table:
    entity_id, hour = f"{ENTITIES[name]}Id", "recordDate_hour_1"
    fields = {"STRING": f"{entity_id} name", "UTC_DATETIME": hour}
    for metric in metrics:
        fields[metric.type] = f"{fields.get(metric.type, '')} {metric.field}"
    return _table(name, (entity_id, hour), fields)


@redact_errors
def schema(configuration: Mapping[str, str]) -> list[dict[str, Any]]:
    """The tables, in the form that the SDK takes: those of the endpoints and metrics that are
    configured. Raises ValueError as ``validate_configuration`` does."""
    # update warns of keys that nobody knows; once is enough.
    known = {key: configuration[key] for key in declared(Settings) if key in configuration}
    settings = validate_configuration(known)
    tables = [_data_table(name, metrics) for name, metrics in settings.metrics.items()]
    tables += [STATIC_TABLES[endpoint] for endpoint in settings.static_endpoints]
    return [table.schema() for table in tables]


def validate_configuration(configuration: Mapping[str, str]) -> Settings:
    """The settings. Raises ValueError with a line for each key that is wrong."""
    return read(Settings, configuration)


@redact_errors
def update(configuration: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Replaces the static tables, then reads traffic and occupancy, chunk by chunk, each from its
    own cursor on. A table that fails leaves the others alone."""
    gc.freeze()  # what is imported stays: the many collections need not look through it
    settings = validate_configuration(configuration)
    today = times.now().date()
    tables = (*ENTITIES, *STATIC_ENDPOINTS)
    saved = State(state, tables, read_entry=_read_entry)
    client = _connect(settings, Token(settings))
    with SyncReport() as report, Messages() as said:
        for endpoint in settings.static_endpoints:
            with report.attempt(endpoint):
                _sync_listing(client, STATIC_TABLES[endpoint], saved, report, said)
        for name in settings.metrics:
            with report.attempt(name):
                plan = _plan(name, settings, saved.table(name), today)
                client.table = name
                with report.table(name, plan.mode) as counts:
                    hours = HoursSync(plan, today, saved, report.skipped, counts)
                    _sync_hours(client, hours, settings.chunk_days, said)


def _sync_listing(
    client: RestClient, table: Table, saved: State, report: SyncReport, said: Messages
) -> None:
    """Replaces a static table, but not by records that a message came with: they may not be all
    that there are. These are stored, and take nothing away."""
    to_read = window(saved.table(table.name), reconcile_hours=0)
    client.table = table.name
    with report.table(table.name, to_read.mode) as counts:
        # In a thread: a Ctrl-C right before a request does not end it, but the wait for a thread.
        fetch = partial(fetch_static_data, client, table.name)
        [(records, messages)] = in_order(client, [fetch])
        said.add(table.name, messages)
        listing = Listing(
            table,
            replace(to_read, full=not messages),
            client,
            pages=lambda: iter([Page(records)]),
            to_rows=table.rows,
        )
        listing.sync_counted(saved, report.skipped, counts)


def _sync_hours(client: RestClient, hours: HoursSync, days: int, said: Messages) -> None:
    """Reads the hours of a table, ``days`` in a request, and stores them. Raises SourceError when
    what came before the failure is stored."""
    chunks = in_order(client, _chunks(client, hours.plan, days, hours.today))
    hours.line = Progress(lambda: client.waited)
    with hours.waiting:
        try:
            for chunk in read_ahead(chunks, client.closed, client.ahead):
                said.add(hours.plan.table.name, chunk.messages)
                hours.add(chunk)
                del chunk  # it may be large, and so may the next one
            hours.end()
        except SourceError:
            hours.break_off()
            raise


def configuration_form() -> ConfigurationForm:
    """The setup form: a field for each key, and a test that calls SenSource."""
    return setup_form(
        Settings, validate_configuration, {"Sign in, and read each table": read_each_table}
    )


def read_each_table(settings: Settings) -> None:
    """A setup test: one token, for a second one would end it, and a request for each table that is
    configured, of one day where it is a table of hours. Raises SourceError."""
    today, client = times.now().date(), _connect(settings, Token(settings))
    for endpoint in settings.static_endpoints:
        fetch_static_data(client, endpoint)
    for name in settings.metrics:
        fetch_data(client, _plan(name, settings, {}, today), today - DAY, today)


def _connect(settings: Settings, token: "Token") -> RestClient:
    return RestClient(
        settings.base_url,
        settings.request_timeout_seconds,
        Retry(settings.retry_attempts),
        auth=token,
        unauthorized=token.renew,
        explain=_explain,
        parallel=settings.parallel_requests,
        closed=token.client.closed,
        to_lower="chunk_days and parallel_requests",
    )


def get_access_token(client: RestClient, settings: Settings) -> AccessToken:
    """A new access token by the client credentials flow. Raises SourceUnavailable if SenSource
    gives none."""
    credentials = {"client_id": settings.client_id, "client_secret": settings.client_secret}
    return request_token(client, "", json={"grant_type": "client_credentials", **credentials})


class Token(AuthBase):
    """The one access token of a sync, made at its first request and shared by its threads: a
    second one would end it, since SenSource keeps one token for an API client."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._lock = settings, threading.Lock()
        self._token: AccessToken | None = None
        self._made = -math.inf  # unix time in seconds
        self.client = RestClient(
            settings.auth_url,
            settings.request_timeout_seconds,
            Retry(settings.retry_attempts, base_delay=TOKEN_INTERVAL / 2),
            explain=lambda response: "Check client_id, client_secret and auth_url",
            concerns_all=True,
        )

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        with self._lock:
            token = self._token
            if token is None or (token.is_due and self._age() >= TOKEN_INTERVAL):
                token = self._make()
            request.headers["Authorization"] = f"Bearer {token.value}"
        return request

    def renew(self, refused: requests.PreparedRequest, refusals: int) -> bool:
        """After a 401: whether to send the request again, once as it was, once with a new token.

        A token younger than TOKEN_INTERVAL is not replaced: it raises TransientError, so that the
        request is retried when the interval is over.
        """
        with self._lock:
            used = self._token.value if self._token else ""
            if refusals == 2 and refused.headers["Authorization"] == f"Bearer {used}":
                age = self._age()
                if 0 <= age < TOKEN_INTERVAL:
                    wait = TOKEN_INTERVAL - age
                    reason = "status 401, and the token is too new to replace"
                    raise TransientError(reason, wait, concerns_all=True)
                self._make()
        return refusals <= 2

    def _age(self) -> float:
        return times.now().timestamp() - self._made

    def _make(self) -> AccessToken:
        self._token = token = get_access_token(self.client, self._settings)
        self._made = times.now().timestamp()
        Logging.info("A new access token is in use")
        return token


def _explain(response: Response) -> str:
    """Advice on a response that no retry changes."""
    return {
        400: "Check traffic_metrics and occupancy_metrics: SenSource may not know one of them",
        401: "SenSource refuses a token that it has just given. Does something else use the same "
        "API client? Each new token ends the one before it",
        403: "The API client may not read this: ask SenSource for the rights",
    }.get(response.status, "Check base_url")


def make_request_with_retry(
    client: RestClient,
    path: str,
    params: Mapping[str, str] | None = None,
    read: Callable[[Any], Any] = lambda response: response,
) -> Any:
    """What ``read`` makes of the JSON at ``path``; transient failures are retried after a
    back-off. Raises SourceError, also for an ``error`` in a response of status 200."""

    def read_response(response: Any) -> Any:
        if isinstance(response, dict) and response.get("error"):
            raise SourceError(f"{client.base_url}{path}: status 200, but the response is an error")
        return read(response)

    return client.get(path, params, read_response)


def fetch_static_data(client: RestClient, endpoint: str) -> tuple[list[Any], tuple[str, ...]]:
    """All records of a static endpoint, which SenSource does not divide into pages, and what it
    says of them. Raises SourceError."""

    def read(response: Any) -> tuple[list[Any], tuple[str, ...]]:
        return _read_results(response, f"{client.base_url}/{endpoint}", may_be_bare=True)

    found: tuple[list[Any], tuple[str, ...]]
    found = make_request_with_retry(client, f"/{endpoint}", read=read)
    return found


def _read_results(
    response: Any, where: str, *, may_be_bare: bool = False
) -> tuple[list[Any], tuple[str, ...]]:
    """The records of a response, and its messages in plain words; ``may_be_bare``: the list of
    records may be all of it. Raises SourceError if there is no list, and TransientError for a
    message without records: that is no empty list."""
    fields = response if isinstance(response, dict) else {}
    records = as_list(fields.get("results"))
    if records is None and may_be_bare:
        records = as_list(response)
    messages = plain_messages(fields.get("messages"), records or [])
    if messages and not records:
        raise TransientError(f"no results, but a message: {messages[0]}")
    if records is None:
        raise SourceError(f"{where}: status 200, but the response has no list of results")
    return records, messages


def _read_entry(entry: Any, _: str) -> object:
    return HoursState.from_json(entry) or TableState.from_json(entry)


def _plan(name: str, settings: Settings, entry: Mapping[str, Any], today: date) -> Plan:
    """Resumes at the cursor, less the look-back. Begins anew at ``start_date`` if there is no
    cursor, if it is ahead of the clock, or if an earlier day or another metric is wanted now; at
    the first day that the table has if a full refresh is due."""
    metrics, start = settings.metrics[name], settings.start_date
    table, fields = _data_table(name, metrics), tuple(metric.field for metric in metrics)
    before = HoursState.from_json(entry)
    if before is None:
        first = HoursState(start, start, fields, FIRST)
        return Plan(table, metrics, start, first, settings.lookback_days)
    begin = whole_from = cursor = start
    added = {*fields} - {*before.metrics}
    if before.start <= start and before.cursor <= today and not added:
        lookback = settings.lookback_days * DAY
        # Of a cursor near the year 1 no look-back can be subtracted.
        begin = before.cursor - lookback if before.cursor - start > lookback else start
        whole_from = before.start if before.cursor >= start else start
        cursor = before.cursor
    # A table with days that are not read cannot be replaced.
    load = before.load if whole_from <= before.start else ""
    if load == UNPROVEN:
        begin = whole_from
    after = HoursState(cursor, whole_from, fields, load, before.days)
    return Plan(table, metrics, begin, after, settings.lookback_days)


def generate_date_ranges(start: date, end: date, days: int = 30) -> Iterator[tuple[date, date]]:
    """Half-open ranges ``[first, last)`` of at most ``days``, without a gap, from start to end."""
    while start < end:
        last = min(start + days * DAY, end)
        yield start, last
        start = last


def _chunks(
    client: RestClient, plan: Plan, days: int, today: date
) -> Iterator[Callable[[], Chunk]]:
    """All chunks, up to two days after today's UTC date: so all of today is inside in every zone,
    and so are hours a little ahead of the clock."""
    for start, end in generate_date_ranges(plan.begin, today + 2 * DAY, days):
        yield partial(fetch_data, client, plan, start, end)


def fetch_data(client: RestClient, plan: Plan, start: date, end: date) -> Chunk:
    """The hours of ``[start, end)``. SenSource takes both as midnights in the account's zone.

    A message without results is no empty day: the request is retried. Raises SourceError,
    also when no record has the field of a metric that was asked for.
    """
    name = plan.table.name
    params = {
        "relativeDate": "custom",
        "startDate": start.isoformat(),
        "endDate": end.isoformat(),
        "dateGroupings": "hour",
        "entityType": ENTITIES[name],
        "metrics": ",".join(metric.name for metric in plan.metrics),
    }
    where = f"{client.base_url}/data/{name}"

    def read(response: Any) -> Chunk:
        records, messages = _read_results(response, where)
        return Chunk(start, end, _with_metrics(records, plan.metrics, where), messages)

    chunk: Chunk = make_request_with_retry(client, f"/data/{name}", params, read)
    Logging.info(f"{name}: {start} to {end}, {counted(len(chunk.records), 'hour')} read")
    return chunk


def _with_metrics(records: list[Any], metrics: tuple[Metric, ...], where: str) -> list[Any]:
    """``records`` with the fields of metrics under the names that the table knows, in whatever
    case they were sent. Raises SourceError for a metric that no record has."""
    objects = [record for record in records if isinstance(record, dict)]
    sent: set[str] = set().union(*objects)
    known = {metric.field for metric in metrics}
    spelled = {name: name.lower() for name in sent - known if name.lower() in known}
    missing = known - sent - set(spelled.values())
    if missing and objects:
        lacking = ", ".join(metric.name for metric in metrics if metric.field in missing)
        raise SourceError(
            f"{where}: status 200, but none of the {len(records)} hours has the metric {lacking}: "
            "check traffic_metrics and occupancy_metrics"
        )
    if not spelled:
        return records
    return [
        _respelled(record, spelled) if isinstance(record, dict) else record for record in records
    ]


def _respelled(record: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """``record`` with other ``names`` of its fields, but for one that would hide another field."""
    respelled: dict[str, Any] = {}
    for sent, value in record.items():
        name = names.get(sent, sent)
        is_taken = name != sent and (name in record or name in respelled)
        respelled[sent if is_taken else name] = value
    return respelled


connector = Connector(update=update, schema=schema, configuration_form=configuration_form)

if __name__ == "__main__":
    debug(connector, __file__)
