"""A sync on this machine, which `python connector.py` starts."""

import atexit
import json
import os
import pkgutil
import shutil
import sys
import tempfile
from pathlib import Path

from fivetran_connector_sdk import Connector

from .settings import ENCRYPTED

# By name: the SDK's check of dependencies looks for each imported name at the package index, and
# only the SDK that runs on a desk has this module.
_DECRYPT = "fivetran_connector_sdk_cli.configuration_decryption:decrypt_configuration_values"


def debug(connector: Connector, file: str) -> None:
    """Syncs once, as `fivetran debug` does. ``file``: that of the connector, in its folder. Raises
    SystemExit as ``local_configuration`` does."""
    folder = Path(file).resolve().parent
    connector.debug(str(folder), configuration=local_configuration(folder))


def local_configuration(folder: Path) -> dict[str, str]:
    """The settings in configuration.local.json or, where there is none, in configuration.json.

    Passwords that `fivetran configuration` encrypted are decrypted. ``folder``: that of the
    connector. The SDK compares the imports with requirements.txt no more, in this process; the
    commands beside this Python are found, since a virtual environment need not be activated.
    Raises SystemExit with a sentence if the file is not understood.
    """
    beside = str(Path(sys.executable).parent)
    commands = [_stub_of_pipreqs(), os.environ.get("PATH", os.defpath), beside]
    os.environ["PATH"] = os.pathsep.join(commands)
    paths = [folder / name for name in ("configuration.local.json", "configuration.json")]
    path = next((path for path in paths if path.exists()), paths[0])
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        sys.exit(f"There is no {path.name} in {folder}: `make configure` writes it")
    except ValueError:
        given = None
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        sys.exit(f"{path} must be a JSON object whose values are strings")
    return _decrypted(given, path)


def _stub_of_pipreqs() -> str:
    """A folder with a `pipreqs` that does nothing, until this process ends. The SDK lets the real
    one compare the imports with requirements.txt, for which it asks the package index: without
    the internet a sync would begin with 12 s of retries. `fivetran deploy` compares them all the
    same."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    stub = folder / "pipreqs"
    stub.write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    stub.chmod(0o755)
    return str(folder)


def _decrypted(given: dict[str, str], path: Path) -> dict[str, str]:
    if not any(value.startswith(ENCRYPTED) for value in given.values()):
        return given
    try:
        decrypted: dict[str, str] = pkgutil.resolve_name(_DECRYPT)(given)
    except (ImportError, AttributeError):
        sys.exit(
            f"{path.name} holds encrypted values, which this version of the SDK does not decrypt "
            f"here: run `fivetran debug --configuration {path.name}` instead"
        )
    except ValueError:
        sys.exit(
            f"{path.name} holds values that cannot be decrypted with the key in "
            "~/.fivetran/connector_sdk: enter them again by `make configure`"
        )
    return decrypted
