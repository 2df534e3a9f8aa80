"""A connection to the server that is opened when it is needed, and again after it was lost."""

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

from fivetran_connector_sdk import Logging

from shared import rest
from shared.errors import SourceError, TransientError
from shared.network import Closed
from shared.rest import ENDED, Retry

from .errors import (
    NO_SNAPSHOT,
    NO_SNAPSHOT_OF_TABLE,
    Conflict,
    QueryTimeout,
    ServerUnreachable,
    SnapshotRefused,
    StatementError,
    UndecodableRow,
    explain,
)
from .row_reader import RowReader

LARGEST_BATCH = 8 * 1024 * 1024  # bytes
_PROGRESS = 5_000  # rows; a timeout after so many is a first one again
_PROBE = 10.0  # seconds for the response to a query that needs no table
_NOTICE = 10  # the highest severity of a message that is no error
_BRIEF = Retry(base_delay=5.0)  # after a conflict, or a fault that came after much progress
_MOST_FAILURES = 3  # tables in a row that fail by transient errors
Values = tuple[Any, ...]
_Collected = TypeVar("_Collected")


class _Health:
    """Judges from the failures of a session whether there is any use in going on."""

    def __init__(self) -> None:
        self.unreachable = False  # the server does not respond, or with nothing but errors
        self._failures = 0  # tables in a row whose retries were used up
        self._timeouts = self._rows = 0  # timeouts in a row, and the rows read since the last one

    def begin(self) -> None:
        """Something else is tried from now on."""
        self._timeouts = 0

    def read(self, rows: int) -> None:
        self._rows += rows

    def failed(self, error: TransientError) -> None:
        self.unreachable = isinstance(error, ServerUnreachable)
        if isinstance(error, QueryTimeout):
            self._timeouts = 1 if self._rows >= _PROGRESS else self._timeouts + 1
            self._rows = 0

    @property
    def timed_out_again(self) -> bool:
        return self._timeouts > 1

    def gave_up(self, *, transient: bool) -> None:
        """Retries did not help, or (not ``transient``) could not."""
        self._failures = self._failures + 1 if transient else 0
        self.unreachable = self.unreachable or self._failures >= _MOST_FAILURES

    def recovered(self) -> None:
        self._failures = 0


