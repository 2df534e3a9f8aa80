"""What every connector must do, run over each folder in connectors/ with its simulator.

The settings must have `retry_attempts`; over HTTP, a first sync sends three requests for data at
least, and with `reconcile_hours` "0", where there is such a key, so does every later one.
"""

import ast
import json
import os
import random
import re
import subprocess
import sys
import threading
import zipfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from fivetran_connector_sdk_core import runner
from fivetran_connector_sdk_core.cells import decode_row_data

from shared.rest import LONGEST_WAIT
from shared.rows import decimal
from shared.settings import declared
from tests import house
from tests.compare import assert_equal_to_source
from tests.sandbox import create, kind_of, names
from tests.sandbox.fivetran import ROOT, Project, Result, load, stored_column, stored_table
from tests.sandbox.server import Sandbox
from tests.sandbox.simulator import PAGE, Simulator

DUCKDB_TYPES = {
    "STRING": "VARCHAR",
    "SHORT": "SMALLINT",
    "INT": "INTEGER",
    "LONG": "BIGINT",
    "FLOAT": "FLOAT",
    "DOUBLE": "DOUBLE",
    "BINARY": "BLOB",
    "XML": "VARCHAR",
    "BOOLEAN": "BOOLEAN",
    "UTC_DATETIME": "TIMESTAMP WITH TIME ZONE",
    "NAIVE_DATE": "DATE",
    "NAIVE_DATETIME": "TIMESTAMP",
    "JSON": "JSON",
}


LITTLE = 7  # the number from which the form of little simulators is drawn


@pytest.fixture(params=names())
def sandbox(request: pytest.FixtureRequest) -> Iterator[Simulator]:
    with create(request.param) as started:
        yield started


@pytest.fixture(params=names())
def little(request: pytest.FixtureRequest) -> Iterator[Simulator]:
    """One with few records; its form is always the same."""
    with kind_of(request.param).small(random.Random(LITTLE)) as started:
        yield started


over_http = pytest.mark.parametrize("sandbox", names(Sandbox), indirect=True)


@pytest.fixture
def project(sandbox: Sandbox, tmp_path: Path) -> Project:
    return Project(sandbox.name, tmp_path)


@pytest.fixture
def sync(project: Project, sandbox: Sandbox) -> Callable[..., Result]:
    """A sync that looks for deletes, too, in the connectors where that is not always so."""

    def run(**changes: str) -> Result:
        return project.sync(in_full(sandbox, **changes))

    return run


def in_full(sandbox: Simulator, **changes: str) -> dict[str, str]:
    """A configuration with which every sync reads all, and so looks for deletes."""
    always = {"reconcile_hours": "0", "max_pages": "1000"}
    return sandbox.configuration(**{**known(sandbox, always), **changes})


def known(sandbox: Simulator, settings: dict[str, str]) -> dict[str, str]:
    """Those of ``settings`` that the connector has."""
    keys = declared(load(sandbox.name).Settings)
    return {key: value for key, value in settings.items() if key in keys}


@contextmanager
def handed_over() -> Iterator[dict[str, list[dict[str, Any]]]]:
    """The rows, by table, that syncs in this process hand over meanwhile to be stored."""
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    record = runner._Sync.record

    def noting(sync: Any, given: Any) -> None:
        if given.type is runner.RecordType.UPSERT:
            rows[given.table].append(decode_row_data(given.row_data))
        record(sync, given)

    with mock.patch.object(runner._Sync, "record", noting):
        yield rows


def succeeded(result: Result) -> Result:
    assert result.code == 0, result.output
    return result


def failed(result: Result) -> Result:
    assert result.code != 0, result.output
    assert "Error: failed while executing" in result.output
    return result


# Whole syncs


