"""The configuration: a dataclass whose fields are made by ``setting`` declares it, once.

@dataclass(frozen=True, repr=False)
class Settings:
    api_key: str = setting("API key", "From your account page", secret=True)
    page_size: int = setting("Page size", "Records a request", integer(1, 100), default="50")
"""

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from fivetran_connector_sdk import Logging

from .errors import SettingsError, T
from .network import is_ambiguous

ENCRYPTED = "fivetran_encrypted:"  # what `fivetran configuration` puts before such a value
_PLACEHOLDER = re.compile(r"<[A-Z][A-Z0-9_]*>")  # a password may look like <Abc-123>


class Kind(NamedTuple):
    """The end of the sentence "must be ...", a parser that raises ValueError, and the names to
    choose from (none: anything that the parser takes)."""

    expected: str
    parse: Callable[[str], Any]
    names: tuple[str, ...] = ()


class Setting(NamedTuple):
    """A key of the configuration. ``default`` is as a user writes it ("": the setting is None);
    None: a required key. ``exact``: spaces at the ends belong to the value. ``unused``: the key
    has no effect; it is accepted, and the setup form does not ask for it."""

    label: str
    description: str
    kind: Kind
    default: str | None
    secret: bool
    exact: bool = False
    unused: bool = False


def one_of(*names: str) -> Kind:
    """One of ``names`` (in lower case), written in any case."""
    return Kind(
        " or ".join(f'"{name}"' for name in names),
        lambda text: names[names.index(text.lower())],
        names,
    )


def integer(low: int, high: int) -> Kind:
    def parse(text: str) -> int:
        if not (re.fullmatch(r"[+-]?\d{1,12}", text, re.ASCII) and low <= int(text) <= high):
            raise ValueError
        return int(text)

    return Kind(f"a whole number from {low} to {high}", parse)


def _parse_url(text: str) -> str:
    parts = urlsplit(text)
    loopback = parts.hostname in ("localhost", "127.0.0.1", "::1")
    plain = not re.search(r"[\s@?#]", text)  # no user name, query or fragment
    safe = parts.scheme == "https" or (parts.scheme == "http" and loopback)
    if not (safe and plain and parts.hostname) or is_ambiguous(text):
        raise ValueError
    return text.rstrip("/")


def _parse_token(text: str) -> str:
    if not (text.isascii() and text.isprintable() and " " not in text):
        raise ValueError
    return text


TEXT = Kind("text", lambda text: text.encode() and text)  # half of a surrogate pair is none
TOKEN = Kind("ASCII text without spaces, as it can stand in a header", _parse_token)
_FLAG = one_of("true", "false")
FLAG = _FLAG._replace(parse=lambda text: _FLAG.parse(text) == "true")
URL = Kind("an https:// address without user name, query or fragment", _parse_url)


def setting(
    label: str,
    description: str,
    kind: Kind = TEXT,
    *,
    default: str | None = None,
    secret: bool = False,
    exact: bool = False,
    unused: bool = False,
) -> Any:
    """A field of a settings dataclass, as Setting describes it."""
    spec = Setting(label, description, kind, default, secret, exact, unused)
    return dataclasses.field(metadata={"setting": spec})


def declared(cls: type[Any]) -> dict[str, Setting]:
    """The keys of a settings dataclass, in order."""
    return {field.name: field.metadata["setting"] for field in dataclasses.fields(cls)}


def read(
    cls: type[T],
    configuration: Mapping[str, Any],
    check: Callable[[Mapping[str, Any]], list[str]] = lambda values: [],
) -> T:
    """The configuration as an instance of the settings dataclass ``cls``.

    A key that is missing, empty or still a ``<PLACEHOLDER>`` has its default; an unknown key is a
    warning. ``check`` returns lines on keys that contradict each other. Raises SettingsError with
    a line for each wrong key, never with a value.
    """
    known, values, errors = declared(cls), {}, list[str]()
    for key, spec in known.items():
        values[key], wrong = _value(spec, configuration.get(key) or "")
        if wrong:
            errors.append(f"{key} {wrong}")
    for key in sorted(configuration.keys() - known.keys()):
        near = difflib.get_close_matches(key, known, 1)
        advice = f"; did you mean {near[0]}?" if near else ""
        Logging.warning(
            f"The configuration key {key[:60]!r} is not known and has no effect{advice}"
        )
    errors += check(values)
    if errors:
        raise SettingsError("The configuration is wrong:\n" + "\n".join(errors))
    return cls(**values)


def _value(spec: Setting, given: Any) -> tuple[Any, str]:
    """The value of a setting, or what is wrong with it."""
    if isinstance(given, str) and given.strip().startswith(ENCRYPTED):
        return None, "is encrypted: `fivetran debug` decrypts it, with the key of the same machine"
    if isinstance(given, str) and (not given.strip() or _PLACEHOLDER.fullmatch(given.strip())):
        if spec.default is None:
            return None, f"is missing: {spec.description}"
        given = spec.default
    try:
        text = given.strip("\r\n") if spec.exact else given.strip()
        return (spec.kind.parse(text) if given else None), ""
    except (ValueError, AttributeError):
        return None, f"must be {spec.kind.expected}"
