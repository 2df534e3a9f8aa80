"""SenSource: the token, both forms of its records, ranges of days, late hours, metrics."""

import errno
import io
import json
import os
import re
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import date, datetime, timedelta, timezone
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import requests
import time_machine
from fivetran_connector_sdk import Operations
from hypothesis import given, strategies as st

from shared.errors import ConnectorError, SettingsError, TransientError
from shared.state import State
from tests.compare import assert_equal_to_source
from tests.contract.helpers import handed_over
from tests.sandbox.fivetran import Project, Result, load
from tests.sandbox.sensource import HOUR, SenSource
from tests.soak.crashes import Crash, Process
from tests.width import wide

DAY = timedelta(days=1)
NOON = datetime(2026, 6, 10, 12, tzinfo=timezone.utc)  # the clock of tests that need a known time
STATIC = ("location", "site", "zone", "space", "sensor")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project("sensource", tmp_path)


@pytest.fixture
def sandbox() -> Iterator[SenSource]:
    """A few days of hours, and one listing."""
    with small() as started:
        yield started


@pytest.fixture
def whole() -> Iterator[SenSource]:
    """All listings."""
    with small(endpoints=STATIC, spaces=2) as started:
        yield started


def small(**options: Any) -> SenSource:
    first = datetime.now(timezone.utc).date() - 5 * DAY
    return SenSource(**{"first": first, "zones": 3, "endpoints": ("zone",), **options})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[time_machine.Traveller]:
    """The clock stands at NOON at first. It runs, and moves on when a client waits or a test says
    so."""
    with time_machine.travel(NOON) as traveller:
        monkeypatch.setattr("shared.rest.pause", lambda closed, s: traveller.shift(s))
        yield traveller


@pytest.fixture
def dashboard(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The warnings on the dashboard."""
    shown: list[str] = []
    monkeypatch.setattr(Operations, "warning", shown.append)
    return shown


@pytest.fixture
def limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 hours of a first load may wait, and 1,000 of a full refresh."""
    load("sensource")
    monkeypatch.setattr("hours.STREAMED_FIRST_LOAD", 200)
    monkeypatch.setattr("hours.REPLACED_AT_ONCE", 1_000)


def synced(project: Project, sandbox: SenSource, **changes: str) -> Result:
    result = project.sync(sandbox.configuration(**changes))
    assert result.code == 0, result.output
    return result


def failed(project: Project, sandbox: SenSource, **changes: str) -> Result:
    result = project.sync(sandbox.configuration(**changes))
    assert result.code == 1, result.output
    return result


def asked(sandbox: SenSource, table: str = "traffic") -> list[tuple[date, date]]:
    """The days that were requested, in the order of the days."""
    return sorted(
        (date.fromisoformat(r.query["startDate"]), date.fromisoformat(r.query["endDate"]))
        for r in sandbox.requests
        if r.path == f"/api/data/{table}"
    )


def hours(project: Project, table: str = "traffic", **of: Any) -> set[tuple[str, datetime]]:
    entity = {"traffic": "zone_id", "occupancy": "space_id"}[table]
    rows = project.rows(table, **of)
    keys = {(row[entity], row["record_date_hour_1"].astimezone(timezone.utc)) for row in rows}
    assert len(keys) == len(rows)
    return keys


def traffic(zone: str, begin: datetime, count: int) -> list[dict[str, Any]]:
    """Records of so many hours of a zone."""
    return [
        {
            "recordDate_hour_1": (begin + n * HOUR).isoformat(),
            "zoneId": zone,
            "name": "North door",
            "sumins": n,
            "sumouts": n,
        }
        for n in range(count)
    ]


def respond_with(sandbox: SenSource, path: str, response: Any, **when: Any) -> None:
    """The JSON of the responses at ``path``, from now on or as ``when`` says."""
    what = {"times": None, "status": 200, "body": json.dumps(response), **when}
    sandbox.fault(path, headers={"Content-Type": "application/json"}, **what)


# Records


@pytest.mark.parametrize("shape", ["live", "documented"])
def test_both_forms_of_records(project: Project, shape: str) -> None:
    """The specification's payload and the live one give the same columns, with the right
    values."""
    with small(shape=shape, endpoints=STATIC) as sandbox:
        synced(project, sandbox)
        assert_equal_to_source(project, sandbox)


def test_the_types_of_metrics_come_from_their_names(project: Project, sandbox: SenSource) -> None:
    """Counts are LONG and averages DOUBLE, though averages arrive as text."""
    synced(project, sandbox)
    assert {k: v for k, v in project.types("traffic").items() if k.startswith("sum")} == {
        "sumins": "BIGINT",
        "sumouts": "BIGINT",
    }
    assert {k: v for k, v in project.types("occupancy").items() if "occupancy" in k} == {
        "maxoccupancy": "BIGINT",
        "minoccupancy": "BIGINT",
        "avgoccupancy": "DOUBLE",
    }
    assert project.types("traffic")["record_date_hour_1"] == "TIMESTAMP WITH TIME ZONE"


def test_fields_without_a_column_are_kept(project: Project, whole: SenSource) -> None:
    """No field that the source sent is dropped, and each keeps its name."""
    synced(project, whole)
    kept = {
        row["sensor_id"]: json.loads(row["additional_fields"]) for row in project.rows("sensor")
    }
    assert kept == {
        r["sensorId"]: {"serialNumber": r["serialNumber"]} for r in whole.records["sensor"]
    }
    assert {row["additional_fields"] for row in project.rows("traffic")} == {None}


def test_a_field_sent_under_both_names_is_not_lost(project: Project, whole: SenSource) -> None:
    """One fills the column, the other is kept in additional_fields."""
    whole.change("site", 0, location_id="another")
    synced(project, whole)
    record = whole.records["site"][0]
    [row] = [r for r in project.rows("site") if r["site_id"] == record["siteId"]]
    assert row["location_id"] == record["locationId"]
    assert json.loads(row["additional_fields"])["location_id"] == "another"


@pytest.mark.parametrize(
    ("field", "column"),
    [
        ("zoneId", "zone_id"),
        ("recordDate_hour_1", "record_date_hour_1"),
        ("locationTypeId", "location_type_id"),
        ("sumins", "sumins"),
        ("maxoccupancy", "maxoccupancy"),
        ("zone_id", "zone_id"),
    ],
)
def test_names_of_columns(field: str, column: str) -> None:
    """The specification's names of the vendor's fields."""
    assert load("sensource")._snake_case(field) == column


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("zoneId", None, "zone_id is missing"),
        ("zoneId", "", "zone_id is missing"),
        ("recordDate_hour_1", None, "record_date_hour_1 is missing"),
        ("recordDate_hour_1", "noon", "record_date_hour_1 does not fit its type UTC_DATETIME"),
    ],
)
def test_a_row_that_cannot_be_stored_is_reported(
    project: Project, sandbox: SenSource, field: str, value: Any, reason: str
) -> None:
    """It is named by its days and its position, never by a value; all others are stored."""
    zone = sandbox.records["zone"][0]["zoneId"]
    hour = sandbox.midnight(sandbox.first)
    rows = traffic(zone, hour, 12)
    rows[0][field] = value
    respond_with(sandbox, "/api/data/traffic", {"messages": [], "results": rows})
    result = synced(project, sandbox)
    days = f"{sandbox.first} to {sandbox.first + 7 * DAY}"
    assert f"traffic: 1 record skipped, first {days}, record 1: {reason}" in result.output
    assert "Records that cannot be stored were skipped: 1 of traffic" in result.output
    assert len(project.rows("traffic")) == 11


@pytest.mark.parametrize("value", [12.6, 2**63, *wide("many", True, [1])])
def test_a_count_that_is_none_costs_that_count(
    project: Project, sandbox: SenSource, dashboard: list[str], value: Any
) -> None:
    """The counts of a scaled zone are null, kept as sent, and reported; the other zones are stored
    as usual."""
    zone, other = (record["zoneId"] for record in sandbox.records["zone"][:2])
    begin = sandbox.midnight(sandbox.first)
    rows = [*traffic(zone, begin, 24), *traffic(other, begin, 24)]
    for row in rows[:24]:
        row["sumins"] = value
    respond_with(sandbox, "/api/data/traffic", {"messages": [], "results": rows})
    for _ in range(2):
        output = synced(project, sandbox).output
        assert "traffic: 24 values of sumins cannot be held by its type" in output
        stored = project.rows("traffic")
        assert [row["sumins"] for row in stored if row["zone_id"] == zone] == [None] * 24
        kept = [json.loads(r["additional_fields"]) for r in stored if r["zone_id"] == zone]
        assert kept == [{"sumins": value}] * 24
        assert {row["sumouts"] for row in stored} == {*range(24)}
        assert sum(row["sumins"] for row in stored if row["zone_id"] == other) == sum(range(24))
    assert [text for text in dashboard if "24 of traffic.sumins" in text] == dashboard
    assert len(dashboard) == 2
    assert project.state["tables"]["traffic"].keys() <= {"cursor", "start", "metrics", "days"}


def test_odd_values_of_static_tables_cost_no_record(
    project: Project, whole: SenSource, dashboard: list[str]
) -> None:
    """Flags are read in any of the usual words; a value that is no number or no date is null and
    kept."""
    for word in ("No", "YES", "0", "off"):
        whole.change("zone", 0, disabled=word)
        synced(project, whole)
        zone_id = whole.records["zone"][0]["zoneId"]
        [zone] = [row for row in project.rows("zone") if row["zone_id"] == zone_id]
        assert zone["disabled"] == (word == "YES")
    assert dashboard == []
    whole.change("zone", 0, disabled="perhaps")
    whole.change("location", 0, latitude="NaN", createdAt="0000-00-00 00:00:00")
    synced(project, whole)
    assert len(project.rows("zone")) == 3
    kept = {
        name: [json.loads(row["additional_fields"] or "{}") for row in project.rows(name)]
        for name in ("zone", "location")
    }
    assert {"disabled": "perhaps"} in kept["zone"]
    odd = {"latitude": "NaN", "createdAt": "0000-00-00 00:00:00"}
    assert odd in [{key: fields.get(key) for key in odd} for fields in kept["location"]]
    [shown] = dashboard
    assert "1 of location.latitude" in shown
    assert "1 of zone.disabled" in shown


