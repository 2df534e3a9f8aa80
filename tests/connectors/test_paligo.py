"""What is particular to Paligo; tests/contract holds what every connector must do."""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import weakref
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import time_machine

from shared.errors import SettingsError
from shared.pages import Page
from shared.rest import parse_json
from shared.state import State
from shared.times import parse
from tests.compare import assert_equal_to_source
from tests.contract.helpers import handed_over
from tests.sandbox.fivetran import Project, Result, load
from tests.sandbox.paligo import API_KEY, USERNAME, Paligo
from tests.width import wide
from tools.paths import ROOT

DEVELOPMENT_FILES = (
    "test_connector.py",
    "debug_connector.py",
    "faker_mock/mock_data_generator.py",
)
SETTINGS = {
    "username": "a@b.example",
    "api_key": "k",
    "base_url": "https://b.paligoapp.com/api/v2",
}
JSON = {"Content-Type": "application/json"}
ALL = {"reconcile_hours": "0"}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project("paligo", tmp_path)


@pytest.fixture
def paligo() -> Iterator[Paligo]:
    with Paligo() as started:
        yield started


@pytest.fixture
def documented() -> Iterator[Paligo]:
    """The documented form, in which assignments tell when they changed."""
    with Paligo(shape="documented") as started:
        yield started


def succeeded(result: Result) -> Result:
    assert result.code == 0, result.output
    return result


def failed(result: Result) -> str:
    assert result.code != 0, result.output
    return result.output


def responses(sandbox: Paligo, resource: str, *bodies: Any, skip: int = 0) -> None:
    """The next requests for a list get these JSON bodies."""
    for number, body in enumerate(bodies):
        sandbox.fault(
            f"/api/v2/{resource}",
            skip=skip + number,
            status=200,
            body=json.dumps(body),
            headers=JSON,
        )


def stored_by_a_sync(project: Project, configuration: dict[str, str]) -> set[str]:
    """The ids of the assignments that a sync stores."""
    with handed_over() as sent:
        succeeded(project.sync(configuration))
    return {row["id"] for row in sent["assignments"]}


def days_ago(days: float) -> str:
    return (datetime.now(timezone.utc) - timedelta(days=days)).isoformat()


# Pages


@pytest.mark.parametrize("shape", ["live", "documented"])
@pytest.mark.parametrize("paging", ["both", "pages", "links", "none"])
@pytest.mark.parametrize("cap", [7, *wide(1000)])
def test_every_form_of_lists_is_read_to_its_end(
    project: Project, shape: str, paging: str, cap: int
) -> None:
    """Both shapes of records, with the server's cap below or above the requested size."""
    with Paligo(shape=shape, paging=paging, cap=cap) as paligo:
        for _ in range(2):
            succeeded(project.sync(paligo.configuration(max_records_per_page="60", **ALL)))
            assert_equal_to_source(project, paligo)
            paligo.change_something()
        assert {r.query["per_page"] for r in paligo.requests} == {"1", "60"}


def test_pages_are_requested_by_number(project: Project, paligo: Paligo) -> None:
    """One request counts the records, each page comes once, and one more request counts again; no
    link is followed."""
    succeeded(project.sync(paligo.configuration()))
    asked = [
        (r.query["page"], r.query["per_page"])
        for r in paligo.requests
        if r.path == "/api/v2/assignments"
    ]
    assert [*asked[:2], asked[-1]] == [("1", "1"), ("1", "100"), ("1", "1")]
    assert sorted(asked[2:-1]) == [(str(number), "100") for number in range(2, 6)]
    assert all(r.query.keys() == {"page", "per_page"} for r in paligo.requests)


def test_records_are_counted_only_by_pages_of_one_record(project: Project, paligo: Paligo) -> None:
    """Where Paligo sends larger pages than requested, their number is not the number of
    records."""
    paligo.least = 5
    output = succeeded(project.sync(paligo.configuration())).output
    assert "once more" not in output
    assert_equal_to_source(project, paligo)
    assert project.state["tables"].keys() == {"users", "taxonomies", "assignments"}


@pytest.mark.parametrize("size", [50, 100])
def test_a_last_page_that_is_full_is_the_last(project: Project, size: int) -> None:
    """The number of records is a multiple of the page, so one more page is requested: Paligo may
    have stopped counting."""
    with Paligo(assignments=100, cap=size) as paligo:
        succeeded(project.sync(paligo.configuration()))
        assert len(paligo.paths("/api/v2/assignments")) == 2 + 100 // size
        assert_equal_to_source(project, paligo)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"total_pages": 2, "next_page": ""}, {"total_pages": 2, "next_page": ""}),
        ({"total_pages": 1, "next_page": "more"}, {"total_pages": 1, "next_page": ""}),
        ({"total_pages": "2"}, {"total_pages": "2"}),
        ({"next_page": "more"}, {"next_page": None}),
    ],
    ids=["pages say more", "the link says more", "a number as text", "null is no link"],
)
def test_a_page_is_the_last_when_nothing_says_otherwise(
    project: Project, paligo: Paligo, first: Any, second: Any
) -> None:
    """Where the two signs disagree, the one that announces more pages counts."""
    one, two, three = ({"id": number, "name": "x"} for number in (1, 2, 3))
    counted = {"page": 1, "total_pages": 3, "users": [one]}
    pages = {**first, "page": 1, "users": [one, two]}, {**second, "page": 2, "users": [three]}
    responses(paligo, "users", counted, *pages)
    succeeded(project.sync(paligo.configuration()))
    assert {row["id"] for row in project.rows("users")} == {"1", "2", "3"}
    assert len(paligo.paths("/api/v2/users")) == 3


