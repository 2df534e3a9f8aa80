"""A decoder of rows that is generated for the wire formats of one result.

The driver calls several functions for each value. Here a function is made for the very columns of
a result. It decodes as many whole rows as a buffer holds; numbers that stand side by side take one
call of struct. It gives the values that the driver gives, or none: at a row that is odd in any way
it stops, so that the driver decodes the row, or says what is wrong with it.

The source text is put together from the lines in this module and from numbers: places and sizes
of columns, and codes of struct. It has no text in it that came from the server.

Formats: https://learn.microsoft.com/openspecs/windows_protocols/ms-tds/ ([MS-TDS] 2.2.5, 2.2.7)
"""

import struct
from codecs import utf_16_le_decode
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

ROW, COMPRESSED_ROW = 0xD1, 0xD2  # the tokens; a compressed row has no values for its nulls
# Why a decoder stopped.
FULL, MORE, OTHER, ODD = range(4)

Decode = Callable[[bytes, int, int, Callable[[Any], None]], tuple[int, int]]
"""``decode(data, start, most, append)`` calls ``append`` with at most ``most`` rows, as tuples,
that begin at ``start``. It returns the first byte of the token where it stopped, and why: FULL,
``most`` rows were decoded; MORE, ``data`` ends there or in that row; OTHER, the token is none of
a row; ODD, the row is one for the driver."""


class Format(NamedTuple):
    """How the values of a column come.

    ``kind``: how their end is found, one of the constants below; ``code``: that of struct, for a
    number.
    """

    kind: str
    code: str = ""

    @property
    def size(self) -> int:
        """Bytes of a number."""
        return struct.calcsize(f"<{self.code}")


FIXED = "fixed"  # a number that is never null
NULLABLE = "nullable"  # a number behind its size in a byte, which is 0 for null
NATIONAL, CODED, BINARY = "national", "coded", "binary"  # behind their sizes in two bytes
LONG_NATIONAL, LONG_BINARY = "long national", "long binary"  # in chunks
OLD_NATIONAL, OLD_BINARY = "old national", "old binary"  # behind a pointer: ntext and image

_NUMBERS, _SHORT = (FIXED, NULLABLE), (NATIONAL, CODED, BINARY)
_LONG = (LONG_NATIONAL, LONG_BINARY)
_UTF_16 = (NATIONAL, LONG_NATIONAL, OLD_NATIONAL)
_WORD = 16  # columns whose bits of null are read as one number
_LARGEST_OLD = 0x7FFFFFFF  # bytes
_NULL_LONG, _UNKNOWN = 0xFFFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFE  # in place of a length
_POINTER = 16  # bytes
_TIMESTAMP = 8  # bytes behind a pointer

_unpack_start = struct.Struct("<QI").unpack_from
_unpack_size = struct.Struct("<I").unpack_from


class _Odd(Exception):
    """A value is one for the driver."""


def decoder(
    formats: Sequence[Format], codecs: Sequence[Callable[[bytes], tuple[str, int]] | None]
) -> Decode:
    """The function that decodes the rows of columns with these ``formats``. ``codecs``: what
    decodes the bytes of each CODED column; each must take ASCII for what it is."""
    code, scope = _compiled(tuple(formats))
    scope = {**scope, **{f"codec{place}": codec for place, codec in enumerate(codecs)}}
    exec(code, scope)  # noqa: S102  # of this module's own lines, and of numbers
    decode: Decode = scope["decode"]
    return decode


@lru_cache(maxsize=32)  # a shape of 1,000 columns takes 1 MB
def _compiled(formats: tuple[Format, ...]) -> tuple[Any, dict[str, Any]]:
    writer = _Writer(formats)
    code = compile(writer.source(), "<rows>", "exec")
    unpackers = {
        f"unpack{number}": struct.Struct(f"<{codes}").unpack_from
        for codes, number in writer.structs.items()
    }
    names = {"Odd": _Odd, "struct_error": struct.error, "utf_16": utf_16_le_decode}
    return code, {**names, **unpackers, "read_long": _read_long, "read_old": _read_old}


