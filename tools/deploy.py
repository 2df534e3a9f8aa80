"""Deploys one connector: `python -m tools.deploy NAME --destination D --connection C`.

The environment holds the secrets. FIVETRAN_API_KEY: the base64 of key and secret.
CONNECTOR_CONFIGURATION: a configuration as JSON, to be stored with the connection; without it an
existing connection keeps its own. Further options go to `fivetran deploy` as they are.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONNECTORS = sorted(path.parent.name for path in ROOT.glob("connectors/*/connector.py"))
FIVETRAN = Path(sys.executable).parent / "fivetran"
_PLACEHOLDER = re.compile(r"<[A-Z][A-Z0-9_]*>")
_SHORTEST_SECRET = 8  # characters; a shorter value ("true", "100") is hidden nowhere


def deploy(name: str, options: list[str], environment: dict[str, str]) -> int:
    """The exit code of `fivetran deploy` on a copy of ``connectors/<name>``.

    The copy has no configuration.json: the command would store the template's placeholders in
    place of the connection's secrets. Raises SystemExit with a sentence if something is missing.
    """
    given = _configuration(environment.get("CONNECTOR_CONFIGURATION", ""))
    key = environment.get("FIVETRAN_API_KEY", "")
    if not key:
        sys.exit("FIVETRAN_API_KEY is not set")
    with tempfile.TemporaryDirectory() as folder:
        staged = _stage(name, Path(folder))
        pinned = _read(staged / "requirements.txt")
        if given:
            path = Path(folder) / "configuration.json"
            path.touch(mode=0o600)
            path.write_text(json.dumps(given))
            options = [*options, "--configuration", str(path)]
        # The command shows the first eight characters of the key, and what Fivetran answers.
        secrets = [key, key[:8], *given.values()]
        # --yes, for --non-interactive declines to update a connection that exists.
        code = _run(
            [str(FIVETRAN), "deploy", str(staged), "--yes", *options],
            _without_surprises(environment, Path(folder)),
            sorted((s for s in secrets if len(s) >= _SHORTEST_SECRET), key=len, reverse=True),
        )
        if _read(staged / "requirements.txt") != pinned:
            sys.exit(
                f"What was deployed is not what {name}/requirements.txt pins: deploy it again"
            )
    return code


def _configuration(text: str) -> dict[str, str]:
    try:
        given = json.loads(text or "{}")
    except ValueError:
        given = None
    if not isinstance(given, dict) or not all(isinstance(v, str) for v in given.values()):
        sys.exit("CONNECTOR_CONFIGURATION is not a JSON object of texts")
    left = [
        key for key, value in given.items() if re.fullmatch(r"<[A-Z][A-Z0-9_]*>", value.strip())
    ]
    if left:
        sys.exit(f"CONNECTOR_CONFIGURATION holds placeholders: {', '.join(left)}")
    return given


def _stage(name: str, folder: Path) -> Path:
    """A copy in ``folder`` without configurations and what runs have left. Of what else lies
    there the command takes what the connector's .gitignore lets in."""
    left = ("configuration*.json", ".env*", "files", "crash-reports", "__pycache__")
    source, ignore = ROOT / "connectors" / name, shutil.ignore_patterns(*left)
    return Path(shutil.copytree(source, folder / name, ignore=ignore))


def _without_surprises(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """Without a configuration of the environment, without settings taken over from other
    connections, and with a check of dependencies that does nothing: it would rewrite the pins."""
    tools = folder / "bin"
    tools.mkdir()
    (tools / "pipreqs").write_text("#!/bin/sh\nexit 0\n")
    (tools / "pipreqs").chmod(0o755)
    left_out = ("CONNECTOR_CONFIGURATION", "FIVETRAN_CONFIGURATION")
    kept = {name: value for name, value in environment.items() if name not in left_out}
    path = os.pathsep.join([str(tools), environment.get("PATH", os.defpath)])
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


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.deploy", description=__doc__)
    parser.add_argument("name", choices=CONNECTORS)
    parser.add_argument("--destination", required=True)
    parser.add_argument("--connection", required=True)
    # For a connection that exists the command insists on it.
    parser.add_argument("--python-version", default="3.14")
    known, more = parser.parse_known_args()
    options = ["--destination", known.destination, "--connection", known.connection]
    options += ["--python-version", known.python_version, *more]
    return deploy(known.name, options, dict(os.environ))


if __name__ == "__main__":
    sys.exit(main())
