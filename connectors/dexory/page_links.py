"""Links of pages: whether one may be followed, and whether they lead in a circle."""

import hashlib
from typing import NamedTuple
from urllib.parse import unquote_plus, urljoin, urlsplit

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
    Raises ValueError, TypeError or AttributeError if it cannot be one."""
    new = urlsplit(urljoin(link, given))
    pairs = [(pair, unquote_plus(pair).partition("=")) for pair in new.query.split("&")]
    query = "&".join(p for p, (name, _, value) in pairs if name != "api_key" and value != key)
    resolved = new._replace(query=query).geturl()
    # Where one of these stands before a host, libraries do not agree on which host is meant.
    ambiguous = "@" in new.netloc or "\\" in new.netloc or new.port == 0
    if not given or ambiguous or key in unquote_plus(resolved) or len(resolved) > LONGEST_LINK:
        raise ValueError
    return resolved


def digest(text: str) -> str:
    """A short text that is the same for equal texts, and for no others."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
