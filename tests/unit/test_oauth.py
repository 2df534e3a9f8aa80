"""Access tokens: what a response must hold, and when a token is renewed."""

import threading
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import responses
import time_machine

from shared.errors import SourceError, SourceUnavailable
from shared.oauth import AccessToken, parse_token, request_token
from shared.rest import RestClient, Retry

NOW = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
URL = "https://auth.example.com"


@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [
        *((3600, 3300), ("3600", 3300), (600.0, 300), (599, 299.5), (10, 5), (601, 301)),
        *((None, None), (0, None), ("0", None), (-5, None), ("NaN", None)),
        *((1e300, None), (10**400, None), ("Infinity", None)),
    ],
)
def test_a_token_is_renewed_before_it_expires(expires_in: Any, seconds: float | None) -> None:
    """Five minutes before, or at half of its lifetime; never, if that is not stated."""
    token = parse_token({"access_token": "a", "expires_in": expires_in}, URL, NOW)
    assert token.renew_at == (None if seconds is None else NOW + timedelta(seconds=seconds))
    for offset in (-1, 0, 1):
        due = seconds is not None and offset >= 0
        with time_machine.travel(NOW + timedelta(seconds=(seconds or 0) + offset), tick=False):
            assert token.is_due is due


@pytest.mark.parametrize(
    "response",
    [
        *({}, [], None, "a", {"access_token": ""}, {"access_token": None}, {"access_token": 7}),
        *({"access_token": "two\nlines"}, {"access_token": "a b"}, {"access_token": "é"}),
        *({"access_token": "a\x00"}, {"access_token": "a" * 40_000}, {"access_token": ["a"]}),
    ],
)
def test_a_response_without_a_usable_token(response: Any) -> None:
    """The error names the endpoint, and nothing of the response."""
    with pytest.raises(SourceError, match=f"^{URL}: the response holds no usable access token$"):
        parse_token(response, URL, NOW)


@pytest.mark.parametrize("expires_in", ["soon", "2 weeks", [1], {}, True, "1_000", "0x10"])
def test_an_odd_lifetime_costs_no_token(expires_in: Any) -> None:
    """The request may have spent what could get another one. The lifetime is unknown."""
    found = parse_token({"access_token": "a", "expires_in": expires_in}, URL, NOW)
    assert found == AccessToken("a")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        *((7, "7"), ("r1", "r1"), ([1], ""), (None, ""), (True, ""), ("", "")),
        *(("r 1", ""), ("r\r\nX-Other: 1", ""), ("r\x00", ""), ("é", ""), ("r" * 40_000, "")),
    ],
)
def test_an_odd_refresh_token_costs_no_token(given: Any, kept: str) -> None:
    """It is left out, so that it is neither sent nor stored."""
    found = parse_token({"access_token": "a", "refresh_token": given}, URL, NOW)
    assert found == AccessToken("a", kept)


@responses.activate
def test_the_lifetime_begins_with_the_try_that_succeeds() -> None:
    """A retry may come an hour after the first try."""
    responses.post(f"{URL}/token", status=429, headers={"Retry-After": "3500"})
    responses.post(f"{URL}/token", json={"access_token": "a", "expires_in": 3600})
    with time_machine.travel(NOW, tick=False) as clock:

        def pause(_closed: threading.Event, seconds: float) -> bool:
            clock.shift(seconds)
            return False

        client = RestClient(URL, 30, Retry(1), pause=pause)
        assert not request_token(client, "/token", data={}).is_due


def test_a_refresh_token_is_optional() -> None:
    """Not every flow has one."""
    assert parse_token({"access_token": "a"}, URL, NOW) == AccessToken("a")
    both = {"access_token": "a", "refresh_token": "r"}
    assert parse_token(both, URL, NOW) == AccessToken("a", "r")


@responses.activate
def test_a_token_is_requested_with_a_form() -> None:
    """Its lifetime begins before the request; what fails concerns all requests."""
    client = RestClient(URL, 30, Retry(0), concerns_all=True)
    form = responses.matchers.urlencoded_params_matcher({"grant_type": "client_credentials"})
    responses.post(f"{URL}/token", match=[form], json={"access_token": "a", "expires_in": 600})
    responses.post(f"{URL}/token", match=[form], json={"error": "x"})
    with time_machine.travel(NOW, tick=False):
        token = request_token(client, "/token", data={"grant_type": "client_credentials"})
        assert token == AccessToken("a", "", NOW + timedelta(seconds=300))
        with pytest.raises(SourceUnavailable, match="/token: the response holds no usable access"):
            request_token(client, "/token", data={"grant_type": "client_credentials"})