def test_a_first_sync_stores_what_the_source_has(sync: Any, project: Any, sandbox: Any) -> None:
    """The main job, in the SDK's own engine, over real HTTP; each row is sent once, and whole."""
    with handed_over() as sent:
        succeeded(sync())
    assert_equal_to_source(project, sandbox)
    for entry in load(sandbox.name).schema(sandbox.configuration()):
        table, columns, rows = entry["table"], entry["columns"], sent[entry["table"]]
        key = entry.get("primary_key", [])
        # Without a key the row itself is one, so what is null may be left out.
        assert all(row.keys() == columns.keys() for row in rows if key), table
        assert not any(row[name] is None for row in rows for name in key), table
        keys = Counter(tuple(str(row.get(name)) for name in key or columns) for row in rows)
        assert len(keys) == len(rows), table


def test_the_command_line_does_the_same(project: Any, sandbox: Any) -> None:
    """The real `fivetran debug`, with the folder as it is deployed; it asks nobody but the source,
    neither for a connection nor for the address of a name."""
    asked = project.watch()
    succeeded(project.debug(sandbox.configuration()))
    assert_equal_to_source(project, sandbox)
    assert project.state["version"] == 1
    host, _, port = sandbox.url.rpartition("/")[2].partition(":")
    assert set(asked.read_text().splitlines()) == {f"{host} {port}"}


def test_changes_and_deletes_arrive(sync: Any, project: Any, sandbox: Any) -> None:
    """After a change at the source the next sync makes the destination equal again."""
    succeeded(sync())
    sandbox.change_something()
    succeeded(sync())
    assert_equal_to_source(project, sandbox)


def test_a_second_sync_sends_only_what_it_must(project: Any, sandbox: Any) -> None:
    """Rows that did not change are sent where the source does not tell that, and in look-backs; a
    second sync sends no more requests than the first."""
    assert_little_is_sent_again(project, sandbox)


def test_a_second_sync_of_another_form_sends_only_what_it_must(
    little: Any, tmp_path: Path
) -> None:
    """The same, where the source may tell more, or less, of its changes."""
    assert_little_is_sent_again(Project(little.name, tmp_path), little)


def assert_little_is_sent_again(project: Project, sandbox: Simulator) -> None:
    configuration = sandbox.configuration(**known(sandbox, {"max_pages": "1000"}))
    most = Counter(sandbox.resent())
    succeeded(project.sync(configuration))
    requests = len(sandbox.requests)
    with handed_over() as rows:
        succeeded(project.sync(configuration))
    sent = Counter({stored_table(table): len(given) for table, given in rows.items()})
    assert not sent - most
    assert len(sandbox.requests) <= 2 * requests + sandbox.lists_deletes
    assert_equal_to_source(project, sandbox)


@pytest.mark.posix
@pytest.mark.parametrize(("request_number", "by"), [(1, 9), (2, 15), (3, 9), (5, 15)])
@over_http
def test_killed_at_a_request_the_next_sync_makes_up_for_it(
    project: Any, sandbox: Any, request_number: int, by: int
) -> None:
    """SIGKILL or SIGTERM while a request is under way, in a first sync and in a later one."""
    for _ in range(2):
        configuration = in_full(sandbox)
        running: list[Any] = []
        fault = sandbox.fault(
            skip=request_number - 1, act=lambda running=running: _kill(running[0], by)
        )
        with sandbox.lock:  # no request is answered until the process is known
            running.append(project.start(configuration))
        output, _ = running[0].communicate(timeout=60)
        killed = running[0].returncode == -by
        assert killed or fault.times, output  # else there were fewer requests than that
        sandbox.faults.clear()
        succeeded(project.sync(configuration))
        assert_equal_to_source(project, sandbox)
        sandbox.change_something()


def _kill(process: Any, by: int) -> None:
    os.kill(process.pid, by)
    process.wait()


def test_an_empty_source_gives_empty_tables(sync: Any, project: Any, sandbox: Any) -> None:
    """No records are no error, and every table exists."""
    sandbox.empty()
    for _ in range(2):
        succeeded(sync())
    assert_equal_to_source(project, sandbox)


@over_http
def test_a_listing_that_became_empty_is_believed_at_the_second_time(
    sync: Any, project: Any, sandbox: Any
) -> None:
    """Credentials that lost their rights look like an empty source: nothing is deleted at once."""
    succeeded(sync())
    sandbox_before = {table: len(project.rows(table)) for table in sandbox.expected()}
    sandbox.empty()
    result = succeeded(sync())
    assert "lists nothing" in result.output
    assert {table: len(project.rows(table)) for table in sandbox_before} == sandbox_before
    succeeded(sync())
    assert_equal_to_source(project, sandbox)


