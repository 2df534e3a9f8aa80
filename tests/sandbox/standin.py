"""What every stand-in of a source offers to the battery, the demo and the benchmarks."""

import random
from collections.abc import Callable
from types import TracebackType
from typing import Any, ClassVar

from typing_extensions import Self


class StandIn:
    """A source's double on the loopback address; a context manager.

    ``requests`` holds what was asked for. ``addresses`` are the optional keys without which the
    connector would not find it, ``sync_times`` the columns with a sync's time,
    ``wider_in_template`` the keys for which configuration.json has more than the default, and
    ``tables`` those that the connector's README lists (empty: all).

    What generated schedules need: ``limits`` are constants of the connector, by dotted name, that
    they make so small that little data takes every path; ``troubles`` what can go wrong with a
    request and passes, ``refusals`` what does not pass, ``hostilities`` what no source should do.
    """

    name: ClassVar[str]
    addresses: ClassVar[tuple[str, ...]]
    sync_times: ClassVar[tuple[str, ...]] = ()
    wider_in_template: ClassVar[tuple[str, ...]] = ()
    tables: ClassVar[tuple[str, ...]] = ()
    limits: ClassVar[dict[str, int]] = {}
    troubles: ClassVar[tuple[str, ...]]
    refusals: ClassVar[tuple[str, ...]]
    hostilities: ClassVar[tuple[str, ...]]
    requests: list[Any]
    url = ""

    def start(self, port: int = 0) -> Self:
        raise NotImplementedError

    def stop(self) -> None:
        raise NotImplementedError

    def configuration(self, **changes: str) -> dict[str, str]:
        """A configuration with which the connector reads this stand-in."""
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
        """An answer, which one is drawn, is not what it should be: one of ``hostilities``.
        ``configuration`` knows of it."""
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
