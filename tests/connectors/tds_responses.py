"""Responses of SQL Server, made up from numbers; what the driver and the connector read of them.

They have rows of every format that the connector selects and of some that it does not, in packets
of any size, with messages between the rows; some end too early, or have bits flipped.
"""

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from unittest import mock

from pytds import tds_base
from pytds.cursor import NonMarsCursor
from pytds.row_strategies import tuple_row_strategy
from pytds.tds_socket import _TdsSocket

from tests.sandbox.fivetran import load
from tests.sandbox.mssql import wire
from tests.sandbox.mssql.errors import SqlError

LATIN, CHINESE = b"\x09\x04\xd0\x00\x34", b"\x04\x04\x00\x00\x00"  # collations
_ORDER = 0xA9  # the token
_MOST_EMPTY = 100  # times that a reader may ask for what is not there

Write = Callable[[random.Random], bytes | None]
"""A value as a row has it; None for null, which has a form of its own in each format."""


@dataclass(frozen=True)
class Column:
    """``info``: what the metadata say of its type; ``null``: how a null stands in a row, None if
    there can be none."""

    info: bytes
    write: Write
    null: bytes | None


def _number(code: str) -> Write:
    size = struct.calcsize(f"<{code}")
    extremes = (
        b"\0" * size,
        b"\xff" * size,
        b"\xff" * (size - 1) + b"\x7f",
        b"\0" * (size - 1) + b"\x80",
    )
    return lambda draw: draw.choice([*extremes, draw.randbytes(size)])


def _text(draw: random.Random, most: int) -> bytes:
    size = draw.choice((0, 1, 2, draw.randint(0, 20), draw.randint(0, most)))
    kinds = ("a", "Zürich", "€\x80", "\ud800", "\udc00", "😀", "\0\n\r", "\uffff\ufeff", "漢字")
    text = "".join(draw.choice(kinds) for _ in range(size))
    return text.encode("utf-16-le", "surrogatepass")[: 2 * most]


def _coded(draw: random.Random, most: int) -> bytes:
    size = draw.choice((0, 1, draw.randint(0, most)))
    if draw.random() < 0.7:
        return bytes(draw.choices(b"0123456789-:. aZ~\0", k=size))
    # Some of them are no text in any character set.
    return draw.randbytes(size)


def _bytes(draw: random.Random, most: int) -> bytes:
    return draw.randbytes(draw.choice((0, 1, draw.randint(0, 30), draw.randint(0, most))))


def _sized(value: Write) -> Write:
    def write(draw: random.Random) -> bytes:
        data = value(draw) or b""
        return struct.pack("<H", len(data)) + data

    return write


def _behind_size(value: Write) -> Write:
    def write(draw: random.Random) -> bytes:
        data = value(draw) or b""
        return bytes([len(data)]) + data

    return write


def _in_chunks(value: Write) -> Write:
    def write(draw: random.Random) -> bytes:
        data = value(draw) or b""
        options = wire.PlpOptions(draw.choice((1, 2, 3, 7, 100, 8000)), draw.random() < 0.3)
        if len(data) > 50 * options.chunk:
            options.chunk = 8000
        return wire.plp(data, options)

    return write


def _behind_pointer(value: Write) -> Write:
    def write(draw: random.Random) -> bytes:
        data = value(draw) or b""
        return b"\x10" + draw.randbytes(24) + struct.pack("<I", len(data)) + data

    return write


