"""Pages are read ahead, and concurrently where their number is known."""

import re
import threading
import weakref
from collections.abc import Callable, Generator, Iterator
from functools import partial
from itertools import count, islice
from typing import Any, cast

import pytest
import requests
import responses

from shared.errors import SourceError
from shared.network import Closed
from shared.pages import (
    LinkedPages,
    NumberedPages,
    Page,
    Place,
    RepeatedPages,
    by_fields,
    digest,
    in_order,
    read_ahead,
)
from shared.rest import RestClient, Retry


def client(parallel: int) -> RestClient:
    return RestClient("https://api.example.com", 30, Retry(), parallel=parallel)


def test_pages_come_in_order() -> None:
    """Each page comes once."""
    assert list(read_ahead(iter(range(100)), threading.Event())) == list(range(100))
    assert list(read_ahead(iter([]), threading.Event())) == []


def test_two_pages_are_read_ahead_and_no_more() -> None:
    """At most three pages are in memory, however slow the caller is."""
    begun: list[int] = []
    third = threading.Event()

    def pages() -> Iterator[int]:
        for number in range(10):
            begun.append(number)
            if number == 2:
                third.set()
            yield number

    pages_ahead = cast("Generator[int]", read_ahead(pages(), threading.Event()))
    assert next(pages_ahead) == 0
    assert third.wait(5)
    assert begun == [0, 1, 2]
    pages_ahead.close()


def test_an_error_of_the_source_reaches_the_caller() -> None:
    """The pages before it come first."""

    def pages() -> Iterator[int]:
        yield 1
        raise ValueError("page 2")

    pages_ahead = read_ahead(pages(), threading.Event())
    assert next(pages_ahead) == 1
    with pytest.raises(ValueError, match="page 2"):
        next(pages_ahead)


def test_stopping_early_leaves_no_thread_behind() -> None:
    """The event ends a request that would wait for long; then the next read may begin."""
    before = threading.active_count()
    closed, ended = threading.Event(), list[bool]()

    def pages() -> Iterator[int]:
        yield 1
        ended.append(closed.wait(10))
        yield 2

    pages_ahead = cast("Generator[int]", read_ahead(pages(), closed))
    next(pages_ahead)
    pages_ahead.close()
    assert ended == [True]
    assert not closed.is_set()
    assert threading.active_count() == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_only_an_interrupt_ends_what_must_not_be_lost(error: type[BaseException]) -> None:
    """Such as a response with new tokens. After it no request is to come."""
    closed = Closed()
    pages_ahead = cast("Generator[int]", read_ahead(iter(range(9)), closed))
    next(pages_ahead)
    with pytest.raises(error):
        pages_ahead.throw(error())
    assert closed.interrupted.is_set() == closed.is_set() == (error is KeyboardInterrupt)


def test_an_interrupt_while_the_thread_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool does not know the thread yet and does not wait for it; the interrupt is raised all
    the same, and not that the generator still runs."""
    runs, start = threading.Event(), threading.Thread.start
    closed = Closed()

    def pages() -> Iterator[int]:
        runs.set()
        closed.wait(10)
        yield 1

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        runs.wait(10)
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        next(read_ahead(pages(), closed))
    assert closed.is_set()


class Calls:
    """Calls that a test lets end one by one. ``begun``: their numbers, in the order in which they
    began."""

    def __init__(self, amount: int) -> None:
        self.begun: list[int] = []
        self.may_end = [threading.Event() for _ in range(amount)]
        self._changed = threading.Condition()

    def __iter__(self) -> Iterator[Callable[[], int]]:
        return (lambda number=number: self._call(number) for number in range(len(self.may_end)))  # type: ignore[misc]

    def _call(self, number: int) -> int:
        with self._changed:
            self.begun.append(number)
            self._changed.notify_all()
        assert self.may_end[number].wait(10)
        return number

    def end(self, *numbers: int) -> None:
        for number in numbers:
            self.may_end[number].set()

    def have_begun(self, amount: int) -> bool:
        """Whether exactly so many calls begin, as far as can be seen."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.begun) == amount, 10) and (
                not self._changed.wait_for(lambda: len(self.begun) > amount, 0.02)
            )


def test_results_come_in_order_whatever_ends_first() -> None:
    """Four calls are concurrent, and a fifth begins when the caller has taken a result."""
    calls = Calls(7)
    results = in_order(client(4), calls)
    calls.end(0)
    assert next(results) == 0
    assert calls.have_begun(5)
    calls.end(4, 3, 2)
    assert calls.have_begun(5)
    calls.end(1, 5, 6)
    assert list(results) == [1, 2, 3, 4, 5, 6]


