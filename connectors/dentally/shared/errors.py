"""The errors that end a sync, and what keeps data out of the text that the SDK prints of them.

ConnectorError       its message never holds a secret or a row's value
├── SettingsError    the configuration is wrong (a ValueError, too); nothing was requested
├── StateError       the state is not one that this version understands; nothing was requested
├── SourceError      the source refused, or sent what cannot be understood; the cursor stays
│   ├── TransientError      a retry may succeed; `wait`: the seconds that the source asks for;
│   │                       `concerns_all`: after the last retry it is a SourceUnavailable
│   └── SourceUnavailable   it concerns every table: credentials are refused, no server responds
└── UnexpectedError  a defect, or a failure of the SDK, named by its type and place
"""

import functools
import os
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class ConnectorError(Exception): ...


class SettingsError(ConnectorError, ValueError): ...


class StateError(ConnectorError): ...


class SourceError(ConnectorError):
    status: int | None = None  # of the response, where there was one and it was final


class TransientError(SourceError):
    def __init__(
        self, message: str, wait: float | None = None, *, concerns_all: bool = False
    ) -> None:
        super().__init__(message)
        self.wait, self.concerns_all = wait, concerns_all


class SourceUnavailable(SourceError): ...


class UnexpectedError(ConnectorError): ...


def describe_defect(error: Exception) -> str:
    """What to say of an error that nobody foresaw: its type and place. Its message may quote data,
    and is shown where CONNECTOR_DEBUG is "1", as in a local run. A lack of memory is no defect."""
    if isinstance(error, MemoryError):
        return NO_MEMORY
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"in {place.name}, line {place.lineno} of {Path(place.filename).name}"
    if os.environ.get("CONNECTOR_DEBUG") == "1":
        where += f": {error}"
    return f"an unexpected {type(error).__name__} {where}: please report it"


NO_MEMORY = (
    "the sync takes more memory than there is. Lower the number of records or days in a request "
    "and that of concurrent requests or tables"
)


@contextmanager
def all_or_nothing(table: str) -> Iterator[None]:
    """From the truncate of a ``table`` until all rows that replace it are handed over. What fails
    there ends the sync, whatever it is: a checkpoint of another table would show this one without
    its rows. Raises SourceUnavailable."""
    try:
        yield
    except Exception as error:
        reason = str(error) if isinstance(error, ConnectorError) else describe_defect(error)
        raise SourceUnavailable(f"{table}: {reason}") from None


def redact_errors(entry_point: Callable[..., T]) -> Callable[..., T]:
    """Wraps ``update``, ``schema`` or a setup test, so that an error takes only safe text along.

    The SDK writes the local variables of every frame of ours into ``crash-reports/`` and prints
    the messages of all chained errors. So the frames are emptied and the chain is cut; which
    lines of code the error went through is still shown.
    """

    @functools.wraps(entry_point)
    def wrapper(configuration: Mapping[str, str], **kwargs: Any) -> T:
        failure: ConnectorError
        try:
            return entry_point(configuration, **kwargs)
        except ConnectorError as error:
            failure = error
        except MemoryError as error:
            failure = SourceError(NO_MEMORY)
            failure.__traceback__ = error.__traceback__
        except Exception as error:
            failure = UnexpectedError(describe_defect(error))
            failure.__traceback__ = error.__traceback__
        traceback.clear_frames(failure.__traceback__)
        raise failure from None

    return wrapper
