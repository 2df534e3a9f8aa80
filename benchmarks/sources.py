"""The sources over HTTP, so cheap that almost only the cost of their client is measured.

Their records are those of the simulators in tests/sandbox. One page of them is made; every further
page is its text with other ids. Nobody has to sign in.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta, timezone
from itertools import chain
from typing import Any, ClassVar, NamedTuple

from connectors.paligo.faker_mock.mock_data_generator import MockDataGenerator
from shared.rows import Table
from tests.sandbox.dentally import Dentally
from tests.sandbox.dexory import Dexory
from tests.sandbox.fivetran import load
from tests.sandbox.sensource import CLIENT_ID, CLIENT_SECRET, SenSource

Record = dict[str, Any]
Query = Mapping[str, str]
_HERE = "@here@"  # stands for the value that differs on every page
_DAY = date(2025, 1, 1)  # its hours are sent for every day
_LISTINGS = ("location", "site", "zone", "space")
_HOURS = {
    "traffic": ("zone", "ins,outs"),
    "occupancy": ("space", "occupancy(max),occupancy(min),occupancy(avg)"),
}


class Size(NamedTuple):
    """``pages`` of the one large table, with ``records`` each; of SenSource, chunks of ``days``
    for so many zones and spaces. ``shape`` as in the simulators: "live" or "documented"."""

    pages: int
    records: int
    shape: str = "live"
    days: int = 30


class Source:
    """A source that never changes. ``rows``: how many a first sync finds."""

    name: ClassVar[str]
    rows: int

    def __init__(self, size: Size) -> None:
        raise NotImplementedError

    def configuration(self, url: str) -> dict[str, str]:
        """The configuration with which the connector reads this source at ``url``."""
        raise NotImplementedError

    def response(self, path: str, query: Query) -> str:
        """The JSON of the response to a request."""
        raise NotImplementedError

    def plain_rows(self, path: str, response: Any) -> Iterator[Record]:
        """The least that makes rows of a decoded response: of each record a dictionary with the
        columns of its table, ``additional_fields`` too; times and texts as the columns have them,
        all else as it was sent."""
        raise NotImplementedError


class _Dentally(Source):
    name = "dentally"

    def __init__(self, size: Size) -> None:
        made = Dentally(treatments=size.records, shape=size.shape)
        self._size, self._key = size, "" if size.shape == "live" else "data"
        self._small = {name: made.records[name] for name in ("sites", "rooms")}
        self._page = _numbered(made.records["treatments"], "id", "%d")
        self._total = size.pages * size.records
        self.rows = self._total + sum(map(len, self._small.values()))

    def configuration(self, url: str) -> dict[str, str]:
        names = ("client_id", "client_secret", "access_token", "refresh_token")
        size = str(self._size.records)
        return {**dict.fromkeys(names, "x"), "base_url": url, "max_records_per_page": size}

    def response(self, path: str, query: Query) -> str:
        resource, number = path.rpartition("/")[2], int(query["page"])
        key = self._key or resource
        if "updated_after" in query:  # nothing has changed
            return json.dumps({key: [], "meta": {"total": 0, "current_page": number}})
        if resource in self._small:
            records = self._small[resource]
            meta = {"total": len(records), "current_page": number}
            return json.dumps({key: records, "meta": meta}, ensure_ascii=False)
        meta = {"total": self._total, "current_page": number}
        page = self._page(number) if number <= self._size.pages else "[]"
        return f'{{"{key}": {page}, "meta": {json.dumps(meta)}}}'

    def plain_rows(self, path: str, response: Any) -> Iterator[Record]:
        resource = path.rpartition("/")[2]
        fields = _Fields(getattr(load(self.name), resource.upper()))
        return map(fields.plain_row, response[self._key or resource])


class _Paligo(Source):
    name = "paligo"

    def __init__(self, size: Size) -> None:
        # Assignments that last changed more than 90 days ago are not stored.
        made = MockDataGenerator(1, size.shape, oldest=80).dataset(12, 60, size.records)
        self._size, self._key = size, "" if size.shape == "live" else "data"
        self._small = {name: made[name] for name in ("users", "taxonomies")}
        self._page = _numbered(made["assignments"], "id", "%d")
        self._first = made["assignments"][:1]
        self._total = size.pages * size.records
        self.rows = self._total + sum(map(len, self._small.values()))

    def configuration(self, url: str) -> dict[str, str]:
        size = str(max(self._size.records, 60))
        return {"username": "x", "api_key": "x", "base_url": url, "max_records_per_page": size}

    def response(self, path: str, query: Query) -> str:
        resource, number, size = path[1:], int(query["page"]), int(query["per_page"])
        key = self._key or resource
        total = len(self._small[resource]) if resource in self._small else self._total
        pages = total if size == 1 else 1 if resource in self._small else self._size.pages
        head: Record = {"page": number, "total_pages": pages, "next_page": ""}
        if number < pages:
            head["next_page"] = f"{path}?page={number + 1}"
        if size == 1 or resource in self._small:
            records = (self._small.get(resource) or self._first)[:size]
            return json.dumps({**head, key: records}, ensure_ascii=False)
        page = self._page(number) if number <= pages else "[]"
        return f'{json.dumps(head)[:-1]}, "{key}": {page}}}'

    def plain_rows(self, path: str, response: Any) -> Iterator[Record]:
        resource = path[1:]
        fields = _Fields(getattr(load(self.name), resource.upper()))
        return map(fields.plain_row, response[self._key or resource])


class _Dexory(Source):
    name = "dexory"

    def __init__(self, size: Size) -> None:
        made = Dexory(locations=size.records, shape=size.shape)
        records = made.scans[: size.records]
        self._size, self._objects = size, made.field
        self._page = _numbered(records, "name", '"A%07d"')
        objects = sum(len(record[made.field] or ()) for record in records)
        # Beyond so many pages the objects are handed over twice.
        twice = 2 if size.pages > load(self.name).PAGES_AT_ONCE else 1
        self.rows = size.pages * (size.records + twice * objects)

    def configuration(self, url: str) -> dict[str, str]:
        size, limit = str(self._size.records), "100000"
        names = {"site_name": "x", "site_api_key": "dexory-key", "base_url": url}
        return {**names, "page_size": size, "max_pages": limit}

    def response(self, path: str, query: Query) -> str:
        number = int(query["page[number]"])
        more = number < self._size.pages
        link = f"{path}?site=x&page[number]={number + 1}" if more else None
        return f'{{"data": {self._page(number)}, "links": {{"next": {json.dumps(link)}}}}}'

    def plain_rows(self, path: str, response: Any) -> Iterator[Record]:  # noqa: ARG002
        module = load(self.name)
        key = module.LOCATIONS.key
        lists = ("zoning", "scanned_markers")
        of_location = _Fields(module.LOCATIONS, also=(self._objects,), lists=lists)
        of_object = _Fields(module.OBJECTS, given=key)
        for record in response["data"]:
            location = of_location.plain_row(record)
            yield location
            for thing in record.get(self._objects) or ():
                yield {**of_object.plain_row(thing), **{name: location[name] for name in key}}


class _SenSource(Source):
    name = "sensource"

    def __init__(self, size: Size) -> None:
        made = SenSource(
            zones=size.records,
            spaces=size.records,
            first=_DAY,
            days=1,
            account_zone="UTC",
            shape=size.shape,
        )
        client = made.app.test_client()
        names = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET}
        asked = {"grant_type": "client_credentials", **names}
        token = json.loads(client.post("/oauth/token", json=asked).text)["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        self._small = {
            f"/{name}": client.get(f"/api/{name}", headers=headers).text for name in _LISTINGS
        }
        self._days: dict[str, str] = {}
        for name, (entity, metrics) in _HOURS.items():
            query = {
                "relativeDate": "custom",
                "startDate": _DAY.isoformat(),
                "endDate": (_DAY + timedelta(days=1)).isoformat(),
                "dateGroupings": "hour",
                "entityType": entity,
                "metrics": metrics,
            }
            response = client.get(f"/api/data/{name}", headers=headers, query_string=query)
            records = json.dumps(_records(json.loads(response.text)), ensure_ascii=False)[1:-1]
            self._days[f"/data/{name}"] = records
        # The connector reads up to the end of tomorrow.
        days = size.days * size.pages
        self._chunk = str(size.days)
        self._first = datetime.now(timezone.utc).date() + timedelta(days=2 - days)
        self._listed = sum(len(_records(json.loads(text))) for text in self._small.values())
        self.rows = days * 24 * size.records * len(_HOURS) + self._listed

    def configuration(self, url: str) -> dict[str, str]:
        return {
            "client_id": "x",
            "client_secret": "x",
            "base_url": url,
            "auth_url": f"{url}/token",
            "start_date": self._first.isoformat(),
            "chunk_days": self._chunk,
        }

    def response(self, path: str, query: Query) -> str:
        if path == "/token":
            return json.dumps({"access_token": "x", "expires_in": 86_400})
        if path in self._small:
            return self._small[path]
        day, end = (date.fromisoformat(query[name]) for name in ("startDate", "endDate"))
        days = [day + timedelta(days=n) for n in range((end - day).days)]
        records = self._days[path]
        text = ", ".join(records.replace(_DAY.isoformat(), each.isoformat()) for each in days)
        return f'{{"messages": [], "results": [{text}]}}'

    def plain_rows(self, path: str, response: Any) -> Iterator[Record]:
        if path == "/token":
            return
        tables, name = dict(load(self.name).STATIC_TABLES), path.rpartition("/")[2]
        if name in _HOURS:
            settings = load(self.name).validate_configuration(
                self.configuration("http://localhost")
            )
            tables[name] = load(self.name)._data_table(name, settings.metrics[name])
        yield from map(_Fields(tables[name]).plain_row, _records(response))


def _records(response: Any) -> list[Record]:
    records: list[Record] = response["results"] if isinstance(response, dict) else response
    return records


class _Fields:
    """The columns of a table, without those that are ``given``, and the field of each. Fields that
    neither a column nor ``also`` names are kept, as in the connectors' rows. ``lists``: text
    columns for which a list or an object is sent."""

    def __init__(
        self,
        table: Table,
        given: Iterable[str] = (),
        also: Iterable[str] = (),
        lists: Iterable[str] = (),
    ) -> None:
        self._lists = tuple(lists)
        columns = {n: column for n, column in table.columns.items() if n not in given}
        self._times = [n for n, column in columns.items() if column.type == "UTC_DATETIME"]
        self._sources = {n: column.sources or (n,) for n, column in columns.items()}
        self._known = frozenset(chain(*self._sources.values(), also))
        self._pairs: list[tuple[str, str]] = []

    def plain_row(self, record: Record) -> Record:
        if not self._pairs:  # all records of a source have one form
            for name, sources in self._sources.items():
                self._pairs.append((name, next((s for s in sources if s in record), name)))
        row = {name: record.get(field) for name, field in self._pairs}
        for name in self._times:
            if (value := row[name]) is not None:
                row[name] = (
                    datetime.fromtimestamp(value, timezone.utc)
                    if type(value) is int
                    else datetime.fromisoformat(value.replace("Z", "+00:00"))
                )
        for name in self._lists:
            if (value := row[name]) is not None:
                row[name] = json.dumps(value, ensure_ascii=False)
        left = {field: value for field, value in record.items() if field not in self._known}
        row["additional_fields"] = left or None
        return row


def _numbered(records: list[Record], field: str, form: str) -> Callable[[int], str]:
    """A function that makes the text of a page, by its number from 1: ``records``, each with
    another number, in the form ``form``, in ``field``."""
    text = json.dumps([{**record, field: _HERE} for record in records], ensure_ascii=False)
    text = text.replace("%", "%%").replace(f'"{_HERE}"', form)
    many = len(records)
    return lambda number: text % tuple(range((number - 1) * many, number * many))


_SOURCES = {kind.name: kind for kind in (_Dentally, _Dexory, _Paligo, _SenSource)}
NAMES = tuple(_SOURCES)


def create(name: str, size: Size) -> Source:
    """The source of a connector."""
    return _SOURCES[name](size)