def test_the_first_call_is_alone() -> None:
    """Its response may be so large that several would not fit into the memory."""
    calls, results, client_ = Calls(3), list[int](), client(4)
    reader = threading.Thread(target=lambda: results.extend(in_order(client_, calls)))
    reader.start()
    assert calls.have_begun(1)
    calls.end(0, 1, 2)
    reader.join()
    assert results == [0, 1, 2]


def test_fewer_are_begun_when_the_client_slows_down() -> None:
    """The calls that have begun end first."""
    calls, slower = Calls(9), client(4)
    results = in_order(slower, calls)
    calls.end(0)
    next(results)
    slower.parallel = 2
    calls.end(1, 2)
    assert [next(results), next(results)] == [1, 2]
    assert calls.have_begun(5)
    calls.end(3)
    assert next(results) == 3
    assert calls.have_begun(6)
    calls.end(*range(9))
    assert list(results) == [4, 5, 6, 7, 8]


@pytest.mark.parametrize("parallel", [1, 4])
def test_an_error_comes_after_the_results_before_it(parallel: int) -> None:
    """It ends the back-offs of the other calls and leaves no thread; then the next list may
    begin."""
    before, closing, ended = threading.active_count(), client(parallel), list[bool]()

    def fail() -> int:
        raise SourceError("the third")

    def back_off() -> int:
        ended.append(closing.closed.wait(10))
        return 0

    results = in_order(closing, [lambda: 1, lambda: 2, fail, back_off, back_off, lambda: 6])
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(SourceError, match="the third"):
        next(results)
    assert all(ended)
    assert not closing.closed.is_set()
    assert threading.active_count() == before


def test_a_limit_stops_all_requests_and_halves_their_number() -> None:
    """Four that are told to wait do so together, and nothing is sent meanwhile."""
    together = threading.Barrier(4)
    sent, waited, disturbed, limited = list[int](), list[float](), list[int](), set[int]()

    def respond(request: requests.PreparedRequest) -> tuple[int, dict[str, str], str]:
        number = int(str(request.url)[-1])
        sent.append(number)
        if 1 <= number <= 4 and number not in limited:
            limited.add(number)
            together.wait(10)
            return 429, {"Retry-After": "30"}, ""
        return 200, {}, str(number)

    def wait(_closed: threading.Event, seconds: float) -> bool:
        waited.append(seconds)
        if len(waited) == 1:  # later ones may begin when a retry is on its way
            before = len(sent)
            threading.Event().wait(0.02)  # for requests that would not wait
            disturbed.extend(sent[before:])
        return False

    source = client(4)
    source.pause = wait
    calls = [partial(source.get, f"/{number}") for number in range(10)]
    with responses.RequestsMock() as server:
        server.add_callback("GET", re.compile(re.escape(source.base_url)), respond)
        assert list(in_order(source, calls)) == list(range(10))
    assert disturbed == []
    assert waited == pytest.approx([30] * 4, abs=1)
    assert source.parallel == 2


def test_a_large_response_ends_parallel_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several of its size would take too much memory."""
    monkeypatch.setattr("shared.rest.LARGE_RESPONSE", 6)
    source = client(4)
    with responses.RequestsMock() as server:
        server.get("https://api.example.com/a", body="123456", content_type="application/json")
        server.get("https://api.example.com/a", body="1234567", content_type="application/json")
        source.get("/a")
        assert source.parallel == 4
        source.get("/a")
        assert source.parallel == 1


@pytest.mark.parametrize("body", ["[1, 2, 3, 4]", '"long text"'])
def test_nothing_is_read_ahead_after_a_large_response(
    body: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of its size, or with as many values, would take too much memory; and the one before is
    gone by then."""
    monkeypatch.setattr("shared.rest.LARGE_RESPONSE", 8 if body[0] == '"' else 100)
    monkeypatch.setattr("shared.rest.MANY_VALUES", 3)
    source, begun, alive = client(4), list[int](), weakref.WeakValueDictionary[int, Page]()

    def call(number: int) -> Page:
        begun.append(number)
        assert not alive
        page = Page([source.get("/a")], number, pages=6)
        alive[number] = page
        return page

    with responses.RequestsMock() as server:
        server.get("https://api.example.com/a", body=body, content_type="application/json")
        pages = iter(NumberedPages(source, "/a", call, 1, ("id",)))
        monkeypatch.setattr(RepeatedPages, "is_repeated", lambda pages, records: False)
        for page in read_ahead(pages, source.closed, source.ahead):
            assert begun == [*range(1, page.number + 1)]
            if page.number == 6:
                break
            del page


