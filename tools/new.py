"""A further connector, with a simulator of its source and first tests.

It is copied from tools/skeleton/, where its name is `example`, and passes all tests as it stands.
"""

import keyword
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tools.module_names import name_owner
from tools.paths import ROOT, command
from tools.vendored import copy_shared

SKELETON = ROOT / "tools" / "skeleton"


def print_new(name: str) -> None:
    """Writes a new connector, and prints its files and what to do next."""
    for path in new(name):
        print(path.relative_to(ROOT).as_posix())
    print('It is in README.md and deploy.yml. How to go on: "Add a connector" in CONTRIBUTING.md')


def new(name: str) -> list[Path]:
    """Writes the files of the connector ``name``, and adds it to the lists of connectors.

    Returns the files. Raises SystemExit with a sentence if the name will not do.
    """
    if problem := _problem(name):
        sys.exit(f"{name!r} will not do: {problem}")
    sources = sorted(path for path in SKELETON.rglob("*") if path.is_file() and _is_kept(path))
    files = {path: ROOT / _renamed(str(path.relative_to(SKELETON)), name) for path in sources}
    folder = ROOT / "connectors" / name
    for path in (folder, ROOT / "tests" / "sandbox" / name, *files.values()):
        if path.exists():
            sys.exit(f"{name!r} will not do: there is {path.relative_to(ROOT)} already")
    for source, target in files.items():
        target.parent.mkdir(exist_ok=True)
        _write(target, _renamed(_read(source), name))
    copy_shared(folder)
    # Where an import is sorted to, and where a line breaks, depends on the name.
    python = [path for path in files.values() if path.suffix == ".py"]
    ruff = command("ruff")
    subprocess.run([ruff, "check", "--fix-only", "--quiet", *python], cwd=ROOT, check=True)
    subprocess.run([ruff, "format", "--quiet", *python], cwd=ROOT, check=True)
    _change(ROOT / "README.md", lambda text: _with_row(text, name))
    _change(ROOT / ".github" / "workflows" / "deploy.yml", lambda text: _with_choice(text, name))
    return list(files.values())


def _problem(name: str) -> str | None:
    """Why no connector may have this name, if so."""
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,29}", name) or keyword.iskeyword(name):
        return "it must be a Python name in lower case, 30 long at most"
    owner = name_owner(name)
    return f"it is the name of {owner}" if owner else None


def _is_kept(path: Path) -> bool:
    return "__pycache__" not in path.parts


def _renamed(text: str, name: str) -> str:
    """``text`` with the name in its three forms: as it is, of a class, and in an import."""
    in_words = "".join(word.capitalize() for word in name.split("_"))
    text = text.replace(f"{__package__}.{SKELETON.name}.", "")
    return text.replace("example", name).replace("Example", in_words)


def _with_row(readme: str, name: str) -> str:
    """The README with a further row in its table of connectors, which is sorted by name."""
    lines = readme.splitlines(keepends=True)
    rows = [line for line in lines if line.startswith("| [")]
    row = f"| [{name}](connectors/{name}/README.md) | What it is | `items` |\n"
    first = lines.index(rows[0])
    lines[first : first + len(rows)] = sorted([*rows, row])
    return "".join(lines)


def _with_choice(workflow: str, name: str) -> str:
    """The workflow with a further connector to choose, sorted by name."""

    def extended(found: re.Match[str]) -> str:
        return f"options: [{', '.join(sorted([*found[1].split(', '), name]))}]"

    return re.sub(r"options: \[(.*)\]", extended, workflow)


def _change(path: Path, change: Callable[[str], str]) -> None:
    _write(path, change(_read(path)))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