def columns_of_all_formats(most: int) -> list[Column]:
    """One of each format; texts have up to ``most`` characters."""
    size = struct.pack("<H", 8000)
    table = struct.pack("<BH", 1, 1) + b"t\0"
    fixed = {0x32: "B", 0x30: "B", 0x34: "h", 0x38: "i", 0x7F: "q", 0x3B: "f", 0x3E: "d"}
    nullable = ((0x68, "B"), *((0x26, c) for c in "Bhiq"), (0x6D, "f"), (0x6D, "d"))

    def national(draw: random.Random) -> bytes:
        return _text(draw, most)

    def coded(draw: random.Random) -> bytes:
        return _coded(draw, most)

    def binary(draw: random.Random) -> bytes:
        return _bytes(draw, most)

    null_size, null_long = b"\xff\xff", b"\xff" * 8
    return [
        *(Column(bytes([kind]), _number(code), None) for kind, code in fixed.items()),
        *(
            Column(bytes([kind, struct.calcsize(code)]), _behind_size(_number(code)), b"\0")
            for kind, code in nullable
        ),
        *(Column(bytes([k]) + size + LATIN, _sized(national), null_size) for k in (0xE7, 0xEF)),
        *(
            Column(bytes([kind]) + size + rules, _sized(coded), null_size)
            for kind, rules in ((0xA7, LATIN), (0xAF, LATIN), (0xA7, CHINESE))
        ),
        *(Column(bytes([kind]) + size, _sized(binary), null_size) for kind in (0xA5, 0xAD)),
        Column(b"\xe7\xff\xff" + LATIN, _in_chunks(national), null_long),
        Column(b"\xf1\0", _in_chunks(national), null_long),
        Column(b"\xa5\xff\xff", _in_chunks(binary), null_long),
        Column(b"\x63\xff\xff\xff\x7f" + LATIN + table, _behind_pointer(national), b"\0"),
        Column(b"\x22\xff\xff\xff\x7f" + table, _behind_pointer(binary), b"\0"),
    ]


# Columns that only the driver reads.
OTHER_COLUMNS = [
    Column(b"\xa7\xff\xff" + LATIN, _in_chunks(lambda draw: _coded(draw, 50)), b"\xff" * 8),
    Column(b"\x24\x10", _behind_size(lambda draw: draw.randbytes(16)), b"\0"),
    Column(
        b"\x28", _behind_size(lambda draw: struct.pack("<HB", draw.randint(1, 65535), 3)), b"\0"
    ),
    Column(b"\x3c", lambda draw: draw.randbytes(8), None),
]


@dataclass
class Response:
    """``data``: as it comes over the network, at most ``segment`` bytes at once, and what ``ends``
    it, None if the connection is closed; ``rows``: how many are in it; ``names``: of columns."""

    data: bytes
    rows: int
    names: list[str]
    segment: int
    ends: Exception | None = None


def plain_response(columns: Sequence[Column], rows: int, size: int) -> Response:
    """A response of ``rows`` rows without any fault, in packets of ``size`` bytes."""
    draw = random.Random(1)
    metadata, names = _metadata(columns)
    data = [metadata, *(_row(draw, columns, 0.1) for _ in range(rows)), _done(rows)]
    packets = _packets(draw, b"".join(data), size) * 2  # to two statements
    return Response(b"".join(packets), rows, names, size)


def texts_response(column: Column, texts: Sequence[bytes | None]) -> Response:
    """A response of one column of short texts with these bytes."""
    metadata, names = _metadata([column])
    sized = [b"\xff\xff" if t is None else struct.pack("<H", len(t)) + t for t in texts]
    rows = [bytes([wire.ROW]) + text for text in sized]
    data = b"".join([metadata, *rows, _done(len(rows))])
    packets = _packets(random.Random(1), data, 504) * 2
    return Response(b"".join(packets), len(rows), names, 504)


def cut_response(column: Column) -> Response:
    """A response of one column, whose last packet ends within the chunk of the last of 50 values.
    Each has 100 bytes, in one chunk."""
    metadata, names = _metadata([column])
    value = wire.plp(b"ab" * 50, wire.PlpOptions(chunk=8000))
    rows = (bytes([wire.ROW]) + value) * 50
    packets = _packets(random.Random(1), (metadata + rows)[:-20], 504)
    return Response(b"".join(packets), 49, names, 504)


