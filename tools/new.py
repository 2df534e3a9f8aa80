"""A further connector, with a simulator of its source and first tests.

It is copied from tools/skeleton/, where its name is `example`, and passes all tests as it stands.
"""

import keyword
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tools.module_names import name_owner
from tools.paths import ROOT, command
from tools.vendored import copy_shared

SKELETON = ROOT / "tools" / "skeleton"
PAGES = ("number", "token", "link")
DELETES = ("feed", "full")

# In the skeleton a block that begins with one of these lines is written once for each table, or
# only for these kinds of a source. They are comments of Python or of Markdown.
_EACH = re.compile(r"\s*(?:#|<!--) For each table(?: -->)?\n")
_ONLY = re.compile(r"\s*(?:#|<!--) Only with (PAGES|DELETES)=([a-z,]+)(?: -->)?\n")
_END = re.compile(r"\s*(?:#|<!--) End(?: -->)?\n")


@dataclass(frozen=True)
class Kind:
    """A kind of source: its ``tables``; whether its ``pages`` are numbered, or named by a token or
    a link in the page before them; whether ``deletes`` are listed in a feed, or seen by full
    refreshes only."""

    tables: tuple[str, ...] = ("items",)
    pages: str = "number"
    deletes: str = "feed"

    def has(self, choice: str, values: str) -> bool:
        """Whether a block for these ``values``, with commas, of PAGES or DELETES is written."""
        return {"PAGES": self.pages, "DELETES": self.deletes}[choice] in values.split(",")


def print_new(name: str, tables: str, pages: str, deletes: str) -> None:
    """Writes a new connector, and prints its files and what to do next. ``tables``: their names,
    with commas; empty: one table with items."""
    names = tuple(table.strip() for table in tables.split(",")) if tables.strip() else Kind.tables
    for path in new(name, Kind(names, pages or Kind.pages, deletes or Kind.deletes)):
        print(path.relative_to(ROOT).as_posix())
    print('It is in README.md and deploy.yml. How to go on: "Add a connector" in CONTRIBUTING.md')


def new(name: str, kind: Kind) -> list[Path]:
    """Writes the files of the connector ``name``, and adds it to the lists of connectors.

    Returns the files. Raises SystemExit with a sentence if the name, or ``kind``, will not do.
    """
    if not name:
        sys.exit(
            "The connector needs a name, such as in: "
            "make new CONNECTOR=acme TABLES=orders,customers PAGES=token DELETES=feed"
        )
    if problem := _problem(name):
        sys.exit(f"{name!r} will not do: {problem}")
    if problem := _problem_of_kind(kind):
        sys.exit(problem)
    sources = sorted(path for path in SKELETON.rglob("*") if path.is_file() and _is_kept(path))
    files = {path: ROOT / _renamed(str(path.relative_to(SKELETON)), name) for path in sources}
    folder = ROOT / "connectors" / name
    for path in (folder, ROOT / "tests" / "sandbox" / name, *files.values()):
        if path.exists():
            sys.exit(f"{name!r} will not do: there is {path.relative_to(ROOT)} already")
    for source, target in files.items():
        target.parent.mkdir(exist_ok=True)
        _write(target, _renamed(_of_kind(_read(source), kind), name))
    copy_shared(folder)
    # Where an import is sorted to, and where a line breaks, depends on the name.
    python = [path for path in files.values() if path.suffix == ".py"]
    ruff = command("ruff")
    subprocess.run([ruff, "check", "--fix-only", "--quiet", *python], cwd=ROOT, check=True)
    subprocess.run([ruff, "format", "--quiet", *python], cwd=ROOT, check=True)
    _change(ROOT / "README.md", lambda text: _with_row(text, name, kind))
    _change(ROOT / ".github" / "workflows" / "deploy.yml", lambda text: _with_choice(text, name))
    return list(files.values())


def _problem_of_kind(kind: Kind) -> str | None:
    """Why no connector may be of this kind, if so."""
    for table in kind.tables:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,29}", table):
            return f"{table!r} will not do as a table: write it in lower case, 30 long at most"
    if len({*kind.tables}) < len(kind.tables):
        return "TABLES names a table twice"
    if kind.pages not in PAGES:
        return f"PAGES={kind.pages} is none of {', '.join(PAGES)}"
    if kind.deletes not in DELETES:
        return f"DELETES={kind.deletes} is none of {', '.join(DELETES)}"
    return None


def _of_kind(text: str, kind: Kind) -> str:
    """A file of the skeleton with the blocks that a source of this kind needs."""
    listed = ", ".join(f"`{table}`" for table in kind.tables)
    names = ", ".join(f'"{table}"' for table in kind.tables)
    several = f"({names})" if len(kind.tables) > 1 else f"({names},)"
    text = text.replace("`items`", listed).replace('("items",)', several)
    return "".join(_blocks(iter(text.splitlines(keepends=True)), kind))


def _blocks(lines: Iterator[str], kind: Kind) -> Iterator[str]:
    """``lines`` up to the end of the block that they are in, or of the file."""
    for line in lines:
        if _END.fullmatch(line):
            return
        if _EACH.fullmatch(line):
            yield from _for_each([*_blocks(lines, kind)], kind.tables)
        elif only := _ONLY.fullmatch(line):
            block = [*_blocks(lines, kind)]
            yield from block if kind.has(only[1], only[2]) else ()
        else:
            yield line


def _for_each(block: list[str], tables: Iterable[str]) -> Iterator[str]:
    for table in tables:
        for line in block:
            yield line.replace("items", table).replace("ITEMS", table)


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


def _with_row(readme: str, name: str, kind: Kind) -> str:
    """The README with a further row in its table of connectors, which is sorted by name."""
    lines = readme.splitlines(keepends=True)
    rows = [line for line in lines if line.startswith("| [")]
    tables = ", ".join(f"`{table}`" for table in kind.tables)
    verified = "its simulator, over HTTP; no real account"
    row = f"| [{name}](connectors/{name}/README.md) | What it is | {tables} | {verified} |\n"
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
