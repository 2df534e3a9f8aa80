"""What `tools deploy` uploads and sends, by the real `fivetran deploy`, to a simulator."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.sandbox import create, names
from tests.sandbox.fivetran import Project
from tests.sandbox.fivetran_api import KEY, FivetranApi
from tools.changed import changed
from tools.fivetran import copy_connector
from tools.paths import NAMES, ROOT

pytestmark = pytest.mark.posix  # CI deploys on Linux
Deploy = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def api() -> Iterator[FivetranApi]:
    with FivetranApi() as started:
        yield started


@pytest.fixture
def deploy(api: FivetranApi, tmp_path: Path) -> Deploy:
    """`python -m tools deploy`, as CI runs it."""
    home = tmp_path / "home"
    environment = Project("paligo", tmp_path).environment
    api.home(home)
    (tmp_path / "temporary").mkdir()

    def run(
        name: str = "paligo", *options: str, key: str = KEY, configuration: str = ""
    ) -> "subprocess.CompletedProcess[str]":
        where = ["--destination", "warehouse", "--connection", f"{name}_live"]
        done = subprocess.run(
            [sys.executable, "-m", "tools", "deploy", name, *where, *options],
            cwd=ROOT,
            env={
                **environment,
                "FIVETRAN_API_KEY": key,
                "CONNECTOR_CONFIGURATION": configuration,
                "FIVETRAN_CONFIGURATION": str(tmp_path / "paligo" / "configuration.json"),
                "TMPDIR": str(tmp_path / "temporary"),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert list((tmp_path / "temporary").iterdir()) == []  # no secret stays on the disk
        assert not key or key[:8] not in done.stdout + done.stderr
        return done

    return run


def paligo() -> dict[str, str]:
    return create("paligo").configuration()


@pytest.mark.parametrize("name", names())
def test_a_redeploy_changes_no_secret(api: FivetranApi, deploy: Deploy, name: str) -> None:
    """No secrets are sent; the new package is the folder's, with the requirements as they are."""
    api.connections[f"{name}_live"] = {"secrets_list": ["as they are"], "package_id": "package_0"}
    api.packages["package_0"] = {}
    done = deploy(name)
    assert done.returncode == 0, done.stdout
    sent = api.sent("PATCH")
    assert "secrets_list" not in json.dumps(sent)
    assert sent["config"]["package_id"] == "package_2"
    assert sent["config"]["python_version"] == "3.14"
    assert sent["run_setup_tests"] is True
    assert {recorded.status for recorded in api.requests} == {200}  # nothing else is asked for
    folder, packed = ROOT / "connectors" / name, api.packages["package_2"]
    pinned = folder / "requirements.txt"
    assert packed.get("requirements.txt") == (pinned.read_bytes() if pinned.exists() else None)
    assert packed["connector.py"] == (folder / "connector.py").read_bytes()
    assert b"Base URL" in packed["configuration_form.pb"] or name == "mssql_ehi"
    assert not {"configuration.json", "test_connector.py"} & packed.keys()


def test_a_new_connection_gets_its_configuration(api: FivetranApi, deploy: Deploy) -> None:
    """Every key of it, and only there: no value is printed."""
    done = deploy(configuration=json.dumps(paligo()))
    assert done.returncode == 0, done.stdout
    sent = api.sent("POST")
    assert sent["config"]["secrets_list"] == [{"key": k, "value": v} for k, v in paligo().items()]
    assert sent["config"]["schema"] == "paligo_live"
    assert sent["paused"] is True
    assert "configuration.json" not in api.packages["package_1"]
    assert not [value for value in paligo().values() if value in done.stdout + done.stderr]


def test_a_new_configuration_replaces_the_old_one(api: FivetranApi, deploy: Deploy) -> None:
    """Of a connection that exists, where that is asked for."""
    api.connections["paligo_live"] = {}
    assert deploy(configuration=json.dumps(paligo())).returncode == 0
    assert len(api.sent("PATCH")["config"]["secrets_list"]) == len(paligo())


def test_a_new_connection_needs_a_configuration(api: FivetranApi, deploy: Deploy) -> None:
    """Nothing is created, nor uploaded, without one."""
    done = deploy()
    assert done.returncode == 1
    assert "configuration is required" in done.stdout
    assert not api.packages
    assert not api.connections


def test_a_failing_setup_test_fails_the_deployment(api: FivetranApi, deploy: Deploy) -> None:
    """What it says is shown, but for the values of the configuration."""
    api.connections["paligo_live"] = {}
    api.failing = f"Paligo refuses username and api_key, {paligo()['api_key']}"
    done = deploy(configuration=json.dumps(paligo()))
    assert done.returncode == 1
    assert "Paligo refuses username and api_key, ***" in done.stdout


