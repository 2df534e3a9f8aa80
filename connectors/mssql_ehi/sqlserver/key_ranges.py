"""Sets of whole numbers as ranges, in few bytes where most of them are consecutive."""

import base64
import binascii
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

Range = tuple[int, int]  # the first and the last number, both included

MOST_RANGES = 200_000  # 16 MB of memory
LARGEST_TEXT = 100_000  # characters, in the state of a table
_MOST_WAITING = 1_000
_PLAIN, _COMPRESSED = "p", "z"
_MORE, _LOW_BITS = 0x80, 0x7F  # of the bytes of a number
# More bytes than any text of LARGEST_TEXT characters should become.
_LARGEST_PACKED = 20 * MOST_RANGES


class KeyRanges:
    """A set of whole numbers. Numbers that come in their order cost little; others are sorted in
    many at a time."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self._waiting: list[Range] = []
        self._packer = _Packer()
        for start, end in ranges:
            self._add_range(start, end)
        self._merge()

    def __iter__(self) -> Iterator[Range]:
        """The ranges in their order. No two of them touch."""
        self._merge()
        return zip(self._starts, self._ends, strict=True)

    def __len__(self) -> int:
        """How many ranges there are."""
        self._merge()
        return len(self._starts)

    @property
    def keys(self) -> int:
        """How many numbers there are."""
        self._merge()
        return sum(self._ends) - sum(self._starts) + len(self._starts)

    @property
    def greatest(self) -> int:
        """The greatest number. Raises IndexError if there is none."""
        self._merge()
        return self._ends[-1]

    @property
    def is_too_long(self) -> bool:
        """Whether there are more ranges than are kept."""
        if len(self._starts) + len(self._waiting) > MOST_RANGES:
            self._merge()
        return len(self._starts) > MOST_RANGES

    def add(self, keys: list[int]) -> None:
        """Adds numbers, in any order."""
        if not keys:
            return
        first, last = keys[0], keys[-1]
        # In the order of the key and without a gap, as most are: to compare them is the quickest.
        if last - first == len(keys) - 1 and keys == [*range(first, last + 1)]:
            self._add_range(first, last)
        else:
            for start, end in _runs(sorted(keys)):
                self._add_range(start, end)

    def add_ranges(self, ranges: Iterable[Range]) -> None:
        for start, end in ranges:
            self._add_range(start, end)

    def _add_range(self, start: int, end: int) -> None:
        starts, ends = self._starts, self._ends
        if not starts or start > ends[-1] + 1:
            starts.append(start)
            ends.append(end)
        elif start >= starts[-1]:
            ends[-1] = max(ends[-1], end)
        else:
            place = bisect_right(starts, start) - 1
            if place < 0 or end > ends[place]:
                self._waiting.append((start, end))
                # Half of what is there: each range is sorted in a few times at most.
                if len(self._waiting) > max(_MOST_WAITING, len(starts) // 2):
                    self._merge()

    def _merge(self) -> None:
        if not self._waiting:
            return
        ranges = sorted([*zip(self._starts, self._ends, strict=True), *self._waiting])
        self._waiting = []
        self._starts, self._ends = [], []
        self._packer = _Packer()
        for start, end in ranges:
            self._add_range(start, end)  # in their order, so that none waits

    def without(self, others: Iterable[Range]) -> "KeyRanges":
        """The numbers that are in none of ``others``, ranges in their order."""
        return KeyRanges(difference(self, others))

    def to_text(self) -> str:
        """The set in ASCII."""
        self._merge()
        return self._packer.pack(self._starts, self._ends)

    @classmethod
    def from_text(cls, text: str) -> "KeyRanges | None":
        """None for a text that ``to_text`` of this version does not write."""
        try:
            packed = base64.b64decode(text[1:], validate=True)
            if text[:1] == _COMPRESSED:
                packed = zlib.decompressobj().decompress(packed, _LARGEST_PACKED)
            elif text[:1] != _PLAIN:
                return None
            numbers = list(_unpacked(packed))
        except (binascii.Error, zlib.error, ValueError, TypeError):
            return None
        return None if len(numbers) % 2 else cls(_ranges(numbers))


class _Packer:
    """Packs ranges: how far each one is behind the one before it, and how long it is. The last
    one may still grow; the bytes of those before it are kept, since ranges mostly come behind
    them, and a state is written many times."""

    def __init__(self) -> None:
        self._packed = bytearray()
        self._compressor = zlib.compressobj()
        self._compressed = bytearray()
        self._ranges = 0
        self._last: int | None = None  # the end of the range before

    def pack(self, starts: Sequence[int], ends: Sequence[int]) -> str:
        """``starts`` and ``ends`` begin with those of the last call, but for its last range."""
        if starts:
            found = zip(starts, ends, strict=True)
            before = len(self._packed)
            for start, end in islice(found, self._ranges, len(starts) - 1):
                self._packed += _pair(start, end, self._last)
                self._last = end
            self._compressed += self._compressor.compress(self._packed[before:])
            self._ranges = len(starts) - 1
        tail = _pair(starts[-1], ends[-1], self._last) if starts else b""
        ending = self._compressor.copy()
        compressed = self._compressed + ending.compress(tail) + ending.flush()
        if len(self._packed) + len(tail) <= len(compressed):
            return _PLAIN + base64.b64encode(self._packed + tail).decode()
        return _COMPRESSED + base64.b64encode(compressed).decode()


def _pair(start: int, end: int, last: int | None) -> bytes:
    """A range that begins at least two behind ``last``; None: it is the first."""
    behind = _unsigned(start) if last is None else start - last - 2
    return _number(behind) + _number(end - start)


def _unsigned(value: int) -> int:
    return 2 * value if value >= 0 else -2 * value - 1


def _signed(value: int) -> int:
    return -(value // 2) - 1 if value % 2 else value // 2


def _number(value: int) -> bytes:
    """A number from 0 on, seven bits a byte, the lowest ones first."""
    if value <= _LOW_BITS:
        return bytes((value,))
    packed = bytearray()
    while value > _LOW_BITS:
        packed.append(value & _LOW_BITS | _MORE)
        value >>= 7
    packed.append(value)
    return bytes(packed)


def _unpacked(packed: bytes) -> Iterator[int]:
    """Raises ValueError if the last number is not complete."""
    value = shift = 0
    for byte in packed:
        value |= (byte & _LOW_BITS) << shift
        shift += 7
        if not byte & _MORE:
            yield value
            value = shift = 0
    if shift:
        raise ValueError


def _ranges(numbers: Sequence[int]) -> Iterator[Range]:
    last: int | None = None
    for behind, length in zip(numbers[::2], numbers[1::2], strict=True):
        start = _signed(behind) if last is None else last + 2 + behind
        last = start + length
        yield start, last


def _runs(keys: Sequence[int]) -> Iterator[Range]:
    """The ranges of numbers that are sorted."""
    start = before = keys[0]
    for key in keys:
        if key > before + 1:
            yield start, before
            start = key
        before = key
    yield start, before


def difference(ranges: Iterable[Range], others: Iterable[Range]) -> Iterator[Range]:
    """The numbers of ``ranges`` that are in none of ``others``. Both are in their order; of others
    one is read at a time."""
    remaining = iter(others)
    other = next(remaining, None)
    for start, end in ranges:
        low = start
        while other is not None and other[1] < low:
            other = next(remaining, None)
        while other is not None and other[0] <= end:
            if other[0] > low:
                yield low, other[0] - 1
            low = other[1] + 1
            if low > end:
                break
            other = next(remaining, None)
        if low <= end:
            yield low, end


def within(ranges: Iterable[Range], limits: Range) -> Iterator[Range]:
    """The numbers of ``ranges`` from the least to the greatest of ``limits``."""
    least, greatest = limits
    for start, end in ranges:
        if start <= greatest and end >= least:
            yield max(start, least), min(end, greatest)
