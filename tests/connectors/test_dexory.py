"""Dexory: scans and their objects, both places of the key, links, passes over several syncs."""

import json
import logging
import os
import re
import signal
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from datetime import datetime, timedelta, timezone
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import time_machine
from fivetran_connector_sdk import Operations
from werkzeug.serving import make_server

from shared.errors import ConnectorError, SourceError, SourceUnavailable
from shared.pages import Page, Place, digest
from shared.rows import SkippedRecords
from shared.spool import Spool
from shared.state import State
from tests.compare import assert_equal_to_source, differences
from tests.contract.helpers import handed_over
from tests.sandbox.dexory import KEY, SITE, Dexory
from tests.sandbox.fivetran import Project, Result, load
from tests.sandbox.mssql import tls
from tests.soak.crashes import Crash, Process
from tests.width import wide

PATH = Dexory.data_path
OBJECTS = "expected_inventory_objects"
MANY = {"page_size": "5"}  # 26 pages: more than one checkpoint


@pytest.fixture
def sandbox() -> Iterator[Dexory]:
    with Dexory() as started:
        yield started


@pytest.fixture
def dexory(tmp_path: Path) -> Project:
    return Project("dexory", tmp_path)


def synced(project: Project, sandbox: Dexory, **changes: str) -> Result:
    result = project.sync(sandbox.configuration(**changes))
    assert result.code == 0, result.output
    return result


def failed(project: Project, sandbox: Dexory, **changes: str) -> Result:
    result = project.sync(sandbox.configuration(**changes))
    assert result.code == 1, result.output
    return result


def numbers(sandbox: Dexory) -> list[int]:
    """The numbers of the requested pages, which are then forgotten."""
    asked = [int(request.query["page[number]"]) for request in sandbox.requests]
    sandbox.requests.clear()
    return asked


def by_name(project: Project, table: str, name: str) -> list[dict[str, Any]]:
    return [row for row in project.rows(table) if row["name"] == name]


def response(*records: Any, following: Any = None) -> dict[str, Any]:
    """A fault whose response holds these records."""
    body = json.dumps({"data": records, "links": {"next": following}})
    return {"status": 200, "body": body, "headers": {"Content-Type": "application/json"}}


def location(name: Any = "A1-01-01", *objects: Any, **fields: Any) -> dict[str, Any]:
    scanned = "2026-01-31T08:00:00Z"
    return {"name": name, "aisle": "A1", "scan_date": scanned, OBJECTS: list(objects), **fields}


def assert_nothing_is_missing(project: Project, sandbox: Dexory) -> None:
    """The destination may have more rows than the source, but not fewer."""
    missing, _ = differences(project, sandbox)
    assert not missing


# Records


@pytest.mark.parametrize("shape", ["live", "documented"])
@pytest.mark.parametrize("links", ["absolute", "path", "query"])
def test_both_forms_of_records_and_all_forms_of_links(
    dexory: Project, shape: str, links: str
) -> None:
    """The specification's payload and the live one; links with and without a host and a path."""
    with Dexory(shape=shape, links=links) as sandbox:
        synced(dexory, sandbox)
        assert numbers(sandbox) == [1, 2, 3, 4, 5, 6]
        assert_equal_to_source(dexory, sandbox)
        sandbox.change_something()
        synced(dexory, sandbox)
        assert_equal_to_source(dexory, sandbox)


def test_lists_that_php_sends_as_objects_are_lists(dexory: Project) -> None:
    """Lists of locations and lists of objects."""
    with Dexory(php=True) as sandbox:
        synced(dexory, sandbox)
        assert numbers(sandbox) == [1, 2, 3, 4, 5, 6]
        assert_equal_to_source(dexory, sandbox)


def test_what_looks_like_a_number_or_a_date_stays_text(dexory: Project, sandbox: Dexory) -> None:
    """Batch "07", marker "0012": the type does not depend on the data."""
    synced(dexory, sandbox)
    rows = dexory.rows(OBJECTS)
    assert {row["batch"] for row in rows} == {"07"}
    assert {"0012", "1E5"} < {row["marker"] for row in rows}
    assert {"2025-11-18", "18/11/2025"} < {row["received_date"] for row in rows}
    assert {row["quantity"] for row in rows} == {None, 0, 1, 12}


def test_fields_without_a_column_are_kept_as_sent(dexory: Project, sandbox: Dexory) -> None:
    """Of locations and of objects; a field named occurrence, too."""
    thing = {"sku": "x", "hazards": [{"b": 1, "a": [2.50, None]}], "occurrence": "first"}
    sandbox.fault(**response(location("A1", thing, robot={"id": 3, "tags": []}, next_scan=None)))
    synced(dexory, sandbox)
    [stored] = dexory.rows("locations")
    assert json.loads(stored["additional_fields"]) == {
        "robot": {"id": 3, "tags": []},
        "next_scan": None,
    }
    [row] = dexory.rows(OBJECTS)
    del thing["sku"]
    assert json.loads(row["additional_fields"]) == thing
    assert row["occurrence"] == 1


def test_lists_and_objects_become_json_text(dexory: Project, sandbox: Dexory) -> None:
    """Their names are sorted, in locations and in objects, so that equal ones give equal text."""
    zoning = {"priority": 1, "client_categories": ["東京", 0.5]}
    things = [{"client": {"b": 1, "a": 2}}, {"client": {"a": 2, "b": 1}}]
    sandbox.fault(**response(location("A1", *things, zoning=zoning, scanned_markers=[])))
    synced(dexory, sandbox)
    [stored] = dexory.rows("locations")
    assert stored["zoning"] == '{"client_categories": ["東京", 0.5], "priority": 1}'
    assert stored["scanned_markers"] == "[]"
    rows = dexory.rows(OBJECTS)
    assert {row["client"] for row in rows} == {'{"a": 2, "b": 1}'}
    assert sorted(row["occurrence"] for row in rows) == [1, 2]


def test_objects_carry_the_key_of_their_location(dexory: Project, sandbox: Dexory) -> None:
    """Each object refers to its location; its own fields of these names are kept in other
    columns."""
    own = {"name": "Box", "aisle": 7, "scan_date": "yesterday", "location_type": ["x"]}
    sandbox.change("locations", 0, **{OBJECTS: [{**own, "sku": "mine"}]})
    synced(dexory, sandbox)
    parents = {tuple(row[name] for name in KEY) for row in dexory.rows("locations")}
    rows = dexory.rows(OBJECTS)
    assert {tuple(row[name] for name in KEY) for row in rows} <= parents
    [row] = [row for row in rows if row["sku"] == "mine"]
    assert [row[f"object_{name}"] for name in KEY] == ["Box", '["x"]', "7", "yesterday"]
    assert row["additional_fields"] is None


def test_a_missing_part_of_the_key_is_empty_text(dexory: Project, sandbox: Dexory) -> None:
    """Locations without an aisle or a type are stored, and so are their objects."""
    sandbox.fault(**response(location("A1", {"sku": "x"}, aisle=None, occupancy=None)))
    synced(dexory, sandbox)
    for [row] in (dexory.rows("locations"), dexory.rows(OBJECTS)):
        assert (row["name"], row["aisle"], row["location_type"]) == ("A1", "", "")


def test_equal_objects_in_a_location_are_counted(dexory: Project, sandbox: Dexory) -> None:
    """None is merged away, however the source writes null; each location counts from 1."""
    things = [{"sku": "x", "lot": None, "quantity": 1}, {"sku": "x", "quantity": "1"}, {"sku": 7}]
    sandbox.fault(**response(location("A1", *things, things[0]), location("A2", *things)))
    synced(dexory, sandbox)
    found = Counter((row["name"], row["sku"], row["occurrence"]) for row in dexory.rows(OBJECTS))
    expected = [("A1", "x", 1), ("A1", "x", 2), ("A1", "x", 3), ("A1", "7", 1)]
    expected += [("A2", "x", 1), ("A2", "x", 2), ("A2", "7", 1)]
    assert found == Counter(expected)


