"""Runs the real `fivetran` command on a copy of a connector, and reads what it wrote."""

import contextlib
import functools
import importlib.util
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar
from unittest import mock

from fivetran_connector_sdk import Connector, Logging
from fivetran_connector_sdk_cli import core_adapter
from fivetran_connector_sdk_cli.memory_tracker import DebugMemoryTracker
from fivetran_connector_sdk_common import constants
from fivetran_connector_sdk_core.renaming import (
    redshift_safe as stored_column,
    safe_drop_underscores as stored_table,
)

from tests.sandbox.engine import Fork, Forks, connect, quick_engine, release
from tools import warehouse
from tools.fivetran import copy_connector, prepare_home
from tools.paths import ROOT

__all__ = [
    "Project",
    "Result",
    "load",
    "stored_column",
    "stored_table",
]

_COUNT = re.compile(r"^\s*(Upserts|Updates|Deletes|Truncates|Checkpoints)\s*\|\s*(\d+)", re.M)

# Python runs it at its start: it writes down each host of a connection or of a name lookup.
_WATCH = """
import os, sys
log = open(os.environ["WATCHED"], "a", buffering=1)
def watch(event, arguments):
    if event == "socket.connect" or event == "socket.sendto":
        print(*arguments[1][:2], file=log)
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        print(*arguments[:2], file=log)
sys.addaudithook(watch)
"""


@dataclass
class Result:
    """One run of the command."""

    code: int
    output: str
    seconds: float

    @property
    def counts(self) -> dict[str, int]:
        """The operations, as the SDK counts them at the end of a sync."""
        return {name: int(number) for name, number in _COUNT.findall(self.output)}


