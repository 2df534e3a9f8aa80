"""Dexory: the scanned locations of a site, and the inventory objects expected in them.

Dexory publishes no reference of this API. What is said of it here comes from the specification
and from clients of it that others have written.
"""

import gc
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from itertools import chain, compress, islice
from typing import Any
from urllib.parse import urlencode

import requests
from fivetran_connector_sdk import ConfigurationForm, Connector, Logging, Operations as op
from requests.auth import AuthBase

from page_links import PATH, is_page, resolve
from shared import fields, times
from shared.completeness import Keys
from shared.errors import SourceError, SourceUnavailable, redact_errors
from shared.fingerprint import Encoder, Fingerprint, encode
from shared.form import setup_form
from shared.listing import RECORDS_AT_ONCE, REPLACED_AT_ONCE
from shared.local import debug
from shared.pages import LinkedPages, Page, Place, digest, read_ahead
from shared.report import Progress, SyncReport, TableCounts
from shared.rest import Response, RestClient, Retry, as_list
from shared.rows import Column, InvalidRecord, Row, Rows, SkippedRecords, Table, convert, counted
from shared.settings import TOKEN, Kind, integer, read, setting
from shared.spool import Spool
from shared.state import ODD, State, TableState, check_types, not_understood

BASE_URL = "https://api.service.dexoryview.com"
PAGES_AT_ONCE = 200  # a pass of more pages checkpoints after each further one
LONGEST_BREAK = timedelta(hours=1)  # the source serves a moving window, so places in it age


def _parse_seconds(text: str) -> float:
    if not (re.fullmatch(r"\d{1,2}(\.\d{1,3})?", text, re.ASCII) and 0.1 <= float(text) <= 60):
        raise ValueError
    return float(text)


SECONDS = Kind("a number of seconds from 0.1 to 60", _parse_seconds)


@dataclass(frozen=True, repr=False)
class Settings:
    """The keys of configuration.json."""

    site_name: str = setting("Site name", "The site to read, as Dexory names it")
    site_api_key: str = setting("API key", "The site's key, from Dexory", TOKEN, secret=True)
    base_url: str = fields.base_url(BASE_URL)
    customer: str | None = setting("Customer", "Your name at Dexory, if needed", default="")
    page_size: int = setting(
        "Page size", "Locations asked for in a request", integer(1, 1000), default="1000"
    )
    max_pages: int = setting(
        "Pages in a sync", "A sync ends after so many", integer(1, 100_000), default="1000"
    )
    retry_attempts: int = fields.retries()
    base_retry_delay: float = setting(
        "Retry delay", "Seconds before the first retry, then doubled", SECONDS, default="2"
    )
    request_timeout_seconds: int = fields.request_timeout("30")


_TEXT, _NUMBER = Column(), Column("LONG")
LOCATIONS = Table(
    "locations",
    ("name", "location_type", "aisle", "scan_date"),
    {
        "name": Column(required=True),
        **dict.fromkeys(("location_type", "aisle"), _TEXT),
        "scan_date": Column("UTC_DATETIME", required=True),
        "occupancy": Column("DOUBLE"),
        **dict.fromkeys(("zoning", "scanned_markers", "status", "status_type"), _TEXT),
        **dict.fromkeys(("message", "image_url"), _TEXT),
    },
)
# The specification has both names for the one field.
OBJECTS_FIELDS = ("expected_inventory_objects", "expected_inventory_object")
OBJECTS = Table(
    "expected_inventory_objects",
    (),
    {
        **{name: LOCATIONS.columns[name] for name in LOCATIONS.key},
        "occurrence": _NUMBER,
        **dict.fromkeys(("marker", "sku", "description"), _TEXT),
        **dict.fromkeys(("expected_weight_g", "quantity"), _NUMBER),
        **dict.fromkeys(("product_code", "part_number", "client", "supplier"), _TEXT),
        **dict.fromkeys(("batch", "lot", "awb", "tracking_number"), _TEXT),
        # Nothing says in which form Dexory writes these dates, so they stay what they are.
        **dict.fromkeys(("received_date", "expiry_date"), _TEXT),
        **{f"object_{name}": Column(sources=(name,)) for name in LOCATIONS.key},
    },
)


