"""What every simulator of a source offers to the tests, the demo and the benchmarks."""

import random
from collections.abc import Callable
from types import TracebackType
from typing import Any, ClassVar

from typing_extensions import Self

PAGE = 2  # records: the smallest page that Simulator.small_pages and .limits make


class Simulator:
    """A source's double on the loopback address; a context manager.

    ``requests`` holds what was asked for. ``addresses`` are the optional keys without which the
    connector would not find it, ``sync_times`` the columns with a sync's time,
    ``wider_in_template`` the keys for which configuration.json has more than the default, and
    ``tables`` those that the connector's README lists (empty: all). With ``small_pages`` in the
    configuration, or by ``limits``, a page holds PAGE records.

    What generated schedules need: ``limits`` are constants of the connector, by dotted name, that
    they make so small that little data takes every path; ``troubles`` what can go wrong with a
    request and passes, ``refusals`` what does not pass, ``hostilities`` what no source should do,
    ``conditions`` what may hold for all requests of a sync. ``one_list``: whether all tables come
    from one list, so that all of them fail, or none. ``lists_deletes``: the source tells which
    records were deleted.
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
    hostilities: ClassVar[tuple[str, ...]]
    conditions: ClassVar[tuple[str, ...]] = ()
    one_list: ClassVar[bool] = False
    lists_deletes: ClassVar[bool] = False
    requests: list[Any]
    url = ""

    def start(self, port: int = 0) -> Self:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def configuration(self, **changes: str) -> dict[str, str]:
        """A configuration with which the connector reads this simulator."""
        raise NotImplementedError

    def expected(self) -> dict[str, list[dict[str, Any]]]:
        """The rows, by table, of a destination that equals the source: every declared column but
        ``additional_fields`` and the time of the sync. Written from what is known of the source,
        independently of the connector."""
        raise NotImplementedError

    def change_something(self) -> None:
        """Inserts, changes and deletes a few records, as a day at the source would."""
        raise NotImplementedError

    def empty(self) -> None:
        """Takes all records away."""
        raise NotImplementedError

    def fill(self, count: int) -> None:
        """Adds or takes away records, so that each list that comes in pages has ``count``."""
        raise NotImplementedError

    def resent(self) -> dict[str, int]:
        """How many rows of each table another sync has to send, at most, though nothing changes
        from now on: those of which the source does not tell that they are the same, and those of
        a look-back."""
        raise NotImplementedError

    def place(self, text: str, more: Any) -> list[str]:
        """Puts ``text`` into a column of text of each table that has one for any text and, where
        records are JSON, ``more`` into a field "unheard_of". Returns the tables of the latter."""
        raise NotImplementedError

    def be_odd(self) -> None:
        """From now on values come in other types than usual, as far as the source can do that;
        they mean what they meant, or ``expected`` knows them."""
        raise NotImplementedError

    def spoil(self) -> None:
        """From now on no record is one that can be stored."""
        raise NotImplementedError

    def secrets(self) -> set[str]:
        """What must be seen nowhere: credentials, and a value of every record."""
        raise NotImplementedError

    # For generated schedules

    @classmethod
    def small(cls, draw: random.Random) -> Self:
        """One with few records, in a form that is drawn; ``configuration`` agrees with it."""
        raise NotImplementedError

    def mutate(self, draw: random.Random, *, deletes: bool = True) -> None:
        """One insert, change or, with ``deletes``, delete that the connector must notice; of each
        list at least one record is left."""
        raise NotImplementedError

    def trouble(self, kind: str, number: int) -> None:
        """Request ``number`` (1: the next) goes wrong: one of ``troubles`` or ``refusals``."""
        raise NotImplementedError

    def be_hostile(self, kind: str, draw: random.Random) -> None:
        """A response, which one is drawn, is not what it should be: one of ``hostilities``.
        ``configuration`` knows of it."""
        raise NotImplementedError

    def be(self, condition: str, number: int) -> None:
        """One of ``conditions`` holds from now on, until ``calm``; ``number`` tells how."""
        raise NotImplementedError

    def at_request(self, number: int, act: Callable[[], object]) -> None:
        """Calls ``act`` when request ``number`` arrives, before it is answered."""
        raise NotImplementedError

    def calm(self) -> None:
        """No more troubles, and nobody is connected."""
        raise NotImplementedError

    def set_clock(self, seconds: float) -> None:
        """The clock went ahead by so many seconds: for sources with a clock of their own."""

    def end_credentials(self) -> None:
        """What the client uses beside its configuration ends now, if there is such a thing."""

    def repair(self, output: str) -> bool:
        """Does what the error in ``output`` asks the user for; whether it asked for anything."""
        return False

    def remembered(self) -> dict[str, list[dict[str, Any]]]:
        """Rows, by table, that were sent once and are no longer at the source: a destination keeps
        them, except those that were lost in a crash."""
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