USER = {"id": 1, "name": "A Name Nobody Else Has"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (
            {"page": 1, "total_pages": 9, "users": [USER]},
            "page 2 was asked for, and",
        ),
        ({"total_pages": 9, "users": []}, "page 2 is empty, but more are announced"),
        ({"next_page": "more", "users": []}, "page 2 is empty, but more are announced"),
        ({"error": "overloaded", "users": []}, 'no list "users" or "data"'),
        ({"page": "second", "users": [USER]}, "page does not fit its type"),
        *wide(
            ({"total_pages": 1.5, "users": [USER]}, "total_pages does not fit its type"),
            ({"users": {"one": USER}}, 'no list "users" or "data"'),
            ({"users": None, "total_pages": 2}, 'no list "users" or "data"'),
            ({"taxonomies": [USER], "total_pages": 2}, 'no list "users" or "data"'),
        ),
    ],
)
def test_a_page_that_is_not_understood_fails_its_table(
    project: Project, paligo: Paligo, body: Any, reason: str
) -> None:
    """The error shows no value, the other tables are synced, the cursor stays, and the next sync
    reads the list again."""
    paligo.cap = 5
    responses(paligo, "users", body, skip=2)
    output = failed(project.sync(paligo.configuration()))
    assert f"{paligo.url}/api/v2/users" in output
    assert reason in output
    assert "Nobody Else" not in output
    assert project.state["tables"].keys() == {"taxonomies", "assignments"}
    succeeded(project.sync(paligo.configuration()))
    assert_equal_to_source(project, paligo)


@pytest.mark.parametrize("paging", [{"total_pages": 9}, {"next_page": "more"}, {}])
def test_a_repeated_page_fails_its_table(project: Project, paligo: Paligo, paging: Any) -> None:
    """A source that ignores the page's number is not read for ever."""
    paligo.fault(
        "/api/v2/users",
        times=None,
        status=200,
        body=json.dumps({"users": [USER], **paging}),
        headers=JSON,
    )
    output = failed(project.sync(paligo.configuration()))
    assert "page 3 and the one before it repeat others" in output
    assert len(paligo.paths("/api/v2/users")) <= 4 + 4  # those that are concurrent


def test_pages_are_read_when_they_are_wanted(paligo: Paligo) -> None:
    """Not all assignments are in memory at once."""
    module = load("paligo")
    settings = module.validate_configuration(paligo.configuration())
    client = module.RestClient(
        settings.base_url,
        30,
        module.Retry(0),
        auth=module._Credentials(USERNAME.encode(), API_KEY.encode()),
    )
    pages = module.get_assignments_data(client, settings)
    assert isinstance(next(pages), Page)
    assert (
        len(paligo.requests) <= 1 + 2 + 4
    )  # one that counts, two pages, those that are concurrent


# Lists that change while they are read


@pytest.mark.parametrize("resource", ["users", "taxonomies", "assignments"])
@pytest.mark.parametrize("skip", [1, *wide(2, 3)])
@pytest.mark.parametrize("shape", ["live", *wide("documented")])
def test_a_record_deleted_while_pages_are_read_hides_no_other(
    project: Project, resource: str, skip: int, shape: str
) -> None:
    """A record that moves onto a page that was read already is not taken for deleted."""
    with Paligo(shape=shape, cap=5, taxonomies=20, assignments=20) as paligo:
        for _ in range(2):
            position = _a_leaf(paligo) if resource == "taxonomies" else 0
            paligo.fault(
                f"/api/v2/{resource}",
                skip=skip,
                act=lambda position=position: paligo.delete(resource, position),
            )
            output = succeeded(project.sync(paligo.configuration(**ALL))).output
            assert "the list is read once more" in output
            assert_equal_to_source(project, paligo)


