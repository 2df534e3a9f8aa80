"""SenSource: traffic and occupancy of physical spaces, hour by hour, and what they belong to.

What the source sends: https://vea.sensourceinc.com/api-docs/
"""

import json
import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import Any

import requests
from fivetran_connector_sdk import ConfigurationForm, Connector, Logging, Operations as op
from requests.auth import AuthBase

from setting_kinds import DATE, METRICS, Metric, each_once
from shared import times
from shared.errors import SourceError, TransientError, guarded
from shared.form import setup_form
from shared.listing import Listing
from shared.pages import Page, in_order, read_ahead
from shared.rest import RestClient, Retry
from shared.rows import Column, Rejects, Table, UnusableRecord
from shared.settings import TOKEN, URL, declared, integer, one_of, read, setting
from shared.state import State, window

API_URL = "https://vea.sensourceinc.com/api"
TOKEN_URL = "https://auth.sensourceinc.com/oauth/token"  # noqa: S105  # an address, no password
# A new token ends the one before it, and the token endpoint refuses clients that ask too often.
TOKEN_INTERVAL = 30.0  # seconds
STATIC_ENDPOINTS = ("location", "site", "zone", "space", "sensor")
ENTITIES = {"traffic": "zone", "occupancy": "space"}  # whose hours are in a table
OCCUPANCY_METRICS = "occupancy(max),occupancy(min),occupancy(avg)"
DAY = timedelta(days=1)
_PLAIN_WORD = re.compile(r"\(?[a-z]{1,19}(?:['-][a-z]{1,9})?[.,:;!?)]{0,2}")


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
    start_date: date = setting(  # noqa: RUF009  # it makes a field
        "Start date", "The first day to read", DATE, default="2022-01-01"
    )
    lookback_days: int = setting("Look-back", "Days to read again", integer(0, 30), default="2")
    chunk_days: int = setting("Days in a request", "30 or fewer", integer(1, 30), default="30")
    base_url: str = setting("Base URL", "Where the API is", URL, default=API_URL)
    auth_url: str = setting("Token URL", "Where the tokens are", URL, default=TOKEN_URL)
    request_timeout_seconds: int = setting(
        "Request timeout", "Seconds of silence that end a request", integer(1, 300), default="60"
    )
    retry_attempts: int = setting(
        "Retry attempts", "Repeats of a request that failed", integer(0, 10), default="3"
    )
    parallel_requests: int = setting(
        "Parallel requests", "Requests under way at once", integer(1, 4), default="4"
    )

    @property
    def metrics(self) -> dict[str, tuple[Metric, ...]]:
        """The metrics of each table of data."""
        return {"traffic": self.traffic_metrics, "occupancy": self.occupancy_metrics}


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


STATIC_TABLES = {
    name: _table(name, (f"{name}Id",), fields)
    for name, fields in {
        "location": {
            "STRING": "locationId orgId locationTypeId name description locationNumber country "
            "city postalCode state street shippingId",
            "DOUBLE": "latitude longitude",
            "UTC_DATETIME": "createdAt updatedAt",
        },
        "site": {"STRING": "siteId locationId"},
        "zone": {
            "STRING": "zoneId orgId name sensorId deviceId countType countFilter countApplication "
            "perimeter",
            "DOUBLE": "scaleFactor",
            "BOOLEAN": "disabled",
            "JSON": "settings",
            "UTC_DATETIME": "createdAt updatedAt",
        },
        "space": {"STRING": "spaceId name locationId", "LONG": "maxCapacity"},
        "sensor": {"STRING": "sensorId siteId"},
    }.items()
}


def _data_table(name: str, metrics: tuple[Metric, ...]) -> Table:
    entity_id, hour = f"{ENTITIES[name]}Id", "recordDate_hour_1"
    fields = {"STRING": f"{entity_id} name", "UTC_DATETIME": hour}
    for metric in metrics:
        fields[metric.type] = f"{fields.get(metric.type, '')} {metric.field}"
    return _table(name, (entity_id, hour), fields)


@guarded
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


