"""Hostile responses: what a source would send, with one thing wrong."""

import gzip
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from werkzeug.wrappers import Response

# JSON text that replaces a value: other types, and text that only some parsers take or survive.
_VALUES = (
    *("null", "true", "0", "-1", "17", "0.1", '""', '"text"', '"null"', "[]", "{}", '[""]'),
    *("NaN", "Infinity", "-Infinity", "1e999", "9" * 400, "-" + "9" * 5_000, "1e-999", "1E400"),
    *('"2026-02-30"', '"0000-00-00T00:00:00Z"', '"9999-12-31T23:59:59-12:00"', "253402300800"),
    *('"\\ud800"', '"\\u0000"', '"\\ufffe"', '"' + "x" * 100_000 + '"', "\xff", '"', "01", "'a'"),
    "[" * 100_000,
    "[" * 500 + "]" * 500,
    '{"a":' * 500 + "1" + "}" * 500,
)
_WAITS = ("nan", "inf", "-5", "1e400", "9" * 30, "0", "", "Wed, 99 Foo 2026", "\xff", "60, 60")
_PLACE = "\x01place\x01"  # marks where another text is inserted
_ENDLESS = 64 * 1024 * 1024  # bytes at which a body ends if the client reads on


def forge(response: Response, draw: random.Random) -> Response:
    """``response`` with one thing wrong, which is drawn."""
    ways: list[Callable[[bytes, random.Random], Response]] = [_damaged, _bomb, _endless, _waiting]
    body = response.get_data()
    way = draw.choice([*[_changed] * 12, *ways])
    try:
        return way(body, draw)
    except ValueError:  # the body is no JSON
        return _damaged(body, draw)


def _json(body: bytes) -> Response:
    return Response(body, content_type="application/json")


def _changed(body: bytes, draw: random.Random) -> Response:
    """A value is replaced, removed, sent twice, or followed by another one."""
    whole = {"": json.loads(body)}
    holder, key = draw.choice(list(_places(whole, draw)))
    value = holder[key]
    text = draw.choice(_VALUES)
    way = draw.choice(("other", "other", "missing", "twice", "more"))
    if way == "missing" and holder is not whole:
        del holder[key]
        return _json(json.dumps(whole[""]).encode())
    if way == "twice" and isinstance(holder, dict) and holder is not whole:
        text = f"{json.dumps(value)}, {json.dumps(key)}: {text}"
    elif way == "more" and isinstance(holder, list):
        text = f"{json.dumps(value)}, {text}"
    holder[key] = _PLACE
    changed = json.dumps(whole[""]).replace(json.dumps(_PLACE), text)
    return _json(changed.encode("latin-1" if "\xff" in text else "utf-8"))


def _places(whole: dict[str, Any], draw: random.Random) -> Iterator[tuple[Any, Any]]:
    """The places on a drawn path from the whole down to a value: so containers are chosen as often
    as the values in records."""
    holder: Any = whole
    while isinstance(holder, (dict, list)) and holder:
        key: Any = draw.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        yield holder, key
        holder = holder[key]


def _damaged(body: bytes, draw: random.Random) -> Response:
    """Bytes that are no text, or JSON that is cut."""
    place = draw.randrange(len(body) + 1)
    return _json(draw.choice((body[:place], body[:place] + b"\xff\xfe" + body[place:], b"")))


def _bomb(body: bytes, draw: random.Random) -> Response:
    """A small body that decompresses to a large one, or that is not compressed as its header
    says."""
    packed = draw.choice((gzip.compress(b"[" + b" " * 20_000_000), body, gzip.compress(body)[:-9]))
    return Response(packed, content_type="application/json", headers={"Content-Encoding": "gzip"})


def _endless(body: bytes, draw: random.Random) -> Response:
    """A body that does not end."""
    chunk = draw.choice((b" ", b"[", b"0")) * 65_536
    chunks = (chunk for _ in range(_ENDLESS // len(chunk)))
    return Response(chunks, content_type="application/json")


def _waiting(body: bytes, draw: random.Random) -> Response:
    """A response that asks for a wait in a form that nobody can read."""
    names = ("Retry-After", "X-RateLimit-Reset")
    headers = {name: draw.choice(_WAITS) for name in names}
    return Response(body, draw.choice((429, 503, 403)), headers=headers)
