"""Dentally: sites, treatment rooms and treatments of dental practices.

What the source sends: https://developer.dentally.co
"""

import gc
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any

from fivetran_connector_sdk import ConfigurationForm, Connector, Logging

from saved_tokens import Tokens
from shared import fields, times
from shared.errors import SourceError, redact_errors
from shared.form import setup_form
from shared.listing import Listing
from shared.local import debug
from shared.network import Closed
from shared.oauth import AccessToken, request_token
from shared.pages import NumberedPages, Page
from shared.report import SyncReport
from shared.rest import Response, RestClient, Retry, as_list, error_code
from shared.rows import Column, Rows, Table, decimal, plain_text, to_flag
from shared.settings import TOKEN, URL, integer, read, setting
from shared.state import State, Window, fix_oldest, note_source, window

PRODUCTION_URL = "https://api.dentally.co"
SANDBOX_URL = "https://api.sandbox.dentally.co"
# Without a User-Agent of its own kind a request is answered with 403.
USER_AGENT = "fivetran-dentally-connector/1.0"
_RESYNC = (
    "A re-sync forgets the renewed tokens, which are in the state: put new tokens into the "
    "configuration before one"
)
Since = datetime | None
GetData = Callable[..., Iterator[Page]]


@dataclass(frozen=True, repr=False)
class Settings:
    """The keys of configuration.json."""

    client_id: str = setting("Client ID", "From your application in the Developer Portal", TOKEN)
    client_secret: str = setting(
        "Client secret", "From your application in the Developer Portal", TOKEN, secret=True
    )
    access_token: str = setting("Access token", "From the OAuth2 flow", TOKEN, secret=True)
    refresh_token: str = setting("Refresh token", "From the OAuth2 flow", TOKEN, secret=True)
    use_sandbox: bool = fields.switch(
        "Use the sandbox", "Read from Dentally's sandbox, not production", "false"
    )
    base_url: str | None = setting(
        "Base URL", "Another host, for accounts in Canada or APAC", URL, default=""
    )
    sync_frequency_hours: int = fields.sync_frequency("6")
    initial_sync_days: int | None = setting(
        "Days of history",
        "Leave out records not updated in so many days before the first sync; empty: take all",
        integer(1, 365),
        default="",
    )
    max_records_per_page: int = fields.page_size(100, "100")
    request_timeout_seconds: int = fields.request_timeout("30")
    retry_attempts: int = fields.retries()
    parallel_requests: int = fields.parallel_requests()
    enable_incremental_sync: bool = fields.switch(
        "Incremental sync", "Off: every sync reads everything"
    )
    reconcile_hours: int = fields.full_refresh_hours(
        "Hours between two full refreshes, which find deletes"
    )
    enable_rooms_sync: bool = fields.switch("Rooms", "Read rooms")
    enable_sites_sync: bool = fields.switch("Sites", "Read sites")
    enable_treatments_sync: bool = fields.switch("Treatments", "Read treatments")
    enable_debug_logging: bool = fields.debug_log()

    @property
    def api_url(self) -> str:
        return self.base_url or (SANDBOX_URL if self.use_sandbox else PRODUCTION_URL)


def _address(site: Mapping[str, Any]) -> str | None:
    """The address of a site in one line, from an object or from the fields that hold its parts:
    those that are a text or a number."""
    parts = site.get("address")
    if not isinstance(parts, dict):
        names = ("address_line_1", "address_line_2", "town", "county", "postcode")
        parts = {name: site.get(name) for name in names}
    lines = (plain_text(part) for part in parts.values() if part)
    return ", ".join(line for line in lines if line) or None


def _site_id(room: Mapping[str, Any]) -> Any:
    """Raises ValueError for an id that is neither a text nor a number."""
    site = room.get("site")
    site_id = site.get("id") if isinstance(site, dict) else None
    if site_id is not None and plain_text(site_id) is None:
        raise ValueError
    return site_id


def _status(record: Mapping[str, Any]) -> str | None:
    """Raises ValueError for an ``active`` that is neither yes nor no."""
    active = record.get("active")
    if active is None or plain_text(active) == "":
        return None
    return "active" if to_flag(active) else "inactive"


_TEXT, _ID = Column(), Column(required=True)
_TIMES = dict.fromkeys(("created_at", "updated_at", "timestamp"), Column("UTC_DATETIME"))
ROOMS = Table(
    "rooms",
    ("id",),
    {
        "id": _ID,
        **dict.fromkeys(("name", "room_number", "equipment_type"), _TEXT),
        "site_id": Column(derive=_site_id),
        "status": Column(derive=_status),
        **_TIMES,
    },
)
SITES = Table(
    "sites",
    ("id",),
    {
        "id": _ID,
        "name": _TEXT,
        "address": Column(derive=_address),
        "phone": Column(sources=("phone", "phone_number")),
        "email": Column(sources=("email", "email_address")),
        "timezone": Column(sources=("timezone", "time_zone")),
        **_TIMES,
    },
)
TREATMENTS = Table(
    "treatments",
    ("id",),
    {
        "id": _ID,
        "name": Column(sources=("name", "nomenclature")),
        "code": _TEXT,
        "category": Column(sources=("category", "treatment_category_id")),
        "description": _TEXT,
        "default_fee": Column(decimal(19, 4)),
        "duration_minutes": Column("INT"),
        **_TIMES,
    },
)