class Project:
    """``folder/<name>``, copied from ``connectors/`` unless it is there, with a home of its own.
    ``tools``: the folder of the `fivetran` command.

    With ``forks`` the command runs in a fork of a process that has loaded the SDK already, unless
    it is one in another folder or one that is watched."""

    forks: ClassVar[Forks | None] = None

    def __init__(self, name: str, folder: Path, tools: Path | None = None) -> None:
        self.name = name
        self._is_fresh = tools is not None
        self._tools = tools or Path(sys.executable).parent
        self.path = folder / name
        self._warehouse = self.path / "files" / "warehouse.db"
        self._home = folder / "home"
        if not self.path.exists():
            copy_connector(name, folder)
        self.environment = prepare_home(self._home)

    def start(
        self, configuration: Mapping[str, str], state: Mapping[str, Any] | None = None
    ) -> "subprocess.Popen[str] | Fork":
        """Starts `fivetran debug`; ``state`` replaces the saved one."""
        files = self.path / "files"
        if state is not None:
            files.mkdir(exist_ok=True)
            (files / "state.json").write_text(json.dumps(state))
        given = self._home / "configuration.json"
        given.write_text(json.dumps(configuration))
        return self._start("debug", str(self.path), "--configuration", str(given))

    def debug(
        self, configuration: Mapping[str, str], state: Mapping[str, Any] | None = None
    ) -> Result:
        """Runs one `fivetran debug` to its end."""
        began = time.monotonic()
        process = self.start(configuration, state)
        output, _ = process.communicate(timeout=110)
        return Result(process.wait(), output, time.monotonic() - began)

    def sync(
        self, configuration: Mapping[str, str], state: Mapping[str, Any] | None = None
    ) -> Result:
        """Runs the same sync by the SDK's engine in this process: it is quick, and tests can move
        its clock."""
        connector = _new_connector(self.name, configuration)
        saved = self.path / "files" / "state.json"
        if state is None:
            state = json.loads(saved.read_text()) if saved.exists() else {}
        connector.state = dict(state)
        code, printed, began = 0, io.StringIO(), time.monotonic()
        with (
            mock.patch.dict(os.environ, self.environment),
            mock.patch.object(DebugMemoryTracker, "start"),  # a thread that never ends
            mock.patch.object(constants, "DEBUGGING", True),  # as `fivetran debug` sets both
            mock.patch.object(Logging, "LOG_LEVEL", Logging.LOG_LEVEL or Logging.Level.DEBUG),
            quick_engine(),
            contextlib.redirect_stdout(printed),
        ):
            try:
                core_adapter.run(
                    connector, str(self.path), connector.configuration, connector.state
                )
            except Exception:
                code = 1
            finally:
                connector.state = None  # the next test would find it
        return Result(code, printed.getvalue(), time.monotonic() - began)

    def watch(self) -> Path:
        """The file into which commands, from now on, write each host and port that they connect to
        or look up."""
        folder, log = self._home / "watch", self._home / "watch" / "log"
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(_WATCH)
        self.environment |= {"PYTHONPATH": str(folder), "WATCHED": str(log)}
        self._is_fresh = True
        return log

    def test_settings(self, configuration: Mapping[str, str]) -> dict[str, str | None]:
        """What each setup test of the form, run in this process, returns (None: no failure)."""
        connector = _new_connector(self.name, configuration)
        tests = connector.get_configuration_form().tests
        return {test.label: connector.run_test(test.name).failure for test in tests}

    def check(self, configuration: Mapping[str, str]) -> Result:
        """`fivetran configuration --test`."""
        (self.path / "configuration.json").write_text(json.dumps(configuration))
        began = time.monotonic()
        process = self._start("configuration", str(self.path), "--test")
        output, _ = process.communicate(timeout=110)
        return Result(process.wait(), output, time.monotonic() - began)

    def package(self) -> Path:
        """The zip that `fivetran package` makes."""
        before = set(self.path.rglob("*.zip"))
        process = self._start("package", str(self.path), "--yes")
        output, _ = process.communicate(timeout=110)
        made = set(self.path.rglob("*.zip")) - before
        if process.returncode or len(made) != 1:
            raise RuntimeError(f"fivetran package failed:\n{output}")
        return made.pop()

    @property
    def warehouse(self) -> Path:
        """The file of the destination, closed, so that others can open it."""
        release()
        return self._warehouse

    @property
    def state(self) -> dict[str, Any]:
        """The state of the last checkpoint."""
        state: dict[str, Any] = json.loads((self.path / "files" / "state.json").read_text())
        return state

    def everything_written(self) -> str:
        """The text of the state and of all crash reports."""
        written = [self.path / "files" / "state.json", *self.path.glob("crash-reports/*")]
        return "\n".join(path.read_text() for path in written if path.exists())

    def tables(self) -> list[str]:
        """The names of the tables, sorted."""
        with connect(str(self._warehouse)) as connection:
            return warehouse.table_names(connection)

    def rows(self, table: str, *, deleted: bool = False) -> list[dict[str, Any]]:
        """The rows of a table that are (not) soft-deleted, without what the platform adds."""
        with connect(str(self._warehouse)) as connection:
            return warehouse.rows(connection, table, deleted=deleted)

    def types(self, table: str) -> dict[str, str]:
        """The types of a table's columns, as DuckDB names them."""
        with connect(str(self._warehouse)) as connection:
            return warehouse.column_types(connection, table)

    def query(self, sql: str, parameters: Iterable[Any] = ()) -> list[dict[str, Any]]:
        with connect(str(self._warehouse)) as connection:
            return warehouse.query(connection, sql, parameters)

    def _start(self, *arguments: str) -> "subprocess.Popen[str] | Fork":
        release()
        if self.forks and not self._is_fresh:
            return self.forks.start(arguments, self._home, self.environment)
        return subprocess.Popen(
            [self._tools / "fivetran", *arguments],
            cwd=self._home,  # not the repository, whose packages would be found
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )


@functools.cache
def load(name: str) -> ModuleType:
    """The module connectors/<name>/connector.py, with the original of the shared package."""
    folder = ROOT / "connectors" / name
    sys.path.append(str(folder))  # as the SDK does, for the connector's other modules
    specification = importlib.util.spec_from_file_location(
        f"{name}_connector", folder / "connector.py"
    )
    if specification is None or specification.loader is None:
        raise FileNotFoundError(folder)
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module
    specification.loader.exec_module(module)
    return module


def _new_connector(name: str, configuration: Mapping[str, str]) -> Connector:
    """The connector's object without what an earlier run has left in it."""
    module = load(name)
    connector = Connector(
        update=module.update,
        schema=module.schema,
        configuration_form=module.configuration_form,
    )
    connector.configuration = dict(configuration)
    vars(module)["connector"] = connector  # as the command line uses it
    return connector
