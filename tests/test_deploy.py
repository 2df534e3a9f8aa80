"""What `tools deploy` uploads and sends, by the real `fivetran deploy`, to a simulator."""

import base64
import html
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from jinja2.utils import htmlsafe_json_dumps

from tests.sandbox import create, names
from tests.sandbox.fivetran import Project
from tests.sandbox.fivetran_api import KEY, FivetranApi
from tools.changed import changed, check_order
from tools.deploy import _secrets
from tools.fivetran import copy_connector
from tools.masking import masker
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
        name: str = "paligo",
        *options: str,
        key: str = KEY,
        configuration: str = "",
        github: str = "",
    ) -> "subprocess.CompletedProcess[str]":
        where = ["--destination", "warehouse", "--connection", f"{name}_live"]
        done = subprocess.run(
            [sys.executable, "-m", "tools", "deploy", name, *where, *options],
            cwd=ROOT,
            env={
                **environment,
                "GITHUB_ACTIONS": github,
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
        printed = re.sub("(?m)^::add-mask::.*$", "", done.stdout) + done.stderr
        assert not key or key[:8] not in printed
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
    printed = done.stdout + done.stderr
    # The digits of a number may be those of a time or a size.
    assert not [value for value in paligo().values() if value in printed and not value.isdigit()]


def test_a_new_configuration_replaces_the_old_one(api: FivetranApi, deploy: Deploy) -> None:
    """Of a connection that exists, where that is asked for."""
    api.connections["paligo_live"] = {}
    assert deploy(configuration=json.dumps(paligo())).returncode == 0
    assert len(api.sent("PATCH")["config"]["secrets_list"]) == len(paligo())


def test_a_dry_run_says_what_a_deployment_would_do(api: FivetranApi, deploy: Deploy) -> None:
    """It packs the same files, and requests nothing; no value of the configuration is shown."""
    assert deploy(configuration=json.dumps(paligo())).returncode == 0
    sent = len(api.requests)
    wanted = api.packages["package_1"].keys() - {"configuration_form.pb"}
    options = ("--dry-run", "--api-key=not-shown", "--proxy-id", "not-shown")
    done = deploy("paligo", *options, configuration=json.dumps(paligo()), key="")
    assert done.returncode == 0, done.stderr
    assert len(api.requests) == sent
    listed = set(re.findall(r"^  (\S+) \([\d,]+ bytes\)$", done.stdout, re.M))
    assert listed == {name for name in wanted if not name.endswith("/")}
    assert f"that would be sent: {', '.join(paligo())}\n" in done.stdout
    assert "the connection paligo_live in warehouse" in done.stdout
    assert "not-shown" not in done.stdout
    assert not [value for value in paligo().values() if value in done.stdout and len(value) > 3]


def test_an_encrypted_value_is_not_deployed(api: FivetranApi, deploy: Deploy) -> None:
    """Only the machine on which `make configure` ran could read it."""
    done = deploy(configuration=json.dumps({**paligo(), "api_key": "fivetran_encrypted:c2Vj"}))
    assert done.returncode == 1
    assert "api_key" in done.stderr
    assert "c2Vj" not in done.stdout + done.stderr
    assert not api.requests


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


def test_a_message_shows_no_secret_in_any_form(api: FivetranApi, deploy: Deploy) -> None:
    """Here as JSON within JSON; a short one, too."""
    api.connections["paligo_live"] = {}
    key = 'p"\u00e9/1'
    api.failing = json.dumps({"was sent": {"api_key": key}})
    done = deploy(configuration=json.dumps({**paligo(), "api_key": key}))
    assert done.returncode == 1
    assert "was sent" in done.stdout
    assert "***" in done.stdout
    assert "00e9" not in done.stdout


def test_github_masks_every_form_in_its_log(api: FivetranApi, deploy: Deploy) -> None:
    """Before anything else is printed; elsewhere nobody is told (as in all other tests)."""
    api.connections["paligo_live"] = {}
    given = {**paligo(), "api_key": "a b%"}
    done = deploy(configuration=json.dumps(given), github="true")
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    masks = [line for line in lines if line.startswith("::add-mask::")]
    assert lines[: len(masks)] == masks
    assert {"::add-mask::a b%25", "::add-mask::a%2520b%2525", "::add-mask::YSBiJQ=="} <= {*masks}
    assert f"::add-mask::{KEY}" in masks


def test_a_password_in_angle_brackets_is_none_of_the_placeholders(
    api: FivetranApi, deploy: Deploy
) -> None:
    """It is sent as it is. A placeholder of a template begins with <YOUR_."""
    for api_key in ("<HUNTER2>", "<Abc", "<YOURS>"):
        done = deploy(configuration=json.dumps({**paligo(), "api_key": api_key}))
        assert done.returncode == 0, done.stdout
        assert api_key not in done.stdout
        [sent] = [
            item["value"]
            for item in api.connections["paligo_live"]["secrets_list"]
            if item["key"] == "api_key"
        ]
        assert sent == api_key


DEPLOY_WITH = """
import os, sys
from tools import deploy
deploy.command = lambda _: sys.argv[1]
sys.exit(deploy.deploy("paligo", [], dict(os.environ)))
"""
# It prints the file that it was given, its process and one that it starts, and ignores signals.
STUBBORN = """#!/bin/sh
trap '' TERM HUP INT QUIT
sleep 600 &
echo "$5 $$ $!"
wait
"""


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT"])
def test_a_signal_leaves_neither_a_file_nor_a_process(tmp_path: Path, name: str) -> None:
    """The file with the configuration is there while the command runs, and gone with it."""
    command = tmp_path / "fivetran"
    command.write_text(STUBBORN)
    command.chmod(0o755)
    (tmp_path / "temporary").mkdir()
    given = {
        "FIVETRAN_API_KEY": KEY,
        "CONNECTOR_CONFIGURATION": json.dumps(paligo()),
        "TMPDIR": str(tmp_path / "temporary"),
        "PATH": os.environ["PATH"],
    }
    quick = DEPLOY_WITH.replace("sys.exit", "deploy._SECONDS_TO_END = 0.1; sys.exit")
    with subprocess.Popen(
        [sys.executable, "-c", quick, str(command)],
        cwd=ROOT,
        env=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # An earlier process of these tests may ignore some of them.
        preexec_fn=lambda: signal.signal(getattr(signal, name), signal.SIG_DFL),
    ) as process:
        assert process.stdout
        lines = iter(process.stdout)
        started = next(line for line in lines if line.startswith(str(tmp_path)))
        file, *ended = started.split()
        assert json.loads(Path(file).read_text()) == paligo()
        assert Path(file).stat().st_mode & 0o777 == 0o600
        process.send_signal(getattr(signal, name))
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, name)
    assert errors == ""
    assert list((tmp_path / "temporary").iterdir()) == []
    assert not [number for number in ended if is_running(int(number))]


def is_running(number: int) -> bool:
    """Whether a process runs; one that has ended may wait for whoever asks for its code."""
    done = subprocess.run(
        ["ps", "-o", "stat=", "-p", str(number)], capture_output=True, text=True, check=False
    )
    return bool(done.stdout.strip()) and not done.stdout.startswith("Z")


def test_a_signal_that_is_ignored_stays_so(tmp_path: Path) -> None:
    """As `nohup` asks for."""
    command = tmp_path / "fivetran"
    command.write_text("#!/bin/sh\nkill -HUP $PPID\n")
    command.chmod(0o755)
    done = subprocess.run(
        [sys.executable, "-c", DEPLOY_WITH, str(command)],
        cwd=ROOT,
        env={"FIVETRAN_API_KEY": KEY, "PATH": os.environ["PATH"], "TMPDIR": str(tmp_path)},
        capture_output=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == [command]


SECRETS = (
    "abc",
    "hunter2-and-more",
    "p@ss/w\u00f6rd +%~!'()*",
    "both\"quotes'and\\",
    "<b>&amp;",
    "-----BEGIN KEY-----\nMIIC+/x==\r\n  zz9\n-----END KEY-----\n",
)


def quoted(secret: str) -> dict[str, str]:
    """The lines in which programs show a secret, by what shows it."""
    whole = f"user:{secret}".encode()
    return {
        "as it is": secret,
        "json": json.dumps({"k": secret}),
        "json of utf-8": json.dumps({"k": secret}, ensure_ascii=False),
        "json in json": json.dumps({"k": json.dumps({"k": secret})}),
        "json for pages": str(htmlsafe_json_dumps({"k": secret})),
        "json of php": json.dumps({"k": secret}).replace("/", "\\/"),
        "repr": repr({"k": secret}),
        "repr in a longer text": repr(f"{secret} \" '"),
        "repr of bytes": repr(secret.encode()),
        "repr of json": repr(json.dumps({"k": secret})),
        "ascii": ascii([secret]),
        "query": urlencode({"k": secret}),
        "path": quote(secret),
        "component": quote(secret, safe="!'()*"),
        "lower-case query": re.sub(
            "%..", lambda found: found[0].lower(), urlencode({"k": secret})
        ),
        "html": html.escape(secret),
        "base64": base64.b64encode(secret.encode()).decode(),
        "base64 for URLs": base64.urlsafe_b64encode(secret.encode()).decode().rstrip("="),
        "user and password": base64.b64encode(whole).decode() if len(secret) > 6 else "",
    }


@pytest.mark.parametrize("way", quoted(""))
@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_masked_in_every_form(secret: str, way: str) -> None:
    """Nothing of it is left on any line, but single characters that all texts have."""
    mask = masker([secret])
    masked = "".join(mask(line) for line in quoted(secret)[way].splitlines(keepends=True))
    assert not way.startswith(("json", "repr")) or "***" in masked
    rest = masked.replace("***", "")
    for text in (secret, *secret.splitlines()):
        assert not text.strip() or text.strip() not in rest
    left = re.sub(r'[\s\\{}\[\]"\':=,bkn>]', "", rest)
    # What base64 begins with is the user; the last character may stand for two bits.
    assert len(left) <= 9 if way == "user and password" else left == "", masked


@pytest.mark.timeout(10)
def test_a_long_line_is_masked_quickly() -> None:
    """Of characters that begin an escape, too."""
    mask = masker(["a" + "\\" * 9 + "b" * 9, "'\"" * 9 + "x", "%&" * 9, "key\n" * 99])
    for text in ("\\", "'", "%25", "&amp;", "\\'", "A", "key"):
        assert len(mask(text * 10_000)) <= 10_000 * len(text)


def test_what_is_no_secret_stays_readable() -> None:
    """Short values of keys that hold no secret, and switches."""
    given = {"api_key": "x1", "use_token": "true", "page_size": "100", "base_url": "https://a.b"}
    assert _secrets(given) == ["x1", "https://a.b"]


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
    is named."""
    from tools import deploy as module, staging

    folder = copy_connector("paligo", tmp_path / "connectors")
    for name in ("configuration.prod.json", "id_rsa", "old_connector.py"):
        (folder / name).write_text("{}")
    command = tmp_path / "fivetran"
    command.write_text('#!/bin/sh\ncd "$2" && find . -type f\n')
    command.chmod(0o755)
    monkeypatch.setattr(module, "command", lambda _: str(command))
    monkeypatch.setattr(staging, "ROOT", tmp_path)
    assert module.deploy("paligo", [], {"FIVETRAN_API_KEY": KEY, "PATH": os.environ["PATH"]}) == 0
    printed = capfd.readouterr().out
    staged = set(re.findall(r"^\./(.*)$", printed, re.M))
    assert {"connector.py", "shared/rest.py", "README.md"} <= staged
    assert not {name for name in staged if not name.endswith((".py", ".md"))}
    assert not staged & {"old_connector.py", "test_connector.py"}
    assert "configuration.prod.json, debug_connector.py, faker_mock/, id_rsa, old_con" in printed


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


def test_no_older_commit_is_deployed_over_a_newer_one(tmp_path: Path) -> None:
    """Nor one that is not on the branch. What was deployed from a history that the branch no
    longer has keeps nothing from being deployed."""
    git(tmp_path, "init", "-q", "-b", "main")
    commits = []
    for subject in ("first", "second", "third"):
        git(tmp_path, "commit", "-q", "--allow-empty", "-m", subject)
        commits.append(git(tmp_path, "rev-parse", "HEAD"))
    first, second, third = commits
    git(tmp_path, "checkout", "-q", "-b", "aside", second)
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "aside")
    aside = git(tmp_path, "rev-parse", "HEAD")
    with pytest.raises(SystemExit, match="not on main"):
        check_order([], "main", tmp_path)
    git(tmp_path, "checkout", "-q", second)
    for deployed in ([], [first], [second, first], [aside], ["0" * 40, "--all", "", first]):
        check_order(deployed, "main", tmp_path)
    with pytest.raises(SystemExit, match=f"A newer commit, {third}, was deployed"):
        check_order([second, third, first], "main", tmp_path)


def test_the_workflow_asks_for_the_order_and_installs_only_what_it_needs() -> None:
    """Runs follow one another; the order is checked right before a deployment; what it runs on
    comes from requirements-deploy.txt, with its hashes."""
    text = (ROOT / ".github" / "workflows" / "deploy.yml").read_text()
    assert "\nconcurrency:\n  group: deploy\n  cancel-in-progress: false\n" in text
    job = text[text.index("\n  deploy:") :]
    assert 0 < job.index("tools check-order origin/main $deployed") < job.index("tools deploy")
    installs = re.findall(r"(?:pip|make|uv) \S.*", job)
    assert installs == ["pip install --quiet --require-hashes -r requirements-deploy.txt"]


def test_a_deployment_needs_no_development_package() -> None:
    """The tool itself imports the standard library alone."""
    code = "from tools import __main__, changed, deploy"
    subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, check=True)
