"""Back-off, and JSON over HTTPS: what is retried, what is refused, what is shown."""

import gzip
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import requests
import responses
import time_machine
from flask import Flask
from hypothesis import given, strategies as st
from requests.auth import HTTPBasicAuth
from werkzeug.serving import make_server

from shared import rest
from shared.errors import SourceError, SourceUnavailable, TransientError
from shared.rest import (
    LONGEST_WAIT,
    Response,
    RestClient,
    Retry,
    as_list,
    decode,
    error_code,
    parse_json,
    pause,
    retry_after,
)
from tests.sandbox.mssql import tls

NOW = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
URL = "https://api.example.com"


def client(**options: Any) -> RestClient:
    return RestClient(URL, 30, Retry(2, 0.5), **options)


@given(st.integers(0, 500), st.floats(0.001, 60), st.floats(0.001, 300))
def test_back_off_is_bounded(attempt: int, base: float, longest: float) -> None:
    """Half of the delay is fixed and half is random; it doubles up to the cap."""
    full = min(base * 2.0 ** min(attempt, 64), longest)
    assert full / 2 <= Retry(3, base, longest).delay(attempt) <= full


def test_back_off_is_spread() -> None:
    """Clients that failed together do not come back together."""
    assert len({Retry().delay(3) for _ in range(20)}) > 15


@given(st.integers(1, 10**6))
def test_retry_after_in_seconds(seconds: int) -> None:
    """The header holds whole seconds."""
    assert retry_after({"Retry-After": str(seconds)}) == seconds


@given(st.integers(1, 10**6))
def test_retry_after_as_a_date(seconds: int) -> None:
    """The header holds an HTTP date: the wait is counted from the current clock."""
    with time_machine.travel(NOW, tick=False):
        moment = NOW + timedelta(seconds=seconds)
        assert retry_after({"Retry-After": format_datetime(moment, usegmt=True)}) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("20, 20", 20), ("20, 60,20", 60), ("60s", 60), ("20 seconds", 20), ("1 Second", 1)),
        *(("2 minutes", 120), ("1m30s", 90), ("1 h", 3600), ("1500ms", 1.5), ("5s, 7s", 7)),
        *(("2026-01-31T12:00:20Z", 20), ("2026-01-31T14:00:20.5+02:00", 20.5)),
        ("Sat, 31 Jan 2026 12:00:09 GMT, Sat, 31 Jan 2026 12:00:11 GMT", 11),
        *(("1769860820", 20), ("1769860820123", 20.123), ("3, nonsense", 3), (" 7 ", 7)),
        *(("20 lightyears", None), ("s", None), ("20 s left", None), ("31/01/2026", None)),
    ],
)
def test_a_wait_in_other_forms(text: str, seconds: float | None) -> None:
    """Joined headers, units and moments are read, in the vendor's own header, too."""
    with time_machine.travel(NOW, tick=False):
        assert retry_after({"Retry-After": text}) == pytest.approx(seconds)
        assert retry_after({"X-Reset": text}, "X-Reset") == pytest.approx(seconds)


@given(
    st.one_of(
        st.text(),
        st.integers(-(10**6), 0).map(str),
        st.floats().map(str),
        st.from_regex(r"[0-9eE.+-]{0,20}[a-z, ]{0,3}[0-9]{0,20}"),
    )
)
def test_retry_after_nonsense(text: str) -> None:
    """Nonsense, negative numbers, zero and moments beyond the calendar ask for no wait."""
    wait = retry_after({"Retry-After": text})
    assert wait is None or wait > 0


@pytest.mark.parametrize(
    "text",
    [
        *(
            "-5",
            "0",
            "nan",
            "inf",
            "soon",
            format_datetime(NOW),
            "",
            ",",
            "1e400",
            "9" * 400 + "s",
        ),
        *("9" * 30, "1e15", "1769860800123456", "2026-01-31T12:00:00Z", "1769860800", "0s"),
    ],
    ids=lambda text: text[:20],
)
def test_retry_after_that_asks_for_nothing(text: str) -> None:
    """A date in the past asks for no wait, either."""
    with time_machine.travel(NOW + timedelta(seconds=1)):
        assert retry_after({"Retry-After": text}) is None


@pytest.mark.parametrize("part", ["1", "1.", "1 ", " ", "1h", "a,", "("])
def test_a_header_of_any_length_is_read_in_no_time(part: str) -> None:
    """To look for a unit behind each of 60,000 digits took minutes."""
    read = list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shared.rest._seconds_from_now", read.append)
        assert retry_after({"Retry-After": part * 60_000}) is None
    assert not read
    assert retry_after({"Retry-After": "20" + " " * 900}) == 20


