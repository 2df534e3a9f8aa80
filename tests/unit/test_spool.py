"""Rows that wait, in memory and on disk."""

from datetime import datetime, timezone

import pytest

from shared import spool

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
