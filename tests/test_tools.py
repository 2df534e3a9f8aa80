"""The command line of tools/, and the names that it lets modules have."""

import argparse
import json
import pkgutil
import re
import subprocess
from pathlib import Path
from unittest import mock

import pytest

from tools.__main__ import build_parser, main
from tools.module_names import check_module_names
from tools.paths import CONNECTORS, NAMES, ROOT


def verbs() -> dict[str, argparse.ArgumentParser]:
    """The parser of each verb."""
    [action] = [a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(action.choices)


@pytest.mark.parametrize("verb", verbs())
def test_help_describes_a_verb_and_its_options(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each option and argument is explained, and the function behind the verb exists."""
    with pytest.raises(SystemExit) as ended:
        main([verb, "--help"])
    assert ended.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert str(verbs()[verb].description).rstrip(".") in printed
    assert all(action.help for action in verbs()[verb]._actions)
    assert callable(pkgutil.resolve_name(str(verbs()[verb].get_default("action"))))


def test_help_lists_every_verb_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """In the order in which they are declared."""
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    listed = re.findall(r"^    ([a-z-]+)(?:  +|\n +)[a-z]", capsys.readouterr().out, re.M)
    assert listed == list(verbs())


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("no-such-verb",),
        ("check", "--no-such-option"),
        ("show",),
        ("show", "no_such_connector"),
        ("demo", "no_such_connector"),
        ("sandbox", "paligo", "--port", "x"),
        ("deploy", "paligo"),
        ("mutants", "no_such_part"),
    ],
)
def test_wrong_usage_ends_with_code_2(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """And with the usage, on stderr."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.err.startswith("usage: python -m tools")
    assert printed.out == ""


@pytest.mark.posix
@pytest.mark.parametrize("verb", ["show", "new", "demo", "schema"])
@pytest.mark.parametrize("name", ["pal igo", "../shared", 'a"; echo typed; "'])
def test_make_runs_nothing_that_is_typed_for_a_name(verb: str, name: str) -> None:
    """It ends with a sentence."""
    command = ["make", "-s", "-o", ".venv/.ready", verb, f"CONNECTOR={name}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "typed" not in done.stdout.splitlines()
    assert re.search("Name a connector|no connector|will not do", done.stdout + done.stderr)


def test_options_that_deploy_does_not_know_are_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """To `fivetran deploy`, in their order."""
    deploy = mock.Mock(return_value=7)
    monkeypatch.setattr("tools.deploy.deploy", deploy)
    where = ["--destination", "d", "--connection", "c"]
    assert main(["deploy", "paligo", *where, "--proxy-id", "p", "--force", "--dest", "x"]) == 7
    [(name, options, _)] = [call.args for call in deploy.call_args_list]
    assert name == "paligo"
    assert options == [
        *where,
        "--python-version",
        "3.14",
        "--proxy-id",
        "p",
        "--force",
        "--dest",
        "x",
    ]


def test_a_verb_works_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it does concerns the repository, not the current folder."""
    monkeypatch.chdir(tmp_path)
    assert main(["changed"]) is None
    assert json.loads(capsys.readouterr().out) == NAMES


def test_documents_the_makefile_and_workflows_call_verbs_that_exist() -> None:
    """`python -m tools.name` would not be one."""
    files = [ROOT / "Makefile", *ROOT.glob(".github/workflows/*.yml"), *ROOT.glob("*.md")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    called = set(re.findall(r"-m tools([. ][\w-]+)", text)) - {" VERB"}
    assert {" check", " changed", " deploy"} <= called
    assert called <= {f" {verb}" for verb in verbs()}


def test_vendored_copies_are_marked_as_generated() -> None:
    """Reviews fold them, and show the original."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    paths = ["shared/rest.py", *(f"connectors/{name}/shared/rest.py" for name in NAMES)]
    command = ["git", "check-attr", "linguist-generated", *paths]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    values = [line.rpartition(": ")[2] for line in done.stdout.splitlines()]
    assert values == ["unspecified", *["set"] * len(NAMES)]


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("queue.py", "a module of Python's standard library"),
        ("azure.py", "a package into which vendors install their SDKs"),
        ("requests.py", "an installed package"),
        ("pytds/__init__.py", "an installed package"),
        ("tests/__init__.py", "the folder tests/ of this repository"),
        ("sqlserver/__init__.py", "a module of mssql_ehi"),
    ],
)
def test_a_module_name_that_is_taken_is_an_error(tmp_path: Path, name: str, owner: str) -> None:
    """It says which module of which connector, what has the name, and what to do."""
    path = tmp_path / "acme" / name
    path.parent.mkdir(parents=True)
    path.touch()
    module = name.partition("/")[0]
    errors = check_module_names([*CONNECTORS, tmp_path / "acme"])
    assert (
        f"connectors/acme/{module} has the name of {owner}: rename it, or move it into a package "
        "of the connector"
    ) in errors


def test_module_names_that_every_connector_may_have_are_none(tmp_path: Path) -> None:
    """connector.py, shared/, modules inside a package, and files that are not deployed."""
    for name in ("connector", "shared/__init__", "test_queue", "debug_queue", "conftest"):
        (tmp_path / "acme" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "acme" / f"{name}.py").touch()
    (tmp_path / "acme" / "acme_parts").mkdir()
    for name in ("__init__", "queue", "azure"):
        (tmp_path / "acme" / "acme_parts" / f"{name}.py").touch()
    assert check_module_names([*CONNECTORS, tmp_path / "acme"]) == []
