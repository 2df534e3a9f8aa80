"""A sync lives in a gigabyte, whatever a source sends: the largest responses that are taken become
rows within it."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from shared.rest import LARGEST_RESPONSE, MOST_VALUES, count_values
from tests.width import wide
from tools.paths import ROOT

GIGABYTE = 1024 * 1024 * 1024
RECORDS = 180_000  # of a page
# A sync as Fivetran runs it, but that its rows are counted and dropped.
_SYNC = """
import json, resource, sys
folder, configuration, limit = sys.argv[1:]
resource.setrlimit(resource.RLIMIT_AS, (int(limit), int(limit)))
sys.path[:0] = [folder]
import connector
sys.path.append(".")
from benchmarks.sink import Sink, counted
sink = Sink(warns=True)
with counted(sink):
    connector.update(json.loads(configuration), state={})
print(sink.count)
"""
_CREDENTIALS = {
    "dentally": {
        "client_id": "c",
        "client_secret": "s",
        "access_token": "a",
        "refresh_token": "r",
    },
    "dexory": {"site_name": "s", "site_api_key": "secret-key"},
    "paligo": {"username": "u", "api_key": "k"},
    "sensource": {"client_id": "c", "client_secret": "s", "start_date": "2026-01-01"},
}
_TIMES = '"created_at": "2026-01-31T12:00:00Z", "updated_at": "2026-01-31T12:00:00Z"'
_FIELDS = {
    "dentally": f'"name": "Filling", "code": "F", "default_fee": 12.50, "active": true, {_TIMES}',
    "dexory": '"marker": "M1", "sku": "S1", "quantity": 2, "lot": null, "awb": null, "other": 1.5',
    "paligo": f'"title": "Taxon", "color": "#fff", "parent": 0, "x": 1, "y": 2, {_TIMES}',
    "sensource": '"name": "", "recordDate_hour_1": "2026-01-15T12:00Z", "sumins": 1, "sumouts": 1',
}
_ID = {"dexory": "sku", "sensource": "zoneId"}


def _page(name: str, number: int) -> bytes:
    """The list of records of a page that is as large as a response may be."""
    key, fields = _ID.get(name, "id"), _FIELDS[name]
    first = number * RECORDS
    records = [f'{{"{key}": {first + index}, {fields}, "text": "' for index in range(RECORDS)]
    text = "x" * (LARGEST_RESPONSE * 99 // 100 // RECORDS - len(records[-1]) - len('"}, '))
    objects = [f'{record}{text}"}}' for record in records]
    if name == "dexory":
        objects = [
            f'{{"name": "{number}-{at}", "scan_date": "2026-01-31T12:00:00Z", '
            f'"expected_inventory_objects": [{", ".join(objects[at : at + 1_000])}]}}'
            for at in range(0, RECORDS, 1_000)
        ]
    body = f"[{', '.join(objects)}]".encode()
    assert LARGEST_RESPONSE * 0.9 < len(body) < LARGEST_RESPONSE
    assert MOST_VALUES * 0.5 < count_values(body) < MOST_VALUES
    return body


class Source:
    """Sends two of the largest pages; what else a connector reads has few records."""

    def __init__(self, name: str) -> None:
        self.name, self.pages, self.url = name, [_page(name, number) for number in (0, 1)], ""

    def respond(self, path: str, query: dict[str, list[str]]) -> bytes:
        number = int(query.get("page", ["1"])[0])
        records = self.pages[number - 1] if number <= len(self.pages) else b"[]"
        return getattr(self, f"_{self.name}")(path.rsplit("/", 1)[1], records, number, query)  # type: ignore[no-any-return]

    def _dentally(self, resource: str, records: bytes, number: int, _query: Any) -> bytes:
        if resource != "treatments":
            return b'{"%s": [], "meta": {"total": 0}}' % resource.encode()
        meta = {"total": 2 * RECORDS, "total_pages": 2, "current_page": number}
        return b'{"treatments": %s, "meta": %s}' % (records, json.dumps(meta).encode())

    def _dexory(self, _path: str, records: bytes, number: int, _query: Any) -> bytes:
        following = f"{self.url}/customer-api/v1/locations?page=2" if number == 1 else None
        return b'{"data": %s, "links": %s}' % (records, json.dumps({"next": following}).encode())

    def _paligo(self, resource: str, records: bytes, number: int, query: Any) -> bytes:
        if resource != "taxonomies":
            return b'{"page": 1, "total_pages": 0, "%s": []}' % resource.encode()
        if query["per_page"] == ["1"]:
            return b'{"page": 1, "total_pages": %d, "taxonomies": [{"id": 1}]}' % (2 * RECORDS)
        return b'{"page": %d, "total_pages": 2, "taxonomies": %s}' % (number, records)

    def _sensource(self, path: str, records: bytes, _number: int, query: Any) -> bytes:
        if path == "token":
            return b'{"access_token": "a", "expires_in": 3600}'
        if path != "traffic":
            return b'{"results": []}'
        day = query["startDate"][0][:10].encode()
        return b'{"results": %s}' % records.replace(b"2026-01-15", day)


@contextmanager
def _served(source: Source) -> Iterator[dict[str, str]]:
    """The configuration with which a connector reads the source."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            target = urlsplit(self.path)
            body = source.respond(target.path, parse_qs(target.query))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET  # noqa: N815  # as the base class calls it

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source.url = f"http://127.0.0.1:{server.server_port}"
        addresses = {"base_url": source.url}
        if source.name == "sensource":
            addresses |= {"auth_url": f"{source.url}/token", "enable_occupancy_sync": "false"}
        yield {**_CREDENTIALS[source.name], **addresses}
        server.shutdown()


def _sync(
    name: str, configuration: dict[str, str], limit: int
) -> "subprocess.CompletedProcess[str]":
    arguments = [str(ROOT / "connectors" / name), json.dumps(configuration), str(limit)]
    return subprocess.run(
        [sys.executable, "-c", _SYNC, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.posix
@pytest.mark.parametrize("name", ["paligo", *wide("dentally", "dexory", "sensource")])
def test_the_largest_responses_become_rows_within_a_gigabyte(name: str) -> None:
    """That is what a connection has on Fivetran's platform."""
    with _served(Source(name)) as configuration:
        result = _sync(name, configuration, GIGABYTE)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) >= 2 * RECORDS
