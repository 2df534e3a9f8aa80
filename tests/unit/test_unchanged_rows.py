"""What a listing sends of rows that the destination has, and what the state tells of them."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import time_machine
from fivetran_connector_sdk import Operations
from hypothesis import given, settings, strategies as st

from shared.listing import Listing
from shared.pages import Page
from shared.report import SyncReport
from shared.rest import RestClient, Retry
from shared.rows import Column, Table
from shared.state import State, window

NOW = datetime(2026, 6, 10, 12, tzinfo=timezone.utc)
TABLE = Table(
    "things",
    ("id",),
    {
        "id": Column(required=True),
        "name": Column(),
        "updated_at": Column("UTC_DATETIME"),
        "synced_at": Column("UTC_DATETIME"),
    },
)
CLIENT = RestClient("https://api.example.com", 30, Retry())
FEW = 4  # rows of which no part is told from another, here


class Killed(BaseException):
    """The process has ended."""


class World:
    """A source of things, and a destination that takes the operations of syncs. What comes after
    the last checkpoint of a sync that is killed is lost, or only the state is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.source: dict[int, dict[str, Any]] = {}
        self.stored: dict[str, dict[str, Any]] = {}
        self.state: dict[str, Any] = {}
        self.now, self.hours = NOW, 24
        self.sent = self.truncates = 0  # in the last sync
        # What goes wrong in a sync:
        self.skips: int | None = None  # where a record has no id
        self.meanwhile: Callable[[], None] | None = None  # after the first page
        self.reads: list[list[dict[str, Any]]] = []  # what the next reads of the list find
        self.deletes: list[tuple[datetime, int]] | None = None  # for a source that lists them
        self._left = -1
        self._waiting: list[Callable[[], object]] = []
        for name in ("upsert", "truncate", "delete", "checkpoint"):
            monkeypatch.setattr(Operations, name, getattr(self, f"_{name}"))
        monkeypatch.setattr(Operations, "warning", lambda message: None)

    def put(self, key: int, name: str, at: datetime | None = None) -> None:
        self.source[key] = {"id": key, "name": name, "updated_at": (at or self.now).isoformat()}

    def fill(self, number: int) -> None:
        for key in range(number):
            self.put(key, "as it was", NOW - timedelta(days=9))

    def load(self, number: int) -> None:
        """A first load, and a full refresh: from then on parts of the table are told apart."""
        self.fill(number)
        self.sync()
        self.hours = 0
        self.sync()
        assert (self.sent, self.truncates) == (0, 0)
        self.hours = 24

    def remove(self, key: int) -> None:
        if self.source.pop(key, None) and self.deletes is not None:
            self.deletes.append((self.now, key))

    def sync(self, *, dies_at: int = -1, writes_rows: bool = False) -> None:
        """One sync. ``dies_at``: its operation, from 0, at which the process is killed;
        ``writes_rows``: if that is a checkpoint, its rows are written."""
        self.sent = self.truncates = 0
        self._left, self._writes_rows, self._waiting = dies_at, writes_rows, []
        self.now += timedelta(hours=1)
        with time_machine.travel(self.now, tick=False), suppress(Killed):
            self._run()
        self.skips = self.meanwhile = None

    def _run(self) -> None:
        state = State(self.state, ())
        feed = None if self.deletes is None else self._deletes
        Listing(
            TABLE,
            window(state.table("things"), self.hours),
            CLIENT,
            pages=self._pages,
            to_rows=lambda records: TABLE.rows(records, synced_at=self.now),
            changed_at=lambda row: row["updated_at"],
            deletions=feed,
            volatile=("synced_at",),
        ).sync(state, SyncReport())

    def _pages(self) -> Iterator[Page]:
        total = len({row["id"] for row in self.source.values()}) + (self.skips is not None)
        records = self.reads.pop(0) if self.reads else list(self.source.values())
        if self.skips is not None:
            records.insert(self.skips % (total or 1), {"name": "without an id"})
        size = 10
        for start in range(0, max(total, 1), size):
            yield Page(records[start : start + size], start // size + 1, None, total)
            if self.meanwhile:
                self.meanwhile()
                self.meanwhile = None
                records = list(self.source.values())
                total = len(records)

    def _deletes(self, since: datetime) -> Iterator[Page]:
        yield Page([{"id": key} for at, key in self.deletes or [] if at >= since])

    def _lives(self) -> bool:
        self._left -= 1
        return self._left != -1

    def _operation(self, act: Callable[[], object]) -> None:
        if not self._lives():
            raise Killed
        self._waiting.append(act)

    def _upsert(self, _table: str, row: dict[str, Any]) -> None:
        self.sent += 1
        self._operation(lambda: self.stored.__setitem__(row["id"], row))

    def _truncate(self, _table: str) -> None:
        self.truncates += 1
        self._operation(self.stored.clear)

    def _delete(self, _table: str, key: dict[str, Any]) -> None:
        self._operation(lambda: self.stored.pop(key["id"], None))

    def _checkpoint(self, state: dict[str, Any]) -> None:
        lives = self._lives()
        if lives or self._writes_rows:
            for act in self._waiting:
                act()
            self._waiting.clear()
        if not lives:
            raise Killed
        self.state = State(state, ()).values

    @property
    def fingerprint(self) -> str:
        text: str = self.state["tables"]["things"].get("fingerprint", "")
        return text

    def assert_equal(self) -> None:
        wanted = {str(key): row["name"] for key, row in self.source.items()}
        assert {key: row["name"] for key, row in self.stored.items()} == wanted


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("shared.fingerprint._FEW_ROWS", FEW)
    return World(monkeypatch)


@pytest.mark.parametrize("number", [1, FEW, FEW + 1, 200])
def test_a_list_that_did_not_change_is_not_sent(
    world: World, number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """In whatever order it comes. The column of the sync's time does not count."""
    world.fill(number)
    world.sync()
    assert (world.sent, world.truncates) == (number, 1)
    world.hours = 0
    world.source = dict(reversed(world.source.items()))
    world.sync()
    before = world.fingerprint
    for _ in range(2):
        world.sync()
        assert (world.sent, world.truncates) == (0, 0)
    assert world.fingerprint == before
    assert (
        f"things: {number} row{'s' * (number > 1)}, as at the last full refresh: nothing was sent"
        in (capsys.readouterr().out)
    )


def test_the_changed_part_of_a_list_is_sent(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what is new at its end. Where a row is missing, all others replace the table."""
    world.load(1_000)
    world.hours = 0
    world.put(7, "changed", NOW - timedelta(days=10))
    world.sync()
    assert 1 <= world.sent < 100
    assert (
        f"things: 1000 rows: {world.sent} were sent, since the others" in capsys.readouterr().out
    )
    world.put(1_000, "new")
    world.sync()
    assert (world.sent, world.truncates) == (1, 0)
    world.assert_equal()
    world.remove(500)
    world.sync()
    assert (world.sent, world.truncates) == (1_000, 1)
    world.assert_equal()


def test_a_table_with_other_columns_is_sent(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new version may have added one."""
    world.fill(10)
    world.sync()
    world.hours = 0
    wider = Table("things", ("id",), {**TABLE.columns, "color": Column()})
    monkeypatch.setattr(f"{__name__}.TABLE", wider)
    world.sync()
    assert (world.sent, world.truncates) == (10, 1)


@pytest.mark.parametrize("text", ["", "what a newer form would be"])
def test_without_a_fingerprint_that_is_known_a_list_replaces_the_table(
    world: World, text: Any
) -> None:
    """As before there were any."""
    world.fill(10)
    world.sync()
    world.hours = 0
    world.state["tables"]["things"]["fingerprint"] = text
    world.sync()
    assert (world.sent, world.truncates) == (10, 1)
    world.sync()
    assert world.sent == 0


def test_changes_between_two_full_refreshes_are_sent_again_and_little_else(world: World) -> None:
    """The destination has them, but the source may have gone back to what it had before."""
    world.load(1_000)
    old = world.source[7]
    world.put(7, "changed")
    world.sync()
    assert world.sent == 1
    assert 0 < len(world.fingerprint) <= 512
    world.source[7] = old  # a backup was restored
    world.sync()
    assert world.sent == 0  # the window does not see it
    world.hours = 0
    world.sync()
    assert 1 <= world.sent < 100
    assert world.truncates == 0
    world.assert_equal()
    world.sync()
    assert world.sent == 0


def test_a_row_that_came_and_went_between_two_full_refreshes_is_removed(world: World) -> None:
    """The list is then what it was, but the destination has that row."""
    world.load(100)
    world.put(100, "new")
    world.sync()
    world.remove(100)
    world.hours = 0
    world.sync()
    assert world.truncates == 1
    world.assert_equal()


def test_too_many_changes_between_two_full_refreshes_are_not_told_apart(world: World) -> None:
    """The state stays small, and the full refresh sends all."""
    world.load(1_000)
    for key in range(100):
        world.put(key, "changed")
    world.sync()
    assert world.sent == 100
    assert len(world.fingerprint) <= 512
    world.hours = 0
    world.sync()
    assert (world.sent, world.truncates) == (1_000, 1)


def test_a_window_that_tells_no_changes_sends_only_what_the_destination_lacks(
    world: World,
) -> None:
    """Of a source that tells no times, each window is the whole list."""
    world.fill(1_000)
    for record in world.source.values():
        record["updated_at"] = None
    world.sync()
    for hours in (0, 24):
        world.hours = hours
        world.sync()
    assert world.sent == 0
    world.source[7]["name"] = "changed"
    world.sync()
    assert 1 <= world.sent < 100
    world.assert_equal()
    world.sync()
    assert world.sent == 0


@pytest.mark.parametrize("number", [FEW, 1_000])
def test_windows_that_list_all_rows_send_a_change_once(world: World, number: int) -> None:
    """Not in each window until the next full refresh, which still finds the deletes."""
    world.fill(number)
    for record in world.source.values():
        record["updated_at"] = None
    world.sync()
    world.remove(1)
    world.source[2]["name"] = "changed"
    for sent in (number - 1, 0, 0):
        world.sync()
        assert (world.sent, world.truncates) == (sent, 0)
    assert "1" in world.stored
    world.hours = 0
    world.sync()
    world.assert_equal()


def test_one_row_that_was_sent_of_a_window(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    """Is named as one."""
    world.load(6)
    for record in world.source.values():
        record["updated_at"] = None
    world.hours = 0
    world.sync()
    world.hours = 24
    world.remove(1)
    world.source[3]["name"] = "changed"
    world.sync()
    assert world.sent == 1
    said = "things: 5 rows: 1 was sent, since the others did not change"
    assert said in capsys.readouterr().out


def test_a_record_that_a_page_lists_twice(world: World) -> None:
    """Has no row sent again, whether the window has it or not."""
    world.fill(8)
    for key in (2, 3):
        world.source[key]["updated_at"] = None
    world.sync()
    world.source[3]["name"] = "changed"
    for twice, sent in ((1, 2), (3, 0), (1, 0)):
        records = list(world.source.values())
        world.reads = [[*records, records[twice]]]
        world.sync()
        assert world.sent == sent
    world.hours = 0
    world.sync()
    world.assert_equal()


def test_a_window_that_lists_all_rows_and_a_new_one_sends_little(world: World) -> None:
    """The others are those that the destination has, though it has fewer, or more."""
    world.fill(1_000)
    for record in world.source.values():
        record["updated_at"] = None
    world.sync()
    world.hours = 0
    world.sync()
    world.hours = 24
    world.source[1_000] = {**world.source[500], "id": 1_000}
    world.sync()
    assert 1 <= world.sent < 100
    world.assert_equal()
    world.remove(7)
    for _ in range(2):
        world.sync()
        assert world.sent < 100
    assert world.sent == 0
    world.hours = 0
    world.sync()
    world.assert_equal()


def test_a_deleted_row_that_is_made_anew_arrives(world: World) -> None:
    """Also where the source restores it as it was, at no new time."""
    world.deletes = []
    world.load(100)
    old = world.source[7]
    world.remove(7)
    world.sync()
    assert "7" not in world.stored
    world.source[7] = old
    world.hours = 0
    world.sync()
    world.assert_equal()


def test_rows_of_two_reads_are_not_told_apart(world: World) -> None:
    """Each read misses what the other has. What is left of the list later may be what the second
    one saw, and the destination has more."""
    world.fill(11)
    records = list(world.source.values())
    world.reads = [records[:10], records[1:]]
    world.sync()
    world.assert_equal()
    assert not world.fingerprint
    world.remove(0)
    world.hours = 0
    world.sync()
    world.assert_equal()


def test_a_list_with_two_rows_of_one_key_is_sent(world: World) -> None:
    """The destination has the later one, in whatever order they come."""
    world.fill(8)
    world.hours = 0
    first, other = world.source[3], {**world.source[3], "name": "another"}
    rest = [row for key, row in world.source.items() if key != 3]
    for pair in ([first, other], [other, first], [first, other]):
        world.source = dict(enumerate([*pair, *rest]))
        world.sync()
        assert world.stored["3"]["name"] == pair[-1]["name"]


@pytest.mark.parametrize("number", [FEW, 100])
def test_a_killed_sync_leaves_a_state_that_tells_nothing_false(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """At each of its operations, and between the rows and the state of a checkpoint; then the
    source goes back to what it was, in content and times, and the next full refresh brings it."""
    monkeypatch.setattr("shared.fingerprint._FEW_ROWS", FEW)
    monkeypatch.setattr("shared.listing.CHECKPOINT_ROWS", 3)
    for hours in (0, 24):
        for dies_at in range(number + 10):
            for writes_rows in (False, True):
                world = World(monkeypatch)
                world.load(number)
                before = dict(world.source)
                for key in range(0, number, 7):
                    world.put(key, "changed")
                world.put(number, "new")
                world.hours = hours
                world.sync(dies_at=dies_at, writes_rows=writes_rows)
                world.source = before
                world.hours = 0
                world.sync()
                world.assert_equal()


STEPS = st.one_of(
    st.tuples(
        st.sampled_from(["put", "old", "timeless", "remove"]),
        st.integers(0, 30),
        st.integers(0, 3),
    ),
    st.tuples(
        st.sampled_from(["sync", "full", "skip", "moves", "swaps"]),
        st.integers(0, 40) | st.just(-1),
        st.integers(0, 1),
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(STEPS, min_size=2, max_size=25), st.booleans(), st.integers(0, 30))
def test_after_any_schedule_a_full_refresh_makes_the_destination_equal(
    steps: list[tuple[str, int, int]], feeds: bool, number: int
) -> None:
    """Rows come, change, go, and go back to what they were; syncs read changes or everything, skip
    records, meet a list that moves, and are killed."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr("shared.fingerprint._FEW_ROWS", FEW)
        monkeypatch.setattr("shared.listing.CHECKPOINT_ROWS", 3)
        monkeypatch.setattr("shared.rows._EXAMPLES", 1)
        world = World(monkeypatch)
        world.deletes = [] if feeds else None
        world.fill(number)
        for what, key, value in steps:
            _take(world, what, key, value)
        world.hours, world.deletes = 0, None
        for _ in range(2):  # an empty list is believed at the second time
            world.sync()
        world.assert_equal()
        world.sync()
        assert (world.sent, world.truncates) == (0, 0)


def _take(world: World, what: str, key: int, value: int) -> None:
    if what == "put":
        world.put(key, f"name {value}")
    elif what == "old":
        world.put(key, f"name {value}", NOW - timedelta(days=value))
    elif what == "timeless":
        world.put(key, f"name {value}")
        world.source[key]["updated_at"] = None
    elif what == "remove":
        world.remove(key)
    else:
        world.hours = 24 if what == "sync" else 0
        if what == "skip":
            world.skips = 5 if len(world.source) >= 10 else None
        if what == "moves":
            world.meanwhile = lambda: world.remove(key % 7)
        if what == "swaps":

            def swap() -> None:
                world.remove(key % 7)
                world.put(31 + key, "new")

            world.meanwhile = swap
        world.sync(dies_at=key, writes_rows=bool(value))
