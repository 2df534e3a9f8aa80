"""Names that no module of a connector may have.

Fivetran's runtime puts the folder of a connector on ``sys.path``, and the tests load all
connectors in one process. A module that is named like another one hides it there, or is hidden:
an `azure.py` broke every environment in which a package of Azure was installed.
"""

import sys
import sysconfig
from collections.abc import Iterable
from fnmatch import fnmatch
from importlib.machinery import PathFinder
from pathlib import Path

from tools.paths import CONNECTORS

# In every connector, or not deployed: no connector imports these of another one.
_EXEMPT = ("connector", "shared", "test_*", "debug_*", "conftest", "faker_mock")
_REPOSITORY = ("benchmarks", "connectors", "shared", "tests", "tools")
# Packages that are in no environment here, but may be in a customer's or in Fivetran's: vendors
# install their SDKs into these namespaces, and gRPC and protobuf go with many of them.
_NAMESPACES = ("aws", "azure", "google", "grpc", "opentelemetry")


def check_module_names(connectors: Iterable[Path] = CONNECTORS) -> list[str]:
    """A sentence about each module of ``connectors`` (their folders) whose name is taken."""
    folders = list(connectors)
    return [error for folder in folders for error in _errors(folder, folders)]


def _errors(folder: Path, connectors: list[Path]) -> list[str]:
    others = [other for other in connectors if other != folder]
    owners = {path.name: name_owner(path.stem, others) for path in _modules(folder)}
    return [
        f"connectors/{folder.name}/{name} has the name of {owner}: rename it, or move it into a "
        "package of the connector"
        for name, owner in owners.items()
        if owner
    ]


def name_owner(name: str, connectors: Iterable[Path] = CONNECTORS) -> str | None:
    """What has a name already, in words ("a module of Python's standard library"), if anything.
    ``connectors``: the folders of connectors that have modules of their own."""
    if name in sys.stdlib_module_names:
        return "a module of Python's standard library"
    if name in _REPOSITORY:
        return f"the folder {name}/ of this repository"
    if name in _NAMESPACES:
        return "a package into which vendors install their SDKs"
    for folder in connectors:
        if name in {path.stem for path in _modules(folder)}:
            return f"a module of {folder.name}"
    if PathFinder.find_spec(name, [sysconfig.get_path(kind) for kind in ("purelib", "platlib")]):
        return (
            "an installed package"  # what the connectors pin is in every development environment
        )
    return None


def _modules(folder: Path) -> list[Path]:
    """The modules and packages at the top of a connector's folder that have names of their own."""
    packages = [path.parent for path in folder.glob("*/__init__.py")]
    found = sorted([*folder.glob("*.py"), *packages])
    return [path for path in found if not any(fnmatch(path.stem, name) for name in _EXEMPT)]
