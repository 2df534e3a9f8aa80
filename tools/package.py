"""The package of a connector: the zip that is deployed."""

import shutil
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.sandbox.fivetran import Project
from tools.paths import ROOT, build_folder
from tools.staging import stage_connector


def package(name: str) -> None:
    """Makes build/<name>.zip with `fivetran package`, from a copy of what is deployed, and lists
    what is in it.

    Raises SystemExit with the output of the command if it fails, with a sentence if a symbolic
    link lies in the connector's folder.
    """
    build = build_folder()
    with tempfile.TemporaryDirectory(dir=build) as folder:
        stage_connector(name, Path(folder))
        try:
            made = Project(name, Path(folder)).package()
        except RuntimeError as error:
            sys.exit(str(error))
        archive = Path(shutil.move(made, build / f"{name}.zip"))
    print(archive.relative_to(ROOT).as_posix())
    with zipfile.ZipFile(archive) as opened:
        opened.printdir()
