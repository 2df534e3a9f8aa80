"""How much of a matrix runs: some of it in `make test`, all of it in `make test-all`."""

from typing import Any

import pytest


def wide(*values: Any) -> list[Any]:
    """Values of a parameter, or tuples of several, that run at full width only."""
    return [
        pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.wide)
        for value in values
    ]
