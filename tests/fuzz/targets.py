"""What is fuzzed: functions of bytes, which raise where the code does not do what it promises."""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from importlib import import_module
from typing import Any
from unittest import mock
from urllib.parse import unquote

import requests
from cryptography.fernet import Fernet
from fivetran_connector_sdk import Logging
from requests.adapters import BaseAdapter
from urllib3.util import parse_url

from shared import rest, times
from shared.encryption import Encryption
from shared.errors import SettingsError, SourceError
from shared.settings import declared
from tests.connectors import tds_responses
from tests.sandbox import names
from tests.sandbox.fivetran import load
from tests.sandbox.mssql import wire

CONNECTORS = {name: load(name) for name in names()}
_row_reader, _page_links = map(import_module, ("sqlserver.row_reader", "page_links"))
_KEY, _PAGE = "s3cretkey", "https://api.example.com:443/customer-api/v1/locations?page=2"
_COLUMNS = [*tds_responses.columns_of_all_formats(5), *tds_responses.OTHER_COLUMNS]
_encryption = Encryption("password", "salt")


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def read_json(data: bytes) -> None:
    """A media type, a line end, and a body: values that JSON can hold, or one of two errors."""
    media_type, _, body = data.partition(b"\n")
    try:
        value = rest.parse_json(rest.decode(body, media_type.decode("latin-1")))
    except (ValueError, RecursionError):
        return
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    text.encode()  # half of a surrogate pair would raise


def read_times(data: bytes) -> None:
    """A text, and the JSON in it: a moment in UTC, or ValueError."""
    text = _text(data)
    values: list[Any] = [text]
    with suppress(ValueError, RecursionError):
        values.append(json.loads(text))
    for value in values:
        try:
            moment = times.parse(value)
        except ValueError:
            continue
        assert moment.utcoffset() == timedelta(0)
        assert times.parse(times.to_text(moment)) == moment
    try:
        usual = times.parse_usual([text])
        assert usual is None or usual == [times.parse(text)]
    except ValueError:
        pass
    wait = rest.retry_after({"Retry-After": text})
    assert wait is None or wait > 0


class _Sent(Exception):
    """A request would go to this URL."""


class _Adapter(BaseAdapter):
    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> Any:
        raise _Sent(request.url)

    def close(self) -> None: ...


_client = rest.RestClient("https://api.example.com", 1, rest.Retry(0))
_client._session.mount("https://", _Adapter())
_client._session.mount("http://", _Adapter())


def follow_links(data: bytes) -> None:
    """A link that a page names: refused by ValueError or SourceError, or of the same origin and
    without the key."""
    given = _text(data)
    _page_links.is_page(_PAGE, given, _KEY)
    try:
        link = _page_links.resolve(_PAGE, given, _KEY)
        assert _KEY not in unquote(link)
        _client.get(link)
    except _Sent as sent:
        url = parse_url(str(sent))
        assert (url.scheme, url.host, url.port or 443) == ("https", "api.example.com", 443)
        assert "@" not in (url.netloc or "")
    except (ValueError, SourceError):
        pass


def read_settings(data: bytes) -> None:
    """A connector's number, and pairs of a key's number and a text, divided by the byte FF: the
    settings, or a SettingsError that shows no value."""
    module = list(CONNECTORS.values())[data[0] % len(CONNECTORS) if data else 0]
    keys = [*declared(module.Settings), "unknown"]
    parts = [part for part in data[1:].split(b"\xff") if part]
    given = {keys[part[0] % len(keys)]: _text(part[1:]) for part in parts}
    try:
        with mock.patch.object(Logging, "warning"):
            module.validate_configuration(given)
    except SettingsError as error:
        lines = str(error).splitlines()[1:]
        assert all(line.partition(" ")[0] in keys for line in lines)


def decrypt(data: bytes) -> None:
    """A text, and bytes that are encrypted by the right key: a value, or ValueError."""
    key = _encryption._fernet._fernets[0]
    assert isinstance(key, Fernet)
    for text in (_text(data), key.encrypt(data).decode()):
        try:
            value = _encryption.decrypt(text)
        except ValueError:
            continue
        json.dumps(value)