def response(number: int) -> Response:
    """A response drawn from ``number``, to a statement and to the one after it."""
    draw = random.Random(number)
    columns = _draw_columns(draw)
    rows = draw.choice((0, 1, 3, 10, 40, 200 if len(columns) < 20 else 5))
    metadata, names = _metadata(columns)
    nulls = draw.choice((0, 0.05, 0.5, 1))
    tokens = [metadata]
    for _ in range(rows):
        tokens.append(_row(draw, columns, nulls))
        if draw.random() < 0.02:
            tokens.append(_message(draw))
    if draw.random() < 0.1:
        tokens.append(_message(draw))
    tokens.append(draw.choice((*[_done(rows)] * 6, _done(rows, wire.DONE_ERROR), b"")))
    if draw.random() < 0.1:
        tokens[-1] = _done(rows, wire.DONE_MORE) + metadata + _row(draw, columns, 0) + _done(1)
    data = b"".join(tokens)
    if draw.random() < 0.3:
        data = _flipped(draw, data, len(metadata) if draw.random() < 0.9 else 0)
    packets = _packets(draw, data)
    another = metadata + _row(draw, columns, 0) * 3 + _done(3)
    packets += _packets(draw, another)
    data = b"".join(packets)
    if draw.random() < 0.2:
        data = data[: draw.randrange(len(packets[0]), len(data) + 1)]
    ends = draw.choice((None, ConnectionResetError(104, "reset"), TimeoutError("timed out")))
    return Response(data, rows, names, draw.choice((1 << 20, 1 << 20, 1000, 7)), ends)


def _draw_columns(draw: random.Random) -> list[Column]:
    number = draw.choice((1, 2, draw.randint(1, 20), draw.randint(1, 20), draw.randint(1, 300)))
    kinds = columns_of_all_formats(draw.choice((5, 40, 2000 if number < 10 else 40)))
    if draw.random() < 0.5:
        kinds = draw.sample(kinds, draw.randint(1, 4))
    if draw.random() < 0.05:
        kinds = [*kinds, *OTHER_COLUMNS]
    return draw.choices(kinds, k=number)


def _metadata(columns: Sequence[Column]) -> tuple[bytes, list[str]]:
    names = [f"name of {number}" for number in range(len(columns))]
    parts = [struct.pack("<BH", wire.COLMETADATA, len(columns))]
    for name, column in zip(names, columns, strict=True):
        parts += [struct.pack("<IH", 0, 9), column.info, wire.b_varchar(name)]
    return b"".join(parts), names


