"""Makes many small changes to a part of the code, one at a time, and finds those that no test
notices: mutmut, in build/mutants/PART.
"""

import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools.paths import ROOT, build_folder

_MSSQL = [
    "tests/connectors/test_mssql_ehi.py",
    "tests/connectors/test_mssql_ehi_schema.py",
    "tests/connectors/test_mssql_ehi_changes.py",
]
_UNITS = ("state", "rows", "times", "settings", "rest", "network", "pages", "spool")
_SQL_SERVER = (
    "query",
    "naming",
    "rows",
    "workers",
    "read_start",
    "read_progress",
    "table_sync",
    "table_keys",
)
_CONNECTORS = ("dentally", "dexory", "paligo", "sensource")
# The files that are changed, and the tests that should notice.
PARTS = {
    **{name: (f"shared/{name}.py", [f"tests/unit/test_{name}.py"]) for name in _UNITS},
    "listing": ("shared/[lc][io][sm]*.py", ["tests/unit/test_listing.py"]),
    **{
        f"sqlserver/{name}": (f"connectors/mssql_ehi/sqlserver/{name}.py", _MSSQL)
        for name in _SQL_SERVER
    },
    **{n: (f"connectors/{n}/[!td]*.py", [f"tests/connectors/test_{n}.py"]) for n in _CONNECTORS},
}
STEPS = {
    "run": "make the changes, and run the tests with each (the default)",
    "confirm": "try the survivors once more, each in a process of its own",
    "results": "list the survivors",
    "show": "show the change of the survivor MUTANT",
}
# Tests that start a process, which does not know of a change, or take more than a second.
_LEFT_OUT = (
    "killed command_line next_process debug_script damaged_headers one_token wrong_credentials"
    " shows shown silent interrupted ties 100_days"
)


def _mutant_name(path: Path, function: str) -> str:
    """A function by the name under which the tests load its module."""
    if path.parts[0] != "connectors":
        module = ".".join(path.with_suffix("").parts)
    elif path.stem == "connector":
        module = f"{path.parent.name}_connector"
    else:
        module = ".".join(path.with_suffix("").parts[2:])
    return f"{module}.{function}"


def mutants(part: str, step: str, mutant: str | None) -> None:
    """One of the STEPS of a part; ``mutant``: the name of the one that is shown.

    Raises SystemExit with a sentence if mutmut is not installed.
    """
    if importlib.util.find_spec("mutmut") is None:
        sys.exit("mutmut is not installed: run `make mutants`, which makes an environment with it")
    folder, (files, tests) = build_folder() / "mutants" / part, PARTS[part]
    left_out = shutil.ignore_patterns(".*", "build", "__pycache__", "files")
    shutil.copytree(ROOT, folder, ignore=left_out, dirs_exist_ok=True)
    chosen = [*tests, "-k", " and ".join(f"not {word}" for word in _LEFT_OUT.split())]
    options = {
        "source_paths": [str(path.relative_to(folder)) for path in folder.glob(files)],
        "also_copy": [path.name for path in folder.iterdir() if path.name != "mutants"],
        "pytest_add_cli_args": ["-p", "no:cacheprovider", "-p", "no:xdist"],
        "pytest_add_cli_args_test_selection": chosen,
        "timeout_multiplier": ["1.5"],
        "timeout_constant": ["5"],
        "use_git_change_detection": ["false"],
    }
    lines = ["\n  ".join([f"{key} =", *values]) for key, values in options.items()]
    (folder / "setup.cfg").write_text("\n".join(["[mutmut]", *lines, ""]))
    os.chdir(folder)
    _forget_tools()
    names: Any = importlib.import_module("mutmut.utils.format_utils")
    names.get_mutant_name = _mutant_name
    mutmut: Any = importlib.import_module("mutmut.__main__")
    if step == "confirm":
        _confirm(mutmut, chosen)
    elif step == "run":
        mutmut.cli(["run", "--max-children", "1"])
    else:
        mutmut.cli([step, *([mutant] if mutant else [])])


def _forget_tools() -> None:
    """Lets the tests import the copy of this package, whose ROOT is the copy of the repository."""
    for name in [name for name in sys.modules if name.split(".")[0] == __package__]:
        del sys.modules[name]


def _confirm(mutmut: Any, tests: list[str]) -> None:
    """Makes each change that survived in the file itself, for a new process: mutmut switches them
    on when the tests are imported, too late for code that runs only then."""
    for data, name, code in mutmut.collect_source_file_mutation_data(mutant_names=())[0]:
        if code in (0, 33):  # survived, or no test called it
            mutmut.apply_mutant(name)
            command = [sys.executable, "-m", "pytest", "-xqp", "no:cacheprovider", *tests]
            done = subprocess.run(command, capture_output=True, check=False)
            data.exit_code_by_key[name] = min(done.returncode, 1)
            shutil.copy2(ROOT / data.path, data.path)
            data.save()
