"""python-tds as it is installed, for who measures or tests without the connector's patches."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def stock_driver() -> Iterator[None]:
    """Reverts meanwhile what the connector has patched, if it was imported in this process. New
    connections of the connector itself would fail."""
    patches = getattr(sys.modules.get("sqlserver.tds_patches"), "PATCHES", ())
    for patch in patches:
        patch.revert()
    try:
        yield
    finally:
        for patch in patches:
            patch.apply()