@pytest.mark.parametrize("bare", [True, False])
def test_a_list_that_php_made_an_object_is_that_list(
    project: Project, whole: SenSource, bare: bool
) -> None:
    """Listings, results and messages may have the keys "0", "1" and so on."""
    for name in STATIC:
        records = {str(at): record for at, record in enumerate(whole.records[name])}
        respond_with(whole, f"/api/{name}", records if bare else {"results": records})
    zone = whole.records["zone"][0]["zoneId"]
    begin = whole.midnight(datetime.now(timezone.utc).date() - DAY)
    rows = {str(n): row for n, row in enumerate(traffic(zone, begin, 5))}
    respond_with(whole, "/api/data/traffic", {"messages": {}, "results": rows})
    for _ in range(2):
        synced(project, whole)
        for name in STATIC:
            expected = {record[f"{name}Id"] for record in whole.records[name]}
            assert {row[f"{name}_id"] for row in project.rows(name)} == expected
        assert len(project.rows("traffic")) == 5


@pytest.mark.parametrize("record", [None, 7, "text", [1]])
def test_what_is_no_record_is_reported(project: Project, whole: SenSource, record: Any) -> None:
    """The other records of the listing are stored."""
    whole.records["site"] *= 6
    body = json.dumps([*whole.records["site"], record])
    whole.fault("/api/site", status=200, body=body)
    assert "site: 1 record skipped" in synced(project, whole).output
    assert len(project.rows("site")) == 2


def test_hours_of_another_form_fail_and_the_cursor_stays(
    project: Project, sandbox: SenSource
) -> None:
    """More than a tenth is skipped; the next sync reads the mended hours."""
    record = {"zoneId": "z", "recordDate_day_1": "2026-01-01", "sumins": 3, "sumouts": 1}
    respond_with(sandbox, "/api/data/traffic", {"results": [record]})
    result = failed(project, sandbox)
    assert "record_date_hour_1 is missing. That is more than a tenth of 1" in result.output
    assert "traffic" not in project.state["tables"]
    sandbox.faults.clear()
    synced(project, sandbox)
    assert_equal_to_source(project, sandbox)


def test_a_tenth_is_counted_of_all_that_was_read(
    project: Project, sandbox: SenSource, clock: time_machine.Traveller
) -> None:
    """One bad record of a first, small chunk ends nothing; the cursor stays until enough valid
    records have come."""
    clock.move_to(NOON)
    bad = {"results": [{**traffic("z", NOON, 1)[0], "zoneId": None}]}
    begin = datetime(2026, 5, 8, 12, tzinfo=timezone.utc)
    known = {"start": "2026-05-01", "cursor": "2026-05-01", "metrics": ["sumins", "sumouts"]}
    state = {"version": 1, "tables": {"traffic": known}}
    days = {"start_date": "2026-05-01", "chunk_days": "7", "parallel_requests": "1"}
    respond_with(sandbox, "/api/data/traffic", bad, times=1)
    respond_with(sandbox, "/api/data/traffic", {"results": []}, times=1)
    refused = sandbox.fault("/api/data/traffic", times=None, status=403)
    assert project.sync(sandbox.configuration(**days), state).code == 1
    assert project.state["tables"]["traffic"] == known
    refused.times = 0
    respond_with(sandbox, "/api/data/traffic", bad, times=1)
    valid = {"results": traffic("z", begin, 24)}
    respond_with(sandbox, "/api/data/traffic", valid, times=1, skip=1)
    respond_with(sandbox, "/api/data/traffic", {"results": []}, skip=2)
    output = synced(project, sandbox, **days).output
    assert "traffic: 1 record skipped, first 2026-05-01 to 2026-05-08" in output
    assert project.state["tables"]["traffic"]["cursor"] == "2026-06-09"
    assert len(project.rows("traffic")) == 24


# Ranges of days


@given(
    st.dates(date(2000, 1, 1), date(2040, 1, 1)),
    st.integers(-5, 400),
    st.integers(1, 30),
)
def test_ranges_have_no_gap_and_no_overlap(start: date, length: int, days: int) -> None:
    """Each begins where the last one ended; together they are the whole time."""
    end = start + length * DAY
    ranges = list(load("sensource").generate_date_ranges(start, end, days))
    assert [day for first, last in ranges for day in _days(first, last)] == _days(start, end)
    assert all(first < last <= first + days * DAY for first, last in ranges)
    assert len(ranges) == -(-max(length, 0) // days)


def plan(entry: dict[str, Any], **changes: str) -> Any:
    """What is read of traffic from 1 May on, by settings with a look-back of two days."""
    given_settings = {"client_id": "i", "client_secret": "s", "start_date": "2026-05-01"}
    module = load("sensource")
    settings = module.validate_configuration({**given_settings, **changes})
    return module._plan("traffic", settings, entry, NOON.date())


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        ({"start": "2026-05-01", "cursor": "2026-06-09"}, ("06-07", "05-01", "06-09")),
        ({"start": "2026-04-01", "cursor": "2026-06-09"}, ("06-07", "04-01", "06-09")),
        ({"start": "2026-04-01", "cursor": "2026-05-02"}, ("05-01", "04-01", "05-02")),
        ({"start": "2026-04-01", "cursor": "2026-05-01"}, ("05-01", "04-01", "05-01")),
        ({"start": "2026-03-01", "cursor": "2026-04-30"}, ("05-01", "05-01", "04-30")),
        ({"start": "2026-05-01", "cursor": "2026-06-10"}, ("06-08", "05-01", "06-10")),
        ({"start": "2026-05-01", "cursor": "2026-06-11"}, ("05-01", "05-01", "05-01")),
        ({"start": "2026-05-02", "cursor": "2026-06-09"}, ("05-01", "05-01", "05-01")),
        ({"cursor": "2026-06-09"}, ("05-01", "05-01", "05-01")),
        ({}, ("05-01", "05-01", "05-01")),
    ],
)
def test_where_a_table_resumes(known: dict[str, Any], expected: tuple[str, str, str]) -> None:
    """At the cursor, less the look-back; at the first day if the known days have a gap."""
    found = plan({**known, "metrics": ["sumins", "sumouts"]})
    days = (found.begin, found.state.start, found.state.cursor)
    assert tuple(day.strftime("%m-%d") for day in days) == expected
    assert found.table.name == "traffic"


@pytest.mark.parametrize(
    ("metrics", "begin"), [("ins", 8), ("ins,outs", 8), ("ins(max)", 1), ("ins,outs,late", 1)]
)
def test_another_metric_begins_anew(metrics: str, begin: int) -> None:
    """Removing a metric does not."""
    entry = {"start": "2026-05-01", "cursor": "2026-05-10", "metrics": ["sumins", "sumouts"]}
    assert plan(entry, traffic_metrics=metrics).begin == date(2026, 5, begin)


@pytest.mark.parametrize(
    ("cursor", "end", "expected"),
    [(1, 5, 5), (1, 9, 9), (1, 10, 9), (1, 12, 9), (9, 8, 9), (10, 12, 10)],
)
def test_the_cursor_of_a_chunk(cursor: int, end: int, expected: int) -> None:
    """The days before it are stored and over; it never moves back."""
    entry = {"start": "2026-05-01", "cursor": f"2026-06-{cursor:02d}", "metrics": ["sumins"]}
    found = plan(entry, traffic_metrics="ins")
    assert found.after(date(2026, 6, end), NOON.date(), "").to_json() == {
        "cursor": f"2026-06-{expected:02d}",
        "start": "2026-05-01",
        "metrics": ["sumins"],
    }


def test_the_chunks_of_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """From its first day on, up to two days after today."""
    monkeypatch.setattr(load("sensource"), "fetch_data", lambda *arguments: arguments[2:])
    found = replace(plan({}), begin=date(2026, 6, 1))
    calls = load("sensource")._chunks(None, found, 3, date(2026, 6, 6))
    chunks = [call() for call in calls]
    assert [(first.day, end.day) for first, end in chunks] == [(1, 4), (4, 7), (7, 8)]


def test_metrics_and_their_columns() -> None:
    """A name alone is a sum; an average has a fraction; each metric is named once."""
    found = plan({}, traffic_metrics="ins, a_1(min),a_1(max),b(avg),c(count)").metrics
    assert [tuple(metric) for metric in found] == [
        ("ins", "sumins", "LONG"),
        ("a_1(min)", "mina_1", "LONG"),
        ("a_1(max)", "maxa_1", "LONG"),
        ("b(avg)", "avgb", "DOUBLE"),
        ("c(count)", "countc", "LONG"),
    ]
    for wrong in ("ins,ins", "ins, ins", "a(sum)", "a()", ",", "Ins", "1a", "a b"):
        with pytest.raises(SettingsError, match=r"traffic_metrics must be metrics as name, name"):
            plan({}, traffic_metrics=wrong)


def _days(start: date, end: date) -> list[date]:
    return [start + n * DAY for n in range((end - start).days)]


@pytest.mark.parametrize("zone", ["America/New_York", *wide("UTC", "Asia/Kathmandu")])
def test_every_hour_of_100_days_is_there(project: Project, zone: str) -> None:
    """Across the borders of chunks, and across a night that lacks an hour (New York, 8 March)."""
    first = date(2026, 1, 20)
    with small(first=first, days=100, account_zone=zone) as sandbox:
        synced(project, sandbox)
        begin, end = sandbox.midnight(first), sandbox.midnight(first + 100 * DAY)
        count = 2_399 if zone == "America/New_York" else 2_400
        every = {begin + n * HOUR for n in range(count)}
        assert max(every) == end - HOUR
        zones = {record["zoneId"] for record in sandbox.records["zone"]}
        spaces = {record["spaceId"] for record in sandbox.records["space"]}
        assert hours(project) == {(zone_id, hour) for zone_id in zones for hour in every}
        assert hours(project, "occupancy") == {(s, hour) for s in spaces for hour in every}
        assert_equal_to_source(project, sandbox)


