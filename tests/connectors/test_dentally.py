"""Dentally: tokens, both forms of its records, windows, drift, deletes."""

import json
import os
import re
import signal
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from importlib import import_module
from typing import Any

import pytest
import requests
import time_machine
from fivetran_connector_sdk import Operations

from shared import times
from shared.errors import SourceError
from shared.oauth import AccessToken, parse_token
from shared.rest import parse_json
from shared.state import OVERLAP, State
from shared.times import parse
from tests.compare import assert_equal_to_source
from tests.sandbox.dentally import Dentally
from tests.sandbox.fivetran import Project, load


@pytest.fixture
def sandbox() -> Iterator[Dentally]:
    with Dentally() as started:
        yield started


def synced(project: Project, sandbox: Dentally, **changes: str) -> Any:
    result = project.sync(sandbox.configuration(**changes))
    assert result.code == 0, result.output
    return result


def rows_by_id(project: Project, table: str) -> dict[str, dict[str, Any]]:
    return {row["id"]: row for row in project.rows(table)}


# Records


@pytest.mark.parametrize("shape", ["live", "documented"])
@pytest.mark.parametrize("meta", ["total", "pages", "text", "none"])
def test_both_forms_of_records_and_all_forms_of_meta(
    dentally: Project, shape: str, meta: str
) -> None:
    """The specification's payload and the live one give the same columns, with the right
    values."""
    with Dentally(shape=shape, meta=meta) as sandbox:
        synced(dentally, sandbox)
        assert_equal_to_source(dentally, sandbox)


def test_what_looks_like_a_number_stays_text(dentally: Project) -> None:
    """Phone "07000", room "12", code "t": the type does not depend on the data."""
    with Dentally(shape="documented") as sandbox:
        synced(dentally, sandbox)
    assert {row["phone"] for row in dentally.rows("sites")} == {"07000"}
    assert {row["room_number"] for row in dentally.rows("rooms")} == {"12"}
    assert {row["code"] for row in dentally.rows("treatments")} == {"t"}


def test_money_is_exact(dentally: Project, sandbox: Dentally) -> None:
    """Text, integers and JSON numbers keep each digit; no float is used."""
    fees: list[Any] = ["27.9", 0.1, 1234, "-0.0001", "1E+2"]
    for position, fee in enumerate(fees):
        sandbox.change("treatments", position, default_fee=fee)
    body = b'{"treatments": [{"id": 1, "default_fee": 123456789012345.6789}], "meta": {}}'
    synced(dentally, sandbox)
    by_id = rows_by_id(dentally, "treatments")
    ids = [str(sandbox.records["treatments"][position]["id"]) for position in range(len(fees))]
    assert [by_id[i]["default_fee"] for i in ids] == [Decimal(str(fee)) for fee in fees]
    sandbox.fault("/v1/treatments", status=200, body=body, headers={"Content-Type": "text/json"})
    synced(dentally, sandbox)
    assert rows_by_id(dentally, "treatments")["1"]["default_fee"] == Decimal(
        "123456789012345.6789"
    )


def test_fields_without_a_column_are_kept(dentally: Project, sandbox: Dentally) -> None:
    """No field that the source sent is dropped or kept twice."""
    synced(dentally, sandbox)
    site = sandbox.records["sites"][0]
    kept = json.loads(rows_by_id(dentally, "sites")[site["id"]]["additional_fields"])
    taken = {"id", "name", "phone_number", "email_address"}
    assert kept == {key: value for key, value in site.items() if key not in taken}


def test_nested_objects_become_columns(dentally: Project) -> None:
    """An address or a site that is an object fills the documented column."""
    with Dentally(shape="documented") as sandbox:
        address = {"line": "1 High Street", "town": "Leeds", "county": None}
        site = sandbox.change("sites", 0, address=address)
        room = sandbox.change("rooms", 0, site_id=None, site={"id": 17, "name": "x"})
        synced(dentally, sandbox)
    assert rows_by_id(dentally, "sites")[site["id"]]["address"] == "1 High Street, Leeds"
    assert rows_by_id(dentally, "rooms")[room["id"]]["site_id"] == "17"


def test_status_of_a_room_comes_from_active(dentally: Project, sandbox: Dentally) -> None:
    """A missing status is null, never an invented "active"."""
    ids = [
        str(sandbox.change("rooms", position, **fields)["id"])
        for position, fields in enumerate([{"active": True}, {"active": False}, {}])
    ]
    synced(dentally, sandbox)
    rows = rows_by_id(dentally, "rooms")
    assert [rows[i]["status"] for i in ids] == ["active", "inactive", None]


