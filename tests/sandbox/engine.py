"""A faster engine and `fivetran` command of the SDK: tests run them a thousand times.

`quick_engine` removes work that the engine repeats. `Forks` runs the command in a fork
of a process that has the SDK, DuckDB and the libraries of the connectors loaded already; the code
of the connector itself is read anew each time. Some tests start the command as a user does.
"""

import atexit
import contextlib
import functools
import gc
import hashlib
import importlib
import json
import os
import re
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import duckdb
from fivetran_connector_sdk_core import cells, renaming, runner
from fivetran_connector_sdk_core.destination.duckdb_destination import DuckDbDestination

CAN_FORK = sys.platform == "linux"  # macOS has libraries that do not survive a fork

# Tests run one beside another: threads of DuckDB's own would only wait for each other.
_connect = functools.partial(duckdb.connect, config={"threads": 1})
_open: dict[str, duckdb.DuckDBPyConnection] = {}  # one at most


def connect(path: str) -> duckdb.DuckDBPyConnection:
    """A connection to a file that stays open until another file is used, or until `release`, since
    opening a file takes longer than most queries."""
    if sys.platform == "win32":  # where an open file cannot be deleted
        return _connect(path)
    if path not in _open or not Path(path).exists():
        release()
        _open[path] = _connect(path)
    return _open[path].cursor()


def release() -> None:
    """Closes the file, so that other processes and connections can open it."""
    while _open:
        _open.popitem()[1].close()


# The engine makes up the name of every column anew for every row.
_rename = functools.lru_cache(renaming.redshift_safe)

# At every checkpoint the engine looks whether each declared table is there; once is enough.
_create_declared = runner._Sync._create_missing_declared


def _create_declared_once(writer: Any) -> None:
    if not writer.declared_created:
        _create_declared(writer)


