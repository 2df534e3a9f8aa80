"""Checks of the whole repository, which every commit passes."""

import json
import os
import re
import shutil
import subprocess
import sys

from tools.module_names import check_module_names
from tools.paths import BIN, CONNECTORS, ROOT, command
from tools.vendored import check_vendored

SECRET_KEY = re.compile("secret|token|password|api_key|private")


def check() -> None:
    """Runs all checks. Raises SystemExit with what they found, if anything."""
    steps = (
        check_vendored,
        check_module_names,
        check_templates,
        check_lint,
        check_types,
        check_workflows,
    )
    errors = [error for step in steps for error in step()]
    if errors:
        sys.exit("\n".join(errors))
    print("check: copies, module names, templates, lint, format, types and workflows are in order")


def check_templates() -> list[str]:
    """A sentence about each value in a configuration template that looks like a secret."""
    errors = []
    for folder in CONNECTORS:
        path = folder / "configuration.json"
        for key, value in json.loads(path.read_text()).items():
            if SECRET_KEY.search(key) and not re.fullmatch(r"<[A-Z0-9_]+>|true|false", value):
                errors.append(f"{path.relative_to(ROOT)}: {key} must hold a placeholder")
    return errors


def check_lint() -> list[str]:
    """What ruff reports of rules and of the format."""
    ruff = command("ruff")
    return [*_run(ruff, "check", "--quiet"), *_run(ruff, "format", "--check", "--quiet")]


def check_types() -> list[str]:
    """What mypy reports."""
    mypy = command("mypy")
    errors = _run(mypy, "--no-error-summary", "shared", "tests", "benchmarks", "tools")
    for folder in CONNECTORS:
        # Each connector is a program of its own: each has a module `connector`.
        files = [str(path) for path in sorted(folder.glob("*.py"))]
        errors += _run(mypy, "--no-error-summary", *files, path=f".{os.pathsep}{folder}")
    return errors


def check_workflows() -> list[str]:
    """What zizmor reports and, where it is installed, actionlint: its package fetches a binary
    from GitHub, so it is no development dependency."""
    errors = _run(command("zizmor"), "--offline", "--no-progress", "--quiet", ".github")
    if actionlint := shutil.which("actionlint", path=f"{BIN}{os.pathsep}{os.environ['PATH']}"):
        errors += _run(actionlint)
    return errors


def _run(*arguments: str, path: str = ".") -> list[str]:
    """The output of a command if it fails. ``path``: where mypy finds modules."""
    done = subprocess.run(
        arguments,
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return [(done.stdout + done.stderr).rstrip()] if done.returncode else []
