"""The zip that is deployed is all that a connector needs."""

import os
import re
import shutil
import subprocess
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.compare import assert_equal_to_source
from tests.contract.test_folders import LEFT_OVERS, MODULES, deployed, plant
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
    """Only modules that the connector imports are packed, whatever its .gitignore says; that list
    is not packed, either."""
    folder = desk / "connectors" / name
    wanted = deployed(folder) - {".gitignore"}
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


def test_what_make_new_left_to_replace_is_named(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By file and line; the package is made all the same."""
    readme = desk / "connectors" / "dexory" / "README.md"
    readme.write_text("# Dexory\n\n<!-- Replace: what this says -->\n")
    packing.package("dexory")
    told = "dexory/README.md has notes of `make new` to replace, in lines 3\n"
    assert told in capsys.readouterr().out


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
    before = deployed(ROOT / "connectors" / "mssql_ehi") - {".gitignore"}
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


def pins(path: Path) -> list[Requirement]:
    """The requirements of a file, without the hashes."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [Requirement(line.rstrip(" \\")) for line in lines if re.match(r"\w", line)]


def versions(path: Path, environment: dict[str, str]) -> dict[str, str]:
    """The versions that a file pins, by the names of the packages, in one environment."""
    active = [pin for pin in pins(path) if not pin.marker or pin.marker.evaluate(environment)]
    exact = {pin.name: re.fullmatch(r"==([^*]+)", str(pin.specifier)) for pin in active}
    assert len(exact) == len(active), "a package is pinned twice"
    return {name: found[1] for name, found in exact.items() if found}


def resolved(package: str, environment: dict[str, str]) -> set[Requirement]:
    """What a package needs, and what that needs in turn, by what the installed ones say. Of one
    that is not installed, as a driver for Windows is not on Linux, nothing is known."""
    try:
        texts = metadata.requires(package) or []
    except metadata.PackageNotFoundError:
        assert package == "sspilib"
        return set()
    needed = {
        requirement
        for requirement in map(Requirement, texts)
        if not requirement.marker or requirement.marker.evaluate({**environment, "extra": ""})
    }
    return needed.union(*(resolved(each.name, environment) for each in needed))


ENVIRONMENTS = [
    {
        "python_version": f"3.{minor}",
        "python_full_version": f"3.{minor}.9",
        "sys_platform": platform,
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    for minor in range(10, 15)
    for platform in ("linux", "win32", "darwin")
]


@every_connector
def test_everything_that_a_connector_installs_is_pinned(name: str) -> None:
    """In every version of Python: what it imports and what that needs, and nothing else; in a
    version that fits, the one that is tested here."""
    file = ROOT / "connectors" / name / "requirements.txt"
    text = "".join(path.read_text(encoding="utf-8") for path in file.parent.rglob("*.py"))
    for environment in ENVIRONMENTS:
        pinned = versions(file, environment)
        imported = {
            package
            for package in pinned
            if re.search(rf"^\s*(import|from) {MODULES.get(package, package)}\b", text, re.M)
        }
        # The driver imports it, for a login as a Windows account, and does not require it.
        imported |= {"pyspnego"} if "python-tds" in imported else set()
        needed = set().union(*(resolved(package, environment) for package in imported))
        assert imported | {canonicalize_name(each.name) for each in needed} == set(pinned)
        for each in needed:
            assert each.specifier.contains(pinned[canonicalize_name(each.name)]), each
        tested = versions(ROOT / "requirements-dev.txt", environment)
        assert pinned.items() <= tested.items()
    here = versions(file, {})
    assert here == {package: metadata.version(package) for package in here}


def test_a_deployment_installs_the_sdk_and_what_connectors_pin() -> None:
    """In the versions that are tested, and no tool of development."""
    for environment in ENVIRONMENTS:
        deployed = versions(ROOT / "requirements-deploy.txt", environment)
        assert deployed.items() <= versions(ROOT / "requirements-dev.txt", environment).items()
        assert not {"pytest", "mypy", "ruff", "uv", "flask", "zizmor"} & deployed.keys()
        for name in names():
            pinned = versions(ROOT / "connectors" / name / "requirements.txt", environment)
            assert pinned.items() <= deployed.items()
        assert "fivetran-connector-sdk" in deployed


@pytest.mark.parametrize("name", ["requirements-dev.txt", "requirements-deploy.txt"])
def test_what_is_installed_has_hashes(name: str) -> None:
    """Each package, and whoever installs from such a file demands them."""
    entries = re.split(r"\n(?=\w)", (ROOT / name).read_text(encoding="utf-8"))
    assert not [entry for entry in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}", entry)]
    makefile = (ROOT / "Makefile").read_text()
    files = [makefile.replace("$(INSTALL)", "pip install --require-hashes")]
    files += [path.read_text(encoding="utf-8") for path in ROOT.glob(".github/workflows/*.yml")]
    files += [path.read_text(encoding="utf-8") for path in ROOT.glob("*.md")]
    lines = [line for file in files for line in re.findall(rf"pip install.*-r {name}", file)]
    assert lines
    assert not [line for line in lines if "--require-hashes" not in line]
    assert re.search(r'--generate-hashes .*--exclude-newer "\d+ days"', makefile)


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
