"""A simulator of Dexory: one list of scanned locations, linked pages, a key in either place."""

import json
import math
import random
import secrets
from collections import Counter
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar
from urllib.parse import urlencode

from flask import jsonify, request
from typing_extensions import Self

from .lists import RecordLists, moment
from .server import Sandbox
from .simulator import PAGE

Record = dict[str, Any]
SITE = "Halle & Ost #1"
WINDOW = timedelta(days=8)  # what is served unless `up_to` asks for more
TEXTS = (
    *("marker", "sku", "description", "product_code", "part_number", "client", "supplier"),
    *("batch", "lot", "awb", "tracking_number", "received_date", "expiry_date"),
)
NUMBERS = ("expected_weight_g", "quantity")
KEY = ("name", "location_type", "aisle", "scan_date")


class Dexory(RecordLists):
    """``scan`` adds a new scan of a location, as the source would.

    ``shape``: "live" (what accounts send), or "documented" (what the specification names).
    ``key_in``: where the API key is taken from, "both", "header" or "query". ``links``: the form
    of the links between pages, "absolute", "path" or "query" alone. ``repeats_key``: whether they
    hold the API key. ``customer``: what the parameter of that name must be, if it is sent.
    ``cap``: the most records in a page. ``leads``: for a page's number, the page that its link
    leads to in place of the next one. ``stuck``: whether every page holds the records of the first
    one. ``signs_anew``: whether ``image_url`` changes with each response. ``php``: whether lists
    come as PHP sends lists with gaps. ``names_no_end``: whether the last page leaves the link
    ``next`` out, in place of a null. A location whose ``scan_date`` is null was never scanned.
    """

    name = "dexory"
    lists = ("locations",)
    filtered = ()
    lists_deletes = ()
    one_list = True
    data_path = "/customer-api/v1/locations"
    page_size = 25
    small_pages: ClassVar = {"page_size": str(PAGE)}
    limits: ClassVar = {**Sandbox.limits, "dexory_connector.PAGES_AT_ONCE": 2}

    def __init__(
        self,
        *,
        locations: int = 130,
        shape: str = "live",
        key_in: str = "both",
        links: str = "absolute",
        repeats_key: bool = False,
        customer: str = "",
        cap: int = 1000,
        seed: int = 1,
        php: bool = False,
        names_no_end: bool = False,
    ) -> None:
        super().__init__(seed=seed)
        self.shape = shape
        self.key_in = key_in
        self.links = links
        self.repeats_key = repeats_key
        self.customer = customer
        self.cap = cap
        self.leads: dict[int, int] = {}
        self.stuck = self.signs_anew = False
        self.php = php
        self.names_no_end = names_no_end
        self.field = "expected_inventory_object" + ("s" if shape == "live" else "")
        self.api_key = "site-key-" + secrets.token_hex(16)
        now = datetime.now(timezone.utc)
        scans = [self._make(n, now - self._age()) for n in range(locations)]
        # Scans from before the window are there, and are not served.
        scans += [self._make(n, now - timedelta(days=9 + n)) for n in range(5)]
        self.records["locations"] = scans
        self._scans: dict[str, Record] = {}  # all records that were ever served
        self._forms: list[Record] = []  # and every form of them
        self.app.add_url_rule(self.data_path, view_func=self._list)

    @property
    def scans(self) -> list[Record]:
        """The records of the one list."""
        return self.records["locations"]

    def configuration(self, **changes: str) -> dict[str, str]:
        return {
            "site_name": SITE,
            "site_api_key": self.api_key,
            "base_url": self.url,
            "page_size": str(self.page_size),
            **self.options,
            **changes,
        }

    def secrets(self) -> set[str]:
        found = {self.api_key}
        for record in self.scans:
            found |= {str(record.get(name)) for name in ("message", "image_url")}
            for thing in _objects(record):
                found |= {str(thing.get(name)) for name in ("description", "tracking_number")}
        return {secret for secret in found if len(secret) > 8}

    def expected(self) -> dict[str, list[Record]]:
        """Every scan that was served stays; the objects are those of the scans served now."""
        served = [record for record in self.scans if _in_window(record)]
        scans = {**self._scans, **{_identity(record): record for record in served}}
        locations = [_expected_location(record) for record in scans.values() if _has_row(record)]
        objects = [row for record in served for row in _expected_objects(record)]
        return {"locations": locations, "expected_inventory_objects": objects}

    def be_odd(self) -> None:
        self.php = False  # the function that makes records odd looks for lists
        super().be_odd()

    def spoil(self) -> None:
        self.php = False
        super().spoil()

    def fill(self, count: int) -> None:
        kept = [record for record in self.scans if _in_window(record)][:count]
        now = datetime.now(timezone.utc)
        numbers = range(1000, 1000 + count - len(kept))
        self.scans[:] = kept + [self._make(n, now - self._age()) for n in numbers]

    def place(self, text: str, more: Any) -> list[str]:
        thing = {"description": text, "unheard_of": more}
        self.change("locations", 0, message=text, unheard_of=more, **{self.field: [thing]})
        self.scan(0, name=text[:100])  # in a key, too
        return ["locations", "expected_inventory_objects"]

    def change_something(self) -> None:
        self.scan(3)
        self.scan(60)
        self.change("locations", 0, **{self.field: [{"sku": "the only one now"}]})
        self.change("locations", 1, **{self.field: []})
        self.delete("locations", 2)

    @classmethod
    def small(cls, draw: random.Random) -> Self:
        made = cls(
            locations=draw.randint(1, 12),
            shape=draw.choice(("live", "documented")),
            key_in=draw.choice(("both", "header", "query")),
            links=draw.choice(("absolute", "path", "query")),
            repeats_key=draw.random() < 0.3,
            cap=draw.choice((1, 3, 1000)),
            php=draw.random() < 0.3,
            names_no_end=draw.random() < 0.3,
        )
        if draw.random() < 0.3:
            made.change("locations", 0, scan_date=draw.choice((None, "", "N/A")))
        made.options = {"max_pages": "2"} if made.cap == 3 and draw.random() < 0.5 else {}
        return made

    def mutate(self, draw: random.Random, *, deletes: bool = True) -> None:
        place = draw.randrange(len(self.scans))
        kind = draw.choice(("scan", "change", "remove", "odd"))
        if kind == "odd":
            self.change(
                "locations",
                place,
                **{self.field: [{"sku": "odd", "quantity": 2.5}], "occupancy": "x"},
            )
        elif kind == "change":
            self.change(
                "locations", place, **{self.field: [{"sku": str(draw.random())}, {"sku": "x"}]}
            )
        elif kind == "remove" and deletes and sum(map(_in_window, self.scans)) > 1:
            self.delete("locations", place)
        else:
            self.scan(place, at=draw.randint(0, len(self.scans)))

    def remembered(self) -> dict[str, list[Record]]:
        """Scans that left the window; objects, too, where no sync can read the whole list."""
        served = [record for record in self.scans if _in_window(record)]
        scans = {_identity(record) for record in served}
        gone = [record for record in self._forms if _identity(record) not in scans]
        locations = [_expected_location(record) for record in gone if _has_row(record)]
        size, most = min(self.page_size, self.cap), int(self.options.get("max_pages", 1000))
        never_whole = len(served) > size * most
        objects = [row for record in self._forms for row in _expected_objects(record)]
        return {
            "locations": locations,
            "expected_inventory_objects": objects if never_whole else [],
        }

    def scan(self, position: int, at: int | None = None, **fields: Any) -> Record:
        """Adds a new scan of the location at ``position``, at the end of the list or ``at``."""
        with self.lock:
            now = datetime.now(timezone.utc)
            record = {**self.scans[position], "scan_date": _stamp(now), **fields}
            self.scans.insert(len(self.scans) if at is None else at, record)
            return record

    # Records

    def _age(self) -> timedelta:
        return timedelta(days=self.random.uniform(0, 7))

    def _make(self, number: int, scanned: datetime) -> Record:
        record: Record = {
            "name": f"A{number % 7}-{number:03d}-01",
            "location_type": self.random.choice(["rack", "pick", "block", None]),
            "aisle": f"A{number % 7}" if number % 9 else None,
            "scan_date": _stamp(scanned),
        }
        if number % 10 == 0:
            del record["location_type"]
        objects = [self._object() for _ in range(self.random.choice([0, 0, 1, 2, 3]))]
        if number % 4 == 0 and objects:
            objects.append(dict(objects[0]))  # two equal pallets in one place
        if self.shape == "documented":
            return {**record, self.field: objects}
        return {
            **record,
            "occupancy": self.random.choice([0, 1, 0.3, self.random.random(), None]),
            "zoning": {
                "priority": self.random.randint(1, 3),
                "client_categories": [self.fake.word()],
            },
            self.field: objects or self.random.choice([[], None]),
            "scanned_markers": [{"marker": f"0{self.random.randint(0, 99999)}"}],
            "status": self.random.choice(["Match", "Empty", "Not Scanned"]),
            "status_type": self.random.choice(["Correct", "Warning", "Error"]),
            "message": self.fake.sentence(),
            "image_url": f"https://images.test/{number}.jpg?token={secrets.token_hex(8)}",
            "robot": {"id": self.random.randint(1, 4), "tags": []},
        }

    def _object(self) -> Record:
        choose = self.random.choice
        thing: Record = {
            "marker": choose(["0012", "1E5", f"{self.random.randint(0, 10**9):012d}"]),
            "sku": self.fake.bothify("??-####"),
            "description": self.fake.sentence(),
            "expected_weight_g": choose([12_500, 3 * 10**9, "800", None]),
            "quantity": choose([1, "12", 0, None]),
            "product_code": choose(["t", "true", "2024-01-01"]),
            "client": self.fake.company(),
            "batch": "07",
            "tracking_number": self.fake.bothify("TRACK-????-########"),
            "received_date": choose(["2025-11-18", "18/11/2025", None]),
            "expiry_date": choose(["2026-02-30", "1790000000", ""]),
        }
        if self.shape == "live":
            thing["name"] = self.fake.word()  # a name of its own, beside its location's
            thing["hazards"] = [self.fake.word()]
        kept = self.random.sample(sorted(thing), self.random.randint(1, len(thing)))
        return {name: value for name, value in thing.items() if name in kept or name == "batch"}

    # The API

    def _list(self) -> Any:
        if not self._authorized():
            return jsonify(error="Incorrect API key"), 401
        site, customer = request.args.get("site"), request.args.get("customer", self.customer)
        if (site, customer) != (SITE, self.customer):
            return jsonify(error="No such site"), 404
        records = self._served()
        size = min(int(request.args.get("page[size]", 100)), self.cap)
        number = int(request.args.get("page[number]", 1))
        page, pages = self.page(records, 1 if self.stuck else number, size)
        for record in page:
            if self._scans.get(_identity(record)) != record:
                self._scans[_identity(record)] = dict(record)
                self._forms.append(dict(record))
        page = [self._as_sent(record) for record in page]
        last = max(pages, 1)
        links = {
            "first": self._link(1),
            "last": self._link(last),
            "prev": self._link(number - 1) if number > 1 else None,
            "next": self._link(number + 1) if number < last else None,
        }
        if number in self.leads:
            links["next"] = self._link(self.leads[number])
        if self.names_no_end and links["next"] is None:
            del links["next"]
        return jsonify(data=_of_php(page) if self.php else page, links=links)

    def _as_sent(self, record: Record) -> Record:
        """A record in a response."""
        sent = dict(record)
        if self.signs_anew:
            sent["image_url"] = f"https://images.test/?token={secrets.token_hex(8)}"
        if self.php and isinstance(sent.get(self.field), list):
            sent[self.field] = _of_php(sent[self.field])
        return sent

    def _authorized(self) -> bool:
        header = request.headers.get("Authorization") == f"Bearer {self.api_key}"
        query = request.args.get("api_key") == self.api_key
        return {"header": header, "query": query, "both": header or query}[self.key_in]

    def _served(self) -> list[Record]:
        aisles = request.args.getlist("aisle[]")
        up_to = request.args.get("up_to")
        return [
            record
            for record in self.scans
            if (not aisles or record["aisle"] in aisles)
            and ((record["scan_date"] or "") <= up_to if up_to else _in_window(record))
        ]

    def _link(self, number: int) -> str:
        query = {**request.args.to_dict(), "page[number]": number}
        query.pop("api_key", None)
        if self.repeats_key:
            query["api_key"] = self.api_key
        start = {"absolute": self.url + self.data_path, "path": self.data_path, "query": ""}
        return f"{start[self.links]}?{urlencode(query)}"


