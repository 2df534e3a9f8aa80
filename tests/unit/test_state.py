"""The state and its windows."""

import json
import math
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import time_machine
from fivetran_connector_sdk import Operations
from hypothesis import given, strategies as st

from shared import times
from shared.errors import ConnectorError
from shared.state import OVERLAP, State, TableState, fix_oldest, note_source, window

MOMENTS = st.datetimes(
    min_value=datetime(2000, 1, 1), max_value=datetime(2100, 1, 1), timezones=st.just(timezone.utc)
)
NOW = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The checkpoints, as JSON, which is how they are kept."""
    checkpoints: list[Any] = []
    monkeypatch.setattr(
        Operations, "checkpoint", lambda state: checkpoints.append(json.dumps(state))
    )
    return checkpoints


@given(
    st.dictionaries(
        st.text(), st.fixed_dictionaries({"cursor": MOMENTS.map(times.to_text)}), max_size=4
    )
)
def test_a_state_survives_the_way_through_json(tables: dict[str, Any]) -> None:
    """The next sync reads what was saved."""
    first = State({}, ())
    first.values["tables"].update(tables)
    again = State(json.loads(json.dumps(first.values)), ())
    assert again.values == first.values
    assert all(again.table(name) == entry for name, entry in tables.items())


def test_saving_checkpoints_everything(saved: list[Any]) -> None:
    """The entries of tables, and the values beside them."""
    state = State({}, ())
    state.save({"a": {"cursor": "2026-01-01T00:00:00Z"}}, tokens="encrypted")
    state.save({"b": {}})
    assert json.loads(saved[-1]) == {
        "version": 1,
        "tables": {"a": {"cursor": "2026-01-01T00:00:00Z"}, "b": {}},
        "tokens": "encrypted",
    }


def test_an_entry_is_a_copy() -> None:
    """A change that a sync prepares is not in the state before it is saved."""
    state = State({}, ())
    state.table("a")["cursor"] = "x"
    assert state.values["tables"] == {}


def test_the_given_state_is_not_changed(saved: list[Any]) -> None:
    """The SDK's own copy keeps what the last sync saved, at every depth."""
    given_state = {"version": 1, "tables": {"a": {"cursor": "2026-01-01T00:00:00Z"}}}
    before = json.dumps(given_state)
    State(given_state, ("a",)).save({"a": {"cursor": "2026-01-02T00:00:00Z"}})
    assert json.dumps(given_state) == before


def test_the_older_form() -> None:
    """A bare `last_sync_time` is the cursor of every table."""
    state = State({"last_sync_time": "2026-01-01T00:00:00Z"}, ("a", "b"))
    entry = {"cursor": "2026-01-01T00:00:00Z"}
    assert state.values == {"version": 1, "tables": {"a": entry, "b": entry}}


@pytest.mark.parametrize(
    "given_state",
    [
        {"version": 2, "tables": {}},
        {"version": "1", "tables": {}},
        {"version": 1, "tables": {"a": {"cursor": "soon"}}},
        {"version": 1, "tables": {"a": {"listed_at": None}}},
        {"version": 1, "tables": {"a": 5}},
        {"version": 1, "tables": []},
        {"version": 1, "tables": None},
        {"version": 1, "tables": {"a": [""]}},
        {"version": 1, "tables": {"a": {"rows": True}}},
        {"version": 1, "tables": {"a": {"rows": 0.5}}},
        {"version": 1, "tables": {"a": {"rows": 2**63}}},
        {"version": 1, "tables": {"a": {"fingerprint": 5}}},
        {"version": 1, "tables": {"a": {"emptied": "x"}}},
        {"version": 1, "tables": {"a": {"unheard_of": math.nan}}},
        {"version": 1, "tables": {"a": {"unheard_of": json.loads("[" * 400 + "]" * 400)}}},
        {"version": 1, "tables": {}, "oldest": "soon"},
        {"other": 1},
        {"last_sync_time": "soon"},
        {"last_sync_time": None},
    ],
)
def test_another_form_is_an_error(given_state: dict[str, Any]) -> None:
    """The error says what to do."""
    with pytest.raises(ConnectorError, match="deploy the version that wrote it, or re-sync"):
        State(given_state, ("a",))


@given(MOMENTS, MOMENTS, MOMENTS, st.integers(0, 1000))
def test_a_window_never_leaves_a_gap(
    cursor: datetime, listed: datetime, now: datetime, hours: int
) -> None:
    """Either all is read, or what changed since a cursor that lies before the clock."""
    entry = {"cursor": times.to_text(cursor), "listed_at": times.to_text(listed), "rows": 1}
    with time_machine.travel(now, tick=False):
        result = window(entry, hours)
        assert result.started == times.now()
    if result.full:
        assert result.since is None
    else:
        assert result.since == cursor
        assert listed <= now < listed + timedelta(hours=hours)


