"""`make new` writes a connector that passes what every connector must."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.width import wide
from tools.new import Kind, new
from tools.paths import ROOT

# As long as a name may be; it sorts before other modules, which `example` follows.
NAME = "acme_of_the_farthest_northwest"
# The types are those of the templates, which `make check` reads where they are.
CHECK = (
    "from tools import checks; print(checks.check_vendored(), checks.check_module_names(),"
    " checks.check_templates(), checks.check_lint())"
)
WHAT = f"{NAME} or lists_every_connector or offers_every_connector"
TESTS = (
    *("tests/contract", "tests/test_setup_forms.py", "tests/test_packages.py"),
    *("tests/test_documents.py", "tests/test_deploy.py", f"tests/connectors/test_{NAME}.py"),
)
QUICKLY = ("--scale", "0.01", "--repeats", "1")
OF_SHARED = ("crashes", "faults", "hostile")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A copy of this one, as git would commit it."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for name in listed.stdout.split("\0"):
        source, target = ROOT / name, tmp_path / "repository" / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)
    return tmp_path / "repository"


def run(repository: Path, *arguments: str) -> str:
    """What python prints there."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST"))}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=repository,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# One table's name begins another's, and some are words of Python or of the connectors' code.
KINDS = [
    ("order,order_lines", "token", "feed"),
    *wide(("", "", ""), ("class,tables", "link", "full"), ("settings", "number", "full")),
]


@pytest.mark.timeout(600)
@pytest.mark.parametrize(("tables", "pages", "deletes"), KINDS)
def test_a_new_connector_passes_as_it_stands(
    repository: Path, request: pytest.FixtureRequest, tables: str, pages: str, deletes: str
) -> None:
    """Checks, contract, setup form, package, documents and its own tests, in a copy of all. What
    most concerns shared/, whose original all connectors run, is tested at full width only."""
    kind = ("--tables", tables, "--pages", pages, "--deletes", deletes)
    assert f"connectors/{NAME}/connector.py" in run(repository, "-m", "tools", "new", NAME, *kind)
    assert run(repository, "-c", CHECK) == "[] [] [] []\n"
    subjects = () if request.config.getoption("--full") else OF_SHARED
    ignored = [f"--ignore=tests/contract/test_{subject}.py" for subject in subjects]
    options = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-k", WHAT, *ignored)
    assert " passed" in run(repository, "-m", "pytest", *options, *TESTS)
    assert "requests, 2nd and 1st" in run(repository, "-m", "benchmarks", NAME, *QUICKLY)


def test_a_new_connector_holds_nothing_of_the_skeleton(repository: Path) -> None:
    """Its name is in the place of the other one, in every file and in every form."""
    written = run(repository, "-m", "tools", "new", NAME).splitlines()[:-1]
    texts = [(repository / path).read_text(encoding="utf-8") for path in written]
    assert not [path for path, text in zip(written, texts, strict=True) if "Only with" in text]
    assert not [path for path, text in zip(written, texts, strict=True) if "xample" in text + path]
    assert not [path for path, text in zip(written, texts, strict=True) if "skeleton" in text]
    assert "class AcmeOfTheFarthestNorthwest(RecordLists):" in "".join(texts)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("Acme", "a Python name in lower case, 30 long at most"),
        ("acme-crm", "a Python name in lower case, 30 long at most"),
        ("2acme", "a Python name in lower case, 30 long at most"),
        ("../acme", "a Python name in lower case, 30 long at most"),
        ("a" * 31, "a Python name in lower case, 30 long at most"),
        ("class", "a Python name in lower case, 30 long at most"),
        ("queue", "the name of a module of Python's standard library"),
        ("azure", "the name of a package into which vendors install their SDKs"),
        ("paligo", "there is connectors.paligo already"),
        ("server", "there is tests.sandbox.server.py already"),
        ("mssql", "there is tests.sandbox.mssql already"),
    ],
)
def test_a_name_that_will_not_do_is_refused(name: str, reason: str) -> None:
    """In one sentence, and before anything is written."""
    before = sorted(ROOT.glob("connectors/*"))
    with pytest.raises(SystemExit, match=f"will not do: .*{reason}$"):
        new(name, Kind())
    assert sorted(ROOT.glob("connectors/*")) == before


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("", Kind(), "The connector needs a name, such as in: make new CONNECTOR=acme "),
        ("acme", Kind(("Orders",)), "'Orders' will not do as a table"),
        ("acme", Kind(("orders", "")), "'' will not do as a table"),
        ("acme", Kind(("orders", "orders")), "TABLES names a table twice"),
        ("acme", Kind(pages="cursor"), "PAGES=cursor is none of number, token, link"),
        ("acme", Kind(deletes="no"), "DELETES=no is none of feed, full"),
    ],
)
def test_what_is_missing_or_wrong_is_said_in_a_sentence(
    name: str, kind: Kind, reason: str
) -> None:
    """Before anything is written."""
    with pytest.raises(SystemExit, match=f"^{reason}[^\\n]*$"):
        new(name, kind)
    assert not (ROOT / "connectors" / "acme").exists()
