"""The zip that is deployed is all that a connector needs."""

import re
import subprocess
import venv
import zipfile
from pathlib import Path

import pytest

from tests.compare import assert_equal_to_source
from tests.sandbox import create, names
from tests.sandbox.fivetran import Project
from tools.paths import ROOT

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
