"""A simulator of Paligo: Basic authentication, numbered pages with a cap, a limit per minute."""

import random
from collections import defaultdict
from datetime import datetime, timedelta, timezone
from typing import Any, ClassVar

from flask import Response, jsonify, request
from typing_extensions import Self

from connectors.paligo.faker_mock.mock_data_generator import MockDataGenerator, iso

from .lists import RecordLists, moment
from .simulator import PAGE

Record = dict[str, Any]
RESOURCES = ("users", "taxonomies", "assignments")
USERNAME = "documentation.admin@paligo.example"
API_KEY = "paligo-api-key-5d1c20"


class Paligo(RecordLists):
    """``shape``: "live" (what accounts send), or "documented" (what the specification names).
    ``root``: the parent of taxonomies at the top. ``cap``: the most records in a page, ``least``:
    the smallest page that can be asked for.
    ``paging``: "both" (``next_page`` and ``total_pages``, what is seen live), "pages", "links",
    "none". ``limit``: requests to one list until the rate limit of its minute, whose response
    has ``retry_after`` if that is set. ``history``: the days before now that ``expected`` covers.
    """

    name = "paligo"
    lists = RESOURCES
    filtered = ()
    lists_deletes = ()
    data_path = "/api/v2/"
    sync_times = ("sync_timestamp",)
    small_pages: ClassVar = {"max_records_per_page": str(PAGE)}
    conditions = (*RecordLists.conditions, "tied", "miscounted", "capped")

    def __init__(
        self,
        *,
        users: int = 12,
        taxonomies: int = 60,
        assignments: int = 230,
        shape: str = "live",
        root: Any = None,
        cap: int = 50,
        paging: str = "both",
        seed: int = 1,
    ) -> None:
        super().__init__(seed=seed)
        self.shape = shape
        self.cap = cap
        self.least = 1
        self.paging = paging
        self.retry_after: str | None = "30"
        self.history = 90
        self.api_key = API_KEY
        self._generator = MockDataGenerator(seed, shape, root, oldest=180)
        self.records = self._generator.dataset(users, taxonomies, assignments)
        self._counts: dict[str, int] = defaultdict(int)
        self.app.add_url_rule("/api/v2/<resource>", view_func=self._list)
        self.app.add_url_rule("/api/v2/<resource>/", view_func=self._list)

    def configuration(self, **changes: str) -> dict[str, str]:
        return {
            "username": USERNAME,
            "api_key": self.api_key,
            "base_url": f"{self.url}/api/v2",
            "initial_sync_days": str(self.history),
            **self.options,
            **changes,
        }

    def secrets(self) -> set[str]:
        names = ("name", "email", "title", "message", "description", "issuer")
        return {USERNAME, API_KEY, self.api_key, *self.values(*names)}

    def expected(self) -> dict[str, list[Record]]:
        # A record that changed exactly at the limit would be ambiguous; none is made there.
        oldest = datetime.now(timezone.utc) - timedelta(days=self.history)
        places = _places(self.records["taxonomies"])
        return {
            "users": [_expected_user(r) for r in self.records["users"]],
            "taxonomies": [
                _expected_taxonomy(r, places.get(str(r["id"]))) for r in self.records["taxonomies"]
            ],
            "assignments": [
                _expected_assignment(r)
                for r in self.records["assignments"]
                if not (changes := _changes(r)) or max(changes) >= oldest
            ],
        }

    def text_field(self, name: str) -> str:
        message = "message" if self.shape == "live" else "description"
        return {"users": "name", "taxonomies": "title", "assignments": message}[name]

    def stamp(self, moment: datetime) -> Any:
        return iso(moment)

    def change_something(self) -> None:
        self.insert("assignments")
        self.insert("users")
        self.insert("taxonomies")
        self.change("users", 2, name="Renamed Person")
        if self.shape == "live":
            self.change("assignments", 5, message="Please look at it again")
            self.change("taxonomies", 3, title="Renamed")
        else:
            self.change("assignments", 5, status="completed")
        self.delete("assignments", 7)
        self.delete("users", 4)

    @classmethod
    def small(cls, draw: random.Random) -> Self:
        made = cls(
            users=draw.randint(1, 4),
            taxonomies=draw.randint(1, 6),
            assignments=draw.choice((1, 7, 12, 14)),
            shape=draw.choice(("live", "documented", "documented")),
            root=draw.choice((None, "", 0)),
            cap=draw.choice((2, 5, 50)),
            paging=draw.choice(("both", "pages", "links", "none")),
        )
        made.options = {"parallel_requests": draw.choice(("1", "4"))}
        made.history = 365  # no record grows older than that while a schedule runs
        return made

    def make(self, name: str, changed: datetime) -> Record:
        if name == "users":
            return self._generator.user()
        if name == "taxonomies":
            return self._generator.taxonomy(self.records[name])
        return self._generator.assignment(self.records["users"], changed)

    def replace_api_key(self) -> None:
        """Invalidates the API key in use; ``configuration`` has the new one."""
        self.api_key = "paligo-new-key-8e47f3"

    # The API

    def _list(self, resource: str) -> Any:
        given = request.authorization
        if given is None or (given.username, given.password) != (USERNAME, self.api_key):
            return _error(401, "Unauthorized")
        if resource not in self.records:
            return _error(404, "Not Found")
        if self.limit is not None:
            self._counts[resource] += 1
            if self._counts[resource] > self.limit:
                return self._limited()
        records = self.records[resource]
        number = max(int(request.args.get("page", 1)), 1)
        size = min(max(int(request.args.get("per_page", 25)), self.least), self.cap)
        part, pages = self.page(records, number, size)
        base = f"{request.base_url}?per_page={size}"
        links: Record = {"next_page": f"{base}&page={number + 1}" if number < pages else ""}
        totals: Record = {"total_pages": max(pages, 1)}
        form = {"both": {**links, **totals}, "pages": totals, "links": links, "none": {}}
        key = resource if self.shape == "live" else "data"
        return jsonify({"page": number, **form[self.paging], key: part})

    def _limited(self) -> Response:
        self._counts.clear()  # the next minute has come when the client returns
        response = _error(429, "Too Many Requests")
        if self.retry_after:
            response.headers["Retry-After"] = self.retry_after
        return response