def test_the_client_can_be_used_after_an_early_stop() -> None:
    """The calls that have begun end, no further one begins, and no thread is left."""
    before, calls, reused = threading.active_count(), Calls(9), client(3)
    calls.end(*range(9))
    results = cast("Generator[int]", in_order(reused, calls))
    next(results)
    results.close()
    assert len(calls.begun) <= 4
    assert not reused.closed.is_set()
    assert threading.active_count() == before


class Numbered:
    """A list of ``count`` records in pages of ``size``. ``says`` makes of a page's number what the
    page announces; ``asked`` holds the numbers of the requested pages."""

    def __init__(self, count: int, size: int, says: Callable[[int], dict[str, Any]]) -> None:
        self._records = [{"id": number} for number in range(count)]
        self._size, self._says = size, says
        self.asked: list[int] = []
        self.refuses_from: tuple[int, int] | None = None  # a page and a status

    def fetch(self, number: int) -> Page:
        self.asked.append(number)
        if self.refuses_from and number >= self.refuses_from[0]:
            refusal = SourceError("no such page")
            refusal.status = self.refuses_from[1]
            raise refusal
        part = self._records[(number - 1) * self._size : number * self._size]
        return Page(part, number, **self._says(number))

    def ids(self, size: int | None = None) -> list[int]:
        pages = NumberedPages(client(4), "/things", self.fetch, size or self._size, ("id",))
        return [record["id"] for page in pages for record in page.records]


