"""What the rows of a table are, in a few bytes: rows that did not change are not sent again."""

import base64
import binascii
import hashlib
import marshal
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from operator import itemgetter
from typing import Any

_BUCKETS = 32
_FEW_ROWS = 1_000  # of which no part is told from another: they are little to send
_AMONG_OTHERS = "~"  # before a fingerprint: the destination may have other rows, too
_LONGEST_TEXT = 512  # characters, in the state of each table
_SMALL = struct.Struct("<IQ16s")
_LARGE = struct.Struct(f"<IQ16s16s{_BUCKETS}Q")
_STORED = struct.Struct("<IQ16sB")  # then the hashes of keys, and the digests of buckets
_64_BITS, _128_BITS = (1 << 64) - 1, (1 << 128) - 1


@dataclass(frozen=True)
class Digests:
    """Sums of the hashes of ``rows`` rows, which do not depend on their order: of all rows and of
    their keys, 128 bits each, and of the rows of each of 32 buckets, 64 bits each; a row belongs
    to a bucket by its key. ``form`` is what else the rows depend on, in 32 bits.

    ``stored`` are hashes, of 64 bits, of keys whose rows were stored or deleted since. Nobody
    knows what rows their buckets have, so ``all`` and the digests of these buckets are 0.
    """

    form: int
    rows: int
    all: int
    keys: int = 0
    buckets: tuple[int, ...] = ()
    stored: tuple[int, ...] = ()

    @classmethod
    def from_text(cls, text: str) -> "Digests | None":
        """None for a text that ``to_text`` of this version does not write."""
        try:
            packed = base64.b64decode(text, validate=True)
            if len(packed) == _SMALL.size:
                form, rows, all_rows = _SMALL.unpack(packed)
                return cls(form, rows, int.from_bytes(all_rows, "little"))
            if len(packed) != _LARGE.size:
                return cls._with_stored(packed)
            form, rows, all_rows, keys, *buckets = _LARGE.unpack(packed)
        except (binascii.Error, struct.error, ValueError, TypeError):
            return None
        whole = int.from_bytes(all_rows, "little"), int.from_bytes(keys, "little")
        return cls(form, rows, *whole, tuple(buckets))

    @classmethod
    def _with_stored(cls, packed: bytes) -> "Digests":
        """Raises struct.error or ValueError for what is none."""
        form, rows, keys, count = _STORED.unpack_from(packed)
        rest = packed[_STORED.size :]
        numbers = struct.unpack(f"<{len(rest) // 8}Q", rest)
        stored, known = numbers[:count], numbers[count:]
        if not stored:
            raise ValueError
        changed = {key % _BUCKETS for key in stored}
        places = [bucket for bucket in range(_BUCKETS) if bucket not in changed]
        digests = dict(zip(places, known, strict=True))
        buckets = tuple(digests.get(bucket, 0) for bucket in range(_BUCKETS))
        return cls(form, rows, 0, int.from_bytes(keys, "little"), buckets, stored)

    def to_text(self) -> str:
        """The digests in base64: 40 characters for up to 1,000 rows, which have no digests of
        keys and buckets, and 400 for more; after rows were stored, about as many."""
        keys, all_rows = self.keys.to_bytes(16, "little"), self.all.to_bytes(16, "little")
        if self.stored:
            head = _STORED.pack(self.form, self.rows, keys, len(self.stored))
            changed = self.changed
            known = [digest for n, digest in enumerate(self.buckets) if n not in changed]
            numbers = [*self.stored, *known]
            packed = head + struct.pack(f"<{len(numbers)}Q", *numbers)
        elif self.rows <= _FEW_ROWS or not self.buckets:
            packed = _SMALL.pack(self.form, self.rows, all_rows)
        else:
            packed = _LARGE.pack(self.form, self.rows, all_rows, keys, *self.buckets)
        return base64.b64encode(packed).decode()

    @property
    def changed(self) -> set[int]:
        """The buckets in which rows were stored or deleted."""
        return {key % _BUCKETS for key in self.stored}

    def changed_since(self, before: "Digests") -> set[int]:
        """The buckets whose rows may be others than ``before``."""
        pairs = enumerate(zip(before.buckets, self.buckets, strict=True))
        return before.changed | {number for number, (old, new) in pairs if old != new}


