"""What a long listing does to memory, checkpoints and the state."""

from collections.abc import Iterator
from typing import Any

import pytest
from fivetran_connector_sdk import Operations

from shared.listing import Listing
from shared.pages import Page
from shared.rows import Column, Rejects, Table
from shared.state import State, window

TABLE = Table("things", ("id",), {"id": Column(required=True)})


class Destination:
    """What the operations of the SDK were called with, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, state: State) -> None:
        self.log: list[Any] = []
        monkeypatch.setattr(Operations, "upsert", self.upsert)
        monkeypatch.setattr(Operations, "truncate", lambda t: self.log.append("truncate"))
        monkeypatch.setattr(Operations, "checkpoint", self.checkpoint)
        monkeypatch.setattr(Operations, "warning", lambda m: self.log.append(m))
        self.rows = 0

    def upsert(self, table: str, row: Any) -> None:
        self.rows += 1

    def checkpoint(self, state: Any) -> None:
        entry = state["tables"].get("things", {})
        kind = "unfinished" if "unfinished" in entry else "done" if "cursor" in entry else "open"
        self.log.append((self.rows, kind))


def listed(amount: int, size: int, state: State, hours: int = 24) -> None:
    def pages() -> Iterator[Page]:
        for number in range(amount // size):
            records = [{"id": number * size + position} for position in range(size)]
            yield Page(records, number + 1, None, amount)

    time_range = window(state.table("things"), hours)
    Listing(TABLE, time_range, pages, TABLE.rows, lambda: None).sync(state, Rejects())


def test_a_first_load_checkpoints_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor stays where it was until the end, and the state says that it is unfinished."""
    state = State({}, ())
    destination = Destination(monkeypatch, state)
    listed(12_000, 1_000, state)
    assert destination.log == [
        "truncate",
        (5_000, "unfinished"),
        (10_000, "unfinished"),
        (12_000, "done"),
    ]


def test_a_later_listing_replaces_the_table_in_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is handed over before all of it has come."""
    state = State({}, ())
    destination = Destination(monkeypatch, state)
    listed(12_000, 1_000, state)
    destination.log.clear()
    listed(20_000, 1_000, state, hours=0)
    assert destination.log == ["truncate", (32_000, "done")]


def test_a_long_listing_checkpoints_on_its_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond 100,000 rows: truncated once, at its start, and marked until it is done."""
    state = State({}, ())
    destination = Destination(monkeypatch, state)
    listed(1_000, 1_000, state)
    destination.log.clear()
    listed(112_000, 1_000, state, hours=0)
    assert destination.log[0] == "truncate"
    assert destination.log.count("truncate") == 1
    assert destination.log[1] == (1_000 + 101_000, "unfinished")
    assert destination.log[-1] == (1_000 + 112_000, "done")
    assert len(destination.log) == 5