def test_the_ranges_that_are_requested(project: Project, clock: time_machine.Traveller) -> None:
    """30 days each, without a gap, to two days after today; one table after the other."""
    with small(zones=1, first=date(2026, 4, 1)) as sandbox:
        synced(project, sandbox, parallel_requests="1")
        assert asked(sandbox) == [
            (date(2026, 4, 1), date(2026, 5, 1)),
            (date(2026, 5, 1), date(2026, 5, 31)),
            (date(2026, 5, 31), date(2026, 6, 12)),
        ]
        assert asked(sandbox, "occupancy") == asked(sandbox)
        assert sandbox.paths("/api/data/") == [
            *["/api/data/traffic"] * 3,
            *["/api/data/occupancy"] * 3,
        ]
        assert sandbox.requests[-1].query == {
            "relativeDate": "custom",
            "startDate": "2026-05-31",
            "endDate": "2026-06-12",
            "dateGroupings": "hour",
            "entityType": "space",
            "metrics": "occupancy(max),occupancy(min),occupancy(avg)",
        }


def test_the_days_of_a_request_can_be_fewer(
    project: Project, clock: time_machine.Traveller
) -> None:
    """`chunk_days` makes responses smaller, for accounts with many zones."""
    with small(first=date(2026, 6, 1)) as sandbox:
        synced(project, sandbox, chunk_days="4")
        assert asked(sandbox) == [
            (date(2026, 6, day), date(2026, 6, min(day + 4, 12))) for day in (1, 5, 9)
        ]
        assert_equal_to_source(project, sandbox)


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12", *wide("Asia/Kathmandu")])
@pytest.mark.parametrize("hour", [0, *wide(11)])
@pytest.mark.parametrize("pause", [1, 30])
def test_today_is_inside_in_every_zone(
    project: Project, clock: time_machine.Traveller, zone: str, hour: int, pause: int
) -> None:
    """Also without a look-back: the second sync brings hours that were counted after the first."""
    clock.move_to(NOON.replace(hour=hour))
    with small(first=date(2026, 6, 5), zones=1, spaces=1, account_zone=zone) as sandbox:
        synced(project, sandbox, lookback_days="0")
        assert_equal_to_source(project, sandbox)
        last = max(hour for _, hour in sandbox.hours["traffic"])
        for n in range(1, pause + 1):
            sandbox.count(last + n * HOUR)
        clock.shift(pause * 3600)
        synced(project, sandbox, lookback_days="0")
        assert_equal_to_source(project, sandbox)


@pytest.mark.parametrize("lookback", [0, 2, 30])
def test_every_sync_reads_the_look_back_again(
    project: Project, clock: time_machine.Traveller, lookback: int
) -> None:
    """The read begins so many days before yesterday, which may not have been over; no earlier day
    is requested."""
    with small(zones=1, first=date(2026, 4, 1)) as sandbox:
        synced(project, sandbox)
        for _ in range(2):
            sandbox.requests.clear()
            synced(project, sandbox, lookback_days=str(lookback))
            assert asked(sandbox)[0][0] == date(2026, 6, 9) - lookback * DAY
        assert asked(sandbox) == asked(sandbox, "occupancy")
        assert project.state["tables"]["traffic"]["cursor"] == "2026-06-09"


def test_late_hours_inside_the_look_back_arrive(
    project: Project, clock: time_machine.Traveller
) -> None:
    """A sensor that was offline sends its hours later, and the current hour still changes."""
    with small(first=date(2026, 5, 1)) as sandbox:
        offline_from = sandbox.midnight(date(2026, 6, 7))
        held = sandbox.withhold(0, offline_from)
        synced(project, sandbox)
        assert_equal_to_source(project, sandbox)
        assert len(held) > 48
        sandbox.hours["traffic"].update(held)
        sandbox.change_something()
        result = synced(project, sandbox)
        assert held.keys() <= hours(project)
        assert_equal_to_source(project, sandbox)
        assert result.counts["Upserts"] < 700  # of 5,000 at the source


def test_an_hour_of_the_past_comes_to_a_connection_that_was_paused(
    project: Project, clock: time_machine.Traveller
) -> None:
    """The look-back counts from the last sync, not from today."""
    with small(first=date(2026, 5, 1)) as sandbox:
        synced(project, sandbox)
        last = max(hour for _, hour in sandbox.hours["traffic"])
        for n in range(1, 24 * 45):
            sandbox.count(last + n * HOUR)
        clock.shift(45 * DAY)
        synced(project, sandbox)
        assert_equal_to_source(project, sandbox)


# The first day


@pytest.mark.parametrize(
    ("start", "requests_"),
    [("2026-06-10", 1), ("2026-06-11", 1), ("2026-06-12", 0), ("9999-12-31", 0)],
)
def test_a_start_today_or_in_the_future(
    project: Project, clock: time_machine.Traveller, start: str, requests_: int
) -> None:
    """The sync succeeds, the listings are there, and the hours come when their day does."""
    with small(first=date(2026, 6, 8)) as sandbox:
        for _ in range(2):
            sandbox.requests.clear()
            synced(project, sandbox, start_date=start)
            assert len(asked(sandbox)) == requests_
        assert len(project.rows("zone")) == 3
        clock.move_to(NOON + 4 * DAY)
        sandbox.count(NOON + 4 * DAY)
        synced(project, sandbox, start_date=start)
        since = sandbox.midnight(min(date.fromisoformat(start), date(2100, 1, 1)))
        assert hours(project) == {key for key in sandbox.hours["traffic"] if key[1] >= since}


@pytest.mark.parametrize("present", ["2024-02-28", "2024-02-29", "2024-03-01"])
def test_a_leap_day(project: Project, clock: time_machine.Traveller, present: str) -> None:
    """As the first day, as today, and in the middle."""
    clock.move_to(f"{present}T15:00:00+00:00")
    with small(first=date(2024, 2, 27)) as sandbox:
        synced(project, sandbox)
        synced(project, sandbox, start_date="2024-02-29")
        assert_equal_to_source(project, sandbox)


def test_an_earlier_start_reads_all_days_since_then(
    project: Project, clock: time_machine.Traveller
) -> None:
    """The state holds the day from which on the table is whole; the hours stay meanwhile."""
    with small(zones=1, first=date(2026, 3, 1)) as sandbox:
        synced(project, sandbox, start_date="2026-05-20")
        result = synced(project, sandbox)
        assert_equal_to_source(project, sandbox)
        assert result.counts["Truncates"] == 0
        sandbox.requests.clear()
        synced(project, sandbox, start_date="2026-04-01")  # later again: nothing is missing
        synced(project, sandbox)
        assert {start for start, _ in asked(sandbox)} == {date(2026, 6, 7)}


def test_a_later_start_and_back_leaves_no_hole(
    project: Project, clock: time_machine.Traveller
) -> None:
    """Days that a later start left out are read when the start is earlier again."""
    with small(zones=1, first=date(2026, 4, 1)) as sandbox:
        sandbox.fault("/api/data/traffic", skip=1, times=None, status=403)
        failed(project, sandbox, parallel_requests="1")
        assert project.state["tables"]["traffic"]["cursor"] == "2026-05-01"
        sandbox.faults.clear()
        synced(project, sandbox, start_date="2026-06-01")
        missing = set(sandbox.hours["traffic"]) - hours(project)
        assert missing
        synced(project, sandbox)
        assert_equal_to_source(project, sandbox)


def test_a_clock_that_was_ahead(project: Project, clock: time_machine.Traveller) -> None:
    """The cursor of such a sync proves nothing, so all days are read again from the first one
    on."""
    with small(first=date(2026, 5, 1)) as sandbox:
        clock.shift(400 * DAY)
        synced(project, sandbox)
        clock.move_to(NOON + 2 * DAY)
        for n in range(1, 48):
            sandbox.count(NOON + n * HOUR)
        sandbox.requests.clear()
        synced(project, sandbox)
        assert asked(sandbox)[0][0] == date(2026, 5, 1)
        assert_equal_to_source(project, sandbox)
        assert project.state["tables"]["traffic"]["cursor"] == "2026-06-11"


# Cursors