def schema(configuration: Mapping[str, str]) -> list[dict[str, Any]]:  # noqa: ARG001
    """The tables, in the form that the SDK takes; they are the same for all configurations."""
    return [table.schema() for table in (SITES, ROOMS, TREATMENTS)]


def validate_configuration(configuration: Mapping[str, str]) -> Settings:
    """The settings. Raises ValueError with a line for each key that is wrong."""
    return read(Settings, configuration)


@redact_errors
def update(configuration: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Syncs the tables that are enabled, each with a cursor of its own."""
    gc.freeze()  # what is imported stays: the many collections need not look through it
    settings = validate_configuration(configuration)
    started = times.now()
    saved = State(state, ("sites", "rooms", "treatments"), f". {_RESYNC}")
    closed = Closed()
    tokens = _tokens(settings, saved, closed)
    client = _connect(
        settings, _handle_request_error, auth=tokens, unauthorized=tokens.renew, closed=closed
    )
    fix_oldest(saved, settings.initial_sync_days, started)
    note_source(saved, settings.api_url)
    with SyncReport() as report:
        for table, get_data, map_data in _enabled(settings):
            with report.attempt(table.name):
                tokens.renew_if_due()
                time_range = get_time_range(settings, saved, table.name)
                pages = partial(get_data, client, settings, time_range.since)
                Listing(
                    table,
                    time_range,
                    client,
                    pages=pages,
                    pages_again=partial(pages, descending=True),
                    to_rows=partial(map_data, synced_at=started),
                    changed_at=lambda row: row["updated_at"],
                    volatile=("timestamp",),
                    log_pages=settings.enable_debug_logging,
                ).sync(saved, report)


def _enabled(settings: Settings) -> list[tuple[Table, GetData, Callable[..., Rows]]]:
    """The tables that are enabled, how to get their pages and how to map their records."""
    sources: list[tuple[bool, Table, GetData, Callable[..., Rows]]] = [
        (settings.enable_sites_sync, SITES, get_sites_data, _map_site_data),
        (settings.enable_rooms_sync, ROOMS, get_rooms_data, _map_room_data),
        (settings.enable_treatments_sync, TREATMENTS, get_treatments_data, _map_treatment_data),
    ]
    return [(table, get, to_rows) for enabled, table, get, to_rows in sources if enabled]


def configuration_form() -> ConfigurationForm:
    """The setup form: a field for each key, and tests that call Dentally."""
    tests = {
        "Client ID and client secret": check_client,
        "Access token, and each table that is enabled": read_each_table,
    }
    return setup_form(Settings, validate_configuration, tests)


def check_client(settings: Settings) -> None:
    """A setup test: asks for tokens with a refresh token that does not exist. Who the client is
    is looked at first (RFC 6749, 6), and the real one, which may work only once, is not spent.
    Raises SourceError."""
    try:
        refresh_access_token(settings, "setup-test")
    except SourceError as refusal:
        if "invalid_grant" not in str(refusal):
            raise


def read_each_table(settings: Settings) -> None:
    """A setup test: the first record of each table, with the access token of the configuration.

    It is not renewed, for a test has no state to keep new tokens in. A connection that has synced
    has newer ones in its own, so a token that was valid once is no failure. Raises SourceError.
    """
    client = _connect(settings, _explain_setup, auth=_tokens(settings, State({}, ()), Closed()))
    try:
        for _, get_data, _ in _enabled(settings):
            next(get_data(client, replace(settings, max_records_per_page=1), None))
    except _Outdated:
        Logging.warning(
            "The access token is no longer valid. A sync renews it with refresh_token, which is "
            "not tested, for it may work only once"
        )


class _Outdated(SourceError):
    """The access token was valid once."""


def _explain_setup(response: Response) -> str:
    said = f"{response.headers.get('WWW-Authenticate')} {response.body!r}"
    if response.status == 401 and re.search("expired|revoked", said):
        raise _Outdated("the access token was valid once")
    return (
        "Dentally refuses access_token, and a test does not renew it: create new tokens in the "
        "Developer Portal and put access_token and refresh_token into the configuration"
        if response.status == 401
        else _handle_request_error(response)
    )


def get_time_range(settings: Settings, saved: State, table: str) -> Window:
    """What to read of ``table``: what changed since its cursor or, when it is due, all."""
    oldest = saved.values["oldest"]
    hours = settings.reconcile_hours if settings.enable_incremental_sync else 0
    return window(
        saved.table(table),
        hours,
        times.parse(oldest) if oldest else None,
        filters=table != SITES.name,  # they tell no times
    )


def _connect(settings: Settings, explain: Callable[[Response], str], **options: Any) -> RestClient:
    return RestClient(
        settings.api_url,
        settings.request_timeout_seconds,
        Retry(settings.retry_attempts),
        headers={"User-Agent": USER_AGENT},
        rate_limited=_handle_rate_limit,
        reset_header="X-RateLimit-Reset",
        explain=explain,
        parallel=settings.parallel_requests,
        to_lower="max_records_per_page and parallel_requests",
        **options,
    )


def _handle_rate_limit(response: Response) -> bool:
    """Dentally says "too many requests" with 403, too, and only its message tells that."""
    return response.status == 403 and b"rate limit" in response.body.lower()


def _handle_request_error(response: Response) -> str:
    """Advice on a response that no retry changes."""
    return {
        401: "Dentally refuses the access token even after a renewal: create new tokens in the "
        "Developer Portal and put access_token and refresh_token into the configuration",
        403: "The tokens may not read this: check the scopes of your application",
        404: "Check base_url and use_sandbox",
    }.get(response.status, "Check that base_url is a Dentally host")


def _tokens(settings: Settings, saved: State, closed: Closed) -> Tokens:
    return Tokens(
        settings.client_secret,
        settings.access_token,
        settings.refresh_token,
        # A response that is given up would be lost, and with it the tokens: only Ctrl-C does so.
        partial(refresh_access_token, settings, closed=closed.interrupted),
        saved,
    )


def refresh_access_token(
    settings: Settings, refresh_token: str, closed: Closed | None = None
) -> AccessToken:
    """New tokens for a refresh token. ``closed``, when it is set, ends the request. Raises
    SourceUnavailable if Dentally gives none."""

    def explain(response: Response) -> str:
        if error_code(response) == "invalid_client" or response.status == 401:
            return "Check client_id and client_secret"
        return (
            "The refresh token is used up or revoked: create new tokens in the Developer Portal "
            f"and put access_token and refresh_token into the configuration. {_RESYNC}"
        )

    form = {
        "grant_type": "refresh_token",
        "refresh_token": refresh_token,
        "client_id": settings.client_id,
        "client_secret": settings.client_secret,
    }
    client = _connect(settings, explain, concerns_all=True, closed=closed or Closed())
    return request_token(client, "/oauth/token", data=form)


def get_sites_data(
    client: RestClient, settings: Settings, since: Since, *, descending: bool = False
) -> Iterator[Page]:
    """Pages of practice sites. Sites carry no times, so they have no order to ask for."""
    del descending
    return _get_pages(client, settings, "sites", since)


def get_rooms_data(
    client: RestClient, settings: Settings, since: Since, *, descending: bool = False
) -> Iterator[Page]:
    """Pages of treatment rooms, in the order of their creation."""
    return _get_pages(client, settings, "rooms", since, **_by_creation(descending))


def get_treatments_data(
    client: RestClient, settings: Settings, since: Since, *, descending: bool = False
) -> Iterator[Page]:
    """Pages of treatments, in the order of their creation."""
    return _get_pages(client, settings, "treatments", since, **_by_creation(descending))


def _by_creation(descending: bool) -> dict[str, str]:
    return {"sort_by": "created_at", "sort_direction": "desc" if descending else "asc"}


def _get_pages(
    client: RestClient, settings: Settings, resource: str, since: Since, **order: str
) -> Iterator[Page]:
    """The pages of a resource, up to the last one that ``meta`` announces or, where it says
    nothing, up to an empty one."""
    size = settings.max_records_per_page
    params: dict[str, Any] = {"per_page": size, **order}
    if since:
        params["updated_after"] = times.to_text(since)
    fetch = partial(_get_page, client, resource, params)
    return iter(NumberedPages(client, f"/v1/{resource}", fetch, size, ("id",)))


def _get_page(client: RestClient, resource: str, params: Mapping[str, Any], number: int) -> Page:
    """Page ``number`` (from 1) of a resource. Raises SourceError for what is no page."""
    path, records, meta = f"/v1/{resource}", None, None
    where = f"page {number}: {path}"
    response = client.get(path, {**params, "page": number})
    if isinstance(response, dict):
        records = as_list(response.get(resource, response.get("data")))
        meta = response.get("meta") or {}
    if records is None or not isinstance(meta, dict):
        raise SourceError(f'{where}: the response has no list "{resource}" or "data"')
    try:
        numbers = ("current_page", "total_pages", "total")  # Dentally sends some as text
        current, pages, total = (int(meta[key]) if meta.get(key) else None for key in numbers)
    except (ValueError, TypeError, OverflowError):
        raise SourceError(f"{where}: meta holds what is no number") from None
    return Page(records, number, pages, total, current=current)


def _map_room_data(records: list[Any], synced_at: datetime) -> Rows:
    return ROOMS.rows(records, timestamp=synced_at)


def _map_site_data(records: list[Any], synced_at: datetime) -> Rows:
    return SITES.rows(records, timestamp=synced_at)


def _map_treatment_data(records: list[Any], synced_at: datetime) -> Rows:
    return TREATMENTS.rows(records, timestamp=synced_at)


connector = Connector(update=update, schema=schema, configuration_form=configuration_form)

if __name__ == "__main__":
    debug(connector, __file__)
