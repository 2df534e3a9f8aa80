"""The connectors that a commit has changed, and whether it may be deployed over another one.

A change to shared/ shows in the copies of it, which are parts of the connectors' folders. Only the
standard library is imported: CI runs this before anything is installed.
"""

import json
import subprocess
import sys
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


def check_order(deployed: list[str], branch: str, root: Path = ROOT) -> None:
    """Ends with a sentence if the commit that is checked out is older than one of those that were
    ``deployed``, or is not on the ``branch``, such as `origin/main`.

    A deployed commit that is not on the branch, whose history was rewritten then, is left out.
    """
    if not _is_ancestor("HEAD", branch, root):
        sys.exit(f"This commit is not on {branch}: it is not deployed")
    for commit in deployed:
        if _is_ancestor(commit, branch, root) and not _is_ancestor(commit, "HEAD", root):
            sys.exit(
                f"A newer commit, {commit}, was deployed: this one is not. To undo a change, "
                f"revert it on {branch}"
            )


def _is_ancestor(commit: str, other: str, root: Path) -> bool:
    """Whether a commit is another one or comes before it; an unknown one does not."""
    done = subprocess.run(
        ["git", "merge-base", "--is-ancestor", "--end-of-options", commit, other],
        cwd=root,
        capture_output=True,
        check=False,
    )
    return done.returncode == 0
