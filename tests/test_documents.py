"""Documents that stay true."""

import re
import subprocess
from pathlib import Path

import pytest

from tools.paths import NAMES, ROOT

DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("connectors/*/README.md"),
        *ROOT.glob("tests/**/README.md"),
    ]
)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_relative_links_lead_somewhere(document: Path) -> None:
    """A link to a file of this repository is not broken; GitHub serves those to its workflows."""
    for link in re.findall(r"\]\((?!https?://|#)([^)#?]+)", document.read_text()):
        workflow = re.fullmatch(r"\.\./\.\./actions/workflows/([^/]+\.yml)(/badge\.svg)?", link)
        path = ROOT / ".github/workflows" / workflow[1] if workflow else document.parent / link
        assert path.exists(), link


def test_the_readme_lists_every_connector() -> None:
    """With a link to its own README."""
    text = (ROOT / "README.md").read_text()
    linked = re.findall(r"\(connectors/(\w+)/README.md\)", text)
    assert sorted(linked) == NAMES


def test_contributing_lists_every_command() -> None:
    """`make help` and the table agree."""
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.M))
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert set(re.findall(r"^\| `make ([a-z-]+)", text, re.M)) == targets - {"help", "clean"}


@pytest.mark.posix
def test_make_help_shows_every_target() -> None:
    """It needs no installation."""
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "make test" in listed.stdout
