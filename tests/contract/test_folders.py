"""Which files of a folder are deployed and kept by git, and what they import."""

import ast
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.sandbox import names
from tools.checks import check_templates
from tools.module_names import check_module_names
from tools.paths import CONNECTORS, NAMES, ROOT
from tools.vendored import check_vendored


def test_every_connector_has_a_stand_in() -> None:
    """Without one it would be in none of these tests."""
    assert names() == NAMES


# Files that are left over where somebody works.
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
    """No leftover is added. Git and the package read the same list, so a new module cannot be
    forgotten."""
    wanted = deployed(project.path) | {"configuration.json"}
    (project.path / "one_more.py").touch()
    plant(project.path)
    git(project.path, "init", "-q")
    git(project.path, "add", ".")
    assert set(git(project.path, "ls-files", "-z").split("\0")) == wanted | {"one_more.py", ""}


@pytest.mark.parametrize("folder", CONNECTORS, ids=lambda folder: folder.name)
def test_what_git_keeps_is_deployed_or_known(folder: Path) -> None:
    """A file in the repository is deployed, the template, or for development."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no checkout")
    listed = git(folder, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    kept = set(listed.split("\0")) - {""}
    assert deployed(folder) | {"configuration.json"} <= kept
    others = kept - deployed(folder) - {"configuration.json"}
    known = r"(test|debug|faker)_\w+(\.py$|/)|queries/\w+\.sql$"
    assert not [name for name in others if not re.match(known, name)]


def test_the_list_of_deployed_files_is_the_same_everywhere() -> None:
    """A connector's own list only adds folders of modules."""
    common = (ROOT / "tools/skeleton/connectors/example/.gitignore").read_text()
    for folder in CONNECTORS:
        more = sorted({path.parent.name for path in folder.glob("*/__init__.py")} - {"shared"})
        lines = (f"!/{n}/\n/{n}/*\n!/{n}/*.py\n/{n}/*[!a-z0-9_]*.py\n" for n in more)
        assert (folder / ".gitignore").read_text() == common + "".join(lines)


def git(folder: Path, *arguments: str) -> str:
    """What a git command prints, without the settings of this machine."""
    command = ["git", "-c", f"core.excludesFile={os.devnull}", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def deployed(folder: Path) -> set[str]:
    """The files of a connector that run in production, and those that are deployed with them."""
    files = {folder / ".gitignore", folder / "README.md", *folder.glob("requirements.txt")}
    files |= {*_modules(folder), *(folder / "shared" / p.name for p in ROOT.glob("shared/*.py"))}
    return {path.relative_to(folder).as_posix() for path in files}


def _modules(folder: Path) -> list[Path]:
    """The modules of a connector that run in production, with those in its packages."""
    folders = [folder, *(path.parent for path in folder.glob("*/__init__.py"))]
    modules = [path for each in folders for path in each.glob("*.py")]
    return [path for path in modules if not path.name.startswith(("test_", "debug_"))]


# The modules of packages with other names than their package.
MODULES = {"python-tds": "pytds", "pyopenssl": "OpenSSL"}


def test_a_connector_imports_only_what_it_declares(sandbox: Any) -> None:
    """The SDK, requests and the urllib3 that it installs, packages pinned in requirements.txt, the
    shared package, the standard library. Modules of shared/ that the connector does not use are
    not checked."""
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
    """Whether a module of shared/ is imported, directly or by a module that is."""
    importing = re.compile(
        rf"^from (?:shared|)\.{module} import|^from (?:shared|\.) import .*\b{module}\b", re.M
    )
    used = [path for path in _modules(folder) if importing.search(path.read_text())]
    return any(path.parent.name != "shared" or _is_used(path.stem, folder) for path in used)


def test_the_folders_are_in_order() -> None:
    """Vendored copies are identical, no module has a name that is taken, and no template holds a
    secret."""
    assert check_vendored() == []
    assert check_module_names() == []
    assert check_templates() == []


@pytest.mark.parametrize("folder", CONNECTORS, ids=lambda folder: folder.name)
def test_no_import_is_looked_up_under_a_name_of_this_repository(folder: Path) -> None:
    """The SDK's check of dependencies asks the package index for every name that is imported in
    the folder and is no module there: a package `tests` or `connectors` would be a stranger's."""
    files = [*folder.rglob("*.py")]
    here = {part for path in files for part in (path.stem, path.parent.name)}
    imported = {
        name.split(".")[0]
        for path in files
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in _imported(node)
    }
    ours = {path.name for path in ROOT.iterdir() if path.is_dir()}
    assert imported & ours <= here & {"shared"}


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