class Fingerprint:
    """The fingerprint of the rows of a read, to compare with that of an earlier one, ``before``,
    in the form that ``to_text`` gave it ("": there is none). ``form``: what the rows depend on
    beside the source, such as the columns: with another one, all rows are others."""

    def __init__(self, before: str = "", form: str = "") -> None:
        self._form = _hash(form.encode()) & 0xFFFFFFFF
        self._before_is_all = not before.startswith(_AMONG_OTHERS)
        known = Digests.from_text(before.removeprefix(_AMONG_OTHERS))
        self._before = known if known and known.form == self._form else None
        self.clear()

    def clear(self) -> None:
        """Forgets the rows: they are read once more."""
        self._all = self._keys = 0
        self._buckets = [0] * _BUCKETS
        self._bucket_of = bytearray()  # of each row
        self._has_keys = True
        self._so_far: Digests | None = None  # when there were as many rows as before
        self._missing = set(self._before.stored) if self._before else set[int]()

    def add_without_keys(self, rows: Sequence[bytes]) -> None:
        """Adds rows of a table of which no part is told from another: it has no key, or this is
        its first load, of which a row costs a third less then."""
        self._has_keys = False
        self._bucket_of += bytes(len(rows))
        low_rows, high_rows = _hashes(rows)
        self._all += sum(low_rows) + (sum(high_rows) << 64)

    def add(self, keys: Iterable[bytes], rows: Iterable[bytes]) -> None:
        """Adds rows and their keys, each as bytes that tell it from all others."""
        keys, rows = list(keys), list(rows)
        if self._before and self._so_far is None:
            left = self._before.rows - len(self._bucket_of)
            if left < len(keys):
                self._add(keys[:left], rows[:left])
                self._so_far = self._digests()
                keys, rows = keys[left:], rows[left:]
        self._add(keys, rows)

    def _add(self, keys: Sequence[bytes], rows: Sequence[bytes]) -> None:
        low_keys, high_keys = _hashes(keys)
        low_rows, high_rows = _hashes(rows)
        self._keys += sum(low_keys) + (sum(high_keys) << 64)
        self._all += sum(low_rows) + (sum(high_rows) << 64)
        if self._missing:
            self._missing.difference_update(low_keys)
        bucket_of, buckets = [key % _BUCKETS for key in low_keys], self._buckets
        for bucket, row in zip(bucket_of, low_rows, strict=True):
            buckets[bucket] += row
        self._bucket_of += bytes(bucket_of)

    def _digests(self) -> Digests:
        buckets = tuple(bucket & _64_BITS for bucket in self._buckets) if self._has_keys else ()
        whole = self._all & _128_BITS, self._keys & _128_BITS
        return Digests(self._form, len(self._bucket_of), *whole, buckets)

    @property
    def is_unchanged(self) -> bool:
        """Whether the destination has these rows, and no others."""
        return self._before_is_all and self._are_before()

    def _are_before(self) -> bool:
        before, now = self._before, self._digests()
        if before is None or before.stored:
            return False
        return (now.rows, now.all) == (before.rows, before.all)

    def to_send(self) -> Sequence[bool] | None:
        """For each row, in the order in which they were added, whether it may be another than
        before. None: all have to replace the table, since it may have rows that are missing here.

        It is known that none is missing if the first rows have the keys of before, since what
        comes after them is new, and if those that were stored since are there.
        """
        if self.is_unchanged:
            return [False] * len(self._bucket_of)
        before = self._before if self._before_is_all else None
        if before is None or not before.buckets or len(self._bucket_of) < before.rows:
            return None
        then = self._so_far or self._digests()
        if then.keys != before.keys or self._missing:
            return None
        known = self._flags(then.changed_since(before))[: before.rows]
        return known + [True] * (len(self._bucket_of) - before.rows)

    def to_add(self) -> Sequence[bool]:
        """The same for a table that keeps the rows that are gone: none has to be replaced."""
        if self._are_before():
            return [False] * len(self._bucket_of)
        if self._before is None or not (self._before.buckets and self._has_keys):
            return [True] * len(self._bucket_of)
        return self._flags(self._digests().changed_since(self._before))

    def _flags(self, buckets: set[int]) -> list[bool]:
        return [bucket in buckets for bucket in self._bucket_of]

    def to_text(self, *, among_others: bool = False) -> str:
        """The fingerprint for the state; ``among_others``: the destination may have more rows."""
        return (_AMONG_OTHERS if among_others else "") + self._digests().to_text()


