"""The rows of a result of python-tds, decoded by a function that is generated for the result.

The driver reads everything else, and the rows that this function does not take: the driver's
reader then holds exactly the bytes that have not been decoded, as if they were one packet.
"""

from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from fivetran_connector_sdk import Logging
from pytds import cursor, tds_base, tds_reader, tds_session, tds_socket, tds_types

from . import row_decoder
from .row_decoder import Decode, Format

DRIVER = "1.17.1"  # the version whose internals this module knows
DRIVERS_OWN = 200  # rows of a result before a decoder is made, which takes milliseconds
MOST_COLUMNS = 1024  # to compile a decoder of so many takes 60 MB and 0.15 s
LARGEST_ROW = 1024 * 1024  # bytes; the driver is as quick with larger ones
_LAST = 1  # the status of the last packet of a response
_INTEGERS = {1: "B", 2: "h", 4: "i", 8: "q"}
_FLOATS = {4: "f", 8: "d"}
# By the driver's class: those types that the connector's own statements select. The driver alone
# reads a result that has any other.
_FORMATS = {
    "BitSerializer": Format(row_decoder.FIXED, "?"),
    "TinyIntSerializer": Format(row_decoder.FIXED, "B"),
    "SmallIntSerializer": Format(row_decoder.FIXED, "h"),
    "IntSerializer": Format(row_decoder.FIXED, "i"),
    "BigIntSerializer": Format(row_decoder.FIXED, "q"),
    "RealSerializer": Format(row_decoder.FIXED, "f"),
    "FloatSerializer": Format(row_decoder.FIXED, "d"),
    "BitNSerializer": Format(row_decoder.NULLABLE, "?"),
    "IntNSerializer": Format(row_decoder.NULLABLE),  # the code depends on the size
    "FloatNSerializer": Format(row_decoder.NULLABLE),
    "NVarChar72Serializer": Format(row_decoder.NATIONAL),
    "VarChar72Serializer": Format(row_decoder.CODED),
    "VarBinarySerializer": Format(row_decoder.BINARY),
    "VarBinarySerializer72": Format(row_decoder.BINARY),
    "NVarCharMaxSerializer": Format(row_decoder.LONG_NATIONAL),
    "XmlSerializer": Format(row_decoder.LONG_NATIONAL),
    "VarBinarySerializerMax": Format(row_decoder.LONG_BINARY),
    "NText72Serializer": Format(row_decoder.OLD_NATIONAL),
    "Image72Serializer": Format(row_decoder.OLD_BINARY),
}
_CODES = {"IntNSerializer": _INTEGERS, "FloatNSerializer": _FLOATS}
_READER = ("_type", "_status", "_spid", "_size", "_pos", "_have")  # what a packet changes
_ASCII = bytes(range(128))
_HALF = b"\0\xd8"  # of a surrogate pair

Values = tuple[Any, ...]


class RowReader:
    """The rows of ``result``, a cursor of the driver at which a statement was executed."""

    def __init__(self, result: Any) -> None:
        self._fetch_by_driver = result.fetchone
        self._session = result._session
        self._reader = self._session._reader
        self._read_by_driver = 0
        self._decode: Decode | None = None
        # Bytes that the driver's reader has read and that are decoded here, and how far.
        self._data, self._place = b"", 0
        self._buffer: Any = b""  # the reader's own, while it holds what is given back
        self._pending: _Pending | None = None

    def fetch(self, most: int) -> list[Values]:
        """Rows that follow, at least one and at most ``most``; none at the end.

        Raises what the driver raises. It returns no later than the driver: rows that are there
        are not held up for others that have yet to come.
        """
        if self._decode is None:
            return self._fetch_one()
        rows: list[Values] = []
        while True:
            self._place, why = self._decode(self._data, self._place, most, rows.append)
            if rows:
                self._session.res_info.row_count += len(rows)
                return rows
            if why != row_decoder.MORE or not self._read_more():
                self._give_back()
                return self._fetch_one()

    def _fetch_one(self) -> list[Values]:
        """The next row as the driver decodes it; from then on they may be decoded here."""
        info = self._session.res_info
        row = self._fetch_by_driver()
        if row is None or self._session.res_info is not info:
            self._decode, self._read_by_driver = None, 0
        else:
            self._read_by_driver += 1
            if self._read_by_driver == DRIVERS_OWN:
                self._decode = _decoder_of(self._session)
        if self._decode is not None:
            self._take()
        return [] if row is None else [row]

    def _take(self) -> None:
        reader = self._reader
        self._data, self._place = bytes(reader._buf[reader._pos : reader._size]), 0
        reader._pos = reader._size
        if "_read_packet" in vars(reader):
            self._restore()

    def _give_back(self) -> None:
        """Lets the driver go on with what is not decoded, up to the next packet."""
        reader, left = self._reader, self._data[self._place :]
        self._buffer, self._data = reader._buf, b""
        reader._buf, reader._pos, reader._size = left, 0, len(left)
        reader._read_packet = self._read_packet

    def _read_packet(self) -> None:
        """In place of the driver's function of this name, for once."""
        self._restore()
        pending, self._pending = self._pending, None
        if pending is None:
            self._reader._read_packet()
        else:
            pending.happen(self._reader)

    def _restore(self) -> None:
        del self._reader._read_packet
        self._reader._buf = self._buffer

    def _read_more(self) -> bool:
        """Reads packets until there is twice as much as the row that is not whole, so that no byte
        is looked at more than a few times. Returns whether there is more than before."""
        reader = self._reader
        left = len(self._data) - self._place
        parts, size = [self._data[self._place :]], left
        while size < 2 * left or size == left:
            if self._pending or reader._status == _LAST or left > LARGEST_ROW:
                break
            self._pending = _Pending.read(reader)
            if self._pending is None:
                parts.append(bytes(reader._buf[reader._pos : reader._size]))
                size += reader._size - reader._pos
                reader._pos = reader._size
        self._data, self._place = b"".join(parts), 0
        return size > left


