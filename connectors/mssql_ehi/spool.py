"""Rows that wait until their table has proven whole."""

import pickle
import tempfile
from collections.abc import Iterator

from shared.rows import Row

_IN_MEMORY = 8 * 1024 * 1024  # bytes; more of them go to a temporary file


class Spool:
    """Rows that wait, in a temporary file where they are many."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115
        self._count = self.size = 0

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, rows: list[Row]) -> None:
        pickle.dump(rows, self._file)
        self._count += 1
        self.size = self._file.tell()

    def batches(self) -> Iterator[list[Row]]:
        self._file.seek(0)
        for _ in range(self._count):
            yield pickle.load(self._file)  # noqa: S301  # written by this very object

    @property
    def place(self) -> int:
        """How many bytes of what waits were read again."""
        return self._file.tell()

    def clear(self) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._count = self.size = 0
