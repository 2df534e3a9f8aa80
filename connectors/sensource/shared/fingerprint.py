"""What the rows of a table are, in a few bytes: rows that did not change are not sent again."""

import base64
import binascii
import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

_BUCKETS = 32
_FEW_ROWS = 1_000  # of which no part is told from another: they are little to send
_SMALL = struct.Struct("<IQ16s")
_LARGE = struct.Struct(f"<IQ16s16s{_BUCKETS}Q")
_64_BITS, _128_BITS = (1 << 64) - 1, (1 << 128) - 1
_CHANGED = 0  # in place of a bucket's digest: rows in it were stored since


@dataclass(frozen=True)
class Digests:
    """Sums of the hashes of ``rows`` rows, which do not depend on their order: of all rows and of
    their keys, 128 bits each, and of the rows of each of 32 buckets, 64 bits each; a row belongs
    to a bucket by its key. ``form`` is what else the rows depend on, in 32 bits."""

    form: int
    rows: int
    all: int
    keys: int = 0
    buckets: tuple[int, ...] = ()

    @classmethod
    def from_text(cls, text: str) -> "Digests | None":
        """None for a text that ``to_text`` of this version does not write."""
        try:
            packed = base64.b64decode(text, validate=True)
            if len(packed) == _SMALL.size:
                form, rows, all_rows = _SMALL.unpack(packed)
                return cls(form, rows, int.from_bytes(all_rows, "little"))
            form, rows, all_rows, keys, *buckets = _LARGE.unpack(packed)
        except (binascii.Error, struct.error, ValueError, TypeError):
            return None
        whole = int.from_bytes(all_rows, "little"), int.from_bytes(keys, "little")
        return cls(form, rows, *whole, tuple(buckets))

    def to_text(self) -> str:
        """The digests in base64: 40 characters for up to 1,000 rows, which have no digests of
        keys and buckets, and 400 for more."""
        if self.rows <= _FEW_ROWS:
            packed = _SMALL.pack(self.form, self.rows, self.all.to_bytes(16, "little"))
        else:
            whole = self.all.to_bytes(16, "little"), self.keys.to_bytes(16, "little")
            packed = _LARGE.pack(self.form, self.rows, *whole, *self.buckets)
        return base64.b64encode(packed).decode()


class Fingerprint:
    """The fingerprint of the rows of a read, to compare with that of an earlier one, ``before``,
    in the form that ``to_text`` gave it ("": there is none). ``form``: what the rows depend on
    beside the source, such as the columns: with another one, all rows are others."""

    def __init__(self, before: str = "", form: str = "") -> None:
        self._form = _hash(form.encode()) & 0xFFFFFFFF
        known = Digests.from_text(before)
        self._before = known if known and known.form == self._form else None
        self.clear()

    def clear(self) -> None:
        """Forgets the rows: they are read once more."""
        self._all = self._keys = 0
        self._buckets = [0] * _BUCKETS
        self._bucket_of = bytearray()  # of each row
        self._so_far: Digests | None = None  # when there were as many rows as before

    def add(self, keys: Iterable[bytes], rows: Iterable[bytes]) -> None:
        """Adds rows and their keys, each as bytes that tell it from all others."""
        for key, row in zip(keys, rows, strict=True):
            if self._before and len(self._bucket_of) == self._before.rows:
                self._so_far = self._digests()
            key_hash, row_hash = _hash(key), _hash(row)
            bucket = key_hash % _BUCKETS
            self._bucket_of.append(bucket)
            self._keys += key_hash
            self._all += row_hash
            self._buckets[bucket] += row_hash

    def _digests(self) -> Digests:
        buckets = tuple(bucket & _64_BITS for bucket in self._buckets)
        whole = self._all & _128_BITS, self._keys & _128_BITS
        return Digests(self._form, len(self._bucket_of), *whole, buckets)

    @property
    def is_unchanged(self) -> bool:
        """Whether the rows are those of before."""
        now = self._digests()
        return self._before is not None and (now.rows, now.all) == (
            self._before.rows,
            self._before.all,
        )

    def to_send(self) -> Sequence[bool] | None:
        """For each row, in the order in which they were added, whether it may be another than
        before. None: all have to replace the table, since rows of before may be missing.

        It is known that none is missing if the first rows have the keys of before: what comes
        after them is new.
        """
        if self.is_unchanged:
            return [False] * len(self._bucket_of)
        before = self._before
        if before is None or not before.buckets or len(self._bucket_of) < before.rows:
            return None
        then = self._so_far or self._digests()
        if then.keys != before.keys:
            return None
        changed = {
            number
            for number, (old, new) in enumerate(zip(before.buckets, then.buckets, strict=True))
            if old != new or old == _CHANGED
        }
        known = [bucket in changed for bucket in self._bucket_of[: before.rows]]
        return known + [True] * (len(self._bucket_of) - before.rows)

    def to_text(self) -> str:
        """The fingerprint for the state."""
        return self._digests().to_text()


def after_storing(text: str, keys: Iterable[bytes]) -> str:
    """The fingerprint ``text``, after rows with these keys were stored beside those that it tells:
    the rows of their buckets are sent at the next comparison, whatever they are then. "": nothing
    is known of the rows any more."""
    before = Digests.from_text(text)
    stored = {_hash(key) % _BUCKETS for key in keys}
    if not stored:
        return text
    if before is None or not before.buckets:
        return ""
    buckets = tuple(_CHANGED if n in stored else old for n, old in enumerate(before.buckets))
    return replace(before, all=0, buckets=buckets).to_text()


def _hash(value: bytes) -> int:
    # Not the hash of Python, which is another one in each process.
    return int.from_bytes(hashlib.blake2b(value, digest_size=16).digest(), "little")