def test_a_chunk_that_fails_keeps_what_came_before(
    project: Project, clock: time_machine.Traveller
) -> None:
    """Each table has its own cursor, and a checkpoint after each chunk."""
    with small(zones=1, first=date(2026, 3, 1)) as sandbox:
        sandbox.fault("/api/data/occupancy", skip=1, times=None, status=403)
        failed(project, sandbox, parallel_requests="1")
        entries = project.state["tables"]
        assert entries["traffic"]["cursor"] == "2026-06-09"
        assert entries["occupancy"]["cursor"] == "2026-03-31"
        assert hours(project) == set(sandbox.hours["traffic"])
        first, last = (sandbox.midnight(date(2026, 3, day)) for day in (1, 31))
        assert {hour for _, hour in hours(project, "occupancy")} == {
            first + n * HOUR for n in range((last - first) // HOUR)
        }
        sandbox.faults.clear()
        sandbox.requests.clear()
        synced(project, sandbox, lookback_days="0")
        assert asked(sandbox)[0][0] == date(2026, 6, 9)
        assert asked(sandbox, "occupancy")[0][0] == date(2026, 3, 31)
        assert_equal_to_source(project, sandbox)


@pytest.mark.posix
@pytest.mark.parametrize(
    ("known", "request_number", "parallel"),
    [
        (False, 5, "4"),  # hours wait
        (True, 5, "1"),  # nothing waits
        *wide((False, 0, "4"), (True, 5, "4")),
        *wide((False, 10, "1")),  # those of the other table
    ],
)
def test_killed_in_the_hours_the_next_sync_resumes(
    project: Project, known: bool, request_number: int, parallel: str
) -> None:
    """kill -9 in a load: the next process begins at the checkpoint, and all hours are there."""
    first = datetime.now(timezone.utc).date() - 85 * DAY
    with small(zones=1, first=first) as sandbox:
        entry = {"cursor": f"{first}", "start": f"{first}", "metrics": ["sumins", "sumouts"]}
        tables = {"traffic": entry} if known else {}
        running: list[Any] = []
        sandbox.fault(
            "/api/data/",
            skip=request_number,
            act=lambda: os.kill(running[0].pid, signal.SIGKILL),
        )
        settings = {"parallel_requests": parallel, "chunk_days": "10"}
        with sandbox.lock:
            state = {"version": 1, "tables": tables} if known else None
            running.append(project.start(sandbox.configuration(**settings), state))
        running[0].communicate(timeout=60)
        assert running[0].returncode == -signal.SIGKILL
        sandbox.faults.clear()
        sandbox.requests.clear()
        cursor = project.state.get("tables", {}).get("traffic", {}).get("cursor")
        synced(project, sandbox, lookback_days="0")
        assert_equal_to_source(project, sandbox)
        begun = asked(sandbox)[0][0]
        assert begun == (date.fromisoformat(cursor) if cursor else first)
        if known:
            # Only requests that were sent or waited to be stored are repeated.
            assert begun <= first + request_number * 10 * DAY
            assert parallel == "4" or begun > first
        else:
            assert (begun > first) == (request_number == 10)


def test_a_look_back_that_breaks_off_takes_no_cursor_back(
    project: Project, clock: time_machine.Traveller
) -> None:
    """Chunks of the look-back are older than the cursor, which stays."""
    with small(zones=1, first=date(2026, 5, 1)) as sandbox:
        synced(project, sandbox)
        sandbox.fault("/api/data/traffic", skip=2, times=None, status=403)
        failed(project, sandbox, lookback_days="20", chunk_days="5")
        assert project.state["tables"]["traffic"]["cursor"] == "2026-06-09"
        sandbox.faults.clear()
        sandbox.requests.clear()
        synced(project, sandbox)
        assert asked(sandbox)[0][0] == date(2026, 6, 7)


def test_a_sync_that_fails_reports_its_skipped_records(
    project: Project, sandbox: SenSource
) -> None:
    """A later failure does not hide them."""
    sandbox.records["zone"] *= 6
    body = json.dumps([*sandbox.records["zone"], {"name": "without an id"}])
    sandbox.fault("/api/zone", status=200, body=body)
    sandbox.fault("/api/data/", times=None, status=403)
    output = failed(project, sandbox).output
    assert "Records that cannot be stored were skipped: 1 of zone" in output


def test_a_resync_deletes_what_is_gone(project: Project, sandbox: SenSource) -> None:
    """A first load replaces the table, so rows from before the re-sync do not stay."""
    synced(project, sandbox)
    zone = sandbox.records["zone"][0]["zoneId"]
    for key in [key for key in sandbox.hours["traffic"] if key[0] == zone]:
        del sandbox.hours["traffic"][key]
    assert project.sync(sandbox.configuration(), {}).code == 0
    assert_equal_to_source(project, sandbox)
    assert {zone_id for zone_id, _ in hours(project, deleted=True)} == {zone}


def remove_a_day(sandbox: SenSource) -> set[tuple[str, datetime]]:
    """Removes the hours of the first day from the source; returns their keys."""
    end = sandbox.midnight(sandbox.first) + DAY
    gone = {key for key in sandbox.hours["traffic"] if key[1] < end}
    for key in gone:
        del sandbox.hours["traffic"][key]
    assert gone
    return gone


def resynced(project: Project, sandbox: SenSource, **changes: str) -> Result:
    """A re-sync, as the platform does it: with an empty state."""
    return project.sync(sandbox.configuration(**changes), {})


@pytest.mark.parametrize("skip", [0, 1, 2])
def test_a_resync_that_breaks_off_deletes_nothing(
    project: Project, clock: time_machine.Traveller, skip: int
) -> None:
    """The hours before the failure are stored, and the cursor moved. Once the load is over, a full
    refresh deletes what is gone."""
    with small(first=date(2026, 6, 1)) as sandbox:
        synced(project, sandbox)
        before, gone = hours(project), remove_a_day(sandbox)
        sandbox.change_something()
        sandbox.fault("/api/data/traffic", skip=skip, times=None, status=403)
        result = resynced(project, sandbox, chunk_days="3", parallel_requests="1")
        assert result.code == 1
        assert result.counts["Truncates"] == 2  # the listing, and occupancy
        assert hours(project) >= before
        entry = project.state["tables"].get("traffic", {})
        assert entry.get("cursor") == (f"2026-06-0{1 + 3 * skip}" if skip else None)
        assert entry.get("load") == ("unfinished" if skip else None)
        sandbox.faults.clear()
        sandbox.requests.clear()
        synced(project, sandbox, lookback_days="0")
        assert asked(sandbox)[0][0] == date(2026, 6, 1 + 3 * skip)
        if skip:
            assert hours(project) == set(sandbox.hours["traffic"]) | gone
            synced(project, sandbox)
        assert_equal_to_source(project, sandbox)
        assert hours(project, deleted=True) == gone
        sandbox.requests.clear()
        synced(project, sandbox)
        assert asked(sandbox)[0][0] == date(2026, 6, 7)


def test_a_resync_of_many_hours_is_streamed_and_deletes_nothing(
    project: Project, clock: time_machine.Traveller, limits: None, dashboard: list[str]
) -> None:
    """It checkpoints; the next sync reads all hours and replaces the table in one step."""
    with small(first=date(2026, 6, 5)) as sandbox:
        for _ in range(2):
            synced(project, sandbox)
        gone = remove_a_day(sandbox)
        result = resynced(project, sandbox, chunk_days="1")
        assert result.code == 0, result.output
        assert result.counts["Truncates"] == 2  # the listing, and occupancy
        assert result.counts["Checkpoints"] > 5
        assert hours(project) == set(sandbox.hours["traffic"]) | gone
        assert "traffic: more than 200 hours" in result.output
        assert dashboard == []
        sandbox.requests.clear()
        synced(project, sandbox)
        assert asked(sandbox)[0][0] == date(2026, 6, 5)
        assert_equal_to_source(project, sandbox)
        assert hours(project, deleted=True) == gone
        sandbox.requests.clear()
        synced(project, sandbox)
        assert asked(sandbox)[0][0] == date(2026, 6, 7)


def test_a_table_of_too_many_hours_is_not_replaced(
    project: Project, clock: time_machine.Traveller, limits: None, dashboard: list[str]
) -> None:
    """Its full refresh is streamed, too; the dashboard says so once."""
    with small(first=date(2026, 5, 10)) as sandbox:
        synced(project, sandbox)
        gone = remove_a_day(sandbox)
        assert dashboard == []
        result = synced(project, sandbox, chunk_days="2")
        assert result.counts["Truncates"] == 1  # of occupancy
        [shown] = dashboard
        assert "traffic: more than 1000 hours" in shown
        assert "deletes were not looked for" in shown
        assert hours(project) == set(sandbox.hours["traffic"]) | gone
        assert synced(project, sandbox).counts["Upserts"] < 500
        assert len(dashboard) == 1


def test_a_full_refresh_that_breaks_off_keeps_no_hour_back(
    project: Project, clock: time_machine.Traveller, limits: None
) -> None:
    """The next sync resumes from the cursor; the one after that is a full refresh again."""
    with small(first=date(2026, 6, 1), zones=1) as sandbox:
        synced(project, sandbox)
        gone = remove_a_day(sandbox)
        sandbox.fault("/api/data/traffic", skip=1, times=None, status=403)
        result = failed(project, sandbox, chunk_days="3")
        assert result.counts["Truncates"] == 1  # of occupancy
        assert project.state["tables"]["traffic"]["cursor"] == "2026-06-09"
        sandbox.faults.clear()
        sandbox.change_something()
        for begin in (7, 1, 7):
            sandbox.requests.clear()
            synced(project, sandbox)
            assert asked(sandbox)[0][0] == date(2026, 6, begin)
            assert set(sandbox.hours["traffic"]) <= hours(project)
        assert_equal_to_source(project, sandbox)
        assert hours(project, deleted=True) == gone


def test_a_first_load_without_room_to_wait_passes_no_hour(
    project: Project, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hours that found no room are not behind the cursor: the next sync reads them."""
    full = OSError(errno.ENOSPC, "no space")
    with small(first=date(2026, 5, 1), zones=1) as sandbox:
        with monkeypatch.context() as patches:
            patches.setattr("shared.spool._IN_MEMORY", 20_000)
            patches.setattr(tempfile, "TemporaryFile", Mock(side_effect=full))
            output = failed(project, sandbox, chunk_days="3", parallel_requests="1").output
        assert "traffic: the disk of" in output
        stored = hours(project)
        assert 0 < len(stored) < len(sandbox.hours["traffic"])
        cursor = date.fromisoformat(project.state["tables"]["traffic"]["cursor"])
        before = {key for key in sandbox.hours["traffic"] if key[1] < sandbox.midnight(cursor)}
        assert before <= stored
        synced(project, sandbox)
        assert_equal_to_source(project, sandbox)


@pytest.mark.parametrize("load", ["first", "unproven"])
def test_a_replacement_that_cannot_be_read_back_empties_no_table(
    project: Project, clock: time_machine.Traveller, monkeypatch: pytest.MonkeyPatch, load: str
) -> None:
    """The disk fails when the table is emptied and the hours that wait are needed: no checkpoint
    follows, so that the destination keeps what it had."""
    with small(first=date(2026, 6, 1), zones=1) as sandbox:
        synced(project, sandbox)
        before, tables = hours(project), dict(project.state["tables"])
        tables.pop("traffic")
        if load == "unproven":
            tables["traffic"] = {**project.state["tables"]["traffic"], "load": load}
        with monkeypatch.context() as patches:
            patches.setattr("shared.spool._IN_MEMORY", 0)
            patches.setattr(tempfile, "TemporaryFile", Unreadable)
            state = {**project.state, "tables": tables}
            result = project.sync(sandbox.configuration(), state)
        assert result.code == 1
        assert "fails (EIO)" in result.output
        assert hours(project) == before
        assert project.state["tables"].get("traffic", {}).get("load", "first") == load
        synced(project, sandbox)
        assert_equal_to_source(project, sandbox)


class Unreadable(io.BytesIO):
    def read(self, size: int | None = -1) -> bytes:
        raise OSError(errno.EIO, "damaged")


def test_a_resync_that_finds_no_hours_deletes_none(
    project: Project, clock: time_machine.Traveller
) -> None:
    """The next sync reads all days once more: a client that lost its rights may see none."""
    with small(first=date(2026, 6, 1)) as sandbox:
        synced(project, sandbox)
        before = dict(sandbox.hours["traffic"])
        sandbox.hours["traffic"].clear()
        assert resynced(project, sandbox).code == 0
        assert hours(project) == set(before)
        sandbox.hours["traffic"].update(before)
        gone = remove_a_day(sandbox)
        synced(project, sandbox)
        assert_equal_to_source(project, sandbox)
        assert hours(project, deleted=True) == gone
        sandbox.hours["traffic"].clear()
        assert resynced(project, sandbox).code == 0
        for begin in (1, 7):
            sandbox.requests.clear()
            synced(project, sandbox)
            assert asked(sandbox)[0][0] == date(2026, 6, begin)


@pytest.mark.parametrize("stays", [True, False])
def test_a_resync_that_skips_a_record_deletes_nothing(
    project: Project, clock: time_machine.Traveller, dashboard: list[str], stays: bool
) -> None:
    """The hour of that record may exist; the full refresh that follows deletes nothing either if
    it skips the record again."""
    with small(first=date(2026, 6, 1), zones=1) as sandbox:
        synced(project, sandbox)
        begin, zone = sandbox.midnight(sandbox.first), sandbox.records["zone"][0]["zoneId"]
        rows = traffic(zone, begin, 24)
        broken = [{**rows[0], "recordDate_hour_1": "soon"}, *rows[1:20]]
        respond_with(sandbox, "/api/data/traffic", {"results": broken}, times=1 + stays)
        before = hours(project)
        assert resynced(project, sandbox).code == 0
        assert hours(project) == before
        [skipped] = [text for text in dashboard if text.startswith("traffic: ")]
        assert skipped == (
            "traffic: 1 of 20 records were skipped. The rows were stored, but nothing was "
            "replaced: deletes were not looked for. The next sync is a full refresh"
        )
        result = synced(project, sandbox)
        assert result.counts["Truncates"] == (0 if stays else 1)
        assert sum(text.startswith("traffic: ") for text in dashboard) == 1 + stays
        assert hours(project) == before
        sandbox.requests.clear()
        synced(project, sandbox)
        assert asked(sandbox)[0][0] == date(2026, 6, 7)


def test_days_before_a_later_start_are_not_deleted(
    project: Project, clock: time_machine.Traveller, limits: None
) -> None:
    """A full refresh that is due reads from the first day that the table has; if that day is not
    known, there is no full refresh."""
    alone = {"enable_occupancy_sync": "false"}
    with small(first=date(2026, 6, 1), zones=1) as sandbox:
        every = set(sandbox.hours["traffic"])
        synced(project, sandbox, **alone)
        assert project.state["tables"]["traffic"]["load"] == "unproven"
        result = synced(project, sandbox, start_date="2026-06-08", **alone)
        assert result.counts["Truncates"] == 1  # of traffic
        assert hours(project) == every
        sandbox.fault("/api/data/traffic", skip=1, times=None, status=403)
        resynced(project, sandbox, chunk_days="3", parallel_requests="1", **alone)
        assert project.state["tables"]["traffic"]["load"] == "unfinished"
        sandbox.faults.clear()
        for _ in range(2):
            result = synced(project, sandbox, start_date="2026-06-06", **alone)
            assert result.counts["Truncates"] == 0
        assert hours(project) == every


def test_a_second_sync_sends_what_changed_in_the_look_back_and_no_more(
    project: Project, clock: time_machine.Traveller
) -> None:
    """The days in UTC that changed, of four days of 41, and at first the one that is read in part
    only, since it began in the account's day before."""
    with small(first=date(2026, 4, 30)) as sandbox:
        first = synced(project, sandbox)
        again = synced(project, sandbox)
        since = sandbox.midnight(date(2026, 6, 7))
        recent = [hour for table in sandbox.hours.values() for _, hour in table if hour >= since]
        in_part = sum(hour.date() == since.date() for hour in recent)
        assert again.counts["Upserts"] == in_part < len(recent) / 4
        assert len(recent) * 8 < first.counts["Upserts"]
        assert synced(project, sandbox).counts["Upserts"] == 0
        key = next(key for key in sandbox.hours["traffic"] if key[1] >= since + timedelta(days=2))
        sandbox.hours["traffic"][key]["ins"] += 7
        of_day = sum(hour.date() == key[1].date() for _, hour in sandbox.hours["traffic"])
        assert synced(project, sandbox).counts["Upserts"] == of_day
        assert_equal_to_source(project, sandbox)
        assert synced(project, sandbox).counts["Upserts"] == 0


@pytest.mark.parametrize("days", ["1", "2", "30"])
def test_days_of_the_look_back_are_known_whatever_is_asked_for_at_once(
    project: Project, clock: time_machine.Traveller, days: str
) -> None:
    """What did not change is not sent where a request has the whole day in UTC; what changed
    arrives, also when it goes back to what it was, and at a longer look-back."""
    how = {"chunk_days": days, "lookback_days": "30"}
    with small(first=date(2026, 5, 20), zones=1) as sandbox:
        synced(project, sandbox, chunk_days=days)
        before = dict(sandbox.hours["traffic"])
        for _ in range(2):
            for key in before:
                if key[1].hour == 9:
                    sandbox.hours["traffic"][key] = {"ins": 1, "outs": 2}
            synced(project, sandbox, **how)
            assert_equal_to_source(project, sandbox)
            sandbox.hours["traffic"].update(before)
            clock.shift(timedelta(hours=9))
            synced(project, sandbox, **how)
            assert_equal_to_source(project, sandbox)
        synced(project, sandbox, **how)
        sent = synced(project, sandbox, **how).counts["Upserts"]
        assert (sent == 0) == (days == "30")


def test_a_killed_sync_leaves_no_day_that_is_not_so(
    project: Project, clock: time_machine.Traveller
) -> None:
    """Between the hours and the state of a checkpoint; then the source has what it had before."""
    with small(first=date(2026, 6, 1), zones=1) as sandbox:
        synced(project, sandbox)
        before = {key: dict(counts) for key, counts in sandbox.hours["traffic"].items()}
        for number in range(1, 6):
            for key in before:
                sandbox.hours["traffic"][key] = {"ins": number, "outs": number}
            with Process("in-checkpoint", number).running(), suppress(Crash):
                project.sync(sandbox.configuration())
            sandbox.calm()
            sandbox.hours["traffic"] = {key: dict(counts) for key, counts in before.items()}
            synced(project, sandbox, lookback_days="30")
            assert_equal_to_source(project, sandbox)


@pytest.mark.parametrize("text", ["?", "AAAA", "AAAAAAAAAAAAAAAAAAAAAA==", "/////////////w==", 7])
def test_days_of_another_form_tell_nothing(
    project: Project, clock: time_machine.Traveller, text: Any
) -> None:
    """All hours of the look-back are sent."""
    with small(first=date(2026, 6, 1), zones=1) as sandbox:
        synced(project, sandbox)
        state = project.state
        state["tables"]["traffic"]["days"] = text
        result = project.sync(sandbox.configuration(enable_occupancy_sync="false"), state)
        since = sandbox.midnight(date(2026, 6, 7))
        recent = sum(hour >= since for _, hour in sandbox.hours["traffic"])
        assert result.counts["Upserts"] == recent


@pytest.mark.parametrize(
    "changes",
    [
        *({key: None} for key in ("cursor", "metrics")),
        {"cursor": "soon"},
        {"start": []},
        {"metrics": "sumins"},
        {"metrics": [5]},
        {"load": True},
        {"load": "other"},
    ],
)
def test_hours_in_the_state_of_another_form_are_an_error(changes: dict[str, Any]) -> None:
    """Before anything is requested, by an error that says what to do."""
    known = {"start": "2026-05-01", "cursor": "2026-05-01", "metrics": ["sumins"], **changes}
    entry = {key: value for key, value in known.items() if value is not None}
    with pytest.raises(ConnectorError, match=r"not one of .* \(its table traffic\).* or re-sync"):
        State(
            {"version": 1, "tables": {"traffic": entry}},
            (),
            read_entry=load("sensource")._read_entry,
        )


def test_a_cursor_of_the_first_year_begins_anew(
    project: Project, clock: time_machine.Traveller
) -> None:
    """No look-back can be subtracted from it."""
    known = {"start": "0001-01-01", "cursor": "0001-01-01", "metrics": ["sumins", "sumouts"]}
    state = {"version": 1, "tables": {"traffic": known}}
    with small(first=date(2026, 6, 1), zones=1) as sandbox:
        result = project.sync(sandbox.configuration(), state)
        assert result.code == 0, result.output
        assert_equal_to_source(project, sandbox)


def test_two_records_of_one_hour_tell_nothing_of_their_day(
    project: Project, clock: time_machine.Traveller, sandbox: SenSource
) -> None:
    """The later one counts, whatever order they come in."""
    zone = sandbox.records["zone"][0]["zoneId"]
    rows = traffic(zone, datetime(2026, 6, 9, tzinfo=timezone.utc), 24)
    other = {**rows[3], "sumins": 77}
    for first, last in ((other, rows[3]), (rows[3], other), (other, rows[3])):
        sandbox.faults.clear()
        results = [*rows[:3], first, last, *rows[4:]]
        respond_with(sandbox, "/api/data/traffic", {"results": results})
        synced(project, sandbox, enable_occupancy_sync="false")
        assert {row["sumins"] for row in project.rows("traffic")} == {
            row["sumins"] for row in [*rows[:3], last, *rows[4:]]
        }


# Metrics and endpoints


def test_a_metric_that_is_added_is_read_from_the_first_day(
    project: Project, clock: time_machine.Traveller
) -> None:
    """A column is whole, or it does not exist; the other table resumes from its cursor."""
    with small(zones=1, first=date(2026, 5, 1)) as sandbox:
        synced(project, sandbox, traffic_metrics="ins")
        assert "sumouts" not in project.types("traffic")
        sandbox.requests.clear()
        synced(project, sandbox)
        assert_equal_to_source(project, sandbox)
        assert asked(sandbox)[0][0] == date(2026, 5, 1)
        assert asked(sandbox, "occupancy")[0][0] == date(2026, 6, 7)


def test_a_metric_that_is_removed_needs_no_read(
    project: Project, clock: time_machine.Traveller
) -> None:
    """When it comes back, the days without it are read."""
    with small(zones=1, first=date(2026, 5, 1)) as sandbox:
        synced(project, sandbox)
        sandbox.requests.clear()
        synced(project, sandbox, traffic_metrics="outs")
        assert asked(sandbox)[0][0] == date(2026, 6, 7)
        synced(project, sandbox, traffic_metrics=" ins , outs ")
        assert asked(sandbox)[0][0] == date(2026, 5, 1)
        assert_equal_to_source(project, sandbox)


@pytest.mark.parametrize(
    "value",
    [
        "ins outs",
        "ins,",
        ",ins",
        "ins,ins",
        "ins,,outs",
        "occupancy()",
        "occupancy(max",
        "occupancy(most)",
        "(outs)",
        "ins;drop",
        "1ns",
        "ïns",
    ],
)
@pytest.mark.parametrize("key", ["traffic_metrics", "occupancy_metrics"])
def test_metrics_are_checked_for_form(
    project: Project, sandbox: SenSource, key: str, value: str
) -> None:
    """The error names the key and not the value, and nothing is requested."""
    result = failed(project, sandbox, **{key: value})
    assert f"{key} must be metrics as name" in result.output
    assert value not in result.output
    assert sandbox.requests == []


@pytest.mark.parametrize("value", ["locations", "location,location", "location zone", "zone,"])
def test_endpoints_are_checked_against_the_five(
    project: Project, sandbox: SenSource, value: str
) -> None:
    """A name outside the list is an error, and so is a name that is listed twice."""
    result = failed(project, sandbox, static_endpoints=value)
    assert "static_endpoints must be some of location, site, zone, space, sensor" in result.output
    assert sandbox.requests == []


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("start_date", "yesterday"),
        ("start_date", "2026-02-30"),
        ("lookback_days", "31"),
        ("lookback_days", "-1"),
        ("chunk_days", "0"),
        ("chunk_days", "31"),
        ("base_url", "http://vea.sensourceinc.com/api"),
        ("auth_url", "http://auth.sensourceinc.com/oauth/token"),
        ("client_id", "two words"),
    ],
)
def test_other_settings_are_checked(
    project: Project, sandbox: SenSource, key: str, value: str
) -> None:
    """A value out of range is an error, never clamped."""
    assert f"{key} must be " in failed(project, sandbox, **{key: value}).output
    assert sandbox.requests == []


