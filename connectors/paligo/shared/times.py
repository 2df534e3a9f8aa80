"""Timestamps of any form, in UTC."""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

_OFFSET = r"Z|UTC|GMT|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?"
_ISO = re.compile(
    rf"(\d{{4}}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d+))?\s?({_OFFSET})?)?",
    re.ASCII | re.IGNORECASE,
)
_WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_MONTHS = "jan feb mar apr may jun jul aug sep oct nov dec".split()  # noqa: SIM905
# RFC 2822, 4.3. Any other letters may be several zones.
_ZONES = {
    **dict.fromkeys(("ut", "utc", "gmt", "z"), "Z"),
    "edt": "-04",
    "est": "-05",
    "cdt": "-05",
    "cst": "-06",
    "mdt": "-06",
    "mst": "-07",
    "pdt": "-07",
    "pst": "-08",
}
_RFC = re.compile(  # Wed, 31 Jan 2024 08:00:00 +0100 (CET)
    rf"(?:({'|'.join(_WEEKDAYS)}),? )?(\d\d?) ({'|'.join(_MONTHS)}) (\d{{4}}) "
    rf"(\d\d:\d\d(?::\d\d)?) ({'|'.join(_ZONES)}|[+-](?:[01]\d|2[0-3])[0-5]\d)(?: \(\w*\))?",
    re.ASCII | re.IGNORECASE,
)
_ASP_NET = re.compile(r"/Date\((-?\d{1,15})(?:[+-]\d{4})?\)/", re.ASCII)
# Text of fewer digits may be a date without dashes.
_UNIX = re.compile(r"-?\d{9,13}(?:\.\d+)?", re.ASCII)
# What sources write for "no date": "-", 0000-00-00T00:00:00Z, what PHP makes of that, and words.
_ZERO = re.compile(r"[\W_0TZ]*(?:UTC|GMT)?|-0001-11-30(?:\D.*)?", re.IGNORECASE)
_NO_DATE = {
    *("n/a", "na", "n.a.", "nan", "nat", "none", "null", "nil", "(null)", "(none)"),
    *("undefined", "unknown", "never", "false"),
}
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_USUAL = [len(f"2026-01-31T08:00:00{more}+00:00") for more in ("", ".000", ".000000")]
_USUAL_LINES = re.compile(
    r"(?:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{3}(?:\d{3})?)?(?:Z|\+00:00)\n)*", re.ASCII
)
_FIRST_MILLISECONDS = 100_000_000_000  # as seconds this would be the year 5138


class NoDate(ValueError):
    """A value that stands for "no date"."""


def now() -> datetime:
    return datetime.now(timezone.utc)


def to_text(moment: datetime) -> str:
    """``moment`` as ISO 8601 in UTC, the form that states and requests hold."""
    return moment.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def parse(value: Any) -> datetime:
    """A timestamp as an aware datetime in UTC.

    Takes ISO 8601 (T or a space; without an offset it is UTC; a date alone is its midnight;
    digits after the microsecond are cut), the dates of RFC 1123 and RFC 2822, ASP.NET's
    ``/Date(milliseconds)/``, and unix time, as a number or as text of 9 digits or more, in
    seconds or, from 100,000,000,000 on, in milliseconds.

    Raises ValueError, without the value, for anything else: an order of day and month that has
    to be guessed, the hour 24, a weekday that is not that of the date. It is a NoDate where the
    value says that there is no date: text of spaces, ``0000-00-00``, false, ``N/A``, ``-``.
    """
    try:
        if isinstance(value, str):
            text = value[:-1] + "+00:00" if value[-1:] == "Z" else value
            usual = text[4:17:3] == "--T::" and len(text) in _USUAL and text[19] in "+."
            if usual and text[-6:] == "+00:00" and "T24" not in text:
                return datetime.fromisoformat(text)  # in a tenth of the time
            return _from_text(value.strip())
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return _from_unix(value)
    except (ValueError, OverflowError):
        pass
    raise (NoDate if _says_no_date(value) else ValueError)("is not a timestamp")


def parse_usual(texts: Sequence[str]) -> list[datetime] | None:
    """Timestamps that all have the form 2026-01-31T08:00:00Z, or +00:00 in place of the Z, and 0,
    3 or 6 digits of a fraction, in half the time that ``parse`` takes for each; None if one of
    them has another form.
    Raises ValueError for a day or an hour that does not exist."""
    lines = "\n".join(texts) + "\n"
    if not _USUAL_LINES.fullmatch(lines) or "T24" in lines:
        return None
    usual = lines.replace("Z", "+00:00").split("\n")[:-1]
    return [*map(datetime.fromisoformat, usual)] if len(usual) == len(texts) else None


def _from_unix(number: float) -> datetime:
    seconds = number / 1000 if abs(number) >= _FIRST_MILLISECONDS else number
    return _EPOCH + timedelta(0, seconds)


def _from_text(text: str) -> datetime:
    if match := _ISO.fullmatch(text):
        return _from_iso(*match.groups())
    if match := _RFC.fullmatch(text):
        return _from_rfc(*match.groups())
    if match := _ASP_NET.fullmatch(text):  # the offset is for display
        return _EPOCH + timedelta(milliseconds=int(match[1]))
    if _UNIX.fullmatch(text):
        return _from_unix(float(text))
    raise ValueError


def _from_iso(day: str, clock: str | None, fraction: str | None, offset: str | None) -> datetime:
    clock, fraction = (clock or "00:00") + ":00", (fraction or "")[:6]
    if clock[:2] == "24":  # Python 3.14 would take the next day
        raise ValueError
    moment = datetime.fromisoformat(f"{day}T{clock[:8]}.{fraction:0<6}+00:00")
    if offset and offset[0] in "+-":
        digits = offset[1:].replace(":", "").ljust(4, "0")
        ahead = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        moment += ahead if offset[0] == "-" else -ahead
    return moment


def _from_rfc(
    weekday: str | None, day: str, month: str, year: str, clock: str, zone: str
) -> datetime:
    iso_day = f"{year}-{_MONTHS.index(month.lower()) + 1:02}-{day:0>2}"
    if weekday and _WEEKDAYS[datetime.fromisoformat(iso_day).weekday()] != weekday.lower():
        raise ValueError
    return _from_iso(iso_day, clock, None, _ZONES.get(zone.lower(), zone))


def _says_no_date(value: Any) -> bool:
    if isinstance(value, str):
        text = value.strip().lower()
        return text in _NO_DATE or _ZERO.fullmatch(text) is not None
    return value is False
