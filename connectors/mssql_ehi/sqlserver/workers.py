"""Several tables read at once, each over a connection of its own. What they hand over goes through
one thread, so that no checkpoint falls between two halves of a step."""

import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
_Step = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Workers:
    """``count`` threads that read; with one, there is no thread but the caller's."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._steps: queue.SimpleQueue[_Step | None] = queue.SimpleQueue()
        self._lock, self._stopped, self._ended = threading.Lock(), False, False

    def in_turn(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """What ``step`` returns or raises, called in the thread that called ``run``."""
        if self.count == 1:
            return step(*arguments)
        done: Future[Any] = Future()
        with self._lock:
            if self._ended:
                raise RuntimeError("the sync has ended")
            self._steps.put((done, step, arguments))
        return done.result()

    def run(self, work: Iterable[T], read: Callable[[int, T], bool]) -> None:
        """Calls ``read`` with a reader's number and a piece of work, until one call returns False
        or all work is done. Raises what a reader raises, after all have ended."""
        pieces = iter(work)
        if self.count == 1:
            for piece in pieces:
                if not read(0, piece):
                    break
            return

        def read_on(number: int) -> None:
            try:
                while not self._stopped:
                    with self._lock:
                        piece = next(pieces, None)
                    if piece is None:
                        break
                    if not read(number, piece):
                        self._stopped = True
            except BaseException:
                self._stopped = True
                raise
            finally:
                self._steps.put(None)

        with ThreadPoolExecutor(self.count, thread_name_prefix="reader") as pool:
            try:
                workers = [pool.submit(read_on, number) for number in range(self.count)]
                for _ in workers:
                    self._take_steps()
            finally:
                self._end()
        for reader in workers:
            reader.result()

    def _take_steps(self) -> None:
        """Takes the steps until a reader has ended."""
        while waiting := self._steps.get():
            done, step, arguments = waiting
            try:
                done.set_result(step(*arguments))
            except BaseException as error:
                done.set_exception(error)  # it is the reader's
                if not isinstance(error, Exception):  # such as Ctrl-C: ours, too
                    raise

    def _end(self) -> None:
        """Lets no reader wait for a turn that will not come."""
        with self._lock:
            self._stopped = self._ended = True
            while not self._steps.empty():
                if waiting := self._steps.get():
                    waiting[0].cancel()
