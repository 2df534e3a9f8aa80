"""Rows that wait, in memory and on disk."""

import errno
import io
import tempfile
from datetime import datetime, timezone
from typing import Any

import pytest

from shared import spool
from shared.errors import SourceError

NOW = datetime(2026, 6, 10, 12, tzinfo=timezone.utc)


@pytest.mark.parametrize("in_memory", [8_000, 60, 0])
def test_rows_that_wait_come_back_in_order(
    monkeypatch: pytest.MonkeyPatch, in_memory: int
) -> None:
    """Each time they are asked for, from memory and from disk; cleared rows do not."""
    monkeypatch.setattr(spool, "_IN_MEMORY", in_memory)
    first, second = [{"id": 1, "at": NOW}], [{"id": 2}, {"id": 3}]
    with spool.Spool() as waiting:
        assert (waiting.rows, waiting.size, list(waiting.batches())) == (0, 0, [])
        waiting.add(first)
        size_of_first = waiting.size
        waiting.add(second)
        assert waiting.rows == 3
        for _ in range(2):
            batches = waiting.batches()
            assert next(batches) == first
            assert waiting.place == size_of_first > 0
            assert list(batches) == [second]
            assert waiting.place == waiting.size
        waiting.clear()
        assert (waiting.rows, waiting.size, waiting.place) == (0, 0, 0)
        assert list(waiting.batches()) == []
        waiting.add(second)
        assert list(waiting.batches()) == [second]


def test_many_rows_wait_compressed_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, however large the table."""
    monkeypatch.setattr(spool, "_IN_MEMORY", 1_000)
    with spool.Spool() as waiting:
        waiting.add([{"v": "x" * 400}])
        assert waiting._file is None
        waiting.add([{"v": "y" * 8_000}])
        assert waiting._file is not None
        assert 0 < waiting._file.tell() < 1_000
        assert [len(rows[0]["v"]) for rows in waiting.batches()] == [400, 8_000]


class FullDisk(io.BytesIO):
    """A file for which there is no room; ``fails``: which of its methods notices that."""

    def __init__(self, fails: str, number: int = errno.ENOSPC) -> None:
        super().__init__()
        self._fails, self._number = fails, number

    def _check(self, method: str) -> None:
        if method == self._fails:
            raise OSError(self._number, "of /tmp/secret")

    def write(self, data: Any) -> int:
        self._check("write")
        return super().write(data)

    def flush(self) -> None:
        self._check("flush")

    def close(self) -> None:
        super().close()
        self._check("close")


@pytest.mark.parametrize(
    ("fails", "number", "why"),
    [
        ("write", errno.ENOSPC, "is full"),
        ("flush", errno.ENOSPC, "is full"),
        ("write", errno.EIO, "fails (EIO)"),
    ],
)
def test_a_full_disk_is_told(
    monkeypatch: pytest.MonkeyPatch, fails: str, number: int, why: str
) -> None:
    """With the folder, and what to do; without what the system says."""
    monkeypatch.setattr(spool, "_IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: FullDisk(fails, number))
    with spool.Spool() as waiting, pytest.raises(SourceError) as error:
        waiting.add([{"id": 1}])
    assert str(error.value) == (
        f"the disk of {tempfile.gettempdir()} {why}, where rows wait until their table is "
        "replaced (1 so far). Free space there, or have TMPDIR name another folder. The next sync "
        "reads the table again"
    )
    assert error.value.__suppress_context__


def test_rows_that_nobody_needs_need_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be closed has no rows that are missed."""
    monkeypatch.setattr(spool, "_IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: FullDisk("close"))
    with spool.Spool() as waiting:
        waiting.add([{"id": 1}])
        assert list(waiting.batches()) == [[{"id": 1}]]


def test_without_a_temporary_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a disk that takes no file at all."""

    def none() -> Any:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(spool, "_IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "TemporaryFile", none)
    monkeypatch.setattr(tempfile, "gettempdir", none)
    with (
        spool.Spool() as waiting,
        pytest.raises(SourceError, match=r"every temporary folder fails .ENOENT"),
    ):
        waiting.add([{"id": 1}])
