"""Links of pages: whether one may be followed, and whether they lead in a circle."""

import hashlib
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, unquote_plus, urljoin, urlsplit

from shared.errors import SourceError

PATH = "/customer-api/v1/locations"
LONGEST_LINK = 4_000  # characters; it stands in the state, which must stay small


class Place(NamedTuple):
    """The link of a page, and its number, from 1.

    ``mark`` is the digest of an earlier link. It moves on at the pages 1, 2, 4, 8 and so on, and
    links in a circle come back to it, however long the circle is (Brent's algorithm).
    """

    link: str
    number: int = 1
    mark: str = ""

    def follow(self, link: str) -> "Place":
        """The place of the next page. Raises SourceError if the links lead in a circle."""
        mark = self.mark if self.number & (self.number - 1) else digest(self.link)
        if digest(link) == mark:
            raise SourceError(f"{PATH}: after page {self.number} the links begin again")
        return Place(link, self.number + 1, mark)


def resolve(link: str, given: str, key: str) -> str:
    """``given``, which the page at ``link`` names, as an absolute link without the API key.

    A proxy that ends TLS may have the source write ``http:`` links to its own host and port: they
    are followed over ``https:`` as the page was. Raises ValueError, TypeError or AttributeError if
    it cannot be the link of a page.
    """
    page, new = urlsplit(link), urlsplit(urljoin(link, given))
    ambiguous = "@" in new.netloc or "\\" in new.netloc or new.port == 0
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


def digest(text: str) -> str:
    """A short text that is the same for equal texts, and for no others."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
