"""Timestamps of every form, in UTC."""

from datetime import date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import time_machine
from hypothesis import given, strategies as st

from shared import times

MOMENTS = st.datetimes(
    min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29), timezones=st.just(timezone.utc)
)
OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


def test_times_are_in_utc_wherever_a_machine_is() -> None:
    """The clock, and what is written for states and requests, with a Z."""
    moment = datetime(2026, 1, 1, 1, 30, tzinfo=ZoneInfo("Asia/Kathmandu"))
    with time_machine.travel(moment, tick=False):
        assert times.now().isoformat() == "2025-12-31T19:45:00+00:00"
        assert times.to_text(moment) == times.to_text(times.now()) == "2025-12-31T19:45:00Z"


@given(MOMENTS)
def test_what_is_written_is_read(moment: datetime) -> None:
    """The text in states and requests is the moment, to the microsecond."""
    assert times.parse(times.to_text(moment)) == moment


@given(MOMENTS, OFFSETS, st.sampled_from("T "))
def test_iso_with_an_offset(moment: datetime, offset: timezone, separator: str) -> None:
    """An offset is taken into account, with colon or without."""
    text = moment.astimezone(offset).isoformat(separator)
    assert times.parse(text) == moment
    assert times.parse(text[:-3] + text[-2:]) == moment


@pytest.mark.parametrize(
    ("offset", "expected"), [("+05", 7), ("-05", 17), (" +05", 7), ("+00", 12)]
)
def test_iso_with_an_offset_in_hours(offset: str, expected: int) -> None:
    """Two digits are hours, not minutes."""
    moment = datetime(2026, 1, 31, expected, tzinfo=timezone.utc)
    assert times.parse(f"2026-01-31T12:00:00{offset}") == moment


@given(MOMENTS)
def test_iso_without_an_offset_is_utc(moment: datetime) -> None:
    """As is Z, in either case."""
    text = moment.replace(tzinfo=None).isoformat()
    assert times.parse(text) == times.parse(text + "Z") == times.parse(text + "z") == moment


@given(MOMENTS, st.integers(1, 9))
def test_fractions_of_any_length(moment: datetime, digits: int) -> None:
    """Digits after the microsecond are cut."""
    fraction = f"{moment.microsecond:06d}000"[:digits]
    text = moment.strftime("%Y").zfill(4) + moment.strftime("-%m-%dT%H:%M:%S.") + fraction + "Z"
    expected = int(fraction[:6].ljust(6, "0"))
    assert times.parse(text) == moment.replace(microsecond=expected)


@given(st.integers(-60_000_000_000, 99_999_999_999))
def test_unix_seconds(seconds: int) -> None:
    """As a number, or as text that is too long for a date without dashes."""
    expected = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=seconds)
    assert times.parse(seconds) == expected
    if abs(seconds) >= 100_000_000:
        assert times.parse(str(seconds)) == times.parse(f"{seconds}.0") == expected


@given(st.integers(100_000_000_000, 200_000_000_000_000))
def test_unix_milliseconds(milliseconds: int) -> None:
    """Numbers too large for seconds are milliseconds."""
    expected = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=milliseconds)
    assert abs(times.parse(milliseconds) - expected) < timedelta(milliseconds=1)


@given(st.dates())
def test_a_date_alone(day: date) -> None:
    """Its midnight."""
    assert times.parse(day.isoformat()) == datetime(
        day.year, day.month, day.day, tzinfo=timezone.utc
    )


@pytest.mark.parametrize(
    "value",
    [
        *("", "soon", "2026-02-30", "2026-13-01T00:00:00Z", "2026-01-01T25:00:00Z", "1e5", "NaN"),
        *("2026-01-01T00:00:00+25:00x", "0001-01-01T00:00:00+14:00", "20260101"),
        *(None, True, [], {}, float("nan"), float("inf"), 1e300, "٢٠٢٦-01-01"),
    ],
)
def test_what_is_no_timestamp(value: Any) -> None:
    """A ValueError, which does not show the value."""
    with pytest.raises(ValueError, match=r"^is not a timestamp$"):
        times.parse(value)


@pytest.mark.parametrize("end", ["Z", "+00:00"])
def test_a_comma_before_the_fraction(end: str) -> None:
    """As ISO 8601 prefers it, in every version of Python."""
    expected = datetime(2026, 1, 31, 8, 0, 0, 120_000, tzinfo=timezone.utc)
    for fraction in ("12", "120", "120000"):
        assert times.parse(f"2026-01-31T08:00:00,{fraction}{end}") == expected
