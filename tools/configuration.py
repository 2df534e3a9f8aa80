"""The settings of a connector for runs on this machine: asked for, and tested at the source."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.fivetran import copy_connector
from tools.paths import ROOT, build_folder, command


def configure(name: str, root: Path = ROOT) -> None:
    """Asks for the settings by `fivetran configuration`, and writes what it is given to
    configuration.local.json. The command would overwrite the template: it runs on a copy."""
    local = _local_configuration(name, root)
    with tempfile.TemporaryDirectory(dir=build_folder(root)) as folder:
        written = _run(name, Path(folder), local)
        shutil.move(written, local)
    print(f"The settings are in {local.relative_to(root)}, passwords encrypted")


def check_config(name: str, root: Path = ROOT) -> None:
    """Calls the source with configuration.local.json: `fivetran configuration --test`.

    Raises SystemExit with a sentence if there is no such file, or if a test fails.
    """
    local = _local_configuration(name, root)
    if not local.exists():
        sys.exit(f"There is no {local.relative_to(root)}: run `make configure CONNECTOR={name}`")
    with tempfile.TemporaryDirectory(dir=build_folder(root)) as folder:
        _run(name, Path(folder), local, "--test")


def _local_configuration(name: str, root: Path) -> Path:
    return root / "connectors" / name / "configuration.local.json"


def _run(name: str, folder: Path, local: Path, *options: str) -> Path:
    """Runs `fivetran configuration` on a copy in ``folder``, with the ``local`` settings, if any.

    Returns the file of the settings in the copy. Raises SystemExit if the command fails.
    """
    copy = copy_connector(name, folder)
    settings = copy / "configuration.json"
    settings.unlink()
    if local.exists():
        shutil.copy(local, settings)
    run = [command("fivetran"), "configuration", str(copy), *options]
    environment = {**os.environ, "DO_NOT_TRACK": "1", "PYTHONUTF8": "1"}  # as for `make debug`
    done = subprocess.run(run, env=environment, check=False)
    if done.returncode:
        sys.exit(f"fivetran configuration ended with code {done.returncode}")
    return settings
