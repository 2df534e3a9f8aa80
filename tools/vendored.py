"""The vendored copies of shared/, one in every connector."""

import filecmp
import shutil
from pathlib import Path

from tools.paths import CONNECTORS, ROOT, SHARED


def vendor() -> None:
    """Replaces the copy of every connector."""
    for folder in CONNECTORS:
        shutil.rmtree(folder / "shared", ignore_errors=True)
        copy_shared(folder)


def copy_shared(folder: Path) -> None:
    """Copies shared/ into the folder of a connector that has none yet."""
    shutil.copytree(SHARED, folder / "shared", ignore=shutil.ignore_patterns("__pycache__"))


def check_vendored() -> list[str]:
    """A sentence about each connector whose copy differs from the original."""
    names = sorted(path.name for path in SHARED.glob("*.py"))
    errors = []
    for folder in CONNECTORS:
        copy = folder / "shared"
        copied = sorted(path.name for path in copy.iterdir() if path.name != "__pycache__")
        same, _, _ = filecmp.cmpfiles(SHARED, copy, names, shallow=False)
        if copied != names or len(same) != len(names):
            errors.append(f"{copy.relative_to(ROOT)} differs from shared/: run `make vendor`")
    return errors