FROM_LOCATION = (*LOCATIONS.key, "occurrence")  # not fields of an object
# For locations that were never scanned, whose objects are expected all the same.
_UNSCANNED = Table(
    LOCATIONS.name,
    LOCATIONS.key[:-1],
    {**LOCATIONS.columns, "scan_date": replace(LOCATIONS.columns["scan_date"], required=False)},
)


def schema(configuration: Mapping[str, str]) -> list[dict[str, Any]]:  # noqa: ARG001
    """The tables, in the form that the SDK takes; they are the same for all configurations."""
    return [table.schema() for table in (LOCATIONS, OBJECTS)]


def validate_configuration(configuration: Mapping[str, str]) -> Settings:
    """The settings. Raises ValueError with a line for each key that is wrong."""
    return read(Settings, configuration)


@redact_errors
def update(configuration: Mapping[str, str], state: Mapping[str, Any]) -> None:
    """Reads the list of locations page by page, from its start or from where a sync stopped."""
    gc.freeze()  # what is imported stays: the many collections need not look through it
    settings = validate_configuration(configuration)
    saved = State(state, (OBJECTS.name,))
    with SyncReport() as report, Spool() as locations, Spool() as objects:
        current = Pass(saved, report.skipped, _first_link(settings), locations, objects)
        with (
            report.table(LOCATIONS.name, current.mode) as scans,
            report.table(OBJECTS.name, current.mode) as expected,
        ):
            current.counts = {LOCATIONS.name: scans, OBJECTS.name: expected}
            _store_pages(settings, saved, current)


def _store_pages(settings: Settings, saved: State, current: "Pass") -> None:
    """Stores the pages of a pass, up to its end or max_pages. Raises SourceError."""
    api_key = ApiKey(settings.site_api_key, in_query=saved.values.get("key_in_query") is True)
    client = _connect(settings, api_key)
    client.table = LOCATIONS.name
    current.line = Progress(lambda: client.waited)
    # The page that is read once more does not count: a limit of one page would not be passed.
    most = settings.max_pages + current.resumed
    pages = islice(_get_pages(client, settings, current), most)
    for count, page in enumerate(read_ahead(pages, client.closed, client.ahead), 1):
        current.store(page)
        saved.values["key_in_query"] = api_key.in_query
        if page.following is None:
            current.finish()
        elif page.number >= PAGES_AT_ONCE or count == most:
            current.save(page)
    if page.following:
        op.warning(
            f"{LOCATIONS.name}: there are more pages than max_pages. A sync that starts "
            "within an hour resumes here, a later one begins with the first page, and "
            f"{OBJECTS.name} that are gone are not deleted: raise max_pages"
        )
        current.check()


def configuration_form() -> ConfigurationForm:
    """The setup form: a field for each key, and a test that calls Dexory."""
    return setup_form(
        Settings, validate_configuration, {"Read the locations of the site": read_a_location}
    )


def read_a_location(settings: Settings) -> None:
    """A setup test: one request, for both tables come from one list. Raises SourceError."""
    client = _connect(settings, ApiKey(settings.site_api_key, in_query=False))
    fetch_locations_with_retry(client, settings, _first_link(replace(settings, page_size=1)))


def _connect(settings: Settings, api_key: "ApiKey") -> RestClient:
    return RestClient(
        settings.base_url,
        settings.request_timeout_seconds,
        Retry(settings.retry_attempts, settings.base_retry_delay),
        auth=api_key,
        unauthorized=api_key.try_other_place,
        explain=_explain,
        to_lower="page_size",
    )


class ApiKey(AuthBase):
    """The API key, in the header of a request or, for servers that want it there, in its query."""

    def __init__(self, key: str, *, in_query: bool) -> None:
        self._key, self.in_query = key, in_query

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self.in_query:
            request.prepare_url(request.url, {"api_key": self._key})
        else:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def try_other_place(self, refused: requests.PreparedRequest, refusals: int) -> bool:  # noqa: ARG002
        """Moves the key after a 401. The second one moves it back, and is final."""
        self.in_query = not self.in_query
        return refusals == 1


def _explain(response: Response) -> str:
    """Advice on a response that no retry changes."""
    return {
        401: "Dexory refuses the key in the header and in the query: check site_api_key",
        403: "The key may not read this: check site_api_key, site_name and customer",
        404: "Check site_name, customer and base_url",
    }.get(response.status, "Check that base_url is Dexory's API")


