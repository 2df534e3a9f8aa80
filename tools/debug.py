"""A sync with an account, into files on this machine: started, and forgotten."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.fivetran import skip_version_checks, stub_pipreqs
from tools.paths import ROOT, command

_WRITTEN = ("files", "crash-reports")  # by a sync, into the connector's folder


def debug(name: str, root: Path = ROOT) -> int:
    """Runs `fivetran debug` with configuration.local.json; returns its exit code.

    It looks up nothing on the internet but the source: what a connector needs is pinned and
    tested, so neither the imports nor the version of the SDK are looked for at the package index.
    Raises SystemExit with a sentence if there is no configuration.local.json.
    """
    folder = root / "connectors" / name
    local = folder / "configuration.local.json"
    if not local.exists():
        sys.exit(
            f"There is no {local.relative_to(root)}: run `make configure CONNECTOR={name}` for an "
            f"account, or `make sandbox CONNECTOR={name} WRITE=1` for a simulator"
        )
    skip_version_checks(Path.home())  # the home itself: it has the key that decrypts the file
    with tempfile.TemporaryDirectory() as stubs:
        path = stub_pipreqs(Path(stubs), os.environ.get("PATH", os.defpath))
        environment = {**os.environ, "PATH": path, "DO_NOT_TRACK": "1", "PYTHONUTF8": "1"}
        run = [command("fivetran"), "debug", str(folder), "--configuration", str(local)]
        return subprocess.run(run, env=environment, check=False).returncode


def reset(name: str, root: Path = ROOT) -> None:
    """Deletes the state and the rows of the local syncs, and their crash reports. The
    configuration stays."""
    folders = [root / "connectors" / name / written for written in _WRITTEN]
    there = [folder for folder in folders if folder.exists()]
    for folder in there:
        shutil.rmtree(folder)
        print(f"Deleted {folder.relative_to(root).as_posix()}/")
    if not there:
        print(f"{name} has no local state and no rows")
