"""Responses that no source should give, made of those that one would have given."""

import gzip
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from werkzeug.wrappers import Response

# JSON text in place of a value: other types, and what only some parsers take or survive.
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
_PLACE = "\x01place\x01"  # stands in a copy where another text is to stand
_ENDLESS = 64 * 1024 * 1024  # bytes, after which a body ends that nobody stopped reading


def forge(response: Response, draw: random.Random) -> Response:
    """``response`` with one thing wrong."""
    ways: list[Callable[[bytes, random.Random], Response]] = [_damaged, _bomb, _endless, _waiting]
    body = response.get_data()
    way = draw.choice([*[_changed] * 12, *ways])
    try:
        return way(body, draw)
    except ValueError:  # it was no JSON
        return _damaged(body, draw)


def _json(body: bytes) -> Response:
    return Response(body, content_type="application/json")


def _changed(body: bytes, draw: random.Random) -> Response:
    """One value is another, is missing, comes twice or in the company of another."""
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
    """A way from the whole down to a value: so what lies above is met as often as records are."""
    holder: Any = whole
    while isinstance(holder, (dict, list)) and holder:
        key: Any = draw.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        yield holder, key
        holder = holder[key]


def _damaged(body: bytes, draw: random.Random) -> Response:
    """Bytes that are no text, or no whole JSON."""
    place = draw.randrange(len(body) + 1)
    return _json(draw.choice((body[:place], body[:place] + b"\xff\xfe" + body[place:], b"")))


def _bomb(body: bytes, draw: random.Random) -> Response:
    """A small body that becomes a large one, or that is not compressed as it says."""
    packed = draw.choice((gzip.compress(b"[" + b" " * 20_000_000), body, gzip.compress(body)[:-9]))
    return Response(packed, content_type="application/json", headers={"Content-Encoding": "gzip"})


def _endless(body: bytes, draw: random.Random) -> Response:
    """A body that goes on."""
    chunk = draw.choice((b" ", b"[", b"0")) * 65_536
    chunks = (chunk for _ in range(_ENDLESS // len(chunk)))
    return Response(chunks, content_type="application/json")


def _waiting(body: bytes, draw: random.Random) -> Response:
    """A wait that is none."""
    names = ("Retry-After", "X-RateLimit-Reset")
    headers = {name: draw.choice(_WAITS) for name in names}
    return Response(body, draw.choice((429, 503, 403)), headers=headers)