def test_an_unknown_key_is_warned_of_once(project: Project, sandbox: SenSource) -> None:
    """Although both schema() and update() read the configuration."""
    output = synced(project, sandbox, star_date="2026-01-01").output
    assert output.count("'star_date' is not known") == 1
    assert "did you mean start_date?" in output


def test_only_chosen_endpoints_are_read_and_declared(project: Project, whole: SenSource) -> None:
    """The default is four of them, as the specification has it; names are taken in any case."""
    configuration = whole.configuration()
    del configuration["static_endpoints"]
    assert project.sync(configuration).code == 0
    listings = [path for path in whole.paths("/api/") if "data" not in path]
    assert listings == [f"/api/{name}" for name in STATIC[:4]]
    assert project.types("sensor") == {}
    whole.requests.clear()
    synced(project, whole, static_endpoints="Zone, sensor")
    listings = [path for path in whole.paths("/api/") if "data" not in path]
    assert listings == ["/api/zone", "/api/sensor"]
    assert len(project.rows("sensor")) == 3


# One table's failure


def test_a_table_that_may_not_be_read_leaves_the_others_alone(
    project: Project, clock: time_machine.Traveller
) -> None:
    """The others are complete, and their cursors move, at every sync; the error comes at the
    end."""
    with small(first=date(2026, 6, 1), endpoints=("zone", "sensor")) as sandbox:
        sandbox.fault("/api/data/occupancy", times=None, status=403)
        for day in range(3):
            output = failed(project, sandbox, chunk_days="5").output
            assert "1 of 4 tables failed:" in output
            assert f"occupancy: GET {sandbox.url}/api/data/occupancy: status 403" in output
            assert hours(project) == set(sandbox.hours["traffic"])
            assert len(project.rows("sensor")) == len(sandbox.records["sensor"])
            tables = project.state["tables"]
            assert tables["traffic"]["cursor"] == f"2026-06-{9 + day:02d}"
            assert "occupancy" not in tables
            clock.move_to(NOON + (day + 1) * DAY)
            sandbox.change_something()
        sandbox.faults.clear()
        synced(project, sandbox)
        assert_equal_to_source(project, sandbox)