class _Writer:
    """Writes the source of a decoder. In it, ``data`` ends at ``end``, ``s`` is where the row
    begins, ``p`` how far it is read, and v0, v1, ... are its values; ``n`` is the size, ``q`` the
    end, and ``b`` the bytes of a value. ``structs``: the numbers of unpackers, by their codes."""

    def __init__(self, formats: Sequence[Format]) -> None:
        self.structs: dict[str, int] = {}
        self._formats, self._lines, self._depth = formats, list[str](), 0

    def source(self) -> str:
        """The source of the function ``decode``."""
        with self._block("def decode(data, start, most, append):"):
            self._add("end = len(data)", "p = q = s = start")
            with self._block("try:"), self._block("for _ in range(most):"):
                self._write_loop()
            # Whatever lies behind the end of the data, nothing is taken from there.
            with self._block("except (IndexError, struct_error):"):
                self._add(f"return s, {MORE}")
            with self._block("except (UnicodeDecodeError, Odd):"):
                self._add(f"return s, {MORE} if q > end else {ODD}")
            self._add(f"return p, {FULL}")
        return "\n".join(self._lines)

    def _write_loop(self) -> None:
        self._add("s = p", "token = data[p]", "p += 1")
        with self._block(f"if token == {ROW}:"):
            self._write_row(compressed=False)
        with self._block(f"elif token == {COMPRESSED_ROW}:"):
            words, rest = divmod((len(self._formats) + 7) // 8, 2)
            code = "H" * words + "B" * rest
            names = "".join(f"m{number}, " for number in range(len(code)))
            self._add(f"{names}= {self._unpack(code)}(data, p)", f"p += {2 * words + rest}")
            self._write_row(compressed=True)
        with self._block("else:"):
            self._add(f"return s, {OTHER}")
        with self._block("if p > end:"):
            self._add(f"return s, {MORE}")
        values = "".join(f"v{place}, " for place in range(len(self._formats)))
        self._add(f"append(({values}))")

    # The columns of a row, in runs whose places are known

    def _write_row(self, *, compressed: bool) -> None:
        place = 0
        while place < len(self._formats):
            end = self._end_of_run(place)
            if end - place > 1:
                self._write_run(place, end, compressed=compressed)
                place = end
            else:
                self._write_column(place, compressed=compressed)
                place += 1

    def _end_of_run(self, start: int) -> int:
        """The end of the numbers from ``start`` on, and of the short value behind them."""
        last = min(len(self._formats), start - start % _WORD + _WORD)
        for place in range(start, last):
            kind = self._formats[place].kind
            if kind not in _NUMBERS:
                return place + 1 if kind in _SHORT else place
        return last

    def _write_run(self, start: int, end: int, *, compressed: bool) -> None:
        """Numbers, and the size of the value behind them, are unpacked at once, unless one of
        them is null."""
        codes, names, conditions = "", "", []
        for place in range(start, end):
            form = self._formats[place]
            if form.kind == FIXED:
                codes, names = codes + form.code, f"{names}v{place}, "
            elif form.kind == NULLABLE:
                codes, names = f"{codes}B{form.code}", f"{names}n{place}, v{place}, "
                conditions.append(f"n{place} == {form.size}")
            else:
                codes, names = f"{codes}H", f"{names}n{place}, "
        unpack = f"{names}= {self._unpack(codes)}(data, p)"
        if compressed:
            bits = sum(1 << place % _WORD for place in range(start, end))
            complete = f"m{start // _WORD} & {bits} == 0"
            conditions.insert(0, complete)
            with self._block(f"if {complete}:"):
                self._add(unpack)
        else:
            self._add(unpack)
        with self._block(f"if {' and '.join(conditions) or True}:"):
            self._add(f"p += {struct.calcsize(f'<{codes}')}")
            if self._formats[end - 1].kind in _SHORT:
                self._write_short(end - 1)
        with self._block("else:"):
            for place in range(start, end):
                self._write_column(place, compressed=compressed)

    # One column, whatever it holds

    def _write_column(self, place: int, *, compressed: bool) -> None:
        if not compressed:
            self._write_value(place)
            return
        with self._block(f"if m{place // _WORD} & {1 << place % _WORD}:"):
            self._add(f"v{place} = None")
        with self._block("else:"):
            self._write_value(place)

    def _write_value(self, place: int) -> None:
        form = self._formats[place]
        if form.kind == FIXED:
            self._add(f"v{place}, = {self._unpack(form.code)}(data, p)", f"p += {form.size}")
        elif form.kind == NULLABLE:
            self._write_nullable(place)
        elif form.kind in _SHORT:
            self._add(f"n{place}, = {self._unpack('H')}(data, p)", "p += 2")
            self._write_short(place)
        else:
            read = "read_long" if form.kind in _LONG else "read_old"
            self._add(f"b, p = {read}(data, p)")
            self._add(f"v{place} = None if b is None else {_value(form, place)}")

    def _write_nullable(self, place: int) -> None:
        form = self._formats[place]
        self._add("n = data[p]", "p += 1")
        with self._block(f"if n == {form.size}:"):
            self._add(f"v{place}, = {self._unpack(form.code)}(data, p)", f"p += {form.size}")
        with self._block("elif n == 0:"):
            self._add(f"v{place} = None")
        with self._block("else:"):
            self._add("raise Odd")

    def _write_short(self, place: int) -> None:
        """The bytes at ``p``, whose number has been read."""
        form = self._formats[place]
        # The driver takes the size for one with a sign where the text is coded.
        with self._block(f"if n{place} {'> 32767' if form.kind == CODED else '== 65535'}:"):
            self._add(f"v{place} = None")
        with self._block("else:"):
            self._add(f"q = p + n{place}", "b = data[p:q]", "p = q")
            self._add(f"v{place} = {_value(form, place)}")

    # Lines

    @contextmanager
    def _block(self, head: str) -> Iterator[None]:
        self._add(head)
        self._depth += 1
        yield
        self._depth -= 1

    def _add(self, *lines: str) -> None:
        self._lines += [f"{' ' * self._depth}{line}" for line in lines]

    def _unpack(self, codes: str) -> str:
        return f"unpack{self.structs.setdefault(codes, len(self.structs))}"


def _value(form: Format, place: int) -> str:
    """What makes a value of its bytes."""
    if form.kind in _UTF_16:
        return "utf_16(b, 'surrogatepass', True)[0]"
    if form.kind == CODED:  # ASCII, as the server makes it of numbers and times, is quicker so
        return f"b.decode() if b.isascii() else codec{place}(b)[0]"
    return "b"


def _read_long(data: bytes, p: int) -> tuple[bytes | None, int]:
    """A value that comes in chunks, and its end. Raises struct.error behind the data's end."""
    total, size = _unpack_start(data, p)
    if total == _NULL_LONG:
        return None, p + 8
    p += 12
    chunks = []
    while size:
        end = p + size
        (size,) = _unpack_size(data, end)
        chunks.append(data[p:end])
        p = end + 4
    value = chunks[0] if len(chunks) == 1 else b"".join(chunks)
    if total not in (len(value), _UNKNOWN):
        raise _Odd
    return value, p


def _read_old(data: bytes, p: int) -> tuple[bytes | None, int]:
    """A value behind a pointer to it, and its end. Raises IndexError or struct.error behind the
    data's end."""
    if data[p] == 0:
        return None, p + 1
    if data[p] != _POINTER:
        raise _Odd
    p += 1 + _POINTER + _TIMESTAMP
    (size,) = _unpack_size(data, p)
    p += 4
    end = p + size
    if size > _LARGEST_OLD:
        raise _Odd
    if end > len(data):
        raise IndexError
    return data[p:end], end