def _first_link(settings: Settings) -> str:
    query = {"site": settings.site_name, "page[size]": settings.page_size, "page[number]": 1}
    if settings.customer:
        query["customer"] = settings.customer
    return f"{settings.base_url}{PATH}?{urlencode(query)}"


def _get_pages(client: RestClient, settings: Settings, current: "Pass") -> Iterator[Page]:
    """Pages from where the pass stands. If the page of the last sync can no longer be read, they
    begin with the first one."""

    def fetch(link: str | None) -> tuple[Page, str | None]:
        first = _first_link(settings)
        records, following = fetch_locations_with_retry(client, settings, link or first)
        return Page(records), following

    pages = iter(LinkedPages(PATH, fetch, _identities, current.place))
    if current.resumed:
        try:
            first = next(pages)
        except SourceUnavailable:  # the first page could not be read, either
            raise
        except SourceError as reason:
            Logging.warning(f"A new pass begins, for the page of the last sync is gone: {reason}")
            pages = iter(LinkedPages(PATH, fetch, _identities, Place(_first_link(settings))))
        else:
            yield first
            del first
    yield from pages


def _identities(records: list[Any]) -> list[Any]:
    """What tells the locations of a page from others: the fields of the key, as they were sent, ""
    for what is missing; of a location without a name, all that it holds."""
    return [
        tuple(record.get(name) or "" for name in LOCATIONS.key)
        if isinstance(record, dict) and record.get("name")
        else record
        for record in records
    ]


def fetch_locations_with_retry(
    client: RestClient, settings: Settings, link: str
) -> tuple[list[Any], str | None]:
    """The locations of the page at ``link``, and the link of the next one.

    A transient failure is retried after ``base_retry_delay * 2**retry`` seconds, half of them
    random. The list ends where ``links.next`` is null or, where that is missing, ``links.last`` is
    this very page, as JSON:API has it; nowhere else. Raises SourceError.
    """
    response = client.get(link)
    data, links = (
        map(response.get, ("data", "links")) if isinstance(response, dict) else (None, None)
    )
    records, key = as_list(data), settings.site_api_key
    if records is None or not isinstance(links, dict):
        raise SourceError(f'{PATH}: the response has no list "data", or no object "links"')
    if "next" not in links and not is_page(link, links.get("last"), key):
        raise SourceError(f'{PATH}: "links" has no "next", and "last" is not this page')
    following = links.get("next")
    try:
        return records, None if following is None else resolve(link, following, key)
    except (ValueError, TypeError, AttributeError):
        raise SourceError(f"{PATH}: links.next is not the link of a page") from None


@dataclass(frozen=True)
class Stop:
    """Where a pass stopped, as ``stop`` in the state.

    list      the digest of the first link: the list that the place is in
    started   when the pass began
    saved_at  when it stopped
    place     link, number and mark of the page that was stored last
    """

    list: str
    started: datetime
    saved_at: datetime
    place: Place

    @classmethod
    def from_json(cls, stop: Any) -> "Stop | None":
        """Raises StateError for what is no stop; None is none."""
        if not stop:
            return None
        try:
            place = Place(stop["link"], stop["number"], stop["mark"])
            started, saved_at = times.parse(stop["started"]), times.parse(stop["saved_at"])
            read = cls(stop["list"], started, saved_at, place)
            check_types(place)
            if not isinstance(read.list, str) or place.number < 1 or "://" not in stop["link"]:
                raise ValueError
        except ODD:
            raise not_understood("holds no place in the list") from None
        return read

    def to_json(self) -> dict[str, Any]:
        moments = {"started": self.started, "saved_at": self.saved_at}
        texts = {name: times.to_text(moment) for name, moment in moments.items()}
        return {"list": self.list, **texts, **asdict(self.place)}

    def is_valid(self, first: str, now: datetime) -> bool:
        """Whether the next sync may resume there: in the same list, within LONGEST_BREAK."""
        return self.list == first and timedelta(0) <= now - self.saved_at <= LONGEST_BREAK