def test_all_reasons_come_at_the_end(project: Project, whole: SenSource) -> None:
    """Of static tables and of hours; each table that may be read is complete."""
    refused = ("site", "sensor", "data/traffic")
    for path in refused:
        whole.fault(f"/api/{path}", times=None, status=403)
    for _ in range(2):
        output = failed(project, whole).output
        assert "3 of 7 tables failed:" in output
        for path in refused:
            name = path.rpartition("/")[2]
            assert f"{name}: GET {whole.url}/api/{path}: status 403" in output
        assert project.rows("site") == project.rows("sensor") == project.rows("traffic") == []
        for name in ("location", "zone", "space"):
            assert len(project.rows(name)) == len(whole.records[name])
        assert hours(project, "occupancy") == set(whole.hours["occupancy"])
        whole.change_something()
    whole.faults.clear()
    synced(project, whole)
    assert_equal_to_source(project, whole)


@pytest.mark.parametrize(
    ("left_out", "other"), [("traffic", "occupancy"), ("occupancy", "traffic")]
)
def test_a_table_of_hours_can_be_left_out(
    project: Project, sandbox: SenSource, left_out: str, other: str
) -> None:
    """It is neither declared nor read, not even by the setup test. If it is enabled later, it
    begins at its own first day."""
    sandbox.fault(f"/api/data/{left_out}", times=None, status=403)
    off = sandbox.configuration(**{f"enable_{left_out}_sync": "false"})
    tables = {entry["table"] for entry in load("sensource").schema(off)}
    assert tables == {"zone", other}
    assert set(project.test_settings(off).values()) == {None}
    assert project.sync(off).code == 0
    assert f"/api/data/{left_out}" not in sandbox.paths()
    assert project.types(left_out) == {}
    assert hours(project, other) == set(sandbox.hours[other])
    sandbox.faults.clear()
    synced(project, sandbox)
    assert_equal_to_source(project, sandbox)


# Listings


def test_listings_are_replaced(project: Project, whole: SenSource) -> None:
    """Deleted records are soft-deleted, changed records are updated."""
    synced(project, whole)
    gone = [whole.delete(name, 0)[f"{name}Id"] for name in STATIC]
    whole.change("zone", 0, disabled=True, name=None)
    whole.insert("zone")
    synced(project, whole)
    for name, id_ in zip(STATIC, gone, strict=True):
        assert [row[f"{name}_id"] for row in project.rows(name, deleted=True)] == [id_]
        expected = {record[f"{name}Id"] for record in whole.records[name]}
        assert {row[f"{name}_id"] for row in project.rows(name)} == expected


def test_a_listing_that_fails_is_in_the_table_of_the_sync(
    project: Project, sandbox: SenSource
) -> None:
    """It begins with the first request: its line comes before those of the retries."""
    sandbox.fault("/api/zone", times=None, status=403)
    output = failed(project, sandbox).output
    begins, fails = output.index("zone: first load"), output.index("zone: GET ")
    assert begins < fails
    assert re.search(r"^ *zone +failed +0 +0 +0 +0 +\d", output, re.M)


def test_a_listing_with_a_record_that_comes_twice_is_sent_once(
    project: Project, whole: SenSource
) -> None:
    """Not at every sync: a sensor may be listed for each of its zones."""
    expected = {record["sensorId"] for record in whole.records["sensor"]}
    whole.records["sensor"].append(whole.records["sensor"][0])
    synced(project, whole)
    for _ in range(2):
        with handed_over() as sent:
            synced(project, whole)
        assert sent["sensor"] == []
    assert {row["sensor_id"] for row in project.rows("sensor")} == expected


def test_one_listing_that_became_empty_holds_nothing_up(
    project: Project, whole: SenSource, waits: list[float]
) -> None:
    """A warning names it, and it is not replaced; the other tables are synced, with their
    retries."""
    synced(project, whole)
    whole.records["site"].clear()
    whole.fault("/api/zone", status=503)
    result = synced(project, whole)
    assert "site: the source lists nothing where it had 2 rows" in result.output
    assert len(project.rows("site")) == 2
    assert len(waits) == 1
    synced(project, whole)
    assert project.rows("site") == []


def test_hours_that_are_missing_delete_nothing(project: Project, sandbox: SenSource) -> None:
    """An account without hours is no error, and a source that lists no hours deletes none."""
    before = dict(sandbox.hours["traffic"])
    sandbox.hours["traffic"].clear()
    synced(project, sandbox)
    assert project.rows("traffic") == []
    sandbox.hours["traffic"].update(before)
    assert project.sync(sandbox.configuration(), {}).code == 0
    assert_equal_to_source(project, sandbox)
    sandbox.hours["traffic"].clear()
    synced(project, sandbox)
    assert hours(project) == set(before)


# Responses


@pytest.mark.parametrize(
    "body",
    [
        '{"error": "quota", "results": [], "messages": []}',
        '{"results": null}',
        *wide('{"error": {"code": 7}, "results": []}', '{"results": {}}', "[]", "null"),
    ],
)
@pytest.mark.parametrize("skip", [0, 1])
def test_a_response_without_results_fails(
    project: Project, sandbox: SenSource, body: str, skip: int
) -> None:
    """Status 200 with an error, or without a list, is not an empty range; the cursor stays."""
    sandbox.fault("/api/data/traffic", skip=skip, times=None, status=200, body=body)
    result = failed(project, sandbox, chunk_days="3")
    assert f"{sandbox.url}/api/data/traffic: status 200, but" in result.output
    assert ("traffic" in project.state["tables"]) == bool(skip)
    sandbox.faults.clear()
    synced(project, sandbox)
    assert_equal_to_source(project, sandbox)


@pytest.mark.parametrize("body", ['{"error": "quota"}', '{"error": 1, "results": []}', "{}", "7"])
def test_a_listing_without_records_fails(project: Project, sandbox: SenSource, body: str) -> None:
    """Neither an error nor an unknown form counts as an empty listing."""
    synced(project, sandbox)
    sandbox.fault("/api/zone", times=None, status=200, body=body)
    assert f"{sandbox.url}/api/zone: status 200, but" in failed(project, sandbox).output
    assert len(project.rows("zone")) == 3


