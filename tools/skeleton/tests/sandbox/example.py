"""A simulator of Example: the pages of its lists.

Replace: what the source does, from its reference and from responses that you have seen. The tests
know of the source only what is written here.
"""

import secrets
from datetime import datetime
from decimal import Decimal
from typing import Any, ClassVar
from urllib.parse import urlencode

from flask import jsonify, request

from tests.sandbox.lists import Record, RecordLists, moment, since
from tests.sandbox.simulator import PAGE


class Example(RecordLists):
    """The API key is required."""

    name = "example"
    lists = ("items",)
    usual: ClassVar = dict.fromkeys(lists, 50)
    filtered = lists
    # Only with DELETES=full
    lists_deletes: ClassVar[tuple[str, ...]] = ()
    # End
    # Only with DELETES=feed
    lists_deletes = lists  # noqa: PIE794  # of the two only one is written
    # End
    data_path = "/v1/"
    small_pages: ClassVar = {"page_size": str(PAGE)}

    def __init__(self, *, seed: int = 1, **counts: int) -> None:
        self.api_key = "key-" + secrets.token_hex(16)
        super().__init__(seed=seed, **counts)
        self.app.add_url_rule("/v1/<name>", view_func=self._list)
        # Only with DELETES=feed
        self.app.add_url_rule("/v1/deleted-<name>", view_func=self._list_deletes)
        # End

    def configuration(self, **changes: str) -> dict[str, str]:
        own = {"api_key": self.api_key, "base_url": f"{self.url}/v1", "page_size": "20"}
        return {**own, **changes}

    def secrets(self) -> set[str]:
        return {self.api_key, *self.values("name")}

    # Records

    # For each table
    def make_items(self, changed: datetime) -> Record:
        return {
            "id": self.number,
            "name": f"{self.fake.company()} {self.number:06d}",
            "price": self.random.randrange(100_000) / 100,
            "labels": [self.fake.word(), self.fake.word()],  # has no column
            "updated_at": self.stamp(changed),
        }

    def row_of_items(self, record: Record) -> Record:
        return {
            "id": str(record["id"]),
            "name": record["name"],
            "price": Decimal(str(record["price"])),
            "updated_at": moment(record["updated_at"]),
        }

    # End
    # The API

    def _list(self, name: str) -> Any:
        changed_since = request.args.get("updated_since")
        return self._respond(since(self.records[name], "updated_at", changed_since))

    # Only with DELETES=feed
    def _list_deletes(self, name: str) -> Any:
        deleted_since = request.args.get("deleted_since")
        return self._respond(since(self.deleted[name], "deleted_at", deleted_since))

    # End
    def _respond(self, records: list[Record]) -> Any:
        """A page of these records, unless the request is refused."""
        if request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return jsonify(error="unauthorized"), 401
        size = int(request.args.get("page_size", 100))
        # Only with PAGES=number
        number = int(request.args.get("page", 1))
        found, pages = self.page(records, number, size)
        end: Record = {"page": number, "pages": pages, "total": self.counted(records)}
        # End
        # Only with PAGES=token
        number = int(request.args.get("page_token", "page-1").removeprefix("page-"))
        found, pages = self.page(records, number, size)
        end = {"next_token": f"page-{number + 1}" if number < pages else None}
        # End
        # Only with PAGES=link
        number = int(request.args.get("page", 1))
        found, pages = self.page(records, number, size)
        following = f"{request.base_url}?{urlencode({**request.args, 'page': number + 1})}"
        end = {"next": following if number < pages else None}
        # End
        return jsonify(data=found, **end)