def test_a_vendors_reset_header() -> None:
    """It holds a unix time or seconds from now; Retry-After takes precedence."""
    with time_machine.travel(NOW, tick=False):
        headers = {"X-Reset": str(NOW.timestamp() + 90)}
        assert retry_after(headers, "X-Reset") == 90
        assert retry_after({"X-Reset": "1769860890000"}, "X-Reset") == 90
        assert retry_after({"X-Reset": "45"}, "X-Reset") == 45
        assert retry_after({**headers, "Retry-After": "5"}, "X-Reset") == 5
        assert retry_after({"X-Reset": "0"}, "X-Reset") is None


def test_retries_come_after_the_first_request() -> None:
    """`retries` counts the retries after the first request, and each waits longer."""
    waits: list[float] = []
    tries = []

    def once() -> None:
        tries.append(1)
        raise TransientError("no")

    with pytest.raises(SourceError, match="it: no; gave up after 4 retries"):
        Retry(4, 1.0).run("it", once, waits.append)
    assert len(tries) == 5
    assert [round(wait / 2**n, 1) for n, wait in enumerate(waits)] == [
        pytest.approx(0.75, abs=0.26) for _ in range(4)
    ]


def test_without_retries_the_error_says_nothing_of_them() -> None:
    """As in the tests of a setup form."""

    def once() -> None:
        raise TransientError("no")

    with pytest.raises(SourceError, match=r"^it: no$"):
        Retry(0).run("it", once, lambda seconds: None)


def test_waits_up_to_the_cap_are_honoured() -> None:
    """A wait beyond the cap ends the sync without waiting."""
    waits: list[float] = []
    asked = iter([LONGEST_WAIT, LONGEST_WAIT + 1])

    def once() -> None:
        raise TransientError("busy", next(asked))

    with pytest.raises(SourceUnavailable, match="asks to wait 3901 s"):
        Retry().run("it", once, waits.append)
    assert waits == [LONGEST_WAIT]


@pytest.mark.parametrize("concerns_all", [True, False])
def test_the_last_failure_says_whether_it_concerns_every_table(concerns_all: bool) -> None:
    """Once the retries are used up, the last failure decides whether the error concerns every
    table."""
    failures = iter([not concerns_all, concerns_all])

    def once() -> None:
        raise TransientError("no", concerns_all=next(failures))

    with pytest.raises(SourceError, match="gave up after 1 retry") as error:
        Retry(1).run("it", once, lambda seconds: None)
    assert type(error.value) is (SourceUnavailable if concerns_all else SourceError)


@responses.activate
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_statuses_that_are_retried(status: int, waits: list[float]) -> None:
    """The client honours the wait that the response asks for."""
    responses.get(URL + "/a", status=status, headers={"Retry-After": "9"})
    responses.get(URL + "/a", json={"n": 1})
    assert client().get("/a") == {"n": 1}
    assert waits == [9.0]


@responses.activate
@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 422, 301])
def test_statuses_that_are_final(status: int, waits: list[float]) -> None:
    """One request is sent; the error names endpoint, status, code and advice."""
    call = responses.get(URL + "/a", status=status, json={"error": "invalid_scope"})
    with pytest.raises(SourceError, match=rf"GET {URL}/a: status {status} invalid_scope"):
        client(explain=lambda response: "Do this").get("/a", {"key": "k"})
    assert call.call_count == 1
    assert waits == []


@responses.activate
@pytest.mark.parametrize("status", [401, 403, 404, 422, 500, 400])
def test_which_refusals_concern_every_table(status: int) -> None:
    """Refused credentials concern every table, other refusals one endpoint. With `concerns_all`,
    each failure concerns every table."""
    responses.get(URL + "/a", status=status)
    responses.get(URL + "/token", status=status, json={"error": "invalid_grant"})
    for link, options in (("/a", {}), ("/token", {}), ("/a", {"concerns_all": True})):
        with pytest.raises(SourceError) as error:
            client(**options).get(link)
        is_for_all = status == 401 or "concerns_all" in options
        is_for_all = is_for_all or (link == "/token" and status < 500)
        assert type(error.value) is (SourceUnavailable if is_for_all else SourceError)


CHALLENGE = "<!DOCTYPE html><html lang='en-US'><head><title>Just a moment...</title></head></html>"


