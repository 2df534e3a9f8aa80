"""What the `fivetran` command runs on: a copy of a connector, and a home of its own."""

import json
import os
import shutil
import time
from pathlib import Path

from tools.paths import ROOT

_LEFT_OVERS = ("files", "crash-reports", "*.local.json", ".env*", "__pycache__")


def copy_connector(name: str, folder: Path) -> Path:
    """Copies ``connectors/<name>`` into ``folder``, without the leftovers of runs and local
    configurations."""
    ignore = shutil.ignore_patterns(*_LEFT_OVERS)
    return Path(shutil.copytree(ROOT / "connectors" / name, folder / name, ignore=ignore))


def stub_pipreqs(folder: Path, path: str) -> str:
    """Writes a `pipreqs` that does nothing into ``folder``, and returns the search ``path`` for
    commands (PATH) with that folder first.

    The real one asks the package index for the name of every import, and `fivetran` rewrites the
    pinned requirements with what it finds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stub = folder / "pipreqs"
    stub.write_text("#!/bin/sh\nexit 0\n")
    stub.chmod(0o755)
    (folder / "pipreqs.bat").write_text("@exit /b 0\n")
    return os.pathsep.join([str(folder), path])


def prepare_home(home: Path) -> dict[str, str]:
    """The environment of a command that looks nothing up on the internet.

    The SDK asks the package index for newer versions; a home in which the last look-up is a
    moment ago keeps it from that.
    """
    now = str(int(time.time()))
    sdk = home / ".fivetran" / "connector_sdk"
    core = home / ".fivetran" / "connector_sdk_core"
    sdk.mkdir(parents=True, exist_ok=True)
    core.mkdir(parents=True, exist_ok=True)
    (sdk / "_last_version_check").write_text(now)
    (core / "_config.json").write_text(json.dumps({"lastVersionCheck": int(now)}))
    left_out = ("FIVETRAN_", "PYTHONPATH")
    kept = {k: v for k, v in os.environ.items() if not k.startswith(left_out)}
    return {
        **kept,
        "HOME": str(home),
        "USERPROFILE": str(home),
        "PATH": stub_pipreqs(home / "bin", os.environ["PATH"]),
        "DO_NOT_TRACK": "1",
        "PYTHONUTF8": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
