"""Links of pages: whether one may be followed, and which page it is."""

import re
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, unquote_plus, urljoin, urlsplit

from shared.network import is_ambiguous

PATH = "/customer-api/v1/locations"
_MOST_DECODINGS = 8  # of a link
LONGEST_LINK = 4_000  # characters; it stands in the state, which must stay small


def resolve(link: str, given: str, key: str) -> str:
    """``given``, which the page at ``link`` names, as an absolute link without the API key.

    A proxy that ends TLS may have the source write ``http:`` links to its own host and port: they
    are followed over ``https:`` as the page was. Raises ValueError, TypeError or AttributeError if
    it cannot be the link of a page, or holds the key otherwise than as the value of a parameter.
    """
    if not given or len(given) > 2 * LONGEST_LINK:
        raise ValueError
    # urljoin leaves control characters out.
    if re.search(r"[\x00-\x1f\x7f]", given) or is_ambiguous(urljoin(link, given)):
        raise ValueError
    page, new = urlsplit(link), urlsplit(urljoin(link, given))
    https = new._replace(scheme="https")
    if page.scheme == "https" and new.scheme == "http" and _host(https) == _host(page):
        new = https
    query = "&".join(pair for pair in new.query.split("&") if not _is_key(pair, key))
    resolved = new._replace(query=query).geturl()
    # A host is written in small letters at times.
    quotes_key = any(key.casefold() in text.casefold() for text in _decoded(resolved))
    if quotes_key or len(resolved) > LONGEST_LINK:
        raise ValueError
    return resolved


def _is_key(pair: str, key: str) -> bool:
    """Whether a parameter is that of the key, or has the key as its value."""
    parts = (text.partition("=") for text in _decoded(pair))
    return any(name == "api_key" or value == key for name, _, value in parts)


def _decoded(text: str) -> set[str]:
    """What ``text`` may stand for: a server may decode it once or several times, and take ``+``
    for a space or not. Raises ValueError if that has no end."""
    found = latest = {text}
    for _ in range(_MOST_DECODINGS):
        latest = {decode(each) for each in latest for decode in (unquote, unquote_plus)} - found
        if not latest:
            return found
        found = found | latest
    raise ValueError


def is_page(link: str, given: Any, key: str) -> bool:
    """Whether ``given`` is a link to the page at ``link``, whatever the order of its query."""
    try:
        pages = [urlsplit(link), urlsplit(resolve(link, given, key))]
    except (ValueError, TypeError, AttributeError):
        return False
    here, there = ((_host(page), page.path, sorted(parse_qsl(page.query))) for page in pages)
    return here == there


def _host(parts: SplitResult) -> tuple[str, str | None, int | None]:
    """Scheme, host and port. Raises ValueError for a port that is no number."""
    usual = {"https": 443, "http": 80}
    return parts.scheme, parts.hostname, parts.port or usual.get(parts.scheme)
