"""Paligo: users, taxonomies and assignments of a documentation team.

What the source sends: https://api.paligo.net/en/index-en.html
"""

import gc
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from itertools import chain, islice
from typing import Any

import requests
from fivetran_connector_sdk import ConfigurationForm, Connector, Logging
from requests.auth import HTTPBasicAuth

from shared import fields, times
from shared.errors import SourceError, redact_errors
from shared.form import setup_form
from shared.listing import RECORDS_AT_ONCE, Listing
from shared.local import debug
from shared.pages import NumberedPages, Page
from shared.report import SyncReport
from shared.rest import Response, RestClient, Retry, as_list, retry_after
from shared.rows import (
    Column,
    InvalidRecord,
    Row,
    Rows,
    Table,
    convert,
    plain_text,
    to_key,
)
from shared.settings import TOKEN, Kind, integer, read, setting
from shared.spool import Spool
from shared.state import State, Window, fix_oldest, not_understood, note_source, window

# Paligo counts the requests of one minute, for each endpoint and method.
RATE_LIMIT_SECONDS = 60
# A chain of parents longer than this is no hierarchy that a person has made.
DEEPEST_LEVEL = 1_000
LONGEST_PATH = 10_000  # characters
_KEPT_PATHS = 1_000  # for what is below them; all would take many times the memory of the records
BASE_URL_ADVICE = "base_url must be https://<instance>.paligoapp.com/api/v2, with your instance"


def _parse_user_name(text: str) -> str:
    if not re.fullmatch(r"[^:\x00-\x1f\x7f]+", text):
        raise ValueError
    text.encode()  # half of a surrogate pair cannot be sent
    return text


# RFC 7617, 2: a colon would end the user name.
USER_NAME = Kind("a name without colons or control characters", _parse_user_name)


@dataclass(frozen=True, repr=False)
class Settings:
    """The keys of configuration.json."""

    username: str = setting("User name", "The e-mail address of an administrator", USER_NAME)
    api_key: str = setting("API key", "From your account settings in Paligo", TOKEN, secret=True)
    base_url: str = fields.base_url(
        None, "https://<instance>.paligoapp.com/api/v2, with your instance"
    )
    sync_frequency_hours: int = fields.sync_frequency("4")
    initial_sync_days: int = setting(
        "Days of history",
        "Leave out assignments that last changed so many days before the first sync",
        integer(1, 365),
        default="90",
    )
    max_records_per_page: int = fields.page_size(1000, "100")
    request_timeout_seconds: int = fields.request_timeout("30")
    retry_attempts: int = fields.retries()
    parallel_requests: int = fields.parallel_requests()
    enable_incremental_sync: bool = fields.switch(
        "Incremental sync", "Off: every sync is a full refresh of the assignments"
    )
    reconcile_hours: int = fields.full_refresh_hours(
        "Hours between two full refreshes of the assignments, which find deletes"
    )
    enable_debug_logging: bool = fields.debug_log()


_TEXT, _ID, _TIME = Column(), Column(required=True), Column("UTC_DATETIME")
USERS = Table(
    "users",
    ("id",),
    {
        "id": _ID,
        "name": _TEXT,
        "email": _TEXT,
        "role": Column(sources=("role", "type")),
        "status": _TEXT,
        **dict.fromkeys(("created_at", "updated_at", "last_login", "sync_timestamp"), _TIME),
    },
)
TAXONOMIES = Table(
    "taxonomies",
    ("id",),
    {
        "id": _ID,
        "title": _TEXT,
        "color": _TEXT,
        "parent_id": Column(sources=("parent_id", "parent")),
        "level": Column("INT"),
        "path": _TEXT,
        **dict.fromkeys(("created_at", "updated_at", "sync_timestamp"), _TIME),
    },
)
ASSIGNMENTS = Table(
    "assignments",
    ("id",),
    {
        "id": _ID,
        "title": _TEXT,
        "description": Column(sources=("description", "message")),
        "assignee_id": _TEXT,
        "assigner_id": Column(sources=("assigner_id", "issuer_id")),
        "status": _TEXT,
        "priority": _TEXT,
        "due_date": Column("UTC_DATETIME", sources=("due_date", "end_date")),
        **dict.fromkeys(("created_at", "updated_at", "completed_at", "sync_timestamp"), _TIME),
    },
)