class _Pending:
    """A packet without data, or an error in place of one, that the driver is to meet when it has
    read what came before."""

    def __init__(self, reader: Any, error: Exception | None) -> None:
        self._error = error
        self._state = {name: getattr(reader, name) for name in _READER}

    @classmethod
    def read(cls, reader: Any) -> "_Pending | None":
        """Lets ``reader`` read a packet; None if it has data."""
        status = reader._status
        try:
            reader._read_packet()
        except Exception as error:
            pending = cls(reader, error)
        else:
            if reader._size > reader._pos:
                return None
            pending = cls(reader, None)
        reader._status = status
        return pending

    def happen(self, reader: Any) -> None:
        """Leaves ``reader`` as it was left by what was read, or raises what was raised."""
        vars(reader).update(self._state)
        if self._error is not None:
            raise self._error


def _decoder_of(session: Any) -> Decode | None:
    """The function that decodes the rows of the session's result; None if the driver has to."""
    if _UNKNOWN:
        _warn_of_driver()
        return None
    serializers = [column.serializer for column in session.res_info.columns]
    formats = [form for form in map(_format_of, serializers) if form is not None]
    if len(formats) < len(serializers) or not 0 < len(formats) <= MOST_COLUMNS:
        return None
    coded = [form.kind == row_decoder.CODED for form in formats]
    if session._row_convertor is not tuple or not _keeps_halves():
        return None
    if any(coded) and not session._tds._login.bytes_to_unicode:
        return None
    codecs = [
        serializer._codec.decode if is_coded else None
        for serializer, is_coded in zip(serializers, coded, strict=True)
    ]
    return row_decoder.decoder(formats, codecs)


def _format_of(serializer: Any) -> Format | None:
    # Exactly these classes: one that is derived from them may read otherwise.
    name = type(serializer).__name__
    form = _FORMATS.get(name) if type(serializer) is getattr(tds_types, name, None) else None
    if form is None:
        return None
    if name in _CODES:
        return form._replace(code=_CODES[name][serializer.size])
    if form.kind == row_decoder.CODED and serializer._codec.decode(_ASCII)[0] != _ASCII.decode():
        return None
    return form


def _keeps_halves() -> bool:
    """Whether the driver decodes text with half of a surrogate pair, as a decoder here does."""
    try:
        return bool(tds_types.ucs2_codec.decode(_HALF)[0] == "\ud800")
    except UnicodeDecodeError:
        return False


@lru_cache(maxsize=1)
def _warn_of_driver() -> None:
    Logging.warning(
        f"The connector decodes rows by itself only with python-tds {DRIVER}; here {_UNKNOWN}, so "
        "the driver decodes them, which takes several times as long"
    )


def _unknown_of_driver() -> str:
    """What is not as this module knows it of the driver, "" if all is."""
    try:
        found = version("python-tds")
    except PackageNotFoundError:
        found = "unknown"
    if found != DRIVER:
        return f"its version is {found}"
    missing = [name for owner, names in _USED for name in names if not _has(owner, name)]
    return f"it lacks {', '.join(missing)}" if missing else ""


def _has(owner: Any, name: str) -> bool:
    """Whether a class, its instances or a module have an attribute."""
    made = getattr(getattr(owner, "__init__", None), "__code__", None)
    return hasattr(owner, name) or (made is not None and name in made.co_names)


_USED: list[tuple[Any, tuple[str, ...]]] = [
    (tds_types, (*_FORMATS, "ucs2_codec")),
    (tds_types.VarChar72Serializer, ("_codec",)),
    (tds_reader._TdsReader, (*_READER, "_buf", "_bufview", "_read_packet", "get_block_size")),
    (tds_session._TdsSession, ("_reader", "_tds", "_row_convertor", "res_info")),
    (tds_socket._TdsSocket, ("_login",)),
    (tds_base._TdsLogin, ("bytes_to_unicode",)),
    (tds_base._Results, ("columns", "row_count")),
    (tds_base.Column, ("serializer",)),
    (cursor.BaseCursor, ("_session", "fetchone")),
]
_UNKNOWN = _unknown_of_driver()
