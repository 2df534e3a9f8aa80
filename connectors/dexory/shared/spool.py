"""Rows that wait, until it is known what to do with them: in memory or compressed on disk."""

import os
import pickle
import tempfile
import zlib
from collections.abc import Iterator
from typing import IO

from .rows import Row

_IN_MEMORY = 8 * 1024 * 1024  # bytes; what comes after them goes to a temporary file
_FASTEST = 1  # of zlib's levels


class Spool:
    """Batches of rows, in the order in which they came: the first ones in memory, the others
    compressed on disk. ``rows``: how many there are; ``size``: their bytes before compression;
    ``place``: how many of these bytes the last ``batches`` has given back."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None  # most lists are so small that they need none
        self.clear()

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def add(self, rows: list[Row]) -> None:
        batch = pickle.dumps(rows)
        self.rows += len(rows)
        self.size += len(batch)
        if self.size <= _IN_MEMORY:
            self._in_memory.append(batch)
        else:
            batch = zlib.compress(batch, _FASTEST)
            if self._file is None:
                self._file = tempfile.TemporaryFile()  # noqa: SIM115
            self._file.seek(0, os.SEEK_END)
            self._file.write(batch)
            self._on_disk.append(len(batch))

    def batches(self) -> Iterator[list[Row]]:
        self.place = 0
        for batch in self._in_memory:
            yield self._loaded(batch)
        if self._file is None:
            return
        self._file.seek(0)
        for length in self._on_disk:
            yield self._loaded(zlib.decompress(self._file.read(length)))

    def _loaded(self, batch: bytes) -> list[Row]:
        self.place += len(batch)
        rows: list[Row] = pickle.loads(batch)  # noqa: S301  # written by this very object
        return rows

    def clear(self) -> None:
        self._in_memory: list[bytes] = []
        self._on_disk: list[int] = []
        if self._file is not None:
            self._file.seek(0)
            self._file.truncate()
        self.rows = self.size = self.place = 0
