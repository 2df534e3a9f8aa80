"""Syncs that a person starts on their machine: `python connector.py` and `make debug`."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fivetran_connector_sdk_cli.configuration_decryption import encrypt_value, get_or_create_key

from shared.local import local_configuration
from tests.compare import assert_equal_to_source
from tests.sandbox import create, names
from tests.sandbox.fivetran import Project
from tools.debug import debug, reset
from tools.fivetran import copy_connector, skip_version_checks
from tools.paths import ROOT
from tools.sandbox import obey, print_requests, serve, words, write_configuration

every_connector = pytest.mark.parametrize("name", names())


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder, in which `fivetran configuration` keeps its key."""
    folder = tmp_path / "home"
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(folder))
    return folder


def encrypted(configuration: dict[str, str], *keys: str) -> dict[str, str]:
    """What `fivetran configuration` writes: the values of ``keys`` encrypted."""
    key = get_or_create_key()
    return {
        name: encrypt_value(value, name, key) if name in keys else value
        for name, value in configuration.items()
    }


@every_connector
def test_a_connector_started_by_hand_reads_the_local_configuration(
    name: str, tmp_path: Path, home: Path
) -> None:
    """From any folder: configuration.local.json goes before the template, and what was
    encrypted is decrypted."""
    project = Project(name, tmp_path)
    with create(name) as sandbox:
        given = sandbox.configuration()
        secrets = [key for key in given if given[key] in sandbox.secrets()]
        local = encrypted(given, *secrets)
        (project.path / "configuration.local.json").write_text(json.dumps(local))
        done = run_by_hand(project)
        assert done.returncode == 0, done.stdout
        assert_equal_to_source(project, sandbox)
    assert secrets
    assert "fivetran_encrypted" not in done.stdout


def test_values_that_cannot_be_decrypted_are_a_sentence(tmp_path: Path, home: Path) -> None:
    """Without a traceback, and without a request: the key is that of another machine."""
    project = Project("paligo", tmp_path)
    with create("paligo") as sandbox:
        local = encrypted(sandbox.configuration(), "api_key")
        (project.path / "configuration.local.json").write_text(json.dumps(local))
        shutil.rmtree(home / ".fivetran" / "connector_sdk")
        project = Project("paligo", tmp_path)
        done = run_by_hand(project)
        assert sandbox.requests == []
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == (
        "configuration.local.json holds values that cannot be decrypted with the key in "
        "~/.fivetran/connector_sdk: enter them again by `make configure`"
    )
    assert "Traceback" not in done.stdout


def run_by_hand(project: Project) -> "subprocess.CompletedProcess[str]":
    """`python connector.py`, in another folder."""
    return subprocess.run(
        [sys.executable, str(project.path / "connector.py")],
        cwd=project.path.parent,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=110,
    )


def test_the_template_is_read_where_nothing_else_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Fivetran's examples do; without a template, too, a sentence says what to do."""
    monkeypatch.setenv("PATH", "/nowhere")
    (tmp_path / "configuration.json").write_text('{"a": "1"}')
    assert local_configuration(tmp_path) == {"a": "1"}
    assert shutil.which("fivetran")  # as without an activated environment
    (tmp_path / "configuration.local.json").write_text('{"a": "2"}')
    assert local_configuration(tmp_path) == {"a": "2"}
    with pytest.raises(SystemExit, match=r"There is no configuration\.local\.json in"):
        local_configuration(tmp_path / "elsewhere")


