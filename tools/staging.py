"""The files of a connector that are deployed: a list of what belongs, whatever else lies there."""

import ast
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

from tools.paths import ROOT, SHARED

# With the modules, all that a package may hold; the SDK adds the setup form by itself.
_DOCUMENTS = ("README.md", "requirements.txt")
# Nobody has to be told that these are left out, nor what Python writes.
_UNTOLD = (".gitignore", "configuration.json")


def stage_connector(name: str, folder: Path) -> Path:
    """Copies what is deployed of ``connectors/<name>`` into ``folder``, and prints what else lies
    there and is left out, and which notes of a new connector are left.

    Raises SystemExit with a sentence if something there is a symbolic link, or neither a file nor
    a folder: what it leads to may be anything on this machine.
    """
    source, target = ROOT / "connectors" / name, folder / name
    _refuse_links(source)
    wanted = deployed_files(source)
    others = _others(source, source, wanted)
    left_out = [p for p in others if p not in _UNTOLD and not p.endswith("__pycache__/")]
    for path in sorted(wanted):
        copy = target / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / path, copy)
    if left_out:
        print(f"Not in the package of {name}: {', '.join(left_out)}", flush=True)
    for path in sorted(wanted):
        if lines := _notes(source / path):
            print(
                f"{name}/{path} has notes of `make new` to replace, in lines {lines}", flush=True
            )
    return target


def _notes(path: Path) -> str:
    """The numbers of the lines, with commas, in which a file says what is to be replaced."""
    lines = enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    return ", ".join(str(number) for number, line in lines if "Replace: " in line)


def deployed_files(folder: Path) -> set[str]:
    """The paths in a connector's ``folder``, with slashes, of what is deployed: connector.py and
    the modules that it imports, the vendored copy of shared/, and the documents."""
    documents = {name for name in _DOCUMENTS if (folder / name).exists()}
    shared = {f"shared/{path.name}" for path in SHARED.glob("*.py")}
    found = {name for name in shared if (folder / name).exists()} | documents
    waiting = ["connector.py"]
    while waiting:
        path = waiting.pop()
        if path not in found and (folder / path).is_file():
            found.add(path)
            waiting += _imported(folder, path)
    return found


def _imported(folder: Path, path: str) -> Iterator[str]:
    """The paths at which the modules may stand that a module imports."""
    package = path.split("/")[:-1]
    yield from _places(package)
    for node in ast.walk(ast.parse((folder / path).read_bytes(), path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _places(alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = above + (node.module.split(".") if node.module else [])
            yield from _places(module)
            for alias in node.names:
                yield from _places([*module, alias.name])


def _places(module: list[str]) -> Iterator[str]:
    """The files of a module and of the packages that it is in."""
    for length in range(1, len(module) + 1):
        path = "/".join(module[:length])
        yield from (f"{path}.py", f"{path}/__init__.py")


def _others(root: Path, folder: Path, wanted: set[str]) -> list[str]:
    """The paths in ``folder`` that are not ``wanted``, sorted; a folder without anything wanted
    stands for all that is in it."""
    others = []
    for path in sorted(folder.iterdir()):
        name = path.relative_to(root).as_posix()
        _refuse_links(path)
        if not path.is_dir():
            others += [] if name in wanted else [name]
        elif any(file.startswith(f"{name}/") for file in wanted):
            others += _others(root, path, wanted)
        else:
            others.append(f"{name}/")
    return others


def _refuse_links(path: Path) -> None:
    mode = path.lstat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        kind = "a symbolic link" if stat.S_ISLNK(mode) else "neither a file nor a folder"
        sys.exit(f"{path.relative_to(ROOT).as_posix()} is {kind}: remove it and try again")