@responses.activate
@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [
        (403, {"cf-mitigated": "challenge", "Server": "cloudflare"}, CHALLENGE),
        (503, {"CF-Mitigated": "challenge"}, CHALLENGE),
        (403, {"Server": "cloudflare"}, CHALLENGE),
        (403, {"Content-Type": "text/html"}, "<h1>403 Forbidden</h1>"),
        (403, {"Content-Type": "application/octet-stream"}, "\ufeff \n<HTML>Request rejected"),
        (202, {"x-amzn-waf-action": "challenge"}, ""),
        (405, {"x-amzn-waf-action": "captcha"}, ""),
    ],
)
def test_a_page_of_a_firewall_is_named_and_retried(
    status: int, headers: dict[str, str], body: str, waits: list[float]
) -> None:
    """Such a page says nothing about rights and may be transient; its content is not shown."""
    sent = {"Content-Type": "text/html; charset=UTF-8", "Retry-After": "5", **headers}
    responses.get(URL + "/a", status=status, headers=sent, body=body)
    with pytest.raises(SourceError, match=rf"status {status}, .* of a firewall") as error:
        client(explain=lambda response: "Check the rights").get("/a")
    assert "rights" not in str(error.value)
    assert "moment" not in str(error.value)
    assert type(error.value) is SourceError
    assert waits == [5.0, 5.0]


@responses.activate
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Content-Type": "application/json"}, '{"error": "<html>"}'),
        ({"Content-Type": "text/html"}, '{"error": "no"}'),
        ({"Content-Type": "application/xml"}, "<?xml version='1.0'?><Error/>"),
        ({"Content-Type": "text/html"}, ""),
        ({"Content-Type": "text/plain", "Server": "cloudflare"}, "no"),
    ],
)
def test_a_refusal_by_the_source_is_final(
    headers: dict[str, str], body: str, waits: list[float]
) -> None:
    """The error shows the advice of the connector, even where the content type says HTML."""
    responses.get(URL + "/a", status=403, headers=headers, body=body)
    with pytest.raises(SourceError, match=r"/a: status 403\. Check the rights$"):
        client(explain=lambda response: "Check the rights").get("/a")
    assert waits == []


@responses.activate
@pytest.mark.parametrize(
    ("status", "headers"),
    [
        *((204, {}), (205, {}), (204, {"Content-Type": "application/json"})),
        *((200, {"Content-Length": "0"}), (202, {"content-length": "0"})),
        (200, {"Transfer-Encoding": "chunked", "Content-Type": "application/json"}),
    ],
)
def test_a_response_without_content_is_named(
    status: int, headers: dict[str, str], waits: list[float]
) -> None:
    """The response is whole, so the error is final."""
    responses.get(URL + "/a", status=status, headers=headers)
    expected = f"/a: status {status}, a response without content. Check this$"
    with pytest.raises(SourceError, match=expected) as error:
        client(explain=lambda response: "Check this").get("/a")
    assert type(error.value) is SourceError
    assert waits == []


@responses.activate
def test_an_empty_body_of_unknown_length_is_retried(waits: list[float]) -> None:
    """Headers that were cut short look whole, but are likely to hold no length."""
    responses.get(URL + "/a", body="", content_type="application/json")
    with pytest.raises(SourceError, match="the JSON is cut or damaged; gave up"):
        client().get("/a")
    assert len(waits) == 2


@responses.activate
@pytest.mark.parametrize(
    "failure",
    [
        *(requests.ConnectionError("s3cret"), requests.ReadTimeout("s3cret"), OSError("s3cret")),
        requests.ConnectionError("url: /a?site=CertError"),
        requests.exceptions.SSLError("url: /a?site=Certes (Caused by SSLEOFError(8, 'EOF'))"),
    ],
)
def test_failures_of_the_connection_are_retried(failure: Exception, waits: list[float]) -> None:
    """The libraries' own messages, which hold URLs, are not shown."""
    responses.get(URL + "/a", body=failure)
    with pytest.raises(SourceError) as error:
        client().get("/a", {"key": "s3cret"})
    assert "s3cret" not in str(error.value)
    assert len(waits) == 2


@pytest.fixture(params=tls.KINDS)
def https(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, str]]:
    """A kind of certificate, and the address of a server that presents one."""
    authority = tls.Authority()
    (tmp_path / "ca.pem").write_text(authority.pem)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
    context = tls.server_context(request.param, authority, tmp_path)
    response = Flask("https")
    response.get("/a")(lambda: {"n": 1})
    server = make_server("localhost", 0, response, ssl_context=context)
    serving = threading.Thread(target=server.serve_forever, args=(0.05,))
    serving.start()
    yield request.param, f"https://localhost:{server.server_port}"
    server.shutdown()
    serving.join()
    server.server_close()


def test_only_a_certificate_that_fits_is_taken(https: tuple[str, str], waits: list[float]) -> None:
    """Any other certificate is final: no retry makes it right."""
    kind, url = https
    secured = RestClient(url, 30, Retry(2))
    if kind == "valid":
        assert secured.get("/a") == {"n": 1}
    else:
        told = {"expired": "certificate has expired", "unknown_ca": "unable to get local issuer"}
        why = told.get(kind, "it is another host's")
        expected = rf"/a: the TLS certificate could not be verified \({why}"
        with pytest.raises(SourceUnavailable, match=expected):
            secured.get("/a")
    assert waits == []