@pytest.mark.posix
def test_a_sync_by_hand_asks_no_package_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK calls `pipreqs`, which would: another one is found before it."""
    real = tmp_path / "pipreqs"
    real.write_text("#!/bin/sh\nexit 1\n")
    real.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "configuration.json").write_text("{}")
    local_configuration(tmp_path)
    found = str(shutil.which("pipreqs"))
    assert found != str(real)
    assert subprocess.run([found, str(tmp_path)], check=False).returncode == 0


@pytest.mark.parametrize("text", ["{", "[]", '{"secret": 17}', '{"secret": null}', "\ufeff{}"])
def test_a_file_that_is_no_configuration_is_a_sentence(tmp_path: Path, text: str) -> None:
    """It names the file, and no value."""
    path = tmp_path / "configuration.local.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        local_configuration(tmp_path)
    assert ended.value.code == f"{path} must be a JSON object whose values are strings"


def test_an_sdk_that_decrypts_nothing_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says how to run instead."""
    (tmp_path / "configuration.local.json").write_text('{"a": "fivetran_encrypted:AAAA"}')
    monkeypatch.setattr("shared.local._DECRYPT", "fivetran_connector_sdk:no_such_function")
    with pytest.raises(SystemExit, match="run `fivetran debug --configuration"):
        local_configuration(tmp_path)


# make debug, make reset, make sandbox


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A root with the folder of a connector."""
    (tmp_path / "connectors").mkdir()
    copy_connector("paligo", tmp_path / "connectors")
    return tmp_path


def test_debug_says_how_to_get_a_configuration(workplace: Path) -> None:
    """The template's placeholders are no configuration."""
    with pytest.raises(SystemExit, match="run `make configure CONNECTOR=paligo`"):
        debug("paligo", workplace)


