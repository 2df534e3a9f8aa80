"""What a listing hands over, when it checkpoints, and what it writes into the state."""

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any
from unittest import mock

import pytest
import time_machine
from fivetran_connector_sdk import Operations
from hypothesis import given, strategies as st

from shared.completeness import Keys
from shared.errors import SourceError
from shared.listing import Listing
from shared.pages import Page
from shared.report import SyncReport
from shared.rest import RestClient, Retry
from shared.rows import Column, Table, counted
from shared.state import OVERLAP, State, window

TABLE = Table("things", ("id",), {"id": Column(required=True)})


class Destination:
    """Records the calls of the SDK's operations, in order."""

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


CLIENT = RestClient("https://api.example.com", 30, Retry())


def listed(amount: int, size: int, state: State, hours: int = 24) -> None:
    def pages() -> Iterator[Page]:
        for number in range(amount // size):
            records = [{"id": number * size + position} for position in range(size)]
            yield Page(records, number + 1, None, amount)

    time_range = window(state.table("things"), hours)
    Listing(TABLE, time_range, CLIENT, pages, TABLE.rows).sync(state, SyncReport())


def test_a_first_load_replaces_what_an_earlier_connection_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It does so in one step, when all rows have come: a re-sync begins with an empty state,
    too."""
    state = State({}, ())
    destination = Destination(monkeypatch, state)
    listed(12_000, 1_000, state)
    assert destination.log == ["truncate", (12_000, "done")]


def test_a_later_listing_replaces_the_table_in_one_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is handed over before all rows have come, and what the state tells of them is
    withdrawn."""
    state = State({}, ())
    destination = Destination(monkeypatch, state)
    listed(20_000, 1_000, state)
    destination.log.clear()
    listed(12_000, 1_000, state, hours=0)
    assert destination.log == [(20_000, "done"), "truncate", (32_000, "done")]


def test_a_long_first_load_is_streamed_and_the_next_sync_replaces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It truncates nothing and checkpoints on the way; then a full refresh is due."""
    state = State({}, ())
    destination = Destination(monkeypatch, state)
    listed(112_000, 1_000, state)
    assert destination.log[:2] == [(5_000, "open"), (10_000, "open")]
    assert destination.log[-1] == (112_000, "done")
    assert "truncate" not in destination.log
    destination.log.clear()
    listed(112_000, 1_000, state)
    assert destination.log == ["truncate", (224_000, "done")]
    destination.log.clear()
    listed(1_000, 1_000, state)
    assert destination.log == [(224_000, "done"), (225_000, "done")]


def test_a_list_of_more_rows_than_may_wait_replaces_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its rows are stored, and the dashboard says that deletes were not looked for."""
    monkeypatch.setattr("shared.listing.REPLACED_AT_ONCE", 20_000)
    state = State({}, ())
    destination = Destination(monkeypatch, state)
    listed(1_000, 1_000, state)
    destination.log.clear()
    listed(32_000, 1_000, state, hours=0)
    *checkpoints, warning, last = destination.log
    assert len(checkpoints) == 7  # one withdraws what the state tells of the rows
    assert "truncate" not in checkpoints
    assert warning.startswith("things: more than 20000 rows. They were stored, and nothing was ")
    assert last == (33_000, "done")
    assert state.table("things")["rows"] == 32_000


# What a read does to the state and the destination


NOW = datetime(2026, 6, 10, 12, tzinfo=timezone.utc)
LISTED, CURSOR = "2026-06-10T08:00:00Z", "2026-06-10T09:00:00Z"
KNOWN = {"listed_at": LISTED, "cursor": CURSOR, "rows": 7}
SYNCED = {"listed_at": "2026-06-10T12:00:00Z", "cursor": "2026-06-10T11:50:00Z"}


class Source:
    """The reads of a list, in order: each is pages of ids, and a total."""

    def __init__(self, *reads: tuple[list[list[Any]], int | None]) -> None:
        self._reads = list(reads)

    def pages(self) -> Iterator[Page]:
        pages, total = self._reads.pop(0)
        for number, ids in enumerate(pages, 1):
            yield Page([{"id": given} for given in ids], number, len(pages), total)


class Synced:
    """A sync of a table whose entry in the state is ``entry``: the ids and operations that the SDK
    was given, the entry after the sync, the log, and the skipped records."""

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
        self.report = SyncReport()
        self.skipped = self.report.skipped
        with time_machine.travel(NOW, tick=False):
            time_range = window(state.table("things"), hours)
            changed_at = changed or (lambda row: None)
            Listing(
                TABLE, time_range, CLIENT, source.pages, TABLE.rows, changed_at=changed_at
            ).sync(state, self.report)
        self.entry, self.log = state.table("things"), capsys.readouterr().out


@pytest.fixture
def sync(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    return partial(Synced, monkeypatch, capsys)


def test_a_full_refresh_sets_the_whole_state(sync: Any) -> None:
    """The cursor lies an overlap before the clock of the first request."""
    done = sync({}, Source(([[1, 2], [3]], 3)))
    assert done.given == ["truncate", "1", "2", "3", "checkpoint"]
    assert done.entry == {
        "cursor": "2026-06-10T11:50:00Z",
        "listed_at": "2026-06-10T12:00:00Z",
        "rows": 3,
        "fingerprint": done.entry["fingerprint"],
    }
    assert len(done.entry["fingerprint"]) == 40
    assert "things: first load" in done.log


def test_a_read_of_changes_moves_only_the_cursor(sync: Any) -> None:
    """The time of the last full refresh and its number of rows stay. Rows that did not change are
    not sent; rows that changed at the cursor are."""
    at = {
        "1": datetime(2026, 6, 10, 8, 59, 59, tzinfo=timezone.utc),
        "2": datetime(2026, 6, 10, 9, tzinfo=timezone.utc),
        "3": None,
    }
    done = sync(KNOWN, Source(([[1, 2], [3]], 3)), hours=24, changed=lambda row: at[row["id"]])
    assert done.given == ["2", "3", "checkpoint"]
    assert done.entry == {
        "cursor": "2026-06-10T11:50:00Z",
        "listed_at": LISTED,
        "rows": 7,
        "fingerprint": done.entry["fingerprint"],
    }
    assert "things: changes since 2026-06-10T09:00:00Z" in done.log


def test_a_later_full_refresh_replaces_the_table_when_it_is_whole(sync: Any) -> None:
    """No row is handed over before."""
    done = sync(KNOWN, Source(([[1], [2]], 2)))
    assert done.given == ["truncate", "1", "2", "checkpoint"]
    assert done.entry["rows"] == 2


@pytest.mark.parametrize(
    "first",
    [
        ([[1, 2, None]], 4),
        ([[1, None], [3]], 2),
        ([[1, 2], [2, 3]], 4),  # a page repeats a row, and another row is missing
        ([[1, 2], [2, 3]], 3),
        ([[1, 2], [2, 3]], None),
    ],
)
def test_a_list_that_changed_is_read_once_more(sync: Any, first: Any) -> None:
    """If the second read is whole, the rows and skipped records of the first are dropped."""
    done = sync(KNOWN, Source(first, ([[4, 5]], 2)))
    assert done.given == ["truncate", "4", "5", "checkpoint"]
    assert done.log.count("; the list is read once more") == 1
    assert not done.skipped.counts


def test_two_reads_that_make_the_total_together_are_whole(sync: Any) -> None:
    """Because of ties in the order, each read misses what the other has. The rows of both count,
    and those of the second come last."""
    done = sync(KNOWN, Source(([[1, 2], [2, 3]], 4), ([[4, 3], [3, 2]], 4)))
    assert done.given == ["truncate", *"12234332", "checkpoint"]
    assert done.entry == {**SYNCED, "rows": 4}


def test_the_second_read_goes_in_the_other_direction(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the source can sort."""
    given: list[str] = []
    for name in ("truncate", "checkpoint"):
        monkeypatch.setattr(Operations, name, lambda *_: None)
    monkeypatch.setattr(Operations, "upsert", lambda table, row: given.append(row["id"]))
    there, back = Source(([[1, 2], [2]], 3)), Source(([[3, 2], [1]], 3))
    listing = Listing(
        TABLE, window({}, 0), CLIENT, there.pages, TABLE.rows, pages_again=back.pages
    )
    listing.sync(State({}, ()), SyncReport())
    assert given == ["3", "2", "1"]


@pytest.mark.parametrize(
    ("second", "totals"),
    [
        (([[1, 2], [4]], 2), "2 distinct of 3 records, then 3 distinct of 2 records"),
        (([[1, 2], [2, 4]], 9), "2 distinct of 3 records, then 3 distinct of 9 records"),
    ],
)
def test_a_list_that_never_stands_still_replaces_nothing(
    sync: Any, second: Any, totals: str
) -> None:
    """Its rows are stored, the cursor stays, and the dashboard says why."""
    done = sync({**KNOWN, "emptied": True}, Source(([[1, 2]], 3), second))
    *rows, warning, checkpoint = done.given
    assert set(rows) == {"1", "2", "4"}
    assert warning.startswith(f"things: read twice, {totals}, 3 of both together: the list ch")
    assert "deletes were not looked for, and the next sync reads them again" in warning
    assert checkpoint == "checkpoint"
    assert done.entry == KNOWN


def test_a_total_that_never_agrees_is_wrong(sync: Any) -> None:
    """Two reads saw the same keys: the rows are stored, the cursor moves, and nothing is deleted.
    The next sync reads the list once, unless the difference changed."""
    same = ([[1, 2], [3]], 5)
    done = sync(KNOWN, Source(same, same))
    *rows, warning, checkpoint = done.given
    assert rows == [*"123123"]
    assert warning.startswith("things: read twice, 3 distinct of 5 records, then 3 distinct of 5")
    assert "deletes were not looked for" in warning
    assert done.entry == {**SYNCED, "rows": 3, "miscount": 2}
    done = sync(done.entry, Source(([[1, 2], [3, 4]], 6)))
    *rows, warning, checkpoint = done.given
    assert (rows, checkpoint) == ([*"1234"], "checkpoint")
    assert "4 distinct of 6 records, as at the last sync" in warning
    assert done.entry == {**SYNCED, "rows": 4, "miscount": 2}
    done = sync(done.entry, Source(([[1, 2], [3]], 3)))
    assert done.given == ["truncate", *"123", "checkpoint"]
    assert "miscount" not in done.entry


def test_a_window_of_changes_with_such_a_total_moves_its_cursor(sync: Any) -> None:
    """Also when nothing changed. If the difference is new, an empty window proves nothing."""
    done = sync({**KNOWN, "miscount": 2}, Source(([[]], 2)), hours=24)
    assert done.entry["cursor"] == SYNCED["cursor"]
    done = sync(KNOWN, Source(([[]], 2), ([[]], 2)), hours=24)
    assert done.entry == KNOWN
    assert "read twice, 0 distinct of 2 records, then 0 distinct of 2 records" in done.given[0]


def test_a_total_that_stops_counting_is_wrong(sync: Any) -> None:
    """More records come than the total says, and more at each sync: nothing is deleted, and the
    list is read once from the second sync on."""
    same = ([[1, 2], [3]], 2)
    done = sync(KNOWN, Source(same, same))
    assert "truncate" not in done.given
    assert done.entry == {**SYNCED, "rows": 3, "miscount": -1}
    done = sync(done.entry, Source(([[1, 2], [3, 4]], 2)))
    assert done.given[:4] == [*"1234"]
    assert done.entry == {**SYNCED, "rows": 4, "miscount": -2}


def test_pages_that_tell_different_totals_are_no_whole_list(sync: Any) -> None:
    """Whatever number of records came."""

    class Moving(Source):
        def pages(self) -> Iterator[Page]:
            for page in super().pages():
                page.total = 2 if page.number == 1 else 3
                yield page

    done = sync(KNOWN, Moving(([[1, 2], [3]], None), ([[1, 2], [3]], None)))
    assert "truncate" not in done.given
    assert done.entry == KNOWN


def test_without_totals_what_comes_is_the_list(sync: Any) -> None:
    """Unless several pages hold a key; one page may repeat a key within itself."""
    assert sync(KNOWN, Source(([[1, 2], [3]], None))).given[0] == "truncate"
    assert sync(KNOWN, Source(([[1, 2, 2]], None))).given[0] == "truncate"


def test_a_skipped_record_is_no_reason_to_delete_its_row(sync: Any) -> None:
    """The rows are stored, and nothing is replaced until no record is skipped."""
    ids = [[*range(10)], [*range(10, 20), None]]
    done = sync(KNOWN, Source((ids, 21)))
    assert done.given == [*map(str, range(20)), "checkpoint"]
    assert done.entry == {**SYNCED, "rows": 20}
    assert "skipped records: 1. Nothing was replaced" in done.log
    done.given.clear()
    done.skipped.report()
    assert "Deletes were not looked for meanwhile in things" in done.given[0]


def test_the_share_of_skipped_records_is_that_of_this_read(sync: Any) -> None:
    """However many rows there were before: a list that loses its key deletes nothing."""
    with pytest.raises(SourceError, match="more than a tenth of 3"):
        sync({**KNOWN, "rows": 2_760}, Source(([[1, 2, None]], 3)))


def test_a_window_of_changes_may_hold_few_records(sync: Any) -> None:
    """Its skipped records are compared with the rows that the table had at the last full
    refresh."""
    done = sync(KNOWN | {"rows": 10}, Source(([[1, None]], 2)), hours=24)
    assert done.given == ["1", "checkpoint"]
    with pytest.raises(SourceError, match="more than a tenth of 9"):
        sync(KNOWN | {"rows": 9}, Source(([[1, None]], 2)), hours=24)


def test_a_list_that_became_empty_is_believed_when_it_is_seen_twice(sync: Any) -> None:
    """The first sync warns and keeps the table; the second one empties it."""
    done = sync(KNOWN, Source(([[]], 0)))
    assert done.given[0].startswith("things: the source lists nothing where it had 7 rows. ")
    assert done.given[1:] == ["checkpoint"]
    assert done.entry == {**KNOWN, "emptied": True}
    done = sync(done.entry, Source(([[]], 0)))
    assert done.given == ["truncate", "checkpoint"]
    assert (done.entry["rows"], "emptied" in done.entry) == (0, False)
    assert sync(done.entry, Source(([[]], 0))).given == ["checkpoint"]
    known = {key: value for key, value in done.entry.items() if key != "fingerprint"}
    assert sync(known, Source(([[]], 0))).given == ["truncate", "checkpoint"]


def test_a_first_page_without_records_is_no_empty_list(sync: Any) -> None:
    """The pages after it count."""
    done = sync(KNOWN, Source(([[], [1]], 1)))
    assert done.given == ["truncate", "1", "checkpoint"]
    assert done.entry["rows"] == 1


def test_an_empty_first_load_is_no_warning(sync: Any) -> None:
    """Nothing could be lost. The table is replaced by an empty list at the second sync, too."""
    done = sync({}, Source(([[]], 0)))
    assert done.given == ["checkpoint"]
    assert done.entry == {"emptied": True}


def test_a_first_load_that_broke_off_begins_again(sync: Any) -> None:
    """An older version emptied the table first, and wrote that into the state."""
    done = sync({**KNOWN, "unfinished": True}, Source(([[1, 2], [3]], 3)))
    assert done.given == ["truncate", "1", "2", "3", "checkpoint"]
    assert "unfinished" not in done.entry


@pytest.mark.parametrize("at_once", [5_000, 2])
def test_records_are_named_by_page_and_position(
    at_once: int, sync: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never by a value, and however many of a page become rows at once."""
    monkeypatch.setattr("shared.listing.RECORDS_AT_ONCE", at_once)
    done = sync(KNOWN, Source(([[*range(20), None], [20, ""]], 23)))
    assert done.skipped.examples == {
        "things": ["page 1, record 21: id is missing", "page 2, record 2: id is missing"]
    }


def test_each_page_is_logged_on_demand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By default a page is logged every ten seconds."""
    for name in ("upsert", "truncate", "checkpoint"):
        monkeypatch.setattr(Operations, name, lambda *_arguments: None)
    for wanted, logged in ((True, [1, 2, 3]), (False, [])):
        source, state = Source(([[1], [2], [3]], 3)), State({}, ())
        listing = Listing(TABLE, window({}, 0), CLIENT, source.pages, TABLE.rows, log_pages=wanted)
        listing.sync(state, SyncReport())
        output = capsys.readouterr().out
        pages = (f"things: page {n} of 3, {counted(n, 'record')} read" for n in (1, 2, 3))
        assert [n for n, page in enumerate(pages, 1) if page in output] == logged


def test_numbers_that_python_hashes_alike_are_several_keys() -> None:
    """-1 and -2 are frequent, the others are possible."""
    keys = Keys()
    keys.add([(-1,), (-2,), (0,), (2**61 - 1,)])
    assert keys.distinct() == 4


@given(st.lists(st.lists(st.integers(-3, 3) | st.integers() | st.text(max_size=2)), max_size=4))
def test_distinct_keys_are_counted(lists: list[list[Any]]) -> None:
    """Those of a page, of a read and of several reads."""
    counted = [Keys() for _ in lists]
    for keys, given_keys in zip(counted, lists, strict=True):
        half = len(given_keys) // 2
        for part in (given_keys[:half], given_keys[half:]):
            assert keys.add(part) == len(set(part))
        assert keys.distinct() == len(set(given_keys))
    if counted:
        assert counted[0].distinct(*counted[1:]) == len({key for keys in lists for key in keys})


@pytest.mark.parametrize("hours", [24, 0])
def test_deletes_are_applied_before_changes(monkeypatch: pytest.MonkeyPatch, hours: int) -> None:
    """Deletes since the cursor are applied first, also in a full refresh, so a record that was
    made anew comes back."""
    state, log = State({}, ()), list[Any]()
    monkeypatch.setattr(Operations, "upsert", lambda table, row: log.append(row["id"]))
    monkeypatch.setattr(Operations, "delete", lambda table, keys: log.append(("delete", keys)))
    monkeypatch.setattr(Operations, "truncate", lambda table: log.append("truncate"))
    monkeypatch.setattr(Operations, "checkpoint", lambda state: None)
    since = list[datetime]()

    def deletions(moment: datetime) -> Iterator[Page]:
        since.append(moment)
        yield Page([{"id": 1, "deleted_at": "now"}, {"id": 2}])
        yield Page([{"id": "3"}], 2)

    def sync(*ids: int) -> None:
        window_ = window(state.table("things"), hours)
        pages = partial(iter, [Page([{"id": number} for number in ids], total=len(ids))])
        listing = Listing(TABLE, window_, CLIENT, pages, TABLE.rows, deletions=deletions)
        listing.sync(state, SyncReport())

    with time_machine.travel(NOW, tick=False) as clock:
        sync(1, 2, 3)
        assert log == ["truncate", "1", "2", "3"]
        assert since == []  # a first load has nothing to delete
        log.clear()
        clock.shift(3600)
        sync(2)
    deletes = [("delete", {"id": number}) for number in "123"]
    assert log == [*deletes, *["truncate"] * (hours == 0), "2"]
    assert since == [NOW - OVERLAP]


def test_a_delete_without_a_key_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """The log names its position and the missing key; the other deletes are applied."""
    deleted = list[Any]()
    state = State({"version": 1, "tables": {"things": KNOWN}}, ())
    pages = partial(iter, [Page([], total=0)])
    good = [{"id": number} for number in range(18)]
    with (
        time_machine.travel(NOW, tick=False),
        mock.patch.object(Operations, "delete", lambda table, keys: deleted.append(keys)),
        mock.patch.object(Operations, "checkpoint"),
        mock.patch.object(Operations, "warning"),
        SyncReport() as report,
    ):
        listing = Listing(
            TABLE,
            window(state.table("things"), 24),
            CLIENT,
            pages,
            TABLE.rows,
            deletions=lambda since: iter([Page([{"id": None}, *good, 5])]),
        )
        listing.sync(state, report)
    assert deleted == [{"id": str(number)} for number in range(18)]
    reasons = "page 1, record 1: id is missing; page 1, record 20: it is not an object"
    assert f"things (deletes): 2 records skipped, first {reasons}" in capsys.readouterr().out


class SyncedTable:
    """A table whose syncs are made of given pages; what they did is in ``log`` and ``entry``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, entry: dict[str, Any]) -> None:
        self.log = list[Any]()
        self.state = State({"version": 1, "tables": {"things": entry}}, ())
        monkeypatch.setattr(Operations, "upsert", lambda table, row: self.log.append(row["id"]))
        monkeypatch.setattr(
            Operations, "delete", lambda table, keys: self.log.append(("delete", keys["id"]))
        )
        monkeypatch.setattr(Operations, "truncate", lambda table: self.log.append("truncate"))
        monkeypatch.setattr(Operations, "checkpoint", lambda state: None)
        monkeypatch.setattr(Operations, "warning", lambda message: None)

    @property
    def entry(self) -> dict[str, Any]:
        return self.state.table("things")

    def sync(
        self,
        *lists: Iterable[Page],
        hours: int = 24,
        history: timedelta | None = None,
        deletions: Callable[[datetime], Iterator[Page]] | None = None,
    ) -> None:
        left = iter(lists)
        window_ = window(self.entry, hours, history=history)
        Listing(
            TABLE,
            window_,
            CLIENT,
            lambda: iter(next(left)),
            TABLE.rows,
            deletions=deletions,
        ).sync(self.state, SyncReport())


def page(*ids: int, total: int | None = None, number: int = 1) -> Page:
    return Page([{"id": each} for each in ids], number, total=total)


def test_rows_that_came_since_make_an_empty_list_doubtful(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A table that was empty once, and proven so, has rows again by changes alone."""
    table = SyncedTable(monkeypatch, {"rows": 0, "cursor": CURSOR, "listed_at": LISTED})
    with time_machine.travel(NOW, tick=False):
        table.sync([page(1, 2, 3, total=3)])
        assert table.entry["rows"] == 3
        table.sync([page(total=0)], hours=0)
        assert table.log == ["1", "2", "3"]
        assert table.entry["emptied"] is True
        table.sync([page(total=0)], hours=0)
        assert table.log[-1] == "truncate"


def test_rows_of_a_list_that_moves_make_an_empty_list_doubtful(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are stored, though the cursor stays."""
    table = SyncedTable(monkeypatch, {"rows": 0, "emptied": True, "cursor": CURSOR})
    with time_machine.travel(NOW, tick=False):
        table.sync([page(1, 2, total=9)], [page(2, 3, total=8)], hours=0)
        table.sync([page(total=0)], hours=0)
    assert "truncate" not in table.log


def test_rows_that_were_streamed_make_an_empty_list_doubtful(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The sync that read them failed."""
    monkeypatch.setattr("shared.listing.CHECKPOINT_ROWS", 2)
    table = SyncedTable(monkeypatch, {"rows": 0, "cursor": CURSOR, "listed_at": LISTED})

    def broken() -> Iterator[Page]:
        yield page(1, 2, 3)
        raise SourceError("it broke off")

    with time_machine.travel(NOW, tick=False):
        with pytest.raises(SourceError, match="broke off"):
            table.sync(broken())
        table.sync([page(total=0)], hours=0)
    assert "truncate" not in table.log


@pytest.mark.parametrize(
    ("cursor", "history"),
    [("2026-05-01T00:00:00Z", timedelta(days=30)), ("2026-06-11T00:00:00Z", None)],
)
def test_deletes_that_a_source_cannot_tell_are_looked_for_again(
    monkeypatch: pytest.MonkeyPatch, cursor: str, history: timedelta | None
) -> None:
    """The list is not asked for what it does not know; full refreshes are due until one is whole,
    and has found the deletes."""
    table = SyncedTable(monkeypatch, {**KNOWN, "cursor": cursor})

    def deletions(since: datetime) -> Iterator[Page]:
        raise AssertionError(since)

    with time_machine.travel(NOW, tick=False):
        options: Any = {"hours": 8_760, "history": history, "deletions": deletions}
        table.sync([page(1, 2, total=3)], [page(1, 2, total=3)], **options)
        assert "listed_at" not in table.entry
        table.sync([page(1, 2, total=2)], hours=8_760, history=history)
        assert table.log == ["1", "2", "1", "2", "truncate", "1", "2"]
        assert "listed_at" in table.entry


def test_a_list_of_deletes_that_moves_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once more at once; if it still moves, by the next sync."""
    table = SyncedTable(monkeypatch, KNOWN)
    feeds = [
        [page(1, 2, total=4), page(4, total=3, number=2)],
        [page(1, 2, total=3), page(4, total=2, number=2)],
        [page(1, 3, total=2)],
    ]
    since = list[datetime]()

    def deletions(moment: datetime) -> Iterator[Page]:
        since.append(moment)
        return iter(feeds.pop(0))

    with time_machine.travel(NOW, tick=False):
        table.sync([page(total=0)], deletions=deletions)
        assert table.entry["cursor"] == CURSOR
        table.sync([page(total=0)], deletions=deletions)
    assert len({*since}) == 1
    assert table.log[-2:] == [("delete", "1"), ("delete", "3")]
    assert table.entry["cursor"] == SYNCED["cursor"]


def test_deletes_that_nobody_can_read_end_the_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    """More than a tenth of them: the cursor does not pass the others."""
    table = SyncedTable(monkeypatch, KNOWN)
    feed = Page([{"id": None}, {"id": 1}])
    with time_machine.travel(NOW, tick=False), pytest.raises(SourceError, match="more than a ten"):
        table.sync([page()], deletions=lambda _: iter([feed]))
    assert table.entry == KNOWN


def test_the_log_says_what_became_of_the_rows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """How many there were, what was done with them, and since when deletes were asked for."""
    table = SyncedTable(monkeypatch, KNOWN)
    shown = list[str]()
    monkeypatch.setattr(Operations, "warning", shown.append)
    with time_machine.travel(NOW, tick=False):
        table.sync([page(1, 2, total=2)], hours=0)
        assert "things: 2 rows replaced the table\n" in capsys.readouterr().out
        deletions = [page(7, 8, total=3), page(9, total=3, number=2)]
        table.sync([page(3, total=1)], deletions=lambda _: iter(deletions))
    output = capsys.readouterr().out
    assert "things: 1 row stored, and nothing taken away\n" in output
    assert "things (deletes): 3 since 2026-06-10 11:50:00+00:00\n" in output
    assert shown == []


def test_the_dashboard_says_that_a_list_is_empty_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what to check."""
    table, shown = SyncedTable(monkeypatch, KNOWN), list[str]()
    monkeypatch.setattr(Operations, "warning", shown.append)
    with time_machine.travel(NOW, tick=False):
        table.sync([page(total=0)], hours=0)
    assert shown == [
        (
            "things: the source lists nothing where it had 7 rows. Nothing is replaced unless the "
            "next sync sees the same: check what the credentials may read"
        )
    ]


def test_the_dashboard_says_how_a_list_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counts of both reads, and what follows from them."""
    table, shown = SyncedTable(monkeypatch, KNOWN), list[str]()
    monkeypatch.setattr(Operations, "warning", shown.append)
    with time_machine.travel(NOW, tick=False):
        first = [page(1, 2, total=4), page(3, total=5, number=2)]
        table.sync(first, [page(2, 3, total=9)], hours=0)
    assert shown == [
        (
            "things: read twice, 3 distinct of 4 or 5 records, then 2 distinct of 9 records, 3 of "
            "both together: the list changes while it is read. The rows were stored, deletes were "
            "not looked for, and the next sync reads them again, since the cursor stays"
        )
    ]


@pytest.mark.parametrize("number", [19, 20])
def test_the_known_rows_count_for_a_window_of_changes(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """One skipped record of few changes is no tenth of the table."""
    table = SyncedTable(monkeypatch, {**KNOWN, "rows": number - 10})
    changes = Page([{"id": None}, {"id": 1}])
    with time_machine.travel(NOW, tick=False):
        if number == 20:
            table.sync([changes])
        else:
            with pytest.raises(SourceError, match="more than a tenth of 9"):
                table.sync([changes])