def test_a_handshake_that_breaks_off_is_retried(waits: list[float]) -> None:
    """A load balancer under load may break one off."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def hang_up() -> None:
            for _ in range(3):
                connection, _ = listener.accept()
                connection.recv(5)
                connection.close()

        server = threading.Thread(target=hang_up)
        server.start()
        url = f"https://localhost:{listener.getsockname()[1]}"
        expected = "the connection broke off before it was complete .*; gave up after 2 retries"
        with pytest.raises(SourceUnavailable, match=expected):
            RestClient(url, 30, Retry(2)).get("/a")
        server.join()
    assert len(waits) == 2


@responses.activate
def test_other_credentials_are_tried_as_long_as_there_are_some() -> None:
    """`unauthorized` gets the number of refusals so far."""
    responses.get(URL + "/a", status=401)
    responses.get(URL + "/a", status=401)
    responses.get(URL + "/a", json=7)
    seen: list[int] = []

    def unauthorized(sent: requests.PreparedRequest, refusals: int) -> bool:
        seen.append(refusals)
        return refusals < 3

    assert client(unauthorized=unauthorized).get("/a") == 7
    assert seen == [1, 2]


@responses.activate
def test_a_limit_in_the_vendors_own_words(waits: list[float]) -> None:
    """`rate_limited` tells which responses mean "too many requests"."""
    responses.get(URL + "/a", status=403, body="slow down")
    responses.get(URL + "/a", json=1)
    assert client(rate_limited=lambda response: b"slow" in response.body).get("/a") == 1
    assert len(waits) == 1


@responses.activate
@pytest.mark.parametrize(
    "link",
    [
        "https://evil.example.com/a",
        "http://api.example.com/a",
        "https://evil.example.com\\@api.example.com/a",
        "https://api.example.com@evil.example.com/a",
        "https://api.example.com:99999/a",
        "//evil.example.com/../a",
        "@evil.example.com/a",
        ".evil.example.com/a",
        "\\@evil.example.com/a",
        ":x/a",
        "/a\r\nb",
        "/a\tb?c=\n",
        "/a\\b",
        "/\\evil.example.com/",
        "/a/../../b",
        "/a/%2E./b",
        "https:\t//evil.example.com/a",
        "https://api.example.com%2f.evil.example.com/a",
        "https://api.example.com%40evil.example.com/a",
        "https://[::1",
        "https://api.example.com\x00.evil.example.com/",
    ],
)
def test_another_origin_gets_no_request(link: str) -> None:
    """Another host, the same host without TLS and an ambiguous address get none."""
    with pytest.raises(SourceError, match="it gets no request"):
        client().get(link)
    assert len(responses.calls) == 0


@responses.activate
def test_a_link_of_the_same_origin_is_followed() -> None:
    """With its query, and with the port spelled out."""
    responses.get(URL + ":443/a", json=1)
    assert client().get(f"{URL}:443/a?page=2") == 1
    assert str(responses.calls[0].request.url).endswith("/a?page=2")


@responses.activate
def test_what_is_not_ambiguous_is_sent() -> None:
    """An ``@``, a space or a backslash in a query tells nobody another host."""
    responses.get(URL + "/a@b/.c..", json=1)
    assert client().get("/a@b/.c..?user=a@b.example&site=A B\\C") == 1


@responses.activate
def test_cookies_are_not_kept() -> None:
    """They would be credentials that nobody has configured."""
    responses.get(URL + "/a", json=1, headers={"Set-Cookie": "session=s3cret; Path=/"})
    keeping = client()
    for _ in range(2):
        keeping.get("/a")
    assert "Cookie" not in responses.calls[1].request.headers


@responses.activate
def test_a_password_in_netrc_is_not_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Without this, requests would send it in place of what was configured."""
    (tmp_path / "netrc").write_text("machine api.example.com login a password b")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    responses.get(URL + "/a", json=1)
    client().get("/a")
    assert "Authorization" not in responses.calls[0].request.headers
    client(auth=HTTPBasicAuth("u", "p")).get("/a")
    assert responses.calls[1].request.headers["Authorization"] == "Basic dTpw"


@responses.activate
@pytest.mark.parametrize("body", ['{"a": [1, 2', "", "\ufeff{", "[" * 100_000])
def test_damaged_json_is_retried(body: str, waits: list[float]) -> None:
    """The JSON may have been cut short. A body whose length is stated as 0 is final."""
    length = {"auto_calculate_content_length": True}
    responses.get(URL + "/a", body=body, content_type="application/json", **length)
    with pytest.raises(SourceError):
        client().get("/a")
    assert len(waits) == (2 if body else 0)