def nothing(_number: int) -> dict[str, Any]:
    return {}


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 35, 40])
@pytest.mark.parametrize(
    "says",
    [
        lambda count, number: {"pages": -(-count // 10)},
        lambda count, number: {"total": count},
        lambda count, number: {"more": number * 10 < count},
        lambda count, number: {"more": number * 10 < count, "pages": -(-count // 10)},
        lambda count, number: {},
        # It stops counting.
        lambda count, number: {"total": min(count, 20)},
        lambda count, number: {"pages": min(-(-count // 10), 2)},
        # It counts what it does not list.
        lambda count, number: {"total": count + 3},
        lambda count, number: {"pages": -(-count // 10) + 3, "total": count + 30},
    ],
)
def test_all_pages_come_whatever_is_announced(says: Any, count: int) -> None:
    """No more missing pages are requested than there are concurrent requests."""
    source = Numbered(count, 10, partial(says, count))
    assert source.ids() == list(range(count))
    assert len(source.asked) <= -(-count // 10) + 4


@pytest.mark.parametrize("count", [3, 9, 21])
def test_no_page_is_requested_behind_a_short_last_page(count: int) -> None:
    """The list ends at the announced total or number of pages."""
    for says in ({"total": count}, {"pages": -(-count // 10)}):
        source = Numbered(count, 10, lambda number, says=says: says)  # type: ignore[misc]
        assert source.ids() == list(range(count))
        assert len(source.asked) == -(-count // 10)


def test_a_page_may_be_shorter_than_asked_for() -> None:
    """The source caps its size; where the total is known, no further page is requested."""
    source = Numbered(57, 25, lambda number: {"total": 57})
    assert source.ids(size=100) == list(range(57))
    assert len(source.asked) == 3


@pytest.mark.parametrize("status", [400, 404, 410, 416, 422])
def test_a_source_may_refuse_a_page_behind_the_last(status: int) -> None:
    """It may not refuse one that it announced."""
    source = Numbered(20, 10, lambda number: {"total": 20})
    source.refuses_from = (3, status)
    assert source.ids() == list(range(20))
    source.refuses_from = (2, status)
    with pytest.raises(SourceError, match="no such page"):
        source.ids()
    source = Numbered(20, 10, nothing)
    source.refuses_from = (3, status)
    with pytest.raises(SourceError, match="no such page"):
        source.ids()


@pytest.mark.parametrize("status", [401, 403, 500, None])
def test_a_failure_behind_the_last_page_is_an_error(status: Any) -> None:
    """Such a failure does not tell whether the page exists."""
    source = Numbered(20, 10, lambda number: {"total": 20})
    source.refuses_from = (3, status)
    with pytest.raises(SourceError, match="no such page"):
        source.ids()


def test_a_source_may_send_its_last_page_for_every_one_behind_it() -> None:
    """Under the number requested, or under its own."""

    for current in (None, 2):

        def fetch(number: int, current: int | None = current) -> Page:
            number_sent = min(number, 2)
            ids = [{"id": 10 * number_sent + place} for place in range(10)]
            return Page(ids, number, total=20, current=current if number > 2 else None)

        pages = NumberedPages(client(1), "/things", fetch, 10, ("id",))
        assert [page.number for page in pages] == [1, 2]


def test_an_announced_page_must_be_the_one_requested() -> None:
    """Another page, an empty page before others, and pages that repeat are errors."""
    with pytest.raises(SourceError, match="page 2 was asked for, and the source sent another"):
        Numbered(30, 10, lambda number: {"pages": 3, "current": 1}).ids()
    for says in ({"pages": 40}, {"more": True}):
        with pytest.raises(SourceError, match="page 3 is empty, but more are announced"):
            Numbered(20, 10, lambda number, says=says: says).ids()  # type: ignore[misc]

    def with_a_hole(number: int) -> Page:
        return Page([] if number == 2 else [{"id": number}], number, pages=3)

    with pytest.raises(SourceError, match="page 2 is empty, but more are announced"):
        list(NumberedPages(client(1), "/things", with_a_hole, 1, ("id",)))

    def fetch(number: int) -> Page:
        return Page([{"id": 1, "image_url": f"https://x/?signed={number}"}, {"id": 2}], number)

    with pytest.raises(SourceError, match="page 3 and the one before it repeat others"):
        list(NumberedPages(client(1), "/things", fetch, 2, ("id",)))


def test_repeated_pages_are_told_by_their_keys() -> None:
    """Pages without keys are told by their whole records."""
    repeats = RepeatedPages("/things", by_fields(("a", "b")))
    assert not repeats.is_repeated([{"a": 1, "b": 2, "c": 3}])
    assert repeats.is_repeated([{"a": 1, "b": 2, "c": 4}])
    assert not repeats.is_repeated([{"a": 1, "b": 3}])
    odds: list[list[Any]] = [[{"c": 1}], [{"a": [], "b": {}}], [None], [{"a": None, "b": 1}]]
    for odd in odds:
        assert not repeats.is_repeated(odd)
        assert repeats.is_repeated(odd)
    assert repeats.is_repeated([{"b": 1, "c": 5}])
    assert not repeats.is_repeated([{"a": None, "c": 5}])
    assert not repeats.is_repeated([])
    assert not repeats.is_repeated([])


@pytest.mark.parametrize(("total", "size", "last"), [(3, 3, 2), (9, 3, 3), (10, 3, 3), (7, 1, 6)])
def test_the_number_of_records_tells_that_of_pages(total: int, size: int, last: int) -> None:
    """Only pages that must be full are requested concurrently: the one behind them may not
    exist."""
    asked: list[int] = []

    def fetch(number: int) -> Page:
        asked.append(number)
        records = [{"id": (number, place)} for place in range(size)]
        return Page(records, number, None, total)

    pages = iter(NumberedPages(client(4), "/things", fetch, size, ("id",)))
    list(islice(pages, 2))
    cast("Generator[Page]", pages).close()
    assert sorted(asked) == list(range(1, last + 1))


def test_pages_are_read_by_one_thread() -> None:
    """Two threads cannot run one generator."""
    threads = set[int]()

    def pages() -> Iterator[int]:
        for number in range(9):
            threads.add(threading.get_ident())
            yield number

    for _ in read_ahead(pages(), threading.Event()):
        threading.Event().wait(0.001)
    assert len(threads) == 1


@pytest.mark.parametrize("tail", [*range(5), 7, 8, 33])
@pytest.mark.parametrize("length", [*range(1, 6), 8, 33])
def test_a_circle_of_any_length_is_found_soon(tail: int, length: int) -> None:
    """The last page of the circle leads back to its first; the circle is found after three rounds
    at most."""
    place = Place("0")
    for _ in range(2 * max(tail + 1, length) + length - 1):
        following = int(place.link or 0) + 1
        link = str(following if following < tail + length else tail)
        try:
            place = place.follow(link, "/things")
        except SourceError:
            break
    with pytest.raises(SourceError, match=f"after page {place.number} the links begin again"):
        place.follow(link, "/things")


def test_links_that_only_lead_on_are_followed() -> None:
    """Any number of them; the mark moves at the pages 1, 2, 4, 8 and so on."""
    place, marked = Place("0"), ""
    for number in range(1, 300):
        if number in (1, 2, 4, 8, 16, 32, 64, 128, 256):
            marked = place.link or ""
        place = place.follow(str(number), "/things")
        assert place == Place(str(number), number + 1, digest(marked))
    assert digest("") != digest("0") != digest("1")
    assert len(digest("0" * 1000)) == 16


def test_tokens_lead_from_page_to_page() -> None:
    """The first request has no token, nor has the last response; a page before others may be
    empty."""
    pages: dict[str | None, tuple[list[Any], str | None]]
    pages = {None: ([1], "a"), "a": ([], "b"), "b": ([2], "c"), "c": ([], None)}
    asked = []

    def fetch(token: str | None) -> tuple[Page, str | None]:
        asked.append(token)
        records, following = pages[token]
        return Page(records), following

    found = list(LinkedPages("/things", fetch, by_fields(("id",))))
    assert [(page.number, page.records) for page in found] == [
        (1, [1]),
        (2, []),
        (3, [2]),
        (4, []),
    ]
    assert asked == [None, "a", "b", "c"]
    assert found[-1].following is None
    asked.clear()
    place = found[1].following or Place()
    resumed = list(LinkedPages("/things", fetch, by_fields(("id",)), place))
    assert [(page.number, page.records) for page in resumed] == [(3, [2]), (4, [])]
    assert asked == ["b", "c"]


@pytest.mark.parametrize("size", [2, 10])
def test_a_full_page_that_names_no_other_is_requested_once_more(size: int) -> None:
    """Its link may have been left out. Full is also a page like those before it, where the source
    caps them."""
    links, asked = iter(["a", None, "b", None, None]), list[str | None]()

    def fetch(link: str | None) -> tuple[Page, str | None]:
        asked.append(link)
        return Page([f"1{link}", f"2{link}"]), next(links)

    found = list(LinkedPages("/things", fetch, by_fields(("id",)), size=size))
    assert [page.records[0] for page in found] == ["1None", "1a", "1b"]
    assert asked == [None, "a", "a", "b", "b"]


@pytest.mark.parametrize(("status", "is_refusal"), [(400, True), (410, True), (503, False)])
def test_tokens_may_be_good_for_one_request(status: int, is_refusal: bool) -> None:
    """Their refusal at the second one says nothing; another error of that request does."""
    asked = list[str | None]()

    def fetch(link: str | None) -> tuple[Page, str | None]:
        asked.append(link)
        if asked.count(link) > 1:
            error = SourceError("no")
            error.status = status
            raise error
        return Page([f"1{link}", f"2{link}"]), None if link else "a"

    pages = iter(LinkedPages("/things", fetch, by_fields(("id",)), size=2))
    assert next(pages).records[0] == "1None"
    if is_refusal:
        assert [page.records[0] for page in pages] == ["1a"]
    else:
        with pytest.raises(SourceError):
            next(pages)


def test_tokens_in_a_circle_are_an_error() -> None:
    """A token that comes back is an error, and so are equal pages under ever new tokens."""
    again = LinkedPages("/things", lambda token: (Page([]), "a"), by_fields(("id",)))
    with pytest.raises(SourceError, match="after page 2 the links begin again"):
        list(again)
    tokens = map(str, count())
    same = LinkedPages("/things", lambda _: (Page([{"id": 1}]), next(tokens)), by_fields(("id",)))
    with pytest.raises(SourceError, match="page 3 and the one before it repeat others"):
        list(same)


@pytest.mark.parametrize("caller", ["read_ahead", "in_order"])
def test_who_stops_early_does_not_wait_for_a_back_off(caller: str) -> None:
    """Nor for one that another request begins only after that."""
    source, stopped = client(4), threading.Event()
    waits = list[bool]()

    def limited() -> int:
        stopped.wait(10)
        threading.Event().wait(0.05)  # until the caller closes
        waits.append(source.closed.wait(10))
        return 0

    results: Iterator[int] = in_order(source, [lambda: 1, lambda: 2, limited, limited])
    if caller == "read_ahead":
        results = read_ahead(results, source.closed)
    assert next(results) == 1
    stopped.set()
    cast("Generator[int]", results).close()
    assert all(waits)
    assert not source.closed.is_set()