@pytest.mark.parametrize(
    ("active", "status"),
    [
        *(
            (True, "active"),
            ("Yes", "active"),
            (1, "active"),
            (0, "inactive"),
            ("off", "inactive"),
        ),
        *((None, None), ("", None), ("perhaps", None), ({"value": True}, None), ([], None)),
    ],
)
def test_what_is_no_flag_is_no_status(active: Any, status: str | None) -> None:
    """Any `active` stays in additional_fields; one that is neither yes nor no is counted."""
    found = load("dentally").ROOMS.rows([{"id": 1, "active": active}])
    [row] = found.rows
    assert row["status"] == status
    assert row["additional_fields"] == {"active": active}
    assert bool(found.odd) == (status is None and active not in (None, ""))


def test_parts_of_an_address_that_are_no_text_are_left_out_of_it() -> None:
    """They stay in additional_fields, and the address holds no Python representation of them."""
    address = {"line": {"x": 1}, "number": parse_json("12.50"), "lines": ["y"], "town": "Leeds"}
    [nested, flat] = (
        load("dentally")
        .SITES.rows(
            [{"id": 1, "address": address}, {"id": 2, "address": [address], "town": "York"}]
        )
        .rows
    )
    assert (nested["address"], flat["address"]) == ("12.50, Leeds", "York")
    assert nested["additional_fields"] == {"address": address}


@pytest.mark.parametrize("key", [None, ""])
def test_a_record_without_a_key_is_skipped(
    dentally: Project, sandbox: Dentally, key: str | None
) -> None:
    """It is counted and named by its position. The other records are stored, and nothing is
    deleted while one is skipped."""
    synced(dentally, sandbox)
    record = sandbox.records["treatments"][3]
    record["created_at"] = "2000-01-01T00:00:00Z"  # the first one in the order asked for
    real, record["id"] = record["id"], key
    gone = sandbox.delete("treatments", 7)
    result = synced(dentally, sandbox, reconcile_hours="0")
    assert "1 record skipped, first page 1, record 1: id is missing" in result.output
    assert "Records that cannot be stored were skipped: 1 of treatments" in result.output
    assert dentally.rows("treatments", deleted=True) == []
    record["id"] = real
    synced(dentally, sandbox, reconcile_hours="0")
    assert [row["id"] for row in dentally.rows("treatments", deleted=True)] == [str(gone["id"])]


ODD = [
    ("treatments", "duration_minutes", True),
    ("rooms", "created_at", "0000-00-00 00:00:00"),
    ("sites", "created_at", "31/12/2024"),
    ("rooms", "updated_at", False),
]


@pytest.mark.parametrize(("table", "column", "value"), ODD)
def test_an_odd_value_costs_that_value(
    dentally: Project, sandbox: Dentally, table: str, column: str, value: Any
) -> None:
    """It is null in its column, kept as sent, counted and named by its position. No row of the
    table is skipped or deleted, also at the next full refresh."""
    record = sandbox.records[table][0]
    record["created_at"] = "2000-01-01T00:00:00Z"  # the first one in the order asked for
    record[column] = value
    for _ in range(2):
        result = synced(dentally, sandbox, reconcile_hours="0")
        assert f"{table}: 1 value of {column} " in result.output
        row = rows_by_id(dentally, table)[str(record["id"])]
        assert row[column] is None
        assert json.loads(row["additional_fields"])[column] == value
        assert len(dentally.rows(table)) == len(sandbox.records[table])
        assert dentally.rows(table, deleted=True) == []


def test_a_fee_of_binary_floating_point_is_rounded(dentally: Project, sandbox: Dentally) -> None:
    """The error that binary floating point adds is removed."""
    treatment = sandbox.change("treatments", 0, default_fee=19.990000000000002)
    synced(dentally, sandbox)
    row = rows_by_id(dentally, "treatments")[str(treatment["id"])]
    assert str(row["default_fee"]) == "19.9900"


def test_odd_values_are_null_and_kept_and_reported(dentally: Project, sandbox: Dentally) -> None:
    """One warning covers all tables, without values that stand for no date; every record is
    stored."""
    odd: dict[str, dict[str, Any]] = {
        "treatments": {"default_fee": "a lot", "duration_minutes": 2**31, "updated_at": "soon"},
        "rooms": {"active": {"value": True}, "site": {"id": [1]}, "created_at": "0000-00-00"},
        "sites": {"created_at": "31/12/2024"},
    }
    ids = {}
    for table, fields in odd.items():
        record = sandbox.records[table][0]
        record.pop("site_id", None)
        record.update(fields)
        ids[table] = str(record["id"])
    output = synced(dentally, sandbox).output
    for table, fields in odd.items():
        row = rows_by_id(dentally, table)[ids[table]]
        assert not {row.get(name) for name in fields} - {None}
        assert fields.items() <= json.loads(row["additional_fields"]).items()
        assert len(dentally.rows(table)) == len(sandbox.records[table])
    room = rows_by_id(dentally, "rooms")[ids["rooms"]]
    assert (room["status"], room["site_id"]) == (None, None)
    assert (
        "kept as sent in additional_fields: 1 of sites.created_at, 1 of rooms.site_id, "
        "1 of rooms.status, 1 of treatments.default_fee, 1 of treatments.duration_minutes, "
        "1 of treatments.updated_at. The log says where"
    ) in output
    assert 'rooms: 1 value of created_at stands for "no date"' in output
    assert "a lot" not in output


