"""Rows that wait, until it is known what to do with them: in memory or compressed on disk."""

import errno
import os
import pickle
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO

from .errors import SourceError
from .rows import Row

_IN_MEMORY = 8 * 1024 * 1024  # bytes; what comes after them goes to a temporary file
_FASTEST = 1  # of zlib's levels
_FULL = (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC))


class Spool:
    """Batches of rows, in the order in which they came: the first ones in memory, the others
    compressed on disk. ``rows``: how many there are; ``size``: their bytes before compression;
    ``place``: how many of these bytes the last ``batches`` has given back.

    Raises SourceError where the disk takes no more of them."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None  # most lists are so small that they need none
        self.clear()

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            with suppress(OSError):  # of rows that could not be written: nobody needs them now
                self._file.close()

    def add(self, rows: list[Row]) -> None:
        batch = pickle.dumps(rows)
        self.rows += len(rows)
        self.size += len(batch)
        if self.size <= _IN_MEMORY:
            self._in_memory.append(batch)
        else:
            batch = zlib.compress(batch, _FASTEST)
            with self._on_full_disk():
                if self._file is None:
                    self._file = tempfile.TemporaryFile()  # noqa: SIM115
                self._file.seek(0, os.SEEK_END)
                self._file.write(batch)
                self._file.flush()  # while nothing is replaced yet
            self._on_disk.append(len(batch))

    def batches(self) -> Iterator[list[Row]]:
        self.place = 0
        for batch in self._in_memory:
            yield self._loaded(batch)
        if self._file is None:
            return
        with self._on_full_disk():
            self._file.seek(0)
        for length in self._on_disk:
            with self._on_full_disk():
                batch = self._file.read(length)
            yield self._loaded(zlib.decompress(batch))

    def _loaded(self, batch: bytes) -> list[Row]:
        self.place += len(batch)
        rows: list[Row] = pickle.loads(batch)  # noqa: S301  # written by this very object
        return rows

    def clear(self) -> None:
        self._in_memory: list[bytes] = []
        self._on_disk: list[int] = []
        if self._file is not None:
            with self._on_full_disk():
                self._file.seek(0)
                self._file.truncate()
        self.rows = self.size = self.place = 0

    @contextmanager
    def _on_full_disk(self) -> Iterator[None]:
        """Says where there is no room, in place of an OSError."""
        try:
            yield
        except OSError as error:
            number = error.errno or 0
            why = "is full" if number in _FULL else f"fails ({errno.errorcode.get(number)})"
            raise SourceError(
                f"the disk of {_folder()} {why}, where rows wait until their table is replaced "
                f"({self.rows:,} so far). Free space there, or have TMPDIR name another folder. "
                "The next sync reads the table again"
            ) from None


def _folder() -> str:
    try:
        return tempfile.gettempdir()
    except OSError:  # none can be written to
        return "every temporary folder"
