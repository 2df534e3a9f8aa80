"""Links of pages: whether one may be followed, and which page it is."""

from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote_plus, urljoin, urlsplit

PATH = "/customer-api/v1/locations"
LONGEST_LINK = 4_000  # characters; it stands in the state, which must stay small


def resolve(link: str, given: str, key: str) -> str:
    """``given``, which the page at ``link`` names, as an absolute link without the API key.

    A proxy that ends TLS may have the source write ``http:`` links to its own host and port: they
    are followed over ``https:`` as the page was. Raises ValueError, TypeError or AttributeError if
    it cannot be the link of a page.
    """
    page, new = urlsplit(link), urlsplit(urljoin(link, given))
    # Without a host, a path such as //other is one when it is read again.
    ambiguous = not new.netloc or "@" in new.netloc or "\\" in new.netloc or new.port == 0
    https = new._replace(scheme="https")
    if page.scheme == "https" and new.scheme == "http" and _host(https) == _host(page):
        new = https
    pairs = [(pair, unquote_plus(pair).partition("=")) for pair in new.query.split("&")]
    query = "&".join(p for p, (name, _, value) in pairs if name != "api_key" and value != key)
    resolved = new._replace(query=query).geturl()
    # Where one of these stands before a host, libraries do not agree on which host is meant.
    if not given or ambiguous or key in unquote_plus(resolved) or len(resolved) > LONGEST_LINK:
        raise ValueError
    return resolved


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
