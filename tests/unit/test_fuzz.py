"""What fuzzing has found, and what it began with, once more."""

import pytest

from tests.fuzz import kept
from tests.fuzz.targets import TARGETS, seeds


@pytest.mark.parametrize("target", TARGETS)
def test_inputs_that_fuzzing_found_raise_nothing_unexpected(target: str) -> None:
    """Together they take each way through the code; `python -m tests.fuzz` finds further ones."""
    inputs = [*kept(target), *seeds(target)]
    assert kept(target)
    for data in inputs:
        TARGETS[target](data)
