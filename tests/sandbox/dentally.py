"""A simulator of Dentally: OAuth2 with rotation, capped pages, filters that work or not."""

import random
import secrets
import uuid
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, ClassVar

from faker import Faker
from flask import Response, jsonify, request
from typing_extensions import Self

from .server import Sandbox
from .simulator import PAGE

Record = dict[str, Any]
RESOURCES = ("sites", "rooms", "treatments")
CLIENT_ID = "dentally-client-id"
CLIENT_SECRET = "dentally-client-secret-0f3b8a"


class Dentally(Sandbox):
    """``records`` may be changed while it runs; ``insert``, ``change`` and ``delete`` do so as the
    source would.

    ``shape``: "live" (what accounts send), or "documented" (what the specification names).
    ``cap``: the most records in a page. ``meta``: "total" (what is seen live), "pages" (with
    ``total_pages``), "text" (numbers as text), "none". ``filters``: whether ``updated_after`` is
    honoured. ``rotates``: whether a refresh token works once only. ``limit``: requests until the
    rate limit, whose response has ``limit_status``.
    """

    name = "dentally"
    data_path = "/v1/"
    sync_times = ("timestamp",)
    small_pages: ClassVar = {"max_records_per_page": str(PAGE)}
    conditions = (*Sandbox.conditions, "tied", "miscounted", "capped")
    limits: ClassVar = {
        **Sandbox.limits,
        "shared.listing.CHECKPOINT_ROWS": 5,
        "shared.listing.STREAMED_FIRST_LOAD": 8,
    }

    def __init__(
        self,
        *,
        sites: int = 3,
        rooms: int = 40,
        treatments: int = 230,
        shape: str = "live",
        cap: int = 100,
        meta: str = "total",
        filters: bool = True,
        rotates: bool = True,
        lifetime: int | None = 14 * 24 * 3600,
        seed: int = 1,
    ) -> None:
        super().__init__()
        self.shape = shape
        self.cap = cap
        self.meta = meta
        self.filters = filters
        self.rotates = rotates
        self.lifetime = lifetime
        self.limit: int | None = None
        self.limit_status = 429
        self._random = random.Random(seed)
        self._faker = Faker(["en_GB", "de_DE", "ja_JP"])
        self._faker.seed_instance(seed)
        self._number = 0
        self.access_token = "access-" + secrets.token_hex(16)
        self.refresh_token = "refresh-" + secrets.token_hex(16)
        self.first_tokens = (self.access_token, self.refresh_token)
        self.renewals = 0
        self.records: dict[str, list[Record]] = {resource: [] for resource in RESOURCES}
        for resource, amount in zip(RESOURCES, (sites, rooms, treatments), strict=True):
            for _ in range(amount):
                changed = datetime.now(timezone.utc) - timedelta(
                    days=self._random.uniform(1, 700), seconds=self._random.random()
                )
                self.records[resource].append(self._make(resource, changed))
        self._routes()

    def configuration(self, **changes: str) -> dict[str, str]:
        return {
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
            "access_token": self.first_tokens[0],
            "refresh_token": self.first_tokens[1],
            "base_url": self.url,
            **self.options,
            **changes,
        }

    def secrets(self) -> set[str]:
        tokens = {*self.first_tokens, self.access_token, self.refresh_token}
        names = ("email", "email_address", "nomenclature", "description", "equipment_type")
        values = {str(r.get(n)) for rs in self.records.values() for r in rs for n in names}
        return {*tokens, CLIENT_SECRET, *(v for v in values if len(v) > 8)}

    def expected(self) -> dict[str, list[Record]]:
        tables: dict[str, list[Record]] = {}
        for resource in RESOURCES:
            tables[resource] = [
                {**EXPECTED[resource](r), **_times(r)} for r in self.records[resource]
            ]
        return tables

    def empty(self) -> None:
        for records in self.records.values():
            records.clear()

    def fill(self, count: int) -> None:
        for resource, records in self.records.items():
            del records[count:]
            for _ in range(count - len(records)):
                self.insert(resource)

    def resent(self) -> dict[str, int]:
        return {}

    def place(self, text: str, more: Any) -> list[str]:
        for resource in RESOURCES:
            name = "description" if resource == "treatments" else "name"
            self.change(resource, 0, **{name: text, "unheard_of": more})
        return [*RESOURCES]

    def change_something(self) -> None:
        self.insert("treatments")
        self.insert("rooms")
        self.change("treatments", 5, description="Revised")
        self.delete("treatments", 7)

    @classmethod
    def small(cls, draw: random.Random) -> Self:
        made = cls(
            sites=draw.randint(1, 3),
            rooms=draw.randint(1, 5),
            treatments=draw.choice((1, 7, 12, 14)),
            shape=draw.choice(("live", "documented")),
            cap=draw.choice((2, 4, 100)),
            meta=draw.choice(("total", "pages", "text", "none")),
            filters=draw.random() < 0.7,
            rotates=draw.random() < 0.7,
        )
        made.options = {"parallel_requests": draw.choice(("1", "4"))}
        return made

    def mutate(self, draw: random.Random, *, deletes: bool = True) -> None:
        resource = draw.choice(RESOURCES)
        records = self.records[resource]
        kind = draw.choice(("insert", "change", "delete") if len(records) > 1 else ("insert",))
        kind = "change" if kind == "delete" and not deletes else kind
        position = draw.randrange(len(records))
        if kind == "insert":
            self.insert(resource, position)
        elif kind == "change":
            name = "description" if resource == "treatments" else "name"
            self.change(resource, position, **{name: f"Revised {draw.random()}"})
        else:
            self.delete(resource, position)

    def end_credentials(self) -> None:
        self.revoke_access_token()

    def repair(self, output: str) -> bool:
        """Creates new tokens in the Developer Portal if the error asks for them."""
        asked = "create new tokens in the Developer Portal" in output
        if asked:
            self.access_token = "access-" + secrets.token_hex(16)
            self.refresh_token = "refresh-" + secrets.token_hex(16)
            self.first_tokens = (self.access_token, self.refresh_token)
        return asked

    def insert(self, resource: str, position: int | None = None) -> Record:
        """Adds a record, at the end of the list or at ``position``."""
        with self.lock:
            record = self._make(resource, datetime.now(timezone.utc))
            records = self.records[resource]
            records.insert(len(records) if position is None else position, record)
            return record

    def change(self, resource: str, position: int, **fields: Any) -> Record:
        """Changes a record, and its ``updated_at`` where it has one."""
        with self.lock:
            record = self.records[resource][position]
            self.remember(self.records[resource], record)
            record.update(fields)
            if "updated_at" in record:
                record["updated_at"] = _stamp(datetime.now(timezone.utc))
            return record

    def delete(self, resource: str, position: int) -> Record:
        with self.lock:
            return self.records[resource].pop(position)

    def revoke_access_token(self) -> None:
        """Invalidates the access token in use; the refresh token stays valid."""
        self.access_token = "revoked-" + secrets.token_hex(16)

    # Records

    def _make(self, resource: str, changed: datetime) -> Record:
        self._number += 1
        make = getattr(self, f"_{resource}_{self.shape}")
        record: Record = make(self._number)
        if resource != "sites" or self.shape == "documented":
            created = changed - timedelta(days=self._random.uniform(0, 300))
            record["created_at"] = _stamp(created)
            record["updated_at"] = _stamp(changed)
        return record

    def _guid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def _site_id(self) -> Any:
        return self._random.choice(self.records["sites"])["id"] if self.records["sites"] else None

    def _sites_live(self, number: int) -> Record:
        return {
            "id": self._guid(),
            "active": True,
            "name": self._faker.company(),
            "nickname": None,
            "address_line_1": self._faker.street_address(),
            "address_line_2": "",
            "town": self._faker.city(),
            "county": None,
            "postcode": self._faker.postcode(),
            "phone_number": "07000",
            "email_address": self._faker.email(),
            "website": self._faker.url(),
            "logo_url": None,
            "practice_id": self._random.randint(1, 999),
            "default_payment_plan_id": self._random.randint(1, 99),
            "opening_hours": {"Monday": {"open": "08:00", "close": "18:00"}},
        }

    def _sites_documented(self, number: int) -> Record:
        return {
            "id": self._guid(),
            "name": self._faker.company(),
            "address": self._faker.address().replace("\n", ", "),
            "phone": "07000",
            "email": self._faker.email(),
            "timezone": "Europe/London",
        }

    def _rooms_live(self, number: int) -> Record:
        return {
            "id": number if number % 2 else self._guid(),
            "name": str(number),
            "site_id": self._site_id(),
            "colour": self._faker.hex_color(),
            "calendar_position": number,
        }

    def _rooms_documented(self, number: int) -> Record:
        return {
            "id": self._guid(),
            "name": f"Surgery {number}",
            "room_number": "12",
            "equipment_type": self._random.choice(["chair", "x-ray", None]),
            "site_id": self._site_id(),
            "status": self._random.choice(["active", "maintenance"]),
        }

    def _treatments_live(self, number: int) -> Record:
        return {
            "id": number,
            "active": self._random.random() < 0.9,
            "code": self._random.choice(["t", "0012", "1E5", "2024-01-01"]),
            "nomenclature": self._faker.sentence(3),
            "patient_nomenclature": self._faker.sentence(2),
            "description": self._faker.sentence(),
            "patient_description": None,
            "notes": "",
            "region": self._random.choice(["tooth", "mouth"]),
            "nhs_treatment_cat": None,
            "uda_band": self._random.choice([None, 1, 2, 3]),
            "treatment_category_id": self._random.randint(1, 20),
        }

    def _treatments_documented(self, number: int) -> Record:
        return {
            "id": str(number),
            "name": self._faker.sentence(3),
            "code": "t",
            "category": "restorative",
            "description": self._faker.sentence(),
            "default_fee": self._random.choice(["27.9", 0.1, 1234, "99999999999999.9999", None]),
            "duration_minutes": self._random.choice(["30", 45, None]),
        }

    # The API

    def _routes(self) -> None:
        self.app.add_url_rule("/oauth/token", view_func=self._token, methods=["POST"])
        self.app.add_url_rule("/v1/<resource>", view_func=self._list)

    def _token(self) -> Any:
        form = request.form
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, CLIENT_SECRET):
            return jsonify(error="invalid_client"), 401
        if form.get("grant_type") != "refresh_token":
            return jsonify(error="unsupported_grant_type"), 400
        if form.get("refresh_token") != self.refresh_token:
            return jsonify(error="invalid_grant"), 400
        self.renewals += 1
        self.access_token = "access-" + secrets.token_hex(16)
        response = {"access_token": self.access_token, "token_type": "bearer"}
        if self.rotates:
            self.refresh_token = "refresh-" + secrets.token_hex(16)
            response["refresh_token"] = self.refresh_token
        if self.lifetime:
            response["expires_in"] = str(self.lifetime)
        return jsonify(response)

    def _list(self, resource: str) -> Any:
        if "python-requests" in request.headers.get("User-Agent", "python-requests"):
            return _error(403, "forbidden", "Missing or invalid User-Agent")
        if request.headers.get("Authorization") != f"Bearer {self.access_token}":
            return _error(401, "authentication_error", "The access token is invalid")
        if self.limit is not None:
            self.limit -= 1
            if self.limit < 0:
                return self._limited()
        if resource not in self.records:
            return _error(404, "not_found_error", "No such resource")
        records = self.tied(self._filtered(resource))
        page = max(int(request.args.get("page", 1)), 1)
        asked = int(request.args.get("per_page", 25))
        size = min(asked if asked <= 100 else 25, self.cap)
        part = records[(page - 1) * size : page * size]
        key = resource if self.shape == "live" else "data"
        return jsonify({key: part, **self._meta(page, size, self.counted(records))})

    def _filtered(self, resource: str) -> list[Record]:
        records = list(self.records[resource])
        since = request.args.get("updated_after")
        if since and self.filters:
            # Dentally's times and the connector's are in UTC; as text they compare to the second.
            records = [r for r in records if r.get("updated_at", "9")[:19] >= since[:19]]
        order = request.args.get("sort_by")
        if order in ("created_at", "updated_at"):
            backward = request.args.get("sort_direction") == "desc"
            records.sort(key=lambda record: str(record.get(order)), reverse=backward)
        return records

    def _meta(self, page: int, size: int, total: int) -> Record:
        pages = -(-total // size)
        forms: dict[str, Record] = {
            "total": {"meta": {"total": total, "current_page": page}},
            "pages": {"meta": {"total": total, "current_page": page, "total_pages": pages}},
            "text": {"meta": {"total": str(total), "current_page": str(page)}},
            "none": {},
        }
        return forms[self.meta]

    def _limited(self) -> Any:
        self.limit = None  # the next hour has come when the client returns
        message = "Rate limit exceeded"
        response = _error(self.limit_status, "invalid_access_error", message)
        reset = datetime.now(timezone.utc).timestamp() + 1
        response.headers["X-RateLimit-Reset"] = str(int(reset))
        return response


def _stamp(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}+00:00"


def _error(status: int, kind: str, message: str) -> Response:
    response: Response = jsonify(error={"type": kind, "message": message})
    response.status_code = status
    return response


# What a record becomes, column by column.


def _times(record: Record) -> Record:
    return {
        name: datetime.fromisoformat(record[name]) if record.get(name) else None
        for name in ("created_at", "updated_at")
    }


def _expected_site(r: Record) -> Record:
    lines = [r.get(k) for k in ("address_line_1", "address_line_2", "town", "county", "postcode")]
    return {
        "id": r["id"],
        "name": r["name"],
        "address": r.get("address") or ", ".join(str(line) for line in lines if line),
        "phone": r.get("phone") or r.get("phone_number"),
        "email": r.get("email") or r.get("email_address"),
        "timezone": r.get("timezone"),
    }


def _expected_room(r: Record) -> Record:
    columns = ("name", "room_number", "equipment_type", "site_id", "status")
    return {"id": str(r["id"]), **{column: r.get(column) for column in columns}}


def _expected_treatment(r: Record) -> Record:
    fee, minutes, category = (r.get(k) for k in ("default_fee", "duration_minutes", "category"))
    if category is None:
        category = str(r["treatment_category_id"])
    return {
        "id": str(r["id"]),
        "name": r.get("name") or r.get("nomenclature"),
        "code": r["code"],
        "category": category,
        "description": r["description"],
        "default_fee": None if fee is None else Decimal(str(fee)).quantize(Decimal("0.0001")),
        "duration_minutes": None if minutes is None else int(minutes),
    }


EXPECTED: dict[str, Callable[[Record], Record]] = {
    "sites": _expected_site,
    "rooms": _expected_room,
    "treatments": _expected_treatment,
}
