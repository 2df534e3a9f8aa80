"""The deployment of one connector by `fivetran deploy`."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tools.fivetran import stub_pipreqs
from tools.paths import command
from tools.staging import stage_connector

_PLACEHOLDER = re.compile(r"<[A-Z][A-Z0-9_]*>")
_SHORTEST_SECRET = 8  # characters; a shorter value ("true", "100") is hidden nowhere


def deploy_from_environment(
    name: str, destination: str, connection: str, python_version: str, more: Sequence[str]
) -> int:
    """Deploys with the secrets in the environment of this process. ``more``: further options of
    `fivetran deploy`. Returns and raises what `deploy` does."""
    options = ["--destination", destination, "--connection", connection]
    options += ["--python-version", python_version, *more]
    return deploy(name, options, dict(os.environ))


def deploy(name: str, options: list[str], environment: dict[str, str]) -> int:
    """The exit code of `fivetran deploy` on a copy of ``connectors/<name>``.

    The ``environment`` holds the secrets. FIVETRAN_API_KEY: the base64 of key and secret.
    CONNECTOR_CONFIGURATION: a configuration as JSON, to be stored with the connection; without it
    an existing connection keeps its own.

    The copy holds what is deployed and nothing else. It has no configuration.json: the command
    would store the template's placeholders in place of the connection's secrets. Raises SystemExit
    with a sentence if something is missing.
    """
    given = _configuration(environment.get("CONNECTOR_CONFIGURATION", ""))
    key = environment.get("FIVETRAN_API_KEY", "")
    if not key:
        sys.exit("FIVETRAN_API_KEY is not set")
    with tempfile.TemporaryDirectory() as folder:
        staged = stage_connector(name, Path(folder))
        pinned = _read(staged / "requirements.txt")
        if given:
            path = Path(folder) / "configuration.json"
            path.touch(mode=0o600)
            path.write_text(json.dumps(given))
            options = [*options, "--configuration", str(path)]
        # The command shows the first eight characters of the key, and Fivetran's responses.
        secrets = [key, key[:8], *given.values()]
        # --yes, for --non-interactive declines to update a connection that exists.
        code = _run(
            [command("fivetran"), "deploy", str(staged), "--yes", *options],
            _without_surprises(environment, Path(folder)),
            sorted((s for s in secrets if len(s) >= _SHORTEST_SECRET), key=len, reverse=True),
        )
        if _read(staged / "requirements.txt") != pinned:
            sys.exit(
                f"What was deployed is not what {name}/requirements.txt pins: deploy it again"
            )
    return code


def _configuration(text: str) -> dict[str, str]:
    """The configuration in CONNECTOR_CONFIGURATION; empty if there is none."""
    try:
        given = json.loads(text or "{}")
    except ValueError:
        given = None
    if not isinstance(given, dict) or not all(isinstance(v, str) for v in given.values()):
        sys.exit("CONNECTOR_CONFIGURATION is not a JSON object of strings")
    left = [key for key, value in given.items() if _PLACEHOLDER.fullmatch(value.strip())]
    if left:
        sys.exit(f"CONNECTOR_CONFIGURATION holds placeholders: {', '.join(left)}")
    return given


def _without_surprises(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """The environment of `fivetran deploy`: without a configuration of its own, without settings
    of other connections (CI), and with a stub for the check that would rewrite the pins."""
    left_out = ("CONNECTOR_CONFIGURATION", "FIVETRAN_CONFIGURATION")
    kept = {name: value for name, value in environment.items() if name not in left_out}
    path = stub_pipreqs(folder / "bin", environment.get("PATH", os.defpath))
    return {**kept, "PATH": path, "CI": "true", "DO_NOT_TRACK": "1", "PYTHONUTF8": "1"}


def _run(command: list[str], environment: dict[str, str], secrets: list[str]) -> int:
    """Runs a command and passes on what it prints, line by line, with ``secrets`` starred out."""
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    ) as process:
        for line in process.stdout or []:
            shown = line
            for secret in secrets:
                shown = shown.replace(secret, "***")
            print(shown, end="", flush=True)
    return process.returncode


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None