class Pass:
    """One read of the whole list, by one sync or by several.

    The next sync reads the page at which the last one stopped again, for rows may have moved. If
    that is too long ago, or was in another list, a new pass begins.

    Objects wait, and locations if the state tells which of them the destination has, each in their
    Spool, until the pass has proven whole. Then the objects replace their table, and of the
    locations, whose table keeps every scan, those are sent that the destination does not have;
    where neither changed, nothing is. Before a checkpoint
    within the pass all are handed over, so that none is lost. In the TableState of the objects'
    table, ``rows`` is how many objects the last whole pass left or, where it left none or there
    was none, a number of those that were added since.
    """

    def __init__(
        self,
        saved: State,
        skipped: SkippedRecords,
        first: str,
        waiting_locations: Spool,
        waiting_objects: Spool,
    ) -> None:
        self._saved, self._skipped = saved, skipped
        self._waiting, self._spool = waiting_locations, waiting_objects
        self.counts = {name: TableCounts("") for name in (LOCATIONS.name, OBJECTS.name)}
        self.line = Progress()
        self._never_scanned = 0  # locations, in this sync
        self._storable = 0  # locations, in this sync
        self._keys, self._on_pages = Keys(), 0  # those of locations that are distinct on a page
        self._table_state, now = TableState.from_json(saved.table(OBJECTS.name)), times.now()
        self._list, self._now = digest(first), now
        self._too_many = False  # objects came to wait
        stop = Stop.from_json(saved.values.get("stop"))
        self.resumed = stop is not None and stop.is_valid(self._list, now)
        self.place, self._started, self.mode = Place(first), now, "new pass, from the first page"
        if stop and self.resumed:
            self.place, self._started = stop.place, stop.started
            self.mode = f"resumed pass, at page {stop.place.number}"
        self._begun = False  # whether this sync has read the first page
        self._streams = self.resumed  # whether rows are handed over as they come
        self._told = _Fingerprints(saved.table(LOCATIONS.name), self._table_state)
        self._table_state = replace(self._table_state, fingerprint="")

    def store(self, page: Page) -> None:
        """Hands the locations of a page over. Its objects wait, are handed over, or both."""
        if page.number == 1:
            self._started, self._begun, self._streams = self._now, True, False
        records, before, keys = page.records, 0, list[tuple[Any, ...]]()
        page.records = []  # it may be large, and the next one is read while this one has a name
        for portion in _take_objects(records):
            keys += self._store(portion, f"page {page.number}, record ", before)
            before += len(portion)
        self._on_pages += self._keys.add(keys)
        if self.line.is_due:
            seen = self._seen(LOCATIONS)
            text = self.line.text(seen, "record", seen, None)
            Logging.info(f"{LOCATIONS.name}: page {page.number}, {text}")

    def _store(
        self, portion: list[tuple[Any, list[Any]]], where: str, before: int
    ) -> list[tuple[Any, ...]]:
        """Takes locations, each with its objects, after so many ``before`` on their page. Returns
        the keys of the locations."""
        found = self._locations([record for record, _ in portion], where, before)
        locations, objects = found.rows, _map_object_data([things for _, things in portion])
        rows: list[Row] = []
        scanned: list[Row] = []
        expected: list[tuple[Any, ...]] = []
        pairs = zip(locations, objects, strict=True)
        for position, (location, its) in enumerate(pairs, before + 1):
            if isinstance(location, InvalidRecord):
                lost = InvalidRecord("its location cannot be stored")
                its = Rows([lost] * len(its.rows))
                location = {}
            elif location["scan_date"] is not None:
                scanned.append(location)
            rows += self._objects(location, its, f"{where}{position}", expected)
        self._told.objects.add_without_keys(encode(lambda: expected))
        self._add_locations(scanned)
        self._add(rows)
        named = (row for row in locations if isinstance(row, dict))
        return [tuple(row[name] for name in LOCATIONS.key) for row in named]

    def _locations(self, records: list[Any], where: str, before: int) -> Rows:
        """Locations as rows. The ``scan_date`` of one that was never scanned is None: it is no row
        of the table, but has the name under which its objects are stored."""
        found = convert_lists_to_strings(records, LOCATIONS)
        never_scanned = [
            index
            for index, row in enumerate(found.rows)
            if isinstance(row, InvalidRecord) and _was_never_scanned(records[index])
        ]
        named = convert_lists_to_strings([records[index] for index in never_scanned], _UNSCANNED)
        for index, row in zip(never_scanned, named.rows, strict=True):
            found.rows[index] = row
        rows = self._skipped.take(LOCATIONS.name, found, where, before)
        self._storable += len(rows)
        self._never_scanned += sum(row["scan_date"] is None for row in rows)
        self.counts[LOCATIONS.name].read += len(records)
        return found

    def _objects(
        self, location: Row, objects: Rows, where: str, expected: list[tuple[Any, ...]]
    ) -> list[Row]:
        """The objects that are expected in a location, as rows. What they are made of is added to
        ``expected``, in one for each location."""
        self.counts[OBJECTS.name].read += len(objects.rows)
        keys = {name: location[name] for name in LOCATIONS.key if location.get(name) is not None}
        occurrences, rows, values = _Occurrences(), list[Row](), list[tuple[Any, ...]]()
        for row in self._skipped.take(OBJECTS.name, objects, f"{where}, object "):
            # In a table without a key, a row with a null and one without the column are two.
            given = {name: value for name, value in row.items() if value is not None}
            fields = given.pop("additional_fields", None)
            items = tuple(given.items())
            occurrence = occurrences.count(items, fields)
            values.append((items, fields))
            given.update(keys, occurrence=occurrence)
            if fields:
                given["additional_fields"] = fields
            rows.append(given)
        if values:  # the occurrences follow from their order
            *place, scanned = (location[name] for name in LOCATIONS.key)
            expected.append((*place, scanned and scanned.timestamp(), *values))
        return rows

    def _add_locations(self, locations: list[Row]) -> None:
        if not self._streams:
            self._told.add_locations(locations)
            if self._told.knows_locations:
                self._waiting.add(locations)
                return
        self._upsert(LOCATIONS, locations)

    def _add(self, objects: list[Row]) -> None:
        if self._streams:
            self._upsert(OBJECTS, objects)
        if self._too_many or not self._begun:
            return  # they will not replace the table
        self._spool.add(objects)
        if self._spool.rows > REPLACED_AT_ONCE:
            self._too_many = True
            self._stream()
            self._spool.clear()

    def _stream(self) -> None:
        """Hands over the rows that wait, and from now on those that come."""
        if not self._streams:
            self._streams = True
            for rows in self._waiting.batches():
                self._upsert(LOCATIONS, rows)
            self._waiting.clear()
            for rows in self._spool.batches():
                self._upsert(OBJECTS, rows)

    def _upsert(self, table: Table, rows: list[Row]) -> None:
        if rows:
            self._withdraw(table)
        for row in rows:
            op.upsert(table.name, row)
        self.counts[table.name].sent += len(rows)

    def _withdraw(self, table: Table) -> None:
        """Before rows come, or go, the state tells nothing of what the destination has: if the
        sync ends after they are written, and before the state is, nothing false is left."""
        if self._told.withdraw(table):
            self._checkpoint()

    def save(self, page: Page) -> None:
        """Checkpoints within the pass, after the page that was stored last. What was skipped is
        judged later: it may stand close together."""
        self._stream()
        self._note_added()
        assert page.place is not None  # noqa: S101  # it is one of LinkedPages
        stop = Stop(self._list, self._started, times.now(), page.place)
        self._checkpoint(stop=stop.to_json())

    def finish(self) -> None:
        """Checkpoints at the end of the list. The objects replace their table if the pass is
        whole; if it had none, they do so only when the last whole pass had none, either.

        Raises SourceError where too many records were skipped. The next sync begins a new pass
        then, so that it reads the same records again.
        """
        try:
            self.check()
        except SourceError:
            if self._saved.values.get("stop"):
                self._note_added()
                self._checkpoint(stop=None)
            raise
        self._say_never_scanned()
        objects = self._seen(OBJECTS)
        self._send_locations()
        reason = self._not_whole()
        replaces = not reason and (objects > 0 or self._table_state.confirms_empty)
        if reason:
            self._stream()
            self._note_added()
            op.warning(
                f"{OBJECTS.name}: {reason}. The rows were stored ({self._added()} objects), and "
                "nothing was replaced: deletes were not looked for"
            )
        elif replaces:
            self._replace_objects()
            self._table_state = TableState(rows=objects)
        else:
            self._note_empty()
        once = not self._streams and self._storable == self._keys.distinct()
        self._told.settle(locations=once, objects=replaces)
        self._checkpoint(stop=None, last_sync_time=times.to_text(self._started))

    def _send_locations(self) -> None:
        """Sends the locations that wait, but for those that the destination has."""
        if self._streams or not self._told.knows_locations:
            stored = counted(self.counts[LOCATIONS.name].sent, "row")
            Logging.info(f"{LOCATIONS.name}: {stored} stored")
            return
        flags = self._told.locations.to_add()
        flag = iter(flags)
        for rows in self._waiting.batches():
            self._upsert(LOCATIONS, list(compress(rows, flag)))
        self._waiting.clear()
        sent, said = sum(flags), counted(len(flags), "row")
        if not sent:
            said += ", as at the last whole pass: nothing was sent"
        elif sent < len(flags):
            said += f", {sent} sent, since the others did not change"
        else:
            said += " stored"
        Logging.info(f"{LOCATIONS.name}: {said}")

    def _replace_objects(self) -> None:
        """The objects of this pass in the place of those of the table, unless these are the
        same."""
        rows_read = counted(self._seen(OBJECTS), "row")
        if not self._streams and self._told.objects.is_unchanged:
            Logging.info(
                f"{OBJECTS.name}: {rows_read}, as at the last whole pass: nothing was sent"
            )
            return
        self._withdraw(OBJECTS)
        op.truncate(OBJECTS.name)
        for rows in self._spool.batches():
            self._upsert(OBJECTS, rows)
        Logging.info(f"{OBJECTS.name}: {rows_read} replaced the table")

    def _not_whole(self) -> str:
        """Why the pass cannot replace the objects, "" if it can."""
        repeated = self._on_pages - self._keys.distinct()
        skipped = self._skipped.counts[LOCATIONS.name] + self._skipped.counts[OBJECTS.name]
        if not self._begun:
            return "an earlier sync read the first pages"
        if self._too_many:
            return f"there are more than {REPLACED_AT_ONCE}"
        if repeated:
            return f"{repeated} of the locations came on several pages, since the list moved"
        return f"{skipped} of the records were skipped" if skipped else ""

    def _added(self) -> int:
        """How many objects can be stored, of those that this sync has read."""
        return self._seen(OBJECTS) - self._skipped.counts[OBJECTS.name]

    def _note_added(self) -> None:
        """Notes that the table has rows now, whatever the last whole pass left."""
        if self._streams and (added := self._added()):
            rows = self._table_state.rows or added
            self._table_state = replace(self._table_state, rows=rows, emptied=False)

    def _note_empty(self) -> None:
        if self._table_state.rows is not None:
            op.warning(
                f"{OBJECTS.name}: the source lists nothing where it had objects. Nothing is "
                "replaced unless the next sync sees the same: check what the key may read"
            )
        self._table_state = replace(self._table_state, emptied=True)

    def check(self) -> None:
        """Raises SourceError if more than a tenth of a table's records was skipped."""
        for table in (LOCATIONS, OBJECTS):
            self._skipped.check(table.name, self._seen(table))

    def _seen(self, table: Table) -> int:
        """How many of its records this sync has read."""
        return self.counts[table.name].read

    def _say_never_scanned(self) -> None:
        if self._never_scanned:
            Logging.info(
                f"{LOCATIONS.name}: {self._never_scanned} were never scanned and have no row; "
                f"their {OBJECTS.name} have no scan_date"
            )

    def _checkpoint(self, **others: Any) -> None:
        texts = self._told.texts
        objects = replace(self._table_state, fingerprint=texts[OBJECTS.name])
        tables = {OBJECTS.name: objects.to_json()}
        if texts[LOCATIONS.name] or self._saved.table(LOCATIONS.name):
            tables[LOCATIONS.name] = {"fingerprint": texts[LOCATIONS.name]}
        self._saved.save(tables, **others)


