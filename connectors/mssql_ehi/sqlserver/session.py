"""A connection to the server that is opened when it is needed, and again after it was lost."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from fivetran_connector_sdk import Logging

from shared.errors import SourceError, TransientError
from shared.rest import Retry

from .errors import (
    NO_SNAPSHOT,
    NO_SNAPSHOT_OF_TABLE,
    Conflict,
    QueryTimeout,
    ServerUnreachable,
    StatementError,
    UndecodableRow,
    Unversioned,
    explain,
)
from .row_reader import RowReader

LARGEST_BATCH = 8 * 1024 * 1024  # bytes
_PROGRESS = 5_000  # rows; a silence after so many is a first one again
_PROBE = 10.0  # seconds for the response to a question that needs no table
_NOTICE = 10  # the highest severity of a message that is no error
_BRIEF = Retry(base_delay=5.0)  # after a conflict, or a fault that came after much progress
_PATIENCE = 3  # tables that fail one after the other by faults that did not pass
Values = tuple[Any, ...]


class Session:
    """Statements over one connection. ``open_connection`` makes it, whose silence may last for
    the given seconds (None: as the settings say), and raises SourceError.

    ``snapshots``: reads under SNAPSHOT isolation, so that what others write holds nobody up; not
    those of a table that does not allow it (see ``begin_table``).
    ``workers``: how many sessions there are, which share the memory that batches may take.
    After an error, or a result that was not read to its end, the connection is thrown away: the
    driver cannot tell what of a response is still on its way.
    """

    def __init__(
        self,
        open_connection: Callable[[float | None], Any],
        retry: Retry,
        *,
        snapshots: bool = False,
        workers: int = 1,
    ) -> None:
        self._open, self._retry = open_connection, retry
        self._connection: Any = None
        self._allowed, self._suspended, self._table = snapshots, False, ""
        self.largest_batch = LARGEST_BATCH // workers
        self._sleep: Callable[[float], object] = time.sleep
        self.unreachable = False  # nobody answers, or with nothing but faults: no use to go on
        self._worn_out = 0  # tables in a row whose repeats were used up
        self._silences = self._rows_since = 0  # silences, and the rows read since the last one

    def clone(self, *, snapshots: bool, workers: int) -> "Session":
        """A session of the same login, over a connection of its own."""
        return Session(self._open, self._retry, snapshots=snapshots, workers=workers)

    @property
    def snapshots(self) -> bool:
        """Whether reads are under SNAPSHOT isolation."""
        return self._allowed and not self._suspended

    def begin_table(self, label: str) -> None:
        """The table ``label`` is read from now on: SNAPSHOT isolation is used again if the one
        before it alone did not allow it."""
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
        """The result of ``once``, repeated after a TransientError; after silence once only.

        A Conflict is repeated sooner than what may take a minute, such as a fail-over.
        Raises SourceError. ``gone`` tells then whether there is any use in going on.
        """
        healing, self._silences, tries = False, 0, 0

        def attempt() -> Any:
            nonlocal healing, tries
            self.unreachable = healing = False
            try:
                try:
                    return once()
                except Unversioned:
                    return once()
            except TransientError as error:
                healing, self.unreachable = True, isinstance(error, ServerUnreachable)
                if isinstance(error, Conflict):
                    error.wait = _BRIEF.delay(tries)
                tries += 1
                if isinstance(error, QueryTimeout):
                    self._silences = 1 if self._rows_since >= _PROGRESS else self._silences + 1
                    self._rows_since = 0
                if self._silences > 1:
                    self.unreachable = not self._answers()
                    limit = "query_timeout_seconds is what it may take"
                    raise SourceError(f"{error}, twice; {limit}") from None
                raise

        try:
            return self._retry.run(doing, attempt, lambda seconds: self._sleep(seconds))
        except SourceError:
            self._worn_out = self._worn_out + 1 if healing else 0
            self.unreachable = self.unreachable or self._worn_out >= _PATIENCE
            raise

    def succeeded(self) -> None:
        """A table is complete: the faults of those before it do not count any more."""
        self._worn_out = 0

    def _answers(self) -> bool:
        """Whether the server answers at all, within a few seconds."""
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
        """Waits as before a first repeat after a conflict."""
        self._sleep(_BRIEF.delay(0))

    def rows(self, sql: str, parameters: Mapping[str, str] | None = None) -> list[Values]:
        """All rows of a statement whose result is small; nothing is repeated."""
        return [row for batch in self.stream(sql, parameters) for row in batch]

    def optional(self, doing: str, sql: str) -> list[Values] | None:
        """All rows of a view that a server may not have or not show; None then.

        Raises SourceError, also for a login that is refused: another attempt could lock it.
        """

        def ask() -> list[Values] | None:
            try:
                return self.rows(sql)
            except (StatementError, UndecodableRow) as error:
                if self.unreachable:  # it was the login
                    raise
                Logging.info(f"The connector does without {doing}: {error}")
                return None

        rows: list[Values] | None = self.with_retries(doing, ask)
        return rows

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Statements in it see the same rows, if snapshots are used."""
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
    ) -> Iterator[list[Values]]:
        """The result in batches of ``rows`` rows or, by ``size_of``, ``largest_batch`` bytes.

        In ``sql`` a parameter is written ``%(name)s`` and a per cent sign ``%%``. What came before
        an error is yielded first. Raises SourceError of any kind in faults.
        """
        failure, done = None, False
        try:
            cursor = self._execute(sql, parameters)
            reader = RowReader(cursor)
            while not done and failure is None:
                batch: list[Values] = []
                size = 0
                try:
                    while len(batch) < rows and size < self.largest_batch:
                        found = reader.fetch(rows - len(batch))
                        if not found:
                            _read_to_the_end(cursor)
                            done = True
                            break
                        batch += found
                        if size_of:
                            size += sum(map(size_of, found))
                except Exception as error:
                    failure = self._explain(error, "reading")
                if batch:
                    self._rows_since += len(batch)
                    yield batch
        finally:
            if not done:
                self.close()
        if failure is not None:
            raise failure

    def _execute(self, sql: str, parameters: Mapping[str, str] | None) -> Any:
        if self._connection is None:
            try:
                self._connection = self._open(None)
            except TransientError:
                raise
            except SourceError:
                self.unreachable = True  # more attempts could lock the login
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
        return Unversioned(f"{doing}: SNAPSHOT isolation is refused")


def _read_to_the_end(cursor: Any) -> None:
    """Raises the error that may follow the last row: the driver would leave it unread."""
    while cursor.nextset():
        pass
    for _, message in cursor.messages:
        if message.severity > _NOTICE:
            raise message
