"""A simulator of SenSource VEA: one live token, listings without pages, hours by range of days."""

import json
import random
import secrets
import uuid
from datetime import date, datetime, timedelta, timezone
from typing import Any, ClassVar
from zoneinfo import ZoneInfo

from faker import Faker
from flask import Response, jsonify, request
from typing_extensions import Self

from .lists import RecordLists
from .server import Sandbox
from .simulator import PAGE

Record = dict[str, Any]
Hours = dict[tuple[str, datetime], dict[str, float]]
CLIENT_ID = "sensource-client-id"
CLIENT_SECRET = "sensource-client-secret-71c04e"
HOUR = timedelta(hours=1)
LOOKBACK = timedelta(days=2)

# The columns that every listing has, and the fields of the live responses; some have no value.
COMMON = {
    "name": "name",
    "org_id": "orgId",
    "created_at": "createdAt",
    "updated_at": "updatedAt",
}
# All columns that are known of a listing.
COLUMNS = {
    "location": {
        "location_id": "locationId",
        "location_type_id": "locationTypeId",
        "description": "description",
        "location_number": "locationNumber",
        "country": "country",
        "city": "city",
        "postal_code": "postalCode",
        "state": "state",
        "street": "street",
        "latitude": "latitude",
        "longitude": "longitude",
        "shipping_id": "shippingId",
        **COMMON,
    },
    "site": {"site_id": "siteId", "location_id": "locationId", **COMMON},
    "zone": {
        "zone_id": "zoneId",
        "sensor_id": "sensorId",
        "device_id": "deviceId",
        "count_type": "countType",
        "scale_factor": "scaleFactor",
        "count_filter": "countFilter",
        "count_application": "countApplication",
        "perimeter": "perimeter",
        "disabled": "disabled",
        "settings": "settings",
        **COMMON,
    },
    "space": {
        "space_id": "spaceId",
        "location_id": "locationId",
        "max_capacity": "maxCapacity",
        **COMMON,
    },
    "sensor": {"sensor_id": "sensorId", "site_id": "siteId", **COMMON},
}
ENTITIES = {"traffic": "zone", "occupancy": "space"}


