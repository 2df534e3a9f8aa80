"""Documents that stay true."""

import ast
import json
import re
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from shared import times
from tests.sandbox import create
from tests.sandbox.dentally import Dentally
from tests.sandbox.fivetran import Project, Result
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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_exist(document: Path) -> None:
    """Each `make` target and each verb of `python -m tools` that a document names."""
    text = document.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:`|^)make ([a-z][a-z-]*)", text, re.M)) <= targets
    named = set(re.findall(r"-m tools ([a-z][a-z-]*)", text))
    code = (ROOT / "tools/__main__.py").read_text()
    verbs = set(re.findall(r'_add\(\s*\w+,\s*"([a-z-]+)"', code))
    assert named <= verbs


def test_the_readme_lists_every_connector() -> None:
    """With a link to its own README."""
    text = (ROOT / "README.md").read_text()
    linked = re.findall(r"\(connectors/(\w+)/README.md\)", text)
    assert sorted(linked) == NAMES


def test_the_readme_says_what_each_connector_was_verified_against() -> None:
    """And with which version of the SDK: that which the tests run with."""
    text = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| \[(\w+)\]\(connectors/.*its simulator, over .*; no .* \|$", text, re.M)
    assert sorted(rows) == NAMES
    [image] = re.findall(
        r"image: mcr.microsoft.com/mssql/server:(\d+)",
        (ROOT / ".github/workflows/ci.yml").read_text(),
    )
    assert f"in CI Microsoft's SQL Server {image}" in text
    [version] = re.findall(
        r'"fivetran-connector-sdk==([\d.]+)"', (ROOT / "pyproject.toml").read_text()
    )
    assert f"verified with version {version} of the SDK" in text


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


def test_editors_start_commands_that_exist() -> None:
    """The devcontainer and the launch file are JSON; their targets and their task are there."""
    files = [".devcontainer/devcontainer.json", ".vscode/launch.json", ".vscode/tasks.json"]
    container, launch, tasks = (json.loads((ROOT / name).read_text()) for name in files)
    makefile = (ROOT / "Makefile").read_text()
    for command in (container["postCreateCommand"], tasks["tasks"][0]["command"]):
        assert re.search(rf"^{re.escape(command.split()[1])}:", makefile, re.M)
    assert launch["configurations"][0]["preLaunchTask"] == tasks["tasks"][0]["label"]
    matcher = tasks["tasks"][0]["problemMatcher"]["background"]
    printed = (ROOT / "tools" / "sandbox.py").read_text()
    assert matcher["beginsPattern"] in printed
    assert f'"{matcher["endsPattern"].lstrip("^")}"' in printed


@pytest.mark.posix
def test_make_help_is_aligned() -> None:
    """Every description begins in the same column, and every line fits a terminal."""
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    lines = listed.stdout.splitlines()
    columns = {found.end() for line in lines if (found := re.match(r"  make [a-z-]+ +", line))}
    assert len(columns) == 1
    assert max(map(len, lines)) <= 100


def test_the_picture_of_the_demo_shows_every_table() -> None:
    """It is made anew by `python -m tools demo --picture docs/demo.svg`."""
    picture = (ROOT / "docs/demo.svg").read_text()
    rows = re.findall(r"^\| \[\w+\]\(connectors/.*$", (ROOT / "README.md").read_text(), re.M)
    tables = [table for row in rows for table in re.findall(r"`(\w+)`", row)]
    assert len(tables) > 15
    assert not [table for table in tables if table not in picture]
    assert "http" not in picture.replace("http://www.w3.org/", "").replace(
        "https://www.textualize.io", ""
    )


def test_the_messages_that_troubleshooting_quotes_are_in_the_code() -> None:
    """Each stands in one text of the connectors; "..." may be anything."""
    texts = {" ".join(text.split()) for text in _texts()}
    rows = re.findall(r"^\| (.*?) \|", (ROOT / "docs/troubleshooting.md").read_text(), re.M)
    quoted = [quote for row in rows for quote in re.findall(r'"([^"]+)"', row)]
    assert len(quoted) > 20
    for quote in quoted:
        parts = [re.escape(part.strip()) for part in quote.split("...")]
        pattern = re.compile(".*".join(parts))
        assert any(map(pattern.search, texts)), quote


def _texts() -> Iterator[str]:
    """The texts in the modules of the connectors, with "\0" for what is put into them."""
    for path in [*ROOT.glob("shared/*.py"), *ROOT.glob("connectors/*/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.JoinedStr):
                parts = (
                    each.value if isinstance(each, ast.Constant) else "\0" for each in node.values
                )
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_the_logs_of_the_nights_are_what_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for hosts, times, and the seconds of waits and tables."""
    monkeypatch.setattr("shared.rest.pause", lambda closed, seconds: False)
    good, bad = re.findall(
        r"^```\n(INFO.*?)^```$", (ROOT / "docs/log.md").read_text(), re.M | re.S
    )
    project = Project("dentally", tmp_path)
    with create("dentally") as sandbox:
        assert isinstance(sandbox, Dentally)
        assert project.sync(sandbox.configuration()).code == 0
        sandbox.change_something()
        due = project.sync(sandbox.configuration(), _due(project, "treatments"))
        assert _logged(due) == _told(good)
        sandbox.records["sites"].clear()
        sandbox.fault("/v1/rooms", status=429, headers={"Retry-After": "60"})
        sandbox.fault("/v1/treatments", status=503, times=4, skip=6)
        given = sandbox.configuration(max_records_per_page="30", parallel_requests="1")
        failed = project.sync(given, _due(project, "sites", "treatments"))
        assert _logged(failed) == _told(bad)


def _due(project: Project, *tables: str) -> dict[str, Any]:
    """The state, as if the last full refreshes of these tables were a day ago."""
    state = project.state
    yesterday = times.to_text(times.now() - timedelta(days=1))
    for table in tables:
        state["tables"][table]["listed_at"] = yesterday
    return state


def _logged(result: Result) -> list[str]:
    """The lines of the connector, and those of the SDK with a warning or the error."""
    lines, is_shown = [], False
    for line in result.output.splitlines():
        if began := re.match(r"[\d:.]+ (\w+) +\S+ (sdk|connector) +(.*)", line):
            level, source, text = began.groups()
            is_shown = source == "connector" or (level == "WARNING" and "crash report" not in text)
            line = f"{level} {text}"
        if is_shown or line.startswith("SEVERE") or "Error: failed" in line:
            lines.append(line)
            is_shown = is_shown or "Error: failed" in line
    # What follows is the SDK's own.
    end = next((n for n, line in enumerate(lines) if "Traceback" in line), len(lines))
    return _told("\n".join(lines[:end]))


def _told(text: str) -> list[str]:
    """Lines without what differs from night to night."""
    replaced = {
        r"https?://[\w.:]+/": "HOST/",
        r"\d{4}-\d\d-\d\dT[\d:.]+Z": "TIME",
        r"in (?!60\.0 )[\d.]+ s$": "in SOME s",
        r"(?<= )\d+\.\d$": "SECONDS",
        r"SYNC FAILED.*": "SYNC FAILED",
        r" +": " ",
    }
    for pattern, by in replaced.items():
        text = re.sub(pattern, by, text, flags=re.M)
    return [line.strip() for line in text.splitlines()]