def _error(status: int, message: str) -> Response:
    response: Response = jsonify(code=status, message=message)
    response.status_code = status
    return response


# What a record becomes, column by column.


def _time(value: Any) -> datetime | None:
    if value is None:
        return None
    if isinstance(value, int):
        return datetime.fromtimestamp(value, timezone.utc)
    return moment(value)


def _changes(record: Record) -> list[datetime]:
    moments = [_time(record.get(name)) for name in ("updated_at", "completed_at")]
    return [moment for moment in moments if moment]


def _times(record: Record, *names: str) -> Record:
    return {name: _time(record.get(name)) for name in ("created_at", "updated_at", *names)}


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _expected_user(r: Record) -> Record:
    return {
        "id": str(r["id"]),
        "name": r["name"],
        "email": r["email"],
        "role": r["role"] if "role" in r else r["type"],
        "status": r.get("status"),
        **_times(r, "last_login"),
    }


def _above(record: Record) -> Any:
    return record["parent_id"] if "parent_id" in record else record.get("parent")


def _places(taxonomies: list[Record]) -> dict[str, tuple[int, str]]:
    """Level and path of the taxonomies that are connected to a root, from the top downwards."""
    children: dict[Any, list[Record]] = defaultdict(list)
    for record in taxonomies:
        children[str(_above(record) or "")].append(record)
    ids = {str(record["id"]) for record in taxonomies}
    unlisted = [parent for parent in children if parent not in ids]
    top = "" if "" in children or len(unlisted) != 1 else unlisted[0]
    places = {str(r["id"]): (0, str(r["title"])) for r in children[top]}
    below = list(children[top])
    while below:
        record = below.pop()
        level, path = places[str(record["id"])]
        for child in children[str(record["id"])]:
            places[str(child["id"])] = (level + 1, f"{path}/{child['title']}")
            below.append(child)
    return places


def _expected_taxonomy(r: Record, place: tuple[int, str] | None) -> Record:
    level, path = place or (None, None)
    return {
        "id": str(r["id"]),
        "title": r["title"],
        "color": _text(r["color"]),
        "parent_id": _text(_above(r)),
        "level": r.get("level", level),
        "path": r.get("path", path),
        **_times(r),
    }


def _expected_assignment(r: Record) -> Record:
    return {
        "id": str(r["id"]),
        "title": r.get("title"),
        "description": r["description"] if "description" in r else r.get("message"),
        "assignee_id": _text(r.get("assignee_id")),
        "assigner_id": _text(r["assigner_id"] if "assigner_id" in r else r.get("issuer_id")),
        "status": r.get("status"),
        "priority": _text(r.get("priority")),
        "due_date": _time(r["due_date"] if "due_date" in r else r.get("end_date")),
        **_times(r, "completed_at"),
    }
