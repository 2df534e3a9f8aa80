"""`python -m tools.changed [COMMIT]`: the connectors that differ from a commit, as a JSON list.

Without a commit, or with one that is not in the history, all. A change to `shared/` shows in the
copies of it, which are parts of the connectors' folders.
"""

import json
import subprocess
import sys
from pathlib import Path

from tools.deploy import CONNECTORS, ROOT


def changed(commit: str, root: Path = ROOT) -> list[str]:
    if not commit or commit.startswith("-"):
        return CONNECTORS
    done = subprocess.run(
        ["git", "diff", "--name-only", commit, "HEAD", "--", "connectors"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        return CONNECTORS
    folders = {Path(line).parts[1] for line in done.stdout.splitlines()}
    return [name for name in CONNECTORS if name in folders]


if __name__ == "__main__":
    print(json.dumps(changed("".join(sys.argv[1:2]))))