def test_hours_of_other_days_move_no_cursor(project: Project, sandbox: SenSource) -> None:
    """A source that does not read the dates of a request sends those of today for all days."""
    today = datetime.now(timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
    respond_with(sandbox, "/api/data/traffic", {"results": traffic("z", today, 3)})
    output = failed(project, sandbox, chunk_days="1").output
    assert re.search(
        r" traffic: [\d-]{10} to [\d-]{10}: .* of 3 hours none is of these days", output
    )
    assert "traffic: traffic:" not in output
    assert "traffic" not in project.state["tables"]
    sandbox.faults.clear()
    synced(project, sandbox)
    assert_equal_to_source(project, sandbox)


def test_an_error_that_is_null_is_none(project: Project, sandbox: SenSource) -> None:
    """Some responses always have the key."""
    rows = traffic("z", sandbox.midnight(sandbox.first), 1)
    respond_with(sandbox, "/api/data/traffic", {"error": None, "messages": None, "results": rows})
    synced(project, sandbox)
    assert len(project.rows("traffic")) == 1


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, "Check traffic_metrics and occupancy_metrics"),
        (403, "ask SenSource"),
        (404, "base_url"),
    ],
)
def test_a_refusal_says_what_to_do(
    project: Project, sandbox: SenSource, status: int, advice: str
) -> None:
    """The error names the endpoint and the status, shows no word of the source, and gives
    advice."""
    sandbox.fault("/api/data/", times=None, status=status, body='{"error": "invalid_parameter"}')
    output = failed(project, sandbox).output
    assert f"/api/data/traffic: status {status}. " in output
    assert advice in output


@pytest.mark.parametrize(
    "response",
    [
        {"messages": ["The query was cut short"]},
        *wide(
            {"messages": ["The query was cut short"], "results": []},
            {"messages": "The query was cut short", "results": None},
            {"messages": {"0": "The query was cut short"}, "results": {}},
        ),
    ],
)
def test_a_message_in_the_place_of_results_is_no_empty_day(
    project: Project, clock: time_machine.Traveller, waits: list[float], response: Any
) -> None:
    """The request is retried. If the message stays, this table fails, and its cursor stays, so no
    day is lost."""
    with small(first=date(2026, 4, 1), zones=1) as sandbox:
        respond_with(sandbox, "/api/data/traffic", response, skip=1, times=2)
        output = synced(project, sandbox).output
        assert "no results, but a message: the query was cut short; retry 1 of 3" in output
        assert_equal_to_source(project, sandbox)
        sandbox.faults.clear()
        clock.shift(40 * DAY)
        last = max(hour for _, hour in sandbox.hours["traffic"])
        for n in range(1, 24 * 40):
            sandbox.count(last + n * HOUR)
        respond_with(sandbox, "/api/data/traffic", response)
        output = failed(project, sandbox).output
        assert "1 of 3 tables failed:" in output
        assert "no results, but a message: the query was cut short; gave up after 3" in output
        assert project.state["tables"]["traffic"]["cursor"] == "2026-06-09"
        assert hours(project, "occupancy") == set(sandbox.hours["occupancy"])
        sandbox.faults.clear()
        synced(project, sandbox)
        assert_equal_to_source(project, sandbox)


def test_a_message_in_the_place_of_a_listing_is_no_empty_listing(
    project: Project, whole: SenSource, waits: list[float]
) -> None:
    """An empty listing would replace the table at the second sync."""
    synced(project, whole)
    respond_with(whole, "/api/site", {"messages": ["Please try again."], "results": []})
    for count in (1, 2):
        output = failed(project, whole).output
        assert "site: GET" in output
        assert "no results, but a message: please try again.; gave up" in output
        assert len(waits) == 3 * count
    assert len(project.rows("site")) == 2


def test_records_that_come_with_a_message_delete_nothing(
    project: Project, whole: SenSource, dashboard: list[str]
) -> None:
    """They may not be all records, so they are stored and delete nothing; the message is shown."""
    synced(project, whole)
    sites = whole.records["site"]
    response = {"messages": ["Some are missing."], "results": sites[:1]}
    respond_with(whole, "/api/site", response, times=1)
    synced(project, whole)
    assert len(project.rows("site")) == 2
    whole.messages = ["Some are missing."]
    gone = remove_a_day(whole)
    assert resynced(project, whole).code == 0
    assert hours(project) == set(whole.hours["traffic"]) | gone
    assert dashboard == [
        'SenSource says of site, "some are missing."',
        *(
            f"{name}: SenSource sent messages with the hours, which may not be all. The rows were "
            "stored, but nothing was replaced: deletes were not looked for. The next sync is a "
            "full refresh"
            for name in ("traffic", "occupancy")
        ),
        'SenSource says of traffic, occupancy, "some are missing."',
    ]
    whole.messages = []
    synced(project, whole)
    assert_equal_to_source(project, whole)
    assert hours(project, deleted=True) == gone


def test_messages_are_shown_once_without_values(
    project: Project, sandbox: SenSource, dashboard: list[str]
) -> None:
    """One warning holds the messages of several requests and tables; names, ids, numbers and long
    words are not shown."""
    synced(project, sandbox)
    name = sandbox.records["zone"][0]["name"]
    sandbox.messages = [
        "Some data may be missing, please check.",
        f"no counts for {name} since 2026-01-01 ({sandbox.records['zone'][0]['zoneId']})",
        {"text": "person@example.com", "code": 17},
        "abcdefghijklmnopqrstuvwxyzabcdef is a secret\nINFO forged",
        None,
        "the fifth is the last one",
        "the sixth is one too many",
    ]
    sandbox.hours["occupancy"].clear()
    sandbox.fault("/api/data/occupancy", times=None, status=403)
    output = failed(project, sandbox, chunk_days="1").output
    [shown] = dashboard
    assert shown.startswith("SenSource says of traffic, ")
    for text in (
        '"some data may be missing, please check."',
        '"no counts for * since * *"',
        '"* is a secret * forged"',
        '"the fifth is the last one"',
    ):
        assert shown.count(text) == 1
    assert "the sixth" not in shown
    for value in (name, "2026-01-01 (", "example", "abcdefghij", *sandbox.secrets()):
        assert value not in output + shown


@pytest.mark.parametrize("spelled", ["sumIns", "SUMINS", "sumins"])
def test_metrics_in_any_case(project: Project, sandbox: SenSource, spelled: str) -> None:
    """The column is the same; a field that would hide another field keeps its own name."""
    rows = traffic("z", sandbox.midnight(sandbox.first), 12)
    for row in rows:
        row[spelled] = row.pop("sumins")
    rows[0] |= {"sumins": 40, "sumINS": 50}
    respond_with(sandbox, "/api/data/traffic", {"results": rows})
    synced(project, sandbox)
    stored = sorted(project.rows("traffic"), key=lambda row: row["record_date_hour_1"])
    assert [row["sumins"] for row in stored] == [40, *range(1, 12)]
    kept = json.loads(stored[0]["additional_fields"])
    assert kept == {"sumINS": 50, **({spelled: 0} if spelled != "sumins" else {})}
    assert {row["additional_fields"] for row in stored[1:]} == {None}


@pytest.mark.parametrize("sent", [{}, {"ins": 1}, {"sumins": 1}])
def test_a_metric_that_no_record_has_is_an_error(
    project: Project, sandbox: SenSource, sent: dict[str, int]
) -> None:
    """The error names it, and the cursor stays, since the column would stay null without
    notice."""
    synced(project, sandbox)
    cursor = project.state["tables"]["traffic"]
    sandbox.change_something()
    rows = [{"zoneId": "z", "recordDate_hour_1": NOON.isoformat(), **sent}] * 3
    respond_with(sandbox, "/api/data/traffic", {"messages": [], "results": rows})
    output = failed(project, sandbox).output
    lacking = "outs" if "sumins" in sent else "ins, outs"
    assert f"none of the 3 hours has the metric {lacking}: check traffic_metrics" in output
    assert project.state["tables"]["traffic"] == cursor
    sandbox.faults.clear()
    synced(project, sandbox)
    assert_equal_to_source(project, sandbox)


def test_a_metric_that_some_records_lack_is_null_there(
    project: Project, sandbox: SenSource
) -> None:
    """Null counts as a value, too."""
    rows = traffic("z", sandbox.midnight(sandbox.first), 3)
    del rows[0]["sumouts"]
    rows[1]["sumouts"] = None
    for row in rows:
        row["sumins"] = None
    respond_with(sandbox, "/api/data/traffic", {"results": rows})
    synced(project, sandbox)
    stored = sorted(project.rows("traffic"), key=lambda row: row["record_date_hour_1"])
    assert [(row["sumins"], row["sumouts"]) for row in stored] == [
        (None, None),
        (None, None),
        (None, 2),
    ]


def test_no_part_of_a_name_is_shown_that_begins_as_another_does() -> None:
    """Whatever the order of the names."""
    load("sensource")
    plain = import_module("source_messages").plain_messages
    words = ["hall" + letter for letter in "abcdefghijklmnopqrst"]
    names = [{"name": " ".join(words[:count])} for count in range(1, 21)]
    assert plain(f"no data for {names[-1]['name']} yet", names) == ("no data for * yet",)


def test_messages_are_made_plain_in_bounded_time() -> None:
    """To look for each of many names in a long message could take hours: such a message is not
    shown."""
    load("sensource")
    plain = import_module("source_messages").plain_messages
    names = [{"name": f"Zone {number}"} for number in range(20_000)]
    looked_for = list[str]()

    class Message(str):
        __slots__ = ()

        def __str__(self) -> str:
            return self

        def replace(self, *texts: Any) -> str:
            looked_for.append(texts[0])
            return self

    assert plain([Message("x " * 1_000), Message("no data. " * 10)], names) == (
        "*",
        " ".join(["no data."] * 10),
    )
    assert len(looked_for) == len(names)


@pytest.mark.parametrize(
    "messages", ["one text", {"0": "x"}, *wide(7, {"a": 1}, [[["x"]]], [None], " ")]
)
def test_messages_of_any_form_do_no_harm(
    project: Project, sandbox: SenSource, messages: Any
) -> None:
    """The rows are stored."""
    sandbox.messages = messages
    synced(project, sandbox)
    assert_equal_to_source(project, sandbox)


# The token


