"""What the destination has of a table's last days, in a few bytes: days that did not change are
not sent again."""

import base64
import binascii
import struct
from collections import defaultdict
from datetime import date, datetime, time, timedelta, timezone

from shared.completeness import Keys
from shared.fingerprint import Encoder, digest
from shared.rows import Row, Table

_MOST_DAYS = 40  # the longest look-back, and some days around it
_HEAD = struct.Struct("<II")  # the digest of the table's form, and the first day
_32_BITS = (1 << 32) - 1


class KnownDays:
    """Digests, by day in UTC, of rows that the destination has as they are; it may have others of
    that day, too. ``text`` is what ``to_text`` gave at the last sync ("": nothing is known), and
    ``oldest`` the first day that the next sync may read again."""

    def __init__(self, table: Table, hour: str, text: str, oldest: date) -> None:
        self._hour, columns = hour, table.schema()["columns"]
        self._rows = Encoder(columns)
        self._keys = Encoder({name: columns[name] for name in table.key})
        self._form = digest([self._rows.form.encode()]) & _32_BITS
        self._before = self._read(text)
        self._now = dict[date, int]()
        self._distinct = defaultdict[date, Keys](Keys)
        self._counts = defaultdict[date, int](int)
        self._oldest = oldest
        self._oldest_hour = datetime.combine(oldest, time(), timezone.utc)

    def _read(self, text: str) -> dict[date, int]:
        """An empty one for a text that ``to_text`` does not write for this table."""
        try:
            packed = base64.b64decode(text, validate=True)
            form, first = _HEAD.unpack_from(packed)
            rest = packed[_HEAD.size :]
            digests = struct.unpack(f"<{len(rest) // 8}Q", rest)
            days = {date.fromordinal(first + n): sum_ for n, sum_ in enumerate(digests) if sum_}
        except (binascii.Error, struct.error, ValueError, TypeError, OverflowError):
            return {}
        return days if form == self._form else {}

    def to_text(self) -> str:
        """The digests for the state, in base64: at most 440 characters."""
        days = {day: sum_ for day, sum_ in {**self._before, **self._now}.items() if sum_}
        kept = sorted(day for day in days if day >= self._oldest)[-_MOST_DAYS:]
        if not kept:
            return ""
        span = range((kept[-1] - kept[0]).days + 1)[:_MOST_DAYS]
        digests = [days.get(kept[0] + timedelta(days=n), 0) for n in span]
        packed = _HEAD.pack(self._form, kept[0].toordinal())
        return base64.b64encode(packed + struct.pack(f"<{len(digests)}Q", *digests)).decode()

    def forget(self) -> None:
        """The table is emptied."""
        self._before.clear()

    def split(self, rows: list[Row]) -> dict[date, list[Row]]:
        """``rows`` by day."""
        days = defaultdict[date, list[Row]](list)
        for row in rows:
            days[row[self._hour].date()].append(row)
        return days

    def without_known(self, rows: list[Row]) -> list[Row]:
        """Those of ``rows`` whose days are not known to be as they are."""
        if not self._before:
            return rows
        return [
            row
            for day, of_day in self.split(rows).items()
            if self._before.get(day) != digest(self._rows.encode(of_day))
            for row in of_day
        ]

    def note(self, rows: list[Row]) -> None:
        """The destination gets these rows, or has them."""
        recent = [row for row in rows if row[self._hour] >= self._oldest_hour]
        for day, of_day in self.split(recent).items():
            self._counts[day] += len(of_day)
            self._distinct[day].add(self._keys.encode(of_day))
            known = self._now.get(day, 0) + digest(self._rows.encode(of_day))
            # Of two rows with one key the destination has the later one.
            once = self._distinct[day].distinct() == self._counts[day]
            self._now[day] = known & ((1 << 64) - 1) if once else 0