class Overtaken:
    """Returns five pages of two assignments each. The first assignment is deleted when all pages
    but the third have been read."""

    base_url, parallel, closed = "https://paligo.example", 4, threading.Event()

    def __init__(self) -> None:
        self.records, self.read = [{"id": number} for number in range(10)], set[int]()
        self.changed = threading.Condition()

    def ahead(self) -> int:
        return self.parallel

    def get(self, where: str, params: dict[str, int]) -> dict[str, Any]:
        number, size = params["page"], min(params["per_page"], 2)
        with self.changed:
            if number == 3 and len(self.records) == 10:
                assert self.changed.wait_for(lambda: self.read >= {1, 2, 4, 5}, 10)
                del self.records[0]
            self.read.add(number)
            self.changed.notify_all()
            records, pages = self.records[:], -(-len(self.records) // size)
        records = records[(number - 1) * size : number * size]
        return {"page": number, "total_pages": pages, "assignments": records}


def test_a_record_that_moves_to_a_page_that_overtook_another_is_missed() -> None:
    """As many records come as there were, one of them twice; but fewer exist now."""
    module, source = load("paligo"), Overtaken()
    settings = module.validate_configuration(SETTINGS)
    pages = list(module.get_assignments_data(source, settings))
    found = [record["id"] for page in pages for record in page.records]
    assert found == [0, 1, 2, 3, 5, 6, 6, 7, 8, 9]
    assert {page.total for page in pages} == {10, 9}


def _a_leaf(paligo: Paligo) -> int:
    """The position of the first taxonomy that is no parent."""
    taxonomies = paligo.records["taxonomies"]
    parents = {t.get("parent", t.get("parent_id")) for t in taxonomies}
    return next(at for at, t in enumerate(taxonomies) if t["id"] not in parents)


@pytest.mark.parametrize("resource", ["users", "taxonomies", "assignments"])
def test_a_record_inserted_while_pages_are_read_is_stored_once(
    project: Project, paligo: Paligo, resource: str
) -> None:
    """A record that moves onto the next page comes twice and is one row."""
    paligo.cap = 5
    paligo.fault(f"/api/v2/{resource}", skip=2, act=lambda: paligo.insert(resource, 0))
    succeeded(project.sync(paligo.configuration()))
    assert_equal_to_source(project, paligo)


def test_a_list_that_never_stands_still_is_stored_but_replaces_nothing(
    project: Project, documented: Paligo
) -> None:
    """After two reads the rows are stored, the cursor stays, and a warning says so."""
    documented.cap = 10
    succeeded(project.sync(documented.configuration(**ALL)))
    before = project.state["tables"]["assignments"]
    count = len(project.rows("assignments"))
    documented.fault(
        "/api/v2/assignments", times=None, act=lambda: documented.insert("assignments")
    )
    output = succeeded(project.sync(documented.configuration(**ALL))).output
    assert "the list changes while it is read" in output
    stored = len(project.rows("assignments"))
    assert stored > count
    after = project.state["tables"]["assignments"]
    assert (after["cursor"], after["listed_at"]) == (before["cursor"], before["listed_at"])
    documented.faults.clear()
    succeeded(project.sync(documented.configuration()))
    assert_equal_to_source(project, documented)


@pytest.mark.parametrize("first", ["a first load", "a later sync"])
def test_ties_in_the_order_delete_nothing(project: Project, first: str) -> None:
    """Pages repeat some users and miss others while the number of records agrees."""
    with Paligo(users=120, cap=10) as paligo:
        if first == "a later sync":
            succeeded(project.sync(paligo.configuration()))
        paligo.ties = 7
        for _ in range(3):
            succeeded(project.sync(paligo.configuration()))
            assert project.rows("users", deleted=True) == []
        paligo.ties = 1
        succeeded(project.sync(paligo.configuration()))
        assert_equal_to_source(project, paligo)


def test_a_total_that_counts_what_is_not_listed_deletes_nothing(
    project: Project, paligo: Paligo
) -> None:
    """Neither the first load nor later syncs delete; the cursor moves, the rows are stored, and
    the list is read once from the second sync on."""
    paligo.miscount = 2
    requests = []
    for _ in range(3):
        before = len(paligo.requests)
        output = succeeded(project.sync(paligo.configuration(**ALL))).output
        requests.append(len(paligo.requests) - before)
        assert "12 distinct of 14 records" in output
        paligo.delete("users", 0)
        paligo.insert("users")
        assert project.rows("users", deleted=True) == []
    assert project.state["tables"]["users"]["miscount"] == 2
    assert requests[1] == requests[2] < requests[0]
    paligo.miscount = 0
    succeeded(project.sync(paligo.configuration(**ALL)))
    assert_equal_to_source(project, paligo)


@pytest.mark.parametrize("paging", ["both", "pages", "links"])
def test_a_source_that_stops_counting_loses_nothing(project: Project, paging: str) -> None:
    """If it stops at 200, the last announced page is full, so the pages after it are requested,
    too."""
    with Paligo(assignments=330, cap=50, paging=paging) as paligo:
        paligo.counts_to = 200
        for _ in range(2):
            succeeded(project.sync(paligo.configuration(**ALL)))
            assert_equal_to_source(project, paligo)
            paligo.insert("assignments")
            paligo.change("users", 0, name="Another Name")


def test_a_list_that_loses_its_key_deletes_nothing(project: Project) -> None:
    """The share of skipped records is that of this read, however many rows earlier syncs have
    stored."""
    with Paligo(shape="documented", assignments=40) as paligo:
        paligo.history = 365
        succeeded(project.sync(paligo.configuration()))
        for _ in range(12):
            for position in range(40):
                paligo.change("assignments", position, status="changed")
            succeeded(project.sync(paligo.configuration()))
        assert project.state["tables"]["assignments"]["rows"] == 40
        ids = [record.pop("id") for record in paligo.records["assignments"]]
        output = failed(project.sync(paligo.configuration(**ALL)))
        assert "more than a tenth of 40" in output
        assert project.rows("assignments", deleted=True) == []
        for record, given in zip(paligo.records["assignments"], ids, strict=True):
            record["id"] = given
        succeeded(project.sync(paligo.configuration(**ALL)))
        assert_equal_to_source(project, paligo)


def test_a_resync_deletes_nothing_before_it_is_whole(project: Project, paligo: Paligo) -> None:
    """Its state is empty, as at a first load, but the tables are full."""
    succeeded(project.sync(paligo.configuration()))
    paligo.delete("users", 0)
    paligo.cap = 5
    paligo.fault("/api/v2/users", skip=2, times=None, status=500)
    failed(project.sync(paligo.configuration(), {}))
    assert project.rows("users", deleted=True) == []
    paligo.faults.clear()
    succeeded(project.sync(paligo.configuration(), {}))
    assert_equal_to_source(project, paligo)
    assert len(project.rows("users", deleted=True)) == 1


@pytest.mark.parametrize(
    ("table", "field", "value", "column"),
    [
        ("users", "last_login", "0000-00-00", "last_login"),
        ("assignments", "end_date", False, "due_date"),
        ("assignments", "end_date", "31/12/2024", "due_date"),
        ("taxonomies", "level", "top", "level"),
    ],
)
def test_an_odd_value_costs_that_value(
    project: Project, paligo: Paligo, table: str, field: str, value: Any, column: str
) -> None:
    """In any number of records; each value is kept as it was sent."""
    for position in range(len(paligo.records[table])):
        paligo.change(table, position, **{field: value})
    output = succeeded(project.sync(paligo.configuration())).output
    rows = project.rows(table)
    assert len(rows) == len(paligo.records[table])
    assert {row[column] for row in rows} == {None}
    assert {json.loads(row["additional_fields"])[field] for row in rows} == {value}
    assert f"{table}: {len(rows)} values of {column} " in output


def test_a_list_that_became_an_object_is_that_list(project: Project, paligo: Paligo) -> None:
    """PHP writes a list with gaps as an object with numbers for keys."""
    users = paligo.records["users"]
    body = {"users": {str(2 * at): user for at, user in enumerate(users)}, "next_page": ""}
    paligo.fault("/api/v2/users", times=None, status=200, body=json.dumps(body), headers=JSON)
    succeeded(project.sync(paligo.configuration()))
    assert_equal_to_source(project, paligo)


# Access


def test_credentials_are_in_the_header_only(project: Project, paligo: Paligo) -> None:
    """Every request has Basic authentication; no URL holds a part of it."""
    succeeded(project.sync(paligo.configuration()))
    expected = "Basic " + base64.b64encode(f"{USERNAME}:{API_KEY}".encode()).decode()
    assert {r.headers["Authorization"] for r in paligo.requests} == {expected}
    assert not any(API_KEY in r.url or USERNAME in r.url for r in paligo.requests)


def test_a_user_name_beyond_latin_1_is_sent_as_utf_8(project: Project, paligo: Paligo) -> None:
    """RFC 7617 leaves the encoding open; requests alone would fail without a reason."""
    output = failed(project.sync(paligo.configuration(username="管理者@例え.jp")))
    assert "status 401" in output
    sent = base64.b64decode(paligo.requests[0].headers["Authorization"].removeprefix("Basic "))
    assert sent.decode() == f"管理者@例え.jp:{API_KEY}"


@pytest.mark.parametrize("name", ["a:b@c.example", "a\tb", "a\nb", "\ud800"])
def test_a_user_name_that_cannot_be_sent_is_an_error(name: str) -> None:
    """The error comes before the first request, and does not show the name."""
    with pytest.raises(SettingsError, match="username must be") as caught:
        load("paligo").validate_configuration({**SETTINGS, "username": name})
    assert repr(name)[1:-1] not in str(caught.value)


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
def test_an_api_key_that_no_header_can_hold_is_an_error(key: str) -> None:
    """The error comes before the first request, and does not show the key."""
    with pytest.raises(SettingsError, match="api_key must be") as caught:
        load("paligo").validate_configuration({**SETTINGS, "api_key": key})
    assert key not in str(caught.value)


def test_refused_credentials_are_not_tried_again(
    project: Project, paligo: Paligo, waits: list[float]
) -> None:
    """401 is final; the error says which keys to check."""
    output = failed(project.sync(paligo.configuration(api_key="another-key")))
    assert "status 401" in output
    assert "check both" in output
    assert "another-key" not in output
    assert len(paligo.requests) == 1
    assert waits == []


def test_the_address_is_asked_for() -> None:
    """The specification's default is the host of Paligo's documentation: it stays valid, and a
    configuration without an address is told what it must be."""
    documented = "https://api.paligo.net/v1"
    assert settings(base_url=documented).base_url == documented
    with pytest.raises(SettingsError, match=r"base_url is missing: https://<instance>\.paligoapp"):
        settings(base_url="")


@pytest.mark.parametrize("status", [200, 401, 404])
def test_an_html_response_says_what_the_address_must_be(
    project: Project, paligo: Paligo, status: int
) -> None:
    """As from the host of Paligo's documentation, which is no account's."""
    headers = {"Content-Type": "text/html"}
    paligo.fault(times=None, status=status, body="<html>Paligo API", headers=headers)
    output = failed(project.sync(paligo.configuration()))
    assert f"status {status}" in output
    assert "base_url must be https://<instance>.paligoapp.com/api/v2" in output
    assert len(paligo.requests) == (1 if status == 401 else 3)


def test_a_refusal_in_json_is_not_blamed_on_the_address(project: Project, paligo: Paligo) -> None:
    """If the API itself responds, base_url is right."""
    paligo.fault(times=None, status=403, body='{"message": "Forbidden"}', headers=JSON)
    output = failed(project.sync(paligo.configuration()))
    assert "use the API key of an administrator" in output
    assert "base_url" not in output


@pytest.mark.parametrize(
    ("said", "wait"), [("17", 17.0), (None, 60.0), ("", 60.0), ("soon", 60.0)]
)
def test_the_wait_of_a_rate_limit_is_honoured(
    project: Project, paligo: Paligo, waits: list[float], said: str | None, wait: float
) -> None:
    """The wait is what Paligo says, or a minute if it says nothing."""
    paligo.limit, paligo.retry_after = 4, said
    settings = {"retry_attempts": "1", "parallel_requests": "1"}
    succeeded(project.sync(paligo.configuration(**settings)))
    assert waits == [wait]  # seven requests for assignments, the fifth of which meets the limit
    assert_equal_to_source(project, paligo)


# Taxonomies


def places(project: Project) -> dict[str, tuple[Any, Any, Any]]:
    return {
        row["id"]: (row["parent_id"], row["level"], row["path"])
        for row in project.rows("taxonomies")
    }


def taxonomy(id_: Any, title: Any = None, **fields: Any) -> dict[str, Any]:
    return {"id": id_, "title": title or f"T{id_}", "color": 1, **fields}


@pytest.mark.parametrize("root", [None, 0, "", "0"])
def test_taxonomies_below_no_root_have_no_place(
    project: Project, paligo: Paligo, root: Any
) -> None:
    """Circles, unknown parents and missing titles are stored, with null for an unknown level or
    path."""
    paligo.records["taxonomies"] = [
        taxonomy(6, parent=5),
        taxonomy(2, parent="1"),
        taxonomy(1, parent=root),
        taxonomy(3, parent=3),
        taxonomy(4, parent=5),
        taxonomy(5, parent=4),
        taxonomy(7, parent=99),
        taxonomy(8, parent=7),
        {**taxonomy(9, parent=1), "title": None},
        taxonomy(10, parent=9),
        taxonomy(11, "A/B"),
        taxonomy(12, parent=11),
        taxonomy("13", parent={"id": 1}),
    ]
    succeeded(project.sync(paligo.configuration()))
    top = None if root is None else str(root)
    assert places(project) == {
        "1": (top, 0, "T1"),
        "2": ("1", 1, "T1/T2"),
        "3": ("3", None, None),
        "4": ("5", None, None),
        "5": ("4", None, None),
        "6": ("5", None, None),
        "7": ("99", None, None),
        "8": ("7", None, None),
        "9": ("1", 1, None),
        "10": ("9", 2, None),
        "11": (None, 0, "A/B"),
        "12": ("11", 1, "A/B/T12"),
        "13": ('{"id": 1}', None, None),
    }


def test_one_parent_that_is_not_listed_may_be_the_top(project: Project) -> None:
    """If no record is a root, the only unlisted parent is the top of the tree."""
    with Paligo(root=4711) as paligo:
        succeeded(project.sync(paligo.configuration()))
        assert_equal_to_source(project, paligo)
        assert {level for parent, level, _ in places(project).values() if parent == "4711"} == {0}
        paligo.insert("taxonomies")["parent"] = 4712
        succeeded(project.sync(paligo.configuration()))
        assert {level for _, level, _ in places(project).values()} == {None}


def test_a_path_that_is_too_long_is_null(
    project: Project, paligo: Paligo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chain of long titles would make rows of any size. One warning counts such paths, and the
    level is known all the same."""
    monkeypatch.setattr(load("paligo"), "_KEPT_PATHS", 3)
    chain = [taxonomy(number, "t" * 999, parent=number - 1) for number in range(1, 16)]
    paligo.records["taxonomies"], paligo.cap = [*reversed(chain[12:]), *chain[:12]], 4
    result = succeeded(project.sync(paligo.configuration()))
    found = {row["id"]: (row["level"], row["path"]) for row in project.rows("taxonomies")}
    for number in range(1, 16):
        path = "/".join(["t" * 999] * number)
        assert found[str(number)] == (number - 1, path if len(path) <= 10_000 else None)
    warning = "taxonomies: the path of 5 is null, since it is longer than 10000 characters"
    assert result.output.count(warning) == 1


def test_not_all_paths_are_in_memory_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would take many times the memory of the list: each page is gone before the next."""
    module, alive = load("paligo"), weakref.WeakValueDictionary[int, Page]()
    records = [taxonomy(number, "t", parent=number - 1) for number in range(1, 41)]
    pages = [Page(records[at : at + 10], 1 + at // 10) for at in range(0, 40, 10)]
    monkeypatch.setattr(module, "_get_pages", lambda *_: iter(pages))
    monkeypatch.setattr(module, "RECORDS_AT_ONCE", 3)
    count = 0
    for page in module.get_taxonomies_data(None, None):
        assert not alive
        alive[page.number] = page
        count += len(page.records)
        assert page.records[-1]["level"] == count - 1
        del page
    assert count == 40


def test_levels_are_found_in_linear_time() -> None:
    """A thousand levels, or a circle, above each taxonomy cost no thousand steps for each."""
    module = load("paligo")
    chain = [taxonomy(number, "t", parent=number - 1) for number in range(1, 1_001)]
    leaves = [taxonomy(number, "t", parent=1_000) for number in range(2_000, 4_000)]
    circle = [taxonomy(number, parent=5_000 + number % 1_000) for number in range(5_000, 6_000)]
    records, steps = [*chain, *leaves, *circle], 0

    class Counting(dict[str, str]):
        def __getitem__(self, key: str) -> str:
            nonlocal steps
            steps += 1
            return super().__getitem__(key)

    tree = module._Tree(records)
    tree._parents = Counting(tree._parents)
    assert {tree.placed(leaf)["level"] for leaf in leaves} == {1_000}
    for record in (*chain, *circle):
        tree.placed(record)
    assert steps < 2 * len(records)


@pytest.mark.parametrize(
    ("parents", "levels"),
    [
        ({1: 9, 2: 1}, [0, 1]),
        ({1: 9, 2: 8, 3: 1}, [None, None, None]),
        ({1: 9, 2: "", 3: 2, 4: 1}, [None, 0, 1, None]),
        ({1: "0", 2: None, 3: 1}, [0, 0, 1]),
        ({1: 2, 2: 1}, [None, None]),
    ],
)
def test_where_the_top_of_a_tree_is(parents: dict[int, Any], levels: list[int | None]) -> None:
    """Records without a parent are roots or, if there are none, those below the only unlisted
    parent; records that are no object are passed on."""
    records = [{"id": id_, "title": "t", "parent": parent} for id_, parent in parents.items()]
    tree = load("paligo")._Tree([*records, "x", None])
    assert [tree.placed(record).get("level") for record in records] == levels
    assert [tree.placed(record) for record in ("x", None)] == ["x", None]


def test_a_tree_joins_ids_as_their_columns_hold_them() -> None:
    """A number is one id however it is written, false is no parent, and only texts and numbers are
    parts of a path."""
    records = [
        taxonomy(1, parent=False),
        taxonomy(parse_json("4.0"), parent="1"),
        taxonomy("5", parent=parse_json("4e0")),
        taxonomy(6, {"en": "six"}, parent=5),
    ]
    placed = [load("paligo")._Tree(records).placed(record) for record in records]
    assert [record["level"] for record in placed] == [0, 1, 2, 3]
    assert [record["path"] for record in placed] == ["T1", "T1/T4.0", "T1/T4.0/T5", None]


def test_what_the_source_says_of_a_place_is_kept(project: Project, paligo: Paligo) -> None:
    """Level and path are derived only if they are absent or null."""
    paligo.records["taxonomies"] = [
        taxonomy(1, level=1, path="/one"),
        taxonomy(2, parent_id=1, level=None, path="/one/two"),
        taxonomy(3, parent_id=2, parent=1),
    ]
    succeeded(project.sync(paligo.configuration()))
    assert places(project) == {
        "1": (None, 1, "/one"),
        "2": ("1", 1, "/one/two"),
        "3": ("2", 2, "T1/T2/T3"),
    }


def test_a_hierarchy_without_end_ends(project: Project, paligo: Paligo) -> None:
    """Down to 1,000 levels the place is known; deeper, it is null."""
    chain = [taxonomy(number, "t", parent=number - 1) for number in range(1, 1_503)]
    paligo.records["taxonomies"], paligo.cap = chain, 1_000
    succeeded(project.sync(paligo.configuration(max_records_per_page="1000")))
    found = places(project)
    assert found["1001"][1:] == (1_000, "/".join("t" * 1_001))
    assert found["1002"][1:] == found["1502"][1:] == (None, None)


def test_a_new_title_reaches_the_paths_below_it(project: Project, paligo: Paligo) -> None:
    """Taxonomies have a full refresh at every sync, so no path is out of date."""
    paligo.records["taxonomies"] = [taxonomy(1), taxonomy(2, parent=1)]
    succeeded(project.sync(paligo.configuration()))
    paligo.change("taxonomies", 0, title="Renamed")
    succeeded(project.sync(paligo.configuration()))
    assert places(project)["2"] == ("1", 1, "Renamed/T2")


# Assignments


def test_what_did_not_change_is_not_stored_again(project: Project, documented: Paligo) -> None:
    """If assignments tell when they changed, a later sync stores only those that did."""
    succeeded(project.sync(documented.configuration()))
    changed = {documented.change("assignments", 3)["id"], documented.insert("assignments")["id"]}
    assert stored_by_a_sync(project, documented.configuration()) == changed
    assert_equal_to_source(project, documented)


def test_assignments_without_a_time_of_change_are_stored_when_one_changed(
    project: Project, paligo: Paligo
) -> None:
    """`created_at` says nothing about changes, at any age. If all are as they were, none is."""
    paligo.change("assignments", 3, created_at=1_000_000_000)
    succeeded(project.sync(paligo.configuration()))
    assert not stored_by_a_sync(project, paligo.configuration())
    paligo.change("assignments", 3, message="Changed since")
    assert len(stored_by_a_sync(project, paligo.configuration())) == 230
    assert_equal_to_source(project, paligo)


@pytest.mark.parametrize(
    ("updated", "completed", "stored"),
    [
        (None, None, True),
        (None, 20, False),
        (20, None, False),
        (20, -1, True),
        (-1, 20, True),
        (0, 20, True),
    ],
)
def test_the_later_of_two_times_tells_the_last_change(
    project: Project,
    documented: Paligo,
    updated: float | None,
    completed: float | None,
    stored: bool,
) -> None:
    """One of `updated_at` and `completed_at` is enough."""
    succeeded(project.sync(documented.configuration()))
    given = {"updated_at": updated, "completed_at": completed}
    times = {name: None if days is None else days_ago(days) for name, days in given.items()}
    record = documented.change("assignments", 3, created_at=days_ago(30), **times)
    assert (record["id"] in stored_by_a_sync(project, documented.configuration())) == stored


def test_a_change_that_is_committed_late_arrives(project: Project, documented: Paligo) -> None:
    """A change that the source shows after a sync, with a time before it, lies in the overlap."""
    succeeded(project.sync(documented.configuration()))
    documented.change(
        "assignments", 3, description="Committed late", updated_at=days_ago(9 / 1440)
    )
    succeeded(project.sync(documented.configuration()))
    assert_equal_to_source(project, documented)


def test_a_change_while_assignments_are_read_is_in_the_next_sync(
    project: Project, documented: Paligo
) -> None:
    """The cursor is the clock before the first request."""
    succeeded(project.sync(documented.configuration()))
    documented.fault(
        "/api/v2/assignments",
        skip=3,
        act=lambda: documented.change("assignments", 0, description="Meanwhile"),
    )
    succeeded(project.sync(documented.configuration()))
    succeeded(project.sync(documented.configuration()))
    assert_equal_to_source(project, documented)


def test_deletes_arrive_when_a_full_refresh_is_due(project: Project, documented: Paligo) -> None:
    """A deleted assignment stays until `reconcile_hours` after the last full refresh."""
    succeeded(project.sync(documented.configuration()))
    gone = documented.insert("assignments")["id"]
    succeeded(project.sync(documented.configuration()))
    documented.delete("assignments", -1)

    def has_it(hours: float) -> bool:
        with time_machine.travel(datetime.now(timezone.utc) + timedelta(hours=hours)):
            succeeded(project.sync(documented.configuration()))
        return gone in {row["id"] for row in project.rows("assignments")}

    assert has_it(23.9)
    assert not has_it(24.1)
    assert gone in {row["id"] for row in project.rows("assignments", deleted=True)}


def test_users_and_taxonomies_that_are_deleted_go_at_once(
    project: Project, paligo: Paligo
) -> None:
    """They have a full refresh at every sync, whatever `reconcile_hours` is."""
    succeeded(project.sync(paligo.configuration(reconcile_hours="8760")))
    paligo.delete("users", 3)
    paligo.delete("taxonomies", _a_leaf(paligo))
    succeeded(project.sync(paligo.configuration(reconcile_hours="8760")))
    assert_equal_to_source(project, paligo)


def settings(**changes: str) -> Any:
    given_settings = {**SETTINGS, **changes}
    return load("paligo").validate_configuration(given_settings)


@pytest.mark.parametrize(
    ("table", "changes", "full", "since"),
    [
        ("assignments", {}, False, "2026-01-31T11:00:00Z"),
        ("assignments", {"reconcile_hours": "1"}, False, "2026-01-31T11:00:00Z"),
        ("assignments", {"reconcile_hours": "0"}, True, "2025-01-01T00:00:00Z"),
        ("assignments", {"enable_incremental_sync": "false"}, True, "2025-01-01T00:00:00Z"),
        ("users", {}, True, None),
        ("taxonomies", {}, True, None),
    ],
)
def test_the_window_of_a_table(
    table: str, changes: dict[str, str], full: bool, since: str | None
) -> None:
    """Assignments are read from the cursor on or, in a full refresh, from the oldest moment; the
    other lists in full."""
    entry = {"cursor": "2026-01-31T11:00:00Z", "listed_at": "2026-01-31T11:30:00Z"}
    known = {"version": 1, "tables": {table: entry}, "oldest": "2025-01-01T00:00:00Z"}
    with time_machine.travel(datetime(2026, 1, 31, 12, tzinfo=timezone.utc), tick=False):
        found = load("paligo").get_time_range(settings(**changes), State(known, ()), table)
    assert (found.full, found.since) == (full, parse(since) if since else None)


def test_the_last_change_of_a_row() -> None:
    """Its completion may be later than its update; its creation does not count."""
    changed_at = load("paligo")._changed_at
    assert changed_at({"updated_at": 3, "completed_at": 5, "created_at": 7}) == 5
    assert changed_at({"updated_at": 5, "completed_at": 3}) == 5
    assert changed_at({"updated_at": None, "completed_at": 3}) == 3
    assert changed_at({"updated_at": 3}) == 3
    assert changed_at({"updated_at": None, "created_at": 7}) is None


@pytest.mark.parametrize("how", [{"enable_incremental_sync": "false"}, ALL])
def test_all_assignments_are_compared_at_every_sync_if_so_set(
    project: Project, documented: Paligo, how: dict[str, str]
) -> None:
    """Both settings replace the table if anything changed, so deletes arrive, too, and changes
    that no time tells of."""
    succeeded(project.sync(documented.configuration(**how)))
    assert not stored_by_a_sync(project, documented.configuration(**how))
    documented.delete("assignments", 3)
    stored = stored_by_a_sync(project, documented.configuration(**how))
    assert_equal_to_source(project, documented)
    assert stored == {row["id"] for row in project.rows("assignments")}
    documented.change("assignments", 3, title="Another", updated_at=days_ago(20))
    succeeded(project.sync(documented.configuration(**how)))
    assert_equal_to_source(project, documented)


def test_another_instance_is_read_from_its_beginning(project: Project, paligo: Paligo) -> None:
    """The cursor and the last full refresh tell nothing of its assignments."""
    succeeded(project.sync(paligo.configuration()))
    with Paligo(shape="documented", seed=2) as other:
        succeeded(project.sync(other.configuration()))
        assert_equal_to_source(project, other)
        assert not stored_by_a_sync(project, other.configuration())


def test_history_is_bounded_by_the_last_change(project: Project, documented: Paligo) -> None:
    """Old assignments are left out, unless they have no time of change; a change brings them."""
    documented.records["assignments"] = documented.records["assignments"][:4]
    documented.change("assignments", 0, updated_at=days_ago(11), completed_at=None)
    documented.change("assignments", 1, updated_at=days_ago(11), completed_at=days_ago(9))
    documented.change("assignments", 2, updated_at=None, completed_at=None, created_at=1)
    documented.change("assignments", 3, updated_at=days_ago(9), created_at=days_ago(500))
    configuration = documented.configuration(initial_sync_days="10")
    documented.history = 10
    succeeded(project.sync(configuration))
    assert len(project.rows("assignments")) == 3
    assert_equal_to_source(project, documented)
    documented.change("assignments", 0, description="Taken up again")
    succeeded(project.sync(configuration))
    assert len(project.rows("assignments")) == 4
    assert_equal_to_source(project, documented)


def test_the_bound_is_fixed_at_the_first_sync(project: Project, documented: Paligo) -> None:
    """Neither time nor another setting moves it, also at full refreshes."""
    succeeded(project.sync(documented.configuration()))
    before = {row["id"] for row in project.rows("assignments")}
    assert 0 < len(before) < 230
    for days in ("1", "365"):
        with time_machine.travel(datetime.now(timezone.utc) + timedelta(days=60)):
            configuration = documented.configuration(initial_sync_days=days, **ALL)
            succeeded(project.sync(configuration))
        assert {row["id"] for row in project.rows("assignments")} == before


def test_a_bound_ahead_of_the_clock_is_set_anew(project: Project, documented: Paligo) -> None:
    """A clock that was wrong at the first sync must not hide all assignments for ever."""
    with time_machine.travel(datetime.now(timezone.utc) + timedelta(days=3_650)):
        succeeded(project.sync(documented.configuration()))
    assert project.rows("assignments") == []
    succeeded(project.sync(documented.configuration()))
    assert_equal_to_source(project, documented)


# Failures in the middle


@pytest.mark.posix
@pytest.mark.parametrize("resource", ["users", *wide("taxonomies"), "assignments"])
@pytest.mark.parametrize("skip", [*wide(0), 2])
def test_killed_at_any_table_the_next_sync_reads_the_rest(
    project: Project, resource: str, skip: int
) -> None:
    """kill -9 of the command itself, in a first sync and in a later one."""
    with Paligo(cap=10, shape="documented") as paligo:
        for _ in range(2):
            _debug_and_kill(project, paligo, f"/api/v2/{resource}", skip)
            paligo.faults.clear()
            succeeded(project.sync(paligo.configuration(**ALL)))
            assert_equal_to_source(project, paligo)
            paligo.change_something()


def _debug_and_kill(project: Project, paligo: Paligo, path: str, skip: int) -> None:
    running: list[Any] = []
    with paligo.lock:  # no response is sent until the process is known
        paligo.fault(path, skip=skip, act=lambda: os.kill(running[0].pid, signal.SIGKILL))
        running.append(project.start(paligo.configuration(**ALL)))
    output, _ = running[0].communicate(timeout=60)
    assert running[0].returncode == -signal.SIGKILL, output


@pytest.mark.parametrize("skip", [1, 3])
def test_a_failed_sync_leaves_the_cursor(project: Project, documented: Paligo, skip: int) -> None:
    """The next sync stores what changed before the failure."""
    succeeded(project.sync(documented.configuration()))
    before = project.state["tables"]["assignments"]
    documented.change("assignments", -1, description="On the last page")
    documented.fault("/api/v2/assignments", skip=skip, times=None, status=500)
    with time_machine.travel(datetime.now(timezone.utc) + timedelta(hours=2)):
        failed(project.sync(documented.configuration()))
    assert project.state["tables"]["assignments"] == before
    documented.faults.clear()
    with time_machine.travel(datetime.now(timezone.utc) + timedelta(hours=4)):
        succeeded(project.sync(documented.configuration()))
    assert_equal_to_source(project, documented)


@pytest.mark.parametrize("resource", ["users", "taxonomies", "assignments"])
def test_one_list_that_became_empty_is_believed_at_the_second_time(
    project: Project, paligo: Paligo, resource: str
) -> None:
    """The other tables are synced; a loss of rights does not empty the destination at once."""
    succeeded(project.sync(paligo.configuration(**ALL)))
    rows = len(project.rows(resource))
    paligo.records[resource].clear()
    output = succeeded(project.sync(paligo.configuration(**ALL))).output
    assert f"{resource}: the source lists nothing where it had {rows} rows" in output
    assert len(project.rows(resource)) == rows
    succeeded(project.sync(paligo.configuration(**ALL)))
    assert_equal_to_source(project, paligo)


def test_a_record_that_cannot_be_stored_is_reported_by_its_position(
    project: Project, paligo: Paligo
) -> None:
    """The other records are stored, and no value is shown."""
    paligo.cap = 20
    paligo.change("assignments", 25, end_date="a day of no calendar")
    paligo.change("taxonomies", 3, id=None)
    output = succeeded(project.sync(paligo.configuration())).output
    assert "page 1, record 4: id is missing" in output
    assert "Deletes were not looked for meanwhile in taxonomies. Values that" in output
    assert "additional_fields: 1 of assignments.due_date" in output
    assert "assignments: 1 value of due_date cannot be held by its type" in output
    assert "first page 2, record 6" in output
    assert "no calendar" not in output
    assert (len(project.rows("assignments")), len(project.rows("taxonomies"))) == (230, 59)


def test_a_table_of_which_more_than_a_tenth_was_skipped_fails(
    project: Project, paligo: Paligo
) -> None:
    """The source may have changed its form, so nothing is replaced."""
    succeeded(project.sync(paligo.configuration()))
    for position in (1, 2):
        paligo.change("users", position, id="")
    output = failed(project.sync(paligo.configuration()))
    assert "users: 2 records skipped" in output
    assert len(project.rows("users")) == 12


@pytest.mark.parametrize("resource", ["users", "taxonomies", "assignments"])
def test_a_failure_shows_no_record(project: Project, paligo: Paligo, resource: str) -> None:
    """Crash reports hold no page, no tree of taxonomies and no credentials."""
    paligo.cap = 5
    record = json.dumps({"users": [USER], "page": "no number", "data": paligo.records[resource]})
    paligo.fault(f"/api/v2/{resource}", skip=2, status=200, body=record, headers=JSON)
    result = project.debug(paligo.configuration())
    written = failed(result) + project.everything_written()
    assert list(project.path.glob("crash-reports/*"))
    assert not {secret for secret in paligo.secrets() if secret in written}


def test_the_state_holds_times_counts_and_digests_only(project: Project, paligo: Paligo) -> None:
    """It is small, whatever the source holds."""
    succeeded(project.sync(paligo.configuration()))
    state = project.state
    assert state.keys() == {"version", "tables", "oldest", "source"}
    for entry in state["tables"].values():
        assert entry.keys() == {"cursor", "listed_at", "rows", "fingerprint"}
        assert len(entry["fingerprint"]) <= 512


# The folder


def test_development_files_are_tracked_and_checked_but_not_deployed(project: Project) -> None:
    """The folder's .gitignore keeps exactly these files out of the package."""
    tracked = _output("git", "ls-files", "connectors/paligo")
    linted = _output(str(Path(sys.executable).parent / "ruff"), "check", "--show-files")
    with zipfile.ZipFile(project.package()) as archive:
        packed = archive.namelist()
    for name in DEVELOPMENT_FILES:
        assert f"connectors/paligo/{name}" in tracked.splitlines()
        assert str(ROOT / "connectors" / "paligo" / name) in linted.splitlines()
        assert (project.path / name).exists()
        assert not [path for path in packed if path.endswith(Path(name).name)]


def test_the_debug_script_shows_every_scenario() -> None:
    """It runs from any folder, without real waits, and exits with 0 if all scenarios ended as they
    should."""
    script = str(ROOT / "connectors" / "paligo" / "debug_connector.py")
    names = ("normal", "rate_limit", "errors", "expired", "slow")
    output = _output(sys.executable, script, *names, "--once", cwd=Path(script).parent)
    assert output.count("as it should be") == len(names)
    for told in (
        "waits: 30.0 s",
        "users, page 1: GET ",
        "status 503; retry 1 of 3",
        "status 401",
        "no response within 1",
    ):
        assert told in output
    unknown = subprocess.run(
        [sys.executable, script, "no_such"], capture_output=True, text=True, check=False
    )
    assert unknown.returncode == 2
    assert "there are normal" in unknown.stderr


def _output(*command: str, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
