"""Pages of a list, the next of which are on their way while the rows of one are handed over."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from typing import Any, TypeVar

from .errors import T
from .rest import RestClient

P = TypeVar("P", bound="Page")


@dataclass(repr=False)
class Page:
    """The records of one answer; how many ``pages``, and records in ``total``, it speaks of."""

    records: list[Any]
    number: int = 1
    pages: int | None = None
    total: int | None = None


def read_ahead(pages: Iterator[T], cancel: Callable[[], None]) -> Iterator[T]:
    """``pages``, the next two of which a thread reads while the caller has the last one: so it
    sends a request before the caller, who may be busy, has taken the answer to the last.

    When the caller stops early, ``cancel`` must end a reading under way; no thread is left behind.
    """
    end: Any = object()
    with ThreadPoolExecutor(1) as reader:
        try:
            ahead = deque(reader.submit(next, pages, end) for _ in range(2))
            while (page := ahead.popleft().result()) is not end:
                ahead.append(reader.submit(next, pages, end))
                yield page
        except GeneratorExit:
            cancel()
            raise


def in_order(client: RestClient, calls: Iterable[Callable[[], T]]) -> Iterator[T]:
    """The results of ``calls``, each a request, in their order.

    After the first, whose size nobody knows, ``client.parallel`` of them are under way or wait to
    be taken. An error ends the others, too; where the caller stops early they are waited for.
    """
    left, begun = iter(calls), deque[Future[T]]()
    taken: tuple[T, ...] = ()  # handed on when another call has its place
    with ThreadPoolExecutor(client.parallel) as pool:
        try:
            while True:
                most = client.parallel if taken else 1
                begun += map(pool.submit, islice(left, max(0, most - len(begun))))
                yield from taken
                if not begun:
                    return
                taken = (begun.popleft().result(),)
        except Exception:
            client.closed.set()
            raise


def numbered(client: RestClient, fetch: Callable[[int], P]) -> Iterator[P]:
    """The pages ``fetch(1)``, ``fetch(2)`` and so on, for as long as the caller takes them: one by
    one, but for those that the first page announces, be it by the number of records."""
    yield (first := fetch(1))
    announced = max(first.pages or (first.total or 0) // max(len(first.records), 1), 1)
    yield from in_order(client, (partial(fetch, number) for number in range(2, announced + 1)))
    yield from map(fetch, count(announced + 1))
