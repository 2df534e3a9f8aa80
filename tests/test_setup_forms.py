"""The setup form of every connector: its fields are the settings, its tests call the source."""

import functools
import json
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from fivetran_connector_sdk_cli import configuration_command, form_field

from shared import settings as kinds
from shared.settings import declared, read
from tests.sandbox import create, names
from tests.sandbox.dentally import Dentally
from tests.sandbox.fivetran import Project, load
from tests.sandbox.mssql_ehi import MssqlEhi
from tests.sandbox.sensource import SenSource
from tests.sandbox.server import Sandbox
from tools.configuration import check_config, configure
from tools.paths import ROOT

every_connector = pytest.mark.parametrize("name", names())


def form(name: str) -> Any:
    return load(name).configuration_form().to_response()


# One definition


@every_connector
def test_form_validation_template_and_readme_agree(name: str) -> None:
    """The same keys in the same order, and of each the same kind, default and need; the form does
    not ask for keys that have no effect."""
    folder, fields = ROOT / "connectors" / name, form(name).fields
    settings = declared(load(name).Settings)
    template = json.loads((folder / "configuration.json").read_text())
    rows = re.findall(r"^\| `(\w+)` \| (yes|no) \|(.*)$", (folder / "README.md").read_text(), re.M)
    assert list(settings) == list(template) == [key for key, _, _ in rows]
    used = [row for row in rows if not settings[row[0]].unused]
    assert [field.name for field in fields] == [key for key, _, _ in used]
    for field, (_, needed, row) in zip(fields, used, strict=True):
        setting = settings[field.name]
        assert field.label == setting.label
        assert field.description.startswith(setting.description)
        assert field.required == (needed == "yes") == (setting.default is None)
        if setting.default:
            assert f"`{setting.default}`" in row
            assert field.toggle or field.placeholder == setting.default
        assert (field.text_field == form_field.PASSWORD) == setting.secret
        says = " or ".join(f'"{option.value}"' for option in field.dropdown_options or [])
        assert (field.toggle or says == setting.kind.expected) == bool(setting.kind.names)
        assert not says or field.required or f"(empty: {setting.default})" in field.description
        text = not (field.toggle or says or setting.kind is kinds.TEXT)
        assert not text or f"({setting.kind.expected})" in field.description


@every_connector
def test_a_key_without_effect_is_accepted_and_not_asked_for(name: str) -> None:
    """Configurations of older connectors stay valid; its README says that it is unused."""
    settings = declared(load(name).Settings)
    unused = {key for key, setting in settings.items() if "Unused" in setting.description}
    assert unused == {key for key, setting in settings.items() if setting.unused}
    assert not unused & {field.name for field in form(name).fields}
    with create(name) as sandbox:
        given = {key: settings[key].default or "" for key in unused}
        load(name).validate_configuration(sandbox.configuration(**given))


@every_connector
def test_what_names_a_secret_is_one(name: str) -> None:
    """By its name alone a key can be seen to need a password field."""
    for key, setting in declared(load(name).Settings).items():
        named = re.search("secret|token|password|api_key", key)
        assert setting.secret == bool(named), key


@every_connector
def test_each_choice_is_valid(name: str) -> None:
    """What a toggle or a drop-down can yield, validation takes."""
    settings = declared(load(name).Settings)
    for field in form(name).fields:
        values = [option.value for option in field.dropdown_options or []]
        for value in ["true", "false"] if field.toggle else values:
            settings[field.name].kind.parse(value)


@every_connector
def test_a_toggle_is_off_by_default(name: str) -> None:
    """One that nobody has touched looks off, and what it looks like is what is meant."""
    settings = declared(load(name).Settings)
    toggles = [field.name for field in form(name).fields if field.toggle]
    assert all(settings[key].default == "false" for key in toggles)


@every_connector
def test_the_answers_to_the_form_are_a_configuration(name: str, tmp_path: Path) -> None:
    """What `fivetran configuration` writes means what was answered; blanks mean the defaults."""
    settings, path = load(name).Settings, tmp_path / "configuration.json"
    with create(name) as sandbox:
        given = sandbox.configuration()
    answers = iter([given.get(field.name, "") for field in form(name).fields])

    def response(_: str) -> str:
        return next(answers)

    code = configuration_command.run_configuration_form(
        form(name), str(path), True, input_fn=response, secret_fn=response
    )
    assert code == 0
    assert vars(read(settings, json.loads(path.read_text()))) == vars(read(settings, given))


# Tests that call the source


@every_connector
def test_the_command_passes_against_the_stand_in(name: str, tmp_path: Path) -> None:
    """The real `fivetran configuration --test`, on a copy of the folder."""
    with create(name) as sandbox:
        result = Project(name, tmp_path).check(sandbox.configuration())
        secrets = sandbox.secrets()
    assert result.code == 0, result.output
    assert "All tests passed!" in result.output
    assert not {secret for secret in secrets if secret in result.output}