@responses.activate
@pytest.mark.parametrize("kind", ["text/html", "", "text/plain"])
def test_what_is_no_json_is_final(kind: str, waits: list[float]) -> None:
    """The error shows the advice of the connector."""
    responses.get(URL + "/a", body="<html>secret</html>", content_type=kind)
    with pytest.raises(SourceError, match="but no JSON") as error:
        client(explain=lambda response: "Check base_url").get("/a")
    assert "Check base_url" in str(error.value)
    assert "secret" not in str(error.value)
    assert waits == []


@responses.activate
def test_numbers_remember_how_they_were_written() -> None:
    """Money is exact even where JSON has a number."""
    responses.get(URL + "/a", body="[0.10, 1e2, 12345678901234567.89, 7]")
    numbers = client().get("/a")
    assert [getattr(n, "text", n) for n in numbers] == ["0.10", "1e2", "12345678901234567.89", 7]
    assert numbers[0] == 0.1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"\ud83d\ude00 \uD83D\uDE00"', "\U0001f600 \U0001f600"),
        (r'"a \ud83d b"', "a \ufffd b"),
        (r'"\ude00\ud83d\ude00\ud83d"', "\ufffd\U0001f600\ufffd"),
        (r'"\\ud83d \\\ud83d"', "\\ud83d \\\ufffd"),
        (r'{"\ud83d": ["\udead", "\u00e9"]}', {"\ufffd": ["\ufffd", "\u00e9"]}),
        ("[NaN, Infinity, -Infinity, 1e999]", ["NaN", "Infinity", "-Infinity", "1e999"]),
    ],
)
def test_all_that_is_read_can_be_stored(text: str, value: Any) -> None:
    """A value that JSON or Unicode cannot hold would pass the SDK and fail a whole checkpoint."""
    assert parse_json(text) == value