def test_nulls_of_an_object_are_left_out(
    dexory: Project, sandbox: Dexory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the hash that is its key stays the same when a column is added to the table."""
    sent = []
    upsert = Operations.upsert

    def record(table: str, data: dict[str, Any]) -> None:
        sent.append(set(data))
        upsert(table, data)

    monkeypatch.setattr(Operations, "upsert", record)
    sandbox.fault(**response(location("A1", {"sku": "x", "lot": None})))
    synced(dexory, sandbox)
    assert sent[1] == {*KEY, "sku", "occurrence"}


@pytest.mark.parametrize(
    ("fields", "skus"),
    [
        ({OBJECTS: []}, []),
        ({OBJECTS: {"sku": "alone"}}, ["alone"]),
        ({OBJECTS: None, "expected_inventory_object": [{"sku": "a"}]}, ["a"]),
        ({OBJECTS: {"1": {"sku": "a"}, "3": {"sku": "b"}}}, ["a", "b"]),
        *wide(
            ({OBJECTS: None}, []),
            ({OBJECTS: None, "expected_inventory_object": {"sku": "a"}}, ["a"]),
            ({OBJECTS: [], "expected_inventory_object": [{"sku": "a"}]}, ["a"]),
            ({OBJECTS: {}}, []),
            ({OBJECTS: ""}, []),
            ({OBJECTS: False}, []),
        ),
    ],
)
def test_the_objects_may_come_under_two_names(
    dexory: Project, sandbox: Dexory, fields: dict[str, Any], skus: list[str]
) -> None:
    """In a list, alone, or not at all."""
    sandbox.fault(**response(location("A1", **fields)))
    synced(dexory, sandbox)
    assert sorted(row["sku"] for row in dexory.rows(OBJECTS)) == skus
    assert len(dexory.rows("locations")) == 1


def test_of_both_names_at_once_nothing_is_lost(dexory: Project, sandbox: Dexory) -> None:
    """The second list is kept in the additional fields of the location."""
    second = {"expected_inventory_object": [{"sku": "b"}]}
    sandbox.fault(**response(location("A1", {"sku": "a"}, **second)))
    synced(dexory, sandbox)
    assert [row["sku"] for row in dexory.rows(OBJECTS)] == ["a"]
    [stored] = dexory.rows("locations")
    assert json.loads(stored["additional_fields"]) == second


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("2026-01-31T08:00:00.1234567+01:00", "2026-01-31T07:00:00.123456+00:00"),
        ("2026-01-31 08:00", "2026-01-31T08:00:00+00:00"),
        (1769846400, "2026-01-31T08:00:00+00:00"),
    ],
)
def test_scan_dates_are_in_utc(dexory: Project, sandbox: Dexory, sent: Any, stored: str) -> None:
    """In whatever form they come."""
    sandbox.fault(**response(location("A1", {"sku": "x"}, scan_date=sent)))
    synced(dexory, sandbox)
    for [row] in (dexory.rows("locations"), dexory.rows(OBJECTS)):
        assert row["scan_date"].astimezone(timezone.utc).isoformat() == stored


# What cannot be stored


def test_an_odd_value_costs_that_value(dexory: Project, sandbox: Dexory) -> None:
    """It is null in its column, stays in `additional_fields`, and is reported. Objects with such
    values replace the earlier ones like any others."""
    synced(dexory, sandbox)
    for position in range(12):
        things = [{"sku": f"odd {position}", "quantity": 2.5}, {"expected_weight_g": 2**63}]
        sandbox.change("locations", position, occupancy=float("nan"), **{OBJECTS: things})
    sandbox.change(
        "locations", 12, occupancy="half", **{OBJECTS: [{"sku": "odd 12", "quantity": "many"}]}
    )
    result = synced(dexory, sandbox)
    assert f"{OBJECTS}: 13 values of quantity cannot be held by its type" in result.output
    assert "first page 1, record 1, object 1; page 1, record 2, object 1;" in result.output
    assert f"13 of locations.occupancy, 13 of {OBJECTS}.quantity" in result.output
    assert f"12 of {OBJECTS}.expected_weight_g" in result.output
    assert result.counts["Truncates"] == 1
    odd = [row for row in dexory.rows(OBJECTS) if str(row["sku"]).startswith("odd ")]
    assert len(odd) == 13
    kept = Counter(row["additional_fields"] for row in odd)
    assert kept == {'{"quantity": 2.5}': 12, '{"quantity": "many"}': 1}
    assert {row["quantity"] for row in odd} == {None}
    heavy = json.dumps({"expected_weight_g": 2**63})
    found = [row for row in dexory.rows(OBJECTS) if row["additional_fields"] == heavy]
    assert [row["expected_weight_g"] for row in found] == [None] * 12
    assert len([row for row in dexory.rows("locations") if row["occupancy"] is None]) >= 13
    assert_equal_to_source(dexory, sandbox)


@pytest.mark.parametrize("scan_date", [None, ..., *wide("", " ", "N/A", "0000-00-00", False)])
def test_locations_that_were_never_scanned_are_counted_apart(
    dexory: Project, sandbox: Dexory, scan_date: Any
) -> None:
    """They have no row, and their objects no `scan_date`. They are not skipped records, so the
    earlier objects are replaced."""
    synced(dexory, sandbox)
    for record in sandbox.scans[:20]:
        record.update(scan_date=None if scan_date is ... else scan_date)
        if scan_date is ...:
            del record["scan_date"]
    sandbox.change("locations", 3, occupancy="half", **{OBJECTS: [{"sku": "planned"}]})
    result = synced(dexory, sandbox)
    assert "locations: 20 were never scanned and have no row" in result.output
    assert "were skipped" not in result.output
    assert "no date" not in result.output
    assert result.counts["Truncates"] == 1
    [planned] = [row for row in dexory.rows(OBJECTS) if row["sku"] == "planned"]
    assert (planned["name"], planned["scan_date"]) == (sandbox.scans[3]["name"], None)
    assert_equal_to_source(dexory, sandbox)
    sandbox.scan(3)
    sandbox.delete("locations", 3)
    synced(dexory, sandbox)
    assert_equal_to_source(dexory, sandbox)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"name": None}, "name is missing"),
        ({"scan_date": "31/12/2024"}, "scan_date does not fit its type UTC_DATETIME"),
        *wide(
            ({"name": ""}, "name is missing"),
            ({"name": "", "scan_date": None}, "name is missing"),
            ({"scan_date": "soon"}, "scan_date does not fit its type UTC_DATETIME"),
            ({"scan_date": []}, "scan_date does not fit its type UTC_DATETIME"),
        ),
    ],
)
def test_a_location_that_cannot_be_stored_is_reported(
    dexory: Project, sandbox: Dexory, fields: dict[str, Any], reason: str
) -> None:
    """By its position, with the objects that are lost with it; the other records are stored."""
    sandbox.change("locations", 27, **{OBJECTS: [{"sku": "a"}, {"sku": "b"}]}, **fields)
    result = synced(dexory, sandbox)
    assert f"locations: 1 record skipped, first page 2, record 3: {reason}" in (result.output)
    lost = "page 2, record 3, object 1: its location cannot be stored"
    assert f"{OBJECTS}: 2 records skipped, first {lost}" in result.output
    assert f"were skipped: 1 of locations, 2 of {OBJECTS}" in result.output
    assert len(dexory.rows("locations")) == 129
    assert not {"a", "b"} & {row["sku"] for row in dexory.rows(OBJECTS)}


def test_odd_values_are_null_and_kept_and_reported(dexory: Project, sandbox: Dexory) -> None:
    """They cost no location and no object, and equal objects are not merged."""
    things = [{"sku": "a", "quantity": 2.5}, {"sku": "b"}, {"sku": "a", "quantity": 2.5}]
    things += [{"sku": "a", "quantity": 3.5}, {"sku": "c", "expected_weight_g": 2**63}]
    sandbox.change("locations", 27, name="here", occupancy="NaN", **{OBJECTS: things})
    output = synced(dexory, sandbox).output
    [row] = by_name(dexory, "locations", "here")
    assert row["occupancy"] is None
    assert json.loads(row["additional_fields"])["occupancy"] == "NaN"
    rows = by_name(dexory, OBJECTS, "here")
    assert {row["quantity"] for row in rows} == {None}
    kept = [(row["sku"], row["occurrence"], row["additional_fields"]) for row in rows]
    found = {(sku, at, *json.loads(fields or "{}").items()) for sku, at, fields in kept}
    assert found == {
        ("a", 1, ("quantity", 2.5)),
        ("a", 2, ("quantity", 2.5)),
        ("a", 1, ("quantity", 3.5)),
        ("b", 1),
        ("c", 1, ("expected_weight_g", 2**63)),
    }
    where = "page 2, record 3"
    assert f"first {where}, object 1; {where}, object 3; {where}, object 4" in output
    odd = f"1 of locations.occupancy, 1 of {OBJECTS}.expected_weight_g, 3 of {OBJECTS}.quantity"
    assert all(part in output for part in odd.split(", "))


def test_a_lone_surrogate_costs_no_row(dexory: Project, sandbox: Dexory) -> None:
    """It is not a character and cannot be stored; U+FFFD replaces it everywhere."""
    half = "half \ud83d a pair"
    thing = {"description": half, "client": [half]}
    record = location("A1", thing, message=half, zoning={"x": half}, robot=half)
    sandbox.fault(**response(record))
    synced(dexory, sandbox)
    [row], [its_object] = dexory.rows("locations"), dexory.rows(OBJECTS)
    whole = "half \ufffd a pair"
    assert row["message"] == its_object["description"] == whole
    assert json.loads(row["zoning"]) == {"x": whole}
    assert json.loads(row["additional_fields"]) == {"robot": whole}
    assert json.loads(its_object["client"]) == [whole]


@pytest.mark.parametrize("record", [None, 7, "A1", ["A1"]])
def test_a_location_that_is_no_object_is_reported(
    dexory: Project, sandbox: Dexory, record: Any
) -> None:
    """The other records are stored."""
    sandbox.fault(**response(*(location(f"A{n}") for n in range(10)), record))
    assert "page 1, record 11: it is not an object" in synced(dexory, sandbox).output
    assert len(dexory.rows("locations")) == 10


@pytest.mark.parametrize(
    ("thing", "reason"),
    [
        ("text", "it is not an object"),
        (None, "it is not an object"),
        ([{"sku": "nested"}], "it is not an object"),
    ],
)
def test_an_object_that_cannot_be_stored_is_reported(
    dexory: Project, sandbox: Dexory, thing: Any, reason: str
) -> None:
    """Its location and the other objects are stored."""
    sandbox.change("locations", 0, name="here", **{OBJECTS: [{"sku": "a"}, thing, {"sku": "b"}]})
    result = synced(dexory, sandbox)
    assert f"first page 1, record 1, object 2: {reason}" in result.output
    assert len(dexory.rows("locations")) == 130
    assert {row["sku"] for row in by_name(dexory, OBJECTS, "here")} == {"a", "b"}


def test_objects_that_are_no_list_are_reported(dexory: Project, sandbox: Dexory) -> None:
    """Text in the place of a list counts as one object that cannot be stored."""
    sandbox.change("locations", 0, name="here", **{OBJECTS: "none"})
    assert "page 1, record 1, object 1: it is not an object" in synced(dexory, sandbox).output
    assert len(by_name(dexory, "locations", "here")) == 1


@pytest.mark.parametrize("table", ["locations", OBJECTS])
def test_a_table_of_skipped_records_fails(dexory: Project, sandbox: Dexory, table: str) -> None:
    """More than a tenth is skipped, so nothing is replaced; the next sync reads the mended
    records."""
    synced(dexory, sandbox)
    before, state = dexory.rows(OBJECTS), dexory.state
    sound = [dict(record) for record in sandbox.scans]
    for record in sandbox.scans[:20]:
        record.update({"name": None} if table == "locations" else {OBJECTS: [1, 2]})
    output = failed(dexory, sandbox).output
    assert f"{table}: " in output
    assert "more than a tenth of" in output
    assert "Records that cannot be stored were skipped" in output
    assert dexory.rows(OBJECTS) == before
    assert dexory.state == state
    sandbox.scans[:] = sound
    synced(dexory, sandbox)
    assert_equal_to_source(dexory, sandbox)


def test_skipped_records_may_stand_close_together(dexory: Project, sandbox: Dexory) -> None:
    """They are checked at the end of the list, not at the checkpoints of a long pass: 11 of the
    first 100 are fewer than a tenth of all."""
    for position in range(11):
        sandbox.change("locations", position, name=None, **{OBJECTS: None})
    synced(dexory, sandbox, **MANY)
    assert_nothing_is_missing(dexory, sandbox)


def test_a_long_pass_of_skipped_records_is_not_resumed(dexory: Project, sandbox: Dexory) -> None:
    """Its checkpoints lie after the skipped records, so the next sync must read them again once
    they are mended."""
    synced(dexory, sandbox, **MANY)
    sound = [dict(record) for record in sandbox.scans]
    for position in range(20):
        sandbox.change("locations", position, name=None)
    before = dexory.state
    assert "more than a tenth of 130" in failed(dexory, sandbox, **MANY).output
    assert dexory.state == before
    assert dexory.rows(OBJECTS, deleted=True) == []
    sandbox.scans[:] = sound
    synced(dexory, sandbox, **MANY)
    assert_equal_to_source(dexory, sandbox)


def test_a_sync_resumes_after_pages_of_skipped_records(dexory: Project, sandbox: Dexory) -> None:
    """A sync that ends at max_pages with too many skipped records fails, and the next one resumes
    after them."""
    for position in range(10, 15):
        sandbox.change("locations", position, name=None)
    limits = {**MANY, "max_pages": "2"}
    codes = [dexory.sync(sandbox.configuration(**limits)).code for _ in range(4)]
    assert codes == [0, 1, 0, 0]
    assert dexory.state["stop"]["number"] == 8


# The key


KEYS = ["plain-site-key", "s1te/key+with=signs&more%20"]


@pytest.mark.parametrize("repeats_key", [False, True])
@pytest.mark.parametrize("key", KEYS)
def test_the_key_goes_into_the_header(dexory: Project, key: str, repeats_key: bool) -> None:
    """No URL and no state holds it, even if the links of the source do."""
    with Dexory(repeats_key=repeats_key) as sandbox:
        sandbox.api_key = key
        synced(dexory, sandbox, max_pages="2")
        assert "page%5Bnumber%5D=2" in dexory.state["stop"]["link"]
        assert "key" not in dexory.state["stop"]["link"]
        synced(dexory, sandbox)
        assert not [request for request in sandbox.requests if "api_key" in request.query]
        assert {r.headers["Authorization"] for r in sandbox.requests} == {f"Bearer {key}"}
        assert_equal_to_source(dexory, sandbox)


@pytest.mark.parametrize("key", KEYS)
def test_a_header_that_is_refused_leads_to_the_query(dexory: Project, key: str) -> None:
    """The key is refused once in the header. The next process remembers that, and nothing written
    shows the key."""
    with Dexory(key_in="query", repeats_key=True) as sandbox:
        sandbox.api_key = key
        outputs = []
        for refusals in (1, 0):
            sandbox.requests.clear()
            result = dexory.sync(sandbox.configuration(**MANY))
            assert result.code == 0, result.output
            assert [r.status for r in sandbox.requests] == [401] * refusals + [200] * 26
            assert all("Authorization" not in r.headers for r in sandbox.requests[refusals:])
            outputs += [result.output, dexory.everything_written()]
        assert_equal_to_source(dexory, sandbox)
        assert dexory.state["key_in_query"] is True
        sandbox.fault(PATH, skip=22, status=422, times=None)
        result = dexory.sync(sandbox.configuration(**MANY))
        assert result.code != 0
        outputs += [result.output, dexory.everything_written()]
        written = "\n".join(outputs)
        assert not [secret for secret in sandbox.secrets() if secret in written]
        assert "api_key=" not in written


def test_the_key_is_never_in_two_places(dexory: Project) -> None:
    """A server that takes the query gets the key once in it, although its links repeat the key."""
    with Dexory(key_in="query", repeats_key=True) as sandbox:
        synced(dexory, sandbox)
        for request in sandbox.requests[1:]:
            assert list(request.query) == [*list(request.query)[:-1], "api_key"]
            assert request.query["api_key"] == sandbox.api_key


def test_a_masked_key_in_a_link_is_removed(dexory: Project) -> None:
    """The parameter is removed from the link, whatever its value."""
    with Dexory(key_in="query") as sandbox:
        query = {"api_key": "***", "site": SITE, "page[size]": 200}
        sandbox.fault(PATH, skip=1, **response(following=f"?{urlencode(query)}"))
        synced(dexory, sandbox)
        assert list(sandbox.requests[2].query) == ["site", "page[size]", "api_key"]
        assert [r.status for r in sandbox.requests] == [401, 200, 200]


def test_a_key_under_another_name_in_a_link_is_removed(dexory: Project, sandbox: Dexory) -> None:
    """Its value tells; the rest of the link is followed as it is."""
    query = {"site": SITE, "token": sandbox.api_key, "page[size]": 200}
    sandbox.fault(PATH, **response(following=f"?{urlencode(query)}"))
    synced(dexory, sandbox)
    assert [list(r.query) for r in sandbox.requests[1:]] == [["site", "page[size]"]]
    assert_equal_to_source(dexory, sandbox)


def test_the_remembered_place_of_the_key_can_change(dexory: Project) -> None:
    """After one refusal the key goes into the header again."""
    with Dexory(key_in="query") as sandbox:
        synced(dexory, sandbox)
        sandbox.key_in = "header"
        sandbox.requests.clear()
        synced(dexory, sandbox)
        assert [r.status for r in sandbox.requests] == [401] + [200] * 6
        assert dexory.state["key_in_query"] is False


def test_a_wrong_key_is_tried_in_both_places_and_no_more(
    dexory: Project, sandbox: Dexory, waits: list[float]
) -> None:
    """Then the sync ends, and the error says which setting to check."""
    output = failed(dexory, sandbox, site_api_key="wrong-key").output
    assert [r.status for r in sandbox.requests] == [401, 401]
    assert f"{PATH}: status 401" in output
    assert "check site_api_key" in output
    assert waits == []
    assert "wrong-key" not in output


@pytest.mark.parametrize("status", [422, 503])
def test_a_source_that_echoes_the_key_does_not_bring_it_into_the_log(
    dexory: Project, sandbox: Dexory, status: int
) -> None:
    """A text in the place of a code is not shown, neither in errors nor in warnings of a retry."""
    sandbox.api_key = "dxlive4f9a77c1"
    body = json.dumps({"error": sandbox.api_key})
    sandbox.fault(PATH, times=None, status=status, body=body)
    assert sandbox.api_key not in failed(dexory, sandbox).output


def test_damaged_headers_do_not_bring_the_key_into_the_log(
    dexory: Project, caplog: pytest.LogCaptureFixture
) -> None:
    """urllib3 would log the URL of the request, which holds the key."""
    body = json.dumps({"data": [], "links": {"next": None}}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nno header at all\r\n\r\n"
    with _raw_server(head.encode() + body) as url, caplog.at_level(logging.DEBUG):
        # Other tests may have silenced the library for good.
        logging.getLogger("urllib3").setLevel(logging.NOTSET)
        state = {"version": 1, "tables": {}, "key_in_query": True}
        settings = {"site_name": SITE, "site_api_key": "the-key", "base_url": url}
        result = dexory.sync({**settings, "retry_attempts": "0"}, state)
    assert "the-key" not in caplog.text + result.output


@contextmanager
def _raw_server(sent: bytes) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(sent)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


# Requests


def test_names_are_encoded(dexory: Project) -> None:
    """Site and customer may hold any character."""
    customer = "Bär & Söhne #7/+50%=?"
    with Dexory(customer=customer) as sandbox:
        synced(dexory, sandbox, customer=customer)
        assert {r.query["site"] for r in sandbox.requests} == {SITE}
        assert {r.query["customer"] for r in sandbox.requests} == {customer}
        assert_equal_to_source(dexory, sandbox)


def test_what_is_not_configured_is_not_sent(dexory: Project, sandbox: Dexory) -> None:
    """Without a customer there is no such parameter; the default is a page of 1000."""
    synced(dexory, sandbox, page_size="")
    [request] = sandbox.requests
    assert request.query == {"site": SITE, "page[size]": "1000", "page[number]": "1"}


@pytest.mark.parametrize("value", ["0", "0.05", "61", "1e1", "-1", "2 s", "٢"])
def test_a_retry_delay_out_of_range_is_an_error(
    dexory: Project, sandbox: Dexory, value: str
) -> None:
    """It is never clamped, and named before any request."""
    output = failed(dexory, sandbox, base_retry_delay=value).output
    assert "base_retry_delay must be a number of seconds from 0.1 to 60" in output
    assert sandbox.requests == []


def test_waits_double_from_the_base_delay(
    dexory: Project, sandbox: Dexory, waits: list[float]
) -> None:
    """`base_retry_delay * 2**retry`: 2, 4 and 8 s by default, half of each random."""
    sandbox.fault(PATH, times=None, status=503)
    failed(dexory, sandbox)
    failed(dexory, sandbox, base_retry_delay="0.1", retry_attempts="1")
    bounds = [2, 4, 8, 0.1]
    assert len(waits) == len(bounds)
    assert all(b / 2 <= wait <= b for wait, b in zip(waits, bounds, strict=True))


def test_the_log_says_what_was_done_to_each_table(
    dexory: Project, sandbox: Dexory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How it is read, how far it has come, and in the end what was read and sent."""
    load("dexory")
    monkeypatch.setattr("shared.report._INTERVAL", 0.0)
    output = synced(dexory, sandbox, **MANY).output
    assert "locations: new pass, from the first page" in output
    assert "locations: page 20, 100 records read, " in output
    objects = len(dexory.rows(OBJECTS))
    assert re.search(r" locations +new pass +130 +130 +0 +0 ", output)
    assert re.search(rf" {OBJECTS} +new pass +{objects} +{objects} +0 +0 ", output)


# Links


def test_a_server_that_caps_pages_loses_nothing(dexory: Project) -> None:
    """A page of ten records where 25 were requested is not the end."""
    with Dexory(cap=10) as sandbox:
        synced(dexory, sandbox)
        assert len(sandbox.requests) == 13
        assert_equal_to_source(dexory, sandbox)


@pytest.mark.parametrize("links", ["absolute", "path", "query"])
def test_where_next_is_left_out_the_last_page_is_the_end(dexory: Project, links: str) -> None:
    """JSON:API allows both forms; `last` must be the link of this very page."""
    with Dexory(names_no_end=True, links=links, key_in="query", repeats_key=True) as sandbox:
        synced(dexory, sandbox)
        assert [request.status for request in sandbox.requests] == [401] + [200] * 6
        assert_equal_to_source(dexory, sandbox)


def test_an_empty_page_is_not_the_end(dexory: Project, sandbox: Dexory) -> None:
    """The link tells whether a page follows, not the number of records."""
    query = {"site": SITE, "page[size]": 25, "page[number]": 2, "again": 1}
    sandbox.fault(PATH, skip=1, **response(following=f"?{urlencode(query)}"))
    synced(dexory, sandbox)
    assert numbers(sandbox) == [1, 2, 2, 3, 4, 5, 6]
    assert_equal_to_source(dexory, sandbox)


@pytest.mark.parametrize(
    "links",
    [
        *({}, None, {"last": None}, {"next": 7}, {"next": ""}, {"next": "http://["}),
        *wide([], "x", {"last": 1}, {"last": ""}, {"last": "?page[number]=1"}),
        *wide({"next": False}, {"next": 0}, {"next": []}, {"next": {"href": "/x"}}),
        *wide({"next": "http://127.0.0.1:x/"}, {"next": "/" + "x" * 5_000}),
    ],
)
def test_links_that_are_not_understood_are_not_the_end(
    dexory: Project, sandbox: Dexory, links: Any
) -> None:
    """Only null is the end. The earlier objects stay, and no place is kept."""
    synced(dexory, sandbox)
    before = dexory.rows(OBJECTS)
    records = [record for record in sandbox.scans[:2] if record[OBJECTS]]
    body = json.dumps({"data": records, "links": links})
    sandbox.fault(PATH, status=200, body=body)
    output = failed(dexory, sandbox).output
    assert f"{PATH}: " in output
    assert "UnexpectedError" not in output
    assert dexory.rows(OBJECTS) == before
    assert dexory.state["stop"] is None
    synced(dexory, sandbox)
    assert_equal_to_source(dexory, sandbox)


@pytest.mark.parametrize(
    "form",
    [
        "http://{elsewhere}{path}",
        "//{elsewhere}{path}",
        "http://{elsewhere}\\@{here}{path}",
        "http://{elsewhere};@{here}{path}",
        "http://{here}@{elsewhere}{path}",
        "https://{here}{path}",
        "http://{elsewhere}{path}/{key}?api_key={key}",
    ],
)
def test_a_foreign_link_gets_no_request_and_no_key(
    dexory: Project, sandbox: Dexory, form: str
) -> None:
    """In whatever form it names the other server. The pages before it do not count as the whole
    list."""
    with Dexory() as elsewhere:
        hosts = {"here": sandbox.url[7:], "elsewhere": elsewhere.url[7:]}
        link = form.format(path=PATH, key=sandbox.api_key, **hosts)
        sandbox.fault(PATH, skip=1, **response(location(), following=link))
        output = failed(dexory, sandbox).output
        assert elsewhere.requests == []
        assert len(sandbox.requests) == 2
        assert sandbox.api_key not in output
        assert "stop" not in dexory.state if (dexory.path / "files/state.json").exists() else True


@pytest.mark.parametrize("form", ["/{key}/locations", "?page[after]=x{key}x", "?{key}"])
def test_a_link_that_quotes_the_key_otherwise_is_refused(
    dexory: Project, sandbox: Dexory, form: str
) -> None:
    """The key would come into the log or the state."""
    sandbox.fault(PATH, **response(location(), following=form.format(key=sandbox.api_key)))
    output = failed(dexory, sandbox).output
    assert "links.next is not the link of a page" in output
    assert len(sandbox.requests) == 1
    assert sandbox.api_key not in output


@pytest.mark.parametrize(
    ("start", "end"), [(1, 1), (2, 1), (3, 3), (5, 2), (6, 1), (6, 5), (26, 1)]
)
def test_links_in_a_circle_end_the_sync(
    dexory: Project, sandbox: Dexory, start: int, end: int
) -> None:
    """Whatever the length of the circle and of the way to it; the number of requests is
    bounded."""
    sandbox.leads = {start: end}
    output = failed(dexory, sandbox, **MANY).output
    assert "the links begin again" in output or "the one before it repeat others" in output
    assert len(sandbox.requests) <= 3 * start + 2


def test_a_circle_longer_than_a_sync_is_found_by_later_ones(
    dexory: Project, sandbox: Dexory
) -> None:
    """The state holds what is known of earlier links."""
    sandbox.leads = {9: 2}
    results = [dexory.sync(sandbox.configuration(**MANY, max_pages="4")) for _ in range(8)]
    first_failure = [result.code for result in results].index(1)
    assert "the links begin again" in results[first_failure].output


def test_a_server_that_ignores_the_page_is_noticed(dexory: Project, sandbox: Dexory) -> None:
    """Ever new links to the same records do not keep the sync busy for ever."""
    sandbox.stuck = True
    output = failed(dexory, sandbox).output
    assert f"{PATH}: page 3 and the one before it repeat others" in output
    assert len(sandbox.requests) == 3


def test_repeated_pages_are_known_by_their_keys(dexory: Project, sandbox: Dexory) -> None:
    """Other fields of a record may change from response to response."""
    sandbox.stuck = sandbox.signs_anew = True
    output = failed(dexory, sandbox).output
    assert f"{PATH}: page 3 and the one before it repeat others" in output
    assert len(sandbox.requests) == 3


def test_pages_of_records_without_a_name_are_no_repeat(dexory: Project) -> None:
    """Such pages are told apart by their whole records."""
    with Dexory(locations=40) as sandbox:
        for position in range(4):
            sandbox.change("locations", position, name=None, scan_date=None, **{OBJECTS: None})
        synced(dexory, sandbox, page_size="1")


def test_a_page_that_was_moved_on_is_no_repeat(dexory: Project) -> None:
    """A page's worth of locations was added before it."""
    with Dexory(locations=5) as sandbox:
        sandbox.fault(PATH, skip=2, act=lambda: sandbox.scan(0, at=0))
        for _ in range(2):
            synced(dexory, sandbox, page_size="1")
        assert_equal_to_source(dexory, sandbox)


@pytest.mark.parametrize(
    ("given_link", "expected"),
    [
        ("?page=2", "https://h/a/b?page=2"),
        ("/c?x=%20&y=", "https://h/c?x=%20&y="),
        ("https://other/c", "https://other/c"),
        ("http://h/c", "https://h/c"),
        ("http://H:443/c?page=2", "https://H:443/c?page=2"),
        ("http://h:80/c", "http://h:80/c"),
        ("http://h:8443/c", "http://h:8443/c"),
        ("http://other/c", "http://other/c"),
        ("http://h.other/c", "http://h.other/c"),
        ("?page=2&api_key=other&x=1", "https://h/a/b?page=2&x=1"),
        ("?api_key=k%2Fey", "https://h/a/b"),
        ("?a=1&token=k/ey&b=k%2Fey", "https://h/a/b?a=1"),
        ("?a=" + "x" * 3984, "https://h/a/b?a=" + "x" * 3984),
        ("?a=" + "x" * 3985, None),
        *(
            (link, None)
            for link in ("", "https://u@h/c", "https://h\\g/c", "https://h\\@g/c", "https://h:0/c")
        ),
        *(
            (link, None)
            for link in ("http://u@h/c", "http://h\\@g/c", "http://h:0/c", "http://h:x/")
        ),
        *(
            (link, None)
            for link in ("\\\\g\\c", "/\\g/c", "?page=2\n", "\t?page=2", "https:\t//h/c")
        ),
        ("../c?page=2", "https://h/c?page=2"),
        *((link, None) for link in ("http:////g/c", "http:////h:x/c", "http:///c", "mailto:h")),
        *((link, None) for link in ("/k%2Fey", "?a=1k/ey", "?k/ey", "#k/ey", "https://h:x/c")),
    ],
)
def test_where_a_link_leads(given_link: str, expected: str | None) -> None:
    """It is relative to its page, and loses the key; a link that may mean two hosts is refused."""
    load("dexory")
    resolve = import_module("page_links").resolve
    if expected is None:
        with pytest.raises(ValueError):  # noqa: PT011  # its text is not shown
            resolve("https://h/a/b?page=1", given_link, "k/ey")
    else:
        assert resolve("https://h/a/b?page=1", given_link, "k/ey") == expected


KEY_OF_SIGNS = "aB+c/d=="


@pytest.mark.parametrize(
    "written",
    [
        *("aB+c/d==", "aB%2Bc%2Fd%3D%3D", "aB%2bc/d%3d=", "%61%42%2B%63%2F%64%3D%3D"),
        *("%2561B%252Bc/d==", "%252561B+c/d==", "aB%252Bc%252Fd%253D%253D", "a%42+c%2fd=="),
    ],
)
@pytest.mark.parametrize("name", ["token", "api_key", "api%5Fkey", "%2561pi_key"])
def test_the_key_is_taken_out_of_a_link_however_it_is_written(written: str, name: str) -> None:
    """Escaped or not, once or several times, with a ``+`` that stands for itself."""
    load("dexory")
    resolve = import_module("page_links").resolve
    found = resolve("https://h/a?page=1", f"?x=1+2&{name}={written}&page=2", KEY_OF_SIGNS)
    assert found == "https://h/a?x=1+2&page=2"


@pytest.mark.parametrize(
    "given_link",
    [
        *("/aB+c/d==/b", "/%61B%2Bc%2Fd==", "?x=1aB%252Bc/d==", "#aB%2Bc/d==", "?aB%2Bc%2Fd=="),
        *("?x=Bearer+aB%2Bc/d==", "?x=1;token=aB+c/d==", "?x=%25252525252525252561", "/AB+C/D=="),
    ],
)
def test_a_link_that_holds_the_key_otherwise_is_refused(given_link: str) -> None:
    """However it is written; so is a link that can be decoded for ever."""
    load("dexory")
    with pytest.raises(ValueError):  # noqa: PT011  # its text is not shown
        import_module("page_links").resolve("https://h/a?page=1", given_link, KEY_OF_SIGNS)


def test_a_key_in_the_host_of_a_link_is_not_shown(dexory: Project, sandbox: Dexory) -> None:
    """A host does not depend on case."""
    link = f"https://{sandbox.api_key.upper()}.example.com/"
    sandbox.fault(PATH, **response(location(), following=link))
    output = failed(dexory, sandbox).output
    assert "links.next is not the link of a page" in output
    assert sandbox.api_key.lower() not in output.lower()


def test_a_link_by_http_is_followed_by_https(
    dexory: Project, sandbox: Dexory, tmp_path: Path
) -> None:
    """Behind a proxy that ends TLS the source writes http links to its own host and port. A link
    to another host or port gets no request; nothing is sent in the clear."""
    authority = tls.Authority()
    (tmp_path / "ca.pem").write_text(authority.pem)
    dexory.environment["REQUESTS_CA_BUNDLE"] = str(tmp_path / "ca.pem")
    context = tls.server_context("valid", authority, tmp_path)
    server = make_server("localhost", 0, sandbox.app, ssl_context=context)
    serving = threading.Thread(target=server.serve_forever, args=(0.05,))
    serving.start()
    url, sandbox.url = sandbox.url, f"http://localhost:{server.server_port}"
    secure = {"base_url": f"https://localhost:{server.server_port}"}
    try:
        synced(dexory, sandbox, **secure)
        assert_equal_to_source(dexory, sandbox)
        for foreign in (url, f"http://localhost:{url.rpartition(':')[2]}", "http://localhost"):
            sandbox.url = foreign
            assert "it gets no request" in failed(dexory, sandbox, **secure).output
        assert sandbox.requests == []  # of the port without TLS
    finally:
        server.shutdown()
        serving.join()
        server.server_close()


@pytest.mark.parametrize(
    ("there", "is_it"),
    [
        ("https://h/a?page=2&size=5", True),
        ("https://H:443/a?size=5&page=2", True),
        ("http://h/a?page=2&size=5", True),
        ("?size=5&page=2&api_key=key", True),
        ("?size=5&page=3", False),
        ("?page=2", False),
        ("?page=2&size=5&size=5", False),
        ("/b?page=2&size=5", False),
        ("https://g/a?page=2&size=5", False),
        ("https://h:8443/a?page=2&size=5", False),
        *(("", False), (None, False), (2, False), ([], False), ({}, False)),
        ("https://h:x/a?page=2&size=5", False),
    ],
)
def test_what_is_this_very_page(there: Any, is_it: bool) -> None:
    """The same host, path and query, in whatever order and form."""
    load("dexory")
    is_page = import_module("page_links").is_page
    assert is_page("https://h/a?page=2&size=5", there, "key") is is_it


# Passes


NewPass = Callable[..., Any]
NOW = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
FIRST = "https://h/list?page=1"


@pytest.fixture
def operations(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The operations that the SDK is given, at NOW."""
    done: list[Any] = []
    for name in ("upsert", "truncate", "warning", "checkpoint"):
        monkeypatch.setattr(
            Operations, name, lambda *given, name=name: done.append((name, *deepcopy(given)))
        )
    with time_machine.travel(NOW, tick=False):
        yield done


def stopped(**changes: Any) -> dict[str, Any]:
    """A state whose place is page 3 of the list, half an hour ago."""
    load("dexory")
    place: dict[str, Any] = {"list": digest(FIRST), "started": "2026-01-31T11:00:00Z"}
    place |= {"link": "https://h/list?page=3", "number": 3, "mark": "m"}
    stop = {**place, "saved_at": "2026-01-31T11:30:00Z", **changes}
    return {"version": 1, "tables": {OBJECTS: {"rows": 7}}, "stop": stop}


@pytest.fixture
def new_pass() -> Iterator[Callable[..., Any]]:
    with Spool() as locations, Spool() as objects:
        yield lambda state, skipped=None: load("dexory").Pass(
            State(state, (OBJECTS,)), skipped or SkippedRecords(), FIRST, locations, objects
        )


def counted(operations: list[Any]) -> dict[str, Any]:
    """What the last checkpoint says of the objects, but for their fingerprint."""
    entry = operations[-1][1]["tables"][OBJECTS]
    return {key: value for key, value in entry.items() if key != "fingerprint"}


def page(number: int, *records: Any, following: Place | None = None) -> Page:
    place = Place(f"https://h/list?page={number}", number, "n")
    return Page(list(records), number, place=place, following=following)


@pytest.mark.parametrize(
    ("changes", "resumed"),
    [
        ({}, True),
        ({"saved_at": "2026-01-31T12:00:00Z"}, True),
        ({"saved_at": "2026-01-31T11:00:00Z"}, True),
        ({"saved_at": "2026-01-31T10:59:59.999999Z"}, False),
        ({"saved_at": "2026-01-31T12:00:00.000001Z"}, False),
        ({"list": "another"}, False),
    ],
)
def test_where_a_pass_resumes(
    operations: list[Any], new_pass: NewPass, changes: dict[str, Any], resumed: bool
) -> None:
    """At the place of the last sync, if that is at most an hour old and in the same list. Older
    versions also noted there whether they had replaced the objects."""
    for older in ({}, {"replaced": True}, {"replaced": False}):
        current = new_pass(stopped(**changes, **older))
        assert current.resumed is resumed
        assert current.place == (
            Place("https://h/list?page=3", 3, "m") if resumed else Place(FIRST)
        )
        current.finish()
        started = "2026-01-31T11:00:00Z" if resumed else "2026-01-31T12:00:00Z"
        assert operations[-1][1]["last_sync_time"] == started
        assert operations[-1][1]["stop"] is None


def objects_of(operations: list[Any]) -> list[Any]:
    """Name, SKU and occurrence of each object, and "truncate" where their table was truncated."""
    return [
        (rest[0]["name"], rest[0]["sku"], rest[0]["occurrence"]) if rest else name
        for name, table, *rest in operations
        if table == OBJECTS
    ]


def test_the_place_of_a_pass(operations: list[Any], new_pass: NewPass) -> None:
    """It is the page that was stored last, and when the pass began. Its objects are handed over
    before the checkpoint, and once more when they replace the table."""
    current, stored = new_pass({}), page(1, location("A1"))
    current.store(stored)
    current.save(stored)
    place: dict[str, Any] = {"link": "https://h/list?page=1", "number": 1, "mark": "n"}
    place |= {"saved_at": "2026-01-31T12:00:00Z"}
    place |= {"list": stopped()["stop"]["list"], "started": "2026-01-31T12:00:00Z"}
    assert operations[-1][1]["stop"] == place
    assert counted(operations) == {}
    current.store(page(2, location("A2", {"sku": "x"}, {"sku": "x"}, {"sku": "y"})))
    current.store(page(3, location("A3", {"sku": "x"})))
    current.save(stored)
    assert operations[-1][1]["stop"] == place
    assert counted(operations) == {"rows": 4}
    assert "last_sync_time" not in operations[-1][1]
    found = [("A2", "x", 1), ("A2", "x", 2), ("A2", "y", 1), ("A3", "x", 1)]
    assert objects_of(operations) == found
    current.store(page(4, location("A4", {"sku": "z"})))
    current.finish()
    found += [("A4", "z", 1)]
    assert objects_of(operations) == [*found, "truncate", *found]
    assert counted(operations) == {"rows": 5}


def test_a_resumed_pass_does_not_replace(operations: list[Any], new_pass: NewPass) -> None:
    """The objects of its first pages may be gone by now. The number of rows stays that of the last
    whole pass."""
    current = new_pass(stopped())
    current.store(page(4, location("A4", {"sku": "x"})))
    current.finish()
    assert objects_of(operations) == [("A4", "x", 1)]
    assert counted(operations) == {"rows": 7}
    [warning] = [text for name, text, *_ in operations if name == "warning"]
    assert "an earlier sync read the first pages. The rows were stored (1 objects)" in warning


def test_a_pass_whose_place_is_gone_begins_with_the_first_page(
    operations: list[Any], new_pass: NewPass
) -> None:
    """It replaces the objects, and its own beginning counts."""
    current = new_pass(stopped())
    current.store(page(1, location("A1", {"sku": "x"})))
    current.finish()
    assert objects_of(operations) == ["truncate", ("A1", "x", 1)]
    assert counted(operations) == {"rows": 1}
    assert operations[-1][1]["last_sync_time"] == "2026-01-31T12:00:00Z"


@pytest.mark.parametrize(
    ("known", "done", "after"),
    [
        ({}, [], {"emptied": True}),
        ({"rows": 7}, ["warning"], {"rows": 7, "emptied": True}),
        ({"rows": 0}, ["truncate"], {"rows": 0}),
        ({"rows": 7, "emptied": True}, ["truncate"], {"rows": 0}),
        ({"emptied": True}, ["truncate"], {"rows": 0}),
    ],
)
def test_a_pass_without_objects(
    operations: list[Any],
    new_pass: NewPass,
    known: dict[str, Any],
    done: list[str],
    after: dict[str, Any],
) -> None:
    """It empties the table only if the last pass had none, either; before that, a warning says
    so."""
    current = new_pass({"version": 1, "tables": {OBJECTS: known}})
    current.store(page(1))
    current.finish()
    assert [name for name, *_ in operations] == [*done, "checkpoint"]
    assert counted(operations) == after


@pytest.mark.parametrize("ends", ["save", "finish"])
@pytest.mark.parametrize(
    ("known", "after"),
    [
        ({}, {"rows": 1}),
        ({"rows": 0}, {"rows": 1}),
        ({"rows": 7, "emptied": True}, {"rows": 7}),
        ({"emptied": True}, {"rows": 1}),
    ],
)
def test_objects_that_a_part_of_a_pass_added_are_guarded(
    operations: list[Any],
    new_pass: NewPass,
    known: dict[str, Any],
    after: dict[str, Any],
    ends: str,
) -> None:
    """The next list without objects counts as one that became empty."""
    current = new_pass({**stopped(), "tables": {OBJECTS: known}})
    stored = page(3, location("A4", {"sku": "x"}))
    current.store(stored)
    current.finish() if ends == "finish" else current.save(stored)
    assert counted(operations) == after


def test_equal_objects_are_counted_in_linear_time() -> None:
    """Those of a location that differ in further fields alone, too: none is compared with all."""
    occurrences, compared = load("dexory")._Occurrences(), list[int]()

    class Fields(dict[str, Any]):
        __hash__ = None

        def __eq__(self, other: object) -> bool:
            compared.append(1)
            return super().__eq__(other)

    values = (("sku", "x"),)
    for number in range(2_000):
        assert occurrences.count(values, Fields(n=number)) == 1
    assert occurrences.count(values, Fields(n=7)) == occurrences.count(values, {"n": 0}) == 2
    assert [occurrences.count((), None), occurrences.count((), None)] == [1, 2]
    assert occurrences.count((), {"a": 1, "b": [2]}) == 1
    assert occurrences.count((), {"b": [2], "a": 1}) == 2
    assert not compared


@pytest.mark.parametrize("at_once", [5_000, 1])
def test_records_of_a_page_are_named_by_their_place(
    at_once: int, operations: list[Any], new_pass: NewPass, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records that can be stored are, however many become rows at once; the objects of a skipped
    location are counted, too."""
    monkeypatch.setattr(load("dexory"), "RECORDS_AT_ONCE", at_once)
    skipped = SkippedRecords()
    current = new_pass({}, skipped)
    records = [location("A1", {"sku": "x"}), location(None, {"sku": "y"})]
    records += [location("A2", 5, {"sku": "z"})]
    current.store(page(1))
    last = page(2, *records)
    current.store(last)
    assert skipped.examples == {
        "locations": ["page 2, record 2: name is missing"],
        OBJECTS: [
            "page 2, record 2, object 1: its location cannot be stored",
            "page 2, record 3, object 1: it is not an object",
        ],
    }
    current.save(last)
    stored = [(table, row["name"]) for name, table, *rest in operations for row in rest]
    assert sorted(stored) == [(t, n) for t in (OBJECTS, "locations") for n in ("A1", "A2")]
    with pytest.raises(
        SourceError, match=r"locations: 1 record skipped.* more than a tenth of 3$"
    ):
        current.finish()


@pytest.mark.parametrize(("count", "fails"), [(9, False), (8, True)])
def test_skipped_objects_are_counted_against_all_objects(
    operations: list[Any], new_pass: NewPass, count: int, fails: bool
) -> None:
    """Up to a tenth is reported, and nothing is replaced; more end the sync before the
    checkpoint."""
    current = new_pass({"version": 1, "tables": {OBJECTS: {"rows": 5}}})
    current.store(page(1, location("A1", {"sku": "x"}), location("A2", *[{"sku": "y"}] * 4)))
    current.store(page(2, location("A3", 5, *[{"sku": "z"}] * (count - 5))))
    if fails:
        with pytest.raises(SourceError, match=f"more than a tenth of {count + 1}$"):
            current.finish()
        assert "checkpoint" not in [name for name, *_ in operations]
    else:
        current.finish()
        assert "truncate" not in objects_of(operations)
        assert len(objects_of(operations)) == count
        assert counted(operations) == {"rows": 5}


def test_equal_objects_are_told_apart_in_whatever_order_their_fields_come(
    operations: list[Any], new_pass: NewPass
) -> None:
    """Fields without a column, too."""
    things = [{"sku": "x", "a": 1, "b": 2}, {"b": 2, "a": 1, "sku": "x"}, {"sku": "x", "a": 1}]
    current = new_pass({})
    current.store(page(1, location("A1", *things)))
    current.finish()
    found = [("A1", "x", 1), ("A1", "x", 2), ("A1", "x", 1)]
    assert objects_of(operations) == ["truncate", *found]


def test_a_pass_that_finds_what_the_last_one_found_sends_nothing(
    dexory: Project, sandbox: Dexory
) -> None:
    """Scans that the destination has are not sent again. Objects have no key, so when one changed
    all are sent; where only they changed, no location is."""
    synced(dexory, sandbox)
    for _ in range(2):
        counts = synced(dexory, sandbox).counts
        assert (counts["Upserts"], counts["Truncates"], counts["Checkpoints"]) == (0, 0, 1)
    sandbox.change("locations", 0, **{sandbox.field: [{"sku": "the only one now"}]})
    with handed_over() as sent:
        assert synced(dexory, sandbox).counts["Truncates"] == 1
    assert not sent["locations"]
    assert len(sent[OBJECTS]) == len(sandbox.expected()[OBJECTS])
    assert_equal_to_source(dexory, sandbox)


def test_of_many_scans_those_that_changed_are_sent(
    dexory: Project, sandbox: Dexory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And few others. Scans that left the list stay, and need no other to be sent."""
    monkeypatch.setattr("shared.fingerprint._FEW_ROWS", 10)
    for record in sandbox.scans:
        record[sandbox.field] = []
    for _ in range(2):  # of a first load no part is told from another
        synced(dexory, sandbox)
    sandbox.delete("locations", 5)
    assert synced(dexory, sandbox).counts["Upserts"] < 20
    sandbox.scan(7)
    sandbox.change("locations", 9, status="another")
    assert 2 <= synced(dexory, sandbox).counts["Upserts"] < 40
    assert_equal_to_source(dexory, sandbox)
    assert synced(dexory, sandbox).counts["Upserts"] == 0


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_killed_pass_leaves_a_state_that_tells_nothing_false(
    dexory: Project, sandbox: Dexory, number: int
) -> None:
    """Between the rows and the state of a checkpoint, in one step or several; then the source has
    what it had before."""
    synced(dexory, sandbox)
    before = deepcopy(sandbox.scans)
    sandbox.change("locations", 0, status="another")
    sandbox.change("locations", 1, **{sandbox.field: [{"sku": "the only one now"}]})
    crashing = {"max_pages": str(number)} if number > 2 else {}
    with Process("in-checkpoint", number).running(), suppress(Crash):
        dexory.sync(sandbox.configuration(page_size="40", **crashing))
    sandbox.scans[:] = before
    for _ in range(2):  # the first may resume the pass
        synced(dexory, sandbox)
    assert_equal_to_source(dexory, sandbox)


def test_a_location_that_came_twice_is_sent_again(dexory: Project, sandbox: Dexory) -> None:
    """The later one counts, in whatever order they come."""
    first = sandbox.scans[0]
    other = {**first, "status": "another"}
    for pair in ([first, other], [other, first], [first, other]):
        sandbox.scans[:2] = pair
        synced(dexory, sandbox)
        [stored] = {
            row["status"] for row in dexory.rows("locations") if row["name"] == first["name"]
        }
        assert stored == pair[-1]["status"]


@pytest.fixture
def twenty(dexory: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes of more than 20 pages, in place of 200, checkpoint on their way."""
    monkeypatch.setattr(load("dexory"), "PAGES_AT_ONCE", 20)
    code = dexory.path / "connector.py"
    text = code.read_text()
    code.write_text(text.replace("PAGES_AT_ONCE = 200", "PAGES_AT_ONCE = 20"))
    assert code.read_text() != text


@pytest.mark.usefixtures("twenty")
@pytest.mark.parametrize(
    ("page_size", "checkpoints"), [("7", 1), ("6", 3), *wide(("1000", 1), ("5", 8))]
)
def test_a_long_pass_checkpoints_page_by_page(
    dexory: Project, sandbox: Dexory, page_size: str, checkpoints: int
) -> None:
    """Here up to 20 pages are one step; the table of objects is truncated once in any case. When
    rows change, one more checkpoint withdraws what the state tells of them."""
    for withdrawals in (0, 1):
        sandbox.scan(3)
        counts = synced(dexory, sandbox, page_size=page_size).counts
        assert (counts["Checkpoints"], counts["Truncates"]) == (checkpoints + withdrawals, 1)
        assert_equal_to_source(dexory, sandbox)
        assert dexory.state["stop"] is None


def test_two_hundred_pages_are_one_step(dexory: Project) -> None:
    """The README states the number."""
    with Dexory(locations=200) as sandbox:
        assert synced(dexory, sandbox, page_size="1").counts["Checkpoints"] == 1
        assert len(sandbox.requests) == 200


def test_max_pages_ends_a_sync_and_the_next_one_resumes(dexory: Project, sandbox: Dexory) -> None:
    """Each such sync warns, and the next one reads one page again, until all rows are there.
    Nothing is deleted before a sync reads the whole list."""
    synced(dexory, sandbox)  # objects that the pass no longer finds
    sandbox.change_something()
    sandbox.requests.clear()
    asked = []
    for _ in range(3):
        result = synced(dexory, sandbox, **MANY, max_pages="10")
        asked.append(numbers(sandbox))
        limit_reached = len(asked) < 3
        assert ("more pages than max_pages" in result.output) == limit_reached
        assert ("deletes were not looked for" in result.output) != limit_reached
        assert (dexory.state["stop"] is not None) == limit_reached
        assert result.counts.get("Truncates", 0) == 0
        assert dexory.rows(OBJECTS, deleted=True) == []
    assert asked == [[*range(1, 11)], [*range(10, 21)], [*range(20, 28)]]
    assert_nothing_is_missing(dexory, sandbox)
    synced(dexory, sandbox)
    assert_equal_to_source(dexory, sandbox)


def test_a_limit_of_one_page_is_passed_in_the_end(dexory: Project, sandbox: Dexory) -> None:
    """The page that is read again does not count."""
    for _ in range(6):
        synced(dexory, sandbox, max_pages="1")
    assert numbers(sandbox) == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6]
    assert_equal_to_source(dexory, sandbox)


def test_exactly_max_pages_are_a_whole_pass(dexory: Project, sandbox: Dexory) -> None:
    """There is no warning, and no place to resume from."""
    result = synced(dexory, sandbox, max_pages="6")
    assert "more pages than max_pages" not in result.output
    assert dexory.state["stop"] is None


@pytest.mark.parametrize(("minutes", "page"), [(59, 2), (61, 1), (-1, 1)])
def test_a_place_is_kept_for_an_hour(
    dexory: Project, sandbox: Dexory, minutes: int, page: int
) -> None:
    """An older place, or one of a clock that was wrong, begins a new pass."""
    synced(dexory, sandbox, max_pages="2")
    numbers(sandbox)
    with time_machine.travel(datetime.now(timezone.utc) + timedelta(minutes=minutes)):
        synced(dexory, sandbox)
        assert numbers(sandbox)[0] == page
        assert_equal_to_source(dexory, sandbox)


@pytest.mark.parametrize("changes", [{"page_size": "30"}, {"customer": "other"}])
def test_a_place_is_kept_for_the_same_list(
    dexory: Project, sandbox: Dexory, changes: dict[str, str]
) -> None:
    """Other settings begin a new pass."""
    synced(dexory, sandbox, max_pages="2")
    numbers(sandbox)
    sandbox.customer = changes.get("customer", "")
    synced(dexory, sandbox, **changes)
    assert numbers(sandbox)[0] == 1
    assert_equal_to_source(dexory, sandbox)


def test_a_place_that_is_gone_begins_a_new_pass(dexory: Project, sandbox: Dexory) -> None:
    """It begins at once, with a warning, and not after an hour."""
    synced(dexory, sandbox, max_pages="3")
    numbers(sandbox)
    sandbox.change_something()
    sandbox.fault(PATH, status=404, body='{"error": "no such page"}')
    result = synced(dexory, sandbox)
    assert "A new pass begins" in result.output
    assert numbers(sandbox) == [3, 1, 2, 3, 4, 5, 6]
    assert result.counts["Truncates"] == 1
    assert_equal_to_source(dexory, sandbox)


def test_what_concerns_every_page_begins_no_new_pass(
    dexory: Project, sandbox: Dexory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that does not respond does not mean that the place is gone."""
    synced(dexory, sandbox, max_pages="3")

    def fetch(*_: object) -> Any:
        raise SourceUnavailable("nobody responds")

    monkeypatch.setattr(load("dexory"), "fetch_locations_with_retry", fetch)
    output = failed(dexory, sandbox).output
    assert "nobody responds" in output
    assert "A new pass begins" not in output
    assert dexory.state["stop"]["number"] == 3


def test_a_failure_later_in_a_pass_keeps_the_place(dexory: Project, sandbox: Dexory) -> None:
    """It does not begin a new pass."""
    synced(dexory, sandbox, **MANY, max_pages="22")
    sandbox.fault(PATH, skip=1, status=404)
    failed(dexory, sandbox, **MANY)
    numbers(sandbox)
    synced(dexory, sandbox, **MANY)
    assert numbers(sandbox)[0] == 22
    assert_equal_to_source(dexory, sandbox)


@pytest.mark.parametrize(
    "stop",
    [
        "here",
        7,
        {"list": None},
        {"link": "/x"},
        ["list"],
    ],
)
def test_a_place_of_another_form_is_an_error(dexory: Project, sandbox: Dexory, stop: Any) -> None:
    """The pass does not begin anew, and nothing is requested."""
    synced(dexory, sandbox, max_pages="1")
    known = dexory.state["stop"]
    if isinstance(stop, dict):
        stop = {**stop, **({"list": known["list"]} if "list" in stop else {})}
    sandbox.requests.clear()
    result = dexory.sync(sandbox.configuration(), {**dexory.state, "stop": stop})
    assert result.code == 1
    assert "holds no place in the list" in result.output
    assert sandbox.requests == []


@pytest.mark.parametrize(
    "changes",
    [
        *({"number": number} for number in (True, 0, -1, "3", 3.0, None)),
        *({"link": link} for link in ("x", None, 5)),
        {"list": 5},
        {"mark": None},
        {"saved_at": "soon"},
    ],
)
def test_a_place_with_a_value_of_another_form_is_an_error(changes: dict[str, Any]) -> None:
    """Pages before it would be taken for read, or none could be requested."""
    assert load("dexory").Stop.from_json(stopped()["stop"]).place.number == 3
    with pytest.raises(ConnectorError, match=r"no place in the list: deploy .* or re-sync"):
        load("dexory").Stop.from_json(stopped(**changes)["stop"])


@pytest.mark.posix
@pytest.mark.usefixtures("twenty")
@pytest.mark.parametrize("request_number", [20, 26, *wide(21, 22)])
def test_killed_in_a_long_pass_the_next_sync_goes_on(
    dexory: Project, sandbox: Dexory, request_number: int
) -> None:
    """kill -9: rows of the checkpoints are there, the next sync brings the rest, and the one after
    it deletes what is gone."""
    synced(dexory, sandbox)
    sandbox.change_something()
    sandbox.requests.clear()
    _kill_at(dexory, sandbox, request_number, **MANY)
    reached = len(numbers(sandbox))
    result = dexory.sync(sandbox.configuration(**MANY))
    assert result.code == 0, result.output
    # While a page is stored the next two are read. The first 20 pages are one checkpoint.
    places = {page if page >= 20 else 1 for page in range(reached - 3, reached)}
    assert numbers(sandbox)[0] in places
    assert_nothing_is_missing(dexory, sandbox)
    synced(dexory, sandbox)
    assert_equal_to_source(dexory, sandbox)


@pytest.mark.posix
def test_killed_in_a_short_pass_nothing_is_seen_of_it(dexory: Project, sandbox: Dexory) -> None:
    """The earlier objects stay until the new ones are whole."""
    synced(dexory, sandbox)
    before = {table: dexory.rows(table) for table in ("locations", OBJECTS)}
    sandbox.change_something()
    _kill_at(dexory, sandbox, 5)
    assert {table: dexory.rows(table) for table in before} == before
    synced(dexory, sandbox)
    assert_equal_to_source(dexory, sandbox)


def _kill_at(project: Project, sandbox: Dexory, request_number: int, **changes: str) -> None:
    running: list[Any] = []
    act = lambda: os.kill(running[0].pid, signal.SIGKILL)  # noqa: E731
    sandbox.fault(PATH, skip=request_number - 1, act=act)
    with sandbox.lock:  # no response is sent until the process is known
        running.append(project.start(sandbox.configuration(**changes)))
    output, _ = running[0].communicate(timeout=60)
    assert running[0].returncode == -signal.SIGKILL, output


def test_the_state_tells_when_the_last_whole_pass_began(dexory: Project, sandbox: Dexory) -> None:
    """A pass over two syncs began with the first one."""
    before = datetime.now(timezone.utc)
    synced(dexory, sandbox, max_pages="3")
    assert "last_sync_time" not in dexory.state
    between = datetime.now(timezone.utc)
    synced(dexory, sandbox)
    told = datetime.fromisoformat(dexory.state["last_sync_time"].replace("Z", "+00:00"))
    assert before <= told <= between


# Pages that drift


def test_a_scan_inserted_while_pages_are_read_doubles_nothing(
    dexory: Project, sandbox: Dexory
) -> None:
    """The record that moves to the next page comes twice, and its objects with it. Other records
    may have been missed, so nothing is deleted."""
    sandbox.change("locations", 24, **{OBJECTS: [{"sku": "twin"}, {"sku": "twin"}]})
    synced(dexory, sandbox)
    sandbox.change_something()
    sandbox.fault(PATH, skip=1, act=lambda: sandbox.scan(3, at=0))
    result = synced(dexory, sandbox)
    assert f"{OBJECTS}: 1 of the locations came on several pages" in result.output
    assert "nothing was replaced: deletes were not looked for" in result.output
    assert dexory.rows(OBJECTS, deleted=True) == []
    twins = [row["occurrence"] for row in dexory.rows(OBJECTS) if row["sku"] == "twin"]
    assert sorted(twins) == [1, 2]
    synced(dexory, sandbox)
    assert_equal_to_source(dexory, sandbox)


def test_a_scan_that_slips_through_arrives_with_the_next_sync(
    dexory: Project, sandbox: Dexory
) -> None:
    """A scan that leaves the list during a pass moves another scan onto a page that was read
    already."""
    sandbox.fault(PATH, skip=1, act=lambda: sandbox.delete("locations", 0))
    synced(dexory, sandbox)
    synced(dexory, sandbox)
    assert_equal_to_source(dexory, sandbox)


def test_rows_that_moved_while_a_sync_was_stopped_are_read(
    dexory: Project, sandbox: Dexory
) -> None:
    """The page of the place is read again, so up to a page of removals loses nothing."""
    synced(dexory, sandbox, max_pages="3")
    for _ in range(20):
        sandbox.delete("locations", 0)
    names = {record["name"] for record in sandbox.scans if record[OBJECTS]}
    synced(dexory, sandbox)
    assert names <= {row["name"] for row in dexory.rows(OBJECTS)} | {
        f"A{n % 7}-{n:03d}-01"
        for n in range(5)  # scans from before the window
    }


def test_a_scan_on_two_pages_is_one(dexory: Project, sandbox: Dexory) -> None:
    """The later record is stored; the objects of both are there, equal ones once."""
    following = f"{sandbox.url}{PATH}?page[number]=2"
    early = location("A1", {"sku": "x"}, {"sku": "y"}, {"sku": "y"}, status="early")
    late = location("A1", {"sku": "y"}, {"sku": "z"}, status="late")
    sandbox.fault(PATH, **response(early, following=following))
    sandbox.fault(PATH, skip=1, **response(late))
    synced(dexory, sandbox)
    assert [row["status"] for row in dexory.rows("locations")] == ["late"]
    found = sorted((row["sku"], row["occurrence"]) for row in dexory.rows(OBJECTS))
    assert found == [("x", 1), ("y", 1), ("y", 2), ("z", 1)]


# History, replacement, deletes


def test_objects_that_are_gone_are_deleted(dexory: Project, sandbox: Dexory) -> None:
    """They are soft-deleted; the other objects stay."""
    sandbox.change("locations", 0, **{OBJECTS: [{"sku": "goes"}, {"sku": "stays"}]})
    synced(dexory, sandbox)
    sandbox.change("locations", 0, **{OBJECTS: [{"sku": "stays"}]})
    synced(dexory, sandbox)
    assert [row["sku"] for row in dexory.rows(OBJECTS, deleted=True)] == ["goes"]
    assert_equal_to_source(dexory, sandbox)


def test_scans_that_are_served_no_more_stay(dexory: Project, sandbox: Dexory) -> None:
    """Locations are never truncated, neither when the window of the source moves nor by a
    re-sync."""
    synced(dexory, sandbox)
    for _ in range(30):
        sandbox.delete("locations", 0)
    result = dexory.sync(sandbox.configuration(), {})
    assert result.code == 0
    assert len(dexory.rows("locations")) == 130
    assert_equal_to_source(dexory, sandbox)  # the objects of those 30 are gone
    with time_machine.travel(datetime.now(timezone.utc) + timedelta(days=9)):
        synced(dexory, sandbox)
        assert len(dexory.rows("locations")) == 130


def test_locations_without_any_object_empty_the_table_at_the_second_time(
    dexory: Project, sandbox: Dexory
) -> None:
    """A key that lost its right to see objects looks like that. Locations are stored all along."""
    synced(dexory, sandbox)
    objects = dexory.rows(OBJECTS)
    for position in range(len(sandbox.scans)):
        sandbox.change("locations", position, **{OBJECTS: None})
    sandbox.scan(0)
    result = synced(dexory, sandbox)
    assert f"{OBJECTS}: the source lists nothing where it had objects" in result.output
    assert dexory.rows(OBJECTS) == objects
    assert len(dexory.rows("locations")) == 131
    assert synced(dexory, sandbox).counts["Truncates"] == 1
    assert dexory.rows(OBJECTS) == []
    result = synced(dexory, sandbox)
    assert "lists nothing" not in result.output
    assert dexory.rows(OBJECTS) == []


def test_rows_that_only_the_destination_knows_of_do_not_stay(
    dexory: Project, sandbox: Dexory
) -> None:
    """A sync that crashed in its checkpoint stored objects that the state does not know."""
    objects = [dict(record) for record in sandbox.scans]
    for position in range(len(sandbox.scans)):
        sandbox.change("locations", position, **{OBJECTS: None})
    for _ in range(2):
        synced(dexory, sandbox)
    assert dexory.state["tables"][OBJECTS]["rows"] == 0
    sandbox.scans[:] = objects
    with Process("in-checkpoint", 2).running(), pytest.raises(Crash):
        dexory.sync(sandbox.configuration())
    assert dexory.rows(OBJECTS)
    sandbox.empty()
    synced(dexory, sandbox)
    assert dexory.rows(OBJECTS) == []


def test_objects_that_came_back_are_guarded_again(dexory: Project, sandbox: Dexory) -> None:
    """Two syncs in a row must find the list empty."""
    synced(dexory, sandbox)
    for _ in range(2):
        records = list(sandbox.scans)
        sandbox.empty()
        assert "lists nothing" in synced(dexory, sandbox).output
        sandbox.scans.extend(records)
        synced(dexory, sandbox)
        assert_equal_to_source(dexory, sandbox)


def test_a_resync_that_sees_nothing_deletes_nothing_at_once(
    dexory: Project, sandbox: Dexory
) -> None:
    """Without a state the connector does not know what the table holds."""
    synced(dexory, sandbox)
    before = dexory.rows(OBJECTS)
    sandbox.empty()
    result = dexory.sync(sandbox.configuration(), {})
    assert result.code == 0
    assert "lists nothing" not in result.output
    assert dexory.rows(OBJECTS) == before
    synced(dexory, sandbox)
    assert dexory.rows(OBJECTS) == []


def test_a_pass_that_stopped_before_its_first_object_replaces_nothing(
    dexory: Project, sandbox: Dexory
) -> None:
    """The sync that resumes it does not, either; the one after it reads the whole list."""
    synced(dexory, sandbox)
    before = dexory.rows(OBJECTS)
    for position in range(50):
        sandbox.change("locations", position, **{OBJECTS: None})
    for changes in ({"max_pages": "2"}, {}):
        assert synced(dexory, sandbox, **changes).counts.get("Truncates", 0) == 0
        assert len(dexory.rows(OBJECTS)) == len(before)
    assert synced(dexory, sandbox).counts["Truncates"] == 1
    assert_equal_to_source(dexory, sandbox)


@pytest.mark.usefixtures("twenty")
def test_a_pass_that_failed_deletes_nothing(dexory: Project, sandbox: Dexory) -> None:
    """Nor does a pass that failed after a checkpoint."""
    synced(dexory, sandbox)
    sandbox.change_something()
    sandbox.fault(PATH, skip=23, status=404)
    failed(dexory, sandbox, **MANY)
    assert dexory.state["stop"]
    assert dexory.rows(OBJECTS, deleted=True) == []


def test_a_skipped_record_is_no_reason_to_delete_its_row(dexory: Project, sandbox: Dexory) -> None:
    """While a pass skips any record it replaces nothing, and says so; the other records are
    stored."""
    sandbox.change("locations", 0, **{OBJECTS: [{"sku": "here"}]})
    synced(dexory, sandbox)
    for skipped in ({OBJECTS: [7]}, {"name": None}):
        before = dict(sandbox.scans[0])
        sandbox.change("locations", 0, **skipped)
        sandbox.change("locations", 1, **{OBJECTS: [{"sku": str(skipped)}]})
        result = synced(dexory, sandbox)
        told = f"{OBJECTS}: {len(skipped) + ('name' in skipped)} of the records were skipped. "
        assert told in result.output
        assert "nothing was replaced: deletes were not looked for" in result.output
        assert result.counts.get("Truncates", 0) == 0
        assert {"here", str(skipped)} <= {row["sku"] for row in dexory.rows(OBJECTS)}
        sandbox.change("locations", 0, **before)
    synced(dexory, sandbox)
    assert_equal_to_source(dexory, sandbox)


def test_more_objects_than_may_wait_are_stored_and_replace_nothing(
    dexory: Project, sandbox: Dexory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sync warns of that, and hands each row over once."""
    monkeypatch.setattr(load("dexory"), "REPLACED_AT_ONCE", 50)
    for _ in range(2):
        result = synced(dexory, sandbox)
        assert f"{OBJECTS}: there are more than 50. " in result.output
        assert "deletes were not looked for" in result.output
        assert result.counts.get("Truncates", 0) == 0
        assert result.counts["Upserts"] == sum(map(len, sandbox.expected().values()))
        assert_nothing_is_missing(dexory, sandbox)
    sandbox.change_something()
    synced(dexory, sandbox)
    assert dexory.rows(OBJECTS, deleted=True) == []
    assert_nothing_is_missing(dexory, sandbox)
    monkeypatch.setattr(load("dexory"), "REPLACED_AT_ONCE", 1_000_000)
    synced(dexory, sandbox)
    assert_equal_to_source(dexory, sandbox)


# The schema


def test_the_keys_are_those_of_the_specification() -> None:
    """Locations have a key of four columns, objects the hash that the platform makes."""
    locations, objects = load("dexory").schema({})
    assert locations["primary_key"] == ["name", "location_type", "aisle", "scan_date"]
    assert "primary_key" not in objects