@every_connector
def test_wrong_settings_are_named_before_any_request(name: str, tmp_path: Path) -> None:
    """As by a sync: one failure names all keys and shows no value."""
    with create(name) as sandbox:
        wrong = sandbox.configuration(retry_attempts="many", max_tables="-", page_size="x-1")
        found = Project(name, tmp_path).test_settings(wrong)
        assert not sandbox.requests
    assert all("retry_attempts must be a whole number" in str(text) for text in found.values())
    assert "x-1" not in str(found)


CREDENTIALS = {
    "dentally": {
        "client_id": "Check client_id and client_secret",
        "client_secret": "Check client_id and client_secret",
        "access_token": "Dentally refuses access_token",
    },
    "dexory": {"site_api_key": "check site_api_key"},
    "mssql_ehi": {
        "mssql_user": "Check mssql_user and mssql_password",
        "mssql_password": "Check mssql_user and mssql_password",
        "mssql_database": "Check mssql_database",
    },
    "paligo": {
        "username": "refuses username and api_key",
        "api_key": "refuses username and api_key",
    },
    "sensource": {
        "client_id": "Check client_id, client_secret",
        "client_secret": "Check client_id, client_secret",
    },
}


@pytest.mark.parametrize(
    ("name", "key", "sentence"),
    [(name, key, text) for name, keys in CREDENTIALS.items() for key, text in keys.items()],
)
def test_a_wrong_credential_is_named(name: str, key: str, sentence: str, tmp_path: Path) -> None:
    """The failure says which settings to look at, without a value, at the first response."""
    with create(name) as sandbox:
        found = Project(name, tmp_path).test_settings(sandbox.configuration(**{key: "not-this"}))
    failures = [text for text in found.values() if text]
    assert any(sentence in text for text in failures), found
    assert "not-this" not in str(found)


def nobody() -> int:
    """A port at which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port


@pytest.mark.parametrize(
    ("name", "key"),
    [
        *((name, "base_url") for name in names(Sandbox)),
        ("sensource", "auth_url"),
        ("mssql_ehi", "mssql_port"),
    ],
)
def test_an_address_where_nobody_answers_is_named(
    name: str, key: str, tmp_path: Path, waits: list[float]
) -> None:
    """At once, without repeats: the user waits for the result."""
    port = str(nobody())
    address = port if key == "mssql_port" else f"http://127.0.0.1:{port}"
    with create(name) as sandbox:
        found = Project(name, tmp_path).test_settings(sandbox.configuration(**{key: address}))
    assert any(port in text or key in text for text in found.values() if text), found
    assert "no response" in str(found) or "the connection was refused" in str(found)
    assert waits == []


@pytest.mark.parametrize(
    ("name", "path", "sentence"),
    [
        ("dentally", "/v1/rooms", "check the scopes"),
        ("dexory", "/customer-api/", "The key may not read this"),
        ("paligo", "/api/v2/taxonomies", "use the API key of an administrator"),
        ("sensource", "/api/zone", "ask SenSource for the rights"),
        ("sensource", "/api/data/occupancy", "ask SenSource for the rights"),
    ],
)
def test_a_table_that_may_not_be_read_is_named(
    name: str, path: str, sentence: str, tmp_path: Path
) -> None:
    """With the address of its list, and what to do."""
    with create(name) as sandbox:
        assert isinstance(sandbox, Sandbox)
        sandbox.fault(path, times=None, status=403, headers={"Content-Type": "application/json"})
        found = Project(name, tmp_path).test_settings(sandbox.configuration())
    [failure] = [text for text in found.values() if text]
    assert path in failure
    assert "status 403" in failure
    assert sentence in failure


def test_an_address_of_something_else_is_named(tmp_path: Path) -> None:
    """A host that answers, but not as Paligo does."""
    with create("paligo") as sandbox:
        configuration = sandbox.configuration(base_url=f"{sandbox.url}/elsewhere")
        found = Project("paligo", tmp_path).test_settings(configuration)
    assert "base_url must be https://<instance>.paligoapp.com/api/v2" in str(found)


def test_only_enabled_tables_of_dentally_are_read(tmp_path: Path) -> None:
    """One record each; the refresh token is not spent, nor sent anywhere."""
    with Dentally() as sandbox:
        configuration = sandbox.configuration(enable_rooms_sync="false")
        found = Project("dentally", tmp_path).test_settings(configuration)
        assert set(found.values()) == {None}
        assert sandbox.paths("/v1/") == ["/v1/sites", "/v1/treatments"]
        listed = [request for request in sandbox.requests if request.path.startswith("/v1/")]
        assert {request.query["per_page"] for request in listed} == {"1"}
        [asked] = [request for request in sandbox.requests if request.path == "/oauth/token"]
        assert configuration["refresh_token"].encode() not in asked.body
        assert sandbox.renewals == 0


@pytest.mark.parametrize("said", ["The access token expired", "The access token was revoked"])
def test_a_token_that_dentally_has_replaced_is_no_failure(said: str, tmp_path: Path) -> None:
    """The connection has newer ones in its state, of which a test knows nothing."""
    with Dentally() as sandbox:
        sandbox.fault("/v1/", times=None, status=401, body=json.dumps({"error": said}))
        found = Project("dentally", tmp_path).test_settings(sandbox.configuration())
        assert set(found.values()) == {None}
        assert sandbox.renewals == 0


def test_sensource_gets_one_token_for_all_tables(tmp_path: Path) -> None:
    """A second one would end the first, and the endpoint refuses who asks too often."""
    with SenSource() as sandbox:
        found = Project("sensource", tmp_path).test_settings(sandbox.configuration())
        assert set(found.values()) == {None}
        assert len(sandbox.tokens) == 1
        read = {path.rpartition("/")[2] for path in sandbox.paths("/api/")}
    assert read == {"location", "site", "zone", "space", "sensor", "traffic", "occupancy"}


def test_the_plan_of_each_sql_server_table_is_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And one row of each is read, in no order: no index is needed."""
    with MssqlEhi() as sandbox:
        found = Project("mssql_ehi", tmp_path).test_settings(sandbox.configuration())
        assert set(found.values()) == {None}
        statements = [logged.sql for logged in sandbox.requests]
    assert all(sql.startswith("SELECT TOP (1) ") for sql in statements)
    assert not [sql for sql in statements if "ORDER BY" in sql]
    logged = capsys.readouterr().out
    assert re.search(r"dbo\.Patients: small, about \d+ rows, incremental by ModifiedDate", logged)
    assert re.search(r"dbo\.AccessLog: .*in full, in one statement", logged)