def after_storing(text: str, keys: Iterable[bytes]) -> str:
    """The fingerprint ``text``, after rows with these keys were stored beside those that it tells,
    or deleted: the rows of their buckets are sent at the next comparison, whatever they are then,
    and all are if one of these keys is missing then. "": nothing is known of the rows any more,
    since they are too many."""
    stored = set(_hashes(list(keys))[0])
    if not stored:
        return text
    before = Digests.from_text(text)
    if before is None or not before.buckets:
        return ""
    stored.update(before.stored)
    if len(stored) * 8 > _LONGEST_TEXT:
        return ""
    changed = {key % _BUCKETS for key in stored}
    buckets = tuple(0 if n in changed else digest for n, digest in enumerate(before.buckets))
    after = replace(before, all=0, buckets=buckets, stored=tuple(sorted(stored))).to_text()
    return after if len(after) <= _LONGEST_TEXT else ""


class Encoder:
    """Rows as bytes that tell one from all others: the values of ``columns``, which map names to
    types, as ``Table.schema()`` has them."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        moments = [name for name, type_ in columns.items() if type_ == "UTC_DATETIME"]
        others = [name for name in columns if name not in moments]
        self._moments = [itemgetter(name) for name in moments]
        self._others = itemgetter(*others) if others else lambda row: None
        self.form = repr((others, moments, [columns[name] for name in others]))

    def encode(self, rows: Sequence[Mapping[str, Any]]) -> list[bytes]:
        """All ``rows`` have all columns."""
        return encode(partial(self._values, rows))

    def _values(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Any, ...]]:
        # The ten bytes that a datetime consists of take a fifth of the time of its text.
        moments = (
            [moment and moment.__reduce__()[1][0] for moment in map(get, rows)]
            for get in self._moments
        )
        return zip(map(self._others, rows), *moments)  # noqa: B905


def encode(rows: Callable[[], Iterable[tuple[Any, ...]]]) -> list[bytes]:
    """The rows that ``rows`` begins to give, of values that JSON can hold, or bytes, as bytes that
    tell one from all others."""
    dumps = marshal.dumps
    try:
        return [dumps(row, 2) for row in rows()]  # from 3 on bytes depend on more than values
    except ValueError:  # it takes no subclasses, such as a number with its text
        return [_encoded(row) for row in rows()]


def _encoded(row: tuple[Any, ...]) -> bytes:
    try:
        return marshal.dumps(row, 2)
    except ValueError:
        return repr(row).encode("utf-8", "surrogatepass")


def _hashes(values: Sequence[bytes]) -> tuple[Sequence[int], Sequence[int]]:
    """The lower and the upper 64 bits of the hash of each."""
    # One by one, _hash would take twice the time.
    new = hashlib.blake2b
    digests = [new(value, digest_size=16).digest() for value in values]
    halves = struct.unpack(f"<{2 * len(digests)}Q", b"".join(digests))
    return halves[::2], halves[1::2]


def digest(rows: Sequence[bytes]) -> int:
    """The sum of the hashes of rows, 64 bits, which does not depend on their order."""
    return sum(_hashes(rows)[0]) & _64_BITS


def _hash(value: bytes) -> int:
    # Not the hash of Python, which is another one in each process.
    return int.from_bytes(hashlib.blake2b(value, digest_size=16).digest(), "little")
