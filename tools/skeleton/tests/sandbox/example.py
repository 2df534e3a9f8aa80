"""A simulator of Example: numbered pages, a filter by time, a list of deletes.

Replace: what the source does, from its reference and from responses that you have seen. The tests
know of the source only what is written here.
"""

import random
import secrets
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, ClassVar

from faker import Faker
from flask import jsonify, request
from typing_extensions import Self

from tests.sandbox.server import Sandbox
from tests.sandbox.simulator import PAGE

Record = dict[str, Any]


class Example(Sandbox):
    """``records`` may be changed while it runs; ``insert``, ``change`` and ``delete`` do so as the
    source would."""

    name = "example"
    data_path = "/v1/items"
    lists_deletes = True
    small_pages: ClassVar = {"page_size": str(PAGE)}
    limits: ClassVar = {
        **Sandbox.limits,
        "shared.listing.CHECKPOINT_ROWS": 5,
        "shared.listing.STREAMED_FIRST_LOAD": 8,
    }

    def __init__(self, *, items: int = 50, seed: int = 1) -> None:
        super().__init__()
        self.api_key = "key-" + secrets.token_hex(16)
        self._faker = Faker(["en_GB", "ja_JP"])
        self._faker.seed_instance(seed)
        self.records: list[Record] = []
        self.deleted: list[Record] = []
        for age in range(items, 0, -1):
            self.insert(updated_at=_stamp(timedelta(days=age)))
        self.app.add_url_rule(self.data_path, view_func=self._list)
        self.app.add_url_rule("/v1/deleted-items", view_func=self._list_deleted)

    def configuration(self, **changes: str) -> dict[str, str]:
        # Three pages at least: tests/contract breaks the third request, too.
        return {
            "api_key": self.api_key,
            "base_url": f"{self.url}/v1",
            "page_size": "20",
            **changes,
        }

    def secrets(self) -> set[str]:
        return {self.api_key, *(record["name"] for record in self.records)}

    def expected(self) -> dict[str, list[Record]]:
        return {
            "items": [
                {
                    "id": str(record["id"]),
                    "name": record["name"],
                    "price": Decimal(str(record["price"])).quantize(Decimal("0.0001")),
                    "updated_at": datetime.fromisoformat(record["updated_at"]),
                }
                for record in self.records
            ]
        }

    def empty(self) -> None:
        """Removes all items. Credentials without rights see no deletes, either."""
        self.records.clear()

    def fill(self, count: int) -> None:
        while len(self.records) > count:
            self.delete()
        for _ in range(count - len(self.records)):
            self.insert()

    def resent(self) -> dict[str, int]:
        """None: every item tells when it changed."""
        return {}

    def place(self, text: str, more: Any) -> list[str]:
        self.change(0, name=text, unheard_of=more)
        return ["items"]

    @classmethod
    def small(cls, draw: random.Random) -> Self:
        return cls(items=draw.choice((1, 7, 12, 14)))

    def mutate(self, draw: random.Random, *, deletes: bool = True) -> None:
        kind = draw.choice(("insert", "change", "delete"))
        if kind == "insert":
            self.insert()
        elif kind == "delete" and deletes and len(self.records) > 1:
            self.delete(draw.randrange(len(self.records)))
        else:
            self.change(draw.randrange(len(self.records)), name=f"Renamed {draw.random()}")

    def change_something(self) -> None:
        self.insert()
        self.change(3, name="An item with another name")
        self.delete(5)

    def insert(self, **fields: Any) -> Record:
        """Adds an item, at the end of the list."""
        with self.lock:
            record = {
                "id": 1 + max((each["id"] for each in self.records), default=0),
                "name": self._faker.company() + self._faker.numerify(" ######"),
                "price": self._faker.random_int(0, 100_000) / 100,
                "updated_at": _stamp(),
                "labels": self._faker.words(2),  # has no column
                **fields,
            }
            self.records.append(record)
            return record

    def change(self, position: int, **fields: Any) -> Record:
        """Changes an item now."""
        with self.lock:
            self.records[position].update(updated_at=_stamp(), **fields)
            return self.records[position]

    def delete(self, position: int = -1) -> None:
        """Deletes an item now."""
        with self.lock:
            record = self.records.pop(position)
            self.deleted.append({"id": record["id"], "deleted_at": _stamp()})

    def _list(self) -> Any:
        return self._page(self.records, "updated_at", request.args.get("updated_since", ""))

    def _list_deleted(self) -> Any:
        return self._page(self.deleted, "deleted_at", request.args.get("deleted_since", ""))

    def _page(self, records: list[Record], field: str, since: str) -> Any:
        """The requested page of the records whose ``field`` is ``since`` or later."""
        if request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return jsonify(error="unauthorized"), 401
        oldest = datetime.fromisoformat(since.replace("Z", "+00:00")) if since else None
        found = [
            record
            for record in records
            if not oldest or datetime.fromisoformat(record[field]) >= oldest
        ]
        number, size = int(request.args.get("page", 1)), int(request.args.get("page_size", 100))
        return jsonify(
            items=found[(number - 1) * size : number * size],
            page=number,
            pages=-(-len(found) // size),
            total=len(found),
        )


def _stamp(age: timedelta = timedelta(0)) -> str:
    return (datetime.now(timezone.utc) - age).isoformat()