def test_all_sql_server_tables_without_rights_are_named(tmp_path: Path) -> None:
    """In one failure, each with what to do."""
    with MssqlEhi() as sandbox:
        for table in ("dbo.Orders", "dbo.Results"):
            sandbox.server.deny(table)
        found = Project("mssql_ehi", tmp_path).test_settings(sandbox.configuration())
    [failure] = [text for text in found.values() if text]
    assert re.findall(r"^(\S+): .*Grant SELECT", failure, re.M) == ["dbo.Orders", "dbo.Results"]


def test_a_login_that_sees_no_table_is_told_so(tmp_path: Path) -> None:
    """An empty list is no success."""
    with MssqlEhi() as sandbox:
        configuration = sandbox.configuration(exclude_tables="*.*")
        found = Project("mssql_ehi", tmp_path).test_settings(configuration)
    assert "no table that mssql_user may see" in str(found)


def test_a_certificate_that_is_not_trusted_fails(tmp_path: Path) -> None:
    """The system's authorities do not know the simulator's."""
    with MssqlEhi() as sandbox:
        configuration = sandbox.configuration(mssql_ca_certificate="")
        found = Project("mssql_ehi", tmp_path).test_settings(configuration)
    assert all("its certificate is refused" in str(text) for text in found.values())


# The two verbs


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A root in which a connector's local configuration may be written."""
    (tmp_path / "connectors" / "paligo").mkdir(parents=True)
    return tmp_path


@pytest.mark.posix
def test_configure_and_check_config_leave_the_template_alone(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The answers become a local file, the API key encrypted, and the setup tests pass with it."""
    template = (ROOT / "connectors" / "paligo" / "configuration.json").read_text()
    with create("paligo") as sandbox:
        given = sandbox.configuration()
        answers = "".join(f"{given.get(field.name, '')}\n" for field in form("paligo").fields)
        run = functools.partial(
            subprocess.run,
            input=answers,
            text=True,
            env=Project("paligo", workplace).environment,
            start_new_session=True,  # without a terminal the key is read from the input, too
        )
        monkeypatch.setattr(subprocess, "run", run)
        configure("paligo", workplace)
        local = workplace / "connectors" / "paligo" / "configuration.local.json"
        assert json.loads(local.read_text())["username"] == given["username"]
        assert given["api_key"] not in local.read_text()
        check_config("paligo", workplace)
    printed = capfd.readouterr().out
    assert "All tests passed!" in printed
    assert given["api_key"] not in printed
    assert list((workplace / "build").iterdir()) == []
    assert (ROOT / "connectors" / "paligo" / "configuration.json").read_text() == template


def test_check_config_says_when_there_is_nothing_to_check(workplace: Path) -> None:
    """And which command makes it."""
    with pytest.raises(SystemExit, match="make configure CONNECTOR=paligo"):
        check_config("paligo", workplace)