def test_a_table_of_skipped_records_fails(dentally: Project, sandbox: Dentally) -> None:
    """More than a tenth is skipped, so the cursor stays; the next sync reads the mended
    records."""
    for record in sandbox.records["treatments"][:24]:
        record["name"] = record.pop("id")
    result = dentally.sync(sandbox.configuration())
    assert result.code == 1
    assert "more than a tenth of 230" in result.output
    assert "treatments" not in dentally.state["tables"]
    for record in sandbox.records["treatments"][:24]:
        record["id"] = record.pop("name")
    synced(dentally, sandbox)
    assert_equal_to_source(dentally, sandbox)


# Tokens


def test_an_oldest_moment_that_is_to_come_is_replaced(
    dentally: Project, sandbox: Dentally
) -> None:
    """A clock that was ahead at the first sync does not hide all records for good."""
    ahead = times.to_text(datetime.now(timezone.utc) + timedelta(days=400))
    state = {"version": 1, "tables": {}, "oldest": ahead}
    configuration = sandbox.configuration(initial_sync_days="365")
    assert dentally.sync(configuration, state).code == 0
    assert dentally.state["oldest"] < times.to_text(datetime.now(timezone.utc))
    assert dentally.rows("rooms")


def test_an_expired_token_is_renewed_once_and_the_next_process_has_it(
    dentally: Project, sandbox: Dentally
) -> None:
    """With rotation: the next process needs only the old configuration and the state."""
    sandbox.fault("/v1/treatments", skip=1, act=sandbox.revoke_access_token)
    first = dentally.debug(sandbox.configuration())
    assert first.code == 0, first.output
    assert_equal_to_source(dentally, sandbox)
    assert len(sandbox.paths("/oauth/token")) == sandbox.renewals == 1
    second = dentally.debug(sandbox.configuration())
    assert second.code == 0, second.output
    assert sandbox.renewals == 1
    seen = first.output + second.output + dentally.everything_written()
    assert not [secret for secret in sandbox.secrets() if secret in seen]


def test_without_rotation_the_refresh_token_stays(dentally: Project) -> None:
    """A server that sends no new refresh token still takes the old one."""
    with Dentally(rotates=False) as sandbox:
        for renewals in (1, 2):
            sandbox.revoke_access_token()
            synced(dentally, sandbox)
            assert sandbox.renewals == renewals


def test_new_tokens_in_the_configuration_win(dentally: Project, sandbox: Dentally) -> None:
    """Encrypted tokens count only for the configuration's tokens that they replaced."""
    sandbox.revoke_access_token()
    synced(dentally, sandbox)
    sandbox.access_token, sandbox.refresh_token = "access-pasted", "refresh-pasted"
    synced(dentally, sandbox, access_token="access-pasted", refresh_token="refresh-pasted")
    assert sandbox.renewals == 1


@pytest.mark.parametrize("tokens", [{"sealed": "gAAAAABnot-a-token"}, {"sealed": 5}, "x", [5]])
def test_tokens_that_cannot_be_decrypted_are_ignored(
    dentally: Project, sandbox: Dentally, tokens: Any
) -> None:
    """A warning says so, and the configuration's tokens are used."""
    sandbox.revoke_access_token()
    synced(dentally, sandbox)
    state = dentally.state
    changed = {**state["tokens"], **tokens} if isinstance(tokens, dict) else tokens
    state["tokens"] = changed
    sandbox.access_token = sandbox.first_tokens[0]
    result = dentally.sync(sandbox.configuration(), state)
    assert result.code == 0
    assert "cannot be decrypted" in result.output


def test_a_token_near_its_end_is_renewed_before_a_listing(
    dentally: Project, sandbox: Dentally
) -> None:
    """So no listing meets a 401 that could be foreseen."""
    sandbox.revoke_access_token()
    synced(dentally, sandbox)
    assert len([r for r in sandbox.requests if r.status == 401]) == 1
    with time_machine.travel(datetime.now(timezone.utc) + timedelta(days=14, minutes=-2)):
        synced(dentally, sandbox)
    assert sandbox.renewals == 2
    assert len([r for r in sandbox.requests if r.status == 401]) == 1


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"refresh_token": "used-up"}, "create new tokens in the Developer Portal"),
        ({"client_secret": "wrong"}, "Check client_id and client_secret"),
    ],
)
def test_a_renewal_that_is_refused_says_what_to_do(
    dentally: Project, sandbox: Dentally, changes: dict[str, str], advice: str
) -> None:
    """One request for a token is sent, and the error says what to do."""
    sandbox.revoke_access_token()
    result = dentally.sync(sandbox.configuration(**changes))
    assert result.code == 1
    assert advice in result.output
    assert len(sandbox.paths("/oauth/token")) == 1


