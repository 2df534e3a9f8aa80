"""Where things are in the repository, and the commands that its environment has installed."""

import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT / "shared"  # the original of the copies in the connectors
CONNECTORS = sorted(path.parent for path in ROOT.glob("connectors/*/connector.py"))
NAMES = [folder.name for folder in CONNECTORS]
BIN = Path(sys.executable).parent


def command(name: str) -> str:
    """The path of an installed command, such as `ruff` or `fivetran`.

    Raises SystemExit with a sentence if it is not installed beside this Python.
    """
    found = shutil.which(name, path=str(BIN))
    if found is None:
        sys.exit(
            f"{name} is not installed in {BIN}: run the Python of .venv, which `make` prepares"
        )
    return found


def build_folder(root: Path = ROOT) -> Path:
    """The folder into which the tools write, which git ignores; it is made if it is missing."""
    folder = root / "build"
    folder.mkdir(exist_ok=True)
    return folder
