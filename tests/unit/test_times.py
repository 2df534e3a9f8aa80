"""Timestamps of every form, in UTC."""

from datetime import date, datetime, timedelta, timezone
from email.utils import format_datetime
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
    """The clock, and the text for states and requests, which ends with Z."""
    moment = datetime(2026, 1, 1, 1, 30, tzinfo=ZoneInfo("Asia/Kathmandu"))
    with time_machine.travel(moment, tick=False):
        assert times.now().isoformat() == "2025-12-31T19:45:00+00:00"
        assert times.to_text(moment) == times.to_text(times.now()) == "2025-12-31T19:45:00Z"


@given(MOMENTS)
def test_what_is_written_is_read(moment: datetime) -> None:
    """The text in states and requests is exact to the microsecond."""
    assert times.parse(times.to_text(moment)) == moment


@given(MOMENTS, OFFSETS, st.sampled_from("T "))
def test_iso_with_an_offset(moment: datetime, offset: timezone, separator: str) -> None:
    """The offset counts, with a colon or without."""
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
    """So is a time with Z, in either case."""
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
    """It is its midnight."""
    assert times.parse(day.isoformat()) == datetime(
        day.year, day.month, day.day, tzinfo=timezone.utc
    )


@pytest.mark.parametrize(
    "value",
    [
        *("soon", "2026-02-30", "2026-13-01T00:00:00Z", "2026-01-01T25:00:00Z", "1e5"),
        *("2026-01-01T00:00:00+25:00x", "0001-01-01T00:00:00+14:00", "20260101"),
        *("2026-01-01T00:00:00+25:00", "2026-01-01T00:00:00+05:60", "9999-12-31T23:59:59-01:00"),
        *("2026-01-31T24:00:00Z", "2026-01-31 24:00:00", "2026-01-31T24:00:00.000+00:00"),
        *("31/12/2024", "12/31/2024", "01.02.2024", "1/2/24", "2024-00-00", "0000-12-31"),
        *("Wed, 31 Jan 24 08:00:00 GMT", "Wed, 31 Jan 2024 08:00:00 CET", "31 Jan 2024 08:00:00"),
        "Thu, 31 Jan 2024 08:00:00 GMT",  # it was a Wednesday
        *("Fri, 30 Feb 2024 08:00:00 GMT", "Wed, 31 Jan 2024 24:00:00 GMT"),
        *("/Date(soon)/", "/Date(1700000000000", "/Date(999999999999999)/", "Date(1700000000000)"),
        *(None, True, [], {}, float("nan"), float("inf"), 1e300, 10**400, "٢٠٢٦-01-01"),
    ],
)
def test_what_is_no_timestamp(value: Any) -> None:
    """The ValueError does not show the value; the order of day and month is not guessed."""
    with pytest.raises(ValueError, match=r"^is not a timestamp$"):
        times.parse(value)


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "\t", "-", "--", "n/a", "N/A", " na ", "null", "None", "NaN", "never", False),
        *("0000-00-00", "0000-00-00 00:00:00", "0000-00-00T00:00:00Z", "00/00/0000", "0", "false"),
        *(
            "0000-00-00T00:00:00.000+00:00",
            "0000-00-00 00:00:00 UTC",
            "-0001-11-30T00:00:00+00:00",
        ),
    ],
)
def test_what_says_that_there_is_no_date(value: Any) -> None:
    """Such a value raises NoDate, other values only ValueError."""
    with pytest.raises(times.NoDate, match=r"^is not a timestamp$"):
        times.parse(value)
    for wrong in ("soon", "2026-02-30", "31/12/2024", "2024-00-00", True, None):
        with pytest.raises(ValueError, match="timestamp") as error:
            times.parse(wrong)
        assert error.type is ValueError


@pytest.mark.parametrize(
    "text",
    [
        *("2024-01-31 08:00:00 UTC", "2024-01-31T08:00:00GMT", "2024-01-31 08:00 utc"),
        *("2024-01-31 08:00:00+0000", "2024-01-31 08:00:00 +0000", "2024-01-31 08:00:00.000 UTC"),
        *("Wed, 31 Jan 2024 08:00:00 GMT", "Wed, 31 Jan 2024 08:00 UT", "wed 31 jan 2024 08:00 z"),
        *(
            "31 Jan 2024 08:00:00 +0000",
            "Wed, 31 Jan 2024 09:30:00 +0130",
            "31 Jan 2024 03:00 EST",
        ),
        *("Wed, 31 Jan 2024 08:00:00 -0000 (UTC)", "Wed, 31 Jan 2024 01:00:00 -0700 (MST)"),
        "Thu, 01 Feb 2024 00:30:00 +1630",
        *("/Date(1706688000000)/", "/Date(1706688000000+0100)/", "/Date(1706688000000-0800)/"),
    ],
)
def test_other_forms_that_have_one_meaning(text: str) -> None:
    """ISO with the name of UTC, RFC 1123 and 2822 with a zone, and ASP.NET's milliseconds, which
    an offset does not change."""
    expected = datetime(2024, 1, 31, 8, tzinfo=timezone.utc)
    assert times.parse(text) == times.parse(f" {text} ") == expected


@given(MOMENTS, OFFSETS)
def test_rfc_2822(moment: datetime, offset: timezone) -> None:
    """What the standard library writes is read, to the second, in any zone."""
    local = moment.replace(microsecond=0).astimezone(offset)
    if local.year >= 1000:
        assert times.parse(format_datetime(local)) == local
    milliseconds = (moment - datetime(1970, 1, 1, tzinfo=timezone.utc)) // timedelta(
        milliseconds=1
    )
    asp_net = times.parse(f"/Date({milliseconds})/")
    assert timedelta() <= moment - asp_net < timedelta(milliseconds=1)


@pytest.mark.parametrize("end", ["Z", "+00:00"])
def test_a_comma_before_the_fraction(end: str) -> None:
    """ISO 8601 prefers it; every version of Python reads it."""
    expected = datetime(2026, 1, 31, 8, 0, 0, 120_000, tzinfo=timezone.utc)
    for fraction in ("12", "120", "120000"):
        assert times.parse(f"2026-01-31T08:00:00,{fraction}{end}") == expected


@given(st.lists(MOMENTS, min_size=1), st.sampled_from(["Z", "+00:00"]), st.sampled_from([0, 3, 6]))
def test_usual_forms_are_read_together(moments: list[datetime], end: str, digits: int) -> None:
    """The result is the same as that of each one alone."""
    unit = {0: "seconds", 3: "milliseconds", 6: "microseconds"}[digits]
    texts = [moment.isoformat(timespec=unit)[:-6] + end for moment in moments]
    assert times.parse_usual(texts) == [times.parse(text) for text in texts]


@pytest.mark.parametrize(
    "text",
    [
        *("", "soon", "2026-01-31", "2026-01-31T08:00:00", "2026-01-31 08:00:00Z"),
        *("2026-01-31T08:00:00+01:00", "2026-01-31T08:00:00.12Z", "2026-01-31T24:00:00Z"),
        *("2026-W05-6T08:00:00Z", "2026-01-31T08:00:00Z\n", "٢٠٢٦-01-31T08:00:00Z"),
        "2026-01-31T08:00:00Z\n2026-01-31T08:00:00Z",
    ],
)
def test_other_forms_are_not_read_together(text: str) -> None:
    """One such text is enough, and no text counts as two."""
    usual = "2026-01-31T08:00:00Z"
    assert times.parse_usual([usual, text]) is None
    with pytest.raises(ValueError, match="day"):
        times.parse_usual([usual, "2026-02-30T08:00:00Z"])