def _row(draw: random.Random, columns: Sequence[Column], nulls: float) -> bytes:
    missing = [column.null is not None and draw.random() < nulls for column in columns]
    values = zip(columns, missing, strict=True)
    if draw.random() < 0.5:
        parts = [column.null if null else column.write(draw) for column, null in values]
        return bytes([wire.ROW]) + b"".join(part or b"" for part in parts)
    bits = sum(null << place for place, null in enumerate(missing))
    head = bytes([wire.NBCROW]) + bits.to_bytes((len(columns) + 7) // 8, "little")
    parts = [column.write(draw) for column, null in values if not null]
    return head + b"".join(part or b"" for part in parts)


def _message(draw: random.Random) -> bytes:
    text = SqlError(draw.choice((1205, 50_000)), "text " * draw.randint(0, 200), severity=9)
    order = struct.pack("<BHH", _ORDER, 2, 1)
    language = wire.envchange_text(wire.ENV_LANGUAGE, "us_english", "")
    kinds = [wire.message(token, text, "server") for token in (wire.ERROR, wire.INFO)]
    return draw.choice((*kinds, order, language))


def _done(rows: int, status: int = 0) -> bytes:
    return wire.done(wire.DONE, status | wire.DONE_COUNT, rows)


def _flipped(draw: random.Random, data: bytes, start: int) -> bytes:
    flipped = bytearray(data)
    for _ in range(draw.choice((1, 1, 3))):
        if start < len(flipped):
            flipped[draw.randrange(start, len(flipped))] ^= 1 << draw.randrange(8)
    return bytes(flipped)


def _packets(draw: random.Random, data: bytes, most: int = 0) -> list[bytes]:
    """The data in packets of up to ``most`` bytes; 0: of sizes that are drawn, now and then
    without data or without an end."""
    careful = most > 0
    most = most or draw.choice((1, 20, 504, 504, 4088, 32_759))
    least = most if careful else draw.choice((1, most))
    packets, place = list[bytes](), 0
    while place < len(data) or not packets:
        size = draw.randint(least, most) if careful or draw.random() < 0.999 else 0
        body, place = data[place : place + size], place + size
        ends = careful or draw.random() < 0.98
        packets.append(_packet(body, last=place >= len(data) and ends))
    if packets[-1][1] == 0:
        packets.append(_packet(b"", last=True))
    return packets


def _packet(body: bytes, *, last: bool) -> bytes:
    size = wire.HEADER_SIZE + len(body)
    return wire.HEADER.pack(wire.REPLY, int(last), size, 51, 1, 0) + body


# Reading


class Loop(AssertionError):
    """A reader asks again and again for what is not there, as the stock driver does for a value of
    a MAX type that is cut in the last packet."""


class Network:
    """What the driver takes for a socket."""

    def __init__(self, response: Response) -> None:
        self.place, self._response, self.closed = 0, response, False

    def recv_into(self, view: memoryview, size: int) -> int:
        if size > len(view):
            raise ValueError("buffer too small for requested bytes")
        left = self._response.data[self.place : self.place + min(size, self._response.segment)]
        if not left and self._response.ends:
            raise self._response.ends
        view[: len(left)] = left
        self.place += len(left)
        return len(left)

    def close(self) -> None:
        self.closed = True


def read(response: Response, open_rows: Callable[[Any], Callable[[], list[Any]]]) -> list[str]:
    """What is made of a response: rows, errors, and the state of the connection behind them.
    ``open_rows`` makes of a cursor what fetches its rows, none at their end."""
    network = Network(response)
    login = tds_base._TdsLogin()
    login.bytes_to_unicode = True
    connection = _TdsSocket(network, login, row_strategy=tuple_row_strategy)
    session = connection.main_session
    session._reader.set_block_size(32_767)
    session._reader.recv = _bounded(session._reader.recv)
    found: list[str] = []
    try:
        for _ in range(2):
            session.state, session.messages = tds_base.TDS_PENDING, []
            session.begin_response()
            session.find_result_or_done()
            cursor = NonMarsCursor(None, session)
            fetch = open_rows(cursor)
            while rows := fetch():
                found += map(repr, rows)
            found.append(f"{session.res_info.row_count} rows, {_state(session, network)}")
            while session.next_set():
                found.append(_state(session, network))
            found.append(_state(session, network))
            if session._reader.stream_finished():  # else a packet without data may be next
                found.append(f"{network.place} bytes")
    except Loop:
        raise
    except Exception as error:
        found.append(f"{type(error).__name__}: {error}")
        count = session.res_info.row_count if session.res_info else None
        found.append(f"{count} rows, {_state(session, network)}")
    return found


def _bounded(recv: Callable[[int], bytes]) -> Callable[[int], bytes]:
    empty = 0

    def recv_or_end(size: int) -> bytes:
        nonlocal empty
        data = recv(size)
        empty = 0 if data else empty + 1
        if empty > _MOST_EMPTY:
            raise Loop
        return data

    return recv_or_end


def _state(session: Any, network: Network) -> str:
    reader = session._reader
    names = ("state", "more_rows", "done_flags", "rows_affected", "messages", "in_cancel")
    states = {name: getattr(session, name) for name in names}
    return f"{states}, finished {reader.stream_finished()}, closed {network.closed}"


def by_driver(cursor: Any) -> Callable[[], list[Any]]:
    """Fetches the rows of ``cursor`` as the driver decodes them."""

    def fetch() -> list[Any]:
        row = cursor.fetchone()
        return [] if row is None else [row]

    return fetch


def decoded(number: int) -> Callable[[Any], Callable[[], list[Any]]]:
    """Fetches rows as the connector decodes them, as many at once as are drawn from ``number``."""
    draw = random.Random(number)

    def rows_of(cursor: Any) -> Callable[[], list[Any]]:
        reader = _connector().RowReader(cursor)
        return lambda: reader.fetch(draw.choice((1, 3, 1000)))

    return rows_of


def compare(number: int) -> int:
    """Reads the response that is drawn from ``number`` in both ways; returns how many rows it has.
    Raises AssertionError unless they give the same."""
    drawn = response(number)
    with mock.patch.object(_connector(), "DRIVERS_OWN", 1):
        assert read(drawn, decoded(number)) == read(drawn, by_driver)
    return drawn.rows


def _connector() -> Any:
    load("mssql_ehi")
    return import_module("sqlserver.row_reader")