def test_a_refused_key_ends_it(api: FivetranApi, deploy: Deploy) -> None:
    """401: before anything is uploaded."""
    done = deploy(key="bm90LXRoZS1rZXk6bm90LXRoZS1zZWNyZXQ=")
    assert done.returncode == 1
    assert "401" in done.stdout
    assert not api.packages


@pytest.mark.parametrize(
    ("path", "skip"), [("/v1/connector-sdk/packages", 0), ("/v1/connectors/paligo_live", 1)]
)
def test_a_fault_of_the_platform_ends_it(
    api: FivetranApi, deploy: Deploy, path: str, skip: int
) -> None:
    """500, at the upload and at the update: the deployment fails and no package is left over."""
    api.connections["paligo_live"] = {}
    api.fault(path, skip=skip, status=500, body='{"message": "out of order"}')
    done = deploy()
    assert done.returncode == 1
    assert "out of order" in done.stdout
    assert not api.packages


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not a JSON object"),
        ('["secret-in-a-list"]', "is not a JSON object"),
        ('{"max": 17}', "is not a JSON object"),
        ('{"api_key": "<YOUR_API_KEY>"}', "holds placeholders: api_key"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused(
    api: FivetranApi, deploy: Deploy, text: str, sentence: str
) -> None:
    """Before any request, and without showing it."""
    done = deploy(configuration=text)
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "secret-in-a-list" not in done.stderr
    assert api.requests == []


def test_without_a_key_nothing_is_tried(api: FivetranApi, deploy: Deploy) -> None:
    """The sentence names the variable."""
    done = deploy(key="")
    assert done.returncode == 1
    assert "FIVETRAN_API_KEY is not set" in done.stderr
    assert api.requests == []


def test_a_requirements_file_that_was_rewritten_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by a later SDK, whose check of dependencies could be another one."""
    from tools import deploy as module

    command = tmp_path / "fivetran"
    command.write_text('#!/bin/sh\necho "other==1" > "$2/requirements.txt"\n')
    command.chmod(0o755)
    monkeypatch.setattr(module, "command", lambda _: str(command))
    with pytest.raises(SystemExit, match="is not what dentally"):
        module.deploy("dentally", [], {"FIVETRAN_API_KEY": KEY})


def test_only_what_belongs_is_given_to_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """No configuration, neither the template nor another one, and no file that lies around, which
    is named; the list of what is deployed goes along."""
    from tools import deploy as module, staging

    folder = copy_connector("paligo", tmp_path / "connectors")
    for name in ("configuration.prod.json", "id_rsa", "old_connector.py"):
        (folder / name).write_text("{}")
    command = tmp_path / "fivetran"
    command.write_text('#!/bin/sh\ncd "$2" && find . -type f && cat .gitignore\n')
    command.chmod(0o755)
    monkeypatch.setattr(module, "command", lambda _: str(command))
    monkeypatch.setattr(staging, "ROOT", tmp_path)
    assert module.deploy("paligo", [], {"FIVETRAN_API_KEY": KEY, "PATH": os.environ["PATH"]}) == 0
    printed = capfd.readouterr().out
    staged = set(re.findall(r"^\./(.*)$", printed, re.M))
    assert {"connector.py", "shared/rest.py", "README.md", ".gitignore"} <= staged
    assert not {name for name in staged if not name.endswith((".py", ".md", ".gitignore"))}
    assert not staged & {"old_connector.py", "test_connector.py"}
    assert "configuration.prod.json, debug_connector.py, faker_mock/, id_rsa, old_con" in printed
    assert (folder / ".gitignore").read_text() in printed


def test_the_workflow_offers_every_connector() -> None:
    """For a deployment by hand."""
    text = (ROOT / ".github" / "workflows" / "deploy.yml").read_text()
    [options] = re.findall(r"options: \[(.*)\]", text)
    assert options.split(", ") == NAMES


def git(root: Path, *arguments: str) -> str:
    """One git command, with no settings of the machine's."""
    who = ["-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "commit.gpgsign=false"]
    done = subprocess.run(
        ["git", *who, *arguments], cwd=root, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_only_what_changed_is_deployed(tmp_path: Path) -> None:
    """By the folder or the copy of shared/ in it; other files concern no connector."""
    for name in NAMES:
        (tmp_path / "connectors" / name / "shared").mkdir(parents=True)
        (tmp_path / "connectors" / name / "shared" / "rest.py").touch()
    git(tmp_path, "init", "-q")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    first = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "connectors" / "paligo" / "shared" / "rest.py").write_text("# changed\n")
    (tmp_path / "connectors" / "dexory" / "connector.py").touch()
    (tmp_path / "README.md").touch()
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "second")
    assert changed(first, tmp_path) == ["dexory", "paligo"]
    assert changed("HEAD", tmp_path) == []
    for unknown in ("", "0" * 40, "--output=x"):
        assert changed(unknown, tmp_path) == NAMES