class _Fingerprints:
    """Of the rows of a pass, to compare with those of the last one. ``texts``: what the state
    tells, by table, of the rows that the destination has (of locations it may have more)."""

    def __init__(self, locations: Mapping[str, Any], objects: TableState) -> None:
        columns = LOCATIONS.schema()["columns"]
        self._rows, self._keys = Encoder(columns), Encoder({n: columns[n] for n in _UNSCANNED.key})
        self.texts = {
            LOCATIONS.name: locations.get("fingerprint", ""),
            OBJECTS.name: objects.fingerprint,
        }
        self._before, self._sent = self.texts, set[str]()
        self._is_first_load = not objects.is_known
        self.knows_locations = self.texts[LOCATIONS.name] != ""
        self.locations = Fingerprint(self.texts[LOCATIONS.name], self._rows.form)
        self.objects = Fingerprint(objects.fingerprint, repr(OBJECTS.schema()))

    def add_locations(self, rows: list[Row]) -> None:
        encoded = self._rows.encode(rows)
        if self._is_first_load:
            self.locations.add_without_keys(encoded)
        else:
            self.locations.add(self._keys.encode(rows), encoded)

    def settle(self, *, locations: bool, objects: bool) -> None:
        """At the end of a pass: whether the destination has these ``locations``, each of which
        came once, and whether its ``objects`` are those of the pass, and no others."""
        self._settle(LOCATIONS.name, self.locations if locations else None)
        self._settle(OBJECTS.name, self.objects if objects else None)

    def _settle(self, table: str, now: Fingerprint | None) -> None:
        before = "" if table in self._sent else self._before[table]
        self.texts = {**self.texts, table: now.to_text() if now else before}

    def withdraw(self, table: Table) -> bool:
        """From now on the state tells nothing, since the rows of a table change. Returns whether
        it told anything."""
        self._sent.add(table.name)
        told = any(self.texts.values())
        self.texts = dict.fromkeys(self.texts, "")
        return told