# Any length, any text, any type


@pytest.mark.parametrize("counts", [(3 * PAGE + 1, PAGE), (1, 3 * PAGE)], ids=str)
def test_pages_may_end_anywhere(
    little: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counts: tuple[int, ...]
) -> None:
    """One row, a whole page, some whole pages, and one row more; the second time over a table
    that has rows."""
    load(little.name)
    for constant, value in little.limits.items():
        monkeypatch.setattr(constant, value)
    project = Project(little.name, tmp_path)
    for count in counts:
        little.fill(count)
        succeeded(project.sync(in_full(little, **little.small_pages), {}))
        assert max(map(len, little.expected().values())) >= count
        assert_equal_to_source(project, little)


TEXTS = {
    # Combining marks that must not be composed, right to left, joined emoji, flags of letters that
    # are not shown, code points beyond 16 bits, ligatures, marks and what is no character.
    "odd": "e\u0301 \u05e9\u05dc\u05d5\u05dd \u202eabc\u202c \ufdfa \U0001f469\u200d\U0001f467 "
    "\U0001f3f4\U000e0067\U000e0062\U000e007f \U0001d518 \ufb01 \u0130\u0131\u1e9e \ufeff\u2028"
    # And what one form of text or another has to quote.
    "\u00a0\ufffd\ufdd0\U0010ffff\"'\\,;\r\n\t "
    + "".join(map(chr, [*range(1, 32), 0, *range(127, 160)])),
    "long": "n\u00e9 \U0001f600" * 131_072,
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_any_text_arrives_as_it_is(little: Any, tmp_path: Path, text: str) -> None:
    """Every character but the null, which the platform takes out; a megabyte of them, too. What
    has no column is kept, however deeply it is nested."""
    deep: Any = text[-1000:].replace("\0", "")
    for _ in range(100):
        deep = {"in": [deep]}
    tables, project = little.place(text, deep), Project(little.name, tmp_path)
    succeeded(project.sync(in_full(little)))
    assert_equal_to_source(project, little)
    for table in tables:
        kept = [json.loads(row["additional_fields"] or "{}") for row in project.rows(table)]
        assert deep in [fields.get("unheard_of") for fields in kept], table


def test_the_types_are_the_declared_ones(sync: Any, project: Any, sandbox: Any) -> None:
    """Every declared column exists, whatever the data looks like, and no other one does: neither
    at first nor when numbers come as text, and text as numbers."""
    succeeded(sync())
    assert_types(project, sandbox)
    sandbox.be_odd()
    succeeded(sync())
    assert_types(project, sandbox)
    assert_equal_to_source(project, sandbox)


def assert_types(project: Project, sandbox: Simulator) -> None:
    for entry in load(sandbox.name).schema(sandbox.configuration()):
        types = {
            stored_column(column): f"DECIMAL({kind['precision']},{kind['scale']})"
            if isinstance(kind, dict)
            else DUCKDB_TYPES[kind]
            for column, kind in entry["columns"].items()
        }
        assert project.types(stored_table(entry["table"])) == types


# What can heal


@pytest.mark.parametrize(
    "what",
    [
        {"skip": 0, "status": 503},
        {"skip": 2, "status": 500, "body": "<html>"},
        {"skip": 1, "status": 408},
        {"skip": 0, "status": 429},
        {"skip": 2, "drop": True},
        {"skip": 1, "cut": True},
        {"skip": 1, "cut": True, "part": "headers"},
        {"skip": 2, "status": 200, "body": "{", "headers": {"Content-Type": "application/json"}},
    ],
    ids=lambda what: "-".join(f"{key}{value}"[:9] for key, value in what.items()),
)
@over_http
def test_a_passing_fault_is_repeated(
    sync: Any, project: Any, sandbox: Any, waits: list[float], what: dict[str, Any]
) -> None:
    """Once out of order, the source is asked again, and no row is lost or doubled."""
    sandbox.fault(sandbox.data_path, **what)
    succeeded(sync())
    assert_equal_to_source(project, sandbox)
    assert len(waits) == 1


@pytest.mark.parametrize("status", [429, 503])
@over_http
def test_the_source_says_how_long_to_wait(
    sync: Any, project: Any, sandbox: Any, waits: list[float], status: int
) -> None:
    """Retry-After is honoured to the second."""
    sandbox.fault(sandbox.data_path, skip=1, status=status, headers={"Retry-After": "77"})
    succeeded(sync())
    assert waits == [77.0]


@over_http
def test_a_wait_that_is_too_long_ends_the_sync(
    sync: Any, project: Any, sandbox: Any, waits: list[float]
) -> None:
    """Beyond the stated cap the sync ends, saying so, at once."""
    asked = str(int(LONGEST_WAIT) + 1)
    sandbox.fault(sandbox.data_path, skip=1, status=429, headers={"Retry-After": asked})
    assert f"asks to wait {asked} s" in failed(sync()).output
    assert waits == []
    sandbox.faults.clear()
    succeeded(sync())
    assert_equal_to_source(project, sandbox)


@pytest.mark.parametrize("attempts", [0, 2])
@over_http
def test_an_endless_fault_ends_the_sync(
    sync: Any, sandbox: Any, waits: list[float], attempts: int
) -> None:
    """`retry_attempts` retries after the first request of a list, then an error that names the
    endpoint."""
    sandbox.fault(sandbox.data_path, times=None, status=503)
    result = failed(sync(retry_attempts=str(attempts)))
    paths = Counter(sandbox.paths(sandbox.data_path))
    assert set(paths.values()) == {1 + attempts}
    assert len(waits) == attempts * len(paths)
    error = result.output.rpartition("Error: failed while executing")[2]
    assert all(f"{path}: status 503; gave up after {attempts} " in error for path in paths)


# What cannot heal


@pytest.mark.parametrize("status", [400, 403, 404, 410, 422])
@over_http
def test_a_final_refusal_is_not_retried(
    sync: Any, project: Any, sandbox: Any, waits: list[float], status: int
) -> None:
    """One request a list, and the error names each endpoint and the status."""
    sandbox.fault(sandbox.data_path, times=None, status=status, body='{"error": "no"}')
    result = failed(sync())
    paths = sandbox.paths(sandbox.data_path)
    assert len(paths) == len(set(paths))
    error = result.output.rpartition("Error: failed while executing")[2]
    assert all(f"{path}: status {status}" in error for path in paths)
    assert waits == []


@over_http
def test_credentials_that_are_refused_end_the_sync_at_once(
    sync: Any, sandbox: Any, waits: list[float]
) -> None:
    """They concern every table: no other list is asked for."""
    sandbox.fault(sandbox.data_path, times=None, status=401, body='{"error": "no"}')
    assert "status 401" in failed(sync()).output
    assert len(set(sandbox.paths(sandbox.data_path))) == 1


@over_http
def test_a_table_that_fails_leaves_the_others_alone(sync: Any, project: Any, sandbox: Any) -> None:
    """Each in turn is forbidden for two syncs: the others keep up with the source, and the error
    at the end names the one. When it is allowed again, nothing is missing."""
    succeeded(sync())
    paths = list(dict.fromkeys(sandbox.paths(sandbox.data_path)))
    for path in paths if len(paths) > 1 else []:
        sandbox.fault(path, times=None, status=403, body='{"error": "no"}')
        for _ in range(2):
            sandbox.change_something()
            output = failed(sync()).output
            assert f"{path}: status 403" in output.rpartition("1 of ")[2]
            assert_equal_to_source(project, sandbox, without=path.rpartition("/")[2])
        sandbox.faults.clear()
        succeeded(sync())
        assert_equal_to_source(project, sandbox)


@pytest.mark.parametrize(
    ("skip", "body"),
    [
        (0, "{}"),
        (1, "null"),
        (2, '"text"'),
        (0, "17"),
        (1, '{"error": {"type": "x"}}'),
        (2, '{"meta": {"total": 0}}'),
        (1, "<html>"),
    ],
)
@over_http
def test_what_is_not_understood_is_not_taken_for_the_end(
    sync: Any, project: Any, sandbox: Any, body: str, skip: int
) -> None:
    """Status 200 with anything but the expected response fails, and names the endpoint."""
    kind = "text/html" if body.startswith("<") else "application/json"
    sandbox.fault(
        sandbox.data_path,
        skip=skip,
        times=None,
        status=200,
        body=body,
        headers={"Content-Type": kind},
    )
    result = failed(sync())
    assert sandbox.paths(sandbox.data_path)[-1] in result.output
    sandbox.faults.clear()
    succeeded(sync())
    assert_equal_to_source(project, sandbox)


@over_http
def test_a_redirect_to_another_host_gets_no_request(sync: Any, sandbox: Any) -> None:
    """Credentials stay with the host that they are for."""
    with create(sandbox.name) as elsewhere:
        target = f"{elsewhere.url}{sandbox.data_path}"
        sandbox.fault(sandbox.data_path, times=None, status=302, headers={"Location": target})
        failed(sync())
        assert elsewhere.requests == []


@pytest.mark.parametrize("part", ["headers", "size", "body"])
@over_http
def test_an_answer_that_drips_ends(
    project: Any, sandbox: Any, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    """Each byte comes in time, all of them do not: the time for a whole response is limited, from
    its status line on."""
    monkeypatch.setattr("shared.rest.DEADLINE", 0.2)  # times the timeout of one second
    drops = []

    def drip() -> None:
        drops.append(part)
        threading.Event().wait(0.005)

    sandbox.fault(sandbox.data_path, drip=drip, part=part)
    settings = {"request_timeout_seconds": "1", "retry_attempts": "0"}
    output = failed(project.sync(in_full(sandbox, **settings))).output
    assert f"{sandbox.paths(sandbox.data_path)[0]}: " in output
    assert "gave up after 0 retries" in output
    assert 0 < len(drops) < 400  # there are 600 at least


# Threads


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[threading.Thread]:
    """Those that this test starts, and those that they start; not those of simulators."""
    started, start = [threading.current_thread()], threading.Thread.start

    def noting(thread: threading.Thread) -> None:
        if threading.current_thread() in started:
            started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", noting)
    return started


@pytest.mark.parametrize("what", ["a request", "the records", "an upsert", "a checkpoint"])
def test_a_failed_sync_leaves_no_thread(
    little: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: Any, what: str
) -> None:
    """Whatever fails, and whichever thread it fails in."""
    settings = {**little.small_pages, **known(little, {"parallel_tables": "3"})}
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    if what == "a request":
        little.trouble(little.refusals[0], 3)
    elif what == "the records":
        little.spoil()
    else:
        operation = {"an upsert": "record", "a checkpoint": "checkpoint"}[what]
        monkeypatch.setattr(runner._Sync, operation, mock.Mock(side_effect=RuntimeError))
    failed(Project(little.name, tmp_path).sync(in_full(little, **settings)))
    for thread in threads[1:]:
        thread.join(5)
    assert not [thread.name for thread in threads[1:] if thread.is_alive()]


# Settings and state


def test_every_wrong_setting_is_named_before_any_request(sync: Any, sandbox: Any) -> None:
    """All errors come in one message, which shows no value."""
    wrong, keys = "no such value \x07", declared(load(sandbox.name).Settings)
    result = failed(sync(**dict.fromkeys(keys, wrong)))
    lenient = {key for key, setting in keys.items() if setting.kind.expected == "text"}
    for key in keys.keys() - lenient:
        assert re.search(rf"^\s*{key} must be ", result.output, re.M), key
    assert "no such value" not in result.output
    assert sandbox.requests == []


@pytest.mark.parametrize("value", ["", "  ", "<A_PLACEHOLDER>"])
def test_what_is_required_must_be_given(sync: Any, sandbox: Any, value: str) -> None:
    """A required key that is blank or a placeholder is missing, an optional one has a default."""
    keys = declared(load(sandbox.name).Settings)
    optional = {key for key, setting in keys.items() if setting.default is not None}
    succeeded(sync(**dict.fromkeys(optional - {*sandbox.addresses}, value)))
    before = len(sandbox.requests)
    required = keys.keys() - optional
    result = failed(sync(**dict.fromkeys(required, value)))
    assert all(f"{key} is missing" in result.output for key in required)
    assert len(sandbox.requests) == before


def test_an_unknown_key_is_a_warning(sync: Any) -> None:
    """A misspelled key is reported with the nearest known one."""
    output = succeeded(sync(retry_attempt="5")).output
    assert "'retry_attempt' is not known" in output
    assert "did you mean retry_attempts?" in output


@pytest.mark.parametrize(
    "state",
    [
        {"version": 2, "tables": {}},
        {"something": "else"},
        {"version": 1, "tables": {"x": {"cursor": "yesterday"}}},
        {"last_sync_time": 17.5e300},
    ],
)
def test_a_state_of_another_form_is_an_error(
    project: Any, sandbox: Any, state: dict[str, Any]
) -> None:
    """Not a fresh start, which would hide the loss; and nothing was requested."""
    result = failed(project.sync(sandbox.configuration(), state))
    assert "state is not one of version 1" in result.output
    assert sandbox.requests == []


def test_the_state_of_an_older_connector_is_taken(project: Any, sandbox: Any) -> None:
    """`last_sync_time` as a bare string, the specification's form."""
    succeeded(project.sync(sandbox.configuration(), {"last_sync_time": "2026-11-20T08:00:00Z"}))
    assert_equal_to_source(project, sandbox)


def test_a_state_ahead_of_the_clock_loses_nothing(project: Any, sandbox: Any) -> None:
    """A cursor that a wrong clock has written leads to a full reading, not to a gap."""
    succeeded(project.sync(sandbox.configuration()))
    ahead = re.sub(r'": "20\d\d-', '": "2096-', json.dumps(project.state))
    sandbox.change_something()
    succeeded(project.sync(sandbox.configuration(), json.loads(ahead)))
    assert_equal_to_source(project, sandbox)


# Secrets


@over_http
def test_no_secret_and_no_value_of_a_record_is_shown(project: Any, sandbox: Any) -> None:
    """Neither in the log, the state, the URLs nor in crash reports; in success and in failure."""
    secrets = sandbox.secrets()
    first = succeeded(project.debug(in_full(sandbox)))
    outputs = [first.output, project.everything_written()]
    for skip, what in enumerate(
        [
            {"status": 422, "body": json.dumps({"error": sorted(secrets)[0]})},
            {"status": 200, "body": json.dumps({"data": [sorted(secrets)]})},
        ]
    ):
        sandbox.fault(sandbox.data_path, skip=skip, times=None, **what)
        result = failed(project.debug(in_full(sandbox, retry_attempts="0")))
        outputs += [result.output, project.everything_written()]
        sandbox.faults.clear()
    assert list(project.path.glob("crash-reports/*"))
    outputs += [request.url for request in sandbox.requests]
    shown = {
        secret for secret in sandbox.secrets() | secrets for text in outputs if secret in text
    }
    assert not shown


# The folder


def test_every_connector_has_a_stand_in() -> None:
    """Without one it would be in none of these tests."""
    assert names() == [folder.name for folder in house.CONNECTORS]


def test_the_template_has_every_key_and_no_other(sandbox: Any) -> None:
    """configuration.json is what the connector reads: placeholders, else the defaults."""
    settings = declared(load(sandbox.name).Settings)
    template = json.loads((ROOT / "connectors" / sandbox.name / "configuration.json").read_text())
    assert list(template) == list(settings)
    for key, value in template.items():
        default = settings[key].default
        fills_in = key in sandbox.wider_in_template or value == default
        assert fills_in if default else re.fullmatch(r"<YOUR_[A-Z_]+>", value), key


def test_the_readme_describes_every_key_and_table(sandbox: Any) -> None:
    """The README's table of keys and its tables say what the code does."""
    module = load(sandbox.name)
    text = (ROOT / "connectors" / sandbox.name / "README.md").read_text()
    for key, setting in declared(module.Settings).items():
        [row] = re.findall(rf"^\| `{key}` \|(.*)$", text, re.M)
        assert ("yes" in row.split("|")[0]) == (setting.default is None), key
        assert f"`{setting.default}`" in row or not setting.default, key
        assert setting.kind.expected in row, key
    for entry in module.schema(sandbox.configuration()):
        if entry["table"] in (sandbox.tables or (entry["table"],)):
            primary_key, columns = _described(text, entry["table"].upper())
            assert primary_key == entry.get("primary_key", []), entry["table"]
            assert columns == entry["columns"], entry["table"]


def _described(text: str, table: str) -> tuple[list[str], dict[str, Any]]:
    """The key and the columns that a README gives a table: in a row of a table of tables, or in a
    table of its own behind the table's name."""
    found = re.search(rf"^\| `{table}` \| (.*?) \| (.*) \|$", text, re.M)
    if found:
        key = [name for name in re.findall(r"`(\w+)`", found[1]) if name != "_fivetran_id"]
        listed = re.findall(r"((?:`\w+`,? )+)([A-Z_]+(?:\(\d+,\d+\))?)", found[2])
    else:
        section = text.split(f"**{table}**")[1].split("\n\n")[1]
        listed = re.findall(r"^\| (`\w+` )\| ([A-Z_]+) \|", section, re.M)
        key = re.findall(r"^\| `(\w+)` .*primary key", section, re.M)
    return key, {
        name: _declared(kind) for quoted, kind in listed for name in re.findall(r"\w+", quoted)
    }


def _declared(kind: str) -> Any:
    parts = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", kind)
    return decimal(int(parts[1]), int(parts[2])) if parts else kind


def test_the_readme_names_only_functions_that_exist(sandbox: Any) -> None:
    """Every reference to a function is true."""
    folder = ROOT / "connectors" / sandbox.name
    text = (folder / "README.md").read_text()
    tree = ast.parse((folder / "connector.py").read_text())
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    referred = set(re.findall(r"`(\w+)\(\)`", text)) | set(
        re.findall(r"refer to (?:the )?`(\w+)`", text)
    )
    assert referred
    assert referred <= defined | {"schema", "update"}


# What lies about where somebody works.
LEFT_OVERS = (
    *("configuration.local.json", "configuration.prod.json", "configuration_old.json"),
    *("shared/configuration.json", "backup/configuration.json", "destination.json"),
    *(".env", ".env.production", "prod.env", "shared/.env", "options.toml", ".netrc"),
    *("server.pem", "server.key", "server.crt", "client.p12", "id_rsa", "id_ed25519"),
    *("warehouse.db", "dump.csv", "state.json", "export.sql", "rows.jsonl", "old.zip"),
    *("files/state.json", "crash-reports/x.log", "tmp_requirements.txt", "requirements.txt.bak"),
    *("connector.py~", "connector.py.bak", "connector.py.orig", "connector.pyc", "connector.py,v"),
    *(".connector.py.swp", "#connector.py#", ".#connector.py", "._connector.py", "README.md~"),
    *("connector copy.py", "connector (1).py", "connector.old.py", "connector-2.py"),
    *("shared/notes.txt", "shared/errors.py.orig", "shared/.#errors.py", "shared/errors 2.py"),
    *("shared/__pycache__/errors.pyc", "shared/old/errors.py", "__pycache__/connector.pyc"),
    *("test_mine.py", "debug_mine.py", "conftest.py", "tests/test_all.py", "notebook.ipynb"),
    *("backup/connector.py", "backup/README.md", "lib/module.py", ".idea/connector.py"),
)


def plant(folder: Path) -> None:
    for name in LEFT_OVERS:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")


def test_the_package_holds_what_runs_and_nothing_else(project: Any) -> None:
    """No configuration, no secret, no data, no test and no leftover is deployed."""
    wanted = deployed(project.path)
    plant(project.path)
    with zipfile.ZipFile(project.package()) as archive:
        packed = {name for name in archive.namelist() if not name.endswith("/")}
    assert packed == wanted | {"configuration_form.pb"}


def test_git_adds_what_is_deployed_and_the_template(project: Any) -> None:
    """And no leftover, for both read the same list: a new module cannot be forgotten."""
    wanted = deployed(project.path) | {"configuration.json"}
    (project.path / "one_more.py").touch()
    plant(project.path)
    git(project.path, "init", "-q")
    git(project.path, "add", ".")
    assert set(git(project.path, "ls-files", "-z").split("\0")) == wanted | {"one_more.py", ""}


@pytest.mark.parametrize("folder", house.CONNECTORS, ids=lambda folder: folder.name)
def test_what_git_keeps_is_deployed_or_known(folder: Path) -> None:
    """A file in the repository is deployed, the template, or for development."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    listed = git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    kept = set(listed.split("\0")) - {""}
    assert deployed(folder) | {"configuration.json"} <= kept
    others = kept - deployed(folder) - {"configuration.json"}
    assert not [name for name in others if not re.match(r"(test|debug|faker)_\w+(\.py$|/)", name)]


def test_the_list_of_what_is_deployed_is_one_for_all() -> None:
    """Only folders of further modules are added to it."""
    common = (ROOT / "tools/skeleton/connectors/example/.gitignore").read_text()
    for folder in house.CONNECTORS:
        more = sorted({path.parent.name for path in folder.glob("*/__init__.py")} - {"shared"})
        lines = (f"!/{n}/\n/{n}/*\n!/{n}/*.py\n/{n}/*[!a-z0-9_]*.py\n" for n in more)
        assert (folder / ".gitignore").read_text() == common + "".join(lines)


def git(folder: Path, *arguments: str) -> str:
    """What a git command prints, with no settings of the machine's."""
    command = ["git", "-c", f"core.excludesFile={os.devnull}", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def deployed(folder: Path) -> set[str]:
    """The files of a connector that run in production, and those that go with them."""
    files = {folder / ".gitignore", folder / "README.md", *folder.glob("requirements.txt")}
    files |= {*_modules(folder), *(folder / "shared" / p.name for p in ROOT.glob("shared/*.py"))}
    return {path.relative_to(folder).as_posix() for path in files}


def _modules(folder: Path) -> list[Path]:
    """The modules of a connector that run in production, those of its folders among them."""
    folders = [folder, *(path.parent for path in folder.glob("*/__init__.py"))]
    modules = [path for each in folders for path in each.glob("*.py")]
    return [path for path in modules if not path.name.startswith(("test_", "debug_"))]


# The modules of packages that are not named like them.
MODULES = {"python-tds": "pytds", "pyopenssl": "OpenSSL"}


def test_a_connector_imports_only_what_it_declares(sandbox: Any) -> None:
    """The SDK, requests and the urllib3 that it brings, what requirements.txt pins, the shared
    package, the standard library. What is shared, but not used here, counts elsewhere."""
    folder = ROOT / "connectors" / sandbox.name
    requirements = folder / "requirements.txt"
    text = requirements.read_text() if requirements.exists() else ""
    pinned = [MODULES.get(name, name) for name in re.findall(r"^([\w-]+)==", text, re.M)]
    own = {path.parent.name if path.parent != folder else path.stem for path in _modules(folder)}
    brought = {"fivetran_connector_sdk", "requests", "urllib3"}
    allowed = {*brought, *own, *pinned, *sys.stdlib_module_names}
    for path in _modules(folder):
        if path.parent.name == "shared" and not _is_used(path.stem, folder):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert {alias.name.split(".")[0] for alias in node.names} <= allowed, path
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                assert (node.module or "").split(".")[0] in allowed, path


def _is_used(module: str, folder: Path) -> bool:
    """Whether a module of shared/ is imported: all that import it are looked at, too."""
    importing = re.compile(
        rf"^from (?:shared|)\.{module} import|^from (?:shared|\.) import .*\b{module}\b", re.M
    )
    used = [path for path in _modules(folder) if importing.search(path.read_text())]
    return any(path.parent.name != "shared" or _is_used(path.stem, folder) for path in used)


def test_the_house_is_in_order() -> None:
    """Vendored copies are identical and no template holds a secret."""
    assert house.check_vendored() == []
    assert house.check_templates() == []
