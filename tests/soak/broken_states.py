"""States that no version wrote: a real one, with a value that is missing or of another form."""

import json
import random
from collections.abc import Iterator
from typing import Any

_DEEP = 400  # levels; Python's own limit is 1,000 calls
_VALUES: tuple[Any, ...] = (
    *(None, True, False, -1, 0.5, 2**62, 2**63, 10**30, float("nan"), float("inf")),
    *("", "x", "\ud800", "9" * 5_000, [], {}, [""], [None], {"": 0}, {"x": "y"}),
    json.loads("[" * _DEEP + "]" * _DEEP),
    json.loads('{"a":' * _DEEP + "1" + "}" * _DEEP),
)
# Without these a state tells that there is nothing to make up for.
_FLAGS = ("unfinished", "load", "mixed", "open", "doubted")
# With other names in these, a table has another key at the destination: it fails, and says so.
_KEYS = ("k", "key", "types")


def broken(text: str, draw: random.Random) -> Any:
    """The state ``text`` with one value, at any depth, that is missing or another one."""
    state = json.loads(text)
    places = list(_places(state))
    if not places:
        return {"x": draw.choice(_VALUES)}
    holder, key = draw.choice(places)
    if draw.random() < 0.3 and isinstance(holder, dict) and key not in _FLAGS:
        del holder[key]
        return state
    other = _other(holder[key], draw)
    while isinstance(other, (str, list)) and _is_key(state, holder, key):
        other = _other(holder[key], draw)
    holder[key] = other
    return state


def _is_key(state: Any, holder: Any, key: Any) -> bool:
    entries = state.get("tables", {}).values()
    return key in _KEYS or any(holder is entry.get(name) for entry in entries for name in _KEYS)


def _other(value: Any, draw: random.Random) -> Any:
    """A value of another type, or one that the type does not allow."""
    while True:
        other = draw.choice(_VALUES)
        if isinstance(value, bool) and isinstance(other, bool):
            continue  # another flag, which may be true
        if value != other or type(value) is not type(other):
            return other


def _places(holder: Any) -> Iterator[tuple[Any, Any]]:
    """All values below ``holder``, by what holds them and the key or index there."""
    for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
        yield holder, key
        if isinstance(holder[key], (dict, list)):
            yield from _places(holder[key])