@responses.activate
@pytest.mark.parametrize(
    ("body", "kind", "value"),
    [
        (b'"caf\xe9 \xff\xfe"', "application/json", "caf\ufffd \ufffd\ufffd"),
        (b'"caf\xe9"', "application/json; charset=ISO-8859-1", "caf\xe9"),
        (b'"\x93\x80\x94"', 'application/json;Charset="windows-1252"', "\u201c\u20ac\u201d"),
        (b'"caf\xc3\xa9"', "application/json; charset=iso8859-unheard-of", "caf\xe9"),
        (b'"caf\xc3\xa9"', "application/json; charset=us-ascii", "caf\xe9"),
        (rb'"\u00e9 a-b xn--0ca.x"', "application/json; charset=idna", "\xe9 a-b xn--0ca.x"),
        (rb'"\u00e9\n\\n"', "application/json; charset=unicode_escape", "\xe9\n\\n"),
        (b'"+AOk- \xc3\xa9"', "application/json; charset=utf-7", "+AOk- \xe9"),
        (b'"\xc3\xa9"', "application/json; charset=base64", "\xe9"),
        (b"\xef\xbb\xbf[1]", "application/json; charset=iso-8859-1", [1]),
        (b"\xef\xbb\xbf\xef\xbb\xbf[1]", "application/json", [1]),
        ('\ufeff["\u20ac"]'.encode("utf-16-le"), "text/plain", ["\u20ac"]),
        ('["\u20ac"]'.encode("utf-16"), "application/json; charset=utf-8", ["\u20ac"]),
        ('["\u20ac"]'.encode("utf-16-be"), "application/json; charset=utf-16", ["\u20ac"]),
        ('["\u20ac"]'.encode("utf-32"), "application/json", ["\u20ac"]),
        (b'"a\tb\r\nc\x01\x7f"', "application/json", "a\tb\r\nc\x01\x7f"),
        (b'{"a\nb": 1}', "application/json", {"a\nb": 1}),
        (b"[1, " + b"9" * 5_000 + b"]", "application/json", [1, "9" * 5_000]),
        (b"[-" + b"9" * 5_000 + b", 0.5]", "application/json", ["-" + "9" * 5_000, 0.5]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_whole_response_is_read(body: bytes, kind: str, value: Any, waits: list[float]) -> None:
    """Odd bytes, characters and numbers do not make a response cut or damaged."""
    responses.get(URL + "/a", body=body, content_type=kind)
    assert client().get("/a") == value
    assert waits == []


@responses.activate
@pytest.mark.parametrize("body", [b'["caf\xe9', b'["a\nb"', b"[" + b"9" * 5_000, b'["\xff"]]'])
def test_odd_content_hides_no_damage(body: bytes, waits: list[float]) -> None:
    """A response with odd content that was cut short is retried like any other."""
    responses.get(URL + "/a", body=body, content_type="application/json")
    with pytest.raises(SourceError, match="the JSON is cut or damaged"):
        client().get("/a")
    assert len(waits) == 2


@given(st.binary(), st.sampled_from(("", "utf-8", "gbk", "idna", "shift_jis", "cp037", "hz")))
def test_all_bytes_are_text(body: bytes, charset: str) -> None:
    """In every charset, and without a lone surrogate, which could not be stored."""
    decode(body, f"text/plain; charset={charset}").encode("utf-8")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ([], []),
        ([{"id": 1}], [{"id": 1}]),
        ({"0": "a", "1": "b"}, ["a", "b"]),
        ({"3": "a", "1": "b"}, ["a", "b"]),
        ({}, None),
        ({"0": 1, "id": 2}, None),
        ({"": 1}, None),
        ({"-1": 1}, None),
        ({"1.0": 1}, None),
        ({"\u0661": 1}, None),
        ({"\u00b2": 1}, None),
        *((None, None), ("01", None), (7, None)),
    ],
)
def test_a_list_of_php_is_a_list(value: Any, found: list[Any] | None) -> None:
    """The order is kept; an object with any other key, or without keys, is no list."""
    assert as_list(value) == found


@given(st.recursive(st.text() | st.floats(allow_nan=False, allow_infinity=False), st.lists))
def test_what_json_holds_is_read_as_it_is(value: Any) -> None:
    """Whether its characters are escaped or not."""
    for ascii_only in (True, False):
        assert parse_json(json.dumps(value, ensure_ascii=ascii_only)) == value


@pytest.mark.parametrize(
    "before", ["", r"\udc00", r"\ud83d", r"\\", r"\\" * 501, r"\\ud83d", r"\\\ud83d", "x"]
)
@pytest.mark.parametrize("amount", [1, 499, 500, 501, 1_500])
def test_pairs_of_escapes_are_read_whole(before: str, amount: int) -> None:
    """However many there are in a row, and whatever comes before them."""
    pairs = r"\ud83d\ude00" * amount
    found = parse_json(f'"{before}{pairs}"')
    assert found[-amount:] == "\U0001f600" * amount
    assert not found[:-amount].endswith("\U0001f600")


@responses.activate
def test_a_response_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size counts after decompression: a small body may decompress to any size."""
    monkeypatch.setattr(rest, "LARGEST_RESPONSE", 100_000)
    bomb = gzip.compress(b'"' + b"0" * 10_000_000 + b'"')
    assert len(bomb) < 20_000
    responses.get(URL + "/a", body=bomb, headers={"Content-Encoding": "gzip"})
    with pytest.raises(SourceError, match="more than 100000 bytes"):
        client().get("/a")


@responses.activate
def test_a_response_is_limited_by_what_it_becomes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its values are counted before it is parsed: a few bytes each, they take a hundred times as
    many in memory."""
    bomb = gzip.compress(b"[" + b"{}," * rest.MOST_VALUES + b"{}]")
    assert len(bomb) < 100_000
    monkeypatch.setattr(rest, "parse_json", lambda text: pytest.fail("it was parsed"))
    responses.get(URL + "/a", body=bomb, headers={"Content-Encoding": "gzip"})
    advised = client(to_lower="page_size")
    message = r"/a: more than 2000000 JSON values in a response\. Lower page_size$"
    with pytest.raises(SourceError, match=message):
        advised.get("/a")


@given(
    st.recursive(
        st.none() | st.text() | st.integers(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_no_value_is_missed_where_they_are_counted(value: Any) -> None:
    """In any of the encodings that JSON may have."""

    def count(item: Any) -> int:
        inner = item.values() if isinstance(item, dict) else item
        return 1 + (sum(map(count, inner)) if isinstance(item, (dict, list)) else 0)

    text = json.dumps(value)
    for encoding in ("utf-8", "utf-16", "utf-32-be"):
        assert rest.count_values(text.encode(encoding)) >= count(value)


@responses.activate
def test_a_response_for_which_there_is_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to lower."""

    def parse(_text: str) -> None:
        raise MemoryError

    monkeypatch.setattr(rest, "parse_json", parse)
    responses.get(URL + "/a", json=1)
    message = rf"^GET {URL}/a: the response takes more memory than there is\. Lower page_size$"
    with pytest.raises(SourceError, match=message):
        client(to_lower="page_size").get("/a")


@responses.activate
def test_one_large_response_at_a_time_is_unparsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In all threads and clients: until it is parsed no other one is read to its end, whatever
    becomes of it."""
    monkeypatch.setattr(rest, "LARGE_RESPONSE", 10)
    unparsed, most, parse = list[str](), list[int](), rest.parse_json
    may_parse = threading.Barrier(2)

    def slow(text: str) -> Any:
        unparsed.append(text)
        with suppress(threading.BrokenBarrierError):
            may_parse.wait(0.05)  # both would meet here if both came
        most.append(len(unparsed))
        unparsed.remove(text)
        return parse(text)

    monkeypatch.setattr(rest, "parse_json", slow)
    responses.get(URL + "/a", json="x" * 20)
    threads = [threading.Thread(target=client().get, args=("/a",)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1, 1, 1]
    responses.get(URL + "/b", body='"' + "x" * 20, content_type="application/json")
    for _ in range(2):
        with pytest.raises(SourceError, match="cut or damaged"):
            client().get("/b")


@responses.activate
def test_of_an_error_only_the_beginning_is_kept() -> None:
    """Whatever its size is, no other response has to wait for it."""
    kept = list[int]()
    responses.get(URL + "/a", status=404, body="x" * 10_000_000)

    def explain(response: Response) -> str:
        kept.append(len(response.body))
        return ""

    with pytest.raises(SourceError, match="status 404"):
        client(explain=explain).get("/a")
    assert kept[0] <= 128 * 1024


def _trickle(listener: socket.socket, response: bytes) -> None:
    """Sends each connection the response byte by byte, until the listener ends."""
    with suppress(OSError):
        while True:
            connection, _ = listener.accept()
            with connection, suppress(OSError):  # the client has left
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.recv(65_536)
                for at in range(len(response)):
                    connection.sendall(response[at : at + 1])


@pytest.mark.parametrize(
    "response",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * 60_000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n" + b" " * 60_000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + b"x" * 60_000,
    ],
    ids=["header", "body", "size-of-a-chunk"],
)
def test_a_response_that_trickles_ends_at_its_deadline(
    monkeypatch: pytest.MonkeyPatch, response: bytes
) -> None:
    """A response that trickles byte by byte ends at its deadline, though no byte is late."""
    monkeypatch.setattr("shared.rest.DEADLINE", 0.001)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=_trickle, args=(listener, response))
        server.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(SourceError, match="the response came too slowly; gave up after 2"):
            RestClient(url, 30, Retry(2)).get("/a")
        listener.shutdown(socket.SHUT_RDWR)
        server.join()


def test_closing_ends_a_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A back-off in another thread does not outlive the sync."""
    monkeypatch.undo()
    waiting = client()
    threading.Timer(0.05, waiting.closed.set).start()
    with pytest.raises(SourceError, match="the sync has ended"):
        waiting.sleep(60)


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ('{"error": "invalid_grant"}', "invalid_grant"),
        ('{"error": "dxlive4f9a77c1"}', ""),
        ('{"error": {"type": "invalid_grant", "message": "key abc"}}', ""),
        ('{"error": "the key abc is wrong"}', ""),
        ('{"error": null}', ""),
        ('{"error": []}', ""),
        ("[]", ""),
        ("<html>", ""),
    ],
)
def test_only_a_known_code_is_shown_of_an_error(body: str, code: str) -> None:
    """Any other word may quote what was sent."""
    request = requests.Request("GET", URL).prepare()
    assert error_code(Response(400, {}, body.encode(), request)) == code


@responses.activate
def test_a_query_and_a_form_are_sent() -> None:
    """As they were given, to the path below the base URL."""
    form = responses.matchers.urlencoded_params_matcher({"grant": "x y"})
    responses.post(URL + "/token", match=[form], json={"made": 1})
    query = responses.matchers.query_param_matcher({"page": "2", "since": "a b"})
    responses.get(URL + "/a", match=[query], json={"n": 2})
    assert client().post("/token", data={"grant": "x y"}) == {"made": 1}
    assert client().get("/a", {"page": 2, "since": "a b"}) == {"n": 2}


@responses.activate
def test_a_redirect_is_not_followed() -> None:
    """Not even one to the same host; only a status of 2xx is a success."""
    responses.get(URL + "/a", status=302, headers={"Location": URL + "/b"})
    target = responses.get(URL + "/b", json=1)
    responses.get(URL + "/c", status=300, json=1)
    with pytest.raises(SourceError, match=r"/a: status 302, a redirect, which is not followed$"):
        client().get("/a")
    with pytest.raises(SourceError, match=r"/c: status 300, a redirect"):
        client().get("/c")
    assert target.call_count == 0


@responses.activate
def test_each_limit_halves_the_parallel_requests() -> None:
    """Down to one; other failures do not halve them."""
    found = list[int]()

    def pause(_closed: threading.Event, _seconds: float) -> bool:
        found.append(limited.parallel)
        return False

    limited = RestClient(URL, 30, Retry(4), parallel=4, pause=pause)
    for status in (503, 429, 429, 429):
        responses.get(URL + "/a", status=status)
    responses.get(URL + "/a", json=1)
    assert limited.get("/a") == 1
    assert found == [4, 2, 1, 1]
    assert isinstance(limited.parallel, int)


@responses.activate
def test_an_error_names_the_page(waits: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever collects it puts the table before it, which the lines of the retries name, too. What
    concerns every table has no page."""
    responses.get(URL + "/a", status=503)
    responses.get(URL + "/b", status=401)
    reader = client()
    reader.table = "rooms"
    with pytest.raises(SourceError, match=rf"^page 7: GET {URL}/a: status 503; gave up"):
        reader.get("/a", {"page": 7})
    assert f"rooms, page 7: GET {URL}/a: status 503; retry 1 of 2" in capsys.readouterr().out
    with pytest.raises(SourceUnavailable, match=rf"^GET {URL}/b: status 401$"):
        reader.get("/b", {"page": 7})
    assert reader.waited == pytest.approx(sum(waits), abs=0.1)


def test_a_wait_counts_while_it_lasts() -> None:
    """Progress is logged meanwhile: counted at its end alone, all of it would be taken from the
    seconds behind that line, and the rate be any number."""
    clock, during = [0.0], list[float]()

    def waits(closed: threading.Event, seconds: float) -> bool:
        clock[0] += 20.0
        during.append(reader.waited)
        clock[0] += seconds - 20.0
        return False

    reader = RestClient(URL, 1, Retry(0), pause=waits, clock=lambda: clock[0])
    reader.sleep(60.0)
    reader.sleep(30.0)
    assert during == [20.0, 80.0]
    assert reader.waited == 90.0


@responses.activate
def test_the_log_counts_the_retries(
    waits: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    """Each line says what failed, why, and how long the retry waits."""
    responses.get(URL + "/a", status=503, headers={"Retry-After": "7"})
    with pytest.raises(SourceError, match=rf"^GET {URL}/a: status 503; gave up after 2 retries$"):
        client().get("/a", {"key": "k"})
    output = capsys.readouterr().out
    for number in (1, 2):
        assert f"GET {URL}/a: status 503; retry {number} of 2 in 7.0 s" in output
    assert waits == [7.0, 7.0]


@responses.activate
def test_the_reset_header_of_a_limit_is_honoured(waits: list[float]) -> None:
    """The vendor's own header counts, too."""
    with time_machine.travel(NOW, tick=False):
        responses.get(URL + "/a", status=429, headers={"X-Reset": str(NOW.timestamp() + 90)})
        responses.get(URL + "/a", json=1)
        client(reset_header="X-Reset").get("/a")
    assert waits == [90.0]


def test_a_date_without_a_zone_is_in_utc() -> None:
    """RFC 2822 writes such a zone as -0000."""
    with time_machine.travel(NOW, tick=False):
        assert retry_after({"Retry-After": "Sat, 31 Jan 2026 12:00:09 -0000"}) == 9


@responses.activate
@pytest.mark.parametrize(
    "location", ["http://[", "//[::1", "/caf\xe9", "https://evil.example.com/"]
)
def test_the_address_of_a_redirect_does_not_matter(location: str) -> None:
    """It is not followed, so it is not looked at, and neither is what came with it."""
    responses.get(URL + "/a", status=302, headers={"Location": location}, body="x" * 100)
    with pytest.raises(SourceError, match=r"/a: status 302, a redirect, which is not followed$"):
        client().get("/a")


def test_a_redirect_has_the_size_limit_of_a_response(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its body is not read before the limit counts."""
    monkeypatch.setattr("shared.rest.LARGEST_RESPONSE", 10)
    with responses.RequestsMock() as server:
        server.get(URL + "/a", status=302, headers={"Location": "/b"}, body="x" * 100_000)
        with pytest.raises(SourceError, match="more than 10 bytes in a response"):
            client().get("/a")


@responses.activate
def test_the_advice_is_of_the_response_that_is_final() -> None:
    """And the error has its status."""
    responses.get(URL + "/a", status=404)
    advised = client(explain=lambda response: f"It was {response.status}.")
    with pytest.raises(SourceError, match=rf"^GET {URL}/a: status 404. It was 404$") as error:
        advised.get("/a")
    assert error.value.status == 404


def test_a_pause_ends_with_the_client() -> None:
    """Or after its time; a back-off whose end has passed while it waited for another is none."""
    closed, waits = threading.Event(), list[float]()
    assert not pause(closed, 0)
    closed.set()
    assert pause(closed, 60)
    moments = iter((10.0, 15.0, 20.0, 21.0))

    def note(_closed: threading.Event, seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) > 1

    resting = client(clock=lambda: next(moments), pause=note)
    resting.sleep(3)
    with pytest.raises(SourceError, match=r"^the sync has ended, and with it the retries$"):
        resting.sleep(3)
    assert waits == [0.0, 2.0]