def read_rows(data: bytes) -> None:
    """How many columns, their numbers, the size of packets, and tokens behind the metadata of
    these columns: the connector's reader gives what the driver's gives, and so do its errors."""
    count = 1 + data[0] % 6 if data else 1
    columns = [_COLUMNS[number % len(_COLUMNS)] for number in data[1 : 1 + count]]
    size, tokens = data[1 + count : 2 + count], data[2 + count :]
    if not columns or not tokens:
        return
    metadata, column_names = tds_responses._metadata(columns)
    whole = (metadata if size[0] < 250 else b"") + tokens
    most = 1 + size[0] * 8
    pieces = [whole[place : place + most] for place in range(0, len(whole), most)]
    packets = [tds_responses._packet(piece, last=False) for piece in pieces[:-1]]
    packets.append(tds_responses._packet(pieces[-1], last=True))
    response = tds_responses.Response(b"".join(packets), 0, column_names, 1 << 20)
    with mock.patch.object(_row_reader, "DRIVERS_OWN", 1):
        found = tds_responses.read(response, tds_responses.decoded(1))
        assert found == tds_responses.read(response, tds_responses.by_driver)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "json": read_json,
    "times": read_times,
    "links": follow_links,
    "settings": read_settings,
    "encryption": decrypt,
    "rows": read_rows,
}


def seeds(target: str) -> list[bytes]:
    """Inputs to begin with, where none are kept."""
    if target == "rows":
        found = []
        for number in range(200):
            draw = random.Random(number)
            places = [draw.randrange(len(_COLUMNS)) for _ in range(draw.randint(1, 6))]
            columns = [_COLUMNS[place] for place in places]
            rows = b"".join(tds_responses._row(draw, columns, 0.2) for _ in range(4))
            done = wire.done(wire.DONE, wire.DONE_COUNT, 4)
            head = bytes([len(places) - 1, *places, draw.randrange(256)])
            found.append(head + rows + done)
        return found
    return [text.encode("latin-1") for text in _SEEDS[target]]


_SEEDS = {
    "json": (
        "application/json; charset=utf-16\n" + '[{"a": 1.5e3, "b": "\\ud83d\\ude00\\ud800"}]',
        '\n[NaN, -Infinity, null, true, 10000000000000000000000, "\\\\u0041"]',
    ),
    "times": (
        "2026-01-31T08:00:00.123+01:00",
        "Wed, 31 Jan 2024 08:00:00 +0100 (CET)",
        "/Date(1700000000000+0100)/",
        "1700000000.5",
        "1m30s",
        "0000-00-00",
    ),
    "links": (
        "https://api.example.com:443/customer-api/v1/locations?page=3&per_page=10#x",
        "HTTP://API.example.com:0443/../v1;a=b/%2e%2e/?page=%33&a+b=c%41",
        "https://api.example.com\\\\@evil.example/?page=3",
        "/customer-api/v1/locations?page=3&token=s3%63retkey",
        "?page=3&api_key=s3%63retkey",
        "https://api.example.com/customer-api/v1/locations?page=3",
        "//user@host:0/\\x",
    ),
    "settings": tuple(
        chr(number) + "".join(f"{chr(key)}{text}\xff" for key in range(40))
        for number in range(len(CONNECTORS))
        for text in ("https://x.example.com:8443/a", "12", "true", "a.b, c.[d*]", "2026-01-31")
    ),
    "encryption": ('{"a": [1, "b"]}', "gAAAAABl"),
}

# What mutations put in, beside what they find in comparisons; divided by spaces.
WORDS = {
    "json": r'[ ] { } , : " \ \u \ud83d \udc00 \u0000 NaN -Infinity 1e999 -0 null true utf-16',
    "times": "T Z UTC GMT +01:00 -0330 2026-01-31 08:00:00 .123 Wed, Feb /Date( )/ EST (CET) n/a "
    "24:00:00 1700000000 9999-12-31 0001-01-01",
    "links": r"// / ? & = # @ : \ . .. % %2B %41 + [ ] ; http:// https:// api_key= s3cretkey "
    "api.example.com :443 :0 \n \t \u0130 \u3002 \uff0f",
    "settings": r"https:// http://localhost ::1 ] [ .. * , ; true false - 1 99999 <A_B> %s @ ? # "
    "-----BEGIN CERTIFICATE----- -----END CERTIFICATE----- \u0663 =",
    "encryption": '" [ ] { } : 1e999 NaN gAAAAAB =',
    "rows": "\0\0 \0\0\0\0 \x7f \x10 \x01",
}