def schema(configuration: Mapping[str, str]) -> list[dict[str, Any]]:  # noqa: ARG001
    """The tables, in the form that the SDK takes; they are the same for all configurations."""
    return [table.schema() for table in (USERS, TAXONOMIES, ASSIGNMENTS)]


def validate_configuration(configuration: Mapping[str, str]) -> Settings:
    """The settings. Raises ValueError with a line for each key that is wrong."""
    return read(Settings, configuration)


@redact_errors
def update(configuration: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Syncs the three tables, each from the whole of its list: Paligo has no filter."""
    gc.freeze()  # what is imported stays: the many collections need not look through it
    settings = validate_configuration(configuration)
    started = times.now()
    saved = State(state, (USERS.name, TAXONOMIES.name, ASSIGNMENTS.name))
    fix_oldest(saved, settings.initial_sync_days, started)
    if saved.values["oldest"] is None:
        raise not_understood("does not tell since when assignments are read")
    note_source(saved, settings.base_url)
    client = _connect(settings)
    sources = (
        (USERS, get_users_data, _map_user_data),
        (TAXONOMIES, get_taxonomies_data, _map_taxonomy_data),
        (ASSIGNMENTS, get_assignments_data, _map_assignment_data),
    )
    with SyncReport() as report:
        for table, get_data, map_data in sources:
            with report.attempt(table.name):
                Listing(
                    table,
                    get_time_range(settings, saved, table.name),
                    client,
                    pages=partial(get_data, client, settings),
                    to_rows=partial(map_data, synced_at=started),
                    changed_at=_changed_at,
                    volatile=("sync_timestamp",),
                    log_pages=settings.enable_debug_logging,
                ).sync(saved, report)


def configuration_form() -> ConfigurationForm:
    """The setup form: a field for each key, and a test that calls Paligo."""
    return setup_form(
        Settings, validate_configuration, {"Sign in, and read each table": read_each_table}
    )


def read_each_table(settings: Settings) -> None:
    """A setup test: the first record of each list. Raises SourceError."""
    client = _connect(settings)
    for table in (USERS, TAXONOMIES, ASSIGNMENTS):
        execute_api_request(client, table.name, 1, per_page=1)


def _connect(settings: Settings) -> RestClient:
    return RestClient(
        settings.base_url,
        settings.request_timeout_seconds,
        Retry(settings.retry_attempts),
        headers={"Accept": "application/json", "User-Agent": "fivetran-paligo-connector/1.0"},
        auth=_Credentials(settings.username.encode(), settings.api_key.encode()),
        explain=_handle_request_error,
        parallel=settings.parallel_requests,
        to_lower="max_records_per_page and parallel_requests",
    )


def get_time_range(settings: Settings, saved: State, table: str) -> Window:
    """Which rows of ``table`` to store: of assignments what changed since the cursor or, when a
    full refresh is due, since the oldest moment; of the others all, since they have no times."""
    if table != ASSIGNMENTS.name:
        return window(saved.table(table), reconcile_hours=0)
    hours = settings.reconcile_hours if settings.enable_incremental_sync else 0
    oldest = times.parse(saved.values["oldest"])
    return window(saved.table(table), hours, oldest, filters=False)


def _changed_at(row: Row) -> datetime | None:
    """The last change that a row tells of. Its creation says nothing about later changes."""
    return max(filter(None, (row.get("updated_at"), row.get("completed_at"))), default=None)


class _Credentials(HTTPBasicAuth):
    """The user name and the API key, in the header of every request."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.register_hook("response", _handle_rate_limit)  # type: ignore[no-untyped-call]
        super().__call__(request)  # type: ignore[no-untyped-call]
        return request


def _handle_rate_limit(response: requests.Response, **_: Any) -> None:
    """Sees to it that a 429 says how long to wait: Paligo leaves ``Retry-After`` out at times, and
    the usual back-off would use up its retries within the minute that the limit lasts."""
    if response.status_code == 429 and retry_after(response.headers) is None:
        response.headers["Retry-After"] = str(RATE_LIMIT_SECONDS)


def _handle_request_error(response: Response) -> str:
    """Advice on a response that no retry changes."""
    advice = {
        401: "Paligo refuses username and api_key: check both in your account settings",
        403: "This user may not read the list: use the API key of an administrator",
    }.get(response.status)
    if advice and "json" in response.headers.get("Content-Type", ""):
        return advice
    return f"{advice}. {BASE_URL_ADVICE}" if advice else BASE_URL_ADVICE


def execute_api_request(client: RestClient, resource: str, number: int, per_page: int) -> Page:
    """Page ``number`` (from 1) of the list of a resource. Raises SourceError for what is no page.

    Paligo sends ``{"page", "next_page", "total_pages", "<resource>": [...]}``, with an empty
    ``next_page`` on the last page; the records may also stand under ``data``.
    """
    url = f"{client.base_url}/{resource}"
    response = client.get(url, {"page": number, "per_page": per_page})
    where = f"page {number}: {url}"
    found = response.get(resource, response.get("data")) if isinstance(response, dict) else None
    records = as_list(found)
    if records is None or response.get("error"):
        raise SourceError(f'{where}: the response has no list "{resource}" or "data"')
    try:
        current, pages = (
            convert([response.get(key)], "LONG", key)[0] for key in ("page", "total_pages")
        )
    except InvalidRecord as reason:
        raise SourceError(f"{where}: in the response {reason}") from None
    more = bool(response["next_page"]) if "next_page" in response else None
    return Page(records, number, pages, more=more, current=current)


def _count_records(client: RestClient, resource: str) -> int | None:
    """How many records a list has. Paligo tells the number of pages only; of pages with one
    record each, that is the number of records. None where it does not send such pages."""
    page = execute_api_request(client, resource, 1, per_page=1)
    return page.pages if len(page.records) == 1 else None


def _get_pages(client: RestClient, settings: Settings, resource: str) -> Iterator[Page]:
    """The pages of a list, up to the last one that ``total_pages`` or ``next_page`` announces or,
    where both are missing, up to an empty one; each with the number of records in the list."""
    where, size = f"{client.base_url}/{resource}", settings.max_records_per_page
    total = _count_records(client, resource)
    fetch = partial(execute_api_request, client, resource, per_page=size)
    number = 0
    for page in NumberedPages(client, where, fetch, size, ("id",)):
        page.total, number = total, page.number
        yield page
        del page  # it may be large, and so may the next one
    if number > 2:
        # Of pages that are read at once, a delete may take a record from one to another that has
        # come already, and leave their sum as it was.
        yield Page([], number, total=_count_records(client, resource))


def get_users_data(client: RestClient, settings: Settings) -> Iterator[Page]:
    """Pages of users."""
    return _get_pages(client, settings, "users")


def get_taxonomies_data(client: RestClient, settings: Settings) -> Iterator[Page]:
    """Pages of taxonomies, with ``level`` and ``path`` in every record for which they are known.

    A record tells its parent alone, and a parent may come on a later page, so the records wait
    until all have come: the first 8 MB in memory, the others compressed on disk.
    """
    pages = list[tuple[Page, int]]()  # each without its records, and the number of its batches

    def records() -> Iterator[Any]:
        for page in _get_pages(client, settings, "taxonomies"):
            starts = range(0, len(page.records), RECORDS_AT_ONCE)
            for start in starts:
                waiting.add(page.records[start : start + RECORDS_AT_ONCE])
            pages.append((replace(page, records=[]), len(starts)))
            yield from page.records
            del page  # it may be large, and so may the next one

    with Spool() as waiting:
        tree, batches = _Tree(records()), waiting.batches()
        for page, count in pages:
            mine = chain.from_iterable(islice(batches, count))
            yield replace(page, records=[*map(tree.placed, mine)])
    if tree.too_long:
        Logging.warning(
            f"{TAXONOMIES.name}: the path of {tree.too_long} is null, since it is longer than "
            f"{LONGEST_PATH} characters"
        )


def get_assignments_data(client: RestClient, settings: Settings) -> Iterator[Page]:
    """Pages of all assignments; those that did not change are not stored again."""
    return _get_pages(client, settings, "assignments")


class _Tree:
    """Tells the level and the path of taxonomies from the parents that they name.

    A root names no parent: null, "" or 0. Where no record does so and the parents that are not
    listed are one and the same id, that is the top of the tree, and who names it is a root.
    """

    def __init__(self, records: Iterable[Any]) -> None:
        self._titles: dict[str, str | None] = {}  # of each id
        self._parents: dict[str, str] = {}  # of each id
        named: dict[str, str] = {}  # as a parent; of equal texts one is kept
        for record in records:
            if isinstance(record, dict):
                parent = _parent(record)
                parent = named.setdefault(parent, parent)
                if id_ := _id_text(record.get("id")):
                    self._parents[id_] = parent
                    self._titles[id_] = plain_text(record.get("title"))
        unlisted = named.keys() - self._parents.keys()
        self._tops = unlisted & {"", "0"} or (unlisted if len(unlisted) == 1 else set())
        self._levels: dict[str, int | None] = dict.fromkeys(self._tops, -1)
        self._paths: dict[str, str | None] = {}  # of the last ones that were asked for
        self.too_long = 0  # paths that were asked for

    def placed(self, record: Any) -> Any:
        """``record`` with level and path, unless the source gave them. They stay unknown in a
        circle of parents, below a parent that is not listed, and below what is unknown; a path
        also where a title is missing, and where it is longer than LONGEST_PATH."""
        if not isinstance(record, dict):
            return record
        parent = _parent(record)
        level = _below(self._level(parent))
        if level is None:
            return record
        derived: dict[str, Any] = {}
        if record.get("level") is None:
            derived["level"] = level
        if record.get("path") is None:
            derived["path"] = self._path(record, parent)
        return {**record, **derived}

    def _level(self, id_: str) -> int | None:
        """How far below the roots a taxonomy is, -1 for the top of the tree; None: unknown."""
        way = []
        while id_ in self._parents and id_ not in self._levels:
            self._levels[id_] = None  # who comes here again goes in a circle
            way.append(id_)
            id_ = self._parents[id_]
        level = self._levels.get(id_)
        for each in reversed(way):
            self._levels[each] = level = _below(level)
        return level

    def _path(self, record: dict[str, Any], parent: str) -> str | None:
        """Of a record whose level is known."""
        title = plain_text(record.get("title"))
        path = title
        if parent not in self._tops:
            above = self._path_above(parent)
            path = None if title is None or above is None else f"{above}/{title}"
        if path is None or len(path) <= LONGEST_PATH:
            return path
        self.too_long += 1
        return None

    def _path_above(self, id_: str) -> str | None:
        """The path of a listed taxonomy; of one that is too long, its end."""
        if id_ not in self._paths:
            titles, length, at = list[str | None](), 0, id_
            while at not in self._paths and at not in self._tops and length <= LONGEST_PATH:
                titles.append(self._titles[at])
                length += len(titles[-1] or "") + 1
                at = self._parents[at]
            if at in self._paths:
                titles.append(self._paths[at])
            known = [title for title in reversed(titles) if title is not None]
            if len(self._paths) >= _KEPT_PATHS:
                self._paths.clear()
            path = "/".join(known)[-LONGEST_PATH - 1 :]
            self._paths[id_] = path if len(known) == len(titles) else None
        return self._paths[id_]


def _below(level: int | None) -> int | None:
    """The level below ``level``."""
    return None if level is None or level >= DEEPEST_LEVEL else level + 1


def _parent(record: dict[str, Any]) -> str:
    """The parent's id as text, "" for none: Paligo's field is ``parent``."""
    given = record.get("parent_id")
    given = record.get("parent") if given is None else given
    return _id_text(given)


def _id_text(given: Any) -> str:
    """An id as its column holds it, "" for none."""
    try:
        return "" if given is None else to_key(given)
    except ValueError:
        return ""


def _map_user_data(records: list[Any], synced_at: datetime) -> Rows:
    return USERS.rows(records, sync_timestamp=synced_at)


def _map_taxonomy_data(records: list[Any], synced_at: datetime) -> Rows:
    return TAXONOMIES.rows(records, sync_timestamp=synced_at)


def _map_assignment_data(records: list[Any], synced_at: datetime) -> Rows:
    return ASSIGNMENTS.rows(records, sync_timestamp=synced_at)


connector = Connector(update=update, schema=schema, configuration_form=configuration_form)

if __name__ == "__main__":
    debug(connector, __file__)