@guarded
def update(configuration: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Replaces the static tables, then reads traffic and occupancy, chunk by chunk, each from its
    own cursor on."""
    settings = validate_configuration(configuration)
    today = times.now().date()
    saved, rejects = State(state, (*ENTITIES, *STATIC_ENDPOINTS)), Rejects()
    token, read_hours = Token(settings), Counter[str]()
    client = _connect(settings, token)
    try:
        for table in (STATIC_TABLES[endpoint] for endpoint in settings.static_endpoints):
            Listing(
                table,
                window(saved.table(table.name), reconcile_hours=0),
                pages=partial(fetch_static_data, client, table.name),
                to_rows=table.rows,
                cancel=client.closed.set,
            ).sync(saved, rejects)
        plans = [_plan(name, settings, saved.table(name), today) for name in ENTITIES]
        chunks = in_order(client, _chunks(client, plans, settings.chunk_days, today))
        for plan, start, end, records in read_ahead(chunks, client.closed.set):
            name = plan.table.name
            if "start" not in saved.table(name):
                op.truncate(name)  # a first load takes the place of what is there
            _store(plan.table, records, rejects, f"{start} to {end}")
            read_hours[name] += len(records)
            rejects.check(name, read_hours[name])
            saved.save({name: plan.entry(end, today)})
    finally:
        rejects.report()


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
        list(fetch_static_data(client, endpoint))
    for name in ENTITIES:
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
    )


def get_access_token(client: RestClient, settings: Settings) -> tuple[str, float]:
    """A new access token by the client credentials flow, and its lifetime in seconds, infinite if
    none is stated. Raises SourceError if there will be no token."""
    credentials = {"client_id": settings.client_id, "client_secret": settings.client_secret}
    answer = client.post("", json={"grant_type": "client_credentials", **credentials})
    try:
        return TOKEN.parse(answer["access_token"] or " "), float(answer.get("expires_in") or "inf")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise SourceError(f"{settings.auth_url}: no usable access token in the answer") from None


class Token(AuthBase):
    """The one access token of a sync, made at its first request and shared by its threads: a
    second one would end it, since SenSource keeps one token for an API client."""

    def __init__(self, settings: Settings) -> None:
        self._settings, self._lock, self._value = settings, threading.Lock(), ""
        self._made = self._renew_at = -math.inf
        self.client = RestClient(
            settings.auth_url,
            settings.request_timeout_seconds,
            Retry(settings.retry_attempts, base_delay=TOKEN_INTERVAL / 2),
            explain=lambda answer: "Check client_id, client_secret and auth_url",
            concerns_all=True,
        )

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        with self._lock:
            if times.now().timestamp() >= self._renew_at:
                self._make()
            request.headers["Authorization"] = f"Bearer {self._value}"
        return request

    def renew(self, refused: requests.PreparedRequest, refusals: int) -> bool:
        """After a 401: whether to repeat the request, once as it was, once with a new token.

        A token younger than TOKEN_INTERVAL is not replaced: it raises TransientError, so that the
        request is repeated when the interval is over.
        """
        with self._lock:
            if refusals == 2 and refused.headers["Authorization"] == f"Bearer {self._value}":
                age = times.now().timestamp() - self._made
                if 0 <= age < TOKEN_INTERVAL:
                    wait = TOKEN_INTERVAL - age
                    reason = "status 401, and the token is too new to replace"
                    raise TransientError(reason, wait, concerns_all=True)
                self._make()
        return refusals <= 2

    def _make(self) -> None:
        self._value, lifetime = get_access_token(self.client, self._settings)
        self._made = times.now().timestamp()
        self._renew_at = self._made + max(0.9 * lifetime, TOKEN_INTERVAL)
        Logging.info("A new access token is in use")


def _explain(answer: requests.Response) -> str:
    """What to do about an answer that no repeat will change."""
    return {
        400: "Check traffic_metrics and occupancy_metrics: SenSource may not know one of them",
        401: "SenSource refuses a token that it has just given. Does something else use the same "
        "API client? Each new token ends the one before it",
        403: "The API client may not read this: ask SenSource for the rights",
    }.get(answer.status_code, "Check base_url")


def make_request_with_retry(
    client: RestClient, path: str, params: Mapping[str, str] | None = None
) -> Any:
    """The JSON at ``path``; failures that can heal are repeated after a back-off. Raises
    SourceError, also for an ``error`` in an answer of status 200."""
    answer = client.get(path, params)
    if isinstance(answer, dict) and answer.get("error"):
        raise SourceError(f"{client.base_url}{path}: status 200, but the answer is an error")
    return answer


def fetch_static_data(client: RestClient, endpoint: str) -> Iterator[Page]:
    """All records of a static endpoint, as one page: SenSource does not divide them."""
    answer = make_request_with_retry(client, f"/{endpoint}")
    records = answer.get("results") if isinstance(answer, dict) else answer
    if not isinstance(records, list):
        raise SourceError(f"{client.base_url}/{endpoint}: status 200, but the answer is no list")
    yield Page(records)


@dataclass(frozen=True)
class Plan:
    """What to read of a table: the days from ``begin`` on. What it has is whole from ``start`` up
    to ``cursor``, as far as the source does not change it."""

    table: Table
    metrics: tuple[Metric, ...]
    begin: date
    start: date
    cursor: date

    def entry(self, end: date, today: date) -> dict[str, Any]:
        """The state of the table when it has the days before ``end``. Yesterday is never over:
        the account's zone may be behind UTC."""
        return {
            "cursor": max(self.cursor, min(end, today - DAY)).isoformat(),
            "start": self.start.isoformat(),
            "metrics": [metric.field for metric in self.metrics],
        }


def _plan(name: str, settings: Settings, entry: Mapping[str, Any], today: date) -> Plan:
    """Goes on from the cursor, less the look-back. Begins anew at ``start_date`` if there is no
    cursor, if it is ahead of the clock, or if an earlier day or another metric is wanted now."""
    metrics, start = settings.metrics[name], settings.start_date
    begin = whole_from = cursor = start
    if "start" in entry:
        known_from, known_to = (times.parse(entry[key]).date() for key in ("start", "cursor"))
        added = {metric.field for metric in metrics} - set(entry["metrics"])
        if known_from <= start and known_to <= today and not added:
            begin = max(start, known_to - settings.lookback_days * DAY)
            whole_from, cursor = (known_from if known_to >= start else start), known_to
    return Plan(_data_table(name, metrics), metrics, begin, whole_from, cursor)


def generate_date_ranges(start: date, end: date, days: int = 30) -> Iterator[tuple[date, date]]:
    """Half-open ranges ``[first, last)`` of at most ``days``, without a gap, from start to end."""
    while start < end:
        last = min(start + days * DAY, end)
        yield start, last
        start = last


Chunk = tuple[Plan, date, date, list[Any]]


def _chunks(
    client: RestClient, plans: list[Plan], days: int, today: date
) -> Iterator[Callable[[], Chunk]]:
    """All chunks, up to two days after today's UTC date: so all of today is inside in every zone,
    and so are hours a little ahead of the clock."""
    begin = min(plan.begin for plan in plans)
    for start, end in generate_date_ranges(begin, today + 2 * DAY, days):
        for plan in plans:
            if (first := max(start, plan.begin)) < end:
                yield partial(fetch_data, client, plan, first, end)


def fetch_data(client: RestClient, plan: Plan, start: date, end: date) -> Chunk:
    """The hours of ``[start, end)``. SenSource takes both as midnights in the account's zone."""
    path = f"/data/{plan.table.name}"
    params = {
        "relativeDate": "custom",
        "startDate": start.isoformat(),
        "endDate": end.isoformat(),
        "dateGroupings": "hour",
        "entityType": ENTITIES[plan.table.name],
        "metrics": ",".join(metric.name for metric in plan.metrics),
    }
    answer = make_request_with_retry(client, path, params)
    records = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(records, list):
        raise SourceError(f'{client.base_url}{path}: status 200, but no list "results"')
    Logging.info(f"{plan.table.name}: {start} to {end}, {len(records)} hours read")
    _log_messages(plan.table.name, answer.get("messages"), records)
    return plan, start, end, records


def _log_messages(table: str, messages: Any, records: list[Any]) -> None:
    """Logs what the source says of an answer: its plain words, but nothing that may be a value."""
    names = {str(record.get("name") or "\n") for record in records if isinstance(record, dict)}
    for message in messages[:5] if isinstance(messages, list) else [messages] if messages else []:
        text = str(message)
        for name in names:
            text = text.replace(name, " * ")
        words = (text[:1].lower() + text[1:]).split()[:30]
        plain = " ".join(word if _PLAIN_WORD.fullmatch(word) else "*" for word in words)
        Logging.warning(f"{table}: the source says: {plain}")


def _store(table: Table, records: list[Any], rejects: Rejects, where: str) -> None:
    for position, row in enumerate(table.rows(records), 1):
        if isinstance(row, UnusableRecord):
            rejects.add(table.name, f"{where}, record {position}", row)
        else:
            op.upsert(table.name, row)


connector = Connector(update=update, schema=schema, configuration_form=configuration_form)

if __name__ == "__main__":
    with open("configuration.json") as file:
        connector.debug(configuration=json.load(file))