class SenSource(RecordLists):
    """``hours`` may be changed while it runs, too; ``empty`` leaves them, for SenSource keeps what
    was counted. The key of an hour is the id of its
    zone or space, and its beginning.

    ``shape``: "live" (camelCase, bare arrays, averages as text), or "documented" (the names that
    the specification has, arrays in an object, averages as numbers). ``first``: the first day, in
    ``account_zone``, None: eight days ago, and ``configuration`` asks for five days at once;
    ``days``: how many whole days there are, None: up to an hour that has yet to begin.
    ``endpoints``: the listings that the configuration names. ``lifetime``: seconds of a token
    (None: it is not stated, and has no end). ``mints``: the tokens after which the endpoint sends
    429 once. ``limit``: the same for requests of data.
    """

    name = "sensource"
    lists = tuple(COLUMNS)
    keys: ClassVar = {name: (f"{name}Id",) for name in COLUMNS}
    filtered = ()
    lists_deletes = ()
    changed_at = ""  # no change is told
    data_path = "/api/"
    wider_in_template = ("static_endpoints",)
    small_pages: ClassVar = {"chunk_days": str(PAGE)}
    limits: ClassVar = {
        **Sandbox.limits,
        "hours.STREAMED_FIRST_LOAD": 100,
        "hours.REPLACED_AT_ONCE": 250,
    }

    def __init__(
        self,
        *,
        zones: int = 2,
        spaces: int = 1,
        first: date | None = None,
        days: int | None = None,
        endpoints: tuple[str, ...] = tuple(COLUMNS),
        account_zone: str = "America/New_York",
        shape: str = "live",
        lifetime: float | None = 3600,
        seed: int = 1,
    ) -> None:
        super().__init__(seed=seed)
        self.endpoints = endpoints
        self.shape = shape
        self.lifetime = lifetime
        self.mints: int | None = None
        self.messages: list[Any] = []
        self.account_zone = ZoneInfo(account_zone)
        self.access_token = ""
        self.tokens: list[str] = []
        self._ends = datetime.max.replace(tzinfo=timezone.utc)
        self._faker = Faker(["en_US", "de_DE", "ja_JP"])
        self._faker.seed_instance(seed)
        self._names: dict[str, str] = {}
        for name, amount in zip(COLUMNS, (2, 2, zones, spaces, zones), strict=True):
            for _ in range(amount):
                self.insert(name)
        self.hours: dict[str, Hours] = {"traffic": {}, "occupancy": {}}
        now = datetime.now(timezone.utc)
        self.first = first or (now - timedelta(days=8)).date()
        self.options = {} if first else {"chunk_days": "5"}  # a table takes several requests
        hour = self.midnight(self.first)
        end = now + HOUR if days is None else self.midnight(self.first + timedelta(days=days))
        while hour < end:
            self.count(hour)
            hour += HOUR
        self._routes()

    def configuration(self, **changes: str) -> dict[str, str]:
        return {
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "static_endpoints": ",".join(self.endpoints),
            "start_date": self.first.isoformat(),
            "base_url": f"{self.url}/api",
            "auth_url": f"{self.url}/oauth/token",
            **self.options,
            **changes,
        }

    def secrets(self) -> set[str]:
        names = ("name", "description", "city", "street", "deviceId", "sensorId", "spaceId")
        return {*self.tokens, CLIENT_SECRET, *self.values(*names, longer_than=5)}

    def expected(self) -> dict[str, list[Record]]:
        tables = {
            name: [
                {
                    column: _expected(record.get(field), column)
                    for column, field in COLUMNS[name].items()
                }
                for record in self.records[name]
            ]
            for name in self.endpoints
        }
        tables["traffic"] = [
            {
                **self._of_hour("zone_id", key),
                "sumins": int(counts["ins"]),
                "sumouts": int(counts["outs"]),
            }
            for key, counts in self.hours["traffic"].items()
        ]
        tables["occupancy"] = [
            {
                **self._of_hour("space_id", key),
                "maxoccupancy": int(values["occupancy(max)"]),
                "minoccupancy": int(values["occupancy(min)"]),
                "avgoccupancy": float(values["occupancy(avg)"]),
            }
            for key, values in self.hours["occupancy"].items()
        ]
        return tables

    def _of_hour(self, id_column: str, key: tuple[str, datetime]) -> Record:
        return {id_column: key[0], "name": self._names[key[0]], "record_date_hour_1": key[1]}

    def fill(self, count: int) -> None:
        """So many records of each listing, which have no pages, and so many days, which do: up to
        the last one that is requested, tomorrow in UTC. A day has its first and its last hour."""
        super().fill(count)
        self.hours = {"traffic": {}, "occupancy": {}}
        self.first = datetime.now(timezone.utc).date() + timedelta(days=2 - count)
        for day in range(count):
            self.count(self.midnight(self.first + timedelta(days=day)))
            self.count(self.midnight(self.first + timedelta(days=day + 1)) - HOUR)

    def resent(self) -> dict[str, int]:
        """The hours of the days in UTC that are read in parts: requests begin at the account's
        midnight, from yesterday less the look-back on."""
        yesterday = datetime.now(timezone.utc).date() - timedelta(days=1)
        begin = max(yesterday - LOOKBACK, self.first)
        days = range(0, 40, int(self.options.get("chunk_days", "30")))
        midnights = [self.midnight(begin + timedelta(days=number)) for number in days]
        cut = {moment.date() for moment in midnights if moment.hour}
        return {
            table: sum(hour.date() in cut for _, hour in hours)
            for table, hours in self.hours.items()
        }

    def place(self, text: str, more: Any) -> list[str]:
        for name in self.endpoints:
            told = {"location": "description", "zone": "countFilter", "space": "name"}
            texts = {told[name]: text} if name in told else {}
            self.change(name, 0, **texts, unheard_of=more)
        return [*self.endpoints]

    def change_something(self) -> None:
        """A usual day: a new sensor, a deleted sensor, a location that has moved, an hour that is
        counted further, and a late hour."""
        self.insert("sensor")
        self.delete("sensor", 0)
        self.change("location", 1, street="1 New Street", latitude=-33.25)
        zone, last = max(self.hours["traffic"], key=lambda key: key[1])
        self.hours["traffic"][zone, last]["ins"] += 7
        self.count(last + HOUR)

    @classmethod
    def small(cls, draw: random.Random) -> Self:
        now = datetime.now(timezone.utc)
        made = cls(
            zones=draw.randint(1, 2),
            spaces=1,
            first=(now - timedelta(days=draw.randint(2, 4))).date(),
            endpoints=tuple(draw.sample(sorted(COLUMNS), draw.randint(1, 5))),
            account_zone=draw.choice(("America/New_York", "Pacific/Auckland", "UTC")),
            shape=draw.choice(("live", "documented")),
            lifetime=draw.choice((None, 60, 3600)),
        )
        made.options = {
            "parallel_requests": draw.choice(("1", "4")),
            "chunk_days": draw.choice(("1", "2", "30")),
        }
        return made

    def mutate(self, draw: random.Random, *, deletes: bool = True) -> None:
        now = datetime.now(timezone.utc)
        kind, name = draw.choice(("insert", "change", "delete", "hours")), draw.choice([*COLUMNS])
        listing = self.records[name]
        if kind == "hours":
            hour = now.replace(minute=0, second=0, microsecond=0)
            self.count(hour - draw.randint(0, 20) * HOUR)  # new, or counted once more
        elif kind == "insert" or len(listing) < 2:
            self.insert(name)
        elif kind == "delete" and deletes:
            self.delete(name, draw.randrange(len(listing)))
        elif name != "zone":  # the hours hold the zone's name, too
            field = {"space": "maxCapacity"}.get(name, f"{name}Id")
            value = draw.randint(1, 999) if name == "space" else self._guid()
            self.change(name, draw.randrange(len(listing)), **{field: value})

    def end_credentials(self) -> None:
        self.revoke_access_token()

    def make(self, name: str, changed: datetime) -> Record:
        record: Record = getattr(self, f"_{name}")(len(self.records[name]))
        self._names[record[f"{name}Id"]] = record.get("name", "")
        return record

    def count(self, hour: datetime) -> None:
        """Counts an hour in every zone and every space."""
        with self.lock:
            for zone in self.records["zone"]:
                counts = {
                    "ins": self.random.randint(0, 900),
                    "outs": self.random.randint(0, 900),
                }
                self.hours["traffic"][zone["zoneId"], hour] = {**counts}
            for space in self.records["space"]:
                least, spread = self.random.randint(0, 300), self.random.randint(0, 900)
                self.hours["occupancy"][space["spaceId"], hour] = {
                    "occupancy(min)": least,
                    "occupancy(max)": least + spread,
                    "occupancy(avg)": least + spread / 2,
                }

    def withhold(self, zone: int, since: datetime) -> Hours:
        """Removes and returns the hours of a zone whose sensor went offline."""
        with self.lock:
            traffic, zone_id = self.hours["traffic"], self.records["zone"][zone]["zoneId"]
            held = {k: v for k, v in traffic.items() if k[0] == zone_id and k[1] >= since}
            for key in held:
                del traffic[key]
            return held

    def midnight(self, day: date) -> datetime:
        """The beginning of a day in the account's zone."""
        local = datetime(day.year, day.month, day.day, tzinfo=self.account_zone)
        return local.astimezone(timezone.utc)

    def revoke_access_token(self) -> None:
        """Another client requests a token of the same API client, which invalidates this one."""
        self._mint()

    # Records

    def _guid(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def _id_of(self, name: str) -> Any:
        records = self.records[name]
        return self.random.choice(records)[f"{name}Id"] if records else None

    def _stamps(self) -> Record:
        made = datetime(2021, 6, 1, tzinfo=timezone.utc) + timedelta(
            seconds=self.random.randint(0, 10**7)
        )
        return {"createdAt": _stamp(made), "updatedAt": _stamp(made + timedelta(days=9))}

    def _location(self, number: int) -> Record:
        return {
            "locationId": self._guid(),
            "orgId": self._guid(),
            "locationTypeId": self._guid(),
            "name": self._faker.company(),
            "description": self.random.choice([None, self._faker.sentence()]),
            "locationNumber": f"00{number}",
            "country": self._faker.country_code(),
            "city": self._faker.city(),
            "postalCode": "01234",
            "state": None,
            "street": self._faker.street_address(),
            "latitude": self.random.choice(["48.137154", 48.137154]),
            "longitude": 11,
            "shippingId": None,
            **self._stamps(),
            "hoursOfOperation": {"mon": ["08:00", "20:00"]},
        }

    def _site(self, number: int) -> Record:
        return {
            "siteId": self._guid(),
            "locationId": self._id_of("location"),
            "orgId": self._guid(),
            "name": f"Site {self._faker.last_name()}",
            "timeZone": "America/Denver",
            **self._stamps(),
        }

    def _zone(self, number: int) -> Record:
        return {
            "zoneId": self._guid(),
            "orgId": self._guid(),
            "name": f"Eingang {self._faker.unique.street_name()}",
            "sensorId": self._guid(),
            "deviceId": self._guid(),
            "countType": self.random.choice(["inOut", "in"]),
            "scaleFactor": self.random.choice([1, 1.05]),
            "countFilter": None,
            "countApplication": "entrance",
            "perimeter": self.random.choice([True, False]),
            "disabled": False,
            "settings": self.random.choice([None, {"mode": "a", "lines": [1, 2]}]),
            **self._stamps(),
        }

    def _space(self, number: int) -> Record:
        return {
            "spaceId": self._guid(),
            "name": f"Halle {self._faker.unique.last_name()} Süd",
            "locationId": self._id_of("location"),
            "maxCapacity": self.random.choice([None, 400, "1200"]),
        }

    def _sensor(self, number: int) -> Record:
        return {
            "sensorId": self._guid(),
            "siteId": self._id_of("site"),
            "name": f"Sensor {self._faker.unique.street_name()}",
            "serialNumber": self._faker.mac_address(),
            **self._stamps(),
        }

    # The API

    def _routes(self) -> None:
        self.app.add_url_rule("/oauth/token", view_func=self._token, methods=["POST"])
        self.app.add_url_rule("/api/<name>", view_func=self._list)
        self.app.add_url_rule("/api/data/<table>", view_func=self._data)

    def _token(self) -> Any:
        asked = request.get_json(silent=True) or request.form
        if self.mints is not None:
            self.mints -= 1
            if self.mints < 0:
                self.mints = None  # time has passed when the client returns
                return _error(429, "too_many_requests")
        if asked.get("grant_type") != "client_credentials":
            return _error(400, "unsupported_grant_type")
        if (asked.get("client_id"), asked.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            return _error(401, "invalid_client")
        self._mint()
        response = {"access_token": self.access_token, "refresh_token": "refresh-unused"}
        if self.lifetime is not None:
            response["expires_in"] = self.lifetime  # type: ignore[assignment]
        return jsonify({**response, "token_type": "Bearer"})

    def _mint(self) -> None:
        self.access_token = "access-" + secrets.token_hex(16)
        self.tokens.append(self.access_token)
        if self.lifetime is not None:
            self._ends = datetime.now(timezone.utc) + timedelta(seconds=self.lifetime)

    def _refusal(self) -> Response | None:
        given, now = request.headers.get("Authorization"), datetime.now(timezone.utc)
        if not self.tokens or given != f"Bearer {self.access_token}" or now >= self._ends:
            return _error(401, "unauthorized")
        if self.is_over_limit():
            response = _error(429, "rate_limit_exceeded")
            response.headers["Retry-After"] = "1"
            return response
        return None

    def _list(self, name: str) -> Any:
        if refusal := self._refusal():
            return refusal
        if name not in self.records:
            return _error(404, "not_found")
        if self.shape == "live":
            return jsonify(self.records[name])
        names = {field: column for column, field in COLUMNS[name].items()}
        records = [{names.get(k, k): v for k, v in r.items()} for r in self.records[name]]
        return jsonify(results=records)

    def _data(self, table: str) -> Any:
        if refusal := self._refusal():
            return refusal
        if table not in self.hours:
            return _error(404, "not_found")
        asked, metrics = request.args, request.args.get("metrics", "").split(",")
        known = {"ins", "outs"} if table == "traffic" else set(VALUES)
        if (
            asked.get("relativeDate") != "custom"
            or asked.get("dateGroupings") != "hour"
            or asked.get("entityType") != ENTITIES[table]
            or not known.issuperset(metrics)
        ):
            return _error(400, "invalid_parameter")
        try:
            start, end = (self._moment(asked[name]) for name in ("startDate", "endDate"))
        except (KeyError, ValueError):
            return _error(400, "invalid_date")
        rows = [
            self._hour(table, key, values, metrics)
            for key, values in self.hours[table].items()
            if start <= key[1] < end
        ]
        return jsonify(messages=self.messages, results=rows)

    def _moment(self, text: str) -> datetime:
        if len(text) > len("2026-01-01"):
            return datetime.fromisoformat(text.replace("Z", "+00:00"))
        return self.midnight(date.fromisoformat(text))

    def _hour(
        self, table: str, key: tuple[str, datetime], values: dict[str, float], metrics: list[str]
    ) -> Record:
        id_, hour = key
        live, entity = self.shape == "live", ENTITIES[table]
        row: Record = {"recordDate_hour_1" if live else "record_date_hour_1": _stamp(hour)}
        row[f"{entity}Id" if live else f"{entity}_id"] = id_
        row["name"] = self._names[id_]
        for metric in metrics:
            text = live and metric == "occupancy(avg)"
            row[VALUES.get(metric, f"sum{metric}")] = (
                str(values[metric]) if text else values[metric]
            )
        return row


# The fields of the metrics that are not sums.
VALUES = {f"occupancy({function})": f"{function}occupancy" for function in ("max", "min", "avg")}


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _error(status: int, code: str) -> Response:
    response: Response = jsonify(error=code, message="The request was refused")
    response.status_code = status
    return response


def _expected(value: Any, column: str) -> Any:
    """What a column holds for a value: its type follows from the meaning of the column."""
    if value is None:
        return None
    if column in ("created_at", "updated_at"):
        return datetime.fromisoformat(value.replace("Z", "+00:00"))
    if column in ("latitude", "longitude", "scale_factor"):
        return float(value)
    if column == "max_capacity":
        return int(value)
    if column == "perimeter":
        return {True: "true", False: "false"}[value]
    if column == "settings":
        return json.dumps(value)
    return value
