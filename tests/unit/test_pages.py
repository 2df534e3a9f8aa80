"""Pages read ahead, several at once where their number is known."""

import threading
from collections.abc import Callable, Generator, Iterator
from functools import partial
from itertools import islice
from typing import Any, cast

import pytest
import requests
import responses

from shared.errors import SourceError
from shared.pages import Page, in_order, numbered, read_ahead
from shared.rest import RestClient, Retry

_SLEEP = RestClient._sleep  # before a fixture lets clients go on at once


def client(parallel: int) -> RestClient:
    return RestClient("https://api.example.com", 30, Retry(), parallel=parallel)


def test_pages_come_in_order() -> None:
    """All of them, once."""
    assert list(read_ahead(iter(range(100)), lambda: None)) == list(range(100))
    assert list(read_ahead(iter([]), lambda: None)) == []


def test_two_pages_are_read_ahead_and_no_more() -> None:
    """Memory is bounded by three pages, however slow the reader."""
    begun: list[int] = []
    third = threading.Event()

    def pages() -> Iterator[int]:
        for number in range(10):
            begun.append(number)
            if number == 2:
                third.set()
            yield number

    reading = cast("Generator[int]", read_ahead(pages(), lambda: None))
    assert next(reading) == 0
    assert third.wait(5)
    assert begun == [0, 1, 2]
    reading.close()


def test_an_error_of_the_source_reaches_the_caller() -> None:
    """After the pages before it."""

    def pages() -> Iterator[int]:
        yield 1
        raise ValueError("page 2")

    reading = read_ahead(pages(), lambda: None)
    assert next(reading) == 1
    with pytest.raises(ValueError, match="page 2"):
        next(reading)


def test_stopping_early_leaves_no_thread_behind() -> None:
    """`cancel` ends a reading that would wait for long."""
    before = threading.active_count()
    cancelled = threading.Event()

    def pages() -> Iterator[int]:
        yield 1
        assert cancelled.wait(10)
        yield 2

    reading = cast("Generator[int]", read_ahead(pages(), cancelled.set))
    next(reading)
    reading.close()
    assert cancelled.is_set()
    assert threading.active_count() == before


class Calls:
    """Calls that a test lets end, one by one; who was begun, in the order of their beginning."""

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
        """Whether so many begin, and no more, as far as can be seen."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self.begun) == amount, 10) and (
                not self._changed.wait_for(lambda: len(self.begun) > amount, 0.02)
            )


def test_results_come_in_order_whatever_ends_first() -> None:
    """Four are under way at once, and a fifth begins when one was taken."""
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
    """Its answer may be so large that several would not fit into the memory."""
    calls, results, client_ = Calls(3), list[int](), client(4)
    reader = threading.Thread(target=lambda: results.extend(in_order(client_, calls)))
    reader.start()
    assert calls.have_begun(1)
    calls.end(0, 1, 2)
    reader.join()
    assert results == [0, 1, 2]


def test_fewer_are_begun_when_the_client_slows_down() -> None:
    """Those that are under way come to their end first."""
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
    """It ends the back-offs of the others, and leaves no thread."""
    before, closing = threading.active_count(), client(parallel)

    def fail() -> int:
        raise SourceError("the third")

    def back_off() -> int:
        return int(closing.closed.wait(10))

    results = in_order(closing, [lambda: 1, lambda: 2, fail, back_off, back_off, lambda: 6])
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(SourceError, match="the third"):
        next(results)
    assert closing.closed.is_set()
    assert threading.active_count() == before


def test_a_limit_stops_all_requests_and_halves_their_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Four that are told to wait do so together, and nothing is sent meanwhile."""
    together, resting = threading.Barrier(4), threading.Event()
    waited, disturbed, limited = list[float](), list[int](), set[int]()

    def exchange(_client: RestClient, _what: str, _method: str, url: str, _c: Any) -> Any:
        number, answer = int(url[-1]), requests.Response()
        if resting.is_set():
            disturbed.append(number)
        answer.status_code, answer._content = 200, b"%d" % number
        if 1 <= number <= 4 and number not in limited:
            limited.add(number)
            together.wait(10)
            answer.status_code, answer.headers["Retry-After"] = 429, "30"
        return answer

    def wait(seconds: float) -> bool:
        resting.set()
        waited.append(seconds)
        threading.Event().wait(0.02)  # for those who would not wait
        resting.clear()
        return False

    monkeypatch.setattr(RestClient, "_exchange", exchange)
    monkeypatch.setattr(RestClient, "_sleep", _SLEEP)
    source = client(4)
    monkeypatch.setattr(source.closed, "wait", wait)
    calls = [partial(source.get, f"/{number}") for number in range(10)]
    assert list(in_order(source, calls)) == list(range(10))
    assert disturbed == []
    assert waited == pytest.approx([30] * 4, abs=1)
    assert source.parallel == 2


def test_a_large_answer_ends_parallel_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several of its size would take too much memory."""
    monkeypatch.setattr("shared.rest._LARGE_ANSWER", 6)
    source = client(4)
    with responses.RequestsMock() as server:
        server.get("https://api.example.com/a", body="123456", content_type="application/json")
        server.get("https://api.example.com/a", body="1234567", content_type="application/json")
        source.get("/a")
        assert source.parallel == 4
        source.get("/a")
        assert source.parallel == 1


def test_who_stops_early_can_go_on_with_the_client() -> None:
    """What was begun comes to its end; nothing more is, and no thread is left."""
    before, calls, going_on = threading.active_count(), Calls(9), client(3)
    calls.end(*range(9))
    results = cast("Generator[int]", in_order(going_on, calls))
    next(results)
    results.close()
    assert len(calls.begun) <= 4
    assert not going_on.closed.is_set()
    assert threading.active_count() == before


@pytest.mark.parametrize("announced", [None, 0, -3, 1, 2, 5, 10**30])
@pytest.mark.parametrize("wanted", [1, 2, 7])
def test_numbered_pages_go_on_beyond_those_announced(announced: int | None, wanted: int) -> None:
    """A list may have grown: who takes the pages decides which one is the last."""
    asked: list[int] = []

    def fetch(number: int) -> Page:
        asked.append(number)
        return Page([], number, announced)

    pages = numbered(client(4), fetch)
    assert [page.number for page in islice(pages, wanted)] == list(range(1, wanted + 1))
    cast("Generator[Page]", pages).close()
    # No page is asked for that neither was announced nor wanted.
    assert max(asked) <= max(wanted, announced or 1)


@pytest.mark.parametrize(
    ("total", "size", "last"), [(0, 0, 2), (2, 3, 2), (9, 3, 3), (10, 3, 3), (7, 1, 6), (5, 0, 5)]
)
def test_the_number_of_records_tells_that_of_pages(total: int, size: int, last: int) -> None:
    """As many as are full are asked for at once: what is behind them may be none."""
    asked: list[int] = []

    def fetch(number: int) -> Page:
        asked.append(number)
        return Page([None] * size, number, None, total)

    pages = numbered(client(4), fetch)
    assert [page.number for page in islice(pages, 2)] == [1, 2]
    cast("Generator[Page]", pages).close()
    assert sorted(asked) == list(range(1, last + 1))


def test_pages_are_read_by_one_thread() -> None:
    """A generator cannot be run by two."""
    threads = set[int]()

    def pages() -> Iterator[int]:
        for number in range(9):
            threads.add(threading.get_ident())
            yield number

    for _ in read_ahead(pages(), lambda: None):
        threading.Event().wait(0.001)
    assert len(threads) == 1
