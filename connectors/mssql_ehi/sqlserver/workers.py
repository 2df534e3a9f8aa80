"""Several tables synced at once, each over a connection of its own.

What the workers hand to the SDK goes through one thread, so that no checkpoint falls between two
halves of a step.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from shared.errors import SourceUnavailable
from shared.network import LONGEST_UNINTERRUPTED

T = TypeVar("T")
_Step = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...]]


class Workers:
    """``count`` threads that read; with one, there is no thread but the caller's. ``closed`` is
    set when the caller is interrupted: it must end what the threads wait for."""

    def __init__(self, count: int, closed: threading.Event | None = None) -> None:
        self.count, self._closed = count, closed or threading.Event()
        self._steps: queue.SimpleQueue[_Step | None] = queue.SimpleQueue()
        self._pending: set[Future[Any]] = set()  # of the steps that are not done
        self._lock, self._stopped, self._ended = threading.Lock(), False, False

    def in_turn(self, step: Callable[..., Any], *arguments: Any) -> Any:
        """What ``step`` returns or raises, called in the thread that called ``run``."""
        if self.count == 1:
            return step(*arguments)
        done: Future[Any] = Future()
        with self._lock:
            if self._ended:
                raise RuntimeError("the sync has ended")
            self._pending.add(done)
            self._steps.put((done, step, arguments))
        try:
            return done.result()
        finally:
            self._pending.discard(done)

    def run(self, tasks: Iterable[T], work: Callable[[int, T], bool]) -> None:
        """Calls ``work`` with the number of a worker and a task, until one call returns False or
        all tasks are done. Raises what a worker raises, after all have ended."""
        if self.count > 1:
            self._run_threads(iter(tasks), work)
            return
        for task in tasks:
            if not work(0, task):
                break

    def _run_threads(self, tasks: Iterator[T], work: Callable[[int, T], bool]) -> None:
        with ThreadPoolExecutor(self.count, thread_name_prefix="worker") as pool:
            try:
                workers = [
                    pool.submit(self._work_on, number, tasks, work) for number in range(self.count)
                ]
                for _ in workers:
                    self._take_steps()
            except BaseException:  # such as Ctrl-C
                self._closed.set()
                raise
            finally:
                self._end()
        for worker in workers:
            worker.result()

    def _work_on(self, number: int, tasks: Iterator[T], work: Callable[[int, T], bool]) -> None:
        """One worker, which takes a task after the other."""
        try:
            while not self._stopped:
                with self._lock:
                    task = next(tasks, None)
                if task is None:
                    break
                if not work(number, task):
                    self._stopped = True
        except BaseException:
            self._stopped = True
            raise
        finally:
            self._steps.put(None)

    def _take_steps(self) -> None:
        """Takes the steps until a worker has ended."""
        while waiting := self._next_step():
            done, step, arguments = waiting
            try:
                done.set_result(step(*arguments))
            except BaseException as error:
                done.set_exception(error)  # the worker raises it
                # Ctrl-C, or what no checkpoint of another table may follow: it ends all.
                if not isinstance(error, Exception) or isinstance(error, SourceUnavailable):
                    raise

    def _next_step(self) -> _Step | None:
        """The next step, None if a worker has ended. A signal that comes right before a wait does
        not end it, so none is long."""
        while True:
            with suppress(queue.Empty):
                return self._steps.get(timeout=LONGEST_UNINTERRUPTED)

    def _end(self) -> None:
        """Cancels the steps that are not done: no worker waits for a turn that does not come. An
        interrupt may have come when one was taken, and not begun."""
        with self._lock:
            self._stopped = self._ended = True
            for step in [*self._pending]:
                step.cancel()
