"""What a long listing does to memory, checkpoints and the state."""

from collections.abc import Iterator
from datetime import datetime, timezone
from functools import partial
from typing import Any

import pytest
import time_machine
from fivetran_connector_sdk import Operations

from shared.errors import SourceError
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


# What a reading does to the state and the destination


NOW = datetime(2026, 6, 10, 12, tzinfo=timezone.utc)
LISTED, CURSOR = "2026-06-10T08:00:00Z", "2026-06-10T09:00:00Z"
KNOWN = {"listed_at": LISTED, "cursor": CURSOR, "rows": 7}


class Source:
    """Readings of a list, one after the other: each is pages of ids and a total."""

    def __init__(self, *readings: tuple[list[list[Any]], int | None]) -> None:
        self._readings = list(readings)

    def pages(self) -> Iterator[Page]:
        pages, total = self._readings.pop(0)
        for number, ids in enumerate(pages, 1):
            yield Page([{"id": given} for given in ids], number, len(pages), total)


class Synced:
    """A sync of a table whose entry in the state is ``entry``: the ids and operations that the
    SDK was given, the entry after it, the log, and its unusable records."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        entry: dict[str, Any],
        source: Source,
        *,
        hours: int = 0,
        changed: Any = None,
    ) -> None:
        state = State({"version": 1, "tables": {"things": entry}} if entry else {}, ())
        self.given: list[Any] = []
        operations = {
            "upsert": lambda table, row: self.given.append(
                row["id"] if table == "things" else table
            ),
            "truncate": lambda table: self.given.append(
                "truncate" if table == "things" else table
            ),
            "checkpoint": lambda saved: self.given.append("checkpoint"),
            "warning": lambda message: self.given.append(message),
        }
        for name, operation in operations.items():
            monkeypatch.setattr(Operations, name, operation)
        self.rejects = Rejects()
        with time_machine.travel(NOW, tick=False):
            time_range = window(state.table("things"), hours)
            changed_at = changed or (lambda row: None)
            Listing(
                TABLE, time_range, source.pages, TABLE.rows, lambda: None, changed_at=changed_at
            ).sync(state, self.rejects)
        self.entry, self.log = state.table("things"), capsys.readouterr().out


@pytest.fixture
def sync(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    return partial(Synced, monkeypatch, capsys)


def test_a_full_reading_sets_all_that_the_state_knows(sync: Any) -> None:
    """The cursor lies an overlap before the clock of the first request."""
    done = sync({}, Source(([[1, 2], [3]], 3)))
    assert done.given == ["truncate", "1", "2", "3", "checkpoint"]
    assert done.entry == {
        "cursor": "2026-06-10T11:50:00Z",
        "listed_at": "2026-06-10T12:00:00Z",
        "rows": 3,
    }
    assert "things: everything, 3 records read, 3 rows to store" in done.log


def test_a_reading_of_changes_moves_the_cursor_alone(sync: Any) -> None:
    """Rows are added up, and when all was read last stays known; what did not change is not
    sent, what changed at the very cursor is."""
    at = {
        "1": datetime(2026, 6, 10, 8, 59, 59, tzinfo=timezone.utc),
        "2": datetime(2026, 6, 10, 9, tzinfo=timezone.utc),
        "3": None,
    }
    done = sync(KNOWN, Source(([[1, 2], [3]], 3)), hours=24, changed=lambda row: at[row["id"]])
    assert done.given == ["2", "3", "checkpoint"]
    assert done.entry == {"cursor": "2026-06-10T11:50:00Z", "listed_at": LISTED, "rows": 9}
    assert "things: changes since 2026-06-10 09:00:00+00:00, 3 records read, 2 rows" in done.log


def test_a_later_full_reading_replaces_the_table_when_it_is_whole(sync: Any) -> None:
    """Not a row before."""
    done = sync(KNOWN, Source(([[1], [2]], 2)))
    assert done.given == ["truncate", "1", "2", "checkpoint"]
    assert done.entry["rows"] == 2


@pytest.mark.parametrize(
    "first", [([[1, 2, None]], 4), ([[1, None], [3]], 2), ([[1, None]], 0), ([[None]], 2)]
)
def test_a_list_that_changed_is_read_once_more(sync: Any, first: Any) -> None:
    """What came first is forgotten, unusable records too."""
    done = sync(KNOWN, Source(first, ([[4, 5]], 2)))
    assert done.given == ["truncate", "4", "5", "checkpoint"]
    assert done.log.count("things: the list changed under the first reading") == 1
    assert "second reading" not in done.log
    assert not done.rejects.counts


def test_a_list_that_never_stands_still_replaces_nothing(sync: Any) -> None:
    """Its rows are stored, the state stays what it was, and the dashboard shows why."""
    done = sync(KNOWN, Source(([[1, 2]], 3), ([[1, 2], [4]], 2)))
    warning = done.given.pop()
    assert done.given == ["1", "2", "4"]
    assert warning.startswith("things: what was read, twice, does not agree with the source's own")
    assert "deletes were not looked for, and the next sync reads them again" in warning
    assert done.entry == KNOWN
    assert "the list changed under the second reading" in done.log


def test_pages_that_tell_different_totals_are_no_whole_list(sync: Any) -> None:
    """Whatever came in the end."""

    class Moving(Source):
        def pages(self) -> Iterator[Page]:
            for page in super().pages():
                page.total = 2 if page.number == 1 else 3
                yield page

    done = sync(KNOWN, Moving(([[1, 2], [3]], None), ([[1, 2], [3]], None)))
    assert "truncate" not in done.given
    assert done.entry == KNOWN


def test_without_totals_what_comes_is_the_list(sync: Any) -> None:
    """There is nothing to compare it with."""
    assert sync(KNOWN, Source(([[1, 2], [3]], None))).given[0] == "truncate"


def test_a_list_that_became_empty_is_believed_when_it_is_seen_twice(sync: Any) -> None:
    """At first it is noted, and shown; then the table is emptied."""
    done = sync(KNOWN, Source(([[]], 0)))
    assert done.given[0].startswith("things: the source lists nothing where it had 7 rows. ")
    assert done.given[1:] == ["checkpoint"]
    assert done.entry == {**KNOWN, "emptied": True}
    done = sync(done.entry, Source(([[]], 0)))
    assert done.given == ["truncate", "checkpoint"]
    assert (done.entry["rows"], "emptied" in done.entry) == (0, False)
    assert sync(done.entry, Source(([[]], 0))).given == ["truncate", "checkpoint"]


def test_a_first_page_without_records_is_no_empty_list(sync: Any) -> None:
    """What follows counts."""
    done = sync(KNOWN, Source(([[], [1]], 1)))
    assert done.given == ["truncate", "1", "checkpoint"]
    assert done.entry["rows"] == 1


def test_an_empty_first_load_is_no_warning(sync: Any) -> None:
    """There was nothing that could be lost; it is believed at the second time, too."""
    done = sync({}, Source(([[]], 0)))
    assert done.given == ["checkpoint"]
    assert done.entry == {"emptied": True}


def test_a_first_load_that_broke_off_begins_again(sync: Any) -> None:
    """The table is emptied at once, for its rows are not whole."""
    done = sync({**KNOWN, "unfinished": True}, Source(([[1, 2], [3]], 3)))
    assert done.given == ["truncate", "1", "2", "3", "checkpoint"]
    assert "unfinished" not in done.entry


def test_records_are_named_by_page_and_position(sync: Any) -> None:
    """A tenth may be unusable, of the rows that there were before if these are more."""
    done = sync({**KNOWN, "rows": 20}, Source(([[1, 2, None], [4, ""]], 5)))
    assert done.rejects.examples == {
        "things": ["page 1, record 3: id is missing", "page 2, record 2: id is missing"]
    }
    with pytest.raises(SourceError, match="more than a tenth of 19"):
        sync({**KNOWN, "rows": 19}, Source(([[1, 2, None], [4, ""]], 5)))


def test_each_page_is_logged_on_demand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Else one every ten seconds."""
    for name in ("upsert", "truncate", "checkpoint"):
        monkeypatch.setattr(Operations, name, lambda *_arguments: None)
    for wanted, logged in ((True, [1, 2, 3]), (False, [])):
        source, state = Source(([[1], [2], [3]], 3)), State({}, ())
        listing = Listing(
            TABLE, window({}, 0), source.pages, TABLE.rows, lambda: None, log_pages=wanted
        )
        listing.sync(state, Rejects())
        output = capsys.readouterr().out
        assert [n for n in (1, 2, 3) if f"things: page {n} of 3, {n} records read" in output] == (
            logged
        )