class _Occurrences:
    """Counts the equal ones of the objects in a location."""

    def __init__(self) -> None:
        self._first: dict[Any, Any] = {}  # the fields of the first object with some values
        self._counts: dict[Any, Counter[Any]] = {}  # by values, where there are several objects

    def count(self, values: tuple[Any, ...], fields: Any) -> int:
        """How many objects with these ``values`` of columns, and these further ``fields``, which
        cannot be part of a key, came so far."""
        if values not in self._first:
            self._first[values] = fields
            return 1
        counts = self._counts.setdefault(values, Counter(_texts([self._first[values]])))
        [text] = _texts([fields])
        counts[text] += 1
        return counts[text]


def _texts(fields: list[Any]) -> list[Any]:
    """Fields as text, of which equal ones have the same; None for none."""
    return convert(fields, "STRING", "additional_fields")


def _was_never_scanned(record: Any) -> bool:
    """Whether a location has no date of a scan, or text that stands for no date."""
    if not isinstance(record, dict):
        return False
    given = record.get("scan_date")
    try:
        times.parse("" if given is None else given)
    except times.NoDate:
        return True
    except ValueError:
        return False
    return False


def _take_objects(records: list[Any]) -> Iterator[list[tuple[Any, list[Any]]]]:
    """Pairs of a location without its expected objects and these. They come in portions, since
    rows take as much memory as what they are made of."""
    portion, size = list[tuple[Any, list[Any]]](), 0
    for record in records:
        portion.append(_take_its_objects(record))
        size += 1 + len(portion[-1][1])
        if size >= RECORDS_AT_ONCE:
            yield portion
            portion, size = [], 0
    yield portion