@pytest.mark.parametrize(
    ("entry", "hours", "full"),
    [
        ({}, 24, True),
        ({"cursor": NOW}, 24, True),
        ({"cursor": NOW - OVERLAP, "listed_at": NOW}, 24, False),
        ({"cursor": NOW, "listed_at": NOW}, 24, False),
        ({"cursor": NOW - OVERLAP, "listed_at": NOW}, 0, True),
        ({"cursor": NOW - OVERLAP, "listed_at": NOW - timedelta(hours=23)}, 24, False),
        ({"cursor": NOW - OVERLAP, "listed_at": NOW - timedelta(hours=24)}, 24, True),
        ({"cursor": NOW - OVERLAP, "listed_at": NOW, "unfinished": True}, 24, True),
        ({"cursor": NOW - OVERLAP, "listed_at": NOW + timedelta(seconds=1)}, 24, True),
        ({"cursor": NOW + timedelta(days=1), "listed_at": NOW}, 24, True),
    ],
)
def test_when_everything_is_read(entry: dict[str, Any], hours: int, full: bool) -> None:
    """In a first load, after one that broke off, when a full refresh is due, and when the state is
    ahead of the clock."""
    stored = {
        key: times.to_text(value) if isinstance(value, datetime) else value
        for key, value in entry.items()
    }
    oldest = NOW - timedelta(days=90)
    with time_machine.travel(NOW, tick=False):
        result = window(stored, hours, oldest)
    assert result.full is full
    assert result.since == (oldest if full else entry["cursor"])


@pytest.mark.parametrize(("days", "full"), [(29, False), (30, False), (31, True)])
def test_a_cursor_older_than_the_history_of_the_source(days: int, full: bool) -> None:
    """Older changes and deletes are no longer listed, so a full refresh is due."""
    now = times.now()
    entry = TableState(cursor=now - timedelta(days=days), listed_at=now).to_json()
    found = window(entry, 24 * 365, history=timedelta(days=30, minutes=1))
    assert found.full is full


def test_the_state_of_a_table_is_kept_as_it_is() -> None:
    """A key without a value is left out; a key of an older version is read, too."""
    entry = {
        "cursor": "2026-01-31T08:00:00Z",
        "listed_at": "2026-01-31T07:00:00Z",
        "rows": 0,
        "emptied": True,
        "miscount": -2,
        "unfinished": True,
    }
    for keys in ([], ["rows"], ["cursor", "emptied"], [*entry]):
        part = {key: entry[key] for key in keys}
        assert TableState.from_json({**part, "unheard_of": 1}).to_json() == part
    assert not TableState.from_json({}).is_known
    assert TableState.from_json({"rows": 0}).confirms_empty
    assert not TableState.from_json({"rows": 3}).confirms_empty


def test_how_far_back_a_connection_reads_is_fixed_once() -> None:
    """Before its first sync; a moment that is to come was written by a clock that was wrong."""
    state = State({}, ())
    fix_oldest(state, 90, NOW)
    assert state.values["oldest"] == times.to_text(NOW - timedelta(days=90))
    fix_oldest(state, 30, NOW + timedelta(days=1))
    assert state.values["oldest"] == times.to_text(NOW - timedelta(days=90))
    fix_oldest(state, 30, NOW - timedelta(days=91))
    assert state.values["oldest"] == times.to_text(NOW - timedelta(days=121))


def test_a_connection_that_reads_all_goes_on_to_do_so() -> None:
    """Whatever the setting says later."""
    state = State({}, ())
    for days in (None, 30):
        fix_oldest(state, days, NOW)
        assert state.values["oldest"] is None


def test_another_source_has_to_show_itself_that_it_is_empty_or_counts_wrongly() -> None:
    """What the last one was found to be, counts no more; what the destination has does."""
    kept = {"cursor": "2026-06-10T11:50:00Z", "rows": 7, "fingerprint": "abc"}
    known = {**kept, "listed_at": "2026-06-10T11:00:00Z", "emptied": True, "miscount": 2}
    saved: dict[str, Any] = {"version": 1, "tables": {"rooms": known}}
    state = State(saved, ())
    note_source(state, "https://one")
    assert state.table("rooms") == known
    note_source(state, "https://one")
    assert state.table("rooms") == known
    note_source(state, "https://two")
    assert state.table("rooms") == kept
    assert saved["tables"]["rooms"] == known


def test_the_oldest_moment_of_the_history_is_known() -> None:
    """Only what is before it is not."""
    with time_machine.travel(NOW, tick=False):
        history = timedelta(days=30)
        for more, full in ((timedelta(0), False), (timedelta(microseconds=1), True)):
            entry = TableState(cursor=NOW - history - more, listed_at=NOW).to_json()
            found = window(entry, 24, history=history)
            assert found.full is full
            assert found.covers(NOW - history - more) is not full
            assert found.covers(NOW + more) is not full


@pytest.mark.parametrize("more", ["", ". Put in new tokens"])
def test_a_state_of_another_version_says_what_to_do(more: str) -> None:
    """All of it, for no other sync will start."""
    with pytest.raises(ConnectorError) as error:
        State({"version": 2}, (), more) if more else State({"version": 2}, ())
    assert str(error.value) == (
        "The saved state is not one of version 1, which this connector understands: deploy the "
        "version that wrote it, or re-sync the connection" + more
    )
