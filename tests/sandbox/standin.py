"""What every stand-in of a source offers to the battery, the demo and the benchmarks."""

from types import TracebackType
from typing import Any, ClassVar

from typing_extensions import Self


class StandIn:
    """A source's double on the loopback address; a context manager.

    ``requests`` holds what was asked for. ``addresses`` are the optional keys without which the
    connector would not find it, ``sync_times`` the columns with a sync's time,
    ``wider_in_template`` the keys for which configuration.json has more than the default, and
    ``tables`` those that the connector's README lists (empty: all).
    """

    name: ClassVar[str]
    addresses: ClassVar[tuple[str, ...]]
    sync_times: ClassVar[tuple[str, ...]] = ()
    wider_in_template: ClassVar[tuple[str, ...]] = ()
    tables: ClassVar[tuple[str, ...]] = ()
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

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
