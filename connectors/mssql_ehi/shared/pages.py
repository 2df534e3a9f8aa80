"""Pages of a list, read ahead: the next ones are requested while the rows of one are stored."""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from typing import Any

from .errors import SourceError, T
from .network import LONGEST_UNINTERRUPTED, Closed
from .rest import RestClient

# With these a source may refuse a page behind the last one.
_NO_SUCH_PAGE = (400, 404, 410, 416, 422)
_MOST_EMPTY = 20  # pages at the end of a list, for records that are counted and not listed


@dataclass(repr=False)
class Page:
    """The records of one response, and what it says of the list: its ``number`` (from 1),
    ``current``, the number by which the source calls it, ``pages`` and ``total``, how many pages
    and records there are, ``more``, whether it names a next page. None: it does not say.
    ``place`` and that of the ``following`` page are known of LinkedPages."""

    records: list[Any]
    number: int = 1
    pages: int | None = None
    total: int | None = None
    more: bool | None = None
    current: int | None = None
    place: "Place | None" = None
    following: "Place | None" = None


@dataclass(frozen=True)
class Place:
    """Where a page is: the link or the token by which the page before it names it (None: it is
    the first), and its number, from 1.

    ``mark`` is the digest of an earlier link. It moves on at the pages 1, 2, 4, 8 and so on, and
    links in a circle come back to it, however long the circle is (Brent's algorithm). So a place
    is small enough for a state.
    """

    link: str | None = None
    number: int = 1
    mark: str = ""

    def follow(self, link: str, where: str) -> "Place":
        """The place of the next page. Raises SourceError if the links lead in a circle."""
        mark = self.mark if self.number & (self.number - 1) else digest(self.link or "")
        if digest(link) == mark:
            raise SourceError(f"{where}: after page {self.number} the links begin again")
        return Place(link, self.number + 1, mark)


def digest(text: str) -> str:
    """A short text that is the same for equal texts, and for no others."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_ahead(
    pages: Iterator[T], closed: threading.Event, ahead: Callable[[], int] = lambda: 2
) -> Iterator[T]:
    """``pages``; a thread reads the next two while the caller works on one, or fewer if ``ahead``
    says so. So a request is sent before the caller takes the page that came last.

    When the caller stops early, ``closed`` is set until the thread has ended: it must end a
    request, in a back-off or not.
    """
    end: Any = object()
    closes = False  # whoever has set the event clears it
    try:
        with ThreadPoolExecutor(1) as reader:
            try:
                begun = deque([reader.submit(next, pages, end)])
                while (page := _result(begun.popleft())) is not end:
                    while len(begun) < min(ahead(), 2):
                        begun.append(reader.submit(next, pages, end))
                    yield page
                    del page  # it may be large, and so may the next one
                    if not begun:
                        begun.append(reader.submit(next, pages, end))
            except BaseException as error:
                closes = _reopens(closed, error)
                _end(closed, error)
                raise
    finally:
        if isinstance(pages, Generator):
            # What it has begun may back off, which `closed` still ends. At a Ctrl-C while the
            # thread starts, the pool does not know it yet, nor wait for it: it runs still.
            with suppress(ValueError):
                pages.close()
        if closes:
            closed.clear()


def _result(future: "Future[T]") -> T:
    """The result of a call in a thread. A signal that comes right before a wait does not end it,
    so none is long."""
    while not future.done():
        wait([future], LONGEST_UNINTERRUPTED)
    return future.result()


def _reopens(closed: threading.Event, error: BaseException) -> bool:
    """Whether ``closed``, which ends the requests under way, is cleared then: whoever set it does
    so, but not at Ctrl-C, after which there are no other requests."""
    return not closed.is_set() and isinstance(error, (Exception, GeneratorExit))


def _end(closed: threading.Event, error: BaseException) -> None:
    if isinstance(closed, Closed):
        closed.end(error)
    else:
        closed.set()


def in_order(client: RestClient, calls: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The results of ``calls``, each a request, in their order.

    The first call runs alone, since the size of its response is not known; after it
    ``client.parallel`` calls run concurrently, or have results that wait for the caller. After a
    large response a call begins when the caller has no use for the last result any more. An error
    or a caller who stops early ends the others, in a back-off or not, and waits for them.
    """
    left, begun = iter(calls), deque[Future[T]]()
    taken: tuple[T, ...] = ()  # yielded when the next call runs
    closes = False  # whoever has set the event clears it: at Ctrl-C the thread that reads ahead
    try:
        with ThreadPoolExecutor(client.parallel) as pool:
            try:
                while True:
                    most = client.ahead() if taken else 1
                    begun += map(pool.submit, islice(left, max(0, most - len(begun))))
                    yield from taken
                    if not (taken or begun):
                        return
                    taken = ()  # it may be large, and so may the next one
                    if begun:
                        taken = (_result(begun.popleft()),)
            except BaseException as error:
                closes = _reopens(client.closed, error)
                _end(client.closed, error)
                raise
    finally:
        if closes:
            client.closed.clear()


