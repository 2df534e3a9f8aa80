"""The connectors that a commit has changed.

A change to shared/ shows in the copies of it, which are parts of the connectors' folders. Only the
standard library is imported: CI runs this before anything is installed.
"""

import json
import subprocess
from pathlib import Path

from tools.paths import NAMES, ROOT


def print_changed(commit: str) -> None:
    """Prints what `changed` returns, as a JSON list."""
    print(json.dumps(changed(commit)))


def changed(commit: str, root: Path = ROOT) -> list[str]:
    """The connectors that differ from a commit; all of them if ``commit`` is empty or unknown."""
    if not commit or commit.startswith("-"):
        return NAMES
    done = subprocess.run(
        ["git", "diff", "--name-only", commit, "HEAD", "--", "connectors"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return NAMES
    folders = {Path(line).parts[1] for line in done.stdout.splitlines()}
    return [name for name in NAMES if name in folders]
