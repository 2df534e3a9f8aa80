"""mssql_ehi: rows that are gone at the source without a word of it."""

import json
import random
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from importlib import import_module
from typing import Any

import pytest

from tests.connectors.mssql import (
    DATA,
    NOW,
    Columns,
    configuration,
    create_plain,
    failed,
    ids,
    synced,
    table_state as state_of,
    upserts,
)
from tests.sandbox.fivetran import Project, load
from tests.sandbox.mssql import ColumnSpec, MssqlSandbox, faults
from tests.sandbox.mssql.types import SqlType
from tests.soak.crashes import Crash, Process
from tests.width import wide

pytestmark = pytest.mark.usefixtures("slept", "small_steps")
connector = load("mssql_ehi")
table_sync = import_module("sqlserver.table_sync")
deletes = import_module("sqlserver.deletes")
sweep = import_module("sqlserver.sweep")
table_state = import_module("sqlserver.table_state")
key_ranges = import_module("sqlserver.key_ranges")
KeyRanges = key_ranges.KeyRanges
HERE = NOW.replace(tzinfo=None)
OLD = HERE - timedelta(days=300)
HOUR = 60
SWEEP = r"^SELECT MIN\(R"
READ = r"ORDER BY T.*ModifiedDate"  # of what changed
# Not one of them is read again by its moment.
QUIET = {"lookback_seconds": "0"}


class Clock:
    """The clock of the machine that syncs, in minutes."""

    def __init__(self) -> None:
        self.minutes = 30_000_000

    def __call__(self) -> int:
        return self.minutes


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(connector, "minutes_now", made)
    return made


def create_keyed(
    server: MssqlSandbox,
    keys: Iterable[int],
    kind: str = "int",
    name: str = "t",
    *,
    identity: bool = False,
) -> None:
    """A table that is read by a moment; its rows are a day old, one second apart."""
    columns: Columns = [
        ColumnSpec("id", kind, nullable=False, identity=identity),
        ("v", "varchar(40)"),
        ("ModifiedDate", "datetime2(7)"),
    ]
    server.create_table("dbo", name, columns, key=["id"])
    insert(server, keys, name)


def insert(
    server: MssqlSandbox,
    keys: Iterable[int],
    name: str = "t",
    *,
    after: timedelta = timedelta(days=-1),
) -> None:
    moments = (HERE + after + timedelta(seconds=n) for n in range(10**6))
    server.insert(f"dbo.{name}", [(key, f"value {key}", next(moments)) for key in keys])


def remove(server: MssqlSandbox, *keys: int, name: str = "t") -> None:
    for key in keys:
        server.delete(f"dbo.{name}", {"id": key})


def kept(project: Project, name: str = "t") -> Any:
    """The keys in the state, as ranges; what stands in place of them."""
    text = delivered(project.state, name)
    ranges = KeyRanges.from_text(text) if text else None
    return text if ranges is None else list(ranges)


def delivered(state: Any, name: str = "t") -> str | None:
    entry = table_state.TableState.from_json(state["tables"][f"dbo.{name}"], f"dbo.{name}")
    text: str | None = entry.delivered
    return text


def sweeps(server: MssqlSandbox) -> int:
    return sum(s.sql.startswith("SELECT MIN(R.k)") for s in server.statements)


# Ranges


def numbers(ranges: Iterable[tuple[int, int]]) -> list[int]:
    return [number for low, high in ranges for number in range(low, high + 1)]


@pytest.mark.parametrize("seed", range(20))
def test_ranges_are_the_set_of_what_was_added(seed: int) -> None:
    """In any order, at the extremes of bigint, and read back from their text."""
    draw = random.Random(seed)
    for _ in range(20):
        size = draw.choice((20, 300))
        first = draw.choice((0, -10, -(2**63), 2**63 - size))
        ranges, expected = KeyRanges(), set[int]()
        for _ in range(draw.randint(0, 8)):
            batch = [first + draw.randrange(size) for _ in range(draw.randint(0, 15))]
            ranges.add(sorted(batch) if draw.random() < 0.5 else batch)
            expected.update(batch)
            if draw.random() < 0.5:
                ranges.to_text()
        others = {first + draw.randrange(size) for _ in range(30)}
        gone = KeyRanges()
        gone.add(list(others))
        read = KeyRanges.from_text(ranges.to_text())
        assert read is not None
        assert numbers(read) == numbers(ranges) == sorted(expected)
        assert read.keys == len(expected)
        assert numbers(read.without(gone)) == sorted(expected - others)


def test_many_ranges_that_come_in_no_order_are_merged() -> None:
    """Again and again, so that few of them wait."""
    keys = list(range(0, 30_000, 3))
    random.Random(1).shuffle(keys)
    ranges = KeyRanges()
    for start in range(0, len(keys), 100):
        ranges.add(keys[start : start + 100])
    assert len(ranges) == 10_000
    assert numbers(ranges) == sorted(keys)


def test_a_text_is_short() -> None:
    """A few characters without gaps; with regular ones it is compressed."""
    ranges = KeyRanges([(1, 10**9)])
    assert len(ranges.to_text()) < 12
    assert len(KeyRanges((n, n) for n in range(0, 10**6, 10)).to_text()) < 1_000


