"""The zip that is deployed is all that a connector needs."""

import os
import re
import shutil
import subprocess
import venv
import zipfile
from pathlib import Path

import pytest

from tests.compare import assert_equal_to_source
from tests.contract.test_folders import LEFT_OVERS, deployed, plant
from tests.sandbox import create, names
from tests.sandbox.fivetran import Project
from tools import package as packing, staging
from tools.fivetran import copy_connector
from tools.paths import NAMES, ROOT

every_connector = pytest.mark.parametrize("name", names())


@every_connector
def test_an_unzipped_package_syncs(name: str, tmp_path: Path) -> None:
    """In an empty directory, where the repository cannot be imported; installed is what
    development needs. That requirements.txt is enough, the next test shows."""
    assert_syncs(Project(name, unzipped(name, tmp_path)))


@pytest.mark.installs
@pytest.mark.timeout(600)
@every_connector
def test_an_unzipped_package_syncs_in_a_clean_environment(name: str, tmp_path: Path) -> None:
    """The same, with nothing installed but the SDK and what the package itself pins."""
    folder, environment = unzipped(name, tmp_path), tmp_path / "environment"
    venv.create(environment, with_pip=True)
    [tools] = [path for path in map(environment.joinpath, ("bin", "Scripts")) if path.exists()]
    sdk = re.search(r"fivetran-connector-sdk==[\d.]+", (ROOT / "pyproject.toml").read_text())
    assert sdk
    requirements = folder / name / "requirements.txt"
    pinned = ["-r", str(requirements)] if requirements.exists() else []
    subprocess.run([tools / "python", "-m", "pip", "install", "-q", sdk[0], *pinned], check=True)
    assert_syncs(Project(name, folder, tools))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with the connectors in it, as somebody works there."""
    for name in NAMES:
        copy_connector(name, tmp_path / "connectors")
    monkeypatch.setattr(staging, "ROOT", tmp_path)
    monkeypatch.setattr(packing, "ROOT", tmp_path)
    (tmp_path / "build").mkdir()
    monkeypatch.setattr(packing, "build_folder", lambda: tmp_path / "build")
    return tmp_path


@every_connector
def test_what_else_lies_in_the_folder_is_named_and_left_out(
    name: str, desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only modules that the connector imports are packed, whatever its .gitignore says."""
    folder = desk / "connectors" / name
    wanted = deployed(folder)
    plant(folder)
    (folder / ".gitignore").write_text("")
    more = ("old_connector.py", "scratch.py", "shared/scratch.py", "drivers/install.sh")
    for path in more:
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).touch()
    packing.package(name)
    with zipfile.ZipFile(desk / "build" / f"{name}.zip") as archive:
        packed = set(archive.namelist())
    assert packed == wanted | {"configuration_form.pb"}
    named = (
        capsys.readouterr().out.splitlines()[0].partition(": ")[2].replace("/,", ",").split(", ")
    )
    for path in (*LEFT_OVERS, *more):
        assert "__pycache__" in path or any(f"{path}/".startswith(f"{n}/") for n in named)
    assert "configuration.json" not in named


def test_a_new_module_is_packed_as_soon_as_it_is_imported(desk: Path) -> None:
    """By any form of import, within a function and in a package, too."""
    folder = desk / "connectors" / "mssql_ehi"
    for path in ("one.py", "two.py", "sqlserver/three.py", "new_parts/four.py", "unused.py"):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).touch()
    (folder / "new_parts" / "__init__.py").touch()
    (folder / "one.py").write_text("def load():\n    import two\n    return two\n")
    with (folder / "connector.py").open("a") as module:
        module.write("import new_parts.four\nfrom one import load\n")
    with (folder / "sqlserver" / "session.py").open("a") as module:
        module.write("from . import three\n")
    before = deployed(ROOT / "connectors" / "mssql_ehi")
    new = {"one.py", "two.py", "sqlserver/three.py", "new_parts/__init__.py", "new_parts/four.py"}
    assert staging.deployed_files(folder) == before | new


@pytest.mark.posix
@pytest.mark.parametrize(
    "path", ["README.md", "notes.txt", "secret.py", "shared/errors.py", "shared", "data", "."]
)
def test_a_symbolic_link_is_refused(desk: Path, path: str) -> None:
    """Of a file or a folder, in the place of one that is packed or not: nothing is packed."""
    place, target = desk / "connectors" / "paligo" / path, desk / "elsewhere"
    if place.is_dir():
        shutil.move(place, target)
    else:
        place.unlink(missing_ok=True)
        target.write_text("secret")
    place.symlink_to(target)
    named = place.relative_to(desk).as_posix()
    with pytest.raises(SystemExit, match=rf"^{named} is a symbolic link: remove it"):
        packing.package("paligo")
    assert list((desk / "build").iterdir()) == []


@pytest.mark.posix
def test_what_is_no_regular_file_is_refused(desk: Path) -> None:
    """A named pipe would stop the command for ever."""
    (desk / "connectors" / "paligo" / "README.md").unlink()
    os.mkfifo(desk / "connectors" / "paligo" / "README.md")
    with pytest.raises(SystemExit, match=r"README\.md is neither a file nor a folder"):
        packing.package("paligo")


def unzipped(name: str, folder: Path) -> Path:
    """A folder with nothing in it but the content of the package, under the connector's name."""
    target = folder / "unzipped"
    with zipfile.ZipFile(Project(name, folder / "source").package()) as archive:
        archive.extractall(target / name)
    return target


def assert_syncs(project: Project) -> None:
    """`fivetran debug` makes the destination equal to the source."""
    with create(project.name) as sandbox:
        result = project.debug(sandbox.configuration())
        assert result.code == 0, result.output
        assert_equal_to_source(project, sandbox)
