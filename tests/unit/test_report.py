"""What the log says of a sync."""

import time
from datetime import datetime, timedelta, timezone

import pytest
from fivetran_connector_sdk import Operations

from shared import times
from shared.errors import SourceError, SourceUnavailable
from shared.report import Progress, SyncReport
from shared.state import window

NOW = datetime(2026, 6, 10, 12, tzinfo=timezone.utc)


def test_the_tables_of_a_sync(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line when each begins, and one for each at the end; of a failed one, too. An error names
    its table once, also where it does so itself."""
    monkeypatch.setattr(Operations, "warning", lambda message: None)

    def sync() -> None:
        with SyncReport() as report:
            with report.attempt("rooms"), report.table("rooms", "changes since Monday") as counts:
                counts.read, counts.sent, counts.deleted = 12, 3, 1
                report.skipped.add("rooms", "record 7", ValueError("bad"))
            with report.attempt("sites"), report.table("sites", "full refresh, as always"):
                raise SourceError("sites: no")

    with pytest.raises(SourceError, match=r"^1 of 2 tables failed:\nsites: no$"):
        sync()
    lines = [
        line.split(" connector ")[-1].split() for line in capsys.readouterr().out.splitlines()
    ]
    assert ["rooms:", "changes", "since", "Monday"] in lines
    assert ["sites:", "full", "refresh,", "as", "always"] in lines
    assert ["table", "mode", "read", "sent", "deleted", "skipped", "seconds"] in lines
    assert ["rooms", "changes", "since", "Monday", "12", "3", "1", "1", "0.0"] in lines
    assert ["sites", "failed", "0", "0", "0", "0", "0.0"] in lines


def test_what_ends_a_table_and_what_the_sync(capsys: pytest.CaptureFixture[str]) -> None:
    """A lack of memory leaves the other tables alone. What concerns every table does not, and is
    the error of the sync."""

    def sync() -> None:
        with SyncReport() as report:
            with report.attempt("rooms"):
                raise MemoryError
            with report.attempt("sites"), report.table("sites", "first load"):
                raise SourceUnavailable("unknown host")

    with pytest.raises(SourceUnavailable, match=r"^unknown host$"):
        sync()
    output = capsys.readouterr().out
    assert "rooms: the sync takes more memory than there is. Lower the number" in output
    assert "Tables of this sync:" in output


def test_the_rate_is_that_of_the_last_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wait before it does not count; without a total there is no share."""
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    line = Progress()
    clock[0] = 9.9
    assert not line.is_due
    clock[0] = 10.0
    assert line.is_due
    assert line.text(100, "row", 100, None) == "100 rows read, 10 rows/s"
    clock[0] = 20.0
    assert line.text(600, "row", 700, 1_700) == (
        "600 rows read, 50 rows/s, 41 % of 1700, 20 s left"
    )
    clock[0] = 30.0
    assert line.text(600, "row", 1_800, 1_700) == "600 rows read, 0 rows/s, 99 % of 1700"


def test_waits_do_not_lower_the_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or the time that is left would be that of a source which limits every page."""
    clock, waited = [0.0], [5.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    line = Progress(lambda: waited[0])
    clock[0], waited[0] = 70.0, 65.0  # ten seconds of reading
    assert line.text(1, "row", 1, 11) == "1 row read, 0 rows/s, 9 % of 11, 100 s left"
    clock[0] = 80.0
    assert line.text(101, "row", 101, None) == "101 rows read, 10 rows/s"


def test_a_list_that_is_read_whole_is_called_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the source does not leave out what did not change."""
    monkeypatch.setattr(times, "now", lambda: NOW)
    saved = dict.fromkeys(("cursor", "listed_at"), "2026-06-10T11:00:00.123456Z")
    mode = "whole list, of which changes since 2026-06-10T11:00:00Z are stored"
    assert window(saved, 24, filters=False).mode == mode


@pytest.mark.parametrize(
    ("entry", "mode"),
    [
        ({}, "first load"),
        ({"cursor": -1}, "full refresh, since no sync has completed one that is proven whole"),
        ({"cursor": 1, "listed_at": -1}, "full refresh, since the state is ahead of the clock"),
        ({"cursor": -1, "listed_at": -24}, "full refresh, since the last one was 24 hours ago"),
        ({"cursor": -1, "listed_at": -2}, "changes since 2026-06-10T11:00:00Z"),
        (
            {"cursor": -20, "listed_at": -20},
            "full refresh, since the source does not keep all changes since the last sync",
        ),
    ],
)
def test_why_a_table_is_read_so(
    monkeypatch: pytest.MonkeyPatch, entry: dict[str, int], mode: str
) -> None:
    """In one clause."""
    monkeypatch.setattr(times, "now", lambda: NOW)
    saved = {key: times.to_text(NOW + timedelta(hours=hours)) for key, hours in entry.items()}
    assert window(saved, 24, history=timedelta(hours=10)).mode == mode