@pytest.mark.parametrize("body", ["{}", "[]", '{"access_token": ""}', '{"access_token": 7}'])
def test_a_renewal_without_a_token_is_an_error(
    dentally: Project, sandbox: Dentally, body: str
) -> None:
    """Nothing of a response without a token is kept."""
    sandbox.revoke_access_token()
    sandbox.fault("/oauth/token", status=200, body=body)
    result = dentally.sync(sandbox.configuration())
    assert result.code == 1
    assert "holds no usable access token" in result.output


def test_errors_that_advise_a_resync_say_that_it_forgets_tokens(
    dentally: Project, sandbox: Dentally
) -> None:
    """The error for a state of another form says so, and the error for a used-up refresh token."""
    forgets = "A re-sync forgets the renewed tokens, which are in the state: put new tokens into"
    assert forgets in dentally.sync(sandbox.configuration(), {"version": 2}).output
    sandbox.revoke_access_token()
    assert forgets in dentally.sync(sandbox.configuration(refresh_token="used"), {}).output


def test_a_token_that_stays_refused_ends_the_sync(dentally: Project, sandbox: Dentally) -> None:
    """One renewal, one retry, then an error."""
    sandbox.fault("/v1/sites", times=None, status=401)
    result = dentally.sync(sandbox.configuration())
    assert result.code == 1
    assert "even after a renewal" in result.output
    assert sandbox.paths() == ["/v1/sites", "/oauth/token", "/v1/sites"]


@pytest.mark.posix
def test_killed_after_a_renewal_the_next_sync_has_the_tokens(
    dentally: Project, sandbox: Dentally
) -> None:
    """The new tokens are in the state before they are used; the listing that broke off begins
    again."""
    running: list[Any] = []
    sandbox.fault("/v1/treatments", skip=1, act=sandbox.revoke_access_token)
    sandbox.fault("/v1/treatments", skip=3, act=lambda: os.kill(running[0].pid, signal.SIGKILL))
    with sandbox.lock:
        running.append(dentally.start(sandbox.configuration(parallel_requests="1")))
    running[0].communicate(timeout=60)
    assert running[0].returncode == -signal.SIGKILL
    result = dentally.debug(sandbox.configuration())
    assert result.code == 0, result.output
    assert sandbox.renewals == 1
    assert_equal_to_source(dentally, sandbox)


PAIR = {"access_token": "access-two", "refresh_token": "refresh-two"}


def tokens(saved: State, *sent_tokens: Any, **given_tokens: str) -> tuple[Any, list[str]]:
    """Tokens whose renewals get these responses, and the refresh tokens that were sent."""
    load("dentally")
    left, sent = list(sent_tokens), list[str]()

    def refresh(token: str) -> AccessToken:
        sent.append(token)
        return parse_token(left.pop(0), "/oauth/token", times.now())

    texts = {"client_secret": "s", "access_token": "a1", "refresh_token": "r1", **given_tokens}
    return import_module("saved_tokens").Tokens(**texts, refresh=refresh, saved=saved), sent


def signed(one: Any) -> Any:
    return one(requests.Request("GET", "https://h/").prepare())


