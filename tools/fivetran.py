"""What the `fivetran` command runs on: a copy of a connector, and a home of its own."""

import contextlib
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


def skip_version_checks(home: Path) -> None:
    """For six hours the SDK does not ask the package index for a newer version of itself, as if it
    had asked now. Without an internet connection that takes seconds, and fills the log."""
    now = int(time.time())
    sdk = home / ".fivetran" / "connector_sdk"
    core = home / ".fivetran" / "connector_sdk_core"
    with contextlib.suppress(OSError):  # as the SDK does, which asks then
        sdk.mkdir(parents=True, exist_ok=True)
        core.mkdir(parents=True, exist_ok=True)
        (sdk / "_last_version_check").write_text(str(now))
        config = core / "_config.json"
        kept = json.loads(config.read_text()) if config.exists() else {}
        config.write_text(json.dumps({**kept, "lastVersionCheck": now}))


def prepare_home(home: Path) -> dict[str, str]:
    """The environment of a command that looks nothing up on the internet.

    ``home``: a folder that becomes the home of the command.
    """
    skip_version_checks(home)
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