@pytest.mark.parametrize("text", ["", "-", "p", "p!", "q00", "zAAAA", "pgA==", "pAQ=="])
def test_a_text_of_another_form_is_none(text: str) -> None:
    """It was not written by this version."""
    read = KeyRanges.from_text(text)
    assert read is None or text == "p"


# Sweeps


@pytest.mark.parametrize("snapshots", [True, False])
@pytest.mark.parametrize("kind", ["int", "bigint", *wide("smallint", "tinyint")])
def test_deletes_arrive_without_change_tracking(
    project: Project, server: MssqlSandbox, clock: Clock, snapshots: bool, kind: str
) -> None:
    """The first row, the last one, and some in the middle; nothing else is sent."""
    server.info.snapshot = snapshots
    create_keyed(server, range(1, 101), kind)
    synced(project, server, **QUIET)
    assert kept(project) == [(1, 100)]
    remove(server, 1, 50, 51, 100)
    synced(project, server, **QUIET)
    assert len(ids(project)) == 100  # it is not due
    clock.minutes += 24 * HOUR
    result = synced(project, server, **QUIET)
    assert result.counts["Deletes"] == 4
    assert result.counts["Truncates"] == 0
    assert "dbo.t: 4 rows that are gone at the source are deleted" in result.output
    assert ids(project) == [key for key in range(1, 101) if key not in (1, 50, 51, 100)]
    assert max(row["deletes_sent"] for row in project.rows("sync_validation_tables")) == 4
    assert kept(project) == [(2, 49), (52, 99)]
    assert synced(project, server, **QUIET).counts["Deletes"] == 0


def test_the_extremes_of_a_bigint(project: Project, server: MssqlSandbox, clock: Clock) -> None:
    """The server computes with them, and so does the state; negative keys are keys."""
    least, most = -(2**63), 2**63 - 1
    create_keyed(server, [least, least + 1, -7, -6, -1, 0, 1, most - 1, most], "bigint")
    synced(project, server, **QUIET)
    remove(server, least, -6, 0, most)
    clock.minutes += 24 * HOUR
    synced(project, server, **QUIET)
    assert ids(project) == [least + 1, -7, -1, 1, most - 1]


@pytest.mark.parametrize("kind", ["smallint", "bigint"])
def test_a_key_of_another_size(
    project: Project, server: MssqlSandbox, clock: Clock, kind: str
) -> None:
    """Rows whose keys do not fit into the new type had to go before, and keys may be larger."""
    create_keyed(server, [1, 2, 3, 40_000, 40_001])
    synced(project, server, **QUIET)
    remove(server, 2, 40_000, 40_001)
    server.table("dbo.t").columns[0].type = SqlType(kind)
    new = 2**40 if kind == "bigint" else 2**14
    insert(server, [new], after=timedelta(hours=-1))
    clock.minutes += 24 * HOUR
    synced(project, server, **QUIET)
    assert ids(project) == [1, 3, new]
    remove(server, new)
    clock.minutes += 24 * HOUR
    synced(project, server, **QUIET)
    assert ids(project) == [1, 3]


