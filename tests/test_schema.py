"""What `make schema` prints: tables as the destination has them, and JSON Schema."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shared.settings import declared
from tests.sandbox import create, names
from tests.sandbox.fivetran import Project, load
from tools.paths import ROOT
from tools.schema import dbt_sources, json_schema, print_schema, stored_tables, tables_of_simulator

every_connector = pytest.mark.parametrize("name", names())
ADDED = {"_fivetran_id", "_fivetran_deleted", "_fivetran_synced"}


@every_connector
def test_the_tables_are_those_of_a_sync(name: str, tmp_path: Path) -> None:
    """Under the same names, with the same columns and key; each has a description."""
    project = Project(name, tmp_path)
    with create(name) as sandbox:
        assert project.sync(sandbox.configuration()).code == 0
        tables = {table.name: table for table in stored_tables(name, sandbox.configuration())}
    assert sorted(tables) == project.tables()
    for table, told in tables.items():
        assert told.columns.keys() - ADDED == project.types(table).keys()
        found = project.query(f"PRAGMA table_info('tester.{table}')")
        assert {row["name"] for row in found if row["pk"]} == set(told.key)
        assert told.columns.keys() == {row["name"] for row in found}
        assert all(description for _, description in told.columns.values())


def test_an_account_s_tables_go_before_those_of_the_simulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its settings: a table that is switched off is none."""
    folder = tmp_path / "connectors" / "sensource"
    folder.mkdir(parents=True)
    (folder / "README.md").write_text("")
    monkeypatch.setattr("tools.schema.ROOT", tmp_path)
    with create("sensource") as sandbox:
        given = sandbox.configuration(enable_traffic_sync="false")
    (folder / "configuration.local.json").write_text(json.dumps(given))
    print_schema("sensource", "text")
    printed = capsys.readouterr().out
    assert re.search("^occupancy", printed, re.M)
    assert not re.search("^traffic", printed, re.M)
    (folder / "configuration.local.json").write_text('{"client_id": "17"}')
    with pytest.raises(SystemExit, match="client_secret is missing"):
        print_schema("sensource", "text")


@every_connector
def test_the_configuration_has_a_json_schema(name: str) -> None:
    """The simulator's configuration fits; without a required key, with a placeholder in its place
    or with a number as a value it does not. The template still has to be filled in."""
    jsonschema: Any = pytest.importorskip("jsonschema")
    settings = declared(load(name).Settings)
    schema = json_schema(settings, name)
    jsonschema.Draft202012Validator.check_schema(schema)
    fits = jsonschema.Draft202012Validator(schema).is_valid
    with create(name) as sandbox:
        given = sandbox.configuration()
    assert fits(given)
    assert not fits(json.loads((ROOT / "connectors" / name / "configuration.json").read_text()))
    for key in (key for key, setting in settings.items() if setting.default is None):
        for wrong in ("", " ", f"<YOUR_{key.upper()}>", 17, None):
            assert not fits({**given, key: wrong})
        assert not fits({k: v for k, v in given.items() if k != key})
    assert not fits({**given, "retry_attempts": 3})


@every_connector
def test_dbt_understands_the_sources(name: str, tmp_path: Path) -> None:
    """By dbt itself, where it is installed with its adapter of DuckDB: every table is a source,
    and the tests of the keys pass after a sync."""
    pytest.importorskip("dbt.cli.main")
    pytest.importorskip("dbt.adapters.duckdb")
    project = Project(name, tmp_path)
    with create(name) as sandbox:
        assert project.sync(sandbox.configuration()).code == 0
        tables = stored_tables(name, sandbox.configuration())
    target = {"type": "duckdb", "path": str(project.warehouse)}
    files = {
        "dbt_project.yml": {"name": "p", "version": "1.0.0", "profile": "p", "config-version": 2},
        "profiles.yml": {"p": {"target": "t", "outputs": {"t": target}}},
    }
    for file, content in files.items():
        (tmp_path / file).write_text(json.dumps(content))
    (tmp_path / "models").mkdir()
    sources = dbt_sources(name, tables).replace(f'schema: "{name}"', 'schema: "tester"')
    (tmp_path / "models" / "sources.yml").write_text(sources)
    command = [sys.executable, "-c", "from dbt.cli.main import cli; cli()", "test"]
    options = ["--no-send-anonymous-usage-stats", "--profiles-dir", str(tmp_path)]
    done = subprocess.run(
        [*command, *options], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    manifest = json.loads((tmp_path / "target" / "manifest.json").read_text())
    found = {source["name"]: source for source in manifest["sources"].values()}
    assert found.keys() == {table.name for table in tables}
    for table in tables:
        assert found[table.name]["columns"].keys() == table.columns.keys()
        assert found[table.name]["description"]
    results = json.loads((tmp_path / "target" / "run_results.json").read_text())["results"]
    assert len(results) == sum(1 + len(table.key) for table in tables)
    assert {result["status"] for result in results} == {"pass"}


@every_connector
def test_the_sources_are_yaml_with_every_table_and_key(name: str) -> None:
    """Without dbt, too: a key of several columns is tested as one expression."""
    yaml: Any = pytest.importorskip("yaml")
    tables = tables_of_simulator(name)
    [source] = yaml.safe_load(dbt_sources(name, tables))["sources"]
    assert source["name"] == name
    for table, told in zip(tables, source["tables"], strict=True):
        assert told["name"] == table.name
        tested = {c["name"]: c["data_tests"] for c in told["columns"] if "data_tests" in c}
        assert tested.keys() == set(table.key)
        if len(table.key) == 1:
            assert list(tested.values()) == [["not_null", "unique"]]
        else:
            [expression] = [test["unique"]["column_name"] for test in told["data_tests"]]
            assert all(column in expression for column in table.key)