def test_debug_is_quiet_and_reset_forgets_it(
    workplace: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """With what `make configure` and `make sandbox WRITE=1` write; nothing but the source is
    looked up. The configuration outlives a reset."""
    folder = workplace / "connectors" / "paligo"
    with create("paligo") as sandbox:
        local = write_configuration(sandbox, workplace)
        local.write_text(json.dumps(encrypted(sandbox.configuration(), "api_key")))
        assert debug("paligo", workplace) == 0
        assert {request.status for request in sandbox.requests} == {200}
    printed = capfd.readouterr().out
    assert "SYNC SUCCEEDED" in printed
    assert not [word for word in ("pipreqs", "newer version", "Traceback") if word in printed]
    assert (folder / "files" / "warehouse.db").exists()
    (folder / "crash-reports").mkdir()
    reset("paligo", workplace)
    reset("paligo", workplace)
    assert capfd.readouterr().out.splitlines() == [
        "Deleted connectors/paligo/files/",
        "Deleted connectors/paligo/crash-reports/",
        "paligo has no local state and no rows",
    ]
    assert local.exists()


def test_what_the_sdk_keeps_in_the_home_stays(home: Path) -> None:
    """Only the moments of the last look-ups change."""
    config = home / ".fivetran" / "connector_sdk_core" / "_config.json"
    config.parent.mkdir(parents=True)
    config.write_text('{"lastVersionCheck": 1, "more": 2}')
    skip_version_checks(home)
    kept = json.loads(config.read_text())
    assert kept.pop("lastVersionCheck") > 1
    assert kept == {"more": 2}


@every_connector
def test_a_simulator_writes_its_configuration_over_no_other(name: str, tmp_path: Path) -> None:
    """That of an earlier simulator is replaced; that of an account is not touched."""
    (tmp_path / "connectors" / name).mkdir(parents=True)
    with create(name) as sandbox:
        path = write_configuration(sandbox, tmp_path)
    with create(name) as sandbox:
        given = sandbox.configuration()
        assert write_configuration(sandbox, tmp_path) == path
        assert json.loads(path.read_text()) == given
        address = "mssql_database" if name == "mssql_ehi" else "base_url"
        for text in (json.dumps({**given, address: "https://mine.example"}), "{", "[]"):
            path.write_text(text)
            with pytest.raises(SystemExit, match="is not of a simulator"):
                write_configuration(sandbox, tmp_path)
            assert path.read_text() == text


@every_connector
def test_a_simulator_shows_each_request_once(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a line, in the order in which they came."""
    project = Project(name, tmp_path)
    with create(name) as sandbox:
        assert project.sync(sandbox.configuration()).code == 0
        wanted = [sandbox.describe(request) for request in sandbox.requests]
        capsys.readouterr()
        seen = print_requests(sandbox, 0)
        assert print_requests(sandbox, seen) == seen == len(sandbox.requests)
    assert capsys.readouterr().out.splitlines() == wanted


def test_a_sync_in_process_works_outside_pytest(tmp_path: Path) -> None:
    """Where no fixture has set the SDK up: in a script, or in a shell."""
    script = (
        "from pathlib import Path\n"
        "from tests.sandbox import create\n"
        "from tests.sandbox.fivetran import Project\n"
        "with create('dexory') as sandbox:\n"
        f"    result = Project('dexory', Path({str(tmp_path)!r})).sync(sandbox.configuration())\n"
        "print(result.output, result.code)\n"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith(" 0\n"), done.stdout
    assert "locations" in done.stdout


@pytest.mark.posix
def test_a_simulator_in_the_background_ends_when_it_is_asked_to() -> None:
    """By SIGTERM, without a traceback: a shell lets no Ctrl-C through to it."""
    command = [sys.executable, "-m", "tools", "sandbox", "paligo"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout
        while process.stdout.readline() not in ("Requests:\n", ""):
            pass
        process.terminate()
        assert process.communicate(timeout=20)[0] == ""
    assert process.returncode == 0


def test_a_simulator_says_nothing_before_it_refuses(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A port that none can be, and a configuration that must not be overwritten."""

    def refuse(_: object) -> None:
        sys.exit("is not of a simulator")

    monkeypatch.setattr("tools.sandbox.write_configuration", refuse)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    for port, sentence in ((99_999, "Port 99999 is not one"), (-1, "Port -1"), (0, "is not of a")):
        with pytest.raises(SystemExit, match=sentence):
            serve("paligo", port, write=True)
    assert capsys.readouterr().out == ""


def test_a_simulator_does_what_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records change, a request fails, all goes away; another word lists those that it knows."""
    monkeypatch.setattr("shared.rest.pause", lambda closed, seconds: False)
    project = Project("dentally", tmp_path)
    with create("dentally") as simulator:
        assert project.sync(simulator.configuration()).code == 0
        assert "changed" in obey(simulator, "")
        assert simulator.troubles[0] in obey(simulator, simulator.troubles[0])
        second = project.sync(simulator.configuration(reconcile_hours="0"))
        assert second.counts["Upserts"] > 0
        assert "retry 1 of" in second.output
        assert all(word in obey(simulator, "dance") for word in words(simulator))
        assert "From the next request on" in obey(simulator, "down")
        assert project.sync(simulator.configuration(retry_attempts="0")).code == 1
        obey(simulator, "calm")
        assert project.sync(simulator.configuration(retry_attempts="0")).code == 0
        obey(simulator, "empty")
        assert "lists nothing" in project.sync(simulator.configuration(reconcile_hours="0")).output


def test_a_fault_that_is_typed_is_seen_in_the_next_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of SQL Server, too, where most statements of a sync without changes find no row."""
    monkeypatch.setattr("shared.rest.pause", lambda closed, seconds: False)
    project = Project("mssql_ehi", tmp_path)
    with create("mssql_ehi") as simulator:
        assert project.sync(simulator.configuration()).code == 0
        for word in simulator.troubles:
            obey(simulator, word)
            synced = project.sync(simulator.configuration())
            assert synced.code == 0
            assert "retry 1 of" in synced.output, word
        obey(simulator, "denied")
        assert "error 229" in project.sync(simulator.configuration()).output
        obey(simulator, "down")
        output = project.sync(simulator.configuration()).output
    for told in ("retry 3 of 3", "gave up after 3 retries"):
        assert re.search(rf"connector dbo\.AccessLog: its rows: .*{told}", output), told
