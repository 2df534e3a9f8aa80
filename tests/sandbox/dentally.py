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

from .lists import RecordLists, moment
from .simulator import PAGE

Record = dict[str, Any]
RESOURCES = ("sites", "rooms", "treatments")
CLIENT_ID = "dentally-client-id"
CLIENT_SECRET = "dentally-client-secret-0f3b8a"


class Dentally(RecordLists):
    """``shape``: "live" (what accounts send), or "documented" (what the specification names).
    ``cap``: the most records in a page. ``meta``: "total" (what is seen live), "pages" (with
    ``total_pages``), "text" (numbers as text), "none". ``filters``: whether ``updated_after`` is
    honoured. ``rotates``: whether a refresh token works once only. ``limit``: requests until the
    rate limit, whose response has ``limit_status``.
    """

    name = "dentally"
    lists = RESOURCES
    filtered = ("rooms", "treatments")
    lists_deletes = ()
    data_path = "/v1/"
    sync_times = ("timestamp",)
    small_pages: ClassVar = {"max_records_per_page": str(PAGE)}
    conditions = (*RecordLists.conditions, "tied", "miscounted", "capped")

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
        super().__init__(seed=seed)
        self.shape = shape
        self.cap = cap
        self.meta = meta
        self.filters = filters
        self.rotates = rotates
        self.lifetime = lifetime
        self.limit_status = 429
        self._faker = Faker(["en_GB", "de_DE", "ja_JP"])
        self._faker.seed_instance(seed)
        self.access_token = "access-" + secrets.token_hex(16)
        self.refresh_token = "refresh-" + secrets.token_hex(16)
        self.first_tokens = (self.access_token, self.refresh_token)
        self.renewals = 0
        self.grow(sites=sites, rooms=rooms, treatments=treatments)
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
        tokens = {*self.first_tokens, self.access_token, self.refresh_token, CLIENT_SECRET}
        names = ("email", "email_address", "nomenclature", "description", "equipment_type")
        return tokens | self.values(*names)

    def row(self, name: str, record: Record) -> Record:
        return {**EXPECTED[name](record), **_times(record)}

    def text_field(self, name: str) -> str:
        return "description" if name == "treatments" else "name"

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

    def revoke_access_token(self) -> None:
        """Invalidates the access token in use; the refresh token stays valid."""
        self.access_token = "revoked-" + secrets.token_hex(16)

    # Records

    def make(self, name: str, changed: datetime) -> Record:
        self.number += 1
        make = getattr(self, f"_{name}_{self.shape}")
        record: Record = make(self.number)
        if name != "sites" or self.shape == "documented":
            created = changed - timedelta(days=self.random.uniform(0, 300))
            record["created_at"] = self.stamp(created)
            record["updated_at"] = self.stamp(changed)
        return record

    def stamp(self, moment: datetime) -> str:
        return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}+00:00"

    def _guid(self) -> str:
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def _site_id(self) -> Any:
        return self.random.choice(self.records["sites"])["id"] if self.records["sites"] else None

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
            "practice_id": self.random.randint(1, 999),
            "default_payment_plan_id": self.random.randint(1, 99),
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
            "equipment_type": self.random.choice(["chair", "x-ray", None]),
            "site_id": self._site_id(),
            "status": self.random.choice(["active", "maintenance"]),
        }

    def _treatments_live(self, number: int) -> Record:
        return {
            "id": number,
            "active": self.random.random() < 0.9,
            "code": self.random.choice(["t", "0012", "1E5", "2024-01-01"]),
            "nomenclature": self._faker.sentence(3),
            "patient_nomenclature": self._faker.sentence(2),
            "description": self._faker.sentence(),
            "patient_description": None,
            "notes": "",
            "region": self.random.choice(["tooth", "mouth"]),
            "nhs_treatment_cat": None,
            "uda_band": self.random.choice([None, 1, 2, 3]),
            "treatment_category_id": self.random.randint(1, 20),
        }

    def _treatments_documented(self, number: int) -> Record:
        return {
            "id": str(number),
            "name": self._faker.sentence(3),
            "code": "t",
            "category": "restorative",
            "description": self._faker.sentence(),
            "default_fee": self.random.choice(["27.9", 0.1, 1234, "99999999999999.9999", None]),
            "duration_minutes": self.random.choice(["30", 45, None]),
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
        if self.is_over_limit():
            return self._limited()
        if resource not in self.records:
            return _error(404, "not_found_error", "No such resource")
        records = self._filtered(resource)
        page = max(int(request.args.get("page", 1)), 1)
        asked = int(request.args.get("per_page", 25))
        size = min(asked if asked <= 100 else 25, self.cap)
        part, pages = self.page(records, page, size)
        key = resource if self.shape == "live" else "data"
        return jsonify({key: part, **self._meta(page, pages, self.counted(records))})

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

    def _meta(self, page: int, pages: int, total: int) -> Record:
        forms: dict[str, Record] = {
            "total": {"meta": {"total": total, "current_page": page}},
            "pages": {"meta": {"total": total, "current_page": page, "total_pages": pages}},
            "text": {"meta": {"total": str(total), "current_page": str(page)}},
            "none": {},
        }
        return forms[self.meta]

    def _limited(self) -> Any:
        message = "Rate limit exceeded"
        response = _error(self.limit_status, "invalid_access_error", message)
        reset = datetime.now(timezone.utc).timestamp() + 1
        response.headers["X-RateLimit-Reset"] = str(int(reset))
        return response


def _error(status: int, kind: str, message: str) -> Response:
    response: Response = jsonify(error={"type": kind, "message": message})
    response.status_code = status
    return response


# What a record becomes, column by column.


def _times(record: Record) -> Record:
    return {
        name: moment(record[name]) if record.get(name) else None
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
