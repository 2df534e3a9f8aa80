"""The stock python-tds client, as the tests of the simulator use it."""

from __future__ import annotations

import gc
import warnings
from typing import Any

import pytds
import pytest
from pytds import tds_base

from tests.sandbox.mssql import MssqlSandbox
from tests.sandbox.mssql.adapter import RealServer


def connect(server: MssqlSandbox | RealServer, **options: Any) -> Any:
    """A stock client, autocommit unless told otherwise."""
    given_options: dict[str, Any] = {
        "port": server.port,
        "user": server.user,
        "password": server.password,
        "database": server.database,
        "autocommit": True,
        "validate_host": False,
        "login_timeout": 5,
        "timeout": 20,
        "disable_connect_retry": True,
    }
    return pytds.connect(server.host, **{**given_options, **options})


def refused(server: MssqlSandbox, **options: Any) -> BaseException:
    """The client's error of a login that fails; the sockets that it leaks are collected here."""
    problem: BaseException | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            connect(server, **{"login_timeout": 0.3, **options}).close()
        except Exception as caught:  # whatever the client makes of it
            problem = (caught.__cause__ or caught).with_traceback(None)
            caught.__cause__ = None
        gc.collect()
    assert problem is not None
    return problem


def ask(connection: Any, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return [tuple(row) for row in cursor.fetchall()]


def ask_nothing(connection: Any, sql: str, parameters: Any = None) -> int:
    """Runs a statement without a result; returns its row count."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return int(cursor.rowcount)


def number_of(problem: BaseException) -> int:
    """The server's error number in a client's exception."""
    return int(getattr(problem, "number", 0) or getattr(problem, "msg_no", 0))


def fails_with(number: int, connection: Any, sql: str, parameters: Any = None) -> None:
    """Asserts that the server refuses the statement with an error of this number."""
    with pytest.raises(tds_base.Error) as caught:
        ask(connection, sql, parameters)
    assert number_of(caught.value) == number
