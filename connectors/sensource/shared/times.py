"""Timestamps of any form, in UTC."""

import re
from datetime import datetime, timedelta, timezone
from typing import Any

_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d+))?\s?(Z|[+-]\d\d(?::?\d\d)?)?)?",
    re.ASCII | re.IGNORECASE,
)
# Text of fewer digits may be a date without dashes.
_UNIX = re.compile(r"-?\d{9,13}(?:\.\d+)?", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_USUAL = [len(f"2026-01-31T08:00:00{more}+00:00") for more in ("", ".000", ".000000")]
_FIRST_MILLISECONDS = 100_000_000_000  # as seconds this would be the year 5138


def now() -> datetime:
    return datetime.now(timezone.utc)


def to_text(moment: datetime) -> str:
    """``moment`` as ISO 8601 in UTC, the form that states and requests hold."""
    return moment.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


def parse(value: Any) -> datetime:
    """A timestamp as an aware datetime in UTC.

    Takes ISO 8601 (T or a blank; without an offset it is UTC; a date alone is its midnight;
    digits after the microsecond are cut) and unix time, as a number or as text of 9 digits or
    more, in seconds or, from 100,000,000,000 on, in milliseconds. Raises ValueError, without the
    value, otherwise.
    """
    try:
        if isinstance(value, str):
            text = value[:-1] + "+00:00" if value[-1:] == "Z" else value
            usual = text[4:17:3] == "--T::" and len(text) in _USUAL and text[19] in "+."
            if usual and text[-6:] == "+00:00":
                return datetime.fromisoformat(text)  # in a tenth of the time
            if match := _ISO.fullmatch(value.strip()):
                return _from_iso(*match.groups())
            value = float(value) if _UNIX.fullmatch(value.strip()) else None
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            seconds = value / 1000 if abs(value) >= _FIRST_MILLISECONDS else value
            return _EPOCH + timedelta(0, seconds)
    except (ValueError, OverflowError):
        pass
    raise ValueError("is not a timestamp")


def _from_iso(day: str, clock: str | None, fraction: str | None, offset: str | None) -> datetime:
    clock, fraction = (clock or "00:00") + ":00", (fraction or "")[:6]
    moment = datetime.fromisoformat(f"{day}T{clock[:8]}.{fraction:0<6}+00:00")
    if offset and offset not in "Zz":
        digits = offset[1:].replace(":", "").ljust(4, "0")
        ahead = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
        moment += ahead if offset[0] == "-" else -ahead
    return moment