class Session:
    """Statements over one connection. ``open_connection`` makes it, with a read timeout in seconds
    (None: that of the settings), and raises SourceError.

    ``snapshots``: reads under SNAPSHOT isolation, so that writers do not block them; not those of
    a table that does not allow it (see ``begin_table``).
    ``workers``: how many sessions there are, which share the memory that batches may take.
    ``closed``, when it is set, ends what all sessions of the login wait for; ``open_connection``
    does so with its connections.
    After an error, or a result that was not read to its end, the connection is closed: the driver
    cannot tell what of a response is still on its way.
    """

    def __init__(
        self,
        open_connection: Callable[[float | None], Any],
        retry: Retry,
        *,
        snapshots: bool = False,
        workers: int = 1,
        closed: Closed | None = None,
    ) -> None:
        self._open, self._retry = open_connection, retry
        self.closed = closed or Closed()
        self._connection: Any = None
        self._allowed, self._suspended, self._table = snapshots, False, ""
        self.largest_batch = LARGEST_BATCH // workers
        self.waited = 0.0  # seconds, before retries
        self._health = _Health()

    def clone(self, *, snapshots: bool, workers: int) -> "Session":
        """A session of the same login, over a connection of its own."""
        return Session(
            self._open, self._retry, snapshots=snapshots, workers=workers, closed=self.closed
        )

    @property
    def unreachable(self) -> bool:
        """Whether the last failure was one after which there is no use in going on."""
        return self._health.unreachable

    @property
    def snapshots(self) -> bool:
        """Whether reads are under SNAPSHOT isolation."""
        return self._allowed and not self._suspended

    def begin_table(self, label: str) -> None:
        """The table ``label`` is read from now on: SNAPSHOT isolation is used again if only the
        table before did not allow it."""
        self._table = label
        if self._suspended:
            self._suspended = False
            self.close()  # its isolation is the other one

    def close(self) -> None:
        """Ends the connection; the next statement opens another one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            try:
                connection.close()
            except Exception as error:  # it may be lost already, and in TLS that is an error
                Logging.debug(f"The connection did not end well: {type(error).__name__}")

    def with_retries(self, doing: str, once: Callable[[], Any]) -> Any:
        """The result of ``once``, which is called again after a TransientError; after a timeout
        only once.

        A Conflict is retried sooner than what may take a minute, such as a fail-over.
        Raises SourceError. ``unreachable`` tells then whether there is any use in going on.
        """
        self._health.begin()
        transient, failures = False, 0

        def attempt() -> Any:
            nonlocal transient, failures
            self._health.unreachable = transient = False
            try:
                return self._without_snapshot(once)
            except TransientError as error:
                self._check_closed()
                transient = True
                if isinstance(error, Conflict):
                    error.wait = _BRIEF.delay(failures)
                failures += 1
                self._check_health(error)
                raise

        try:
            return self._retry.run(
                doing, attempt, self._sleep, f"{self._table}: " if self._table else ""
            )
        except SourceError:
            self._health.gave_up(transient=transient)
            raise

    def _without_snapshot(self, once: Callable[[], Any]) -> Any:
        """The result of ``once``, which is called again if SNAPSHOT isolation is refused."""
        try:
            return once()
        except SnapshotRefused:
            return once()

    def _check_health(self, error: TransientError) -> None:
        """Raises SourceError after a second timeout in a row."""
        self._health.failed(error)
        if self._health.timed_out_again:
            self._health.unreachable = not self._responds()
            limit = "query_timeout_seconds is what it may take"
            raise SourceError(f"{error}, twice; {limit}") from None

    def succeeded(self) -> None:
        """A table is complete: the failures of those before it do not count any more."""
        self._health.recovered()

    def _responds(self) -> bool:
        """Whether the server responds at all, within a few seconds."""
        self.close()
        try:
            self._connection = self._open(_PROBE)
            self._run("SELECT 1 AS one", None).fetchall()
        except Exception:
            return False
        finally:
            self.close()
        return True

    def pause(self) -> None:
        """Waits as before the first retry after a conflict."""
        self._sleep(_BRIEF.delay(0))

    def _sleep(self, seconds: float) -> None:
        rest.pause(self.closed, seconds)
        self.waited += seconds
        self._check_closed()

    def _check_closed(self) -> None:
        """Raises SourceError when the sync has ended."""
        if self.closed.is_set():
            raise SourceError(ENDED) from None

    def rows(self, sql: str, parameters: Mapping[str, str] | None = None) -> list[Values]:
        """All rows of a statement whose result is small, without retries."""
        return [row for batch in self.stream(sql, parameters) for row in batch]

    def each(self, sql: str) -> Iterator[Values]:
        """The rows of a statement as they arrive, without retries."""
        for batch in self.stream(sql):
            yield from batch

    def optional(self, doing: str, sql: str) -> list[Values] | None:
        """All rows of a view, None where the server does not have it, or does not show it.

        Raises SourceError, also for a login that is refused: a retry could lock it.
        """
        return self.optionally(doing, sql, list)

    def optionally(
        self,
        doing: str,
        sql: str,
        collect: Callable[[Iterator[Values]], _Collected],
        *,
        quiet: bool = False,
    ) -> _Collected | None:
        """The same, but what ``collect`` makes of the rows as they arrive. ``quiet``: nothing is
        logged where there are none."""

        def ask() -> _Collected | None:
            try:
                return collect(self.each(sql))
            except (StatementError, UndecodableRow) as error:
                if self.unreachable:  # it was the login
                    raise
                if not quiet:
                    Logging.info(f"The sync goes on without {doing}: {error}")
                return None

        collected: _Collected | None = self.with_retries(doing, ask)
        return collected

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Statements in it see the same rows, if SNAPSHOT isolation is used."""
        self._execute("BEGIN TRANSACTION", None)
        try:
            yield
            self._run("COMMIT TRANSACTION", None)
        except BaseException:
            self.close()
            raise

    def stream(
        self,
        sql: str,
        parameters: Mapping[str, str] | None = None,
        rows: int = 1000,
        size_of: Callable[[Values], int] | None = None,
    ) -> Generator[list[Values], None, None]:
        """The result in batches of ``rows`` rows or, by ``size_of``, ``largest_batch`` bytes.

        In ``sql`` a parameter is written ``%(name)s`` and a per cent sign ``%%``. What came before
        an error is yielded first. Raises any SourceError of ``errors``.
        """
        failure, done = None, False
        try:
            cursor = self._execute(sql, parameters)
            reader = RowReader(cursor)
            while not done and failure is None:
                batch: list[Values] = []
                try:
                    done = self._fetch(cursor, reader, batch, rows, size_of)
                except Exception as error:
                    failure = self._explain(error, "reading")
                if batch:
                    self._health.read(len(batch))
                    yield batch
        finally:
            if not done:
                self.close()
        if failure is not None:
            raise failure

    def _fetch(
        self,
        cursor: Any,
        reader: RowReader,
        batch: list[Values],
        rows: int,
        size_of: Callable[[Values], int] | None,
    ) -> bool:
        """Adds the next rows to ``batch``, as ``stream`` describes it; those before an error, too.
        Returns whether the result was read to its end."""
        size = 0
        while len(batch) < rows and size < self.largest_batch:
            found = reader.fetch(rows - len(batch))
            if not found:
                _read_to_the_end(cursor)
                return True
            batch += found
            if size_of:
                size += sum(map(size_of, found))
        return False

    def _execute(self, sql: str, parameters: Mapping[str, str] | None) -> Any:
        if self._connection is None:
            try:
                self._connection = self._open(None)
            except TransientError:
                raise
            except SourceError:
                self._health.unreachable = True  # a retry could lock the login
                raise
            if self.snapshots:
                try:
                    self._run("SET TRANSACTION ISOLATION LEVEL SNAPSHOT", None)
                except StatementError as refusal:
                    Logging.warning(
                        f"{refusal}: from now on reads are READ COMMITTED, not SNAPSHOT"
                    )
                    self._allowed = False
                    return self._execute(sql, parameters)
        return self._run(sql, parameters)

    def _run(self, sql: str, parameters: Mapping[str, str] | None) -> Any:
        try:
            cursor = self._connection.cursor()
            if parameters:
                cursor.execute(sql, parameters)
            else:
                cursor.execute(sql % ())  # the driver formats only where there are parameters
        except Exception as error:
            failure = self._explain(error, "a statement")
            self.close()
            raise failure from None
        return cursor

    def _explain(self, error: Exception, doing: str) -> SourceError:
        failure = explain(error, doing)
        if not (self.snapshots and isinstance(failure, StatementError)):
            return failure
        if failure.number in NO_SNAPSHOT:
            Logging.warning(f"{failure}: from now on reads are READ COMMITTED, not SNAPSHOT")
            self._allowed = False
        elif failure.number in NO_SNAPSHOT_OF_TABLE:
            Logging.warning(
                f"{self._table}: {failure}: from now on reads are READ COMMITTED, not SNAPSHOT, "
                "of this table alone"
            )
            self._suspended = True
        else:
            return failure
        return SnapshotRefused(f"{doing}: SNAPSHOT isolation is refused")


def _read_to_the_end(cursor: Any) -> None:
    """Raises the error that may follow the last row: the driver would leave it unread."""
    while cursor.nextset():
        pass
    for _, message in cursor.messages:
        if message.severity > _NOTICE:
            raise message