def test_one_token_serves_a_sync(project: Project, sandbox: SenSource) -> None:
    """It is requested in the vendor's form, sent in a header only, and kept nowhere."""
    result = project.debug(sandbox.configuration())
    assert result.code == 0, result.output
    [request] = [r for r in sandbox.requests if r.path == "/oauth/token"]
    assert json.loads(request.body) == {
        "grant_type": "client_credentials",
        "client_id": "sensource-client-id",
        "client_secret": "sensource-client-secret-71c04e",
    }
    assert Counter(r.headers.get("Authorization") for r in sandbox.requests) == {
        None: 1,
        f"Bearer {sandbox.access_token}": len(sandbox.requests) - 1,
    }
    seen = result.output + project.everything_written() + "".join(r.url for r in sandbox.requests)
    assert not [secret for secret in sandbox.secrets() if secret in seen]


def test_a_wrong_configuration_requests_no_token(project: Project, sandbox: SenSource) -> None:
    """A new token would invalidate one that is in use elsewhere."""
    failed(project, sandbox, start_date="soon")
    assert sandbox.tokens == []


def test_a_token_is_renewed_before_it_ends(
    project: Project, clock: time_machine.Traveller
) -> None:
    """Five minutes before it expires, without a refusal."""
    with small(zones=1, first=date(2026, 3, 1), lifetime=3600) as sandbox:
        for skip, seconds in ((1, 3290), (3, 15)):
            sandbox.fault("/api/data/", skip=skip, act=lambda s=seconds: clock.shift(s))
        # A new token invalidates the old one, which a concurrent request may use.
        synced(project, sandbox, parallel_requests="1")
        assert len(sandbox.tokens) == 2
        assert {r.status for r in sandbox.requests} == {200}
        assert_equal_to_source(project, sandbox)


@pytest.mark.parametrize(
    "lifetime", [None, 0, "3600", "soon", *wide(-5, 1, 10**400, "NaN", "Infinity")]
)
def test_a_lifetime_of_any_form(
    project: Project, clock: time_machine.Traveller, lifetime: Any
) -> None:
    """An unusable lifetime is an error; none of them leads to a token for each request."""
    with small(first=date(2026, 6, 1), lifetime=None) as sandbox:
        body = json.dumps({"access_token": "from-the-fault", "expires_in": lifetime})
        sandbox.fault("/oauth/token", times=None, status=200, body=body)
        sandbox.access_token = "from-the-fault"
        sandbox.tokens.append("from-the-fault")
        result = project.sync(sandbox.configuration())
        assert len(sandbox.paths("/oauth/token")) == 1
        assert result.code == 0, result.output


def test_a_token_that_dies_in_mid_load_is_renewed_once(
    project: Project, clock: time_machine.Traveller
) -> None:
    """The request is retried with the same token, then with a new one; no row is lost."""
    with small(zones=1, first=date(2026, 3, 1)) as sandbox:

        def revoke() -> None:
            clock.shift(600)
            sandbox.revoke_access_token()

        sandbox.fault("/api/data/", skip=3, act=revoke)
        synced(project, sandbox)
        assert len(sandbox.paths("/oauth/token")) == 2
        refused = [r for r in sandbox.requests if r.status == 401]
        assert len(refused) >= 2
        assert len({r.headers["Authorization"] for r in refused}) == 1
        assert_equal_to_source(project, sandbox)


def test_one_refusal_alone_needs_no_new_token(project: Project, sandbox: SenSource) -> None:
    """The same token is tried once more first: a new one may invalidate another sync's."""
    sandbox.fault("/api/data/", skip=1, status=401)
    synced(project, sandbox)
    assert len(sandbox.tokens) == 1
    assert_equal_to_source(project, sandbox)


def test_a_young_token_is_not_replaced_at_once(
    project: Project, clock: time_machine.Traveller
) -> None:
    """The sync waits until 30 seconds lie between two tokens."""
    with small(first=date(2026, 6, 1)) as sandbox:
        made: list[datetime] = []
        sandbox.fault(
            "/oauth/token", times=None, act=lambda: made.append(datetime.now(timezone.utc))
        )
        sandbox.fault("/api/zone", act=sandbox.revoke_access_token)
        result = synced(project, sandbox)
        assert "the token is too new to replace; retry 1 of 3 in " in result.output
        assert len(made) == 2
        assert timedelta(seconds=30) <= made[1] - made[0] < timedelta(seconds=31)
        assert_equal_to_source(project, sandbox)


def test_a_token_that_stays_refused_ends_the_sync(
    project: Project, clock: time_machine.Traveller
) -> None:
    """One more token, then an error that names a possible cause."""
    with small(first=date(2026, 6, 1)) as sandbox:
        sandbox.fault("/api/zone", times=None, status=401)
        result = failed(project, sandbox)
        assert "Does something else use the same API client?" in result.output
        assert sandbox.paths() == [
            "/oauth/token",
            *["/api/zone"] * 4,
            "/oauth/token",
            "/api/zone",
        ]


def test_without_retries_a_refused_young_token_ends_the_sync(
    project: Project, sandbox: SenSource
) -> None:
    """`retry_attempts` "0" allows no wait."""
    sandbox.fault("/api/zone", times=None, status=401)
    result = failed(project, sandbox, retry_attempts="0")
    assert "the token is too new to replace" in result.output
    assert "gave up" not in result.output
    assert sandbox.paths() == ["/oauth/token", *["/api/zone"] * 2]


def test_a_token_endpoint_with_a_rate_limit(
    project: Project, sandbox: SenSource, waits: list[float]
) -> None:
    """After its 429 the sync waits long enough for the limit to end."""
    sandbox.mints = 0
    synced(project, sandbox)
    assert len(waits) == 1
    assert 7.5 <= waits[0] <= 15
    assert len(sandbox.tokens) == 1


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (
            401,
            '{"error": "invalid_client"}',
            "status 401 invalid_client. Check client_id, client_",
        ),
        (400, '{"error": "unsupported_grant_type"}', "status 400 unsupported_grant_type. Check"),
        (404, "", "status 404. Check client_id, client_secret and auth_url"),
        (200, "<html>Sign in</html>", "status 200, but no JSON"),
        (200, "{}", "the response holds no usable access token"),
        (200, "[]", "the response holds no usable access token"),
        (200, "null", "the response holds no usable access token"),
        (200, '{"access_token": ""}', "the response holds no usable access token"),
        (200, '{"access_token": 7}', "the response holds no usable access token"),
        (200, '{"access_token": "two\\nlines"}', "the response holds no usable access token"),
        (302, "", "a redirect, which is not followed"),
    ],
)
def test_a_token_that_is_not_given(
    project: Project, sandbox: SenSource, status: int, body: str, reason: str
) -> None:
    """One request for a token, an error that says what to check, and no request for data."""
    sandbox.fault("/oauth/token", times=None, status=status, body=body)
    result = failed(project, sandbox)
    assert f"{sandbox.url}/oauth/token" in result.output
    assert reason in result.output
    assert sandbox.paths() == ["/oauth/token"]


def test_wrong_credentials(project: Project, sandbox: SenSource) -> None:
    """The simulator checks them; the error does not show what was sent."""
    result = project.debug(sandbox.configuration(client_secret="wrong-client-secret"))
    assert result.code == 1
    assert "status 401 invalid_client. Check client_id, client_secret" in result.output
    assert "wrong-client-secret" not in result.output + project.everything_written()


@pytest.mark.parametrize(("table", "skip"), [("traffic", 0), ("occupancy", 1)])
def test_a_failure_shows_neither_the_token_nor_a_row(
    project: Project, sandbox: SenSource, table: str, skip: int
) -> None:
    """The SDK's crash report prints the variables of every frame, which are empty."""
    zone, space = (sandbox.records[name][0] for name in ("zone", "space"))
    metrics = ("sumins", "sumouts", "maxoccupancy", "minoccupancy", "avgoccupancy")
    values = dict.fromkeys(metrics, "x")
    rows = {"results": [{"name": zone["name"], **values}, {"name": space["name"]}] * 40}
    sandbox.fault(f"/api/data/{table}", skip=skip, status=200, body=json.dumps(rows))
    result = project.debug(sandbox.configuration(chunk_days="3"))
    assert result.code == 1
    assert "more than a tenth" in result.output
    assert list(project.path.glob("crash-reports/*"))
    seen = result.output + project.everything_written()
    assert not [secret for secret in sandbox.secrets() if secret in seen]


def test_threads_share_one_token(sandbox: SenSource) -> None:
    """Eight concurrent requests use one token at first, and one new token when all of them are
    refused."""
    module = load("sensource")
    settings = module.validate_configuration(sandbox.configuration())
    token, together = module.Token(settings), threading.Barrier(8)

    def first(_: int) -> requests.PreparedRequest:
        together.wait(10)
        prepared: requests.PreparedRequest = token(requests.Request("GET", sandbox.url).prepare())
        return prepared

    def again(refused: requests.PreparedRequest) -> bool:
        together.wait(10)
        return bool(token.renew(refused, 1) and token.renew(refused, 2))

    with ThreadPoolExecutor(8) as threads:
        sent = list(threads.map(first, range(8)))
        assert len(sandbox.tokens) == 1
        assert {r.headers["Authorization"] for r in sent} == {f"Bearer {sandbox.access_token}"}
        with time_machine.travel(datetime.now(timezone.utc) + timedelta(minutes=10)):
            assert all(threads.map(again, sent))
            assert len(sandbox.tokens) == 2
            new = token(requests.Request("GET", sandbox.url).prepare())
            with pytest.raises(TransientError):
                token.renew(new, 2)
        assert len(sandbox.tokens) == 2
        assert not token.renew(new, 3)


def test_the_wait_of_a_rate_limit_is_honoured(
    project: Project, sandbox: SenSource, waits: list[float]
) -> None:
    """After a 429 for data the client waits for the stated seconds, and requests no new token."""
    sandbox.limit = 2
    synced(project, sandbox)
    assert waits == [1.0]
    assert len(sandbox.tokens) == 1
    assert_equal_to_source(project, sandbox)


def test_the_state_holds_what_it_needs_and_no_more(project: Project, whole: SenSource) -> None:
    """Dates, digests and the names of metrics; its size does not grow with the data."""
    synced(project, whole)
    state = project.state
    assert set(state) == {"version", "tables"}
    assert set(state["tables"]) == {*STATIC, "traffic", "occupancy"}
    assert set(state["tables"]["traffic"]) == {"cursor", "start", "metrics", "days"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", state["tables"]["traffic"]["cursor"])
    assert len(json.dumps(state)) < 1_500
