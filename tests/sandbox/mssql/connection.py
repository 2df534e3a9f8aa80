"""One client: login, requests, and results that are sent as they are read."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from tests.sandbox.mssql import types, wire
from tests.sandbox.mssql.collation import collation
from tests.sandbox.mssql.compiler import ErrorList
from tests.sandbox.mssql.errors import SqlError, error, unsupported
from tests.sandbox.mssql.faults import Fault
from tests.sandbox.mssql.session import Changed, Done, ResultSet, Session
from tests.sandbox.mssql.store import Row
from tests.sandbox.mssql.tls import Disconnected, Plain, Secure, Transport
from tests.sandbox.mssql.wire import Parameter, Reader

if TYPE_CHECKING:
    from tests.sandbox.mssql.server import MssqlSandbox

_SERVER_NAME = "sandbox"
_PROGRAM, _PROGRAM_VERSION = "Microsoft SQL Server", (16, 0, 0x10, 0x27)
_FLUSH = 65_536
_ENCRYPT_OFF, _ENCRYPT_ON, _ENCRYPT_NOT_SUP, _ENCRYPT_REQ = 0, 1, 2, 3


class Cancelled(Exception):
    """The client sent an attention."""


@dataclass(frozen=True)
class Fragmentation:
    """How replies are cut. Sizes are drawn from the inclusive ranges, by a generator from `seed`.

    `packet` is the payload of a TDS packet in bytes (1 and up, at most the negotiated size less
    8); `segments` are sizes of TCP segments, used in turn.
    """

    packet: tuple[int, int] | None = None
    segments: tuple[int, ...] = ()
    seed: int = 0


class Reply:
    """Collects the tokens of one message and sends them in packets."""

    def __init__(
        self, transport: Transport, packet_size: int, spid: int, cut: Fragmentation
    ) -> None:
        self._transport = transport
        self._payload = packet_size - wire.HEADER_SIZE
        self._spid = spid
        self._number = 0
        self._buffer = bytearray()
        self._sizes: Callable[[], int] | None = None
        if cut.packet is not None:
            low, high = cut.packet
            draw = random.Random(cut.seed)
            self._sizes = lambda: min(draw.randint(low, high), self._payload)

    def write(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= _FLUSH:
            self.flush()

    @property
    def waiting(self) -> int:
        return len(self._buffer)

    def _packet(self, body: bytes | memoryview, last: bool) -> list[bytes | memoryview]:
        self._number = self._number % 255 + 1
        size = wire.HEADER_SIZE + len(body)
        status = wire.END_OF_MESSAGE if last else 0
        return [wire.HEADER.pack(wire.REPLY, status, size, self._spid, self._number, 0), body]

    def flush(self, final: bool = False, partial: bool = False) -> None:
        """Sends what makes whole packets; all of it when `final` or `partial`."""
        data = bytes(self._buffer)
        view, start, parts = memoryview(data), 0, []
        while True:
            size = self._sizes() if self._sizes else self._payload
            left = len(data) - start
            if (left <= size and not partial) or left == 0:
                break
            parts += self._packet(view[start : start + size], last=False)
            start += min(size, left)
        self._buffer = bytearray(view[start:])
        if final:
            parts += self._packet(bytes(self._buffer), last=True)
            self._buffer.clear()
        if parts:
            self._transport.send(b"".join(parts))


@dataclass(eq=False)
class Connection:
    """A thread runs `serve` for one accepted socket."""

    server: MssqlSandbox
    socket: socket.socket
    packet_size: int = 4096
    session: Session | None = None
    _reply: Reply | None = None
    _encoders: dict[tuple[wire.Column, ...], Callable[[Sequence[object]], bytes]] = field(
        default_factory=dict
    )

    def __post_init__(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.plain = Plain(self.socket)
        self.transport: Transport = self.plain

    def serve(self) -> None:
        try:
            if self._login():
                while True:
                    self._request()
        except Disconnected:
            pass
        except Exception as problem:  # kept for the test to see
            self.server.failures.append(problem)
        finally:
            if self.session is not None:
                self.session.close()
            self.socket.close()

    def abort(self) -> None:
        """Ends the connection from another thread."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def _message(self) -> tuple[int, bytes]:
        """(type, body) of one whole request."""
        body = bytearray()
        while True:
            header = self.transport.receive(wire.HEADER_SIZE)
            kind, status, length, _, _, _ = wire.HEADER.unpack(header)
            body += self.transport.receive(length - wire.HEADER_SIZE)
            if status & wire.END_OF_MESSAGE:
                return kind, bytes(body)

    # Login

    def _start_reply(self) -> Reply:
        spid = self.session.spid if self.session else 0
        cut = self.server.fragmentation if self.session else Fragmentation()
        self.plain.segments = cut.segments
        self._reply = Reply(self.transport, self.packet_size, spid, cut)
        return self._reply

    def _login(self) -> bool:
        fault = self.server.faults.take_login()
        if fault is not None and fault.kind == "drop":
            return False
        kind, body = self._message()
        if kind != wire.PRELOGIN:
            return False
        if fault is not None and fault.kind == "stall":
            self._stall(fault)
            fault = None
        only_login = self._prelogin(body)
        kind, body = self._message()
        if kind != wire.LOGIN7:
            return False
        encrypted = self.transport is not self.plain
        if only_login:
            self.transport = self.plain
        login = wire.read_login(body)
        reply = self._start_reply()
        if login.windows is not None:
            login = self._log_in_as_windows_account(login, login.windows)
            reply = self._start_reply()
        problems = [fault.problem] if fault and fault.problem else self.server.check_login(login)
        self.server.log_login(login, [p.number for p in problems], encrypted)
        if problems:
            for problem in problems:
                reply.write(wire.message(wire.ERROR, problem, _SERVER_NAME))
            reply.write(wire.done(wire.DONE, wire.DONE_ERROR))
            reply.flush(final=True)
            return False
        if route := self.server.route_of(login):
            reply.write(wire.loginack(_PROGRAM, _PROGRAM_VERSION))
            reply.write(wire.envchange_routing(*route))
            reply.write(wire.done(wire.DONE, 0))
            reply.flush(final=True)
            return False
        self._accept(login, reply)
        return True

    def _log_in_as_windows_account(self, login: wire.Login, message: bytes) -> wire.Login:
        """Challenges the client (2.2.7.22). The account is the login's user, "" if it is none."""
        exchange = self.server.accounts.exchange()
        assert self._reply is not None
        self._reply.write(wire.sspi(exchange.challenge(message)))
        self._reply.flush(final=True)
        kind, response = self._message()
        if kind != wire.SSPI_MESSAGE:
            raise Disconnected
        return replace(login, user=exchange.account(response))

    def _prelogin(self, body: bytes) -> bool:
        """Negotiates encryption (2.2.6.5). Returns whether it ends after the login."""
        asked, federated = _ENCRYPT_NOT_SUP, False
        place = 0
        while body[place] != 0xFF:
            option, offset, length = struct.unpack_from(">BHH", body, place)
            if option == 1 and length:
                asked = body[offset]
            elif option == 6 and length:
                federated = bool(body[offset])
            place += 5
        response = self._encryption(asked)
        options = {
            0: bytes([16, 0, 0x10, 0x27, 0, 0]),
            1: bytes([response]),
            2: b"\0",
            3: b"",
            4: b"\0",
        }
        if federated:
            options[6] = b"\1"
        offset, head, data = 5 * len(options) + 1, b"", b""
        for option, value in options.items():
            head += struct.pack(">BHH", option, offset + len(data), len(value))
            data += value
        reply = self._start_reply()
        reply.write(head + b"\xff" + data)
        reply.flush(final=True)
        if response == _ENCRYPT_NOT_SUP or (
            response == _ENCRYPT_REQ and asked == _ENCRYPT_NOT_SUP
        ):
            if response == _ENCRYPT_REQ:
                raise Disconnected
            return False
        secure = Secure(self.plain, self.server.tls_context())
        secure.handshake()
        self.transport = secure
        return response == _ENCRYPT_OFF

    def _encryption(self, asked: int) -> int:
        policy = self.server.encryption
        if policy == "not_supported":
            return _ENCRYPT_NOT_SUP
        if policy == "required":
            return _ENCRYPT_ON if asked == _ENCRYPT_ON else _ENCRYPT_REQ
        return {
            _ENCRYPT_ON: _ENCRYPT_ON,
            _ENCRYPT_REQ: _ENCRYPT_ON,
            _ENCRYPT_OFF: _ENCRYPT_OFF,
        }.get(asked, _ENCRYPT_NOT_SUP)

    def _accept(self, login: wire.Login, reply: Reply) -> None:
        wanted = login.database or "master"
        self.session = session = self.server.open_session(login, wanted)
        size = self.server.packet_size or min(max(login.packet_size, 512), 32767)
        rules = collation(session.database.collation)
        assert rules is not None
        name = session.database.name
        changed = SqlError(5701, f"Changed database context to '{name}'.", severity=0, state=2)
        spoken = SqlError(5703, "Changed language setting to us_english.", severity=0)
        reply.write(wire.envchange_text(wire.ENV_DATABASE, name, "master"))
        reply.write(wire.message(wire.INFO, changed, _SERVER_NAME))
        raw = rules.wire()
        reply.write(wire.envchange(wire.ENV_COLLATION, bytes([len(raw)]) + raw))
        reply.write(wire.envchange_text(wire.ENV_LANGUAGE, "us_english", ""))
        reply.write(wire.message(wire.INFO, spoken, _SERVER_NAME))
        reply.write(wire.loginack(_PROGRAM, _PROGRAM_VERSION))
        reply.write(wire.envchange_text(wire.ENV_PACKET_SIZE, str(size), str(self.packet_size)))
        if login.token is not None:
            reply.write(bytes([wire.FEATUREEXTACK, 0x02]) + struct.pack("<I", 0) + b"\xff")
        reply.write(wire.done(wire.DONE, 0))
        reply.flush(final=True)
        self.packet_size = size

    # Requests

    def _request(self) -> None:
        kind, body = self._message()
        reply = self._start_reply()
        try:
            if kind == wire.BATCH:
                r = Reader(body)
                r.skip_headers()
                self._run(r.data[r.position :].decode("utf-16-le", "surrogatepass"), (), wire.DONE)
            elif kind == wire.RPC:
                self._rpc(Reader(body))
            elif kind == wire.TRANSACTION:
                self._transaction(Reader(body))
            elif kind == wire.ATTENTION:
                raise Cancelled
            else:
                raise unsupported(f"packet type {kind}")
        except SqlError as problem:
            self._fail([problem], wire.DONE)
        except Cancelled:
            reply.write(wire.done(wire.DONE, wire.DONE_ATTN))
        except (Disconnected, OSError):
            raise
        except Exception as problem:  # a fault of the simulator itself
            self.server.failures.append(problem)
            text = f"A system assertion check has failed: {type(problem).__name__}: {problem}"
            self._fail([SqlError(3624, text, severity=20)], wire.DONE)
        reply.flush(final=True)

    def _rpc(self, r: Reader) -> None:
        r.skip_headers()
        length = r.number(2)
        name = {10: "sp_executesql"}.get(r.number(2), "") if length == 0xFFFF else r.text(length)
        r.take(2)  # options
        parameters = []
        while r.more:
            parameters.append(wire.read_parameter(r))
        if name.lower().split(".")[-1] != "sp_executesql":
            self._fail([error(2812, name or "a cursor procedure")], wire.DONEPROC)
            return
        if not parameters or parameters[0].type.family != "str":
            self._fail([error(201, "sp_executesql", "@statement")], wire.DONEPROC)
            return
        self._run(parameters[0].value or "", parameters[2:], wire.DONEINPROC)

    def _run(self, sql: str, parameters: Sequence[Parameter], token: int) -> None:
        """Runs a batch and sends its events; `token` ends each statement."""
        assert self.session is not None
        assert self._reply is not None
        self.server.log_statement(sql, parameters, self.session)
        faults = self.server.faults.take(sql)
        events = self.session.run(sql, parameters)
        try:
            self._before(faults)
            for event in events:
                if isinstance(event, ResultSet):
                    self._send_rows(
                        event, [f for f in faults if f.after_rows or f.kind == "bad_row"]
                    )
                    faults = []
                elif isinstance(event, Done):
                    fields = self._done_fields(event)
                    if token == wire.DONE:
                        self._hold(fields)
                    else:
                        self._reply.write(self._done_token(token, wire.DONE_MORE, fields))
                else:
                    self._notice(event)
        except (SqlError, ErrorList) as problem:
            self._held = None
            problems = problem.problems if isinstance(problem, ErrorList) else [problem]
            self._fail(problems, wire.DONE if token == wire.DONE else wire.DONEPROC)
            return
        except BaseException:
            self._held = None
            raise
        finally:
            events.close()
        self._finish(token)

    _held: bytes | None = None

    def _done_fields(self, event: Done) -> bytes:
        """Status and count of a DONE token, without its MORE bit."""
        assert self.session is not None
        counted = event.count is not None and not self.session.no_count
        status = (wire.DONE_COUNT if counted else 0) | (
            wire.DONE_INXACT if self.session.transaction_count else 0
        )
        return struct.pack("<HQ", status, event.count or 0)

    @staticmethod
    def _done_token(token: int, extra: int, fields: bytes) -> bytes:
        status, count = struct.unpack("<HQ", fields)
        return wire.done(token, status | extra, count)

    def _hold(self, fields: bytes) -> None:
        """Keeps the DONE of a statement back until it is known whether another follows."""
        assert self._reply is not None
        if self._held is not None:
            self._reply.write(self._done_token(wire.DONE, wire.DONE_MORE, self._held))
        self._held = fields

    def _finish(self, token: int) -> None:
        assert self._reply is not None
        assert self.session is not None
        if token == wire.DONE:
            fields = self._held or struct.pack("<HQ", 0, 0)
            self._held = None
            self._reply.write(self._done_token(wire.DONE, 0, fields))
            return
        status = wire.DONE_INXACT if self.session.transaction_count else 0
        self._reply.write(struct.pack("<Bi", wire.RETURNSTATUS, 0))
        self._reply.write(wire.done(wire.DONEPROC, status))

    def _release_held(self) -> None:
        """A held DONE goes out before the next result's tokens."""
        assert self._reply is not None
        if self._held is not None:
            self._reply.write(self._done_token(wire.DONE, wire.DONE_MORE, self._held))
            self._held = None

    def _notice(self, event: Changed | SqlError) -> None:
        assert self._reply is not None
        assert self.session is not None
        self._release_held()
        if isinstance(event, SqlError):
            self._reply.write(wire.message(wire.INFO, event, _SERVER_NAME))
        elif event.kind == "database":
            self._reply.write(wire.envchange_text(wire.ENV_DATABASE, event.new, event.old))
            told = SqlError(
                5701, f"Changed database context to '{event.new}'.", severity=0, state=2
            )
            self._reply.write(wire.message(wire.INFO, told, _SERVER_NAME))
        else:
            number = b"\x08" + struct.pack("<Q", self.session.transaction_id)
            if event.kind == "begin":
                self._reply.write(wire.envchange(wire.ENV_BEGIN, number))
            else:
                kind = wire.ENV_COMMIT if event.kind == "commit" else wire.ENV_ROLLBACK
                self._reply.write(wire.envchange(kind, b"\0", number))

    def _fail(self, problems: Sequence[Exception], token: int) -> None:
        """ERROR tokens and the end. A fatal error closes the connection."""
        assert self._reply is not None
        assert self.session is not None
        found = [p for p in problems if isinstance(p, SqlError)]
        for problem in found:
            self._reply.write(wire.message(wire.ERROR, problem, _SERVER_NAME))
        doomed = any(p.number == 1205 for p in found) or self.session.xact_abort
        if doomed and self.session.transaction_count:
            for change in self.session.rollback():
                self._notice(change)
        self._reply.write(wire.done(token, wire.DONE_ERROR))
        if any(p.severity >= 20 for p in found):
            self._reply.flush(final=True)
            raise Disconnected

    def _transaction(self, r: Reader) -> None:
        """Transaction manager requests, 2.2.6.9."""
        assert self.session is not None
        assert self._reply is not None
        r.skip_headers()
        kind = r.number(2)
        if kind == 5:
            changes = [self.session.begin(r.number(1))]
        elif kind in (7, 8):
            r.take(2 * r.number(1))
            changes = self.session.commit() if kind == 7 else self.session.rollback()
            if r.number(1) & 1:
                changes.append(self.session.begin(r.number(1)))
        else:
            raise unsupported(f"transaction request {kind}")
        for change in changes:
            self._notice(change)
        status = wire.DONE_INXACT if self.session.transaction_count else 0
        self._reply.write(wire.done(wire.DONE, status))

    # Rows

    def _encoder(self, columns: Sequence[wire.Column]) -> Callable[[Sequence[object]], bytes]:
        key = tuple(columns)
        if key not in self._encoders:
            self._encoders[key] = wire.row_encoder(columns, self.server.plp)
        return self._encoders[key]

    def _send_rows(self, result: ResultSet, faults: Sequence[Fault]) -> None:
        assert self._reply is not None
        self._release_held()
        reply, rows = self._reply, result.rows
        reply.write(wire.colmetadata(result.columns))
        encode = self._encoder(result.columns)
        try:
            for fault in faults:
                for row in itertools.islice(rows, fault.after_rows - result.count):
                    reply.write(encode(row))
                    result.count += 1
                if result.count < fault.after_rows:
                    break  # the result is shorter: the fault has nothing to act on
                self._act(fault, result, encode)
            chunk = 1
            while True:
                taken = list(itertools.islice(rows, chunk))
                if not taken:
                    break
                part = b"".join(map(encode, taken))
                result.count += len(taken)
                reply.write(part)
                if reply.waiting < len(part):
                    self._check_attention()
                chunk = max(1, min(256, chunk * _FLUSH // (2 * len(part) + 1)))
        finally:
            result.close()

    def _check_attention(self) -> None:
        if not self.transport.readable(0):
            return
        kind, _ = self._message()
        if kind == wire.ATTENTION:
            raise Cancelled
        raise Disconnected

    # Faults

    def _before(self, faults: Sequence[Fault]) -> None:
        for fault in faults:
            if fault.after_rows == 0 and fault.kind != "bad_row":
                self._act(fault, None, None)

    def _act(
        self,
        fault: Fault,
        result: ResultSet | None,
        encode: Callable[[Sequence[object]], bytes] | None,
    ) -> None:
        assert self._reply is not None
        if fault.kind == "error":
            assert fault.problem is not None
            raise fault.problem
        if fault.kind == "bad_row":
            assert result is not None
            assert encode is not None
            for row in itertools.islice(result.rows, 1):
                self._reply.write(encode(undecodable(row, result.columns, fault.column)))
                result.count += 1
            return
        if fault.kind == "drop":
            self._drop(fault, result, encode)
        self._reply.flush(partial=True)
        if fault.kind == "stall":
            self._stall(fault)
        elif fault.kind == "call" and fault.action is not None:
            fault.action()
        fault.reached.set()

    def _stall(self, fault: Fault) -> None:
        fault.reached.set()
        while not fault.gate.is_set():
            if self.transport.readable(0.02):
                if self.session is None:
                    raise Disconnected
                self._check_attention()

    def _drop(
        self,
        fault: Fault,
        result: ResultSet | None,
        encode: Callable[[Sequence[object]], bytes] | None,
    ) -> None:
        assert self._reply is not None
        if result is not None and encode is not None and fault.cut != "row_end":
            for row in itertools.islice(result.rows, 1):
                token = encode(row)
                self._reply.write(token[: max(len(token) // 2, 1)])
        self._reply.flush(partial=True)
        if fault.cut == "packet":
            head = wire.HEADER.pack(wire.REPLY, 0, self.packet_size, 0, 1, 0)
            self.transport.send(head + b"\xd1\x00")
        fault.reached.set()
        if result is not None:
            result.close()
        raise Disconnected


def undecodable(row: Row, columns: Sequence[wire.Column], name: str | None = None) -> Row:
    """The row with a value that no client can decode: a day after 9999, half a surrogate pair."""
    spoiled = list(row)
    for i, column in enumerate(columns):
        if name is not None and column.name.lower() != name.lower():
            continue
        bad = bad_value(column.type)
        if bad is not None:
            spoiled[i] = bad
            return tuple(spoiled)
    raise ValueError("no column whose bytes can be made undecodable")


def bad_value(t: types.SqlType) -> types.Stored:
    """A stored value that encodes into bytes no client can decode; None for a type without one."""
    late = 5_000_000 * types.TICKS_PER_DAY
    if t.name in ("date", "datetime2", "datetime"):
        return late
    if t.family == "dto":
        return struct.pack(">qh", late, 0)
    if t.national and t.family == "str":
        return "\ud800"
    return None