def _stamp(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _in_window(record: Record) -> bool:
    # A scan date that cannot be read is served as it is.
    try:
        return moment(record["scan_date"]) >= datetime.now(timezone.utc) - WINDOW
    except (KeyError, TypeError, ValueError, AttributeError):
        return True


def _was_scanned(record: Record) -> bool:
    return record.get("scan_date") not in (None, "", " ", "N/A", "0000-00-00", False)


def _has_row(record: Record) -> bool:
    return bool(record["name"]) and _was_scanned(record)


def _of_php(items: list[Any]) -> Any:
    """A list as PHP sends it when its first item was removed."""
    return {str(number): item for number, item in enumerate(items, 1)} or items


def _objects(record: Record) -> list[Any]:
    for name in ("expected_inventory_objects", "expected_inventory_object"):
        if record.get(name) is not None:
            return list(record[name])
    return []


# What a record becomes, column by column.


def _identity(record: Record) -> str:
    return json.dumps([record.get(name) or "" for name in KEY])


def _parent_key(r: Record) -> Record:
    return {
        "name": r["name"],
        "location_type": r.get("location_type") or "",
        "aisle": r.get("aisle") or "",
        "scan_date": moment(r["scan_date"]) if _was_scanned(r) else None,
    }


def _expected_location(r: Record) -> Record:
    return {
        **_parent_key(r),
        "occupancy": _number(r.get("occupancy")),
        "zoning": _text(r.get("zoning")),
        "scanned_markers": _text(r.get("scanned_markers")),
        **{name: r.get(name) for name in ("status", "status_type", "message", "image_url")},
    }


def _expected_objects(r: Record) -> list[Record]:
    rows, counts = [], Counter[str]()
    for thing in _objects(r):
        given = {name: value for name, value in thing.items() if value is not None}
        counts[repr(sorted(given.items()))] += 1
        row = {
            **_parent_key(r),
            "occurrence": counts[repr(sorted(given.items()))],
            **{name: given.get(name) for name in TEXTS},
            **{name: _whole_number(given.get(name)) for name in NUMBERS},
            **{f"object_{name}": given.get(name) for name in KEY},
        }
        rows.append(row)
    return rows


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _whole_number(value: Any) -> int | None:
    number = _number(value)
    return None if number is None or number % 1 or abs(number) >= 2**63 else int(number)


def _text(value: Any) -> str | None:
    return None if value is None else json.dumps(value, sort_keys=True, ensure_ascii=False)