def _take_its_objects(record: Any) -> tuple[Any, list[Any]]:
    """A location without its expected objects, and these: a list in any form, or one alone. A
    second list, under the other name, stays where it is."""
    names = [name for name in OBJECTS_FIELDS if isinstance(record, dict) and name in record]
    sent = [name for name in names if record[name] is not None]
    if not sent:
        return record, []
    name = next((name for name in sent if record[name]), sent[0])
    left = record.copy()
    objects = left.pop(name) or []
    taken = as_list(objects)
    return left, [objects] if taken is None else taken


def convert_lists_to_strings(records: list[Any], table: Table) -> Rows:
    """``records`` as rows, with JSON text for the lists and objects that ``table`` has a column
    for: neither the expected objects nor what goes into ``additional_fields``. Equal ones give
    equal text, as a table without a key tells rows apart by all that is in them."""
    return table.rows(records)


def _map_object_data(objects: list[list[Any]]) -> Iterator[Rows]:
    """Expected objects as rows, for each location, without the columns that come from it, and
    those that none of the objects has."""
    things = [*chain(*objects)]
    sent = set().union(*(thing for thing in things if isinstance(thing, dict)))
    columns = {
        name: column
        for name, column in OBJECTS.columns.items()
        if name not in FROM_LOCATION and not sent.isdisjoint(column.sources or (name,))
    }
    found = convert_lists_to_strings(things, replace(OBJECTS, columns=columns))
    yield from found.split(map(len, objects))


connector = Connector(update=update, schema=schema, configuration_form=configuration_form)

if __name__ == "__main__":
    debug(connector, __file__)
