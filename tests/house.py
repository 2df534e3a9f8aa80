"""What the Makefile calls: for the repository itself, and on a copy of one connector."""

import argparse
import filecmp
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT / "shared"
CONNECTORS = sorted(p.parent for p in ROOT.glob("connectors/*/connector.py"))
BIN = Path(sys.executable).parent
_SECRET_KEY = re.compile("secret|token|password|api_key|private")


def vendor() -> list[str]:
    """Replaces every connector's copy of shared/."""
    for folder in CONNECTORS:
        shutil.rmtree(folder / "shared", ignore_errors=True)
        shutil.copytree(SHARED, folder / "shared", ignore=shutil.ignore_patterns("__pycache__"))
    return []


def check_vendored() -> list[str]:
    """The connectors whose copy of shared/ differs from the original."""
    names = sorted(p.name for p in SHARED.glob("*.py"))
    errors = []
    for folder in CONNECTORS:
        copy = folder / "shared"
        copied = sorted(p.name for p in copy.iterdir() if p.name != "__pycache__")
        same, _, _ = filecmp.cmpfiles(SHARED, copy, names, shallow=False)
        if copied != names or len(same) != len(names):
            errors.append(f"{copy.relative_to(ROOT)} differs from shared/: run `make vendor`")
    return errors


def check_templates() -> list[str]:
    """What stands in a configuration template and looks like a secret."""
    errors = []
    for folder in CONNECTORS:
        path = folder / "configuration.json"
        for key, value in json.loads(path.read_text()).items():
            if _SECRET_KEY.search(key) and not re.fullmatch(r"<[A-Z0-9_]+>|true|false", value):
                errors.append(f"{path.relative_to(ROOT)}: {key} must hold a placeholder")
    return errors


def check_lint() -> list[str]:
    return [*_run("ruff", "check", "--quiet"), *_run("ruff", "format", "--check", "--quiet")]


def check_types() -> list[str]:
    errors = _run("mypy", "--no-error-summary", "shared", "tests", "benchmarks", "tools")
    for folder in CONNECTORS:
        # Each connector is a program of its own, with modules of the same names as the others'.
        files = [str(p) for p in sorted(folder.glob("*.py"))]
        errors += _run("mypy", "--no-error-summary", *files, path=f".{os.pathsep}{folder}")
    return errors


def check_workflows() -> list[str]:
    """By zizmor, and by actionlint where there is one: its package cannot do without GitHub."""
    errors = _run("zizmor", "--offline", "--no-progress", "--quiet", ".github")
    if actionlint := shutil.which("actionlint", path=f"{BIN}{os.pathsep}{os.environ['PATH']}"):
        errors += _run(actionlint)
    return errors


def check() -> list[str]:
    errors = []
    steps: list[Callable[[], list[str]]] = [
        check_vendored,
        check_templates,
        check_lint,
        check_types,
        check_workflows,
    ]
    for step in steps:
        errors += step()
    if not errors:
        print("check: copies, templates, lint, format, types and workflows are in order")
    return errors


def package(name: str) -> list[str]:
    """Makes build/<name>.zip with `fivetran package`, from a copy, and lists what is in it."""
    from tests.sandbox.fivetran import Project

    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=build) as folder:
        archive = Project(name, Path(folder)).package()
        target = shutil.move(archive, build / f"{name}.zip")
    listing = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", target], capture_output=True, text=True, check=True
    )
    print(f"{Path(target).relative_to(ROOT)}\n{listing.stdout}", end="")
    return []


def configure(name: str) -> list[str]:
    """Asks for the keys of a connector with `fivetran configuration`, which would overwrite the
    template; the responses become its configuration.local.json."""
    return _configuration(name)


def check_config(name: str) -> list[str]:
    """Calls the source with configuration.local.json: `fivetran configuration --test`."""
    return _configuration(name, "--test")


def _configuration(name: str, *options: str) -> list[str]:
    from tests.sandbox.fivetran import copy_connector

    local = ROOT / "connectors" / name / "configuration.local.json"
    if options and not local.exists():
        return [f"There is no {local.relative_to(ROOT)}: run `make configure CONNECTOR={name}`"]
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=build) as folder:
        copy = copy_connector(name, Path(folder))
        answers = copy / "configuration.json"
        answers.unlink()
        if local.exists():
            shutil.copy(local, answers)
        done = subprocess.run([BIN / "fivetran", "configuration", copy, *options], check=False)
        if done.returncode:
            return [f"fivetran configuration ended with code {done.returncode}"]
        if not options:
            shutil.move(answers, local)
            print(f"The answers are in {local.relative_to(ROOT)}, passwords encrypted")
    return []


def _run(tool: str, *arguments: str, path: str = ".") -> list[str]:
    """The output of a tool that failed."""
    done = subprocess.run(
        [BIN / tool, *arguments],
        cwd=ROOT,
        env={**os.environ, "MYPYPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    return [done.stdout + done.stderr] if done.returncode else []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for_all = {"check": check, "vendor": vendor}
    for_one = {"check-config": check_config, "configure": configure, "package": package}
    parser.add_argument("verb", choices=[*for_all, *for_one])
    parser.add_argument("name", nargs="?", choices=[folder.name for folder in CONNECTORS])
    arguments = parser.parse_args()
    if arguments.verb in for_all:
        problems = for_all[arguments.verb]()
    elif arguments.name:
        problems = for_one[arguments.verb](arguments.name)
    else:
        parser.error(f"{arguments.verb}: of which connector?")
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(bool(problems))