def test_a_sweep_in_several_statements(
    project: Project, server: MssqlSandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of so many keys, behind those of the one before; also if keys are gone at its ends."""
    monkeypatch.setattr(sweep, "KEYS_OF_A_STATEMENT", 7)
    monkeypatch.setattr(sweep, "_DELETED_AT_ONCE", 3)
    monkeypatch.setattr(sweep, "_VERIFIED_AT_ONCE", 2)
    create_keyed(server, range(40))
    synced(project, server, **QUIET)
    gone = (0, 6, 7, 8, 13, 14, 20, 27, 28, 39)
    remove(server, *gone)
    clock.minutes += 24 * HOUR
    synced(project, server, **QUIET)
    assert sweeps(server) == 5
    assert ids(project) == [key for key in range(40) if key not in gone]


@pytest.mark.parametrize("hours", ["1", "0"])
def test_how_often_a_table_is_swept(
    project: Project, server: MssqlSandbox, clock: Clock, hours: str
) -> None:
    """Or never, and then nothing is kept; a clock that was wrong does not hold it up."""
    options = {"delete_sweep_hours": hours, **QUIET}
    create_keyed(server, range(9))
    synced(project, server, **options)
    for minutes in (56, 4, 56, -10_000):
        clock.minutes += minutes
        synced(project, server, **options)
    assert sweeps(server) == (0 if hours == "0" else 2)
    assert kept(project) == (None if hours == "0" else [(0, 8)])


def test_a_rowversion_and_a_large_table(
    project: Project, server: MssqlSandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are swept, too; a small table, one with another key and one without are not."""
    monkeypatch.setattr(table_sync, "SMALL", 50)
    rows = [(i, f"value {i}") for i in range(60)]
    columns: Columns = [("id", "int", False), ("v", "varchar(40)")]
    server.create_table(
        "dbo", "versioned", [*columns, ColumnSpec("rv", "rowversion")], key=["id"], rows=rows[:9]
    )
    server.create_table("dbo", "pair", columns, key=["id", "v"], rows=rows)
    server.create_table("dbo", "keyless", columns, rows=rows)
    create_plain(server, 60, "large")
    create_plain(server, 9, "small")
    names = ("versioned", "large", "pair", "small", "keyless")
    synced(project, server)
    for name in names:
        remove(server, 3, name=name)
    clock.minutes += 24 * HOUR
    result = synced(project, server)
    assert result.counts["Deletes"] == 2
    assert {name: 3 in ids(project, name) for name in names} == {
        **dict.fromkeys(("versioned", "large", "small"), False),
        **dict.fromkeys(("pair", "keyless"), True),
    }
    assert kept(project, "versioned") == [(0, 2), (4, 8)]
    assert kept(project, "large") == [(0, 2), (4, 59)]
    assert kept(project, "small") is kept(project, "pair") is kept(project, "keyless") is None


def test_rows_that_come_and_go_between_two_sweeps(
    project: Project, server: MssqlSandbox, clock: Clock
) -> None:
    """Keys count as delivered from the sync on that delivered them, and a key that changes is one
    that goes and one that comes."""
    create_keyed(server, range(9))
    synced(project, server, **QUIET)
    insert(server, [20, 30], after=timedelta(hours=-2))
    synced(project, server, **QUIET)
    assert kept(project) == [(0, 8), (20, 20), (30, 30)]
    remove(server, 20)
    server.update("dbo.t", {"id": 5}, id=40, ModifiedDate=HERE)
    clock.minutes += 24 * HOUR
    synced(project, server, **QUIET)
    assert ids(project) == [0, 1, 2, 3, 4, 6, 7, 8, 30, 40]
    assert kept(project) == [(0, 4), (6, 8), (30, 30), (40, 40)]


@pytest.mark.parametrize("when", ["before", "between", "after", "next"])
def test_a_row_that_is_inserted_again(
    project: Project, server: MssqlSandbox, clock: Clock, when: str
) -> None:
    """Before the sweep, after the server has told its keys, after the rows were read, and at the
    next sync: it is there in the end."""
    create_keyed(server, range(9))
    synced(project, server, **QUIET)
    remove(server, 4)
    insert(server, [20, 21], after=timedelta(hours=-1))
    clock.minutes += 24 * HOUR

    def again() -> None:
        server.insert("dbo.t", [(4, "again", HERE)])

    if when == "before":
        again()
    elif when == "between":
        server.faults.add(faults.call(again, READ))
    elif when == "after":
        server.faults.add(faults.call(again, READ, after_rows=1))
    result = synced(project, server, **QUIET)
    assert result.counts["Deletes"] == (0 if when == "before" else 1)
    if when == "next":
        again()
    synced(project, server, **QUIET)
    assert {row["id"]: row["v"] for row in project.rows("t")}[4] == "again"
    clock.minutes += 24 * HOUR
    assert synced(project, server, **QUIET).counts["Deletes"] == 0
    assert kept(project) == [(0, 8), (20, 21)]


def test_a_row_that_comes_back_as_it_was(
    project: Project, server: MssqlSandbox, clock: Clock
) -> None:
    """The window is then what it was before the sweep, and is read all the same."""
    create_keyed(server, [])
    server.insert("dbo.t", [(key, "v", OLD) for key in range(9)])
    synced(project, server)
    assert upserts(synced(project, server)) == 0
    remove(server, 4)
    clock.minutes += 24 * HOUR
    server.faults.add(
        faults.call(lambda: server.insert("dbo.t", [(4, "v", OLD)]), "ORDER BY T.*ModifiedDate")
    )
    synced(project, server)
    remove(server, 5)

    clock.minutes += 24 * HOUR
    server.faults.clear()
    synced(project, server)
    server.insert("dbo.t", [(5, "v", OLD)])
    synced(project, server)
    assert ids(project) == list(range(9))


def test_a_row_that_goes_while_the_window_is_unchanged(
    project: Project, server: MssqlSandbox, clock: Clock
) -> None:
    """The sweep deletes it; should it come back as it was, it is read."""
    create_keyed(server, [])
    server.insert("dbo.t", [(key, "v", OLD) for key in range(9)])
    synced(project, server)
    clock.minutes += 24 * HOUR
    server.faults.add(faults.call(lambda: remove(server, 4), SWEEP))
    assert synced(project, server).counts["Deletes"] == 1
    server.insert("dbo.t", [(4, "v", OLD)])
    synced(project, server)
    assert ids(project) == list(range(9))


def test_a_row_that_comes_back_while_a_read_resumes(
    project: Project, server: MssqlSandbox, clock: Clock
) -> None:
    """The read has passed it, and what it found of the window is no use any more."""
    create_keyed(server, range(60))
    synced(project, server)
    insert(server, range(100, 160), after=timedelta(hours=-10))
    server.faults.add(faults.drop(READ, after_rows=75), faults.drop(READ, after_rows=5, times=9))
    failed(project, server, retry_attempts="0")
    server.faults.clear()
    rows = server.execute("SELECT id, v, ModifiedDate FROM dbo.t WHERE id = 105")
    remove(server, 105)
    clock.minutes += 24 * HOUR
    server.faults.add(faults.call(lambda: server.insert("dbo.t", rows), READ))
    assert synced(project, server).counts["Deletes"] == 1
    synced(project, server)
    assert 105 in ids(project)


@pytest.mark.parametrize("snapshots", [True, False])
def test_a_scan_that_misses_a_row(
    project: Project, server: MssqlSandbox, clock: Clock, snapshots: bool
) -> None:
    """What seems to be gone is looked up by the index of the key, also under snapshots."""
    server.info.snapshot = snapshots
    create_keyed(server, range(9))
    synced(project, server, **QUIET)
    remove(server, 4, 6)
    clock.minutes += 24 * HOUR
    server.faults.add(
        faults.call(lambda: server.insert("dbo.t", [(4, "again", OLD)]), "FORCESEEK")
    )
    assert synced(project, server, **QUIET).counts["Deletes"] == 1
    assert ids(project) == [0, 1, 2, 3, 4, 5, 7, 8]
    assert kept(project) == [(0, 5), (7, 8)]


def test_an_index_that_knows_no_ranges(
    project: Project, server: MssqlSandbox, clock: Clock
) -> None:
    """As a hash index: the server looks the keys up in another way."""
    create_keyed(server, range(9))
    synced(project, server, **QUIET)
    remove(server, 4, 6)
    clock.minutes += 24 * HOUR
    server.faults.add(faults.fail(8622, match="FORCESEEK", times=99))
    server.faults.add(faults.call(lambda: insert(server, [6]), "BETWEEN", skip=1))
    assert synced(project, server, **QUIET).counts["Deletes"] == 1
    assert ids(project) == [0, 1, 2, 3, 5, 6, 7, 8]


def test_gaps_that_do_not_fit(
    project: Project, server: MssqlSandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table is not swept any more, the log says so once; a full refresh begins anew."""
    monkeypatch.setattr(deletes, "LARGEST_TEXT", 60)
    keys = random.Random(1).sample(range(10_000), 60)
    create_keyed(server, keys)
    create_keyed(server, range(20), name="dense")
    first = synced(project, server, **QUIET)
    assert first.output.count("its keys have too many gaps") == 1
    assert kept(project) == "-"
    remove(server, keys[7])
    remove(server, 3, name="dense")
    clock.minutes += 24 * HOUR
    second = synced(project, server, **QUIET)
    assert "too many gaps" not in second.output
    assert second.counts["Deletes"] == 1
    assert len(ids(project)) == 60
    for key in keys[8:]:
        remove(server, key)
    synced(project, server, full_refresh_hours="1", **QUIET)
    assert ids(project) == sorted(keys[:7])
    assert kept(project) == [(key, key) for key in sorted(keys[:7])]


@pytest.mark.parametrize("limit", ["kept", "read"])
def test_a_server_with_too_many_ranges(
    project: Project,
    server: MssqlSandbox,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
) -> None:
    """It is cut off, and nothing is deleted; or what is left does not fit."""
    create_keyed(server, range(60))
    synced(project, server, **QUIET)
    gone = random.Random(1).sample(range(60), 30)
    remove(server, *gone)
    if limit == "read":
        monkeypatch.setattr(sweep, "_MOST_READ", 5)
    else:
        monkeypatch.setattr(deletes, "LARGEST_TEXT", 20)
        monkeypatch.setattr(sweep, "_DELETED_AT_ONCE", 5)
    clock.minutes += 24 * HOUR
    result = synced(project, server, **QUIET)
    assert result.counts["Deletes"] == (0 if limit == "read" else 30)
    assert kept(project) == "-"


def test_the_keys_of_all_tables_share_a_budget(
    project: Project, server: MssqlSandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cheapest stay, whatever the order in which the tables are read."""
    monkeypatch.setattr(deletes, "LARGEST_OF_ALL", 60)
    monkeypatch.setattr(deletes, "LARGEST_TEXT", 60)
    for name, step in (("a", 1), ("b", 3), ("c", 1), ("e", 5)):
        create_keyed(server, [i + i * i for i in range(0, 12 * step, step)], name=name)
    create_keyed(server, range(100), name="dense")
    result = synced(project, server, **QUIET)
    texts = {name: delivered(project.state, name) or "" for name in ("a", "b", "c", "e")}
    assert "-" in texts.values()
    assert kept(project, "dense") == [(0, 99)]
    assert sum(len(text) for text in texts.values() if text != "-") <= 60
    assert result.output.count("too many gaps") == list(texts.values()).count("-")
    clock.minutes += 24 * HOUR
    assert "too many gaps" not in synced(project, server, **QUIET).output


# What must not be deleted


def test_a_table_that_seems_empty(project: Project, server: MssqlSandbox, clock: Clock) -> None:
    """It is believed at the second sync in a row: a login that lost its rights sees the same."""
    create_keyed(server, range(9))
    synced(project, server, **QUIET)
    server.delete("dbo.t")
    clock.minutes += 24 * HOUR
    first = synced(project, server, **QUIET)
    assert "9 of 9 rows are gone at the source" in first.output
    assert first.counts["Deletes"] == 0
    insert(server, [3])  # as it was
    assert synced(project, server, **QUIET).counts["Deletes"] == 8
    remove(server, 3)
    clock.minutes += 24 * HOUR
    assert synced(project, server, **QUIET).counts["Deletes"] == 0
    assert synced(project, server, **QUIET).counts["Deletes"] == 1
    assert ids(project) == []


@pytest.mark.parametrize("heals", [True, False])
def test_half_of_a_large_table_goes_at_the_second_sweep(
    project: Project,
    server: MssqlSandbox,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    heals: bool,
) -> None:
    """A filter that hides rows looks like that."""
    monkeypatch.setattr(sweep, "_MANY_ROWS", 20)
    create_keyed(server, range(30))
    synced(project, server, **QUIET)
    remove(server, *range(16))
    clock.minutes += 24 * HOUR
    first = synced(project, server, **QUIET)
    assert "16 of 30 rows are gone at the source" in first.output
    assert synced(project, server, **QUIET).counts["Deletes"] == 0  # it is not due
    if heals:
        insert(server, range(10))
    clock.minutes += 24 * HOUR
    assert synced(project, server, **QUIET).counts["Deletes"] == (6 if heals else 16)
    if heals:
        assert ids(project) == [*range(10), *range(16, 30)]
        remove(server, *range(10), *range(16, 21))
        clock.minutes += 24 * HOUR
        assert synced(project, server, **QUIET).counts["Deletes"] == 0  # the first time again


def test_a_table_that_is_emptied_and_filled_again(
    project: Project, server: MssqlSandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One sync sees no row, the next one a third: that is not the same, so nothing is deleted."""
    monkeypatch.setattr(sweep, "_MANY_ROWS", 20)
    create_keyed(server, range(30))
    synced(project, server, **QUIET)
    rows = server.execute("SELECT id, v, ModifiedDate FROM dbo.t ORDER BY id")
    server.delete("dbo.t")
    clock.minutes += 24 * HOUR
    assert "30 of 30 rows are gone" in synced(project, server, **QUIET).output
    server.insert("dbo.t", rows[:10])
    assert "20 of 30 rows are gone" in synced(project, server, **QUIET).output
    server.insert("dbo.t", rows[10:])
    clock.minutes += 24 * HOUR
    assert synced(project, server, **QUIET).counts["Deletes"] == 0
    assert ids(project) == list(range(30))


def test_a_login_that_loses_its_rights(
    project: Project, server: MssqlSandbox, clock: Clock
) -> None:
    """The table fails, and keeps its rows and its keys."""
    create_keyed(server, range(9))
    synced(project, server, **QUIET)
    clock.minutes += 24 * HOUR
    server.faults.add(faults.fail(229, "SELECT", "t", "d", "dbo", match=r"\[dbo\].\[t\]", times=9))
    failed(project, server, **QUIET)
    assert ids(project) == list(range(9))
    assert kept(project) == [(0, 8)]
    server.faults.clear()
    assert synced(project, server, **QUIET).counts["Deletes"] == 0


@pytest.mark.parametrize("fault", ["refused", "lost", "down"])
def test_a_sweep_that_fails_costs_no_table(
    project: Project, server: MssqlSandbox, clock: Clock, fault: str
) -> None:
    """The rows are read, and the next sync sweeps."""
    server.info.snapshot = False
    create_keyed(server, range(9))
    synced(project, server, **QUIET)
    remove(server, 4)
    insert(server, [20], after=timedelta(hours=-1))
    clock.minutes += 24 * HOUR
    server.faults.add(
        {
            "refused": lambda: faults.fail(8115, match="FORCESEEK"),
            "lost": lambda: faults.drop(SWEEP),
            "down": lambda: faults.fail(40501, "x", 0, match=SWEEP, times=4),
        }[fault]()
    )
    synced(project, server, **QUIET)
    assert ids(project) == [key for key in [*range(9), 20] if fault != "lost" or key != 4]
    synced(project, server, **QUIET)
    assert ids(project) == [key for key in [*range(9), 20] if key != 4]


# States


def test_a_state_of_an_older_version(project: Project, server: MssqlSandbox, clock: Clock) -> None:
    """Nobody knows what it delivered, so deletes from then on arrive; the log says so once."""
    create_keyed(server, range(9))
    synced(project, server, delete_sweep_hours="0", **QUIET)
    assert kept(project) is None
    remove(server, 2)
    first = synced(project, server, **QUIET)
    assert first.output.count("nobody knows which keys were synced until now") == 1
    assert kept(project) == [(0, 1), (3, 8)]
    remove(server, 4)
    clock.minutes += 24 * HOUR
    second = synced(project, server, **QUIET)
    assert "nobody knows" not in second.output
    assert second.counts["Deletes"] == 1
    assert ids(project) == [0, 1, 2, 3, 5, 6, 7, 8]


def test_a_first_load_that_is_resumed_in_slices(
    project: Project, server: MssqlSandbox, clock: Clock
) -> None:
    """It goes on with the keys of the rows that it delivered."""
    create_keyed(server, range(100))
    server.faults.add(
        faults.drop(DATA, after_rows=5, skip=2), faults.drop(DATA, after_rows=5, skip=2, times=9)
    )
    options = {"slice_rows": "20", **QUIET}
    failed(project, server, retry_attempts="0", **options)
    ((first, last),) = kept(project)
    assert first == 0
    assert 20 <= last < 99
    server.faults.clear()
    remove(server, 3)
    synced(project, server, **options)
    assert kept(project) == [(0, 99)]
    clock.minutes += 24 * HOUR
    assert synced(project, server, **options).counts["Deletes"] == 1
    assert 3 not in ids(project)


def test_killed_within_the_deletes(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each checkpoint: the next sync goes on, from the state before or after."""
    monkeypatch.setattr(sweep, "_DELETED_AT_ONCE", 10)
    ticking = Clock()
    monkeypatch.setattr(connector, "minutes_now", ticking)
    create_keyed(server, range(200))
    synced(project, server, **QUIET)
    remove(server, *range(50, 120))
    ticking.minutes += 24 * HOUR
    states: list[Any] = [project.state]
    save = import_module("shared.state").State.save

    class KilledError(BaseException):
        pass

    def saved(self: Any, *args: Any, **others: Any) -> None:
        save(self, *args, **others)
        states.append(json.loads(json.dumps(self.values)))
        if len(states) == 4:
            raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(import_module("shared.state").State, "save", saved)
        with pytest.raises(KilledError):
            project.sync(configuration(server, **QUIET))
    gone = [set(range(200)) - set(numbers(KeyRanges.from_text(delivered(s)))) for s in states]
    assert [len(keys) for keys in gone] == [0, 0, 20, 40]
    for state in states:
        result = project.sync(configuration(server, **QUIET), state)
        assert result.code == 0
        assert ids(project) == [*range(50), *range(120, 200)]
        assert kept(project) == [(0, 49), (120, 199)]


@pytest.mark.parametrize("way", ["first", "incremental"])
def test_rows_that_a_killed_sync_has_stored_behind_its_state(
    project: Project, server: MssqlSandbox, clock: Clock, way: str
) -> None:
    """They are deleted at the source before the next sync, and so at the destination."""
    create_keyed(server, range(60 if way == "first" else 20))
    if way == "incremental":
        synced(project, server, **QUIET)
        insert(server, range(20, 40), after=timedelta(hours=-1))
    with Process("in-checkpoint", 3 if way == "first" else 2).running(), pytest.raises(Crash):
        project.sync(configuration(server, **QUIET))
    server.drop_connections()
    known = numbers(KeyRanges.from_text(delivered(project.state)))
    unknown = sorted(set(ids(project)) - set(known))
    assert len(unknown) > 2, (known, ids(project))
    remove(server, unknown[0], unknown[2])
    synced(project, server, **QUIET)
    clock.minutes += 24 * HOUR
    result = synced(project, server, **QUIET)
    assert result.counts["Deletes"] == 2
    assert ids(project) == [key for (key,) in server.execute("SELECT id FROM dbo.t ORDER BY id")]


def test_of_many_tables_more_rows_may_be_behind_the_state(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their checkpoints come after more rows: keys are looked for behind as many, and a batch."""
    monkeypatch.setattr("sqlserver.checkpoints.ROWS_A_TABLE", 20_000)
    create_keyed(server, range(20))
    synced(project, server, **QUIET)
    insert(server, range(20, 40), after=timedelta(hours=-1))
    with Process("in-checkpoint", 2).running(), pytest.raises(Crash):
        project.sync(configuration(server, **QUIET))
    server.drop_connections()
    server.statements.clear()
    synced(project, server, **QUIET)
    [asked] = [s.sql for s in server.statements if s.sql.startswith("SELECT MAX(R.k)")]
    assert "TOP (40000)" in asked


def test_killed_when_rows_that_waited_prove_too_large(
    project: Project, server: MssqlSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that hands some of them over has the keys of all."""
    monkeypatch.setattr(table_sync, "LARGEST_WAITING", 2_000)
    create_keyed(server, range(200, 230))
    synced(project, server, **QUIET)
    insert(server, range(200), after=timedelta(hours=-1))
    server.faults.add(faults.fail(8115, match=DATA))
    with Process("after-checkpoint", 2).running(), pytest.raises(Crash):
        project.sync(configuration(server, **QUIET))
    server.drop_connections()
    assert 30 < len(ids(project)) < 230
    left = state_of(project)
    assert (left.read, left.outgrown) == (None, True)
    assert {*ids(project)} <= {*numbers(KeyRanges.from_text(left.delivered))}


@pytest.mark.parametrize("left", [0, 5])
def test_the_last_rows_that_a_killed_sync_has_stored(
    project: Project, server: MssqlSandbox, clock: Clock, left: int
) -> None:
    """They are gone before the next sync; the server tells the last identity that it gave."""
    create_keyed(server, range(1, 21), identity=True)
    synced(project, server, **QUIET)
    insert(server, range(21, 41), after=timedelta(hours=-1))
    with Process("in-checkpoint", 2).running(), pytest.raises(Crash):
        project.sync(configuration(server, **QUIET))
    server.drop_connections()
    assert max(ids(project)) > 35
    remove(server, *range(21 + left, 41))
    synced(project, server, **QUIET)
    clock.minutes += 24 * HOUR
    synced(project, server, **QUIET)
    assert ids(project) == list(range(1, 21 + left))


def test_rows_that_a_failed_table_has_stored(
    project: Project, server: MssqlSandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fails for its skipped records, after others were handed over."""

    def take_small_ones(key: int) -> int:
        if key >= 130:
            raise ValueError
        return key

    create_keyed(server, range(30))
    synced(project, server, **QUIET)
    insert(server, range(100, 160), after=timedelta(hours=-1))
    types = import_module("sqlserver.type_mapping").TYPE_MAPPINGS
    with monkeypatch.context() as patch:
        patch.setitem(types, "int", replace(types["int"], convert=take_small_ones))
        assert "That is more than a tenth" in failed(project, server, **QUIET).output
    assert ids(project) == [*range(30), *range(100, 130)]
    remove(server, 100, 101)
    synced(project, server, **QUIET)
    clock.minutes += 24 * HOUR
    assert synced(project, server, **QUIET).counts["Deletes"] == 2
    assert ids(project) == [*range(30), *range(102, 160)]


def test_keys_far_behind_the_state_of_a_killed_sync(
    project: Project, server: MssqlSandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Are not taken for delivered: nobody deletes millions of rows that were never there."""
    monkeypatch.setattr(sweep, "_MOST_GAPS", 100)
    create_keyed(server, range(20))
    synced(project, server, **QUIET)
    insert(server, [500], after=timedelta(hours=-1))
    with Process("in-checkpoint", 2).running(), pytest.raises(Crash):
        project.sync(configuration(server, **QUIET))
    server.drop_connections()
    synced(project, server, **QUIET)
    assert kept(project) == [(0, 19), (500, 500)]


@pytest.mark.parametrize("snapshots", [True, False])
def test_a_view_with_a_declared_key(
    project: Project, server: MssqlSandbox, clock: Clock, snapshots: bool
) -> None:
    """Is swept, too, though no index has its key, and it may be null."""
    server.info.snapshot = snapshots
    columns: Columns = [("id", "int"), ("v", "varchar(40)"), ("ModifiedDate", "datetime2(7)")]
    server.create_table("dbo", "t", columns)
    insert(server, range(9))
    server.create_view("dbo", "vt", "SELECT id, v, ModifiedDate FROM dbo.t")
    options = {"views": "vt", "keys": "vt: id", "exclude_tables": "t", **QUIET}
    synced(project, server, **options)
    remove(server, 4)
    clock.minutes += 24 * HOUR
    assert synced(project, server, **options).counts["Deletes"] == 1
    assert ids(project, "vt") == [0, 1, 2, 3, 5, 6, 7, 8]


@pytest.mark.parametrize(
    "options", [{"keys": "vt: id"}, {"full_refresh_hours": "24"}], ids=["sweep", "refresh"]
)
def test_a_view_that_is_too_large_to_be_replaced(
    project: Project,
    server: MssqlSandbox,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, str],
) -> None:
    """There is no estimate of its size, but the last read knows it."""
    monkeypatch.setattr(table_sync, "SMALL", 50)
    create_plain(server, 60)
    server.create_view("dbo", "vt", "SELECT id, v FROM dbo.t")
    options = {"views": "vt", "exclude_tables": "t", **options}
    for _ in range(2):
        synced(project, server, **options)
    remove(server, 4)
    clock.minutes += 24 * HOUR
    synced(project, server, **options)
    assert ids(project, "vt") == [key for key in range(60) if key != 4]


@pytest.mark.parametrize("keyed", [True, False])
def test_few_rows_that_are_too_large_to_wait(
    project: Project,
    server: MssqlSandbox,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    keyed: bool,
) -> None:
    """They are swept, or refreshed, as those of other large tables, until they are small."""
    monkeypatch.setattr(table_sync, "LARGEST_WAITING", 2_000)
    columns: Columns = [("id", "int", False), ("v", "varchar(max)")]
    draw = random.Random(1)
    rows = [(key, draw.randbytes(500).hex()) for key in range(60)]
    server.create_table("dbo", "t", columns, key=["id"] if keyed else [], rows=rows)
    options = {"full_refresh_hours": "24"}
    for _ in range(3):
        synced(project, server, **options)
    remove(server, 4)
    clock.minutes += 24 * HOUR
    synced(project, server, **options)
    assert ids(project) == [key for key in range(60) if key != 4]
    server.delete("dbo.t")
    server.insert("dbo.t", [(1, "small"), (2, "small")])
    for _ in range(2):
        clock.minutes += 24 * HOUR
        synced(project, server, **options)
    remove(server, 1)
    synced(project, server, **options)
    assert ids(project) == [2]


def test_several_tables_at_once(project: Project, server: MssqlSandbox, clock: Clock) -> None:
    """Each worker sweeps its own table."""
    names = [f"t{letter}" for letter in "abcdef"]
    for name in names:
        create_keyed(server, range(40), name=name)
    options = {"parallel_tables": "3", **QUIET}
    synced(project, server, **options)
    for place, name in enumerate(names):
        remove(server, place, 39 - place, name=name)
    clock.minutes += 24 * HOUR
    assert synced(project, server, **options).counts["Deletes"] == 12
    for place, name in enumerate(names):
        assert ids(project, name) == [key for key in range(40) if key not in (place, 39 - place)]


def test_a_table_that_is_tracked_for_a_while(
    project: Project, server: MssqlSandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Change Tracking tells its deletes; without it the table is replaced, and swept again."""
    create_keyed(server, range(9))
    synced(project, server, **QUIET)
    server.info.tracking = True
    server.execute("ALTER TABLE dbo.t ENABLE CHANGE_TRACKING")
    synced(project, server, **QUIET)
    remove(server, 2)
    clock.minutes += 24 * HOUR
    synced(project, server, **QUIET)
    assert kept(project) is None
    remove(server, 3)
    server.execute("ALTER TABLE dbo.t DISABLE CHANGE_TRACKING")
    synced(project, server, **QUIET)
    assert ids(project) == [0, 1, 4, 5, 6, 7, 8]
    assert kept(project) == [(0, 1), (4, 8)]


# Full refresh


def create_pairs(server: MssqlSandbox, count: int, name: str = "t") -> None:
    """A table that is read by a moment, and has no key of one number."""
    columns: Columns = [("id", "int", False), ("part", "int", False)]
    columns += [("v", "varchar(40)"), ("ModifiedDate", "datetime2(7)")]
    rows = [(i, 0, f"value {i}", OLD + timedelta(seconds=i)) for i in range(count)]
    server.create_table("dbo", name, columns, key=["id", "part"], rows=rows)


def test_a_full_refresh_brings_the_deletes(
    project: Project, server: MssqlSandbox, clock: Clock
) -> None:
    """When it is due, in one step; the next sync is incremental, and an unchanged table sends
    nothing."""
    options = {"full_refresh_hours": "168"}
    create_pairs(server, 30)
    synced(project, server, **options)
    remove(server, 7)
    clock.minutes += 150 * HOUR
    synced(project, server, **options)
    assert 7 in ids(project)
    clock.minutes += 18 * HOUR
    result = synced(project, server, **options)
    assert result.counts["Truncates"] == 1
    assert 7 not in ids(project)
    server.insert("dbo.t", [(50, 0, "new", HERE)])
    assert upserts(synced(project, server, **options)) == 2
    synced(project, server, **options)
    server.set_clock(NOW + timedelta(days=1))
    for _ in range(2):
        clock.minutes += 168 * HOUR
        last = synced(project, server, **options)
    assert last.counts["Truncates"] == 0
    assert upserts(last) == 0
    assert len(ids(project)) == 30
    server.delete("dbo.t")
    clock.minutes += 168 * HOUR
    assert "the source lists no rows" in synced(project, server, **options).output
    assert len(ids(project)) == 30
    synced(project, server, **options)
    assert ids(project) == []


def test_full_refreshes_by_pattern(project: Project, server: MssqlSandbox, clock: Clock) -> None:
    """The first one that matches counts; a number alone is for those that nothing else serves."""
    for name in ("one", "two", "three", "four"):
        create_pairs(server, 9, name)
    create_keyed(server, range(9), name="swept")
    options = {
        "full_refresh_hours": "DBO.Two=1, dbo.t*=2,[dbo].[four]=0, 3, gone=4",
        "delete_sweep_hours": "99",
    }
    first = synced(project, server, **options)
    assert "full_refresh_hours: 'gone' matches no table" in first.output
    found: dict[str, int] = {}
    for hour in range(1, 5):
        clock.minutes += HOUR
        for name in ("one", "two", "three", "four", "swept"):
            remove(server, 0, name=name)
        synced(project, server, **options)
        for name in ("one", "two", "three", "four", "swept"):
            if 0 not in ids(project, name):
                found.setdefault(name, hour)
    assert found == {"two": 1, "three": 2, "one": 3}


def test_a_full_refresh_of_a_large_table(
    project: Project, server: MssqlSandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is emptied first, which a warning says, and resumed where it breaks off."""
    monkeypatch.setattr(table_sync, "SMALL", 50)
    options = {"full_refresh_hours": "24"}
    create_pairs(server, 200)
    synced(project, server, **options)
    remove(server, 7)
    clock.minutes += 24 * HOUR
    server.faults.add(faults.drop(DATA, after_rows=95), faults.drop(DATA, after_rows=5, times=5))
    server.faults.add(faults.call(lambda: None, "never"))
    result = failed(project, server, retry_attempts="0", **options)
    assert "emptied at the destination and loaded anew" in result.output
    server.faults.clear()
    result = synced(project, server, **options)
    assert result.counts["Truncates"] == 0
    assert upserts(result) < 200
    assert ids(project) == [key for key in range(200) if key != 7]
    assert synced(project, server, **options).counts["Truncates"] == 0


def test_a_large_table_that_seems_empty_is_not_emptied(
    project: Project, server: MssqlSandbox, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its statistics say otherwise."""
    create_pairs(server, 60)
    options = {"full_refresh_hours": "24"}
    synced(project, server, **options)
    monkeypatch.setattr(table_sync, "SMALL", 50)
    monkeypatch.setattr(table_sync.TableSync, "_is_small", False)
    server.delete("dbo.t")
    clock.minutes += 24 * HOUR
    assert "the source lists no rows" in synced(project, server, **options).output
    assert len(ids(project)) == 60
    synced(project, server, **options)
    assert ids(project) == []


@pytest.mark.parametrize("small", [True, False])
def test_a_full_refresh_that_breaks_off(
    project: Project,
    server: MssqlSandbox,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    small: bool,
) -> None:
    """Of a small table nothing has changed yet; one that proves too large is loaded anew."""
    options = {"full_refresh_hours": "24"}
    create_pairs(server, 100)
    synced(project, server, **options)
    remove(server, 7)
    clock.minutes += 24 * HOUR
    if not small:
        monkeypatch.setattr(table_sync, "LARGEST_WAITING", 500)
    server.faults.add(faults.drop(DATA, after_rows=75), faults.drop(DATA, after_rows=5, times=3))
    failed(project, server, retry_attempts="0", **options)
    assert (7 in ids(project)) == small
    server.faults.clear()
    synced(project, server, **options)
    assert ids(project) == [key for key in range(100) if key != 7]


@pytest.mark.parametrize(
    "text",
    ["x", "-1", "dbo.t", "dbo.t=", "=5", "1,2", "a=1=2", "100000", "a=1;b=2", "[a=1", "1,,"],
)
def test_hours_that_are_none(server: MssqlSandbox, text: str) -> None:
    """They are refused with one sentence."""
    with pytest.raises(ValueError, match="full_refresh_hours must be a number of hours up to"):
        connector.validate_configuration(configuration(server, full_refresh_hours=text))