class _Connection:
    """The engine's connection. It remembers the columns of a table, for which the engine asks some
    hundred times a sync, until a statement may have changed them."""

    _changes = re.compile(r"(ALTER|CREATE|DROP) (?!TEMP |TABLE stage_|SCHEMA )")

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._tables: dict[tuple[str, str], list[Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def execute(self, sql: str, *parameters: Any) -> Any:
        if self._changes.match(sql):
            self._tables.clear()
        return self._connection.execute(sql, *parameters)

    def rollback(self) -> None:
        self._tables.clear()
        self._connection.rollback()

    def table_info(self, schema: str, table: str) -> list[Any]:
        """A row for each column: number, name, type, ..., whether it is part of the key."""
        if (schema, table) not in self._tables:
            try:
                self.execute(f'PRAGMA table_info(\'"{schema}"."{table}"\')')
            except duckdb.CatalogException:
                return []
            self._tables[schema, table] = self._connection.fetchall()
        return self._tables[schema, table]


def _columns(destination: DuckDbDestination, table: str) -> dict[str, str]:
    found = destination.con.table_info(destination.schema, table)
    return {name: kind for _, name, kind, *_ in found}


def _primary_key(destination: DuckDbDestination, table: str) -> list[str]:
    found = destination.con.table_info(destination.schema, table)
    return [name for _, name, *_, is_key in found if is_key]


# Of every text it sees whether it could be a number, a date or a time; texts come again.
_text_type = cells._text_type
_short_text_type = functools.lru_cache(10_000)(_text_type)


def _quick_text_type(text: str) -> Any:
    return _short_text_type(text) if len(text) < 100 else _text_type(text)


# It is slow on purpose; simulators have few secrets.
_scrypt = functools.lru_cache(hashlib.scrypt)


@contextlib.contextmanager
def quick_engine(connect: Callable[[str], duckdb.DuckDBPyConnection] = connect) -> Iterator[None]:
    """While this context is open, the SDK's engine does the same work in less time."""
    with (
        mock.patch.object(duckdb, "connect", lambda path: _Connection(connect(path))),
        mock.patch.dict(sys.modules, {"pandas": None}),  # DuckDB looks for it at each parameter
        mock.patch.object(hashlib, "scrypt", _scrypt),
        mock.patch.object(renaming, "redshift_safe", _rename),
        mock.patch.object(cells, "_text_type", _quick_text_type),
        mock.patch.object(DuckDbDestination, "columns", _columns),
        mock.patch.object(DuckDbDestination, "primary_key", _primary_key),
        mock.patch.object(runner._Sync, "_create_missing_declared", _create_declared_once),
    ):
        yield


class Fork:
    """A command that runs in a fork; the part of subprocess.Popen that tests use."""

    def __init__(self, output: int, status: int) -> None:
        """``output`` and ``status``: the ends from which both can be read."""
        self.stdout, self._status = os.fdopen(output, encoding="utf-8"), os.fdopen(status)
        self._waiting = threading.Lock()
        self.pid = int(self._status.readline())
        self.returncode: int | None = None

    def communicate(self, timeout: float | None = None) -> tuple[str, None]:
        """What the command printed, once it has ended. Raises TimeoutExpired after so many
        seconds."""
        ends = None if timeout is None else time.monotonic() + timeout
        chunks: list[bytes] = []
        with self.stdout, selectors.DefaultSelector() as selector:
            selector.register(self.stdout, selectors.EVENT_READ)
            while True:
                left = None if ends is None else max(0, ends - time.monotonic())
                if not selector.select(left):
                    raise subprocess.TimeoutExpired("fivetran", timeout or 0)
                chunk = os.read(self.stdout.fileno(), 65_536)
                if not chunk:
                    break
                chunks.append(chunk)
        self.wait()
        text = b"".join(chunks).decode("utf-8").replace("\r\n", "\n")
        return text, None

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """The exit code, once the command has ended; negative if a signal ended it."""
        with self._waiting:
            if self.returncode is None:
                with self._status:
                    self.returncode = int(self._status.read())
            return self.returncode


class Forks:
    """The process whose forks run the command; it is started with the first of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._home: tempfile.TemporaryDirectory[str] | None = None

    def start(self, arguments: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> Fork:
        """Starts `fivetran` with these arguments."""
        output, its_output = os.pipe()
        status, its_status = os.pipe()
        request = {"arguments": arguments, "cwd": str(cwd), "environment": dict(environment)}
        with self._lock:
            if self._process is None:
                self._launch()
            data = json.dumps(request).encode()
            socket.send_fds(self._socket, [data], [its_output, its_status])
        os.close(its_output)
        os.close(its_status)
        return Fork(output, status)

    def stop(self) -> None:
        if self._process is not None and self._home is not None:
            self._socket.close()
            self._process.wait(10)
            self._home.cleanup()
            self._process = self._home = None

    def _launch(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="fivetran-forks-")
        self._socket, its_socket = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "FIVETRAN_"))}
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(its_socket.fileno())],
            cwd=self._home.name,  # not the repository, whose packages would be found
            env={**kept, "HOME": self._home.name, "PYTHONUTF8": "1"},
            stdin=subprocess.DEVNULL,
            pass_fds=[its_socket.fileno()],
        )
        its_socket.close()


# What the command imports, and what connectors do.
_LIBRARIES = (
    *("fivetran_connector_sdk", "fivetran_connector_sdk_cli.cli_commands", "requests"),
    *("fivetran_connector_sdk_cli.fivetran_shim", "fivetran_connector_sdk_cli.core_adapter"),
    *("cryptography.fernet", "cryptography.hazmat.primitives.kdf.scrypt", "cryptography.x509"),
    *("OpenSSL.SSL", "pytds", "pytds.tls", "asyncio", "prompt_toolkit", "zipfile"),
)


def _serve(connection: socket.socket) -> None:
    """Forks for each request, until the other end is closed."""
    for name in _LIBRARIES:
        importlib.import_module(name)
    gc.freeze()
    # DuckDB starts a thread when it is imported; forks have none, and do not need it.
    warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
    while True:
        data, files, _, _ = socket.recv_fds(connection, 1 << 20, 2)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG if data else 0)[0]:
                pass
        if not data:
            return
        if os.fork() == 0:
            connection.close()
            _command(json.loads(data), *files)
        for file in files:
            os.close(file)


def _command(request: dict[str, Any], output: int, status: int) -> NoReturn:
    """Runs the command in one process more, whose id and exit code this one writes down."""
    child = os.fork()
    if child:
        _watch(child, output, status)
    os.close(status)
    for descriptor in (1, 2):
        os.dup2(output, descriptor)
    os.close(output)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    command = Path(sys.executable).parent / "fivetran"
    sys.argv = [str(command), *request["arguments"]]
    sys.path.insert(0, str(command.parent))
    sys.dont_write_bytecode = True
    signal.signal(signal.SIGINT, signal.default_int_handler)  # tests may run without it
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # as on a terminal
    with quick_engine(_connect):
        _end(importlib.import_module("fivetran_connector_sdk_cli.fivetran_shim").main)


def _end(command: Callable[[], int | None]) -> NoReturn:
    """Calls it, then ends the process as multiprocessing ends its forks: without the destructors
    of libraries, which miss the threads that did not come along."""
    try:
        code = command() or 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _watch(child: int, output: int, status: int) -> NoReturn:
    os.close(output)
    os.write(status, f"{child}\n".encode())
    _, ended = os.waitpid(child, 0)
    os.write(status, str(os.waitstatus_to_exitcode(ended)).encode())
    os._exit(0)


if __name__ == "__main__":
    sys.path.pop(0)  # connectors must not import modules beside this file
    _serve(socket.socket(fileno=int(sys.argv[1])))
