"""What every simulator of a source offers to the tests, the demo and the benchmarks."""

import random
from collections.abc import Callable
from types import TracebackType
from typing import Any, ClassVar

from typing_extensions import Self

PAGE = 2  # records: the smallest page that Simulator.small_pages and .limits make


class Simulator:
    """A simulated source on the loopback address; a context manager.

    ``requests`` holds the requests so far. ``addresses`` are the optional keys that lead the
    connector to this simulator, ``sync_times`` the columns with the time of a sync,
    ``wider_in_template`` the keys for which configuration.json has more than the default, and
    ``tables`` those that the connector's README lists (empty: all). With ``small_pages`` in the
    configuration, or by ``limits``, a page holds PAGE records.

    For generated schedules: ``limits`` are constants of the connector, by dotted name, with values
    so small that little data takes every path. ``troubles`` are transient faults of a request,
    ``refusals`` final ones (``lasting``: those that hold for all requests from then on),
    ``hostilities`` responses that no source should send, ``conditions`` faults that hold for all
    requests of a sync. ``one_list``: whether all tables come from one list, so that either all or
    none of them fail.

    ``lists_deletes``: the tables of which the source tells the deletes, in a list of their own or
    among the changes. Every simulator says so, since of these tables deletes must arrive without a
    full refresh, and ``change_something`` deletes a record of each.
    """

    name: ClassVar[str]
    addresses: ClassVar[tuple[str, ...]]
    sync_times: ClassVar[tuple[str, ...]] = ()
    wider_in_template: ClassVar[tuple[str, ...]] = ()
    tables: ClassVar[tuple[str, ...]] = ()
    small_pages: ClassVar[dict[str, str]] = {}
    limits: ClassVar[dict[str, int]] = {}
    troubles: ClassVar[tuple[str, ...]]
    refusals: ClassVar[tuple[str, ...]]
    lasting: ClassVar[tuple[str, ...]] = ("down",)
    hostilities: ClassVar[tuple[str, ...]]
    conditions: ClassVar[tuple[str, ...]] = ()
    one_list: ClassVar[bool] = False
    lists_deletes: ClassVar[tuple[str, ...]]
    requests: list[Any]
    url = ""

    def start(self, port: int = 0) -> Self:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def configuration(self, **changes: str) -> dict[str, str]:
        """A configuration with which the connector reads this simulator."""
        raise NotImplementedError

    def describe(self, request: Any) -> str | None:
        """One of ``requests`` in a line; None while it has no response."""
        raise NotImplementedError

    def expected(self) -> dict[str, list[dict[str, Any]]]:
        """The rows, by table, of a destination that equals the source: every declared column but
        ``additional_fields`` and the time of the sync. They are derived from what is known of the
        source, not from the connector."""
        raise NotImplementedError

    def change_something(self) -> None:
        """Inserts, changes and deletes a few records, as on a usual day."""
        raise NotImplementedError

    def empty(self) -> None:
        """Removes all records."""
        raise NotImplementedError

    def fill(self, count: int) -> None:
        """Adds or removes records, so that each paged list has ``count``."""
        raise NotImplementedError

    def resent(self) -> dict[str, int]:
        """How many rows of each table another sync may send though nothing changes from now on:
        rows that the source does not show to be unchanged, and those of a look-back."""
        raise NotImplementedError

    def place(self, text: str, more: Any) -> list[str]:
        """Puts ``text`` into a text column of each table that has one and, where records are JSON,
        ``more`` into a field "unheard_of". Returns the tables whose records got ``more``."""
        raise NotImplementedError

    def be_odd(self) -> None:
        """From now on values come in unusual types, as far as the source can do that. Their
        meaning stays, or ``expected`` includes the change."""
        raise NotImplementedError

    def spoil(self) -> None:
        """From now on no record can be stored."""
        raise NotImplementedError

    def secrets(self) -> set[str]:
        """Texts that must not be shown anywhere: credentials, and a value of every record."""
        raise NotImplementedError

    # For generated schedules

    @classmethod
    def small(cls, draw: random.Random) -> Self:
        """A simulator with few records, in a drawn form; ``configuration`` fits it."""
        raise NotImplementedError

    def mutate(self, draw: random.Random, *, deletes: bool = True) -> None:
        """One insert, change or, if ``deletes``, delete that the connector must notice. At least
        one record of each list stays."""
        raise NotImplementedError

    def restore(self, draw: random.Random) -> bool:
        """One record becomes what it was before a change, and tells the time of that: a backup was
        restored. Only a full refresh finds it. Returns whether there was such a record."""
        return False

    def trouble(self, kind: str, number: int) -> None:
        """Request ``number`` (1: the next) fails with one of ``troubles`` or ``refusals``."""
        raise NotImplementedError

    def typed(self, kind: str) -> None:
        """The next request that a sync cannot do without fails, for someone who looks at the log
        of the sync."""
        self.trouble(kind, 1)

    def be_hostile(self, kind: str, draw: random.Random) -> None:
        """One response, which is drawn, gets one of ``hostilities``. ``configuration`` may depend
        on it."""
        raise NotImplementedError

    def be(self, condition: str, number: int) -> None:
        """One of ``conditions`` holds from now on, until ``calm``; ``number`` tells how."""
        raise NotImplementedError

    def set_back(self) -> None:
        """The next sync is given an earlier state than the last one, or settings that are not its
        own: nobody may know of rows that were delivered then, and deleted."""

    def at_request(self, number: int, act: Callable[[], object]) -> None:
        """Calls ``act`` when request ``number`` arrives, before its response."""
        raise NotImplementedError

    def calm(self) -> None:
        """Removes all faults and conditions, and closes connections."""
        raise NotImplementedError

    def set_clock(self, seconds: float) -> None:
        """Moves the clock of the source, where it has one, to so many seconds ahead."""

    def end_credentials(self) -> None:
        """Invalidates the credentials that the client gets beside its configuration, if there are
        any."""

    def repair(self, output: str) -> bool:
        """Does what the error in ``output`` asks the user to do. Returns whether it asked for
        anything."""
        return False

    def remembered(self) -> dict[str, list[dict[str, Any]]]:
        """Rows, by table, that were sent once and are no longer at the source: a destination keeps
        them, except rows that were lost in a crash."""
        return {}

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