@pytest.fixture
def checkpoints(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The states that were saved."""
    saved: list[str] = []
    monkeypatch.setattr(Operations, "checkpoint", lambda state: saved.append(json.dumps(state)))
    return saved


@pytest.mark.parametrize(("after", "renewed"), [(699, False), (700, True), (701, True)])
def test_saved_tokens_are_renewed_five_minutes_before_they_expire(
    checkpoints: list[str], after: int, renewed: bool
) -> None:
    """By the sync that requested them, and by the next one, which has them from the state."""
    start = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
    with time_machine.travel(start, tick=False) as clock:
        first, sent = tokens(State({}, ()), {**PAIR, "expires_in": "1000"}, PAIR)
        first.renew_if_due()
        assert sent == []
        assert first.renew(signed(first), 1)
        assert signed(first).headers["Authorization"] == "Bearer access-two"
        state = json.loads(checkpoints[-1])
        assert "access-two" not in checkpoints[-1]
        clock.shift(after)
        second, sent_later = tokens(State(state, ()), PAIR)
        assert signed(second).headers["Authorization"] == "Bearer access-two"
        first.renew_if_due()
        second.renew_if_due()
        assert sent == ["r1", *["refresh-two"] * renewed]
        assert sent_later == ["refresh-two"] * renewed


@pytest.mark.parametrize("expires_in", [None, 0, 1e300])
def test_tokens_of_unknown_lifetime_wait_for_a_refusal(
    checkpoints: list[str], expires_in: Any
) -> None:
    """Without a new refresh token the old one stays in use."""
    first, sent = tokens(
        State({}, ()), {"access_token": "access-two", "expires_in": expires_in}, PAIR
    )
    first.renew(signed(first), 1)
    second, sent_later = tokens(State(json.loads(checkpoints[-1]), ()), PAIR)
    with time_machine.travel(datetime.now(timezone.utc) + timedelta(days=3_650)):
        second.renew_if_due()
        assert sent_later == []
    second.renew(signed(second), 1)
    assert sent == sent_later == ["r1"]


@pytest.mark.parametrize("refresh", ["r\r\nX-Other: 1", "r" * 40_000, "\ud800"])
def test_a_refresh_token_that_cannot_be_sent_is_not_stored(
    checkpoints: list[str], refresh: str
) -> None:
    """The one that the configuration has stays in use beside the new access token."""
    one, sent = tokens(State({}, ()), {**PAIR, "refresh_token": refresh}, PAIR)
    assert one.renew(signed(one), 1)
    later, sent_later = tokens(State(json.loads(checkpoints[-1]), ()), PAIR)
    assert signed(later).headers["Authorization"] == "Bearer access-two"
    later.renew(signed(later), 1)
    assert sent == sent_later == ["r1"]


@pytest.mark.parametrize(
    ("changes", "used"),
    [
        ({"renew_at": "soon"}, "access-two"),
        ({"renew_at": [1]}, "access-two"),
        ({"access": "a\r\nb"}, "a1"),
        ({"refresh": "r\x00"}, "a1"),
        ({"refresh": 7}, "a1"),
        ({"access": ""}, "a1"),
    ],
)
def test_tokens_of_the_state_that_cannot_be_sent_are_not_used(
    checkpoints: list[str], capsys: pytest.CaptureFixture[str], changes: dict[str, Any], used: str
) -> None:
    """An earlier version may have stored them. An end that cannot be read is unknown."""
    one, _ = tokens(State({}, ()), PAIR)
    one.renew(signed(one), 1)
    state, encryption = json.loads(checkpoints[-1]), one._encryption
    content = {**encryption.decrypt(state["tokens"]["sealed"]), **changes}
    state["tokens"]["sealed"] = encryption.encrypt(content)
    later, _ = tokens(State(state, ()))
    later.renew_if_due()
    assert signed(later).headers["Authorization"] == f"Bearer {used}"
    assert ("cannot be sent" in capsys.readouterr().out) is (used == "a1")


def test_a_token_that_is_refused_is_renewed_once(checkpoints: list[str]) -> None:
    """Another thread may have renewed it already; a second refusal is final."""
    one, sent = tokens(State({}, ()), PAIR)
    refused = signed(one)
    assert one.renew(refused, 1)
    assert one.renew(refused, 1)
    assert not one.renew(signed(one), 2)
    assert sent == ["r1"]
    assert len(checkpoints) == 1


@pytest.mark.parametrize(
    "response",
    [
        *({}, [], None, {"access_token": ""}, {"access_token": 7}),
        *({**PAIR, "access_token": "a\r\nb"}, {**PAIR, "access_token": "a" * 40_000}),
    ],
)
def test_a_response_without_usable_tokens_is_an_error(
    checkpoints: list[str], response: Any
) -> None:
    """Nothing of such a response is kept."""
    one, _ = tokens(State({}, ()), response)
    with pytest.raises(SourceError, match="holds no usable access token"):
        one.renew(signed(one), 1)
    assert checkpoints == []
    assert signed(one).headers["Authorization"] == "Bearer a1"


@pytest.mark.parametrize(
    ("changes", "used"),
    [
        ({}, "access-two"),
        ({"access_token": "new"}, "new"),
        ({"refresh_token": "new"}, "a1"),
        ({"client_secret": "new"}, "a1"),
    ],
)
def test_whose_tokens_are_used(checkpoints: list[str], changes: dict[str, str], used: str) -> None:
    """Those of the state, as long as the configuration that they replaced has not changed."""
    one, _ = tokens(State({}, ()), PAIR)
    one.renew(signed(one), 1)
    later, _ = tokens(State(json.loads(checkpoints[-1]), ()), **changes)
    assert signed(later).headers["Authorization"] == f"Bearer {used}"


def test_tokens_that_an_earlier_version_encrypted_are_used() -> None:
    """A new version must not lose a refresh token that works only once."""
    sealed = (
        "gAAAAABrAcQqNoaro4BVcsfOg-TwZFGJjANRUfKk1mGBDg1Fwbv2ImLiW4RUy-c2zdrQYd"
        "rJOwX1eoluiiv89rJDQaV9AflrPEKLv3AMddy25wKYiMQh0MVWzp3hRYLuimx4YCpwl8OQ"
        "PH21xf8jD-s0QUytdVOHMw=="
    )
    tokens_of_state = {"sealed": sealed, "replaced": "cd9e66e14c810599"}
    one, _ = tokens(State({"version": 1, "tables": {}, "tokens": tokens_of_state}, ()))
    assert signed(one).headers["Authorization"] == "Bearer a2"


@pytest.mark.parametrize(
    ("changes", "oldest", "full", "since"),
    [
        ({}, None, False, "2026-01-31T11:00:00Z"),
        ({"reconcile_hours": "1"}, None, False, "2026-01-31T11:00:00Z"),
        ({"reconcile_hours": "0"}, None, True, None),
        ({"reconcile_hours": "0"}, "2025-01-01T00:00:00Z", True, "2025-01-01T00:00:00Z"),
        ({"enable_incremental_sync": "false"}, None, True, None),
    ],
)
def test_the_window_of_a_table(
    changes: dict[str, str], oldest: str | None, full: bool, since: str | None
) -> None:
    """It begins at the cursor or, for a full refresh, at the lower bound of the first sync."""
    entry = {"cursor": "2026-01-31T11:00:00Z", "listed_at": "2026-01-31T11:30:00Z"}
    keys = ("client_id", "client_secret", "access_token", "refresh_token")
    settings = load("dentally").validate_configuration({**dict.fromkeys(keys, "k"), **changes})
    saved = State({"version": 1, "tables": {"rooms": entry}, "oldest": oldest}, ())
    with time_machine.travel(datetime(2026, 1, 31, 12, tzinfo=timezone.utc), tick=False):
        found = load("dentally").get_time_range(settings, saved, "rooms")
    assert (found.full, found.since) == (full, parse(since) if since else None)


# Limits and headers


@pytest.mark.parametrize("status", [429, 403])
def test_the_wait_of_a_rate_limit_is_honoured(
    dentally: Project, sandbox: Dentally, waits: list[float], status: int
) -> None:
    """429, or 403 with the words of a rate limit; X-RateLimit-Reset says until when."""
    sandbox.limit, sandbox.limit_status = 3, status
    now = datetime.now(timezone.utc).replace(microsecond=250_000)  # well before the limit's reset
    with time_machine.travel(now, tick=False):
        synced(dentally, sandbox)
    assert len(waits) == 1
    assert 0 < waits[0] <= 1
    assert_equal_to_source(dentally, sandbox)


def test_requests_carry_a_user_agent_and_no_key_in_the_url(
    dentally: Project, sandbox: Dentally
) -> None:
    """Dentally responds with 403 to a client without a User-Agent of its own."""
    synced(dentally, sandbox)
    assert {r.headers["User-Agent"] for r in sandbox.requests} == {
        "fivetran-dentally-connector/1.0"
    }
    assert not [r.url for r in sandbox.requests if "access-" in r.url]


# Pages


@pytest.mark.parametrize("meta", ["total", "pages", "none"])
def test_a_server_that_caps_pages_loses_nothing(dentally: Project, meta: str) -> None:
    """A page of 25 records where 100 were requested is not the end."""
    with Dentally(cap=25, meta=meta) as sandbox:
        synced(dentally, sandbox)
        assert_equal_to_source(dentally, sandbox)


@pytest.mark.parametrize("position", [0, None])
@pytest.mark.parametrize("what", ["insert", "delete"])
def test_pages_that_drift_are_read_again(dentally: Project, what: str, position: Any) -> None:
    """A row that is inserted or deleted between two pages hides no other row."""
    with Dentally() as sandbox:

        def drift() -> None:
            if what == "insert":
                record = sandbox.insert("treatments", position)
                year = "2000" if position == 0 else "2099"
                record["created_at"] = f"{year}-01-01T00:00:00Z"
            else:
                sandbox.records["treatments"].sort(key=lambda r: r["created_at"])
                sandbox.delete("treatments", -1 if position is None else position)

        sandbox.fault("/v1/treatments", skip=1, act=drift)
        result = synced(dentally, sandbox)
        assert "the list is read once more" in result.output
        assert {row["id"] for row in dentally.rows("treatments")} == {
            str(record["id"]) for record in sandbox.records["treatments"]
        }


def test_a_total_that_never_agrees_deletes_nothing(dentally: Project, sandbox: Dentally) -> None:
    """The total counts records that are not listed: rows are stored, the cursor moves, nothing is
    deleted, and the next sync reads the list once."""
    synced(dentally, sandbox)
    sandbox.delete("rooms", 0)
    sandbox.insert("rooms")
    sandbox.miscount = 3
    for reads in (2, 1):
        before, requests = dentally.state["tables"]["rooms"], len(sandbox.paths("/v1/rooms"))
        result = synced(dentally, sandbox, reconcile_hours="0")
        assert "40 distinct of 43 records" in result.output
        assert len(sandbox.paths("/v1/rooms")) - requests == 2 * reads
        assert dentally.rows("rooms", deleted=True) == []
        assert dentally.state["tables"]["rooms"]["cursor"] > before["cursor"]
        assert len(dentally.rows("rooms")) == 41
    sandbox.miscount = 0
    synced(dentally, sandbox, reconcile_hours="0")
    assert_equal_to_source(dentally, sandbox)


def test_ties_in_the_order_delete_nothing(dentally: Project) -> None:
    """Sites have no order, and treatments that were imported together have one time: pages repeat
    some records and miss others while the number of records agrees."""
    with Dentally(sites=60, cap=7) as sandbox:
        synced(dentally, sandbox)
        sandbox.ties = 5
        for _ in range(3):
            synced(dentally, sandbox, reconcile_hours="0")
            assert dentally.rows("sites", deleted=True) == []
            assert dentally.rows("treatments", deleted=True) == []
        sandbox.ties = 1
        synced(dentally, sandbox, reconcile_hours="0")
        assert_equal_to_source(dentally, sandbox)


def test_the_second_read_goes_backwards(dentally: Project, sandbox: Dentally) -> None:
    """Where the source can sort, the second read finds records that ties at the end of a page hid
    from the first."""
    sandbox.miscount = 1
    synced(dentally, sandbox)
    asked = [
        (request.query["page"], request.query.get("sort_direction"))
        for request in sandbox.requests
        if request.path == "/v1/rooms"
    ]
    assert asked == [("1", "asc"), ("2", "asc"), ("1", "desc"), ("2", "desc")]
    assert not any("sort_by" in r.query for r in sandbox.requests if r.path == "/v1/sites")


def test_a_source_that_stops_counting_loses_nothing(dentally: Project) -> None:
    """If the last announced page is full, the pages after it are requested, too."""
    for meta in ("total", "pages"):
        with Dentally(meta=meta) as sandbox:
            sandbox.counts_to = 200
            synced(dentally, sandbox, reconcile_hours="0")
            stored = {row["id"] for row in dentally.rows("treatments")}
            assert {str(record["id"]) for record in sandbox.records["treatments"]} <= stored


@pytest.mark.parametrize("meta", ["total", "none"])
def test_a_source_that_repeats_a_page_is_an_error(dentally: Project, meta: str) -> None:
    """A server that ignores `page` is noticed, so the sync ends."""
    with Dentally(meta=meta) as sandbox:
        records = sandbox.records["treatments"][:25]
        body = {"treatments": records, **({"meta": {"total": 100}} if meta == "total" else {})}
        sandbox.fault("/v1/treatments", times=None, status=200, body=json.dumps(body))
        result = dentally.sync(sandbox.configuration())
        assert result.code == 1
        assert "/v1/treatments: page 3 and the one before it repeat others" in result.output


@pytest.mark.parametrize(
    ("meta", "reason"),
    [
        ({"current_page": 7}, "page 1 was asked for, and the source sent another one"),
        ({"total": "many"}, "meta holds what is no number"),
        ({"total": [1]}, "meta holds what is no number"),
        ({"total_pages": 1e999}, "meta holds what is no number"),
        ([1], 'the response has no list "treatments" or "data"'),
    ],
)
def test_what_meta_says_must_be_understood(
    dentally: Project, sandbox: Dentally, meta: Any, reason: str
) -> None:
    """It decides where a list ends."""
    body = json.dumps({"treatments": sandbox.records["treatments"][:3], "meta": meta})
    sandbox.fault("/v1/treatments", times=None, status=200, body=body.replace("Infinity", "1e999"))
    result = dentally.sync(sandbox.configuration())
    assert result.code == 1
    assert f"/v1/treatments: {reason}" in result.output


# Windows and deletes


def test_a_second_sync_sends_only_what_changed(dentally: Project, sandbox: Dentally) -> None:
    """Sites carry no times, so all are sent when one changed; of the other tables, only changes
    are."""
    synced(dentally, sandbox)
    assert synced(dentally, sandbox).counts["Upserts"] == 0
    sandbox.change("treatments", 0, description="Revised")
    sandbox.insert("rooms")
    assert synced(dentally, sandbox).counts["Upserts"] == 2
    sandbox.change("sites", 0, name="Another")
    sites = len(sandbox.records["sites"])
    # The other two are read again, in the overlap, and the destination has them.
    assert synced(dentally, sandbox).counts["Upserts"] == sites
    assert synced(dentally, sandbox).counts["Upserts"] == 0
    assert_equal_to_source(dentally, sandbox)


def test_a_filter_that_the_source_ignores_is_applied_here(dentally: Project) -> None:
    """Unchanged rows are not sent, even when the source lists all of them."""
    with Dentally(filters=False) as sandbox:
        synced(dentally, sandbox)
        sandbox.change("treatments", 0, description="Revised")
        assert synced(dentally, sandbox).counts["Upserts"] == 1


def test_a_change_during_the_first_sync_arrives_in_the_second(
    dentally: Project, sandbox: Dentally
) -> None:
    """The cursor is the clock before the first request, less an overlap."""
    sandbox.fault(
        "/v1/treatments",
        skip=2,
        act=lambda: sandbox.change("treatments", 0, description="Late"),
    )
    sandbox.records["treatments"].sort(key=lambda r: r["created_at"])
    synced(dentally, sandbox)
    synced(dentally, sandbox)
    assert_equal_to_source(dentally, sandbox)


def test_the_cursor_lies_before_the_sync(dentally: Project, sandbox: Dentally) -> None:
    """It is never the clock at the end, so a row that is stamped during the sync is read again."""
    before = datetime.now(timezone.utc)
    synced(dentally, sandbox)
    for entry in dentally.state["tables"].values():
        started = datetime.fromisoformat(entry["cursor"].replace("Z", "+00:00")) + OVERLAP
        assert before <= started <= datetime.now(timezone.utc)
    cursors = [entry["cursor"] for entry in dentally.state["tables"].values()]
    assert len(set(cursors)) == 3


def test_deletes_arrive_once_a_day(dentally: Project, sandbox: Dentally) -> None:
    """A full refresh is due after `reconcile_hours`, and soft-deletes the rows that are gone."""
    synced(dentally, sandbox)
    gone = str(sandbox.delete("treatments", 5)["id"])
    synced(dentally, sandbox)
    assert gone in rows_by_id(dentally, "treatments")
    with time_machine.travel(datetime.now(timezone.utc) + timedelta(hours=24)):
        synced(dentally, sandbox)
    assert_equal_to_source(dentally, sandbox)
    assert [row["id"] for row in dentally.rows("treatments", deleted=True)] == [gone]


def test_an_emptied_table_leaves_the_others_their_retries(
    dentally: Project, sandbox: Dentally, waits: list[float]
) -> None:
    """The guard against an emptied list affects only that list."""
    synced(dentally, sandbox)
    sandbox.records["sites"].clear()
    sandbox.fault("/v1/rooms", status=503)
    synced(dentally, sandbox, reconcile_hours="0")
    assert len(waits) == 1
    assert dentally.rows("sites")


def test_without_incremental_sync_everything_is_read(dentally: Project, sandbox: Dentally) -> None:
    """`enable_incremental_sync` "false": every sync is a full refresh, which sends the tables that
    changed."""
    first = synced(dentally, sandbox, enable_incremental_sync="false")
    for resource, records in sandbox.records.items():
        sandbox.change(resource, 0, name="Another")
        records[1]["name"] = "Another, at no time"
    second = synced(dentally, sandbox, enable_incremental_sync="false")
    assert first.counts["Upserts"] == second.counts["Upserts"]
    assert_equal_to_source(dentally, sandbox)
    assert synced(dentally, sandbox, enable_incremental_sync="false").counts["Upserts"] == 0
    assert not [r.url for r in sandbox.requests if "updated_after" in r.url]


def test_a_table_enabled_later_arrives_whole(dentally: Project, sandbox: Dentally) -> None:
    """Each table has a cursor of its own."""
    synced(dentally, sandbox, enable_rooms_sync="false")
    assert dentally.rows("rooms") == []
    synced(dentally, sandbox)
    assert_equal_to_source(dentally, sandbox)


@pytest.mark.parametrize("dies", [False, True])
def test_another_host_is_read_from_its_beginning(
    dentally: Project, sandbox: Dentally, dies: bool
) -> None:
    """As after a test with Dentally's sandbox: cursors tell nothing of its records. It is so for
    tables that come after a kill, too."""
    synced(dentally, sandbox)
    with Dentally(seed=2) as other:
        if dies:
            other.fault("/v1/rooms", times=None, status=404)
            assert dentally.sync(other.configuration()).code == 1
            other.faults.clear()
        synced(dentally, other)
        assert_equal_to_source(dentally, other)
        assert synced(dentally, other).counts["Upserts"] == 0


def test_initial_sync_days_is_fixed_at_the_first_sync(
    dentally: Project, sandbox: Dentally
) -> None:
    """The lower bound stays where it was, also at full refreshes."""
    bound = datetime.now(timezone.utc) - timedelta(days=200)
    recent = {
        str(record["id"])
        for record in sandbox.records["treatments"]
        if datetime.fromisoformat(record["updated_at"]) >= bound
    }
    assert 0 < len(recent) < 230
    synced(dentally, sandbox, initial_sync_days="200")
    assert set(rows_by_id(dentally, "treatments")) == recent
    with time_machine.travel(datetime.now(timezone.utc) + timedelta(days=30)):
        synced(dentally, sandbox, initial_sync_days="1")
    assert set(rows_by_id(dentally, "treatments")) == recent


def test_a_resync_over_a_full_table_deletes_what_is_gone(
    dentally: Project, sandbox: Dentally
) -> None:
    """A first load replaces the table, so rows from before the re-sync do not stay."""
    synced(dentally, sandbox)
    sandbox.delete("treatments", 0)
    result = dentally.sync(sandbox.configuration(), {})
    assert result.code == 0
    assert_equal_to_source(dentally, sandbox)


def test_debug_logging_decides_on_the_detail(dentally: Project, sandbox: Dentally) -> None:
    """Pages are logged only on demand; what was done to a table always is."""
    quiet = synced(dentally, sandbox)
    assert "page 2" not in quiet.output
    assert "treatments: first load" in quiet.output
    assert re.search(r" treatments +first load +230 +230 +0 +0 ", quiet.output)
    assert (
        "treatments: page 2"
        in synced(dentally, sandbox, enable_debug_logging="true", reconcile_hours="0").output
    )