class NumberedPages:
    """The pages of a list that a source numbers from 1.

    ``fetch`` gets the page of a number, ``where`` names the list in errors, ``size`` is how many
    records a page was asked to have, ``key`` are the fields that tell records apart. A page may
    be shorter than asked for: sources cap its size.
    """

    def __init__(
        self,
        client: RestClient,
        where: str,
        fetch: Callable[[int], Page],
        size: int,
        key: tuple[str, ...],
    ) -> None:
        self._client, self._where, self._fetch, self._size = client, where, fetch, size
        self._repeats = RepeatedPages(where, by_fields(key))
        self._received = self._longest = 0
        self._empty: list[int] = []  # the numbers of pages without records

    def __iter__(self) -> Iterator[Page]:
        """The pages up to the last one that the source announces: by the number of pages, the
        number of records, or a link to a next page. Without any of these, up to an empty page.

        A source may stop counting, or count records that it does not list. So if the last page
        announced is full, or records are missing, further pages are requested; and the last pages
        announced may be empty. Raises SourceError for a page that is not the one requested, for an
        empty page before others, and for pages that repeat others.
        """
        for page in self._announced():
            self._check(page)
            self._received += len(page.records)
            is_full = _is_full(page, self._longest, self._size)
            self._longest = max(self._longest, len(page.records))
            is_end = not page.records and (page.pages is None or page.number >= page.pages)
            is_last, number = self._is_last(page), page.number
            is_short = self._received < (page.total or 0)
            yield page
            del page  # it may be large, and so may the next one
            if is_end:
                return
            if is_last:
                if is_full or is_short:
                    yield from self._behind(number)
                return

    def _check(self, page: Page) -> None:
        if page.current not in (None, page.number):
            raise SourceError(
                f"{self._where}: page {page.number} was asked for, and the source sent another one"
            )
        if not page.records:
            self._empty.append(page.number)
        endless = page.more if page.pages is None else len(self._empty) > _MOST_EMPTY
        if self._empty and (page.records or endless):
            raise SourceError(
                f"{self._where}: page {self._empty[0]} is empty, but more are announced"
            )
        self._repeats.check(page.number, page.records)

    def _is_last(self, page: Page) -> bool:
        """Whether nothing announces a page behind this one, though something could."""
        links = [page.number < page.pages] if page.pages is not None else []
        links += [page.more] if page.more is not None else []
        links += [page.number * self._longest < page.total] if page.total is not None else []
        return bool(links) and not any(links)

    def _announced(self) -> Iterator[Page]:
        """Pages for as long as the caller takes them: concurrently those that the first page
        announces, by a number of pages or of records; then one by one."""
        first = self._fetch(1)
        announced = max(first.pages or (first.total or 0) // max(len(first.records), 1), 1)
        yield first
        del first
        numbers = range(2, announced + 1)
        yield from in_order(self._client, (partial(self._fetch, number) for number in numbers))
        yield from map(self._fetch, count(announced + 1))

    def _behind(self, last: int) -> Iterator[Page]:
        """The pages behind the ``last`` one announced, until one is empty or refused, or is one
        that the source has sent before."""
        for number in count(last + 1):
            try:
                page = self._fetch(number)
            except SourceError as refusal:
                if refusal.status in _NO_SUCH_PAGE:
                    return
                raise
            if not page.records or page.current not in (None, number):
                return
            if self._repeats.is_repeated(page.records):
                return
            yield page


def _is_full(page: Page, longest: int, size: int) -> bool:
    """Whether a page has as many records as were asked for, or as the ``longest`` page before it
    (0: there was none), since sources cap the size of a page."""
    return len(page.records) >= (min(longest, size) or size)


class LinkedPages:
    """The pages of a list, each of which names the next one: by a link, or by a token such as
    ``next_token`` or a cursor.

    ``fetch`` gets the page of a link or token (None: the first one) and what it names, None if it
    is the last. ``start``: where to begin; ``where`` names the list in errors; ``identities``:
    what tells the records of a page from others, as ``by_fields`` does. ``size``: how many records
    a page was asked to have, for a source that ends a list by leaving something out.
    """

    def __init__(
        self,
        where: str,
        fetch: Callable[[str | None], tuple[Page, str | None]],
        identities: Callable[[list[Any]], list[Any]],
        start: Place = Place(),  # it is frozen
        size: int | None = None,
    ) -> None:
        self._where, self._fetch, self._start, self._size = where, fetch, start, size
        self._repeats = RepeatedPages(where, identities)
        self._longest = 0

    def __iter__(self) -> Iterator[Page]:
        """The pages, each with its ``place`` and that of the ``following`` page. An empty page may
        come before others. If the last one is full, it is requested once more: a list seldom ends
        so, and a link may have been left out. Raises SourceError for links in a circle, and for
        pages that repeat others."""
        place: Place | None = self._start
        while place:
            page, link = self._fetch(place.link)
            if not link and self._size and _is_full(page, self._longest, self._size):
                page, link = self._again(place, page)
            self._longest = max(self._longest, len(page.records))
            self._repeats.check(place.number, page.records)
            page.place, page.number = place, place.number
            page.following = place = place.follow(link, self._where) if link else None
            yield page
            del page

    def _again(self, place: Place, page: Page) -> tuple[Page, str | None]:
        """The page at ``place`` once more or, from a source whose tokens are good for one request,
        ``page``, as it was."""
        try:
            return self._fetch(place.link)
        except SourceError as refusal:
            if refusal.status in _NO_SUCH_PAGE:
                return page, None
            raise


def by_fields(names: tuple[str, ...]) -> Callable[[list[Any]], list[Any]]:
    """Tells the records of pages from others by the fields ``names``, or by all that they hold if
    none has these."""

    def identities(records: list[Any]) -> list[Any]:
        try:
            values = [record.get(name) for record in records for name in names]
        except AttributeError:  # one is no object
            return records
        return values if any(values) else records

    return identities


class RepeatedPages:
    """Tells pages that hold what one before them held, by the ``identities`` of their records:
    other fields may change from response to response. A number a page is kept."""

    def __init__(self, where: str, identities: Callable[[list[Any]], list[Any]]) -> None:
        self._where, self._identities = where, identities
        self._seen = set[int]()
        self._repeats = 0

    def is_repeated(self, records: list[Any]) -> bool:
        """Whether a page of these records, which is noted, came before."""
        identities = self._identities(records)
        try:
            mark = hash(tuple(identities))
        except TypeError:  # of a list or an object
            mark = hash(repr(identities))
        repeated = bool(records) and mark in self._seen
        self._seen.add(mark)
        return repeated

    def check(self, number: int, records: list[Any]) -> None:
        """Raises SourceError at the second repeated page in a row. One alone may be the effect of
        records that were inserted meanwhile."""
        self._repeats = self._repeats + 1 if self.is_repeated(records) else 0
        if self._repeats > 1:
            raise SourceError(f"{self._where}: page {number} and the one before it repeat others")
