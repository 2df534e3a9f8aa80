"""A source in a process of its own, which can be asked for what it knows."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from .measure import PROCESSES

Ask = Callable[[str], Any]


@contextmanager
def server_process(serve: Callable[..., None], *arguments: Any) -> Iterator[Ask]:
    """Runs ``serve(pipe, *arguments)`` in a new process, and ends it in the end. The function that
    is yielded sends a question through the pipe, and returns the response."""
    here, there = PROCESSES.Pipe()
    process = PROCESSES.Process(target=serve, args=(there, *arguments), daemon=True)
    process.start()
    there.close()  # so that its end is noticed here

    def ask(question: str) -> Any:
        here.send(question)
        return here.recv()

    try:
        yield ask
    finally:
        here.close()
        process.join()


def respond(pipe: Connection, response: Callable[[str], Any]) -> None:
    """In the server's process: sends the response to each question, until the other end closes."""
    with contextlib.suppress(EOFError):
        while True:
            pipe.send(response(pipe.recv()))
